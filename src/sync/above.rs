//! Directories above and below: they are there before what is in them, and go after it, unless the user put
//! something new into them.

use crate::core::action::WorkId;
use crate::core::decide::{self, Decision};
use crate::core::disk::DiskKind;
use crate::core::entry::{Entry, Kind};
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::core::version::VersionVector;
use crate::index::{IndexError, Mark, Record};

use super::plan::{copy_for, place};
use super::want::{Goal, Looked, Work};
use super::{Folder, Now};

/// Records looked at per query.
const PAGE: usize = 256;

/// What there is above a path.
pub(super) enum Above {
    Ready,
    Later,
    /// No directory is live there and none is on its way.
    Gone(Box<Record>),
    /// The directory above is not on this disk on purpose.
    PassedOn(Mark),
}

impl Folder {
    /// A directory is to go, but something lives below it: perhaps its deletion is still to come. Once every peer
    /// has told all it knows, what is left is the user's, and the directory stays.
    pub(super) fn wait_or_revive(&mut self, ours: &Record, now: Now) -> Result<Looked, IndexError> {
        let path = &ours.entry.path;
        if !self.is_told() || !self.works.is_empty() || self.is_draining_below(path)? {
            return Ok(Looked::Skipped);
        }
        let mut entry = ours.entry.clone();
        entry.version = entry.version.with(self.epoch()?, self.index.next_seq());
        self.put_decided(&entry, ours, now)?;
        // Its rivals are decided again, in the next pass.
        Ok(Looked::Skipped)
    }

    /// True where every connected peer has told all that it has.
    fn is_told(&self) -> bool {
        self.peers.values().all(|p| p.hello.is_none() || p.caught_up)
    }

