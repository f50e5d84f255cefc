//! Whether the database is in order, asked from outside.

use super::IndexError;
use super::error::Fault;
use super::open::Reader;

impl Reader {
    /// Looks through the whole database; an error where it is damaged. Takes as long as reading the file.
    pub fn check_health(&self) -> Result<(), IndexError> {
        let verdict: Result<String, _> = self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match verdict.map_err(|error| Fault::from(error).at(self.path()))?.as_str() {
            "ok" => Ok(()),
            _ => Err(Fault::Bad("quick_check found damage").at(self.path())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::EpochId;
    use crate::index::Index;

    #[test]
    fn a_damaged_database_is_told_from_a_healthy_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        drop(Index::open(&path, EpochId(1)).unwrap());
        assert!(Reader::open(&path).unwrap().check_health().is_ok());
        let mut bytes = std::fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let found = Reader::open(&path).and_then(|reader| reader.check_health());
        assert!(matches!(found, Err(IndexError::Corrupt { .. })), "{found:?}");
    }
}
