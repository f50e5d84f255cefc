//! What scenarios are written with: a world, what happens in it, and what has to be so at rest.

use crate::simulator::plan::{Act, Plan};
use crate::simulator::random::Random;
use crate::simulator::world::World;

/// How long nothing has to happen before the world counts as at rest, in ms.
pub const QUIET_MS: i64 = 90_000;

pub fn world(devices: usize) -> World {
    rested(World::new(&Plan::empty(devices, None), std::env::var("SIM_TRACE").is_ok()))
}

pub fn rested(mut world: World) -> World {
    rest(&mut world);
    world
}

/// Connects all and waits until nothing happens any more, in whatever state.
pub fn settle(world: &mut World) {
    world.heal();
    world.settle(QUIET_MS).unwrap_or_else(|why| fail(world, &why));
}

/// The same, and judges: all devices are to have the same then.
pub fn rest(world: &mut World) {
    settle(world);
    world.verdict().unwrap_or_else(|why| fail(world, &why));
}

pub fn fail(world: &mut World, why: &str) {
    world.describe();
    world.take_trace().iter().for_each(|line| println!("{line}"));
    panic!("{why}");
}

pub fn act(world: &mut World, at: usize, act: Act) {
    let mut random = Random(world.random.next());
    world.act(at, act, &mut random);
}

/// A new version of a file; returns its bytes.
pub fn save(world: &mut World, at: usize, name: &'static str) -> Vec<u8> {
    act(world, at, Act::Save(name));
    world.tree(at)[name].bytes.clone()
}

pub fn bytes(world: &World, at: usize, name: &str) -> Option<Vec<u8>> {
    world.tree(at).get(name).map(|item| item.bytes.clone())
}

pub fn copies(world: &World, at: usize) -> usize {
    world.tree(at).keys().filter(|path| path.contains(".conflict-")).count()
}
