//! Transactions of the writer: what fails halfway is undone as a whole, rows and sums alike.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rusqlite::Params;

use super::IndexError;
use super::counters::Counters;
use super::error::{Fault, Res};
use super::memo::Memo;
use super::open::{Devices, Index, set};
use crate::failpoint;

/// The open transaction, if any.
#[derive(Default)]
pub(super) struct Transaction {
    /// How many times it was begun.
    depth: u32,
    /// A write in it failed, perhaps halfway: it can't be committed any more.
    failed: bool,
    /// The sums before it.
    before: Option<Counters>,
}

impl Index {
    /// Begins a transaction. Within one it only counts: the outermost [`Index::commit`] commits.
    pub fn begin(&mut self) -> Result<(), IndexError> {
        if self.transaction.depth == 0 {
            self.read(|r| Ok(r.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)?))?;
            self.transaction = Transaction { before: self.reader.counters.clone(), ..Transaction::default() };
        }
        self.transaction.depth += 1;
        Ok(())
    }

    /// Ends what the last [`Index::begin`] began. A transaction in which a write failed is rolled back instead, with an
    /// error.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        match self.transaction.depth {
            0 => return Err(Fault::Transaction("ended before it was begun").at(self.path())),
            1 => {}
            _ => {
                self.transaction.depth -= 1;
                return Ok(());
            }
        }
        let committed = self
            .check_transaction()
            .and_then(|()| self.files.check(self.reader.path()))
            .and_then(|()| self.store_and_commit());
        match committed {
            Ok(()) => {
                self.transaction = Transaction::default();
                Ok(())
            }
            Err(fault) => {
                let error = fault.at(self.path());
                self.rollback()?;
                Err(error)
            }
        }
    }

    /// All that was committed is on the disk when this returns. Until then a power cut may take the last seconds of it.
    pub fn make_durable(&self) -> Result<(), IndexError> {
        // A commit that changes nothing is none, so the log is asked itself. What has left it for the database is safe.
        match File::open(self.log_path()).and_then(|log| log.sync_data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::Sync { path: self.path().into(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Where the write-ahead log lies.
    pub(super) fn log_path(&self) -> PathBuf {
        let mut log = self.path().as_os_str().to_owned();
        log.push("-wal");
        log.into()
    }

    /// Undoes everything since the outermost [`Index::begin`]; nothing where no transaction is open.
    pub fn rollback(&mut self) -> Result<(), IndexError> {
        let Transaction { before, .. } = std::mem::take(&mut self.transaction);
        if before.is_some() {
            self.reader.counters = before;
        }
        // Numbers that were given in the transaction are gone with it.
        self.reader.devices.replace(Devices::default());
        self.memo = Memo::default();
        if self.conn.is_autocommit() {
            return Ok(());
        }
        self.read(|r| Ok(r.conn.prepare_cached("ROLLBACK")?.execute([]).map(drop)?))
    }

    /// Runs a writing function, in a transaction of its own if none is open.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut Self) -> Res<T>) -> Result<T, IndexError> {
        let own = self.transaction.depth == 0;
        if own {
            self.begin()?;
        }
        match self.check_transaction().and_then(|()| write(self)) {
            Ok(value) => {
                if own {
                    self.commit()?;
                }
                Ok(value)
            }
            Err(fault) => {
                self.transaction.failed = true;
                let error = fault.at(self.path());
                if own {
                    self.rollback()?;
                }
                Err(error)
            }
        }
    }

    /// The same, and what it wrote is on the disk when it returns.
    pub(super) fn write_durably<T>(&mut self, write: impl FnOnce(&mut Self) -> Res<T>) -> Result<T, IndexError> {
        if self.transaction.depth > 0 {
            return Err(Fault::Transaction("open where one of its own is needed").at(self.path()));
        }
        self.read(|r| set(&r.conn, "synchronous", "FULL"))?;
        let result = self.write(write);
        failpoint::hit("index.durable");
        self.read(|r| set(&r.conn, "synchronous", "NORMAL"))?;
        result
    }

    /// Runs a statement that returns no rows; says how many it changed. Those that run for every file say `OR FAIL` where
    /// they can: a
    /// transaction in which a statement fails is given up, so SQLite need not be ready to undo the statement alone.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Res<usize> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// SQLite rolls back by itself on some errors; what is written after that would be outside the transaction.
    fn check_transaction(&self) -> Res<()> {
        if self.transaction.failed {
            return Err(Fault::Transaction("given up because a write in it failed"));
        }
        if self.conn.is_autocommit() {
            return Err(Fault::Transaction("rolled back by an earlier error"));
        }
        Ok(())
    }

    fn store_and_commit(&mut self) -> Res<()> {
        if let Some(counters) = &mut self.reader.counters {
            counters.store(&self.reader.conn)?;
        }
        failpoint::hit("index.committing");
        self.execute("COMMIT", [])?;
        failpoint::hit("index.committed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::super::testing::*;
    use super::*;
    use crate::core::id::RunId;

    #[test]
    fn rolling_back_undoes_rows_numbers_sums_and_devices() {
        let mut index = index();
        put(&mut index, &file("kept", b"1"));
        let (digest, totals) = (index.digest().unwrap(), index.totals().unwrap());
        index.begin().unwrap();
        put(&mut index, &full("undone"));
        index.rollback().unwrap();
        assert_eq!((index.digest().unwrap(), index.totals().unwrap(), index.next_seq()), (digest, totals, 2));
        assert_eq!(count(&index, "devices"), 0);
        // The author's number went with the transaction and is given anew.
        put(&mut index, &full("done"));
        assert_eq!(index.record(&path("done")).unwrap().unwrap().entry, full("done"));
    }

    #[test]
    fn nested_transactions_end_with_the_outermost() {
        let mut index = index();
        assert!(index.commit().is_err());
        index.begin().unwrap();
        index.begin().unwrap();
        put(&mut index, &file("a", b""));
        index.commit().unwrap();
        assert!(!index.conn.is_autocommit());
        assert!(index.start_run(RunId(1)).is_err());
        index.rollback().unwrap();
        assert_eq!((index.record(&path("a")).unwrap(), index.next_seq()), (None, 1));
        index.rollback().unwrap();
    }

    #[test]
    fn a_transaction_in_which_a_write_failed_cannot_be_committed() {
        let mut index = index();
        index
            .conn
            .execute_batch("CREATE TEMP TRIGGER t BEFORE INSERT ON notes BEGIN SELECT RAISE(ABORT, 'no'); END")
            .unwrap();
        index.begin().unwrap();
        put(&mut index, &file("a", b""));
        assert!(index.set_note("k", Some("v")).is_err());
        assert!(index.put(&file("b", b""), None, Mark::Here, 0).is_err());
        assert!(matches!(index.commit(), Err(IndexError::Transaction { .. })));
        assert_eq!((index.totals().unwrap().files, index.next_seq()), (0, 1));
        put(&mut index, &file("a", b""));
    }

    #[test]
    fn what_sqlite_rolled_back_by_itself_is_not_half_committed() {
        let mut index = index();
        index
            .conn
            .execute_batch("CREATE TEMP TRIGGER t BEFORE INSERT ON notes BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
            .unwrap();
        index.begin().unwrap();
        put(&mut index, &file("a", b""));
        assert!(index.set_note("k", Some("v")).is_err());
        assert!(index.put(&file("b", b""), None, Mark::Here, 0).is_err());
        assert!(index.commit().is_err());
        assert_eq!((count(&index, "entries"), index.next_seq()), (0, 1));
    }
}
