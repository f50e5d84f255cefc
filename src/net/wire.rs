//! The MessagePack shapes of messages and entries, and their validation on the way to values of `core`.
//!
//! Every shape is a positional array. The order of the fields is the protocol: see `docs/protocol.md`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::bounds::{FOLDERS_MAX, HAVE_RANGES_MAX, REQUEST_ITEMS_MAX};
use super::wire_entry::{WireAnnounced, WireContent, entries};
use crate::core::content::{Content, SIZE_MAX};
use crate::core::id::{EpochId, FolderId, RunId};
use crate::core::message::{
    Ack, BATCH_ENTRIES_MAX, BUCKETS, Batch, Cursor, DigestReport, EXCEPTIONS_MAX, Exception, FOUND_MAX, Hello,
    RUNS_MAX, Reason,
};
use crate::core::path::RelPath;
use crate::core::version::COUNT_MAX;

/// A list of at most `MAX` elements; a longer one is refused before it takes memory.
#[derive(Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                if seq.size_hint().is_some_and(|n| n > MAX) {
                    return Err(A::Error::custom(format!("a list has more than {MAX} elements")));
                }
                // Not reserved from the announced length: what is not there takes no memory.
                let mut all = Vec::new();
                while let Some(element) = seq.next_element()? {
                    all.push(element);
                }
                Ok(List(all))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// The name of the field that is wrong, and what is wrong with it.
pub type FieldError = (&'static str, String);

#[derive(Serialize, Deserialize)]
pub struct WireDeviceHello<'a> {
    pub protocol: u16,
    pub name: &'a str,
    pub agent: &'a str,
    #[serde(borrow)]
    pub folders: List<(&'a str, &'a str), FOLDERS_MAX>,
}

/// What later versions say behind their hello.
#[derive(Serialize, Deserialize)]
pub struct WireHelloMore {
    pub sent_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub struct WireRequest<'a> {
    pub id: u32,
    pub folder: &'a str,
    #[serde(borrow)]
    pub items: List<WireWanted<'a>, REQUEST_ITEMS_MAX>,
}

#[derive(Serialize, Deserialize)]
pub struct WireWanted<'a> {
    pub content: WireContent,
    #[serde(borrow)]
    pub hint: Option<(&'a Bytes, u64)>,
}

#[derive(Serialize, Deserialize)]
pub struct WireNotHere {
    pub request: u32,
    pub items: List<u16, REQUEST_ITEMS_MAX>,
}

#[derive(Serialize, Deserialize)]
pub struct WireHave<'a> {
    pub folder: &'a str,
    content: WireContent,
    ranges: List<(u64, u64), HAVE_RANGES_MAX>,
}

#[derive(Serialize, Deserialize)]
pub struct WireHello {
    epoch: u64,
    run: u64,
    last_seq: u64,
    found: List<(u64, u64), FOUND_MAX>,
    cursor: Option<WireCursor>,
}

#[derive(Serialize, Deserialize)]
struct WireCursor {
    epoch: u64,
    seq: u64,
    runs: List<(u64, u64), RUNS_MAX>,
}

#[derive(Serialize, Deserialize)]
pub struct WireFound(pub List<(u64, u64), FOUND_MAX>);

#[derive(Serialize, Deserialize)]
pub struct WireBatch<'a> {
    epoch: u64,
    run: u64,
    #[serde(borrow)]
    entries: List<WireAnnounced<'a>, BATCH_ENTRIES_MAX>,
    upto: u64,
    more: bool,
}

#[derive(Serialize, Deserialize)]
pub struct WireRepair<'a> {
    pub bucket: u8,
    #[serde(borrow)]
    pub entries: List<WireAnnounced<'a>, BATCH_ENTRIES_MAX>,
}

