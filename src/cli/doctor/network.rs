//! Whether other devices can find and reach this one, and it them.

use std::io;
use std::net::SocketAddr;

use super::Patient;
use super::check::{Check, Fact, Outcome};
use super::port;
use crate::api::PeerStatus;
use crate::cli::output::quoted;
use crate::cli::peer::clock_text;
use crate::net::probe::{self, Hearing, HearingOutcome};

/// The port that is usual for peers to connect to.
const USUAL_PORT: u16 = 7724;

/// Checks of the network.
pub fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks = vec![listening(patient)];
    checks.extend(multicast(patient));
    checks.extend(patient.status.peers.iter().enumerate().filter_map(|(i, p)| peer(patient, i, p)));
    checks.extend(clocks(&patient.status.peers));
    checks
}

fn listening(patient: &Patient) -> Check {
    let asked = patient.config.network.listen;
    let in_use = patient.status.listening.as_deref().filter(|_| patient.status.running).and_then(|a| a.parse().ok());
    let address: SocketAddr = in_use.unwrap_or(asked);
    let check = |outcome, text: String| {
        Check::new("Port", "port", outcome, text)
            .about(address.port().to_string())
            .fact("usual_port", Fact::Flag(asked.port() == USUAL_PORT))
            .fact("loopback", Fact::Flag(asked.ip().is_loopback()))
    };
    if patient.status.running {
        return match probe::accepts(address) {
            Ok(()) => check(Outcome::Ok, format!("open; the agent listens on {address}")),
            Err(error) => check(Outcome::Fail, format!("the agent does not take connections on {address}: {error}"))
                .remedy("restart the agent; if it stays so, a firewall of this computer is in the way"),
        };
    }
    if asked.port() == 0 {
        return check(Outcome::Ok, "any free one is taken at the start".to_owned());
    }
    match probe::can_listen(asked) {
        Ok(()) => check(Outcome::Ok, "free".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = port::holder(asked.port()).unwrap_or_else(|| "a process of another user".to_owned());
            check(Outcome::Fail, format!("taken by {holder}"))
                .remedy("stop that one, or choose another port: 'listen' in the section [network] of the config")
        }
        Err(error) => check(Outcome::Fail, format!("cannot listen on {asked}: {error}"))
            .remedy("correct 'listen' in the section [network] of the config"),
    }
}

fn multicast(patient: &Patient) -> Vec<Check> {
    let network = &patient.config.network;
    let check = |outcome, text: &str| Check::new("Multicast", "multicast", outcome, text);
    if !network.multicast {
        let peers_found =
            patient.config.peers.iter().all(|p| !p.addresses.is_empty()) || !network.announce_to.is_empty();
        let outcome = if peers_found { Outcome::Ok } else { Outcome::Warn };
        return vec![
            check(outcome, "switched off in the config, so peers are reached by their addresses only")
                .fact("switched_off", Fact::Flag(true)),
        ];
    }
    match probe::multicast(network.multicast_v4, network.multicast_v6, network.discovery_port) {
        Ok(found) if found.iter().all(|h| h.is_loopback) => {
            vec![check(Outcome::Warn, "there is no network but this computer's own").remedy("connect to a network")]
        }
        Ok(found) => found.iter().filter(|h| !h.is_loopback).enumerate().map(|(i, h)| hearing(i, h)).collect(),
        Err(error) => {
            vec![check(Outcome::Unknown, &format!("cannot list the network interfaces: {error}"))]
        }
    }
}

