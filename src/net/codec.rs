//! Frames as bytes: a type byte and a body, after a length that [`super::connection`] reads and writes.
//!
//! Control bodies are one MessagePack value; what follows it is ignored, so that a later version can append to a frame.
//! Chunk data is raw. Nothing in here panics on bytes from outside, and nothing grows beyond what the frame's own
//! length and [`super::bounds`] allow.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::bounds::{
    BODY_BYTES_MAX, FILL_BYTES_MAX, FOLDERS_MAX, FRAME_BYTES_MAX, HAVE_RANGES_MAX, HELLO_FRAME_BYTES_MAX,
    NAME_CHARS_MAX, REASON_CHARS_MAX, REQUEST_ITEMS_MAX, clean_text,
};
use super::frame::{DeviceHello, Frame, Lanes, Request, WantedContent};
use super::lane::{LANE_KEY_BYTES, LaneKey};
use super::wire::{
    self, FieldError, List, WireAck, WireBatch, WireDeviceHello, WireDigest, WireFound, WireHave, WireHello,
    WireHelloMore, WireNotHere, WireRepair, WireRequest, WireWanted, found, raw_counts,
};
use super::wire_entry::{WireAnnounced, entries};
use super::wire_past::{WireAskPast, WirePast};
use super::{wire_chunks, wire_gift};
use crate::core::id::FolderId;
use crate::core::message::{BATCH_ENTRIES_MAX, EXCEPTIONS_MAX, FOUND_MAX, Message, RUNS_MAX};

/// Why bytes are not a frame, or a frame can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a frame of {bytes} bytes is longer than {max}")]
    TooLong { bytes: usize, max: usize },
    #[error("{frame}: {field}: {what}")]
    Field { frame: &'static str, field: &'static str, what: String },
    #[error("{frame}: {what}")]
    Malformed { frame: &'static str, what: String },
    #[error("an empty frame")]
    Empty,
    #[error("the first frame is not a hello")]
    NoHello,
}

const HELLO: u8 = 1;
const FOLDER_HELLO: u8 = 2;
const INDEX: u8 = 3;
const ACK: u8 = 4;
const FOUND: u8 = 5;
const DIGEST: u8 = 6;
const REPAIR: u8 = 7;
const REQUEST: u8 = 8;
pub(super) const CHUNKS: u8 = 9;
const NOT_HERE: u8 = 10;
const PING: u8 = 11;
const PONG: u8 = 12;
const CLOSE: u8 = 13;
const HAVE: u8 = 14;
const ASK_PAST: u8 = 16;
const PAST: u8 = 17;
const GIFT: u8 = 18;
/// As [`CHUNKS`], compressed.
pub(super) const PACKED: u8 = 19;
const LANES: u8 = 20;

/// Deepest nesting of MessagePack that is read; the deepest frame has 6.
const NESTING_MAX: usize = 32;
/// Fastest level that still shrinks paths and hashes noticeably.
const ZSTD_LEVEL: i32 = 1;
/// A body shorter than this is sent as it is.
const ZSTD_BYTES_MIN: usize = 256;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Bytes of a frame's length.
pub(super) const LENGTH_BYTES: usize = 4;

/// A frame ready to be sent, its length included.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub(super) parts: Vec<Bytes>,
    pub(super) is_close: bool,
}

impl Encoded {
    /// The bytes, in the order in which they are sent.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    pub fn byte_count(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// True for the frame after which nothing is sent.
    pub fn is_close(&self) -> bool {
        self.is_close
    }
}

