//! Devices in one process that fetch from each other, over real queues and encoded frames.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::Fetcher;
use crate::core::action::WorkId;
use crate::core::content::{ChunkList, Content, ContentId};
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, Kind, Meta};
use crate::core::id::{DeviceId, EpochId, FolderId};
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::core::version::VersionVector;
use crate::engine::folder::{Event, FolderHandle, Live, Shared};
use crate::engine::links::LinkHandle;
use crate::engine::serve::Server;
use crate::fs::read::{ReadOutcome, examine};
use crate::fs::root::Root;
use crate::fs::stage::{self, StagedFile};
use crate::index::{HistoryRow, Index, Mark};
use crate::net::connection::{FrameReader, FrameWriter};
use crate::net::frame::{DeviceHello, Frame, Request, WantedContent};
use crate::net::outbox::{outbox, write_loop};
use crate::sync::{FetchError, FetchOrder, Input, Staged};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Later than anything a test does, so that no look is racy.
const LATER_NS: i64 = i64::MAX / 2;

/// What happens to a frame on its way; `None` loses it.
type Wire = Box<dyn FnMut(Frame) -> Option<Frame> + Send>;

/// One device with one folder.
struct Device {
    id: DeviceId,
    runtime: Arc<Runtime>,
    dir: tempfile::TempDir,
    folder: FolderHandle,
    index: Index,
    inputs: mpsc::Receiver<Event>,
    fetcher: Fetcher,
    server: Server,
    threads: Vec<JoinHandle<()>>,
    /// What peers were asked for.
    asked: Arc<Mutex<Vec<Content>>>,
    results: BTreeMap<WorkId, Result<Staged, FetchError>>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.folder.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

fn devices<const N: usize>() -> [Device; N] {
    let runtime = runtime();
    std::array::from_fn(|n| Device::new(n as u8 + 1, runtime.clone()))
}

impl Device {
    fn new(number: u8, runtime: Arc<Runtime>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder_id: FolderId = "test".parse().unwrap();
        let root = Root::new(dir.path().join("folder"), folder_id.clone());
        root.create().unwrap();
        let index_path = dir.path().join("index.db");
        let index = Index::open(&index_path, EpochId(u64::from(number))).unwrap();
        let (sender, inputs) = mpsc::channel(16);
        let id = DeviceId([number; 32]);
        let shared = Shared {
            id: folder_id,
            label: "test".into(),
            root,
            device: id,
            index_path,
            inputs: sender,
            rules: RwLock::default(),
            hints: Default::default(),
            applying: Mutex::default(),
            absence: Mutex::default(),
            suspicious_boot: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            live: Live::default(),
            links: Default::default(),
        };
        let folder = FolderHandle(Arc::new(shared));
        let (fetcher, threads) = Fetcher::spawn(folder.clone()).unwrap();
        let server = Server::new(runtime.handle().clone());
        let (asked, results) = (Arc::default(), BTreeMap::new());
        Self { id, runtime, dir, folder, index, inputs, fetcher, server, threads, asked, results }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("folder").join(name)
    }

    /// Writes a file and takes it into the index.
    fn hold(&mut self, name: &str, bytes: &[u8]) -> (Content, Vec<ChunkList>) {
        std::fs::write(self.at(name), bytes).unwrap();
        let root = self.folder.root.open().unwrap();
        let looked = examine(&root, &path(name), LATER_NS, &mut Vec::new(), &AtomicBool::new(false));
        let ReadOutcome::Hashed(hashed) = looked else { panic!("{name}: {looked:?}") };
        self.hold_as(name, hashed.disk, hashed.content, &hashed.lists);
        (hashed.content, hashed.lists)
    }

    fn hold_as(&mut self, name: &str, disk: DiskState, content: Content, lists: &[ChunkList]) {
        let entry = Entry {
            path: path(name),
            kind: Kind::File(content),
            mtime_ns: disk.mtime_ns,
            weight_ns: disk.mtime_ns,
            version: VersionVector::new().with(EpochId(u64::from(self.id.0[0])), self.index.next_seq()),
            author: self.id,
            superseded: Vec::new(),
            meta: Meta::default(),
        };
        self.index.put_lists(content, lists).unwrap();
        self.index.put(&entry, Some(disk), Mark::Here, 1).unwrap();
    }

