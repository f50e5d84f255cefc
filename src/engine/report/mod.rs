//! What commands show: built from config and index, with what a running agent knows besides where one runs.
//!
//! | file | is about |
//! | --- | --- |
//! | `folder` | a folder: its state in one word and one sentence |
//! | `facts`, `ahead` | what that follows from: how far its peers are; what is left, how far it is, how long it takes |
//! | `path` | one path: what state it is in, and exactly why |
//! | `peer` | one path at the peers: who has it, who does not yet and why |
//! | `below` | a directory: what of all that is in it is not in sync |
//! | `choices` | what the user has chosen for a folder: that it is paused, which way changes go |
//! | `ignored` | whether a path is ignored, and by which rule |
//! | `disk` | what lies there now, compared with what was seen last |
//! | `receipt` | which peers have what is here |
//! | `unsynced` | all that is not in sync, page by page |
//! | `waits` | why a path is not as another device has it |
//! | `past` | history, conflict copies, the log |
//! | `words` | times, sizes and lists in words |
//!
//! Architecture invariant: nothing in here changes anything, neither an index nor a folder nor the config.

mod ahead;
mod below;
mod choices;
mod disk;
mod facts;
mod folder;
mod ignored;
mod past;
mod path;
mod peer;
mod receipt;
#[cfg(test)]
mod testing;
mod unsynced;
mod waits;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::flow::Rates;
use super::readers::{Lent, Readers};
use super::transfer::Moving;
use crate::api::{
    ConflictItem, EventItem, FolderOffer, FolderPeerStatus, FolderProblem, FolderStatus, HistoryItem, HistoryUsage,
    IgnoreRules, IgnoreTest, PathStatus, PeerStatus, Status, UnsyncedPage, WaitReport,
};
use crate::config::{Config, Folder, Peer};
use crate::core::id::{DeviceId, FolderId};
use crate::core::path::RelPath;
use crate::home::Home;
use crate::index::{IndexError, Reader};

pub use past::{event, version_at, version_id};
pub use receipt::Awaited;

/// What only a running agent knows, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LiveStatus {
    /// Address and port that peers connect to.
    pub listening: Option<String>,
    pub peers: BTreeMap<DeviceId, LivePeer>,
    /// Folders that run; one that is paused or has not started yet is not in here.
    pub folders: BTreeMap<FolderId, LiveFolder>,
    /// Why nothing is synced at all for now.
    pub resting: Option<String>,
}

/// A peer as the links know it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LivePeer {
    pub connected: bool,
    pub address: Option<String>,
    /// When it was last connected, ms since 1970.
    pub last_seen_ms: Option<i64>,
    /// Since when it is connected.
    pub since_ms: Option<i64>,
    /// Since the agent started.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Why there is no connection, in words.
    pub trouble: Option<String>,
    /// It does not know this device any more.
    pub unpaired: bool,
    /// Program and version there.
    pub version: Option<String>,
    /// How far its clock is ahead of ours, in ms.
    pub clock_ahead_ms: Option<i64>,
    /// Folders that it shares with us and that are not here.
    pub offers: Vec<FolderOffer>,
}

/// A running folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LiveFolder {
    pub scanning: bool,
    /// Why changes are not noticed at once; `None` while they are.
    pub watch: Option<String>,
    /// Why the folder has stopped itself.
    pub halted: Option<String>,
    /// Peers with a session in which both sides share this folder.
    pub connected: BTreeSet<DeviceId>,
    /// Peers that are connected, but do not share this folder.
    pub unshared: BTreeSet<DeviceId>,
    /// Paths that the watcher hinted at and that have not been looked at yet.
    pub hints: u64,
    /// Paths whose bytes are being fetched, or that are being applied.
    pub in_flight: BTreeSet<RelPath>,
    /// The largest contents on their way, how many there are in all, and how many of their bytes are here.
    pub transfers: Vec<Moving>,
    pub transfers_total: u64,
    pub transfers_done: u64,
    pub rates: Rates,
    /// Its index, open.
    pub readers: Readers,
}

/// Who asks, and when.
#[derive(Clone, Copy)]
struct Asker<'a> {
    home: &'a Home,
    config: &'a Config,
    live: Option<&'a LiveStatus>,
    /// This device; [`DeviceId::NONE`] where it has no identity yet.
    device: DeviceId,
    now_ms: i64,
}

