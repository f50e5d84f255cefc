//! Every kind of change arrives, in both directions, and costs no more on the wire than it has to.

use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::{Agent, TALK_BYTES_MAX, World, wait_same, wait_settled, wait_until};
use crate::tree;

/// A file large enough that its content on the wire cannot be mistaken for talk.
const LARGE_BYTES: usize = 3 << 20;

/// Does something in a folder with the two agents settled, waits until it has arrived, and gives the bytes that came.
fn bytes_for(from: &Agent, to: &Agent, change: impl FnOnce(&Agent)) -> u64 {
    let before = to.bytes_in();
    change(from);
    wait_settled(&[from, to]);
    to.bytes_in() - before
}

fn both_ways(check: impl Fn(&Agent, &Agent)) {
    let world = World::new();
    let (a, b) = world.pair();
    check(&a, &b);
    check(&b, &a);
}

fn append(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn contents_are_made_edited_appended_to_cut_and_deleted() {
    both_ways(|from, to| {
        from.write("f/new", "one");
        from.write("f/empty", "");
        from.write("f/large", tree::noise(1, LARGE_BYTES));
        wait_same(&[from, to]);
        from.write("f/new", "two, and longer");
        append(&from.at("f/empty"), b"no more");
        wait_same(&[from, to]);
        let bytes = bytes_for(from, to, |f| append(&f.at("f/large"), b"a little more at the end"));
        assert!(bytes < LARGE_BYTES as u64 / 2, "{bytes} bytes for an appended line");
        let bytes = bytes_for(from, to, |f| {
            let mut file = File::options().write(true).open(f.at("f/large")).unwrap();
            file.seek(SeekFrom::Start(LARGE_BYTES as u64 / 2)).unwrap();
            file.write_all(b"changed in the middle").unwrap();
        });
        assert!(bytes < LARGE_BYTES as u64 / 2, "{bytes} bytes for a changed line");
        File::options().write(true).open(from.at("f/new")).unwrap().set_len(2).unwrap();
        fs::remove_file(from.at("f/empty")).unwrap();
        wait_settled(&[from, to]);
        assert_eq!(to.read("f/new"), b"tw");
        fs::remove_dir_all(from.at("f")).unwrap();
        wait_settled(&[from, to]);
        assert!(!to.at("f").exists());
    });
}

#[test]
fn renames_moves_and_copies_send_no_contents() {
    both_ways(|from, to| {
        from.write("old/large", tree::noise(2, LARGE_BYTES));
        (0..20).for_each(|i| from.write(&format!("old/sub/{i}"), tree::noise(100 + i, 30_000)));
        wait_settled(&[from, to]);
        let cheap = |what: &str, change: &dyn Fn(&Agent)| {
            let bytes = bytes_for(from, to, change);
            assert!(bytes < TALK_BYTES_MAX, "{bytes} bytes to {what}");
        };
        cheap("rename a file", &|f| fs::rename(f.at("old/large"), f.at("old/renamed")).unwrap());
        cheap("move it to another directory", &|f| {
            fs::create_dir(f.at("other")).unwrap();
            fs::rename(f.at("old/renamed"), f.at("other/moved")).unwrap();
        });
        cheap("rename a directory", &|f| fs::rename(f.at("old"), f.at("new")).unwrap());
        cheap("copy a file", &|f| {
            fs::copy(f.at("other/moved"), f.at("new/copy")).unwrap();
        });
        assert_eq!(to.read("new/copy"), tree::noise(2, LARGE_BYTES));
        cheap("swap two files", &|f| {
            fs::rename(f.at("new/sub/0"), f.at("new/sub/x")).unwrap();
            fs::rename(f.at("new/sub/1"), f.at("new/sub/0")).unwrap();
            fs::rename(f.at("new/sub/x"), f.at("new/sub/1")).unwrap();
        });
        for dir in ["new", "other"] {
            fs::remove_dir_all(from.at(dir)).unwrap();
        }
        wait_settled(&[from, to]);
        assert!(tree::nodes(&to.root).unwrap().is_empty());
    });
}

#[test]
fn permissions_times_links_and_empty_directories_arrive() {
    both_ways(|from, to| {
        from.write("tool", "#!/bin/sh\n");
        fs::create_dir_all(from.at("empty/inside")).unwrap();
        symlink("tool", from.at("link")).unwrap();
        symlink("/nowhere/at all", from.at("dangling")).unwrap();
        wait_settled(&[from, to]);
        let bytes = bytes_for(from, to, |f| {
            fs::set_permissions(f.at("tool"), Permissions::from_mode(0o755)).unwrap();
        });
        assert!(bytes < TALK_BYTES_MAX && to.at("tool").metadata().unwrap().mode() & 0o111 == 0o111);
        let then = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 123_456_789);
        File::options().write(true).open(from.at("tool")).unwrap().set_modified(then).unwrap();
        wait_settled(&[from, to]);
        assert_eq!(to.at("tool").metadata().unwrap().modified().unwrap(), then);
        fs::remove_file(from.at("link")).unwrap();
        symlink("empty", from.at("link")).unwrap();
        fs::set_permissions(from.at("empty"), Permissions::from_mode(0o700)).unwrap();
        wait_settled(&[from, to]);
        assert_eq!(fs::read_link(to.at("link")).unwrap(), Path::new("empty"));
        for name in ["tool", "link", "dangling"] {
            fs::remove_file(from.at(name)).unwrap();
        }
        fs::remove_dir_all(from.at("empty")).unwrap();
        wait_settled(&[from, to]);
        assert!(tree::nodes(&to.root).unwrap().is_empty());
    });
}

