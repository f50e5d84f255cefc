//! What waits of the bulk frames for one peer, and goes over whichever of its connections is free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
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
    begun: Notify,
    speed: Speed,
    busy: StdMutex<Busy>,
}

/// Connections that have something to send right now.
#[derive(Debug, Default)]
struct Busy {
    connections: usize,
    /// Until when the time in which there were any has been counted.
    counted: Option<Instant>,
}

/// A frame that a connection takes; however that ends.
pub(super) struct Sending<'a> {
    counts: &'a Counts,
    bytes: usize,
}

impl Sending<'_> {
    /// The connection has taken so many bytes.
    pub fn sent(mut self, bytes: usize) {
        self.bytes = bytes;
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut busy = self.counts.busy();
        let took = busy.count();
        busy.connections -= 1;
        self.counts.speed.note(self.bytes, took);
    }
}

impl Busy {
    /// How long some connection was busy since the last time.
    fn count(&mut self) -> Duration {
        let now = Instant::now();
        let since = self.counted.replace(now).filter(|_| self.connections > 0);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
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
        self.speed.per_second()
    }

    /// True while frames wait that no connection has taken: where no cap holds them up, each connection has all that it
    /// can take.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Returns when there is something to send after a time in which nothing waited.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A connection begins to take a frame.
    pub(super) fn sending(&self) -> Sending<'_> {
        let mut busy = self.counts.busy();
        let took = busy.count();
        busy.connections += 1;
        if !took.is_zero() {
            self.counts.speed.note(0, took);
        }
        Sending { counts: &self.counts, bytes: 0 }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::outbox::outbox;

    const FRAME: usize = 100_000;
    const TOOK: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn connections_count_for_the_speed_of_a_link_only_while_they_send() {
        let (outbox, reader) = outbox();
        let bulk = reader.bulk();
        outbox.set_lanes(7);
        for _ in 0..50 {
            let one = bulk.sending();
            tokio::time::advance(TOOK).await;
            one.sent(FRAME);
            // Nothing is to be sent.
            tokio::time::advance(TOOK).await;
        }
        assert_eq!(outbox.flow().per_second(), Some(1_000_000));
        for _ in 0..200 {
            let (one, two) = (bulk.sending(), bulk.sending());
            tokio::time::advance(TOOK / 2).await;
            // One that is cut meanwhile.
            drop(bulk.sending());
            tokio::time::advance(TOOK / 2).await;
            one.sent(FRAME);
            two.sent(FRAME);
        }
        let both = outbox.flow().per_second().unwrap();
        // A frame may count before its time does.
        assert!((1_900_000..=2_200_000).contains(&both), "{both}");
    }
}
