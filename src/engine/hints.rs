//! Paths that somebody should look at: from the watcher (hints) or from the folder itself (requests).
//!
//! Nothing in here is ever dropped: where too much has piled up it turns into a scan of the whole folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use crate::core::path::RelPath;

/// How long a file that is being written is left alone after the last sign of it.
pub const QUIET: Duration = Duration::from_millis(200);
/// A file that is written without a pause is looked at this long after the first sign all the same.
pub const CAP: Duration = Duration::from_secs(3);
/// What is complete waits only for what belongs to it, such as the other half of a rename.
const AT_ONCE: Duration = Duration::from_micros(500);
/// Hinted paths that wait; with more of them one scan of the whole folder is cheaper.
pub const HINTS_MAX: usize = 20_000;
/// Requested paths that wait. Only a folder with as many pieces of work at once has more.
const REQUESTS_MAX: usize = 200_000;
/// Paths of one job: few enough that what comes meanwhile does not wait long.
const JOB_PATHS_MAX: usize = 1024;

/// One path to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    pub path: RelPath,
    /// True where it has to be reported even if nothing has changed.
    pub requested: bool,
    /// How often it could not be read because it was being written.
    pub tries: u32,
}

/// What is to be done next.
#[derive(PartialEq, Eq, Debug)]
pub enum Job {
    /// All paths that are due, in the order of paths.
    Paths(Vec<Look>),
    Stop,
}

/// What ended the wait for the next scan of the whole folder.
#[derive(PartialEq, Eq, Debug)]
pub enum FullJob {
    /// Somebody asked for it, for this reason.
    Asked(String),
    /// The time is over.
    Due,
    Stop,
}

/// The queue; see the module.
#[derive(Default)]
pub struct Hints {
    clock: Clock,
    state: Mutex<State>,
    paths_changed: Condvar,
    full_changed: Condvar,
}

/// How much waits, for whoever wants to see that it is bounded.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HintCounts {
    pub waiting: usize,
    pub claimed: usize,
    /// True where the whole folder is to be scanned.
    pub full: bool,
}

#[derive(Default)]
struct State {
    waiting: HashMap<RelPath, Waiting>,
    /// The same by the time they are due.
    due: BTreeSet<(Instant, RelPath)>,
    requested: usize,
    full: Option<String>,
    /// Paths that some thread looks at, or whose report the folder has not taken in yet; with the look at them that is
    /// to follow, if one is.
    claimed: BTreeMap<RelPath, Option<Look>>,
}

#[derive(Clone, Copy)]
struct Waiting {
    first: Instant,
    due: Instant,
    /// True where it was said that there is nothing to wait for.
    closed: bool,
    requested: bool,
    tries: u32,
}

impl Look {
    pub fn requested(path: RelPath) -> Self {
        Self { path, requested: true, tries: 0 }
    }

    pub fn hinted(path: RelPath) -> Self {
        Self { path, requested: false, tries: 0 }
    }
}

impl Hints {
    /// An empty queue by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Something happened at a path. `closed` says that it is over, so that there is nothing to wait for.
    pub fn hint(&self, path: RelPath, closed: bool, now: Instant) {
        let mut state = self.lock();
        let known = state.waiting.get(&path).copied();
        let first = known.map_or(now, |k| k.first);
        let due = match known {
            Some(known) if closed => known.due.min(now + AT_ONCE),
            None if closed => now + AT_ONCE,
            // What was found busy again and again is not read at every sign of it.
            Some(known) if known.closed || known.requested || known.tries > 0 => known.due,
            _ => (now + QUIET).min(first + CAP),
        };
        state.put(Look::hinted(path), first, due, closed);
        self.shrink(&mut state);
        drop(state);
        self.paths_changed.notify_all();
    }

    /// Paths that have to be looked at, at once, and reported even if nothing has changed.
    pub fn request(&self, paths: Vec<RelPath>) {
        let now = self.clock.instant();
        let mut state = self.lock();
        for path in paths {
            state.put(Look::requested(path), now, now, true);
        }
        self.shrink(&mut state);
        drop(state);
        self.paths_changed.notify_all();
    }

