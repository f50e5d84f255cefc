//! Telling others that fetch the same content what of it is here, and hearing that of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::download::Download;
use super::job::{Job, Progress};
use super::state::Fetching;
use super::worker::JobId;
use crate::core::action::WorkId;
use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::ranges::Ranges;
use crate::engine::allowance::Allowance;
use crate::net::bounds::HAVE_RANGES_MAX;
use crate::net::frame::{Frame, Have};

/// Contents of fewer bytes are not worth telling of: they are here before anybody could ask.
const SHARED_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// What has come is told once it is so many bytes, or after so long.
const NEWS_BYTES: u64 = 512 * 1024;
const NEWS_AFTER: Duration = Duration::from_millis(100);
/// A partner that has begun anew is told all again, so many times at once and once more after each such while: a network
/// that breaks down again and again is no reason for more.
const ALL_AT_ONCE: u32 = 5;
const ALL_EVERY: Duration = Duration::from_secs(10);
/// Partners of which that is remembered, until jobs that are over are left out.
const TOLD_ALL_MAX: usize = 1024;
/// Complete files that are served from the stage until they are in place; each keeps a file handle.
const COMPLETE_SERVED_MAX: usize = 32;

/// What others know of.
#[derive(Default)]
pub(super) struct Shared {
    /// When each job's partners were last told what has come.
    told: BTreeMap<JobId, Instant>,
    /// How often each partner of a job may still be told all of it again.
    told_all: BTreeMap<(JobId, DeviceId), Allowance>,
    /// Paths under which downloads are served, by the work that they are for.
    served: BTreeMap<WorkId, RelPath>,
}

impl Shared {
    fn may_tell_all(&mut self, job: JobId, peer: DeviceId, now: Instant) -> bool {
        self.told_all.entry((job, peer)).or_insert(Allowance::new(ALL_AT_ONCE, ALL_EVERY)).take(now)
    }
}

impl Fetching {
    /// True where others wait for news.
    pub(super) fn is_shared(&self) -> bool {
        self.wants.is_in_swarm()
    }

    /// The staged file of a job is open: whoever may fetch the same learns of it.
    pub(super) fn opened(&mut self, id: JobId, download: &Arc<Download>) {
        let Some(job) = self.jobs.get(&id).filter(|job| is_worth_it(job)) else { return };
        for order in &job.orders {
            self.folder.downloads.add(order.path.clone(), download.clone());
            self.shared.served.insert(order.work, order.path.clone());
        }
        let (content, peers) = (job.content, job.sources.iter().map(|s| s.peer).collect::<Vec<_>>());
        if peers.len() < 2 {
            // There is nobody else who could fetch it.
            return;
        }
        peers.into_iter().for_each(|peer| self.tell_have(peer, content, Vec::new()));
    }

    /// A peer is there now, and may fetch the same.
    pub(super) fn greet(&mut self, peer: DeviceId) {
        let is_running = |job: &&Job| is_worth_it(job) && matches!(job.progress, Progress::Large(_));
        let contents: Vec<Content> = self.jobs.values().filter(is_running).map(|job| job.content).collect();
        contents.into_iter().for_each(|content| self.tell_have(peer, content, Vec::new()));
    }

    /// A peer fetches a content too, and has these parts of it.
    pub(super) fn heard_have(&mut self, peer: DeviceId, have: &Have) {
        let Some(id) = self.by_content.get(&have.content).copied() else { return };
        if self.shared.told_all.len() >= TOLD_ALL_MAX {
            self.shared.told_all.retain(|(job, _), _| self.jobs.contains_key(job));
        }
        let Some(job) = self.jobs.get_mut(&id).filter(|job| is_worth_it(job)) else { return };
        let Some(large) = job.large() else { return };
        let Some(is_news) = self.wants.join(id, have.content.size, peer) else { return };
        let is_due =
            is_news || have.ranges.is_empty() && self.shared.may_tell_all(id, peer, self.folder.clock.instant());
        let done = if is_due { large.file.done() } else { Ranges::default() };
        if is_news {
            large.share();
            job.add_sources(&[peer]);
            self.wants.renew(id, &[peer]);
        }
        // Who has begun anew has forgotten what it was told.
        if is_news || !done.is_empty() {
            self.tell_have(peer, have.content, done.iter().collect());
        }
        self.wants.has(id, peer, &have.ranges);
        self.advance(id);
    }

