//! A paired device that lies: about paths, contents, lists, versions, times.

use std::fs;
use std::os::unix::fs::symlink;

use p2psync::core::content::{CHUNK_BYTES_MAX, ChunkList, Content, ContentId};
use p2psync::core::entry::{Kind, Meta, Stamp};
use p2psync::core::id::{DeviceId, RunId};
use p2psync::core::message::{Announced, Hello, Message};
use p2psync::core::version::{COUNT_MAX, VersionVector};
use p2psync::net::frame::Frame;

use super::mallory::{Link, Mallory, Manner, bytes_of, folder};
use super::{assert_unharmed, names, three};
use crate::harness::{Agent, FOLDER, World, wait_until};
use crate::tree;

/// Waits until the victim holds these bytes there.
fn wait_file(victim: &Agent, path: &str, bytes: &[u8]) {
    wait_until(&format!("{path} arrives"), || match fs::read(victim.at(path)) {
        Ok(found) if found == bytes => Ok(()),
        other => Err(format!("{:?}", other.map(|f| f.len()))),
    });
}

/// Sends a frame in which the path `from` is replaced by other bytes of the same length.
fn send_forged(link: &Link, message: Message, from: &[u8], to: &[u8]) {
    let length = u8::try_from(from.len()).unwrap();
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes_of(&Frame::Folder(folder(FOLDER), message));
    // With the marker of binary data, so that no hash is taken for the path.
    let marked = [&[0xc4, length], from].concat();
    let at = bytes.windows(marked.len()).position(|w| w == marked).expect("the frame is not compressed") + 2;
    bytes[at..at + to.len()].copy_from_slice(to);
    link.send_bytes(bytes);
}

#[test]
fn no_path_leads_out_of_the_folder_or_into_the_agents_own_places() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let outside = victim.base.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();

    // Paths that are none, in place of a good one of the same length: the connection ends.
    let tricks: [&[u8]; 14] = [
        b"../x",
        b"a/..",
        b"a/./b",
        b"/etc",
        b"a//b",
        b"a/",
        b"a\0b",
        b"..",
        b".",
        b".p2psync/x",
        b"a/.P2PSYNC/x",
        b".p2pSync",
        b".p2psync.",
        b"a/.p2psync ",
    ];
    for trick in tricks {
        let link = mallory.link(&victim);
        let stand_in = "Q".repeat(trick.len());
        send_forged(&link, mallory.batch(vec![mallory.file(&link, &stand_in, b"evil")]), stand_in.as_bytes(), trick);
        link.wait(&format!("the victim ends the connection for {trick:?}"), |seen| seen.over.is_some());
    }

    // A link that leads out, and a file below it: from the start, and once a directory has been there.
    let link = mallory.link(&victim);
    let out = || Kind::Symlink(outside.as_os_str().as_encoded_bytes().into());
    link.say(mallory.batch(vec![mallory.entry("d", out()), mallory.file(&link, "d/x", b"evil")]));
    link.say(mallory.batch(vec![mallory.entry("e", Kind::Directory), mallory.file(&link, "e/precious", b"mine")]));
    wait_file(&victim, "e/precious", b"mine");
    let mut swap = mallory.entry("e", out());
    swap.entry.version = swap.entry.version.join(&VersionVector::new().with(mallory.epoch, COUNT_MAX - 1));
    link.say(mallory.batch(vec![
        swap,
        mallory.file(&link, "e/precious", b"evil"),
        mallory.file(&link, "e/y", b"evil"),
    ]));
    // A link that is the user's own stays what it is.
    symlink(&outside, victim.at("own")).unwrap();
    link.wait("the victim announces its link", |seen| seen.entry("own").is_some());
    link.say(mallory.batch(vec![mallory.file(&link, "own/precious", b"evil"), mallory.file(&link, "own/z", b"evil")]));
    // Rules and markers that are links.
    link.say(mallory.batch(vec![mallory.entry(".p2pignore", Kind::Symlink(b"/dev/zero".as_slice().into()))]));
    assert_unharmed(&victim, &honest, "paths");
    assert_eq!(names(&outside), ["precious"]);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    assert_eq!(names(&victim.base), ["folder", "home", "log", "outside"]);
    let own = names(&victim.at(".p2psync"));
    assert!(!own.contains(&"x".to_owned()), "{own:?}");
}

