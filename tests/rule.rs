//! The rule of `core::decide`, tried exhaustively: a few devices, one path, a few operations of their users, and every
//! interleaving of these with what the devices hear of each other.
//!
//! As in the protocol, a device is handed the *current* entry of another, not every version on the way, remembers it
//! as a rival while it is not settled, and may act on any rival at any time, or late: bytes take their time. At rest
//! all devices must hold the same state, version and metadata; nothing that was ever written may be gone except what
//! its own users replaced or deleted; and nothing that was deleted may be back, unless in the midst of a conflict.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use p2psync::core::content::{Content, ContentId};
use p2psync::core::decide::{Decision, Found, decide, deleted, is_settled, joined, merge_meta, resolved, taken};
use p2psync::core::entry::{Entry, Kind, Meta, Stamp};
use p2psync::core::id::{DeviceId, EpochId};
use p2psync::core::path::RelPath;
use p2psync::core::version::VersionVector;

/// Most devices and operations of one configuration: states have a fixed size.
const DEVICES_MAX: usize = 3;
const OPS_MAX: usize = 4;
const NO_RIVAL: u16 = u16::MAX;
/// Stands for "no content" among the numbers of contents.
const NO_CONTENT: u8 = u8::MAX;
/// Numbers of contents: per operation a small and a great one, one that all write, and a directory.
const SAME: u8 = 20;
const DIRECTORY: u8 = 30;

/// What users, and misfortune, may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    /// Writes a content that loses against all earlier ones of its kind.
    WriteSmall,
    /// Writes a content that wins.
    WriteGreat,
    /// Writes the same content as everyone else who does this, at another time.
    WriteSame,
    /// Puts there a file of the same content and mtime as everyone else who does this.
    CopySame,
    MakeDirectory,
    Delete,
    ChangeMode,
    /// The index is lost and the disk scanned anew.
    LoseIndex,
}

/// What the devices hold when the trial begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Empty,
    /// The same content and mtime found everywhere by a first scan.
    FoundSame,
    /// The same content with another mtime found on every device.
    FoundTouched,
    /// Another content found on every device.
    FoundOther,
    /// One content on all devices, known to all.
    InSync,
}

#[derive(Debug)]
struct Trial {
    devices: usize,
    ops: usize,
    start: Start,
    allowed: &'static [Op],
    /// True: only the first device has a user, only the others lose their index. Then what the first holds is what
    /// all must hold in the end, without a single conflict copy.
    has_one_user: bool,
    /// False: a device acts on rivals as soon as it can, which makes for far fewer states.
    may_act_late: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Device {
    entry: u16,
    rivals: [u16; DEVICES_MAX],
    /// Contents that became conflict copies here, as bits.
    copies: u32,
    /// How many indexes were lost.
    lost: u8,
}

/// A content that a user wrote, and the event that says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Written {
    content: u8,
    epoch: u8,
    count: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    devices: [Device; DEVICES_MAX],
    /// Bit `from * DEVICES_MAX + to`: `to` has not heard the current entry of `from`.
    unheard: u16,
    ops: u8,
    written: [Written; OPS_MAX + DEVICES_MAX],
    /// True where a conflict was resolved by an event.
    is_resolved: bool,
    /// Which of `written` its users replaced or deleted, knowing it.
    replaced: u8,
}

/// All entries met so far, and what became of pairs of them: states hold numbers of entries.
struct World {
    entries: Vec<Entry>,
    numbers: HashMap<String, u16>,
    /// By epoch, ours and rival.
    steps: HashMap<(u8, u16, u16), Step, Fast>,
    found: Found,
}

/// What a device makes of a rival.
#[derive(Clone, Copy)]
struct Step {
    /// Its new entry.
    entry: u16,
    /// The content that becomes a conflict copy.
    copy: u8,
    is_event: bool,
    /// True where the rival says nothing that ours does not.
    is_settled: bool,
}

type Fast = BuildHasherDefault<FastHasher>;

