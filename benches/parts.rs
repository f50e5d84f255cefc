//! How long the parts take of which all work is made: `cargo bench`, or `cargo bench -- index` for some of them.
//!
//! Each is repeated for a while, and the fastest turn counts: whatever else runs only makes turns slower. Without
//! `--bench` (as `cargo test --benches` runs it) each does one turn, to see that it works.

use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use p2psync::core::action::{Action, Outcome};
use p2psync::core::chunker::ChunkSizes;
use p2psync::core::content::{Content, ContentId};
use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::core::entry::{Entry, Kind, Meta};
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::ignore::Rules;
use p2psync::core::message::{Ack, Announced, Batch, Hello, Message};
use p2psync::core::path::RelPath;
use p2psync::core::ranges::Ranges;
use p2psync::core::version::VersionVector;
use p2psync::fs::read;
use p2psync::fs::root::Root;
use p2psync::fs::stage::StagedFile;
use p2psync::fs::walk;
use p2psync::index::{Index, Mark};
use p2psync::net::codec::{decode, encode};
use p2psync::net::frame::{Chunks, Frame};
use p2psync::sync::{Folder, Input, Now, Observation, Output, Seen, Settings, Staged};

/// How long one part is repeated.
const TIME: Duration = Duration::from_millis(600);
const MIB: usize = 1 << 20;
/// Bytes that are cut, hashed, written.
const DATA_BYTES: usize = 32 * MIB;
/// Entries of an index.
const ENTRIES: u64 = 20_000;
/// Files of a tree.
const FILES: u64 = 2_000;
/// Later than anything that is looked at here.
const LATER_NS: i64 = i64::MAX / 2;

/// What one turn of a part gets through.
enum Per {
    Bytes(usize),
    Items(u64),
}

struct Bench {
    is_measured: bool,
    wanted: Vec<String>,
}

impl Bench {
    /// Repeats a part, each time with something fresh, and prints its fastest turn.
    fn part<T, R>(&self, name: &str, per: &Per, mut fresh: impl FnMut() -> T, mut turn: impl FnMut(T) -> R) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            return;
        }
        let (mut fastest, mut spent) = (Duration::MAX, Duration::ZERO);
        while spent < TIME {
            let input = fresh();
            let start = Instant::now();
            black_box(turn(black_box(input)));
            let took = start.elapsed();
            (fastest, spent) = (fastest.min(took), spent + took);
            if !self.is_measured {
                return;
            }
        }
        match per {
            Per::Bytes(bytes) => {
                println!("{name:<44} {:>9.1} MiB/s", *bytes as f64 / MIB as f64 / fastest.as_secs_f64())
            }
            Per::Items(items) => println!("{name:<44} {:>9.3} us each", fastest.as_secs_f64() * 1e6 / *items as f64),
        }
    }
}

