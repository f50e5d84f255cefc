//! The promises, tried out by many simulated devices: see `simulator`.

mod scenarios;
#[allow(dead_code, reason = "long runs use more of it than these tests")]
mod simulator;

use std::sync::atomic::{AtomicU64, Ordering};

use p2psync::sabotage::Bug;
use simulator::plan::Plan;
use simulator::run;

/// Threads that run seeds side by side.
const THREADS: usize = 2;

/// The number in an environment variable.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn random_runs_keep_all_promises() {
    let (first, count) = (number("SIM_FIRST", 0), number("SIM_SEEDS", 600));
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < first + count
                {
                    if !OPEN.iter().any(|(open, _)| *open == seed)
                        && let Err(why) = run::check_seed(seed, None)
                    {
                        panic!("{why}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..60 {
        assert_eq!(run::run(&Plan::of(seed)), run::run(&Plan::of(seed)), "seed {seed}");
    }
}

/// The seeds that caught each mistake first, so that a simulator that has become blind is noticed.
#[test]
fn mistakes_made_on_purpose_are_caught() {
    for (bug, seed) in CAUGHT {
        let plan = Plan { bug: Some(bug), ..Plan::of(seed) };
        assert!(run::run(&plan).is_err(), "{bug:?} is not caught by seed {seed} any more; which does?");
        assert_eq!(run::run(&Plan::of(seed)).map(drop), Ok(()), "seed {seed} fails without {bug:?} too");
    }
}

/// Mistakes and the first seed that caught each.
const CAUGHT: [(Bug, u64); 7] = [
    (Bug::NoFileSync, 23),
    (Bug::NoDirectorySync, 13),
    (Bug::RemoveUnlinks, 43),
    (Bug::NoConflictCopy, 4),
    (Bug::MissingRootIsDeletion, 46),
    (Bug::CursorAhead, 4),
    (Bug::ReadWhileWritten, 153),
];

/// Seeds among the usual ones that still fail, with what is seen. The list is to become empty.
const OPEN: [(u64, &str); 1] =
    [(9, "the devices do not come to rest: an entry that no device holds any more is wanted for ever")];

/// What has been mended goes off the list, so that it stays mended.
#[test]
fn what_is_listed_as_open_still_fails() {
    for (seed, what) in OPEN {
        assert!(run::run(&Plan::of(seed)).is_err(), "seed {seed} passes now, take it off the list: {what}");
    }
}

/// Replays what a failure has printed.
#[test]
fn replay() {
    let Ok(seed) = std::env::var("SIM_SEED").unwrap_or_default().parse() else { return };
    let plan = match std::env::var("SIM_KEEP") {
        Ok(list) => run::kept(seed, &list),
        Err(_) => Plan::of(seed),
    };
    let (result, trace) = run::run_traced(&plan, true);
    trace.iter().for_each(|line| println!("{line}"));
    println!("{result:?}");
}