/// Multiply and rotate: what is hashed here is small and no one is hostile.
#[derive(Default)]
struct FastHasher(u64);

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// What a trial came to.
#[derive(Debug, Default)]
struct Outcome {
    states: usize,
    at_rest: usize,
}

impl Trial {
    /// Tries every interleaving. Panics with the history of the first one that ends badly.
    fn run(&self) -> Outcome {
        let mut world = World::new();
        let start = self.start(&mut world);
        let mut seen: HashSet<State, Fast> = HashSet::default();
        let mut stack = vec![(start, 0usize)];
        let mut history: Vec<State> = Vec::new();
        let mut outcome = Outcome::default();
        seen.insert(start);
        while let Some((state, depth)) = stack.pop() {
            history.truncate(depth);
            history.push(state);
            let next = self.successors(&mut world, &state);
            let is_at_rest = state.unheard == 0 && !next.iter().any(|(_, is_op)| !is_op);
            outcome.at_rest += usize::from(is_at_rest);
            let checked = self.check_versions(&world, &state);
            let checked = if is_at_rest { checked.and_then(|()| self.check(&world, &state)) } else { checked };
            if let Err(fault) = checked {
                panic!("{fault}\n{}", self.tell(&world, &history));
            }
            for (state, _) in next {
                if seen.insert(state) {
                    stack.push((state, depth + 1));
                }
            }
        }
        outcome.states = seen.len();
        outcome
    }

    fn start(&self, world: &mut World) -> State {
        let empty = world.number(&nothing());
        let device = Device { entry: empty, rivals: [NO_RIVAL; DEVICES_MAX], copies: 0, lost: 0 };
        let devices = [device; DEVICES_MAX];
        let mut state =
            State { devices, unheard: 0, ops: 0, written: Default::default(), is_resolved: false, replaced: 0 };
        for at in 0..self.devices {
            let (content, epoch) = match self.start {
                Start::Empty => continue,
                Start::FoundSame | Start::FoundTouched => (SAME, epoch_of(at, 0)),
                Start::FoundOther => (10 + OPS_MAX as u8 + at as u8, epoch_of(at, 0)),
                Start::InSync => (SAME, epoch_of(0, 0)),
            };
            let later = if self.start == Start::FoundTouched { at as u8 } else { 0 };
            let mtime = weight(content, later);
            let author = if self.start == Start::InSync { author(0) } else { DeviceId::NONE };
            let version = VersionVector::new().with(EpochId(epoch.into()), 1);
            state.devices[at].entry = world.number(&file(content, mtime, author, version, &nothing()));
            state.written[OPS_MAX + at] = Written { content, epoch, count: 1 };
            if self.start != Start::InSync {
                world.found.0.insert(EpochId(epoch.into()), 1);
                state.unheard |= self.all_from(at);
            }
        }
        state
    }

    /// Bits of what the others have not heard of a device.
    fn all_from(&self, from: usize) -> u16 {
        (0..self.devices).filter(|to| *to != from).map(|to| 1 << (from * DEVICES_MAX + to)).sum()
    }

    /// Every state that may come next, with whether a user's operation leads to it.
    fn successors(&self, world: &mut World, state: &State) -> Vec<(State, bool)> {
        let mut next = Vec::new();
        for at in 0..self.devices {
            for peer in (0..self.devices).filter(|peer| *peer != at) {
                let bit = 1 << (peer * DEVICES_MAX + at);
                if state.unheard & bit != 0 {
                    let mut heard = *state;
                    heard.unheard &= !bit;
                    heard.devices[at].rivals[peer] = state.devices[peer].entry;
                    self.settle(world, &mut heard, at);
                    next.push((heard, false));
                }
                let mut acted = *state;
                if self.may_act_late && self.act(world, &mut acted, at, peer) {
                    next.push((acted, false));
                }
            }
            if usize::from(state.ops) < self.ops {
                for op in self.allowed {
                    if self.has_one_user && (at == 0) == (*op == Op::LoseIndex) {
                        continue;
                    }
                    let mut done = *state;
                    if self.operate(world, &mut done, at, *op) {
                        done.ops += 1;
                        next.push((done, true));
                    }
                }
            }
        }
        next
    }

