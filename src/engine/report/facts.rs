//! What a folder's state follows from, read from its index and from what a running agent knows.

use super::waits::{Progress, Survey, Wait};
use super::{View, ahead, choices};
use crate::api::FolderPeerStatus;
use crate::core::id::DeviceId;
use crate::core::message::Reason;
use crate::core::problem::ProblemKind;
use crate::index::{IndexError, Mark, Tally};
use crate::sync::{NOTE_HALTED, NOTE_HELD};

/// Paths with trouble among which it is looked for what is wanted, where there is too much to look at all of it.
const TROUBLE_LOOKED_AT_MAX: usize = 500;

/// Whether the folder runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Running {
    NoAgent,
    Starting,
    Yes,
}

/// How far a peer is with this folder.
#[derive(Clone, Debug)]
pub struct PeerFacts {
    pub device: DeviceId,
    pub name: String,
    /// True once it has ever told what it has.
    pub is_known: bool,
    pub is_connected: bool,
    /// True where it is connected and does not share the folder.
    pub is_unshared: bool,
    pub last_seen_ms: Option<i64>,
    /// Entries of ours that it has not applied and will.
    pub pending: Tally,
    /// Entries of ours that it can't apply until something is done there.
    pub stuck: Tally,
    /// Entries of ours that it will never hold.
    pub declined: u64,
    /// It has something that is not here yet.
    pub is_ahead: bool,
    /// It has not told all that it has.
    pub is_unheard: bool,
    pub proved_ms: Option<i64>,
    /// Bytes per second from it and to it; none without an agent.
    pub rates: Option<(u64, u64)>,
}

/// All that a folder's state follows from.
pub struct Facts {
    /// The folder's name in commands.
    pub word: String,
    pub halted: Option<String>,
    pub held: Option<String>,
    /// Why the folder is left alone.
    pub paused: Option<String>,
    pub running: Running,
    pub is_scanned: bool,
    pub files: u64,
    /// Files to come and their bytes.
    pub need: Tally,
    /// Paths with something to do at once.
    pub workable: u64,
    /// Paths that wait for a device, and the names of those that have them.
    pub absent: u64,
    pub absent_names: Vec<String>,
    /// Paths whose change here is being looked at.
    pub looking: u64,
    pub problems: u64,
    pub declined: u64,
    /// Paths changed here that stay here, and paths changed elsewhere that stay there.
    pub own_changes: u64,
    pub kept_out: u64,
    /// The devices that it is shared with.
    pub peers: Vec<PeerFacts>,
    /// There are other devices, whether it is shared with them or not.
    pub is_paired: bool,
    pub now_ms: i64,
}

/// All of it.
pub fn facts(view: &View, survey: &Survey, peers: Vec<PeerFacts>) -> Result<Facts, IndexError> {
    let (reader, live) = (&view.reader, view.live());
    let minded = || survey.waits.iter().filter(|w| w.coming.is_minded());
    let absent: Vec<&Wait> = minded().filter(|w| w.progress == Progress::Absent).collect();
    let mut away: Vec<DeviceId> = absent.iter().flat_map(|w| &w.rivals).copied().collect();
    away.sort();
    away.dedup();
    let (mut problems, mut declined) = (0, 0);
    for (kind, count) in reader.tally_problems()? {
        match kind {
            ProblemKind::NoSource => {}
            kind if kind.is_declined() => declined += count,
            _ => problems += count,
        }
    }
    let workable = minded().filter(|w| w.progress == Progress::Workable).count() as u64;
    // Where only a part was looked at, what is under way may be in the rest.
    let under_way = live.filter(|_| !survey.is_all).map_or(0, |live| live.in_flight.len() as u64);
    Ok(Facts {
        word: view.asker.config.word_of(view.folder).to_owned(),
        halted: live.and_then(|l| l.halted.clone()).or(reader.note(NOTE_HALTED)?),
        held: reader.note(NOTE_HELD)?,
        paused: choices::paused(view.asker, view.folder),
        running: match (view.asker.live, live) {
            (None, _) => Running::NoAgent,
            (Some(_), None) => Running::Starting,
            (Some(_), Some(_)) => Running::Yes,
        },
        is_scanned: reader.state()?.scanned,
        files: reader.totals()?.files,
        need: need(view, survey)?,
        workable: workable.max(under_way),
        absent: absent.len() as u64,
        absent_names: view.asker.names(&away),
        looking: reader.tally_marked(Mark::Missing)? + live.map_or(0, |l| l.hints),
        problems,
        declined,
        own_changes: reader.tally_marked(Mark::Own)?,
        kept_out: choices::kept_out(view, survey),
        peers,
        is_paired: !view.asker.config.peers.is_empty(),
        now_ms: view.asker.now_ms,
    })
}

