//! Starting and stopping one folder: its state machine, its threads, and the ports that links deliver to.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::clock::Clock;
use super::fetch::Fetcher;
use super::folder::{self, Channels, Driver};
use super::link::LinkTable;
use super::links::FolderPorts;
use super::serve::Server;
use super::shared::{Event, FolderHandle, INPUTS_QUEUED_MAX, Order, Shared};
use super::{apply, retention, scan, start};
use crate::config;
use crate::core::id::RunId;
use crate::fs::root::Root;
use crate::index::IndexError;
use crate::net::random_bytes;
use crate::sync::{Input, Settings};

/// What it takes to start a folder.
pub struct StartFolder {
    pub folder: config::Folder,
    pub settings: Settings,
    pub index_path: PathBuf,
    /// Time between full scans.
    pub rescan: Duration,
    pub history_days: u32,
    pub links: LinkTable,
    pub server: Server,
    pub orders: mpsc::Sender<Order>,
}

/// A folder whose threads run.
pub struct Running {
    handle: FolderHandle,
    fetcher: Fetcher,
    server: Server,
    main: JoinHandle<Result<(), IndexError>>,
    others: Vec<JoinHandle<()>>,
}

impl Running {
    /// Opens the index and starts the threads. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Where the folder's directory or index can't be used at all. A folder that was there before and is not now
    /// starts halted instead.
    pub fn start(order: StartFolder) -> anyhow::Result<Self> {
        let path = order.folder.path.clone();
        let root = Root::new(path.clone(), order.folder.id.clone());
        if order.index_path.exists() && start::is_of_another_place(&order.index_path, &root) {
            let aside = start::set_aside(&order.index_path, "elsewhere").context("cannot set the old index aside")?;
            tracing::info!(folder = %order.folder.label, aside = %aside.display(), "the folder is in another place now and starts anew there");
        }
        // An index without its folder means that a disk is missing: then nothing is made in its place.
        if !order.index_path.exists() {
            root.create().with_context(|| format!("cannot make {} a synced folder", path.display()))?;
        }
        if let Some(directory) = order.index_path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let index = start::open_index(&order.index_path)?;
        let (sender, inputs) = mpsc::channel(INPUTS_QUEUED_MAX);
        let device = order.settings.device;
        let mut shared = Shared::new(order.folder.id.clone(), root, device, sender, Clock::system());
        shared.label = order.folder.label.clone();
        shared.index_path = order.index_path.clone();
        shared.links = order.links;
        let run = RunId(u64::from_le_bytes(random_bytes()));
        let (handle, machine, desk) = start::begin(shared, index, order.settings, run, &start::boot())?;
        let (actions, ordered) = std_mpsc::channel();
        let (fetcher, mut others) = Fetcher::spawn(handle.clone())?;
        let (runtime, fetches) = (Handle::current(), fetcher.clone());
        let channels = Channels { handle: handle.clone(), actions, fetcher: fetches, runtime };
        let main = folder::spawn(Driver::new(machine, desk, inputs, channels), order.orders)?;
        others.push(apply::spawn(handle.clone(), ordered));
        others.push(retention::spawn(handle.clone(), order.history_days)?);
        others.extend(scan::spawn(handle.clone(), order.rescan));
        Ok(Self { handle, fetcher, server: order.server, main, others })
    }

    pub fn handle(&self) -> FolderHandle {
        self.handle.clone()
    }

    pub fn path(&self) -> &Path {
        self.handle.root.path()
    }

    /// Gives the folder an input.
    pub async fn tell(&self, input: Input) {
        let _ = self.handle.inputs.send(Event::Input(input)).await;
    }

    /// Where links deliver what peers send about this folder.
    pub fn ports(&self) -> FolderPorts {
        let (serve, handle) = (self.server.clone(), self.handle.clone());
        let (gone, id) = (self.server.clone(), self.handle.id.clone());
        let fetcher = || self.fetcher.clone();
        let (chunks, not_here, expects) = (fetcher(), fetcher(), fetcher());
        let (up, down) = (fetcher(), fetcher());
        FolderPorts {
            inputs: self.handle.inputs.clone(),
            serve: Arc::new(move |peer, request| serve.request(&handle, peer, request)),
            chunks: Arc::new(move |peer, frame| chunks.chunks(peer, frame)),
            not_here: Arc::new(move |peer, request, items| not_here.not_here(peer, request, &items)),
            expects: Arc::new(move |peer, request| expects.expects(peer, request)),
            link_up: Arc::new(move |peer| up.link_up(peer)),
            link_down: Arc::new(move |peer| {
                down.link_down(peer);
                gone.link_down(peer, &id);
            }),
        }
    }

    /// Ends all threads; says why, where the folder had failed.
    pub async fn stop(self) -> Option<String> {
        self.handle.stop.store(true, Ordering::Relaxed);
        self.handle.hints.wake();
        self.fetcher.wake();
        self.others.iter().for_each(|thread| thread.thread().unpark());
        let _ = self.handle.inputs.send(Event::Stop).await;
        self.server.forget_folder(&self.handle.id);
        let joined = tokio::task::spawn_blocking(move || {
            let result = self.main.join();
            for thread in self.others {
                let _ = thread.join();
            }
            result
        });
        match joined.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error.to_string()),
            _ => Some("a thread of the folder ended unexpectedly".into()),
        }
    }
}