fn main() {
    let (options, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let bench = Bench { is_measured: options.iter().any(|option| option == "--bench"), wanted };
    contents(&bench);
    disk(&bench);
    index(&bench);
    decisions(&bench);
    frames(&bench);
    values(&bench);
}

fn contents(bench: &Bench) {
    let data = noise(DATA_BYTES, 1);
    let sizes = ChunkSizes::for_file(DATA_BYTES as u64);
    let cut = |data: &[u8]| {
        let (mut at, mut chunks) = (0, Vec::new());
        while let Some(length) = sizes.first_cut(&data[at..], true).filter(|length| *length > 0) {
            chunks.push(at..at + length);
            at += length;
        }
        chunks
    };
    bench.part("contents: cut", &Per::Bytes(DATA_BYTES), || (), |()| cut(&data));
    let chunks = cut(&data);
    let hash = |()| chunks.iter().map(|chunk| Content::of_chunk(&data[chunk.clone()])).collect::<Vec<_>>();
    bench.part("contents: hash", &Per::Bytes(DATA_BYTES), || (), hash);
}

fn disk(bench: &Bench) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let root = Root::new(dir.path().join("folder"), folder());
    root.create().expect("a folder in an empty directory");
    for n in 0..FILES {
        let directory = root.path().join(format!("d{}", n % 50));
        fs::create_dir_all(&directory).expect("a new directory");
        fs::write(directory.join(format!("f{n}")), noise(1000, n)).expect("a new file");
    }
    let data = noise(DATA_BYTES, 2);
    fs::write(root.path().join("large"), &data).expect("a new file");
    let open = root.open().expect("the folder that was just made");
    let walk = |()| {
        let mut seen = 0;
        walk::walk(&open, None, &mut |_, _| true, &mut |batch| {
            seen += batch.len();
            ControlFlow::Continue(())
        })
        .expect("a tree that can be listed");
        seen
    };
    bench.part("disk: walk", &Per::Items(FILES), || (), walk);
    let stop = AtomicBool::new(false);
    let examine = |buffer: &mut Vec<u8>, at: &RelPath| read::examine(&open, at, LATER_NS, buffer, &stop);
    let mut buffer = Vec::new();
    let large = path("large");
    bench.part("disk: examine a large file", &Per::Bytes(DATA_BYTES), || (), |()| examine(&mut buffer, &large));
    let small: Vec<RelPath> = (0..FILES).map(|n| path(&format!("d{}/f{n}", n % 50))).collect();
    let examine_all = |()| small.iter().for_each(|at| drop(examine(&mut buffer, at)));
    bench.part("disk: examine small files", &Per::Items(FILES), || (), examine_all);
    let mut number = 0;
    let assemble = |file: StagedFile| {
        for (at, part) in (0u64..).step_by(64 << 10).zip(data.chunks(64 << 10)) {
            file.write(at, part).expect("room on the disk");
        }
    };
    let fresh = || {
        number += 1;
        let content = Content { id: ContentId([number; 32]), depth: 1, size: DATA_BYTES as u64 };
        StagedFile::open(&open, content, 0).expect("a stage to write to")
    };
    bench.part("disk: assemble", &Per::Bytes(DATA_BYTES), fresh, assemble);
}

fn index(bench: &Bench) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        Index::open(&dir.path().join(format!("{number}.db")), EpochId(1)).expect("a new index")
    };
    let fill = |mut index: Index| {
        index.begin().expect("an index that can be written to");
        for n in 0..ENTRIES {
            let disk = DiskState { kind: DiskKind::File, size: n, mtime_ns: 5, ctime_ns: 6, inode: n, mode: 0o644 };
            index.put(&entry(n), Some(disk), Mark::Here, 1).expect("an index that can be written to");
        }
        index.commit().expect("an index that can be written to");
        index
    };
    bench.part("index: put", &Per::Items(ENTRIES), &mut fresh, fill);
    let index = fill(fresh());
    let all: Vec<Entry> = (0..ENTRIES).step_by(7).map(entry).collect();
    let looked = || Per::Items(all.len() as u64);
    let by_path = |()| all.iter().filter(|e| index.record(&e.path).is_ok_and(|found| found.is_some())).count();
    bench.part("index: look up by path", &looked(), || (), by_path);
    bench.part("index: look up by path, in one view", &looked(), || (), |()| index.in_one_view(|| by_path(())));
    let ids: Vec<ContentId> = all.iter().filter_map(|e| e.kind.content_id()).collect();
    let by_content = |()| ids.iter().filter(|id| index.places(**id, 4).is_ok_and(|places| !places.is_empty())).count();
    bench.part("index: look up by content", &looked(), || (), by_content);
    let page = |()| index.records_since(0, ENTRIES as usize).map(|records| records.len());
    bench.part("index: read in the order of changes", &Per::Items(ENTRIES), || (), page);
}

