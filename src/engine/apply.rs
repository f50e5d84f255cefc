//! The thread that changes the disk: it carries out what the folder has decided, in batches.
//!
//! A program that still has a file open goes on writing into it after the file was moved into history. So what was
//! displaced is looked at once more a little later; if it has changed it comes back as a conflict copy.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::shared::{FolderHandle, Shared};
use crate::core::action::{Action, Outcome, Slot, WorkId};
use crate::core::conflict::conflict_name;
use crate::core::content::ContentId;
use crate::core::disk::DiskState;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;
use crate::fs::apply::{Applied, ApplyContext, Stuck, apply};
use crate::fs::error::FsError;
use crate::fs::history::{self, RestoreError};
use crate::fs::root::OpenRoot;
use crate::index::HistoryRow;
use crate::sabotage::{self, Bug};
use crate::sync::Input;

/// Actions carried out at a time: enough to share the cost of durability, few enough that outcomes come soon.
pub(super) const BATCH_MAX: usize = 1024;
/// When a displaced file is looked at again: a program that was just writing it has written more by then.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Displaced files that wait for their second look; with more of them the oldest get it early.
const SECOND_LOOKS_MAX: usize = 10_000;
/// Names tried for what comes back from history, each a second later than the one before.
const NAMES_MAX: i64 = 1000;
const SECOND_NS: i64 = 1_000_000_000;

/// When it is tried again to bring back what a user has written at the moment of a swap.
const RESCUE_AGAIN: Duration = Duration::from_secs(5);
/// Such versions that wait for that; what is beyond stays in history, where the user finds it.
const STUCK_MAX: usize = 1000;

/// What the thread is told.
pub enum Command {
    Apply(WorkId, Action),
    /// Nothing but a look at the stop flag.
    Wake,
}

/// Starts the thread. It ends once `stop` is set and it is woken, or when nobody can command it any more. All that it
/// has done by then is on its way to the folder.
pub fn spawn(handle: FolderHandle, commands: Receiver<Command>) -> JoinHandle<()> {
    let run = move || Applier::new(handle).run(&commands);
    let spawned = std::thread::Builder::new().name("apply".into()).spawn(run);
    spawned.expect("a system that runs this program has room for its threads")
}

impl Command {
    fn action(self) -> Option<(WorkId, Action)> {
        match self {
            Command::Apply(work, action) => Some((work, action)),
            Command::Wake => None,
        }
    }
}

/// A file that was moved into history a moment ago.
struct Displaced {
    due: Instant,
    path: RelPath,
    slot: Slot,
}

/// Carries out actions, and remembers what is to be looked at once more.
pub(super) struct Applier {
    handle: FolderHandle,
    /// The oldest first.
    displaced: VecDeque<Displaced>,
    /// What is to come back from history, and when that is tried.
    stuck: Vec<(Instant, Stuck)>,
}

impl Applier {
    pub fn new(handle: FolderHandle) -> Self {
        Self { handle, displaced: VecDeque::new(), stuck: Vec::new() }
    }

