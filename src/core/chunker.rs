//! Cutting a file into content-defined chunks, and chunks into lists.
//!
//! Boundaries are part of the protocol: two devices that cut the same file differently would find nothing to share.
//! Method: FastCDC 2020 (Xia et al., "The design of fast content-defined chunking for data deduplication based storage
//! systems"), as the `fastcdc` crate has it, at a pinned version and with golden boundaries in the tests.

use super::content::{CHUNK_BYTES_MAX, ChunkList, Content, ContentError, LIST_CHILDREN_MAX};

/// Files from this size on are cut into larger chunks.
const LARGE_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// No list page is cut before this many children, except the last.
const LIST_CHILDREN_MIN: usize = 256;
/// A page ends at a child whose id has these low bits clear: once in 1024.
const LIST_CUT_MASK: u8 = 0b11;

/// Bounds of a chunk in bytes. `fastcdc` wants even numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSizes {
    pub min: usize,
    pub average: usize,
    pub max: usize,
}

impl ChunkSizes {
    /// The class of sizes for a file of this length: small chunks where edits are small, larger ones where
    /// the list would grow long.
    pub fn for_file(file_bytes: u64) -> Self {
        const KIB: usize = 1024;
        if is_tiny() {
            TINY
        } else if file_bytes < LARGE_FILE_BYTES {
            Self { min: 16 * KIB, average: 64 * KIB, max: 256 * KIB }
        } else {
            Self { min: 64 * KIB, average: 256 * KIB, max: CHUNK_BYTES_MAX as usize }
        }
    }

    /// Length of the first chunk of `bytes`, or `None` where more bytes are needed to tell.
    ///
    /// `last` says that the file ends where `bytes` does.
    pub fn first_cut(&self, bytes: &[u8], last: bool) -> Option<usize> {
        if bytes.len() < self.max && !last {
            return None;
        }
        if bytes.len() <= self.min {
            return last.then_some(bytes.len());
        }
        if *self == TINY {
            return Some(first_line(bytes));
        }
        let cutter = fastcdc::v2020::FastCDC::new(bytes, self.min, self.average, self.max);
        let (_, end) = cutter.cut(0, bytes.len());
        Some(end)
    }
}

/// Chunks for a simulated disk, whose files are a few lines of text. No installed program cuts like that.
const TINY: ChunkSizes = ChunkSizes { min: 1, average: 24, max: 48 };

/// A line is a chunk, and a long one several.
fn first_line(bytes: &[u8]) -> usize {
    let most = bytes.len().min(TINY.max);
    bytes.iter().take(most).position(|byte| *byte == b'\n').map_or(most, |at| at + 1)
}

#[cfg(feature = "testing")]
thread_local! {
    static IS_TINY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From now on this thread cuts files into chunks of some bytes, or as usual.
#[cfg(feature = "testing")]
pub fn cut_tiny(is_tiny: bool) {
    IS_TINY.set(is_tiny);
}

/// True where this thread cuts files into chunks of some bytes.
#[cfg(feature = "testing")]
pub fn is_tiny() -> bool {
    IS_TINY.get()
}

/// Never.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn is_tiny() -> bool {
    false
}

/// Collects a file's chunks and makes the lists that describe them.
#[derive(Default)]
pub struct ListBuilder {
    levels: Vec<Page>,
    finished: Vec<ChunkList>,
}

/// The children of one level that are not yet in a list.
#[derive(Default)]
struct Page {
    children: Vec<Content>,
    /// How many of the children make the next list. It is closed when two more have come: a list has at least two
    /// children, so a lone one at the end of a level still joins the page before it.
    due: Option<usize>,
}

impl ListBuilder {
    /// Adds the next chunk of the file.
    pub fn push(&mut self, chunk: Content) -> Result<(), ContentError> {
        self.push_at(0, chunk)
    }

    /// The file's content and all lists below it, leaves first. An empty file is the empty chunk.
    pub fn finish(mut self) -> Result<(Content, Vec<ChunkList>), ContentError> {
        let mut level = 0;
        while let Some(page) = self.levels.get_mut(level) {
            let children = std::mem::take(&mut page.children);
            // A level that has closed a page has two children left at least, so a lone one is the top.
            if let [only] = children[..] {
                return Ok((only, self.finished));
            }
            self.close_page(level, children)?;
            level += 1;
        }
        Ok((Content::of_chunk(b""), Vec::new()))
    }

    fn push_at(&mut self, level: usize, child: Content) -> Result<(), ContentError> {
        if self.levels.len() == level {
            self.levels.push(Page::default());
        }
        match self.levels[level].push(child) {
            Some(children) => self.close_page(level, children),
            None => Ok(()),
        }
    }

    fn close_page(&mut self, level: usize, children: Vec<Content>) -> Result<(), ContentError> {
        let list = ChunkList::new(children)?;
        let content = list.content();
        self.finished.push(list);
        self.push_at(level + 1, content)
    }
}

