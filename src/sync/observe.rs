//! What a scan saw: local edits become events, vanished paths become tombstones once they have settled.

use crate::core::decide::{self, Decision};
use crate::core::disk::DiskState;
use crate::core::entry::Kind;
use crate::core::id::DeviceId;
use crate::core::ignore::IGNORE_FILE;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::index::{IndexError, Mark, Record};

use super::edited::{edited, is_suspect, note_metadata};
use super::plan::{shows, until_looked_at, until_shown};
use super::{Folder, NOTE_LAST_SCAN_MS, Now, Observation, Output, Seen};

/// Paths remembered as looked at twice; more are simply believed.
const DOUBTED_MAX: usize = 10_000;
/// Vanished files remembered by inode; more are announced as deletions of their own, and found by content.
pub(super) const VANISHED_MAX: usize = 100_000;
/// Files of one content looked at to find where a vanished one went.
pub(super) const TWINS_MAX: usize = 16;

impl Folder {
    pub(super) fn observe(&mut self, observations: Vec<Observation>, now: Now) -> Result<(), IndexError> {
        for observation in observations {
            let path = observation.path;
            if self.awaited.remove(&path) {
                self.pass.want();
            }
            // A path in work is frozen until its outcome is known; it is looked at again then.
            if let Some(work) = self.busy.get(&path) {
                if let Some(work) = self.works.get_mut(work) {
                    work.look_again = true;
                }
                continue;
            }
            self.observe_one(&path, observation.seen, now)?;
        }
        Ok(())
    }

    fn observe_one(&mut self, path: &RelPath, seen: Seen, now: Now) -> Result<(), IndexError> {
        let ours = self.ours(path)?;
        let is_directory = matches!(seen, Seen::Directory(_));
        if ours.mark == Mark::Ignored || self.rules.is_ignored(path, is_directory).is_some() {
            // What does not sync has no trouble with syncing.
            return self.index.clear_problem(path);
        }
        if ours.mark == Mark::Declined {
            // Where this very name stands there, nothing else has taken it.
            if !matches!(seen, Seen::Absent | Seen::Failed(_)) {
                self.note_freed(path);
                self.awaited.insert(path.clone());
            }
            return self.clear_all_but_name(path);
        }
        if self.is_doubtful(path, &ours, &seen) {
            self.rescans.insert(path.clone());
            return Ok(());
        }
        match seen {
            Seen::Failed(problem) => return self.index.set_problem(path, &problem, now.wall_ms(), None),
            Seen::Absent => self.observe_absent(path, ours, now)?,
            Seen::Directory(disk) => self.observe_present(path, ours, Kind::Directory, disk, now)?,
            Seen::Symlink { disk, target } => self.observe_present(path, ours, Kind::Symlink(target), disk, now)?,
            // Known without a look, where it is not known any more: somebody has to look.
            Seen::File { content, ref lists, .. } if lists.is_empty() && !self.has_list(content)? => {
                self.rescans.insert(path.clone());
                return Ok(());
            }
            Seen::File { disk, content, lists } => {
                self.index.put_lists(content, &lists)?;
                self.observe_present(path, ours, Kind::File(content), disk, now)?;
            }
        }
        // Whatever was said of the path before is decided anew in the light of what is there.
        if !self.index.rivals(path)?.is_empty() {
            self.index.set_todo(path, true)?;
            self.pass.want();
        }
        Ok(())
    }

    /// A look that is older than what is known came late: look again, once (clocks may jump).
    fn is_doubtful(&mut self, path: &RelPath, ours: &Record, seen: &Seen) -> bool {
        let (Seen::File { disk, .. } | Seen::Symlink { disk, .. }) = seen else { return false };
        // What is known from before an unclean boot may well be newer than what the power cut has left.
        let is_of_boot = ours.seq >= self.suspicious_below;
        let is_older =
            ours.disk.is_some_and(|known| disk.ctime_ns != 0 && disk.ctime_ns < known.ctime_ns) && is_of_boot;
        if !is_older || self.doubted.len() >= DOUBTED_MAX || !self.doubted.insert(path.clone()) {
            self.doubted.remove(path);
            return false;
        }
        true
    }

