//! Runs the simulator over many seeds: `cargo run --release --example simulate -- --seeds 10000`.
//!
//! Every failure is told with its seed; with `--explain` it is also cut short, which takes a while.

#[path = "../tests/sim/simulator/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
mod simulator;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use p2psync::sabotage::Bug;
use simulator::plan::Plan;
use simulator::run;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(20);

/// Tries the promises out over many seeds.
#[derive(Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Only every so many of them, as all aimed runs of one kind are
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A deliberate mistake by its name: says how many seeds it takes to catch it
    #[arg(long)]
    bug: Option<String>,
    /// Try all deliberate mistakes, or those of `--bug` (with commas), each with as many seeds at most
    #[arg(long)]
    all_bugs: bool,
    /// Print all that happens in the first seed
    #[arg(long)]
    trace: bool,
    /// Only these operations of the first seed, with the steps after each, as a failure that was cut short prints them
    #[arg(long)]
    keep: Option<String>,
    /// Cut failing runs short
    #[arg(long)]
    explain: bool,
    /// What the judge excuses is a failure too
    #[arg(long)]
    strict: bool,
    /// Stop after so many failures
    #[arg(long, default_value_t = 20)]
    failures: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Failures are told by the report; a panic in a run is one of them.
    std::panic::set_hook(Box::new(|_| {}));
    if arguments.all_bugs {
        return all_bugs(&arguments);
    }
    let bug = match &arguments.bug {
        None => None,
        Some(name) => match Bug::ALL.iter().find(|bug| format!("{bug:?}") == *name) {
            Some(bug) => Some(*bug),
            None => {
                eprintln!("there is no such mistake; there are: {:?}", Bug::ALL);
                return ExitCode::FAILURE;
            }
        },
    };
    if arguments.trace {
        let plan = match &arguments.keep {
            Some(list) => run::kept(arguments.first, list),
            None => Plan::of(arguments.first),
        };
        let (result, trace) = run::run_traced(&Plan { bug, ..plan }, true);
        trace.iter().for_each(|line| println!("{line}"));
        println!("{result:?}");
        return ExitCode::SUCCESS;
    }
    let failures = simulate(&arguments, bug);
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Sums {
    steps: u64,
    frames: u64,
    versions: u64,
    slowest: (Duration, u64),
    failures: BTreeMap<u64, String>,
    loosened: BTreeMap<&'static str, u64>,
}

/// Runs the seeds on several threads. Returns how many failed.
fn simulate(arguments: &Arguments, bug: Option<Bug>) -> usize {
    let next = AtomicU64::new(arguments.first);
    let (end, begun) = (arguments.first + arguments.seeds * arguments.every, Instant::now());
    let sums = Mutex::new(Sums::default());
    let told = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(arguments.every, Ordering::Relaxed);
                    if seed >= end || sums.lock().expect("no panic").failures.len() >= arguments.failures {
                        return;
                    }
                    one(arguments, bug, seed, &sums);
                    let mut told = told.lock().expect("no panic");
                    if told.elapsed() > TELL_EVERY {
                        *told = Instant::now();
                        println!(
                            "{} of {} seeds after {:.0?}",
                            seed - arguments.first,
                            arguments.seeds,
                            begun.elapsed()
                        );
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().expect("no panic");
    let count = (next.load(Ordering::Relaxed).min(end) - arguments.first) / arguments.every;
    println!(
        "{count} runs in {:.1?}: {} steps, {} frames, {} versions; slowest seed {} with {:.1?}; {} failures",
        begun.elapsed(),
        sums.steps,
        sums.frames,
        sums.versions,
        sums.slowest.1,
        sums.slowest.0,
        sums.failures.len()
    );
    for (why, count) in &sums.loosened {
        println!("excused {count} times: {why}");
    }
    sums.failures.len()
}

fn one(arguments: &Arguments, bug: Option<Bug>, seed: u64, sums: &Mutex<Sums>) {
    let begun = Instant::now();
    let result = match arguments.explain {
        true => run::check_seed(seed, bug),
        false => run::run(&Plan { bug, ..Plan::of(seed) }),
    };
    let mut sums = sums.lock().expect("no panic");
    sums.slowest = sums.slowest.max((begun.elapsed(), seed));
    match result {
        Ok(report) if arguments.strict && !report.loosened.is_empty() => {
            println!("seed {seed}: excused {:?}", report.loosened);
            sums.failures.insert(seed, "excused".to_owned());
        }
        Ok(report) => {
            sums.steps += report.steps;
            sums.frames += report.frames;
            sums.versions += report.versions as u64;
            for (why, count) in report.loosened {
                *sums.loosened.entry(why).or_default() += count;
            }
        }
        Err(why) => {
            println!("seed {seed}: {why}");
            sums.failures.insert(seed, why);
        }
    }
}

/// For each mistake, how many seeds it takes until it is caught.
fn all_bugs(arguments: &Arguments) -> ExitCode {
    let mut is_all = true;
    let is_wanted =
        |bug: &&Bug| arguments.bug.as_ref().is_none_or(|names| names.split(',').any(|name| name == format!("{bug:?}")));
    for bug in Bug::ALL.iter().filter(is_wanted) {
        let seeds = (0..arguments.seeds).map(|count| arguments.first + count * arguments.every);
        match run::first_catch(seeds, *bug) {
            Some((seed, why)) => {
                let why: String = why.chars().take(100).collect();
                println!(
                    "{bug:?}: caught after {} seeds, by {seed}: {why}",
                    (seed - arguments.first) / arguments.every + 1
                );
            }
            None => {
                println!("{bug:?}: not caught in {} seeds", arguments.seeds);
                is_all = false;
            }
        }
    }
    if is_all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