    /// A user's operation on a device; false where there is nothing to do it to.
    fn operate(&self, world: &mut World, state: &mut State, at: usize, op: Op) -> bool {
        if op == Op::LoseIndex {
            return self.lose_index(world, state, at);
        }
        let ours = world.entries[usize::from(state.devices[at].entry)].clone();
        let epoch = epoch_of(at, state.devices[at].lost);
        let count = ours.version.get(EpochId(epoch.into())) + 1;
        let version = ours.version.clone().with(EpochId(epoch.into()), count);
        let (content, mtime) = match op {
            Op::WriteSmall => (state.ops, weight(state.ops, 0)),
            Op::WriteGreat => (10 + state.ops, weight(10 + state.ops, 0)),
            Op::WriteSame => (SAME, weight(SAME, state.ops + 1)),
            Op::CopySame => (SAME, weight(SAME, 0)),
            Op::MakeDirectory => (DIRECTORY, 0),
            Op::Delete | Op::ChangeMode | Op::LoseIndex => (NO_CONTENT, 0),
        };
        let new = match op {
            Op::Delete if ours.is_live() => deleted(&ours, EpochId(epoch.into()), count),
            Op::ChangeMode if ours.is_live() => {
                let stamp = Stamp { count: ours.meta.stamp.count + 1, epoch: EpochId(epoch.into()) };
                let mode = ours.kind.disk_kind().map(|kind| (kind, 0o700 + u32::from(state.ops)));
                Entry { meta: Meta { stamp, mode, touched: None }, ..ours.clone() }
            }
            Op::Delete | Op::ChangeMode => return false,
            Op::MakeDirectory if ours.kind.is_directory() => return false,
            _ if content == content_of(&ours) && mtime == ours.mtime_ns => return false,
            _ => file(content, mtime, author(at), version, &ours),
        };
        if op != Op::ChangeMode {
            self.mark_replaced(world, state, at);
        }
        if content != NO_CONTENT {
            state.written[usize::from(state.ops)] = Written { content, epoch, count: count as u8 };
        }
        state.devices[at].entry = world.number(&new);
        state.unheard |= self.all_from(at);
        self.settle(world, state, at);
        true
    }

    /// The user of a device replaces what it holds: all writes of that content which its version includes.
    fn mark_replaced(&self, world: &World, state: &mut State, at: usize) {
        let ours = &world.entries[usize::from(state.devices[at].entry)];
        // After a first scan the version does not say which writes the bytes at hand came from.
        let knows_all =
            self.allowed.contains(&Op::LoseIndex) || matches!(self.start, Start::FoundSame | Start::FoundTouched);
        for (bit, written) in state.written.iter().enumerate() {
            let is_included = ours.version.get(EpochId(written.epoch.into())) >= u64::from(written.count);
            if written.count > 0 && written.content == content_of(ours) && (is_included || knows_all) {
                state.replaced |= 1 << bit;
            }
        }
    }

    /// A fresh index finds what is on the disk, and the device and its peers tell each other everything anew.
    fn lose_index(&self, world: &mut World, state: &mut State, at: usize) -> bool {
        let ours = world.entries[usize::from(state.devices[at].entry)].clone();
        let device = &mut state.devices[at];
        device.lost += 1;
        device.rivals = [NO_RIVAL; DEVICES_MAX];
        let epoch = EpochId(epoch_of(at, device.lost).into());
        world.found.0.insert(epoch, 1);
        let meta = Meta { stamp: Stamp { count: 0, epoch: EpochId(0) }, ..ours.meta.clone() };
        let fresh = match ours.kind {
            Kind::Deleted => nothing(),
            _ => Entry {
                author: DeviceId::NONE,
                version: VersionVector::new().with(epoch, 1),
                superseded: Vec::new(),
                meta,
                ..ours
            },
        };
        device.entry = world.number(&fresh);
        let to_it: u16 = (0..self.devices).filter(|p| *p != at).map(|p| 1 << (p * DEVICES_MAX + at)).sum();
        state.unheard |= self.all_from(at) | to_it;
        true
    }

