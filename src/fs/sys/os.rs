//! The operating system itself: calls that differ between platforms, and the ways in which this module opens things.

use std::any::Any;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{BoxedHandle, Handle, Stat, System};
use crate::core::disk::{DiskKind, DiskState};

/// Longest path given to one system call in bytes: safely below Linux's PATH_MAX of 4096.
const CALL_PATH_BYTES: usize = 4000;
const NANOS: i64 = 1_000_000_000;
/// Unit of `st_blocks` in bytes, whatever the file system's own block size is.
const STAT_BLOCK_BYTES: u64 = 512;
/// The agent's own files are nobody else's business.
const OWN_FILE_MODE: u32 = 0o600;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The disks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct OsSystem;

/// A file descriptor.
pub struct OsHandle(File);

impl System for OsSystem {
    fn open_root(&self, path: &Path) -> Result<BoxedHandle, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        boxed(rustix::fs::open(path, flags, Mode::empty()))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), Errno> {
        std::fs::create_dir_all(path).map_err(|e| errno_of(&e))
    }
}

impl Handle for OsHandle {
    fn open_dir_beneath(&self, path: &[u8]) -> Result<BoxedHandle, Errno> {
        boxed(open_dir_beneath(self.0.as_fd(), path))
    }

    fn open_dir_at(&self, name: &[u8]) -> Result<BoxedHandle, Errno> {
        boxed(open_dir_at(&self.0, name))
    }

    fn open_to_read(&self, name: &[u8]) -> Result<BoxedHandle, Errno> {
        #[cfg(target_os = "linux")]
        match rustix::fs::openat(&self.0, name, TO_READ | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may leave the access time alone.
            Err(Errno::PERM) => {}
            opened => return boxed(opened),
        }
        boxed(rustix::fs::openat(&self.0, name, TO_READ, Mode::empty()))
    }

    fn open_own(&self, name: &[u8], is_new: bool) -> Result<BoxedHandle, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = if is_new { flags | OFlags::EXCL } else { flags };
        boxed(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(OWN_FILE_MODE as _)))
    }

    fn stat(&self) -> Result<Stat, Errno> {
        Ok(stat_of(&rustix::fs::fstat(&self.0)?))
    }

    fn stat_at(&self, name: &[u8]) -> Result<Stat, Errno> {
        Ok(stat_of(&rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn names(&self) -> Result<Vec<Box<[u8]>>, Errno> {
        let mut names = Vec::new();
        for item in rustix::fs::Dir::read_from(&self.0)? {
            let item = item?;
            let name = item.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.into());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(mode as _))
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.0, name)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    fn rename(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat(&self.0, name, file_of(to)?, to_name)
    }

    #[cfg(target_os = "linux")]
    fn rename_noreplace(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.0, name, file_of(to)?, to_name, rustix::fs::RenameFlags::NOREPLACE)
    }

    #[cfg(not(target_os = "linux"))]
    fn rename_noreplace(&self, _name: &[u8], _to: &dyn Handle, _to_name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    #[cfg(target_os = "linux")]
    fn exchange(&self, name: &[u8], with: &dyn Handle, with_name: &[u8]) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.0, name, file_of(with)?, with_name, rustix::fs::RenameFlags::EXCHANGE)
    }

    #[cfg(not(target_os = "linux"))]
    fn exchange(&self, _name: &[u8], _with: &dyn Handle, _with_name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    fn link(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        rustix::fs::linkat(&self.0, name, file_of(to)?, to_name, AtFlags::empty())
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    fn fsync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.0)
    }

    fn sync_file_system(&self) -> Result<bool, Errno> {
        #[cfg(target_os = "linux")]
        {
            rustix::fs::syncfs(&self.0)?;
            Ok(true)
        }
        #[cfg(not(target_os = "linux"))]
        Ok(false)
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        rustix::fs::fchmod(&self.0, Mode::from_raw_mode((mode & 0o777) as _))
    }

    fn chmod_at(&self, name: &[u8], mode: u32) -> Result<(), Errno> {
        let bits = Mode::from_raw_mode((mode & 0o777) as _);
        match rustix::fs::openat(&self.0, name, TO_READ, Mode::empty()) {
            Ok(file) => rustix::fs::fchmod(file, bits),
            // The owner may change the mode of what it may not read.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => {
                use std::os::fd::AsRawFd;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let handle = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
                if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) == FileType::Symlink {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), bits)
            }
            Err(errno) => Err(errno),
        }
    }

    fn set_mtime(&self, mtime_ns: i64) -> Result<(), Errno> {
        rustix::fs::futimens(&self.0, &times(mtime_ns))
    }

    fn set_mtime_at(&self, name: &[u8], mtime_ns: i64) -> Result<(), Errno> {
        rustix::fs::utimensat(&self.0, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.0, len)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.0.read_at(bytes, offset).map_err(|e| errno_of(&e))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        self.0.write_at(bytes, offset).map_err(|e| errno_of(&e))
    }

    fn copy_to(&self, to: &dyn Handle) -> Result<u64, Errno> {
        // The system may share the blocks, or at least spare the way through this program.
        std::io::copy(&mut &self.0, &mut file_of(to)?).map_err(|e| errno_of(&e))
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        #[cfg(target_os = "linux")]
        return match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => data >= offset.saturating_add(len),
            // No data up to the end of the file.
            Err(Errno::NXIO) => true,
            Err(_) => false,
        };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            false
        }
    }

    fn expect_whole_read(&self) {
        // Only a hint, so its failure says nothing.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::Sequential);
    }

    #[allow(clippy::unnecessary_cast, reason = "the widths of statvfs's fields differ between platforms")]
    fn free_bytes(&self) -> Result<u64, Errno> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }

    fn disk_bytes(&self) -> Result<u64, Errno> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        Ok((stat.f_blocks as u64).saturating_mul(stat.f_frsize as u64))
    }

    fn network_fs(&self) -> Option<&'static str> {
        #[cfg(target_os = "linux")]
        return match rustix::fs::fstatfs(&self.0).ok()?.f_type as u64 & 0xffff_ffff {
            0x6969 => Some("NFS"),
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
            0x0102_1997 => Some("9p"),
            0x6573_5546 => Some("FUSE"),
            0x00c3_6400 => Some("Ceph"),
            _ => None,
        };
        #[cfg(not(target_os = "linux"))]
        None
    }
}

