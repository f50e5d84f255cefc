//! Calls that differ between platforms, each with a portable fall-back, and the ways in which this module opens things.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::core::disk::{DiskKind, DiskState};

/// Longest path given to one system call in bytes: safely below Linux's PATH_MAX of 4096.
const CALL_PATH_BYTES: usize = 4000;
const NANOS: i64 = 1_000_000_000;
/// Unit of `st_blocks` in bytes, whatever the file system's own block size is.
const STAT_BLOCK_BYTES: u64 = 512;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name in an open directory.
pub struct Place {
    pub dir: OwnedFd,
    pub name: Box<[u8]>,
}

impl Place {
    pub fn stat(&self) -> Result<Stat, Errno> {
        stat_at(&self.dir, &self.name)
    }
}

/// What stands at a name, links not followed.
pub fn stat_at(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The stat as the index keeps it; `None` for sockets, FIFOs and devices.
#[allow(clippy::unnecessary_cast, reason = "the widths of stat's fields differ between platforms")]
pub fn state_of(stat: &Stat) -> Option<DiskState> {
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

/// Bytes that a file occupies on the disk.
#[allow(clippy::unnecessary_cast, reason = "the widths of stat's fields differ between platforms")]
pub fn allocated_bytes(stat: &Stat) -> u64 {
    (stat.st_blocks as u64).saturating_mul(STAT_BLOCK_BYTES)
}

/// Opens the directory at `path` below `base`; an empty path is `base` itself. No symlink is followed on the way.
pub fn open_dir_beneath(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
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
pub fn open_dir_at(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// Opens the directory at `path` below `base`, and makes what is missing of it.
pub fn make_dirs_beneath(base: BorrowedFd<'_>, path: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
    match open_dir_beneath(base, path) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let mut dir = open_dir_beneath(base, b"")?;
    for name in path.split(|b| *b == b'/') {
        dir = match open_dir_at(&dir, name) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode as _)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_dir_at(&dir, name)?
            }
            opened => opened?,
        };
    }
    Ok(dir)
}

/// Opens an existing file for reading, in a way that no FIFO or link put in its place can harm.
pub fn open_to_read(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => {}
        opened => return opened,
    }
    rustix::fs::openat(&dir, name, flags, Mode::empty())
}

/// Names in a directory as they are on the disk, sorted by their bytes, without `.` and `..`.
pub fn names_in(dir: impl AsFd) -> Result<Vec<Box<[u8]>>, Errno> {
    let mut names = Vec::new();
    for item in rustix::fs::Dir::read_from(dir)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Renames where nothing stands at the new name, else [`Errno::EXIST`]; an error for which [`is_unsupported`] holds
/// where there is no such call.
pub fn rename_noreplace(from: &Place, to: &Place) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return rustix::fs::renameat_with(&from.dir, &*from.name, &to.dir, &*to.name, rustix::fs::RenameFlags::NOREPLACE);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        Err(Errno::NOSYS)
    }
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
/// Where the system cannot rename without replacing, the file is linked to its new name and loses the old one. Only
/// for what cannot be linked either (directories, symlinks on some systems) there is just a look before the rename.
pub fn rename_from_own(from: &Place, to: &Place) -> Result<(), Errno> {
    match rename_noreplace(from, to) {
        Err(errno) if is_unsupported(errno) => {}
        done => return done,
    }
    match rustix::fs::linkat(&from.dir, &*from.name, &to.dir, &*to.name, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(&from.dir, &*from.name, AtFlags::empty()),
        Err(errno @ (Errno::EXIST | Errno::NOENT | Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        Err(_) => rename_if_free(from, to),
    }
}

fn rename_if_free(from: &Place, to: &Place) -> Result<(), Errno> {
    match to.stat() {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(&from.dir, &*from.name, &to.dir, &*to.name),
        Err(errno) => Err(errno),
    }
}

/// Swaps what stands at two names in one step; an error for which [`is_unsupported`] holds where there is no such call.
pub fn exchange(a: &Place, b: &Place) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return rustix::fs::renameat_with(&a.dir, &*a.name, &b.dir, &*b.name, rustix::fs::RenameFlags::EXCHANGE);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (a, b);
        Err(Errno::NOSYS)
    }
}

/// True where an error says that the system or file system lacks a call or flag.
pub fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

/// Makes everything on the file system of `dir` durable; false where the platform can only do so file by file.
pub fn sync_file_system(dir: impl AsFd) -> Result<bool, Errno> {
    #[cfg(target_os = "linux")]
    {
        rustix::fs::syncfs(dir)?;
        Ok(true)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        Ok(false)
    }
}

/// Sets the permission bits of what stands at a name, unless it is a symlink. Special bits are never set.
pub fn chmod_at(dir: impl AsFd, name: &[u8], mode: u32) -> Result<(), Errno> {
    let bits = Mode::from_raw_mode((mode & 0o777) as _);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Ok(file) => rustix::fs::fchmod(file, bits),
        // The owner may change the mode of what it may not read.
        #[cfg(target_os = "linux")]
        Err(Errno::ACCESS) => {
            use std::os::fd::AsRawFd;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) == FileType::Symlink {
                return Err(Errno::LOOP);
            }
            rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), bits)
        }
        Err(errno) => Err(errno),
    }
}

/// Sets the mtime of what stands at a name, of a symlink its own, to the nanosecond; the access time stays.
pub fn set_mtime_at(dir: impl AsFd, name: &[u8], mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::utimensat(dir, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the mtime of an open file.
pub fn set_mtime(file: impl AsFd, mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::futimens(file, &times(mtime_ns))
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime_ns.div_euclid(NANOS), tv_nsec: mtime_ns.rem_euclid(NANOS) as _ },
    }
}

/// True where a file surely holds no data from `offset` on for `len` bytes.
pub fn is_hole(file: impl AsFd, offset: u64, len: u64) -> bool {
    #[cfg(target_os = "linux")]
    return match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data >= offset.saturating_add(len),
        // No data up to the end of the file.
        Err(Errno::NXIO) => true,
        Err(_) => false,
    };
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, offset, len);
        false
    }
}

/// Bytes that an unprivileged program can still write.
#[allow(clippy::unnecessary_cast, reason = "the widths of statvfs's fields differ between platforms")]
pub fn free_bytes(dir: impl AsFd) -> Result<u64, Errno> {
    let stat = rustix::fs::fstatvfs(dir)?;
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

/// Name of the kind of network or user-space file system, for which the kernel reports no changes made elsewhere.
pub fn network_fs(dir: impl AsFd) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    return match rustix::fs::fstatfs(dir).ok()?.f_type as u64 & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    };
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        None
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
    fn no_way_of_renaming_replaces_anything() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            |name: &str| Place { dir: std::fs::File::open(dir.path()).unwrap().into(), name: name.as_bytes().into() };
        for rename in [rename_noreplace, rename_to_own, rename_from_own, rename_if_free] {
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
