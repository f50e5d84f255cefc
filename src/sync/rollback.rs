//! Noticing that our own index went back in time: it was restored from a backup, or runs twice as a clone.
//!
//! A peer says which runs of our epoch it has seen, and how far. A run that we do not know to have got that far
//! happened in a future that this index has lost. Counts issued since then may stand for two different changes, so a
//! new epoch begins, and what was changed since is stamped anew.

use crate::core::id::{EpochId, RunId};
use crate::core::message::Cursor;
use crate::core::version::COUNT_MAX;
use crate::index::IndexError;
use crate::sabotage::{self, Bug};

use super::{Folder, Now, Output};

/// A rollback is believed at most this often.
const ROLLBACK_MS: u64 = 3600 * 1000;
/// Index note of an index that may not account for all that lies in history; empty once it does again.
pub const NOTE_HISTORY_UNSURE: &str = "history unsure";
/// Records looked at per query while stamping anew.
const PAGE: usize = 2000;

impl Folder {
    pub(super) fn check_rollback(&mut self, cursor: &Cursor, now: Now) -> Result<(), IndexError> {
        let state = self.index.state()?;
        if cursor.epoch != state.epoch || sabotage::is(Bug::RollbackUnnoticed) {
            return Ok(());
        }
        let ours = self.index.runs(state.epoch)?;
        let Some(sure) = sure_counts(&ours, state.last_seq, cursor) else { return Ok(()) };
        // A peer that says so again and again could use up the epochs that versions have room for.
        if self.rolled_back_ms.is_some_and(|at| now.mono_ms < at + ROLLBACK_MS) {
            let text =
                "another device says again that the index of this folder is too old; that is not believed so soon";
            return self.report("fault", None, text.into(), now);
        }
        self.rolled_back_ms = Some(now.mono_ms);
        let text = "the index of this folder is older than what the other devices know of it (restored from a backup, or \
                    copied?); it is compared anew, nothing is lost";
        self.report("rollback", None, text.into(), now)?;
        let fresh = EpochId(now.random);
        let run = RunId(now.random.rotate_left(32) ^ state.run.0);
        // A new epoch is made durable by itself, before anything is stamped with it.
        self.index.commit()?;
        self.index.start_epoch(fresh, run)?;
        self.index.begin()?;
        self.index.set_found(fresh, COUNT_MAX)?;
        self.found.0.insert(fresh, COUNT_MAX);
        // What is under way was planned with versions that are about to change; the scan finds what it did.
        self.works.clear();
        self.leaving.clear();
        self.moved_away.clear();
        self.busy.clear();
        self.parked.clear();
        self.fetching.clear();
        // Nor does it know what has been put into history since, or is just being.
        self.index.set_note(NOTE_HISTORY_UNSURE, Some("1"))?;
        self.restamp(state.epoch, sure, fresh, now)?;
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.say_hello(peer)?;
            // It forgets what it had of this index, so all of it is sent again.
            if let Some(link) = self.peers.get_mut(&peer) {
                link.begin_again();
            }
        }
        self.outputs.push(Output::FullScan);
        Ok(())
    }

    /// Replaces counts that may have been issued twice: down to what is sure, plus one of the new epoch.
    fn restamp(&mut self, old: EpochId, sure: u64, fresh: EpochId, now: Now) -> Result<(), IndexError> {
        let mut after = None;
        loop {
            let page = self.index.records_from(after.as_ref(), None, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.entry.path.clone());
            for record in page {
                if record.entry.version.get(old) > sure {
                    let mut entry = record.entry;
                    entry.version = entry.version.with(old, sure).with(fresh, self.index.next_seq());
                    self.index.put(&entry, record.disk, record.mark, now.wall_ms())?;
                }
            }
        }
    }
}

/// `None` where our index knows everything that the peer saw of it; otherwise the highest count that surely stands
/// for one change only.
fn sure_counts(ours: &[(RunId, u64)], last_seq: u64, theirs: &Cursor) -> Option<u64> {
    let end_of = |at: usize| ours.get(at + 1).map_or(last_seq, |(_, first)| first.saturating_sub(1));
    let mut sure = 0;
    for (run, seen) in &theirs.runs {
        match ours.iter().position(|(r, _)| r == run) {
            Some(at) if *seen <= end_of(at) => sure = end_of(at),
            Some(at) => return Some(end_of(at)),
            None => return Some(sure),
        }
    }
    (theirs.seq > last_seq).then_some(sure.min(last_seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(seq: u64, runs: &[(u64, u64)]) -> Cursor {
        Cursor { epoch: EpochId(1), seq, runs: runs.iter().map(|(r, s)| (RunId(*r), *s)).collect() }
    }

    #[test]
    fn a_run_that_got_further_than_we_know_is_a_rollback() {
        // Run 1 issued 1..=10, run 2 began at 11 and got to 15.
        let ours = [(RunId(1), 1), (RunId(2), 11)];
        let cases = [
            (cursor(15, &[(1, 10), (2, 15)]), None),
            (cursor(12, &[(2, 12)]), None),
            (cursor(0, &[]), None),
            (cursor(14, &[(1, 14)]), Some(10)),
            (cursor(20, &[(1, 10), (2, 20)]), Some(15)),
            (cursor(13, &[(1, 10), (9, 13)]), Some(10)),
            (cursor(13, &[(9, 13)]), Some(0)),
        ];
        for (theirs, expected) in cases {
            assert_eq!(sure_counts(&ours, 15, &theirs), expected, "{theirs:?}");
        }
    }
}
