//! Requests and replies: what is asked of an agent and what it answers, whatever the way they go.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::past::{HistoryUsage, PruneReport, RewindReport, WaitReport};
use super::types::{
    ConflictItem, EventItem, FolderOffer, FolderProblem, FolderStatus, HistoryItem, KnownFolder, PathStatus,
    PeerStatus, Status,
};
use super::view::UnsyncedPage;

/// Longest reply in bytes: a status with many folders.
pub const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a command wants of the agent. Folders are named by id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// This device, its folders and its peers.
    Status,
    /// The folders.
    Folders,
    /// One folder, by its id.
    Folder { folder: String },
    /// The peers.
    Peers,
    /// One peer, by its device id or name.
    Peer { peer: String },
    /// What state a path is in, and why.
    StatusPath { path: WirePath },
    /// All that is not in sync, here and at other devices, whatever the reason, each with all its reasons; page by page,
    /// after what the last page told; of one folder or of all. `problems` is the part that needs something done here.
    Unsynced {
        folder: Option<String>,
        /// What the last page told as `next`.
        after: Option<String>,
        #[serde(default = "unsynced_by_default")]
        count: usize,
    },
    /// Read the config file again.
    Reload,
    /// Scan this folder, or all of them.
    Rescan { folder: Option<String> },
    /// The held deletions are wanted: they go ahead.
    Confirm { folder: String },
    /// The held deletions are not wanted: the files come back.
    Reject { folder: String },
    /// In a folder that only sends: what is here takes the place of what the other devices have.
    Override { folder: String },
    /// In a folder that only receives: what was changed here is taken back, into history.
    Revert { folder: String },
    /// Show a pairing code and wait for another device; goes on as long as the connection.
    PairShow,
    /// Pair with the device that shows this code, in words or in short, or this link.
    PairJoin { code: String },
    /// Bring an earlier version back to its place; what lies there goes into history.
    Restore { path: WirePath, when: When },
    /// Items of this device that need something done, in all folders, all at once and without more than their own reason:
    /// for a list that a program watches. `unsynced` has these too, with what only waits and what other devices lack.
    Problems,
    /// Conflict copies in all folders.
    Conflicts,
    /// Earlier versions of a path, or of all below it, the latest first.
    History { path: WirePath },
    /// How much the history of this folder holds, or of all.
    HistoryUsage { folder: Option<String> },
    /// Removes versions from history, of this folder or of all.
    HistoryPrune {
        folder: Option<String>,
        /// What was put there before this time, in milliseconds since 1970 UTC.
        before_ms: i64,
        /// Only says what would go.
        dry_run: bool,
    },
    /// The latest events, oldest first.
    Events {
        #[serde(default = "events_by_default")]
        count: usize,
    },
    /// Settles a conflict; what is not kept goes into history.
    Resolve {
        /// The conflict copy.
        copy: WirePath,
        keep: Keep,
    },
    /// Takes back what has happened at or below a path.
    Rewind {
        path: WirePath,
        to: RewindTo,
        /// Only says what would be done.
        dry_run: bool,
    },
    /// Answers once as many peers (`None`: all) hold what is at or below the path, or the time is over.
    Wait {
        path: WirePath,
        peers: Option<u32>,
        /// From an earlier answer: the moment up to which changes matter.
        upto: Option<u64>,
        for_ms: u64,
    },
    /// Events as they happen, until the connection ends.
    Follow,
    /// Stop the agent.
    Stop,
}

/// How far to go back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewindTo {
    /// To what was there at this time, in milliseconds since 1970 UTC.
    AtMs(i64),
    /// To before the last changes that one other device made in one go. With a time, only if those ended then.
    BeforePeer { ended_ms: Option<i64> },
    /// To before the last request of this kind that was carried out.
    BeforeRewind,
}

/// What is kept of a file and its conflict copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    Original,
    Copy,
    /// Both, the copy under an ordinary name.
    Both,
    /// Neither: this file of this device takes the original's place.
    File(WirePath),
}

