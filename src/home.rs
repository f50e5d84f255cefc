//! Where the agent keeps its own files, and the lock that lets one agent run on them at a time.
//!
//! Architecture invariant: the lock lies with the data, at a place that no session variable moves, so two agents can
//! never work on one index. The socket may lie elsewhere; the lock file says where.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::core::id::{FolderId, hex};
use crate::failpoint;

/// Names the directory of all the agent's files, in place of `--home`.
pub const HOME_VARIABLE: &str = "P2PSYNC_HOME";
/// Longest path of a socket in bytes: macOS has room for 104 with the NUL, Linux for 108.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// The lock file holds a process id and a path.
const LOCK_FILE_BYTES_MAX: u64 = 8 * 1024;
/// Name of the folder that a first start makes, in the user's home directory.
const DEFAULT_FOLDER_NAME: &str = "P2PSync";

/// What is wrong with the agent's own places.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("cannot find your home directory; set HOME, or name a directory with --home")]
    NoUserHome,
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} belongs to someone else or is open to others; remove it, or set XDG_RUNTIME_DIR to a directory of your own"
    )]
    NotPrivate { path: PathBuf },
    #[error(
        "p2psync is already running here{} (lock file {path}); stop that one first, or use another --home",
        .pid.map(|p| format!(" as process {p}")).unwrap_or_default()
    )]
    Running { path: PathBuf, pid: Option<u32> },
}

/// The places of one agent's own files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    user_dir: PathBuf,
    config_dir: PathBuf,
    data_dir: PathBuf,
    runtime_dir: PathBuf,
}

/// Held as long as an agent runs.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Home {
    /// The directory given, or that of [`HOME_VARIABLE`], or the usual places of this system.
    pub fn find(given: Option<&Path>) -> Result<Self, HomeError> {
        let user = directories::UserDirs::new().map(|u| u.home_dir().to_owned());
        let variable = std::env::var_os(HOME_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(dir) = given.map(Path::to_owned).or(variable) {
            let dir = std::path::absolute(&dir).map_err(|e| failed("resolve", &dir, e))?;
            let user_dir = user.unwrap_or_else(|| dir.clone());
            return Ok(Self::at(&dir, user_dir));
        }
        let user_dir = user.ok_or(HomeError::NoUserHome)?;
        let dirs = directories::ProjectDirs::from("", "", "p2psync").ok_or(HomeError::NoUserHome)?;
        let data_dir = dirs.data_local_dir().to_owned();
        Ok(Self {
            user_dir,
            config_dir: dirs.config_dir().to_owned(),
            runtime_dir: dirs.runtime_dir().filter(is_usable).map_or_else(|| data_dir.clone(), Path::to_owned),
            data_dir,
        })
    }

    /// Everything under one directory.
    pub fn at(dir: &Path, user_dir: PathBuf) -> Self {
        Self { user_dir, config_dir: dir.to_owned(), data_dir: dir.to_owned(), runtime_dir: dir.to_owned() }
    }

    /// Makes the directories, for their owner alone.
    pub fn create(&self) -> Result<(), HomeError> {
        for dir in [&self.config_dir, &self.data_dir, &self.index_dir()] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("create", dir, e))?;
        }
        Ok(())
    }

    /// The user's home directory: what `~` stands for.
    pub fn user_dir(&self) -> &Path {
        &self.user_dir
    }

    pub fn config_file(&self) -> PathBuf {
        self.config_dir.join("config.toml")
    }

    /// The private key.
    pub fn identity_file(&self) -> PathBuf {
        self.config_dir.join("identity")
    }

    /// What lets programs and browsers in at the agent's port.
    pub fn token_file(&self) -> PathBuf {
        self.config_dir.join("api-token")
    }

    pub fn index_dir(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    pub fn index_file(&self, folder: &FolderId) -> PathBuf {
        self.index_dir().join(format!("{folder}.db"))
    }

    pub fn lock_file(&self) -> PathBuf {
        self.data_dir.join("lock")
    }

    /// Directories that no shared folder may contain: the private key would go to the peers.
    pub fn own_dirs(&self) -> [&Path; 2] {
        [&self.config_dir, &self.data_dir]
    }

    /// The folder that a first start makes.
    pub fn default_folder(&self) -> PathBuf {
        self.user_dir.join(DEFAULT_FOLDER_NAME)
    }

    /// Where the agent logs when it has no terminal and no journal.
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("log").join("p2psync.log")
    }

    /// The one directory that holds everything, where there is one.
    pub fn one_directory(&self) -> Option<&Path> {
        (self.config_dir == self.data_dir).then_some(self.config_dir.as_path())
    }

    /// Where an agent started now would put its socket.
    pub fn socket(&self) -> PathBuf {
        let usual = self.runtime_dir.join("control.sock");
        if usual.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return usual;
        }
        let hash = Sha256::digest(usual.as_os_str().as_bytes());
        let user = rustix::process::getuid().as_raw();
        let name = format!("p2psync-{user}-{}", hex(&hash[..8]));
        let short = std::env::temp_dir().join(&name).join("control.sock");
        if short.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            short
        } else {
            Path::new("/tmp").join(name).join("control.sock")
        }
    }

    /// Where the agent that runs has its socket; it may have been started with other session variables.
    pub fn socket_in_use(&self) -> PathBuf {
        let noted = read_lock_file(&self.lock_file()).and_then(|text| text.lines().nth(1).map(PathBuf::from));
        noted.filter(|path| path.is_absolute()).unwrap_or_else(|| self.socket())
    }

    /// Makes the socket's directory and checks that nobody else can enter it.
    pub fn create_socket_dir(&self) -> Result<(), HomeError> {
        let socket = self.socket();
        let dir = socket.parent().unwrap_or(&self.runtime_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("create", dir, e))?;
        let found = std::fs::symlink_metadata(dir).map_err(|e| failed("look at", dir, e))?;
        // The agent's own directories may be links or open to others as their owner likes; one in a place that
        // everybody can write to may have been put there by anyone.
        let is_own = dir == self.runtime_dir;
        let is_private =
            found.is_dir() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o077 == 0;
        if is_own || is_private { Ok(()) } else { Err(HomeError::NotPrivate { path: dir.to_owned() }) }
    }
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub fn acquire(home: &Home) -> Result<Self, HomeError> {
        home.create()?;
        let path = home.lock_file();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(|e| failed("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_lock_file(&path).and_then(|text| text.lines().next()?.parse().ok());
                return Err(HomeError::Running { path, pid });
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", &path, e)),
        }
        let note =
            [std::process::id().to_string().as_bytes(), b"\n", home.socket().as_os_str().as_bytes(), b"\n"].concat();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&note));
        written.map_err(|e| failed("write", &path, e))?;
        failpoint::hit("home.locked");
        Ok(Self { _file: file })
    }
}

