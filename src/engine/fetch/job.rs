//! How far one content is on its way into the stage.

use std::collections::HashMap;
use std::sync::Arc;

use super::download::Download;
use super::wants::Source;
use super::worker::JobId;
use crate::core::action::WorkId;
use crate::core::content::{ChunkList, Content, ContentId};
use crate::core::disk::Attributes;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::engine::transfer::Transfer;

/// Chunks that are looked for on this disk at once.
const SLICE_CHUNKS: usize = 256;
/// Bytes that a job wants at most before it looks further ahead: as much as the peers' windows take.
const LOOKAHEAD_BYTES: u64 = 32 * 1024 * 1024;
/// The same where others fetch the same: each asks for a part of that, and none waits for all others at each step.
const LOOKAHEAD_BYTES_SHARED: u64 = 128 * 1024 * 1024;
/// No list of a real file has more children than one for so many bytes; bounds the memory that lists take to a
/// fraction of what the file takes on the disk.
const BYTES_PER_CHILD_MIN: u64 = 1024;

/// One content, and all who ordered it.
pub(super) struct Job {
    pub id: JobId,
    pub content: Content,
    /// The first is filled, the others are copied from it.
    pub orders: Vec<Order>,
    pub sources: Vec<Source>,
    /// Complete staged files of the same content, which other works are about to put into place.
    pub twins: Vec<u32>,
    pub progress: Progress,
    /// What others see of it.
    pub transfer: Arc<Transfer>,
}

/// One file that is to have the content.
#[derive(Clone)]
pub(super) struct Order {
    pub work: WorkId,
    pub path: RelPath,
    pub copy: u32,
    pub attributes: Option<Attributes>,
}

/// See [`Job`].
pub(super) enum Progress {
    /// There are enough others at the moment.
    Waiting,
    /// A content that is one chunk.
    Small,
    /// The staged file is being opened.
    Opening,
    Large(Large),
    /// The first `complete` orders have their files; they are copied for the others.
    Duplicating {
        lists: Vec<ChunkList>,
        complete: usize,
    },
}

/// A content with lists, being filled part by part.
pub(super) struct Large {
    pub file: Arc<Download>,
    /// What is still to be looked at, the next last.
    steps: Vec<Step>,
    /// A worker is at a step, or the list for it is on its way.
    busy: bool,
    /// What is on its way from peers.
    missing: usize,
    missing_bytes: u64,
    lookahead_bytes: u64,
    /// Bytes of the chunks that a worker is looking for.
    filling_bytes: u64,
    lists: HashMap<ContentId, ChunkList>,
}

/// A part of a content with its place in the file.
pub(super) enum Step {
    List(Content, u64),
    Chunks(Vec<(Content, u64)>),
}

/// What a job is to do next.
pub(super) enum Next {
    /// Find this list: on this disk or at a peer.
    List(Content),
    /// Write what is here of these chunks.
    Fill(Vec<(Content, u64)>),
    /// Nothing until something else has come.
    Wait,
    /// All is written.
    Finished,
}

impl Job {
    /// One that waits for its turn, without sources yet.
    pub fn new(id: JobId, content: Content, order: Order, twins: Vec<u32>) -> Self {
        let transfer = Arc::new(Transfer::new(order.path.clone(), content.size));
        let (sources, progress) = (Vec::new(), Progress::Waiting);
        Self { id, content, orders: vec![order], sources, twins, progress, transfer }
    }

    /// Takes up another order of the same content.
    pub fn join(&mut self, order: Order, sources: &[DeviceId]) {
        self.orders.push(order);
        self.add_sources(sources);
    }

    pub fn add_sources(&mut self, peers: &[DeviceId]) {
        for peer in peers {
            if !self.sources.iter().any(|s| s.peer == *peer) {
                self.sources.push(Source { peer: *peer, poor: false });
            }
        }
    }

    /// A source lacks a part of the content.
    pub fn is_poor(&mut self, peer: DeviceId) {
        self.sources.iter_mut().filter(|s| s.peer == peer).for_each(|s| s.poor = true);
    }

