//! Tests of the codec: round trips, limits, hostile bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::core::content::{CHUNK_BYTES_MAX, Content, ContentId, SIZE_MAX};
use crate::core::disk::DiskKind;
use crate::core::entry::{Entry, Kind, LINK_BYTES_MAX, Meta, Stamp};
use crate::core::id::{DeviceId, EpochId, RunId};
use crate::core::message::{Ack, Announced, BUCKETS, Batch, Cursor, DigestReport, Exception, Hello, Reason};
use crate::core::path::{PATH_BYTES_MAX, RelPath};
use crate::core::version::{COUNT_MAX, VersionVector};
use crate::net::bounds::{encoded_entry_bytes_bound, fit};
use crate::net::frame::{Chunks, Gift, Have, Lanes};
use crate::net::lane::LaneKey;
use crate::net::wire_chunks::GATHER_BYTES_MAX;

fn bytes_of(encoded: &Encoded) -> Bytes {
    let all = encoded.parts().concat();
    assert_eq!(u32::from_be_bytes(all[..4].try_into().unwrap()) as usize, all.len() - 4);
    Bytes::from(all).slice(4..)
}

fn read_back(frame: &Frame) -> Frame {
    decode(bytes_of(&encode(frame).unwrap())).unwrap()
}

fn folder() -> FolderId {
    "default".parse().unwrap()
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(vec(any::<u8>(), 1..20), 1..4).prop_filter_map("valid", |parts| RelPath::parse(&parts.join(&b'/')).ok())
}

fn content() -> impl Strategy<Value = Content> {
    (any::<[u8; 32]>(), 0u8..4, any::<u64>()).prop_map(|(id, depth, size)| {
        let size = if depth == 0 { size % (CHUNK_BYTES_MAX + 1) } else { size & SIZE_MAX };
        Content { id: ContentId(id), depth, size }
    })
}

fn seq() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(COUNT_MAX), 0..COUNT_MAX]
}

fn kind() -> impl Strategy<Value = Kind> {
    let target = vec(1u8.., 1..30).prop_map(|t| Kind::Symlink(t.into()));
    prop_oneof![content().prop_map(Kind::File), Just(Kind::Directory), Just(Kind::Deleted), target]
}

fn meta() -> impl Strategy<Value = Meta> {
    let on = prop_oneof![Just(DiskKind::File), Just(DiskKind::Directory), Just(DiskKind::Symlink)];
    let touched = option::of((any::<i64>(), any::<[u8; 32]>().prop_map(ContentId)));
    (seq(), any::<u64>(), option::of((on, 0u32..0o1000)), touched).prop_map(|(count, epoch, mode, touched)| Meta {
        stamp: Stamp { count, epoch: EpochId(epoch) },
        mode,
        touched,
    })
}

fn announced() -> impl Strategy<Value = Announced> {
    let counts = proptest::collection::btree_map(any::<u64>(), 1..COUNT_MAX, 0..6);
    let superseded = vec(any::<[u8; 32]>().prop_map(ContentId), 0..9);
    let times = any::<(i64, i64)>();
    (path(), kind(), times, counts, any::<[u8; 32]>(), superseded, meta(), seq(), any::<bool>()).prop_map(
        |(path, kind, times, counts, author, superseded, meta, seq, held)| {
            let timeless = matches!(kind, Kind::Directory | Kind::Deleted);
            let (mtime_ns, weight_ns) = if timeless { (0, 0) } else { times };
            let pairs = counts.into_iter().map(|(e, c)| (EpochId(e), c)).collect();
            let (version, author) = (VersionVector::from_pairs(pairs).unwrap(), DeviceId(author));
            Announced { entry: Entry { path, kind, mtime_ns, weight_ns, version, author, superseded, meta }, seq, held }
        },
    )
}

fn counts() -> impl Strategy<Value = Vec<(EpochId, u64)>> {
    vec((any::<u64>().prop_map(EpochId), seq()), 0..10)
}

