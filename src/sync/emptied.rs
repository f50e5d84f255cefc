//! Directories that are to go, or to give way to a file, and still hold something here.

use crate::core::action::{Action, WorkId};
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::index::{IndexError, Mark};

use super::want::{Goal, retry_delay_ms};
use super::{Folder, Now};

/// A directory that is not empty though the index knows of nothing in it is looked into this often before it is kept.
pub(super) const NOT_EMPTY_LOOKS: u32 = 2;
/// Left-over directories looked into at a time for the sake of one that they are in.
const LEFT_OVER_MAX: usize = 1000;

impl Folder {
    /// A directory whose last entry is gone still holds something: look into it, and if that is nothing that syncs,
    /// keep it. Its deletion is adopted; that it is still there is no event.
    pub(super) fn not_empty(&mut self, id: WorkId, now: Now) -> Result<(), IndexError> {
        let Some(work) = self.works.get(&id) else { return Ok(()) };
        if matches!(work.goal, Goal::Clear) {
            return self.end_undone(id).map(drop);
        }
        let is_to_give_way = matches!(&work.goal, Goal::Adopt { rival, .. } if rival.entry.is_live());
        let path = work.path.clone();
        self.clear_left_over_below(&path)?;
        let looks = self.index.problem(&path)?.map_or(0, |row| row.attempts);
        if looks < NOT_EMPTY_LOOKS {
            let text = match is_to_give_way {
                true => "a file is to take the place of the directory, but something is still in it here",
                false => "the directory was deleted elsewhere, but something is still in it here",
            };
            self.rescans.insert(path);
            return self.give_up(id, Some(Problem::new(ProblemKind::InTheWay, text)), now);
        }
        let Some(work) = self.end(id) else { return Ok(()) };
        let Goal::Adopt { rival, decision, .. } = &work.goal else { return Ok(()) };
        if rival.entry.is_live() {
            let text = "something that does not sync is in the directory that a file is to replace; move it away";
            let retry = now.wall_ms() + retry_delay_ms(ProblemKind::InTheWay, looks);
            return self.index.set_problem(
                &path,
                &Problem::new(ProblemKind::InTheWay, text),
                now.wall_ms(),
                Some(retry),
            );
        }
        let entry = self.outcome_entry(&work.ours.entry, rival, *decision)?;
        self.index.put(&entry, None, Mark::Kept, now.wall_ms())?;
        self.touch(now);
        self.finish_path(&entry)
    }

    /// Directories that were left behind for what did not sync in them are in the way themselves once that has been moved
    /// away. Those that still hold something stay.
    fn clear_left_over_below(&mut self, directory: &RelPath) -> Result<(), IndexError> {
        let below = self.index.marked(Mark::Kept, Some(directory), LEFT_OVER_MAX)?;
        // What is in a directory goes before it.
        for record in below.into_iter().rev().filter(|record| record.entry.path.is_below(directory)) {
            let path = record.entry.path.clone();
            if !record.entry.is_live() && !self.busy.contains_key(&path) {
                let work = self.begin(record, Goal::Clear)?;
                self.order(work, Action::RemoveDirectory { path });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, disk};
    use super::super::{Input, Observation, Seen};
    use super::*;
    use crate::core::action::Outcome;
    use crate::core::decide::deleted;
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::entry::Entry;
    use crate::core::id::RunId;
    use crate::core::message::{Announced, Batch, Message};

    fn hear(fixture: &mut Fixture, entry: Entry, seq: u64) {
        let entries = vec![Announced { entry, seq, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: seq, more: false }));
    }

    /// Answers everything that is ordered until nothing more is, and says what that was.
    fn answer(fixture: &mut Fixture, look: &dyn Fn() -> Input, outcome: impl Fn(&Action) -> Outcome) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..=NOT_EMPTY_LOOKS {
            while !fixture.orders.is_empty() {
                let orders = std::mem::take(&mut fixture.orders);
                let outcomes = orders.iter().map(|(work, action)| (*work, outcome(action))).collect();
                all.extend(orders.into_iter().map(|(_, action)| action));
                fixture.feed(Input::Applied(outcomes));
            }
            fixture.feed(look());
            fixture.wait(60_000);
        }
        all
    }

