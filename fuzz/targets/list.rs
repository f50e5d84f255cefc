//! Packed chunk lists from peers and from the index. Layout: the depth, then the list.
//!
//! A list is believed only where its hash is right, which nobody can guess: so the hash is made right here, and what is
//! left to be wrong is everything else.

use p2psync::core::content::{CHUNK_BYTES_MAX, ChunkList, Content, ContentId, LIST_CHILDREN_MAX};

use super::{check, memory};

const CHILD_BYTES: usize = 40;
const MEMORY_PER_BYTE_MAX: usize = 4;
const MEMORY_BYTES_MIN: usize = 1024;

pub fn run(data: &[u8]) {
    let Some((depth, body)) = data.split_first() else { return };
    // Now and then sizes that do not add up.
    let (depth, offset) = (depth & 7, u64::from(depth >> 3));
    let sizes = body.chunks_exact(CHILD_BYTES).filter_map(|child| child[32..].try_into().ok());
    let sum = sizes.map(u64::from_be_bytes).fold(0u64, u64::wrapping_add);
    let size = sum.wrapping_add(offset);
    let content = Content { id: ContentId::of(depth, size, body), depth, size };
    let (parsed, peak) = memory::peak(|| ChunkList::parse(content, body));
    assert!(peak <= MEMORY_BYTES_MIN + MEMORY_PER_BYTE_MAX * body.len(), "{peak} bytes of memory");
    let mut other = content;
    other.id.0[0] ^= 1;
    assert!(ChunkList::parse(other, body).is_err(), "bytes of another hash");
    let list = match parsed {
        Ok(list) => list,
        Err(error) => return check::error_text(&error.to_string()),
    };
    assert_eq!((list.content(), list.body()), (content, body.to_vec()));
    assert_eq!(offset, 0);
    check::content(&content);
    assert!((2..=LIST_CHILDREN_MAX).contains(&list.children().len()));
    let mut sum = 0u64;
    for child in list.children() {
        check::content(child);
        assert!(child.size > 0 && child.depth + 1 == depth && (depth > 1 || child.size <= CHUNK_BYTES_MAX));
        sum = sum.checked_add(child.size).expect("sizes add up");
    }
    assert_eq!(sum, content.size);
    assert_eq!(ChunkList::new(list.children().to_vec()).as_ref(), Ok(&list));
}
