//! Where the fuzzer begins: real encodings of every message, and one input of each kind for what is not a message.
//!
//! The seeds are committed in `fuzz/seeds`. This test makes them anew and compares, so that a frame that is written
//! differently than before is noticed; `FUZZ_WRITE_SEEDS=1` writes them instead. Inputs whose names begin with `found-`
//! once broke something and are kept for ever.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use p2psync::core::content::{ChunkList, Content, ContentId};
use p2psync::core::disk::DiskKind;
use p2psync::core::entry::{Entry, Kind, Meta, Stamp};
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::message::{Ack, Announced, BUCKETS, Batch, Cursor, DigestReport, Exception, Hello, Message, Reason};
use p2psync::core::path::RelPath;
use p2psync::core::version::VersionVector;
use p2psync::fs::history::{Shown, slot_name};
use p2psync::net::announcement::Announcement;
use p2psync::net::codec::{decode, encode};
use p2psync::net::frame::{AskPast, Chunks, DeviceHello, Frame, Gift, Have, Lanes, Past, Request, WantedContent};
use p2psync::net::identity::Identity;
use p2psync::net::lane::LaneKey;
use p2psync::net::pairing::{Greeting, write_greeting};
use p2psync::net::pairing_code::{Nameplate, PairingCode};
use p2psync::net::wire_chunks::encode_packed;

use super::seeds_dir;

/// Bytes in an announcement before its array: magic, version, signature.
const ANNOUNCEMENT_HEAD_BYTES: usize = 72;
const DEVICE: DeviceId = DeviceId([0x21; 32]);

