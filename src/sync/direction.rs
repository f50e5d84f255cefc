//! Folders that only send or only receive.
//!
//! In a folder that only sends, what others say stays a rival that nothing is done about, until the user has our state
//! announced over it. In one that only receives, a change made here is marked as the device's own: our entry stays the
//! one that it was made on, the disk is left alone, and nobody is told. Taking it back puts what is on the disk into
//! history, and only once what takes its place is here.

use crate::core::decide::{self, Decision};
use crate::core::direction::Direction;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Stamp};
use crate::core::guard;
use crate::core::message::{Announced, Reason};
use crate::core::path::RelPath;
use crate::core::version::{COUNT_MAX, VersionVector};
use crate::index::{IndexError, Mark, Record, Rival};

use super::{Folder, Now, Output};

/// Rows handled per query.
const PAGE: usize = 2000;

impl Folder {
    /// True where a rival stays one, whatever was decided, because of the direction that changes go in.
    pub(super) fn is_kept_out(&self, ours: &Record, rival: &Entry) -> Result<bool, IndexError> {
        if ours.mark == Mark::Own || !self.settings.direction.admits(&ours.entry, rival) {
            return Ok(true);
        }
        // A directory stays for what was changed in it here.
        let goes = ours.entry.kind.is_directory() && !rival.kind.is_directory();
        Ok(goes && self.is_any_below(Mark::Own, &ours.entry.path)?)
    }

    /// Why a rival has not been applied here.
    pub(super) fn reason_of(&self, rival: &Rival) -> Result<Reason, IndexError> {
        let path = &rival.entry.path;
        if !rival.entry.is_live() && self.index.note(super::NOTE_HELD)?.is_some() {
            return Ok(Reason::Held);
        }
        if let Some(row) = self.index.problem(path)? {
            return Ok(if row.problem.kind.is_declined() { Reason::Declined } else { Reason::Problem });
        }
        let ours = self.ours(path)?;
        if ours.mark != Mark::Ignored && self.is_kept_out(&ours, &rival.entry)? {
            return Ok(Reason::Declined);
        }
        Ok(match decide::decide(&ours.entry, &rival.entry, &self.found) {
            Decision::Wait => Reason::Conflict,
            _ if ours.mark == Mark::Ignored => Reason::Ignored,
            _ => Reason::Pending,
        })
    }

    /// Changes made here are announced; where not, they are marked as this device's own.
    pub(super) fn announces_changes(&self) -> bool {
        self.settings.direction.announces_changes()
    }

    /// A change made here that stays here: our entry stays what it was made on.
    pub(super) fn keep_own(&mut self, ours: &Record, disk: Option<DiskState>, now: Now) -> Result<(), IndexError> {
        let path = &ours.entry.path;
        let mut base = ours.entry.clone();
        if ours.mark == Mark::Reverted {
            // What was to be brought back is what the new change was made on.
            let own = self.settings.device;
            if let Some(rival) = self.index.rivals(path)?.into_iter().find(|rival| rival.peer == own) {
                base = rival.entry;
                self.index.drop_rival(own, path)?;
            }
        }
        if disk.is_none() && !base.is_live() {
            // Made here, and gone again: nothing is left of it.
            self.index.put(&base, None, Mark::Here, now.wall_ms())?;
            return Ok(());
        }
        self.index.put(&base, disk, Mark::Own, now.wall_ms())?;
        self.touch(now);
        self.note_ignore_file(path);
        if ours.mark != Mark::Own && self.index.state()?.scanned {
            let text = "changed here, in a folder that only receives: the change stays on this device";
            self.report("kept_here", Some(path), text.into(), now)?;
        }
        Ok(())
    }

