//! Files to sync, and whether they arrived.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::support::noise;

/// What a tree holds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub files: u64,
    pub bytes: u64,
}

/// One file of noise.
pub fn large(path: &Path, seed: u64, bytes: u64) -> anyhow::Result<Tally> {
    let mut file = File::create(path)?;
    let mut left = bytes;
    for piece in 0.. {
        let size = left.min(8 << 20) as usize;
        if size == 0 {
            break;
        }
        file.write_all(&noise(seed * 1_000_003 + piece, size))?;
        left -= size as u64;
    }
    Ok(Tally { files: 1, bytes })
}

/// Files of `least..=most` bytes, a hundred in each directory.
pub fn many(root: &Path, seed: u64, files: u64, (least, most): (usize, usize)) -> anyhow::Result<Tally> {
    let source = noise(seed, 4 << 20);
    let mut tally = Tally::default();
    for number in 0..files {
        let dir = root.join(format!("d{:05}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let size = least + (number as usize).wrapping_mul(7919) % (most - least + 1);
        let at = (number as usize).wrapping_mul(104_729) % (source.len() - size - 8);
        // Its number makes it differ from all others.
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend_from_slice(&source[at..at + size.saturating_sub(8)]);
        bytes.truncate(size);
        fs::write(dir.join(format!("f{number:07}")), &bytes)?;
        tally.files += 1;
        tally.bytes += size as u64;
    }
    Ok(tally)
}

/// Copies real sources until there are `files_max` or `bytes_max`: those that cargo and rustup keep on this machine.
pub fn sources(to: &Path, files_max: u64, bytes_max: u64) -> anyhow::Result<Tally> {
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let place = |name: &str, below: &str| std::env::var_os(name).map_or(home.join(below), PathBuf::from);
    let from = [place("CARGO_HOME", ".cargo").join("registry/src"), place("RUSTUP_HOME", ".rustup").join("toolchains")];
    let mut tally = Tally::default();
    for (number, from) in from.iter().enumerate() {
        copy_some(from, &to.join(format!("tree{number}")), files_max, bytes_max, &mut tally)?;
    }
    Ok(tally)
}

fn copy_some(from: &Path, to: &Path, files_max: u64, bytes_max: u64, tally: &mut Tally) -> anyhow::Result<()> {
    let Ok(listing) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to)?;
    for entry in listing {
        let entry = entry?;
        if tally.files >= files_max || tally.bytes >= bytes_max {
            break;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_some(&entry.path(), &target, files_max, bytes_max, tally)?;
        } else if entry.file_type()?.is_file() && !is_ignored(&entry.path()) {
            tally.bytes += fs::copy(entry.path(), target)?;
            tally.files += 1;
        }
    }
    Ok(())
}

/// What the built-in rules would leave out is left out here, so that all tools do the same work.
fn is_ignored(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(".#") || name.ends_with('~') || name.ends_with(".swp") || name.starts_with(".DS_")
}

/// Copies a tree, as a file manager does.
pub fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Files below a directory; without the agents' own.
pub fn list(root: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == ".p2psync" || name == ".stfolder" {
                continue;
            }
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                found.push((entry.path().strip_prefix(root)?.to_owned(), metadata.size()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Fails unless both trees hold the same files with the same bytes.
pub fn is_same(a: &Path, b: &Path) -> anyhow::Result<()> {
    let (here, there) = (list(a)?, list(b)?);
    ensure!(here.len() == there.len(), "{} files here, {} there", here.len(), there.len());
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for (mine, its) in here.iter().zip(&there) {
        ensure!(mine == its, "here {mine:?}, there {its:?}");
        let (mut left, mut right) = (File::open(a.join(&mine.0))?, File::open(b.join(&its.0))?);
        let mut rest = mine.1 as usize;
        while rest > 0 {
            let size = rest.min(one.len());
            left.read_exact(&mut one[..size])?;
            right.read_exact(&mut other[..size])?;
            ensure!(one[..size] == other[..size], "{} differs", mine.0.display());
            rest -= size;
        }
    }
    Ok(())
}
