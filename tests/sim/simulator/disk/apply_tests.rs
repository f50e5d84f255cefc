//! The real `fs` on this disk: whatever is carried out, and wherever the power goes, nothing of the user's is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use p2psync::core::action::{Action, Displace, Expected, Outcome};
use p2psync::core::content::Content;
use p2psync::core::disk::DiskKind;
use p2psync::core::id::DeviceId;
use p2psync::core::path::RelPath;
use p2psync::fs::apply::{ApplyContext, apply};
use p2psync::fs::history;
use p2psync::fs::read::{ReadOutcome, examine};
use p2psync::fs::root::{OpenRoot, Root};
use p2psync::fs::stage;

use super::super::random::Random;
use super::user::Item;
use super::*;

const FOLDER: &str = "folder";
const NOW_MS: i64 = 1_700_000_000_000;
const CONTEXT: ApplyContext = ApplyContext { device: DeviceId([7; 32]), now_ms: NOW_MS };
/// How the power is cut at each of the points.
const SEEDS: u64 = 6;

/// A folder with what the user has in it, all of it durable, and a job for the agent.
struct World {
    disk: SimDisk,
    root: Root,
}

type Job = fn(&OpenRoot) -> bool;

impl World {
    fn new(options: Options) -> World {
        let disk = SimDisk::new(Options { block_bytes: 4, ..options });
        disk.lock().set_now_ns((NOW_MS - 3_600_000) * 1_000_000);
        let root = Root::on(Arc::new(disk.clone()), disk.root_path(FOLDER), "test".parse().unwrap());
        root.create().unwrap();
        let mut inner = disk.lock();
        inner.user_mkdir_all("folder/dir/below").unwrap();
        for name in ["a", "b", "dir/c", "dir/below/d"] {
            inner.user_write_new(&format!("{FOLDER}/{name}"), format!("the old {name}").as_bytes()).unwrap();
        }
        inner.user_symlink("folder/link", b"a").unwrap();
        inner.sync_all();
        inner.set_now_ns(NOW_MS * 1_000_000);
        drop(inner);
        World { disk, root }
    }

    /// The same world once more, for another try.
    fn fork(&self) -> World {
        let disk = self.disk.fork();
        let root = Root::on(Arc::new(disk.clone()), disk.root_path(FOLDER), "test".parse().unwrap());
        World { disk, root }
    }

    /// Paths and contents of files and links, of the user's tree or of all.
    fn contents(&self, own_too: bool) -> BTreeMap<String, Vec<u8>> {
        let items = self.disk.lock().items(FOLDER);
        let items = items.into_iter().filter(|(_, item)| item.kind != DiskKind::Directory);
        items
            .map(|(path, item)| (String::from_utf8(path).unwrap(), item.bytes))
            .filter(|(path, _)| own_too || !path.starts_with(".p2psync/"))
            .collect()
    }

    /// Directories and contents of the tree, and the slots of the history: what is promised once it is done.
    fn promised(&self) -> Vec<String> {
        let items = self.disk.lock().items(FOLDER);
        let items = items.into_iter().filter(|(path, _)| !path.starts_with(b".p2psync/stage"));
        // The time of a directory is its own affair, and that of a link cannot be made durable by itself.
        let mtime_ns = |item: &Item| if item.kind == DiskKind::File { item.mtime_ns } else { 0 };
        let line = |(path, item): (Vec<u8>, Item)| {
            let (path, bytes) = (path.escape_ascii(), item.bytes.escape_ascii());
            format!("{path} {:?} {bytes} {:o} {}", item.kind, item.mode, mtime_ns(&item))
        };
        items.map(line).collect()
    }
}

fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