/// Which version to restore.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The one that was displaced last.
    Latest,
    /// The one that lay there at this time, in milliseconds since 1970 UTC.
    AtMs(i64),
    /// The one with this id in the list of versions.
    Id(String),
}

/// What the agent answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    Status(Status),
    Folders(Vec<FolderStatus>),
    Folder(FolderStatus),
    Peers(Vec<PeerStatus>),
    Peer(PeerStatus),
    Problems(Vec<FolderProblem>),
    Path(PathStatus),
    Unsynced(UnsyncedPage),
    Conflicts(Vec<ConflictItem>),
    History(Vec<HistoryItem>),
    Events(Vec<EventItem>),
    Waited(WaitReport),
    Rewound(RewindReport),
    HistoryUsage(Vec<HistoryUsage>),
    Pruned(Vec<PruneReport>),
    /// From now on no event is left out without a word.
    Following {},
    /// Something has happened just now.
    Event(EventItem),
    /// So many events were left out, for the reader was too slow.
    Missed {
        count: u64,
    },
    /// Done, in words.
    Done {
        text: String,
    },
    /// What is being done meanwhile.
    Progress {
        text: String,
    },
    /// The code to type on the other device: in short and in words. The link says the same to a device that finds this
    /// one in no other way.
    PairCode {
        code: String,
        valid_seconds: u64,
        #[serde(default)]
        words: String,
        #[serde(default)]
        link: String,
    },
    /// Paired with this device; `folders` holds the labels of the folders that are shared with it now, `offers` what it
    /// shares and is not here yet.
    Paired {
        device_id: String,
        name: String,
        folders: Vec<String>,
        #[serde(default)]
        offers: Vec<FolderOffer>,
        /// Folders that are here and not shared with it, and that it has or had before.
        #[serde(default)]
        again: Vec<KnownFolder>,
    },
    /// Not done: what happened and what to do.
    Error {
        text: String,
    },
    /// Not done: there is no such thing.
    Missing {
        text: String,
    },
    /// Not done: the agent is still starting.
    Starting {
        text: String,
    },
}

/// A reply on the wire.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// True where no more replies follow.
    pub last: bool,
    #[serde(flatten)]
    pub reply: Reply,
}

/// A path in JSON, whatever its bytes: `%`, and bytes that are not text, are written as `%` and two hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct WirePath(pub PathBuf);

/// Items of a page of what is not in sync, where nobody says how many.
fn unsynced_by_default() -> usize {
    200
}

/// How many events are told where nobody says how many.
fn events_by_default() -> usize {
    50
}

impl From<WirePath> for String {
    fn from(path: WirePath) -> String {
        let mut text = String::new();
        for chunk in path.0.as_os_str().as_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
        }
        text
    }
}

impl TryFrom<String> for WirePath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut pieces = text.split('%');
        bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
        for piece in pieces {
            let digits = piece.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits
                .and_then(|d| u8::from_str_radix(d, 16).ok())
                .ok_or("a % is not followed by two hexadecimal digits")?;
            bytes.push(byte);
            bytes.extend_from_slice(piece.get(2..).unwrap_or_default().as_bytes());
        }
        Ok(Self(OsString::from_vec(bytes).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_path_survives_json(bytes: Vec<u8>) {
            let path = WirePath(OsString::from_vec(bytes).into());
            let json = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<WirePath>(&json).unwrap(), path);
        }
    }

    #[test]
    fn the_wire_form_is_stable() {
        let request = Request::Restore { path: WirePath("/a b".into()), when: When::AtMs(5) };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(json, r#"{"request":"restore","path":"/a b","when":{"at_ms":5}}"#);
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        let answer = Answer { last: true, reply: Reply::Done { text: "ok".into() } };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(json, r#"{"last":true,"reply":"done","value":{"text":"ok"}}"#);
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
    }
}
