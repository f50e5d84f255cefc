//! What a folder's table may choose: with whom it is shared, until when it is paused, which way changes go, which part is wanted.

use serde_spanned::Spanned;

use super::parse::Reader;
use super::raw::{RawFolder, RawSharing};
use super::{ConfigError, Peer, Sharing};
use crate::core::direction::Direction;
use crate::core::id::DeviceId;
use crate::core::selection::Selection;

impl Reader<'_> {
    /// A time, in ms since 1970: with its offset from UTC, or as the clock on the wall shows it.
    pub(super) fn time(&self, text: &Spanned<String>) -> Result<i64, ConfigError> {
        let word = text.get_ref().trim();
        let local = || {
            let civil: jiff::civil::DateTime = word.parse().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
        };
        let time = word.parse::<jiff::Timestamp>().ok().or_else(local);
        time.map(jiff::Timestamp::as_millisecond)
            .ok_or_else(|| self.fault(text.span(), "not a date and time", "write it like \"2026-11-23 18:00\""))
    }

    pub(super) fn direction(&self, word: &Spanned<String>) -> Result<Direction, ConfigError> {
        Direction::from_name(word.get_ref().trim()).ok_or_else(|| {
            let what = format!("\"{}\" is no direction", word.get_ref().escape_debug());
            self.fault(word.span(), what, "write \"both\", \"send\" (only from here) or \"receive\" (only to here)")
        })
    }

    pub(super) fn only(&self, patterns: &Spanned<Vec<String>>) -> Result<Selection, ConfigError> {
        Selection::parse(patterns.get_ref()).map_err(|error| {
            let advice = "write paths from the folder's root, such as \"Photos/2026/**\"";
            self.fault(patterns.span(), format!("this selects nothing: {error}"), advice)
        })
    }

    /// With whom the folder is shared.
    pub(super) fn sharing(&self, raw: &RawFolder, peers: &[Peer]) -> Result<Sharing, ConfigError> {
        let Some(spanned) = &raw.peers else { return Ok(Sharing::All) };
        let words = match spanned.get_ref() {
            RawSharing::Word(word) if word.eq_ignore_ascii_case("all") => return Ok(Sharing::All),
            RawSharing::Word(word) => std::slice::from_ref(word),
            RawSharing::List(words) => words,
        };
        let mut chosen = Vec::new();
        for word in words {
            let Some(peer) = find_peer(peers, word) else {
                let known = peers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
                let advice = match known.as_str() {
                    "" => "there is no [[peer]] yet: pair with the device first, or write peers = \"all\"".to_owned(),
                    known => format!("known peers: {known}; or write peers = \"all\""),
                };
                return Err(self.fault(spanned.span(), format!("there is no peer \"{word}\""), advice));
            };
            if !chosen.contains(&peer.id) {
                chosen.push(peer.id);
            }
        }
        Ok(Sharing::Only(chosen))
    }
}

/// The peer with this name, id, or short id.
pub(super) fn find_peer<'a>(peers: &'a [Peer], word: &str) -> Option<&'a Peer> {
    let id = word.parse::<DeviceId>().ok();
    let named = peers.iter().find(|p| p.name == word || Some(p.id) == id);
    let mut short = peers.iter().filter(|p| p.id.short().eq_ignore_ascii_case(word));
    named.or_else(|| short.next().filter(|_| short.next().is_none()))
}
