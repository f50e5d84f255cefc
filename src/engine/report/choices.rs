//! What the user has chosen for a folder, in words: that it is left alone, which way changes go, and who does not
//! have it.

use super::facts::PeerFacts;
use super::waits::{Coming, Survey};
use super::{Asker, View, words};
use crate::config::Folder;
use crate::core::direction::Direction;

/// The sentence with what the folder's direction holds back.
pub fn with_direction(word: &str, (own_changes, kept_out): (u64, u64), mut text: String) -> String {
    if own_changes > 0 {
        let count = words::count(own_changes, "local change", "local changes");
        let (stays, them) = if own_changes == 1 { ("stays", "it") } else { ("stay", "them") };
        text.push_str(&format!("; {count} that {stays} here ('p2psync folder revert {word}' takes {them} back)"));
    }
    if kept_out > 0 {
        let count = words::count(kept_out, "change", "changes");
        let (of, them) = ("of other devices", if kept_out == 1 { "it" } else { "them" });
        text.push_str(&format!("; {count} {of} not taken ('p2psync folder override {word}' overrules {them})"));
    }
    text
}

/// Why the folder is left alone, and how it goes on.
pub fn paused(asker: Asker, folder: &Folder) -> Option<String> {
    let word = asker.config.word_of(folder);
    if folder.paused {
        return Some(format!("paused; 'p2psync resume {word}' goes on"));
    }
    if let Some(until) = folder.paused_until_ms.filter(|_| folder.is_paused(asker.now_ms)) {
        let until = words::until(until, asker.now_ms);
        return Some(format!("paused until {until}; 'p2psync resume {word}' goes on before that"));
    }
    asker.live.and_then(|live| live.resting.clone())
}

/// What a peer is told that is there, but without this folder.
pub fn unshared_text(peer: &PeerFacts, word: &str) -> String {
    let name = &peer.name;
    match peer.is_known {
        true => format!("{name} does not share this folder now: it is paused, stopped or removed there"),
        false => format!("{name} does not have this folder yet: type there 'p2psync folder accept {word}'"),
    }
}

/// Paths that others have changed in a folder that only sends.
pub fn kept_out(view: &View, survey: &Survey) -> u64 {
    let is_sending = view.folder.direction == Direction::Send;
    survey.waits.iter().filter(|w| is_sending && w.coming == Coming::KeptOut).count() as u64
}
