//! What the fetching thread knows and decides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::Event;
use super::copies::Copies;
use super::haves::Shared;
use super::job::{Job, Large, Next, Order, Progress, impossible, without_bytes};
use super::open::OpenRequests;
use super::wants::Wants;
use super::worker::{Done, JobId, Target, Task, Written};
use crate::core::action::WorkId;
use crate::core::content::{ChunkList, Content};
use crate::core::id::DeviceId;
use crate::core::problem::Problem;
use crate::engine::chatter::Chatter;
use crate::engine::link::LinkHandle;
use crate::engine::shared::FolderHandle;
use crate::sync::{FetchError, FetchOrder, Input, Staged, WORKS_MAX};

/// Contents with lists that are filled at once: each takes memory for its lists and a file handle.
const LARGE_JOBS_MAX: usize = 8;
/// Most of them that are to come from the same peer: one that never answers leaves room for the others.
const LARGE_JOBS_PER_PEER_MAX: usize = 6;
/// Contents of one chunk that are fetched at once: as many as can be ordered.
const SMALL_JOBS_MAX: usize = 2 * WORKS_MAX;

/// The state of the fetching thread.
pub(super) struct Fetching {
    pub(super) folder: FolderHandle,
    tasks: Sender<Task>,
    pub(super) open: Arc<OpenRequests>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) by_content: HashMap<Content, JobId>,
    next_job: JobId,
    waiting: usize,
    pub(super) wants: Wants,
    copies: Copies,
    pub(super) shared: Shared,
    /// The link on which each peer was last asked.
    pub(super) used: HashMap<DeviceId, LinkHandle>,
    /// Peers whose link is gone, though the table may still have it.
    pub(super) broken: HashSet<DeviceId>,
    results: Vec<(WorkId, Result<Staged, FetchError>)>,
    chatter: Chatter<DeviceId>,
}

