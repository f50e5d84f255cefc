//! What waits to be sent to a peer: control frames overtake bulk, and both are bounded.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, TryAcquireError, mpsc};

use super::NetError;
use super::bulk::{Bulk, Counts, Queued};
use super::codec::{Encoded, encode};
use super::connection::FrameWriter;
use super::frame::Frame;
use super::lane::LANES_MAX;
use super::pace::LinkPace;

/// Most bytes of control frames that wait: several full index batches. A peer that lets more pile up is too slow.
pub const CONTROL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most control frames that wait.
pub const CONTROL_FRAMES_MAX: usize = 4096;
/// Most bytes of chunks that wait: enough to keep a fast link busy while the next are read from disk.
pub const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections for which that is enough: an answer may take 1 MiB.
const CONNECTIONS_FED: usize = 4;
/// How much more may wait for each further one: 8 MiB in all.
const BULK_BYTES_EACH: usize = 1024 * 1024;
/// What a frame is counted as at least, so that many small ones are bounded too.
const FRAME_COST_MIN: usize = 1024;

/// Takes frames for one peer.
#[derive(Clone)]
pub struct Outbox {
    control: mpsc::Sender<Queued>,
    bulk: mpsc::UnboundedSender<Queued>,
    control_room: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
    /// Room for bulk frames beyond `BULK_BYTES_MAX`.
    further_room: Arc<Mutex<usize>>,
    counts: Arc<Counts>,
}

/// The other end of an [`Outbox`], for [`write_loop`].
pub struct OutboxReader {
    control: mpsc::Receiver<Queued>,
    bulk: Bulk,
    control_room: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
}

/// An empty outbox with its reader.
pub fn outbox() -> (Outbox, OutboxReader) {
    paced_outbox(LinkPace::default())
}

/// An empty outbox whose bulk frames keep to a pace.
pub fn paced_outbox(pace: LinkPace) -> (Outbox, OutboxReader) {
    let (control, control_reader) = mpsc::channel(CONTROL_FRAMES_MAX);
    // Bounded in bytes by `bulk_room`.
    let (bulk, bulk_reader) = mpsc::unbounded_channel();
    let control_room = Arc::new(Semaphore::new(CONTROL_BYTES_MAX));
    let bulk_room = Arc::new(Semaphore::new(BULK_BYTES_MAX));
    let counts = Arc::<Counts>::default();
    let reader = OutboxReader {
        control: control_reader,
        bulk: Bulk::new(bulk_reader, counts.clone(), pace),
        control_room: control_room.clone(),
        bulk_room: bulk_room.clone(),
    };
    (Outbox { control, bulk, control_room, bulk_room, further_room: Arc::default(), counts }, reader)
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

    /// Room taken by control frames that have not been sent yet, in bytes.
    pub fn control_waiting(&self) -> usize {
        CONTROL_BYTES_MAX.saturating_sub(self.control_room.available_permits())
    }

    /// Queues a control frame, waiting for room.
    pub async fn control_when_room(&self, frame: &Frame) -> Result<(), NetError> {
        let frame = encode(frame)?;
        let room = self.control_room.clone().acquire_many_owned(cost(&frame)).await.map_err(|_| NetError::Closed)?;
        self.control.send(Queued { frame, _room: room }).await.map_err(|_| NetError::Closed)
    }

    /// Queues a bulk frame, waiting for room. Bulk frames keep their order, control frames overtake them.
    pub async fn bulk(&self, frame: Encoded) -> Result<(), NetError> {
        let room = self.bulk_room.clone().acquire_many_owned(cost(&frame)).await.map_err(|_| NetError::Closed)?;
        self.put(Queued { frame, _room: room })
    }

    /// Queues a bulk frame if there is room for it now; gives it back where there is none.
    pub fn bulk_now(&self, frame: Encoded) -> Result<Option<Encoded>, NetError> {
        match self.bulk_room.clone().try_acquire_many_owned(cost(&frame)) {
            Ok(room) => self.put(Queued { frame, _room: room }).map(|()| None),
            Err(TryAcquireError::NoPermits) => Ok(Some(frame)),
            Err(TryAcquireError::Closed) => Err(NetError::Closed),
        }
    }

    fn put(&self, queued: Queued) -> Result<(), NetError> {
        // Before it can be taken.
        self.counts.put();
        self.bulk.send(queued).map_err(|_| NetError::Closed)
    }

    /// How bulk frames flow.
    pub fn flow(&self) -> &Counts {
        &self.counts
    }

    /// From now on there are so many connections besides the main one.
    pub fn set_lanes(&self, lanes: usize) {
        let further = (1 + lanes.min(LANES_MAX)).saturating_sub(CONNECTIONS_FED) * BULK_BYTES_EACH;
        let mut now = self.further_room.lock().unwrap_or_else(PoisonError::into_inner);
        if further >= *now {
            self.bulk_room.add_permits(further - *now);
            *now = further;
        } else {
            // What is taken is left until another time.
            *now -= self.bulk_room.forget_permits(*now - further);
        }
    }

    /// Says goodbye: what is queued before as control is still sent, then the connection ends.
    pub fn close(&self, reason: &str) -> Result<(), NetError> {
        self.control(&Frame::Close(reason.into()))
    }
}

