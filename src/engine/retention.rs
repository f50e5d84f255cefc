//! Lets versions go from history when their time is over, when there are many like them or where they take too much
//! space; and unfinished downloads that nobody has gone on with.
//!
//! How old things are is not for the wall clock alone to say: see [`Lived`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::apply::beside;
use super::fetch::Fetcher;
use super::lived::Lived;
use super::shared::{Event, FolderHandle, Shared};
use crate::config::HistoryMax;
use crate::core::disk::DiskState;
use crate::core::path::RelPath;
use crate::core::thinning::{self, Ages, Share, Version};
use crate::fs::history;
use crate::fs::read::{self, ReadOutcome};
use crate::fs::root::OpenRoot;
use crate::index::{HistoryRow, Reader};
use crate::sync::Input;

/// How often history is looked through.
const EVERY: Duration = Duration::from_secs(3600);
/// The same where not all that was due went at once.
const SOON: Duration = Duration::from_secs(5);
/// Slots that go in one step.
const BATCH: usize = 500;
/// Paths whose versions are thinned out in one step.
const THINNED_PATHS: usize = 5000;
/// Versions of one path that are looked at in one step, the latest: a peer may make very many.
const THINNED_VERSIONS: usize = 5000;
/// Versions that go in one step, but for those of the last path.
const THINNED_AT_ONCE: usize = 5000;
/// Batches that one step looks through for what may go to make room.
const BOUND_PAGES: usize = 20;
const HOUR_MS: i64 = 3600 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How long an unfinished download is kept after the last byte of it was written: long enough for a peer that is away
/// for a holiday.
const STAGED_MS: i64 = 14 * DAY_MS;
/// Index note with what the wall clock is believed.
const NOTE_LIVED: &str = "lived";

/// How long and how much history is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// 0 keeps all.
    pub days: u32,
    pub max: HistoryMax,
}

/// Starts the thread. It ends once `stop` is set and it is unparked.
pub fn spawn(handle: FolderHandle, fetcher: Fetcher, limits: Limits) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("retention".into()).spawn(move || {
        let mut retention = Retention::new(handle.clone());
        let keep_ms = (limits.days > 0).then_some(i64::from(limits.days) * DAY_MS);
        // At first only the time is noted: a start has other things to do.
        let mut due = retention.begin().map_or_else(|error| told(&handle, &error), |()| handle.clock.instant() + EVERY);
        while !handle.stop.load(Ordering::Relaxed) {
            thread::park_timeout(due.saturating_duration_since(handle.clock.instant()));
            if handle.clock.instant() < due {
                continue;
            }
            let opened = Reader::open(&handle.index_path).map_err(|e| e.to_string());
            let looked = opened.and_then(|reader| {
                let is_more = retention.once(&reader, keep_ms)?;
                Ok(is_more | retention.thin(&reader)? | retention.bound(&reader, limits.max)?)
            });
            due = match looked {
                Ok(is_more) => handle.clock.instant() + if is_more { SOON } else { EVERY },
                Err(error) => told(&handle, &error),
            };
            fetcher.clear(retention.before_ms(STAGED_MS));
        }
    })
}

fn told(handle: &FolderHandle, error: &str) -> Instant {
    tracing::warn!(folder = %handle.label, error, "could not look through history");
    handle.clock.instant() + EVERY
}

/// Looks through history, and knows how time passes.
pub struct Retention {
    handle: FolderHandle,
    lived: Option<Lived>,
    /// When that was, on the clock that only goes forward.
    passed_ms: u64,
    /// The last path whose versions were thinned out, in this round through all of them.
    thinned: Option<RelPath>,
    /// The last version that was looked at for room, in this round through all of them.
    bounded: Option<(i64, RelPath)>,
}

impl Retention {
    pub fn new(handle: FolderHandle) -> Self {
        let passed_ms = handle.clock.mono_ms();
        Self { handle, lived: None, passed_ms, thinned: None, bounded: None }
    }

    /// Notes how much time has passed since the last run. After the index was lost that waits until it knows again what
    /// lies in history.
    fn begin(&mut self) -> Result<(), String> {
        let reader = Reader::open(&self.handle.index_path).map_err(|e| e.to_string())?;
        match reader.note(NOTE_LIVED).map_err(|e| e.to_string())? {
            Some(_) => self.pass(&reader, None),
            None => Ok(()),
        }
    }

