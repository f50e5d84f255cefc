//! What a crash has left behind: old bytes that are no edit, though a scan finds them.

use crate::core::action::WorkId;
use crate::core::decide::{self, Decision};
use crate::core::direction::Direction;
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, Kind};
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::core::version::VersionVector;
use crate::index::{IndexError, Mark, Record, Rival};

use super::observe::VANISHED_MAX;
use super::plan::until_looked_at;
use super::want::{Goal, Work};
use super::{Folder, NOTE_BEFORE_BOOT, Now};

/// Paths remembered at which something has failed, perhaps halfway; what is found at more of them counts as edits.
const HALF_DONE_MAX: usize = 10_000;

/// What was to be put at a path where that failed, perhaps after it was there.
pub(super) struct HalfDone {
    pub rival: Rival,
    /// How many scans had begun by then: a complete one that began later has looked there.
    scans: u64,
}

impl Folder {
    /// Bytes that a newer entry has replaced already are no edit: they were put here by a swap whose commit was lost,
    /// or were ignored so far. They get no version of their own, and so are replaced by the newer ones. Where a user
    /// had the file before his eyes, he went back to an old version on purpose.
    pub(super) fn note_outdated(
        &mut self,
        path: &RelPath,
        ours: &Record,
        kind: &Kind,
        disk: DiskState,
        now: Now,
    ) -> Result<bool, IndexError> {
        // All directories are alike: only a crash tells one that was left behind from one that was made anew.
        let is_possible = self.after_crash || (!kind.is_directory() && !ours.entry.is_live());
        let Some(id) = kind.content_id().filter(|_| is_possible) else { return Ok(false) };
        let (mut is_outdated, mut is_undone) = (false, false);
        for rival in self.index.rivals(path)?.iter().filter(|rival| rival.entry.superseded.contains(&id)) {
            match decide::decide(&ours.entry, &rival.entry, &self.found) {
                Decision::Take => is_outdated = true,
                // What was here before ours can only be back because the power cut has undone ours: that has no copy yet, and
                // may have gone from the name that it had before as well.
                Decision::Resolve { .. } if ours.entry.superseded.contains(&id) => {
                    is_undone |= self.after_crash && ours.entry.is_live() && ours.seq < self.suspicious_below;
                }
                // The winner of a conflict was put here just before the crash, and has a newer one elsewhere by now. What
                // lost against it is in its copy.
                Decision::Resolve { .. } => is_outdated |= self.after_crash && ours.entry.is_live(),
                _ => {}
            }
        }
        let is_outdated = is_outdated && (ours.entry.is_live() || !self.has_changed_in_this_run(ours)?);
        if is_outdated || is_undone {
            self.put_outdated(ours, kind, disk, now)?;
        }
        if is_undone && !is_outdated {
            let announced = Announced { entry: ours.entry.clone(), seq: ours.seq, held: false };
            self.index.put_rival(self.settings.device, &announced)?;
        }
        Ok(is_outdated || is_undone)
    }

    fn put_outdated(&mut self, ours: &Record, kind: &Kind, disk: DiskState, now: Now) -> Result<(), IndexError> {
        let mtime_ns = if kind.is_directory() { 0 } else { disk.mtime_ns };
        let entry = Entry {
            kind: kind.clone(),
            mtime_ns,
            weight_ns: mtime_ns,
            version: VersionVector::new(),
            ..ours.entry.clone()
        };
        // Should a directory stay for what is in it, its mode is its user's, and news at the next look.
        let known = if kind.is_directory() { until_looked_at(disk, &entry) } else { disk };
        self.index.put_brought(&entry, None, Some(known), Mark::Here, now.wall_ms())?;
        self.note_returned(disk.inode, kind)
    }

