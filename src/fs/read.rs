//! Reading what the user has: hashing whole files, and ranges of files for serving and for local copies.

use std::sync::atomic::AtomicBool;

use rustix::io::Errno;

use super::error::{is_absence, is_name_error, problem};
use super::hash::{self, BUFFER_BYTES};
use super::nearby::Nearby;
use super::root::{Area, OpenRoot, special_file};
use super::sys::{self, Place, Stat};
use crate::core::content::{ChunkList, Content};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::sabotage::{self, Bug};

/// A file written less than this long ago may be written again within the same tick of the file system's clock.
/// Kernel ticks are at most 10 ms.
const RACY_NS: i64 = 20_000_000;
/// The same for file systems that keep whole (FAT: even) seconds.
const RACY_COARSE_NS: i64 = 2_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// A file read to its end without a sign of change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashedFile {
    /// `ctime_ns` is 0 where the file was written so shortly before that a later look could miss a change.
    pub disk: DiskState,
    pub content: Content,
    /// All chunk lists, leaves first.
    pub lists: Vec<ChunkList>,
}

/// What was found at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    Hashed(HashedFile),
    Link {
        disk: DiskState,
        target: Box<[u8]>,
    },
    Directory(DiskState),
    Gone,
    /// It changed while it was being read, or the reading was stopped.
    Busy,
    Failed(Problem),
}

/// Why a range could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RangeError {
    #[error("nothing is there any more")]
    Gone,
    #[error("it is not the file that was expected")]
    Changed,
    #[error("{0}")]
    Failed(Problem),
}

/// Looks at a path and, if a file is there, reads it once: cut into chunks, each hashed, all listed.
///
/// `now_ns` is the time at the start; `buffer` is kept by the caller from file to file.
pub fn examine(root: &OpenRoot, path: &RelPath, now_ns: i64, buffer: &mut Vec<u8>, stop: &AtomicBool) -> ReadOutcome {
    examine_near(&Nearby::new(root), path, now_ns, buffer, stop)
}

