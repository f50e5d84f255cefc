//! `p2psync status`, and what `p2psync` alone says.

use std::fmt::Write;
use std::path::Path;

use super::context::Context;
use super::exit::Exit;
use super::offers;
use super::output::{self, Table, clean, count, number};
use super::peer;
use crate::api::{
    FolderPeerStatus, FolderState, FolderStatus, PathStatus, PeerStatus, Reply, Request, Status, WirePath,
};
use crate::config::ConfigError;
use crate::engine;

/// Problems listed per folder before the rest is only counted.
const PROBLEMS_LISTED_MAX: usize = 10;

/// Shows everything, or all about one path.
///
/// With `exit_code`, [`Exit::NotInSync`] is the error where something is not in sync, [`Exit::NotRunning`] where no
/// agent runs.
pub fn run(context: &Context, path: Option<&Path>, json: bool, exit_code: bool) -> anyhow::Result<()> {
    let exit = match path {
        Some(path) => one_path(context, path, json)?,
        None => {
            let status = status(context)?;
            if json {
                output::print_json(&status)?;
            } else {
                output::print(&with_config_fault(full_text(&status, context), context))?;
            }
            exit_of(&status)
        }
    };
    if exit_code && exit != Exit::Fine { Err(exit.into()) } else { Ok(()) }
}

/// What `--exit-code` tells of everything. A paused folder is as its user wants it.
fn exit_of(status: &Status) -> Exit {
    let is_in_sync = |f: &FolderStatus| matches!(f.state, FolderState::InSync | FolderState::Paused);
    match status.running {
        false => Exit::NotRunning,
        true if status.problems_total == 0 && status.folders.iter().all(is_in_sync) => Exit::Fine,
        true => Exit::NotInSync,
    }
}

/// What `--exit-code` tells of one path. An ignored one is not meant to be in sync.
fn exit_of_path(found: &PathStatus) -> Exit {
    if matches!(found.state.as_str(), "in_sync" | "ignored" | "deleted") { Exit::Fine } else { Exit::NotInSync }
}

/// A few lines and what to do next.
pub fn short(context: &Context) -> anyhow::Result<()> {
    if matches!(context.config(), Err(ConfigError::Missing { .. })) {
        return output::print(
            "p2psync is not set up on this device yet.\n\
             Next: 'p2psync run' starts it and makes the folder ~/P2PSync. 'p2psync --help' shows all commands.\n",
        );
    }
    output::print(&with_config_fault(short_text(&status(context)?, context), context))
}

/// The text, and that a running agent goes by an older config where the file has a mistake now.
fn with_config_fault(mut text: String, context: &Context) -> String {
    if context.config().is_err() {
        text.push_str(
            "The config file cannot be used as it is, so what changed in it waits: 'p2psync config check' says why\n",
        );
    }
    text
}

fn status(context: &Context) -> anyhow::Result<Status> {
    context.ask_or_read(
        &Request::Status,
        |reply| match reply {
            Reply::Status(status) => Some(status),
            _ => None,
        },
        |config| engine::report::status(&context.home, config, None),
    )
}

fn one_path(context: &Context, given: &Path, json: bool) -> anyhow::Result<Exit> {
    let path = context.path_in_folder(&context.config()?, given)?;
    let found = context.ask_or_read(
        &Request::StatusPath { path: WirePath(path.clone()) },
        |reply| match reply {
            Reply::Path(found) => Some(found),
            _ => None,
        },
        |config| engine::report::path_status(&context.home, config, &path, None),
    )?;
    if json {
        output::print_json(&found)?
    } else {
        output::print(&path_text(&found))?
    }
    Ok(exit_of_path(&found))
}

fn short_text(status: &Status, context: &Context) -> String {
    let mut text = format!("{}\n", headline(status));
    for folder in &status.folders {
        let place = output::short_path(Path::new(&folder.path), context.home.user_dir());
        let _ = writeln!(text, "{} ({place}): {}", clean(&folder.label), one_sentence(folder));
    }
    let peers: Vec<String> =
        status.peers.iter().map(|p| format!("{} {}", clean(&p.name), output::peer_state(p, context.now_ms))).collect();
    if !peers.is_empty() && status.running {
        let _ = writeln!(text, "Peers: {}", peers.join("; "));
    }
    let _ = writeln!(text, "Next: {}", next_step(status, false));
    text
}

fn headline(status: &Status) -> String {
    let id = status.device_id.split('-').next().unwrap_or_default();
    let state = match (status.running, &status.listening) {
        (true, Some(address)) => format!("running, reachable at {}", clean(address)),
        (true, None) => "running".to_owned(),
        (false, _) => "not running".to_owned(),
    };
    format!("{} ({}): {state}", clean(&status.name), clean(id))
}

