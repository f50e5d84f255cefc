//! A frame's type and body from a peer.
//!
//! What decodes keeps all limits, encodes again, and reads back as the same; a compressed body says what the plain one
//! says; memory is a small multiple of the bytes that came (or that a compressed body announced).

use bytes::Bytes;
use p2psync::net::bounds::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use p2psync::net::codec::{CodecError, decode, encode};
use p2psync::net::frame::Frame;

use super::{check, memory};

/// A frame that takes hardly any bytes still takes some memory.
const MEMORY_BYTES_MIN: usize = 64 * 1024;
/// The smallest elements on the wire become this many times larger at most: a folder with its label, an empty entry.
const MEMORY_PER_BYTE_MAX: usize = 64;
/// Large frames hold few small elements, because their number is limited.
const MEMORY_PER_LARGE_BYTE_MAX: usize = 12;
const MEMORY_OF_ELEMENTS_MAX: usize = 2 * 1024 * 1024;
/// Bytes by which a frame may grow when it is written in the usual way: lengths may have been spelled shorter.
const SLACK_BYTES: usize = 64 * 1024;
/// Types of frames whose body has a flag and may be compressed.
const SQUEEZABLE: [u8; 4] = [3, 4, 7, 19];
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

pub fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let (decoded, peak) = memory::peak(|| decode(bytes.clone()));
    check_memory(data, peak);
    match &decoded {
        Ok(frame) => {
            check::frame(frame);
            reads_back(frame, data.len());
        }
        Err(error) => check::error_text(&error.to_string()),
    }
    if let [kind, PLAIN, body @ ..] = data
        && SQUEEZABLE.contains(kind)
        && body.len() <= BODY_BYTES_MAX
    {
        assert_eq!(decode(squeezed(*kind, body)), decoded, "the compressed frame says something else");
    }
}

/// The memory that reading these bytes took.
fn check_memory(data: &[u8], peak: usize) {
    let announced = match data {
        [kind, ZSTD, a, b, c, d, ..] if SQUEEZABLE.contains(kind) => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => 0,
    };
    let bytes = data.len() + if announced <= BODY_BYTES_MAX { announced } else { 0 };
    let small = MEMORY_BYTES_MIN + bytes * MEMORY_PER_BYTE_MAX;
    let large = MEMORY_OF_ELEMENTS_MAX + bytes * MEMORY_PER_LARGE_BYTE_MAX;
    assert!(peak <= small.min(large), "{peak} bytes of memory for {bytes}");
}

/// A frame is the same after it was written and read, and is then written as before.
pub fn reads_back(frame: &Frame, bytes_before: usize) {
    let written = match encode(frame) {
        Ok(encoded) => encoded.parts().concat(),
        Err(CodecError::TooLong { bytes, max }) => {
            // A hello has a lower limit for its sender, and so do others by what writing them differently may add.
            assert!(matches!(frame, Frame::Hello(_)) || bytes_before + SLACK_BYTES > max, "{bytes} bytes, max {max}");
            return;
        }
        Err(error) => panic!("what was read can't be written: {error}"),
    };
    assert!(written.len() - 4 <= FRAME_BYTES_MAX);
    let again = decode(Bytes::copy_from_slice(&written[4..])).expect("what was written can be read");
    assert_eq!(&again, frame);
    let twice = encode(&again).expect("what was written once can be written again").parts().concat();
    assert_eq!(twice, written);
}

/// The frame with its body compressed.
fn squeezed(kind: u8, body: &[u8]) -> Bytes {
    let squeezed = zstd::bulk::compress(body, 1).expect("memory can be compressed");
    [&[kind, ZSTD][..], &(body.len() as u32).to_be_bytes(), &squeezed].concat().into()
}
