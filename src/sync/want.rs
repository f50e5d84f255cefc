//! Deciding about rivals, and planning the work that follows: what to fetch, what to put where.
//!
//! Wants are derived from the rivals in the index, a bounded number at a time. One pass goes through them in path
//! order, so directories come before what is in them; deletions come last, children before parents, so that a file
//! that was moved is still here when its new name turns up.

use std::collections::{BTreeMap, VecDeque};

use crate::core::action::{Action, WorkId};
use crate::core::content::{ChunkList, Content};
use crate::core::decide::{self, Decision};
use crate::core::entry::Entry;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;

use crate::index::{IndexError, Mark, Record, Rival};

use super::{Folder, Now, Output, WORKS_MAX};

/// Problems looked through at a time; what is beyond waits for the next time.
const PROBLEMS_MAX: usize = 10_000;

/// Paths looked at per query.
const PAGE: usize = 256;
/// A batch of at most so many entries is what somebody has just changed, not what there is to catch up on.
pub(super) const FRESH_ENTRIES_MAX: usize = 64;
/// Paths of one peer that wait to be looked at before the others. What is beyond has its turn in the pass.
const FRESH_PATHS_MAX: usize = 256;
/// Works for such paths of one peer under way at once, beside [`WORKS_MAX`].
const FRESH_WORKS_MAX: usize = 32;

/// How long until devices that all had not got a content are asked again, in ms.
const LOST_RETRY_MS: i64 = 3600 * 1000;
/// No problem waits longer than so many ms.
pub(super) const RETRY_MS_MAX: i64 = LOST_RETRY_MS;

/// What each peer has just changed: it need not wait for all that the others, or it, still have to give.
#[derive(Default)]
pub(super) struct Fresh {
    paths: BTreeMap<DeviceId, VecDeque<RelPath>>,
    /// The peer whose paths are being looked at.
    turn: Option<DeviceId>,
}

impl Fresh {
    pub fn add(&mut self, peer: DeviceId, path: RelPath) {
        let paths = self.paths.entry(peer).or_default();
        if paths.len() < FRESH_PATHS_MAX {
            paths.push_back(path);
        }
    }

    pub fn forget(&mut self, peer: &DeviceId) {
        self.paths.remove(peer);
    }
}

/// One path between the decision and its commit.
pub(super) struct Work {
    pub path: RelPath,
    pub goal: Goal,
    pub ours: Record,
    /// The action, once ordered or parked; `None` while its bytes are fetched.
    pub action: Option<Action>,
    pub lists: Vec<ChunkList>,
    /// The path was seen to change meanwhile.
    pub look_again: bool,
    /// The peer that has just changed it, where it did not wait for its turn.
    pub fresh_of: Option<DeviceId>,
    /// All devices of the folder were there to be asked for its bytes when it began, and have been since.
    pub asks_all: bool,
}

/// What a work is to lead to.
#[derive(Clone)]
pub(super) enum Goal {
    /// Our entry becomes the rival's: taken, or resolved with a copy of ours where the decision says so.
    Adopt { rival: Rival, decision: Decision, copy: Option<RelPath> },
    /// A directory that something below it needs comes (back) to life.
    Revive { copy: Option<RelPath> },
    /// Mode or mtime are set to what the register says.
    Metadata { entry: Entry },
    /// The other half of a move: the path that the file leaves.
    MovedAway,
    /// A directory that was left over goes, if nothing is in it any more.
    Clear,
}

/// Progress through what is to be decided.
#[derive(Default)]
pub(super) struct Pass {
    wanted: bool,
    after: Option<RelPath>,
    deleting: bool,
    /// The last path of the second half that was looked at.
    before: Option<RelPath>,
    /// The deletions of this pass were found to be no mass removal.
    guarded: bool,
    /// Something was finished since the pass began, so what was skipped may be possible now.
    progress: bool,
    skipped: bool,
}

impl Pass {
    /// There may be something to decide.
    pub fn want(&mut self) {
        self.wanted = true;
        self.progress = true;
    }

