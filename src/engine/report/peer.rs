//! One path at the peers: who has it, who does not yet, and why.

use super::path::{Known, State, Verdict};
use super::waits::Coming;
use super::{View, words};
use crate::api::PathPeerStatus;
use crate::config::Peer;
use crate::core::entry::{Entry, Kind};
use crate::core::message::Reason;
use crate::index::{IndexError, Mark, PeerRow};

const NS_PER_MS: i64 = 1_000_000;

/// How far a peer is with one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It has what is here.
    Same,
    /// It will never hold it, by its own rules or for its disk.
    NotMinded,
    /// It has another version.
    Other,
    /// On its way there.
    Pending,
    /// It waits for something at the peer.
    Stuck,
    /// The peer is connected and does not share the folder.
    Unshared,
}

/// A peer, and how far it is with a path.
pub struct Lag {
    pub stage: Stage,
    pub status: PathPeerStatus,
}

/// How far each peer is that the folder is shared with.
pub fn at(view: &View, known: &Known) -> Result<Vec<Lag>, IndexError> {
    view.peers().map(|peer| one(view, peer, known)).collect()
}

fn one(view: &View, peer: &Peer, known: &Known) -> Result<Lag, IndexError> {
    let row = view.reader.peer(peer.id)?;
    let connected = view.is_connected(&peer.id) || view.is_unshared(&peer.id);
    let (stage, text) = stage(view, peer, known, row.as_ref())?;
    let is_deletion = known.record.as_ref().is_some_and(|r| !r.entry.is_live());
    let lacks = if is_deletion { "has not deleted it yet" } else { "does not have it yet" };
    let text = match row.as_ref().and_then(|row| row.last_seen_ms) {
        _ if connected || stage != Stage::Pending || known.record.is_none() => text.to_owned(),
        None => "has not been connected yet".to_owned(),
        Some(ms) => format!("{lacks}; last seen {}", words::ago(ms, view.asker.now_ms)),
    };
    let has_it = match stage {
        Stage::Same => known.record.as_ref().is_some_and(|r| r.entry.is_live()),
        Stage::Other => known.wait.as_ref().is_some_and(|w| w.entry.is_live() && w.devices.contains(&peer.id)),
        _ => false,
    };
    let mut status = PathPeerStatus { connected, has_it, text, ..PathPeerStatus::default() };
    (status.device_id, status.name) = (peer.id.to_string(), peer.name.clone());
    let theirs = view.reader.rivals(&known.path)?.into_iter().find(|rival| rival.peer == peer.id);
    if let Some(entry) = theirs.map(|rival| rival.entry).filter(|_| stage == Stage::Other) {
        status.version = Some(version(view, &entry));
        status.bytes = entry.kind.content().map(|content| content.size);
        status.mtime_ms = status.bytes.map(|_| entry.mtime_ns / NS_PER_MS);
    }
    Ok(Lag { stage, status })
}

/// An entry in words.
fn version(view: &View, entry: &Entry) -> String {
    let by = view.asker.author(&entry.author).map(|name| format!(" by {name}")).unwrap_or_default();
    match &entry.kind {
        Kind::File(content) => {
            let changed = words::ago(entry.mtime_ns / NS_PER_MS, view.asker.now_ms);
            format!("a file of {}, changed {changed}{by}", words::bytes(content.size))
        }
        Kind::Directory => "a directory".to_owned(),
        Kind::Symlink(target) => format!("a symbolic link to {}", String::from_utf8_lossy(target).escape_debug()),
        Kind::Deleted => format!("deleted{by}"),
    }
}

