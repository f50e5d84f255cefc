//! What users do, as their programs do it: one system call after the other, on their own disk.

use std::collections::BTreeMap;

use p2psync::core::disk::DiskKind;

use super::disk::{Inner, Item};
use super::ledger::Ledger;
use super::plan::{Act, NAMES};
use super::random::Random;

/// What several users write alike.
const SAME: &[u8] = b"the same everywhere";

/// Where the synced folder lies on a disk.
pub const FOLDER: &str = "folder";
/// The agent's own directory in it.
pub const OWN: &str = ".p2psync";

fn at(path: &str) -> String {
    format!("{FOLDER}/{path}")
}

/// What a user sees of a folder, by path.
pub type Tree = BTreeMap<String, Item>;

/// See [`Tree`].
pub fn tree(disk: &Inner) -> Tree {
    let all = disk.items(FOLDER).into_iter().map(|(path, item)| (String::from_utf8_lossy(&path).into_owned(), item));
    all.filter(|(path, _)| !path.starts_with(OWN)).collect()
}

/// A program that has a file open and will write to it again.
#[derive(Clone, Debug)]
pub struct OpenFile {
    pub device: usize,
    pub inode: u64,
}

/// A user at a device.
pub struct User<'a> {
    pub device: usize,
    pub disk: &'a mut Inner,
    pub ledger: &'a mut Ledger,
    pub random: &'a mut Random,
    pub open: &'a mut Vec<OpenFile>,
}

