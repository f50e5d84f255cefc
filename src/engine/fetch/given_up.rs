//! What peers were asked for and are no longer waited for. Nothing takes a request back, so its answers may still come: they
//! are used where nobody else was asked meanwhile, and show that the peer is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::content::Content;
use crate::core::id::DeviceId;

/// Requests of one folder to a peer that are remembered: twice as many as are open at once. The oldest go first.
const REQUESTS_MAX: usize = 64;
/// How long they are remembered: all that is asked of one peer at once, over a line of 30 kB/s.
const LIFE: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Default)]
pub(super) struct GivenUp(BTreeMap<(DeviceId, u32), Request>);

struct Request {
    since: Instant,
    items: BTreeMap<u16, Content>,
}

impl GivenUp {
    /// An item of a request is no longer waited for.
    pub fn add(&mut self, request: (DeviceId, u32), at: usize, content: Content, now: Instant) {
        let Ok(at) = u16::try_from(at) else { return };
        if !self.0.contains_key(&request) {
            self.0.retain(|_, request| now.saturating_duration_since(request.since) < LIFE);
            let of_peer = (request.0, 0)..=(request.0, u32::MAX);
            if self.0.range(of_peer.clone()).count() >= REQUESTS_MAX
                && let Some(oldest) = self.0.range(of_peer).next().map(|(key, _)| *key)
            {
                self.0.remove(&oldest);
            }
        }
        let entry = self.0.entry(request).or_insert_with(|| Request { since: now, items: BTreeMap::new() });
        entry.items.insert(at, content);
    }

    /// True where some of a request was given up and has not come.
    pub fn contains(&self, request: (DeviceId, u32)) -> bool {
        self.0.contains_key(&request)
    }

    /// An item has come after all.
    pub fn take(&mut self, request: (DeviceId, u32), at: u16) -> Option<Content> {
        let items = &mut self.0.get_mut(&request)?.items;
        let content = items.remove(&at)?;
        if items.is_empty() {
            self.0.remove(&request);
        }
        Some(content)
    }

    /// Nothing comes any more from a peer.
    pub fn forget(&mut self, peer: DeviceId) {
        self.0.retain(|(of, _), _| *of != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);
    const OTHER: DeviceId = DeviceId([2; 32]);

    #[test]
    fn as_many_requests_of_a_peer_are_remembered_as_are_open_twice_and_for_a_while() {
        let mut given_up = GivenUp::default();
        let (start, content) = (Instant::now(), Content::of_chunk(b"a"));
        given_up.add((OTHER, 0), 0, content, start);
        (0..=REQUESTS_MAX as u32).for_each(|id| given_up.add((PEER, id), 3, content, start));
        assert!(!given_up.contains((PEER, 0)) && given_up.contains((PEER, 1)) && given_up.contains((OTHER, 0)));
        assert_eq!((given_up.take((PEER, 1), 2), given_up.take((PEER, 1), 3)), (None, Some(content)));
        assert!(!given_up.contains((PEER, 1)));
        given_up.add((PEER, 1000), 0, content, start + LIFE);
        assert!(given_up.contains((PEER, 1000)) && !given_up.contains((PEER, 2)) && !given_up.contains((OTHER, 0)));
        given_up.forget(PEER);
        assert!(!given_up.contains((PEER, 1000)));
    }
}
