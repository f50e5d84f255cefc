//! Vanished paths: given a moment to turn up again or elsewhere, then announced as moved or deleted.

use crate::core::content::Content;
use crate::core::decide;
use crate::core::entry::Kind;
use crate::core::guard;
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Record};

use super::{DELETE_SETTLE_MS, DELETE_WAIT_MAX_MS, Folder, Now};

/// Deletions announced in one transaction, and rows looked at per query.
const SETTLE_BATCH: usize = 2000;
/// So often the deletion of a directory waits, each time for [`DELETE_SETTLE_MS`], for what is in it to be seen gone.
const UNSEEN_WAITS_MAX: u32 = 20;

impl Folder {
    /// Announces vanished paths as deleted, children before parents, unless that would be most of the folder.
    pub(super) fn settle_missing(&mut self, now: Now) -> Result<(), IndexError> {
        let Some(since) = self.missing_since_ms else { return Ok(()) };
        if now.mono_ms < since + DELETE_SETTLE_MS || self.halted || !self.index.state()?.scanned {
            return Ok(());
        }
        let missing = self.index.missing(SETTLE_BATCH)?;
        if missing.is_empty() {
            self.missing_since_ms = None;
            self.unseen_waits.clear();
            // The scan after a crash needs them to the end, to tell what a user moved from what the crash left behind.
            if !self.after_crash {
                self.vanished.clear();
                self.unwritten_directories.clear();
            }
            return Ok(());
        }
        if self.holds_local_deletions(now)? {
            self.missing_since_ms = None;
            self.unseen_waits.clear();
            return Ok(());
        }
        let (mut is_announced, mut emptied) = (false, Vec::new());
        let waited = std::mem::take(&mut self.unseen_waits);
        for path in missing {
            // What is in work is frozen: its turn comes when that is over.
            if self.busy.contains_key(&path) {
                self.missing_since_ms = Some(now.mono_ms);
                continue;
            }
            let ours = self.ours(&path)?;
            if self.keeps_unwritten_directory(&path, &ours, now)? {
                self.missing_since_ms = Some(now.mono_ms);
                continue;
            }
            // Those are about to be seen gone too. Told after the directory, they would bring it back elsewhere.
            let waits = waited.get(&path).copied().unwrap_or(0);
            let may_wait = ours.entry.kind.is_directory() && waits < UNSEEN_WAITS_MAX;
            if may_wait && self.has_unseen_below(&path, &mut emptied)? {
                self.missing_since_ms = Some(now.mono_ms);
                if waits == 0 {
                    // Should nobody be looking there yet.
                    self.rescans.insert(path.clone());
                }
                self.unseen_waits.insert(path, waits + 1);
                continue;
            }
            let moved = match ours.entry.kind.content() {
                Some(content) => !self.index.holders(content.id, 1)?.is_empty(),
                None => false,
            };
            self.announce_deletion(&ours, moved, now)?;
            is_announced = true;
        }
        if is_announced {
            self.touch(now);
        }
        Ok(())
    }

    /// True where something is still known to be in a directory, though no look has found it gone or there since.
    /// `emptied`, last path first, are those in which nothing is, as was found just before: the tombstones in them are
    /// not walked along for each directory above.
    fn has_unseen_below(&self, directory: &RelPath, emptied: &mut Vec<RelPath>) -> Result<bool, IndexError> {
        let first = emptied.iter().rposition(|known| !known.is_below(directory)).map_or(0, |at| at + 1);
        let is_any = self.index.has_held_below(directory, emptied[first..].iter().rev())?;
        if !is_any {
            emptied.truncate(first);
            emptied.push(directory.clone());
        }
        Ok(is_any)
    }

    pub(super) fn announce_deletion(&mut self, ours: &Record, moved: bool, now: Now) -> Result<(), IndexError> {
        if !self.announces_changes() {
            return self.keep_own(ours, None, now);
        }
        let path = &ours.entry.path;
        let entry = decide::deleted(&ours.entry, self.epoch()?, self.index.next_seq());
        self.index.put(&entry, None, Mark::Here, now.wall_ms())?;
        if !moved {
            self.index.note_removal(now.wall_ms(), path)?;
        }
        if !ours.entry.kind.is_directory() {
            let (kind, text) = if moved {
                ("moved", "moved, or one of several copies deleted here")
            } else {
                ("deleted", "deleted here")
            };
            self.report(kind, Some(path), text.into(), now)?;
        }
        self.index.set_todo(path, true)?;
        self.pass.want();
        self.touch(now);
        self.note_ignore_file(path);
        Ok(())
    }