impl User<'_> {
    pub fn act(&mut self, act: Act) {
        // Where the disk is not mounted, users have nothing before their eyes, and what they put on the mount point
        // would only be hidden by the disk when it is back.
        if self.disk.is_unmounted() {
            return;
        }
        match act {
            Act::Save(name) => self.save(name),
            Act::SaveInPlace(name) => self.save_in_place(name),
            Act::SaveWithBackup(name) => self.save_with_backup(name),
            Act::Append(name) => self.append(name),
            Act::Patch(name) => self.patch(name),
            Act::Truncate(name) => self.truncate(name),
            Act::Delete(name) => self.delete(name),
            Act::DeleteTree(name) => self.delete_tree(name),
            Act::Rename(from, to) => self.rename(from, to),
            Act::Swap(a, b) => self.swap(a, b),
            Act::Copy(from, to) => self.copy(from, to),
            Act::MakeDirectory(name) => drop(self.directories_to(name) && self.make_directory(name)),
            Act::DirectoryOver(name) => self.directory_over(name),
            Act::FileOver(name) => self.file_over(name),
            Act::Chmod(name) => self.chmod(name),
            Act::Touch(name) => self.touch(name),
            Act::Link(name) => self.link(name),
            Act::SaveSame(name) => self.save_same(name),
            Act::ChangeCase(name) => self.change_case(name),
            Act::Build(name) => self.build(name),
            Act::Checkout => self.checkout(),
            Act::EditConflictCopy => self.edit_conflict_copy(),
            Act::DeleteConflictCopy => self.delete_conflict_copy(),
            Act::WriteLater(name) => self.write_later(name),
            Act::IgnoreRule(name) => self.ignore_rule(".p2pignore", name),
            Act::IgnoreRuleBelow(name) => self.ignore_rule_below(name),
        }
    }

    fn node(&self, path: &str) -> Option<Item> {
        self.disk.item(&at(path))
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.node(path).filter(|n| n.kind == DiskKind::File).map(|n| n.bytes)
    }

    fn is_directory(&self, path: &str) -> bool {
        self.node(path).is_some_and(|n| n.kind == DiskKind::Directory)
    }

    /// Makes the directories above a path; false where a file stands in the way.
    fn directories_to(&mut self, path: &str) -> bool {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.into_iter().all(|end| self.make_directory(&path[..end]))
    }

    fn make_directory(&mut self, path: &str) -> bool {
        self.is_directory(path) || (self.node(path).is_none() && self.disk.user_mkdir(&at(path)).is_ok())
    }

    /// Writes a file, new or over the one that is there, in one go.
    fn put(&mut self, path: &str, bytes: &[u8]) -> bool {
        let old = self.node(path);
        if old.as_ref().is_some_and(|n| n.kind != DiskKind::File) {
            return false;
        }
        let aside = format!("{path}.tmp-{}", self.random.below(1000));
        if self.disk.user_write_new(&at(&aside), bytes).is_err() {
            return false;
        }
        self.ledger.wrote(bytes, self.device, path);
        if self.disk.user_rename(&at(&aside), &at(path)).is_err() {
            let _ = self.disk.user_unlink(&at(&aside));
            self.ledger.gave_up(bytes);
            return false;
        }
        if let Some(old) = old {
            self.gave_up(&old);
        }
        true
    }

    fn gave_up(&mut self, node: &Item) {
        if node.kind != DiskKind::Directory {
            self.ledger.gave_up(&node.bytes);
        }
    }

    fn fresh(&mut self) -> Vec<u8> {
        self.ledger.fresh(self.random)
    }

    fn save(&mut self, path: &str) {
        if self.directories_to(path) {
            let bytes = self.fresh();
            self.put(path, &bytes);
        }
    }

    fn save_same(&mut self, path: &str) {
        self.ledger.wrote_common(SAME);
        if self.directories_to(path) && self.file(path).as_deref() != Some(SAME) {
            self.put(path, SAME);
        }
    }

    /// One write to a file that is there; every state in between counts as written and given up.
    fn rewrite(&mut self, path: &str, states: &[Vec<u8>]) {
        let Some(mut before) = self.file(path) else { return };
        for state in states {
            if self.disk.user_overwrite(&at(path), state).is_err() {
                // A full disk: the program has emptied the file and then not got its bytes into it.
                if let Some(left) = self.file(path).filter(|left| *left != before) {
                    self.ledger.wrote(&left, self.device, path);
                    self.ledger.gave_up(&before);
                }
                return;
            }
            self.ledger.wrote(state, self.device, path);
            if *state != before {
                self.ledger.gave_up(&before);
            }
            before.clone_from(state);
        }
    }

    fn save_in_place(&mut self, path: &str) {
        let bytes = self.fresh();
        let half = bytes[..bytes.len() / 2].to_vec();
        self.rewrite(path, &[Vec::new(), half, bytes]);
    }

    fn append(&mut self, path: &str) {
        let Some(mut bytes) = self.file(path) else { return };
        bytes.extend(self.fresh());
        self.rewrite(path, &[bytes]);
    }

    fn patch(&mut self, path: &str) {
        let Some(mut bytes) = self.file(path) else { return };
        let mark = self.fresh();
        let at = self.random.below(bytes.len() + 1);
        bytes.splice(at..(at + 3).min(bytes.len()), mark);
        self.rewrite(path, &[bytes]);
    }

    fn truncate(&mut self, path: &str) {
        let Some(bytes) = self.file(path) else { return };
        if self.random.chance(30) {
            return self.rewrite(path, &[Vec::new()]);
        }
        let mark = self.fresh();
        let kept = bytes[..bytes.len() / 2].to_vec();
        // A state of its own, so that it is told from others that were cut at the same place.
        self.rewrite(path, &[[mark, kept].concat()]);
    }

    fn save_with_backup(&mut self, path: &str) {
        if self.file(path).is_none() {
            return;
        }
        let backup = format!("{path}~");
        if let Some(older) = self.node(&backup) {
            if older.kind == DiskKind::Directory {
                return;
            }
            self.gave_up(&older);
        }
        self.moves(path);
        if self.disk.user_rename(&at(path), &at(&backup)).is_ok() {
            let bytes = self.fresh();
            if self.disk.user_write_new(&at(path), &bytes).is_ok() {
                self.ledger.wrote(&bytes, self.device, path);
            }
        }
    }

    pub fn delete(&mut self, path: &str) {
        match self.node(path) {
            Some(node) if node.kind == DiskKind::Directory => drop(self.disk.user_rmdir(&at(path))),
            Some(node) if self.disk.user_unlink(&at(path)).is_ok() => self.gave_up(&node),
            _ => {}
        }
    }

    fn delete_tree(&mut self, path: &str) {
        let below = format!("{path}/");
        let mut paths: Vec<String> =
            tree(self.disk).into_keys().filter(|p| p == path || p.starts_with(&below)).collect();
        paths.sort_by_key(|p| std::cmp::Reverse(p.len()));
        paths.iter().for_each(|p| self.delete(p));
    }

    fn rename(&mut self, from: &str, to: &str) {
        if from == to || to.starts_with(&format!("{from}/")) || self.node(from).is_none() || !self.directories_to(to) {
            return;
        }
        let replaced = self.node(to);
        self.moves(from);
        if self.disk.user_rename(&at(from), &at(to)).is_ok()
            && let Some(replaced) = replaced
        {
            self.gave_up(&replaced);
        }
    }

    fn swap(&mut self, a: &str, b: &str) {
        let nested = a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"));
        if a != b && !nested {
            self.moves(a);
            self.moves(b);
            let _ = self.disk.user_exchange(&at(a), &at(b));
        }
    }

    fn copy(&mut self, from: &str, to: &str) {
        if from != to
            && let Some(bytes) = self.file(from)
            && self.directories_to(to)
            && self.file(to).as_ref() != Some(&bytes)
        {
            self.ledger.moved(&bytes, self.device);
            self.put(to, &bytes);
        }
    }

    /// All that is at a path or below gets another name.
    fn moves(&mut self, path: &str) {
        let below = format!("{path}/");
        let items = tree(self.disk).into_iter().filter(|(p, _)| p == path || p.starts_with(&below));
        for (_, item) in items.filter(|(_, item)| item.kind != DiskKind::Directory) {
            self.ledger.moved(&item.bytes, self.device);
        }
    }

    fn directory_over(&mut self, path: &str) {
        if let Some(node) = self.node(path)
            && node.kind != DiskKind::Directory
            && self.disk.user_unlink(&at(path)).is_ok()
        {
            self.gave_up(&node);
            self.make_directory(path);
            if self.random.chance(50) {
                self.save(&format!("{path}/in"));
            }
        }
    }

    fn file_over(&mut self, path: &str) {
        if self.is_directory(path) {
            self.delete_tree(path);
            self.save(path);
        }
    }

    fn chmod(&mut self, path: &str) {
        let mode = *self.random.pick(&[0o600, 0o640, 0o755, 0o700]);
        let _ = self.disk.user_chmod(&at(path), mode);
    }

    fn touch(&mut self, path: &str) {
        if self.node(path).is_some_and(|n| n.kind == DiskKind::File) {
            let mtime_ns = 1_500_000_000_000_000_000 + self.random.below(1_000_000_000) as i64;
            let _ = self.disk.user_set_mtime(&at(path), mtime_ns);
        }
    }

    fn link(&mut self, path: &str) {
        if !self.directories_to(path) {
            return;
        }
        self.delete(path);
        let target = format!("target of version {}", self.random.next()).into_bytes();
        if self.disk.user_symlink(&at(path), &target).is_ok() {
            self.ledger.wrote(&target, self.device, path);
        }
    }

    fn change_case(&mut self, path: &str) {
        let other: String = path
            .chars()
            .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect();
        if !path.contains('/') {
            let (from, to) = if self.node(path).is_some() { (path, &*other) } else { (&*other, path) };
            self.rename(from, to);
        }
    }

    fn build(&mut self, path: &str) {
        for step in 0..3 {
            let object = format!("{path}.o{step}");
            self.save(&object);
            if self.random.chance(70) {
                self.delete(&object);
            }
        }
    }

    /// Some files go, some change, some come.
    fn checkout(&mut self) {
        for name in NAMES {
            match self.random.below(5) {
                0 => self.delete(name),
                1 => self.save(name),
                2 => self.save_in_place(name),
                _ => {}
            }
        }
    }

    fn conflict_copy(&mut self) -> Option<String> {
        let copies: Vec<String> = tree(self.disk).into_keys().filter(|p| p.contains(".conflict-")).collect();
        (!copies.is_empty()).then(|| self.random.pick(&copies).clone())
    }

    fn edit_conflict_copy(&mut self) {
        if let Some(copy) = self.conflict_copy() {
            self.append(&copy);
        }
    }

    fn delete_conflict_copy(&mut self) {
        if let Some(copy) = self.conflict_copy() {
            self.delete(&copy);
        }
    }

    fn write_later(&mut self, path: &str) {
        if let Some(node) = self.node(path).filter(|n| n.kind == DiskKind::File) {
            self.open.push(OpenFile { device: self.device, inode: node.inode });
        }
    }

    /// Writes once more to a file that was opened before, wherever it is by now.
    /// Returns what the file holds then, where it lies in history.
    pub fn write_now(&mut self, file: &OpenFile) -> Option<Vec<u8>> {
        let everything = self.disk.items(FOLDER);
        let (path, item) = everything.into_iter().find(|(_, item)| item.inode == file.inode)?;
        let (path, more) = (String::from_utf8_lossy(&path).into_owned(), self.fresh());
        let bytes = [item.bytes.clone(), more.clone()].concat();
        if item.kind == DiskKind::File && self.disk.user_append(&at(&path), &more).is_ok() {
            self.ledger.wrote(&bytes, self.device, &path);
            self.ledger.gave_up(&item.bytes);
            if path.starts_with(OWN) {
                return Some(bytes);
            }
        }
        None
    }

    fn ignore_rule(&mut self, file: &str, rule: &str) {
        if self.random.chance(40) {
            self.delete(file);
        } else {
            let rules = format!("{rule}\n");
            self.ledger.wrote_common(rules.as_bytes());
            self.put(file, rules.as_bytes());
        }
    }

    fn ignore_rule_below(&mut self, path: &str) {
        let Some((directory, name)) = path.rsplit_once('/') else { return };
        if self.directories_to(path) {
            let rule = if self.random.chance(30) { format!("!{name}") } else { name.to_owned() };
            self.ignore_rule(&format!("{directory}/.p2pignore"), &rule);
        }
    }
}
