//! Devices that are not paired: they get nothing, cost little and keep nobody out.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use p2psync::net::announcement::Announcement;
use p2psync::net::identity::Identity;
use p2psync::net::{NetError, random_bytes};
use tokio::io::AsyncWriteExt;

use super::mallory::{ELSEWHERE, Mallory, from};
use super::{assert_small, assert_unharmed};
use crate::harness::{World, introduce, wait_connected};
use crate::tree;

/// The beginning of a TLS 1.3 handshake record, without the rest.
const HALF_A_HANDSHAKE: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[test]
fn strangers_get_nothing_cost_little_and_keep_no_peer_out() {
    let world = World::new();
    let (mut victim, mut honest) = (world.agent("victim"), world.agent("honest"));
    introduce(&victim, &honest);
    victim.start();
    honest.start();
    wait_connected(&victim, &honest);
    let (stranger, address): (Mallory, SocketAddr) = (Mallory::new(), victim.listen.parse().unwrap());

    // A valid key that is not paired, and the same for pairing, which nobody has begun.
    for _ in 0..20 {
        assert!(matches!(stranger.raw(&victim), Err(NetError::NotTrusted)));
    }
    assert!(victim.log_text().contains("an unknown device"));

    // Noise, half a handshake, a handshake byte by byte, nothing at all: many of each, from several places.
    stranger.runtime.block_on(async {
        for i in 0..300u64 {
            let Ok(mut stream) = from(ELSEWHERE, address).await else { continue };
            let bytes = if i % 3 == 0 { tree::noise(i, 5000) } else { HALF_A_HANDSHAKE.to_vec() };
            let _ = stream.write_all(&bytes).await;
        }
    });
    let mut open = Vec::new();
    for i in 0..200u8 {
        let source = [127, 0, 1, i / 8].into();
        if let Ok(mut stream) = stranger.runtime.block_on(from(source, address)) {
            let _ = stranger.runtime.block_on(stream.write_all(&HALF_A_HANDSHAKE[..usize::from(i % 8)]));
            open.push(stream);
        }
    }
    assert_unharmed(&victim, &honest, "strangers");

    // While they hold what they can, a peer that comes anew gets in, and slow ones are let go.
    let trickle = stranger.runtime.spawn(async move {
        let mut n = 0u8;
        loop {
            for stream in &mut open {
                let _ = stream.write_all(&[n]).await;
            }
            if let Ok(stream) = from([127, 0, 2, n].into(), address).await {
                open.push(stream);
                open.drain(..open.len().saturating_sub(250));
            }
            n = n.wrapping_add(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let start = Instant::now();
    honest.restart();
    wait_connected(&victim, &honest);
    assert_unharmed(&victim, &honest, "a crowd");
    trickle.abort();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_small(&victim, "strangers");
}

#[test]
fn a_flood_of_announcements_is_forgotten_and_nobody_is_dialled() {
    let world = World::new();
    let (mut victim, mut honest) = (world.bare_agent("victim"), world.agent("honest"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    victim.write_config(&format!("name = \"victim\"\n\n[network]\nmulticast = false\ndiscovery_port = {port}\n"));
    let root = victim.root.clone();
    victim.ok(&["folder", "add", root.to_str().unwrap(), "--id", crate::harness::FOLDER, "--label", "Shared"]);
    introduce(&victim, &honest);
    victim.start();
    honest.start();
    wait_connected(&victim, &honest);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let dialled = listener.local_addr().unwrap().port();
    for i in 0..3000u64 {
        let identity = Identity::generate();
        let announcement = Announcement {
            device: identity.device_id(),
            port: dialled,
            pairing: None,
            instance: u64::from_be_bytes(random_bytes()),
        };
        let mut packet = announcement.seal(&identity);
        match i % 4 {
            1 => *packet.last_mut().unwrap() ^= 1,
            2 => packet = tree::noise(i, 600),
            _ => {}
        }
        let _ = socket.send_to(&packet, ("127.0.0.1", port));
    }
    assert_unharmed(&victim, &honest, "announcements");
    assert!(matches!(listener.accept(), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock));
    assert_eq!(victim.status().unwrap().peers.len(), 1);
}

#[test]
fn web_and_other_protocols_are_sent_away() {
    let world = World::new();
    let mut victim = world.agent("victim");
    victim.start();
    let mut stream = std::net::TcpStream::connect(&victim.listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // It ends, however; what is answered is at most an alert.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 64, "{answer:?}");
    assert!(victim.status().unwrap().running);
}
