//! What takes the last plan back that was carried out, kept in the index.
//!
//! It is kept twice: before the first step as the plan itself with its time, for a crash in its midst, and after the last
//! step exactly. Where only the first is there, history tells how far the plan had got: all that one plan displaces is
//! displaced at one time.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rewind::{Deed, Plan, Step};
use super::shared::{Event, Shared};
use crate::api::WirePath;
use crate::core::path::RelPath;
use crate::index::{HistoryRow, IndexError, Reader, Record};

/// Steps that can be taken back: what is kept of them is a few megabytes at most.
const STEPS_MAX: usize = 20_000;
/// Index note with the steps that take back the last plan.
const NOTE: &str = "rewound";
/// How long it may take to have something in the index for sure: the folder's thread may be in the midst of a large commit.
const KEEP_TIME: Duration = Duration::from_secs(60);

/// A step as the index keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    path: WirePath,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<WirePath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<WirePath>,
}

/// A plan that has begun, and of which it is not known how far it has got.
#[derive(Serialize, Deserialize)]
struct Begun {
    /// The time of all that it displaces, ms since 1970.
    at_ms: i64,
    steps: Vec<Kept>,
}

/// What takes back a plan that was carried out to its end.
#[derive(Serialize, Deserialize)]
struct Done {
    /// When it was carried out, ms since 1970.
    done_ms: i64,
    back: Vec<Kept>,
}

/// Before the first step: returns once this is in the index for sure.
pub fn keep_first(shared: &Shared, steps: &[Step], at_ms: i64) -> Result<(), String> {
    let begun = || serde_json::to_string(&Begun { at_ms, steps: steps.iter().map(kept).collect() }).unwrap_or_default();
    let note = if steps.len() > STEPS_MAX { String::new() } else { begun() };
    let (done, kept) = mpsc::sync_channel(1);
    let sent = shared.inputs.blocking_send(Event::Keep(NOTE, note, done));
    sent.map_err(|_| "this folder is stopping; nothing was done")?;
    kept.recv_timeout(KEEP_TIME).map_err(|_| "this folder is busy; nothing was done, try again")?;
    Ok(())
}

/// After the last step: what takes back all that was done.
pub fn keep(shared: &Shared, inverse: &[Step], done_ms: i64) {
    let _ = shared.inputs.blocking_send(Event::Note(NOTE, pack(inverse, done_ms)));
}

/// The plan that takes back the last one that was carried out, or as far as it was.
pub fn plan_back(reader: &Reader) -> Result<Plan, IndexError> {
    let note = reader.note(NOTE)?.unwrap_or_default();
    if let Ok(begun) = serde_json::from_str::<Begun>(&note) {
        let mut back = Vec::new();
        for step in begun.steps.iter().filter_map(step).rev() {
            back.extend(inverse_of(reader, step, begun.at_ms)?);
        }
        return Ok(Plan { steps: back, done_ms: Some(begun.at_ms), ..Plan::default() });
    }
    let (steps, done_ms) = unpack(&note);
    Ok(Plan { steps, done_ms, ..Plan::default() })
}

/// What takes one step back, if it was done.
fn inverse_of(reader: &Reader, step: Step, at_ms: i64) -> Result<Option<Step>, IndexError> {
    let Step { path, deed } = step;
    if let Deed::Rename(to) = deed {
        let live = |at: &RelPath| Ok::<_, IndexError>(reader.record(at)?.is_some_and(|record| record.entry.is_live()));
        let is_done = live(&to)? && !live(&path)?;
        return Ok(is_done.then_some(Step { path: to, deed: Deed::Rename(path) }));
    }
    let displaced = reader.history_of(&path)?.into_iter().find(|row| row.displaced_ms == at_ms);
    if let Some(row) = displaced {
        return Ok(Some(Step { path, deed: Deed::Bring(row.slot) }));
    }
    // Nothing had lain there: what was brought goes again, if it came and is still that.
    let Deed::Bring(slot) = deed else { return Ok(None) };
    let (brought, record) = (reader.history_slot(&slot)?, reader.record(&path)?);
    let is_there = brought.zip(record).is_some_and(|(row, record)| is_same(&row, &record));
    Ok(is_there.then_some(Step { path, deed: Deed::SetAside }))
}

fn is_same(row: &HistoryRow, record: &Record) -> bool {
    let looks_alike =
        |disk: crate::core::disk::DiskState| (disk.size, disk.mtime_ns) == (row.disk.size, row.disk.mtime_ns);
    let is_other = row.content.is_some() && record.entry.kind.content() != row.content;
    record.is_held() && record.disk.is_some_and(looks_alike) && !is_other
}

fn kept(step: &Step) -> Kept {
    let wire = |path: &RelPath| {
        WirePath(PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.as_bytes())))
    };
    Kept {
        path: wire(&step.path),
        slot: if let Deed::Bring(slot) = &step.deed { Some(wire(slot)) } else { None },
        to: if let Deed::Rename(to) = &step.deed { Some(wire(to)) } else { None },
    }
}

/// `None` for what makes no sense.
fn step(kept: &Kept) -> Option<Step> {
    let parse = |path: &WirePath| RelPath::parse(std::os::unix::ffi::OsStrExt::as_bytes(path.0.as_os_str())).ok();
    let deed = match (&kept.slot, &kept.to) {
        (Some(slot), _) => Deed::Bring(parse(slot)?),
        (None, Some(to)) => Deed::Rename(parse(to)?),
        (None, None) => Deed::SetAside,
    };
    Some(Step { path: parse(&kept.path)?, deed })
}

