//! Runs that are aimed: each is about one kind of trouble, on a few names, so that what belongs together meets.

use super::plan::{Event, Mode, NAMES, OddDisk, Operation, Plan, act_of};
use super::random::Random;

/// From this seed on runs are aimed.
pub const AIMED_FROM: u64 = 2_000_000_000;

/// Names in a run at most.
const NAMES_MAX: usize = 3;
/// Operations of a run at most and at least, after those that make what it is about.
const OPERATIONS: (usize, usize) = (3, 11);
/// Steps of the world between two operations at most.
const STEPS_MAX: usize = 40;
/// Steps after the first files were made: mostly enough for all to have them.
const STEPS_FIRST: usize = 120;

/// What is special in an aimed run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Aim {
    /// It is one of these runs.
    pub is_aimed: bool,
    /// Users who come in between act on what the agent is about to touch.
    pub is_close: bool,
    /// Of a hundred contents from peers, how many are not what they should be.
    pub lies: usize,
    /// What users wrote and did not sync may be lost with the power.
    pub loses_unsynced: bool,
    /// Nobody asks for a scan in the end, nor is it waited for the regular one: what the watch tells has to be enough.
    pub is_prompt: bool,
    /// A few deletions are held until somebody confirms them.
    pub is_guarded: bool,
    /// Rules are on trial.
    pub has_rules: bool,
    /// It is looked at whether the winner of a conflict has a copy too.
    pub has_conflicts: bool,
    /// It is looked at closely what becomes of files that programs still write to when they are displaced.
    pub has_late_writers: bool,
}

/// Kinds of acts, as `plan::act_of` numbers them.
struct Theme {
    /// What happens once all have the first files.
    begins: Event,
    acts: &'static [usize],
    events: &'static [Event],
    /// Of a hundred operations, how many are events.
    event_percent: usize,
    meddling: &'static [usize],
    aim: Aim,
}

const SAVE: usize = 0;
const IN_PLACE: usize = 1;
const APPEND: usize = 3;
const DELETE: usize = 6;
const DELETE_TREE: usize = 7;
const RENAME: usize = 8;
const SWAP: usize = 9;
const COPY: usize = 10;
const DIRECTORY: usize = 11;
const DIRECTORY_OVER: usize = 12;
const FILE_OVER: usize = 13;
const CHMOD: usize = 14;
const TOUCH: usize = 15;
const LINK: usize = 16;
const CHANGE_CASE: usize = 18;
const CHECKOUT: usize = 20;
const EDIT_COPY: usize = 21;
const WRITE_LATER: usize = 23;
const IGNORE: usize = 24;

const NO_AIM: Aim = Aim {
    is_aimed: true,
    is_close: false,
    lies: 0,
    loses_unsynced: false,
    is_prompt: false,
    is_guarded: false,
    has_late_writers: false,
    has_rules: false,
    has_conflicts: false,
};