    /// Where a file stands in a directory's place, nothing can be below it any more: that is said first, so that
    /// peers don't take what they still have there for something new. A mass of files is left to settle instead.
    pub(super) fn announce_gone_below(&mut self, directory: &RelPath, now: Now) -> Result<(), IndexError> {
        let below = self.index.records_from(None, Some(directory), SETTLE_BATCH)?;
        let live = || below.iter().rev().filter(|r| r.entry.is_live() && matches!(r.mark, Mark::Here | Mark::Missing));
        if below.len() == SETTLE_BATCH || live().count() as u64 >= self.settings.guard.entries_min {
            return Ok(());
        }
        for ours in live() {
            if self.busy.contains_key(&ours.entry.path) {
                continue;
            }
            let holders = match ours.entry.kind.content() {
                Some(content) => self.index.holders(content.id, 2)?,
                None => Vec::new(),
            };
            let moved = holders.iter().any(|r| r.entry.path != ours.entry.path);
            self.announce_deletion(ours, moved, now)?;
        }
        Ok(())
    }

    /// A file that vanished and turned up elsewhere under the same inode was renamed: both halves are announced
    /// together, so that peers can rename it too.
    pub(super) fn note_move(&mut self, inode: u64, content: Content, now: Now) -> Result<(), IndexError> {
        let Some(from) = self.vanished.remove(&inode) else { return Ok(()) };
        let ours = self.ours(&from)?;
        if ours.mark == Mark::Missing && ours.entry.kind == Kind::File(content) {
            self.announce_deletion(&ours, true, now)?;
        }
        // All that has vanished has turned up. The directories that it left need not wait for anything more.
        if self.vanished.is_empty() && self.unseen_waits.is_empty() && self.are_directories_missing_only()? {
            self.missing_since_ms = self.missing_since_ms.map(|_| now.mono_ms.saturating_sub(DELETE_SETTLE_MS));
        }
        Ok(())
    }

    fn are_directories_missing_only(&self) -> Result<bool, IndexError> {
        // So many that the user may be asked about them are not counted before all that is new has been.
        let most = self.settings.guard.entries_min.min(SETTLE_BATCH as u64) as usize;
        let missing = self.index.missing(most)?;
        for path in &missing {
            if !self.ours(path)?.entry.kind.is_directory() {
                return Ok(false);
            }
        }
        Ok(missing.len() < most)
    }

    /// A new file has turned up: those that have vanished may come next.
    pub(super) fn wait_for_the_vanished(&mut self, now: Now) {
        let is_too_long = now.mono_ms >= self.missing_first_ms + DELETE_WAIT_MAX_MS;
        if let Some(since) = self.missing_since_ms.as_mut().filter(|_| !is_too_long && !self.vanished.is_empty()) {
            *since = now.mono_ms;
        }
    }

    /// True where a content can be read chunk by chunk: the list of a larger one is there, and so what is below it.
    pub(super) fn has_list(&self, content: Content) -> Result<bool, IndexError> {
        Ok(content.depth == 0 || self.index.list_body(content.id)?.is_some())
    }

    /// True where the missing paths are so much of the folder that the user is asked first.
    fn holds_local_deletions(&mut self, now: Now) -> Result<bool, IndexError> {
        if !self.announces_changes() {
            return Ok(false);
        }
        // What is held already has gone as well.
        let candidates = self.index.count_marked(Mark::Missing)? + self.index.count_marked(Mark::Held)?;
        let before = self.index.removals_since(now.wall_ms() - guard::WINDOW_MS)?;
        let totals = self.index.totals()?;
        let live = totals.files + totals.directories + totals.symlinks;
        if self.is_confirmed(now) || !guard::is_mass_removal(self.settings.guard, candidates, before, live) {
            return Ok(false);
        }
        let moved = self.count_moved_missing()?;
        if !guard::is_mass_removal(self.settings.guard, candidates - moved, before, live) {
            return Ok(false);
        }
        self.hold_missing(now)?;
        Ok(true)
    }