/// Empty where there are too many steps.
fn pack(steps: &[Step], done_ms: i64) -> String {
    if steps.len() > STEPS_MAX {
        return String::new();
    }
    serde_json::to_string(&Done { done_ms, back: steps.iter().map(kept).collect() }).unwrap_or_default()
}

/// The steps, and when what they take back was done, which earlier versions did not write down.
fn unpack(text: &str) -> (Vec<Step>, Option<i64>) {
    let (back, done_ms) = match serde_json::from_str::<Done>(text) {
        Ok(done) => (done.back, Some(done.done_ms)),
        Err(_) => (serde_json::from_str(text).unwrap_or_default(), None),
    };
    (back.iter().filter_map(step).collect(), done_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::id::EpochId;
    use crate::engine::rewind;
    use crate::engine::testing::{folder, path};
    use crate::index::Index;
    use crate::sync::Input;

    fn texts(root: &std::path::Path, names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| std::fs::read_to_string(root.join(name)).ok()).collect()
    }

    #[test]
    fn an_undo_that_a_crash_cut_off_can_be_taken_back_as_far_as_it_got() {
        let (_dir, shared, mut inputs) = folder("");
        let root = shared.root.path().to_owned();
        let mut index = Index::open(&shared.index_path, EpochId(1)).unwrap();
        for (name, text) in [("a~1", "a then"), ("gone~1", "gone then")] {
            std::fs::create_dir_all(root.join(".p2psync/history")).unwrap();
            std::fs::write(root.join(".p2psync/history").join(name), text).unwrap();
        }
        for (name, text) in [("a", "a now"), ("new", "new now"), ("last", "last now")] {
            std::fs::write(root.join(name), text).unwrap();
        }
        let step = |at: &str, deed| Step { path: path(at), deed };
        let steps = vec![
            step("a", Deed::Bring(path("a~1"))),
            step("gone", Deed::Bring(path("gone~1"))),
            step("new", Deed::SetAside),
            step("last", Deed::SetAside),
        ];
        // The folder's thread, until it is cut off before the last of what it hears.
        let began = root.clone();
        let listening = std::thread::spawn(move || {
            let mut rows = Vec::new();
            while let Some(event) = inputs.blocking_recv() {
                match event {
                    Event::Keep(key, value, done) => {
                        assert_eq!(
                            texts(&began, &["a"]),
                            [Some("a now".to_owned())],
                            "it is kept before anything is done"
                        );
                        index.set_note(key, Some(&value)).unwrap();
                        done.send(()).unwrap();
                    }
                    Event::Input(Input::History { found, .. }) => rows.extend(found),
                    Event::Note(..) | Event::Stop | Event::Message(..) | Event::Input(_) => break,
                }
            }
            (index, rows)
        });
        let plan = Plan { steps, ..Plan::default() };
        assert_eq!(rewind::carry_out(&shared, &plan).unwrap(), []);
        let (mut index, rows) = listening.join().unwrap();
        assert_eq!(texts(&root, &["a", "gone", "new", "last"])[2..], [None, None]);
        rows.iter().filter(|row| row.path != path("last")).for_each(|row| index.add_history(row).unwrap());
        let brought =
            crate::index::HistoryRow { slot: path("gone~1"), path: path("gone"), displaced_ms: 1, ..rows[0].clone() };
        let there = shared.root.open().unwrap().look(&path("gone")).unwrap().unwrap();
        index.add_history(&crate::index::HistoryRow { disk: there, content: None, ..brought }).unwrap();
        let kind = crate::core::entry::Kind::File(crate::core::content::Content::of_chunk(b"gone then"));
        let entry = crate::core::entry::Entry { kind, ..crate::core::entry::Entry::nothing(path("gone")) };
        index.put(&entry, Some(there), crate::index::Mark::Here, 1).unwrap();
        let back = plan_back(&index).unwrap().steps;
        let slot = |at: &str| rows.iter().find(|row| row.path == path(at)).unwrap().slot.clone();
        let wanted =
            [step("new", Deed::Bring(slot("new"))), step("gone", Deed::SetAside), step("a", Deed::Bring(slot("a")))];
        assert_eq!(back, wanted);
    }

    #[test]
    fn nothing_is_done_where_the_way_back_cannot_be_kept() {
        let (_dir, shared, inputs) = folder("");
        drop(inputs);
        std::fs::write(shared.root.path().join("a"), "mine").unwrap();
        let plan = Plan { steps: vec![Step { path: path("a"), deed: Deed::SetAside }], ..Plan::default() };
        assert!(rewind::carry_out(&shared, &plan).is_err());
        assert_eq!(texts(shared.root.path(), &["a"]), [Some("mine".to_owned())]);
    }

    proptest! {
        #[test]
        fn steps_that_are_kept_read_back(names in proptest::collection::vec("[^/\\x00]{1,9}", 0..5), which in 0..3) {
            let paths: Vec<RelPath> = names.iter().filter_map(|name| RelPath::parse(name.as_bytes()).ok()).collect();
            let deed = |path: &RelPath| match which {
                0 => Deed::SetAside,
                1 => Deed::Bring(path.clone()),
                _ => Deed::Rename(path.clone()),
            };
            let steps: Vec<Step> = paths.iter().map(|path| Step { path: path.clone(), deed: deed(path) }).collect();
            prop_assert_eq!(unpack(&pack(&steps, 7)), (steps.clone(), Some(7)));
            let of_earlier_versions = serde_json::to_string(&steps.iter().map(kept).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(unpack(&of_earlier_versions), (steps, None));
        }

        #[test]
        fn nonsense_in_the_note_is_no_step(text in "\\PC{0,40}") {
            prop_assert_eq!(unpack(&text), (vec![], None));
        }
    }
}