type Seeds = Vec<(&'static str, String, Vec<u8>)>;

#[test]
fn the_seeds_are_what_is_written_today() {
    let is_writing = std::env::var_os("FUZZ_WRITE_SEEDS").is_some();
    for (target, name, bytes) in all() {
        let path = seeds_dir(target).join(&name);
        if is_writing {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        check(&path, &bytes);
    }
}

fn check(path: &Path, bytes: &[u8]) {
    let kept = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}; FUZZ_WRITE_SEEDS=1 writes it", path.display()));
    // Another version of zstd may pack in another way; what is said has to be the same.
    let is_same = if path.ends_with("squeezed") {
        decode(Bytes::copy_from_slice(&kept)) == decode(Bytes::copy_from_slice(bytes))
    } else {
        kept == bytes
    };
    assert!(is_same, "{} is written differently now; if that is meant: FUZZ_WRITE_SEEDS=1", path.display());
}

fn all() -> Seeds {
    let mut all = Vec::new();
    network(&mut all);
    typed(&mut all);
    texts(&mut all);
    disk(&mut all);
    all
}

fn add(all: &mut Seeds, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
    all.push((target, name.to_owned(), bytes.into()));
}

fn network(all: &mut Seeds) {
    let mut stream = Vec::new();
    for (name, frame) in frames() {
        let bytes = encode(&frame).unwrap().parts().concat();
        add(all, "frame", name, &bytes[4..]);
        if bytes.len() < 1000 {
            stream.extend_from_slice(&bytes);
        }
    }
    let packed = Chunks { request: 7, items: vec![(0, vec![b'a'; 500].into()), (9, Bytes::from_static(b"seed"))] };
    let packed = encode_packed(&packed).unwrap().expect("it shrinks").parts().concat();
    add(all, "frame", "chunks-compressed", &packed[4..]);
    add(all, "stream", "whole", [&[0, 0][..], &stream].concat());
    add(all, "stream", "interrupted", [&[0, 12, 1, 0, 3, 0, 0, 9, 60, 0, 200, 1, 1, 0][..], &stream].concat());
    add(all, "stream", "after-a-hello", [&[1, 3, 0, 5, 0][..], &stream[stream.len() / 2..]].concat());
    add(all, "stream", "too-long", [&[1, 0][..], &u32::MAX.to_be_bytes()].concat());
    for kind in 0u8..11 {
        for message in 0u8..if kind == 1 { 6 } else { 1 } {
            let drawn: Vec<u8> = (0u8..120).map(|n| n.wrapping_mul(37).wrapping_add(kind)).collect();
            let seed = [&[kind, 7][..], b"default", &[message], &drawn].concat();
            add(all, "value", &format!("kind-{kind}-{message}"), seed);
        }
    }
    let identity = Identity::generate();
    for (name, pairing) in [("plain", None), ("pairing", Nameplate::from_bytes(b"7K"))] {
        let announcement = Announcement { device: identity.device_id(), port: 7724, pairing, instance: 42 };
        let mut body = announcement.seal(&identity).split_off(ANNOUNCEMENT_HEAD_BYTES);
        // The target signs with a key of its own, so the device in here does not matter.
        body[3..35].fill(0x44);
        add(all, "announcement", name, [&[1][..], &body].concat());
        add(all, "announcement", &format!("{name}-later"), [&[1][..], &body, b"\xc3more"].concat());
    }
    add(all, "announcement", "not-signed", [0; 80]);
    let folders = vec![(folder(), "Räume".to_owned()), ("photos.2".parse().unwrap(), "Photos".to_owned())];
    for (name, folders) in [("folders", folders), ("alone", Vec::new())] {
        let greeting = Greeting { name: "desk".into(), folders };
        add(all, "greeting", name, write_greeting(&greeting).unwrap());
    }
    add(all, "pairing", "undisturbed", [2]);
    for (name, edit) in
        [("flip", [0, 5, 0, 1]), ("insert", [1, 40, 1, 7]), ("drop", [0, 80, 2, 0]), ("late", [1, 90, 0, 4])]
    {
        add(all, "pairing", name, [&[2][..], &edit].concat());
    }
    add(all, "pairing", "liar-to-joiner", [&[0, 0, 34, 1, 0x42][..], &[9; 32], &[0, 33, 2], &[3; 32]].concat());
    add(all, "pairing", "liar-to-shower", [&[1, 0, 34, 1, 0x41][..], &[9; 32], &[0, 33, 2], &[3; 32]].concat());
    add(all, "pairing", "refusal", [0, 0, 2, 4, 1]);
}

fn typed(all: &mut Seeds) {
    let code = PairingCode::generate([1, 2, 3, 4, 5]);
    add(all, "code", "code", code.to_string());
    add(all, "code", "code-typed", format!(" {} ", code.to_string().to_lowercase().replace('-', "\u{2013}")));
    add(all, "code", "nameplate", code.nameplate().as_bytes());
    add(all, "code", "device", DEVICE.to_string());
    add(all, "code", "device-typed", DEVICE.to_string().to_lowercase().replace('-', ""));
    add(all, "code", "folder", "my-photos_2026.1");
    for (name, text) in [
        ("name", "default"),
        ("path", "path=/home/me/a+b%ffc%25"),
        ("count", "count=100"),
        ("code", r#"{"code":"0000-0000"}"#),
        ("folder", r#"{"folder":null}"#),
        ("restore-time", r#"{"path":"/a%ff","when":{"at_ms":-5}}"#),
        ("restore-latest", r#"{"path":"/a","when":"latest"}"#),
        ("restore-id", r#"{"path":"/a","when":{"id":"x"}}"#),
    ] {
        add(all, "api", name, text);
    }
}

fn texts(all: &mut Seeds) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    add(all, "config", "example", fs::read(root.join("config.example.toml")).unwrap());
    let peer = DEVICE.to_string();
    for (name, text) in [
        ("empty", String::new()),
        ("name", "name = 'desk' # here\n".into()),
        (
            "peers",
            format!("# a\n[[peer]] # b\nid = \"{peer}\" # c\n# d\naddresses = [\n  \"a.example:7724\", # e\n]\n# f\n"),
        ),
        (
            "folders",
            "[[folder]]\nid = \"x\"\npath = \"~/x\"\npeers = [] # none\npaused = false # yet\n\n# end\n".into(),
        ),
        (
            "shared",
            format!("[[peer]]\nid = \"{peer}\"\nname = \"p\"\n[[folder]]\nid = \"x\"\npath = \"/x\"\npeers = \"p\"\n"),
        ),
        ("inline", format!("peer = [{{ id = \"{peer}\" }}]\nfolder = []\n[sync]\nhistory_days = 9\n")),
        ("mistake", "[network]\nlisten = \"nowhere\"\n".into()),
    ] {
        add(all, "config", name, text);
    }
    for (name, rules) in [
        ("plain", "# comment\n*.tmp\n!keep.tmp\n/build/\ndocs/**/*.pdf\n\0a.tmp\0keep.tmp\0build/x\0docs/a/b/c.pdf"),
        ("classes", "[a-c]*.[!o]\n\\#x\n\\!y\nend\\ \n{a,b}\n[]x]\n\0abc.x\0#x\0!y\0end \0{a,b}\0]"),
        ("stars", "a*b*c*d\n**/x/**\n?\n**\n!**/\n\0aXbXcXd\0q/x/r\0z"),
        ("mistakes", "[z-a]\n[\n\\\na\r\n\u{feff}b\n\0a\0b"),
        ("built-in", "\0.DS_Store\0a/Thumbs.db\0lost+found/x\0.p2pignore\0$RECYCLE.BIN/x"),
    ] {
        add(all, "ignore", name, rules);
    }
}

fn disk(all: &mut Seeds) {
    for (name, paths) in [
        ("pair", &b"a/b c/\xc3\xa9.txt\0a/b"[..]),
        ("order", b"a-b/x\0a/x"),
        ("own", b"x/.P2PSync\0.p2psync"),
        ("folded", ".p2p\u{17f}ync\0p2psyn~1".as_bytes()),
        ("dots", b"a/../b\0."),
    ] {
        add(all, "path", name, paths);
    }
    let content = ContentId([0xab; 32]);
    for (name, path) in [("plain", "dir/report.odt"), ("conflict", "a.conflict-20261122-140312-K3QZ7AB-00ff00ff.txt")] {
        for flags in 0u8..4 {
            let head = [&1_700_000_000_000i64.to_be_bytes()[..], &7u32.to_be_bytes(), &[flags], &content.0].concat();
            add(all, "slot", &format!("{name}-{flags}"), [&head[..], path.as_bytes()].concat());
        }
    }
    let slot = slot_name(&path("dir/x.txt"), Shown::Content(content), 1_700_000_000_000, 3);
    add(all, "slot", "slot", [&[0; 45][..], slot.as_bytes()].concat());
    let chunks: Vec<Content> = (0u8..3).map(|n| Content::of_chunk(&vec![n; 70_000])).collect();
    let list = ChunkList::new(chunks).unwrap();
    let above = ChunkList::new(vec![list.content(), list.content()]).unwrap();
    add(all, "list", "list", [&[1][..], &list.body()].concat());
    add(all, "list", "lists", [&[2][..], &above.body()].concat());
    add(all, "list", "sums", [&[9][..], &list.body()].concat());
    // One change each: to a table and a column, of every row, with a value of each kind.
    for table in 0u8..13 {
        for (kind, value) in [(0u8, &[][..]), (1, &[200]), (6, &[4, 1, 2, 3, 4])] {
            let column = table.wrapping_mul(3).wrapping_add(kind) % 20;
            for writes in [0, 1] {
                let change = [&[writes, table, column, 0, 0, kind][..], value].concat();
                add(all, "row", &format!("table-{table}-{kind}-{writes}"), change);
            }
        }
    }
}

fn folder() -> FolderId {
    "default".parse().unwrap()
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn entries() -> Vec<Announced> {
    let content = Content::of_chunk(b"seed");
    let large = Content { id: ContentId([5; 32]), depth: 2, size: 1 << 40 };
    let kinds =
        [Kind::File(content), Kind::Directory, Kind::Symlink(b"../there"[..].into()), Kind::Deleted, Kind::File(large)];
    let version = VersionVector::new().with(EpochId(3), 4).with(EpochId(u64::MAX), i64::MAX as u64);
    let entry = |(n, kind): (usize, Kind)| {
        let times =
            if matches!(kind, Kind::Directory | Kind::Deleted) { (0, 0) } else { (1_700_000_000_000_000_001, -5) };
        let meta = Meta {
            stamp: Stamp { count: 5, epoch: EpochId(3) },
            mode: Some((DiskKind::File, 0o755)),
            touched: Some((-77, content.id)),
        };
        let entry = Entry {
            kind,
            mtime_ns: times.0,
            weight_ns: times.1,
            version: version.clone(),
            author: if n == 0 { DEVICE } else { DeviceId::NONE },
            superseded: vec![content.id; n],
            meta: if n == 0 { meta } else { Meta::default() },
            ..Entry::nothing(path(&format!("dir/{n} é.txt")))
        };
        Announced { entry, seq: n as u64 + 1, held: n % 2 == 0 }
    };
    kinds.into_iter().enumerate().map(entry).collect()
}

fn frames() -> Vec<(&'static str, Frame)> {
    let about = |message| Frame::Folder(folder(), message);
    let cursor = Cursor { epoch: EpochId(9), seq: 77, runs: vec![(RunId(1), 5), (RunId(2), 77)] };
    let found = vec![(EpochId(1), 100), (EpochId(2), i64::MAX as u64)];
    let hello = |cursor| Hello { epoch: EpochId(1), run: RunId(2), last_seq: 3, found: found.clone(), cursor };
    let reasons = [Reason::Pending, Reason::Conflict, Reason::Ignored, Reason::Declined, Reason::Held, Reason::Problem];
    let exception = |(seq, reason)| Exception { path: path(&format!("p{seq}")), seq, reason };
    let exceptions: Vec<_> = (1..).zip(reasons).map(exception).collect();
    let ack = Ack { epoch: EpochId(1), received: 9, applied: 8, exceptions };
    let buckets: Vec<u128> = (0..BUCKETS as u128).map(|n| n << 100 | n).collect();
    let digest = DigestReport { epoch: EpochId(1), seq: 9, seen: 8, buckets, is_answer: true };
    let batch = |entries| Message::Index(Batch { epoch: EpochId(1), run: RunId(2), entries, upto: 5000, more: true });
    let many = (0..40u64).map(|seq| Announced { seq, ..entries().remove(1) }).collect();
    let large = Content { depth: 1, size: 1 << 30, ..Content::of_chunk(b"list") };
    let wanted = |hint| WantedContent { content: Content::of_chunk(b"seed"), hint };
    let items = vec![wanted(None), wanted(Some((path("a/b"), 1 << 33)))];
    let chunks = vec![(0, Bytes::from_static(b"seed")), (9, Bytes::new())];
    let folders = vec![(folder(), "P2PSync".into()), ("x".parse().unwrap(), "Räume".into())];
    let device_hello = DeviceHello {
        protocol: 1,
        name: "desk".into(),
        agent: "p2psync 0.1.0".into(),
        folders,
        sent_ms: Some(1_764_000_000_000),
    };
    vec![
        ("hello", Frame::Hello(device_hello)),
        ("folder-hello", about(Message::Hello(hello(Some(cursor))))),
        ("folder-hello-first", about(Message::Hello(hello(None)))),
        ("index-empty", about(batch(Vec::new()))),
        ("index-one", about(batch(entries().split_off(3)))),
        ("squeezed", about(batch(many))),
        ("ack", about(Message::Ack(ack))),
        ("found", about(Message::Found(found.clone()))),
        ("digest", about(Message::Digest(digest))),
        ("repair", about(Message::Repair { bucket: 200, entries: entries().drain(1..3).collect() })),
        ("request", Frame::Request(Request { id: 7, folder: folder(), items })),
        ("chunks", Frame::Chunks(Chunks { request: 7, items: chunks })),
        ("not-here", Frame::NotHere { request: 7, items: vec![0, 5, u16::MAX] }),
        ("have", Frame::Have(Have { folder: folder(), content: large, ranges: vec![(0, 1 << 20), (5 << 20, 7)] })),
        ("gift", Frame::Gift(Gift { folder: folder(), contents: vec![Bytes::from_static(b"small")] })),
        ("ask-past", Frame::AskPast(AskPast { id: 7, folder: folder(), path: None })),
        ("past", Frame::Past(Past { id: 7, folder: folder(), versions: Vec::new() })),
        ("lanes", Frame::Lanes(Lanes { key: LaneKey([7; 16]), wanted: 3 })),
        ("ping", Frame::Ping(1)),
        ("pong", Frame::Pong(u64::MAX)),
        ("close", Frame::Close("bye".into())),
        ("unknown", Frame::Unknown(99)),
    ]
}
