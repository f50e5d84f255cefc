//! Scans of a real folder, reported to a real state machine on a thread of its own.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::sync::mpsc;

use super::*;
use crate::core::content::{Content, ContentId};
use crate::core::id::{EpochId, RunId};
use crate::core::ignore::Rules;
use crate::core::path::RelPath;
use crate::engine::hints::{Job, Look};
use crate::engine::shared::Event;
use crate::engine::testing::{self, path};
use crate::fs::walk;
use crate::index::{Index, Mark};
use crate::sync::{Folder, Now, Observation, Output, Seen, Settings};

/// Far longer than anything takes, so that only what never happens is noticed.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// A folder on disk whose thread does what scans report and remembers it.
struct World {
    dir: tempfile::TempDir,
    handle: FolderHandle,
    heard: Arc<Mutex<Vec<Input>>>,
    threads: Vec<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        Self::with_rules("")
    }

    fn with_rules(rules: &str) -> Self {
        let (dir, handle, events) = testing::folder(rules);
        let index = Index::open(&handle.index_path, EpochId(1)).unwrap();
        let settings = Settings { device: handle.device, ..Settings::default() };
        let folder = Folder::new(index, settings, Rules::default(), RunId(1)).unwrap();
        let heard = Arc::default();
        let (of_thread, shared) = (Arc::clone(&heard), handle.clone());
        let thread = std::thread::spawn(move || fold(folder, &shared, events, &of_thread));
        Self { dir, handle, heard, threads: vec![thread] }
    }

    /// A world in which the threads run, once the first scan is over.
    fn running(every: Duration) -> Self {
        let mut world = Self::new();
        world.start(every);
        world.wait("the first scan", |w| w.count(|i| matches!(i, Input::ScanFinished { complete: true })) > 0);
        world
    }

    fn start(&mut self, every: Duration) {
        self.threads.extend(spawn(self.handle.clone(), every));
    }

    fn at(&self, name: &str) -> PathBuf {
        self.handle.root.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), bytes).unwrap();
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.handle.index_path).unwrap()
    }

    /// Scans everything and waits until the folder has taken it in.
    fn scan(&self) -> bool {
        let root = self.handle.root.open().unwrap();
        let scans = FullScans::new(self.handle.clone(), PATIENCE);
        let is_complete = scans.scan(&root, &self.reader());
        self.settle();
        is_complete
    }

    fn look(&self, looks: &[Look]) {
        paths::look_at_all(&self.handle, &self.reader(), looks).unwrap();
        self.settle();
    }

    /// Waits until the folder's thread has handled all that was sent before.
    fn settle(&self) {
        let before = self.count(|i| matches!(i, Input::Reject));
        self.handle.send(Input::Reject);
        self.wait("the folder's thread", |w| w.count(|i| matches!(i, Input::Reject)) > before);
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come, only {:?}", self.heard.lock().unwrap());
            std::thread::sleep(POLL);
        }
    }

    fn count(&self, which: impl Fn(&Input) -> bool) -> usize {
        self.heard.lock().unwrap().iter().filter(|i| which(i)).count()
    }

    /// What was reported since the last call, as `path kind`.
    fn reported(&self) -> Vec<String> {
        let inputs = std::mem::take(&mut *self.heard.lock().unwrap());
        let mut all: Vec<String> = inputs.iter().flat_map(shown).collect();
        all.sort();
        all
    }

    fn live(&self) -> BTreeSet<String> {
        let records = self.reader().records_from(None, None, 100_000).unwrap();
        records.iter().filter(|r| r.is_held() && r.mark == Mark::Here).map(|r| r.entry.path.to_string()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.handle.stop.store(true, Ordering::Relaxed);
        self.handle.hints.wake();
        let _ = self.handle.inputs.blocking_send(Event::Stop);
        for thread in self.threads.drain(..).rev() {
            let _ = thread.join();
        }
    }
}

fn fold(mut folder: Folder, shared: &Shared, mut events: mpsc::Receiver<Event>, heard: &Mutex<Vec<Input>>) {
    while let Some(Event::Input(input)) = events.blocking_recv() {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = Now { wall_ns: wall.as_nanos() as i64, mono_ms: wall.as_millis() as u64, random: 1 };
        let copy = copy_of(&input);
        let outputs = folder.handle(input, now).unwrap();
        if let Some(Input::Observed(observations)) = &copy {
            shared.hints.release(observations.iter().map(|o| &o.path));
        }
        for output in outputs {
            match output {
                Output::Rescan(paths) => shared.hints.request(paths),
                Output::FullScan => shared.hints.request_full("the folder asks"),
                _ => {}
            }
        }
        heard.lock().unwrap().extend(copy);
    }
}