const THEMES: [Theme; 8] = [
    // Races on one name, cut off in the middle.
    Theme {
        begins: Event::Nothing,
        acts: &[
            SAVE,
            SAVE,
            IN_PLACE,
            APPEND,
            DELETE,
            RENAME,
            SWAP,
            DIRECTORY_OVER,
            FILE_OVER,
            WRITE_LATER,
            WRITE_LATER,
        ],
        events: &[Event::Kill, Event::KillAtWork, Event::KillAtWork, Event::CleanRestart],
        event_percent: 25,
        meddling: &[2, 5, 10, 20],
        aim: Aim { is_close: true, has_late_writers: true, ..NO_AIM },
    },
    // Indexes that are lost, damaged or old.
    Theme {
        begins: Event::Nothing,
        acts: &[SAVE, SAVE, IN_PLACE, APPEND, DELETE, TOUCH, RENAME],
        events: &[
            Event::IndexSaved,
            Event::IndexSaved,
            Event::IndexRestored,
            Event::IndexRestored,
            Event::IndexLost,
            Event::IndexDamaged,
            Event::Stop,
            Event::Start,
            Event::Disconnect,
            Event::ConnectAll,
        ],
        event_percent: 55,
        meddling: &[0],
        aim: NO_AIM,
    },
    // Rules that come and go.
    Theme {
        begins: Event::Nothing,
        acts: &[IGNORE, IGNORE, SAVE, APPEND, DELETE, DIRECTORY, CHMOD],
        events: &[Event::CutInPieces, Event::ConnectAll, Event::Stop, Event::Start, Event::Kill],
        event_percent: 20,
        meddling: &[0],
        aim: Aim { has_rules: true, ..NO_AIM },
    },
    // Work on the same files at devices that do not hear of each other.
    Theme {
        begins: Event::CutInPieces,
        acts: &[SAVE, SAVE, IN_PLACE, APPEND, DELETE, DELETE, TOUCH, LINK, DIRECTORY_OVER, EDIT_COPY],
        events: &[
            Event::CutInPieces,
            Event::CutInPieces,
            Event::ConnectAll,
            Event::Partition,
            Event::Stop,
            Event::Start,
        ],
        event_percent: 15,
        meddling: &[0],
        aim: Aim { has_conflicts: true, ..NO_AIM },
    },
    // No trouble at all, but busy users: nothing that the watch tells may be forgotten.
    Theme {
        begins: Event::Nothing,
        acts: &[SAVE, IN_PLACE, APPEND, DELETE, RENAME, SWAP, COPY, DIRECTORY, DIRECTORY_OVER, FILE_OVER, CHMOD],
        events: &[Event::Nothing],
        event_percent: 5,
        meddling: &[2, 5, 10],
        aim: Aim { is_close: true, is_prompt: true, ..NO_AIM },
    },
    // Power cuts that take with them what users had not synced.
    Theme {
        begins: Event::Nothing,
        acts: &[SAVE, SAVE, IN_PLACE, APPEND, DELETE, RENAME, SWAP, DIRECTORY],
        events: &[Event::PowerCut, Event::PowerCutAtWork, Event::PowerCutAtWork, Event::Disconnect, Event::KillAtWork],
        event_percent: 35,
        meddling: &[0, 0, 5],
        aim: Aim { is_close: true, loses_unsynced: true, ..NO_AIM },
    },
    // Peers that give wrong bytes, and questions to the user.
    Theme {
        begins: Event::Nothing,
        acts: &[SAVE, SAVE, APPEND, DELETE, DELETE_TREE, CHECKOUT, RENAME, DIRECTORY],
        events: &[Event::Confirm, Event::Reject, Event::Disconnect, Event::Stop, Event::Start, Event::Kill],
        event_percent: 35,
        meddling: &[0],
        aim: Aim { lies: 30, is_guarded: true, ..NO_AIM },
    },
    // Names that one disk takes for the same.
    Theme {
        begins: Event::Nothing,
        acts: &[SAVE, SAVE, APPEND, DELETE, RENAME, CHANGE_CASE, CHANGE_CASE, DIRECTORY, DIRECTORY_OVER],
        events: &[Event::Disconnect, Event::ConnectAll, Event::Kill, Event::CleanRestart, Event::IndexLost],
        event_percent: 20,
        meddling: &[0, 0, 3],
        aim: Aim { is_close: true, ..NO_AIM },
    },
];

/// The run of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xa1);
    let at = (seed % THEMES.len() as u64) as usize;
    let theme = &THEMES[at];
    let may_be_alone = theme.meddling == [0] && !theme.aim.is_guarded && !theme.acts.contains(&IGNORE);
    let mode = match random.below(4) {
        0 if may_be_alone => Mode::OneUser,
        1 if may_be_alone => Mode::Walking,
        _ => Mode::Crowd,
    };
    let devices = *random.pick(&[2, 2, 2, 3]);
    let names: Vec<&'static str> = (0..=random.below(NAMES_MAX)).map(|_| *random.pick(&NAMES)).collect();
    let mut operations = Vec::new();
    if random.chance(80) {
        for name in &names {
            operations.push((0, Event::User(act_of(SAVE, name, name)), 0));
        }
        operations.push((0, Event::Nothing, STEPS_FIRST));
        operations.push((0, theme.begins, 0));
    }
    let (few, many) = OPERATIONS;
    for _ in 0..few + random.below(many - few) {
        let event = if random.chance(theme.event_percent) {
            *random.pick(theme.events)
        } else {
            let (name, other) = (*random.pick(&names), *random.pick(&names));
            Event::User(act_of(*random.pick(theme.acts), name, other))
        };
        let steps = if random.chance(40) { random.below(3) } else { random.below(STEPS_MAX) };
        operations.push((random.below(devices), event, steps));
    }
    let operations = operations.into_iter().enumerate().map(|(number, (device, event, steps))| Operation {
        number,
        device,
        event,
        steps,
        salt: random.next(),
    });
    let operations = operations.filter(|operation| super::plan::is_fair(mode, operation.event)).collect();
    let operations = super::plan::with_rules_below(seed, operations);
    let meddling = *random.pick(theme.meddling);
    let odd_disk = (at + 1 == THEMES.len()).then_some(OddDisk::FoldsCase);
    let has_small_chunks = super::plan::has_small_chunks(seed);
    Plan { seed, mode, devices, operations, meddling, odd_disk, has_small_chunks, aim: theme.aim, bug: None }
}
