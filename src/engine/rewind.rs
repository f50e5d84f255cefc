//! Taking a directory, or what another device has just done, back to how it was.
//!
//! What is to be done is worked out first, told, and then done step by step; each step can be taken back by another one,
//! which is kept. Nothing is removed: what a step takes out of its place goes into history.

use std::collections::{BTreeMap, BTreeSet};

use super::restore::Change;
use super::shared::Shared;
use super::way_back;
use crate::core::conflict::{self, original_of};
use crate::core::content::ContentId;
use crate::core::entry::Entry;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::index::{EVENTS_MAX, HistoryRow, IndexError, Reader, Record, cut_text};
use crate::sync::copied_text;

/// Steps of one plan: more are done directory by directory.
pub const STEPS_MAX: usize = 100_000;
/// Records and history that are read at once.
const PAGE: usize = 1000;

/// What is to be done with one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// This version comes back from its slot in history.
    Bring(RelPath),
    /// What lies there goes into history.
    SetAside,
    /// It gets the name back that it had.
    Rename(RelPath),
}

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub path: RelPath,
    pub deed: Deed,
}

/// What is to be done, and what can't be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Paths that stay as they are although they should not, each with the reason.
    pub left: Vec<(RelPath, &'static str)>,
    /// Of what a device did: which one, by the log, and from when to when, ms since 1970.
    pub burst: Option<Burst>,
    /// Directories made since then go where they become empty, ms since 1970.
    pub since_ms: Option<i64>,
    /// Of a plan that takes another one back: when that one was carried out, ms since 1970.
    pub done_ms: Option<i64>,
}

/// Changes that came from one device one soon after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Burst {
    /// Short id of the device.
    pub device: String,
    pub from_ms: i64,
    pub to_ms: i64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("more than {STEPS_MAX} files would change; do it directory by directory")]
    TooMany,
}

/// What takes all that is at or below a path (`None`: the folder) back to how it was at a time, ms since 1970.
pub fn plan_at(reader: &Reader, at_ms: i64, below: Option<&RelPath>, own: DeviceId) -> Result<Plan, PlanError> {
    let mut rows = reader.history_since(at_ms, below, STEPS_MAX + 1)?;
    if let Some(path) = below {
        let itself = reader.history_of(path)?.into_iter().filter(|row| row.displaced_ms > at_ms);
        rows.splice(0..0, itself.collect::<Vec<_>>().into_iter().rev());
    }
    if rows.len() > STEPS_MAX {
        return Err(PlanError::TooMany);
    }
    let mut displaced: BTreeMap<RelPath, Vec<HistoryRow>> = BTreeMap::new();
    for row in rows {
        displaced.entry(row.path.clone()).or_default().push(row);
    }
    let came = Came::since(reader, at_ms)?;
    let mut plan = Plan { since_ms: Some(at_ms), ..Plan::default() };
    for (path, rows) in &displaced {
        let record = reader.record(path)?;
        plan.take_back(path, rows, record.as_ref(), at_ms, came.has(path));
    }
    let (mut after, mut gone) = (None, Vec::new());
    loop {
        let page = reader.records_from(after.as_ref(), below, PAGE)?;
        for record in page.iter().filter(|r| r.changed_ms > at_ms && !displaced.contains_key(&r.entry.path)) {
            plan.take_away(record, at_ms, &came, own);
            // Directories come back with what is in them.
            let was = record.entry.superseded.first().filter(|id| **id != ContentId::default());
            if let (false, Some(id)) = (record.entry.is_live(), was) {
                gone.push((record.entry.path.clone(), *id));
            }
            if plan.steps.len() > STEPS_MAX {
                return Err(PlanError::TooMany);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.entry.path.clone()),
            _ => break,
        }
    }
    plan.rename_back(reader, gone, &came)?;
    Ok(plan)
}

/// Paths of which the first that the log knows after a time is that something came where nothing was.
#[derive(Default)]
struct Came {
    paths: BTreeSet<RelPath>,
    others: BTreeSet<RelPath>,
    /// What the log says of the conflict copies that were made. Their names are not taken from there, where they are only
    /// words: a path that the index or the history has is looked for.
    copied: BTreeSet<String>,
}

impl Came {
    fn since(reader: &Reader, at_ms: i64) -> Result<Self, IndexError> {
        let mut came = Self::default();
        for event in reader.last_events(EVENTS_MAX)?.into_iter().filter(|event| event.at_ms > at_ms) {
            let Some(path) = event.path else { continue };
            match &event.kind[..] {
                "added" | "received" if !came.others.contains(&path) => drop(came.paths.insert(path)),
                "conflict" => drop(came.copied.insert(event.text)),
                "changed" | "updated" | "deleted" if !came.has(&path) => drop(came.others.insert(path)),
                _ => {}
            }
        }
        Ok(came)
    }

