//! Entries as small values, and the real rule applied to them.
//!
//! A trial meets the same few entries again and again under other names, so it works with [`Item`]s, which are cheap to
//! rename and to hash. Whatever is decided or made of them is decided and made by `core` from real entries; the result
//! for each pair is remembered.

use std::collections::HashMap;

use p2psync::core::content::{Content, ContentId};
use p2psync::core::decide::{Decision, Found, decide, deleted, is_settled, joined, merge_meta, resolved, taken};
use p2psync::core::disk::DiskKind;
use p2psync::core::entry::{Entry, Kind, Meta, Stamp};
use p2psync::core::id::{DeviceId, EpochId};
use p2psync::core::path::RelPath;
use p2psync::core::version::VersionVector;

use super::hash::Fast;

pub const DEVICES_MAX: usize = 3;
/// Index epochs that can be told apart: one that each device has now, and closed ones.
pub const SLOTS: usize = 8;
/// The epochs that come first are the present ones of the devices.
pub const CLOSED: usize = DEVICES_MAX;

/// Contents are numbers, the greater wins. Up to here they lose against [`SAME`].
pub const NOTHING: u8 = 0;
pub const SAME: u8 = 10;
pub const DIRECTORY: u8 = 20;
/// No content that only one user wrote has a number beyond this.
pub const UNIQUE_MAX: u8 = 19;

/// An entry of the one path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Item {
    pub content: u8,
    /// Tells mtimes of the same content apart.
    pub variant: u8,
    /// 0 where it was found.
    pub author: u8,
    pub version: [u8; SLOTS],
    /// Superseded contents as bits.
    pub superseded: u32,
    pub meta: Register,
}

/// The metadata register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Register {
    pub count: u8,
    pub epoch: u8,
    /// 0 where no mode was set, else the mode and whether it was set on a directory.
    pub mode: u8,
    pub on_directory: bool,
    /// 0 where no mtime was set, else the variant and the content it was set on.
    pub touched: u8,
    pub touched_on: u8,
}

/// What a device makes of a rival.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its new entry.
    pub item: Item,
    /// True where its content becomes a conflict copy.
    pub makes_copy: bool,
    pub is_event: bool,
    /// True where the rival says nothing that ours does not.
    pub is_settled: bool,
}

/// Another rule than the real one: the search has to find out what is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Who holds the winner joins the versions too.
    JoinsEagerly,
    /// A resolved conflict is no event.
    ResolvesWithoutEvent,
    /// What is not acted on at once is forgotten.
    ForgetsRivals,
    /// The loser of a conflict is replaced.
    MakesNoCopy,
    /// The later deletion wins against an edit that did not know of it.
    LetsDeletionsWin,
    /// Found counts are taken for edits.
    TakesFoundForEdits,
    /// What is older only by what was found is replaced without a look at what it held.
    IgnoresLists,
    /// Metadata comes with the content.
    MovesMetadata,
}

/// What was decided so far.
#[derive(Default)]
pub struct World {
    mistake: Option<Mistake>,
    steps: HashMap<(u8, u8, Item, Item), Step, Fast>,
    deletions: HashMap<(u8, Item), Item, Fast>,
}

impl Item {
    pub fn is_live(&self) -> bool {
        self.content != NOTHING
    }

    pub fn includes(&self, slot: u8, count: u8) -> bool {
        self.version[usize::from(slot)] >= count
    }

    pub fn includes_all(&self, other: &Item) -> bool {
        self.version.iter().zip(other.version).all(|(ours, theirs)| *ours >= theirs)
    }

    pub fn same_state(&self, other: &Item) -> bool {
        (self.content, self.variant, self.author) == (other.content, other.variant, other.author)
    }

    /// The mtime variant that the disk shows.
    pub fn disk_variant(&self) -> u8 {
        if self.meta.touched != 0 && self.meta.touched_on == self.content { self.meta.touched } else { self.variant }
    }

    /// The mode that the disk shows; 0 is what files are made with.
    pub fn disk_mode(&self) -> u8 {
        if self.meta.on_directory == (self.content == DIRECTORY) { self.meta.mode } else { 0 }
    }
}

pub fn bit(content: u8) -> u32 {
    if content == NOTHING { 0 } else { 1 << content }
}

impl World {
    pub fn new(mistake: Option<Mistake>) -> Self {
        Self { mistake, ..Self::default() }
    }

    /// What the real rule makes of a rival, on the device whose present epoch is `slot`.
    pub fn step(&mut self, slot: u8, found: u8, ours: &Item, rival: &Item) -> Step {
        let key = (slot, found, *ours, *rival);
        *self.steps.entry(key).or_insert_with(|| decided(slot, found, ours, rival, self.mistake))
    }

    /// The tombstone that an item becomes.
    pub fn deleted(&mut self, slot: u8, ours: &Item) -> Item {
        let key = (slot, *ours);
        *self.deletions.entry(key).or_insert_with(|| {
            let entry = entry_of(ours);
            item_of(&deleted(&entry, epoch(slot), entry.version.get(epoch(slot)) + 1))
        })
    }
}

