//! Work that any tool can be given: some files, and a change to them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::data::{self, Tally};
use crate::support::noise;

/// What every change happens to.
const FILE: &str = "file.bin";
const DIRECTORY: &str = "directory";
const OTHER: &str = "other";
/// Bytes appended or overwritten.
const PATCH_BYTES: usize = 1 << 20;

/// Some files and what happens to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Big,
    Small,
    Tree,
    Append,
    Patch,
    Insert,
    Move,
    Copy,
    Dup,
    Delete,
}

impl Work {
    pub const ALL: [Work; 10] = [
        Work::Big,
        Work::Small,
        Work::Tree,
        Work::Append,
        Work::Patch,
        Work::Insert,
        Work::Move,
        Work::Copy,
        Work::Dup,
        Work::Delete,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::Big => "big",
            Work::Small => "small",
            Work::Tree => "tree",
            Work::Append => "append",
            Work::Patch => "patch",
            Work::Insert => "insert",
            Work::Move => "move",
            Work::Copy => "copy",
            Work::Dup => "dup",
            Work::Delete => "delete",
        }
    }

    pub fn what(self) -> &'static str {
        match self {
            Work::Big => "first sync of one file of 2 GiB",
            Work::Small => "first sync of 50,000 files of 1 to 16 KiB",
            Work::Tree => "first sync of source files, 20,000 or more",
            Work::Append => "1 MiB appended to a file of 512 MiB",
            Work::Patch => "1 MiB overwritten in the middle of a file of 512 MiB",
            Work::Insert => "1 byte inserted at the front of a file of 512 MiB",
            Work::Move => "a directory of 5,000 files, 500 MiB, is renamed",
            Work::Copy => "a copy of a directory of 5,000 files, 500 MiB, appears",
            Work::Dup => "a copy of a file of 512 MiB appears",
            Work::Delete => "50,000 files are deleted",
        }
    }

    /// True where the first sync is what is measured.
    pub fn is_first_sync(self) -> bool {
        matches!(self, Work::Big | Work::Small | Work::Tree)
    }

    /// Makes the files. `scale` makes them fewer or smaller.
    pub fn make(self, folder: &Path, scale: f64) -> anyhow::Result<Tally> {
        let scaled = |number: u64| ((number as f64 * scale) as u64).max(1);
        match self {
            Work::Big => data::large(&folder.join(FILE), 1, scaled(2 << 30)),
            Work::Small => data::many(folder, 2, scaled(50_000), (1 << 10, 16 << 10)),
            Work::Tree => data::sources(folder, scaled(30_000), scaled(1 << 30)),
            Work::Append | Work::Patch | Work::Insert | Work::Dup => {
                data::large(&folder.join(FILE), 3, scaled(512 << 20))
            }
            Work::Move | Work::Copy => data::many(&folder.join(DIRECTORY), 4, scaled(5_000), (64 << 10, 136 << 10)),
            Work::Delete => data::many(&folder.join(DIRECTORY), 5, scaled(50_000), (1 << 10, 4 << 10)),
        }
    }

    /// Changes them, from one moment to the next as far as that is possible: what takes long is prepared in `aside`,
    /// a directory on the same file system, by [`Work::prepare`].
    pub fn change(self, folder: &Path, aside: &Path) -> anyhow::Result<()> {
        match self {
            Work::Big | Work::Small | Work::Tree => {}
            Work::Append => {
                let mut file = OpenOptions::new().append(true).open(folder.join(FILE))?;
                file.write_all(&noise(77, PATCH_BYTES))?;
            }
            Work::Patch => {
                let mut file = OpenOptions::new().write(true).open(folder.join(FILE))?;
                file.seek(SeekFrom::Start(file.metadata()?.size() / 2 + 12_345))?;
                file.write_all(&noise(78, PATCH_BYTES))?;
            }
            Work::Insert => fs::rename(aside.join(FILE), folder.join(FILE))?,
            Work::Move => fs::rename(folder.join(DIRECTORY), folder.join(OTHER))?,
            Work::Copy | Work::Dup => fs::rename(aside.join(OTHER), folder.join(OTHER))?,
            Work::Delete => fs::rename(folder.join(DIRECTORY), aside.join(DIRECTORY))?,
        }
        Ok(())
    }

    /// Makes what the change brings in.
    pub fn prepare(self, folder: &Path, aside: &Path) -> anyhow::Result<()> {
        match self {
            Work::Insert => {
                let (mut from, mut to) = (File::open(folder.join(FILE))?, File::create(aside.join(FILE))?);
                to.write_all(b"!")?;
                let mut buffer = vec![0; 8 << 20];
                loop {
                    let size = from.read(&mut buffer)?;
                    if size == 0 {
                        break;
                    }
                    to.write_all(&buffer[..size])?;
                }
            }
            Work::Copy => data::copy_tree(&folder.join(DIRECTORY), &aside.join(OTHER))?,
            Work::Dup => drop(fs::copy(folder.join(FILE), aside.join(OTHER))?),
            _ => {}
        }
        Ok(())
    }

    /// True where the change of `from` has arrived in `to`; `files` is how many there are then.
    pub fn has_arrived(self, from: &Path, to: &Path, files: u64) -> anyhow::Result<bool> {
        Ok(match self {
            Work::Append | Work::Patch | Work::Insert => is_like(&from.join(FILE), &to.join(FILE)),
            Work::Dup => is_like(&from.join(OTHER), &to.join(OTHER)),
            Work::Move => !to.join(DIRECTORY).exists() && count(&to.join(OTHER), files),
            Work::Copy => count(&to.join(OTHER), files / 2),
            Work::Delete => count(to, 0),
            Work::Big | Work::Small | Work::Tree => count(to, files),
        })
    }
}

fn is_like(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) else { return false };
    (one.size(), one.mtime(), one.mtime_nsec()) == (other.size(), other.mtime(), other.mtime_nsec())
}

/// True where there are so many; what goes away while one looks makes it untrue.
fn count(root: &Path, files: u64) -> bool {
    data::list(root).is_ok_and(|found| found.len() as u64 == files)
}