fn copy_of(input: &Input) -> Option<Input> {
    Some(match input {
        Input::ScanStarted { suspicious } => Input::ScanStarted { suspicious: *suspicious },
        Input::ScanFinished { complete } => Input::ScanFinished { complete: *complete },
        Input::Observed(observations) => Input::Observed(observations.clone()),
        Input::Halted(reason) => Input::Halted(reason.clone()),
        Input::Reject => Input::Reject,
        Input::Rules(rules) => Input::Rules(rules.clone()),
        _ => return None,
    })
}

fn shown(input: &Input) -> Vec<String> {
    let Input::Observed(observations) = input else { return Vec::new() };
    let one = |o: &Observation| {
        let kind = match &o.seen {
            Seen::Absent => "absent",
            Seen::Directory(_) => "directory",
            Seen::File { .. } => "file",
            Seen::Symlink { .. } => "link",
            Seen::Failed(_) => "failed",
        };
        format!("{} {kind}", o.path)
    };
    observations.iter().map(one).collect()
}

/// Makes what is there so old that no look at it is racy.
fn rest() {
    std::thread::sleep(Duration::from_millis(40));
}

#[test]
fn the_first_scan_reports_all_and_the_next_nothing() {
    let world = World::with_rules("*.tmp\nout/\n");
    for name in ["a", "d/b", "d/e/c", "x.tmp", "out/y", "d/out/z"] {
        world.write(name, name.as_bytes());
    }
    std::os::unix::fs::symlink("a", world.at("link")).unwrap();
    rest();
    assert!(world.scan());
    let all = ["a file", "d directory", "d/b file", "d/e directory", "d/e/c file", "link link"];
    assert_eq!(world.reported(), all);
    assert!(world.scan());
    assert_eq!(world.reported(), Vec::<String>::new());
}

#[test]
fn changed_new_and_vanished_paths_are_reported_and_nothing_else() {
    let world = World::new();
    for name in ["a", "b", "d/b", "d/c", "gone/x/y", "kept/z"] {
        world.write(name, name.as_bytes());
    }
    rest();
    assert!(world.scan());
    world.reported();
    world.write("a", b"another");
    world.write("new", b"");
    std::fs::remove_file(world.at("d/c")).unwrap();
    std::fs::remove_dir_all(world.at("gone")).unwrap();
    std::fs::remove_file(world.at("b")).unwrap();
    std::fs::create_dir(world.at("b")).unwrap();
    rest();
    assert!(world.scan());
    let changed =
        ["a file", "b directory", "d/c absent", "gone absent", "gone/x absent", "gone/x/y absent", "new file"];
    assert_eq!(world.reported(), changed);
    // What is missing already is not reported again.
    assert!(world.scan());
    assert_eq!(world.reported(), Vec::<String>::new());
}

#[test]
fn thousands_of_files_are_read_by_several_threads_and_all_reported() {
    let world = World::new();
    for i in 0..3000 {
        world.write(&format!("{}/{i}", i % 7), &[i as u8; 40]);
    }
    assert!(world.scan());
    assert_eq!(world.live().len(), 3007);
    std::fs::remove_dir_all(world.at("3")).unwrap();
    rest();
    world.reported();
    assert!(world.scan());
    assert_eq!(world.reported().iter().filter(|r| r.ends_with("absent")).count(), 1 + 429);
}

