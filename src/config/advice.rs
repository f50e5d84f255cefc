//! What is allowed in a config, but hardly meant.

use super::{Config, Sharing};

/// Something in the config that works, but probably not as its writer thinks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The setting, such as `folder[0].path`.
    pub key: String,
    pub what: String,
    /// What to do about it.
    pub advice: String,
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
