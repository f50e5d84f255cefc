//! The rule of `core::decide`, tried exhaustively: a few devices, one path, a few operations of their users, and every
//! interleaving of these with what the devices hear of each other.
//!
//! As in the protocol, a device is handed the *current* entry of another, not every version on the way, remembers it
//! as a rival while it is not settled, and may act on any rival at any time, or late: bytes take their time. Whatever
//! happens, a version names one state and nothing that was written is gone except what its own users replaced or
//! deleted; nothing goes on for ever; and at rest all devices hold the same state, version and metadata, nothing that
//! was deleted is back, and there are conflict copies only where users worked at the same time, one of each loser.
//!
//! Outside of this: other paths (directories above, moves, where copies go), the disk, and what `sync` adds to the
//! decision, which `tests/sim` drives. All devices know at once which counts of a lost or new index mean "found".

mod hash;
mod item;
mod search;
mod state;
mod trial;

use item::Mistake;
use search::{Outcome, search};
use trial::{Op, Start, Trial};

const WRITES: &[Op] = &[Op::WriteSmall, Op::WriteGreat, Op::Delete];
const KINDS: &[Op] = &[Op::WriteSmall, Op::WriteGreat, Op::WriteSame, Op::MakeDirectory, Op::Delete];
const METADATA: &[Op] = &[Op::WriteGreat, Op::CopySame, Op::Delete, Op::ChangeMode, Op::Touch];
const LOSSES: &[Op] = &[Op::WriteSmall, Op::WriteGreat, Op::Delete, Op::LoseIndex];
const ALL: &[Op] = &[
    Op::WriteSmall,
    Op::WriteGreat,
    Op::WriteSame,
    Op::CopySame,
    Op::MakeDirectory,
    Op::Delete,
    Op::ChangeMode,
    Op::Touch,
];

const EVERYTHING: &[Op] = &[
    Op::WriteSmall,
    Op::WriteGreat,
    Op::WriteSame,
    Op::CopySame,
    Op::MakeDirectory,
    Op::Delete,
    Op::ChangeMode,
    Op::Touch,
    Op::LoseIndex,
];

fn all(devices: usize, ops: u8, start: Start, allowed: &'static [Op]) -> Trial {
    Trial { devices, ops, start, allowed, has_one_user: false, may_act_late: true }
}

/// As [`all`], but a device acts on what it hears at once: far fewer states.
fn soon(devices: usize, ops: u8, start: Start, allowed: &'static [Op]) -> Trial {
    Trial { may_act_late: false, ..all(devices, ops, start, allowed) }
}

fn one_user(devices: usize, ops: u8, start: Start, allowed: &'static [Op]) -> Trial {
    Trial { has_one_user: true, ..all(devices, ops, start, allowed) }
}

fn run(trials: &[Trial]) {
    for trial in trials {
        let begun = std::time::Instant::now();
        let outcome = search(trial, usize::MAX, None).unwrap_or_else(|fault| panic!("{trial:?}\n{fault}"));
        println!("{} {:.1?}", row(trial, &outcome), begun.elapsed());
        assert!(outcome.is_complete && outcome.at_rest > 1);
    }
}

/// What a trial came to, as a row of a table.
fn row(trial: &Trial, outcome: &Outcome) -> String {
    let Trial { devices, ops, start, allowed, has_one_user, may_act_late } = trial;
    let how = match (has_one_user, may_act_late) {
        (true, _) => "one user",
        (_, true) => "any time",
        (_, false) => "at once",
    };
    let Outcome { states, steps, at_rest, histories, is_complete } = outcome;
    let cut = if *is_complete { "" } else { " (cut off)" };
    format!(
        "| {devices} x {ops} | {start:?} | {allowed:?} | {how} | {states}{cut} | {steps} | {at_rest} | {histories:.1e} |"
    )
}

#[test]
fn two_devices_lose_nothing_and_end_alike() {
    run(&[all(2, 4, Start::Empty, WRITES), all(2, 4, Start::InSync, WRITES), all(2, 3, Start::Empty, KINDS)]);
}

#[test]
fn three_devices_lose_nothing_and_end_alike() {
    run(&[soon(3, 3, Start::Empty, WRITES), soon(3, 2, Start::Empty, KINDS), soon(3, 2, Start::InSync, WRITES)]);
}

#[test]
fn metadata_ends_alike_beside_everything_else() {
    run(&[all(2, 3, Start::InSync, METADATA), all(2, 2, Start::Empty, ALL), soon(3, 1, Start::InSync, METADATA)]);
}

#[test]
fn files_found_by_first_scans_end_alike() {
    run(&[
        all(2, 2, Start::FoundSame, KINDS),
        all(2, 2, Start::FoundTouched, WRITES),
        all(2, 2, Start::FoundOther, KINDS),
        soon(3, 1, Start::FoundTouched, WRITES),
        soon(3, 0, Start::FoundOther, WRITES),
    ]);
}

