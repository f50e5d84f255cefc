//! `p2psync folder`.

use std::path::Path;

use anyhow::Context as _;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::accept;
use super::arguments::{FolderCommand, OneFolder, Peers};
use super::context::{Context, absolute, find_folder, find_peer};
use super::exit::misuse;
use super::folder_rules;
use super::output::{self, Table, clean};
use super::peer::config_or_empty;
use crate::api::client::ClientError;
use crate::api::{Reply, Request};
use crate::config::{self, Config, NewFolder, Pause, Sharing};
use crate::core::direction::Direction;
use crate::core::id::{FolderId, base32};
use crate::core::selection::Selection;

/// Bytes of a random folder id: 16 characters of base32.
const RANDOM_ID_BYTES: usize = 10;

/// Carries out a `folder` command.
pub fn run(context: &Context, command: FolderCommand) -> anyhow::Result<()> {
    match command {
        FolderCommand::Add { path, id, label, peers, json } => add(context, &path, id.as_deref(), label, &peers, json),
        FolderCommand::List { json } => list(context, json),
        FolderCommand::Remove(folder) => remove(context, &folder),
        FolderCommand::Share { folder, peers } => share(context, &folder, &peers),
        FolderCommand::Direction { folder, direction, json } => {
            folder_rules::direction(context, &folder, direction, json)
        }
        FolderCommand::Override(forcing) => folder_rules::override_peers(context, &forcing),
        FolderCommand::Revert(forcing) => folder_rules::revert(context, &forcing),
        FolderCommand::Select { folder, only, all, json } => {
            folder_rules::select(context, folder.as_deref(), &only, all, json)
        }
        FolderCommand::Pause(folder) => set_paused(context, &folder, true),
        FolderCommand::Resume(folder) => set_paused(context, &folder, false),
        FolderCommand::Accept(arguments) => accept::run(context, &arguments),
        FolderCommand::Rescan(folder) => rescan(context, &folder),
        FolderCommand::ConfirmChanges(folder) => {
            decide(context, &folder, "confirm-changes", |folder| Request::Confirm { folder })
        }
        FolderCommand::RejectChanges(folder) => {
            decide(context, &folder, "reject-changes", |folder| Request::Reject { folder })
        }
    }
}

fn add(
    context: &Context,
    given: &Path,
    id: Option<&str>,
    label: Option<String>,
    peers: &Peers,
    as_json: bool,
) -> anyhow::Result<()> {
    let id: FolderId = match id {
        Some(text) => {
            text.parse().map_err(|e| misuse(format!("'{}' can't be the id of a folder: {e}", clean(text))))?
        }
        None => random_id()?,
    };
    context.home.create()?;
    config::create(&context.home, None)?;
    let config = context.config()?;
    let path = absolute(given)?;
    let sharing = sharing(&config, peers)?.unwrap_or(Sharing::All);
    let label =
        label.unwrap_or_else(|| path.file_name().map_or_else(|| id.to_string(), |n| clean(&n.to_string_lossy())));
    if path.exists() && !path.is_dir() {
        return Err(misuse(format!("{} is not a directory", clean(&given.to_string_lossy()))));
    }
    let is_made = !path.exists();
    if config.folder(&id).is_none() {
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make the directory {}", path.display()))?;
    }
    check_writable(&path)?;
    let new = NewFolder { id: id.clone(), label, path, peers: sharing };
    let config = config::add_folder(&context.home, &new)?;
    context.reload();
    let place = output::short_path(&new.path, context.home.user_dir());
    if as_json {
        return print_change("added", config.folder(&id));
    }
    let with = sharing_text(&config, &new.peers);
    let made = if is_made { format!("{place} was not there and has been made.\n") } else { String::new() };
    output::print(&format!(
        "{made}Added the folder {} at {place}, shared with {with}.\nOn each other device: p2psync folder accept\nor, where the devices never are on at once: p2psync folder add PATH --id {id}\n",
        clean(&new.label)
    ))
}

