//! What receipts and undoing ask for: which entries have changed within a range of sequence numbers, how many, and what
//! was put into history since a time.

use std::collections::BTreeMap;

use rusqlite::{Row, params};

use super::history::history_columns;
use super::open::{Reader, rows_max};
use super::reports::bounds;
use super::row::{count_at, history_at, path_at};
use super::{HistoryRow, IndexError};
use crate::core::path::RelPath;
use crate::core::thinning::Share;
use crate::core::version::COUNT_MAX;

impl Reader {
    /// How many entries, below a directory or anywhere, have their last change after `after_seq` and not after
    /// `upto_seq`: all, and those among them that are deleted.
    pub fn count_between(
        &self,
        after_seq: u64,
        upto_seq: u64,
        below: Option<&RelPath>,
    ) -> Result<(u64, u64), IndexError> {
        let (after, upto) = range(after_seq, upto_seq);
        let count = match below {
            None => {
                let sql = "SELECT count(*), count(*) FILTER (WHERE kind = 0) FROM entries WHERE seq > ?1 AND seq <= ?2";
                self.first(sql, [after, upto], |_, row| Ok((count_at(row, 0)?, count_at(row, 1)?)))?
            }
            Some(_) => {
                let (from, to) = bounds(below);
                let sql = "SELECT count(*), count(*) FILTER (WHERE kind = 0) FROM entries
                           WHERE seq > ?1 AND seq <= ?2 AND path > ?3 AND path < ?4";
                let both = params![after, upto, from, to];
                self.first(sql, both, |_, row| Ok((count_at(row, 0)?, count_at(row, 1)?)))?
            }
        };
        Ok(count.unwrap_or_default())
    }

