//! Frames over a stream: bounded buffers, limits and time limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::NetError;
use super::bounds::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use super::codec::{CodecError, Encoded, LENGTH_BYTES, decode, encode};
use super::frame::Frame;

/// A peer from which nothing came for so long is gone; three missed pings.
pub const IDLE: Duration = Duration::from_secs(90);
/// How often to send a ping.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How much is read from the stream at once where a frame does not need more.
const READ_BYTES: usize = 64 * 1024;
/// Small frames are gathered up to this size before they go to the stream.
const WRITE_BYTES: usize = 128 * 1024;

/// Bytes that went over one connection, for rates.
#[derive(Debug, Default)]
pub struct Traffic {
    pub read: AtomicU64,
    pub written: AtomicU64,
}

/// Reads frames.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// Small until the peer has said hello.
    frame_bytes_max: usize,
    traffic: Arc<Traffic>,
}

/// Writes frames.
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R, traffic: Arc<Traffic>) -> Self {
        Self { stream, buffer: BytesMut::new(), frame_bytes_max: HELLO_FRAME_BYTES_MAX, traffic }
    }

    /// The next frame; the first one has to be a hello. [`NetError::Closed`] where the peer ended the connection.
    ///
    /// Can be cancelled at any time without losing bytes.
    pub async fn next(&mut self) -> Result<Frame, NetError> {
        let frame = decode(self.next_bytes().await?)?;
        if self.frame_bytes_max == HELLO_FRAME_BYTES_MAX {
            match frame {
                Frame::Hello(_) => self.frame_bytes_max = FRAME_BYTES_MAX,
                Frame::Close(_) => {}
                _ => return Err(CodecError::NoHello.into()),
            }
        }
        Ok(frame)
    }

    async fn next_bytes(&mut self) -> Result<Bytes, NetError> {
        self.fill(LENGTH_BYTES).await?;
        // Only looked at, so that a cancelled call starts over at the same frame.
        let length = self.buffer.chunk().get_u32() as usize;
        if length > self.frame_bytes_max {
            return Err(CodecError::TooLong { bytes: length, max: self.frame_bytes_max }.into());
        }
        self.fill(LENGTH_BYTES + length).await?;
        self.buffer.advance(LENGTH_BYTES);
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Reads until the buffer holds `count` bytes.
    async fn fill(&mut self, count: usize) -> Result<(), NetError> {
        while self.buffer.len() < count {
            let missing = count - self.buffer.len();
            self.buffer.reserve(missing.max(READ_BYTES));
            // Never beyond what was reserved: the buffer stays bounded by one frame and one read.
            let mut room = (&mut self.buffer).limit(missing.max(READ_BYTES));
            let reading = tokio::time::timeout(IDLE, self.stream.read_buf(&mut room));
            let timed_out = NetError::TimedOut { what: "waiting for the peer", seconds: IDLE.as_secs() };
            let read = reading.await.map_err(|_| timed_out)?.map_err(stream_error)?;
            if read == 0 {
                return Err(NetError::Closed);
            }
            self.traffic.read.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(stream: W, traffic: Arc<Traffic>) -> Self {
        Self { stream, buffer: Vec::new(), traffic }
    }

    /// Sends one frame at once.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), NetError> {
        self.write(&encode(frame)?).await?;
        self.flush().await
    }

    /// Takes a frame for sending; small ones may wait for more, or for [`FrameWriter::flush`].
    pub async fn write(&mut self, frame: &Encoded) -> Result<(), NetError> {
        for part in frame.parts() {
            if self.buffer.len() + part.len() > WRITE_BYTES {
                self.write_buffer().await?;
            }
            if part.len() > WRITE_BYTES {
                self.write_all(part).await?;
            } else {
                self.buffer.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Sends all that waits.
    pub async fn flush(&mut self) -> Result<(), NetError> {
        self.write_buffer().await?;
        in_time(self.stream.flush()).await
    }

    /// Sends all that waits and ends the stream in this direction.
    pub async fn finish(&mut self) -> Result<(), NetError> {
        self.write_buffer().await?;
        in_time(self.stream.shutdown()).await
    }

    async fn write_buffer(&mut self) -> Result<(), NetError> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_all(&buffer).await?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// Each step has the time limit, not the whole: a slow link is not a dead one.
    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), NetError> {
        while !bytes.is_empty() {
            let written = in_time(self.stream.write(bytes)).await?;
            if written == 0 {
                return Err(NetError::Closed);
            }
            self.traffic.written.fetch_add(written as u64, Ordering::Relaxed);
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

async fn in_time<T>(writing: impl Future<Output = std::io::Result<T>>) -> Result<T, NetError> {
    let timed_out = NetError::TimedOut { what: "sending to the peer", seconds: IDLE.as_secs() };
    tokio::time::timeout(IDLE, writing).await.map_err(|_| timed_out)?.map_err(stream_error)
}

/// A peer that goes away without a word ended the connection, it did not break it.
fn stream_error(error: std::io::Error) -> NetError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => NetError::Closed,
        _ => NetError::Broken(error),
    }
}
