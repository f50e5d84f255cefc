//! Removing versions from history because the user says so. Nothing outside history is touched.

use super::retention::take_all_away;
use super::shared::FolderHandle;
use crate::api::PruneReport;
use crate::core::path::RelPath;
use crate::index::Reader;

/// Versions that go in one step.
const PAGE: usize = 500;

/// Removes what was put into the history of these folders before a time (ms since 1970), or says how much that is.
pub fn all(handles: &[FolderHandle], before_ms: i64, dry_run: bool) -> Result<Vec<PruneReport>, String> {
    if handles.is_empty() {
        return Err("no such folder is running".to_owned());
    }
    handles.iter().map(|handle| one(handle, before_ms, dry_run)).collect()
}

fn one(handle: &FolderHandle, before_ms: i64, dry_run: bool) -> Result<PruneReport, String> {
    // What is being brought back must not go at the same time.
    let _turn =
        handle.rewinding.try_lock().map_err(|_| "something is being taken back in this folder; try again later")?;
    let reader = Reader::open(&handle.index_path).map_err(|e| e.to_string())?;
    let mut report = PruneReport { folder: handle.label.clone(), before_ms, dry_run, versions: 0, bytes: 0 };
    let mut after: Option<(i64, RelPath)> = None;
    loop {
        let from = after.as_ref().map(|(ms, slot)| (*ms, slot));
        let rows = reader.history_by_age(from, before_ms, PAGE).map_err(|e| e.to_string())?;
        let Some(last) = rows.last() else { return Ok(report) };
        after = Some((last.displaced_ms, last.slot.clone()));
        let (versions, bytes) = if dry_run {
            (rows.len() as u64, rows.iter().map(|row| row.disk.size).fold(0, u64::saturating_add))
        } else {
            take_all_away(handle, rows)?
        };
        report.versions += versions;
        report.bytes = report.bytes.saturating_add(bytes);
    }
}
