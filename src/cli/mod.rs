//! What a person touches: commands and what they print. One file per command.

mod arguments;
mod config;
mod conflicts;
mod context;
pub mod exit;
mod folder;
mod history;
mod history_space;
mod id;
mod log;
pub mod output;
mod pair;
mod peer;
mod resolve;
mod run;
mod status;
mod undo;
mod wait;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use arguments::Arguments;
use arguments::{Command, ConflictCommand};
use context::Context;

/// Carries out a command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let context = Context::new(arguments.home.as_deref())?;
    match arguments.command {
        None => status::short(&context),
        Some(Command::Id) => id::run(&context),
        Some(Command::Run) => run::run(&context),
        Some(Command::Peer(command)) => peer::run(&context, command),
        Some(Command::Folder(command)) => folder::run(&context, command),
        Some(Command::Pair { code }) => pair::run(&context, code),
        Some(Command::Status { path, json }) => status::run(&context, path.as_deref(), json),
        Some(Command::Log { count, json }) => log::run(&context, count, json),
        Some(Command::Conflicts { command: None, json }) => conflicts::list(&context, json),
        Some(Command::Conflicts { command: Some(ConflictCommand::Resolve(how)), .. }) => resolve::run(&context, &how),
        Some(Command::History(past)) => history::run(&context, past),
        Some(Command::Restore { path, at, going }) => history::restore(&context, &path, at.as_deref(), &going),
        Some(Command::Undo { folder, revert, going }) => undo::undo(&context, folder.name.as_deref(), revert, &going),
        Some(Command::Wait(waiting)) => wait::run(&context, &waiting),
        Some(Command::Config(command)) => config::run(&context, &command),
    }
}

/// Sends the log to stderr. Only the agent talks about what goes well.
pub fn start_logging(arguments: &Arguments) {
    let usual = if matches!(arguments.command, Some(Command::Run)) { "info" } else { "warn" };
    let filter = match arguments.log_level {
        Some(level) => EnvFilter::new(format!("p2psync={level}")),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("p2psync={usual}"))),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
