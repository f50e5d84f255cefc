//! Partial downloads and other unfinished things of the agent, in `.p2psync/stage/`.
//!
//! Nothing in here is a user's: it was made by the agent, and only under names that it gave itself.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::error::{FsError, problem};
use super::root::OpenRoot;
use super::sys::{self, BoxedHandle, Place, Stat};
use crate::core::content::{Content, ContentId};
use crate::core::disk::{Attributes, DiskKind, DiskState};
use crate::core::id::hex;
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;

/// Space in bytes that a download leaves free: a desktop with a full disk cannot even save its settings.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of one file written between two times that the disk is told to keep them.
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// Grain of holes in bytes: the block size of the common file systems.
const HOLE_BYTES: usize = 4096;
/// Names begun with this are things being made that a crash makes worthless.
const TEMPORARY: &str = "tmp-";
/// How many names are tried for a temporary thing before giving up.
const NAME_ATTEMPTS_MAX: u32 = 10_000;

/// A file on its way: as long as it will be, filled in any order, by any thread.
pub struct StagedFile {
    file: BoxedHandle,
    content: Content,
    has_data: bool,
    /// Bytes written since all before was handed to the disk.
    unflushed: AtomicU64,
}

impl StagedFile {
    /// Creates the file, or goes on with what an earlier attempt left. Checks first that what is missing fits the disk.
    /// `copy` tells several staged files of one content apart.
    pub fn open(root: &OpenRoot, content: Content, copy: u32) -> Result<Self, Problem> {
        let place = root.stage_place(&stage_name(content, copy));
        let (file, stat) = open_own(&place).map_err(|e| problem("create a file in the stage", e))?;
        failpoint::hit("stage.created");
        let allocated = stat.allocated_bytes;
        let missing = content.size.saturating_sub(allocated);
        let free = root.free_bytes()?;
        if free < missing.saturating_add(RESERVE_BYTES) {
            if allocated == 0 {
                // Ours, empty and of no use while there is no room.
                let _ = place.unlink();
            }
            let (need, free) = (in_mib(missing.saturating_add(RESERVE_BYTES)), in_mib(free));
            let text = format!("needs {need} MiB on this disk, and {free} MiB are free: free some space");
            return Err(Problem::new(ProblemKind::NoSpace, text));
        }
        file.set_len(content.size).map_err(|e| problem("reserve its length in the stage", e))?;
        failpoint::hit("stage.reserved");
        Ok(Self { file, content, has_data: allocated > 0, unflushed: AtomicU64::new(0) })
    }

    pub fn content(&self) -> Content {
        self.content
    }

    /// True where an earlier attempt left something, which has to be verified before it is used.
    pub fn has_data(&self) -> bool {
        self.has_data
    }

    /// Writes verified bytes to their place. Blocks of zeros stay holes where they are holes.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.content.size) {
            return Err(Problem::new(ProblemKind::BadBytes, "a chunk reaches beyond the end of the file"));
        }
        let mut runs = data_runs(offset, bytes);
        let has_zeros = runs.iter().map(Range::len).sum::<usize>() < bytes.len();
        if has_zeros && self.has_data && !self.file.is_hole(offset, bytes.len() as u64) {
            runs = std::iter::once(0..bytes.len()).collect();
        }
        for run in runs {
            let data = bytes.get(run.clone()).unwrap_or_default();
            sys::write_all_at(&*self.file, data, offset + run.start as u64)
                .map_err(|e| problem("write to the stage", e))?;
            failpoint::hit("stage.written");
        }
        self.flush_some(bytes.len() as u64)
    }

    /// What is written goes to the disk while more arrives: at the end all of a large file would have to be waited for.
    fn flush_some(&self, written: u64) -> Result<(), Problem> {
        let before = self.unflushed.fetch_add(written, Ordering::Relaxed);
        if before + written < FLUSH_BYTES {
            return Ok(());
        }
        self.unflushed.store(0, Ordering::Relaxed);
        self.file.fsync().map_err(|e| problem("write to the stage", e))
    }

    /// Reads back what is there: to verify it, or to serve it once verified.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Problem> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.content.size) {
            return Err(problem("read from the stage", Errno::INVAL));
        }
        let mut bytes = vec![0; len];
        match sys::read_exact_at(&*self.file, &mut bytes, offset) {
            Ok(true) => Ok(bytes),
            Ok(false) => Err(problem("read from the stage", Errno::IO)),
            Err(errno) => Err(problem("read from the stage", errno)),
        }
    }
}

