//! Lanes: further connections of a link, for links that one connection does not fill. Nothing goes over them but answers
//! to requests.
//!
//! A lane that ends without a goodbye may have lost what was sent over it last; see [`LaneEnd::Lost`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::NetError;
use super::bulk::{Bulk, Queued};
use super::codec::encode;
use super::connection::{FrameReader, FrameWriter, Traffic};
use super::frame::Frame;
use super::random_bytes;

/// Most lanes of one link: eight connections with the main one. Where so many do not fill a line it is others' turn, too.
pub const LANES_MAX: usize = 7;
/// Most lanes of all links together: each takes a descriptor, and memory for one frame.
pub const LANES_ALL_MAX: usize = 64;
/// Bytes of a key: nobody guesses it.
pub const LANE_KEY_BYTES: usize = 16;
/// A lane over which nothing went for so long is closed.
const UNUSED: Duration = Duration::from_secs(30);
/// How often a lane over which nothing goes says that it is still there, and looks whether it is of use.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the other side may take to say whether a lane has joined.
const JOIN_SECONDS: u64 = 10;
/// How long a lane waits for the end of the stream after the other side's goodbye, which it follows at once.
const ENDING: Duration = Duration::from_secs(10);
/// Sent by the side that was dialled once the lane has joined its link.
const JOINED: u8 = 1;

/// What only the two ends of a link know: it was told over the link's main connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LaneKey(pub [u8; LANE_KEY_BYTES]);

/// How a lane ended.
#[derive(Debug)]
pub enum LaneEnd {
    /// Both sides have said goodbye: all that was sent has come.
    Closed,
    /// What was sent last may not have come, either way.
    Lost(NetError),
    /// The peer sent what does not belong there.
    Misused,
}

impl LaneKey {
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

/// Not for logs.
impl std::fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneKey")
    }
}

/// The dialling side of a lane's beginning.
pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, key: LaneKey) -> Result<(), NetError> {
    in_time(async {
        stream.write_all(&key.0).await?;
        stream.flush().await?;
        stream.read_u8().await
    })
    .await
    .and_then(|answer| if answer == JOINED { Ok(()) } else { Err(NetError::Closed) })
}

/// The other side's: which link a connection wants to join.
pub async fn read_key<S: AsyncRead + Unpin>(stream: &mut S) -> Result<LaneKey, NetError> {
    let mut key = [0; LANE_KEY_BYTES];
    in_time(stream.read_exact(&mut key)).await?;
    Ok(LaneKey(key))
}

/// Tells the dialling side that it has joined.
pub async fn welcome<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), NetError> {
    in_time(async {
        stream.write_u8(JOINED).await?;
        stream.flush().await
    })
    .await
}

async fn in_time<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, NetError> {
    let timed_out = NetError::TimedOut { what: "opening a further connection", seconds: JOIN_SECONDS };
    let step = tokio::time::timeout(Duration::from_secs(JOIN_SECONDS), step);
    step.await.map_err(|_| timed_out)?.map_err(super::connection::stream_error)
}

/// Runs a lane that has joined: sends what it can take of `bulk`, and hands on the answers that come.
pub async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    bulk: Bulk,
    traffic: Arc<Traffic>,
    answers: mpsc::Sender<Frame>,
    leave: Arc<Leave>,
) -> LaneEnd {
    let (read, write) = tokio::io::split(stream);
    let lane = Lane { used: Mutex::new(Instant::now()), leave };
    let reading = lane.read(FrameReader::of_lane(read, traffic.clone()), &answers);
    let writing = lane.write(FrameWriter::new(write, traffic), &bulk);
    match tokio::try_join!(reading, writing) {
        Ok(_) => LaneEnd::Closed,
        Err(end) => end,
    }
}

/// Tells a lane to say goodbye, once.
#[derive(Debug, Default)]
pub struct Leave {
    is_told: AtomicBool,
    told: Notify,
}

impl Leave {
    pub fn tell(&self) {
        self.is_told.store(true, Ordering::Release);
        self.told.notify_one();
    }

    pub fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Acquire)
    }
}

struct Lane {
    /// When something of use last went over it, either way.
    used: Mutex<Instant>,
    leave: Arc<Leave>,
}

/// What a lane sends next.
enum Next {
    Answer(Queued),
    /// Nothing for a while.
    Nothing,
    Goodbye,
}

impl Lane {
    async fn read<R: AsyncRead + Unpin>(
        &self,
        mut reader: FrameReader<R>,
        answers: &mpsc::Sender<Frame>,
    ) -> Result<(), LaneEnd> {
        loop {
            match reader.next().await? {
                frame @ (Frame::Chunks(_) | Frame::NotHere { .. }) => {
                    self.touch();
                    answers.send(frame).await.map_err(|_| NetError::Closed)?;
                }
                Frame::Ping(_) | Frame::Unknown(_) => {}
                Frame::Close(_) => {
                    self.leave.tell();
                    // A connection that is closed while something on it is unread takes with it what was sent last.
                    let ignoring = async { while reader.next().await.is_ok() {} };
                    let _ = tokio::time::timeout(ENDING, ignoring).await;
                    return Ok(());
                }
                _ => return Err(LaneEnd::Misused),
            }
        }
    }

