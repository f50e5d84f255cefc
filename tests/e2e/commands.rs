//! What a person meets at the command line: first start, mistakes, the end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::harness::{World, wait_same, wait_settled, wait_until};

/// Longest time that stopping may take. It is much shorter on a machine that has nothing else to do.
const STOP_BOUND: Duration = Duration::from_secs(3);

#[test]
fn the_first_start_makes_all_that_is_needed_and_says_what_to_do_next() {
    let world = World::new();
    let mut a = world.bare_agent("a");
    assert!(a.ok(&[]).contains("p2psync run"));
    a.start();
    assert!(a.base.join("P2PSync/.p2psync").is_dir());
    for (path, mode) in [("home", 0o700), ("home/identity", 0o600), ("home/control.sock", 0o600)] {
        let found = fs::metadata(a.base.join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    let log = a.log_text();
    assert!(log.contains(&a.id()) && log.contains("p2psync pair"), "{log}");
    let status = a.status().unwrap();
    assert_eq!(status.listening.as_deref(), Some(a.listen.as_str()));
    assert_eq!(status.folders[0].label, "P2PSync");
    assert!(a.ok(&[]).contains("p2psync pair"));
    let id = a.id();
    a.restart();
    assert_eq!(a.id(), id);
    a.stop();
    assert!(a.ok(&[]).contains("not running"));
}

#[test]
fn a_second_agent_on_the_same_home_is_refused() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    let said = a.fails(&["run"]);
    assert!(said.contains("already running"), "{said}");
    assert!(a.status().unwrap().running);
}

#[test]
fn an_agent_ends_soon_and_cleanly_when_it_is_asked_to() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for agent in [&mut a, &mut b] {
        let (status, time) = agent.stop();
        assert!(status.success(), "{status}");
        assert!(time < STOP_BOUND, "{} took {time:?} to stop", agent.name);
    }
    assert!(!a.status().unwrap().running);
}

#[test]
fn a_mistake_in_the_config_is_shown_with_its_place() {
    let world = World::new();
    let a = world.agent("a");
    let file = a.home.join("config.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[[folder]]\nid = 5\n")).unwrap();
    let line = good.lines().count() + 3;
    for words in [&["run"][..], &["config", "check"]] {
        let said = a.fails(words);
        assert!(said.contains(&format!("config.toml:{line}:6")) && said.contains("id = 5"), "{said}");
    }
}

#[test]
fn a_running_agent_keeps_on_through_a_broken_config_and_takes_the_mended_one() {
    let world = World::new();
    let (a, b) = world.pair();
    let file = a.home.join("config.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("name = \"a\"", "name = ")).unwrap();
    wait_until("a reports the mistake", || {
        if a.log_text().contains("config.toml:1") { Ok(()) } else { Err("not in the log".to_owned()) }
    });
    a.write("meanwhile", "goes on");
    wait_same(&[&a, &b]);
    fs::write(&file, good.replace("name = \"a\"", "name = \"renamed\"")).unwrap();
    wait_until("a has its new name", || match a.status()?.name {
        name if name == "renamed" => Ok(()),
        name => Err(name),
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    let world = World::new();
    let mut a = world.agent("a");
    let taken = TcpListener::bind(&a.listen).unwrap();
    a.launch();
    assert_eq!(a.wait_end().code(), Some(1));
    let (log, port) = (a.log_text(), taken.local_addr().unwrap().port());
    assert!(log.contains(&port.to_string()) && log.contains("listen"), "{log}");
}

#[test]
fn the_status_of_a_path_explains_it() {
    let world = World::new();
    let (a, mut b) = world.pair();
    a.write("dir/file", "synced");
    wait_settled(&[&a, &b]);
    let path = a.at("dir/file");
    wait_until("a knows that b has the file", || {
        let found = a.path_status(&path);
        let is_known = found.state == "in_sync" && found.peers.iter().any(|p| p.name == "b" && p.has_it);
        if is_known { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert!(a.ok(&["status", path.to_str().unwrap()]).contains("dir/file"));
    b.stop();
    fs::write(&path, "changed while b is away").unwrap();
    wait_until("a knows that b lacks the change", || {
        let found = a.path_status(&path);
        let lacks = found.peers.iter().any(|p| p.name == "b" && !p.connected && !p.has_it);
        if lacks && !found.explanation.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let outside = a.fails(&["status", "/nowhere/at/all"]);
    assert!(outside.contains("none of your folders"), "{outside}");
}

#[test]
fn status_reads_the_index_where_no_agent_runs() {
    let world = World::new();
    let (a, mut b) = world.pair();
    a.write("file", "bytes");
    wait_settled(&[&a, &b]);
    b.stop();
    let status = b.status().unwrap();
    assert!(!status.running);
    assert_eq!((status.folders[0].files, status.folders[0].bytes), (1, 5));
}

#[test]
fn what_cannot_be_synced_is_reported_and_nothing_else_stops() {
    let world = World::new();
    let (a, b) = world.pair();
    rustix::fs::mkfifoat(rustix::fs::CWD, a.at("pipe"), rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    a.write("beside the pipe", "arrives");
    wait_until("the file has arrived", || {
        if b.at("beside the pipe").exists() { Ok(()) } else { Err("not there".to_owned()) }
    });
    assert!(!b.at("pipe").exists());
    a.ok(&["folder", "rescan"]);
    let found = a.path_status(&a.at("pipe"));
    assert!(!found.explanation.is_empty(), "{found:?}");
}
