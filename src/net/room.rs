//! Memory for large frames, used again and again: asked for anew it would cost as much as copying all that comes.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Pieces that are kept: what is under way between a link and the disk when it goes fast.
const KEPT_MAX: usize = 16;
/// No larger piece is kept, in bytes: answers are a quarter of a mebibyte, and a little.
const KEPT_BYTES_MAX: usize = 320 * 1024;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Empty memory for `bytes` bytes.
pub(super) fn take(bytes: usize) -> Vec<u8> {
    if bytes > KEPT_BYTES_MAX {
        return Vec::with_capacity(bytes);
    }
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
    kept.unwrap_or_else(|| Vec::with_capacity(KEPT_BYTES_MAX))
}

/// Hands filled memory out; once all that refers to it is gone it may be taken again.
pub(super) fn bytes(filled: Vec<u8>) -> Bytes {
    Bytes::from_owner(Lent(filled))
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut back = std::mem::take(&mut self.0);
        if back.capacity() != KEPT_BYTES_MAX {
            return;
        }
        back.clear();
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_referred_to_is_not_used_again() {
        let fill = |byte: u8| {
            let mut room = take(100_000);
            room.resize(100_000, byte);
            bytes(room)
        };
        let (first, second) = (fill(1), fill(2));
        let part = first.slice(5..10);
        drop(first);
        let third = fill(3);
        assert_eq!((&part[..], second[99_999], third[0]), (&[1; 5][..], 2, 3));
        drop((part, second, third));
        assert!(take(100_000).is_empty());
    }
}