    /// The user takes back what was changed here: it goes to history, and what peers have comes in its place.
    pub(super) fn revert(&mut self, now: Now) -> Result<(), IndexError> {
        // The user has just said so.
        self.confirmed_until_ms = now.mono_ms + guard::WINDOW_MS as u64;
        let mut after: Option<RelPath> = None;
        let mut count = 0u64;
        loop {
            let page = self.index.marked(Mark::Own, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.entry.path.clone());
            for record in page {
                count += u64::from(self.revert_one(record, now)?);
            }
        }
        // Directories may have stayed for what was in them.
        self.index.wake_rivals()?;
        self.pass.want();
        self.touch(now);
        if count > 0 {
            let text = match count {
                1 => "1 change made here is taken back, into history".to_owned(),
                _ => format!("{count} changes made here are taken back, into history"),
            };
            self.report("reverted", None, text, now)?;
        }
        Ok(())
    }

    fn revert_one(&mut self, ours: Record, now: Now) -> Result<bool, IndexError> {
        let path = ours.entry.path.clone();
        let Some(disk) = ours.disk else {
            self.mind_again(ours)?;
            return Ok(true);
        };
        match (disk.kind, ours.entry.kind.is_directory(), ours.entry.is_live()) {
            (DiskKind::Directory, true, _) => {
                self.index.put(&ours.entry, Some(disk), Mark::Here, now.wall_ms())?;
                self.fix_metadata(&ours.entry, disk)?;
                return Ok(true);
            }
            // What is in the directory goes first; until the user has moved it away nothing can take its place.
            (DiskKind::Directory, false, true) => return Ok(false),
            _ => {}
        }
        let own = self.settings.device;
        let count = self.index.next_seq();
        if ours.entry.version != VersionVector::new() {
            let announced = Announced { entry: ours.entry, seq: ours.seq, held: false };
            self.index.put_rival(own, &announced)?;
        } else if self.index.rivals(&path)?.is_empty() {
            // Nobody else has ever heard of it.
            let gone = decide::deleted(&ours.entry, self.epoch()?, count);
            self.index.put_rival(own, &Announced { entry: gone, seq: count, held: true })?;
        }
        self.index.put(&Entry::nothing(path.clone()), Some(disk), Mark::Reverted, now.wall_ms())?;
        self.index.set_todo(&path, true)?;
        Ok(true)
    }

    /// True where something below a directory has this mark.
    pub(super) fn is_any_below(&self, mark: Mark, directory: &RelPath) -> Result<bool, IndexError> {
        // What is below a directory comes right after it in the order of paths.
        let next = self.index.marked(mark, Some(directory), 1)?;
        Ok(next.first().is_some_and(|record| record.entry.path.is_below(directory)))
    }

