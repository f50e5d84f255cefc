//! The folder digest: equal digests prove that two indexes agree.
//!
//! A bucket's digest is the wrapping sum of its entries' values, so it does not depend on any order and is kept up to
//! date with one subtraction and one addition per change.

use sha2::{Digest, Sha256};

use super::disk::DiskKind;
use super::entry::{Entry, Kind};
use super::path::RelPath;

/// The bucket that a path belongs to, on every device.
pub fn bucket_of(path: &RelPath) -> u8 {
    Sha256::new().chain_update(b"p2psync bucket\0").chain_update(path.as_bytes()).finalize()[0]
}

/// An entry's value. Tombstones have none, so that forgetting one at different times makes no difference; neither
/// have superseded ids, which every device collects for itself.
pub fn of_entry(entry: &Entry) -> u128 {
    if entry.kind.is_deleted() {
        return 0;
    }
    let hash = Sha256::new().chain_update(b"p2psync entry\0").chain_update(canonical(entry)).finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(first)
}

/// One form for each entry and one entry for each form: fixed widths, and a length before all that varies.
fn canonical(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + entry.path.as_bytes().len());
    put_bytes(&mut out, entry.path.as_bytes());
    match &entry.kind {
        Kind::File(content) => {
            out.push(1);
            out.extend_from_slice(&content.id.0);
            out.push(content.depth);
            out.extend_from_slice(&content.size.to_be_bytes());
        }
        Kind::Directory => out.push(2),
        Kind::Symlink(target) => {
            out.push(3);
            put_bytes(&mut out, target);
        }
        Kind::Deleted => out.push(4),
    }
    out.extend_from_slice(&entry.mtime_ns.to_be_bytes());
    out.extend_from_slice(&entry.weight_ns.to_be_bytes());
    out.extend_from_slice(&entry.author.0);
    out.extend_from_slice(&(entry.version.pairs().len() as u64).to_be_bytes());
    for (epoch, count) in entry.version.pairs() {
        out.extend_from_slice(&epoch.0.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
    }
    out.extend_from_slice(&entry.meta.stamp.count.to_be_bytes());
    out.extend_from_slice(&entry.meta.stamp.epoch.0.to_be_bytes());
    match entry.meta.mode {
        Some((on, mode)) => {
            out.extend_from_slice(&[1, kind_number(on)]);
            out.extend_from_slice(&mode.to_be_bytes());
        }
        None => out.push(0),
    }
    match entry.meta.touched {
        Some((mtime_ns, on)) => {
            out.push(1);
            out.extend_from_slice(&mtime_ns.to_be_bytes());
            out.extend_from_slice(&on.0);
        }
        None => out.push(0),
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn kind_number(kind: DiskKind) -> u8 {
    match kind {
        DiskKind::File => 1,
        DiskKind::Directory => 2,
        DiskKind::Symlink => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::{Content, ContentId};
    use crate::core::entry::{Meta, Stamp};
    use crate::core::id::{DeviceId, EpochId};
    use crate::core::version::VersionVector;

    fn entry() -> Entry {
        Entry {
            kind: Kind::File(Content::of_chunk(b"text")),
            mtime_ns: 7,
            weight_ns: 6,
            version: VersionVector::new().with(EpochId(3), 9),
            author: DeviceId([1; 32]),
            superseded: vec![ContentId([2; 32])],
            meta: Meta {
                stamp: Stamp { count: 4, epoch: EpochId(3) },
                mode: Some((DiskKind::File, 0o755)),
                touched: Some((8, ContentId([5; 32]))),
            },
            ..Entry::nothing(RelPath::parse(b"dir/name").unwrap())
        }
    }

    #[test]
    fn values_and_buckets_never_change() {
        assert_eq!(bucket_of(&entry().path), 96);
        assert_eq!(format!("{:032x}", of_entry(&entry())), "cb28b29afceffc3b4f93387f00a14496");
    }

    #[test]
    fn everything_that_devices_must_agree_on_is_in_the_value() {
        let changes: [fn(&mut Entry); 15] = [
            |e| e.path = RelPath::parse(b"dir/nam").unwrap(),
            |e| e.kind = Kind::Directory,
            |e| e.kind = Kind::Symlink(Box::from(*b"text")),
            |e| e.kind = Kind::Symlink(Box::from(*b"tex")),
            |e| e.kind = Kind::File(Content::of_chunk(b"other")),
            |e| e.mtime_ns = -7,
            |e| e.weight_ns = 7,
            |e| e.author = DeviceId::NONE,
            |e| e.version = VersionVector::new().with(EpochId(3), 10),
            |e| e.version = VersionVector::new().with(EpochId(4), 9),
            |e| e.version = e.version.clone().with(EpochId(4), 1),
            |e| e.meta.stamp.count = 5,
            |e| e.meta.stamp.epoch = EpochId(4),
            |e| e.meta.mode = None,
            |e| e.meta.touched = None,
        ];
        let mut values = vec![of_entry(&entry())];
        for change in changes {
            let mut changed = entry();
            change(&mut changed);
            values.push(of_entry(&changed));
        }
        let count = values.len();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), count);
    }

    #[test]
    fn tombstones_and_superseded_ids_do_not_count() {
        let tombstone = Entry { kind: Kind::Deleted, ..entry() };
        assert_eq!(of_entry(&tombstone), 0);
        assert_eq!(of_entry(&Entry { superseded: Vec::new(), ..entry() }), of_entry(&entry()));
    }
}
