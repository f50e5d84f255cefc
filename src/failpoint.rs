//! Named points at which a test can end the process, as a power cut would.
//!
//! Without the feature `testing` there is nothing of it in the program.

/// Environment variable `<name>` or `<name>:<n>`: the process is killed at that point, when it comes there the n-th time.
pub const VARIABLE: &str = "P2PSYNC_TEST_KILL_AT";

/// Ends the process here, by SIGKILL, if a test has asked for it.
#[cfg(feature = "testing")]
pub fn hit(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ORDER: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static HITS: AtomicU32 = AtomicU32::new(0);
    let order = ORDER.get_or_init(|| {
        let order = std::env::var(VARIABLE).ok()?;
        let (name, count) = order.split_once(':').unwrap_or((&order, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = order
        && wanted == name
        && HITS.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn hit(_name: &str) {}
