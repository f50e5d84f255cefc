//! Named points at which a test can end the process, as a power cut would.
//!
//! Without the feature `testing` there is nothing of it in the program.

/// Environment variable `<name>` or `<name>:<n>`: the process is killed at that point, when it comes there the n-th time.
/// With `@<file>` the order stands in that file, which may change while the process runs; none is in force without it.
pub const VARIABLE: &str = "P2PSYNC_TEST_KILL_AT";

/// All points, in the order in which things happen: one after every step that a crash could cut off from the next.
pub const ALL: &[&str] = &[
    "home.locked",
    "identity.written",
    "identity.placed",
    "identity.durable",
    "config.written",
    "config.synced",
    "config.renamed",
    "config.durable",
    "config.reloading",
    "config.reloaded",
    "pairing.asked",
    "pairing.answered",
    "pairing.proved",
    "pairing.used_up",
    "pairing.confirmed",
    "pairing.greeted",
    "pairing.agreed",
    "pairing.stored",
    "folder.rooted",
    "folder.owned",
    "folder.marker_created",
    "folder.marker_written",
    "folder.made",
    "index.migrating",
    "index.numbered",
    "index.migrated",
    "index.opened",
    "index.damaged_moved",
    "index.damaged_log_moved",
    "index.run_begun",
    "index.epoch_begun",
    "index.committing",
    "index.committed",
    "index.durable",
    "index.closing",
    "index.closed",
    "rules.read",
    "stage.created",
    "stage.reserved",
    "stage.written",
    "stage.small_created",
    "stage.small_written",
    "stage.copied",
    "stage.made_ready",
    "stage.synced",
    "stage.all_synced",
    "stage.discarded",
    "apply.prepared",
    "apply.checked",
    "apply.placed",
    "apply.slot_made",
    "apply.in_slot",
    "apply.swapped",
    "apply.copy_named",
    "apply.removed",
    "apply.moved",
    "apply.directory_made",
    "apply.directory_removed",
    "apply.directory_replaced",
    "apply.mode_set",
    "apply.settled",
    "apply.durable",
    "apply.reported",
    "restore.set_aside",
    "restore.placed",
    "restore.durable",
    "history.expired",
    "recover.history",
    "recover.staged",
    "recover.put_back",
    "recover.copied",
    "recover.found",
];

/// Ends the process here, by SIGKILL, if a test has asked for it.
///
/// # Panics
///
/// Where the name is not in [`ALL`], so that tests go to every point that there is.
#[cfg(feature = "testing")]
pub fn hit(name: &str) {
    use std::sync::{LazyLock, Mutex, PoisonError};

    static ORDER: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    /// The order in force and how often its point was reached.
    static HITS: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

    assert!(ALL.contains(&name), "{name} is no known point");
    let Some(given) = ORDER.as_deref() else { return };
    let order = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
        None => given.to_owned(),
    };
    let (wanted, count) = order.trim().split_once(':').unwrap_or((order.trim(), "1"));
    if wanted != name {
        return;
    }
    let mut hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
    if hits.0 != order {
        *hits = (order.clone(), 0);
    }
    hits.1 += 1;
    if count.parse() == Ok(hits.1) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn hit(_name: &str) {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::ALL;

    fn collect(directory: &Path, found: &mut Vec<String>) {
        for item in std::fs::read_dir(directory).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if !path.ends_with("src/failpoint.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split("failpoint::hit(\"").skip(1);
                found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn the_list_names_every_point_in_the_sources_and_no_other() {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ALL.iter().copied().collect());
        assert_eq!(found.len(), ALL.len(), "a name is listed twice");
    }
}
