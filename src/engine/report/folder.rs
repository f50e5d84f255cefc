//! A folder: its state in one word and one sentence, and how far its peers are.

use std::collections::BTreeMap;

use super::facts::{Facts, PeerFacts, Running, facts, peers};
use super::{Asker, View, ahead, choices, receipt, waits, words};
use crate::api::types::PROBLEMS_SHOWN_MAX;
use crate::api::{FolderState, FolderStatus, HeldDeletions, ProblemItem, TransferItem};
use crate::config::Folder;
use crate::core::conflict;
use crate::core::id::DeviceId;
use crate::core::problem::ProblemKind;
use crate::engine::transfer::Moving;
use crate::index::{IndexError, Mark, Tally};

/// Key of the index note that says when the last full scan ended, ms since 1970.
const NOTE_LAST_SCAN: &str = "last_scan_ms";
/// Deletions that peers ask for that are counted exactly; beyond that what is not here any more may be among them.
const DELETIONS_COUNTED_MAX: u64 = 5000;
/// Conflict copies that are counted; whoever has more will not mind the rest.
pub const CONFLICTS_MAX: usize = 10_000;

/// The folder's status; what its peers were last seen goes into `seen`.
pub fn status(asker: Asker, folder: &Folder, seen: &mut BTreeMap<DeviceId, i64>) -> FolderStatus {
    let status = asker.open(folder).and_then(|view| read(&view, seen));
    status.unwrap_or_else(|error| {
        let live = asker.live.and_then(|live| live.folders.get(&folder.id));
        let (halted, paused) = (live.and_then(|live| live.halted.clone()), choices::paused(asker, folder));
        let (state, state_text) = match halted {
            Some(text) => (FolderState::Halted, text),
            None if paused.is_some() => (FolderState::Paused, paused.unwrap_or_default()),
            None if error.is_missing() && live.is_some() => (FolderState::Starting, words::INDEX_GONE.to_owned()),
            None if error.is_missing() && asker.live.is_some() => (FolderState::Starting, "not scanned yet".to_owned()),
            None if error.is_missing() => {
                (FolderState::NotRunning, "not scanned yet; 'p2psync run' starts the agent".to_owned())
            }
            None => (FolderState::Halted, unreadable(&error)),
        };
        FolderStatus { state, state_text, ..bare(folder) }
    })
}

/// Trouble with an index, with what to do.
pub fn unreadable(error: &IndexError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let advice = if error.is_corrupt() { "; the agent sets it aside and builds a new one when it starts" } else { "" };
    format!("{error}{cause}{advice}")
}

fn bare(folder: &Folder) -> FolderStatus {
    FolderStatus {
        id: folder.id.to_string(),
        label: folder.label.clone(),
        path: folder.path.to_string_lossy().into_owned(),
        direction: folder.direction.name().to_owned(),
        only: folder.only.as_ref().map(|only| only.patterns().to_vec()),
        paused_until_ms: folder.paused_until_ms,
        ..FolderStatus::default()
    }
}