fn boxed(opened: Result<OwnedFd, Errno>) -> Result<BoxedHandle, Errno> {
    Ok(Box::new(OsHandle(opened?.into())))
}

/// The file behind the other handle of a call that takes two; one of another system lies on another disk.
fn file_of(handle: &dyn Handle) -> Result<&File, Errno> {
    let handle: &dyn Any = handle;
    handle.downcast_ref::<OsHandle>().map(|handle| &handle.0).ok_or(Errno::XDEV)
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[allow(clippy::unnecessary_cast, reason = "the widths of stat's fields differ between platforms")]
fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        state: state_of(stat),
        links: stat.st_nlink as u64,
        allocated_bytes: (stat.st_blocks as u64).saturating_mul(STAT_BLOCK_BYTES),
        device: stat.st_dev as u64,
    }
}

#[allow(clippy::unnecessary_cast, reason = "the widths of stat's fields differ between platforms")]
fn state_of(stat: &rustix::fs::Stat) -> Option<DiskState> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => DiskKind::File,
        FileType::Directory => DiskKind::Directory,
        FileType::Symlink => DiskKind::Symlink,
        _ => return None,
    };
    let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(NANOS).saturating_add(rest);
    Some(DiskState {
        kind,
        size: if kind == DiskKind::Directory { 0 } else { stat.st_size.max(0) as u64 },
        mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        mode: stat.st_mode as u32 & 0o7777,
    })
}

/// Opens the directory at `path` below `base`; an empty path is `base` itself. No symlink is followed on the way.
fn open_dir_beneath(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut dir: Option<OwnedFd> = None;
    for piece in pieces(path) {
        let above = dir.as_ref().map_or(base, |d| d.as_fd());
        dir = Some(open_piece(above, piece)?);
    }
    match dir {
        Some(dir) => Ok(dir),
        None => rustix::fs::openat(base, ".", DIRECTORY, Mode::empty()),
    }
}

/// Opens the directory `name` directly in `dir`.
fn open_dir_at(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime_ns.div_euclid(NANOS), tv_nsec: mtime_ns.rem_euclid(NANOS) as _ },
    }
}

/// Cuts a path between components into pieces that one system call takes.
fn pieces(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if rest.len() <= CALL_PATH_BYTES {
            return Some(std::mem::take(&mut rest));
        }
        // A component has at most 255 bytes, so there is a slash within the first piece.
        let cut = rest[..CALL_PATH_BYTES].iter().rposition(|b| *b == b'/').unwrap_or(CALL_PATH_BYTES);
        let piece = &rest[..cut];
        rest = rest.get(cut + 1..).unwrap_or_default();
        Some(piece)
    })
}

fn open_piece(above: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(above, piece, DIRECTORY, Mode::empty(), resolve) {
            // An old kernel, a sandbox that does not know the call, or a rename at this very moment.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    open_components(above, piece)
}

fn open_components(above: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd, Errno> {
    let mut dir: Option<OwnedFd> = None;
    for name in piece.split(|b| *b == b'/') {
        let above = dir.as_ref().map_or(above, |d| d.as_fd());
        dir = Some(open_dir_at(above, name)?);
    }
    dir.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_cut_between_components_and_nothing_is_lost() {
        let path = vec!["d".repeat(200); 60].join("/").into_bytes();
        let cut: Vec<&[u8]> = pieces(&path).collect();
        assert!(cut.len() > 2 && cut.iter().all(|p| p.len() <= CALL_PATH_BYTES && !p.starts_with(b"/")));
        assert_eq!(cut.join(&b'/'), path);
        assert_eq!(pieces(b"").count(), 0);
    }

    #[test]
    fn opening_component_by_component_does_the_same_as_in_one_call() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let base = std::fs::File::open(dir.path()).unwrap();
        let inode = |fd: OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        for path in [&b"a"[..], b"a/b/c"] {
            let plain = open_components(base.as_fd(), path).map(inode).unwrap();
            assert_eq!(plain, open_dir_beneath(base.as_fd(), path).map(inode).unwrap());
        }
        for path in [&b"link"[..], b"link/b"] {
            assert!(open_components(base.as_fd(), path).is_err());
            assert!(open_dir_beneath(base.as_fd(), path).is_err());
        }
    }
}