    /// The user wants what is here everywhere: it is announced over whatever others have.
    pub(super) fn override_peers(&mut self, now: Now) -> Result<(), IndexError> {
        let mut after: Option<RelPath> = None;
        let mut count = 0u64;
        loop {
            let page = self.index.rival_paths(after.as_ref(), None, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for path in page {
                count += u64::from(self.override_one(&path, now)?);
            }
        }
        self.index.wake_rivals()?;
        self.pass.want();
        if count > 0 {
            self.report("overridden", None, format!("{count} changes of other devices are overruled"), now)?;
        }
        Ok(())
    }

    fn override_one(&mut self, path: &RelPath, now: Now) -> Result<bool, IndexError> {
        if self.busy.contains_key(path) {
            return Ok(false);
        }
        let mut is_any = false;
        for rival in self.index.rivals(path)? {
            let ours = self.ours(path)?;
            let is_unminded = !matches!(ours.mark, Mark::Here | Mark::Kept);
            let is_ruled_out = self.rules.is_ignored(path, rival.entry.kind.is_directory()).is_some();
            if is_unminded || is_ruled_out {
                return Ok(is_any);
            }
            let (epoch, count) = (self.epoch()?, self.index.next_seq());
            let mut entry = decide::resolved(&ours.entry, &rival.entry, false, epoch, count);
            if rival.entry.meta.stamp >= ours.entry.meta.stamp {
                let stamp = Stamp { count: (rival.entry.meta.stamp.count + 1).min(COUNT_MAX), epoch };
                entry.meta = crate::core::entry::Meta { stamp, ..ours.entry.meta.clone() };
            }
            self.index.put(&entry, ours.disk, ours.mark, now.wall_ms())?;
            self.drop_settled_rivals(path, &entry)?;
            self.touch(now);
            is_any |= decide::decide(&ours.entry, &rival.entry, &self.found) != Decision::Forget;
        }
        self.acks_are_due(now);
        Ok(is_any)
    }

    /// Another direction holds from now on: what the old one held back is decided again.
    pub(super) fn set_direction(&mut self, before: Direction, now: Now) -> Result<(), IndexError> {
        if before == self.settings.direction {
            return Ok(());
        }
        if self.announces_changes() {
            self.announce_own(now)?;
        }
        self.index.wake_rivals()?;
        self.pass.want();
        self.acks_are_due(now);
        self.outputs.push(Output::FullScan);
        Ok(())
    }

    /// What was changed here while the folder only received is looked at again, as news.
    pub(super) fn announce_own(&mut self, now: Now) -> Result<(), IndexError> {
        loop {
            let page = self.index.marked(Mark::Own, None, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for ours in page {
                let path = ours.entry.path.clone();
                match (ours.entry.is_live(), ours.disk) {
                    // Nothing is ever as this says, so the next look finds it changed.
                    (true, Some(disk)) => {
                        let stale = Some(DiskState { ctime_ns: 0, ..disk });
                        self.index.set_disk(&path, stale, Mark::Here, now.wall_ms())?;
                    }
                    (true, None) => {
                        self.index.set_disk(&path, None, Mark::Missing, now.wall_ms())?;
                        self.missing_since_ms = Some(now.mono_ms);
                    }
                    (false, _) => self.index.set_disk(&path, None, Mark::Here, now.wall_ms())?,
                }
                self.rescans.insert(path);
            }
        }
    }
}

/// What stands at the target of an action and is to be taken out of its place.
pub(super) fn displaced(ours: &Record) -> Option<DiskState> {
    ours.disk.filter(|_| ours.entry.is_live() || ours.mark == Mark::Reverted)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, disk, path, seen};
    use super::super::{Input, Observation, Seen, Settings, Staged};
    use super::*;
    use crate::core::action::{Action, Outcome};
    use crate::core::content::Content;
    use crate::core::entry::Kind;
    use crate::core::id::{DeviceId, RunId};
    use crate::core::message::{Batch, Message, Reason};

    const FILES: u64 = 5;

    fn turn(fixture: &mut Fixture, direction: Direction) {
        let device = DeviceId([1; 32]);
        fixture.feed(Input::Settings(Settings { device, peers: [PEER].into(), direction, ..Settings::default() }));
    }

    fn fixture(direction: Direction) -> Fixture {
        let mut fixture = Fixture::new(FILES);
        turn(&mut fixture, direction);
        fixture
    }

    fn ours(fixture: &Fixture, n: u64) -> Record {
        fixture.folder.ours(&path(n)).unwrap()
    }

    fn content(bytes: u64) -> Kind {
        Kind::File(Content::of_chunk(&bytes.to_be_bytes()))
    }

    /// The peer has changed the file to these bytes, on top of what is known here.
    fn hear_edit(fixture: &mut Fixture, n: u64, bytes: u64, seq: u64) {
        let before = ours(fixture, n).entry;
        let version = before.version.clone().with(PEERS_EPOCH, seq);
        let entry = Entry { kind: content(bytes), version, ..before };
        let entries = vec![Announced { entry, seq, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: seq, more: false }));
    }

    fn done(disk: Option<DiskState>) -> Outcome {
        Outcome::Done { disk, displaced: None, conflict: None, rescued: None }
    }

