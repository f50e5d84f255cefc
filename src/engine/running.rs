//! Starting and stopping one folder: its state machine, its threads, and the ports that links deliver to.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::apply::Command;
use super::chatter::Chatter;
use super::clock::Clock;
use super::feed::Feed;
use super::fetch::Fetcher;
use super::folder::{self, Channels, Driver};
use super::link::LinkTable;
use super::links::FolderPorts;
use super::notices::Notices;
use super::retention::Limits;
use super::serve::Server;
use super::shared::{Event, FolderHandle, INPUTS_QUEUED_MAX, Order, Shared};
use super::{apply, elsewhere, retention, rules, scan, start};
use crate::config::{self, HistoryMax};
use crate::core::id::RunId;
use crate::core::selection::Selection;
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
    pub gentle_scans: bool,
    pub notices: Notices,
    pub history_max: HistoryMax,
    pub links: LinkTable,
    pub server: Server,
    pub orders: mpsc::Sender<Order>,
    pub feed: Feed,
}

/// A folder whose threads run.
pub struct Running {
    handle: FolderHandle,
    applier: std_mpsc::Sender<Command>,
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
        if order.index_path.exists()
            && let Some(why) = start::why_aside(&order.index_path, &root)
        {
            let aside = start::set_aside(&order.index_path, why).context("cannot set the old index aside")?;
            tracing::info!(folder = %order.folder.label, aside = %aside.display(), "another directory is in the folder's place now; it is taken as found");
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
        shared.notices = order.notices;
        shared.set_selection(order.folder.only.clone());
        shared.gentle_scans.store(order.gentle_scans, Ordering::Relaxed);
        shared.feed = order.feed;
        let run = RunId(u64::from_le_bytes(random_bytes()));
        let (handle, machine, desk) = start::begin(shared, index, order.settings, run, &start::boot())?;
        let (applier, commands) = std_mpsc::channel();
        let (fetcher, mut others) = Fetcher::spawn(handle.clone())?;
        handle.elsewhere.fetch_with(fetcher.clone());
        let (runtime, fetches) = (Handle::current(), fetcher.clone());
        let channels = Channels {
            handle: handle.clone(),
            applier: applier.clone(),
            fetcher: fetches,
            runtime,
            chatter: Chatter::default(),
        };
        let main = folder::spawn(Driver::new(machine, desk, inputs, channels), order.orders)?;
        others.push(apply::spawn(handle.clone(), commands));
        others.push(retention::spawn(
            handle.clone(),
            fetcher.clone(),
            Limits { days: order.history_days, max: order.history_max },
        )?);
        others.extend(scan::spawn(handle.clone(), order.rescan));
        Ok(Self { handle, applier, fetcher, server: order.server, main, others })
    }

    pub fn handle(&self) -> FolderHandle {
        self.handle.clone()
    }

    pub fn path(&self) -> &Path {
        self.handle.root.path()
    }

