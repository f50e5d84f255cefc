//! What lies in the folder's history, and the removals that the guard against mass deletion counts.

use rusqlite::params;

use super::error::Res;
use super::open::{Index, Reader, rows_max};
use super::row::{count_at, disk_values, history_at, path_at};
use super::{HistoryRow, IndexError};
use crate::core::content::ContentId;
use crate::core::path::RelPath;

/// Versions of one path that are listed: thinning keeps far fewer.
const VERSIONS_MAX: usize = 10_000;

/// What [`history_at`] reads.
macro_rules! history_columns {
    () => {
        concat!(
            "slot, path, content, depth, size, author, displaced_ms, by_remote, ",
            $crate::index::row::disk_columns!(),
            ", brought_by, displaced_by, placed_ms"
        )
    };
}
pub(super) use history_columns;

impl Index {
    /// Notes what was put into history, in place of what was noted for the slot.
    pub fn add_history(&mut self, row: &HistoryRow) -> Result<(), IndexError> {
        self.write(|index| {
            index.drop_history_raw(&row.slot)?;
            let author = index.number_device(row.author)?;
            let brought_by = row.brought_by.map(|device| index.number_device(device)).transpose()?;
            let displaced_by = row.displaced_by.map(|device| index.number_device(device)).transpose()?;
            let (kind, size, mtime_ns, ctime_ns, inode, mode) = disk_values(Some(&row.disk));
            let sql = concat!(
                "INSERT INTO history (",
                history_columns!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
            );
            let params = params![
                row.slot.key(),
                row.path.key(),
                row.content.as_ref().map(|c| c.id.0.as_slice()),
                row.content.map(|c| c.depth),
                row.content.map(|c| c.size.cast_signed()),
                author,
                row.displaced_ms,
                row.by_remote,
                kind,
                size,
                mtime_ns,
                ctime_ns,
                inode,
                mode,
                brought_by,
                displaced_by,
                row.placed_ms,
            ];
            index.execute(sql, params)?;
            let bytes = &mut index.counters_mut().history_bytes;
            *bytes = bytes.wrapping_add(row.disk.size);
            index.note_use(None, row.content)
        })
    }

    /// Forgets what was noted for a slot.
    pub fn drop_history(&mut self, slot: &RelPath) -> Result<(), IndexError> {
        self.write(|index| index.drop_history_raw(slot))
    }

    /// Notes that a path was removed, for the guard against mass deletion.
    pub fn note_removal(&mut self, at_ms: i64, path: &RelPath) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "INSERT OR REPLACE INTO removals (path, at_ms) VALUES (?1, ?2)";
            index.execute(sql, params![path.key(), at_ms]).map(drop)
        })
    }

    /// The removal turned out to be none, for instance one half of a move.
    pub fn drop_removal(&mut self, path: &RelPath) -> Result<(), IndexError> {
        self.write(|index| index.execute("DELETE FROM removals WHERE path = ?1", [path.key()]).map(drop))
    }

    /// Forgets removals before a time.
    pub fn prune_removals(&mut self, before_ms: i64) -> Result<(), IndexError> {
        self.write(|index| index.execute("DELETE FROM removals WHERE at_ms < ?1", [before_ms]).map(drop))
    }

    fn drop_history_raw(&mut self, slot: &RelPath) -> Res<()> {
        let Some(old) = self.history_slot_raw(slot)? else { return Ok(()) };
        self.execute("DELETE FROM history WHERE slot = ?1", [slot.key()])?;
        let bytes = &mut self.counters_mut().history_bytes;
        *bytes = bytes.wrapping_sub(old.disk.size);
        self.note_use(old.content, None)
    }
}

impl Reader {
    /// What history has of a path, latest first.
    pub fn history_of(&self, path: &RelPath) -> Result<Vec<HistoryRow>, IndexError> {
        self.latest_history_of(path, VERSIONS_MAX)
    }