fn expected(open: &OpenRoot, name: &str) -> Expected {
    let outcome = examine(open, &path(name), i64::MAX / 2, &mut Vec::new(), &AtomicBool::new(false));
    let (disk, content) = match outcome {
        ReadOutcome::Hashed(file) => (file.disk, Some(file.content.id)),
        ReadOutcome::Link { disk, .. } | ReadOutcome::Directory(disk) => (disk, None),
        // Dead already.
        _ => (
            p2psync::core::disk::DiskState {
                kind: DiskKind::File,
                size: 0,
                mtime_ns: 0,
                ctime_ns: 0,
                inode: 0,
                mode: 0,
            },
            None,
        ),
    };
    Expected { disk, content, displace: Displace::History }
}

fn place(open: &OpenRoot, name: &str, expect: Option<Expected>) -> Action {
    let bytes = format!("the new {name}").into_bytes();
    let content = Content::of_chunk(&bytes);
    let _ = stage::stage_small(open, content, 0, &bytes);
    Action::PlaceFile { path: path(name), content, copy: 0, mtime_ns: 5_000_000_000, mode: 0o640, expect }
}

/// Applies; true where all of it was done.
fn all_done(open: &OpenRoot, actions: Vec<Action>) -> bool {
    let outcomes = apply(open, &CONTEXT, (0..).zip(actions).collect()).outcomes;
    outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done { .. }))
}

fn jobs() -> Vec<(&'static str, Job)> {
    vec![
        ("replace", |open| all_done(open, vec![place(open, "a", Some(expected(open, "a")))])),
        ("replace below", |open| all_done(open, vec![place(open, "dir/below/d", Some(expected(open, "dir/below/d")))])),
        ("conflict copy", |open| {
            let expect = Expected { displace: Displace::ConflictCopy(path("dir/copy")), ..expected(open, "dir/c") };
            all_done(open, vec![place(open, "dir/c", Some(expect))])
        }),
        ("new", |open| all_done(open, vec![place(open, "dir/new", None)])),
        ("remove", |open| {
            all_done(open, vec![Action::Remove { path: path("dir/c"), expect: expected(open, "dir/c") }])
        }),
        ("move", |open| {
            let (expect, to) = (expected(open, "a").disk, path("dir/below/moved"));
            all_done(open, vec![Action::Move { from: path("a"), to, expect, mtime_ns: 6_000_000_000, mode: 0o600 }])
        }),
        ("metadata", |open| {
            let set = |name: &str| Action::SetMetadata {
                path: path(name),
                expect: expected(open, name).disk,
                mtime_ns: 8_000_000_000,
                mode: 0o711,
            };
            all_done(open, vec![set("a"), set("dir/below"), set("dir/c")])
        }),
        ("link over file", |open| {
            let expect = Some(expected(open, "b"));
            all_done(
                open,
                vec![Action::PlaceSymlink { path: path("b"), target: b"target"[..].into(), mtime_ns: 7, expect }],
            )
        }),
        ("file over link", |open| all_done(open, vec![place(open, "link", Some(expected(open, "link")))])),
        ("directory over file", |open| {
            let expect = Some(expected(open, "b"));
            all_done(open, vec![Action::CreateDirectory { path: path("b"), mode: 0o755, expect }])
        }),
        ("batch", |open| {
            all_done(
                open,
                vec![
                    Action::CreateDirectory { path: path("new"), mode: 0o755, expect: None },
                    Action::CreateDirectory { path: path("new/er"), mode: 0o755, expect: None },
                    place(open, "new/er/file", None),
                    Action::Remove { path: path("dir/below/d"), expect: expected(open, "dir/below/d") },
                    Action::RemoveDirectory { path: path("dir/below") },
                    place(open, "a", Some(expected(open, "a"))),
                    place(open, "b", Some(expected(open, "b"))),
                ],
            )
        }),
        ("remove, restore", |open| {
            let removed = Action::Remove { path: path("dir/c"), expect: expected(open, "dir/c") };
            let outcome = apply(open, &CONTEXT, vec![(0, removed)]).outcomes.pop();
            let Some((_, Outcome::Done { displaced: Some(slot), .. })) = outcome else { return false };
            history::restore(open, &slot.name, &path("here/and/there"), NOW_MS).is_ok()
                && history::put_back(open, &slot.name, &path("dir/back")).is_ok()
        }),
    ]
}

