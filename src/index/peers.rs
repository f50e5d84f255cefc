//! What is known of peers: how far each side has read the other, and what a peer has not applied and why.

use rusqlite::{Row, params};

use super::error::{Fault, Res};
use super::open::{Index, Reader, rows_max};
use super::row::{
    blob, blob_or_null, count_at, device_from, pack_runs, path_at, reason_code, reason_from, unpack_runs,
};
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

    /// Forgets a peer, with its rivals and exceptions, but not that it had the folder.
    pub fn forget_peer(&mut self, device: DeviceId) -> Result<(), IndexError> {
        self.write(|index| {
            let Some(number) = index.device_number(device)? else { return Ok(()) };
            let sql = "INSERT OR REPLACE INTO notes (key, value)
                       SELECT ?2, '' FROM peers WHERE peer = ?1 AND (cursor_epoch IS NOT NULL OR acked > 0)";
            index.execute(sql, params![number, note_had(device)])?;
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

    /// Devices that anything here came from or was said of, whether they are peers still or not.
    pub fn devices(&self, limit: usize) -> Result<Vec<DeviceId>, IndexError> {
        let sql = "SELECT device FROM devices ORDER BY id DESC LIMIT ?1";
        self.rows(sql, [rows_max(limit)], |_, row| device_from(blob(row, 0)?))
    }

    /// True where a device itself had the folder while it was a peer, whether it is one still or not. What others say
    /// of it, as that it is the author of something, does not count.
    pub fn has_had(&self, device: DeviceId) -> Result<bool, IndexError> {
        Ok(self.peer(device)?.is_some_and(|row| has_spoken(&row)) || self.note(&note_had(device))?.is_some())
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

/// The note that a peer had the folder, which stays when the peer is forgotten.
fn note_had(device: DeviceId) -> String {
    format!("had by {device}")
}

/// A peer that has sent of its own index, or received of ours, has the folder.
fn has_spoken(row: &PeerRow) -> bool {
    row.cursor.is_some() || row.acked > 0
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::id::RunId;
    use crate::core::message::Reason;

    #[test]
    fn what_no_peer_can_have_said_is_damage() {
        for broken in ["cursor_runs = x'00'", "cursor_runs = x'00000000000000008000000000000000'", "acked = -1"] {
            let mut index = index();
            let cursor = Some(Cursor { epoch: EPOCH, seq: 9, runs: vec![(RunId(1), 9)] });
            let (device, proved_ms, last_seen_ms) = (PEER, None, None);
            let row = PeerRow { device, cursor, their_last_seq: 9, acked: 9, applied: 9, proved_ms, last_seen_ms };
            index.set_peer(&row).unwrap();
            index.conn.execute(&format!("UPDATE peers SET {broken}"), []).unwrap();
            assert!(index.peers().unwrap_err().is_corrupt(), "{broken}");
        }
    }

    #[test]
    fn what_is_known_of_a_peer_reads_back() {
        let mut index = index();
        let bare = PeerRow {
            device: PEER,
            cursor: None,
            their_last_seq: 0,
            acked: 0,
            applied: 0,
            proved_ms: None,
            last_seen_ms: None,
        };
        let cursor = Cursor { epoch: EPOCH, seq: 9, runs: vec![(RunId(u64::MAX), 3), (RunId(1), 9)] };
        let full = PeerRow {
            device: DeviceId([8; 32]),
            cursor: Some(cursor),
            their_last_seq: 10,
            acked: 5,
            applied: 4,
            proved_ms: Some(-1),
            last_seen_ms: Some(2),
        };
        assert_eq!(index.peer(PEER).unwrap(), None);
        for peer in [&full, &bare, &full] {
            index.set_peer(peer).unwrap();
        }
        assert_eq!(index.peer(full.device).unwrap(), Some(full.clone()));
        assert_eq!(index.peer(PEER).unwrap(), Some(bare.clone()));
        assert_eq!(index.peers().unwrap(), [full, bare]);
    }

    #[test]
    fn exceptions_replace_the_earlier_ones_of_that_peer_only() {
        let mut index = index();
        let at = |text: &str, reason| Exception { path: path(text), seq: 3, reason };
        let other = DeviceId([8; 32]);
        let reasons =
            [Reason::Pending, Reason::Conflict, Reason::Ignored, Reason::Declined, Reason::Held, Reason::Problem];
        let all: Vec<Exception> = (b'a'..).zip(reasons).map(|(n, r)| at(&(n as char).to_string(), r)).collect();
        index.set_exceptions(other, &all).unwrap();
        index.set_exceptions(PEER, &all).unwrap();
        index.set_exceptions(PEER, &[at("z", Reason::Held)]).unwrap();
        assert_eq!(index.exceptions(PEER, 9).unwrap(), [at("z", Reason::Held)]);
        assert_eq!(index.exceptions(other, 9).unwrap(), all);
        assert_eq!(index.exceptions(other, 2).unwrap(), all[..2]);
        assert_eq!(index.exception_at(other, &path("b")).unwrap(), Some(at("b", Reason::Conflict)));
        assert_eq!(index.exception_at(PEER, &path("b")).unwrap(), None);
    }

    #[test]
    fn a_forgotten_peer_takes_its_rivals_and_exceptions_along() {
        let mut index = index();
        let row = PeerRow {
            device: PEER,
            cursor: None,
            their_last_seq: 0,
            acked: 0,
            applied: 0,
            proved_ms: None,
            last_seen_ms: None,
        };
        index.set_peer(&row).unwrap();
        index.put_rival(PEER, &announced(file("a", b""), 1)).unwrap();
        index.set_exceptions(PEER, &[Exception { path: path("a"), seq: 1, reason: Reason::Pending }]).unwrap();
        index.forget_peer(PEER).unwrap();
        index.forget_peer(DeviceId([1; 32])).unwrap();
        assert_eq!(["peers", "rivals", "exceptions"].map(|table| count(&index, table)), [0, 0, 0]);
    }

    #[test]
    fn that_a_device_had_the_folder_is_known_from_itself_only_and_stays_known() {
        let (mut index, named) = (index(), DeviceId([9; 32]));
        let silent = PeerRow {
            device: PEER,
            cursor: None,
            their_last_seq: 0,
            acked: 0,
            applied: 0,
            proved_ms: None,
            last_seen_ms: Some(1),
        };
        index.set_peer(&silent).unwrap();
        let mut entry = file("a", b"");
        entry.author = named;
        index.put_rival(PEER, &announced(entry, 1)).unwrap();
        assert!(!index.has_had(PEER).unwrap() && !index.has_had(named).unwrap());
        index.set_peer(&PeerRow { acked: 3, ..silent }).unwrap();
        assert!(index.has_had(PEER).unwrap());
        index.forget_peer(PEER).unwrap();
        index.forget_peer(named).unwrap();
        assert!(index.has_had(PEER).unwrap() && !index.has_had(named).unwrap());
    }
}
