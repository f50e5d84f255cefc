//! What a person touches: commands and what they print. One file per command.

mod arguments;
mod config;
mod conflicts;
mod context;
mod folder;
mod history;
mod id;
mod live_line;
mod log;
pub mod output;
mod pair;
mod peer;
mod run;
mod status;
mod style;
mod watch;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use arguments::Arguments;
use arguments::Command;
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
        Some(Command::Status { path, json, watch, problems }) => {
            status::run(&context, &status::Wanted { path, json, watch, problems })
        }
        Some(Command::Log { count, json }) => log::run(&context, count, json),
        Some(Command::Conflicts { json }) => conflicts::run(&context, json),
        Some(Command::History { path, json }) => history::list(&context, &path, json),
        Some(Command::Restore { path, at }) => history::restore(&context, &path, at.as_deref()),
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
        .with_writer(|| live_line::LogWriter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