/// Runs a job until the call with that number, where `end` says what happens; true where it got done before.
fn run_until(world: &World, job: Job, stop_at: u64) -> bool {
    let begin = world.disk.lock().op_count();
    world.disk.lock().set_hook(Some(Box::new(move |inner, op| {
        if op.index - begin == stop_at {
            inner.cut_agent_off();
        }
    })));
    let is_done = world.root.open().is_ok_and(|open| job(&open));
    world.disk.lock().set_hook(None);
    is_done
}

/// All that may stand in the tree: whole files, old or new.
fn check_whole(world: &World, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    let all = world.contents(true);
    for (path, bytes) in before {
        assert!(all.values().any(|held| held == bytes), "{what}: {path} is lost: {:?}", shown(&all));
    }
    for (path, bytes) in world.contents(false) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_whole = before.values().any(|old| *old == bytes)
            || text == "target"
            || text.strip_prefix("the new ").is_some_and(|name| path == name);
        assert!(is_whole, "{what}: {path} holds {text:?}");
    }
}

/// What was said to be done is there; a slot that had been emptied may be back.
fn assert_kept(world: &World, promised: &[String], what: &str) {
    let mut left = world.promised();
    left.retain(|line| promised.contains(line) || !line.starts_with(".p2psync/history/"));
    assert_eq!(left, promised, "{what}: it was said to be done");
}

fn shown(all: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    all.iter().map(|(path, bytes)| format!("{path}: {}", bytes.escape_ascii())).collect()
}

fn all_options() -> Vec<Options> {
    let plain = Options::default();
    vec![
        plain,
        Options { syncs_names: true, reuses_numbers: true, ..plain },
        Options { has_rename_flags: false, ..plain },
        Options { folds: true, tick_ns: 4_000_000, time_grain_ns: 2_000_000_000, reuses_numbers: true, ..plain },
    ]
}

