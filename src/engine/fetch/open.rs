//! What peers have been asked for and have not answered yet.
//!
//! Shared with whoever reads from peers: only what was asked for comes in, once, and from the peer that was asked. So
//! what waits to be written is bounded by the windows, whatever a peer sends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::core::content::{Content, LIST_BYTES_MAX};
use crate::core::id::DeviceId;
use crate::net::frame::Chunks;

/// A peer that was asked and sends nothing at all for so long is as good as gone.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// A request takes this long at most, also at a peer that sends other things meanwhile.
const REQUEST_LIFE: Duration = Duration::from_secs(600);

/// The same where another peer has it too: a chunk of the largest size over a slow link comes within this time.
const SILENCE_WITH_OTHERS: Duration = Duration::from_secs(15);
/// How long a request takes at most where another peer has it too: all that is asked of one peer at once, at a
/// megabit or two.
const REQUEST_LIFE_WITH_OTHERS: Duration = Duration::from_secs(60);

/// A device that fetches the same content, and takes so long for what it was asked for, is helped where the content's
/// source has nothing else to give.
const LATE: Duration = Duration::from_secs(3);

/// After one of several connections was lost its answers are waited for this long, should they come over another one, and
/// then asked for anew where a later request is being answered.
const LOST: Duration = Duration::from_secs(3);

/// What was passed over for so long by answers to later requests is asked for anew: the connection that it should come over
/// hangs, while others go on.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// Ids of requests are unique in the whole agent, so that an answer finds its folder.
static NEXT_REQUEST: AtomicU32 = AtomicU32::new(1);

/// See the module.
#[derive(Default)]
pub(super) struct OpenRequests(Mutex<State>);

#[derive(Default)]
struct State {
    requests: HashMap<(DeviceId, u32), OpenRequest>,
    /// When a peer last sent something that it had been asked for.
    heard: HashMap<DeviceId, Instant>,
    /// The latest request to each peer that it has answered a part of. Requests are answered in their order.
    latest: HashMap<DeviceId, u32>,
}

struct OpenRequest {
    asked: Instant,
    /// `None` for what has been answered.
    items: Vec<Option<Content>>,
    /// When a connection was lost over which the answer may have come.
    lane_lost: Option<Instant>,
    /// When it was seen that a later request is being answered.
    passed_over: Option<Instant>,
}

impl OpenRequests {
    /// Notes what a peer is about to be asked for: the id of the request.
    pub fn add(&self, peer: DeviceId, items: &[Content], now: Instant) -> u32 {
        let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
        let items = items.iter().copied().map(Some).collect();
        self.lock().requests.insert((peer, id), OpenRequest { asked: now, items, lane_lost: None, passed_over: None });
        id
    }

    /// True where an answer of this peer to this request is waited for.
    pub fn expects(&self, peer: DeviceId, request: u32) -> bool {
        self.lock().requests.contains_key(&(peer, request))
    }

    /// True where nobody has been asked for anything.
    pub fn is_empty(&self) -> bool {
        self.lock().requests.is_empty()
    }

    /// How many requests a peer has still to answer.
    pub fn count(&self, peer: DeviceId) -> usize {
        self.lock().requests.keys().filter(|(to, _)| *to == peer).count()
    }

    /// Takes those of a peer's chunks that it was asked for. What is longer than asked for is cut to nothing, so that
    /// it fails its check.
    pub fn take_chunks(&self, peer: DeviceId, chunks: Chunks, now: Instant) -> Vec<(Content, Bytes)> {
        let mut state = self.lock();
        let bounded = |content: Content, bytes: Bytes| {
            let most = if content.depth == 0 { content.size } else { LIST_BYTES_MAX as u64 };
            (content, if bytes.len() as u64 > most { Bytes::new() } else { bytes })
        };
        if state.requests.contains_key(&(peer, chunks.request)) {
            let latest = state.latest.entry(peer).or_default();
            *latest = chunks.request.max(*latest);
        }
        let sent: usize = chunks.items.iter().map(|(_, bytes)| bytes.len()).sum();
        let items = chunks.items.into_iter();
        let mut taken: Vec<(Content, Bytes)> =
            items.filter_map(|(at, b)| Some(bounded(state.take(peer, chunks.request, at, now)?, b))).collect();
        if taken.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < sent {
            // All of a frame stays in memory as long as a part of it does.
            taken.iter_mut().for_each(|(_, bytes)| *bytes = Bytes::copy_from_slice(bytes));
        }
        taken
    }

    /// Takes those items that a peer was asked for and says not to have.
    pub fn take_not_here(&self, peer: DeviceId, request: u32, items: &[u16], now: Instant) -> Vec<Content> {
        let mut state = self.lock();
        items.iter().filter_map(|at| state.take(peer, request, *at, now)).collect()
    }

    /// Gives up on a peer: all that it has not answered.
    pub fn take_peer(&self, peer: DeviceId) -> Vec<Content> {
        let mut state = self.lock();
        let mut taken: Vec<_> = state.requests.extract_if(|(to, _), _| *to == peer).collect();
        taken.sort_by_key(|((_, id), r)| (r.asked, *id));
        taken.into_iter().flat_map(|(_, r)| r.items).flatten().collect()
    }