    /// Writes a file whose chunks are all `chunk_bytes` long and whose lists have `page` children.
    fn hold_paged(&mut self, name: &str, bytes: &[u8], chunk_bytes: usize, page: usize) -> (Content, Vec<ChunkList>) {
        let chunks: Vec<Content> = bytes.chunks(chunk_bytes).map(Content::of_chunk).collect();
        let mut lists: Vec<ChunkList> = chunks.chunks(page).map(|c| ChunkList::new(c.to_vec()).unwrap()).collect();
        lists.push(ChunkList::new(lists.iter().map(ChunkList::content).collect()).unwrap());
        std::fs::write(self.at(name), bytes).unwrap();
        let disk = self.folder.root.open().unwrap().look(&path(name)).unwrap().unwrap();
        let content = lists.last().unwrap().content();
        self.hold_as(name, disk, content, &lists);
        (content, lists)
    }

    fn order(&self, work: WorkId, name: &str, content: Content, sources: &[&Device]) {
        let sources = sources.iter().map(|d| d.id).collect();
        self.fetcher.order(FetchOrder { work, path: path(name), content, sources });
    }

    /// Waits for the result of a work.
    fn result(&mut self, work: WorkId) -> Result<Staged, FetchError> {
        while !self.results.contains_key(&work) {
            let event = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.inputs.recv()).await });
            let Ok(Some(Event::Input(Input::Fetched(results)))) = event else { panic!("no result of {work}") };
            for (id, result) in results {
                assert!(self.results.insert(id, result).is_none(), "two results of {id}");
            }
        }
        self.results.remove(&work).unwrap()
    }

    fn staged(&self, content: Content, copy: u32) -> Vec<u8> {
        let root = self.folder.root.open().unwrap();
        stage::read_complete(&root, content, copy, 0, content.size as usize).unwrap()
    }

    fn asked_chunk_bytes(&self) -> u64 {
        self.asked.lock().unwrap().iter().filter(|c| c.depth == 0).map(|c| c.size).sum()
    }

    /// Orders a content, waits for it and compares it.
    fn fetch(&mut self, content: Content, bytes: &[u8], sources: &[&Device]) -> Staged {
        self.order(1, "wanted", content, sources);
        let staged = self.result(1).unwrap();
        assert_eq!(staged.copy, 0);
        assert!(self.staged(content, 0) == bytes);
        staged
    }
}

fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

/// Bytes that look random and never change (SplitMix64).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Connects two devices so that the first can fetch from the second; `wire` sees what the second sends.
fn connect(fetching: &Device, serving: &Device, wire: Wire) {
    one_way(fetching, serving, Box::new(Some));
    one_way(serving, fetching, wire);
    fetching.fetcher.link_up(serving.id);
}

fn one_way(from: &Device, to: &Device, mut wire: Wire) {
    let (outbox, queue) = outbox();
    let (near, far) = tokio::io::duplex(64 * 1024);
    from.runtime.spawn(write_loop(queue, FrameWriter::new(near, Arc::default())));
    let hello = DeviceHello { protocol: 1, name: String::new(), agent: String::new(), folders: vec![] };
    outbox.control(&Frame::Hello(hello)).unwrap();
    from.folder.links.write().unwrap().insert(to.id, LinkHandle { peer: to.id, outbox });
    let (peer, folder, fetcher, server) = (from.id, to.folder.clone(), to.fetcher.clone(), to.server.clone());
    let asked = from.asked.clone();
    from.runtime.spawn(async move {
        let mut reader = FrameReader::new(far, Arc::default());
        while let Ok(frame) = reader.next().await {
            match wire(frame) {
                Some(Frame::Request(request)) => {
                    asked.lock().unwrap().extend(request.items.iter().map(|item| item.content));
                    assert!(server.request(&folder, peer, request));
                }
                Some(Frame::Chunks(chunks)) => fetcher.chunks(peer, chunks),
                Some(Frame::NotHere { request, items }) => fetcher.not_here(peer, request, &items),
                _ => {}
            }
        }
    });
}

fn disconnect(fetching: &Device, serving: &Device) {
    fetching.folder.links.write().unwrap().remove(&serving.id);
    fetching.fetcher.link_down(serving.id);
}

/// Turns the first byte of everything that is sent.
fn lie(frame: Frame) -> Option<Frame> {
    let Frame::Chunks(mut chunks) = frame else { return Some(frame) };
    for (_, bytes) in &mut chunks.items {
        let mut changed = bytes.to_vec();
        changed[0] ^= 1;
        *bytes = Bytes::from(changed);
    }
    Some(Frame::Chunks(chunks))
}

