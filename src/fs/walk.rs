//! Listing a tree in the order of its paths, in batches, with bounded memory and few open directories.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::error::{FsError, is_absence, name_problem, problem};
use super::root::{Area, OpenRoot, special_file};
use super::sys;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::path::{OWN_DIR, PathError, RelPath};
use crate::core::problem::{Problem, ProblemKind};

/// Entries handed over at a time: enough to share the cost of a transaction, little enough to be memory-free.
const BATCH_ENTRIES: usize = 256;
/// Directories held open at a time; deeper ones are opened anew by their path.
const OPEN_DIRECTORIES_MAX: usize = 16;
/// Names listed as refused; more of them are only counted.
const REFUSED_MAX: usize = 100;

/// One path as the walk came by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub path: RelPath,
    /// An error on a directory means that nothing is known of what is below it.
    pub state: Result<DiskState, Problem>,
}

/// A name on the disk that cannot be a path of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// For people, escaped.
    pub display: String,
    pub why: PathError,
}

/// What a walk left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// The first of the refused names.
    pub refused: Vec<Refused>,
    pub refused_count: u64,
    /// True where the sink ended the walk before its end.
    pub stopped: bool,
}

/// Lists what is below `start` (not itself; `None` is the whole folder) in the order of paths.
///
/// `enter` says whether a path is of interest at all; where it is not, nothing below it is either. It hears `File` for
/// special files too.
pub fn walk(
    root: &OpenRoot,
    start: Option<&RelPath>,
    enter: &mut dyn FnMut(&RelPath, DiskKind) -> bool,
    sink: &mut dyn FnMut(Vec<Seen>) -> ControlFlow<()>,
) -> Result<Walked, FsError> {
    let walked = walk_area(root, Area::Tree, start, enter, sink)?;
    // A disk that went away in the middle looks like an empty tree.
    root.check()?;
    Ok(walked)
}

pub(super) fn walk_area(
    root: &OpenRoot,
    area: Area,
    start: Option<&RelPath>,
    enter: &mut dyn FnMut(&RelPath, DiskKind) -> bool,
    sink: &mut dyn FnMut(Vec<Seen>) -> ControlFlow<()>,
) -> Result<Walked, FsError> {
    let mut walker =
        Walker { base: root.base(area), frames: Vec::new(), batch: Vec::new(), walked: Walked::default(), enter };
    match walker.open(start).and_then(|dir| Ok((sys::names_in(&dir)?, dir))) {
        Ok((names, dir)) => walker.push(start.cloned(), names, dir),
        Err(errno) => match start {
            Some(_) if is_absence(errno) => return Ok(walker.walked),
            Some(path) => {
                walker.batch.push(Seen { path: path.clone(), state: Err(problem("list this directory", errno)) })
            }
            None => return Err(FsError::io(root.path(), "list", errno)),
        },
    }
    while walker.step() {
        if walker.batch.len() >= BATCH_ENTRIES && sink(std::mem::take(&mut walker.batch)).is_break() {
            walker.walked.stopped = true;
            return Ok(walker.walked);
        }
    }
    if !walker.batch.is_empty() && sink(std::mem::take(&mut walker.batch)).is_break() {
        walker.walked.stopped = true;
    }
    Ok(walker.walked)
}

struct Walker<'a> {
    base: BorrowedFd<'a>,
    frames: Vec<Frame>,
    batch: Vec<Seen>,
    walked: Walked,
    enter: &'a mut dyn FnMut(&RelPath, DiskKind) -> bool,
}

/// A directory whose names are not all visited yet.
struct Frame {
    path: Option<RelPath>,
    names: std::vec::IntoIter<Box<[u8]>>,
    /// `None` where it is to be opened anew.
    dir: Option<OwnedFd>,
}

impl Walker<'_> {
    fn open(&self, path: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        sys::open_dir_beneath(self.base, path.map(RelPath::as_bytes).unwrap_or_default())
    }

    fn push(&mut self, path: Option<RelPath>, names: Vec<Box<[u8]>>, dir: OwnedFd) {
        if self.frames.len() >= OPEN_DIRECTORIES_MAX
            && let Some(above) = self.frames.last_mut()
        {
            above.dir = None;
        }
        self.frames.push(Frame { path, names: names.into_iter(), dir: Some(dir) });
    }

    /// Visits one name; false at the end.
    fn step(&mut self) -> bool {
        let Some(frame) = self.frames.last_mut() else { return false };
        let Some(name) = frame.names.next() else {
            self.frames.pop();
            return true;
        };
        let path = match &frame.path {
            Some(above) => above.join(&name),
            None if *name == *OWN_DIR.as_bytes() => return true,
            None => RelPath::parse(&name),
        };
        match path {
            Ok(path) => self.visit(path, &name),
            Err(why) => {
                let above = frame.path.as_ref().map(|p| format!("{p}/")).unwrap_or_default();
                self.refuse(format!("{above}{}", name.escape_ascii()), why);
            }
        }
        true
    }

    fn refuse(&mut self, display: String, why: PathError) {
        self.walked.refused_count += 1;
        if self.walked.refused.len() < REFUSED_MAX {
            self.walked.refused.push(Refused { display, why });
        }
    }

    fn visit(&mut self, path: RelPath, name: &[u8]) {
        if self.frames.last().is_some_and(|frame| frame.dir.is_none()) {
            let above = self.frames.last().and_then(|frame| frame.path.clone());
            let opened = self.open(above.as_ref());
            match (opened, self.frames.last_mut()) {
                (Ok(dir), Some(frame)) => frame.dir = Some(dir),
                (Err(errno), _) => return self.fail(path, name_problem("look at it", errno)),
                (_, None) => return,
            }
        }
        let Some(dir) = self.frames.last().and_then(|frame| frame.dir.as_ref()) else { return };
        let stat = match sys::stat_at(dir, name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(errno) => return self.fail(path, problem("look at it", errno)),
        };
        let state = sys::state_of(&stat);
        if !(self.enter)(&path, state.map_or(DiskKind::File, |s| s.kind)) {
            return;
        }
        match state {
            None => self.fail(path, special_file()),
            Some(state) if state.kind == DiskKind::Directory => self.descend(path, name, state),
            Some(state) => self.batch.push(Seen { path, state: Ok(state) }),
        }
    }

    /// Takes a directory into the listing only once it could be read to its end.
    fn descend(&mut self, path: RelPath, name: &[u8], state: DiskState) {
        let Some(above) = self.frames.last().and_then(|frame| frame.dir.as_ref()) else { return };
        match sys::open_dir_at(above.as_fd(), name).and_then(|dir| Ok((sys::names_in(&dir)?, dir))) {
            Ok((names, dir)) => {
                self.batch.push(Seen { path: path.clone(), state: Ok(state) });
                self.push(Some(path), names, dir);
            }
            Err(errno) if is_absence(errno) => self.fail(
                path,
                Problem::new(ProblemKind::Busy, "was replaced while it was being scanned; it is looked at again"),
            ),
            Err(errno) => self.fail(path, problem("list this directory", errno)),
        }
    }

    fn fail(&mut self, path: RelPath, problem: Problem) {
        self.batch.push(Seen { path, state: Err(problem) });
    }
}
