//! The text of a config file, and what commands change in it.
//!
//! What parses is in order; what does not is a fault that points into the text. A change gives just the config that was
//! asked for and keeps every comment, or it changes nothing.

use std::path::Path;

use p2psync::config::{
    Config, ConfigError, LABEL_CHARS_MAX, NAME_CHARS_MAX, NewFolder, NewPeer, Pause, Sharing, Surroundings,
    add_address, add_folder, add_peer, load, parse, remove_folder, remove_peer, rename_peer, set_folder_peers,
    set_pause,
};
use p2psync::core::direction::Direction;
use p2psync::core::id::DeviceId;
use p2psync::home::Home;

use super::check;

/// A disk in memory, where there is one: every change is synced.
const MEMORY_DISK: &str = "/dev/shm";
/// Longer texts are only read: each change reads the whole.
const CHANGED_BYTES_MAX: usize = 16 * 1024;
const NEW: DeviceId = DeviceId([0x5a; 32]);
const ADDRESS: &str = "[fe80::1%eth0]:7724";

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse(&text, Path::new("/c/config.toml"), &around()) {
        Ok(config) => {
            in_order(&config);
            if text.len() <= CHANGED_BYTES_MAX {
                changes(&text);
            }
        }
        Err(error) => points_into(&error, &text),
    }
}

fn around() -> Surroundings {
    Surroundings {
        user_dir: "/home/me".into(),
        own_dirs: vec!["/home/me/.config/p2psync".into()],
        index_dir: "/home/me/.local/share/p2psync/index".into(),
        listen: None,
        host_name: "box".into(),
        resolve: Path::to_owned,
    }
}

fn in_order(config: &Config) {
    check::shown(&config.name, NAME_CHARS_MAX);
    assert!(config.network.multicast_v4.is_multicast() && config.network.multicast_v6.is_multicast());
    assert!(config.network.discovery_port != 0 && config.sync.hold_deletes_percent <= 100);
    assert!(!config.sync.rescan.is_zero() && !config.sync.reconcile.is_zero() && config.sync.history_days > 0);
    let addresses = config.peers.iter().flat_map(|p| &p.addresses).chain(&config.network.announce_to);
    for address in addresses {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        assert!(port.is_some_and(|p| p != 0), "an address without a port: {address}");
        check::error_text(address);
    }
    for peer in &config.peers {
        check::shown(&peer.name, NAME_CHARS_MAX);
        assert_eq!(config.find_peer(&peer.name).map(|p| &p.name), Some(&peer.name));
        assert_eq!(config.peers.iter().filter(|p| p.id == peer.id || p.name == peer.name).count(), 1);
    }
    for folder in &config.folders {
        check::shown(&folder.label, LABEL_CHARS_MAX);
        assert!(folder.path.is_absolute() && folder.path.parent().is_some());
        assert!(folder.path.components().all(|c| c != std::path::Component::ParentDir));
        assert_eq!(config.folders.iter().filter(|f| f.id == folder.id).count(), 1);
        let nested = config.folders.iter().filter(|f| f.path.starts_with(&folder.path)).count();
        assert_eq!(nested, 1, "folders in one another");
        if let Sharing::Only(peers) = &folder.peers {
            assert!(peers.iter().all(|id| config.peer(id).is_some()));
        }
    }
}

fn points_into(error: &ConfigError, text: &str) {
    check::error_lines(&error.to_string());
    let ConfigError::Invalid(fault) = error else { panic!("{error}") };
    let line = text.split('\n').nth(fault.line - 1).expect("a fault is in a line that there is");
    assert!((1..=line.chars().count() + 1).contains(&fault.column), "column {} of {line:?}", fault.column);
    check::error_text(&fault.what);
    check::error_text(&fault.advice);
}

/// A home of its own with this config.
struct Place {
    home: Home,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let disk = Path::new(MEMORY_DISK);
        let dir = if disk.is_dir() { tempfile::tempdir_in(disk) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory can be made");
        let home = Home::at(&dir.path().join("home"), dir.path().join("user"));
        home.create().expect("a home can be made");
        std::fs::write(home.config_file(), text).expect("a file can be written");
        Self { home, _dir: dir }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.home.config_file()).expect("the config is UTF-8")
    }

    /// Makes a change, which gives the config that `expect` makes of the one before, or says why not.
    fn change(
        &self,
        change: impl FnOnce(&Home) -> Result<Config, ConfigError>,
        expect: impl FnOnce(&mut Config),
    ) -> bool {
        let (before, text) = (load(&self.home).expect("it was in order"), self.text());
        match change(&self.home) {
            Ok(config) => {
                let mut expected = before;
                expect(&mut expected);
                assert_eq!(config, expected);
                assert_eq!(load(&self.home).expect("it is in order"), expected);
                true
            }
            Err(error) => {
                assert!(matches!(error, ConfigError::Edit { .. }), "{error}");
                check::error_lines(&error.to_string());
                assert_eq!(self.text(), text, "a change that failed has changed something");
                false
            }
        }
    }
}

