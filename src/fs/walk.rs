//! Listing a tree in the order of its paths, in batches, with bounded memory and few open directories.

use std::ops::ControlFlow;

use rustix::io::Errno;

use super::error::{FsError, is_absence, name_problem, problem};
use super::root::{Area, OpenRoot, special_file};
use super::sys::{BoxedHandle, Handle};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::ignore::IGNORE_FILE;
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
/// special files too. Of a directory's own rules it hears before all else in that directory, and once more in their turn.
pub fn walk(
    root: &OpenRoot,
    start: Option<&RelPath>,
    enter: &mut dyn FnMut(&RelPath, DiskKind) -> bool,
    sink: &mut dyn FnMut(Vec<Seen>) -> ControlFlow<()>,
) -> Result<Walked, FsError> {
    // On a disk that folds names the system would open another directory by this name.
    let is_elsewhere = root.folds() && start.is_some_and(|start| matches!(root.look(start), Ok(None)));
    let walked = if is_elsewhere { Walked::default() } else { walk_area(root, Area::Tree, start, enter, sink)? };
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
    match walker.open(start).and_then(|dir| Ok((dir.names()?, dir))) {
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
    base: &'a dyn Handle,
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
    dir: Option<BoxedHandle>,
}

impl Walker<'_> {
    fn open(&self, path: Option<&RelPath>) -> Result<BoxedHandle, Errno> {
        self.base.open_dir_beneath(path.map(RelPath::as_bytes).unwrap_or_default())
    }

    fn push(&mut self, path: Option<RelPath>, names: Vec<Box<[u8]>>, dir: BoxedHandle) {
        if names.iter().any(|name| **name == *IGNORE_FILE.as_bytes())
            && let Some(Ok(rules)) = path.as_ref().map(|path| path.join(IGNORE_FILE.as_bytes()))
        {
            (self.enter)(&rules, DiskKind::File);
        }
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
        let stat = match dir.stat_at(name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(errno) => return self.fail(path, problem("look at it", errno)),
        };
        let state = stat.state;
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
        match above.open_dir_at(name).and_then(|dir| Ok((dir.names()?, dir))) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::path::DEPTH_MAX;
    use crate::fs::testing::{Folder, path};
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    fn walk_all(folder: &Folder, start: Option<&RelPath>) -> (Vec<Seen>, Walked) {
        let mut all = Vec::new();
        let walked = walk(&folder.open, start, &mut |_, _| true, &mut |batch| {
            assert!(batch.len() <= BATCH_ENTRIES + 1);
            all.extend(batch);
            ControlFlow::Continue(())
        });
        (all, walked.unwrap())
    }

    fn names(seen: &[Seen]) -> Vec<String> {
        seen.iter().map(|s| s.path.to_string()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_order_is_that_of_paths(made in prop::collection::btree_set("[a-c !.~-]{1,2}(/[a-c !.~-]{1,2}){0,3}", 0..20)) {
            let folder = Folder::new();
            for name in &made {
                if RelPath::parse(name.as_bytes()).is_ok() {
                    std::fs::create_dir_all(folder.at(name)).unwrap();
                }
            }
            let (seen, walked) = walk_all(&folder, None);
            let paths: Vec<&RelPath> = seen.iter().map(|s| &s.path).collect();
            prop_assert!(paths.is_sorted_by(|a, b| a < b), "{:?}", paths);
            prop_assert_eq!(walked, Walked::default());
            let wanted: std::collections::BTreeSet<RelPath> = made
                .iter()
                .filter_map(|n| RelPath::parse(n.as_bytes()).ok())
                .flat_map(|p| p.ancestors().chain([p.clone()]).collect::<Vec<_>>())
                .collect();
            prop_assert_eq!(paths, wanted.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn starts_below_a_directory_and_leaves_out_what_is_not_entered() {
        let folder = Folder::new();
        for name in ["a/b/c", "a/b!", "a/d/e/f", "z"] {
            folder.write(name, b"");
        }
        assert_eq!(names(&walk_all(&folder, Some(&path("a"))).0), ["a/b", "a/b/c", "a/b!", "a/d", "a/d/e", "a/d/e/f"]);
        assert_eq!(walk_all(&folder, Some(&path("missing"))).0, []);
        assert_eq!(walk_all(&folder, Some(&path("z"))).0, []);
        let mut seen = Vec::new();
        let mut enter = |p: &RelPath, kind| p.as_bytes() != b"a/d" || kind != DiskKind::Directory;
        walk(&folder.open, None, &mut enter, &mut |batch| {
            seen.extend(batch);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(names(&seen), ["a", "a/b", "a/b/c", "a/b!", "z"]);
    }

    #[test]
    fn many_entries_come_in_batches_and_can_be_stopped() {
        let folder = Folder::new();
        (0..1000).for_each(|i| folder.write(&format!("{i}"), b""));
        assert_eq!(walk_all(&folder, None).0.len(), 1000);
        let mut batches = 0;
        let walked = walk(&folder.open, None, &mut |_, _| true, &mut |_| {
            batches += 1;
            ControlFlow::Break(())
        });
        assert!(walked.unwrap().stopped && batches == 1);
    }

    #[test]
    fn what_cannot_sync_is_reported_and_not_followed() {
        let folder = Folder::new();
        folder.write("dir/.P2Psync/x", b"");
        folder.write("dir/y", b"");
        std::os::unix::fs::symlink("dir", folder.at("link")).unwrap();
        std::fs::write(folder.root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.at("socket")).unwrap();
        let (seen, walked) = walk_all(&folder, None);
        assert_eq!(names(&seen), ["dir", "dir/y", "link", "socket", "\\xff"]);
        let is_special = |s: &Seen| s.state.as_ref().is_err_and(|p| p.kind == ProblemKind::SpecialFile);
        assert!(is_special(&seen[3]));
        assert_eq!((walked.refused_count, walked.refused[0].display.as_str()), (1, "dir/.P2Psync"));
    }

    #[test]
    fn an_unreadable_directory_is_an_error_on_its_own_path() {
        let folder = Folder::new();
        folder.write("dir/y", b"");
        std::fs::set_permissions(folder.at("dir"), std::fs::Permissions::from_mode(0o000)).unwrap();
        let (seen, _) = walk_all(&folder, None);
        let (below, _) = walk_all(&folder, Some(&path("dir")));
        std::fs::set_permissions(folder.at("dir"), std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(names(&seen), ["dir", "dir/y"]);
            return;
        }
        for seen in [seen, below] {
            assert_eq!(names(&seen), ["dir"]);
            assert_eq!(seen[0].state.as_ref().unwrap_err().kind, ProblemKind::Permission);
        }
    }

    #[test]
    fn a_deep_tree_takes_few_handles_and_no_stack() {
        let folder = Folder::new();
        let deep = vec!["d"; DEPTH_MAX].join("/");
        drop(crate::fs::sys::make_dirs_beneath(folder.open.base(Area::Tree), deep.as_bytes(), 0o700).unwrap());
        let (seen, _) = walk_all(&folder, None);
        assert_eq!(seen.len(), DEPTH_MAX);
        assert!(seen.iter().all(|s| s.state.is_ok()));
        assert_eq!(seen[DEPTH_MAX - 1].path.as_bytes(), deep.as_bytes());
    }

    #[test]
    fn a_marker_that_goes_away_during_the_walk_makes_it_worthless() {
        let folder = Folder::new();
        folder.write("a", b"");
        let walked = walk(&folder.open, None, &mut |_, _| true, &mut |_| {
            std::fs::remove_file(folder.at(".p2psync/marker")).unwrap();
            ControlFlow::Continue(())
        });
        assert!(matches!(walked, Err(FsError::MarkerGone { .. })));
    }
}
