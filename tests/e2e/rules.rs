//! Rules and manners of a folder: what is ignored here, which way changes go, which part is wanted, and for how long it is
//! left alone.

use std::fs;
use std::time::{Duration, Instant};

use p2psync::api::{FolderState, IgnoreTest};

use crate::harness::{Agent, World, introduce, wait_connected, wait_same, wait_settled, wait_until};

fn wait_for(what: &str, done: impl Fn() -> bool) {
    wait_until(what, || if done() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// Waits until a file written now has gone from one to the other: all that came before has been looked at.
fn sign(from: &Agent, to: &Agent, name: &str) {
    from.write(name, format!("a sign named {name}"));
    wait_for("the sign has arrived", || to.at(name).exists());
}

fn wait_in_sync(agents: &[&Agent]) {
    for agent in agents {
        wait_until(&format!("{} says that it is in sync", agent.name), || match agent.folder()? {
            folder if folder.state == FolderState::InSync => Ok(()),
            folder => Err(format!("{:?}: {}", folder.state, folder.state_text)),
        });
    }
}

fn tested(agent: &Agent, name: &str) -> IgnoreTest {
    serde_json::from_str(&agent.ok(&["ignore", "test", agent.at(name).to_str().unwrap(), "--json"])).unwrap()
}

#[test]
fn rules_of_a_directory_and_of_one_device_hold_where_they_stand() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("src/main.c", "code");
    a.write("src/.p2pignore", "/out/\n*.tmp\n!keep.tmp\n");
    a.write(".p2pignore.local", "*.iso\n");
    sign(&a, &b, "rules are read");
    for name in ["src/out/x", "src/x.tmp", "disk.iso", "src/keep.tmp", "x.tmp"] {
        a.write(name, name);
    }
    sign(&a, &b, "all is looked at");
    wait_for("what no rule covers is there", || b.at("src/keep.tmp").exists() && b.at("x.tmp").exists());
    for name in ["src/out", "src/x.tmp", "disk.iso", ".p2pignore.local"] {
        assert!(!b.at(name).exists(), "{name} was sent");
    }
    let at =
        |name: &str| tested(&a, name).rule.map(|rule| (rule.file.unwrap_or_default(), rule.line.unwrap_or_default()));
    assert_eq!(at("src/x.tmp"), Some(("src/.p2pignore".into(), 2)));
    assert_eq!(at("src/not/there.tmp"), Some(("src/.p2pignore".into(), 2)));
    assert_eq!(at("disk.iso"), Some((".p2pignore.local".into(), 1)));
    assert!(!tested(&a, "src/keep.tmp").ignored && !tested(&b, "disk.iso").ignored);
    assert!(a.ok(&["ignore", "list"]).contains("line 2 of src/.p2pignore"));
    a.write(".p2pignore.local", "");
    wait_for("the device's own rules are taken back", || b.at("disk.iso").exists());
}

#[test]
fn a_folder_that_only_sends_takes_nothing_until_told_and_overrules() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("file", "from a");
    wait_settled(&[&a, &b]);
    a.ok(&["folder", "direction", "Shared", "send"]);
    b.write("file", "changed on b");
    b.write("new on b", "new");
    wait_until("a says what it does not take", || match a.folder()? {
        folder if folder.kept_out == 2 => Ok(()),
        folder => Err(folder.state_text),
    });
    wait_in_sync(&[&a, &b]);
    assert_eq!((a.read("file"), a.at("new on b").exists()), (b"from a".to_vec(), false));
    assert_eq!(a.path_status(&a.at("file")).state, "local", "what differs from other devices is not in sync");
    let asked = a.fails(&["folder", "override", "Shared"]);
    assert!(asked.contains("say --yes to do this"), "{asked}");
    a.ok(&["folder", "override", "Shared", "--yes"]);
    wait_for("b has what a has", || b.read("file") == b"from a" && !b.at("new on b").exists());
    wait_same(&[&a, &b]);
    assert!(b.ok(&["history", b.at("file").to_str().unwrap()]).contains("file"), "what was overruled is in history");
}

#[test]
fn a_change_made_in_a_folder_that_only_receives_stays_there_until_it_is_taken_back() {
    let world = World::new();
    let (a, mut b) = world.pair();
    a.write("file", "from a");
    a.write("deleted", "on b");
    wait_settled(&[&a, &b]);
    b.ok(&["folder", "direction", "Shared", "receive"]);
    b.write("file", "changed on b");
    b.write("dir/new", "new");
    fs::remove_file(b.at("deleted")).unwrap();
    wait_until("b lists what stays here", || match b.folder()? {
        folder if folder.own_changes == 4 => Ok(()),
        folder => Err(folder.state_text),
    });
    sign(&a, &b, "still receives");
    assert_eq!(a.read("file"), b"from a");
    assert!(a.at("deleted").exists() && !a.at("dir").exists());
    assert_eq!(b.path_status(&b.at("file")).state, "local");
    b.restart();
    wait_until("b still lists them", || match b.folder()? {
        folder if folder.own_changes == 4 => Ok(()),
        folder => Err(folder.state_text),
    });
    let told = b.fails(&["folder", "revert", "Shared"]);
    assert!(told.contains("4 local changes") && told.contains("--yes"), "{told}");
    assert_eq!(b.read("file"), b"changed on b");
    b.ok(&["folder", "revert", "Shared", "--yes"]);
    wait_for("b has what a has", || b.read("file") == b"from a" && b.at("deleted").exists() && !b.at("dir").exists());
    wait_same(&[&a, &b]);
    wait_until("b has nothing left to take back", || match b.folder()? {
        folder if folder.own_changes == 0 => Ok(()),
        folder => Err(folder.state_text),
    });
    assert!(b.ok(&["folder", "revert"]).contains("nothing to do"));
    assert!(b.ok(&["history", b.at("dir/new").to_str().unwrap()]).contains("dir/new"), "it is in history");
}

