//! `p2psync status`, and what `p2psync` alone says.

mod full;
mod path;
mod problems;
#[cfg(test)]
pub mod samples;
mod short;
pub mod words;

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::Exit;
use super::output;
use super::style::Style;
use crate::api::{FolderState, FolderStatus, PathStatus, Reply, Request, Status, WirePath};
use crate::config::ConfigError;
use crate::engine;

/// What is to be shown.
pub struct Wanted {
    pub path: Option<PathBuf>,
    pub json: bool,
    /// A view that goes on.
    pub watch: bool,
    /// All that is not in sync.
    pub problems: bool,
    /// The exit code is to tell whether all is in sync.
    pub exit_code: bool,
}

/// Shows everything, all about one path, or all that is not in sync.
///
/// With `exit_code`, [`Exit::NotInSync`] is the error where something is not in sync, [`Exit::NotRunning`] where no
/// agent runs.
pub fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<()> {
    if wanted.watch {
        return super::watch::run(context);
    }
    let exit = match &wanted.path {
        path if wanted.problems => problems::run(context, path.as_deref(), wanted.json)?,
        Some(path) => one_path(context, path, wanted.json)?,
        None if !wanted.json && is_new(context) => {
            output::print(NOT_SET_UP)?;
            Exit::NotRunning
        }
        None => {
            let status = status(context)?;
            if wanted.json {
                output::print_json(&status)?;
            } else {
                let text = full::text(&status, &context.home, context.now_ms, Style::of_stdout());
                output::print(&with_config_fault(text, context))?;
            }
            exit_of(&status)
        }
    };
    if wanted.exit_code && exit != Exit::Fine { Err(exit.into()) } else { Ok(()) }
}

/// What `--exit-code` tells of everything. A paused folder is as its user wants it.
fn exit_of(status: &Status) -> Exit {
    let is_in_sync = |f: &FolderStatus| matches!(f.state, FolderState::InSync | FolderState::Paused);
    match status.running {
        false => Exit::NotRunning,
        true if status.problems_total == 0 && status.folders.iter().all(is_in_sync) => Exit::Fine,
        true => Exit::NotInSync,
    }
}

/// What `--exit-code` tells of one path. An ignored one is not meant to be in sync.
fn exit_of_path(found: &PathStatus) -> Exit {
    if matches!(found.state.as_str(), "in_sync" | "ignored" | "deleted") { Exit::Fine } else { Exit::NotInSync }
}

/// What is said before the first start.
const NOT_SET_UP: &str = "p2psync is not set up on this device yet.\n\
    Next: 'p2psync run' starts it and makes the folder ~/P2PSync. 'p2psync --help' shows all commands.\n";

fn is_new(context: &Context) -> bool {
    matches!(context.config(), Err(ConfigError::Missing { .. }))
}

/// A few lines and what to do next.
pub fn short(context: &Context) -> anyhow::Result<()> {
    if is_new(context) {
        return output::print(NOT_SET_UP);
    }
    let text = short::text(&status(context)?, &context.home, context.now_ms, Style::of_stdout());
    output::print(&with_config_fault(text, context))
}

/// The text, and that a running agent goes by an older config where the file has a mistake now.
fn with_config_fault(mut text: String, context: &Context) -> String {
    if context.config().is_err() {
        text.push_str(
            "The config file cannot be used as it is, so what changed in it waits: 'p2psync config check' says why\n",
        );
    }
    text
}

fn status(context: &Context) -> anyhow::Result<Status> {
    context.ask_or_read(
        &Request::Status,
        |reply| match reply {
            Reply::Status(status) => Some(status),
            _ => None,
        },
        |config| engine::report::status(&context.home, config, None),
    )
}

fn one_path(context: &Context, given: &Path, json: bool) -> anyhow::Result<Exit> {
    let path = context.path_in_folder(&context.config()?, given)?;
    let found = context.ask_or_read(
        &Request::StatusPath { path: WirePath(path.clone()) },
        |reply| match reply {
            Reply::Path(found) => Some(found),
            _ => None,
        },
        |config| engine::report::path_status(&context.home, config, &path, None),
    )?;
    match json {
        true => output::print_json(&found)?,
        false => {
            let place = output::short_path(Path::new(&found.path), context.home.user_dir());
            output::print(&path::text(&found, &place, context.now_ms, Style::of_stdout()))?;
        }
    }
    Ok(exit_of_path(&found))
}

#[cfg(test)]
mod tests;
