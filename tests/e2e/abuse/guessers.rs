//! Devices that are not paired, while a pairing code is shown: they don't keep the right one out, and a guess ends it.

use std::time::{Duration, Instant};

use p2psync::net::pairing::{Greeting, PairError, pair_as_joiner};
use p2psync::net::pairing_code::PairingCode;
use p2psync::net::tls;

use super::assert_small;
use super::mallory::{ELSEWHERE, Mallory, from};
use crate::harness::{Agent, World, wait_connected};
use crate::pairing::{finish, link_of, show_code};

/// Connections of the crowd, from many addresses: more than are taken in at a time.
const CROWD: u8 = 120;

/// Connections for pairing that go no further than the handshake.
fn crowd(stranger: &Mallory, victim: &Agent) -> Vec<tls::Secured> {
    let address = victim.listen.parse().unwrap();
    let mut open = Vec::new();
    for i in 0..CROWD {
        let source = [127, 0, 3, 1 + i / 4].into();
        stranger.runtime.block_on(async {
            let Ok(stream) = from(source, address).await else { return };
            open.extend(tls::connect(stream, None, &stranger.tls).await.ok());
        });
    }
    open
}

#[test]
fn a_silent_crowd_keeps_nobody_from_pairing() {
    let world = World::new();
    let (mut victim, mut honest, stranger) = (world.agent("victim"), world.agent("honest"), Mallory::new());
    victim.start();
    honest.start();
    let (child, mut output, _) = show_code(&victim);
    let link = link_of(&mut output);
    let held = crowd(&stranger, &victim);
    assert!(held.len() > 60, "only {} got in", held.len());
    let start = Instant::now();
    honest.ok(&["pair", &link]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(finish("victim", child, output).0);
    wait_connected(&victim, &honest);
    assert_small(&victim, "a crowd that pairs");
    assert_eq!(victim.status().unwrap().peers.len(), 1);
}

#[test]
fn one_guess_ends_the_code_whoever_else_is_there() {
    let world = World::new();
    let (mut victim, mut honest, stranger) = (world.agent("victim"), world.agent("honest"), Mallory::new());
    victim.start();
    honest.start();
    let (child, mut output, code) = show_code(&victim);
    let link = link_of(&mut output);
    let held = crowd(&stranger, &victim);
    let right: PairingCode = code.parse().unwrap();
    // With the right public part, as everybody hears it.
    let guess = (0..=255u8).map(|n| PairingCode::generate([n; 5])).find(|guess| *guess != right).unwrap();
    let outcome = stranger.runtime.block_on(async {
        let stream = from(ELSEWHERE, victim.listen.parse().unwrap()).await.unwrap();
        let secured = tls::connect(stream, None, &stranger.tls).await.unwrap();
        let greeting = Greeting { name: "mallory".into(), folders: vec![] };
        pair_as_joiner(secured, &guess, stranger.identity.device_id(), &greeting).await
    });
    assert!(matches!(outcome, Err(PairError::WrongCode)), "{outcome:?}");
    let start = Instant::now();
    let (went_well, said) = finish("victim", child, output);
    assert!(!went_well && said.contains("the pairing code is wrong"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(held);
    // The right code comes too late.
    let said = honest.fails(&["pair", &link]);
    assert!(said.contains("not pairing"), "{said}");
    assert!(victim.status().unwrap().peers.is_empty() && honest.status().unwrap().peers.is_empty());
    assert_small(&victim, "a guess");
}