fn all_jobs() -> Vec<(Options, &'static str, Job, World)> {
    let with = |options| jobs().into_iter().map(move |(name, job)| (options, name, job, World::new(options)));
    all_options().into_iter().flat_map(with).collect()
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_of_the_users_and_leaves_nothing_half_there() {
    for (options, name, job, fresh) in all_jobs() {
        (0..).find(|stop_at| cut_at(&fresh, options, name, job, *stop_at));
    }
}

#[test]
fn so_it_is_with_more_files_than_are_synced_one_by_one() {
    let job: Job = |open| {
        let actions = (0..60).map(|i| match i % 6 {
            0 => Action::CreateDirectory { path: path(&format!("new{i}")), mode: 0o755, expect: None },
            _ => place(open, &format!("new{}/{i}", i - i % 6), None),
        });
        all_done(open, actions.chain([place(open, "a", Some(expected(open, "a")))]).collect())
    };
    let fresh = World::new(Options::default());
    // An odd step, so that all kinds of calls are met.
    (0..).step_by(37).find(|stop_at| cut_at(&fresh, Options::default(), "many", job, *stop_at));
}

/// Cuts the power at one call of a job, in many ways; true where the job got done before that.
fn cut_at(fresh: &World, options: Options, name: &str, job: Job, stop_at: u64) -> bool {
    let world = fresh.fork();
    let before = world.contents(false);
    let is_done = run_until(&world, job, stop_at);
    let (seen, promised) = (world.contents(true), world.promised());
    for (mode, seed) in (0..SEEDS).flat_map(|seed| [(CutMode::Ordered, seed), (CutMode::Any, seed)]) {
        let world = world.fork();
        let mut random = Random(stop_at * SEEDS + seed);
        if seed == 0 {
            world.disk.lock().write_back(&mut |n| random.below(n));
        }
        let lost = world.disk.lock().power_cut(mode, &mut |n| random.below(n));
        let what = format!("{name}, {options:?}, cut at {stop_at}, {mode:?} {seed}, before {:?}", shown(&seen));
        check_whole(&world, &before, &what);
        assert!(lost.iter().all(|lost| lost.actor == Actor::Agent), "{what}: {lost:?}");
        if is_done {
            assert_kept(&world, &promised, &what);
        }
    }
    world.disk.lock().kill();
    check_whole(&world, &before, name);
    assert!(stop_at < 5000, "{name} never gets done");
    is_done
}

#[test]
fn trouble_at_any_call_loses_nothing_and_is_told() {
    for (_, name, job, fresh) in all_jobs() {
        for stop_at in 0.. {
            let world = fresh.fork();
            let before = world.contents(false);
            let begin = world.disk.lock().op_count();
            world.disk.lock().set_hook(Some(Box::new(move |inner, op| {
                if op.index - begin == stop_at {
                    inner.set_fault(op.call, Some(Fault::Once));
                }
            })));
            let is_done = world.root.open().is_ok_and(|open| job(&open));
            check_whole(&world, &before, &format!("{name}, failure at {stop_at}"));
            let calls = world.disk.lock().op_count() - begin;
            if is_done {
                let promised = world.promised();
                let mut random = Random(stop_at);
                world.disk.lock().power_cut(CutMode::Any, &mut |n| random.below(n));
                assert_kept(&world, &promised, &format!("{name}, failure at {stop_at}"));
            }
            if calls <= stop_at {
                break;
            }
        }
    }
}

type Edit = fn(&mut Inner) -> Result<(), Errno>;

/// What a user can do in the middle of it.
const EDITS: [Edit; 9] = [
    |disk| disk.user_save("folder/a", b"edited"),
    |disk| disk.user_overwrite("folder/a", b"edited"),
    |disk| disk.user_append("folder/a", b" edited"),
    |disk| disk.user_save("folder/dir/c", b"edited"),
    |disk| disk.user_save("folder/dir/new", b"edited"),
    |disk| disk.user_rename("folder/dir", "folder/elsewhere"),
    |disk| disk.user_exchange("folder/a", "folder/b"),
    |disk| disk.user_save("folder/dir/copy", b"edited"),
    |disk| disk.user_save("folder/dir/below/moved", b"edited"),
];

#[test]
fn an_edit_before_any_call_stays() {
    for (options, name, job, fresh) in all_jobs() {
        for (which, edit) in EDITS.into_iter().enumerate() {
            for stop_at in 0.. {
                let world = fresh.fork();
                let begin = world.disk.lock().op_count();
                let before = Arc::new(Mutex::new(None));
                let note = Arc::clone(&before);
                world.disk.lock().set_hook(Some(Box::new(move |inner, op| {
                    if op.index - begin == stop_at {
                        inner.set_now_ns(inner.now_ns() + 1_000_000_000);
                        let _ = edit(inner);
                        let items = inner
                            .items(FOLDER)
                            .into_iter()
                            .filter(|(path, item)| item.kind != DiskKind::Directory && !path.starts_with(b".p2psync/"));
                        let texts: Vec<Vec<u8>> = items.map(|(_, item)| item.bytes).collect();
                        *note.lock().unwrap() = Some(texts);
                    }
                })));
                let _ = world.root.open().map(|open| job(&open));
                let calls = world.disk.lock().op_count() - begin;
                let all = world.contents(true);
                for text in before.lock().unwrap().iter().flatten() {
                    let what = format!("{name}, {options:?}, edit {which} before call {stop_at}");
                    assert!(all.values().any(|held| held == text), "{what}: {} is lost", text.escape_ascii());
                }
                if calls <= stop_at {
                    break;
                }
            }
        }
    }
}