#[test]
fn contents_that_are_not_what_they_claim_never_get_a_name() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    victim.write("mine", "mine");
    let link = mallory.link(&victim);
    link.wait("the victim announces", |seen| seen.entry("mine").is_some());

    // Other bytes than announced, for a new file and for one that is there.
    link.behave(Manner::Lies);
    let over = mallory.over(&link, mallory.file(&link, "mine", b"evil"));
    link.say(mallory.batch(vec![mallory.file(&link, "wrong", b"wrong"), over]));
    let problem = wait_until("the victim says what is wrong", || {
        let problems = victim.folder()?.problems;
        problems.into_iter().find(|p| p.path == "wrong" && p.kind == "bad_bytes").ok_or_else(|| "no problem".to_owned())
    });
    assert!(problem.text.contains(&mallory.identity.device_id().short()), "{}", problem.text);
    let words = victim.path_status(&victim.at("wrong"));
    assert!(format!("{words:?}").contains("sent wrong data"), "{words:?}");
    assert_eq!(victim.read("mine"), b"mine");
    link.behave(Manner::Serves);

    // A file whose bytes are a chunk list, and a list that says it is a file.
    let chunks: Vec<Vec<u8>> = (0..2).map(|i| tree::noise(i, 70_000)).collect();
    let list = ChunkList::new(chunks.iter().map(|c| Content::of_chunk(c)).collect()).unwrap();
    chunks.iter().for_each(|c| link.store(Content::of_chunk(c), c));
    link.store_list(&list);
    let body = list.body();
    let confused = [
        Content { depth: 1, size: list.content().size, ..Content::of_chunk(&body) },
        Content { depth: 1, ..Content::of_chunk(&body) },
        Content { depth: 0, size: body.len() as u64, ..list.content() },
        Content { depth: 2, ..list.content() },
        Content { depth: 1, size: list.content().size + 1, ..list.content() },
    ];
    confused.iter().for_each(|content| link.store(*content, &body));
    let entries =
        confused.iter().zip(0..).map(|(content, i)| mallory.entry(&format!("confused{i}"), Kind::File(*content)));
    link.say(mallory.batch(entries.collect()));
    link.say(
        mallory.batch(vec![
            mallory.file(&link, "list as bytes", &body),
            mallory.entry("both", Kind::File(list.content())),
        ]),
    );
    wait_file(&victim, "list as bytes", &body);
    wait_file(&victim, "both", &chunks.concat());

    assert_unharmed(&victim, &honest, "contents");
    for path in ["wrong", "confused0", "confused1", "confused2", "confused3", "confused4"] {
        assert!(!victim.at(path).exists(), "{path}");
    }
}

#[test]
fn sizes_that_no_disk_could_hold_are_told_and_take_nothing() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let link = mallory.link(&victim);
    // A list that repeats one chunk until no disk could hold it, and an absurd size with nothing behind it.
    let mut level = Content::of_chunk(&tree::noise(5, CHUNK_BYTES_MAX as usize));
    link.store(level, &tree::noise(5, CHUNK_BYTES_MAX as usize));
    for _ in 0..3 {
        let list = ChunkList::new(vec![level; 4096]).unwrap();
        link.store_list(&list);
        level = list.content();
    }
    let vast = Content { id: ContentId([9; 32]), depth: 3, size: i64::MAX as u64 };
    link.say(mallory.batch(vec![mallory.entry("endless", Kind::File(level)), mallory.entry("vast", Kind::File(vast))]));
    wait_until("the victim says that there is no room", || {
        let problems = victim.folder()?.problems;
        let is_full = |path: &str| problems.iter().any(|p| p.path == path && p.kind == "no_space");
        if is_full("endless") && is_full("vast") { Ok(()) } else { Err(format!("{problems:?}")) }
    });
    // A list with as many children as there are bytes.
    let byte = Content::of_chunk(b"x");
    link.store(byte, b"x");
    let list = ChunkList::new(vec![byte; 4096]).unwrap();
    link.store_list(&list);
    link.say(mallory.batch(vec![mallory.entry("crumbs", Kind::File(list.content()))]));
    assert_unharmed(&victim, &honest, "sizes");
    assert!(!victim.at("endless").exists() && !victim.at("vast").exists());
}