#[test]
fn a_small_file_comes_from_a_peer() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let (content, _) = b.hold("f", b"hello");
    assert_eq!(a.fetch(content, b"hello", &[&b]).lists, []);
    assert_eq!(a.folder.live.bytes_fetched.load(Ordering::Relaxed), 5);
    assert_eq!(a.folder.live.bytes_reused.load(Ordering::Relaxed), 0);
}

#[test]
fn an_empty_file_needs_nobody_and_impossible_contents_are_refused() {
    let [mut a] = devices();
    a.order(1, "empty", Content::of_chunk(b""), &[]);
    assert!(a.result(1).is_ok());
    let id = ContentId([1; 32]);
    for content in [(0, 0), (1, 0), (0, 1 << 30), (9, 5)].map(|(depth, size)| Content { id, depth, size }) {
        a.order(1, "bad", content, &[]);
        assert!(matches!(a.result(1), Err(FetchError::Problem(p)) if p.kind == ProblemKind::BadBytes));
    }
}

#[test]
fn a_thousand_small_files_come_in_few_requests() {
    let [mut a, mut b] = devices();
    let requests = Arc::new(AtomicU64::new(0));
    connect(&a, &b, Box::new(Some));
    b.index.begin().unwrap();
    let contents: Vec<Content> =
        (0..1000).map(|n| b.hold(&format!("f{n}"), format!("file {n}").as_bytes()).0).collect();
    b.index.commit().unwrap();
    for (n, content) in (0..).zip(&contents) {
        a.order(n, &format!("f{n}"), *content, &[&b]);
    }
    for (n, content) in (0..).zip(&contents) {
        assert_eq!(a.result(n).unwrap().copy, 0);
        assert_eq!(a.staged(*content, 0), format!("file {n}").as_bytes());
    }
    assert_eq!(a.asked.lock().unwrap().len(), 1000);
    assert!(requests.load(Ordering::Relaxed) < 500);
}

#[test]
fn what_is_wanted_for_several_files_is_asked_for_once() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let (small, large) = (noise(5000, 1), noise(700_000, 2));
    for (bytes, first) in [(small, 0), (large, 10)] {
        let (content, lists) = b.hold("f", &bytes);
        a.asked.lock().unwrap().clear();
        (first..first + 3).for_each(|work| a.order(work, &format!("f{work}"), content, &[&b]));
        let mut copies: Vec<u32> = Vec::new();
        for work in first..first + 3 {
            let staged = a.result(work).unwrap();
            assert_eq!(staged.lists.len(), lists.len());
            assert!(a.staged(content, staged.copy) == bytes);
            copies.push(staged.copy);
        }
        assert_eq!((copies, a.asked_chunk_bytes()), (vec![0, 1, 2], content.size));
        // A later order is served from a copy that waits to be put into place, and takes a number that is free.
        a.fetcher.applied(first + 1);
        a.order(first + 5, "later", content, &[&b]);
        assert_eq!((a.result(first + 5).unwrap().copy, a.asked_chunk_bytes()), (1, content.size));
    }
}

#[test]
fn a_file_of_many_chunks_comes_with_all_its_lists() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let bytes = noise(20_000_000, 3);
    let (content, lists) = b.hold("f", &bytes);
    let staged = a.fetch(content, &bytes, &[&b]);
    assert_eq!((staged.lists, a.asked_chunk_bytes()), (lists, content.size));
    assert!(a.folder.live.bytes_fetched.load(Ordering::Relaxed) > content.size);
}

#[test]
fn a_list_of_several_pages_is_followed_and_repeated_pages_come_once() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let page = noise(300 * 2048, 4);
    let bytes = [&page[..], &page, &noise(100_000, 5), &page].concat();
    let (content, lists) = b.hold_paged("f", &bytes, 2048, 300);
    assert_eq!((content.depth, lists.len()), (2, 5));
    let mut staged = a.fetch(content, &bytes, &[&b]);
    let (mut ids, last): (Vec<_>, _) = (lists.iter().map(ChunkList::content).collect(), staged.lists.pop());
    assert_eq!(last.map(|list| list.content()), ids.pop());
    let mut came: Vec<_> = staged.lists.iter().map(ChunkList::content).collect();
    came.sort();
    ids.sort();
    ids.dedup();
    assert_eq!(came, ids);
    assert!(a.asked_chunk_bytes() < content.size);
}
