//! This device's own entries: put, found by path, by sequence number, by mark and by content.

use rusqlite::params;

use super::error::{Fault, Res};
use super::open::{Index, Reader, rows_max};
use super::row::{
    count_at, disk_values, kind_values, mark_code, pack_ids, pack_meta, pack_version, path_at, record_at,
    record_columns, weight_value,
};
use super::{IndexError, Mark, Record};
use crate::core::content::ContentId;
use crate::core::digest::bucket_of;
use crate::core::disk::DiskState;
use crate::core::entry::Entry;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::version::COUNT_MAX;

/// Rows that a walk with a filter looks at between two answers: bounds its memory.
const WALK_ROWS: usize = 1000;

impl Index {
    /// Stores an entry at its path, in place of what was there, under the next sequence number, which it returns. Other
    /// content than was there counts as made on this device.
    pub fn put(&mut self, entry: &Entry, disk: Option<DiskState>, mark: Mark, now_ms: i64) -> Result<u64, IndexError> {
        self.put_brought(entry, Some(DeviceId::NONE), disk, mark, now_ms)
    }

    /// The same where other content than was there came from a peer, or from who knows where: see
    /// [`Record::brought_by`].
    pub fn put_brought(
        &mut self,
        entry: &Entry,
        brought_by: Option<DeviceId>,
        disk: Option<DiskState>,
        mark: Mark,
        now_ms: i64,
    ) -> Result<u64, IndexError> {
        self.write(|index| {
            let key = entry.path.key();
            let old = index.record_raw(&key)?;
            if let Some(old) = &old {
                index.delete_entry(old)?;
            }
            let seq = index.next_seq();
            if seq >= COUNT_MAX {
                return Err(Fault::Bad("its sequence numbers have run out"));
            }
            // What is there again, or still, is nobody's new gift.
            let is_other = |old: &&Record| !old.entry.is_live() || old.entry.kind != entry.kind;
            let brought_by = old.as_ref().filter(|old| !is_other(old)).map_or(brought_by, |old| old.brought_by);
            let is_new_here = |old: &&Record| is_other(old) || old.disk.is_none();
            let placed_ms = match old.as_ref().filter(|old| !is_new_here(old)) {
                Some(old) => old.placed_ms,
                None => placed_ms(entry, disk.as_ref(), now_ms),
            };
            let origin = Origin { brought_by, placed_ms: placed_ms.filter(|_| disk.is_some()) };
            index.insert_entry(seq, entry, origin, disk, mark, now_ms)?;
            index.counters_mut().add(seq, entry);
            index.counters_mut().last_seq = seq;
            index.note_use(old.and_then(|old| old.entry.kind.content()), entry.kind.content())?;
            Ok(seq)
        })
    }

    /// Stores a new look at the path; entry and sequence number stay. Nothing where no entry is.
    pub fn set_disk(
        &mut self,
        path: &RelPath,
        disk: Option<DiskState>,
        mark: Mark,
        now_ms: i64,
    ) -> Result<(), IndexError> {
        self.write(|index| {
            index.memo.forget(path);
            let sql = "UPDATE OR FAIL entries SET mark = ?2, changed_ms = ?3, disk_kind = ?4, disk_size = ?5,
                       disk_mtime_ns = ?6, disk_ctime_ns = ?7, disk_inode = ?8, disk_mode = ?9 WHERE path = ?1";
            let (kind, size, mtime_ns, ctime_ns, inode, mode) = disk_values(disk.as_ref());
            let params = params![path.key(), mark_code(mark), now_ms, kind, size, mtime_ns, ctime_ns, inode, mode];
            index.execute(sql, params).map(drop)
        })
    }

    /// Forgets what is known of the path altogether, tombstone included.
    pub fn remove(&mut self, path: &RelPath) -> Result<(), IndexError> {
        self.write(|index| index.remove_raw(&path.key()))
    }

