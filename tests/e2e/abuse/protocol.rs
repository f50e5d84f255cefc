//! A paired device that breaks the protocol: frames that are none, too long, out of order, about other things.

use bytes::Bytes;
use p2psync::core::content::Content;
use p2psync::core::id::{EpochId, RunId};
use p2psync::core::message::{Ack, BUCKETS, Batch, DigestReport, Exception, Hello, Message, Reason};
use p2psync::core::path::RelPath;
use p2psync::core::version::COUNT_MAX;
use p2psync::net::frame::{Chunks, Frame, Lanes, Request, WantedContent};
use p2psync::net::lane::{LANES_MAX, LaneKey};

use super::mallory::{Link, bytes_of, folder, hello, write_frames};
use super::{assert_small, assert_unharmed, three};
use crate::harness::{FOLDER, World};
use crate::tree;

/// A frame's bytes: length, type, body.
fn raw_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 1).to_be_bytes()[..], &[kind], body].concat()
}

/// Sends something for which the victim ends the connection, and only that.
fn is_thrown_out(link: &Link, what: &str) {
    link.wait(&format!("the victim ends the connection for {what}"), |seen| seen.over.is_some());
}

#[test]
fn a_peer_that_breaks_the_protocol_is_thrown_out_and_harms_nobody() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let inflated = |length: u32| [&[1][..], &length.to_be_bytes(), &bomb].concat();
    let offences: [(&str, Vec<u8>); 9] = [
        ("a huge length", u32::MAX.to_be_bytes().to_vec()),
        ("an empty frame", vec![0; 4]),
        ("a bomb that says so", raw_frame(3, &inflated(64 << 20))),
        ("a bomb that says it is small", raw_frame(3, &inflated(1000))),
        ("an index of noise", raw_frame(3, &[&[0][..], &tree::noise(1, 3000)].concat())),
        ("noise", tree::noise(2, 100_000)),
        ("nested arrays", raw_frame(5, &[0x91; 60_000])),
        ("a chunk longer than its frame", raw_frame(9, &[0, 0, 0, 1, 0, 1, 255, 255, 255, 255])),
        ("an array of four milliards", raw_frame(5, &[0x92, 0xa3, b'e', b'2', b'e', 0xdd, 255, 255, 255, 255])),
    ];
    for (what, bytes) in offences {
        let link = mallory.link(&victim);
        link.send_bytes(bytes);
        is_thrown_out(&link, what);
    }
    // Before the hello even a small frame of another kind is too much, and so is a large hello.
    for bytes in [bytes_of(&Frame::Ping(1)), raw_frame(1, &vec![0x91; 70_000])] {
        let secured = mallory.raw(&victim).unwrap();
        mallory.runtime.block_on(async {
            use tokio::io::AsyncReadExt;
            let mut secured = write_frames(secured, vec![bytes]).await;
            let mut rest = Vec::new();
            let ended = secured.stream.read_to_end(&mut rest);
            tokio::time::timeout(std::time::Duration::from_secs(15), ended).await.unwrap().ok();
        });
    }
    // Connections that come and go, with and without a hello, and ones that say nothing.
    let mut silent = Vec::new();
    for i in 0..100 {
        if i % 2 == 0 {
            drop(mallory.link_sharing(&victim, &[FOLDER]));
        } else {
            silent.extend(mallory.raw(&victim));
        }
    }
    assert_unharmed(&victim, &honest, "offences");
    assert!(victim.status().unwrap().peers.iter().any(|p| p.name == "honest" && p.connected));
}

#[test]
fn a_peer_that_misuses_further_connections_gets_none_or_is_thrown_out_and_harms_nobody() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let stranger = LaneKey([0; 16]);
    assert!(mallory.lane(&victim, stranger).is_err(), "there is no link");
    let link = mallory.link(&victim);
    link.wait("the victim tells how lanes join", |seen| seen.lane_key.is_some());
    let key = link.seen().lane_key.unwrap();
    for _ in 0..30 {
        assert!(mallory.lane(&victim, stranger).is_err(), "the key is guessed");
    }
    let lanes: Vec<_> = (0..LANES_MAX).map(|_| mallory.lane(&victim, key).unwrap()).collect();
    assert!(mallory.lane(&victim, key).is_err(), "one too many");
    // The victim was dialled: it does not dial at anybody's bidding.
    (0..1000).for_each(|_| link.send(&Frame::Lanes(Lanes { key: stranger, wanted: u16::MAX })));
    // Chunks that nobody asked for are dropped; any other frame ends the link with all its lanes.
    let offences = [
        bytes_of(&Frame::Chunks(Chunks { request: 1, items: vec![(0, Bytes::from(vec![1; 1 << 20]))] })),
        bytes_of(&Frame::Chunks(Chunks { request: 2, items: Vec::new() })),
        bytes_of(&hello(&[FOLDER])),
    ];
    let write = |(lane, bytes)| mallory.runtime.block_on(write_frames(lane, vec![bytes]));
    let _open: Vec<_> = lanes.into_iter().zip(offences).map(write).collect();
    is_thrown_out(&link, "a hello on a lane");
    assert!(mallory.lane(&victim, key).is_err(), "the link is gone");
    assert_unharmed(&victim, &honest, "lanes");
}

