//! Answers to commands: what the control socket asks, told by the agent and its folders.

mod past;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::again;
use super::answers::{failed, in_words, live_folder, part_of};
use super::clock::Clock;
use super::feed::Feed;
use super::links::{Joined, Links, Paired};
use super::notices::{Kind, Notices};
use super::report::{self, LiveFolder, LivePeer, LiveStatus};
use super::shared::{Event, FolderHandle, Order};
use crate::api::{FolderOffer, Handler, Replies, Reply, Request, Status};
use crate::config::{self, Config, NewPeer};
use crate::core::id::{DeviceId, FolderId};
use crate::failpoint;
use crate::home::Home;
use crate::sync::Input;

/// What is said of a folder that has not been opened yet.
const STARTING: &str = "p2psync is still starting; try again in a moment";

/// What commands may see and do.
pub struct Control {
    home: Home,
    links: Arc<Links>,
    orders: mpsc::Sender<Order>,
    notices: Notices,
    feed: Feed,
    /// Someone wants the agent to stop.
    stop: Notify,
    seen: Mutex<Seen>,
}

/// The agent's latest word on what runs.
struct Seen {
    config: Arc<Config>,
    folders: BTreeMap<FolderId, FolderHandle>,
    failures: BTreeMap<FolderId, String>,
    /// False until every folder has been tried once.
    is_started: bool,
    /// Why nothing is synced at all for now.
    resting: Option<String>,
}

impl Seen {
    /// Why nothing can be done with this folder, which does not run.
    fn not_running(&self, id: &str) -> Reply {
        let known = id.parse().ok().and_then(|id: FolderId| self.config.folder(&id));
        match known {
            None => Reply::Missing { text: format!("there is no folder with the id '{id}'") },
            Some(folder) if folder.is_paused(Clock::system().wall_ms()) => {
                failed(format!("the folder {} is paused; resume it first", folder.label))
            }
            Some(folder) if self.resting.is_some() => {
                failed(format!("{}: {}", folder.label, self.resting.as_deref().unwrap_or_default()))
            }
            Some(_) if !self.is_started => Reply::Starting { text: STARTING.into() },
            Some(folder) => failed(format!("the folder {} is not running; 'p2psync status' says why", folder.label)),
        }
    }
}

impl Control {
    pub fn new(
        home: Home,
        config: Arc<Config>,
        links: Arc<Links>,
        orders: mpsc::Sender<Order>,
        (feed, notices): (Feed, Notices),
    ) -> Self {
        let (folders, failures) = (BTreeMap::new(), BTreeMap::new());
        let seen = Mutex::new(Seen { config, folders, failures, is_started: false, resting: None });
        Self { home, links, orders, feed, notices, stop: Notify::new(), seen }
    }

    /// Ends once someone wants the agent to stop.
    pub async fn stop_wanted(&self) {
        self.stop.notified().await;
    }

    /// From now on a folder that does not run is not just late.
    pub fn set_started(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_started = true;
    }

    /// From now on this is what runs.
    pub fn publish(&self, config: Arc<Config>, folders: BTreeMap<FolderId, FolderHandle>, resting: Option<String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.failures.retain(|id, _| !folders.contains_key(id));
        (seen.config, seen.folders, seen.resting) = (config, folders, resting);
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
        // The links know only what runs: a folder that is paused is no offer either.
        let own: BTreeSet<FolderId> = self.config().folders.iter().map(|folder| folder.id.clone()).collect();
        let peers = links.into_iter().map(|link| {
            let offers = link.offers.into_iter().filter(|(id, _)| !own.contains(id));
            let peer = LivePeer {
                connected: link.connected,
                address: link.address.map(|a| a.to_string()),
                last_seen_ms: link.since_ms,
                since_ms: link.since_ms.filter(|_| link.connected),
                bytes_in: link.bytes_in,
                bytes_out: link.bytes_out,
                trouble: link.last_error.filter(|_| !link.connected),
                unpaired: link.unpaired,
                version: link.agent,
                clock_ahead_ms: link.clock_ahead_ms,
                offers: offers.map(|(id, label)| FolderOffer { id: id.to_string(), label }).collect(),
            };
            (link.peer, peer)
        });
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders: BTreeMap<FolderId, LiveFolder> =
            seen.folders.iter().map(|(id, handle)| (id.clone(), live_folder(id, handle, &shares))).collect();
        for (id, text) in &seen.failures {
            folders.insert(id.clone(), LiveFolder { halted: Some(text.clone()), ..LiveFolder::default() });
        }
        LiveStatus {
            listening: Some(self.links.address().to_string()),
            peers: peers.collect(),
            folders,
            resting: seen.resting.clone(),
        }
    }

