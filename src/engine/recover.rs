//! After an unclean shutdown: what lies in history and the index does not account for.
//!
//! A swap that was cut off leaves a file in a slot that no row describes: the new file, which was about to go to its
//! place; the old one, which came out; or an edit that a user made at that moment. Nothing of it is removed. What is
//! known to be an old version is accounted for, what was staged goes back there, and everything else comes back
//! beside its path, where the next scan finds it.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use super::apply::beside;
use crate::core::content::{Content, ContentId};
use crate::core::decide::{Decision, Found, decide};
use crate::core::disk::DiskState;
use crate::core::id::{DeviceId, hex};
use crate::core::path::RelPath;
use crate::fs::history;
use crate::fs::read::{self, ReadOutcome};
use crate::fs::root::OpenRoot;
use crate::index::{HistoryRow, IndexError, Reader, Record, Rival};

/// Puts right what a crash left in history. Returns what has to be noted as lying there.
///
/// Where something fails the slot is left as it is; the next start after a crash comes to it again.
pub fn recover(root: &OpenRoot, reader: &Reader) -> Vec<HistoryRow> {
    let mut rows = Vec::new();
    let mut failure = None;
    let mut look = |slot: &RelPath, state: &DiskState| -> Result<(), IndexError> {
        if reader.history_slot(slot)?.is_none()
            && let Some(found) = examine(root, reader, slot, state)?
        {
            rows.extend(carry_out(root, found));
        }
        Ok(())
    };
    let listed = history::slots(root, &mut |batch| {
        let states = batch.iter().filter_map(|seen| Some((&seen.path, seen.state.as_ref().ok()?)));
        for (slot, state) in states {
            if let Err(error) = look(slot, state) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    let path = root.path().display();
    if let Some(error) = failure {
        tracing::warn!(%path, error = &error as &dyn Error, "could not compare the history with the index");
    }
    if let Err(error) = listed {
        tracing::warn!(%path, error = &error as &dyn Error, "could not look through the history");
    }
    rows
}

/// A slot that the index does not account for, with what is to become of it.
struct Unaccounted {
    slot: RelPath,
    path: RelPath,
    displaced_ms: i64,
    disk: DiskState,
    held: Held,
    verdict: Verdict,
}

/// What a slot holds.
#[derive(Clone, Copy)]
struct Held {
    id: ContentId,
    /// `None` for what is not a file.
    content: Option<Content>,
    /// The slot's name shows that the index held just this at the path when it was displaced.
    is_named: bool,
}

/// What stands at the path that a slot came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Nothing,
    /// What the index has there.
    AsIndexed,
    Other,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// An old version by this author: it stays where it is.
    History(DeviceId),
    /// It was on its way to its place.
    Stage(Content),
    /// The present version, taken away for nothing.
    PutBack,
    /// A version that is not to be lost, last changed at this time (ns since 1970) by this author.
    Copy(i64, DeviceId),
}

fn examine(
    root: &OpenRoot,
    reader: &Reader,
    slot: &RelPath,
    disk: &DiskState,
) -> Result<Option<Unaccounted>, IndexError> {
    let Some((path, displaced_ms)) = history::origin(slot) else {
        tracing::warn!(%slot, "something in the history was not put there by this program; it is left alone");
        return Ok(None);
    };
    // Nobody writes here while the agent starts, so the moment of the look does not matter.
    let (id, content) = match read::examine_slot(root, slot, i64::MAX, &mut Vec::new(), &AtomicBool::new(false)) {
        ReadOutcome::Hashed(file) => (file.content.id, Some(file.content)),
        ReadOutcome::Link { target, .. } => (ContentId::of_link(&target), None),
        ReadOutcome::Directory(_) | ReadOutcome::Gone => return Ok(None),
        ReadOutcome::Busy => {
            tracing::warn!(%slot, "a file in the history is being written; it is left alone");
            return Ok(None);
        }
        ReadOutcome::Failed(problem) => {
            tracing::warn!(%slot, %problem, "a file in the history can't be read; it is left alone");
            return Ok(None);
        }
    };
    let is_named = history::shown_content(slot).is_some_and(|shown| hex(&id.0).starts_with(shown));
    let held = Held { id, content, is_named };
    let record = reader.record(&path)?;
    let indexed = record.as_ref().and_then(|record| record.disk);
    let standing = match root.look(&path) {
        Ok(None) => Standing::Nothing,
        Ok(Some(found)) if indexed.is_some_and(|disk| found.is_same_file_as(&disk)) => Standing::AsIndexed,
        _ => Standing::Other,
    };
    let (rivals, found, is_new) = (reader.rivals(&path)?, reader.found()?, !reader.state()?.scanned);
    let verdict = judge(held, disk.mtime_ns, record.as_ref(), &rivals, &found, standing, is_new);
    Ok(Some(Unaccounted { slot: slot.clone(), path, displaced_ms, disk: *disk, held, verdict }))
}

/// Decides what becomes of a slot. `is_new_index` says that the index has not seen the folder yet.
fn judge(
    held: Held,
    mtime_ns: i64,
    record: Option<&Record>,
    rivals: &[Rival],
    found: &Found,
    standing: Standing,
    is_new_index: bool,
) -> Verdict {
    let id = held.id;
    if let Some(Record { entry: ours, .. }) = record {
        let winners = rivals.iter().filter(|rival| decide(ours, &rival.entry, found) == Decision::Take);
        let mut winners = winners.peekable();
        if ours.kind.content_id() == Some(id) {
            // The swap was done but not noted: the version that stands there now is the winner's.
            return match standing {
                _ if winners.peek().is_some() => Verdict::History(ours.author),
                Standing::AsIndexed => Verdict::History(ours.author),
                Standing::Nothing => Verdict::PutBack,
                Standing::Other => Verdict::Copy(ours.mtime_ns, ours.author),
            };
        }
        if ours.superseded.contains(&id) || winners.any(|rival| rival.entry.superseded.contains(&id)) {
            return Verdict::History(DeviceId::NONE);
        }
    }
    if let Some(rival) = rivals.iter().find(|rival| rival.entry.kind.content_id() == Some(id)) {
        // It comes from the stage if the swap has not been done; if it has, a user had the same.
        return match held.content.filter(|content| content.size > 0) {
            Some(content) if standing == Standing::AsIndexed => Verdict::Stage(content),
            _ => Verdict::History(rival.entry.author),
        };
    }
    if held.is_named || (is_new_index && held.content.is_none()) {
        return Verdict::History(DeviceId::NONE);
    }
    Verdict::Copy(mtime_ns, DeviceId::NONE)
}

/// Does what was decided. Returns the row where the slot stays.
fn carry_out(root: &OpenRoot, found: Unaccounted) -> Option<HistoryRow> {
    let Unaccounted { slot, path, disk, held, .. } = &found;
    let done = match found.verdict {
        Verdict::History(author) => return Some(row(&found, author)),
        Verdict::Stage(content) => match history::back_to_stage(root, slot, content) {
            // Staged once more already, so this one is history as good as any.
            Err(history::RestoreError::Taken) => return Some(row(&found, DeviceId::NONE)),
            done => done.map(|()| tracing::info!(%path, "a download that was about to go to its place is ready again")),
        },
        Verdict::PutBack => history::put_back(root, slot, path)
            .map(|_| tracing::info!(%path, "a file that was about to be replaced is back at its place")),
        Verdict::Copy(mtime_ns, author) => {
            let named = DiskState { mtime_ns, ..*disk };
            beside(root, slot, path, &named, author, Some(held.id))
                .map(|copy| tracing::info!(%path, %copy, "kept a version that was found in the history after a crash"))
        }
    };
    if let Err(error) = done {
        tracing::warn!(%slot, %path, %error, "a version found after a crash stays in the history for now");
    }
    None
}

fn row(found: &Unaccounted, author: DeviceId) -> HistoryRow {
    HistoryRow {
        slot: found.slot.clone(),
        path: found.path.clone(),
        content: found.held.content,
        disk: found.disk,
        author,
        displaced_ms: found.displaced_ms,
        by_remote: true,
    }
}
