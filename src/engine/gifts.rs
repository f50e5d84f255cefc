//! Small contents that go along with their announcement, so that the peer need not ask for them first: one round trip
//! less for what somebody waits for.
//!
//! What was just read here is remembered for a moment, and sent before the entry that names it. What a peer sends is
//! remembered by the hash that it really has, until an entry wants just that; so nothing has to be believed. A gift
//! that nobody wants is forgotten when others come.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::core::message::Message;
use crate::net::bounds::{GIFT_BYTES_MAX, GIFT_ITEMS_MAX};

/// Contents remembered on either side of a folder, and their bytes.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The gifts of one folder.
#[derive(Default)]
pub struct Gifts {
    read: Mutex<Kept>,
    received: Mutex<Kept>,
}

impl Gifts {
    /// Remembers what was just read in this folder, if it is small enough.
    pub fn was_read(&self, content: Content, bytes: Option<&[u8]>, own: DeviceId) {
        if let Some(bytes) = bytes.filter(|bytes| is_fit(content, bytes)) {
            lock(&self.read).put(content, Bytes::copy_from_slice(bytes), own);
        }
    }

    /// What goes along with a message: the small contents that its few entries name.
    pub fn for_message(&self, message: &Message) -> Vec<Bytes> {
        let Message::Index(batch) = message else { return Vec::new() };
        if batch.entries.len() > GIFT_ITEMS_MAX {
            return Vec::new();
        }
        let read = lock(&self.read);
        let contents = batch.entries.iter().filter_map(|announced| announced.entry.kind.content());
        contents.filter_map(|content| read.find(content)).collect()
    }

    /// Remembers what a peer sent unasked.
    pub fn take_in(&self, peer: DeviceId, contents: Vec<Bytes>) {
        for bytes in contents {
            let content = Content::of_chunk(&bytes);
            if is_fit(content, &bytes) {
                // A frame's bytes are one piece of memory, which a small part would keep alive.
                lock(&self.received).put(content, Bytes::copy_from_slice(&bytes), peer);
            }
        }
    }

    /// Takes a content out that a peer has sent unasked.
    pub fn take(&self, content: Content) -> Option<(DeviceId, Bytes)> {
        lock(&self.received).take(content)
    }
}

fn is_fit(content: Content, bytes: &[u8]) -> bool {
    content.depth == 0 && content.size == bytes.len() as u64 && !bytes.is_empty() && bytes.len() <= GIFT_BYTES_MAX
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Contents in the order in which they came.
#[derive(Default)]
struct Kept {
    items: VecDeque<(Content, DeviceId, Bytes)>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, content: Content, bytes: Bytes, from: DeviceId) {
        if self.items.iter().any(|(kept, ..)| *kept == content) {
            return;
        }
        self.bytes += bytes.len();
        self.items.push_back((content, from, bytes));
        while (self.items.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX)
            && let Some((_, _, oldest)) = self.items.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    fn find(&self, content: Content) -> Option<Bytes> {
        self.items.iter().find(|(kept, ..)| *kept == content).map(|(_, _, bytes)| bytes.clone())
    }

    fn take(&mut self, content: Content) -> Option<(DeviceId, Bytes)> {
        let at = self.items.iter().position(|(kept, ..)| *kept == content)?;
        let (_, from, bytes) = self.items.remove(at)?;
        self.bytes -= bytes.len();
        Some((from, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);

    fn bytes(n: u32, length: usize) -> Bytes {
        n.to_be_bytes().iter().copied().cycle().take(length).collect()
    }

    #[test]
    fn what_came_is_found_by_the_hash_that_it_has_and_once() {
        let gifts = Gifts::default();
        gifts.take_in(PEER, vec![bytes(1, 100), bytes(2, 7)]);
        let content = Content::of_chunk(&bytes(2, 7));
        assert_eq!(gifts.take(content), Some((PEER, bytes(2, 7))));
        assert_eq!((gifts.take(content), gifts.take(Content::of_chunk(b"other"))), (None, None));
    }

    #[test]
    fn however_much_comes_little_is_kept_and_that_is_the_latest() {
        for length in [1, GIFT_BYTES_MAX] {
            let gifts = Gifts::default();
            (0..1000).for_each(|n| gifts.take_in(PEER, vec![bytes(n, length.max(4))]));
            let kept = lock(&gifts.received);
            let sum: usize = kept.items.iter().map(|(_, _, bytes)| bytes.len()).sum();
            assert!(kept.items.len() <= KEPT_MAX && sum == kept.bytes && sum <= KEPT_BYTES_MAX);
            assert!(kept.find(Content::of_chunk(&bytes(999, length.max(4)))).is_some());
        }
    }

    #[test]
    fn only_what_is_small_and_was_read_whole_is_given() {
        let gifts = Gifts::default();
        let large = bytes(1, GIFT_BYTES_MAX + 1);
        gifts.was_read(Content::of_chunk(&large), Some(&large), PEER);
        gifts.was_read(Content::of_chunk(b"abc"), Some(b"ab"), PEER);
        gifts.was_read(Content::of_chunk(b"abc"), None, PEER);
        assert!(lock(&gifts.read).items.is_empty());
        gifts.was_read(Content::of_chunk(b"abc"), Some(b"abc"), PEER);
        assert_eq!(lock(&gifts.read).find(Content::of_chunk(b"abc")), Some(Bytes::from_static(b"abc")));
    }
}
