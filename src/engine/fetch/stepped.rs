//! One fetch without threads: what a worker does, in the order in which the fetching thread asks for it. Who is asked
//! for what, and when, is up to whoever drives it.

use std::sync::Arc;

use bytes::Bytes;

use super::download::Download;
use super::job::{Large, Next, impossible, without_bytes};
use super::worker::{Context, Done, Target, Task, carry_out};
use crate::core::content::{ChunkList, Content};
use crate::core::id::DeviceId;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::local::Local;
use crate::engine::shared::Shared;
use crate::fs::nearby::Nearby;
use crate::index::Reader;
use crate::sync::{FetchError, FetchOrder, Staged};

/// A content on its way into the stage.
pub struct SteppedFetch {
    pub order: FetchOrder,
    /// Tells it from other staged files of the same content.
    pub copy: u32,
    /// Complete staged files of the same content.
    twins: Vec<u32>,
    progress: Progress,
}

enum Progress {
    Begun,
    /// One chunk, which is not here.
    Small,
    /// Lists and chunks, of which these have to come from peers, each with its place in the file.
    Large(Large, Vec<(Content, u64)>),
    /// All of it is staged.
    Complete(Vec<ChunkList>),
    /// What came with another fetch's part could not be written.
    Failed(Problem),
}

/// How far a fetch is.
pub enum FetchStep {
    /// Any of these is to come from a peer, each with its place in the file.
    Wants(Vec<(Content, u64)>),
    Over(Result<Staged, FetchError>),
}

impl SteppedFetch {
    pub fn new(order: FetchOrder, copy: u32, twins: Vec<u32>) -> Self {
        Self { order, copy, twins, progress: Progress::Begun }
    }

    /// Does all that can be done with what is here.
    pub(in crate::engine) fn step(&mut self, folder: &Shared, reader: &Reader) -> FetchStep {
        let content = self.order.content;
        if content.size == 0 {
            return FetchStep::Over(without_bytes(content));
        }
        if let Progress::Failed(problem) = &self.progress {
            return FetchStep::Over(Err(FetchError::Problem(problem.clone())));
        }
        match in_folder(folder, reader, |context| self.advance(context)) {
            Ok(wants) if !wants.is_empty() => FetchStep::Wants(wants),
            Ok(_) => {
                let lists = match &mut self.progress {
                    Progress::Complete(lists) => std::mem::take(lists),
                    _ => Vec::new(),
                };
                FetchStep::Over(Ok(Staged { lists, copy: self.copy }))
            }
            Err(problem) => FetchStep::Over(Err(FetchError::Problem(problem))),
        }
    }

