//! A folder's directory: its marker, and the handles through which all else in it is reached.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use super::error::{FsError, is_absence, is_name_error, problem};
use super::sys::{self, BoxedHandle, Handle, OsSystem, Place, SharedHandle, Stat, System};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::id::FolderId;
use crate::core::ignore::IGNORE_FILE;
use crate::core::path::{OWN_DIR, RelPath};
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;

const MARKER: &str = "marker";
const STAGE: &str = "stage";
pub(super) const HISTORY: &str = "history";
/// The agent's own directories are nobody else's business.
const OWN_MODE: u32 = 0o700;
/// Longest marker read, in bytes: a folder id has at most 64, a token a few more.
const MARKER_BYTES_MAX: usize = 256;

/// Where a shared folder lies. Holds nothing open.
#[derive(Clone, Debug)]
pub struct Root {
    system: Arc<dyn System>,
    path: PathBuf,
    id: FolderId,
    /// The token of the marker that the index is about, once it is known; shared by all clones.
    token: Arc<OnceLock<String>>,
}

/// What a marker says: its folder, and a random token that tells one directory of that folder from another, so that
/// a mount point without its disk is not taken for what is on the disk. Markers of old have no token.
struct Marker {
    id: String,
    token: Option<String>,
}

/// A folder opened for a short piece of work. Keep it no longer: it keeps the disk from being unmounted.
pub struct OpenRoot {
    path: PathBuf,
    tree: SharedHandle,
    own: BoxedHandle,
    stage: SharedHandle,
    history: SharedHandle,
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
        Root::on(Arc::new(OsSystem), path, id)
    }

    /// A folder on a system other than the one that this program runs on.
    pub fn on(system: Arc<dyn System>, path: PathBuf, id: FolderId) -> Root {
        Root { system, path, id, token: Arc::default() }
    }

    /// From now on only a directory whose marker has this token is the folder. The first call counts.
    pub fn expect_token(&self, token: &str) {
        let _ = self.token.set(token.to_owned());
    }

    /// The token of the marker that is there now, expected or not; `None` for one without.
    pub fn token(&self) -> Result<Option<String>, FsError> {
        self.marked_token(&*self.open_own()?)
    }

    /// Gives the marker a token. It has to have none yet.
    pub fn add_token(&self, token: &str) -> Result<(), FsError> {
        let own = self.open_own()?;
        self.check_marker(&*own)?;
        // Its first line stays as it is, so a crash leaves a marker with no token or with a part of this one, and
        // either is good as long as no index has noted it.
        self.write_marker(&*own, &format!("{}\n{token}\n", self.id))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, where there is none, and what the agent keeps in it. Does nothing where all is there.
    pub fn create(&self) -> Result<(), FsError> {
        self.system.create_dir_all(&self.path).map_err(|e| FsError::io(&self.path, "create", e))?;
        failpoint::hit("folder.rooted");
        let tree = self.open_tree()?;
        let own = sys::make_dirs_beneath(&*tree, OWN_DIR.as_bytes(), OWN_MODE)
            .map_err(|e| FsError::io(&self.path, "create .p2psync in", e))?;
        failpoint::hit("folder.owned");
        match self.check_marker(&*own) {
            Err(FsError::MarkerGone { .. }) => self.write_marker(&*own, &format!("{}\n", self.id))?,
            checked => checked?,
        }
        self.open_own_dirs(&*own)?;
        own.fsync().and_then(|()| tree.fsync()).map_err(|e| FsError::io(&self.path, "write to", e))?;
        failpoint::hit("folder.made");
        Ok(())
    }

    /// Opens the folder, if its directory and its marker are there. Nothing of the folder is ever made here; just the
    /// agent's own two directories come back where someone cleared them away from beside a good marker.
    pub fn open(&self) -> Result<OpenRoot, FsError> {
        let tree = self.open_tree()?;
        let own = tree.open_dir_at(OWN_DIR.as_bytes()).map_err(|e| self.marker_error(e))?;
        self.check_marker(&*own)?;
        let (stage, history) = self.open_own_dirs(&*own)?;
        let folds = folds_names(&*tree, &*own);
        Ok(OpenRoot {
            path: self.path.clone(),
            tree: tree.into(),
            own,
            stage: stage.into(),
            history: history.into(),
            folds,
        })
    }

    fn open_tree(&self) -> Result<BoxedHandle, FsError> {
        self.system.open_root(&self.path).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV => FsError::RootGone { path: self.path.clone() },
            other => FsError::io(&self.path, "open", other),
        })
    }

    fn open_own_dirs(&self, own: &dyn Handle) -> Result<(BoxedHandle, BoxedHandle), FsError> {
        let open = |name: &str| sys::make_dirs_beneath(own, name.as_bytes(), OWN_MODE);
        let io = |errno| FsError::io(&self.path, "open .p2psync in", errno);
        Ok((open(STAGE).map_err(io)?, open(HISTORY).map_err(io)?))
    }

    fn open_own(&self) -> Result<BoxedHandle, FsError> {
        self.open_tree()?.open_dir_at(OWN_DIR.as_bytes()).map_err(|e| self.marker_error(e))
    }

    fn check_marker(&self, own: &dyn Handle) -> Result<(), FsError> {
        let found = self.marked_token(own)?;
        match self.token.get() {
            Some(token) if found.as_ref() != Some(token) => Err(FsError::OtherDisk { path: self.path.clone() }),
            _ => Ok(()),
        }
    }

    /// The token of a marker of this very folder.
    fn marked_token(&self, own: &dyn Handle) -> Result<Option<String>, FsError> {
        let marker = self.read_marker(own)?;
        if marker.id == self.id.as_str() {
            return Ok(marker.token);
        }
        Err(FsError::OtherFolder {
            path: self.path.clone(),
            found: marker.id.escape_default().to_string(),
            wanted: self.id.to_string(),
        })
    }

    fn read_marker(&self, own: &dyn Handle) -> Result<Marker, FsError> {
        let marker = own.open_to_read(MARKER.as_bytes()).map_err(|e| self.marker_error(e))?;
        let mut text = [0; MARKER_BYTES_MAX];
        let read = marker.read_at(&mut text, 0).map_err(|e| self.marker_error(e))?;
        let found = String::from_utf8_lossy(text.get(..read).unwrap_or_default());
        let mut lines = found.trim().lines().map(|line| line.trim().to_owned());
        match lines.next() {
            Some(id) => Ok(Marker { id, token: lines.next().filter(|token| !token.is_empty()) }),
            // A crash can leave an empty marker.
            None => Err(FsError::MarkerGone { path: self.path.clone() }),
        }
    }

    fn write_marker(&self, own: &dyn Handle, text: &str) -> Result<(), FsError> {
        let io = |errno| FsError::io(&self.path, "write .p2psync/marker in", errno);
        let file = own.open_own(MARKER.as_bytes(), false).map_err(io)?;
        failpoint::hit("folder.marker_created");
        sys::write_all_at(&*file, text.as_bytes(), 0).map_err(io)?;
        failpoint::hit("folder.marker_written");
        file.fsync().map_err(io)
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
        self.seen(self.place(Area::Tree, path).and_then(|place| place.stat()), path)
    }

    /// The same, for a path whose directory is open already.
    pub(super) fn look_in(&self, place: &Place, path: &RelPath) -> Result<Option<DiskState>, Problem> {
        self.seen(place.stat(), path)
    }

    pub(super) fn seen(&self, stat: Result<Stat, Errno>, path: &RelPath) -> Result<Option<DiskState>, Problem> {
        let stat = match stat {
            Ok(stat) => stat,
            // A name that the file system cannot hold is not there.
            Err(errno) if is_absence(errno) || is_name_error(errno) => return Ok(None),
            Err(errno) => return Err(problem("look at it", errno)),
        };
        if self.folds && !self.is_spelled_so(path).map_err(|e| problem("list its directory", e))? {
            return Ok(None);
        }
        stat.state.map(Some).ok_or_else(special_file)
    }

    /// The file with the folder's own ignore rules; `None` where there is none, or something else than a file.
    pub fn read_ignore_file(&self, max_bytes: usize) -> Result<Option<Vec<u8>>, Problem> {
        self.read_rules(None, IGNORE_FILE, max_bytes)
    }

    /// A file with ignore rules, in the root or a directory below it.
    pub fn read_rules(
        &self,
        directory: Option<&RelPath>,
        name: &str,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let doing = "read the ignore rules";
        let opened = match directory {
            None => self.tree.open_to_read(name.as_bytes()),
            Some(directory) => {
                let directory = self.tree.open_dir_beneath(directory.as_bytes());
                directory.and_then(|directory| directory.open_to_read(name.as_bytes()))
            }
        };
        let file = match opened {
            Err(errno) if is_absence(errno) || errno == Errno::NXIO => return Ok(None),
            opened => opened.map_err(|e| problem(doing, e))?,
        };
        let state = match file.stat().map_err(|e| problem(doing, e))?.state {
            Some(state) if state.kind == DiskKind::File => state,
            _ => return Ok(None),
        };
        let size = usize::try_from(state.size).unwrap_or(usize::MAX);
        if size > max_bytes {
            let text = format!("{name} is larger than {max_bytes} bytes, too large for a list of rules");
            return Err(Problem::new(ProblemKind::Io, text));
        }
        let mut bytes = vec![0; size];
        match sys::read_exact_at(&*file, &mut bytes, 0) {
            Ok(true) => Ok(Some(bytes)),
            Ok(false) => Err(Problem::new(ProblemKind::Busy, format!("{name} changed while it was being read"))),
            Err(errno) => Err(problem(doing, errno)),
        }
    }

    /// Bytes that can still be written to the folder's file system.
    pub fn free_bytes(&self) -> Result<u64, Problem> {
        self.tree.free_bytes().map_err(|e| problem("ask for the free space of the disk", e))
    }

    /// Size of the disk in bytes.
    pub fn disk_bytes(&self) -> Result<u64, Problem> {
        self.tree.disk_bytes().map_err(|e| problem("ask for the size of the disk", e))
    }

    /// The kind of network file system that the folder lies on, where changes are found by scanning only.
    pub fn is_network_fs(&self) -> Option<&'static str> {
        self.tree.network_fs()
    }

    /// True on a file system that takes names in other case for the same.
    pub fn folds(&self) -> bool {
        self.folds
    }

    /// True on a file system that keeps the modes it is given, to judge by the agent's own directory.
    pub(super) fn keeps_modes(&self) -> bool {
        let state = self.own.stat().ok().and_then(|stat| stat.state);
        state.is_some_and(|state| state.mode & 0o777 == OWN_MODE)
    }

    /// Looks once more whether the marker is there: an absence seen before is worth nothing otherwise.
    pub fn check(&self) -> Result<(), FsError> {
        match self.own.stat_at(MARKER.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(FsError::MarkerGone { path: self.path.clone() }),
        }
    }

    /// Makes durable all that can be seen in the folder, where the file system can do that in one go.
    pub fn make_durable(&self) -> Result<(), FsError> {
        match self.base(Area::Tree).sync_file_system() {
            Ok(_) => Ok(()),
            Err(errno) => Err(FsError::io(self.path(), "make durable what is in", errno)),
        }
    }

    pub(super) fn base(&self, area: Area) -> &dyn Handle {
        match area {
            Area::Tree => &*self.tree,
            Area::History => &*self.history,
        }
    }

    fn shared(&self, area: Area) -> SharedHandle {
        match area {
            Area::Tree => self.tree.clone(),
            Area::History => self.history.clone(),
        }
    }

    pub(super) fn stage_dir(&self) -> &dyn Handle {
        &*self.stage
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn place(&self, area: Area, path: &RelPath) -> Result<Place, Errno> {
        let dir = match parent_bytes(path) {
            b"" => self.shared(area),
            parent => self.base(area).open_dir_beneath(parent)?.into(),
        };
        Ok(Place { dir, name: path.file_name().into() })
    }

    /// As [`OpenRoot::place`], with the directories above it made where they are missing.
    pub(super) fn make_place(&self, area: Area, path: &RelPath) -> Result<Place, Errno> {
        let mode = if area == Area::Tree { 0o777 } else { OWN_MODE };
        let dir = sys::make_dirs_beneath(self.base(area), parent_bytes(path), mode)?;
        Ok(Place { dir: dir.into(), name: path.file_name().into() })
    }

    /// A name in the stage.
    pub(super) fn stage_place(&self, name: &str) -> Place {
        Place { dir: self.stage.clone(), name: name.as_bytes().into() }
    }

    /// True where every component stands in its directory with just these bytes.
    fn is_spelled_so(&self, path: &RelPath) -> Result<bool, Errno> {
        let mut dir = self.tree.open_dir_beneath(b"")?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            if dir.names()?.binary_search_by(|n| (**n).cmp(name)).is_err() {
                return Ok(false);
            }
            if names.peek().is_some() {
                dir = dir.open_dir_at(name)?;
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
fn folds_names(tree: &dyn Handle, own: &dyn Handle) -> bool {
    let other = OWN_DIR.to_uppercase();
    match (tree.stat_at(other.as_bytes()), own.stat()) {
        (Ok(a), Ok(b)) if a.device == b.device && a.state.map(|s| s.inode) == b.state.map(|s| s.inode) => true,
        // Some file systems tell another inode for every spelling; but they list just one.
        (Ok(_), Ok(_)) => tree.names().is_ok_and(|names| !names.iter().any(|name| **name == *other.as_bytes())),
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
    fn a_directory_with_another_token_is_another_folder() {
        let folder = Folder::new();
        let marker = folder.at(".p2psync/marker");
        assert_eq!(folder.root.token().unwrap(), None);
        folder.root.expect_token("one");
        assert!(matches!(folder.root.open(), Err(FsError::OtherDisk { .. })));
        std::fs::write(&marker, "test\none\n").unwrap();
        folder.root.open().unwrap();
        folder.root.create().unwrap();
        std::fs::write(&marker, "test\ntwo\n").unwrap();
        assert!(matches!(folder.root.clone().open(), Err(FsError::OtherDisk { .. })));
        assert_eq!(folder.root.token().unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn a_marker_without_a_token_is_given_one() {
        let folder = Folder::new();
        std::fs::write(folder.at(".p2psync/marker"), "test").unwrap();
        folder.root.open().unwrap();
        folder.root.add_token("one").unwrap();
        assert_eq!(std::fs::read_to_string(folder.at(".p2psync/marker")).unwrap(), "test\none\n");
        folder.root.expect_token("one");
        folder.root.open().unwrap();
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
    fn ignore_rules_come_from_a_file_of_bounded_size_only() {
        let folder = Folder::new();
        assert_eq!(folder.open.read_ignore_file(5).unwrap(), None);
        folder.write(".p2pignore", b"*.o\n");
        assert_eq!(folder.open.read_ignore_file(5).unwrap(), Some(b"*.o\n".to_vec()));
        assert!(folder.open.read_ignore_file(3).is_err());
        std::fs::rename(folder.at(".p2pignore"), folder.at("other")).unwrap();
        std::os::unix::fs::symlink("other", folder.at(".p2pignore")).unwrap();
        assert_eq!(folder.open.read_ignore_file(5).unwrap(), None);
        std::fs::remove_file(folder.at(".p2pignore")).unwrap();
        std::fs::create_dir(folder.at(".p2pignore")).unwrap();
        assert_eq!(folder.open.read_ignore_file(5).unwrap(), None);
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
