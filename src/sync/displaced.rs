//! What became of what an action took out of its place: a version in history, or a conflict copy.

use crate::core::action::Slot;
use crate::core::conflict;
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, MODE_MASK, Meta, Stamp};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::version::COUNT_MAX;
use crate::index::{HistoryRow, IndexError, Mark, Record};

use super::{Folder, Now};

impl Folder {
    /// Notes what went into history, and which peer's change put it there.
    pub(super) fn note_displaced(
        &mut self,
        ours: &Record,
        slot: Slot,
        displaced_by: Option<DeviceId>,
        now: Now,
    ) -> Result<(), IndexError> {
        let (brought_by, placed_ms) = match ours.mark {
            // What lies there is not what the entry says.
            Mark::Suspect => (None, None),
            Mark::Own | Mark::Reverted => (Some(DeviceId::NONE), None),
            _ => (ours.brought_by, ours.placed_ms),
        };
        let row = HistoryRow {
            slot: slot.name,
            path: ours.entry.path.clone(),
            // What is in a suspect file is not what its entry says.
            content: ours.content_here(),
            disk: slot.disk,
            author: ours.entry.author,
            displaced_ms: now.wall_ms(),
            by_remote: true,
            brought_by,
            displaced_by,
            placed_ms,
        };
        self.index.add_history(&row)
    }

    /// The losing version under its own name, with what both came from for whoever merges them: the same entry on every
    /// device that holds it, but for the version.
    pub(super) fn put_conflict_copy(
        &mut self,
        (ours, winner): (&Record, Option<&Entry>),
        copy: &RelPath,
        disk: DiskState,
        now: Now,
    ) -> Result<(), IndexError> {
        let loser = &ours.entry;
        let base = winner.and_then(|winner| conflict::base(loser, winner));
        let before = self.ours(copy)?;
        let epoch = self.epoch()?;
        let stamp = Stamp { count: (before.entry.meta.stamp.count + 1).min(COUNT_MAX), epoch };
        let touched = loser.kind.content_id().filter(|_| disk.mtime_ns != loser.mtime_ns).map(|id| (disk.mtime_ns, id));
        let mut entry = Entry {
            path: copy.clone(),
            version: before.entry.version.with(epoch, self.index.next_seq()),
            superseded: before.entry.superseded,
            meta: Meta { stamp, mode: Some((disk.kind, disk.mode & MODE_MASK)), touched },
            ..loser.clone()
        };
        entry.superseded = entry.superseded_with(base.as_slice());
        // A peer may have chosen the name: what is displaced there later is nothing to compare it with.
        self.index.put_brought(&entry, None, Some(disk), Mark::Here, now.wall_ms())?;
        self.index.set_todo(copy, true)?;
        self.report("conflict", Some(&loser.path), copied_text(copy), now)
    }
}

/// What the log says of a conflict copy that was made.
pub fn copied_text(copy: &RelPath) -> String {
    format!("changed on two devices at once; this device's version was kept as {copy}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PEER, disk, path};
    use super::super::{Input, Settings};
    use super::*;
    use crate::core::id::{EpochId, RunId};
    use crate::core::ignore::Rules;
    use crate::index::Index;

    #[test]
    fn what_of_history_could_not_be_noted_leaves_no_transaction_open() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let index = Index::open(&file, EpochId(1)).unwrap();
        let mut folder = Folder::new(index, Settings::default(), Rules::default(), RunId(1)).unwrap();
        let other = rusqlite::Connection::open(&file).unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON history BEGIN SELECT RAISE(ABORT, 'no'); END";
        other.execute_batch(refuse).unwrap();
        let row = HistoryRow {
            slot: path(0),
            path: path(1),
            content: None,
            disk: disk(1),
            author: PEER,
            displaced_ms: 1,
            by_remote: true,
            brought_by: None,
            displaced_by: None,
            placed_ms: None,
        };
        assert!(folder.note_history(std::slice::from_ref(&row)).is_err());
        other.execute_batch("DROP TRIGGER refuse").unwrap();
        folder.note_history(&[row]).unwrap();
        let now = Now { wall_ns: 1_800_000_000_000_000_000, mono_ms: 1000, random: 7 };
        folder.handle(Input::Tick, now).unwrap();
        assert_eq!(folder.index().history_of(&path(1)).unwrap().len(), 1);
    }
}