fn hearing(item: usize, hearing: &Hearing) -> Check {
    let family = if hearing.is_v6 { "IPv6" } else { "IPv4" };
    let (outcome, text, word) = match &hearing.outcome {
        HearingOutcome::Heard => (Outcome::Ok, "sent and heard".to_owned(), "heard"),
        HearingOutcome::Lost => (Outcome::Warn, "sent, but not heard".to_owned(), "lost"),
        HearingOutcome::NotSent(why) => (Outcome::Warn, format!("cannot be sent: {why}"), "not_sent"),
    };
    let check = Check::new("Multicast", "multicast", outcome, text)
        .about(format!("({family}) on {}", hearing.interface))
        .item(item)
        .fact("ipv6", Fact::Flag(hearing.is_v6))
        .fact("outcome", Fact::Word(word));
    match outcome {
        Outcome::Ok => check,
        _ => check.remedy(
            "devices on this network may not find each other: let UDP port 7725 through this computer's firewall, or \
             give peers an address with 'p2psync peer add ID --address HOST:PORT'",
        ),
    }
}

/// Whether the clocks of the devices agree, as far as they have told; `None` without peers.
fn clocks(peers: &[PeerStatus]) -> Option<Check> {
    let check = |outcome, text: String| Check::new("Clocks", "clock_skew", outcome, text);
    let remedy = "set the clocks of all your devices by the network: of two changes to a file the later keeps the name";
    let told: Vec<&PeerStatus> = peers.iter().filter(|peer| peer.clock_ahead_ms.is_some()).collect();
    let wrong: Vec<String> = told.iter().filter_map(|p| Some(format!("{}'s is {}", p.name, clock_text(p)?))).collect();
    match (peers.is_empty(), told.is_empty(), wrong.is_empty()) {
        (true, ..) => None,
        (_, true, _) => {
            Some(check(Outcome::Unknown, "no device has told yet what its clock shows".to_owned()).remedy(remedy))
        }
        (.., true) => Some(check(Outcome::Ok, "they agree, as far as the devices have told".to_owned())),
        _ => Some(check(Outcome::Warn, format!("not as this device's: {}", wrong.join(", "))).remedy(remedy)),
    }
}

/// What keeps a peer away that should be there.
fn peer(patient: &Patient, item: usize, peer: &PeerStatus) -> Option<Check> {
    let check = |outcome, text: String| {
        let check = Check::new("Peer", "peer", outcome, text).about(peer.name.clone()).item(item);
        check.fact("connected", Fact::Flag(peer.connected)).fact("trouble", Fact::Flag(peer.trouble.is_some()))
    };
    if !patient.status.running {
        return None;
    }
    Some(match (&peer.trouble, peer.connected) {
        (_, true) => check(Outcome::Ok, "connected".to_owned()),
        _ if peer.unpaired => check(Outcome::Warn, "it does not know this device, or no longer".to_owned())
            .fact("unpaired", Fact::Flag(true))
            .remedy(format!(
                "pair again: 'p2psync pair' on both; or forget it here: p2psync peer remove {}",
                quoted(&peer.name)
            )),
        (Some(trouble), false) => check(Outcome::Warn, format!("it was found, but not reached: {trouble}")).remedy(
            "see that p2psync runs there, and that the firewall there (and here) lets TCP port 7724 through, or the port \
             that 'listen' in its config names",
        ),
        (None, false) => check(Outcome::Warn, "not found in the network".to_owned()).remedy(
            "see that it is on and p2psync runs there; if it is in another network, or multicast does not get through, \
             give it an address: p2psync peer add ID --address HOST:PORT",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_named_and_those_that_agree_are_fine() {
        let peer =
            |name: &str, ahead_ms| PeerStatus { name: name.into(), clock_ahead_ms: ahead_ms, ..PeerStatus::default() };
        assert!(clocks(&[]).is_none());
        let told = |peers: &[PeerStatus]| clocks(peers).map(|check| (check.outcome, check.text)).unwrap();
        assert_eq!(told(&[peer("a", None)]).0, Outcome::Unknown);
        assert_eq!(told(&[peer("a", None), peer("b", Some(900))]).0, Outcome::Ok);
        let (outcome, text) = told(&[peer("a", Some(-3_600_000)), peer("b", Some(5))]);
        assert_eq!((outcome, text.as_str()), (Outcome::Warn, "not as this device's: a's is 60 minutes behind"));
    }
}
