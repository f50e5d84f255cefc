//! The folder state machine: inputs in, decisions out.
//!
//! [`Folder::handle`] takes one [`Input`] and the moment it happened, records in the index what it says, and returns
//! the [`Output`]s that follow. What is wanted is never stored: it is derived from our entries and the rivals that
//! peers sent (see [`crate::core::decide`]), so after a crash the same wants come out again.
//!
//! | file | is about |
//! | --- | --- |
//! | `observe` | what a scan saw: local edits become events |
//! | `edited` | the entry that follows from what a scan saw |
//! | `leftover` | what a crash left behind: old bytes that are no edit |
//! | `vanish` | what a scan no longer saw: moves, and deletions once they have settled |
//! | `peers` | sessions: hello, index batches both ways, acknowledgements |
//! | `rollback` | noticing that our own index went back in time |
//! | `proof` | digests compared with peers, unequal buckets repaired |
//! | `want` | deciding about rivals, a bounded number at a time |
//! | `plan` | the work that follows from a decision |
//! | `above` | directories above and below what is wanted |
//! | `outcome` | what came of a piece of work: the commit of an applied entry |
//! | `power` | new files that a power cut has taken |
//! | `lost` | contents that no connected device has, or none at all |
//! | `emptied` | directories that are to go and still hold something |
//! | `hold` | mass deletions held back until the user confirms |
//! | `declined` | names that the disk could not hold beside others |
//! | `direction` | folders that only send or only receive |
//! | `rules` | paths that an ignore rule begins or ceases to cover |
//!
//! Architecture invariant: the index handle is the only I/O in here. No clock, no async, no disk, no sockets, no
//! randomness: they come in as inputs. Bulk bytes never pass through.

mod above;
mod declined;
mod direction;
mod displaced;
mod edited;
mod emptied;
mod hold;
mod io;
mod leftover;
mod lost;
mod observe;
mod outcome;
mod peers;
mod plan;
mod power;
mod proof;
mod rollback;
mod rules;
#[cfg(test)]
mod testing;
mod vanish;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::core::action::WorkId;
use crate::core::content::{Content, ContentId};
use crate::core::decide::Found;
use crate::core::id::{DeviceId, RunId};
use crate::core::ignore::Rules;
use crate::core::message::EXCEPTIONS_MAX;
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::core::version::COUNT_MAX;
use crate::index::{HistoryRow, Index, IndexError, Record};
use crate::sabotage::{self, Bug};

pub use displaced::copied_text;
pub use io::{FetchError, FetchOrder, Input, Now, Observation, Output, Seen, Settings, Staged};
pub use rollback::NOTE_HISTORY_UNSURE;

use peers::Peer;
use want::Work;

/// Pieces of work under way at once: enough to keep disk and wire busy, few enough to plan anew after a crash.
pub const WORKS_MAX: usize = 2048;
/// How long a vanished path may come back under its name, or turn up under another, before it counts as deleted.
pub const DELETE_SETTLE_MS: u64 = 250;
/// As long as new files keep turning up, what has vanished may be among them: deletions wait for them so long at most.
const DELETE_WAIT_MAX_MS: u64 = 5_000;
/// How long tombstones are kept at least.
const TOMBSTONE_MS: i64 = 90 * 24 * 3600 * 1000;
/// How often old tombstones and unused lists are looked for.
const HOUSEKEEPING_MS: u64 = 3600 * 1000;
/// Rows that one round of housekeeping removes at most.
const HOUSEKEEPING_ROWS: usize = 10_000;

/// Key of the index note that says why the folder has stopped itself.
pub const NOTE_HALTED: &str = "halted";
/// Key of the index note that says which deletions wait for the user.
pub const NOTE_HELD: &str = "held";
/// After an unclean boot, until a scan has seen everything: the first count that was given out since, a space and what
/// names the boot. What was seen since then did not go with the power.
pub const NOTE_BEFORE_BOOT: &str = "before_boot";
/// Key of the index note with the time at which a scan last saw everything, ms since 1970.
const NOTE_LAST_SCAN_MS: &str = "last_scan_ms";
/// Key of the index note with the time at which the user was asked about them, ms since 1970.
const NOTE_HELD_MS: &str = "held_ms";