    /// The same, of the latest only.
    pub fn latest_history_of(&self, path: &RelPath, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE path = ?1 ORDER BY displaced_ms DESC, slot DESC LIMIT ?2"
        );
        self.rows(sql, params![path.key(), rows_max(limit)], history_at)
    }

    /// All of history, in the order of slots after `after_slot`.
    pub fn history_from(&self, after_slot: Option<&RelPath>, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        let sql = concat!("SELECT ", history_columns!(), " FROM history WHERE slot > ?1 ORDER BY slot LIMIT ?2");
        let after = after_slot.map(RelPath::key).unwrap_or_default();
        self.rows(sql, params![after, rows_max(limit)], history_at)
    }

    /// What is noted for a slot.
    pub fn history_slot(&self, slot: &RelPath) -> Result<Option<HistoryRow>, IndexError> {
        self.read(|r| r.history_slot_raw(slot))
    }

    /// Files in history with exactly this content.
    pub fn history_with(&self, id: ContentId, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        self.read(|r| r.history_with_raw(id, limit))
    }

    /// What was displaced before a time, oldest first.
    pub fn history_older(&self, than_ms: i64, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE displaced_ms < ?1 ORDER BY displaced_ms, slot LIMIT ?2"
        );
        self.rows(sql, [than_ms, rows_max(limit)], history_at)
    }

    /// How many paths were removed at or after a time.
    pub fn removals_since(&self, ms: i64) -> Result<u64, IndexError> {
        let sql = "SELECT count(*) FROM removals WHERE at_ms >= ?1";
        Ok(self.first(sql, [ms], |_, row| count_at(row, 0))?.unwrap_or(0))
    }

    /// Paths that were removed at or after a time, oldest first.
    pub fn removals(&self, since_ms: i64, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT path FROM removals WHERE at_ms >= ?1 ORDER BY at_ms, path LIMIT ?2";
        self.rows(sql, [since_ms, rows_max(limit)], |_, row| path_at(row, 0))
    }

    fn history_slot_raw(&self, slot: &RelPath) -> Res<Option<HistoryRow>> {
        let sql = concat!("SELECT ", history_columns!(), " FROM history WHERE slot = ?1");
        self.first_raw(sql, [slot.key()], history_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::content::Content;
    use crate::core::id::DeviceId;

    fn slots(rows: Vec<HistoryRow>) -> Vec<RelPath> {
        rows.into_iter().map(|r| r.slot).collect()
    }

    #[test]
    fn history_is_found_by_path_slot_content_and_age() {
        let mut index = index();
        let content = Content::of_chunk(b"old");
        let rows = [
            displaced("s/1", "a", Some(content), 30),
            displaced("s/2", "a", Some(Content::of_chunk(b"older")), 10),
            displaced("s/3", "b", Some(content), 20),
            HistoryRow { by_remote: false, author: DeviceId::NONE, ..displaced("s/4", "b", None, 40) },
        ];
        for row in &rows {
            index.add_history(row).unwrap();
        }
        assert_eq!(index.history_of(&path("a")).unwrap(), rows[..2]);
        assert_eq!(index.history_slot(&path("s/4")).unwrap().as_ref(), Some(&rows[3]));
        assert_eq!(slots(index.history_with(content.id, 9).unwrap()), paths(&["s/1", "s/3"]));
        assert_eq!(slots(index.history_older(30, 9).unwrap()), paths(&["s/2", "s/3"]));
        assert_eq!(slots(index.history_from(Some(&path("s/2")), 1).unwrap()), paths(&["s/3"]));
        assert_eq!(index.history_from(None, 9).unwrap(), rows);
    }

    #[test]
    fn bytes_in_history_follow_what_is_added_replaced_and_dropped() {
        let mut index = index();
        index.add_history(&displaced("s/1", "a", None, 1)).unwrap();
        index.add_history(&displaced("s/2", "a", None, 2)).unwrap();
        index.add_history(&displaced("s/2", "b", None, 3)).unwrap();
        assert_eq!(index.history_bytes().unwrap(), 200);
        index.drop_history(&path("s/1")).unwrap();
        index.drop_history(&path("unknown")).unwrap();
        assert_eq!(index.history_bytes().unwrap(), 100);
        assert_eq!(slots(index.history_of(&path("b")).unwrap()), paths(&["s/2"]));
    }

    #[test]
    fn removals_are_counted_once_per_path_within_the_window() {
        let mut index = index();
        for (at_ms, at) in [(10, "a"), (20, "b"), (30, "c"), (40, "a")] {
            index.note_removal(at_ms, &path(at)).unwrap();
        }
        assert_eq!(index.removals_since(20).unwrap(), 3);
        assert_eq!(index.removals(30, 9).unwrap(), paths(&["c", "a"]));
        index.drop_removal(&path("c")).unwrap();
        index.prune_removals(40).unwrap();
        assert_eq!(index.removals(0, 9).unwrap(), paths(&["a"]));
    }
}
