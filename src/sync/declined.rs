//! Names that the disk could not hold beside others, such as one that differs only in case: decided about again once
//! those others have gone.

use super::{Folder, Now};
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark};

/// Declined records looked at per query.
const PAGE: usize = 2000;
/// Names remembered that have become free; after more of them everything declined is decided about again.
const FREED_MAX: usize = 10_000;

impl Folder {
    /// Nothing stands at this path any more.
    pub(super) fn note_freed(&mut self, path: &RelPath) {
        if self.freed.len() < FREED_MAX {
            self.freed.insert(folded(path.as_bytes()));
        }
    }

    /// Nothing is done about what this disk cannot hold, so it has no other trouble than that.
    pub(super) fn clear_all_but_name(&mut self, path: &RelPath) -> Result<(), IndexError> {
        match self.index.problem(path)? {
            Some(row) if !row.problem.kind.is_declined() => self.index.clear_problem(path),
            _ => Ok(()),
        }
    }

    /// Decides again about what was declined for the sake of names that have become free.
    pub(super) fn mind_declined(&mut self, now: Now) -> Result<(), IndexError> {
        let freed = std::mem::take(&mut self.freed);
        if freed.is_empty() {
            return Ok(());
        }
        let is_free = |path: &RelPath| {
            let at_or_above = std::iter::once(path.clone()).chain(path.ancestors());
            freed.len() >= FREED_MAX || at_or_above.into_iter().any(|path| freed.contains(&folded(path.as_bytes())))
        };
        let mut after = None;
        loop {
            let page = self.index.marked(Mark::Declined, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.path.clone());
            for record in page {
                if record.entry.is_live() && !self.busy.contains_key(&record.entry.path) && is_free(&record.entry.path)
                {
                    self.index.clear_problem(&record.entry.path)?;
                    self.mind_again(record)?;
                    self.pass.want();
                    self.touch(now);
                }
            }
        }
    }
}