    /// Drops settled rivals; where devices act at once, acts on the others until nothing changes.
    fn settle(&self, world: &mut World, state: &mut State, at: usize) {
        while !self.may_act_late && (0..self.devices).any(|peer| self.act(world, state, at, peer)) {}
        for peer in 0..self.devices {
            let device = &mut state.devices[at];
            let rival = device.rivals[peer];
            if rival != NO_RIVAL && world.step(epoch_of(at, device.lost), device.entry, rival).is_settled {
                device.rivals[peer] = NO_RIVAL;
            }
        }
    }

    /// Acts on the rival of one peer; false where there is nothing to do.
    fn act(&self, world: &mut World, state: &mut State, at: usize, peer: usize) -> bool {
        let device = &mut state.devices[at];
        let rival = device.rivals[peer];
        if rival == NO_RIVAL {
            return false;
        }
        let step = world.step(epoch_of(at, device.lost), device.entry, rival);
        if step.entry == device.entry {
            return false;
        }
        device.entry = step.entry;
        if step.copy != NO_CONTENT {
            device.copies |= 1 << step.copy;
        }
        state.is_resolved |= step.is_event;
        state.unheard |= self.all_from(at);
        if self.may_act_late {
            self.settle(world, state, at);
        }
        true
    }

    /// What must hold always: a version names one state.
    fn check_versions(&self, world: &World, state: &State) -> Result<(), String> {
        let numbers = state.devices[..self.devices].iter().map(|device| device.entry);
        for (at, number) in numbers.clone().enumerate() {
            for other in numbers.clone().skip(at + 1).filter(|other| *other != number) {
                let (a, b) = (&world.entries[usize::from(number)], &world.entries[usize::from(other)]);
                if a.version == b.version && !a.same_state(b) {
                    return Err("one version, two states".to_owned());
                }
            }
        }
        Ok(())
    }

    /// What must hold when nothing is left to do.
    fn check(&self, world: &World, state: &State) -> Result<(), String> {
        let held: Vec<&Entry> =
            state.devices[..self.devices].iter().map(|d| &world.entries[usize::from(d.entry)]).collect();
        for entry in &held[1..] {
            if !entry.same_state(held[0]) || entry.version != held[0].version || entry.meta != held[0].meta {
                return Err("the devices differ".to_owned());
            }
        }
        let copies = state.devices.iter().fold(0, |all, d| all | d.copies);
        let live = content_of(held[0]);
        let mut is_live_wanted = live == NO_CONTENT;
        for (bit, written) in state.written.iter().enumerate().filter(|(_, w)| w.count > 0) {
            let is_replaced = state.replaced & 1 << bit != 0;
            let is_here = written.content == live || copies & 1 << written.content != 0;
            if !is_replaced && !is_here {
                return Err(format!("content {} of operation {bit} is lost", written.content));
            }
            is_live_wanted |= written.content == live && !is_replaced;
        }
        if self.has_one_user && (copies != 0 || !is_live_wanted) {
            return Err("one user's work came into conflict with itself".to_owned());
        }
        // The resolution of a conflict is an event and beats a deletion that did not know of it: what is deleted in
        // the midst of a conflict may be back. So may what is deleted before a lost index has heard from anyone.
        let may_be_back = state.is_resolved || self.allowed.contains(&Op::LoseIndex);
        if is_live_wanted || may_be_back { Ok(()) } else { Err(format!("content {live} is back from the dead")) }
    }

    fn tell(&self, world: &World, history: &[State]) -> String {
        let mut told = String::new();
        for state in history {
            told += &format!(
                "after {} operations, replaced {:b}, unheard {:b}\n",
                state.ops, state.replaced, state.unheard
            );
            for device in &state.devices[..self.devices] {
                let rivals = device.rivals[..self.devices].iter().filter(|r| **r != NO_RIVAL);
                let rivals: Vec<String> = rivals.map(|r| world.tell(*r)).collect();
                told += &format!("    {} copies {:b} rivals {rivals:?}\n", world.tell(device.entry), device.copies);
            }
        }
        told
    }
}

