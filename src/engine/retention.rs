//! Lets versions go from history when their time is over.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use super::apply::beside;
use super::shared::FolderHandle;
use crate::fs::history;
use crate::fs::root::OpenRoot;
use crate::index::{HistoryRow, Reader};
use crate::sync::Input;

/// How often history is looked through.
const EVERY: Duration = Duration::from_secs(3600);
/// The same where not all that was due went at once.
const SOON: Duration = Duration::from_secs(5);
/// Slots that go in one step.
const BATCH: usize = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Starts the thread. `days` of 0 keeps everything. It ends once `stop` is set and it is unparked.
pub fn spawn(handle: FolderHandle, days: u32) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("retention".into()).spawn(move || {
        let mut due = handle.clock.instant() + EVERY;
        while !handle.stop.load(Ordering::Relaxed) {
            thread::park_timeout(due.saturating_duration_since(handle.clock.instant()));
            if handle.clock.instant() < due {
                continue;
            }
            let opened = Reader::open(&handle.index_path).map_err(|e| e.to_string());
            let looked = match days {
                0 => Ok(false),
                days => opened.and_then(|reader| expire(&handle, &reader, i64::from(days) * DAY_MS)),
            };
            let pause = match looked {
                Ok(true) => SOON,
                Ok(false) => EVERY,
                Err(error) => {
                    tracing::warn!(folder = %handle.label, error, "could not look through history");
                    EVERY
                }
            };
            due = handle.clock.instant() + pause;
        }
    })
}

/// Takes away slots that were displaced longer ago than `age_ms`. True where there are more.
pub fn expire(handle: &FolderHandle, reader: &Reader, age_ms: i64) -> Result<bool, String> {
    let root = handle.root.open().map_err(|e| e.to_string())?;
    let rows = reader.history_older(handle.clock.wall_ms() - age_ms, BATCH).map_err(|e| e.to_string())?;
    let (count, mut expired) = (rows.len(), Vec::new());
    for row in rows {
        match take_away(handle, &root, &row) {
            Ok(()) => expired.push(row.slot),
            Err(error) => tracing::warn!(folder = %handle.label, slot = %row.slot, error, "it stays in history"),
        }
    }
    let is_all = count < BATCH || expired.is_empty();
    handle.send(Input::History { found: Vec::new(), expired });
    Ok(!is_all)
}

fn take_away(handle: &FolderHandle, root: &OpenRoot, row: &HistoryRow) -> Result<(), String> {
    match history::look(root, &row.slot).map_err(|p| p.text)? {
        // A program that still had the file open has gone on writing: it is no old version any more.
        Some(disk) if !disk.is_same_file_as(&row.disk) => {
            let copy = beside(root, &row.slot, &row.path, &disk, handle.device, None).map_err(|e| e.to_string())?;
            handle.hints.request(vec![copy]);
            Ok(())
        }
        Some(_) => history::expire(root, &row.slot).map_err(|p| p.text),
        None => Ok(()),
    }
}
