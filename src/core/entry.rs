//! Entries: what a device holds, or knows of, at one path.

use super::content::{Content, ContentId};
use super::disk::DiskKind;
use super::id::{DeviceId, EpochId};
use super::path::RelPath;
use super::version::VersionVector;

/// How many superseded content ids an entry remembers.
pub const SUPERSEDED_MAX: usize = 8;
/// Longest symlink target in bytes (Linux's PATH_MAX).
pub const LINK_BYTES_MAX: usize = 4096;
/// Permission bits that are carried; set-user-id, set-group-id and sticky never are.
pub const MODE_MASK: u32 = 0o777;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    File(Content),
    Directory,
    /// The target, never followed.
    Symlink(Box<[u8]>),
    /// A tombstone.
    Deleted,
}

/// One path of a folder with its version; the unit of what devices tell each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub path: RelPath,
    pub kind: Kind,
    /// When the content was last changed, by the clock of who did, ns since 1970. 0 for directories and tombstones.
    pub mtime_ns: i64,
    /// `mtime_ns`, but not later than the moment it was recorded: decides between concurrent contents.
    pub weight_ns: i64,
    pub version: VersionVector,
    /// Who last changed the content; [`DeviceId::NONE`] where it was simply found, and for directories.
    pub author: DeviceId,
    /// The content ids that this one replaced, latest first.
    pub superseded: Vec<ContentId>,
    pub meta: Meta,
}

/// Order of metadata changes: a Lamport count, then the epoch that issued it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    pub count: u64,
    pub epoch: EpochId,
}

/// Mode and touched mtime: a register of its own, the greatest stamp wins.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Meta {
    pub stamp: Stamp,
    /// The permission bits with the kind they were set on; on another kind they don't apply.
    pub mode: Option<(DiskKind, u32)>,
    /// An mtime set without changing the content, with the content it was set on; on another it doesn't apply.
    pub touched: Option<(i64, ContentId)>,
}

impl Kind {
    pub fn is_deleted(&self) -> bool {
        matches!(self, Kind::Deleted)
    }

    pub fn is_directory(&self) -> bool {
        matches!(self, Kind::Directory)
    }

    pub fn disk_kind(&self) -> Option<DiskKind> {
        match self {
            Kind::File(_) => Some(DiskKind::File),
            Kind::Directory => Some(DiskKind::Directory),
            Kind::Symlink(_) => Some(DiskKind::Symlink),
            Kind::Deleted => None,
        }
    }

    pub fn content(&self) -> Option<Content> {
        match self {
            Kind::File(content) => Some(*content),
            _ => None,
        }
    }

    /// Id that stands for what is there: `None` for a tombstone, zeros for a directory.
    pub fn content_id(&self) -> Option<ContentId> {
        match self {
            Kind::File(content) => Some(content.id),
            Kind::Directory => Some(ContentId::default()),
            Kind::Symlink(target) => Some(ContentId::of_link(target)),
            Kind::Deleted => None,
        }
    }
}

impl Entry {
    /// A tombstone-less nothing: what a device knows of a path that it never heard of.
    pub fn nothing(path: RelPath) -> Self {
        Self {
            path,
            kind: Kind::Deleted,
            mtime_ns: 0,
            weight_ns: 0,
            version: VersionVector::new(),
            author: DeviceId::NONE,
            superseded: Vec::new(),
            meta: Meta::default(),
        }
    }

    pub fn is_live(&self) -> bool {
        !self.kind.is_deleted()
    }

    /// True where both say the same about what is on the disk and who made it; versions and metadata aside.
    pub fn same_state(&self, other: &Entry) -> bool {
        self.kind == other.kind
            && (self.kind.is_deleted()
                || (self.mtime_ns == other.mtime_ns
                    && self.weight_ns == other.weight_ns
                    && self.author == other.author))
    }

    /// The permission bits that the entry asks for on disk.
    pub fn mode(&self) -> u32 {
        let kind = self.kind.disk_kind();
        match self.meta.mode {
            Some((on, mode)) if Some(on) == kind => mode & MODE_MASK,
            _ if kind == Some(DiskKind::Directory) => 0o755,
            _ => 0o644,
        }
    }

    /// The mtime that the entry asks for on disk, ns since 1970.
    pub fn disk_mtime_ns(&self) -> i64 {
        match self.meta.touched {
            Some((mtime, on)) if Some(on) == self.kind.content_id() => mtime,
            _ => self.mtime_ns,
        }
    }

    /// The superseded ids with `more` in front, without repeats or the present content, cut to the bound.
    pub fn superseded_with(&self, more: &[ContentId]) -> Vec<ContentId> {
        let own = self.kind.content_id();
        let mut all: Vec<ContentId> = Vec::with_capacity(SUPERSEDED_MAX);
        for id in more.iter().chain(&self.superseded) {
            if all.len() < SUPERSEDED_MAX && Some(*id) != own && !all.contains(id) {
                all.push(*id);
            }
        }
        all
    }
}
