//! What was: earlier versions in history, conflict copies, the log.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::folder::{CONFLICTS_MAX, unreadable};
use super::{Asker, View};
use crate::api::{ConflictItem, EventItem, HistoryItem, When};
use crate::config::Folder;
use crate::core::conflict;
use crate::core::id::hex;
use crate::core::path::RelPath;
use crate::index::{EVENTS_MAX, EventRow, HistoryRow, IndexError, Reader};

/// Versions that are listed at once.
const VERSIONS_MAX: usize = 10_000;
/// Bytes of a hash in the id of a version: enough for all that one history holds.
const ID_BYTES: usize = 6;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// The id by which people name a version in history: hexadecimal digits.
pub fn version_id(row: &HistoryRow) -> String {
    hex(&Sha256::digest(row.slot.as_bytes())[..ID_BYTES])
}

/// The version of a path that `when` names; `None` where history has none.
pub fn version_at(reader: &Reader, path: &RelPath, when: &When) -> Result<Option<HistoryRow>, IndexError> {
    let versions = reader.history_of(path)?;
    Ok(match when {
        When::Latest => versions.into_iter().next(),
        // What was displaced first after that time lay there at that time.
        When::AtMs(ms) => versions.into_iter().take_while(|row| row.displaced_ms > *ms).last(),
        When::Id(id) => {
            let id = id.to_ascii_lowercase();
            let mut fitting = versions.into_iter().filter(|row| version_id(row).starts_with(&id));
            let first = fitting.next();
            if fitting.next().is_some() { None } else { first }
        }
    })
}

/// Conflict copies in all folders.
pub fn conflicts(asker: Asker) -> anyhow::Result<Vec<ConflictItem>> {
    let of_folder = |view: &View| -> Result<Vec<ConflictItem>, IndexError> {
        let records = view.reader.conflict_copies(CONFLICTS_MAX)?;
        let item = |record: crate::index::Record| {
            let entry = record.entry;
            Some(ConflictItem {
                folder: view.folder.label.clone(),
                original: conflict::original_of(&entry.path)?.to_string(),
                path: entry.path.to_string(),
                mtime_ms: entry.mtime_ns / 1_000_000,
                bytes: entry.kind.content().map_or(0, |content| content.size),
                device: asker.author(&entry.author),
            })
        };
        Ok(records.into_iter().filter_map(item).collect())
    };
    all_folders(asker, of_folder)
}

/// The latest events of all folders, oldest first.
pub fn events(asker: Asker, count: usize) -> anyhow::Result<Vec<EventItem>> {
    let of_folder = |view: &View| -> Result<Vec<EventItem>, IndexError> {
        let rows = view.reader.last_events(count.min(EVENTS_MAX))?;
        Ok(rows.into_iter().map(|row| event(view, row)).collect())
    };
    let mut events = all_folders(asker, of_folder)?;
    events.sort_by_key(|event| event.time_ms);
    Ok(events.split_off(events.len().saturating_sub(count)))
}

/// Earlier versions of an absolute path, or of all below it, the latest first.
pub fn history(asker: Asker, path: &Path) -> anyhow::Result<Vec<HistoryItem>> {
    let folder = asker
        .config
        .folder_at(path)
        .with_context(|| format!("{} is in none of your folders; 'p2psync folder list' shows them", path.display()))?;
    let rest = path.strip_prefix(&folder.path).map(|rest| rest.as_os_str().as_bytes()).unwrap_or_default();
    let rel = if rest.is_empty() { None } else { Some(RelPath::parse(rest).context("no history is kept of this")?) };
    let of_folder = |view: &View| -> Result<Vec<HistoryItem>, IndexError> {
        let mut rows = view.reader.history_below(rel.as_ref(), VERSIONS_MAX)?;
        if let Some(rel) = &rel {
            rows.extend(view.reader.history_of(rel)?);
        }
        rows.sort_by(|a, b| b.displaced_ms.cmp(&a.displaced_ms).then_with(|| b.slot.cmp(&a.slot)));
        let log = view.reader.last_events(EVENTS_MAX)?;
        rows.into_iter().map(|row| version(view, &log, row)).collect()
    };
    match asker.open(folder).and_then(|view| of_folder(&view)) {
        Err(error) if !error.is_missing() => bail!(unreadable(&error)),
        items => Ok(items.unwrap_or_default()),
    }
}

fn version(view: &View, log: &[EventRow], row: HistoryRow) -> Result<HistoryItem, IndexError> {
    // What displaced it was logged at the same moment.
    let logged = log.iter().rev().find(|e| e.at_ms == row.displaced_ms && e.path.as_ref() == Some(&row.path));
    let displaced_by = match logged {
        _ if !row.by_remote => Some(view.asker.config.name.clone()),
        Some(event) => from_device(view, &event.text).map(|(name, _)| name),
        None => None,
    };
    let is_deleted = match logged {
        Some(event) => event.kind == "deleted",
        None => view.reader.record(&row.path)?.is_none_or(|record| !record.entry.is_live()),
    };
    Ok(HistoryItem {
        id: version_id(&row),
        path: row.path.to_string(),
        folder: view.folder.label.clone(),
        displaced_ms: row.displaced_ms,
        mtime_ms: row.disk.mtime_ns / 1_000_000,
        bytes: row.disk.size,
        displaced_by,
        reason: if is_deleted { "deleted" } else { "replaced" }.to_owned(),
        expires_ms: Some(row.displaced_ms.saturating_add(i64::from(view.asker.config.sync.history_days) * DAY_MS)),
    })
}

fn event(view: &View, row: EventRow) -> EventItem {
    let (device, text) = match from_device(view, &row.text) {
        Some((name, text)) => (Some(name), text),
        None => (None, row.text),
    };
    let text = match &row.path {
        Some(path) => format!("{path}: {text}"),
        None => text,
    };
    EventItem {
        time_ms: row.at_ms,
        folder: Some(view.folder.label.clone()),
        kind: row.kind,
        path: row.path.map(|path| path.to_string()),
        device,
        text,
    }
}

/// The peer that a line of the log speaks of by its short id, and the line with the peer's name in place of that.
fn from_device(view: &View, text: &str) -> Option<(String, String)> {
    view.asker.config.peers.iter().find_map(|peer| {
        let short = peer.id.short();
        let is_word = |word: &str| word.trim_end_matches([';', ':', ',', '.']) == short;
        text.split(' ').any(is_word).then(|| (peer.name.clone(), text.replacen(&short, &peer.name, 1)))
    })
}

/// What all folders have; a folder whose index can't be read is left out with a warning, unless none can.
fn all_folders<T>(asker: Asker, read: impl Fn(&View) -> Result<Vec<T>, IndexError>) -> anyhow::Result<Vec<T>> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for folder in &asker.config.folders {
        match asker.open(folder).and_then(|view| read(&view)) {
            Ok(items) => all.extend(items),
            Err(error) if error.is_missing() => {}
            Err(error) => failed.push((folder, error)),
        }
    }
    for (folder, error) in &failed {
        let Folder { label, .. } = folder;
        tracing::warn!("the folder {label} is left out: {}", unreadable(error));
    }
    match failed.first() {
        Some((_, error)) if failed.len() == asker.config.folders.len() => bail!(unreadable(error)),
        _ => Ok(all),
    }
}
