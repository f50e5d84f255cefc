//! How fast bytes flow: smoothed rates that cost a few additions where something flows, and nothing while it does not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::id::DeviceId;

/// What lies so far back counts for a third: long enough for a steady number, short enough to follow a change.
const MEMORY: Duration = Duration::from_secs(4);
/// After so long without anything nothing flows, whatever is still remembered.
const QUIET: Duration = Duration::from_secs(10);
/// A flow is taken to be at least so old, so that its first bytes are no huge rate.
const AGE_MIN: Duration = Duration::from_millis(500);

/// A rate of something, per second.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// What has come, the less the longer ago.
    remembered: f64,
    /// When the flow began, and when something last came.
    span: Option<(Instant, Instant)>,
}

/// What flows in one folder.
#[derive(Debug, Default)]
pub struct Flow(Mutex<Meters>);

#[derive(Debug, Default)]
struct Meters {
    /// In from each peer and out to it.
    peers: BTreeMap<DeviceId, (Meter, Meter)>,
    /// Contents that came from any source, this disk included.
    staged: Meter,
    /// Changes that were carried out.
    changes: Meter,
}

/// Rates at one moment, in bytes and changes per second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// In from each peer and out to it; only those with which something flows.
    pub peers: BTreeMap<DeviceId, (u64, u64)>,
    pub staged: u64,
    pub changes: u64,
    /// For how long contents or changes have been coming without a long pause, ms.
    pub steady_ms: u64,
}

impl Meter {
    pub fn add(&mut self, amount: u64, now: Instant) {
        let span = self.span.filter(|(_, last)| !is_quiet(*last, now));
        let kept = span.map_or(0.0, |(_, last)| self.remembered * fading(last, now));
        self.remembered = kept + amount as f64;
        self.span = Some((span.map_or(now, |(begun, _)| begun), now));
    }

    /// Per second, averaged over what is remembered.
    pub fn rate(&self, now: Instant) -> u64 {
        let Some((begun, last)) = self.span.filter(|(_, last)| !is_quiet(*last, now)) else { return 0 };
        let age = now.saturating_duration_since(begun).max(AGE_MIN).as_secs_f64();
        // A flow that is younger than the memory has filled only so much of it.
        let seconds = MEMORY.as_secs_f64() * (1.0 - (-age / MEMORY.as_secs_f64()).exp());
        (self.remembered * fading(last, now) / seconds).round() as u64
    }

    fn age(&self, now: Instant) -> Duration {
        let span = self.span.filter(|(_, last)| !is_quiet(*last, now));
        span.map_or(Duration::ZERO, |(begun, _)| now.saturating_duration_since(begun))
    }
}

fn is_quiet(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) >= QUIET
}

/// How much is left of what was remembered then.
fn fading(then: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(then).as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

impl Flow {
    /// Verified bytes came from a peer.
    pub fn received(&self, peer: DeviceId, bytes: u64, now: Instant) {
        let mut meters = self.lock();
        meters.peers.entry(peer).or_default().0.add(bytes, now);
        meters.staged.add(bytes, now);
    }

    /// Bytes of contents go to a peer.
    pub fn sent(&self, peer: DeviceId, bytes: u64, now: Instant) {
        self.lock().peers.entry(peer).or_default().1.add(bytes, now);
    }

    /// Bytes of contents were found on this disk.
    pub fn reused(&self, bytes: u64, now: Instant) {
        self.lock().staged.add(bytes, now);
    }

    /// So many changes were carried out.
    pub fn changed(&self, count: u64, now: Instant) {
        self.lock().changes.add(count, now);
    }

    pub fn rates(&self, now: Instant) -> Rates {
        let meters = self.lock();
        let peers = meters.peers.iter().map(|(peer, (from, to))| (*peer, (from.rate(now), to.rate(now))));
        Rates {
            peers: peers.filter(|(_, rates)| *rates != (0, 0)).collect(),
            staged: meters.staged.rate(now),
            changes: meters.changes.rate(now),
            steady_ms: meters.staged.age(now).max(meters.changes.age(now)).as_millis() as u64,
        }
    }

    /// Meters are whole after every statement.
    fn lock(&self) -> MutexGuard<'_, Meters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);

    #[test]
    fn a_steady_flow_has_its_rate_from_the_first_seconds_on_and_none_after_it_ended() {
        let mut meter = Meter::default();
        let start = Instant::now();
        assert_eq!(meter.rate(start), 0);
        for tick in 1..=100u32 {
            let now = start + Duration::from_millis(100) * tick;
            meter.add(1000, now);
            if tick >= 20 {
                let rate = meter.rate(now);
                assert!((9_000..=11_500).contains(&rate), "{rate} after {tick}");
            }
        }
        let end = start + Duration::from_secs(10);
        assert!(meter.rate(end + MEMORY) < 5_000);
        assert_eq!(meter.rate(end + QUIET), 0);
        assert_eq!(meter.age(end), Duration::from_millis(9_900));
        assert_eq!(meter.age(end + QUIET), Duration::ZERO);
    }

    #[test]
    fn a_flow_that_begins_again_remembers_nothing_of_before() {
        let mut meter = Meter::default();
        let start = Instant::now();
        meter.add(1_000_000_000, start);
        let again = start + QUIET;
        meter.add(1000, again);
        let rate = meter.rate(again + Duration::from_secs(1));
        assert!((700..=1300).contains(&rate), "{rate}");
    }

    #[test]
    fn rates_are_told_by_peer_and_in_all() {
        let flow = Flow::default();
        let start = Instant::now();
        flow.received(PEER, 5000, start);
        flow.reused(5000, start);
        flow.changed(3, start);
        let rates = flow.rates(start + Duration::from_secs(1));
        let (from, to) = rates.peers[&PEER];
        assert!(from > 3000 && to == 0 && rates.staged > from && rates.changes > 0, "{rates:?}");
        assert_eq!(rates.steady_ms, 1000);
        assert_eq!(flow.rates(start + QUIET), Rates::default());
        flow.sent(PEER, 1, start + QUIET);
        assert!(flow.rates(start + QUIET).peers.contains_key(&PEER));
    }
}
