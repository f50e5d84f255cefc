//! Planning: what has to be fetched, and which action leads to what a rival says.

use crate::core::action::{Action, Displace, Expected};
use crate::core::content::Content;
use crate::core::decide::{self, Decision};
use crate::core::disk::{Attributes, DiskKind, DiskState};
use crate::core::entry::{Entry, Kind, MODE_MASK};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Record, Rival};
use crate::sabotage::{self, Bug};

use super::above::Above;
use super::direction::displaced;
use super::edited::{shows_mtime, visible_mode};
use super::want::{Goal, Looked};
use super::{FetchOrder, Folder, Now, Output};

/// Devices asked for one content, and places looked at for a move, at most.
pub(super) const SOURCES_MAX: usize = 8;

impl Folder {
    pub(super) fn plan(
        &mut self,
        ours: Record,
        rival: Rival,
        decision: Decision,
        now: Now,
    ) -> Result<Looked, IndexError> {
        let path = &rival.entry.path;
        let kind = &rival.entry.kind;
        if matches!(ours.mark, Mark::Ignored | Mark::Declined) {
            let mark = ours.mark;
            return self.pass_on(ours, &rival, decision, mark, now);
        }
        if self.rules.is_ignored(path, kind.is_directory()).is_some() {
            return self.pass_on(ours, &rival, decision, Mark::Ignored, now);
        }
        if is_too_fresh(&ours) || self.is_kept_out(&ours, &rival.entry)? {
            return Ok(Looked::Blocked);
        }
        if kind.is_deleted() {
            return self.plan_removal(ours, rival, decision, now);
        }
        if ours.entry.kind.is_directory() && !kind.is_directory() && self.index.has_live_below(path)? {
            return self.wait_or_revive(&ours, now);
        }
        // Seen gone, and soon to count as deleted: that the same file is known under a newer version does not bring it
        // back. An edit would.
        if ours.mark == Mark::Missing && ours.entry.same_state(&rival.entry) {
            let entry = self.outcome_entry(&ours.entry, &rival, decision)?;
            self.put_decided(&entry, &ours, now)?;
            return Ok(Looked::Skipped);
        }
        match self.look_above(path)? {
            Above::Ready => {}
            Above::Later | Above::Gone(_) => return Ok(Looked::Skipped),
            Above::PassedOn(Mark::Own) => return Ok(Looked::Blocked),
            Above::PassedOn(mark) => return self.pass_on(ours, &rival, decision, mark, now),
        }
        match kind {
            kind if *kind == ours.entry.kind && ours.is_held() => self.plan_same_content(ours, rival, decision, now),
            Kind::File(content) => {
                if let Some(looked) = self.plan_move(&ours, &rival, decision)? {
                    return Ok(looked);
                }
                // On its way to history neither the old place nor the new one can be read.
                if self.leaving.contains_key(content) {
                    return Ok(Looked::Skipped);
                }
                let sources = self.sources(&rival)?;
                let (path, content) = (path.clone(), *content);
                let attributes =
                    Some(Attributes { mtime_ns: rival.entry.mtime_ns, mode: rival.entry.mode() & MODE_MASK });
                let copy = copy_for(&ours, decision);
                let work = self.begin(ours, Goal::Adopt { rival, decision, copy })?;
                *self.fetching.entry(content).or_default() += 1;
                self.outputs.push(Output::Fetch(FetchOrder { work, path, content, attributes, sources }));
                Ok(Looked::Settled)
            }
            _ => {
                let copy = copy_for(&ours, decision);
                let entry = self.outcome_entry(&ours.entry, &rival, decision)?;
                let action = place(&ours, &entry, copy.as_ref(), 0);
                let work = self.begin(ours, Goal::Adopt { rival, decision, copy })?;
                self.order(work, action);
                Ok(Looked::Settled)
            }
        }
    }

    /// The bytes are here already: at most mode and mtime have to be set.
    fn plan_same_content(
        &mut self,
        ours: Record,
        rival: Rival,
        decision: Decision,
        now: Now,
    ) -> Result<Looked, IndexError> {
        let entry = self.outcome_entry(&ours.entry, &rival, decision)?;
        match ours.disk {
            None => Ok(Looked::Blocked),
            // A suspect file has other bytes than its entry, and stays as it is.
            Some(disk) if ours.mark == Mark::Suspect || shows(disk, &entry) => {
                self.put_decided(&entry, &ours, now)?;
                self.index.set_todo(&entry.path, true)?;
                Ok(Looked::Skipped)
            }
            Some(disk) => {
                let work = self.begin(ours, Goal::Adopt { rival, decision, copy: None })?;
                self.order(work, set_metadata(&entry, disk));
                Ok(Looked::Settled)
            }
        }
    }

