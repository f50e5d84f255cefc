//! The index: what a device knows of one folder, in one SQLite database.
//!
//! Stored are observations: what the disk held when it was last looked at ([`Record`]), what peers said
//! ([`Rival`], [`PeerRow`]), what lies in history ([`HistoryRow`]). What is to be done follows from them and is never
//! stored. [`Index`] is the only writer and belongs to one thread; a [`Reader`] has a connection of its own, in any
//! thread or process, and never blocks the writer. Every reading function is written once, on [`Reader`].
//!
//! Architecture invariant: nothing in here decides anything, looks at a folder or at a clock. The database can always
//! be deleted: a scan and an exchange with peers rebuild it.

mod contents;
#[cfg(feature = "testing")]
mod copy;
mod counters;
#[cfg(feature = "testing")]
mod damage;
mod entries;
mod error;
mod files;
mod health;
mod history;
mod log;
mod memo;
mod open;
mod peers;
mod problems;
mod receipts;
mod reports;
mod rivals;
mod row;
mod state;
mod tallies;
#[cfg(test)]
mod testing;
mod transaction;

#[cfg(feature = "testing")]
pub use copy::{Snapshot, Template};
pub use error::IndexError;
pub use log::{EVENTS_MAX, TEXT_BYTES_MAX, cut_text};
pub use open::{Index, Reader};
pub use tallies::Tally;

use crate::core::content::Content;
use crate::core::disk::DiskState;
use crate::core::entry::Entry;
use crate::core::id::{DeviceId, EpochId, RunId};
use crate::core::message::Cursor;
use crate::core::path::RelPath;
use crate::core::problem::Problem;

/// How this device's disk stands to an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mark {
    /// The disk agrees with the entry; also a tombstone with nothing there.
    Here,
    /// A scan saw it absent; not yet decided to be a deletion.
    Missing,
    /// Its deletion waits for the user's confirmation.
    Held,
    /// Suddenly empty or old after an unclean boot.
    Suspect,
    /// Passed on, but ignored by a rule here.
    Ignored,
    /// Passed on, but this disk can't hold it.
    Declined,
    /// Passed on; what is left of it in a kept directory is not minded.
    Kept,
    /// Changed here where a folder only receives: the disk is left alone, and the entry is what the change was made on.
    Own,
    /// Such a change is being taken back: what is on the disk goes to history. The entry is of nothing.
    Reverted,
}

/// What this device holds or passes on at one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub entry: Entry,
    pub seq: u64,
    /// The last look at the path; `None` where nothing was there.
    pub disk: Option<DiskState>,
    pub mark: Mark,
    /// When the record was last written, ms since 1970.
    pub changed_ms: i64,
    /// The peer on whose connection this content came here, whoever its author is said to be; `DeviceId::NONE` for what
    /// was made on this device, `None` where that is not known or says nothing.
    pub brought_by: Option<DeviceId>,
    /// Since when this content stands here, ms since 1970; `None` where it does not, or where that is not known.
    pub placed_ms: Option<i64>,
}

/// A peer's latest entry at a path, which ours does not include.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rival {
    pub peer: DeviceId,
    /// Sequence number in the peer's index.
    pub seq: u64,
    /// True where the peer has the bytes on its disk.
    pub held: bool,
    pub entry: Entry,
}

/// Which life of the index this is and how far it has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub epoch: EpochId,
    pub run: RunId,
    pub last_seq: u64,
    /// True once the first full scan of this epoch is done.
    pub scanned: bool,
    /// True where the last shutdown was orderly; false from the start of a run on.
    pub clean: bool,
}

/// What is known of a peer's index, and what the peer knows of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerRow {
    pub device: DeviceId,
    pub cursor: Option<Cursor>,
    pub their_last_seq: u64,
    /// Our sequence number up to which the peer has durably received.
    pub acked: u64,
    /// Our sequence number up to which the peer has applied, but for its exceptions.
    pub applied: u64,
    /// When equal digests last proved both folders the same, ms since 1970.
    pub proved_ms: Option<i64>,
    pub last_seen_ms: Option<i64>,
}

/// One thing that lies in the folder's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryRow {
    /// Where it lies, relative to the history directory.
    pub slot: RelPath,
    /// Where it came from.
    pub path: RelPath,
    /// `None` for what is not a file.
    pub content: Option<Content>,
    pub disk: DiskState,
    pub author: DeviceId,
    pub displaced_ms: i64,
    /// True where a peer's change displaced it, not this device's user.
    pub by_remote: bool,
    /// The peer on whose connection it had come here; see [`Record::brought_by`].
    pub brought_by: Option<DeviceId>,
    /// The peer on whose connection that came which displaced it; `DeviceId::NONE` where this device's user did it, `None`
    /// where that is not known.
    pub displaced_by: Option<DeviceId>,
    /// Since when it had stood there; see [`Record::placed_ms`].
    pub placed_ms: Option<i64>,
}

/// Where on this disk a chunk lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub path: RelPath,
    pub disk: DiskState,
    /// Bytes from the start of the file.
    pub offset: u64,
}

/// How much the folder holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    pub bytes: u64,
    pub tombstones: u64,
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRow {
    pub id: i64,
    pub at_ms: i64,
    pub kind: String,
    pub path: Option<RelPath>,
    pub text: String,
}

/// A problem as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProblemRow {
    pub path: RelPath,
    pub problem: Problem,
    pub since_ms: i64,
    /// When to try again, ms since 1970; `None` where only a change of its cause helps.
    pub retry_ms: Option<i64>,
    pub attempts: u32,
}

impl HistoryRow {
    /// Since when it had stood at its path, ms since 1970, as far as that can be told: where it was not noted, since it
    /// was written, wherever that was.
    pub fn stood_since_ms(&self) -> i64 {
        self.placed_ms.unwrap_or(self.disk.mtime_ns / 1_000_000)
    }
}

impl Record {
    /// What stands for a path of which the index knows nothing.
    pub fn nothing(path: &RelPath) -> Self {
        Self {
            entry: Entry::nothing(path.clone()),
            seq: 0,
            disk: None,
            mark: Mark::Here,
            changed_ms: 0,
            brought_by: None,
            placed_ms: None,
        }
    }

    /// Content of the file that stands here, where it is known: what is in a suspect one is not what its entry says.
    pub fn content_here(&self) -> Option<Content> {
        self.entry.kind.content().filter(|_| self.mark != Mark::Suspect)
    }

    /// True for a live entry whose bytes are on this disk.
    pub fn is_held(&self) -> bool {
        self.entry.is_live() && self.disk.is_some() && matches!(self.mark, Mark::Here | Mark::Suspect)
    }
}
