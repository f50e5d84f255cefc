//! Copies of an index, as a backup or a power cut would leave it. For the simulator.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::IndexError;
use super::error::{Fault, Res};
use super::open::Index;
use crate::core::id::EpochId;

const MEMORY: &str = ":memory:";

/// All that was committed to an index at some time. Cheap to take: it is opened only where it is needed.
pub struct Snapshot(Connection);

impl Index {
    /// All that is committed.
    pub fn snapshot(&self) -> Result<Snapshot, IndexError> {
        copied(&self.conn).map(Snapshot)
    }
}

impl Snapshot {
    /// An index that nothing was ever written to.
    pub fn empty() -> Result<Self, IndexError> {
        Index::in_memory(EpochId(0))?.snapshot()
    }

    /// The index as it was, in memory.
    pub fn open(&self) -> Result<Index, IndexError> {
        Index::start(copied(&self.0)?, Path::new(MEMORY), EpochId(0))
    }

    /// The same for an index that was empty, as a new one of that epoch.
    pub fn open_new(&self, epoch: EpochId) -> Result<Index, IndexError> {
        let conn = copied(&self.0)?;
        let number = || Ok(conn.execute("UPDATE state SET epoch = ?1", [epoch.0.cast_signed()])?);
        number().map_err(|fault: Fault| fault.at(Path::new(MEMORY)))?;
        Index::start(conn, Path::new(MEMORY), epoch)
    }
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
    fn an_empty_one_opens_as_a_new_index_of_any_epoch() {
        let (empty, new) = (Snapshot::empty().unwrap(), Index::in_memory(EpochId(9)).unwrap());
        assert_eq!(empty.open_new(EpochId(9)).unwrap().state().unwrap(), new.state().unwrap());
    }
}
