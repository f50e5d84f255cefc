//! From the text of a config file to a checked [`Config`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_spanned::Spanned;

use super::fault::Fault;
use super::keys::advice_for_unknown;
use super::manners;
use super::raw::{RawConfig, RawFolder, RawNetwork, RawPeer, RawSync};
use super::{Api, Config, ConfigError, Folder, HistoryMax, LABEL_CHARS_MAX, NAME_CHARS_MAX, Network, Peer, Sync};
use crate::core::direction::Direction;
use crate::core::id::{DeviceId, FolderId};

const LISTEN: &str = "[::]:7724";
const MULTICAST_V4: &str = "239.255.77.24";
const MULTICAST_V6: &str = "ff02::7724";
const DISCOVERY_PORT: u16 = 7725;
const RESCAN_MINUTES: u32 = 60;
const RECONCILE_MINUTES: u32 = 10;
const HISTORY_DAYS: u32 = 30;
/// Part of the disk that a history may take.
const HISTORY_MAX_PERCENT: u32 = 20;
const HOLD_DELETES_ABOVE: u64 = 1000;
const HOLD_DELETES_PERCENT: u8 = 80;
/// A year: no period in minutes is longer.
const MINUTES_MAX: u32 = 366 * 24 * 60;
/// A century: no period in days is longer.
const DAYS_MAX: u32 = 36_525;

/// What a config depends on besides its text.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What `~` stands for.
    pub user_dir: PathBuf,
    /// The agent's own directories, links resolved; no folder may contain them.
    pub own_dirs: Vec<PathBuf>,
    /// Where the indexes are, which change with all that is synced.
    pub index_dir: PathBuf,
    /// Takes the place of `network.listen`.
    pub listen: Option<String>,
    /// Name of the device where the file has none.
    pub host_name: String,
    /// Resolves links in a path.
    pub resolve: fn(&Path) -> PathBuf,
}

/// Reads and checks a config; `path` is only for messages.
pub fn parse(text: &str, path: &Path, around: &Surroundings) -> Result<Config, ConfigError> {
    super::version::check(text, path)?;
    let raw: RawConfig = toml_edit::de::from_str(text).map_err(|e| {
        let what = e.message().lines().next().unwrap_or("not a config").trim().to_owned();
        let advice = advice_for(&what);
        Fault::at(path, text, e.span().unwrap_or(0..0), in_plain_words(what), advice)
    })?;
    let reader = Reader { text, path, around };
    let name = match &raw.name {
        Some(name) => reader.name(name)?,
        None => around.host_name.clone(),
    };
    let peers = reader.peers(&raw.peers)?;
    let folders = reader.folders(&raw.folders, &peers)?;
    let api = Api { browser_port: NonZeroU16::new(raw.api.browser_port) };
    Ok(Config {
        name,
        network: reader.network(&raw.network)?,
        sync: reader.sync(&raw.sync)?,
        limits: reader.limits(&raw.limits)?,
        manners: manners::manners(&raw.manners, raw.notifications),
        api,
        peers,
        folders,
    })
}

/// The place that mistakes are reported against.
pub(super) struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    around: &'a Surroundings,
}

