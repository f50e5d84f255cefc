//! What commands take for meant where they are told little, and what they refuse to guess.

use std::fs;

use crate::harness::{World, introduce, wait_connected, wait_settled, wait_until};

#[test]
fn an_undo_without_a_folder_means_the_one_that_was_changed_last_or_that_one_is_in() {
    let world = World::new();
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    introduce(&a, &b);
    for agent in [&a, &b] {
        agent.ok(&["folder", "add", agent.base.join("more").to_str().unwrap(), "--id", "more", "--label", "More"]);
    }
    a.start();
    b.start();
    wait_connected(&a, &b);
    let untouched = a.run(&["undo", "--dry-run"]);
    let said = String::from_utf8_lossy(&untouched.stderr);
    assert!(untouched.status.code() == Some(1) && said.contains("no other device has changed anything"), "{said}");
    for place in ["folder/file", "more/file"] {
        fs::write(a.base.join(place), "before").unwrap();
    }
    wait_settled(&[&a, &b]);
    wait_until("b has the other folder's file too", || fs::read(b.base.join("more/file")).map_err(|e| e.to_string()));
    // One batch in each folder, the later one in More.
    for place in ["folder/file", "more/file"] {
        fs::write(b.base.join(place), "by b").unwrap();
        wait_until("a has what b changed", || match fs::read(a.base.join(place)) {
            Ok(bytes) if bytes == b"by b" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // A moment after the file it is in the log.
    for (line, told) in [("p2psync", "did in More"), ("cd folder && p2psync", "did in Shared")] {
        wait_until(&format!("{line} undo says what b {told}"), || {
            let output = a.shell(&format!("{line} undo --dry-run 2>&1")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said.contains(told) { Ok(()) } else { Err(said) }
        });
    }
}

#[test]
fn a_time_before_the_oldest_version_is_refused_with_what_there_is() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("file", "first");
    wait_settled(&[&a, &b]);
    b.write("file", "second");
    wait_until("a has what b changed", || match a.read("file") {
        bytes if bytes == b"second" => Ok(()),
        bytes => Err(format!("{bytes:?}")),
    });
    let path = a.at("file");
    // A moment after the file the version before it is in the history.
    let command = wait_until("what there is is told", || {
        let output = a.run(&["restore", &format!("{}@2d", path.display())]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), a.read("file")), (Some(2), b"second".to_vec()), "{said}");
        let command = said.split_once("To bring that one back: ").and_then(|(_, rest)| rest.split(';').next());
        command.map(str::to_owned).ok_or(said)
    });
    // It can be pasted.
    let pasted = a.shell(&command).output().unwrap();
    assert!(pasted.status.success(), "{command}: {}", String::from_utf8_lossy(&pasted.stderr));
    assert_eq!(a.read("file"), b"first");
}
