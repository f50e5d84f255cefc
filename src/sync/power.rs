//! What a power cut has taken: new files that were not on the disk yet, though other devices may have them by now.
//!
//! A system writes to the disk within half a minute what nobody waits for. What a user made shortly before the power
//! failed may be missing afterwards, and nobody has deleted it: it is wanted back from whoever has it. What was deleted
//! before has a tombstone and stays deleted. Only where the deletion of so new a file could not be seen any more is it
//! taken for the power's doing, and the file comes back: that nothing is lost outranks that.

use crate::core::direction::Direction;
use crate::core::disk::DiskState;
use crate::core::entry::{Entry, Kind};
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Record};

use super::observe::{TWINS_MAX, VANISHED_MAX};
use super::{Folder, NOTE_LAST_SCAN_MS, Now};

/// What was noted so long before the last trace of the run that the power ended may not have been on the disk, in ms:
/// systems write back within half a minute, unless they are busy or told to spare the battery.
const WRITE_BACK_MS: i64 = 60_000;
/// When the last trace of the run that the power ended was made, and when the first scan after it began, ms since 1970,
/// until one has seen all: what is looked at meanwhile leaves traces too.
const NOTE_POWER_CUT_MS: &str = "power_cut_ms";

/// What may have gone with the power: what was noted from a time on, but for what was looked at since.
pub(super) struct Unwritten {
    from_ms: i64,
    begun_ms: i64,
}

impl Folder {
    /// A scan begins. After a power cut, what was noted last before it may have gone with it.
    pub(super) fn look_for_power_cut(&mut self, suspicious: bool, now: Now) -> Result<(), IndexError> {
        self.unwritten = None;
        if !suspicious {
            return Ok(());
        }
        let note = self.index.note(NOTE_POWER_CUT_MS)?;
        let noted = note.and_then(|note| {
            let (last, begun) = note.split_once(' ')?;
            Some((last.parse().ok()?, begun.parse().ok()?))
        });
        let (last, begun_ms): (i64, i64) = match noted {
            Some(noted) => noted,
            None => {
                let scanned_ms = self.index.note(NOTE_LAST_SCAN_MS)?.and_then(|text| text.parse().ok());
                let changed_ms = self.index.last_changed_ms(self.suspicious_below)?;
                let Some(last) = changed_ms.max(scanned_ms) else { return Ok(()) };
                self.index.set_note(NOTE_POWER_CUT_MS, Some(&format!("{last} {}", now.wall_ms())))?;
                (last, now.wall_ms())
            }
        };
        self.unwritten = Some(Unwritten { from_ms: last.saturating_sub(WRITE_BACK_MS), begun_ms });
        Ok(())
    }

    /// A scan has seen all that the power cut has left.
    pub(super) fn forget_power_cut(&mut self) -> Result<(), IndexError> {
        self.unwritten = None;
        self.index.set_note(NOTE_POWER_CUT_MS, None)
    }

    /// True where what is missing may never have come to the disk. What came from peers was made durable, but the directory
    /// that a user had made for it a moment before may not have been.
    pub(super) fn may_be_unwritten(&self, ours: &Record, now: Now) -> bool {
        let is_recent = self.unwritten.as_ref().is_some_and(|unwritten| {
            // What was looked at since was on the disk. A time still to come is of a clock that was ahead.
            let was_seen = (unwritten.begun_ms..=now.wall_ms()).contains(&ours.changed_ms);
            ours.changed_ms >= unwritten.from_ms && !was_seen
        });
        let takes_back = self.settings.direction == Direction::Both;
        is_recent
            && ours.mark == Mark::Here
            && takes_back
            && ours.seq < self.suspicious_below
            && !self.has_turned_up(ours)
    }

    /// True where the very file that was last seen at a path is known under another one: a rename had just begun to be
    /// noticed, or has been undone with the power.
    pub(super) fn is_rename_undone(&self, ours: &Record) -> Result<bool, IndexError> {
        let Some((disk, content)) = ours.disk.zip(ours.entry.kind.content()) else { return Ok(false) };
        let twins = self.index.holders(content.id, TWINS_MAX)?;
        let is_it = |r: &Record| r.entry.path != ours.entry.path && r.disk.is_some_and(|d| d.inode == disk.inode);
        Ok(twins.iter().any(is_it))
    }

