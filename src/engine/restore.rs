//! Changes to the folder that its user orders: versions brought back from history, files put aside or renamed.
//!
//! What lies where something is to come goes into history first, in a way that tells what it was; a file that changes
//! at this moment stays as it is. The scan that follows takes up what was done as it would a change by any program.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::shared::Shared;
use crate::core::action::{Action, Displace, Expected, Outcome, Slot};
use crate::core::content::{Content, ContentId};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::apply::{ApplyContext, apply};
use crate::fs::history::{self, Incoming, RestoreError};
use crate::fs::read::{self, ReadOutcome};
use crate::fs::root::OpenRoot;
use crate::index::{HistoryRow, Mark, Reader, Record};

/// Made on this device.
const OWN: Option<DeviceId> = Some(DeviceId::NONE);
use crate::net::frame::PastVersion;
use crate::sync::Input;

/// Copies a version back as the folder has decided. Where something stands at the path it stays; the path is looked at
/// in any case.
pub fn copy_back(shared: &Shared, slot: &RelPath, path: &RelPath) {
    let opened = shared.root.open().map_err(|e| e.to_string());
    let restored = opened.and_then(|root| {
        history::restore(&root, slot, path, shared.clock.wall_ms()).map_err(|error| error.to_string())
    });
    if let Err(error) = restored {
        tracing::warn!(folder = %shared.label, %path, error, "could not bring a file back from history");
    }
    shared.hints.request(vec![path.clone()]);
}

/// Puts a version from history under its old name, because the user wants it; what lies there goes into history first.
/// Says what was done, or what was in the way.
pub fn bring_back(shared: &Shared, version: &HistoryRow) -> Result<String, String> {
    let path = &version.path;
    let change = Change::begin(shared)?;
    let done = change.bring_back(&version.slot, path);
    shared.hints.request(vec![path.clone()]);
    done.map(|_| format!("{path} is back as it was"))
}

/// A change that the user has ordered, to any number of paths.
pub struct Change<'a> {
    shared: &'a Shared,
    root: OpenRoot,
    /// `None` where the index can't be read now: then what lies there is read instead.
    reader: Option<Reader>,
    /// All that this change displaces is displaced at one time, ms since 1970.
    pub now_ms: i64,
}

impl<'a> Change<'a> {
    pub fn begin(shared: &'a Shared) -> Result<Self, String> {
        let root = shared.root.open().map_err(|e| e.to_string())?;
        let reader = Reader::open(&shared.index_path).ok();
        Ok(Self { shared, root, reader, now_ms: shared.clock.wall_ms() })
    }

    /// Puts a copy of what is in a slot at a path; what lies there goes into history first. Says where that is there.
    pub fn bring_back(&self, slot: &RelPath, path: &RelPath) -> Result<Option<RelPath>, String> {
        let incoming = history::copy_out(&self.root, slot, self.now_ms).map_err(|error| match error {
            RestoreError::Failed(_) => format!("{path} could not be brought back: {error}"),
            _ => format!("{path}: {}", RestoreError::Gone),
        })?;
        self.put(incoming, path)
    }

    /// Puts a copy of any file of this device at a path; what lies there goes into history first.
    pub fn bring_in(&self, from: &Path, path: &RelPath) -> Result<(), String> {
        let failed = |error: RestoreError| format!("{} could not be put at {path}: {error}", from.display());
        let incoming = history::copy_in(&self.root, from, self.now_ms).map_err(failed)?;
        self.put(incoming, path).map(drop)
    }

    /// Puts what has been copied completely at a path; what lies there goes into history first.
    fn put(&self, incoming: Incoming, path: &RelPath) -> Result<Option<RelPath>, String> {
        let is_there = self.look(path).map(|there| there.is_some());
        let is_free = is_there.and_then(|there| if there { self.set_aside(path).map(Some) } else { Ok(None) });
        let displaced = is_free.inspect_err(|_| incoming.discard(&self.root))?;
        failpoint::hit("restore.set_aside");
        match incoming.place(&self.root, path) {
            Ok(()) => Ok(displaced),
            Err(error) => {
                displaced.iter().for_each(|slot| self.put_back(slot, path));
                Err(match error {
                    RestoreError::Taken => format!("something new lies at {path}; try again"),
                    error => format!("{path} could not be brought back: {error}"),
                })
            }
        }
    }

    /// What was set aside returns, because what was to take its place did not come.
    pub fn put_back(&self, slot: &RelPath, path: &RelPath) {
        if let Err(error) = history::restore(&self.root, slot, path, self.now_ms) {
            tracing::warn!(folder = %self.shared.label, %path, %error, "it stays in history");
        }
    }

