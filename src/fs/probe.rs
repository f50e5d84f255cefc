//! What the file system of a folder can do, found out by trying it in the agent's own directory.
//!
//! Everything is tried in `.p2psync/probe/`, under names given here, and removed again. Nothing of the user's is
//! touched, and only these names are ever unlinked.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use crate::core::path::OWN_DIR;

/// The directory in which things are tried.
const PROBE_DIR: &str = "probe";
/// All names that are made there.
const NAMES: [&str; 5] = ["one", "two", "link", "Case", "cASE"];
/// A time that no coarse file system can hold: odd in every unit down to nanoseconds.
const ODD_SECONDS: i64 = 1_700_000_001;
const ODD_NANOSECONDS: i64 = 123_456_789;

/// What a file system can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Names that differ only in case are two names.
    pub case_sensitive: bool,
    /// Coarseness of modification times in nanoseconds.
    pub mtime_grain_ns: u64,
    /// Copies share their blocks until one is written to.
    pub reflinks: bool,
    pub symlinks: bool,
    pub xattrs: bool,
    /// The executable bit is kept.
    pub modes: bool,
    /// Two names can be swapped in one step.
    pub exchange: bool,
    /// Bytes free for this user, and in all.
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{path} is not there")]
    Absent { path: PathBuf },
    #[error("{path} has not been set up by the agent yet")]
    NotSetUp { path: PathBuf },
    #[error("cannot try out the file system of {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// Tries out the file system of a folder that an agent has set up.
pub fn abilities(folder: &Path) -> Result<Abilities, ProbeError> {
    let failed = |errno: Errno| ProbeError::Io { path: folder.to_owned(), source: errno.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => ProbeError::Absent { path: folder.to_owned() },
        other => failed(other),
    })?;
    let flags = flags | OFlags::NOFOLLOW;
    let own = rustix::fs::openat(&root, OWN_DIR, flags, Mode::empty())
        .map_err(|_| ProbeError::NotSetUp { path: folder.to_owned() })?;
    // One that is there was left behind by a probe that was cut off.
    match rustix::fs::mkdirat(&own, PROBE_DIR, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let dir = rustix::fs::openat(&own, PROBE_DIR, flags, Mode::empty()).map_err(failed)?;
    let dir = File::from(dir);
    clean(&dir);
    let tried = attempt(&dir);
    clean(&dir);
    let _ = rustix::fs::unlinkat(&own, PROBE_DIR, AtFlags::REMOVEDIR);
    tried.map_err(failed)
}

fn attempt(dir: &File) -> Result<Abilities, Errno> {
    let one = make(dir, "one")?;
    rustix::io::write(&one, b"some bytes")?;
    let two = make(dir, "two")?;
    make(dir, "Case")?;
    let space = rustix::fs::fstatvfs(dir)?;
    Ok(Abilities {
        case_sensitive: rustix::fs::statat(dir, "cASE", AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT),
        mtime_grain_ns: mtime_grain_ns(&one)?,
        reflinks: can_reflink(&one, &two),
        symlinks: rustix::fs::symlinkat("one", dir, "link").is_ok(),
        xattrs: rustix::fs::fsetxattr(&one, "user.p2psync.probe", b"1", XattrFlags::empty()).is_ok(),
        modes: keeps_modes(&one),
        exchange: rustix::fs::renameat_with(dir, "one", dir, "two", RenameFlags::EXCHANGE).is_ok(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
    })
}

fn make(dir: &File, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// The greatest power of ten, in nanoseconds, by which what was stored differs from what was asked for.
fn mtime_grain_ns(file: &File) -> Result<u64, Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: ODD_SECONDS, tv_nsec: ODD_NANOSECONDS as _ },
    };
    rustix::fs::futimens(file, &times)?;
    let stat = rustix::fs::fstat(file)?;
    let (seconds, nanoseconds) = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    if seconds != ODD_SECONDS {
        // FAT counts in steps of two seconds.
        return Ok(2_000_000_000);
    }
    let grains = [1, 100, 1_000, 1_000_000, 1_000_000_000];
    let holds = |grain: &i64| ODD_NANOSECONDS - ODD_NANOSECONDS % grain == nanoseconds;
    Ok(grains.into_iter().find(holds).unwrap_or(1_000_000_000).unsigned_abs())
}

#[cfg(target_os = "linux")]
fn can_reflink(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn can_reflink(_from: &File, _to: &File) -> bool {
    false
}

fn keeps_modes(file: &File) -> bool {
    let mode = |file: &File| rustix::fs::fstat(file).map(|s| Mode::from_raw_mode(s.st_mode) & Mode::RWXU);
    let (with, without) = (Mode::RWXU, Mode::RUSR | Mode::WUSR);
    [with, without].into_iter().all(|m| rustix::fs::fchmod(file, m).is_ok() && mode(file) == Ok(m))
}

fn clean(dir: &File) {
    for name in NAMES {
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_out_what_a_disk_can_do_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(abilities(dir.path()), Err(ProbeError::NotSetUp { .. })));
        let own = dir.path().join(OWN_DIR);
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("marker"), "x").unwrap();
        std::fs::write(dir.path().join("one"), "mine").unwrap();
        // A probe that was cut off.
        std::fs::create_dir(own.join("probe")).unwrap();
        std::fs::write(own.join("probe/one"), "").unwrap();
        for _ in 0..2 {
            let found = abilities(dir.path()).unwrap();
            assert!(found.symlinks && found.modes && found.total_bytes >= found.free_bytes, "{found:?}");
            assert!(found.mtime_grain_ns >= 1);
        }
        let names: Vec<_> = std::fs::read_dir(&own).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["marker"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("one")).unwrap(), "mine");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(abilities(&dir.path().join("no")), Err(ProbeError::Absent { .. })));
    }
}
