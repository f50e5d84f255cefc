//! The promises, tried out by many simulated devices: see `simulator`.

mod simulator;

use simulator::plan::Plan;
use simulator::run;

/// The number in an environment variable.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn random_runs_keep_all_promises() {
    let (first, count) = (number("SIM_FIRST", 0), number("SIM_SEEDS", 300));
    for seed in first..first + count {
        if let Err(why) = run::check_seed(seed, None) {
            panic!("{why}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..20 {
        assert_eq!(run::run(&Plan::of(seed)), run::run(&Plan::of(seed)), "seed {seed}");
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
