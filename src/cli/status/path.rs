//! What `p2psync status PATH` says.

use crate::api::PathStatus;
use crate::cli::output::{self, clean};
use crate::cli::style::{Style, Tone};

/// State, reasons, and what lies here and at each peer.
pub fn text(found: &PathStatus, place: &str, now_ms: i64, style: Style) -> String {
    let state = found.state.replace('_', " ");
    let tone = match found.state.as_str() {
        "in_sync" | "deleted" => Tone::Good,
        "syncing" | "waiting" => Tone::Busy,
        "problem" | "conflict" => Tone::Bad,
        _ => Tone::Faint,
    };
    let folder = if found.folder.is_empty() { String::new() } else { format!(" in {}", clean(&found.folder)) };
    let since = found.since_ms.map(|ms| format!(", first seen {}", output::ago(ms, now_ms))).unwrap_or_default();
    let mut text = format!("{}{folder}: {}{since}\n", output::name(place), style.paint(tone, &clean(&state)));
    for sentence in &found.explanation {
        text.push_str(&style.hanging("", &clean(sentence)));
    }
    if let Some(next) = &found.next {
        text.push_str(&style.hanging("Next: ", &clean(next)));
    }
    let width = found.peers.iter().map(|peer| clean(&peer.name).chars().count()).max().unwrap_or(0).max(4);
    if let Some(here) = &found.here {
        text.push_str(&style.hanging(&format!("  {:<width$}  ", "here"), &clean(here)));
    }
    for peer in &found.peers {
        let mut parts = vec![clean(&peer.text)];
        parts.extend(peer.version.as_ref().map(|version| clean(version)));
        parts.extend((!peer.connected).then(|| "not connected".to_owned()));
        text.push_str(&style.hanging(&format!("  {:<width$}  ", clean(&peer.name)), &parts.join("; ")));
    }
    text
}
