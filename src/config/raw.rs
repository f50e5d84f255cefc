//! The shape of the config file, before its values are checked. Spans lead mistakes back to their place.

use serde::Deserialize;
use serde_spanned::Spanned;

use super::manners::{RawLimits, RawManners};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    /// Checked before the rest is read.
    #[serde(rename = "version")]
    pub _version: Option<i64>,
    pub name: Option<Spanned<String>>,
    #[serde(default)]
    pub network: RawNetwork,
    #[serde(default)]
    pub sync: RawSync,
    #[serde(default)]
    pub limits: RawLimits,
    #[serde(default)]
    pub manners: RawManners,
    pub notifications: Option<bool>,
    #[serde(default)]
    pub api: RawApi,
    #[serde(default, rename = "peer")]
    pub peers: Vec<RawPeer>,
    #[serde(default, rename = "folder")]
    pub folders: Vec<RawFolder>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNetwork {
    pub listen: Option<Spanned<String>>,
    pub multicast: Option<bool>,
    pub multicast_v4: Option<Spanned<String>>,
    pub multicast_v6: Option<Spanned<String>>,
    pub discovery_port: Option<Spanned<u16>>,
    #[serde(default)]
    pub announce_to: Vec<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSync {
    pub rescan_minutes: Option<Spanned<u32>>,
    pub reconcile_minutes: Option<Spanned<u32>>,
    pub history_days: Option<Spanned<u32>>,
    pub history_max_percent: Option<Spanned<u32>>,
    pub history_max_gib: Option<Spanned<u32>>,
    pub hold_deletes_above: Option<u64>,
    pub hold_deletes_percent: Option<Spanned<u8>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    #[serde(default)]
    pub browser_port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPeer {
    pub id: Spanned<String>,
    pub name: Option<Spanned<String>>,
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    pub upload_kib_s: Option<Spanned<u32>>,
    pub download_kib_s: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFolder {
    pub id: Spanned<String>,
    pub label: Option<Spanned<String>>,
    pub path: Spanned<String>,
    pub peers: Option<Spanned<RawSharing>>,
    #[serde(default)]
    pub paused: bool,
    pub paused_until: Option<Spanned<String>>,
    pub direction: Option<Spanned<String>>,
    pub only: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"all\", or a list of names or ids of peers")]
pub(super) enum RawSharing {
    Word(String),
    List(Vec<String>),
}