    fn observe_present(
        &mut self,
        path: &RelPath,
        ours: Record,
        kind: Kind,
        disk: DiskState,
        now: Now,
    ) -> Result<(), IndexError> {
        let rivals = self.index.rivals(path)?;
        // It could be read, so trouble with reading is over; without rivals there is none with applying either.
        let reading = [ProblemKind::SpecialFile, ProblemKind::Permission, ProblemKind::Io, ProblemKind::Busy];
        let is_over = |kind| reading.contains(&kind) || kind != ProblemKind::Suspect && rivals.is_empty();
        if self.index.problem(path)?.is_some_and(|row| is_over(row.problem.kind)) {
            self.index.clear_problem(path)?;
        }
        if ours.entry.kind == kind {
            return self.observe_same_content(path, ours, disk, now);
        }
        let is_told = self.adopt_rival(path, &ours, &kind, Some(disk), now)?
            || self.note_outdated(path, &ours, &kind, disk, now)?
            || self.note_half_done(path, &ours, &kind, disk, now)?;
        self.half_done.remove(path);
        if is_told {
            return Ok(());
        }
        if ours.mark == Mark::Kept && kind.is_directory() {
            return Ok(());
        }
        // Still as it was when it was found suspect, or taken back: later scans know no more.
        if matches!(ours.mark, Mark::Suspect | Mark::Reverted)
            && let Some(known) = ours.disk.filter(|known| disk.is_same_file_as(known))
        {
            // What displaces it compares with what was seen last.
            if known != disk {
                self.index.set_disk(path, Some(disk), ours.mark, now.wall_ms())?;
            }
            return Ok(());
        }
        if self.is_in_doubt(&ours, &kind) && !self.is_swap_undone(&ours, &disk)? {
            self.note_returned(disk.inode, &kind)?;
            return self.suspect(path, disk, now);
        }
        if ours.mark == Mark::Suspect {
            self.index.clear_problem(path)?;
        }
        if !self.announces_changes() {
            return self.keep_own(&ours, Some(disk), now);
        }
        self.revive_kept_parents(path, now)?;
        if ours.entry.kind.is_directory() {
            self.announce_gone_below(path, now)?;
        }
        let is_first_scan = !self.index.state()?.scanned;
        let author = if is_first_scan { DeviceId::NONE } else { self.settings.device };
        let entry = edited(&ours.entry, kind, disk, author, now, self.epoch()?, self.index.next_seq());
        self.index.put(&entry, Some(disk), Mark::Here, now.wall_ms())?;
        self.index.drop_removal(path)?;
        self.touch(now);
        self.note_turned_up(disk, &entry.kind, now)?;
        if let Some(content) = entry.kind.content() {
            self.note_move(disk.inode, content, now)?;
            self.wait_for_the_vanished(now);
        }
        if !is_first_scan && !entry.kind.is_directory() {
            let kind = if ours.entry.is_live() { "changed" } else { "added" };
            self.report(kind, Some(path), format!("{kind} here"), now)?;
        }
        self.note_ignore_file(path);
        Ok(())
    }

    /// The content is what the index has: at most mode or mtime were changed.
    fn observe_same_content(
        &mut self,
        path: &RelPath,
        ours: Record,
        disk: DiskState,
        now: Now,
    ) -> Result<(), IndexError> {
        if ours.mark == Mark::Suspect {
            self.index.clear_problem(path)?;
        }
        if !self.announces_changes()
            && matches!(ours.mark, Mark::Here | Mark::Own)
            && ours.disk.is_some()
            && !shows(disk, &ours.entry)
        {
            return self.keep_own(&ours, Some(disk), now);
        }
        let mut entry = ours.entry;
        let was_here = ours.mark == Mark::Missing || (ours.mark == Mark::Here && ours.disk.is_some());
        if was_here && note_metadata(&mut entry, disk, self.epoch()?) {
            self.index.put(&entry, Some(disk), Mark::Here, now.wall_ms())?;
            self.touch(now);
            return Ok(());
        }
        // Peers that were told it is not here learn that it is again.
        if ours.disk.is_none() || ours.mark != Mark::Here {
            self.index.put(&entry, Some(until_looked_at(disk, &entry)), Mark::Here, now.wall_ms())?;
            self.touch(now);
            return self.fix_metadata(&entry, disk);
        }
        self.index.set_disk(path, Some(disk), Mark::Here, now.wall_ms())
    }

