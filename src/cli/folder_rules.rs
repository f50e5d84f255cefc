//! `p2psync folder direction`, `override`, `revert` and `select`.

use std::io::{self, IsTerminal};

use clap::Args;

use super::arguments::OneFolder;
use super::arguments_rules::DirectionWord;
use super::context::{Context, find_folder};
use super::exit::misuse;
use super::folder::{explain, print_change, print_order};
use super::output::{self, clean};
use super::undo::ask_whether;
use crate::api::{FolderStatus, Reply, Request};
use crate::config::{self, Folder};
use crate::core::direction::Direction;
use crate::core::selection::Selection;

/// What needs the agent, in words.
const OVERRIDING: &str = "changing what other devices have or what is here";

/// Says which way changes go in a folder, or shows it.
pub fn direction(context: &Context, folder: &str, word: Option<DirectionWord>, as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, Some(folder))?;
    let wanted = word.map(|word| match word {
        DirectionWord::Both => Direction::Both,
        DirectionWord::Send => Direction::Send,
        DirectionWord::Receive => Direction::Receive,
    });
    let changed = match wanted {
        Some(direction) => config::set_direction(&context.home, &found.id, direction)?,
        None => config.clone(),
    };
    if wanted.is_some() {
        context.reload();
    }
    if as_json {
        return print_change("direction", changed.folder(&found.id));
    }
    output::print(&direction_text(found, config.word_of(found), wanted.unwrap_or(found.direction)))
}

fn direction_text(folder: &Folder, word: &str, direction: Direction) -> String {
    let label = clean(&folder.label);
    match direction {
        Direction::Both => format!("{label}: changes go both ways.\n"),
        Direction::Send => format!(
            "{label} only sends: nothing that other devices change is taken here. \
             'p2psync folder override {word}' has what is here take the place of such changes there.\n"
        ),
        Direction::Receive => format!(
            "{label} only receives: what is changed here stays here. 'p2psync status' counts such changes, \
             'p2psync folder revert {word}' moves them into history.\n"
        ),
    }
}

/// A folder whose direction is to be forced on what differs from it, and whether to ask before.
#[derive(Args, Debug)]
pub struct Forcing {
    #[command(flatten)]
    pub folder: OneFolder,
    /// Do it without asking
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// What a person is told before.
struct Question {
    /// How many changes it is about.
    count: fn(&FolderStatus) -> u64,
    /// Said where there are none.
    nothing: String,
    /// Said where there are some.
    consequence: String,
}

/// Has what is here take the place of what other devices have, after asking.
pub fn override_peers(context: &Context, forcing: &Forcing) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, forcing.folder.name.as_deref())?;
    let label = clean(&found.label);
    if found.direction != Direction::Send {
        return Err(misuse(format!("{label} does not only send, so changes of other devices are taken anyway")));
    }
    let question = Question {
        count: |folder| folder.kept_out,
        nothing: format!("Other devices have changed nothing in {label} that is not taken here: nothing to do."),
        consequence: format!(
            "On every device that shares {label}, what is here takes the place of what was changed there; \
             the history there keeps that."
        ),
    };
    let request = Request::Override { folder: found.id.to_string() };
    force(context, found, forcing, &question, "override", &request)
}

/// Takes back what was changed here, after asking.
pub fn revert(context: &Context, forcing: &Forcing) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, forcing.folder.name.as_deref())?;
    let label = clean(&found.label);
    if found.direction != Direction::Receive {
        return Err(misuse(format!(
            "{label} does not only receive, so what is changed here goes to other devices; 'p2psync restore' brings an \
             earlier version back"
        )));
    }
    let question = Question {
        count: |folder| folder.own_changes,
        nothing: format!("Nothing was changed here in {label} that stays on this device: nothing to do."),
        consequence: format!(
            "What was changed here in {label} goes into the history on this device, and what the other devices have \
             takes its place."
        ),
    };
    force(context, found, forcing, &question, "revert", &Request::Revert { folder: found.id.to_string() })
}