impl Page {
    /// Adds a child. Gives the children of a list that is complete by now.
    fn push(&mut self, child: Content) -> Option<Vec<Content>> {
        self.children.push(child);
        let count = self.children.len();
        if let Some(due) = self.due {
            if count < due + 2 {
                return None;
            }
            let rest = self.children.split_off(due);
            self.due = None;
            return Some(std::mem::replace(&mut self.children, rest));
        }
        let cut_here = child.id.0[31] == 0 && child.id.0[30] & LIST_CUT_MASK == 0;
        // One place is kept free for a lone last child.
        if count >= LIST_CHILDREN_MAX - 1 || (count >= LIST_CHILDREN_MIN && cut_here) {
            self.due = Some(count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::ContentId;

    /// Bytes that look random and never change (SplitMix64).
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            state = state.wrapping_add(0x9e3779b97f4a7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
            out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        out.truncate(len);
        out
    }

    fn cuts(bytes: &[u8]) -> Vec<usize> {
        let sizes = ChunkSizes::for_file(bytes.len() as u64);
        let (mut at, mut lens) = (0, Vec::new());
        while at < bytes.len() {
            let len = sizes.first_cut(&bytes[at..], true).unwrap();
            lens.push(len);
            at += len;
        }
        lens
    }

    fn chunk(n: u64) -> Content {
        Content { id: ContentId::of(0, 1, &n.to_be_bytes()), depth: 0, size: 1 }
    }

    fn build(chunks: u64) -> (Content, Vec<ChunkList>) {
        let mut builder = ListBuilder::default();
        (0..chunks).for_each(|n| builder.push(chunk(n)).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn boundaries_never_change() {
        assert_eq!(cuts(&noise(600_000, 1)), [28128, 87550, 64925, 67788, 30364, 38273, 50371, 101085, 100168, 31348]);
        let sizes = ChunkSizes::for_file(LARGE_FILE_BYTES);
        assert_eq!(sizes.first_cut(&noise(2_000_000, 1), true), Some(278755));
    }

    #[test]
    fn a_byte_inserted_in_front_changes_one_or_two_chunks() {
        let bytes = noise(4_000_000, 2);
        let shifted = [b"!", &bytes[..]].concat();
        let tail = |lens: Vec<usize>| lens.into_iter().rev().take(30).collect::<Vec<_>>();
        assert_eq!(tail(cuts(&bytes)), tail(cuts(&shifted)));
    }

    #[test]
    fn a_cut_waits_for_as_many_bytes_as_it_may_need() {
        let (bytes, sizes) = (noise(300_000, 3), ChunkSizes::for_file(300_000));
        assert_eq!(sizes.first_cut(&bytes[..100_000], false), None);
        assert_eq!(sizes.first_cut(&bytes[..sizes.max], false), sizes.first_cut(&bytes, true));
    }

    #[test]
    fn lists_of_every_length_add_up() {
        for count in [0, 1, 2, 255, 257, 4095, 4096, 4097, 8190, 8191, 20_000] {
            let (content, lists) = build(count);
            assert_eq!(content.size, if count == 0 { 0 } else { count }, "{count}");
            assert_eq!(content.depth as usize, usize::from(count > 1) + usize::from(lists.len() > 1), "{count}");
            let leaves: usize = lists.iter().filter(|l| l.content().depth == 1).map(|l| l.children().len()).sum();
            assert_eq!(leaves as u64, if count < 2 { 0 } else { count });
        }
    }

    /// Chunks whose ids make no page end early, so that pages are as long as may be.
    fn build_long_pages(chunks: u64) -> (Content, Vec<ChunkList>) {
        let mut builder = ListBuilder::default();
        for n in 0..chunks {
            let mut id = [1; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            builder.push(Content { id: ContentId(id), depth: 0, size: 1 }).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_lone_chunk_at_the_end_joins_the_page_before_it() {
        let page = LIST_CHILDREN_MAX as u64 - 1;
        for (chunks, pages) in [(page, vec![page]), (page + 1, vec![page + 1]), (page + 2, vec![page, 2])] {
            let (content, lists) = build_long_pages(chunks);
            let lengths: Vec<u64> = lists.iter().take(pages.len()).map(|l| l.children().len() as u64).collect();
            assert_eq!((content.size, lengths), (chunks, pages));
        }
    }

    #[test]
    fn a_lone_chunk_behind_a_page_that_ends_its_parent_joins_it_too() {
        // Every chunk ends a page as soon as one may end, so the pages are known beforehand.
        let cutting = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Content { id: ContentId(id), depth: 0, size: 1 }
        };
        let page_chunks = LIST_CHILDREN_MIN as u64;
        let ends_parent = |page: &u64| {
            let chunks = page * page_chunks..(page + 1) * page_chunks;
            let id = ChunkList::new(chunks.map(cutting).collect()).unwrap().content().id.0;
            id[31] == 0 && id[30] & LIST_CUT_MASK == 0
        };
        let pages = (page_chunks - 1..).find(ends_parent).unwrap() + 1;
        for lone in [0, 1, 2] {
            let mut builder = ListBuilder::default();
            (0..pages * page_chunks + lone).for_each(|n| builder.push(cutting(n)).unwrap());
            let (content, lists) = builder.finish().unwrap();
            assert_eq!(content.size, pages * page_chunks + lone);
            assert!(lists.iter().all(|list| (2..=LIST_CHILDREN_MAX).contains(&list.children().len())));
        }
    }

    #[test]
    fn a_small_edit_to_a_huge_file_changes_a_page_and_its_parents() {
        let (_, before) = build(20_000);
        let mut builder = ListBuilder::default();
        (0..20_000).for_each(|n| builder.push(chunk(if n == 9_000 { 1 << 40 } else { n })).unwrap());
        let (_, after) = builder.finish().unwrap();
        let fresh = after.iter().filter(|l| !before.contains(l)).count();
        assert_eq!(fresh, 2);
    }
}
