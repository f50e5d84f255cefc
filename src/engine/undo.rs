//! What another device has just done to a folder, and the plan that takes it back.
//!
//! The log says who did what and when; what was replaced or deleted went into history at the very time that the log has.

use std::collections::{BTreeMap, BTreeSet};

use super::rewind::{Burst, Deed, Plan, Step};
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::index::{EVENTS_MAX, EventRow, HistoryRow, IndexError, Reader, Record};

/// Changes with a longer pause between them were not made in one go, milliseconds.
const PAUSE_MS: i64 = 60_000;

const NOT_IN_HISTORY: &str = "what it was before is no longer in history";

/// The plan that takes back what one of `others` did last, all that came in one go; `None` where the log has nothing.
pub fn plan(reader: &Reader, others: &[DeviceId], own: DeviceId) -> Result<Option<Plan>, IndexError> {
    let events = reader.last_events(EVENTS_MAX)?;
    let Some((burst, of_path)) = last_burst(&events, others) else { return Ok(None) };
    let mut plan = Plan::default();
    let is_of_burst = |event: &&EventRow| (burst.from_ms..=burst.to_ms).contains(&event.at_ms);
    let in_conflict: BTreeSet<&RelPath> = events
        .iter()
        .filter(is_of_burst)
        .filter_map(|event| event.path.as_ref().filter(|_| event.kind == "conflict"))
        .collect();
    for (path, changes) in of_path {
        one(reader, &mut plan, &path, &changes, own)?;
        if let Some((left, why)) = plan.left.last_mut()
            && *left == path
            && *why == NOT_IN_HISTORY
            && in_conflict.contains(&path)
        {
            *why = "what it was before lies beside it as a conflict copy";
        }
    }
    // Directories come before what is in them, and are not in the log.
    (plan.since_ms, plan.burst) = (Some(burst.from_ms.saturating_sub(PAUSE_MS)), Some(burst));
    // What has got a name back needs no other step at that name.
    let renamed: Vec<RelPath> = plan.steps.iter().filter_map(renamed_to).collect();
    plan.steps.retain(|step| !renamed.contains(&step.path) || matches!(step.deed, Deed::Rename(_)));
    Ok(Some(plan))
}

fn renamed_to(step: &Step) -> Option<RelPath> {
    match &step.deed {
        Deed::Rename(to) => Some(to.clone()),
        _ => None,
    }
}

/// The last changes of one device, by path, each path's oldest first.
fn last_burst<'a>(events: &'a [EventRow], peers: &[DeviceId]) -> Option<(Burst, BTreeMap<RelPath, Vec<&'a EventRow>>)> {
    let shorts: Vec<String> = peers.iter().map(DeviceId::short).collect();
    let by = |event: &EventRow| {
        let is_change = matches!(&event.kind[..], "received" | "updated" | "deleted");
        let is_named = |short: &&String| event.text.split([' ', ';']).any(|word| word == short.as_str());
        if is_change { shorts.iter().find(is_named).cloned() } else { None }
    };
    let mut changes = events.iter().rev().filter_map(|event| Some((by(event)?, event)));
    let (device, last) = changes.next()?;
    let (mut from_ms, mut of_path) = (last.at_ms, BTreeMap::<RelPath, Vec<&EventRow>>::new());
    for (who, event) in std::iter::once((device.clone(), last)).chain(changes) {
        if from_ms.saturating_sub(event.at_ms) > PAUSE_MS {
            break;
        }
        if who == device {
            from_ms = from_ms.min(event.at_ms);
            if let Some(path) = &event.path {
                of_path.entry(path.clone()).or_default().insert(0, event);
            }
        }
    }
    Some((Burst { device, from_ms, to_ms: last.at_ms }, of_path))
}

fn one(
    reader: &Reader,
    plan: &mut Plan,
    path: &RelPath,
    changes: &[&EventRow],
    own: DeviceId,
) -> Result<(), IndexError> {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(()) };
    let record = reader.record(path)?;
    let live = record.as_ref().filter(|record| record.entry.is_live());
    if live.is_some_and(|record| record.entry.author == own || record.entry.kind.is_directory()) {
        plan.left.push((path.clone(), "it was changed on this device since"));
        return Ok(());
    }
    if first.kind == "received" {
        // Nothing lay there before, or what lay there under another name.
        if let Some(record) = live {
            let from = renamed_from(reader, record)?;
            plan.steps.push(Step { path: path.clone(), deed: from.map_or(Deed::SetAside, Deed::Rename) });
        }
        return Ok(());
    }
    if live.is_none() && last.kind != "deleted" {
        plan.left.push((path.clone(), "it was deleted on this device since"));
        return Ok(());
    }
    let displaced = |row: &HistoryRow| row.displaced_ms == first.at_ms && row.by_remote;
    match reader.history_of(path)?.into_iter().find(displaced) {
        Some(row) => plan.steps.push(Step { path: path.clone(), deed: Deed::Bring(row.slot) }),
        None => plan.left.push((path.clone(), NOT_IN_HISTORY)),
    }
    Ok(())
}