/// Says what would happen and, where a person or `--yes` agrees, has it happen.
fn force(
    context: &Context,
    folder: &Folder,
    forcing: &Forcing,
    question: &Question,
    action: &str,
    request: &Request,
) -> anyhow::Result<()> {
    let as_json = forcing.folder.json;
    if !forcing.yes {
        let state = match context.ask(&Request::Status).map_err(|e| explain(e.into(), OVERRIDING))? {
            Reply::Status(status) => status.folders.into_iter().find(|f| f.id == folder.id.as_str()),
            _ => None,
        };
        if state.as_ref().is_some_and(|folder| (question.count)(folder) == 0) {
            let text = &question.nothing;
            return if as_json { print_order(action, &[], text) } else { output::print(&format!("{text}\n")) };
        }
        let state = state.map(|state| format!("{}: {}.\n", clean(&folder.label), clean(&state.state_text)));
        let told = format!("{}{}\n", state.unwrap_or_default(), question.consequence);
        if as_json || !io::stdin().is_terminal() {
            return Err(misuse(format!("{told}say --yes to do this")));
        }
        ask_whether(&told)?;
    }
    order(context, folder, as_json, action, request)
}

fn order(context: &Context, folder: &Folder, as_json: bool, action: &str, request: &Request) -> anyhow::Result<()> {
    let text = context.order(request).map_err(|e| explain(e, OVERRIDING))?;
    if as_json {
        return print_order(action, std::slice::from_ref(folder), &text);
    }
    output::print(&format!("{}: {}\n", clean(&folder.label), clean(&text)))
}

/// Says which part of a folder is wanted here, or shows it.
pub fn select(
    context: &Context,
    folder: Option<&str>,
    only: &[String],
    all: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, folder)?;
    let label = clean(&found.label);
    let is_asked = only.is_empty() && !all;
    let selection = match (is_asked, all) {
        (true, _) => found.only.clone(),
        (_, true) => None,
        _ => Some(Selection::parse(only).map_err(|e| misuse(format!("this selects nothing: {e}")))?),
    };
    let mut changed = config.clone();
    if !is_asked {
        changed = config::set_only(&context.home, &found.id, selection.as_ref().map(Selection::patterns))?;
        context.reload();
    }
    if as_json {
        return print_change("select", changed.folder(&found.id));
    }
    let patterns = selection.map(|only| clean(&only.patterns().join(", ")));
    output::print(&match (is_asked, patterns) {
        (true, None) => format!("All of {label} is wanted here.\n"),
        (true, Some(only)) => format!("Of {label} only this is wanted here: {only}\n"),
        (false, None) => format!("{label}: all of it is fetched.\n"),
        (false, Some(only)) => format!(
            "{label}: only {only} is fetched and kept up to date here. What else is here already stays on the disk as it \
             is, and nothing is deleted elsewhere.\n"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NewFolder, Sharing};
    use crate::home::Home;

    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Home::at(&root.join("home"), root.clone());
        let new =
            NewFolder { id: "d".parse().unwrap(), label: "Docs".into(), path: root.join("d"), peers: Sharing::All };
        config::add_folder(&home, &new).unwrap();
        (dir, Context { home, now_ms: 0 })
    }

    #[test]
    fn directions_and_selections_end_in_the_config() {
        let (_dir, context) = context();
        direction(&context, "Docs", Some(DirectionWord::Receive), false).unwrap();
        select(&context, None, &["Photos/2026/".to_owned()], false, false).unwrap();
        let folder = context.config().unwrap().folders.remove(0);
        assert_eq!(folder.direction, Direction::Receive);
        assert_eq!(folder.only.unwrap().patterns(), ["Photos/2026"]);
        select(&context, None, &[], true, false).unwrap();
        assert_eq!(context.config().unwrap().folders.remove(0).only, None);
    }

    #[test]
    fn what_makes_no_sense_in_a_direction_is_refused_with_a_reason() {
        let (_dir, context) = context();
        let one = Forcing { folder: OneFolder { name: None, json: false }, yes: false };
        assert!(override_peers(&context, &one).unwrap_err().to_string().contains("does not only send"));
        assert!(revert(&context, &one).unwrap_err().to_string().contains("does not only receive"));
        assert!(
            select(&context, None, &["../x".to_owned()], false, true)
                .unwrap_err()
                .to_string()
                .contains("selects nothing")
        );
    }
}
