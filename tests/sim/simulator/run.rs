//! One run from its seed; a failing one is cut short and told so that it can be replayed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use p2psync::sabotage::{self, Bug};

use super::plan::{Plan, shrink};
use super::world::World;

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Sum over everything that happened: equal for equal runs.
    pub digest: u64,
    pub steps: u64,
    pub frames: u64,
    pub versions: usize,
}

/// Carries out a plan. `Err` says which promise was broken.
pub fn run(plan: &Plan) -> Result<Report, String> {
    run_traced(plan, false).0
}

/// The same, with a line for all that happened.
pub fn run_traced(plan: &Plan, is_traced: bool) -> (Result<Report, String>, Vec<String>) {
    let mut world = World::new(plan, is_traced);
    sabotage::make(plan.bug);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run(plan)));
    sabotage::make(None);
    let result = match ended {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    if is_traced {
        world.describe();
    }
    let trace = world.take_trace();
    (result.map(|()| world.report()), trace)
}

/// Runs a seed; a failure is told with the shortest list of operations that still fails.
pub fn check_seed(seed: u64, bug: Option<Bug>) -> Result<Report, String> {
    let plan = Plan { bug, ..Plan::of(seed) };
    run(&plan).map_err(|why| explain(&plan, &why))
}

/// The first of so many seeds that catches a mistake: it fails with it, and not without.
pub fn first_catch(mut seeds: impl Iterator<Item = u64>, bug: Bug) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        let why = run(&Plan { bug: Some(bug), ..Plan::of(seed) }).err()?;
        run(&Plan::of(seed)).is_ok().then_some((seed, why))
    })
}

fn explain(plan: &Plan, why: &str) -> String {
    // Another failure on the way would be another story.
    let short = shrink(plan, |plan| run(plan).is_err_and(|other| kind(&other) == kind(why)));
    let (result, trace) = run_traced(&short, true);
    let operations: Vec<String> = short
        .operations
        .iter()
        .map(|o| format!("  {:>3} device {} {:?}, then {} steps", o.number, o.device, o.event, o.steps))
        .collect();
    let kept: Vec<String> = short.operations.iter().map(|o| format!("{}:{}", o.number, o.steps)).collect();
    let last = trace.iter().rev().take(TRACE_LINES_MAX).rev().cloned().collect::<Vec<_>>().join("\n");
    format!(
        "seed {} fails: {why}\nshortest: {}\n{:?}, {} devices, meddling {}, {:?}\n{}\n{last}\nreplay: SIM_SEED={} SIM_KEEP={} cargo test --test sim replay -- --nocapture",
        plan.seed,
        result.err().unwrap_or_default(),
        short.mode,
        short.devices,
        short.meddling,
        short.odd_disk,
        operations.join("\n"),
        plan.seed,
        kept.join(",")
    )
}

/// Tells one kind of failure from another.
fn kind(why: &str) -> Option<&str> {
    const KINDS: [&str; 14] = [
        "though it is ignored",
        "the winner has a copy",
        "is in no tree",
        "destroyed",
        "several copies",
        "is torn",
        "differs from device",
        "as the user left it",
        "the user left at",
        "the index has",
        "in the index",
        "there is still a problem",
        "panic",
        "do not come to rest",
    ];
    KINDS.into_iter().find(|kind| why.contains(kind))
}

/// Lines of the trace shown of a failure.
const TRACE_LINES_MAX: usize = 120;

/// The plan of a seed with only the operations of a list such as `3:0,7:20` (number and steps after it).
pub fn kept(seed: u64, list: &str) -> Plan {
    let mut plan = Plan::of(seed);
    let wanted: Vec<(usize, usize)> = list
        .split(',')
        .filter_map(|item| {
            let (number, steps) = item.split_once(':')?;
            Some((number.parse().ok()?, steps.parse().ok()?))
        })
        .collect();
    plan.operations.retain_mut(|operation| {
        let found = wanted.iter().find(|(number, _)| *number == operation.number);
        if let Some((_, steps)) = found {
            operation.steps = *steps;
        }
        found.is_some()
    });
    plan
}
