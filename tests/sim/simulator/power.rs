//! What a power cut may take, and what it may not.

use std::collections::BTreeSet;

use p2psync::core::content::ContentId;
use p2psync::core::disk::DiskKind;
use p2psync::index::Mark;

use super::fetching::content_of;
use super::user::{FOLDER, Tree};
use super::world::World;

/// What is older than this is on the disk, in ns: the system sees to that.
const WRITE_BACK_NS: i64 = 30_000_000_000;
/// Entries of an index looked at: more than any run makes.
const RECORDS_MAX: usize = 10_000;

/// A new file that went with the power, and that another device had at that moment.
pub struct Taken {
    device: usize,
    path: String,
    bytes: Vec<u8>,
}

impl World {
    /// What a user had not synced may be gone with the power, and of what was there a part may be left. But a new file
    /// that is there no more, and that another device has by then, stays there.
    pub fn excuse_unsynced(&mut self, at: usize, before: &BTreeSet<Vec<u8>>, tree_before: &Tree) {
        if !self.plan.aim.loses_unsynced {
            return;
        }
        let (after, tree, now_ns) = (self.contents(at), self.tree(at), self.now_ns);
        let others: Vec<Tree> =
            (0..self.devices.len()).filter(|other| *other != at).map(|other| self.tree(other)).collect();
        let is_elsewhere = |path: &String, bytes: &Vec<u8>| {
            others.iter().any(|tree| tree.get(path).is_some_and(|item| item.bytes == *bytes))
        };
        let taken: Vec<Taken> = tree_before
            .iter()
            .filter(|(path, item)| item.kind == DiskKind::File && is_free(&tree, path))
            .filter(|(path, item)| now_ns - item.mtime_ns < WRITE_BACK_NS && is_elsewhere(path, &item.bytes))
            .map(|(path, item)| Taken { device: at, path: path.clone(), bytes: item.bytes.clone() })
            .collect();
        let mut users = self.users();
        let is_kept = |bytes: &&Vec<u8>| !taken.iter().any(|taken| taken.bytes == **bytes);
        before.difference(&after).filter(is_kept).for_each(|bytes| users.ledger.lost_unsynced(bytes, at));
        for bytes in &after {
            if !users.ledger.is_known(bytes) {
                users.ledger.wrote(bytes, at, "what the power cut left");
                users.ledger.tore(bytes);
            }
        }
        users.ledger.synced(at);
        let torn: Vec<&String> =
            tree.iter().filter(|(_, item)| users.ledger.is_torn(&item.bytes)).map(|(path, _)| path).collect();
        let mut disk = self.devices[at].disk.lock();
        for path in torn {
            // Where even size and time are as they were, only reading all files again could tell; here the time shows it.
            let _ = disk.user_set_mtime(&format!("{FOLDER}/{path}"), now_ns);
        }
        disk.sync_users();
        drop(disk);
        drop(users);
        self.taken.extend(taken);
    }

    /// What of that is there again is like any other file.
    pub fn note_back(&mut self, at: usize) {
        if self.taken.iter().any(|taken| taken.device == at) {
            let tree = self.tree(at);
            self.taken.retain(|taken| taken.device != at || is_free(&tree, &taken.path));
        }
    }

    /// Whoever puts something else in the place of what is not back yet keeps that everywhere.
    pub fn excuse_taken(&mut self, at: usize) {
        if !self.taken.iter().any(|taken| taken.device == at) {
            return;
        }
        let tree = self.tree(at);
        let (kept, replaced): (Vec<Taken>, Vec<Taken>) = std::mem::take(&mut self.taken)
            .into_iter()
            .partition(|taken| taken.device != at || is_free(&tree, &taken.path));
        self.taken = kept;
        let mut users = self.users();
        replaced.iter().for_each(|taken| users.ledger.excuse(&taken.bytes));
    }

    /// Files at a device that are suddenly empty or old, each with the content that other devices keep.
    pub fn suspects(&self, at: usize) -> Vec<(String, ContentId)> {
        let Some(agent) = self.devices[at].agent.as_ref().filter(|_| self.plan.aim.loses_unsynced) else {
            return Vec::new();
        };
        let records = agent.folder.index().records_from(None, None, RECORDS_MAX).unwrap_or_default().into_iter();
        let suspects = records.filter(|record| record.mark == Mark::Suspect);
        suspects.filter_map(|r| Some((r.entry.path.to_string(), r.entry.kind.content()?.id))).collect()
    }

    /// Whoever puts something else in the place of such a file keeps that everywhere: he was told what it means.
    pub fn excuse_replaced(&mut self, at: usize, suspects: &[(String, ContentId)], before: &Tree) {
        if suspects.is_empty() {
            return;
        }
        let after = self.tree(at);
        let is_same = |path: &String| match (before.get(path), after.get(path)) {
            (Some(old), Some(new)) => (old.inode, &old.bytes) == (new.inode, &new.bytes),
            (old, new) => old.is_none() && new.is_none(),
        };
        let replaced = suspects.iter().filter(|(path, _)| !is_same(path));
        let contents: BTreeSet<ContentId> = replaced.map(|(_, content)| *content).collect();
        let mut users = self.users();
        let wanted: Vec<Vec<u8>> = users.ledger.wanted().map(|(bytes, _)| bytes.clone()).collect();
        let given_up = wanted.iter().filter(|bytes| contents.contains(&content_of(bytes).id));
        given_up.for_each(|bytes| users.ledger.excuse(bytes));
    }
}

/// True where nothing is at a path, nor a file where a directory above it has to be.
fn is_free(tree: &Tree, path: &str) -> bool {
    let above = path.match_indices('/').filter_map(|(at, _)| tree.get(&path[..at]));
    !tree.contains_key(path) && above.into_iter().all(|item| item.kind == DiskKind::Directory)
}
