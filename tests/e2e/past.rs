//! Taking things back: conflicts settled, directories as they were, what another device did.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2psync::api::RewindReport;

use crate::harness::{Agent, World, wait_connected, wait_settled, wait_until};
use crate::tree;
use crate::trouble::history;

/// Two devices with a conflict over `report.txt`: b wrote later, so a's version is the copy.
fn in_conflict(world: &World) -> (Agent, Agent, String) {
    let (mut a, mut b) = world.pair();
    a.write("report.txt", "as it was\n");
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();
    a.write("report.txt", "by a\n");
    let earlier = SystemTime::now() - Duration::from_secs(10);
    File::options().write(true).open(a.at("report.txt")).unwrap().set_modified(earlier).unwrap();
    b.write("report.txt", "by b\n");
    a.start();
    b.start();
    wait_connected(&a, &b);
    wait_settled(&[&a, &b]);
    let copy = tree::conflict_copies(&a.root).pop().unwrap();
    (a, b, copy)
}

fn resolve(agent: &Agent, path: &str, how: &[&str]) -> String {
    let path = agent.at(path);
    agent.ok(&[&["conflicts", "resolve", path.to_str().unwrap()], how].concat())
}

fn wait_no_conflict(agents: [&Agent; 2]) {
    wait_settled(&agents);
    for agent in agents {
        wait_until(&format!("{} has no conflict", agent.name), || {
            if agent.conflicts().is_empty() { Ok(()) } else { Err(format!("{:?}", agent.conflicts())) }
        });
    }
}

#[test]
fn a_conflict_settled_on_one_device_is_settled_on_all_and_loses_nothing() {
    let world = World::new();
    let (a, b, copy) = in_conflict(&world);
    let listed = a.conflicts();
    assert_eq!((listed[0].mine.as_deref(), listed[0].device.as_deref()), (Some("copy"), Some("a")));
    assert_eq!(listed[0].live.as_ref().unwrap().device.as_deref(), Some("b"));
    assert_eq!(b.conflicts()[0].mine.as_deref(), Some("original"));
    let diff = resolve(&b, "report.txt", &["--diff"]);
    assert!(diff.contains("-by b") && diff.contains("+by a"), "{diff}");
    resolve(&a, &copy, &["--keep", "mine"]);
    wait_no_conflict([&a, &b]);
    assert_eq!((a.read("report.txt"), b.read("report.txt")), (b"by a\n".to_vec(), b"by a\n".to_vec()));
    assert!(history(&a).contains(&b"by b\n".to_vec()));
    let said = a.fails(&["conflicts", "resolve", a.at("report.txt").to_str().unwrap(), "--keep", "both"]);
    assert!(said.contains("in no conflict"), "{said}");
}

#[test]
fn both_versions_of_a_conflict_can_be_kept() {
    let world = World::new();
    let (a, b, _) = in_conflict(&world);
    resolve(&b, "report.txt", &["--keep", "both"]);
    wait_no_conflict([&a, &b]);
    assert_eq!((a.read("report.txt"), a.read("report (a).txt")), (b"by b\n".to_vec(), b"by a\n".to_vec()));
}

#[test]
fn what_a_tool_has_merged_takes_the_place_of_both() {
    let world = World::new();
    let (a, b, copy) = in_conflict(&world);
    let path = a.at("report.txt");
    let said = a.fails(&["conflicts", "resolve", path.to_str().unwrap(), "--tool", "exit 3"]);
    assert!(said.contains("stays as it is"), "{said}");
    assert!(a.at(&copy).exists());
    // Both overwrote what both came from, so nobody has it.
    let told = a.run(&["conflicts", "resolve", path.to_str().unwrap(), "--tool", "test ! -s \"$BASE\" && exit 3"]);
    assert!(String::from_utf8(told.stderr).unwrap().contains("not known here, so BASE is empty"));
    resolve(&a, "report.txt", &["--tool", "cat \"$LOCAL\" \"$REMOTE\" > \"$OUTPUT\""]);
    wait_no_conflict([&a, &b]);
    assert_eq!(b.read("report.txt"), b"by a\nby b\n");
    assert!(history(&a).contains(&b"by b\n".to_vec()) && history(&a).contains(&b"by a\n".to_vec()));
}

