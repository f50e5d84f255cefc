//! The page cache: what has happened and is not on the disk for good yet, and what a power cut leaves of it.

use std::collections::BTreeSet;

use super::image::{Body, Change, Id, Image};

/// Gives a number below another one.
pub type Dice<'a> = &'a mut dyn FnMut(usize) -> usize;

/// Who did something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Actor {
    Agent,
    User,
}

/// How a file system loses what was not made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutMode {
    /// As with a journal: changes of names and metadata survive in their order up to some point, data as it likes.
    Ordered,
    /// Each change may survive or get lost by itself.
    Any,
}

/// Why something is gone after a power cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Why {
    /// Its bytes were never made durable.
    BytesNotSynced,
    /// They were, but not the name under which they stood.
    NameNotSynced,
}

/// A content that could be seen before a power cut and is nowhere after it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lost {
    /// Where it stood.
    pub path: Vec<u8>,
    pub is_symlink: bool,
    pub bytes: Vec<u8>,
    /// Who did what was not durable.
    pub actor: Actor,
    pub why: Why,
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    now_ns: i64,
    actor: Actor,
    is_synced: bool,
}

/// The image on the disk, and the changes since, of which some are durable already.
#[derive(Clone, Debug)]
pub struct Journal {
    durable: Image,
    pending: Vec<Pending>,
}

impl Journal {
    pub fn new(image: Image) -> Journal {
        Journal { durable: image, pending: Vec::new() }
    }

    pub fn push(&mut self, change: Change, now_ns: i64, actor: Actor) {
        self.pending.push(Pending { change, now_ns, actor, is_synced: false });
    }

    /// Makes a file's bytes and metadata durable, and with `with_names` its names too.
    pub fn sync_inode(&mut self, id: Id, with_names: bool) {
        self.mark(|change| change.inode() == Some(id) || (with_names && change.named().contains(&id)));
    }

    /// Makes the names in a directory durable, with its own metadata. `way` are the directory and those above it: all
    /// that have a journal keep the way to what is durable, whoever made it.
    pub fn sync_directory(&mut self, dir: Id, way: &[Id]) {
        self.mark(|change| {
            let is_on_the_way = change.named().iter().any(|named| way.contains(named));
            is_on_the_way || change.inode() == Some(dir) || change.writes().iter().any(|spot| spot.dir == dir)
        });
    }

    pub fn sync_all(&mut self) {
        self.mark(|_| true);
    }

    /// Makes all durable that one of them did, with what that is built on.
    pub fn sync_of(&mut self, actor: Actor) {
        let chosen = self.pending.iter().map(|pending| pending.actor == actor).collect();
        self.mark_chosen(chosen);
    }

    pub fn pending_count(&self) -> usize {
        self.pending.iter().filter(|pending| !pending.is_synced).count()
    }

    /// Makes some of what is pending durable, as a system does by itself in the background.
    pub fn write_back(&mut self, dice: Dice<'_>) {
        let count = self.pending.len();
        // Mostly in the order in which it came, sometimes out of it.
        let (until, odd) = (dice(count + 1), dice(4) == 0);
        let chosen: Vec<bool> = (0..count).map(|i| if odd { dice(4) == 0 } else { i < until && dice(8) > 0 }).collect();
        self.mark_chosen(chosen);
    }

    fn mark(&mut self, is_meant: impl Fn(&Change) -> bool) {
        let chosen = self.pending.iter().map(|pending| is_meant(&pending.change)).collect();
        self.mark_chosen(chosen);
    }

    /// Marks what is chosen, and what it is built on: a name cannot be durable without what brought it about.
    fn mark_chosen(&mut self, mut chosen: Vec<bool>) {
        let mut needed = BTreeSet::new();
        for (i, pending) in self.pending.iter().enumerate().rev() {
            chosen[i] |= pending.change.writes().iter().any(|spot| needed.contains(*spot));
            if chosen[i] {
                needed.extend(pending.change.needs().into_iter().cloned());
            }
        }
        for (pending, chosen) in self.pending.iter_mut().zip(chosen) {
            pending.is_synced |= chosen;
        }
        let settled = self.pending.iter().take_while(|pending| pending.is_synced).count();
        for pending in self.pending.drain(..settled) {
            self.durable.apply(&pending.change, pending.now_ns);
        }
        self.durable.drop_nameless(|_| false);
    }

