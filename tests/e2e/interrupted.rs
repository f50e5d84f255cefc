//! Agents that are killed in the midst of things.

use std::fs;

use crate::harness::{Agent, World, wait_settled, wait_until};
use crate::tree;

/// Sizes tried: a transfer that was over before the kill says nothing, so the next one is larger.
const SIZES: [usize; 3] = [64 << 20, 256 << 20, 1 << 30];

/// Puts a file into `from`'s folder and waits until about a third of it has arrived. `None` where all of it has.
fn a_third_of(size: usize, world: &World, from: &Agent, to: &Agent) -> Option<u64> {
    let outside = world.path("outside");
    fs::write(&outside, tree::noise(size as u64, size)).unwrap();
    let before = to.bytes_in();
    fs::rename(&outside, from.at("large")).unwrap();
    let arrived = wait_until("a third has arrived", || match to.bytes_in() - before {
        bytes if bytes > size as u64 / 3 => Ok(bytes),
        bytes => Err(format!("{bytes} of {size} bytes")),
    });
    (!to.at("large").exists()).then_some(arrived)
}

/// True where the file is not there. If it is, the kill came too late, and then all of it has to be there.
fn is_interrupted(agent: &Agent, size: usize) -> bool {
    let is_there = agent.at("large").exists();
    assert!(
        !is_there || agent.read("large") == tree::noise(size as u64, size),
        "a file that is not complete is visible"
    );
    !is_there
}

#[test]
fn a_transfer_goes_on_where_it_was_after_the_receiver_was_killed() {
    let world = World::new();
    let (a, mut b) = world.pair();
    for size in SIZES {
        if let Some(arrived) = a_third_of(size, &world, &a, &b) {
            b.kill();
            let is_interrupted = is_interrupted(&b, size);
            b.start();
            wait_settled(&[&a, &b]);
            let rest = b.bytes_in();
            assert!(rest < size as u64 - arrived * 3 / 4, "{rest} more bytes, after {arrived} of {size} had come");
            assert_eq!(tree::conflict_copies(&b.root), Vec::<String>::new());
            if is_interrupted {
                return;
            }
        }
        wait_settled(&[&a, &b]);
        fs::remove_file(a.at("large")).unwrap();
        wait_settled(&[&a, &b]);
    }
    eprintln!("skipped: files arrive before they can be interrupted");
}

#[test]
fn a_transfer_goes_on_after_the_sender_was_killed() {
    let world = World::new();
    let (mut a, b) = world.pair();
    for size in SIZES {
        if let Some(arrived) = a_third_of(size, &world, &a, &b) {
            a.kill();
            let before = b.bytes_in();
            let is_interrupted = is_interrupted(&b, size);
            a.start();
            wait_settled(&[&a, &b]);
            let rest = b.bytes_in() - before;
            assert!(rest < size as u64 - arrived * 3 / 4, "{rest} more bytes, after {arrived} of {size} had come");
            if is_interrupted {
                return;
            }
        }
        wait_settled(&[&a, &b]);
        fs::remove_file(a.at("large")).unwrap();
        wait_settled(&[&a, &b]);
    }
    eprintln!("skipped: files arrive before they can be interrupted");
}

#[test]
fn kills_at_any_time_lose_nothing_and_make_no_conflicts() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    for round in 0..6u64 {
        for i in 0..60 {
            a.write(&format!("from a/{}/{i}", i % 6), tree::noise(round * 1000 + i, 5_000));
            b.write(&format!("from b/{}/{i}", i % 6), tree::noise(round * 1000 + 500 + i, 5_000));
        }
        if round > 0 {
            fs::rename(a.at(&format!("moved {}", round - 1)), a.at(&format!("moved {round}"))).unwrap();
        } else {
            fs::create_dir(a.at("moved 0")).unwrap();
            (0..30).for_each(|i| a.write(&format!("moved 0/{i}"), tree::noise(9_000 + i, 10_000)));
        }
        // How far they have got is different in every round: some files have arrived.
        let some = |agent: &Agent| tree::nodes(&agent.root).unwrap().len() as u64;
        wait_until("some files have arrived", || {
            let (ours, theirs) = (some(&a), some(&b));
            if ours.min(theirs) > 60 + round * 10 { Ok(()) } else { Err(format!("{ours} and {theirs} paths")) }
        });
        let victim = if round % 2 == 0 { &mut a } else { &mut b };
        victim.kill();
        victim.start();
    }
    wait_settled(&[&a, &b]);
    assert_eq!(tree::conflict_copies(&a.root), Vec::<String>::new());
    let is_expected = |path: &str| ["from a", "from b", "moved 5"].iter().any(|top| path.starts_with(top));
    let paths = tree::nodes(&b.root).unwrap().into_keys().map(|p| String::from_utf8(p).unwrap());
    assert_eq!(paths.filter(|p| !is_expected(p)).collect::<Vec<_>>(), Vec::<String>::new(), "these were moved away");
    for i in 0..60 {
        assert_eq!(b.read(&format!("from a/{}/{i}", i % 6)), tree::noise(5000 + i, 5_000), "file {i} from a");
        assert_eq!(a.read(&format!("from b/{}/{i}", i % 6)), tree::noise(5500 + i, 5_000), "file {i} from b");
    }
}