fn go_back(agent: &Agent, words: &[&str]) -> RewindReport {
    serde_json::from_str(&agent.ok(&[words, &["--json"]].concat())).unwrap()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// What b changes: one of each kind.
fn change_all(b: &Agent) {
    b.write("d/replaced", "by b");
    fs::remove_file(b.at("d/deleted")).unwrap();
    // In one piece: a file that is just being written in a new directory may be seen while it is still empty, and be
    // in history so.
    let ready = b.home.join("ready");
    fs::create_dir(&ready).unwrap();
    fs::write(ready.join("added"), "by b").unwrap();
    fs::rename(ready, b.at("d/new")).unwrap();
    fs::rename(b.at("d/name"), b.at("d/other name")).unwrap();
}

/// A rename may have been taken for a deletion and a new file.
fn assert_complete(plan: &RewindReport) {
    assert_eq!((plan.bring_back + plan.rename, plan.set_aside + plan.rename, plan.left), (3, 2, 0), "{plan:?}");
}

fn assert_as_before(agent: &Agent) {
    assert_eq!((agent.read("d/replaced"), agent.read("d/deleted")), (b"before".to_vec(), b"before".to_vec()));
    assert_eq!(agent.read("d/name"), b"named");
    assert!(!agent.at("d/other name").exists() && !agent.at("d/new/added").exists());
}

fn prepare(a: &Agent, b: &Agent) {
    a.write("d/replaced", "before");
    a.write("d/deleted", "before");
    a.write("d/name", "named");
    a.write("d/kept", "kept");
    wait_settled(&[a, b]);
}

#[test]
fn what_another_device_did_is_undone_and_the_undoing_taken_back() {
    let world = World::new();
    let (a, b) = world.pair();
    prepare(&a, &b);
    assert!(a.fails(&["undo"]).contains("nothing that another device has changed"));
    change_all(&b);
    wait_settled(&[&a, &b]);
    let asked = a.fails(&["undo"]);
    assert!(asked.contains("--yes") && asked.contains("d/replaced"), "{asked}");
    let plan = go_back(&a, &["undo", "--dry-run"]);
    assert_eq!(plan.device.as_deref(), Some("b"));
    assert_complete(&plan);
    assert_eq!(a.read("d/replaced"), b"by b");
    let done = go_back(&a, &["undo", "--yes"]);
    assert_eq!((done.failed.len(), done.dry_run), (0, false));
    wait_settled(&[&a, &b]);
    assert_as_before(&b);
    assert!(!b.at("d/new").exists());
    assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
    go_back(&a, &["undo", "--revert", "--yes"]);
    wait_settled(&[&a, &b]);
    assert_eq!((b.read("d/replaced"), b.read("d/new/added")), (b"by b".to_vec(), b"by b".to_vec()));
    assert!(!b.at("d/deleted").exists() && b.at("d/other name").exists() && !b.at("d/name").exists());
}

#[test]
fn of_several_folders_the_one_is_meant_where_something_was_done_last() {
    let world = World::new();
    let (a, b) = world.pair();
    a.ok(&["folder", "add", world.path("other").to_str().unwrap(), "--label", "Other"]);
    a.write("file", "before");
    wait_settled(&[&a, &b]);
    assert!(a.fails(&["undo"]).contains("in any folder"), "nobody has done anything");
    assert!(a.fails(&["undo", "--revert"]).contains("in any folder"));
    b.write("file", "by b");
    wait_settled(&[&a, &b]);
    a.ok(&["undo", "--yes"]);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("file"), b"before");
    let told = a.fails(&["undo", "--revert"]);
    assert!(told.contains("What was taken back in Shared") && told.contains("--yes"), "{told}");
    a.ok(&["undo", "--revert", "--yes"]);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("file"), b"by b");
}

#[test]
fn what_a_device_did_can_be_undone_after_it_was_removed() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("file", "before");
    wait_settled(&[&a, &b]);
    b.write("file", "by b");
    wait_settled(&[&a, &b]);
    a.ok(&["peer", "remove", "b"]);
    let told = a.ok(&["undo", "--yes"]);
    assert!(told.contains("1 file came back"), "{told}");
    assert_eq!(a.read("file"), b"before");
}

#[test]
fn an_undoing_that_a_crash_cut_off_can_be_taken_back() {
    let world = World::new();
    let (mut a, b) = world.pair();
    prepare(&a, &b);
    change_all(&b);
    wait_settled(&[&a, &b]);
    a.stop();
    // After the second version that has come back.
    fs::write(a.kill_file(), "restore.durable:2").unwrap();
    a.start();
    wait_settled(&[&a, &b]);
    a.fails(&["undo", "--yes"]);
    a.wait_end();
    fs::write(a.kill_file(), "").unwrap();
    a.start();
    wait_settled(&[&a, &b]);
    assert_eq!((b.read("d/replaced"), b.read("d/deleted")), (b"before".to_vec(), b"before".to_vec()));
    go_back(&a, &["undo", "--revert", "--yes"]);
    wait_settled(&[&a, &b]);
    assert_eq!((b.read("d/replaced"), b.read("d/new/added")), (b"by b".to_vec(), b"by b".to_vec()));
    assert!(!b.at("d/deleted").exists() && b.at("d/other name").exists() && !b.at("d/name").exists());
    assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
}