impl Fetching {
    pub fn new(folder: FolderHandle, tasks: Sender<Task>, open: Arc<OpenRequests>) -> Self {
        let own = folder.device;
        Self {
            folder,
            tasks,
            open,
            jobs: BTreeMap::new(),
            by_content: HashMap::new(),
            next_job: 1,
            waiting: 0,
            wants: Wants::new(own),
            shared: Shared::default(),
            copies: Copies::default(),
            used: HashMap::new(),
            broken: HashSet::new(),
            results: Vec::new(),
            chatter: Chatter::default(),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.folder.stop.load(Ordering::Relaxed)
    }

    /// True where nothing is to be done before something is heard.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.open.is_empty()
    }

    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Order(order) => self.order(order),
            Event::Applied(work) => {
                self.copies.free(work);
                self.no_longer_served(work);
            }
            Event::LinkUp(peer) => {
                self.broken.remove(&peer);
                self.greet(peer);
            }
            Event::LinkDown(peer) => {
                self.broken.insert(peer);
                self.used.remove(&peer);
                self.wants.leave(peer);
                self.requeue(peer);
            }
            Event::Have(peer, have, _waiting) => self.heard_have(peer, &have),
            Event::Chunks(peer, items) => {
                for (want, bytes) in items {
                    if let Some(targets) = self.wants.arrived(want, peer, bytes.clone()) {
                        self.send(Task::Write { want, peer, bytes, targets });
                    }
                }
            }
            Event::NotHere(peer, items) => items.into_iter().for_each(|content| self.not_here(peer, content)),
            Event::Done(all) => all.into_iter().for_each(|done| self.done(done)),
            Event::Clear(before_ns) => self.copies.clear(&self.folder, before_ns),
            Event::Wake => {}
        }
    }

    /// Does what has become possible. False where the folder has stopped.
    pub fn step(&mut self, now: Instant) -> bool {
        self.give_up_overdue(now);
        self.start_jobs();
        self.ask(now);
        self.tell_news(now);
        let mut results = std::mem::take(&mut self.results);
        // What the folder's machine has not ordered it need not hear of.
        let elsewhere = &self.folder.elsewhere;
        results.retain(|(work, result)| !elsewhere.fetched(*work, result));
        results.is_empty() || self.folder.send(Input::Fetched(results))
    }

    fn order(&mut self, order: FetchOrder) {
        let FetchOrder { work, path, content, attributes, sources } = order;
        if content.size == 0 || !content.is_plausible() {
            self.results.push((work, without_bytes(content)));
            return;
        }
        let twins = self.copies.complete_of(content);
        let order = Order { work, path: path.clone(), copy: self.copies.take(work, content), attributes };
        if let Some(job) = self.by_content.get(&content).and_then(|id| self.jobs.get_mut(id)) {
            job.join(order, &sources);
            // Who lacked it before may have it by now.
            self.wants.renew(job.id, &sources);
            return;
        }
        let id = self.next_job;
        self.next_job += 1;
        let mut job = Job::new(id, content, order, twins);
        job.add_sources(&sources);
        self.by_content.insert(content, id);
        self.jobs.insert(id, job);
        self.waiting += 1;
    }

    /// Begins jobs that wait, as far as there is room.
    fn start_jobs(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let mut rooms = JobRooms::default();
        self.jobs.values().filter(|j| !matches!(j.progress, Progress::Waiting)).for_each(|job| rooms.take(job));
        let mut tasks = Vec::new();
        for job in self.jobs.values_mut().filter(|j| matches!(j.progress, Progress::Waiting)) {
            let Some(first) = job.orders.first().filter(|_| rooms.fits(job)) else { continue };
            rooms.take(job);
            self.waiting -= 1;
            self.folder.live.transfers.begin(job.id, job.transfer.clone());
            let (job_id, content, copy, attributes) = (job.id, job.content, first.copy, first.attributes);
            if job.is_small() {
                job.progress = Progress::Small;
                if let Some((peer, bytes)) = self.folder.gifts.take(content) {
                    tasks.push(Task::Given { job: job_id, content, copy, attributes, peer, bytes });
                    continue;
                }
                tasks.push(Task::Small { job: job_id, content, copy, attributes, twins: job.twins.clone() });
            } else {
                job.progress = Progress::Opening;
                tasks.push(Task::Open { job: job_id, content, copy });
            }
        }
        tasks.into_iter().for_each(|task| self.send(task));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Small { job, staged: Ok(true) } => self.finish(job, Vec::new()),
            Done::Small { job, staged: Ok(false) } => self.want_small(job),
            Done::Opened { job, file: Ok(file) } => {
                self.opened(job, &file);
                if let Some(running) = self.jobs.get_mut(&job) {
                    running.progress = Progress::Large(Large::new(file));
                }
                self.advance(job);
            }
            Done::Listed { job, found: Some(list), .. } => self.listed(job, list),
            Done::Listed { job, list, found: None } => self.want_list(job, list),
            Done::Filled { job, missing: Ok(missing) } => self.want_chunks(job, &missing),
            Done::Small { job, staged: Err(problem) }
            | Done::Opened { job, file: Err(problem) }
            | Done::Filled { job, missing: Err(problem) } => self.fail(job, &FetchError::Problem(problem)),
            Done::Written { want, peer, results: Some(results) } => self.written(want, peer, results),
            Done::Written { want, peer, results: None } => {
                let path = self.wants.hint(want).map(|(path, _)| path.to_string()).unwrap_or_default();
                if let Some(more) = self.chatter.say(peer, "wrong data", self.folder.clock.instant()) {
                    let peer = peer.short();
                    tracing::warn!(folder = %self.folder.label, %peer, %path, "a peer sent wrong data{more}");
                }
                self.wants.refused(want, peer, true);
            }
            Done::Duplicated { job, results } => self.duplicated(job, results),
        }
    }

    fn want_small(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(first) = job.orders.first() else { return };
        let target = Target::Small { job: id, copy: first.copy, attributes: first.attributes };
        self.wants.add(job.content, target, &job.sources, (first.path.clone(), 0));
    }

    fn want_list(&mut self, id: JobId, list: Content) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let offset = job.large().map_or(0, |large| large.list_offset());
        let Some(path) = job.orders.first().map(|order| order.path.clone()) else { return };
        self.wants.add(list, Target::List { job: id }, &job.sources, (path, offset));
    }

    fn want_chunks(&mut self, id: JobId, missing: &[(Content, u64)]) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(path) = job.orders.first().map(|order| order.path.clone()) else { return };
        let Some(large) = job.large() else { return };
        let found_bytes = large.filled(missing);
        let file = large.file.clone();
        job.transfer.add(found_bytes, None);
        for (chunk, offset) in missing {
            let target = Target::At { job: id, file: file.clone(), offset: *offset };
            self.wants.add(*chunk, target, &job.sources, (path.clone(), *offset));
        }
        self.advance(id);
    }

    fn listed(&mut self, id: JobId, list: ChunkList) {
        let Some(large) = self.jobs.get_mut(&id).and_then(Job::large) else { return };
        if large.listed(list) {
            self.advance(id);
        } else {
            self.fail(id, &FetchError::Problem(impossible()));
        }
    }

    fn written(&mut self, want: Content, peer: DeviceId, results: Vec<Written>) {
        if let Some((_, bytes, targets)) = self.wants.written(want) {
            self.send(Task::Write { want, peer, bytes, targets });
        }
        for (id, result) in results {
            match result {
                Ok(Some(list)) => self.listed(id, list),
                Ok(None) => {
                    let Some(job) = self.jobs.get_mut(&id) else { continue };
                    job.transfer.add(want.size, Some(peer));
                    match &mut job.progress {
                        Progress::Small => self.finish(id, Vec::new()),
                        Progress::Large(large) => {
                            large.written(want);
                            self.advance(id);
                        }
                        _ => {}
                    }
                }
                Err(problem) => self.fail(id, &FetchError::Problem(problem)),
            }
        }
    }

    /// Orders the next step of a larger content.
    pub(super) fn advance(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let twins = job.twins.clone();
        let Some(large) = job.large() else { return };
        match large.next() {
            Next::List(list) => self.send(Task::List { job: id, list }),
            Next::Fill(chunks) => {
                let file = large.file.clone();
                self.send(Task::Fill { job: id, file, twins, chunks });
            }
            Next::Wait => {}
            Next::Finished => {
                let progress = Progress::Duplicating { lists: Vec::new(), complete: 0 };
                if let Progress::Large(large) = std::mem::replace(&mut job.progress, progress) {
                    self.completed(id, &large.file);
                    self.finish(id, large.into_lists());
                }
            }
        }
    }

    /// The first order's file is complete.
    fn finish(&mut self, id: JobId, lists: Vec<ChunkList>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.progress = Progress::Duplicating { lists, complete: 1 };
        self.duplicate(id);
    }

    /// Copies the first order's file for those that have none yet; when all have one, the job is done. Nothing is
    /// reported before, so that the first file can't be put into place while it is copied.
    fn duplicate(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (Progress::Duplicating { complete, .. }, Some(first)) = (&job.progress, job.orders.first()) else { return };
        let to: Vec<u32> = job.orders.iter().skip(*complete).map(|order| order.copy).collect();
        if !to.is_empty() {
            return self.send(Task::Duplicate { job: id, content: job.content, from: first.copy, to });
        }
        let Some(job) = self.take_job(id) else { return };
        let Progress::Duplicating { lists, .. } = job.progress else { return };
        for order in job.orders {
            self.copies.complete(order.work);
            self.results.push((order.work, Ok(Staged { lists: lists.clone(), copy: order.copy })));
        }
    }

    fn duplicated(&mut self, id: JobId, results: Vec<(u32, Result<(), Problem>)>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Progress::Duplicating { complete, .. } = &mut job.progress else { return };
        for (copy, result) in results {
            match (result, job.orders.iter().position(|order| order.copy == copy)) {
                (Ok(()), _) => *complete += 1,
                (Err(problem), Some(at)) => {
                    let order = job.orders.remove(at);
                    self.copies.free(order.work);
                    self.results.push((order.work, Err(FetchError::Problem(problem))));
                }
                (Err(_), None) => {}
            }
        }
        self.duplicate(id);
    }

    pub(super) fn fail(&mut self, id: JobId, error: &FetchError) {
        let Some(job) = self.take_job(id) else { return };
        self.wants.forget(id);
        job.orders.iter().for_each(|order| self.no_longer_served(order.work));
        for order in job.orders {
            self.copies.free(order.work);
            self.results.push((order.work, Err(error.clone())));
        }
    }

    fn take_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.by_content.remove(&job.content);
        self.folder.live.transfers.end(id);
        Some(job)
    }

    fn send(&self, task: Task) {
        // Without workers the folder is stopping.
        let _ = self.tasks.send(task);
    }
}

