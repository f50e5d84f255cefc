//! Chunks and lists that have to come from peers, and who is asked for which.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::choice::Choice;
use super::swarm::Swarm;
use super::worker::{JobId, Target};
use crate::core::content::{Content, LIST_BYTES_MAX};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;

/// Bytes asked of one peer that have not been written yet: keeps a link of 100 MB/s with 160 ms full.
pub(super) const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes and items of one request.
const REQUEST_BYTES: u64 = 1024 * 1024;
const REQUEST_ITEMS: usize = 256;
/// Requests of one folder that a peer has to answer at once: what is asked for is little where files are small.
pub(super) const REQUESTS_OPEN_MAX: usize = 32;
/// Bytes of a file for one child of its lists, for a guess at how long a list will be.
const BYTES_PER_CHILD: u64 = 16 * 1024;
const CHILD_BYTES: u64 = 40;

/// A device that may have what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub peer: DeviceId,
    /// It lacked a part of the same content: asked only when no other has time.
    pub poor: bool,
}

/// One chunk or list, and all who wait for it.
pub(super) struct Want {
    targets: Vec<Target>,
    pub sources: Vec<Source>,
    hint: (RelPath, u64),
    /// Which large content it is a chunk of, and where in it.
    pub place: Option<(JobId, u64)>,
    pub failed: BTreeSet<DeviceId>,
    /// On whose links it was lost once.
    lost: BTreeSet<DeviceId>,
    /// Who sent something else.
    pub liar: Option<DeviceId>,
    pub state: State,
}

impl Want {
    fn add_sources(&mut self, sources: &[Source]) {
        for source in sources {
            if !self.sources.iter().any(|s| s.peer == source.peer) {
                self.sources.push(*source);
            }
        }
    }
}

pub(super) enum State {
    Queued,
    /// Waits until another device that fetches the same content has it.
    Parked,
    Asked(DeviceId),
    /// The bytes are being verified and written to the first `targets`.
    Writing {
        peer: DeviceId,
        bytes: Bytes,
        targets: usize,
    },
}

/// A want that nobody can serve.
pub(super) struct Hopeless {
    pub jobs: Vec<JobId>,
    pub liar: Option<DeviceId>,
}

/// What one peer is to be asked for.
pub(super) type Asked = (DeviceId, Vec<Content>);

/// All wants of a folder.
#[derive(Default)]
pub(super) struct Wants {
    pub(super) wants: HashMap<Content, Want>,
    pub(super) queue: VecDeque<Content>,
    /// Bytes asked for or being written, by the peer they come from.
    pub(super) in_flight: BTreeMap<DeviceId, u64>,
    /// Bytes that came from each peer since nothing was wanted.
    pub(super) came: BTreeMap<DeviceId, u64>,
    /// This device.
    pub(super) own: DeviceId,
    pub(super) swarms: BTreeMap<JobId, Swarm>,
}

impl Wants {
    pub fn new(own: DeviceId) -> Self {
        Self { own, ..Self::default() }
    }

    /// Wants something for a target, with the path and offset where it lies in the file that it is for.
    pub fn add(&mut self, content: Content, target: Target, sources: &[Source], hint: (RelPath, u64)) {
        let queue = &mut self.queue;
        let place = match &target {
            Target::At { job, offset, .. } => Some((*job, *offset)),
            _ => None,
        };
        let want = self.wants.entry(content).or_insert_with(|| {
            queue.push_back(content);
            Want {
                place,
                targets: Vec::new(),
                sources: Vec::new(),
                hint,
                failed: BTreeSet::new(),
                lost: BTreeSet::new(),
                liar: None,
                state: State::Queued,
            }
        });
        want.targets.push(target);
        want.add_sources(sources);
    }

    /// These devices may have what a job wants, though they lacked it or were not known before.
    pub fn renew(&mut self, job: JobId, peers: &[DeviceId]) {
        let is_its = |want: &&mut Want| want.targets.iter().any(|target| target.job() == job);
        for want in self.wants.values_mut().filter(is_its) {
            want.failed.retain(|peer| want.liar == Some(*peer) || !peers.contains(peer));
            let sources: Vec<Source> = peers.iter().map(|peer| Source { peer: *peer, poor: false }).collect();
            want.add_sources(&sources);
        }
    }