impl World {
    fn new() -> Self {
        Self { entries: Vec::new(), numbers: HashMap::new(), steps: HashMap::default(), found: Found::default() }
    }

    fn number(&mut self, entry: &Entry) -> u16 {
        let key = format!("{entry:?}");
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = u16::try_from(self.entries.len()).ok().filter(|n| *n != NO_RIVAL).expect("few enough entries");
        self.entries.push(entry.clone());
        self.numbers.insert(key, number);
        number
    }

    fn step(&mut self, epoch: u8, ours_number: u16, rival_number: u16) -> Step {
        if let Some(step) = self.steps.get(&(epoch, ours_number, rival_number)) {
            return *step;
        }
        let ours = self.entries[usize::from(ours_number)].clone();
        let rival = self.entries[usize::from(rival_number)].clone();
        let (epoch_id, mut copy) = (EpochId(epoch.into()), NO_CONTENT);
        let count = ours.version.get(epoch_id) + 1;
        let decision = decide(&ours, &rival, &self.found);
        let new = match decision {
            Decision::Forget | Decision::Wait => {
                let mut entry = ours.clone();
                merge_meta(&mut entry, &rival);
                entry
            }
            Decision::Take => taken(&ours, &rival),
            Decision::Join => joined(&ours, &rival),
            Decision::Keep => resolved(&ours, &rival, false, epoch_id, count),
            Decision::Resolve { copy: makes_copy } => {
                copy = if makes_copy { content_of(&ours) } else { NO_CONTENT };
                resolved(&ours, &rival, true, epoch_id, count)
            }
        };
        let is_event = matches!(decision, Decision::Keep | Decision::Resolve { .. });
        let step =
            Step { entry: self.number(&new), copy, is_event, is_settled: is_settled(&ours, &rival, &self.found) };
        self.steps.insert((epoch, ours_number, rival_number), step);
        step
    }

    fn tell(&self, number: u16) -> String {
        let entry = &self.entries[usize::from(number)];
        let pairs: Vec<String> = entry.version.pairs().iter().map(|(e, c)| format!("{}:{c}", e.0)).collect();
        let lists: Vec<u8> = entry.superseded.iter().map(|id| number_of(*id)).collect();
        let (content, mtime) = (content_of(entry), entry.mtime_ns);
        format!(
            "#{content} at {mtime} by {:?} [{}] after {lists:?} {:?}",
            entry.author,
            pairs.join(" "),
            entry.meta.stamp
        )
    }
}

fn nothing() -> Entry {
    Entry::nothing(RelPath::parse(b"x").expect("a valid path"))
}

fn author(at: usize) -> DeviceId {
    DeviceId([at as u8 + 1; 32])
}

/// Epochs of a device, one for each index it had.
fn epoch_of(at: usize, lost: u8) -> u8 {
    at as u8 * 10 + lost + 1
}

/// The mtime that goes with a content: great contents win, small ones lose, all the more the later they were written.
fn weight(content: u8, later: u8) -> i64 {
    match content {
        0..10 => 50 + i64::from(content),
        10..20 => 150 - i64::from(content),
        _ => 100 + i64::from(later),
    }
}

/// The entry of a file (or directory) that replaces `old`.
fn file(content: u8, mtime_ns: i64, author: DeviceId, version: VersionVector, old: &Entry) -> Entry {
    let (kind, author) = match content {
        DIRECTORY => (Kind::Directory, DeviceId::NONE),
        _ => (Kind::File(Content { id: ContentId([content + 1; 32]), depth: 0, size: 1 }), author),
    };
    let mut new = Entry { kind, mtime_ns, weight_ns: mtime_ns, author, version, ..old.clone() };
    let replaced: Vec<ContentId> = old.kind.content_id().into_iter().collect();
    new.superseded = new.superseded_with(&replaced);
    new
}

