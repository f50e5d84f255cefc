//! The config file: TOML in, a checked [`Config`] out, or a fault with its line, column and remedy.
//!
//! Parse, don't validate: whoever holds a [`Config`] need not check it again.

mod advice;
mod choices;
mod durable;
mod edit;
mod edit_folder;
mod fault;
pub mod keys;
mod manners;
mod parse;
mod raw;
mod settings;
mod version;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::direction::Direction;
use crate::core::id::{DeviceId, FolderId};
use crate::core::selection::Selection;
use crate::home::Home;

pub use advice::{Unknown, Warning, unknown_settings, warnings};
pub use edit::{
    NewFolder, NewPeer, add_address, add_folder, add_peer, clear_leftovers, create, default_text, host_name,
    remove_folder, remove_peer, rename_peer, set_folder_peers, share_folder_with,
};
pub use edit_folder::{Pause, set_direction, set_only, set_pause};
pub use fault::{ConfigError, Fault};
pub use manners::{Caps, Hours, Limits, Manners, parse_minute};
pub use parse::{Surroundings, parse};
pub use settings::{Origin, Setting, settings};
pub use version::{Upgraded, outdated, upgrade};

/// Overrides `network.listen`, for containers and tests.
pub const LISTEN_VARIABLE: &str = "P2PSYNC_LISTEN";
/// Largest config file in bytes: some ten thousand folders.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest device name in characters: it goes into announcements and tables.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest folder label in characters.
pub const LABEL_CHARS_MAX: usize = 128;

/// What the config file says, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Name of this device.
    pub name: String,
    pub network: Network,
    pub sync: Sync,
    pub limits: Limits,
    pub manners: Manners,
    pub api: Api,
    pub peers: Vec<Peer>,
    pub folders: Vec<Folder>,
}

/// How this device finds and reaches others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    pub listen: SocketAddr,
    pub multicast: bool,
    pub multicast_v4: Ipv4Addr,
    pub multicast_v6: Ipv6Addr,
    /// UDP port of announcements.
    pub discovery_port: u16,
    /// Where announcements go besides multicast: `HOST:PORT`.
    pub announce_to: Vec<String>,
}

/// How folders are kept in sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sync {
    /// Time between full scans.
    pub rescan: Duration,
    /// Time between full comparisons with peers.
    pub reconcile: Duration,
    pub history_days: u32,
    pub history_max: HistoryMax,
    /// This many deletions, and more than the percentage of the folder, wait for the user.
    pub hold_deletes_above: u64,
    pub hold_deletes_percent: u8,
}

/// How much space the history of one folder may take. What another device's change displaced last stays all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryMax {
    /// Of the disk.
    Percent(u32),
    Gib(u32),
}

impl HistoryMax {
    /// In bytes, on a disk of this size.
    pub fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            // Not more than the disk, and exact enough.
            HistoryMax::Percent(percent) => disk_bytes / 100 * u64::from(percent),
            HistoryMax::Gib(gib) => u64::from(gib) << 30,
        }
    }
}

/// How programs on this device reach the agent, besides its socket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Api {
    /// Port of this machine for a browser; `None` where there is none.
    pub browser_port: Option<NonZeroU16>,
}

/// Another device that we share with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub id: DeviceId,
    pub name: String,
    /// Known addresses, `HOST:PORT`.
    pub addresses: Vec<String>,
    /// Caps of its own, in place of those for all.
    pub caps: Option<Caps>,
}

/// A folder on this device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder {
    pub id: FolderId,
    pub label: String,
    /// Absolute.
    pub path: PathBuf,
    pub peers: Sharing,
    pub paused: bool,
    /// Left alone until this time, ms since 1970.
    pub paused_until_ms: Option<i64>,
    pub direction: Direction,
    /// The part that is wanted here; `None` is all of it.
    pub only: Option<Selection>,
}

impl Folder {
    /// One about which nothing else is said.
    pub fn new(id: FolderId, path: PathBuf, peers: Sharing) -> Self {
        let (label, direction) = (id.to_string(), Direction::Both);
        Self { id, label, path, peers, paused: false, paused_until_ms: None, direction, only: None }
    }

    /// True where the folder is left alone at this time, ms since 1970.
    pub fn is_paused(&self, now_ms: i64) -> bool {
        self.paused || self.paused_until_ms.is_some_and(|until| now_ms < until)
    }
}

/// With whom a folder is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Every peer, also those paired later.
    All,
    Only(Vec<DeviceId>),
}

/// True of a word that a shell takes as it is, and that is no option.
pub fn is_plain_word(word: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain)
}

impl Config {
    pub fn peer(&self, id: &DeviceId) -> Option<&Peer> {
        self.peers.iter().find(|p| p.id == *id)
    }

    /// What names a folder in a command: its label where that is plain and names no other, else its id.
    pub fn word_of<'a>(&self, folder: &'a Folder) -> &'a str {
        let names_another =
            |f: &Folder| f.id != folder.id && (f.label == folder.label || f.id.as_str() == folder.label);
        let is_own = is_plain_word(&folder.label) && !self.folders.iter().any(names_another);
        if is_own { &folder.label } else { folder.id.as_str() }
    }

    pub fn folder(&self, id: &FolderId) -> Option<&Folder> {
        self.folders.iter().find(|f| f.id == *id)
    }

    /// The peer with this name, id, or short id.
    pub fn find_peer(&self, word: &str) -> Option<&Peer> {
        choices::find_peer(&self.peers, word)
    }

    /// True where this folder is shared with this peer.
    pub fn shares(&self, folder: &Folder, peer: &DeviceId) -> bool {
        self.peer(peer).is_some()
            && match &folder.peers {
                Sharing::All => true,
                Sharing::Only(peers) => peers.contains(peer),
            }
    }

    /// The folder that holds this absolute path.
    pub fn folder_at(&self, path: &Path) -> Option<&Folder> {
        self.folders.iter().find(|f| path.starts_with(&f.path))
    }
}

/// Reads and checks the config file of this home.
pub fn load(home: &Home) -> Result<Config, ConfigError> {
    let path = home.config_file();
    parse(&read(&path)?, &path, &surroundings(home))
}

/// What a config file of this home is read against.
pub fn surroundings(home: &Home) -> Surroundings {
    Surroundings {
        user_dir: home.user_dir().to_owned(),
        index_dir: resolve(&home.index_dir()),
        own_dirs: home.own_dirs().iter().map(|dir| resolve(dir)).collect(),
        listen: std::env::var(LISTEN_VARIABLE).ok().filter(|v| !v.is_empty()),
        host_name: host_name(),
        resolve,
    }
}

/// The text of a config file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Io { doing: "read", path: path.to_owned(), source };
    let length = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing { path: path.to_owned() });
        }
        found => found.map_err(fail)?.len(),
    };
    if length > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// The path with links resolved as far as it exists.
pub fn resolve(path: &Path) -> PathBuf {
    for base in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (base.canonicalize(), path.strip_prefix(base)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests;
