//! `p2psync history` and `p2psync restore`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::arguments_past::{GoingBack, HistoryCommand, Past};
use super::context::Context;
use super::exit::misuse;
use super::folder::explain;
use super::output::{self, Table};
use super::{history_space, undo};
use crate::api::client;
use crate::api::{HistoryItem, Reply, Request, RewindItem, RewindReport, RewindTo, WaitItem, When, WirePath};
use crate::core::path::RelPath;
use crate::engine;

/// Time for a version to come back, from another device if need be.
const FETCHING_TIME: Duration = Duration::from_secs(6 * 3600);
/// Shortest id of a version, in characters.
const ID_CHARS_MIN: usize = 6;

/// Lists earlier versions, or sees to how much space they take.
pub fn run(context: &Context, past: Past) -> anyhow::Result<()> {
    match (past.command, past.path) {
        (Some(HistoryCommand::Prune { folder, older_than, going }), _) => {
            history_space::prune(context, folder.as_deref(), older_than.as_deref(), &going)
        }
        (None, folder) if past.usage => {
            let folder = folder.map(|folder| folder.to_string_lossy().into_owned());
            history_space::usage(context, folder.as_deref(), past.json)
        }
        (None, Some(path)) => list(context, &path, past.json),
        (None, None) => Err(misuse("say of which file or directory: p2psync history PATH")),
    }
}

/// Lists the earlier versions of a path.
fn list(context: &Context, given: &Path, json: bool) -> anyhow::Result<()> {
    let path = context.path_in_folder(&context.config()?, given)?;
    let items = context.ask_or_read(
        &Request::History { path: WirePath(path.clone()) },
        |reply| match reply {
            Reply::History(items) => Some(items),
            _ => None,
        },
        |config| engine::report::history(&context.home, config, &path, None),
    )?;
    if json {
        return output::print_json(&items);
    }
    output::print(&text(&items, &output::short_path(given, context.home.user_dir()), context.now_ms))
}

fn text(items: &[HistoryItem], shown: &str, now_ms: i64) -> String {
    let Some(first) = items.first() else {
        return format!("There are no earlier versions of {shown}, neither here nor on a device that is connected.\n");
    };
    let mut table =
        Table::new(&["ID", "CHANGED", "SIZE", "WHY KEPT", "WHEN", "BY", "PATH"]).with_names(&["BY", "PATH"]);
    // Versions of one file have no need of its name.
    let is_one_file = items.iter().all(|item| item.path == first.path) && Path::new(shown).ends_with(&first.path);
    for item in items {
        let path = if is_one_file { String::new() } else { item.path.clone() };
        let by = match &item.only_on {
            Some(device) => format!("(on {device})"),
            None => item.displaced_by.clone().unwrap_or_default(),
        };
        let when = output::ago(item.displaced_ms, now_ms);
        let size = output::bytes(item.bytes);
        let changed = output::local_time(item.mtime_ms);
        table.row([item.id.clone(), changed, size, item.reason.clone(), when, by, path]);
    }
    let command = output::quoted(&format!("{shown}@{}", output::clean(&first.id)));
    format!("{table}\nBring one back with: p2psync restore {command}\n")
}

