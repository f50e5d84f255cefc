//! How commands, programs and browsers talk to a running agent: HTTP on a Unix socket that only its owner can open, and
//! on a port of this machine if the config says so.
//!
//! | file | is about |
//! | --- | --- |
//! | `message` | what can be asked and answered, whatever the way it goes |
//! | `types`, `past`, `view`, `ignored` | the values in answers; `--json` prints the same, with an agent or without |
//! | `routes` | the table: which method and path stand for which request |
//! | `router` | from an HTTP request to the [`Handler`] |
//! | `reply` | from replies to an HTTP body |
//! | `server` | connections, their limits, who is let in at the socket |
//! | `browser` | who is let in at the port |
//! | `openapi` | the description of all that, for programs |
//! | `client` | the commands' side |
//!
//! To add a request: a variant of [`Request`] with a doc comment, a line in [`routes::ROUTES`], an arm in the handler. For
//! an answer that is new, a variant of [`Reply`]. The client, the document and the tests of both follow from these.

pub mod browser;
pub mod client;
#[cfg(test)]
mod contract_tests;
mod ignored;
pub mod message;
pub mod openapi;
mod past;
mod reply;
mod router;
pub mod routes;
pub mod server;
#[cfg(test)]
mod testing;
pub mod types;
pub mod view;

pub use ignored::{IgnoreFault, IgnoreRule, IgnoreRules, IgnoreTest};
pub use message::{Keep, Reply, Request, RewindTo, When, WirePath};
pub use past::{HistoryUsage, PruneReport, RewindItem, RewindReport, WaitItem, WaitPeer, WaitReport};
pub use server::{Handler, Replies, bind, serve, serve_browser};
pub use types::{
    ConflictBase, ConflictItem, ConflictSide, EventItem, FolderOffer, FolderPeerStatus, FolderProblem, FolderState,
    FolderStatus, HeldDeletions, HistoryItem, KnownFolder, PathPeerStatus, PathStatus, PeerStatus, ProblemItem, Status,
};
pub use view::{TransferItem, UnsyncedItem, UnsyncedPage};
