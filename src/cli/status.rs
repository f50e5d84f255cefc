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
use super::output;
use super::style::Style;
use crate::api::{Reply, Request, Status, WirePath};
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
}

/// Shows everything, all about one path, or all that is not in sync.
pub fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<()> {
    if wanted.watch {
        return super::watch::run(context);
    }
    if wanted.problems {
        return problems::run(context, wanted.path.as_deref(), wanted.json);
    }
    match &wanted.path {
        Some(path) => one_path(context, path, wanted.json),
        None => {
            let status = status(context)?;
            if wanted.json {
                return output::print_json(&status);
            }
            let text = full::text(&status, &context.home, context.now_ms, Style::of_stdout());
            output::print(&with_config_fault(text, context))
        }
    }
}

/// A few lines and what to do next.
pub fn short(context: &Context) -> anyhow::Result<()> {
    if matches!(context.config(), Err(ConfigError::Missing { .. })) {
        return output::print(
            "p2psync is not set up on this device yet.\n\
             Next: 'p2psync run' starts it and makes the folder ~/P2PSync. 'p2psync --help' shows all commands.\n",
        );
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

fn one_path(context: &Context, given: &Path, json: bool) -> anyhow::Result<()> {
    let path = context.path_in_folder(&context.config()?, given)?;
    let found = context.ask_or_read(
        &Request::StatusPath { path: WirePath(path.clone()) },
        |reply| match reply {
            Reply::Path(found) => Some(found),
            _ => None,
        },
        |config| engine::report::path_status(&context.home, config, &path, None),
    )?;
    if json {
        return output::print_json(&found);
    }
    output::print(&path::text(&found, context.now_ms, Style::of_stdout()))
}

#[cfg(test)]
mod tests;