/// The name that a received file had here before: the tombstone of the old name was noted right after it.
fn renamed_from(reader: &Reader, record: &Record) -> Result<Option<RelPath>, IndexError> {
    let next = reader.records_since(record.seq, 1)?.pop();
    let next = next.filter(|next| next.seq == record.seq + 1 && next.changed_ms == record.changed_ms);
    let is_old_name = |old: &Record| {
        let was = old.entry.superseded.first();
        !old.entry.is_live() && was.is_some() && was.copied() == record.entry.kind.content_id()
    };
    Ok(next.filter(is_old_name).map(|old| old.entry.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::entry::{Entry, Kind};
    use crate::core::id::EpochId;
    use crate::engine::testing::path;
    use crate::index::{Index, Mark};

    const OWN: DeviceId = DeviceId([1; 32]);
    const DESK: DeviceId = DeviceId([2; 32]);
    const PHONE: DeviceId = DeviceId([3; 32]);
    const DISK: DiskState =
        DiskState { kind: DiskKind::File, size: 1, mtime_ns: 5, ctime_ns: 1, inode: 1, mode: 0o644 };

    struct World(Index);

    impl World {
        fn new() -> Self {
            Self(Index::in_memory(EpochId(1)).unwrap())
        }

        fn put(&mut self, at: &str, kind: Kind, author: DeviceId, earlier: &[&str], at_ms: i64) {
            let superseded = earlier.iter().map(|t| Content::of_chunk(t.as_bytes()).id).collect();
            let disk = (kind != Kind::Deleted).then_some(DISK);
            let entry = Entry { kind, author, superseded, ..Entry::nothing(path(at)) };
            self.0.put(&entry, disk, Mark::Here, at_ms).unwrap();
        }

        /// What a device did, as it is noted.
        fn did(&mut self, device: DeviceId, kind: &str, at: &str, text: &str, at_ms: i64) {
            let was = self.0.record(&path(at)).unwrap().and_then(|r| r.entry.kind.content());
            if let Some(content) = was {
                let row = HistoryRow {
                    slot: path(&format!("{at}~{at_ms}")),
                    path: path(at),
                    content: Some(content),
                    disk: DISK,
                    author: OWN,
                    displaced_ms: at_ms,
                    by_remote: true,
                    brought_by: None,
                    displaced_by: None,
                    placed_ms: None,
                };
                self.0.add_history(&row).unwrap();
            }
            match kind {
                "deleted" => self.put(at, Kind::Deleted, DeviceId::NONE, &[], at_ms),
                _ => self.put(at, file(text), device, &[], at_ms),
            }
            self.0.log(at_ms, kind, Some(&path(at)), &format!("{kind} by {}; more", device.short())).unwrap();
        }

        fn plan(&self) -> Option<Plan> {
            plan(&self.0, &[DESK, PHONE], OWN).unwrap()
        }
    }

    fn file(text: &str) -> Kind {
        Kind::File(Content::of_chunk(text.as_bytes()))
    }

    fn step(at: &str, deed: Deed) -> Step {
        Step { path: path(at), deed }
    }

    #[test]
    fn the_last_burst_of_one_device_is_taken_back() {
        let mut world = World::new();
        assert_eq!(world.plan(), None);
        world.put("a", file("1"), OWN, &[], 1);
        world.put("b", file("2"), OWN, &[], 1);
        world.did(DESK, "received", "before", "x", 1000);
        world.did(DESK, "updated", "a", "one", 200_000);
        world.did(PHONE, "received", "other", "x", 210_000);
        world.did(DESK, "updated", "a", "uno", 230_000);
        world.did(DESK, "deleted", "b", "", 260_000);
        world.did(DESK, "received", "c", "new", 261_000);
        let plan = world.plan().unwrap();
        let wanted = [
            step("a", Deed::Bring(path("a~200000"))),
            step("b", Deed::Bring(path("b~260000"))),
            step("c", Deed::SetAside),
        ];
        assert_eq!((&plan.steps[..], plan.left.len()), (&wanted[..], 0));
        let burst = Burst { device: DESK.short(), from_ms: 200_000, to_ms: 261_000 };
        assert_eq!(plan.burst, Some(burst));
    }

    #[test]
    fn what_was_changed_here_since_or_is_gone_from_history_stays() {
        let mut world = World::new();
        for at in ["edited", "expired", "gone"] {
            world.put(at, file("1"), OWN, &[], 1);
            world.did(DESK, "updated", at, "2", 1000);
        }
        world.put("edited", file("mine"), OWN, &["2"], 2000);
        world.put("gone", Kind::Deleted, DeviceId::NONE, &["2"], 2000);
        world.0.drop_history(&path("expired~1000")).unwrap();
        let plan = world.plan().unwrap();
        assert_eq!((plan.steps.len(), plan.left.len()), (0, 3));
        let why = |plan: &Plan| plan.left.iter().find(|(at, _)| *at == path("expired")).unwrap().1;
        assert_eq!(why(&plan), NOT_IN_HISTORY);
        world.0.log(1000, "conflict", Some(&path("expired")), "changed on two devices at once").unwrap();
        assert!(why(&world.plan().unwrap()).contains("conflict copy"));
    }

    #[test]
    fn a_file_that_was_renamed_gets_its_name_back() {
        let mut world = World::new();
        world.put("new", file("1"), DESK, &[], 1000);
        world.put("old", Kind::Deleted, DeviceId::NONE, &["1"], 1000);
        world.0.log(1000, "received", Some(&path("new")), &format!("received from {}", DESK.short())).unwrap();
        assert_eq!(world.plan().unwrap().steps, [step("new", Deed::Rename(path("old")))]);
    }
}
