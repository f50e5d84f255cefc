//! Named scenarios: what a reader of the design found by thought, and what random runs have found.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use p2psync::core::guard::GuardLimits;
use p2psync::core::path::RelPath;
use p2psync::fs::read::{self, ReadOutcome};
use p2psync::sabotage::{self, Bug};
use p2psync::sync::Input;

use crate::scene::{QUIET_MS, act, bytes, copies, rest, rested, save, world};
use crate::simulator::disk::{Call, CutMode};
use crate::simulator::plan::{Act, Event, OddDisk, Plan};
use crate::simulator::random::Random;
use crate::simulator::user::{FOLDER, OpenFile};
use crate::simulator::world::World;

fn event(world: &mut World, at: usize, event: Event) {
    let mut random = Random(world.random.next());
    world.event(at, event, &mut random);
}

fn steps(world: &mut World, count: usize) {
    for _ in 0..count {
        world.step();
    }
}

/// Keeps a device from the others until the next rest.
fn apart(world: &mut World, at: usize) {
    world.partition = Some(BTreeSet::from([at]));
    world.disconnect_all_of(at);
    steps(world, 60);
}

fn lose_index(world: &mut World, at: usize) {
    event(world, at, Event::IndexLost);
}

#[test]
fn a_file_written_on_one_device_appears_on_all() {
    let mut world = world(3);
    let written = save(&mut world, 0, "d/e/z");
    rest(&mut world);
    assert_eq!(bytes(&world, 2, "d/e/z"), Some(written));
}

#[test]
fn a_delete_stays_deleted_and_an_edit_beats_a_delete() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    save(&mut world, 0, "b");
    rest(&mut world);
    apart(&mut world, 1);
    act(&mut world, 0, Act::Delete("a"));
    act(&mut world, 0, Act::Delete("b"));
    let edit = save(&mut world, 1, "b");
    rest(&mut world);
    assert_eq!((bytes(&world, 1, "a"), bytes(&world, 0, "b")), (None, Some(edit)));
}

#[test]
fn three_devices_edit_one_file_at_once_and_then_the_copies() {
    let mut world = world(3);
    save(&mut world, 0, "f");
    rest(&mut world);
    (0..3).for_each(|at| world.disconnect_all_of(at));
    world.is_connecting = false;
    steps(&mut world, 60);
    (0..3).for_each(|at| drop(save(&mut world, at, "f")));
    rest(&mut world);
    assert_eq!(copies(&world, 0), 2);
    for at in 0..3 {
        apart(&mut world, at);
        act(&mut world, at, Act::EditConflictCopy);
    }
    rest(&mut world);
}

#[test]
fn devices_that_start_with_the_same_files_merge_without_copies() {
    let mut world = World::new(&Plan::empty(3, None), false);
    (0..3).for_each(|at| act(&mut world, at, Act::SaveSame("a")));
    rest(&mut world);
    assert_eq!(copies(&world, 0), 0);
}

#[test]
fn a_crash_between_the_swap_and_the_check_after_it_keeps_an_edit_made_in_between() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    apart(&mut world, 1);
    let winner = save(&mut world, 0, "a");
    // The user's edit comes right before the exchange, and the agent dies right after it.
    let edit = b"an edit in between".to_vec();
    world.users().ledger.wrote(&edit, 1, "a");
    let (text, mut is_swapped) = (edit.clone(), false);
    world.devices[1].disk.lock().set_hook(Some(Box::new(move |disk, op| {
        if is_swapped {
            disk.cut_agent_off();
        } else if op.call == Call::Exchange {
            is_swapped = true;
            disk.user_overwrite(&format!("{FOLDER}/a"), &text).unwrap();
        }
    })));
    world.connect_all();
    for _ in 0..20_000 {
        world.step();
        if world.devices[1].disk.lock().is_cut_off() {
            break;
        }
    }
    assert!(world.devices[1].disk.lock().is_cut_off(), "the swap was never tried");
    world.devices[1].disk.lock().set_hook(None);
    event(&mut world, 1, Event::Kill);
    rest(&mut world);
    let tree = world.tree(0);
    let live: Vec<&Vec<u8>> = tree.values().map(|item| &item.bytes).collect();
    assert!(live.contains(&&edit) && live.contains(&&winner));
}