    /// True where something below the directory waits to be deleted.
    fn is_draining_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        let mut after = None;
        loop {
            let page = self.index.records_from(after.as_ref(), Some(dir), PAGE)?;
            let Some(last) = page.last() else { return Ok(false) };
            after = Some(last.entry.path.clone());
            for record in page.iter().filter(|r| r.entry.is_live()) {
                let rivals = self.index.rivals(&record.entry.path)?;
                let leaves = rivals.iter().any(|r| {
                    !r.entry.is_live() && decide::decide(&record.entry, &r.entry, &self.found) == Decision::Take
                });
                if leaves || record.mark == Mark::Missing {
                    return Ok(true);
                }
            }
        }
    }

    /// Makes sure that there is, or will be, a directory above the path: those that are not live and not on their
    /// way are brought back, from the top down.
    pub(super) fn look_above(&mut self, path: &RelPath) -> Result<Above, IndexError> {
        let mut gone = Vec::new();
        for directory in path.ancestors() {
            match self.look_at_directory(&directory)? {
                Above::Ready => break,
                // It was not as expected, and nobody has looked yet.
                Above::Gone(_) if self.awaited.contains(&directory) => return Ok(Above::Later),
                Above::Gone(record) => gone.push(*record),
                other => return Ok(other),
            }
        }
        while let Some(record) = gone.pop() {
            self.revive(record)?;
        }
        Ok(Above::Ready)
    }

    fn look_at_directory(&self, path: &RelPath) -> Result<Above, IndexError> {
        if let Some(work) = self.busy.get(path).and_then(|id| self.works.get(id)) {
            let makes = match &work.goal {
                Goal::Revive { .. } => true,
                Goal::Metadata { entry } => entry.kind.is_directory(),
                Goal::Adopt { rival, .. } => rival.entry.kind.is_directory(),
                Goal::MovedAway | Goal::Clear => false,
            };
            return Ok(if makes { Above::Ready } else { Above::Later });
        }
        let ours = self.ours_above(path)?;
        let is_there = ours.disk.is_some_and(|disk| disk.kind == DiskKind::Directory);
        if ours.mark == Mark::Own && !(is_there && ours.entry.kind.is_directory()) {
            return Ok(Above::PassedOn(Mark::Own));
        }
        if ours.entry.kind.is_directory() {
            return Ok(match ours.mark {
                Mark::Own => Above::Ready,
                Mark::Here if ours.disk.is_some() => Above::Ready,
                Mark::Ignored | Mark::Declined => Above::PassedOn(ours.mark),
                Mark::Missing if self.missing_since_ms.is_some() => Above::Later,
                _ => Above::Gone(Box::new(ours)),
            });
        }
        // Its own entry may just not have been looked at, or waits for its turn.
        let is_coming = self.index.rivals(path)?.iter().any(|r| {
            r.entry.kind.is_directory()
                && matches!(
                    decide::decide(&ours.entry, &r.entry, &self.found),
                    Decision::Take | Decision::Resolve { .. }
                )
        });
        // What stands in its place would be displaced as a loser: whoever replaced it may not have said so yet.
        let is_doubtful = ours.is_held() && !self.is_told();
        Ok(if is_coming || is_doubtful { Above::Later } else { Above::Gone(Box::new(ours)) })
    }

    /// Brings a directory back for what lives below it. Its version does not include that of a tombstone or file
    /// that stands there: it is concurrent to it, the directory wins, and the holder of the file keeps a copy.
    fn revive(&mut self, ours: Record) -> Result<(), IndexError> {
        let copy = copy_for(&ours, Decision::Resolve { copy: true });
        let mut directory = Entry::nothing(ours.entry.path.clone());
        directory.kind = Kind::Directory;
        directory.meta = ours.entry.meta.clone();
        let action = place(&ours, &directory, copy.as_ref(), 0);
        let work = self.begin(ours, Goal::Revive { copy })?;
        self.order(work, action);
        Ok(())
    }

    /// The entry that a revived directory gets: an event of this device alone.
    pub(super) fn revived_entry(&self, ours: &Entry) -> Result<Entry, IndexError> {
        let old = if ours.kind.is_directory() { ours.version.clone() } else { VersionVector::new() };
        let mut entry = Entry::nothing(ours.path.clone());
        entry.kind = Kind::Directory;
        entry.version = old.with(self.epoch()?, self.index.next_seq());
        entry.meta = ours.meta.clone();
        Ok(entry)
    }

    /// What waits for a directory that could not be made is planned anew, and what waits for that in turn. A disk that
    /// folds case would otherwise find a directory of another spelling in its place, and have one file under two names.
    pub(super) fn replan_below(&mut self, directory: WorkId) -> Result<(), IndexError> {
        let was_to_make = |work: &&Work| match &work.goal {
            Goal::Adopt { rival, .. } => rival.entry.kind.is_directory() && !work.ours.entry.kind.is_directory(),
            Goal::Revive { .. } => true,
            Goal::Metadata { .. } | Goal::MovedAway | Goal::Clear => false,
        };
        let Some(path) = self.works.get(&directory).filter(was_to_make).map(|work| work.path.clone()) else {
            return Ok(());
        };
        self.parked.remove(&path).unwrap_or_default().into_iter().try_for_each(|id| self.replan(id))
    }

    /// What is to be put into a directory that cannot be brought back waits like what is in that, and is tried again
    /// later: no entry of the directory's own would have it wait.
    pub(super) fn give_up_below(&mut self, id: WorkId, problem: &Problem, now: Now) -> Result<(), IndexError> {
        let is_revived = |work: &&Work| matches!(work.goal, Goal::Revive { .. });
        let Some(path) = self.works.get(&id).filter(is_revived).map(|work| work.path.clone()) else { return Ok(()) };
        let below = self.parked.remove(&path).unwrap_or_default();
        below.into_iter().try_for_each(|id| self.give_up(id, Some(problem.clone()), now))
    }

    /// Takes a work off the list, to decide about its path again.
    pub(super) fn replan(&mut self, id: WorkId) -> Result<(), IndexError> {
        match self.end_undone(id)? {
            Some(work) => self.index.set_todo(&work.path, true),
            None => Ok(()),
        }
    }

    /// True where the directory above a path has neither stayed here nor is on its way.
    pub(super) fn lacks_directory(&self, path: &RelPath) -> Result<bool, IndexError> {
        let Some(parent) = path.parent().filter(|parent| !self.busy.contains_key(parent)) else { return Ok(false) };
        Ok(!matches!(self.look_at_directory(&parent)?, Above::Ready))
    }

    /// Directories that were kept for what was left in them are the user's again when something new is in them.
    pub(super) fn revive_kept_parents(&mut self, path: &RelPath, now: Now) -> Result<(), IndexError> {
        for directory in path.ancestors() {
            let above = self.ours_above(&directory)?;
            if above.mark != Mark::Kept {
                break;
            }
            let mut entry = self.revived_entry(&above.entry)?;
            entry.version = above.entry.version.join(&entry.version);
            self.index.put(&entry, None, Mark::Here, now.wall_ms())?;
            self.rescans.insert(directory);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::super::testing::{Fixture, PEERS_EPOCH};
    use super::*;
    use crate::core::action::{Action, Outcome};
    use crate::core::id::RunId;
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::problem::ProblemKind;

    #[test]
    fn nothing_is_put_below_a_directory_that_could_not_be_brought_back() {
        let failed = |kind| Outcome::Failed(Problem::new(kind, "could not make it"));
        for outcome in [failed(ProblemKind::Name), failed(ProblemKind::NoSpace), Outcome::Changed] {
            let mut fixture = Fixture::new(0);
            let path = RelPath::parse(b"D/sub/a").unwrap();
            let version = VersionVector::new().with(PEERS_EPOCH, 1);
            let kind = Kind::Symlink(b"there".as_slice().into());
            let entry = Entry { kind, version, mtime_ns: 5, ..Entry::nothing(path.clone()) };
            let entries = vec![Announced { entry, seq: 1, held: true }];
            fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 1, more: false }));
            let orders = std::mem::take(&mut fixture.orders);
            let [(work, Action::CreateDirectory { .. })] = &orders[..] else { panic!("{orders:?}") };
            fixture.feed(Input::Applied(vec![(*work, outcome.clone())]));
            // Neither that nor another try at once, without a look.
            assert!(fixture.orders.is_empty(), "{outcome:?}: {:?}", fixture.orders);
            assert!(fixture.folder.works.is_empty() && fixture.folder.parked.is_empty());
            assert_eq!(fixture.folder.index().problem(&path).unwrap().is_some(), outcome != Outcome::Changed);
            // It is tried again later.
            fixture.feed(Input::ScanFinished { complete: true });
            fixture.wait(60_000);
            let again = |(_, action): &(_, Action)| matches!(action, Action::CreateDirectory { .. });
            assert!(fixture.orders.len() == 1 && fixture.orders.iter().all(again), "{:?}", fixture.orders);
        }
    }
}