#[test]
fn nothing_that_a_peer_displaces_is_lost_whatever_it_claims() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    let paths: Vec<String> = (0..6).map(|i| format!("work{i}")).collect();
    paths.iter().for_each(|path| victim.write(path, format!("the user's {path}")));
    let link = mallory.link(&victim);
    link.wait("the victim announces", |seen| paths.iter().all(|p| seen.entry(p).is_some()));
    let theirs = link.seen().hellos[&folder(FOLDER)].clone();
    let owner: DeviceId = victim.id().parse().unwrap();

    // Written over again and again, in the owner's name, with times and modes out of any range.
    for round in 0..40u32 {
        let entries = paths.iter().zip(0u32..).map(|(path, i)| {
            let mut announced =
                mallory.over(&link, mallory.file(&link, path, format!("evil {path} {round}").as_bytes()));
            announced.entry.author = owner;
            announced.entry.mtime_ns = [0, i64::MIN, i64::MAX, 1, -1, 1_700_000_000_000_000_000][i as usize];
            announced.entry.weight_ns = i64::MAX;
            let stamp = Stamp { count: u64::from(round) + 1, epoch: mallory.epoch };
            let mode = Some((p2psync::core::disk::DiskKind::File, if i == 2 { 0 } else { 0o7777 }));
            announced.entry.meta = Meta { stamp, mode, touched: None };
            announced
        });
        let entries: Vec<Announced> = entries.collect();
        link.say(mallory.batch(entries));
        if round % 10 == 0 {
            wait_file(&victim, "work0", format!("evil work0 {round}").as_bytes());
        }
    }
    wait_file(&victim, "work0", b"evil work0 39");
    // Gone, by a claim of the victim's own count; and turned into a directory and a link.
    let last = |path: &str, kind: Kind| {
        let mut announced = mallory.over(&link, mallory.entry(path, kind));
        announced.entry.version =
            announced.entry.version.join(&VersionVector::new().with(theirs.epoch, theirs.last_seq));
        announced
    };
    link.say(mallory.batch(vec![
        last("work3", Kind::Deleted),
        last("work4", Kind::Directory),
        last("work5", Kind::Symlink(b"/dev/null".as_slice().into())),
    ]));
    wait_until("work5 is a link", || {
        let found = fs::symlink_metadata(victim.at("work5")).is_ok_and(|m| m.is_symlink());
        if found { Ok(()) } else { Err("it is not".to_owned()) }
    });
    assert_unharmed(&victim, &honest, "destruction");
    for path in &paths {
        let listed = victim.ok(&["history", victim.at(path).to_str().unwrap()]);
        assert!(!listed.is_empty(), "{path}: {listed}");
        let kept = tree::contents(&victim.at(".p2psync/history"));
        assert!(kept.contains(&format!("the user's {path}").into_bytes()), "{path} is lost");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(victim.at("work0")).unwrap().permissions());
    assert_eq!(mode & 0o7000, 0);
}

#[test]
fn counts_that_were_never_issued_are_not_believed_and_rollbacks_not_often() {
    let world = World::new();
    let (victim, honest, mallory) = three(&world);
    victim.write("mine", "mine");
    let link = mallory.link(&victim);
    link.wait("the victim announces", |seen| seen.entry("mine").is_some());
    let theirs = link.seen().hellos[&folder(FOLDER)].clone();
    let mut forged = mallory.over(&link, mallory.file(&link, "mine", b"evil"));
    forged.entry.version = VersionVector::new().with(theirs.epoch, COUNT_MAX);
    link.say(mallory.batch(vec![forged]));
    wait_until("the victim reports the forgery", || {
        let log = victim.ok(&["log"]);
        if log.contains("never made") { Ok(()) } else { Err(log) }
    });
    // A future that the victim's index seems to have lost, again and again.
    for n in 0..30 {
        let epoch = link.seen().hellos[&folder(FOLDER)].epoch;
        let cursor = Mallory::cursor(epoch, COUNT_MAX, vec![(RunId(n), COUNT_MAX)]);
        link.say(Message::Hello(Hello { cursor, ..mallory.folder_hello() }));
        link.settle();
    }
    wait_until("the victim has begun a new epoch", || {
        if link.seen().hellos[&folder(FOLDER)].epoch != theirs.epoch { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_unharmed(&victim, &honest, "forgeries");
    assert_eq!(victim.log_text().matches("older than what the other devices know").count(), 1);
    assert_eq!(victim.read("mine"), b"mine");
    victim.write("mine", "mine again");
    wait_file(&honest, "mine", b"mine again");
}
