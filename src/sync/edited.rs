//! The entry that follows from what a scan saw: its content, its metadata, and whether it can be believed.

use crate::core::content::ContentId;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Kind, MODE_MASK, Stamp};
use crate::core::id::{DeviceId, EpochId};
use crate::core::version::COUNT_MAX;

use super::Now;

/// The entry of a local edit that issues `count`.
pub(super) fn edited(
    ours: &Entry,
    kind: Kind,
    disk: DiskState,
    author: DeviceId,
    now: Now,
    epoch: EpochId,
    count: u64,
) -> Entry {
    let is_directory = kind.is_directory();
    let replaced: Vec<ContentId> = ours.kind.content_id().into_iter().collect();
    let mtime_ns = if is_directory { 0 } else { disk.mtime_ns };
    let mut entry = Entry {
        kind,
        mtime_ns,
        weight_ns: mtime_ns.min(now.wall_ns),
        author: if is_directory { DeviceId::NONE } else { author },
        version: ours.version.clone().with(epoch, count),
        ..ours.clone()
    };
    entry.superseded = entry.superseded_with(&replaced);
    note_metadata(&mut entry, disk, epoch);
    entry
}

/// Takes mode and mtime from the disk into the entry's register. True where that changed something.
pub(super) fn note_metadata(entry: &mut Entry, disk: DiskState, epoch: EpochId) -> bool {
    let mode_differs =
        disk.kind != DiskKind::Symlink && visible_mode(disk.kind, disk.mode) != visible_mode(disk.kind, entry.mode());
    let mtime_differs = disk.kind != DiskKind::Directory && disk.mtime_ns != entry.disk_mtime_ns();
    if !mode_differs && !mtime_differs {
        return false;
    }
    let touched =
        entry.kind.content_id().filter(|_| disk.kind != DiskKind::Directory && disk.mtime_ns != entry.mtime_ns);
    entry.meta.stamp = Stamp { count: (entry.meta.stamp.count + 1).min(COUNT_MAX), epoch };
    if disk.kind != DiskKind::Symlink {
        entry.meta.mode = Some((disk.kind, disk.mode & MODE_MASK));
    }
    entry.meta.touched = touched.map(|id| (disk.mtime_ns, id));
    true
}

/// The bits that a disk of ours shows: directories always stay usable by their owner.
pub(super) fn visible_mode(kind: DiskKind, mode: u32) -> u32 {
    let mode = mode & MODE_MASK;
    if kind == DiskKind::Directory { mode | 0o700 } else { mode }
}

/// After an unclean boot: an emptied file, or one with a content that it had before.
pub(super) fn is_suspect(ours: &Entry, kind: &Kind) -> bool {
    match (ours.kind.content(), kind) {
        (Some(before), Kind::File(after)) => {
            (after.size == 0 && before.size > 0) || ours.superseded.contains(&after.id)
        }
        _ => false,
    }
}