/// True where this runtime directory can be made: after a change of user the variable may name another's.
fn is_usable(runtime_dir: &&Path) -> bool {
    let session_dir = runtime_dir.parent().and_then(|dir| std::fs::metadata(dir).ok());
    session_dir.is_some_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw())
}

fn read_lock_file(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LOCK_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> HomeError {
    HomeError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn home_in(dir: &Path) -> Home {
        Home::at(dir, dir.to_owned())
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let home = home_in(dir.path());
        let lock = Lock::acquire(&home).unwrap();
        match Lock::acquire(&home) {
            Err(e @ HomeError::Running { .. }) => {
                assert!(e.to_string().contains(&format!("process {}", std::process::id())), "{e}")
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        Lock::acquire(&home).unwrap();
    }

    #[test]
    fn everything_lies_under_the_home_given() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path())).unwrap();
        let id = "default".parse().unwrap();
        for path in [home.config_file(), home.identity_file(), home.index_file(&id), home.socket(), home.lock_file()] {
            assert!(path.starts_with(dir.path()), "{path:?}");
        }
    }

    #[test]
    fn directories_are_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let home = home_in(&dir.path().join("a/b"));
        home.create().unwrap();
        let mode = std::fs::metadata(home.index_dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_long_home_has_a_short_socket_that_the_lock_file_names() {
        let dir = tempfile::tempdir().unwrap();
        let home = home_in(&dir.path().join("x".repeat(120)));
        assert!(home.socket().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        home.create_socket_dir().unwrap();
        let _lock = Lock::acquire(&home).unwrap();
        assert_eq!(home.socket_in_use(), home.socket());
        std::fs::remove_dir(home.socket().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_socket_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = home_in(&dir.path().join("y".repeat(120)));
        let short = home.socket().parent().unwrap().to_owned();
        std::fs::create_dir(&short).unwrap();
        std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(home.create_socket_dir(), Err(HomeError::NotPrivate { .. })));
        std::fs::remove_dir(short).unwrap();
    }
}
