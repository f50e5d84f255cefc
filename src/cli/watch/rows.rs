//! The lines of each part of the screen, for a given width.

use ratatui::text::Span;

use super::screen::Screen;
use crate::api::{EventItem, FolderState, FolderStatus, PeerStatus, TransferItem};
use crate::cli::output::{self, clean, count, local_time};
use crate::cli::status::words;
use crate::cli::style::Tone;

/// Columns that names take at most.
const NAME_COLUMNS_MAX: usize = 20;
/// Columns that the devices take at most from which a file comes.
const FROM_COLUMNS_MAX: usize = 30;
/// Columns of a bar of progress, where there is room for one.
const BAR_COLUMNS: usize = 10;
/// From this width on there is room for a bar.
const BAR_FROM_COLUMNS: usize = 70;

/// A line with what it means.
pub type Row = (Tone, String);

/// One row per folder.
pub fn folders(screen: &Screen, width: usize) -> Vec<Row> {
    let name_columns = name_columns(screen.folders().iter().map(|folder| folder.label.as_str()));
    let row = |folder: &FolderStatus| {
        let percent = folder.complete_percent.map_or(String::new(), |percent| format!("{percent} %"));
        let bar = match folder.complete_percent.filter(|percent| *percent < 100 && width >= BAR_FROM_COLUMNS) {
            Some(percent) => format!("{}  ", bar(percent.into(), 100)),
            None => String::new(),
        };
        let name = padded(&clean(&folder.label), name_columns);
        (words::tone(folder.state), format!("{name}  {percent:>5}  {bar}{}", doing(folder)))
    };
    screen.folders().iter().map(row).collect()
}

/// What goes on in a folder, the most telling first.
fn doing(folder: &FolderStatus) -> String {
    if folder.state != FolderState::Syncing {
        return words::state_text(folder);
    }
    let mut parts = Vec::new();
    parts.extend(folder.rate_in.filter(|n| *n > 0).map(|n| format!("in {}", words::rate(n))));
    parts.extend(folder.rate_out.filter(|n| *n > 0).map(|n| format!("out {}", words::rate(n))));
    parts.extend(folder.eta_seconds.map(|seconds| format!("{} left", words::about(seconds))));
    if parts.is_empty() { words::state_text(folder) } else { parts.join(", ") }
}

/// More about the selected folder.
pub fn detail(folder: &FolderStatus) -> String {
    let mut parts = vec![words::state_text(folder), words::held_here(folder)];
    // Where something is on its way, the sentence tells of it.
    let tells_need = matches!(folder.state, FolderState::Syncing | FolderState::WaitingForPeers);
    if folder.need_files > 0 && !tells_need {
        let files = count(folder.need_files, "file", "files");
        parts.push(format!("{files}, {} to come", output::bytes(folder.need_bytes)));
    }
    let (problems, conflicts) = (words::problems_of(folder), folder.conflicts);
    parts.extend(
        (problems > 0 && folder.state != FolderState::Problems).then(|| count(problems, "problem", "problems")),
    );
    parts.extend((conflicts > 0).then(|| count(conflicts, "conflict copy", "conflict copies")));
    parts.join("; ")
}

/// One row per peer, the connected first.
pub fn peers(screen: &Screen) -> Vec<Row> {
    let Some(status) = &screen.status else { return Vec::new() };
    let name_columns = name_columns(status.peers.iter().map(|peer| peer.name.as_str()));
    let mut peers: Vec<&PeerStatus> = status.peers.iter().collect();
    peers.sort_by_key(|peer| !peer.connected);
    let row = |peer: &PeerStatus| {
        let name = padded(&clean(&peer.name), name_columns);
        let tone = match (peer.connected, peer.behind_items) {
            (true, 0) => Tone::Good,
            (true, _) => Tone::Busy,
            (false, _) => Tone::Faint,
        };
        (tone, format!("{name}  {}", peer_text(peer, screen.now_ms)))
    };
    peers.into_iter().map(row).collect()
}

