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
                    let begun = Instant::now();
                    writer.write(&queued.frame).await?;
                    bulk.note(queued.frame.byte_count(), begun.elapsed());
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
