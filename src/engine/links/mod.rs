//! Connections to peers: listening, dialling, discovery, pairing, and what goes over each link.
//!
//! | file | does |
//! | --- | --- |
//! | `common` | what the tasks share: config, folders, states for `status` |
//! | `manager` | the task that owns all links: decides who is dialled and which connection stays |
//! | `accept` | half-open connections, bounded |
//! | `dial`, `book` | trying the addresses of a peer; where those come from |
//! | `session` | one link from hello to goodbye |
//! | `lanes`, `growth` | its further connections, and when there are to be more |
//! | `queue`, `room` | its messages while they wait for their folder, and what they take meanwhile |
//! | `announce` | announcements out and in |
//! | `pairing` | showing a code, typing one |

mod accept;
mod announce;
mod book;
mod common;
mod dial;
mod error;
mod growth;
mod lanes;
#[cfg(test)]
mod lanes_tests;
mod manager;
mod pairing;
mod queue;
mod room;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::shared::Event;
use crate::core::id::{DeviceId, FolderId};
use crate::net::NetError;
use crate::net::frame::{AskPast, Chunks, Gift, Have, Past, Request};
use crate::net::identity::Identity;
use crate::net::pace::Caps;
use crate::net::socket;
use common::Common;

pub use super::link::{LinkHandle, LinkTable};
pub use crate::net::pairing::Paired;
pub use pairing::{JoinError, Joined, Showing};
pub use queue::Room;

/// How long a goodbye may take, all links together.
const STOP_TIME: Duration = Duration::from_millis(400);

/// What the config says about connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Name of this device.
    pub name: String,
    /// Program and version, for people.
    pub agent: String,
    pub listen: SocketAddr,
    pub multicast: bool,
    pub multicast_v4: Ipv4Addr,
    pub multicast_v6: Ipv6Addr,
    pub discovery_port: u16,
    /// Where announcements go besides multicast: `HOST:PORT`.
    pub announce_to: Vec<String>,
    pub peers: Vec<LinkPeer>,
    pub folders: Vec<LinkFolder>,
}

/// A peer to be connected with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPeer {
    pub id: DeviceId,
    pub name: String,
    /// `HOST:PORT`.
    pub addresses: Vec<String>,
}

/// A folder of this device, whether it runs or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkFolder {
    pub id: FolderId,
    pub label: String,
    /// With whom it is shared.
    pub peers: BTreeSet<DeviceId>,
}

/// Takes a peer's question about earlier versions.
pub type AskPastPort = Arc<dyn Fn(DeviceId, AskPast) + Send + Sync>;
/// Takes a peer's answer to one.
pub type PastPort = Arc<dyn Fn(DeviceId, Past) + Send + Sync>;
/// Takes a request of a peer; false where that peer asks for too much at once.
pub type ServePort = Arc<dyn Fn(DeviceId, Request) -> bool + Send + Sync>;
/// Takes contents that a peer sent; unverified.
pub type ChunksPort = Arc<dyn Fn(DeviceId, Chunks) + Send + Sync>;
/// Takes the id and items of a request that a peer can't serve.
pub type NotHerePort = Arc<dyn Fn(DeviceId, u32, Vec<u16>) + Send + Sync>;
/// Takes what a peer has of a content that it fetches.
pub type HavePort = Arc<dyn Fn(DeviceId, Have) + Send + Sync>;
/// Takes what a peer sends unasked; unverified.
pub type GiftPort = Arc<dyn Fn(DeviceId, Gift) + Send + Sync>;
/// Says whether an answer to this request of ours is waited for.
pub type ExpectsPort = Arc<dyn Fn(DeviceId, u32) -> bool + Send + Sync>;
/// Hears of a link.
pub type LinkPort = Arc<dyn Fn(DeviceId) + Send + Sync>;

/// Where a running folder takes what comes from peers.
#[derive(Clone)]
pub struct FolderPorts {
    pub inputs: mpsc::Sender<Event>,
    pub serve: ServePort,
    pub chunks: ChunksPort,
    pub not_here: NotHerePort,
    pub have: HavePort,
    pub gift: GiftPort,
    pub expects: ExpectsPort,
    pub ask_past: AskPastPort,
    pub past: PastPort,
    /// What a peer was asked for may have been lost on its way.
    pub lane_lost: LinkPort,
    pub link_up: LinkPort,
    pub link_down: LinkPort,
}

