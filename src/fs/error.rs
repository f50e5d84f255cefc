//! What goes wrong with disks: trouble of a whole folder ([`FsError`]) and of one item ([`Problem`]).

use std::path::PathBuf;

use rustix::io::Errno;

use crate::core::problem::{Problem, ProblemKind};

/// Why a folder cannot be worked with at all; nothing may be concluded from what is absent.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("the folder's directory {} is missing (is its disk mounted?)", .path.display())]
    RootGone { path: PathBuf },
    #[error("{} has lost its file .p2psync/marker, so nothing there is taken for deleted (is the right disk mounted?)", .path.display())]
    MarkerGone { path: PathBuf },
    #[error("{} belongs to the shared folder '{found}', not to '{wanted}'", .path.display())]
    OtherFolder { path: PathBuf, found: String, wanted: String },
    #[error("{} is another directory of this folder than the one before: mount the right disk, or restart the agent to have it take what is there as found", .path.display())]
    OtherDisk { path: PathBuf },
    #[error("could not {doing} {}", .path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
}

impl FsError {
    pub(super) fn io(path: &std::path::Path, doing: &'static str, errno: Errno) -> Self {
        FsError::Io { path: path.into(), doing, source: errno.into() }
    }
}

/// The problem of an item for an error that says nothing about its name.
pub(super) fn problem(doing: &str, errno: Errno) -> Problem {
    let (kind, text) = match errno {
        Errno::NOSPC | Errno::DQUOT => {
            (ProblemKind::NoSpace, format!("no space left to {doing}: free some on this disk, or raise its quota"))
        }
        Errno::ROFS => (ProblemKind::Permission, format!("could not {doing}: the disk is mounted read-only")),
        Errno::ACCESS | Errno::PERM => {
            (ProblemKind::Permission, format!("not allowed to {doing}: check the permissions of it and its directory"))
        }
        Errno::XDEV => (
            ProblemKind::Io,
            format!("could not {doing}: it lies on another file system; share that one as a folder of its own"),
        ),
        Errno::STALE => {
            (ProblemKind::Io, format!("could not {doing}: the server no longer knows the file; mount the disk anew"))
        }
        other => (ProblemKind::Io, format!("could not {doing}: {}", std::io::Error::from(other))),
    };
    Problem::new(kind, text)
}

/// The problem of an item for an error of a call that was given its name.
pub(super) fn name_problem(doing: &str, errno: Errno) -> Problem {
    if is_name_error(errno) {
        let text = format!(
            "could not {doing}: the file system here cannot hold this name; rename it on the device that has it"
        );
        return Problem::new(ProblemKind::Name, text);
    }
    problem(doing, errno)
}

/// True for errors that mean that the file system cannot hold a name at all.
pub(super) fn is_name_error(errno: Errno) -> bool {
    matches!(errno, Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL)
}

/// True for errors that mean that nothing of ours stands at a path: it, or a directory above it, is not there.
pub(super) fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}
