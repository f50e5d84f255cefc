//! Whether the system lets this user watch as many directories as the folders have.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Patient;
use super::check::{Check, Fact, Outcome};
use crate::cli::output::{count, number};

/// Where the system says how many directories a user may watch, and how many programs may watch.
const WATCHES_LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
/// A limit that is recommended is at least this, the usual one of systems with enough memory.
const RECOMMENDED_MIN: u64 = 524_288;

/// Checks of the watch. Nothing on systems that have no such limit.
pub fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks = Vec::new();
    let limit = std::fs::read_to_string(WATCHES_LIMIT).ok().and_then(|text| text.trim().parse().ok());
    if let Some(allowed) = limit {
        // One for the folder itself, and one for each directory in it.
        let needed = patient.status.folders.iter().map(|f| f.directories.saturating_add(1)).sum();
        checks.push(budget(needed, allowed, used_by_others(Path::new("/proc"))));
    }
    for (item, folder) in patient.status.folders.iter().enumerate() {
        if patient.status.running && !folder.watch.is_empty() && folder.watch != "ok" {
            let check = Check::new("Watch of", "watch", Outcome::Warn, folder.watch.clone());
            checks.push(check.about(folder.label.clone()).item(item));
        }
    }
    checks
}

fn budget(needed: u64, allowed: u64, others: u64) -> Check {
    let fits = needed.saturating_add(others) <= allowed;
    let text = format!(
        "{} to watch, {} allowed, {} used by other programs",
        count(needed, "directory", "directories"),
        number(allowed),
        number(others)
    );
    let check = Check::new("Watching", "watches", if fits { Outcome::Ok } else { Outcome::Warn }, text)
        .fact("needed", Fact::Number(needed))
        .fact("allowed", Fact::Number(allowed))
        .fact("used_by_others", Fact::Number(others));
    if fits {
        return check;
    }
    let enough = needed.saturating_add(others).saturating_mul(2).max(RECOMMENDED_MIN).next_power_of_two();
    check.remedy(format!(
        "the rest is found by scanning only, up to an hour later. To raise the limit, now and at every start:\n\
         echo fs.inotify.max_user_watches={enough} | sudo tee /etc/sysctl.d/60-p2psync.conf && sudo sysctl --system"
    ))
}

/// Watches of this user's other programs, as far as the system tells.
fn used_by_others(processes: &Path) -> u64 {
    let user = rustix::process::getuid().as_raw();
    let Ok(all) = std::fs::read_dir(processes) else { return 0 };
    let mut total: u64 = 0;
    for process in all.flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if !is_process || process.metadata().map_or(true, |found| found.uid() != user) {
            continue;
        }
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.trim() == "p2psync" {
            continue;
        }
        let files = std::fs::read_dir(process.path().join("fdinfo")).into_iter().flatten().flatten();
        total += files.map(|file| watches_in(&std::fs::read_to_string(file.path()).unwrap_or_default())).sum::<u64>();
    }
    total
}

fn watches_in(fdinfo: &str) -> u64 {
    fdinfo.lines().filter(|line| line.starts_with("inotify wd:")).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_comes_with_the_line_to_type() {
        assert_eq!(budget(5_000, 8_192, 100).outcome, Outcome::Ok);
        let told = budget(8_000, 8_192, 500);
        assert_eq!(told.outcome, Outcome::Warn);
        assert!(told.remedy.unwrap().contains("fs.inotify.max_user_watches=524288"));
        assert!(budget(1 << 20, 8_192, 0).remedy.unwrap().contains("max_user_watches=2097152"));
    }

    #[test]
    fn watches_are_counted_in_what_the_system_says() {
        assert_eq!(watches_in("pos: 0\nflags: 02\ninotify wd:1 ino:2\ninotify wd:2 ino:3\n"), 2);
    }
}
