//! Answers to commands: what the control socket asks, told by the agent and its folders.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::links::{Links, Paired};
use super::report::{self, LiveFolder, LivePeer, LiveStatus};
use super::restore;
use super::shared::{Event, FolderHandle, Order};
use crate::api::view::TRANSFERS_SHOWN_MAX;
use crate::api::{FolderOffer, Handler, Replies, Reply, Request, When, WirePath};
use crate::config::{self, Config, NewPeer};
use crate::core::id::{DeviceId, FolderId};
use crate::core::path::RelPath;
use crate::failpoint;
use crate::home::Home;
use crate::index::Reader;
use crate::sync::Input;

/// What commands may see and do.
pub struct Control {
    home: Home,
    links: Arc<Links>,
    orders: mpsc::Sender<Order>,
    seen: Mutex<Seen>,
}

/// The agent's latest word on what runs.
struct Seen {
    config: Arc<Config>,
    folders: BTreeMap<FolderId, FolderHandle>,
    failures: BTreeMap<FolderId, String>,
}

impl Control {
    pub fn new(home: Home, config: Arc<Config>, links: Arc<Links>, orders: mpsc::Sender<Order>) -> Self {
        let seen = Mutex::new(Seen { config, folders: BTreeMap::new(), failures: BTreeMap::new() });
        Self { home, links, orders, seen }
    }

    /// From now on this is what runs.
    pub fn publish(&self, config: Arc<Config>, folders: BTreeMap<FolderId, FolderHandle>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.failures.retain(|id, _| !folders.contains_key(id));
        (seen.config, seen.folders) = (config, folders);
    }

    /// Why a folder does not run, for `status`.
    pub fn set_failure(&self, id: &FolderId, text: Option<String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => drop(seen.failures.insert(id.clone(), text)),
            None => drop(seen.failures.remove(id)),
        }
    }

    fn config(&self) -> Arc<Config> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    fn folder(&self, id: &str) -> Option<FolderHandle> {
        let id: FolderId = id.parse().ok()?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).folders.get(&id).cloned()
    }

    fn folders(&self) -> Vec<FolderHandle> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).folders.values().cloned().collect()
    }

    /// What is known beside the index at this moment.
    fn live(&self) -> LiveStatus {
        let links = self.links.status();
        let shares: BTreeMap<DeviceId, BTreeSet<FolderId>> =
            links.iter().filter(|l| l.connected).map(|l| (l.peer, l.shares.clone())).collect();
        let peers = links.into_iter().map(|link| {
            let peer = LivePeer {
                connected: link.connected,
                address: link.address.map(|a| a.to_string()),
                last_seen_ms: link.since_ms,
                since_ms: link.since_ms.filter(|_| link.connected),
                bytes_in: link.bytes_in,
                bytes_out: link.bytes_out,
                trouble: link.last_error.filter(|_| !link.connected),
                offers: link.offers.into_iter().map(|(id, label)| FolderOffer { id: id.to_string(), label }).collect(),
            };
            (link.peer, peer)
        });
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders: BTreeMap<FolderId, LiveFolder> =
            seen.folders.iter().map(|(id, handle)| (id.clone(), live_folder(id, handle, &shares))).collect();
        for (id, text) in &seen.failures {
            folders.insert(id.clone(), LiveFolder { halted: Some(text.clone()), ..LiveFolder::default() });
        }
        LiveStatus { listening: Some(self.links.address().to_string()), peers: peers.collect(), folders }
    }

    async fn answer(self: Arc<Self>, request: Request, replies: Replies) -> Reply {
        match request {
            Request::Status
            | Request::StatusPath { .. }
            | Request::Unsynced { .. }
            | Request::Conflicts
            | Request::History { .. }
            | Request::Events { .. } => {
                let control = self.clone();
                tokio::task::spawn_blocking(move || control.read(request))
                    .await
                    .unwrap_or_else(|e| failed(e.to_string()))
            }
            Request::Reload => self.reload().await,
            Request::Rescan { folder } => self.rescan(folder.as_deref()),
            Request::Confirm { folder } => self.tell(&folder, Input::Confirm, "the held deletions go ahead").await,
            Request::Reject { folder } => self.tell(&folder, Input::Reject, "the held deletions are undone").await,
            Request::PairShow => self.pair_show(replies).await,
            Request::PairJoin { code } => self.pair_join(&code).await,
            Request::Restore { path, when } => {
                let control = self.clone();
                let work = tokio::task::spawn_blocking(move || control.restore(&path, &when));
                work.await.unwrap_or_else(|e| failed(e.to_string()))
            }
            Request::Stop => match self.orders.send(Order::Stop).await {
                Ok(()) => Reply::Done { text: "stopping".into() },
                Err(_) => failed("the agent is stopping already".into()),
            },
        }
    }

    /// Everything that only reads. Blocks on the index.
    fn read(&self, request: Request) -> Reply {
        let config = self.config();
        let home = &self.home;
        let reply = match request {
            Request::StatusPath { path } => {
                report::path_status(home, &config, &path.0, Some(&self.live())).map(Reply::Path)
            }
            Request::Unsynced { folder, after, count } => {
                let part = (folder.as_deref(), after.as_deref(), count);
                report::unsynced(home, &config, part, Some(&self.live())).map(Reply::Unsynced)
            }
            Request::Conflicts => report::conflicts(home, &config).map(Reply::Conflicts),
            Request::History { path } => report::history(home, &config, &path.0).map(Reply::History),
            Request::Events { count } => report::events(home, &config, count).map(Reply::Events),
            _ => report::status(home, &config, Some(&self.live())).map(Reply::Status),
        };
        reply.unwrap_or_else(|error| failed(format!("{error:#}")))
    }

    async fn reload(&self) -> Reply {
        let (answer, answered) = oneshot::channel();
        if self.orders.send(Order::Reload(answer)).await.is_err() {
            return failed("the agent is stopping".into());
        }
        match answered.await {
            Ok(Ok(())) => Reply::Done { text: "the config was read again".into() },
            Ok(Err(text)) => failed(text),
            Err(_) => failed("the agent is stopping".into()),
        }
    }

    fn rescan(&self, folder: Option<&str>) -> Reply {
        let handles: Vec<FolderHandle> = match folder {
            Some(id) => self.folder(id).into_iter().collect(),
            None => self.folders(),
        };
        if handles.is_empty() {
            return failed("no such folder is running".into());
        }
        handles.iter().for_each(|handle| handle.hints.request_full("asked for by the user"));
        Reply::Done { text: "scanning".into() }
    }

    async fn tell(&self, folder: &str, input: Input, text: &str) -> Reply {
        let Some(handle) = self.folder(folder) else { return failed("this folder is not running".into()) };
        match handle.inputs.send(Event::Input(input)).await {
            Ok(()) => Reply::Done { text: text.into() },
            Err(_) => failed("this folder is stopping".into()),
        }
    }

    /// Folders that a new peer will share at once.
    fn open_folders(&self) -> Vec<(FolderId, String)> {
        let config = self.config();
        let all = config.folders.iter().filter(|f| f.peers == config::Sharing::All);
        all.map(|f| (f.id.clone(), f.label.clone())).collect()
    }

    async fn pair_show(&self, replies: Replies) -> Reply {
        let showing = self.links.show_code(self.open_folders());
        let shown = Reply::PairCode { code: showing.code(), valid_seconds: showing.valid_seconds() };
        if replies.send(shown).await.is_err() {
            return failed("cancelled".into());
        }
        match showing.wait().await {
            Ok(paired) => self.add_paired(paired).await,
            Err(error) => failed(error.to_string()),
        }
    }

    async fn pair_join(&self, code: &str) -> Reply {
        match self.links.join_code(code, self.open_folders()).await {
            Ok(paired) => self.add_paired(paired).await,
            Err(error) => failed(error.to_string()),
        }
    }

    async fn add_paired(&self, paired: Paired) -> Reply {
        failpoint::hit("pairing.agreed");
        let new = NewPeer { id: paired.device, name: Some(paired.name.clone()), addresses: Vec::new() };
        let home = self.home.clone();
        let added = tokio::task::spawn_blocking(move || config::add_peer(&home, &new)).await;
        let config = match added {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => {
                return failed(format!(
                    "paired with {}, but it could not be added to the config: {error}",
                    paired.name
                ));
            }
            Err(error) => return failed(error.to_string()),
        };
        failpoint::hit("pairing.stored");
        if let Reply::Error { text } = self.reload().await {
            return failed(text);
        }
        let name = config.peer(&paired.device).map_or(paired.name, |peer| peer.name.clone());
        let shared = paired
            .folders
            .into_iter()
            .filter(|(id, _)| config.folder(id).is_some_and(|f| config.shares(f, &paired.device)));
        Reply::Paired { device_id: paired.device.to_string(), name, folders: shared.map(|(_, label)| label).collect() }
    }

    /// Brings a version back to its place; what lies there goes into history first.
    fn restore(&self, path: &WirePath, when: &When) -> Reply {
        let config = self.config();
        let Some((handle, relative)) = self.locate(&config, &path.0) else {
            return failed(format!("{} is not in a synced folder that is running", path.0.display()));
        };
        match bring_back(&handle, &relative, when) {
            Ok(text) => Reply::Done { text },
            Err(text) => failed(text),
        }
    }

    fn locate(&self, config: &Config, path: &Path) -> Option<(FolderHandle, RelPath)> {
        use std::os::unix::ffi::OsStrExt;
        let path = config::resolve(path);
        let folder = config.folders.iter().find(|f| path.starts_with(&f.path))?;
        let below = path.strip_prefix(&folder.path).ok()?;
        Some((self.folder(folder.id.as_str())?, RelPath::parse(below.as_os_str().as_bytes()).ok()?))
    }
}