/// One shared folder on this device.
pub struct Folder {
    index: Index,
    settings: Settings,
    rules: Rules,
    /// What the index holds has not been compared with the rules in this run.
    rules_unapplied: bool,
    /// Paths that were in work when the rules changed.
    ruled_late: BTreeSet<RelPath>,
    found: Found,
    peers: BTreeMap<DeviceId, Peer>,
    works: BTreeMap<WorkId, Work>,
    /// Of a move the work for the new path, and the one for the path that the file leaves.
    moved_away: BTreeMap<WorkId, WorkId>,
    busy: BTreeMap<RelPath, WorkId>,
    next_work: WorkId,
    /// Contents that are being brought into the stage, each with how many works want it.
    fetching: BTreeMap<Content, usize>,
    /// Contents of files that are just being moved to history, each with how many.
    leaving: BTreeMap<Content, usize>,
    /// Works whose bytes are staged and that wait for the directory above them, by that directory.
    parked: BTreeMap<RelPath, Vec<WorkId>>,
    pass: want::Pass,
    fresh: want::Fresh,
    /// Paths to look at again because something at them was not as expected.
    rescans: BTreeSet<RelPath>,
    /// Those of them that were not what an action expected: nothing more is done there before somebody has looked.
    awaited: BTreeSet<RelPath>,
    /// Names that have become free, folded; see `declined`.
    freed: BTreeSet<String>,
    halted: bool,
    /// Entries with lower counts may have been spoilt by a power cut.
    suspicious_below: u64,
    /// The last run ended uncleanly, and no scan has finished since.
    after_crash: bool,
    /// When a peer was last believed that this index was rolled back.
    rolled_back_ms: Option<u64>,
    /// When the newest missing path was seen missing; deletions wait from then on.
    missing_since_ms: Option<u64>,
    /// When the first of those was.
    missing_first_ms: u64,
    /// Directories whose deletion waits for what is in them, each with how often it has.
    unseen_waits: BTreeMap<RelPath, u32>,
    /// Files that have vanished and may turn up under another name, by inode.
    vanished: BTreeMap<u64, RelPath>,
    /// Files that are back under names where they count for old, by inode and content; see `leftover`.
    returned: BTreeSet<(u64, ContentId)>,
    /// What was noted in that time may not have been on the disk when the power failed, ms since 1970; see `power`.
    unwritten_ms: Option<RangeInclusive<i64>>,
    /// New directories that are missing after a power cut.
    unwritten_directories: BTreeSet<RelPath>,
    /// Files and links that such a scan has found where they were not before, by inode and content.
    turned_up: BTreeSet<(u64, ContentId)>,
    /// What was to be put at paths where that failed, perhaps after it was there; see `leftover`.
    half_done: BTreeMap<RelPath, leftover::HalfDone>,
    /// How many scans have begun.
    scans: u64,
    /// Until then deletions are not held: the user has confirmed them.
    confirmed_until_ms: u64,
    /// What nobody has and was let go of in this run, by path; see `lost`.
    let_go: BTreeSet<(RelPath, ContentId)>,
    /// Paths whose last observation seemed older than what was known.
    doubted: BTreeSet<RelPath>,
    changed_mono_ms: u64,
    housekeeping_ms: u64,
    /// Peers have said something new since the index was last made durable.
    has_heard: bool,
    /// How often it was, for the simulator.
    syncs: u64,
    outputs: Vec<Output>,
}

