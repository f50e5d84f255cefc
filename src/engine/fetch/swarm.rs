//! Who of those that fetch the same content asks its source for which part of it.
//!
//! Each chunk has one of them as its owner, by a rule that all of them know. Whoever owns a chunk asks the source for
//! it; the others wait until the owner says that it has it, and ask the owner. Who has nothing of its own left to ask
//! for takes over some of what others own, so nobody waits for one that is slow.

use std::collections::BTreeMap;

use super::download::RANGES_MAX;
use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::core::ranges::Ranges;

/// Others that fetch the same content, at most: each is told what this device has.
const PARTNERS_MAX: usize = 16;

/// Those that fetch one content, and what they have of it.
#[derive(Default)]
pub(super) struct Swarm {
    partners: BTreeMap<DeviceId, Ranges>,
    /// What waits for a partner to have it, by where it lies in the file.
    parked: BTreeMap<u64, Content>,
    /// How often something was taken over.
    taken: u64,
    bytes: u64,
}

impl Swarm {
    /// Of a content of so many bytes.
    pub fn of(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes up a partner. False where there are too many.
    pub fn join(&mut self, peer: DeviceId) -> bool {
        if self.partners.len() < PARTNERS_MAX || self.partners.contains_key(&peer) {
            self.partners.entry(peer).or_default();
            return true;
        }
        false
    }

    pub fn leave(&mut self, peer: DeviceId) {
        self.partners.remove(&peer);
    }

    pub fn is_partner(&self, peer: DeviceId) -> bool {
        self.partners.contains_key(&peer)
    }

    pub fn partners(&self) -> impl Iterator<Item = DeviceId> {
        self.partners.keys().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.partners.is_empty()
    }

    /// A partner has these ranges.
    pub fn has(&mut self, peer: DeviceId, ranges: &[(u64, u64)]) {
        let Some(known) = self.partners.get_mut(&peer) else { return };
        for (start, length) in ranges {
            if known.count() < RANGES_MAX {
                known.add(*start, *length);
            }
        }
    }

    /// True where a partner said that it has all of a chunk.
    pub fn holds(&self, peer: DeviceId, offset: u64, chunk: Content) -> bool {
        self.partners.get(&peer).is_some_and(|ranges| ranges.covers(offset, chunk.size))
    }

    /// True where it is for this device to ask the source for a chunk.
    pub fn owns(&self, device: DeviceId, chunk: Content) -> bool {
        let ours = weight(device, chunk);
        self.partners.keys().all(|peer| weight(*peer, chunk) < ours)
    }

    pub fn park(&mut self, offset: u64, chunk: Content) {
        self.parked.insert(offset, chunk);
    }

    /// Takes out what is parked and partners have by now.
    pub fn unpark_held(&mut self, peer: DeviceId) -> Vec<Content> {
        let Some(ranges) = self.partners.get(&peer) else { return Vec::new() };
        let is_held = |(offset, chunk): &(&u64, &Content)| ranges.covers(**offset, chunk.size);
        let held: Vec<(u64, Content)> = self.parked.iter().filter(is_held).map(|(at, chunk)| (*at, *chunk)).collect();
        self.parked.retain(|offset, chunk| !ranges.covers(*offset, chunk.size));
        held.into_iter().map(|(_, chunk)| chunk).collect()
    }

    /// Takes out all that is parked.
    pub fn unpark_all(&mut self) -> Vec<Content> {
        std::mem::take(&mut self.parked).into_values().collect()
    }

    /// Takes out something that a partner owns: from another place each time, and another one on each device, so that
    /// several that take over do not take the same.
    pub fn take_over(&mut self, device: DeviceId) -> Option<Content> {
        let last = *self.parked.last_key_value()?.0;
        self.taken += 1;
        let from = mix(prefix(&device.0).wrapping_add(self.taken)) % (last + 1);
        let at = *self.parked.range(from..).next()?.0;
        self.parked.remove(&at)
    }
}

/// The greatest weight owns a chunk: so each device owns as much as any other, and when one joins, what it owns is all
/// that changes hands.
fn weight(device: DeviceId, chunk: Content) -> (u64, DeviceId) {
    (mix(prefix(&device.0) ^ mix(prefix(&chunk.id.0))), device)
}

fn prefix(id: &[u8; 32]) -> u64 {
    id.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Spreads numbers (the last steps of MurmurHash3).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    fn chunk(number: u64) -> Content {
        Content { size: 100, ..Content::of_chunk(&number.to_be_bytes()) }
    }

    fn swarm(partners: &[u8]) -> Swarm {
        let mut swarm = Swarm::default();
        partners.iter().for_each(|number| assert!(swarm.join(device(*number))));
        swarm
    }

    #[test]
    fn every_chunk_has_one_owner_and_all_own_about_the_same() {
        let mut owned = [0; 4];
        for number in 0..4000 {
            let owners: Vec<usize> = (0..4)
                .filter(|me| {
                    let others: Vec<u8> = (0..4).filter(|other| other != me).collect();
                    swarm(&others).owns(device(*me), chunk(number))
                })
                .map(usize::from)
                .collect();
            assert_eq!(owners.len(), 1, "chunk {number}");
            owned[owners[0]] += 1;
        }
        assert!(owned.iter().all(|count| (800..1200).contains(count)), "{owned:?}");
    }

    #[test]
    fn who_joins_takes_from_the_others_and_nothing_else_changes_hands() {
        for number in 0..1000 {
            let (before, after) =
                (swarm(&[2]).owns(device(1), chunk(number)), swarm(&[2, 3]).owns(device(1), chunk(number)));
            assert!(before || !after);
        }
    }

    #[test]
    fn what_is_parked_is_asked_for_once_a_partner_has_it() {
        let mut swarm = swarm(&[2]);
        (0..10).for_each(|number| swarm.park(number * 100, chunk(number)));
        swarm.has(device(2), &[(0, 150), (300, 200)]);
        assert_eq!(swarm.unpark_held(device(2)), [chunk(0), chunk(3), chunk(4)]);
        assert!(swarm.holds(device(2), 300, chunk(3)) && !swarm.holds(device(2), 100, chunk(1)));
        assert_eq!(swarm.unpark_all().len(), 7);
    }

    #[test]
    fn no_more_partners_are_taken_up_than_can_be_told() {
        let mut swarm = Swarm::default();
        let joined = (0..100).filter(|number| swarm.join(device(*number))).count();
        assert_eq!(joined, PARTNERS_MAX);
        assert!(swarm.join(device(0)));
    }

    #[test]
    fn everything_parked_can_be_taken_over() {
        let mut swarm = swarm(&[2]);
        (0..50).for_each(|number| swarm.park(number * 100, chunk(number)));
        let mut left = 50;
        while swarm.take_over(device(1)).is_some() {
            left -= 1;
        }
        assert_eq!((left, swarm.parked.len()), (0, 0));
    }
}
