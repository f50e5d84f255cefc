//! What waits of the bulk frames for one peer, and goes over whichever of its connections is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::codec::Encoded;
use super::pace::LinkPace;
use super::speed::Speed;

/// How often a frame that waits for its pace looks whether the cap is still the same.
const PACE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A frame that gives back its room when it has been sent.
pub(super) struct Queued {
    pub frame: Encoded,
    pub _room: OwnedSemaphorePermit,
}

/// Cheap handle to the bulk frames that wait. Each goes to one of those who ask for the next, in their order.
#[derive(Clone)]
pub struct Bulk {
    /// Whoever asks for the next frame holds this while it waits, for the pace too: so the cap holds for all together.
    frames: Arc<Mutex<mpsc::UnboundedReceiver<Queued>>>,
    counts: Arc<Counts>,
    pace: LinkPace,
}

/// What is known of the flow of bulk frames, over all connections.
#[derive(Debug, Default)]
pub struct Counts {
    waiting: AtomicUsize,
    /// Connections besides the main one.
    lanes: AtomicUsize,
    begun: Notify,
    speed: Speed,
}

impl Counts {
    /// One more waits.
    pub(super) fn put(&self) {
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.begun.notify_one();
        }
    }

    /// Bytes per second that the link takes lately, over all its connections, once enough was sent to tell.
    pub fn per_second(&self) -> Option<u64> {
        let connections = 1 + self.lanes.load(Ordering::Relaxed) as u64;
        self.speed.per_second().map(|each| each.saturating_mul(connections))
    }

    /// True while frames wait that no connection has taken: where no cap holds them up, each connection has all that it
    /// can take.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// From now on there are so many connections besides the main one.
    pub fn set_lanes(&self, lanes: usize) {
        self.lanes.store(lanes, Ordering::Relaxed);
    }

    /// Returns when there is something to send after a time in which nothing waited.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }
}

impl Bulk {
    pub(super) fn new(frames: mpsc::UnboundedReceiver<Queued>, counts: Arc<Counts>, pace: LinkPace) -> Self {
        Self { frames: Arc::new(Mutex::new(frames)), counts, pace }
    }

    /// The next frame, where one may go now.
    pub(super) fn try_next(&self) -> Option<Queued> {
        // Whoever holds it waits for a frame or for the pace, so there is none to be had at once.
        let mut frames = self.frames.try_lock().ok()?;
        if self.wait().is_some() {
            return None;
        }
        let queued = frames.try_recv().ok()?;
        Some(self.taken(queued))
    }

    /// The next frame, as soon as it may go; `None` once no more can come. Can be cancelled without losing any.
    pub(super) async fn next(&self) -> Option<Queued> {
        let mut frames = self.frames.lock().await;
        // A cap may be lifted meanwhile.
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait.min(PACE_LOOK_EVERY)).await;
        }
        let queued = frames.recv().await?;
        Some(self.taken(queued))
    }

    /// So many bytes were taken by a connection within so much time.
    pub(super) fn note(&self, bytes: usize, took: Duration) {
        self.counts.speed.note(bytes, took);
    }

    fn wait(&self) -> Option<Duration> {
        self.pace.upload.wait(Instant::now().into_std())
    }

    fn taken(&self, queued: Queued) -> Queued {
        self.counts.waiting.fetch_sub(1, Ordering::AcqRel);
        self.pace.upload.spend(queued.frame.byte_count() as u64, Instant::now().into_std());
        queued
    }
}