#[derive(Serialize, Deserialize)]
pub struct WireAck<'a> {
    epoch: u64,
    received: u64,
    applied: u64,
    #[serde(borrow)]
    exceptions: List<WireException<'a>, EXCEPTIONS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct WireException<'a>(#[serde(borrow)] &'a Bytes, u64, u8);

/// The buckets are packed: 16 bytes each, most significant first.
#[derive(Serialize, Deserialize)]
pub struct WireDigest {
    epoch: u64,
    seq: u64,
    seen: u64,
    buckets: ByteBuf,
    is_answer: bool,
}

const REASONS: [Reason; 6] =
    [Reason::Pending, Reason::Conflict, Reason::Ignored, Reason::Declined, Reason::Held, Reason::Problem];
const BUCKET_BYTES: usize = 16;

impl<'a> From<&'a super::frame::WantedContent> for WireWanted<'a> {
    fn from(wanted: &'a super::frame::WantedContent) -> Self {
        let hint = wanted.hint.as_ref().map(|(path, offset)| (Bytes::new(path.as_bytes()), *offset));
        Self { content: wanted.content.into(), hint }
    }
}

impl TryFrom<WireWanted<'_>> for super::frame::WantedContent {
    type Error = FieldError;

    fn try_from(wire: WireWanted<'_>) -> Result<Self, FieldError> {
        let hint = match wire.hint {
            Some((path, offset)) => Some((parse_path(path)?, at_most("hint offset", offset, SIZE_MAX)?)),
            None => None,
        };
        Ok(Self { content: wire.content.try_into()?, hint })
    }
}

impl<'a> From<&'a super::frame::Have> for WireHave<'a> {
    fn from(have: &'a super::frame::Have) -> Self {
        Self { folder: have.folder.as_str(), content: have.content.into(), ranges: List(have.ranges.clone()) }
    }
}

impl TryFrom<WireHave<'_>> for super::frame::Have {
    type Error = FieldError;

    fn try_from(wire: WireHave<'_>) -> Result<Self, FieldError> {
        let content: Content = wire.content.try_into()?;
        for (start, length) in &wire.ranges.0 {
            let end = start.checked_add(*length).filter(|end| *length > 0 && *end <= content.size);
            end.ok_or_else(|| ("ranges", "a range is empty or beyond the end of the content".to_owned()))?;
        }
        Ok(Self { folder: folder_id(wire.folder)?, content, ranges: wire.ranges.0 })
    }
}

impl From<&Hello> for WireHello {
    fn from(hello: &Hello) -> Self {
        let cursor = hello.cursor.as_ref().map(|c| WireCursor {
            epoch: c.epoch.0,
            seq: c.seq,
            runs: List(c.runs.iter().map(|(run, seq)| (run.0, *seq)).collect()),
        });
        let (epoch, run, found) = (hello.epoch.0, hello.run.0, List(raw_counts(&hello.found)));
        Self { epoch, run, last_seq: hello.last_seq, found, cursor }
    }
}

impl TryFrom<WireHello> for Hello {
    type Error = FieldError;

    fn try_from(wire: WireHello) -> Result<Self, FieldError> {
        let cursor = match wire.cursor {
            Some(c) => {
                let run = |(run, seq)| Ok((RunId(run), count("run", seq)?));
                let runs = c.runs.0.into_iter().map(run).collect::<Result<_, FieldError>>()?;
                Some(Cursor { epoch: EpochId(c.epoch), seq: count("cursor", c.seq)?, runs })
            }
            None => None,
        };
        let last_seq = count("last_seq", wire.last_seq)?;
        Ok(Self { epoch: EpochId(wire.epoch), run: RunId(wire.run), last_seq, found: found(wire.found.0)?, cursor })
    }
}

impl<'a> From<&'a Batch> for WireBatch<'a> {
    fn from(batch: &'a Batch) -> Self {
        let entries = List(batch.entries.iter().map(WireAnnounced::from).collect());
        Self { epoch: batch.epoch.0, run: batch.run.0, entries, upto: batch.upto, more: batch.more }
    }
}

