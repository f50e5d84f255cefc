//! What depends on the time of day and on the machine: caps in the quiet hours, battery, the priority of threads.

use std::path::Path;
use std::time::Duration;

use super::metered;
use crate::config::{Caps, Config};

/// How often battery, network and quiet hours are looked at, where the config minds them.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The least time until the next look, so that a clock that stands still makes no busy loop.
const LOOK_SOONEST: Duration = Duration::from_millis(200);
/// Where Linux tells of batteries and chargers.
const POWER_SUPPLIES: &str = "/sys/class/power_supply";
/// How far threads that nobody waits for stand back, as `nice` counts. The kernel gives less of the disk along with it.
#[cfg(target_os = "linux")]
const GENTLE_NICE: i32 = 10;

/// Why nothing is synced at all for now.
pub async fn resting(config: &Config) -> Option<String> {
    let manners = &config.manners;
    if manners.pause_on_battery && is_on_battery(Path::new(POWER_SUPPLIES)) {
        return Some("paused while the computer runs on battery ('pause_on_battery' in the config)".to_owned());
    }
    let is_metered = manners.pause_on_metered && metered::is_metered().await;
    is_metered.then(|| "paused while the network is metered ('pause_on_metered' in the config)".to_owned())
}

/// When to look again at what no command or file tells of; `None` where the config minds nothing of it.
pub fn next_look(config: &Config, now_ms: i64) -> Option<Duration> {
    let ends = config.folders.iter().filter_map(|folder| folder.paused_until_ms).filter(|until| now_ms < *until).min();
    let until_end = ends.map(|until| Duration::from_millis((until - now_ms).unsigned_abs()));
    let manners = &config.manners;
    let minds_more = manners.pause_on_battery || manners.pause_on_metered || config.limits.quiet.is_some();
    // The wall clock may jump, and the machine may sleep.
    let regular = (minds_more || until_end.is_some()).then_some(LOOK_EVERY);
    until_end.into_iter().chain(regular).min().map(|wait| wait.max(LOOK_SOONEST))
}

/// The caps that hold now.
pub fn caps(config: &Config) -> Caps {
    let now = jiff::Zoned::now();
    config.limits.at(u16::try_from(i16::from(now.hour()) * 60 + i16::from(now.minute())).unwrap_or_default())
}

/// True where the machine has a battery that is being drained and no charger that delivers.
fn is_on_battery(supplies: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(supplies) else { return false };
    let (mut is_drained, mut is_charged) = (false, false);
    for supply in entries.flatten() {
        let read = |name: &str| {
            let text = std::fs::read_to_string(supply.path().join(name)).unwrap_or_default();
            text.trim().to_owned()
        };
        // The batteries of mice and headsets say that they are of a device.
        if read("scope") == "Device" {
            continue;
        }
        match read("type").as_str() {
            "Battery" => is_drained |= read("status") == "Discharging",
            "Mains" | "USB" | "Wireless" => is_charged |= read("online") == "1",
            _ => {}
        }
    }
    is_drained && !is_charged
}

/// Does a work on a thread of its own that stands back behind all others, and so do the threads that it starts.
pub fn gently<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            stand_back();
            work()
        });
        match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Of this thread alone. An unprivileged thread cannot take it back, hence a thread of its own.
fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, GENTLE_NICE) {
        tracing::debug!(%error, "a scan keeps its usual priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(dir: &Path, name: &str, facts: &[(&str, &str)]) {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        facts.iter().for_each(|(key, value)| std::fs::write(dir.join(name).join(key), format!("{value}\n")).unwrap());
    }

    #[test]
    fn only_a_battery_that_drains_without_a_charger_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_on_battery(&dir.path().join("missing")) && !is_on_battery(dir.path()));
        supply(dir.path(), "hid", &[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")]);
        assert!(!is_on_battery(dir.path()));
        supply(dir.path(), "BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        assert!(is_on_battery(dir.path()));
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "1")]);
        assert!(!is_on_battery(dir.path()));
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        supply(dir.path(), "BAT0", &[("type", "Battery"), ("status", "Full")]);
        assert!(!is_on_battery(dir.path()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_gentle_thread_stands_back_and_the_others_do_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert!(gently(nice) >= GENTLE_NICE);
        assert_eq!(nice(), before);
    }
}
