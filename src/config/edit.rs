//! Changes to the config file that keep its comments and order.
//!
//! Every change is made under a lock file, checked by reading the result as a config, and put into place by one
//! rename: whoever reads the file sees all of a change or nothing of it, and never a config that does not hold.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, RawString, Table, TableLike, Value, value};

use super::durable::{self, write_beside_and_rename};
use super::parse::{check_address, expand};
use super::{Config, ConfigError, NAME_CHARS_MAX, Peer, Sharing, parse, read, surroundings};
use crate::core::id::{DeviceId, FolderId};
use crate::home::Home;

/// A peer to be added.
#[derive(Clone, Debug)]
pub struct NewPeer {
    pub id: DeviceId,
    /// The short id where there is none; made different where another peer has it.
    pub name: Option<String>,
    pub addresses: Vec<String>,
}

/// A folder to be added.
#[derive(Clone, Debug)]
pub struct NewFolder {
    pub id: FolderId,
    pub label: String,
    pub path: PathBuf,
    pub peers: Sharing,
}

/// Makes the config file where there is none, with one folder if a path is given. True if it made it.
pub fn create(home: &Home, folder: Option<&Path>) -> Result<bool, ConfigError> {
    let _guard = lock(home)?;
    let path = home.config_file();
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let around = surroundings(home);
    let text = default_text(&around.host_name, folder.map(|f| (f, home.user_dir())))?;
    parse(&text, &path, &around)?;
    replace(&path, &text)?;
    Ok(true)
}

/// Adds a peer, or gives a known one the name and addresses it lacks.
pub fn add_peer(home: &Home, new: &NewPeer) -> Result<Config, ConfigError> {
    for address in &new.addresses {
        check_address(address).map_err(|what| wrong(what, "write it as HOST:PORT, like 192.168.1.5:7724"))?;
    }
    change(home, |document, config| {
        if config.peer(&new.id).is_some() {
            let table = find(document, "peer", |id| id.parse() == Ok(new.id))?;
            return add_addresses(table, &new.addresses);
        }
        let mut table = Table::new();
        table.insert("id", value(new.id.to_string()));
        let name = new.name.as_deref().map(clean_name).unwrap_or_else(|| new.id.short());
        table.insert("name", value(free_name(config, &name)));
        if !new.addresses.is_empty() {
            add_addresses(&mut table, &new.addresses)?;
        }
        push(document, "peer", table)
    })?;
    match &new.name {
        // A known peer keeps its name unless another was asked for.
        Some(name) => rename_if_unnamed(home, &new.id, name),
        None => super::load(home),
    }
}

/// Removes a peer, also from the folders shared with it.
pub fn remove_peer(home: &Home, id: &DeviceId) -> Result<Config, ConfigError> {
    change(home, |document, config| {
        for folder in config.folders.iter() {
            if let Sharing::Only(peers) = &folder.peers
                && peers.contains(id)
            {
                let kept = peers.iter().copied().filter(|p| p != id).collect();
                set_sharing(document, config, &folder.id, &Sharing::Only(kept))?;
            }
        }
        remove(document, "peer", |text| text.parse() == Ok(*id))
    })
}

/// Gives a peer another name, also where folders mention it.
pub fn rename_peer(home: &Home, id: &DeviceId, name: &str) -> Result<Config, ConfigError> {
    let name = name.trim();
    if name.is_empty() || clean_name(name) != name {
        return Err(wrong(
            "this is not a name",
            format!("use 1 to {NAME_CHARS_MAX} characters without control characters"),
        ));
    }
    change(home, |document, config| {
        if config.peers.iter().any(|p| p.name == name && p.id != *id) {
            return Err(wrong(format!("another peer is named \"{name}\""), "choose another name"));
        }
        find(document, "peer", |text| text.parse() == Ok(*id))?.insert("name", value(name));
        let mut renamed = config.clone();
        renamed.peers.iter_mut().filter(|p| p.id == *id).for_each(|p| name.clone_into(&mut p.name));
        for folder in &config.folders {
            if let Sharing::Only(peers) = &folder.peers
                && peers.contains(id)
            {
                set_sharing(document, &renamed, &folder.id, &folder.peers)?;
            }
        }
        Ok(())
    })
}

