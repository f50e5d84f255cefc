//! Starting a folder: its index, and what an unclean end of the last run has left behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use super::clock::Clock;
use super::desk::{Desk, NOTE_BOOT};
use super::shared::{FolderHandle, LookError, Opened, Shared};
use super::{recover, rules};
use crate::core::id::{EpochId, RunId};
use crate::failpoint;
use crate::fs::error::FsError;
use crate::fs::root::Root;
use crate::fs::stage;
use crate::index::{Index, IndexError, Reader};
use crate::net::random_bytes;
use crate::sync::{Folder, Input, Settings};

/// Index note with the directory that the index is about.
const NOTE_ROOT: &str = "root";

/// True where this index is about another directory than the folder's, which has no marker yet: the folder was added
/// anew in another place, and starts there with an index of its own.
pub fn is_of_another_place(index: &Path, root: &Root) -> bool {
    let known = Reader::open(index).and_then(|reader| reader.note(NOTE_ROOT)).ok().flatten();
    let is_marked = matches!(root.open(), Ok(_) | Err(FsError::OtherFolder { .. }));
    known.is_some_and(|known| known != place_of(root.path())) && !is_marked
}

fn place_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Opens the index, or a new one beside it where it is damaged.
pub fn open_index(path: &Path) -> Result<Index, IndexError> {
    match Index::open(path, EpochId(u64::from_le_bytes(random_bytes()))) {
        Err(error) if error.is_corrupt() => {
            let aside = set_aside(path, "damaged");
            tracing::error!(%error, set_aside = ?aside, "the index is damaged; it is set aside and built anew, no file is touched");
            Index::open(path, EpochId(u64::from_le_bytes(random_bytes())))
        }
        other => other,
    }
}

/// Renames an index with what belongs to it, so that it can be looked at; `why` goes into the name.
pub fn set_aside(path: &Path, why: &str) -> io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = Clock::system().wall_ms();
    let aside = with(&format!(".{why}-{stamp}"));
    fs::rename(path, &aside)?;
    failpoint::hit("index.damaged_moved");
    for extra in ["-wal", "-shm"] {
        let _ = fs::rename(with(extra), with(&format!(".{why}-{stamp}{extra}")));
    }
    failpoint::hit("index.damaged_log_moved");
    Ok(aside)
}

/// Names the boot of the machine that this is; nothing where the system has no such name.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Begins a run: with what the index and the last run left, as far as the folder is there. `run` is fresh and random.
pub fn begin(
    shared: Shared,
    mut index: Index,
    settings: Settings,
    run: RunId,
    boot: &str,
) -> Result<(FolderHandle, Folder, Desk), LookError> {
    let opened = note_run(&mut index, &shared.root, boot)?;
    shared.suspicious_boot.store(opened.is_suspicious, Ordering::Relaxed);
    let handle = FolderHandle(Arc::new(shared));
    *lock(&handle.left_behind) = Some(opened);
    let rules = rules::reload(&handle).unwrap_or_default();
    let folder = Folder::new(index, settings, rules, run)?;
    // A folder that is not there starts halted.
    if handle.root.open().is_ok()
        && let Some(input) = put_right(&handle, folder.index())?
    {
        handle.send(input);
    }
    let desk = Desk::new(handle.clone(), opened.is_suspicious.then(|| boot.to_owned()));
    Ok((handle, folder, desk))
}

/// Says how the last run ended, and notes that there is a new one.
fn note_run(index: &mut Index, root: &Root, boot: &str) -> Result<Opened, IndexError> {
    let was_clean = index.state()?.clean;
    let is_same_boot = index.note(NOTE_BOOT)?.is_none_or(|known| known == boot);
    let opened = Opened { was_clean, is_suspicious: !was_clean && !is_same_boot };
    // Else a second crash, before the scan that looks for what the first has spoilt, would hide it.
    if !opened.is_suspicious {
        index.set_note(NOTE_BOOT, Some(boot))?;
    }
    index.set_note(NOTE_ROOT, Some(&place_of(root.path())))?;
    Ok(opened)
}

/// Clears up after the last run, once the folder is there, before anything in it is looked at or applied. Returns an
/// input for the folder, if there is one. What fails is tried again at the next call.
pub fn put_right(shared: &Shared, reader: &Reader) -> Result<Option<Input>, LookError> {
    let mut left_behind = lock(&shared.left_behind);
    let Some(opened) = *left_behind else { return Ok(None) };
    let root = shared.root.open()?;
    stage::sweep(&root)?;
    // A lost index accounts for nothing that lies in history.
    let found = match opened.was_clean && reader.state()?.scanned {
        true => Vec::new(),
        false => recover::recover(&root, reader),
    };
    failpoint::hit("recover.found");
    *left_behind = None;
    Ok((!found.is_empty()).then_some(Input::History { found, expired: Vec::new() }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