    /// Peers have said more: whether their deletions are too many is asked again, and what is to be here comes first
    /// again, as it may be what they delete elsewhere.
    pub fn doubt(&mut self) {
        self.guarded = false;
        if self.deleting {
            (self.deleting, self.after, self.before) = (false, None, None);
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted
    }
}

/// What became of looking at a path.
pub(super) enum Looked {
    /// Nothing more to do, or work has begun.
    Settled,
    /// Has to wait for something that is under way.
    Skipped,
    /// Waits for a peer, a user or a conflict's other side; asked again when one of those turns up.
    Blocked,
}

/// How long until a problem of this kind is tried again, in ms.
pub(super) fn retry_delay_ms(kind: ProblemKind, attempts: u32) -> i64 {
    let most = match kind {
        // Cured from outside at any moment, and cheap to try.
        ProblemKind::NoSpace | ProblemKind::Permission | ProblemKind::Busy | ProblemKind::InTheWay => 4_000,
        // Whoever says or brings something new wakes it at once.
        ProblemKind::Lost => return LOST_RETRY_MS,
        _ => 60_000,
    };
    (500i64 << attempts.min(10)).min(most)
}

impl Folder {
    /// Begins as much work as there is room for.
    pub(super) fn pump(&mut self, now: Now) -> Result<(), IndexError> {
        // After a crash the disk may hold what the index does not know yet: nothing is done before a scan has seen it.
        if !self.pass.wanted || self.halted || self.after_crash || !self.index.state()?.scanned {
            return Ok(());
        }
        self.pump_fresh(now)?;
        while self.works.len() < WORKS_MAX && self.pass.wanted {
            if self.pass.deleting { self.pump_deletions(now)? } else { self.pump_live(now)? }
        }
        if self.pass.wanted { Ok(()) } else { self.forget_question() }
    }

    /// Looks at what peers have just changed. Deletions wait for the pass, which counts them first.
    fn pump_fresh(&mut self, now: Now) -> Result<(), IndexError> {
        let peers: Vec<DeviceId> = self.fresh.paths.keys().copied().collect();
        for peer in peers {
            let mut works = self.works.values().filter(|w| w.fresh_of == Some(peer)).count();
            while works < FRESH_WORKS_MAX
                && let Some(path) = self.fresh.paths.get_mut(&peer).and_then(VecDeque::pop_front)
            {
                let rivals = self.index.rivals(&path)?;
                if rivals.is_empty() || rivals.iter().any(|r| !r.entry.is_live()) {
                    continue;
                }
                let before = self.works.len();
                self.fresh.turn = Some(peer);
                let looked = self.look_at(&path, now);
                self.fresh.turn = None;
                // What has to wait for something is still to be done in the pass, and so is what is blocked.
                looked?;
                works += self.works.len().saturating_sub(before);
            }
        }
        self.fresh.paths.retain(|_, paths| !paths.is_empty());
        Ok(())
    }

    /// One page of the first half of a pass: everything that is to be here.
    fn pump_live(&mut self, now: Now) -> Result<(), IndexError> {
        let paths = self.index.todo_live(self.pass.after.as_ref(), PAGE)?;
        let looked = self.look_at_all(&paths, now)?;
        if let Some(last) = looked.checked_sub(1).and_then(|at| paths.get(at)) {
            self.pass.after = Some(last.clone());
        }
        self.pass.deleting = looked == paths.len() && paths.len() < PAGE;
        Ok(())
    }

    /// One page of the second half: everything that is to go.
    fn pump_deletions(&mut self, now: Now) -> Result<(), IndexError> {
        let paths = self.index.todo_deleted(self.pass.before.as_ref(), PAGE)?;
        if !self.pass.guarded && !paths.is_empty() && self.holds_remote_deletions(now)? {
            self.end_pass();
            return Ok(());
        }
        self.pass.guarded = true;
        let looked = self.look_at_all(&paths, now)?;
        if let Some(last) = looked.checked_sub(1).and_then(|at| paths.get(at)) {
            self.pass.before = Some(last.clone());
        }
        if looked == paths.len() && paths.len() < PAGE {
            self.end_pass();
        }
        Ok(())
    }

    /// Looks at each path while there is room for work, and says how many were looked at.
    fn look_at_all(&mut self, paths: &[RelPath], now: Now) -> Result<usize, IndexError> {
        for (at, path) in paths.iter().enumerate() {
            if self.works.len() >= WORKS_MAX {
                return Ok(at);
            }
            match self.look_at(path, now)? {
                Looked::Settled => {}
                Looked::Skipped => self.pass.skipped = true,
                Looked::Blocked => {
                    self.index.set_todo(path, false)?;
                    self.acks_are_due(now);
                }
            }
        }
        Ok(paths.len())
    }