/// Without the right to write there nothing could be received, and no history be kept. What is not there yet is told by
/// whoever makes it.
pub(super) fn check_writable(directory: &Path) -> anyhow::Result<()> {
    use rustix::fs::Access;
    match rustix::fs::access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS) => Err(misuse(format!(
            "you may not write into {}, where files of other devices and the history would go; get the right to, or \
             choose another directory",
            clean(&directory.to_string_lossy())
        ))),
        _ => Ok(()),
    }
}

fn random_id() -> anyhow::Result<FolderId> {
    let mut bytes = [0; RANDOM_ID_BYTES];
    SystemRandom::new().fill(&mut bytes).ok().context("the system has no random numbers")?;
    Ok(String::from_utf8(base32(&bytes))?.to_lowercase().parse()?)
}

/// The peers named on the command line, `None` where none were.
fn sharing(config: &Config, peers: &Peers) -> anyhow::Result<Option<Sharing>> {
    if peers.peers.is_empty() {
        return Ok(None);
    }
    if peers.peers.iter().any(|p| p.eq_ignore_ascii_case("all")) {
        return Ok(Some(Sharing::All));
    }
    let ids = peers.peers.iter().map(|word| find_peer(config, word).map(|p| p.id));
    Ok(Some(Sharing::Only(ids.collect::<anyhow::Result<_>>()?)))
}

fn list(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let config = config_or_empty(context)?;
    if as_json {
        return output::print_json(&config.folders.iter().map(item).collect::<Vec<_>>());
    }
    if config.folders.is_empty() {
        return output::print("There are no folders yet. Add one: p2psync folder add PATH\n");
    }
    let mut table = Table::new(&["LABEL", "ID", "PATH", "SHARED WITH", ""]).with_names(&["LABEL", "PATH"]);
    for folder in &config.folders {
        let place = output::short_path(&folder.path, context.home.user_dir());
        let notes = notes(folder, context.now_ms);
        let with = sharing_text(&config, &folder.peers);
        table.row([folder.label.clone(), folder.id.to_string(), place, with, notes]);
    }
    output::print(&table.to_string())
}

/// What is unusual about a folder, in words.
fn notes(folder: &config::Folder, now_ms: i64) -> String {
    let mut notes = Vec::new();
    match folder.paused_until_ms {
        _ if !folder.is_paused(now_ms) => {}
        Some(until) if !folder.paused => notes.push(format!("paused until {}", output::local_time(until))),
        _ => notes.push("paused".to_owned()),
    }
    match folder.direction {
        Direction::Both => {}
        Direction::Send => notes.push("only sends".to_owned()),
        Direction::Receive => notes.push("only receives".to_owned()),
    }
    notes.extend(folder.only.as_ref().map(|only| format!("only {}", clean(&only.patterns().join(", ")))));
    notes.join("; ")
}

/// A folder as `--json` shows it.
fn item(folder: &config::Folder) -> Value {
    let peers = match &folder.peers {
        Sharing::All => json!("all"),
        Sharing::Only(ids) => json!(ids.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    json!({ "id": folder.id.as_str(), "label": folder.label, "path": folder.path.to_string_lossy(),
            "peers": peers, "paused": folder.is_paused(jiff::Timestamp::now().as_millisecond()),
            "paused_until_ms": folder.paused_until_ms, "direction": folder.direction.name(),
            "only": folder.only.as_ref().map(Selection::patterns) })
}

/// Tells programs what was done to a folder.
pub(super) fn print_change(action: &str, folder: Option<&config::Folder>) -> anyhow::Result<()> {
    output::print_json(&change(action, folder))
}

/// What was done to a folder, as `--json` shows it.
pub(super) fn change(action: &str, folder: Option<&config::Folder>) -> Value {
    let mut change = folder.map(item).unwrap_or_else(|| json!({}));
    change["action"] = json!(action);
    change
}

fn sharing_text(config: &Config, peers: &Sharing) -> String {
    match peers {
        Sharing::All => "all peers".to_owned(),
        Sharing::Only(ids) if ids.is_empty() => "nobody".to_owned(),
        Sharing::Only(ids) => {
            let name = |id| config.peer(id).map(|p| clean(&p.name));
            ids.iter().filter_map(name).collect::<Vec<_>>().join(", ")
        }
    }
}

fn remove(context: &Context, folder: &OneFolder) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, folder.name.as_deref())?;
    config::remove_folder(&context.home, &found.id)?;
    context.reload();
    if folder.json {
        return print_change("removed", Some(found));
    }
    let place = output::short_path(&found.path, context.home.user_dir());
    output::print(&format!("{} is no longer shared from here. Its files stay in {place}.\n", clean(&found.label)))
}