#[test]
fn an_index_restored_from_a_backup_that_grows_past_what_a_peer_had_seen() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    event(&mut world, 0, Event::IndexSaved);
    save(&mut world, 0, "b");
    save(&mut world, 0, "f");
    rest(&mut world);
    apart(&mut world, 1);
    event(&mut world, 0, Event::IndexRestored);
    for name in ["a", "b", "c.txt", "d/x", "d/y"] {
        save(&mut world, 0, name);
        steps(&mut world, 80);
    }
    rest(&mut world);
    // Of `b` the restored index had never heard: that its new version replaces the one that the peer has, nobody knows.
    assert_eq!(copies(&world, 1), 1);
}

#[test]
fn a_cloned_home_beside_its_original_loses_nothing() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    let clone = world.clone_device(0);
    for round in 0..3 {
        for at in [0, clone] {
            // Only one of the two is there at a time, as one identity can be.
            let other = if at == 0 { clone } else { 0 };
            world.stop(other);
            world.start(at);
            act(&mut world, at, if round == 1 { Act::Append("a") } else { Act::Save("b") });
            steps(&mut world, 600);
        }
    }
    world.stop(clone);
    steps(&mut world, 100);
    let gone: Vec<Vec<u8>> = world.contents(clone).into_iter().collect();
    let kept: BTreeSet<Vec<u8>> = (0..2).flat_map(|at| world.contents(at)).collect();
    gone.iter().filter(|bytes| !kept.contains(*bytes)).for_each(|bytes| world.users().ledger.excuse(bytes));
    world.devices.truncate(2);
    rest(&mut world);
}

#[test]
fn an_index_lost_while_others_edit_delete_and_create_again() {
    let mut world = world(3);
    for name in ["a", "b", "c.txt", "f"] {
        save(&mut world, 0, name);
    }
    rest(&mut world);
    apart(&mut world, 1);
    act(&mut world, 0, Act::Delete("a"));
    save(&mut world, 2, "b");
    act(&mut world, 0, Act::Delete("c.txt"));
    steps(&mut world, 600);
    let again = save(&mut world, 2, "c.txt");
    steps(&mut world, 200);
    lose_index(&mut world, 1);
    rest(&mut world);
    assert_eq!((bytes(&world, 1, "a"), bytes(&world, 1, "c.txt")), (None, Some(again)));
    assert_eq!(copies(&world, 0), 0);
}

#[test]
fn a_directory_replaced_by_a_file_while_a_file_in_it_is_edited_keeps_both() {
    let mut world = world(2);
    save(&mut world, 0, "d/x");
    rest(&mut world);
    apart(&mut world, 1);
    act(&mut world, 0, Act::FileOver("d"));
    let edit = save(&mut world, 1, "d/x");
    rest(&mut world);
    assert_eq!((bytes(&world, 0, "d/x"), copies(&world, 0)), (Some(edit), 1));
}

#[test]
fn an_entry_that_could_not_be_taken_is_replaced_by_its_sender_before_anyone_had_it() {
    let mut world = world(3);
    event(&mut world, 1, Event::DiskFull);
    event(&mut world, 2, Event::ReadOnly);
    save(&mut world, 0, "a");
    steps(&mut world, 400);
    let newer = save(&mut world, 0, "a");
    steps(&mut world, 400);
    rest(&mut world);
    assert_eq!(bytes(&world, 2, "a"), Some(newer));
}

#[test]
fn crossing_chmods_end_alike() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    apart(&mut world, 1);
    act(&mut world, 0, Act::Chmod("a"));
    act(&mut world, 1, Act::Chmod("a"));
    rest(&mut world);
    assert_eq!(copies(&world, 0), 0);
}

#[test]
fn the_winners_only_holder_deletes_it_before_the_loser_has_fetched_it() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    apart(&mut world, 1);
    let loser = save(&mut world, 0, "a");
    steps(&mut world, 200);
    world.pass(5000, 0);
    save(&mut world, 1, "a");
    steps(&mut world, 300);
    world.connect_all();
    steps(&mut world, 6);
    act(&mut world, 1, Act::Delete("a"));
    rest(&mut world);
    let tree = world.tree(1);
    assert!(tree.values().any(|item| item.bytes == loser), "the concurrent version is gone");
}

#[test]
fn a_tombstone_that_is_forgotten_at_different_times_brings_nothing_back() {
    let mut world = world(3);
    save(&mut world, 0, "a");
    rest(&mut world);
    world.stop(2);
    act(&mut world, 0, Act::Delete("a"));
    steps(&mut world, 800);
    event(&mut world, 0, Event::AYear);
    steps(&mut world, 300);
    rest(&mut world);
    assert!((0..3).all(|at| world.tree(at).is_empty()));
    event(&mut world, 1, Event::AYear);
    world.stop(1);
    steps(&mut world, 300);
    rest(&mut world);
    assert!((0..3).all(|at| world.tree(at).is_empty()));
}

