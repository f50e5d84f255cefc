//! Devices in one process that fetch from each other, over real queues and encoded frames.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
use crate::engine::clock::Clock;
use crate::engine::hints::Job;
use crate::engine::link::LinkHandle;
use crate::engine::serve::Server;
use crate::engine::shared::{Event, FolderHandle, Shared};
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
    /// For hashing; kept from file to file.
    buffer: Vec<u8>,
    inputs: mpsc::Receiver<Event>,
    fetcher: Fetcher,
    server: Server,
    threads: Vec<JoinHandle<()>>,
    /// What peers were asked for.
    asked: Arc<Mutex<Vec<Vec<Content>>>>,
    results: BTreeMap<WorkId, Result<Staged, FetchError>>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.folder.stop.store(true, Ordering::Relaxed);
        self.fetcher.wake();
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
        let mut shared = Shared::new(folder_id, root, id, sender, Clock::system());
        shared.index_path = index_path;
        let folder = FolderHandle(Arc::new(shared));
        let (fetcher, threads) = Fetcher::spawn(folder.clone()).unwrap();
        let server = Server::new(runtime.handle().clone());
        let (asked, results) = (Arc::default(), BTreeMap::new());
        Self { id, runtime, dir, folder, index, buffer: Vec::new(), inputs, fetcher, server, threads, asked, results }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("folder").join(name)
    }

    /// Writes a file and takes it into the index.
    fn hold(&mut self, name: &str, bytes: &[u8]) -> (Content, Vec<ChunkList>) {
        std::fs::write(self.at(name), bytes).unwrap();
        let root = self.folder.root.open().unwrap();
        let looked = examine(&root, &path(name), LATER_NS, &mut self.buffer, &AtomicBool::new(false));
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
        self.fetcher.order(FetchOrder { work, path: path(name), content, attributes: None, sources });
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
        self.asked.lock().unwrap().iter().flatten().filter(|c| c.depth == 0).map(|c| c.size).sum()
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
    let hello = DeviceHello { protocol: 1, name: String::new(), agent: String::new(), folders: vec![], sent_ms: None };
    outbox.control(&Frame::Hello(hello)).unwrap();
    from.folder.links.write().unwrap().insert(to.id, LinkHandle::new(to.id, outbox));
    let (peer, folder, fetcher, server) = (from.id, to.folder.clone(), to.fetcher.clone(), to.server.clone());
    let asked = from.asked.clone();
    from.runtime.spawn(async move {
        let mut reader = FrameReader::new(far, Arc::default());
        while let Ok(frame) = reader.next().await {
            match wire(frame) {
                Some(Frame::Request(request)) => {
                    asked.lock().unwrap().push(request.items.iter().map(|item| item.content).collect());
                    assert!(server.request(&folder, peer, request));
                }
                Some(Frame::Chunks(chunks)) => fetcher.chunks(peer, chunks),
                Some(Frame::Have(have)) => fetcher.have(peer, have),
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
fn what_a_peer_has_sent_unasked_is_not_asked_for() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let (content, _) = b.hold("f", b"hello");
    let (other, _) = b.hold("other", b"hullo");
    a.folder.gifts.take_in(b.id, vec![Bytes::from_static(b"hello"), Bytes::from_static(b"something else")]);
    assert_eq!(a.fetch(content, b"hello", &[&b]).lists, []);
    assert!(a.asked.lock().unwrap().is_empty());
    assert_eq!(a.folder.live.bytes_fetched.load(Ordering::Relaxed), 5);
    a.fetch(other, b"hullo", &[&b]);
    assert_eq!(*a.asked.lock().unwrap(), [vec![other]]);
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
    let requests = a.asked.lock().unwrap();
    let items: usize = requests.iter().map(Vec::len).sum();
    assert!(items == 1000 && requests.len() < 500, "{} requests", requests.len());
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

#[test]
fn an_interrupted_fetch_goes_on_with_what_is_in_the_stage() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let bytes = noise(4_000_000, 6);
    let (content, lists) = b.hold("f", &bytes);
    let root = a.folder.root.open().unwrap();
    let file = StagedFile::open(&root, content, 0).unwrap();
    let (mut offset, mut here) = (0, 0);
    for (n, chunk) in lists.iter().flat_map(ChunkList::children).enumerate() {
        let end = offset + chunk.size as usize;
        match n % 3 {
            0 => file.write(offset as u64, &bytes[offset..end]).unwrap(),
            // What a crash left of a chunk is not believed.
            1 => file.write(offset as u64, &bytes[offset..end - 1]).unwrap(),
            _ => {}
        }
        here += if n % 3 == 0 { chunk.size } else { 0 };
        offset = end;
    }
    drop(file);
    a.fetch(content, &bytes, &[&b]);
    assert_eq!(a.asked_chunk_bytes(), content.size - here);
}

#[test]
fn what_is_here_already_costs_no_wire() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let (old, large) = (noise(3_000_000, 7), noise(3_000_000, 8));
    a.hold("old name", &old);
    let (content, _) = b.hold("new name", &old);
    a.fetch(content, &old, &[&b]);
    assert_eq!(a.asked_chunk_bytes(), 0);
    // An edit in the middle costs about a chunk, here against a version in history.
    let (before, lists) = b.hold("large", &large);
    std::fs::write(a.at(".p2psync/history/slot"), &large).unwrap();
    let disk = b.index.record(&path("large")).unwrap().unwrap().disk.unwrap();
    let row = HistoryRow {
        slot: path("slot"),
        path: path("large"),
        content: Some(before),
        disk,
        author: b.id,
        displaced_ms: 1,
        by_remote: true,
        brought_by: None,
        placed_ms: None,
        displaced_by: None,
    };
    a.index.put_lists(before, &lists).unwrap();
    a.index.add_history(&row).unwrap();
    let edited = [&large[..1_500_000], b"inserted", &large[1_500_000..]].concat();
    let (after, _) = b.hold("large", &edited);
    a.order(2, "large", after, &[&b]);
    a.result(2).unwrap();
    assert!(a.staged(after, 0) == edited);
    assert!(a.asked_chunk_bytes() > 0 && a.asked_chunk_bytes() < 800_000, "{}", a.asked_chunk_bytes());
    let reused = a.folder.live.bytes_reused.load(Ordering::Relaxed);
    assert_eq!(reused, content.size + after.size - a.asked_chunk_bytes());
}

#[test]
fn a_source_that_goes_away_is_replaced_by_another() {
    let [mut a, mut b, mut c] = devices();
    let bytes = noise(6_000_000, 9);
    let (content, _) = b.hold("f", &bytes);
    c.hold("elsewhere", &bytes);
    let mut answers = 0;
    let (gone, hears) = std::sync::mpsc::channel();
    let wire = move |frame| {
        answers += 1;
        if answers == 6 {
            gone.send(()).unwrap();
        }
        (answers < 6).then_some(frame)
    };
    connect(&a, &b, Box::new(wire));
    a.order(1, "f", content, &[&b, &c]);
    hears.recv_timeout(PATIENCE).unwrap();
    connect(&a, &c, Box::new(Some));
    disconnect(&a, &b);
    a.result(1).unwrap();
    assert!(a.staged(content, 0) == bytes);
    assert!(a.asked_chunk_bytes() > content.size);
}

#[test]
fn several_sources_share_the_load() {
    let [mut a, mut b, mut c] = devices();
    let bytes = noise(30_000_000, 10);
    let (content, _) = b.hold("f", &bytes);
    c.hold("f", &bytes);
    let counts: [Arc<Mutex<usize>>; 2] = Default::default();
    for (peer, count) in [&b, &c].into_iter().zip(&counts) {
        let count = count.clone();
        let wire = move |frame| {
            if let Frame::Chunks(chunks) = &frame {
                *count.lock().unwrap() += chunks.items.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            }
            Some(frame)
        };
        connect(&a, peer, Box::new(wire));
    }
    a.fetch(content, &bytes, &[&b, &c]);
    assert!(counts.iter().all(|count| *count.lock().unwrap() > 5_000_000), "{counts:?}");
    assert_eq!(a.asked_chunk_bytes(), content.size);
}

#[test]
fn without_a_source_a_fetch_ends_and_can_be_ordered_again() {
    let [mut a, mut b, c] = devices();
    let bytes = noise(2_000_000, 11);
    let (content, _) = b.hold("f", &bytes);
    let no_source = |result| matches!(result, Err(FetchError::NoSource));
    a.order(1, "f", content, &[&b]);
    assert!(no_source(a.result(1)), "not connected");
    connect(&a, &c, Box::new(Some));
    a.order(2, "f", content, &[&c]);
    assert!(no_source(a.result(2)), "does not have it");
    connect(&a, &b, Box::new(|frame| matches!(frame, Frame::Hello(_)).then_some(frame)));
    a.order(3, "f", content, &[&b, &c]);
    disconnect(&a, &b);
    assert!(no_source(a.result(3)), "went away, and the other lacks it");
    connect(&a, &b, Box::new(Some));
    a.order(4, "f", content, &[&c, &b]);
    assert_eq!(a.result(4).unwrap().copy, 0);
    assert!(a.staged(content, 0) == bytes);
}

#[test]
fn wrong_bytes_are_noticed_and_asked_of_another() {
    for bytes in [noise(1000, 12), noise(1_500_000, 13)] {
        let [mut a, mut b, mut c] = devices();
        let (content, _) = b.hold("f", &bytes);
        c.hold("f", &bytes);
        connect(&a, &b, Box::new(lie));
        a.order(1, "f", content, &[&b]);
        match a.result(1) {
            Err(FetchError::Problem(problem)) => {
                assert_eq!(problem.kind, ProblemKind::BadBytes);
                assert!(problem.text.contains(&b.id.short()) && problem.text.contains("for f"), "{problem}");
            }
            other => panic!("{other:?}"),
        }
        connect(&a, &c, Box::new(Some));
        a.fetch(content, &bytes, &[&b, &c]);
    }
}

#[test]
fn a_disk_without_room_is_said_and_does_not_stop_others() {
    let [mut a, mut b] = devices();
    connect(&a, &b, Box::new(Some));
    let (content, _) = b.hold("f", b"small");
    a.order(1, "huge", Content { id: ContentId([3; 32]), depth: 2, size: 1 << 55 }, &[&b]);
    a.order(2, "f", content, &[&b]);
    assert!(a.result(2).is_ok());
    assert!(matches!(a.result(1), Err(FetchError::Problem(p)) if p.kind == ProblemKind::NoSpace));
    std::fs::remove_dir_all(a.at(".p2psync")).unwrap();
    a.order(3, "f", content, &[&b]);
    assert!(matches!(a.result(3), Err(FetchError::Problem(p)) if p.kind == ProblemKind::Io));
}

/// What a peer gets for one item: its bytes, or nothing.
fn served(asking: &Device, serving: &Device, content: Content, hint: Option<(&str, u64)>) -> Option<Vec<u8>> {
    let (answers, hears) = std::sync::mpsc::channel();
    let wire = move |frame| {
        match frame {
            Frame::Chunks(chunks) => answers.send(chunks.items.first().map(|(_, bytes)| bytes.to_vec())).unwrap(),
            Frame::NotHere { .. } => answers.send(None).unwrap(),
            _ => {}
        }
        None
    };
    connect(asking, serving, Box::new(wire));
    let hint = hint.map(|(name, offset)| (path(name), offset));
    let request = Request { id: 7, folder: serving.folder.id.clone(), items: vec![WantedContent { content, hint }] };
    assert!(serving.server.request(&serving.folder, asking.id, request));
    hears.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn only_what_the_index_announces_is_served_and_only_while_it_is_unchanged() {
    let [a, mut b] = devices();
    let bytes = noise(1_000_000, 14);
    let (_, lists) = b.hold("f", &bytes);
    let second = lists[0].children()[1];
    let offset = lists[0].children()[0].size;
    let expected = &bytes[offset as usize..(offset + second.size) as usize];
    let hints = [Some(("f", offset)), Some(("f", 0)), Some(("f", u64::MAX)), Some(("other", 5)), None];
    for hint in hints {
        assert_eq!(served(&a, &b, second, hint).as_deref(), Some(expected), "{hint:?}");
    }
    assert_eq!(served(&a, &b, lists[0].content(), None), Some(lists[0].body()));
    let unknown = ChunkList::new(vec![second, second]).unwrap();
    b.index.put_lists(unknown.content(), std::slice::from_ref(&unknown)).unwrap();
    assert_eq!(served(&a, &b, unknown.content(), None), None, "a list of nothing that is here");
    std::fs::write(b.at("secret"), b"not announced").unwrap();
    assert_eq!(served(&a, &b, Content::of_chunk(b"not announced"), Some(("secret", 0))), None);
    let (ignored, _) = b.hold("ignored", b"ignored");
    let record = b.index.record(&path("ignored")).unwrap().unwrap();
    b.index.put(&record.entry, record.disk, Mark::Ignored, 1).unwrap();
    assert_eq!(served(&a, &b, ignored, Some(("ignored", 0))), None);
    std::fs::write(b.at("f"), noise(1_000_000, 15)).unwrap();
    assert_eq!(served(&a, &b, second, Some(("f", offset))), None);
    let Job::Paths(looks) = b.folder.hints.next(&b.folder.stop) else { panic!("the folder runs") };
    assert_eq!(looks.iter().map(|look| &look.path).collect::<Vec<_>>(), [&path("f")]);
}

#[test]
fn who_asks_for_too_much_at_once_is_told_that_it_is_not_here() {
    let [a, mut b] = devices();
    let (content, _) = b.hold("f", &noise(200_000, 16));
    let (answers, hears) = std::sync::mpsc::channel();
    let wire = move |frame| {
        if let Frame::NotHere { request, items } = frame {
            answers.send((request, items.len())).unwrap();
        }
        None
    };
    connect(&a, &b, Box::new(wire));
    let hint = Some((path(&vec!["dddddd"; 500].join("/")), 0));
    let items = vec![WantedContent { content, hint }; 1024];
    for id in 0..4 {
        let request = Request { id, folder: b.folder.id.clone(), items: items.clone() };
        assert!(b.server.request(&b.folder, a.id, request));
    }
    let refused = std::iter::from_fn(|| hears.recv_timeout(PATIENCE).ok()).find(|(id, _)| *id > 0);
    assert!(matches!(refused, Some((_, 1024))), "{refused:?}");
}

#[test]
fn what_still_waits_when_a_folder_leaves_the_link_is_not_served() {
    let [a, mut b] = devices();
    let (_, lists) = b.hold("f", &noise(1_000_000, 17));
    let chunk = lists[0].children()[0];
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let (answers, hears) = std::sync::mpsc::channel();
    let wire = move |frame| {
        if let Frame::Chunks(chunks) = frame {
            // Nothing is ever sent: it waits until the other end is dropped.
            assert!(gate.recv().is_err());
            answers.send((chunks.request, chunks.items.len())).unwrap();
        }
        None
    };
    connect(&a, &b, Box::new(wire));
    let request = |id, count| {
        let items = vec![WantedContent { content: chunk, hint: None }; count];
        assert!(b.server.request(&b.folder, a.id, Request { id, folder: b.folder.id.clone(), items }));
    };
    request(1, 1024);
    b.server.link_down(a.id, &b.folder.id);
    request(2, 1);
    drop(open_gate);
    let until_second = std::iter::from_fn(|| hears.recv_timeout(PATIENCE).ok()).take_while(|(id, _)| *id == 1);
    let served: usize = until_second.map(|(_, count)| count).sum();
    assert!(served < 1024, "{served}");
}

#[test]
fn old_downloads_go_unless_a_work_wants_them() {
    let [a, mut b] = devices();
    let (wanted, unwanted, fresh) = (noise(300_000, 18), noise(300_000, 19), noise(300_000, 20));
    let contents = [wanted, unwanted, fresh].map(|bytes| b.hold("f", &bytes).0);
    let root = a.folder.root.open().unwrap();
    for content in contents {
        StagedFile::open(&root, content, 0).unwrap().write(0, b"begun").unwrap();
    }
    let times = [1, 1, 2].map(|seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds));
    for (content, time) in contents.iter().zip(times) {
        let named = |item: &std::fs::DirEntry| {
            item.file_name().to_string_lossy().starts_with(&crate::core::id::hex(&content.id.0))
        };
        let mut items = std::fs::read_dir(a.at(".p2psync/stage")).unwrap().map(Result::unwrap);
        let at = items.find(named).unwrap().path();
        std::fs::OpenOptions::new().write(true).open(at).unwrap().set_modified(time).unwrap();
    }
    connect(&a, &b, Box::new(|_| None));
    a.order(1, "wanted", contents[0], &[&b]);
    a.fetcher.clear(1_500);
    let begun = std::time::Instant::now();
    while stage::staged(&root).unwrap().len() > 2 {
        assert!(begun.elapsed() < PATIENCE, "nothing was dropped");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut left: Vec<Content> = stage::staged(&root).unwrap().into_iter().map(|(content, _)| content).collect();
    left.sort();
    let mut kept = [contents[0], contents[2]];
    kept.sort();
    assert_eq!(left, kept);
}