impl Reader<'_> {
    pub(super) fn fault(&self, span: Range<usize>, what: impl Into<String>, advice: impl Into<String>) -> ConfigError {
        Fault::at(self.path, self.text, span, what, advice).into()
    }

    fn name(&self, name: &Spanned<String>) -> Result<String, ConfigError> {
        self.words(name, "a name", NAME_CHARS_MAX)
    }

    fn words(&self, text: &Spanned<String>, noun: &str, chars_max: usize) -> Result<String, ConfigError> {
        let trimmed = text.get_ref().trim();
        if trimmed.is_empty() || trimmed.chars().count() > chars_max || trimmed.chars().any(char::is_control) {
            let advice = format!("use 1 to {chars_max} characters without control characters");
            return Err(self.fault(text.span(), format!("this is not {noun}"), advice));
        }
        Ok(trimmed.to_owned())
    }

    fn network(&self, raw: &RawNetwork) -> Result<Network, ConfigError> {
        let listen = match (&self.around.listen, &raw.listen) {
            (Some(text), _) => parse_listen(text).ok_or_else(|| ConfigError::Edit {
                what: format!("{} is '{text}', which is not an address and port", super::LISTEN_VARIABLE),
                advice: format!("write it like {LISTEN} or 127.0.0.1:0"),
            })?,
            (None, Some(text)) => parse_listen(text.get_ref()).ok_or_else(|| {
                self.fault(
                    text.span(),
                    "not an address and port",
                    format!("write it like \"{LISTEN}\" or \"192.168.1.5:7724\""),
                )
            })?,
            (None, None) => parse_listen(LISTEN).expect("the default is an address"),
        };
        let multicast_v4 = match self.group(raw.multicast_v4.as_ref(), MULTICAST_V4, IpAddr::is_ipv4)? {
            IpAddr::V4(group) => group,
            IpAddr::V6(_) => unreachable!("checked to be IPv4"),
        };
        let multicast_v6 = match self.group(raw.multicast_v6.as_ref(), MULTICAST_V6, IpAddr::is_ipv6)? {
            IpAddr::V6(group) => group,
            IpAddr::V4(_) => unreachable!("checked to be IPv6"),
        };
        let port = raw.discovery_port.as_ref();
        if let Some(zero) = port.filter(|p| *p.get_ref() == 0) {
            return Err(self.fault(
                zero.span(),
                "port 0 means any port",
                "all devices need the same port here, 1 to 65535",
            ));
        }
        Ok(Network {
            listen,
            multicast: raw.multicast.unwrap_or(true),
            multicast_v4,
            multicast_v6,
            discovery_port: port.map_or(DISCOVERY_PORT, |p| *p.get_ref()),
            announce_to: self.addresses(&raw.announce_to)?,
        })
    }

    /// A multicast group of the family that `fits` asks for.
    fn group(
        &self,
        raw: Option<&Spanned<String>>,
        usual: &str,
        fits: fn(&IpAddr) -> bool,
    ) -> Result<IpAddr, ConfigError> {
        let text = raw.map_or(usual, |r| r.get_ref());
        match text.parse::<IpAddr>() {
            Ok(group) if group.is_multicast() && fits(&group) => Ok(group),
            _ => {
                let span = raw.map_or(0..0, Spanned::span);
                Err(self.fault(span, "not a multicast group of this kind", format!("the usual one is \"{usual}\"")))
            }
        }
    }

    fn addresses(&self, raw: &[Spanned<String>]) -> Result<Vec<String>, ConfigError> {
        raw.iter()
            .map(|text| match check_address(text.get_ref()) {
                Ok(()) => Ok(text.get_ref().clone()),
                Err(what) => Err(self.fault(text.span(), what, "write it as \"HOST:PORT\", like \"192.168.1.5:7724\"")),
            })
            .collect()
    }

    fn sync(&self, raw: &RawSync) -> Result<Sync, ConfigError> {
        let bounded = |value: Option<&Spanned<u32>>, usual: u32, max: u32| match value {
            Some(v) if *v.get_ref() == 0 || *v.get_ref() > max => Err(self.fault(
                v.span(),
                format!("{} is out of range", v.get_ref()),
                format!("use a number from 1 to {max}"),
            )),
            other => Ok(other.map_or(usual, |v| *v.get_ref())),
        };
        let minutes = |value, usual| bounded(value, usual, MINUTES_MAX).map(|m| Duration::from_secs(u64::from(m) * 60));
        let percent = raw.hold_deletes_percent.as_ref();
        if let Some(over) = percent.filter(|p| *p.get_ref() > 100) {
            return Err(self.fault(over.span(), "more than 100 percent", "use a number from 0 to 100"));
        }
        Ok(Sync {
            rescan: minutes(raw.rescan_minutes.as_ref(), RESCAN_MINUTES)?,
            reconcile: minutes(raw.reconcile_minutes.as_ref(), RECONCILE_MINUTES)?,
            history_days: bounded(raw.history_days.as_ref(), HISTORY_DAYS, DAYS_MAX)?,
            history_max: self.history_max(raw)?,
            hold_deletes_above: raw.hold_deletes_above.unwrap_or(HOLD_DELETES_ABOVE),
            hold_deletes_percent: percent.map_or(HOLD_DELETES_PERCENT, |p| *p.get_ref()),
        })
    }

    fn history_max(&self, raw: &RawSync) -> Result<HistoryMax, ConfigError> {
        let percent = raw.history_max_percent.as_ref();
        if let Some(over) = percent.filter(|p| !(1..=100).contains(p.get_ref())) {
            return Err(self.fault(over.span(), "the percentage is out of range", "use a number from 1 to 100"));
        }
        Ok(match raw.history_max_gib.as_ref().map_or(0, |gib| *gib.get_ref()) {
            0 => HistoryMax::Percent(percent.map_or(HISTORY_MAX_PERCENT, |p| *p.get_ref())),
            gib => HistoryMax::Gib(gib),
        })
    }

    fn peers(&self, raw: &[RawPeer]) -> Result<Vec<Peer>, ConfigError> {
        let (mut peers, mut names, mut ids) = (Vec::<Peer>::new(), HashMap::new(), HashMap::new());
        for peer in raw {
            let span = peer.id.span();
            let id: DeviceId = peer.id.get_ref().parse().map_err(|e| {
                self.fault(span.clone(), format!("{e}"), "copy it from 'p2psync id' on the other device")
            })?;
            if ids.insert(id, ()).is_some() {
                return Err(self.fault(span, "this peer is listed twice", "keep one [[peer]] for each device"));
            }
            let name = match &peer.name {
                Some(name) => self.name(name)?,
                None => id.short(),
            };
            if names.insert(name.clone(), ()).is_some() {
                let span = peer.name.as_ref().map_or(span, Spanned::span);
                return Err(self.fault(
                    span,
                    format!("two peers are named \"{name}\""),
                    "give one of them another name",
                ));
            }
            let caps = self.caps(peer.upload_kib_s.as_ref(), peer.download_kib_s.as_ref())?;
            let caps = (peer.upload_kib_s.is_some() || peer.download_kib_s.is_some()).then_some(caps);
            peers.push(Peer { id, name, addresses: self.addresses(&peer.addresses)?, caps });
        }
        Ok(peers)
    }

    fn folders(&self, raw: &[RawFolder], peers: &[Peer]) -> Result<Vec<Folder>, ConfigError> {
        let (mut folders, mut places) = (Vec::<Folder>::new(), Vec::<PathBuf>::new());
        for folder in raw {
            let id: FolderId = folder.id.get_ref().parse().map_err(|e| {
                self.fault(
                    folder.id.span(),
                    format!("{e}"),
                    "use the id that the folder has on the other devices, or a short word",
                )
            })?;
            if folders.iter().any(|f| f.id == id) {
                let what = format!("two folders have the id \"{id}\"");
                return Err(self.fault(folder.id.span(), what, "give each folder on this device an id of its own"));
            }
            let path = expand(folder.path.get_ref(), &self.around.user_dir).map_err(|what| {
                self.fault(
                    folder.path.span(),
                    what,
                    "write the whole path, like \"/home/me/Documents\" or \"~/Documents\"",
                )
            })?;
            let place = (self.around.resolve)(&path);
            self.check_place(folder, &place, &folders, &places)?;
            let label = match &folder.label {
                Some(label) => self.words(label, "a label", LABEL_CHARS_MAX)?,
                None => id.to_string(),
            };
            places.push(place);
            folders.push(Folder {
                id,
                label,
                path,
                peers: self.sharing(folder, peers)?,
                paused: folder.paused,
                paused_until_ms: folder.paused_until.as_ref().map(|text| self.time(text)).transpose()?,
                direction: folder.direction.as_ref().map_or(Ok(Direction::Both), |word| self.direction(word))?,
                only: folder.only.as_ref().map(|patterns| self.only(patterns)).transpose()?,
            });
        }
        Ok(folders)
    }

    /// Refuses places that lie in one another, and places that contain the agent's own files.
    fn check_place(
        &self,
        raw: &RawFolder,
        place: &Path,
        folders: &[Folder],
        places: &[PathBuf],
    ) -> Result<(), ConfigError> {
        let span = raw.path.span();
        for (other, taken) in folders.iter().zip(places) {
            let what = match (place == taken, place.starts_with(taken), taken.starts_with(place)) {
                (true, ..) => format!("the folder \"{}\" has the same path", other.label),
                (_, true, _) => format!("this lies inside the folder \"{}\" ({})", other.label, taken.display()),
                (_, _, true) => format!("this contains the folder \"{}\" ({})", other.label, taken.display()),
                _ => continue,
            };
            return Err(self.fault(span, what, "folders must not overlap: choose another path or remove one of them"));
        }
        if place.starts_with(&self.around.index_dir) {
            let what = format!("this is where p2psync keeps its own indexes ({})", self.around.index_dir.display());
            return Err(self.fault(span, what, "share another directory"));
        }
        if let Some(own) = self.around.own_dirs.iter().find(|own| own.starts_with(place)) {
            let what = format!("this contains p2psync's own files ({}), with this device's private key", own.display());
            return Err(self.fault(span, what, "share a directory beside them, or move them elsewhere with --home"));
        }
        Ok(())
    }
}

