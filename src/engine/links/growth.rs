//! When a link is to have more connections: where all that it has are full for a while, and as long as more of
//! them make it faster. Pure: looks go in, the number of lanes comes out.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::lane::LANES_MAX;

/// A rate is taken over so much time: several round trips, also of a long line.
const WINDOW: Duration = Duration::from_millis(1000);
/// What more lanes carry at first only fills buffers on the way; it is not counted.
const FILLING: Duration = Duration::from_millis(500);
/// With how much more, in percent, lanes have been worth their while. Also what counts as a rate that rises by itself.
const GAIN_PERCENT: u64 = 15;
/// Lanes that are tried at first; with the main connection four, and then twice as many.
const LANES_FIRST: usize = 3;
/// How long the lanes that are wanted may take to come.
const COMING: Duration = Duration::from_secs(5);
/// Pause after lanes that gained nothing or did not come; twice as long after each further time.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(600);

/// What is seen of a link at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub now: Instant,
    /// Bytes sent so far.
    pub written: u64,
    /// Frames wait that no connection has taken, and no cap holds them up.
    pub is_full: bool,
    pub lanes: usize,
}

/// What has been found out so far.
#[derive(Debug, Default)]
pub struct Growth {
    state: State,
    /// Since when all has been full, and what had been sent by then.
    window: Option<(Instant, u64)>,
    rests: u32,
}

/// What is known of the rate, in bytes per second.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Nothing,
    /// Of the window before this one.
    Steady(u64),
    /// More lanes are to come, until then.
    Growing(Before, Instant),
    /// They are there, and fill what lies between; what they bring is not counted yet.
    Filling(Before),
    Measuring(Before),
    Resting(Instant),
}

/// How it was without the lanes that are tried.
#[derive(Clone, Copy, Debug)]
struct Before {
    rate: u64,
    lanes: usize,
}

impl Growth {
    /// How many lanes there are to be from now on, where that changes.
    pub fn look(&mut self, look: &Look) -> Option<usize> {
        match self.state {
            State::Resting(until) if look.now < until => return None,
            State::Resting(_) => self.begin(State::Nothing),
            State::Growing(before, until) => {
                if look.lanes >= wanted(before.lanes) || (look.now >= until && look.lanes > before.lanes) {
                    self.begin(State::Filling(before));
                } else if look.now >= until {
                    self.rest(look.now);
                }
                return None;
            }
            _ => {}
        }
        if !look.is_full {
            // Something else is slower than the link.
            self.begin(State::Nothing);
            return None;
        }
        let (since, written) = *self.window.get_or_insert((look.now, look.written));
        let took = look.now.saturating_duration_since(since);
        if took < if matches!(self.state, State::Filling(_)) { FILLING } else { WINDOW } {
            return None;
        }
        self.window = Some((look.now, look.written));
        let rate = look.written.saturating_sub(written) * 1000 / (took.as_millis() as u64).max(1);
        self.judge(rate, look)
    }

    /// A lane was lost or could not be had.
    pub fn failed(&mut self, now: Instant) {
        self.rest(now);
    }

    fn judge(&mut self, rate: u64, look: &Look) -> Option<usize> {
        match self.state {
            State::Nothing => self.state = State::Steady(rate),
            State::Steady(before) if is_gain(before, rate) => self.state = State::Steady(rate),
            State::Steady(_) => return self.grow(rate, look),
            State::Filling(before) => self.state = State::Measuring(before),
            State::Measuring(before) if is_gain(before.rate, rate) => {
                self.rests = 0;
                return self.grow(rate, look);
            }
            State::Measuring(before) => {
                self.rest(look.now);
                return Some(before.lanes);
            }
            State::Growing(..) | State::Resting(_) => {}
        }
        None
    }

    fn grow(&mut self, rate: u64, look: &Look) -> Option<usize> {
        let wanted = wanted(look.lanes);
        if wanted <= look.lanes {
            self.state = State::Steady(rate);
            return None;
        }
        self.begin(State::Growing(Before { rate, lanes: look.lanes }, look.now + COMING));
        Some(wanted)
    }

    fn rest(&mut self, now: Instant) {
        let pause = REST_FIRST.saturating_mul(1 << self.rests.min(10)).min(REST_MAX);
        self.rests = self.rests.saturating_add(1);
        self.begin(State::Resting(now + pause));
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.window = None;
    }
}