impl Handler for Control {
    fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(self.answer(request, replies))
    }
}

fn failed(text: String) -> Reply {
    Reply::Error { text }
}

/// `shares`: what each connected peer shares with this device.
fn live_folder(id: &FolderId, handle: &FolderHandle, shares: &BTreeMap<DeviceId, BTreeSet<FolderId>>) -> LiveFolder {
    let (connected, elsewhere): (Vec<_>, Vec<_>) = shares.iter().partition(|(_, folders)| folders.contains(id));
    let (transfers_total, transfers_done, transfers) = handle.live.transfers.look(TRANSFERS_SHOWN_MAX);
    let mut in_flight = handle.live.transfers.paths();
    in_flight.extend(handle.applying.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    LiveFolder {
        scanning: handle.live.is_scanning(),
        watch: handle.live.watch.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        halted: None,
        connected: connected.into_iter().map(|(peer, _)| *peer).collect(),
        unshared: elsewhere.into_iter().map(|(peer, _)| *peer).collect(),
        hints: 0,
        in_flight,
        transfers,
        transfers_total,
        transfers_done,
        rates: handle.live.flow.rates(handle.clock.instant()),
    }
}

/// Puts a version from history under its old name.
fn bring_back(handle: &FolderHandle, path: &RelPath, when: &When) -> Result<String, String> {
    let reader = Reader::open(&handle.index_path).map_err(|e| e.to_string())?;
    let row = report::version_at(&reader, path, when).map_err(|e| e.to_string())?;
    let row = row.ok_or_else(|| format!("there is no such version of {path} in history"))?;
    restore::bring_back(handle, &row)
}
