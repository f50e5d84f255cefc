//! Phase two, where nothing new gets into the tree: directories, removals, moves, metadata.

use rustix::io::Errno;

use super::prepare::OWNER_BITS;
use super::swap::{InSlot, shown_in_slot};
use super::{Batch, Step, Stop, failed};
use crate::core::action::{Expected, Outcome};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::MODE_MASK;
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::error::{is_absence, name_problem, problem};
use crate::fs::history::{self, Shown};
use crate::fs::read::is_expected;
use crate::fs::root::Area;
use crate::fs::sys::{self, Place};
use crate::sabotage::{self, Bug};

impl Batch<'_> {
    /// Makes a directory where nothing stands. Its owner can always work in it, whatever mode is asked for.
    pub fn create_directory(&mut self, path: &RelPath, mode: u32) -> Result<Outcome, Stop> {
        let target = self.target(path)?;
        let mode = mode & MODE_MASK | OWNER_BITS;
        // With the mode at once: cut off before the next step, it is found as it should be.
        match target.mkdir(mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.taken(&target, path)),
            Err(errno) => return Err(failed(name_problem("make the directory", errno))),
        }
        self.touch(Area::Tree, path);
        self.adjusted.insert(path.clone());
        (self.at)(Step::Swapped, path);
        failpoint::hit("apply.directory_made");
        target.chmod(mode).map_err(|e| failed(problem("set the mode of the directory", e)))?;
        match target.state() {
            Ok(Some(disk)) if disk.kind == DiskKind::Directory => Ok(done(Some(self.as_set(disk, mode)), None)),
            // Gone again, or replaced by the user: what stands there now is for a look to tell.
            _ => Err(Stop::Changed),
        }
    }

    /// Another mode than the one just set is what a user has set since. Said to be as it was set, it is news at the next
    /// look.
    fn as_set(&self, disk: DiskState, mode: u32) -> DiskState {
        let mode = full_mode(disk.kind, mode);
        if disk.kind == DiskKind::Symlink || disk.mode & MODE_MASK == mode || !self.root.keeps_modes() {
            return disk;
        }
        DiskState { mode, ctime_ns: 0, ..disk }
    }

    /// Takes a file or link away into history.
    pub fn remove(&mut self, path: &RelPath, expect: &Expected) -> Result<Outcome, Stop> {
        if expect.disk.kind == DiskKind::Directory {
            return self.remove_directory(path);
        }
        let target = self.source(path)?;
        self.check(&target, path, expect)?;
        (self.at)(Step::Checked, path);
        if sabotage::is(Bug::RemoveUnlinks) {
            target.unlink().map_err(|_| Stop::Changed)?;
            return Ok(done(None, None));
        }
        let (name, place) = history::move_to_slot(self.root, &target, path, shown_in_slot(expect), self.context.now_ms)
            .map_err(|e| match e {
                Errno::NOENT => Stop::Changed,
                other => failed(problem("move it into the history", other)),
            })?;
        (self.at)(Step::Swapped, path);
        failpoint::hit("apply.removed");
        self.touch(Area::History, &name);
        self.touch(Area::Tree, path);
        let slot = InSlot { name, place };
        if self.came_out(&slot.place, expect).is_none() {
            // Edited since the check: an edit beats a deletion, so it goes back.
            if sys::rename_from_own(&slot.place, &target).is_err() {
                self.rescue(path, &slot);
            }
            return Err(Stop::Changed);
        }
        let settled = self.settle(path, slot, expect);
        Ok(Outcome::Done {
            disk: None,
            displaced: settled.displaced,
            conflict: settled.conflict,
            rescued: settled.rescued,
        })
    }

    /// Removes an empty directory; it is fine if it is gone already.
    pub fn remove_directory(&mut self, path: &RelPath) -> Result<Outcome, Stop> {
        let target = match self.root.place(Area::Tree, path) {
            Err(errno) if is_absence(errno) => return Ok(done(None, None)),
            place => place.map_err(|e| failed(problem("open its directory", e)))?,
        };
        match self.look(&target, path)? {
            None => return Ok(done(None, None)),
            Some(found) if found.kind != DiskKind::Directory => return Err(Stop::Changed),
            Some(_) => {}
        }
        self.remove_empty(&target)?;
        failpoint::hit("apply.directory_removed");
        self.touch(Area::Tree, path);
        Ok(done(None, None))
    }

    /// Renames a file or link within the tree.
    pub fn move_file(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        expect: &DiskState,
        mtime_ns: i64,
        mode: u32,
    ) -> Result<Outcome, Stop> {
        let source = self.source(from)?;
        let target = self.target(to)?;
        match self.look(&source, from)? {
            Some(found) if found.kind != DiskKind::Directory && is_expected(&found, expect) => {}
            _ => return Err(Stop::Changed),
        }
        if self.look(&target, to)?.is_some() {
            return Err(Stop::Changed);
        }
        (self.at)(Step::Checked, to);
        match self.rename(from, &source, &target, expect) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.taken(&target, to)),
            Err(Errno::NOENT) => return Err(Stop::Changed),
            Err(errno) => return Err(failed(name_problem("rename it", errno))),
        }
        (self.at)(Step::Swapped, to);
        failpoint::hit("apply.moved");
        self.touch(Area::Tree, from);
        self.touch(Area::Tree, to);
        let moved = target.state().ok().flatten();
        match moved {
            Some(state) if state.is_same_file_as(expect) => {
                // The move is done; if only its metadata fails, a later look finds the difference.
                let adjusted = change_metadata(&target, &state, mtime_ns, mode);
                if adjusted != Ok(state) {
                    self.adjusted.insert(to.clone());
                }
                let state =
                    adjusted.map(|state| self.as_set(state, mode)).unwrap_or(DiskState { ctime_ns: 0, ..state });
                let ctime_ns = if expect.ctime_ns == 0 { 0 } else { state.ctime_ns };
                Ok(done(Some(DiskState { ctime_ns, ..state }), None))
            }
            // Edited since the check: the edit has moved along, and a scan takes it up there.
            _ => Ok(done(Some(DiskState { ctime_ns: 0, ..*expect }), Some(to.clone()))),
        }
    }

    /// Sets mode and mtime of what stands there. The mtime of a directory is its own affair.
    pub fn set_metadata(
        &mut self,
        path: &RelPath,
        expect: &DiskState,
        mtime_ns: i64,
        mode: u32,
    ) -> Result<Outcome, Stop> {
        let target = self.source(path)?;
        let found = match self.look(&target, path)? {
            Some(found) if is_expected(&found, expect) => found,
            _ => return Err(Stop::Changed),
        };
        (self.at)(Step::Checked, path);
        let state = change_metadata(&target, &found, mtime_ns, mode).map_err(|errno| match errno {
            errno if is_absence(errno) => Stop::Changed,
            other => failed(problem("set its mode or time", other)),
        })?;
        self.touch(Area::Tree, path);
        self.adjust(path, &found, &state);
        let as_asked = DiskState { mtime_ns: state.mtime_ns, ..found };
        if state.is_same_file_as(&as_asked) {
            // What could not be relied on before cannot be now.
            let ctime_ns = if expect.ctime_ns == 0 { 0 } else { state.ctime_ns };
            return Ok(done(Some(self.as_set(DiskState { ctime_ns, ..state }, mode)), None));
        }
        // Of a directory nothing but its mode tells one from another, so this one has to be looked at anew.
        if found.kind == DiskKind::Directory {
            return Err(Stop::Changed);
        }
        Ok(done(Some(DiskState { ctime_ns: 0, ..found }), Some(path.clone())))
    }

    /// The place of something that is taken from where it stands: if even its directory is gone, it has changed.
    fn source(&self, path: &RelPath) -> Result<Place, Stop> {
        self.root.place(Area::Tree, path).map_err(|errno| match errno {
            errno if is_absence(errno) => Stop::Changed,
            other => failed(problem("open its directory", other)),
        })
    }

    fn rename(&mut self, from: &RelPath, source: &Place, target: &Place, expect: &DiskState) -> Result<(), Errno> {
        match sys::rename_noreplace(source, target) {
            // A disk that folds names finds the file itself under its new spelling.
            Err(Errno::EXIST) if self.root.folds() => match target.state() {
                Ok(Some(state)) if state.inode == expect.inode => {
                    source.dir.rename(&source.name, &*target.dir, &target.name)
                }
                _ => Err(Errno::EXIST),
            },
            Err(errno) if sys::is_unsupported(errno) => self.rename_through_history(from, source, target),
            renamed => renamed,
        }
    }

    /// Where a rename may replace: by way of the history, so that neither side of the user's can get lost.
    pub(super) fn rename_through_history(
        &mut self,
        from: &RelPath,
        source: &Place,
        target: &Place,
    ) -> Result<(), Errno> {
        let (name, place) = history::move_to_slot(self.root, source, from, Shown::Nothing, self.context.now_ms)?;
        self.touch(Area::History, &name);
        let slot = InSlot { name, place };
        sys::rename_from_own(&slot.place, target).inspect_err(|_| {
            if sys::rename_from_own(&slot.place, source).is_err() {
                self.rescue(from, &slot);
            }
        })
    }
}

