//! Changes made on two devices at once: no version is ever lost.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::harness::{Agent, World, introduce, wait_connected, wait_settled};
use crate::tree;

/// Two devices that are in sync and then stopped, changed by `change`, and started again.
fn after_offline_changes(prepare: impl FnOnce(&Agent), change: impl FnOnce(&Agent, &Agent)) -> (World, Agent, Agent) {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    prepare(&a);
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();
    change(&a, &b);
    a.start();
    b.start();
    wait_connected(&a, &b);
    wait_settled(&[&a, &b]);
    (world, a, b)
}

#[test]
fn different_offline_changes_on_both_sides_are_united() {
    let (_world, a, b) = after_offline_changes(
        |a| (0..10).for_each(|i| a.write(&format!("d/{i}"), format!("file {i}"))),
        |a, b| {
            a.write("d/0", "edited on a");
            fs::remove_file(a.at("d/1")).unwrap();
            fs::rename(a.at("d/2"), a.at("renamed on a")).unwrap();
            b.write("d/5", "edited on b");
            fs::remove_file(b.at("d/6")).unwrap();
            b.write("new/on b", "new");
        },
    );
    assert_eq!((b.read("d/0"), a.read("d/5")), (b"edited on a".to_vec(), b"edited on b".to_vec()));
    assert_eq!((b.read("renamed on a"), a.read("new/on b")), (b"file 2".to_vec(), b"new".to_vec()));
    assert!(!b.at("d/1").exists() && !a.at("d/6").exists() && !b.at("d/2").exists());
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
}

#[test]
fn a_file_edited_on_both_sides_keeps_both_versions_in_one_conflict_copy() {
    let (_world, a, b) = after_offline_changes(
        |a| a.write("report.odt", "as it was"),
        |a, b| {
            a.write("report.odt", "by a");
            let earlier = SystemTime::now() - Duration::from_secs(10);
            File::options().write(true).open(a.at("report.odt")).unwrap().set_modified(earlier).unwrap();
            b.write("report.odt", "by b, later");
        },
    );
    for agent in [&a, &b] {
        let copies = tree::conflict_copies(&agent.root);
        assert!(copies.len() == 1 && copies[0].ends_with(".odt"), "{copies:?}");
        assert_eq!(agent.read("report.odt"), b"by b, later");
        assert_eq!(agent.read(&copies[0]), b"by a");
        let listed = agent.conflicts();
        assert_eq!((listed.len(), &listed[0].path[..], &listed[0].original[..]), (1, &copies[0][..], "report.odt"));
        assert_eq!(agent.folder().unwrap().conflicts, 1);
    }
    // Conflict copies are ordinary files: settling the matter on one device settles it on both.
    fs::remove_file(a.at(&tree::conflict_copies(&a.root)[0])).unwrap();
    wait_settled(&[&a, &b]);
    assert!(b.conflicts().is_empty());
}

#[test]
fn equal_edits_on_both_sides_are_no_conflict() {
    let (_world, a, _b) = after_offline_changes(
        |a| a.write("notes", "as it was"),
        |a, b| {
            a.write("notes", "the same new text");
            b.write("notes", "the same new text");
        },
    );
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    assert_eq!(a.read("notes"), b"the same new text");
}

#[test]
fn an_edit_beats_a_deletion() {
    let (_world, a, b) = after_offline_changes(
        |a| {
            a.write("file", "as it was");
            a.write("dir/file", "as it was");
            a.write("dir/other", "goes");
        },
        |a, b| {
            fs::remove_file(a.at("file")).unwrap();
            fs::remove_dir_all(a.at("dir")).unwrap();
            b.write("file", "edited");
            b.write("dir/file", "edited too");
        },
    );
    for agent in [&a, &b] {
        assert_eq!((agent.read("file"), agent.read("dir/file")), (b"edited".to_vec(), b"edited too".to_vec()));
        assert!(!agent.at("dir/other").exists());
    }
}

#[test]
fn a_file_that_becomes_a_directory_is_no_conflict() {
    let (_world, a, b) = after_offline_changes(
        |a| (0..20).for_each(|i| a.write(&format!("thing {i}"), format!("file {i}"))),
        |a, _| {
            for i in 0..20 {
                fs::remove_file(a.at(&format!("thing {i}"))).unwrap();
                a.write(&format!("thing {i}/inside"), format!("inside {i}"));
            }
        },
    );
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    assert_eq!(b.read("thing 7/inside"), b"inside 7");
}

#[test]
fn a_directory_replaced_by_a_file_here_and_edited_there_loses_nothing() {
    let (_world, a, b) = after_offline_changes(
        |a| a.write("thing/inside", "as it was"),
        |a, b| {
            fs::remove_dir_all(a.at("thing")).unwrap();
            a.write("thing", "now a file");
            b.write("thing/inside", "edited");
        },
    );
    for agent in [&a, &b] {
        assert_eq!(agent.read("thing/inside"), b"edited");
        let copies = tree::conflict_copies(&agent.root);
        assert!(copies.len() == 1, "{copies:?}");
        assert_eq!(agent.read(&copies[0]), b"now a file");
    }
}

#[test]
fn three_devices_that_edit_one_file_at_once_keep_all_three_versions() {
    let world = World::new();
    let mut agents = ["a", "b", "c"].map(|name| world.agent(name));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        introduce(&agents[i], &agents[j]);
    }
    agents.iter_mut().for_each(Agent::start);
    agents[0].write("file.txt", "as it was");
    wait_settled(&agents.each_ref());
    for agent in &mut agents {
        agent.stop();
    }
    for agent in &agents {
        agent.write("file.txt", format!("by {}", agent.name));
    }
    agents.iter_mut().for_each(Agent::start);
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        wait_connected(&agents[i], &agents[j]);
    }
    wait_settled(&agents.each_ref());
    for agent in &agents {
        assert_eq!(tree::contents(&agent.root), [b"by a", b"by b", b"by c"]);
    }
}
