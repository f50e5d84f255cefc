//! What was: earlier versions in history, conflict copies, the log.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::folder::{CONFLICTS_MAX, unreadable};
use super::{Asker, View};
use crate::api::{ConflictBase, ConflictItem, ConflictSide, EventItem, FolderProblem, HistoryItem, HistoryUsage, When};
use crate::config::{Config, Folder};
use crate::core::conflict;
use crate::core::entry::Entry;
use crate::core::id::{DeviceId, hex};
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::fs::history;
use crate::fs::root::Root;
use crate::index::{EVENTS_MAX, EventRow, HistoryRow, IndexError, ProblemRow, Reader};

/// Versions that are listed at once.
const VERSIONS_MAX: usize = 10_000;
/// Bytes of a hash in the id of a version: enough for all that one history holds.
const ID_BYTES: usize = 6;
/// Problems of one folder that are listed at once.
const PROBLEMS_MAX: usize = 10_000;
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
        // What was displaced first after that time lay there at that time, unless it came only later: then what
        // lay there is not known, be it nothing or a version that has expired.
        When::AtMs(ms) => {
            let first = versions.into_iter().take_while(|row| row.displaced_ms > *ms).last();
            first.filter(|row| row.stood_since_ms() <= *ms)
        }
        When::Id(id) => {
            let id = id.to_ascii_lowercase();
            let mut fitting = versions.into_iter().filter(|row| version_id(row).starts_with(&id));
            let first = fitting.next();
            if fitting.next().is_some() { None } else { first }
        }
    })
}

/// Trouble with single items in all folders.
pub fn problems(asker: Asker) -> anyhow::Result<Vec<FolderProblem>> {
    let of_folder = |view: &View| -> Result<Vec<FolderProblem>, IndexError> {
        let rows = view.reader.problems_below(None, ProblemKind::NoSource, PROBLEMS_MAX)?;
        let item = |row: ProblemRow| FolderProblem {
            folder: view.folder.id.to_string(),
            label: view.folder.label.clone(),
            path: row.path.to_string(),
            kind: row.problem.kind.name().to_owned(),
            text: row.problem.text,
            since_ms: row.since_ms,
        };
        Ok(rows.into_iter().map(item).collect())
    };
    all_folders(asker, of_folder)
}

/// Conflict copies in all folders.
pub fn conflicts(asker: Asker) -> anyhow::Result<Vec<ConflictItem>> {
    let of_folder = |view: &View| -> Result<Vec<ConflictItem>, IndexError> {
        let mut records = view.reader.conflict_copies(CONFLICTS_MAX)?;
        // One that was settled a moment ago is gone before the index knows.
        records.retain(|record| !is_gone(&place_of(view, &record.entry.path)));
        let mut items = Vec::with_capacity(records.len());
        let mut originals: BTreeMap<RelPath, u32> = BTreeMap::new();
        for original in records.iter().filter_map(|record| conflict::original_of(&record.entry.path)) {
            *originals.entry(original).or_default() += 1;
        }
        for record in records {
            if let Some(original) = conflict::original_of(&record.entry.path) {
                // Of several, this one may have lost to another copy, which came from something else.
                let is_only = originals.get(&original) == Some(&1);
                items.push(conflict_item(view, record.entry, original, is_only)?);
            }
        }
        Ok(items)
    };
    all_folders(asker, of_folder)
}

