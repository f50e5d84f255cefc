//! The threads that do a fetch's disk work: looking for what is here already, verifying and writing what came.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Event;
use super::download::Download;
use crate::core::content::{ChunkList, Content};
use crate::core::disk::Attributes;
use crate::core::id::DeviceId;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::local::Local;
use crate::engine::shared::{FolderHandle, Shared};
use crate::fs::nearby::Nearby;
use crate::fs::root::OpenRoot;
use crate::fs::stage::{self, StagedFile};
use crate::index::Reader;
use crate::sabotage::{self, Bug};

/// Names one fetch of one content.
pub(super) type JobId = u64;

/// Tasks that one opening of the folder serves: for a small file it costs more than the file. Few enough that the
/// other worker finds something to do as well.
const BATCH_TASKS_MAX: usize = 32;
/// Bytes copied at once from one staged file to another.
const COPY_BYTES: usize = 1024 * 1024;

/// A piece of work for a worker.
pub(super) enum Task {
    /// Stage a content that is one chunk from what is here. `twins` are complete staged files of the same content.
    Small { job: JobId, content: Content, copy: u32, attributes: Option<Attributes>, twins: Vec<u32> },
    /// Stage a content that is one chunk and that a peer has sent unasked.
    Given { job: JobId, content: Content, copy: u32, attributes: Option<Attributes>, peer: DeviceId, bytes: Bytes },
    /// Open the staged file of a larger content.
    Open { job: JobId, content: Content, copy: u32 },
    /// Look for a chunk list in the index.
    List { job: JobId, list: Content },
    /// Write those chunks that are here; each with its offset.
    Fill { job: JobId, file: Arc<Download>, twins: Vec<u32>, chunks: Vec<(Content, u64)> },
    /// Verify what a peer sent and bring it to all who wait for it.
    Write { want: Content, peer: DeviceId, bytes: Bytes, targets: Vec<Target> },
    /// Copy a staged file that is complete and verified.
    Duplicate { job: JobId, content: Content, from: u32, to: Vec<u32> },
}

impl Task {
    /// True for a content that is one chunk.
    fn is_small(&self) -> bool {
        match self {
            Task::Small { .. } | Task::Given { .. } => true,
            Task::Write { targets, .. } => targets.iter().all(|target| matches!(target, Target::Small { .. })),
            _ => false,
        }
    }
}

/// Where a fetched chunk or list goes.
#[derive(Clone)]
pub(super) enum Target {
    List { job: JobId },
    Small { job: JobId, copy: u32, attributes: Option<Attributes> },
    At { job: JobId, file: Arc<Download>, offset: u64 },
}

/// What came of a task.
pub(super) enum Done {
    Small {
        job: JobId,
        staged: Result<bool, Problem>,
    },
    Opened {
        job: JobId,
        file: Result<Arc<Download>, Problem>,
    },
    Listed {
        job: JobId,
        list: Content,
        found: Option<ChunkList>,
    },
    Filled {
        job: JobId,
        missing: Result<Vec<(Content, u64)>, Problem>,
    },
    /// For each target what became of it, with the list where it was one; `None` where the bytes are not what was
    /// asked for.
    Written {
        want: Content,
        peer: DeviceId,
        results: Option<Vec<Written>>,
    },
    Duplicated {
        job: JobId,
        results: Vec<(u32, Result<(), Problem>)>,
    },
}

/// What became of one target of a fetched chunk.
pub(super) type Written = (JobId, Result<Option<ChunkList>, Problem>);

impl Target {
    pub fn job(&self) -> JobId {
        match self {
            Target::List { job } | Target::Small { job, .. } | Target::At { job, .. } => *job,
        }
    }
}

