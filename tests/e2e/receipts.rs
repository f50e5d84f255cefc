//! Waiting until other devices have what is here.

use std::fs;

use p2psync::api::WaitReport;

use crate::harness::{Agent, World, introduce, wait_connected, wait_settled, wait_until};

fn wait(agent: &Agent, words: &[&str]) -> (Option<i32>, Vec<WaitReport>) {
    let output = agent.run(&[&["wait", "--json"], words].concat());
    let reports = serde_json::from_slice(&output.stdout);
    (output.status.code(), reports.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn waiting_ends_once_the_other_device_has_what_was_just_written() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    a.write("d/report", "first");
    let (code, reports) = wait(&a, &[]);
    assert_eq!((code, reports[0].done, reports[0].holding), (Some(0), true, 1));
    assert_eq!(b.read("d/report"), b"first");
    a.write("d/report", "second");
    let path = a.at("d/report");
    assert_eq!(wait(&a, &[path.to_str().unwrap(), "--peers", "1"]).0, Some(0));
    assert_eq!(b.read("d/report"), b"second");
    fs::remove_file(&path).unwrap();
    assert_eq!(wait(&a, &[a.at("d").to_str().unwrap()]).0, Some(0));
    assert!(!b.at("d/report").exists());
    assert_eq!(a.folder().unwrap().only_here_files, 0);

    b.stop();
    a.write("late", "not there");
    let (code, reports) = wait(&a, &["--timeout", "2s"]);
    assert_eq!((code, reports[0].done, reports[0].holding), (Some(3), false, 0));
    let peer = &reports[0].peers[0];
    assert_eq!((&peer.name[..], peer.connected, &peer.missing[0].path[..]), ("b", false, "late"));
    assert_eq!(a.folder().unwrap().only_here_files, 1);
    assert!(a.ok(&["status"]).contains("1 file exists only here"));
    let said = String::from_utf8(a.run(&["wait", "--timeout", "1s"]).stdout).unwrap();
    assert!(said.contains("b (not connected") && said.contains("late"), "{said}");
    assert!(a.fails(&["wait", "--peers", "2", "--timeout", "1s"]).contains("only 1 other device"));
    assert!(a.fails(&["wait", a.at("none").to_str().unwrap()]).contains("no such file"));

    // Whoever waits already is woken when the device comes back.
    let waiting = a.command(&["wait"]).stdout(std::process::Stdio::null()).spawn();
    b.start();
    let mut waiting = waiting.unwrap();
    let status = wait_until("the waiting command ends", || {
        waiting.try_wait().unwrap().ok_or_else(|| "still waiting".to_owned())
    });
    assert_eq!(status.code(), Some(0));
    assert_eq!(b.read("late"), b"not there");
    a.stop();
    assert_eq!(a.run(&["wait"]).status.code(), Some(4));
}

#[test]
fn one_device_of_two_is_enough_where_that_is_asked_for() {
    let world = World::new();
    let (mut a, mut b, c) = (world.agent("a"), world.agent("b"), world.agent("c"));
    introduce(&a, &b);
    introduce(&a, &c);
    a.start();
    b.start();
    wait_connected(&a, &b);
    a.write("x", "1");
    wait_settled(&[&a, &b]);
    assert_eq!(wait(&a, &["--peers", "1", "--timeout", "60s"]).0, Some(0));
    let (code, reports) = wait(&a, &["--timeout", "1s"]);
    assert_eq!((code, reports[0].holding, reports[0].wanted), (Some(3), 1, 2));
}
