//! Walks through everything that may happen in a trial.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::hash::AsIs;
use super::item::{DIRECTORY, Item, Mistake, World, bit};
use super::state::State;
use super::trial::Trial;

/// What a trial came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub states: usize,
    pub steps: usize,
    pub at_rest: usize,
    /// Ways through the trial from its start to a rest from which nothing follows.
    pub histories: f64,
    /// False where there were more states than allowed.
    pub is_complete: bool,
}

/// A state on the way, with what is still to be tried from it.
struct Visit {
    state: State,
    key: u64,
    next: Vec<(State, u64, bool)>,
    histories: f64,
}

/// Tries every interleaving, up to so many states. Says which history was the first to end badly.
pub fn search(trial: &Trial, states_max: usize, mistake: Option<Mistake>) -> Result<Outcome, String> {
    let mut world = World::new(mistake);
    let mut outcome = Outcome { is_complete: true, ..Outcome::default() };
    // A hash stands for a state, with the histories that follow from it.
    let mut seen: HashMap<u64, f32, AsIs> = HashMap::default();
    let mut on_the_way: HashSet<u64, AsIs> = HashSet::default();
    let mut start = trial.start();
    start.compact(trial);
    let mut way = vec![visit(trial, &mut world, &mut outcome, start, start.key(trial), &[])?];
    on_the_way.insert(way[0].key);
    while let Some(last) = way.last_mut() {
        let Some((state, key, is_op)) = last.next.pop() else {
            let done = way.pop().expect("it was there");
            on_the_way.remove(&done.key);
            seen.insert(done.key, done.histories as f32);
            match way.last_mut() {
                Some(before) => before.histories += done.histories,
                None => outcome.histories = done.histories,
            }
            continue;
        };
        outcome.steps += 1;
        if let Some(histories) = seen.get(&key) {
            last.histories += f64::from(*histories);
        } else if on_the_way.contains(&key) {
            assert!(!is_op, "an operation leads to a state before it");
            return Err(format!("the devices never come to rest\n{}", tell(trial, &way, &state)));
        } else if seen.len() >= states_max {
            outcome.is_complete = false;
        } else {
            let next = visit(trial, &mut world, &mut outcome, state, key, &way)?;
            on_the_way.insert(key);
            way.push(next);
        }
    }
    outcome.states = seen.len();
    Ok(outcome)
}

/// Checks a state and finds out what may follow.
fn visit(
    trial: &Trial,
    world: &mut World,
    outcome: &mut Outcome,
    state: State,
    key: u64,
    way: &[Visit],
) -> Result<Visit, String> {
    let told = |fault: String, state: &State| format!("{fault}\n{}", tell(trial, way, state));
    let next = trial.successors(world, &state).map_err(|fault| told(fault, &state))?;
    let is_at_rest = state.unheard == 0 && next.iter().all(|(_, is_op)| *is_op);
    if is_at_rest {
        outcome.at_rest += 1;
        trial.check_at_rest(&state).map_err(|fault| told(fault, &state))?;
    }
    let mut renamed = Vec::with_capacity(next.len());
    for (mut state, is_op) in next {
        trial.check_always(&state).map_err(|fault| told(fault, &state))?;
        state.compact(trial);
        let key = state.key(trial);
        renamed.push((state, key, is_op));
    }
    let histories = if renamed.is_empty() { 1.0 } else { 0.0 };
    Ok(Visit { state, key, next: renamed, histories })
}

fn tell(trial: &Trial, way: &[Visit], last: &State) -> String {
    let mut told = String::new();
    for state in way.iter().map(|visit| &visit.state).chain([last]) {
        let claims: Vec<_> = state.claims().map(|c| (c.content, c.slot, c.count, c.needs_home)).collect();
        let _ = writeln!(
            told,
            "{} operations, unheard {:b}, found {:b}, copies {:?}, claims {claims:?}",
            state.ops, state.unheard, state.found, state.copies
        );
        for device in &state.devices[..trial.devices] {
            let _ = write!(told, "    {}", tell_item(&device.item));
            for (peer, rival) in device.rivals.iter().enumerate() {
                let _ = rival.map_or(Ok(()), |rival| write!(told, " | of {peer}: {}", tell_item(&rival)));
            }
            told.push('\n');
        }
    }
    told
}

fn tell_item(item: &Item) -> String {
    let versions: String = item.version.iter().map(|count| count.to_string()).collect();
    let meta = &item.meta;
    let meta = match meta.count {
        0 => String::new(),
        count => format!(" meta {count}@{} mode {} touched {}", meta.epoch, meta.mode, meta.touched),
    };
    let lists: Vec<u8> = (1..=DIRECTORY).filter(|content| item.superseded & bit(*content) != 0).collect();
    format!("#{}.{} by {} [{versions}] after {lists:?}{meta}", item.content, item.variant, item.author)
}