    /// A look that came to nothing is to be repeated at `due`, or earlier if something is closed there.
    pub fn again(&self, look: Look, due: Instant) {
        let mut state = self.lock();
        let due = match state.waiting.get(&look.path) {
            Some(known) if known.closed || look.tries == 0 => known.due.min(due),
            _ => due,
        };
        state.put(look, due, due, false);
        self.shrink(&mut state);
        drop(state);
        self.paths_changed.notify_all();
    }

    /// The whole folder has to be looked at.
    pub fn request_full(&self, reason: &str) {
        self.lock().full.get_or_insert_with(|| reason.into());
        self.full_changed.notify_all();
    }

    /// Waits for paths that are due.
    pub fn next(&self, stop: &AtomicBool) -> Job {
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Job::Stop;
            }
            let now = self.clock.instant();
            if let Some(looks) = state.take_due(now) {
                return Job::Paths(looks);
            }
            state = match state.due.first() {
                Some((due, _)) => {
                    let wait = due.saturating_duration_since(now);
                    self.paths_changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.paths_changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits until the whole folder is to be scanned: because somebody asks for it, or after `timeout`.
    pub fn next_full(&self, stop: &AtomicBool, timeout: Duration) -> FullJob {
        let end = self.clock.instant() + timeout;
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                return FullJob::Stop;
            }
            if let Some(reason) = state.full.take() {
                return FullJob::Asked(reason);
            }
            let left = end.saturating_duration_since(self.clock.instant());
            if left.is_zero() {
                return FullJob::Due;
            }
            state = self.full_changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes whoever waits, to look at the stop flag.
    pub fn wake(&self) {
        // Not between somebody's look at the flag and the beginning of the wait.
        drop(self.lock());
        self.paths_changed.notify_all();
        self.full_changed.notify_all();
    }

    /// Takes a path for a look of one's own, from before it until the folder has taken in what is reported of it. So
    /// reports of one path come in the order of the looks, and each look can rely on what the index has there. False
    /// where somebody else is at it: the look then follows as soon as that is over.
    pub fn claim(&self, look: &Look) -> bool {
        let mut state = self.lock();
        let Some(next) = state.claimed.get_mut(&look.path) else {
            state.claimed.insert(look.path.clone(), None);
            return true;
        };
        let known = next.take();
        let requested = look.requested || known.as_ref().is_some_and(|k| k.requested);
        let tries = look.tries.max(known.map_or(0, |k| k.tries));
        *next = Some(Look { path: look.path.clone(), requested, tries });
        false
    }

    /// True where a look at something below the directory is not over.
    pub fn is_claimed_below(&self, directory: &RelPath) -> bool {
        let state = self.lock();
        let mut after = state.claimed.range((Bound::Excluded(directory), Bound::Unbounded));
        after.next().is_some_and(|(path, _)| path.is_below(directory))
    }

    /// Ends what [`Hints::claim`] began.
    pub fn release<'a>(&self, paths: impl IntoIterator<Item = &'a RelPath>) {
        let now = self.clock.instant();
        let mut state = self.lock();
        let mut is_changed = false;
        for path in paths {
            if let Some(next) = state.claimed.remove(path).flatten() {
                is_changed = true;
                let due = state.waiting.get(path).map_or(now, |known| known.due.min(now));
                state.put(next, now, due, true);
            }
        }
        drop(state);
        if is_changed {
            self.paths_changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where too much waits, one scan of the whole folder takes its place.
    fn shrink(&self, state: &mut State) {
        let hinted = state.waiting.len() - state.requested;
        if hinted <= HINTS_MAX && state.requested <= REQUESTS_MAX {
            return;
        }
        let keeps_requests = state.requested <= REQUESTS_MAX;
        state.waiting.retain(|_, waiting| waiting.requested && keeps_requests);
        state.due = state.waiting.iter().map(|(path, waiting)| (waiting.due, path.clone())).collect();
        state.requested = state.waiting.len();
        state.full.get_or_insert_with(|| "more changes than can be followed one by one".into());
        self.full_changed.notify_all();
    }
}

/// For whoever has no threads to wait in.
#[cfg(feature = "testing")]
impl Hints {
    /// All paths that are due, in the order of paths; `None` where there are none.
    pub fn take_due(&self) -> Option<Vec<Look>> {
        let now = self.clock.instant();
        self.lock().take_due(now)
    }

    /// When the next path is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.lock().due.first().map(|(due, _)| *due)
    }

    /// The reason why the whole folder is to be scanned, once.
    pub fn take_full_request(&self) -> Option<String> {
        self.lock().full.take()
    }

    pub fn counts(&self) -> HintCounts {
        let state = self.lock();
        HintCounts { waiting: state.waiting.len(), claimed: state.claimed.len(), full: state.full.is_some() }
    }
}

impl State {
    fn put(&mut self, look: Look, first: Instant, due: Instant, closed: bool) {
        let before = self.waiting.get(&look.path).copied();
        if let Some(before) = before {
            self.due.remove(&(before.due, look.path.clone()));
        }
        let requested = look.requested || before.is_some_and(|b| b.requested);
        let closed = closed || before.is_some_and(|b| b.closed);
        let tries = look.tries.max(before.map_or(0, |b| b.tries));
        self.requested += usize::from(requested && !before.is_some_and(|b| b.requested));
        self.due.insert((due, look.path.clone()));
        let first = before.map_or(first, |b| b.first.min(first));
        self.waiting.insert(look.path, Waiting { first, due, closed, requested, tries });
    }

    fn take_due(&mut self, now: Instant) -> Option<Vec<Look>> {
        let mut looks = Vec::new();
        while looks.len() < JOB_PATHS_MAX && self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, path)) = self.due.pop_first() else { break };
            if let Some(waiting) = self.waiting.remove(&path) {
                self.requested -= usize::from(waiting.requested);
                looks.push(Look { path, requested: waiting.requested, tries: waiting.tries });
            }
        }
        looks.sort_by(|a, b| a.path.cmp(&b.path));
        (!looks.is_empty()).then_some(looks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &str) -> RelPath {
        RelPath::parse(name.as_bytes()).unwrap()
    }