#[test]
fn a_lost_index_loses_nothing() {
    run(&[
        all(2, 2, Start::InSync, EVERYTHING),
        all(2, 3, Start::InSync, LOSSES),
        all(2, 2, Start::FoundOther, LOSSES),
        soon(3, 1, Start::InSync, LOSSES),
    ]);
}

#[test]
fn one_users_work_never_conflicts_with_a_lost_or_new_index() {
    run(&[
        one_user(2, 4, Start::InSync, LOSSES),
        one_user(2, 3, Start::FoundSame, LOSSES),
        // A third device that has lost its index may meet a stale one first, and then neither can know which is older.
        Trial { may_act_late: false, ..one_user(3, 1, Start::FoundSame, WRITES) },
        one_user(3, 2, Start::InSync, WRITES),
    ]);
}

/// Five operations of two devices, three of three. Some take minutes even in a release build.
#[test]
#[ignore = "takes minutes, and hours without --release"]
fn larger_trials_of_the_rule() {
    run(&[
        all(2, 5, Start::Empty, WRITES),
        all(2, 5, Start::InSync, WRITES),
        all(2, 5, Start::Empty, KINDS),
        all(2, 5, Start::InSync, METADATA),
        all(2, 5, Start::InSync, LOSSES),
        all(2, 4, Start::Empty, ALL),
        all(2, 4, Start::InSync, EVERYTHING),
        all(2, 4, Start::FoundSame, KINDS),
        all(2, 4, Start::FoundTouched, KINDS),
        all(2, 4, Start::FoundOther, KINDS),
        all(2, 3, Start::FoundOther, LOSSES),
        one_user(2, 5, Start::InSync, LOSSES),
        one_user(2, 5, Start::FoundSame, LOSSES),
    ]);
    run(&[
        all(3, 3, Start::Empty, WRITES),
        all(3, 3, Start::InSync, WRITES),
        all(3, 3, Start::Empty, KINDS),
        soon(3, 3, Start::InSync, METADATA),
        soon(3, 3, Start::InSync, LOSSES),
        soon(3, 3, Start::Empty, ALL),
        soon(3, 2, Start::InSync, EVERYTHING),
        soon(3, 2, Start::FoundSame, WRITES),
        soon(3, 2, Start::FoundTouched, WRITES),
        soon(3, 2, Start::FoundOther, WRITES),
        one_user(3, 3, Start::InSync, WRITES),
        one_user(3, 2, Start::FoundSame, WRITES),
    ]);
}

#[test]
fn every_mistake_is_found() {
    use Mistake::*;
    let cases = [
        (JoinsEagerly, soon(3, 2, Start::Empty, WRITES)),
        (ResolvesWithoutEvent, soon(3, 3, Start::Empty, WRITES)),
        (ForgetsRivals, all(2, 3, Start::Empty, WRITES)),
        (MakesNoCopy, all(2, 2, Start::Empty, WRITES)),
        (LetsDeletionsWin, all(2, 3, Start::Empty, WRITES)),
        (TakesFoundForEdits, one_user(2, 3, Start::InSync, LOSSES)),
        (IgnoresLists, all(2, 3, Start::InSync, LOSSES)),
        (MovesMetadata, all(2, 3, Start::InSync, METADATA)),
    ];
    for (mistake, trial) in cases {
        let fault = search(&trial, usize::MAX, Some(mistake)).expect_err(&format!("{mistake:?} was not found"));
        println!("{mistake:?}: {}", fault.lines().next().unwrap_or_default());
    }
}

/// One trial of any size: `RULE_TRIAL="devices ops start operations late|soon|one [most states]"`.
#[test]
#[ignore = "takes what it is told to take"]
fn larger_trial_of_choice() {
    let text = std::env::var("RULE_TRIAL").expect("RULE_TRIAL says which");
    let words: Vec<&str> = text.split_whitespace().collect();
    let start = match words[2] {
        "empty" => Start::Empty,
        "found-same" => Start::FoundSame,
        "found-touched" => Start::FoundTouched,
        "found-other" => Start::FoundOther,
        _ => Start::InSync,
    };
    let allowed = match words[3] {
        "writes" => WRITES,
        "kinds" => KINDS,
        "metadata" => METADATA,
        "losses" => LOSSES,
        "everything" => EVERYTHING,
        _ => ALL,
    };
    let (devices, ops) = (words[0].parse().expect("a number"), words[1].parse().expect("a number"));
    let (has_one_user, may_act_late) = (words[4] == "one", words[4] != "soon");
    let trial = Trial { devices, ops, start, allowed, has_one_user, may_act_late };
    let states_max = words.get(5).map_or(usize::MAX, |n| n.parse().expect("a number"));
    let begun = std::time::Instant::now();
    let outcome = search(&trial, states_max, None).unwrap_or_else(|fault| panic!("{trial:?}\n{fault}"));
    println!("{} {:.1?}", row(&trial, &outcome), begun.elapsed());
}
