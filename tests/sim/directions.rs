//! Folders that only send or only receive, for a while: nothing is taken or told then, and nothing is lost when changes go
//! both ways again.

use p2psync::core::direction::Direction;
use p2psync::sync::Input;

use crate::scene::{act, bytes, copies, rest, save, settle, world};
use crate::simulator::plan::Act;
use crate::simulator::random::Random;
use crate::simulator::world::World;

/// Random runs of the usual test.
const RUNS: u64 = 20;
const NAMES: [&str; 6] = ["a", "b", "f", "d/x", "d/y", "d/e/z"];

fn turn(world: &mut World, at: usize, direction: Direction) {
    world.devices[at].direction = direction;
    let settings = world.settings(at);
    world.feed_if_running(at, Input::Settings(settings));
}

/// Users have said that these need not stay where they are.
fn give_up(world: &World, versions: &[Vec<u8>]) {
    versions.iter().for_each(|bytes| world.users().ledger.gave_up(bytes));
}

fn restart(world: &mut World, at: usize) {
    world.kill(at);
    world.start(at);
}

#[test]
fn a_device_that_only_sends_stays_as_it_is_until_changes_go_both_ways() {
    let mut world = world(3);
    let first = save(&mut world, 0, "a");
    save(&mut world, 0, "b");
    rest(&mut world);
    turn(&mut world, 0, Direction::Send);
    let edited = save(&mut world, 1, "a");
    act(&mut world, 2, Act::Delete("b"));
    save(&mut world, 1, "d/e/z");
    let own = save(&mut world, 0, "f");
    settle(&mut world);
    assert_eq!((bytes(&world, 0, "a"), bytes(&world, 2, "a")), (Some(first), Some(edited.clone())));
    assert!(bytes(&world, 0, "b").is_some() && bytes(&world, 0, "d/e/z").is_none());
    assert_eq!(bytes(&world, 2, "f"), Some(own));
    restart(&mut world, 0);
    settle(&mut world);
    assert!(bytes(&world, 0, "b").is_some());
    turn(&mut world, 0, Direction::Both);
    rest(&mut world);
    assert_eq!((bytes(&world, 0, "a"), bytes(&world, 0, "b")), (Some(edited), None));
}

#[test]
fn what_a_sending_device_overrules_is_in_history_elsewhere_and_nowhere_in_the_way() {
    let mut world = world(3);
    save(&mut world, 0, "a");
    save(&mut world, 0, "b");
    rest(&mut world);
    turn(&mut world, 0, Direction::Send);
    let overruled = [save(&mut world, 1, "a"), save(&mut world, 2, "f")];
    act(&mut world, 1, Act::Delete("b"));
    settle(&mut world);
    let mine = save(&mut world, 0, "a");
    settle(&mut world);
    give_up(&world, &overruled);
    world.feed_if_running(0, Input::Override);
    settle(&mut world);
    for at in 0..3 {
        assert_eq!(bytes(&world, at, "a"), Some(mine.clone()), "at {at}");
        assert!(bytes(&world, at, "b").is_some() && bytes(&world, at, "f").is_none(), "at {at}");
    }
    assert!(overruled.iter().all(|bytes| (1..3).any(|at| world.contents(at).contains(bytes))), "it is in no history");
    turn(&mut world, 0, Direction::Both);
    rest(&mut world);
}

#[test]
fn a_change_made_where_a_folder_only_receives_stays_there_and_is_an_edit_once_changes_go_both_ways() {
    let mut world = world(3);
    let first = save(&mut world, 0, "a");
    save(&mut world, 0, "b");
    rest(&mut world);
    turn(&mut world, 1, Direction::Receive);
    let own = save(&mut world, 1, "a");
    act(&mut world, 1, Act::Delete("b"));
    save(&mut world, 1, "f");
    let received = save(&mut world, 2, "d/e/z");
    settle(&mut world);
    assert_eq!((bytes(&world, 0, "a"), bytes(&world, 1, "a")), (Some(first), Some(own.clone())));
    assert!(bytes(&world, 0, "b").is_some() && bytes(&world, 1, "b").is_none() && bytes(&world, 0, "f").is_none());
    assert_eq!(bytes(&world, 1, "d/e/z"), Some(received));
    restart(&mut world, 1);
    settle(&mut world);
    assert!(bytes(&world, 0, "b").is_some() && bytes(&world, 0, "f").is_none());
    turn(&mut world, 1, Direction::Both);
    rest(&mut world);
    assert_eq!((bytes(&world, 0, "a"), bytes(&world, 0, "b")), (Some(own), None));
    assert!(bytes(&world, 0, "f").is_some() && copies(&world, 0) == 0);
}