/// How it stands with one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    pub peer: DeviceId,
    pub connected: bool,
    /// Of the link, or of the last one.
    pub address: Option<SocketAddr>,
    /// When the link came up or the last one ended, in ms since 1970; `None` where there was none yet.
    pub since_ms: Option<i64>,
    /// Since the agent started.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Why there is no link, in words.
    pub last_error: Option<String>,
    /// True once it has refused this device as not paired, until a link comes up.
    pub unpaired: bool,
    /// Program and version there, as it said last.
    pub agent: Option<String>,
    /// How far its clock was ahead of ours when the link came up, in ms; negative where behind.
    pub clock_ahead_ms: Option<i64>,
    /// Folders that the peer shares with us and that are not here, with their labels.
    pub offers: Vec<(FolderId, String)>,
    /// All folders that the peer shares with us.
    pub shares: BTreeSet<FolderId>,
}

/// Why there can be no connections at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("port {} is in use by another program; set 'listen' in [network] of config.toml to another port", .0.port())]
    PortInUse(SocketAddr),
    #[error(transparent)]
    Net(#[from] NetError),
}

/// All connections of this device.
pub struct Links {
    common: Arc<Common>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    manager: Mutex<Option<JoinHandle<()>>>,
    announcer: JoinHandle<()>,
}

impl Links {
    /// Listens, and begins to dial and to announce. `table` shows all links that are up.
    pub async fn start(config: LinkConfig, identity: Arc<Identity>, table: LinkTable) -> Result<Self, StartError> {
        let listener = socket::listen(config.listen).map_err(|error| match error {
            NetError::PortInUse { address } => StartError::PortInUse(address),
            other => other.into(),
        })?;
        let listening = |source| NetError::Listen { address: config.listen, source };
        let address = listener.local_addr().map_err(listening)?;
        let common = Common::new(config, identity, table, address.port())?;
        let (stop, stopping) = watch::channel(false);
        let (events, inbox) = mpsc::channel(manager::EVENTS_QUEUED_MAX);
        let announcer = tokio::spawn(announce::run(common.clone(), events.clone()));
        let manager = tokio::spawn(manager::run(common.clone(), listener, events, inbox, stopping));
        let manager = Mutex::new(Some(manager));
        Ok(Self { common, address, stop, manager, announcer })
    }

    /// Where this device listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder runs from now on: connected peers that it is shared with are told.
    pub fn add_folder(&self, id: FolderId, ports: FolderPorts) {
        self.common.add_folder(id, ports);
    }

    /// The folder no longer runs.
    pub fn remove_folder(&self, id: &FolderId) {
        self.common.remove_folder(id);
    }

    /// From now on these caps hold: in bytes per second up and down, for all links together and for those with some peers.
    pub fn set_caps(&self, all: Caps, own: &BTreeMap<DeviceId, Caps>) {
        self.common.paces.set(all, own);
    }

    /// Takes over a changed config: new peers are dialled, links with removed ones end. The address to listen on is
    /// only looked at by [`Links::start`].
    pub fn set_config(&self, config: LinkConfig) {
        self.common.set_config(config);
    }

    /// How it stands with each peer of the config.
    pub fn status(&self) -> Vec<LinkStatus> {
        self.common.status()
    }

    /// From now on this is told of each device that is not paired and wants to connect, once.
    pub fn on_stranger(&self, tell: impl Fn(DeviceId, SocketAddr) + Send + Sync + 'static) {
        // Only the first counts.
        let _ = self.common.on_stranger.set(Box::new(tell));
    }

    /// Devices that tried to connect and are not paired, with the address they came from.
    pub fn strangers(&self) -> Vec<(DeviceId, SocketAddr)> {
        self.common.strangers()
    }

    /// Shows a new pairing code in place of an earlier one; `folders` are those that will be shared with whoever types it.
    pub fn show_code(&self, folders: Vec<(FolderId, String)>) -> Showing {
        pairing::show(&self.common, folders)
    }

    /// Pairs with the device that shows `code`, which may be a link. The caller then adds the device to the config.
    pub async fn join_code(&self, code: &str, folders: Vec<(FolderId, String)>) -> Result<Joined, JoinError> {
        pairing::join(&self.common, code, folders).await
    }

    /// Ends all links and frees the port.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.announcer.abort();
        let Some(mut manager) = self.manager.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if tokio::time::timeout(STOP_TIME, &mut manager).await.is_err() {
            manager.abort();
            tracing::debug!("links did not end in time and are cut");
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(manager) = self.manager.get_mut().unwrap_or_else(PoisonError::into_inner) {
            manager.abort();
        }
        self.announcer.abort();
    }
}
