//! The folder digest: equal digests prove that two devices hold the same live entries.
//!
//! A bucket is the wrapping sum of its live entries' values, so the order in which entries came does not matter and
//! one entry can be taken out again.

use sha2::{Digest, Sha256};

use super::disk::DiskKind;
use super::entry::{Entry, Kind};
use super::path::RelPath;

/// The bucket that a path belongs to.
pub fn bucket_of(path: &RelPath) -> u8 {
    Sha256::new().chain_update(b"p2psync bucket\0").chain_update(path.as_bytes()).finalize()[0]
}

/// What a live entry adds to its bucket; 0 for a tombstone.
pub fn of_entry(entry: &Entry) -> u128 {
    if !entry.is_live() {
        return 0;
    }
    let mut hash = Sha256::new().chain_update(b"p2psync entry\0");
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(entry.path.as_bytes());
    match &entry.kind {
        Kind::Deleted => {}
        Kind::Directory => field(b"d"),
        Kind::Symlink(target) => field(target),
        Kind::File(content) => {
            field(&content.id.0);
            field(&[content.depth]);
            field(&content.size.to_be_bytes());
        }
    }
    field(&[disk_kind_code(entry.kind.disk_kind())]);
    field(&entry.mtime_ns.to_be_bytes());
    field(&entry.weight_ns.to_be_bytes());
    field(&entry.author.0);
    for (epoch, count) in entry.version.pairs() {
        field(&epoch.0.to_be_bytes());
        field(&count.to_be_bytes());
    }
    field(&entry.meta.stamp.count.to_be_bytes());
    field(&entry.meta.stamp.epoch.0.to_be_bytes());
    if let Some((kind, mode)) = entry.meta.mode {
        field(&[disk_kind_code(Some(kind))]);
        field(&mode.to_be_bytes());
    }
    if let Some((mtime_ns, on)) = entry.meta.touched {
        field(&mtime_ns.to_be_bytes());
        field(&on.0);
    }
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

fn disk_kind_code(kind: Option<DiskKind>) -> u8 {
    match kind {
        None => 0,
        Some(DiskKind::File) => 1,
        Some(DiskKind::Directory) => 2,
        Some(DiskKind::Symlink) => 3,
    }
}
