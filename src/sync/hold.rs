//! Mass deletions: held back, here and on every receiver, until the user says what was meant.

use crate::core::decide;
use crate::core::guard;
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Record};

use super::{Folder, NOTE_HELD, NOTE_HELD_MS, Now, Output};

/// Rows handled per query.
const PAGE: usize = 2000;

impl Folder {
    /// Marks everything missing as held and asks the user.
    pub(super) fn hold_missing(&mut self, now: Now) -> Result<(), IndexError> {
        let mut count = 0;
        loop {
            let missing = self.index.missing(PAGE)?;
            if missing.is_empty() {
                break;
            }
            count += missing.len();
            for path in missing {
                self.index.set_disk(&path, None, Mark::Held, now.wall_ms())?;
            }
        }
        let text = format!(
            "{count} files and directories vanished from this folder at once; nothing has been deleted elsewhere. \
             'p2psync folder confirm-changes' deletes them everywhere, 'p2psync folder reject-changes' brings them back"
        );
        self.ask(text, now)
    }

    /// True where the deletions that peers sent are so much of the folder that the user is asked first.
    pub(super) fn holds_remote_deletions(&mut self, now: Now) -> Result<bool, IndexError> {
        if self.is_confirmed(now) {
            return Ok(false);
        }
        // Once the user is asked it is for him to decide, not for time or new files.
        if self.index.note(NOTE_HELD)?.is_some() {
            return Ok(true);
        }
        let totals = self.index.totals()?;
        let live = totals.files + totals.directories + totals.symlinks;
        let before = self.index.removals_since(now.wall_ms() - guard::WINDOW_MS)?;
        if live + before < self.settings.guard.entries_min {
            return Ok(false);
        }
        let candidates = self.index.count_rival_deletions()?;
        if !guard::is_mass_removal(self.settings.guard, candidates, before, live) {
            return Ok(false);
        }
        // Files that are about to turn up under another name are no loss: wait until that is known.
        if !self.works.is_empty() {
            return Ok(true);
        }
        let text = format!(
            "{candidates} files and directories were deleted on another device, most of this folder; they are kept here. \
             'p2psync folder confirm-changes' deletes them here too, 'p2psync folder reject-changes' restores them there"
        );
        self.ask(text, now)?;
        Ok(true)
    }

    /// Where nothing is held any more, because peers took their deletions back, there is nothing to be asked.
    pub(super) fn forget_question(&mut self) -> Result<(), IndexError> {
        let is_asked = self.index.note(NOTE_HELD)?.is_some();
        if is_asked && self.index.count_marked(Mark::Held)? == 0 && self.index.count_rival_deletions()? == 0 {
            self.index.set_note(NOTE_HELD, None)?;
        }
        Ok(())
    }

    /// The user has just confirmed: what goes on now is meant.
    pub(super) fn is_confirmed(&self, now: Now) -> bool {
        now.mono_ms < self.confirmed_until_ms
    }

    fn ask(&mut self, text: String, now: Now) -> Result<(), IndexError> {
        if self.index.note(NOTE_HELD)?.is_none() {
            self.report("held", None, text.clone(), now)?;
            self.index.set_note(NOTE_HELD_MS, Some(&now.wall_ms().to_string()))?;
        }
        self.index.set_note(NOTE_HELD, Some(&text))?;
        self.acks_are_due(now);
        Ok(())
    }

    /// The user means it: what is held goes its way.
    pub(super) fn confirm(&mut self, now: Now) -> Result<(), IndexError> {
        if self.index.note(NOTE_HELD)?.is_none() {
            return Ok(());
        }
        self.index.set_note(NOTE_HELD, None)?;
        self.confirmed_until_ms = now.mono_ms + guard::WINDOW_MS as u64;
        loop {
            let held = self.index.marked(Mark::Held, None, PAGE)?;
            if held.is_empty() {
                break;
            }
            for record in held {
                self.index.set_disk(&record.entry.path, None, Mark::Missing, now.wall_ms())?;
            }
            self.missing_since_ms = Some(now.mono_ms);
        }
        self.index.wake_rivals()?;
        self.pass.want();
        self.report("confirmed", None, "the held deletions go ahead".into(), now)
    }

    /// The user does not mean it: kept entries are announced anew, and what was deleted already comes back.
    pub(super) fn reject(&mut self, now: Now) -> Result<(), IndexError> {
        if self.index.note(NOTE_HELD)?.is_none() {
            return Ok(());
        }
        self.index.set_note(NOTE_HELD, None)?;
        self.want_back_held()?;
        self.override_tombstones(now)?;
        self.bring_back_removed(now)?;
        self.index.wake_rivals()?;
        self.pass.want();
        self.touch(now);
        self.report("rejected", None, "the held deletions are undone".into(), now)
    }