/// State, what is here, and what needs a look.
fn one_sentence(folder: &FolderStatus) -> String {
    let mut parts = vec![without_stop(&state_text(folder)), held_here(folder)];
    if folder.only_here_files > 0 && !folder.peers.is_empty() {
        parts.push(only_here(folder));
    }
    if folder.problems_total > 0 {
        parts.push(count(folder.problems_total, "problem", "problems"));
    }
    if folder.conflicts > 0 {
        parts.push(count(folder.conflicts, "conflict copy", "conflict copies"));
    }
    parts.join("; ")
}

/// What would be lost with this device.
fn only_here(folder: &FolderStatus) -> String {
    count(folder.only_here_files, "file exists only here", "files exist only here")
}

fn held_here(folder: &FolderStatus) -> String {
    format!("{}, {}", count(folder.files, "file", "files"), output::bytes(folder.bytes))
}

fn without_stop(text: &str) -> String {
    text.trim_end_matches('.').to_owned()
}

fn state_text(folder: &FolderStatus) -> String {
    if !folder.state_text.is_empty() {
        return clean(&folder.state_text);
    }
    match folder.state {
        FolderState::InSync => "in sync",
        FolderState::Syncing => "syncing",
        FolderState::Scanning => "scanning",
        FolderState::Paused => "paused",
        FolderState::Halted => "stopped",
        FolderState::Held => "many deletions wait for your word",
        FolderState::Problems => "in sync but for some items",
        FolderState::WaitingForPeers => "no other device is connected",
        FolderState::NotRunning => "not running",
        FolderState::Starting => "starting",
    }
    .to_owned()
}

/// The one thing that helps most now. `is_full` where all that is wrong is told already.
fn next_step(status: &Status, is_full: bool) -> String {
    let held = status.folders.iter().find(|f| f.held.is_some());
    if let Some(folder) = held {
        let id = clean(&folder.id);
        return format!("'p2psync folder confirm-changes {id}' or 'p2psync folder reject-changes {id}'");
    }
    if !status.running {
        return "start it with 'p2psync run'".to_owned();
    }
    if status.folders.is_empty() {
        return "share a directory with 'p2psync folder add PATH'".to_owned();
    }
    if status.peers.is_empty() {
        return "pair with another device: type 'p2psync pair' here, and the code it shows there".to_owned();
    }
    if status.problems_total > 0 || status.folders.iter().any(|f| f.state == FolderState::Halted) {
        return match is_full {
            true => "put right what is listed above; 'p2psync status PATH' says more about one of the paths".to_owned(),
            false => "'p2psync status' says what is wrong and what to do".to_owned(),
        };
    }
    if status.folders.iter().any(|f| f.conflicts > 0) {
        return "'p2psync conflicts' shows the conflict copies".to_owned();
    }
    let offered =
        |peer: &PeerStatus| peer.offers.first().map(|o| (clean(&peer.name), clean(&o.label), offers::command(o)));
    if let Some((name, label, command)) = status.peers.iter().find_map(offered) {
        return format!("{name} shares '{label}', and this takes part in it: {command}");
    }
    // Whoever has proved to have the same once has the folder, and has only paused it, say.
    let is_without = |p: &&FolderPeerStatus| p.lacks_folder && p.proved_identical_ms.is_none();
    let missing = |f: &FolderStatus| f.peers.iter().find(is_without).map(|p| (clean(&p.name), clean(&f.id)));
    if let Some((name, id)) = status.folders.iter().find_map(missing) {
        return format!("type on {name}: 'p2psync folder add PATH --id {id}'");
    }
    if !status.peers.iter().any(|p| p.connected) {
        return "start p2psync on your other devices; this one finds them".to_owned();
    }
    if is_full { "nothing to do".to_owned() } else { "nothing to do; 'p2psync status' shows more".to_owned() }
}

fn full_text(status: &Status, context: &Context) -> String {
    let mut text = format!("{}\n", headline(status));
    for folder in &status.folders {
        text.push('\n');
        folder_text(&mut text, folder, context);
    }
    if !status.peers.is_empty() {
        text.push_str("\nPeers\n");
        let mut table = Table::indented(2);
        for peer in &status.peers {
            let short = peer.device_id.split('-').next().unwrap_or_default().to_owned();
            let address = peer.address.clone().filter(|_| peer.connected).unwrap_or_default();
            let traffic = match peer.bytes_in.max(peer.bytes_out) {
                0 => String::new(),
                _ => format!("received {}, sent {}", output::bytes(peer.bytes_in), output::bytes(peer.bytes_out)),
            };
            table.row([peer.name.clone(), short, output::peer_state(peer, context.now_ms), address, traffic]);
        }
        let _ = write!(text, "{table}");
        status.peers.iter().for_each(|peer| peer_notes(&mut text, peer));
    }
    let _ = writeln!(text, "\nNext: {}", next_step(status, true));
    text
}

