//! Plans as data: what is to be done to a disk, and what came of it.

use super::content::{Content, ContentId};
use super::disk::DiskState;
use super::path::RelPath;
use super::problem::Problem;

/// Names one piece of work between its order and its outcome.
pub type WorkId = u64;

/// Where the thing goes that an action takes out of its place. It is never removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Displace {
    /// Into the folder's history.
    History,
    /// Into the history, as something that is this device's alone: peers were never told of it, and are not from there.
    PrivateHistory,
    /// To this path, as a conflict copy.
    ConflictCopy(RelPath),
}

/// What the index says stands at the target; anything else found there stops the action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    pub disk: DiskState,
    /// Content of the file, for the name of its history slot. `None` for links.
    pub content: Option<ContentId>,
    pub displace: Displace,
}

/// One change to a synced folder. `expect: None` says that nothing stands at the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    CreateDirectory {
        path: RelPath,
        mode: u32,
        expect: Option<Expected>,
    },
    /// Puts the staged, complete file of this content into place; `copy` tells several staged files of one content
    /// apart. An empty file needs no stage.
    PlaceFile {
        path: RelPath,
        content: Content,
        copy: u32,
        mtime_ns: i64,
        mode: u32,
        expect: Option<Expected>,
    },
    PlaceSymlink {
        path: RelPath,
        target: Box<[u8]>,
        mtime_ns: i64,
        expect: Option<Expected>,
    },
    /// Takes a file or link away, into history.
    Remove {
        path: RelPath,
        expect: Expected,
    },
    /// Removes a directory that is empty.
    RemoveDirectory {
        path: RelPath,
    },
    /// Renames a file or link whose deletion and new entry have both arrived.
    Move {
        from: RelPath,
        to: RelPath,
        expect: DiskState,
        mtime_ns: i64,
        mode: u32,
    },
    SetMetadata {
        path: RelPath,
        expect: DiskState,
        mtime_ns: i64,
        mode: u32,
    },
}

/// A file that was moved into history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Path relative to the history directory.
    pub name: RelPath,
    pub disk: DiskState,
}

/// What came of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done and durable. `disk` is what stands at the target now; `displaced` what was put into history;
    /// `conflict` the conflict copy as it lies now; `rescued` a path that an unexpected file (a concurrent edit)
    /// was put at and that has to be scanned.
    Done {
        disk: Option<DiskState>,
        displaced: Option<Slot>,
        conflict: Option<DiskState>,
        rescued: Option<RelPath>,
    },
    /// Nothing done: the target is not what was expected. It has to be scanned.
    Changed,
    /// Nothing done: the directory still holds something.
    NotEmpty,
    /// Nothing done: the place for the conflict copy is taken.
    ConflictNameTaken,
    /// Nothing done: the staged file is missing or not complete.
    NotStaged,
    Failed(Problem),
}

impl Action {
    /// The path that the action is about; of a move, where it leads.
    pub fn path(&self) -> &RelPath {
        match self {
            Action::CreateDirectory { path, .. }
            | Action::PlaceFile { path, .. }
            | Action::PlaceSymlink { path, .. }
            | Action::Remove { path, .. }
            | Action::RemoveDirectory { path }
            | Action::SetMetadata { path, .. } => path,
            Action::Move { to, .. } => to,
        }
    }
}
