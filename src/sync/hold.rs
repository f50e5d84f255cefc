//! Mass deletions: held back, here and on every receiver, until the user says what was meant.

use crate::core::decide;
use crate::core::guard;
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark};

use super::{Folder, NOTE_HELD, Now, Output};

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
        for path in self.index.todo_deleted(PAGE)? {
            self.index.set_todo(&path, false)?;
        }
        let text = format!(
            "{candidates} files and directories were deleted on another device, most of this folder; they are kept here. \
             'p2psync folder confirm-changes' deletes them here too, 'p2psync folder reject-changes' restores them there"
        );
        self.ask(text, now)?;
        Ok(true)
    }

    /// The user has just confirmed: what goes on now is meant.
    pub(super) fn is_confirmed(&self, now: Now) -> bool {
        now.mono_ms < self.confirmed_until_ms
    }

    fn ask(&mut self, text: String, now: Now) -> Result<(), IndexError> {
        if self.index.note(NOTE_HELD)?.is_none() {
            self.report("held", None, text.clone(), now)?;
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
        for path in self.index.removals(now.wall_ms() - guard::WINDOW_MS, PAGE)? {
            if let Some(row) = self.index.history_of(&path)?.into_iter().next() {
                self.outputs.push(Output::Restore { slot: row.slot, path: path.clone() });
            }
            self.index.drop_removal(&path)?;
        }
        self.index.wake_rivals()?;
        self.pass.want();
        self.touch(now);
        self.report("rejected", None, "the held deletions are undone".into(), now)
    }

    /// Entries that vanished here: what is known of them becomes a rival of the nothing that is left, and so wanted.
    fn want_back_held(&mut self) -> Result<(), IndexError> {
        loop {
            let held = self.index.marked(Mark::Held, None, PAGE)?;
            if held.is_empty() {
                return Ok(());
            }
            for record in held {
                self.index.remove(&record.entry.path)?;
                let announced = Announced { entry: record.entry, seq: record.seq, held: false };
                self.index.put_rival(self.settings.device, &announced)?;
            }
        }
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
