//! Contents: chunks, chunk lists, and the ids that commit to them.
//!
//! An id is SHA-256 over a tag, the depth, the total length and the bytes, so that a file whose bytes happen to be
//! a chunk list can never be taken for what that list describes.

use std::fmt;

use sha2::{Digest, Sha256};

use super::id::hex;

/// Largest chunk in bytes; with its header it fits one frame.
pub const CHUNK_BYTES_MAX: u64 = 1024 * 1024;
/// Most children of one list: bounds the memory that one list takes.
pub const LIST_CHILDREN_MAX: usize = 4096;
/// Lists of lists of lists: enough for any file that a file system can hold.
pub const DEPTH_MAX: u8 = 3;
/// Largest file: sizes stay within what SQLite and file offsets can count.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// Packed bytes of one child: its id and its length.
const CHILD_BYTES: usize = 40;
/// Largest packed list in bytes.
pub const LIST_BYTES_MAX: usize = LIST_CHILDREN_MAX * CHILD_BYTES;

/// SHA-256 that names a chunk (depth 0) or a chunk list (depth 1 and more).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ContentId(pub [u8; 32]);

/// What a file contains: the id, how many levels of lists lie above its chunks, and its length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Content {
    pub id: ContentId,
    pub depth: u8,
    pub size: u64,
}

/// A chunk list with the content that it is the list of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkList {
    content: Content,
    children: Vec<Content>,
}

/// Why bytes from a peer or a disk are not what they were asked for as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("the bytes do not match their hash")]
    Hash,
    #[error("the chunk list is malformed")]
    List,
}

impl ContentId {
    /// Id of `body`: a chunk's bytes (depth 0, `size` its length) or a packed list (`size` what it adds up to).
    pub fn of(depth: u8, size: u64, body: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update(b"p2psync content\0")
            .chain_update([depth])
            .chain_update(size.to_be_bytes())
            .chain_update(body)
            .finalize();
        Self(hash.into())
    }

    /// Id of a symlink's target; not a content that can be fetched.
    pub fn of_link(target: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"p2psync link\0").chain_update(target).finalize().into())
    }

    /// The first eight bytes as an integer: key of the index's table of places.
    pub fn prefix(&self) -> i64 {
        i64::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5], self.0[6], self.0[7]])
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

impl Content {
    /// The content of bytes that are one chunk.
    pub fn of_chunk(bytes: &[u8]) -> Self {
        Self { id: ContentId::of(0, bytes.len() as u64, bytes), depth: 0, size: bytes.len() as u64 }
    }

    /// True where depth and size are within the bounds that every content keeps.
    pub fn is_plausible(&self) -> bool {
        self.size <= SIZE_MAX && self.depth <= DEPTH_MAX && (self.depth > 0 || self.size <= CHUNK_BYTES_MAX)
    }

    /// Checks fetched bytes against the id: the chunk itself, or the packed list.
    pub fn verify(&self, body: &[u8]) -> Result<(), ContentError> {
        if self.depth == 0 && body.len() as u64 != self.size {
            return Err(ContentError::Hash);
        }
        if ContentId::of(self.depth, self.size, body) == self.id { Ok(()) } else { Err(ContentError::Hash) }
    }
}

impl ChunkList {
    /// A list of at least two children, all one level below it.
    pub fn new(children: Vec<Content>) -> Result<Self, ContentError> {
        let depth = children.first().and_then(|c| c.depth.checked_add(1)).ok_or(ContentError::List)?;
        let size = check_children(&children, depth)?;
        let id = ContentId::of(depth, size, &pack(&children));
        Ok(Self { content: Content { id, depth, size }, children })
    }

    /// Verifies and reads a packed list; nothing of it is believed before its hash and its sums are right.
    pub fn parse(content: Content, body: &[u8]) -> Result<Self, ContentError> {
        if content.depth == 0
            || !content.is_plausible()
            || body.len() > LIST_BYTES_MAX
            || !body.len().is_multiple_of(CHILD_BYTES)
        {
            return Err(ContentError::List);
        }
        content.verify(body)?;
        let children: Vec<Content> = body
            .chunks_exact(CHILD_BYTES)
            .filter_map(|c| {
                let (id, size) = (c[..32].try_into().ok()?, c[32..].try_into().ok()?);
                Some(Content { id: ContentId(id), depth: content.depth - 1, size: u64::from_be_bytes(size) })
            })
            .collect();
        match check_children(&children, content.depth)? {
            size if size == content.size => Ok(Self { content, children }),
            _ => Err(ContentError::List),
        }
    }

    pub fn content(&self) -> Content {
        self.content
    }

    pub fn children(&self) -> &[Content] {
        &self.children
    }

    /// The packed form, which the id commits to.
    pub fn body(&self) -> Vec<u8> {
        pack(&self.children)
    }
}

fn pack(children: &[Content]) -> Vec<u8> {
    let mut body = Vec::with_capacity(children.len() * CHILD_BYTES);
    for child in children {
        body.extend_from_slice(&child.id.0);
        body.extend_from_slice(&child.size.to_be_bytes());
    }
    body
}

/// The sum of the children's sizes, if they make a list.
fn check_children(children: &[Content], depth: u8) -> Result<u64, ContentError> {
    let count_fits = (2..=LIST_CHILDREN_MAX).contains(&children.len());
    let each_fits = children.iter().all(|c| c.size > 0 && c.depth < depth && depth - c.depth == 1 && c.is_plausible());
    let sum = children.iter().try_fold(0u64, |sum, c| sum.checked_add(c.size)).filter(|s| *s <= SIZE_MAX);
    match sum {
        Some(sum) if count_fits && each_fits && depth <= DEPTH_MAX => Ok(sum),
        _ => Err(ContentError::List),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ChunkList {
        ChunkList::new(vec![Content::of_chunk(b"one"), Content::of_chunk(b"three")]).unwrap()
    }

    #[test]
    fn a_list_reads_back_from_its_packed_form() {
        assert_eq!(ChunkList::parse(list().content(), &list().body()), Ok(list()));
        assert_eq!(list().content().size, 8);
    }

    #[test]
    fn a_file_that_is_a_chunk_list_byte_for_byte_has_another_id() {
        let body = list().body();
        assert_ne!(Content::of_chunk(&body).id, list().content().id);
    }

    #[test]
    fn lies_about_depth_size_or_bytes_are_noticed() {
        let (content, body) = (list().content(), list().body());
        let lies = [
            (Content { size: 9, ..content }, body.clone()),
            (Content { depth: 2, ..content }, body.clone()),
            (Content { depth: 0, ..content }, body.clone()),
            (content, body[..40].to_vec()),
            (content, [body.clone(), vec![0]].concat()),
        ];
        for (content, body) in lies {
            assert!(ChunkList::parse(content, &body).is_err());
        }
    }

    #[test]
    fn a_list_whose_lengths_overflow_is_refused_even_with_a_right_hash() {
        let child = Content { id: ContentId([1; 32]), depth: 1, size: SIZE_MAX };
        assert_eq!(ChunkList::new(vec![child, child]), Err(ContentError::List));
        let body = pack(&[child, child]);
        let size = SIZE_MAX.wrapping_mul(2);
        let content = Content { id: ContentId::of(2, size, &body), depth: 2, size };
        assert_eq!(ChunkList::parse(content, &body), Err(ContentError::List));
    }

    #[test]
    fn ids_never_change() {
        assert_eq!(hex(&Content::of_chunk(b"").id.0[..8]), "7c008d818d5e6ce6");
        assert_eq!(hex(&list().content().id.0[..8]), "a8e4b6c158cb82dc");
    }
}
