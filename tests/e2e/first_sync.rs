//! The first time that devices meet: a whole tree goes over, and no stranger gets anything.

use std::fs;

use crate::harness::{FOLDER, World, introduce, wait_connected, wait_same, wait_settled, wait_until};
use crate::tree;

#[test]
fn a_source_tree_arrives_whole_and_both_prove_it() {
    let world = World::new();
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    let files = tree::copy_source_tree(&a.root);
    introduce(&a, &b);
    a.start();
    b.start();
    wait_settled(&[&a, &b]);
    assert_eq!(b.folder().unwrap().files, files as u64);
    wait_until("equal digests prove both indexes identical", || {
        let folder = a.folder()?;
        let proved = folder.peers.first().and_then(|p| p.proved_identical_ms);
        proved.map(drop).ok_or_else(|| format!("{:?}", folder.peers))
    });
    assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
}

#[test]
fn devices_that_start_with_the_same_files_merge_without_traffic() {
    let world = World::new();
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    for agent in [&a, &b] {
        for i in 0..50 {
            agent.write(&format!("dir {}/file {i}", i % 5), tree::noise(i, 40_000));
        }
        agent.write("only the time differs", "same");
    }
    introduce(&a, &b);
    a.start();
    b.start();
    wait_settled(&[&a, &b]);
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    assert!(a.bytes_in() + b.bytes_in() < 200_000, "{} and {} bytes came in", a.bytes_in(), b.bytes_in());
}

#[test]
fn folders_that_are_not_empty_are_united() {
    let world = World::new();
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    a.write("docs/from a", "a");
    b.write("docs/from b", "b");
    introduce(&a, &b);
    a.start();
    b.start();
    wait_settled(&[&a, &b]);
    assert_eq!((b.read("docs/from a"), a.read("docs/from b")), (b"a".to_vec(), b"b".to_vec()));
}

#[test]
fn a_stranger_gets_nothing_and_disturbs_nobody() {
    let world = World::new();
    let (mut a, mut b, mut stranger) = (world.agent("a"), world.agent("b"), world.agent("stranger"));
    a.write("secret", "for b only");
    stranger.write("intruder", "from a stranger");
    introduce(&a, &b);
    stranger.ok(&["peer", "add", &a.id(), "--name", "a", "--address", &a.listen]);
    a.start();
    stranger.start();
    let short = stranger.id()[..7].to_owned();
    wait_until("a refuses the stranger", || {
        if a.log_text().contains(&short) { Ok(()) } else { Err(format!("a's log does not name {short}")) }
    });
    b.start();
    wait_settled(&[&a, &b]);
    b.write("news", "more");
    wait_same(&[&a, &b]);
    let seen = stranger.peer(&a).unwrap();
    assert!(!seen.connected && seen.bytes_in == 0, "{seen:?}");
    assert_eq!(tree::nodes(&stranger.root).unwrap().len(), 1);
    assert!(!a.at("intruder").exists() && !b.at("intruder").exists());
    assert!(!stranger.log_text().contains("secret"));
}

#[test]
fn a_lost_index_is_rebuilt_without_conflicts_and_without_moving_contents() {
    let world = World::new();
    let (a, mut b) = world.pair();
    for i in 0..40 {
        a.write(&format!("d{}/file {i}", i % 4), tree::noise(i, 50_000));
    }
    wait_settled(&[&a, &b]);
    a.write("d0/edited", "first");
    a.write("d0/deleted", "was here");
    wait_settled(&[&a, &b]);
    b.stop();
    fs::remove_dir_all(b.home.join("index")).unwrap();
    a.write("d0/edited", "second");
    fs::remove_file(a.at("d0/deleted")).unwrap();
    let before = a.bytes_in();
    b.start();
    wait_connected(&a, &b);
    wait_until("the deletion has reached b again", || {
        if b.at("d0/deleted").exists() { Err("still there".to_owned()) } else { Ok(()) }
    });
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("d0/edited"), b"second");
    assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
    let (to_a, to_b) = (a.bytes_in() - before, b.bytes_in());
    assert!(to_a + to_b < 300_000, "{to_a} and {to_b} bytes for 2 MB of files that both had");
}

#[test]
fn a_folder_added_while_the_agents_run_is_taken_up() {
    let world = World::new();
    let (a, b) = world.pair();
    let second = |name: &str| world.path(name).join("second");
    for agent in [&a, &b] {
        agent.ok(&["folder", "add", second(&agent.name).to_str().unwrap(), "--id", "more", "--label", "More"]);
    }
    fs::write(second("a").join("new"), "in the second folder").unwrap();
    wait_until("the second folder is synced", || tree::compare(&second("a"), &second("b")));
    a.write("old", "in the first");
    wait_same(&[&a, &b]);
    b.ok(&["folder", "pause", "more"]);
    wait_until("the folder is paused", || match b.folder_with_id("more")?.state {
        p2psync::api::FolderState::Paused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    fs::write(second("a").join("later"), "while it is paused").unwrap();
    b.write("unpaused", "the other folder goes on");
    wait_same(&[&a, &b]);
    assert!(!second("b").join("later").exists());
    b.ok(&["folder", "resume", "more"]);
    wait_until("the folder goes on", || tree::compare(&second("a"), &second("b")));
    b.ok(&["folder", "remove", "more"]);
    wait_until("the folder is gone from b", || match b.folder_with_id("more") {
        Ok(_) => Err("still listed".to_owned()),
        Err(_) => Ok(()),
    });
    assert!(second("b").join("later").exists() && b.folder_with_id(FOLDER).is_ok());
}
