//! Opening an index: connections, format versions, the check after a crash.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, params};

use super::IndexError;
use super::counters::Counters;
use super::error::{Fault, Res};
use super::files::{Files, MEMORY};
use super::memo::Memo;
use super::row::{blob, device_from};
use super::transaction::Transaction;
use crate::core::id::{DeviceId, EpochId};
use crate::failpoint;

/// Each brings the format from its position to the next; never changed once released.
const MIGRATIONS: [&str; 6] = [
    include_str!("../../migrations/0001_index.sql"),
    include_str!("../../migrations/0002_tallies.sql"),
    include_str!("../../migrations/0003_links.sql"),
    include_str!("../../migrations/0004_lighter_tallies.sql"),
    include_str!("../../migrations/0005_placed.sql"),
    include_str!("../../migrations/0006_triggers.sql"),
];
/// Marks the file as ours ("p2px" in ASCII).
const APPLICATION_ID: i64 = 0x7032_7078;
/// How long a writer waits for another process's short lock, such as a checkpoint.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(5000);
/// Page cache of the writer, KiB: the inner pages of the trees of a million files.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Page cache of a reader, KiB: there may be several, and they read little.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// The write-ahead log is moved into the database after this many pages (16 MiB): fewer, larger writes.
const CHECKPOINT_PAGES: i64 = 4000;
/// What the write-ahead log is cut back to on disk after it has grown beyond it, bytes.
const LOG_BYTES_KEPT: i64 = 32 * 1024 * 1024;
/// More statements than there are in this module.
const STATEMENTS_MAX: usize = 160;
/// Devices whose numbers are remembered: more than a person has, bounded because peers name authors.
const DEVICES_CACHED_MAX: usize = 1024;

/// Reads an index: its own connection, in any thread or process, also while no agent runs.
///
/// Every call sees one committed state; two calls may see different ones.
pub struct Reader {
    pub(super) conn: Connection,
    path: PathBuf,
    pub(super) devices: RefCell<Devices>,
    /// The writer's sums, which are ahead of the stored ones within a transaction.
    pub(super) counters: Option<Counters>,
}

/// The index of one folder, for its only writer.
pub struct Index {
    pub(super) reader: Reader,
    pub(super) transaction: Transaction,
    pub(super) files: Files,
    pub(super) memo: Memo,
}

/// Numbers of devices that were looked up.
#[derive(Default)]
pub(super) struct Devices {
    by_number: HashMap<i64, DeviceId>,
    by_device: HashMap<DeviceId, i64>,
}

