//! What a disk was seen to hold.

/// Kinds of things that sync.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DiskKind {
    File,
    Directory,
    Symlink,
}

/// One look at a path: enough to tell without reading whether it has changed since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DiskState {
    pub kind: DiskKind,
    /// Bytes; 0 for directories.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Nanoseconds since 1970; 0 marks a look that was too close to the last write to be relied on.
    pub ctime_ns: i64,
    pub inode: u64,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
}

/// What of a file's state is to be as another device has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Permission bits, at most 0o777.
    pub mode: u32,
}

impl DiskState {
    /// True where nothing suggests a change since `earlier`. A directory's size and times say nothing about itself.
    pub fn is_unchanged_since(&self, earlier: &DiskState) -> bool {
        if self.kind == DiskKind::Directory {
            return earlier.kind == DiskKind::Directory && self.mode == earlier.mode;
        }
        self == earlier && self.ctime_ns != 0
    }

    /// True where `self` is the file that `earlier` was, after a rename (which moves the ctime).
    pub fn is_same_file_as(&self, earlier: &DiskState) -> bool {
        self.kind == earlier.kind
            && self.inode == earlier.inode
            && (self.kind == DiskKind::Directory || (self.size == earlier.size && self.mtime_ns == earlier.mtime_ns))
    }
}
