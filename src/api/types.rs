//! What can be asked of an agent or an index, as `--json` prints it.
//!
//! Stable: fields are added, never renamed or removed. Times are milliseconds since 1970 UTC, sizes are bytes, paths
//! are text with control characters and bytes that are not UTF-8 escaped.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::TransferItem;

/// Most problems listed for a folder; `problems_total` counts them all.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// This device, its folders and its peers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub device_id: String,
    pub name: String,
    /// True where an agent runs; without one this is what the index last knew.
    pub running: bool,
    /// Address and port that peers connect to.
    pub listening: Option<String>,
    pub folders: Vec<FolderStatus>,
    pub peers: Vec<PeerStatus>,
    pub problems_total: u64,
    /// True while the agent has not opened all of its folders yet.
    #[serde(default)]
    pub starting: bool,
}

/// What a folder is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FolderState {
    /// All that is known of is here, and connected peers have what is here.
    InSync,
    /// Entries are being fetched or applied.
    Syncing,
    Scanning,
    /// By the user.
    Paused,
    /// It has stopped itself; `state_text` says why.
    Halted,
    /// Many deletions wait for the user's word.
    Held,
    /// In sync but for some items.
    Problems,
    /// What is to come, or to go, waits for a peer that is not connected.
    WaitingForPeers,
    /// No agent runs.
    NotRunning,
    /// Not known yet.
    #[default]
    Starting,
}

/// A folder on this device.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FolderStatus {
    pub id: String,
    pub label: String,
    pub path: String,
    pub state: FolderState,
    /// The state as a sentence.
    pub state_text: String,
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// What is still to come from peers.
    pub need_files: u64,
    pub need_bytes: u64,
    pub problems: Vec<ProblemItem>,
    pub problems_total: u64,
    /// Conflict copies in the folder.
    pub conflicts: u64,
    pub held: Option<HeldDeletions>,
    /// "both", "send" or "receive".
    #[serde(default)]
    pub direction: String,
    /// Paths that were changed here in a folder that only receives, and stay on this device.
    #[serde(default)]
    pub own_changes: u64,
    /// Paths that other devices changed in a folder that only sends, and that are not taken.
    #[serde(default)]
    pub kept_out: u64,
    /// The part of the folder that is wanted here; `None` is all of it.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// When it goes on by itself, where it is paused for a time.
    #[serde(default)]
    pub paused_until_ms: Option<i64>,
    /// Files that no other device is known to have; what exceeds 100,000 may not be counted, and then the next is true.
    #[serde(default)]
    pub only_here_files: u64,
    #[serde(default)]
    pub only_here_is_more: bool,
    /// "ok", or why changes are found by scanning only and what would help.
    pub watch: String,
    pub last_scan_ms: Option<i64>,
    pub peers: Vec<FolderPeerStatus>,
    /// How much of what is to be here is here, in whole percent of the bytes; 100 only where nothing is to come. None
    /// while it is not known yet what is to come.
    #[serde(default)]
    pub complete_percent: Option<u8>,
    /// Bytes per second from peers and to them, smoothed; none where no agent runs.
    #[serde(default)]
    pub rate_in: Option<u64>,
    #[serde(default)]
    pub rate_out: Option<u64>,
    /// Until all that can come now has come; none while that can't be told.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    /// Files on their way, the largest; `transfers_total` counts all.
    #[serde(default)]
    pub transfers: Vec<TransferItem>,
    #[serde(default)]
    pub transfers_total: u64,
    /// Items that this device's disk can't hold; they count neither as problems of the folder nor as missing.
    #[serde(default)]
    pub declined_items: u64,
}

/// Trouble with one item, which does not stop the others.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ProblemItem {
    pub path: String,
    /// Stable name of the kind, such as "no_space".
    pub kind: String,
    /// What happened and what to do.
    pub text: String,
    pub since_ms: i64,
}

/// Trouble with one item, and the folder that it is in.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FolderProblem {
    /// Id of the folder.
    pub folder: String,
    pub label: String,
    pub path: String,
    /// Stable name of the kind, such as "no_space".
    pub kind: String,
    /// What happened and what to do.
    pub text: String,
    pub since_ms: i64,
}

/// Deletions that wait for the user's word.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HeldDeletions {
    pub deletions: u64,
    pub text: String,
}

/// How far a peer is with a folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FolderPeerStatus {
    pub device_id: String,
    pub name: String,
    pub connected: bool,
    /// True where it is connected and does not share the folder.
    #[serde(default)]
    pub lacks_folder: bool,
    /// Entries of ours that the peer has not applied.
    pub behind_items: u64,
    pub in_sync: bool,
    /// When equal digests last proved both indexes identical.
    pub proved_identical_ms: Option<i64>,
    /// Bytes of the files among `behind_items`.
    #[serde(default)]
    pub behind_bytes: u64,
    /// Those of `behind_items` that wait for somebody there: a problem, or deletions that are held back.
    #[serde(default)]
    pub blocked_items: u64,
    /// Items that it will never hold, by a rule of its own or for its disk; they count as done.
    #[serde(default)]
    pub declined_items: u64,
    /// How much of what is here the peer has, in whole percent of the bytes; 100 only where it has all that it can hold.
    /// None for one that has never told.
    #[serde(default)]
    pub complete_percent: Option<u8>,
    /// Bytes per second from it and to it in this folder, smoothed; none where no agent runs.
    #[serde(default)]
    pub rate_in: Option<u64>,
    #[serde(default)]
    pub rate_out: Option<u64>,
}

