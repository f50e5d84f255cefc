//! What came of a piece of work: staged bytes lead to an action, a done action to a commit.

use crate::core::action::{Action, Outcome, Slot, WorkId};
use crate::core::conflict;
use crate::core::decide::{self, Decision};
use crate::core::disk::DiskState;
use crate::core::entry::Entry;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::index::{IndexError, Mark, Record};
use crate::sabotage::{self, Bug};

use super::plan::place;
use super::want::{Goal, Work, retry_delay_ms, without_copy};
use super::{FetchError, Folder, Now, Output, Staged};

impl Folder {
    pub(super) fn fetched(
        &mut self,
        results: Vec<(WorkId, Result<Staged, FetchError>)>,
        now: Now,
    ) -> Result<(), IndexError> {
        for (id, result) in results {
            let Some(work) = self.works.get(&id) else { continue };
            let content = match &work.goal {
                Goal::Adopt { rival, .. } => rival.entry.kind.content(),
                _ => None,
            };
            if let Some(content) = content {
                match self.fetching.get_mut(&content) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(self.fetching.remove(&content)),
                }
                // Deletions may have waited for this.
                self.pass.want();
            }
            match result {
                Ok(staged) => self.staged(id, staged)?,
                Err(FetchError::NoSource) => self.nobody_has_it(id, now)?,
                Err(FetchError::Problem(problem)) => self.give_up(id, Some(problem), now)?,
            }
        }
        self.acks_are_due(now);
        Ok(())
    }

    fn staged(&mut self, id: WorkId, staged: Staged) -> Result<(), IndexError> {
        let Some(work) = self.works.get_mut(&id) else { return Ok(()) };
        work.lists = staged.lists;
        let (path, ours) = (work.path.clone(), work.ours.clone());
        if self.lacks_directory(&path)? {
            return self.replan(id);
        }
        // What had to have a copy when this began may have been replaced elsewhere, as is known by now.
        let has_copy = self.works.get(&id).is_some_and(|w| matches!(w.goal, Goal::Adopt { copy: Some(_), .. }));
        let is_replaced = has_copy && self.is_replaced(&ours.entry)?;
        let Some(Goal::Adopt { rival, decision, copy }) = self.works.get_mut(&id).map(|work| &mut work.goal) else {
            return Ok(());
        };
        if is_replaced && copy.take().is_some() {
            *decision = without_copy(*decision);
        }
        let (rival, decision, copy) = (rival.clone(), *decision, copy.clone());
        let entry = self.outcome_entry(&ours.entry, &rival, decision)?;
        self.order(id, place(&ours, &entry, copy.as_ref(), staged.copy));
        Ok(())
    }

    /// True where what peers say of a path includes that ours was replaced or deleted.
    fn is_replaced(&self, ours: &Entry) -> Result<bool, IndexError> {
        let rivals = self.index.rivals(&ours.path)?;
        let replaces = |rival: &Entry| {
            // The same content under a greater version replaces nothing.
            rival.kind != ours.kind && decide::decide(ours, rival, &self.found) == Decision::Take
        };
        Ok(rivals.iter().any(|rival| replaces(&rival.entry)))
    }

    pub(super) fn applied(&mut self, outcomes: Vec<(WorkId, Outcome)>, now: Now) -> Result<(), IndexError> {
        for (id, outcome) in outcomes {
            match outcome {
                Outcome::Done { disk, displaced, conflict, rescued } => {
                    if let Some(work) = self.end(id) {
                        self.commit_done(work, disk, displaced, conflict, now)?;
                    }
                    self.rescans.extend(rescued);
                }
                Outcome::Changed => self.surprised(id, now)?,
                Outcome::NotEmpty => self.not_empty(id, now)?,
                Outcome::ConflictNameTaken => self.conflict_name_taken(id, now)?,
                Outcome::NotStaged => {
                    self.give_up(
                        id,
                        Some(Problem::new(ProblemKind::Busy, "the download was incomplete and is fetched again")),
                        now,
                    )?;
                }
                Outcome::Failed(problem) if problem.kind.is_declined() => self.decline(id, problem, now)?,
                Outcome::Failed(problem) => {
                    self.remember_half_done(id);
                    self.give_up(id, Some(problem), now)?;
                }
            }
        }
        self.acks_are_due(now);
        Ok(())
    }

    /// Something else was there than expected: that is looked at first.
    fn surprised(&mut self, id: WorkId, now: Now) -> Result<(), IndexError> {
        let Some(work) = self.works.get(&id) else { return Ok(()) };
        let (path, was_left_over) = (work.path.clone(), work.ours.mark == Mark::Kept);
        if !sabotage::is(Bug::SurpriseForgotten) {
            self.rescans.insert(path.clone());
            if !was_left_over {
                let away = self.moved_away.get(&id).and_then(|other| self.works.get(other));
                self.awaited.extend(away.map(|work| work.path.clone()));
                self.awaited.insert(path.clone());
            }
        }
        self.give_up(id, None, now)?;
        if was_left_over {
            // The directory has gone, and no scan tells of what counts as deleted.
            self.index.set_disk(&path, None, Mark::Here, now.wall_ms())?;
            self.index.set_todo(&path, true)?;
        }
        Ok(())
    }

    /// Takes a work off the list and lets those go on that waited for its path.
    pub(super) fn end(&mut self, id: WorkId) -> Option<Work> {
        let work = self.works.remove(&id)?;
        self.busy.remove(&work.path);
        self.has_left(&work);
        if let Some(away) = self.moved_away.remove(&id).and_then(|other| self.works.remove(&other)) {
            self.busy.remove(&away.path);
            self.release(&away.path);
            if away.look_again {
                self.rescans.insert(away.path);
            }
        }
        self.release(&work.path);
        if work.look_again && !sabotage::is(Bug::SightingForgotten) {
            self.rescans.insert(work.path.clone());
        }
        self.pass.want();
        Some(work)
    }

    fn release(&mut self, path: &RelPath) {
        for id in self.parked.remove(path).unwrap_or_default() {
            if let Some(action) = self.works.get(&id).and_then(|w| w.action.clone()) {
                self.order(id, action);
            }
        }
    }

    /// Ends a work without a result. With a problem it is tried again later, without one as soon as the path has been
    /// looked at.
    pub(super) fn give_up(&mut self, id: WorkId, problem: Option<Problem>, now: Now) -> Result<(), IndexError> {
        if let Some(problem) = &problem {
            self.give_up_below(id, problem, now)?;
        }
        let Some(work) = self.end_undone(id)? else { return Ok(()) };
        // That a left-over directory stays is no trouble: what it is in the way of has some.
        if let Some(problem) = problem.filter(|_| !matches!(work.goal, Goal::Clear)) {
            let attempts = self.index.problem(&work.path)?.map_or(0, |row| row.attempts);
            if attempts == 0 {
                self.report("problem", Some(&work.path), problem.text.clone(), now)?;
                if problem.kind == ProblemKind::NoSpace {
                    let text = problem.text.clone();
                    self.outputs.push(Output::Event { kind: "disk_full", path: Some(work.path.clone()), text });
                }
            }
            let retry = now.wall_ms() + retry_delay_ms(problem.kind, attempts);
            self.index.set_problem(&work.path, &problem, now.wall_ms(), Some(retry))?;
        }
        Ok(())
    }

    /// Takes a work off the list that came to nothing. A file that it was to move is still where it was.
    pub(super) fn end_undone(&mut self, id: WorkId) -> Result<Option<Work>, IndexError> {
        let other = self.moved_away.get(&id).and_then(|other| self.works.get(other));
        let moved_from = other.map(|work| work.path.clone());
        self.replan_below(id)?;
        let ended = self.end(id);
        if let Some(work) = ended.as_ref().filter(|work| matches!(work.goal, Goal::Clear)) {
            // It was not begun for the sake of what peers say of its path: that is still to be decided.
            self.index.set_todo(&work.path, true)?;
        }
        if let Some(from) = moved_from {
            self.index.set_todo(&from, true)?;
            self.rescans.insert(from);
        }
        Ok(ended)
    }

    fn commit_done(
        &mut self,
        work: Work,
        disk: Option<DiskState>,
        displaced: Option<Slot>,
        conflict: Option<DiskState>,
        now: Now,
    ) -> Result<(), IndexError> {
        let ours = &work.ours;
        if let Some(slot) = displaced {
            let by = match &work.goal {
                Goal::Adopt { rival, .. } => self.link_of(rival).unwrap_or(DeviceId::NONE),
                _ => DeviceId::NONE,
            };
            self.note_displaced(ours, slot, Some(by), now)?;
        }
        match &work.goal {
            Goal::Adopt { rival, decision, copy } => {
                if let (Some(copy), Some(disk)) = (copy, conflict) {
                    self.put_conflict_copy((ours, Some(&rival.entry)), copy, disk, now)?;
                }
                let entry = self.outcome_entry(&ours.entry, rival, *decision)?;
                if let Some(content) = entry.kind.content() {
                    self.index.put_lists(content, &work.lists)?;
                }
                let brought_by = match &work.action {
                    // A file of others that the peer gave another name is nobody's: neither may what the peer puts in its
                    // place push it out of history, nor it what lay there before.
                    Some(Action::Move { from, .. }) => {
                        self.ours(from)?.brought_by.filter(|by| Some(*by) == self.link_of(rival))
                    }
                    _ => self.link_of(rival),
                };
                self.index.put_brought(&entry, brought_by, disk, Mark::Here, now.wall_ms())?;
                self.drop_if_settled(rival, &entry)?;
                self.finish_path(&entry)?;
                self.tell_applied(&ours.entry, &entry, rival.peer, now)?;
                if let Some(Action::Move { from, .. }) = &work.action {
                    self.commit_moved_away(from, now)?;
                }
                self.note_ignore_file(&entry.path);
            }
            Goal::Revive { copy } => {
                if let (Some(copy), Some(disk)) = (copy, conflict) {
                    self.put_conflict_copy((ours, None), copy, disk, now)?;
                }
                let mut entry = self.revived_entry(&ours.entry)?;
                if ours.is_held() {
                    // Its copy is here. Where those bytes turn up under this name again they are no news.
                    entry.superseded = entry.superseded_with(ours.entry.kind.content_id().as_slice());
                }
                self.index.put(&entry, disk, Mark::Here, now.wall_ms())?;
                self.finish_path(&entry)?;
            }
            Goal::Metadata { entry } => {
                self.index.put(entry, disk, Mark::Here, now.wall_ms())?;
                self.finish_path(entry)?;
            }
            Goal::MovedAway => {}
            Goal::Clear => {
                self.index.set_disk(&ours.entry.path, None, Mark::Here, now.wall_ms())?;
                self.index.set_todo(&ours.entry.path, true)?;
            }
        }
        self.touch(now);
        Ok(())
    }

    /// The path that a moved file left takes the tombstone that was waiting there.
    fn commit_moved_away(&mut self, from: &RelPath, now: Now) -> Result<(), IndexError> {
        let ours = self.ours(from)?;
        for rival in self.index.rivals(from)? {
            let takes = decide::decide(&ours.entry, &rival.entry, &self.found) == Decision::Take;
            if takes && !rival.entry.is_live() {
                let entry = decide::taken(&ours.entry, &rival.entry);
                self.index.put(&entry, None, Mark::Here, now.wall_ms())?;
                return self.finish_path(&entry);
            }
        }
        // The tombstone was taken back meanwhile. That nothing is there now is this device's doing, and no deletion.
        if ours.entry.is_live() && ours.mark == Mark::Here && ours.disk.is_some() {
            self.want_back(ours)?;
        }
        self.rescans.insert(from.clone());
        Ok(())
    }

    /// After a commit at a path: its problem is over, and what peers said of it since is decided anew.
    pub(super) fn finish_path(&mut self, entry: &Entry) -> Result<(), IndexError> {
        // The directory above may have gone since, and what was put into it with it.
        if let Some(parent) = entry.path.parent().filter(|_| entry.is_live()) {
            let above = self.ours_above(&parent)?;
            if !above.is_held() {
                self.rescans.insert(entry.path.clone());
            }
        }
        if !entry.is_live() {
            self.note_freed(&entry.path);
        }
        self.half_done.remove(&entry.path);
        self.index.clear_problem(&entry.path)?;
        if self.leaves_rivals(&entry.path, entry)? { self.index.set_todo(&entry.path, true) } else { Ok(()) }
    }

    fn tell_applied(&mut self, before: &Entry, after: &Entry, peer: DeviceId, now: Now) -> Result<(), IndexError> {
        if !after.is_live() && before.is_live() {
            self.index.note_removal(now.wall_ms(), &after.path)?;
        }
        if after.kind.is_directory() || before.kind.is_directory() {
            return Ok(());
        }
        let from = peer.short();
        let (kind, text) = match (before.is_live(), after.is_live()) {
            // What this device said of the path earlier counts again: a change was taken back here.
            (_, false) if peer == self.settings.device => ("deleted", "taken back; the file is in history".into()),
            (false, true) if peer == self.settings.device => ("received", "is back".into()),
            (true, true) if peer == self.settings.device => ("updated", "taken back; what it was is in history".into()),
            (_, false) => ("deleted", format!("deleted by {from}; the file is in history")),
            (false, true) => ("received", format!("received from {from}")),
            (true, true) => ("updated", format!("updated by {from}; the old version is in history")),
        };
        self.report(kind, Some(&after.path), text, now)
    }

    /// The copy's name is taken: by the same bytes from another device, then no copy is needed; or by another version,
    /// then part of the content id goes into the name.
    fn conflict_name_taken(&mut self, id: WorkId, now: Now) -> Result<(), IndexError> {
        let Some(work) = self.works.get(&id) else { return Ok(()) };
        let (loser, action) = (work.ours.entry.clone(), work.action.clone());
        let (Goal::Adopt { copy: Some(taken), .. } | Goal::Revive { copy: Some(taken) }) = work.goal.clone() else {
            return self.give_up(id, None, now);
        };
        let there = self.ours(&taken)?;
        let is_same = there.is_held() && there.entry.kind == loser.kind;
        let longer = conflict::conflict_name(&loser.path, loser.mtime_ns, loser.author, loser.kind.content_id()).ok();
        let copy = if is_same { None } else { longer };
        let Some(action) = action.filter(|_| copy.as_ref() != Some(&taken)) else {
            // Even that name is taken, by something that is not in the index yet.
            self.rescans.insert(taken);
            let text = "there is no free name for the conflict copy; move away the file that has its name";
            return self.give_up(id, Some(Problem::new(ProblemKind::InTheWay, text)), now);
        };
        if let Some(Goal::Adopt { copy: goal, .. } | Goal::Revive { copy: goal }) =
            self.works.get_mut(&id).map(|w| &mut w.goal)
        {
            goal.clone_from(&copy);
        }
        self.order(id, with_copy(action, copy));
        Ok(())
    }

    /// This disk cannot hold the entry: it is known and passed on, and does not count as missing here.
    fn decline(&mut self, id: WorkId, problem: Problem, now: Now) -> Result<(), IndexError> {
        self.give_up_below(id, &problem, now)?;
        let Some(work) = self.end_undone(id)? else { return Ok(()) };
        let path = work.path.clone();
        if let Goal::Adopt { rival, decision: Decision::Take, .. } = &work.goal {
            let ours: Record = work.ours.clone();
            if !ours.entry.is_live() {
                self.pass_on(ours, rival, Decision::Take, Mark::Declined, now)?;
            }
        }
        self.report("problem", Some(&path), problem.text.clone(), now)?;
        self.index.set_problem(&path, &problem, now.wall_ms(), None)
    }
}

