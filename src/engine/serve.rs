//! Gives peers the chunks and lists that they ask for.
//!
//! One task per peer answers its requests in their order, reading at most one frame ahead of what the link takes, so a
//! slow peer holds nothing up but itself. Disk work runs on blocking threads, a few at a time for all peers.
//!
//! Architecture invariant: only what the index announces in the very folder is served, and only while the file is what
//! the index says; besides what of a peer's entry in that folder has been fetched and verified. The answer to anything else is the same, whatever the reason.

mod content;

pub(super) use content::{Lists, one};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::link::LinkHandle;
use super::local::Local;
use super::shared::FolderHandle;
use crate::core::content::LIST_BYTES_MAX;
use crate::core::id::{DeviceId, FolderId};
use crate::fs::nearby::Nearby;
use crate::index::{IndexError, Reader};
use crate::net::NetError;
use crate::net::codec::{Encoded, encode};
use crate::net::frame::{Chunks, Frame, Request, WantedContent};
use crate::net::wire_chunks::encode_packed;

/// Bytes of one answer: small enough that control frames and other answers get their turn.
const ANSWER_BYTES: usize = 256 * 1024;
/// Requests of one peer that wait: those of several folders at once.
const REQUESTS_WAITING_MAX: usize = 256;
/// Memory in bytes that one peer's waiting requests take at most.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an item of a request takes without its path.
const ITEM_BYTES: usize = 96;
/// Answers read from disk at the same time, for all peers.
const READS_MAX: usize = 4;
/// Frames that one reader reads before others get its turn, where the link takes them as fast as that.
const FRAMES_AT_ONCE_MAX: usize = 16;
/// Connections to one folder's index that are kept for the next answer.
const READERS_KEPT_MAX: usize = 2;
/// Links that take fewer bytes per second get contents compressed; one core compresses several times as many.
const COMPRESS_BELOW: u64 = 64 * 1024 * 1024;

/// Serves all folders to all peers.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    runtime: Handle,
    disk: Semaphore,
    readers: Mutex<HashMap<FolderId, Vec<Kept>>>,
    lines: Mutex<BTreeMap<DeviceId, Line>>,
}

/// What one answer leaves for the next in the same folder. Lists never change, so they may stay.
struct Kept {
    reader: Reader,
    lists: Lists,
}

impl Kept {
    fn open(folder: &FolderHandle) -> Result<Self, IndexError> {
        Ok(Self { reader: Reader::open(&folder.index_path)?, lists: Lists::default() })
    }
}

/// The requests of one peer.
struct Line {
    requests: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    /// For each folder on the peer's link a mark that is set when the folder leaves it.
    left: BTreeMap<FolderId, Arc<AtomicBool>>,
    task: JoinHandle<()>,
}

struct Waiting {
    folder: FolderHandle,
    link: LinkHandle,
    request: Request,
    bytes: usize,
    /// The folder has left the link: it may no longer be shared with the peer.
    left: Arc<AtomicBool>,
}

