//! The one place that reads clocks for the folders' state machines.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::net::random_bytes;
use crate::sync::Now;

/// The present moment with a fresh random number.
pub fn now() -> Now {
    Now { wall_ns: wall_ns(), mono_ms: mono_ms(), random: u64::from_le_bytes(random_bytes()) }
}

/// Wall clock, ns since 1970; 0 for clocks set before that.
pub fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Wall clock, ms since 1970.
pub fn wall_ms() -> i64 {
    wall_ns() / 1_000_000
}

/// Ms since the agent started.
pub fn mono_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
