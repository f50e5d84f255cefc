//! What two devices say to each other, validated; `codec` turns it into bytes and back.

use bytes::Bytes;

use super::lane::LaneKey;
use crate::core::content::Content;
use crate::core::id::{DeviceId, FolderId};
use crate::core::message::Message;
use crate::core::path::RelPath;

/// The version of the protocol that this program speaks; two devices speak the lesser of theirs.
pub const PROTOCOL_VERSION: u16 = 1;

/// One frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// The first frame in each direction, and again whenever the shared folders change.
    Hello(DeviceHello),
    Folder(FolderId, Message),
    Request(Request),
    Chunks(Chunks),
    /// What of a request can't be served; the reason is never told.
    NotHere {
        request: u32,
        items: Vec<u16>,
    },
    Have(Have),
    Gift(Gift),
    AskPast(AskPast),
    Past(Past),
    Lanes(Lanes),
    Ping(u64),
    Pong(u64),
    /// The last frame, with the reason for people.
    Close(String),
    /// A frame of a later version: to be skipped.
    Unknown(u8),
}

/// Who the sender is and what it shares with the receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceHello {
    pub protocol: u16,
    /// The device's name, at most [`super::bounds::NAME_CHARS_MAX`] characters, without control characters.
    pub name: String,
    /// Program and version, for people.
    pub agent: String,
    /// The folders that the sender shares with the receiver, each with its label.
    pub folders: Vec<(FolderId, String)>,
    /// What the sender's clock showed when it sent this, in ms since 1970: only told to people, never decided by.
    pub sent_ms: Option<i64>,
}

/// Asks for contents of one folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Chosen by the sender; answers repeat it.
    pub id: u32,
    pub folder: FolderId,
    pub items: Vec<WantedContent>,
}

/// One chunk or chunk list, with a place where the other side is likely to find it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedContent {
    pub content: Content,
    pub hint: Option<(RelPath, u64)>,
}

/// Contents that were asked for; unverified. May answer a part of the request, in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunks {
    pub request: u32,
    /// Index within the request, and the bytes.
    pub items: Vec<(u16, Bytes)>,
}

/// Says which parts of a content the sender has, while it fetches the rest: each as its first byte and its length. What
/// it has said before still holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Have {
    pub folder: FolderId,
    pub content: Content,
    pub ranges: Vec<(u64, u64)>,
}

/// Small contents that the next entries name, unasked; unverified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gift {
    pub folder: FolderId,
    pub contents: Vec<Bytes>,
}

/// Says that further connections can be had beside this one, and how many of them the sender would like. Sent by the side
/// that was dialled, to the other, which opens them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lanes {
    /// By which they are known to belong to this connection.
    pub key: LaneKey,
    pub wanted: u16,
}

/// Asks what the other side's history has of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskPast {
    /// Chosen by the sender; the answer repeats it.
    pub id: u32,
    pub folder: FolderId,
    /// `None` for all of the folder.
    pub path: Option<RelPath>,
}

/// Earlier versions of files, the latest first: an answer, which may leave out what does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {
    pub id: u32,
    pub folder: FolderId,
    pub versions: Vec<PastVersion>,
}

/// An earlier version of a file. Its content can be asked for like any other of the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastVersion {
    pub path: RelPath,
    pub content: Content,
    pub mtime_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// When the answering device put it into history, ms since 1970.
    pub displaced_ms: i64,
    pub author: DeviceId,
}
