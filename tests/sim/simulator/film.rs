//! What a trace shows of the disks: every file that comes, goes or changes, in the tree and in history.

use std::collections::BTreeMap;

use p2psync::core::disk::DiskKind;

use super::disk::{Inner, Item};
use super::user::FOLDER;

/// What is shown of a file's bytes.
const SHOWN_BYTES: usize = 24;
/// Changes shown at a time.
const LINES_MAX: usize = 60;

/// What was on a disk when it was last looked at.
#[derive(Default)]
pub struct Film {
    last: BTreeMap<Vec<u8>, Item>,
}

impl Film {
    /// A line for each change since the last look.
    pub fn look(&mut self, device: usize, disk: &Inner) -> Vec<String> {
        let now = disk.items(FOLDER);
        let line = |sign: char, path: &[u8], item: &Item| {
            let path = String::from_utf8_lossy(path);
            let shown = &item.bytes[..item.bytes.len().min(SHOWN_BYTES)];
            let text = String::from_utf8_lossy(shown).into_owned();
            match item.kind {
                DiskKind::Directory => format!("      disk {device} {sign} {path}/ #{}", item.inode),
                _ => format!("      disk {device} {sign} {path} #{} {text:?}", item.inode),
            }
        };
        let is_same = |a: &Item, b: &Item| (a.inode, a.kind, &a.bytes) == (b.inode, b.kind, &b.bytes);
        let gone = self.last.iter().filter(|(path, item)| !now.get(*path).is_some_and(|other| is_same(item, other)));
        let mut lines: Vec<String> = gone.map(|(path, item)| line('-', path, item)).collect();
        let come = now.iter().filter(|(path, item)| !self.last.get(*path).is_some_and(|other| is_same(item, other)));
        lines.extend(come.map(|(path, item)| line('+', path, item)));
        lines.truncate(LINES_MAX);
        self.last = now;
        lines
    }
}