fn peer_text(peer: &PeerStatus, now_ms: i64) -> String {
    let mut parts = Vec::new();
    if peer.connected {
        match peer.behind_items {
            0 => parts.push("has everything".to_owned()),
            items => {
                let bytes = output::bytes(peer.behind_bytes);
                parts.push(format!("lacks {} ({bytes})", count(items, "item", "items")));
            }
        }
        parts.extend(words::telling(peer.rate_in).map(|n| format!("in {}", words::rate(n))));
        parts.extend(words::telling(peer.rate_out).map(|n| format!("out {}", words::rate(n))));
    }
    parts.push(words::connection(peer, now_ms));
    parts.extend(peer.trouble.as_ref().map(|trouble| clean(trouble)));
    parts.extend(peer.proved_identical_ms.map(|ms| format!("proved identical {}", output::ago(ms, now_ms))));
    parts.join("; ")
}

/// Files on their way, largest first.
pub fn transfers(screen: &Screen, width: usize) -> Vec<Row> {
    let all = screen.folders().iter().flat_map(|folder| folder.transfers.iter().map(move |item| (folder, item)));
    let mut all: Vec<(&FolderStatus, &TransferItem)> = all.collect();
    all.sort_by_key(|(_, item)| std::cmp::Reverse(item.bytes));
    let progress: Vec<String> = all.iter().map(|(_, item)| progress(item, width)).collect();
    // The same for all, so that the bars stand below each other.
    let rest_columns = progress.iter().map(|text| columns(text)).max().unwrap_or(0);
    let room = width.saturating_sub(rest_columns).max(width / 4);
    let row = |((folder, item), progress): ((&FolderStatus, &TransferItem), &String)| {
        let path = format!("{}/{}", clean(&folder.label), clean(&item.path));
        (Tone::Busy, format!("{}{progress}", padded(&shortened(&path, room), room)))
    };
    all.into_iter().zip(&progress).map(row).collect()
}

/// How many files are on their way in all.
pub fn transfers_total(screen: &Screen) -> u64 {
    screen.folders().iter().map(|folder| folder.transfers_total).sum()
}

/// How far a file has come, and from where.
fn progress(item: &TransferItem, width: usize) -> String {
    let size = format!("{} of {}", output::bytes(item.done_bytes), output::bytes(item.bytes));
    let from: Vec<String> = item.from.iter().map(|name| clean(name)).collect();
    let from = cut(&from.join(", "), FROM_COLUMNS_MAX);
    let from = if from.is_empty() { from } else { format!("  {from}") };
    let bar = match width >= BAR_FROM_COLUMNS {
        true => format!("  {}", bar(item.done_bytes, item.bytes)),
        false => String::new(),
    };
    format!("{bar}  {:>3} %  {size:<18}{from}", percent(item.done_bytes, item.bytes))
}

/// The latest events, the latest first.
pub fn events(screen: &Screen) -> Vec<Row> {
    let row = |event: &EventItem| {
        let time = local_time(event.time_ms);
        let time = time.split_once(' ').map_or(time.as_str(), |(_, of_day)| of_day).to_owned();
        let is_bad = matches!(event.kind.as_str(), "problem" | "halted" | "held" | "conflict");
        (if is_bad { Tone::Bad } else { Tone::Faint }, format!("{time}  {}", clean(&event.text)))
    };
    screen.events.iter().rev().map(row).collect()
}

fn percent(done: u64, all: u64) -> u64 {
    // A quotient of at most a hundred fits.
    (u128::from(done.min(all)) * 100).checked_div(all.into()).map_or(100, |percent| percent as u64)
}

/// A bar of progress.
pub fn bar(done: u64, all: u64) -> String {
    let filled = percent(done, all) as usize * BAR_COLUMNS / 100;
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_COLUMNS - filled))
}

fn name_columns<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| columns(&clean(name))).max().unwrap_or(0).min(NAME_COLUMNS_MAX)
}

/// Columns that a text takes on the screen.
fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in exactly so many columns.
fn padded(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let blanks = " ".repeat(width.saturating_sub(columns(&text)));
    text + &blanks
}

/// The beginning of a text, with a mark where some of it is left out.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if columns(&kept) >= width {
            kept.pop();
            break;
        }
    }
    if width > 0 { kept + "…" } else { kept }
}

/// The end of a path, which tells more than its beginning.
fn shortened(path: &str, width: usize) -> String {
    if columns(path) <= width {
        return path.to_owned();
    }
    let mut kept = String::new();
    for c in path.chars().rev() {
        kept.insert(0, c);
        if columns(&kept) >= width {
            kept.remove(0);
            break;
        }
    }
    if width > 0 { format!("…{kept}") } else { kept }
}
