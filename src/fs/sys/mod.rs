//! The border to the operating system: all that the rest of this module asks of a disk, as two traits.
//!
//! [`OsSystem`] is the real thing. A test puts a disk of its own in its place, on which crashes and a user's edits come
//! whenever it wants. What is built on top of the calls alike everywhere, such as the fall-backs for calls that a system
//! lacks, is in this file.
//!
//! Architecture invariant: nothing else in `fs` talks to the operating system, but for the watching.

mod os;

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::core::disk::DiskState;
use crate::sabotage::{self, Bug};
pub use os::{OsHandle, OsSystem};

/// Size in bytes of the pieces in which a file is copied where the system does not do it by itself.
const COPY_BYTES: usize = 256 * 1024;

/// Something open, closed when dropped.
pub type BoxedHandle = Box<dyn Handle>;

/// The same, for several to use; closed when the last of them is dropped.
pub type SharedHandle = Arc<dyn Handle>;

/// Where folders lie.
pub trait System: Debug + Send + Sync {
    /// Opens the directory at a path, links followed: the user said where it is.
    fn open_root(&self, path: &Path) -> Result<BoxedHandle, Errno>;

    /// Makes the directory at a path and what is missing above it.
    fn create_dir_all(&self, path: &Path) -> Result<(), Errno>;
}

/// An open file or directory.
///
/// Names are single components. No call follows a symlink; where one stands in the way, that is an error.
pub trait Handle: Any + Send + Sync {
    /// Opens the directory at `path` below this one, however long the path; an empty path is this one itself.
    fn open_dir_beneath(&self, path: &[u8]) -> Result<BoxedHandle, Errno>;

    /// Opens the directory `name` directly in this one.
    fn open_dir_at(&self, name: &[u8]) -> Result<BoxedHandle, Errno>;

    /// Opens an existing file for reading, in a way that no FIFO or link put in its place can harm.
    fn open_to_read(&self, name: &[u8]) -> Result<BoxedHandle, Errno>;

    /// Opens one of the agent's own files for reading and writing, and makes it, for its owner only, where it is
    /// missing. With `is_new` it has to be missing.
    fn open_own(&self, name: &[u8], is_new: bool) -> Result<BoxedHandle, Errno>;

    fn stat(&self) -> Result<Stat, Errno>;

    fn stat_at(&self, name: &[u8]) -> Result<Stat, Errno>;