    fn is_in_doubt(&self, ours: &Record, kind: &Kind) -> bool {
        ours.seq < self.suspicious_below && is_suspect(&ours.entry, kind)
    }

    fn observe_absent(&mut self, path: &RelPath, ours: Record, now: Now) -> Result<(), IndexError> {
        self.half_done.remove(path);
        self.index.clear_problem(path)?;
        if matches!(ours.mark, Mark::Own | Mark::Reverted) && ours.disk.is_some() {
            return self.keep_own(&ours, None, now);
        }
        if !ours.entry.is_live() || ours.mark == Mark::Held {
            return Ok(());
        }
        // Only what was here can vanish: an entry that is merely passed on has no absence.
        let was_here = matches!(ours.mark, Mark::Here | Mark::Suspect | Mark::Kept) && ours.disk.is_some();
        if was_here {
            self.note_freed(path);
        }
        if !was_here || self.adopt_rival(path, &ours, &Kind::Deleted, None, now)? {
            return Ok(());
        }
        if self.has_returned_elsewhere(&ours) {
            return self.want_back(ours);
        }
        let inode = ours.disk.map(|disk| disk.inode);
        if let Some(inode) = inode.filter(|_| !ours.entry.kind.is_directory()) {
            if self.is_rename_undone(&ours)? {
                return self.announce_deletion(&ours, true, now);
            }
            if self.vanished.len() < VANISHED_MAX {
                self.vanished.insert(inode, path.clone());
            }
        }
        if self.may_be_unwritten(&ours, now) {
            if !ours.entry.kind.is_directory() {
                return self.want_unwritten(ours, now);
            }
            if self.unwritten_directories.len() < VANISHED_MAX {
                self.unwritten_directories.insert(path.clone());
            }
        }
        self.index.set_disk(path, None, Mark::Missing, now.wall_ms())?;
        if self.missing_since_ms.replace(now.mono_ms).is_none() {
            self.missing_first_ms = now.mono_ms;
        }
        Ok(())
    }

    /// A scanned state that equals a stored rival *is* that entry: a swap whose commit was lost, or the same work
    /// done twice. Its version is adopted and no event is issued.
    fn adopt_rival(
        &mut self,
        path: &RelPath,
        ours: &Record,
        kind: &Kind,
        disk: Option<DiskState>,
        now: Now,
    ) -> Result<bool, IndexError> {
        let half_done = self.half_done.get(path).map(|half| half.rival.clone());
        for rival in self.index.rivals(path)?.into_iter().chain(half_done) {
            let same =
                rival.entry.kind.content_id() == kind.content_id() && rival.entry.kind.disk_kind() == kind.disk_kind();
            if !same {
                continue;
            }
            let entry = match decide::decide(&ours.entry, &rival.entry, &self.found) {
                Decision::Take => decide::taken(&ours.entry, &rival.entry),
                // What lost is in its copy by now, or its user has put the winner there himself.
                Decision::Resolve { .. } => {
                    let (epoch, count) = (self.epoch()?, self.index.next_seq());
                    decide::resolved(&ours.entry, &rival.entry, true, epoch, count)
                }
                _ => continue,
            };
            if ours.mark == Mark::Suspect {
                self.index.clear_problem(path)?;
            }
            let shown = until_shown(&entry, &ours.entry, disk);
            let known = disk.map(|disk| until_looked_at(disk, &shown));
            self.index.put_brought(&shown, self.link_of(&rival), known, Mark::Here, now.wall_ms())?;
            if let Some(disk) = disk {
                self.fix_metadata(&entry, disk)?;
            }
            self.drop_settled_rivals(path, &shown)?;
            self.touch(now);
            self.acks_are_due(now);
            self.note_ignore_file(path);
            return Ok(true);
        }
        Ok(false)
    }

