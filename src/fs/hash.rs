//! Cutting and hashing a file's bytes: by the caller alone, or for large files with threads that hash what it has cut.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;

use super::sys::{self, Handle};
use crate::core::chunker::{ChunkSizes, ListBuilder};
use crate::core::content::{CHUNK_BYTES_MAX, ChunkList, Content};

/// Size of the reused buffer in bytes: twice the largest chunk, so that a cut never waits for a tiny read.
pub(super) const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// From this size on, in bytes, a file is worth starting threads for.
const SHARED_FROM_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes read at a time where threads hash: several of the largest chunks.
const BLOCK_BYTES: usize = 2 * 1024 * 1024;
/// Threads that hash beside the one that reads and cuts; one hashes about as fast as the other cuts.
const HASHERS_MAX: usize = 3;

/// Buffers that are kept for the next file: those of one file on a machine with few cores.
const BUFFERS_KEPT_MAX: usize = 4;

/// What a file comes to, with all its chunk lists.
pub(super) type Hashed = (Content, Vec<ChunkList>);

/// Reads a file of `size` bytes once. `None` where it holds fewer bytes than it should, or where the reading was
/// stopped.
pub(super) fn hash(
    file: &dyn Handle,
    size: u64,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> Result<Option<Hashed>, Errno> {
    if size >= SHARED_FROM_BYTES { hash_shared(file, size, stop) } else { hash_alone(file, size, buffer, stop) }
}

fn hash_alone(file: &dyn Handle, size: u64, buffer: &mut Vec<u8>, stop: &AtomicBool) -> Result<Option<Hashed>, Errno> {
    let sizes = ChunkSizes::for_file(size);
    let mut builder = ListBuilder::default();
    // For a small file, and most are, the memory would take longer than the reading.
    let room = usize::try_from(size).unwrap_or(usize::MAX).min(BUFFER_BYTES);
    if buffer.len() < room {
        buffer.resize(room, 0);
    }
    // Bytes `held` at the front of the buffer are read but not yet cut; `offset` is where the next read begins.
    let (mut offset, mut held) = (0u64, 0usize);
    while offset < size || held > 0 {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(room - held);
        let Some(free) = buffer.get_mut(held..held + want) else { return Ok(None) };
        if !sys::read_exact_at(file, free, offset)? {
            return Ok(None);
        }
        offset += want as u64;
        let filled = held + want;
        let (chunks, end) = cut(&sizes, &buffer[..filled], offset == size);
        for chunk in chunks {
            builder.push(Content::of_chunk(&buffer[chunk])).map_err(|_| Errno::FBIG)?;
        }
        buffer.copy_within(end..filled, 0);
        held = filled - end;
    }
    builder.finish().map(Some).map_err(|_| Errno::FBIG)
}

/// The chunks of what was read, and where the last ends. `is_last` says that the file ends with these bytes.
fn cut(sizes: &ChunkSizes, bytes: &[u8], is_last: bool) -> (Vec<Range<usize>>, usize) {
    let (mut chunks, mut start) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty())
        && let Some(length) = sizes.first_cut(rest, is_last)
    {
        chunks.push(start..start + length);
        start += length;
    }
    (chunks, start)
}

/// Buffers for the next file. Allocated anew by each thread that cuts, they would stay with all of these threads' shares
/// of the memory.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn take_buffer() -> Vec<u8> {
    let kept = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    kept.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES + CHUNK_BYTES_MAX as usize))
}

fn give_back(buffer: Vec<u8>) {
    let mut kept = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < BUFFERS_KEPT_MAX {
        kept.push(buffer);
    }
}

/// Bytes on their way to a thread that hashes, or back with what they came to.
struct Block {
    number: u64,
    bytes: Vec<u8>,
    chunks: Vec<Range<usize>>,
    contents: Vec<Content>,
}