#[test]
fn a_move_whose_deletion_arrives_long_before_its_new_name() {
    let mut world = world(2);
    let written = save(&mut world, 0, "a");
    rest(&mut world);
    // Only the deletion is noticed and told; the new name is found by a later scan.
    world.devices[0].loses_events = true;
    act(&mut world, 0, Act::Rename("a", "d/x"));
    world.devices[0].watch_events.clear();
    world.devices[0]
        .watch_events
        .push_back(p2psync::fs::watch::WatchEvent::Hint { path: crate::simulator::world::path("a"), closed: true });
    steps(&mut world, 1500);
    rest(&mut world);
    assert_eq!((bytes(&world, 1, "d/x"), bytes(&world, 1, "a")), (Some(written), None));
}

#[test]
fn files_that_a_synced_rule_begins_to_cover_are_deleted_nowhere() {
    let mut world = world(2);
    let written = save(&mut world, 0, "d/x");
    rest(&mut world);
    while bytes(&world, 0, ".p2pignore").is_none() {
        act(&mut world, 0, Act::IgnoreRule("d/x"));
    }
    rest(&mut world);
    assert_eq!((bytes(&world, 0, "d/x"), bytes(&world, 1, "d/x")), (Some(written.clone()), Some(written)));
}

#[test]
fn a_disk_that_cannot_tell_two_names_apart_loses_neither() {
    let mut world = rested(World::new(&Plan::empty(2, Some(OddDisk::FoldsCase)), false));
    let lower = save(&mut world, 1, "a");
    rest(&mut world);
    world.let_users(1, &mut Random(3), |user| {
        let bytes = b"the other spelling";
        user.disk.user_write_new(&format!("{FOLDER}/A"), bytes).unwrap();
        user.ledger.wrote(bytes, 1, "A");
    });
    world.heal();
    world.settle(QUIET_MS).unwrap();
    assert_eq!(bytes(&world, 0, "a"), Some(lower));
    assert_eq!(world.tree(1).len(), 2);
    assert_eq!(world.tree(0).len(), 1);
}

#[test]
fn a_crash_between_swap_and_commit_followed_by_a_newer_edit_makes_no_copy() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    save(&mut world, 0, "a");
    // As far as the outcome of the swap, which is not taken in any more.
    for _ in 0..20_000 {
        world.step();
        let waits = world.devices[1].agent.as_ref().unwrap().inputs.iter().any(|i| matches!(i, Input::Applied(_)));
        if waits {
            break;
        }
    }
    event(&mut world, 1, Event::Kill);
    let newest = save(&mut world, 0, "a");
    rest(&mut world);
    assert_eq!((bytes(&world, 1, "a"), copies(&world, 1)), (Some(newest), 0));
}

#[test]
fn a_power_cut_right_after_a_download_leaves_the_old_version_or_the_new_one() {
    for cut in [CutMode::Ordered, CutMode::Any] {
        let mut world = world(2);
        save(&mut world, 0, "a");
        rest(&mut world);
        save(&mut world, 0, "a");
        for _ in 0..40 {
            steps(&mut world, 5);
            let mut disk = world.devices[1].disk.fork();
            let mut random = Random(world.random.next());
            let (before, copy) = (world.contents(1), &mut disk);
            copy.lock().sync_users();
            copy.lock().power_cut(cut, &mut |n| random.below(n));
            let found = copy.lock().read(&format!("{FOLDER}/a"));
            let is_whole = found.as_ref().is_some_and(|found| before.contains(found));
            assert!(is_whole, "torn or gone ({cut:?}): {found:?} of {before:?}");
        }
    }
}

