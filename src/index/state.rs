//! Epochs, runs, found counts, totals and the digest; and how large the log of the index gets.

use std::time::Duration;

use rusqlite::params;

use super::counters::{Counters, load_digest};
use super::error::{Fault, Res};
use super::open::{BUSY_TIMEOUT, Index, Reader};
use super::row::count_at;
use super::{IndexError, State, Totals};
use crate::core::decide::Found;
use crate::core::id::{EpochId, RunId};
use crate::failpoint;

/// A write-ahead log below this size, in bytes, is left where it is.
const SHRINK_FROM_BYTES: u64 = 1024 * 1024;

impl Index {
    /// Notes the start of an agent; on the disk when it returns. From now on the shutdown is not orderly.
    pub fn start_run(&mut self, run: RunId) -> Result<(), IndexError> {
        self.memo.forget_state();
        self.write_durably(|index| {
            index.execute("UPDATE state SET run = ?1, clean = 0", [run.0.cast_signed()])?;
            index.append_run(run)
        })?;
        failpoint::hit("index.run_begun");
        Ok(())
    }

    /// Begins a new epoch, with a first run. Sequence numbers go on; the first scan is to be done again.
    pub fn start_epoch(&mut self, epoch: EpochId, run: RunId) -> Result<(), IndexError> {
        self.memo.forget_state();
        self.write_durably(|index| {
            let sql = "UPDATE state SET epoch = ?1, run = ?2, scanned = 0, clean = 0";
            index.execute(sql, [epoch.0.cast_signed(), run.0.cast_signed()])?;
            index.append_run(run)
        })?;
        failpoint::hit("index.epoch_begun");
        Ok(())
    }

    /// Notes that the first full scan of this epoch is done.
    pub fn set_scanned(&mut self) -> Result<(), IndexError> {
        self.memo.forget_state();
        self.write(|index| index.execute("UPDATE state SET scanned = 1", []).map(drop))
    }

    /// Notes an orderly shutdown and moves the write-ahead log into the database.
    pub fn set_clean(&mut self) -> Result<(), IndexError> {
        self.memo.forget_state();
        self.write_durably(|index| index.execute("UPDATE state SET clean = 1", []).map(drop))?;
        failpoint::hit("index.closing");
        // A reader that is in the middle of something only means that the log stays.
        self.read(|r| Ok(r.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?))?;
        failpoint::hit("index.closed");
        Ok(())
    }

    /// Moves a write-ahead log that has grown into the database, unless somebody reads just now. It would lie there
    /// until the next changes: a first scan leaves a log as large as the index.
    pub fn shrink_log(&mut self) -> Result<(), IndexError> {
        let log = std::fs::metadata(self.log_path()).map_or(0, |found| found.len());
        if log < SHRINK_FROM_BYTES {
            return Ok(());
        }
        self.read(|r| {
            r.conn.busy_timeout(Duration::ZERO)?;
            let moved = r.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            r.conn.busy_timeout(BUSY_TIMEOUT)?;
            Ok(moved?)
        })
    }

    /// Counts of `epoch` up to `upto` were found, not written.
    pub fn set_found(&mut self, epoch: EpochId, upto: u64) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "INSERT OR REPLACE INTO found (epoch, upto) VALUES (?1, ?2)";
            index.execute(sql, [epoch.0.cast_signed(), upto.cast_signed()]).map(drop)
        })
    }

    /// The sequence number that the next [`Index::put`] takes.
    pub fn next_seq(&self) -> u64 {
        self.counters.as_ref().map_or(0, |c| c.last_seq) + 1
    }

    fn append_run(&mut self, run: RunId) -> Res<()> {
        let sql = "INSERT INTO runs (epoch, run, first_seq) SELECT epoch, ?1, ?2 FROM state";
        self.execute(sql, params![run.0.cast_signed(), self.next_seq().cast_signed()]).map(drop)
    }
}

impl Reader {
    /// Which life of the index this is and how far it has got.
    pub fn state(&self) -> Result<State, IndexError> {
        let sql = "SELECT epoch, run, last_seq, scanned, clean FROM state";
        let state = self.first(sql, [], |r, row| {
            Ok(State {
                epoch: EpochId(row.get::<_, i64>(0)?.cast_unsigned()),
                run: RunId(row.get::<_, i64>(1)?.cast_unsigned()),
                last_seq: r.counters.as_ref().map_or(count_at(row, 2)?, |c| c.last_seq),
                scanned: row.get(3)?,
                clean: row.get(4)?,
            })
        })?;
        self.read(|_| state.ok_or(Fault::Bad("it has lost its state")))
    }