#[test]
fn messages_that_make_no_sense_change_nothing() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    victim.write("kept", "kept");
    let link = mallory.link(&victim);
    let theirs = link.seen().hellos[&folder(FOLDER)].clone();
    let path = RelPath::parse(b"kept").unwrap();

    // About a folder that is not shared, that does not exist, or that comes and goes.
    for id in ["other", "e2e2"] {
        let message = mallory.batch(vec![mallory.file(&link, "alien", b"alien")]);
        link.send(&Frame::Folder(folder(id), message));
    }
    for i in 0..200 {
        link.send(&hello(if i % 2 == 0 { &["other"] } else { &[FOLDER, "other", "third"] }));
    }
    link.say(Message::Hello(mallory.folder_hello()));

    // Positions that were never reached, of epochs that are not there.
    for (epoch, received) in [(theirs.epoch, COUNT_MAX), (EpochId(7), 5), (theirs.epoch, 0)] {
        let exceptions = vec![Exception { path: path.clone(), seq: COUNT_MAX, reason: Reason::Held }];
        link.say(Message::Ack(Ack { epoch, received, applied: COUNT_MAX, exceptions }));
    }
    let buckets = vec![u128::MAX; BUCKETS];
    for seq in [0, 1, COUNT_MAX] {
        let (epoch, buckets) = (mallory.epoch, buckets.clone());
        link.say(Message::Digest(DigestReport { epoch, seq, seen: seq, buckets, is_answer: seq == 1 }));
    }
    link.say(Message::Found((0..4096).map(|n| (EpochId(n), COUNT_MAX)).collect()));
    link.say(Message::Found(vec![(theirs.epoch, COUNT_MAX)]));
    for (last_seq, upto) in [(COUNT_MAX, COUNT_MAX), (0, 5), (0, 0)] {
        link.say(Message::Hello(Hello { last_seq, ..mallory.folder_hello() }));
        let (epoch, run) = (mallory.epoch, RunId(upto));
        link.say(Message::Index(Batch { epoch, run, entries: vec![], upto, more: upto == 0 }));
    }

    // Answers that nobody asked for, and questions that are no questions.
    let data = Bytes::from(vec![7; 100_000]);
    for request in 0..50 {
        link.send(&Frame::Chunks(Chunks {
            request,
            items: vec![(0, data.clone()), (0, data.clone()), (9, data.clone())],
        }));
        link.send(&Frame::NotHere { request, items: vec![0, 0, u16::MAX] });
    }
    let content = Content::of_chunk(b"kept");
    let hints = [Some((path.clone(), 0)), Some((path, COUNT_MAX)), Some((RelPath::parse(b"x/y/z").unwrap(), 3)), None];
    for depth in 0..=3 {
        let items =
            hints.iter().map(|hint| WantedContent { content: Content { depth, ..content }, hint: hint.clone() });
        let items: Vec<_> = items.collect();
        // The same number for all of them.
        link.request(Request { id: 5, folder: folder(FOLDER), items });
    }
    link.request(Request { id: 6, folder: folder(FOLDER), items: vec![] });
    for n in 0..2000 {
        link.send(&Frame::Ping(n));
        link.send(&Frame::Pong(n));
        link.send(&Frame::Unknown(200));
    }
    link.settle();
    assert_unharmed(&victim, &honest, "nonsense");
    assert_eq!(victim.read("kept"), b"kept");
    assert!(!victim.at("alien").exists());
    assert_small(&victim, "nonsense");
}

/// A peer that asks without end and reads nothing.
#[test]
fn a_peer_that_asks_and_does_not_listen_costs_no_memory() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let bytes = tree::noise(3, 200_000);
    victim.write("asked for", &bytes);
    let link = mallory.link(&victim);
    link.wait("the victim announces", |seen| seen.entry("asked for").is_some());
    let content = link.seen().entry("asked for").and_then(|e| e.entry.kind.content()).unwrap();
    drop(link);
    let secured = mallory.raw(&victim).unwrap();
    let item = WantedContent { content, hint: None };
    let greeting = bytes_of(&Frame::Folder(folder(FOLDER), Message::Hello(mallory.folder_hello())));
    let mut frames = vec![bytes_of(&hello(&[FOLDER])), greeting.clone()];
    for id in 0..400 {
        frames.push(bytes_of(&Frame::Request(Request { id, folder: folder(FOLDER), items: vec![item.clone(); 1024] })));
        frames.push(bytes_of(&Frame::Ping(u64::from(id))));
        // Each asks for the whole index anew.
        frames.push(greeting.clone());
    }
    // Nobody reads: after a while the victim takes no more, or ends the connection.
    let held = mallory.runtime.spawn(async move {
        let _secured = write_frames(secured, frames).await;
        std::future::pending::<()>().await;
    });
    for n in 0..10 {
        assert_unharmed(&victim, &honest, &format!("questions {n}"));
    }
    held.abort();
}
