//! Values drawn from bytes, so that a fuzzer that changes bytes explores values.

use bytes::Bytes;
use p2psync::core::content::{CHUNK_BYTES_MAX, Content, ContentId, DEPTH_MAX, SIZE_MAX};
use p2psync::core::disk::DiskKind;
use p2psync::core::entry::{Entry, Kind, Meta, SUPERSEDED_MAX, Stamp};
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::message::{
    Ack, Announced, BUCKETS, Batch, Cursor, DigestReport, Exception, Hello, Message, RUNS_MAX, Reason,
};
use p2psync::core::path::{self, RelPath};
use p2psync::core::version::{COUNT_MAX, EPOCHS_MAX, VersionVector};
use p2psync::net::bounds::{FOLDERS_MAX, GIFT_BYTES_MAX, GIFT_ITEMS_MAX, NAME_CHARS_MAX, REASON_CHARS_MAX, clean_text};
use p2psync::net::frame::{Chunks, DeviceHello, Frame, Gift, Have, Lanes, Request, WantedContent};
use p2psync::net::lane::LaneKey;

/// Bytes that values are drawn from; zeros when they are used up.
pub struct Draw<'a>(pub &'a [u8]);

impl<'a> Draw<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let value =
            if end > 256 { usize::from(self.byte()) << 8 | usize::from(self.byte()) } else { self.byte().into() };
        value % end
    }

    /// Fewer bytes where there are no more.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes(N);
        std::array::from_fn(|i| taken.get(i).copied().unwrap_or_default())
    }

    /// Small, at a border, or any.
    pub fn u64(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            200..=209 => u64::MAX,
            210..=219 => COUNT_MAX,
            220..=224 => COUNT_MAX + 1,
            shift @ 225..=234 => 1 << (shift - 225 + 30),
            _ => u64::from_be_bytes(self.array()),
        }
    }

    pub fn i64(&mut self) -> i64 {
        self.u64().cast_signed()
    }

    pub fn count(&mut self) -> u64 {
        self.u64().min(COUNT_MAX)
    }

    /// As many as the bytes say, at most `max`.
    fn list<T>(&mut self, max: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = match self.byte() {
            255 => max,
            few => usize::from(few) % 12,
        };
        (0..count.min(max)).map(|_| draw(self)).collect()
    }

    pub fn text(&mut self, chars_max: usize) -> String {
        let length = self.byte();
        clean_text(&String::from_utf8_lossy(self.bytes(length.into())), chars_max)
    }

    pub fn path(&mut self) -> RelPath {
        let bytes = match self.byte() {
            255 => {
                // As long as paths get.
                let (name, depth) = (vec![b'x'; 1 + self.below(255)], 1 + self.below(path::DEPTH_MAX));
                vec![name; depth].join(&b'/')
            }
            length => self.bytes(usize::from(length) % 48).to_vec(),
        };
        RelPath::parse(&bytes).unwrap_or_else(|_| RelPath::parse(b"dir/file.txt").expect("this is a path"))
    }

    pub fn device(&mut self) -> DeviceId {
        if self.flag() { DeviceId([self.byte(); 32]) } else { DeviceId(self.array()) }
    }

    pub fn content_id(&mut self) -> ContentId {
        if self.flag() { ContentId([self.byte(); 32]) } else { ContentId(self.array()) }
    }

    pub fn content(&mut self) -> Content {
        let (id, depth) = (self.content_id(), self.byte() % (DEPTH_MAX + 1));
        let max = if depth == 0 { CHUNK_BYTES_MAX } else { SIZE_MAX };
        Content { id, depth, size: self.u64().min(max) }
    }

    pub fn disk_kind(&mut self) -> DiskKind {
        [DiskKind::File, DiskKind::Directory, DiskKind::Symlink][self.below(3)]
    }

    pub fn kind(&mut self) -> Kind {
        match self.byte() % 4 {
            0 => Kind::File(self.content()),
            1 => Kind::Directory,
            2 => {
                let length = 1 + self.below(60);
                let target: Vec<u8> = self.bytes(length).iter().map(|b| (*b).max(1)).collect();
                Kind::Symlink(if target.is_empty() { b"x"[..].into() } else { target.into() })
            }
            _ => Kind::Deleted,
        }
    }

    pub fn version(&mut self) -> VersionVector {
        let pairs = self.list(EPOCHS_MAX, |d| (EpochId(d.u64()), d.count()));
        pairs.into_iter().fold(VersionVector::new(), |version, (epoch, count)| version.with(epoch, count))
    }

    pub fn entry(&mut self) -> Entry {
        let (path, kind) = (self.path(), self.kind());
        let is_timeless = matches!(kind, Kind::Directory | Kind::Deleted);
        let (mtime_ns, weight_ns) = if is_timeless { (0, 0) } else { (self.i64(), self.i64()) };
        let meta = Meta {
            stamp: Stamp { count: self.count(), epoch: EpochId(self.u64()) },
            mode: self.flag().then(|| (self.disk_kind(), u32::from(self.byte()))),
            touched: self.flag().then(|| (self.i64(), self.content_id())),
        };
        let author = if self.flag() { self.device() } else { DeviceId::NONE };
        let superseded = self.list(SUPERSEDED_MAX, Self::content_id);
        Entry { path, kind, mtime_ns, weight_ns, version: self.version(), author, superseded, meta }
    }

    pub fn announced(&mut self) -> Announced {
        Announced { entry: self.entry(), seq: self.count(), held: self.flag() }
    }

    fn found(&mut self) -> Vec<(EpochId, u64)> {
        self.list(4000, |d| (EpochId(d.u64()), d.count()))
    }

    pub fn message(&mut self) -> Message {
        match self.byte() % 6 {
            0 => {
                let runs = |d: &mut Self| d.list(RUNS_MAX, |d| (RunId(d.u64()), d.count()));
                let cursor = |d: &mut Self| Cursor { epoch: EpochId(d.u64()), seq: d.count(), runs: runs(d) };
                Message::Hello(Hello {
                    epoch: EpochId(self.u64()),
                    run: RunId(self.u64()),
                    last_seq: self.count(),
                    found: self.found(),
                    cursor: self.flag().then(|| cursor(self)),
                })
            }
            1 => Message::Index(Batch {
                epoch: EpochId(self.u64()),
                run: RunId(self.u64()),
                entries: self.list(1200, Self::announced),
                upto: self.count(),
                more: self.flag(),
            }),
            2 => {
                const REASONS: [Reason; 6] = [
                    Reason::Pending,
                    Reason::Conflict,
                    Reason::Ignored,
                    Reason::Declined,
                    Reason::Held,
                    Reason::Problem,
                ];
                let exception =
                    |d: &mut Self| Exception { path: d.path(), seq: d.count(), reason: REASONS[d.below(6)] };
                Message::Ack(Ack {
                    epoch: EpochId(self.u64()),
                    received: self.count(),
                    applied: self.count(),
                    exceptions: self.list(1200, exception),
                })
            }
            3 => Message::Found(self.found()),
            4 => {
                let (first, step) = (u128::from_be_bytes(self.array()), u128::from(self.u64()));
                Message::Digest(DigestReport {
                    epoch: EpochId(self.u64()),
                    seq: self.count(),
                    seen: self.count(),
                    buckets: (0..BUCKETS as u128).map(|n| first.wrapping_add(n * step)).collect(),
                    is_answer: self.flag(),
                })
            }
            _ => Message::Repair { bucket: self.byte(), entries: self.list(1200, Self::announced) },
        }
    }

    pub fn folder_id(&mut self) -> FolderId {
        let length = self.below(65);
        let text = String::from_utf8_lossy(self.bytes(length));
        text.parse().unwrap_or_else(|_| "default".parse().expect("this is an id"))
    }

    pub fn frame(&mut self) -> Frame {
        match self.byte() % 12 {
            0 => Frame::Hello(DeviceHello {
                protocol: u16::from_be_bytes(self.array()),
                name: self.text(NAME_CHARS_MAX),
                agent: self.text(NAME_CHARS_MAX),
                folders: self.list(FOLDERS_MAX, |d| (d.folder_id(), d.text(NAME_CHARS_MAX))),
                sent_ms: self.flag().then(|| self.u64() as i64),
            }),
            1..=3 => Frame::Folder(self.folder_id(), self.message()),
            4 => {
                let hint = |d: &mut Self| d.flag().then(|| (d.path(), d.u64().min(SIZE_MAX)));
                Frame::Request(Request {
                    id: u32::from_be_bytes(self.array()),
                    folder: self.folder_id(),
                    items: self.list(1024, |d| WantedContent { content: d.content(), hint: hint(d) }),
                })
            }
            5 => {
                let chunk = |d: &mut Self| match d.byte() {
                    255 => Bytes::from(vec![d.byte(); d.below(1 << 16)]),
                    length => Bytes::copy_from_slice(d.bytes(length.into())),
                };
                Frame::Chunks(Chunks {
                    request: u32::from_be_bytes(self.array()),
                    items: self.list(1024, |d| (u16::from_be_bytes(d.array()), chunk(d))),
                })
            }
            6 => Frame::NotHere {
                request: u32::from_be_bytes(self.array()),
                items: self.list(1024, |d| u16::from_be_bytes(d.array())),
            },
            7 => {
                if self.flag() {
                    Frame::Ping(self.u64())
                } else {
                    Frame::Pong(self.u64())
                }
            }
            8 => Frame::Close(self.text(REASON_CHARS_MAX)),
            9 => {
                let content = self.content();
                let size = content.size;
                let range = |d: &mut Self| {
                    let start = d.u64() % size.max(1);
                    (start, 1 + d.u64() % (size - start).max(1))
                };
                let ranges = if size == 0 { Vec::new() } else { self.list(1024, range) };
                Frame::Have(Have { folder: self.folder_id(), content, ranges })
            }
            10 => {
                let given = |d: &mut Self| {
                    let length = 1 + d.below(GIFT_BYTES_MAX);
                    let mut bytes = d.bytes(length).to_vec();
                    bytes.resize(length, 0);
                    Bytes::from(bytes)
                };
                let contents = self.list(GIFT_ITEMS_MAX, given);
                Frame::Gift(Gift { folder: self.folder_id(), contents })
            }
            11 if self.flag() => {
                Frame::Lanes(Lanes { key: LaneKey(self.array()), wanted: u16::from_be_bytes(self.array()) })
            }
            _ => Frame::Unknown(self.byte().max(21)),
        }
    }
}
