//! What waits to be sent to a peer: control frames overtake bulk, and both are bounded.

use std::sync::Arc;

use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::NetError;
use super::codec::{Encoded, encode};
use super::connection::FrameWriter;
use super::frame::Frame;

/// Most bytes of control frames that wait: several full index batches. A peer that lets more pile up is too slow.
pub const CONTROL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most control frames that wait.
pub const CONTROL_FRAMES_MAX: usize = 4096;
/// Most bytes of chunks that wait: enough to keep a fast link busy while the next are read from disk.
pub const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a frame is counted as at least, so that many small ones are bounded too.
const FRAME_COST_MIN: usize = 1024;

/// Takes frames for one peer.
#[derive(Clone)]
pub struct Outbox {
    control: mpsc::Sender<Queued>,
    bulk: mpsc::UnboundedSender<Queued>,
    control_room: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
}

/// The other end of an [`Outbox`], for [`write_loop`].
pub struct OutboxReader {
    control: mpsc::Receiver<Queued>,
    bulk: mpsc::UnboundedReceiver<Queued>,
    control_room: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
}

/// A frame that gives back its room when it has been sent.
struct Queued {
    frame: Encoded,
    _room: OwnedSemaphorePermit,
}

/// An empty outbox with its reader.
pub fn outbox() -> (Outbox, OutboxReader) {
    let (control, control_reader) = mpsc::channel(CONTROL_FRAMES_MAX);
    // Bounded in bytes by `bulk_room`.
    let (bulk, bulk_reader) = mpsc::unbounded_channel();
    let control_room = Arc::new(Semaphore::new(CONTROL_BYTES_MAX));
    let bulk_room = Arc::new(Semaphore::new(BULK_BYTES_MAX));
    let reader = OutboxReader {
        control: control_reader,
        bulk: bulk_reader,
        control_room: control_room.clone(),
        bulk_room: bulk_room.clone(),
    };
    (Outbox { control, bulk, control_room, bulk_room }, reader)
}

impl Outbox {
    /// Queues a control frame without waiting. [`NetError::TooSlow`]: end the connection.
    pub fn control(&self, frame: &Frame) -> Result<(), NetError> {
        let frame = encode(frame)?;
        let room = self.control_room.clone().try_acquire_many_owned(cost(&frame)).map_err(|e| match e {
            TryAcquireError::NoPermits => NetError::TooSlow,
            TryAcquireError::Closed => NetError::Closed,
        })?;
        self.control.try_send(Queued { frame, _room: room }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => NetError::TooSlow,
            mpsc::error::TrySendError::Closed(_) => NetError::Closed,
        })
    }

    /// Queues a control frame, waiting for room.
    pub async fn control_when_room(&self, frame: &Frame) -> Result<(), NetError> {
        let frame = encode(frame)?;
        let room = self.control_room.clone().acquire_many_owned(cost(&frame)).await.map_err(|_| NetError::Closed)?;
        self.control.send(Queued { frame, _room: room }).await.map_err(|_| NetError::Closed)
    }

    /// Queues a bulk frame, waiting for room. Bulk frames keep their order, control frames overtake them.
    pub async fn bulk(&self, frame: &Frame) -> Result<(), NetError> {
        let frame = encode(frame)?;
        let room = self.bulk_room.clone().acquire_many_owned(cost(&frame)).await.map_err(|_| NetError::Closed)?;
        self.bulk.send(Queued { frame, _room: room }).map_err(|_| NetError::Closed)
    }

    /// Says goodbye: what is queued before as control is still sent, then the connection ends.
    pub fn close(&self, reason: &str) -> Result<(), NetError> {
        self.control(&Frame::Close(reason.into()))
    }
}

impl OutboxReader {
    fn try_next(&mut self) -> Option<Queued> {
        self.control.try_recv().ok().or_else(|| self.bulk.try_recv().ok())
    }

    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            Some(queued) = self.control.recv() => Some(queued),
            Some(queued) = self.bulk.recv() => Some(queued),
            else => None,
        }
    }
}

/// Nobody shall wait for room in a queue that is no longer read.
impl Drop for OutboxReader {
    fn drop(&mut self) {
        self.control_room.close();
        self.bulk_room.close();
    }
}

/// Sends what is queued until a close frame was sent or all handles of the outbox are gone.
pub async fn write_loop<W: AsyncWrite + Unpin>(
    mut reader: OutboxReader,
    mut writer: FrameWriter<W>,
) -> Result<(), NetError> {
    loop {
        let queued = match reader.try_next() {
            Some(queued) => queued,
            None => {
                writer.flush().await?;
                match reader.next().await {
                    Some(queued) => queued,
                    None => break,
                }
            }
        };
        writer.write(&queued.frame).await?;
        if queued.frame.is_close() {
            break;
        }
    }
    writer.finish().await
}

fn cost(frame: &Encoded) -> u32 {
    frame.byte_count().max(FRAME_COST_MIN) as u32
}
