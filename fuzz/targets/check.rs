//! What holds for every value that came from outside, whatever the bytes were.

use p2psync::core::content::{CHUNK_BYTES_MAX, Content, SIZE_MAX};
use p2psync::core::entry::{Entry, Kind, LINK_BYTES_MAX, MODE_MASK, SUPERSEDED_MAX};
use p2psync::core::id::FolderId;
use p2psync::core::message::{
    Announced, BATCH_ENTRIES_MAX, BUCKETS, EXCEPTIONS_MAX, FOUND_MAX, Hello, Message, RUNS_MAX,
};
use p2psync::core::path::RelPath;
use p2psync::core::version::{COUNT_MAX, VersionVector};
use p2psync::net::bounds::{
    FOLDERS_MAX, GIFT_BYTES_MAX, GIFT_ITEMS_MAX, HAVE_RANGES_MAX, NAME_CHARS_MAX, PAST_VERSIONS_MAX, REASON_CHARS_MAX,
    REQUEST_ITEMS_MAX,
};
use p2psync::net::frame::Frame;

/// Longest error in bytes: it goes to logs and screens, and often quotes what came.
const ERROR_BYTES_MAX: usize = 2048;

/// An error that a person may see: not endless, and without what moves a terminal's cursor or forges a line.
pub fn error_text(text: &str) {
    assert!(text.len() <= ERROR_BYTES_MAX, "an error of {} bytes: {:.200}", text.len(), text);
    assert!(!text.chars().any(char::is_control), "an error with control characters: {text:?}");
}

/// An error that may have several lines, of which the text is none.
pub fn error_lines(text: &str) {
    text.lines().for_each(error_text);
    assert!(text.len() <= 4 * ERROR_BYTES_MAX, "an error of {} bytes", text.len());
}

/// All causes of an error.
pub fn error_chain(error: &dyn std::error::Error) {
    std::iter::successors(Some(error), |e| e.source()).for_each(|e| error_text(&e.to_string()));
}

/// A text from a peer as it is shown.
pub fn shown(text: &str, chars_max: usize) {
    assert!(text.chars().count() <= chars_max, "{} characters", text.chars().count());
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    assert_eq!(text, text.trim());
}

pub fn path(path: &RelPath) {
    assert_eq!(RelPath::parse(path.as_bytes()).as_ref(), Ok(path));
}

pub fn count(value: u64) {
    assert!(value <= COUNT_MAX, "a count of {value}");
}

pub fn content(content: &Content) {
    assert!(content.is_plausible(), "an implausible content: {content:?}");
}

pub fn version(version: &VersionVector) {
    assert_eq!(VersionVector::from_pairs(version.pairs().to_vec()).as_ref(), Ok(version));
}

pub fn entry(entry: &Entry) {
    path(&entry.path);
    version(&entry.version);
    match &entry.kind {
        Kind::File(c) => content(c),
        Kind::Symlink(target) => {
            assert!((1..=LINK_BYTES_MAX).contains(&target.len()), "a link's target of {} bytes", target.len());
            assert!(!target.contains(&0), "a link's target with NUL");
        }
        Kind::Directory | Kind::Deleted => {
            assert_eq!((entry.mtime_ns, entry.weight_ns), (0, 0), "times of what has none");
        }
    }
    assert!(entry.superseded.len() <= SUPERSEDED_MAX, "{} superseded", entry.superseded.len());
    count(entry.meta.stamp.count);
    assert!(entry.meta.mode.is_none_or(|(_, mode)| mode <= MODE_MASK), "mode {:?}", entry.meta.mode);
}

fn announced(list: &[Announced]) {
    assert!(list.len() <= BATCH_ENTRIES_MAX);
    for announced in list {
        entry(&announced.entry);
        count(announced.seq);
    }
}

fn folders(list: &[(FolderId, String)], max: usize) {
    assert!(list.len() <= max);
    for (id, label) in list {
        assert_eq!(id.as_str().parse().as_ref(), Ok(id));
        shown(label, NAME_CHARS_MAX);
    }
}