impl TryFrom<WireBatch<'_>> for Batch {
    type Error = FieldError;

    fn try_from(wire: WireBatch<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            epoch: EpochId(wire.epoch),
            run: RunId(wire.run),
            entries: entries(wire.entries.0)?,
            upto: count("upto", wire.upto)?,
            more: wire.more,
        })
    }
}

impl<'a> From<&'a Ack> for WireAck<'a> {
    fn from(ack: &'a Ack) -> Self {
        let number = |reason| REASONS.iter().position(|r| *r == reason).unwrap_or(0) as u8;
        let exception = |e: &'a Exception| WireException(Bytes::new(e.path.as_bytes()), e.seq, number(e.reason));
        let exceptions = List(ack.exceptions.iter().map(exception).collect());
        Self { epoch: ack.epoch.0, received: ack.received, applied: ack.applied, exceptions }
    }
}

impl TryFrom<WireAck<'_>> for Ack {
    type Error = FieldError;

    fn try_from(wire: WireAck<'_>) -> Result<Self, FieldError> {
        let exception = |WireException(path, seq, reason): WireException<'_>| {
            // A reason of a later version is some trouble there, too.
            let reason = REASONS.get(usize::from(reason)).copied().unwrap_or(Reason::Problem);
            Ok(Exception { path: parse_path(path)?, seq: count("exception", seq)?, reason })
        };
        let exceptions = wire.exceptions.0.into_iter().map(exception).collect::<Result<_, FieldError>>()?;
        let (received, applied) = (count("received", wire.received)?, count("applied", wire.applied)?);
        Ok(Self { epoch: EpochId(wire.epoch), received, applied, exceptions })
    }
}

impl From<&DigestReport> for WireDigest {
    fn from(report: &DigestReport) -> Self {
        let packed: Vec<u8> = report.buckets.iter().flat_map(|b| b.to_be_bytes()).collect();
        Self {
            epoch: report.epoch.0,
            seq: report.seq,
            seen: report.seen,
            buckets: packed.into(),
            is_answer: report.is_answer,
        }
    }
}

impl TryFrom<WireDigest> for DigestReport {
    type Error = FieldError;

    fn try_from(wire: WireDigest) -> Result<Self, FieldError> {
        if wire.buckets.len() != BUCKETS * BUCKET_BYTES {
            return Err(("buckets", format!("not {BUCKETS} of them")));
        }
        let bucket = |b: &[u8]| b.try_into().map(u128::from_be_bytes).unwrap_or_default();
        Ok(Self {
            epoch: EpochId(wire.epoch),
            seq: count("seq", wire.seq)?,
            seen: count("seen", wire.seen)?,
            buckets: wire.buckets.chunks_exact(BUCKET_BYTES).map(bucket).collect(),
            is_answer: wire.is_answer,
        })
    }
}

/// A folder id from a peer.
pub fn folder_id(text: &str) -> Result<FolderId, FieldError> {
    text.parse().map_err(|e: crate::core::id::IdError| ("folder", e.to_string()))
}

/// Found counts from a peer.
pub fn found(pairs: Vec<(u64, u64)>) -> Result<Vec<(EpochId, u64)>, FieldError> {
    pairs.into_iter().map(|(epoch, upto)| Ok((EpochId(epoch), count("found", upto)?))).collect()
}

/// Epochs with their counts, as they are written.
pub fn raw_counts(pairs: &[(EpochId, u64)]) -> Vec<(u64, u64)> {
    pairs.iter().map(|(epoch, count)| (epoch.0, *count)).collect()
}

/// A path from a peer.
pub(super) fn parse_path(bytes: &[u8]) -> Result<RelPath, FieldError> {
    RelPath::parse(bytes).map_err(|e| ("path", e.to_string()))
}

/// A count or sequence number from a peer.
pub(super) fn count(field: &'static str, value: u64) -> Result<u64, FieldError> {
    at_most(field, value, COUNT_MAX)
}

fn at_most(field: &'static str, value: u64, max: u64) -> Result<u64, FieldError> {
    if value <= max { Ok(value) } else { Err((field, format!("{value} is more than {max}"))) }
}