    /// What went before the user was asked comes back from history.
    fn bring_back_removed(&mut self, now: Now) -> Result<(), IndexError> {
        let asked_ms = self.index.note(NOTE_HELD_MS)?.and_then(|text| text.parse().ok()).unwrap_or(now.wall_ms());
        loop {
            let removed = self.index.removals(asked_ms.saturating_sub(guard::WINDOW_MS), PAGE)?;
            if removed.is_empty() {
                return Ok(());
            }
            for path in removed {
                if let Some(row) = self.index.history_of(&path)?.into_iter().next() {
                    self.outputs.push(Output::Restore { slot: row.slot, path: path.clone() });
                }
                self.index.drop_removal(&path)?;
            }
        }
    }

    /// Entries that vanished here are wanted again.
    fn want_back_held(&mut self) -> Result<(), IndexError> {
        loop {
            let held = self.index.marked(Mark::Held, None, PAGE)?;
            if held.is_empty() {
                return Ok(());
            }
            for record in held {
                self.want_back(record)?;
            }
        }
    }

    /// What is known of an entry that is not here any more becomes a rival of the nothing that is left, and so wanted.
    pub(super) fn want_back(&mut self, gone: Record) -> Result<(), IndexError> {
        self.index.remove(&gone.entry.path)?;
        let announced = Announced { entry: gone.entry, seq: gone.seq, held: false };
        self.index.put_rival(self.settings.device, &announced)?;
        self.pass.want();
        Ok(())
    }

    /// Entries that others deleted: they stay, by an event that includes the deletion.
    fn override_tombstones(&mut self, now: Now) -> Result<(), IndexError> {
        let mut after: Option<RelPath> = None;
        loop {
            let page = self.index.records_from(after.as_ref(), None, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.path.clone());
            for ours in page.into_iter().filter(|r| r.is_held()) {
                let rivals = self.index.rivals(&ours.entry.path)?;
                for rival in rivals.iter().filter(|r| !r.entry.is_live()) {
                    let now_ours = self.ours(&ours.entry.path)?;
                    let (epoch, count) = (self.epoch()?, self.index.next_seq());
                    let entry = decide::resolved(&now_ours.entry, &rival.entry, false, epoch, count);
                    self.index.put(&entry, now_ours.disk, now_ours.mark, now.wall_ms())?;
                    self.drop_settled_rivals(&entry.path, &entry)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, path};
    use crate::core::entry::Kind;
    use crate::core::id::RunId;
    use crate::core::message::{Batch, Message};
    use crate::core::version::VersionVector;
    use crate::sync::{Input, Observation, Seen};

    use super::*;

    const FILES: u64 = 3000;

    fn absent(n: u64) -> Observation {
        Observation { path: path(n), seen: Seen::Absent }
    }

    #[test]
    fn deletions_that_come_faster_than_they_are_carried_out_are_held_as_a_mass() {
        let mut fixture = Fixture::new(FILES);
        (0..FILES / 500).for_each(|n| fixture.hear_deleted(n * 500, (n + 1) * 500));
        assert!(fixture.carry_out() < 2400);
        assert!(fixture.is_held());
    }

    #[test]
    fn held_deletions_wait_for_the_user_whatever_the_time_and_come_back_when_he_rejects_them() {
        let mut fixture = Fixture::new(FILES);
        fixture.hear_deleted(0, 2300);
        let went = fixture.carry_out();
        assert_eq!((went, fixture.is_held()), (2300, false));
        fixture.hear_deleted(2300, FILES);
        assert_eq!((fixture.carry_out(), fixture.is_held()), (0, true));
        fixture.wait(2 * 3600 * 1000);
        fixture.feed(Input::Lost(PEER));
        fixture.feed(Input::ScanFinished { complete: true });
        assert_eq!((fixture.carry_out(), fixture.is_held()), (0, true));
        fixture.feed(Input::Reject);
        assert_eq!((fixture.restored.len(), fixture.is_held()), (went, false));
        assert!((0..FILES - 2300).all(|n| fixture.folder.ours(&path(n)).unwrap().is_held()));
    }

    #[test]
    fn nothing_is_asked_any_more_once_peers_took_their_deletions_back() {
        let mut fixture = Fixture::new(FILES);
        fixture.hear_deleted(0, FILES);
        assert!(fixture.carry_out() == 0 && fixture.is_held());
        let entries = (0..FILES).map(|n| {
            let mut entry = fixture.folder.ours(&path(n)).unwrap().entry;
            entry.version = entry.version.join(&VersionVector::new().with(PEERS_EPOCH, FILES + n + 1));
            assert!(matches!(entry.kind, Kind::File(_)));
            Announced { entry, seq: FILES + n + 1, held: true }
        });
        let (entries, upto) = (entries.collect(), 2 * FILES);
        let batch = Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto, more: false };
        fixture.hear(Message::Index(batch));
        assert!(fixture.carry_out() == 0 && !fixture.is_held());
    }

    #[test]
    fn what_vanishes_after_most_of_the_folder_is_held_as_well() {
        let mut fixture = Fixture::new(FILES);
        fixture.feed(Input::Observed((0..2500).map(absent).collect()));
        fixture.wait(1000);
        assert!(fixture.is_held());
        fixture.feed(Input::Observed((2500..FILES).map(absent).collect()));
        fixture.wait(1000);
        assert_eq!(fixture.folder.index().count_marked(Mark::Held).unwrap(), FILES);
    }
}
