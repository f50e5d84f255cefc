//! A large content on its way into the stage, and what of it is there already: that is served to others before all
//! of it has come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::content::Content;
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::core::ranges::Ranges;
use crate::fs::root::OpenRoot;
use crate::fs::stage::StagedFile;

/// Ranges of one content that are remembered, at about 50 bytes each: more than chunks are asked for at a time. What is
/// beyond is only served once the file is complete.
pub(super) const RANGES_MAX: usize = 8192;

/// A staged file with what is known to be in it.
pub struct Download {
    file: StagedFile,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    done: Ranges,
    /// What has come since others were told.
    news: Ranges,
}

impl Download {
    /// See [`StagedFile::open`].
    pub fn open(root: &OpenRoot, content: Content, copy: u32) -> Result<Self, Problem> {
        Ok(Self { file: StagedFile::open(root, content, copy)?, parts: Mutex::default() })
    }

    pub fn content(&self) -> Content {
        self.file.content()
    }

    /// True where the chunk was there already, from an earlier attempt.
    pub fn keeps(&self, chunk: Content, offset: u64) -> bool {
        let is_there = self.file.has_data()
            && self.file.read(offset, chunk.size as usize).is_ok_and(|bytes| chunk.verify(&bytes).is_ok());
        if is_there {
            self.note(offset, chunk.size);
        }
        is_there
    }

    /// Writes verified bytes to their place.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        self.file.write(offset, bytes)?;
        self.note(offset, bytes.len() as u64);
        Ok(())
    }

    /// A chunk of what is there, verified.
    fn chunk(&self, chunk: Content, offset: u64) -> Option<Vec<u8>> {
        self.lock().done.covers(offset, chunk.size).then_some(())?;
        let bytes = self.file.read(offset, usize::try_from(chunk.size).ok()?).ok()?;
        chunk.verify(&bytes).is_ok().then_some(bytes)
    }

    /// All that is there.
    pub fn done(&self) -> Ranges {
        self.lock().done.clone()
    }

    /// What has come since this was last asked, once that is so many bytes.
    pub fn take_news(&self, bytes_min: u64) -> Option<Ranges> {
        let mut parts = self.lock();
        let is_due = !parts.news.is_empty() && parts.news.bytes() >= bytes_min;
        is_due.then(|| std::mem::take(&mut parts.news))
    }

    fn note(&self, offset: u64, length: u64) {
        let mut parts = self.lock();
        if parts.done.count() < RANGES_MAX {
            parts.done.add(offset, length);
            parts.news.add(offset, length);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The downloads of a folder, by the paths that they are for: where whoever serves finds them.
#[derive(Default)]
pub struct Downloads(Mutex<HashMap<RelPath, Arc<Download>>>);

impl Downloads {
    pub(super) fn add(&self, path: RelPath, download: Arc<Download>) {
        self.lock().insert(path, download);
    }

    pub(in crate::engine) fn remove(&self, path: &RelPath) {
        self.lock().remove(path);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// A chunk of what is being downloaded for a path, verified.
    pub fn chunk(&self, path: &RelPath, chunk: Content, offset: u64) -> Option<Vec<u8>> {
        let download = self.lock().get(path).cloned()?;
        download.chunk(chunk, offset)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RelPath, Arc<Download>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
