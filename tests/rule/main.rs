//! The rule of `core::decide`, tried exhaustively: a few devices, one path, a few operations of their users, and every
//! interleaving of these with what the devices hear of each other.
//!
//! As in the protocol, a device is handed the *current* entry of another, not every version on the way, remembers it
//! as a rival while it is not settled, and may act on any rival at any time, or late: bytes take their time. Whatever
//! happens, a version names one state and nothing that was written is gone except what its own users replaced or
//! deleted; nothing goes on for ever; and at rest all devices hold the same state, version and metadata, nothing that
//! was deleted is back, and there are conflict copies only where users worked at the same time.

mod hash;
mod item;
mod search;
mod state;
mod trial;

use search::search;
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

fn run(devices: usize, ops: u8, start: Start, allowed: &'static [Op], may_act_late: bool) {
    report(&Trial { devices, ops, start, allowed, has_one_user: false, may_act_late });
}

fn run_one_user(devices: usize, ops: u8, start: Start, allowed: &'static [Op]) {
    report(&Trial { devices, ops, start, allowed, has_one_user: true, may_act_late: true });
}

fn report(trial: &Trial) {
    let outcome = search(trial, usize::MAX).unwrap_or_else(|fault| panic!("{trial:?}\n{fault}"));
    println!("{trial:?}: {outcome:?}");
    assert!(outcome.at_rest > 1);
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
        _ => ALL,
    };
    let (devices, ops) = (words[0].parse().expect("a number"), words[1].parse().expect("a number"));
    let (has_one_user, may_act_late) = (words[4] == "one", words[4] != "soon");
    let trial = Trial { devices, ops, start, allowed, has_one_user, may_act_late };
    let states_max = words.get(5).map_or(usize::MAX, |n| n.parse().expect("a number"));
    let begun = std::time::Instant::now();
    let outcome = search(&trial, states_max).unwrap_or_else(|fault| panic!("{trial:?}\n{fault}"));
    println!("{text}: {outcome:?} in {:.1?}", begun.elapsed());
}

#[test]
fn two_devices_lose_nothing_and_end_alike() {
    run(2, 3, Start::Empty, WRITES, true);
    run(2, 3, Start::InSync, WRITES, true);
}

#[test]
fn files_found_by_first_scans_end_alike() {
    run_one_user(2, 3, Start::FoundSame, LOSSES);
}
