//! Every state of a device as a person sees it, narrow and wide, and as programs read it.

use std::path::Path;

use super::words::next_step;
use super::{exit_of, exit_of_path, full, path, samples, short};
use crate::api::{FolderOffer, FolderState, FolderStatus, PathPeerStatus, PathStatus, Status};
use crate::cli::exit::Exit;
use crate::cli::style::Style;
use crate::cli::watch::picture;
use crate::home::Home;
use samples::NOW_MS;

const NARROW: Style = Style { width: Some(80), colour: false };
const WIDE: Style = Style { width: Some(120), colour: false };

fn home() -> Home {
    Home::at(Path::new("/h"), "/home/me".into())
}

fn all() -> [(&'static str, Status); 5] {
    [
        ("in_sync", samples::in_sync()),
        ("busy", samples::busy()),
        ("stopped", samples::stopped()),
        ("held", samples::held()),
        ("offered", samples::offered()),
    ]
}

#[test]
fn every_state_is_told_in_a_few_lines() {
    for (name, status) in all() {
        let text = short::text(&status, &home(), NOW_MS, Style::PLAIN);
        assert!(text.lines().count() <= 5, "{text}");
        insta::assert_snapshot!(format!("short_{name}"), text);
        // Broken lines hang, and none is too long.
        let text = short::text(&status, &home(), NOW_MS, NARROW);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn every_state_is_told_in_full() {
    for (name, status) in all() {
        let narrow = NARROW.flow(&full::text(&status, &home(), NOW_MS, NARROW));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        insta::assert_snapshot!(format!("full_{name}_80"), narrow);
    }
    insta::assert_snapshot!("full_busy_120", WIDE.flow(&full::text(&samples::busy(), &home(), NOW_MS, WIDE)));
    let coloured = Style { width: Some(80), colour: true };
    let text = full::text(&samples::busy(), &home(), NOW_MS, coloured);
    assert!(text.contains("\x1b[33m120 files") && text.matches("\x1b[0m").count() * 2 == text.matches("\x1b[").count());
    assert!(!text.contains("a\x1bb"), "what comes from elsewhere does not reach the terminal as it is");
}

#[test]
fn the_picture_in_the_docs_shows_a_status_as_it_is() {
    const COLUMNS: u16 = 100;
    let style = Style { width: Some(COLUMNS.into()), colour: true };
    let text = style.flow(&full::text(&samples::everyday(), &home(), NOW_MS, style));
    picture::assert_in_docs("status.svg", &picture::svg(&picture::screen(&text, COLUMNS)));
}

#[test]
fn the_json_of_every_state_is_stable() {
    for (name, status) in all() {
        let json = serde_json::to_string_pretty(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
        if name != "held" && name != "stopped" {
            insta::assert_snapshot!(format!("json_{name}"), json);
        }
    }
}

#[test]
fn what_an_older_agent_does_not_tell_is_not_known() {
    let mut json = serde_json::to_value(samples::in_sync()).unwrap();
    let new =
        ["complete_percent", "rate_in", "rate_out", "eta_seconds", "transfers", "transfers_total", "declined_items"];
    let folder = json["folders"][0].as_object_mut().unwrap();
    new.iter().for_each(|key| drop(folder.remove(*key)));
    let status: Status = serde_json::from_value(json).unwrap();
    assert_eq!((status.folders[0].complete_percent, status.folders[0].transfers_total), (None, 0));
}

#[test]
fn the_next_step_is_the_one_that_helps_most() {
    let check = |word: &str, change: fn(&mut Status)| {
        let mut status = samples::in_sync();
        change(&mut status);
        let (next, full) = (next_step(&status, false), next_step(&status, true));
        assert!(next.contains(word) || full.contains(word), "{word}: {next}, {full}");
    };
    check("nothing to do", |_| ());
    check("p2psync run", |s| s.running = false);
    check("p2psync pair", |s| s.peers.clear());
    check("folder add", |s| s.folders.clear());
    check("what is wrong", |s| {
        s.peers.clear();
        s.folders[0].state = FolderState::Halted;
    });
    check("what is wrong", |s| s.folders[0].problems_total = 1);
    check("nothing to do", |s| (s.folders[0].problems_total, s.folders[0].declined_items) = (1, 1));
    check("desktop has removed this device: 'p2psync pair' on both", |s| {
        (s.peers[0].unpaired, s.peers[0].last_seen_ms) = (true, Some(0));
    });
    check("desktop does not know this device yet", |s| (s.peers[0].unpaired, s.peers[0].last_seen_ms) = (true, None));
    check("'p2psync peer remove desktop'", |s| {
        (s.peers[0].unpaired, s.peers[0].last_seen_ms, s.folders[0].problems_total) = (true, Some(0), 1);
    });
    check("other devices", |s| s.peers.iter_mut().for_each(|p| p.connected = false));
    check("takes part", |s| {
        s.folders.clear();
        s.peers[0].offers = vec![FolderOffer::default()];
    });
    check("takes part", |s| s.peers[0].offers = vec![FolderOffer::default()]);
    check("type on desktop: p2psync folder accept ", |s| {
        let peer = &mut s.folders[0].peers[0];
        (peer.lacks_folder, peer.proved_identical_ms) = (true, None);
    });
    check("type on desktop, to see what it cannot take: p2psync status", |s| {
        let peer = &mut s.folders[0].peers[0];
        (peer.connected, peer.blocked_items) = (true, 2);
    });
    check("confirm-changes P2PSync", |s| s.folders[0].held = Some(Default::default()));
}

#[test]
fn a_device_that_has_removed_this_one_is_named_with_what_to_do() {
    let mut status = samples::in_sync();
    (status.peers[0].unpaired, status.peers[0].connected, status.peers[0].last_seen_ms) = (true, false, Some(0));
    status.peers[0].trouble = Some("the two devices are no longer paired".into());
    assert!(short::text(&status, &home(), NOW_MS, WIDE).contains("Devices: desktop has removed this device"));
    let full = full::text(&status, &home(), NOW_MS, Style::PLAIN);
    assert!(full.contains("forget it here with: p2psync peer remove desktop"), "{full}");
}

#[test]
fn a_path_is_explained_with_the_version_at_each_device() {
    let peer = |name: &str, connected, version: Option<&str>, text: &str| PathPeerStatus {
        name: name.into(),
        connected,
        version: version.map(str::to_owned),
        text: text.into(),
        ..PathPeerStatus::default()
    };
    let found = PathStatus {
        path: "/home/me/P2PSync/a".into(),
        folder: "P2PSync".into(),
        state: "problem".into(),
        explanation: vec![
            "A newer version is to come from desktop.".into(),
            "The disk is full; free some space.".into(),
            "First seen 2 hours ago; the next try is in 3 seconds.".into(),
        ],
        here: Some("a file of 3 bytes, changed 2 days ago by laptop".into()),
        peers: vec![
            peer("desktop", true, Some("a file of 12 MB, changed 2 hours ago by desktop"), "has a newer version"),
            peer("phone", false, None, "does not have it yet; last seen 3 days ago"),
        ],
        since_ms: Some(NOW_MS - 7_200_000),
        next: None,
    };
    insta::assert_snapshot!("path_problem", path::text(&found, "~/P2PSync/a", NOW_MS, NARROW));
    insta::assert_snapshot!("path_problem_json", serde_json::to_string_pretty(&found).unwrap());
    let waiting = PathStatus {
        state: "waiting".into(),
        since_ms: None,
        next: Some("it goes on as soon as p2psync runs on phone and can be reached.".into()),
        ..found
    };
    insta::assert_snapshot!("path_waiting", path::text(&waiting, "~/P2PSync/a", NOW_MS, NARROW));
}

#[test]
fn the_exit_code_tells_whether_all_is_in_sync() {
    let status = |running, states: &[FolderState]| Status {
        running,
        folders: states.iter().map(|state| FolderStatus { state: *state, ..Default::default() }).collect(),
        ..Default::default()
    };
    assert_eq!(exit_of(&status(true, &[FolderState::InSync, FolderState::Paused])), Exit::Fine);
    assert_eq!(exit_of(&status(true, &[FolderState::InSync, FolderState::WaitingForPeers])), Exit::NotInSync);
    assert_eq!(exit_of(&status(false, &[FolderState::NotRunning])), Exit::NotRunning);
    let path = |state: &str| exit_of_path(&PathStatus { state: state.into(), ..Default::default() });
    assert_eq!([path("in_sync"), path("ignored"), path("waiting")], [Exit::Fine, Exit::Fine, Exit::NotInSync]);
}
