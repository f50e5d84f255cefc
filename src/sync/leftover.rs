//! What a crash has left behind: old bytes that are no edit, though a scan finds them.

use crate::core::decide::{self, Decision};
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, Kind};
use crate::core::path::RelPath;
use crate::core::version::VersionVector;
use crate::index::{IndexError, Mark, Record};

use super::{Folder, Now};

impl Folder {
    /// Bytes that a newer entry has replaced already are no edit: they were put here by a swap whose commit was lost,
    /// or were ignored so far. They get no version of their own, and so are replaced by the newer ones. Where a user
    /// had the file before his eyes, he went back to an old version on purpose.
    pub(super) fn note_outdated(
        &mut self,
        path: &RelPath,
        ours: &Record,
        kind: &Kind,
        disk: DiskState,
        now: Now,
    ) -> Result<bool, IndexError> {
        // All directories are alike: only a crash tells one that was left behind from one that was made anew.
        let is_possible = self.after_crash || (!kind.is_directory() && !ours.entry.is_live());
        let Some(id) = kind.content_id().filter(|_| is_possible) else { return Ok(false) };
        let is_outdated = self.index.rivals(path)?.iter().any(|rival| {
            rival.entry.superseded.contains(&id)
                && decide::decide(&ours.entry, &rival.entry, &self.found) == Decision::Take
        });
        let is_outdated = is_outdated && (ours.entry.is_live() || !self.has_changed_in_this_run(ours)?);
        if is_outdated {
            let mtime_ns = if kind.is_directory() { 0 } else { disk.mtime_ns };
            let entry = Entry {
                kind: kind.clone(),
                mtime_ns,
                weight_ns: mtime_ns,
                version: VersionVector::new(),
                ..ours.entry.clone()
            };
            self.index.put_brought(&entry, None, Some(disk), Mark::Here, now.wall_ms())?;
        }
        Ok(is_outdated)
    }

    /// True where something happened at a path since the start: what was seen to go, or was taken away for a peer, and is
    /// here again was not left by a crash.
    fn has_changed_in_this_run(&self, ours: &Record) -> Result<bool, IndexError> {
        let begun = self.index.runs(self.epoch()?)?.last().map_or(1, |(_, first)| (*first).max(1));
        Ok(ours.seq >= begun)
    }
}