/// Adds an address that a peer was reached at.
pub fn add_address(home: &Home, id: &DeviceId, address: &str) -> Result<Config, ConfigError> {
    check_address(address).map_err(|what| wrong(what, "write it as HOST:PORT, like 192.168.1.5:7724"))?;
    change(home, |document, _| {
        add_addresses(find(document, "peer", |text| text.parse() == Ok(*id))?, &[address.to_owned()])
    })
}

/// Adds a folder.
pub fn add_folder(home: &Home, new: &NewFolder) -> Result<Config, ConfigError> {
    change(home, |document, config| {
        if let Some(taken) = config.folder(&new.id) {
            let what = format!("there is a folder with the id \"{}\" already ({})", new.id, taken.path.display());
            return Err(wrong(what, "choose another with --id"));
        }
        let mut table = Table::new();
        table.insert("id", value(new.id.as_str()));
        table.insert("label", value(new.label.as_str()));
        table.insert("path", value(path_text(&new.path, home.user_dir())?));
        table.insert("peers", sharing_item(config, &new.peers));
        push(document, "folder", table)
    })
}

/// Stops sharing a folder. Its files stay where they are.
pub fn remove_folder(home: &Home, id: &FolderId) -> Result<Config, ConfigError> {
    change(home, |document, _| remove(document, "folder", |text| text == id.as_str()))
}

/// Says with whom a folder is shared.
pub fn set_folder_peers(home: &Home, id: &FolderId, peers: &Sharing) -> Result<Config, ConfigError> {
    change(home, |document, config| set_sharing(document, config, id, peers))
}

/// Shares a folder with one more device; with whom else it is shared stays as the file has it by now.
pub fn share_folder_with(home: &Home, id: &FolderId, device: &DeviceId) -> Result<Config, ConfigError> {
    change(home, |document, config| match config.folder(id).map(|folder| &folder.peers) {
        Some(Sharing::Only(ids)) if !ids.contains(device) => {
            let with_it = ids.iter().chain([device]).copied().collect();
            set_sharing(document, config, id, &Sharing::Only(with_it))
        }
        _ => Ok(()),
    })
}

/// A config for a first start: this device's name, and one folder if a path (and what `~` stands for) is given.
pub fn default_text(name: &str, folder: Option<(&Path, &Path)>) -> Result<String, ConfigError> {
    let quoted = value(name);
    let mut text = format!(
        "# Settings of p2psync on this device. Change them here or with 'p2psync peer' and 'p2psync folder'; a running\n\
         # agent takes changes up at once. 'p2psync config check' tells whether the file is in order.\n\
         # config.example.toml shows all that can be set.\n\
         \n\
         # What other devices call this one.\n\
         name = {quoted}\n"
    );
    if let Some((path, user_dir)) = folder {
        let path = value(path_text(path, user_dir)?);
        text.push_str(&format!(
            "\n\
             # A folder is the same on every device that has its id. peers = \"all\" shares it with each device you pair.\n\
             [[folder]]\n\
             id = \"default\"\n\
             label = \"P2PSync\"\n\
             path = {path}\n\
             peers = \"all\"\n"
        ));
    }
    Ok(text)
}

/// The name of this computer.
pub fn host_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let name = clean_name(host.split('.').next().unwrap_or_default());
    if name.is_empty() { "this device".to_owned() } else { name }
}