/// Brings back an earlier version of a file, or of all that is in a directory.
pub fn restore(context: &Context, given: &Path, at: Option<&str>, going: &GoingBack) -> anyhow::Result<()> {
    let (given, when) = match at {
        Some(text) => {
            let when = parse_when(text, context.now_ms, &TimeZone::system());
            (given.to_owned(), when.ok_or_else(|| misuse(no_when(text, given)))?)
        }
        None => split_when(given, context.now_ms, &TimeZone::system()),
    };
    if let (When::Latest, Some((path, text))) = (&when, at_sign(&given)) {
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        // With a slip in the time, what is before it is what was meant.
        if !is_there(&given) && is_there(path) {
            return Err(misuse(no_when(text, path)));
        }
    }
    let config = context.config()?;
    let path = context.path_in_folder(&config, &given)?;
    let root = config.folder_at(&path).map(|folder| folder.path.clone()).unwrap_or_default();
    let below = path.strip_prefix(&root).map(|below| below.as_os_str().as_bytes()).unwrap_or_default();
    // As items spell it: their paths are text, which the name itself need not be.
    let itself = RelPath::parse(below).map(|relative| relative.to_string()).unwrap_or_default();
    let items = match context.ask(&Request::History { path: WirePath(path.clone()) }) {
        Ok(Reply::History(items)) => items,
        Ok(_) => Vec::new(),
        Err(error) => return Err(explain(error.into(), "restoring")),
    };
    let is_directory = path == root || path.is_dir() || items.iter().any(|item| item.path != itself);
    if let (When::AtMs(at_ms), true) = (&when, is_directory) {
        return undo::go_back(context, &path, &RewindTo::AtMs(*at_ms), going);
    }
    let place_of = |item: &HistoryItem| if item.path == itself { path.clone() } else { root.join(&item.path) };
    let chosen = choose(&items, &when, |item| item.path != itself && place_of(item).symlink_metadata().is_ok());
    let shown = output::short_path(&given, context.home.user_dir());
    if chosen.is_empty() && when == When::Latest && !items.is_empty() {
        bail!("nothing in {shown} is missing here; 'p2psync restore PATH@2d' brings back what lay there two days ago");
    }
    if chosen.is_empty() {
        return Err(misuse(no_version(&items, &when, &path, &shown)));
    }
    let folder = config.folder_at(&path).map(|folder| folder.label.clone()).unwrap_or_default();
    let mut report = RewindReport {
        folder,
        path: path.to_string_lossy().into_owned(),
        dry_run: going.dry_run,
        ..RewindReport::default()
    };
    for item in chosen {
        let done = match going.dry_run {
            true => Ok(()),
            false => {
                bring(context, &Request::Restore { path: WirePath(place_of(item)), when: When::Id(item.id.clone()) })
            }
        };
        note(&mut report, item, done, going)?;
    }
    if going.json {
        output::print_json(&report)?;
    }
    match report.failed.len() as u64 {
        0 => Ok(()),
        failed => bail!("{} could not be brought back", output::count(failed, "file", "files")),
    }
}

/// Tells what became of a version, or keeps it for those who want JSON.
fn note(
    report: &mut RewindReport,
    item: &HistoryItem,
    done: anyhow::Result<()>,
    going: &GoingBack,
) -> anyhow::Result<()> {
    let name = output::name(&item.path);
    if let Err(error) = done {
        let text = output::error_text(&error);
        if !going.json {
            output::tell(&format!("p2psync: {name}: {text}\n"));
        }
        report.failed.push(WaitItem { path: item.path.clone(), text });
        return Ok(());
    }
    report.bring_back += 1;
    report.items.push(RewindItem { path: item.path.clone(), what: "bring_back".to_owned(), text: None });
    if going.json {
        return Ok(());
    }
    let (size, changed) = (output::bytes(item.bytes), output::local_time(item.mtime_ms));
    let verb = if going.dry_run { "would come back" } else { "is back" };
    output::print(&format!("{name} {verb}: {size}, as of {changed}\n"))
}

/// What another device has may be large and far away.
fn bring(context: &Context, request: &Request) -> anyhow::Result<()> {
    client::ask(&context.home, request, FETCHING_TIME).map(drop).map_err(Into::into)
}

/// One version of each path: the one with this id, the one that lay there at this time, or the latest of each path
/// that is not `taken`. `items` begin with the latest.
fn choose<'a>(items: &'a [HistoryItem], when: &When, taken: impl Fn(&HistoryItem) -> bool) -> Vec<&'a HistoryItem> {
    let mut chosen: BTreeMap<&str, &HistoryItem> = BTreeMap::new();
    for item in items {
        match when {
            When::Latest if !taken(item) => drop(chosen.entry(&item.path).or_insert(item)),
            // What was displaced first after that time lay there at that time.
            When::AtMs(ms) if item.displaced_ms > *ms => drop(chosen.insert(&item.path, item)),
            When::Id(id) if item.id.starts_with(&id.to_ascii_lowercase()) => drop(chosen.insert(&item.path, item)),
            _ => {}
        }
    }
    // What came later did not lie there then; what did is older than all that is known.
    let is_old_enough = |item: &HistoryItem| !matches!(when, When::AtMs(ms) if stood_since_ms(item) > *ms);
    chosen.into_values().filter(|item| is_old_enough(item)).collect()
}

/// Since when it lay there: where that was not noted, since it was changed.
fn stood_since_ms(item: &HistoryItem) -> i64 {
    item.placed_ms.unwrap_or(item.mtime_ms)
}