impl Server {
    /// Serves on the runtime's threads.
    pub fn new(runtime: Handle) -> Self {
        let (readers, lines) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { runtime, disk: Semaphore::new(READS_MAX), readers, lines }))
    }

    /// Takes the request of a peer that the folder is shared with. Never waits: what is too much at once is answered
    /// as not here. False where the peer does not even take that in: its link should be closed.
    pub fn request(&self, folder: &FolderHandle, peer: DeviceId, request: Request) -> bool {
        // Without a link there is nobody to answer.
        let Some(link) = link_to(folder, peer) else { return true };
        let bytes = bytes_of(&request);
        let waiting = Waiting { folder: folder.clone(), link, request, bytes, left: Arc::default() };
        let Some(Waiting { link, request, .. }) = self.enqueue(peer, waiting) else { return true };
        tracing::debug!(folder = %folder.label, peer = %peer.short(), "a peer asks for too much at once");
        let items = (0..).zip(&request.items).map(|(at, _)| at).collect();
        link.outbox.control(&Frame::NotHere { request: request.id, items }).is_ok()
    }

    /// Forgets a folder that has stopped.
    pub fn forget_folder(&self, folder: &FolderId) {
        lock(&self.0.readers).remove(folder);
    }

    /// A folder has left a peer's link, or the link is gone: what was asked for there is no longer read.
    pub fn link_down(&self, peer: DeviceId, folder: &FolderId) {
        let mut lines = lock(&self.0.lines);
        let Some(line) = lines.get_mut(&peer) else { return };
        if let Some(left) = line.left.remove(folder) {
            left.store(true, Ordering::Relaxed);
        }
        // One that is still busy stays: a peer that leaves and comes back in a loop shall not get one after the other.
        if line.left.is_empty() && line.bytes.load(Ordering::Relaxed) == 0 {
            lines.remove(&peer);
        }
    }

    /// Ends all serving.
    pub async fn stop(&self) {
        let lines = std::mem::take(&mut *lock(&self.0.lines));
        for line in lines.into_values() {
            line.task.abort();
            // An aborted task says nothing but that.
            let _ = line.task.await;
        }
    }

    /// Gives back what does not fit.
    fn enqueue(&self, peer: DeviceId, mut waiting: Waiting) -> Option<Waiting> {
        let mut lines = lock(&self.0.lines);
        let line = lines.entry(peer).or_insert_with(|| self.start_line());
        waiting.left = line.left.entry(waiting.folder.id.clone()).or_default().clone();
        let bytes = waiting.bytes;
        if line.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES_MAX {
            match line.requests.try_send(waiting) {
                Ok(()) => return None,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    line.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    return Some(back);
                }
            }
        }
        line.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(waiting)
    }

    fn start_line(&self) -> Line {
        let (requests, mut inbox) = mpsc::channel::<Waiting>(REQUESTS_WAITING_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        let (inner, count) = (self.0.clone(), bytes.clone());
        let task = self.0.runtime.spawn(async move {
            while let Some(waiting) = inbox.recv().await {
                let taken = waiting.bytes;
                if let Err(error) = inner.answer(waiting).await {
                    tracing::debug!(%error, "a request was not answered");
                }
                count.fetch_sub(taken, Ordering::Relaxed);
            }
        });
        Line { requests, bytes, left: BTreeMap::new(), task }
    }
}

impl Inner {
    async fn answer(self: &Arc<Self>, waiting: Waiting) -> Result<(), NetError> {
        let mut turn = Turn::new(waiting);
        while turn.from < turn.items.len() {
            if !turn.is_wanted() {
                return Ok(());
            }
            let Ok(permit) = self.disk.acquire().await else { return Err(NetError::Closed) };
            let inner = self.clone();
            let read = tokio::task::spawn_blocking(move || {
                let unsent = inner.read(&mut turn);
                (unsent, turn)
            });
            // A reader that panicked has told so; its peer finds the link closed.
            let (unsent, back) = read.await.map_err(|_| NetError::Closed)?;
            turn = back;
            drop(permit);
            for frame in unsent? {
                turn.link.outbox.bulk(frame).await?;
            }
        }
        Ok(())
    }

    /// Reads what was asked for and queues it, frame by frame, as long as the link takes more. Gives back what it
    /// did not take.
    fn read(&self, turn: &mut Turn) -> Result<Vec<Encoded>, NetError> {
        let folder = turn.folder.clone();
        let kept = lock(&self.readers).get_mut(&folder.id).and_then(Vec::pop);
        let kept = kept.filter(|kept| kept.reader.path() == folder.index_path);
        let mut kept = kept.map_or_else(|| Kept::open(&folder), Ok);
        let unsent = match (&mut kept, folder.root.open()) {
            (Ok(Kept { reader, lists }), Ok(root)) => {
                let local = Local { folder: &folder, near: &Nearby::new(&root), reader };
                reader.in_one_view(|| turn.fill(&local, lists))
            }
            (kept, root) => {
                let (index, disk) = (kept.as_ref().err(), root.err());
                tracing::debug!(folder = %folder.label, ?index, ?disk, "nothing can be served");
                let items = (turn.from..turn.items.len()).map(|at| at as u16).collect();
                turn.from = turn.items.len();
                encode(&Frame::NotHere { request: turn.id, items }).map(|frame| vec![frame]).map_err(NetError::from)
            }
        };
        if let Ok(kept) = kept {
            let mut readers = lock(&self.readers);
            let idle = readers.entry(folder.id.clone()).or_default();
            if idle.len() < READERS_KEPT_MAX && !folder.stop.load(Ordering::Relaxed) {
                idle.push(kept);
            }
        }
        unsent
    }
}