impl Deref for Index {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Reader {
    /// Opens the index at `path` for reading.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let open = || {
            let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | thread_flags())?;
            set_up(&conn, READER_CACHE_KIB)?;
            let found = format_of(&conn)?;
            Ok((conn, found))
        };
        match open().map_err(|fault: Fault| fault.at(path)) {
            Ok((_, 0)) => Err(IndexError::Missing { path: path.into() }),
            Ok((conn, found)) => {
                check_format(path, found)?;
                if found < MIGRATIONS.len() as i64 {
                    return Err(IndexError::Older { path: path.into(), found });
                }
                Ok(Self::new(conn, path))
            }
            Err(IndexError::Database { .. }) if matches!(path.try_exists(), Ok(false)) => {
                Err(IndexError::Missing { path: path.into() })
            }
            Err(error) => Err(error),
        }
    }

    /// Where the database lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has all queries of `work` see one state. It is to be short: what is written meanwhile can't be tidied away. Where
    /// there can be no such view each query has its own.
    pub fn in_one_view<T>(&self, work: impl FnOnce() -> T) -> T {
        let view = self.conn.unchecked_transaction().ok();
        let done = work();
        // It has written nothing, so there is nothing that could be lost.
        drop(view);
        done
    }

    fn new(conn: Connection, path: &Path) -> Self {
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Self { conn, path: path.into(), devices: RefCell::default(), counters: None }
    }

    /// Runs a reading function and says which file its trouble is about.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Self) -> Res<T>) -> Result<T, IndexError> {
        read(self).map_err(|fault| fault.at(&self.path))
    }

    /// All rows of a query.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        parse: impl Fn(&Self, &Row) -> Res<T>,
    ) -> Result<Vec<T>, IndexError> {
        self.read(|r| r.rows_raw(sql, params, parse))
    }

    /// The first row of a query.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        parse: impl Fn(&Self, &Row) -> Res<T>,
    ) -> Result<Option<T>, IndexError> {
        self.read(|r| r.first_raw(sql, params, parse))
    }

    pub(super) fn rows_raw<T>(
        &self,
        sql: &str,
        params: impl Params,
        parse: impl Fn(&Self, &Row) -> Res<T>,
    ) -> Res<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut parsed = Vec::new();
        while let Some(row) = rows.next()? {
            parsed.push(parse(self, row)?);
        }
        Ok(parsed)
    }

    pub(super) fn first_raw<T>(
        &self,
        sql: &str,
        params: impl Params,
        parse: impl Fn(&Self, &Row) -> Res<T>,
    ) -> Res<Option<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(|row| parse(self, row)).transpose()
    }

    /// The device that has this number in the database; 0 is nobody.
    pub(super) fn device(&self, number: i64) -> Res<DeviceId> {
        if number == 0 {
            return Ok(DeviceId::NONE);
        }
        if let Some(device) = self.devices.borrow().by_number.get(&number) {
            return Ok(*device);
        }
        let sql = "SELECT device FROM devices WHERE id = ?1";
        let device = self.first_raw(sql, [number], |_, row| device_from(blob(row, 0)?))?;
        let device = device.ok_or(Fault::Bad("a number that no device has"))?;
        self.devices.borrow_mut().remember(number, device);
        Ok(device)
    }

    /// The device that has this number; `None` where that was not noted.
    pub(super) fn device_or_null(&self, number: Option<i64>) -> Res<Option<DeviceId>> {
        number.map(|number| self.device(number)).transpose()
    }

    /// The number of a device; `None` where the database never heard of it.
    pub(super) fn device_number(&self, device: DeviceId) -> Res<Option<i64>> {
        if device == DeviceId::NONE {
            return Ok(Some(0));
        }
        if let Some(number) = self.devices.borrow().by_device.get(&device) {
            return Ok(Some(*number));
        }
        let sql = "SELECT id FROM devices WHERE device = ?1";
        let number = self.first_raw(sql, params![device.0.as_slice()], |_, row| Ok(row.get(0)?))?;
        if let Some(number) = number {
            self.devices.borrow_mut().remember(number, device);
        }
        Ok(number)
    }
}

impl Index {
    /// Opens the index at `path`; where there is none, makes one that begins with `new_epoch`.
    ///
    /// After a shutdown that was not orderly the database is checked.
    pub fn open(path: &Path, new_epoch: EpochId) -> Result<Self, IndexError> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | thread_flags();
            Ok(Connection::open_with_flags(path, flags)?)
        };
        Self::start(open().map_err(|fault: Fault| fault.at(path))?, path, new_epoch)
    }

    /// An index that lives as long as this value.
    pub fn in_memory(new_epoch: EpochId) -> Result<Self, IndexError> {
        let path = Path::new(MEMORY);
        let conn = Connection::open_in_memory().map_err(|error| Fault::Sql(error).at(path))?;
        Self::start(conn, path, new_epoch)
    }

    pub(super) fn start(conn: Connection, path: &Path, new_epoch: EpochId) -> Result<Self, IndexError> {
        let found = set_up_writer(&conn).map_err(|fault| fault.at(path))?;
        check_format(path, found)?;
        migrate(&conn, found, new_epoch).map_err(|fault| fault.at(path))?;
        check_health(&conn).map_err(|fault| fault.at(path))?;
        failpoint::hit("index.opened");
        Self::ready(conn, path)
    }

    /// The index in a database that is set up and healthy.
    pub(super) fn ready(conn: Connection, path: &Path) -> Result<Self, IndexError> {
        let mut reader = Reader::new(conn, path);
        reader.counters = Some(reader.read(|r| Counters::load(&r.conn))?);
        Ok(Self { reader, transaction: Transaction::default(), files: Files::default(), memo: Memo::default() })
    }

    /// The database without what is known of it here.
    #[cfg(feature = "testing")]
    pub(super) fn into_connection(self) -> Connection {
        self.reader.conn
    }

    pub(super) fn counters_mut(&mut self) -> &mut Counters {
        self.reader.counters.as_mut().expect("an index that is open for writing has its sums loaded")
    }

    /// The number of a device, given now if it has none.
    pub(super) fn number_device(&mut self, device: DeviceId) -> Res<i64> {
        if let Some(number) = self.device_number(device)? {
            return Ok(number);
        }
        self.execute("INSERT INTO devices (device) VALUES (?1)", params![device.0.as_slice()])?;
        let number = self.conn.last_insert_rowid();
        self.devices.borrow_mut().remember(number, device);
        Ok(number)
    }
}

