//! What the live views and lists of a status ask for: transfers, and what is not in sync, page by page.
//!
//! Stable like `types`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Transfers told for a folder; a `_total` counts them all.
pub const TRANSFERS_SHOWN_MAX: usize = 20;
/// Most items of one page of what is not in sync.
pub const PAGE_ITEMS_MAX: usize = 500;

/// A file on its way to this device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TransferItem {
    pub path: String,
    pub bytes: u64,
    /// How much of it is here.
    pub done_bytes: u64,
    /// Names of the peers that some of it came from; none where it was all on this disk, or nothing has come yet.
    pub from: Vec<String>,
}

/// Something that is not in sync, with the reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct UnsyncedItem {
    /// Id of the folder.
    pub folder: String,
    pub path: String,
    /// State of the path, as of `status PATH`: "syncing", "waiting", "conflict" or "problem".
    pub state: String,
    /// Stable name of the kind of problem, such as "no_space", where it is one.
    pub kind: Option<String>,
    /// Why, and what happens next, the most important first.
    pub reasons: Vec<String>,
    pub since_ms: Option<i64>,
    /// Name of the peer where it is not in sync; none where that is this device.
    pub peer: Option<String>,
}

/// A part of all that is not in sync.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct UnsyncedPage {
    pub items: Vec<UnsyncedItem>,
    /// To be given with the next request; none where this is the end.
    pub next: Option<String>,
}