fn read(view: &View, seen: &mut BTreeMap<DeviceId, i64>) -> Result<FolderStatus, IndexError> {
    let reader = &view.reader;
    let survey = waits::survey(view, None)?;
    let peers = peers(view, &survey)?;
    for peer in &peers {
        if let Some(ms) = peer.last_seen_ms {
            let latest = seen.entry(peer.device).or_insert(ms);
            *latest = (*latest).max(ms);
        }
    }
    let totals = reader.totals()?;
    let facts = facts(view, &survey, peers)?;
    let (state, state_text) = state_of(&facts);
    let problems = reader.problems_below(None, ProblemKind::NoSource, PROBLEMS_SHOWN_MAX)?;
    let copies = reader.conflict_paths(CONFLICTS_MAX)?;
    let held = match &facts.held {
        Some(text) => Some(HeldDeletions { deletions: held_deletions(view)?, text: text.clone() }),
        None => None,
    };
    let here = Tally { items: totals.files + totals.directories + totals.symlinks, bytes: totals.bytes };
    let sharing: Vec<DeviceId> = view.peers().map(|peer| peer.id).collect();
    let (only_here_files, only_here_is_more) = receipt::files_only_here(reader, &sharing)?;
    let live = view.live();
    let staged_bytes = live.map_or(0, |live| live.transfers_done);
    let rate = |of: fn(&(u64, u64)) -> u64| live.map(|live| live.rates.peers.values().map(of).sum());
    Ok(FolderStatus {
        state,
        state_text,
        files: totals.files,
        directories: totals.directories,
        bytes: totals.bytes,
        need_files: facts.need.items,
        need_bytes: facts.need.bytes,
        problems: problems
            .into_iter()
            .map(|row| ProblemItem {
                path: row.path.to_string(),
                kind: row.problem.kind.name().to_owned(),
                text: row.problem.text,
                since_ms: row.since_ms,
            })
            .collect(),
        problems_total: facts.problems + facts.declined,
        conflicts: copies.iter().filter(|path| conflict::original_of(path).is_some()).count() as u64,
        held,
        own_changes: facts.own_changes,
        kept_out: facts.kept_out,
        only_here_files,
        only_here_is_more,
        watch: view.live().map_or_else(String::new, |l| l.watch.clone().unwrap_or_else(|| "ok".to_owned())),
        last_scan_ms: reader.note(NOTE_LAST_SCAN)?.and_then(|text| text.parse().ok()),
        peers: facts.peers.iter().map(|peer| peer.status(here)).collect(),
        complete_percent: ahead::complete_percent(&facts, here, staged_bytes),
        rate_in: rate(|(from, _)| *from),
        rate_out: rate(|(_, to)| *to),
        eta_seconds: live.and_then(|live| ahead::eta_seconds(&facts, staged_bytes, &live.rates)),
        transfers: live.map_or_else(Vec::new, |l| l.transfers.iter().map(|t| transfer(view, t)).collect()),
        transfers_total: live.map_or(0, |live| live.transfers_total),
        declined_items: facts.declined,
        ..bare(view.folder)
    })
}

fn transfer(view: &View, moving: &Moving) -> TransferItem {
    TransferItem {
        path: moving.path.to_string(),
        bytes: moving.bytes,
        done_bytes: moving.done,
        from: view.asker.names(&moving.from),
    }
}

/// Deletions that wait for the user's word, here and at peers.
fn held_deletions(view: &View) -> Result<u64, IndexError> {
    let asked_for = view.reader.tally_rival_deletions()?;
    let theirs = if asked_for > DELETIONS_COUNTED_MAX { asked_for } else { view.reader.count_rival_deletions()? };
    Ok(theirs + view.reader.tally_marked(Mark::Held)?)
}

/// The folder's state and the sentence about it. What stops the most comes first.
fn state_of(facts: &Facts) -> (FolderState, String) {
    if let Some(text) = &facts.halted {
        return (FolderState::Halted, text.clone());
    }
    if let Some(text) = &facts.held {
        return (FolderState::Held, text.clone());
    }
    if let Some(text) = &facts.paused {
        return (FolderState::Paused, text.clone());
    }
    match facts.running {
        Running::Starting => return (FolderState::Starting, "starting".to_owned()),
        Running::NoAgent if !facts.is_scanned => {
            let text = "the first scan is not finished; 'p2psync run' starts the agent";
            return (FolderState::NotRunning, text.to_owned());
        }
        Running::Yes if !facts.is_scanned => {
            let files = words::count(facts.files, "file", "files");
            return (FolderState::Scanning, format!("the first scan is under way, {files} so far"));
        }
        Running::NoAgent => {
            let text = format!("the agent is not running; as of its last run: {}", running_state(facts).1);
            return (FolderState::NotRunning, text);
        }
        Running::Yes => {}
    }
    let (state, text) = running_state(facts);
    (state, choices::with_direction(&facts.word, (facts.own_changes, facts.kept_out), text))
}