/// The same action with another name for the conflict copy.
fn with_copy(mut action: Action, copy: Option<RelPath>) -> Action {
    use crate::core::action::Displace;
    let expect = match &mut action {
        Action::CreateDirectory { expect, .. }
        | Action::PlaceFile { expect, .. }
        | Action::PlaceSymlink { expect, .. } => expect.as_mut(),
        _ => None,
    };
    if let Some(expect) = expect {
        expect.displace = copy.map_or(Displace::History, Displace::ConflictCopy);
    }
    action
}

#[cfg(test)]
mod tests {
    use super::super::emptied::NOT_EMPTY_LOOKS;
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, disk, path};
    use super::super::{Input, Observation, Seen, Settings};
    use super::*;
    use crate::core::action::Displace;
    use crate::core::content::Content;
    use crate::core::decide::deleted;
    use crate::core::disk::DiskKind;
    use crate::core::entry::Kind;
    use crate::core::id::RunId;
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::VersionVector;
    use crate::index::HistoryRow;

    fn hear(fixture: &mut Fixture, entry: Entry, seq: u64) {
        let entries = vec![Announced { entry, seq, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: seq, more: false }));
    }

    /// What is fetched is there, and whatever is then ordered ends like this.
    fn answer(fixture: &mut Fixture, outcome: &Outcome) -> Option<Action> {
        let fetched: Vec<WorkId> =
            fixture.folder.works.iter().filter(|(_, w)| w.action.is_none()).map(|w| *w.0).collect();
        let staged = || Ok(Staged { lists: Vec::new(), copy: 0 });
        fixture.feed(Input::Fetched(fetched.into_iter().map(|id| (id, staged())).collect()));
        let (work, action) = fixture.orders.pop()?;
        fixture.feed(Input::Applied(vec![(work, outcome.clone())]));
        Some(action)
    }

    /// The peer says that file 0 has other content now, by whomever it likes to name; that is put in its place.
    fn replace(fixture: &mut Fixture, bytes: &[u8], author: DeviceId, seq: u64) {
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let kind = Kind::File(Content::of_chunk(bytes));
        hear(fixture, Entry { kind, author, version: ours.version.with(PEERS_EPOCH, seq), ..ours }, seq);
        let name = RelPath::parse(format!("slot{seq}").as_bytes()).unwrap();
        let displaced = Some(Slot { name, disk: disk(seq) });
        let done = Outcome::Done { disk: Some(disk(100 + seq)), displaced, conflict: None, rescued: None };
        assert!(answer(fixture, &done).is_some());
    }

    #[test]
    fn who_brought_what_was_displaced_is_the_peer_that_said_it_and_not_the_author_that_it_names() {
        let mut fixture = Fixture::new(1);
        let own = fixture.folder.settings.device;
        replace(&mut fixture, b"one", own, 1);
        replace(&mut fixture, b"two", DeviceId([9; 32]), 2);
        replace(&mut fixture, b"three", own, 3);
        let rows = fixture.folder.index().history_of(&path(0)).unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.brought_by, row.displaced_by)).collect();
        assert_eq!(told, [PEER, PEER, DeviceId::NONE].map(|device| (Some(device), Some(PEER))));
        // Only the latest of what it brought has to stay, and what was there before it came.
        let has_later = |row: &HistoryRow| fixture.folder.index().has_later_by_remote(&row.slot).unwrap();
        assert_eq!(rows.iter().map(has_later).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn a_file_that_a_peer_gave_another_name_stays_in_history_and_lets_what_was_there_before_stay() {
        let mut fixture = Fixture::new(1);
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let moved = Entry { path: path(7), version: ours.version.clone().with(PEERS_EPOCH, 1), ..ours.clone() };
        let entries =
            [(moved, 1), (deleted(&ours, PEERS_EPOCH, 2), 2)].map(|(entry, seq)| Announced { entry, seq, held: true });
        let batch = Batch { epoch: PEERS_EPOCH, run: RunId(2), entries: entries.to_vec(), upto: 2, more: false };
        fixture.hear(Message::Index(batch));
        let done = Outcome::Done { disk: Some(disk(0)), displaced: None, conflict: None, rescued: None };
        let action = answer(&mut fixture, &done);
        assert!(matches!(action, Some(Action::Move { .. })), "{action:?}");
        assert_eq!(fixture.folder.ours(&path(7)).unwrap().brought_by, None);
    }

    /// The peer's version of file 0 that is concurrent to ours and wins.
    fn winner(ours: &Entry) -> Entry {
        let (mtime_ns, version) = (1_700_000_000_000_000_000, VersionVector::new().with(PEERS_EPOCH, 1));
        let kind = Kind::File(Content::of_chunk(b"winner"));
        Entry { kind, mtime_ns, weight_ns: mtime_ns, version, author: PEER, ..ours.clone() }
    }

    /// What becomes of file 0 where it has to give way.
    fn displaced_to(action: Option<Action>) -> Option<Displace> {
        match action {
            Some(Action::PlaceFile { expect: Some(expect), .. } | Action::Remove { expect, .. }) => {
                Some(expect.displace)
            }
            _ => None,
        }
    }

    #[test]
    fn what_was_replaced_elsewhere_gets_no_copy_whenever_that_is_heard() {
        let (settings, peers) = (Fixture::new(1).folder.settings, [PEER, DeviceId([3; 32])]);
        for is_heard_late in [false, true] {
            let mut fixture = Fixture::new(1);
            fixture.feed(Input::Observed(vec![super::super::testing::seen(0, 9)]));
            fixture.feed(Input::Settings(Settings { peers: peers.into(), ..settings.clone() }));
            let ours = fixture.folder.ours(&path(0)).unwrap().entry;
            let gone = deleted(&ours, PEERS_EPOCH, 2);
            let other = Announced { entry: winner(&ours), seq: 1, held: true };
            let put_other = |fixture: &mut Fixture| fixture.folder.index.put_rival(peers[1], &other).unwrap();
            put_other(&mut fixture);
            if is_heard_late {
                fixture.folder.pass.want();
                fixture.feed(Input::Tick);
                assert_eq!(fixture.folder.works.len(), 1);
            }
            hear(&mut fixture, gone, 1);
            let action = answer(&mut fixture, &Outcome::NotStaged);
            assert_eq!(displaced_to(action), Some(Displace::History), "{is_heard_late}");
        }
    }

    #[test]
    fn what_peers_said_is_durable_before_it_is_put_on_the_disk() {
        let mut fixture = Fixture::new(0);
        let version = VersionVector::new().with(PEERS_EPOCH, 1);
        let before = fixture.folder.syncs();
        hear(&mut fixture, Entry { kind: Kind::Directory, version, ..Entry::nothing(path(0)) }, 1);
        assert_eq!((fixture.orders.len(), fixture.folder.syncs()), (1, before + 1));
    }

    #[test]
    fn a_directory_that_comes_back_where_a_file_stands_has_replaced_that_file() {
        let mut fixture = Fixture::new(1);
        let content = fixture.folder.ours(&path(0)).unwrap().entry.kind.content_id().unwrap();
        let below = RelPath::parse(b"f00000/a").unwrap();
        let version = VersionVector::new().with(PEERS_EPOCH, 1);
        let kind = Kind::Symlink(b"there".as_slice().into());
        hear(&mut fixture, Entry { kind, version, mtime_ns: 5, ..Entry::nothing(below) }, 1);
        let made = Some(DiskState { kind: DiskKind::Directory, ..disk(9) });
        let done = Outcome::Done { disk: made, displaced: None, conflict: Some(disk(0)), rescued: None };
        assert!(matches!(answer(&mut fixture, &done), Some(Action::CreateDirectory { .. })));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        assert_eq!((ours.kind, ours.superseded), (Kind::Directory, vec![content]));
    }

    #[test]
    fn a_loser_that_nobody_has_replaced_gets_its_copy() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![super::super::testing::seen(0, 9)]));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        hear(&mut fixture, winner(&ours), 1);
        let action = answer(&mut fixture, &Outcome::NotStaged);
        assert!(matches!(displaced_to(action), Some(Displace::ConflictCopy(_))));
    }

    #[test]
    fn a_conflict_copy_tells_what_both_came_from_where_both_have_replaced_it() {
        let before = Content::of_chunk(&0u64.to_be_bytes()).id;
        for (theirs, told) in [(vec![before], vec![before]), (vec![], vec![])] {
            let mut fixture = Fixture::new(1);
            fixture.feed(Input::Observed(vec![super::super::testing::seen(0, 9)]));
            let ours = fixture.folder.ours(&path(0)).unwrap().entry;
            assert_eq!(ours.superseded, [before]);
            hear(&mut fixture, Entry { superseded: theirs, ..winner(&ours) }, 1);
            let done = Outcome::Done { disk: Some(disk(9)), displaced: None, conflict: Some(disk(0)), rescued: None };
            let Some(Displace::ConflictCopy(copy)) = displaced_to(answer(&mut fixture, &done)) else { panic!() };
            let copy = fixture.folder.ours(&copy).unwrap().entry;
            assert_eq!((copy.kind, copy.superseded), (ours.kind, told));
        }
    }

    #[test]
    fn what_is_in_a_directory_whose_name_this_disk_cannot_hold_is_not_put_anywhere() {
        let mut fixture = Fixture::new(1);
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let named = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let version = |count| ours.version.clone().with(PEERS_EPOCH, count);
        let directory = Entry { kind: Kind::Directory, version: version(1), ..Entry::nothing(named("D")) };
        // One of them is here under a name that it leaves, the bytes of the other are still to come.
        let moved = Entry { path: named("D/moved"), version: version(2), ..ours.clone() };
        let kind = Kind::File(Content::of_chunk(b"fetched"));
        let fetched = Entry { path: named("D/fetched"), kind, version: version(3), ..ours.clone() };
        let gone = deleted(&ours, PEERS_EPOCH, 4);
        let entries = (1..).zip([directory, moved, fetched, gone]);
        let entries = entries.map(|(seq, entry)| Announced { entry, seq, held: true }).collect();
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 4, more: false }));
        let orders = std::mem::take(&mut fixture.orders);
        let [(work, Action::CreateDirectory { .. })] = &orders[..] else { panic!("{orders:?}") };
        let problem = Problem::new(ProblemKind::Name, "this disk takes its name for that of another file beside it");
        fixture.feed(Input::Applied(vec![(*work, Outcome::Failed(problem))]));
        answer(&mut fixture, &Outcome::Changed);
        for name in ["D", "D/moved", "D/fetched"] {
            assert_eq!(fixture.folder.ours(&named(name)).unwrap().mark, Mark::Declined, "{name}");
        }
        assert!(fixture.orders.iter().all(|(_, action)| *action.path() == path(0)), "{:?}", fixture.orders);
    }

    #[test]
    fn a_file_for_the_place_of_a_directory_that_was_left_over_waits_for_it_to_be_emptied() {
        let mut fixture = Fixture::new(0);
        let directory = DiskState { kind: DiskKind::Directory, ..disk(1) };
        let look = || Input::Observed(vec![Observation { path: path(0), seen: Seen::Directory(directory) }]);
        fixture.feed(look());
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let gone = deleted(&ours, PEERS_EPOCH, 1);
        hear(&mut fixture, gone.clone(), 1);
        for _ in 0..=NOT_EMPTY_LOOKS {
            assert!(matches!(answer(&mut fixture, &Outcome::NotEmpty), Some(Action::RemoveDirectory { .. })));
            fixture.feed(look());
        }
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().mark, Mark::Kept);

        let kind = Kind::File(Content::of_chunk(b"in its place"));
        hear(&mut fixture, Entry { kind, version: gone.version.with(PEERS_EPOCH, 2), ..gone }, 2);
        for _ in 0..NOT_EMPTY_LOOKS {
            let action = answer(&mut fixture, &Outcome::NotEmpty);
            assert!(matches!(action, Some(Action::PlaceFile { expect: Some(_), .. })), "{action:?}");
            let problem = fixture.folder.index().problem(&path(0)).unwrap().unwrap().problem;
            assert!(!problem.text.contains("deleted"), "{}", problem.text);
            fixture.feed(look());
        }
        answer(&mut fixture, &Outcome::NotEmpty);
        let problem = fixture.folder.index().problem(&path(0)).unwrap().unwrap().problem;
        assert_eq!(problem.kind, ProblemKind::InTheWay);
        // Nothing is tried again at once.
        assert!(fixture.folder.is_idle() && fixture.orders.is_empty());
        fixture.wait(60_000);
        assert!(answer(&mut fixture, &Outcome::Changed).is_some());
        // The user has moved it away, of which no scan tells.
        let action = answer(&mut fixture, &Outcome::NotStaged);
        assert!(matches!(action, Some(Action::PlaceFile { expect: None, .. })), "{action:?}");
    }

    #[test]
    fn a_loser_that_only_has_a_greater_version_elsewhere_gets_its_copy() {
        let (settings, peers) = (Fixture::new(1).folder.settings, [PEER, DeviceId([3; 32])]);
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![super::super::testing::seen(0, 9)]));
        fixture.feed(Input::Settings(Settings { peers: peers.into(), ..settings }));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let version = VersionVector::new().with(crate::core::id::EpochId(3), 1);
        let other = Announced { entry: Entry { version, ..winner(&ours) }, seq: 1, held: true };
        fixture.folder.index.put_rival(peers[1], &other).unwrap();
        fixture.folder.pass.want();
        fixture.feed(Input::Tick);
        assert_eq!(fixture.folder.works.len(), 1);
        let same = Entry { version: ours.version.clone().with(PEERS_EPOCH, 2), ..ours };
        hear(&mut fixture, same, 1);
        let action = answer(&mut fixture, &Outcome::NotStaged);
        assert!(matches!(displaced_to(action), Some(Displace::ConflictCopy(_))));
    }
}