    /// Names in this directory as they are on the disk, sorted by their bytes, without `.` and `..`.
    fn names(&self) -> Result<Vec<Box<[u8]>>, Errno>;

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<(), Errno>;

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno>;

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Renames, in place of a file that stands at the new name.
    fn rename(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno>;

    /// Renames where nothing stands at the new name, else [`Errno::EXIST`]; an error for which [`is_unsupported`]
    /// holds where there is no such call.
    fn rename_noreplace(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno>;

    /// Swaps what stands at two names in one step; an error for which [`is_unsupported`] holds where there is no such
    /// call.
    fn exchange(&self, name: &[u8], with: &dyn Handle, with_name: &[u8]) -> Result<(), Errno>;

    /// Gives a file a second name.
    fn link(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno>;

    /// Removes the name of anything but a directory.
    fn unlink(&self, name: &[u8]) -> Result<(), Errno>;

    /// Removes an empty directory.
    fn rmdir(&self, name: &[u8]) -> Result<(), Errno>;

    /// Makes this file, or the names in this directory, durable.
    fn fsync(&self) -> Result<(), Errno>;

    /// Makes everything on this file system durable; false where the platform can only do so file by file.
    fn sync_file_system(&self) -> Result<bool, Errno>;

    /// Sets the permission bits of this file. Special bits are never set.
    fn chmod(&self, mode: u32) -> Result<(), Errno>;

    /// Sets the permission bits of what stands at a name, unless it is a symlink. Special bits are never set.
    fn chmod_at(&self, name: &[u8], mode: u32) -> Result<(), Errno>;

    /// Sets the mtime of this file to the nanosecond; the access time stays.
    fn set_mtime(&self, mtime_ns: i64) -> Result<(), Errno>;

    /// Sets the mtime of what stands at a name, of a symlink its own.
    fn set_mtime_at(&self, name: &[u8], mtime_ns: i64) -> Result<(), Errno>;

    /// Makes this file so many bytes long; what is added reads as zeros.
    fn set_len(&self, len: u64) -> Result<(), Errno>;

    /// Reads at an offset. Returns how much was read; 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// Writes at an offset. Returns how much was written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno>;

    /// Copies all of this file to the beginning of another, an empty one, and returns the number of bytes.
    fn copy_to(&self, to: &dyn Handle) -> Result<u64, Errno> {
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            let read = match self.read_at(&mut buffer, offset) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            if read == 0 {
                return Ok(offset);
            }
            write_all_at(to, buffer.get(..read).unwrap_or_default(), offset)?;
            offset += read as u64;
        }
    }

    /// True where this file surely holds no data from `offset` on for `len` bytes.
    fn is_hole(&self, offset: u64, len: u64) -> bool;

    /// A hint that this file is about to be read from its beginning to its end.
    fn expect_whole_read(&self);

    /// Bytes that an unprivileged program can still write to this file system.
    fn free_bytes(&self) -> Result<u64, Errno>;

    /// Size of this file system in bytes.
    fn disk_bytes(&self) -> Result<u64, Errno>;

    /// Name of the kind of network or user-space file system, for which the kernel reports no changes made elsewhere.
    fn network_fs(&self) -> Option<&'static str>;
}

/// One look at a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// As the index keeps it; `None` for sockets, FIFOs and devices.
    pub state: Option<DiskState>,
    /// Number of names.
    pub links: u64,
    /// Bytes that it occupies on the disk.
    pub allocated_bytes: u64,
    /// The file system that it is on, for comparison only.
    pub device: u64,
}

/// A name in an open directory.
pub struct Place {
    pub dir: SharedHandle,
    pub name: Box<[u8]>,
}

impl Place {
    pub fn stat(&self) -> Result<Stat, Errno> {
        self.dir.stat_at(&self.name)
    }

    /// What stands there as the index keeps it; `None` for sockets, FIFOs and devices.
    pub fn state(&self) -> Result<Option<DiskState>, Errno> {
        Ok(self.stat()?.state)
    }

    pub fn open_to_read(&self) -> Result<BoxedHandle, Errno> {
        self.dir.open_to_read(&self.name)
    }

    pub fn open_own(&self, is_new: bool) -> Result<BoxedHandle, Errno> {
        self.dir.open_own(&self.name, is_new)
    }

    pub fn mkdir(&self, mode: u32) -> Result<(), Errno> {
        self.dir.mkdir(&self.name, mode)
    }

    pub fn symlink(&self, target: &[u8]) -> Result<(), Errno> {
        self.dir.symlink(&self.name, target)
    }

    pub fn readlink(&self) -> Result<Vec<u8>, Errno> {
        self.dir.readlink(&self.name)
    }

    pub fn unlink(&self) -> Result<(), Errno> {
        self.dir.unlink(&self.name)
    }

    pub fn rmdir(&self) -> Result<(), Errno> {
        self.dir.rmdir(&self.name)
    }

    pub fn chmod(&self, mode: u32) -> Result<(), Errno> {
        self.dir.chmod_at(&self.name, mode)
    }

