//! Wants of contents that other devices fetch at the same time; the rule is in [`super::swarm`].

use std::collections::BTreeSet;

use super::swarm::Swarm;
use super::wants::{Rooms, Source, State, Wants, cost};
use super::worker::JobId;
use crate::core::content::Content;
use crate::core::id::DeviceId;

/// Bytes asked of a source at a time of what others own, at most, at least, and as a part of the file: what they ask for
/// in the same moment comes twice.
const TAKE_OVER_BYTES: u64 = 2 * 1024 * 1024;
const TAKE_OVER_BYTES_MIN: u64 = 256 * 1024;
const TAKE_OVER_PART: u64 = 128;

impl Wants {
    /// A peer fetches the content of a job too, of so many bytes. `None` where there are too many; else true where that
    /// is news.
    pub fn join(&mut self, job: JobId, bytes: u64, peer: DeviceId) -> Option<bool> {
        let swarm = self.swarms.entry(job).or_insert_with(|| Swarm::of(bytes));
        let is_news = !swarm.is_partner(peer);
        if !swarm.join(peer) {
            return None;
        }
        if is_news {
            // What it owns changes hands.
            self.unpark_all(job);
        }
        Some(is_news)
    }

    /// A partner has these ranges of a job's content.
    pub fn has(&mut self, job: JobId, peer: DeviceId, ranges: &[(u64, u64)]) {
        let Some(swarm) = self.swarms.get_mut(&job) else { return };
        swarm.has(peer, ranges);
        for want in self.wants.values_mut().filter(|want| want.failed.contains(&peer) && want.liar != Some(peer)) {
            let is_held = |(_, offset)| ranges.iter().any(|(start, length)| (*start..start + length).contains(&offset));
            if want.place.filter(|place| place.0 == job).is_some_and(is_held) {
                want.failed.remove(&peer);
            }
        }
        let held = swarm.unpark_held(peer);
        self.queue_again(held);
    }

    /// A peer is gone.
    pub fn leave(&mut self, peer: DeviceId) {
        let jobs: Vec<JobId> = self.swarms.keys().copied().collect();
        for job in jobs {
            if let Some(swarm) = self.swarms.get_mut(&job) {
                swarm.leave(peer);
            }
            self.unpark_all(job);
        }
    }

    /// A peer does not answer: it is asked for what others have only where they have no time. True where it was a partner.
    pub fn drop_partner(&mut self, peer: DeviceId) -> bool {
        let is_partner = self.swarms.values().any(|swarm| swarm.is_partner(peer));
        if is_partner {
            self.leave(peer);
            let sources = self.wants.values_mut().flat_map(|want| &mut want.sources);
            sources.filter(|source| source.peer == peer).for_each(|source| source.poor = true);
        }
        is_partner
    }

    /// True where a partner has said that it has this.
    pub fn is_said_to_hold(&self, content: Content, peer: DeviceId) -> bool {
        let place = self.wants.get(&content).and_then(|want| want.place);
        place.is_some_and(|(job, at)| self.swarms.get(&job).is_some_and(|swarm| swarm.holds(peer, at, content)))
    }

    /// True where what a partner was asked for could come from a source that has nothing else to give.
    pub fn has_spare_source(&self, content: Content, asked: DeviceId, can_ask: impl Fn(DeviceId) -> bool) -> bool {
        let Some(want) = self.wants.get(&content) else { return false };
        let swarm = want.place.and_then(|(job, _)| self.swarms.get(&job));
        let Some(swarm) = swarm.filter(|swarm| swarm.is_partner(asked)) else { return false };
        let is_spare = |peer| !swarm.is_partner(peer) && self.in_flight.get(&peer).is_none_or(|bytes| *bytes == 0);
        let is_able = |source: &Source| !source.poor && !want.failed.contains(&source.peer) && can_ask(source.peer);
        want.sources.iter().any(|source| is_able(source) && is_spare(source.peer))
    }

    /// The devices that fetch a job's content too.
    pub fn partners(&self, job: JobId) -> Vec<DeviceId> {
        self.swarms.get(&job).map(|swarm| swarm.partners().collect()).unwrap_or_default()
    }

    /// True where some content is fetched together with others.
    pub fn is_in_swarm(&self) -> bool {
        self.swarms.values().any(|swarm| !swarm.is_empty())
    }

    /// All of a job's content is here, or it has failed.
    pub fn end_swarm(&mut self, job: JobId) {
        self.unpark_all(job);
        self.swarms.remove(&job);
    }

    pub(super) fn park(&mut self, job: JobId, offset: u64, content: Content) {
        if let (Some(want), Some(swarm)) = (self.wants.get_mut(&content), self.swarms.get_mut(&job)) {
            want.state = State::Parked;
            swarm.park(offset, content);
        }
    }

