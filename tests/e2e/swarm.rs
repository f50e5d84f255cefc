//! A file that several devices want at once.

use std::fs;
use std::sync::Arc;

use crate::harness::{Agent, World, wait_connected, wait_until};
use crate::relay::{Link, Rate};
use crate::tree;

const FILE_BYTES: usize = 48 << 20;
/// What each device can send: slow enough that the others have time to tell what they have.
const BYTES_PER_SECOND: f64 = 12e6;

/// A source and three others, each pair linked and none faster than the rate.
fn crowd(world: &World) -> Vec<Agent> {
    let mut all: Vec<Agent> = ["source", "b", "c", "d"].map(|name| world.agent(name)).into();
    let rates: Vec<Arc<Rate>> = all.iter().map(|_| Rate::new(BYTES_PER_SECOND)).collect();
    for (at, from) in all.iter().enumerate() {
        for (other, to) in all.iter().enumerate().filter(|(other, _)| *other != at) {
            let rates = [Some(rates[at].clone()), Some(rates[other].clone())];
            let address = Link { to: to.listen.clone(), rates, delay: std::time::Duration::ZERO }.open().unwrap();
            from.ok(&["peer", "add", &to.id(), "--name", &to.name, "--address", &address]);
        }
    }
    all.iter_mut().for_each(Agent::start);
    for (at, one) in all.iter().enumerate() {
        all.iter().skip(at + 1).for_each(|other| wait_connected(one, other));
    }
    all
}

fn bring_in(world: &World, source: &Agent) -> Vec<u8> {
    let bytes = tree::noise(7, FILE_BYTES);
    fs::write(world.path("aside"), &bytes).unwrap();
    fs::rename(world.path("aside"), source.at("film")).unwrap();
    bytes
}

fn wait_has(agent: &Agent, bytes: &[u8]) {
    wait_until(&format!("{} has the file", agent.name), || match agent.at("film").exists() {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    assert!(agent.read("film") == bytes);
}

#[test]
fn a_file_that_three_devices_want_leaves_its_source_about_once() {
    let world = World::new();
    let all = crowd(&world);
    let bytes = bring_in(&world, &all[0]);
    all.iter().for_each(|agent| wait_has(agent, &bytes));
    let sent: u64 = all[0].status().unwrap().peers.iter().map(|peer| peer.bytes_out).sum();
    assert!(sent < FILE_BYTES as u64 * 8 / 5, "the source sent {sent} bytes of {FILE_BYTES}");
}

#[test]
fn one_of_three_that_stops_in_the_middle_holds_nobody_up() {
    let world = World::new();
    let mut all = crowd(&world);
    let bytes = bring_in(&world, &all[0]);
    wait_until("the last has some of it", || match all[3].bytes_in() > FILE_BYTES as u64 / 4 {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    all[3].kill();
    all.iter().take(3).for_each(|agent| wait_has(agent, &bytes));
    all[3].start();
    wait_has(&all[3], &bytes);
}
