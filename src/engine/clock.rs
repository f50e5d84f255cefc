//! Where the threads of a folder take the time from: the system's clocks, or hands that a simulator turns.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::net::random_bytes;
use crate::sync::Now;

/// Cheap to clone; all clones of a manual clock show the same.
#[derive(Clone, Default, Debug)]
pub struct Clock(Source);

#[derive(Clone, Default, Debug)]
enum Source {
    #[default]
    System,
    Manual(Arc<Hands>),
}

/// What a manual clock shows.
#[derive(Debug)]
struct Hands {
    /// The instant at which the clock that only goes forward shows 0.
    base: Instant,
    wall_ns: AtomicI64,
    mono_ms: AtomicU64,
    random: AtomicU64,
}

impl Clock {
    /// The clocks of the system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is set. `seed` is for the random numbers that come with each moment.
    pub fn manual(wall_ns: i64, seed: u64) -> Self {
        let (mono_ms, random) = (AtomicU64::new(0), AtomicU64::new(seed));
        Self(Source::Manual(Arc::new(Hands { base: Instant::now(), wall_ns: wall_ns.into(), mono_ms, random })))
    }

    /// Sets the wall clock (ns since 1970), forward or back. Has no effect on the system's clock.
    pub fn set_wall_ns(&self, wall_ns: i64) {
        if let Source::Manual(hands) = &self.0 {
            hands.wall_ns.store(wall_ns, Ordering::Relaxed);
        }
    }

    /// Lets time pass on both clocks. Has no effect on the system's clocks.
    pub fn advance_ms(&self, ms: u64) {
        if let Source::Manual(hands) = &self.0 {
            hands.mono_ms.fetch_add(ms, Ordering::Relaxed);
            let ns = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            hands.wall_ns.store(self.wall_ns().saturating_add(ns), Ordering::Relaxed);
        }
    }

    /// The present moment with a fresh random number.
    pub fn now(&self) -> Now {
        let random = match &self.0 {
            Source::System => u64::from_le_bytes(random_bytes()),
            Source::Manual(hands) => hands.random(),
        };
        Now { wall_ns: self.wall_ns(), mono_ms: self.mono_ms(), random }
    }

    /// Wall clock, ns since 1970; 0 for clocks set before that.
    pub fn wall_ns(&self) -> i64 {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }
            Source::Manual(hands) => hands.wall_ns.load(Ordering::Relaxed),
        }
    }

    /// Wall clock, ms since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.wall_ns() / 1_000_000
    }

    /// A clock that only goes forward, in ms since the agent started.
    pub fn mono_ms(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        match &self.0 {
            Source::System => u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX),
            Source::Manual(hands) => hands.mono_ms.load(Ordering::Relaxed),
        }
    }

    /// The same as an instant, for due times.
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(hands) => hands.base + Duration::from_millis(self.mono_ms()),
        }
    }

    /// The reading in ms of the clock that only goes forward at which an instant will have come.
    pub fn due_ms(&self, due: Instant) -> u64 {
        let wait = due.saturating_duration_since(self.instant());
        let wait_ms = wait.as_nanos().div_ceil(1_000_000);
        self.mono_ms().saturating_add(u64::try_from(wait_ms).unwrap_or(u64::MAX))
    }
}

impl Hands {
    /// The next of a sequence that looks random (the finalizer of SplitMix64 over a counter).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let at = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let at = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let at = (at ^ (at >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        at ^ (at >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_shows_what_it_was_set_to_in_all_its_clones() {
        let clock = Clock::manual(5_000_000_000, 1);
        let (other, begun) = (clock.clone(), clock.instant());
        other.advance_ms(1500);
        assert_eq!((clock.wall_ns(), clock.mono_ms()), (6_500_000_000, 1500));
        assert_eq!(clock.instant() - begun, Duration::from_millis(1500));
        assert_eq!((clock.due_ms(begun), clock.due_ms(clock.instant() + Duration::from_micros(1))), (1500, 1501));
        other.set_wall_ns(7);
        assert_eq!((clock.wall_ns(), clock.mono_ms()), (7, 1500));
    }

    #[test]
    fn the_same_seed_gives_the_same_random_numbers() {
        let of = |seed| {
            let clock = Clock::manual(0, seed);
            [clock.now().random, clock.now().random, clock.now().random]
        };
        assert_eq!(of(3), of(3));
        assert!(of(3) != of(4) && of(3)[0] != of(3)[1]);
    }

    #[test]
    fn the_systems_clocks_go_on() {
        let clock = Clock::system();
        let (mono, instant) = (clock.mono_ms(), clock.instant());
        assert!(clock.wall_ms() > 1_600_000_000_000 && clock.mono_ms() >= mono && clock.instant() >= instant);
    }
}