/// Makes bytes of a frame, within all limits.
pub fn encode(frame: &Frame) -> Result<Encoded, CodecError> {
    let (kind, body) = match frame {
        Frame::Hello(hello) => return finish(HELLO, pack_hello(hello)?, HELLO_FRAME_BYTES_MAX),
        Frame::Folder(folder, message) => encode_message(folder, message)?,
        Frame::Request(request) => (REQUEST, pack("request", &wire_request(request)?)?),
        Frame::Chunks(chunks) => return wire_chunks::pack(chunks),
        Frame::NotHere { request, items } => {
            bounded("not here", "items", items.len(), REQUEST_ITEMS_MAX)?;
            (NOT_HERE, pack("not here", &WireNotHere { request: *request, items: List(items.clone()) })?)
        }
        Frame::Have(have) => {
            bounded("have", "ranges", have.ranges.len(), HAVE_RANGES_MAX)?;
            (HAVE, pack("have", &WireHave::from(have))?)
        }
        Frame::Gift(gift) => (GIFT, wire_gift::pack(gift).map_err(|e| field_error("gift", e))?),
        Frame::AskPast(ask) => (ASK_PAST, pack("question about the past", &WireAskPast::from(ask))?),
        Frame::Past(past) => (PAST, pack("past", &WirePast::from(past))?),
        Frame::Lanes(Lanes { key, wanted }) => (LANES, pack("lanes", &(serde_bytes::Bytes::new(&key.0), wanted))?),
        Frame::Ping(n) => (PING, n.to_be_bytes().to_vec()),
        Frame::Pong(n) => (PONG, n.to_be_bytes().to_vec()),
        Frame::Close(reason) => (CLOSE, clean_text(reason, REASON_CHARS_MAX).into_bytes()),
        Frame::Unknown(kind) => (*kind, Vec::new()),
    };
    finish(kind, body, FRAME_BYTES_MAX)
}

/// Reads a frame's type and body (what follows its length).
pub fn decode(mut frame: Bytes) -> Result<Frame, CodecError> {
    if frame.is_empty() {
        return Err(CodecError::Empty);
    }
    let kind = frame.get_u8();
    match kind {
        HELLO => decode_hello(&frame),
        FOLDER_HELLO => decode_folder("folder hello", &frame, |w: WireHello| Ok(Message::Hello(w.try_into()?))),
        INDEX => {
            decode_folder("index", &inflate("index", &frame)?, |w: WireBatch<'_>| Ok(Message::Index(w.try_into()?)))
        }
        ACK => decode_folder("ack", &inflate("ack", &frame)?, |w: WireAck<'_>| Ok(Message::Ack(w.try_into()?))),
        FOUND => decode_folder("found", &frame, |w: WireFound| Ok(Message::Found(found(w.0.0)?))),
        DIGEST => decode_folder("digest", &frame, |w: WireDigest| Ok(Message::Digest(w.try_into()?))),
        REPAIR => decode_folder("repair", &inflate("repair", &frame)?, |w: WireRepair<'_>| {
            Ok(Message::Repair { bucket: w.bucket, entries: entries(w.entries.0)? })
        }),
        REQUEST => decode_request(&frame),
        CHUNKS => wire_chunks::unpack(frame),
        PACKED => wire_chunks::unpack(inflate("chunks", &frame)?),
        NOT_HERE => {
            let wire: WireNotHere = unpack("not here", &frame)?;
            Ok(Frame::NotHere { request: wire.request, items: wire.items.0 })
        }
        HAVE => {
            let have = unpack::<WireHave<'_>>("have", &frame)?.try_into();
            Ok(Frame::Have(have.map_err(|e| field_error("have", e))?))
        }
        GIFT => wire_gift::unpack(frame).map(Frame::Gift).map_err(|e| field_error("gift", e)),
        ASK_PAST => {
            let frame_name = "question about the past";
            let ask = unpack::<WireAskPast<'_>>(frame_name, &frame)?.try_into();
            ask.map(Frame::AskPast).map_err(|e| field_error(frame_name, e))
        }
        PAST => {
            let past = unpack::<WirePast<'_>>("past", &frame)?.try_into();
            past.map(Frame::Past).map_err(|e| field_error("past", e))
        }
        LANES => {
            let (key, wanted): (ByteArray<LANE_KEY_BYTES>, u16) = unpack("lanes", &frame)?;
            Ok(Frame::Lanes(Lanes { key: LaneKey(key.into_array()), wanted }))
        }
        PING => Ok(Frame::Ping(number("ping", frame)?)),
        PONG => Ok(Frame::Pong(number("pong", frame)?)),
        CLOSE => Ok(Frame::Close(clean_text(&String::from_utf8_lossy(&frame), REASON_CHARS_MAX))),
        other => Ok(Frame::Unknown(other)),
    }
}

fn encode_message(folder: &FolderId, message: &Message) -> Result<(u8, Vec<u8>), CodecError> {
    let id = folder.as_str();
    Ok(match message {
        Message::Hello(hello) => {
            bounded("folder hello", "found", hello.found.len(), FOUND_MAX)?;
            let runs = hello.cursor.as_ref().map_or(0, |c| c.runs.len());
            bounded("folder hello", "runs", runs, RUNS_MAX)?;
            (FOLDER_HELLO, pack("folder hello", &(id, WireHello::from(hello)))?)
        }
        Message::Index(batch) => {
            bounded("index", "entries", batch.entries.len(), BATCH_ENTRIES_MAX)?;
            (INDEX, deflate("index", pack("index", &(id, WireBatch::from(batch)))?)?)
        }
        Message::Ack(ack) => {
            bounded("ack", "exceptions", ack.exceptions.len(), EXCEPTIONS_MAX)?;
            (ACK, deflate("ack", pack("ack", &(id, WireAck::from(ack)))?)?)
        }
        Message::Found(found) => {
            bounded("found", "counts", found.len(), FOUND_MAX)?;
            (FOUND, pack("found", &(id, WireFound(List(raw_counts(found)))))?)
        }
        Message::Digest(report) => (DIGEST, pack("digest", &(id, WireDigest::from(report)))?),
        Message::Repair { bucket, entries } => {
            bounded("repair", "entries", entries.len(), BATCH_ENTRIES_MAX)?;
            let wire = WireRepair { bucket: *bucket, entries: List(entries.iter().map(WireAnnounced::from).collect()) };
            (REPAIR, deflate("repair", pack("repair", &(id, wire))?)?)
        }
    })
}

fn decode_folder<'a, W: Deserialize<'a>>(
    frame: &'static str,
    body: &'a [u8],
    validate: impl FnOnce(W) -> Result<Message, FieldError>,
) -> Result<Frame, CodecError> {
    let (folder, wire): (&str, W) = unpack(frame, body)?;
    let folder = wire::folder_id(folder).map_err(|e| field_error(frame, e))?;
    let message = validate(wire).map_err(|e| field_error(frame, e))?;
    Ok(Frame::Folder(folder, message))
}

fn wire_hello(hello: &DeviceHello) -> WireDeviceHello<'_> {
    let folders = hello.folders.iter().take(FOLDERS_MAX).map(|(id, label)| (id.as_str(), label.as_str())).collect();
    WireDeviceHello { protocol: hello.protocol, name: &hello.name, agent: &hello.agent, folders: List(folders) }
}

