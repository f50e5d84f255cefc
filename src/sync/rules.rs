//! Paths that an ignore rule begins or ceases to cover. Ignoring a synced file deletes it nowhere.

use crate::core::ignore::Rules;
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Record};
use crate::sabotage::{self, Bug};

use super::{Folder, Now, Output};

/// Records looked at per query.
const PAGE: usize = 2000;

impl Folder {
    /// Marks what the new rules cover as "passed on, not minded here", and decides again about what they no longer do.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Now) -> Result<(), IndexError> {
        self.rules = rules;
        self.rules_unapplied = false;
        self.ruled_late.extend(self.busy.keys().cloned());
        self.apply_rules(now)?;
        self.index.wake_rivals()?;
        self.pass.want();
        self.outputs.push(Output::FullScan);
        Ok(())
    }

    fn apply_rules(&mut self, now: Now) -> Result<(), IndexError> {
        let mut after = None;
        loop {
            let page = self.index.records_from(after.as_ref(), None, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.path.clone());
            for record in page {
                self.apply_rules_to(record, now)?;
            }
        }
    }

    /// Paths that were in work when the rules changed, and no longer are.
    pub(super) fn apply_rules_late(&mut self, now: Now) -> Result<(), IndexError> {
        let over: Vec<RelPath> =
            self.ruled_late.iter().filter(|path| !self.busy.contains_key(*path)).cloned().collect();
        for path in over {
            self.ruled_late.remove(&path);
            if let Some(record) = self.index.record(&path)? {
                self.apply_rules_to(record, now)?;
            }
        }
        Ok(())
    }

    /// A crash may have come between a change of the rules and its effects, and the rules may have changed while no
    /// agent ran.
    pub(super) fn recheck_ignored(&mut self, now: Now) -> Result<(), IndexError> {
        if std::mem::take(&mut self.rules_unapplied) {
            return self.apply_rules(now);
        }
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
        if self.busy.contains_key(&path) {
            // The outcome makes it one that is minded: its turn comes after that.
            self.ruled_late.insert(path);
            return Ok(());
        }
        let is_ignored = self.rules.is_ignored(&path, record.entry.kind.is_directory()).is_some();
        match record.mark {
            Mark::Ignored if !is_ignored => self.mind_again(record),
            Mark::Own | Mark::Reverted if is_ignored => {
                self.index.put(&record.entry, None, Mark::Ignored, now.wall_ms())?;
                self.touch(now);
                Ok(())
            }
            // A tombstone stays: what is made at its path while it is ignored is newer.
            _ if !record.entry.is_live() => Ok(()),
            Mark::Here if is_ignored && sabotage::is(Bug::IgnoredIsDeleted) => {
                self.announce_deletion(&record, true, now)
            }
            Mark::Here | Mark::Missing | Mark::Suspect if is_ignored => {
                self.index.put(&record.entry, None, Mark::Ignored, now.wall_ms())?;
                self.index.clear_problem(&path)?;
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, path, seen};
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::RunId;
    use crate::core::message::{Batch, Message};
    use crate::core::version::VersionVector;
    use crate::sync::{Input, Settings};

    use super::*;

    fn everything() -> Rules {
        Rules::parse(b"*").0
    }

    #[test]
    fn a_rule_covers_what_was_in_work_when_it_came() {
        let mut fixture = Fixture::new(0);
        let version = VersionVector::new().with(PEERS_EPOCH, 5);
        let entry = Entry { kind: Kind::Directory, version, ..Entry::nothing(path(0)) };
        let entries = vec![Announced { entry, seq: 100, held: true }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 100, more: false }));
        assert_eq!(fixture.orders.len(), 1);
        fixture.feed(Input::Rules(Box::new(everything())));
        fixture.carry_out();
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().mark, Mark::Ignored);
    }

    #[test]
    fn a_rule_that_came_while_no_agent_ran_covers_what_the_index_has() {
        let mut fixture = Fixture::new(0);
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let index = std::mem::replace(&mut fixture, Fixture::new(0)).folder.into_index();
        fixture.folder = Folder::new(index, Settings::default(), everything(), RunId(9)).unwrap();
        fixture.feed(Input::ScanStarted { suspicious: false });
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().mark, Mark::Ignored);
    }
}
