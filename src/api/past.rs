//! What is told of receipts, conflicts, undoing and history, as `--json` prints it. The rules of `types` hold here too.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which of the other devices have what is here.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WaitReport {
    /// The path that was asked about, or the folder's.
    pub path: String,
    /// Label of the folder.
    pub folder: String,
    /// True where at least as many devices as were asked for hold it durably.
    pub done: bool,
    /// How many devices were asked for.
    pub wanted: u32,
    /// How many hold it.
    pub holding: u32,
    pub peers: Vec<WaitPeer>,
    /// Names the moment up to which changes are waited for, for asking again.
    pub upto: Option<u64>,
    /// What is in the way on this device, in words.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// How far one device is with what is waited for.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WaitPeer {
    pub device_id: String,
    pub name: String,
    pub connected: bool,
    pub last_seen_ms: Option<i64>,
    /// True where it has said that all of it lies on its disk.
    pub holds: bool,
    /// Items that it does not have yet.
    pub missing_items: u64,
    /// Items that it will not keep: ignored by its own rules, or not possible on its disk.
    pub refused_items: u64,
    /// The first of them.
    pub missing: Vec<WaitItem>,
    /// Those of the missing items that were deleted here and are still to be deleted there.
    #[serde(default)]
    pub deleted_items: u64,
    /// True where it is connected and does not share this folder.
    #[serde(default)]
    pub lacks_folder: bool,
}

/// One path that a device does not have.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WaitItem {
    pub path: String,
    /// Why, in words.
    pub text: String,
}

/// What taking something back would do, or has done.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RewindReport {
    /// Label of the folder.
    pub folder: String,
    /// The directory that was asked about, or the folder's.
    pub path: String,
    /// True where it was only asked what would be done.
    pub dry_run: bool,
    /// Files that come back as they were.
    pub bring_back: u64,
    /// Files that go into history.
    pub set_aside: u64,
    /// Files that get back the name they had.
    pub rename: u64,
    /// Files that stay as they are although they were something else then.
    pub left: u64,
    /// The first of all these.
    pub items: Vec<RewindItem>,
    /// What could not be done.
    pub failed: Vec<WaitItem>,
    /// Of what a device did: its name, and from when to when. Where an 'undo' or 'restore' is taken back, `to_ms` alone
    /// is there: when that was done.
    pub device: Option<String>,
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

/// What is done with one file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RewindItem {
    pub path: String,
    /// One word: "bring_back", "set_aside", "rename" or "left".
    pub what: String,
    /// The name that it gets, or why it is left.
    pub text: Option<String>,
}

/// How much the history of a folder holds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryUsage {
    pub folder: String,
    /// The folder's id.
    pub id: String,
    pub versions: u64,
    pub bytes: u64,
    /// When the oldest of them was put there.
    pub oldest_ms: Option<i64>,
    /// How long versions stay.
    pub days: u32,
    /// How much they may take; `None` where the disk cannot be asked for its size.
    pub limit_bytes: Option<u64>,
}

/// What has gone, or would go, from the history of a folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PruneReport {
    pub folder: String,
    /// What was put there before this time.
    pub before_ms: i64,
    /// True where it was only asked what would go.
    pub dry_run: bool,
    pub versions: u64,
    pub bytes: u64,
}