fn message() -> impl Strategy<Value = Message> {
    let epoch = || any::<u64>().prop_map(EpochId);
    let cursor = (epoch(), seq(), vec((any::<u64>().prop_map(RunId), seq()), 0..RUNS_MAX))
        .prop_map(|(epoch, seq, runs)| Cursor { epoch, seq, runs });
    let hello = (epoch(), any::<u64>(), seq(), counts(), option::of(cursor)).prop_map(
        |(epoch, run, last_seq, found, cursor)| {
            Message::Hello(Hello { epoch, run: RunId(run), last_seq, found, cursor })
        },
    );
    let index = (epoch(), any::<u64>(), vec(announced(), 0..8), seq(), any::<bool>()).prop_map(
        |(epoch, run, entries, upto, more)| Message::Index(Batch { epoch, run: RunId(run), entries, upto, more }),
    );
    let reason =
        prop_oneof![Just(Reason::Pending), Just(Reason::Conflict), Just(Reason::Declined), Just(Reason::Problem)];
    let exception = (path(), seq(), reason).prop_map(|(path, seq, reason)| Exception { path, seq, reason });
    let ack = (epoch(), seq(), seq(), vec(exception, 0..8))
        .prop_map(|(epoch, received, applied, exceptions)| Message::Ack(Ack { epoch, received, applied, exceptions }));
    let digest = (epoch(), seq(), seq(), vec(any::<u128>(), BUCKETS), any::<bool>()).prop_map(
        |(epoch, seq, seen, buckets, is_answer)| Message::Digest(DigestReport { epoch, seq, seen, buckets, is_answer }),
    );
    let repair =
        (any::<u8>(), vec(announced(), 0..8)).prop_map(|(bucket, entries)| Message::Repair { bucket, entries });
    prop_oneof![hello, index, ack, counts().prop_map(Message::Found), digest, repair]
}

fn frame() -> impl Strategy<Value = Frame> {
    let label = "[a-z ]{0,10}[a-z]";
    let folders = vec((Just(folder()), label.prop_map(|l| l.trim().into())), 0..5);
    let hello = (any::<u16>(), label, label, folders, option::of(any::<i64>())).prop_map(
        |(protocol, name, agent, folders, sent_ms)| {
            let (name, agent) = (name.trim().into(), agent.trim().into());
            Frame::Hello(DeviceHello { protocol, name, agent, folders, sent_ms })
        },
    );
    let wanted =
        (content(), option::of((path(), 0..SIZE_MAX))).prop_map(|(content, hint)| WantedContent { content, hint });
    let request = (any::<u32>(), vec(wanted, 0..10))
        .prop_map(|(id, items)| Frame::Request(Request { id, folder: folder(), items }));
    let chunk = prop_oneof![vec(any::<u8>(), 0..100), Just(vec![7; GATHER_BYTES_MAX])].prop_map(Bytes::from);
    let chunks = (any::<u32>(), vec((any::<u16>(), chunk), 0..10))
        .prop_map(|(request, items)| Frame::Chunks(Chunks { request, items }));
    let not_here =
        (any::<u32>(), vec(any::<u16>(), 0..20)).prop_map(|(request, items)| Frame::NotHere { request, items });
    let range = |size: u64| (0..size, 1..=size).prop_map(move |(start, length)| (start, length.min(size - start)));
    let have = content().prop_filter("not empty", |content| content.size > 0).prop_flat_map(move |content| {
        vec(range(content.size), 0..10).prop_map(move |ranges| Frame::Have(Have { folder: folder(), content, ranges }))
    });
    let given = vec(any::<u8>(), 1..100).prop_map(Bytes::from);
    let gift = vec(given, 0..=4).prop_map(|contents| Frame::Gift(Gift { folder: folder(), contents }));
    let folder_message = message().prop_map(|m| Frame::Folder(folder(), m));
    let small = prop_oneof![
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(key, wanted)| Frame::Lanes(Lanes { key: LaneKey(key), wanted })),
        (21u8..).prop_map(Frame::Unknown)
    ];
    prop_oneof![
        hello,
        folder_message,
        request,
        chunks,
        not_here,
        have,
        gift,
        small,
        "[a-z]{0,9}".prop_map(Frame::Close)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_frame_reads_back(frame in frame()) {
        prop_assert_eq!(read_back(&frame), frame);
    }

    #[test]
    fn frames_cut_short_or_changed_never_panic_and_stay_bounded(frame in frame(), cut in any::<prop::sample::Index>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let bytes = bytes_of(&encode(&frame).unwrap());
        let _ = decode(bytes.slice(..cut.index(bytes.len())));
        let mut changed = bytes.to_vec();
        for (at, by) in flips {
            let at = at.index(changed.len());
            changed[at] ^= by;
        }
        let _ = decode(changed.into());
    }

    #[test]
    fn garbage_never_panics(kind in 0u8..22, flag in 0u8..3, body in vec(any::<u8>(), 0..300)) {
        let _ = decode([&[kind, flag][..], &body].concat().into());
        let _ = decode([&[kind][..], &body].concat().into());
        // Plausible beginnings get deeper into the decoder.
        let _ = decode([&[kind, 0, 0x92, 0xa1, b'x'][..], &body].concat().into());
        let _ = decode([&[kind, 0x92, 0xa1, b'x'][..], &body].concat().into());
    }

    #[test]
    fn an_entry_takes_no_more_than_its_bound(announced in announced()) {
        let encoded = pack("index", &WireAnnounced::from(&announced)).unwrap();
        prop_assert!(encoded.len() <= encoded_entry_bytes_bound(&announced));
    }
}