    fn has(&self, path: &RelPath) -> bool {
        let is_copy = || original_of(path).is_some() && self.copied.contains(cut_text(&copied_text(path)));
        self.paths.contains(path) || (!self.others.contains(path) && is_copy())
    }
}

/// What the entry replaced under its own name.
fn earlier(entry: &Entry) -> &[ContentId] {
    if conflict::is_as_made(entry) { &[] } else { &entry.superseded }
}

impl Plan {
    /// A path of which versions went into history since: the earliest of them lay there at the time, unless it only came
    /// later. `is_new`: the log knows that nothing lay there before.
    fn take_back(&mut self, path: &RelPath, rows: &[HistoryRow], record: Option<&Record>, at_ms: i64, is_new: bool) {
        let Some(first) = rows.first() else { return };
        let live = record.filter(|record| record.entry.is_live());
        if live.is_some_and(|record| record.entry.kind.is_directory()) {
            return self.left.push((path.clone(), "a directory lies there now"));
        }
        let is_younger = |row: &HistoryRow| row.stood_since_ms() > at_ms;
        if !is_younger(first) {
            let is_there = |record: &Record| record.entry.kind.content().is_some_and(|c| Some(c) == first.content);
            if !live.is_some_and(is_there) {
                self.steps.push(Step { path: path.clone(), deed: Deed::Bring(first.slot.clone()) });
            }
            return;
        }
        let since: BTreeSet<ContentId> = rows.iter().filter(|row| is_younger(row)).filter_map(content_id).collect();
        let earlier = record.map(|record| earlier(&record.entry)).unwrap_or_default();
        match (live, is_new || earlier.iter().all(|id| since.contains(id))) {
            (Some(_), true) => self.steps.push(Step { path: path.clone(), deed: Deed::SetAside }),
            (None, true) => {}
            (_, false) => self.left.push((path.clone(), "what it was then is not in the history of this device")),
        }
    }

    /// A path of which nothing went into history since, though something was noted of it.
    fn take_away(&mut self, record: &Record, at_ms: i64, came: &Came, own: DeviceId) {
        let entry = &record.entry;
        // What was found when the folder was first looked through may have lain there for long.
        let is_found = entry.author == DeviceId::NONE && record.placed_ms.is_none();
        if !entry.is_live() || !record.is_held() || entry.kind.is_directory() || is_found {
            return;
        }
        let is_new = came.has(&entry.path);
        // Where it was not noted since when it stands there, the file's own time has to do.
        let is_younger = record.placed_ms.unwrap_or(entry.mtime_ns / 1_000_000) > at_ms;
        let has_come = if record.placed_ms.is_some() { is_younger } else { is_younger || is_new };
        let earlier = earlier(entry);
        if has_come && (earlier.is_empty() || (is_new && record.placed_ms.is_some())) {
            self.steps.push(Step { path: entry.path.clone(), deed: Deed::SetAside });
        } else if !earlier.is_empty() && is_younger && entry.author == own {
            let text = "it was changed on this device, and what it was then is not in the history here";
            self.left.push((entry.path.clone(), text));
        } else if !earlier.is_empty() && is_younger {
            self.left.push((entry.path.clone(), "what it was then is not in the history of this device"));
        }
    }

    /// Names that are gone without anything in history: what had them was renamed, or deleted by the user here.
    fn rename_back(&mut self, reader: &Reader, gone: Vec<(RelPath, ContentId)>, came: &Came) -> Result<(), IndexError> {
        let mut free: BTreeMap<ContentId, Vec<usize>> = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.deed == Deed::SetAside) {
            let content = reader.record(&step.path)?.and_then(|record| record.entry.kind.content_id());
            if let Some(id) = content {
                free.entry(id).or_default().push(number);
            }
        }
        for (path, id) in gone {
            let renamed = free.get_mut(&id).and_then(Vec::pop).and_then(|number| self.steps.get_mut(number));
            match renamed {
                Some(step) => step.deed = Deed::Rename(path),
                None if !came.has(&path) => {
                    self.left.push((path, "it was deleted on this device and is not in the history here"));
                }
                None => {}
            }
        }
        Ok(())
    }

    pub fn count(&self, is_counted: impl Fn(&Deed) -> bool) -> u64 {
        self.steps.iter().filter(|step| is_counted(&step.deed)).count() as u64
    }
}

fn content_id(row: &HistoryRow) -> Option<ContentId> {
    row.content.map(|content| content.id)
}

