//! How values are packed into columns and read back. Nothing that is read is believed to be well-formed.

use rusqlite::Row;

use super::error::{Fault, Res};
use super::open::Reader;
use super::{HistoryRow, Mark, Record, Rival};
use crate::core::content::{Content, ContentId};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Kind, LINK_BYTES_MAX, MODE_MASK, Meta, SUPERSEDED_MAX, Stamp};
use crate::core::id::{DeviceId, EpochId, RunId};
use crate::core::message::{RUNS_MAX, Reason};
use crate::core::path::RelPath;
use crate::core::version::{COUNT_MAX, EPOCHS_MAX, VersionVector};

/// The columns that entries and rivals share, in the order in which [`entry_at`] reads them.
macro_rules! entry_columns {
    () => {
        "path, kind, content, depth, size, mtime_ns, weight_ns, version, author, superseded, meta"
    };
}
/// The columns of a look at the disk, in the order in which [`disk_at`] reads them.
macro_rules! disk_columns {
    () => {
        "disk_kind, disk_size, disk_mtime_ns, disk_ctime_ns, disk_inode, disk_mode"
    };
}
/// The columns that [`record_at`] reads.
macro_rules! record_columns {
    () => {
        concat!(
            $crate::index::row::entry_columns!(),
            ", seq, mark, changed_ms, ",
            $crate::index::row::disk_columns!(),
            ", brought_by, placed_ms"
        )
    };
}
pub(super) use {disk_columns, entry_columns, record_columns};

/// How many columns [`entry_at`] reads.
const ENTRY_COLUMNS: usize = 11;
/// All permission bits that a disk may show.
const DISK_MODE_MAX: u32 = 0o7777;
const META_STAMP: u8 = 1;
const META_MODE: u8 = 2;
const META_TOUCHED: u8 = 4;

/// What stands in the columns `kind`, `content`, `depth` and `size`.
pub(super) type KindValues<'a> = (i64, Option<&'a [u8]>, Option<i64>, Option<i64>);
/// What stands in the disk columns.
pub(super) type DiskValues = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

pub(super) fn kind_values(kind: &Kind) -> KindValues<'_> {
    match kind {
        Kind::Deleted => (0, None, None, None),
        Kind::File(c) => (1, Some(&c.id.0), Some(i64::from(c.depth)), Some(c.size.cast_signed())),
        Kind::Directory => (2, None, None, None),
        Kind::Symlink(target) => (3, Some(target), None, None),
    }
}

pub(super) fn disk_values(disk: Option<&DiskState>) -> DiskValues {
    let Some(d) = disk else { return (None, None, None, None, None, None) };
    let kind = disk_kind_code(d.kind);
    let (size, inode) = (d.size.cast_signed(), d.inode.cast_signed());
    (Some(kind.into()), Some(size), Some(d.mtime_ns), Some(d.ctime_ns), Some(inode), Some(d.mode.into()))
}

/// The weight's column: null where it equals the mtime, as it nearly always does.
pub(super) fn weight_value(entry: &Entry) -> Option<i64> {
    (entry.weight_ns != entry.mtime_ns).then_some(entry.weight_ns)
}

pub(super) fn pack_version(version: &VersionVector) -> Vec<u8> {
    version.pairs().iter().flat_map(|(epoch, count)| pair(epoch.0, *count)).collect()
}

/// `None` where there are none: most entries were never changed.
pub(super) fn pack_ids(ids: &[ContentId]) -> Option<Vec<u8>> {
    (!ids.is_empty()).then(|| ids.iter().flat_map(|id| id.0).collect())
}

pub(super) fn pack_runs(runs: &[(RunId, u64)]) -> Vec<u8> {
    runs.iter().flat_map(|(run, seq)| pair(run.0, *seq)).collect()
}

/// A byte that says which parts follow, then these; `None` for the default.
pub(super) fn pack_meta(meta: &Meta) -> Option<Vec<u8>> {
    if *meta == Meta::default() {
        return None;
    }
    let mut packed = vec![0];
    let mut parts = 0;
    if meta.stamp != Stamp::default() {
        parts |= META_STAMP;
        packed.extend(pair(meta.stamp.count, meta.stamp.epoch.0));
    }
    if let Some((kind, mode)) = meta.mode {
        parts |= META_MODE;
        packed.push(disk_kind_code(kind));
        packed.extend(mode.to_be_bytes());
    }
    if let Some((mtime_ns, on)) = meta.touched {
        parts |= META_TOUCHED;
        packed.extend(mtime_ns.to_be_bytes());
        packed.extend(on.0);
    }
    packed[0] = parts;
    Some(packed)
}