fn entry(path: &[u8], seq: u64) -> Announced {
    let mut entry = Entry::nothing(RelPath::parse(path).unwrap());
    entry.version = VersionVector::new().with(EpochId(1), seq.max(1));
    Announced { entry, seq, held: true }
}

/// The longest path there is, made different by `n`.
fn long_path(n: u64) -> Vec<u8> {
    let component = [&[b'x'; 234][..], format!("{n:020}").as_bytes()].concat();
    let mut path = vec![component; PATH_BYTES_MAX / 255].join(&b'/');
    path.truncate(PATH_BYTES_MAX);
    path
}

fn batch(entries: Vec<Announced>) -> Message {
    Message::Index(Batch { epoch: EpochId(1), run: RunId(2), entries, upto: 5000, more: false })
}

fn index_frame_of(entries: &impl Serialize) -> Bytes {
    let body = pack("index", &("default", (1u64, 2u64, entries, 9u64, false))).unwrap();
    bytes_of(&finish(INDEX, [&[PLAIN], &body[..]].concat(), FRAME_BYTES_MAX).unwrap())
}

/// A well-formed tombstone on the wire, to be changed in one place.
type RawEntry = (
    (u64, bool, serde_bytes::ByteBuf, u8),
    (Option<(serde_bytes::ByteBuf, u8, u64)>, Option<serde_bytes::ByteBuf>, i64, i64),
    (Vec<(u64, u64)>, Option<serde_bytes::ByteBuf>, Vec<serde_bytes::ByteBuf>),
    (u64, u64, Option<(u8, u32)>, Option<(i64, serde_bytes::ByteBuf)>),
);

fn raw() -> RawEntry {
    let path = serde_bytes::ByteBuf::from(b"a/b".to_vec());
    ((1, true, path, 3), (None, None, 0, 0), (vec![(1, 1)], None, vec![]), (0, 0, None, None))
}

fn decode_raw(raw: &RawEntry) -> Result<Frame, CodecError> {
    let ((seq, held, path, kind), (content, link, mtime, weight), (version, author, superseded), meta) = raw;
    let flat = (seq, held, path, kind, content, link, mtime, weight, version, author, superseded, meta);
    decode(index_frame_of(&[flat]))
}