#[test]
fn a_change_of_both_sides_is_a_conflict_once_changes_go_both_ways() {
    let mut world = world(2);
    save(&mut world, 0, "a");
    rest(&mut world);
    turn(&mut world, 1, Direction::Receive);
    save(&mut world, 1, "a");
    settle(&mut world);
    save(&mut world, 0, "a");
    settle(&mut world);
    turn(&mut world, 1, Direction::Both);
    rest(&mut world);
    assert_eq!(copies(&world, 0), 1);
}

#[test]
fn what_is_taken_back_gives_way_to_what_others_have() {
    let mut world = world(3);
    save(&mut world, 0, "a");
    let kept = save(&mut world, 0, "b");
    rest(&mut world);
    turn(&mut world, 1, Direction::Receive);
    let own = [save(&mut world, 1, "a"), save(&mut world, 1, "d/e/z")];
    act(&mut world, 1, Act::Delete("b"));
    settle(&mut world);
    let newer = save(&mut world, 2, "a");
    settle(&mut world);
    give_up(&world, &own);
    world.feed_if_running(1, Input::Revert);
    world.step();
    restart(&mut world, 1);
    rest(&mut world);
    assert_eq!((bytes(&world, 1, "a"), bytes(&world, 1, "b")), (Some(newer), Some(kept)));
    assert!(bytes(&world, 1, "d/e/z").is_none());
    assert!(own.iter().all(|bytes| world.contents(1).contains(bytes)), "what was taken back is not in history");
    turn(&mut world, 1, Direction::Both);
    rest(&mut world);
}

/// What users do at random, for [`whatever_is_done_while_directions_change_nothing_is_lost`].
fn random_act(random: &mut Random) -> Act {
    let name = NAMES[random.below(NAMES.len())];
    let other = NAMES[random.below(NAMES.len())];
    match random.below(10) {
        0..4 => Act::Save(name),
        4 => Act::SaveInPlace(name),
        5 => Act::Delete(name),
        6 => Act::Rename(name, other),
        7 => Act::Touch(name),
        8 => Act::Chmod(name),
        _ => [Act::DeleteTree("d"), Act::DirectoryOver("a"), Act::FileOver("d"), Act::SaveSame("b")][random.below(4)],
    }
}

fn random_step(world: &mut World, random: &mut Random) {
    let at = random.below(world.devices.len());
    match random.below(12) {
        0..6 => {
            let what = random_act(random);
            act(world, at, what);
        }
        6..8 => turn(world, at, Direction::ALL[random.below(Direction::ALL.len())]),
        8 => restart(world, at),
        9 => world.disconnect_all_of(at),
        10 => {
            // Whatever is here may have to give way.
            let here: Vec<Vec<u8>> = world.tree(at).into_values().map(|item| item.bytes).collect();
            give_up(world, &here);
            world.feed_if_running(at, Input::Revert);
        }
        _ => {
            let elsewhere = (0..world.devices.len()).filter(|other| *other != at);
            let there: Vec<Vec<u8>> =
                elsewhere.flat_map(|b| world.tree(b).into_values()).map(|item| item.bytes).collect();
            give_up(world, &there);
            if world.devices[at].direction == Direction::Send {
                world.feed_if_running(at, Input::Override);
            }
        }
    }
    for _ in 0..random.below(200) {
        world.step();
    }
}

#[test]
fn whatever_is_done_while_directions_change_nothing_is_lost() {
    let first: u64 = std::env::var("SIM_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seeds: u64 = std::env::var("SIM_DIRECTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut world = world(3);
        for _ in 0..40 {
            random_step(&mut world, &mut random);
        }
        settle(&mut world);
        (0..3).for_each(|at| turn(&mut world, at, Direction::Both));
        rest(&mut world);
    }
}
