//! Wants of contents that other devices fetch at the same time; the rule is in [`super::swarm`].

use std::collections::BTreeSet;

use super::swarm::Swarm;
use super::wants::{Rooms, State, Wants, cost};
use super::worker::JobId;
use crate::core::content::Content;
use crate::core::id::DeviceId;

/// Bytes asked of a source at a time of what others own: what they ask for in the same moment comes twice.
const TAKE_OVER_BYTES: u64 = 2 * 1024 * 1024;

impl Wants {
    /// A peer fetches the content of a job too. `None` where there are too many; else true where that is news.
    pub fn join(&mut self, job: JobId, peer: DeviceId) -> Option<bool> {
        let swarm = self.swarms.entry(job).or_default();
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
        for source in want.sources.iter().filter(|s| !s.poor && is_whole(swarm, s.peer) && !want.failed.contains(&s.peer)) {
            if rooms.room(source.peer).is_none() {
                continue;
            }
            has_source = true;
            let bytes = in_flight.get(&source.peer).copied().unwrap_or_default() + cost(content);
            if bytes <= TAKE_OVER_BYTES && rooms.takes(source.peer, cost(content)) {
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