#[test]
fn every_lie_about_an_entry_is_refused_with_the_name_of_the_field() {
    let buf = |bytes: &[u8]| serde_bytes::ByteBuf::from(bytes.to_vec());
    let id = buf(&[1; 32]);
    type Lie = Box<dyn Fn(&mut RawEntry)>;
    let with = |(kind, content): (u8, (serde_bytes::ByteBuf, u8, u64))| -> Lie {
        Box::new(move |r| (r.0.3, r.1.0) = (kind, Some(content.clone())))
    };
    let link = |target: Vec<u8>| -> Lie {
        Box::new(move |r| (r.0.3, r.1.1) = (2, Some(serde_bytes::ByteBuf::from(target.clone()))))
    };
    let path = |path: &'static [u8]| -> Lie { Box::new(move |r| r.0.2 = serde_bytes::ByteBuf::from(path.to_vec())) };
    let lies: Vec<(&str, Lie)> = vec![
        ("seq", Box::new(|r| r.0.0 = u64::MAX)),
        ("path", path(b"../etc/passwd")),
        ("path", path(b"/etc/passwd")),
        ("path", path(b"a/.p2psync/x")),
        ("path", path(b"a\0b")),
        ("kind", Box::new(|r| r.0.3 = 4)),
        ("kind", with((1, (id.clone(), 0, 1)))),
        ("kind", Box::new(|r| r.1.1 = Some(serde_bytes::ByteBuf::from(b"t".to_vec())))),
        ("content", with((0, (id.clone(), 4, 1)))),
        ("content", with((0, (id.clone(), 0, CHUNK_BYTES_MAX + 1)))),
        ("content", with((0, (id.clone(), 1, u64::MAX)))),
        ("link", link(vec![])),
        ("link", link(b"a\0b".to_vec())),
        ("link", link(vec![b'x'; LINK_BYTES_MAX + 1])),
        ("mtime", Box::new(|r| r.1.2 = 1)),
        ("mtime", Box::new(|r| r.1.3 = 1)),
        ("version", Box::new(|r| r.2.0 = vec![(2, 1), (1, 1)])),
        ("version", Box::new(|r| r.2.0 = vec![(1, 0)])),
        ("version", Box::new(|r| r.2.0 = vec![(1, u64::MAX)])),
        ("stamp", Box::new(|r| r.3.0 = u64::MAX)),
        ("mode", Box::new(|r| r.3.2 = Some((9, 0o644)))),
    ];
    assert!(decode_raw(&raw()).is_ok());
    for (expected, lie) in lies {
        let mut told = raw();
        lie(&mut told);
        match decode_raw(&told) {
            Err(CodecError::Field { field, frame: "index", .. }) => assert_eq!(field, expected, "{told:?}"),
            other => panic!("{expected}: {told:?} came back as {other:?}"),
        }
    }
}

#[test]
fn lists_and_hashes_of_the_wrong_length_are_refused() {
    let buf = |length: usize| serde_bytes::ByteBuf::from(vec![1; length]);
    let mut cases = vec![raw(); 4];
    cases[0].2.0 = (0..257).map(|i| (i, 1)).collect();
    cases[1].2.2 = vec![buf(32); 9];
    cases[2].2.2 = vec![buf(31)];
    cases[3].2.1 = Some(buf(33));
    for case in cases {
        assert!(matches!(decode_raw(&case), Err(CodecError::Malformed { frame: "index", .. })), "{case:?}");
    }
}

#[test]
fn set_user_id_bits_do_not_get_through() {
    let mut told = raw();
    told.3.2 = Some((0, 0o104755));
    let Ok(Frame::Folder(_, Message::Index(batch))) = decode_raw(&told) else { panic!("not an index") };
    assert_eq!(batch.entries[0].entry.meta.mode, Some((DiskKind::File, 0o755)));
}

#[test]
fn a_list_that_claims_billions_of_elements_is_refused_at_once() {
    for claimed in [1001u32, u32::MAX] {
        let array = [&[0x92, 0xa1, b'x', 0x95, 1, 2, 0xdd][..], &claimed.to_be_bytes()].concat();
        let error = decode([&[INDEX, PLAIN][..], &array].concat().into()).unwrap_err().to_string();
        assert!(error.contains("more than 1000 elements"), "{error}");
    }
    let blob = [&[INDEX, PLAIN, 0x92, 0xa1, b'x', 0x95, 1, 2, 0x91, 0x9c, 1, 0xc3, 0xc6][..], &[0xff; 4]].concat();
    assert!(decode(blob.into()).is_err());
}

