//! The entry that follows from what a scan saw: its content, its metadata, and whether it can be believed.

use crate::core::content::ContentId;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Kind, MODE_MASK, Stamp};
use crate::core::id::{DeviceId, EpochId};
use crate::core::version::COUNT_MAX;

use super::Now;

const SECOND_NS: i64 = 1_000_000_000;

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
    let mtime_differs = disk.kind != DiskKind::Directory && !shows_mtime(disk.mtime_ns, entry.disk_mtime_ns());
    if !mode_differs && !mtime_differs {
        return false;
    }
    let id = entry.kind.content_id().filter(|_| disk.kind != DiskKind::Directory);
    let touched = match entry.meta.touched {
        Some((_, of)) if !mtime_differs && Some(of) == id => entry.meta.touched,
        _ => id.filter(|_| !shows_mtime(disk.mtime_ns, entry.mtime_ns)).map(|id| (disk.mtime_ns, id)),
    };
    entry.meta.stamp = Stamp { count: (entry.meta.stamp.count + 1).min(COUNT_MAX), epoch };
    if disk.kind != DiskKind::Symlink {
        entry.meta.mode = Some((disk.kind, disk.mode & MODE_MASK));
    }
    entry.meta.touched = touched;
    true
}

/// True where a disk shows an mtime as well as it can: some keep whole seconds only, or even ones.
pub(super) fn shows_mtime(shown_ns: i64, wanted_ns: i64) -> bool {
    let cut_ns = wanted_ns.saturating_sub(shown_ns);
    let is_cut = |grain_ns: i64| shown_ns % grain_ns == 0 && (0..grain_ns).contains(&cut_ns);
    cut_ns == 0 || is_cut(SECOND_NS) || is_cut(2 * SECOND_NS)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::path::RelPath;

    #[test]
    fn a_time_that_the_disk_has_cut_is_nobodys_touch() {
        let kind = Kind::File(Content::of_chunk(b"x"));
        let nothing = Entry::nothing(RelPath::parse(b"a").unwrap());
        let entry = Entry { kind, mtime_ns: 83_300_000_000, ..nothing };
        let disk = |mtime_ns, mode| DiskState { kind: DiskKind::File, size: 1, mtime_ns, ctime_ns: 5, inode: 1, mode };
        let noted = |mtime_ns, mode| {
            let mut entry = entry.clone();
            let is_news = note_metadata(&mut entry, disk(mtime_ns, mode), EpochId(1));
            (is_news, entry.meta.touched.map(|(mtime_ns, _)| mtime_ns))
        };
        let mode = entry.mode();
        for shown in [83_300_000_000, 83_000_000_000, 82_000_000_000] {
            assert_eq!(noted(shown, mode), (false, None));
            assert_eq!(noted(shown, mode ^ 0o100), (true, None), "only the mode");
        }
        for touched in [84_000_000_000, 81_000_000_000, 80_000_000_000, 83_200_000_000] {
            assert_eq!(noted(touched, mode), (true, Some(touched)));
        }
    }
}
