//! How many haves wait for the fetching thread: they are a help, so those of a peer that says too much are dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::id::DeviceId;

/// Haves of all peers that wait for the thread, each of some 16 KiB at most.
const WAITING_MAX: usize = 256;
/// Those of one peer, so that none keeps the others from being heard.
const WAITING_OF_PEER_MAX: usize = 64;

/// Counts what waits, by the peer that said it.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<BTreeMap<DeviceId, usize>>>);

/// One that waits, from its coming until it has been dealt with.
pub(super) struct Waiting {
    room: Room,
    peer: DeviceId,
}

impl Room {
    /// `None` where there is no room for another one of this peer.
    pub fn enter(&self, peer: DeviceId) -> Option<Waiting> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&peer).copied().unwrap_or_default();
        if own >= WAITING_OF_PEER_MAX || counts.values().sum::<usize>() >= WAITING_MAX {
            return None;
        }
        counts.insert(peer, own + 1);
        Some(Waiting { room: self.clone(), peer })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut counts = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_says_too_much_leaves_room_for_others() {
        let room = Room::default();
        let enter = |peer: u8| room.enter(DeviceId([peer; 32]));
        let mut waiting: Vec<Waiting> = (0..WAITING_OF_PEER_MAX).map(|_| enter(1).unwrap()).collect();
        assert!(enter(1).is_none());
        waiting.push(enter(2).unwrap());
        waiting.remove(0);
        waiting.push(enter(1).unwrap());
        assert!(enter(1).is_none());
        waiting.extend((3..20).flat_map(|peer| (0..WAITING_MAX).map_while(move |_| enter(peer)).collect::<Vec<_>>()));
        assert_eq!(waiting.len(), WAITING_MAX);
        drop(waiting);
        assert!(room.0.lock().unwrap().is_empty());
    }
}