#[test]
fn deep_nesting_is_refused_without_exhausting_the_stack() {
    for kind in [HELLO, FOLDER_HELLO, FOUND, DIGEST, REQUEST, NOT_HERE] {
        assert!(decode([&[kind][..], &[0x91; 1_000_000]].concat().into()).is_err());
    }
    assert!(decode([&[INDEX, PLAIN][..], &[0x91; 1_000_000]].concat().into()).is_err());
}

#[test]
fn a_decompression_bomb_stays_within_the_announced_length() {
    let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 1).unwrap();
    for announced in [1000u32, BODY_BYTES_MAX as u32, BODY_BYTES_MAX as u32 + 1, u32::MAX] {
        let frame = [&[INDEX, ZSTD][..], &announced.to_be_bytes(), &bomb].concat();
        assert!(decode(frame.into()).is_err());
    }
    let short = zstd::bulk::compress(b"abc", 1).unwrap();
    assert!(decode([&[INDEX, ZSTD][..], &100u32.to_be_bytes(), &short].concat().into()).is_err());
}

#[test]
fn chunks_that_lie_about_their_length_are_refused() {
    let head = |length: u32| [&[CHUNKS, 0, 0, 0, 1, 0, 0][..], &length.to_be_bytes()].concat();
    assert!(decode([head(3), b"abc".to_vec()].concat().into()).is_ok());
    assert!(decode([head(4), b"abc".to_vec()].concat().into()).is_err());
    assert!(decode([head(2), b"abc".to_vec()].concat().into()).is_err());
    assert!(decode([head(CHUNK_BYTES_MAX as u32 + 1), vec![0; CHUNK_BYTES_MAX as usize + 1]].concat().into()).is_err());
    let empty_ones = [&[CHUNKS, 0, 0, 0, 1][..], &[0; 6 * (REQUEST_ITEMS_MAX + 1)]].concat();
    assert!(matches!(decode(empty_ones.into()), Err(CodecError::Field { field: "items", .. })));
}

#[test]
fn a_chunk_of_the_largest_size_fits_and_a_frame_too_long_is_not_sent() {
    let large = Bytes::from(vec![1; CHUNK_BYTES_MAX as usize]);
    let one = Frame::Chunks(Chunks { request: 1, items: vec![(0, large.clone())] });
    assert_eq!(read_back(&one), one);
    let two = Frame::Chunks(Chunks { request: 1, items: vec![(0, large.clone()), (1, large)] });
    assert!(matches!(encode(&two), Err(CodecError::TooLong { .. })));
}

#[test]
fn what_a_later_version_appends_to_a_frame_is_ignored() {
    let hello = DeviceHello { protocol: 9, name: "desk".into(), agent: "later".into(), folders: vec![], sent_ms: None };
    let mut bytes = bytes_of(&encode(&Frame::Hello(hello.clone())).unwrap()).to_vec();
    bytes.extend_from_slice(&[0x93, 1, 2, 3]);
    assert_eq!(decode(bytes.into()), Ok(Frame::Hello(hello)));
    assert_eq!(decode(vec![200, 1, 2, 3].into()), Ok(Frame::Unknown(200)));
}

#[test]
fn names_from_a_peer_are_cut_and_cleaned() {
    let name = format!("ev\u{1b}[31mil\u{202e}{}", "x".repeat(100));
    let hello = DeviceHello {
        protocol: 1,
        name,
        agent: String::new(),
        folders: vec![(folder(), "a\nb".into())],
        sent_ms: None,
    };
    let Frame::Hello(heard) = read_back(&Frame::Hello(hello)) else { panic!("not a hello") };
    assert!(heard.name.starts_with("ev[31milxxx") && heard.name.chars().count() == NAME_CHARS_MAX);
    assert_eq!(heard.folders[0].1, "ab");
}

