//! The disk itself: it behaves as Linux does, and loses what Linux may lose.

use std::collections::BTreeMap;
use std::path::Path;

use p2psync::core::disk::DiskKind;
use p2psync::fs::sys::{BoxedHandle, Handle, OsSystem, Stat, System};
use proptest::prelude::*;
use rustix::io::Errno;

use super::super::random::Random;
use super::image::Image;
use super::*;

const T0_NS: i64 = 1_000_000_000_000_000_007;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "name"];
const HANDLES_MAX: usize = 8;

/// One call, with what it needs chosen by numbers.
#[derive(Clone, Copy)]
struct Step {
    call: usize,
    handle: usize,
    other: usize,
    name: usize,
    other_name: usize,
    value: u64,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { call, handle, other, name, other_name, value } = self;
        write!(f, "{call} on {handle} {name} with {other} {other_name}, {value}")
    }
}

fn step() -> impl Strategy<Value = Step> {
    let names = 0..NAMES.len() + 1;
    (0usize..28, 0..HANDLES_MAX, 0..HANDLES_MAX, names.clone(), names, 0u64..9).prop_map(
        |(call, handle, other, name, other_name, value)| Step { call, handle, other, name, other_name, value },
    )
}

fn name(index: usize) -> Vec<u8> {
    NAMES.get(index).map_or(vec![b'n'; 256], |name| name.as_bytes().to_vec())
}

/// Runs calls on a system, and tells what each returned and what there was afterwards.
struct Runner {
    handles: Vec<BoxedHandle>,
    /// Inode numbers by the order in which they were met within one listing: they may be given out again.
    met: BTreeMap<u64, usize>,
}

impl Runner {
    fn new(system: &dyn System, path: &Path) -> Runner {
        system.create_dir_all(path).unwrap();
        Runner { handles: vec![system.open_root(path).unwrap()], met: BTreeMap::new() }
    }

    fn stat(&mut self, stat: Result<Stat, Errno>) -> String {
        let state = match stat {
            Ok(stat) => stat.state.unwrap(),
            Err(errno) => return format!("{errno:?}"),
        };
        let next = self.met.len();
        let inode = *self.met.entry(state.inode).or_insert(next);
        let links = if state.kind == DiskKind::Directory { 0 } else { stat.unwrap().links };

        format!("{inode} {:?} {} {:o} {links} {}", state.kind, state.size, state.mode, state.mtime_ns == T0_NS)
    }

    fn keep(&mut self, opened: Result<BoxedHandle, Errno>) -> String {
        let shown = shown(opened.as_ref().map(drop).map_err(|errno| *errno));
        if let Ok(handle) = opened {
            // The root stays.
            if self.handles.len() == HANDLES_MAX {
                self.handles.remove(1);
            }
            self.handles.push(handle);
        }
        shown
    }

    fn run(&mut self, step: Step) -> String {
        let on = step.handle % self.handles.len();
        let (name, other_name) = (name(step.name), name(step.other_name));
        let value = step.value;
        if let 0..=5 = step.call {
            let handle = &self.handles[on];
            let path = [&name[..], b"/", &other_name].concat();
            let opened = match step.call {
                0 => handle.open_dir_beneath(if value == 0 { b"" } else { &path }),
                1 => handle.open_dir_beneath(&name),
                2 => handle.open_dir_at(&name),
                3 => handle.open_to_read(&name),
                _ => handle.open_own(&name, value.is_multiple_of(2)),
            };
            return self.keep(opened);
        }
        if let 6 | 7 = step.call {
            let stat = if step.call == 6 { self.handles[on].stat() } else { self.handles[on].stat_at(&name) };
            self.met.clear();
            return self.stat(stat);
        }
        let (handle, other) = (&self.handles[on], &*self.handles[step.other % self.handles.len()]);
        match step.call {
            8 => shown(handle.names().map(|names| format!("{names:?}"))),
            9..=11 => shown(handle.mkdir(&name, 0o700)),
            12 => shown(handle.symlink(&name, [&b"a"[..], b"", b"no/where"][value as usize % 3])),
            13 => shown(handle.readlink(&name)),
            14 => shown(handle.rename(&name, other, &other_name)),
            15 => shown(handle.rename_noreplace(&name, other, &other_name)),
            16 => shown(handle.exchange(&name, other, &other_name)),
            17 => shown(handle.link(&name, other, &other_name)),
            18 => shown(handle.unlink(&name)),
            19 => shown(handle.rmdir(&name)),
            20 => shown(handle.chmod_at(&name, [0o700, 0o4755][value as usize % 2])),
            21 => shown(handle.chmod([0o700, 0o755][value as usize % 2])),
            22 => shown(handle.set_mtime_at(&name, value as i64 * 1001 - 7)),
            23 => shown(handle.set_len(value * 3)),
            24 => {
                let mut bytes = [0; 8];
                shown(handle.read_at(&mut bytes, value).map(|read| format!("{:?}", &bytes[..read])))
            }
            25 | 26 => shown(handle.write_at(&vec![b'0' + value as u8; value as usize], value * 2)),
            _ => shown(handle.fsync()),
        }
    }

