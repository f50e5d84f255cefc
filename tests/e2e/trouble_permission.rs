//! What the agent's user may not read, list or write, and a limit on watching.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Agent, World, wait_settled, wait_until};
use crate::tree;
use crate::trouble::{give_to_nobody, run, skip, start, strangers, wait_file, wait_gone, wait_problem, write_own};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Two running agents of a user without rights.
fn humble_pair(test: &str, world: &World) -> Option<(Agent, Agent)> {
    let (mut a, mut b) = strangers(world);
    if !give_to_nobody(test, world, &mut a) || !give_to_nobody(test, world, &mut b) {
        return None;
    }
    start(&mut a, &mut b);
    Some((a, b))
}

#[test]
fn a_file_that_may_not_be_read_is_told_and_comes_as_soon_as_it_may() {
    let world = World::new();
    let test = "a_file_that_may_not_be_read_is_told_and_comes_as_soon_as_it_may";
    let Some((a, b)) = humble_pair(test, &world) else { return };
    write_own(&a, "known", "the first");
    wait_settled(&[&a, &b]);
    let aside = a.base.join("aside");
    for name in ["new", "known"] {
        fs::write(&aside, format!("{name}, not to be read yet")).unwrap();
        set_mode(&aside, 0o000);
        run("chown", &["65534:65534", aside.to_str().unwrap()]).unwrap();
        fs::rename(&aside, a.at(name)).unwrap();
        wait_problem(&a, name, "permission", "not allowed to");
    }
    write_own(&a, "other", "goes on");
    wait_file(&b, "other", b"goes on");
    assert_eq!(b.read("known"), b"the first");
    set_mode(&a.at("new"), 0o644);
    set_mode(&a.at("known"), 0o644);
    wait_file(&b, "new", b"new, not to be read yet");
    wait_file(&b, "known", b"known, not to be read yet");
    wait_settled(&[&a, &b]);
    assert_eq!(a.folder().unwrap().problems_total, 0);
}

#[test]
fn what_is_in_a_directory_that_may_not_be_listed_is_deleted_nowhere() {
    let world = World::new();
    let test = "what_is_in_a_directory_that_may_not_be_listed_is_deleted_nowhere";
    let Some((a, b)) = humble_pair(test, &world) else { return };
    (0..20).for_each(|i| write_own(&a, &format!("d/e/{i}"), format!("{i}")));
    wait_settled(&[&a, &b]);
    let paths = tree::nodes(&b.root).unwrap().len();
    set_mode(&a.at("d"), 0o000);
    a.ok(&["folder", "rescan"]);
    wait_problem(&a, "d", "permission", "not allowed to");
    write_own(&a, "other", "goes on");
    wait_file(&b, "other", b"goes on");
    assert_eq!(mode(&b.at("d")) & 0o700, 0o700, "what keeps an owner out stays on the device");
    assert_eq!(tree::nodes(&b.root).unwrap().len(), paths + 1);
    assert_eq!(tree::nodes(&a.root).unwrap().len(), paths + 1);
    fs::write(a.at("d/e/3"), "changed").unwrap();
    set_mode(&a.at("d"), 0o755);
    wait_file(&b, "d/e/3", b"changed");
    wait_settled(&[&a, &b]);
    assert_eq!(tree::nodes(&a.root).unwrap().len(), paths + 1);
}

#[test]
fn a_directory_that_may_not_be_written_keeps_what_it_has_and_gets_the_rest_later() {
    let world = World::new();
    let test = "a_directory_that_may_not_be_written_keeps_what_it_has_and_gets_the_rest_later";
    let Some((a, b)) = humble_pair(test, &world) else { return };
    for name in ["d/changed", "d/deleted"] {
        write_own(&a, name, format!("{name}, the first"));
    }
    wait_settled(&[&a, &b]);
    set_mode(&b.at("d"), 0o555);
    write_own(&a, "d/new", "new");
    write_own(&a, "d/changed", "d/changed, the second");
    fs::remove_file(a.at("d/deleted")).unwrap();
    wait_problem(&b, "d/new", "permission", "not allowed to");
    wait_problem(&b, "d/changed", "permission", "not allowed to");
    assert_eq!(b.read("d/changed"), b"d/changed, the first");
    write_own(&a, "other", "goes on");
    wait_file(&b, "other", b"goes on");
    set_mode(&b.at("d"), 0o755);
    wait_file(&b, "d/new", b"new");
    wait_gone(&b, "d/deleted");
    wait_settled(&[&a, &b]);
}

