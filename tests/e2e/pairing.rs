//! Pairing with a short code, found by multicast.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use crate::harness::{Agent, FOLDER, World, wait_connected, wait_settled, wait_until};
use crate::tree;

/// Digits of a code, in their order.
const CODE_ALPHABET: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A multicast group and a port that belong to this test run.
fn meeting_place(world: &World) -> (Ipv4Addr, u16) {
    let tag = tree::noise(u64::from(std::process::id()) ^ world.path("").as_os_str().len() as u64, 4);
    (Ipv4Addr::new(239, 255, tag[0], tag[1]), 20_000 + u16::from(tag[2]) * 16 + u16::from(tag[3]) % 16)
}

/// True where a packet to a multicast group comes back to this machine.
fn has_multicast((group, port): (Ipv4Addr, u16)) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"hello", SocketAddrV4::new(group, port))?;
        let mut buffer = [0; 16];
        Ok(socket.recv(&mut buffer)? == 5)
    };
    attempt().unwrap_or(false)
}

/// Two running devices that don't know each other but could meet, or `None` where there is no multicast.
pub fn neighbours(world: &World) -> Option<(Agent, Agent)> {
    let place = meeting_place(world);
    if !has_multicast(place) {
        eprintln!("skipped: multicast does not work on this machine");
        return None;
    }
    let make = |name: &str| {
        let mut agent = world.bare_agent(name);
        agent.listen = agent.listen.replace("127.0.0.1", "0.0.0.0");
        let network = format!("multicast_v4 = \"{}\"\ndiscovery_port = {}", place.0, place.1);
        agent.write_config(&format!("name = \"{name}\"\n\n[network]\n{network}\n"));
        agent.ok(&["folder", "add", agent.root.to_str().unwrap(), "--id", FOLDER, "--label", "Shared"]);
        agent.start();
        agent
    };
    Some((make("a"), make("b")))
}

/// A `pair` command that shows a code, with the code.
pub fn show_code(agent: &Agent) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = agent.command(&["pair"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let code = loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "no code was shown");
        if let Some((_, code)) = line.trim().split_once("p2psync pair ") {
            break code.to_owned();
        }
    };
    (child, output, code)
}

/// Waits for a `pair` command; how it ended and what it said since the code.
pub fn finish(name: &str, mut child: Child, mut output: BufReader<ChildStdout>) -> (bool, String) {
    let status = wait_until(&format!("'pair' on {name} ends"), || {
        child.try_wait().unwrap().ok_or_else(|| "still waiting".to_owned())
    });
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.success(), said)
}

/// Another code for the same device, without a typing error.
fn wrong(code: &str) -> impl Iterator<Item = String> {
    let bytes = code.as_bytes().to_vec();
    // The last character checks the others: one of the 32 fits.
    CODE_ALPHABET.iter().map(move |check| {
        let mut other = bytes.clone();
        other[3] = if bytes[3] == b'7' { b'8' } else { b'7' };
        *other.last_mut().unwrap() = *check;
        String::from_utf8(other).unwrap()
    })
}

#[test]
fn a_code_pairs_two_devices_that_then_share_their_folders() {
    let world = World::new();
    let Some((a, b)) = neighbours(&world) else { return };
    a.write("hello", "from a");
    let (child, output, code) = show_code(&a);
    let joined = b.ok(&["pair", &code.to_lowercase()]);
    assert!(joined.contains("Paired with a"), "{joined}");
    let (went_well, said) = finish("a", child, output);
    assert!(went_well && said.contains("Paired with b"), "{said}");
    wait_connected(&a, &b);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("hello"), b"from a");
    assert!(a.ok(&["peer", "list"]).contains('b'));
}

#[test]
fn a_wrong_code_is_refused_on_both_devices_and_cannot_be_tried_again() {
    let world = World::new();
    let Some((a, b)) = neighbours(&world) else { return };
    let (child, output, code) = show_code(&a);
    let guess = wrong(&code).map(|guess| b.fails(&["pair", &guess])).find(|said| !said.contains("typing error"));
    assert!(guess.is_some(), "no guess passed for a code");
    let (went_well, said) = finish("a", child, output);
    assert!(!went_well && !said.contains("Paired"), "{said}");
    b.fails(&["pair", &code]);
    assert!(a.status().unwrap().peers.is_empty() && b.status().unwrap().peers.is_empty());
}

#[test]
fn pairing_without_an_agent_says_what_to_start() {
    let world = World::new();
    let a = world.agent("a");
    let said = a.fails(&["pair"]);
    assert!(said.contains("p2psync run"), "{said}");
}