    /// The entry that adopting a rival leads to, as things are now.
    pub(super) fn outcome_entry(&self, ours: &Entry, rival: &Rival, decision: Decision) -> Result<Entry, IndexError> {
        Ok(match decision {
            Decision::Resolve { .. } => {
                decide::resolved(ours, &rival.entry, true, self.epoch()?, self.index.next_seq())
            }
            _ => decide::taken(ours, &rival.entry),
        })
    }

    /// Forgets the rival that led to this entry. Mostly it is the only one, and need not be looked for.
    pub(super) fn drop_if_settled(&mut self, rival: &Rival, entry: &Entry) -> Result<(), IndexError> {
        if decide::is_settled(entry, &rival.entry, &self.found) { self.index.drop_rival_of(rival) } else { Ok(()) }
    }

    /// The file may be here under a name that it is leaving: then it is renamed, and no bytes are read at all.
    fn plan_move(&mut self, ours: &Record, rival: &Rival, decision: Decision) -> Result<Option<Looked>, IndexError> {
        let Some(content) = rival.entry.kind.content() else { return Ok(None) };
        if displaced(ours).is_some() || ours.entry.is_live() {
            return Ok(None);
        }
        for source in self.index.moved_from(content.id, SOURCES_MAX)? {
            let from = source.entry.path.clone();
            let leaves =
                self.index.rivals(&from)?.into_iter().any(|r| {
                    !r.entry.is_live() && decide::decide(&source.entry, &r.entry, &self.found) == Decision::Take
                });
            let is_taken = self.busy.contains_key(&from) || self.awaited.contains(&from);
            let (true, Some(expect), false) = (leaves, source.disk, is_taken) else { continue };
            let entry = self.outcome_entry(&ours.entry, rival, decision)?;
            let to = entry.path.clone();
            let action = Action::Move { from, to, expect, mtime_ns: entry.disk_mtime_ns(), mode: entry.mode() };
            let work = self.begin(ours.clone(), Goal::Adopt { rival: rival.clone(), decision, copy: None })?;
            let other = self.begin(source, Goal::MovedAway)?;
            self.moved_away.insert(work, other);
            self.order(work, action);
            return Ok(Some(Looked::Settled));
        }
        Ok(None)
    }

    fn plan_removal(&mut self, ours: Record, rival: Rival, decision: Decision, now: Now) -> Result<Looked, IndexError> {
        let path = rival.entry.path.clone();
        let Some(disk) = displaced(&ours) else {
            // Seen gone already: it settles as a deletion of our own, and the two are joined.
            if ours.mark == Mark::Missing {
                return Ok(Looked::Blocked);
            }
            let entry = self.outcome_entry(&ours.entry, &rival, decision)?;
            self.index.put(&entry, None, Mark::Here, now.wall_ms())?;
            self.look_for_half_done(&path);
            self.drop_settled_rivals(&path, &entry)?;
            self.touch(now);
            self.acks_are_due(now);
            return Ok(Looked::Skipped);
        };
        // A file that a fetch is just copying from stays until that is done.
        if ours.entry.kind.content().is_some_and(|content| self.is_wanted(content)) {
            return Ok(Looked::Skipped);
        }
        let action = if disk.kind == DiskKind::Directory {
            if self.is_any_below(Mark::Reverted, &path)? {
                return Ok(Looked::Skipped);
            }
            if self.index.has_live_below(&path)? {
                return self.wait_or_revive(&ours, now);
            }
            Action::RemoveDirectory { path }
        } else {
            let content = ours.content_here().map(|c| c.id);
            Action::Remove { path, expect: Expected { disk, content, displace: Displace::History } }
        };
        let work = self.begin(ours, Goal::Adopt { rival, decision, copy: None })?;
        self.order(work, action);
        Ok(Looked::Settled)
    }

    fn is_wanted(&self, content: Content) -> bool {
        self.fetching.contains_key(&content)
    }

