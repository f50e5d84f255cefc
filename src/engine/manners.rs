//! What depends on the time of day and on the machine: caps in the quiet hours, battery, the priority of threads.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::metered;
use crate::config::{Caps, Config};

/// How often battery and network are looked at, where the config minds them.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The longest until the next look where only the time of day matters: the clock may be set, and the machine may sleep,
/// which no wait counts. A pause ends this much too late at most.
const TIME_LOOK_MAX: Duration = Duration::from_secs(60);
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
    let until_change = until_quiet_changes(config, &zoned(now_ms));
    let by_time = until_end.into_iter().chain(until_change).min().map(|wait| wait.min(TIME_LOOK_MAX));
    let minds_more = config.manners.pause_on_battery || config.manners.pause_on_metered;
    let regular = minds_more.then_some(LOOK_EVERY);
    by_time.into_iter().chain(regular).min().map(|wait| wait.max(LOOK_SOONEST))
}

/// Until the quiet hours begin or end next.
fn until_quiet_changes(config: &Config, now: &Zoned) -> Option<Duration> {
    let minutes = config.limits.minutes_to_change(minute_of_day(now))?;
    // The minute that now is has begun already.
    let begun = Duration::from_millis((now.timestamp().as_millisecond().rem_euclid(60_000)).unsigned_abs());
    Some(Duration::from_secs(u64::from(minutes) * 60).saturating_sub(begun))
}

fn zoned(now_ms: i64) -> Zoned {
    Timestamp::from_millisecond(now_ms).unwrap_or_default().to_zoned(TimeZone::system())
}

fn minute_of_day(now: &Zoned) -> u16 {
    u16::try_from(i16::from(now.hour()) * 60 + i16::from(now.minute())).unwrap_or_default()
}

/// The caps that hold now.
pub fn caps(config: &Config) -> Caps {
    config.limits.at(minute_of_day(&Zoned::now()))
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
    fn what_only_the_time_of_day_changes_is_looked_at_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let home = crate::home::Home::at(dir.path(), dir.path().into());
        let config = |text: &str| {
            std::fs::write(home.config_file(), text).unwrap();
            crate::config::load(&home).unwrap()
        };
        let now_ms = 1_795_444_127_500;
        assert_eq!(next_look(&config(""), now_ms), None);
        let quiet = config("[limits]\nquiet_hours = \"08:00-18:00\"\nquiet_upload_kib_s = 100\n");
        let at = |time: &str| {
            let local: jiff::civil::DateTime = time.parse().unwrap();
            until_quiet_changes(&quiet, &local.to_zoned(TimeZone::UTC).unwrap()).unwrap()
        };
        assert_eq!(at("2026-11-23T07:59:30.25"), Duration::from_millis(29_750));
        assert_eq!(at("2026-11-23T18:00:00"), Duration::from_secs(14 * 3600));
        // Not every half a minute, but before long, for clocks are set and machines sleep.
        let soon = next_look(&quiet, now_ms).unwrap();
        assert!(soon <= TIME_LOOK_MAX);
        let mut paused = config("[[folder]]\nid = \"docs\"\npath = \"~/docs\"\n");
        paused.folders[0].paused_until_ms = Some(now_ms + 45_000);
        assert_eq!(next_look(&paused, now_ms), Some(Duration::from_secs(45)));
        assert_eq!(next_look(&paused, now_ms + 45_000), None);
        paused.folders[0].paused_until_ms = Some(now_ms + 86_400_000);
        assert_eq!(next_look(&paused, now_ms), Some(TIME_LOOK_MAX));
        let battery = config("[manners]\npause_on_battery = true\n");
        assert_eq!(next_look(&battery, now_ms), Some(LOOK_EVERY));
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