    /// The bytes of the only fetch arrive; the action that follows.
    fn fetched(fixture: &mut Fixture) -> (u64, Action) {
        let order = fixture.fetches.pop().unwrap();
        fixture.feed(Input::Fetched(vec![(order.work, Ok(Staged::default()))]));
        fixture.orders.pop().unwrap()
    }

    #[test]
    fn a_folder_that_only_sends_takes_nothing_says_so_and_overrules_when_told_to() {
        let mut fixture = fixture(Direction::Send);
        fixture.hear_deleted(0, 2);
        hear_edit(&mut fixture, 0, 77, 10);
        let new = Entry { kind: content(78), ..Entry::nothing(path(99)) };
        let version = new.version.clone().with(PEERS_EPOCH, 11);
        let entries = vec![Announced { entry: Entry { version, ..new }, seq: 11, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 11, more: false }));
        fixture.wait(1000);
        assert!(fixture.orders.is_empty() && fixture.fetches.is_empty());
        assert!((0..FILES).all(|n| ours(&fixture, n).is_held()));
        let mut acks = fixture.sent.iter().filter_map(|m| if let Message::Ack(ack) = m { Some(ack) } else { None });
        let exceptions = &acks.next_back().unwrap().exceptions;
        assert_eq!(exceptions.len(), 4);
        assert!(exceptions.iter().all(|exception| exception.reason == Reason::Declined));

