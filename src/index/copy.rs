//! Copies of an index, as a backup or a power cut would leave it. For the simulator.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::IndexError;
use super::error::{Fault, Res};
use super::open::Index;
use crate::core::id::EpochId;

impl Index {
    /// All that is committed, in memory.
    pub fn copy(&self) -> Result<Self, IndexError> {
        let copy = || -> Res<Connection> {
            let mut to = Connection::open_in_memory()?;
            let step = Backup::new(&self.conn, &mut to)?.step(-1)?;
            if step == StepResult::Done { Ok(to) } else { Err(Fault::Bad("it could not be copied in one go")) }
        };
        let path = Path::new(":memory:");
        Self::start(copy().map_err(|fault| fault.at(path))?, path, EpochId(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::RunId;

    #[test]
    fn a_copy_is_the_index_as_it_was_and_can_be_written_to() {
        let mut index = Index::in_memory(EpochId(7)).unwrap();
        index.set_note("k", Some("before")).unwrap();
        let mut copy = index.copy().unwrap();
        index.set_note("k", Some("after")).unwrap();
        assert_eq!((copy.state().unwrap().epoch, copy.note("k").unwrap()), (EpochId(7), Some("before".into())));
        copy.start_run(RunId(3)).unwrap();
        assert_eq!(copy.state().unwrap().run, RunId(3));
    }
}