    /// Takes in what a peer sent, and gives it to those of the other fetches that want it too. False where that is not what
    /// was asked for.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub(in crate::engine) fn arrived(
        &mut self,
        others: &mut [SteppedFetch],
        folder: &Shared,
        reader: &Reader,
        (want, offset): (Content, u64),
        (peer, bytes): (DeviceId, Vec<u8>),
    ) -> Result<bool, Problem> {
        let others_parts =
            others.iter().enumerate().flat_map(|(at, other)| other.places_of(want).map(move |o| (at, o)));
        let others_parts: Vec<(usize, u64)> = others_parts.collect();
        let own = [self.target(want, offset)];
        let targets = own.into_iter().chain(others_parts.iter().map(|(at, offset)| others[*at].target(want, *offset)));
        let task = Task::Write { want, peer, bytes: Bytes::from(bytes), targets: targets.collect() };
        let Done::Written { results, .. } = in_folder(folder, reader, |context| Ok(carry_out(context, task)))? else {
            return Ok(false);
        };
        let Some(mut results) = results else { return Ok(false) };
        for ((at, offset), (_, result)) in others_parts.into_iter().zip(results.split_off(1)) {
            if let Err(problem) = result.and_then(|list| others[at].took(want, offset, list)) {
                others[at].progress = Progress::Failed(problem);
            }
        }
        let [(_, result)] = <[_; 1]>::try_from(results).map_err(|_| impossible())?;
        self.took(want, offset, result?).map(|()| true)
    }

    /// Where in its file a part is wanted that has to come from a peer.
    fn places_of(&self, want: Content) -> impl Iterator<Item = u64> {
        let missing = match &self.progress {
            Progress::Large(_, missing) => missing.as_slice(),
            _ => &[],
        };
        let is_whole = matches!(self.progress, Progress::Small) && self.order.content == want;
        missing.iter().filter(move |part| part.0 == want).map(|part| part.1).chain(is_whole.then_some(0))
    }

    fn target(&self, want: Content, offset: u64) -> Target {
        match &self.progress {
            _ if want.depth > 0 => Target::List { job: 0 },
            Progress::Large(large, _) => Target::At { job: 0, file: large.file.clone(), offset },
            _ => Target::Small { job: 0, copy: self.copy, attributes: self.order.attributes },
        }
    }

    /// A part has been written, or its list read.
    fn took(&mut self, want: Content, offset: u64, list: Option<ChunkList>) -> Result<(), Problem> {
        match &mut self.progress {
            Progress::Large(large, missing) => {
                missing.retain(|part| *part != (want, offset));
                match list {
                    Some(list) if !large.listed(list.clone()) => return Err(impossible()),
                    Some(_) => {}
                    None => large.written(want),
                }
            }
            progress => *progress = Progress::Complete(Vec::new()),
        }
        Ok(())
    }

    /// What has to come from peers; nothing once all is there.
    fn advance(&mut self, context: &Context) -> Result<Vec<(Content, u64)>, Problem> {
        let (content, copy, twins) = (self.order.content, self.copy, self.twins.clone());
        if matches!(self.progress, Progress::Begun) {
            self.progress = if content.depth == 0 {
                let (attributes, twins) = (self.order.attributes, twins.clone());
                match carry_out(context, Task::Small { job: 0, content, copy, attributes, twins }) {
                    Done::Small { staged, .. } if staged.clone()? => Progress::Complete(Vec::new()),
                    _ => Progress::Small,
                }
            } else {
                let file = Arc::new(Download::open(context.root, content, copy)?);
                context.folder.downloads.add(self.order.path.clone(), file.clone());
                Progress::Large(Large::new(file), Vec::new())
            };
        }
        let Progress::Large(large, missing) = &mut self.progress else {
            return Ok(if matches!(self.progress, Progress::Small) { vec![(content, 0)] } else { Vec::new() });
        };
        loop {
            match large.next() {
                Next::List(list) => match carry_out(context, Task::List { job: 0, list }) {
                    Done::Listed { found: Some(list), .. } if large.listed(list.clone()) => {}
                    Done::Listed { found: Some(_), .. } => return Err(impossible()),
                    _ => missing.push((list, large.list_offset())),
                },
                Next::Fill(chunks) => {
                    let (file, twins) = (large.file.clone(), twins.clone());
                    let done = carry_out(context, Task::Fill { job: 0, file, twins, chunks });
                    let Done::Filled { missing: found, .. } = done else { return Ok(Vec::new()) };
                    let found = found?;
                    large.filled(&found);
                    missing.extend(found);
                }
                Next::Wait => return Ok(missing.clone()),
                Next::Finished => break,
            }
        }
        if let Progress::Large(large, _) = std::mem::replace(&mut self.progress, Progress::Begun) {
            self.progress = Progress::Complete(large.into_lists());
        }
        Ok(Vec::new())
    }
}

fn in_folder<T>(
    folder: &Shared,
    reader: &Reader,
    work: impl FnOnce(&Context) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let root = folder.root.open().map_err(|e| Problem::new(ProblemKind::Io, e.to_string()))?;
    let local = Some(Local { folder, near: &Nearby::new(&root), reader });
    work(&Context { folder, root: &root, local })
}