    /// An entry that this disk does not hold is known and told, but nothing is done about it.
    pub(super) fn pass_on(
        &mut self,
        ours: Record,
        rival: &Rival,
        decision: Decision,
        mark: Mark,
        now: Now,
    ) -> Result<Looked, IndexError> {
        if mark == Mark::Ignored {
            // What does not sync has no trouble with syncing.
            self.drop_moot_problem(&rival.entry.path)?;
        }
        // A conflict is resolved by a device that holds the bytes.
        if decision != Decision::Take {
            return Ok(Looked::Blocked);
        }
        let entry = decide::taken(&ours.entry, &rival.entry);
        let mark = if entry.is_live() { mark } else { Mark::Here };
        self.index.put_brought(&entry, self.link_of(rival), None, mark, now.wall_ms())?;
        // What does not sync has no trouble with syncing, and what is gone has no name to be declined.
        if mark == Mark::Declined && ours.mark == Mark::Declined && entry.is_live() {
            self.clear_all_but_name(&entry.path)?;
        } else if matches!(mark, Mark::Ignored | Mark::Declined) || !entry.is_live() {
            self.index.clear_problem(&entry.path)?;
        }
        self.drop_settled_rivals(&entry.path, &entry)?;
        self.touch(now);
        self.acks_are_due(now);
        // What others say of it is decided again, in the next pass.
        Ok(Looked::Skipped)
    }

    /// Only the metadata register is newer at a peer.
    pub(super) fn plan_metadata(&mut self, ours: Record, rival: &Rival, now: Now) -> Result<Looked, IndexError> {
        let mut entry = ours.entry.clone();
        decide::merge_meta(&mut entry, &rival.entry);
        if ours.mark == Mark::Own || (ours.disk.is_some() && self.is_kept_out(&ours, &entry)?) {
            return Ok(Looked::Blocked);
        }
        match on_disk(&ours) {
            Some(expect) => {
                let action = set_metadata(&entry, expect);
                let work = self.begin(ours, Goal::Metadata { entry })?;
                self.order(work, action);
            }
            None => {
                self.put_decided(&entry, &ours, now)?;
                return Ok(Looked::Skipped);
            }
        }
        Ok(Looked::Settled)
    }

    /// What is on the disk stays, under another version. Newer metadata is taken in a step of its own.
    pub(super) fn put_decided(&mut self, entry: &Entry, ours: &Record, now: Now) -> Result<(), IndexError> {
        let entry = until_shown(entry, &ours.entry, on_disk(ours));
        self.index.put(&entry, ours.disk, ours.mark, now.wall_ms())?;
        self.drop_settled_rivals(&entry.path, &entry)?;
        self.touch(now);
        self.acks_are_due(now);
        Ok(())
    }

    /// Sets mode and mtime on disk where they are not what the entry says.
    pub(super) fn fix_metadata(&mut self, entry: &Entry, disk: DiskState) -> Result<(), IndexError> {
        if shows(disk, entry) || self.busy.contains_key(&entry.path) {
            return Ok(());
        }
        let ours = self.ours(&entry.path)?;
        let work = self.begin(ours, Goal::Metadata { entry: entry.clone() })?;
        self.order(work, set_metadata(entry, disk));
        Ok(())
    }

    /// Connected peers that hold the rival's content: the ones that said so first, then any other.
    fn sources(&self, rival: &Rival) -> Result<Vec<DeviceId>, IndexError> {
        if let (Some((only, peer)), 1) = (self.peers.first_key_value(), self.peers.len()) {
            return Ok(peer.hello.iter().map(|_| *only).collect());
        }
        let said: Vec<DeviceId> = self
            .index
            .rivals(&rival.entry.path)?
            .into_iter()
            .filter(|r| r.held && r.entry.kind == rival.entry.kind)
            .map(|r| r.peer)
            .collect();
        let connected = |peer: &&DeviceId| self.peers.get(peer).is_some_and(|p| p.hello.is_some());
        let mut sources: Vec<DeviceId> = said.iter().filter(connected).copied().collect();
        sources.extend(self.peers.keys().filter(connected).filter(|p| !said.contains(p)));
        sources.truncate(SOURCES_MAX);
        Ok(sources)
    }
}

/// Nothing but its times tells whether a suspect file has changed since, so it has to be left alone for a moment first.
/// It is looked at again then, which wakes what waits here.
fn is_too_fresh(ours: &Record) -> bool {
    ours.mark == Mark::Suspect && ours.disk.is_some_and(|disk| disk.ctime_ns == 0)
}