    fn running() -> AtomicBool {
        AtomicBool::new(false)
    }

    fn due_of(hints: &Hints, name: &str) -> Instant {
        hints.lock().waiting[&path(name)].due
    }

    #[test]
    fn a_closed_file_is_due_at_once_and_a_growing_one_after_a_pause_but_not_never() {
        let (hints, start) = (Hints::default(), Instant::now());
        hints.hint(path("closed"), true, start);
        assert_eq!(due_of(&hints, "closed"), start + AT_ONCE);
        for tenths in 0..100 {
            let now = start + tenths * Duration::from_millis(100);
            hints.hint(path("grows"), false, now);
            assert_eq!(due_of(&hints, "grows"), (now + QUIET).min(start + CAP));
        }
        hints.hint(path("grows"), true, start);
        assert_eq!(due_of(&hints, "grows"), start + AT_ONCE);
    }

    #[test]
    fn what_was_found_busy_waits_its_time_unless_it_is_closed() {
        let (hints, start) = (Hints::default(), Instant::now());
        hints.hint(path("a"), false, start);
        hints.again(Look { tries: 3, ..Look::hinted(path("a")) }, start + CAP);
        hints.hint(path("a"), false, start);
        assert_eq!(due_of(&hints, "a"), start + CAP);
        hints.hint(path("a"), true, start);
        hints.again(Look { tries: 4, ..Look::hinted(path("a")) }, start + CAP);
        assert_eq!(due_of(&hints, "a"), start + AT_ONCE);
    }

