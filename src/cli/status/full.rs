//! What `p2psync status` says: every folder with what is under way in it, every peer.

use super::words::{self, next_step};
use crate::api::{FolderPeerStatus, FolderStatus, PeerStatus, Status, TransferItem};
use crate::cli::output::{self, clean, count};
use crate::cli::style::{Style, Tone};
use crate::cli::{offers, peer};
use crate::home::Home;

/// Problems listed per folder before the rest is only counted.
const PROBLEMS_LISTED_MAX: usize = 10;
/// Transfers listed per folder before the rest is only counted.
const TRANSFERS_LISTED_MAX: usize = 5;
/// Columns of what stands before each line of a folder: its label, set in.
const LABEL_COLUMNS: usize = 13;
/// Names of devices get so many columns at most; longer ones push the rest to the right.
const NAME_COLUMNS_MAX: usize = 20;

/// All of it.
pub fn text(status: &Status, home: &Home, now_ms: i64, style: Style) -> String {
    let mut text = format!("{}\n", headline(status));
    for folder in &status.folders {
        text.push('\n');
        let id = style.paint(Tone::Faint, &format!("  id {}", clean(&folder.id)));
        let label = style.paint(Tone::Heading, &clean(&folder.label));
        text.push_str(&format!("{label}  {}{id}\n", words::place(folder, home.user_dir())));
        FolderText { text: &mut text, style, now_ms }.folder(folder);
    }
    if !status.peers.is_empty() {
        text.push_str(&format!("\n{}\n", style.paint(Tone::Heading, "Peers")));
        let width = name_columns(status.peers.iter().map(|peer| peer.name.as_str()));
        status.peers.iter().for_each(|peer| peer_text(&mut text, peer, width, now_ms, style));
    }
    text.push('\n');
    text.push_str(&style.hanging("Next: ", &next_step(status, true)));
    text
}

fn headline(status: &Status) -> String {
    let state = if status.running { words::running(status) } else { "not running".to_owned() };
    format!("{}: {state}", words::device(&status.name, &status.device_id))
}

struct FolderText<'a> {
    text: &'a mut String,
    style: Style,
    now_ms: i64,
}

impl FolderText<'_> {
    fn folder(&mut self, folder: &FolderStatus) {
        let state = self.style.paint(words::tone(folder.state), &words::state_text(folder));
        // Colours would be broken where the line is.
        let is_short = self.style.width.is_none_or(|width| words::state_text(folder).len() + LABEL_COLUMNS < width);
        self.line("State", &if is_short { state } else { words::state_text(folder) });
        let directories = count(folder.directories, "directory", "directories");
        let files = count(folder.files, "file", "files");
        self.line("Here", &format!("{files}, {directories}, {}", output::bytes(folder.bytes)));
        if folder.need_files > 0 {
            let what = format!("{}, {}", count(folder.need_files, "file", "files"), output::bytes(folder.need_bytes));
            let pace = words::pace(folder);
            self.line("To come", &if pace.is_empty() { what } else { format!("{what}: {}", pace.join(", ")) });
        }
        self.transfers(folder);
        if let Some(scanned) = folder.last_scan_ms {
            self.line("Scanned", &output::ago(scanned, self.now_ms));
        }
        if !folder.watch.is_empty() && folder.watch != "ok" {
            self.line("Watching", &clean(&folder.watch));
        }
        if let Some(held) = &folder.held {
            self.line("Held back", &clean(&held.text));
        }
        if folder.conflicts > 0 {
            let copies = count(folder.conflicts, "conflict copy", "conflict copies");
            self.line("Conflicts", &format!("{copies}: 'p2psync conflicts' shows them"));
        }
        if let Some(text) = words::only_here(folder) {
            self.line("Only here", &format!("{text}, as far as the other devices have said"));
        }
        self.peers(&folder.peers);
        self.problems(folder);
    }

    fn transfers(&mut self, folder: &FolderStatus) {
        let listed = folder.transfers.iter().take(TRANSFERS_LISTED_MAX);
        let listed: Vec<String> = listed.map(transfer).collect();
        let more = folder.transfers_total.saturating_sub(listed.len() as u64);
        for (number, item) in listed.iter().enumerate() {
            self.line(if number == 0 { "Coming" } else { "" }, item);
        }
        if more > 0 && !listed.is_empty() {
            self.line("", &format!("and {} more", output::number(more)));
        }
    }

    fn peers(&mut self, peers: &[FolderPeerStatus]) {
        let width = name_columns(peers.iter().map(|peer| peer.name.as_str()));
        for (number, peer) in peers.iter().enumerate() {
            let percent = peer.complete_percent.map_or(String::new(), |percent| format!("{percent} %"));
            let first = format!("{}{:<width$}  {percent:>5}  ", label(number == 0, "Peers"), clean(&peer.name));
            let line = self.style.hanging(&first, &words::folder_peer(peer, self.now_ms));
            self.text.push_str(&line);
        }
    }

    fn problems(&mut self, folder: &FolderStatus) {
        if folder.problems_total == 0 {
            return;
        }
        let listed = folder.problems.iter().take(PROBLEMS_LISTED_MAX);
        self.line("Problems", &output::number(folder.problems_total));
        for problem in listed {
            let first = format!("{}{}  ", label(false, ""), output::name(&problem.path));
            let is_long = self.style.width.is_some_and(|width| first.chars().count() > width / 2);
            match is_long {
                true => {
                    self.line("", &output::name(&problem.path));
                    self.line("", &format!("  {}", clean(&problem.text)));
                }
                false => {
                    let line = self.style.hanging(&first, &clean(&problem.text));
                    self.text.push_str(&line);
                }
            }
        }
        let more = folder.problems_total - folder.problems.len().min(PROBLEMS_LISTED_MAX) as u64;
        if more > 0 {
            self.line("", &format!("and {} more: 'p2psync status --problems' lists all", output::number(more)));
        }
    }

    fn line(&mut self, name: &str, text: &str) {
        let line = self.style.hanging(&label(true, name), text);
        self.text.push_str(&line);
    }
}

