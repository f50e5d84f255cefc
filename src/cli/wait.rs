//! `p2psync wait`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::arguments_past::Waiting;
use super::context::Context;
use super::exit::{Exit, misuse};
use super::flow::held;
use super::history::parse_age;
use super::output::{self, clean, count};
use crate::api::client;
use crate::api::{Reply, Request, WaitPeer, WaitReport, WirePath};

/// How long one question waits at the agent before it is asked again.
const ASK_TIME: Duration = Duration::from_secs(20);
/// The same of the first question: soon it is told what is waited for.
const FIRST_ASK_TIME: Duration = Duration::from_secs(1);
/// Time for the agent to answer on top of that.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Waits until other devices have what is here.
pub fn run(context: &Context, waiting: &Waiting) -> anyhow::Result<()> {
    let peers = parse_peers(&waiting.peers)?;
    let end = match &waiting.timeout {
        Some(text) => Some(Instant::now() + parse_timeout(text)?),
        None => None,
    };
    let config = context.config()?;
    let paths: Vec<PathBuf> = match &waiting.path {
        Some(path) => vec![context.path_in_folder(&config, path)?],
        None => config.folders.iter().filter(|folder| !folder.paused).map(|folder| folder.path.clone()).collect(),
    };
    if paths.is_empty() {
        return Err(misuse("there is no folder to wait for; 'p2psync folder list' shows all"));
    }
    let mut reports = Vec::new();
    for path in &paths {
        let report = wait_for(context, path, peers, end, waiting.json)?;
        if let Some(trouble) = &report.trouble {
            let path = output::short_path(Path::new(&report.path), context.home.user_dir());
            bail!("{path}: {}", clean(trouble));
        }
        if let Some(few) = too_few(&report) {
            return Err(misuse(few));
        }
        reports.push(report);
    }
    if waiting.json {
        output::print_json(&reports)?;
    } else {
        let user_dir = context.home.user_dir();
        reports.iter().try_for_each(|report| output::print(&text(report, user_dir, context.now_ms)))?;
    }
    match reports.iter().all(|report| report.done) {
        true => Ok(()),
        false => Err(Exit::NotInSync.into()),
    }
}

/// Asks until it is so or the time is over. At the end it is asked at least once.
fn wait_for(
    context: &Context,
    path: &Path,
    peers: Option<u32>,
    end: Option<Instant>,
    is_quiet: bool,
) -> anyhow::Result<WaitReport> {
    let mut upto = None;
    let mut told = String::new();
    let mut patience = FIRST_ASK_TIME;
    loop {
        let left = end.map_or(patience, |end| end.saturating_duration_since(Instant::now()).min(patience));
        patience = ASK_TIME;
        let for_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Wait { path: WirePath(path.to_owned()), peers, upto, for_ms };
        let report = match client::ask(&context.home, &request, left + ANSWER_TIME) {
            Ok(Reply::Waited(report)) => report,
            Ok(_) => bail!("the agent answered something else; it may be of another version: restart it"),
            Err(error) => return Err(error.into()),
        };
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        if report.done || report.trouble.is_some() || is_over || too_few(&report).is_some() {
            return Ok(report);
        }
        upto = report.upto;
        let waits = waits_for(&report, context.now_ms);
        if !is_quiet && waits != told {
            output::tell(&waits);
            told = waits;
        }
    }
}

fn too_few(report: &WaitReport) -> Option<String> {
    let all = u32::try_from(report.peers.len()).unwrap_or(u32::MAX);
    (report.wanted > all).then(|| {
        let devices = count(u64::from(all), "other device shares", "other devices share");
        format!("only {devices} the folder '{}', so {} cannot have it", clean(&report.folder), report.wanted)
    })
}

fn text(report: &WaitReport, user_dir: &Path, now_ms: i64) -> String {
    let names: Vec<String> = report.peers.iter().filter(|peer| peer.holds).map(|peer| clean(&peer.name)).collect();
    let path = held(&output::short_path(Path::new(&report.path), user_dir));
    if !report.done {
        return format!("{path}: not on as many devices as you want\n{}", waits_for(report, now_ms));
    }
    let mut text = match names.is_empty() {
        true => format!("{path}: no other device had to have it\n"),
        false => format!("{path} is on {}\n", names.join(", ")),
    };
    for peer in report.peers.iter().filter(|peer| peer.holds && peer.refused_items > 0) {
        let items = count(peer.refused_items, "item", "items");
        let _ = writeln!(text, "  {} does not keep {items}: {}", clean(&peer.name), first_missing(peer));
    }
    text
}

/// What is missing where, a line for each device.
fn waits_for(report: &WaitReport, now_ms: i64) -> String {
    let mut text = String::new();
    for peer in report.peers.iter().filter(|peer| !peer.holds) {
        let missing = peer.missing_items.max(peer.refused_items);
        let items = match (missing, report.upto) {
            _ if peer.lacks_folder => {
                let label = output::quoted(&clean(&report.folder));
                format!(
                    "it is paused, stopped or removed there; if it never was there, type there: p2psync folder accept {label}"
                )
            }
            (0, _) => "has not said what it has".to_owned(),
            (_, None) => "changes here are still being looked at".to_owned(),
            _ => format!("{}, such as {}", lacks(missing, peer.deleted_items), first_missing(peer)),
        };
        let seen = match (peer.connected, peer.last_seen_ms) {
            (true, _) => "connected".to_owned(),
            (false, Some(seen)) => format!("not connected, last seen {}", output::ago(seen, now_ms)),
            (false, None) => "not connected yet".to_owned(),
        };
        let _ = writeln!(text, "  {} ({seen}): {items}", clean(&peer.name));
    }
    // All that was told of is there, but not all was told of yet.
    if text.is_empty() && !report.done {
        text.push_str("  changes here are still being looked at\n");
    }
    text
}

