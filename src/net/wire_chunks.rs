//! Chunks as bytes: each with its index in the request and its length, raw or compressed together.

use bytes::{Buf, Bytes};

use super::bounds::{FRAME_BYTES_MAX, REQUEST_ITEMS_MAX};
use super::codec::{CHUNKS, CodecError, Encoded, LENGTH_BYTES, PACKED, bounded, deflate, finish};
use super::frame::{Chunks, Frame};
use crate::core::content::CHUNK_BYTES_MAX;

/// A chunk's index and length within a frame.
const CHUNK_HEAD_BYTES: usize = 6;
/// A chunk of at least this size is sent from where it lies; smaller ones are gathered.
pub(super) const GATHER_BYTES_MAX: usize = 32 * 1024;
/// Chunks are compressed for a gain of at least one part in so many: photos and films have none.
const PACKED_GAIN_PART: usize = 16;

/// Makes a frame of chunks.
pub(super) fn pack(chunks: &Chunks) -> Result<Encoded, CodecError> {
    bounded("chunks", "items", chunks.items.len(), REQUEST_ITEMS_MAX)?;
    let data: usize = chunks.items.iter().map(|(_, bytes)| CHUNK_HEAD_BYTES + bytes.len()).sum();
    let length = 1 + 4 + data;
    if length > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: length, max: FRAME_BYTES_MAX });
    }
    let mut parts = Vec::new();
    let mut gathered = Vec::new();
    gathered.extend_from_slice(&(length as u32).to_be_bytes());
    gathered.push(CHUNKS);
    gathered.extend_from_slice(&chunks.request.to_be_bytes());
    for (index, bytes) in &chunks.items {
        gathered.extend_from_slice(&index.to_be_bytes());
        gathered.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        if bytes.len() < GATHER_BYTES_MAX {
            gathered.extend_from_slice(bytes);
        } else {
            parts.push(Bytes::from(std::mem::take(&mut gathered)));
            parts.push(bytes.clone());
        }
    }
    if !gathered.is_empty() {
        parts.push(gathered.into());
    }
    Ok(Encoded { parts, is_close: false })
}

/// Makes a compressed frame of chunks; `None` where that gains too little.
pub fn encode_packed(chunks: &Chunks) -> Result<Option<Encoded>, CodecError> {
    let plain = pack(chunks)?;
    // Without the length and the type, which the compressed frame has of its own.
    let body = plain.parts.concat().split_off(LENGTH_BYTES + 1);
    let length = body.len();
    let packed = deflate("chunks", body)?;
    if packed.len() > length - length / PACKED_GAIN_PART {
        return Ok(None);
    }
    finish(PACKED, packed, FRAME_BYTES_MAX).map(Some)
}

/// Reads what [`pack`] has written behind the type.
pub(super) fn unpack(mut body: Bytes) -> Result<Frame, CodecError> {
    let cut = |what: &str| CodecError::Malformed { frame: "chunks", what: what.into() };
    // With its type it would be longer than a frame may be: what was compressed has the limit of what was not.
    if body.len() >= FRAME_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: body.len() + 1, max: FRAME_BYTES_MAX });
    }
    if body.len() < 4 {
        return Err(cut("cut short"));
    }
    let request = body.get_u32();
    let mut items = Vec::new();
    while !body.is_empty() {
        if body.len() < CHUNK_HEAD_BYTES {
            return Err(cut("cut short"));
        }
        let (index, length) = (body.get_u16(), body.get_u32() as usize);
        if length > body.len() || length as u64 > CHUNK_BYTES_MAX {
            return Err(cut("a chunk is longer than the frame or the limit"));
        }
        bounded("chunks", "items", items.len() + 1, REQUEST_ITEMS_MAX)?;
        items.push((index, body.split_to(length)));
    }
    Ok(Frame::Chunks(Chunks { request, items }))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::net::codec::decode;

    fn chunks(data: &[&[u8]]) -> Chunks {
        Chunks { request: 7, items: (3..).zip(data.iter().map(|bytes| Bytes::copy_from_slice(bytes))).collect() }
    }

    #[test]
    fn compressed_chunks_come_back_as_they_were_and_take_less() {
        let text = "one line of a text that says much the same as the next\n".repeat(5000);
        let sent = chunks(&[text.as_bytes(), b"", b"short", text.as_bytes()]);
        let packed = encode_packed(&sent).unwrap().expect("it shrinks");
        assert!(packed.byte_count() < text.len() / 10);
        let bytes = Bytes::from(packed.parts().concat()).split_off(LENGTH_BYTES);
        assert_eq!(decode(bytes), Ok(Frame::Chunks(sent)));
    }

    #[test]
    fn what_hardly_shrinks_is_not_compressed() {
        let noise: Vec<u8> = (0..3000u64).flat_map(|n| Sha256::digest(n.to_be_bytes())).collect();
        assert!(encode_packed(&chunks(&[&noise])).unwrap().is_none());
        assert!(encode_packed(&chunks(&[b"tiny"])).unwrap().is_none());
    }

    #[test]
    fn no_compressed_frame_takes_more_memory_than_a_plain_one_can() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 1).unwrap();
        for length in [FRAME_BYTES_MAX as u32 + 1, 100, u32::MAX] {
            let frame = [&[PACKED, 1][..], &length.to_be_bytes(), &bomb].concat();
            assert!(decode(frame.into()).is_err(), "{length}");
        }
        // As long as a frame may be, without its type.
        let long = zstd::bulk::compress(&vec![0; FRAME_BYTES_MAX], 1).unwrap();
        let frame = [&[PACKED, 1][..], &(FRAME_BYTES_MAX as u32).to_be_bytes(), &long].concat();
        assert!(matches!(decode(frame.into()), Err(CodecError::TooLong { .. })));
    }
}
