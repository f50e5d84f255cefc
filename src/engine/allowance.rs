//! How often something may be done at another device's bidding: so many times at once, and then one more each while.

use std::time::{Duration, Instant};

/// What is left of such a right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    most: u32,
    every: Duration,
    left: u32,
    /// When it was counted last; before the first use nothing has to be.
    counted: Option<Instant>,
}

impl Allowance {
    /// `most` times at once, and one more after each `every`.
    pub const fn new(most: u32, every: Duration) -> Self {
        Self { most, every, left: most, counted: None }
    }

    /// Takes one, where one is left.
    pub fn take(&mut self, now: Instant) -> bool {
        let counted = *self.counted.get_or_insert(now);
        let passed = now.saturating_duration_since(counted);
        let more = passed.as_nanos() / self.every.as_nanos().max(1);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more >= self.most - self.left {
            (self.left, self.counted) = (self.most, Some(now));
        } else {
            self.left += more;
            // What has passed of the next while is kept.
            self.counted = Some(counted + self.every * more);
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn so_many_may_come_at_once_and_one_more_after_each_while() {
        let (mut allowance, begin) = (Allowance::new(3, EVERY), Instant::now());
        let mut at = |seconds| allowance.take(begin + Duration::from_secs(seconds));
        assert_eq!([at(0), at(0), at(1), at(2)], [true, true, true, false]);
        assert_eq!([at(9), at(10), at(11), at(19), at(20)], [false, true, false, false, true]);
        // However long it rested, no more than the most are saved up.
        assert_eq!([at(1000), at(1000), at(1000), at(1000)], [true, true, true, false]);
        assert_eq!([at(1005), at(1010)], [false, true]);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_more() {
        let (mut allowance, now) = (Allowance::new(1, EVERY), Instant::now());
        assert_eq!([allowance.take(now), allowance.take(now), allowance.take(now)], [true, false, false]);
        assert!(!allowance.take(now + EVERY - Duration::from_nanos(1)));
        assert!(allowance.take(now + EVERY));
    }
}