    #[test]
    fn a_directory_that_was_left_over_goes_once_it_is_empty_and_in_the_way() {
        let named = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let (above, kept) = (named("f"), named("f/q"));
        let mut fixture = Fixture::new(0);
        let directory = DiskState { kind: DiskKind::Directory, ..disk(1) };
        let seen = |path: &RelPath| Observation { path: path.clone(), seen: Seen::Directory(directory) };
        let look = || Input::Observed(vec![seen(&above), seen(&kept)]);
        fixture.feed(look());
        let ours = |fixture: &Fixture, path: &RelPath| fixture.folder.ours(path).unwrap();
        let gone = deleted(&ours(&fixture, &kept).entry, PEERS_EPOCH, 1);
        hear(&mut fixture, gone, 1);
        answer(&mut fixture, &look, |_| Outcome::NotEmpty);
        assert_eq!(ours(&fixture, &kept).mark, Mark::Kept);

        let gone = deleted(&ours(&fixture, &above).entry, PEERS_EPOCH, 2);
        hear(&mut fixture, gone, 2);
        let removed = |action: &Action| match *action.path() == named("f/q") {
            true => Outcome::Done { disk: None, displaced: None, conflict: None, rescued: None },
            false => Outcome::NotEmpty,
        };
        let orders = answer(&mut fixture, &look, removed);
        assert!(orders.contains(&Action::RemoveDirectory { path: kept.clone() }), "{orders:?}");
        assert_ne!(ours(&fixture, &kept).mark, Mark::Kept);
    }

    #[test]
    fn that_a_left_over_directory_cannot_go_is_no_trouble_of_its_own() {
        let named = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let mut fixture = Fixture::new(0);
        let directory = DiskState { kind: DiskKind::Directory, ..disk(1) };
        let look = || {
            let seen = |name| Observation { path: named(name), seen: Seen::Directory(directory) };
            Input::Observed(["f", "f/q"].map(seen).into())
        };
        fixture.feed(look());
        for (seq, name) in [(1, "f/q"), (2, "f")] {
            let gone = deleted(&fixture.folder.ours(&named(name)).unwrap().entry, PEERS_EPOCH, seq);
            hear(&mut fixture, gone, seq);
            let io = Problem::new(ProblemKind::Io, "could not remove it");
            answer(&mut fixture, &look, |action| match *action.path() == named("f/q") && seq == 2 {
                true => Outcome::Failed(io.clone()),
                false => Outcome::NotEmpty,
            });
        }
        assert!(fixture.folder.index().problem(&named("f/q")).unwrap().is_none());
    }

    #[test]
    fn what_is_heard_of_a_left_over_directory_before_it_goes_is_looked_at_afterwards() {
        for is_gone in [true, false] {
            let named = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
            let (above, kept) = (named("f"), named("f/q"));
            let mut fixture = Fixture::new(0);
            let directory = DiskState { kind: DiskKind::Directory, ..disk(1) };
            let seen = |path: &RelPath| Observation { path: path.clone(), seen: Seen::Directory(directory) };
            let look = || Input::Observed(vec![seen(&above), seen(&kept)]);
            fixture.feed(look());
            let ours = |fixture: &Fixture, path: &RelPath| fixture.folder.ours(path).unwrap().entry;
            let gone = deleted(&ours(&fixture, &kept), PEERS_EPOCH, 1);
            hear(&mut fixture, gone.clone(), 1);
            answer(&mut fixture, &look, |_| Outcome::NotEmpty);
            let above_gone = deleted(&ours(&fixture, &above), PEERS_EPOCH, 2);
            hear(&mut fixture, above_gone, 2);
            let (work, _) = fixture.orders.pop().unwrap();
            let version = gone.version.clone().with(PEERS_EPOCH, 3);
            hear(&mut fixture, Entry { kind: crate::core::entry::Kind::Directory, version, ..gone }, 3);
            fixture.feed(Input::Applied(vec![(work, Outcome::NotEmpty)]));
            let (work, action) = fixture.orders.pop().unwrap();
            assert_eq!(action, Action::RemoveDirectory { path: kept.clone() });
            let done = Outcome::Done { disk: None, displaced: None, conflict: None, rescued: None };
            fixture.feed(Input::Applied(vec![(work, if is_gone { done } else { Outcome::NotEmpty })]));
            let is_wanted = fixture.folder.works.values().any(|work| work.path == kept);
            assert!(is_wanted || ours(&fixture, &kept).is_live(), "{is_gone}");
        }
    }
}