    async fn write<W: AsyncWrite + Unpin>(&self, mut writer: FrameWriter<W>, bulk: &Bulk) -> Result<(), LaneEnd> {
        let mut pings = 0;
        loop {
            let now = if self.leave.is_told() { Some(Next::Goodbye) } else { bulk.try_next().map(Next::Answer) };
            let next = match now {
                Some(next) => next,
                None => {
                    writer.flush().await?;
                    self.next(bulk).await
                }
            };
            match next {
                Next::Answer(queued) => {
                    self.touch();
                    let sending = bulk.sending();
                    writer.write(&queued.frame).await?;
                    sending.sent(queued.frame.byte_count());
                }
                Next::Nothing if self.unused() < UNUSED => {
                    writer.write(&encode(&Frame::Ping(pings)).map_err(NetError::from)?).await?;
                    pings += 1;
                }
                Next::Nothing | Next::Goodbye => {
                    writer.write(&encode(&Frame::Close(String::new())).map_err(NetError::from)?).await?;
                    return Ok(writer.finish().await?);
                }
            }
        }
    }

    async fn next(&self, bulk: &Bulk) -> Next {
        tokio::select! {
            biased;
            () = self.leave.told.notified() => Next::Goodbye,
            queued = bulk.next() => queued.map_or(Next::Goodbye, Next::Answer),
            () = tokio::time::sleep(LOOK_EVERY) => Next::Nothing,
        }
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn unused(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl From<NetError> for LaneEnd {
    /// A lane that breaks the protocol is misused; all else may be the line's doing.
    fn from(error: NetError) -> Self {
        match error {
            NetError::Codec(_) => LaneEnd::Misused,
            other => LaneEnd::Lost(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::core::id::DeviceId;
    use crate::net::frame::Chunks;
    use crate::net::outbox::{Outbox, OutboxReader, outbox, paced_outbox, write_loop};
    use crate::net::pace::Paces;

    const PIPE_BYTES: usize = 16 * 1024;

    /// One end of a link: its outbox, and what comes over its lanes.
    struct End {
        outbox: Outbox,
        reader: OutboxReader,
        answers: (mpsc::Sender<Frame>, mpsc::Receiver<Frame>),
        leave: Arc<Leave>,
    }

    impl End {
        fn new() -> Self {
            Self::with(outbox())
        }

        fn with((outbox, reader): (Outbox, OutboxReader)) -> Self {
            Self { outbox, reader, answers: mpsc::channel(1000), leave: Arc::default() }
        }

        fn lane(&self, stream: DuplexStream) -> impl Future<Output = LaneEnd> + use<> {
            run(stream, self.reader.bulk(), Arc::default(), self.answers.0.clone(), self.leave.clone())
        }

        fn send(&self, requests: std::ops::Range<u32>) {
            for request in requests {
                let items = vec![(0, Bytes::from(vec![7; 20_000]))];
                let frame = encode(&Frame::Chunks(Chunks { request, items })).unwrap();
                assert!(self.outbox.bulk_now(frame).unwrap().is_none());
            }
        }

        fn taken(&mut self) -> BTreeSet<u32> {
            let mut all = BTreeSet::new();
            while let Ok(frame) = self.answers.1.try_recv() {
                let Frame::Chunks(chunks) = frame else { panic!("{frame:?}") };
                assert!(all.insert(chunks.request), "{} came twice", chunks.request);
            }
            all
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_goes_over_one_of_the_lanes_and_unused_lanes_are_closed_by_both_sides() {
        let (mut a, mut b) = (End::new(), End::new());
        let ((a1, b1), (a2, b2)) = (duplex(PIPE_BYTES), duplex(PIPE_BYTES));
        a.send(0..100);
        b.send(500..550);
        let begun = Instant::now();
        let ends = tokio::join!(a.lane(a1), a.lane(a2), b.lane(b1), b.lane(b2));
        assert!(matches!(ends, (LaneEnd::Closed, LaneEnd::Closed, LaneEnd::Closed, LaneEnd::Closed)), "{ends:?}");
        assert!(begun.elapsed() >= UNUSED && begun.elapsed() < UNUSED * 2);
        assert_eq!((a.taken(), b.taken()), ((500..550).collect(), (0..100).collect()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_takes_nothing_holds_up_no_other() {
        let (a, mut b) = (End::new(), End::new());
        let ((stuck, _far), (a2, b2)) = (duplex(PIPE_BYTES), duplex(PIPE_BYTES));
        a.send(0..100);
        let (stuck, working) = (a.lane(stuck), a.lane(a2));
        let (stuck, working, far) = tokio::join!(stuck, working, b.lane(b2));
        assert!(matches!(stuck, LaneEnd::Lost(NetError::TimedOut { .. })), "{stuck:?}");
        assert!(matches!((&working, &far), (LaneEnd::Closed, LaneEnd::Closed)), "{working:?} {far:?}");
        // What the stuck one has taken into its buffer, and no more.
        assert!(b.taken().len() >= 90);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cap_holds_for_all_lanes_together() {
        let paces = Paces::default();
        paces.set((Some(100_000), None), &BTreeMap::new());
        let (a, mut b) = (End::with(paced_outbox(paces.of(&DeviceId([1; 32])))), End::new());
        let (a0, b0) = duplex(PIPE_BYTES);
        let ((a1, b1), (a2, b2)) = (duplex(PIPE_BYTES), duplex(PIPE_BYTES));
        // Two million bytes, and what stands around them.
        a.send(0..100);
        let begun = Instant::now();
        let (from, to) = ((a.lane(a1), a.lane(a2)), (b.lane(b1), b.lane(b2)));
        let main = write_loop(a.reader, FrameWriter::new(a0, Arc::default()));
        let (mut main_reader, mut over_main) = (FrameReader::of_lane(b0, Arc::default()), 0);
        let receiving = async {
            for _ in 0..100 {
                tokio::select! {
                    _ = b.answers.1.recv() => {}
                    frame = main_reader.next() => over_main += usize::from(frame.is_ok()),
                }
            }
            begun.elapsed().as_secs()
        };
        tokio::select! {
            _ = async { tokio::join!(from.0, from.1, to.0, to.1, main) } => panic!("they end before all has come"),
            seconds = receiving => assert!((19..=20).contains(&seconds), "{seconds}"),
        }
        assert!((1..100).contains(&over_main), "{over_main}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_is_told_to_leave_delivers_what_it_has_and_what_crosses_its_goodbye() {
        let (mut a, mut b) = (End::new(), End::new());
        let (a1, b1) = duplex(PIPE_BYTES);
        a.send(0..50);
        b.send(100..150);
        let telling = async {
            tokio::task::yield_now().await;
            a.leave.tell();
        };
        let (end_a, end_b, ()) = tokio::join!(a.lane(a1), b.lane(b1), telling);
        assert!(matches!((&end_a, &end_b), (LaneEnd::Closed, LaneEnd::Closed)), "{end_a:?} {end_b:?}");
        let (at_a, at_b) = (a.taken(), b.taken());
        // All that a lane has taken has come; the rest waits for the connections that are left.
        let left = |end: &End| std::iter::from_fn(|| end.reader.bulk().try_next()).count();
        assert_eq!((at_b.len() + left(&a), at_a.len() + left(&b)), (50, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_other_sides_goodbye_a_lane_reads_to_the_end_and_does_not_wait_for_ever() {
        for is_ended in [true, false] {
            let a = End::new();
            let (a1, mut b1) = duplex(PIPE_BYTES);
            let mut running = std::pin::pin!(a.lane(a1));
            for frame in [Frame::Close(String::new()), Frame::Ping(1), Frame::Ping(2)] {
                b1.write_all(&encode(&frame).unwrap().parts().concat()).await.unwrap();
            }
            assert!(tokio::time::timeout(ENDING / 2, &mut running).await.is_err());
            let left = b1.read(&mut [0; PIPE_BYTES]).await.unwrap();
            assert!(left > 0, "its own goodbye");
            let begun = Instant::now();
            let far = (!is_ended).then_some(b1);
            assert!(matches!(running.await, LaneEnd::Closed));
            assert_eq!(begun.elapsed() < Duration::from_secs(1), is_ended);
            drop(far);
        }
    }

    #[tokio::test]
    async fn a_lane_that_ends_without_a_goodbye_is_lost_and_one_with_other_frames_is_misused() {
        let a = End::new();
        let (a1, b1) = duplex(PIPE_BYTES);
        drop(b1);
        assert!(matches!(a.lane(a1).await, LaneEnd::Lost(NetError::Closed)));
        let too_long = u32::MAX.to_be_bytes().to_vec();
        let ask = Frame::Lanes(super::super::frame::Lanes { key: LaneKey::random(), wanted: 1 });
        for bytes in [too_long, vec![0; 4], encode(&ask).unwrap().parts().concat()] {
            let (a1, mut b1) = duplex(PIPE_BYTES);
            b1.write_all(&bytes).await.unwrap();
            assert!(matches!(a.lane(a1).await, LaneEnd::Misused));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_say_its_key_or_whether_it_takes_it_is_not_waited_for() {
        let (mut a, mut b) = duplex(PIPE_BYTES);
        assert!(matches!(read_key(&mut a).await, Err(NetError::TimedOut { .. })));
        let key = LaneKey::random();
        assert!(matches!(join(&mut b, key).await, Err(NetError::TimedOut { .. })));
        assert!(read_key(&mut a).await.unwrap() == key);
        let (joined, ()) = tokio::join!(join(&mut b, key), async { welcome(&mut a).await.unwrap() });
        assert!(joined.is_ok());
        a.write_u8(JOINED + 1).await.unwrap();
        assert!(join(&mut b, key).await.is_err());
    }
}