fn lacks(missing: u64, deleted: u64) -> String {
    let deleted = deleted.min(missing);
    let parts = [
        (missing > deleted).then(|| format!("lacks {}", count(missing - deleted, "item", "items"))),
        (deleted > 0).then(|| format!("has still to delete {}", count(deleted, "item", "items"))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn first_missing(peer: &WaitPeer) -> String {
    peer.missing
        .first()
        .map(|item| format!("{}, which {}", output::name(&item.path), clean(&item.text)))
        .unwrap_or_default()
}

fn parse_peers(text: &str) -> anyhow::Result<Option<u32>> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(None);
    }
    let number: Option<u32> = text.parse().ok().filter(|number| *number > 0);
    let wrong = || misuse(format!("--peers is 'all' or a number from 1 on, not '{}'", clean(text)));
    number.map(Some).ok_or_else(wrong)
}

/// Reads a time such as `90s` or `5m`; a plain number is in seconds.
fn parse_timeout(text: &str) -> anyhow::Result<Duration> {
    let plain = text.parse::<u32>().ok().map(|seconds| u64::from(seconds) * 1000);
    let time_ms = plain.or_else(|| parse_age(text).map(i64::unsigned_abs));
    let wrong = || misuse(format!("--timeout is a time such as 90s, 5m or 2h, not '{}'", clean(text)));
    Ok(Duration::from_millis(time_ms.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WaitItem;

    fn report(holds: bool) -> WaitReport {
        let missing = vec![WaitItem { path: "a".into(), text: "is not there yet".into() }];
        let peer = WaitPeer { name: "desk".into(), last_seen_ms: Some(0), ..WaitPeer::default() };
        let peer = match holds {
            true => WaitPeer { holds, ..peer },
            false => WaitPeer { missing_items: 3, missing, ..peer },
        };
        let (holding, wanted) = (u32::from(holds), 1);
        WaitReport {
            path: "/home/me/docs".into(),
            folder: "Docs".into(),
            done: holds,
            wanted,
            holding,
            peers: vec![peer],
            upto: Some(7),
            trouble: None,
        }
    }

    #[test]
    fn who_has_it_and_who_lacks_what_is_told() {
        assert_eq!(text(&report(true), Path::new("/home/me"), 0), "~/docs is on desk\n");
        let waits =
            "  desk (not connected, last seen 5 minutes ago): lacks 3 items, such as a, which is not there yet\n";
        assert_eq!(
            text(&report(false), Path::new("/home/me"), 300_000),
            format!("~/docs: not on as many devices as you want\n{waits}")
        );
        // Nobody lacks what was told of, but this device has not looked at all yet.
        let looking = WaitReport { done: false, upto: None, ..report(true) };
        assert_eq!(waits_for(&looking, 0), "  changes here are still being looked at\n");
        let mut away = report(false);
        away.peers[0].deleted_items = 2;
        assert!(
            text(&away, Path::new("/home/me"), 300_000)
                .contains("lacks 1 item and has still to delete 2 items, such as a")
        );
        (away.peers[0].lacks_folder, away.peers[0].connected) = (true, true);
        let told = text(&away, Path::new("/home/me"), 300_000);
        assert!(told.contains("desk (connected): it is paused, stopped or removed there"), "{told}");
        assert!(told.contains("p2psync folder accept Docs"), "{told}");
        let refused = WaitPeer {
            refused_items: 1,
            missing: report(false).peers[0].missing.clone(),
            ..report(true).peers[0].clone()
        };
        let told = text(&WaitReport { peers: vec![refused], ..report(true) }, Path::new("/home/me"), 0);
        assert!(told.contains("desk does not keep 1 item: a"), "{told}");
    }

    #[test]
    fn more_devices_than_there_are_cannot_be_waited_for() {
        assert_eq!(too_few(&report(false)), None);
        let few = too_few(&WaitReport { wanted: 2, ..report(true) }).unwrap();
        assert_eq!(few, "only 1 other device shares the folder 'Docs', so 2 cannot have it");
    }

    #[test]
    fn times_and_numbers_are_read_or_refused_with_an_example() {
        assert_eq!(parse_timeout("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(parse_timeout("90").unwrap(), Duration::from_secs(90));
        assert!(parse_timeout("soon").unwrap_err().to_string().contains("such as 90s"));
        assert_eq!(parse_peers("All").unwrap(), None);
        assert_eq!(parse_peers("2").unwrap(), Some(2));
        assert!(parse_peers("0").unwrap_err().to_string().contains("from 1 on"));
        assert!(parse_peers("some").is_err());
    }
}
