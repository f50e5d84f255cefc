//! Full disks: the folder's, and the one with the agent's own files.

use std::fs;

use crate::harness::{World, wait_settled, wait_until};
use crate::tree;
use crate::trouble::{Mount, history, start, strangers, wait_file, wait_gone, wait_halted, wait_problem, with_mounts};

const MIB: usize = 1024 * 1024;

#[test]
fn a_file_that_does_not_fit_waits_for_space_and_holds_up_nothing() {
    with_mounts("a_file_that_does_not_fit_waits_for_space_and_holds_up_nothing", || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        // What a download leaves free on a disk is a part of this.
        let disk = Mount::memory("size=22m", &b.root);
        start(&mut a, &mut b);
        a.write("large", tree::noise(1, 8 * MIB));
        a.write("small", "fits");
        wait_problem(&b, "large", "no_space", "free some space");
        wait_file(&b, "small", b"fits");
        b.write("other way", "from the full disk");
        wait_file(&a, "other way", b"from the full disk");
        a.write("small", "changed");
        wait_file(&b, "small", b"changed");
        fs::remove_file(a.at("other way")).unwrap();
        wait_gone(&b, "other way");
        disk.set("size=64m");
        wait_settled(&[&a, &b]);
        assert_eq!(b.folder().unwrap().problems_total, 0);
    });
}

#[test]
fn a_disk_without_room_for_names_takes_what_needs_none_and_later_the_rest() {
    with_mounts("a_disk_without_room_for_names_takes_what_needs_none_and_later_the_rest", || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let disk = Mount::memory("size=64m", &b.root);
        start(&mut a, &mut b);
        for name in ["changed", "deleted", "d/below", "kept"] {
            a.write(name, format!("{name}, the first"));
        }
        wait_settled(&[&a, &b]);
        let used = rustix::fs::statvfs(&b.root).map(|s| s.f_files - s.f_ffree).unwrap();
        disk.set(&format!("nr_inodes={used}"));
        a.write("changed", "changed, the second");
        a.write("new/one", "new");
        fs::remove_file(a.at("deleted")).unwrap();
        wait_problem(&b, "changed", "no_space", "space");
        assert_eq!(b.read("changed"), b"changed, the first");
        fs::write(b.at("kept"), "kept, changed here").unwrap();
        wait_file(&a, "kept", b"kept, changed here");
        disk.set("nr_inodes=100000");
        wait_settled(&[&a, &b]);
        let old = history(&b);
        assert!(["changed", "deleted"].iter().all(|name| old.contains(&format!("{name}, the first").into_bytes())));
    });
}

#[test]
fn an_index_on_a_full_disk_stops_its_folders_in_plain_words_until_there_is_space() {
    with_mounts("an_index_on_a_full_disk_stops_its_folders_in_plain_words_until_there_is_space", || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let disk = Mount::memory("size=64m", &b.home);
        start(&mut a, &mut b);
        a.write("changed", "the first");
        wait_settled(&[&a, &b]);
        let ballast = disk.at.join("ballast");
        fill(&ballast);
        let many = 300;
        for i in 0..many {
            a.write(&format!("many/{i}"), format!("{i}"));
            b.write(&format!("here/{i}"), format!("here {i}"));
        }
        a.write("changed", "the second");
        let text = wait_halted(&b);
        assert!(text.contains("full") && text.contains("free"), "{text}");
        assert!(text.contains(disk.at.to_str().unwrap()), "{text}");
        // The others go on.
        assert_eq!(a.folder().unwrap().problems_total, 0);
        fs::remove_file(&ballast).unwrap();
        wait_settled(&[&a, &b]);
        assert_eq!(tree::nodes(&a.root).unwrap().len(), 2 * many + 3);
        assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    });
}

/// Writes into a file until there is no room any more.
fn fill(ballast: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    for size in [MIB, 4096, 1] {
        let block = vec![1; size];
        while file.write(&block).is_ok_and(|written| written > 0) {}
    }
    wait_until("the disk is full", || match file.write(b"x") {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