/// One folder, with its index open.
struct View<'a> {
    asker: Asker<'a>,
    folder: &'a Folder,
    reader: Lent,
}

/// This device, its folders and its peers. `live` is `None` where no agent runs: then it is what the index last knew.
pub fn status(home: &Home, config: &Config, live: Option<&LiveStatus>) -> anyhow::Result<Status> {
    Ok(status_of(asker(home, config, live)))
}

/// One absolute path: what state it is in, and why.
pub fn path_status(home: &Home, config: &Config, path: &Path, live: Option<&LiveStatus>) -> anyhow::Result<PathStatus> {
    Ok(path::status(asker(home, config, live), path))
}

/// Whether an absolute path is ignored, which need not exist; `as_directory` says what it would be then.
pub fn ignore_test(home: &Home, config: &Config, path: &Path, as_directory: bool) -> anyhow::Result<IgnoreTest> {
    ignored::test(asker(home, config, None), path, as_directory)
}

/// All ignore rules of a folder.
pub fn ignore_list(home: &Home, config: &Config, folder: &Folder) -> anyhow::Result<IgnoreRules> {
    ignored::list(asker(home, config, None), folder)
}

/// All that is not in sync, page by page. `part`: of which folder, after what the last page told, how many.
pub fn unsynced(
    home: &Home,
    config: &Config,
    part: (Option<&str>, Option<&str>, usize),
    live: Option<&LiveStatus>,
) -> anyhow::Result<UnsyncedPage> {
    let (folder, after, count) = part;
    unsynced::page(asker(home, config, live), folder, after, count)
}

/// Which peers hold what is waited for.
pub fn receipt(
    home: &Home,
    config: &Config,
    folder: &Folder,
    awaited: &Awaited,
    live: Option<&LiveStatus>,
) -> Result<WaitReport, IndexError> {
    receipt::read(asker(home, config, live), folder, awaited)
}

/// Trouble with single items in all folders.
pub fn problems(home: &Home, config: &Config, live: Option<&LiveStatus>) -> anyhow::Result<Vec<FolderProblem>> {
    past::problems(asker(home, config, live))
}

/// Conflict copies in all folders.
pub fn conflicts(home: &Home, config: &Config, live: Option<&LiveStatus>) -> anyhow::Result<Vec<ConflictItem>> {
    past::conflicts(asker(home, config, live))
}

/// Earlier versions of an absolute path, or of all below it, the latest first.
pub fn history(
    home: &Home,
    config: &Config,
    path: &Path,
    live: Option<&LiveStatus>,
) -> anyhow::Result<Vec<HistoryItem>> {
    past::history(asker(home, config, live), path)
}

/// How much the history of a folder holds, or of all.
pub fn history_usage(
    home: &Home,
    config: &Config,
    folder: Option<&str>,
    live: Option<&LiveStatus>,
) -> anyhow::Result<Vec<HistoryUsage>> {
    past::usage(asker(home, config, live), folder)
}

/// The latest events of all folders, oldest first.
pub fn events(home: &Home, config: &Config, count: usize, live: Option<&LiveStatus>) -> anyhow::Result<Vec<EventItem>> {
    past::events(asker(home, config, live), count)
}

fn asker<'a>(home: &'a Home, config: &'a Config, live: Option<&'a LiveStatus>) -> Asker<'a> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Asking makes no identity where there is none.
    let device = home.identity_file().exists().then(|| super::agent::device_id(home).ok()).flatten();
    Asker {
        home,
        config,
        live,
        device: device.unwrap_or(DeviceId::NONE),
        now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
    }
}

fn status_of(asker: Asker) -> Status {
    let mut seen: BTreeMap<DeviceId, i64> = BTreeMap::new();
    let folders: Vec<FolderStatus> =
        asker.config.folders.iter().map(|folder| folder::status(asker, folder, &mut seen)).collect();
    let peers = asker.config.peers.iter().map(|peer| {
        let status = peer_status(asker, peer, seen.get(&peer.id).copied());
        with_folders(status, &folders)
    });
    let peers = peers.collect();
    Status {
        device_id: if asker.device == DeviceId::NONE { String::new() } else { asker.device.to_string() },
        name: asker.config.name.clone(),
        running: asker.live.is_some(),
        listening: asker.live.and_then(|live| live.listening.clone()),
        problems_total: folders.iter().map(|folder| folder.problems_total).sum(),
        folders,
        peers,
        starting: false,
    }
}