fn content_of(entry: &Entry) -> u8 {
    entry.kind.content_id().map_or(NO_CONTENT, number_of)
}

fn number_of(id: ContentId) -> u8 {
    if id == ContentId::default() { DIRECTORY } else { id.0[0] - 1 }
}

const WRITES: &[Op] = &[Op::WriteSmall, Op::WriteGreat, Op::Delete];

fn run(devices: usize, ops: usize, start: Start, allowed: &'static [Op], may_act_late: bool) {
    report(&Trial { devices, ops, start, allowed, has_one_user: false, may_act_late });
}

fn run_one_user(devices: usize, ops: usize, start: Start, allowed: &'static [Op]) {
    report(&Trial { devices, ops, start, allowed, has_one_user: true, may_act_late: true });
}

fn report(trial: &Trial) {
    let outcome = trial.run();
    println!("{trial:?}: {outcome:?}");
    assert!(outcome.at_rest > 1);
}

const ALL: &[Op] =
    &[Op::WriteSmall, Op::WriteGreat, Op::WriteSame, Op::CopySame, Op::MakeDirectory, Op::Delete, Op::ChangeMode];
const ALL_AND_LOSSES: &[Op] = &[
    Op::WriteSmall,
    Op::WriteGreat,
    Op::WriteSame,
    Op::CopySame,
    Op::MakeDirectory,
    Op::Delete,
    Op::ChangeMode,
    Op::LoseIndex,
];
const LOSSES: &[Op] = &[Op::WriteGreat, Op::WriteSmall, Op::Delete, Op::LoseIndex];

#[test]
fn two_devices_lose_nothing_and_end_alike() {
    run(2, 3, Start::Empty, WRITES, true);
    run(2, 3, Start::InSync, WRITES, true);
}

#[test]
fn three_devices_lose_nothing_and_end_alike() {
    run(3, 2, Start::Empty, WRITES, true);
    run(3, 2, Start::InSync, WRITES, false);
}

#[test]
fn the_same_content_directories_and_metadata_end_alike_too() {
    run(2, 3, Start::Empty, ALL, false);
    run(2, 2, Start::InSync, ALL, true);
    run(3, 2, Start::Empty, ALL, false);
}

#[test]
fn files_found_by_first_scans_end_alike() {
    run(2, 2, Start::FoundSame, WRITES, true);
    run(2, 2, Start::FoundTouched, WRITES, true);
    run(2, 2, Start::FoundOther, WRITES, true);
    run(3, 1, Start::FoundSame, WRITES, false);
    run(3, 1, Start::FoundOther, WRITES, false);
}

#[test]
fn a_lost_index_loses_nothing() {
    run(2, 3, Start::InSync, LOSSES, true);
    run(3, 2, Start::InSync, LOSSES, false);
}

#[test]
fn one_users_work_never_conflicts_with_a_lost_or_new_index() {
    run_one_user(2, 4, Start::InSync, LOSSES);
    run_one_user(2, 4, Start::FoundSame, LOSSES);
    // A third device that has lost its index may meet a stale one first, and then neither can know which is older.
    run_one_user(3, 1, Start::FoundSame, WRITES);
    run_one_user(3, 2, Start::InSync, WRITES);
}

#[test]
#[ignore = "takes minutes"]
fn larger_trials_of_the_rule() {
    run(2, 4, Start::Empty, WRITES, true);
    run(2, 4, Start::InSync, WRITES, true);
    run(2, 4, Start::Empty, ALL, false);
    run(3, 2, Start::Empty, ALL, true);
    run(3, 2, Start::FoundSame, WRITES, false);
    run_one_user(2, 4, Start::InSync, ALL_AND_LOSSES);
    run_one_user(3, 2, Start::FoundSame, WRITES);
}

#[test]
#[ignore = "takes hours and gigabytes"]
fn the_largest_trial_of_the_rule() {
    run(3, 3, Start::Empty, WRITES, false);
}
