//! Who is to be asked for something, of those that may have it.

use super::wants::{Rooms, WINDOW_BYTES, Want, Wants, cost};
use super::worker::JobId;
use crate::core::content::Content;
use crate::core::id::DeviceId;

/// Bytes asked of a peer at first, where several devices may have the same.
const WINDOW_BYTES_FIRST: u64 = 1024 * 1024;
/// Bytes asked at a time of a device that fetches the same content: the end of a file waits for no more than that.
const PARTNER_WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// What becomes of a want for now.
pub(super) enum Choice {
    Ask(DeviceId),
    /// Whoever could be asked has enough to do.
    Wait {
        for_source: bool,
    },
    Park(JobId, u64),
    Nobody,
}

/// The best of some peers: not a poor source, with the least to give.
#[derive(Default)]
struct Best {
    is_any: bool,
    found: Option<(bool, u64, DeviceId)>,
}

impl Best {
    /// One more that can be asked; `None` where it has enough to do. Of equals the first is the best.
    fn take(&mut self, offer: Option<(bool, u64, DeviceId)>) {
        self.is_any = true;
        if let Some(offer) = offer
            && self.found.is_none_or(|found| (offer.0, offer.1) < (found.0, found.1))
        {
            self.found = Some(offer);
        }
    }

    fn choice(&self, for_source: bool) -> Choice {
        match self.found {
            Some((_, _, peer)) => Choice::Ask(peer),
            None if self.is_any => Choice::Wait { for_source },
            None => Choice::Nobody,
        }
    }
}

impl Wants {
    pub(super) fn choose<F: Fn(DeviceId) -> Option<usize>>(
        &self,
        want: &Want,
        content: Content,
        rooms: &mut Rooms<F>,
    ) -> Choice {
        let cost = cost(content);
        let swarm = want.place.and_then(|place| Some((place, self.swarms.get(&place.0)?)));
        let swarm = swarm.filter(|(_, swarm)| !swarm.is_empty());
        // Of those that can be asked: any, devices that have all of the content as far as is known, partners with this.
        let (mut any, mut whole, mut partner) = (Best::default(), Best::default(), Best::default());
        for source in want.sources.iter().filter(|s| !want.failed.contains(&s.peer)) {
            if rooms.room(source.peer).is_none() {
                continue;
            }
            let in_flight = self.in_flight.get(&source.peer).copied().unwrap_or_default();
            let fits = |most: u64| (in_flight == 0 || in_flight + cost <= most) && rooms.takes(source.peer, cost);
            let offer = (fits(self.window(want, source.peer))).then_some((source.poor, in_flight, source.peer));
            any.take(offer);
            let Some(((_, offset), swarm)) = swarm else { continue };
            if swarm.holds(source.peer, offset, content) {
                let has_room = fits(PARTNER_WINDOW_BYTES);
                partner.take(offer.filter(|_| has_room).map(|(_, bytes, peer)| (false, bytes, peer)));
            } else if !swarm.is_partner(source.peer) && !source.poor {
                whole.take(offer);
            }
        }
        match swarm {
            Some(_) if partner.is_any => partner.choice(false),
            Some((_, swarm)) if whole.is_any && swarm.owns(self.own, content) => whole.choice(true),
            Some(((job, offset), _)) if whole.is_any => Choice::Park(job, offset),
            _ => any.choice(true),
        }
    }

    /// Bytes that a peer may have to give at a time. Where several may have the same, little at first: who else fetches
    /// it turns out soon, and what is asked for by then comes from its source to each of them.
    fn window(&self, want: &Want, peer: DeviceId) -> u64 {
        let came = || self.came.get(&peer).copied().unwrap_or_default();
        let is_shared = want.place.is_some() && want.sources.len() > 1;
        if is_shared { WINDOW_BYTES.min(WINDOW_BYTES_FIRST + 2 * came()) } else { WINDOW_BYTES }
    }
}
