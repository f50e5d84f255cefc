//! Paths that an ignore rule begins or ceases to cover. Ignoring a synced file deletes it nowhere.

use crate::core::ignore::Rules;
use crate::core::message::Announced;
use crate::index::{IndexError, Mark, Record};

use super::{Folder, Now, Output};

/// Records looked at per query.
const PAGE: usize = 2000;

impl Folder {
    /// Marks what the new rules cover as "passed on, not minded here", and decides again about what they no longer do.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Now) -> Result<(), IndexError> {
        self.rules = rules;
        let mut after = None;
        loop {
            let page = self.index.records_from(after.as_ref(), None, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.entry.path.clone());
            for record in page {
                self.apply_rules_to(record, now)?;
            }
        }
        self.index.wake_rivals()?;
        self.pass.want();
        self.outputs.push(Output::FullScan);
        Ok(())
    }

    /// A crash may have come between a change of the rules and its effects.
    pub(super) fn recheck_ignored(&mut self, now: Now) -> Result<(), IndexError> {
        let mut after = None;
        loop {
            let page = self.index.marked(Mark::Ignored, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.path.clone());
            for record in page {
                self.apply_rules_to(record, now)?;
            }
        }
    }

    fn apply_rules_to(&mut self, record: Record, now: Now) -> Result<(), IndexError> {
        let path = record.entry.path.clone();
        let is_ignored = self.rules.is_ignored(&path, record.entry.kind.is_directory()).is_some();
        match record.mark {
            Mark::Ignored if !is_ignored => self.mind_again(record),
            // A tombstone stays: what is made at its path while it is ignored is newer.
            _ if !record.entry.is_live() => Ok(()),
            Mark::Here | Mark::Missing | Mark::Suspect if is_ignored && !self.busy.contains_key(&path) => {
                self.index.put(&record.entry, None, Mark::Ignored, now.wall_ms())?;
                self.touch(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A path that was merely passed on: what is known of it becomes a rival of what the next scan finds there.
    pub(super) fn mind_again(&mut self, record: Record) -> Result<(), IndexError> {
        let path = record.entry.path.clone();
        self.index.remove(&path)?;
        let announced = Announced { entry: record.entry, seq: record.seq, held: false };
        self.index.put_rival(self.settings.device, &announced)?;
        self.rescans.insert(path);
        Ok(())
    }
}