    /// The image that a power cut leaves, which is the durable one from now on, and what it has cost.
    pub fn cut(&mut self, mode: CutMode, block_bytes: usize, before: &Image, dice: Dice<'_>) -> (Image, Vec<Lost>) {
        let metadata: Vec<usize> = (0..self.pending.len()).filter(|i| !self.pending[*i].change.is_data()).collect();
        let last_synced = metadata.iter().rposition(|i| self.pending[*i].is_synced).map_or(0, |i| i + 1);
        let until = match mode {
            CutMode::Ordered => last_synced + dice(metadata.len() - last_synced + 1),
            CutMode::Any => metadata.len(),
        };
        let end = metadata.get(until).copied().unwrap_or(self.pending.len());
        let mut image = self.durable.clone();
        let mut harmed: Vec<&Pending> = Vec::new();
        let mut incomplete = BTreeSet::new();
        for (i, pending) in self.pending.iter().enumerate() {
            let change = &pending.change;
            let is_whole = if change.is_data() {
                let is_possible = mode == CutMode::Any || change.inode().is_some_and(|id| !incomplete.contains(&id));
                cut_write(&mut image, pending, is_possible, block_bytes, &mut *dice)
            } else {
                let survives = pending.is_synced || if mode == CutMode::Any { dice(2) == 0 } else { i < end };
                survives && image.apply(change, pending.now_ns)
            };
            if !is_whole {
                incomplete.extend(change.inode().filter(|_| !change.is_data()));
                harmed.push(pending);
            }
        }
        image.drop_nameless(|_| false);
        tell_numbers_apart(&mut image);
        let lost = losses(before, &image, &harmed);
        self.durable = image.clone();
        self.pending.clear();
        (image, lost)
    }
}

/// Lets a write survive, get lost, leave zeros or get torn. True where all of it is there.
fn cut_write(image: &mut Image, pending: &Pending, is_possible: bool, block_bytes: usize, dice: Dice<'_>) -> bool {
    let Change::Write { bytes, .. } = &pending.change else { return false };
    if pending.is_synced {
        return image.apply(&pending.change, pending.now_ns);
    }
    let keep = match if is_possible { dice(4) } else { 1 } {
        0 => bytes.len(),
        1 => return false,
        2 => 0,
        _ => dice(bytes.len() / block_bytes + 1) * block_bytes,
    };
    image.write(&pending.change, keep, pending.now_ns) && keep == bytes.len()
}

/// Where a number was given out again and its first bearer is back, the later one gets another.
fn tell_numbers_apart(image: &mut Image) {
    let mut used = BTreeSet::new();
    let mut next = image.nodes.values().map(|node| node.number).max().unwrap_or(0) + 1;
    for node in image.nodes.values_mut() {
        if !used.insert(node.number) {
            node.number = next;
            next += 1;
        }
    }
}

fn losses(before: &Image, after: &Image, harmed: &[&Pending]) -> Vec<Lost> {
    let is_content = |body: &Body| !matches!(body, Body::Directory(_));
    let left: BTreeSet<(bool, &[u8])> = after
        .nodes
        .values()
        .filter(|node| is_content(&node.body))
        .map(|node| (matches!(node.body, Body::Symlink(_)), node.bytes()))
        .collect();
    let mut lost = Vec::new();
    for (id, node) in before.nodes.iter().filter(|(_, node)| is_content(&node.body)) {
        let is_symlink = matches!(node.body, Body::Symlink(_));
        let Some(path) = before.path_of(*id) else { continue };
        if left.contains(&(is_symlink, node.bytes())) {
            continue;
        }
        let is_data = |p: &&&Pending| p.change.inode() == Some(*id);
        let is_name = |p: &&&Pending| p.change.named().iter().any(|named| before.is_within(*id, *named));
        let bytes_lost = harmed.iter().rfind(is_data);
        let cause = bytes_lost.or_else(|| harmed.iter().rfind(is_name)).or(harmed.last());
        let why = if bytes_lost.is_some() { Why::BytesNotSynced } else { Why::NameNotSynced };
        let actor = cause.map_or(Actor::User, |pending| pending.actor);
        lost.push(Lost { path, is_symlink, bytes: node.bytes().to_vec(), actor, why });
    }
    lost
}