/// Reads `entry_columns!`, which begin at column 0.
pub(super) fn entry_at(reader: &Reader, row: &Row) -> Res<Entry> {
    let (kind, mtime_ns) = (kind_at(row)?, row.get(5)?);
    let weight_ns = row.get::<_, Option<i64>>(6)?.unwrap_or(mtime_ns);
    // Peers would take an entry that breaks the rules for a breach of the protocol.
    if matches!(kind, Kind::Directory | Kind::Deleted) && (mtime_ns, weight_ns) != (0, 0) {
        return Err(Fault::Bad("times of what has none"));
    }
    Ok(Entry {
        path: path_at(row, 0)?,
        kind,
        mtime_ns,
        weight_ns,
        version: unpack_version(blob(row, 7)?)?,
        author: reader.device(row.get(8)?)?,
        superseded: unpack_ids(blob_or_null(row, 9)?.unwrap_or_default())?,
        meta: blob_or_null(row, 10)?.map_or(Ok(Meta::default()), unpack_meta)?,
    })
}

/// Reads `record_columns!`.
pub(super) fn record_at(reader: &Reader, row: &Row) -> Res<Record> {
    Ok(Record {
        entry: entry_at(reader, row)?,
        seq: count_at(row, ENTRY_COLUMNS)?,
        mark: mark_from(row.get(ENTRY_COLUMNS + 1)?)?,
        changed_ms: row.get(ENTRY_COLUMNS + 2)?,
        disk: disk_at(row, ENTRY_COLUMNS + 3)?,
        brought_by: reader.device_or_null(row.get(ENTRY_COLUMNS + 9)?)?,
        placed_ms: row.get(ENTRY_COLUMNS + 10)?,
    })
}

/// Reads `entry_columns!`, peer, seq, held.
pub(super) fn rival_at(reader: &Reader, row: &Row) -> Res<Rival> {
    Ok(Rival {
        entry: entry_at(reader, row)?,
        peer: reader.device(row.get(ENTRY_COLUMNS)?)?,
        seq: count_at(row, ENTRY_COLUMNS + 1)?,
        held: row.get(ENTRY_COLUMNS + 2)?,
    })
}

/// Reads slot, path, content, depth, size, author, displaced_ms, by_remote, `disk_columns!`, brought_by, displaced_by,
/// placed_ms.
pub(super) fn history_at(reader: &Reader, row: &Row) -> Res<HistoryRow> {
    let content = match blob_or_null(row, 2)? {
        None => None,
        Some(id) => Some(content_from(id, row.get(3)?, row.get(4)?)?),
    };
    Ok(HistoryRow {
        slot: path_at(row, 0)?,
        path: path_at(row, 1)?,
        content,
        author: reader.device(row.get(5)?)?,
        displaced_ms: row.get(6)?,
        by_remote: row.get(7)?,
        brought_by: reader.device_or_null(row.get(14)?)?,
        displaced_by: reader.device_or_null(row.get(15)?)?,
        placed_ms: row.get(16)?,
        disk: disk_at(row, 8)?.ok_or(Fault::Bad("a history row without a file"))?,
    })
}

pub(super) fn path_at(row: &Row, column: usize) -> Res<RelPath> {
    RelPath::from_key(blob(row, column)?).map_err(|_| Fault::Bad("an impossible path"))
}

/// A number that is never negative: a sequence number, a count.
pub(super) fn count_at(row: &Row, column: usize) -> Res<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| Fault::Bad("a negative count"))
}

pub(super) fn blob<'a>(row: &'a Row, column: usize) -> Res<&'a [u8]> {
    row.get_ref(column)?.as_blob().map_err(|_| Fault::Bad("a column of another type"))
}

pub(super) fn blob_or_null<'a>(row: &'a Row, column: usize) -> Res<Option<&'a [u8]>> {
    row.get_ref(column)?.as_blob_or_null().map_err(|_| Fault::Bad("a column of another type"))
}

pub(super) fn content_id(bytes: &[u8]) -> Res<ContentId> {
    bytes.try_into().map(ContentId).map_err(|_| Fault::Bad("a content id of another length"))
}

pub(super) fn device_from(bytes: &[u8]) -> Res<DeviceId> {
    bytes.try_into().map(DeviceId).map_err(|_| Fault::Bad("a device id of another length"))
}

pub(super) fn mark_code(mark: Mark) -> i64 {
    match mark {
        Mark::Here => 0,
        Mark::Missing => 1,
        Mark::Held => 2,
        Mark::Suspect => 3,
        Mark::Ignored => 4,
        Mark::Declined => 5,
        Mark::Kept => 6,
        Mark::Own => 7,
        Mark::Reverted => 8,
    }
}