/// A request while it is answered.
struct Turn {
    folder: FolderHandle,
    link: LinkHandle,
    left: Arc<AtomicBool>,
    id: u32,
    items: Vec<WantedContent>,
    /// The first item that is not answered yet.
    from: usize,
    /// Compressing has not helped; what was asked for together is mostly of one sort.
    is_dense: bool,
}

impl Turn {
    fn new(waiting: Waiting) -> Self {
        let Waiting { folder, link, request, left, .. } = waiting;
        Self { folder, link, left, id: request.id, items: request.items, from: 0, is_dense: false }
    }

    /// True where the peer can still have what it asked for.
    fn is_wanted(&self) -> bool {
        let is_current = link_to(&self.folder, self.link.peer).is_some_and(|current| current.is_same_link(&self.link));
        is_current && !self.left.load(Ordering::Relaxed)
    }

    fn fill(&mut self, local: &Local, lists: &mut Lists) -> Result<Vec<Encoded>, NetError> {
        for _ in 0..FRAMES_AT_ONCE_MAX {
            if self.from >= self.items.len() || !self.is_wanted() {
                break;
            }
            let answer = fill(local, &self.items, self.from, lists);
            self.from = answer.upto;
            let mut frames = VecDeque::new();
            if !answer.chunks.is_empty() {
                let bytes: usize = answer.chunks.iter().map(|(_, bytes)| bytes.len()).sum();
                self.folder.live.flow.sent(self.link.peer, bytes as u64, self.folder.clock.instant());
                frames.push_back(self.encode(Chunks { request: self.id, items: answer.chunks })?);
            }
            if !answer.not_here.is_empty() {
                frames.push_back(encode(&Frame::NotHere { request: self.id, items: answer.not_here })?);
            }
            while let Some(frame) = frames.pop_front() {
                if let Some(unsent) = self.link.outbox.bulk_now(frame)? {
                    frames.push_front(unsent);
                    return Ok(frames.into());
                }
            }
        }
        Ok(Vec::new())
    }

    /// The frame, compressed where the link is slower than that and it helps.
    fn encode(&mut self, chunks: Chunks) -> Result<Encoded, NetError> {
        if self.is_dense || !is_slow(&self.link) {
            return Ok(encode(&Frame::Chunks(chunks))?);
        }
        match encode_packed(&chunks)? {
            Some(packed) => Ok(packed),
            None => {
                self.is_dense = true;
                Ok(encode(&Frame::Chunks(chunks))?)
            }
        }
    }
}

/// True where compressing takes less time than it saves.
fn is_slow(link: &LinkHandle) -> bool {
    let measured = link.outbox.flow().per_second();
    let cap = link.pace.upload.rate();
    measured.into_iter().chain(cap).min().is_some_and(|rate| rate < COMPRESS_BELOW)
}

/// One frame full of answers.
#[derive(Default)]
struct Answer {
    chunks: Vec<(u16, Bytes)>,
    not_here: Vec<u16>,
    /// The first item that is not answered yet.
    upto: usize,
}

fn fill(local: &Local, items: &[WantedContent], from: usize, lists: &mut Lists) -> Answer {
    let mut answer = Answer { upto: from, ..Answer::default() };
    let mut filled = 0;
    for (at, wanted) in (0u16..).zip(items).skip(from) {
        let expected = if wanted.content.depth == 0 { wanted.content.size as usize } else { LIST_BYTES_MAX };
        if filled > 0 && filled + expected > ANSWER_BYTES {
            break;
        }
        match one(local, wanted, lists) {
            Some(bytes) => {
                filled += bytes.len();
                answer.chunks.push((at, bytes.into()));
            }
            None => answer.not_here.push(at),
        }
        answer.upto += 1;
    }
    answer
}

fn link_to(folder: &FolderHandle, peer: DeviceId) -> Option<LinkHandle> {
    folder.links.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
}

fn bytes_of(request: &Request) -> usize {
    let path = |item: &WantedContent| item.hint.as_ref().map_or(0, |(path, _)| path.as_bytes().len());
    request.items.iter().map(|item| ITEM_BYTES + path(item)).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
