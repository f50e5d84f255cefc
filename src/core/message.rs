//! What devices say to each other about one folder, validated. Wire formats live in `net`.

use super::entry::Entry;
use super::id::{EpochId, RunId};
use super::path::RelPath;

/// Most entries in one index message.
pub const BATCH_ENTRIES_MAX: usize = 1000;
/// Most exceptions in one acknowledgement.
pub const EXCEPTIONS_MAX: usize = 1000;
/// Most epochs whose found counts are told.
pub const FOUND_MAX: usize = 4096;
/// Most runs of a peer's index that a device remembers and says.
pub const RUNS_MAX: usize = 32;
/// Buckets of the folder digest.
pub const BUCKETS: usize = 256;

/// A message about one folder.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    Hello(Hello),
    Index(Batch),
    Ack(Ack),
    /// More is known about which counts were found.
    Found(Vec<(EpochId, u64)>),
    Digest(DigestReport),
    /// Entries and tombstones of one bucket that differed: handled like an index batch, but it moves no cursor.
    Repair { bucket: u8, entries: Vec<Announced> },
}

/// The first message in each direction of a session, and again whenever the sender's epoch changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub epoch: EpochId,
    pub run: RunId,
    /// The sender's highest sequence number.
    pub last_seq: u64,
    /// For each epoch the count up to which its counts were found.
    pub found: Vec<(EpochId, u64)>,
    /// What the sender remembers of the receiver's index; `None` where it knows nothing of it.
    pub cursor: Option<Cursor>,
}

/// What a device has received of a peer's index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub epoch: EpochId,
    /// The next batch begins after this.
    pub seq: u64,
    /// The latest runs of that epoch, each with the highest sequence number seen in it, oldest first.
    pub runs: Vec<(RunId, u64)>,
}

/// An entry as its sender holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    pub entry: Entry,
    /// Sequence number in the sender's index.
    pub seq: u64,
    /// False where the sender only passes the entry on: its bytes are not on its disk.
    pub held: bool,
}

/// Entries changed since the receiver's cursor, in the order of their sequence numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    pub epoch: EpochId,
    pub run: RunId,
    pub entries: Vec<Announced>,
    /// The receiver's cursor after this batch.
    pub upto: u64,
    /// True where more follows at once.
    pub more: bool,
}

/// How far the receiver of an index is with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    pub epoch: EpochId,
    /// Everything up to here is durably received.
    pub received: u64,
    /// Everything up to here is applied, but for the exceptions.
    pub applied: u64,
    pub exceptions: Vec<Exception>,
}

/// An entry that is received but not applied, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    pub path: RelPath,
    pub seq: u64,
    pub reason: Reason,
}

/// Why an entry is not applied at a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// Fetch or apply are still to come.
    Pending,
    /// In conflict: waits for the device that holds the losing version.
    Conflict,
    /// Ignored by a rule there.
    Ignored,
    /// That device's disk can't hold it.
    Declined,
    /// Held back there until its user confirms.
    Held,
    /// Trouble there.
    Problem,
}

/// A folder's digest, with the two positions for which the comparison means something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestReport {
    pub epoch: EpochId,
    /// The sender's own last sequence number.
    pub seq: u64,
    /// How much of the receiver's index the sender has applied, without exceptions.
    pub seen: u64,
    pub buckets: Vec<u128>,
    /// True where this answers the other's report.
    pub is_answer: bool,
}
