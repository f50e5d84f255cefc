//! Starting a folder: its index, and what an unclean end of the last run has left behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use super::clock::Clock;
use super::desk::{Desk, NOTE_BOOT};
use super::recover::{self, Ledger};
use super::rules;
use super::shared::{Event, FolderHandle, LookError, Opened, Shared};
use crate::core::id::{EpochId, RunId};
use crate::failpoint;
use crate::fs::error::FsError;
use crate::fs::root::Root;
use crate::fs::stage;
use crate::index::{HistoryRow, Index, IndexError, Reader, Record};
use crate::net::random_bytes;
use crate::sync::{Folder, NOTE_BEFORE_BOOT, NOTE_HISTORY_UNSURE, Settings};

/// Index note with the directory that the index is about.
const NOTE_ROOT: &str = "root";

/// Index note with the token of the marker of the directory that the index is about.
const NOTE_TOKEN: &str = "token";
/// Records looked at to see whether an index of old belongs to a directory.
const SAMPLE: usize = 200;

/// Why an index cannot go on with the directory that is there now: one word, where that is so. It is to be set aside
/// then, and what is there is taken as found: nothing of what is not there counts as deleted.
pub fn why_aside(index: &Path, root: &Root) -> Option<&'static str> {
    if is_of_another_place(index, root) {
        return Some("elsewhere");
    }
    Reader::open(index).is_ok_and(|reader| is_of_another_disk(&reader, root)).then_some("other-disk")
}

/// True where the folder's directory is there, but is not the one that this index is about: a disk lies in the place
/// of another, or a mount point without its disk was once made a folder of its own.
pub fn is_of_another_disk(reader: &Reader, root: &Root) -> bool {
    let known = reader.note(NOTE_TOKEN).ok().flatten();
    known.is_some_and(|known| root.token().is_ok_and(|found| found.as_ref() != Some(&known)))
}

/// True where this index is about another directory than the folder's, which has no marker yet: the folder was added
/// anew in another place, and starts there with an index of its own.
fn is_of_another_place(index: &Path, root: &Root) -> bool {
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
    settle_token(&mut index, &shared.root, run)?;
    let opened = note_run(&mut index, &shared.root, boot)?;
    shared.suspicious_boot.store(opened.is_suspicious, Ordering::Relaxed);
    let handle = FolderHandle(Arc::new(shared));
    *lock(&handle.left_behind) = Some(opened);
    let rules = rules::reload(&handle, Some(&index)).unwrap_or_default();
    let mut folder = Folder::new(index, settings, rules, run)?;
    // A folder that is not there starts halted.
    if handle.root.open().is_ok() {
        let mut begun = Begun { folder: &mut folder, noted: Ok(()) };
        put_right(&handle, &mut begun)?;
        begun.noted?;
    }
    let desk = Desk::new(handle.clone(), opened.is_suspicious.then(|| boot.to_owned()));
    Ok((handle, folder, desk))
}

/// Binds the index to the directory that it is about, by the token of its marker. A marker of old gets one as soon as
/// the index is seen to be about what is there.
fn settle_token(index: &mut Index, root: &Root, run: RunId) -> Result<(), IndexError> {
    let known = match (index.note(NOTE_TOKEN)?, root.token()) {
        (Some(known), _) => known,
        (None, Ok(Some(found))) => found,
        (None, Ok(None)) if belongs(index, root)? => {
            // As random as is needed, and no secret.
            let fresh = format!("{:016x}", run.0);
            if let Err(error) = root.add_token(&fresh) {
                tracing::warn!(%error, "this folder cannot be told from a copy of it or an empty mount point");
                return Ok(());
            }
            fresh
        }
        (None, _) => return Ok(()),
    };
    index.set_note(NOTE_TOKEN, Some(&known))?;
    root.expect_token(&known);
    Ok(())
}

/// True where the index knows nothing yet, or some of what it knows is there just so.
fn belongs(index: &Index, root: &Root) -> Result<bool, IndexError> {
    let Ok(root) = root.open() else { return Ok(false) };
    let mut on_disk =
        index.records_from(None, None, SAMPLE)?.into_iter().filter(|record| record.disk.is_some()).peekable();
    let is_empty = on_disk.peek().is_none();
    let is_there = |record: Record| {
        let seen = root.look(&record.entry.path).ok().flatten();
        seen.is_some_and(|seen| record.disk.is_some_and(|known| known.inode == seen.inode))
    };
    Ok(is_empty || on_disk.any(is_there))
}

/// Says how the last run ended, and notes that there is a new one.
fn note_run(index: &mut Index, root: &Root, boot: &str) -> Result<Opened, IndexError> {
    let was_clean = index.state()?.clean;
    let is_same_boot = index.note(NOTE_BOOT)?.is_none_or(|known| known == boot);
    let opened = Opened { was_clean, is_suspicious: !was_clean && !is_same_boot };
    // Else a second crash, before the scan that looks for what the first has spoilt, would hide it.
    if !opened.is_suspicious {
        index.set_note(NOTE_BOOT, Some(boot))?;
    } else if !index.note(NOTE_BEFORE_BOOT)?.is_some_and(|known| known.ends_with(&format!(" {boot}"))) {
        index.set_note(NOTE_BEFORE_BOOT, Some(&format!("{} {boot}", index.next_seq())))?;
    }
    index.set_note(NOTE_ROOT, Some(&place_of(root.path())))?;
    Ok(opened)
}