/// Carries out a plan. Returns what failed, and keeps what takes it back: first as far as it is known, lest a crash in its
/// midst leave no way back.
pub fn carry_out(shared: &Shared, plan: &Plan) -> Result<Vec<(RelPath, String)>, String> {
    let change = Change::begin(shared)?;
    way_back::keep_first(shared, &plan.steps, change.now_ms)?;
    let (mut failed, mut inverse, mut left) = (Vec::new(), Vec::new(), BTreeSet::new());
    for page in plan.steps.chunks(PAGE) {
        let mut touched = Vec::with_capacity(page.len());
        for step in page {
            let path = step.path.clone();
            touched.push(path.clone());
            let back = match &step.deed {
                Deed::Bring(slot) => change
                    .bring_back(slot, &path)
                    .map(|displaced| Step { path, deed: displaced.map_or(Deed::SetAside, Deed::Bring) }),
                Deed::SetAside => change.set_aside(&path).map(|slot| {
                    left.extend(path.parent());
                    Step { path, deed: Deed::Bring(slot) }
                }),
                Deed::Rename(to) => {
                    touched.push(to.clone());
                    left.extend(path.parent());
                    change.rename(&path, to).and_then(|is_done| {
                        let back = Step { path: to.clone(), deed: Deed::Rename(path) };
                        if is_done { Ok(back) } else { Err(format!("something new lies at {to}")) }
                    })
                }
            };
            match back {
                Ok(back) => inverse.push(back),
                Err(text) => failed.push((step.path.clone(), text)),
            }
        }
        shared.hints.request(touched);
    }
    if let Some(since_ms) = plan.since_ms {
        clear_directories(shared, &change, left, since_ms);
    }
    inverse.reverse();
    way_back::keep(shared, &inverse, change.now_ms);
    Ok(failed)
}

