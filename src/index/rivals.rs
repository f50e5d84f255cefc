//! Rivals: what peers said last about a path, as long as our entry does not include it.

use rusqlite::params;

use super::error::Res;
use super::open::{Index, Reader, rows_max};
use super::row::{
    count_at, entry_columns, kind_values, pack_ids, pack_meta, pack_version, path_at, record_at, record_columns,
    rival_at, weight_value,
};
use super::{IndexError, Record, Rival};
use crate::core::content::ContentId;
use crate::core::id::DeviceId;
use crate::core::message::Announced;
use crate::core::path::{COMPONENT_BYTES_MAX, RelPath};

/// What [`rival_at`] reads.
macro_rules! rival_columns {
    () => {
        concat!(entry_columns!(), ", peer, seq, held")
    };
}

impl Index {
    /// Stores a peer's latest entry at a path, to be decided.
    pub fn put_rival(&mut self, peer: DeviceId, rival: &Announced) -> Result<(), IndexError> {
        self.write(|index| {
            let entry = &rival.entry;
            let (peer, author) = (index.number_device(peer)?, index.number_device(entry.author)?);
            let (kind, content, depth, size) = kind_values(&entry.kind);
            if entry.is_live() {
                index.memo.rivals_went();
            } else {
                index.memo.note_rival_tombstone();
            }
            // Not "or replace": that would take the old row away without the triggers that count. And not one statement for
            // both: it would make SQLite ready to undo it, each time. Mostly a path is new.
            let update = "UPDATE OR FAIL rivals SET kind = ?2, content = ?3, depth = ?4, size = ?5, mtime_ns = ?6,
                          weight_ns = ?7, version = ?8, author = ?9, superseded = ?10, meta = ?11, seq = ?13, held = ?14,
                          todo = 1 WHERE path = ?1 AND peer = ?12";
            let insert = concat!(
                "INSERT OR IGNORE INTO rivals (",
                rival_columns!(),
                ", todo) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1)"
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
                peer,
                rival.seq.cast_signed(),
                rival.held,
            ];
            if index.execute(insert, params)? == 0 { index.execute(update, params).map(drop) } else { Ok(()) }
        })
    }

    /// Forgets a peer's rival at a path.
    pub fn drop_rival(&mut self, peer: DeviceId, path: &RelPath) -> Result<(), IndexError> {
        self.write(|index| {
            index.memo.rivals_went();
            let Some(peer) = index.device_number(peer)? else { return Ok(()) };
            index.execute("DELETE FROM rivals WHERE path = ?1 AND peer = ?2", params![path.key(), peer]).map(drop)
        })
    }

    /// Forgets this rival, unless its peer has said something newer since.
    pub fn drop_rival_of(&mut self, rival: &Rival) -> Result<(), IndexError> {
        self.write(|index| {
            index.memo.rivals_went();
            let Some(peer) = index.device_number(rival.peer)? else { return Ok(()) };
            let params = params![rival.entry.path.key(), peer, rival.seq.cast_signed()];
            index.execute("DELETE FROM rivals WHERE path = ?1 AND peer = ?2 AND seq = ?3", params).map(drop)
        })
    }

    /// Forgets all rivals of a peer.
    pub fn drop_rivals_of(&mut self, peer: DeviceId) -> Result<(), IndexError> {
        self.write(|index| index.drop_rivals_raw(peer))
    }

    /// Says whether the rivals at a path wait to be decided.
    pub fn set_todo(&mut self, path: &RelPath, todo: bool) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "UPDATE OR FAIL rivals SET todo = ?2 WHERE path = ?1 AND todo <> ?2";
            index.execute(sql, params![path.key(), todo]).map(drop)
        })
    }

    /// Has all rivals decided again.
    pub fn wake_rivals(&mut self) -> Result<(), IndexError> {
        self.write(|index| index.execute("UPDATE rivals SET todo = 1 WHERE todo <> 1", []).map(drop))
    }

    pub(super) fn drop_rivals_raw(&mut self, peer: DeviceId) -> Res<()> {
        self.memo.rivals_went();
        let Some(peer) = self.device_number(peer)? else { return Ok(()) };
        self.execute("DELETE FROM rivals WHERE peer = ?1", [peer]).map(drop)
    }
}

