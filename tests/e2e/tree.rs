//! Trees of files: making them, and telling whether two are the same in all that is synced.
//!
//! Directories are opened one from another, so a tree deeper than the longest path of a system call works too.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The agent's own directory in a folder.
const OWN: &[u8] = b".p2psync";
/// Differences listed by name; more are counted.
const DIFFERENCES_SHOWN_MAX: usize = 8;
/// Files and bytes taken from a real source tree at most.
const SOURCE_FILES_MAX: usize = 3000;
const SOURCE_BYTES_MAX: u64 = 64 << 20;

/// All that is synced of one path, but the bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub kind: &'static str,
    pub size: u64,
    pub mode: u32,
    /// Not of directories.
    pub mtime_ns: i128,
    pub target: Vec<u8>,
}

/// The paths of a folder, without the agent's own.
pub fn nodes(root: &Path) -> Result<BTreeMap<Vec<u8>, Node>, String> {
    let mut found = BTreeMap::new();
    let root = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    walk(root.map_err(|e| e.to_string())?, &[], &mut found)?;
    Ok(found)
}

fn walk(dir: OwnedFd, above: &[u8], found: &mut BTreeMap<Vec<u8>, Node>) -> Result<(), String> {
    for entry in Dir::read_from(&dir).map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| e.to_string())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || (above.is_empty() && name.to_bytes() == OWN) {
            continue;
        }
        let path = [above, name.to_bytes()].concat();
        let node = match node(&dir, name) {
            // It went away between the listing and this look: the same as if it had gone a moment earlier.
            Err(Errno::NOENT | Errno::INVAL) => continue,
            node => node.map_err(|e| format!("{}: {e}", shown(&path)))?,
        };
        let is_directory = node.kind == "directory";
        found.insert(path.clone(), node);
        if is_directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                below => walk(below.map_err(|e| e.to_string())?, &[&path[..], b"/"].concat(), found)?,
            }
        }
    }
    Ok(())
}

fn node(dir: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<Node> {
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    let target = match kind {
        "symlink" => rustix::fs::readlinkat(&dir, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    Ok(Node {
        kind,
        size: if kind == "file" { stat.st_size as u64 } else { 0 },
        mode: if kind == "symlink" { 0 } else { stat.st_mode & 0o777 },
        mtime_ns: if kind == "directory" { 0 } else { mtime_ns },
        target,
    })
}

/// `Err` names what is different.
pub fn compare(left: &Path, right: &Path) -> Result<(), String> {
    let (ours, theirs) = (nodes(left)?, nodes(right)?);
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|p| !ours.contains_key(*p))) {
        let difference = match (ours.get(path), theirs.get(path)) {
            (Some(node), Some(other)) if node == other => continue,
            (Some(node), Some(other)) => format!("{node:?} here, {other:?} there"),
            (Some(_), None) => "only here".to_owned(),
            (None, _) => "only there".to_owned(),
        };
        differences.push(format!("{}: {difference}", shown(path)));
    }
    // Reading is only worth it where all else is the same.
    if differences.is_empty() {
        for path in ours.iter().filter(|(_, node)| node.kind == "file").map(|(path, _)| path) {
            if read_below(left, path)? != read_below(right, path)? {
                differences.push(format!("{}: other bytes", shown(path)));
            }
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    differences.iter().take(DIFFERENCES_SHOWN_MAX).for_each(|d| write!(text, "{d}; ").unwrap());
    Err(format!("{text}{} in all, of {} and {} paths", differences.len(), ours.len(), theirs.len()))
}

/// The bytes of a file, however deep it lies.
pub fn read_below(root: &Path, path: &[u8]) -> Result<Vec<u8>, String> {
    let fail = |e: rustix::io::Errno| format!("{}: {e}", shown(path));
    let (dir, name) = open_parent(root, path, false).map_err(fail)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(fail)?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).map_err(|e| format!("{}: {e}", shown(path)))?;
    Ok(bytes)
}

/// Writes a file, however deep, and makes the directories above it.
pub fn write_below(root: &Path, path: &[u8], bytes: &[u8]) {
    let (dir, name) = open_parent(root, path, true).unwrap();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    File::from(file).write_all(bytes).unwrap();
}

fn open_parent(root: &Path, path: &[u8], make: bool) -> rustix::io::Result<(OwnedFd, CString)> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let mut names: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let last = names.pop().unwrap_or_default();
    for name in names {
        let name = CString::new(name).unwrap();
        if make {
            match rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)) {
                Err(rustix::io::Errno::EXIST) | Ok(()) => {}
                Err(e) => return Err(e),
            }
        }
        dir = rustix::fs::openat(&dir, &name, flags, Mode::empty())?;
    }
    Ok((dir, CString::new(last).unwrap()))
}

fn shown(path: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 120;
    let end = if path.len() > SHOWN_BYTES_MAX { "…" } else { "" };
    format!("'{}{end}'", path[..path.len().min(SHOWN_BYTES_MAX)].escape_ascii())
}

/// The names of the conflict copies in a folder.
pub fn conflict_copies(root: &Path) -> Vec<String> {
    let paths = nodes(root).unwrap().into_keys().map(|p| String::from_utf8_lossy(&p).into_owned());
    paths.filter(|p| p.contains(".conflict-")).collect()
}

/// The contents of all files directly in a directory.
pub fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .map(|p| fs::read(p).unwrap())
        .collect();
    all.sort();
    all
}

/// Bytes that no one can compress or guess, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Copies a real source tree to `to`: crates from the registry, or generated files where there are none.
pub fn copy_source_tree(to: &Path) -> usize {
    let mut room = (SOURCE_FILES_MAX, SOURCE_BYTES_MAX);
    for source in source_trees() {
        copy(&source, &to.join(source.file_name().unwrap_or(OsStr::from_bytes(b"source"))), &mut room);
    }
    let copied = SOURCE_FILES_MAX - room.0;
    if copied >= SOURCE_FILES_MAX / 10 {
        return copied;
    }
    for i in 0..SOURCE_FILES_MAX as u64 {
        let dir = to.join(format!("generated/{}/{}", i % 7, i % 61));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{i}.rs")), noise(i, (i * 37 % 20_000) as usize)).unwrap();
    }
    copied + SOURCE_FILES_MAX
}

/// The sources of crates that cargo has fetched, and the documents of the toolchain.
fn source_trees() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let registries = cargo.iter().flat_map(|c| list(&c.join("registry/src")));
    let mut trees: Vec<PathBuf> = registries.flat_map(|r| list(&r)).collect();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    trees.push(Path::new(&sysroot).join("lib/rustlib/src"));
    trees
}

/// True for what the built-in rules leave out.
fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    matches!(name, b".DS_Store" | b"Thumbs.db" | b"desktop.ini") || name.starts_with(b"._") || name.ends_with(b".swp")
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

fn copy(from: &Path, to: &Path, room: &mut (usize, u64)) {
    let Ok(found) = fs::symlink_metadata(from) else { return };
    if found.is_dir() {
        fs::create_dir_all(to).unwrap();
        list(from).iter().for_each(|path| copy(path, &to.join(path.file_name().unwrap()), room));
    } else if found.is_file() && !is_litter(from) && room.0 > 0 && found.len() <= room.1 {
        fs::copy(from, to).unwrap();
        *room = (room.0 - 1, room.1 - found.len());
    }
}