/// Directories that only what was taken away had brought go with it, where nothing else is in them.
fn clear_directories(shared: &Shared, change: &Change, left: BTreeSet<RelPath>, since_ms: i64) {
    let Ok(reader) = Reader::open(&shared.index_path) else { return };
    let above: BTreeSet<RelPath> = left.iter().flat_map(RelPath::ancestors).collect();
    let mut all: Vec<RelPath> = left.into_iter().chain(above).collect();
    all.sort();
    all.dedup();
    let is_new = |path: &RelPath| {
        let record = reader.record(path).ok().flatten();
        record.is_some_and(|r| r.entry.kind.is_directory() && r.changed_ms >= since_ms)
    };
    let new: Vec<RelPath> = all.into_iter().rev().filter(is_new).collect();
    new.iter().for_each(|path| change.remove_if_empty(path));
    shared.hints.request(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::entry::Kind;
    use crate::core::id::EpochId;
    use crate::engine::testing::path;
    use crate::index::{Index, Mark};

    const OWN: DeviceId = DeviceId([1; 32]);
    const PEER: DeviceId = DeviceId([2; 32]);

    fn disk(mtime_ms: i64) -> DiskState {
        let mtime_ns = mtime_ms * 1_000_000;
        DiskState { kind: DiskKind::File, size: 1, mtime_ns, ctime_ns: 1, inode: 1, mode: 0o644 }
    }

    fn put(index: &mut Index, at: &str, text: &str, author: DeviceId, earlier: &[&str], changed_ms: i64) {
        let content = Content::of_chunk(text.as_bytes());
        let superseded = earlier.iter().map(|t| Content::of_chunk(t.as_bytes()).id).collect();
        let mtime_ns = changed_ms * 1_000_000;
        let entry = Entry { kind: Kind::File(content), author, superseded, mtime_ns, ..Entry::nothing(path(at)) };
        index.put(&entry, Some(disk(changed_ms)), Mark::Here, changed_ms).unwrap();
    }

    fn displace(index: &mut Index, at: &str, text: &str, written_ms: i64, displaced_ms: i64) -> RelPath {
        let slot = path(&format!("{at}~{displaced_ms}"));
        let row = HistoryRow {
            slot: slot.clone(),
            path: path(at),
            content: Some(Content::of_chunk(text.as_bytes())),
            disk: disk(written_ms),
            author: PEER,
            displaced_ms,
            by_remote: true,
            brought_by: None,
            displaced_by: None,
            placed_ms: None,
        };
        index.add_history(&row).unwrap();
        slot
    }

    fn step(at: &str, deed: Deed) -> Step {
        Step { path: path(at), deed }
    }

    #[test]
    fn a_directory_goes_back_to_what_it_was_at_a_time() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        put(&mut index, "d/old", "same", PEER, &[], 50);
        put(&mut index, "d/replaced", "v3", PEER, &["v2", "v1"], 300);
        let first = displace(&mut index, "d/replaced", "v1", 50, 200);
        displace(&mut index, "d/replaced", "v2", 200, 300);
        let deleted = displace(&mut index, "d/deleted", "x", 50, 250);
        put(&mut index, "d/new", "new", PEER, &[], 200);
        put(&mut index, "d/new-and-edited", "new2", PEER, &["new1"], 300);
        displace(&mut index, "d/new-and-edited", "new1", 200, 300);
        put(&mut index, "d/edited-here", "mine", OWN, &["before"], 200);
        put(&mut index, "d/found", "found", DeviceId::NONE, &[], 200);
        put(&mut index, "elsewhere", "new", PEER, &[], 200);
        put(&mut index, "d/name-now", "named", PEER, &[], 200);
        let superseded = vec![Content::of_chunk(b"named").id];
        let tombstone = Entry { superseded, ..Entry::nothing(path("d/name-then")) };
        index.put(&tombstone, None, Mark::Here, 200).unwrap();
        let plan = plan_at(&index, 100, Some(&path("d")), OWN).unwrap();
        let wanted = [
            step("d/deleted", Deed::Bring(deleted)),
            step("d/new-and-edited", Deed::SetAside),
            step("d/replaced", Deed::Bring(first)),
            step("d/name-now", Deed::Rename(path("d/name-then"))),
            step("d/new", Deed::SetAside),
        ];
        assert_eq!(plan.steps, wanted);
        assert_eq!(plan.left.iter().map(|(p, _)| p.to_string()).collect::<Vec<_>>(), ["d/edited-here"]);
        assert_eq!(plan_at(&index, 400, None, OWN).unwrap().steps, []);
    }

    #[test]
    fn a_conflict_copy_that_came_since_and_is_gone_is_not_looked_for() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let copy = path("a.conflict-20261122-140312-K3QZ7AB.txt");
        put(&mut index, "a.txt", "mine", OWN, &["theirs", "before"], 300);
        let superseded = vec![Content::of_chunk(b"mine").id];
        index.put(&Entry { superseded, ..Entry::nothing(copy.clone()) }, None, Mark::Here, 300).unwrap();
        let told_of = |index: &Index| {
            let plan = plan_at(index, 100, None, OWN).unwrap();
            let renamed = plan.steps.iter().any(|step| matches!(&step.deed, Deed::Rename(to) if *to == copy));
            renamed || plan.left.iter().any(|(at, _)| *at == copy)
        };
        assert!(told_of(&index));
        index.log(200, "conflict", Some(&path("a.txt")), &copied_text(&copy)).unwrap();
        assert!(!told_of(&index));
    }

    #[test]
    fn a_conflict_copy_is_known_whatever_its_name_is_and_only_where_there_is_one() {
        let copy_of = |name: &[u8]| {
            let original = RelPath::parse(name).unwrap();
            let copy = conflict::conflict_name(&original, 0, OWN, None).unwrap();
            (original, copy)
        };
        let long = "a".repeat(250);
        // What is logged of it is cut.
        let deep = format!("{}a.txt", format!("{}/", "d".repeat(200)).repeat(20));
        let names =
            [&b"a.txt"[..], b"d/plan kept as it was.txt", b"caf\xe9 kept as .txt", long.as_bytes(), deep.as_bytes()];
        for name in names {
            let mut index = Index::in_memory(EpochId(1)).unwrap();
            let (original, copy) = copy_of(name);
            let put = |index: &mut Index, path: &RelPath| {
                let kind = Kind::File(Content::of_chunk(b"x"));
                // Its own time says that it had lain there for long.
                let entry = Entry { kind, author: OWN, ..Entry::nothing(path.clone()) };
                index.put(&entry, Some(disk(50)), Mark::Own, 200).unwrap();
            };
            put(&mut index, &original);
            put(&mut index, &copy);
            index.log(200, "conflict", Some(&original), &copied_text(&copy)).unwrap();
            let came = Came::since(&index, 100).unwrap();
            assert!(came.has(&copy) && !came.has(&original), "{copy}");
            // Words within a name make no copy of another path.
            assert!(!came.has(&copy_of(b"it was.txt").1) && !came.has(&copy_of(b".txt").1), "{copy}");
            // Changed since it came.
            index.log(300, "changed", Some(&copy), "changed here").unwrap();
            assert!(Came::since(&index, 100).unwrap().has(&copy));
            assert!(!Came::since(&index, 250).unwrap().has(&copy));
        }
    }

    #[test]
    fn a_conflict_copy_that_came_since_is_set_aside_whatever_it_came_from() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let mtime_ns = 200_000_000_000;
        let copy = conflict::conflict_name(&path("a.txt"), mtime_ns, OWN, None).unwrap();
        let made = |text: &str, earlier: &[&str]| {
            let superseded = earlier.iter().map(|t| Content::of_chunk(t.as_bytes()).id).collect();
            let kind = Kind::File(Content::of_chunk(text.as_bytes()));
            Entry { kind, author: OWN, superseded, mtime_ns, ..Entry::nothing(copy.clone()) }
        };
        let plan = |index: &Index| plan_at(index, 100_000, None, OWN).unwrap();
        index.put(&made("mine", &["before"]), Some(disk(200_000)), Mark::Here, 200_000).unwrap();
        assert_eq!(plan(&index).steps, [Step { path: copy.clone(), deed: Deed::SetAside }]);
        // Changed since it was made: what it was then was a file of that name.
        let edited = Entry { mtime_ns: 2 * mtime_ns, ..made("edited", &["mine", "before"]) };
        index.put(&edited, Some(disk(400_000)), Mark::Here, 400_000).unwrap();
        assert_eq!((plan(&index).steps, plan(&index).left.len()), (vec![], 1));
    }

    #[test]
    fn what_counts_is_since_when_it_stands_here_and_not_when_it_was_written() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let written = |ms: i64| Some(disk(ms));
        let file = |at: &str, text: &str, earlier: &[&str]| {
            let superseded = earlier.iter().map(|t| Content::of_chunk(t.as_bytes()).id).collect();
            let kind = Kind::File(Content::of_chunk(text.as_bytes()));
            Entry { kind, author: PEER, superseded, mtime_ns: 10_000_000, ..Entry::nothing(path(at)) }
        };
        // Written at 10 elsewhere, here since 200; the second was something else before that never was here.
        index.put(&file("late", "l", &[]), written(10), Mark::Here, 200).unwrap();
        index.put(&file("late-second", "l2", &["l1"]), written(10), Mark::Here, 200).unwrap();
        index.log(200, "received", Some(&path("late-second")), "added by desk").unwrap();
        // Here since 50 by a clock that was wrong, and since then only its mode has changed.
        let stood = Entry { mtime_ns: 900_000_000, ..file("stood", "s", &["r"]) };
        index.put(&stood, Some(disk(900)), Mark::Here, 50).unwrap();
        index.put(&stood, Some(DiskState { mode: 0o755, ..disk(900) }), Mark::Here, 300).unwrap();
        // Each was replaced at 300: one that had come at 200, one that had stood since 50.
        for (at, placed_ms) in [("replaced-late", 200), ("replaced", 50)] {
            index.put(&file(at, "now", &["then"]), written(10), Mark::Here, 300).unwrap();
            let slot = displace(&mut index, at, "then", 10, 300);
            let row = index.history_slot(&slot).unwrap().unwrap();
            let disk = disk(if placed_ms == 50 { 900 } else { 10 });
            index.add_history(&HistoryRow { placed_ms: Some(placed_ms), disk, ..row }).unwrap();
        }
        let plan = plan_at(&index, 100, None, OWN).unwrap();
        let wanted = [
            step("replaced", Deed::Bring(path("replaced~300"))),
            step("replaced-late", Deed::SetAside),
            step("late", Deed::SetAside),
            step("late-second", Deed::SetAside),
        ];
        assert_eq!((plan.steps, plan.left), (wanted.to_vec(), vec![]));
        assert_eq!(plan_at(&index, 250, None, OWN).unwrap().steps.len(), 2, "both that were replaced stood there");
    }

    #[test]
    fn what_was_changed_here_before_it_was_deleted_elsewhere_is_told_of() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let superseded = ["v2", "v1"].iter().map(|t| Content::of_chunk(t.as_bytes()).id).collect();
        let tombstone = Entry { superseded, ..Entry::nothing(path("a")) };
        index.put(&tombstone, None, Mark::Here, 300).unwrap();
        displace(&mut index, "a", "v2", 200, 300);
        let plan = plan_at(&index, 100, None, OWN).unwrap();
        assert_eq!(plan.left, [(path("a"), "what it was then is not in the history of this device")]);
    }

    #[test]
    fn what_is_as_it_was_again_is_left_alone() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        put(&mut index, "a", "v1", PEER, &["v2"], 300);
        displace(&mut index, "a", "v1", 50, 200);
        displace(&mut index, "a", "v2", 200, 300);
        let plan = plan_at(&index, 100, None, OWN).unwrap();
        assert_eq!((plan.steps.len(), plan.left.len()), (0, 0));
    }
}