/// All contents that the stage has something of, with the number of the copy.
pub fn staged(root: &OpenRoot) -> Result<Vec<(Content, u32)>, FsError> {
    let names = root.stage_dir().names().map_err(|e| FsError::io(root.path(), "list the stage of", e))?;
    Ok(names.iter().filter_map(|name| parse_name(name)).collect())
}

/// Those of them that were last written before this time, ns since 1970.
pub fn staged_before(root: &OpenRoot, before_ns: i64) -> Result<Vec<(Content, u32)>, FsError> {
    let is_idle = |staged: &(Content, u32)| {
        let stat = root.stage_dir().stat_at(stage_name(staged.0, staged.1).as_bytes());
        stat.is_ok_and(|stat| stat.state.is_some_and(|state| state.mtime_ns < before_ns))
    };
    let mut all = staged(root)?;
    all.retain(is_idle);
    Ok(all)
}

/// Drops a partial download that nobody wants any more.
pub fn discard(root: &OpenRoot, content: Content, copy: u32) -> Result<(), Problem> {
    unlink_own(root, stage_name(content, copy).as_bytes()).map_err(|e| problem("drop it from the stage", e))?;
    failpoint::hit("stage.discarded");
    Ok(())
}

/// Drops what an apply that was cut short was just making. For the start of the agent, before anything is applied.
pub fn sweep(root: &OpenRoot) -> Result<(), FsError> {
    let io = |errno| FsError::io(root.path(), "clear the stage of", errno);
    for name in root.stage_dir().names().map_err(io)? {
        if name.starts_with(TEMPORARY.as_bytes()) {
            unlink_own(root, &name).map_err(io)?;
        }
    }
    Ok(())
}

/// Stages a small file in one go.
pub fn stage_small(root: &OpenRoot, content: Content, copy: u32, bytes: &[u8]) -> Result<(), Problem> {
    stage_small_with(root, content, copy, bytes, None)
}

/// The same, with the mode and mtime that the file is to have: given to it here, they cost least.
pub fn stage_small_with(
    root: &OpenRoot,
    content: Content,
    copy: u32,
    bytes: &[u8],
    attributes: Option<Attributes>,
) -> Result<(), Problem> {
    if bytes.len() as u64 != content.size {
        return Err(Problem::new(ProblemKind::BadBytes, "the bytes are not as long as the file"));
    }
    if root.free_bytes()? < content.size.saturating_add(RESERVE_BYTES) {
        let text = format!("less than {} MiB are free on this disk: free some space", in_mib(RESERVE_BYTES));
        return Err(Problem::new(ProblemKind::NoSpace, text));
    }
    let place = root.stage_place(&stage_name(content, copy));
    let (file, stat) = open_own(&place).map_err(|e| problem("create a file in the stage", e))?;
    failpoint::hit("stage.small_created");
    sys::write_all_at(&*file, bytes, 0).map_err(|e| problem("write to the stage", e))?;
    failpoint::hit("stage.small_written");
    if stat.state.is_none_or(|state| state.size != 0) {
        file.set_len(content.size).map_err(|e| problem("write to the stage", e))?;
    }
    match attributes {
        // It may have to be read here again before it is put into place.
        Some(Attributes { mtime_ns, mode }) if mode & 0o600 == 0o600 => {
            file.chmod(mode).and_then(|()| file.set_mtime(mtime_ns)).map_err(|e| problem("write to the stage", e))
        }
        _ => Ok(()),
    }
}

/// Reads a part of a staged file that has its full length; `None` where there is none or where it can't be read.
pub fn read_complete(root: &OpenRoot, content: Content, copy: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
    let (_, file) = open_complete(root, content, copy).ok()??;
    offset.checked_add(len as u64).filter(|end| *end <= content.size)?;
    let mut bytes = vec![0; len];
    sys::read_exact_at(&*file, &mut bytes, offset).ok()?.then_some(bytes)
}

/// The state of a staged file that has the size, mode and mtime that it is to have, and no other name.
pub(super) fn ready(root: &OpenRoot, name: &str, wanted: &DiskState) -> Option<DiskState> {
    let stat = root.stage_dir().stat_at(name.as_bytes()).ok()?;
    let is_as_wanted = |s: &DiskState| {
        (s.kind, s.size, s.mode, s.mtime_ns) == (wanted.kind, wanted.size, wanted.mode, wanted.mtime_ns)
    };
    stat.state.filter(|state| is_as_wanted(state) && stat.links == 1)
}