    /// True where another file than was known stands at a path, and that one has its own name again: no damage to it.
    pub(super) fn is_swap_undone(&self, ours: &Record, disk: &DiskState) -> Result<bool, IndexError> {
        Ok(ours.disk.is_some_and(|known| known.inode != disk.inode) && self.is_rename_undone(ours)?)
    }

    /// Wants back what has gone with the power. Peers hear that it is not here: two devices that have both lost theirs would
    /// wait for each other otherwise.
    pub(super) fn want_unwritten(&mut self, gone: Record, now: Now) -> Result<(), IndexError> {
        let nothing = Entry::nothing(gone.entry.path.clone());
        self.want_back(gone)?;
        self.index.put(&nothing, None, Mark::Here, now.wall_ms())?;
        self.touch(now);
        Ok(())
    }

    fn has_turned_up(&self, ours: &Record) -> bool {
        let known = ours.disk.zip(ours.entry.kind.content_id());
        known.is_some_and(|(disk, content)| self.turned_up.contains(&(disk.inode, content)))
    }

    /// Something is there under a name where it was not before. Where it had just been missing under another, the power
    /// cut has undone a rename, and only its new name has gone.
    pub(super) fn note_turned_up(&mut self, disk: DiskState, kind: &Kind, now: Now) -> Result<(), IndexError> {
        let Some(content) = kind.content_id().filter(|_| self.unwritten.is_some() && !kind.is_directory()) else {
            return Ok(());
        };
        if self.turned_up.len() < VANISHED_MAX {
            self.turned_up.insert((disk.inode, content));
        }
        let Some(from) = self.vanished.get(&disk.inode).cloned() else { return Ok(()) };
        let rivals = self.index.rivals(&from)?;
        let Some(wanted) = rivals.into_iter().find(|r| r.peer == self.settings.device && r.entry.kind == *kind) else {
            return Ok(());
        };
        self.vanished.remove(&disk.inode);
        self.index.drop_rival(self.settings.device, &from)?;
        let gone = Record { entry: wanted.entry, seq: wanted.seq, ..Record::nothing(&from) };
        self.announce_deletion(&gone, true, now)
    }