/// The state of a folder that has been scanned and has nothing in its way.
fn running_state(facts: &Facts) -> (FolderState, String) {
    let is_running = facts.running == Running::Yes;
    let sending: Vec<&PeerFacts> = facts.peers.iter().filter(|p| p.is_connected && p.pending.items > 0).collect();
    let telling = facts.peers.iter().any(|p| p.is_connected && (!p.is_known || p.is_unheard));
    if is_running && (facts.workable > 0 || !sending.is_empty() || facts.looking > 0) {
        return (FolderState::Syncing, syncing_text(facts, &sending));
    }
    if facts.problems > 0 {
        let items = words::count(facts.problems, "item has a problem", "items have problems");
        return (FolderState::Problems, format!("{items}; but for that {}", settled_text(facts)));
    }
    if facts.absent > 0 || (!is_running && facts.workable > 0) {
        return (FolderState::WaitingForPeers, absent_text(facts));
    }
    if is_running && telling {
        return (FolderState::Syncing, "comparing with the other devices".to_owned());
    }
    if let Some(stuck) = facts.peers.iter().find(|p| p.is_connected && p.stuck.items > 0) {
        let items = words::count(stuck.stuck.items, "item", "items");
        let text = format!("in sync here; {} cannot take {items}, 'p2psync status' there says why", stuck.name);
        return (FolderState::Problems, text);
    }
    let lacking = facts.peers.iter().any(|p| !p.has_all());
    if lacking && !facts.peers.iter().any(|p| p.is_connected) {
        return (FolderState::WaitingForPeers, settled_text(facts));
    }
    (FolderState::InSync, settled_text(facts))
}

fn syncing_text(facts: &Facts, sending: &[&PeerFacts]) -> String {
    let mut parts = Vec::new();
    match (facts.need.items, facts.need.bytes) {
        (0, _) if facts.workable > 0 => parts.push(format!("{} to do", changes(facts.workable))),
        (0, _) => {}
        (files, bytes) => {
            parts.push(format!("{} ({}) to come", words::count(files, "file", "files"), words::bytes(bytes)))
        }
    }
    parts.extend(
        sending.iter().map(|p| format!("{} still lacks {}", p.name, words::count(p.pending.items, "item", "items"))),
    );
    if parts.is_empty() {
        parts.push("looking at what has just changed".to_owned());
    }
    parts.join("; ")
}

fn absent_text(facts: &Facts) -> String {
    let what = match (facts.need.items, facts.need.bytes) {
        (0, _) => changes(facts.absent.max(facts.workable)),
        (files, bytes) => format!("{} ({})", words::count(files, "file", "files"), words::bytes(bytes)),
    };
    match facts.absent_names.len() {
        0 => format!("{what} to come"),
        1 => format!("{what} to come from {}, which is not connected", words::list(&facts.absent_names)),
        _ => format!("{what} to come from {}, which are not connected", words::list(&facts.absent_names)),
    }
}

fn changes(count: u64) -> String {
    words::count(count, "change", "changes")
}