/// The same for all names that differ only in case. What else disks fold is rare, and is decided about when the name
/// itself changes.
fn folded(path: &[u8]) -> String {
    String::from_utf8_lossy(path).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, disk, path};
    use super::super::{FetchError, Input, Observation, Seen};
    use super::*;
    use crate::core::action::{Action, Outcome};
    use crate::core::content::Content;
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::RunId;
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::problem::{Problem, ProblemKind};
    use crate::core::version::VersionVector;

    #[test]
    fn what_was_declined_for_its_neighbour_is_had_once_that_has_gone() {
        let mut fixture = Fixture::new(5);
        let wanted = RelPath::parse(b"F00003").unwrap();
        let mut entry = fixture.folder.ours(&path(3)).unwrap().entry;
        (entry.path, entry.kind) = (wanted.clone(), Kind::Directory);
        (entry.mtime_ns, entry.weight_ns) = (0, 0);
        entry.version = VersionVector::default().with(PEERS_EPOCH, 1);
        let entries = vec![Announced { entry, seq: 1, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 1, more: false }));
        let (work, action) = fixture.orders.pop().unwrap();
        assert_eq!(*action.path(), wanted);
        let problem = Problem::new(ProblemKind::Name, "beside another");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(problem))]));
        assert_eq!(fixture.folder.ours(&wanted).unwrap().mark, Mark::Declined);

        let gone = |n| Observation { path: path(n), seen: Seen::Absent };
        fixture.feed(Input::Observed(vec![gone(2)]));
        assert!(fixture.orders.is_empty(), "that was another name");
        fixture.feed(Input::Observed(vec![gone(3)]));
        let (work, action) = fixture.orders.pop().unwrap();
        assert_eq!(*action.path(), wanted);
        let made = Some(DiskState { kind: DiskKind::Directory, ..disk(9) });
        let done = Outcome::Done { disk: made, displaced: None, conflict: None, rescued: None };
        fixture.feed(Input::Applied(vec![(work, done)]));
        let ours = fixture.folder.ours(&wanted).unwrap();
        assert_eq!((ours.mark, ours.entry.kind), (Mark::Here, Kind::Directory));
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_none());
    }

    #[test]
    fn a_name_that_was_declined_counts_once_it_stands_there() {
        let mut fixture = Fixture::new(5);
        let mut entry = fixture.folder.ours(&path(3)).unwrap().entry;
        let wanted = RelPath::parse(b"F00003").unwrap();
        (entry.path, entry.kind, entry.mtime_ns, entry.weight_ns) = (wanted.clone(), Kind::Directory, 0, 0);
        entry.version = VersionVector::default().with(PEERS_EPOCH, 1);
        let entries = vec![Announced { entry, seq: 1, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 1, more: false }));
        let (work, _) = fixture.orders.pop().unwrap();
        // The two were made and renamed at that very moment.
        let problem = Problem::new(ProblemKind::Name, "beside another");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(problem))]));
        for _ in 0..2 {
            let seen = Seen::Directory(DiskState { kind: DiskKind::Directory, ..disk(9) });
            fixture.feed(Input::Observed(vec![Observation { path: wanted.clone(), seen }]));
        }
        let ours = fixture.folder.ours(&wanted).unwrap();
        assert_eq!((ours.mark, ours.entry.kind), (Mark::Here, Kind::Directory));
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_none());
    }

    #[test]
    fn a_name_that_was_declined_is_no_trouble_once_it_is_deleted() {
        let mut fixture = Fixture::new(5);
        let mut entry = fixture.folder.ours(&path(3)).unwrap().entry;
        (entry.path, entry.kind) = (RelPath::parse(b"F00003").unwrap(), Kind::Directory);
        (entry.mtime_ns, entry.weight_ns) = (0, 0);
        entry.version = VersionVector::default().with(PEERS_EPOCH, 1);
        let gone = crate::core::decide::deleted(&entry, PEERS_EPOCH, 2);
        let wanted = entry.path.clone();
        let hear = |fixture: &mut Fixture, entry, seq| {
            let entries = vec![Announced { entry, seq, held: true }];
            fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: seq, more: false }));
        };
        hear(&mut fixture, entry, 1);
        let (work, _) = fixture.orders.pop().unwrap();
        let problem = Problem::new(ProblemKind::Name, "beside another");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(problem))]));
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_some());
        hear(&mut fixture, gone, 2);
        assert!(!fixture.folder.ours(&wanted).unwrap().entry.is_live());
        assert_eq!(fixture.folder.index().problem(&wanted).unwrap(), None);
    }

    #[test]
    fn what_is_in_a_directory_that_cannot_come_back_under_its_name_is_not_put_anywhere() {
        let mut fixture = Fixture::new(5);
        let wanted = RelPath::parse(b"F00003/a").unwrap();
        let version = VersionVector::default().with(PEERS_EPOCH, 1);
        let kind = Kind::Symlink(b"there".as_slice().into());
        let entry = Entry { kind, version, mtime_ns: 5, ..Entry::nothing(wanted.clone()) };
        let entries = vec![Announced { entry, seq: 1, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 1, more: false }));
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::CreateDirectory { .. }), "{action:?}");
        let name = Problem::new(ProblemKind::Name, "beside another");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(name.clone()))]));
        assert_eq!(fixture.orders.len(), 0);
        assert_eq!(fixture.folder.index().problem(&wanted).unwrap().unwrap().problem, name);
        // The peer says what is above it. That cannot be here, and so what is in it is not tried any more.
        let above = wanted.parent().unwrap();
        let version = VersionVector::default().with(PEERS_EPOCH, 2);
        let entry = Entry { kind: Kind::Directory, version, ..Entry::nothing(above) };
        let entries = vec![Announced { entry, seq: 2, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 2, more: false }));
        let (work, _) = fixture.orders.pop().unwrap();
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(name))]));
        fixture.wait(60_000);
        assert_eq!(fixture.folder.ours(&wanted).unwrap().mark, Mark::Declined);
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_here_beside_its_neighbour_has_no_other_trouble() {
        let mut fixture = Fixture::new(5);
        let (above, wanted) = (RelPath::parse(b"F00003").unwrap(), RelPath::parse(b"F00003/a").unwrap());
        let ours = fixture.folder.ours(&path(3)).unwrap().entry;
        let of = |path: &RelPath, kind, count| {
            let version = VersionVector::default().with(PEERS_EPOCH, count);
            let entry = Entry { path: path.clone(), kind, version, mtime_ns: 0, weight_ns: 0, ..ours.clone() };
            Announced { entry, seq: count, held: true }
        };
        let entries = vec![of(&above, Kind::Directory, 1), of(&wanted, Kind::File(Content::of_chunk(b"new")), 2)];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 2, more: false }));
        let io = Problem::new(ProblemKind::Io, "could not write to the stage");
        let fetch = fixture.fetches.pop().unwrap();
        fixture.feed(Input::Fetched(vec![(fetch.work, Err(FetchError::Problem(io.clone())))]));
        let (work, _) = fixture.orders.pop().unwrap();
        let name = Problem::new(ProblemKind::Name, "beside another");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(name))]));
        assert_eq!(fixture.folder.index().problem(&wanted).unwrap().unwrap().problem, io);
        fixture.wait(60_000);
        assert_eq!(fixture.folder.ours(&wanted).unwrap().mark, Mark::Declined);
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_none());
        // Nor has it where one was noted before.
        fixture.folder.index.set_problem(&wanted, &io, 0, None).unwrap();
        fixture.feed(Input::Observed(vec![Observation { path: wanted.clone(), seen: Seen::Absent }]));
        assert!(fixture.folder.index().problem(&wanted).unwrap().is_none());
        assert!(fixture.folder.index().problem(&above).unwrap().is_some());
    }

    #[test]
    fn a_move_to_a_name_that_is_declined_still_leaves_the_old_name() {
        let mut fixture = Fixture::new(5);
        let ours = fixture.folder.ours(&path(3)).unwrap().entry;
        let gone = Announced { entry: crate::core::decide::deleted(&ours, PEERS_EPOCH, 1), seq: 1, held: true };
        let mut entry = ours.clone();
        entry.path = RelPath::parse(b"F00003").unwrap();
        entry.version = VersionVector::default().with(PEERS_EPOCH, 2);
        let entries = vec![gone, Announced { entry, seq: 2, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 2, more: false }));
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::Move { .. }), "{action:?}");
        fixture.feed(Input::Applied(vec![(work, Outcome::Failed(Problem::new(ProblemKind::Name, "no such name")))]));
        let (_, action) = fixture.orders.pop().unwrap();
        assert!(matches!(&action, Action::Remove { path: from, .. } if *from == path(3)), "{action:?}");
    }
}
