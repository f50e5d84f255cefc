//! After an unclean shutdown: what lies in history and the index does not account for.
//!
//! A swap that was cut off leaves a file in a slot that no row describes: the new file, which was about to go to its
//! place; the old one, which came out; or an edit that a user made at that moment. Nothing of it is removed. What is
//! known to be an old version is accounted for, what was staged goes back there, and everything else comes back
//! beside its path, where the next scan finds it.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use super::apply::beside;
use crate::core::content::{Content, ContentId};
use crate::core::decide::{Decision, Found, decide};
use crate::core::disk::DiskState;
use crate::core::id::{DeviceId, hex};
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::history;
use crate::fs::read::{self, ReadOutcome};
use crate::fs::root::OpenRoot;
use crate::index::{HistoryRow, IndexError, Reader, Record, Rival};
use crate::sabotage::{self, Bug};

/// Slots that are noted together: some hundred KiB of memory.
const ROWS_AT_ONCE: usize = 1000;

/// What is known of the folder, and where it is noted what lies in history.
pub trait Ledger {
    fn reader(&self) -> &Reader;
    fn note(&mut self, found: Vec<HistoryRow>);
}

/// Puts right what a crash left in history, and notes what lies there, some at a time: after the index was lost that is all
/// of history.
///
/// Where something fails the slot is left as it is; the next start after a crash comes to it again.
pub fn recover(root: &OpenRoot, ledger: &mut dyn Ledger) {
    if sabotage::is(Bug::NothingRecovered) {
        return;
    }
    let mut rows = Vec::new();
    let mut failure = None;
    let mut look = |slot: &RelPath, state: &DiskState| -> Result<(), IndexError> {
        if ledger.reader().history_slot(slot)?.is_none()
            && let Some(found) = examine(root, ledger.reader(), slot, state)?
        {
            rows.extend(carry_out(root, found));
        }
        if rows.len() >= ROWS_AT_ONCE {
            ledger.note(std::mem::take(&mut rows));
        }
        Ok(())
    };
    let listed = history::slots_and_strays(root, &mut |batch| {
        let states = batch.iter().filter_map(|seen| Some((&seen.path, seen.state.as_ref().ok()?)));
        for (slot, state) in states {
            if let Err(error) = look(slot, state) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    let path = root.path().display();
    if let Some(error) = failure {
        tracing::warn!(%path, error = &error as &dyn Error, "could not compare the history with the index");
    }
    match listed {
        Ok(strays) => strays.iter().for_each(|slot| bring_back(root, ledger.reader(), slot)),
        Err(error) => tracing::warn!(%path, error = &error as &dyn Error, "could not look through the history"),
    }
    if !rows.is_empty() {
        ledger.note(rows);
    }
}

/// A directory that a user put into the place of a file at the moment of a swap comes back beside that file.
fn bring_back(root: &OpenRoot, reader: &Reader, slot: &RelPath) {
    let Some((path, _)) = history::origin(slot) else { return };
    let Ok(Some(state)) = history::look(root, slot) else { return };
    if is_before_swap(root, reader, &path) && history::remove_empty(root, slot) {
        return;
    }
    match beside(root, slot, &path, &state, DeviceId::NONE, None) {
        Ok(copy) => tracing::info!(%path, %copy, "kept a directory that was found in the history after a crash"),
        Err(error) => tracing::warn!(%slot, %error, "a directory found after a crash stays in the history for now"),
    }
}

/// True where what the index has still stands at a path: then no swap has come to it, and what is in the slot is what was to
/// be put there.
fn is_before_swap(root: &OpenRoot, reader: &Reader, path: &RelPath) -> bool {
    let Ok(Some(stands)) = root.look(path) else { return false };
    let known = reader.record(path).ok().flatten().and_then(|record| record.disk);
    known.is_some_and(|known| stands.is_same_file_as(&known))
}

/// A slot that the index does not account for, with what is to become of it.
struct Unaccounted {
    slot: RelPath,
    path: RelPath,
    displaced_ms: i64,
    disk: DiskState,
    held: Held,
    verdict: Verdict,
}

/// What a slot holds.
#[derive(Clone, Copy)]
struct Held {
    id: ContentId,
    /// `None` for what is not a file.
    content: Option<Content>,
    /// The slot's name shows that the index held just this at the path when it was displaced.
    is_named: bool,
}

/// What stands at the path that a slot came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Nothing,
    /// What the index has there.
    AsIndexed,
    Other,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// An old version by this author: it stays where it is.
    History(DeviceId),
    /// It was on its way to its place.
    Stage(Content),
    /// The present version, taken away for nothing.
    PutBack,
    /// A version that is not to be lost, last changed at this time (ns since 1970) by this author.
    Copy(i64, DeviceId),
}

fn examine(
    root: &OpenRoot,
    reader: &Reader,
    slot: &RelPath,
    disk: &DiskState,
) -> Result<Option<Unaccounted>, IndexError> {
    let Some((path, displaced_ms)) = history::origin(slot) else {
        tracing::warn!(%slot, "something in the history was not put there by this program; it is left alone");
        return Ok(None);
    };
    // Nobody writes here while the agent starts, so the moment of the look does not matter.
    let (id, content) = match read::examine_slot(root, slot, i64::MAX / 2, &mut Vec::new(), &AtomicBool::new(false)) {
        ReadOutcome::Hashed(file) => (file.content.id, Some(file.content)),
        ReadOutcome::Link { target, .. } => (ContentId::of_link(&target), None),
        ReadOutcome::Directory(_) | ReadOutcome::Gone => return Ok(None),
        ReadOutcome::Busy => {
            tracing::warn!(%slot, "a file in the history is being written; it is left alone");
            return Ok(None);
        }
        ReadOutcome::Failed(problem) => {
            tracing::warn!(%slot, %problem, "a file in the history can't be read; it is left alone");
            return Ok(None);
        }
    };
    let is_named = history::shown_content(slot).is_some_and(|shown| hex(&id.0).starts_with(shown));
    let held = Held { id, content, is_named };
    let record = reader.record(&path)?;
    let indexed = record.as_ref().and_then(|record| record.disk);
    let standing = match root.look(&path) {
        Ok(None) => Standing::Nothing,
        Ok(Some(found)) if indexed.is_some_and(|disk| found.is_same_file_as(&disk)) => Standing::AsIndexed,
        _ => Standing::Other,
    };
    let (rivals, found, is_new) = (reader.rivals(&path)?, reader.found()?, !reader.state()?.scanned);
    let verdict = judge(held, disk.mtime_ns, record.as_ref(), &rivals, &found, standing, is_new);
    Ok(Some(Unaccounted { slot: slot.clone(), path, displaced_ms, disk: *disk, held, verdict }))
}

/// Decides what becomes of a slot. `is_new_index` says that the index has not seen the folder yet.
fn judge(
    held: Held,
    mtime_ns: i64,
    record: Option<&Record>,
    rivals: &[Rival],
    found: &Found,
    standing: Standing,
    is_new_index: bool,
) -> Verdict {
    let id = held.id;
    if let Some(Record { entry: ours, .. }) = record {
        let winners = rivals.iter().filter(|rival| decide(ours, &rival.entry, found) == Decision::Take);
        let mut winners = winners.peekable();
        if ours.kind.content_id() == Some(id) {
            // The swap was done but not noted: the version that stands there now is the winner's.
            return match standing {
                _ if winners.peek().is_some() => Verdict::History(ours.author),
                Standing::AsIndexed => Verdict::History(ours.author),
                Standing::Nothing => Verdict::PutBack,
                // Replaced by something that a power cut made the index forget. What was to become a copy has no such
                // name.
                Standing::Other if held.is_named => Verdict::History(ours.author),
                Standing::Other => Verdict::Copy(ours.mtime_ns, ours.author),
            };
        }
        if ours.superseded.contains(&id) || winners.any(|rival| rival.entry.superseded.contains(&id)) {
            return Verdict::History(DeviceId::NONE);
        }
    }
    if let Some(rival) = rivals.iter().find(|rival| rival.entry.kind.content_id() == Some(id)) {
        // It comes from the stage if the swap has not been done; if it has, a user had the same.
        return match held.content.filter(|content| content.size > 0) {
            Some(content) if standing == Standing::AsIndexed => Verdict::Stage(content),
            _ => Verdict::History(rival.entry.author),
        };
    }
    if held.is_named || (is_new_index && held.content.is_none()) {
        return Verdict::History(DeviceId::NONE);
    }
    Verdict::Copy(mtime_ns, DeviceId::NONE)
}

/// Does what was decided. Returns the row where the slot stays.
fn carry_out(root: &OpenRoot, found: Unaccounted) -> Option<HistoryRow> {
    let Unaccounted { slot, path, disk, held, .. } = &found;
    let done = match found.verdict {
        Verdict::History(author) => {
            failpoint::hit("recover.history");
            return Some(row(&found, author));
        }
        Verdict::Stage(content) => match history::back_to_stage(root, slot, content) {
            // Staged once more already, so this one is history as good as any.
            Err(history::RestoreError::Taken) => return Some(row(&found, DeviceId::NONE)),
            done => done.map(|()| tracing::info!(%path, "a download that was about to go to its place is ready again")),
        },
        Verdict::PutBack => match history::put_back(root, slot, path) {
            Ok(_) => {
                tracing::info!(%path, "a file that was about to be replaced is back at its place");
                Ok(())
            }
            // Its place, or the directory that it was in, is taken by now.
            Err(_) => beside(root, slot, path, disk, DeviceId::NONE, Some(held.id)).map(
                |copy| tracing::info!(%path, %copy, "a file that was about to be replaced is kept beside its place"),
            ),
        },
        Verdict::Copy(mtime_ns, author) => {
            let named = DiskState { mtime_ns, ..*disk };
            beside(root, slot, path, &named, author, Some(held.id))
                .map(|copy| tracing::info!(%path, %copy, "kept a version that was found in the history after a crash"))
        }
    };
    match found.verdict {
        Verdict::History(_) => {}
        Verdict::Stage(_) => failpoint::hit("recover.staged"),
        Verdict::PutBack => failpoint::hit("recover.put_back"),
        Verdict::Copy(..) => failpoint::hit("recover.copied"),
    }
    if let Err(error) = done {
        tracing::warn!(%slot, %path, %error, "a version found after a crash stays in the history for now");
    }
    None
}

fn row(found: &Unaccounted, author: DeviceId) -> HistoryRow {
    HistoryRow {
        slot: found.slot.clone(),
        path: found.path.clone(),
        content: found.held.content.filter(|_| !history::is_private(&found.slot)),
        disk: found.disk,
        author,
        displaced_ms: found.displaced_ms,
        by_remote: true,
        brought_by: None,
        displaced_by: None,
        placed_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;
    use crate::core::action::{Action, Displace, Expected};
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::EpochId;
    use crate::core::message::Announced;
    use crate::core::version::VersionVector;
    use crate::engine::shared::FolderHandle;
    use crate::engine::testing::{self, path};
    use crate::fs::apply::{ApplyContext, Step, apply_watched};
    use crate::fs::nearby::Nearby;
    use crate::fs::stage;
    use crate::index::{Index, Mark};

    const PEER: DeviceId = DeviceId([2; 32]);
    const CONTEXT: ApplyContext = ApplyContext { device: DeviceId([1; 32]), now_ms: 1_700_000_000_000 };
    const STEPS: [Step; 5] = [Step::Prepared, Step::Checked, Step::InSlot, Step::Swapped, Step::Settled];

    /// What is to be noted, in the parts in which it is.
    struct Parts<'a>(&'a Reader, Vec<Vec<HistoryRow>>);

    impl Ledger for Parts<'_> {
        fn reader(&self) -> &Reader {
            self.0
        }

        fn note(&mut self, found: Vec<HistoryRow>) {
            self.1.push(found);
        }
    }

    fn parts(root: &OpenRoot, reader: &Reader) -> Vec<Vec<HistoryRow>> {
        let mut parts = Parts(reader, Vec::new());
        recover(root, &mut parts);
        parts.1
    }

    fn recovered(root: &OpenRoot, reader: &Reader) -> Vec<HistoryRow> {
        parts(root, reader).concat()
    }

    struct Crashed {
        _dir: tempfile::TempDir,
        handle: FolderHandle,
        root: OpenRoot,
        index: Index,
    }

    impl Crashed {
        /// A folder with a file `a` that holds `old`, and in the index what a peer has there.
        fn new(rival: Option<Entry>) -> Self {
            let (dir, handle, _) = testing::folder("");
            let at = handle.root.path().join("a");
            std::fs::write(&at, "old").unwrap();
            let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
            std::fs::File::open(&at).unwrap().set_modified(past).unwrap();
            let root = handle.root.open().unwrap();
            let mut index = Index::in_memory(EpochId(1)).unwrap();
            let disk = root.look(&path("a")).unwrap();
            index.put(&entry(Some(b"old"), 1, 0), disk, Mark::Here, 0).unwrap();
            index.set_scanned().unwrap();
            if let Some(entry) = rival {
                index.put_rival(PEER, &Announced { entry, seq: 1, held: true }).unwrap();
            }
            stage::stage_small(&root, Content::of_chunk(b"new"), 0, b"new").unwrap();
            Self { _dir: dir, handle, root, index }
        }

        fn expected(&self, displace: Displace) -> Expected {
            let disk = self.root.look(&path("a")).unwrap().unwrap();
            Expected { disk, content: Some(Content::of_chunk(b"old").id), displace }
        }

        /// Carries out an action as far as to the step.
        fn cut_off(&self, action: Action, at: Step) {
            let cut = catch_unwind(AssertUnwindSafe(|| {
                apply_watched(&self.root, &CONTEXT, vec![(1, action)], &mut |step, _| {
                    if step == at {
                        resume_unwind(Box::new("cut off"));
                    }
                })
            }));
            drop(cut);
        }

        fn names(&self) -> Vec<String> {
            let found = std::fs::read_dir(self.handle.root.path()).unwrap();
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }

        fn replace(&self, displace: Displace, at: Step) {
            let expect = Some(self.expected(displace));
            let content = Content::of_chunk(b"new");
            self.cut_off(Action::PlaceFile { path: path("a"), content, copy: 0, mtime_ns: 1, mode: 0o644, expect }, at);
        }

        /// What is in the tree, with the bytes of files.
        fn tree(&self) -> Vec<String> {
            let mut all: Vec<String> = std::fs::read_dir(self.handle.root.path())
                .unwrap()
                .map(|item| item.unwrap().path())
                .filter(|at| at.is_file())
                .map(|at| {
                    let text = std::fs::read_to_string(&at).unwrap();
                    format!("{} {text}", at.file_name().unwrap().to_string_lossy())
                })
                .collect();
            all.sort();
            all
        }

        fn recover(&self) -> Vec<Vec<u8>> {
            let rows = recovered(&self.root, &self.index);
            rows.iter()
                .map(|row| read::read_slot(&Nearby::new(&self.root), &row.slot, 0, row.disk.size as usize).unwrap())
                .collect()
        }

        fn first_slot(&self) -> (RelPath, DiskState) {
            let mut first = None;
            let sink = &mut |batch: Vec<crate::fs::walk::Seen>| {
                first = batch.into_iter().find_map(|seen| Some((seen.path, seen.state.ok()?)));
                ControlFlow::Break(())
            };
            history::slots(&self.root, sink).unwrap();
            first.expect("a slot")
        }

        fn slots(&self) -> usize {
            let mut count = 0;
            let sink = &mut |batch: Vec<_>| {
                count += batch.len();
                ControlFlow::Continue(())
            };
            history::slots(&self.root, sink).unwrap();
            count
        }
    }

    /// An entry at `a` with as many events of ours and of the peer's.
    fn entry(bytes: Option<&[u8]>, ours: u64, theirs: u64) -> Entry {
        let kind = bytes.map_or(Kind::Deleted, |bytes| Kind::File(Content::of_chunk(bytes)));
        let version = VersionVector::new().with(EpochId(1), ours).with(EpochId(2), theirs);
        let mtime_ns = if kind == Kind::Deleted { 0 } else { 1_500_000_000_000_000_000 };
        Entry { kind, version, author: PEER, mtime_ns, ..Entry::nothing(path("a")) }
    }

    #[test]
    fn what_was_about_to_be_replaced_is_kept_beside_its_place_where_that_is_taken() {
        let crashed = Crashed::new(None);
        crashed.cut_off(Action::Remove { path: path("a"), expect: crashed.expected(Displace::History) }, Step::Swapped);
        // The index has it, nothing stands there, and what stands there in the next moment is somebody else's.
        let (slot, disk) = crashed.first_slot();
        let found = examine(&crashed.root, &crashed.index, &slot, &disk).unwrap().unwrap();
        assert_eq!(found.verdict, Verdict::PutBack);
        std::fs::write(crashed.handle.root.path().join("a"), "somebody's").unwrap();
        assert!(carry_out(&crashed.root, found).is_none());
        let texts: Vec<String> =
            crashed.tree().iter().filter_map(|line| Some(line.split_once(' ')?.1.into())).collect();
        assert_eq!((texts.len(), crashed.slots()), (2, 0), "{texts:?}");
        assert!(texts.contains(&"old".to_owned()));
    }

    #[test]
    fn a_replacement_cut_off_anywhere_loses_nothing_and_makes_no_copies() {
        for step in STEPS {
            let folder = Crashed::new(Some(entry(Some(b"new"), 1, 1)));
            folder.replace(Displace::History, step);
            let rows = folder.recover();
            let is_done = matches!(step, Step::Swapped | Step::Settled);
            let (tree, slots, staged) =
                if is_done { ("a new", vec![b"old".to_vec()], 0) } else { ("a old", vec![], 1) };
            assert_eq!((folder.tree(), rows), (vec![tree.to_owned()], slots), "{step:?}");
            assert_eq!(stage::staged(&folder.root).unwrap().len(), staged, "{step:?}");
        }
    }

    #[test]
    fn a_replacement_that_the_index_has_forgotten_makes_no_copy() {
        let folder = Crashed::new(None);
        folder.replace(Displace::History, Step::Settled);
        assert_eq!((folder.recover(), folder.tree()), (vec![b"old".to_vec()], vec!["a new".to_owned()]));
    }

    #[test]
    fn a_concurrent_version_whose_rival_the_index_has_forgotten_becomes_a_copy() {
        let folder = Crashed::new(None);
        let copy = crate::core::conflict::conflict_name(&path("a"), 1_500_000_000_000_000_000, PEER, None).unwrap();
        folder.replace(Displace::ConflictCopy(copy.clone()), Step::Swapped);
        assert_eq!(folder.recover(), Vec::<Vec<u8>>::new());
        assert_eq!(folder.tree(), ["a new".to_owned(), format!("{copy} old")]);
    }

    #[test]
    fn a_concurrent_version_cut_off_before_it_became_a_copy_becomes_one() {
        for step in STEPS {
            let folder = Crashed::new(Some(entry(Some(b"new"), 0, 1)));
            let copy = crate::core::conflict::conflict_name(&path("a"), 1_500_000_000_000_000_000, PEER, None).unwrap();
            folder.replace(Displace::ConflictCopy(copy.clone()), step);
            assert_eq!(folder.recover(), Vec::<Vec<u8>>::new(), "{step:?}");
            let is_done = matches!(step, Step::Swapped | Step::Settled);
            let tree = if is_done { vec!["a new".into(), format!("{copy} old")] } else { vec!["a old".to_owned()] };
            assert_eq!((folder.tree(), folder.slots()), (tree, 0), "{step:?}");
        }
    }

    #[test]
    fn a_removal_cut_off_is_history_if_it_was_wanted_and_undone_if_not() {
        for (rival, tree, slots) in [(true, vec![], 1), (false, vec!["a old".to_owned()], 0)] {
            let folder = Crashed::new(rival.then(|| entry(None, 1, 1)));
            folder
                .cut_off(Action::Remove { path: path("a"), expect: folder.expected(Displace::History) }, Step::Swapped);
            assert_eq!((folder.recover().len(), folder.tree(), folder.slots()), (slots, tree, slots));
        }
    }

    #[test]
    fn an_edit_that_came_out_at_the_moment_of_the_swap_comes_back_beside_its_path() {
        let folder = Crashed::new(Some(entry(Some(b"new"), 1, 1)));
        let expect = Some(folder.expected(Displace::History));
        let content = Content::of_chunk(b"new");
        let action = Action::PlaceFile { path: path("a"), content, copy: 0, mtime_ns: 1, mode: 0o644, expect };
        let at = folder.handle.root.path().join("a");
        let cut = catch_unwind(AssertUnwindSafe(|| {
            apply_watched(&folder.root, &CONTEXT, vec![(1, action)], &mut |step, _| match step {
                Step::Checked => std::fs::write(&at, "edit of the user").unwrap(),
                Step::Swapped => resume_unwind(Box::new("cut off")),
                _ => {}
            })
        }));
        assert!(cut.is_err());
        assert_eq!(folder.recover(), Vec::<Vec<u8>>::new());
        let tree = folder.tree();
        assert_eq!((tree.len(), folder.slots()), (2, 0));
        assert!(tree[0] == "a new" && tree[1].starts_with("a.conflict-") && tree[1].ends_with("edit of the user"));
    }

    #[test]
    fn a_long_history_is_noted_in_parts() {
        let folder = Crashed::new(None);
        let count = ROWS_AT_ONCE + 1;
        for n in 0..count {
            let shown = history::Shown::Content(Content::of_chunk(n.to_string().as_bytes()).id);
            let slot = history::slot_name(&path("b"), shown, 1, u32::try_from(n).unwrap());
            std::fs::write(history::place(folder.handle.root.path(), &slot), n.to_string()).unwrap();
        }
        let counts: Vec<usize> = parts(&folder.root, &folder.index).iter().map(Vec::len).collect();
        assert_eq!(counts, [ROWS_AT_ONCE, 1]);
    }

    #[test]
    fn what_was_never_told_is_not_told_after_the_index_was_lost() {
        let folder = Crashed::new(None);
        let expect = Expected { displace: Displace::PrivateHistory, ..folder.expected(Displace::History) };
        folder.cut_off(Action::Remove { path: path("a"), expect }, Step::Settled);
        let rows = recovered(&folder.root, &Index::in_memory(EpochId(9)).unwrap());
        assert_eq!((rows.len(), &rows[0].path, rows[0].content), (1, &path("a"), None));
    }

    #[test]
    fn a_lost_index_makes_history_of_what_is_named_so() {
        let folder = Crashed::new(Some(entry(Some(b"new"), 1, 1)));
        folder.replace(Displace::History, Step::Settled);
        let index = Index::in_memory(EpochId(9)).unwrap();
        let rows = recovered(&folder.root, &index);
        assert_eq!((rows.len(), &rows[0].path, rows[0].content), (1, &path("a"), Some(Content::of_chunk(b"old"))));
        let mut index = index;
        index.add_history(&rows[0]).unwrap();
        assert_eq!(recovered(&folder.root, &index), []);
        assert_eq!(folder.tree(), ["a new"]);
    }

    #[test]
    fn a_directory_that_came_out_at_the_moment_of_a_swap_comes_back_beside_its_place() {
        let crashed = Crashed::new(None);
        let slots = crashed.handle.root.path().join(".p2psync/history");
        let at = |name: &str| slots.join(history::slot_name(&path(name), history::Shown::Nothing, 1, 0).to_string());
        std::fs::create_dir_all(at("a").join("sub")).unwrap();
        std::fs::write(at("a").join("sub/in"), "mine").unwrap();
        // A directory of the folder that happens to have such a name.
        std::fs::create_dir_all(at("b")).unwrap();
        std::fs::rename(crashed.handle.root.path().join("a"), at("b").join(at("x").file_name().unwrap())).unwrap();
        recovered(&crashed.root, &crashed.index);
        let names = crashed.names();
        let [copy] = names.iter().filter(|name| name.starts_with("a.conflict-")).collect::<Vec<_>>()[..] else {
            panic!("{names:?}")
        };
        let kept = std::fs::read(crashed.handle.root.path().join(copy).join("sub/in")).unwrap();
        assert_eq!((kept.as_slice(), at("a").exists(), at("b").exists()), (&b"mine"[..], false, true));
    }

    #[test]
    fn a_directory_that_was_to_take_a_files_place_is_gone_where_the_file_still_stands() {
        for (at, names) in [(Step::InSlot, [".p2psync", "a"]), (Step::Swapped, [".p2psync", "a"])] {
            let crashed = Crashed::new(None);
            let expect = Some(crashed.expected(Displace::History));
            crashed.cut_off(Action::CreateDirectory { path: path("a"), mode: 0o755, expect }, at);
            recovered(&crashed.root, &crashed.index);
            assert_eq!(crashed.names(), names);
            let is_directory = crashed.handle.root.path().join("a").is_dir();
            assert_eq!(is_directory, at == Step::Swapped);
        }
        // A user's own comes back: what the index has no longer stands there.
        let crashed = Crashed::new(None);
        let slot = history::slot_name(&path("a"), history::Shown::Nothing, 1, 0);
        let at = crashed.handle.root.path().join(".p2psync/history").join(slot.to_string());
        std::fs::create_dir_all(at).unwrap();
        std::fs::write(crashed.handle.root.path().join("a"), "another").unwrap();
        recovered(&crashed.root, &crashed.index);
        assert_eq!(crashed.names().len(), 3);
    }
}