#[test]
fn a_message_too_large_for_a_frame_is_cut_so_that_every_part_fits_and_nothing_is_lost() {
    let path = |n: u64| if n <= 80 { long_path(n) } else { n.to_string().into_bytes() };
    let entries: Vec<_> = (1..=1500).map(|n| entry(&path(n), n)).collect();
    let parts = fit(batch(entries.clone()));
    let mut together = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        assert_eq!(&read_back(&Frame::Folder(folder(), part.clone())), &Frame::Folder(folder(), part.clone()));
        let Message::Index(part) = part else { panic!("not an index") };
        together.extend(part.entries.clone());
        let is_last = i + 1 == parts.len();
        assert_eq!((part.more, part.upto), (!is_last, if is_last { 5000 } else { together.last().unwrap().seq }));
    }
    assert_eq!(together, entries);
    assert_eq!(fit(batch(vec![])), vec![batch(vec![])]);
}

#[test]
fn an_acknowledgement_takes_back_what_its_exceptions_have_no_room_for() {
    let exception = |seq| Exception { path: RelPath::parse(&long_path(seq)).unwrap(), seq, reason: Reason::Pending };
    let ack = Ack { epoch: EpochId(1), received: 99, applied: 99, exceptions: (1..=99).rev().map(exception).collect() };
    let [Message::Ack(cut)] = &fit(Message::Ack(ack))[..] else { panic!("not one acknowledgement") };
    let last = cut.exceptions.last().unwrap().seq;
    assert!(last < 99 && cut.applied == last && cut.received == 99);
    assert!(encode(&Frame::Folder(folder(), Message::Ack(cut.clone()))).is_ok());
}

#[test]
fn a_request_drops_the_hints_that_do_not_fit_but_no_item() {
    let content = Content::of_chunk(b"x");
    let items = (0..REQUEST_ITEMS_MAX as u64)
        .map(|n| WantedContent { content, hint: Some((RelPath::parse(&long_path(n)).unwrap(), SIZE_MAX)) })
        .collect();
    let Frame::Request(read) = read_back(&Frame::Request(Request { id: u32::MAX, folder: folder(), items })) else {
        panic!("not a request")
    };
    assert_eq!(read.items.len(), REQUEST_ITEMS_MAX);
    assert!(read.items[0].hint.is_some() && read.items[1023].hint.is_none());
}

#[test]
fn the_bytes_of_frames_never_change() {
    let hex = |frame: &Frame| crate::core::id::hex(&encode(frame).unwrap().parts().concat());
    let hello = DeviceHello {
        protocol: 1,
        name: "desk".into(),
        agent: "p2psync".into(),
        folders: vec![(folder(), "L".into())],
        sent_ms: None,
    };
    assert_eq!(hex(&Frame::Hello(hello.clone())), "0000001c019401a46465736ba770327073796e639192a764656661756c74a14c");
    let timed = DeviceHello { sent_ms: Some(5), ..hello };
    assert_eq!(hex(&Frame::Hello(timed)), "0000001e019401a46465736ba770327073796e639192a764656661756c74a14c9105");
    assert_eq!(
        hex(&Frame::Folder(folder(), batch(vec![entry(b"a", 7)]))),
        "00000029030092a764656661756c74950102919c07c3c4016103c0c0000091920107c090940000c0c0cd1388c2"
    );
    let lanes = Frame::Lanes(Lanes { key: LaneKey([7; 16]), wanted: 3 });
    assert_eq!(hex(&lanes), format!("000000151492c410{}03", "07".repeat(16)));
    assert_eq!(hex(&Frame::Ping(258)), "000000090b0000000000000102");
    let chunks = Chunks { request: 3, items: vec![(1, Bytes::from_static(b"hi"))] };
    assert_eq!(hex(&Frame::Chunks(chunks)), "0000000d09000000030001000000026869");
}