#[test]
fn a_mass_deletion_that_trickles_out_in_small_batches_is_held() {
    let mut world = World::new(&Plan::empty(2, None), false);
    world.guard = GuardLimits { entries_min: 6, percent: 50 };
    (0..2).for_each(|at| event(&mut world, at, Event::CleanRestart));
    for name in ["a", "b", "c.txt", "d/x", "d/y", "d/e/z", "f", "long name \u{fc}"] {
        save(&mut world, 0, name);
    }
    rest(&mut world);
    for name in ["a", "b", "c.txt", "d/x", "d/y", "d/e/z", "f", "long name \u{fc}"] {
        act(&mut world, 0, Act::Delete(name));
        // One after the other arrives, or is held, within the window in which they are counted.
        let begun_ns = world.now_ns;
        while world.now_ns - begun_ns < 3_000_000_000 && bytes(&world, 1, name).is_some() {
            world.step();
        }
    }
    steps(&mut world, 500);
    assert!(world.tree(1).len() > 3, "all deletions went through: {:?}", world.tree(1).keys());
    world.confirm_all();
    steps(&mut world, 1000);
    world.confirm_all();
    rest(&mut world);
}

#[test]
fn what_a_program_writes_after_its_file_was_moved_to_history_comes_back() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    let inode = world.tree(1)["a"].inode;
    save(&mut world, 0, "a");
    for _ in 0..20_000 {
        world.step();
        if world.tree(1)["a"].inode != inode {
            break;
        }
    }
    let file = OpenFile { device: 1, inode };
    let before: BTreeSet<Vec<u8>> = world.contents(1);
    world.let_users(1, &mut Random(9), |user| drop(user.write_now(&file)));
    let written: Vec<Vec<u8>> = world.contents(1).difference(&before).cloned().collect();
    assert_eq!(written.len(), 1);
    rest(&mut world);
    let tree = world.tree(0);
    assert!(tree.values().any(|item| item.bytes == written[0]), "it is only in history");
}

#[test]
fn what_is_in_a_directory_is_not_found_under_another_spelling_of_its_name() {
    let mut world = rested(World::new(&Plan::empty(2, Some(OddDisk::FoldsCase)), false));
    act(&mut world, 0, Act::MakeDirectory("d"));
    act(&mut world, 0, Act::ChangeCase("d"));
    rest(&mut world);
    // The first device cannot have this beside the other one.
    save(&mut world, 1, "d/y");
    rest(&mut world);
    // Its watch tells of the name that the program has used.
    act(&mut world, 0, Act::Save("d/x"));
    rest(&mut world);
    let names: Vec<String> = world.tree(1).into_keys().filter(|name| name.ends_with("/x")).collect();
    assert_eq!(names, ["D/x"]);
}

/// A device's index goes back to before it had seen a file that both devices then change.
fn edits_after_an_index_went_back(mistake: Option<Bug>) -> Result<(), String> {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    event(&mut world, 0, Event::IndexSaved);
    save(&mut world, 0, "b");
    rest(&mut world);
    apart(&mut world, 1);
    save(&mut world, 1, "b");
    steps(&mut world, 80);
    sabotage::make(mistake);
    event(&mut world, 0, Event::IndexRestored);
    // The first count that this index gives out is one that it has given out before, and on which the other edit rests.
    save(&mut world, 0, "b");
    steps(&mut world, 80);
    world.heal();
    let result = world.settle(QUIET_MS).and_then(|()| world.verdict());
    sabotage::make(None);
    result
}

#[test]
fn an_edit_of_what_a_restored_index_has_forgotten_is_no_older_than_an_edit_elsewhere() {
    assert_eq!(edits_after_an_index_went_back(None), Ok(()));
    let lost = edits_after_an_index_went_back(Some(Bug::RollbackUnnoticed)).unwrap_err();
    assert!(lost.contains("is in no tree"), "{lost}");
}

#[test]
fn a_file_that_is_written_while_it_is_read_is_not_taken_for_what_was_read() {
    let mut world = world(1);
    save(&mut world, 0, "a");
    rest(&mut world);
    for mistake in [None, Some(Bug::ReadWhileWritten)] {
        let root = world.devices[0].root().open().unwrap();
        let mut is_written = false;
        world.devices[0].disk.lock().set_hook(Some(Box::new(move |disk, op| {
            if op.call == Call::Read && !is_written {
                is_written = true;
                disk.user_append(&format!("{FOLDER}/a"), b"more").unwrap();
            }
        })));
        let (path, never) = (RelPath::parse(b"a").unwrap(), AtomicBool::new(false));
        sabotage::make(mistake);
        let outcome = read::examine(&root, &path, world.now_ns, &mut Vec::new(), &never);
        sabotage::make(None);
        world.devices[0].disk.lock().set_hook(None);
        let is_believed = matches!(outcome, ReadOutcome::Hashed(_));
        assert_eq!(is_believed, mistake.is_some(), "{outcome:?}");
    }
}
