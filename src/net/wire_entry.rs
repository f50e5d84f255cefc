//! The MessagePack shape of entries and contents, and their validation on the way to values of `core`.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, Bytes};

use super::wire::{FieldError, List, count, parse_path, raw_counts};
use crate::core::content::{Content, ContentId};
use crate::core::disk::DiskKind;
use crate::core::entry::{Entry, Kind, LINK_BYTES_MAX, MODE_MASK, Meta, SUPERSEDED_MAX, Stamp};
use crate::core::id::{DeviceId, EpochId};
use crate::core::message::Announced;
use crate::core::version::{EPOCHS_MAX, VersionVector};

/// Id, depth, size.
#[derive(Serialize, Deserialize)]
pub struct WireContent(ByteArray<32>, u8, u64);

#[derive(Serialize, Deserialize)]
pub struct WireAnnounced<'a> {
    seq: u64,
    held: bool,
    #[serde(borrow)]
    path: &'a Bytes,
    kind: u8,
    content: Option<WireContent>,
    link: Option<&'a Bytes>,
    mtime_ns: i64,
    weight_ns: i64,
    version: List<(u64, u64), EPOCHS_MAX>,
    author: Option<ByteArray<32>>,
    superseded: List<ByteArray<32>, SUPERSEDED_MAX>,
    meta: WireMeta,
}

#[derive(Serialize, Deserialize)]
struct WireMeta {
    count: u64,
    epoch: u64,
    mode: Option<(u8, u32)>,
    touched: Option<(i64, ByteArray<32>)>,
}

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const DELETED: u8 = 3;

impl From<Content> for WireContent {
    fn from(content: Content) -> Self {
        Self(ByteArray::new(content.id.0), content.depth, content.size)
    }
}

impl TryFrom<WireContent> for Content {
    type Error = FieldError;

    fn try_from(wire: WireContent) -> Result<Self, FieldError> {
        let content = Content { id: ContentId(wire.0.into_array()), depth: wire.1, size: wire.2 };
        if content.is_plausible() { Ok(content) } else { Err(("content", "depth or size out of range".into())) }
    }
}

impl<'a> From<&'a Announced> for WireAnnounced<'a> {
    fn from(announced: &'a Announced) -> Self {
        let Announced { entry, seq, held } = announced;
        let (kind, content, link) = match &entry.kind {
            Kind::File(content) => (FILE, Some((*content).into()), None),
            Kind::Directory => (DIRECTORY, None, None),
            Kind::Symlink(target) => (SYMLINK, None, Some(Bytes::new(target))),
            Kind::Deleted => (DELETED, None, None),
        };
        Self {
            seq: *seq,
            held: *held,
            path: Bytes::new(entry.path.as_bytes()),
            kind,
            content,
            link,
            mtime_ns: entry.mtime_ns,
            weight_ns: entry.weight_ns,
            version: List(raw_counts(entry.version.pairs())),
            author: (entry.author != DeviceId::NONE).then(|| ByteArray::new(entry.author.0)),
            superseded: List(entry.superseded.iter().map(|id| ByteArray::new(id.0)).collect()),
            meta: (&entry.meta).into(),
        }
    }
}

impl TryFrom<WireAnnounced<'_>> for Announced {
    type Error = FieldError;

    fn try_from(wire: WireAnnounced<'_>) -> Result<Self, FieldError> {
        let kind = match (wire.kind, wire.content, wire.link) {
            (FILE, Some(content), None) => Kind::File(content.try_into()?),
            (DIRECTORY, None, None) => Kind::Directory,
            (SYMLINK, None, Some(target)) => Kind::Symlink(link_target(target)?),
            (DELETED, None, None) => Kind::Deleted,
            _ => return Err(("kind", "unknown, or with fields of another kind".into())),
        };
        if matches!(kind, Kind::Directory | Kind::Deleted) && (wire.mtime_ns != 0 || wire.weight_ns != 0) {
            return Err(("mtime", "directories and tombstones have none".into()));
        }
        let pairs = wire.version.0.into_iter().map(|(epoch, count)| (EpochId(epoch), count)).collect();
        let entry = Entry {
            path: parse_path(wire.path)?,
            kind,
            mtime_ns: wire.mtime_ns,
            weight_ns: wire.weight_ns,
            version: VersionVector::from_pairs(pairs).map_err(|e| ("version", e.to_string()))?,
            author: wire.author.map_or(DeviceId::NONE, |id| DeviceId(id.into_array())),
            superseded: wire.superseded.0.into_iter().map(|id| ContentId(id.into_array())).collect(),
            meta: wire.meta.try_into()?,
        };
        Ok(Self { entry, seq: count("seq", wire.seq)?, held: wire.held })
    }
}

impl From<&Meta> for WireMeta {
    fn from(meta: &Meta) -> Self {
        let kind = |on| match on {
            DiskKind::File => FILE,
            DiskKind::Directory => DIRECTORY,
            DiskKind::Symlink => SYMLINK,
        };
        Self {
            count: meta.stamp.count,
            epoch: meta.stamp.epoch.0,
            mode: meta.mode.map(|(on, mode)| (kind(on), mode & MODE_MASK)),
            touched: meta.touched.map(|(mtime, on)| (mtime, ByteArray::new(on.0))),
        }
    }
}

impl TryFrom<WireMeta> for Meta {
    type Error = FieldError;

    fn try_from(wire: WireMeta) -> Result<Self, FieldError> {
        let mode = match wire.mode {
            Some((FILE, mode)) => Some((DiskKind::File, mode & MODE_MASK)),
            Some((DIRECTORY, mode)) => Some((DiskKind::Directory, mode & MODE_MASK)),
            Some((SYMLINK, mode)) => Some((DiskKind::Symlink, mode & MODE_MASK)),
            Some(_) => return Err(("mode", "of an unknown kind".into())),
            None => None,
        };
        let stamp = Stamp { count: count("stamp", wire.count)?, epoch: EpochId(wire.epoch) };
        let touched = wire.touched.map(|(mtime, on)| (mtime, ContentId(on.into_array())));
        Ok(Self { stamp, mode, touched })
    }
}

/// Entries from a peer.
pub fn entries(wire: Vec<WireAnnounced<'_>>) -> Result<Vec<Announced>, FieldError> {
    wire.into_iter().map(Announced::try_from).collect()
}

fn link_target(bytes: &[u8]) -> Result<Box<[u8]>, FieldError> {
    if bytes.is_empty() || bytes.len() > LINK_BYTES_MAX || bytes.contains(&0) {
        return Err(("link", format!("not 1 to {LINK_BYTES_MAX} bytes without NUL")));
    }
    Ok(bytes.into())
}