    /// The runs of an epoch in the order of their start, each with the first sequence number that it could issue.
    pub fn runs(&self, epoch: EpochId) -> Result<Vec<(RunId, u64)>, IndexError> {
        let sql = "SELECT run, first_seq FROM runs WHERE epoch = ?1 ORDER BY number";
        self.rows(sql, [epoch.0.cast_signed()], |_, row| {
            Ok((RunId(row.get::<_, i64>(0)?.cast_unsigned()), count_at(row, 1)?))
        })
    }

    /// For each epoch the count up to which its counts were found.
    pub fn found(&self) -> Result<Found, IndexError> {
        let rows = self.rows("SELECT epoch, upto FROM found", [], |_, row| {
            Ok((EpochId(row.get::<_, i64>(0)?.cast_unsigned()), count_at(row, 1)?))
        })?;
        Ok(Found(rows.into_iter().collect()))
    }

    /// How much the folder holds: live entries, whether or not they are on this disk, and tombstones.
    pub fn totals(&self) -> Result<Totals, IndexError> {
        match &self.counters {
            Some(counters) => Ok(counters.totals),
            None => self.read(|r| Ok(Counters::load(&r.conn)?.totals)),
        }
    }

    /// The folder digest, bucket by bucket.
    pub fn digest(&self) -> Result<Vec<u128>, IndexError> {
        match &self.counters {
            Some(counters) => Ok(counters.digest()),
            None => self.read(|r| Ok(load_digest(&r.conn)?.to_vec())),
        }
    }

    /// Bytes that lie in the folder's history.
    pub fn history_bytes(&self) -> Result<u64, IndexError> {
        match &self.counters {
            Some(counters) => Ok(counters.history_bytes),
            None => self.read(|r| Ok(Counters::load(&r.conn)?.history_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_long_log_is_moved_into_the_database_also_while_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let log = || std::fs::metadata(dir.path().join("index.db-wal")).unwrap().len();
        let mut index = Index::open(&at, EPOCH).unwrap();
        let reader = Reader::open(&at).unwrap();
        put(&mut index, &file("a", b""));
        let short = log();
        index.shrink_log().unwrap();
        assert_eq!(log(), short, "not worth it");

        index.begin().unwrap();
        for number in 0..9000 {
            put(&mut index, &file(&format!("file {number}"), b""));
        }
        index.commit().unwrap();
        let long = log();
        assert!(long >= SHRINK_FROM_BYTES, "{long}");
        reader.in_one_view(|| {
            reader.state().unwrap();
            put(&mut index, &file("b", b""));
            index.shrink_log().unwrap();
            assert!(log() >= long, "somebody reads");
        });
        index.shrink_log().unwrap();
        assert_eq!(log(), 0);
        assert!(reader.record(&path("file 8999")).unwrap().is_some());
    }

    #[test]
    fn runs_begin_at_the_next_number_of_their_epoch() {
        let mut index = index();
        index.start_run(RunId(u64::MAX)).unwrap();
        put(&mut index, &file("a", b""));
        index.start_run(RunId(2)).unwrap();
        index.set_scanned().unwrap();
        put(&mut index, &file("b", b""));
        index.start_epoch(EpochId(5), RunId(3)).unwrap();
        assert_eq!(index.runs(EPOCH).unwrap(), [(RunId(u64::MAX), 1), (RunId(2), 2)]);
        assert_eq!(index.runs(EpochId(5)).unwrap(), [(RunId(3), 3)]);
        let state = State { epoch: EpochId(5), run: RunId(3), last_seq: 2, scanned: false, clean: false };
        assert_eq!(index.state().unwrap(), state);
    }

    #[test]
    fn found_counts_read_back_per_epoch() {
        let mut index = index();
        index.set_found(EPOCH, 5).unwrap();
        index.set_found(EpochId(2), 7).unwrap();
        index.set_found(EPOCH, 9).unwrap();
        assert_eq!(index.found().unwrap().0, [(EpochId(2), 7), (EPOCH, 9)].into());
    }
}
