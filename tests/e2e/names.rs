//! Names that other programs stumble over, deep trees, and files with holes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use crate::harness::{Agent, World, wait_settled, wait_until};
use crate::tree;

/// Names as bytes: every one is a file of its own.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "two\nlines",
        "tab\tand \u{7} bell",
        "-rf",
        "--help",
        " leading and trailing ",
        "dots...",
        ".hidden",
        "quotes ' \" ` $HOME",
        "back\\slash",
        "*?[a-z]{x,y}",
        "a@b#c%41",
        "CON",
        "aux.txt",
        "nul.",
        "caf\u{e9}",
        "cafe\u{301}",
        "UPPER",
        "upper",
        "\u{202e}reversed",
        "📁 🗂️",
        "漢字",
    ]
    .iter()
    .map(|n| n.as_bytes().to_vec())
    .collect();
    names.push(b"not \xff\xfe utf-8".to_vec());
    names.push(vec![b'x'; 255]);
    names.push(vec![0x80; 255]);
    names
}

#[test]
fn odd_names_arrive_byte_for_byte_and_can_be_renamed_and_deleted() {
    let world = World::new();
    let (a, b) = world.pair();
    let at = |agent: &Agent, name: &[u8]| agent.root.join(OsStr::from_bytes(name));
    for (i, name) in odd_names().iter().enumerate() {
        fs::write(at(&a, name), format!("file {i}")).unwrap();
        let dir = a.root.join("directories").join(OsStr::from_bytes(name));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("inside"), format!("inside {i}")).unwrap();
    }
    wait_settled(&[&a, &b]);
    for name in odd_names() {
        assert!(b.ok(&["status"]).len() < 10_000);
        fs::write(at(&b, &name), "edited on b").unwrap();
    }
    wait_settled(&[&a, &b]);
    for (i, name) in odd_names().iter().enumerate() {
        fs::rename(at(&a, name), at(&a, format!("plain {i}").as_bytes())).unwrap();
    }
    fs::remove_dir_all(a.at("directories")).unwrap();
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("plain 0"), b"edited on b");
    assert!(!b.at("directories").exists());
}

#[test]
fn a_tree_deeper_than_the_longest_path_of_the_system_arrives() {
    let world = World::new();
    let (a, b) = world.pair();
    let component = "d".repeat(200);
    let dir = vec![component.as_bytes(); 30].join(&b'/');
    let path = [&dir[..], b"/at the bottom"].concat();
    assert!(path.len() > 4096);
    tree::write_below(&a.root, &path, b"deep");
    wait_settled(&[&a, &b]);
    assert_eq!(tree::read_below(&b.root, &path).unwrap(), b"deep");
    // No watch reaches that deep, and `status` says so; a scan finds what was changed there.
    tree::write_below(&b.root, &path, b"edited at the bottom");
    wait_until("b says that it cannot watch all", || match b.folder()?.watch {
        watch if watch != "ok" => Ok(()),
        watch => Err(watch),
    });
    b.ok(&["folder", "rescan"]);
    wait_settled(&[&a, &b]);
    assert_eq!(tree::read_below(&a.root, &path).unwrap(), b"edited at the bottom");
    fs::remove_dir_all(a.at(&component)).unwrap();
    a.ok(&["folder", "rescan"]);
    wait_settled(&[&a, &b]);
    assert!(!b.at(&component).exists());
}

#[test]
fn holes_stay_holes() {
    const SIZE: u64 = 64 << 20;
    let world = World::new();
    let (a, b) = world.pair();
    // Made beside the folder, so that it arrives there in one step.
    let outside = world.path("sparse");
    let mut file = File::create(&outside).unwrap();
    file.write_all(&tree::noise(3, 100_000)).unwrap();
    file.seek(SeekFrom::Start(SIZE)).unwrap();
    file.write_all(b"the end").unwrap();
    drop(file);
    let before = b.bytes_in();
    fs::rename(&outside, a.at("sparse")).unwrap();
    wait_settled(&[&a, &b]);
    let (ours, theirs) = (a.at("sparse").metadata().unwrap().blocks(), b.at("sparse").metadata().unwrap().blocks());
    assert!(theirs * 512 < SIZE / 16, "{ours} blocks became {theirs}");
    let bytes = b.bytes_in() - before;
    assert!(bytes < SIZE / 16, "{bytes} bytes came in");
}
