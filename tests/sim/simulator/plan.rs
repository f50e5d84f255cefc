//! What happens in a run, as data: made from a seed, and cut down to what is needed once it fails.

use p2psync::sabotage::Bug;

use super::aimed::{self, AIMED_FROM, Aim};
use super::random::Random;

/// Operations of a run at most and at least.
const OPERATIONS: (usize, usize) = (5, 34);
/// Steps of the world between two operations at most.
const STEPS_MAX: usize = 70;
/// From this seed on runs are short: two or three devices and a handful of operations. Most mistakes need no more, and
/// ten such runs cost what one long one does.
pub const SHORT_FROM: u64 = 1_000_000_000;
/// Operations of a short run at most and at least.
const OPERATIONS_SHORT: (usize, usize) = (2, 8);
/// Steps of the world between two operations of a short run at most.
const STEPS_SHORT_MAX: usize = 25;

/// Paths that users work on: few, so that they meet, and such that files and directories get in each other's way.
pub const NAMES: [&str; 13] =
    ["a", "b", "c.txt", "d", "d/x", "d/y", "d/e", "d/e/z", "d/e/w", "f", "f/q", "long name \u{fc}", "f/q/deep"];

/// Who acts when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One user works at one device, whatever happens to all of them: nothing is ever concurrent, so what he left is
    /// what all end with, without a copy.
    OneUser,
    /// One user walks from device to device and goes on where he finds his last state: the same holds.
    Walking,
    /// A user at every device, all at once, also in the middle of what the agents do.
    Crowd,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub mode: Mode,
    pub devices: usize,
    pub operations: Vec<Operation>,
    /// Of a hundred disk operations of an agent, before how many a user acts.
    pub meddling: usize,
    /// A device whose disk folds case or has coarse times.
    pub odd_disk: Option<OddDisk>,
    /// Files are cut into chunks of some bytes, so that most have several.
    pub has_small_chunks: bool,
    /// What is special in it.
    pub aim: Aim,
    /// A mistake that is made on purpose.
    pub bug: Option<Bug>,
}

/// What a file system may lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OddDisk {
    FoldsCase,
    WholeSeconds,
    ReusesInodes,
}

/// Something that happens at a device, and how many steps the world does after it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number in the plan that it was made for; stays when others are cut out.
    pub number: usize,
    pub device: usize,
    pub event: Event,
    pub steps: usize,
    /// Where its own randomness begins, so that it does the same whatever else is cut out.
    pub salt: u64,
}

/// What users and fate do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    User(Act),
    /// The agent is killed and started again.
    Kill,
    /// The agent is killed in the middle of its next work on the disk.
    KillAtWork,
    /// Power fails; what was not synced may be lost.
    PowerCut,
    /// Power fails in the middle of the next work on the disk.
    PowerCutAtWork,
    CleanRestart,
    Stop,
    Start,
    Disconnect,
    CutInPieces,
    ConnectAll,
    Partition,
    IndexLost,
    IndexSaved,
    IndexRestored,
    /// A row of the index is damaged while the agent does not run.
    IndexDamaged,
    ClockForward,
    ClockBack,
    AYear,
    DiskFull,
    DiskFree,
    IoErrors,
    IoFine,
    EventsLost,
    EventsFine,
    Unmount,
    Mount,
    ReadOnly,
    Writable,
    Replaced,
    FullScan,
    Confirm,
    Reject,
    Nothing,
}

