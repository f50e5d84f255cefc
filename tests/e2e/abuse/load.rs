//! A paired device that sends much, or that holds up what others send.

use std::time::{Duration, Instant};

use p2psync::api::FolderState;
use p2psync::core::content::{Content, ContentId};
use p2psync::core::entry::Kind;
use p2psync::core::id::EpochId;
use p2psync::core::message::{Announced, Message};
use p2psync::core::path::DEPTH_MAX;
use p2psync::core::version::VersionVector;
use p2psync::net::frame::Frame;

use super::mallory::{Mallory, Manner, bytes_of, folder};
use super::{assert_unharmed, three};
use crate::harness::{FOLDER, World, wait_until};
use crate::tree;

/// What a change of an honest peer may take while another one misbehaves, in a build without optimisation.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);

/// A content that nobody has.
fn nobodys(n: u64) -> Content {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Content { id: ContentId(id), depth: 0, size: 1000 }
}

fn made_up(mallory: &Mallory, path: &str, n: u64) -> Announced {
    mallory.entry(path, Kind::File(nobodys(n)))
}

#[test]
fn batches_that_come_faster_than_they_are_taken_in_wait_outside() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let link = mallory.link(&victim);
    link.behave(Manner::NotHere);
    // Small on the wire, as large in memory as entries get, and slow to compare.
    let version = (1..200).fold(VersionVector::new(), |v, n| v.with(EpochId(n), 1));
    let wide = |batch: u64| {
        let entries = (0..1000).map(|n| {
            let mut announced = made_up(&mallory, &format!("wide{batch}/{n}"), n);
            announced.entry.version = version.clone().with(mallory.epoch, announced.seq);
            announced
        });
        bytes_of(&Frame::Folder(folder(FOLDER), mallory.batch(entries.collect())))
    };
    let frames: Vec<Vec<u8>> = (0..10).map(wide).collect();
    frames.iter().for_each(|frame| link.send_bytes(frame.clone()));
    // Each greeting wakes all that was said before.
    let greeting = bytes_of(&Frame::Folder(folder(FOLDER), Message::Hello(mallory.folder_hello())));
    for n in 0..300 {
        link.send_bytes(greeting.clone());
        link.send_bytes(frames[n % frames.len()].clone());
    }
    let took = assert_unharmed(&victim, &honest, "wide batches");
    assert!(took < ARRIVAL_MAX, "{took:?}");
}

#[test]
fn deep_paths_cost_what_they_are_long_and_no_more() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let link = mallory.link(&victim);
    link.behave(Manner::NotHere);
    let entries = (0..20).map(|n| {
        let path = format!("{n}{}", "/dddd".repeat(DEPTH_MAX - 1));
        made_up(&mallory, &path, n)
    });
    for part in entries.collect::<Vec<_>>().chunks(20) {
        link.say(mallory.batch(part.to_vec()));
    }
    for n in 0..3 {
        let took = assert_unharmed(&victim, &honest, &format!("deep paths {n}"));
        assert!(took < ARRIVAL_MAX, "{took:?}");
    }
}

#[test]
fn a_flood_of_entries_keeps_memory_small_and_nobody_waiting() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let link = mallory.link(&victim);
    link.behave(Manner::NotHere);
    for batch in 0..60u64 {
        let entries = (0..1000).map(|n| made_up(&mallory, &format!("a/{batch}/{n}"), batch * 1000 + n));
        link.say(mallory.batch(entries.collect()));
    }
    for n in 0..3 {
        let took = assert_unharmed(&victim, &honest, &format!("a flood {n}"));
        assert!(took < ARRIVAL_MAX, "{took:?}");
    }
    // `status` says what is missing, and who has not got what.
    wait_until("it is told how much is missing", || match victim.folder()? {
        folder if folder.need_files > 50_000 && folder.state != FolderState::InSync => Ok(()),
        folder => Err(folder.state_text),
    });
}

#[test]
fn a_source_that_never_answers_holds_up_nobody_else() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let link = mallory.link(&victim);
    link.behave(Manner::Silent);
    let entries = (0..3000).map(|n| made_up(&mallory, &format!("a/{n}"), n)).collect::<Vec<_>>();
    for part in entries.chunks(1000) {
        link.say(mallory.batch(part.to_vec()));
    }
    let large = Content { depth: 1, size: 5_000_000, ..nobodys(9) };
    let large =
        (0..20).map(|n| mallory.entry(&format!("0/{n}"), Kind::File(Content { size: large.size + n, ..large })));
    link.say(mallory.batch(large.collect()));
    // What the honest peer is about to write, claimed beforehand.
    let claimed = tree::noise(4, 3000);
    link.say(mallory.batch(vec![mallory.entry("00", Kind::File(Content::of_chunk(&claimed)))]));
    link.wait("the victim asks", |seen| seen.requests > 0);
    link.settle();
    let took = assert_unharmed(&victim, &honest, "silence");
    assert!(took < ARRIVAL_MAX, "{took:?}");
    honest.write("z/claimed", &claimed);
    honest.write("z/large", tree::noise(6, 5_000_000));
    let start = Instant::now();
    wait_until("what was claimed arrives", || {
        if victim.at("z/claimed").exists() && victim.at("z/large").exists() {
            Ok(())
        } else {
            Err(format!("after {:?}", start.elapsed()))
        }
    });
    assert!(start.elapsed() < ARRIVAL_MAX, "{:?}", start.elapsed());
}
