//! What is allowed in a config, but hardly meant.

use toml_edit::{Document, Item, Table};

use super::keys::{SECTIONS, advice_for_unknown, keys_of};
use super::{Config, Sharing};

/// Unknown settings that are told at once.
const UNKNOWN_TOLD_MAX: usize = 20;

/// Something in the config that works, but probably not as its writer thinks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The setting, such as `folder[0].path`.
    pub key: String,
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// A setting that there is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    /// The line of the file, counted from 1.
    pub line: usize,
    pub name: String,
    /// What to do about it.
    pub advice: String,
}

/// All settings in a file that there are not, the first ones first; the reader of the file stops at one.
pub fn unknown_settings(text: &str) -> Vec<Unknown> {
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    let lists: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).filter(|s| !s.is_empty()).collect();
    for (section, _) in SECTIONS {
        let mut allowed: Vec<&str> = keys_of(section).map(|key| key.name).collect();
        let tables: Vec<&Table> = match document.get(section) {
            _ if section.is_empty() => {
                allowed.extend(&lists);
                vec![document.as_table()]
            }
            Some(Item::Table(table)) => vec![table],
            Some(Item::ArrayOfTables(list)) => list.iter().collect(),
            _ => Vec::new(),
        };
        for table in tables {
            let names = table.iter().map(|(name, _)| name).filter(|name| !allowed.contains(name));
            found.extend(names.map(|name| Unknown {
                line: line_of(text, table, name),
                name: name.to_owned(),
                advice: advice_for_unknown(name, &allowed),
            }));
        }
    }
    found.sort_by_key(|unknown| unknown.line);
    found.truncate(UNKNOWN_TOLD_MAX);
    found
}

fn line_of(text: &str, table: &Table, name: &str) -> usize {
    let start = table.key(name).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
    text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1
}

/// Everything in a config that deserves a second look. Looks at the disk.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn =
        |key: String, what: String, advice: &str| found.push(Warning { key, what, advice: advice.to_owned() });
    for (i, folder) in config.folders.iter().enumerate() {
        let (label, place) = (&folder.label, folder.path.display());
        match std::fs::metadata(&folder.path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => warn(
                format!("folder[{i}].path"),
                format!("the folder \"{label}\" cannot be used: {place} is not a directory"),
                "move that file away, or choose another path",
            ),
            Err(_) => warn(
                format!("folder[{i}].path"),
                format!("the directory of the folder \"{label}\" is not there: {place}"),
                "mount its disk, make it, or correct the path; until then the folder waits",
            ),
        }
        if folder.peers == Sharing::Only(Vec::new()) {
            warn(
                format!("folder[{i}].peers"),
                format!("the folder \"{label}\" is shared with nobody"),
                "write peers = \"all\", or the names of peers",
            );
        }
        let has_namesake = config.folders.iter().filter(|f| f.label == *label).count() > 1;
        if has_namesake {
            warn(
                format!("folder[{i}].label"),
                format!("two folders are labelled \"{label}\""),
                "give each a label of its own, so that commands and people can tell them apart",
            );
        }
    }
    if !config.network.multicast && config.network.announce_to.is_empty() {
        for (i, peer) in config.peers.iter().enumerate().filter(|(_, p)| p.addresses.is_empty()) {
            warn(
                format!("peer[{i}].addresses"),
                format!("this device will not find {}: multicast is off, and no address is known", peer.name),
                "add its address here, unless that device knows this one's",
            );
        }
    }
    if config.network.listen.ip().is_loopback() && !config.peers.is_empty() {
        warn(
            "network.listen".to_owned(),
            format!("only this very device can connect to {}", config.network.listen),
            "write listen = \"[::]:7724\" to let other devices connect",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_unknown_settings_are_told_at_once_with_their_lines() {
        let text =
            "nmae = \"x\"\n[network]\nlisten = \"[::]:1\"\nmultcast = true\n\n[[folder]]\nid = \"a\"\npausd = true\n";
        let found = unknown_settings(text);
        let told: Vec<_> = found.iter().map(|u| (u.line, u.name.as_str(), u.advice.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, "nmae", "did you mean 'name'?"),
                (4, "multcast", "did you mean 'multicast'?"),
                (8, "pausd", "did you mean 'paused'?")
            ]
        );
        assert!(unknown_settings("name = \"x\"\n[[peer]]\nid = \"y\"\n").is_empty());
    }
}