/// What a user does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A new file, or a new one in place of another, as most editors save: written aside, then renamed.
    Save(&'static str),
    /// The file is emptied and written again.
    SaveInPlace(&'static str),
    /// The old one is renamed to a backup, the new one written.
    SaveWithBackup(&'static str),
    Append(&'static str),
    /// Some bytes in the middle.
    Patch(&'static str),
    Truncate(&'static str),
    Delete(&'static str),
    DeleteTree(&'static str),
    Rename(&'static str, &'static str),
    Swap(&'static str, &'static str),
    Copy(&'static str, &'static str),
    MakeDirectory(&'static str),
    /// A directory in place of a file.
    DirectoryOver(&'static str),
    /// A file in place of a directory.
    FileOver(&'static str),
    Chmod(&'static str),
    Touch(&'static str),
    Link(&'static str),
    /// The same bytes on every device that does it.
    SaveSame(&'static str),
    /// A name that differs in case only.
    ChangeCase(&'static str),
    /// Files that come and go at once, as of a build.
    Build(&'static str),
    /// Another set of files, as after a checkout.
    Checkout,
    /// Edits a conflict copy, if there is one.
    EditConflictCopy,
    /// Deletes a conflict copy, if there is one.
    DeleteConflictCopy,
    /// Opens a file and goes on writing to it later, wherever it is then.
    WriteLater(&'static str),
    /// A rule that covers a name, or no rules.
    IgnoreRule(&'static str),
    /// The same in the directory that the name is in; or a rule that takes one from above back.
    IgnoreRuleBelow(&'static str),
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        if seed >= AIMED_FROM {
            return aimed::plan(seed);
        }
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let mode = match random.below(10) {
            0..=1 => Mode::OneUser,
            2..=3 => Mode::Walking,
            _ => Mode::Crowd,
        };
        let is_short = seed >= SHORT_FROM;
        let counts: &[usize] = if is_short { &[2, 2, 2, 3] } else { &[2, 2, 2, 3, 3, 3, 4, 4, 5, 6] };
        let devices = *random.pick(counts);
        let (few, many) = if is_short { OPERATIONS_SHORT } else { OPERATIONS };
        let steps_max = if is_short { STEPS_SHORT_MAX } else { STEPS_MAX };
        let count = few + random.below(many - few);
        // Each run knows only some of all that can happen: so things meet that otherwise drown in the rest.
        let acts: Vec<u32> =
            (0..ACTS).map(|_| if random.chance(50) { 1 + random.below(6) as u32 } else { 0 }).collect();
        let faults: Vec<Event> = FAULTS.iter().copied().filter(|_| random.chance(25)).collect();
        let fault_percent = if faults.is_empty() { 0 } else { random.below(60) };
        let operations: Vec<Operation> = (0..count)
            .map(|number| {
                let event = if random.chance(fault_percent) {
                    *random.pick(&faults)
                } else {
                    Event::User(any_act(&mut random, &acts))
                };
                let steps = if random.chance(20) { 0 } else { random.below(steps_max) };
                Operation { number, device: random.below(devices), event, steps, salt: random.next() }
            })
            .filter(|operation| is_fair(mode, operation.event))
            .collect();
        let operations = with_rules_below(seed, operations);
        let meddling = if mode == Mode::Crowd && random.chance(50) { 1 + random.below(20) } else { 0 };
        let odd_disk = match random.below(12) {
            0 => Some(OddDisk::WholeSeconds),
            1 => Some(OddDisk::ReusesInodes),
            2 if mode == Mode::Crowd => Some(OddDisk::FoldsCase),
            _ => None,
        };
        let (has_small_chunks, aim) = (has_small_chunks(seed), Aim::default());
        Self { seed, mode, devices, operations, meddling, odd_disk, has_small_chunks, aim, bug: None }
    }

    /// True where a power cut may come. Who says himself what happens may cut it at any time.
    pub fn loses_power(&self) -> bool {
        let is_cut = |o: &Operation| matches!(o.event, Event::PowerCut | Event::PowerCutAtWork);
        self.operations.is_empty() || self.operations.iter().any(is_cut)
    }

    /// Nothing but devices, for a test that says itself what happens.
    pub fn empty(devices: usize, odd_disk: Option<OddDisk>) -> Self {
        let (operations, aim) = (Vec::new(), Aim::default());
        let (mode, has_small_chunks) = (Mode::Crowd, false);
        Self { seed: 7, mode, devices, operations, meddling: 0, odd_disk, has_small_chunks, aim, bug: None }
    }
}

/// In every other run some of the rules are in the directories that they are about.
pub fn with_rules_below(seed: u64, mut operations: Vec<Operation>) -> Vec<Operation> {
    let mut random = Random(seed ^ 0x17e5);
    if random.chance(50) {
        for operation in &mut operations {
            if let Event::User(Act::IgnoreRule(name)) = operation.event
                && name.contains('/')
                && random.chance(70)
            {
                operation.event = Event::User(Act::IgnoreRuleBelow(name));
            }
        }
    }
    operations
}

/// True for every other run, whatever else is in it.
pub fn has_small_chunks(seed: u64) -> bool {
    Random(seed ^ 0xc4a2).chance(50)
}

/// Where nothing is concurrent, what a device alone has seen must not be taken from it.
pub fn is_fair(mode: Mode, event: Event) -> bool {
    let loses =
        matches!(event, Event::Replaced | Event::Reject | Event::IndexRestored | Event::User(Act::IgnoreRule(_)));
    mode == Mode::Crowd || !loses
}

const FAULTS: [Event; 30] = [
    Event::Kill,
    Event::KillAtWork,
    Event::PowerCut,
    Event::PowerCutAtWork,
    Event::CleanRestart,
    Event::Stop,
    Event::Start,
    Event::Disconnect,
    Event::CutInPieces,
    Event::ConnectAll,
    Event::Partition,
    Event::IndexLost,
    Event::IndexSaved,
    Event::IndexRestored,
    Event::ClockForward,
    Event::ClockBack,
    Event::AYear,
    Event::DiskFull,
    Event::DiskFree,
    Event::IoErrors,
    Event::IoFine,
    Event::EventsLost,
    Event::EventsFine,
    Event::Unmount,
    Event::Mount,
    Event::ReadOnly,
    Event::Writable,
    Event::Replaced,
    Event::FullScan,
    Event::Nothing,
];

const ACTS: usize = 25;

fn any_act(random: &mut Random, weights: &[u32]) -> Act {
    let total: u32 = weights.iter().sum();
    let mut at = random.below(total.max(1) as usize) as u32;
    let kind = weights.iter().position(|weight| {
        let is_it = at < *weight;
        at = at.saturating_sub(*weight);
        is_it
    });
    let (name, other) = (*random.pick(&NAMES), *random.pick(&NAMES));
    act_of(kind.unwrap_or(0), name, other)
}

/// The act of a kind, as the kinds are numbered.
pub fn act_of(kind: usize, name: &'static str, other: &'static str) -> Act {
    match kind {
        0 => Act::Save(name),
        1 => Act::SaveInPlace(name),
        2 => Act::SaveWithBackup(name),
        3 => Act::Append(name),
        4 => Act::Patch(name),
        5 => Act::Truncate(name),
        6 => Act::Delete(name),
        7 => Act::DeleteTree(name),
        8 => Act::Rename(name, other),
        9 => Act::Swap(name, other),
        10 => Act::Copy(name, other),
        11 => Act::MakeDirectory(name),
        12 => Act::DirectoryOver(name),
        13 => Act::FileOver(name),
        14 => Act::Chmod(name),
        15 => Act::Touch(name),
        16 => Act::Link(name),
        17 => Act::SaveSame(name),
        18 => Act::ChangeCase(name),
        19 => Act::Build(name),
        20 => Act::Checkout,
        21 => Act::EditConflictCopy,
        22 => Act::DeleteConflictCopy,
        23 => Act::WriteLater(name),
        _ => Act::IgnoreRule(name),
    }
}

/// What a user does between two calls of an agent.
pub fn any_meddling(random: &mut Random) -> Act {
    let (name, other) = (*random.pick(&NAMES), *random.pick(&NAMES));
    meddling_with(random, name, other)
}

/// The same with names that are chosen already.
pub fn meddling_with(random: &mut Random, name: &'static str, other: &'static str) -> Act {
    match random.below(12) {
        0..=2 => Act::Save(name),
        3 | 4 => Act::SaveInPlace(name),
        5 => Act::Append(name),
        6 => Act::Delete(name),
        7 => Act::Rename(name, other),
        8 => Act::Swap(name, other),
        9 => Act::DirectoryOver(name),
        10 => Act::FileOver(name),
        _ => Act::Chmod(name),
    }
}

/// Finds a short list of operations that still fails, by leaving out ever smaller pieces.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut kept = plan.clone();
    let mut piece = kept.operations.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut is_shorter) = (0, false);
        while at < kept.operations.len() {
            let mut less = kept.clone();
            let end = (at + piece).min(less.operations.len());
            less.operations.drain(at..end);
            if fails(&less) {
                (kept, is_shorter) = (less, true);
            } else {
                at += piece;
            }
        }
        match piece {
            1 if !is_shorter => break,
            1 => {}
            _ => piece = piece.div_ceil(2),
        }
    }
    // What happens in between is made as short as it can be too.
    for at in 0..kept.operations.len() {
        for steps in [0, 1, 3, 8, 20] {
            let mut less = kept.clone();
            if steps < less.operations[at].steps {
                less.operations[at].steps = steps;
                if fails(&less) {
                    kept = less;
                    break;
                }
            }
        }
    }
    kept
}
