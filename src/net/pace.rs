//! Caps on how fast contents go over the wire: buckets that fill with time and are emptied by bytes.
//!
//! A frame goes as soon as anything is in the bucket and may leave it in debt, so no frame is too large to ever go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::id::DeviceId;

/// What an idle bucket saves up, in ms: enough that a capped link is not slowed down by the turns of its threads.
const BURST_MS: u64 = 250;

/// Most bytes per second up and down; `None`: no cap.
pub type Caps = (Option<u64>, Option<u64>);

/// One bucket.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Bucket>);

#[derive(Debug, Default)]
struct Bucket {
    /// `None`: no cap.
    bytes_s: Option<u64>,
    balance: i64,
    at: Option<Instant>,
}

/// Both directions of one or all links.
#[derive(Debug, Default)]
pub struct Way {
    pub upload: Pace,
    pub download: Pace,
}

/// The caps that hold for one link: those for all links together, or where the peer has caps of its own, these.
#[derive(Clone, Debug, Default)]
pub struct LinkPace(Arc<Way>);

/// The caps of all links.
#[derive(Debug, Default)]
pub struct Paces {
    shared: LinkPace,
    own: Mutex<BTreeMap<DeviceId, LinkPace>>,
}

impl Pace {
    /// From now on there is this cap, or none.
    pub fn set(&self, bytes_s: Option<u64>) {
        let mut bucket = self.lock();
        if bucket.bytes_s != bytes_s {
            *bucket = Bucket { bytes_s, ..Bucket::default() };
        }
    }

    /// How long until something may go; `None` where it may at once.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.lock();
        let bytes_s = bucket.bytes_s?;
        bucket.refill(bytes_s, now);
        if bucket.balance >= 0 {
            return None;
        }
        let nanos = u128::from(bucket.balance.unsigned_abs()) * 1_000_000_000 / u128::from(bytes_s.max(1));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1_000_000)))
    }

    /// The cap, in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.lock().bytes_s
    }

    pub fn is_capped(&self) -> bool {
        self.lock().bytes_s.is_some()
    }

    /// So many bytes go now.
    pub fn spend(&self, bytes: u64, now: Instant) {
        let mut bucket = self.lock();
        if let Some(bytes_s) = bucket.bytes_s {
            bucket.refill(bytes_s, now);
            bucket.balance = bucket.balance.saturating_sub_unsigned(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn refill(&mut self, bytes_s: u64, now: Instant) {
        let Some(at) = self.at else {
            self.at = Some(now);
            return;
        };
        let nanos = now.saturating_duration_since(at).as_nanos();
        let gained = u64::try_from(nanos * u128::from(bytes_s) / 1_000_000_000).unwrap_or(u64::MAX);
        // Less than a byte is not lost: its time counts once there is more of it.
        if gained > 0 {
            let most = i64::try_from(bytes_s / 1000 * BURST_MS).unwrap_or(i64::MAX);
            self.balance = self.balance.saturating_add_unsigned(gained).min(most);
            self.at = Some(now);
        }
    }
}

impl std::ops::Deref for LinkPace {
    type Target = Way;

    fn deref(&self) -> &Way {
        &self.0
    }
}

impl Way {
    fn set(&self, (upload, download): Caps) {
        self.upload.set(upload);
        self.download.set(download);
    }
}

impl Paces {
    /// From now on these caps hold, in bytes per second up and down: for all peers together, and for those named.
    pub fn set(&self, all: Caps, own: &BTreeMap<DeviceId, Caps>) {
        self.shared.set(all);
        let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        // Links that are up go on with the bucket that they have.
        known.retain(|peer, _| own.contains_key(peer));
        for (peer, caps) in own {
            known.entry(*peer).or_default().set(*caps);
        }
    }

    /// The caps for the links with this peer.
    pub fn of(&self, peer: &DeviceId) -> LinkPace {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(peer).unwrap_or(&self.shared).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_cap_nothing_waits() {
        let (pace, now) = (Pace::default(), Instant::now());
        pace.spend(u64::MAX, now);
        assert_eq!(pace.wait(now), None);
    }

    #[test]
    fn a_frame_may_leave_a_debt_that_the_next_one_waits_for() {
        let (pace, start) = (Pace::default(), Instant::now());
        pace.set(Some(1000));
        assert_eq!(pace.wait(start), None);
        pace.spend(5000, start);
        assert_eq!(pace.wait(start), Some(Duration::from_secs(5)));
        assert_eq!(pace.wait(start + Duration::from_secs(4)), Some(Duration::from_secs(1)));
        assert_eq!(pace.wait(start + Duration::from_secs(5)), None);
        // Another cap forgives what is owed.
        pace.spend(5000, start + Duration::from_secs(5));
        pace.set(Some(2000));
        assert_eq!(pace.wait(start + Duration::from_secs(5)), None);
    }

    #[test]
    fn a_peer_with_caps_of_its_own_does_not_share_those_of_all() {
        let (paces, now) = (Paces::default(), Instant::now());
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        paces.set((Some(1000), None), &[(b, (None, None))].into());
        paces.of(&a).upload.spend(9000, now);
        assert!(paces.of(&a).upload.wait(now).is_some() && paces.of(&a).download.wait(now).is_none());
        assert_eq!(paces.of(&b).upload.wait(now), None);
    }

    proptest! {
        #[test]
        fn never_more_goes_than_the_cap_and_one_frame_allow(
            steps in proptest::collection::vec((0u64..400, 1u64..3000), 1..60),
        ) {
            let (pace, start) = (Pace::default(), Instant::now());
            pace.set(Some(1000));
            let (mut at, mut sent) = (start, 0);
            for (ms, bytes) in steps {
                at += Duration::from_millis(ms);
                if pace.wait(at).is_none() {
                    pace.spend(bytes, at);
                    sent += bytes;
                }
                let passed = at.duration_since(start).as_millis() as u64;
                prop_assert!(sent <= passed + BURST_MS + 3000, "{sent} bytes in {passed} ms");
            }
        }
    }
}