/// Makes one change: reads, changes, checks, and replaces, under the lock.
pub(super) fn change(
    home: &Home,
    edit: impl FnOnce(&mut DocumentMut, &Config) -> Result<(), ConfigError>,
) -> Result<Config, ConfigError> {
    let _guard = lock(home)?;
    let (path, around) = (home.config_file(), surroundings(home));
    let text = match read(&path) {
        Err(ConfigError::Missing { .. }) => default_text(&around.host_name, None)?,
        other => other?,
    };
    let before = parse(&text, &path, &around)?;
    let mut document: DocumentMut =
        text.parse().map_err(|e: toml_edit::TomlError| wrong(e.message(), "correct the file first"))?;
    edit(&mut document, &before)?;
    let changed = document.to_string();
    // The file as it is has no such mistake, so its lines say nothing.
    let config = parse(&changed, &path, &around).map_err(|error| match error {
        ConfigError::Invalid(fault) => wrong(fault.what, fault.advice),
        other => other,
    })?;
    if changed != text || !path.exists() {
        replace(&path, &changed)?;
    }
    Ok(config)
}

fn rename_if_unnamed(home: &Home, id: &DeviceId, name: &str) -> Result<Config, ConfigError> {
    let config = super::load(home)?;
    match config.peer(id) {
        Some(peer) if peer.name == id.short() && peer.name != name => {
            rename_peer(home, id, &free_name(&config, &clean_name(name)))
        }
        _ => Ok(config),
    }
}

/// The name as it may stand in a config.
fn clean_name(name: &str) -> String {
    let words: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    words.trim().to_owned()
}

/// The name, or with a number after it where a peer has it already.
fn free_name(config: &Config, wanted: &str) -> String {
    let wanted = if wanted.is_empty() { "device" } else { wanted };
    // A device may choose its name when it pairs: it shall not get what was shared with another one by its id.
    let is_taken = |name: &str| {
        let is_id_of = |p: &Peer| p.name == name || p.id.short().eq_ignore_ascii_case(name);
        // Nor shall it be taken for this device in what people read.
        name == config.name || config.peers.iter().any(is_id_of) || name.parse::<DeviceId>().is_ok()
    };
    let stem: String = wanted.chars().take(NAME_CHARS_MAX - 8).collect();
    let mut numbered = (2..=config.peers.len() + 3).map(|n| format!("{}-{n}", stem.trim_end()));
    if is_taken(wanted) {
        numbered.find(|name| !is_taken(name)).unwrap_or_else(|| wanted.to_owned())
    } else {
        wanted.to_owned()
    }
}

/// The path as written in the file: with `~` where it lies in the user's home directory.
fn path_text(path: &Path, user_dir: &Path) -> Result<String, ConfigError> {
    let text = match path.strip_prefix(user_dir) {
        Ok(below) if !below.as_os_str().is_empty() => Path::new("~").join(below),
        _ => path.to_owned(),
    };
    let Some(text) = text.to_str() else {
        let advice = "rename the directory, or share one above or below it";
        return Err(wrong(
            format!("the path {} is not UTF-8, which a config file cannot hold", path.display()),
            advice,
        ));
    };
    expand(text, user_dir).map_err(|what| wrong(what, "give the whole path of a directory"))?;
    Ok(text.to_owned())
}

fn set_sharing(document: &mut DocumentMut, config: &Config, id: &FolderId, peers: &Sharing) -> Result<(), ConfigError> {
    let table = find(document, "folder", |text| text == id.as_str())?;
    set_keeping_comment(table, "peers", sharing_item(config, peers));
    Ok(())
}

fn sharing_item(config: &Config, peers: &Sharing) -> Item {
    match peers {
        Sharing::All => value("all"),
        Sharing::Only(ids) => {
            let word = |id: &DeviceId| config.peer(id).map_or_else(|| id.to_string(), |p| p.name.clone());
            value(ids.iter().map(word).collect::<Array>())
        }
    }
}

fn add_addresses(table: &mut dyn TableLike, addresses: &[String]) -> Result<(), ConfigError> {
    if table.get("addresses").is_none() {
        table.insert("addresses", value(Array::new()));
    }
    let list = table
        .get_mut("addresses")
        .and_then(Item::as_array_mut)
        .ok_or_else(|| wrong("addresses is not a list", "correct it"))?;
    for address in addresses {
        if !list.iter().any(|known| known.as_str() == Some(address)) {
            list.push(address.as_str());
        }
    }
    Ok(())
}

