//! One run from its seed; a failing one is cut short and told so that it can be replayed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use p2psync::core::chunker;
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
    /// What the judge excused, and how often.
    pub loosened: BTreeMap<&'static str, u64>,
}

/// Carries out a plan. `Err` says which promise was broken.
pub fn run(plan: &Plan) -> Result<Report, String> {
    run_traced(plan, false).0
}

/// The same, with a line for all that happened.
pub fn run_traced(plan: &Plan, is_traced: bool) -> (Result<Report, String>, Vec<String>) {
    chunker::cut_tiny(plan.has_small_chunks);
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
    chunker::cut_tiny(false);
    (result.map(|()| world.report()), trace)
}

/// Runs a seed; a failure is told with the shortest list of operations that still fails.
pub fn check_seed(seed: u64, bug: Option<Bug>) -> Result<Report, String> {
    let plan = Plan { bug, ..Plan::of(seed) };
    run(&plan).map_err(|why| explain(&plan, &why))
}

/// The first of so many seeds that catches a mistake.
pub fn first_catch(mut seeds: impl Iterator<Item = u64>, bug: Bug) -> Option<(u64, String)> {
    seeds.find_map(|seed| catches(seed, bug).ok().map(|why| (seed, why)))
}

/// What a seed says of a mistake. It is caught where the run fails with it as it fits the mistake, and not without it.
///
/// # Errors
///
/// Says why it is not caught.
pub fn catches(seed: u64, bug: Bug) -> Result<String, String> {
    let Err(why) = run(&Plan { bug: Some(bug), ..Plan::of(seed) }) else {
        return Err(format!("{bug:?} is not caught by seed {seed}; which does?"));
    };
    if !brought_about(bug).iter().any(|part| why.contains(part)) {
        return Err(format!("seed {seed} fails with {bug:?}, but not by what it brings about: {why}"));
    }
    match run(&Plan::of(seed)) {
        Ok(_) => Ok(why),
        Err(why) => Err(format!("seed {seed} fails without {bug:?} too: {why}")),
    }
}

/// What is said of a run in which a mistake does its harm. A run may also fail by another trouble, into which it came
/// only because it went another way.
fn brought_about(bug: Bug) -> &'static [&'static str] {
    const LOST: &[&str] = &["is in no tree", "destroyed"];
    const APART: &[&str] = &["differs from device", "do not come to rest"];
    const UNSEEN: &[&str] = &["differs from device", "as the user left it", "in the index", "the index has"];
    match bug {
        Bug::NoConflictCopy | Bug::EditLosesToDelete | Bug::NoCheckAroundSwap | Bug::NoCheckAfterSwap => LOST,
        Bug::RenameReplaces | Bug::RemoveUnlinks | Bug::NothingRecovered | Bug::NoSecondLook => LOST,
        Bug::NoDirectorySync => LOST,
        Bug::NoFileSync | Bug::NothingVerified => &["is torn"],
        Bug::IgnoredIsDeleted => &["though it is ignored"],
        Bug::FoundIsWritten => &[".conflict-"],
        Bug::WinnerByArrival | Bug::EpochUsedAgain | Bug::RequeueForgotten => APART,
        Bug::CursorAhead => &["is only in the"],
        Bug::SightingForgotten | Bug::SurpriseForgotten | Bug::ReadWhileWritten => UNSEEN,
        // An edit that nobody has seen gives way like what it replaced.
        Bug::RacyTimesTrusted => {
            &["differs from device", "as the user left it", "in the index", "the index has", "is in no tree"]
        }
        // What a crash has left is displaced, or copied once more.
        Bug::AppliedBeforeScan => &["is in no tree", "destroyed", "several copies"],
        Bug::MissingRootIsDeletion => &["is in no tree", "as the user left it", "the user left at"],
        // What was deleted is back.
        Bug::TombstonesForgottenEarly => &["as the user left it", "the user left at", "differs from device"],
        Bug::RollbackUnnoticed => &["differs from device", "is in no tree", "as the user left it"],
    }
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
        "seed {} fails: {why}\nshortest: {}\n{:?}, {} devices, meddling {}, {:?}, small chunks {}\n{}\n{last}\nreplay: SIM_SEED={} SIM_KEEP={} cargo test --test sim replay -- --nocapture",
        plan.seed,
        result.err().unwrap_or_default(),
        short.mode,
        short.devices,
        short.meddling,
        short.odd_disk,
        short.has_small_chunks,
        operations.join("\n"),
        plan.seed,
        kept.join(",")
    )
}

/// Tells one kind of failure from another.
pub fn kind(why: &str) -> Option<&'static str> {
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