    /// A pass that had to skip something is repeated when something else has been finished meanwhile.
    fn end_pass(&mut self) {
        let again = self.pass.skipped && self.pass.progress;
        self.pass = Pass { wanted: again, ..Pass::default() };
    }

    /// Decides about one path's rivals until there is nothing to decide or work to be done.
    fn look_at(&mut self, path: &RelPath, now: Now) -> Result<Looked, IndexError> {
        if self.busy.contains_key(path) || self.awaited.contains(path) {
            return Ok(Looked::Skipped);
        }
        loop {
            let ours = self.ours(path)?;
            let mut candidates: Vec<(Rival, Decision)> = Vec::new();
            let mut changed = false;
            for rival in self.index.rivals(path)? {
                match decide::decide(&ours.entry, &rival.entry, &self.found) {
                    Decision::Forget if rival.entry.meta.stamp > ours.entry.meta.stamp => {
                        return self.plan_metadata(ours, &rival, now);
                    }
                    Decision::Forget => {
                        self.index.drop_rival(rival.peer, path)?;
                        self.acks_are_due(now);
                    }
                    Decision::Join => {
                        let entry = decide::joined(&ours.entry, &rival.entry);
                        self.put_decided(&entry, &ours, now)?;
                        changed = true;
                    }
                    Decision::Keep if ours.is_held() => {
                        let (epoch, count) = (self.epoch()?, self.index.next_seq());
                        let entry = decide::resolved(&ours.entry, &rival.entry, false, epoch, count);
                        self.put_decided(&entry, &ours, now)?;
                        changed = true;
                    }
                    Decision::Take => candidates.push((rival, Decision::Take)),
                    // Only who holds the losing bytes resolves a conflict.
                    decision @ Decision::Resolve { .. } if ours.is_held() || !ours.entry.is_live() => {
                        candidates.push((rival, decision));
                    }
                    // What was only known here, of a path that was not minded: whoever has it will say so.
                    Decision::Wait if rival.peer == self.settings.device => self.index.drop_rival(rival.peer, path)?,
                    Decision::Keep | Decision::Resolve { .. } | Decision::Wait => {}
                }
                if changed {
                    break;
                }
            }
            if changed && self.busy.contains_key(path) {
                return Ok(Looked::Skipped);
            }
            if changed {
                continue;
            }
            let replaces = |rival: &Rival| rival.entry.kind != ours.entry.kind;
            if candidates.iter().any(|(rival, decision)| *decision == Decision::Take && replaces(rival)) {
                candidates.iter_mut().for_each(|(_, decision)| *decision = without_copy(*decision));
            }
            return match self.best_of(path, candidates)? {
                Some((rival, decision)) => self.plan(ours, rival, decision, now),
                None => {
                    let is_settled = self.index.rivals(path)?.is_empty();
                    if is_settled || ours.mark == Mark::Ignored {
                        self.drop_moot_problem(path)?;
                    }
                    Ok(if is_settled { Looked::Settled } else { Looked::Blocked })
                }
            };
        }
    }

    /// The same for all paths, after a peer's entries went all at once.
    pub(super) fn drop_moot_problems(&mut self) -> Result<(), IndexError> {
        for row in self.index.problems(PROBLEMS_MAX)? {
            if self.index.rivals(&row.path)?.is_empty() {
                self.drop_moot_problem(&row.path)?;
            }
        }
        Ok(())
    }

