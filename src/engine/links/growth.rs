//! When a link is to have more connections: where all that it has are full for a while, and as long as each doubling
//! makes it faster. Pure: looks go in, the number of lanes comes out.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::lane::LANES_MAX;

/// A rate is taken over so much time: several round trips, also of a long line.
const WINDOW: Duration = Duration::from_millis(1000);
/// What more lanes carry at first only fills buffers on the way; it is not counted.
const FILLING: Duration = Duration::from_millis(500);
/// With how much more, in percent, lanes have been worth their while. Also what counts as a rate that rises by itself.
const GAIN_PERCENT: u64 = 15;
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

#[derive(Debug, Default)]
enum State {
    /// What the link did in the window before this one, bytes per second.
    #[default]
    Nothing,
    Steady(u64),
    /// More lanes are to come, until then.
    Growing { before: u64, wanted: usize, until: Instant },
    /// They are there, and fill what lies between; what they bring is not counted yet.
    Filling { before: u64 },
    Measuring { before: u64 },
    Resting(Instant),
}

impl Growth {
    /// How many lanes there are to be, where that is more than there are.
    pub fn look(&mut self, look: &Look) -> Option<usize> {
        if let State::Resting(until) = self.state {
            if look.now < until {
                return None;
            }
            self.begin(State::Nothing);
        }
        if let State::Growing { before, wanted, until } = self.state {
            if look.lanes >= wanted || (look.now >= until && look.lanes > wanted / 2) {
                self.begin(State::Filling { before });
            } else if look.now >= until {
                self.rest(look.now);
            }
            return None;
        }
        if !look.is_full {
            // Something else is slower than the link.
            self.begin(State::Nothing);
            return None;
        }
        let (since, written) = *self.window.get_or_insert((look.now, look.written));
        let took = look.now.saturating_duration_since(since);
        if took < if matches!(self.state, State::Filling { .. }) { FILLING } else { WINDOW } {
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
            State::Filling { before } => self.state = State::Measuring { before },
            State::Measuring { before } if is_gain(before, rate) => {
                self.rests = 0;
                return self.grow(rate, look);
            }
            State::Measuring { .. } => self.rest(look.now),
            State::Growing { .. } | State::Resting(_) => {}
        }
        None
    }

    fn grow(&mut self, rate: u64, look: &Look) -> Option<usize> {
        // Twice the connections.
        let wanted = (2 * look.lanes + 1).min(LANES_MAX);
        if wanted <= look.lanes {
            self.state = State::Steady(rate);
            return None;
        }
        self.begin(State::Growing { before: rate, wanted, until: look.now + COMING });
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

fn is_gain(before: u64, rate: u64) -> bool {
    rate.saturating_mul(100) >= before.saturating_mul(100 + GAIN_PERCENT)
}