/// The complete file of this content, if the stage has one of the right length.
pub(super) fn open_complete(
    root: &OpenRoot,
    content: Content,
    copy: u32,
) -> Result<Option<(Place, BoxedHandle)>, Errno> {
    let place = root.stage_place(&stage_name(content, copy));
    let file = match place.open_to_read() {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let stat = file.stat()?;
    let fits = stat.state.is_some_and(|s| s.kind == DiskKind::File && s.size == content.size);
    Ok((fits && stat.links == 1).then_some((place, file)))
}

/// Makes something under a fresh temporary name; `make` says [`Errno::EXIST`] where the name is taken.
pub(super) fn make_temporary<T>(
    root: &OpenRoot,
    now_ms: i64,
    mut make: impl FnMut(&Place) -> Result<T, Errno>,
) -> Result<(Place, T), Errno> {
    let mut place = root.stage_place("");
    for attempt in 0..NAME_ATTEMPTS_MAX {
        place.name = format!("{TEMPORARY}{now_ms}-{attempt}").into_bytes().into();
        match make(&place) {
            Err(Errno::EXIST) => {}
            made => return Ok((place, made?)),
        }
    }
    Err(Errno::EXIST)
}

/// Makes a new file under a temporary name, open for writing.
pub(super) fn temporary_file(root: &OpenRoot, now_ms: i64) -> Result<(Place, BoxedHandle), Errno> {
    make_temporary(root, now_ms, |place| place.open_own(true))
}

/// Drops something of the stage, by its name there.
pub(super) fn unlink_own(root: &OpenRoot, name: &[u8]) -> Result<(), Errno> {
    match root.stage_dir().unlink(name) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => root.stage_dir().rmdir(name),
        done => done,
    }
}

pub(super) fn stage_name(content: Content, copy: u32) -> String {
    let name = format!("{}-{}-{}", hex(&content.id.0), content.depth, content.size);
    if copy == 0 { name } else { format!("{name}-{copy}") }
}

fn parse_name(name: &[u8]) -> Option<(Content, u32)> {
    let mut parts = std::str::from_utf8(name).ok()?.split('-');
    let digits = parts.next()?;
    let mut id = [0; 32];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    let content = Content { id: ContentId(id), depth: parts.next()?.parse().ok()?, size: parts.next()?.parse().ok()? };
    let copy = match parts.next() {
        Some(number) => number.parse().ok()?,
        None => 0,
    };
    // Whatever reads the same but is spelled otherwise was not written here.
    (content.is_plausible() && stage_name(content, copy).as_bytes() == name).then_some((content, copy))
}

/// Opens or creates a file of the stage that has no other name.
fn open_own(place: &Place) -> Result<(BoxedHandle, Stat), Errno> {
    let open = || -> Result<(BoxedHandle, Stat), Errno> {
        let mut opened = place.open_own(false);
        if matches!(opened, Err(Errno::ACCESS)) {
            // It was made ready for a place whose mode keeps even its owner out.
            place.chmod(0o600)?;
            opened = place.open_own(false);
        }
        let file = opened?;
        let stat = file.stat()?;
        Ok((file, stat))
    };
    let (file, stat) = open()?;
    if stat.links == 1 {
        return Ok((file, stat));
    }
    // A crash between linking a file to its new name and unlinking it here: it belongs to the user by now, and only
    // this name of it may go.
    place.unlink()?;
    match open()? {
        (file, stat) if stat.links == 1 => Ok((file, stat)),
        _ => Err(Errno::BUSY),
    }
}

/// The ranges of `bytes` that are not blocks of zeros, blocks being aligned in the file, where the bytes begin
/// at `offset`. Neighbours are joined.
fn data_runs(offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let into_block = ((offset + at as u64) % HOLE_BYTES as u64) as usize;
        let end = bytes.len().min(at + HOLE_BYTES - into_block);
        let is_zero = end - at == HOLE_BYTES && bytes[at..end].iter().all(|b| *b == 0);
        match runs.last_mut() {
            _ if is_zero => {}
            Some(last) if last.end == at => last.end = end,
            _ => runs.push(at..end),
        }
        at = end;
    }
    runs
}