/// Works until nobody can order anything any more.
pub(super) fn run(folder: &FolderHandle, tasks: &Mutex<Receiver<Task>>, done: &Sender<Event>) {
    let mut reader: Option<Reader> = None;
    while let Some(batch) = next_batch(tasks) {
        if folder.stop.load(Ordering::Relaxed) {
            return;
        }
        if reader.is_none() {
            reader = Reader::open(&folder.index_path)
                .inspect_err(|error| tracing::warn!(folder = %folder.label, %error, "the index could not be read"))
                .ok();
        }
        let root = folder.root.open().map_err(|e| Problem::new(ProblemKind::Io, e.to_string()));
        // Copying a large file takes long, and asks the index for nothing.
        let takes_long = batch.iter().any(|task| matches!(task, Task::Duplicate { .. }));
        let near = root.as_ref().map(Nearby::new);
        let carry_out_all = || {
            // What came of small contents is told together: each telling wakes two threads.
            let mut untold = Vec::new();
            let is_heard = batch.into_iter().all(|task| {
                let is_small = task.is_small();
                // They do not wait for what may take long.
                if !is_small && !untold.is_empty() && done.send(Event::Done(std::mem::take(&mut untold))).is_err() {
                    return false;
                }
                let result = match &near {
                    Ok(near) => {
                        let local = reader.as_ref().map(|reader| Local { folder, near, reader });
                        carry_out(&Context { folder, root: near.root(), local }, task)
                    }
                    Err(problem) => failed(task, problem),
                };
                untold.push(result);
                if !is_small {
                    near.iter().for_each(Nearby::forget);
                }
                is_small || done.send(Event::Done(std::mem::take(&mut untold))).is_ok()
            });
            is_heard && (untold.is_empty() || done.send(Event::Done(untold)).is_ok())
        };
        // A view of its own for each question to the index would cost more than the answers.
        let is_heard = match &reader {
            Some(reader) if !takes_long => reader.in_one_view(carry_out_all),
            _ => carry_out_all(),
        };
        if !is_heard {
            return;
        }
    }
}

/// Waits for a task, and takes what else has queued up as long as it is small.
fn next_batch(tasks: &Mutex<Receiver<Task>>) -> Option<Vec<Task>> {
    let tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
    let first = tasks.recv().ok()?;
    let mut batch = vec![first];
    while batch.len() < BATCH_TASKS_MAX
        && matches!(batch.last(), Some(Task::Small { .. } | Task::Write { .. }))
        && let Ok(task) = tasks.try_recv()
    {
        batch.push(task);
    }
    Some(batch)
}

/// What every task may use.
pub(super) struct Context<'a> {
    pub folder: &'a Shared,
    pub root: &'a OpenRoot,
    pub local: Option<Local<'a>>,
}

pub(super) fn carry_out(context: &Context, task: Task) -> Done {
    match task {
        Task::Small { job, content, copy, attributes, twins } => {
            Done::Small { job, staged: context.stage_small(content, (copy, attributes), &twins) }
        }
        Task::Given { job, content, copy, attributes, peer, bytes } => {
            Done::Small { job, staged: context.stage_given(content, (copy, attributes), peer, &bytes) }
        }
        Task::Open { job, content, copy } => {
            Done::Opened { job, file: Download::open(context.root, content, copy).map(Arc::new) }
        }
        Task::List { job, list } => {
            let body = context.local.and_then(|local| local.list(list));
            Done::Listed { job, list, found: body.and_then(|body| ChunkList::parse(list, &body).ok()) }
        }
        Task::Fill { job, file, twins, chunks } => Done::Filled { job, missing: context.fill(&file, &twins, chunks) },
        Task::Write { want, peer, bytes, targets } => {
            Done::Written { want, peer, results: context.write(want, peer, &bytes, &targets) }
        }
        Task::Duplicate { job, content, from, to } => {
            let copied = to.into_iter().map(|copy| (copy, context.duplicate(content, from, copy)));
            Done::Duplicated { job, results: copied.collect() }
        }
    }
}

/// The folder could not be opened.
fn failed(task: Task, problem: &Problem) -> Done {
    let problem = problem.clone();
    match task {
        Task::Small { job, .. } | Task::Given { job, .. } => Done::Small { job, staged: Err(problem) },
        Task::Open { job, .. } => Done::Opened { job, file: Err(problem) },
        // Harmless: the next step meets the same trouble.
        Task::List { job, list } => Done::Listed { job, list, found: None },
        Task::Fill { job, .. } => Done::Filled { job, missing: Err(problem) },
        Task::Write { want, peer, targets, .. } => {
            let results = targets.iter().map(|target| (target.job(), Err(problem.clone()))).collect();
            Done::Written { want, peer, results: Some(results) }
        }
        Task::Duplicate { job, to, .. } => {
            Done::Duplicated { job, results: to.into_iter().map(|copy| (copy, Err(problem.clone()))).collect() }
        }
    }
}