/// What a folder does about each of many files, without disk and wire: it decides, and writes its index.
fn decisions(bench: &Bench) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        Turns::new(Index::open(&dir.path().join(format!("{number}.db")), EpochId(1)).expect("a new index"))
    };
    let new_files = |mut turns: Turns| {
        let told: Vec<Announced> = (1..).zip(tree()).map(|(seq, entry)| Announced { entry, seq, held: true }).collect();
        for batch in told.chunks(1000) {
            let upto = batch.last().map_or(0, |last| last.seq);
            let (entries, more) = (batch.to_vec(), upto < told.len() as u64);
            let batch = Batch { epoch: EpochId(9), run: RunId(9), entries, upto, more };
            turns.feed(Input::Message(PEER, Message::Index(batch)));
        }
        turns.carry_out();
        assert_eq!(turns.folder.index().totals().expect("an index").files, ENTRIES);
        turns
    };
    bench.part("folder: take a new file from a peer", &Per::Items(ENTRIES), &mut fresh, new_files);
    let found = |mut turns: Turns| {
        let (tree, mut number) = (tree(), 0);
        for batch in tree.chunks(256) {
            let seen = batch.iter().map(|entry| {
                number += 1;
                let disk = placed(number);
                let seen = match entry.kind {
                    Kind::File(content) => Seen::File { disk, content, lists: Vec::new() },
                    _ => Seen::Directory(DiskState { kind: DiskKind::Directory, ..disk }),
                };
                Observation { path: entry.path.clone(), seen }
            });
            turns.feed(Input::Observed(seen.collect()));
            turns.carry_out();
        }
        turns
    };
    bench.part("folder: tell of a new file", &Per::Items(ENTRIES), &mut fresh, found);
}

const PEER: DeviceId = DeviceId([7; 32]);

/// A folder with a peer; what it orders is done at once.
struct Turns {
    folder: Folder,
    now: Now,
    fetched: Vec<u64>,
    applied: Vec<(u64, Outcome)>,
    told: Vec<Ack>,
}

impl Turns {
    fn new(index: Index) -> Self {
        let device = DeviceId([8; 32]);
        let settings = Settings { device, peers: [PEER].into(), reconcile_ms: 600_000, ..Settings::default() };
        let folder = Folder::new(index, settings, Rules::default(), RunId(1)).expect("a new index");
        let now = Now { wall_ns: 1_800_000_000_000_000_000, mono_ms: 1000, random: 7 };
        let mut turns = Self { folder, now, fetched: Vec::new(), applied: Vec::new(), told: Vec::new() };
        turns.feed(Input::ScanStarted { suspicious: false });
        turns.feed(Input::ScanFinished { complete: true });
        turns.feed(Input::Connected(PEER));
        let hello =
            Hello { epoch: EpochId(9), run: RunId(9), last_seq: ENTRIES + 101, found: Vec::new(), cursor: None };
        turns.feed(Input::Message(PEER, Message::Hello(hello)));
        turns
    }

    fn feed(&mut self, input: Input) {
        self.now.wall_ns += 1_000_000;
        self.now.mono_ms += 1;
        for output in self.folder.handle(input, self.now).expect("an index that can be written to") {
            match output {
                Output::Fetch(order) => self.fetched.push(order.work),
                Output::Apply(work, action) => {
                    let disk = Some(match action {
                        Action::PlaceFile { .. } => placed(work),
                        _ => DiskState { kind: DiskKind::Directory, ..placed(work) },
                    });
                    self.applied.push((work, Outcome::Done { disk, displaced: None, conflict: None, rescued: None }));
                }
                Output::Send(_, Message::Index(batch)) => self.told.push(Ack {
                    epoch: batch.epoch,
                    received: batch.upto,
                    applied: batch.upto,
                    exceptions: Vec::new(),
                }),
                _ => {}
            }
        }
    }

