//! What goes into the folder state machine and what comes out of it.

use std::collections::BTreeSet;

use crate::core::action::{Action, Outcome, WorkId};
use crate::core::content::{ChunkList, Content};
use crate::core::direction::Direction;
use crate::core::disk::{Attributes, DiskState};
use crate::core::guard::GuardLimits;
use crate::core::id::DeviceId;
use crate::core::ignore::Rules;
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::index::HistoryRow;

/// The moment of an input, and a fresh random number: the machine has neither a clock nor a die of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Wall clock, ns since 1970; may jump.
    pub wall_ns: i64,
    /// A clock that only goes forward, ms since any moment.
    pub mono_ms: u64,
    pub random: u64,
}

impl Now {
    /// Wall clock in ms since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.wall_ns / 1_000_000
    }
}

/// What the folder is told about itself.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub device: DeviceId,
    /// The devices that the folder is shared with.
    pub peers: BTreeSet<DeviceId>,
    pub guard: GuardLimits,
    pub direction: Direction,
    /// How often equal digests are asked for when nothing changes.
    pub reconcile_ms: u64,
}

/// What a scan found at a path that was new, gone or different, or that somebody asked to look at.
#[derive(Clone, Debug)]
pub struct Observation {
    pub path: RelPath,
    pub seen: Seen,
}

/// See [`Observation`].
#[derive(Clone, Debug)]
pub enum Seen {
    Absent,
    Directory(DiskState),
    File { disk: DiskState, content: Content, lists: Vec<ChunkList> },
    Symlink { disk: DiskState, target: Box<[u8]> },
    Failed(Problem),
}

/// A content that lies complete and verified in the stage.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    /// All its chunk lists, leaves first.
    pub lists: Vec<ChunkList>,
    /// Which of several staged files of this content it is.
    pub copy: u32,
}

/// Why a fetch came to nothing.
#[derive(Clone, Debug)]
pub enum FetchError {
    /// No connected device has it now.
    NoSource,
    Problem(Problem),
}

/// Everything that can happen to a folder.
#[derive(Debug)]
pub enum Input {
    /// A scan of the whole folder begins; `suspicious` after an unclean boot.
    ScanStarted {
        suspicious: bool,
    },
    Observed(Vec<Observation>),
    /// The scan of the whole folder saw everything (`complete`) or was broken off.
    ScanFinished {
        complete: bool,
    },
    Connected(DeviceId),
    Lost(DeviceId),
    Message(DeviceId, Message),
    Fetched(Vec<(WorkId, Result<Staged, FetchError>)>),
    Applied(Vec<(WorkId, Outcome)>),
    /// Time has passed; see [`super::Folder::next_tick_ms`].
    Tick,
    Settings(Settings),
    Rules(Box<Rules>),
    /// The folder can't be used (the reason), or can be used again.
    Halted(Option<String>),
    /// Slots of history that were found and are not in the index, or that have expired.
    History {
        found: Vec<HistoryRow>,
        expired: Vec<RelPath>,
    },
    /// The user lets the held changes happen.
    Confirm,
    /// The user wants the held changes undone.
    Reject,
    /// The user wants what is here announced over what others have.
    Override,
    /// The user takes back what was changed here and is kept from others.
    Revert,
}

/// Content that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchOrder {
    pub work: WorkId,
    pub path: RelPath,
    pub content: Content,
    /// What the file will most likely be given, where that is known: a small one gets it as it is written.
    pub attributes: Option<Attributes>,
    /// Connected peers that say they hold it, best first.
    pub sources: Vec<DeviceId>,
}

/// What the engine is to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    Send(DeviceId, Message),
    /// Bring the content into the stage, then answer with [`Input::Fetched`].
    Fetch(FetchOrder),
    /// Do it, then answer with [`Input::Applied`].
    Apply(WorkId, Action),
    /// Look at these paths and report each, even if nothing changed.
    Rescan(Vec<RelPath>),
    /// Look at the whole folder.
    FullScan,
    /// The ignore file has changed: read it and answer with [`Input::Rules`].
    ReloadRules,
    /// Bring this version back from history to its path, without replacing anything, then rescan the path.
    Restore {
        slot: RelPath,
        path: RelPath,
    },
    /// Something a user may want to read.
    Event {
        kind: &'static str,
        path: Option<RelPath>,
        text: String,
    },
}
