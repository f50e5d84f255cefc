//! What only a report to the user asks for: everything of one kind below a directory, and how many.

use rusqlite::params;

use super::history::history_columns;
use super::open::{Reader, rows_max};
use super::row::{count_at, history_at, path_at, record_at, record_columns};
use super::{HistoryRow, IndexError, ProblemRow, Record, Totals};
use crate::core::path::{COMPONENT_BYTES_MAX, RelPath};
use crate::core::problem::ProblemKind;
use crate::core::version::COUNT_MAX;

/// Versions that one question of a peer has looked at, at most: some milliseconds.
const HISTORY_LOOKS_MAX: usize = 20_000;

const LATEST_BELOW: &str = concat!(
    "SELECT ",
    history_columns!(),
    " FROM (SELECT * FROM history INDEXED BY history_path WHERE path > ?1 AND path < ?2 LIMIT ?4)",
    " ORDER BY displaced_ms DESC, slot DESC LIMIT ?3"
);
const LATEST_OF_ALL: &str = concat!(
    "SELECT ",
    history_columns!(),
    " FROM (SELECT * FROM history INDEXED BY history_displaced ORDER BY displaced_ms DESC, slot DESC LIMIT ?4)",
    " WHERE path > ?1 AND path < ?2 ORDER BY displaced_ms DESC, slot DESC LIMIT ?3"
);

