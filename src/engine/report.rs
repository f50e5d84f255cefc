//! What commands show, read from the index where no agent runs.

use std::path::Path;

use crate::api::{ConflictItem, EventItem, HistoryItem, PathStatus, Status};
use crate::config::Config;
use crate::home::Home;

/// This device, its folders and its peers, as the index last knew them.
pub fn status(home: &Home, config: &Config) -> anyhow::Result<Status> {
    let _ = (home, config);
    anyhow::bail!("not available yet")
}

/// One absolute path.
pub fn path_status(home: &Home, config: &Config, path: &Path) -> anyhow::Result<PathStatus> {
    let _ = (home, config, path);
    anyhow::bail!("not available yet")
}

/// Conflict copies in all folders.
pub fn conflicts(home: &Home, config: &Config) -> anyhow::Result<Vec<ConflictItem>> {
    let _ = (home, config);
    anyhow::bail!("not available yet")
}

/// Earlier versions of an absolute path, the latest first.
pub fn history(home: &Home, config: &Config, path: &Path) -> anyhow::Result<Vec<HistoryItem>> {
    let _ = (home, config, path);
    anyhow::bail!("not available yet")
}

/// The latest events of all folders, oldest first.
pub fn events(home: &Home, config: &Config, count: usize) -> anyhow::Result<Vec<EventItem>> {
    let _ = (home, config, count);
    anyhow::bail!("not available yet")
}