/// Files that are to come, and their bytes. What has trouble is told as such, and not waited for.
fn need(view: &View, survey: &Survey) -> Result<Tally, IndexError> {
    if !survey.is_all {
        let trouble = view.reader.tally_wanted_in_trouble(TROUBLE_LOOKED_AT_MAX)?;
        return Ok(view.reader.tally_wanted()?.minus(trouble));
    }
    let coming = survey.waits.iter().filter(|wait| wait.progress != Progress::Problem);
    Ok(coming.filter_map(Wait::file_bytes).fold(Tally::default(), |sum, bytes| sum.plus(Tally { items: 1, bytes })))
}

/// How far each peer is that the folder is shared with.
pub fn peers(view: &View, survey: &Survey) -> Result<Vec<PeerFacts>, IndexError> {
    let mut all = Vec::new();
    for peer in view.peers() {
        let row = view.reader.peer(peer.id)?;
        let applied = row.as_ref().map_or(0, |row| row.applied);
        let (mut pending, mut stuck, mut declined) = (view.reader.tally_since(applied)?, Tally::default(), 0);
        for (reason, tally) in view.reader.tally_exceptions(peer.id, applied)? {
            match reason {
                Reason::Ignored | Reason::Declined => declined += tally.items,
                Reason::Held | Reason::Problem => stuck = stuck.plus(tally),
                Reason::Pending | Reason::Conflict => pending = pending.plus(tally),
            }
        }
        let has_rivals = if survey.is_all {
            survey.waits.iter().any(|w| w.coming.is_minded() && w.rivals.contains(&peer.id))
        } else {
            !view.reader.rivals_of(peer.id, 1)?.is_empty()
        };
        let cursor = row.as_ref().and_then(|row| row.cursor.as_ref());
        let is_unheard = row.as_ref().is_some_and(|row| cursor.is_none_or(|c| c.seq < row.their_last_seq));
        all.push(PeerFacts {
            device: peer.id,
            name: peer.name.clone(),
            is_known: cursor.is_some(),
            is_connected: view.is_connected(&peer.id),
            is_unshared: view.is_unshared(&peer.id),
            last_seen_ms: row.as_ref().and_then(|row| row.last_seen_ms),
            pending,
            stuck,
            declined,
            is_ahead: has_rivals,
            is_unheard,
            proved_ms: row.as_ref().and_then(|row| row.proved_ms),
            rates: view.live().map(|live| live.rates.peers.get(&peer.id).copied().unwrap_or_default()),
        });
    }
    Ok(all)
}

impl PeerFacts {
    pub fn has_all(&self) -> bool {
        self.is_known && self.behind().items == 0
    }

    /// All that it lacks and could have.
    pub fn behind(&self) -> Tally {
        self.pending.plus(self.stuck)
    }

    /// `here`: all that there is in the folder.
    pub fn status(&self, here: Tally) -> FolderPeerStatus {
        let behind = self.behind();
        FolderPeerStatus {
            device_id: self.device.to_string(),
            name: self.name.clone(),
            connected: self.is_connected || self.is_unshared,
            lacks_folder: self.is_unshared,
            behind_items: behind.items,
            in_sync: self.has_all() && !self.is_ahead && !self.is_unheard,
            proved_identical_ms: self.proved_ms,
            behind_bytes: behind.bytes,
            blocked_items: self.stuck.items,
            declined_items: self.declined,
            complete_percent: self.is_known.then(|| ahead::percent(here.minus(self.pending), self.pending)),
            rate_in: self.rates.map(|(from, _)| from),
            rate_out: self.rates.map(|(_, to)| to),
        }
    }
}