fn peer_status(asker: Asker, peer: &Peer, seen_ms: Option<i64>) -> PeerStatus {
    let live = asker.live.and_then(|live| live.peers.get(&peer.id)).cloned().unwrap_or_default();
    PeerStatus {
        device_id: peer.id.to_string(),
        name: peer.name.clone(),
        connected: live.connected,
        last_seen_ms: if live.connected { Some(asker.now_ms) } else { live.last_seen_ms.max(seen_ms) },
        address: live.address,
        bytes_in: live.bytes_in,
        bytes_out: live.bytes_out,
        trouble: live.trouble,
        unpaired: live.unpaired,
        version: live.version,
        clock_ahead_ms: live.clock_ahead_ms,
        offers: live.offers,
        connected_since_ms: live.since_ms.filter(|_| live.connected),
        ..PeerStatus::default()
    }
}

/// The peer with what its folders add up to.
fn with_folders(mut peer: PeerStatus, folders: &[FolderStatus]) -> PeerStatus {
    let shared: Vec<&FolderPeerStatus> =
        folders.iter().flat_map(|f| &f.peers).filter(|p| p.device_id == peer.device_id).collect();
    let sum = |of: fn(&FolderPeerStatus) -> u64| shared.iter().fold(0u64, |sum, p| sum.saturating_add(of(p)));
    let rate = |of: fn(&FolderPeerStatus) -> Option<u64>| {
        let known: Vec<u64> = shared.iter().filter_map(|p| of(p)).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    };
    (peer.behind_items, peer.behind_bytes) = (sum(|p| p.behind_items), sum(|p| p.behind_bytes));
    (peer.rate_in, peer.rate_out) = (rate(|p| p.rate_in), rate(|p| p.rate_out));
    let proofs: Option<Vec<i64>> = shared.iter().map(|p| p.proved_identical_ms).collect();
    peer.proved_identical_ms = proofs.and_then(|proofs| proofs.into_iter().min());
    peer
}

impl<'a> Asker<'a> {
    fn open(self, folder: &'a Folder) -> Result<View<'a>, IndexError> {
        let path = self.home.index_file(&folder.id);
        let reader = match self.live.and_then(|live| live.folders.get(&folder.id)) {
            Some(live) => live.readers.take(&path)?,
            None => Reader::open(&path)?.into(),
        };
        Ok(View { asker: self, folder, reader })
    }

    /// Name of a device for people.
    fn name(&self, device: &DeviceId) -> String {
        if *device == self.device {
            return "this device".to_owned();
        }
        match self.config.peer(device) {
            Some(peer) => peer.name.clone(),
            None => format!("the device {}", device.short()),
        }
    }

    fn names(&self, devices: &[DeviceId]) -> Vec<String> {
        devices.iter().map(|device| self.name(device)).collect()
    }

    /// Name of whoever wrote something; `None` where that is not known.
    fn author(&self, device: &DeviceId) -> Option<String> {
        match *device {
            DeviceId::NONE => None,
            own if own == self.device => Some(self.config.name.clone()),
            _ => Some(self.name(device)),
        }
    }
}

impl<'a> View<'a> {
    fn live(&self) -> Option<&'a LiveFolder> {
        self.asker.live.and_then(|live| live.folders.get(&self.folder.id))
    }

    /// The peers that this folder is shared with.
    fn peers(&self) -> impl Iterator<Item = &'a Peer> {
        let (config, folder) = (self.asker.config, self.folder);
        config.peers.iter().filter(move |peer| config.shares(folder, &peer.id))
    }

    fn is_connected(&self, device: &DeviceId) -> bool {
        self.live().is_some_and(|live| live.connected.contains(device))
    }

    /// True for a peer that is connected and does not share this folder.
    fn is_unshared(&self, device: &DeviceId) -> bool {
        self.live().is_some_and(|live| live.unshared.contains(device))
    }
}
