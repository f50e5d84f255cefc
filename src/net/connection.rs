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
use super::room;

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
    large: Option<Large>,
    /// Small until the peer has said hello.
    frame_bytes_max: usize,
    traffic: Arc<Traffic>,
}

/// A frame that is read into memory of its own, as far as it has come.
struct Large {
    bytes: Vec<u8>,
    length: usize,
}

/// Writes frames.
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R, traffic: Arc<Traffic>) -> Self {
        Self { stream, buffer: BytesMut::new(), large: None, frame_bytes_max: HELLO_FRAME_BYTES_MAX, traffic }
    }

    /// Of a further connection, on which nobody says hello.
    pub fn of_lane(stream: R, traffic: Arc<Traffic>) -> Self {
        Self { frame_bytes_max: FRAME_BYTES_MAX, ..Self::new(stream, traffic) }
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
        if self.large.is_none() {
            self.fill(LENGTH_BYTES).await?;
            // Only looked at, so that a cancelled call starts over at the same frame.
            let length = self.buffer.chunk().get_u32() as usize;
            if length > self.frame_bytes_max {
                return Err(CodecError::TooLong { bytes: length, max: self.frame_bytes_max }.into());
            }
            if length <= READ_BYTES {
                self.fill(LENGTH_BYTES + length).await?;
                self.buffer.advance(LENGTH_BYTES);
                return Ok(self.buffer.split_to(length).freeze());
            }
            self.buffer.advance(LENGTH_BYTES);
            let mut bytes = room::take(length);
            let here = self.buffer.len().min(length);
            bytes.extend_from_slice(&self.buffer.split_to(here));
            self.large = Some(Large { bytes, length });
        }
        self.fill_large().await
    }

    async fn fill_large(&mut self) -> Result<Bytes, NetError> {
        while let Some(Large { bytes, length }) = &mut self.large
            && bytes.len() < *length
        {
            let missing = *length - bytes.len();
            read_some(&mut self.stream, &mut bytes.limit(missing), &self.traffic).await?;
        }
        Ok(room::bytes(self.large.take().map(|large| large.bytes).unwrap_or_default()))
    }

    /// Reads until the buffer holds `count` bytes.
    async fn fill(&mut self, count: usize) -> Result<(), NetError> {
        while self.buffer.len() < count {
            let missing = count - self.buffer.len();
            self.buffer.reserve(missing.max(READ_BYTES));
            // Never beyond what was reserved: the buffer stays bounded by one frame and one read.
            let mut room = (&mut self.buffer).limit(missing.max(READ_BYTES));
            read_some(&mut self.stream, &mut room, &self.traffic).await?;
        }
        Ok(())
    }
}

/// Reads what is there, one byte at least.
async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    room: &mut impl BufMut,
    traffic: &Traffic,
) -> Result<(), NetError> {
    let timed_out = NetError::TimedOut { what: "waiting for the peer", seconds: IDLE.as_secs() };
    let reading = tokio::time::timeout(IDLE, stream.read_buf(room));
    let read = reading.await.map_err(|_| timed_out)?.map_err(stream_error)?;
    if read == 0 {
        return Err(NetError::Closed);
    }
    traffic.read.fetch_add(read as u64, Ordering::Relaxed);
    Ok(())
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
pub(super) fn stream_error(error: std::io::Error) -> NetError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => NetError::Closed,
        _ => NetError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::frame::{Chunks, DeviceHello};
    use tokio::io::duplex;

    fn hello() -> Frame {
        Frame::Hello(DeviceHello {
            protocol: 1,
            name: "desk".into(),
            agent: "test".into(),
            folders: vec![],
            sent_ms: None,
        })
    }

    async fn read_bytes(bytes: &[u8]) -> Result<Frame, NetError> {
        FrameReader::new(bytes, Arc::default()).next().await
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_however_the_stream_is_cut() {
        let (a, b) = duplex(7);
        let (mut writer, mut reader) = (FrameWriter::new(a, Arc::default()), FrameReader::new(b, Arc::default()));
        let chunk = Bytes::from(vec![5; 300_000]);
        let frames =
            [hello(), Frame::Ping(1), Frame::Chunks(Chunks { request: 1, items: vec![(0, chunk)] }), Frame::Pong(2)];
        let writing = async {
            for frame in &frames {
                writer.write(&encode(frame).unwrap()).await.unwrap();
            }
            writer.finish().await.unwrap();
        };
        let reading = async {
            for frame in &frames {
                assert_eq!(&reader.next().await.unwrap(), frame);
            }
            assert!(matches!(reader.next().await, Err(NetError::Closed)));
        };
        tokio::join!(writing, reading);
        assert_eq!(writer.traffic.written.load(Ordering::Relaxed), reader.traffic.read.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_stranger_can_send_no_large_frame_and_nothing_before_a_hello() {
        let length = HELLO_FRAME_BYTES_MAX as u32 + 1;
        assert!(matches!(read_bytes(&length.to_be_bytes()).await, Err(NetError::Codec(CodecError::TooLong { .. }))));
        assert!(matches!(read_bytes(&u32::MAX.to_be_bytes()).await, Err(NetError::Codec(CodecError::TooLong { .. }))));
        assert!(matches!(read_bytes(&[0; 4]).await, Err(NetError::Codec(CodecError::Empty))));
        let ping = encode(&Frame::Ping(1)).unwrap().parts().concat();
        assert!(matches!(read_bytes(&ping).await, Err(NetError::Codec(CodecError::NoHello))));
        assert!(matches!(read_bytes(&ping[..7]).await, Err(NetError::Closed)));
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut a, b) = duplex(1024);
        let mut reader = FrameReader::new(b, Arc::default());
        let chunk = Bytes::from(vec![7; READ_BYTES + 1000]);
        let sent = [hello(), Frame::Chunks(Chunks { request: 1, items: vec![(0, chunk)] }), Frame::Ping(2)];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| encode(frame).unwrap().parts().concat()).collect();
        let mut received = Vec::new();
        for part in bytes.chunks(3) {
            a.write_all(part).await.unwrap();
            tokio::select! {
                biased;
                frame = reader.next() => received.push(frame.unwrap()),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(received, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_and_one_that_does_not_read_are_given_up() {
        let (a, b) = duplex(10);
        let mut reader = FrameReader::new(b, Arc::default());
        assert!(matches!(reader.next().await, Err(NetError::TimedOut { .. })));
        let mut writer = FrameWriter::new(a, Arc::default());
        assert!(matches!(writer.send(&hello()).await, Err(NetError::TimedOut { .. })));
    }
}
