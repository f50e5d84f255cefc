//! A folder's directory: its marker, and the handles through which all else in it is reached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{FsError, is_absence, is_name_error, problem};
use super::sys::{self, Place};
use crate::core::disk::DiskState;
use crate::core::id::FolderId;
use crate::core::path::{OWN_DIR, RelPath};
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;

const MARKER: &str = "marker";
const STAGE: &str = "stage";
const HISTORY: &str = "history";
/// The agent's own directories are nobody else's business.
const OWN_MODE: u32 = 0o700;
/// Longest marker read, in bytes: a folder id has at most 64.
const MARKER_BYTES_MAX: usize = 256;

/// Where a shared folder lies. Holds nothing open.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
    id: FolderId,
}

/// A folder opened for a short piece of work. Keep it no longer: it keeps the disk from being unmounted.
pub struct OpenRoot {
    path: PathBuf,
    tree: OwnedFd,
    own: OwnedFd,
    stage: OwnedFd,
    history: OwnedFd,
    folds: bool,
}

/// The three trees that a folder's directory consists of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Area {
    /// What the user has there, and what syncs.
    Tree,
    History,
}

impl Root {
    pub fn new(path: PathBuf, id: FolderId) -> Root {
        Root { path, id }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, where there is none, and what the agent keeps in it. Does nothing where all is there.
    pub fn create(&self) -> Result<(), FsError> {
        let io = |doing, source| FsError::Io { path: self.path.clone(), doing, source };
        std::fs::create_dir_all(&self.path).map_err(|e| io("create", e))?;
        failpoint::hit("folder.rooted");
        let tree = self.open_tree()?;
        let own = sys::make_dirs_beneath(tree.as_fd(), OWN_DIR.as_bytes(), OWN_MODE)
            .map_err(|e| FsError::io(&self.path, "create .p2psync in", e))?;
        failpoint::hit("folder.owned");
        match self.check_marker(&own) {
            Err(FsError::MarkerGone { .. }) => self.write_marker(&own)?,
            checked => checked?,
        }
        self.open_own_dirs(&own)?;
        rustix::fs::fsync(&own)
            .and_then(|()| rustix::fs::fsync(&tree))
            .map_err(|e| FsError::io(&self.path, "write to", e))?;
        failpoint::hit("folder.made");
        Ok(())
    }

    /// Opens the folder, if its directory and its marker are there. Nothing of the folder is ever made here; just the
    /// agent's own two directories come back where someone cleared them away from beside a good marker.
    pub fn open(&self) -> Result<OpenRoot, FsError> {
        let tree = self.open_tree()?;
        let own = sys::open_dir_at(&tree, OWN_DIR.as_bytes()).map_err(|e| self.marker_error(e))?;
        self.check_marker(&own)?;
        let (stage, history) = self.open_own_dirs(&own)?;
        let folds = folds_names(&tree, &own);
        Ok(OpenRoot { path: self.path.clone(), tree, own, stage, history, folds })
    }

    fn open_tree(&self) -> Result<OwnedFd, FsError> {
        // The root itself may be reached through links: the user said where it is.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV => FsError::RootGone { path: self.path.clone() },
            other => FsError::io(&self.path, "open", other),
        })
    }

    fn open_own_dirs(&self, own: &OwnedFd) -> Result<(OwnedFd, OwnedFd), FsError> {
        let open = |name: &str| sys::make_dirs_beneath(own.as_fd(), name.as_bytes(), OWN_MODE);
        let io = |errno| FsError::io(&self.path, "open .p2psync in", errno);
        Ok((open(STAGE).map_err(io)?, open(HISTORY).map_err(io)?))
    }

    fn check_marker(&self, own: &OwnedFd) -> Result<(), FsError> {
        let marker = sys::open_to_read(own, MARKER.as_bytes()).map_err(|e| self.marker_error(e))?;
        let mut text = [0; MARKER_BYTES_MAX];
        let read = rustix::io::read(&marker, &mut text).map_err(|e| self.marker_error(e))?;
        let found = String::from_utf8_lossy(text.get(..read).unwrap_or_default());
        match found.trim() {
            // A crash can leave an empty marker.
            "" => Err(FsError::MarkerGone { path: self.path.clone() }),
            id if id == self.id.as_str() => Ok(()),
            other => Err(FsError::OtherFolder {
                path: self.path.clone(),
                found: other.escape_default().to_string(),
                wanted: self.id.to_string(),
            }),
        }
    }

    fn write_marker(&self, own: &OwnedFd) -> Result<(), FsError> {
        let io = |errno| FsError::io(&self.path, "write .p2psync/marker in", errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(own, MARKER, flags, Mode::from_raw_mode(0o600)).map_err(io)?;
        failpoint::hit("folder.marker_created");
        let text = format!("{}\n", self.id);
        let written = rustix::io::write(&file, text.as_bytes()).map_err(io)?;
        if written != text.len() {
            return Err(io(Errno::NOSPC));
        }
        failpoint::hit("folder.marker_written");
        rustix::fs::fsync(&file).map_err(io)
    }

    fn marker_error(&self, errno: Errno) -> FsError {
        if is_absence(errno) {
            FsError::MarkerGone { path: self.path.clone() }
        } else {
            FsError::io(&self.path, "read .p2psync/marker in", errno)
        }
    }
}

