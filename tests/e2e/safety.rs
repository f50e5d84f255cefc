//! Mass deletions, folders that vanish, and rules about what is not synced.

use std::fs;

use p2psync::api::FolderState;

use crate::harness::{Agent, World, introduce, wait_connected, wait_same, wait_settled, wait_until};
use crate::tree;

/// Limits that a few dozen files can pass.
const LOW_LIMITS: &str = "hold_deletes_above = 20\nhold_deletes_percent = 50";
const FILES: usize = 60;

fn filled_pair(world: &World, limits: [&str; 2]) -> (Agent, Agent) {
    let (mut a, mut b) = (world.agent_with("a", limits[0]), world.agent_with("b", limits[1]));
    introduce(&a, &b);
    a.start();
    b.start();
    (0..FILES).for_each(|i| a.write(&format!("{i}"), format!("file {i}")));
    wait_connected(&a, &b);
    wait_settled(&[&a, &b]);
    (a, b)
}

fn delete_all(agent: &Agent) {
    (0..FILES).for_each(|i| fs::remove_file(agent.at(&i.to_string())).unwrap());
}

fn wait_held(agent: &Agent) {
    wait_until(&format!("{} holds the deletions", agent.name), || {
        let folder = agent.folder()?;
        folder.held.map(drop).ok_or_else(|| format!("{:?}: {}", folder.state, folder.state_text))
    });
}

fn count(agent: &Agent) -> usize {
    tree::nodes(&agent.root).unwrap().len()
}

/// Waits until so many paths are in both folders.
fn wait_count(agents: &[&Agent], wanted: usize) {
    for agent in agents {
        wait_until(&format!("{} holds {wanted} paths", agent.name), || match count(agent) {
            n if n == wanted => Ok(()),
            n => Err(format!("{n} paths")),
        });
    }
}

#[test]
fn a_mass_deletion_is_held_where_it_was_seen_until_the_user_confirms() {
    let world = World::new();
    let (a, b) = filled_pair(&world, [LOW_LIMITS, LOW_LIMITS]);
    delete_all(&a);
    wait_held(&a);
    assert!(a.ok(&[]).contains("confirm-changes"), "the short status says what to do");
    b.write("still synced", "while deletions are held");
    wait_until(
        "other changes go on",
        || {
            if a.at("still synced").exists() { Ok(()) } else { Err("not there".to_owned()) }
        },
    );
    assert_eq!(count(&b), FILES + 1);
    a.ok(&["folder", "confirm-changes"]);
    wait_until("b asks too, or has deleted", || {
        let is_held = b.folder()?.held.is_some();
        if is_held || count(&b) == 1 { Ok(()) } else { Err(format!("{} paths", count(&b))) }
    });
    if b.folder().unwrap().held.is_some() {
        b.ok(&["folder", "confirm-changes"]);
    }
    wait_count(&[&a, &b], 1);
}

#[test]
fn a_mass_deletion_that_is_rejected_brings_everything_back() {
    let world = World::new();
    let (a, b) = filled_pair(&world, [LOW_LIMITS, LOW_LIMITS]);
    delete_all(&a);
    wait_held(&a);
    a.ok(&["folder", "reject-changes"]);
    wait_count(&[&a, &b], FILES);
    wait_settled(&[&a, &b]);
    assert_eq!(a.read("7"), b"file 7");
}

#[test]
fn a_mass_deletion_made_elsewhere_is_held_by_the_receiver() {
    let world = World::new();
    let (a, b) = filled_pair(&world, ["", LOW_LIMITS]);
    delete_all(&a);
    wait_held(&b);
    assert!(count(&b) > FILES / 3, "{} files are left", count(&b));
    b.ok(&["folder", "reject-changes"]);
    wait_count(&[&a, &b], FILES);
    wait_settled(&[&a, &b]);
}

#[test]
fn a_folder_that_vanishes_is_no_deletion_and_goes_on_when_it_is_back() {
    let world = World::new();
    let (a, b) = filled_pair(&world, ["", ""]);
    let aside = world.path("aside");
    fs::rename(&a.root, &aside).unwrap();
    // What an unmounted disk leaves: the empty directory below it.
    fs::create_dir(&a.root).unwrap();
    let halted = wait_until("a halts", || {
        let folder = a.folder()?;
        let is_halted = folder.state == FolderState::Halted;
        if is_halted { Ok(folder.state_text) } else { Err(format!("{:?}", folder.state)) }
    });
    assert!(halted.contains(a.root.to_str().unwrap()), "{halted}");
    b.write("meanwhile", "on b");
    assert_eq!(count(&b), FILES + 1);
    fs::remove_dir(&a.root).unwrap();
    fs::rename(&aside, &a.root).unwrap();
    wait_settled(&[&a, &b]);
    assert_eq!(count(&a), FILES + 1);
}

#[test]
fn a_missing_marker_halts_a_folder_at_the_start_too() {
    let world = World::new();
    let (mut a, b) = filled_pair(&world, ["", ""]);
    a.stop();
    let aside = world.path("aside");
    fs::rename(&a.root, &aside).unwrap();
    fs::create_dir(&a.root).unwrap();
    a.start();
    wait_until("a halts", || match a.folder()?.state {
        FolderState::Halted => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(count(&b), FILES);
    fs::remove_dir(&a.root).unwrap();
    fs::rename(&aside, &a.root).unwrap();
    wait_settled(&[&a, &b]);
    assert_eq!(count(&b), FILES);
}

#[test]
fn a_rule_covers_what_is_made_right_after_it() {
    let world = World::new();
    let (a, b) = world.pair();
    for round in 0..5 {
        let name = format!("ignored {round}");
        let rules = (0..=round).map(|n| format!("ignored {n}/\n")).collect::<String>();
        a.write(".p2pignore", rules);
        a.write(&format!("{name}/file"), "not to be sent");
        a.write(&format!("after {round}"), "to be sent");
        wait_until("what came after has arrived", || {
            if b.at(&format!("after {round}")).exists() { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }
    a.ok(&["folder", "rescan"]);
    a.write("last", "to be sent");
    wait_until("the last has arrived", || if b.at("last").exists() { Ok(()) } else { Err("not yet".to_owned()) });
    assert!((0..5).all(|round| !b.at(&format!("ignored {round}")).exists()));
}

#[test]
fn rules_take_effect_at_once_and_ignoring_deletes_nowhere() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("build/synced.o", "was here first");
    a.write("kept", "kept");
    wait_settled(&[&a, &b]);
    a.write(".p2pignore", "*.o\n*.log\n");
    wait_until(
        "b has the rules",
        || {
            if b.at(".p2pignore").exists() { Ok(()) } else { Err("no .p2pignore".to_owned()) }
        },
    );
    a.write("new.log", "not for b");
    fs::remove_file(a.at("build/synced.o")).unwrap();
    a.write("after", "a sign that what came before has been looked at");
    wait_until("the sign has arrived", || if b.at("after").exists() { Ok(()) } else { Err("not yet".to_owned()) });
    wait_until("both say that they are in sync", || match (a.folder()?.state, b.folder()?.state) {
        (FolderState::InSync, FolderState::InSync) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!b.at("new.log").exists(), "an ignored file was sent");
    assert!(b.at("build/synced.o").exists(), "deleting an ignored file deleted it elsewhere");
    assert_eq!(a.path_status(&a.at("new.log")).state, "ignored");
    a.write(".p2pignore", "");
    wait_until("the log is on b", || if b.at("new.log").exists() { Ok(()) } else { Err("not yet".to_owned()) });
    wait_same(&[&a, &b]);
}
