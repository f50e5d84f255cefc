//! What is known of peers: how far each side has read the other, and what a peer has not applied and why.

use rusqlite::{Row, params};

use super::error::{Fault, Res};
use super::open::{Index, Reader, rows_max};
use super::row::{blob_or_null, count_at, pack_runs, path_at, reason_code, reason_from, unpack_runs};
use super::{IndexError, PeerRow};
use crate::core::id::{DeviceId, EpochId};
use crate::core::message::{Cursor, Exception};
use crate::core::path::RelPath;

impl Index {
    /// Stores what is known of a peer.
    pub fn set_peer(&mut self, peer: &PeerRow) -> Result<(), IndexError> {
        self.write(|index| {
            let number = index.number_device(peer.device)?;
            let cursor = peer.cursor.as_ref();
            let sql =
                "INSERT OR REPLACE INTO peers (peer, cursor_epoch, cursor_seq, cursor_runs, their_last_seq, acked,
                       applied, proved_ms, last_seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let params = params![
                number,
                cursor.map(|c| c.epoch.0.cast_signed()),
                cursor.map(|c| c.seq.cast_signed()),
                cursor.map(|c| pack_runs(&c.runs)),
                peer.their_last_seq.cast_signed(),
                peer.acked.cast_signed(),
                peer.applied.cast_signed(),
                peer.proved_ms,
                peer.last_seen_ms,
            ];
            index.execute(sql, params).map(drop)
        })
    }

    /// Forgets a peer, with its rivals and exceptions.
    pub fn forget_peer(&mut self, device: DeviceId) -> Result<(), IndexError> {
        self.write(|index| {
            let Some(number) = index.device_number(device)? else { return Ok(()) };
            index.drop_rivals_raw(device)?;
            index.execute("DELETE FROM exceptions WHERE peer = ?1", [number])?;
            index.execute("DELETE FROM peers WHERE peer = ?1", [number]).map(drop)
        })
    }

    /// Stores what a peer said it has not applied, in place of what it said before.
    pub fn set_exceptions(&mut self, peer: DeviceId, exceptions: &[Exception]) -> Result<(), IndexError> {
        self.write(|index| {
            let number = index.number_device(peer)?;
            index.execute("DELETE FROM exceptions WHERE peer = ?1", [number])?;
            let sql = "INSERT OR REPLACE INTO exceptions (peer, path, seq, reason) VALUES (?1, ?2, ?3, ?4)";
            for e in exceptions {
                index.execute(sql, params![number, e.path.key(), e.seq.cast_signed(), reason_code(e.reason)])?;
            }
            Ok(())
        })
    }
}

impl Reader {
    /// What is known of a peer.
    pub fn peer(&self, device: DeviceId) -> Result<Option<PeerRow>, IndexError> {
        let Some(number) = self.read(|r| r.device_number(device))? else { return Ok(None) };
        let sql = "SELECT peer, cursor_epoch, cursor_seq, cursor_runs, their_last_seq, acked, applied, proved_ms,
                   last_seen_ms FROM peers WHERE peer = ?1";
        self.first(sql, [number], peer_at)
    }

    /// What is known of all peers.
    pub fn peers(&self) -> Result<Vec<PeerRow>, IndexError> {
        let sql = "SELECT peer, cursor_epoch, cursor_seq, cursor_runs, their_last_seq, acked, applied, proved_ms,
                   last_seen_ms FROM peers ORDER BY peer";
        self.rows(sql, [], peer_at)
    }

    /// What a peer said it has not applied, in path order.
    pub fn exceptions(&self, peer: DeviceId, limit: usize) -> Result<Vec<Exception>, IndexError> {
        let Some(number) = self.read(|r| r.device_number(peer))? else { return Ok(Vec::new()) };
        let sql = "SELECT path, seq, reason FROM exceptions WHERE peer = ?1 ORDER BY path LIMIT ?2";
        self.rows(sql, [number, rows_max(limit)], exception_at)
    }

    /// What a peer said of one path that it has not applied.
    pub fn exception_at(&self, peer: DeviceId, path: &RelPath) -> Result<Option<Exception>, IndexError> {
        let Some(number) = self.read(|r| r.device_number(peer))? else { return Ok(None) };
        let sql = "SELECT path, seq, reason FROM exceptions WHERE peer = ?1 AND path = ?2";
        self.first(sql, params![number, path.key()], exception_at)
    }
}

fn peer_at(reader: &Reader, row: &Row) -> Res<PeerRow> {
    let cursor = match row.get::<_, Option<i64>>(1)? {
        None => None,
        Some(epoch) => Some(Cursor {
            epoch: EpochId(epoch.cast_unsigned()),
            seq: count_at(row, 2)?,
            runs: unpack_runs(blob_or_null(row, 3)?.ok_or(Fault::Bad("a cursor without runs"))?)?,
        }),
    };
    Ok(PeerRow {
        device: reader.device(row.get(0)?)?,
        cursor,
        their_last_seq: count_at(row, 4)?,
        acked: count_at(row, 5)?,
        applied: count_at(row, 6)?,
        proved_ms: row.get(7)?,
        last_seen_ms: row.get(8)?,
    })
}

fn exception_at(_: &Reader, row: &Row) -> Res<Exception> {
    Ok(Exception { path: path_at(row, 0)?, seq: count_at(row, 1)?, reason: reason_from(row.get(2)?)? })
}
