//! Words that all views of a status share.

use std::net::SocketAddr;
use std::path::Path;

use crate::api::{FolderOffer, FolderPeerStatus, FolderState, FolderStatus, PeerStatus, Status};
use crate::cli::offers;
use crate::cli::output::{self, clean, count};
use crate::cli::style::Tone;
use crate::config::is_plain_word;

/// Rate from which on it is worth telling, in bytes per second.
const TELLING_RATE_MIN: u64 = 1024;
const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// "about 3 minutes": as exact as such a guess is.
pub fn about(seconds: u64) -> String {
    let (value, one, many) = match seconds {
        0..MINUTE_S => (seconds.max(1), "second", "seconds"),
        MINUTE_S..HOUR_S => (seconds.div_ceil(MINUTE_S), "minute", "minutes"),
        HOUR_S..DAY_S => (seconds.div_ceil(HOUR_S), "hour", "hours"),
        _ => (seconds.div_ceil(DAY_S), "day", "days"),
    };
    format!("about {}", count(value, one, many))
}

/// "2.0 MB/s".
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", output::bytes(bytes_per_second))
}

/// The rate where it tells of files on their way, and not just of two devices that keep in touch.
pub fn telling(rate: Option<u64>) -> Option<u64> {
    rate.filter(|bytes_per_second| *bytes_per_second >= TELLING_RATE_MIN)
}

/// Percent, rate and time left, as far as they mean something now.
pub fn pace(folder: &FolderStatus) -> Vec<String> {
    let percent = folder.complete_percent.filter(|percent| *percent < 100).map(|percent| format!("{percent} % done"));
    let flow = folder.rate_in.filter(|bytes| *bytes > 0).map(rate);
    let left = folder.eta_seconds.map(|seconds| format!("{} left", about(seconds)));
    [percent, flow, left].into_iter().flatten().collect()
}

/// What the folder's state means to whoever looks at it.
pub fn tone(state: FolderState) -> Tone {
    match state {
        FolderState::InSync => Tone::Good,
        FolderState::Halted | FolderState::Held | FolderState::Problems => Tone::Bad,
        FolderState::Syncing | FolderState::Scanning | FolderState::Starting => Tone::Busy,
        FolderState::Paused | FolderState::WaitingForPeers | FolderState::NotRunning => Tone::Faint,
    }
}

/// The folder's state as a sentence.
pub fn state_text(folder: &FolderStatus) -> String {
    if !folder.state_text.is_empty() {
        return clean(&output::without_numbers(&folder.state_text)).trim_end_matches('.').to_owned();
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

/// What would be lost with this device; nothing where no other is to have it.
pub fn only_here(folder: &FolderStatus) -> Option<String> {
    let is_told = folder.only_here_files > 0 && !folder.peers.is_empty();
    let (one, many) = match folder.only_here_is_more {
        true => ("file or more exists only here", "files or more exist only here"),
        false => ("file exists only here", "files exist only here"),
    };
    is_told.then(|| count(folder.only_here_files, one, many))
}

/// What lies in the folder.
pub fn held_here(folder: &FolderStatus) -> String {
    format!("{}, {}", count(folder.files, "file", "files"), output::bytes(folder.bytes))
}

/// How far a peer is with a folder.
pub fn folder_peer(peer: &FolderPeerStatus, now_ms: i64) -> String {
    let mut parts = Vec::new();
    match peer.behind_items {
        _ if peer.lacks_folder => parts.push("connected, but does not share this folder".to_owned()),
        0 if peer.in_sync => parts.push("has everything".to_owned()),
        0 if peer.complete_percent.is_none() => parts.push("has not been compared yet".to_owned()),
        0 => parts.push("has everything, and more that is still to come".to_owned()),
        items => parts.push(format!("lacks {}{}", count(items, "item", "items"), in_bytes(peer.behind_bytes))),
    }
    if peer.blocked_items > 0 && !peer.lacks_folder {
        let waits = if peer.blocked_items == 1 { "waits" } else { "wait" };
        parts.push(format!("{} of them {waits} for something to be done there", output::number(peer.blocked_items)));
    }
    parts.extend((!peer.connected).then(|| "not connected".to_owned()));
    parts.extend(telling(peer.rate_out).map(|bytes| format!("sending {}", rate(bytes))));
    parts.extend(telling(peer.rate_in).map(|bytes| format!("receiving {}", rate(bytes))));
    parts.extend(peer.proved_identical_ms.map(|ms| format!("proved identical {}", output::ago(ms, now_ms))));
    if peer.declined_items > 0 {
        parts.push(format!("does not keep {}", count(peer.declined_items, "item", "items")));
    }
    parts.join("; ")
}

fn in_bytes(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" ({})", output::bytes(bytes)) }
}

