//! Trouble with an agent's own files while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::{Agent, FOLDER, World, wait_same, wait_settled, wait_until};
use crate::tree;
use crate::trouble::{give_to_nobody, start, strangers, wait_file, wait_halted, write_own};

fn index_file(agent: &Agent) -> PathBuf {
    let found = fs::read_dir(agent.home.join("index")).unwrap().map(|e| e.unwrap().path());
    let mut files = found.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(FOLDER));
    files.find(|p| p.extension().is_some_and(|e| !e.to_str().unwrap().contains('-'))).unwrap()
}

#[test]
fn an_index_deleted_under_the_running_agent_is_built_anew() {
    let world = World::new();
    let (a, b) = world.pair();
    (0..20).for_each(|i| a.write(&format!("{i}"), format!("{i}, the first")));
    wait_settled(&[&a, &b]);
    let index = index_file(&b);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", index.display()));
    }
    a.write("3", "3, the second");
    fs::remove_file(a.at("4")).unwrap();
    b.write("5", "5, the second");
    b.write("new", "new");
    wait_until("b has an index again", || if index.exists() { Ok(()) } else { Err("no index".to_owned()) });
    wait_file(&b, "3", b"3, the second");
    wait_file(&a, "5", b"5, the second");
    wait_settled(&[&a, &b]);
    // Without an index nobody knows that what was changed here came after what the other has.
    let copies = tree::conflict_copies(&a.root);
    assert!(copies.len() == 1 && a.read(&copies[0]) == b"5, the first", "{copies:?}");
    assert_eq!(tree::nodes(&a.root).unwrap().len(), 21);
}

#[test]
fn an_index_that_may_not_be_written_stops_its_folder_in_plain_words_until_it_may() {
    let world = World::new();
    let test = "an_index_that_may_not_be_written_stops_its_folder_in_plain_words_until_it_may";
    let (mut a, mut b) = strangers(&world);
    if !give_to_nobody(test, &world, &mut b) {
        return;
    }
    start(&mut a, &mut b);
    write_own(&b, "file", "the first");
    wait_same(&[&a, &b]);
    wait_settled(&[&a, &b]);
    let index = index_file(&b);
    let directory = index.parent().unwrap().to_owned();
    let set_modes = |of_directory, of_file| {
        fs::set_permissions(&directory, fs::Permissions::from_mode(of_directory)).unwrap();
        fs::set_permissions(&index, fs::Permissions::from_mode(of_file)).unwrap();
    };
    // While it is open nothing comes of that.
    set_modes(0o500, 0o600);
    a.write("file", "the second");
    wait_file(&b, "file", b"the second");
    wait_settled(&[&a, &b]);
    set_modes(0o700, 0o600);
    b.stop();
    set_modes(0o500, 0o400);
    a.write("file", "the third");
    b.start();
    let text = wait_halted(&b);
    assert!(text.contains("may not be written") && text.contains(index.to_str().unwrap()), "{text}");
    assert_eq!(b.read("file"), b"the second");
    set_modes(0o700, 0o600);
    wait_file(&b, "file", b"the third");
    wait_settled(&[&a, &b]);
}