    /// A job has ended: nothing is wanted for it any more.
    pub fn forget(&mut self, job: JobId) {
        self.end_swarm(job);
        self.wants.retain(|_, want| {
            if !matches!(want.state, State::Writing { .. }) {
                want.targets.retain(|target| target.job() != job);
            }
            !want.targets.is_empty() || !matches!(want.state, State::Queued | State::Parked)
        });
        self.queue.retain(|content| self.wants.contains_key(content));
    }

    pub fn hint(&self, content: Content) -> Option<(RelPath, u64)> {
        self.wants.get(&content).map(|want| want.hint.clone())
    }

    /// Decides who is asked for what, as far as the windows allow. `open` says how many requests a peer has to answer,
    /// `None` where it is not connected.
    pub fn assign(&mut self, open: impl Fn(DeviceId) -> Option<usize>) -> (Vec<Asked>, Vec<Hopeless>) {
        let mut rooms = Rooms { open, known: BTreeMap::new(), asked: Vec::new() };
        let mut hopeless = Vec::new();
        let mut waiting = VecDeque::new();
        let mut busy = BTreeSet::new();
        while let Some(content) = self.queue.pop_front() {
            let Some(want) = self.wants.get(&content) else { continue };
            match self.choose(want, content, &mut rooms) {
                Choice::Ask(peer) => self.note_asked(content, peer, &mut rooms),
                Choice::Wait { for_source } => {
                    busy.extend(want.place.filter(|_| for_source).map(|(job, _)| job));
                    waiting.push_back(content);
                }
                Choice::Park(job, offset) => self.park(job, offset, content),
                Choice::Nobody => {
                    let want = self.wants.remove(&content);
                    hopeless.extend(want.map(|w| Hopeless { jobs: jobs_of(&w.targets), liar: w.liar }));
                }
            }
        }
        self.queue = waiting;
        self.take_over(&busy, &mut rooms);
        (rooms.asked.into_iter().map(|(peer, _, items)| (peer, items)).collect(), hopeless)
    }

    pub(super) fn note_asked<F: Fn(DeviceId) -> Option<usize>>(
        &mut self,
        content: Content,
        peer: DeviceId,
        rooms: &mut Rooms<F>,
    ) {
        let Some(want) = self.wants.get_mut(&content) else { return };
        want.state = State::Asked(peer);
        let cost = cost(content);
        *self.in_flight.entry(peer).or_default() += cost;
        rooms.ask(peer, content, cost);
    }

    /// Bytes have come: to whom they are to be brought. `None` where nobody wants them any more, or another peer was asked
    /// for them meanwhile.
    pub fn arrived(&mut self, content: Content, peer: DeviceId, bytes: Bytes) -> Option<Vec<Target>> {
        let want = self.wants.get_mut(&content)?;
        let in_flight = self.in_flight.entry(peer).or_default();
        let is_late = match want.state {
            State::Asked(asked) if asked == peer => false,
            State::Queued if *in_flight + cost(content) <= WINDOW_BYTES * 2 => true,
            _ => return None,
        };
        if want.targets.is_empty() {
            self.drop_want(content);
            return None;
        }
        if is_late {
            *in_flight += cost(content);
            self.queue.iter().position(|queued| *queued == content).and_then(|at| self.queue.remove(at));
        }
        *self.came.entry(peer).or_default() += bytes.len() as u64;
        want.state = State::Writing { peer, bytes, targets: want.targets.len() };
        Some(want.targets.clone())
    }

    /// Bytes were verified and written. Says who came too late for that, with the bytes.
    pub fn written(&mut self, content: Content) -> Option<(DeviceId, Bytes, Vec<Target>)> {
        let want = self.wants.get_mut(&content)?;
        let State::Writing { peer, bytes, targets } = &mut want.state else { return None };
        want.targets.drain(..*targets);
        if want.targets.is_empty() {
            self.drop_want(content);
            return None;
        }
        *targets = want.targets.len();
        Some((*peer, bytes.clone(), want.targets.clone()))
    }

    /// A peer did not give what it was asked for: another one is. `lied` where it sent something else.
    pub fn refused(&mut self, content: Content, peer: DeviceId, lied: bool) {
        if let Some(want) = self.wants.get_mut(&content) {
            want.failed.insert(peer);
            if lied {
                want.liar = Some(peer);
            }
        }
        self.requeue(content);
    }