    /// Asks for some of what others own where a source has nothing else to give.
    ///
    /// Not for jobs that are `busy`: they have something of their own to ask the source for.
    pub(super) fn take_over<F>(&mut self, busy: &BTreeSet<JobId>, rooms: &mut Rooms<F>)
    where
        F: Fn(DeviceId) -> Option<usize>,
    {
        let jobs: Vec<JobId> = self.swarms.keys().filter(|job| !busy.contains(job)).copied().collect();
        for job in jobs {
            while let Some((content, source)) = self.next_to_take_over(job, rooms) {
                match source {
                    Some(peer) => self.note_asked(content, peer, rooms),
                    // Its source is gone: it is looked at anew like any other.
                    None => self.queue_again(vec![content]),
                }
            }
        }
    }

    /// Takes something out of what is parked, with the source to be asked for it; none where no source has time.
    fn next_to_take_over<F: Fn(DeviceId) -> Option<usize>>(
        &mut self,
        job: JobId,
        rooms: &mut Rooms<F>,
    ) -> Option<(Content, Option<DeviceId>)> {
        let Self { wants, swarms, in_flight, own, .. } = self;
        let swarm = swarms.get_mut(&job)?;
        let content = swarm.take_over(*own)?;
        let want = wants.get(&content)?;
        let offset = want.place.map_or(0, |place| place.1);
        let is_whole = |swarm: &Swarm, peer| !swarm.is_partner(peer);
        let mut has_source = false;
        for source in
            want.sources.iter().filter(|s| !s.poor && is_whole(swarm, s.peer) && !want.failed.contains(&s.peer))
        {
            if rooms.room(source.peer).is_none() {
                continue;
            }
            has_source = true;
            let bytes = in_flight.get(&source.peer).copied().unwrap_or_default() + cost(content);
            let most = (swarm.bytes() / TAKE_OVER_PART).clamp(TAKE_OVER_BYTES_MIN, TAKE_OVER_BYTES);
            if bytes <= most && rooms.takes(source.peer, cost(content)) {
                return Some((content, Some(source.peer)));
            }
        }
        if has_source {
            swarm.park(offset, content);
            return None;
        }
        Some((content, None))
    }

    fn unpark_all(&mut self, job: JobId) {
        let all = self.swarms.get_mut(&job).map(Swarm::unpark_all).unwrap_or_default();
        self.queue_again(all);
    }

