//! Pairing with a short code, found by multicast.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use p2psync::net::pairing_code::PairingCode;

use crate::harness::{Agent, FOLDER, World, wait_connected, wait_settled, wait_until};
use crate::tree;

/// Digits of a code, in their order.
const CODE_ALPHABET: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// A folder that only one of the devices has.
const PHOTOS: &str = "photos-1";

/// A multicast group and a port that belong to this test run.
pub fn meeting_place(world: &World) -> (Ipv4Addr, u16) {
    let tag = tree::noise(u64::from(std::process::id()) ^ world.path("").as_os_str().len() as u64, 4);
    (Ipv4Addr::new(239, 255, tag[0], tag[1]), 20_000 + u16::from(tag[2]) * 16 + u16::from(tag[3]) % 16)
}

/// True where a packet to a multicast group comes back to this machine.
pub fn has_multicast((group, port): (Ipv4Addr, u16)) -> bool {
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

/// The link that a `pair` command shows after the code.
pub fn link_of(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "no link was shown");
        if let Some((_, link)) = line.trim().split_once("p2psync pair 'p2psync:") {
            break format!("p2psync:{}", link.trim_end_matches('\''));
        }
    }
}

/// Another code for the same device, without a typing error.
fn wrong(code: &str) -> impl Iterator<Item = String> {
    let bytes = code.parse::<PairingCode>().unwrap().to_string().into_bytes();
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

#[test]
fn words_are_taken_with_a_slip_and_one_that_is_none_is_named() {
    let world = World::new();
    let Some((a, b)) = neighbours(&world) else { return };
    let (child, output, code) = show_code(&a);
    let words: Vec<&str> = code.split('-').collect();
    let said = b.fails(&["pair", words[0], words[1], "xylophone", words[3]]);
    assert!(said.contains("\"xylophone\" is not a word"), "{said}");
    let said = b.fails(&["pair", words[0], words[1], words[2]]);
    assert!(said.contains("four words, this has 3"), "{said}");
    // Nothing was sent, so the code is still good: in words with a letter too many, and one cut short.
    let (slip, short) = (format!("{}q", words[1]), &words[2][..words[2].len().min(4)]);
    let joined = b.ok(&["pair", words[0], &slip, short, &words[3].to_uppercase()]);
    assert!(joined.contains("Paired with a ("), "{joined}");
    assert!(finish("a", child, output).0);
    wait_connected(&a, &b);
}

/// Two running devices without multicast; one has a folder that the other lacks.
fn apart(world: &World) -> (Agent, Agent) {
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    let photos = a.base.join("pictures");
    a.ok(&["folder", "add", photos.to_str().unwrap(), "--id", PHOTOS, "--label", "My Photos"]);
    std::fs::write(photos.join("beach.jpg"), "sand").unwrap();
    a.start();
    b.start();
    (a, b)
}

#[test]
fn a_link_pairs_without_multicast_and_the_folders_offered_are_taken_at_once() {
    let world = World::new();
    let (a, mut b) = apart(&world);
    let (child, mut output, _) = show_code(&a);
    let link = link_of(&mut output);
    let joined = b.ok(&["pair", &link, "--accept", "all"]);
    assert!(joined.contains("Pairing with a (") && joined.contains("Paired with a ("), "{joined}");
    assert!(joined.contains("My Photos is in ~/My Photos from now on, shared with a."), "{joined}");
    let (went_well, said) = finish("a", child, output);
    assert!(went_well && said.contains("Paired with b (") && said.contains("This device is a ("), "{said}");
    wait_connected(&a, &b);
    wait_until("the photo arrives", || match std::fs::read(b.base.join("My Photos/beach.jpg")) {
        Ok(bytes) if bytes == b"sand" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Where the device was reached is kept: there is no other way to find it again.
    b.restart();
    wait_connected(&a, &b);
}

#[test]
fn an_offer_is_taken_later_and_never_mixed_with_files_unasked() {
    let world = World::new();
    let (a, b) = apart(&world);
    let place = b.base.join("My Photos");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("mine.jpg"), "mine").unwrap();
    let (child, mut output, _) = show_code(&a);
    let link = link_of(&mut output);
    let joined = b.ok(&["pair", &link, "--accept", "all"]);
    assert!(joined.contains("'My Photos' is left out. ~/My Photos holds 1 item already"), "{joined}");
    assert!(finish("a", child, output).0);
    wait_connected(&a, &b);
    wait_until("the offer is known", || {
        let said = b.ok(&[]);
        if said.contains("p2psync folder accept 'My Photos'") { Ok(()) } else { Err(said) }
    });
    let said = b.fails(&["folder", "accept"]);
    assert!(said.contains("holds 1 item already") && said.contains("--merge"), "{said}");
    let said = b.fails(&["folder", "accept", "Phots"]);
    assert!(said.contains("there are: My Photos"), "{said}");
    b.ok(&["folder", "accept", "My Photos", place.to_str().unwrap(), "--merge"]);
    wait_until("both have both", || {
        let has = |path: std::path::PathBuf| path.exists();
        let all = has(place.join("beach.jpg")) && has(a.base.join("pictures/mine.jpg"));
        if all && has(place.join("mine.jpg")) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert!(b.ok(&["folder", "accept"]).contains("No connected device shares a folder that is not here"));
}

#[test]
fn a_peer_that_is_removed_is_cut_off_at_once_told_so_and_stays_out() {
    let world = World::new();
    let (a, b) = world.pair();
    let told = a.ok(&["peer", "remove", "b"]);
    assert!(told.contains("Removed b: it is no longer connected"), "{told}");
    // What is to be typed there names this device in a way that is known there.
    let id = a.id();
    let short_id = id.split('-').next().unwrap();
    assert!(told.contains(&format!("p2psync peer remove {short_id}")), "{told}");
    wait_until("b is told", || {
        let peer = b.peer(&a)?;
        let trouble = peer.trouble.unwrap_or_default();
        if !peer.connected && trouble.contains("no longer paired") { Ok(()) } else { Err(trouble) }
    });
    // It dials again, and is turned away.
    wait_until("b is turned away", || {
        let trouble = b.peer(&a)?.trouble.unwrap_or_default();
        if trouble.contains("does not know this one") { Ok(()) } else { Err(trouble) }
    });
    assert!(b.ok(&["peer", "list"]).contains("does not know this one"));
    let short = b.ok(&[]);
    assert!(short.contains("a has removed this device: 'p2psync pair' on both"), "{short}");
    assert!(b.ok(&["status"]).contains("forget it here with: p2psync peer remove a"));
    b.write("after", "the end");
    assert!(a.status().unwrap().peers.is_empty() && !a.at("after").exists());
}

#[test]
fn a_device_that_is_paired_anew_gets_the_folders_again_that_it_had() {
    let world = World::new();
    let (a, b) = apart(&world);
    let pair = |how: &[&str]| {
        let (child, mut output, _) = show_code(&a);
        let link = link_of(&mut output);
        let told = b.ok(&[&["pair", link.as_str()], how].concat());
        assert!(finish("a", child, output).0);
        wait_connected(&a, &b);
        told
    };
    pair(&["--accept", "all"]);
    b.ok(&["peer", "remove", "a"]);
    a.ok(&["peer", "remove", "b"]);
    std::fs::write(a.base.join("pictures/later.jpg"), "dusk").unwrap();
    // Nobody is there to be asked.
    let told = pair(&["--accept", "none"]);
    assert!(told.contains("'My Photos' (~/My Photos) is on a too, but not shared with it from here."), "{told}");
    assert!(told.contains(&format!("To share it: p2psync folder share {PHOTOS} --peer a\n")), "{told}");
    b.ok(&["peer", "remove", "a"]);
    a.ok(&["peer", "remove", "b"]);
    let told = pair(&["--accept", "all"]);
    // What is offered is here already, and accepting it gives nothing away.
    assert!(told.contains(&format!("To share it: p2psync folder share {PHOTOS} --peer a\n")), "{told}");
    b.ok(&["folder", "share", PHOTOS, "--peer", "a"]);
    wait_until("the later photo arrives", || match std::fs::read(b.base.join("My Photos/later.jpg")) {
        Ok(bytes) if bytes == b"dusk" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn peers_are_listed_with_version_and_clock_and_when_they_were_seen_last() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    wait_settled(&[&a, &b]);
    let peer = a.peer(&b).unwrap();
    assert!(peer.version.is_some_and(|v| v.starts_with("p2psync ")));
    assert!(peer.clock_ahead_ms.is_some_and(|ms| ms.abs() < 60_000));
    b.stop();
    a.stop();
    let listed: serde_json::Value = serde_json::from_str(&a.ok(&["peer", "list", "--json"])).unwrap();
    assert_eq!(listed[0]["connected"], false);
    assert!(listed[0]["last_seen_ms"].as_i64().is_some_and(|ms| ms > 0), "{listed}");
}
