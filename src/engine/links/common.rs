//! What the tasks of all links share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::book::AddressBook;
use super::lanes::Door;
use super::pairing::Pairing;
use super::session::LinkError;
use super::{FolderPorts, LinkConfig, LinkStatus, LinkTable};
use crate::core::id::{DeviceId, FolderId};
use crate::engine::chatter::{Chatter, LeftOut};
use crate::net::NetError;
use crate::net::announcement::Announcement;
use crate::net::bounds::{FOLDERS_MAX, NAME_CHARS_MAX, clean_text};
use crate::net::connection::Traffic;
use crate::net::frame::{DeviceHello, PROTOCOL_VERSION};
use crate::net::identity::Identity;
use crate::net::lane::LANES_ALL_MAX;
use crate::net::pace::Paces;
use crate::net::random_bytes;
use crate::net::tls::{Tls, Trusted};

/// Most strangers that are remembered, so that each is logged once.
const STRANGERS_MAX: usize = 256;
/// Most bytes that the folders take in a hello: leaves room for the rest of the frame.
const OFFERS_BYTES_MAX: usize = 60 * 1024;
/// What one folder takes in a hello beside its texts.
const OFFER_FIXED_BYTES: usize = 8;

/// See the module.
pub struct Common {
    pub own: DeviceId,
    pub identity: Arc<Identity>,
    pub tls: Tls,
    pub table: LinkTable,
    pub book: Mutex<AddressBook>,
    /// Counts announcements with news.
    pub heard: watch::Sender<u64>,
    /// Counts changes of the config and of the running folders.
    pub changed: watch::Sender<u64>,
    /// Asks for an announcement now.
    pub announce_now: Notify,
    pub pairing: Mutex<Option<Pairing>>,
    /// Caps on what goes over links.
    pub paces: Paces,
    /// Of each link that was dialled by its peer.
    pub doors: Mutex<BTreeMap<DeviceId, Door>>,
    /// For the lanes of all links.
    pub lanes_room: Arc<Semaphore>,
    config: RwLock<Arc<LinkConfig>>,
    trusted: Arc<RwLock<BTreeSet<DeviceId>>>,
    folders: RwLock<BTreeMap<FolderId, Running>>,
    generations: AtomicU64,
    peers: Mutex<BTreeMap<DeviceId, PeerState>>,
    strangers: Mutex<BTreeMap<DeviceId, SocketAddr>>,
    /// Told of every new stranger.
    pub on_stranger: OnceLock<OnStranger>,
    chatter: Mutex<Chatter<DeviceId>>,
    port: u16,
    instance: u64,
}

#[derive(Clone)]
struct Running {
    generation: u64,
    ports: FolderPorts,
}

/// A running folder that is shared with a peer.
#[derive(Clone)]
pub struct Offer {
    pub label: String,
    /// Another one after each start of the folder.
    pub generation: u64,
    pub ports: FolderPorts,
}

/// What a peer is offered.
pub type Offers = BTreeMap<FolderId, Offer>;

/// What `status` shows of a peer.
#[derive(Default)]
struct PeerState {
    traffic: Option<Arc<Traffic>>,
    address: Option<SocketAddr>,
    since_ms: Option<i64>,
    bytes_in: u64,
    bytes_out: u64,
    last_error: Option<String>,
    /// It has said that it does not know this device any more, and no link has come up since.
    is_unpaired: bool,
    offers: Vec<(FolderId, String)>,
    agent: Option<String>,
    clock_ahead_ms: Option<i64>,
}

/// What is done about a device that is not paired and wants to connect: the id that it claims, and its address.
pub type OnStranger = Box<dyn Fn(DeviceId, SocketAddr) + Send + Sync>;

impl Common {
    pub fn new(
        config: LinkConfig,
        identity: Arc<Identity>,
        table: LinkTable,
        port: u16,
    ) -> Result<Arc<Self>, NetError> {
        let trusted = Arc::new(RwLock::new(peers_of(&config)));
        let asked = trusted.clone();
        let trusts: Trusted = Arc::new(move |id| asked.read().unwrap_or_else(PoisonError::into_inner).contains(id));
        let tls = Tls::new(&identity, trusts)?;
        Ok(Arc::new(Self {
            own: identity.device_id(),
            identity,
            tls,
            table,
            book: Mutex::default(),
            heard: watch::Sender::new(0),
            changed: watch::Sender::new(0),
            announce_now: Notify::new(),
            pairing: Mutex::new(None),
            paces: Paces::default(),
            doors: Mutex::default(),
            lanes_room: Arc::new(Semaphore::new(LANES_ALL_MAX)),
            config: RwLock::new(Arc::new(config)),
            trusted,
            folders: RwLock::default(),
            generations: AtomicU64::new(0),
            peers: Mutex::default(),
            strangers: Mutex::default(),
            on_stranger: OnceLock::new(),
            chatter: Mutex::default(),
            port,
            instance: u64::from_be_bytes(random_bytes()),
        }))
    }