    /// Another part of the folder may be wanted from now on.
    pub async fn select(&self, only: Option<Selection>) {
        if !self.handle.set_selection(only) {
            return;
        }
        let handle = self.handle.clone();
        let read = tokio::task::spawn_blocking(move || rules::reload(&handle, None)).await;
        // Rules that can't be read now are read again with the next scan.
        if let Ok(Some(rules)) = read {
            self.tell(Input::Rules(Box::new(rules))).await;
        }
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
        let (up, down, have, lost) = (fetcher(), fetcher(), fetcher(), fetcher());
        let (asked, answered, given) = (self.handle.clone(), self.handle.clone(), self.handle.clone());
        FolderPorts {
            inputs: self.handle.inputs.clone(),
            serve: Arc::new(move |peer, request| serve.request(&handle, peer, request)),
            chunks: Arc::new(move |peer, frame| chunks.chunks(peer, frame)),
            not_here: Arc::new(move |peer, request, items| not_here.not_here(peer, request, &items)),
            have: Arc::new(move |peer, frame| have.have(peer, frame)),
            gift: Arc::new(move |peer, gift| {
                // What comes unasked counts for a cap here all the same: what is asked for waits the longer.
                if let Some(link) = given.links.read().unwrap_or_else(PoisonError::into_inner).get(&peer) {
                    let bytes = gift.contents.iter().map(|bytes| bytes.len() as u64).sum();
                    link.pace.download.spend(bytes, Instant::now());
                }
                given.gifts.take_in(peer, gift.contents);
            }),
            expects: Arc::new(move |peer, request| expects.expects(peer, request)),
            ask_past: Arc::new(move |peer, ask| elsewhere::answer(&asked, peer, ask)),
            past: Arc::new(move |peer, past| answered.elsewhere.take(peer, past)),
            lane_lost: Arc::new(move |peer| lost.lane_lost(peer)),
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
        let _ = self.applier.send(Command::Wake);
        self.others.iter().for_each(|thread| thread.thread().unpark());
        self.server.forget_folder(&self.handle.id);
        self.handle.readers.close();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.others {
                let _ = thread.join();
            }
            // The folder's thread goes last: what the others have done is to be in the index that is marked as clean.
            let _ = self.handle.inputs.blocking_send(Event::Stop);
            self.main.join()
        });
        match joined.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("{:#}", anyhow::Error::from(error))),
            _ => Some("a thread of the folder ended unexpectedly".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::time::Instant;

    use super::*;
    use crate::core::decide;
    use crate::core::id::{DeviceId, EpochId, FolderId};
    use crate::core::message::{Announced, Batch, Hello, Message};
    use crate::fs::history;
    use crate::index::Reader;

    const PATIENCE: Duration = Duration::from_secs(30);
    const POLL: Duration = Duration::from_millis(1);
    const FILES: usize = 400;
    const PEER: DeviceId = DeviceId([2; 32]);
    const PEERS_EPOCH: EpochId = EpochId(2);

    fn start(dir: &Path) -> StartFolder {
        let id: FolderId = "test".parse().unwrap();
        let (path, peers) = (dir.join("folder"), config::Sharing::All);
        StartFolder {
            folder: config::Folder::new(id, path, peers),
            settings: Settings { device: DeviceId([1; 32]), peers: [PEER].into(), ..Settings::default() },
            index_path: dir.join("index.db"),
            rescan: Duration::from_secs(3600),
            history_days: 30,
            gentle_scans: true,
            notices: Notices::default(),
            history_max: HistoryMax::Percent(100),
            links: LinkTable::default(),
            server: Server::new(Handle::current()),
            orders: mpsc::channel(1).0,
            feed: Feed::default(),
        }
    }

    async fn wait(what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come");
            tokio::time::sleep(POLL).await;
        }
    }

    fn slots(root: &Root) -> Vec<crate::core::path::RelPath> {
        let mut all = Vec::new();
        let sink = &mut |batch: Vec<crate::fs::walk::Seen>| {
            all.extend(batch.into_iter().map(|seen| seen.path));
            ControlFlow::Continue(())
        };
        history::slots(&root.open().unwrap(), sink).unwrap();
        all
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_orderly_stop_in_the_middle_of_work_leaves_nothing_in_history_that_the_index_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        for n in 0..FILES {
            std::fs::write(dir.path().join("folder").join(n.to_string()), n.to_string()).unwrap();
        }
        let order = start(dir.path());
        let running = tokio::task::spawn_blocking(move || Running::start(order)).await.unwrap().unwrap();
        let reader = Reader::open(&dir.path().join("index.db")).unwrap();
        wait("the first scan", || reader.state().unwrap().scanned).await;
        let records = reader.records_from(None, None, FILES).unwrap();
        let deleted = (1u64..).zip(records).map(|(seq, record)| Announced {
            entry: decide::deleted(&record.entry, PEERS_EPOCH, seq),
            seq,
            held: true,
        });
        let (epoch, run, last_seq) = (PEERS_EPOCH, RunId(2), FILES as u64);
        let hello = Hello { epoch, run, last_seq, found: Vec::new(), cursor: None };
        let batch = Batch { epoch, run, entries: deleted.collect(), upto: last_seq, more: false };
        running.tell(Input::Connected(PEER)).await;
        running.tell(Input::Message(PEER, Message::Hello(hello))).await;
        running.tell(Input::Message(PEER, Message::Index(batch))).await;
        let root = running.handle().root.clone();
        wait("the first deletion", || !slots(&root).is_empty()).await;
        assert_eq!(running.stop().await, None);
        assert!(reader.state().unwrap().clean);
        let known = reader.history_from(None, FILES).unwrap();
        assert!(known.iter().map(|row| &row.slot).eq(slots(&root).iter()), "{} are known", known.len());
    }
}