/// The hello and, as a value of its own behind it, what the first version did not have: that version skips it.
fn pack_hello(hello: &DeviceHello) -> Result<Vec<u8>, CodecError> {
    let mut body = pack("hello", &wire_hello(hello))?;
    if let Some(sent_ms) = hello.sent_ms {
        body.extend(pack("hello", &WireHelloMore { sent_ms })?);
    }
    Ok(body)
}

fn decode_hello(body: &[u8]) -> Result<Frame, CodecError> {
    let (wire, more): (WireDeviceHello<'_>, Option<WireHelloMore>) = unpack_with_more("hello", body)?;
    Ok(Frame::Hello(DeviceHello {
        protocol: wire.protocol,
        name: clean_text(wire.name, NAME_CHARS_MAX),
        agent: clean_text(wire.agent, NAME_CHARS_MAX),
        folders: labelled_folders("hello", wire.folders.0)?,
        sent_ms: more.map(|more| more.sent_ms),
    }))
}

/// Folder ids with their labels from a peer, checked and made fit to be shown.
pub(super) fn labelled_folders(
    frame: &'static str,
    folders: Vec<(&str, &str)>,
) -> Result<Vec<(FolderId, String)>, CodecError> {
    let checked = |(id, label)| Ok((wire::folder_id(id)?, clean_text(label, NAME_CHARS_MAX)));
    folders.into_iter().map(checked).collect::<Result<_, _>>().map_err(|e| field_error(frame, e))
}

/// The request with as many hints as fit; without a hint the other side has to search.
fn wire_request(request: &Request) -> Result<WireRequest<'_>, CodecError> {
    bounded("request", "items", request.items.len(), REQUEST_ITEMS_MAX)?;
    let mut left = FILL_BYTES_MAX;
    let items = request.items.iter().map(|wanted| {
        let mut wire = WireWanted::from(wanted);
        match wire.hint.map_or(Some(left), |(path, _)| left.checked_sub(path.len())) {
            Some(rest) => left = rest,
            None => wire.hint = None,
        }
        wire
    });
    let items = List(items.collect());
    Ok(WireRequest { id: request.id, folder: request.folder.as_str(), items })
}