fn in_mib(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::Folder;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn big(size: u64) -> Content {
        Content { id: ContentId([0xab; 32]), depth: 1, size }
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_stopped() {
        let folder = Folder::new();
        let content = big(1_000_000);
        let first = StagedFile::open(&folder.open, content, 0).unwrap();
        assert!(!first.has_data());
        first.write(500_000, b"in the middle").unwrap();
        drop(first);
        assert_eq!(staged(&folder.open).unwrap(), [(content, 0)]);
        let again = StagedFile::open(&folder.open, content, 0).unwrap();
        assert!(again.has_data());
        assert_eq!(again.read(500_000, 13).unwrap(), b"in the middle");
        assert_eq!(again.read(0, 3).unwrap(), [0; 3]);
        assert!(again.read(999_999, 2).is_err() && again.write(999_999, b"xx").is_err());
        assert!(again.write(u64::MAX, b"xx").is_err());
        discard(&folder.open, content, 0).unwrap();
        assert_eq!(staged(&folder.open).unwrap(), []);
    }

    #[test]
    fn zeros_stay_holes_but_overwrite_what_is_there() {
        let folder = Folder::new();
        let content = big(64 * 1024 * 1024);
        let name = folder.at(".p2psync/stage").join(stage_name(content, 0));
        let file = StagedFile::open(&folder.open, content, 0).unwrap();
        for i in 0..64 {
            file.write(i * 1024 * 1024, &vec![0; 1024 * 1024]).unwrap();
        }
        assert!(std::fs::metadata(&name).unwrap().blocks() < 100);
        file.write(4096, &[7; 8192]).unwrap();
        drop(file);
        let file = StagedFile::open(&folder.open, content, 0).unwrap();
        file.write(0, &[0; 16384]).unwrap();
        assert_eq!(file.read(0, 16384).unwrap(), [0; 16384]);
    }

    #[test]
    fn a_download_that_cannot_fit_is_refused_before_it_begins() {
        let folder = Folder::new();
        let problem = StagedFile::open(&folder.open, big(1 << 55), 0).err().unwrap();
        assert_eq!(problem.kind, ProblemKind::NoSpace);
        assert_eq!(staged(&folder.open).unwrap(), []);
    }

    #[test]
    fn a_staged_name_that_is_also_a_users_file_is_never_written_to() {
        let folder = Folder::new();
        let content = Content::of_chunk(b"bytes");
        folder.write("users", b"users bytes");
        std::fs::hard_link(folder.at("users"), folder.at(".p2psync/stage").join(stage_name(content, 0))).unwrap();
        stage_small(&folder.open, content, 0, b"bytes").unwrap();
        assert_eq!(folder.text("users"), "users bytes");
        assert!(open_complete(&folder.open, content, 0).unwrap().is_some());
    }

    #[test]
    fn a_sweep_takes_temporary_things_only() {
        let folder = Folder::new();
        stage_small(&folder.open, Content::of_chunk(b"x"), 0, b"x").unwrap();
        temporary_file(&folder.open, 5).unwrap();
        temporary_file(&folder.open, 5).unwrap();
        std::fs::create_dir(folder.at(".p2psync/stage/tmp-d")).unwrap();
        std::fs::write(folder.at(".p2psync/stage/unknown"), b"x").unwrap();
        sweep(&folder.open).unwrap();
        assert_eq!(std::fs::read_dir(folder.at(".p2psync/stage")).unwrap().count(), 2);
    }

    #[test]
    fn only_names_that_were_written_here_are_read_as_contents() {
        let content = big(12);
        assert_eq!(parse_name(stage_name(content, 0).as_bytes()), Some((content, 0)));
        assert_eq!(parse_name(stage_name(content, 7).as_bytes()), Some((content, 7)));
        let name = stage_name(content, 0);
        for bad in [
            name.to_uppercase(),
            format!("{name}-0"),
            format!("{name}-01"),
            format!("{name}-1-1"),
            name.replace("-12", "-+12"),
            name.replace("-1-", "-9-"),
        ] {
            assert_eq!(parse_name(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_name("\u{fc}\u{fc}-1-1".as_bytes()), None);
    }

    proptest! {
        #[test]
        fn runs_leave_out_nothing_but_zeros(offset in 0u64..10_000, blocks in prop::collection::vec((0u8..2, 1usize..9000), 0..6)) {
            let bytes: Vec<u8> = blocks.iter().flat_map(|(b, n)| vec![*b; *n]).collect();
            let runs = data_runs(offset, &bytes);
            let mut rebuilt = vec![0; bytes.len()];
            for run in &runs {
                rebuilt[run.clone()].copy_from_slice(&bytes[run.clone()]);
            }
            prop_assert_eq!(rebuilt, bytes);
            prop_assert!(runs.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