    /// All that can be reached from the root, with its state.
    fn tree(&mut self) -> Vec<String> {
        self.met.clear();
        let root = self.handles[0].open_dir_beneath(b"").unwrap();
        let mut lines = vec![self.stat(root.stat())];
        self.list(&*root, "", &mut lines);
        lines
    }

    fn list(&mut self, dir: &dyn Handle, above: &str, lines: &mut Vec<String>) {
        for name in dir.names().unwrap() {
            let path = format!("{above}/{}", name.escape_ascii());
            let stat = dir.stat_at(&name);
            let bytes = match stat.unwrap().state.unwrap().kind {
                DiskKind::File => read_all(&*dir.open_to_read(&name).unwrap()),
                DiskKind::Symlink => dir.readlink(&name).unwrap(),
                DiskKind::Directory => Vec::new(),
            };
            lines.push(format!("{path} {} {}", self.stat(stat), bytes.escape_ascii()));
            if let Ok(below) = dir.open_dir_at(&name) {
                self.list(&*below, &path, lines);
            }
        }
    }

    /// Sets all times back, so that the next stamp shows.
    fn set_back(&self, dir: &dyn Handle) {
        dir.set_mtime(T0_NS).unwrap();
        for name in dir.names().unwrap() {
            match dir.open_dir_at(&name) {
                Ok(below) => self.set_back(&*below),
                Err(_) => dir.set_mtime_at(&name, T0_NS).unwrap(),
            }
        }
    }
}

fn shown<T: std::fmt::Debug>(result: Result<T, Errno>) -> String {
    format!("{result:?}")
}

fn read_all(file: &dyn Handle) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

fn fresh() -> (SimDisk, BoxedHandle) {
    with(Options::default())
}

fn with(options: Options) -> (SimDisk, BoxedHandle) {
    let disk = SimDisk::new(options);
    disk.lock().user_mkdir("f").unwrap();
    disk.lock().sync_all();
    let root = disk.open_root(&disk.root_path("f")).unwrap();
    (disk, root)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_same_calls_do_the_same_as_on_linux(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(Options::default());
        let mut real = Runner::new(&OsSystem, &dir.path().join("f"));
        let mut simulated = Runner::new(&disk, &disk.root_path("f"));
        for (i, step) in steps.into_iter().enumerate() {
            for runner in [&real, &simulated] {
                runner.set_back(&*runner.handles[0]);
            }
            let (a, b) = (real.run(step), simulated.run(step));
            prop_assert_eq!(a, b, "call {}: {:?}", i, step);
            prop_assert_eq!(real.tree(), simulated.tree(), "after call {}: {:?}", i, step);
        }
    }

    /// What is durable stays, a file that is only renamed never vanishes, and nothing is half there in a tree.
    #[test]
    fn a_power_cut_takes_only_what_was_not_durable(
        seed: u64, before in prop::collection::vec(step(), 0..30), after in prop::collection::vec(step(), 0..30), ordered: bool,
    ) {
        let disk = SimDisk::new(Options { block_bytes: 2, ..Options::default() });
        let mut runner = Runner::new(&disk, &disk.root_path("f"));
        for step in before {
            runner.run(step);
        }
        disk.lock().sync_all();
        let mut durable = disk.lock().live.clone();
        durable.drop_nameless(|_| false);
        // Names only move, so that nothing of what was there may get lost.
        let moves = |step: &Step| matches!(step.call, 0..=16 | 20..=22 | 27);
        for step in after.into_iter().filter(moves) {
            let replaces = step.call == 14;
            runner.run(Step { call: if replaces { 15 } else { step.call }, ..step });
        }
        let mut random = Random(seed);
        let mode = if ordered { CutMode::Ordered } else { CutMode::Any };
        disk.lock().write_back(&mut |n| random.below(n));
        let lost = disk.lock().power_cut(mode, &mut |n| random.below(n));
        let live = disk.lock().live.clone();
        check_sound(&live);
        for (id, node) in &durable.nodes {
            prop_assert_eq!(live.nodes.get(id).map(|n| n.bytes()), Some(node.bytes()));
        }
        let lost_old = lost.iter().find(|lost| durable.nodes.values().any(|n| !n.is_dir() && n.bytes() == lost.bytes));
        prop_assert_eq!(lost_old, None);
        prop_assert_eq!(disk.lock().pending_count(), 0);
        prop_assert_eq!(runner.handles[0].stat().err(), Some(Errno::IO));
    }
}

