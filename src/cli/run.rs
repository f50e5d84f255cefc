//! `p2psync run`.

use std::fmt::Write;

use super::context::Context;
use super::output;
use crate::config::Config;
use crate::core::id::DeviceId;
use crate::engine;
use crate::home::Lock;

/// Runs the agent, and makes all that it needs at a first start.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let home = &context.home;
    let lock = Lock::acquire(home)?;
    context.set_up()?;
    let config = context.config()?;
    let id = engine::agent::device_id(home)?;
    output::print(&introduction(&config, &id, context))?;
    engine::agent::run(home.clone(), lock)
}

/// The first lines: who this is, what is synced, and what to type next.
fn introduction(config: &Config, id: &DeviceId, context: &Context) -> String {
    let mut text = format!("p2psync on {} ({})\n", output::clean(&config.name), id.short());
    let _ = writeln!(text, "Device id: {id}");
    for folder in &config.folders {
        let place = output::short_path(&folder.path, context.home.user_dir());
        let paused = if folder.is_paused(context.now_ms) { " (paused)" } else { "" };
        let _ = writeln!(text, "Folder: {}, {place}{paused}", output::clean(&folder.label));
    }
    if config.folders.is_empty() {
        text.push_str("There is no folder yet. Add one: p2psync folder add PATH\n");
    }
    if config.peers.is_empty() {
        text.push_str("Next: type 'p2psync pair' in another terminal, and the code it shows on your other device.\n");
    } else {
        let names: Vec<String> = config.peers.iter().map(|p| output::clean(&p.name)).collect();
        let _ = writeln!(text, "Peers: {}. 'p2psync status' shows how things are.", names.join(", "));
    }
    text
}