fn changes(text: &str) {
    let place = Place::new(text);
    // It may not hold here: a folder may contain this very home.
    let Ok(before) = load(&place.home) else { return };
    if let Some(folder) = before.folders.first() {
        let paused = |c: &mut Config| (c.folders[0].paused, c.folders[0].paused_until_ms) = (true, None);
        let done = place.change(|h| set_pause(h, std::slice::from_ref(&folder.id), Pause::Open), paused);
        assert!(done || !has_tables(text, "folder"), "can't pause");
    }
    let has_new_peer = before.peer(&NEW).is_none() && add_new_peer(&place, text);
    add_new_folder(&place, text);
    if has_new_peer {
        share_and_remove(&place);
    }
}

/// Adds, names and gives an address to a peer. True where there is one more.
fn add_new_peer(place: &Place, text: &str) -> bool {
    let before = load(&place.home).expect("it was in order");
    let new = NewPeer { id: NEW, name: Some("new \"one\"\\".into()), addresses: vec!["a.example:1".into()] };
    let added = add_peer(&place.home, &new);
    let Ok(config) = added else {
        assert!(!has_tables(text, "peer") || text.contains("peer ="), "can't add a peer: {added:?}");
        return false;
    };
    assert_eq!(config.peers[..before.peers.len()], before.peers);
    assert_eq!(config.peers.last().map(|p| (p.id, &p.addresses)), Some((NEW, &new.addresses)));
    assert_eq!((&config.folders, &config.network, &config.sync), (&before.folders, &before.network, &before.sync));
    let last = config.peers.len() - 1;
    place.change(|h| rename_peer(h, &NEW, "Tisch é #1"), |c| c.peers[last].name = "Tisch é #1".into());
    let done = place.change(|h| add_address(h, &NEW, ADDRESS), |c| c.peers[last].addresses.push(ADDRESS.into()));
    assert!(done);
    true
}

/// Adds a folder and removes it again.
fn add_new_folder(place: &Place, text: &str) {
    let id = "added-here".parse().expect("this is an id");
    let path = place.home.user_dir().join("Räume [1]\n#2");
    let new = NewFolder { id, label: "Räume".into(), path: path.clone(), peers: Sharing::All };
    let expected = p2psync::config::Folder {
        id: new.id.clone(),
        label: new.label.clone(),
        path,
        peers: Sharing::All,
        paused: false,
        paused_until_ms: None,
        direction: Direction::Both,
        only: None,
    };
    let added = place.change(|h| add_folder(h, &new), |c| c.folders.push(expected));
    keeps_comments(text, &place.text());
    if added {
        let removed = place.change(|h| remove_folder(h, &new.id), |c| drop(c.folders.pop()));
        assert!(removed);
    }
}

/// Shares the first folder with the new peer alone, and removes the peer.
fn share_and_remove(place: &Place) {
    let config = load(&place.home).expect("it was in order");
    let mut shared = false;
    if let Some(folder) = config.folders.first() {
        let only = Sharing::Only(vec![NEW]);
        shared = place.change(|h| set_folder_peers(h, &folder.id, &only), |c| c.folders[0].peers = only.clone());
    }
    let removed = place.change(
        |h| remove_peer(h, &NEW),
        |c| {
            c.peers.retain(|p| p.id != NEW);
            if shared {
                c.folders[0].peers = Sharing::Only(Vec::new());
            }
        },
    );
    assert!(removed);
}

/// True where commands can change entries of this kind.
fn has_tables(text: &str, kind: &str) -> bool {
    text.contains(&format!("[[{kind}]]"))
}

/// Every line that is a comment is still there; those of a list that became tables went with it.
fn keeps_comments(before: &str, after: &str) {
    let is_plain = |text: &str| !text.contains("\"\"\"") && !text.contains("'''");
    if !is_plain(before) || !is_plain(after) {
        return;
    }
    let count = |text: &str, comment: &str| text.lines().filter(|line| line.trim() == comment).count();
    for comment in before.lines().map(str::trim).filter(|line| line.starts_with('#')) {
        assert!(count(after, comment) >= count(before, comment), "the comment {comment:?} is gone");
    }
}
