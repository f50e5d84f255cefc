//! Looks at the disk: everything from time to time, single paths when the watcher hints or the folder asks.
//!
//! | file | does |
//! | --- | --- |
//! | `sweep` | compares a tree on the disk with the index, as two sorted streams |
//! | `paths` | looks at the paths that wait in [`super::hints`] |
//! | `departed` | remembers what has just left its place, so that it need not be read at its new one |
//! | `examine` | reads what has changed, on several threads, and reports it |
//!
//! Architecture invariant: nothing is reported as absent because of a look at a folder that is not there. Every
//! absence is seen a second time, in a folder that has just been opened by its path and has its marker.
//!
//! Architecture invariant: a path is claimed from before the look at it until the folder has taken in what is reported
//! of it. So reports of one path come in the order of the looks, and whether something is news is decided against an
//! index that knows of the look before.

mod departed;
mod examine;
pub(super) mod paths;
mod sweep;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use departed::Departed;

use super::hints::FullJob;
use super::recover::Ledger;
use super::shared::{FolderHandle, LookError, Shared};
use super::{manners, rules, start};
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::fs::root::OpenRoot;
use crate::fs::walk::Walked;
use crate::fs::watch::{Watch, WatchEvent};
use crate::index::{HistoryRow, Reader};
use crate::sabotage::{self, Bug};
use crate::sync::{Input, Observation, Seen};

/// How often everything is looked at where changes are not heard of.
const UNWATCHED_EVERY: Duration = Duration::from_secs(60);
/// How often a folder that was not there is looked for.
const GONE_EVERY: Duration = Duration::from_secs(2);
/// How long after a scan that failed the next one is tried.
const FAILED_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before the index is tried again.
const INDEX_EVERY: Duration = Duration::from_millis(500);
/// Rows of trouble with reading that a scan has looked at again.
const PROBLEMS_MAX: usize = 1000;

/// Starts watching and scanning a folder. The threads end once `stop` is set and the hints are woken.
pub fn spawn(handle: FolderHandle, rescan_every: Duration) -> Vec<JoinHandle<()>> {
    let paths = handle.clone();
    let full = move || run(FullScans::new(handle, rescan_every));
    vec![start_thread("scan-paths", move || paths::run(&paths)), start_thread("scan-all", full)]
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.expect("a system that runs this program has room for its threads")
}