impl Devices {
    fn remember(&mut self, number: i64, device: DeviceId) {
        if self.by_number.len() >= DEVICES_CACHED_MAX {
            *self = Devices::default();
        }
        self.by_number.insert(number, device);
        self.by_device.insert(device, number);
    }
}

/// A limit of rows as SQLite takes it.
pub(super) fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A connection is used by one thread at a time, which the borrow checker sees to.
fn thread_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn set_up(conn: &Connection, cache_kib: i64) -> Res<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise statements that use an index on an expression are parsed anew for every value that is bound.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    set(conn, "cache_size", &(-cache_kib).to_string())?;
    set(conn, "temp_store", "MEMORY")
}

/// Settings of the writer; returns the format's version.
fn set_up_writer(conn: &Connection) -> Res<i64> {
    set_up(conn, WRITER_CACHE_KIB)?;
    // Read first: it tells a damaged file from one that can't be locked.
    let found = format_of(conn)?;
    set(conn, "journal_mode", "WAL")?;
    set(conn, "synchronous", "NORMAL")?;
    set(conn, "foreign_keys", "ON")?;
    set(conn, "wal_autocheckpoint", &CHECKPOINT_PAGES.to_string())?;
    set(conn, "journal_size_limit", &LOG_BYTES_KEPT.to_string())?;
    Ok(found)
}