    /// A peer was asked for this and is no longer waited for: another one is. Nothing changes where it has come late, or
    /// another one was asked.
    pub fn given_up(&mut self, content: Content, peer: DeviceId) {
        if self.is_asked(content, peer) {
            self.refused(content, peer, false);
        }
    }

    /// What a peer was asked for was lost on its way: it is asked for anew. Where that happens again, or another peer can be
    /// asked, this one counts as not giving it.
    pub fn lost(&mut self, content: Content, peer: DeviceId, can_ask: impl Fn(DeviceId) -> bool) {
        if !self.is_asked(content, peer) {
            return;
        }
        let has_other = self.has_other(content, peer, can_ask);
        let is_first = self.wants.get_mut(&content).is_some_and(|want| want.lost.insert(peer));
        if is_first && !has_other {
            self.requeue(content);
        } else {
            self.refused(content, peer, false);
        }
    }

    /// The link on which a peer was asked for something is gone.
    pub fn cut(&mut self, content: Content, peer: DeviceId) {
        if self.is_asked(content, peer) {
            self.requeue(content);
        }
    }

    fn is_asked(&self, content: Content, peer: DeviceId) -> bool {
        self.wants.get(&content).is_some_and(|want| matches!(want.state, State::Asked(asked) if asked == peer))
    }

    /// True where another peer than this one may have it and can be asked.
    pub fn has_other(&self, content: Content, peer: DeviceId, can_ask: impl Fn(DeviceId) -> bool) -> bool {
        let is_other = |s: &Source, want: &Want| s.peer != peer && !want.failed.contains(&s.peer) && can_ask(s.peer);
        self.wants.get(&content).is_some_and(|want| want.sources.iter().any(|s| is_other(s, want)))
    }

    /// It is asked for anew.
    pub fn requeue(&mut self, content: Content) {
        self.release(content);
        let Some(want) = self.wants.get_mut(&content) else { return };
        if want.targets.is_empty() {
            self.wants.remove(&content);
        } else if !matches!(want.state, State::Queued) {
            want.state = State::Queued;
            self.queue.push_front(content);
        }
    }

    /// The jobs that wait for something.
    pub fn jobs(&self, content: Content) -> Vec<JobId> {
        self.wants.get(&content).map(|want| jobs_of(&want.targets)).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty() && self.queue.is_empty() && self.in_flight.values().all(|bytes| *bytes == 0)
    }

    fn drop_want(&mut self, content: Content) {
        self.release(content);
        self.wants.remove(&content);
        if self.wants.is_empty() {
            self.came.clear();
        }
    }

    fn release(&mut self, content: Content) {
        if let Some(State::Asked(peer) | State::Writing { peer, .. }) = self.wants.get(&content).map(|w| &w.state)
            && let Some(bytes) = self.in_flight.get_mut(peer)
        {
            *bytes = bytes.saturating_sub(cost(content));
        }
    }
}

/// The requests of one round.
pub(super) struct Rooms<F> {
    open: F,
    /// How many more requests each peer takes; `None` where it is not connected.
    known: BTreeMap<DeviceId, Option<usize>>,
    /// Peer, bytes, items.
    asked: Vec<(DeviceId, u64, Vec<Content>)>,
}

impl<F: Fn(DeviceId) -> Option<usize>> Rooms<F> {
    pub fn room(&mut self, peer: DeviceId) -> Option<usize> {
        let room = || (self.open)(peer).map(|open| REQUESTS_OPEN_MAX.saturating_sub(open));
        *self.known.entry(peer).or_insert_with(room)
    }

    /// True where the peer's last request of this round, or a further one, can take it.
    pub fn takes(&self, peer: DeviceId, cost: u64) -> bool {
        let room = self.known.get(&peer).copied().flatten().unwrap_or_default();
        room > 0 || self.asked.iter().any(|request| has_room(request, peer, cost))
    }

    fn ask(&mut self, peer: DeviceId, content: Content, cost: u64) {
        if let Some((_, bytes, items)) = self.asked.iter_mut().find(|request| has_room(request, peer, cost)) {
            *bytes += cost;
            items.push(content);
            return;
        }
        if let Some(Some(room)) = self.known.get_mut(&peer) {
            *room = room.saturating_sub(1);
        }
        self.asked.push((peer, cost, vec![content]));
    }
}

