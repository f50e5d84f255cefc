//! Every key of the config file, in one table: what docs/config.md, `config show` and "did you mean" go by.

use std::fmt::Write;

use super::LISTEN_VARIABLE;
use crate::core::nearest::nearest;

/// A key of the config file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Empty for the top level; "peer" and "folder" are lists of tables.
    pub section: &'static str,
    pub name: &'static str,
    /// What may be written there.
    pub kind: &'static str,
    /// The usual value as TOML; for what depends on the device, in words within brackets.
    pub usual: &'static str,
    /// A variable that overrides it.
    pub variable: Option<&'static str>,
    pub meaning: &'static str,
}

/// Sections in the order of the docs, each with what it is about. The empty name is the top level.
pub const SECTIONS: [(&str, &str); 8] = [
    ("", "At the top of the file, before the first section."),
    ("network", "How this device finds and reaches others."),
    ("sync", "How folders are kept in sync."),
    ("limits", "How fast contents go over the network. What else devices say to each other never waits for that."),
    ("manners", "What the agent leaves to others."),
    ("api", "How programs on this device reach the agent, besides its socket."),
    ("peer", "Another device; one `[[peer]]` for each. `p2psync pair` writes them on both sides."),
    ("folder", "A folder; one `[[folder]]` for each. `p2psync folder add` writes them."),
];

const fn key(
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    usual: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, name, kind, usual, variable: None, meaning }
}

/// All keys.
pub const KEYS: &[Key] = &[
    key(
        "",
        "version",
        "number",
        "1",
        "The version of this file's format. `p2psync config upgrade` brings older ones up to date.",
    ),
    key("", "name", "text, 1 to 64 characters", "(the name of the computer)", "What other devices call this one."),
    key(
        "",
        "notifications",
        "true or false",
        "true",
        "Tell on the desktop of conflicts, folders that have stopped, a full disk, deletions that wait for your word, and \
         new devices.",
    ),
    Key {
        variable: Some(LISTEN_VARIABLE),
        ..key(
            "network",
            "listen",
            "address and port",
            "\"[::]:7724\"",
            "Where peers connect to. Falls back to 0.0.0.0 where there is no IPv6; port 0 takes any.",
        )
    },
    key("network", "multicast", "true or false", "true", "Find devices in the local network by multicast."),
    key(
        "network",
        "multicast_v4",
        "IPv4 multicast group",
        "\"239.255.77.24\"",
        "The group of announcements, the same on all devices.",
    ),
    key("network", "multicast_v6", "IPv6 multicast group", "\"ff02::7724\"", "The same for IPv6."),
    key(
        "network",
        "discovery_port",
        "number, 1 to 65535",
        "7725",
        "UDP port of the announcements, the same on all devices.",
    ),
    key(
        "network",
        "announce_to",
        "list of \"HOST:PORT\"",
        "[]",
        "More places to announce to, for networks without multicast.",
    ),
    key(
        "sync",
        "rescan_minutes",
        "number, 1 to 527040",
        "60",
        "Changes are noticed at once; a full scan this often finds what was missed.",
    ),
    key(
        "sync",
        "reconcile_minutes",
        "number, 1 to 527040",
        "10",
        "How often the state of every folder is compared with the peers'.",
    ),
    key("sync", "history_days", "number, 1 to 36525", "30", "How long replaced and deleted files stay in the history."),
    key(
        "sync",
        "history_max_percent",
        "number, 1 to 100",
        "20",
        "How much of the disk the history of a folder may take; what another device displaced last stays all the same.",
    ),
    key("sync", "history_max_gib", "number", "0", "The same as a size in GiB, in place of the percentage; 0 for none."),
    key(
        "sync",
        "hold_deletes_above",
        "number",
        "1000",
        "At least this many deletions within ten minutes, and more than the percentage, wait for your word.",
    ),
    key(
        "sync",
        "hold_deletes_percent",
        "number, 0 to 100",
        "80",
        "The percentage of the folder for `hold_deletes_above`.",
    ),
    key(
        "limits",
        "upload_kib_s",
        "number, KiB per second",
        "0",
        "Most that goes out, to all peers together; 0: no cap, otherwise at least 16.",
    ),
    key("limits", "download_kib_s", "number, KiB per second", "0", "Most that comes in, from all peers together."),
    key(
        "limits",
        "quiet_hours",
        "hours like \"08:00-18:00\"",
        "(none)",
        "Hours of each day in which other caps hold; they may go over midnight.",
    ),
    key(
        "limits",
        "quiet_upload_kib_s",
        "number, KiB per second",
        "(as `upload_kib_s`)",
        "Most that goes out in these hours.",
    ),
    key(
        "limits",
        "quiet_download_kib_s",
        "number, KiB per second",
        "(as `download_kib_s`)",
        "Most that comes in in these hours.",
    ),
    key(
        "manners",
        "pause_on_battery",
        "true or false",
        "false",
        "Sync nothing while the computer runs on battery (Linux).",
    ),
    key(
        "manners",
        "pause_on_metered",
        "true or false",
        "false",
        "Sync nothing while the network is paid for by volume, as NetworkManager tells (Linux).",
    ),
    key(
        "manners",
        "gentle_scans",
        "true or false",
        "true",
        "Regular scans leave processor and disk to others first (Linux). What has just changed is never slowed down.",
    ),
    key(
        "api",
        "browser_port",
        "number, 0 to 65535",
        "0",
        "A port of this machine for a browser or your own programs; docs/api.md says how to use it. 0: none.",
    ),
    key("peer", "id", "device id", "(required)", "What `p2psync id` prints on that device."),
    key("peer", "name", "text, 1 to 64 characters", "(the short id)", "What to call it on this device."),
    key(
        "peer",
        "addresses",
        "list of \"HOST:PORT\"",
        "[]",
        "Where to reach it if it is not in the local network, or that has no multicast.",
    ),
    key(
        "peer",
        "upload_kib_s",
        "number, KiB per second",
        "(as for all)",
        "A cap for this peer alone, in place of the ones in `[limits]`.",
    ),
    key("peer", "download_kib_s", "number, KiB per second", "(as for all)", "The same for what comes from it."),
    key("folder", "id", "a word", "(required)", "The id that the folder has on all devices."),
    key("folder", "label", "text, 1 to 128 characters", "(the id)", "Name shown to you."),
    key("folder", "path", "absolute path, or one that begins with ~/", "(required)", "The directory."),
    key("folder", "peers", "\"all\", or a list of names or ids of peers", "\"all\"", "With whom it is shared."),
    key("folder", "paused", "true or false", "false", "Leave the folder alone for now."),
    key(
        "folder",
        "paused_until",
        "date and time",
        "(none)",
        "Leave it alone until then: `\"2026-11-23 18:00\"`, or with its offset from UTC.",
    ),
    key(
        "folder",
        "direction",
        "\"both\", \"send\" or \"receive\"",
        "\"both\"",
        "Which way changes go: \"send\" takes nothing from others, \"receive\" keeps to itself what is changed here.",
    ),
    key(
        "folder",
        "only",
        "list of patterns",
        "(all of it)",
        "The part that is wanted on this device, such as `[\"Photos/2026/**\"]`. The rest is known, but not fetched, and \
         stays on the other devices.",
    ),
];