    /// Puts a file that was fetched into the stage at its path, in one step with what lies there, which goes into history.
    pub fn place_fetched(&self, version: &PastVersion, copy: u32) -> Result<(), String> {
        let path = &version.path;
        let (disk, known) = match self.look(path)? {
            Some(disk) if disk.kind == DiskKind::Directory => {
                return Err(format!("a directory lies at {path}; move it away first"));
            }
            Some(disk) => (Some(disk), self.known(path, &disk)?),
            None => {
                (None, Known { id: None, content: None, author: self.shared.device, brought_by: OWN, placed_ms: None })
            }
        };
        let expect = disk.map(|disk| Expected { disk, content: known.id, displace: known.displace() });
        history::make_above(&self.root, path).map_err(|e| format!("{path} could not be brought back: {e}"))?;
        let action = Action::PlaceFile {
            path: path.clone(),
            content: version.content,
            copy,
            mtime_ns: version.mtime_ns,
            mode: version.mode,
            expect,
        };
        match self.apply(action)? {
            Outcome::Done { displaced, .. } => {
                if let Some(slot) = displaced {
                    self.tell_displaced(path, slot, known);
                }
                Ok(())
            }
            Outcome::Failed(problem) => Err(format!("{path}: {}", problem.text)),
            _ => Err(format!("{path} is changing right now; try again")),
        }
    }

    fn tell_displaced(&self, path: &RelPath, slot: Slot, known: Known) {
        let row = HistoryRow {
            slot: slot.name,
            path: path.clone(),
            content: known.content,
            disk: slot.disk,
            author: known.author,
            displaced_ms: self.now_ms,
            by_remote: false,
            brought_by: known.brought_by,
            displaced_by: OWN,
            placed_ms: known.placed_ms,
        };
        self.shared.send(Input::History { found: vec![row], expired: Vec::new() });
    }

    /// Moves what lies at a path into history, as a deletion does. Says where it is there.
    pub fn set_aside(&self, path: &RelPath) -> Result<RelPath, String> {
        let disk = self.root.look(path).map_err(|p| p.text)?.ok_or_else(|| format!("{path} has just gone"))?;
        if disk.kind == DiskKind::Directory {
            return Err(format!("a directory lies at {path}; move it away first"));
        }
        let known = self.known(path, &disk)?;
        let expect = Expected { disk, content: known.id, displace: known.displace() };
        match self.apply(Action::Remove { path: path.clone(), expect })? {
            Outcome::Done { displaced: Some(slot), .. } => {
                let name = slot.name.clone();
                self.tell_displaced(path, slot, known);
                Ok(name)
            }
            Outcome::Failed(problem) => Err(format!("{path}: {}", problem.text)),
            _ => Err(format!("{path} is changing right now; try again")),
        }
    }

    /// Renames a file; where something stands at the new name, nothing is done and the answer is false.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> Result<bool, String> {
        if self.root.look(to).map_err(|p| p.text)?.is_some() {
            return Ok(false);
        }
        let disk = self.root.look(from).map_err(|p| p.text)?.ok_or_else(|| format!("{from} has just gone"))?;
        let (from, to) = (from.clone(), to.clone());
        let text = format!("{from} could not be renamed to {to}");
        history::make_above(&self.root, &to).map_err(|e| format!("{text}: {e}"))?;
        let action = Action::Move { from, to, expect: disk, mtime_ns: disk.mtime_ns, mode: disk.mode };
        match self.apply(action)? {
            Outcome::Done { .. } => Ok(true),
            Outcome::Failed(problem) => Err(format!("{text}: {}", problem.text)),
            _ => Err(format!("{text}: it is changing right now; try again")),
        }
    }

    /// Removes a directory if nothing is in it.
    pub fn remove_if_empty(&self, directory: &RelPath) {
        let _ = self.apply(Action::RemoveDirectory { path: directory.clone() });
    }

    /// What lies at a path now.
    pub fn look(&self, path: &RelPath) -> Result<Option<DiskState>, String> {
        self.root.look(path).map_err(|p| p.text)
    }

    fn apply(&self, action: Action) -> Result<Outcome, String> {
        let context = ApplyContext { device: self.shared.device, now_ms: self.now_ms };
        let outcome = apply(&self.root, &context, vec![(0, action)]).outcomes.pop();
        outcome.map(|(_, outcome)| outcome).ok_or_else(|| "nothing was done".to_owned())
    }

    /// What the file is that lies there: what the index says where that is sure, else what reading it says. Of what the
    /// index does not announce just so, history notes no content: from there it would be told to others and served.
    fn known(&self, path: &RelPath, disk: &DiskState) -> Result<Known, String> {
        let own = self.shared.device;
        if disk.kind != DiskKind::File {
            return Ok(Known { id: None, content: None, author: own, brought_by: OWN, placed_ms: None });
        }
        let record = self.reader.as_ref().and_then(|reader| reader.record(path).ok().flatten());
        let is_as_announced =
            |r: &Record| r.mark == Mark::Here && r.disk.is_some_and(|seen| disk.is_unchanged_since(&seen));
        let announced = record.filter(is_as_announced);
        if let Some(Record { entry, brought_by, placed_ms, .. }) = announced
            && let Some(content) = entry.kind.content()
        {
            let (id, author) = (Some(content.id), entry.author);
            return Ok(Known { id, content: Some(content), author, brought_by, placed_ms });
        }
        let now_ns = self.now_ms.saturating_mul(1_000_000);
        match read::examine(&self.root, path, now_ns, &mut Vec::new(), &AtomicBool::new(false)) {
            ReadOutcome::Hashed(hashed) => {
                Ok(Known { id: Some(hashed.content.id), content: None, author: own, brought_by: OWN, placed_ms: None })
            }
            ReadOutcome::Failed(problem) => Err(format!("{path}: {}", problem.text)),
            _ => Err(format!("{path} is changing right now; try again")),
        }
    }
}

