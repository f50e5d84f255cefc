//! `p2psync peer`.

use serde_json::json;

use super::arguments::PeerCommand;
use super::context::{Context, find_peer};
use super::exit::misuse;
use super::output::{self, Table, clean};
use crate::api::{PeerStatus, Reply, Request};
use crate::config::{self, Config, NewPeer};
use crate::core::id::DeviceId;
use crate::engine;

/// Difference of two clocks from which on it is told, in ms: which of two edits is the later one depends on the clocks.
const CLOCK_TOLD_MS: u64 = 60_000;

/// Carries out a `peer` command.
pub fn run(context: &Context, command: PeerCommand) -> anyhow::Result<()> {
    match command {
        PeerCommand::Add { id, name, addresses, json } => add(context, &id, name, addresses, json),
        PeerCommand::List { json } => list(context, json),
        PeerCommand::Remove { peer, json } => remove(context, &peer, json),
        PeerCommand::Rename { peer, name, json } => {
            let config = context.config()?;
            let known = find_peer(&config, &peer)?;
            let changed = config::rename_peer(&context.home, &known.id, &name)?;
            context.reload();
            if json {
                return print_change("renamed", changed.peer(&known.id));
            }
            output::print(&format!("{} is now called {}.\n", clean(&known.name), clean(name.trim())))
        }
    }
}

fn add(context: &Context, id: &str, name: Option<String>, addresses: Vec<String>, as_json: bool) -> anyhow::Result<()> {
    let id: DeviceId =
        id.parse().map_err(|e| misuse(format!("{e}; copy the id from 'p2psync id' on the other device")))?;
    let own = context.device_id()?;
    if id == own {
        return Err(misuse("this is the id of this very device; add the id that 'p2psync id' prints on the other one"));
    }
    context.set_up()?;
    let config = config::add_peer(&context.home, &NewPeer { id, name, addresses })?;
    context.reload();
    if as_json {
        return print_change("added", config.peer(&id));
    }
    let name = config.peer(&id).map_or_else(|| id.short(), |p| clean(&p.name));
    output::print(&format!(
        "Added {name} ({}).\nIf that has not been done yet, type on {name}: p2psync peer add {own} --name '{}'\n",
        id.short(),
        clean(&config.name)
    ))
}

/// Tells programs what was done to a peer.
fn print_change(action: &str, peer: Option<&config::Peer>) -> anyhow::Result<()> {
    output::print_json(&json!({
        "action": action, "device_id": peer.map(|p| p.id.to_string()), "name": peer.map(|p| &p.name),
        "addresses": peer.map(|p| &p.addresses),
    }))
}

fn remove(context: &Context, word: &str, as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let peer = find_peer(&config, word)?;
    // By its id this device is known there whatever it is called there.
    let own = context.device_id()?.short();
    config::remove_peer(&context.home, &peer.id)?;
    context.reload();
    if as_json {
        return print_change("removed", Some(peer));
    }
    output::print(&format!(
        "Removed {name}: it is no longer connected, and nothing is shared with it any more. Files stay where they are.\n\
         It cannot come back unless you pair with it again. To forget this device there too, type on {name}: \
         p2psync peer remove {own}\n",
        name = clean(&peer.name)
    ))
}

fn list(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let config = config_or_empty(context)?;
    let known = if config.peers.is_empty() { Vec::new() } else { known(context)? };
    let find = |id: &DeviceId| known.iter().find(|p| p.device_id == id.to_string()).cloned().unwrap_or_default();
    if as_json {
        let item = |peer: &config::Peer| {
            let found = find(&peer.id);
            json!({ "device_id": peer.id.to_string(), "name": peer.name, "addresses": peer.addresses,
                    "connected": found.connected, "address": found.address, "last_seen_ms": found.last_seen_ms,
                    "version": found.version, "clock_ahead_ms": found.clock_ahead_ms, "trouble": found.trouble,
                    "unpaired": found.unpaired })
        };
        return output::print_json(&config.peers.iter().map(item).collect::<Vec<_>>());
    }
    if config.peers.is_empty() {
        return output::print("There are no peers yet. Pair with another device: p2psync pair\n");
    }
    let mut table = Table::new(&["NAME", "ID", "STATE", "ADDRESS", "VERSION", "CLOCK"]).with_names(&["NAME"]);
    let mut notes = String::new();
    for peer in &config.peers {
        let found = find(&peer.id);
        let address = found.address.clone().unwrap_or_else(|| peer.addresses.join(" "));
        let clock = clock_text(&found).unwrap_or_default();
        let (state, version) = (output::peer_state(&found, context.now_ms), found.version.clone().unwrap_or_default());
        table.row([peer.name.clone(), peer.id.short(), state, address, version, clock]);
        if let Some(trouble) = &found.trouble {
            let trouble = clean(&output::without_numbers(trouble));
            notes.push_str(&format!("{}: {trouble}\n", clean(&peer.name)));
        }
        if let Some(warning) = clock_warning(&found) {
            notes.push_str(&format!("{}: {warning}\n", clean(&peer.name)));
        }
    }
    output::print(&format!("{table}{notes}"))
}

/// What the agent knows of the peers, or the index where none runs.
fn known(context: &Context) -> anyhow::Result<Vec<PeerStatus>> {
    let status = context.ask_or_read(
        &Request::Status,
        |reply| match reply {
            Reply::Status(status) => Some(status),
            _ => None,
        },
        |config| engine::report::status(&context.home, config, None),
    )?;
    Ok(status.peers)
}

/// "5 minutes ahead", where a clock is wrong enough to matter.
pub fn clock_text(peer: &PeerStatus) -> Option<String> {
    let ahead_ms = peer.clock_ahead_ms?;
    let direction = if ahead_ms > 0 { "ahead" } else { "behind" };
    (ahead_ms.unsigned_abs() >= CLOCK_TOLD_MS).then(|| format!("{} {direction}", duration(ahead_ms.unsigned_abs())))
}

/// What a clock that is set otherwise than this device's may lead to.
pub fn clock_warning(peer: &PeerStatus) -> Option<String> {
    let text = clock_text(peer)?;
    let then = "where both devices change a file, the wrong version may get the name (the other is kept as a copy)";
    Some(format!("its clock is {text} of this device's; {then}. Set both clocks by the network"))
}

fn duration(ms: u64) -> String {
    match ms / 60_000 {
        minutes @ ..120 => output::count(minutes, "minute", "minutes"),
        minutes @ 120..2880 => output::count(minutes / 60, "hour", "hours"),
        minutes => output::count(minutes / 1440, "day", "days"),
    }
}

/// The config; where there is none, one without peers and folders.
pub fn config_or_empty(context: &Context) -> anyhow::Result<Config> {
    match context.config() {
        Err(config::ConfigError::Missing { .. }) => {
            let text = config::default_text(&config::host_name(), None)?;
            Ok(config::parse(&text, &context.home.config_file(), &config::surroundings(&context.home))?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_of_where_it_is_a_minute_off() {
        let warning = |ahead_ms| clock_warning(&PeerStatus { clock_ahead_ms: ahead_ms, ..PeerStatus::default() });
        assert_eq!([warning(None), warning(Some(59_999)), warning(Some(-2_000))], [None, None, None]);
        assert!(warning(Some(60_000)).unwrap().contains("1 minute ahead of this device's"));
        assert!(warning(Some(-3 * 3_600_000)).unwrap().contains("3 hours behind"));
        assert!(warning(Some(i64::MIN)).unwrap().contains("days behind"));
    }
}