impl Reader {
    /// The rivals at a path.
    pub fn rivals(&self, path: &RelPath) -> Result<Vec<Rival>, IndexError> {
        let sql = concat!("SELECT ", rival_columns!(), " FROM rivals WHERE path = ?1 ORDER BY peer");
        self.rows(sql, [path.key()], rival_at)
    }

    /// Paths, ascending after `after`, with a live rival that waits to be decided.
    pub fn todo_live(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT DISTINCT path FROM rivals INDEXED BY rivals_todo
                   WHERE todo = 1 AND kind <> 0 AND path > ?1 ORDER BY path LIMIT ?2";
        let after = after.map(RelPath::key).unwrap_or_default();
        self.rows(sql, params![after, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// Paths, descending before `before`, where all the rivals that wait to be decided are tombstones.
    pub fn todo_deleted(&self, before: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT DISTINCT path FROM rivals INDEXED BY rivals_todo_deleted
                   WHERE todo = 1 AND kind = 0 AND path < ?1 AND NOT EXISTS (SELECT 1 FROM rivals AS other
                     WHERE other.path = rivals.path AND other.todo = 1 AND other.kind <> 0)
                   ORDER BY path DESC LIMIT ?2";
        // No component is that long, so no key comes after this one.
        let before = before.map_or_else(|| vec![0xFF; COMPONENT_BYTES_MAX + 1], RelPath::key);
        self.rows(sql, params![before, rows_max(limit)], |_, row| path_at(row, 0))
    }

    /// How many paths that are live here a peer holds to be deleted.
    pub fn count_rival_deletions(&self) -> Result<u64, IndexError> {
        let sql = "SELECT count(*) FROM (SELECT DISTINCT path FROM rivals INDEXED BY rivals_deleted WHERE kind = 0)
                   AS deleted WHERE EXISTS (SELECT 1 FROM entries WHERE entries.path = deleted.path AND kind <> 0)";
        Ok(self.first(sql, [], |_, row| count_at(row, 0))?.unwrap_or(0))
    }

    /// A peer's rivals, by the peer's sequence numbers.
    pub fn rivals_of(&self, peer: DeviceId, limit: usize) -> Result<Vec<Rival>, IndexError> {
        let Some(peer) = self.read(|r| r.device_number(peer))? else { return Ok(Vec::new()) };
        let sql = concat!("SELECT ", rival_columns!(), " FROM rivals WHERE peer = ?1 ORDER BY seq LIMIT ?2");
        self.rows(sql, [peer, rows_max(limit)], rival_at)
    }

    /// Files on this disk with this content that a peer holds to be deleted: where a move may have begun.
    pub fn moved_from(&self, id: ContentId, limit: usize) -> Result<Vec<Record>, IndexError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM entries WHERE kind = 1 AND substr(content, 1, 8) = substr(?1, 1, 8) AND content = ?1",
            " AND disk_kind IS NOT NULL AND mark = 0",
            " AND EXISTS (SELECT 1 FROM rivals WHERE rivals.path = entries.path AND rivals.kind = 0) LIMIT ?2"
        );
        self.rows(sql, params![id.0.as_slice(), rows_max(limit)], record_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::super::testing::*;
    use super::*;
    use crate::core::content::Content;

    const OTHER: DeviceId = DeviceId([8; 32]);

    #[test]
    fn a_peer_has_one_rival_at_a_path_its_latest() {
        let mut index = index();
        index.put_rival(PEER, &announced(tombstone("a"), 1)).unwrap();
        index.put_rival(PEER, &announced(full("a"), 2)).unwrap();
        index.put_rival(OTHER, &Announced { entry: file("a", b"x"), seq: 9, held: false }).unwrap();
        let ours = Rival { peer: PEER, seq: 2, held: true, entry: full("a") };
        let others = Rival { peer: OTHER, seq: 9, held: false, entry: file("a", b"x") };
        assert_eq!(index.rivals(&path("a")).unwrap(), [ours, others.clone()]);
        index.drop_rival(PEER, &path("a")).unwrap();
        index.drop_rival(DeviceId([1; 32]), &path("a")).unwrap();
        assert_eq!(index.rivals(&path("a")).unwrap(), [others.clone()]);
        index.drop_rival_of(&Rival { seq: 8, ..others.clone() }).unwrap();
        assert_eq!(index.rivals(&path("a")).unwrap(), [others.clone()], "said since");
        index.drop_rival_of(&others).unwrap();
        assert_eq!(index.rivals(&path("a")).unwrap(), []);
    }

    #[test]
    fn rivals_wait_to_be_decided_until_they_are_and_again_when_woken() {
        let mut index = index();
        for (n, at) in (1..).zip(["c", "a/b", "a", "a!"]) {
            index.put_rival(PEER, &announced(file(at, b""), n)).unwrap();
        }
        index.put_rival(OTHER, &announced(file("a", b""), 1)).unwrap();
        assert_eq!(index.todo_live(None, 10).unwrap(), paths(&["a", "a/b", "a!", "c"]));
        assert_eq!(index.todo_live(Some(&path("a")), 2).unwrap(), paths(&["a/b", "a!"]));
        index.set_todo(&path("a"), false).unwrap();
        assert_eq!(index.todo_live(None, 1).unwrap(), paths(&["a/b"]));
        index.set_todo(&path("a"), true).unwrap();
        assert_eq!(index.todo_live(None, 1).unwrap(), paths(&["a"]));
        for at in ["a", "a/b", "a!", "c"] {
            index.set_todo(&path(at), false).unwrap();
        }
        assert_eq!(index.todo_live(None, 10).unwrap(), []);
        index.wake_rivals().unwrap();
        assert_eq!(index.todo_live(None, 10).unwrap().len(), 4);
    }

    #[test]
    fn deletions_come_last_path_first_and_wait_for_live_rivals() {
        let mut index = index();
        for (n, at) in (1..).zip(["d", "d/e", "d/e/f", "g"]) {
            index.put_rival(PEER, &announced(tombstone(at), n)).unwrap();
        }
        index.put_rival(OTHER, &announced(tombstone("d"), 1)).unwrap();
        index.put_rival(OTHER, &announced(file("g", b""), 2)).unwrap();
        assert_eq!(index.todo_deleted(None, 10).unwrap(), paths(&["d/e/f", "d/e", "d"]));
        assert_eq!(index.todo_deleted(None, 1).unwrap(), paths(&["d/e/f"]));
        assert_eq!(index.todo_deleted(Some(&path("d/e/f")), 1).unwrap(), paths(&["d/e"]));
        index.set_todo(&path("d/e"), false).unwrap();
        assert_eq!(index.todo_deleted(None, 10).unwrap(), paths(&["d/e/f", "d"]));
    }

    #[test]
    fn only_deletions_of_what_is_live_here_are_counted() {
        let mut index = index();
        for at in ["live", "dead", "unknown"] {
            index.put_rival(PEER, &announced(tombstone(at), 1)).unwrap();
            index.put_rival(OTHER, &announced(tombstone(at), 1)).unwrap();
        }
        put(&mut index, &file("live", b""));
        put(&mut index, &tombstone("dead"));
        assert_eq!(index.count_rival_deletions().unwrap(), 1);
    }

    #[test]
    fn a_move_is_seen_by_the_content_that_is_to_be_deleted_elsewhere() {
        let mut index = index();
        for at in ["from", "stays", "ignored"] {
            put(&mut index, &file(at, b"same"));
        }
        index.set_disk(&path("ignored"), disk(1), Mark::Ignored, 0).unwrap();
        for at in ["from", "ignored"] {
            index.put_rival(PEER, &announced(tombstone(at), 1)).unwrap();
        }
        let id = Content::of_chunk(b"same").id;
        let from: Vec<RelPath> = index.moved_from(id, 9).unwrap().into_iter().map(|r| r.entry.path).collect();
        assert_eq!(from, paths(&["from"]));
    }

    #[test]
    fn the_rivals_of_one_peer_are_listed_and_forgotten_without_the_others() {
        let mut index = index();
        for (n, at) in [(3, "a"), (1, "b"), (2, "c")] {
            index.put_rival(PEER, &announced(file(at, b""), n)).unwrap();
            index.put_rival(OTHER, &announced(file(at, b""), n)).unwrap();
        }
        let of = |index: &Index, peer, limit| -> Vec<u64> {
            index.rivals_of(peer, limit).unwrap().iter().map(|r| r.seq).collect()
        };
        assert_eq!(of(&index, PEER, 2), [1, 2]);
        index.drop_rivals_of(PEER).unwrap();
        assert_eq!((of(&index, PEER, 9), of(&index, OTHER, 9)), (vec![], vec![1, 2, 3]));
        assert!(of(&index, DeviceId([1; 32]), 9).is_empty());
    }
}
