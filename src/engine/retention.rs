//! Lets versions go from history when their time is over.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::clock;
use super::folder::FolderHandle;
use crate::fs::history;
use crate::index::Reader;
use crate::sync::Input;

/// How often history is looked through.
const EVERY: Duration = Duration::from_secs(3600);
/// Slots that go in one step.
const BATCH: usize = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Starts the thread. `days` of 0 keeps everything. It ends once `stop` is set and it is unparked.
pub fn spawn(handle: FolderHandle, days: u32) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("retention".into()).spawn(move || {
        let mut due = Instant::now() + EVERY;
        while !handle.stop.load(Ordering::Relaxed) {
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
            if days > 0 && Instant::now() >= due {
                due = Instant::now() + EVERY;
                if let Err(error) = expire(&handle, i64::from(days) * DAY_MS) {
                    tracing::warn!(folder = %handle.label, error, "could not look through history");
                }
            }
        }
    })
}

/// Takes away every slot that was displaced longer ago than `age_ms`.
fn expire(handle: &FolderHandle, age_ms: i64) -> Result<(), String> {
    let reader = Reader::open(&handle.index_path).map_err(|e| e.to_string())?;
    let root = handle.root.open().map_err(|e| e.to_string())?;
    let before_ms = clock::wall_ms() - age_ms;
    for row in reader.history_older(before_ms, BATCH).map_err(|e| e.to_string())? {
        // A program that still had the file open may have gone on writing: then it is no old version any more.
        match history::look(&root, &row.slot).map_err(|p| p.text)? {
            Some(disk) if !disk.is_same_file_as(&row.disk) => handle.hints.request(vec![row.path.clone()]),
            Some(_) => history::expire(&root, &row.slot).map_err(|p| p.text)?,
            None => {}
        }
        handle.send(Input::History { found: Vec::new(), expired: vec![row.slot] });
    }
    Ok(())
}