    /// Forgets up to `limit` tombstones that are older than `older_than_ms`, that everyone has applied
    /// (`applied_seq`), that nothing on this disk belongs to and that no rival speaks of. Says how many.
    pub fn forget_tombstones(
        &mut self,
        older_than_ms: i64,
        applied_seq: u64,
        limit: usize,
    ) -> Result<usize, IndexError> {
        self.write(|index| {
            let sql = "SELECT path FROM entries WHERE kind = 0 AND changed_ms < ?1 AND seq <= ?2 AND mark = 0
                       AND disk_kind IS NULL AND NOT EXISTS (SELECT 1 FROM rivals WHERE rivals.path = entries.path)
                       ORDER BY changed_ms LIMIT ?3";
            let applied_seq = applied_seq.min(COUNT_MAX).cast_signed();
            let paths = index.rows_raw(sql, [older_than_ms, applied_seq, rows_max(limit)], |_, row| path_at(row, 0))?;
            for path in &paths {
                index.remove_raw(&path.key())?;
            }
            Ok(paths.len())
        })
    }

    fn insert_entry(
        &mut self,
        seq: u64,
        entry: &Entry,
        origin: Origin,
        disk: Option<DiskState>,
        mark: Mark,
        now_ms: i64,
    ) -> Res<()> {
        let author = self.number_device(entry.author)?;
        let brought_by = origin.brought_by.map(|device| self.number_device(device)).transpose()?;
        let (kind, content, depth, size) = kind_values(&entry.kind);
        let (disk_kind, disk_size, disk_mtime_ns, disk_ctime_ns, disk_inode, disk_mode) = disk_values(disk.as_ref());
        let sql = concat!(
            "INSERT OR FAIL INTO entries (",
            record_columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)"
        );
        let params = params![
            entry.path.key(),
            kind,
            content,
            depth,
            size,
            entry.mtime_ns,
            weight_value(entry),
            pack_version(&entry.version),
            author,
            pack_ids(&entry.superseded),
            pack_meta(&entry.meta),
            seq.cast_signed(),
            mark_code(mark),
            now_ms,
            disk_kind,
            disk_size,
            disk_mtime_ns,
            disk_ctime_ns,
            disk_inode,
            disk_mode,
            brought_by,
            origin.placed_ms,
        ];
        self.execute(sql, params)?;
        self.count_mark(mark, 1)
    }

    fn remove_raw(&mut self, key: &[u8]) -> Res<()> {
        let Some(old) = self.record_raw(key)? else { return Ok(()) };
        self.delete_entry(&old)?;
        self.note_use(old.entry.kind.content(), None)
    }

    fn delete_entry(&mut self, old: &Record) -> Res<()> {
        self.memo.forget(&old.entry.path);
        self.execute("DELETE FROM entries WHERE seq = ?1", [old.seq.cast_signed()])?;
        self.counters_mut().subtract(old.seq, &old.entry);
        self.count_mark(old.mark, -1)
    }
}

/// One entry of a range of keys that is on this disk.
const ANY_HELD: &str = "SELECT 1 FROM entries
    WHERE path >= ?1 AND path < ?2 AND kind <> 0 AND disk_kind IS NOT NULL AND mark IN (0, 3) LIMIT 1";

/// From whom a content came here, and since when it stands here.
struct Origin {
    brought_by: Option<DeviceId>,
    placed_ms: Option<i64>,
}

/// Since when what is new at a path stands there: since the last change of the file, or since now where the file system
/// tells no likely time of that. What was found with the folder may have lain there for long.
fn placed_ms(entry: &Entry, disk: Option<&DiskState>, now_ms: i64) -> Option<i64> {
    let disk = disk.filter(|_| entry.is_live() && entry.author != DeviceId::NONE)?;
    let changed_ms = disk.ctime_ns / 1_000_000;
    let is_likely = disk.ctime_ns >= disk.mtime_ns && changed_ms <= now_ms;
    Some(if is_likely { changed_ms } else { now_ms })
}

impl Reader {
    /// What this device holds or passes on at a path.
    pub fn record(&self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        self.read(|r| r.record_raw(&path.key()))
    }

    /// What changed after a sequence number, in the order of the changes.
    pub fn records_since(&self, after_seq: u64, limit: usize) -> Result<Vec<Record>, IndexError> {
        let sql = concat!("SELECT ", record_columns!(), " FROM entries WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        self.rows(sql, [after_seq.min(COUNT_MAX).cast_signed(), rows_max(limit)], record_at)
    }

    /// When the last change before a sequence number was noted, ms since 1970.
    pub fn last_changed_ms(&self, before_seq: u64) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT changed_ms FROM entries WHERE seq < ?1 ORDER BY seq DESC LIMIT 1";
        self.first(sql, [before_seq.min(COUNT_MAX).cast_signed()], |_, row| Ok(row.get(0)?))
    }