/// Sets what differs, and says what stands there afterwards.
fn change_metadata(place: &Place, found: &DiskState, mtime_ns: i64, mode: u32) -> Result<DiskState, Errno> {
    let is_directory = found.kind == DiskKind::Directory;
    let mode = full_mode(found.kind, mode);
    if found.kind != DiskKind::Symlink && found.mode & MODE_MASK != mode {
        place.chmod(mode)?;
        failpoint::hit("apply.mode_set");
    }
    let now = place.state()?.ok_or(Errno::NOENT)?;
    if is_directory || now.mtime_ns == mtime_ns || !now.is_same_file_as(found) {
        return Ok(now);
    }
    place.set_mtime(mtime_ns)?;
    let now = place.state()?.ok_or(Errno::NOENT)?;
    // A write between the look and this would have lost its only trace, so the next scan reads the file.
    Ok(DiskState { ctime_ns: 0, ..now })
}

/// The mode that is set where this one is asked for.
fn full_mode(kind: DiskKind, mode: u32) -> u32 {
    if kind == DiskKind::Directory { mode & MODE_MASK | OWNER_BITS } else { mode & MODE_MASK }
}

fn done(disk: Option<DiskState>, rescued: Option<RelPath>) -> Outcome {
    Outcome::Done { disk, displaced: None, conflict: None, rescued }
}