/// Sets a value and keeps the comment that stands behind the old one.
pub(super) fn set_keeping_comment(table: &mut dyn TableLike, key: &str, mut item: Item) {
    let decor = table.get(key).and_then(Item::as_value).map(|v| v.decor().clone());
    if let (Some(decor), Some(new)) = (decor, item.as_value_mut()) {
        *new.decor_mut() = decor;
    }
    match table.get_mut(key) {
        Some(old) => *old = item,
        None => drop(table.insert(key, item)),
    }
}

/// The tables of this kind, which are `[[kind]]` tables or are not there yet.
fn tables<'a>(document: &'a mut DocumentMut, kind: &str) -> Result<&'a mut ArrayOfTables, ConfigError> {
    let item = document.entry(kind).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if item.as_array().is_some_and(Array::is_empty) {
        *item = Item::ArrayOfTables(ArrayOfTables::new());
    }
    item.as_array_of_tables_mut().ok_or_else(|| {
        wrong(
            format!("'{kind}' is written as one list, which commands can't change"),
            format!("write each as a [[{kind}]] table"),
        )
    })
}

pub(super) fn find<'a>(
    document: &'a mut DocumentMut,
    kind: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<&'a mut Table, ConfigError> {
    let mut all = tables(document, kind)?.iter_mut();
    let found = all.find(|table| table.get("id").and_then(Item::as_str).is_some_and(&fits));
    found.ok_or_else(|| {
        wrong(format!("there is no such {kind} in the config"), format!("'p2psync {kind} list' shows all"))
    })
}

fn push(document: &mut DocumentMut, kind: &str, mut table: Table) -> Result<(), ConfigError> {
    table.decor_mut().set_prefix(format!("\n{}", comments_of_list(document, kind)));
    tables(document, kind)?.push(table);
    Ok(())
}

/// The comments of `kind = []`, which makes way for the first table: they go to that.
fn comments_of_list(document: &DocumentMut, kind: &str) -> String {
    let Some((key, Item::Value(Value::Array(list)))) = document.get_key_value(kind) else { return String::new() };
    let places = [key.leaf_decor().prefix(), Some(list.trailing()), list.decor().suffix()];
    let texts = places.into_iter().flatten().filter_map(RawString::as_str);
    let comments = texts.flat_map(str::lines).map(str::trim).filter(|line| line.starts_with('#'));
    comments.map(|line| format!("{line}\n")).collect()
}

fn remove(document: &mut DocumentMut, kind: &str, fits: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
    find(document, kind, &fits)?;
    tables(document, kind)?.retain(|table| !table.get("id").and_then(Item::as_str).is_some_and(&fits));
    Ok(())
}

/// Removes what edits of this config have left that were killed.
pub fn clear_leftovers(home: &Home) {
    let path = home.config_file();
    durable::clear_leftovers(&path.canonicalize().unwrap_or(path));
}

/// Waits for other editors of this config to finish; the file stays, because a lock on a removed file locks nothing.
pub(super) fn lock(home: &Home) -> Result<File, ConfigError> {
    let path = home.config_file().with_file_name("config.lock");
    let fail = |source| ConfigError::Io { doing: "lock", path: path.clone(), source };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
    file.lock().map_err(fail)?;
    Ok(file)
}

/// Puts the text into place by one rename, durably. A link to the file stays a link.
fn replace(path: &Path, text: &str) -> Result<(), ConfigError> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    write_beside_and_rename(&target, text).map_err(|source| ConfigError::Io { doing: "write", path: target, source })
}

fn wrong(what: impl Into<String>, advice: impl Into<String>) -> ConfigError {
    ConfigError::Edit { what: what.into(), advice: advice.into() }
}