    /// Takes away slots that were displaced longer ago than `keep_ms`; `None` keeps all. True where there are more.
    pub fn once(&mut self, reader: &Reader, keep_ms: Option<i64>) -> Result<bool, String> {
        self.pass(reader, keep_ms)?;
        match keep_ms {
            Some(keep_ms) => expire(&self.handle, reader, self.before_ms(keep_ms)),
            None => Ok(false),
        }
    }

    /// Thins out the versions of the next paths. True where there are more.
    pub(super) fn thin(&mut self, reader: &Reader) -> Result<bool, String> {
        let ages = Ages { hour_before_ms: self.before_ms(HOUR_MS), day_before_ms: self.before_ms(DAY_MS) };
        let looked = reader.paths_with_versions(self.thinned.as_ref(), THINNED_PATHS);
        let (paths, next) = looked.map_err(|e| e.to_string())?;
        let (mut going, mut before, mut end) = (Vec::new(), self.thinned.take(), next);
        let mut is_unfinished = false;
        for path in &paths {
            let rows = reader.latest_history_of(path, THINNED_VERSIONS).map_err(|e| e.to_string())?;
            let (count, is_long) = (going.len(), rows.len() == THINNED_VERSIONS);
            let kept = thinning::kept(&versions(&rows), ages);
            going.extend(rows.into_iter().zip(kept).filter(|(_, kept)| !kept).map(|(row, _)| row));
            is_unfinished = is_long && going.len() > count;
            if is_unfinished || going.len() >= THINNED_AT_ONCE {
                end = Some(path.clone());
                break;
            }
            before = Some(path.clone());
        }
        let (gone, _) = take_all_away(&self.handle, going)?;
        // What comes after those that went has its turn next. Where none could go, it has to wait.
        let has_more = is_unfinished && gone > 0;
        self.thinned = if has_more { before } else { end };
        Ok(has_more || self.thinned.is_some())
    }

    /// Where history takes more space than it may, the oldest that does not have to stay goes, of that which those
    /// displaced whose changes take most. True where there is more.
    pub(super) fn bound(&mut self, reader: &Reader, max: HistoryMax) -> Result<bool, String> {
        let root = self.handle.root.open().map_err(|e| e.to_string())?;
        let most = max.bytes(root.disk_bytes().map_err(|p| p.text)?);
        let mut all = reader.history_bytes().map_err(|e| e.to_string())?.saturating_sub(most);
        if all == 0 {
            self.bounded = None;
            return Ok(false);
        }
        let mut excess = thinning::excess(&reader.history_shares().map_err(|e| e.to_string())?, most);
        let mut going = Vec::new();
        // What went today is not given up for space: somebody may still miss it.
        let before_ms = self.before_ms(DAY_MS);
        for _ in 0..BOUND_PAGES {
            let from = self.bounded.as_ref().map(|(ms, slot)| (*ms, slot));
            let rows = reader.history_by_age(from, before_ms, BATCH).map_err(|e| e.to_string())?;
            self.bounded = rows.last().map(|last| (last.displaced_ms, last.slot.clone()));
            if self.bounded.is_none() {
                break;
            }
            for row in rows {
                let Some(excess) = excess.get_mut(&share(&row)).filter(|excess| **excess > 0) else { continue };
                if all > 0 && !is_protected(reader, &row)? {
                    all = all.saturating_sub(row.disk.size);
                    *excess = excess.saturating_sub(row.disk.size);
                    going.push(row);
                }
            }
            if all == 0 {
                self.bounded = None;
                break;
            }
        }
        take_all_away(&self.handle, going)?;
        Ok(self.bounded.is_some())
    }

    /// What has this time or an earlier one is older than `keep_ms`; ms since 1970 by the wall clock.
    fn before_ms(&self, keep_ms: i64) -> i64 {
        self.lived.as_ref().map_or(i64::MIN, |lived| lived.before_ms(keep_ms))
    }