/// Why a peer can't be reached, and what it offers.
fn peer_notes(text: &mut String, peer: &PeerStatus) {
    let name = clean(&peer.name);
    if let Some(trouble) = &peer.trouble {
        let _ = writeln!(text, "  {name}: {}", clean(trouble));
    }
    if let Some(warning) = peer::clock_warning(peer) {
        let _ = writeln!(text, "  {name}: {warning}");
    }
    for offer in &peer.offers {
        let (label, command) = (clean(&offer.label), offers::command(offer));
        let _ = writeln!(text, "  {name} shares '{label}' with this device. To take part: {command}");
    }
}

fn folder_text(text: &mut String, folder: &FolderStatus, context: &Context) {
    let place = output::short_path(Path::new(&folder.path), context.home.user_dir());
    let _ = writeln!(text, "Folder {} ({place}, id {})", clean(&folder.label), clean(&folder.id));
    let _ = writeln!(text, "  State: {}", state_text(folder));
    let directories = count(folder.directories, "directory", "directories");
    let _ = writeln!(
        text,
        "  Here: {}, {directories}, {}",
        count(folder.files, "file", "files"),
        output::bytes(folder.bytes)
    );
    if folder.only_here_files > 0 && !folder.peers.is_empty() {
        let _ = writeln!(text, "  {}; no other device has said that it has them", only_here(folder));
    }
    if folder.need_files > 0 {
        let files = count(folder.need_files, "item", "items");
        let _ = writeln!(text, "  To come: {files}, {}", output::bytes(folder.need_bytes));
    }
    if let Some(scanned) = folder.last_scan_ms {
        let _ = writeln!(text, "  Last full scan: {}", output::ago(scanned, context.now_ms));
    }
    if !folder.watch.is_empty() && folder.watch != "ok" {
        let _ = writeln!(text, "  Watching: {}", clean(&folder.watch));
    }
    if let Some(held) = &folder.held {
        let _ = writeln!(text, "  Held back: {}", clean(&held.text));
    }
    if folder.conflicts > 0 {
        let _ = writeln!(
            text,
            "  {} (see 'p2psync conflicts')",
            count(folder.conflicts, "conflict copy", "conflict copies")
        );
    }
    if !folder.peers.is_empty() {
        text.push_str("  Peers:\n");
        let mut table = Table::indented(4);
        folder.peers.iter().for_each(|peer| table.row([peer.name.clone(), folder_peer_state(peer, context.now_ms)]));
        let _ = write!(text, "{table}");
    }
    if folder.problems_total > 0 {
        let _ = writeln!(text, "  {}:", count(folder.problems_total, "problem", "problems"));
        let mut table = Table::indented(4);
        let listed = folder.problems.iter().take(PROBLEMS_LISTED_MAX);
        let shown = listed.len() as u64;
        listed.for_each(|problem| table.row([problem.path.clone(), problem.text.clone()]));
        let _ = write!(text, "{table}");
        if folder.problems_total > shown {
            let _ = writeln!(text, "    and {} more (--json lists up to 50)", number(folder.problems_total - shown));
        }
    }
}

fn folder_peer_state(peer: &FolderPeerStatus, now_ms: i64) -> String {
    if peer.lacks_folder {
        return "connected, but does not share this folder".to_owned();
    }
    let connected = if peer.connected { "" } else { "not connected; " };
    let behind = match (peer.in_sync, peer.behind_items) {
        (true, _) => "has everything".to_owned(),
        (false, 0) if peer.proved_identical_ms.is_some() => "has all that is here".to_owned(),
        (false, 0) => "not compared yet".to_owned(),
        (false, items) => format!("still lacks {}", count(items, "item", "items")),
    };
    let proved = peer.proved_identical_ms.map(|ms| format!(", proved identical {}", output::ago(ms, now_ms)));
    format!("{connected}{behind}{}", proved.unwrap_or_default())
}

