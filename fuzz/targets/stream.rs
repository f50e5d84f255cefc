//! Frames from a stream that hands out its bytes in any pieces, to a reader that may be interrupted at any time.
//!
//! Layout: flags, a number of pieces, their sizes (0 stands for "nothing yet"), then the stream.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use p2psync::net::NetError;
use p2psync::net::bounds::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use p2psync::net::codec::{CodecError, decode, encode};
use p2psync::net::connection::FrameReader;
use p2psync::net::frame::{DeviceHello, Frame};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Runtime;

use super::draw::Draw;
use super::{check, memory};

/// The reader holds one frame and one read, and what the frame becomes.
const MEMORY_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;
const BEGINS_WITH_HELLO: u8 = 1;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// A stream in pieces.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: VecDeque<u8>,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.bytes.len() - self.at;
        let size = match self.sizes.pop_front() {
            Some(0) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(size) => left.min(size.into()),
            None => left,
        };
        let size = size.min(buf.remaining());
        let at = self.at;
        buf.put_slice(&self.bytes[at..at + size]);
        self.at += size;
        Poll::Ready(Ok(()))
    }
}

pub fn run(data: &[u8]) {
    let mut draw = Draw(data);
    let (flags, pieces) = (draw.byte(), draw.byte());
    let sizes = draw.bytes(usize::from(pieces) % 64).iter().copied().collect();
    let mut bytes = if flags & BEGINS_WITH_HELLO != 0 { hello() } else { Vec::new() };
    bytes.extend_from_slice(draw.0);
    let expected = frames_of(&bytes);
    let (read, peak) = memory::peak(|| RUNTIME.with(|runtime| runtime.block_on(read_all(bytes, sizes))));
    assert!(peak <= MEMORY_BYTES_MAX + 4 * data.len(), "{peak} bytes of memory");
    assert_eq!(read, expected);
}

fn hello() -> Vec<u8> {
    let hello =
        DeviceHello { protocol: 1, name: "desk".into(), agent: "test".into(), folders: Vec::new(), sent_ms: None };
    encode(&Frame::Hello(hello)).expect("a small hello can be written").parts().concat()
}

/// What a reader that is interrupted whenever it has to wait gets out of the stream.
async fn read_all(bytes: Vec<u8>, sizes: VecDeque<u8>) -> (Vec<Frame>, String) {
    let mut reader = FrameReader::new(Pieces { bytes, at: 0, sizes }, Arc::default());
    let mut frames = Vec::new();
    loop {
        let polled = std::future::poll_fn(|cx| {
            // Dropped at the end of this closure, also where it is not done.
            let next = pin!(reader.next());
            Poll::Ready(match next.poll(cx) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
        });
        match polled.await {
            None => {}
            Some(Ok(frame)) => {
                check::frame(&frame);
                frames.push(frame);
            }
            Some(Err(error)) => {
                check::error_chain(&error);
                return (frames, said(&error));
            }
        }
    }
}

/// What the whole stream says, by the plain words of the protocol.
fn frames_of(mut bytes: &[u8]) -> (Vec<Frame>, String) {
    let (mut frames, mut bytes_max) = (Vec::new(), HELLO_FRAME_BYTES_MAX);
    loop {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return (frames, said(&NetError::Closed)) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > bytes_max {
            return (frames, said(&CodecError::TooLong { bytes: length, max: bytes_max }.into()));
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else { return (frames, said(&NetError::Closed)) };
        bytes = rest;
        match decode(Bytes::copy_from_slice(frame)) {
            Err(error) => return (frames, said(&error.into())),
            Ok(frame) => {
                let is_first = bytes_max == HELLO_FRAME_BYTES_MAX;
                if is_first && !matches!(frame, Frame::Hello(_) | Frame::Close(_)) {
                    return (frames, said(&CodecError::NoHello.into()));
                }
                if matches!(frame, Frame::Hello(_)) {
                    bytes_max = FRAME_BYTES_MAX;
                }
                frames.push(frame);
            }
        }
    }
}

fn said(error: &NetError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
