//! How commands talk to a running agent: JSON lines over a Unix socket that only its owner can open.
//!
//! A connection carries one [`Request`] and one or more replies, the last of which is marked. The values in
//! [`types`] are also what `--json` prints, with an agent or without.

pub mod client;
pub mod message;
mod reply;
mod router;
pub mod routes;
pub mod server;
pub mod types;
pub mod view;

pub use message::{Reply, Request, When, WirePath};
pub use server::{Handler, Replies, bind, serve};
pub use types::{
    ConflictItem, EventItem, FolderOffer, FolderPeerStatus, FolderState, FolderStatus, HeldDeletions, HistoryItem,
    PathPeerStatus, PathStatus, PeerStatus, ProblemItem, Status,
};
pub use view::{TransferItem, UnsyncedItem, UnsyncedPage};