/// Whether a peer is connected, how and since when, and if not, since when not.
pub fn connection(peer: &PeerStatus, now_ms: i64) -> String {
    let Some(address) = peer.address.as_ref().filter(|_| peer.connected) else {
        return output::peer_state(peer, now_ms);
    };
    let since = peer.connected_since_ms.map(|ms| format!(" since {}", since(ms, now_ms))).unwrap_or_default();
    format!("connected{since} at {}", clean(address))
}

/// What to do about a peer that has removed this device; `None` of any other.
pub fn unpaired(peer: &PeerStatus) -> Option<String> {
    let name = output::quoted(&clean(&peer.name));
    let text = match peer.last_seen_ms {
        Some(_) => "nothing is synced with it: pair again with 'p2psync pair' on both",
        None => "nothing is synced with it: 'p2psync pair' on both makes them known to each other",
    };
    peer.unpaired.then(|| format!("{text}, or forget it here with: p2psync peer remove {name}"))
}

/// Time of day for today, with the date for earlier.
fn since(then_ms: i64, now_ms: i64) -> String {
    let (then, now) = (output::local_time(then_ms), output::local_time(now_ms));
    match (then.split_once(' '), now.split_once(' ')) {
        (Some((day, time)), Some((today, _))) if day == today => time.to_owned(),
        _ => then,
    }
}

/// The one thing that helps most now. `is_full` where all that is wrong is told already.
pub fn next_step(status: &Status, is_full: bool) -> String {
    let held = status.folders.iter().find(|f| f.held.is_some());
    if let Some(folder) = held {
        let word = word_of(status, folder);
        return format!("'p2psync folder confirm-changes {word}' or 'p2psync folder reject-changes {word}'");
    }
    if !status.running {
        return "start it with 'p2psync run'".to_owned();
    }
    let offered = status.peers.iter().find_map(offered);
    if let (true, Some(next)) = (status.folders.is_empty(), &offered) {
        return next.clone();
    }
    if status.folders.is_empty() {
        return "share a directory with 'p2psync folder add PATH'".to_owned();
    }
    let wrong = match is_full {
        true => "put right what is listed above; 'p2psync status PATH' says more about one of the paths",
        false => "'p2psync status' says what is wrong and what to do",
    };
    if status.folders.iter().any(|f| f.state == FolderState::Halted) {
        return wrong.to_owned();
    }
    if status.peers.is_empty() {
        return "pair with another device: type 'p2psync pair' here, and the code it shows there".to_owned();
    }
    if let Some(peer) = status.peers.iter().find(|peer| peer.unpaired) {
        let (name, word) = (clean(&peer.name), output::quoted(&clean(&peer.name)));
        return match peer.last_seen_ms {
            Some(_) => {
                format!("{name} has removed this device: 'p2psync pair' on both, or 'p2psync peer remove {word}'")
            }
            None => format!("{name} does not know this device yet: type 'p2psync pair' on both"),
        };
    }
    let problems: u64 = status.folders.iter().map(problems_of).sum();
    if problems > 0 {
        return wrong.to_owned();
    }
    if status.folders.iter().any(|f| f.conflicts > 0) {
        return "'p2psync conflicts' shows the conflict copies".to_owned();
    }
    if let Some(next) = offered {
        return next;
    }
    // Whoever has proved to have the same once has the folder, and has only paused it, say.
    let is_without = |p: &&FolderPeerStatus| p.lacks_folder && p.proved_identical_ms.is_none();
    let missing = |f: &FolderStatus| {
        let offer = FolderOffer { id: f.id.clone(), label: f.label.clone() };
        f.peers.iter().find(is_without).map(|p| (clean(&p.name), offers::command(&offer)))
    };
    if let Some((name, command)) = status.folders.iter().find_map(missing) {
        return format!("type on {name}: {command}");
    }
    let is_stuck = |p: &&FolderPeerStatus| p.blocked_items > 0 && p.connected && !p.lacks_folder;
    if let Some(peer) = status.folders.iter().find_map(|f| f.peers.iter().find(is_stuck)) {
        return format!("type on {}, to see what it cannot take: p2psync status", clean(&peer.name));
    }
    if !status.peers.iter().any(|p| p.connected) {
        return "start p2psync on your other devices; this one finds them".to_owned();
    }
    if is_full { "nothing to do".to_owned() } else { "nothing to do; 'p2psync status' shows more".to_owned() }
}

