//! Fixtures that the tests of this module share.

use super::{HistoryRow, Index, Mark, Reader};
use crate::core::content::{ChunkList, Content};
use crate::core::digest;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Kind, Meta, Stamp};
use crate::core::id::{DeviceId, EpochId};
use crate::core::message::Announced;
use crate::core::path::RelPath;
use crate::core::version::VersionVector;

pub(super) const EPOCH: EpochId = EpochId(u64::MAX - 1);
pub(super) const PEER: DeviceId = DeviceId([7; 32]);

pub(super) fn index() -> Index {
    Index::in_memory(EPOCH).unwrap()
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(super) fn paths(texts: &[&str]) -> Vec<RelPath> {
    texts.iter().map(|t| path(t)).collect()
}

/// A file whose content is one chunk.
pub(super) fn file(at: &str, bytes: &[u8]) -> Entry {
    of_kind(at, Kind::File(Content::of_chunk(bytes)))
}

pub(super) fn tombstone(at: &str) -> Entry {
    of_kind(at, Kind::Deleted)
}

pub(super) fn of_kind(at: &str, kind: Kind) -> Entry {
    let has_times = matches!(kind, Kind::File(_) | Kind::Symlink(_));
    let mtime_ns = if has_times { 1_700_000_000_123_456_789 } else { 0 };
    Entry {
        path: path(at),
        kind,
        mtime_ns,
        weight_ns: mtime_ns,
        version: VersionVector::new().with(EPOCH, 1),
        author: DeviceId::NONE,
        superseded: Vec::new(),
        meta: Meta::default(),
    }
}

/// An entry with something in every field.
pub(super) fn full(at: &str) -> Entry {
    let content = Content::of_chunk(b"full");
    Entry {
        weight_ns: -5,
        version: VersionVector::new().with(EpochId(3), 4).with(EPOCH, u64::MAX >> 1),
        author: DeviceId([9; 32]),
        superseded: vec![content.id, Content::of_chunk(b"older").id],
        meta: Meta {
            stamp: Stamp { count: 5, epoch: EPOCH },
            mode: Some((DiskKind::File, 0o755)),
            touched: Some((-77, content.id)),
        },
        ..of_kind(at, Kind::File(content))
    }
}

pub(super) fn disk(size: u64) -> Option<DiskState> {
    Some(DiskState { kind: DiskKind::File, size, mtime_ns: -1, ctime_ns: i64::MAX, inode: u64::MAX, mode: 0o644 })
}

pub(super) fn put(index: &mut Index, entry: &Entry) -> u64 {
    let disk = if entry.is_live() { disk(1) } else { None };
    index.put(entry, disk, Mark::Here, 1000).unwrap()
}

pub(super) fn announced(entry: Entry, seq: u64) -> Announced {
    Announced { entry, seq, held: true }
}

/// Chunks that are all different, and the lists above them, two levels deep.
pub(super) fn two_level_content(pages: usize, chunks_per_page: usize) -> (Content, Vec<ChunkList>, Vec<Content>) {
    let chunk = |n: usize| Content::of_chunk(&[&(n as u64).to_be_bytes()[..], &vec![0; n % 5]].concat());
    let chunks: Vec<Content> = (0..pages * chunks_per_page).map(chunk).collect();
    let mut lists: Vec<ChunkList> =
        chunks.chunks(chunks_per_page).map(|page| ChunkList::new(page.to_vec()).unwrap()).collect();
    lists.push(ChunkList::new(lists.iter().map(ChunkList::content).collect()).unwrap());
    (lists.last().unwrap().content(), lists, chunks)
}

/// The digest and the number of live entries by a walk over everything.
pub(super) fn recomputed(reader: &Reader) -> (Vec<u128>, u64) {
    let mut buckets = vec![0u128; 256];
    let mut live = 0;
    for record in reader.records_from(None, None, usize::MAX).unwrap() {
        let bucket = &mut buckets[usize::from(digest::bucket_of(&record.entry.path))];
        *bucket = bucket.wrapping_add(digest::of_entry(&record.entry));
        live += u64::from(record.entry.is_live());
    }
    (buckets, live)
}

/// Every number in every table, to see that nothing is left over.
pub(super) fn count(index: &Index, table: &str) -> i64 {
    index.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// What a peer's change put into history.
pub(super) fn displaced(slot: &str, from: &str, content: Option<Content>, at_ms: i64) -> HistoryRow {
    HistoryRow {
        slot: path(slot),
        path: path(from),
        content,
        disk: disk(100).unwrap(),
        author: PEER,
        displaced_ms: at_ms,
        by_remote: true,
        brought_by: None,
        displaced_by: None,
        placed_ms: Some(at_ms - 1),
    }
}