    fn suspect(&mut self, path: &RelPath, disk: DiskState, now: Now) -> Result<(), IndexError> {
        let text = "suddenly empty or an old version after the computer went down; your other devices keep the good one. \
                    'p2psync restore' brings it back; saving the file again keeps what is here";
        self.index.set_disk(path, Some(disk), Mark::Suspect, now.wall_ms())?;
        self.index.set_problem(path, &Problem::new(ProblemKind::Suspect, text), now.wall_ms(), None)?;
        self.report("suspect", Some(path), text.into(), now)
    }

    pub(super) fn note_ignore_file(&mut self, path: &RelPath) {
        if path.file_name() == IGNORE_FILE.as_bytes() && !self.outputs.contains(&Output::ReloadRules) {
            self.outputs.push(Output::ReloadRules);
        }
    }

    /// A complete scan of a fresh index closes the counts that say "found".
    pub(super) fn scan_finished(&mut self, complete: bool, now: Now) -> Result<(), IndexError> {
        if !complete {
            return Ok(());
        }
        self.forget_power_cut()?;
        self.suspicious_below = 0;
        self.after_crash = false;
        self.forget_half_done();
        self.awaited.clear();
        self.returned.clear();
        self.turned_up.clear();
        self.drop_moot_problems()?;
        self.pass.want();
        let state = self.index.state()?;
        if !state.scanned {
            self.index.set_found(state.epoch, state.last_seq)?;
            self.found.0.insert(state.epoch, state.last_seq);
            self.index.set_scanned()?;
            self.index.wake_rivals()?;
            self.pass.want();
            self.tell_found();
        }
        self.index.set_note(NOTE_LAST_SCAN_MS, Some(&now.wall_ms().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, disk, path, seen};
    use crate::core::action::{Action, Outcome};
    use crate::core::content::Content;
    use crate::core::disk::DiskKind;
    use crate::core::entry::{Entry, Stamp};
    use crate::core::id::{EpochId, RunId};
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::{EPOCHS_MAX, VersionVector};
    use crate::sync::{Input, NOTE_BEFORE_BOOT};

    use super::*;

    fn hear(fixture: &mut Fixture, entry: Entry) {
        let entries = vec![Announced { entry, seq: 100, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 100, more: false }));
    }

    #[test]
    fn metadata_that_comes_with_a_join_is_ours_once_the_disk_shows_it() {
        let mut fixture = Fixture::new(1);
        let ours = fixture.folder.ours(&path(0)).unwrap();
        let stamp = Stamp { count: 9, epoch: PEERS_EPOCH };
        let mut entry = Entry { version: VersionVector::new().with(PEERS_EPOCH, 1), ..ours.entry.clone() };
        entry.meta.stamp = stamp;
        entry.meta.mode = Some((DiskKind::File, 0o600));
        hear(&mut fixture, entry);
        let joined = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((joined.entry.version.get(PEERS_EPOCH), &joined.entry.meta), (1, &ours.entry.meta));
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::SetMetadata { mode: 0o600, .. }), "{action:?}");
        // A crash now would forget the work, not the rival.
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap().len(), 1);
        let disk = ours.disk.map(|disk| DiskState { mode: 0o600, ..disk });
        let done = Outcome::Done { disk, displaced: None, conflict: None, rescued: None };
        fixture.feed(Input::Applied(vec![(work, done)]));
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().entry.meta.stamp, stamp);
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap(), []);
    }

    #[test]
    fn metadata_of_what_a_crash_left_is_ours_once_the_disk_shows_it() {
        let mut fixture = Fixture::new(1);
        let ours = fixture.folder.ours(&path(0)).unwrap();
        let Observation { seen: Seen::File { disk, content, .. }, .. } = seen(0, 10) else { unreachable!() };
        let mut entry = Entry { kind: Kind::File(content), ..ours.entry.clone() };
        entry.version = ours.entry.version.with(PEERS_EPOCH, 1);
        entry.meta.stamp = Stamp { count: 9, epoch: PEERS_EPOCH };
        entry.meta.mode = Some((DiskKind::File, 0o600));
        fixture.feed(Input::Halted(Some("gone for a moment".into())));
        hear(&mut fixture, entry.clone());
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        let adopted = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((&adopted.entry.version, &adopted.entry.meta), (&entry.version, &ours.entry.meta));
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap().len(), 1);
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::SetMetadata { mode: 0o600, .. }), "{action:?}");
        let disk = Some(DiskState { mode: 0o600, ..disk });
        let done = Outcome::Done { disk, displaced: None, conflict: None, rescued: None };
        fixture.feed(Input::Applied(vec![(work, done)]));
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().entry.meta, entry.meta);
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap(), []);
    }

    #[test]
    fn what_was_seen_to_go_after_a_crash_and_comes_back_is_no_leftover_of_it() {
        let mut fixture = Fixture::new(1);
        fixture.folder.after_crash = true;
        fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: Seen::Absent }]));
        fixture.wait(60_000);
        assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert!(ours.is_held() && ours.entry.version.get(fixture.folder.epoch().unwrap()) == ours.seq);
    }

    #[test]
    fn the_winner_of_a_conflict_that_a_crash_has_left_in_its_place_is_no_edit() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let kind = Kind::File(Content::of_chunk(&11u64.to_be_bytes()));
        let winner = Entry {
            kind,
            mtime_ns: ours.mtime_ns + 1,
            weight_ns: ours.weight_ns + 1,
            author: PEER,
            version: VersionVector::new().with(PEERS_EPOCH, 1),
            ..ours.clone()
        };
        fixture.feed(Input::Halted(Some("gone for a moment".into())));
        hear(&mut fixture, winner.clone());
        fixture.feed(Input::Observed(vec![seen(0, 11)]));
        let now = fixture.folder.ours(&path(0)).unwrap();
        // Its author still tells it from another version of the same content.
        assert_eq!((now.mark, &now.entry.kind, now.entry.author), (Mark::Here, &winner.kind, PEER));
        assert!(winner.version.included_in(&now.entry.version) && ours.version.included_in(&now.entry.version));
    }

    #[test]
    fn what_was_moved_away_and_back_around_a_crash_stays() {
        for suspicious in [true, false] {
            let mut fixture = Fixture::new(1);
            // With its directory, which leaves no trace in the file itself.
            fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: Seen::Absent }]));
            fixture.wait(60_000);
            assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());
            fixture.folder.index.start_run(RunId(9)).unwrap();
            fixture.folder.after_crash = true;
            fixture.feed(Input::ScanStarted { suspicious });
            fixture.feed(Input::Observed(vec![seen(0, 0)]));
            fixture.feed(Input::ScanFinished { complete: true });
            let ours = fixture.folder.ours(&path(0)).unwrap();
            assert!(ours.is_held() && ours.entry.version.get(fixture.folder.epoch().unwrap()) == ours.seq);
            assert_eq!(fixture.orders, []);
        }
    }

    #[test]
    fn what_a_peer_had_moved_away_and_a_user_moves_back_is_his_whatever_others_have_put_there() {
        let mut fixture = Fixture::new(1);
        fixture.folder.index.start_run(RunId(9)).unwrap();
        fixture.hear_deleted(0, 1);
        fixture.carry_out();
        let gone = fixture.folder.ours(&path(0)).unwrap().entry;
        assert!(!gone.is_live() && gone.superseded.contains(&Content::of_chunk(&0u64.to_be_bytes()).id));
        fixture.feed(Input::Halted(Some("gone for a moment".into())));
        let kind = Kind::File(Content::of_chunk(b"other"));
        hear(&mut fixture, Entry { kind, version: gone.version.clone().with(PEERS_EPOCH, 100), ..gone });
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let back = fixture.folder.ours(&path(0)).unwrap();
        assert!(back.entry.version.get(fixture.folder.epoch().unwrap()) > 0, "{back:?}");
    }

    #[test]
    fn an_old_version_that_a_power_cut_has_left_is_suspect_at_the_first_look_though_its_times_are_old() {
        let mut fixture = Fixture::new(1);
        let look = |bytes, ctime_ns| {
            let (disk, content) = (DiskState { ctime_ns, ..disk(bytes) }, Content::of_chunk(&[bytes as u8]));
            Observation { path: path(0), seen: Seen::File { disk, content, lists: Vec::new() } }
        };
        fixture.feed(Input::Observed(vec![look(7, 100)]));
        fixture.feed(Input::Observed(vec![look(8, 200)]));
        fixture.feed(Input::ScanStarted { suspicious: true });
        fixture.feed(Input::Observed(vec![look(7, 100)]));
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().mark, Mark::Suspect);
    }

    #[test]
    fn what_was_seen_since_an_unclean_boot_did_not_go_with_the_power() {
        let mut fixture = Fixture::new(2);
        let ours = fixture.folder.ours(&path(1)).unwrap();
        fixture.folder.set_note(NOTE_BEFORE_BOOT, Some(&format!("{} boot", ours.seq))).unwrap();
        fixture.feed(Input::ScanStarted { suspicious: true });
        let emptied = |n| {
            let (disk, content) = (DiskState { size: 0, ..disk(n) }, Content::of_chunk(b""));
            Observation { path: path(n), seen: Seen::File { disk, content, lists: Vec::new() } }
        };
        fixture.feed(Input::Observed(vec![emptied(0), emptied(1)]));
        let marks = [0, 1].map(|n| fixture.folder.ours(&path(n)).unwrap().mark);
        assert_eq!(marks, [Mark::Suspect, Mark::Here]);
    }

    #[test]
    fn a_rename_that_a_power_cut_has_undone_is_no_deletion() {
        for (is_absence_first, is_far_apart) in [(true, false), (false, false), (true, true)] {
            let mut fixture = Fixture::new(1);
            let gone = |n| Observation { path: path(n), seen: Seen::Absent };
            // The file gets another name, which the power cut undoes.
            fixture.feed(Input::Observed(vec![gone(0), Observation { path: path(1), ..seen(0, 0) }]));
            fixture.wait(60_000);
            assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());
            fixture.folder.index.start_run(RunId(9)).unwrap();
            fixture.folder.after_crash = true;
            fixture.feed(Input::ScanStarted { suspicious: true });
            let mut looks = vec![seen(0, 0), gone(1)];
            if is_absence_first {
                looks.reverse();
            }
            for look in looks {
                fixture.feed(Input::Observed(vec![look]));
                if is_far_apart {
                    fixture.wait(60_000);
                }
            }
            fixture.feed(Input::ScanFinished { complete: true });
            fixture.wait(60_000);
            let [back, undone] = [0, 1].map(|n| fixture.folder.ours(&path(n)).unwrap());
            assert!(back.is_held() && !undone.entry.is_live());
            assert!(back.entry.version.get(fixture.folder.epoch().unwrap()) > 0 && fixture.orders.is_empty());
        }
    }

    #[test]
    fn a_suspect_file_is_announced_only_once_somebody_writes_it_again() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        let good = fixture.folder.ours(&path(0)).unwrap().entry;
        for suspicious in [true, false] {
            fixture.feed(Input::ScanStarted { suspicious });
            fixture.feed(Input::Observed(vec![seen(0, 0)]));
            fixture.feed(Input::ScanFinished { complete: true });
            let ours = fixture.folder.ours(&path(0)).unwrap();
            assert_eq!((ours.mark, &ours.entry), (Mark::Suspect, &good));
        }
        // Whoever displaces it compares it with what was seen last.
        let later = |mut look: Observation| {
            let Seen::File { disk, .. } = &mut look.seen else { panic!("a file") };
            disk.ctime_ns += 1;
            (*disk, look)
        };
        let (latest, look) = later(seen(0, 0));
        fixture.feed(Input::Observed(vec![look]));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((ours.mark, ours.disk), (Mark::Suspect, Some(latest)));
        fixture.feed(Input::Observed(vec![later(seen(0, 11)).1]));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!(ours.entry.kind.content().map(|c| c.id), Some(Content::of_chunk(&11u64.to_be_bytes()).id));
        assert_eq!((ours.mark, fixture.folder.index().problem(&path(0)).unwrap()), (Mark::Here, None));
    }

    #[test]
    fn what_has_taken_the_place_of_a_suspect_file_before_a_crash_is_no_trouble() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        fixture.feed(Input::ScanStarted { suspicious: true });
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!(ours.mark, Mark::Suspect);
        let mut newer = Entry { kind: Kind::File(Content::of_chunk(&11u64.to_be_bytes())), ..ours.entry };
        newer.version = newer.version.with(PEERS_EPOCH, 1);
        fixture.feed(Input::Halted(Some("gone for a moment".into())));
        hear(&mut fixture, newer);
        fixture.feed(Input::Observed(vec![seen(0, 11)]));
        let now = fixture.folder.ours(&path(0)).unwrap();
        assert_eq!((now.mark, fixture.folder.index().problem(&path(0)).unwrap()), (Mark::Here, None));
    }

    #[test]
    fn going_back_to_an_old_version_while_a_newer_one_is_on_its_way_is_an_edit() {
        let mut fixture = Fixture::new(1);
        fixture.feed(Input::Observed(vec![seen(0, 10)]));
        let ours = fixture.folder.ours(&path(0)).unwrap().entry;
        let mut newer = Entry { kind: Kind::File(Content::of_chunk(b"newer")), ..ours.clone() };
        newer.version = newer.version.with(PEERS_EPOCH, 100);
        newer.superseded = newer.superseded_with(&[Content::of_chunk(&10u64.to_be_bytes()).id]);
        assert_eq!(newer.superseded.len(), 2);
        fixture.feed(Input::Halted(Some("gone for a moment".into())));
        hear(&mut fixture, newer.clone());
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let back = fixture.folder.ours(&path(0)).unwrap().entry;
        assert!(ours.version.included_in(&back.version) && !back.version.included_in(&newer.version));
    }

    #[test]
    fn deleting_the_ignore_file_reloads_the_rules() {
        let mut fixture = Fixture::new(0);
        let rules = RelPath::parse(IGNORE_FILE.as_bytes()).unwrap();
        let Observation { seen: found, .. } = seen(0, 0);
        fixture.feed(Input::Observed(vec![Observation { path: rules.clone(), seen: found }]));
        assert_eq!(std::mem::take(&mut fixture.reloads), 1);
        fixture.feed(Input::Observed(vec![Observation { path: rules, seen: Seen::Absent }]));
        fixture.wait(1000);
        assert_eq!(fixture.reloads, 1);
    }

    #[test]
    fn nothing_ticks_for_deletions_that_cannot_be_announced_while_the_folder_is_halted() {
        let mut fixture = Fixture::new(2);
        fixture.feed(Input::Lost(PEER));
        fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: Seen::Absent }]));
        assert!(fixture.folder.next_tick_ms(fixture.now).unwrap().is_some());
        fixture.feed(Input::Halted(Some("gone".into())));
        assert_eq!(fixture.folder.next_tick_ms(fixture.now).unwrap(), None);
        fixture.feed(Input::Halted(None));
        assert!(fixture.folder.next_tick_ms(fixture.now).unwrap().is_some());
    }

    #[test]
    fn a_version_full_of_epochs_leaves_room_for_our_own() {
        let mut fixture = Fixture::new(0);
        let most = (0..EPOCHS_MAX as u64).map(|n| (EpochId(1000 + n), 1)).collect();
        let version = VersionVector::from_pairs(most).unwrap();
        let entry = Entry { kind: Kind::Directory, version, ..Entry::nothing(path(0)) };
        hear(&mut fixture, entry.clone());
        assert!(fixture.folder.index().rivals(&path(0)).unwrap().is_empty());
        let fits = VersionVector::from_pairs(entry.version.pairs()[..EPOCHS_MAX - 16].to_vec()).unwrap();
        hear(&mut fixture, Entry { version: fits, ..entry });
        fixture.carry_out();
        fixture.feed(Input::Observed(vec![seen(0, 1)]));
        assert!(fixture.folder.ours(&path(0)).unwrap().entry.kind.content().is_some());
    }
}