#[test]
fn one_kind_of_thing_is_replaced_by_another() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 3] = [
        ("file", |p| fs::write(p, "a file").unwrap()),
        ("directory", |p| {
            fs::create_dir_all(p.join("sub")).unwrap();
            fs::write(p.join("sub/inside"), "inside").unwrap();
        }),
        ("symlink", |p| symlink("../target", p).unwrap()),
    ];
    both_ways(|from, to| {
        for (before, make_before) in kinds {
            for (after, make_after) in kinds.iter().filter(|(name, _)| *name != before) {
                let path = from.at(&format!("{before} to {after}"));
                make_before(&path);
                wait_same(&[from, to]);
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(&path).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
                make_after(&path);
                wait_same(&[from, to]);
            }
        }
        wait_settled(&[from, to]);
        assert_eq!(tree::conflict_copies(&to.root), Vec::<String>::new());
        for entry in fs::read_dir(&from.root).unwrap().map(|e| e.unwrap()).filter(|e| e.file_name() != ".p2psync") {
            let is_dir = entry.file_type().unwrap().is_dir();
            if is_dir { fs::remove_dir_all(entry.path()).unwrap() } else { fs::remove_file(entry.path()).unwrap() }
        }
        wait_settled(&[from, to]);
    });
}

#[test]
fn a_file_that_is_written_over_and_over_ends_as_it_was_left() {
    let world = World::new();
    let (a, b) = world.pair();
    for round in 0..100u32 {
        a.write("busy", format!("round {round}\n").repeat(round as usize * 20));
        // The way most editors save.
        a.write("saved.tmp", format!("save {round}"));
        fs::rename(a.at("saved.tmp"), a.at("saved")).unwrap();
    }
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("saved"), b"save 99");
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
}

#[test]
fn what_was_replaced_and_deleted_elsewhere_can_be_brought_back() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("notes", "the first version");
    wait_settled(&[&a, &b]);
    a.write("notes", "the second version");
    wait_settled(&[&a, &b]);
    let listed = b.ok(&["history", b.at("notes").to_str().unwrap()]);
    assert!(listed.contains("notes"), "{listed}");
    b.ok(&["restore", b.at("notes").to_str().unwrap()]);
    wait_until("the first version is back on a", || match a.read("notes") {
        bytes if bytes == b"the first version" => Ok(()),
        bytes => Err(String::from_utf8_lossy(&bytes).into_owned()),
    });
    fs::remove_file(a.at("notes")).unwrap();
    wait_settled(&[&a, &b]);
    assert!(!b.at("notes").exists());
    b.ok(&["restore", b.at("notes").to_str().unwrap()]);
    wait_settled(&[&a, &b]);
    assert_eq!(a.read("notes"), b"the first version");
}