/// Sets a pragma, whether or not it answers with its new value.
pub(super) fn set(conn: &Connection, pragma: &str, value: &str) -> Res<()> {
    let mut statement = conn.prepare(&format!("PRAGMA {pragma} = {value}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn pragma_number(conn: &Connection, pragma: &str) -> Res<i64> {
    Ok(conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?)
}

/// The version of the format; 0 for a database that holds nothing yet.
fn format_of(conn: &Connection) -> Res<i64> {
    let found = pragma_number(conn, "user_version")?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let ours = pragma_number(conn, "application_id")? == APPLICATION_ID;
    match (found, tables) {
        (0, 0) => Ok(0),
        (1.., 1..) if ours => Ok(found),
        _ => Err(Fault::Bad("it is not an index")),
    }
}

fn check_format(path: &Path, found: i64) -> Result<(), IndexError> {
    let known = MIGRATIONS.len() as i64;
    if found > known { Err(IndexError::Newer { path: path.into(), found, known }) } else { Ok(()) }
}

fn migrate(conn: &Connection, found: i64, new_epoch: EpochId) -> Res<()> {
    for (number, sql) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let transaction = conn.unchecked_transaction()?;
        transaction.execute_batch(sql)?;
        failpoint::hit("index.migrating");
        if number == 1 {
            let sql = "INSERT INTO state VALUES (1, ?1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)";
            transaction.execute(sql, [new_epoch.0.cast_signed()])?;
            set(&transaction, "application_id", &APPLICATION_ID.to_string())?;
        }
        set(&transaction, "user_version", &number.to_string())?;
        failpoint::hit("index.numbered");
        transaction.commit()?;
        failpoint::hit("index.migrated");
    }
    Ok(())
}

/// After a crash the whole database is checked; a healthy shutdown left it as it was.
fn check_health(conn: &Connection) -> Res<()> {
    let clean: Option<bool> = conn
        .query_row("SELECT clean FROM state", [], |row| row.get(0))
        .optional()
        .map_err(|error| if is_schema_error(&error) { Fault::Bad("a table is missing") } else { error.into() })?;
    match clean {
        None => Err(Fault::Bad("it has lost its state")),
        Some(true) => Ok(()),
        Some(false) => {
            let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict == "ok" { Ok(()) } else { Err(Fault::Bad("quick_check found damage")) }
        }
    }
}

fn is_schema_error(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::id::RunId;
    use std::fs;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        (dir, path)
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let (_dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        let state = index.state().unwrap();
        assert_eq!((state.epoch, state.last_seq, state.scanned, state.clean), (EPOCH, 0, false, true));
        index.start_run(RunId(u64::MAX)).unwrap();
        put(&mut index, &full("a"));
        index.set_scanned().unwrap();
        let (digest, record) = (index.digest().unwrap(), index.record(&path("a")).unwrap());
        drop(index);

        let index = Index::open(&at, EpochId(1)).unwrap();
        let state = index.state().unwrap();
        assert_eq!((state.epoch, state.run, state.last_seq), (EPOCH, RunId(u64::MAX), 1));
        assert!(state.scanned && !state.clean);
        assert_eq!((index.digest().unwrap(), index.record(&path("a")).unwrap()), (digest, record));
        assert_eq!(index.next_seq(), 2);
    }

    #[test]
    fn making_durable_works_with_a_log_and_without_one() {
        let (_dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        put(&mut index, &full("a"));
        index.make_durable().unwrap();
        index.set_clean().unwrap();
        index.make_durable().unwrap();
        Index::in_memory(EPOCH).unwrap().make_durable().unwrap();
    }

    #[test]
    fn a_reader_sees_what_is_committed_and_only_that() {
        let (_dir, at) = place();
        assert!(Reader::open(&at).err().unwrap().is_missing());
        let mut index = Index::open(&at, EPOCH).unwrap();
        put(&mut index, &full("a"));
        let reader = Reader::open(&at).unwrap();
        index.begin().unwrap();
        put(&mut index, &file("b", b"12"));
        assert_eq!(index.totals().unwrap().files, 2);
        assert_eq!((reader.totals().unwrap().files, reader.record(&path("b")).unwrap()), (1, None));
        index.commit().unwrap();
        assert_eq!(reader.totals().unwrap(), index.totals().unwrap());
        assert_eq!(reader.digest().unwrap(), index.digest().unwrap());
        assert_eq!(reader.state().unwrap(), index.state().unwrap());
        assert_eq!(reader.record(&path("a")).unwrap(), index.record(&path("a")).unwrap());
    }

    #[test]
    fn a_reader_works_without_an_agent_after_a_good_end_and_after_a_crash() {
        let (dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        put(&mut index, &file("a", b""));
        // A copy of the files of an open index is what a crash leaves.
        let crashed = dir.path().join("crashed.db");
        fs::copy(&at, &crashed).unwrap();
        fs::copy(dir.path().join("index.db-wal"), dir.path().join("crashed.db-wal")).unwrap();
        assert_eq!(Reader::open(&crashed).unwrap().totals().unwrap().files, 1);
        index.set_clean().unwrap();
        drop(index);
        let reader = Reader::open(&at).unwrap();
        assert_eq!(reader.totals().unwrap().files, 1);
        assert!(reader.state().unwrap().clean);
    }

    #[test]
    fn an_orderly_shutdown_leaves_everything_in_the_database_itself() {
        let (dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        index.start_run(RunId(1)).unwrap();
        put(&mut index, &file("a", b""));
        index.set_clean().unwrap();
        assert_eq!(fs::metadata(dir.path().join("index.db-wal")).unwrap().len(), 0);
        assert!(index.state().unwrap().clean);
        index.start_run(RunId(2)).unwrap();
        assert!(!index.state().unwrap().clean);
    }

    #[test]
    fn a_file_that_is_no_database_is_damage() {
        let (_dir, at) = place();
        fs::write(&at, vec![b'x'; 10_000]).unwrap();
        assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt());
        assert!(Reader::open(&at).err().unwrap().is_corrupt());
    }

    #[test]
    fn another_programs_database_is_not_taken_for_an_index() {
        let (_dir, at) = place();
        Connection::open(&at).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt());
        assert!(Reader::open(&at).err().unwrap().is_corrupt());
    }

    #[test]
    fn damage_in_the_middle_is_noticed_after_a_crash() {
        let (_dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        index.begin().unwrap();
        for n in 0..2000 {
            put(&mut index, &file(&format!("some/longer/path/{n}"), b""));
        }
        index.commit().unwrap();
        index.set_clean().unwrap();
        index.start_run(RunId(1)).unwrap();
        drop(index);
        let mut bytes = fs::read(&at).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 20_000].fill(0xa5);
        fs::write(&at, bytes).unwrap();
        assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt());
    }

    #[test]
    fn a_database_cut_short_or_without_its_tables_is_damage() {
        let (_dir, at) = place();
        let mut index = Index::open(&at, EPOCH).unwrap();
        index.start_run(RunId(1)).unwrap();
        index.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); DROP TABLE state").unwrap();
        drop(index);
        assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt());
        let bytes = fs::read(&at).unwrap();
        fs::write(&at, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt());
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_and_left_alone() {
        let (_dir, at) = place();
        let index = Index::open(&at, EPOCH).unwrap();
        set(&index.conn, "user_version", "99").unwrap();
        drop(index);
        for error in [Index::open(&at, EPOCH).err().unwrap(), Reader::open(&at).err().unwrap()] {
            assert!(matches!(error, IndexError::Newer { found: 99, .. }), "{error}");
            assert!(error.to_string().contains("newer version"));
        }
    }

    #[test]
    fn an_empty_file_is_a_new_index_to_the_writer_and_none_to_a_reader() {
        let (_dir, at) = place();
        fs::write(&at, b"").unwrap();
        assert!(Reader::open(&at).err().unwrap().is_missing());
        assert_eq!(Index::open(&at, EPOCH).unwrap().state().unwrap().epoch, EPOCH);
    }

    #[test]
    fn every_query_that_is_asked_often_uses_an_index() {
        let index = index();
        let id = "substr(content, 1, 8) = substr(?1, 1, 8) AND content = ?1";
        for (sql, plan) in [
            ("SELECT * FROM entries WHERE path = ?1".to_string(), "sqlite_autoindex_entries_1"),
            ("SELECT * FROM entries WHERE path > ?1 AND path < ?2 ORDER BY path".into(), "sqlite_autoindex_entries_1"),
            ("SELECT * FROM entries WHERE seq > ?1 ORDER BY seq".into(), "INTEGER PRIMARY KEY"),
            (format!("SELECT * FROM entries WHERE kind = 1 AND {id}"), "entries_content"),
            (format!("SELECT * FROM history WHERE content IS NOT NULL AND {id}"), "history_content"),
            (
                "SELECT path FROM entries WHERE kind = 0 AND changed_ms < ?1 AND seq <= ?2 AND mark = 0
                 ORDER BY changed_ms LIMIT 5"
                    .into(),
                "entries_tombstones",
            ),
            ("SELECT 1 FROM entries WHERE path > ?1 AND path < ?2 AND kind <> 0".into(), "sqlite_autoindex_entries_1"),
            ("SELECT 1 FROM rivals WHERE path = ?1 AND kind = 0".into(), "path=?"),
            (
                "SELECT * FROM problems WHERE retry_ms IS NOT NULL AND retry_ms <= ?1 ORDER BY retry_ms, path".into(),
                "problems_retry",
            ),
            ("SELECT path FROM removals WHERE at_ms >= ?1 ORDER BY at_ms, path".into(), "removals_at"),
            ("SELECT * FROM entries WHERE mark = ?1 AND mark <> 0 ORDER BY path DESC".into(), "entries_mark"),
            (
                "SELECT * FROM entries WHERE kind = 0 AND changed_ms < ?1 ORDER BY changed_ms".into(),
                "entries_tombstones",
            ),
            ("SELECT id FROM lists WHERE substr(own, 1, 8) = substr(?1, 1, 8) AND own = ?1".into(), "lists_own"),
            ("SELECT own FROM places JOIN lists ON lists.id = list WHERE prefix = ?1".into(), "PRIMARY KEY (prefix=?)"),
            ("SELECT * FROM rivals WHERE path = ?1 ORDER BY peer".into(), "PRIMARY KEY (path=?)"),
            ("SELECT * FROM rivals WHERE peer = ?1 ORDER BY seq".into(), "rivals_peer"),
            ("SELECT * FROM history WHERE path = ?1 ORDER BY displaced_ms DESC, slot DESC".into(), "history_path"),
        ] {
            let mut statement = index.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps: Vec<String> = statement
                .query_map(params!["", ""].split_at(statement_parameters(&sql)).0, |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(steps.iter().any(|s| s.contains(plan)), "{sql}: {steps:?}");
            assert!(steps.iter().all(|s| !s.contains("TEMP B-TREE") && !s.starts_with("SCAN")), "{sql}: {steps:?}");
        }
    }

    #[test]
    fn statements_are_not_parsed_again_for_every_value() {
        let index = index();
        let sql = "SELECT id FROM lists WHERE substr(own, 1, 8) = substr(?1, 1, 8) AND own = ?1";
        let mut statement = index.conn.prepare(sql).unwrap();
        for n in 0..20u8 {
            statement.query([[n; 32].as_slice()]).unwrap().next().unwrap();
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    fn statement_parameters(sql: &str) -> usize {
        if sql.contains("?2") { 2 } else { usize::from(sql.contains("?1")) }
    }
}
