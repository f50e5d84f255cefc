//! `p2psync config`.

use super::arguments::ConfigCommand;
use super::context::Context;
use super::output;

/// Carries out a `config` command.
pub fn run(context: &Context, command: &ConfigCommand) -> anyhow::Result<()> {
    let path = context.home.config_file();
    match command {
        ConfigCommand::Path => output::print(&format!("{}\n", path.display())),
        ConfigCommand::Check if !path.exists() => {
            output::print(&format!("There is no config file {} yet; 'p2psync run' makes one.\n", path.display()))
        }
        ConfigCommand::Check => {
            let config = context.config()?;
            let folders = output::count(config.folders.len() as u64, "folder", "folders");
            let peers = output::count(config.peers.len() as u64, "peer", "peers");
            output::print(&format!("{} is in order: {folders}, {peers}.\n", path.display()))
        }
    }
}