impl OpenRoot {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands at a path, by the exact bytes of its name; `None` also where a directory above it is missing.
    pub fn look(&self, path: &RelPath) -> Result<Option<DiskState>, Problem> {
        let stat = match self.place(Area::Tree, path).and_then(|place| place.stat()) {
            Ok(stat) => stat,
            // A name that the file system cannot hold is not there.
            Err(errno) if is_absence(errno) || is_name_error(errno) => return Ok(None),
            Err(errno) => return Err(problem("look at it", errno)),
        };
        if self.folds && !self.is_spelled_so(path).map_err(|e| problem("list its directory", e))? {
            return Ok(None);
        }
        sys::state_of(&stat).map(Some).ok_or_else(special_file)
    }

    /// Bytes that can still be written to the folder's file system.
    pub fn free_bytes(&self) -> Result<u64, Problem> {
        sys::free_bytes(&self.tree).map_err(|e| problem("ask for the free space of the disk", e))
    }

    /// The kind of network file system that the folder lies on, where changes are found by scanning only.
    pub fn is_network_fs(&self) -> Option<&'static str> {
        sys::network_fs(&self.tree)
    }

    /// True on a file system that takes names in other case for the same.
    pub fn folds(&self) -> bool {
        self.folds
    }

    /// Looks once more whether the marker is there: an absence seen before is worth nothing otherwise.
    pub fn check(&self) -> Result<(), FsError> {
        match sys::stat_at(&self.own, MARKER.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(FsError::MarkerGone { path: self.path.clone() }),
        }
    }

    pub(super) fn base(&self, area: Area) -> BorrowedFd<'_> {
        match area {
            Area::Tree => self.tree.as_fd(),
            Area::History => self.history.as_fd(),
        }
    }

    pub(super) fn stage_dir(&self) -> BorrowedFd<'_> {
        self.stage.as_fd()
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn place(&self, area: Area, path: &RelPath) -> Result<Place, Errno> {
        let dir = sys::open_dir_beneath(self.base(area), parent_bytes(path))?;
        Ok(Place { dir, name: path.file_name().into() })
    }

    /// As [`OpenRoot::place`], with the directories above it made where they are missing.
    pub(super) fn make_place(&self, area: Area, path: &RelPath) -> Result<Place, Errno> {
        let mode = if area == Area::Tree { 0o777 } else { OWN_MODE };
        let dir = sys::make_dirs_beneath(self.base(area), parent_bytes(path), mode)?;
        Ok(Place { dir, name: path.file_name().into() })
    }

    /// A name in the stage.
    pub(super) fn stage_place(&self, name: &str) -> Result<Place, Errno> {
        Ok(Place { dir: sys::open_dir_beneath(self.stage_dir(), b"")?, name: name.as_bytes().into() })
    }

    /// True where every component stands in its directory with just these bytes.
    fn is_spelled_so(&self, path: &RelPath) -> Result<bool, Errno> {
        let mut dir = sys::open_dir_beneath(self.base(Area::Tree), b"")?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            if sys::names_in(&dir)?.binary_search_by(|n| (**n).cmp(name)).is_err() {
                return Ok(false);
            }
            if names.peek().is_some() {
                dir = sys::open_dir_at(&dir, name)?;
            }
        }
        Ok(true)
    }
}

