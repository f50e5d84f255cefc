//! What the writer has read a moment ago and has not changed since: it is asked for again with every file.

use std::cell::RefCell;

use super::open::Index;
use super::{IndexError, Record, State};
use crate::core::path::RelPath;

/// Forgotten whenever it is written to, and with every transaction that is undone.
#[derive(Default)]
pub(super) struct Memo {
    state: RefCell<Option<State>>,
    /// The last directory that was asked for.
    directory: RefCell<Option<Record>>,
}

impl Memo {
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
    use super::super::testing::*;
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::{EpochId, RunId};

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
