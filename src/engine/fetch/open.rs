//! What peers have been asked for and have not answered yet.
//!
//! Shared with whoever reads from peers: only what was asked for comes in, once, and from the peer that was asked. So
//! what waits to be written is bounded by the windows, whatever a peer sends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::given_up::GivenUp;
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
/// The same where the peer has not sent anything yet, by which it would be known how long it takes for a frame.
const LOST_UNHEARD: Duration = Duration::from_secs(15);
/// A peer is not silent before so many times the longest pause between its frames has passed: on a slow line each takes long.
const PAUSES: u32 = 2;
/// By what part of it the longest pause is forgotten with each frame.
const PAUSE_FADES: u32 = 16;

/// What was passed over for so long by answers to later requests is asked for anew: the connection that it should come over
/// hangs, while others go on. A chunk of the largest size takes as long at 9 kB/s.
const PASSED_OVER: Duration = Duration::from_secs(120);

/// Ids of requests are unique in the whole agent, so that an answer finds its folder.
static NEXT_REQUEST: AtomicU32 = AtomicU32::new(1);

/// See the module.
#[derive(Default)]
pub(super) struct OpenRequests(Mutex<State>);

#[derive(Default)]
struct State {
    requests: HashMap<(DeviceId, u32), OpenRequest>,
    given_up: GivenUp,
    /// When a peer last sent something that it had been asked for.
    heard: HashMap<DeviceId, Heard>,
    /// The latest request to each peer that it has answered a part of. Requests are answered in their order.
    latest: HashMap<DeviceId, u32>,
}

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    /// The longest time between what came lately.
    pause: Duration,
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
        let mut state = self.lock();
        if !state.requests.keys().any(|(to, _)| *to == peer) {
            // That nothing came while nothing was asked for says nothing of the line.
            state.heard.entry(peer).and_modify(|heard| heard.at = now);
        }
        state.requests.insert((peer, id), OpenRequest { asked: now, items, lane_lost: None, passed_over: None });
        id
    }

    /// True where an answer of this peer to this request is waited for, or was.
    pub fn expects(&self, peer: DeviceId, request: u32) -> bool {
        let state = self.lock();
        state.requests.contains_key(&(peer, request)) || state.given_up.contains((peer, request))
    }

    /// True where nobody has been asked for anything.
    pub fn is_empty(&self) -> bool {
        self.lock().requests.is_empty()
    }

    /// How many requests a peer has still to answer.
    pub fn count(&self, peer: DeviceId) -> usize {
        self.lock().requests.keys().filter(|(to, _)| *to == peer).count()
    }

    /// Takes those of a peer's chunks that it was asked for, also where they are no longer waited for. What is longer than asked for is cut to nothing, so that
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
            items.filter_map(|(at, b)| Some(bounded(state.take_late_too(peer, chunks.request, at, now)?, b))).collect();
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

    /// Gives up on a peer whose link is gone: all that it has not answered.
    pub fn take_peer(&self, peer: DeviceId) -> Vec<Content> {
        let mut state = self.lock();
        state.given_up.forget(peer);
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
    pub fn take_lost(&self, now: Instant) -> Vec<(DeviceId, Content)> {
        let mut state = self.lock();
        let State { requests, given_up, heard, latest } = &mut *state;
        let is_over = |since: Option<Instant>, time| since.is_some_and(|at| now.saturating_duration_since(at) >= time);
        let is_lost = |(peer, id): &(DeviceId, u32), request: &mut OpenRequest| {
            if latest.get(peer).is_some_and(|latest| latest > id) {
                request.passed_over.get_or_insert(now);
            }
            let is_passed_over = request.passed_over.is_some();
            let heard = heard.get(peer);
            let since = request.lane_lost.max(heard.map(|heard| heard.at).filter(|_| request.lane_lost.is_some()));
            is_over(request.passed_over, PASSED_OVER)
                || is_over(request.lane_lost, LOST) && (is_passed_over || is_over(since, silence_after_loss(heard)))
        };
        let mut lost: Vec<_> = requests.extract_if(is_lost).collect();
        lost.sort_by_key(|((_, id), r)| (r.asked, *id));
        let mut taken = Vec::new();
        for (key, request) in lost {
            for (at, content) in request.items.into_iter().enumerate() {
                let Some(content) = content else { continue };
                given_up.add(key, at, content, now);
                taken.push((key.0, content));
            }
        }
        taken
    }

    /// Gives up on what has waited too long: who was asked for what. `has_other` says where another than the peer that
    /// was asked can be; there it is not waited for as long.
    pub fn take_overdue(
        &self,
        now: Instant,
        has_other: impl Fn(Content, DeviceId) -> bool,
    ) -> Vec<(DeviceId, Content)> {
        let mut state = self.lock();
        let State { requests, given_up, heard, .. } = &mut *state;
        let mut overdue = Vec::new();
        requests.retain(|key, request| {
            let peer = key.0;
            let since = heard.get(&peer).map_or(request.asked, |heard| heard.at.max(request.asked));
            let silent = now.saturating_duration_since(since);
            let open = now.saturating_duration_since(request.asked);
            let is_over = silent >= SILENCE || open >= REQUEST_LIFE;
            if is_over || silent >= SILENCE_WITH_OTHERS || open >= REQUEST_LIFE_WITH_OTHERS {
                let taken = request.give_up(given_up, *key, now, |content| is_over || has_other(content, peer));
                overdue.extend(taken.into_iter().map(|content| (peer, content)));
            }
            request.items.iter().any(Option::is_some)
        });
        overdue
    }

    /// Gives up on what was asked for long ago where `is_spare` says that another one has it and nothing to do.
    pub fn take_late(&self, now: Instant, is_spare: impl Fn(Content, DeviceId) -> bool) -> Vec<(DeviceId, Content)> {
        let mut state = self.lock();
        let State { requests, given_up, .. } = &mut *state;
        let mut late = Vec::new();
        requests.retain(|key, request| {
            let peer = key.0;
            if now.saturating_duration_since(request.asked) >= LATE {
                let taken = request.give_up(given_up, *key, now, |content| is_spare(content, peer));
                late.extend(taken.into_iter().map(|content| (peer, content)));
            }
            request.items.iter().any(Option::is_some)
        });
        late
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long nothing may come of a peer, after a connection with it was lost, before all is taken for lost.
fn silence_after_loss(heard: Option<&Heard>) -> Duration {
    heard.map_or(LOST_UNHEARD, |heard| LOST.max(heard.pause * PAUSES))
}

impl OpenRequest {
    /// Waits no longer for those items of which this holds.
    fn give_up(
        &mut self,
        given_up: &mut GivenUp,
        key: (DeviceId, u32),
        now: Instant,
        is_given_up: impl Fn(Content) -> bool,
    ) -> Vec<Content> {
        let items = self.items.iter_mut().enumerate();
        let taken = items.filter_map(|(at, item)| Some((at, item.take_if(|content| is_given_up(*content))?)));
        taken.inspect(|(at, content)| given_up.add(key, *at, *content, now)).map(|(_, content)| content).collect()
    }
}

impl State {
    fn hear(&mut self, peer: DeviceId, now: Instant) {
        let heard = self.heard.entry(peer).or_insert(Heard { at: now, pause: Duration::ZERO });
        let faded = heard.pause - heard.pause / PAUSE_FADES;
        *heard = Heard { at: now, pause: faded.max(now.saturating_duration_since(heard.at)) };
    }

    /// The same as `take`, also of what was given up.
    fn take_late_too(&mut self, peer: DeviceId, request: u32, at: u16, now: Instant) -> Option<Content> {
        let taken = self.take(peer, request, at, now);
        taken.or_else(|| {
            let late = self.given_up.take((peer, request), at)?;
            self.hear(peer, now);
            Some(late)
        })
    }

    fn take(&mut self, peer: DeviceId, request: u32, at: u16, now: Instant) -> Option<Content> {
        let open = self.requests.get_mut(&(peer, request))?;
        let content = open.items.get_mut(usize::from(at))?.take()?;
        if open.items.iter().all(Option::is_none) {
            self.requests.remove(&(peer, request));
        }
        self.hear(peer, now);
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
        assert_eq!(open.take_lost(start + LOST), [(PEER, wanted[1])]);
        assert_eq!((open.count(PEER), open.count(OTHER)), (2, 1));
        assert!(open.expects(PEER, ids[3]) && open.expects(OTHER, others));
        // Nothing comes any more.
        assert_eq!(open.take_lost(start + LOST * 2), [(PEER, wanted[3])]);
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
        assert_eq!(open.take_lost(start + PASSED_OVER), [(PEER, wanted[0])]);
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
        open.add(PEER, &wanted[..1], at);
        let later = at + REQUEST_LIFE;
        let second = open.add(PEER, &wanted[1..], later - Duration::from_secs(2));
        open.take_not_here(PEER, second, &[0], later - Duration::from_secs(1));
        assert_eq!(open.take_overdue(later, nobody_else), [(PEER, wanted[0])]);
        assert_eq!((open.count(PEER), open.expects(PEER, second)), (1, true));
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
        assert_eq!(open.count(PEER), 1);
    }

    #[test]
    fn an_answer_to_what_was_given_up_is_taken_once_and_shows_that_the_peer_is_there() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let wanted = [Content::of_chunk(b"a"), Content::of_chunk(b"b")];
        let id = open.add(PEER, &wanted, start);
        open.lane_lost(PEER, start);
        assert_eq!(open.take_lost(start + LOST_UNHEARD), [(PEER, wanted[0]), (PEER, wanted[1])]);
        let mut at = start + LOST_UNHEARD;
        let anew = open.add(PEER, &wanted, at);
        at += SILENCE - Duration::from_secs(1);
        assert!(open.expects(PEER, id));
        let late = |at| open.take_chunks(PEER, chunks(id, &[(0, b"a")]), at);
        assert_eq!(late(at), [(wanted[0], Bytes::from_static(b"a"))]);
        assert_eq!(late(at), []);
        at += SILENCE - Duration::from_secs(1);
        assert_eq!(open.take_overdue(at, nobody_else), []);
        assert_eq!(open.count(PEER), 1);
        assert_eq!(open.take_overdue(at + SILENCE, nobody_else).len(), 2);
        assert!(open.expects(PEER, anew) && open.expects(PEER, id));
        assert_eq!(open.take_peer(PEER), []);
        assert!(!open.expects(PEER, anew) && !open.expects(PEER, id));
    }

    #[test]
    fn on_a_line_on_which_each_frame_takes_seconds_a_lost_connection_does_not_make_the_others_silent() {
        let open = OpenRequests::default();
        let start = Instant::now();
        let wanted: Vec<Content> = (0..9u8).map(|n| Content::of_chunk(&[n])).collect();
        let ids: Vec<u32> = wanted.iter().map(|content| open.add(PEER, &[*content], start)).collect();
        let each = LOST + Duration::from_secs(1);
        let mut at = start;
        for (count, id) in ids[..8].iter().enumerate() {
            at += each;
            if count == 2 {
                open.lane_lost(PEER, at - each);
            }
            assert_eq!(open.take_lost(at), [], "{count}");
            assert_eq!(open.take_chunks(PEER, chunks(*id, &[(0, &[9])]), at).len(), 1);
        }
        assert_eq!(open.take_lost(at + each), []);
        assert_eq!(open.take_lost(at + each * PAUSES), [(PEER, wanted[8])]);
    }
}
