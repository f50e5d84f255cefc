//! A report for developers: how p2psync is doing, in numbers.
//!
//! Architecture invariant: nothing is taken over that a person could have written. Numbers, flags and the program's own
//! words go in; names, paths, addresses, ids, keys and sentences do not. Peers and folders are told by their number.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Patient;
use super::check::Check;
use crate::api::{FolderPeerStatus, FolderStatus, PeerStatus, Reply, Request};
use crate::config::{Config, Sharing};
use crate::core::problem::ProblemKind;

/// Events that are counted by kind.
const EVENTS_COUNTED_MAX: usize = 1000;
/// Longest kind of an event in characters; kinds are the program's own words, all of them short.
const KIND_CHARS_MAX: usize = 32;

/// The report.
pub fn text(patient: &Patient, checks: &[Check]) -> String {
    let report = report(patient, checks, &event_kinds(patient));
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

fn report(patient: &Patient, checks: &[Check], kinds: &[String]) -> Value {
    let status = &patient.status;
    let peers: BTreeMap<&str, usize> =
        status.peers.iter().enumerate().map(|(i, p)| (p.device_id.as_str(), i)).collect();
    let folders: Vec<Value> = status.folders.iter().map(|f| folder(f, &peers)).collect();
    json!({
        "p2psync": env!("CARGO_PKG_VERSION"),
        "system": { "os": std::env::consts::OS, "architecture": std::env::consts::ARCH, "kernel": kernel() },
        "made_ms": patient.context.now_ms,
        "agent_running": status.running,
        "agent_answers": patient.silence.is_none(),
        "config": config(&patient.config),
        "checks": checks.iter().map(Check::public_json).collect::<Vec<_>>(),
        "folders": folders,
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
        "events": events(kinds),
    })
}

/// The numbers of the kernel's version; what a distribution or its builder has put behind them stays out.
fn kernel() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    release.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

fn config(config: &Config) -> Value {
    let (network, sync) = (&config.network, &config.sync);
    let folders = config.folders.iter().map(|folder| {
        let shared_with = match &folder.peers {
            Sharing::All => json!("all"),
            Sharing::Only(peers) => json!(peers.len()),
        };
        json!({ "paused": folder.paused, "shared_with": shared_with })
    });
    let addresses = config.peers.iter().map(|peer| peer.addresses.len());
    json!({
        "multicast": network.multicast,
        "listens_on_loopback_only": network.listen.ip().is_loopback(),
        "announce_to": network.announce_to.len(),
        "rescan_minutes": sync.rescan.as_secs() / 60,
        "reconcile_minutes": sync.reconcile.as_secs() / 60,
        "history_days": sync.history_days,
        "hold_deletes_above": sync.hold_deletes_above,
        "hold_deletes_percent": sync.hold_deletes_percent,
        "folders": folders.collect::<Vec<_>>(),
        "addresses_of_peers": addresses.collect::<Vec<_>>(),
    })
}

fn folder(folder: &FolderStatus, peers: &BTreeMap<&str, usize>) -> Value {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for problem in &folder.problems {
        *kinds.entry(ProblemKind::from_name(&problem.kind).map_or("other", ProblemKind::name)).or_default() += 1;
    }
    let with_peer = |p: &FolderPeerStatus| {
        json!({
            "peer": peers.get(p.device_id.as_str()), "connected": p.connected, "lacks_folder": p.lacks_folder,
            "behind_items": p.behind_items, "in_sync": p.in_sync, "proved_identical_ms": p.proved_identical_ms,
        })
    };
    json!({
        "state": folder.state, "files": folder.files, "directories": folder.directories, "bytes": folder.bytes,
        "need_files": folder.need_files, "need_bytes": folder.need_bytes, "problems": folder.problems_total,
        "problem_kinds": kinds, "conflicts": folder.conflicts, "held": folder.held.as_ref().map(|h| h.deletions),
        "watch_ok": folder.watch == "ok", "last_scan_ms": folder.last_scan_ms,
        "peers": folder.peers.iter().map(with_peer).collect::<Vec<_>>(),
    })
}

fn peer(peer: &PeerStatus) -> Value {
    json!({
        "connected": peer.connected, "last_seen_ms": peer.last_seen_ms, "bytes_in": peer.bytes_in,
        "bytes_out": peer.bytes_out, "has_trouble": peer.trouble.is_some(), "offers": peer.offers.len(),
    })
}

fn event_kinds(patient: &Patient) -> Vec<String> {
    match patient.context.ask(&Request::Events { count: EVENTS_COUNTED_MAX }) {
        Ok(Reply::Events(events)) => events.into_iter().map(|event| event.kind).collect(),
        _ => Vec::new(),
    }
}

/// How many events of each kind there were.
fn events(kinds: &[String]) -> BTreeMap<&str, u64> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in kinds {
        let is_word = kind.len() <= KIND_CHARS_MAX && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        *counts.entry(if is_word { kind } else { "other" }).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FolderOffer, FolderState, HeldDeletions, ProblemItem, Status};
    use crate::cli::context::Context;
    use crate::cli::doctor::check::{Fact, Outcome};
    use crate::config::{self, Folder, Peer};
    use crate::core::id::DeviceId;
    use crate::home::Home;

    /// Stands for everything that is nobody else's business.
    const SECRET: &str = "Secret-77";

    fn secret() -> String {
        SECRET.to_owned()
    }

    fn status(device: &DeviceId) -> Status {
        let peer = FolderPeerStatus { device_id: device.to_string(), name: secret(), ..Default::default() };
        let folder = FolderStatus {
            id: secret(),
            label: secret(),
            path: format!("/home/{SECRET}"),
            state: FolderState::Problems,
            state_text: secret(),
            problems: vec![
                ProblemItem { path: secret(), kind: "no_space".into(), text: secret(), since_ms: 1 },
                ProblemItem { path: secret(), kind: secret(), text: secret(), since_ms: 1 },
            ],
            held: Some(HeldDeletions { deletions: 7, text: secret() }),
            watch: secret(),
            only: Some(vec![secret()]),
            peers: vec![peer],
            ..Default::default()
        };
        let peer = PeerStatus {
            device_id: device.to_string(),
            name: secret(),
            address: Some("192.0.2.77:7777".into()),
            trouble: Some(secret()),
            offers: vec![FolderOffer { id: secret(), label: secret() }],
            ..Default::default()
        };
        Status {
            device_id: device.to_string(),
            name: secret(),
            running: true,
            listening: Some("192.0.2.77:7777".into()),
            folders: vec![folder],
            peers: vec![peer],
            problems_total: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_report_has_no_names_addresses_or_keys() {
        let dir = tempfile::Builder::new().prefix(SECRET).tempdir().unwrap();
        let context = Context { home: Home::at(dir.path(), dir.path().to_owned()), now_ms: 0 };
        let device = DeviceId([7; 32]);
        let mut config = config::parse("", &context.home.config_file(), &config::surroundings(&context.home)).unwrap();
        config.name = secret();
        config.network.listen = "192.0.2.77:7777".parse().unwrap();
        config.network.announce_to = vec!["192.0.2.77:7777".into()];
        config.peers = vec![Peer { id: device, name: secret(), addresses: vec!["192.0.2.77:7777".into()], caps: None }];
        let (id, path) = (SECRET.parse().unwrap(), dir.path().to_owned());
        let peers = Sharing::Only(vec![device]);
        config.folders = vec![Folder { label: secret(), ..Folder::new(id, path, peers) }];
        let patient = Patient { context: &context, config, status: status(&device), silence: Some(secret()) };
        let checks = [Check::new("Disk of", "file_system", Outcome::Fail, secret())
            .about(secret())
            .remedy(secret())
            .item(0)
            .fact("free_bytes", Fact::Number(5))];
        let report = report(&patient, &checks, &[secret(), "received".into()]).to_string();
        let host = config::host_name();
        let short = device.short();
        for private in
            [SECRET, "192.0.2.77", "7777", &device.to_string(), &short, "/home", dir.path().to_str().unwrap()]
        {
            assert!(!report.contains(private), "{private} in {report}");
        }
        assert!(!report.contains(&format!("\"{host}\"")));
        assert!(
            report.contains("\"free_bytes\":5") && report.contains("\"no_space\":1") && report.contains("\"other\":1")
        );
    }
}
