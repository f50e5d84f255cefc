//! Copies of an index, as a backup or a power cut would leave it. For the simulator.

use std::cell::RefCell;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::IndexError;
use super::error::{Fault, Res};
use super::files::MEMORY;
use super::open::{Index, set};
use crate::core::id::EpochId;

/// Pages of indexes in memory, bytes: small, because most of a copy of a small index is what is free in its pages.
const PAGE_BYTES: &str = "1024";
/// Databases kept for new indexes: as many as a run has devices, and some.
const USED_MAX: usize = 8;

thread_local! {
    /// Databases of indexes that are over, with their prepared statements: to prepare these takes longer than all else
    /// in a short life.
    static USED: RefCell<Vec<Connection>> = const { RefCell::new(Vec::new()) };
}

/// All that was committed to an index at some time. Cheap to take: it is opened only where it is needed.
pub struct Snapshot(Connection);

/// An index that nothing was ever written to, to make new ones of.
pub struct Template {
    empty: Snapshot,
    /// Its tables in the order in which they are emptied, each with the rows that it begins with.
    tables: Vec<Table>,
}

struct Table {
    name: String,
    rows: Vec<Vec<Value>>,
}

impl Index {
    /// All that is committed.
    pub fn snapshot(&self) -> Result<Snapshot, IndexError> {
        copied(&self.conn).map(Snapshot)
    }

    /// The index is over. Its database serves for a new one.
    pub fn recycle(self) {
        let conn = self.into_connection();
        USED.with_borrow_mut(|used| {
            if used.len() < USED_MAX {
                used.push(conn)
            }
        });
    }
}

impl Snapshot {
    /// The index as it was, in memory.
    pub fn open(&self) -> Result<Index, IndexError> {
        Index::start(copied(&self.0)?, Path::new(MEMORY), EpochId(0))
    }
}

impl Template {
    /// Makes an empty index.
    pub fn new() -> Result<Self, IndexError> {
        let make = || -> Res<Connection> {
            let conn = Connection::open_in_memory()?;
            set(&conn, "page_size", PAGE_BYTES)?;
            Ok(conn)
        };
        let conn = make().map_err(|fault| fault.at(Path::new(MEMORY)))?;
        let empty = Index::start(conn, Path::new(MEMORY), EpochId(0))?.snapshot()?;
        let tables = tables(&empty.0).map_err(|fault| fault.at(Path::new(MEMORY)))?;
        Ok(Self { empty, tables })
    }

    /// A new index of that epoch.
    pub fn open(&self, epoch: EpochId) -> Result<Index, IndexError> {
        let at = Path::new(MEMORY);
        let number = |conn: &Connection| -> Res<usize> {
            Ok(conn.prepare_cached("UPDATE state SET epoch = ?1")?.execute([epoch.0.cast_signed()])?)
        };
        if let Some(used) = USED.with_borrow_mut(Vec::pop)
            && self.empty(&used).is_ok()
        {
            number(&used).map_err(|fault| fault.at(at))?;
            return Index::ready(used, at);
        }
        let conn = copied(&self.empty.0)?;
        number(&conn).map_err(|fault| fault.at(at))?;
        Index::start(conn, at, epoch)
    }

    /// Takes all out of a database but what an empty one holds.
    fn empty(&self, conn: &Connection) -> Res<()> {
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK")?;
        }
        let transaction = conn.unchecked_transaction()?;
        for Table { name, .. } in &self.tables {
            transaction.prepare_cached(&format!("DELETE FROM {name}"))?.execute([])?;
        }
        for Table { name, rows } in &self.tables {
            for row in rows {
                let places = vec!["?"; row.len()].join(", ");
                let sql = format!("INSERT INTO {name} VALUES ({places})");
                transaction.prepare_cached(&sql)?.execute(params_from_iter(row))?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn tables(conn: &Connection) -> Res<Vec<Table>> {
    // Triggers on the others write to the sums, so these come last.
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'
               ORDER BY name IN ('tallies', 'blocks', 'sqlite_sequence'), name";
    let names: Vec<String> = conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    names.into_iter().map(|name| Ok(Table { rows: rows_of(conn, &name)?, name })).collect()
}

fn rows_of(conn: &Connection, table: &str) -> Res<Vec<Vec<Value>>> {
    let mut statement = conn.prepare(&format!("SELECT * FROM {table}"))?;
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn copied(from: &Connection) -> Result<Connection, IndexError> {
    let copy = || -> Res<Connection> {
        let mut to = Connection::open_in_memory()?;
        let step = Backup::new(from, &mut to)?.step(-1)?;
        if step == StepResult::Done { Ok(to) } else { Err(Fault::Bad("it could not be copied in one go")) }
    };
    copy().map_err(|fault| fault.at(Path::new(MEMORY)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{full, path, put};
    use super::*;
    use crate::core::id::RunId;

    #[test]
    fn a_copy_is_the_index_as_it_was_and_can_be_written_to() {
        let mut index = Index::in_memory(EpochId(7)).unwrap();
        index.set_note("k", Some("before")).unwrap();
        let snapshot = index.snapshot().unwrap();
        index.set_note("k", Some("after")).unwrap();
        let mut copy = snapshot.open().unwrap();
        assert_eq!((copy.state().unwrap().epoch, copy.note("k").unwrap()), (EpochId(7), Some("before".into())));
        copy.start_run(RunId(3)).unwrap();
        assert_eq!(copy.state().unwrap().run, RunId(3));
    }

    #[test]
    fn a_template_gives_a_new_index_of_any_epoch() {
        let (template, new) = (Template::new().unwrap(), Index::in_memory(EpochId(9)).unwrap());
        assert_eq!(template.open(EpochId(9)).unwrap().state().unwrap(), new.state().unwrap());
    }

    #[test]
    fn a_database_that_was_used_before_is_like_a_new_one() {
        let template = Template::new().unwrap();
        let rows = |index: &Index| -> Vec<Vec<Vec<Value>>> {
            tables(&index.conn).unwrap().into_iter().map(|table| table.rows).collect()
        };
        let new = rows(&template.open(EpochId(9)).unwrap());
        let mut used = template.open(EpochId(5)).unwrap();
        used.start_run(RunId(3)).unwrap();
        put(&mut used, &full("a"));
        used.log(1, "saved", Some(&path("a")), "text").unwrap();
        used.damage("UPDATE entries SET version = x'00', mark = 3", &[]).unwrap();
        used.begin().unwrap();
        used.set_note("k", Some("never committed")).unwrap();
        used.recycle();
        let again = template.open(EpochId(9)).unwrap();
        assert_eq!(rows(&again), new);
        assert_eq!(again.totals().unwrap(), Default::default());
    }
}