fn decode_request(body: &[u8]) -> Result<Frame, CodecError> {
    let wire: WireRequest<'_> = unpack("request", body)?;
    let folder = wire::folder_id(wire.folder).map_err(|e| field_error("request", e))?;
    let items = wire.items.0.into_iter().map(WantedContent::try_from).collect::<Result<_, _>>();
    let items = items.map_err(|e| field_error("request", e))?;
    Ok(Frame::Request(Request { id: wire.id, folder, items }))
}

pub(super) fn finish(kind: u8, body: Vec<u8>, bytes_max: usize) -> Result<Encoded, CodecError> {
    let length = 1 + body.len();
    if length > bytes_max {
        return Err(CodecError::TooLong { bytes: length, max: bytes_max });
    }
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + length);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&body);
    Ok(Encoded { parts: vec![bytes.into()], is_close: kind == CLOSE })
}

/// One MessagePack value.
pub(super) fn pack(frame: &'static str, value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec(value).map_err(|e| CodecError::Malformed { frame, what: e.to_string() })
}

/// Reads one MessagePack value from the front of `body`.
pub(super) fn unpack<'a, T: Deserialize<'a>>(frame: &'static str, body: &'a [u8]) -> Result<T, CodecError> {
    Ok(unpack_with_more::<T, ()>(frame, body)?.0)
}

/// As [`unpack`], with the value behind the first where there is one that makes sense: a version to come may say
/// something else there.
fn unpack_with_more<'a, T: Deserialize<'a>, M: Deserialize<'a>>(
    frame: &'static str,
    body: &'a [u8],
) -> Result<(T, Option<M>), CodecError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(NESTING_MAX);
    let value = T::deserialize(&mut deserializer).map_err(|e| CodecError::Malformed { frame, what: e.to_string() })?;
    Ok((value, M::deserialize(&mut deserializer).ok()))
}

/// Puts a flag before the body, and compresses it where that helps.
pub(super) fn deflate(frame: &'static str, body: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: body.len(), max: BODY_BYTES_MAX });
    }
    if body.len() >= ZSTD_BYTES_MIN {
        let squeezed = zstd::bulk::compress(&body, ZSTD_LEVEL);
        let squeezed = squeezed.map_err(|e| CodecError::Malformed { frame, what: e.to_string() })?;
        if squeezed.len() < body.len() {
            return Ok([&[ZSTD][..], &(body.len() as u32).to_be_bytes(), &squeezed].concat());
        }
    }
    Ok([&[PLAIN], &body[..]].concat())
}

/// The opposite of [`deflate`]; never more than the announced bytes, nor than the limit.
fn inflate(frame: &'static str, body: &Bytes) -> Result<Bytes, CodecError> {
    let malformed = |what: &str| CodecError::Malformed { frame, what: what.into() };
    let mut body = body.clone();
    match body.try_get_u8() {
        Ok(PLAIN) => Ok(body),
        Ok(ZSTD) => {
            let length = body.try_get_u32().map_err(|_| malformed("cut short"))? as usize;
            if length > BODY_BYTES_MAX {
                return Err(CodecError::TooLong { bytes: length, max: BODY_BYTES_MAX });
            }
            let plain = zstd::bulk::decompress(&body, length).map_err(|e| malformed(&e.to_string()))?;
            if plain.len() == length { Ok(plain.into()) } else { Err(malformed("not as long as announced")) }
        }
        _ => Err(malformed("unknown compression")),
    }
}

fn number(frame: &'static str, mut body: Bytes) -> Result<u64, CodecError> {
    body.try_get_u64().map_err(|_| CodecError::Malformed { frame, what: "cut short".into() })
}

pub(super) fn bounded(frame: &'static str, field: &'static str, count: usize, max: usize) -> Result<(), CodecError> {
    if count <= max {
        return Ok(());
    }
    Err(CodecError::Field { frame, field, what: format!("{count} of them are more than {max}") })
}

fn field_error(frame: &'static str, (field, what): FieldError) -> CodecError {
    CodecError::Field { frame, field, what }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