    #[test]
    fn what_is_due_comes_in_order_and_once_and_requests_stay_requests() {
        let (hints, past) = (Hints::default(), Instant::now() - CAP - CAP);
        hints.request(vec![path("b")]);
        for name in ["c", "b", "a"] {
            hints.hint(path(name), false, past);
        }
        hints.again(Look { tries: 2, ..Look::hinted(path("a")) }, past);
        hints.hint(path("later"), false, Instant::now() + CAP);
        let looks = [Look { tries: 2, ..Look::hinted(path("a")) }, Look::requested(path("b")), Look::hinted(path("c"))];
        assert_eq!(hints.next(&running()), Job::Paths(looks.into()));
        assert_eq!(hints.lock().waiting.len(), 1);
        assert_eq!(hints.lock().requested, 0);
    }

    #[test]
    fn jobs_are_bounded_and_too_many_hints_become_one_scan() {
        let (hints, past) = (Hints::default(), Instant::now() - CAP - CAP);
        hints.request((0..2000).map(|i| path(&format!("r{i}"))).collect());
        for i in 0..=HINTS_MAX {
            hints.hint(path(&format!("{i}")), false, past);
        }
        assert!(matches!(hints.next_full(&running(), Duration::ZERO), FullJob::Asked(_)));
        assert_eq!(hints.next_full(&running(), Duration::ZERO), FullJob::Due);
        let Job::Paths(looks) = hints.next(&running()) else { panic!() };
        assert!(looks.len() == JOB_PATHS_MAX && looks.iter().all(|l| l.requested));
        assert_eq!(hints.lock().waiting.len(), 2000 - JOB_PATHS_MAX);
    }

    #[test]
    fn a_waiting_thread_hears_of_new_paths_and_of_the_end() {
        let (hints, stop) = (Hints::default(), running());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| hints.next(&stop));
            hints.request(vec![path("a")]);
            assert_eq!(waiting.join().unwrap(), Job::Paths(vec![Look::requested(path("a"))]));
            let waiting = scope.spawn(|| hints.next_full(&stop, CAP * 100));
            hints.request_full("asked");
            assert_eq!(waiting.join().unwrap(), FullJob::Asked("asked".into()));
            stop.store(true, Ordering::Relaxed);
            hints.wake();
            assert_eq!((hints.next(&stop), hints.next_full(&stop, CAP)), (Job::Stop, FullJob::Stop));
        });
    }

    #[test]
    fn a_claimed_path_is_one_threads_alone_and_others_follow() {
        let hints = Hints::default();
        let (plain, asked) = (Look::hinted(path("d/a")), Look::requested(path("d/a")));
        assert!(hints.claim(&plain) && hints.claim(&Look::hinted(path("d"))));
        assert!(!hints.claim(&asked) && !hints.claim(&plain));
        assert!(hints.is_claimed_below(&path("d")) && !hints.is_claimed_below(&path("d/a")));
        assert_eq!(hints.lock().waiting.len(), 0);
        hints.release([&path("d/a"), &path("d")]);
        assert_eq!(hints.next(&running()), Job::Paths(vec![asked]));
        assert!(!hints.is_claimed_below(&path("d")) && hints.claim(&plain));
    }

    proptest! {
        #[test]
        fn whatever_is_put_in_comes_out(steps in prop::collection::vec((0..4u8, 0..9u8), 0..60)) {
            let (hints, past) = (Hints::default(), Instant::now() - CAP - CAP);
            let mut wanted = std::collections::BTreeMap::new();
            for (how, which) in steps {
                let at = path(&which.to_string());
                *wanted.entry(at.clone()).or_insert(false) |= how == 0;
                match how {
                    0 => hints.request(vec![at]),
                    1 => hints.again(Look::hinted(at), past),
                    _ => hints.hint(at, how == 2, past),
                }
                let state = hints.lock();
                prop_assert_eq!(state.waiting.len(), state.due.len());
                prop_assert_eq!(state.requested, state.waiting.values().filter(|w| w.requested).count());
            }
            let found: Vec<_> = hints.lock().take_due(Instant::now()).into_iter().flatten().map(|l| (l.path, l.requested)).collect();
            prop_assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
