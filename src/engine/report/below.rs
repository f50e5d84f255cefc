//! A directory: what of all that is in it is not in sync, and the first few items of that with their reasons.

use std::collections::BTreeSet;

use super::path::{State, Surroundings, Verdict};
use super::{peer, waits, words};
use crate::api::{PathPeerStatus, PathStatus};
use crate::core::message::{EXCEPTIONS_MAX, Reason};
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::index::{IndexError, Mark};

/// Items that are looked at one by one; beyond that they are only counted.
const LOOKED_AT_MAX: usize = 200;
/// Items that are shown with their reasons.
const SHOWN_MAX: usize = 5;
/// Rows of each kind that are gathered.
const GATHERED_MAX: usize = 1000;
/// Marks of entries that are not as they should be.
const MARKS: [Mark; 6] = [Mark::Missing, Mark::Held, Mark::Suspect, Mark::Declined, Mark::Own, Mark::Reverted];

/// The status of the whole folder.
pub fn of_root(around: &Surroundings) -> Result<PathStatus, IndexError> {
    let (state, mut explanation) = summary(around, None)?;
    explanation.extend(around.obstacles(state)?);
    let mut peers = Vec::new();
    for facts in super::folder::peers(&around.view, &waits::survey(&around.view, None)?)? {
        let lacks = facts.pending + facts.stuck;
        peers.push(PathPeerStatus {
            device_id: facts.device.to_string(),
            name: facts.name,
            connected: facts.is_connected || facts.is_unshared,
            has_it: facts.is_known && lacks == 0,
            text: match (facts.is_known, lacks) {
                _ if facts.is_unshared => "does not share this folder".to_owned(),
                (false, _) => "has not been compared yet".to_owned(),
                (true, 0) => "has everything".to_owned(),
                (true, lacks) => format!("lacks {}", words::count(lacks, "item", "items")),
            },
        });
    }
    Ok(PathStatus {
        state: state.name().to_owned(),
        explanation,
        here: Some("a shared folder".to_owned()),
        peers,
        ..PathStatus::default()
    })
}

/// What all below a directory, or in the whole folder, comes to; the worst state counts.
pub fn summary(around: &Surroundings, dir: Option<&RelPath>) -> Result<Verdict, IndexError> {
    let reader = &around.view.reader;
    let totals = match dir {
        Some(dir) => reader.totals_below(dir)?,
        None => reader.totals()?,
    };
    let files = words::count(totals.files, "file", "files");
    let mut sentences = vec![format!("It holds {files}, {}.", words::bytes(totals.bytes))];
    let (paths, is_all) = out_of_sync(around, dir)?;
    let (mut worst, mut shown, mut count) = (State::InSync, Vec::new(), 0);
    for path in paths.iter().take(LOOKED_AT_MAX) {
        let known = around.look(path)?;
        let (state, reasons) = around.verdict(&known, &peer::at(&around.view, &known)?)?;
        if state <= State::InSync {
            continue;
        }
        count += 1;
        worst = worst.max(state);
        if shown.len() < SHOWN_MAX {
            shown.push(format!("{path}: {}", reasons.first().map_or("", String::as_str)));
        }
    }
    count += paths.len().saturating_sub(LOOKED_AT_MAX) as u64;
    if count > 0 {
        let at_least = if is_all { "" } else { "at least " };
        let of_them = if count > shown.len() as u64 { "; the first of them" } else { "" };
        let items = words::count(count, "item in it is", "items in it are");
        sentences.push(format!("{at_least}{items} not in sync{of_them}:"));
        sentences.append(&mut shown);
    }
    if let Some(dir) = dir {
        let (state, lagging) = lagging(around, dir)?;
        worst = worst.max(state);
        sentences.extend(lagging);
    } else if count == 0 {
        sentences.push("Everything that is known of is here.".to_owned());
    }
    Ok((worst, sentences.iter().map(|text| capital(text)).collect()))
}

/// Paths that are not as they should be here, as far as they were gathered, and whether that is all.
fn out_of_sync(around: &Surroundings, dir: Option<&RelPath>) -> Result<(BTreeSet<RelPath>, bool), IndexError> {
    let reader = &around.view.reader;
    let rivals = reader.rival_paths(None, dir, GATHERED_MAX)?;
    let problems = reader.problems_below(dir, ProblemKind::NoSource, GATHERED_MAX)?;
    let mut is_all = rivals.len() < GATHERED_MAX && problems.len() < GATHERED_MAX;
    let mut paths: BTreeSet<RelPath> = rivals.into_iter().chain(problems.into_iter().map(|row| row.path)).collect();
    for mark in MARKS {
        // A directory sorts directly before all that is below it.
        let marked = reader.marked(mark, dir, GATHERED_MAX)?;
        is_all &= marked.len() < GATHERED_MAX;
        let marked = marked.into_iter().map(|record| record.entry.path);
        paths.extend(marked.take_while(|path| dir.is_none_or(|dir| path.is_below(dir))));
    }
    Ok((paths, is_all))
}

/// What peers lack below a directory.
fn lagging(around: &Surroundings, dir: &RelPath) -> Result<Verdict, IndexError> {
    let (view, mut worst, mut sentences) = (&around.view, State::InSync, Vec::new());
    for peer in view.peers() {
        let applied = view.reader.peer(peer.id)?.map_or(0, |row| row.applied);
        let exceptions = view.reader.exceptions(peer.id, EXCEPTIONS_MAX)?;
        let refused = exceptions
            .iter()
            .filter(|e| e.path.is_below(dir) && !matches!(e.reason, Reason::Ignored | Reason::Declined));
        let lacks = view.reader.count_since(applied, Some(dir))? + refused.count() as u64;
        if lacks == 0 {
            continue;
        }
        let items = words::count(lacks, "item", "items");
        let is_connected = view.is_connected(&peer.id);
        let why = if is_connected { "" } else { " and is not connected" };
        sentences.push(format!("{} still lacks {items} of it{why}.", peer.name));
        worst = worst.max(if is_connected { State::Syncing } else { State::InSync });
    }
    Ok((worst, sentences))
}

/// A list's items keep their names as they are.
fn capital(text: &str) -> String {
    if text.starts_with("at least") { text.replacen("at least", "At least", 1) } else { text.to_owned() }
}
