//! Damage done to an index on purpose, as a bad disk or a bug would. For tests.

use rusqlite::types::Value;

use super::IndexError;
use super::counters::Counters;
use super::open::{Devices, Index};

impl Index {
    /// Runs a statement as it is and forgets what was read before, as a restart would. True where the database took it.
    pub fn damage(&mut self, sql: &str, values: &[Value]) -> Result<bool, IndexError> {
        let taken = self.conn.execute(sql, rusqlite::params_from_iter(values)).is_ok();
        self.reader.devices.replace(Devices::default());
        self.reader.counters = Some(self.read(|r| Counters::load(&r.conn))?);
        Ok(taken)
    }
}