/// A folder that does not run yet: it is told itself what lies in its history.
struct Begun<'a> {
    folder: &'a mut Folder,
    noted: Result<(), IndexError>,
}

impl Ledger for Begun<'_> {
    fn reader(&self) -> &Reader {
        self.folder.index()
    }

    fn note(&mut self, found: Vec<HistoryRow>) {
        if self.noted.is_ok() {
            self.noted = self.folder.note_history(&found);
        }
    }
}

/// Clears up after the last run, once the folder is there, before anything in it is looked at or applied, and notes what
/// lies in history and is not accounted for. What fails is tried again at the next call.
pub fn put_right(shared: &Shared, ledger: &mut dyn Ledger) -> Result<(), LookError> {
    let mut left_behind = lock(&shared.left_behind);
    let Some(opened) = *left_behind else { return Ok(()) };
    let root = shared.root.open()?;
    stage::sweep(&root)?;
    let reader = ledger.reader();
    let is_unsure = reader.note(NOTE_HISTORY_UNSURE)?.is_some_and(|note| !note.is_empty());
    // A lost index accounts for nothing that lies in history, and one from a backup not for all.
    if !opened.was_clean || !reader.state()?.scanned || is_unsure {
        recover::recover(&root, ledger);
    }
    if is_unsure {
        // Should this be known and what was found not, there was a crash, after which all is looked at again.
        let _ = shared.inputs.blocking_send(Event::Note(NOTE_HISTORY_UNSURE, String::new()));
    }
    failpoint::hit("recover.found");
    if !opened.was_clean {
        // What the last run was just putting into place can be seen, and would still go with the power. It counts as
        // being there from now on, and is told to others as well.
        root.make_durable()?;
    }
    *left_behind = None;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing;

    struct Found<'a>(&'a Reader, Vec<HistoryRow>);

    impl Ledger for Found<'_> {
        fn reader(&self) -> &Reader {
            self.0
        }

        fn note(&mut self, found: Vec<HistoryRow>) {
            self.1.extend(found);
        }
    }

    #[test]
    fn after_the_index_was_rolled_back_history_is_accounted_for_at_the_next_start() {
        let (_dir, handle, mut events) = testing::folder("");
        let mut index = Index::open(&handle.index_path, EpochId(1)).unwrap();
        index.set_scanned().unwrap();
        let content = crate::core::content::Content::of_chunk(b"old");
        let slot = crate::fs::history::Shown::Content(content.id);
        let slot = crate::fs::history::slot_name(&testing::path("a"), slot, 1, 0);
        let place = crate::fs::history::place(handle.root.path(), &slot);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "old").unwrap();
        let found = |index: &Index| {
            *lock(&handle.left_behind) = Some(Opened { was_clean: true, is_suspicious: false });
            let mut found = Found(index, Vec::new());
            put_right(&handle, &mut found).unwrap();
            found.1
        };
        assert_eq!(found(&index), []);
        index.set_note(NOTE_HISTORY_UNSURE, Some("1")).unwrap();
        let rows = found(&index);
        assert_eq!((rows.len(), &rows[0].slot, rows[0].content), (1, &slot, Some(content)));
        let Ok(Event::Note(key, value)) = events.try_recv() else { panic!("it is not noted") };
        index.set_note(key, Some(&value)).unwrap();
        assert_eq!(found(&index), []);
    }

    #[test]
    fn an_index_goes_on_only_with_the_directory_that_it_is_about() {
        let (_dir, handle, _events) = testing::folder("");
        let (root, at) = (&handle.root, handle.index_path.as_path());
        let mut index = Index::open(at, EpochId(1)).unwrap();
        assert_eq!(why_aside(at, root), None);
        settle_token(&mut index, root, RunId(7)).unwrap();
        let token = root.token().unwrap().unwrap();
        assert_eq!((index.note(NOTE_TOKEN).unwrap(), why_aside(at, root)), (Some(token), None));
        root.open().unwrap();
        // Neither another one, nor one from before there were tokens, nor a missing one is that directory; the last
        // may come back.
        for (text, why) in [("test\nother\n", Some("other-disk")), ("test\n", Some("other-disk")), ("", None)] {
            fs::write(root.path().join(".p2psync/marker"), text).unwrap();
            assert_eq!(why_aside(at, root), why, "{text}");
            assert!(root.open().is_err());
        }
    }

    #[test]
    fn a_marker_of_old_gets_a_token_only_where_the_index_knows_what_is_there() {
        let (_dir, handle, _events) = testing::folder("");
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let path = testing::path("a");
        fs::write(handle.root.path().join("a"), "a").unwrap();
        let disk = handle.root.open().unwrap().look(&path).unwrap().unwrap();
        let entry = crate::core::entry::Entry::nothing(path);
        for (inode, has_token) in [(disk.inode + 1, false), (disk.inode, true)] {
            let disk = crate::core::disk::DiskState { inode, ..disk };
            index.put(&entry, Some(disk), crate::index::Mark::Here, 0).unwrap();
            settle_token(&mut index, &handle.root, RunId(7)).unwrap();
            assert_eq!(handle.root.token().unwrap().is_some(), has_token);
            assert_eq!(index.note(NOTE_TOKEN).unwrap().is_some(), has_token);
        }
    }
}
