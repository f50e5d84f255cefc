//! Folders that a device had before it was paired anew, and that are not shared with it now: whoever pairs is asked.

use crate::api::KnownFolder;
use crate::config::Config;
use crate::core::id::{DeviceId, FolderId};
use crate::home::Home;
use crate::index::Reader;

/// Folders of this device that are not shared with `device`, but that it has or had: it offers them, or it took part in
/// them as a peer. Reads the indexes of folders.
pub fn folders(home: &Home, config: &Config, device: &DeviceId, offered: &[FolderId]) -> Vec<KnownFolder> {
    let mut found = Vec::new();
    for folder in config.folders.iter().filter(|folder| !config.shares(folder, device)) {
        let is_offered = offered.contains(&folder.id);
        if is_offered || has_had(home, &folder.id, device) {
            found.push(KnownFolder { id: folder.id.to_string(), label: folder.label.clone(), offered: is_offered });
        }
    }
    found
}

fn has_had(home: &Home, folder: &FolderId, device: &DeviceId) -> bool {
    let known = Reader::open(&home.index_file(folder)).and_then(|reader| reader.has_had(*device));
    known.unwrap_or_else(|error| {
        // Whoever pairs may share the folder all the same.
        tracing::debug!(%folder, %error, "it is not known whether a device had the folder");
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, NewFolder, NewPeer, Sharing};
    use crate::core::id::EpochId;
    use crate::index::{Index, PeerRow};

    #[test]
    fn a_folder_counts_that_the_device_had_or_has_and_that_is_not_shared_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Home::at(&root.join("home"), root.clone());
        home.create().unwrap();
        let device = DeviceId([3; 32]);
        let peer = NewPeer { id: device, name: Some("desk".into()), addresses: Vec::new() };
        config::add_peer(&home, &peer).unwrap();
        for (id, peers) in [
            ("had", Sharing::Only(Vec::new())),
            ("has", Sharing::Only(Vec::new())),
            ("never", Sharing::Only(Vec::new())),
            ("shared", Sharing::All),
        ] {
            let new = NewFolder { id: id.parse().unwrap(), label: id.into(), path: root.join(id), peers };
            config::add_folder(&home, &new).unwrap();
            let mut index = Index::open(&home.index_file(&new.id), EpochId(1)).unwrap();
            if id == "had" {
                let row = PeerRow {
                    device,
                    cursor: None,
                    their_last_seq: 0,
                    acked: 1,
                    applied: 0,
                    proved_ms: None,
                    last_seen_ms: None,
                };
                index.set_peer(&row).unwrap();
                index.forget_peer(device).unwrap();
            }
        }
        let config = config::load(&home).unwrap();
        let offered: Vec<FolderId> = ["has", "shared", "elsewhere"].map(|id| id.parse().unwrap()).to_vec();
        let found = folders(&home, &config, &device, &offered);
        let known = |id: &str, offered| KnownFolder { id: id.into(), label: id.into(), offered };
        assert_eq!(found, [known("had", false), known("has", true)]);
        assert_eq!(folders(&home, &config, &DeviceId([4; 32]), &[]), []);
    }
}