#[test]
fn what_is_not_selected_is_not_fetched_and_stays_everywhere() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("Photos/2025/old", "old");
    a.write("Photos/2026/new", "new");
    a.write("Music/song", "song");
    wait_settled(&[&a, &b]);
    b.ok(&["folder", "select", "Shared", "--only", "Photos/2026/**"]);
    a.write("Music/other", "not for b");
    a.write("Photos/2026/more", "for b");
    wait_for("what is selected arrives", || b.at("Photos/2026/more").exists());
    wait_in_sync(&[&a, &b]);
    assert!(b.at("Music/song").exists() && !b.at("Music/other").exists());
    fs::remove_file(b.at("Music/song")).unwrap();
    let status = b.path_status(&b.at("Music/other"));
    assert!(status.state == "ignored" && status.explanation[0].contains("not selected on this device"), "{status:?}");
    sign(&b, &a, "Photos/2026/sign");
    assert!(a.at("Music/song").exists(), "what is not selected was deleted elsewhere");
    b.ok(&["folder", "select", "Shared", "--all"]);
    wait_for("all of it is back", || b.at("Music/song").exists() && b.at("Music/other").exists());
    wait_same(&[&a, &b]);
}

#[test]
fn a_pause_ends_by_itself_also_after_a_restart() {
    let world = World::new();
    let (mut a, b) = world.pair();
    let said = a.ok(&["pause", "4s"]);
    assert!(said.contains("paused until"), "{said}");
    wait_until("a is paused", || match a.folder()? {
        folder if folder.state == FolderState::Paused && folder.state_text.contains("paused until") => Ok(()),
        folder => Err(folder.state_text),
    });
    a.write("meanwhile", "written while it is paused");
    a.restart();
    wait_for("it goes on by itself", || b.at("meanwhile").exists());
    a.ok(&["pause"]);
    wait_until("a is paused", || match a.folder()? {
        folder if folder.state == FolderState::Paused => Ok(()),
        folder => Err(folder.state_text),
    });
    a.write("more", "written while it is paused");
    a.ok(&["resume"]);
    wait_for("it goes on", || b.at("more").exists());
    assert!(a.fails(&["pause", "until", "teatime"]).contains("write it like 18:00"));
}

/// Bytes that no compressor makes smaller.
fn noise(count: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn caps_hold_on_either_side() {
    const MIB: usize = 1024 * 1024;
    for (caps_a, caps_b) in [("upload_kib_s = 512", ""), ("", "download_kib_s = 512")] {
        let world = World::new();
        let mut a = world.agent_with("a", &format!("\n[limits]\n{caps_a}"));
        let mut b = world.agent_with("b", &format!("\n[limits]\n{caps_b}"));
        introduce(&a, &b);
        a.start();
        b.start();
        wait_connected(&a, &b);
        let begun = Instant::now();
        a.write("large", noise(4 * MIB, 7));
        wait_settled(&[&a, &b]);
        // What may go at once: the burst, and the one request or frame that the cap is overdrawn by.
        let least = Duration::from_secs(4);
        assert!(begun.elapsed() >= least, "{caps_a}{caps_b}: 4 MiB took only {:?}", begun.elapsed());
        assert_eq!(b.read("large").len(), 4 * MIB);
    }
}

#[test]
fn what_shrinks_goes_compressed_over_a_slow_line() {
    let world = World::new();
    let mut a = world.agent_with("a", "\n[limits]\nupload_kib_s = 4096");
    let mut b = world.agent_with("b", "");
    introduce(&a, &b);
    a.start();
    b.start();
    wait_connected(&a, &b);
    let lines = (0..200_000u64).map(|n| format!("{n}: measured {} in room {}\n", n.wrapping_mul(977) % 10_007, n % 31));
    let text: String = lines.collect();
    a.write("readings.txt", &text);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("readings.txt"), text.as_bytes());
    let sent = a.peer(&b).unwrap().bytes_out;
    assert!(sent < text.len() as u64 / 2, "{} bytes took {sent} on the wire", text.len());
}

#[test]
fn a_folder_that_no_agent_has_looked_at_yet_is_not_told_as_lost() {
    let world = World::new();
    let a = world.agent("a");
    for words in [&["ignore", "list"][..], &["ignore", "test", a.at("x").to_str().unwrap()]] {
        let said = a.fails(words);
        assert!(said.contains("is new") && said.contains("p2psync run"), "{said}");
    }
    let told = a.ok(&["status", "--problems"]);
    assert!(told.contains("It has not been scanned yet; 'p2psync run' starts the agent."), "{told}");
}