    /// Whether a line about a peer is to be logged; it ends with the answer.
    pub fn say(&self, peer: DeviceId, kind: &'static str) -> Option<LeftOut> {
        lock(&self.chatter).say(peer, kind, Instant::now().into_std())
    }

    pub fn config(&self) -> Arc<LinkConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_config(&self, config: LinkConfig) {
        let before = self.config();
        if before.listen != config.listen {
            tracing::warn!("listening on {} begins with the next start of the agent", config.listen);
        }
        // Before all else: a handshake that asks from now on is answered by the new config.
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = peers_of(&config);
        let peers = peers_of(&config);
        // Who has been removed goes on dialling for a while, and is no news.
        let removed = before.peers.iter().filter(|peer| !peers.contains(&peer.id)).map(|peer| peer.id);
        let address = |id: &DeviceId| lock(&self.peers).get(id).and_then(|state| state.address);
        let removed: Vec<_> = removed.filter_map(|id| Some((id, address(&id)?))).collect();
        lock(&self.peers).retain(|id, _| peers.contains(id));
        lock(&self.strangers).retain(|id, _| !peers.contains(id));
        for (id, address) in removed {
            self.is_new_stranger(id, address);
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn is_peer(&self, device: &DeviceId) -> bool {
        self.trusted.read().unwrap_or_else(PoisonError::into_inner).contains(device)
    }

    /// The name that the config gives a peer, or its short id.
    pub fn name(&self, peer: &DeviceId) -> String {
        let config = self.config();
        let named = config.peers.iter().find(|p| p.id == *peer).map(|p| p.name.clone());
        named.unwrap_or_else(|| peer.short())
    }

    pub fn add_folder(&self, id: FolderId, ports: FolderPorts) {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        self.folders.write().unwrap_or_else(PoisonError::into_inner).insert(id, Running { generation, ports });
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn remove_folder(&self, id: &FolderId) {
        self.folders.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The running folders that are shared with this device; `None` where it is not a peer.
    pub fn offers(&self, peer: &DeviceId) -> Option<Offers> {
        if !self.is_peer(peer) {
            return None;
        }
        let config = self.config();
        let running = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        let mut offers = Offers::new();
        let mut bytes = 0;
        for folder in config.folders.iter().filter(|f| f.peers.contains(peer)) {
            let Some(Running { generation, ports }) = running.get(&folder.id).cloned() else { continue };
            let label = clean_text(&folder.label, NAME_CHARS_MAX);
            bytes += folder.id.as_str().len() + label.len() + OFFER_FIXED_BYTES;
            if offers.len() >= FOLDERS_MAX || bytes > OFFERS_BYTES_MAX {
                if let Some(more) = self.say(*peer, "too many folders") {
                    let (peer, id) = (peer.short(), &folder.id);
                    tracing::warn!("too many folders are shared with {peer}: {id} and later ones wait{more}");
                }
                break;
            }
            offers.insert(folder.id.clone(), Offer { label, generation, ports });
        }
        Some(offers)
    }

    /// What this device says of itself to a peer.
    pub fn hello(&self, offers: &Offers) -> DeviceHello {
        let config = self.config();
        DeviceHello {
            protocol: PROTOCOL_VERSION,
            name: clean_text(&config.name, NAME_CHARS_MAX),
            agent: clean_text(&config.agent, NAME_CHARS_MAX),
            folders: offers.iter().map(|(id, offer)| (id.clone(), offer.label.clone())).collect(),
            // Only the first of a link says it: see `session::establish`.
            sent_ms: None,
        }
    }

    /// Where this device listens.
    pub fn listening(&self) -> SocketAddr {
        SocketAddr::new(self.config().listen.ip(), self.port)
    }

    pub fn announcement(&self) -> Announcement {
        let pairing = lock(&self.pairing).as_ref().and_then(Pairing::nameplate);
        Announcement { device: self.own, port: self.port, pairing, instance: self.instance }
    }

    /// A device is reachable there.
    pub fn note_address(&self, device: DeviceId, address: SocketAddr) {
        lock(&self.book).note(device, address, Instant::now(), |id| self.is_peer(id));
    }

    /// Notes a device that is not a peer; true at the first time.
    pub fn is_new_stranger(&self, device: DeviceId, address: SocketAddr) -> bool {
        let mut strangers = lock(&self.strangers);
        strangers.len() < STRANGERS_MAX && strangers.insert(device, address).is_none()
    }

    pub fn strangers(&self) -> Vec<(DeviceId, SocketAddr)> {
        lock(&self.strangers).iter().map(|(id, address)| (*id, *address)).collect()
    }

    pub fn note_up(&self, peer: DeviceId, address: SocketAddr, traffic: Arc<Traffic>, hello: &DeviceHello) {
        self.with_state(peer, |state| {
            state.agent = Some(hello.agent.clone()).filter(|agent| !agent.is_empty());
            state.traffic = Some(traffic);
            state.address = Some(address);
            state.since_ms = Some(wall_ms());
            state.last_error = None;
            state.is_unpaired = false;
        });
    }

    /// How far the peer's clock is ahead, where it said what it shows.
    pub fn note_clock(&self, peer: DeviceId, ahead_ms: Option<i64>) {
        self.with_state(peer, |state| state.clock_ahead_ms = ahead_ms);
    }

    pub fn note_down(&self, peer: DeviceId, reason: &str, is_unpaired: bool) {
        self.with_state(peer, |state| {
            if let Some(traffic) = state.traffic.take() {
                state.bytes_in += traffic.read.load(Ordering::Relaxed);
                state.bytes_out += traffic.written.load(Ordering::Relaxed);
                state.since_ms = Some(wall_ms());
            }
            state.offers.clear();
            state.last_error = Some(reason.to_owned());
            state.is_unpaired |= is_unpaired;
        });
    }

    /// Why no link came about.
    pub fn note_error(&self, peer: DeviceId, error: &LinkError) {
        self.with_state(peer, |state| {
            state.is_unpaired |= error.is_unpaired();
            state.last_error = Some(in_words(error));
        });
    }

    pub fn note_offers(&self, peer: DeviceId, folders: &BTreeMap<FolderId, String>) {
        self.with_state(peer, |state| state.offers = folders.clone().into_iter().collect());
    }

    pub fn status(&self) -> Vec<LinkStatus> {
        let config = self.config();
        let own: BTreeSet<&FolderId> = config.folders.iter().map(|f| &f.id).collect();
        let states = lock(&self.peers);
        let none = PeerState::default();
        let of_peer = |peer: DeviceId| {
            let state = states.get(&peer).unwrap_or(&none);
            let live = |count: fn(&Traffic) -> &AtomicU64| {
                state.traffic.as_ref().map_or(0, |traffic| count(traffic).load(Ordering::Relaxed))
            };
            LinkStatus {
                peer,
                connected: state.traffic.is_some(),
                address: state.address,
                since_ms: state.since_ms,
                bytes_in: state.bytes_in + live(|t| &t.read),
                bytes_out: state.bytes_out + live(|t| &t.written),
                last_error: state.last_error.clone().filter(|_| state.traffic.is_none()),
                unpaired: state.is_unpaired,
                agent: state.agent.clone(),
                clock_ahead_ms: state.clock_ahead_ms,
                offers: state.offers.iter().filter(|(id, _)| !own.contains(id)).cloned().collect(),
                shares: state.offers.iter().map(|(id, _)| id.clone()).collect(),
            }
        };
        config.peers.iter().map(|peer| of_peer(peer.id)).collect()
    }

    /// Only peers have a state, so their number is bounded.
    fn with_state(&self, peer: DeviceId, change: impl FnOnce(&mut PeerState)) {
        let mut states = lock(&self.peers);
        if self.is_peer(&peer) {
            change(states.entry(peer).or_default());
        }
    }
}

fn peers_of(config: &LinkConfig) -> BTreeSet<DeviceId> {
    config.peers.iter().map(|peer| peer.id).collect()
}

pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Locks; what the lock guards is whole after every statement, so a panic elsewhere does no harm to it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes, in one line.
pub fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