struct Known {
    id: Option<ContentId>,
    content: Option<Content>,
    author: DeviceId,
    brought_by: Option<DeviceId>,
    placed_ms: Option<i64>,
}

impl Known {
    fn displace(&self) -> Displace {
        if self.id.is_some() && self.content.is_none() { Displace::PrivateHistory } else { Displace::History }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::EpochId;
    use crate::engine::shared::Event;
    use crate::engine::testing::{folder, path};
    use crate::index::Index;

    #[test]
    fn what_is_set_aside_is_noted_in_history_and_shows_its_content_in_its_name() {
        let (_dir, shared, mut inputs) = folder("");
        drop(Index::open(&shared.index_path, EpochId(1)).unwrap());
        let place = shared.root.path().join("a");
        std::fs::write(&place, b"never scanned").unwrap();
        let change = Change::begin(&shared).unwrap();
        change.set_aside(&path("a")).unwrap();
        assert!(!place.exists());
        match inputs.try_recv() {
            Ok(Event::Input(Input::History { found, .. })) => {
                assert!(!found[0].by_remote);
                assert!(history::shown_content(&found[0].slot).is_some_and(|shown| !shown.is_empty()));
                change.bring_back(&found[0].slot, &path("a")).unwrap();
            }
            _ => panic!("nothing was told"),
        }
        assert_eq!(std::fs::read(&place).unwrap(), b"never scanned");
    }

    #[test]
    fn a_file_from_elsewhere_takes_the_place_of_one_that_goes_into_history() {
        let (dir, shared, mut inputs) = folder("");
        drop(Index::open(&shared.index_path, EpochId(1)).unwrap());
        let (place, outside) = (shared.root.path().join("a"), dir.path().join("merged"));
        std::fs::write(&place, b"old").unwrap();
        std::fs::write(&outside, b"merged").unwrap();
        let change = Change::begin(&shared).unwrap();
        change.bring_in(&outside, &path("a")).unwrap();
        assert_eq!((std::fs::read(&place).unwrap(), outside.exists()), (b"merged".to_vec(), true));
        assert!(matches!(inputs.try_recv(), Ok(Event::Input(Input::History { .. }))));
        assert!(change.bring_in(&dir.path().join("none"), &path("a")).is_err());
        assert_eq!(std::fs::read(&place).unwrap(), b"merged");
        std::fs::create_dir(shared.root.path().join("d")).unwrap();
        assert!(change.bring_in(&outside, &path("d")).unwrap_err().contains("directory"));
        assert_eq!(std::fs::read_dir(shared.root.path().join(".p2psync/stage")).unwrap().count(), 0);
        assert!(!change.rename(&path("a"), &path("d")).unwrap());
        assert!(change.rename(&path("a"), &path("d/b")).unwrap());
        change.remove_if_empty(&path("d"));
        assert!(shared.root.path().join("d/b").exists());
    }

    #[test]
    fn what_is_not_told_to_others_is_not_told_from_history_either() {
        let (_dir, shared, mut inputs) = folder("");
        let change = |name: &str, is_scanned: bool, mark: Mark| {
            std::fs::write(shared.root.path().join(name), b"private").unwrap();
            let disk = shared.root.open().unwrap().look(&path(name)).unwrap().filter(|_| is_scanned);
            let mut entry = Entry::nothing(path(name));
            entry.kind = Kind::File(Content::of_chunk(b"of all"));
            Index::open(&shared.index_path, EpochId(1)).unwrap().put(&entry, disk, mark, 1).unwrap();
        };
        for (name, is_scanned, mark) in
            [("own", true, Mark::Own), ("ignored", false, Mark::Ignored), ("edited", false, Mark::Here)]
        {
            change(name, is_scanned, mark);
            Change::begin(&shared).unwrap().set_aside(&path(name)).unwrap();
            let Ok(Event::Input(Input::History { found, .. })) = inputs.try_recv() else { panic!("nothing was told") };
            assert_eq!((found[0].content, history::is_private(&found[0].slot)), (None, true), "{name}");
        }
    }

    #[test]
    fn a_file_stays_in_its_place_where_what_is_to_come_cannot_be_copied() {
        let (_dir, shared, _inputs) = folder("");
        drop(Index::open(&shared.index_path, EpochId(1)).unwrap());
        let place = shared.root.path().join("a");
        std::fs::write(&place, b"mine").unwrap();
        std::fs::create_dir_all(shared.root.path().join(".p2psync/history/a~1")).unwrap();
        assert!(Change::begin(&shared).unwrap().bring_back(&path("a~1"), &path("a")).is_err());
        assert_eq!(std::fs::read(&place).unwrap(), b"mine");
    }
}