    /// One of several connections with a peer was lost: answers that it has sent may not come.
    pub fn lane_lost(&self, peer: DeviceId, now: Instant) {
        let mut state = self.lock();
        state.requests.iter_mut().filter(|((to, _), _)| *to == peer).for_each(|(_, r)| r.lane_lost = Some(now));
    }

    /// Gives up on answers that were lost with a connection, or hang with one. Most that were asked for by then still come
    /// over the others: only what has been passed over is lost, or all where nothing comes any more.
    pub fn take_lost(&self, now: Instant) -> Vec<Content> {
        let mut state = self.lock();
        let State { requests, heard, latest } = &mut *state;
        let is_over = |since: Option<Instant>, time| since.is_some_and(|at| now.saturating_duration_since(at) >= time);
        let is_lost = |(peer, id): &(DeviceId, u32), request: &mut OpenRequest| {
            if latest.get(peer).is_some_and(|latest| latest > id) {
                request.passed_over.get_or_insert(now);
            }
            let is_silent = is_over(heard.get(peer).copied().or(request.lane_lost), LOST);
            let is_passed_over = request.passed_over.is_some();
            is_over(request.passed_over, PASSED_OVER)
                || is_over(request.lane_lost, LOST) && (is_passed_over || is_silent)
        };
        let mut taken: Vec<_> = requests.extract_if(is_lost).collect();
        taken.sort_by_key(|((_, id), r)| (r.asked, *id));
        taken.into_iter().flat_map(|(_, r)| r.items).flatten().collect()
    }

    /// Gives up on what has waited too long: who was asked for what. `has_other` says where another than the peer that
    /// was asked can be; there it is not waited for as long.
    pub fn take_overdue(
        &self,
        now: Instant,
        has_other: impl Fn(Content, DeviceId) -> bool,
    ) -> Vec<(DeviceId, Content)> {
        let mut state = self.lock();
        let State { requests, heard, .. } = &mut *state;
        let mut overdue = Vec::new();
        requests.retain(|(peer, _), request| {
            let since = heard.get(peer).copied().unwrap_or(request.asked).max(request.asked);
            let silent = now.saturating_duration_since(since);
            let open = now.saturating_duration_since(request.asked);
            let is_over = silent >= SILENCE || open >= REQUEST_LIFE;
            if is_over || silent >= SILENCE_WITH_OTHERS || open >= REQUEST_LIFE_WITH_OTHERS {
                for item in &mut request.items {
                    overdue.extend(item.take_if(|content| is_over || has_other(*content, *peer)).map(|c| (*peer, c)));
                }
            }
            request.items.iter().any(Option::is_some)
        });
        overdue
    }

    /// Gives up on what was asked for long ago where `is_spare` says that another one has it and nothing to do.
    pub fn take_late(&self, now: Instant, is_spare: impl Fn(Content, DeviceId) -> bool) -> Vec<(DeviceId, Content)> {
        let mut late = Vec::new();
        self.lock().requests.retain(|(peer, _), request| {
            if now.saturating_duration_since(request.asked) >= LATE {
                for item in &mut request.items {
                    late.extend(item.take_if(|content| is_spare(*content, *peer)).map(|content| (*peer, content)));
                }
            }
            request.items.iter().any(Option::is_some)
        });
        late
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, peer: DeviceId, request: u32, at: u16, now: Instant) -> Option<Content> {
        let open = self.requests.get_mut(&(peer, request))?;
        let content = open.items.get_mut(usize::from(at))?.take()?;
        if open.items.iter().all(Option::is_none) {
            self.requests.remove(&(peer, request));
        }
        self.heard.insert(peer, now);
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);
    const OTHER: DeviceId = DeviceId([2; 32]);

