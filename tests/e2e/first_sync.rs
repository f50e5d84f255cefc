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
fn an_index_restored_from_a_backup_loses_nothing_and_makes_no_conflicts() {
    let world = World::new();
    let (mut a, b) = world.pair();
    a.write("both", "at the time of the backup");
    a.write("deleted later", "x");
    wait_settled(&[&a, &b]);
    a.stop();
    let backup = world.path("backup");
    fs::create_dir(&backup).unwrap();
    for entry in fs::read_dir(a.home.join("index")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), backup.join(entry.file_name())).unwrap();
    }
    a.start();
    wait_connected(&a, &b);
    a.write("both", "changed after the backup");
    a.write("new after the backup", "y");
    fs::remove_file(a.at("deleted later")).unwrap();
    wait_settled(&[&a, &b]);
    a.stop();
    for entry in fs::read_dir(a.home.join("index")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in fs::read_dir(&backup).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), a.home.join("index").join(entry.file_name())).unwrap();
    }
    b.write("both", "changed on the other device");
    a.write("written here meanwhile", "z");
    a.start();
    wait_connected(&a, &b);
    wait_until("the other device's change is here", || {
        let text = a.read("both");
        if text == b"changed on the other device" { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
    });
    wait_settled(&[&a, &b]);
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    assert_eq!((b.read("new after the backup"), b.read("written here meanwhile")), (b"y".to_vec(), b"z".to_vec()));
    assert!(!a.at("deleted later").exists());
}

#[test]
fn a_folder_that_is_added_again_in_another_place_starts_anew_there() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("inside", "text");
    wait_settled(&[&a, &b]);
    let place = world.path("another place");
    b.ok(&["folder", "remove", FOLDER]);
    b.ok(&["folder", "add", place.to_str().unwrap(), "--id", FOLDER]);
    wait_until("the file is in the new place", || fs::read(place.join("inside")).map_err(|e| e.to_string()));
    assert!(b.at("inside").exists() && a.at("inside").exists());
}

#[test]
fn a_damaged_index_is_set_aside_and_built_anew() {
    let world = World::new();
    let (a, mut b) = world.pair();
    (0..20).for_each(|i| a.write(&format!("file {i}"), tree::noise(i, 20_000)));
    wait_settled(&[&a, &b]);
    b.kill();
    for entry in fs::read_dir(b.home.join("index")).unwrap() {
        let path = entry.unwrap().path();
        let len = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, tree::noise(7, len)).unwrap();
    }
    b.start();
    wait_connected(&a, &b);
    wait_settled(&[&a, &b]);
    assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
    let names = fs::read_dir(b.home.join("index")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().any(|name| name.contains(".damaged-")));
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