    /// Time has passed. Without a time for which things are kept, leaps of the clock are remembered for ever.
    fn pass(&mut self, reader: &Reader, keep_ms: Option<i64>) -> Result<(), String> {
        let (wall_ms, mono_ms) = (self.handle.clock.wall_ms(), self.handle.clock.mono_ms());
        let mut lived = match self.lived.take() {
            Some(lived) => lived,
            None => {
                let note = reader.note(NOTE_LIVED).map_err(|e| e.to_string())?;
                match note.and_then(|note| Lived::parse(&note)) {
                    Some(lived) => lived,
                    // The index was lost, or is new. What went into history last is the latest that is known of the time:
                    // a clock that shows much more is not believed here either.
                    None => Lived::new(
                        reader.history_latest_ms().map_err(|e| e.to_string())?.unwrap_or(wall_ms).min(wall_ms),
                    ),
                }
            }
        };
        lived.pass(wall_ms, mono_ms.saturating_sub(self.passed_ms), keep_ms.unwrap_or(i64::MAX));
        self.passed_ms = mono_ms;
        let _ = self.handle.inputs.blocking_send(Event::Note(NOTE_LIVED, lived.to_string()));
        self.lived = Some(lived);
        Ok(())
    }
}

/// Takes away slots that were displaced before that time (ms since 1970). True where there are more.
fn expire(handle: &FolderHandle, reader: &Reader, before_ms: i64) -> Result<bool, String> {
    let rows = reader.history_older(before_ms, BATCH).map_err(|e| e.to_string())?;
    let count = rows.len();
    let (gone, _) = take_all_away(handle, rows)?;
    Ok(count == BATCH && gone > 0)
}

/// Takes these away. Says how many went, and how many bytes they were.
pub fn take_all_away(handle: &Shared, rows: Vec<HistoryRow>) -> Result<(u64, u64), String> {
    if rows.is_empty() {
        return Ok((0, 0));
    }
    let root = handle.root.open().map_err(|e| e.to_string())?;
    let (mut expired, mut bytes) = (Vec::new(), 0u64);
    for row in rows {
        match take_away(handle, &root, &row) {
            Ok(()) => {
                bytes = bytes.saturating_add(row.disk.size);
                expired.push(row.slot);
            }
            Err(error) => tracing::warn!(folder = %handle.label, slot = %row.slot, error, "it stays in history"),
        }
    }
    let count = expired.len() as u64;
    if count > 0 {
        handle.send(Input::History { found: Vec::new(), expired });
    }
    Ok((count, bytes))
}

/// True for a version that stays for its full time however large history grows: see [`thinning::protected`]. Asked of
/// the index, because a peer may make more versions of one path than are listed.
fn is_protected(reader: &Reader, row: &HistoryRow) -> Result<bool, String> {
    if !row.by_remote {
        return Ok(false);
    }
    Ok(row.brought_by.is_none() || !reader.has_later_by_remote(&row.slot).map_err(|e| e.to_string())?)
}

/// With what a version counts where space is short.
fn share(row: &HistoryRow) -> Share {
    Share {
        displaced_by: row.displaced_by,
        was_its_own: row.displaced_by.is_some() && row.displaced_by == row.brought_by,
    }
}

fn versions(rows: &[HistoryRow]) -> Vec<Version> {
    let version = |row: &HistoryRow| Version {
        brought_by: row.brought_by,
        displaced_ms: row.displaced_ms,
        by_remote: row.by_remote,
    };
    rows.iter().map(version).collect()
}

fn take_away(handle: &Shared, root: &OpenRoot, row: &HistoryRow) -> Result<(), String> {
    match history::look(root, &row.slot).map_err(|p| p.text)? {
        // A program that still had the file open has gone on writing: it is no old version any more.
        Some(disk) if !disk.is_same_file_as(&row.disk) && !is_as_noted(root, row, &disk) => {
            let copy = beside(root, &row.slot, &row.path, &disk, handle.device, None).map_err(|e| e.to_string())?;
            handle.hints.request(vec![copy]);
            Ok(())
        }
        Some(_) => history::expire(root, &row.slot).map_err(|p| p.text),
        None => Ok(()),
    }
}