impl Folder {
    /// Begins a new run of the index's epoch. `run` is fresh and random.
    pub fn new(mut index: Index, settings: Settings, rules: Rules, run: RunId) -> Result<Self, IndexError> {
        let after_crash = !index.state()?.clean && !sabotage::is(Bug::AppliedBeforeScan);
        index.start_run(run)?;
        let state = index.state()?;
        let mut found = index.found()?;
        if !state.scanned {
            index.set_found(state.epoch, COUNT_MAX)?;
            found.0.insert(state.epoch, COUNT_MAX);
        }
        index.wake_rivals()?;
        // Peers that were removed while no agent ran have nothing to give any more.
        for gone in index.peers()?.iter().filter(|row| !settings.peers.contains(&row.device)) {
            index.forget_peer(gone.device)?;
        }
        let missing_since_ms = (index.count_marked(crate::index::Mark::Missing)? > 0).then_some(0);
        Ok(Self {
            index,
            settings,
            rules,
            rules_unapplied: true,
            ruled_late: BTreeSet::new(),
            found,
            peers: BTreeMap::new(),
            works: BTreeMap::new(),
            moved_away: BTreeMap::new(),
            busy: BTreeMap::new(),
            next_work: 1,
            fetching: BTreeMap::new(),
            leaving: BTreeMap::new(),
            parked: BTreeMap::new(),
            pass: want::Pass::default(),
            fresh: want::Fresh::default(),
            rescans: BTreeSet::new(),
            awaited: BTreeSet::new(),
            freed: BTreeSet::new(),
            halted: false,
            suspicious_below: 0,
            after_crash,
            rolled_back_ms: None,
            missing_since_ms,
            missing_first_ms: 0,
            unseen_waits: BTreeMap::new(),
            vanished: BTreeMap::new(),
            returned: BTreeSet::new(),
            unwritten_ms: None,
            unwritten_directories: BTreeSet::new(),
            turned_up: BTreeSet::new(),
            half_done: BTreeMap::new(),
            scans: 0,
            confirmed_until_ms: 0,
            doubted: BTreeSet::new(),
            let_go: BTreeSet::new(),
            changed_mono_ms: 0,
            housekeeping_ms: 0,
            has_heard: false,
            syncs: 0,
            outputs: Vec::new(),
        })
    }

