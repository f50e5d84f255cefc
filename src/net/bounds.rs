//! Limits of what crosses the wire, and how messages are cut to keep them.

use crate::core::content::CHUNK_BYTES_MAX;
use crate::core::message::{Ack, Announced, BATCH_ENTRIES_MAX, Batch, EXCEPTIONS_MAX, Exception, Message};

/// Largest frame without its length: one chunk of the largest size, and room for what stands around it.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize + 64 * 1024;
/// Largest frame before the peer has said hello.
pub const HELLO_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of chunk data in one frame: one chunk of the largest size, or many small ones.
pub const CHUNKS_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize;
/// Largest decompressed body: bounds the memory that one compressed frame can take. No sender fills a frame with more
/// than [`FILL_BYTES_MAX`], and many of them may wait for a busy folder.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Most bytes of entries, exceptions or hints that are put into one frame: it fits even where zstd gains nothing.
pub const FILL_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize;
/// Most contents in one request, and chunks in one answer.
pub const REQUEST_ITEMS_MAX: usize = 1024;
/// Most ranges in one have.
pub const HAVE_RANGES_MAX: usize = 1024;
/// Most contents that are sent unasked in one frame: with more changes at once nobody waits for just one of them.
pub const GIFT_ITEMS_MAX: usize = 4;
/// Most bytes of each: they may be sent in vain, so no more than costs about as much as asking.
pub const GIFT_BYTES_MAX: usize = 16 * 1024;
/// Most earlier versions in one answer: more than anybody looks through.
pub const PAST_VERSIONS_MAX: usize = 500;
/// Most bytes of them.
pub const PAST_BYTES_MAX: usize = 256 * 1024;
/// Most folders in one hello.
pub const FOLDERS_MAX: usize = 1000;
/// Longest name of a device or label of a folder, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest reason in a close frame, in characters.
pub const REASON_CHARS_MAX: usize = 256;
/// Bytes that the fixed parts of an entry take at most: kind, content, times, author, metadata and all markers.
const ENTRY_FIXED_BYTES: usize = 224;
/// Bytes of one epoch with its count, or of one run with its sequence number: marker, two marked integers.
pub(super) const PAIR_BYTES: usize = 19;
/// Bytes of one content id with its marker.
const ID_BYTES: usize = 34;

/// An upper bound of what an entry takes within an index frame, before compression.
pub fn encoded_entry_bytes_bound(announced: &Announced) -> usize {
    let entry = &announced.entry;
    let link = match &entry.kind {
        crate::core::entry::Kind::Symlink(target) => target.len(),
        _ => 0,
    };
    let lists = entry.version.pairs().len() * PAIR_BYTES + entry.superseded.len() * ID_BYTES;
    ENTRY_FIXED_BYTES + entry.path.as_bytes().len() + link + lists
}

/// Cuts a message into ones that each fit a frame; most messages come back as they are.
///
/// Cutting is invisible to the receiver: each part of a batch moves the cursor as far as it goes, and what doesn't fit
/// an acknowledgement is taken back from `applied`.
pub fn fit(message: Message) -> Vec<Message> {
    match message {
        Message::Index(batch) => cut_batch(batch).into_iter().map(Message::Index).collect(),
        Message::Repair { bucket, entries } => {
            let parts = cut(entries, BATCH_ENTRIES_MAX, encoded_entry_bytes_bound);
            parts.into_iter().map(|entries| Message::Repair { bucket, entries }).collect()
        }
        Message::Ack(ack) => vec![Message::Ack(cut_ack(ack))],
        other => vec![other],
    }
}

fn cut_batch(batch: Batch) -> Vec<Batch> {
    let Batch { epoch, run, entries, upto, more } = batch;
    let parts = cut(entries, BATCH_ENTRIES_MAX, encoded_entry_bytes_bound);
    let last = parts.len().saturating_sub(1);
    let whole = |(i, entries): (usize, Vec<Announced>)| match entries.last().map(|e| e.seq) {
        Some(seq) if i < last => Batch { epoch, run, entries, upto: seq, more: true },
        _ => Batch { epoch, run, entries, upto, more },
    };
    parts.into_iter().enumerate().map(whole).collect()
}

fn cut_ack(mut ack: Ack) -> Ack {
    ack.exceptions.sort_by_key(|e| e.seq);
    let bytes = |e: &Exception| e.path.as_bytes().len() + 32;
    let mut parts = cut(std::mem::take(&mut ack.exceptions), EXCEPTIONS_MAX, bytes).into_iter();
    ack.exceptions = parts.next().unwrap_or_default();
    if let Some(first_left_out) = parts.next().and_then(|part| part.first().map(|e| e.seq)) {
        ack.applied = ack.applied.min(first_left_out.saturating_sub(1));
    }
    ack
}

/// Splits `items` so that no part has more than `count_max` of them or more than [`FILL_BYTES_MAX`]; never empty.
fn cut<T>(items: Vec<T>, count_max: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for item in items {
        let size = bytes(&item);
        match parts.last_mut() {
            Some(part) if part.is_empty() || (part.len() < count_max && filled + size <= FILL_BYTES_MAX) => {
                part.push(item);
                filled += size;
            }
            _ => {
                parts.push(vec![item]);
                filled = size;
            }
        }
    }
    parts
}

/// A name from a peer made fit to be shown: no control or invisible characters, at most `chars_max` characters.
pub fn clean_text(text: &str, chars_max: usize) -> String {
    let invisible = |c: char| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars().filter(|c| !c.is_control() && !invisible(*c)).take(chars_max).collect::<String>().trim().to_string()
}
