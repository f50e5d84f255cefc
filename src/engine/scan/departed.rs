//! Files that were just seen to have left their place: where one turns up again, moved together with the directory
//! above it, what is in it is known without a look.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::content::Content;
use crate::core::disk::DiskState;
use crate::index::{Mark, Record};

/// Files remembered, at about 150 bytes each; those of a larger directory are read.
const FILES_MAX: usize = 100_000;
/// How long one is remembered: a rename takes no time, but a large directory is walked for some.
const KEPT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub struct Departed(Mutex<State>);

#[derive(Default)]
struct State {
    by_inode: HashMap<u64, (DiskState, Content)>,
    /// The same in the order in which they were noted.
    noted: VecDeque<(Instant, u64)>,
}

impl Departed {
    /// Remembers what the index has at a path where nothing stands any more.
    pub fn note(&self, record: &Record, now: Instant) {
        let is_certain = record.mark == Mark::Here;
        let (Some(disk), Some(content), true) = (record.disk, record.entry.kind.content(), is_certain) else { return };
        let mut state = self.lock();
        state.forget_old(now);
        if state.noted.len() < FILES_MAX {
            state.by_inode.insert(disk.inode, (disk, content));
            state.noted.push_back((now, disk.inode));
        }
    }

    /// What is in a file that was seen elsewhere. Only one of which nothing has changed since, and once: a rename of
    /// the file itself changes its ctime, one of a directory above it does not.
    pub fn take(&self, seen: &DiskState, now: Instant) -> Option<Content> {
        let mut state = self.lock();
        state.forget_old(now);
        let (disk, content) = state.by_inode.get(&seen.inode)?;
        let content = seen.is_unchanged_since(disk).then_some(*content)?;
        state.by_inode.remove(&seen.inode);
        Some(content)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self, now: Instant) {
        while let Some((at, inode)) = self.noted.front()
            && now.saturating_duration_since(*at) > KEPT
        {
            self.by_inode.remove(inode);
            self.noted.pop_front();
        }
        if self.noted.is_empty() {
            // What a large directory took is given back.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::disk::DiskKind;
    use crate::core::entry::{Entry, Kind};
    use crate::core::path::RelPath;

    fn file(inode: u64, ctime_ns: i64) -> Record {
        let disk = DiskState { kind: DiskKind::File, size: 3, mtime_ns: 5, ctime_ns, inode, mode: 0o644 };
        let kind = Kind::File(Content::of_chunk(b"abc"));
        let entry = Entry { kind, ..Entry::nothing(RelPath::parse(b"d/f").expect("a valid path")) };
        Record { entry, seq: 1, disk: Some(disk), mark: Mark::Here, changed_ms: 0, brought_by: None, placed_ms: None }
    }

    #[test]
    fn a_file_of_which_nothing_has_changed_is_known_again_once() {
        let (departed, now) = (Departed::default(), Instant::now());
        departed.note(&file(7, 9), now);
        let seen = file(7, 9).disk.expect("it is there");
        assert_eq!(departed.take(&seen, now), Some(Content::of_chunk(b"abc")));
        assert_eq!(departed.take(&seen, now), None);
    }

    #[test]
    fn a_file_that_changed_or_was_looked_at_too_early_is_read() {
        let (departed, now) = (Departed::default(), Instant::now());
        departed.note(&file(7, 9), now);
        departed.note(&file(8, 0), now);
        assert_eq!(departed.take(&file(7, 10).disk.expect("it is there"), now), None);
        assert_eq!(departed.take(&file(8, 0).disk.expect("it is there"), now), None);
    }

    #[test]
    fn after_a_while_nothing_is_remembered() {
        let (departed, now) = (Departed::default(), Instant::now());
        departed.note(&file(7, 9), now);
        assert_eq!(departed.take(&file(7, 9).disk.expect("it is there"), now + KEPT * 2), None);
        let state = departed.lock();
        assert!(state.by_inode.is_empty() && state.noted.is_empty());
    }
}
