//! Reads what has changed, on several threads, and reports it.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::Scope;
use std::time::Duration;

use crate::core::disk::{DiskKind, DiskState};
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::hints::{Look, QUIET};
use crate::engine::shared::Shared;
use crate::fs::error::FsError;
use crate::fs::nearby::Nearby;
use crate::fs::read::{self, ReadOutcome};
use crate::fs::root::OpenRoot;
use crate::index::{Mark, Record};
use crate::net::bounds::GIFT_ITEMS_MAX;
use crate::sync::{Input, Observation, Seen};

/// Observations reported at a time: one transaction of the index.
const REPORT_MAX: usize = 256;
/// Files handed to a thread at a time: enough to share the cost of handing over.
const BATCH_FILES: usize = 64;
/// Bytes handed to a thread at a time, and the size of a file before which what was read so far is reported.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Batches that wait for a thread: the walk is to stay a little ahead, not to remember the folder.
const BATCHES_QUEUED_MAX: usize = 8;
/// Threads that read and hash; more of them leave a desktop no room.
const THREADS_MAX: usize = 4;
const THREADS_MIN: usize = 2;
/// When to look again at a path that somebody else is at.
pub const PUT_OFF: Duration = Duration::from_millis(100);
/// When to look again at what was written too shortly before the look to tell a later change from it.
const RACY_AGAIN: Duration = Duration::from_millis(30);
/// The same where the file system seems to keep whole seconds.
const RACY_COARSE_AGAIN: Duration = Duration::from_secs(2);
/// To read a file of so many bytes takes longer than [`RACY_AGAIN`].
const YOUNG_FROM_BYTES: u64 = 32 * 1024 * 1024;
/// How often a file that changes while it is read is tried before it is reported as a problem.
const BUSY_TRIES_MAX: u32 = 10;
/// A busy file is read again at the latest after this.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The same once it has been reported.
const BUSY_REPORTED_PAUSE: Duration = Duration::from_secs(60);

/// Reports what was seen at claimed paths. What is not reported in the end gives its claims back.
pub struct Report<'a> {
    shared: &'a Shared,
    observations: Vec<Observation>,
}

impl<'a> Report<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, observations: Vec::new() }
    }

    /// Takes in what was seen at a path that the caller has claimed. False where the folder has stopped.
    pub fn add(&mut self, path: RelPath, seen: Seen) -> bool {
        self.observations.push(Observation { path, seen });
        self.observations.len() < REPORT_MAX || self.flush()
    }

    /// Reports what has gathered. False where the folder has stopped.
    pub fn flush(&mut self) -> bool {
        if self.observations.is_empty() {
            return true;
        }
        let observations = std::mem::take(&mut self.observations);
        let paths: Vec<RelPath> = observations.iter().map(|o| o.path.clone()).collect();
        // The folder's thread releases the claims once it has taken them in.
        let is_sent = self.shared.send(Input::Observed(observations));
        if !is_sent {
            self.shared.hints.release(&paths);
        }
        is_sent
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.shared.hints.release(self.observations.iter().map(|o| &o.path));
    }
}

/// A claimed path on its way to the thread that reads it.
struct Item {
    look: Look,
    size: u64,
}

/// Hands claimed paths to threads, which are started with the first full batch; a short list is read by the caller, and
/// all of it where the folder has no threads to read with.
pub struct Queue<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared,
    root: &'env OpenRoot,
    /// Set where something could not be reported.
    is_lost: &'env AtomicBool,
    items: Vec<Item>,
    bytes: u64,
    sender: Option<SyncSender<Vec<Item>>>,
}

