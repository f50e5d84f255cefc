//! A live agent under attack, by strangers and by a paired device that has turned bad. Through it all the agent stays
//! up and small, serves its honest peer, and writes nothing outside its folder.

mod guessers;
mod lies;
mod load;
mod mallory;
mod private;
mod protocol;
mod strangers;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Agent, World, introduce, wait_connected, wait_until};
use mallory::Mallory;

/// What a victim may take at most at any time, in a build without optimisation.
const MEMORY_BYTES_MAX: u64 = 300 * 1024 * 1024;
/// Most open descriptors of a victim: sockets, indexes, watches, staged files.
const DESCRIPTORS_MAX: usize = 250;

/// A victim and its honest peer, running and connected, and an attacker that both are paired with.
fn three(world: &World) -> (Agent, Agent, Mallory) {
    let (mut victim, mut honest, mallory) = (world.agent("victim"), world.agent("honest"), Mallory::new());
    introduce(&victim, &honest);
    mallory.pair_with(&victim);
    victim.start();
    honest.start();
    wait_connected(&victim, &honest);
    (victim, honest, mallory)
}

/// The victim is alive and small, and a change of its honest peer arrives. Returns how long that took.
fn assert_unharmed(victim: &Agent, honest: &Agent, attack: &str) -> Duration {
    let start = Instant::now();
    honest.write(&format!("honest after {attack}"), attack);
    wait_until(&format!("a change arrives after {attack}"), || {
        let found = fs::read(victim.at(&format!("honest after {attack}")));
        if found.is_ok_and(|f| f == attack.as_bytes()) { Ok(()) } else { Err("not there".into()) }
    });
    assert_small(victim, attack);
    start.elapsed()
}

fn assert_small(victim: &Agent, attack: &str) {
    let (peak, descriptors) = (peak_bytes(victim), descriptors(victim));
    assert!(peak < MEMORY_BYTES_MAX, "{attack}: {} MiB", peak >> 20);
    assert!(descriptors < DESCRIPTORS_MAX, "{attack}: {descriptors} open descriptors");
}

/// The most memory that the agent ever had.
fn peak_bytes(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

/// Everything in a directory but for the victim's own places, by name.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