    /// Records in path order after `after`; with `below` only what lies below that directory.
    pub fn records_from(
        &self,
        after: Option<&RelPath>,
        below: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<Record>, IndexError> {
        // No key is empty, so all keys come after the empty one.
        let after = after.map(RelPath::key).unwrap_or_default();
        let Some((from, to)) = below.map(RelPath::keys_below) else {
            let sql = concat!("SELECT ", record_columns!(), " FROM entries WHERE path > ?1 ORDER BY path LIMIT ?2");
            return self.rows(sql, params![after, rows_max(limit)], record_at);
        };
        let sql =
            concat!("SELECT ", record_columns!(), " FROM entries WHERE path > ?1 AND path < ?2 ORDER BY path LIMIT ?3");
        self.rows(sql, params![after.max(from), to, rows_max(limit)], record_at)
    }

    /// True where any entry below the directory is live, on this disk or not.
    pub fn has_live_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        let (from, to) = dir.keys_below();
        let sql = "SELECT 1 FROM entries WHERE path > ?1 AND path < ?2 AND kind <> 0 LIMIT 1";
        Ok(self.first(sql, params![from, to], |_, _| Ok(()))?.is_some())
    }

    /// True where anything below the directory is on this disk. What is below `except`, in path order, is not looked at.
    pub fn has_held_below<'a>(
        &self,
        dir: &RelPath,
        except: impl Iterator<Item = &'a RelPath>,
    ) -> Result<bool, IndexError> {
        let (mut from, to) = dir.keys_below();
        for (start, end) in except.map(RelPath::keys_below) {
            if self.is_any_held(&from, &start)? {
                return Ok(true);
            }
            from = end;
        }
        self.is_any_held(&from, &to)
    }

    fn is_any_held(&self, from: &[u8], to: &[u8]) -> Result<bool, IndexError> {
        Ok(self.first(ANY_HELD, [from, to], |_, _| Ok(()))?.is_some())
    }

    /// Paths that a scan saw absent; last path first, so that children come before their directories.
    pub fn missing(&self, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT path FROM entries WHERE mark = 1 AND mark <> 0 ORDER BY path DESC LIMIT ?1";
        self.rows(sql, [rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// True where anything below the directory is live or on this disk.
    pub fn has_any_below(&self, dir: &RelPath) -> Result<bool, IndexError> {
        let (from, to) = dir.keys_below();
        let sql = "SELECT 1 FROM entries WHERE path > ?1 AND path < ?2
                   AND (kind <> 0 OR disk_kind IS NOT NULL) LIMIT 1";
        Ok(self.first(sql, params![from, to], |_, _| Ok(()))?.is_some())
    }

    /// How many entries have this mark.
    pub fn count_marked(&self, mark: Mark) -> Result<u64, IndexError> {
        let sql = match mark {
            Mark::Here => "SELECT count(*) FROM entries WHERE mark = ?1",
            _ => "SELECT count(*) FROM entries WHERE mark = ?1 AND mark <> 0",
        };
        Ok(self.first(sql, [mark_code(mark)], |_, row| count_at(row, 0))?.unwrap_or(0))
    }

    /// Entries with this mark, in path order after `after`.
    pub fn marked(&self, mark: Mark, after: Option<&RelPath>, limit: usize) -> Result<Vec<Record>, IndexError> {
        const HERE: &str =
            concat!("SELECT ", record_columns!(), " FROM entries WHERE mark = ?1 AND path > ?2 ORDER BY path LIMIT ?3");
        const OTHERS: &str = concat!(
            "SELECT ",
            record_columns!(),
            " FROM entries WHERE mark = ?1 AND mark <> 0 AND path > ?2 ORDER BY path LIMIT ?3"
        );
        let sql = if mark == Mark::Here { HERE } else { OTHERS };
        let after = after.map(RelPath::key).unwrap_or_default();
        self.rows(sql, params![mark_code(mark), after, rows_max(limit)], record_at)
    }

    /// Files on this disk with exactly this content.
    pub fn holders(&self, id: ContentId, limit: usize) -> Result<Vec<Record>, IndexError> {
        self.read(|r| r.holders_raw(id, limit))
    }

    /// Entries and tombstones of one digest bucket, in path order after `after`.
    pub fn bucket(&self, bucket: u8, after: Option<&RelPath>, limit: usize) -> Result<Vec<Record>, IndexError> {
        let mut at = after.cloned();
        let mut found = Vec::new();
        while found.len() < limit {
            let page = self.records_from(at.as_ref(), None, WALK_ROWS)?;
            let Some(last) = page.last() else { break };
            at = Some(last.entry.path.clone());
            let room = limit - found.len();
            found.extend(page.into_iter().filter(|r| bucket_of(&r.entry.path) == bucket).take(room));
        }
        Ok(found)
    }

    pub(super) fn holders_raw(&self, id: ContentId, limit: usize) -> Res<Vec<Record>> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM entries WHERE kind = 1 AND substr(content, 1, 8) = substr(?1, 1, 8) AND content = ?1",
            " AND disk_kind IS NOT NULL AND mark IN (0, 3) LIMIT ?2"
        );
        self.rows_raw(sql, params![id.0.as_slice(), rows_max(limit)], record_at)
    }

    fn record_raw(&self, key: &[u8]) -> Res<Option<Record>> {
        let sql = concat!("SELECT ", record_columns!(), " FROM entries WHERE path = ?1");
        self.first_raw(sql, [key], record_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Rival, Totals};
    use super::*;
    use crate::core::content::Content;
    use crate::core::entry::Kind;
    use proptest::prelude::*;

    fn names(records: Vec<Record>) -> Vec<RelPath> {
        records.into_iter().map(|r| r.entry.path).collect()
    }

    #[test]
    fn a_put_replaces_what_was_at_the_path_and_moves_it_to_the_end() {
        let mut index = index();
        assert_eq!((put(&mut index, &file("a", b"1")), put(&mut index, &file("b", b"2"))), (1, 2));
        assert_eq!(put(&mut index, &file("a", b"3")), 3);
        assert_eq!(names(index.records_since(0, 10).unwrap()), paths(&["b", "a"]));
        assert_eq!(names(index.records_since(2, 10).unwrap()), paths(&["a"]));
        assert_eq!(index.records_since(u64::MAX, 10).unwrap(), []);
        assert_eq!((index.next_seq(), index.state().unwrap().last_seq), (4, 3));
    }

    #[test]
    fn what_is_held_below_is_found_outside_of_what_is_known_to_be_empty() {
        let mut index = index();
        put(&mut index, &file("d/m/x", b"1"));
        put(&mut index, &file("d\u{1}/x", b"1"));
        put(&mut index, &tombstone("d/a/gone"));
        let held = |dir: &str, except: &[&str]| index.has_held_below(&path(dir), paths(except).iter()).unwrap();
        assert!(held("d", &[]) && held("d/m", &[]) && held("d", &["d/a"]) && held("d", &["d/a", "d/m/x", "d/z"]));
        assert!(!held("d", &["d/m"]) && !held("d", &["d/a", "d/m", "d/z"]) && !held("d/a", &[]) && !held("e", &[]));
    }

    #[test]
    fn tombstones_below_what_is_known_to_be_empty_are_not_walked_along_again() {
        const DEPTH: usize = 60;
        let mut index = index();
        let mut dirs = vec!["d".to_owned()];
        (1..DEPTH).for_each(|n| dirs.push(format!("{}/d", dirs[n - 1])));
        for dir in &dirs {
            for n in 0..10 {
                put(&mut index, &tombstone(&format!("{dir}/f{n}")));
            }
        }
        let mut statement = index.conn.prepare(ANY_HELD).unwrap();
        let mut steps = |from: Vec<u8>, to: Vec<u8>| {
            assert!(!statement.exists([from, to]).unwrap());
            statement.reset_status(rusqlite::StatementStatus::VmStep)
        };
        let dirs: Vec<RelPath> = dirs.iter().map(|dir| path(dir)).collect();
        let all = steps(dirs[0].keys_below().0, dirs[0].keys_below().1);
        let gaps = dirs.windows(2).map(|pair| {
            let ((from, to), (start, end)) = (pair[0].keys_below(), pair[1].keys_below());
            steps(from, start) + steps(end, to)
        });
        let in_turn: i32 = gaps.sum();
        assert!(in_turn < 4 * all, "{in_turn} steps, {all} for all of them at once");
    }

    #[test]
    fn no_number_is_issued_twice_even_if_the_last_entry_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file_path = dir.path().join("index.db");
        let mut index = Index::open(&file_path, EPOCH).unwrap();
        put(&mut index, &file("a", b"1"));
        index.remove(&path("a")).unwrap();
        drop(index);
        assert_eq!(put(&mut Index::open(&file_path, EPOCH).unwrap(), &file("a", b"1")), 2);
    }

    #[test]
    fn a_number_that_is_taken_already_is_damage() {
        let mut index = index();
        put(&mut index, &file("a", b"1"));
        index.conn.execute("UPDATE entries SET seq = 2", []).unwrap();
        assert!(index.put(&file("b", b"2"), None, Mark::Here, 1).unwrap_err().is_corrupt());
    }

    #[test]
    fn paths_come_in_component_order_however_odd_their_names() {
        let mut index = index();
        let sorted = ["a", "a/\u{1}", "a/b", "a/b/c", "a/z", "a\u{1}", "a!", "a.b", "a0", "ä", "\u{10ffff}"];
        for at in sorted.iter().rev() {
            put(&mut index, &file(at, b""));
        }
        let high = Entry { path: RelPath::parse(&[0xff; 255]).unwrap(), ..file("x", b"") };
        put(&mut index, &high);
        let mut expected = paths(&sorted);
        expected.push(high.path);
        assert_eq!(names(index.records_from(None, None, 100).unwrap()), expected);
        let below = names(index.records_from(None, Some(&path("a")), 100).unwrap());
        assert_eq!(below, paths(&["a/\u{1}", "a/b", "a/b/c", "a/z"]));
        let after = names(index.records_from(Some(&path("a/b")), Some(&path("a")), 1).unwrap());
        assert_eq!(after, paths(&["a/b/c"]));
        let after = names(index.records_from(Some(&path("a/z")), None, 2).unwrap());
        assert_eq!(after, paths(&["a\u{1}", "a!"]));
    }

    #[test]
    fn missing_paths_come_with_children_before_their_directories() {
        let mut index = index();
        for at in ["a", "a/b", "a/b/c", "a!", "b"] {
            put(&mut index, &file(at, b""));
            index.set_disk(&path(at), None, Mark::Missing, 5).unwrap();
        }
        index.set_disk(&path("b"), disk(1), Mark::Here, 6).unwrap();
        assert_eq!(index.missing(10).unwrap(), paths(&["a!", "a/b/c", "a/b", "a"]));
        assert_eq!(index.missing(2).unwrap(), paths(&["a!", "a/b/c"]));
        assert_eq!(index.count_marked(Mark::Missing).unwrap(), 4);
        assert_eq!(index.count_marked(Mark::Here).unwrap(), 1);
        let marked = index.marked(Mark::Missing, Some(&path("a")), 2).unwrap();
        assert_eq!(names(marked), paths(&["a/b", "a/b/c"]));
        assert_eq!(names(index.marked(Mark::Here, None, 9).unwrap()), paths(&["b"]));
    }

    #[test]
    fn since_when_a_content_stands_here_is_known_unless_it_was_found() {
        const MS: i64 = 1_000_000;
        let mut index = index();
        let at = |mtime_ms: i64, ctime_ms: i64| {
            disk(1).map(|disk| DiskState { mtime_ns: mtime_ms * MS, ctime_ns: ctime_ms * MS, ..disk })
        };
        let placed = |index: &Index| index.record(&path("a")).unwrap().unwrap().placed_ms;
        let (one, two) = (full("a"), Entry { kind: Kind::File(Content::of_chunk(b"two")), ..full("a") });
        index.put(&Entry { author: DeviceId::NONE, ..one.clone() }, at(5, 10), Mark::Here, 20).unwrap();
        assert_eq!(placed(&index), None, "it was found");
        index.put(&two, at(5, 10), Mark::Here, 20).unwrap();
        assert_eq!(placed(&index), Some(10));
        index.put(&Entry { author: DeviceId([3; 32]), ..two.clone() }, at(5, 30), Mark::Here, 40).unwrap();
        assert_eq!(placed(&index), Some(10), "only its mode or version has changed");
        index.put(&tombstone("a"), None, Mark::Here, 50).unwrap();
        assert_eq!(placed(&index), None);
        index.put(&two, None, Mark::Held, 60).unwrap();
        assert_eq!(placed(&index), None, "it is not here yet");
        for (mtime_ms, ctime_ms) in [(5, 0), (5, 99)] {
            index.put(&tombstone("a"), None, Mark::Here, 65).unwrap();
            index.put(&two, at(mtime_ms, ctime_ms), Mark::Here, 70).unwrap();
            assert_eq!(placed(&index), Some(70), "the file system tells no likely time");
        }
    }

    #[test]
    fn a_new_look_at_the_disk_changes_neither_entry_nor_number() {
        let mut index = index();
        let seq = put(&mut index, &full("a"));
        index.set_disk(&path("a"), disk(9), Mark::Suspect, 7).unwrap();
        let record = Record {
            entry: full("a"),
            seq,
            disk: disk(9),
            mark: Mark::Suspect,
            changed_ms: 7,
            brought_by: Some(DeviceId::NONE),
            placed_ms: Some(1000),
        };
        assert!(record.is_held());
        assert_eq!(index.record(&path("a")).unwrap(), Some(record));
        index.set_disk(&path("unknown"), disk(9), Mark::Here, 7).unwrap();
        assert_eq!(index.record(&path("unknown")).unwrap(), None);
    }

    #[test]
    fn what_a_user_alone_has_below_a_directory_counts_though_nothing_there_is_live() {
        let mut index = index();
        index.put(&tombstone("d/x"), disk(1), Mark::Own, 0).unwrap();
        put(&mut index, &tombstone("e/x"));
        let found = |dir| (index.has_live_below(&path(dir)).unwrap(), index.has_any_below(&path(dir)).unwrap());
        assert_eq!((found("d"), found("e")), ((false, true), (false, false)));
    }

    #[test]
    fn a_directory_counts_as_occupied_while_anything_below_it_is_live() {
        let mut index = index();
        for entry in [of_kind("d", Kind::Directory), file("d/e/f", b""), file("d!", b"")] {
            put(&mut index, &entry);
        }
        assert!(index.has_live_below(&path("d")).unwrap());
        put(&mut index, &tombstone("d/e/f"));
        assert!(!index.has_live_below(&path("d")).unwrap());
    }

    #[test]
    fn only_files_on_this_disk_hold_their_content() {
        let mut index = index();
        for at in ["here", "suspect", "ignored", "missing", "replaced"] {
            put(&mut index, &file(at, b"same"));
        }
        put(&mut index, &file("other", b"else"));
        put(&mut index, &file("replaced", b"else"));
        index.set_disk(&path("suspect"), disk(1), Mark::Suspect, 0).unwrap();
        index.set_disk(&path("ignored"), disk(1), Mark::Ignored, 0).unwrap();
        index.set_disk(&path("missing"), None, Mark::Here, 0).unwrap();
        let id = file("x", b"same").kind.content().unwrap().id;
        let holders = names(index.holders(id, 10).unwrap());
        assert_eq!(holders, paths(&["here", "suspect"]));
        assert_eq!(index.holders(id, 1).unwrap().len(), 1);
        assert!(index.is_announced(id).unwrap());
        assert!(!index.is_announced(ContentId([1; 32])).unwrap());
    }

    #[test]
    fn a_tombstone_is_forgotten_only_when_old_applied_and_undisputed() {
        let mut index = index();
        for at in ["young", "unapplied", "disputed", "left over", "marked", "old"] {
            put(&mut index, &tombstone(at));
        }
        put(&mut index, &file("live", b""));
        index.set_disk(&path("young"), None, Mark::Here, 2000).unwrap();
        let seq = put(&mut index, &tombstone("unapplied"));
        index.put_rival(PEER, &announced(file("disputed", b"r"), 1)).unwrap();
        index.set_disk(&path("left over"), disk(1), Mark::Here, 0).unwrap();
        index.set_disk(&path("marked"), None, Mark::Kept, 0).unwrap();
        assert_eq!(index.forget_tombstones(1500, seq - 1, 0).unwrap(), 0);
        assert_eq!(index.forget_tombstones(1500, seq - 1, 10).unwrap(), 1);
        assert_eq!(index.record(&path("old")).unwrap(), None);
        assert_eq!(index.totals().unwrap().tombstones, 5);
        let rival = Rival { peer: PEER, seq: 1, held: true, entry: file("disputed", b"r") };
        assert_eq!(index.rivals(&path("disputed")).unwrap(), [rival]);
    }

    #[test]
    fn totals_count_each_kind_and_follow_every_change() {
        let mut index = index();
        for entry in [
            file("f", b"12345"),
            file("g", b"123"),
            of_kind("d", Kind::Directory),
            of_kind("l", Kind::Symlink(b"t"[..].into())),
            tombstone("t"),
        ] {
            put(&mut index, &entry);
        }
        let totals = Totals { files: 2, directories: 1, symlinks: 1, bytes: 8, tombstones: 1 };
        assert_eq!(index.totals().unwrap(), totals);
        put(&mut index, &tombstone("f"));
        index.remove(&path("l")).unwrap();
        index.remove(&path("unknown")).unwrap();
        let totals = Totals { files: 1, directories: 1, symlinks: 0, bytes: 3, tombstones: 2 };
        assert_eq!(index.totals().unwrap(), totals);
    }

    #[test]
    fn buckets_divide_all_records_between_them() {
        let mut index = index();
        for n in 0..50 {
            put(&mut index, &file(&format!("f{n:02}"), b""));
        }
        let mut all: Vec<RelPath> = (0..=255).flat_map(|b| names(index.bucket(b, None, 99).unwrap())).collect();
        all.sort();
        assert_eq!(all, names(index.records_from(None, None, 99).unwrap()));
        let bucket = bucket_of(&path("f07"));
        assert_eq!(names(index.bucket(bucket, Some(&path("f06")), 1).unwrap()), paths(&["f07"]));
    }

    #[test]
    fn a_small_file_costs_at_most_350_bytes() {
        const FILES: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("index.db");
        let mut index = Index::open(&at, EPOCH).unwrap();
        index.begin().unwrap();
        for n in 0..FILES {
            let name = format!("projects/{:03}/some/directory/file-{n:08}.txt", n / 97);
            let entry = file(&name, &n.to_be_bytes());
            let look = DiskState {
                kind: crate::core::disk::DiskKind::File,
                size: 8,
                mtime_ns: entry.mtime_ns,
                ctime_ns: entry.mtime_ns,
                inode: 5_000_000 + n as u64,
                mode: 0o644,
            };
            index.put(&entry, Some(look), Mark::Here, 1_700_000_000_000).unwrap();
        }
        index.commit().unwrap();
        index.set_clean().unwrap();
        let bytes = std::fs::metadata(&at).unwrap().len() as usize;
        assert!(bytes / FILES <= 350, "{} bytes per file", bytes / FILES);
        println!("{} bytes per file", bytes / FILES);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn digest_and_totals_equal_a_recount_after_any_history(
            steps in proptest::collection::vec((0usize..6, 0u8..6, any::<bool>()), 1..40)
        ) {
            let mut index = index();
            for (n, (at, what, commit)) in steps.into_iter().enumerate() {
                let at = ["a", "b", "a/c", "d", "e\u{1}", "f"][at];
                index.begin().unwrap();
                match what {
                    0 => drop(put(&mut index, &tombstone(at))),
                    1 => drop(put(&mut index, &of_kind(at, Kind::Directory))),
                    2 => index.remove(&path(at)).unwrap(),
                    3 => drop(put(&mut index, &full(at))),
                    _ => drop(put(&mut index, &file(at, &[n as u8]))),
                }
                if commit { index.commit().unwrap() } else { index.rollback().unwrap() }
                let (digest, live) = recomputed(&index);
                let totals = index.totals().unwrap();
                prop_assert_eq!(&index.digest().unwrap(), &digest);
                prop_assert_eq!(totals.files + totals.directories + totals.symlinks, live);
                let stored = super::super::counters::Counters::load(&index.conn).unwrap();
                let last_seq = index.next_seq() - 1;
                prop_assert_eq!((stored.digest(), stored.totals, stored.last_seq), (digest, totals, last_seq));
            }
        }
    }
}
