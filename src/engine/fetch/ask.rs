//! Asking peers, and what to do when one does not answer.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use super::state::Fetching;
use super::worker::JobId;
use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::net::frame::{Frame, Request, WantedContent};
use crate::net::outbox::Outbox;
use crate::sync::FetchError;

impl Fetching {
    pub(super) fn not_here(&mut self, peer: DeviceId, content: Content) {
        for id in self.wants.jobs(content) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.is_poor(peer);
            }
        }
        self.wants.refused(content, peer, false);
    }

    /// What a peer was asked for on a link that is gone is asked for anew.
    pub(super) fn requeue(&mut self, peer: DeviceId) {
        // The last first: each goes to the front of the queue.
        self.open.take_peer(peer).into_iter().rev().for_each(|content| self.wants.requeue(content));
    }

    /// Asks peers for what is wanted, as far as there is room.
    pub(super) fn ask(&mut self, now: Instant) {
        let mut outboxes: BTreeMap<DeviceId, Outbox> = {
            let links = self.folder.links.read().unwrap_or_else(PoisonError::into_inner);
            links.iter().map(|(peer, link)| (*peer, link.outbox.clone())).collect()
        };
        loop {
            outboxes.retain(|peer, _| !self.broken.contains(peer));
            let open = |peer: DeviceId| outboxes.contains_key(&peer).then(|| self.open.count(peer));
            let (asked, hopeless) = self.wants.assign(open);
            for hopeless in hopeless {
                for id in hopeless.jobs {
                    self.fail(id, &self.hopeless_error(id, hopeless.liar));
                }
            }
            let failed: Vec<DeviceId> =
                asked.into_iter().filter_map(|(peer, items)| self.request(peer, items, &outboxes, now)).collect();
            if failed.is_empty() {
                return;
            }
            for peer in failed {
                self.broken.insert(peer);
                self.requeue(peer);
            }
        }
    }

    /// Sends one request. Says the peer where its link has failed.
    fn request(
        &self,
        peer: DeviceId,
        items: Vec<Content>,
        outboxes: &BTreeMap<DeviceId, Outbox>,
        now: Instant,
    ) -> Option<DeviceId> {
        let id = self.open.add(peer, &items, now);
        let items =
            items.into_iter().map(|content| WantedContent { content, hint: self.wants.hint(content) }).collect();
        let frame = Frame::Request(Request { id, folder: self.folder.id.clone(), items });
        let sent = outboxes.get(&peer).map(|outbox| outbox.control(&frame));
        if let Some(Err(error)) = &sent {
            tracing::debug!(folder = %self.folder.label, peer = %peer.short(), %error, "a request could not be sent");
        }
        (!matches!(sent, Some(Ok(())))).then_some(peer)
    }

    fn hopeless_error(&self, id: JobId, liar: Option<DeviceId>) -> FetchError {
        let path = self.jobs.get(&id).and_then(|job| job.orders.first()).map(|order| &order.path);
        match (liar, path) {
            (Some(liar), Some(path)) => FetchError::Problem(wrong_data(liar, path)),
            _ => FetchError::NoSource,
        }
    }
}

fn wrong_data(peer: DeviceId, path: &RelPath) -> Problem {
    let text = format!(
        "device {} sent wrong data for {path}: it is asked again later; if that goes on, check its disk",
        peer.short()
    );
    Problem::new(ProblemKind::BadBytes, text)
}