fn place_of(view: &View, path: &RelPath) -> PathBuf {
    view.folder.path.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// True where nothing lies there, in a directory that can be looked into.
fn is_gone(place: &Path) -> bool {
    let is_missing = |path: &Path| path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    is_missing(place) && place.parent().is_some_and(|above| !is_missing(above))
}

fn conflict_item(view: &View, copy: Entry, original: RelPath, is_only: bool) -> Result<ConflictItem, IndexError> {
    let asker = view.asker;
    let there = view.reader.record(&original)?.map(|record| record.entry);
    let live = there.as_ref().filter(|entry| entry.is_live());
    let size = |entry: &Entry| entry.kind.content().map_or(0, |content| content.size);
    let is_mine = |entry: &Entry| entry.author == asker.device;
    let mine = match live.map(is_mine) {
        Some(true) if !is_mine(&copy) => Some("original"),
        None | Some(false) if is_mine(&copy) => Some("copy"),
        _ => None,
    };
    let place = place_of(view, &copy.path);
    let base = match &there {
        Some(entry) if is_only => base_of(view, &copy, entry)?,
        _ => None,
    };
    Ok(ConflictItem {
        folder: view.folder.label.clone(),
        original: original.to_string(),
        path: copy.path.to_string(),
        mtime_ms: copy.mtime_ns / 1_000_000,
        bytes: size(&copy),
        device: asker.author(&copy.author),
        live: live.map(|entry| ConflictSide {
            mtime_ms: entry.mtime_ns / 1_000_000,
            bytes: size(entry),
            device: asker.author(&entry.author),
        }),
        mine: mine.map(str::to_owned),
        base,
        place: place.to_string_lossy().into_owned(),
    })
}

/// The version that both came from, as the device noted that made the copy. None is given where that is not certain: the
/// wrong one would have a merge take back what was changed on one side.
fn base_of(view: &View, copy: &Entry, there: &Entry) -> Result<Option<ConflictBase>, IndexError> {
    let ([id], true) = (&copy.superseded[..], conflict::is_as_made(copy)) else { return Ok(None) };
    // The copy lost to what lay there then, of which this has to be a later version.
    if there.kind.content_id() == Some(*id) || !there.superseded.contains(id) {
        return Ok(None);
    }
    let versions = view.reader.history_of(&there.path)?;
    let row = versions.into_iter().find(|row| row.content.is_some_and(|content| content.id == *id));
    Ok(row.map(|row| ConflictBase {
        id: version_id(&row),
        mtime_ms: row.disk.mtime_ns / 1_000_000,
        bytes: row.disk.size,
        place: history::place(&view.folder.path, &row.slot).to_string_lossy().into_owned(),
    }))
}

/// How much the history of a folder holds, or of all.
pub fn usage(asker: Asker, folder: Option<&str>) -> anyhow::Result<Vec<HistoryUsage>> {
    let sync = &asker.config.sync;
    let of_folder = |view: &View| -> Result<Vec<HistoryUsage>, IndexError> {
        if folder.is_some_and(|id| id != view.folder.id.as_str()) {
            return Ok(Vec::new());
        }
        let (versions, oldest_ms) = view.reader.history_extent()?;
        let root = Root::new(view.folder.path.clone(), view.folder.id.clone()).open().ok();
        let disk_bytes = root.and_then(|root| root.disk_bytes().ok());
        Ok(vec![HistoryUsage {
            folder: view.folder.label.clone(),
            id: view.folder.id.to_string(),
            versions,
            bytes: view.reader.history_bytes()?,
            oldest_ms,
            days: sync.history_days,
            limit_bytes: disk_bytes.map(|bytes| sync.history_max.bytes(bytes)),
        }])
    };
    all_folders(asker, of_folder)
}

/// The latest events of all folders, oldest first.
pub fn events(asker: Asker, count: usize) -> anyhow::Result<Vec<EventItem>> {
    let of_folder = |view: &View| -> Result<Vec<EventItem>, IndexError> {
        let rows = view.reader.last_events(count.min(EVENTS_MAX))?;
        Ok(rows.into_iter().map(|row| event(view.asker.config, &view.folder.label, row)).collect())
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
        _ if !row.by_remote || row.displaced_by == Some(DeviceId::NONE) => Some(view.asker.config.name.clone()),
        _ if row.displaced_by.is_some() => row.displaced_by.map(|peer| view.asker.name(&peer)),
        Some(event) => from_device(view.asker.config, &event.text).map(|(name, _)| name),
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
        placed_ms: row.placed_ms,
        bytes: row.disk.size,
        displaced_by,
        reason: if is_deleted { "deleted" } else { "replaced" }.to_owned(),
        expires_ms: Some(row.displaced_ms.saturating_add(i64::from(view.asker.config.sync.history_days) * DAY_MS)),
        only_on: None,
    })
}

/// An event of the folder with this label, for people.
pub fn event(config: &Config, label: &str, row: EventRow) -> EventItem {
    let (device, text) = match from_device(config, &row.text) {
        Some((name, text)) => (Some(name), text),
        None => (None, row.text),
    };
    let text = match &row.path {
        Some(path) => format!("{path}: {text}"),
        None => text,
    };
    EventItem {
        time_ms: row.at_ms,
        folder: Some(label.to_owned()),
        kind: row.kind,
        path: row.path.map(|path| path.to_string()),
        device,
        text,
    }
}

