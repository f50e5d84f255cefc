//! Carrying out what was decided: putting staged files into place, and what they displace into history.
//!
//! A batch goes in three phases, so that thousands of small files share the cost of durability: everything new is made
//! ready and durable in the stage; then one swap after the other, each checked before and after; then the directories
//! that were touched, and what got another mode or mtime where it stands, are made durable. Only then are outcomes reported.
//!
//! A swap may be cut off by a crash at any point: [`Step`] names them. What is left over is found again by the listing
//! of the slots at the next start.

mod change;
mod prepare;
mod swap;

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::error::{is_absence, name_problem, problem};
use super::read::just_placed;
use super::root::{Area, OpenRoot};
use super::sys::Place;
use crate::core::action::{Action, Expected, Outcome, WorkId};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;
use crate::sabotage::{self, Bug};
use prepare::Fresh;

/// From this many files or directories on, one sync of the whole file system is cheaper than one for each.
const SYNC_EACH_MAX: usize = 32;

/// Who applies, and when.
#[derive(Clone, Copy, Debug)]
pub struct ApplyContext {
    /// The author of concurrent edits found here, for the names of their copies.
    pub device: DeviceId,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// Points at which a swap can be cut off, or a user's program can come in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// All new files of the batch are durable in the stage. Comes once, with the path of the first action.
    Prepared,
    /// The target was found to be what was expected.
    Checked,
    /// The new file stands in the history slot.
    InSlot,
    /// The old file stands there, the new one at the target.
    Swapped,
    /// What came out is where it belongs, but nothing is durable yet.
    Settled,
}

/// A version that a user made at the moment of a swap and that could not be put beside its path: it is still in a slot,
/// which no outcome names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    pub path: RelPath,
    pub slot: RelPath,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Applied {
    pub outcomes: Vec<(WorkId, Outcome)>,
    pub stuck: Vec<Stuck>,
}

/// Carries out a batch of actions in their order. The failure of one does not stop the others.
pub fn apply(root: &OpenRoot, context: &ApplyContext, actions: Vec<(WorkId, Action)>) -> Applied {
    apply_all(root, context, actions, &mut |_, _| {})
}

/// The same, calling `at` at every step, so that tests can let something happen there.
pub fn apply_watched(
    root: &OpenRoot,
    context: &ApplyContext,
    actions: Vec<(WorkId, Action)>,
    at: &mut dyn FnMut(Step, &RelPath),
) -> Vec<(WorkId, Outcome)> {
    apply_all(root, context, actions, at).outcomes
}

fn apply_all(
    root: &OpenRoot,
    context: &ApplyContext,
    actions: Vec<(WorkId, Action)>,
    at: &mut dyn FnMut(Step, &RelPath),
) -> Applied {
    let Some((_, first)) = actions.first() else { return Applied::default() };
    let prepared = prepare::all(root, context, &actions);
    at(Step::Prepared, first.path());
    let (touched, adjusted) = (BTreeSet::new(), BTreeSet::new());
    let mut batch = Batch { root, context, at, touched, adjusted, stuck: Vec::new() };
    failpoint::hit("apply.prepared");
    let mut outcomes: Vec<(WorkId, Outcome)> = actions
        .iter()
        .zip(prepared)
        .map(|((work, action), prepared)| {
            let outcome = match prepared {
                Ok(fresh) => batch.run(action, fresh.as_ref()).unwrap_or_else(Outcome::from),
                Err(stop) => stop.into(),
            };
            if matches!(outcome, Outcome::Done { .. }) {
                (batch.at)(Step::Settled, action.path());
                failpoint::hit("apply.settled");
            }
            (*work, outcome)
        })
        .collect();
    if let Err(errno) = batch.make_durable() {
        for (_, outcome) in &mut outcomes {
            if matches!(outcome, Outcome::Done { .. }) {
                *outcome = Outcome::Failed(problem("make it durable", errno));
            }
        }
    }
    failpoint::hit("apply.durable");
    let (now_ns, mut keeps_modes) = (context.now_ms.saturating_mul(1_000_000), None);
    for (_, outcome) in &mut outcomes {
        if let Outcome::Done { disk: Some(disk), .. } = outcome {
            let placed = just_placed(*disk, now_ns);
            // A disk without modes shows another than was set. Looked at anew, that would be taken for the user's.
            if placed != *disk && *keeps_modes.get_or_insert_with(|| root.keeps_modes()) {
                *disk = placed;
            }
        }
    }
    Applied { outcomes, stuck: batch.stuck }
}

/// Why an action was not carried out: the outcomes in which nothing was done.
enum Stop {
    Changed,
    NotEmpty,
    ConflictNameTaken,
    NotStaged,
    Failed(Problem),
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Changed => Outcome::Changed,
            Stop::NotEmpty => Outcome::NotEmpty,
            Stop::ConflictNameTaken => Outcome::ConflictNameTaken,
            Stop::NotStaged => Outcome::NotStaged,
            Stop::Failed(problem) => Outcome::Failed(problem),
        }
    }
}

/// A batch on its way through phases two and three.
struct Batch<'a> {
    root: &'a OpenRoot,
    context: &'a ApplyContext,
    at: &'a mut dyn FnMut(Step, &RelPath),
    /// Directories whose entries changed; `None` is the base of the area.
    touched: BTreeSet<(Area, Option<RelPath>)>,
    /// What got another mode or mtime where it stands.
    adjusted: BTreeSet<RelPath>,
    stuck: Vec<Stuck>,
}