#[test]
fn without_enough_watches_changes_are_found_by_scanning_and_status_tells_the_remedy() {
    let test = "without_enough_watches_changes_are_found_by_scanning_and_status_tells_the_remedy";
    let limit = "echo 12 > /proc/sys/user/max_inotify_watches && exec";
    if let Err(why) = run("unshare", &["--user", "--map-root-user", "sh", "-c", &format!("{limit} true")]) {
        return skip(test, &format!("no user namespace with a limit of its own: {why}"));
    }
    let world = World::new();
    let (mut a, mut b) = strangers(&world);
    let script = format!("{limit} setpriv --pdeathsig KILL \"$0\" \"$@\"");
    a.through = ["unshare", "--user", "--map-root-user", "sh", "-c", &script].map(str::to_owned).into();
    (0..30).for_each(|i| a.write(&format!("{i}/file"), format!("{i}")));
    start(&mut a, &mut b);
    wait_settled(&[&a, &b]);
    wait_until("status tells the remedy", || match a.folder()?.watch {
        text if text.contains("max_user_watches") && text.contains("scanning") => Ok(()),
        text => Err(text),
    });
    assert!(a.ok(&["status"]).contains("max_user_watches"), "for people too");
    for i in 0..30 {
        a.write(&format!("{i}/file"), format!("{i}, changed"));
    }
    a.ok(&["folder", "rescan"]);
    for i in 0..30 {
        wait_file(&b, &format!("{i}/file"), format!("{i}, changed").as_bytes());
    }
    b.write("29/back", "the other way");
    wait_file(&a, "29/back", b"the other way");
    wait_settled(&[&a, &b]);
}

#[test]
fn a_directory_that_may_not_be_listed_from_the_start_keeps_no_other_from_being_watched() {
    let world = World::new();
    let test = "a_directory_that_may_not_be_listed_from_the_start_keeps_no_other_from_being_watched";
    let (mut a, mut b) = strangers(&world);
    a.write("closed/inner/file", "for later");
    a.write("open/file", "the first");
    if !give_to_nobody(test, &world, &mut a) {
        return;
    }
    set_mode(&a.at("closed"), 0o000);
    start(&mut a, &mut b);
    wait_file(&b, "open/file", b"the first");
    wait_problem(&a, "closed", "permission", "not allowed to");
    // Far sooner than by the next scan.
    write_own(&a, "open/file", "the second");
    wait_file(&b, "open/file", b"the second");
    write_own(&a, "open/new/file", "new");
    wait_file(&b, "open/new/file", b"new");
    set_mode(&a.at("closed"), 0o755);
    wait_file(&b, "closed/inner/file", b"for later");
    wait_settled(&[&a, &b]);
    fs::write(a.at("closed/inner/file"), "changed").unwrap();
    wait_file(&b, "closed/inner/file", b"changed");
    wait_settled(&[&a, &b]);
}

#[test]
fn a_directory_that_may_not_be_written_to_is_not_made_a_folder() {
    let world = World::new();
    let test = "a_directory_that_may_not_be_written_to_is_not_made_a_folder";
    let mut agent = world.agent("a");
    if !give_to_nobody(test, &world, &mut agent) {
        return;
    }
    let place = agent.base.join("others");
    fs::create_dir(&place).unwrap();
    set_mode(&place, 0o555);
    run("chown", &["65534:65534", place.to_str().unwrap()]).unwrap();
    let said = agent.fails(&["folder", "add", place.to_str().unwrap()]);
    assert!(said.contains("you may not write into"), "{said}");
    assert!(!agent.ok(&["folder", "list"]).contains("others"));
    set_mode(&place, 0o755);
    agent.ok(&["folder", "add", place.to_str().unwrap()]);
}
