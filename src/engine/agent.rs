//! The agent: what `p2psync run` starts, keeps in step with its config, and stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::browser_port::BrowserPort;
use super::clock::Clock;
use super::control::Control;
use super::feed::Feed;
use super::links::{LinkConfig, LinkFolder, LinkPeer, LinkTable, Links};
use super::manager;
use super::manners;
use super::notices::{Kind, Notices};
use super::running::{Running, StartFolder};
use super::serve::Server;
use super::shared::Order;
use crate::api;
use crate::config::{self, Config};
use crate::core::guard::GuardLimits;
use crate::core::id::{DeviceId, FolderId};
use crate::failpoint;
use crate::home::{Home, Lock};
use crate::net::identity::Identity;
use crate::sync::{Input, Settings};

/// Orders that wait for the agent's loop.
const ORDERS_QUEUED_MAX: usize = 64;
/// A folder that failed is started anew after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(5);
/// How long an orderly stop may take before the process ends all the same; nothing is lost then.
const STOP_TIME: Duration = Duration::from_millis(900);
/// How long blocking work that is still under way after that is waited for.
const LEFT_OVER_TIME: Duration = Duration::from_millis(100);
/// Worker threads for sockets and timers; disk work has threads of its own.
const WORKER_THREADS: usize = 2;

/// The id of this device; makes its identity where there is none.
pub fn device_id(home: &Home) -> anyhow::Result<DeviceId> {
    home.create()?;
    Ok(Identity::load_or_create(&home.identity_file())?.device_id())
}

/// Runs until it is told to stop. The config file exists and the lock is held.
pub fn run(home: Home, lock: Lock) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    let result = runtime.block_on(main(home));
    runtime.shutdown_timeout(LEFT_OVER_TIME);
    drop(lock);
    result
}

async fn main(home: Home) -> anyhow::Result<()> {
    // First of all: whoever asks from now on is answered, if only as soon as the handler is there.
    let listener = api::bind(&home)?;
    let identity = Arc::new(Identity::load_or_create(&home.identity_file())?);
    config::clear_leftovers(&home);
    let config = config::load(&home)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let table = LinkTable::default();
    let links = Links::start(link_config(&config, |folder| !folder.paused), identity.clone(), table.clone()).await?;
    tracing::info!(address = %links.address(), "listening for other devices");
    let (orders, mut inbox) = mpsc::channel(ORDERS_QUEUED_MAX);
    let mut agent = Agent::new(home, config, identity.device_id(), (links, table), orders);
    let control = agent.control.clone();
    let mut serving = JoinSet::new();
    serving.spawn(api::serve(listener, control.clone()));
    let worked = tokio::select! {
        _ = control.stop_wanted() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        worked = agent.work(&mut inbox, &mut hang_up) => worked,
    };
    tracing::info!("stopping");
    manager::stopping();
    agent.stop().await;
    // Only now, so that whoever asked for the stop has been answered.
    serving.shutdown().await;
    worked
}

struct Agent {
    home: Home,
    config: Arc<Config>,
    device: DeviceId,
    links: Arc<Links>,
    table: LinkTable,
    server: Server,
    folders: BTreeMap<FolderId, Running>,
    control: Arc<Control>,
    feed: Feed,
    browser_port: BrowserPort,
    orders: mpsc::Sender<Order>,
    notices: Notices,
    /// Why nothing is synced at all for now.
    resting: Option<String>,
}

impl Agent {
    fn new(
        home: Home,
        config: Config,
        device: DeviceId,
        (links, table): (Links, LinkTable),
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let (config, links) = (Arc::new(config), Arc::new(links));
        let (feed, notices) = (Feed::default(), Notices::default());
        let told = notices.clone();
        links.on_stranger(move |id, address| {
            let text = format!(
                "It says it is {} and comes from {}. If it is yours, type 'p2psync pair' on both.",
                id.short(),
                address.ip()
            );
            told.tell(Kind::Stranger, &text);
        });
        let control =
            Control::new(home.clone(), config.clone(), links.clone(), orders.clone(), (feed.clone(), notices.clone()));
        let control = Arc::new(control);
        let server = Server::new(tokio::runtime::Handle::current());
        let (folders, browser_port, resting) = (BTreeMap::new(), BrowserPort::default(), None);
        Self {
            home,
            config,
            device,
            links,
            table,
            server,
            folders,
            control,
            feed,
            browser_port,
            orders,
            notices,
            resting,
        }
    }

