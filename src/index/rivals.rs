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
use crate::core::path::RelPath;

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
            let sql = concat!(
                "INSERT OR REPLACE INTO rivals (",
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
            index.execute(sql, params).map(drop)
        })
    }

    /// Forgets a peer's rival at a path.
    pub fn drop_rival(&mut self, peer: DeviceId, path: &RelPath) -> Result<(), IndexError> {
        self.write(|index| {
            let Some(peer) = index.device_number(peer)? else { return Ok(()) };
            index.execute("DELETE FROM rivals WHERE path = ?1 AND peer = ?2", params![path.key(), peer]).map(drop)
        })
    }

    /// Forgets all rivals of a peer.
    pub fn drop_rivals_of(&mut self, peer: DeviceId) -> Result<(), IndexError> {
        self.write(|index| index.drop_rivals_raw(peer))
    }

    /// Says whether the rivals at a path wait to be decided.
    pub fn set_todo(&mut self, path: &RelPath, todo: bool) -> Result<(), IndexError> {
        self.write(|index| {
            let sql = "UPDATE rivals SET todo = ?2 WHERE path = ?1 AND todo <> ?2";
            index.execute(sql, params![path.key(), todo]).map(drop)
        })
    }

    /// Has all rivals decided again.
    pub fn wake_rivals(&mut self) -> Result<(), IndexError> {
        self.write(|index| index.execute("UPDATE rivals SET todo = 1 WHERE todo <> 1", []).map(drop))
    }

    pub(super) fn drop_rivals_raw(&mut self, peer: DeviceId) -> Res<()> {
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

    /// Paths, last first, where all the rivals that wait to be decided are tombstones.
    pub fn todo_deleted(&self, limit: usize) -> Result<Vec<RelPath>, IndexError> {
        let sql = "SELECT DISTINCT path FROM rivals INDEXED BY rivals_todo_deleted
                   WHERE todo = 1 AND kind = 0 AND NOT EXISTS (SELECT 1 FROM rivals AS other
                     WHERE other.path = rivals.path AND other.todo = 1 AND other.kind <> 0)
                   ORDER BY path DESC LIMIT ?1";
        self.rows(sql, [rows_max(limit)], |_, row| path_at(row, 0))
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
            " AND disk_kind IS NOT NULL AND mark IN (0, 3)",
            " AND EXISTS (SELECT 1 FROM rivals WHERE rivals.path = entries.path AND rivals.kind = 0) LIMIT ?2"
        );
        self.rows(sql, params![id.0.as_slice(), rows_max(limit)], record_at)
    }

    /// Paths with rivals that are files, and the bytes that these have.
    pub fn pending(&self) -> Result<(u64, u64), IndexError> {
        // total() and not sum(): absurd sizes that a peer announced must not overflow. Exact up to 2^53 bytes.
        let sql = "SELECT count(*), total(bytes) FROM
                   (SELECT max(size) AS bytes FROM rivals WHERE kind = 1 GROUP BY path)";
        let pending = self.first(sql, [], |_, row| Ok((count_at(row, 0)?, row.get::<_, f64>(1)? as u64)))?;
        Ok(pending.unwrap_or_default())
    }
}
