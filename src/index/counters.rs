//! Sums over the index that would cost a walk to find: kept in memory by the writer, stored with every commit.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::Totals;
use super::error::{Fault, Res};
use super::row::blob;
use crate::core::digest;
use crate::core::entry::{Entry, Kind};
use crate::core::message::BUCKETS;
use crate::core::version::COUNT_MAX;

/// Sequence numbers that are counted together: `seq >> BLOCK_BITS` names their block.
pub(super) const BLOCK_BITS: u32 = 10;
/// What one file counts for at most in the bytes of its block, as the migration that made the table says.
pub(super) const BLOCK_FILE_BYTES_MAX: u64 = 8 << 40;

/// The sums, with what of them is not stored yet.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) last_seq: u64,
    pub(super) totals: Totals,
    /// Bytes that lie in history.
    pub(super) history_bytes: u64,
    digest: Box<[u128; BUCKETS]>,
    unstored: Box<[bool; BUCKETS]>,
    /// By how much items and bytes of each block differ from what is stored.
    blocks: BTreeMap<u64, (i64, i64)>,
}

impl Counters {
    pub(super) fn load(conn: &Connection) -> Res<Self> {
        let sql = "SELECT last_seq, files, directories, symlinks, tombstones, bytes, history_bytes FROM state";
        let (last_seq, totals, history_bytes) = conn.prepare_cached(sql)?.query_row([], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let totals = Totals {
                files: number(1)?,
                directories: number(2)?,
                symlinks: number(3)?,
                tombstones: number(4)?,
                bytes: number(5)?,
            };
            Ok((number(0)?, totals, number(6)?))
        })?;
        let counts = [last_seq, totals.files, totals.directories, totals.symlinks, totals.tombstones];
        if counts.iter().any(|count| *count > COUNT_MAX) {
            return Err(Fault::Bad("it counts less than nothing"));
        }
        let unstored = Box::new([false; BUCKETS]);
        Ok(Self { last_seq, totals, history_bytes, digest: load_digest(conn)?, unstored, blocks: BTreeMap::new() })
    }

    /// Writes what has changed.
    pub(super) fn store(&mut self, conn: &Connection) -> Res<()> {
        let sql = "UPDATE state SET last_seq = ?1, files = ?2, directories = ?3, symlinks = ?4, tombstones = ?5,
                   bytes = ?6, history_bytes = ?7";
        let totals = &self.totals;
        let numbers = [
            self.last_seq,
            totals.files,
            totals.directories,
            totals.symlinks,
            totals.tombstones,
            totals.bytes,
            self.history_bytes,
        ];
        conn.prepare_cached(sql)?.execute(numbers.map(u64::cast_signed))?;
        let mut put = conn.prepare_cached("INSERT OR REPLACE INTO digest (bucket, value) VALUES (?1, ?2)")?;
        for (bucket, (value, unstored)) in self.digest.iter().zip(self.unstored.iter_mut()).enumerate() {
            if std::mem::take(unstored) {
                put.execute(params![bucket as i64, value.to_be_bytes()])?;
            }
        }
        self.store_blocks(conn)
    }

    fn store_blocks(&mut self, conn: &Connection) -> Res<()> {
        let sql = "INSERT INTO blocks (block, items, bytes) VALUES (?1, ?2, ?3) ON CONFLICT (block) DO UPDATE SET
                   items = items + excluded.items, bytes = bytes + excluded.bytes";
        for (block, (items, bytes)) in std::mem::take(&mut self.blocks) {
            let block = block.cast_signed();
            conn.prepare_cached(sql)?.execute(params![block, items, bytes])?;
            if items < 0 {
                conn.prepare_cached("DELETE FROM blocks WHERE block = ?1 AND items <= 0")?.execute([block])?;
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, seq: u64, entry: &Entry) {
        self.count(entry, u64::wrapping_add);
        self.sum(entry, u128::wrapping_add);
        self.block(seq, entry, 1);
    }

    pub(super) fn subtract(&mut self, seq: u64, entry: &Entry) {
        self.count(entry, u64::wrapping_sub);
        self.sum(entry, u128::wrapping_sub);
        self.block(seq, entry, -1);
    }

    /// What of the blocks after this one is not stored yet: items and bytes.
    pub(super) fn unstored_after(&self, block: u64) -> (i64, i64) {
        let later = self.blocks.range(block + 1..);
        later.fold((0, 0), |sum, (_, (items, bytes))| (sum.0 + items, sum.1 + bytes))
    }

    fn block(&mut self, seq: u64, entry: &Entry, sign: i64) {
        let size = entry.kind.content().map_or(0, |content| content.size.min(BLOCK_FILE_BYTES_MAX));
        let (items, bytes) = self.blocks.entry(seq >> BLOCK_BITS).or_default();
        *items += sign;
        *bytes += sign * size.cast_signed();
    }

    pub(super) fn digest(&self) -> Vec<u128> {
        self.digest.to_vec()
    }

    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        let totals = &mut self.totals;
        let count = match &entry.kind {
            Kind::File(content) => {
                totals.bytes = op(totals.bytes, content.size);
                &mut totals.files
            }
            Kind::Directory => &mut totals.directories,
            Kind::Symlink(_) => &mut totals.symlinks,
            Kind::Deleted => &mut totals.tombstones,
        };
        *count = op(*count, 1);
    }

    fn sum(&mut self, entry: &Entry, op: fn(u128, u128) -> u128) {
        if !entry.is_live() {
            return;
        }
        // A bucket is a byte, and there are 256 of each.
        let bucket = usize::from(digest::bucket_of(&entry.path));
        self.digest[bucket] = op(self.digest[bucket], digest::of_entry(entry));
        self.unstored[bucket] = true;
    }
}

/// The stored digest alone.
pub(super) fn load_digest(conn: &Connection) -> Res<Box<[u128; BUCKETS]>> {
    let mut digest = Box::new([0u128; BUCKETS]);
    let mut statement = conn.prepare_cached("SELECT bucket, value FROM digest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let slot = usize::try_from(row.get::<_, i64>(0)?).ok().and_then(|bucket| digest.get_mut(bucket));
        let value = blob(row, 1)?.try_into().map(u128::from_be_bytes);
        match (slot, value) {
            (Some(slot), Ok(value)) => *slot = value,
            _ => return Err(Fault::Bad("a malformed digest")),
        }
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{EPOCH, file, put, tombstone};
    use super::super::{Index, Mark};

    #[test]
    fn sums_that_cannot_be_are_damage_when_the_index_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        for broken in ["last_seq = -1", "files = -1", "directories = -9223372036854775808", "tombstones = -2"] {
            let at = dir.path().join(broken);
            let index = Index::open(&at, EPOCH).unwrap();
            index.conn.execute(&format!("UPDATE state SET {broken}"), []).unwrap();
            drop(index);
            assert!(Index::open(&at, EPOCH).err().unwrap().is_corrupt(), "{broken}");
        }
    }

    #[test]
    fn sums_that_come_to_be_wrong_meanwhile_break_nothing() {
        let mut index = Index::in_memory(EPOCH).unwrap();
        put(&mut index, &file("a", b"1"));
        index.counters_mut().totals.files = 0;
        index.put(&tombstone("a"), None, Mark::Here, 1).unwrap();
        index.count_since(0, None).unwrap();
    }
}