/// Why there is no version to bring back, and what there is instead.
fn no_version(items: &[HistoryItem], when: &When, path: &Path, shown: &str) -> String {
    let all = format!("'p2psync history {}' lists all", output::quoted(shown));
    let (When::AtMs(at_ms), false) = (when, items.is_empty()) else {
        return format!("there is no such version of {shown} in history; {all}");
    };
    let asked = output::local_time(*at_ms);
    let Some(next) = items.iter().rfind(|item| item.displaced_ms > *at_ms) else {
        return match path.symlink_metadata() {
            Ok(_) => format!("{shown} has not been replaced since {asked}, so there is nothing to bring back"),
            Err(_) => format!("{shown} was gone already at {asked}; {all}"),
        };
    };
    let since = output::local_time(stood_since_ms(next));
    let came = if next.placed_ms.is_some() { "came here at" } else { "is from" };
    let command = output::quoted(&format!("{shown}@{}", output::clean(&next.id)));
    format!(
        "it is not known what {shown} was at {asked}: the first version after that {came} {since}. To bring that \
         one back: p2psync restore {command}; {all}"
    )
}

/// Splits `PATH@WHEN`; an `@` that no time or id follows belongs to the path.
fn split_when(given: &Path, now_ms: i64, zone: &TimeZone) -> (PathBuf, When) {
    let split = at_sign(given).and_then(|(path, when)| Some((path.to_owned(), parse_when(when, now_ms, zone)?)));
    split.unwrap_or_else(|| (given.to_owned(), When::Latest))
}

/// What is before the last @ of a path, and what is after it.
fn at_sign(given: &Path) -> Option<(&Path, &str)> {
    let bytes = given.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|b| *b == b'@').filter(|at| *at > 0)?;
    let when = std::str::from_utf8(bytes.get(at + 1..)?).ok()?;
    Some((Path::new(OsStr::from_bytes(bytes.get(..at)?)), when))
}

/// What is wrong with a time that is none.
fn no_when(text: &str, path: &Path) -> String {
    format!(
        "'{}' is neither a time nor the id of a version; write 2h or 3d for so long ago, a time like 2026-11-20T14:03, \
         or an id that 'p2psync history {}' shows",
        output::clean(text),
        output::quoted(&output::clean(&path.to_string_lossy()))
    )
}

/// Reads `latest`, `2h`, `2026-11-20`, `2026-11-20T14:03`, or the id of a version.
fn parse_when(text: &str, now_ms: i64, zone: &TimeZone) -> Option<When> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("latest") {
        return Some(When::Latest);
    }
    if let Some(age_ms) = parse_age(text) {
        return Some(When::AtMs(now_ms.saturating_sub(age_ms)));
    }
    let spaced = text.replacen(' ', "T", 1);
    let date_time = spaced.parse::<DateTime>().ok().filter(|_| text.len() > "2026-11-20".len());
    // A day alone means the state at its end; without dashes it is an id.
    let day = text.parse::<Date>().ok().filter(|_| text.contains('-'));
    let date_time = date_time.or_else(|| day.map(|day| day.at(23, 59, 59, 0)));
    if let Some(local) = date_time {
        return Some(When::AtMs(local.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond()));
    }
    let is_id = text.len() >= ID_CHARS_MIN && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| When::Id(text.to_owned()))
}