    /// Starts all there is and carries out orders until one says to stop. May be dropped at any await, as a crash may
    /// come at any moment: whoever wants the agent to stop does not wait for a folder that is slow to start.
    async fn work(&mut self, inbox: &mut mpsc::Receiver<Order>, hang_up: &mut Signal) -> anyhow::Result<()> {
        let _heartbeat = manager::ready();
        self.open_browser_port().await;
        self.attend().await;
        self.control.set_started();
        let watch = super::config_watch::start(&self.home.config_file(), self.orders.clone());
        if let Err(error) = &watch {
            tracing::warn!(%error, "changes of the config file by hand are noticed only at the next start");
        }
        // It may have changed since it was read, before the watch began.
        self.obey(Order::ConfigChanged).await;
        loop {
            let look = manners::next_look(&self.config, now_ms());
            tokio::select! {
                _ = hang_up.recv() => self.obey(Order::ConfigChanged).await,
                () = tokio::time::sleep(look.unwrap_or_default()), if look.is_some() => self.attend().await,
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Reload(answer) => {
                let result = self.reload().await;
                if let Err(error) = &result {
                    tracing::error!("{error:#}");
                }
                let _ = answer.send(result.map_err(|e| format!("{e:#}")));
            }
            Order::ConfigChanged => drop(self.reload().await.inspect_err(|error| tracing::error!("{error:#}"))),
            Order::Failed(id) => self.folder_failed(id).await,
            Order::Restart(id) => self.start_missing(Some(&id)).await,
        }
    }

    /// Brings what runs in line with the config, the time and the machine.
    async fn attend(&mut self) {
        let resting = manners::resting(&self.config).await;
        if resting != self.resting {
            tracing::info!("{}", resting.as_deref().unwrap_or("going on"));
            self.resting = resting;
        }
        self.notices.set_on(self.config.manners.notifications);
        let caps = |caps: config::Caps| (caps.upload_bytes_s, caps.download_bytes_s);
        let own = self.config.peers.iter().filter_map(|peer| Some((peer.id, caps(peer.caps?)))).collect();
        self.links.set_caps(caps(manners::caps(&self.config)), &own);
        let gone: Vec<FolderId> =
            self.folders.iter().filter(|(id, r)| !self.keeps_running(id, r)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.links.remove_folder(&id);
            if let Some(running) = self.folders.remove(&id) {
                running.stop().await;
            }
        }
        self.links.set_config(link_config(&self.config, |folder| self.may_run(folder)));
        self.start_missing(None).await;
    }

    fn may_run(&self, folder: &config::Folder) -> bool {
        self.resting.is_none() && !folder.is_paused(now_ms())
    }

    /// True where a folder goes on under the config as it is.
    fn keeps_running(&self, id: &FolderId, running: &Running) -> bool {
        self.config.folder(id).is_some_and(|f| self.may_run(f) && f.path == running.path())
    }

    /// Starts the folders of the config that should run and don't.
    async fn start_missing(&mut self, only: Option<&FolderId>) {
        let config = self.config.clone();
        for folder in config.folders.iter().filter(|f| only.is_none_or(|id| *id == f.id)) {
            if self.folders.contains_key(&folder.id) || !self.may_run(folder) {
                continue;
            }
            let start = StartFolder {
                folder: folder.clone(),
                settings: settings(&config, folder, self.device),
                index_path: self.home.index_file(&folder.id),
                rescan: config.sync.rescan,
                history_days: config.sync.history_days,
                gentle_scans: config.manners.gentle_scans,
                notices: self.notices.clone(),
                history_max: config.sync.history_max,
                links: self.table.clone(),
                server: self.server.clone(),
                orders: self.orders.clone(),
                feed: self.feed.clone(),
            };
            match tokio::task::spawn_blocking(move || Running::start(start)).await {
                Ok(Ok(running)) => {
                    self.links.add_folder(folder.id.clone(), running.ports());
                    self.folders.insert(folder.id.clone(), running);
                    self.publish();
                }
                Ok(Err(error)) => {
                    tracing::error!(folder = %folder.label, "the folder cannot be used: {error:#}; it is tried again");
                    self.control.set_failure(&folder.id, Some(failure(&format!("{error:#}"))));
                    self.restart_later(folder.id.clone());
                }
                Err(error) => tracing::error!(%error, "a folder could not be started"),
            }
        }
        self.publish();
    }

    async fn open_browser_port(&mut self) {
        let port = self.config.api.browser_port;
        self.browser_port.set(port, &self.home, self.control.clone()).await;
    }

    fn restart_later(&self, id: FolderId) {
        let orders = self.orders.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RESTART_PAUSE).await;
            let _ = orders.send(Order::Restart(id)).await;
        });
    }

    async fn folder_failed(&mut self, id: FolderId) {
        if let Some(running) = self.folders.remove(&id) {
            self.links.remove_folder(&id);
            let error = running.stop().await;
            self.control.set_failure(&id, Some(failure(error.as_deref().unwrap_or("it stopped by itself"))));
            self.publish();
            self.restart_later(id);
        }
    }

    /// Takes over a changed config; on a mistake in it everything stays as it is.
    async fn reload(&mut self) -> anyhow::Result<()> {
        // An editor that is just saving may have emptied it; a device does not forget all it has because of that.
        let is_empty = std::fs::metadata(self.home.config_file()).is_ok_and(|m| m.len() == 0);
        anyhow::ensure!(!is_empty, "the config file is empty; everything stays as it was");
        let config =
            config::load(&self.home).context("the config file is not taken over; everything stays as it was")?;
        if config == *self.config {
            self.open_browser_port().await;
            return Ok(());
        }
        self.config = Arc::new(config);
        self.open_browser_port().await;
        for (id, running) in &self.folders {
            if let Some(folder) = self.config.folder(id).filter(|_| self.keeps_running(id, running)) {
                running.tell(Input::Settings(settings(&self.config, folder, self.device))).await;
                running.handle().gentle_scans.store(self.config.manners.gentle_scans, Ordering::Relaxed);
                running.select(folder.only.clone()).await;
            }
        }
        failpoint::hit("config.reloading");
        self.attend().await;
        failpoint::hit("config.reloaded");
        tracing::info!("the config file was read again");
        Ok(())
    }

    /// Lets commands see what runs now.
    fn publish(&self) {
        let handles = self.folders.iter().map(|(id, running)| (id.clone(), running.handle())).collect();
        self.control.publish(self.config.clone(), handles, self.resting.clone());
    }

    async fn stop(self) {
        let mut stopping = JoinSet::new();
        for (id, running) in self.folders {
            self.links.remove_folder(&id);
            stopping.spawn(running.stop());
        }
        let all = async { while stopping.join_next().await.is_some() {} };
        // Who is late ends with the process.
        let _ = tokio::time::timeout(STOP_TIME, all).await;
        self.links.stop().await;
        self.server.stop().await;
    }
}

