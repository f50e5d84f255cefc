//! The folder's history: where everything goes that comes out of the user's tree, and the ways back.
//!
//! A slot is one displaced file. Its name tells people what it was and when it went, and the agent which content the
//! index held it for.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::io::Errno;

use super::error::{FsError, is_absence, name_problem, problem};
use super::read::{self, ReadOutcome};
use super::root::{Area, HISTORY, OpenRoot, parent_bytes, special_file};
use super::stage;
use super::sys::{self, OsSystem, Place, System};
use super::walk::{self, Seen};
use crate::core::content::{Content, ContentId};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::id::{base32, hex};
use crate::core::path::{COMPONENT_BYTES_MAX, OWN_DIR, RelPath};
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;

/// Directories in slots that are told of at once: a crash leaves one or a few.
const STRAYS_MAX: usize = 1000;
/// How many names are tried for one slot: more than actions fit one millisecond.
const SLOT_ATTEMPTS_MAX: u32 = 1000;
/// Bytes of a content id shown in a slot's name.
const SHOWN_ID_BYTES: usize = 8;
/// Bytes of time (6) and nonce (4).
const STAMP_BYTES: usize = 10;
/// Stands in the place of a content id for what has none.
const NO_CONTENT: &str = "none";

/// Ends the name of a slot with what peers are never told of nor given.
const PRIVATE: &str = "-private";

/// What the name of a slot tells of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Nothing,
    Content(ContentId),
    /// Besides its content that it is this device's alone; so that is known even where the index is lost.
    Private(ContentId),
}

/// Why something could not be brought back from history.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the history no longer has it")]
    Gone,
    #[error("something stands at its place already")]
    Taken,
    #[error("{0}")]
    Failed(Problem),
}

/// Name of a slot below the history directory: the same directories, the name (shortened where all would not fit), the
/// time with the nonce, and the beginning of the content id; at last whether it is private.
pub fn slot_name(path: &RelPath, shown: Shown, now_ms: i64, nonce: u32) -> RelPath {
    // Ten bytes are sixteen characters without a rest.
    let mut stamp = [0; STAMP_BYTES];
    stamp[..6].copy_from_slice(&now_ms.clamp(0, (1 << 48) - 1).to_be_bytes()[2..]);
    stamp[6..].copy_from_slice(&nonce.to_be_bytes());
    let (shown, mark) = match shown {
        Shown::Nothing => (NO_CONTENT.into(), ""),
        Shown::Content(id) => (hex(&id.0[..SHOWN_ID_BYTES]), ""),
        Shown::Private(id) => (hex(&id.0[..SHOWN_ID_BYTES]), PRIVATE),
    };
    let tail = [b"~", &base32(&stamp)[..], b"~", shown.as_bytes(), mark.as_bytes()].concat();
    let name = path.file_name();
    let room = COMPONENT_BYTES_MAX - tail.len();
    let shortened = match std::str::from_utf8(name) {
        Ok(text) => (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0),
        Err(_) => room.min(name.len()),
    };
    let full = [name.get(..shortened).unwrap_or_default(), &tail[..]].concat();
    path.with_file_name(&full)
        // A path so long that nothing may be added to it: kept at the top instead.
        .or_else(|_| RelPath::parse(&full))
        .unwrap_or_else(|_| RelPath::parse(&tail[1..]).expect("base32 and hex make a name"))
}

/// What was displaced into a slot, and when (ms since 1970), as far as its name tells: a very long name was shortened.
pub fn origin(slot: &RelPath) -> Option<(RelPath, i64)> {
    let mut parts = slot.file_name().rsplitn(3, |b| *b == b'~').skip(1);
    let (stamp, name) = (parts.next()?, parts.next()?);
    if stamp.len() != STAMP_BYTES.div_ceil(5) * 8 {
        return None;
    }
    // Ten characters of five bits hold the 48 bits of the time and two of the nonce.
    let mut time = 0i64;
    for byte in stamp.get(..10)? {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        time = time << 5 | i64::from(digit);
    }
    Some((slot.with_file_name(name).ok()?, time >> 2))
}

/// The content id that a slot's name begins to show, in hexadecimal; `None` where it shows none.
pub fn shown_content(slot: &RelPath) -> Option<&str> {
    let shown = slot.file_name().rsplit(|b| *b == b'~').next()?;
    let text = std::str::from_utf8(shown).ok()?;
    let text = text.strip_suffix(PRIVATE).unwrap_or(text);
    (text.len() == 2 * SHOWN_ID_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)
}