/// True where another file holds what was noted of a slot, as where the folder was copied to another disk.
fn is_as_noted(root: &OpenRoot, row: &HistoryRow, disk: &DiskState) -> bool {
    let looks_alike = disk.is_same_file_as(&DiskState { inode: disk.inode, ..row.disk });
    let Some(noted) = row.content.filter(|_| looks_alike) else { return false };
    // Whether it was written to at this very moment does not matter: what was read is compared.
    let read = read::examine_slot(root, &row.slot, i64::MAX / 2, &mut Vec::new(), &AtomicBool::new(false));
    matches!(read, ReadOutcome::Hashed(found) if found.content.id == noted.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::disk::DiskKind;
    use crate::core::id::{DeviceId, EpochId};
    use crate::engine::testing::{folder, path};
    use crate::index::Index;

    const OWN: DeviceId = DeviceId([1; 32]);
    const PEER: DeviceId = DeviceId([2; 32]);

    fn row(at: &str, number: i64, age_ms: i64, brought_by: DeviceId, by_remote: bool) -> HistoryRow {
        let size = 1 << 30;
        HistoryRow {
            slot: path(&format!("{at}~{number}")),
            path: path(at),
            content: Some(Content::of_chunk(&number.to_be_bytes())),
            disk: DiskState { kind: DiskKind::File, size, mtime_ns: 1, ctime_ns: 1, inode: 1, mode: 0o644 },
            // What an entry says of its author is nothing to go by.
            author: OWN,
            displaced_ms: number - age_ms,
            by_remote,
            brought_by: Some(brought_by),
            displaced_by: Some(if by_remote { PEER } else { DeviceId::NONE }),
            placed_ms: None,
        }
    }

    /// What of these rows a step lets go, by their numbers in the names of the slots.
    fn gone(rows: &[HistoryRow], step: impl Fn(&mut Retention, &Reader) -> Result<bool, String>) -> Vec<String> {
        let (_dir, handle, mut inputs) = folder("");
        let mut index = Index::open(&handle.index_path, EpochId(1)).unwrap();
        rows.iter().for_each(|row| index.add_history(row).unwrap());
        let mut retention = Retention::new(handle.clone());
        retention.lived = Some(Lived::new(handle.clock.wall_ms()));
        step(&mut retention, &index).unwrap();
        let mut gone = Vec::new();
        while let Ok(event) = inputs.try_recv() {
            if let Event::Input(Input::History { expired, .. }) = event {
                gone.extend(expired.into_iter().map(|slot| slot.to_string()));
            }
        }
        gone.sort();
        gone
    }

    fn now_ms() -> i64 {
        crate::engine::clock::Clock::system().wall_ms()
    }

    #[test]
    fn many_versions_of_one_day_become_one() {
        let now = now_ms();
        let rows: Vec<HistoryRow> = (1..=5).map(|n| row("a", now + n, 40 * DAY_MS, OWN, false)).collect();
        let gone = gone(&rows, |retention, reader| retention.thin(reader));
        let day = |row: &HistoryRow| row.displaced_ms.div_euclid(DAY_MS);
        if day(&rows[0]) == day(&rows[4]) {
            assert_eq!(gone, rows[1..].iter().map(|row| row.slot.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn where_space_is_short_the_oldest_goes_but_nothing_that_a_peer_displaced_last_nor_anything_of_today() {
        let now = now_ms();
        let rows = [
            row("a", now, 9 * DAY_MS, PEER, true),
            row("b", now, 8 * DAY_MS, OWN, false),
            row("c", now, 7 * DAY_MS, OWN, true),
            row("c", now + 1, 6 * DAY_MS, OWN, true),
            row("d", now, 5 * DAY_MS, OWN, false),
            row("e", now, HOUR_MS, OWN, false),
        ];
        let bounded = |gib| gone(&rows, |retention, reader| retention.bound(reader, HistoryMax::Gib(gib)));
        let slots = |numbers: &[usize]| numbers.iter().map(|n| rows[*n].slot.to_string()).collect::<Vec<_>>();
        assert_eq!(bounded(6), slots(&[]));
        assert_eq!(bounded(5), slots(&[1]));
        assert_eq!(bounded(4), slots(&[1, 2]));
        assert_eq!(bounded(1), slots(&[1, 2, 4]));
    }

    #[test]
    fn what_a_peer_displaced_stays_however_many_versions_it_makes_after_that() {
        /// More than are listed of one path.
        const MANY: i64 = 10_001;
        let now = now_ms();
        let mut rows = vec![row("a", now, 2 * DAY_MS, OWN, true), row("b", now, 2 * DAY_MS, OWN, false)];
        rows.extend((1..=MANY).map(|n| row("a", now + n, HOUR_MS, PEER, true)));
        let gone = gone(&rows, |retention, reader| retention.bound(reader, HistoryMax::Gib(1)));
        assert_eq!(gone, [rows[1].slot.to_string()]);
    }

    #[test]
    fn a_clock_that_is_wrong_when_the_index_is_lost_lets_nothing_expire() {
        let keep_ms = 30 * DAY_MS;
        let now = now_ms();
        for (latest_age_ms, has_expired) in [(3 * DAY_MS, true), (300 * DAY_MS, false)] {
            let rows = [row("a", now, 310 * DAY_MS, PEER, true), row("b", now, latest_age_ms, PEER, true)];
            let gone = gone(&rows, |retention, reader| {
                retention.lived = None;
                retention.begin()?;
                retention.once(reader, Some(keep_ms))
            });
            assert_eq!(gone.contains(&rows[0].slot.to_string()), has_expired, "{latest_age_ms}");
            assert!(!gone.contains(&rows[1].slot.to_string()));
        }
    }

    #[test]
    fn a_path_with_very_many_versions_is_thinned_in_steps() {
        let now = now_ms();
        let count = 2 * THINNED_VERSIONS as i64;
        let mut rows: Vec<HistoryRow> = (0..count).map(|n| row("b", now + n, 40 * DAY_MS, PEER, true)).collect();
        rows.extend(["a", "c"].map(|at| row(at, now, 40 * DAY_MS, PEER, true)));
        rows.extend(["a", "c"].map(|at| row(at, now + 1, 40 * DAY_MS, PEER, true)));
        let gone = gone(&rows, |retention, reader| {
            let is_more = retention.thin(reader)?;
            assert_eq!((is_more, &retention.thinned), (true, &Some(path("a"))));
            retention.thin(reader)
        });
        // The index does not follow here, so it is the same ones twice.
        assert!(gone.len() > THINNED_VERSIONS && gone.iter().all(|slot| slot.starts_with("b~")));
    }

    #[test]
    fn what_one_peer_displaced_does_not_push_out_what_others_did_nor_what_it_made_what_others_had_made() {
        const EVE: DeviceId = DeviceId([6; 32]);
        let now = now_ms();
        let by = |by: DeviceId, row| HistoryRow { displaced_by: Some(by), ..row };
        // Old versions of the user's, of which none has to stay: a later one was displaced too.
        let users = |at: &str, by_whom| {
            [(1, 9 * DAY_MS), (2, HOUR_MS)]
                .map(|(n, age_ms)| by(by_whom, row(at, now + n, age_ms, DeviceId::NONE, true)))
        };
        let mut rows = [users("a", PEER), users("b", EVE)].concat();
        // Later ones of the peer's own, as many as it likes, whoever they say has made them.
        rows.extend((0..9).map(|n| by(EVE, row("eves", now + n, 2 * DAY_MS, EVE, true))));
        let gone = gone(&rows, |retention, reader| retention.bound(reader, HistoryMax::Gib(6)));
        let slots: Vec<String> = rows[4..11].iter().map(|row| row.slot.to_string()).collect();
        assert_eq!(gone, slots);
    }

    #[test]
    fn versions_of_a_folder_that_was_copied_to_another_disk_go_and_do_not_become_conflict_copies() {
        let (_dir, handle, _inputs) = folder("");
        let places = ["same", "other"].map(|name| {
            let slot = path(&format!("{name}~1"));
            let place = history::place(handle.root.path(), &slot);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(&place, name).unwrap();
            (slot, place)
        });
        let root = handle.root.open().unwrap();
        let rows = places.iter().map(|(slot, _)| {
            let disk = history::look(&root, slot).unwrap().unwrap();
            let content = Some(Content::of_chunk(b"same"));
            let disk = DiskState { inode: disk.inode + 1, ..disk };
            HistoryRow { slot: slot.clone(), disk, content, ..row("a", 1, 0, OWN, true) }
        });
        assert_eq!(take_all_away(&handle, rows.collect()).unwrap().0, 2);
        assert!(places.iter().all(|(_, place)| !place.exists()));
        let in_tree = std::fs::read_dir(handle.root.path()).unwrap().map(|f| f.unwrap().path());
        let kept: Vec<_> = in_tree.filter(|place| place.is_file()).map(|f| std::fs::read(f).unwrap()).collect();
        assert_eq!(kept, [b"other"]);
    }
}