/// Accepts `HOST:PORT` with a port that is not 0.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("\"{text}\" has no port"))?;
    if !port.parse::<u16>().is_ok_and(|p| p != 0) {
        return Err(format!("\"{port}\" is not a port"));
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host = match bare {
        // A link-local address may name its interface after a percent sign.
        Some(v6) => v6.split('%').next().is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && !host.contains(|c: char| c.is_whitespace() || c.is_control() || ":/[]".contains(c))
        }
    };
    if is_host { Ok(()) } else { Err(format!("\"{host}\" is not a host name or address")) }
}

fn parse_listen(text: &str) -> Option<SocketAddr> {
    text.trim().parse().ok()
}

/// An absolute path without `.` and `..`; `~` is the user's home directory.
pub(super) fn expand(text: &str, user_dir: &Path) -> Result<PathBuf, String> {
    let path = match text.strip_prefix('~') {
        Some("") => user_dir.to_owned(),
        Some(rest) if rest.starts_with('/') => user_dir.join(rest.trim_start_matches('/')),
        Some(_) => return Err("only your own home directory can be written with ~".to_owned()),
        None => PathBuf::from(text),
    };
    if !path.is_absolute() {
        return Err("the path is not absolute".to_owned());
    }
    if path.components().any(|c| c == Component::ParentDir) || text.contains('\0') {
        return Err("the path contains '..' or a NUL".to_owned());
    }
    if path.parent().is_none() {
        return Err("the whole disk can't be a folder".to_owned());
    }
    Ok(path.components().collect())
}

/// The reader's words for what people meet often.
fn in_plain_words(what: String) -> String {
    let word = what.split('`').nth(1).unwrap_or_default();
    if what.starts_with("unknown field") {
        format!("there is no setting '{word}' here")
    } else if what.starts_with("missing field") {
        format!("the setting '{word}' is missing here")
    } else {
        what
    }
}

fn advice_for(what: &str) -> String {
    // The reader names the key and those that it knows, each in backquotes.
    let mut quoted = what.split('`').skip(1).step_by(2);
    if let (true, Some(word)) = (what.contains("unknown field"), quoted.next()) {
        return advice_for_unknown(word, &quoted.collect::<Vec<_>>());
    }
    let advice = if what.contains("missing field") {
        "config.example.toml shows every key and where it goes"
    } else if what.contains("invalid type") || what.contains("invalid value") {
        "text goes in \"quotes\"; numbers, true and false without"
    } else if what.contains("duplicate key") {
        "keep one of the two"
    } else {
        "this is not valid TOML here: look for a missing quote, bracket or ="
    };
    advice.to_owned()
}
