//! What a disk holds, and the changes of which its whole history consists.
//!
//! A change names things by identity, not by path, so that any part of a history can be played again on an earlier
//! image: a change that does not fit there any more does nothing.

use std::collections::{BTreeMap, BTreeSet};

/// Identity of a file, directory or symlink; never used again.
pub type Id = u64;

/// The top directory of the disk.
pub const TOP: Id = 1;
/// The empty directory on which the disk is mounted: what shows when it is not.
pub const MOUNT_POINT: Id = 2;
/// Grain of allocation in bytes.
pub const ALLOCATION_BYTES: u64 = 4096;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spot {
    pub dir: Id,
    pub name: Vec<u8>,
}

/// By the name as it is compared: the name as it is spelled, and what has it.
pub type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Id)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Bytes, and which blocks of them were ever written.
    File(Vec<u8>, BTreeSet<u64>),
    Directory(Entries),
    Symlink(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub body: Body,
    /// The inode number, which may have been another's before.
    pub number: u64,
    pub mode: u32,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    /// Where it has names.
    pub names: BTreeSet<Spot>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Create { at: Spot, id: Id, number: u64, body: Body, mode: u32 },
    Link { at: Spot, from: Spot, id: Id },
    Remove { at: Spot, id: Id },
    Rename { from: Spot, to: Spot, id: Id, replaced: Option<Id> },
    Exchange { a: Spot, b: Spot, a_id: Id, b_id: Id },
    SetMode { id: Id, mode: u32 },
    SetMtime { id: Id, mtime_ns: i64 },
    SetLen { id: Id, len: u64 },
    Write { id: Id, offset: u64, bytes: Vec<u8> },
}

/// A whole file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    pub nodes: BTreeMap<Id, Node>,
    /// Names that differ only in case are the same.
    pub folds: bool,
}

impl Node {
    fn new(body: Body, number: u64, mode: u32, now_ns: i64) -> Node {
        Node { body, number, mode, mtime_ns: now_ns, ctime_ns: now_ns, names: BTreeSet::new() }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    /// Bytes of a file, target of a symlink, nothing of a directory.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::File(bytes, _) | Body::Symlink(bytes) => bytes,
            Body::Directory(_) => &[],
        }
    }
}

impl Image {
    pub fn new(folds: bool, now_ns: i64) -> Image {
        let empty = |number| Node::new(Body::Directory(BTreeMap::new()), number, 0o755, now_ns);
        Image { nodes: [(TOP, empty(TOP)), (MOUNT_POINT, empty(MOUNT_POINT))].into(), folds }
    }

    pub fn key(&self, name: &[u8]) -> Vec<u8> {
        if self.folds { name.to_ascii_lowercase() } else { name.to_vec() }
    }

    pub fn entries(&self, dir: Id) -> Option<&Entries> {
        match &self.nodes.get(&dir)?.body {
            Body::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn find(&self, spot: &Spot) -> Option<Id> {
        self.entries(spot.dir)?.get(&self.key(&spot.name)).map(|(_, id)| *id)
    }

    /// Path from the top; `None` for what has no name any more.
    pub fn path_of(&self, id: Id) -> Option<Vec<u8>> {
        if id == TOP || id == MOUNT_POINT {
            return Some(Vec::new());
        }
        let spot = self.nodes.get(&id)?.names.first()?;
        self.path_at(spot)
    }

    pub fn path_at(&self, spot: &Spot) -> Option<Vec<u8>> {
        let mut path = self.path_of(spot.dir)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(&spot.name);
        Some(path)
    }

    /// A directory and those above it.
    pub fn way_to(&self, id: Id) -> Vec<Id> {
        let above = |id: &Id| self.nodes.get(id).and_then(|node| node.names.first()).map(|spot| spot.dir);
        std::iter::successors(Some(id), above).collect()
    }

    /// True where `id` is `above` or lies below it.
    pub fn is_within(&self, id: Id, above: Id) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if id == above {
                return true;
            }
            at = self.nodes.get(&id).and_then(|node| node.names.first()).map(|spot| spot.dir);
        }
        false
    }

    /// Applies a change, if it fits what is here, with the time stamps that come with it.
    pub fn apply(&mut self, change: &Change, now_ns: i64) -> bool {
        match change {
            Change::Create { at, id, number, body, mode } => {
                if !self.is_free(at) || self.nodes.contains_key(id) {
                    return false;
                }
                self.nodes.insert(*id, Node::new(body.clone(), *number, *mode, now_ns));
                self.add(at, *id, now_ns);
            }
            Change::Link { at, from, id } => {
                if !self.is_free(at) || self.find(from) != Some(*id) {
                    return false;
                }
                self.add(at, *id, now_ns);
                self.stamp(*id, now_ns);
            }
            Change::Remove { at, id } => {
                if self.find(at) != Some(*id) || self.entries(*id).is_some_and(|entries| !entries.is_empty()) {
                    return false;
                }
                self.remove(at, now_ns);
                self.stamp(*id, now_ns);
            }
            Change::Rename { from, to, id, replaced } => return self.rename(from, to, *id, *replaced, now_ns),
            Change::Exchange { a, b, a_id, b_id } => {
                let fits = self.find(a) == Some(*a_id) && self.find(b) == Some(*b_id);
                if !fits || self.is_within(a.dir, *b_id) || self.is_within(b.dir, *a_id) {
                    return false;
                }
                self.remove(a, now_ns);
                self.remove(b, now_ns);
                self.add(a, *b_id, now_ns);
                self.add(b, *a_id, now_ns);
                self.stamp(*a_id, now_ns);
                self.stamp(*b_id, now_ns);
            }
            Change::Write { bytes, .. } => return self.write(change, bytes.len(), now_ns),
            Change::SetMode { id, .. } | Change::SetMtime { id, .. } | Change::SetLen { id, .. } => {
                let Some(node) = self.nodes.get_mut(id) else { return false };
                node.ctime_ns = now_ns;
                match (change, &mut node.body) {
                    (Change::SetMode { mode, .. }, _) => node.mode = *mode,
                    (Change::SetMtime { mtime_ns, .. }, _) => node.mtime_ns = *mtime_ns,
                    (Change::SetLen { len, .. }, Body::File(bytes, blocks)) => {
                        bytes.resize(*len as usize, 0);
                        blocks.retain(|block| block * ALLOCATION_BYTES < *len);
                        node.mtime_ns = now_ns;
                    }
                    _ => return false,
                }
            }
        }
        true
    }