#[test]
fn what_is_below_an_unreadable_directory_or_ignored_is_left_alone() {
    let world = World::new();
    world.write("secret/x", b"x");
    world.write("z.log", b"z");
    rest();
    assert!(world.scan());
    world.reported();
    *world.handle.rules.write().unwrap() = Arc::new(Rules::parse(b"*.log").0);
    std::fs::remove_file(world.at("z.log")).unwrap();
    std::fs::set_permissions(world.at("secret"), std::fs::Permissions::from_mode(0o000)).unwrap();
    assert!(world.scan());
    let reported = world.reported();
    std::fs::set_permissions(world.at("secret"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!reported.iter().any(|r| r.ends_with("absent")), "{reported:?}");
}

#[test]
fn a_folder_that_goes_away_halts_and_nothing_counts_as_deleted() {
    let world = World::running(PATIENCE);
    world.write("a", b"a");
    world.wait("the file", |w| w.live().contains("a"));
    assert_eq!(world.count(|i| matches!(i, Input::Halted(None))), 1);
    world.reported();
    std::fs::rename(world.handle.root.path(), world.dir.path().join("away")).unwrap();
    world.wait("the halt", |w| w.count(|i| matches!(i, Input::Halted(Some(text)) if text.contains("missing"))) == 1);
    std::fs::create_dir(world.handle.root.path()).unwrap();
    world.handle.hints.request_full("asked");
    world.handle.hints.request(vec![path("a")]);
    std::fs::remove_dir(world.handle.root.path()).unwrap();
    std::fs::rename(world.dir.path().join("away"), world.handle.root.path()).unwrap();
    world.wait("the return", |w| w.count(|i| matches!(i, Input::Halted(None))) == 1);
    world.write("b", b"b");
    world.wait("a change after the return", |w| w.live().contains("b"));
    assert!(!world.reported().iter().any(|r| r.ends_with("absent")));
}

#[test]
fn a_marker_that_vanishes_in_the_middle_makes_absences_worthless() {
    let world = World::new();
    world.write("a", b"a");
    rest();
    assert!(world.scan());
    world.reported();
    let root = world.handle.root.open().unwrap();
    std::fs::remove_file(world.at("a")).unwrap();
    world.write("b", b"b");
    std::fs::remove_file(world.at(".p2psync/marker")).unwrap();
    assert!(!FullScans::new(world.handle.clone(), PATIENCE).scan(&root, &world.reader()));
    world.settle();
    assert!(paths::look_at_all(&world.handle, &world.reader(), &[Look::requested(path("a"))]).is_err());
    world.settle();
    assert_eq!(world.reported(), Vec::<String>::new());
    // What was found new but not read is free to be looked at again.
    assert_eq!(world.handle.hints.counts().claimed, 0);
}

#[test]
fn a_large_file_that_just_came_is_read_once() {
    let world = World::running(PATIENCE);
    let aside = tempfile::NamedTempFile::new_in(world.at(".p2psync")).unwrap();
    aside.as_file().set_len(33 << 20).unwrap();
    std::fs::rename(aside.path(), world.at("large")).unwrap();
    let is_certain = |w: &World| {
        let known = w.reader().record(&path("large")).unwrap();
        known.and_then(|record| record.disk).is_some_and(|disk| disk.ctime_ns != 0)
    };
    world.wait("the file, with times that tell a later write", is_certain);
    assert_eq!(world.reported().iter().filter(|seen| *seen == "large file").count(), 1);
}

#[test]
fn changes_are_noticed_as_they_happen() {
    let world = World::running(PATIENCE);
    world.write("deep/er/file", b"1");
    world.wait("a file in new directories", |w| w.live().contains("deep/er/file"));
    world.write("deep/er/file", b"longer");
    let size =
        |w: &World| w.reader().record(&path("deep/er/file")).unwrap().unwrap().disk.map(|d| (d.size, d.ctime_ns != 0));
    world.wait("its change, looked at twice if racy", |w| size(w) == Some((6, true)));
    std::fs::rename(world.at("deep/er"), world.at("moved")).unwrap();
    world.wait("a moved directory", |w| w.live() == ["deep", "moved", "moved/file"].map(String::from).into());
    std::fs::remove_dir_all(world.at("moved")).unwrap();
    world.wait("a deletion", |w| w.live() == ["deep".to_owned()].into());
    assert_eq!(world.handle.live.watch.lock().unwrap().as_deref(), None);
}

#[test]
fn what_is_requested_is_reported_even_unchanged_ignored_or_absent() {
    let world = World::with_rules("*.tmp");
    for name in ["a", "b", "d/c", "x.tmp"] {
        world.write(name, name.as_bytes());
    }
    rest();
    assert!(world.scan());
    world.reported();
    let hinted = ["a", "d", "none", "x.tmp"].map(|name| Look::hinted(path(name)));
    world.look(&hinted);
    assert_eq!(world.reported(), Vec::<String>::new());
    world.look(&["a", "d", "none", "x.tmp"].map(|name| Look::requested(path(name))));
    assert_eq!(world.reported(), ["a file", "d directory", "none absent", "x.tmp file"]);
}

#[test]
fn a_hint_in_an_unknown_directory_leads_to_all_of_it() {
    let world = World::new();
    assert!(world.scan());
    for name in ["new/x", "new/deep/y", "new/deep/z"] {
        world.write(name, b"");
    }
    rest();
    world.look(&[Look::hinted(path("new/deep/y")), Look::hinted(path("new/x"))]);
    let all = ["new directory", "new/deep directory", "new/deep/y file", "new/deep/z file", "new/x file"];
    assert_eq!(world.reported(), all);
}

#[test]
fn trouble_with_what_was_in_a_directory_goes_with_it() {
    let world = World::new();
    world.write("d/x", b"");
    let _socket = std::os::unix::net::UnixListener::bind(world.at("d/p")).unwrap();
    rest();
    assert!(world.scan());
    assert!(world.reader().problem(&path("d/p")).unwrap().is_some());
    std::fs::remove_file(world.at("d/x")).unwrap();
    world.look(&[Look::hinted(path("d/x"))]);
    std::fs::remove_dir_all(world.at("d")).unwrap();
    world.look(&[Look::hinted(path("d")), Look::hinted(path("d/p"))]);
    let Job::Paths(looks) = world.handle.hints.next(&world.handle.stop) else { panic!("nothing to look at") };
    world.look(&looks);
    assert_eq!(world.reader().problem(&path("d/p")).unwrap(), None);
}

#[test]
fn a_path_with_an_action_under_way_or_another_look_is_put_off() {
    let world = World::new();
    world.write("a", b"");
    world.write("b", b"");
    rest();
    world.handle.applying.lock().unwrap().insert(path("a"));
    assert!(world.handle.hints.claim(&Look::hinted(path("b"))));
    world.look(&[Look::hinted(path("a")), Look::requested(path("b"))]);
    assert!(world.scan());
    assert_eq!(world.reported(), Vec::<String>::new());
    world.handle.applying.lock().unwrap().clear();
    world.handle.hints.release([&path("b")]);
    for look in [Look::requested(path("b")), Look::hinted(path("a"))] {
        assert_eq!(world.handle.hints.next(&world.handle.stop), Job::Paths(vec![look]));
    }
}

#[test]
fn why_the_folder_is_not_there_is_told_anew_when_it_is_another_reason() {
    let world = World::new();
    let mut scans = FullScans::new(world.handle.clone(), PATIENCE);
    let (place, away) = (world.handle.root.path().to_owned(), world.dir.path().join("away"));
    let halts = |part: &str| world.count(|i| matches!(i, Input::Halted(Some(text)) if text.contains(part)));
    let mut look = || {
        scans.once(&world.reader(), &mut |_| {});
        world.settle();
    };
    std::fs::rename(&place, &away).unwrap();
    (0..2).for_each(|_| look());
    assert_eq!((halts("is missing"), halts("")), (1, 1));
    std::fs::create_dir(&place).unwrap();
    (0..2).for_each(|_| look());
    assert_eq!((halts("has lost its file .p2psync/marker"), halts("")), (1, 2));
    std::fs::remove_dir(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    look();
    assert_eq!(world.count(|i| matches!(i, Input::Halted(None))), 1);
}

#[test]
fn a_suspicious_scan_stays_suspicious_until_one_is_complete() {
    let world = World::new();
    world.handle.suspicious_boot.store(true, Ordering::Relaxed);
    let root = world.handle.root.open().unwrap();
    std::fs::remove_file(world.at(".p2psync/marker")).unwrap();
    let scans = FullScans::new(world.handle.clone(), PATIENCE);
    assert!(!scans.scan(&root, &world.reader()));
    std::fs::write(world.at(".p2psync/marker"), "test").unwrap();
    assert!(scans.scan(&root, &world.reader()) && scans.scan(&root, &world.reader()));
    world.settle();
    assert_eq!(world.count(|i| matches!(i, Input::ScanStarted { suspicious: true })), 2);
    assert_eq!(world.count(|i| matches!(i, Input::ScanStarted { suspicious: false })), 1);
}

#[test]
fn a_file_that_is_being_written_is_read_later_and_at_last_reported_as_busy() {
    let world = World::new();
    let shared: &Shared = &world.handle;
    let look = Look { tries: 3, ..Look::requested(path("a")) };
    assert!(examine::busy(shared, &look).is_none());
    let last = Look { tries: 9, ..Look::requested(path("b")) };
    assert!(matches!(examine::busy(shared, &last), Some(Seen::Failed(problem)) if problem.kind == ProblemKind::Busy));
}

#[test]
fn whatever_a_user_does_the_index_ends_up_with_what_is_on_the_disk() {
    (1..=3).for_each(meddle);
}

fn meddle(mut seed: u64) {
    // The next scan of everything never comes: all is left to the watch.
    let world = World::running(Duration::from_secs(3600));
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for step in 0..600u64 {
        std::thread::sleep(Duration::from_micros(random(8) * random(8) * 100));
        let mut name = || ["a", "b", "c/a", "c/b", "c/d/a", "c/d/e/a", "f/a", "f/d/a"][random(8) as usize];
        let (one, other) = (world.at(name()), world.at(name()));
        let directory = one.parent().unwrap().to_path_buf();
        match random(7) {
            0 => drop(std::fs::remove_file(&one)),
            1 => drop(std::fs::rename(&one, &other)),
            2 if directory != world.handle.root.path() => {
                drop(std::fs::rename(&directory, world.at(&format!("g{}", step % 3))))
            }
            3 if directory != world.handle.root.path() => drop(std::fs::remove_dir_all(&directory)),
            4 => drop(std::fs::create_dir(&one)),
            _ => {
                let _ = std::fs::create_dir_all(&directory);
                drop(std::fs::write(&one, step.to_le_bytes()));
            }
        }
    }
    let on_disk = || -> BTreeSet<(RelPath, Option<ContentId>)> {
        let root = world.handle.root.open().unwrap();
        let mut all = BTreeSet::new();
        let _ = walk::walk(&root, None, &mut |_, _| true, &mut |batch| {
            let id = |p: &RelPath| match std::fs::read(world.at(&p.to_string())) {
                Ok(bytes) => Some(Content::of_chunk(&bytes).id),
                Err(_) => Some(ContentId::default()),
            };
            all.extend(batch.into_iter().map(|seen| (seen.path.clone(), id(&seen.path))));
            std::ops::ControlFlow::Continue(())
        });
        all
    };
    let wanted = on_disk();
    world.wait("what is on the disk", |world| {
        let records = world.reader().records_from(None, None, 1000).unwrap();
        let held = records.into_iter().filter(|r| r.is_held());
        held.map(|r| (r.entry.path.clone(), r.entry.kind.content_id())).collect::<BTreeSet<_>>() == wanted
    });
}

#[test]
fn rules_that_are_gone_before_they_were_in_the_index_hold_no_longer() {
    let world = World::new();
    assert!(world.scan());
    for (file, directory, covered) in [(".p2pignore", None, "x.o"), ("d/.p2pignore", Some(path("d")), "d/x.o")] {
        let known = Rules::parse(b"*.o").0;
        let known = directory.map_or(known, |d| Rules::default().with_nested(&d, b"*.o").0);
        world.handle.set_rules(known);
        assert!(world.handle.rules().is_ignored(&path(covered), false).is_some());
        let told = world.count(|i| matches!(i, Input::Rules(_)));
        world.look(&[Look::hinted(path(file))]);
        assert!(world.handle.rules().is_ignored(&path(covered), false).is_none(), "{file}");
        assert_eq!(world.count(|i| matches!(i, Input::Rules(_))), told + 1, "{file}");
    }
}

#[test]
fn rules_of_a_directory_hold_before_anybody_has_told_of_them() {
    let world = World::new();
    world.write("d/.p2pignore", b"*.o\n!deeper/keep.o\n");
    for name in ["d/ first.o", "d/x.o", "d/keep", "d/e/y.o", "x.o", "ignored/too.o"] {
        world.write(name, name.as_bytes());
    }
    world.write("ignored/.p2pignore", b"");
    assert!(world.scan());
    let files: Vec<String> = world.reported().into_iter().filter(|line| line.ends_with(" file")).collect();
    let expected =
        ["d/.p2pignore", "d/keep", "ignored/.p2pignore", "ignored/too.o", "x.o"].map(|n| format!("{n} file"));
    assert_eq!(files, expected);
    // As they are made and changed, too.
    world.write("new/.p2pignore", b"*.tmp\n");
    world.write("new/a.tmp", b"a");
    world.write("d/.p2pignore", b"*.o\n*.log\n");
    world.write("d/b.log", b"b");
    let looks = ["new/a.tmp", "new/.p2pignore", "d/b.log", "d/.p2pignore"].map(|name| Look::hinted(path(name)));
    world.look(&looks);
    let reported = world.reported();
    assert!(!reported.iter().any(|line| line.contains(".tmp ") || line.contains(".log ")), "{reported:?}");
    // What was here before a rule that covers it is not taken for gone.
    world.write("late/a.o", b"a");
    assert!(world.scan() && world.live().contains("late/a.o"));
    world.reported();
    world.write("late/.p2pignore", b"*.o\n");
    assert!(world.scan());
    assert!(world.reported().iter().all(|line| !line.contains("a.o") && !line.ends_with(" absent")));
}