/// How to take part in the first folder that a peer offers.
fn offered(peer: &PeerStatus) -> Option<String> {
    let offer = peer.offers.first()?;
    let (name, label, command) = (clean(&peer.name), clean(&offer.label), offers::command(offer));
    Some(format!("{name} shares '{label}', and this takes part in it: {command}"))
}

/// The folder's name in commands: its label where that is plain and its own, else its id.
fn word_of(status: &Status, folder: &FolderStatus) -> String {
    let names_another = |f: &FolderStatus| f.id != folder.id && (f.label == folder.label || f.id == folder.label);
    let is_own = is_plain_word(&folder.label) && !status.folders.iter().any(names_another);
    clean(if is_own { &folder.label } else { &folder.id })
}

/// Items with trouble that somebody can put right.
pub fn problems_of(folder: &FolderStatus) -> u64 {
    folder.problems_total.saturating_sub(folder.declined_items)
}

/// The folder's directory, as a person writes it.
pub fn place(folder: &FolderStatus, user_dir: &Path) -> String {
    output::short_path(Path::new(&folder.path), user_dir)
}

/// A device's name and short id.
pub fn device(name: &str, id: &str) -> String {
    format!("{} ({})", clean(name), clean(id.split('-').next().unwrap_or_default()))
}

/// That the agent runs, and where it can be reached.
pub fn running(status: &Status) -> String {
    let Some(address) = &status.listening else { return "running".to_owned() };
    match address.parse::<SocketAddr>() {
        // Every address that this device has.
        Ok(any) if any.ip().is_unspecified() => format!("running, reachable on port {}", any.port()),
        _ => format!("running, reachable at {}", clean(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_to_its_end_is_told_as_so_many_or_more() {
        let told = |only_here_files, only_here_is_more| {
            let peers = vec![FolderPeerStatus::default()];
            only_here(&FolderStatus { only_here_files, only_here_is_more, peers, ..FolderStatus::default() })
        };
        assert_eq!(told(0, false), None);
        assert_eq!(told(3, false).as_deref(), Some("3 files exist only here"));
        assert_eq!(told(99_000, true).as_deref(), Some("99,000 files or more exist only here"));
    }

    #[test]
    fn where_it_is_reached_is_a_port_unless_it_is_one_address_only() {
        let listening = |at: Option<&str>| running(&Status { listening: at.map(Into::into), ..Status::default() });
        assert_eq!(listening(Some("[::]:7724")), "running, reachable on port 7724");
        assert_eq!(listening(Some("0.0.0.0:80")), "running, reachable on port 80");
        assert_eq!(listening(Some("192.168.1.5:7724")), "running, reachable at 192.168.1.5:7724");
        assert_eq!(listening(None), "running");
    }

    #[test]
    fn times_to_come_are_rounded_up_in_the_unit_that_a_person_would_use() {
        let cases = [
            (0, "about 1 second"),
            (59, "about 59 seconds"),
            (60, "about 1 minute"),
            (61, "about 2 minutes"),
            (7200, "about 2 hours"),
            (90_000, "about 2 days"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(about(seconds), expected);
        }
    }

    #[test]
    fn nothing_is_told_of_the_pace_before_it_means_something() {
        let folder = FolderStatus { rate_in: Some(0), complete_percent: Some(100), ..FolderStatus::default() };
        assert_eq!(pace(&folder), Vec::<String>::new());
        let folder = FolderStatus { rate_in: Some(2048), complete_percent: Some(7), eta_seconds: Some(30), ..folder };
        assert_eq!(pace(&folder).join(", "), "7 % done, 2.0 KB/s, about 30 seconds left");
    }

    #[test]
    fn what_a_peer_declines_is_told_and_does_not_count_against_it() {
        let peer = FolderPeerStatus {
            connected: true,
            in_sync: true,
            declined_items: 2,
            complete_percent: Some(100),
            ..FolderPeerStatus::default()
        };
        assert_eq!(folder_peer(&peer, 0), "has everything; does not keep 2 items");
        let peer = FolderPeerStatus { behind_items: 3, behind_bytes: 2048, blocked_items: 1, ..peer };
        let expected = "lacks 3 items (2.0 KB); 1 of them waits for something to be done there; does not keep 2 items";
        assert_eq!(folder_peer(&peer, 0), expected);
    }
}