    fn chunks(request: u32, items: &[(u16, &'static [u8])]) -> Chunks {
        Chunks { request, items: items.iter().map(|(at, b)| (*at, Bytes::from_static(b))).collect() }
    }

    fn nobody_else(_: Content, _: DeviceId) -> bool {
        false
    }

    #[test]
    fn only_what_was_asked_for_comes_in_and_only_once() {
        let open = OpenRequests::default();
        let now = Instant::now();
        let wanted = [Content::of_chunk(b"one"), Content::of_chunk(b"two")];
        let id = open.add(PEER, &wanted, now);
        assert!(open.expects(PEER, id) && !open.expects(OTHER, id) && !open.expects(PEER, id.wrapping_sub(1)));
        assert_eq!(open.take_chunks(OTHER, chunks(id, &[(0, b"one")]), now), []);
        assert_eq!(open.take_chunks(PEER, chunks(id.wrapping_sub(1), &[(0, b"one")]), now), []);
        let sent = chunks(id, &[(0, b"one"), (0, b"one"), (2, b"x")]);
        assert_eq!(open.take_chunks(PEER, sent, now), [(wanted[0], Bytes::from_static(b"one"))]);
        let too_long = chunks(id, &[(1, b"two and more")]);
        assert_eq!(open.count(PEER), 1);
        assert_eq!(open.take_chunks(PEER, too_long, now), [(wanted[1], Bytes::new())]);
        assert_eq!((open.count(PEER), open.expects(PEER, id)), (0, false));
    }

    #[test]
    fn after_a_connection_was_lost_only_what_was_passed_over_is_asked_for_anew() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let wanted: Vec<Content> = (0..4u8).map(|n| Content::of_chunk(&[n])).collect();
        let ids: Vec<u32> = wanted.iter().map(|content| open.add(PEER, &[*content], start)).collect();
        let others = open.add(OTHER, &wanted[..1], start);
        open.lane_lost(PEER, start);
        let soon = start + LOST / 2;
        assert_eq!(open.take_chunks(PEER, chunks(ids[0], &[(0, &[0])]), soon).len(), 1);
        assert_eq!(open.take_lost(soon), []);
        // The third is answered, the second was not.
        assert_eq!(open.take_chunks(PEER, chunks(ids[2], &[(0, &[2])]), start + LOST).len(), 1);
        let later = open.add(PEER, &wanted[..1], start + LOST);
        assert_eq!(open.take_lost(start + LOST), [wanted[1]]);
        assert!(!open.expects(PEER, ids[1]) && open.expects(PEER, ids[3]) && open.expects(OTHER, others));
        // Nothing comes any more.
        assert_eq!(open.take_lost(start + LOST * 2), [wanted[3]]);
        assert!(open.expects(PEER, later));
    }

    #[test]
    fn what_hangs_while_later_requests_are_answered_is_asked_for_anew_after_a_while() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let wanted: Vec<Content> = (0..3u8).map(|n| Content::of_chunk(&[n])).collect();
        let ids: Vec<u32> = wanted.iter().map(|content| open.add(PEER, &[*content], start)).collect();
        assert_eq!(open.take_lost(start + PASSED_OVER), []);
        // That something is not there is told before other answers, and passes none of them over.
        assert_eq!(open.take_not_here(PEER, ids[2], &[0], start), [wanted[2]]);
        assert_eq!(open.take_lost(start), []);
        let ids = [ids[0], ids[1], open.add(PEER, &wanted[2..], start)];
        assert_eq!(open.take_chunks(PEER, chunks(ids[1], &[(0, &[1])]), start).len(), 1);
        assert_eq!(open.take_lost(start), []);
        assert_eq!(open.take_lost(start + PASSED_OVER - Duration::from_millis(1)), []);
        assert_eq!(open.take_lost(start + PASSED_OVER), [wanted[0]]);
        assert!(open.expects(PEER, ids[2]));
    }

    #[test]
    fn a_silent_peer_and_a_request_that_takes_for_ever_are_given_up() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let wanted = [Content::of_chunk(b"a"), Content::of_chunk(b"b"), Content::of_chunk(b"c")];
        let id = open.add(PEER, &wanted, start);
        let mut at = start + SILENCE - Duration::from_secs(1);
        assert_eq!(open.take_overdue(at, nobody_else), []);
        assert_eq!(open.take_not_here(PEER, id, &[1], at), [wanted[1]]);
        at += SILENCE;
        assert_eq!(open.take_overdue(at, nobody_else), [(PEER, wanted[0]), (PEER, wanted[2])]);
        let first = open.add(PEER, &wanted[..1], at);
        let later = at + REQUEST_LIFE;
        let second = open.add(PEER, &wanted[1..], later - Duration::from_secs(2));
        open.take_not_here(PEER, second, &[0], later - Duration::from_secs(1));
        assert_eq!(open.take_overdue(later, nobody_else), [(PEER, wanted[0])]);
        assert!(!open.expects(PEER, first) && open.expects(PEER, second));
        assert_eq!(open.take_peer(OTHER), []);
        assert_eq!(open.take_peer(PEER), [wanted[2]]);
    }

    #[test]
    fn what_another_peer_has_too_is_waited_for_less_long() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let (shared, only) = (Content::of_chunk(b"a"), Content::of_chunk(b"b"));
        let has_other = |content: Content, peer: DeviceId| content == shared && peer == PEER;
        let id = open.add(PEER, &[shared, only], start);
        assert_eq!(open.take_overdue(start + SILENCE_WITH_OTHERS - Duration::from_millis(1), has_other), []);
        assert_eq!(open.take_overdue(start + SILENCE_WITH_OTHERS, has_other), [(PEER, shared)]);
        assert!(open.expects(PEER, id));
        // One that gives little by little does not keep the rest to itself either.
        let id = open.add(PEER, &[only, shared], start);
        let soon = REQUEST_LIFE_WITH_OTHERS - Duration::from_millis(1);
        assert_eq!(open.take_not_here(PEER, id, &[0], start + soon), [only]);
        assert_eq!(open.take_overdue(start + soon, has_other), []);
        assert_eq!(open.take_overdue(start + REQUEST_LIFE_WITH_OTHERS, has_other), [(PEER, shared)]);
        assert!(!open.expects(PEER, id));
    }
}