    /// Takes in what happened and says what follows. Everything is committed before it returns.
    ///
    /// # Errors
    ///
    /// Only where the index fails; the folder has to be stopped then.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<Vec<Output>, IndexError> {
        self.index.begin()?;
        match self.take_in(input, now).and_then(|()| self.follow_up(now)) {
            Ok(()) => {
                self.index.commit()?;
                let outputs = std::mem::take(&mut self.outputs);
                // What others have been told must not be forgotten here: a device that issues a count twice needs a new
                // epoch, and takes what its user does next for a conflict with what it has forgotten. Nor must what they
                // said of what is to be put on the disk: found there afterwards, it would be taken for its user's work.
                let needs_memory = |output: &Output| match output {
                    Output::Send(_, message) => matches!(message, Message::Index(_)),
                    Output::Apply(..) => self.has_heard,
                    _ => false,
                };
                if outputs.iter().any(needs_memory) {
                    self.make_durable()?;
                }
                Ok(outputs)
            }
            Err(error) => {
                self.index.rollback()?;
                self.outputs.clear();
                Err(error)
            }
        }
    }

    /// Has what peers have said survive a power cut, where that has to be before what is being fetched is put on the disk.
    ///
    /// # Errors
    ///
    /// As [`Folder::handle`].
    pub fn remember(&mut self) -> Result<(), IndexError> {
        if self.has_heard { self.make_durable() } else { Ok(()) }
    }

    fn make_durable(&mut self) -> Result<(), IndexError> {
        self.index.make_durable()?;
        (self.has_heard, self.syncs) = (false, self.syncs + 1);
        Ok(())
    }

    /// When [`Input::Tick`] is due, on the clock that only goes forward; `None` where nothing waits for time.
    pub fn next_tick_ms(&self, now: Now) -> Result<Option<u64>, IndexError> {
        // Where deletions can't be announced yet, what they wait for is an input of its own.
        let settle = match self.missing_since_ms {
            Some(since) if !self.halted && self.index.state()?.scanned => Some(since + DELETE_SETTLE_MS + 1),
            _ => None,
        };
        let retry = self
            .index
            .next_problem_ms()?
            .map(|at| now.mono_ms + at.saturating_sub(now.wall_ms()).clamp(50, 60_000) as u64);
        let proof = self.next_proof_ms();
        let acks = self.peers.values().filter_map(Peer::ack_due_ms).min();
        Ok([settle, retry, proof, acks].into_iter().flatten().min())
    }

    /// Writes a note of the engine's into the index, or takes it away.
    pub fn set_note(&mut self, key: &str, value: Option<&str>) -> Result<(), IndexError> {
        self.index.set_note(key, value)
    }

    /// Notes what was found in history before anything else is taken in.
    pub fn note_history(&mut self, found: &[HistoryRow]) -> Result<(), IndexError> {
        self.index.begin()?;
        match found.iter().try_for_each(|row| self.index.add_history(row)) {
            Ok(()) => self.index.commit(),
            Err(error) => {
                self.index.rollback()?;
                Err(error)
            }
        }
    }

    /// A note, durably.
    pub fn keep_note(&mut self, key: &str, value: &str) -> Result<(), IndexError> {
        self.index.set_note(key, Some(value))?;
        self.index.make_durable()
    }

    /// The index, for reading.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How often all that is in the index was made durable in this run: what a power cut could take is only what came since.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// True where no work is under way and none is known to be possible.
    pub fn is_idle(&self) -> bool {
        self.works.is_empty() && !self.pass.is_wanted() && self.missing_since_ms.is_none()
    }

    /// Marks the end of an orderly shutdown.
    pub fn close(mut self) -> Result<(), IndexError> {
        self.index.set_clean()
    }

    /// Makes a log of the index that has grown small again; for times in which nothing happens.
    pub fn shrink_log(&mut self) -> Result<(), IndexError> {
        self.index.shrink_log()
    }

    /// Gives up everything but what is committed, as a crash would.
    pub fn into_index(self) -> Index {
        self.index
    }

    fn take_in(&mut self, input: Input, now: Now) -> Result<(), IndexError> {
        match input {
            Input::ScanStarted { suspicious } => {
                self.scans += 1;
                self.suspicious_below = if suspicious { self.first_of_boot()? } else { 0 };
                self.look_for_power_cut(suspicious)?;
                self.recheck_ignored(now)?;
                if self.announces_changes() {
                    self.announce_own(now)?;
                }
            }
            Input::Observed(observations) => self.observe(observations, now)?,
            Input::ScanFinished { complete } => self.scan_finished(complete, now)?,
            Input::Connected(peer) => self.connected(peer, now)?,
            Input::Lost(peer) => self.lost(peer, now)?,
            Input::Message(peer, message) => self.hear(peer, message, now)?,
            Input::Fetched(results) => self.fetched(results, now)?,
            Input::Applied(outcomes) => self.applied(outcomes, now)?,
            Input::Tick => self.tick(now)?,
            Input::Settings(settings) => self.set_settings(settings, now)?,
            Input::Rules(rules) => self.set_rules(*rules, now)?,
            Input::Halted(reason) => self.set_halted(reason, now)?,
            Input::History { found, expired } => {
                found.iter().try_for_each(|row| self.index.add_history(row))?;
                expired.iter().try_for_each(|slot| self.index.drop_history(slot))?;
            }
            Input::Confirm => self.confirm(now)?,
            Input::Reject => self.reject(now)?,
            Input::Override => self.override_peers(now)?,
            Input::Revert => self.revert(now)?,
        }
        Ok(())
    }

    /// After every input: plan what has become possible, tell peers what has changed.
    fn follow_up(&mut self, now: Now) -> Result<(), IndexError> {
        self.mind_declined(now)?;
        if !self.ruled_late.is_empty() {
            self.apply_rules_late(now)?;
        }
        self.pump(now)?;
        self.tell_peers(now)?;
        if !self.rescans.is_empty() {
            let paths = std::mem::take(&mut self.rescans).into_iter().collect();
            self.outputs.push(Output::Rescan(paths));
        }
        Ok(())
    }

    fn tick(&mut self, now: Now) -> Result<(), IndexError> {
        self.settle_missing(now)?;
        for path in self.index.problems_due(now.wall_ms(), now.wall_ms() + want::RETRY_MS_MAX, WORKS_MAX)? {
            self.retry(&path, now)?;
        }
        if now.mono_ms >= self.housekeeping_ms {
            self.housekeeping_ms = now.mono_ms + HOUSEKEEPING_MS;
            self.keep_house(now)?;
        }
        Ok(())
    }

    /// A problem's time has come: whatever it was about is tried again.
    fn retry(&mut self, path: &RelPath, now: Now) -> Result<(), IndexError> {
        if let Some(row) = self.index.problem(path)? {
            let later = now.wall_ms() + want::retry_delay_ms(row.problem.kind, row.attempts);
            self.index.set_problem(path, &row.problem, now.wall_ms(), Some(later))?;
        }
        if self.index.rivals(path)?.is_empty() {
            self.drop_moot_problem(path)?;
            self.rescans.insert(path.clone());
        } else {
            self.index.set_todo(path, true)?;
            self.pass.want();
        }
        Ok(())
    }

    /// Tombstones go when every device that shares the folder has applied them and they are old.
    fn keep_house(&mut self, now: Now) -> Result<(), IndexError> {
        let mut applied = self.index.state()?.last_seq;
        for peer in &self.settings.peers {
            applied = applied.min(self.index.peer(*peer)?.map_or(0, |row| row.applied));
            // What a peer lists as an exception it has not applied.
            let excepted = self.index.exceptions(*peer, EXCEPTIONS_MAX)?.into_iter().map(|e| e.seq).min();
            applied = applied.min(excepted.map_or(applied, |seq| seq.saturating_sub(1)));
        }
        let (mut before_ms, mut upto) = (now.wall_ms() - TOMBSTONE_MS, applied);
        if sabotage::is(Bug::TombstonesForgottenEarly) {
            (before_ms, upto) = (now.wall_ms(), self.index.state()?.last_seq);
        }
        self.index.forget_tombstones(before_ms, upto, HOUSEKEEPING_ROWS)?;
        self.index.collect_lists(HOUSEKEEPING_ROWS)?;
        if self.index.note(NOTE_HELD)?.is_some() {
            // What went before the user was asked comes back if he rejects it.
            return Ok(());
        }
        self.index.prune_removals(now.wall_ms() - crate::core::guard::WINDOW_MS)
    }

    fn set_settings(&mut self, settings: Settings, now: Now) -> Result<(), IndexError> {
        for gone in self.settings.peers.difference(&settings.peers) {
            self.index.forget_peer(*gone)?;
            self.peers.remove(gone);
        }
        let before = std::mem::replace(&mut self.settings, settings).direction;
        self.set_direction(before, now)?;
        self.drop_moot_problems()
    }

    fn set_halted(&mut self, reason: Option<String>, now: Now) -> Result<(), IndexError> {
        let was_halted = std::mem::replace(&mut self.halted, reason.is_some());
        self.index.set_note(NOTE_HALTED, reason.as_deref())?;
        match (&reason, was_halted) {
            (Some(text), false) => self.report("halted", None, text.clone(), now)?,
            (None, true) => {
                self.report("resumed", None, "the folder is back".into(), now)?;
                self.index.wake_rivals()?;
                self.pass.want();
                self.outputs.push(Output::FullScan);
            }
            _ => {}
        }
        Ok(())
    }

    /// Records an event in the index and passes it on to whoever shows events.
    fn report(&mut self, kind: &'static str, path: Option<&RelPath>, text: String, now: Now) -> Result<(), IndexError> {
        self.index.log(now.wall_ms(), kind, path, &text)?;
        self.outputs.push(Output::Event { kind, path: path.cloned(), text });
        Ok(())
    }

    /// What the index has at a path, with the tombstone-less nothing where it has no row.
    fn ours(&self, path: &RelPath) -> Result<Record, IndexError> {
        Ok(self.index.record(path)?.unwrap_or_else(|| Record::nothing(path)))
    }

    /// The same for a directory that is asked for with each path below it.
    fn ours_above(&self, path: &RelPath) -> Result<Record, IndexError> {
        Ok(self.index.directory(path)?.unwrap_or_else(|| Record::nothing(path)))
    }

    /// Who brought what a rival speaks of. A rival of our own stands for something earlier, from whoever it came.
    fn link_of(&self, rival: &crate::index::Rival) -> Option<crate::core::id::DeviceId> {
        Some(rival.peer).filter(|peer| *peer != self.settings.device)
    }

    fn epoch(&self) -> Result<crate::core::id::EpochId, IndexError> {
        Ok(self.index.state()?.epoch)
    }

    /// An entry has changed: peers will want to know, and what was waiting for it may go on.
    fn touch(&mut self, now: Now) {
        self.pass.want();
        self.changed_mono_ms = now.mono_ms;
    }
}
