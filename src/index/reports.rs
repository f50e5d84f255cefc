//! What only a report to the user asks for: everything of one kind below a directory, and how many.

use rusqlite::params;

use super::error::Fault;
use super::history::history_columns;
use super::open::{Reader, rows_max};
use super::row::{count_at, history_at, path_at, record_at, record_columns};
use super::{HistoryRow, IndexError, ProblemRow, Record, Totals};
use crate::core::path::{COMPONENT_BYTES_MAX, RelPath};
use crate::core::problem::ProblemKind;
use crate::core::version::COUNT_MAX;

/// What the name of every conflict copy holds.
const CONFLICT_TAG: &[u8] = b".conflict-";

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
        // The inner query runs along the index of paths, which is much smaller than the table.
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM entries WHERE kind <> 0 AND seq IN (SELECT seq FROM entries WHERE instr(path, ?1) > 0)",
            " ORDER BY path LIMIT ?2"
        );
        self.rows(sql, params![CONFLICT_TAG, rows_max(limit)], record_at)
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
        let after_seq = after_seq.min(COUNT_MAX).cast_signed();
        let count = match below {
            // Known without a walk.
            None if after_seq == 0 => {
                let totals = self.totals()?;
                let counts = [totals.files, totals.directories, totals.symlinks, totals.tombstones];
                // They may wrap where rows were lost, until that is noticed.
                Some(counts.into_iter().fold(0, u64::wrapping_add))
            }
            None => {
                self.first("SELECT count(*) FROM entries WHERE seq > ?1", [after_seq], |_, row| count_at(row, 0))?
            }
            Some(dir) => {
                let (from, to) = dir.keys_below();
                let sql = "SELECT count(*) FROM entries WHERE seq > ?1 AND path > ?2 AND path < ?3";
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

    /// How many paths have which kind of trouble.
    pub fn problem_counts(&self) -> Result<Vec<(ProblemKind, u64)>, IndexError> {
        self.rows("SELECT kind, count(*) FROM problems GROUP BY kind", [], |_, row| {
            let kind = row.get_ref(0)?.as_str().ok().and_then(ProblemKind::from_name);
            Ok((kind.ok_or(Fault::Bad("an unknown kind of problem"))?, count_at(row, 1)?))
        })
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
    fn conflict_copies_are_found_by_their_names_along_the_index_of_paths() {
        let mut index = index();
        let copy = "d/a.conflict-20261122-140312-K3QZ7AB.txt";
        for entry in [file(copy, b"1"), file("d/a.txt", b"2"), tombstone("b.conflict-20261122-140312-K3QZ7AB")] {
            put(&mut index, &entry);
        }
        let found: Vec<String> = index.conflict_copies(9).unwrap().iter().map(|r| r.entry.path.to_string()).collect();
        assert_eq!(found, [copy]);
        let plan = "EXPLAIN QUERY PLAN SELECT seq FROM entries WHERE instr(path, x'2e') > 0";
        let step: String = index.conn.query_row(plan, [], |row| row.get(3)).unwrap();
        assert!(step.contains("COVERING INDEX"), "{step}");
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
        assert_eq!(index.problem_counts().unwrap(), [(ProblemKind::Io, 4), (ProblemKind::NoSource, 1)]);
        assert_eq!(index.history_below(Some(&d), 9).unwrap().len(), 2);
        assert_eq!(index.history_below(None, 3).unwrap().len(), 3);
    }
}