        fixture.feed(Input::Override);
        for n in [0, 3, 4, 99] {
            assert!(fixture.folder.index().rivals(&path(n)).unwrap().is_empty(), "{n}");
        }
        assert!((0..FILES).all(|n| ours(&fixture, n).is_held()));
        let overruled = ours(&fixture, 99).entry;
        assert!(!overruled.is_live() && overruled.version.get(PEERS_EPOCH) == 11);
        assert!(fixture.orders.is_empty());
    }

    #[test]
    fn what_was_not_taken_is_taken_once_changes_go_both_ways() {
        let mut fixture = fixture(Direction::Send);
        hear_edit(&mut fixture, 0, 77, 10);
        assert!(fixture.fetches.is_empty());
        turn(&mut fixture, Direction::Both);
        assert_eq!(fixture.fetches.len(), 1);
    }

    #[test]
    fn a_change_made_where_a_folder_only_receives_is_told_nobody_and_can_be_taken_back() {
        let mut fixture = fixture(Direction::Receive);
        let before = ours(&fixture, 0).entry;
        fixture.feed(Input::Observed(vec![Observation { path: path(0), ..seen(0, 50) }]));
        let own = ours(&fixture, 0);
        assert_eq!((own.mark, own.disk, own.entry), (Mark::Own, Some(disk(50)), before.clone()));
        // A newer version of a peer changes nothing about that.
        hear_edit(&mut fixture, 0, 77, 10);
        assert!(fixture.fetches.is_empty() && ours(&fixture, 0).mark == Mark::Own);

        fixture.feed(Input::Revert);
        let (work, action) = fetched(&mut fixture);
        let Action::PlaceFile { content: placed, expect: Some(expect), .. } = action else { panic!("{action:?}") };
        assert_eq!((Kind::File(placed), expect.disk, expect.content), (content(77), disk(50), None));
        fixture.feed(Input::Applied(vec![(work, done(Some(disk(77))))]));
        let after = ours(&fixture, 0);
        assert_eq!(
            (after.mark, after.entry.kind, fixture.folder.index().count_marked(Mark::Own).unwrap()),
            (Mark::Here, content(77), 0)
        );
    }

    #[test]
    fn what_was_made_here_alone_goes_to_history_and_what_was_deleted_here_comes_back() {
        let mut fixture = fixture(Direction::Receive);
        let gone = Observation { path: path(1), seen: Seen::Absent };
        fixture.feed(Input::Observed(vec![seen(50, 50), gone]));
        fixture.wait(1000);
        assert_eq!((ours(&fixture, 50).mark, ours(&fixture, 1).mark), (Mark::Own, Mark::Own));
        assert!(ours(&fixture, 1).entry.is_live() && !ours(&fixture, 50).entry.is_live());
        fixture.feed(Input::Revert);
        let (work, action) = fixture.orders.pop().unwrap();
        let Action::Remove { path: removed, expect } = action else { panic!("{action:?}") };
        assert_eq!((removed, expect.disk), (path(50), disk(50)));
        fixture.feed(Input::Applied(vec![(work, done(None))]));
        assert_eq!(ours(&fixture, 50).mark, Mark::Here);
        let (_, action) = fetched(&mut fixture);
        assert!(matches!(&action, Action::PlaceFile { path: at, expect: None, .. } if *at == path(1)), "{action:?}");
    }

    #[test]
    fn a_directory_that_others_delete_stays_for_what_was_changed_in_it_here() {
        let mut fixture = fixture(Direction::Both);
        let at = |name: &str| crate::core::path::RelPath::parse(name.as_bytes()).unwrap();
        let directory = DiskState { kind: DiskKind::Directory, ..disk(70) };
        let dir = Observation { path: at("d"), seen: Seen::Directory(directory) };
        fixture.feed(Input::Observed(vec![dir, Observation { path: at("d/x"), ..seen(0, 71) }]));
        turn(&mut fixture, Direction::Receive);
        fixture.feed(Input::Observed(vec![Observation { path: at("d/x"), ..seen(0, 72) }]));
        let gone = |fixture: &Fixture, name, seq| {
            let ours = fixture.folder.ours(&at(name)).unwrap().entry;
            Announced { entry: decide::deleted(&ours, PEERS_EPOCH, seq), seq, held: true }
        };
        let entries = vec![gone(&fixture, "d/x", 10), gone(&fixture, "d", 11)];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 11, more: false }));
        fixture.wait(1000);
        assert!(fixture.orders.is_empty() && fixture.folder.ours(&at("d")).unwrap().is_held());
        fixture.feed(Input::Revert);
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(&action, Action::Remove { path, .. } if *path == at("d/x")), "{action:?}");
        fixture.feed(Input::Applied(vec![(work, done(None))]));
        let (_, action) = fixture.orders.pop().unwrap();
        assert!(matches!(&action, Action::RemoveDirectory { path } if *path == at("d")), "{action:?}");
    }

    #[test]
    fn what_is_edited_while_it_is_taken_back_is_kept() {
        let mut fixture = fixture(Direction::Receive);
        let before = ours(&fixture, 0).entry;
        fixture.feed(Input::Observed(vec![Observation { path: path(0), ..seen(0, 50) }]));
        fixture.feed(Input::Revert);
        let (work, _) = fetched(&mut fixture);
        fixture.feed(Input::Applied(vec![(work, Outcome::Changed)]));
        fixture.feed(Input::Observed(vec![Observation { path: path(0), ..seen(0, 51) }]));
        let own = ours(&fixture, 0);
        assert_eq!((own.mark, own.disk, own.entry.kind), (Mark::Own, Some(disk(51)), before.kind));
    }

    #[test]
    fn changes_that_stayed_here_are_told_once_changes_go_both_ways() {
        let mut fixture = fixture(Direction::Receive);
        let before = ours(&fixture, 0).entry;
        let gone = Observation { path: path(1), seen: Seen::Absent };
        fixture.feed(Input::Observed(vec![Observation { path: path(0), ..seen(0, 50) }, gone, seen(50, 51)]));
        fixture.wait(1000);
        turn(&mut fixture, Direction::Both);
        fixture.feed(Input::Observed(vec![seen(0, 50), seen(50, 51)]));
        fixture.wait(1000);
        let edited = ours(&fixture, 0).entry;
        assert!(edited.kind == content(50) && before.version.included_in(&edited.version));
        assert!(!ours(&fixture, 1).entry.is_live() && ours(&fixture, 50).is_held());
    }
}
