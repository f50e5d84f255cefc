//! Starting and stopping one folder: its state machine, its threads, and the ports that links deliver to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::control::Order;
use super::fetch::Fetcher;
use super::folder::{self, Driver, Event, FolderHandle, INPUTS_QUEUED_MAX, Live, Shared};
use super::hints::Hints;
use super::links::{FolderPorts, LinkTable};
use super::serve::Server;
use super::{apply, recover, retention, scan};
use crate::config;
use crate::failpoint;
use crate::fs::root::Root;
use crate::fs::stage;
use crate::index::IndexError;
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
    pub fn start(start: StartFolder) -> anyhow::Result<Self> {
        let path = start.folder.path.clone();
        let root = Root::new(path.clone(), start.folder.id.clone());
        if start.index_path.exists() && folder::is_of_another_place(&start.index_path, &root) {
            let aside = folder::set_aside(&start.index_path, "elsewhere").context("cannot set the old index aside")?;
            tracing::info!(folder = %start.folder.label, aside = %aside.display(), "the folder is in another place now and starts anew there");
        }
        // An index without its folder means that a disk is missing: then nothing is made in its place.
        if !start.index_path.exists() {
            root.create().with_context(|| format!("cannot make {} a synced folder", path.display()))?;
        }
        if let Some(directory) = start.index_path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let (index, opened) = folder::open_index(&start.index_path, &path)?;
        let rules = folder::read_rules(&path);
        let (sender, inputs) = mpsc::channel(INPUTS_QUEUED_MAX);
        let handle = FolderHandle(Arc::new(Shared {
            id: start.folder.id.clone(),
            label: start.folder.label.clone(),
            root,
            device: start.settings.device,
            index_path: start.index_path.clone(),
            inputs: sender,
            rules: RwLock::new(Arc::new(rules.clone())),
            hints: Hints::default(),
            applying: Mutex::default(),
            suspicious_boot: AtomicBool::new(opened.is_suspicious),
            stop: AtomicBool::new(false),
            live: Live::default(),
            links: start.links,
        }));
        let mut machine = folder::state_machine(index, start.settings, rules)?;
        if let Ok(open) = handle.root.open() {
            stage::sweep(&open)?;
            // A lost index accounts for nothing that lies in history.
            if !opened.was_clean || !machine.index().state()?.scanned {
                let found = recover::recover(&open, machine.index());
                failpoint::hit("recover.found");
                machine.handle(Input::History { found, expired: Vec::new() }, super::clock::now())?;
                failpoint::hit("recover.noted");
            }
        }
        let (actions, ordered) = std_mpsc::channel();
        let (fetcher, mut others) = Fetcher::spawn(handle.clone())?;
        let driver = Driver::new(handle.clone(), machine, inputs, actions, fetcher.clone(), Handle::current());
        let main = folder::spawn(driver, start.orders)?;
        others.push(apply::spawn(handle.clone(), ordered));
        others.push(retention::spawn(handle.clone(), start.history_days)?);
        others.extend(scan::spawn(handle.clone(), start.rescan));
        Ok(Self { handle, fetcher, server: start.server, main, others })
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
