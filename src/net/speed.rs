//! How fast a link takes what it is given.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes before which nothing is said: the first ones only fill buffers on the way.
const KNOWN_FROM_BYTES: u64 = 4 * 1024 * 1024;
/// Time spent sending before which nothing is said, unless so many bytes went faster.
const KNOWN_FROM: Duration = Duration::from_millis(500);
/// What is remembered loses half its weight after so much time spent sending.
const MEMORY: Duration = Duration::from_secs(2);

/// Bytes and the time that sending them took; pauses in which there was nothing to send do not count.
#[derive(Debug, Default)]
pub struct Speed(Mutex<Sent>);

#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    took: Duration,
    is_known: bool,
}

impl Speed {
    /// So many bytes were taken within so much time.
    pub fn note(&self, bytes: usize, took: Duration) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.bytes += bytes as u64;
        sent.took += took;
        sent.is_known |= sent.bytes >= KNOWN_FROM_BYTES || sent.took >= KNOWN_FROM;
        if sent.took >= MEMORY {
            sent.bytes /= 2;
            sent.took /= 2;
        }
    }

    /// Bytes per second, once enough was sent to tell.
    pub fn per_second(&self) -> Option<u64> {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = sent.took.as_micros().max(1);
        sent.is_known.then(|| u64::try_from(u128::from(sent.bytes) * 1_000_000 / micros).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_gets_slower_is_known_as_slow_within_seconds() {
        let speed = Speed::default();
        speed.note(100_000, Duration::from_micros(100));
        assert_eq!(speed.per_second(), None);
        (0..100).for_each(|_| speed.note(100_000, Duration::from_micros(1000)));
        let fast = speed.per_second().unwrap();
        assert!((90_000_000..=110_000_000).contains(&fast), "{fast}");
        (0..80).for_each(|_| speed.note(100_000, Duration::from_millis(100)));
        let slow = speed.per_second().unwrap();
        assert!((1_000_000..=3_000_000).contains(&slow), "{slow}");
    }

    #[test]
    fn a_slow_link_is_known_as_slow_without_many_bytes() {
        let speed = Speed::default();
        (0..6).for_each(|_| speed.note(10_000, Duration::from_millis(100)));
        assert_eq!(speed.per_second(), Some(100_000));
    }
}