    fn run(mut self, commands: &Receiver<Command>) {
        while !self.handle.stop.load(Ordering::Relaxed) {
            let next = match self.next_due() {
                Some(due) => commands.recv_timeout(due.saturating_duration_since(self.now())),
                None => commands.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(first) => {
                    let told = std::iter::once(first).chain(commands.try_iter().take(BATCH_MAX - 1));
                    let batch: Vec<(WorkId, Action)> = told.filter_map(Command::action).collect();
                    if !batch.is_empty() && !self.carry_out(batch) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.look_again(self.now());
        }
        self.finish();
    }

    /// Gives all displaced files their second look: there is no later any more.
    pub fn finish(&mut self) {
        self.look_again(self.now() + SECOND_LOOK.max(RESCUE_AGAIN));
        let left: Vec<Stuck> = self.stuck.drain(..).map(|(_, stuck)| stuck).collect();
        self.leave_in_history(left);
    }

    fn now(&self) -> Instant {
        self.handle.clock.instant()
    }

    /// When the next displaced file is to be looked at.
    pub fn next_due(&self) -> Option<Instant> {
        let rescue = self.stuck.iter().map(|(due, _)| *due).min();
        self.displaced.front().map(|displaced| displaced.due).into_iter().chain(rescue).min()
    }

    /// Displaced files that are to be looked at.
    #[cfg(feature = "testing")]
    pub fn waiting(&self) -> usize {
        self.displaced.len() + self.stuck.len()
    }

    /// Carries out actions, at most [`BATCH_MAX`] for the sake of those that wait for the outcomes. False where the
    /// folder has stopped.
    pub fn carry_out(&mut self, actions: Vec<(WorkId, Action)>) -> bool {
        let targets: Vec<RelPath> = actions.iter().map(|(_, action)| source(action).clone()).collect();
        let Applied { outcomes, mut stuck } = match self.handle.root.open() {
            Ok(root) => {
                apply(&root, &ApplyContext { device: self.handle.device, now_ms: self.handle.clock.wall_ms() }, actions)
            }
            Err(error) => Applied { outcomes: self.fail(actions, &error), stuck: Vec::new() },
        };
        let rescue_due = self.now() + RESCUE_AGAIN;
        let room = STUCK_MAX.saturating_sub(self.stuck.len()).min(stuck.len());
        self.stuck.extend(stuck.drain(..room).map(|stuck| (rescue_due, stuck)));
        self.leave_in_history(stuck);
        let due = self.now() + SECOND_LOOK;
        for ((_, outcome), path) in outcomes.iter().zip(targets) {
            if let Outcome::Done { displaced: Some(slot), .. } = outcome {
                self.displaced.push_back(Displaced { due, path, slot: slot.clone() });
            }
        }
        failpoint::hit("apply.reported");
        self.handle.send(Input::Applied(outcomes))
    }

    /// The folder is not there. The scan is told, and says so to all; it also knows when that is over.
    fn fail(&self, actions: Vec<(WorkId, Action)>, error: &FsError) -> Vec<(WorkId, Outcome)> {
        tracing::warn!(folder = %self.handle.label, error = error as &dyn Error, "nothing can be changed in the folder");
        self.handle.hints.request_full("the folder could not be opened");
        let problem = Problem::new(ProblemKind::InTheWay, "the folder is not there");
        actions.into_iter().map(|(work, _)| (work, Outcome::Failed(problem.clone()))).collect()
    }

    /// Does what is due: second looks at displaced files, and what could not be brought back at once.
    pub fn look_again(&mut self, now: Instant) {
        self.rescue_again(now);
        let overdue = self.displaced.iter().take_while(|d| d.due <= now).count();
        let count = overdue.max(self.displaced.len().saturating_sub(SECOND_LOOKS_MAX));
        if count == 0 {
            return;
        }
        if sabotage::is(Bug::NoSecondLook) {
            return self.displaced.drain(..count).for_each(drop);
        }
        // Where the folder is not there, the files stay in history, which is where they belong.
        let Ok(root) = self.handle.root.open() else { return self.displaced.drain(..count).for_each(drop) };
        for displaced in self.displaced.drain(..count) {
            look_at_slot(&self.handle, &root, &displaced);
        }
    }
}

impl Applier {
    /// Tries once more to bring back what a user has written at the moment of a swap.
    fn rescue_again(&mut self, now: Instant) {
        if self.stuck.iter().all(|(due, _)| *due > now) {
            return;
        }
        let root = self.handle.root.open();
        let (shared, later) = (&self.handle, self.handle.clock.instant() + RESCUE_AGAIN);
        self.stuck.retain_mut(|(due, stuck)| {
            if *due > now {
                return true;
            }
            *due = later;
            root.as_ref().map_or(true, |root| !is_rescued(shared, root, stuck))
        });
    }

    /// What cannot come back is at least listed there.
    fn leave_in_history(&self, left: Vec<Stuck>) {
        let Ok(root) = self.handle.root.open() else { return };
        let row = |Stuck { path, slot }: Stuck| {
            let disk = history::look(&root, &slot).ok().flatten()?;
            let (author, displaced_ms) = (self.handle.device, self.handle.clock.wall_ms());
            Some(HistoryRow {
                slot,
                path,
                content: None,
                disk,
                author,
                displaced_ms,
                by_remote: true,
                brought_by: None,
                displaced_by: None,
                placed_ms: None,
            })
        };
        let found: Vec<HistoryRow> = left.into_iter().filter_map(row).collect();
        if !found.is_empty() {
            self.handle.send(Input::History { found, expired: Vec::new() });
        }
    }
}

/// True where it has come back, or is no longer there.
fn is_rescued(shared: &Shared, root: &OpenRoot, stuck: &Stuck) -> bool {
    let Stuck { path, slot } = stuck;
    let state = match history::look(root, slot) {
        Ok(Some(state)) => state,
        Ok(None) => return true,
        Err(_) => return false,
    };
    match beside(root, slot, path, &state, shared.device, None) {
        Ok(copy) => {
            tracing::info!(%path, %copy, "kept an edit that was made at the moment of the swap");
            shared.hints.hint(copy, true, shared.clock.instant());
            true
        }
        Err(RestoreError::Gone) => true,
        Err(error) => {
            tracing::debug!(%path, %slot, %error, "an edit made at the moment of a swap is still in history");
            false
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
            shared.hints.hint(copy, true, shared.clock.instant());
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
            // The second attempt adds what tells the content, where it is known; without an author the first.
            let id = content.filter(|_| attempt > 0 || author == DeviceId::NONE);
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::core::action::{Displace, Expected};
    use crate::core::content::Content;
    use crate::engine::hints::{FullJob, Job, Look};
    use crate::engine::shared::Event;
    use crate::engine::testing::{self, path};
    use crate::fs::stage;

    /// A file that stands where something is to be put.
    fn expected(root: &OpenRoot, name: &str, bytes: &[u8]) -> Option<Expected> {
        let disk = root.look(&path(name)).unwrap()?;
        Some(Expected { disk, content: Some(Content::of_chunk(bytes).id), displace: Displace::History })
    }

    fn place(name: &str, bytes: &[u8], expect: Option<Expected>) -> Action {
        let content = Content::of_chunk(bytes);
        Action::PlaceFile { path: path(name), content, copy: 0, mtime_ns: 1_000_000_007, mode: 0o644, expect }
    }

    fn outcomes(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Vec<(WorkId, Outcome)> {
        match events.blocking_recv() {
            Some(Event::Input(Input::Applied(outcomes))) => outcomes,
            _ => panic!("something else than outcomes"),
        }
    }

    #[test]
    fn actions_are_carried_out_in_order_and_all_are_answered() {
        let (_dir, handle, mut events) = testing::folder("");
        let (sender, commands) = std::sync::mpsc::channel();
        let root = handle.root.open().unwrap();
        for work in 0..700 {
            let bytes = work.to_string();
            stage::stage_small(&root, Content::of_chunk(bytes.as_bytes()), 0, bytes.as_bytes()).unwrap();
            let directory = Action::CreateDirectory { path: path(&bytes), mode: 0o755, expect: None };
            sender.send(Command::Apply(2 * work, directory)).unwrap();
            let file = place(&format!("{bytes}/f"), bytes.as_bytes(), None);
            sender.send(Command::Apply(2 * work + 1, file)).unwrap();
        }
        let thread = spawn(handle.clone(), commands);
        let mut all = Vec::new();
        while all.len() < 1400 {
            all.extend(outcomes(&mut events));
        }
        assert!(all.iter().map(|(work, _)| *work).eq(0..1400));
        assert!(all.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done { disk: Some(_), .. })));
        drop(sender);
        thread.join().unwrap();
    }

    #[test]
    fn what_a_program_still_writes_into_a_displaced_file_becomes_a_copy() {
        let (_dir, handle, mut events) = testing::folder("");
        let (sender, commands) = std::sync::mpsc::channel();
        let root = handle.root.open().unwrap();
        for name in ["a", "b"] {
            std::fs::write(handle.root.path().join(name), "old").unwrap();
        }
        let mut writer = std::fs::OpenOptions::new().append(true).open(handle.root.path().join("a")).unwrap();
        for (work, name, new) in [(1, "a", &b"new a"[..]), (2, "b", b"new b")] {
            stage::stage_small(&root, Content::of_chunk(new), 0, new).unwrap();
            let action = place(name, new, expected(&root, name, b"old"));
            sender.send(Command::Apply(work, action)).unwrap();
        }
        let thread = spawn(handle.clone(), commands);
        let mut displaced = Vec::new();
        while displaced.len() < 2 {
            displaced.extend(outcomes(&mut events));
        }
        writer.write_all(b" and more").unwrap();
        drop(sender);
        thread.join().unwrap();
        let Job::Paths(looks) = handle.hints.next(&handle.stop) else { panic!() };
        let [Look { path: copy, .. }] = &looks[..] else { panic!("{looks:?}") };
        assert_eq!(crate::core::conflict::original_of(copy), Some(path("a")));
        assert_eq!(std::fs::read_to_string(handle.root.path().join(copy.to_string())).unwrap(), "old and more");
        let (_, Outcome::Done { displaced: Some(slot), .. }) = &displaced[0] else { panic!("{displaced:?}") };
        let dropped = events.blocking_recv();
        assert!(
            matches!(dropped, Some(Event::Input(Input::History { expired, .. })) if expired == [slot.name.clone()])
        );
    }

    #[test]
    fn without_the_folder_everything_fails_and_the_scan_is_told() {
        let (_dir, handle, mut events) = testing::folder("");
        let (sender, commands) = std::sync::mpsc::channel();
        std::fs::remove_dir_all(handle.root.path()).unwrap();
        sender.send(Command::Apply(1, place("a", b"", None))).unwrap();
        let thread = spawn(handle.clone(), commands);
        let failed = outcomes(&mut events);
        assert!(matches!(&failed[..], [(1, Outcome::Failed(problem))] if problem.kind == ProblemKind::InTheWay));
        assert!(matches!(handle.hints.next_full(&handle.stop, SECOND_LOOK), FullJob::Asked(_)));
        drop(sender);
        thread.join().unwrap();
        assert!(!handle.root.path().exists());
    }

    #[test]
    fn an_edit_that_could_not_be_put_beside_its_path_at_once_is_later_or_is_listed_in_history() {
        for comes_back in [true, false] {
            let (_dir, handle, mut events) = testing::folder("");
            let slot = history::slot_name(&path("a"), history::Shown::Nothing, 1, 0);
            std::fs::write(handle.root.path().join(format!(".p2psync/history/{slot}")), "edit").unwrap();
            let mut applier = Applier::new(handle.clone());
            applier.stuck.push((applier.now(), Stuck { path: path("a"), slot: slot.clone() }));
            let away = handle.root.path().with_extension("away");
            std::fs::rename(handle.root.path(), &away).unwrap();
            applier.look_again(applier.now());
            assert_eq!(applier.stuck.len(), 1);
            std::fs::rename(&away, handle.root.path()).unwrap();
            if !comes_back {
                applier.leave_in_history(vec![Stuck { path: path("a"), slot: slot.clone() }]);
                let Some(Event::Input(Input::History { found, .. })) = events.blocking_recv() else { panic!() };
                assert_eq!(found.first().map(|row| &row.slot), Some(&slot));
                continue;
            }
            applier.look_again(applier.next_due().unwrap());
            assert_eq!((applier.stuck.len(), applier.next_due()), (0, None));
            let Job::Paths(looks) = handle.hints.next(&handle.stop) else { panic!() };
            let [Look { path: copy, .. }] = &looks[..] else { panic!("{looks:?}") };
            assert_eq!(std::fs::read_to_string(handle.root.path().join(copy.to_string())).unwrap(), "edit");
        }
    }

    #[test]
    fn what_comes_back_finds_a_free_name_even_without_its_directory() {
        let (_dir, handle, _events) = testing::folder("");
        let root = handle.root.open().unwrap();
        std::fs::create_dir(handle.root.path().join("d")).unwrap();
        let mut copies = std::collections::BTreeSet::new();
        for content in ["1", "2", "3"] {
            std::fs::write(handle.root.path().join("d/a"), content).unwrap();
            let expect = expected(&root, "d/a", content.as_bytes()).unwrap();
            let context = ApplyContext { device: handle.device, now_ms: 1 };
            let done = apply(&root, &context, vec![(1, Action::Remove { path: path("d/a"), expect })]).outcomes;
            let (_, Outcome::Done { displaced: Some(slot), .. }) = &done[0] else { panic!("{done:?}") };
            if content == "3" {
                std::fs::rename(handle.root.path().join("d"), handle.root.path().join("e")).unwrap();
                std::fs::write(handle.root.path().join("d"), "").unwrap();
            }
            let state = DiskState { mtime_ns: 0, ..slot.disk };
            copies.insert(beside(&root, &slot.name, &path("d/a"), &state, handle.device, None).unwrap());
        }
        assert_eq!(copies.len(), 3);
        assert_eq!(copies.iter().filter(|copy| copy.parent().is_none()).count(), 1);
    }
}