    /// Where nothing is to be applied there is no trouble with applying; of what else there may be a scan knows more.
    pub(super) fn drop_moot_problem(&mut self, path: &RelPath) -> Result<(), IndexError> {
        let sources = [ProblemKind::NoSource, ProblemKind::Lost, ProblemKind::BadBytes];
        let applying = [ProblemKind::InTheWay, ProblemKind::NoSpace];
        match self.index.problem(path)? {
            Some(row) if row.problem.kind == ProblemKind::Name && self.ours(path)?.mark != Mark::Declined => {
                self.index.clear_problem(path)
            }
            Some(row) if sources.contains(&row.problem.kind) || applying.contains(&row.problem.kind) => {
                self.index.clear_problem(path)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn drop_settled_rivals(&mut self, path: &RelPath, entry: &Entry) -> Result<(), IndexError> {
        if self.leaves_rivals(path, entry)? { Ok(()) } else { self.drop_moot_problem(path) }
    }

    /// Forgets rivals that this entry settles. True where others are left.
    pub(super) fn leaves_rivals(&mut self, path: &RelPath, entry: &Entry) -> Result<bool, IndexError> {
        let mut are_left = false;
        for rival in self.index.rivals(path)? {
            if decide::is_settled(entry, &rival.entry, &self.found) {
                self.index.drop_rival(rival.peer, path)?;
            } else {
                are_left = true;
            }
        }
        Ok(are_left)
    }

    pub(super) fn begin(&mut self, ours: Record, goal: Goal) -> Result<WorkId, IndexError> {
        let id = self.next_work;
        self.next_work += 1;
        let path = ours.entry.path.clone();
        self.busy.insert(path.clone(), id);
        self.index.set_todo(&path, false)?;
        if let Some(content) = leaving(&ours, &goal) {
            *self.leaving.entry(content).or_default() += 1;
        }
        let (fresh_of, asks_all) = (self.fresh.turn, self.is_everybody_here());
        let work = Work { path, goal, ours, action: None, lists: Vec::new(), look_again: false, fresh_of, asks_all };
        self.works.insert(id, work);
        Ok(id)
    }

    /// A file that was to go is in history, or has stayed.
    pub(super) fn has_left(&mut self, work: &Work) {
        let Some(content) = leaving(&work.ours, &work.goal) else { return };
        match self.leaving.get_mut(&content) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.leaving.remove(&content)),
        }
    }

    /// Orders an action, or parks it until the directory above it has been made.
    pub(super) fn order(&mut self, id: WorkId, action: Action) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.action = Some(action.clone());
        match action.path().parent().filter(|parent| self.busy.contains_key(parent)) {
            Some(parent) => self.parked.entry(parent).or_default().push(id),
            None => self.outputs.push(Output::Apply(id, action)),
        }
    }
}

/// What somebody has replaced or deleted, having had it before his eyes, needs no copy when it gives way to something
/// else: it goes into history, as it would have gone.
pub(super) fn without_copy(decision: Decision) -> Decision {
    match decision {
        Decision::Resolve { .. } => Decision::Resolve { copy: false },
        other => other,
    }
}

/// What is in a file that a work takes away.
fn leaving(ours: &Record, goal: &Goal) -> Option<Content> {
    let Goal::Adopt { rival, .. } = goal else { return None };
    ours.entry.kind.content().filter(|_| !rival.entry.is_live() && ours.is_held())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, path};
    use crate::core::content::Content;
    use crate::core::entry::Kind;
    use crate::core::id::RunId;
    use crate::core::ignore::Rules;
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::VersionVector;
    use crate::sync::Settings;

    use super::*;

    #[test]
    fn what_is_fresh_is_bounded_for_each_peer_and_forgotten_with_it() {
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let mut fresh = Fresh::default();
        let path_of = |n: usize| RelPath::parse(n.to_string().as_bytes()).expect("a path");
        (0..=FRESH_PATHS_MAX).for_each(|n| fresh.add(a, path_of(n)));
        fresh.add(b, path_of(0));
        let count = |fresh: &Fresh, peer| fresh.paths.get(&peer).map_or(0, VecDeque::len);
        assert_eq!((count(&fresh, a), count(&fresh, b)), (FRESH_PATHS_MAX, 1));
        fresh.forget(&a);
        assert_eq!((count(&fresh, a), count(&fresh, b)), (0, 1));
    }

    #[test]
    fn what_a_peer_offered_that_was_removed_while_no_agent_ran_is_forgotten() {
        let mut fixture = Fixture::new(0);
        let version = VersionVector::new().with(PEERS_EPOCH, 5);
        let kind = Kind::File(Content::of_chunk(b"only there"));
        let entry = Entry { kind, version, ..Entry::nothing(path(0)) };
        let entries = vec![Announced { entry, seq: 100, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 100, more: false }));
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap().len(), 1);
        let index = std::mem::replace(&mut fixture, Fixture::new(0)).folder.into_index();
        let folder = Folder::new(index, Settings::default(), Rules::default(), RunId(9)).unwrap();
        assert!(folder.index().rivals(&path(0)).unwrap().is_empty() && folder.index().peers().unwrap().is_empty());
    }
}
