//! Finds chunks in what is on this disk already: in the folder's files, and in its history.

use crate::core::content::Content;
use crate::core::path::RelPath;
use crate::fs::nearby::Nearby;
use crate::fs::read::{RangeError, read_range, read_slot};
use crate::index::{IndexError, Place, Reader};

use super::shared::Shared;

/// Places of one chunk that are tried: mostly the first one is good, and each costs a read.
const PLACES_TRIED_MAX: usize = 4;

/// Where to look.
#[derive(Clone, Copy)]
pub(super) struct Local<'a> {
    pub folder: &'a Shared,
    pub near: &'a Nearby<'a>,
    pub reader: &'a Reader,
}

impl Local<'_> {
    /// The bytes of a chunk, verified, from wherever they lie.
    pub fn chunk(&self, chunk: Content) -> Option<Vec<u8>> {
        self.in_files(chunk).or_else(|| self.in_history(chunk))
    }

    fn in_files(&self, chunk: Content) -> Option<Vec<u8>> {
        first_good(
            |limit| self.found(self.reader.places(chunk.id, limit)),
            |place| self.at(place, chunk).filter(|bytes| chunk.verify(bytes).is_ok()),
        )
    }

    fn in_history(&self, chunk: Content) -> Option<Vec<u8>> {
        let read = |slot: &RelPath, offset| read_slot(self.near, slot, offset, chunk_bytes(chunk)?).ok();
        first_good(
            |limit| self.found(self.reader.history_places(chunk.id, limit)),
            |(row, offset)| read(&row.slot, *offset).filter(|bytes| chunk.verify(bytes).is_ok()),
        )
    }

    /// Reads a chunk from a file that is still what the index says. The bytes are not verified.
    pub fn at(&self, place: &Place, chunk: Content) -> Option<Vec<u8>> {
        match read_range(self.near, &place.path, &place.disk, place.offset, chunk_bytes(chunk)?) {
            Ok(bytes) => Some(bytes),
            Err(RangeError::Gone | RangeError::Changed) => {
                self.look_again(&place.path);
                None
            }
            Err(RangeError::Failed(problem)) => {
                tracing::debug!(folder = %self.folder.label, path = %place.path, %problem, "a chunk could not be read");
                None
            }
        }
    }

    /// The body of a chunk list that the index has, not verified.
    pub fn list(&self, list: Content) -> Option<Vec<u8>> {
        self.found(self.reader.list_body(list.id).map(Vec::from_iter)).pop()
    }

    fn look_again(&self, path: &RelPath) {
        self.folder.hints.hint(path.clone(), true, self.folder.clock.instant());
    }

    /// Trouble with the index means that nothing is found in it; who writes it will notice.
    fn found<T>(&self, result: Result<Vec<T>, IndexError>) -> Vec<T> {
        result.unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.label, %error, "the index could not be searched for a chunk");
            Vec::new()
        })
    }
}

/// What comes of the first of some places that is good. Mostly the first one is, and looking for more means to go
/// through all versions of a file.
fn first_good<P>(find: impl Fn(usize) -> Vec<P>, read: impl Fn(&P) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    for limit in [1, PLACES_TRIED_MAX] {
        let places = find(limit);
        if let Some(bytes) = places.iter().find_map(&read) {
            return Some(bytes);
        }
        if places.len() < limit {
            break;
        }
    }
    None
}

/// The length of a chunk in memory; `None` for what is no chunk.
fn chunk_bytes(chunk: Content) -> Option<usize> {
    usize::try_from(chunk.size).ok().filter(|_| chunk.depth == 0 && chunk.is_plausible())
}