/// The conflict copy's path, where the decision asks for one.
pub(super) fn copy_for(ours: &Record, decision: Decision) -> Option<RelPath> {
    let wants = decision == Decision::Resolve { copy: true }
        && !sabotage::is(Bug::NoConflictCopy)
        && ours.is_held()
        // There the entry's bytes are not what is on the disk: that goes to history.
        && ours.mark != Mark::Suspect
        && !ours.entry.kind.is_directory();
    let entry = &ours.entry;
    // Found versions have no author to tell them apart, so those of one second would take each other's names, on some
    // devices and not on others: the content does it from the start.
    let id = entry.kind.content_id().filter(|_| entry.author == DeviceId::NONE);
    wants.then(|| crate::core::conflict::conflict_name(&entry.path, entry.mtime_ns, entry.author, id).ok()).flatten()
}

/// What metadata is to be set on.
pub(super) fn on_disk(ours: &Record) -> Option<DiskState> {
    ours.disk.filter(|_| ours.mark == Mark::Here && ours.entry.is_live())
}

/// Metadata is ours only once the disk shows it: until then the entry has ours, and the rival that has it stays.
pub(super) fn until_shown(entry: &Entry, ours: &Entry, disk: Option<DiskState>) -> Entry {
    match disk.filter(|disk| !shows(*disk, entry)) {
        Some(_) => Entry { meta: ours.meta.clone(), ..entry.clone() },
        None => entry.clone(),
    }
}

/// What is written down of a disk that does not show what the entry says, yet: should the work on it be cut off, that is
/// news at the next look.
pub(super) fn until_looked_at(disk: DiskState, entry: &Entry) -> DiskState {
    match disk.kind {
        _ if shows(disk, entry) => disk,
        // Nothing but its mode tells one from another.
        DiskKind::Directory => DiskState { mode: visible_mode(disk.kind, entry.mode()), ..disk },
        _ => DiskState { ctime_ns: 0, ..disk },
    }
}

/// True where the disk shows the mode and mtime that the entry asks for.
pub(super) fn shows(disk: DiskState, entry: &Entry) -> bool {
    let visible = |mode| visible_mode(disk.kind, mode);
    let mode_fits = disk.kind == DiskKind::Symlink || visible(disk.mode) == visible(entry.mode());
    mode_fits && (disk.kind == DiskKind::Directory || shows_mtime(disk.mtime_ns, entry.disk_mtime_ns()))
}

fn set_metadata(entry: &Entry, expect: DiskState) -> Action {
    let (mtime_ns, mode) = (entry.disk_mtime_ns(), entry.mode());
    Action::SetMetadata { path: entry.path.clone(), expect, mtime_ns, mode }
}

/// A deleted directory that is still there for what is in it. Only that it is a directory is known of it.
const LEFT_OVER: DiskState =
    DiskState { kind: DiskKind::Directory, size: 0, mtime_ns: 0, ctime_ns: 0, inode: 0, mode: 0o755 };

/// True where such a directory is in the way of what is to be there.
pub(super) fn is_left_over(ours: &Record, wanted: &Kind) -> bool {
    ours.mark == Mark::Kept && !ours.entry.is_live() && matches!(wanted, Kind::File(_) | Kind::Symlink(_))
}