fn share(context: &Context, folder: &OneFolder, peers: &Peers) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, folder.name.as_deref())?;
    let Some(sharing) = sharing(&config, peers)? else {
        return Err(misuse("say with whom: --peer NAME (several times if need be), or --peer all"));
    };
    let changed = config::set_folder_peers(&context.home, &found.id, &sharing)?;
    context.reload();
    if folder.json {
        return print_change("shared", changed.folder(&found.id));
    }
    output::print(&format!("{} is shared with {}.\n", clean(&found.label), sharing_text(&config, &sharing)))
}

fn set_paused(context: &Context, folder: &OneFolder, paused: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let found = find_folder(&config, folder.name.as_deref())?;
    let pause = if paused { Pause::Open } else { Pause::No };
    let changed = config::set_pause(&context.home, std::slice::from_ref(&found.id), pause)?;
    context.reload();
    if folder.json {
        return print_change(if paused { "paused" } else { "resumed" }, changed.folder(&found.id));
    }
    let label = clean(&found.label);
    output::print(&match paused {
        true => format!("{label} is paused. Go on with: p2psync resume {}\n", config.word_of(found)),
        false => format!("{label} goes on.\n"),
    })
}

fn rescan(context: &Context, folder: &OneFolder) -> anyhow::Result<()> {
    let config = context.config()?;
    let chosen = folder.name.as_deref().map(|word| find_folder(&config, Some(word))).transpose()?;
    let request = Request::Rescan { folder: chosen.map(|f| f.id.to_string()) };
    let text = context.order(&request).map_err(|e| explain(e, "scanning"))?;
    let folders = chosen.map_or(&config.folders[..], std::slice::from_ref);
    if folder.json {
        return print_order("rescan", folders, &text);
    }
    let labels = folders.iter().map(|f| clean(&f.label)).collect::<Vec<_>>().join(", ");
    output::print(&format!("Scanning {labels}. 'p2psync status' shows how it goes.\n"))
}

/// Says what is to become of deletions that were held back.
fn decide(context: &Context, folder: &OneFolder, action: &str, request: fn(String) -> Request) -> anyhow::Result<()> {
    let doing = "deciding about held deletions";
    let config = context.config()?;
    let found = find_folder(&config, folder.name.as_deref())?;
    let label = clean(&found.label);
    if let Reply::Status(status) = context.ask(&Request::Status).map_err(|e| explain(e.into(), doing))?
        && status.folders.iter().any(|f| f.id == found.id.as_str() && f.held.is_none())
    {
        let text = format!("No deletions are held back in {label}, so there is nothing to decide.\n");
        return if folder.json { print_order(action, &[], text.trim()) } else { output::print(&text) };
    }
    let text = context.order(&request(found.id.to_string())).map_err(|e| explain(e, doing))?;
    if folder.json {
        return print_order(action, std::slice::from_ref(found), &text);
    }
    output::print(&format!("{label}: {}\n", clean(&text)))
}

/// Tells programs what the agent was asked to do, and with which folders.
pub(super) fn print_order(action: &str, folders: &[config::Folder], text: &str) -> anyhow::Result<()> {
    let ids: Vec<&str> = folders.iter().map(|f| f.id.as_str()).collect();
    output::print_json(&json!({ "action": action, "folders": ids, "text": text }))
}

/// Says why an agent is needed where none runs.
pub(super) fn explain(error: anyhow::Error, doing: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(ClientError::NotRunning) => error.context(format!("{doing} needs the agent")),
        _ => error,
    }
}