/// What a device tells of itself and its folders.
pub fn introduction(name: &str, of: &[(FolderId, String)]) {
    shown(name, NAME_CHARS_MAX);
    folders(of, FOLDERS_MAX);
}

pub fn message(message: &Message) {
    match message {
        Message::Hello(Hello { last_seq, found, cursor, .. }) => {
            count(*last_seq);
            assert!(found.len() <= FOUND_MAX);
            found.iter().for_each(|(_, upto)| count(*upto));
            if let Some(cursor) = cursor {
                count(cursor.seq);
                assert!(cursor.runs.len() <= RUNS_MAX);
                cursor.runs.iter().for_each(|(_, seq)| count(*seq));
            }
        }
        Message::Index(batch) => {
            announced(&batch.entries);
            count(batch.upto);
        }
        Message::Ack(ack) => {
            count(ack.received);
            count(ack.applied);
            assert!(ack.exceptions.len() <= EXCEPTIONS_MAX);
            for exception in &ack.exceptions {
                path(&exception.path);
                count(exception.seq);
            }
        }
        Message::Found(found) => {
            assert!(found.len() <= FOUND_MAX);
            found.iter().for_each(|(_, upto)| count(*upto));
        }
        Message::Digest(report) => {
            count(report.seq);
            count(report.seen);
            assert_eq!(report.buckets.len(), BUCKETS);
        }
        Message::Repair { entries, .. } => announced(entries),
    }
}

pub fn frame(frame: &Frame) {
    match frame {
        Frame::Hello(hello) => {
            introduction(&hello.name, &hello.folders);
            shown(&hello.agent, NAME_CHARS_MAX);
        }
        Frame::Folder(folder, about) => {
            assert_eq!(folder.as_str().parse().as_ref(), Ok(folder));
            message(about);
        }
        Frame::Request(request) => {
            assert_eq!(request.folder.as_str().parse().as_ref(), Ok(&request.folder));
            assert!(request.items.len() <= REQUEST_ITEMS_MAX);
            for wanted in &request.items {
                content(&wanted.content);
                if let Some((at, offset)) = &wanted.hint {
                    path(at);
                    assert!(*offset <= SIZE_MAX);
                }
            }
        }
        Frame::Chunks(chunks) => {
            assert!(chunks.items.len() <= REQUEST_ITEMS_MAX);
            assert!(chunks.items.iter().all(|(_, bytes)| bytes.len() as u64 <= CHUNK_BYTES_MAX));
        }
        Frame::NotHere { items, .. } => assert!(items.len() <= REQUEST_ITEMS_MAX),
        Frame::Have(have) => {
            assert_eq!(have.folder.as_str().parse().as_ref(), Ok(&have.folder));
            content(&have.content);
            assert!(have.ranges.len() <= HAVE_RANGES_MAX);
            let is_within = |(start, length): &(u64, u64)| *length > 0 && start + length <= have.content.size;
            assert!(have.ranges.iter().all(is_within));
        }
        Frame::Gift(gift) => {
            assert_eq!(gift.folder.as_str().parse().as_ref(), Ok(&gift.folder));
            assert!(gift.contents.len() <= GIFT_ITEMS_MAX);
            assert!(gift.contents.iter().all(|bytes| !bytes.is_empty() && bytes.len() <= GIFT_BYTES_MAX));
        }
        Frame::AskPast(ask) => ask.path.iter().for_each(path),
        Frame::Past(past) => {
            assert!(past.versions.len() <= PAST_VERSIONS_MAX);
            for version in &past.versions {
                path(&version.path);
                content(&version.content);
                assert!(version.mode <= 0o777);
            }
        }
        Frame::Close(reason) => shown(reason, REASON_CHARS_MAX),
        Frame::Lanes(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Unknown(_) => {}
    }
}