fn decided(slot: u8, found: u8, ours: &Item, rival: &Item, mistake: Option<Mistake>) -> Step {
    let is_mistaken = |it| mistake == Some(it);
    let found = if is_mistaken(Mistake::TakesFoundForEdits) { 0 } else { found };
    let slots = (0..SLOTS as u8).filter(|slot| found & (1 << slot) != 0);
    let found = Found(slots.map(|slot| (epoch(slot), 1)).collect());
    let (mut ours, mut rival) = (entry_of(ours), entry_of(rival));
    if is_mistaken(Mistake::IgnoresLists) {
        let all = || (1..=DIRECTORY).map(content_id).collect();
        (ours.superseded, rival.superseded) = (all(), all());
    }
    let count = ours.version.get(epoch(slot)) + 1;
    let mut decision = decide(&ours, &rival, &found);
    if decision == Decision::Wait && is_mistaken(Mistake::JoinsEagerly) {
        decision = Decision::Join;
    }
    if decision == Decision::Keep && is_mistaken(Mistake::LetsDeletionsWin) {
        decision = Decision::Resolve { copy: false };
    }
    let mut new = match decision {
        Decision::Forget | Decision::Wait => {
            let mut entry = ours.clone();
            merge_meta(&mut entry, &rival);
            entry
        }
        Decision::Take => taken(&ours, &rival),
        Decision::Join => joined(&ours, &rival),
        Decision::Keep => resolved(&ours, &rival, false, epoch(slot), count),
        Decision::Resolve { .. } => resolved(&ours, &rival, true, epoch(slot), count),
    };
    let is_resolved = matches!(decision, Decision::Resolve { .. });
    if is_resolved && is_mistaken(Mistake::ResolvesWithoutEvent) {
        new.version = ours.version.join(&rival.version);
    }
    if decision == Decision::Take && is_mistaken(Mistake::MovesMetadata) {
        new.meta = rival.meta.clone();
    }
    if is_mistaken(Mistake::IgnoresLists) {
        new.superseded.clear();
    }
    let makes_copy = decision == (Decision::Resolve { copy: true }) && !ours.kind.is_directory();
    Step {
        item: item_of(&new),
        makes_copy: makes_copy && !is_mistaken(Mistake::MakesNoCopy),
        is_event: decision == Decision::Keep || is_resolved,
        is_settled: is_settled(&ours, &rival, &found) || is_mistaken(Mistake::ForgetsRivals),
    }
}

fn epoch(slot: u8) -> EpochId {
    EpochId(u64::from(slot) + 1)
}

fn content_id(content: u8) -> ContentId {
    if content == DIRECTORY { ContentId::default() } else { ContentId([content; 32]) }
}

fn content_of(id: ContentId) -> u8 {
    if id == ContentId::default() { DIRECTORY } else { id.0[0] }
}

fn mtime(content: u8, variant: u8) -> i64 {
    if content == DIRECTORY { 0 } else { i64::from(content) * 100 + i64::from(variant) }
}

fn entry_of(item: &Item) -> Entry {
    let path = RelPath::parse(b"x").expect("a valid path");
    let kind = match item.content {
        NOTHING => Kind::Deleted,
        DIRECTORY => Kind::Directory,
        content => Kind::File(Content { id: content_id(content), depth: 0, size: 1 }),
    };
    let meta = &item.meta;
    let on = if meta.on_directory { DiskKind::Directory } else { DiskKind::File };
    let touched = (mtime(meta.touched_on, meta.touched), content_id(meta.touched_on));
    let mtime_ns = mtime(item.content, item.variant);
    let counts = item.version.iter().enumerate().filter(|(_, count)| **count > 0);
    let pairs = counts.map(|(slot, count)| (epoch(slot as u8), u64::from(*count))).collect();
    Entry {
        kind,
        mtime_ns,
        weight_ns: mtime_ns,
        version: VersionVector::from_pairs(pairs).expect("a valid version"),
        author: DeviceId([item.author; 32]),
        superseded: (1..=DIRECTORY).filter(|c| item.superseded & bit(*c) != 0).map(content_id).collect(),
        meta: Meta {
            stamp: Stamp { count: meta.count.into(), epoch: EpochId(meta.epoch.into()) },
            mode: (meta.mode != 0).then_some((on, meta.mode.into())),
            touched: (meta.touched != 0).then_some(touched),
        },
        ..Entry::nothing(path)
    }
}

fn item_of(entry: &Entry) -> Item {
    let content = entry.kind.content_id().map_or(NOTHING, content_of);
    let mut version = [0; SLOTS];
    for (epoch, count) in entry.version.pairs() {
        version[epoch.0 as usize - 1] = *count as u8;
    }
    let meta = &entry.meta;
    let (touched, touched_on) = meta.touched.map_or((0, 0), |(mtime_ns, id)| ((mtime_ns % 100) as u8, content_of(id)));
    // The list is a set here: it is never so long that its order would matter.
    assert!(entry.superseded.len() < p2psync::core::entry::SUPERSEDED_MAX, "too many contents for a trial");
    Item {
        content,
        variant: if content == DIRECTORY || content == NOTHING { 0 } else { (entry.mtime_ns % 100) as u8 },
        // Who deleted or made a directory is nobody's concern.
        author: if content == DIRECTORY || content == NOTHING { 0 } else { entry.author.0[0] },
        version,
        superseded: entry.superseded.iter().fold(0, |all, id| all | bit(content_of(*id))),
        meta: Register {
            count: meta.stamp.count as u8,
            epoch: meta.stamp.epoch.0 as u8,
            mode: meta.mode.map_or(0, |(_, mode)| mode as u8),
            on_directory: meta.mode.is_some_and(|(on, _)| on == DiskKind::Directory),
            touched,
            touched_on,
        },
    }
}