impl<'scope, 'env> Queue<'scope, 'env> {
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared,
        root: &'env OpenRoot,
        is_lost: &'env AtomicBool,
    ) -> Self {
        Self { scope, shared, root, is_lost, items: Vec::new(), bytes: 0, sender: None }
    }

    /// Has a path read that the caller has claimed. What `before` has of the directories above is reported first: a
    /// peer that heard of a file before its directory would make one of its own, and keep a copy of what stood there.
    ///
    /// What has merely moved here with the directory above it is known already, and not read.
    pub fn push(&mut self, look: Look, state: DiskState, before: &mut Report) {
        if !look.requested
            && let Some(content) = self.shared.departed.take(&state, self.shared.clock.instant())
        {
            let is_sent = before.add(look.path, Seen::File { disk: state, content, lists: Vec::new() });
            return self.note(is_sent);
        }
        self.bytes = self.bytes.saturating_add(state.size);
        self.items.push(Item { look, size: state.size });
        if self.items.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES {
            self.note(before.flush());
            self.hand_over();
        }
    }

    /// Has the rest read. All is reported once the scope ends.
    pub fn finish(mut self) {
        if self.sender.is_some() {
            self.hand_over();
            return;
        }
        self.read_here();
    }

    fn read_here(&mut self) {
        let (mut report, items) = (Report::new(self.shared), std::mem::take(&mut self.items));
        read_batch(self.shared, self.root, items, &mut Vec::new(), &mut report, self.is_lost);
        self.note(report.flush());
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        if self.shared.reads_inline {
            return self.read_here();
        }
        let items = std::mem::take(&mut self.items);
        let sender = match &self.sender {
            Some(sender) => sender.clone(),
            None => self.start(),
        };
        if let Err(unsent) = sender.send(items) {
            self.shared.hints.release(unsent.0.iter().map(|item| &item.look.path));
            self.note(false);
        }
    }

    fn start(&mut self) -> SyncSender<Vec<Item>> {
        let (sender, receiver) = sync_channel(BATCHES_QUEUED_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = std::thread::available_parallelism().map_or(THREADS_MIN, NonZero::get);
        for number in 0..threads.clamp(THREADS_MIN, THREADS_MAX) {
            let (receiver, shared, root, is_lost) = (Arc::clone(&receiver), self.shared, self.root, self.is_lost);
            let work = move || read_batches(shared, root, &receiver, is_lost);
            let started = std::thread::Builder::new().name(format!("hash-{number}")).spawn_scoped(self.scope, work);
            if let Err(error) = started {
                tracing::warn!(%error, "one thread less to read files with");
            }
        }
        self.sender.insert(sender).clone()
    }

    fn note(&self, is_sent: bool) {
        if !is_sent {
            self.is_lost.store(true, Ordering::Relaxed);
        }
    }
}

/// Where the look at the folder is broken off, what still waits to be read gives its claims back.
impl Drop for Queue<'_, '_> {
    fn drop(&mut self) {
        self.shared.hints.release(self.items.iter().map(|item| &item.look.path));
    }
}

fn read_batches(shared: &Shared, root: &OpenRoot, batches: &Mutex<Receiver<Vec<Item>>>, is_lost: &AtomicBool) {
    let (mut buffer, mut report) = (Vec::new(), Report::new(shared));
    loop {
        // Whoever holds the lock waits for a batch, so there is none now.
        let now = match batches.try_lock() {
            Ok(batches) => batches.try_recv(),
            Err(TryLockError::WouldBlock) => Err(TryRecvError::Empty),
            Err(TryLockError::Poisoned(batches)) => batches.into_inner().try_recv(),
        };
        let batch = match now {
            Ok(batch) => batch,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                if !report.flush() {
                    is_lost.store(true, Ordering::Relaxed);
                }
                match batches.lock().unwrap_or_else(PoisonError::into_inner).recv() {
                    Ok(batch) => batch,
                    Err(_) => break,
                }
            }
        };
        read_batch(shared, root, batch, &mut buffer, &mut report, is_lost);
    }
    if !report.flush() {
        is_lost.store(true, Ordering::Relaxed);
    }
}

fn read_batch(
    shared: &Shared,
    root: &OpenRoot,
    batch: Vec<Item>,
    buffer: &mut Vec<u8>,
    report: &mut Report,
    is_lost: &AtomicBool,
) {
    let is_few = batch.len() <= GIFT_ITEMS_MAX;
    let near = Nearby::new(root);
    for Item { look, size } in batch {
        // Reading this one takes long, and what was read before is not to wait for it.
        let mut is_sent = size < BATCH_BYTES || report.flush();
        let seen = if put_off_young(shared, root, &look, size) { None } else { examine(shared, &near, &look, buffer) };
        match seen {
            Some(seen) => {
                if is_few && let Seen::File { content, .. } = &seen {
                    shared.gifts.was_read(*content, buffer.get(..content.size as usize), shared.device);
                }
                is_sent &= report.add(look.path, seen);
            }
            None => shared.hints.release([&look.path]),
        }
        if size >= BATCH_BYTES {
            near.forget();
        }
        if !is_sent || shared.stop.load(Ordering::Relaxed) {
            is_lost.store(true, Ordering::Relaxed);
        }
    }
}