/// With whom the folder is in sync, and who lags behind for being away.
fn settled_text(facts: &Facts) -> String {
    if facts.peers.is_empty() {
        return match facts.is_paired {
            true => format!("shared with no device: 'p2psync folder share {} --peer NAME' shares it", facts.word),
            false => "no other device yet: 'p2psync pair' adds one".to_owned(),
        };
    }
    let (up_to_date, behind): (Vec<&PeerFacts>, Vec<&PeerFacts>) = facts.peers.iter().partition(|p| p.has_all());
    let mut parts = Vec::new();
    if !up_to_date.is_empty() {
        let names: Vec<String> = up_to_date.iter().map(|p| p.name.clone()).collect();
        let is_any_connected = up_to_date.iter().any(|p| p.is_connected);
        let is_dated = is_any_connected || facts.running == Running::NoAgent;
        let when = match up_to_date.iter().all(|p| p.is_unshared) {
            _ if is_dated => "",
            true => ", as of when it last shared this folder",
            false => ", as of when it was last connected",
        };
        let when = if names.len() > 1 { when.replace("it was", "they were") } else { when.to_owned() };
        let when = if names.len() > 1 { when.replace("it last", "they last") } else { when };
        parts.push(format!("in sync with {}{when}", words::list(&names)));
    }
    parts.extend(behind.iter().filter(|p| p.is_unshared).map(|p| choices::unshared_text(p, &facts.word)));
    for peer in behind.iter().filter(|p| !p.is_connected && !p.is_unshared) {
        parts.push(match (peer.is_known, peer.last_seen_ms) {
            (true, Some(ms)) => {
                let items = words::count(peer.behind().items, "item", "items");
                format!("{} lacks {items} and was last connected {}", peer.name, words::ago(ms, facts.now_ms))
            }
            (true, None) => format!("{} is not connected", peer.name),
            (false, _) => format!("{} has not been connected yet", peer.name),
        });
    }
    for peer in behind.iter().filter(|p| p.is_connected) {
        let items = words::count(peer.behind().items, "item", "items");
        parts.push(format!("{} still lacks {items}", peer.name));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::entry::Kind;
    use crate::core::message::{Exception, Reason};
    use crate::core::problem::Problem;
    use crate::sync::{NOTE_HALTED, NOTE_HELD};

    fn of(world: &World) -> FolderStatus {
        status(world.asker(), &world.config.folders[0], &mut BTreeMap::new())
    }

    fn state(world: &World) -> (FolderState, String) {
        let status = of(world);
        (status.state, status.state_text)
    }

    fn check(world: &World, state_is: FolderState, text_has: &str) {
        let (state, text) = state(world);
        assert!(state == state_is && text.contains(text_has), "{state:?}: {text}\nwanted {state_is:?}: {text_has}");
    }

    #[test]
    fn a_folder_that_is_the_same_everywhere_is_in_sync_with_all() {
        let mut world = World::running(&[DESK, PHONE]);
        world.add("a", b"12345");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        check(&world, FolderState::InSync, "in sync with desk and phone");
        let status = of(&world);
        assert_eq!((status.files, status.bytes, status.need_files), (1, 5, 0));
        assert_eq!(status.watch, "ok");
        assert!(status.peers.iter().all(|p| p.in_sync && p.connected && p.behind_items == 0));
        assert_eq!(status.peers[0].proved_identical_ms, Some(NOW_MS - MINUTE_MS));
    }

    #[test]
    fn devices_that_are_away_are_named_with_what_they_lack() {
        let mut world = World::running(&[DESK]);
        let first = world.add("a", b"1");
        world.add("b", b"2");
        world.in_sync(DESK);
        world.applied(PHONE, first);
        check(
            &world,
            FolderState::InSync,
            "in sync with desk; phone lacks 1 item and was last connected 3 minutes ago",
        );
        world.applied(DESK, first);
        check(&world, FolderState::Syncing, "desk still lacks 1 item");
        world.live_folder().connected.clear();
        check(&world, FolderState::WaitingForPeers, "desk lacks 1 item");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        check(&world, FolderState::InSync, "in sync with desk and phone, as of when they were last connected");
    }

    #[test]
    fn a_lone_device_is_told_to_pair() {
        let mut world = World::running(&[]);
        world.config.peers.clear();
        check(&world, FolderState::InSync, "no other device yet: 'p2psync pair' adds one");
    }

    #[test]
    fn a_folder_that_is_shared_with_nobody_is_told_how_to_be() {
        let mut world = World::running(&[DESK]);
        world.config.folders[0].peers = crate::config::Sharing::Only(Vec::new());
        check(&world, FolderState::InSync, "shared with no device: 'p2psync folder share Docs --peer NAME' shares it");
    }

    #[test]
    fn a_new_peer_is_not_in_sync_before_it_has_said_anything() {
        let world = World::running(&[DESK]);
        check(&world, FolderState::Syncing, "comparing");
        assert!(of(&world).peers.iter().all(|p| !p.in_sync));
    }

    #[test]
    fn what_is_to_come_is_counted_and_says_from_whom() {
        let mut world = World::running(&[DESK]);
        world.add("a", b"1");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        world.hear(PHONE, world.edited("b", content(b"1234"), false));
        check(&world, FolderState::WaitingForPeers, "1 file (4 bytes) to come from phone, which is not connected");
        world.hear(DESK, world.edited("a", content(b"22"), true));
        check(&world, FolderState::Syncing, "2 files (6 bytes) to come");
        let status = of(&world);
        assert_eq!((status.need_files, status.need_bytes), (2, 6));
        assert!(!status.peers.iter().any(|p| p.in_sync));
    }

    #[test]
    fn what_stops_the_most_is_told_first() {
        let mut world = World::running(&[DESK]);
        world.add("a", b"1");
        world.in_sync(DESK);
        world.hear(DESK, world.edited("a", content(b"22"), true));
        world.index.set_problem(&rel("a"), &Problem::new(ProblemKind::NoSpace, "no space left"), 5, None).unwrap();
        check(&world, FolderState::Problems, "1 item has a problem");
        let status = of(&world);
        assert_eq!((status.problems_total, status.problems[0].kind.as_str()), (1, "no_space"));
        world.hear(DESK, world.edited("b", content(b"22"), true));
        check(&world, FolderState::Syncing, "to come");
        world.config.folders[0].paused = true;
        check(&world, FolderState::Paused, "p2psync resume Docs");
        world.index.set_note(NOTE_HELD, Some("1200 files vanished")).unwrap();
        world.index.put(&file("gone", b"x"), None, Mark::Held, 1).unwrap();
        check(&world, FolderState::Held, "1200 files vanished");
        assert_eq!(of(&world).held.map(|held| held.deletions), Some(1));
        world.index.set_note(NOTE_HALTED, Some("the disk is gone")).unwrap();
        check(&world, FolderState::Halted, "the disk is gone");
        world.live_folder().halted = Some("the marker is gone".into());
        check(&world, FolderState::Halted, "the marker is gone");
    }

    #[test]
    fn waiting_for_a_source_and_names_that_do_not_fit_are_no_trouble_of_the_folder() {
        let mut world = World::running(&[DESK]);
        world.in_sync(DESK);
        world.in_sync(PHONE);
        world.index.set_problem(&rel("p"), &Problem::new(ProblemKind::SpecialFile, "a pipe"), 5, None).unwrap();
        check(&world, FolderState::InSync, "in sync with desk and phone");
        assert_eq!(of(&world).problems_total, 1);
        world.hear(PHONE, world.edited("b", content(b"1234"), false));
        world.index.set_problem(&rel("b"), &Problem::new(ProblemKind::NoSource, "nobody"), 5, None).unwrap();
        check(&world, FolderState::WaitingForPeers, "phone");
        assert_eq!(of(&world).problems_total, 1);
    }

    #[test]
    fn trouble_at_a_peer_is_told_here() {
        let mut world = World::running(&[DESK]);
        let seq = world.add("a", b"1");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        let exception = |reason| Exception { path: rel("a"), seq, reason };
        world.index.set_exceptions(DESK, &[exception(Reason::Problem)]).unwrap();
        check(&world, FolderState::Problems, "desk cannot take 1 item");
        world.index.set_exceptions(DESK, &[exception(Reason::Declined)]).unwrap();
        check(&world, FolderState::InSync, "in sync with desk and phone");
        world.index.set_exceptions(DESK, &[exception(Reason::Pending)]).unwrap();
        check(&world, FolderState::Syncing, "desk still lacks 1 item");
    }

    #[test]
    fn changes_that_have_not_been_looked_at_are_not_in_sync() {
        let mut world = World::running(&[DESK]);
        world.in_sync(DESK);
        world.live_folder().hints = 1;
        check(&world, FolderState::Syncing, "looking at what has just changed");
    }

    #[test]
    fn a_conflict_that_another_device_resolves_brings_no_bytes() {
        let mut world = World::running(&[DESK]);
        world.add("a", b"1");
        world.in_sync(DESK);
        let mut theirs = world.edited("a", Kind::File(crate::core::content::Content::of_chunk(b"22")), false);
        (theirs.mtime_ns, theirs.weight_ns) = (1, 1);
        world.hear(DESK, theirs);
        check(&world, FolderState::Syncing, "1 change to do");
        assert_eq!(of(&world).need_files, 0);
    }

    #[test]
    fn a_connected_peer_without_the_folder_is_told_how_to_get_it() {
        let mut world = World::running(&[]);
        world.add("a", b"12345");
        world.live_folder().unshared.insert(DESK);
        check(
            &world,
            FolderState::WaitingForPeers,
            "desk does not have this folder yet: type there 'p2psync folder accept",
        );
        assert!(of(&world).peers[0].lacks_folder);
        world.in_sync(DESK);
        check(&world, FolderState::WaitingForPeers, "in sync with desk, as of when it last shared this folder");
        world.add("b", b"1");
        check(&world, FolderState::WaitingForPeers, "desk does not share this folder now");
        world.live_folder().connected.insert(PHONE);
        world.in_sync(PHONE);
        check(&world, FolderState::InSync, "in sync with phone; desk does not share this folder now");
    }

    #[test]
    fn without_an_agent_the_last_known_state_is_told() {
        let mut world = World::running(&[]);
        world.live = None;
        world.in_sync(DESK);
        world.in_sync(PHONE);
        check(&world, FolderState::NotRunning, "as of its last run: in sync with desk and phone");
        world.index.set_note(NOTE_LAST_SCAN, Some("77")).unwrap();
        assert_eq!(of(&world).last_scan_ms, Some(77));
        let mut seen = BTreeMap::new();
        status(world.asker(), &world.config.folders[0], &mut seen);
        assert_eq!(seen.get(&DESK), Some(&(NOW_MS - 3 * MINUTE_MS)));
    }

    #[test]
    fn a_missing_or_broken_index_is_a_sentence() {
        let mut world = World::running(&[]);
        let file = world.home.index_file(&folder());
        let fresh = crate::index::Index::open(&world.home.index_file(&"x".parse().unwrap()), EPOCH).unwrap();
        world.index = fresh;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
        check(&world, FolderState::Starting, "its index was removed");
        world.live.as_mut().unwrap().folders.clear();
        check(&world, FolderState::Starting, "not scanned yet");
        world.live = None;
        check(&world, FolderState::NotRunning, "not scanned yet");
        std::fs::write(&file, vec![7; 5000]).unwrap();
        check(&world, FolderState::Halted, "damaged");
        let whole = super::super::status_of(world.asker());
        assert_eq!(whole.folders.len(), 1);
    }

    #[test]
    fn the_first_scan_is_told_apart_from_later_ones() {
        let mut world = World::running(&[DESK]);
        world.in_sync(DESK);
        world.in_sync(PHONE);
        world.live_folder().scanning = true;
        check(&world, FolderState::InSync, "in sync");
        world.index.start_epoch(crate::core::id::EpochId(5), crate::core::id::RunId(1)).unwrap();
        check(&world, FolderState::Scanning, "the first scan is under way");
    }

    #[test]
    fn peers_and_totals_of_the_whole_device_are_told() {
        let mut world = World::running(&[DESK]);
        world.in_sync(PHONE);
        let whole = super::super::status_of(world.asker());
        assert!(whole.running && whole.device_id == ME.to_string());
        assert_eq!(whole.listening.as_deref(), Some("[::]:7724"));
        assert_eq!((whole.peers[0].connected, whole.peers[0].bytes_in), (true, 5));
        assert_eq!(whole.peers[1].last_seen_ms, Some(NOW_MS - 3 * MINUTE_MS));
    }
}
