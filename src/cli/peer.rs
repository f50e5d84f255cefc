//! `p2psync peer`.

use anyhow::{anyhow, bail};
use serde_json::json;

use super::arguments::PeerCommand;
use super::context::{Context, find_peer};
use super::output::{self, Table, clean};
use crate::api::{Reply, Request};
use crate::config::{self, Config, NewPeer};
use crate::core::id::DeviceId;

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
    let id: DeviceId = id.parse().map_err(|e| anyhow!("{e}; copy the id from 'p2psync id' on the other device"))?;
    let own = context.device_id()?;
    if id == own {
        bail!("this is the id of this very device; add the id that 'p2psync id' prints on the other one");
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
    config::remove_peer(&context.home, &peer.id)?;
    context.reload();
    if as_json {
        return print_change("removed", Some(peer));
    }
    output::print(&format!(
        "Removed {}. Nothing is shared with it any more; files stay where they are.\n",
        clean(&peer.name)
    ))
}

fn list(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let config = config_or_empty(context)?;
    let live = match context.ask(&Request::Status) {
        Ok(Reply::Status(status)) => status.peers,
        _ => Vec::new(),
    };
    let find = |id: &DeviceId| live.iter().find(|p| p.device_id == id.to_string());
    if as_json {
        let item = |peer: &config::Peer| {
            let found = find(&peer.id);
            json!({ "device_id": peer.id.to_string(), "name": peer.name, "addresses": peer.addresses,
                    "connected": found.is_some_and(|p| p.connected), "address": found.and_then(|p| p.address.clone()) })
        };
        return output::print_json(&config.peers.iter().map(item).collect::<Vec<_>>());
    }
    if config.peers.is_empty() {
        return output::print("There are no peers yet. Pair with another device: p2psync pair\n");
    }
    let mut table = Table::new(&["NAME", "ID", "STATE", "ADDRESSES"]);
    for peer in &config.peers {
        let state = find(&peer.id).map(|p| output::peer_state(p, context.now_ms)).unwrap_or_else(|| "-".to_owned());
        table.row([peer.name.clone(), peer.id.short(), state, peer.addresses.join(" ")]);
    }
    output::print(&table.to_string())
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