/// The peer that a line of the log speaks of by its short id, and the line with the peer's name in place of that.
fn from_device(config: &Config, text: &str) -> Option<(String, String)> {
    config.peers.iter().find_map(|peer| {
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn displaced(world: &mut World, slot: &str, path: &str, at_ms: i64) -> HistoryRow {
        let row = HistoryRow {
            slot: rel(slot),
            path: rel(path),
            content: None,
            disk: slot_disk(12),
            author: ME,
            displaced_ms: at_ms,
            by_remote: true,
            brought_by: None,
            displaced_by: None,
            placed_ms: None,
        };
        world.index.add_history(&row).unwrap();
        row
    }

    #[test]
    fn history_lists_a_path_or_all_below_it_with_who_displaced_it() {
        let mut world = World::running(&[]);
        displaced(&mut world, "1", "d/a", 100);
        displaced(&mut world, "2", "d/a", 200);
        displaced(&mut world, "3", "d/b", 150);
        displaced(&mut world, "4", "d-x", 999);
        let log = format!("updated by {}; the old version is in history", DESK.short());
        world.index.log(100, "updated", Some(&rel("d/a")), &log).unwrap();
        world.index.log(200, "deleted", Some(&rel("d/a")), &format!("deleted by {}", PHONE.short())).unwrap();
        // The log forgets sooner than history does.
        let row = displaced(&mut world, "5", "d/forgotten", 50);
        world.index.add_history(&HistoryRow { displaced_by: Some(PHONE), ..row }).unwrap();
        let forgotten = history(world.asker(), &world.place("d/forgotten")).unwrap();
        assert_eq!(forgotten[0].displaced_by.as_deref(), Some("phone"));
        let items = history(world.asker(), &world.place("d/a")).unwrap();
        let told: Vec<_> =
            items.iter().map(|i| (i.displaced_ms, i.reason.as_str(), i.displaced_by.as_deref())).collect();
        assert_eq!(told, [(200, "deleted", Some("phone")), (100, "replaced", Some("desk"))]);
        assert_eq!((items[0].bytes, items[0].mtime_ms, items[0].path.as_str()), (12, 7, "d/a"));
        let days = i64::from(world.config.sync.history_days);
        assert_eq!(items[0].expires_ms, Some(200 + days * DAY_MS));
        let of = |path: &str| history(world.asker(), &world.place(path)).unwrap().len();
        assert_eq!((of("d"), of(""), of("none")), (4, 5, 0));
        assert!(history(world.asker(), Path::new("/elsewhere")).is_err());
    }

    #[test]
    fn a_version_is_found_by_time_or_id() {
        let mut world = World::alone();
        let rows: Vec<HistoryRow> =
            [(1, 100), (2, 200), (3, 300)].map(|(n, at)| displaced(&mut world, &n.to_string(), "a", at)).to_vec();
        let view = world.view();
        let at = |when| version_at(&view.reader, &rel("a"), &when).unwrap().map(|row| row.displaced_ms);
        assert_eq!(at(When::Latest), Some(300));
        for (ms, displaced) in [(50, Some(100)), (100, Some(200)), (250, Some(300)), (300, None)] {
            assert_eq!(at(When::AtMs(ms)), displaced, "{ms}");
        }
        // All were made at 7: what lay there before is not known.
        assert_eq!(at(When::AtMs(6)), None);
        let id = version_id(&rows[1]);
        assert_eq!(at(When::Id(id.to_uppercase())), Some(200));
        assert_eq!(at(When::Id(id[..8].to_owned())), Some(200));
        // What fits several names none.
        assert_eq!(at(When::Id(String::new())), None);
    }

    #[test]
    fn conflict_copies_are_told_with_their_originals_and_authors() {
        let mut world = World::running(&[]);
        let copy = format!("d/a.conflict-20261122-140312-{}.txt", DESK.short());
        let entry = crate::core::entry::Entry { author: DESK, mtime_ns: 9_000_000, ..file(&copy, b"123") };
        world.index.put(&entry, Some(slot_disk(3)), crate::index::Mark::Here, 1).unwrap();
        world.add("b.conflict-x.txt", b"1");
        let found = conflicts(world.asker()).unwrap();
        assert_eq!(found.len(), 1);
        let item = &found[0];
        assert_eq!((item.path.as_str(), item.original.as_str()), (copy.as_str(), "d/a.txt"));
        assert_eq!((item.mtime_ms, item.bytes, item.device.as_deref()), (9, 3, Some("desk")));
        assert_eq!(item.place, world.place(&copy).to_string_lossy());
        // Where the directory itself is not there nothing is known; where it is, the copy was settled.
        std::fs::create_dir_all(world.place("d")).unwrap();
        assert_eq!(conflicts(world.asker()).unwrap(), []);
        std::fs::write(world.place(&copy), "123").unwrap();
        assert_eq!(conflicts(world.asker()).unwrap().len(), 1);
    }

    #[test]
    fn what_both_sides_of_a_conflict_came_from_is_told_only_where_the_copy_knows_it() {
        let mut world = World::running(&[]);
        let id = |text: &[u8]| content(text).content_id().unwrap();
        let row = displaced(&mut world, "1", "d/a.txt", 100);
        let kept = HistoryRow { content: content(b"before").content(), ..row };
        world.index.add_history(&kept).unwrap();
        let here = crate::index::Mark::Here;
        let there = Entry { superseded: vec![id(b"lost"), id(b"before")], ..file("d/a.txt", b"won") };
        world.index.put(&there, Some(slot_disk(3)), here, 1).unwrap();
        let copy_at = |mtime_ns: i64, author: DeviceId| {
            let name = conflict::conflict_name(&rel("d/a.txt"), mtime_ns, author, None).unwrap();
            Entry { author, mtime_ns, ..file(&name.to_string(), b"lost") }
        };
        let base = |world: &World| conflicts(world.asker()).unwrap()[0].base.as_ref().map(|base| base.id.clone());
        // Made by an agent that proved nothing: the only earlier version may be one of the winner's alone.
        let copy = copy_at(9_000_000_000, DESK);
        world.index.put(&copy, Some(slot_disk(4)), here, 2).unwrap();
        assert_eq!(base(&world), None);
        let proved = Entry { superseded: vec![id(b"before")], ..copy.clone() };
        world.index.put(&proved, Some(slot_disk(4)), here, 3).unwrap();
        assert_eq!(base(&world), Some(version_id(&kept)));
        // Edited since it was made.
        let edited = Entry { mtime_ns: 99_000_000_000, ..proved.clone() };
        world.index.put(&edited, Some(slot_disk(4)), here, 4).unwrap();
        assert_eq!(base(&world), None);
        // Of two copies, one may have lost to the other.
        world.index.put(&proved, Some(slot_disk(4)), here, 5).unwrap();
        world.index.put(&copy_at(8_000_000_000, ME), Some(slot_disk(4)), here, 6).unwrap();
        assert_eq!(base(&world), None);
    }

    #[test]
    fn how_much_history_holds_is_told_for_each_folder() {
        let mut world = World::alone();
        displaced(&mut world, "1", "a", 300);
        displaced(&mut world, "2", "b", 200);
        let told = usage(world.asker(), None).unwrap();
        assert_eq!((told.len(), told[0].versions, told[0].bytes, told[0].oldest_ms), (1, 2, 24, Some(200)));
        assert!(told[0].limit_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(usage(world.asker(), Some("docs")).unwrap().len(), 1);
        assert_eq!(usage(world.asker(), Some("other")).unwrap(), []);
    }

    #[test]
    fn the_log_names_devices_and_paths() {
        let mut world = World::running(&[]);
        world.index.log(1, "added", Some(&rel("a")), "added here").unwrap();
        world.index.log(2, "received", Some(&rel("b")), &format!("received from {}", DESK.short())).unwrap();
        world.index.log(3, "halted", None, "the disk is gone").unwrap();
        let told = events(world.asker(), 2).unwrap();
        let texts: Vec<&str> = told.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(texts, ["b: received from desk", "the disk is gone"]);
        assert_eq!(told[0].device.as_deref(), Some("desk"));
        assert_eq!(told[0].folder.as_deref(), Some("Docs"));
        assert_eq!(events(world.asker(), 99).unwrap().len(), 3);
    }

    #[test]
    fn an_index_that_is_missing_is_empty_and_a_broken_one_an_error() {
        let mut world = World::running(&[]);
        let file = world.home.index_file(&folder());
        world.index = crate::index::Index::in_memory(EPOCH).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
        assert_eq!(events(world.asker(), 9).unwrap(), []);
        assert_eq!(history(world.asker(), &world.place("a")).unwrap(), []);
        std::fs::write(&file, vec![7; 5000]).unwrap();
        assert!(events(world.asker(), 9).unwrap_err().to_string().contains("damaged"));
        assert!(history(world.asker(), &world.place("a")).is_err());
    }
}