/// True for a slot whose name says that it is this device's alone.
pub fn is_private(slot: &RelPath) -> bool {
    shown_content(slot).is_some() && slot.file_name().ends_with(PRIVATE.as_bytes())
}

/// Lists all slots in the order of their names, in batches.
pub fn slots(root: &OpenRoot, sink: &mut dyn FnMut(Vec<Seen>) -> ControlFlow<()>) -> Result<(), FsError> {
    let mut without_directories = |batch: Vec<Seen>| {
        let is_slot = |seen: &Seen| seen.state.as_ref().map_or(true, |s| s.kind != DiskKind::Directory);
        let batch: Vec<Seen> = batch.into_iter().filter(is_slot).collect();
        if batch.is_empty() { ControlFlow::Continue(()) } else { sink(batch) }
    };
    walk::walk_area(root, Area::History, None, &mut |_, _| true, &mut without_directories).map(drop)
}

/// The same, and then the directories that stand in slots: only a crash at the moment of a swap leaves them there.
/// A directory that only looks like one has slots of its own below it.
pub fn slots_and_strays(
    root: &OpenRoot,
    sink: &mut dyn FnMut(Vec<Seen>) -> ControlFlow<()>,
) -> Result<Vec<RelPath>, FsError> {
    let mut strays: Vec<RelPath> = Vec::new();
    let mut sort_out = |batch: Vec<Seen>| {
        let is_directory = |seen: &Seen| seen.state.as_ref().is_ok_and(|s| s.kind == DiskKind::Directory);
        for seen in &batch {
            let is_named = origin(&seen.path).is_some();
            let is_below = |stray: &RelPath| seen.path.is_below(stray);
            if is_named && !is_directory(seen) {
                strays.retain(|stray| !is_below(stray));
            } else if is_named && strays.len() < STRAYS_MAX && !strays.iter().any(is_below) {
                strays.push(seen.path.clone());
            }
        }
        let batch: Vec<Seen> = batch.into_iter().filter(|seen| !is_directory(seen)).collect();
        if batch.is_empty() { ControlFlow::Continue(()) } else { sink(batch) }
    };
    walk::walk_area(root, Area::History, None, &mut |_, _| true, &mut sort_out)?;
    Ok(strays)
}

/// Where a slot of the folder at `root` lies, for whoever only reads it.
pub fn place(root: &Path, slot: &RelPath) -> PathBuf {
    root.join(OWN_DIR).join(HISTORY).join(OsStr::from_bytes(slot.as_bytes()))
}

/// What stands in a slot.
pub fn look(root: &OpenRoot, slot: &RelPath) -> Result<Option<DiskState>, Problem> {
    match root.place(Area::History, slot).and_then(|place| place.state()) {
        Ok(state) => state.map(Some).ok_or_else(special_file),
        Err(errno) if is_absence(errno) => Ok(None),
        Err(errno) => Err(problem("look at it in the history", errno)),
    }
}

/// Removes a slot whose time is over, and the directories above it that it leaves empty.
///
/// This is the end of what a user once had, so it is for the retention rules alone to call.
pub fn expire(root: &OpenRoot, slot: &RelPath) -> Result<(), Problem> {
    let failed = |errno| problem("remove it from the history", errno);
    let place = match root.place(Area::History, slot) {
        Err(errno) if is_absence(errno) => return Ok(()),
        place => place.map_err(failed)?,
    };
    match place.unlink() {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    failpoint::hit("history.expired");
    for above in slot.ancestors() {
        let Ok(place) = root.place(Area::History, &above) else { break };
        if place.rmdir().is_err() {
            break;
        }
    }
    Ok(())
}

/// Removes a directory that stands in a slot, where it is empty.
pub fn remove_empty(root: &OpenRoot, slot: &RelPath) -> bool {
    root.place(Area::History, slot).is_ok_and(|place| place.rmdir().is_ok())
}

/// Puts a copy of a slot's file at `to`, where nothing may stand; directories above are made. The slot stays.
pub fn restore(root: &OpenRoot, slot: &RelPath, to: &RelPath, now_ms: i64) -> Result<DiskState, RestoreError> {
    let copy = copy_out(root, slot, now_ms)?;
    // The copy is the agent's own; the slot still has the bytes.
    place_from(root, &copy.0, to).inspect_err(|_| copy.discard(root))
}

/// Copies what is in a slot, to be placed afterwards.
pub fn copy_out(root: &OpenRoot, slot: &RelPath, now_ms: i64) -> Result<Incoming, RestoreError> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => RestoreError::Gone,
        other => RestoreError::Failed(problem("copy it from the history", other)),
    };
    let source = root.place(Area::History, slot).map_err(failed)?;
    let state = source.state().map_err(failed)?.ok_or(RestoreError::Failed(special_file()))?;
    let copy = match state.kind {
        DiskKind::File => copy_file(root, &source, &state, now_ms),
        DiskKind::Symlink => copy_link(root, &source, &state, now_ms),
        DiskKind::Directory => return Err(RestoreError::Gone),
    };
    copy.map(Incoming).map_err(failed)
}