#[test]
fn a_directory_goes_back_to_how_it_was_at_a_time() {
    let world = World::new();
    let (a, b) = world.pair();
    prepare(&a, &b);
    // Files' own times are no measure of when they came here.
    let day = Duration::from_secs(24 * 3600);
    a.write("d/ahead", "here before");
    set_time(&a.at("d/ahead"), SystemTime::now() + day);
    wait_settled(&[&a, &b]);
    // Times are told apart by whole seconds here.
    let before = now_ms() / 1000 + 1;
    wait_until("the second is over", || if now_ms() / 1000 > before { Ok(()) } else { Err(String::new()) });
    change_all(&b);
    for name in ["d/late", "d/late and replaced"] {
        b.write("outside", "written long ago");
        set_time(&b.at("outside"), SystemTime::now() - day);
        fs::rename(b.at("outside"), b.at(name)).unwrap();
    }
    wait_settled(&[&a, &b]);
    b.write("d/ahead", "replaced");
    b.write("d/late and replaced", "replaced");
    wait_settled(&[&a, &b]);
    let time = jiff_time(before);
    let dir = format!("{}@{time}", a.at("d").display());
    let plan = go_back(&a, &["restore", &dir, "--dry-run"]);
    assert_eq!((plan.bring_back, plan.left), (3, 0), "{plan:?}");
    go_back(&a, &["restore", &dir, "--yes"]);
    wait_settled(&[&a, &b]);
    assert_as_before(&b);
    assert!(b.at("d/kept").exists() && !b.at("d/new").exists());
    assert_eq!(b.read("d/ahead"), b"here before");
    assert!(!b.at("d/late").exists() && !b.at("d/late and replaced").exists());
    assert!(Path::new(&a.root).join(".p2psync").exists());
}

fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A time in seconds since 1970 as people here write it.
fn jiff_time(seconds: u128) -> String {
    let output =
        std::process::Command::new("date").arg("-d").arg(format!("@{seconds}")).arg("+%Y-%m-%dT%H:%M:%S").output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn history_is_removed_only_when_asked_and_nothing_else_is() {
    let world = World::new();
    let (a, b) = world.pair();
    prepare(&a, &b);
    change_all(&b);
    wait_settled(&[&a, &b]);
    let usage = a.ok(&["history", "--usage"]);
    assert!(usage.contains("Shared") && usage.contains("30 days"), "{usage}");
    assert!(a.fails(&["history", "prune"]).contains("--yes"));
    assert!(a.ok(&["history", "prune", "--older-than", "1h", "--yes"]).contains("0 earlier versions"));
    assert_eq!(history(&a).len(), 2);
    assert!(a.ok(&["history", "prune", "--yes"]).contains("2 earlier versions have gone"));
    assert_eq!((history(&a).len(), tree::compare(&a.root, &b.root)), (0, Ok(())));
    assert_eq!(a.read("d/replaced"), b"by b");
}

#[test]
fn a_version_that_only_another_device_has_is_listed_and_comes_back() {
    let world = World::new();
    let (a, mut b) = world.pair();
    let long = "long ago\n".repeat(100_000);
    a.write("notes", &long);
    wait_settled(&[&a, &b]);
    // Overwritten in place: what it was is in no history but that of the other device.
    a.write("notes", "short");
    wait_settled(&[&a, &b]);
    assert!(history(&a).is_empty() && history(&b).len() == 1);
    let path = a.at("notes");
    let listed = a.ok(&["history", path.to_str().unwrap()]);
    assert!(listed.contains("(on b)"), "{listed}");
    let plan = go_back(&a, &["restore", path.to_str().unwrap(), "--dry-run"]);
    assert!((plan.dry_run, plan.bring_back, plan.failed.len()) == (true, 1, 0) && plan.items[0].path == "notes");
    let said = a.ok(&["restore", path.to_str().unwrap()]);
    assert!(said.contains("notes is back"), "{said}");
    wait_settled(&[&a, &b]);
    assert_eq!((a.read("notes"), b.read("notes")), (long.clone().into_bytes(), long.into_bytes()));
    assert_eq!(history(&a), [b"short".to_vec()]);
    b.stop();
    let listed = a.ok(&["history", path.to_str().unwrap()]);
    assert!(!listed.contains("(on b)"), "{listed}");
}