/// The action that puts an entry in the place of ours.
pub(super) fn place(ours: &Record, entry: &Entry, copy: Option<&RelPath>, staged: u32) -> Action {
    let path = entry.path.clone();
    let disk = if is_left_over(ours, &entry.kind) { Some(LEFT_OVER) } else { displaced(ours) };
    let expect = disk.map(|disk| Expected {
        disk,
        content: ours.content_here().map(|c| c.id),
        displace: copy.map_or(Displace::History, |copy| Displace::ConflictCopy(copy.clone())),
    });
    let (mtime_ns, mode) = (entry.disk_mtime_ns(), entry.mode());
    match &entry.kind {
        Kind::File(content) => Action::PlaceFile { path, content: *content, copy: staged, mtime_ns, mode, expect },
        Kind::Symlink(target) => Action::PlaceSymlink { path, target: target.clone(), mtime_ns, expect },
        Kind::Directory | Kind::Deleted => Action::CreateDirectory { path, mode, expect },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, path, seen};
    use super::super::{Input, Seen};
    use super::*;
    use crate::core::content::Content;
    use crate::core::entry::Stamp;
    use crate::core::id::{EpochId, RunId};
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::VersionVector;

    fn copy_of(bytes: &[u8], author: DeviceId) -> RelPath {
        copy_for(&record(bytes, author), Decision::Resolve { copy: true }).unwrap()
    }

    fn record(bytes: &[u8], author: DeviceId) -> Record {
        let path = RelPath::parse(b"a").unwrap();
        let version = VersionVector::new().with(EpochId(1), 1);
        let entry = Entry { kind: Kind::File(Content::of_chunk(bytes)), version, author, ..Entry::nothing(path) };
        let (kind, inode) = (crate::core::disk::DiskKind::File, 1);
        let disk = DiskState { kind, size: 3, mtime_ns: 0, ctime_ns: 0, inode, mode: 0o644 };
        Record { entry, seq: 1, mark: Mark::Here, disk: Some(disk), changed_ms: 0, brought_by: None, placed_ms: None }
    }

    #[test]
    fn a_suspect_file_is_not_kept_as_a_copy_with_the_content_that_it_has_lost() {
        let suspect = Record { mark: Mark::Suspect, ..record(b"good", DeviceId([1; 32])) };
        assert_eq!(copy_for(&suspect, Decision::Resolve { copy: true }), None);
    }

    /// A file that is suddenly an old version after the machine went down. `ctime_ns` is that of the latest look at it.
    fn suspect(ctime_ns: i64) -> Fixture {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        fixture.feed(Input::ScanStarted { suspicious: true });
        look_at_it(&mut fixture, ctime_ns);
        fixture.feed(Input::ScanFinished { complete: true });
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().mark, Mark::Suspect);
        fixture
    }

    fn look_at_it(fixture: &mut Fixture, at_ns: i64) {
        let mut look = seen(0, 0);
        let Seen::File { disk, .. } = &mut look.seen else { unreachable!() };
        disk.ctime_ns = at_ns;
        fixture.feed(Input::Observed(vec![look]));
    }

    fn hear(fixture: &mut Fixture, entries: Vec<Entry>) {
        let entries: Vec<Announced> =
            (1..).zip(entries).map(|(seq, entry)| Announced { entry, seq, held: true }).collect();
        let upto = entries.len() as u64;
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto, more: false }));
    }

    #[test]
    fn a_suspect_file_that_was_deleted_elsewhere_goes_once_it_was_left_alone_for_a_moment() {
        let mut fixture = suspect(0);
        fixture.hear_deleted(0, 1);
        assert_eq!(fixture.orders, []);
        look_at_it(&mut fixture, 7);
        let (_, action) = fixture.orders.pop().unwrap();
        let Action::Remove { expect, .. } = action else { panic!("{action:?}") };
        // What it is compared with is not what its entry says.
        assert_eq!((expect.content, expect.disk.ctime_ns), (None, 7));
    }

    #[test]
    fn a_suspect_file_is_not_taken_for_what_it_was_where_that_gets_another_mode_or_name_elsewhere() {
        let mut fixture = suspect(7);
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let mut newer = Entry { version: ours.version.clone().with(PEERS_EPOCH, 1), ..ours };
        newer.meta.stamp = Stamp { count: 9, epoch: PEERS_EPOCH };
        newer.meta.mode = Some((DiskKind::File, 0o600));
        hear(&mut fixture, vec![newer.clone()]);
        let record = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((record.mark, &record.entry, fixture.orders.len()), (Mark::Suspect, &newer, 0));
        let gone = decide::deleted(&newer, PEERS_EPOCH, 2);
        let version = VersionVector::new().with(PEERS_EPOCH, 3);
        hear(&mut fixture, vec![gone, Entry { path: path(1), version, ..newer }]);
        assert_eq!(fixture.fetches.pop().map(|order| order.path), Some(path(1)));
        assert!(
            !fixture.orders.iter().any(|(_, action)| matches!(action, Action::Move { .. })),
            "{:?}",
            fixture.orders
        );
    }

    #[test]
    fn copies_of_found_versions_of_one_second_do_not_take_each_others_names() {
        assert_ne!(copy_of(b"one", DeviceId::NONE), copy_of(b"other", DeviceId::NONE));
        assert_eq!(copy_of(b"one", DeviceId::NONE), copy_of(b"one", DeviceId::NONE));
    }

    #[test]
    fn an_author_is_enough_in_a_copys_name_while_it_is_free() {
        assert_eq!(copy_of(b"one", DeviceId([1; 32])), copy_of(b"other", DeviceId([1; 32])));
    }
}