fn mark_from(code: i64) -> Res<Mark> {
    const MARKS: [Mark; 9] = [
        Mark::Here,
        Mark::Missing,
        Mark::Held,
        Mark::Suspect,
        Mark::Ignored,
        Mark::Declined,
        Mark::Kept,
        Mark::Own,
        Mark::Reverted,
    ];
    MARKS.into_iter().find(|m| mark_code(*m) == code).ok_or(Fault::Bad("an unknown mark"))
}

pub(super) fn reason_code(reason: Reason) -> i64 {
    match reason {
        Reason::Pending => 0,
        Reason::Conflict => 1,
        Reason::Ignored => 2,
        Reason::Declined => 3,
        Reason::Held => 4,
        Reason::Problem => 5,
    }
}

pub(super) fn reason_from(code: i64) -> Res<Reason> {
    const REASONS: [Reason; 6] =
        [Reason::Pending, Reason::Conflict, Reason::Ignored, Reason::Declined, Reason::Held, Reason::Problem];
    REASONS.into_iter().find(|r| reason_code(*r) == code).ok_or(Fault::Bad("an unknown reason"))
}

pub(super) fn unpack_runs(packed: &[u8]) -> Res<Vec<(RunId, u64)>> {
    let pairs = unpack_pairs(packed)?;
    if pairs.len() > RUNS_MAX || pairs.iter().any(|(_, seq)| *seq > COUNT_MAX) {
        return Err(Fault::Bad("impossible runs of a peer"));
    }
    Ok(pairs.into_iter().map(|(run, seq)| (RunId(run), seq)).collect())
}

fn disk_kind_code(kind: DiskKind) -> u8 {
    match kind {
        DiskKind::File => 1,
        DiskKind::Directory => 2,
        DiskKind::Symlink => 3,
    }
}

fn disk_kind_from(code: i64) -> Res<DiskKind> {
    const KINDS: [DiskKind; 3] = [DiskKind::File, DiskKind::Directory, DiskKind::Symlink];
    KINDS.into_iter().find(|k| i64::from(disk_kind_code(*k)) == code).ok_or(Fault::Bad("an unknown kind"))
}

fn disk_at(row: &Row, first: usize) -> Res<Option<DiskState>> {
    let Some(kind) = row.get::<_, Option<i64>>(first)? else { return Ok(None) };
    Ok(Some(DiskState {
        kind: disk_kind_from(kind)?,
        size: row.get::<_, i64>(first + 1)?.cast_unsigned(),
        mtime_ns: row.get(first + 2)?,
        ctime_ns: row.get(first + 3)?,
        inode: row.get::<_, i64>(first + 4)?.cast_unsigned(),
        mode: match row.get(first + 5)? {
            mode if mode <= DISK_MODE_MAX => mode,
            _ => return Err(Fault::Bad("impossible permission bits")),
        },
    }))
}

fn kind_at(row: &Row) -> Res<Kind> {
    match row.get::<_, i64>(1)? {
        0 => Ok(Kind::Deleted),
        1 => Ok(Kind::File(content_from(blob(row, 2)?, row.get(3)?, row.get(4)?)?)),
        2 => Ok(Kind::Directory),
        3 => match blob(row, 2)? {
            target if (1..=LINK_BYTES_MAX).contains(&target.len()) && !target.contains(&0) => {
                Ok(Kind::Symlink(target.into()))
            }
            _ => Err(Fault::Bad("an impossible symlink target")),
        },
        _ => Err(Fault::Bad("an unknown kind")),
    }
}

fn content_from(id: &[u8], depth: i64, size: i64) -> Res<Content> {
    let depth = u8::try_from(depth).map_err(|_| Fault::Bad("an impossible depth"))?;
    let size = u64::try_from(size).map_err(|_| Fault::Bad("a negative size"))?;
    let content = Content { id: content_id(id)?, depth, size };
    if content.is_plausible() { Ok(content) } else { Err(Fault::Bad("an implausible content")) }
}

fn unpack_version(packed: &[u8]) -> Res<VersionVector> {
    if packed.len() > EPOCHS_MAX * 16 {
        return Err(Fault::Bad("an overfull version vector"));
    }
    let pairs = unpack_pairs(packed)?.into_iter().map(|(epoch, count)| (EpochId(epoch), count)).collect();
    VersionVector::from_pairs(pairs).map_err(|_| Fault::Bad("a malformed version vector"))
}