    /// Answers what was ordered, as many at once as an agent does when there is much to do.
    fn carry_out(&mut self) {
        while !(self.fetched.is_empty() && self.applied.is_empty() && self.told.is_empty()) {
            for part in std::mem::take(&mut self.fetched).chunks(32) {
                self.feed(Input::Fetched(part.iter().map(|work| (*work, Ok(Staged::default()))).collect()));
            }
            let mut applied = std::mem::take(&mut self.applied).into_iter().peekable();
            while applied.peek().is_some() {
                let part = applied.by_ref().take(256).collect();
                self.feed(Input::Applied(part));
            }
            for ack in std::mem::take(&mut self.told) {
                self.feed(Input::Message(PEER, Message::Ack(ack)));
            }
        }
    }
}

fn placed(number: u64) -> DiskState {
    DiskState { kind: DiskKind::File, size: 8, mtime_ns: 5, ctime_ns: 6, inode: number, mode: 0o644 }
}

fn frames(bench: &Bench) {
    let entries: Vec<Announced> = (0..1000).map(|n| Announced { entry: entry(n), seq: n + 1, held: true }).collect();
    let batch = Batch { epoch: EpochId(1), run: RunId(1), entries, upto: 1000, more: false };
    let chunk = |n| (n, noise(64 << 10, u64::from(n)).into());
    let about = Frame::Folder(folder(), Message::Index(batch));
    let chunks = Frame::Chunks(Chunks { request: 1, items: (0..4).map(chunk).collect() });
    let each = [("index entries", about, Per::Items(1000)), ("chunks", chunks, Per::Items(4))];
    for (name, frame, per) in each {
        let bytes = encode(&frame).expect("a frame within its limits").parts().concat();
        bench.part(&format!("frames: encode {name}"), &per, || (), |()| encode(&frame).map(|e| e.byte_count()));
        let body = bytes::Bytes::from(bytes).slice(4..);
        bench.part(&format!("frames: decode {name}"), &per, || body.clone(), |body| decode(body).is_ok());
    }
}

fn values(bench: &Bench) {
    const TURNS: u64 = 100_000;
    let vector = |from: u64| {
        let pairs = (from..from + 8).map(|n| (EpochId(n * 3), n + 1)).collect();
        VersionVector::from_pairs(pairs).expect("ascending epochs")
    };
    let (one, other) = (vector(1), vector(5));
    let join = |()| (0..TURNS).map(|_| black_box(&one).join(black_box(&other)).pairs().len()).sum::<usize>();
    bench.part("version vectors: join", &Per::Items(TURNS), || (), join);
    let both = one.join(&other);
    let compare = |()| (0..TURNS).filter(|_| black_box(&one).included_in(black_box(&both))).count();
    bench.part("version vectors: compare", &Per::Items(TURNS), || (), compare);
    let add = |mut ranges: Ranges| {
        for n in 0..TURNS {
            ranges.add((n * 7919 % TURNS) * 100, 100);
        }
        ranges.count()
    };
    bench.part("ranges: add", &Per::Items(TURNS), Ranges::default, add);
}

fn entry(number: u64) -> Entry {
    Entry {
        path: path(&format!("some directory/{}/file number {number}.txt", number % 100)),
        kind: Kind::File(Content::of_chunk(&number.to_be_bytes())),
        mtime_ns: 1_700_000_000_000_000_000 + number as i64,
        weight_ns: 1_700_000_000_000_000_000,
        version: VersionVector::new().with(EpochId(9), number + 1),
        author: DeviceId([1; 32]),
        superseded: Vec::new(),
        meta: Meta::default(),
    }
}

/// All entries, and before them the directories that they lie in.
fn tree() -> Vec<Entry> {
    let names = std::iter::once("some directory".into()).chain((0..100).map(|n| format!("some directory/{n}")));
    let directories =
        names.map(|name| Entry { path: path(&name), kind: Kind::Directory, mtime_ns: 0, weight_ns: 0, ..entry(0) });
    directories.chain((0..ENTRIES).map(entry)).collect()
}

fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).expect("a valid path")
}

fn folder() -> FolderId {
    "bench".parse().expect("a valid id")
}

/// Bytes that look random and never change (SplitMix64).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}
