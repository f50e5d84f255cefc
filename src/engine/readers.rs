//! Indexes that stay open between two questions about a folder: opening one takes longer than most answers.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::index::{IndexError, Reader};

/// Open indexes that are kept per folder. Seldom do more than two ask at once; each takes a few descriptors and up to
/// 2 MiB.
const KEPT_MAX: usize = 2;

/// The open indexes of one folder that nobody reads just now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    idle: Vec<(FileId, Reader)>,
    is_closed: bool,
}

/// Device and inode. While a file is open no other gets these.
type FileId = (u64, u64);

/// An index to read in, which goes back to where it was taken from.
pub struct Lent {
    reader: Option<Reader>,
    back: Option<(Readers, FileId)>,
}

impl Readers {
    /// The index at `path`: one that is open already, if it is still the one that lies there.
    pub fn take(&self, path: &Path) -> Result<Lent, IndexError> {
        let Ok(file) = std::fs::metadata(path).map(|file| (file.dev(), file.ino())) else {
            return Reader::open(path).map(Lent::from);
        };
        let mut kept = self.lock();
        // An index that was set aside is read no more.
        kept.idle.retain(|(of, _)| *of == file);
        let open = kept.idle.pop().map(|(_, reader)| reader);
        drop(kept);
        let reader = open.map_or_else(|| Reader::open(path), Ok)?;
        Ok(Lent { reader: Some(reader), back: Some((self.clone(), file)) })
    }

    /// The folder stops: nothing is kept from now on.
    pub fn close(&self) {
        let mut kept = self.lock();
        kept.is_closed = true;
        kept.idle.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Reader> for Lent {
    /// One that nobody keeps.
    fn from(reader: Reader) -> Self {
        Self { reader: Some(reader), back: None }
    }
}

impl Deref for Lent {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader.as_ref().expect("a reader is there until it is given back")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(reader), Some((readers, file))) = (self.reader.take(), self.back.take()) else { return };
        let mut kept = readers.lock();
        // What panicked while it read may have left the reader in the midst of something.
        if !kept.is_closed && kept.idle.len() < KEPT_MAX && !std::thread::panicking() {
            kept.idle.push((file, reader));
        }
    }
}

/// Which indexes are open is no part of what is told about a folder.
impl PartialEq for Readers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Readers {}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::EpochId;
    use crate::engine::testing::path;
    use crate::index::{Index, Mark};

    fn index(at: &Path) -> Index {
        Index::open(at, EpochId(1)).unwrap()
    }

    fn put(index: &mut Index, name: &str) {
        let entry = Entry { kind: Kind::Directory, ..Entry::nothing(path(name)) };
        index.put(&entry, None, Mark::Here, 1).unwrap();
    }

    fn idle(readers: &Readers) -> usize {
        readers.lock().idle.len()
    }

    #[test]
    fn an_index_that_stayed_open_shows_what_was_written_since() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let (mut index, readers) = (index(&at), Readers::default());
        for name in ["a", "b", "c"] {
            put(&mut index, name);
            let reader = readers.take(&at).unwrap();
            assert!(reader.record(&path(name)).unwrap().is_some(), "{name}");
            assert_eq!(idle(&readers), 0, "it is the one that was open");
            drop(reader);
            assert_eq!(idle(&readers), 1);
        }
    }

    #[test]
    fn no_more_are_kept_than_are_of_use_and_none_once_the_folder_stops() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let readers = Readers::default();
        assert!(readers.take(&at).is_err(), "there is none yet");
        let _index = index(&at);
        let lent: Vec<Lent> = (0..KEPT_MAX + 3).map(|_| readers.take(&at).unwrap()).collect();
        drop(lent);
        assert_eq!(idle(&readers), KEPT_MAX);
        let late = readers.take(&at).unwrap();
        readers.close();
        assert_eq!(idle(&readers), 0);
        drop(late);
        assert_eq!(idle(&readers), 0);
    }

    #[test]
    fn an_index_in_the_place_of_another_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let readers = Readers::default();
        let mut old = index(&at);
        put(&mut old, "old");
        drop(readers.take(&at).unwrap());
        drop(old);
        for ending in ["", "-wal", "-shm"] {
            let file = dir.path().join(format!("index.db{ending}"));
            if file.exists() {
                std::fs::rename(&file, dir.path().join(format!("aside.db{ending}"))).unwrap();
            }
        }
        let mut new = index(&at);
        put(&mut new, "new");
        let reader = readers.take(&at).unwrap();
        assert!(reader.record(&path("new")).unwrap().is_some());
        assert!(reader.record(&path("old")).unwrap().is_none());
    }
}