    /// What was put in its place half done, and has been deleted elsewhere since, is no work of the user's either: it
    /// gives way to that deletion.
    pub(super) fn note_half_done(
        &mut self,
        path: &RelPath,
        ours: &Record,
        kind: &Kind,
        disk: DiskState,
        now: Now,
    ) -> Result<bool, IndexError> {
        let is_it = self.half_done.get(path).is_some_and(|HalfDone { rival, .. }| {
            let shown = kind.is_directory() || rival.entry.disk_mtime_ns() == disk.mtime_ns;
            rival.entry.kind == *kind && shown && rival.entry.version.included_in(&ours.entry.version)
        });
        if !is_it || ours.entry.is_live() {
            return Ok(false);
        }
        let announced = Announced { entry: ours.entry.clone(), seq: ours.seq, held: false };
        self.put_outdated(ours, kind, disk, now)?;
        self.index.put_rival(self.settings.device, &announced)?;
        self.index.set_todo(path, true)?;
        self.pass.want();
        Ok(true)
    }

    /// A swap may have been made though its end could not be seen, or made durable. The peer that spoke of it may have
    /// something newer by now: what is found there is no edit all the same.
    pub(super) fn remember_half_done(&mut self, id: WorkId) {
        let Some(Work { path, goal: Goal::Adopt { rival, .. }, .. }) = self.works.get(&id) else { return };
        if rival.entry.is_live() && self.half_done.len() < HALF_DONE_MAX {
            self.half_done.insert(path.clone(), HalfDone { rival: rival.clone(), scans: self.scans });
        }
    }

    /// A tombstone was adopted where nothing is known to lie. Where something had failed there before, somebody has to
    /// look: what a user makes there later is his own.
    pub(super) fn look_for_half_done(&mut self, path: &RelPath) {
        if self.half_done.contains_key(path) {
            self.rescans.insert(path.clone());
        }
    }

    /// A complete scan has found nothing half done where it is still remembered from before. What was in work meanwhile,
    /// or surprised, is looked at once more.
    pub(super) fn forget_half_done(&mut self) {
        let (scans, busy, awaited) = (self.scans, &self.busy, &self.awaited);
        let is_open = |path: &RelPath| busy.contains_key(path) || awaited.contains(path);
        self.half_done.retain(|path, half| half.scans >= scans || is_open(path));
    }

    /// A file is back under a name where it counts for old. Where the last look had found it under another name, a power
    /// cut has undone a rename, and nobody has deleted it there: it is brought back, or else no name would be left to it.
    pub(super) fn note_returned(&mut self, inode: u64, kind: &Kind) -> Result<(), IndexError> {
        let Some(content) = kind.content().filter(|_| self.settings.direction != Direction::Send) else {
            return Ok(());
        };
        if self.returned.len() < VANISHED_MAX {
            self.returned.insert((inode, content.id));
        }
        let Some(from) = self.vanished.get(&inode).cloned() else { return Ok(()) };
        let ours = self.ours(&from)?;
        if ours.mark == Mark::Missing && ours.entry.kind == *kind {
            self.vanished.remove(&inode);
            self.want_back(ours)?;
        }
        Ok(())
    }

    /// True for what has vanished from a path, see [`Self::note_returned`].
    pub(super) fn has_returned_elsewhere(&self, ours: &Record) -> bool {
        let known = ours.disk.zip(ours.entry.kind.content()).filter(|_| ours.mark == Mark::Here);
        known.is_some_and(|(disk, content)| self.returned.contains(&(disk.inode, content.id)))
    }

    /// The first count given out since an unclean boot.
    pub(super) fn first_of_boot(&self) -> Result<u64, IndexError> {
        let note = self.index.note(NOTE_BEFORE_BOOT)?;
        Ok(note.and_then(|note| note.split(' ').next()?.parse().ok()).unwrap_or(u64::MAX))
    }

