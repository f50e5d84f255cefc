//! The MessagePack shapes of a question about earlier versions and its answer, and their validation.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, Bytes};

use super::bounds::{PAST_BYTES_MAX, PAST_VERSIONS_MAX};
use super::frame::{AskPast, Past, PastVersion};
use super::wire::{FieldError, List, folder_id, parse_path};
use super::wire_entry::WireContent;
use crate::core::entry::MODE_MASK;
use crate::core::id::DeviceId;

/// What a version takes beside its path, bytes: content, times, mode, author and all markers.
const VERSION_FIXED_BYTES: usize = 128;

#[derive(Serialize, Deserialize)]
pub struct WireAskPast<'a> {
    id: u32,
    folder: &'a str,
    #[serde(borrow)]
    path: Option<&'a Bytes>,
}

#[derive(Serialize, Deserialize)]
pub struct WirePast<'a> {
    id: u32,
    folder: &'a str,
    #[serde(borrow)]
    versions: List<WirePastVersion<'a>, PAST_VERSIONS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct WirePastVersion<'a> {
    #[serde(borrow)]
    path: &'a Bytes,
    content: WireContent,
    mtime_ns: i64,
    mode: u32,
    displaced_ms: i64,
    author: Option<ByteArray<32>>,
}

impl<'a> From<&'a AskPast> for WireAskPast<'a> {
    fn from(ask: &'a AskPast) -> Self {
        let path = ask.path.as_ref().map(|path| Bytes::new(path.as_bytes()));
        Self { id: ask.id, folder: ask.folder.as_str(), path }
    }
}

impl TryFrom<WireAskPast<'_>> for AskPast {
    type Error = FieldError;

    fn try_from(wire: WireAskPast<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            id: wire.id,
            folder: folder_id(wire.folder)?,
            path: wire.path.map(|path| parse_path(path)).transpose()?,
        })
    }
}

impl<'a> From<&'a Past> for WirePast<'a> {
    /// As many versions as fit.
    fn from(past: &'a Past) -> Self {
        let mut left = PAST_BYTES_MAX;
        let fits = |version: &&PastVersion| {
            let rest = left.checked_sub(VERSION_FIXED_BYTES + version.path.as_bytes().len());
            rest.inspect(|rest| left = *rest).is_some()
        };
        let fitting = past.versions.iter().take(PAST_VERSIONS_MAX).take_while(fits);
        let versions = fitting.map(|version| WirePastVersion {
            path: Bytes::new(version.path.as_bytes()),
            content: version.content.into(),
            mtime_ns: version.mtime_ns,
            mode: version.mode & MODE_MASK,
            displaced_ms: version.displaced_ms,
            author: (version.author != DeviceId::NONE).then(|| ByteArray::new(version.author.0)),
        });
        Self { id: past.id, folder: past.folder.as_str(), versions: List(versions.collect()) }
    }
}

impl TryFrom<WirePast<'_>> for Past {
    type Error = FieldError;

    fn try_from(wire: WirePast<'_>) -> Result<Self, FieldError> {
        let version = |wire: WirePastVersion<'_>| {
            Ok(PastVersion {
                path: parse_path(wire.path)?,
                content: wire.content.try_into()?,
                mtime_ns: wire.mtime_ns,
                mode: wire.mode & MODE_MASK,
                displaced_ms: wire.displaced_ms,
                author: wire.author.map_or(DeviceId::NONE, |id| DeviceId(id.into_array())),
            })
        };
        let versions = wire.versions.0.into_iter().map(version).collect::<Result<_, FieldError>>()?;
        Ok(Self { id: wire.id, folder: folder_id(wire.folder)?, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::path::RelPath;
    use crate::net::codec::{CodecError, LENGTH_BYTES, decode, encode, pack};
    use crate::net::frame::Frame;
    use bytes::Bytes as FrameBytes;
    use proptest::prelude::*;

    fn read_back(frame: &Frame) -> Result<Frame, CodecError> {
        let bytes = encode(frame).unwrap().parts().concat();
        decode(FrameBytes::from(bytes).slice(LENGTH_BYTES..))
    }

    fn version(path: &str, size: u64, times: (i64, i64)) -> PastVersion {
        let content = Content { size, ..Content::of_chunk(path.as_bytes()) };
        let path = RelPath::parse(path.as_bytes()).unwrap();
        PastVersion { path, content, mtime_ns: times.0, mode: 0o644, displaced_ms: times.1, author: DeviceId([7; 32]) }
    }

    fn past(versions: Vec<PastVersion>) -> Frame {
        Frame::Past(Past { id: 9, folder: "docs".parse().unwrap(), versions })
    }

    proptest! {
        #[test]
        fn questions_and_answers_come_back_as_they_were_sent(
            id: u32, name in "[a-z]{1,9}(/[a-z]{1,9}){0,3}", times: (i64, i64), size in 0u64..1000, count in 0usize..5
        ) {
            let (folder, path) = ("docs".parse().unwrap(), RelPath::parse(name.as_bytes()).ok());
            let ask = Frame::AskPast(AskPast { id, folder, path });
            prop_assert_eq!(read_back(&ask).unwrap(), ask);
            let answer = past(vec![version(&name, size, times); count]);
            prop_assert_eq!(read_back(&answer).unwrap(), answer);
        }

        #[test]
        fn hostile_bytes_are_an_error_and_no_panic(kind in 16u8..18, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(FrameBytes::from([&[kind][..], &bytes].concat()));
        }
    }

    #[test]
    fn a_question_about_the_whole_folder_has_no_path() {
        let ask = Frame::AskPast(AskPast { id: 1, folder: "docs".parse().unwrap(), path: None });
        assert_eq!(read_back(&ask).unwrap(), ask);
    }

    #[test]
    fn an_answer_leaves_out_what_does_not_fit() {
        let many = past(vec![version("a", 1, (1, 1)); 2 * PAST_VERSIONS_MAX]);
        let Frame::Past(read) = read_back(&many).unwrap() else { panic!("another frame") };
        assert_eq!(read.versions.len(), PAST_VERSIONS_MAX);
        let long = vec!["x".repeat(250); 100].join("/");
        let Frame::Past(read) = read_back(&past(vec![version(&long, 1, (1, 1)); 100])).unwrap() else {
            panic!("another frame")
        };
        assert_eq!(read.versions.len(), PAST_BYTES_MAX / (VERSION_FIXED_BYTES + long.len()));
    }

    #[test]
    fn more_versions_than_allowed_are_refused() {
        let raw = version("a", 1, (1, 1));
        let wire = |_| WirePastVersion {
            path: Bytes::new(b"a"),
            content: raw.content.into(),
            mtime_ns: 1,
            mode: 0,
            displaced_ms: 1,
            author: None,
        };
        let versions: Vec<WirePastVersion> = (0..=PAST_VERSIONS_MAX).map(wire).collect();
        let body = pack("past", &WirePast { id: 1, folder: "docs", versions: List(versions) }).unwrap();
        let error = decode(FrameBytes::from([&[17][..], &body].concat())).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