/// Has a large file that was written just now looked at a moment later: read at once it would have to be read again, as
/// its times could not tell a later write.
fn put_off_young(shared: &Shared, root: &OpenRoot, look: &Look, size: u64) -> bool {
    let is_first_try = look.tries == 0;
    let is_young = is_first_try
        && size >= YOUNG_FROM_BYTES
        && matches!(root.look(&look.path), Ok(Some(found)) if read::is_young(&found, shared.clock.wall_ns()));
    if is_young {
        shared.hints.again(Look { tries: 1, ..look.clone() }, shared.clock.instant() + RACY_AGAIN);
    }
    is_young
}

/// Reads what stands at a claimed path; `None` where there is nothing to say yet and it is looked at again.
fn examine(shared: &Shared, near: &Nearby, look: &Look, buffer: &mut Vec<u8>) -> Option<Seen> {
    match read::examine_near(near, &look.path, shared.clock.wall_ns(), buffer, &shared.stop) {
        ReadOutcome::Hashed(file) => {
            look_again_if_racy(shared, look, &file.disk);
            Some(Seen::File { disk: file.disk, content: file.content, lists: file.lists })
        }
        ReadOutcome::Link { disk, target } => {
            look_again_if_racy(shared, look, &disk);
            Some(Seen::Symlink { disk, target })
        }
        ReadOutcome::Directory(disk) => Some(Seen::Directory(disk)),
        ReadOutcome::Failed(problem) => Some(Seen::Failed(problem)),
        ReadOutcome::Busy => busy(shared, look),
        ReadOutcome::Gone => match really_absent(shared, vec![look.path.clone()]) {
            Ok(absent) if !absent.is_empty() => Some(Seen::Absent),
            _ => {
                shared.hints.again(look.clone(), shared.clock.instant() + PUT_OFF);
                None
            }
        },
    }
}

pub(super) fn busy(shared: &Shared, look: &Look) -> Option<Seen> {
    if shared.stop.load(Ordering::Relaxed) {
        return None;
    }
    let tries = look.tries.saturating_add(1);
    let is_reported = tries >= BUSY_TRIES_MAX;
    let pause = if is_reported { BUSY_REPORTED_PAUSE } else { (QUIET * (1 << look.tries)).min(BUSY_PAUSE_MAX) };
    let again = Look { tries, requested: look.requested && !is_reported, ..look.clone() };
    shared.hints.again(again, shared.clock.instant() + pause);
    let text = "a program keeps changing it while it is being read; it is read again every minute";
    is_reported.then(|| Seen::Failed(Problem::new(ProblemKind::Busy, text)))
}

fn look_again_if_racy(shared: &Shared, look: &Look, disk: &DiskState) {
    if disk.ctime_ns == 0 {
        let pause = if disk.mtime_ns % 1_000_000_000 == 0 { RACY_COARSE_AGAIN } else { RACY_AGAIN };
        shared.hints.again(Look::hinted(look.path.clone()), shared.clock.instant() + pause);
    }
}

/// Those of the claimed paths at which nothing stands that would sync, in a folder that is certainly there.
pub fn really_absent(shared: &Shared, paths: Vec<RelPath>) -> Result<Vec<RelPath>, FsError> {
    let root = shared.root.open()?;
    let rules = shared.rules();
    let is_absent = |path: &RelPath| match root.look(path) {
        Ok(None) => true,
        // What took its place is none of the folder's business.
        Ok(Some(found)) => rules.is_ignored(path, found.kind == DiskKind::Directory).is_some(),
        Err(_) => false,
    };
    let absent = paths.into_iter().filter(is_absent).collect();
    root.check()?;
    Ok(absent)
}

/// True where what was seen is what the index has.
pub fn is_unchanged(record: Option<&Record>, seen: &DiskState) -> bool {
    record.is_some_and(|record| {
        let is_here = record.entry.is_live() && record.mark == Mark::Here;
        let is_own = matches!(record.mark, Mark::Own | Mark::Reverted);
        (is_here || is_own) && record.disk.is_some_and(|disk| seen.is_unchanged_since(&disk))
    })
}

/// True where the index has something on the disk here, whose absence would be news.
pub fn is_on_disk(record: &Record) -> bool {
    let is_minded = !matches!(record.mark, Mark::Ignored | Mark::Declined | Mark::Held | Mark::Missing);
    let is_own = matches!(record.mark, Mark::Own | Mark::Reverted);
    record.disk.is_some() && (is_own || (record.entry.is_live() && is_minded))
}

/// True where an action is under way at the path: what is there will be known from its outcome.
pub fn is_applying(shared: &Shared, path: &RelPath) -> bool {
    shared.applying.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
}

/// Has a path looked at again soon, where nothing can be said of it now.
pub fn put_off(shared: &Shared, look: Look) {
    shared.hints.again(look, shared.clock.instant() + PUT_OFF);
}
