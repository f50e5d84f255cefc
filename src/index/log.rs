//! The log of what happened to the user's files, and notes about the folder as a whole.

use rusqlite::{Row, params};

use super::error::Res;
use super::open::{Index, Reader, rows_max};
use super::row::{blob_or_null, path_at};
use super::{EventRow, IndexError};
use crate::core::path::RelPath;

/// Most lines of the log: weeks of a busy folder, a few megabytes.
pub const EVENTS_MAX: usize = 10_000;
/// Lines that go at once when the log is full, so that not every line costs a deletion.
const EVENTS_TRIMMED: i64 = 500;
/// Longest text of a log line or a problem, bytes: what a peer or a system call says is not ours to bound.
pub const TEXT_BYTES_MAX: usize = 2048;

impl Index {
    /// Writes a line of the log.
    pub fn log(&mut self, at_ms: i64, kind: &str, path: Option<&RelPath>, text: &str) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "INSERT INTO events (at_ms, kind, path, text) VALUES (?1, ?2, ?3, ?4)";
            index.execute(sql, params![at_ms, kind, path.map(RelPath::key), cut_text(text)])?;
            let id = index.conn.last_insert_rowid();
            if id % EVENTS_TRIMMED == 0 {
                let kept = rows_max(EVENTS_MAX) - EVENTS_TRIMMED;
                index.execute("DELETE FROM events WHERE id <= ?1", [id - kept])?;
            }
            Ok(())
        })
    }

    /// Sets or clears a fact about the folder as a whole.
    pub fn set_note(&mut self, key: &str, value: Option<&str>) -> Result<(), IndexError> {
        self.write(|index| match value {
            Some(value) => {
                index.execute("INSERT OR REPLACE INTO notes (key, value) VALUES (?1, ?2)", [key, value]).map(drop)
            }
            None => index.execute("DELETE FROM notes WHERE key = ?1", [key]).map(drop),
        })
    }
}

impl Reader {
    /// Lines of the log after `after_id`, oldest first.
    pub fn events(&self, after_id: i64, limit: usize) -> Result<Vec<EventRow>, IndexError> {
        let sql = "SELECT id, at_ms, kind, path, text FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.rows(sql, [after_id, rows_max(limit)], event_at)
    }

    /// The last lines of the log, oldest first.
    pub fn last_events(&self, limit: usize) -> Result<Vec<EventRow>, IndexError> {
        let sql = "SELECT id, at_ms, kind, path, text FROM events ORDER BY id DESC LIMIT ?1";
        let mut events = self.rows(sql, [rows_max(limit)], event_at)?;
        events.reverse();
        Ok(events)
    }

    /// A fact about the folder as a whole.
    pub fn note(&self, key: &str) -> Result<Option<String>, IndexError> {
        self.first("SELECT value FROM notes WHERE key = ?1", [key], |_, row| Ok(row.get(0)?))
    }
}

/// What is kept of a text: its first part where it is too long.
pub fn cut_text(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn event_at(_: &Reader, row: &Row) -> Res<EventRow> {
    let path = if blob_or_null(row, 3)?.is_some() { Some(path_at(row, 3)?) } else { None };
    Ok(EventRow { id: row.get(0)?, at_ms: row.get(1)?, kind: row.get(2)?, path, text: row.get(4)? })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_log_is_read_on_from_a_line_or_back_from_its_end() {
        let mut index = index();
        for n in 0..5 {
            index.log(n, "applied", (n > 0).then(|| path("a")).as_ref(), &format!("line {n}")).unwrap();
        }
        let all = index.events(0, 9).unwrap();
        assert_eq!((all.len(), all[0].path.as_ref(), all[1].path.as_ref()), (5, None, Some(&path("a"))));
        assert_eq!(index.events(all[2].id, 9).unwrap(), all[3..]);
        assert_eq!(index.last_events(2).unwrap(), all[3..]);
    }

    #[test]
    fn the_log_never_outgrows_its_bound() {
        let mut index = index();
        index.begin().unwrap();
        for n in 0..EVENTS_MAX + 700 {
            index.log(n as i64, "k", None, "").unwrap();
        }
        index.commit().unwrap();
        let left = count(&index, "events") as usize;
        assert!((EVENTS_MAX - 500..=EVENTS_MAX).contains(&left), "{left}");
        assert_eq!(index.last_events(1).unwrap()[0].at_ms, EVENTS_MAX as i64 + 699);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "ä".repeat(TEXT_BYTES_MAX);
        assert_eq!(cut_text(&text).len(), TEXT_BYTES_MAX);
        assert_eq!(cut_text(&format!("a{text}")).len(), TEXT_BYTES_MAX - 1);
        assert_eq!(cut_text("short"), "short");
    }

    #[test]
    fn notes_are_set_replaced_and_cleared() {
        let mut index = index();
        index.set_note("halt", Some("no marker")).unwrap();
        index.set_note("halt", Some("unmounted")).unwrap();
        assert_eq!(index.note("halt").unwrap().as_deref(), Some("unmounted"));
        index.set_note("halt", None).unwrap();
        assert_eq!(index.note("halt").unwrap(), None);
    }
}
