//! What `p2psync` alone says: at most five lines that need no explanation.

use super::words::{self, next_step};
use crate::api::{FolderState, FolderStatus, Status};
use crate::cli::output::{self, clean, count};
use crate::cli::style::Style;
use crate::home::Home;

/// Folders that get a line of their own.
const FOLDERS_TOLD_MAX: usize = 2;
/// Peers that are named.
const PEERS_NAMED_MAX: usize = 3;

/// How things are, and what to do next.
pub fn text(status: &Status, home: &Home, now_ms: i64, style: Style) -> String {
    let name = clean(&status.name);
    let mut text = match status.running {
        true => format!("p2psync is running on {name}\n"),
        false => format!("p2psync is not running on {name}\n"),
    };
    if status.folders.len() <= FOLDERS_TOLD_MAX {
        for folder in &status.folders {
            let place = words::place(folder, home.user_dir());
            let first = style.paint(words::tone(folder.state), &format!("{} ", clean(&folder.label)));
            text.push_str(&style.hanging(&first, &format!("({place}): {}", sentence(folder))));
        }
    } else {
        text.push_str(&style.hanging("", &of_many(&status.folders)));
    }
    if !status.peers.is_empty() && status.running {
        text.push_str(&style.hanging("Devices: ", &peers(status, now_ms)));
    }
    text.push_str(&style.hanging("Next: ", &next_step(status, false)));
    text
}

/// State, how fast it goes on, what is here, and what needs a look.
fn sentence(folder: &FolderStatus) -> String {
    let mut parts = vec![words::state_text(folder)];
    let pace = words::pace(folder).join(", ");
    parts.extend((!pace.is_empty() && folder.state == FolderState::Syncing).then_some(pace));
    parts.push(words::held_here(folder));
    parts.extend(words::only_here(folder));
    parts.extend(trouble(std::slice::from_ref(folder)));
    parts.join("; ")
}

/// How it stands with all folders, and with the one that needs a look most.
fn of_many(folders: &[FolderStatus]) -> String {
    let in_sync = folders.iter().filter(|f| f.state == FolderState::InSync).count() as u64;
    let files = folders.iter().fold(0u64, |sum, f| sum.saturating_add(f.files));
    let bytes = folders.iter().fold(0u64, |sum, f| sum.saturating_add(f.bytes));
    let all = folders.len() as u64;
    let mut parts = vec![match in_sync {
        n if n == all => format!("all {all} folders are in sync"),
        n => format!("{n} of {all} folders are in sync"),
    }];
    let worst = folders.iter().filter(|f| f.state != FolderState::InSync).max_by_key(|f| urgency(f.state));
    parts.extend(worst.map(|f| {
        let state = [words::state_text(f)].into_iter().chain(words::pace(f)).collect::<Vec<_>>().join(", ");
        format!("{}: {state}", clean(&f.label))
    }));
    parts.push(format!("{}, {}", count(files, "file", "files"), output::bytes(bytes)));
    parts.extend(trouble(folders));
    parts.join("; ")
}

fn urgency(state: FolderState) -> u8 {
    match state {
        FolderState::InSync => 0,
        FolderState::Paused | FolderState::NotRunning => 1,
        FolderState::Starting | FolderState::WaitingForPeers => 2,
        FolderState::Scanning | FolderState::Syncing => 3,
        FolderState::Problems => 4,
        FolderState::Held => 5,
        FolderState::Halted => 6,
    }
}

fn trouble(folders: &[FolderStatus]) -> Vec<String> {
    let sum = |of: fn(&FolderStatus) -> u64| folders.iter().fold(0u64, |sum, f| sum.saturating_add(of(f)));
    let (problems, conflicts) = (sum(words::problems_of), sum(|f| f.conflicts));
    let told = [
        (problems > 0).then(|| count(problems, "problem", "problems")),
        (conflicts > 0).then(|| count(conflicts, "conflict copy", "conflict copies")),
    ];
    told.into_iter().flatten().collect()
}

fn peers(status: &Status, now_ms: i64) -> String {
    let mut peers: Vec<_> = status.peers.iter().collect();
    // Those that need something done, then those that are away are what one wants to know; the latest first.
    peers.sort_by_key(|peer| (!peer.unpaired, peer.connected, std::cmp::Reverse(peer.last_seen_ms)));
    let named = peers.iter().take(PEERS_NAMED_MAX);
    let mut told: Vec<String> =
        named.map(|peer| format!("{} {}", clean(&peer.name), output::peer_state(peer, now_ms))).collect();
    if let Some(more) = peers.len().checked_sub(PEERS_NAMED_MAX).filter(|more| *more > 0) {
        let connected = peers.iter().skip(PEERS_NAMED_MAX).filter(|peer| peer.connected).count();
        told.push(format!("{more} more ({connected} connected)"));
    }
    told.join("; ")
}