fn label(is_shown: bool, name: &str) -> String {
    format!("  {:<1$}", if is_shown { name } else { "" }, LABEL_COLUMNS - 2)
}

/// "photos/a.jpg  12 of 40 MB, 30 %, from desktop".
fn transfer(item: &TransferItem) -> String {
    let percent = (item.done_bytes.min(item.bytes) as u128 * 100).checked_div(item.bytes.into()).unwrap_or(0);
    let from: Vec<String> = item.from.iter().map(|name| clean(name)).collect();
    let from = if from.is_empty() { String::new() } else { format!(", from {}", from.join(" and ")) };
    let (done, all) = (output::bytes(item.done_bytes), output::bytes(item.bytes));
    format!("{}  {percent} %, {done} of {all}{from}", output::name(&item.path))
}

/// A peer's connection, traffic, trouble and offers.
fn peer_text(text: &mut String, peer: &PeerStatus, width: usize, now_ms: i64, style: Style) {
    let short = peer.device_id.split('-').next().unwrap_or_default();
    let mut parts = vec![words::connection(peer, now_ms)];
    if peer.bytes_in.max(peer.bytes_out) > 0 {
        parts.push(format!("received {}, sent {}", output::bytes(peer.bytes_in), output::bytes(peer.bytes_out)));
    }
    let rates = [("receiving", peer.rate_in), ("sending", peer.rate_out)];
    let going = rates.iter().filter_map(|(word, bytes)| Some((word, words::telling(*bytes)?)));
    parts.extend(going.map(|(word, bytes)| format!("{word} {}", words::rate(bytes))));
    if peer.behind_items > 0 {
        let bytes = output::bytes(peer.behind_bytes);
        parts.push(format!("lacks {} ({bytes})", count(peer.behind_items, "item", "items")));
    }
    parts.extend(
        words::unpaired(peer).or_else(|| peer.trouble.as_ref().map(|trouble| clean(&output::without_numbers(trouble)))),
    );
    let first = format!("  {:<width$}  {short}  ", clean(&peer.name));
    text.push_str(&style.hanging(&first, &parts.join("; ")));
    if let Some(warning) = peer::clock_warning(peer) {
        text.push_str(&style.hanging(&format!("  {:<width$}  ", ""), &warning));
    }
    for offer in &peer.offers {
        let (label, command) = (clean(&offer.label), offers::command(offer));
        let line = format!("shares '{label}' with this device. To take part: {command}");
        text.push_str(&style.hanging(&format!("  {:<width$}  ", ""), &line));
    }
}

fn name_columns<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| clean(name).chars().count()).max().unwrap_or(0).min(NAME_COLUMNS_MAX)
}
