//! Names in history and names of conflict copies: made for any path, and read from any.
//!
//! Layout: a time (8 bytes), a nonce (4), a flag, a content id (32), then the path.

use p2psync::core::conflict::{conflict_name, original_of};
use p2psync::core::content::ContentId;
use p2psync::core::id::{DeviceId, hex};
use p2psync::core::path::{COMPONENT_BYTES_MAX, RelPath};
use p2psync::fs::history::{Shown, is_private, origin, shown_content, slot_name};

use super::check;
use super::draw::Draw;

/// Latest time that a slot's name can hold, in ms since 1970.
const TIME_MS_MAX: i64 = (1 << 48) - 1;
/// Bytes that the longest end of a name takes: in history, and of a conflict copy.
const END_BYTES_MAX: usize = 80;

pub fn run(data: &[u8]) {
    let mut draw = Draw(data);
    let (time, nonce, flags) = (i64::from_be_bytes(draw.array()), u32::from_be_bytes(draw.array()), draw.byte());
    let content = ContentId(draw.array());
    let Ok(path) = RelPath::parse(draw.0) else { return };
    read(&path);
    let content = (flags & 1 == 1).then_some(content);
    let shown = match content {
        Some(id) if flags & 4 == 4 => Shown::Private(id),
        Some(id) => Shown::Content(id),
        None => Shown::Nothing,
    };
    made_slot(&path, shown, time, nonce);
    let author = if flags & 2 == 0 { DeviceId::NONE } else { DeviceId([flags; 32]) };
    made_conflict(&path, content, time, author);
}

/// Whatever a name says, it is a path in the same directory and a time that can be.
fn read(path: &RelPath) {
    if let Some((from, time_ms)) = origin(path) {
        check::path(&from);
        assert_eq!(from.parent(), path.parent());
        assert!((0..=TIME_MS_MAX).contains(&time_ms), "displaced at {time_ms}");
    }
    if let Some(original) = original_of(path) {
        check::path(&original);
        assert_eq!(original.parent(), path.parent());
        assert!(original.as_bytes().len() < path.as_bytes().len());
    }
    if let Some(shown) = shown_content(path) {
        assert!(shown.len() == 16 && shown.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

fn has_room(path: &RelPath) -> bool {
    path.file_name().len() + END_BYTES_MAX <= COMPONENT_BYTES_MAX && path.as_bytes().len() < 32_000
}

fn made_slot(path: &RelPath, shown: Shown, now_ms: i64, nonce: u32) {
    let slot = slot_name(path, shown, now_ms, nonce);
    check::path(&slot);
    read(&slot);
    assert_ne!(slot, slot_name(path, shown, now_ms, nonce.wrapping_add(1)));
    let content = match shown {
        Shown::Content(id) | Shown::Private(id) => Some(hex(&id.0[..8])),
        Shown::Nothing => None,
    };
    assert_eq!((shown_content(&slot), is_private(&slot)), (content.as_deref(), matches!(shown, Shown::Private(_))));
    if has_room(path) {
        assert_eq!(origin(&slot), Some((path.clone(), now_ms.clamp(0, TIME_MS_MAX))));
    }
}

fn made_conflict(path: &RelPath, content: Option<ContentId>, mtime_ns: i64, author: DeviceId) {
    let Ok(copy) = conflict_name(path, mtime_ns, author, content) else {
        return assert!(path.as_bytes().len() > 32_000, "no room for a conflict copy of {path:?}");
    };
    check::path(&copy);
    assert_eq!(copy.parent(), path.parent());
    assert!(original_of(&copy).is_some(), "{copy:?} is not known for a conflict copy");
    if has_room(path) {
        assert_eq!(original_of(&copy).as_ref(), Some(path));
    }
}
