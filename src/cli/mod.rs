//! What a person touches: commands and what they print. One file per command.

mod accept;
mod again;
mod arguments;
mod arguments_past;
mod arguments_rules;
mod completions;
mod config;
mod conflicts;
mod context;
mod countdown;
mod doctor;
mod examples;
pub mod exit;
mod flow;
mod folder;
mod folder_rules;
mod history;
mod history_space;
mod id;
mod ignore;
mod live_line;
mod log;
mod log_file;
mod manual;
mod offers;
pub mod output;
mod pair;
mod pause;
mod peer;
mod qr;
mod resolve;
mod run;
mod service;
mod status;
mod style;
mod undo;
mod wait;
mod watch;

use anyhow::Context as _;

use tracing_subscriber::EnvFilter;

pub use arguments::Arguments;
use arguments::Command;
use arguments_past::ConflictCommand;
pub use completions::answer as complete;
use context::Context;
use log_file::LogFile;
pub use manual::parse;

/// Carries out a command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let context = Context::new(arguments.home.as_deref())?;
    match arguments.command {
        None => status::short(&context),
        Some(Command::Id { json }) => id::run(&context, json),
        Some(Command::Run { .. }) => run::run(&context),
        Some(Command::Peer(command)) => peer::run(&context, command),
        Some(Command::Folder(command)) => folder::run(&context, command),
        Some(Command::Pair(arguments)) => pair::run(&context, &arguments),
        Some(Command::Status { path, json, watch, problems, exit_code }) => {
            status::run(&context, &status::Wanted { path, json, watch, problems, exit_code })
        }
        Some(Command::Pause { words, json }) => pause::pause(&context, &words, json),
        Some(Command::Resume { folder, json }) => pause::resume(&context, folder.as_deref(), json),
        Some(Command::Ignore(command)) => ignore::run(&context, command),
        Some(Command::Log { count, json }) => log::run(&context, count, json),
        Some(Command::Conflicts { command: None, json }) => conflicts::list(&context, json),
        Some(Command::Conflicts { command: Some(ConflictCommand::Resolve(how)), .. }) => resolve::run(&context, &how),
        Some(Command::History(past)) => history::run(&context, past),
        Some(Command::Restore { path, at, going }) => history::restore(&context, &path, at.as_deref(), &going),
        Some(Command::Undo { folder, revert, going }) => undo::undo(&context, folder.as_deref(), revert, &going),
        Some(Command::Wait(waiting)) => wait::run(&context, &waiting),
        Some(Command::Config(command)) => config::run(&context, &command),
        Some(Command::Service(command)) => service::run(&context, &command),
        Some(Command::Doctor { json, bundle }) => doctor::run(&context, json, bundle.as_deref()),
        Some(Command::Completions { shell }) => completions::run(shell),
        Some(Command::Man { dir }) => manual::write_pages(&dir),
    }
}

/// Sends the log to stderr, or to the file that the agent was given. Only the agent talks about what goes well.
pub fn start_logging(arguments: &Arguments) -> anyhow::Result<()> {
    let usual = if matches!(arguments.command, Some(Command::Run { .. })) { "info" } else { "warn" };
    let filter = match arguments.log_level {
        Some(level) => EnvFilter::new(format!("p2psync={level}")),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("p2psync={usual}"))),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    match &arguments.command {
        Some(Command::Run { log_file: Some(path) }) => {
            let file = LogFile::open(path).with_context(|| format!("cannot log to {}", path.display()))?;
            subscriber.with_writer(file).with_ansi(false).init();
        }
        _ => {
            let has_colours = output::has_colours(&std::io::stderr());
            subscriber.with_writer(|| live_line::LogWriter).with_ansi(has_colours).init();
        }
    }
    Ok(())
}
