//! What the writer has read a moment ago and has not changed since: it is asked for again with every file.

use std::cell::{Cell, RefCell};

use super::open::Index;
use super::{IndexError, ProblemRow, Record, State};
use crate::core::content::ContentId;
use crate::core::path::RelPath;

/// Forgotten whenever it is written to, and with every transaction that is undone.
#[derive(Default)]
pub(super) struct Memo {
    state: RefCell<Option<State>>,
    /// The last directory that was asked for.
    directory: RefCell<Option<Record>>,
    /// Whether there is any trouble, and any rival that is a tombstone: mostly there is none.
    has_problems: Cell<Option<bool>>,
    has_rival_tombstones: Cell<Option<bool>>,
}

impl Memo {
    pub fn note_problem(&self) {
        self.has_problems.set(Some(true));
    }

    pub fn forget_problems(&self) {
        self.has_problems.set(None);
    }

    pub fn note_rival_tombstone(&self) {
        self.has_rival_tombstones.set(Some(true));
    }

    /// Some rivals have gone. Where none was a tombstone, none is.
    pub fn rivals_went(&self) {
        if self.has_rival_tombstones.get() == Some(true) {
            self.has_rival_tombstones.set(None);
        }
    }

    pub fn forget_state(&mut self) {
        self.state.take();
    }

    /// Forgets what is known of this path.
    pub fn forget(&mut self, path: &RelPath) {
        if self.directory.get_mut().as_ref().is_some_and(|record| record.entry.path == *path) {
            self.directory.take();
        }
    }
}

impl Index {
    /// Which life of the index this is and how far it has got.
    pub fn state(&self) -> Result<State, IndexError> {
        let known = *self.memo.state.borrow();
        let state = match known {
            Some(state) => state,
            None => *self.memo.state.borrow_mut().insert(self.reader.state()?),
        };
        let last_seq = self.reader.counters.as_ref().map_or(state.last_seq, |counters| counters.last_seq);
        Ok(State { last_seq, ..state })
    }

    /// The trouble at a path.
    pub fn problem(&self, path: &RelPath) -> Result<Option<ProblemRow>, IndexError> {
        if self.has_problems()? { self.reader.problem(path) } else { Ok(None) }
    }

    pub(super) fn has_problems(&self) -> Result<bool, IndexError> {
        self.known(&self.memo.has_problems, "SELECT 1 FROM problems LIMIT 1")
    }

    /// Files on this disk with this content that a peer holds to be deleted: where a move may have begun.
    pub fn moved_from(&self, id: ContentId, limit: usize) -> Result<Vec<Record>, IndexError> {
        let sql = "SELECT 1 FROM rivals INDEXED BY rivals_deleted WHERE kind = 0 LIMIT 1";
        if self.known(&self.memo.has_rival_tombstones, sql)? {
            self.reader.moved_from(id, limit)
        } else {
            Ok(Vec::new())
        }
    }

    /// Whether a query has any row, asked for only where it is not known.
    fn known(&self, known: &Cell<Option<bool>>, sql: &str) -> Result<bool, IndexError> {
        if let Some(known) = known.get() {
            return Ok(known);
        }
        let is_there = self.reader.first(sql, [], |_, _| Ok(()))?.is_some();
        known.set(Some(is_there));
        Ok(is_there)
    }

    /// The same as `record`, for what lies above many paths that are asked for one after the other.
    pub fn directory(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        if let Some(known) = self.memo.directory.borrow().as_ref().filter(|known| known.entry.path == *path) {
            return Ok(Some(known.clone()));
        }
        let found = self.record(path)?;
        if let Some(record) = found.as_ref().filter(|record| record.entry.kind.is_directory()) {
            *self.memo.directory.borrow_mut() = Some(record.clone());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::super::open::Index;
    use super::super::testing::*;
    use crate::core::content::Content;
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::{EpochId, RunId};
    use crate::core::problem::{Problem, ProblemKind};

    #[test]
    fn a_directory_is_what_was_written_last_also_after_what_was_undone() {
        let mut index = index();
        put(&mut index, &Entry { kind: Kind::Directory, mtime_ns: 0, weight_ns: 0, ..full("d") });
        let first = index.directory(&path("d")).unwrap();
        assert_eq!(first, index.record(&path("d")).unwrap());
        index.begin().unwrap();
        index.set_disk(&path("d"), None, Mark::Missing, 7).unwrap();
        assert_eq!(index.directory(&path("d")).unwrap().map(|record| record.mark), Some(Mark::Missing));
        index.rollback().unwrap();
        assert_eq!(index.directory(&path("d")).unwrap(), first);
        put(&mut index, &tombstone("d"));
        assert_eq!(index.directory(&path("d")).unwrap(), index.record(&path("d")).unwrap());
        index.remove(&path("d")).unwrap();
        assert_eq!(index.directory(&path("d")).unwrap(), None);
    }

    #[test]
    fn trouble_and_deletions_elsewhere_are_found_as_soon_as_they_are_written_and_no_longer_when_undone() {
        let (mut index, at) = (index(), path("a"));
        let busy = Problem::new(ProblemKind::Busy, "busy");
        let content = Content::of_chunk(b"x").id;
        put(&mut index, &file("a", b"x"));
        let seen = |index: &Index| {
            let (problem, moved) = (index.problem(&at).unwrap(), index.moved_from(content, 9).unwrap());
            assert_eq!(problem, index.reader.problem(&at).unwrap());
            assert_eq!(moved, index.reader.moved_from(content, 9).unwrap());
            (problem.is_some(), !moved.is_empty())
        };
        assert_eq!(seen(&index), (false, false));
        index.begin().unwrap();
        index.set_problem(&at, &busy, 0, None).unwrap();
        index.put_rival(PEER, &announced(tombstone("a"), 1)).unwrap();
        assert_eq!(seen(&index), (true, true));
        index.rollback().unwrap();
        assert_eq!(seen(&index), (false, false));
        index.set_problem(&at, &busy, 0, None).unwrap();
        index.put_rival(PEER, &announced(tombstone("a"), 1)).unwrap();
        assert_eq!(seen(&index), (true, true));
        index.put_rival(PEER, &announced(full("a"), 2)).unwrap();
        assert_eq!(seen(&index), (true, false));
        index.put_rival(PEER, &announced(tombstone("a"), 3)).unwrap();
        index.clear_problem(&at).unwrap();
        assert_eq!(seen(&index), (false, true));
        index.drop_rivals_of(PEER).unwrap();
        assert_eq!(seen(&index), (false, false));
    }

    #[test]
    fn the_state_is_what_was_written_last() {
        let mut index = index();
        assert!(!index.state().unwrap().scanned);
        index.begin().unwrap();
        index.set_scanned().unwrap();
        assert!(index.state().unwrap().scanned);
        index.rollback().unwrap();
        assert!(!index.state().unwrap().scanned);
        index.start_epoch(EpochId(5), RunId(6)).unwrap();
        put(&mut index, &file("a", b""));
        let state = index.state().unwrap();
        assert_eq!((state.epoch, state.run, state.last_seq, state.clean), (EpochId(5), RunId(6), 1, false));
        assert_eq!(state, index.reader.state().unwrap());
    }
}