    /// The first of them, in the order of their changes.
    pub fn paths_between(
        &self,
        after_seq: u64,
        upto_seq: u64,
        below: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<RelPath>, IndexError> {
        let (after, upto) = range(after_seq, upto_seq);
        let (from, to) = bounds(below);
        let sql = "SELECT path FROM entries WHERE seq > ?1 AND seq <= ?2 AND path > ?3 AND path < ?4
                   ORDER BY seq LIMIT ?5";
        self.rows(sql, params![after, upto, from, to, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// What was put into history after a time, below a directory or anywhere, by path and the earliest first.
    pub fn history_since(
        &self,
        after_ms: i64,
        below: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, IndexError> {
        let (from, to) = bounds(below);
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE path > ?1 AND path < ?2 AND displaced_ms > ?3 ORDER BY path, displaced_ms, slot LIMIT ?4"
        );
        self.rows(sql, params![from, to, after_ms, rows_max(limit)], history_at)
    }

    /// What was put into history after a moment and the slot there, the oldest first.
    pub fn history_by_age(
        &self,
        after: Option<(i64, &RelPath)>,
        before_ms: i64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, IndexError> {
        let (ms, slot) = after.map_or((i64::MIN, Vec::new()), |(ms, slot)| (ms, slot.key()));
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE displaced_ms >= ?1 AND (displaced_ms > ?1 OR slot > ?2) AND displaced_ms < ?3",
            " ORDER BY displaced_ms, slot LIMIT ?4"
        );
        self.rows(sql, params![ms, slot, before_ms, rows_max(limit)], history_at)
    }

    /// Paths with more than one version in history, ascending after `after`, among the next `limit` paths; and the last
    /// path that was looked at, where more follow.
    pub fn paths_with_versions(
        &self,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<(Vec<RelPath>, Option<RelPath>), IndexError> {
        let sql = "SELECT path, count(*) FROM history WHERE path > ?1 GROUP BY path ORDER BY path LIMIT ?2";
        let after = after.map(RelPath::key).unwrap_or_default();
        let rows =
            self.rows(sql, params![after, rows_max(limit)], |_, row| Ok((path_at(row, 0)?, count_at(row, 1)?)))?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|(path, _)| path.clone());
        Ok((rows.into_iter().filter(|(_, count)| *count > 1).map(|(path, _)| path).collect(), next))
    }

    /// True where a version that the same device had brought was put into history after this one, at the same path, by
    /// another device's change. False where it is not known who brought this one.
    pub fn has_later_by_remote(&self, slot: &RelPath) -> Result<bool, IndexError> {
        let sql = "SELECT 1 FROM history AS later, (SELECT * FROM history WHERE slot = ?1) AS this
                   WHERE later.path = this.path AND later.brought_by = this.brought_by AND later.by_remote
                   AND (later.displaced_ms, later.slot) > (this.displaced_ms, this.slot) LIMIT 1";
        Ok(self.first(sql, [slot.key()], |_, _| Ok(()))?.is_some())
    }

    /// How many bytes history has of what each device displaced, and of what not.
    pub fn history_shares(&self) -> Result<BTreeMap<Share, u64>, IndexError> {
        let sql = "SELECT displaced_by, ifnull(displaced_by = brought_by, 0) AS own, CAST(total(disk_size) AS INTEGER)
                   FROM history GROUP BY displaced_by, own";
        let share = |reader: &Reader, row: &Row| {
            let displaced_by = reader.device_or_null(row.get(0)?)?;
            Ok((Share { displaced_by, was_its_own: row.get(1)? }, count_at(row, 2)?))
        };
        Ok(self.rows(sql, [], share)?.into_iter().collect())
    }

    /// When something was put into history last, ms since 1970.
    pub fn history_latest_ms(&self) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT max(displaced_ms) FROM history";
        Ok(self.first(sql, [], |_, row| Ok(row.get(0)?))?.flatten())
    }

    /// How many versions history has, and when the oldest of them was put there, ms since 1970.
    pub fn history_extent(&self) -> Result<(u64, Option<i64>), IndexError> {
        let sql = "SELECT count(*), min(displaced_ms) FROM history";
        Ok(self.first(sql, [], |_, row| Ok((count_at(row, 0)?, row.get(1)?)))?.unwrap_or((0, None)))
    }

    /// How many files lie on this disk whose last change comes after a sequence number. Looks at `limit` rows at most.
    pub fn files_after(&self, after_seq: u64, limit: usize) -> Result<(u64, bool), IndexError> {
        let (after, _) = range(after_seq, 0);
        let sql = "SELECT count(*) FILTER (WHERE kind = 1 AND mark IN (0, 3) AND disk_kind IS NOT NULL), count(*)
                   FROM (SELECT kind, mark, disk_kind FROM entries WHERE seq > ?1 LIMIT ?2)";
        // One more tells whether there are more.
        let looked_max = rows_max(limit.saturating_add(1));
        let found = self.first(sql, [after, looked_max], |_, row| Ok((count_at(row, 0)?, count_at(row, 1)?)))?;
        let (files, entries) = found.unwrap_or_default();
        Ok((files.min(limit as u64), entries > limit as u64))
    }
}

/// Both numbers as they are stored.
fn range(after_seq: u64, upto_seq: u64) -> (i64, i64) {
    (after_seq.min(COUNT_MAX).cast_signed(), upto_seq.min(COUNT_MAX).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn changes_are_counted_and_named_within_a_range_of_numbers() {
        let mut index = index();
        for at in ["a", "d", "d/a", "d/b", "d-x"] {
            put(&mut index, &file(at, b"1"));
        }
        put(&mut index, &tombstone("d/c"));
        let d = path("d");
        assert_eq!(index.count_between(0, 6, None).unwrap().0, 6);
        assert_eq!(index.count_between(3, 5, None).unwrap().0, 2);
        assert_eq!(index.count_between(0, 6, Some(&d)).unwrap().0, 3);
        assert_eq!(index.count_between(3, 5, Some(&d)).unwrap().0, 1);
        assert_eq!(index.count_between(6, 6, None).unwrap().0, 0);
        assert_eq!(index.paths_between(2, u64::MAX, Some(&d), 2).unwrap(), paths(&["d/a", "d/b"]));
        assert_eq!(index.paths_between(0, u64::MAX, None, 1).unwrap(), paths(&["a"]));
    }

    #[test]
    fn only_files_that_lie_here_are_counted_as_held() {
        let mut index = index();
        put(&mut index, &tombstone("gone"));
        index.put(&file("a", b"1"), disk(1), crate::index::Mark::Here, 1).unwrap();
        index.put(&file("away", b"1"), None, crate::index::Mark::Declined, 1).unwrap();
        index.put(&file("b", b"1"), disk(1), crate::index::Mark::Here, 1).unwrap();
        assert_eq!(index.files_after(0, 9).unwrap(), (2, false));
        assert_eq!(index.files_after(2, 9).unwrap(), (1, false));
        assert_eq!(index.files_after(0, 2).unwrap(), (1, true));
        assert_eq!(index.files_after(u64::MAX, 9).unwrap(), (0, false));
    }

    #[test]
    fn what_went_into_history_since_a_time_comes_by_path_and_age() {
        let mut index = index();
        for (slot, at, ms) in [("s1", "d/a", 30), ("s2", "d/a", 20), ("s3", "d/a", 10), ("s4", "e", 30)] {
            index.add_history(&displaced(slot, at, None, ms)).unwrap();
        }
        let since = |ms, below: Option<&str>| {
            let below = below.map(path);
            let rows = index.history_since(ms, below.as_ref(), 9).unwrap();
            rows.into_iter().map(|row| row.slot.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(since(10, None), ["s2", "s1", "s4"]);
        assert_eq!(since(0, Some("d")), ["s3", "s2", "s1"]);
    }
}