/// Every name has its node and every node its names.
fn check_sound(image: &Image) {
    for (dir, node) in &image.nodes {
        for (_, (name, id)) in image.entries(*dir).into_iter().flatten() {
            let spot = image::Spot { dir: *dir, name: name.clone() };
            assert!(image.nodes[id].names.contains(&spot));
        }
        for spot in &node.names {
            assert_eq!(image.find(spot), Some(*dir));
        }
        assert!(image.path_of(*dir).is_some());
    }
}

#[test]
fn an_unsynced_write_can_stay_get_lost_leave_zeros_or_tear() {
    for mode in [CutMode::Ordered, CutMode::Any] {
        let mut found = BTreeSet::new();
        for seed in 0..200 {
            let (disk, _) = with(Options { block_bytes: 2, ..Options::default() });
            let mut inner = disk.lock();
            inner.user_write_new("f/a", b"").unwrap();
            inner.sync_all();
            inner.user_append("f/a", b"12345").unwrap();
            let mut random = Random(seed);
            let lost = inner.power_cut(mode, &mut |n| random.below(n));
            let left = inner.read("f/a").unwrap();
            assert_eq!(lost.is_empty(), left == b"12345");
            assert!(lost.iter().all(|l| l.actor == Actor::User && l.path == b"f/a" && l.bytes == b"12345"));
            found.insert(left);
        }
        for wanted in [&b""[..], b"12345", b"\0\0\0\0\0", b"12\0\0\0", b"1234\0"] {
            assert!(found.contains(wanted), "{mode:?}: {wanted:?}");
        }
    }
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_not() {
    let mut is_kept = BTreeSet::new();
    for (mode, seed) in (0..50).flat_map(|seed| [(CutMode::Ordered, seed), (CutMode::Any, seed)]) {
        let (disk, root) = fresh();
        let (synced, unsynced) = (root.open_own(b"synced", true).unwrap(), root.open_own(b"unsynced", true).unwrap());
        synced.write_at(b"bytes", 0).unwrap();
        unsynced.write_at(b"others", 0).unwrap();
        synced.fsync().unwrap();
        root.fsync().unwrap();
        root.rename_noreplace(b"synced", &*root, b"renamed").unwrap();
        let mut random = Random(seed);
        let lost = disk.lock().power_cut(mode, &mut |n| random.below(n));
        let inner = disk.lock();
        let (old, new) = (inner.read("f/synced"), inner.read("f/renamed"));
        assert_eq!(old.clone().or(new.clone()).as_deref(), Some(&b"bytes"[..]));
        assert!(old.is_none() || new.is_none());
        assert!(inner.item("f/unsynced").is_some());
        assert!(lost.iter().all(|lost| lost.actor == Actor::Agent && lost.bytes == b"others"));
        is_kept.insert((old.is_some(), lost.is_empty()));
    }
    assert_eq!(is_kept.len(), 4);
}

#[test]
fn a_write_that_is_killed_stays_and_its_handles_die() {
    let (disk, root) = fresh();
    let file = root.open_own(b"a", true).unwrap();
    file.write_at(b"x", 0).unwrap();
    disk.lock().kill();
    assert_eq!((file.write_at(b"y", 0), root.stat().err()), (Err(Errno::IO), Some(Errno::IO)));
    assert_eq!(disk.lock().read("f/a"), Some(b"x".to_vec()));
    let again = disk.open_root(&disk.root_path("f")).unwrap();
    assert!(again.open_to_read(b"a").is_ok());
}

#[test]
fn whoever_listens_can_act_before_a_call_and_cut_the_agent_off() {
    let (disk, root) = fresh();
    disk.lock().set_hook(Some(Box::new(|inner, op| {
        if op.call == Call::Mkdir {
            assert_eq!(inner.op_path(op), b"f/d");
            inner.user_write_new("f/d", b"mine").unwrap();
        }
        if op.call == Call::Unlink {
            inner.set_hook(None);
            inner.cut_agent_off();
        }
    })));
    assert_eq!(root.mkdir(b"d", 0o700), Err(Errno::EXIST));
    assert_eq!(root.unlink(b"d"), Err(Errno::IO));
    assert_eq!(root.names().err(), Some(Errno::IO));
    assert_eq!(disk.open_root(&disk.root_path("f")).err(), Some(Errno::IO));
    disk.lock().kill();
    assert_eq!(disk.lock().read("f/d"), Some(b"mine".to_vec()));
    assert!(disk.open_root(&disk.root_path("f")).is_ok());
}

#[test]
fn a_disk_has_trouble_when_it_is_told_to() {
    let (disk, root) = with(Options { capacity_bytes: 3 * 4096, ..Options::default() });
    let file = root.open_own(b"a", true).unwrap();
    assert_eq!(file.write_at(&[1; 4 * 4096], 0), Err(Errno::NOSPC));
    assert_eq!(file.write_at(&[1; 2 * 4096], 0), Ok(2 * 4096));
    assert_eq!(root.free_bytes(), Ok(4096));
    disk.lock().set_fault(Call::Write, Some(Fault::Once));
    assert_eq!((file.write_at(b"x", 0), file.write_at(b"x", 0)), (Err(Errno::IO), Ok(1)));
    disk.lock().set_read_only(true);
    assert_eq!((file.write_at(b"x", 0), root.mkdir(b"d", 0o700)), (Err(Errno::ROFS), Err(Errno::ROFS)));
    disk.lock().set_read_only(false);
    root.mkdir(b"d", 0o700).unwrap();
    disk.lock().set_denied("f/d", true).unwrap();
    assert_eq!(root.open_dir_at(b"d").err(), Some(Errno::ACCESS));
    assert!(root.stat_at(b"d").is_ok());
    disk.lock().set_denied("f/d", false).unwrap();
    assert!(root.open_dir_at(b"d").is_ok());
    disk.lock().set_unmounted(Some(Unmounted::Empty));
    assert_eq!(root.stat().err(), Some(Errno::IO));
    assert_eq!(disk.open_root(Path::new(MOUNTED_AT)).unwrap().names(), Ok(vec![]));
    assert_eq!(disk.open_root(&disk.root_path("f")).err(), Some(Errno::NOENT));
    disk.lock().set_unmounted(Some(Unmounted::Gone));
    assert_eq!(disk.open_root(Path::new(MOUNTED_AT)).err(), Some(Errno::NOENT));
    disk.lock().set_unmounted(None);
    assert_eq!(disk.open_root(&disk.root_path("f")).unwrap().names().unwrap().len(), 2);
}

#[test]
fn names_that_fold_keep_their_spelling_and_numbers_come_again() {
    let (disk, root) = with(Options { folds: true, reuses_numbers: true, ..Options::default() });
    let inode = |name: &[u8]| root.stat_at(name).unwrap().state.unwrap().inode;
    root.open_own(b"File", true).unwrap();
    assert_eq!(root.open_own(b"fILE", true).err(), Some(Errno::EXIST));
    let number = inode(b"FILE");
    root.rename_noreplace(b"File", &*root, b"file").unwrap_err();
    root.rename(b"File", &*root, b"file").unwrap();
    assert_eq!(root.names(), Ok(vec![b"file"[..].into()]));
    root.unlink(b"FILE").unwrap();
    root.mkdir(b"d", 0o700).unwrap();
    assert_eq!(inode(b"D"), number);
    check_sound(&disk.lock().live);
}

#[test]
fn stamps_follow_the_clock_in_its_ticks() {
    let (disk, root) = with(Options { tick_ns: 10, time_grain_ns: 2, ..Options::default() });
    disk.lock().set_now_ns(123);
    root.open_own(b"a", true).unwrap();
    let state = |name: &[u8]| root.stat_at(name).unwrap().state.unwrap();
    assert_eq!((state(b"a").mtime_ns, root.stat().unwrap().state.unwrap().mtime_ns), (120, 120));
    disk.lock().set_now_ns(140);
    root.set_mtime_at(b"a", 77).unwrap();
    assert_eq!((state(b"a").mtime_ns, state(b"a").ctime_ns), (76, 140));
    disk.lock().set_now_ns(150);
    root.rename(b"a", &*root, b"b").unwrap();
    assert_eq!((state(b"b").mtime_ns, state(b"b").ctime_ns), (76, 150));
}

#[test]
fn a_watch_hears_of_what_happens_and_when_it_is_complete() {
    let (disk, root) = fresh();
    disk.lock().take_events();
    let heard = || -> Vec<(String, bool)> {
        let events = disk.lock().take_events();
        events.into_iter().map(|e| (String::from_utf8(e.path).unwrap(), e.closed)).collect()
    };
    let event = |path: &str, closed| (path.to_owned(), closed);
    let file = root.open_own(b"a", true).unwrap();
    file.write_at(b"x", 0).unwrap();
    assert_eq!(heard(), [event("f/a", false), event("f/a", false)]);
    drop(file);
    assert_eq!(heard(), [event("f/a", true)]);
    disk.lock().user_rename("f/a", "f/b").unwrap();
    assert_eq!(heard(), [event("f/a", true), event("f/b", true)]);
    disk.lock().user_mkdir("f/d").unwrap();
    disk.lock().user_remove_tree("f").unwrap();
    assert_eq!(heard(), [event("f/d", true), event("f/b", true), event("f/d", true), event("f", true)]);
}