/// What `status` says of a folder that does not run, with what becomes of it.
fn failure(error: &str) -> String {
    format!("{error}; it is tried again every {} seconds", RESTART_PAUSE.as_secs())
}

fn now_ms() -> i64 {
    Clock::system().wall_ms()
}

fn settings(config: &Config, folder: &config::Folder, device: DeviceId) -> Settings {
    Settings {
        device,
        peers: config.peers.iter().map(|p| p.id).filter(|id| config.shares(folder, id)).collect(),
        guard: GuardLimits {
            entries_min: config.sync.hold_deletes_above,
            percent: u64::from(config.sync.hold_deletes_percent),
        },
        direction: folder.direction,
        reconcile_ms: u64::try_from(config.sync.reconcile.as_millis()).unwrap_or(u64::MAX),
    }
}

fn link_config(config: &Config, may_run: impl Fn(&config::Folder) -> bool) -> LinkConfig {
    let network = &config.network;
    let peers =
        config.peers.iter().map(|p| LinkPeer { id: p.id, name: p.name.clone(), addresses: p.addresses.clone() });
    let shared =
        |folder: &config::Folder| config.peers.iter().map(|p| p.id).filter(|id| config.shares(folder, id)).collect();
    let folders = config.folders.iter().filter(|f| may_run(f));
    LinkConfig {
        name: config.name.clone(),
        agent: concat!("p2psync ", env!("CARGO_PKG_VERSION")).into(),
        listen: network.listen,
        multicast: network.multicast,
        multicast_v4: network.multicast_v4,
        multicast_v6: network.multicast_v6,
        discovery_port: network.discovery_port,
        announce_to: network.announce_to.clone(),
        peers: peers.collect(),
        folders: folders.map(|f| LinkFolder { id: f.id.clone(), label: f.label.clone(), peers: shared(f) }).collect(),
    }
}