/// The same for one of several paths that come in their order.
pub fn examine_near(
    near: &Nearby,
    path: &RelPath,
    now_ns: i64,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> ReadOutcome {
    examine_in(near, Area::Tree, path, now_ns, buffer, stop)
}

/// The same for a slot of the history.
pub fn examine_slot(
    root: &OpenRoot,
    slot: &RelPath,
    now_ns: i64,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> ReadOutcome {
    examine_in(&Nearby::new(root), Area::History, slot, now_ns, buffer, stop)
}

fn examine_in(
    near: &Nearby,
    area: Area,
    path: &RelPath,
    now_ns: i64,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> ReadOutcome {
    let found = near.place(area, path).and_then(|place| Ok((place.stat()?, place)));
    let (stat, place) = match found {
        Ok(found) => found,
        Err(errno) if is_absence(errno) || is_name_error(errno) => return ReadOutcome::Gone,
        Err(errno) => return ReadOutcome::Failed(problem("look at it", errno)),
    };
    let Some(disk) = stat.state else { return ReadOutcome::Failed(special_file()) };
    let outcome = match disk.kind {
        DiskKind::Directory => Ok(ReadOutcome::Directory(disk)),
        DiskKind::Symlink => read_link(&place, disk, now_ns),
        DiskKind::File => hash_place(&place, &stat, now_ns, buffer, stop),
    };
    outcome.unwrap_or_else(|errno| match errno {
        Errno::NOENT => ReadOutcome::Gone,
        // Replaced by a link meanwhile, or leased by a program that is writing it.
        Errno::LOOP | Errno::AGAIN | Errno::NXIO => ReadOutcome::Busy,
        other => ReadOutcome::Failed(problem("read it", other)),
    })
}

/// Reads a range of the file that the index describes; a file that is no longer that one is not read.
pub fn read_range(
    near: &Nearby,
    path: &RelPath,
    expect: &DiskState,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, RangeError> {
    if offset.checked_add(len as u64).is_none_or(|end| end > expect.size) {
        return Err(RangeError::Changed);
    }
    read_range_in(near, Area::Tree, path, Some(expect), offset, len)
}

/// Reads a range of a slot of the history.
pub fn read_slot(near: &Nearby, slot: &RelPath, offset: u64, len: usize) -> Result<Vec<u8>, RangeError> {
    read_range_in(near, Area::History, slot, None, offset, len)
}

fn read_range_in(
    near: &Nearby,
    area: Area,
    path: &RelPath,
    expect: Option<&DiskState>,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, RangeError> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => RangeError::Gone,
        Errno::LOOP | Errno::AGAIN | Errno::NXIO => RangeError::Changed,
        other => RangeError::Failed(problem("read it", other)),
    };
    let place = near.place(area, path).map_err(failed)?;
    let file = place.open_to_read().map_err(failed)?;
    let look = || {
        match file.stat().map_err(failed)?.state {
            Some(state) if state.kind == DiskKind::File && expect.is_none_or(|e| is_expected(&state, e)) => {
                // Checked before the memory is taken: the length may have been asked for by a peer.
                let fits = offset.checked_add(len as u64).is_some_and(|end| end <= state.size);
                if fits { Ok(state) } else { Err(RangeError::Changed) }
            }
            _ => Err(RangeError::Changed),
        }
    };
    let before = look()?;
    let mut bytes = vec![0; len];
    if !sys::read_exact_at(&*file, &mut bytes, offset).map_err(failed)? {
        return Err(RangeError::Changed);
    }
    if look()? == before { Ok(bytes) } else { Err(RangeError::Changed) }
}

/// True where what was found is what the index has seen; its ctime counts only where it could be relied on.
pub(super) fn is_expected(found: &DiskState, expect: &DiskState) -> bool {
    if expect.ctime_ns == 0 { found.is_same_file_as(expect) } else { found.is_unchanged_since(expect) }
}

fn read_link(place: &Place, disk: DiskState, now_ns: i64) -> Result<ReadOutcome, Errno> {
    let target = place.readlink()?;
    if place.state()? != Some(disk) {
        return Ok(ReadOutcome::Busy);
    }
    Ok(ReadOutcome::Link { disk: with_reliability(disk, now_ns), target: target.into() })
}

/// Hashes the regular file at a place.
pub(super) fn hash_place(
    place: &Place,
    seen: &Stat,
    now_ns: i64,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> Result<ReadOutcome, Errno> {
    let file = place.open_to_read()?;
    let before = match file.stat()?.state {
        Some(state) if state.kind == DiskKind::File && Some(state) == seen.state => state,
        _ => return Ok(ReadOutcome::Busy),
    };
    if before.size > BUFFER_BYTES as u64 {
        file.expect_whole_read();
    }
    let Some((content, lists)) = hash::hash(&*file, before.size, buffer, stop)? else { return Ok(ReadOutcome::Busy) };
    let is_same = file.stat()?.state == Some(before) && place.state()? == Some(before);
    if !is_same && !sabotage::is(Bug::ReadWhileWritten) {
        return Ok(ReadOutcome::Busy);
    }
    Ok(ReadOutcome::Hashed(HashedFile { disk: with_reliability(before, now_ns), content, lists }))
}

/// True for what was written too shortly before `now_ns` to tell a later write from it, and will be old enough in a
/// moment.
pub fn is_young(disk: &DiskState, now_ns: i64) -> bool {
    !is_coarse(disk) && with_reliability(*disk, now_ns).ctime_ns == 0
}

fn is_coarse(disk: &DiskState) -> bool {
    disk.ctime_ns % SECOND_NS == 0 && disk.mtime_ns % SECOND_NS == 0
}

/// The state with its ctime set to 0 where it is too young, at `now_ns`, to tell a later write from.
fn with_reliability(disk: DiskState, now_ns: i64) -> DiskState {
    let window = if is_coarse(&disk) { RACY_COARSE_NS } else { RACY_NS };
    // A time far in the future is no sign of a recent write: the next one would get another time.
    let is_near = |time_ns: i64| now_ns.abs_diff(time_ns) < window.unsigned_abs();
    let racy = (is_near(disk.ctime_ns) || is_near(disk.mtime_ns)) && !sabotage::is(Bug::RacyTimesTrusted);
    DiskState { ctime_ns: if racy { 0 } else { disk.ctime_ns }, ..disk }
}

/// The state of what has just been put in its place at about `now_ns`, with times that were set. A later write gives it
/// others, unless its mtime is of this very moment.
pub(super) fn just_placed(disk: DiskState, now_ns: i64) -> DiskState {
    let window = if is_coarse(&disk) { RACY_COARSE_NS } else { RACY_NS };
    let is_near = disk.kind != DiskKind::Directory && now_ns.abs_diff(disk.mtime_ns) < window.unsigned_abs();
    let is_racy = is_near && !sabotage::is(Bug::RacyTimesTrusted);
    DiskState { ctime_ns: if is_racy { 0 } else { disk.ctime_ns }, ..disk }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chunker::{ChunkSizes, ListBuilder};
    use crate::core::problem::ProblemKind;
    use crate::fs::testing::{Folder, LATER_NS, noise, path};

    fn never() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn a_file_is_cut_the_same_through_the_buffer_as_in_one_piece() {
        let folder = Folder::new();
        for len in [0, 1, 16_384, 300_000, BUFFER_BYTES, BUFFER_BYTES + 1, 5_000_000] {
            let bytes = noise(len, len as u64);
            folder.write("a", &bytes);
            let mut builder = ListBuilder::default();
            let sizes = ChunkSizes::for_file(len as u64);
            let mut at = 0;
            while at < len {
                let cut = sizes.first_cut(&bytes[at..], true).unwrap();
                builder.push(Content::of_chunk(&bytes[at..at + cut])).unwrap();
                at += cut;
            }
            let (content, lists) = builder.finish().unwrap();
            let hashed = folder.hashed("a");
            assert_eq!((hashed.content, hashed.lists, hashed.content.size), (content, lists, len as u64));
        }
    }

    #[test]
    fn says_what_stands_there() {
        let folder = Folder::new();
        std::fs::create_dir(folder.at("d")).unwrap();
        std::os::unix::fs::symlink("d/\u{fc}", folder.at("l")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(folder.examine("d"), ReadOutcome::Directory(_)));
        assert!(matches!(folder.examine("l"), ReadOutcome::Link { target, .. } if *target == *"d/\u{fc}".as_bytes()));
        assert_eq!(folder.examine("l/x"), ReadOutcome::Gone);
        assert_eq!(folder.examine("missing"), ReadOutcome::Gone);
        assert!(matches!(folder.examine("fifo"), ReadOutcome::Failed(p) if p.kind == ProblemKind::SpecialFile));
    }

    #[test]
    fn a_look_too_close_to_the_last_write_is_marked() {
        let disk = DiskState { kind: DiskKind::File, size: 1, mtime_ns: 5, ctime_ns: 7_000_000_001, inode: 1, mode: 0 };
        assert_eq!(with_reliability(disk, 7_010_000_000).ctime_ns, 0);
        assert_eq!(with_reliability(disk, 7_030_000_000).ctime_ns, disk.ctime_ns);
        // A clock that was set back: a new write would not get the same time.
        assert_eq!(with_reliability(disk, 1_000_000_000).ctime_ns, disk.ctime_ns);
        let coarse = DiskState { mtime_ns: 6_000_000_000, ctime_ns: 6_000_000_000, ..disk };
        assert_eq!(with_reliability(coarse, 7_900_000_000).ctime_ns, 0);
        assert_eq!(with_reliability(coarse, 8_100_000_000).ctime_ns, coarse.ctime_ns);
    }

    #[test]
    fn a_file_that_changed_since_it_was_seen_is_busy() {
        let folder = Folder::new();
        folder.write("a", b"before");
        let place = folder.open.place(Area::Tree, &path("a")).unwrap();
        let seen = place.stat().unwrap();
        folder.write("a", b"afterwards");
        let outcome = hash_place(&place, &seen, LATER_NS, &mut Vec::new(), &never());
        assert_eq!(outcome, Ok(ReadOutcome::Busy));
        let file = place.open_to_read().unwrap();
        assert_eq!(hash::hash(&*file, 100, &mut Vec::new(), &never()), Ok(None), "shorter than it was");
        let stopped = hash::hash(&*file, 10, &mut Vec::new(), &AtomicBool::new(true));
        assert_eq!(stopped, Ok(None));
    }

    #[test]
    fn ranges_are_read_only_from_the_file_that_was_expected() {
        let folder = Folder::new();
        folder.write("a", b"0123456789");
        let seen = folder.look("a").unwrap();
        let read = |offset, len| read_range(&Nearby::new(&folder.open), &path("a"), &seen, offset, len);
        assert_eq!(read(3, 4).unwrap(), b"3456");
        assert_eq!(read(10, 0).unwrap(), b"");
        assert_eq!(read(8, 3), Err(RangeError::Changed));
        assert_eq!(read(u64::MAX, 2), Err(RangeError::Changed));
        let racy = DiskState { ctime_ns: 0, ..seen };
        assert_eq!(read_range(&Nearby::new(&folder.open), &path("a"), &racy, 0, 2).unwrap(), b"01");
        let gone = read_range(&Nearby::new(&folder.open), &path("b"), &seen, 0, 2);
        assert_eq!(gone, Err(RangeError::Gone));
        std::fs::remove_file(folder.at("a")).unwrap();
        folder.write("other", b"");
        folder.write("a", b"9876543210");
        assert_eq!(read(3, 4), Err(RangeError::Changed));
        assert_eq!(read_slot(&Nearby::new(&folder.open), &path("none"), 0, usize::MAX), Err(RangeError::Gone));
    }
}