impl Reader {
    /// Paths with rivals below a directory or anywhere, ascending after `after`.
    pub fn rival_paths(
        &self,
        after: Option<&RelPath>,
        below: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<RelPath>, IndexError> {
        let (from, to) = bounds(below);
        let from = after.map(RelPath::key).unwrap_or_default().max(from);
        let sql = "SELECT DISTINCT path FROM rivals WHERE path > ?1 AND path < ?2 ORDER BY path LIMIT ?3";
        self.rows(sql, params![from, to, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// Paths of live entries below the root's directories that have this name, in path order.
    pub fn named(&self, name: &[u8], limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let ending = [&[0], name].concat();
        // Along the index of paths, as below.
        let sql = "SELECT path FROM entries WHERE kind <> 0
                   AND seq IN (SELECT seq FROM entries WHERE substr(path, -length(?1)) = ?1) ORDER BY path LIMIT ?2";
        self.rows(sql, params![ending, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// Live entries whose path looks like that of a conflict copy, in path order.
    pub fn conflict_copies(&self, limit: usize) -> Result<Vec<Record>, IndexError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM entries INDEXED BY entries_conflicts",
            " WHERE kind <> 0 AND instr(path, x'2e636f6e666c6963742d') > 0 ORDER BY path LIMIT ?1"
        );
        self.rows(sql, [rows_max(limit)], record_at)
    }

    /// How much lies below a directory.
    pub fn totals_below(&self, dir: &RelPath) -> Result<Totals, IndexError> {
        let (from, to) = dir.keys_below();
        let sql = "SELECT kind, count(*), total(size) FROM entries WHERE path > ?1 AND path < ?2 GROUP BY kind";
        let rows =
            self.rows(sql, params![from, to], |_, row| Ok((row.get::<_, i64>(0)?, count_at(row, 1)?, row.get(2)?)))?;
        let mut totals = Totals::default();
        for (kind, count, bytes) in rows {
            let bytes: f64 = bytes;
            match kind {
                0 => totals.tombstones = count,
                1 => (totals.files, totals.bytes) = (count, bytes as u64),
                2 => totals.directories = count,
                _ => totals.symlinks = count,
            }
        }
        Ok(totals)
    }

    /// How many entries, below a directory or anywhere, changed after a sequence number.
    pub fn count_since(&self, after_seq: u64, below: Option<&RelPath>) -> Result<u64, IndexError> {
        let count = match below {
            None => Some(self.tally_since(after_seq)?.items),
            Some(dir) => {
                let (from, to) = dir.keys_below();
                let sql = "SELECT count(*) FROM entries WHERE seq > ?1 AND path > ?2 AND path < ?3";
                let after_seq = after_seq.min(COUNT_MAX).cast_signed();
                self.first(sql, params![after_seq, from, to], |_, row| count_at(row, 0))?
            }
        };
        Ok(count.unwrap_or(0))
    }

    /// Trouble below a directory or anywhere, in path order, but for one kind of it.
    pub fn problems_below(
        &self,
        below: Option<&RelPath>,
        except: ProblemKind,
        limit: usize,
    ) -> Result<Vec<ProblemRow>, IndexError> {
        let (from, to) = bounds(below);
        let sql = "SELECT path FROM problems WHERE path > ?1 AND path < ?2 AND kind <> ?3 ORDER BY path LIMIT ?4";
        let paths = self.rows(sql, params![from, to, except.name(), rows_max(limit)], |_, row| path_at(row, 0))?;
        let mut problems = Vec::with_capacity(paths.len());
        for path in &paths {
            problems.extend(self.problem(path)?);
        }
        Ok(problems)
    }

    /// Paths with trouble after `after`, in path order, but for one kind of it.
    pub fn problem_paths(
        &self,
        after: Option<&RelPath>,
        except: ProblemKind,
        limit: usize,
    ) -> Result<Vec<RelPath>, IndexError> {
        let after = after.map(RelPath::key).unwrap_or_default();
        let sql = "SELECT path FROM problems WHERE path > ?1 AND kind <> ?2 ORDER BY path LIMIT ?3";
        self.rows(sql, params![after, except.name(), rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// What history has of everything below a directory or anywhere, latest first.
    pub fn history_below(&self, dir: Option<&RelPath>, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        let (from, to) = bounds(dir);
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE path > ?1 AND path < ?2 ORDER BY displaced_ms DESC, slot DESC LIMIT ?3"
        );
        self.rows(sql, params![from, to, rows_max(limit)], history_at)
    }

    /// The latest that history has of everything below a directory or anywhere, for who may ask as often as he likes: a
    /// bounded number of rows is looked at, so of a directory what went long ago may be missing.
    pub fn latest_history_below(&self, dir: Option<&RelPath>, limit: usize) -> Result<Vec<HistoryRow>, IndexError> {
        let (from, to) = bounds(dir);
        let most = rows_max(HISTORY_LOOKS_MAX);
        let sql = "SELECT count(*) FROM (SELECT 1 FROM history WHERE path > ?1 AND path < ?2 LIMIT ?3)";
        let count = self.first(sql, params![from, to, most], |_, row| count_at(row, 0))?.unwrap_or(0);
        // Either there are few below it, or many of the latest are.
        let sql = if count < HISTORY_LOOKS_MAX as u64 { LATEST_BELOW } else { LATEST_OF_ALL };
        self.rows(sql, params![from, to, rows_max(limit), most], history_at)
    }
}

/// Bounds of the keys below a directory, or of all keys.
pub(super) fn bounds(below: Option<&RelPath>) -> (Vec<u8>, Vec<u8>) {
    // No component is as long, so no key reaches that far.
    below.map_or_else(|| (Vec::new(), vec![0xff; COMPONENT_BYTES_MAX + 1]), RelPath::keys_below)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::entry::Kind;
    use crate::core::problem::Problem;

    #[test]
    fn the_latest_below_a_directory_are_found_at_a_bounded_cost() {
        let mut index = index();
        index.begin().unwrap();
        let row = |at: &str, n: i64| displaced(&format!("{at}~{n}"), at, None, n);
        for n in 0..HISTORY_LOOKS_MAX as i64 {
            index.add_history(&row("d/a", n)).unwrap();
        }
        index.add_history(&row("e/b", 5)).unwrap();
        index.commit().unwrap();
        let latest = |dir: Option<&str>, limit| {
            let rows = index.latest_history_below(dir.map(path).as_ref(), limit).unwrap();
            rows.into_iter().map(|row| row.slot.to_string()).collect::<Vec<_>>()
        };
        let last = HISTORY_LOOKS_MAX as i64 - 1;
        assert_eq!(latest(None, 2), [format!("d/a~{last}"), format!("d/a~{}", last - 1)]);
        assert_eq!(latest(Some("d"), 1), [format!("d/a~{last}")]);
        assert_eq!(latest(Some("e"), 9), ["e/b~5"]);
        for sql in [LATEST_BELOW, LATEST_OF_ALL] {
            let mut statement = index.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = statement.query_map(params!["", "", 1, 1], |row| row.get::<_, String>(3)).unwrap();
            let steps: Vec<String> = steps.map(Result::unwrap).collect();
            assert!(steps.iter().any(|step| step.contains("USING INDEX history_")), "{steps:?}");
        }
    }

    #[test]
    fn what_lies_below_a_directory_is_counted_without_its_siblings() {
        let mut index = index();
        put(&mut index, &of_kind("d", Kind::Directory));
        let last = put(&mut index, &file("d/a", b"12"));
        for entry in [file("d/s/b", b"123"), tombstone("d/gone"), file("d-x", b"1"), file("d.x", b"1")] {
            put(&mut index, &entry);
        }
        let expected = Totals { files: 2, bytes: 5, tombstones: 1, ..Totals::default() };
        assert_eq!(index.totals_below(&path("d")).unwrap(), expected);
        assert_eq!(index.count_since(last, Some(&path("d"))).unwrap(), 2);
        assert_eq!(index.count_since(last, None).unwrap(), 4);
        assert_eq!(index.count_since(0, None).unwrap(), 6);
        assert_eq!(index.count_since(u64::MAX, None).unwrap(), 0);
    }

    #[test]
    fn conflict_copies_are_found_by_their_names() {
        let mut index = index();
        let copy = "d/a.conflict-20261122-140312-K3QZ7AB.txt";
        for entry in [file(copy, b"1"), file("d/a.txt", b"2"), tombstone("b.conflict-20261122-140312-K3QZ7AB")] {
            put(&mut index, &entry);
        }
        let found: Vec<String> = index.conflict_copies(9).unwrap().iter().map(|r| r.entry.path.to_string()).collect();
        assert_eq!(found, [copy]);
    }

    #[test]
    fn rivals_problems_and_history_are_listed_below_a_directory_or_anywhere() {
        let mut index = index();
        for at in ["d/a", "d/b", "d", "e", "\u{7f}"] {
            index.put_rival(PEER, &announced(file(at, b"1"), 1)).unwrap();
            index.set_problem(&path(at), &Problem::new(ProblemKind::Io, "x"), 1, None).unwrap();
            index.add_history(&displaced(&format!("slot {at}"), at, None, 5)).unwrap();
        }
        index.set_problem(&path("d/b"), &Problem::new(ProblemKind::NoSource, "x"), 1, None).unwrap();
        let d = path("d");
        assert_eq!(index.rival_paths(None, Some(&d), 9).unwrap(), paths(&["d/a", "d/b"]));
        assert_eq!(index.rival_paths(Some(&path("d/a")), Some(&d), 9).unwrap(), paths(&["d/b"]));
        assert_eq!(index.rival_paths(Some(&d), None, 2).unwrap(), paths(&["d/a", "d/b"]));
        assert_eq!(index.rival_paths(None, None, 9).unwrap().len(), 5);
        let problems = |below| index.problems_below(below, ProblemKind::NoSource, 9).unwrap().len();
        assert_eq!((problems(Some(&d)), problems(None)), (1, 4));
        assert_eq!(index.history_below(Some(&d), 9).unwrap().len(), 2);
        assert_eq!(index.history_below(None, 3).unwrap().len(), 3);
    }
}
