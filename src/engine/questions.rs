//! Peers' questions about the past, one at a time for each peer: one is answered, one waits, and no more come than a
//! person asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use crate::core::id::DeviceId;
use crate::net::frame::AskPast;

/// Questions of one peer that are answered without a pause: somebody looks through his files.
pub const QUESTIONS_AT_ONCE: u32 = 30;
/// After that one more is answered each such while.
pub const QUESTION_EVERY: Duration = Duration::from_millis(500);
/// Peers whose questions are answered at the same time; each costs a thread and a look into the index.
pub const ANSWERS_MAX: usize = 4;
/// Peers that are remembered: more than a folder is shared with.
const PEERS_MAX: usize = 1024;

/// Who has asked what.
#[derive(Default)]
pub struct Questions {
    peers: BTreeMap<DeviceId, Asker>,
}

struct Asker {
    allowance: Allowance,
    is_answered: bool,
    waiting: Option<AskPast>,
}

impl Questions {
    /// Takes up a question. Returns it where it is to be answered now; then [`Questions::next`] is to be called after that.
    /// What is too much is dropped: whoever asks does not wait for long anyway.
    pub fn take_up(&mut self, peer: DeviceId, ask: AskPast, now: Instant) -> Option<AskPast> {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, asker| asker.is_answered);
        }
        let is_room = self.peers.values().filter(|asker| asker.is_answered).count() < ANSWERS_MAX;
        let asker = self.peers.entry(peer).or_insert_with(|| Asker {
            allowance: Allowance::new(QUESTIONS_AT_ONCE, QUESTION_EVERY),
            is_answered: false,
            waiting: None,
        });
        if asker.is_answered {
            if asker.waiting.is_none() && asker.allowance.take(now) {
                asker.waiting = Some(ask);
            }
            return None;
        }
        asker.is_answered = is_room && asker.allowance.take(now);
        asker.is_answered.then_some(ask)
    }

    /// A question of the peer has been answered. Returns the one to be answered next.
    pub fn next(&mut self, peer: DeviceId) -> Option<AskPast> {
        let asker = self.peers.get_mut(&peer)?;
        let next = asker.waiting.take();
        asker.is_answered = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([2; 32]);

    fn ask(id: u32) -> AskPast {
        AskPast { id, folder: "test".parse().unwrap(), path: None }
    }

    #[test]
    fn of_one_peer_one_question_is_answered_and_one_waits() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let mut take_up = |id| questions.take_up(PEER, ask(id), now).map(|ask| ask.id);
        assert_eq!([take_up(1), take_up(2), take_up(3)], [Some(1), None, None]);
        assert_eq!(questions.next(PEER).map(|ask| ask.id), Some(2));
        assert_eq!(questions.take_up(PEER, ask(4), now), None);
        assert_eq!(questions.next(PEER).map(|ask| ask.id), Some(4));
        assert_eq!(questions.next(PEER), None);
        assert_eq!(questions.take_up(PEER, ask(5), now).map(|ask| ask.id), Some(5));
    }

    #[test]
    fn a_peer_that_asks_on_and_on_is_answered_at_a_moderate_pace() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let mut is_answered = |now| {
            let is_taken = questions.take_up(PEER, ask(1), now).is_some();
            questions.next(PEER);
            is_taken
        };
        assert!((0..QUESTIONS_AT_ONCE).all(|_| is_answered(now)));
        assert!(!is_answered(now));
        assert!(is_answered(now + QUESTION_EVERY));
        assert!(!is_answered(now + QUESTION_EVERY));
    }

    #[test]
    fn no_more_peers_are_answered_at_a_time_than_there_is_room_for_and_none_keeps_another_waiting_for_ever() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let peer = |n: usize| DeviceId([n as u8; 32]);
        assert!((0..ANSWERS_MAX).all(|n| questions.take_up(peer(n), ask(1), now).is_some()));
        assert_eq!(questions.take_up(peer(ANSWERS_MAX), ask(1), now), None);
        assert_eq!(questions.next(peer(0)), None);
        assert!(questions.take_up(peer(ANSWERS_MAX), ask(1), now).is_some());
    }
}