    pub fn set_mtime(&self, mtime_ns: i64) -> Result<(), Errno> {
        self.dir.set_mtime_at(&self.name, mtime_ns)
    }
}

/// Opens the directory at `path` below `base`, and makes what is missing of it.
pub fn make_dirs_beneath(base: &dyn Handle, path: &[u8], mode: u32) -> Result<BoxedHandle, Errno> {
    match base.open_dir_beneath(path) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let mut dir = base.open_dir_beneath(b"")?;
    for name in path.split(|b| *b == b'/') {
        dir = match dir.open_dir_at(name) {
            Err(Errno::NOENT) => {
                match dir.mkdir(name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                dir.open_dir_at(name)?
            }
            opened => opened?,
        };
    }
    Ok(dir)
}

/// Fills the buffer from an offset on; false where the file ends before.
pub fn read_exact_at(file: &dyn Handle, bytes: &mut [u8], offset: u64) -> Result<bool, Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => return Ok(false),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Writes all of the bytes at an offset.
pub fn write_all_at(file: &dyn Handle, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Renames to a free name, as [`Handle::rename_noreplace`].
pub fn rename_noreplace(from: &Place, to: &Place) -> Result<(), Errno> {
    if sabotage::is(Bug::RenameReplaces) {
        return from.dir.rename(&from.name, &*to.dir, &to.name);
    }
    from.dir.rename_noreplace(&from.name, &*to.dir, &to.name)
}

/// Renames to a free name in one of the agent's own directories.
///
/// Nobody else gives names there, so where the system cannot rename without replacing, a look before is enough.
pub fn rename_to_own(from: &Place, to: &Place) -> Result<(), Errno> {
    match rename_noreplace(from, to) {
        Err(errno) if is_unsupported(errno) => rename_if_free(from, to),
        done => done,
    }
}

/// Renames from one of the agent's own directories to a free name in the user's tree.
///
/// Where the system cannot rename without replacing, the file is linked to its new name and loses the old one, once the
/// new one is durable: else a power cut could leave it with neither. Only for what cannot be linked either (directories,
/// symlinks on some systems) there is just a look before the rename.
pub fn rename_from_own(from: &Place, to: &Place) -> Result<(), Errno> {
    rename_by_link(from, to, || to.dir.fsync())
}

/// The same for what can be made or fetched again, so that nothing has to be durable on the way.
pub fn rename_fresh(from: &Place, to: &Place) -> Result<(), Errno> {
    rename_by_link(from, to, || Ok(()))
}

fn rename_by_link(from: &Place, to: &Place, sync: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match rename_noreplace(from, to) {
        Err(errno) if is_unsupported(errno) => {}
        done => return done,
    }
    match from.dir.link(&from.name, &*to.dir, &to.name) {
        // If that fails the file keeps both names: which of them is the user's by now, nobody knows.
        Ok(()) => sync().and_then(|()| from.unlink()),
        Err(errno @ (Errno::EXIST | Errno::NOENT | Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        Err(_) => rename_if_free(from, to),
    }
}

fn rename_if_free(from: &Place, to: &Place) -> Result<(), Errno> {
    match to.stat() {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => from.dir.rename(&from.name, &*to.dir, &to.name),
        Err(errno) => Err(errno),
    }
}

/// Swaps what stands at two names, as [`Handle::exchange`].
pub fn exchange(a: &Place, b: &Place) -> Result<(), Errno> {
    a.dir.exchange(&a.name, &*b.dir, &b.name)
}

/// True where an error says that the system or file system lacks a call or flag.
pub fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_renaming_replaces_anything() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            |name: &str| Place { dir: OsSystem.open_root(dir.path()).unwrap().into(), name: name.as_bytes().into() };
        for rename in [rename_noreplace, rename_to_own, rename_from_own, rename_fresh, rename_if_free] {
            std::fs::write(dir.path().join("a"), b"a").unwrap();
            std::fs::write(dir.path().join("b"), b"b").unwrap();
            assert_eq!(rename(&place("a"), &place("b")), Err(Errno::EXIST));
            assert_eq!(rename(&place("missing"), &place("c")), Err(Errno::NOENT));
            assert_eq!(rename(&place("a"), &place("c")), Ok(()));
            assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"b");
            assert_eq!(std::fs::read(dir.path().join("c")).unwrap(), b"a");
            std::fs::remove_file(dir.path().join("c")).unwrap();
        }
    }
}