    async fn answer(self: Arc<Self>, request: Request, replies: Replies) -> Reply {
        match request {
            Request::Status
            | Request::Folders
            | Request::Folder { .. }
            | Request::Peers
            | Request::Peer { .. }
            | Request::StatusPath { .. }
            | Request::Unsynced { .. }
            | Request::Problems
            | Request::Conflicts
            | Request::HistoryUsage { .. }
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
            Request::Override { folder } => {
                self.tell(
                    &folder,
                    Input::Override,
                    "what is here takes the place of what the other devices have changed",
                )
                .await
            }
            Request::Revert { folder } => {
                self.tell(
                    &folder,
                    Input::Revert,
                    "what was changed here goes to history, and what the other devices have takes its place",
                )
                .await
            }
            Request::PairShow => self.pair_show(replies).await,
            Request::PairJoin { code } => self.pair_join(&code).await,
            Request::History { .. }
            | Request::HistoryPrune { .. }
            | Request::Restore { .. }
            | Request::Resolve { .. }
            | Request::Rewind { .. }
            | Request::Wait { .. } => self.answer_past(request).await,
            Request::Follow => self.follow(replies).await,
            Request::Stop => {
                self.stop.notify_one();
                Reply::Done { text: "stopping".into() }
            }
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
            Request::Problems => report::problems(home, &config, Some(&self.live())).map(Reply::Problems),
            Request::Conflicts => report::conflicts(home, &config, Some(&self.live())).map(Reply::Conflicts),
            Request::History { path } => {
                report::history(home, &config, &path.0, Some(&self.live())).map(Reply::History)
            }
            Request::HistoryUsage { folder } => {
                report::history_usage(home, &config, folder.as_deref(), Some(&self.live())).map(Reply::HistoryUsage)
            }
            Request::Events { count } => report::events(home, &config, count, Some(&self.live())).map(Reply::Events),
            request => report::status(home, &config, Some(&self.live())).map(|status| {
                let starting = !self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_started;
                part_of(&config, Status { starting, ..status }, &request)
            }),
        };
        reply.unwrap_or_else(|error| failed(format!("{error:#}")))
    }

    async fn reload(&self) -> Reply {
        // The last step of the start is to read the config once more.
        if !self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_started {
            return Reply::Done { text: "the config is read again when all folders have been opened".into() };
        }
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
        if let (Some(id), []) = (folder, &handles[..]) {
            return self.not_running(id);
        }
        handles.iter().for_each(|handle| handle.hints.request_full("asked for by the user"));
        Reply::Done { text: "scanning".into() }
    }

    async fn tell(&self, folder: &str, input: Input, text: &str) -> Reply {
        let Some(handle) = self.folder(folder) else { return self.not_running(folder) };
        match handle.inputs.send(Event::Input(input)).await {
            Ok(()) => Reply::Done { text: text.into() },
            Err(_) => failed("this folder is stopping".into()),
        }
    }

