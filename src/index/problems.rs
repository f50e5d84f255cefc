//! Problems: per-path trouble, with when it is to be tried again.

use rusqlite::{Row, params};

use super::error::{Fault, Res};
use super::log::cut_text;
use super::open::{Index, Reader, rows_max};
use super::row::{count_at, path_at};
use super::{IndexError, ProblemRow};
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};

macro_rules! problem_columns {
    () => {
        "path, kind, text, since_ms, retry_ms, attempts"
    };
}

impl Index {
    /// Notes trouble at a path. The same kind of trouble goes on since when it began; every call is an attempt.
    pub fn set_problem(
        &mut self,
        path: &RelPath,
        problem: &Problem,
        now_ms: i64,
        retry_ms: Option<i64>,
    ) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "INSERT INTO problems (path, kind, text, since_ms, retry_ms, attempts)
                       VALUES (?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT (path) DO UPDATE SET
                       since_ms = iif(kind = excluded.kind, since_ms, excluded.since_ms),
                       attempts = min(iif(kind = excluded.kind, attempts, 0) + 1, 4294967295),
                       kind = excluded.kind, text = excluded.text, retry_ms = excluded.retry_ms";
            index.memo.note_problem();
            let params = params![path.key(), problem.kind.name(), cut_text(&problem.text), now_ms, retry_ms];
            index.execute(sql, params).map(drop)
        })
    }

    /// The trouble at a path is over.
    pub fn clear_problem(&mut self, path: &RelPath) -> Result<(), IndexError> {
        if !self.has_problems()? {
            return Ok(());
        }
        self.write(|index| {
            index.memo.forget_problems();
            index.execute("DELETE FROM problems WHERE path = ?1", [path.key()]).map(drop)
        })
    }
}

impl Reader {
    /// The trouble at a path.
    pub fn problem(&self, path: &RelPath) -> Result<Option<ProblemRow>, IndexError> {
        let sql = concat!("SELECT ", problem_columns!(), " FROM problems WHERE path = ?1");
        self.first(sql, [path.key()], problem_at)
    }

    /// All trouble, in path order.
    pub fn problems(&self, limit: usize) -> Result<Vec<ProblemRow>, IndexError> {
        let sql = concat!("SELECT ", problem_columns!(), " FROM problems ORDER BY path LIMIT ?1");
        self.rows(sql, [rows_max(limit)], problem_at)
    }

    /// Paths that are to be tried again by now, longest due first. What is due later than `latest_ms` was noted before
    /// the clock was set back, and is due too.
    pub fn problems_due(&self, now_ms: i64, latest_ms: i64, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT path FROM problems WHERE retry_ms IS NOT NULL AND (retry_ms <= ?1 OR retry_ms > ?2)
                   ORDER BY retry_ms, path LIMIT ?3";
        self.rows(sql, [now_ms, latest_ms, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// When the next problem is to be tried again.
    pub fn next_problem_ms(&self) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT retry_ms FROM problems WHERE retry_ms IS NOT NULL ORDER BY retry_ms LIMIT 1";
        self.first(sql, [], |_, row| Ok(row.get(0)?))
    }

    /// How many paths have trouble.
    pub fn count_problems(&self) -> Result<u64, IndexError> {
        Ok(self.first("SELECT count(*) FROM problems", [], |_, row| count_at(row, 0))?.unwrap_or(0))
    }
}

fn problem_at(_: &Reader, row: &Row) -> Res<ProblemRow> {
    let kind = row.get_ref(1)?.as_str().ok().and_then(ProblemKind::from_name);
    Ok(ProblemRow {
        path: path_at(row, 0)?,
        problem: Problem::new(kind.ok_or(Fault::Bad("an unknown kind of problem"))?, row.get::<_, String>(2)?),
        since_ms: row.get(3)?,
        retry_ms: row.get(4)?,
        attempts: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_same_trouble_again_is_an_attempt_and_another_kind_begins_anew() {
        let mut index = index();
        let at = path("a");
        let full = Problem::new(ProblemKind::NoSpace, "the disk is full");
        index.set_problem(&at, &full, 100, Some(200)).unwrap();
        index.set_problem(&at, &full, 150, Some(300)).unwrap();
        let row = ProblemRow { path: at.clone(), problem: full, since_ms: 100, retry_ms: Some(300), attempts: 2 };
        assert_eq!(index.problem(&at).unwrap(), Some(row));
        let busy = Problem::new(ProblemKind::Busy, "x".repeat(5000));
        index.set_problem(&at, &busy, 160, None).unwrap();
        let row = index.problem(&at).unwrap().unwrap();
        assert_eq!((row.since_ms, row.retry_ms, row.attempts), (160, None, 1));
        assert_eq!((row.problem.kind, row.problem.text.len()), (ProblemKind::Busy, super::super::TEXT_BYTES_MAX));
        index.clear_problem(&at).unwrap();
        assert_eq!((index.problem(&at).unwrap(), index.count_problems().unwrap()), (None, 0));
    }

    #[test]
    fn problems_fall_due_in_the_order_of_their_times() {
        let mut index = index();
        let io = Problem::new(ProblemKind::Io, "input or output error");
        assert_eq!(index.next_problem_ms().unwrap(), None);
        for (at, retry_ms) in [("never", None), ("late", Some(30)), ("soon", Some(-10)), ("now", Some(20))] {
            index.set_problem(&path(at), &io, 0, retry_ms).unwrap();
        }
        assert_eq!(index.problems_due(20, 100, 9).unwrap(), paths(&["soon", "now"]));
        assert_eq!(index.problems_due(20, 29, 9).unwrap(), paths(&["soon", "now", "late"]));
        assert_eq!(index.next_problem_ms().unwrap(), Some(-10));
        let all: Vec<RelPath> = index.problems(3).unwrap().into_iter().map(|p| p.path).collect();
        assert_eq!(all, paths(&["late", "never", "now"]));
    }
}
