//! Phase two, where something new gets into the tree: the swap against a history slot, and what came out of it.

use rustix::io::Errno;

use super::prepare::{Fresh, OWNER_BITS};
use super::{Batch, Step, Stop, failed};
use crate::core::action::{Displace, Expected, Outcome, Slot};
use crate::core::conflict::conflict_name;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::error::{is_absence, name_problem, problem};
use crate::fs::history::{self, Shown};
use crate::fs::read::is_expected;
use crate::fs::root::Area;
use crate::fs::sys::{self, Place};
use crate::sabotage::{self, Bug};

/// A file modified this short a time before the swap is read again after it, whatever its times say.
const RECENT_NS: u64 = 2_000_000_000;
/// Names tried for a concurrent edit, each a second later than the one before.
const RESCUE_ATTEMPTS_MAX: i64 = 1000;
const SECOND_NS: i64 = 1_000_000_000;

/// Where the thing is that came out of the tree.
#[derive(Default)]
pub struct Settled {
    pub displaced: Option<Slot>,
    pub conflict: Option<DiskState>,
    pub rescued: Option<RelPath>,
}

/// A history slot in use.
pub struct InSlot {
    pub name: RelPath,
    pub place: Place,
}

impl Batch<'_> {
    /// Puts something where nothing stands.
    pub fn place_new(&mut self, path: &RelPath, fresh: &Fresh) -> Result<Outcome, Stop> {
        let target = self.target(path)?;
        (self.at)(Step::Checked, path);
        // It takes no name that is taken, so that no look before it is needed.
        match sys::rename_fresh(&fresh.place(self.root), &target) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.taken(&target, path)),
            Err(errno) => return Err(failed(name_problem("put it at its place", errno))),
        }
        (self.at)(Step::Swapped, path);
        failpoint::hit("apply.placed");
        self.touch(Area::Tree, path);
        Ok(self.placed(path, &target, &fresh.state, Settled::default()))
    }

    /// Puts something where a directory stands, which has to be empty.
    pub fn replace_directory(&mut self, path: &RelPath, fresh: &Fresh, expect: &Expected) -> Result<Outcome, Stop> {
        let target = self.target(path)?;
        let found = self.look(&target, path)?;
        if found.is_none_or(|found| found.kind != DiskKind::Directory) {
            return Err(Stop::Changed);
        }
        (self.at)(Step::Checked, path);
        self.remove_empty(&target)?;
        failpoint::hit("apply.directory_replaced");
        self.touch(Area::Tree, path);
        self.place_new(path, fresh).inspect_err(|_| {
            // The directory was not to go without what replaces it; if it cannot come back, a scan finds out.
            if target.mkdir(OWNER_BITS).is_ok() {
                let _ = target.chmod(expect.disk.mode);
                self.adjusted.insert(path.clone());
            }
        })
    }

    /// Removes an empty directory; what is in one stays.
    pub fn remove_empty(&self, place: &Place) -> Result<(), Stop> {
        place.rmdir().map_err(|errno| match errno {
            Errno::NOTEMPTY | Errno::EXIST => Stop::NotEmpty,
            errno if is_absence(errno) => Stop::Changed,
            other => failed(problem("remove the directory", other)),
        })
    }

    /// Swaps something new with the file or link that stands there.
    pub fn swap(&mut self, path: &RelPath, fresh: &Fresh, expect: &Expected) -> Result<Outcome, Stop> {
        let target = self.target(path)?;
        self.check(&target, path, expect)?;
        (self.at)(Step::Checked, path);
        failpoint::hit("apply.checked");
        // The new file takes the slot first: so the old one is in history in the very moment it leaves the tree.
        let staged = fresh.place(self.root);
        let shown = shown_in_slot(expect);
        let (name, place) = history::move_to_slot(self.root, &staged, path, shown, self.context.now_ms)
            .map_err(|e| failed(problem("make room in the history", e)))?;
        let slot = InSlot { name, place };
        self.touch(Area::History, &slot.name);
        (self.at)(Step::InSlot, path);
        failpoint::hit("apply.in_slot");
        let out = match sys::exchange(&slot.place, &target) {
            Ok(()) => slot,
            Err(errno) => {
                let moved = if sys::is_unsupported(errno) {
                    self.swap_in_two(path, &slot, &target, expect)
                } else {
                    Err(swap_error(errno))
                };
                // What is still in the slot is the new file.
                moved.inspect_err(|_| self.take_back(&slot, &staged))?
            }
        };
        (self.at)(Step::Swapped, path);
        failpoint::hit("apply.swapped");
        self.touch(Area::Tree, path);
        let settled = self.settle(path, out, expect);
        Ok(self.placed(path, &target, &fresh.state, settled))
    }

    /// Where a file system cannot swap: the old file leaves first, for a moment nothing is there, then the new one
    /// comes. Nothing is overwritten either way. Says where the old one went.
    pub(super) fn swap_in_two(
        &mut self,
        path: &RelPath,
        fresh: &InSlot,
        target: &Place,
        expect: &Expected,
    ) -> Result<InSlot, Stop> {
        let (name, place) = history::move_to_slot(self.root, target, path, shown_in_slot(expect), self.context.now_ms)
            .map_err(swap_error)?;
        self.touch(Area::History, &name);
        let old = InSlot { name, place };
        match sys::rename_fresh(&fresh.place, target) {
            Ok(()) => Ok(old),
            Err(errno) => {
                if sys::rename_from_own(&old.place, target).is_err() {
                    self.rescue(path, &old);
                }
                self.touch(Area::Tree, path);
                Err(if errno == Errno::EXIST { Stop::Changed } else { swap_error(errno) })
            }
        }
    }

    /// Compares what stands at a path with what the index has seen there, and looks whether its place is free.
    pub fn check(&self, place: &Place, path: &RelPath, expect: &Expected) -> Result<(), Stop> {
        match self.look(place, path)? {
            Some(found) if is_expected(&found, &expect.disk) => {}
            Some(_) if sabotage::is(Bug::NoCheckAroundSwap) => {}
            _ => return Err(Stop::Changed),
        }
        if let Displace::ConflictCopy(copy) = &expect.displace {
            let place = self.target(copy)?;
            match place.stat() {
                Ok(_) => return Err(Stop::ConflictNameTaken),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(name_problem("make the conflict copy", errno))),
            }
        }
        Ok(())
    }

    /// Deals with what came out of the tree into a slot: what was expected goes where it is to go, anything else was
    /// written by the user a moment ago and comes back beside the target.
    pub fn settle(&mut self, path: &RelPath, slot: InSlot, expect: &Expected) -> Settled {
        let Some(state) = self.came_out(&slot.place, expect) else {
            return Settled { rescued: self.rescue(path, &slot), ..Settled::default() };
        };
        let Displace::ConflictCopy(copy) = &expect.displace else {
            let slot = Slot { name: slot.name, disk: state };
            return Settled { displaced: Some(slot), ..Settled::default() };
        };
        let copied = self.root.place(Area::Tree, copy).and_then(|place| {
            sys::rename_from_own(&slot.place, &place)?;
            failpoint::hit("apply.copy_named");
            place.state()
        });
        match copied {
            Ok(conflict) => {
                self.touch(Area::Tree, copy);
                Settled { conflict, ..Settled::default() }
            }
            // Taken since the check.
            Err(_) => Settled { rescued: self.rescue(path, &slot), ..Settled::default() },
        }
    }

    /// State of what is in the slot now, if that is what was expected at the target.
    pub fn came_out(&self, slot: &Place, expect: &Expected) -> Option<DiskState> {
        let state = slot.state().ok()??;
        if sabotage::is(Bug::NoCheckAfterSwap) || sabotage::is(Bug::NoCheckAroundSwap) {
            return Some(state);
        }
        if !state.is_same_file_as(&expect.disk) {
            return None;
        }
        let now_ns = self.context.now_ms.saturating_mul(1_000_000);
        let recent = expect.disk.ctime_ns == 0 || now_ns.abs_diff(state.mtime_ns) < RECENT_NS;
        match expect.content {
            Some(content) if recent && state.kind == DiskKind::File => {
                (history::content_at(slot)?.id == content).then_some(state)
            }
            _ => Some(state),
        }
    }

    /// Moves a concurrent edit from its slot to a conflict copy beside the target, or at the top where the directory has
    /// been moved away at that moment too. Where that is impossible it stays in its slot for now, see [`super::Stuck`].
    pub fn rescue(&mut self, path: &RelPath, slot: &InSlot) -> Option<RelPath> {
        let top = RelPath::parse(path.file_name()).ok().filter(|top| top != path);
        let mut last = None;
        for path in std::iter::once(path).chain(&top) {
            match self.rescue_beside(path, slot) {
                Ok(copy) => {
                    tracing::info!(%path, %copy, "kept an edit that was made at the moment of the swap");
                    self.touch(Area::Tree, &copy);
                    return Some(copy);
                }
                Err(error) => last = Some(error),
            }
        }
        let error = last.map(tracing::field::display);
        tracing::warn!(%path, slot = %slot.name, error, "an edit made at the moment of the swap is in history for now");
        self.stuck.push(super::Stuck { path: path.clone(), slot: slot.name.clone() });
        None
    }

    fn rescue_beside(&self, path: &RelPath, slot: &InSlot) -> Result<RelPath, Errno> {
        let mtime_ns = slot.place.state().ok().flatten().map_or(0, |s| s.mtime_ns);
        let mut content = None;
        for attempt in 0..RESCUE_ATTEMPTS_MAX {
            let time_ns = mtime_ns.saturating_add(attempt.saturating_sub(1).max(0).saturating_mul(SECOND_NS));
            let copy = conflict_name(path, time_ns, self.context.device, content).map_err(|_| Errno::NAMETOOLONG)?;
            match self.root.place(Area::Tree, &copy).and_then(|p| sys::rename_from_own(&slot.place, &p)) {
                Ok(()) => return Ok(copy),
                Err(Errno::EXIST) => content = content.or_else(|| history::content_at(&slot.place).map(|c| c.id)),
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    /// Puts the new file back from its slot to the stage.
    fn take_back(&self, slot: &InSlot, staged: &Place) {
        if let Err(error) = sys::rename_to_own(&slot.place, staged) {
            tracing::warn!(slot = %slot.name, %error, "a staged file stays in history until the next start");
        }
    }

    /// The outcome once something stands in its place.
    fn placed(&self, path: &RelPath, target: &Place, fresh: &DiskState, settled: Settled) -> Outcome {
        let now = target.state().ok().flatten();
        let (disk, edited) = match now {
            Some(state) if state.is_same_file_as(fresh) && state.mode == fresh.mode => (state, None),
            // Already edited again, or its mode set: what was put there is reported as not to be relied on.
            _ => (DiskState { ctime_ns: 0, ..*fresh }, Some(path.clone())),
        };
        let Settled { displaced, conflict, rescued } = settled;
        Outcome::Done { disk: Some(disk), displaced, conflict, rescued: rescued.or(edited) }
    }
}

/// The content that a slot's name tells of: none for what is in it only on its way to a conflict copy. So what a crash
/// leaves there is told from a version that belongs in history, even where the index has forgotten about both.
pub(super) fn shown_in_slot(expect: &Expected) -> Shown {
    match (&expect.displace, expect.content) {
        (Displace::History, Some(content)) => Shown::Content(content),
        (Displace::PrivateHistory, Some(content)) => Shown::Private(content),
        _ => Shown::Nothing,
    }
}

fn swap_error(errno: Errno) -> Stop {
    match errno {
        errno if is_absence(errno) => Stop::Changed,
        other => failed(name_problem("swap it into its place", other)),
    }
}