    /// Missing files whose content lies elsewhere in the folder: they were moved, or are copies.
    fn count_moved_missing(&mut self) -> Result<u64, IndexError> {
        let (mut after, mut moved) = (None, 0);
        loop {
            let page = self.index.marked(Mark::Missing, after.as_ref(), SETTLE_BATCH)?;
            let Some(last) = page.last() else { return Ok(moved) };
            after = Some(last.entry.path.clone());
            for record in page {
                if let Some(content) = record.entry.kind.content() {
                    moved += u64::from(!self.index.holders(content.id, 1)?.is_empty());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{Fixture, PEERS_EPOCH, disk, path, seen};
    use super::super::{Input, Observation, Seen};
    use super::*;
    use crate::core::action::{Action, Outcome};
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::entry::Entry;
    use crate::core::id::RunId;
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::VersionVector;

    fn absent(n: u64) -> Input {
        Input::Observed(vec![Observation { path: path(n), seen: Seen::Absent }])
    }

    fn hear(fixture: &mut Fixture, entries: Vec<Entry>, from_seq: u64) {
        let entries = (from_seq..).zip(entries).map(|(seq, entry)| Announced { entry, seq, held: true });
        let entries: Vec<Announced> = entries.collect();
        let upto = from_seq + entries.len() as u64 - 1;
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto, more: false }));
    }

    /// What the peer has instead of file `n`: the same content under another name, and that it is gone here.
    fn moved(fixture: &Fixture, n: u64, to: u64, count: u64) -> [Entry; 2] {
        let ours = fixture.folder.ours(&path(n)).unwrap().entry;
        let version = VersionVector::new().with(PEERS_EPOCH, count);
        [Entry { path: path(to), version, ..ours.clone() }, decide::deleted(&ours, PEERS_EPOCH, count + 1)]
    }

    #[test]
    fn what_has_vanished_waits_while_new_files_turn_up_but_not_for_ever() {
        let mut fixture = Fixture::new(3);
        fixture.feed(absent(0));
        fixture.wait(200);
        fixture.feed(Input::Observed(vec![seen(10, 10)]));
        fixture.wait(200);
        assert!(fixture.folder.ours(&path(0)).unwrap().entry.is_live());
        fixture.wait(200);
        assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());

        fixture.feed(absent(1));
        for n in 0..2 * DELETE_WAIT_MAX_MS / 200 {
            fixture.feed(Input::Observed(vec![seen(20 + n, 20 + n)]));
            fixture.wait(200);
        }
        assert!(!fixture.folder.ours(&path(1)).unwrap().entry.is_live());
    }

    #[test]
    fn a_directory_is_not_told_to_be_gone_before_what_was_in_it_but_does_not_wait_for_ever() {
        for is_seen in [true, false] {
            let mut fixture = Fixture::new(0);
            let (above, below) = (path(0), RelPath::parse(b"f00000/a").unwrap());
            let state = DiskState { kind: DiskKind::Directory, ..disk(1) };
            let Observation { seen: file, .. } = seen(1, 1);
            let there = |path: &RelPath, seen| Observation { path: path.clone(), seen };
            fixture.feed(Input::Observed(vec![there(&above, Seen::Directory(state)), there(&below, file)]));
            fixture.feed(Input::Observed(vec![there(&above, Seen::Absent)]));
            fixture.wait(2 * DELETE_SETTLE_MS);
            assert!(fixture.folder.ours(&above).unwrap().entry.is_live());
            if is_seen {
                fixture.feed(Input::Observed(vec![there(&below, Seen::Absent)]));
                fixture.wait(2 * DELETE_SETTLE_MS);
                assert!(!fixture.folder.ours(&below).unwrap().entry.is_live());
            } else {
                (0..UNSEEN_WAITS_MAX).for_each(|_| fixture.wait(2 * DELETE_SETTLE_MS));
            }
            assert!(!fixture.folder.ours(&above).unwrap().entry.is_live());
        }
    }