impl Context<'_> {
    /// True where the content is staged now.
    fn stage_small(
        &self,
        content: Content,
        (copy, attributes): (u32, Option<Attributes>),
        twins: &[u32],
    ) -> Result<bool, Problem> {
        if self.in_stage(content, &[copy], content, 0).is_some() {
            return Ok(true);
        }
        let Some(bytes) = self.find(content, twins, content, 0) else { return Ok(false) };
        stage::stage_small_with(self.root, content, copy, &bytes, attributes)?;
        self.folder.note_reused(content.size);
        Ok(true)
    }

    /// False where the bytes are something else.
    fn stage_given(
        &self,
        content: Content,
        (copy, attributes): (u32, Option<Attributes>),
        peer: DeviceId,
        bytes: &[u8],
    ) -> Result<bool, Problem> {
        if content.verify(bytes).is_err() {
            return Ok(false);
        }
        self.folder.note_received(peer, content.size);
        stage::stage_small_with(self.root, content, copy, bytes, attributes)?;
        Ok(true)
    }

    /// Writes the chunks that are here. The others come back.
    fn fill(
        &self,
        file: &Download,
        twins: &[u32],
        chunks: Vec<(Content, u64)>,
    ) -> Result<Vec<(Content, u64)>, Problem> {
        let mut missing = Vec::new();
        for (chunk, offset) in chunks {
            if self.folder.stop.load(Ordering::Relaxed) {
                missing.push((chunk, offset));
                continue;
            }
            if file.keeps(chunk, offset) {
                continue;
            }
            match self.find(chunk, twins, file.content(), offset) {
                Some(bytes) => {
                    file.write(offset, &bytes)?;
                    self.folder.note_reused(chunk.size);
                }
                None => missing.push((chunk, offset)),
            }
        }
        Ok(missing)
    }

    /// A chunk from what is here: staged copies of the same content, files, history. Verified.
    fn find(&self, chunk: Content, twins: &[u32], whole: Content, offset: u64) -> Option<Vec<u8>> {
        let staged = self.in_stage(whole, twins, chunk, offset);
        staged.or_else(|| self.local.and_then(|local| local.chunk(chunk)))
    }

    fn in_stage(&self, whole: Content, copies: &[u32], chunk: Content, offset: u64) -> Option<Vec<u8>> {
        let read = |copy: &u32| stage::read_complete(self.root, whole, *copy, offset, chunk.size as usize);
        copies.iter().filter_map(read).find(|bytes| chunk.verify(bytes).is_ok())
    }

    /// `None` where the bytes are not what was asked for.
    fn write(&self, want: Content, peer: DeviceId, bytes: &[u8], targets: &[Target]) -> Option<Vec<Written>> {
        let list = if want.depth == 0 {
            want.verify(bytes).ok().or_else(|| sabotage::is(Bug::NothingVerified).then_some(()))?;
            None
        } else {
            Some(ChunkList::parse(want, bytes).ok()?)
        };
        self.folder.note_received(peer, bytes.len() as u64);
        let written = targets.iter().map(|target| {
            let result = match target {
                Target::List { .. } => Ok(list.clone()),
                Target::Small { copy, attributes, .. } => {
                    stage::stage_small_with(self.root, want, *copy, bytes, *attributes).map(|()| None)
                }
                Target::At { file, offset, .. } => file.write(*offset, bytes).map(|()| None),
            };
            (target.job(), result)
        });
        Some(written.collect())
    }

    fn duplicate(&self, content: Content, from: u32, to: u32) -> Result<(), Problem> {
        let gone = || Problem::new(ProblemKind::Busy, "its staged file is gone and is fetched again");
        let read = |offset, len| stage::read_complete(self.root, content, from, offset, len).ok_or_else(gone);
        if content.depth == 0 {
            stage::stage_small(self.root, content, to, &read(0, content.size as usize)?)?;
        } else {
            let file = StagedFile::open(self.root, content, to)?;
            let mut offset = 0;
            while offset < content.size {
                let len = (content.size - offset).min(COPY_BYTES as u64);
                file.write(offset, &read(offset, len as usize)?)?;
                offset += len;
            }
        }
        self.folder.note_reused(content.size);
        Ok(())
    }
}