/// A copy of a file in the stage, complete and durable.
pub struct Incoming(Place);

/// Copies a file from anywhere on this device; links are not followed.
pub fn copy_in(root: &OpenRoot, from: &Path, now_ms: i64) -> Result<Incoming, RestoreError> {
    let failed = |errno: Errno| RestoreError::Failed(problem("copy it", errno));
    let (Some(parent), Some(name)) = (from.parent(), from.file_name()) else { return Err(failed(Errno::INVAL)) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let dir = OsSystem.open_root(parent).map_err(failed)?;
    let source = Place { dir: dir.into(), name: name.as_bytes().into() };
    match source.state().map_err(failed)? {
        Some(state) if state.kind == DiskKind::File => {
            copy_file(root, &source, &state, now_ms).map(Incoming).map_err(failed)
        }
        _ => Err(RestoreError::Failed(Problem::new(ProblemKind::SpecialFile, "is no ordinary file"))),
    }
}

impl Incoming {
    /// Puts it at a path where nothing may stand.
    pub fn place(self, root: &OpenRoot, to: &RelPath) -> Result<(), RestoreError> {
        let placed = place_from(root, &self.0, to).map(drop);
        placed.inspect_err(|_| self.discard(root))
    }

    /// Drops it, where it is of no use any more.
    pub fn discard(&self, root: &OpenRoot) {
        let _ = stage::unlink_own(root, &self.0.name);
    }
}

/// Moves what stands in a slot to `to`, where nothing may stand: for a concurrent edit found in the history.
pub fn put_back(root: &OpenRoot, slot: &RelPath, to: &RelPath) -> Result<DiskState, RestoreError> {
    let source = root.place(Area::History, slot).map_err(|errno| match errno {
        errno if is_absence(errno) => RestoreError::Gone,
        other => RestoreError::Failed(problem("take it from the history", other)),
    })?;
    source.stat().map_err(|_| RestoreError::Gone)?;
    let state = place_from(root, &source, to)?;
    // The name it had is of no use any more, so a crash that brings it back is harmless.
    let _ = source.dir.fsync();
    Ok(state)
}

/// Moves a slot that turned out to hold a staged file (a crash came before the swap) back to the stage.
pub fn back_to_stage(root: &OpenRoot, slot: &RelPath, content: Content) -> Result<(), RestoreError> {
    let failed = |errno: Errno| match errno {
        Errno::EXIST => RestoreError::Taken,
        Errno::NOENT | Errno::NOTDIR => RestoreError::Gone,
        other => RestoreError::Failed(problem("take it back to the stage", other)),
    };
    let source = root.place(Area::History, slot).map_err(failed)?;
    let target = root.stage_place(&stage::stage_name(content, 0));
    sys::rename_to_own(&source, &target).map_err(failed)
}

/// Renames `from` to a fresh slot for what stood at `path`, and says which.
pub(super) fn move_to_slot(
    root: &OpenRoot,
    from: &Place,
    path: &RelPath,
    shown: Shown,
    now_ms: i64,
) -> Result<(RelPath, Place), Errno> {
    let mut flat = false;
    for nonce in 0..SLOT_ATTEMPTS_MAX {
        let mut slot = slot_name(path, shown, now_ms, nonce);
        if flat {
            slot = RelPath::parse(slot.file_name()).unwrap_or(slot);
        }
        let place = match root.make_place(Area::History, &slot) {
            // A file of the history has the name of a directory needed here.
            Err(errno) if is_absence(errno) && errno != Errno::NOENT && !flat => {
                flat = true;
                continue;
            }
            // An expiry took away the directory at this moment.
            Err(Errno::NOENT) => continue,
            place => place?,
        };
        failpoint::hit("apply.slot_made");
        match sys::rename_to_own(from, &place) {
            Ok(()) => return Ok((slot, place)),
            Err(Errno::EXIST) => {}
            // Either side may be missing; if it is the slot's directory, an expiry took it.
            Err(Errno::NOENT) if from.stat().is_ok() => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// Content of the file at a place; `None` where it will not hold still or is no file.
pub(super) fn content_at(place: &Place) -> Option<Content> {
    let stat = place.stat().ok()?;
    match read::hash_place(place, &stat, 0, &mut Vec::new(), &AtomicBool::new(false)) {
        Ok(ReadOutcome::Hashed(hashed)) => Some(hashed.content),
        _ => None,
    }
}

/// Copies a file into the stage under a temporary name, durable, with the mtime and mode of the original.
pub(super) fn copy_file(root: &OpenRoot, source: &Place, state: &DiskState, now_ms: i64) -> Result<Place, Errno> {
    let from = source.open_to_read()?;
    let (place, to) = stage::temporary_file(root, now_ms)?;
    let copied = || -> Result<(), Errno> {
        if from.copy_to(&*to)? != state.size {
            return Err(Errno::BUSY);
        }
        to.chmod(state.mode)?;
        to.set_mtime(state.mtime_ns)?;
        to.fsync()?;
        failpoint::hit("stage.copied");
        Ok(())
    };
    match copied() {
        Ok(()) => Ok(place),
        Err(errno) => {
            let _ = stage::unlink_own(root, &place.name);
            Err(errno)
        }
    }
}

fn copy_link(root: &OpenRoot, source: &Place, state: &DiskState, now_ms: i64) -> Result<Place, Errno> {
    let target = source.readlink()?;
    let (place, ()) = stage::make_temporary(root, now_ms, |place| place.symlink(&target))?;
    place.set_mtime(state.mtime_ns)?;
    Ok(place)
}

/// Renames to a free place in the tree, durably.
fn place_from(root: &OpenRoot, from: &Place, to: &RelPath) -> Result<DiskState, RestoreError> {
    let failed = |errno: Errno| match errno {
        Errno::EXIST => RestoreError::Taken,
        Errno::NOTDIR | Errno::LOOP => RestoreError::Taken,
        other => RestoreError::Failed(name_problem("put it at its place", other)),
    };
    let target = root.make_place(Area::Tree, to).map_err(failed)?;
    sys::rename_from_own(from, &target).map_err(failed)?;
    failpoint::hit("restore.placed");
    let state = target.state().map_err(failed)?.ok_or(RestoreError::Failed(special_file()))?;
    sync_up(root, to).map_err(failed)?;
    failpoint::hit("restore.durable");
    Ok(state)
}

/// Makes the directories above a path, durably.
pub fn make_above(root: &OpenRoot, path: &RelPath) -> Result<(), RestoreError> {
    let failed = |errno: Errno| match errno {
        Errno::NOTDIR | Errno::LOOP => RestoreError::Taken,
        other => RestoreError::Failed(name_problem("make the directory for it", other)),
    };
    root.make_place(Area::Tree, path).map_err(failed)?;
    sync_up(root, path).map_err(failed)
}

/// Makes the directory of a path durable, and those above it, which may be new.
fn sync_up(root: &OpenRoot, path: &RelPath) -> Result<(), Errno> {
    root.base(Area::Tree).open_dir_beneath(parent_bytes(path))?.fsync()?;
    for above in path.ancestors() {
        root.base(Area::Tree).open_dir_beneath(parent_bytes(&above))?.fsync()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::{Folder, path};
    use proptest::prelude::*;

    fn slot(folder: &Folder, name: &str, bytes: &[u8]) -> RelPath {
        folder.write(name, bytes);
        let place = folder.open.place(Area::Tree, &path(name)).unwrap();
        move_to_slot(&folder.open, &place, &path(name), Shown::Content(Content::of_chunk(bytes).id), 1).unwrap().0
    }

    fn listed(folder: &Folder) -> Vec<RelPath> {
        let mut all = Vec::new();
        slots(&folder.open, &mut |batch| {
            all.extend(batch.into_iter().map(|seen| seen.path));
            ControlFlow::Continue(())
        })
        .unwrap();
        all
    }

    proptest! {
        #[test]
        fn every_path_has_slot_names_that_differ_and_fit(dirs in "([a-z]{1,200}/){0,3}", name in "\\PC{1,60}", now_ms: i64, id: [u8; 32]) {
            if let Ok(path) = RelPath::parse([dirs.as_bytes(), name.as_bytes()].concat().as_slice()) {
                let slot = slot_name(&path, Shown::Content(ContentId(id)), now_ms, 7);
                prop_assert_eq!(slot.parent(), path.parent());
                prop_assert_eq!(shown_content(&slot).map(String::from), Some(hex(&id[..8])));
                prop_assert_eq!(origin(&slot), Some((path.clone(), now_ms.clamp(0, (1 << 48) - 1))));
                prop_assert_ne!(&slot, &slot_name(&path, Shown::Content(ContentId(id)), now_ms, 8));
                let private = slot_name(&path, Shown::Private(ContentId(id)), now_ms, 7);
                prop_assert_eq!(shown_content(&private), shown_content(&slot));
                prop_assert_eq!(origin(&private), origin(&slot));
                prop_assert!(is_private(&private) && !is_private(&slot));
                let without = slot_name(&path, Shown::Nothing, now_ms, 7);
                prop_assert_eq!((shown_content(&without), is_private(&without)), (None, false));
            }
        }
    }

    #[test]
    fn the_longest_paths_have_slots_too() {
        let long = format!("{}/{}/{}", vec!["x".repeat(255); 127].join("/"), "y".repeat(150), "n".repeat(100));
        let slot = slot_name(&path(&long), Shown::Nothing, 1, 1);
        assert!(slot.parent().is_none() && slot.file_name().starts_with(&[b'n'; 100]));
    }

    #[test]
    fn the_same_file_twice_in_one_millisecond_gets_two_slots() {
        let folder = Folder::new();
        let (a, b) = (slot(&folder, "d/a", b"x"), slot(&folder, "d/a", b"x"));
        assert_ne!(a, b);
        let mut wanted = vec![a.clone(), b.clone()];
        wanted.sort();
        assert_eq!(listed(&folder), wanted);
        expire(&folder.open, &a).unwrap();
        expire(&folder.open, &a).unwrap();
        assert_eq!(listed(&folder), std::slice::from_ref(&b));
        expire(&folder.open, &b).unwrap();
        assert_eq!(std::fs::read_dir(folder.at(".p2psync/history")).unwrap().count(), 0);
    }

    #[test]
    fn a_restored_file_is_a_copy_with_the_old_time_and_takes_nobodys_place() {
        let folder = Folder::new();
        let slot = slot(&folder, "d/a", b"old");
        std::fs::remove_dir(folder.at("d")).unwrap();
        let before = look(&folder.open, &slot).unwrap().unwrap();
        let disk = restore(&folder.open, &slot, &path("d/a"), 5).unwrap();
        assert_eq!((folder.text("d/a"), disk.mtime_ns, disk.mode), ("old".into(), before.mtime_ns, before.mode));
        assert_eq!(restore(&folder.open, &slot, &path("d/a"), 5), Err(RestoreError::Taken));
        assert_eq!(restore(&folder.open, &slot, &path("d/a/b"), 5), Err(RestoreError::Taken));
        assert_eq!(restore(&folder.open, &path("none"), &path("b"), 5), Err(RestoreError::Gone));
        assert_eq!(listed(&folder), [slot]);
        assert_eq!(std::fs::read_dir(folder.at(".p2psync/stage")).unwrap().count(), 0);
    }

    #[test]
    fn a_slot_can_be_put_back_or_returned_to_the_stage() {
        let folder = Folder::new();
        let first = slot(&folder, "a", b"edited");
        folder.write("taken", b"users");
        assert_eq!(put_back(&folder.open, &first, &path("taken")), Err(RestoreError::Taken));
        assert_eq!(put_back(&folder.open, &first, &path("b")).ok(), folder.look("b"));
        assert_eq!(put_back(&folder.open, &first, &path("c")), Err(RestoreError::Gone));
        let second = slot(&folder, "a", b"staged");
        let content = Content::of_chunk(b"staged");
        back_to_stage(&folder.open, &second, content).unwrap();
        assert_eq!(stage::staged(&folder.open).unwrap(), [(content, 0)]);
        assert_eq!((listed(&folder), folder.text("taken")), (vec![], "users".into()));
    }
}