    /// Who is the first to be asked.
    pub fn best_source(&self) -> Option<DeviceId> {
        self.sources.first().map(|source| source.peer)
    }

    pub fn is_small(&self) -> bool {
        self.content.depth == 0
    }

    pub fn large(&mut self) -> Option<&mut Large> {
        match &mut self.progress {
            Progress::Large(large) => Some(large),
            _ => None,
        }
    }
}

impl Large {
    pub fn new(file: Arc<Download>) -> Self {
        let steps = vec![Step::List(file.content(), 0)];
        Self {
            file,
            steps,
            busy: false,
            missing: 0,
            missing_bytes: 0,
            lookahead_bytes: LOOKAHEAD_BYTES,
            filling_bytes: 0,
            lists: HashMap::new(),
        }
    }

    /// What to do next; whoever gets a list or chunks says later what became of them.
    pub fn next(&mut self) -> Next {
        while !self.busy && self.missing_bytes < self.lookahead_bytes {
            match self.steps.pop() {
                Some(Step::List(list, offset)) => match self.lists.get(&list.id) {
                    Some(known) if known.content() == list => {
                        let steps = steps_of(known, offset);
                        self.steps.extend(steps);
                    }
                    _ => {
                        self.steps.push(Step::List(list, offset));
                        self.busy = true;
                        return Next::List(list);
                    }
                },
                Some(Step::Chunks(chunks)) => {
                    self.busy = true;
                    self.filling_bytes = chunks.iter().map(|(chunk, _)| chunk.size).sum();
                    return Next::Fill(chunks);
                }
                None if self.missing == 0 => return Next::Finished,
                None => return Next::Wait,
            }
        }
        Next::Wait
    }

    /// Others fetch the same content.
    pub fn share(&mut self) {
        self.lookahead_bytes = LOOKAHEAD_BYTES_SHARED;
    }

    /// A verified list is here. False where no real file has such a list.
    pub fn listed(&mut self, list: ChunkList) -> bool {
        self.busy = false;
        let children = list.children().len() as u64;
        let is_real = children - 1 <= list.content().size / BYTES_PER_CHILD_MIN;
        self.lists.insert(list.content().id, list);
        is_real
    }

    /// Chunks were looked for on this disk; these have to come from peers. Says how many bytes were there.
    pub fn filled(&mut self, missing: &[(Content, u64)]) -> u64 {
        self.busy = false;
        self.missing += missing.len();
        let missing_bytes = missing.iter().map(|(chunk, _)| chunk.size).sum::<u64>();
        self.missing_bytes += missing_bytes;
        std::mem::take(&mut self.filling_bytes).saturating_sub(missing_bytes)
    }

    /// A chunk from a peer has been written.
    pub fn written(&mut self, chunk: Content) {
        self.missing = self.missing.saturating_sub(1);
        self.missing_bytes = self.missing_bytes.saturating_sub(chunk.size);
    }

    /// Where in the file the list lies that is looked for now.
    pub fn list_offset(&self) -> u64 {
        match self.steps.last() {
            Some(Step::List(_, offset)) => *offset,
            _ => 0,
        }
    }

    /// All lists, leaves first.
    pub fn into_lists(self) -> Vec<ChunkList> {
        let mut lists: Vec<ChunkList> = self.lists.into_values().collect();
        lists.sort_by_key(|list| (list.content().depth, list.content()));
        lists
    }
}

/// The parts of a list, the last first.
fn steps_of(list: &ChunkList, offset: u64) -> Vec<Step> {
    let mut at = offset;
    let placed = list.children().iter().map(|child| {
        let place = (*child, at);
        at += child.size;
        place
    });
    let placed: Vec<(Content, u64)> = placed.collect();
    if list.content().depth > 1 {
        return placed.into_iter().rev().map(|(child, at)| Step::List(child, at)).collect();
    }
    placed.chunks(SLICE_CHUNKS).rev().map(|slice| Step::Chunks(slice.to_vec())).collect()
}
