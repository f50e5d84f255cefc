//! `p2psync history --usage` and `p2psync history prune`.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::bail;

use super::arguments_past::GoingBack;
use super::context::{Context, find_folder};
use super::exit::misuse;
use super::history::parse_age;
use super::output::{self, Table, clean, count};
use super::undo::ask_whether;
use crate::api::client;
use crate::api::{HistoryUsage, PruneReport, Reply, Request};
use crate::engine;

/// Time for the agent to remove many files.
const REMOVING_TIME: Duration = Duration::from_secs(3600);

/// Shows how much space the history takes.
pub fn usage(context: &Context, folder: Option<&str>, json: bool) -> anyhow::Result<()> {
    let folder = folder_id(context, folder)?;
    let all = context.ask_or_read(
        &Request::HistoryUsage { folder: folder.clone() },
        |reply| match reply {
            Reply::HistoryUsage(all) => Some(all),
            _ => None,
        },
        |config| engine::report::history_usage(&context.home, config, folder.as_deref(), None),
    )?;
    if json { output::print_json(&all) } else { output::print(&usage_text(&all, context.now_ms)) }
}

fn folder_id(context: &Context, folder: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(word) = folder else { return Ok(None) };
    Ok(Some(find_folder(&context.config()?, Some(word))?.id.to_string()))
}

fn usage_text(all: &[HistoryUsage], now_ms: i64) -> String {
    if all.is_empty() {
        return "There is no history yet.\n".to_owned();
    }
    let mut table =
        Table::new(&["FOLDER", "VERSIONS", "SIZE", "AT MOST", "OLDEST", "KEPT FOR"]).with_names(&["FOLDER"]);
    for one in all {
        let most = one.limit_bytes.map_or(String::new(), output::bytes);
        let oldest = one.oldest_ms.map_or(String::new(), |ms| output::ago(ms, now_ms));
        let days = count(u64::from(one.days), "day", "days");
        table.row([one.folder.clone(), output::number(one.versions), output::bytes(one.bytes), most, oldest, days]);
    }
    format!("{table}\nTo make room: p2psync history prune --older-than 10d\n")
}

/// Removes earlier versions for good.
pub fn prune(
    context: &Context,
    folder: Option<&str>,
    older_than: Option<&str>,
    going: &GoingBack,
) -> anyhow::Result<()> {
    let folder = folder_id(context, folder)?;
    let age_ms = match older_than {
        Some(text) => parse_age(text)
            .ok_or_else(|| misuse(format!("--older-than is an age such as 12h, 10d or 4w, not '{}'", clean(text))))?,
        None => 0,
    };
    let before_ms = context.now_ms.saturating_sub(age_ms);
    let plan = ask(context, folder.clone(), before_ms, true)?;
    if going.dry_run || plan.iter().all(|one| one.versions == 0) {
        return show(&plan, going.json);
    }
    if !going.yes {
        if !io::stdin().is_terminal() {
            return Err(misuse(format!("{}say --yes to do this", prune_text(&plan))));
        }
        ask_whether(&format!("{}They cannot be brought back then. ", prune_text(&plan)))?;
    }
    show(&ask(context, folder, before_ms, false)?, going.json)
}

fn ask(context: &Context, folder: Option<String>, before_ms: i64, dry_run: bool) -> anyhow::Result<Vec<PruneReport>> {
    let request = Request::HistoryPrune { folder, before_ms, dry_run };
    match client::ask(&context.home, &request, REMOVING_TIME) {
        Ok(Reply::Pruned(reports)) => Ok(reports),
        Ok(_) => bail!("the agent answered something else; it may be of another version: restart it"),
        Err(error) => Err(error.into()),
    }
}

fn show(reports: &[PruneReport], json: bool) -> anyhow::Result<()> {
    if json { output::print_json(&reports) } else { output::print(&prune_text(reports)) }
}

fn prune_text(reports: &[PruneReport]) -> String {
    let mut text = String::new();
    let something = |one: &&PruneReport| one.versions > 0;
    let told: Vec<&PruneReport> = match reports.iter().any(|one| one.versions > 0) {
        true => reports.iter().filter(something).collect(),
        false => reports.iter().collect(),
    };
    for one in told {
        let verb = if one.dry_run { "would go" } else { "have gone" };
        let versions = count(one.versions, "earlier version", "earlier versions");
        let _ = writeln!(text, "{}: {versions} {verb}, {}", clean(&one.folder), output::bytes(one.bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_history_takes_and_what_would_go_is_told() {
        let usage = HistoryUsage {
            folder: "Docs".into(),
            id: "docs".into(),
            versions: 1204,
            bytes: 3 << 20,
            oldest_ms: Some(0),
            days: 30,
            limit_bytes: Some(20 << 30),
        };
        assert_eq!(usage_text(&[], 0), "There is no history yet.\n");
        let shown = usage_text(&[usage], 3 * 86_400_000);
        for part in ["Docs", "1,204", "3.0 MB", "20 GB", "3 days ago", "30 days", "prune --older-than"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let report = PruneReport { folder: "Docs".into(), dry_run: true, versions: 1, bytes: 5, ..Default::default() };
        assert_eq!(prune_text(std::slice::from_ref(&report)), "Docs: 1 earlier version would go, 5 bytes\n");
        let done = PruneReport { dry_run: false, versions: 2, ..report };
        assert_eq!(prune_text(&[done]), "Docs: 2 earlier versions have gone, 5 bytes\n");
    }
}