fn stage(view: &View, peer: &Peer, known: &Known, row: Option<&PeerRow>) -> Result<(Stage, &'static str), IndexError> {
    if let Some(wait) = known.wait.as_ref().filter(|wait| wait.rivals.contains(&peer.id)) {
        let is_here = known.record.as_ref().is_some_and(|r| r.entry.is_live());
        let text = match wait.coming {
            _ if !wait.devices.contains(&peer.id) => "knows of another version, but does not have it itself",
            Coming::Newer if is_here => "has a newer version",
            Coming::Newer => "has it",
            Coming::Deletion => "has deleted it",
            Coming::ConflictHere | Coming::ConflictThere => "has another version",
            Coming::KeptOut if !wait.entry.is_live() => "has deleted it",
            Coming::KeptOut => "has another version",
            Coming::Merge | Coming::NotMinded => "has it, with another history",
        };
        return Ok((Stage::Other, text));
    }
    if view.is_unshared(&peer.id) {
        return Ok((Stage::Unshared, "does not share this folder"));
    }
    let Some(record) = &known.record else { return Ok((Stage::Pending, "does not have it")) };
    if let Some(exception) = view.reader.exception_at(peer.id, &known.path)? {
        return Ok(match exception.reason {
            Reason::Pending => (Stage::Pending, "is about to fetch it"),
            Reason::Conflict => (Stage::Pending, "has another version, of which it is making a conflict copy"),
            Reason::Ignored => (Stage::NotMinded, "ignores it by a rule of its own"),
            Reason::Declined => (
                Stage::NotMinded,
                "does not take it: its disk cannot hold it, or its folder only sends or keeps a change of its own",
            ),
            Reason::Held => (Stage::Stuck, "keeps it until its user confirms the deletion"),
            Reason::Problem => (Stage::Stuck, "has a problem with it; 'p2psync status' there says more"),
        });
    }
    // What stands here is this device's alone, and the record tells of what the others have.
    if matches!(record.mark, Mark::Own | Mark::Reverted) && record.disk.is_some() {
        return Ok((Stage::Other, if record.entry.is_live() { "has another version" } else { "does not have it" }));
    }
    Ok(match row {
        Some(row) if row.cursor.is_some() && row.applied >= record.seq && record.entry.is_live() => {
            (Stage::Same, "has it")
        }
        Some(row) if row.cursor.is_some() && row.applied >= record.seq => (Stage::Same, "has deleted it too"),
        _ if record.entry.is_live() => (Stage::Pending, "does not have it yet"),
        _ => (Stage::Pending, "has not deleted it yet"),
    })
}

/// What a path comes to that is as it should be here.
pub fn settled(view: &View, peers: &[Lag]) -> Verdict {
    if peers.is_empty() {
        let text = "It is up to date here; no other device shares the folder yet, 'p2psync pair' adds one.";
        return (State::InSync, vec![text.to_owned()]);
    }
    let mut sentences = Vec::new();
    let same: Vec<String> = of_stage(peers, Stage::Same).map(|lag| lag.status.name.clone()).collect();
    if same.is_empty() {
        sentences.push("It is up to date here, but no other device is known to have it.".to_owned());
    } else {
        sentences.push(format!("It is the same here and on {}.", words::list(&same)));
    }
    sentences.extend(lagging(peers));
    let is_pending = |lag: &Lag| matches!(lag.stage, Stage::Pending | Stage::Other);
    let state = if of_stage(peers, Stage::Stuck).next().is_some() {
        State::Waiting
    } else if peers.iter().any(|lag| lag.status.connected && is_pending(lag)) {
        State::Syncing
    } else if same.is_empty() && peers.iter().any(|lag| is_pending(lag) || lag.stage == Stage::Unshared) {
        State::Waiting
    } else {
        State::InSync
    };
    let is_away = state == State::InSync && !peers.iter().any(|lag| lag.status.connected);
    if is_away && view.asker.live.is_some() {
        sentences.push("None of your other devices is connected, so this is as of when they last were.".to_owned());
    }
    (state, sentences)
}

/// The peers that do not have what is here, each with its reason.
pub fn lagging(peers: &[Lag]) -> impl Iterator<Item = String> {
    let lagging = peers.iter().filter(|lag| lag.stage != Stage::Same);
    lagging.map(|lag| format!("{} {}.", lag.status.name, lag.status.text))
}

fn of_stage(peers: &[Lag], stage: Stage) -> impl Iterator<Item = &Lag> {
    peers.iter().filter(move |lag| lag.stage == stage)
}