impl Batch<'_> {
    fn run(&mut self, action: &Action, fresh: Option<&Fresh>) -> Result<Outcome, Stop> {
        match (action, fresh) {
            (Action::CreateDirectory { path, mode, expect: None }, _) => self.create_directory(path, *mode),
            (Action::CreateDirectory { path, mode, expect: Some(expect) }, None) => {
                self.set_metadata(path, &expect.disk, 0, *mode)
            }
            (
                Action::CreateDirectory { path, expect, .. }
                | Action::PlaceFile { path, expect, .. }
                | Action::PlaceSymlink { path, expect, .. },
                Some(fresh),
            ) => self.put(path, fresh, expect.as_ref()),
            (Action::PlaceFile { .. } | Action::PlaceSymlink { .. }, None) => Err(Stop::NotStaged),
            (Action::Remove { path, expect }, _) => self.remove(path, expect),
            (Action::RemoveDirectory { path }, _) => self.remove_directory(path),
            (Action::Move { from, to, expect, mtime_ns, mode }, _) => {
                self.move_file(from, to, expect, *mtime_ns, *mode)
            }
            (Action::SetMetadata { path, expect, mtime_ns, mode }, _) => {
                self.set_metadata(path, expect, *mtime_ns, *mode)
            }
        }
    }

    /// Puts something fresh at a path; if that fails, it goes back to where it can be used again.
    fn put(&mut self, path: &RelPath, fresh: &Fresh, expect: Option<&Expected>) -> Result<Outcome, Stop> {
        let put = match expect {
            None => self.place_new(path, fresh),
            Some(expect) if expect.disk.kind == DiskKind::Directory => self.replace_directory(path, fresh, expect),
            Some(expect) => self.swap(path, fresh, expect),
        };
        put.inspect_err(|_| fresh.drop_temporary(self.root))
    }

    /// The place of a target, whose directory has to be there.
    fn target(&self, path: &RelPath) -> Result<Place, Stop> {
        self.root.place(Area::Tree, path).map_err(|errno| match errno {
            errno if is_absence(errno) => failed(Problem::new(
                ProblemKind::InTheWay,
                "its directory is missing here, or something else stands in the place of one; it is looked at again",
            )),
            other => failed(name_problem("open its directory", other)),
        })
    }

    /// What stands at a path; what cannot sync is in the way.
    fn look(&self, place: &Place, path: &RelPath) -> Result<Option<DiskState>, Stop> {
        self.root.look_in(place, path).map_err(|problem| match problem.kind {
            ProblemKind::SpecialFile => failed(Problem::new(
                ProblemKind::InTheWay,
                "a socket, FIFO or device stands in its place: move it away",
            )),
            _ => failed(problem),
        })
    }

    /// The outcome where a name turned out to be taken.
    fn taken(&self, place: &Place, path: &RelPath) -> Stop {
        match self.look(place, path) {
            Err(stop) => stop,
            // By the exact bytes nothing is there, so another spelling of the name is, unless it has gone meanwhile.
            Ok(None) if self.root.folds() && place.stat().is_ok() => failed(Problem::new(
                ProblemKind::Name,
                "this disk takes its name for that of another file beside it; rename one of the two",
            )),
            _ => Stop::Changed,
        }
    }

    fn touch(&mut self, area: Area, path: &RelPath) {
        let mut directory = path.parent();
        // Directories of the history are made on the way, so those above may be new as well.
        while area == Area::History
            && let Some(above) = &directory
            && self.touched.insert((area, directory.clone()))
        {
            directory = above.parent();
        }
        self.touched.insert((area, directory));
    }

    /// Remembers what has to be made durable after mode and mtime were set.
    fn adjust(&mut self, path: &RelPath, before: &DiskState, after: &DiskState) {
        if before.mode != after.mode || before.mtime_ns != after.mtime_ns {
            self.adjusted.insert(path.clone());
        }
    }

    fn make_durable(&mut self) -> Result<(), Errno> {
        let (touched, adjusted) = (std::mem::take(&mut self.touched), std::mem::take(&mut self.adjusted));
        if sabotage::is(Bug::NoDirectorySync) {
            return Ok(());
        }
        let tree = self.root.base(Area::Tree);
        let mut all = touched.len() + adjusted.len() > SYNC_EACH_MAX && tree.sync_file_system()?;
        for path in adjusted {
            if all {
                return Ok(());
            }
            match self.root.place(Area::Tree, &path).and_then(|place| place.open_to_read()) {
                Ok(item) => item.fsync()?,
                // A symlink, or something that even its owner may not read.
                Err(Errno::LOOP | Errno::ACCESS) => all = tree.sync_file_system()?,
                // Taken away by the user meanwhile.
                Err(errno) if is_absence(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (area, path) in touched {
            if all {
                return Ok(());
            }
            let bytes = path.as_ref().map(RelPath::as_bytes).unwrap_or_default();
            match self.root.base(area).open_dir_beneath(bytes) {
                Ok(dir) => dir.fsync()?,
                // Renamed by the user meanwhile, with what was put into it.
                Err(errno) if is_absence(errno) => all = tree.sync_file_system()?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn failed(problem: Problem) -> Stop {
    Stop::Failed(problem)
}

#[cfg(test)]
mod tests;