/// How many lanes come after so many: few steps, as each takes seconds.
fn wanted(lanes: usize) -> usize {
    if lanes < LANES_FIRST { LANES_FIRST } else { LANES_MAX }
}

fn is_gain(before: u64, rate: u64) -> bool {
    rate.saturating_mul(100) >= before.saturating_mul(100 + GAIN_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(250);

    /// A link that is looked at again and again.
    struct Link {
        growth: Growth,
        now: Instant,
        written: u64,
        lanes: usize,
        /// Lanes that are wanted come at once, or never.
        comes: bool,
        /// What was wanted, in order.
        wanted: Vec<usize>,
    }

    impl Link {
        fn new() -> Self {
            Self {
                growth: Growth::default(),
                now: Instant::now(),
                written: 0,
                lanes: 0,
                comes: true,
                wanted: Vec::new(),
            }
        }

        /// So much time passes on a link that is full; `rate` says what it carries with so many lanes.
        fn send(&mut self, time: Duration, rate: impl Fn(usize) -> u64) {
            self.pass(time, true, rate);
        }

        fn pass(&mut self, time: Duration, is_full: bool, rate: impl Fn(usize) -> u64) {
            let end = self.now + time;
            while self.now < end {
                self.now += LOOK;
                self.written += rate(self.lanes) / 4;
                let look = Look { now: self.now, written: self.written, is_full, lanes: self.lanes };
                if let Some(wanted) = self.growth.look(&look) {
                    self.wanted.push(wanted);
                    self.lanes = if self.comes { wanted } else { 0 };
                }
            }
        }
    }

    fn each(lanes: usize) -> u64 {
        (1 + lanes as u64) * 400_000
    }

    #[test]
    fn a_link_that_each_connection_makes_faster_gets_all_of_them_within_seconds() {
        let mut link = Link::new();
        link.send(Duration::from_secs(1), each);
        assert!(link.wanted.is_empty(), "{:?}", link.wanted);
        link.send(Duration::from_secs(9), each);
        assert_eq!(link.wanted, [LANES_FIRST, LANES_MAX]);
        link.send(Duration::from_secs(60), each);
        assert_eq!(link.wanted, [LANES_FIRST, LANES_MAX]);
    }

    #[test]
    fn lanes_that_gain_nothing_go_again_and_are_tried_ever_less_often() {
        let mut link = Link::new();
        link.send(Duration::from_secs(10), |_| 12_000_000);
        assert_eq!(link.wanted, [LANES_FIRST, 0]);
        link.send(Duration::from_secs(600), |_| 12_000_000);
        assert!(link.wanted.len() <= 14, "{:?}", link.wanted);
        assert!(link.wanted.chunks(2).all(|tried| tried == [LANES_FIRST, 0]), "{:?}", link.wanted);
    }

    #[test]
    fn a_gain_that_ends_with_some_lanes_leaves_these() {
        let mut link = Link::new();
        link.send(Duration::from_secs(12), |lanes| each(lanes.min(LANES_FIRST)));
        assert_eq!(link.wanted, [LANES_FIRST, LANES_MAX, LANES_FIRST]);
    }

    #[test]
    fn a_link_that_is_not_full_or_gets_faster_by_itself_gets_none() {
        let mut link = Link::new();
        link.pass(Duration::from_secs(60), false, |_| 400_000);
        (0..30).for_each(|second| link.send(Duration::from_secs(1), |_| (1000.0 * 1.3f64.powi(second)) as u64));
        assert!(link.wanted.is_empty(), "{:?}", link.wanted);
        // Full now and then.
        for _ in 0..60 {
            link.pass(LOOK, false, |_| 400_000);
            link.send(LOOK * 5, |_| 400_000);
        }
        assert!(link.wanted.is_empty(), "{:?}", link.wanted);
    }

    #[test]
    fn lanes_that_do_not_come_or_break_are_not_asked_for_again_soon() {
        let mut link = Link { comes: false, ..Link::new() };
        link.send(Duration::from_secs(3), each);
        assert_eq!(link.wanted, [LANES_FIRST]);
        link.send(COMING + REST_FIRST - Duration::from_secs(2), each);
        assert_eq!(link.wanted, [LANES_FIRST]);
        link.growth.failed(link.now);
        link.send(REST_FIRST * 2 - LOOK, each);
        assert_eq!(link.wanted, [LANES_FIRST]);
        link.send(Duration::from_secs(4), each);
        assert_eq!(link.wanted, [LANES_FIRST, LANES_FIRST]);
    }
}
