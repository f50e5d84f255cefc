//! Looks at the disk: everything from time to time, single paths when the watcher hints or the folder asks.
//!
//! | file | does |
//! | --- | --- |
//! | `sweep` | compares a tree on the disk with the index, as two sorted streams |
//! | `paths` | looks at the paths that wait in [`super::hints`] |
//! | `examine` | reads what has changed, on several threads, and reports it |
//!
//! Architecture invariant: nothing is reported as absent because of a look at a folder that is not there. Every
//! absence is seen a second time, in a folder that has just been opened by its path and has its marker.
//!
//! Architecture invariant: a path is claimed from before the look at it until the folder has taken in what is reported
//! of it. So reports of one path come in the order of the looks, and whether something is news is decided against an
//! index that knows of the look before.

mod examine;
mod paths;
mod sweep;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::folder::{FolderHandle, Shared};
use super::hints::FullJob;
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::fs::error::FsError;
use crate::fs::root::OpenRoot;
use crate::fs::walk::Walked;
use crate::fs::watch::{Watch, WatchEvent};
use crate::index::{IndexError, Reader};
use crate::sync::Input;

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

/// Why a scan was broken off.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Starts watching and scanning a folder. The threads end once `stop` is set and the hints are woken.
pub fn spawn(handle: FolderHandle, rescan_every: Duration) -> Vec<JoinHandle<()>> {
    let paths = handle.clone();
    let full = move || FullScans::new(handle, rescan_every).run();
    vec![start("scan-paths", move || paths::run(&paths)), start("scan-all", full)]
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
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

/// The thread that scans the whole folder, watches it, and halts it while it is not there.
struct FullScans {
    handle: FolderHandle,
    rescan_every: Duration,
    watch: Option<Watch>,
    /// The watch has missed something or lost its directory.
    is_watch_stale: Arc<AtomicBool>,
    /// `None` before the first look: a run that ended while the folder was away has left a note that says so.
    is_there: Option<bool>,
}

impl FullScans {
    fn new(handle: FolderHandle, rescan_every: Duration) -> Self {
        Self { handle, rescan_every, watch: None, is_watch_stale: Arc::default(), is_there: None }
    }

    fn run(mut self) {
        let handle = self.handle.clone();
        let Some(reader) = open_reader(&handle) else { return };
        let mut wait = Duration::ZERO;
        loop {
            match handle.hints.next_full(&handle.stop, wait) {
                FullJob::Stop => return,
                FullJob::Asked(reason) => tracing::debug!(folder = %handle.label, reason, "scan"),
                FullJob::Due => {}
            }
            let Some(root) = self.open() else {
                wait = GONE_EVERY;
                continue;
            };
            self.watch(&root);
            let is_complete = self.scan(&root, &reader);
            drop(root);
            wait = if is_complete { self.pause() } else { FAILED_EVERY };
        }
    }

    /// Opens the folder; says so where it is not there, and where it has come back.
    fn open(&mut self) -> Option<OpenRoot> {
        match self.handle.root.open() {
            Ok(root) => {
                if self.is_there.replace(true) != Some(true) {
                    self.handle.send(Input::Halted(None));
                }
                Some(root)
            }
            Err(error) => {
                self.watch = None;
                if self.is_there.replace(false) != Some(false) {
                    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                    let text = format!("{error}{cause}; it goes on by itself once this is put right");
                    self.handle.send(Input::Halted(Some(text)));
                }
                None
            }
        }
    }

    /// Starts the watch where there is none that can be relied on. Changes from then on become hints.
    fn watch(&mut self, root: &OpenRoot) {
        let is_partial = self.handle.live.is_watch_partial.swap(false, Ordering::Relaxed);
        let is_stale = self.is_watch_stale.swap(false, Ordering::Relaxed) || is_partial;
        if !is_stale && self.watch.is_some() {
            return;
        }
        self.watch = None;
        set_watch_text(
            &self.handle,
            root.is_network_fs().map(|kind| {
                format!("the folder lies on a network disk ({kind}), where changes are found by scanning only")
            }),
        );
        let (handle, is_stale) = (self.handle.clone(), Arc::clone(&self.is_watch_stale));
        match Watch::start(&self.handle.root, move |event| heard(&handle, &is_stale, event)) {
            Ok(watch) => self.watch = Some(watch),
            Err(problem) => set_watch_text(&self.handle, Some(problem.text)),
        }
    }

    /// True where everything was seen and reported.
    fn scan(&self, root: &OpenRoot, reader: &Reader) -> bool {
        let shared: &Shared = &self.handle;
        let suspicious = shared.suspicious_boot.swap(false, Ordering::Relaxed);
        let begun = Instant::now();
        shared.live.scanning.store(true, Ordering::Relaxed);
        let complete = shared.send(Input::ScanStarted { suspicious }) && self.sweep(root, reader);
        shared.live.scanning.store(false, Ordering::Relaxed);
        if !complete {
            // What this scan did not come to is as suspicious in the next.
            shared.suspicious_boot.fetch_or(suspicious, Ordering::Relaxed);
        }
        shared.send(Input::ScanFinished { complete });
        tracing::debug!(folder = %shared.label, complete, seconds = begun.elapsed().as_secs_f32(), "scanned");
        complete
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
                if matches!(error, ScanError::Fs(_)) && shared.root.open().is_err() {
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
        let random = std::hash::RandomState::new().hash_one(());
        every.mul_f64(0.75 + 0.5 * (random as f64 / u64::MAX as f64))
    }
}

fn heard(handle: &Shared, is_stale: &AtomicBool, event: WatchEvent) {
    let look_at_all = |reason: &str| {
        is_stale.store(true, Ordering::Relaxed);
        handle.hints.request_full(reason);
    };
    match event {
        WatchEvent::Hint { path, closed } => handle.hints.hint(path, closed, Instant::now()),
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
fn look_at_problems(shared: &Shared, reader: &Reader, below: Option<&RelPath>) -> Result<(), ScanError> {
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