/// Opens the index, waiting for it if need be; `None` once the folder stops.
fn open_reader(shared: &Shared) -> Option<Reader> {
    let mut is_told = false;
    while !shared.stop.load(Ordering::Relaxed) {
        match Reader::open(&shared.index_path) {
            Ok(reader) => return Some(reader),
            Err(error) if !is_told => {
                tracing::warn!(folder = %shared.label, error = &error as &dyn Error, "the index can't be read yet");
                is_told = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(INDEX_EVERY);
    }
    None
}

/// Scans the whole folder, and halts it while it is not there.
pub(super) struct FullScans {
    handle: FolderHandle,
    rescan_every: Duration,
    /// The watch has missed something or lost its directory.
    is_watch_stale: Arc<AtomicBool>,
    /// What was told last: that the folder is there, or why it is not. `None` before the first look: a run that ended
    /// while the folder was away has left a note that says so.
    told: Option<Option<String>>,
    /// When the next scan is due if nobody asks for one.
    due: Instant,
    /// Nobody waits for the scan under way.
    is_gentle: bool,
}

/// The thread that does so, with the watch.
fn run(mut scans: FullScans) {
    let handle = scans.handle.clone();
    let Some(reader) = open_reader(&handle) else { return };
    let (mut watch, is_stale) = (None, Arc::clone(&scans.is_watch_stale));
    loop {
        let wait = scans.due.saturating_duration_since(handle.clock.instant());
        match handle.hints.next_full(&handle.stop, wait) {
            FullJob::Stop => return,
            FullJob::Asked(reason) => {
                tracing::debug!(folder = %handle.label, reason, "scan");
                scans.is_gentle = false;
            }
            // The first one is what everybody waits for.
            FullJob::Due => scans.is_gentle = scans.told.is_some(),
        }
        scans.once(&reader, &mut |root| match root {
            Some(root) => renew_watch(&handle, &mut watch, &is_stale, root),
            None => watch = None,
        });
    }
}

/// Starts the watch where there is none that can be relied on. Changes from then on become hints.
fn renew_watch(handle: &FolderHandle, watch: &mut Option<Watch>, is_stale: &Arc<AtomicBool>, root: &OpenRoot) {
    let is_partial = handle.live.is_watch_partial.swap(false, Ordering::Relaxed);
    if !is_stale.swap(false, Ordering::Relaxed) && !is_partial && watch.is_some() {
        return;
    }
    *watch = None;
    set_watch_text(
        handle,
        root.is_network_fs().map(|kind| {
            format!("the folder lies on a network disk ({kind}), where changes are found by scanning only")
        }),
    );
    let (hearing, stale) = (handle.clone(), Arc::clone(is_stale));
    match Watch::start(&handle.root, move |event| heard(&hearing, &stale, event)) {
        Ok(started) => *watch = Some(started),
        Err(problem) => set_watch_text(handle, Some(problem.text)),
    }
}

impl FullScans {
    /// The first scan is due at once.
    pub fn new(handle: FolderHandle, rescan_every: Duration) -> Self {
        let due = handle.clock.instant();
        Self { handle, rescan_every, is_watch_stale: Arc::default(), told: None, due, is_gentle: false }
    }

    /// Scans the whole folder once, if it is there. `watch` is told before, so that nothing is missed between the scan
    /// and what is heard afterwards. True where everything was seen and reported.
    pub fn once(&mut self, reader: &Reader, watch: &mut dyn FnMut(Option<&OpenRoot>)) -> bool {
        let Some(root) = self.open(reader) else {
            watch(None);
            self.due = self.handle.clock.instant() + GONE_EVERY;
            return false;
        };
        watch(Some(&root));
        let is_complete = self.scan(&root, reader);
        drop(root);
        self.due = self.handle.clock.instant() + if is_complete { self.pause() } else { FAILED_EVERY };
        is_complete
    }

    /// Opens the folder; says so where it is not there, and where it has come back.
    fn open(&mut self, reader: &Reader) -> Option<OpenRoot> {
        let handle = &self.handle;
        // Before anything is done in it again.
        let opened = start::put_right(handle, &mut Told { handle, reader }).and_then(|()| Ok(handle.root.open()?));
        match opened {
            Ok(root) => {
                rules::catch_up(handle, reader);
                if self.told.replace(None) != Some(None) {
                    handle.send(Input::Halted(None));
                }
                Some(root)
            }
            Err(_) if sabotage::is(Bug::MissingRootIsDeletion) => {
                let records = reader.records_from(None, None, PROBLEMS_MAX).unwrap_or_default().into_iter();
                let gone = records.map(|record| Observation { path: record.entry.path, seen: Seen::Absent });
                handle.send(Input::Observed(gone.collect()));
                None
            }
            Err(error) => {
                // Nobody saw how they changed meanwhile.
                handle.rules_stale.store(true, Ordering::Relaxed);
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                let text = Some(format!("{error}{cause}; it goes on by itself once this is put right"));
                if self.told.replace(text.clone()) != Some(text.clone()) {
                    handle.send(Input::Halted(text));
                }
                None
            }
        }
    }

    /// True where everything was seen and reported.
    fn scan(&self, root: &OpenRoot, reader: &Reader) -> bool {
        let shared: &Shared = &self.handle;
        let suspicious = shared.suspicious_boot.swap(false, Ordering::Relaxed);
        let begun = shared.clock.instant();
        shared.progress.scan_begins();
        shared.live.scanning.store(true, Ordering::Relaxed);
        let is_gentle = self.is_gentle && shared.gentle_scans.load(Ordering::Relaxed);
        let complete = shared.send(Input::ScanStarted { suspicious })
            && if is_gentle { self.sweep_gently(root) } else { self.sweep(root, reader) };
        shared.live.scanning.store(false, Ordering::Relaxed);
        if !complete {
            // What this scan did not come to is as suspicious in the next.
            shared.suspicious_boot.fetch_or(suspicious, Ordering::Relaxed);
        }
        shared.send(Input::ScanFinished { complete });
        tracing::debug!(folder = %shared.label, complete, seconds = (shared.clock.instant() - begun).as_secs_f32(), "scanned");
        complete
    }

    /// A reader belongs to one thread, so the gentle one opens its own.
    fn sweep_gently(&self, root: &OpenRoot) -> bool {
        manners::gently(|| open_reader(&self.handle).is_some_and(|reader| self.sweep(root, &reader)))
    }

    fn sweep(&self, root: &OpenRoot, reader: &Reader) -> bool {
        let shared: &Shared = &self.handle;
        match sweep::whole(shared, root, reader).and_then(|walked| {
            look_at_problems(shared, reader, None)?;
            Ok(walked)
        }) {
            Ok(Some(walked)) => {
                tell_refused(shared, &walked);
                true
            }
            Ok(None) => false,
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                set_watch_text(
                    shared,
                    Some(format!("the last scan was broken off and is tried again: {error}{cause}")),
                );
                // The next scan begins with a fresh watch, and takes this back.
                self.is_watch_stale.store(true, Ordering::Relaxed);
                // Where it is gone that is to be told at once. Where it only can't be read, the next try may wait.
                if matches!(error, LookError::Fs(_)) && shared.root.open().is_err() {
                    shared.hints.request_full("the folder could not be scanned");
                }
                false
            }
        }
    }

    /// The time to the next scan, a different one each time so that many folders don't keep step.
    fn pause(&self) -> Duration {
        let is_watched = lock_watch_text(&self.handle).is_none();
        let every = if is_watched { self.rescan_every } else { self.rescan_every.min(UNWATCHED_EVERY) };
        let random = self.handle.clock.now().random;
        every.mul_f64(0.75 + 0.5 * (random as f64 / u64::MAX as f64))
    }
}

/// For whoever has no thread, and a watch of another kind.
#[cfg(feature = "testing")]
impl FullScans {
    /// When the next scan is due if nobody asks for one.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// What a watch says.
    pub fn heard(&self, event: WatchEvent) {
        heard(&self.handle, &self.is_watch_stale, event);
    }

    /// Takes back what was said about a watch that could not be relied on.
    pub fn renew(&self) {
        if self.is_watch_stale.swap(false, Ordering::Relaxed) {
            set_watch_text(&self.handle, None);
        }
    }
}

fn heard(handle: &Shared, is_stale: &AtomicBool, event: WatchEvent) {
    let look_at_all = |reason: &str| {
        is_stale.store(true, Ordering::Relaxed);
        handle.hints.request_full(reason);
    };
    match event {
        WatchEvent::Hint { path, closed } => handle.hints.hint(path, closed, handle.clock.instant()),
        WatchEvent::Overflow => look_at_all("changes were missed"),
        WatchEvent::RootGone => look_at_all("the folder's directory or marker was removed"),
        WatchEvent::Failed(problem) => set_watch_text(handle, Some(problem.text)),
    }
}

fn set_watch_text(shared: &Shared, text: Option<String>) {
    let mut shown = lock_watch_text(shared);
    if let Some(text) = text.as_deref().filter(|text| shown.as_deref() != Some(*text)) {
        tracing::warn!(folder = %shared.label, "{text}");
    }
    *shown = text;
}

fn lock_watch_text(shared: &Shared) -> std::sync::MutexGuard<'_, Option<String>> {
    shared.live.watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Trouble with reading may be over, or its path gone, without any sign that a scan would notice. Has all of it looked at
/// again that is below a directory, or everywhere.
fn look_at_problems(shared: &Shared, reader: &Reader, below: Option<&RelPath>) -> Result<(), LookError> {
    let reading = [ProblemKind::SpecialFile, ProblemKind::Permission, ProblemKind::Io, ProblemKind::Busy];
    let rows = reader.problems_below(below, ProblemKind::NoSource, PROBLEMS_MAX)?.into_iter();
    let paths: Vec<_> = rows.filter(|r| reading.contains(&r.problem.kind)).map(|r| r.path).collect();
    if !paths.is_empty() {
        shared.hints.request(paths);
    }
    Ok(())
}

fn tell_refused(shared: &Shared, walked: &Walked) {
    if let Some(first) = walked.refused.first() {
        tracing::warn!(
            folder = %shared.label, count = walked.refused_count, first = first.display, why = %first.why,
            "names that can't be synced"
        );
    }
}

/// A folder that runs: its thread is told what lies in its history.
struct Told<'a> {
    handle: &'a FolderHandle,
    reader: &'a Reader,
}

impl Ledger for Told<'_> {
    fn reader(&self) -> &Reader {
        self.reader
    }

    fn note(&mut self, found: Vec<HistoryRow>) {
        self.handle.send(Input::History { found, expired: Vec::new() });
    }
}
