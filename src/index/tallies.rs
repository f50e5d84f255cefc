//! Counts that a report asks for, whatever the size of the folder: kept by the writer and by triggers, read at once.
//!
//! Nothing is decided by them. What is decided about is counted exactly, where it lies.

use rusqlite::params;

use super::counters::{BLOCK_BITS, BLOCK_FILE_BYTES_MAX};
use super::error::{Fault, Res};
use super::open::{Index, Reader, rows_max};
use super::row::{mark_code, path_at, reason_from};
use super::{IndexError, Mark};
use crate::core::id::DeviceId;
use crate::core::message::Reason;
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::core::version::COUNT_MAX;

/// Items, and the bytes of the files among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub items: u64,
    pub bytes: u64,
}

impl Tally {
    pub fn plus(self, other: Tally) -> Tally {
        Tally { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub fn minus(self, other: Tally) -> Tally {
        Tally { items: self.items.saturating_sub(other.items), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn of(items: i64, bytes: f64) -> Tally {
        Tally { items: u64::try_from(items).unwrap_or(0), bytes: bytes as u64 }
    }
}

impl Index {
    /// Counts an entry that comes or goes with its mark. That marks change is counted by a trigger.
    pub(super) fn count_mark(&mut self, mark: Mark, by: i64) -> Res<()> {
        if mark == Mark::Here {
            return Ok(());
        }
        let sql = "INSERT INTO tallies (name, items, bytes) VALUES ('mark ' || ?1, ?2, 0)
                   ON CONFLICT (name) DO UPDATE SET items = items + ?2";
        self.execute(sql, [mark_code(mark), by]).map(drop)
    }
}

impl Reader {
    /// Paths with rivals that are files, and the bytes of the largest at each.
    pub fn tally_wanted(&self) -> Result<Tally, IndexError> {
        self.tally("wanted")
    }

    /// Of what is wanted that which has trouble, looked for among so many paths with trouble.
    pub fn tally_wanted_in_trouble(&self, limit: usize) -> Result<Tally, IndexError> {
        let sql = "SELECT count(most), total(most) FROM
                   (SELECT (SELECT max(size) FROM rivals WHERE rivals.path = problems.path AND rivals.kind = 1) AS most
                    FROM problems WHERE kind <> ?1 LIMIT ?2)";
        let params = params![ProblemKind::NoSource.name(), rows_max(limit)];
        let found = self.first(sql, params, |_, row| Ok(Tally::of(row.get(0)?, row.get(1)?)))?;
        Ok(found.unwrap_or_default())
    }

    /// Paths that some peer holds to be deleted.
    pub fn tally_rival_deletions(&self) -> Result<u64, IndexError> {
        Ok(self.tally("deleted")?.items)
    }

    /// Entries with a mark other than that they are here.
    pub fn tally_marked(&self, mark: Mark) -> Result<u64, IndexError> {
        Ok(self.tally(&format!("mark {}", mark_code(mark)))?.items)
    }

    /// How many paths have which kind of trouble.
    pub fn tally_problems(&self) -> Result<Vec<(ProblemKind, u64)>, IndexError> {
        let mut counts = Vec::new();
        for kind in ProblemKind::ALL {
            let count = self.tally(&format!("problem {}", kind.name()))?.items;
            if count > 0 {
                counts.push((kind, count));
            }
        }
        Ok(counts)
    }

    /// What changed after a sequence number.
    pub fn tally_since(&self, after_seq: u64) -> Result<Tally, IndexError> {
        let after_seq = after_seq.min(COUNT_MAX);
        let block = after_seq >> BLOCK_BITS;
        let cap = BLOCK_FILE_BYTES_MAX.cast_signed();
        let rest = "SELECT count(*), total(min(size, ?3)) FROM entries WHERE seq > ?1 AND seq < ?2";
        let end = (block + 1) << BLOCK_BITS;
        let params = params![after_seq.cast_signed(), end.cast_signed(), cap];
        let rest = self.first(rest, params, |_, row| Ok(Tally::of(row.get(0)?, row.get(1)?)))?.unwrap_or_default();
        let later = "SELECT CAST(total(items) AS INTEGER), total(bytes) FROM blocks WHERE block > ?1";
        let later = self.first(later, [block.cast_signed()], |r, row| {
            let (items, bytes) = r.counters.as_ref().map_or((0, 0), |counters| counters.unstored_after(block));
            Ok(Tally::of(row.get::<_, i64>(0)?.saturating_add(items), row.get::<_, f64>(1)? + bytes as f64))
        })?;
        Ok(rest.plus(later.unwrap_or_default()))
    }

    /// What a peer said it has not applied of what it has received up to `applied`, by reason.
    pub fn tally_exceptions(&self, peer: DeviceId, applied: u64) -> Result<Vec<(Reason, Tally)>, IndexError> {
        let Some(number) = self.read(|r| r.device_number(peer))? else { return Ok(Vec::new()) };
        let sql = "SELECT reason, count(*), total(min(entries.size, ?3)) FROM exceptions
                   LEFT JOIN entries ON entries.path = exceptions.path
                   WHERE peer = ?1 AND (entries.seq IS NULL OR entries.seq <= ?2) GROUP BY reason";
        let applied = applied.min(COUNT_MAX).cast_signed();
        self.rows(sql, params![number, applied, BLOCK_FILE_BYTES_MAX.cast_signed()], |_, row| {
            Ok((reason_from(row.get(0)?)?, Tally::of(row.get(1)?, row.get(2)?)))
        })
    }

    /// Paths of live entries that are named like conflict copies, in path order.
    pub fn conflict_paths(&self, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT path FROM entries INDEXED BY entries_conflicts
                   WHERE kind <> 0 AND instr(path, x'2e636f6e666c6963742d') > 0 ORDER BY path LIMIT ?1";
        self.rows(sql, [rows_max(limit)], |_, row| path_at(row, 0))
    }

    fn tally(&self, name: &str) -> Result<Tally, IndexError> {
        let sql = "SELECT items, bytes FROM tallies WHERE name = ?1";
        let found = self.first(sql, [name], |_, row| {
            let bytes: f64 = row.get(1)?;
            if bytes.is_nan() {
                return Err(Fault::Bad("a count that is none"));
            }
            Ok(Tally::of(row.get(0)?, bytes))
        })?;
        Ok(found.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Index;
    use super::super::testing::*;
    use super::*;
    use crate::core::content::{Content, SIZE_MAX};
    use crate::core::entry::Kind;
    use crate::core::message::{Announced, Exception};
    use crate::core::problem::Problem;
    use proptest::prelude::*;

    const OTHER: DeviceId = DeviceId([8; 32]);

    fn tally(items: u64, bytes: u64) -> Tally {
        Tally { items, bytes }
    }

    /// The same by walking along everything.
    fn walked(index: &Index, sql: &str) -> Tally {
        index.conn.query_row(sql, [], |row| Ok(Tally::of(row.get(0)?, row.get(1)?))).unwrap()
    }

    fn check(index: &Index) {
        let wanted =
            "SELECT count(*), total(most) FROM (SELECT max(size) AS most FROM rivals WHERE kind = 1 GROUP BY path)";
        assert_eq!(index.tally_wanted().unwrap(), walked(index, wanted));
        let deleted = "SELECT count(DISTINCT path), 0.0 FROM rivals WHERE kind = 0";
        assert_eq!(index.tally_rival_deletions().unwrap(), walked(index, deleted).items);
        for mark in [Mark::Missing, Mark::Held, Mark::Ignored] {
            assert_eq!(index.tally_marked(mark).unwrap(), index.count_marked(mark).unwrap());
        }
        let problems: u64 = index.tally_problems().unwrap().iter().map(|(_, count)| count).sum();
        assert_eq!(problems, index.count_problems().unwrap());
        for after in [0, 1, 1023, 1024, 1500, 5000] {
            let sql = format!("SELECT count(*), total(size) FROM entries WHERE seq > {after}");
            assert_eq!(index.tally_since(after).unwrap(), walked(index, &sql), "after {after}");
        }
    }

    #[test]
    fn what_is_wanted_counts_each_file_once_and_survives_absurd_sizes() {
        let mut index = index();
        assert_eq!(index.tally_wanted().unwrap(), tally(0, 0));
        index.put_rival(PEER, &announced(file("a", b"123"), 1)).unwrap();
        index.put_rival(OTHER, &announced(file("a", b"12345"), 1)).unwrap();
        index.put_rival(PEER, &announced(of_kind("d", Kind::Directory), 2)).unwrap();
        index.put_rival(PEER, &announced(tombstone("t"), 3)).unwrap();
        assert_eq!(index.tally_wanted().unwrap(), tally(1, 5));
        index.set_problem(&path("a"), &Problem::new(ProblemKind::NoSpace, "full"), 1, None).unwrap();
        index.set_problem(&path("x"), &Problem::new(ProblemKind::NoSource, "away"), 1, None).unwrap();
        assert_eq!(index.tally_wanted_in_trouble(9).unwrap(), tally(1, 5));
        for at in ["x", "y", "z"] {
            let huge = Content { depth: 3, size: SIZE_MAX, ..Content::of_chunk(b"") };
            index.put_rival(PEER, &announced(of_kind(at, Kind::File(huge)), 4)).unwrap();
        }
        let absurd = index.tally_wanted().unwrap();
        assert!(absurd.items == 4 && absurd.bytes > SIZE_MAX, "{absurd:?}");
        index.drop_rivals_of(PEER).unwrap();
        index.drop_rivals_of(OTHER).unwrap();
        assert_eq!(index.tally_wanted().unwrap(), tally(0, 0));
    }

    #[test]
    fn exceptions_are_counted_by_reason_unless_the_entry_has_changed_since() {
        let mut index = index();
        let seq = put(&mut index, &file("a", b"123"));
        put(&mut index, &file("b", b"12"));
        let exception = |at: &str, reason| Exception { path: path(at), seq, reason };
        let told = [exception("a", Reason::Pending), exception("b", Reason::Pending), exception("gone", Reason::Held)];
        index.set_exceptions(PEER, &told).unwrap();
        let expected = [(Reason::Pending, tally(1, 3)), (Reason::Held, tally(1, 0))];
        assert_eq!(index.tally_exceptions(PEER, seq).unwrap(), expected);
        assert_eq!(index.tally_exceptions(OTHER, seq).unwrap(), []);
    }

    #[test]
    fn conflict_copies_are_found_without_a_walk() {
        let mut index = index();
        let copy = "d/a.conflict-20261122-140312-K3QZ7AB.txt";
        for entry in [file(copy, b"1"), file("d/a.txt", b"2"), tombstone("b.conflict-20261122-140312-K3QZ7AB")] {
            put(&mut index, &entry);
        }
        assert_eq!(index.conflict_paths(9).unwrap(), paths(&[copy]));
    }

    #[test]
    fn an_index_of_the_first_format_is_counted_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let mut index = Index::open(&at, EPOCH).unwrap();
        let steps: Vec<(u8, u64, u8)> = (0..40u8).map(|n| (n % 8, n.into(), n % 3)).collect();
        fill(&mut index, &steps);
        let kept: Vec<Tally> = [0, 5].iter().map(|after| index.tally_since(*after).unwrap()).collect();
        let wanted = index.tally_wanted().unwrap();
        let names = "SELECT group_concat('DROP ' || type || ' ' || name, ';') FROM sqlite_schema
                     WHERE type = 'trigger' OR name IN ('blocks', 'tallies', 'entries_conflicts')";
        let columns = "ALTER TABLE entries DROP COLUMN placed_ms; ALTER TABLE history DROP COLUMN placed_ms;
                       ALTER TABLE entries DROP COLUMN brought_by; ALTER TABLE history DROP COLUMN brought_by;
                       ALTER TABLE history DROP COLUMN displaced_by";
        let drops: String = index.conn.query_row(names, [], |row| row.get(0)).unwrap();
        index.conn.execute_batch(&format!("{drops}; {columns}; PRAGMA user_version = 1")).unwrap();
        drop(index);
        let index = Index::open(&at, EPOCH).unwrap();
        assert_eq!([0, 5].map(|after| index.tally_since(after).unwrap()).to_vec(), kept);
        assert!(wanted.items > 0 && index.tally_wanted().unwrap() == wanted);
        check(&index);
    }

    /// Each step: what to do, with which of a few paths, how.
    fn fill(index: &mut Index, steps: &[(u8, u64, u8)]) {
        for (what, n, how) in steps {
            let at = format!("p{}", n % 7);
            let peer = if how % 2 == 0 { PEER } else { OTHER };
            let bytes = vec![b'x'; usize::try_from(*n % 50).unwrap()];
            let kinds = [Kind::Deleted, Kind::File(Content::of_chunk(&bytes)), Kind::Directory];
            let entry = of_kind(&at, kinds[usize::from(*how) % 3].clone());
            let marks = [Mark::Here, Mark::Missing, Mark::Held, Mark::Ignored];
            let mark = marks[usize::from(*how) % 4];
            match what {
                0 => drop(index.put(&entry, None, mark, 1).unwrap()),
                1 => index.set_disk(&path(&at), None, mark, 1).unwrap(),
                2 => index.remove(&path(&at)).unwrap(),
                3 | 4 => index.put_rival(peer, &Announced { entry, seq: *n, held: true }).unwrap(),
                5 => index.drop_rival(peer, &path(&at)).unwrap(),
                6 => {
                    let kind = ProblemKind::ALL[usize::from(*how) % ProblemKind::ALL.len()];
                    index.set_problem(&path(&at), &Problem::new(kind, "x"), 1, None).unwrap();
                }
                7 => index.clear_problem(&path(&at)).unwrap(),
                _ => {
                    index.begin().unwrap();
                    put(index, &entry);
                    index.rollback().unwrap();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_walk_finds(steps in prop::collection::vec((0..9u8, 0..200u64, 0..12u8), 0..60)) {
            let mut index = index();
            fill(&mut index, &steps);
            check(&index);
            index.begin().unwrap();
            put(&mut index, &file("in a transaction", b"12"));
            check(&index);
        }
    }

    #[test]
    fn positions_in_the_middle_of_many_changes_are_counted_exactly() {
        let mut index = index();
        index.begin().unwrap();
        for n in 0..2500 {
            put(&mut index, &file(&format!("p{}", n % 2000), b"123"));
        }
        check(&index);
        index.commit().unwrap();
        check(&index);
    }
}