fn hash_shared(file: &dyn Handle, size: u64, stop: &AtomicBool) -> Result<Option<Hashed>, Errno> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let hashers = cores.saturating_sub(1).clamp(1, HASHERS_MAX);
    let (sender, receiver) = channel();
    let (hashed_sender, hashed) = channel();
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        for _ in 0..hashers {
            let (receiver, hashed) = (&receiver, hashed_sender.clone());
            scope.spawn(move || hash_blocks(receiver, &hashed));
        }
        drop(hashed_sender);
        let cutter = Cutter { file, size, stop, under_way: 0, hashed, in_order: InOrder::default() };
        // Dropped at its end, which ends the threads.
        cutter.run(sender, hashers + 2)
    })
}

fn hash_blocks(blocks: &Mutex<Receiver<Block>>, hashed: &Sender<Block>) {
    loop {
        let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut block) = next else { return };
        block.contents = block.chunks.drain(..).map(|chunk| Content::of_chunk(&block.bytes[chunk])).collect();
        if hashed.send(block).is_err() {
            return;
        }
    }
}

/// Reads and cuts, and lists what the others have hashed.
struct Cutter<'a> {
    file: &'a dyn Handle,
    size: u64,
    stop: &'a AtomicBool,
    under_way: usize,
    hashed: Receiver<Block>,
    in_order: InOrder,
}

impl Cutter<'_> {
    /// `blocks_max` bounds the memory.
    fn run(mut self, sender: Sender<Block>, blocks_max: usize) -> Result<Option<Hashed>, Errno> {
        let sizes = ChunkSizes::for_file(self.size);
        let (mut offset, mut number, mut rest) = (0u64, 0, Vec::new());
        while offset < self.size {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            while self.under_way >= blocks_max {
                self.take_back()?;
            }
            let mut bytes = take_buffer();
            let want = usize::try_from(self.size - offset).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            bytes.resize(rest.len() + want, 0);
            let (held, fresh) = bytes.split_at_mut(rest.len());
            held.copy_from_slice(&rest);
            if !sys::read_exact_at(self.file, fresh, offset)? {
                return Ok(None);
            }
            offset += want as u64;
            let (chunks, end) = cut(&sizes, &bytes, offset == self.size);
            rest.clear();
            rest.extend_from_slice(&bytes[end..]);
            if sender.send(Block { number, bytes, chunks, contents: Vec::new() }).is_err() {
                return Err(Errno::IO);
            }
            self.under_way += 1;
            number += 1;
        }
        drop(sender);
        while self.under_way > 0 {
            self.take_back()?;
        }
        self.in_order.builder.finish().map(Some).map_err(|_| Errno::FBIG)
    }

    fn take_back(&mut self) -> Result<(), Errno> {
        // The threads only go before all blocks are back where one has panicked.
        let block = self.hashed.recv().map_err(|_| Errno::IO)?;
        self.under_way -= 1;
        self.in_order.take(block.number, block.contents)?;
        give_back(block.bytes);
        Ok(())
    }
}

/// Lists chunks in the order of the file, whatever order they come in.
#[derive(Default)]
struct InOrder {
    builder: ListBuilder,
    next: u64,
    early: BTreeMap<u64, Vec<Content>>,
}

impl InOrder {
    fn take(&mut self, number: u64, contents: Vec<Content>) -> Result<(), Errno> {
        self.early.insert(number, contents);
        while let Some(contents) = self.early.remove(&self.next) {
            for content in contents {
                self.builder.push(content).map_err(|_| Errno::FBIG)?;
            }
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::{Folder, noise, path};

    #[test]
    fn with_threads_a_file_comes_to_the_same() {
        let folder = Folder::new();
        for len in [1, 300_000, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 12_345, 9 * BLOCK_BYTES] {
            folder.write("a", &noise(len, len as u64));
            let place = folder.open.place(crate::fs::root::Area::Tree, &path("a")).unwrap();
            let (file, never) = (place.open_to_read().unwrap(), AtomicBool::new(false));
            let alone = hash_alone(&*file, len as u64, &mut Vec::new(), &never).unwrap();
            assert_eq!(hash_shared(&*file, len as u64, &never).unwrap(), alone, "{len}");
            assert_eq!(hash_shared(&*file, len as u64 + 1, &never).unwrap(), None, "it is shorter");
            assert_eq!(hash_shared(&*file, len as u64, &AtomicBool::new(true)).unwrap(), None, "stopped");
        }
    }
}