    /// True where something happened at a path since the start: what was seen to go, or was taken away for a peer, and is
    /// here again was not left by a crash.
    fn has_changed_in_this_run(&self, ours: &Record) -> Result<bool, IndexError> {
        let begun = self.index.runs(self.epoch()?)?.last().map_or(1, |(_, first)| (*first).max(1));
        Ok(ours.seq >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, disk, path, seen};
    use super::super::{Input, Observation, Seen, Staged};
    use super::*;
    use crate::core::action::{Action, Displace, Outcome};
    use crate::core::content::Content;
    use crate::core::disk::DiskKind;
    use crate::core::id::RunId;
    use crate::core::message::{Batch, Message};
    use crate::core::problem::{Problem, ProblemKind};

    /// File 0 was renamed to file 5, and the peer has put something else under the old name, which is not here yet.
    fn renamed() -> Fixture {
        let mut fixture = Fixture::new(2);
        let absent = Observation { path: path(0), seen: Seen::Absent };
        fixture.feed(Input::Observed(vec![absent, seen(5, 0)]));
        let gone = fixture.folder.ours(&path(0)).unwrap().entry;
        assert!(!gone.is_live());
        let version = gone.version.clone().with(PEERS_EPOCH, 3);
        let entry = Entry { kind: Kind::File(Content::of_chunk(b"other")), version, ..gone };
        let entries = vec![Announced { entry, seq: 3, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 3, more: false }));
        fixture
    }

    fn restarted(mut fixture: Fixture) -> Fixture {
        let settings = fixture.folder.settings.clone();
        let index = std::mem::replace(&mut fixture, Fixture::new(0)).folder.into_index();
        fixture.folder = Folder::new(index, settings, Default::default(), RunId(9)).unwrap();
        fixture
    }