    /// Applies a write of which only the first `keep` bytes arrive; where the file grows, the rest reads as zeros.
    pub fn write(&mut self, change: &Change, keep: usize, now_ns: i64) -> bool {
        let Change::Write { id, offset, bytes } = change else { return false };
        let Some(node) = self.nodes.get_mut(id) else { return false };
        let Body::File(held, blocks) = &mut node.body else { return false };
        let (start, end) = (*offset as usize, *offset as usize + bytes.len());
        held.resize(held.len().max(end), 0);
        held[start..start + keep].copy_from_slice(&bytes[..keep]);
        blocks.extend(*offset / ALLOCATION_BYTES..(end as u64).div_ceil(ALLOCATION_BYTES));
        node.mtime_ns = now_ns;
        node.ctime_ns = now_ns;
        true
    }

    fn rename(&mut self, from: &Spot, to: &Spot, id: Id, replaced: Option<Id>, now_ns: i64) -> bool {
        let is_respelling = from.dir == to.dir && self.key(&from.name) == self.key(&to.name);
        let expected = if is_respelling { Some(id) } else { replaced };
        let is_full = replaced.and_then(|id| self.entries(id)).is_some_and(|entries| !entries.is_empty());
        let fits = self.find(from) == Some(id) && self.find(to) == expected && self.entries(to.dir).is_some();
        if !fits || is_full || self.is_within(to.dir, id) {
            return false;
        }
        self.remove(from, now_ns);
        if let Some(replaced) = replaced.filter(|_| !is_respelling) {
            self.remove(to, now_ns);
            self.stamp(replaced, now_ns);
        }
        self.add(to, id, now_ns);
        self.stamp(id, now_ns);
        true
    }

    fn is_free(&self, spot: &Spot) -> bool {
        self.entries(spot.dir).is_some_and(|entries| !entries.contains_key(&self.key(&spot.name)))
    }

    fn add(&mut self, spot: &Spot, id: Id, now_ns: i64) {
        let key = self.key(&spot.name);
        if let Some(node) = self.nodes.get_mut(&spot.dir)
            && let Body::Directory(entries) = &mut node.body
        {
            entries.insert(key, (spot.name.clone(), id));
            (node.mtime_ns, node.ctime_ns) = (now_ns, now_ns);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names.insert(spot.clone());
        }
    }

    fn remove(&mut self, spot: &Spot, now_ns: i64) {
        let key = self.key(&spot.name);
        let Some(node) = self.nodes.get_mut(&spot.dir) else { return };
        let Body::Directory(entries) = &mut node.body else { return };
        let Some((spelling, id)) = entries.remove(&key) else { return };
        (node.mtime_ns, node.ctime_ns) = (now_ns, now_ns);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.names.remove(&Spot { dir: spot.dir, name: spelling });
        }
    }

    fn stamp(&mut self, id: Id, now_ns: i64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.ctime_ns = now_ns;
        }
    }

    /// Forgets what has no name, unless it `is_kept`.
    pub fn drop_nameless(&mut self, is_kept: impl Fn(Id) -> bool) {
        self.nodes.retain(|id, node| !node.names.is_empty() || *id <= MOUNT_POINT || is_kept(*id));
    }
}

impl Change {
    /// True for what a journal of metadata does not hold.
    pub fn is_data(&self) -> bool {
        matches!(self, Change::Write { .. })
    }

    /// The file whose own bytes or metadata it changes.
    pub fn inode(&self) -> Option<Id> {
        match self {
            Change::SetMode { id, .. }
            | Change::SetMtime { id, .. }
            | Change::SetLen { id, .. }
            | Change::Write { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// What gets or loses a name by it.
    pub fn named(&self) -> Vec<Id> {
        match self {
            Change::Create { id, .. } | Change::Link { id, .. } | Change::Remove { id, .. } => vec![*id],
            Change::Rename { id, replaced, .. } => [*id].into_iter().chain(*replaced).collect(),
            Change::Exchange { a_id, b_id, .. } => vec![*a_id, *b_id],
            _ => vec![],
        }
    }

    /// The names that it changes.
    pub fn writes(&self) -> Vec<&Spot> {
        match self {
            Change::Create { at, .. } | Change::Link { at, .. } | Change::Remove { at, .. } => vec![at],
            Change::Rename { from, to, .. } => vec![from, to],
            Change::Exchange { a, b, .. } => vec![a, b],
            _ => vec![],
        }
    }

    /// The names without which it could not have happened.
    pub fn needs(&self) -> Vec<&Spot> {
        match self {
            Change::Link { at, from, .. } => vec![at, from],
            other => other.writes(),
        }
    }
}