/// How much is under way.
#[derive(Default)]
struct JobRooms {
    small: usize,
    large: usize,
    /// Of the large ones, those of which this peer is the best source.
    large_from: BTreeMap<DeviceId, usize>,
}

impl JobRooms {
    fn fits(&self, job: &Job) -> bool {
        if job.is_small() {
            return self.small < SMALL_JOBS_MAX;
        }
        let of_source = job.best_source().and_then(|peer| self.large_from.get(&peer)).copied().unwrap_or_default();
        self.large < LARGE_JOBS_MAX && of_source < LARGE_JOBS_PER_PEER_MAX
    }

    fn take(&mut self, job: &Job) {
        if job.is_small() {
            self.small += 1;
            return;
        }
        self.large += 1;
        if let Some(peer) = job.best_source() {
            *self.large_from.entry(peer).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::path::RelPath;

    fn job(id: JobId, depth: u8, peers: &[u8]) -> Job {
        let content = Content { depth, ..Content::of_chunk(&id.to_be_bytes()) };
        let path = RelPath::parse(b"f").expect("a path");
        let mut job = Job::new(id, content, Order { work: id, path, copy: 0, attributes: None }, Vec::new());
        job.add_sources(&peers.iter().map(|n| DeviceId([*n; 32])).collect::<Vec<_>>());
        job
    }

    #[test]
    fn one_source_does_not_take_all_places_of_large_contents() {
        let mut rooms = JobRooms::default();
        for id in 0..LARGE_JOBS_PER_PEER_MAX as u64 {
            assert!(rooms.fits(&job(id, 1, &[1])));
            rooms.take(&job(id, 1, &[1]));
        }
        assert!(!rooms.fits(&job(100, 1, &[1, 2])) && rooms.fits(&job(100, 1, &[2, 1])));
        assert!(rooms.fits(&job(100, 0, &[1])));
        for id in LARGE_JOBS_PER_PEER_MAX as u64..LARGE_JOBS_MAX as u64 {
            assert!(rooms.fits(&job(id, 1, &[2])));
            rooms.take(&job(id, 1, &[2]));
        }
        assert!(!rooms.fits(&job(100, 1, &[3])));
    }

    #[test]
    fn small_contents_are_bounded() {
        let mut rooms = JobRooms::default();
        for id in 0..SMALL_JOBS_MAX as u64 {
            assert!(rooms.fits(&job(id, 0, &[1])));
            rooms.take(&job(id, 0, &[1]));
        }
        assert!(!rooms.fits(&job(100_000, 0, &[1])) && rooms.fits(&job(100_000, 1, &[1])));
    }
}
