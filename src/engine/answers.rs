//! Parts of what the agent answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use super::report::LiveFolder;
use super::shared::FolderHandle;
use crate::api::view::TRANSFERS_SHOWN_MAX;
use crate::api::{Reply, Request, Status};
use crate::config::Config;
use crate::core::id::{DeviceId, FolderId};

pub fn in_words(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// What of a status is asked for.
pub fn part_of(config: &Config, status: Status, request: &Request) -> Reply {
    match request {
        Request::Folders => Reply::Folders(status.folders),
        Request::Folder { folder } => match status.folders.into_iter().find(|f| f.id == *folder) {
            Some(folder) => Reply::Folder(folder),
            None => Reply::Missing { text: format!("there is no folder with the id '{folder}'") },
        },
        Request::Peers => Reply::Peers(status.peers),
        Request::Peer { peer } => {
            let id = config.find_peer(peer).map(|peer| peer.id.to_string());
            match status.peers.into_iter().find(|peer| Some(&peer.device_id) == id.as_ref()) {
                Some(peer) => Reply::Peer(peer),
                None => Reply::Missing { text: format!("there is no peer '{peer}'") },
            }
        }
        _ => Reply::Status(status),
    }
}

pub fn failed(text: String) -> Reply {
    Reply::Error { text }
}

/// `shares`: what each connected peer shares with this device.
pub fn live_folder(
    id: &FolderId,
    handle: &FolderHandle,
    shares: &BTreeMap<DeviceId, BTreeSet<FolderId>>,
) -> LiveFolder {
    let (connected, elsewhere): (Vec<_>, Vec<_>) = shares.iter().partition(|(_, folders)| folders.contains(id));
    let (transfers_total, transfers_done, transfers) = handle.live.transfers.look(TRANSFERS_SHOWN_MAX);
    let mut in_flight = handle.live.transfers.paths();
    in_flight.extend(handle.applying.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    LiveFolder {
        scanning: handle.live.is_scanning(),
        watch: handle.live.watch.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        halted: None,
        connected: connected.into_iter().map(|(peer, _)| *peer).collect(),
        unshared: elsewhere.into_iter().map(|(peer, _)| *peer).collect(),
        hints: 0,
        in_flight,
        transfers,
        transfers_total,
        transfers_done,
        rates: handle.live.flow.rates(handle.clock.instant()),
        readers: handle.readers.clone(),
    }
}
