//! The files that an open index consists of: whether they are still those under its name.
//!
//! A database that is removed under the program that has it open takes everything it is told, and all of it is gone
//! once it is closed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::error::{Fault, Res};

/// Where an index lies that is in no file.
pub(super) const MEMORY: &str = ":memory:";

/// What tells a file from another of the same name; `None` where there is none, or where systems don't say.
type Identity = Option<(u64, u64)>;

/// The database and its write-ahead log, as they were at the first look.
#[derive(Default)]
pub(super) struct Files(Option<[Identity; 2]>);

impl Files {
    /// Looks within a transaction, where both files are there.
    pub(super) fn check(&mut self, path: &Path) -> Res<()> {
        if path == Path::new(MEMORY) {
            return Ok(());
        }
        let mut log = OsString::from(path);
        log.push("-wal");
        let now = [identity(path), identity(Path::new(&log))];
        if *self.0.get_or_insert(now) == now { Ok(()) } else { Err(Fault::Gone) }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Identity {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Where a file that is open can't be removed it is enough that it is there.
#[cfg(not(unix))]
fn identity(path: &Path) -> Identity {
    fs::metadata(path).ok().map(|_| (0, 0))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::core::id::EpochId;
    use crate::index::{Index, IndexError};

    #[test]
    fn nothing_is_committed_to_an_index_that_was_removed_or_replaced() {
        for removed in ["i.db", "i.db-wal"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("i.db");
            let mut index = Index::open(&path, EpochId(1)).unwrap();
            put(&mut index, &file("a", b"1"));
            put(&mut index, &file("b", b"1"));
            std::fs::remove_file(dir.path().join(removed)).unwrap();
            let note = |index: &mut Index| index.set_note("k", Some("v"));
            assert!(matches!(note(&mut index), Err(IndexError::Gone { .. })), "{removed}");
            std::fs::write(dir.path().join(removed), "another").unwrap();
            assert!(matches!(note(&mut index), Err(IndexError::Gone { .. })), "{removed}");
        }
    }
}
