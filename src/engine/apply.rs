//! The thread that changes the disk: it carries out what the folder has decided, in batches.
//!
//! A program that still has a file open goes on writing into it after the file was moved into history. So what was
//! displaced is looked at once more a little later; if it has changed it comes back as a conflict copy.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::folder::{FolderHandle, Shared};
use crate::core::action::{Action, Outcome, Slot, WorkId};
use crate::core::conflict::conflict_name;
use crate::core::content::ContentId;
use crate::core::disk::DiskState;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::fs::apply::{ApplyContext, apply};
use crate::fs::error::FsError;
use crate::fs::history::{self, RestoreError};
use crate::fs::root::OpenRoot;
use crate::sync::Input;

/// Actions carried out at a time: enough to share the cost of durability, few enough that outcomes come soon.
const BATCH_MAX: usize = 512;
/// Every wait ends after this, to notice that the folder stops.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// When a displaced file is looked at again: a program that was just writing it has written more by then.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Displaced files that wait for their second look; with more of them the oldest get it early.
const SECOND_LOOKS_MAX: usize = 10_000;
/// Names tried for what comes back from history, each a second later than the one before.
const NAMES_MAX: i64 = 1000;
const SECOND_NS: i64 = 1_000_000_000;

/// Starts the thread. It ends when the sender of actions is dropped, or soon after `stop` is set.
pub fn spawn(handle: FolderHandle, actions: Receiver<(WorkId, Action)>) -> JoinHandle<()> {
    let run = move || Applier { handle, displaced: VecDeque::new() }.run(&actions);
    let spawned = std::thread::Builder::new().name("apply".into()).spawn(run);
    spawned.expect("a system that runs this program has room for its threads")
}

/// A file that was moved into history a moment ago.
struct Displaced {
    due: Instant,
    path: RelPath,
    slot: Slot,
}

struct Applier {
    handle: FolderHandle,
    /// The oldest first.
    displaced: VecDeque<Displaced>,
}

impl Applier {
    fn run(mut self, actions: &Receiver<(WorkId, Action)>) {
        while !self.handle.stop.load(Ordering::Relaxed) {
            let due = self.displaced.front().map(|d| d.due.saturating_duration_since(Instant::now()));
            match actions.recv_timeout(due.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
                Ok(first) => {
                    let batch = std::iter::once(first).chain(actions.try_iter().take(BATCH_MAX - 1)).collect();
                    if !self.carry_out(batch) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.look_again(Instant::now());
        }
        // There is no later any more.
        self.look_again(Instant::now() + SECOND_LOOK);
    }

    /// False where the folder has stopped.
    fn carry_out(&mut self, actions: Vec<(WorkId, Action)>) -> bool {
        let targets: Vec<RelPath> = actions.iter().map(|(_, action)| source(action).clone()).collect();
        let outcomes = match self.handle.root.open() {
            Ok(root) => apply(&root, &ApplyContext { device: self.handle.device, now_ms: now_ms() }, actions),
            Err(error) => self.fail(actions, &error),
        };
        let due = Instant::now() + SECOND_LOOK;
        for ((_, outcome), path) in outcomes.iter().zip(targets) {
            if let Outcome::Done { displaced: Some(slot), .. } = outcome {
                self.displaced.push_back(Displaced { due, path, slot: slot.clone() });
            }
        }
        self.handle.send(Input::Applied(outcomes))
    }

    /// The folder is not there. The scan is told, and says so to all; it also knows when that is over.
    fn fail(&self, actions: Vec<(WorkId, Action)>, error: &FsError) -> Vec<(WorkId, Outcome)> {
        tracing::warn!(folder = %self.handle.label, error = error as &dyn Error, "nothing can be changed in the folder");
        self.handle.hints.request_full("the folder could not be opened");
        let problem = Problem::new(ProblemKind::InTheWay, "the folder is not there");
        actions.into_iter().map(|(work, _)| (work, Outcome::Failed(problem.clone()))).collect()
    }

    /// Gives those displaced files their second look whose time has come.
    fn look_again(&mut self, now: Instant) {
        let overdue = self.displaced.iter().take_while(|d| d.due <= now).count();
        let count = overdue.max(self.displaced.len().saturating_sub(SECOND_LOOKS_MAX));
        if count == 0 {
            return;
        }
        // Where the folder is not there, the files stay in history, which is where they belong.
        let Ok(root) = self.handle.root.open() else { return self.displaced.drain(..count).for_each(drop) };
        for displaced in self.displaced.drain(..count) {
            look_at_slot(&self.handle, &root, &displaced);
        }
    }
}

fn look_at_slot(shared: &Shared, root: &OpenRoot, displaced: &Displaced) {
    let Displaced { path, slot, .. } = displaced;
    let state = match history::look(root, &slot.name) {
        Ok(Some(state)) if !state.is_same_file_as(&slot.disk) => state,
        _ => return,
    };
    match beside(root, &slot.name, path, &state, shared.device, None) {
        Ok(copy) => {
            tracing::info!(%path, %copy, "a program went on writing the replaced file; what it wrote is kept");
            shared.hints.hint(copy, true, Instant::now());
            shared.send(Input::History { found: Vec::new(), expired: vec![slot.name.clone()] });
        }
        Err(error) => tracing::warn!(%path, slot = %slot.name, %error, "a file that is still written stays in history"),
    }
}

/// Moves a slot to a free conflict copy's name beside the path that it came from, or to the top where that directory
/// cannot be had.
pub(super) fn beside(
    root: &OpenRoot,
    slot: &RelPath,
    path: &RelPath,
    state: &DiskState,
    author: DeviceId,
    content: Option<ContentId>,
) -> Result<RelPath, RestoreError> {
    let top = RelPath::parse(path.file_name()).ok().filter(|top| top != path);
    let mut last = RestoreError::Taken;
    for path in std::iter::once(path).chain(&top) {
        for attempt in 0..NAMES_MAX {
            let mtime_ns = state.mtime_ns.saturating_add(attempt.saturating_mul(SECOND_NS));
            // The second attempt adds what tells the content, where it is known.
            let id = content.filter(|_| attempt > 0);
            let Ok(copy) = conflict_name(path, mtime_ns, author, id) else { break };
            match history::put_back(root, slot, &copy) {
                Ok(_) => return Ok(copy),
                Err(RestoreError::Taken) if is_taken(root, &copy) => last = RestoreError::Taken,
                Err(RestoreError::Gone) => return Err(RestoreError::Gone),
                // Something else stands in the place of a directory, or it cannot be written to.
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(last)
}

fn is_taken(root: &OpenRoot, path: &RelPath) -> bool {
    !matches!(root.look(path), Ok(None))
}

/// The path whose file an action takes out of its place.
fn source(action: &Action) -> &RelPath {
    match action {
        Action::Move { from, .. } => from,
        other => other.path(),
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