    #[test]
    fn the_winner_of_a_conflict_that_a_crash_has_left_gets_no_version_once_it_has_been_replaced_elsewhere() {
        let mut fixture = Fixture::new(1);
        let base = fixture.folder.ours(&path(0)).unwrap().entry;
        fixture.feed(Input::Observed(vec![seen(0, 3)]));
        let winner = Content::of_chunk(&4u64.to_be_bytes());
        let newer = Entry {
            kind: Kind::File(Content::of_chunk(b"newer")),
            mtime_ns: i64::MAX,
            weight_ns: i64::MAX,
            version: base.version.clone().with(PEERS_EPOCH, 4),
            superseded: vec![winner.id],
            ..base
        };
        let entries = vec![Announced { entry: newer, seq: 4, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 4, more: false }));
        let mut fixture = restarted(fixture);
        fixture.feed(Input::ScanStarted { suspicious: false });
        fixture.feed(Input::Observed(vec![seen(0, 4)]));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        assert_eq!((ours.kind, ours.version), (Kind::File(winner), VersionVector::new()));
    }

    #[test]
    fn what_a_power_cut_has_undone_here_and_loses_against_another_version_is_wanted_for_its_copy() {
        for is_undone in [true, false] {
            let mut fixture = Fixture::new(1);
            let base = fixture.folder.ours(&path(0)).unwrap().entry;
            fixture.feed(Input::Observed(vec![seen(0, 3)]));
            let lost = fixture.folder.ours(&path(0)).unwrap().entry;
            let winner = Entry {
                kind: Kind::File(Content::of_chunk(b"other")),
                mtime_ns: i64::MAX,
                weight_ns: i64::MAX,
                version: base.version.clone().with(PEERS_EPOCH, 4),
                superseded: base.kind.content_id().into_iter().collect(),
                ..base
            };
            hear(&mut fixture, winner, 4);
            let mut fixture = restarted(fixture);
            fixture.feed(Input::ScanStarted { suspicious: is_undone });
            fixture.feed(Input::Observed(vec![seen(0, 0)]));
            fixture.feed(Input::ScanFinished { complete: true });
            let (ours, epoch) = (fixture.folder.ours(&path(0)).unwrap().entry, fixture.folder.epoch().unwrap());
            // Who only kills an agent undoes nothing: then it is its user who went back to it.
            assert_eq!(ours.version.get(epoch) > 0, !is_undone, "{ours:?}");
            if is_undone {
                let order = fixture.fetches.pop().unwrap();
                assert_eq!(Kind::File(order.content), lost.kind);
                fixture.feed(Input::Fetched(vec![(order.work, Ok(Staged { lists: Vec::new(), copy: 0 }))]));
                let (work, action) = fixture.orders.pop().unwrap();
                assert!(matches!(action, Action::PlaceFile { .. }), "{action:?}");
                let done = Outcome::Done { disk: Some(disk(8)), displaced: None, conflict: None, rescued: None };
                fixture.feed(Input::Applied(vec![(work, done)]));
                assert_eq!(fixture.folder.ours(&path(0)).unwrap().entry.version, lost.version);
                let order = fixture.fetches.pop().unwrap();
                fixture.feed(Input::Fetched(vec![(order.work, Ok(Staged { lists: Vec::new(), copy: 0 }))]));
                let (_, action) = fixture.orders.pop().unwrap();
                let Action::PlaceFile { expect: Some(expect), .. } = action else { panic!("{action:?}") };
                assert!(matches!(expect.displace, Displace::ConflictCopy(_)), "{expect:?}");
            }
        }
    }

    fn hear(fixture: &mut Fixture, entry: Entry, seq: u64) {
        let entries = vec![Announced { entry, seq, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: seq, more: false }));
    }

    #[test]
    fn what_failed_after_it_was_in_its_place_is_no_edit_though_the_peer_has_something_newer_by_now() {
        for is_deleted in [false, true] {
            let mut fixture = Fixture::new(1);
            let version = |count| VersionVector::new().with(PEERS_EPOCH, count);
            let target = Kind::Symlink(b"there".as_slice().into());
            let link = Entry { kind: target.clone(), mtime_ns: 5, version: version(1), ..Entry::nothing(path(7)) };
            hear(&mut fixture, link.clone(), 1);
            let (work, _) = fixture.orders.pop().unwrap();
            let failed = Outcome::Failed(Problem::new(ProblemKind::Io, "could not make it durable"));
            fixture.feed(Input::Applied(vec![(work, failed)]));
            let newer = match is_deleted {
                true => decide::deleted(&link, PEERS_EPOCH, 2),
                false => Entry { kind: Kind::Directory, mtime_ns: 0, version: version(2), ..link },
            };
            hear(&mut fixture, newer, 2);
            fixture.orders.clear();
            let seen = Seen::Symlink {
                disk: DiskState { kind: DiskKind::Symlink, ..disk(9) },
                target: b"there".as_slice().into(),
            };
            let works: Vec<_> = fixture.folder.works.keys().copied().collect();
            fixture.feed(Input::Applied(works.into_iter().map(|work| (work, Outcome::Changed)).collect()));
            fixture.feed(Input::Observed(vec![Observation { path: path(7), seen }]));
            let ours = fixture.folder.ours(&path(7)).unwrap();
            let own = fixture.folder.epoch().unwrap();
            assert_eq!((ours.entry.kind, ours.entry.version.get(own)), (target, 0));
            // It gives way at once.
            assert!(!fixture.orders.is_empty());
        }
    }

    #[test]
    fn the_mode_of_a_directory_that_a_crash_has_left_and_that_stays_is_noticed() {
        let mut fixture = Fixture::new(0);
        let version = |count| VersionVector::new().with(PEERS_EPOCH, count);
        let kind = Kind::File(Content::of_chunk(b"in its place"));
        let superseded = vec![Kind::Directory.content_id().unwrap()];
        hear(&mut fixture, Entry { kind, version: version(2), superseded, mtime_ns: 5, ..Entry::nothing(path(0)) }, 2);
        let mut fixture = restarted(fixture);
        fixture.feed(Input::ScanStarted { suspicious: true });
        let state = DiskState { kind: DiskKind::Directory, mode: 0o750, ..disk(9) };
        fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: Seen::Directory(state) }]));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert!(ours.entry.kind.is_directory() && ours.entry.version.pairs().is_empty(), "{ours:?}");
        assert!(ours.disk.is_some_and(|known| !state.is_unchanged_since(&known)));
    }

    #[test]
    fn a_rename_that_a_power_cut_has_undone_deletes_nothing_under_the_new_name() {
        let (back, gone) = (seen(0, 0), Observation { path: path(5), seen: Seen::Absent });
        for order in [vec![back.clone(), gone.clone()], vec![gone, back]] {
            let mut fixture = restarted(renamed());
            fixture.feed(Input::ScanStarted { suspicious: true });
            order.into_iter().for_each(|observation| fixture.feed(Input::Observed(vec![observation])));
            fixture.feed(Input::Observed(vec![seen(1, 1)]));
            fixture.feed(Input::ScanFinished { complete: true });
            fixture.feed(Input::Connected(PEER));
            fixture.wait(60_000);
            let (old, new) = (fixture.folder.ours(&path(0)).unwrap(), fixture.folder.ours(&path(5)).unwrap());
            // Under the old name it gives way to what the peer has put there.
            assert!(old.entry.version.pairs().is_empty() && old.entry.is_live(), "{old:?}");
            assert!(new.entry.version.pairs().is_empty() && !new.entry.is_live(), "{new:?}");
            assert_eq!(fixture.folder.index().rivals(&path(5)).unwrap().len(), 1);
        }
    }

    /// The peer's directory cannot be made.
    fn fail(fixture: &mut Fixture) -> Entry {
        let version = VersionVector::new().with(PEERS_EPOCH, 1);
        let directory = Entry { kind: Kind::Directory, version, ..Entry::nothing(path(7)) };
        hear(fixture, directory.clone(), 1);
        let (work, _) = fixture.orders.pop().unwrap();
        let failed = Outcome::Failed(Problem::new(ProblemKind::NoSpace, "the disk is full"));
        fixture.feed(Input::Applied(vec![(work, failed)]));
        directory
    }

    /// The same, and it is deleted before another try.
    fn failed_and_deleted() -> Fixture {
        let mut fixture = Fixture::new(1);
        let directory = fail(&mut fixture);
        fixture.rescans.clear();
        hear(&mut fixture, decide::deleted(&directory, PEERS_EPOCH, 2), 2);
        fixture.orders.clear();
        fixture
    }

    fn make_directory(fixture: &mut Fixture) -> Entry {
        let seen = Seen::Directory(DiskState { kind: DiskKind::Directory, ..disk(9) });
        fixture.feed(Input::Observed(vec![Observation { path: path(7), seen }]));
        assert!(fixture.orders.is_empty(), "{:?}", fixture.orders);
        fixture.folder.ours(&path(7)).unwrap().entry
    }

    #[test]
    fn what_a_user_makes_where_a_directory_could_not_be_made_is_his_once_somebody_has_looked_there() {
        let mut fixture = failed_and_deleted();
        assert_eq!(fixture.rescans, [path(7)]);
        fixture.feed(Input::Observed(vec![Observation { path: path(7), seen: Seen::Absent }]));
        let (entry, own) = (make_directory(&mut fixture), fixture.folder.epoch().unwrap());
        assert!(entry.is_live() && entry.version.get(own) > 0, "{entry:?}");
    }

    #[test]
    fn what_a_user_makes_where_a_directory_could_not_be_made_is_his_once_a_scan_has_found_nothing_there() {
        let mut fixture = failed_and_deleted();
        fixture.feed(Input::ScanStarted { suspicious: false });
        fixture.feed(Input::ScanFinished { complete: true });
        let (entry, own) = (make_directory(&mut fixture), fixture.folder.epoch().unwrap());
        assert!(entry.is_live() && entry.version.get(own) > 0, "{entry:?}");
    }

    #[test]
    fn what_failed_while_a_scan_ran_is_no_edit_when_the_scan_has_ended() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::ScanStarted { suspicious: false });
        fail(&mut fixture);
        for count in [1, 0] {
            fixture.feed(Input::ScanFinished { complete: true });
            assert_eq!(fixture.folder.half_done.len(), count);
            fixture.feed(Input::ScanStarted { suspicious: false });
        }
    }
}