    #[test]
    fn a_renamed_directory_is_gone_as_soon_as_all_that_was_in_it_has_turned_up() {
        let mut fixture = Fixture::new(1);
        let directory = Seen::Directory(DiskState { kind: DiskKind::Directory, ..disk(90) });
        let at = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let feed = |fixture: &mut Fixture, all: &[(&str, &Seen)]| {
            let observed = all.iter().map(|(name, seen)| Observation { path: at(name), seen: (*seen).clone() });
            fixture.feed(Input::Observed(observed.collect()));
        };
        let (one, two) = (seen(1, 91).seen, seen(2, 92).seen);
        feed(&mut fixture, &[("a", &directory), ("a/1", &one), ("a/2", &two)]);
        fixture.wait(2 * DELETE_SETTLE_MS);
        feed(&mut fixture, &[("a", &Seen::Absent), ("a/1", &Seen::Absent), ("a/2", &Seen::Absent)]);
        feed(&mut fixture, &[("b", &directory), ("b/1", &one)]);
        fixture.wait(1);
        assert!(fixture.folder.ours(&at("a")).unwrap().entry.is_live());
        feed(&mut fixture, &[("b/2", &two)]);
        fixture.wait(1);
        assert!(!fixture.folder.ours(&at("a")).unwrap().entry.is_live());

        // A file that is still missing may be on its way, and so may what is in a directory that vanished with it.
        feed(&mut fixture, &[("b/1", &Seen::Absent)]);
        fixture.feed(absent(0));
        feed(&mut fixture, &[("c", &one)]);
        fixture.wait(1);
        assert!(fixture.folder.ours(&path(0)).unwrap().entry.is_live());
        fixture.wait(2 * DELETE_SETTLE_MS);
        assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());
    }

    #[test]
    fn a_file_that_is_known_without_a_look_has_to_be_one_whose_parts_are_known() {
        let mut fixture = Fixture::new(1);
        let Observation { seen: Seen::File { disk, content, .. }, .. } = seen(5, 5) else { unreachable!() };
        let content = Content { depth: 1, size: 1 << 20, ..content };
        let seen = Seen::File { disk, content, lists: Vec::new() };
        fixture.feed(Input::Observed(vec![Observation { path: path(5), seen }]));
        assert!(!fixture.folder.ours(&path(5)).unwrap().entry.is_live());
    }

    #[test]
    fn what_is_moved_here_and_was_moved_back_elsewhere_meanwhile_is_not_deleted() {
        let mut fixture = Fixture::new(1);
        let before = fixture.folder.ours(&path(0)).unwrap().entry;
        let entries = moved(&fixture, 0, 9, 10).to_vec();
        hear(&mut fixture, entries, 10);
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::Move { .. }), "{action:?}");
        let back = Entry { version: before.version.clone().with(PEERS_EPOCH, 12), ..before };
        hear(&mut fixture, vec![back.clone()], 12);
        let disk = Some(super::super::testing::disk(1));
        let done = Outcome::Done { disk, displaced: None, conflict: None, rescued: None };
        fixture.feed(Input::Applied(vec![(work, done)]));
        fixture.feed(absent(0));
        fixture.wait(60_000);
        assert!(fixture.fetches.iter().any(|order| order.path == path(0)), "{:?}", fixture.orders);
        let known = fixture.folder.index().rivals(&path(0)).unwrap();
        assert!(known.iter().any(|rival| rival.entry == back), "{known:?}");
    }

    #[test]
    fn what_is_to_be_here_comes_before_deletions_that_are_heard_with_it() {
        let mut fixture = Fixture::new(3000);
        fixture.hear_deleted(0, 2100);
        let entries: Vec<Entry> = (0..70).flat_map(|n| moved(&fixture, n, 5000 + n, 3000 + 2 * n)).collect();
        hear(&mut fixture, entries, 2101);
        let mut moves = 0;
        while !fixture.orders.is_empty() {
            let is_wrong = |action: &Action| matches!(action, Action::Remove { path: gone, .. } if *gone < path(70));
            assert!(!fixture.orders.iter().any(|(_, action)| is_wrong(action)));
            moves += fixture.orders.iter().filter(|(_, action)| matches!(action, Action::Move { .. })).count();
            let outcomes = std::mem::take(&mut fixture.orders).into_iter().map(|(work, action)| {
                let disk = matches!(action, Action::Move { .. }).then(|| super::super::testing::disk(1));
                (work, Outcome::Done { disk, displaced: None, conflict: None, rescued: None })
            });
            let outcomes = outcomes.collect();
            fixture.feed(Input::Applied(outcomes));
        }
        assert_eq!(moves, 70);
    }

    #[test]
    fn what_is_on_its_way_to_history_is_waited_for_and_what_surprises_is_looked_at_first() {
        let mut fixture = Fixture::new(2);
        let [new, gone] = moved(&fixture, 0, 9, 1);
        hear(&mut fixture, vec![gone], 1);
        let (work, action) = fixture.orders.pop().unwrap();
        assert!(matches!(action, Action::Remove { .. }));
        hear(&mut fixture, vec![new], 2);
        assert_eq!(fixture.folder.works.len(), 1);
        // Somebody has changed it: neither is it moved to its new place nor to history before that is known.
        fixture.feed(Input::Applied(vec![(work, Outcome::Changed)]));
        assert!(fixture.orders.is_empty());
        assert!(!fixture.folder.works.values().any(|work| work.path == path(0)));
        fixture.feed(Input::Observed(vec![seen(0, 77)]));
        assert!(fixture.folder.works.values().all(|work| work.path == path(9)) && fixture.folder.works.len() == 1);
    }

    /// A directory that is seen gone before what is in it.
    fn gone_before_its_content() -> (Fixture, RelPath) {
        let mut fixture = Fixture::new(0);
        let below = RelPath::parse(b"f00000/a").unwrap();
        let state = DiskState { kind: DiskKind::Directory, ..disk(1) };
        let Observation { seen: file, .. } = seen(1, 1);
        let directory = Observation { path: path(0), seen: Seen::Directory(state) };
        fixture.feed(Input::Observed(vec![directory, Observation { path: below.clone(), seen: file }]));
        fixture.feed(absent(0));
        fixture.rescans.clear();
        (fixture, below)
    }

    #[test]
    fn a_directory_that_waits_for_what_is_in_it_is_looked_at_and_is_no_news() {
        let (mut fixture, _) = gone_before_its_content();
        let before = fixture.folder.changed_mono_ms;
        (0..3).for_each(|_| fixture.wait(2 * DELETE_SETTLE_MS));
        assert_eq!(fixture.folder.changed_mono_ms, before);
        assert_eq!(fixture.folder.unseen_waits, BTreeMap::from([(path(0), 3)]));
        assert_eq!(fixture.rescans, [path(0)]);
    }

    #[test]
    fn a_directory_that_waits_does_not_cost_another_its_time() {
        let (mut fixture, _) = gone_before_its_content();
        (0..UNSEEN_WAITS_MAX - 2).for_each(|_| fixture.wait(2 * DELETE_SETTLE_MS));
        // Another one goes, whose content is seen gone only some looks later.
        let (above, below) = (path(5), RelPath::parse(b"f00005/a").unwrap());
        let directory = Seen::Directory(DiskState { kind: DiskKind::Directory, ..disk(5) });
        let Observation { seen: file, .. } = seen(6, 6);
        let there = |path: &RelPath, seen| Observation { path: path.clone(), seen };
        fixture.feed(Input::Observed(vec![there(&above, directory), there(&below, file)]));
        fixture.feed(Input::Observed(vec![there(&above, Seen::Absent)]));
        (0..5).for_each(|_| fixture.wait(2 * DELETE_SETTLE_MS));
        assert!(!fixture.folder.ours(&path(0)).unwrap().entry.is_live());
        assert!(fixture.folder.ours(&above).unwrap().entry.is_live());
    }

    #[test]
    fn what_one_directory_has_waited_is_not_counted_for_the_next() {
        let (mut fixture, _) = gone_before_its_content();
        (0..3).for_each(|_| fixture.wait(2 * DELETE_SETTLE_MS));
        let state = DiskState { kind: DiskKind::Directory, ..disk(1) };
        fixture.feed(Input::Observed(vec![Observation { path: path(0), seen: Seen::Directory(state) }]));
        fixture.wait(2 * DELETE_SETTLE_MS);
        assert!(fixture.folder.unseen_waits.is_empty() && fixture.folder.missing_since_ms.is_none());
    }
}