pub(super) fn special_file() -> Problem {
    Problem::new(ProblemKind::SpecialFile, "is a socket, FIFO or device: such things are not synced")
}

/// The bytes of the directory above; empty for the base itself.
pub(super) fn parent_bytes(path: &RelPath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes.iter().rposition(|b| *b == b'/').and_then(|cut| bytes.get(..cut)).unwrap_or_default()
}

/// True where the file system finds `.p2psync` under another spelling too.
fn folds_names(tree: &OwnedFd, own: &OwnedFd) -> bool {
    let other = sys::stat_at(tree, OWN_DIR.to_uppercase().as_bytes());
    match (other, rustix::fs::fstat(own)) {
        (Ok(a), Ok(b)) => a.st_ino == b.st_ino && a.st_dev == b.st_dev,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::{Folder, path};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn creating_twice_is_fine_but_not_for_another_folder() {
        let folder = Folder::new();
        folder.root.create().unwrap();
        let mode = std::fs::metadata(folder.at(".p2psync")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let other = Root::new(folder.root.path().into(), "other".parse().unwrap());
        assert!(matches!(other.create(), Err(FsError::OtherFolder { found, .. }) if found == "test"));
        assert!(matches!(other.open(), Err(FsError::OtherFolder { .. })));
    }

    #[test]
    fn opening_tells_a_missing_root_from_a_missing_marker_and_makes_neither() {
        let folder = Folder::new();
        std::fs::write(folder.at(".p2psync/marker"), b"").unwrap();
        assert!(matches!(folder.root.open(), Err(FsError::MarkerGone { .. })));
        std::fs::remove_dir_all(folder.at(".p2psync")).unwrap();
        assert!(matches!(folder.root.open(), Err(FsError::MarkerGone { .. })));
        assert!(folder.open.check().is_err());
        std::fs::remove_dir(folder.root.path()).unwrap();
        assert!(matches!(folder.root.open(), Err(FsError::RootGone { .. })));
        assert!(!folder.root.path().exists());
    }

    #[test]
    fn a_cleared_history_comes_back_beside_a_good_marker() {
        let folder = Folder::new();
        std::fs::remove_dir(folder.at(".p2psync/history")).unwrap();
        folder.root.open().unwrap();
        assert!(folder.at(".p2psync/history").is_dir());
    }

    #[test]
    fn looks_by_exact_bytes_without_following_links() {
        let folder = Folder::new();
        folder.write("dir/File", b"12345");
        std::os::unix::fs::symlink("dir", folder.at("link")).unwrap();
        assert_eq!(folder.look("dir/File").map(|s| s.size), Some(5));
        for absent in ["dir/file", "link/File", "dir/File/below", "no/such", &"x".repeat(255)] {
            assert_eq!(folder.look(absent), None, "{absent}");
        }
        assert!(folder.open.is_spelled_so(&path("dir/File")).unwrap());
        assert!(!folder.open.is_spelled_so(&path("dir/file")).unwrap());
        assert!(!folder.open.folds() && folder.open.free_bytes().unwrap() > 0);
    }
}