/// The keys of a section.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// What to do about a key that nothing knows, given the keys that may stand there.
pub(super) fn advice_for_unknown(word: &str, allowed: &[&str]) -> String {
    if let Some(meant) = nearest(word, allowed.iter().copied()) {
        return format!("did you mean '{meant}'?");
    }
    if let Some(key) = KEYS.iter().find(|key| key.name == word) {
        return format!("this key belongs {}", place(key.section));
    }
    let elsewhere = KEYS.iter().map(|key| key.name);
    match nearest(word, elsewhere).and_then(|meant| KEYS.iter().find(|key| key.name == meant)) {
        Some(key) => format!("did you mean '{}'? It belongs {}", key.name, place(key.section)),
        None => format!("possible here: {}; docs/config.md explains them", allowed.join(", ")),
    }
}

fn place(section: &str) -> String {
    match section {
        "" => "at the top of the file, before the first [section]".to_owned(),
        "peer" | "folder" => format!("into a [[{section}]] table"),
        _ => format!("into the section [{section}]"),
    }
}

/// The text of docs/config.md.
pub fn reference() -> String {
    let mut text = String::from(
        "# The config file\n\nMade from the program's own table; `RENEW_DOCS=1 cargo test --lib config::keys` makes it anew.\n\n\
         `p2psync config path` says where the file is. It is [TOML](https://toml.io). The agent takes changes up at once;\n\
         `p2psync config check` tells whether the file is in order, and `p2psync config show` what is in effect and where\n\
         each value comes from. Commands such as `p2psync folder add` change the file too, and keep comments.\n\
         [config.example.toml](../config.example.toml) has everything once.\n",
    );
    for (section, about) in SECTIONS {
        let title = match section {
            "" => "Top level".to_owned(),
            "peer" | "folder" => format!("`[[{section}]]`"),
            _ => format!("`[{section}]`"),
        };
        let _ =
            write!(text, "\n## {title}\n\n{about}\n\n| key | value | usual | meaning |\n| --- | --- | --- | --- |\n");
        for key in keys_of(section) {
            let usual = match key.usual.strip_prefix('(').and_then(|u| u.strip_suffix(')')) {
                Some(words) => words.to_owned(),
                None => format!("`{}`", key.usual),
            };
            let variable = key.variable.map(|v| format!(" `{v}` overrides it.")).unwrap_or_default();
            let _ = writeln!(text, "| `{}` | {} | {usual} | {}{variable} |", key.name, key.kind, key.meaning);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;
    use crate::config::{Surroundings, parse};
    use std::path::Path;

    fn around() -> Surroundings {
        Surroundings {
            user_dir: "/home/me".into(),
            own_dirs: Vec::new(),
            index_dir: "/own/index".into(),
            listen: None,
            host_name: "here".into(),
            resolve: Path::to_path_buf,
        }
    }

    fn fault(text: &str) -> String {
        parse(text, Path::new("config.toml"), &around()).unwrap_err().to_string()
    }

    /// The keys that the reader of the file would take in a section, from what it says about one it doesn't.
    fn taken_in(section: &str) -> Vec<String> {
        let needed = match section {
            "peer" => "id = \"x\"\n",
            "folder" => "id = \"x\"\npath = \"/x\"\n",
            _ => "",
        };
        let head = match section {
            "" => String::new(),
            "peer" | "folder" => format!("[[{section}]]\n{needed}"),
            _ => format!("[{section}]\n"),
        };
        let text = format!("{head}qqqqqqqqqqqq = 1\n");
        let said = toml_edit::de::from_str::<RawConfig>(&text).err().unwrap().message().to_owned();
        let first = said.lines().next().unwrap();
        let mut names: Vec<String> = first
            .split('`')
            .skip(3)
            .step_by(2)
            .filter(|name| !SECTIONS.iter().any(|(section, _)| section == name))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_table_has_every_key_that_the_file_may_have() {
        for (section, _) in SECTIONS {
            let mut listed: Vec<String> = keys_of(section).map(|key| key.name.to_owned()).collect();
            listed.sort();
            assert_eq!(listed, taken_in(section), "[{section}] in src/config/keys.rs and src/config/raw.rs");
        }
    }

    #[test]
    fn every_usual_value_is_what_a_file_without_it_means() {
        let empty = parse("", Path::new("c"), &around()).unwrap();
        for (section, _) in SECTIONS.iter().filter(|(s, _)| !["peer", "folder"].contains(s)) {
            let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
            for key in keys_of(section).filter(|key| !key.usual.starts_with('(')) {
                let text = format!("{head}{} = {}\n", key.name, key.usual);
                assert_eq!(parse(&text, Path::new("c"), &around()).unwrap(), empty, "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_told_with_what_was_meant() {
        let cases = [
            ("[network]\nlisten_on = \"x\"\n", "did you mean 'listen'?"),
            ("[sync]\nrescan_minuets = 5\n", "did you mean 'rescan_minutes'?"),
            ("multicast = true\n", "into the section [network]"),
            ("[network]\npaused = true\n", "into a [[folder]] table"),
            ("[[folders]]\nid = \"x\"\n", "did you mean 'folder'?"),
            ("[network]\nqqqqqqqq = 1\n", "possible here: listen"),
        ];
        for (text, advice) in cases {
            let said = fault(text);
            assert!(said.contains(advice), "{text}{said}");
        }
    }

    #[test]
    fn the_docs_of_the_config_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
        if std::env::var_os("RENEW_DOCS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == reference(),
            "docs/config.md is not what the program says; RENEW_DOCS=1 cargo test --lib config::keys renews it"
        );
    }

    #[test]
    fn the_example_config_has_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
        let example = std::fs::read_to_string(path).unwrap();
        let is_there = |key: &&Key| {
            example.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{} =", key.name)))
        };
        let missing: Vec<_> = KEYS.iter().filter(|key| !is_there(key)).map(|key| (key.section, key.name)).collect();
        assert!(missing.is_empty(), "config.example.toml lacks {missing:?}");
    }
}