    fn not_running(&self, id: &str) -> Reply {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).not_running(id)
    }

    /// Events as they happen; ends only with the listener.
    async fn follow(&self, replies: Replies) -> Reply {
        let mut heard = self.feed.listen();
        let mut reply = Reply::Following {};
        while replies.send(reply).await.is_ok() {
            reply = match heard.recv().await {
                Ok(happened) => {
                    let config = self.config();
                    let label = config.folder(&happened.folder).map_or(happened.folder.as_str(), |f| &f.label);
                    Reply::Event(report::event(&config, label, happened.event.clone()))
                }
                Err(RecvError::Lagged(count)) => Reply::Missed { count },
                Err(RecvError::Closed) => return failed("the agent is stopping".into()),
            };
        }
        failed("cancelled".into())
    }

    /// Folders that a new peer will share at once.
    fn open_folders(&self) -> Vec<(FolderId, String)> {
        let config = self.config();
        let all = config.folders.iter().filter(|f| f.peers == config::Sharing::All);
        all.map(|f| (f.id.clone(), f.label.clone())).collect()
    }

    async fn pair_show(&self, replies: Replies) -> Reply {
        let showing = self.links.show_code(self.open_folders());
        let (code, words, link) = (showing.code(), showing.words(), showing.link());
        let shown = Reply::PairCode { code, valid_seconds: showing.valid_seconds(), words, link };
        if replies.send(shown).await.is_err() {
            return failed("cancelled".into());
        }
        match showing.wait().await {
            Ok(paired) => self.add_paired(paired, Vec::new()).await,
            Err(error) => failed(in_words(error)),
        }
    }

    async fn pair_join(&self, code: &str) -> Reply {
        match self.links.join_code(code, self.open_folders()).await {
            Ok(Joined { paired, address }) => self.add_paired(paired, address.into_iter().collect()).await,
            Err(error) => failed(in_words(error)),
        }
    }

    /// `addresses`: where the device was reached, if it might not be found there again by itself.
    async fn add_paired(&self, paired: Paired, addresses: Vec<SocketAddr>) -> Reply {
        failpoint::hit("pairing.agreed");
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let new = NewPeer { id: paired.device, name: Some(paired.name.clone()), addresses };
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
        self.notices.tell(Kind::Paired, &name);
        let (here, offered): (Vec<_>, Vec<_>) =
            paired.folders.into_iter().partition(|(id, _)| config.folder(id).is_some());
        let (home, asked, device) = (self.home.clone(), config.clone(), paired.device);
        let offered_here = here.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        // What it had before is a courtesy: pairing has worked without it.
        let again = tokio::task::spawn_blocking(move || again::folders(&home, &asked, &device, &offered_here)).await;
        let is_shared = |id: &FolderId| config.folder(id).is_some_and(|f| config.shares(f, &paired.device));
        // As it is called here, for that is what commands know.
        let label = |id: FolderId| config.folder(&id).map(|folder| folder.label.clone());
        let folders = here.into_iter().filter(|(id, _)| is_shared(id)).filter_map(|(id, _)| label(id)).collect();
        let offers = offered.into_iter().map(|(id, label)| FolderOffer { id: id.to_string(), label }).collect();
        let again = again.unwrap_or_default();
        Reply::Paired { device_id: paired.device.to_string(), name, folders, offers, again }
    }
}

impl Handler for Control {
    fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(self.answer(request, replies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_folder_does_not_run_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"), dir.path().to_owned());
        for id in ["late", "paused"] {
            let (path, id) = (dir.path().join(id), id.parse::<FolderId>().unwrap());
            let folder = config::NewFolder { label: id.to_string(), id, path, peers: config::Sharing::All };
            config::add_folder(&home, &folder).unwrap();
        }
        let config = Arc::new(config::set_pause(&home, &["paused".parse().unwrap()], config::Pause::Open).unwrap());
        let (folders, failures) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = Seen { config, folders, failures, is_started: false, resting: None };
        assert!(matches!(seen.not_running("late"), Reply::Starting { .. }));
        assert!(matches!(seen.not_running("other"), Reply::Missing { .. }));
        assert!(matches!(seen.not_running("paused"), Reply::Error { text } if text.contains("resume")));
        seen.is_started = true;
        assert!(matches!(seen.not_running("late"), Reply::Error { text } if text.contains("status")));
        assert!(matches!(seen.not_running(""), Reply::Missing { .. }));
    }
}
