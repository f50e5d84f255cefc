//! How much time the agent has lived through, so that nothing expires because a clock was wrong.
//!
//! What lies in history has the time of its displacement by the wall clock, and the wall clock may leap: an empty
//! battery, a wrong time server, a slip in the settings. A clock that shows much more time gone than the agent has run
//! is not believed at once: the difference is a *leap* and is left out of every age, until the agent has lived since
//! for as long as things are kept. By then whatever was displaced before the leap has been kept for its full time, and
//! the leap is forgotten. So what lies in history stays its full time whatever the clock shows, and longer by the
//! length of an absence only where that was longer than [`ABSENCE_MAX_MS`]. A clock that leaps back makes things stay
//! longer.

use std::fmt;

/// Time that may pass unseen, in ms: nights, weekends and short holidays with the agent not running or the computer
/// asleep. A clock that is wrong by less than this lets things go that much too early.
const ABSENCE_MAX_MS: i64 = 4 * 24 * 3600 * 1000;
/// Leaps that are remembered; of more, the oldest two count as one.
const LEAPS_MAX: usize = 16;

/// What the wall clock is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lived {
    /// What the wall clock showed last, ms since 1970.
    wall_ms: i64,
    /// Ms lived, since any moment.
    lived_ms: i64,
    leaps: Vec<Leap>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leap {
    /// When it was noticed, in time lived.
    at_ms: i64,
    length_ms: i64,
}

impl Lived {
    /// Begins to count at this time of the wall clock, ms since 1970.
    pub fn new(wall_ms: i64) -> Self {
        Self { wall_ms, lived_ms: 0, leaps: Vec::new() }
    }

    /// Reads what was written by `to_string`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(|number| number.parse::<i64>().ok());
        let (wall_ms, lived_ms) = (numbers.next()??, numbers.next()??);
        let mut leaps = Vec::new();
        while let Some(at_ms) = numbers.next() {
            leaps.push(Leap { at_ms: at_ms?, length_ms: numbers.next()?? });
        }
        Some(Self { wall_ms, lived_ms, leaps })
    }

    /// Time has passed: the wall clock shows `wall_ms` now, and the agent ran for `ran_ms` of it. Things are kept for
    /// `keep_ms`.
    pub fn pass(&mut self, wall_ms: i64, ran_ms: u64, keep_ms: i64) {
        let ran_ms = i64::try_from(ran_ms).unwrap_or(i64::MAX);
        let unseen_ms = wall_ms.saturating_sub(self.wall_ms).saturating_sub(ran_ms);
        self.wall_ms = wall_ms;
        let is_leap = unseen_ms > ABSENCE_MAX_MS;
        let believed_ms = if is_leap { ran_ms } else { ran_ms.saturating_add(unseen_ms.max(0)) };
        self.lived_ms = self.lived_ms.saturating_add(believed_ms);
        let lived_ms = self.lived_ms;
        self.leaps.retain(|leap| lived_ms.saturating_sub(leap.at_ms) < keep_ms);
        if is_leap {
            self.leaps.push(Leap { at_ms: lived_ms, length_ms: unseen_ms });
        }
        if self.leaps.len() > LEAPS_MAX {
            let oldest = self.leaps.remove(0);
            self.leaps[0].length_ms = self.leaps[0].length_ms.saturating_add(oldest.length_ms);
        }
    }

    /// What has that time of the wall clock or an earlier one, ms since 1970, is certainly older than `keep_ms`.
    pub fn before_ms(&self, keep_ms: i64) -> i64 {
        let leapt_ms = self.leaps.iter().fold(0i64, |sum, leap| sum.saturating_add(leap.length_ms));
        self.wall_ms.saturating_sub(leapt_ms).saturating_sub(keep_ms)
    }
}

impl fmt::Display for Lived {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.wall_ms, self.lived_ms)?;
        self.leaps.iter().try_for_each(|leap| write!(f, " {} {}", leap.at_ms, leap.length_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: i64 = 3600 * 1000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    const KEEP_MS: i64 = 30 * DAY_MS;
    const NOW_MS: i64 = 1_700_000_000_000;

    #[test]
    fn without_leaps_ages_are_what_the_clock_says() {
        let mut lived = Lived::new(NOW_MS);
        // A computer that runs for an hour a day, and is away over a long weekend.
        for day in 1..100 {
            lived.pass(NOW_MS + day * DAY_MS, HOUR_MS as u64, KEEP_MS);
        }
        lived.pass(NOW_MS + 102 * DAY_MS, HOUR_MS as u64, KEEP_MS);
        assert_eq!(lived.before_ms(KEEP_MS), NOW_MS + 72 * DAY_MS);
    }

    #[test]
    fn a_clock_that_leaps_lets_nothing_expire_before_its_time() {
        let (mut lived, years) = (Lived::new(NOW_MS), 20 * 365 * DAY_MS);
        lived.pass(NOW_MS + years + HOUR_MS, HOUR_MS as u64, KEEP_MS);
        assert_eq!(lived.before_ms(KEEP_MS), NOW_MS + HOUR_MS - KEEP_MS);
        for day in 1..=30 {
            lived.pass(NOW_MS + years + HOUR_MS + day * DAY_MS, HOUR_MS as u64, KEEP_MS);
        }
        assert_eq!(lived.before_ms(KEEP_MS), NOW_MS + years + HOUR_MS);
        // Put right, and wrong again.
        lived.pass(NOW_MS + 32 * DAY_MS, HOUR_MS as u64, KEEP_MS);
        assert!(lived.before_ms(KEEP_MS) < NOW_MS + 3 * DAY_MS);
        lived.pass(NOW_MS + years + 32 * DAY_MS, 0, KEEP_MS);
        assert!(lived.before_ms(KEEP_MS) < NOW_MS + 3 * DAY_MS);
    }

    #[test]
    fn what_is_no_note_is_not_read() {
        for text in ["", "1", "1 x", "1 2 3", "1 2 3 4 5", "1  2"] {
            assert_eq!(Lived::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_goes_before_its_time_and_all_goes_once_no_clock_leaps_any_more(
            steps in prop::collection::vec((0..DAY_MS, 0..ABSENCE_MAX_MS / 2, prop::option::weighted(0.3, -9000..9000i64)), 0..80),
        ) {
            let (mut lived, mut truth_ms, mut shown_ms) = (Lived::new(NOW_MS), 0, NOW_MS);
            let mut displaced = Vec::new();
            for (ran_ms, away_ms, leap_days) in steps {
                displaced.push((truth_ms, shown_ms));
                truth_ms += ran_ms + away_ms;
                // Beyond what may pass unseen, in either direction.
                let leap_ms = leap_days.map_or(0, |days| days * DAY_MS + days.signum() * ABSENCE_MAX_MS);
                shown_ms += ran_ms + away_ms + leap_ms;
                lived.pass(shown_ms, ran_ms as u64, KEEP_MS);
                prop_assert_eq!(Lived::parse(&lived.to_string()), Some(lived.clone()));
                for (at_ms, by_clock_ms) in &displaced {
                    prop_assert!(*by_clock_ms > lived.before_ms(KEEP_MS) || truth_ms - at_ms >= KEEP_MS);
                }
            }
            for _ in 0..=30 {
                shown_ms += DAY_MS;
                lived.pass(shown_ms, 0, KEEP_MS);
            }
            prop_assert_eq!(lived.before_ms(KEEP_MS), shown_ms - KEEP_MS);
        }
    }
}