fn has_room((to, bytes, items): &(DeviceId, u64, Vec<Content>), peer: DeviceId, cost: u64) -> bool {
    *to == peer && bytes + cost <= REQUEST_BYTES && items.len() < REQUEST_ITEMS
}

/// Bytes that will come; for a list, whose length is not known, a guess.
pub(super) fn cost(content: Content) -> u64 {
    if content.depth == 0 {
        return content.size;
    }
    (CHILD_BYTES * (content.size / BYTES_PER_CHILD + 2)).min(LIST_BYTES_MAX as u64)
}

fn jobs_of(targets: &[Target]) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = targets.iter().map(Target::job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 32]);
    const B: DeviceId = DeviceId([2; 32]);

    fn chunk(n: u64, size: u64) -> Content {
        Content { size, ..Content::of_chunk(&n.to_be_bytes()) }
    }

    fn sources(peers: &[DeviceId]) -> Vec<Source> {
        peers.iter().map(|peer| Source { peer: *peer, poor: false }).collect()
    }

    fn want(wants: &mut Wants, content: Content, job: JobId, from: &[Source]) {
        let path = RelPath::parse(b"f").expect("a path");
        wants.add(content, Target::Small { job, copy: 0, attributes: None }, from, (path, 0));
    }

    fn items(asked: &[Asked], peer: DeviceId) -> usize {
        asked.iter().filter(|(to, _)| *to == peer).map(|(_, items)| items.len()).sum()
    }

    #[test]
    fn no_more_is_asked_than_the_windows_take() {
        let mut wants = Wants::default();
        let all: Vec<Content> = (0..40).map(|n| chunk(n, 1024 * 1024)).collect();
        all.iter().for_each(|content| want(&mut wants, *content, 1, &sources(&[A, B])));
        let (asked, hopeless) = wants.assign(|peer| (peer == A).then_some(0));
        assert_eq!((items(&asked, A), asked.len(), hopeless.len()), (16, 16, 0));
        let (asked, _) = wants.assign(|_| Some(0));
        assert_eq!((items(&asked, A), items(&asked, B)), (0, 16));
        assert!(wants.arrived(all[0], B, Bytes::new()).is_none(), "not asked of B");
        assert!(wants.arrived(all[0], A, Bytes::new()).is_some());
        assert!(wants.assign(|_| Some(0)).0.is_empty(), "it has not been written yet");
        assert!(wants.written(all[0]).is_none());
        assert_eq!(items(&wants.assign(|_| Some(0)).0, A), 1);
        wants.refused(all[1], A, false);
        let (asked, _) = wants.assign(|_| Some(0));
        assert_eq!((items(&asked, A), items(&asked, B)), (1, 0), "another takes the room, and B has none");
        wants.forget(1);
        all.iter().for_each(|content| wants.requeue(*content));
        assert!(wants.is_empty());
    }

    #[test]
    fn what_comes_late_is_used_where_no_other_was_asked_meanwhile() {
        let mut wants = Wants::default();
        let all: Vec<Content> = (0..4).map(|n| chunk(n, 1024)).collect();
        all.iter().for_each(|content| want(&mut wants, *content, 1, &sources(&[A, B])));
        assert_eq!(items(&wants.assign(|peer| (peer == A).then_some(0)).0, A), 4);
        all[..3].iter().for_each(|content| wants.given_up(*content, A));
        // Asked of another one, waiting, and asked for as before.
        assert_eq!(items(&wants.assign(|_| Some(0)).0, B), 3);
        all[1..3].iter().for_each(|content| wants.cut(*content, B));
        assert!(wants.arrived(all[0], A, Bytes::new()).is_none());
        assert!(wants.arrived(all[1], A, Bytes::new()).is_some());
        assert!(wants.arrived(all[1], A, Bytes::new()).is_none());
        assert!(wants.arrived(all[3], A, Bytes::new()).is_some());
        // What has come is not asked for again, whoever is given up.
        wants.given_up(all[1], A);
        assert_eq!(items(&wants.assign(|_| Some(0)).0, B), 1);
        [all[1], all[3]].iter().for_each(|content| assert!(wants.written(*content).is_none()));
        for content in [all[0], all[2]] {
            assert!(wants.arrived(content, B, Bytes::new()).is_some() && wants.written(content).is_none());
        }
        assert!(wants.is_empty());
    }

    #[test]
    fn a_peer_on_whose_links_things_get_lost_again_is_given_up() {
        let mut wants = Wants::default();
        let (one, two) = (chunk(1, 1024), chunk(2, 1024));
        want(&mut wants, one, 1, &sources(&[A]));
        want(&mut wants, two, 2, &sources(&[A, B]));
        assert_eq!(items(&wants.assign(|peer| (peer == A).then_some(0)).0, A), 2);
        [one, two].iter().for_each(|content| wants.lost(*content, A, |_| true));
        let (asked, hopeless) = wants.assign(|_| Some(0));
        assert_eq!((items(&asked, A), items(&asked, B), hopeless.len()), (1, 1, 0));
        wants.lost(one, A, |_| true);
        // The other peer is gone meanwhile; a first loss is not held against it.
        wants.lost(two, B, |_| false);
        let (asked, hopeless) = wants.assign(|_| Some(0));
        assert_eq!((items(&asked, B), hopeless.len()), (1, 1));
    }

    #[test]
    fn small_items_share_requests_and_no_peer_gets_too_many_of_them() {
        let mut wants = Wants::default();
        (0..1000).for_each(|n| want(&mut wants, chunk(n, 10), n, &sources(&[A])));
        let (asked, _) = wants.assign(|_| Some(REQUESTS_OPEN_MAX - 2));
        let lengths: Vec<usize> = asked.iter().map(|(_, items)| items.len()).collect();
        assert_eq!(lengths, [REQUEST_ITEMS, REQUEST_ITEMS]);
        assert!(wants.assign(|_| Some(REQUESTS_OPEN_MAX)).0.is_empty());
    }

    #[test]
    fn who_comes_while_the_bytes_are_written_gets_them_too() {
        let mut wants = Wants::default();
        let content = chunk(1, 10);
        want(&mut wants, content, 1, &sources(&[A]));
        wants.assign(|_| Some(0));
        assert_eq!(wants.arrived(content, A, Bytes::from_static(b"x")).map(|t| t.len()), Some(1));
        want(&mut wants, content, 2, &sources(&[B]));
        let late = wants.written(content).map(|(peer, bytes, targets)| (peer, bytes, jobs_of(&targets)));
        assert_eq!(late, Some((A, Bytes::from_static(b"x"), vec![2])));
        assert!(wants.written(content).is_none() && wants.is_empty());
    }

    #[test]
    fn a_want_is_hopeless_when_every_source_has_failed_and_a_poor_one_is_asked_last() {
        let mut wants = Wants::default();
        let content = chunk(1, 10);
        let from = [Source { peer: A, poor: true }, Source { peer: B, poor: false }];
        want(&mut wants, content, 7, &from);
        assert_eq!(items(&wants.assign(|_| Some(0)).0, B), 1);
        wants.refused(content, B, true);
        assert_eq!(items(&wants.assign(|_| Some(0)).0, A), 1);
        wants.refused(content, A, false);
        let (asked, hopeless) = wants.assign(|_| Some(0));
        let hopeless: Vec<_> = hopeless.into_iter().map(|h| (h.jobs, h.liar)).collect();
        assert_eq!((asked.len(), hopeless), (0, vec![(vec![7], Some(B))]));
        assert!(wants.is_empty());
    }

    #[test]
    fn another_source_is_one_that_has_not_failed_and_can_be_asked() {
        let mut wants = Wants::default();
        let content = chunk(1, 10);
        want(&mut wants, content, 1, &sources(&[A, B]));
        assert!(wants.has_other(content, A, |_| true) && !wants.has_other(content, A, |peer| peer == A));
        wants.renew(2, &[B, DeviceId([3; 32])]);
        wants.refused(content, B, false);
        assert!(!wants.has_other(content, A, |_| true) && !wants.has_other(chunk(2, 10), A, |_| true));
        wants.renew(1, &[DeviceId([3; 32])]);
        assert!(wants.has_other(content, A, |peer| peer != B));
        wants.refused(content, DeviceId([3; 32]), true);
        wants.renew(1, &[B]);
        assert!(wants.has_other(content, A, |peer| peer == B), "it lacked it before");
        wants.renew(1, &[DeviceId([3; 32])]);
        assert!(!wants.has_other(content, A, |peer| peer == DeviceId([3; 32])), "it has lied");
    }
}