fn path_text(found: &PathStatus) -> String {
    let state = found.state.replace('_', " ");
    let mut text = format!("{} in {}: {}\n", clean(&found.path), clean(&found.folder), clean(&state));
    if let Some(here) = &found.here {
        let _ = writeln!(text, "Here: {}", clean(here));
    }
    for sentence in &found.explanation {
        let _ = writeln!(text, "{}", clean(sentence));
    }
    let mut table = Table::indented(2);
    for peer in &found.peers {
        let connected = if peer.connected { "" } else { "not connected" };
        table.row([peer.name.clone(), peer.text.clone(), connected.to_owned()]);
    }
    let _ = write!(text, "{table}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PeerStatus, ProblemItem};
    use crate::home::Home;

    const NOW_MS: i64 = 10_000_000;

    fn context() -> Context {
        Context { home: Home::at(Path::new("/h"), "/home/me".into()), now_ms: NOW_MS }
    }

    fn sample() -> Status {
        let folder = FolderStatus {
            id: "default".into(),
            label: "P2PSync".into(),
            path: "/home/me/P2PSync".into(),
            state: FolderState::InSync,
            files: 1204,
            directories: 1,
            bytes: 3_435_973_837,
            watch: "ok".into(),
            last_scan_ms: Some(NOW_MS - 120_000),
            peers: vec![FolderPeerStatus {
                name: "desktop".into(),
                connected: true,
                in_sync: true,
                proved_identical_ms: Some(NOW_MS - 60_000),
                ..Default::default()
            }],
            ..Default::default()
        };
        let peer = |name: &str, connected, last_seen_ms| PeerStatus {
            device_id: "BBBBBBB-C".into(),
            name: name.into(),
            connected,
            last_seen_ms,
            ..Default::default()
        };
        Status {
            device_id: "AAAAAAA-B".into(),
            name: "laptop".into(),
            running: true,
            listening: Some("[::]:7724".into()),
            folders: vec![folder],
            peers: vec![peer("desktop", true, None), peer("phone", false, Some(NOW_MS - 7_200_000))],
            problems_total: 0,
            starting: false,
        }
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

    #[test]
    fn the_short_status_fits_in_five_lines() {
        let expected = "\
laptop (AAAAAAA): running, reachable at [::]:7724
P2PSync (~/P2PSync): in sync; 1,204 files, 3.2 GB
Peers: desktop connected; phone not connected, last seen 2 hours ago
Next: nothing to do; 'p2psync status' shows more
";
        assert_eq!(short_text(&sample(), &context()), expected);
    }

    #[test]
    fn the_full_status_tells_all() {
        let mut status = sample();
        let folder = &mut status.folders[0];
        folder.problems_total = 3;
        folder.problems = vec![ProblemItem {
            path: "a\nb".into(),
            text: "the disk is full; free some space".into(),
            ..Default::default()
        }];
        folder.conflicts = 1;
        folder.need_files = 2;
        folder.need_bytes = 10;
        let expected = "\
laptop (AAAAAAA): running, reachable at [::]:7724

Folder P2PSync (~/P2PSync, id default)
  State: in sync
  Here: 1,204 files, 1 directory, 3.2 GB
  To come: 2 items, 10 bytes
  Last full scan: 2 minutes ago
  1 conflict copy (see 'p2psync conflicts')
  Peers:
    desktop  has everything, proved identical 1 minute ago
  3 problems:
    a\\nb  the disk is full; free some space
    and 2 more (--json lists up to 50)

Peers
  desktop  BBBBBBB  connected
  phone    BBBBBBB  not connected, last seen 2 hours ago

Next: 'p2psync conflicts' shows the conflict copies
";
        assert_eq!(full_text(&status, &context()), expected);
    }

    #[test]
    fn the_next_step_is_the_one_that_helps_most() {
        let check = |word: &str, change: fn(&mut Status)| {
            let mut status = sample();
            change(&mut status);
            let (next, full) = (next_step(&status, false), next_step(&status, true));
            assert!(next.contains(word) || full.contains(word), "{word}: {next}, {full}");
        };
        check("p2psync run", |s| s.running = false);
        check("p2psync pair", |s| s.peers.clear());
        check("folder add", |s| s.folders.clear());
        check("what is wrong", |s| s.problems_total = 1);
        check("other devices", |s| s.peers.iter_mut().for_each(|p| p.connected = false));
        check("this takes part", |s| s.peers[0].offers = vec![crate::api::FolderOffer::default()]);
        check("type on desktop", |s| {
            let peer = &mut s.folders[0].peers[0];
            (peer.lacks_folder, peer.proved_identical_ms) = (true, None);
        });
        check("confirm-changes default", |s| s.folders[0].held = Some(Default::default()));
    }

    #[test]
    fn a_path_is_explained() {
        let found = PathStatus {
            path: "a/b".into(),
            folder: "P2PSync".into(),
            state: "in_sync".into(),
            explanation: vec!["Every device has it.".into()],
            here: Some("a file of 3 bytes".into()),
            peers: vec![crate::api::PathPeerStatus {
                name: "desktop".into(),
                text: "has it".into(),
                ..Default::default()
            }],
        };
        let expected = "a/b in P2PSync: in sync\nHere: a file of 3 bytes\nEvery device has it.\n  desktop  has it  not connected\n";
        assert_eq!(path_text(&found), expected);
    }

    #[test]
    fn the_json_shape_is_stable() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["folders"][0]["state"], "in_sync");
        assert_eq!(json["folders"][0]["held"], serde_json::Value::Null);
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["device_id", "folders", "listening", "name", "peers", "problems_total", "running", "starting"]
        );
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), sample());
    }
}