    /// Tells what has come since.
    pub(super) fn tell_news(&mut self, now: Instant) {
        if !self.is_shared() {
            return;
        }
        let running: Vec<(JobId, Content, Arc<Download>)> =
            self.jobs.values_mut().filter_map(|job| Some((job.id, job.content, job.large()?.file.clone()))).collect();
        for (id, content, download) in running {
            let partners = self.wants.partners(id);
            if partners.is_empty() {
                continue;
            }
            let told = self.shared.told.entry(id).or_insert(now);
            let bytes_min = if now.saturating_duration_since(*told) >= NEWS_AFTER { 1 } else { NEWS_BYTES };
            if let Some(news) = download.take_news(bytes_min) {
                *told = now;
                let news: Vec<(u64, u64)> = news.iter().collect();
                partners.into_iter().for_each(|peer| self.tell_have(peer, content, news.clone()));
            }
        }
    }

    /// All of a job's content is here: partners get it from the stage until it is in place.
    pub(super) fn completed(&mut self, id: JobId, download: &Arc<Download>) {
        let partners = self.wants.partners(id);
        let whole = vec![(0, download.content().size)];
        partners.iter().for_each(|peer| self.tell_have(*peer, download.content(), whole.clone()));
        self.wants.end_swarm(id);
        self.shared.told.remove(&id);
        self.shared.told_all.retain(|(job, _), _| *job != id);
        if partners.is_empty() || self.folder.downloads.count() > COMPLETE_SERVED_MAX {
            let works: Vec<WorkId> = self.jobs.get(&id).into_iter().flat_map(works_of).collect();
            works.into_iter().for_each(|work| self.no_longer_served(work));
        }
    }

    /// A work is over: its file is served from its place, or not at all.
    pub(super) fn no_longer_served(&mut self, work: WorkId) {
        if let Some(path) = self.shared.served.remove(&work) {
            self.folder.downloads.remove(&path);
        }
    }

    /// Tells a peer of the folder, if it is connected. One that is too slow to take it in is dropped like for any other
    /// frame.
    fn tell_have(&self, peer: DeviceId, content: Content, ranges: Vec<(u64, u64)>) {
        let links = self.folder.links.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(link) = links.get(&peer).filter(|_| !self.broken.contains(&peer)).cloned() else { return };
        drop(links);
        let parts: Vec<&[(u64, u64)]> =
            if ranges.is_empty() { vec![&[]] } else { ranges.chunks(HAVE_RANGES_MAX).collect() };
        for part in parts {
            let have = Have { folder: self.folder.id.clone(), content, ranges: part.to_vec() };
            if let Err(error) = link.outbox.control(&Frame::Have(have)) {
                tracing::debug!(folder = %self.folder.label, peer = %peer.short(), %error, "a have could not be sent");
                return link.end(&error.to_string());
            }
        }
    }
}

fn works_of(job: &Job) -> Vec<WorkId> {
    job.orders.iter().map(|order| order.work).collect()
}

/// True where others that fetch the same can be of use.
fn is_worth_it(job: &Job) -> bool {
    job.content.depth > 0 && job.content.size >= SHARED_BYTES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_that_says_again_and_again_that_it_has_nothing_is_told_all_at_a_moderate_pace() {
        let (mut shared, now) = (Shared::default(), Instant::now());
        let (peer, other) = (DeviceId([2; 32]), DeviceId([3; 32]));
        assert!((0..ALL_AT_ONCE).all(|_| shared.may_tell_all(1, peer, now)));
        assert!(!shared.may_tell_all(1, peer, now));
        assert!(shared.may_tell_all(2, peer, now) && shared.may_tell_all(1, other, now));
        assert!(shared.may_tell_all(1, peer, now + ALL_EVERY));
        assert!(!shared.may_tell_all(1, peer, now + ALL_EVERY));
    }
}
