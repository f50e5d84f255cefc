//! More than two devices.

use std::fs;

use crate::harness::{Agent, World, introduce, wait_same, wait_settled};
use crate::tree;

#[test]
fn changes_pass_along_a_chain_in_both_directions() {
    let world = World::new();
    let mut agents = ["a", "b", "c"].map(|name| world.agent(name));
    introduce(&agents[0], &agents[1]);
    introduce(&agents[1], &agents[2]);
    agents.iter_mut().for_each(Agent::start);
    let [a, b, c] = agents.each_ref();
    a.write("from a/file", tree::noise(1, 300_000));
    wait_settled(&[a, b, c]);
    c.write("from a/file", "edited at the other end");
    c.write("from c", "new");
    wait_settled(&[a, b, c]);
    assert_eq!(a.read("from a/file"), b"edited at the other end");
    fs::remove_file(a.at("from c")).unwrap();
    wait_settled(&[a, b, c]);
    assert!(!c.at("from c").exists());
    assert_eq!(tree::conflict_copies(&c.root), Vec::<String>::new());
}

#[test]
fn three_devices_that_all_know_each_other_take_changes_from_each() {
    let world = World::new();
    let mut agents = ["a", "b", "c"].map(|name| world.agent(name));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        introduce(&agents[i], &agents[j]);
    }
    agents.iter_mut().for_each(Agent::start);
    for (i, agent) in agents.iter().enumerate() {
        (0..20).for_each(|n| agent.write(&format!("by {}/{n}", agent.name), tree::noise(i as u64 * 100 + n, 20_000)));
    }
    wait_settled(&agents.each_ref());
    agents[1].stop();
    agents[0].write("while b is away", "hello");
    wait_same(&[&agents[0], &agents[2]]);
    agents[1].start();
    wait_settled(&agents.each_ref());
    assert_eq!(agents[1].read("while b is away"), b"hello");
    assert_eq!(tree::nodes(&agents[2].root).unwrap().len(), 3 + 60 + 1);
}