impl OutboxReader {
    /// The bulk frames, for further connections to take some of them.
    pub fn bulk(&self) -> Bulk {
        self.bulk.clone()
    }

    fn try_next(&mut self) -> Option<Queued> {
        self.control.try_recv().ok().or_else(|| self.bulk.try_next())
    }

    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            Some(queued) = self.control.recv() => Some(queued),
            Some(queued) = self.bulk.next() => Some(queued),
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
        let sending = reader.bulk.sending();
        writer.write(&queued.frame).await?;
        sending.sent(queued.frame.byte_count());
        if queued.frame.is_close() {
            break;
        }
    }
    writer.finish().await
}

fn cost(frame: &Encoded) -> u32 {
    frame.byte_count().max(FRAME_COST_MIN) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::DeviceId;
    use crate::net::connection::FrameReader;
    use crate::net::frame::{Chunks, DeviceHello};
    use crate::net::pace::Paces;
    use bytes::Bytes;
    use std::collections::BTreeMap;
    use tokio::io::duplex;
    use tokio::time::Instant;

    fn chunk(request: u32, bytes: usize) -> Encoded {
        encode(&Frame::Chunks(Chunks { request, items: vec![(0, Bytes::from(vec![0; bytes]))] })).unwrap()
    }

    #[tokio::test]
    async fn more_may_wait_where_there_are_more_connections_and_no_more_than_eight_take() {
        let (outbox, _reader) = outbox();
        let room = || outbox.bulk_room.available_permits();
        for (lanes, more) in [(3, 0), (4, 1), (7, 4), (100, 4), (5, 2), (0, 0), (7, 4)] {
            outbox.set_lanes(lanes);
            assert_eq!(room(), BULK_BYTES_MAX + more * BULK_BYTES_EACH, "{lanes}");
        }
        let taken = outbox.bulk_room.clone().acquire_many_owned(room() as u32 - 1000).await.unwrap();
        outbox.set_lanes(0);
        assert_eq!(room(), 0);
        drop(taken);
        outbox.set_lanes(0);
        assert_eq!(room(), BULK_BYTES_MAX);
    }

    #[tokio::test]
    async fn control_overtakes_bulk_and_a_close_frame_ends_the_connection() {
        let (outbox, queue) = outbox();
        let (a, b) = duplex(1024);
        let hello =
            DeviceHello { protocol: 1, name: String::new(), agent: String::new(), folders: vec![], sent_ms: None };
        outbox.bulk(chunk(1, 100_000)).await.unwrap();
        outbox.bulk(chunk(2, 100_000)).await.unwrap();
        outbox.control(&Frame::Hello(hello.clone())).unwrap();
        outbox.control(&Frame::Ping(1)).unwrap();
        let mut reader = FrameReader::new(b, Arc::default());
        let reading = async {
            assert_eq!(reader.next().await.unwrap(), Frame::Hello(hello));
            assert_eq!(reader.next().await.unwrap(), Frame::Ping(1));
            outbox.close("done").unwrap();
            outbox.control(&Frame::Ping(2)).unwrap();
            let mut last = Frame::Ping(0);
            while let Ok(frame) = reader.next().await {
                last = frame;
            }
            assert_eq!(last, Frame::Close("done".into()));
        };
        let writing = write_loop(queue, FrameWriter::new(a, Arc::default()));
        let (written, ()) = tokio::join!(writing, reading);
        written.unwrap();
        assert!(matches!(outbox.control(&Frame::Ping(3)), Err(NetError::Closed)));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_too_slow_for_control_and_makes_bulk_wait() {
        let (outbox, queue) = outbox();
        let overflow = (0..=CONTROL_FRAMES_MAX as u64).map(|n| outbox.control(&Frame::Ping(n))).find_map(Result::err);
        assert!(matches!(overflow, Some(NetError::TooSlow)));
        let filling = async { while outbox.bulk(chunk(1, 1_000_000)).await.is_ok() {} };
        let waits = tokio::select! {
            biased;
            () = filling => false,
            () = std::future::ready(()) => true,
        };
        assert!(waits);
        let waiting = async { while outbox.bulk(chunk(1, 1_000_000)).await.is_ok() {} };
        // Who waits is let go when the connection ends.
        tokio::join!(waiting, async { drop(queue) });
    }

    #[tokio::test(start_paused = true)]
    async fn bulk_keeps_to_its_pace_and_control_does_not_wait_for_it() {
        let paces = Paces::default();
        paces.set((Some(100_000), None), &BTreeMap::new());
        let (outbox, queue) = paced_outbox(paces.of(&DeviceId([1; 32])));
        let (a, b) = duplex(1024 * 1024);
        let hello =
            DeviceHello { protocol: 1, name: String::new(), agent: String::new(), folders: vec![], sent_ms: None };
        outbox.control(&Frame::Hello(hello)).unwrap();
        (1..=3).for_each(|n| assert!(outbox.bulk_now(chunk(n, 100_000)).unwrap().is_none()));
        let begun = Instant::now();
        let mut reader = FrameReader::new(b, Arc::default());
        let reading = async {
            let mut times = Vec::new();
            reader.next().await.unwrap();
            for _ in 0..4 {
                let frame = reader.next().await.unwrap();
                if matches!(&frame, Frame::Chunks(chunks) if chunks.request == 1) {
                    outbox.control(&Frame::Ping(1)).unwrap();
                }
                times.push((matches!(frame, Frame::Ping(_)), begun.elapsed().as_secs()));
            }
            outbox.close("done").unwrap();
            times
        };
        let writing = write_loop(queue, FrameWriter::new(a, Arc::default()));
        let (written, times) = tokio::join!(writing, reading);
        written.unwrap();
        assert_eq!(times, [(false, 0), (true, 0), (false, 1), (false, 2)]);
    }

    #[tokio::test]
    async fn the_writer_ends_when_all_handles_are_gone() {
        let (outbox, queue) = outbox();
        let (a, _b) = duplex(1024);
        outbox.clone().control(&Frame::Ping(1)).unwrap();
        drop(outbox);
        write_loop(queue, FrameWriter::new(a, Arc::default())).await.unwrap();
    }

    #[test]
    fn what_waits_as_control_is_told() {
        let (outbox, _queue) = outbox();
        assert_eq!(outbox.control_waiting(), 0);
        (0..3).for_each(|n| outbox.control(&Frame::Ping(n)).unwrap());
        assert_eq!(outbox.control_waiting(), 3 * FRAME_COST_MIN);
    }
}