    fn queue_again(&mut self, contents: Vec<Content>) {
        for content in contents {
            if let Some(want) = self.wants.get_mut(&content).filter(|want| matches!(want.state, State::Parked)) {
                want.state = State::Queued;
                self.queue.push_back(content);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::download::Download;
    use super::super::worker::Target;
    use super::*;
    use crate::engine::testing;

    const SOURCE: DeviceId = DeviceId([9; 32]);
    const JOB: JobId = 1;
    const CHUNKS: u64 = 400;
    const CHUNK_BYTES: u64 = 100_000;
    /// Chunks that a device gives to each other one in a round.
    const PACE: usize = 8;

    struct Receiver {
        id: DeviceId,
        wants: Wants,
        here: BTreeSet<Content>,
        /// What each peer was asked for and has not given.
        open: BTreeMap<DeviceId, VecDeque<Content>>,
    }

    fn chunks() -> Vec<(u64, Content)> {
        let chunk = |number: u64| Content { size: CHUNK_BYTES, ..Content::of_chunk(&number.to_be_bytes()) };
        (0..CHUNKS).map(|number| (number * CHUNK_BYTES, chunk(number))).collect()
    }

    /// Devices that all want the same file.
    fn receivers(count: u8, file: &Arc<Download>) -> Vec<Receiver> {
        let ids: Vec<DeviceId> = (1..=count).map(|number| DeviceId([number; 32])).collect();
        let receiver = |id: &DeviceId| {
            let mut wants = Wants::new(*id);
            let peers = std::iter::once(SOURCE).chain(ids.iter().copied().filter(|other| other != id));
            let sources: Vec<Source> = peers.clone().map(|peer| Source { peer, poor: false }).collect();
            for (offset, chunk) in chunks() {
                let target = Target::At { job: JOB, file: file.clone(), offset };
                wants.add(chunk, target, &sources, (testing::path("f"), offset));
            }
            peers
                .filter(|peer| *peer != SOURCE)
                .for_each(|peer| assert_eq!(wants.join(JOB, file.content().size, peer), Some(true)));
            Receiver { id: *id, wants, here: BTreeSet::new(), open: BTreeMap::new() }
        };
        ids.iter().map(receiver).collect()
    }

    /// One round: all ask, all give some of what they were asked for, all tell what has come. How many chunks came from
    /// the source, and whether anything came at all.
    fn round(receivers: &mut [Receiver], idle: Option<DeviceId>) -> (usize, bool) {
        let offsets: BTreeMap<Content, u64> = chunks().into_iter().map(|(offset, chunk)| (chunk, offset)).collect();
        let (mut from_source, mut news) = (0, Vec::new());
        for receiver in receivers.iter_mut().filter(|r| Some(r.id) != idle) {
            let (asked, hopeless) = receiver.wants.assign(|_| Some(0));
            assert!(hopeless.is_empty());
            asked.into_iter().for_each(|(peer, items)| receiver.open.entry(peer).or_default().extend(items));
            for (peer, open) in receiver.open.iter_mut().filter(|(peer, _)| Some(**peer) != idle) {
                for chunk in open.drain(..open.len().min(PACE)).collect::<Vec<_>>() {
                    from_source += usize::from(*peer == SOURCE);
                    let bytes = Bytes::from(vec![0; CHUNK_BYTES as usize]);
                    assert!(receiver.wants.arrived(chunk, *peer, bytes).is_some());
                    assert!(receiver.wants.written(chunk).is_none());
                    assert!(receiver.here.insert(chunk), "it came twice");
                    news.push((receiver.id, chunk));
                }
            }
        }
        for receiver in receivers.iter_mut() {
            for (peer, chunk) in news.iter().filter(|(peer, _)| *peer != receiver.id) {
                receiver.wants.has(JOB, *peer, &[(offsets[chunk], CHUNK_BYTES)]);
            }
        }
        (from_source, !news.is_empty())
    }

    fn with_file(test: impl FnOnce(&Arc<Download>)) {
        let (_dir, handle, _events) = testing::folder("");
        let whole = Content { depth: 1, size: CHUNKS * CHUNK_BYTES, ..Content::of_chunk(b"whole") };
        test(&Arc::new(Download::open(&handle.root.open().unwrap(), whole, 0).unwrap()));
    }

    #[test]
    fn a_file_leaves_its_source_about_once_however_many_want_it() {
        with_file(|file| {
            for count in [2, 4, 8] {
                let mut all = receivers(count, file);
                let mut from_source = 0;
                while all.iter().any(|r| r.here.len() < CHUNKS as usize) {
                    let (sent, is_going_on) = round(&mut all, None);
                    assert!(is_going_on);
                    from_source += sent;
                }
                assert!(from_source < CHUNKS as usize * 5 / 4, "{from_source} of {CHUNKS} for {count}");
                assert!(all.iter().all(|r| r.wants.is_empty()));
            }
        });
    }

    #[test]
    fn a_partner_that_gets_no_further_holds_nobody_up() {
        with_file(|file| {
            let mut all = receivers(3, file);
            let idle = all[2].id;
            while all.iter().filter(|r| r.id != idle).any(|r| r.here.len() < CHUNKS as usize) {
                assert!(round(&mut all, Some(idle)).1);
            }
        });
    }

    #[test]
    fn what_only_a_peer_that_is_gone_would_have_given_is_asked_of_the_source() {
        with_file(|file| {
            let mut all = receivers(2, file);
            round(&mut all, None);
            let gone = all.pop().unwrap().id;
            all[0].wants.leave(gone);
            all[0].open.remove(&gone).unwrap_or_default().into_iter().for_each(|chunk| all[0].wants.requeue(chunk));
            let mut rounds = 0;
            while all[0].here.len() < CHUNKS as usize {
                rounds += 1;
                let (asked, hopeless) = all[0].wants.assign(|peer| (peer == SOURCE).then_some(0));
                assert!(hopeless.is_empty() && asked.iter().all(|(peer, _)| *peer == SOURCE) && rounds < 1000);
                asked.into_iter().for_each(|(_, items)| all[0].open.entry(SOURCE).or_default().extend(items));
                let Receiver { wants, here, open, .. } = &mut all[0];
                for chunk in open.entry(SOURCE).or_default().drain(..) {
                    assert!(wants.arrived(chunk, SOURCE, Bytes::from_static(b"x")).is_some());
                    assert!(wants.written(chunk).is_none() && here.insert(chunk));
                }
            }
        });
    }

    #[test]
    fn a_job_that_ends_leaves_nothing_behind() {
        with_file(|file| {
            let mut all = receivers(3, file);
            let wants = &mut all[0].wants;
            wants.assign(|peer| (peer != SOURCE).then_some(0));
            wants.assign(|_| Some(0));
            wants.forget(JOB);
            assert!(wants.swarms.is_empty() && wants.queue.is_empty() && !wants.is_in_swarm());
        });
    }
}