    /// A directory that may have gone with the power. It is wanted back if something in it is, as is known once the scan
    /// is over. True where nothing is to be told yet, or at all.
    pub(super) fn keeps_unwritten_directory(
        &mut self,
        path: &RelPath,
        ours: &Record,
        now: Now,
    ) -> Result<bool, IndexError> {
        if !self.unwritten_directories.contains(path) {
            return Ok(false);
        }
        if self.after_crash {
            return Ok(true);
        }
        self.unwritten_directories.remove(path);
        let is_wanted = self.index.has_live_rival_below(path)?;
        if is_wanted {
            self.want_unwritten(ours.clone(), now)?;
        }
        Ok(is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, disk, path, seen};
    use super::super::{FetchError, Input, Observation, Seen, Staged};
    use super::*;
    use crate::core::action::{Action, Outcome, WorkId};
    use crate::core::content::Content;
    use crate::core::disk::DiskKind;
    use crate::core::id::RunId;
    use crate::core::message::{Hello, Message};

    fn named(name: &str) -> RelPath {
        RelPath::parse(name.as_bytes()).unwrap()
    }

    fn absent(path: &RelPath) -> Observation {
        Observation { path: path.clone(), seen: Seen::Absent }
    }

    fn directory(path: &RelPath, inode: u64) -> Observation {
        let state = DiskState { kind: DiskKind::Directory, inode, ..disk(inode) };
        Observation { path: path.clone(), seen: Seen::Directory(state) }
    }

    /// The folder after the power has failed, so long after its last change.
    fn after_power_cut(mut fixture: Fixture, later_ms: u64) -> Fixture {
        fixture.wait(later_ms);
        let settings = fixture.folder.settings.clone();
        let mut begun = Fixture::new(0);
        let index = std::mem::replace(&mut fixture.folder, begun.folder).into_index();
        begun.folder = Folder::new(index, settings, Default::default(), RunId(9)).unwrap();
        begun.now = fixture.now;
        begun.feed(Input::ScanStarted { suspicious: true });
        begun
    }

    fn finish(fixture: &mut Fixture) {
        fixture.feed(Input::ScanFinished { complete: true });
        fixture.feed(Input::Connected(PEER));
        fixture.wait(1000);
        fixture.wait(1000);
    }

    fn hello() -> Hello {
        Hello { epoch: PEERS_EPOCH, run: RunId(2), last_seq: 0, found: Vec::new(), cursor: None }
    }

    fn is_deleted(fixture: &Fixture, path: &RelPath) -> bool {
        let record = fixture.folder.index().record(path).unwrap();
        record.is_some_and(|record| !record.entry.is_live() && !record.entry.version.pairs().is_empty())
    }

    #[test]
    fn a_new_file_that_went_with_the_power_is_wanted_back_and_not_deleted() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 1)]));
        let before = fixture.folder.ours(&path(1)).unwrap().entry;
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        fixture.wait(60_000);
        assert!(!is_deleted(&fixture, &path(1)));
        finish(&mut fixture);
        assert!(!is_deleted(&fixture, &path(1)));
        // Others hear that it is not here.
        let is_told = |message: &Message| match message {
            Message::Index(batch) => batch.entries.iter().any(|told| told.entry == Entry::nothing(path(1))),
            _ => false,
        };
        fixture.hear(Message::Hello(hello()));
        assert!(fixture.sent.iter().any(is_told));
        let order = fixture.fetches.pop().unwrap();
        assert_eq!(order.path, path(1));
        fixture.feed(Input::Fetched(vec![(order.work, Ok(Staged { lists: Vec::new(), copy: 0 }))]));
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::PlaceFile { expect: None, .. }), "{action:?}");
        let done = Outcome::Done { disk: Some(disk(8)), displaced: None, conflict: None, rescued: None };
        fixture.feed(Input::Applied(vec![(work, done)]));
        assert_eq!(fixture.folder.ours(&path(1)).unwrap().entry, before);
    }

    #[test]
    fn a_file_from_a_peer_may_have_gone_with_the_directory_that_it_was_put_into() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 1)]));
        let placed = fixture.folder.ours(&path(1)).unwrap();
        fixture.folder.index.remove(&path(1)).unwrap();
        let wall_ms = fixture.now.wall_ms();
        fixture.folder.index.put_brought(&placed.entry, Some(PEER), placed.disk, Mark::Here, wall_ms).unwrap();
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        finish(&mut fixture);
        assert!(!is_deleted(&fixture, &path(1)));
    }

    #[test]
    fn a_new_file_that_went_with_the_power_and_that_nobody_has_is_given_up() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 1)]));
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        finish(&mut fixture);
        for _ in 0..10 {
            let works: Vec<WorkId> = fixture.folder.works.keys().copied().collect();
            fixture.feed(Input::Fetched(works.into_iter().map(|id| (id, Err(FetchError::NoSource))).collect()));
            fixture.wait(60_000);
        }
        assert!(fixture.folder.index().rivals(&path(1)).unwrap().len() <= 1);
        assert!(!fixture.folder.ours(&path(1)).unwrap().entry.is_live());
    }

    #[test]
    fn an_old_file_and_one_that_goes_after_the_scan_are_deleted() {
        let mut fixture = Fixture::new(1);
        fixture.wait(10 * 60_000);
        fixture.feed(Input::Observed(vec![seen(1, 1), seen(2, 2)]));
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![absent(&path(0))]));
        finish(&mut fixture);
        fixture.feed(Input::Observed(vec![absent(&path(2))]));
        fixture.wait(1000);
        fixture.wait(1000);
        assert!([0, 2].iter().all(|n| is_deleted(&fixture, &path(*n))));
    }

    fn emptied(n: u64, inode: u64) -> Observation {
        let (disk, content) = (DiskState { size: 0, ..disk(inode) }, Content::of_chunk(b""));
        Observation { path: path(n), seen: Seen::File { disk, content, lists: Vec::new() } }
    }

    #[test]
    fn two_names_of_one_damaged_file_are_both_in_doubt() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 7), seen(2, 7)]));
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![emptied(1, 7), emptied(2, 7)]));
        finish(&mut fixture);
        assert!((1..3).all(|n| fixture.folder.ours(&path(n)).unwrap().mark == Mark::Suspect));
    }

    #[test]
    fn a_scan_that_was_cut_short_does_not_change_what_may_have_gone() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 1), seen(2, 2)]));
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.wait(10 * 60_000);
        fixture.feed(Input::Observed(vec![emptied(2, 2)]));
        fixture.feed(Input::ScanFinished { complete: false });
        fixture.feed(Input::ScanStarted { suspicious: true });
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        finish(&mut fixture);
        assert!(!is_deleted(&fixture, &path(1)));
        // The next power cut is another one.
        assert_eq!(fixture.folder.index.note(NOTE_POWER_CUT_MS).unwrap(), None);
    }

    #[test]
    fn what_was_seen_since_the_power_came_back_is_deleted_by_whoever_deletes_it() {
        let mut fixture = Fixture::new(1);
        fixture.wait(10 * 60_000);
        fixture.feed(Input::Observed(vec![seen(1, 1)]));
        let mut fixture = after_power_cut(fixture, 1000);
        let Observation { seen: Seen::File { disk, content, lists }, .. } = seen(0, 0) else { unreachable!() };
        let touched = Seen::File { disk: DiskState { ctime_ns: 6, ..disk }, content, lists };
        fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: touched }]));
        fixture.feed(Input::Observed(vec![absent(&path(0))]));
        finish(&mut fixture);
        assert!(is_deleted(&fixture, &path(0)));
    }

    #[test]
    fn what_was_deleted_before_the_power_failed_stays_deleted() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(1, 1)]));
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        fixture.wait(1000);
        assert!(is_deleted(&fixture, &path(1)));
        let mut fixture = after_power_cut(fixture, 0);
        fixture.feed(Input::Observed(vec![absent(&path(1))]));
        finish(&mut fixture);
        assert!(is_deleted(&fixture, &path(1)) && fixture.fetches.is_empty());
    }

    #[test]
    fn a_rename_that_the_power_cut_has_undone_brings_nothing_back_under_the_new_name() {
        let link = |n| Observation {
            path: path(n),
            seen: Seen::Symlink {
                disk: DiskState { kind: DiskKind::Symlink, ..disk(7) },
                target: b"there".as_slice().into(),
            },
        };
        let file = |n| Observation { path: path(n), ..seen(5, 5) };
        let (links, files): (&dyn Fn(u64) -> Observation, &dyn Fn(u64) -> Observation) = (&link, &file);
        for (make, is_absence_first) in [(links, true), (links, false), (files, true), (files, false)] {
            let mut fixture = Fixture::new(0);
            fixture.feed(Input::Observed(vec![make(0)]));
            fixture.feed(Input::Observed(vec![absent(&path(0)), make(1)]));
            fixture.wait(60_000);
            assert!(is_deleted(&fixture, &path(0)));
            let mut fixture = after_power_cut(fixture, 0);
            let mut looks = vec![make(0), absent(&path(1))];
            if is_absence_first {
                looks.reverse();
            }
            looks.into_iter().for_each(|look| fixture.feed(Input::Observed(vec![look])));
            finish(&mut fixture);
            assert!(fixture.folder.ours(&path(0)).unwrap().is_held());
            assert!(is_deleted(&fixture, &path(1)) && fixture.fetches.is_empty() && fixture.orders.is_empty());
        }
    }

    #[test]
    fn a_swap_of_which_half_was_noticed_before_the_power_cut_undid_it_leaves_no_suspect() {
        let mut fixture = Fixture::new(2);
        let named = |at: u64, n| Observation { path: path(at), ..seen(n, n) };
        // The first is the other one now; the other half is not seen any more.
        fixture.feed(Input::Observed(vec![named(0, 1)]));
        let mut fixture = after_power_cut(fixture, 1000);
        fixture.feed(Input::Observed(vec![named(0, 0)]));
        finish(&mut fixture);
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((ours.mark, ours.entry.version.get(fixture.folder.epoch().unwrap())), (Mark::Here, ours.seq));
    }

    #[test]
    fn a_new_directory_comes_back_only_with_something_in_it() {
        for is_empty in [true, false] {
            let mut fixture = Fixture::new(0);
            let (above, below) = (named("d"), named("d/a"));
            fixture.feed(Input::Observed(vec![directory(&above, 3)]));
            if !is_empty {
                fixture.feed(Input::Observed(vec![Observation { path: below.clone(), ..seen(1, 1) }]));
            }
            let mut fixture = after_power_cut(fixture, 1000);
            fixture.feed(Input::Observed(vec![absent(&above)]));
            fixture.wait(60_000);
            if !is_empty {
                fixture.feed(Input::Observed(vec![absent(&below)]));
            }
            finish(&mut fixture);
            assert_eq!(is_deleted(&fixture, &above), is_empty);
            let makes = |(_, action): &(WorkId, Action)| matches!(action, Action::CreateDirectory { .. });
            assert_eq!((fixture.orders.iter().any(makes), fixture.fetches.len()), (!is_empty, usize::from(!is_empty)));
        }
    }
}
