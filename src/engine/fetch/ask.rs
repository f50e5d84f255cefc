//! Asking peers, and what to do when one does not answer.

use std::sync::PoisonError;
use std::time::Instant;

use super::state::Fetching;
use super::wants::REQUESTS_OPEN_MAX;
use super::worker::JobId;
use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::link::LinkHandle;
use crate::net::frame::{Frame, Request, WantedContent};
use crate::sync::FetchError;

impl Fetching {
    pub(super) fn not_here(&mut self, peer: DeviceId, content: Content) {
        for id in self.wants.jobs(content) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.is_poor(peer);
            }
        }
        if self.wants.is_said_to_hold(content, peer) {
            self.wants.drop_partner(peer);
        }
        self.wants.given_up(content, peer);
    }

    /// What has waited too long for its answer is asked of others: soon where there are any, or else when there is no
    /// hope left.
    pub(super) fn give_up_overdue(&mut self, now: Instant) {
        let links = self.folder.links.read().unwrap_or_else(PoisonError::into_inner).clone();
        let can_ask = |peer: DeviceId| links.contains_key(&peer) && !self.broken.contains(&peer);
        let has_other = |content: Content, peer: DeviceId| self.wants.has_other(content, peer, can_ask);
        for (peer, content) in self.open.take_overdue(now, has_other) {
            tracing::debug!(folder = %self.folder.label, peer = %peer.short(), "a request was not answered in time");
            if self.wants.drop_partner(peer) {
                self.jobs.values_mut().for_each(|job| job.is_poor(peer));
            }
            self.wants.given_up(content, peer);
        }
        // The last first: each goes to the front of the queue.
        for (peer, content) in self.open.take_lost(now).into_iter().rev() {
            self.wants.lost(content, peer, can_ask);
        }
        let is_spare = |content, peer| self.wants.has_spare_source(content, peer, can_ask);
        for (peer, content) in self.open.take_late(now, is_spare) {
            self.wants.given_up(content, peer);
        }
    }

    /// What a peer was asked for on a link that is gone is asked for anew.
    pub(super) fn requeue(&mut self, peer: DeviceId) {
        // The last first: each goes to the front of the queue.
        self.open.take_peer(peer).into_iter().rev().for_each(|content| self.wants.cut(content, peer));
    }

    /// Asks peers for what is wanted, as far as there is room.
    pub(super) fn ask(&mut self, now: Instant) {
        let mut links = self.folder.links.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (peer, link) in &links {
            let used = self.used.insert(*peer, link.clone());
            if used.is_some_and(|used| !used.is_same_link(link)) {
                self.requeue(*peer);
            }
        }
        loop {
            links.retain(|peer, _| !self.broken.contains(peer));
            let open = |peer: DeviceId| Some(paced(links.get(&peer)?, self.open.count(peer), now));
            let (asked, hopeless) = self.wants.assign(open);
            for hopeless in hopeless {
                for id in hopeless.jobs {
                    self.fail(id, &self.hopeless_error(id, hopeless.liar));
                }
            }
            let mut failed = Vec::new();
            for (peer, items) in asked {
                if !links.get(&peer).is_some_and(|link| self.request(link, items, now)) {
                    failed.push(peer);
                }
            }
            if failed.is_empty() {
                return;
            }
            for peer in failed {
                self.broken.insert(peer);
                self.requeue(peer);
            }
        }
    }

    /// Sends one request. False where the link has failed.
    fn request(&self, link: &LinkHandle, items: Vec<Content>, now: Instant) -> bool {
        link.pace.download.spend(items.iter().map(|content| content.size).sum(), now);
        let id = self.open.add(link.peer, &items, now);
        let items = items.into_iter().map(|content| WantedContent { content, hint: self.wants.hint(content) });
        let request = Request { id, folder: self.folder.id.clone(), items: items.collect() };
        let sent = link.outbox.control(&Frame::Request(request));
        if let Err(error) = &sent {
            let peer = link.peer.short();
            tracing::debug!(folder = %self.folder.label, %peer, %error, "a request could not be sent");
            link.end(&error.to_string());
        }
        sent.is_ok()
    }

    fn hopeless_error(&self, id: JobId, liar: Option<DeviceId>) -> FetchError {
        let path = self.jobs.get(&id).and_then(|job| job.orders.first()).map(|order| &order.path);
        match (liar, path) {
            (Some(liar), Some(path)) => FetchError::Problem(wrong_data(liar, path)),
            _ => FetchError::NoSource,
        }
    }
}

/// How many requests count as open with a peer: where there is a cap on what comes from it, one at a time may be added to
/// them, and none while the cap is used up.
fn paced(link: &LinkHandle, open: usize, now: Instant) -> usize {
    match (link.pace.download.is_capped(), link.pace.download.wait(now)) {
        (false, _) => open,
        (true, None) => open.max(REQUESTS_OPEN_MAX - 1),
        (true, Some(_)) => REQUESTS_OPEN_MAX,
    }
}

fn wrong_data(peer: DeviceId, path: &RelPath) -> Problem {
    let text = format!(
        "device {} sent wrong data for {path}: it is asked again later; if that goes on, check its disk",
        peer.short()
    );
    Problem::new(ProblemKind::BadBytes, text)
}
