//! What a crash has left behind: old bytes that are no edit, though a scan finds them.

use crate::core::decide::{self, Decision};
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, Kind};
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::core::version::VersionVector;
use crate::index::{IndexError, Mark, Record};

use super::observe::TWINS_MAX;
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
        let is_outdated = is_outdated && (ours.entry.is_live() || !self.was_ours_in_this_run(ours)?);
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

    /// After a crash: something that is known to be deleted, as it was before. A swap put it here whose commit
    /// was lost, and the deletion was heard of before the scan: it is carried out, into history.
    pub(super) fn note_leftover(
        &mut self,
        ours: &Record,
        kind: &Kind,
        disk: DiskState,
        now: Now,
    ) -> Result<bool, IndexError> {
        let was_replaced = kind.content_id().is_some_and(|id| ours.entry.superseded.contains(&id));
        // What was made after the deletion was made on purpose.
        let is_older = disk.ctime_ns != 0 && disk.ctime_ns / 1_000_000 <= ours.changed_ms;
        if !self.after_crash || ours.entry.is_live() || !was_replaced || !is_older {
            return Ok(false);
        }
        if self.was_ours_in_this_run(ours)? || self.is_known_elsewhere(&ours.entry.path, kind, disk)? {
            return Ok(false);
        }
        let tombstone = Announced { entry: ours.entry.clone(), seq: ours.seq, held: true };
        self.index.put_rival(self.settings.device, &tombstone)?;
        let version = VersionVector::new();
        let mtime_ns = if kind.is_directory() { 0 } else { disk.mtime_ns };
        let entry = Entry { kind: kind.clone(), mtime_ns, version, ..ours.entry.clone() };
        self.index.put_brought(&entry, None, Some(disk), Mark::Here, now.wall_ms())?;
        Ok(true)
    }

    /// True where this very file was last seen under another name: the power went before a user's rename was durable, or
    /// he took it back. It is nowhere else now.
    fn is_known_elsewhere(&self, path: &RelPath, kind: &Kind, disk: DiskState) -> Result<bool, IndexError> {
        let has_moved = self.vanished.get(&disk.inode).is_some_and(|from| from != path);
        let Some(content) = kind.content() else { return Ok(has_moved) };
        let twins = self.index.holders(content.id, TWINS_MAX)?;
        let is_it = |r: &Record| r.entry.path != *path && r.disk.is_some_and(|known| known.inode == disk.inode);
        Ok(has_moved || twins.iter().any(is_it))
    }

    /// True where something happened at a path since the start: what was seen to go, in a directory that was moved away,
    /// and is here again was not left by a crash.
    fn was_ours_in_this_run(&self, ours: &Record) -> Result<bool, IndexError> {
        let epoch = self.epoch()?;
        let begun = self.index.runs(epoch)?.last().map_or(1, |(_, first)| (*first).max(1));
        Ok(ours.entry.version.get(epoch) >= begun)
    }
}