/// Reads an age such as `90s`, `15m`, `2h`, `3d` or `1w`, in milliseconds.
pub fn parse_age(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    // An id may well look like an age, but not with as few digits.
    let number: i64 = Some(number).filter(|n| n.len() < ID_CHARS_MIN - 1)?.parse().ok()?;
    (number >= 0).then(|| number * seconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_time_age_or_id() {
        let now = 1_000_000_000_000;
        let zone = TimeZone::UTC;
        let when = |text| parse_when(text, now, &zone);
        assert_eq!(when("latest"), Some(When::Latest));
        assert_eq!(when("2h"), Some(When::AtMs(now - 7_200_000)));
        assert_eq!(when("3d"), Some(When::AtMs(now - 3 * 86_400_000)));
        assert_eq!(when("1970-01-02"), Some(When::AtMs(2 * 86_400_000 - 1000)));
        assert_eq!(when("1970-01-01T00:01"), Some(When::AtMs(60_000)));
        assert_eq!(when("1970-01-01 00:01:05"), Some(When::AtMs(65_000)));
        assert_eq!(when("deadbeef"), Some(When::Id("deadbeef".into())));
        assert_eq!(when("12345678"), Some(When::Id("12345678".into())));
        for nonsense in ["", "soon", "abc", "-2h", "2026-13-40"] {
            assert_eq!(when(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn of_each_path_the_version_that_was_asked_for_is_chosen() {
        let item = |path: &str, id: &str, displaced_ms| HistoryItem {
            path: path.into(),
            id: id.into(),
            displaced_ms,
            ..HistoryItem::default()
        };
        let items = [item("d/a", "a3", 30), item("d/b", "b2", 20), item("d/a", "a1", 10), item("d/c", "c0", 5)];
        let ids = |when| choose(&items, &when, |item| item.path == "d/c").iter().map(|i| &i.id[..]).collect::<Vec<_>>();
        assert_eq!(ids(When::Latest), ["a3", "b2"]);
        assert_eq!(ids(When::AtMs(8)), ["a1", "b2"]);
        assert_eq!(ids(When::Id("B2".into())), ["b2"]);
        assert!(ids(When::AtMs(30)).is_empty());
    }

    #[test]
    fn a_time_before_the_oldest_version_brings_nothing_back_but_says_what_there_is() {
        let item = |id: &str, mtime_ms, displaced_ms| HistoryItem {
            path: "a".into(),
            id: id.into(),
            mtime_ms,
            displaced_ms,
            ..HistoryItem::default()
        };
        // Written long before it came here.
        let late = HistoryItem { placed_ms: Some(25_000), ..item("a3", 1_000, 30_000) };
        let items = [late, item("a1", 5_000, 10_000)];
        let ids = |at_ms| choose(&items, &When::AtMs(at_ms), |_| false).iter().map(|i| &i.id[..]).collect::<Vec<_>>();
        assert_eq!([ids(5_000), ids(9_999), ids(26_000)], [["a1"], ["a1"], ["a3"]]);
        // Before the oldest, and between a deletion and the next file of that name.
        assert!(ids(4_999).is_empty() && ids(15_000).is_empty());
        let told = |at_ms, path: &str| no_version(&items, &When::AtMs(at_ms), Path::new(path), "a");
        assert!(told(4_999, "/").contains("p2psync restore a@a1;"), "{}", told(4_999, "/"));
        assert!(told(15_000, "/").contains("p2psync restore a@a3;"), "{}", told(15_000, "/"));
        assert!(told(15_000, "/").contains("came here at") && told(4_999, "/").contains("is from"));
        assert!(told(30_000, "/").contains("has not been replaced since"));
        assert!(told(30_000, "/no/such").contains("was gone already"));
        assert!(
            no_version(&items, &When::Id("x".into()), Path::new("/"), "a").contains("there is no such version of a")
        );
    }

    #[test]
    fn a_slip_in_the_time_is_told_as_such() {
        let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let context = Context { home: crate::home::Home::at(home.path(), home.path().into()), now_ms: 0 };
        std::fs::write(dir.path().join("report.txt"), "").unwrap();
        let going = GoingBack { yes: false, dry_run: true, json: false };
        let told = |name: &str, at: Option<&str>| {
            restore(&context, &dir.path().join(name), at, &going).unwrap_err().to_string()
        };
        for (name, at) in [("report.txt@yesterday", None), ("report.txt", Some("yesterday"))] {
            let told = told(name, at);
            assert!(told.starts_with("'yesterday' is neither a time nor the id of a version"), "{told}");
        }
        assert!(!told("gone@example.org", None).contains("neither"));
    }

    #[test]
    fn an_at_sign_that_no_time_follows_belongs_to_the_path() {
        let zone = TimeZone::UTC;
        let split = |text: &str| split_when(Path::new(text), 10_000, &zone);
        assert_eq!(split("a/b@5s"), ("a/b".into(), When::AtMs(5_000)));
        assert_eq!(split("me@example.org"), ("me@example.org".into(), When::Latest));
        assert_eq!(split("me@example.org@abcdef12"), ("me@example.org".into(), When::Id("abcdef12".into())));
        assert_eq!(split("@2h"), ("@2h".into(), When::Latest));
    }
}