fn unpack_ids(packed: &[u8]) -> Res<Vec<ContentId>> {
    let (ids, rest) = packed.as_chunks::<32>();
    if !rest.is_empty() || ids.len() > SUPERSEDED_MAX {
        return Err(Fault::Bad("a malformed list of superseded contents"));
    }
    Ok(ids.iter().map(|id| ContentId(*id)).collect())
}

fn unpack_meta(packed: &[u8]) -> Res<Meta> {
    let read = || -> Option<Meta> {
        let mut meta = Meta::default();
        let (parts, mut rest) = packed.split_first()?;
        if parts & META_STAMP != 0 {
            let count = u64::from_be_bytes(take(&mut rest)?);
            meta.stamp = Stamp { count, epoch: EpochId(u64::from_be_bytes(take(&mut rest)?)) };
        }
        if parts & META_MODE != 0 {
            let [kind] = take(&mut rest)?;
            meta.mode = Some((disk_kind_from(kind.into()).ok()?, u32::from_be_bytes(take(&mut rest)?)));
        }
        if parts & META_TOUCHED != 0 {
            let mtime_ns = i64::from_be_bytes(take(&mut rest)?);
            meta.touched = Some((mtime_ns, ContentId(take(&mut rest)?)));
        }
        let is_valid = meta.stamp.count <= COUNT_MAX && meta.mode.is_none_or(|(_, mode)| mode <= MODE_MASK);
        (rest.is_empty() && is_valid).then_some(meta)
    };
    read().ok_or(Fault::Bad("malformed metadata"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn pair(first: u64, second: u64) -> impl Iterator<Item = u8> {
    first.to_be_bytes().into_iter().chain(second.to_be_bytes())
}

fn unpack_pairs(packed: &[u8]) -> Res<Vec<(u64, u64)>> {
    let (pairs, rest) = packed.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(Fault::Bad("a list of pairs that is cut short"));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    Ok(pairs.iter().map(|p| (number(&p[..8]), number(&p[8..]))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn every_field_of_every_kind_reads_back() {
        let mut index = index();
        let entries = [
            full("full"),
            file("plain", b""),
            of_kind("dir", Kind::Directory),
            of_kind("link", Kind::Symlink(b"../\xff"[..].into())),
            tombstone("gone"),
            Entry { superseded: full("x").superseded, ..tombstone("gone with a past") },
        ];
        for (entry, mark) in entries.iter().zip([Mark::Here, Mark::Missing, Mark::Held, Mark::Suspect, Mark::Kept]) {
            let seq = index.put(entry, disk(u64::MAX), mark, -3).unwrap();
            let record = Record {
                entry: entry.clone(),
                seq,
                disk: disk(u64::MAX),
                mark,
                changed_ms: -3,
                brought_by: Some(DeviceId::NONE),
                placed_ms: (entry.author != DeviceId::NONE).then_some(-3),
            };
            assert_eq!(index.record(&entry.path).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_row_that_makes_no_sense_is_damage_and_not_a_panic() {
        for broken in [
            "path = x'2e2e'",
            "path = x'61002f'",
            "kind = 9",
            "kind = 2",
            "kind = 3, content = zeroblob(5000)",
            "kind = 3, content = x''",
            "kind = 3, content = x'6100'",
            "content = x'00'",
            "content = NULL",
            "depth = -1",
            "depth = 256",
            "depth = NULL",
            "depth = 4",
            "size = -1",
            "size = 1048577",
            "version = x'00'",
            "version = zeroblob(16)",
            "version = zeroblob(4112)",
            "author = 99",
            "superseded = x'0011'",
            "superseded = zeroblob(320)",
            "meta = x''",
            "meta = x'01ff'",
            "meta = x'0000'",
            "meta = x'0180000000000000000000000000000000'",
            "meta = x'020100000200'",
            "meta = x'020900000000'",
            "mark = 77",
            "disk_kind = 8",
            "disk_mode = -1",
            "disk_mode = 4096",
            "disk_mode = NULL",
            "seq = -5",
        ] {
            let mut index = index();
            put(&mut index, &full("a"));
            index.conn.execute(&format!("UPDATE entries SET {broken}"), []).unwrap();
            let error = index.records_from(None, None, 10).unwrap_err();
            assert!(error.is_corrupt(), "{broken}: {error}");
        }
    }

    #[test]
    fn metadata_reads_back_whatever_parts_it_has() {
        let whole = full("a").meta;
        for meta in [
            Meta::default(),
            Meta { stamp: Stamp::default(), ..whole.clone() },
            Meta { mode: None, ..whole.clone() },
            Meta { touched: None, ..whole.clone() },
            whole,
        ] {
            assert_eq!(pack_meta(&meta).map_or(Meta::default(), |packed| unpack_meta(&packed).unwrap()), meta);
        }
    }
}
