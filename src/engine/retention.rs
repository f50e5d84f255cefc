//! Lets versions go from history when their time is over, and unfinished downloads that nobody has gone on with.
//!
//! How old things are is not for the wall clock alone to say: see [`Lived`].

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::apply::beside;
use super::fetch::Fetcher;
use super::lived::Lived;
use super::shared::{Event, FolderHandle};
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
/// How long an unfinished download is kept after the last byte of it was written: long enough for a peer that is away
/// for a holiday.
const STAGED_MS: i64 = 14 * DAY_MS;
/// Index note with what the wall clock is believed.
const NOTE_LIVED: &str = "lived";

/// Starts the thread. `days` of 0 keeps all of history. It ends once `stop` is set and it is unparked.
pub fn spawn(handle: FolderHandle, fetcher: Fetcher, days: u32) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("retention".into()).spawn(move || {
        let mut retention = Retention::new(handle.clone());
        let keep_ms = (days > 0).then_some(i64::from(days) * DAY_MS);
        // At first only the time is noted: a start has other things to do.
        let mut due = retention.begin().map_or_else(|error| told(&handle, &error), |()| handle.clock.instant() + EVERY);
        while !handle.stop.load(Ordering::Relaxed) {
            thread::park_timeout(due.saturating_duration_since(handle.clock.instant()));
            if handle.clock.instant() < due {
                continue;
            }
            let opened = Reader::open(&handle.index_path).map_err(|e| e.to_string());
            due = match opened.and_then(|reader| retention.once(&reader, keep_ms)) {
                Ok(is_more) => handle.clock.instant() + if is_more { SOON } else { EVERY },
                Err(error) => told(&handle, &error),
            };
            fetcher.clear(retention.before_ms(STAGED_MS));
        }
    })
}

fn told(handle: &FolderHandle, error: &str) -> Instant {
    tracing::warn!(folder = %handle.label, error, "could not look through history");
    handle.clock.instant() + EVERY
}

/// Looks through history, and knows how time passes.
pub struct Retention {
    handle: FolderHandle,
    lived: Option<Lived>,
    /// When that was, on the clock that only goes forward.
    passed_ms: u64,
}

impl Retention {
    pub fn new(handle: FolderHandle) -> Self {
        let passed_ms = handle.clock.mono_ms();
        Self { handle, lived: None, passed_ms }
    }

    /// Notes how much time has passed since the last run.
    fn begin(&mut self) -> Result<(), String> {
        let reader = Reader::open(&self.handle.index_path).map_err(|e| e.to_string())?;
        self.pass(&reader, None)
    }

    /// Takes away slots that were displaced longer ago than `keep_ms`; `None` keeps all. True where there are more.
    pub fn once(&mut self, reader: &Reader, keep_ms: Option<i64>) -> Result<bool, String> {
        self.pass(reader, keep_ms)?;
        match keep_ms {
            Some(keep_ms) => expire(&self.handle, reader, self.before_ms(keep_ms)),
            None => Ok(false),
        }
    }

    /// What has this time or an earlier one is older than `keep_ms`; ms since 1970 by the wall clock.
    fn before_ms(&self, keep_ms: i64) -> i64 {
        self.lived.as_ref().map_or(i64::MIN, |lived| lived.before_ms(keep_ms))
    }

    /// Time has passed. Without a time for which things are kept, leaps of the clock are remembered for ever.
    fn pass(&mut self, reader: &Reader, keep_ms: Option<i64>) -> Result<(), String> {
        let (wall_ms, mono_ms) = (self.handle.clock.wall_ms(), self.handle.clock.mono_ms());
        let mut lived = match self.lived.take() {
            Some(lived) => lived,
            None => {
                let note = reader.note(NOTE_LIVED).map_err(|e| e.to_string())?;
                note.and_then(|note| Lived::parse(&note)).unwrap_or_else(|| Lived::new(wall_ms))
            }
        };
        lived.pass(wall_ms, mono_ms.saturating_sub(self.passed_ms), keep_ms.unwrap_or(i64::MAX));
        self.passed_ms = mono_ms;
        let _ = self.handle.inputs.blocking_send(Event::Note(NOTE_LIVED, lived.to_string()));
        self.lived = Some(lived);
        Ok(())
    }
}

/// Takes away slots that were displaced before that time (ms since 1970). True where there are more.
fn expire(handle: &FolderHandle, reader: &Reader, before_ms: i64) -> Result<bool, String> {
    let root = handle.root.open().map_err(|e| e.to_string())?;
    let rows = reader.history_older(before_ms, BATCH).map_err(|e| e.to_string())?;
    let (count, mut expired) = (rows.len(), Vec::new());
    for row in rows {
        match take_away(handle, &root, &row) {
            Ok(()) => expired.push(row.slot),
            Err(error) => tracing::warn!(folder = %handle.label, slot = %row.slot, error, "it stays in history"),
        }
    }
    let is_all = count < BATCH || expired.is_empty();
    if !expired.is_empty() {
        handle.send(Input::History { found: Vec::new(), expired });
    }
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