/// Another device.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    pub device_id: String,
    pub name: String,
    pub connected: bool,
    pub address: Option<String>,
    pub last_seen_ms: Option<i64>,
    /// Since the agent started.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Why there is no connection, in words.
    #[serde(default)]
    pub trouble: Option<String>,
    /// True where it has removed this device, or does not know it: nothing is synced with it until both are paired again.
    #[serde(default)]
    pub unpaired: bool,
    /// Program and version there, as it said when it was last connected.
    #[serde(default)]
    pub version: Option<String>,
    /// How far its clock was ahead of this device's when it was last connected, in ms; negative where behind.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// Folders that it shares with this device and that are not here yet.
    #[serde(default)]
    pub offers: Vec<FolderOffer>,
    /// Since when it is connected.
    #[serde(default)]
    pub connected_since_ms: Option<i64>,
    /// Bytes per second from it and to it in all folders, smoothed; none where no agent runs.
    #[serde(default)]
    pub rate_in: Option<u64>,
    #[serde(default)]
    pub rate_out: Option<u64>,
    /// What it lacks in all folders.
    #[serde(default)]
    pub behind_items: u64,
    #[serde(default)]
    pub behind_bytes: u64,
    /// When all folders shared with it had been proved identical: the oldest of the latest proofs.
    #[serde(default)]
    pub proved_identical_ms: Option<i64>,
}

/// A folder that another device shares with this one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FolderOffer {
    pub id: String,
    pub label: String,
}

/// A folder that is here, and that a device has or had too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct KnownFolder {
    pub id: String,
    pub label: String,
    /// The device has it and shares it with this one.
    pub offered: bool,
}

/// One path: what state it is in, and why.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PathStatus {
    pub path: String,
    /// Label of the folder that holds it.
    pub folder: String,
    /// One word: "in_sync", "local", "syncing", "waiting", "conflict", "ignored", "problem", "deleted" or "unknown".
    pub state: String,
    /// Sentences, the most important first.
    pub explanation: Vec<String>,
    /// What lies here, in words.
    pub here: Option<String>,
    pub peers: Vec<PathPeerStatus>,
    /// Since when there has been trouble with it.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// What happens next, or what would help, in a sentence.
    #[serde(default)]
    pub next: Option<String>,
}

/// One path at one peer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PathPeerStatus {
    pub device_id: String,
    pub name: String,
    pub connected: bool,
    pub has_it: bool,
    /// In words.
    pub text: String,
    /// The version that it has told of, where that is not the one that is here; in words.
    #[serde(default)]
    pub version: Option<String>,
    /// Size and time of the last change of that version, where it is a file.
    #[serde(default)]
    pub bytes: Option<u64>,
    #[serde(default)]
    pub mtime_ms: Option<i64>,
}

/// An earlier version of a path that can be restored.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryItem {
    /// Names this version in `p2psync restore PATH@ID`.
    pub id: String,
    pub path: String,
    pub folder: String,
    /// When it was put into history.
    pub displaced_ms: i64,
    /// When its content was last changed.
    pub mtime_ms: i64,
    /// Since when it had stood at its path on this device, whenever it was changed; none where that is not known.
    #[serde(default)]
    pub placed_ms: Option<i64>,
    pub bytes: u64,
    /// Name of the device that displaced it.
    pub displaced_by: Option<String>,
    /// Why: "replaced" or "deleted".
    pub reason: String,
    /// When it may be removed.
    pub expires_ms: Option<i64>,
    /// Name of the other device that has it, where only that one has.
    #[serde(default)]
    pub only_on: Option<String>,
}

/// A conflict copy that lies in a folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ConflictItem {
    pub folder: String,
    /// The conflict copy.
    pub path: String,
    /// The file it is a copy of; it may be gone.
    pub original: String,
    pub mtime_ms: i64,
    pub bytes: u64,
    /// The device that wrote it.
    pub device: Option<String>,
    /// The file as it lies now; `None` where it is gone.
    #[serde(default)]
    pub live: Option<ConflictSide>,
    /// Which of the two was written on this device: "copy", "original", or `None` where neither or both were.
    #[serde(default)]
    pub mine: Option<String>,
    /// The version that both came from, where history on this device has it.
    #[serde(default)]
    pub base: Option<ConflictBase>,
    /// Where the conflict copy lies.
    #[serde(default)]
    pub place: String,
}

/// One of the two files of a conflict.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ConflictSide {
    pub mtime_ms: i64,
    pub bytes: u64,
    /// The device that wrote it.
    pub device: Option<String>,
}

/// The version that both files of a conflict came from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ConflictBase {
    /// Its id in 'p2psync history'.
    pub id: String,
    pub mtime_ms: i64,
    pub bytes: u64,
    /// Where it lies on this device; not to be changed.
    pub place: String,
}

/// Something that happened, worth telling the user.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EventItem {
    pub time_ms: i64,
    pub folder: Option<String>,
    /// One stable word, such as "received", "deleted", "conflict" or "problem".
    pub kind: String,
    pub path: Option<String>,
    /// Name of the device it came from.
    pub device: Option<String>,
    pub text: String,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    pub error: RefusalText,
}

/// What went wrong, for a program and for a person.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RefusalText {
    /// One stable word, such as "not_found" or "refused".
    pub code: String,
    /// What happened and what to do.
    pub text: String,
}
