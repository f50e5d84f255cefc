//! `p2psync status --problems`: all that is not in sync, with its reasons.

use std::path::Path;

use super::super::context::Context;
use crate::api::{Reply, Request, UnsyncedItem, UnsyncedPage};
use crate::cli::exit::Exit;
use crate::cli::output::{self, clean, number};
use crate::cli::style::{Style, Tone};
use crate::config::Config;
use crate::engine;

/// Items asked for at once.
const PAGE_ITEMS: usize = 200;

/// Prints page after page; what is printed is not kept.
pub fn run(context: &Context, path: Option<&Path>, json: bool) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let below = path.map(|path| below(context, &config, path)).transpose()?;
    let style = Style::of_stdout();
    let (mut after, mut count) = (None, 0u64);
    loop {
        let folder = below.as_ref().map(|below| below.folder.as_str());
        let page = page(context, folder, after.as_deref())?;
        let items = page.items.iter().filter(|item| below.as_ref().is_none_or(|below| below.has(item)));
        for item in items {
            match json {
                true => output::print_raw(&json_item(item, count == 0)?)?,
                false => output::print(&text(item, &label(&config, &item.folder), context.now_ms, style))?,
            }
            count += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    match (json, count) {
        (true, 0) => output::print_raw("[]\n")?,
        (true, _) => output::print_raw("\n]\n")?,
        (false, count) => output::print(&summary(count))?,
    }
    Ok(if count == 0 { Exit::Fine } else { Exit::NotInSync })
}

/// What of all the folders is meant.
struct Below {
    folder: String,
    path: String,
}

impl Below {
    fn has(&self, item: &UnsyncedItem) -> bool {
        let rest = item.path.strip_prefix(&self.path);
        self.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn below(context: &Context, config: &Config, given: &Path) -> anyhow::Result<Below> {
    use std::os::unix::ffi::OsStrExt;
    let path = context.path_in_folder(config, given)?;
    let folder = config.folder_at(&path).ok_or_else(|| anyhow::anyhow!("{} is in no folder", given.display()))?;
    let rest = path.strip_prefix(&folder.path).map(|rest| rest.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let path = crate::core::path::RelPath::parse(&rest).map(|path| path.to_string()).unwrap_or_default();
    Ok(Below { folder: folder.id.to_string(), path })
}

fn page(context: &Context, folder: Option<&str>, after: Option<&str>) -> anyhow::Result<UnsyncedPage> {
    let asked = |text: Option<&str>| text.map(str::to_owned);
    context.ask_or_read(
        &Request::Unsynced { folder: asked(folder), after: asked(after), count: PAGE_ITEMS },
        |reply| match reply {
            Reply::Unsynced(page) => Some(page),
            _ => None,
        },
        |config| engine::report::unsynced(&context.home, config, (folder, after, PAGE_ITEMS), None),
    )
}

/// What the user calls the folder.
fn label(config: &Config, id: &str) -> String {
    let folder = config.folders.iter().find(|folder| folder.id.as_str() == id);
    clean(folder.map_or(id, |folder| &folder.label))
}

fn text(item: &UnsyncedItem, label: &str, now_ms: i64, style: Style) -> String {
    let path = if item.path.is_empty() { label.to_owned() } else { output::name(&format!("{label}/{}", item.path)) };
    let tone = if item.state == "problem" || item.state == "conflict" { Tone::Bad } else { Tone::Busy };
    let peer = item.peer.as_ref().map(|name| format!(" at {}", clean(name))).unwrap_or_default();
    let since = item.since_ms.map(|ms| format!(", first seen {}", output::ago(ms, now_ms))).unwrap_or_default();
    let mut text = format!("{path}: {}{peer}{since}\n", style.paint(tone, &clean(&item.state)));
    let reasons: Vec<String> = item.reasons.iter().map(|reason| clean(reason)).collect();
    text.push_str(&style.hanging("    ", &reasons.join(" ")));
    text
}

fn json_item(item: &UnsyncedItem, is_first: bool) -> anyhow::Result<String> {
    let lines = serde_json::to_string_pretty(item)?.replace('\n', "\n  ");
    Ok(format!("{}  {lines}", if is_first { "[\n" } else { ",\n" }))
}

fn summary(count: u64) -> String {
    match count {
        0 => "Everything is in sync.\n".to_owned(),
        1 => "1 item is not in sync.\n".to_owned(),
        _ => format!("{} items are not in sync.\n", number(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str) -> UnsyncedItem {
        UnsyncedItem {
            folder: "docs".into(),
            path: path.into(),
            state: "problem".into(),
            kind: Some("no_space".into()),
            reasons: vec!["The disk is full; free some space.".into(), "The next try is in 3 seconds.".into()],
            since_ms: Some(0),
            peer: None,
        }
    }

    #[test]
    fn an_item_is_its_path_its_state_and_its_reasons() {
        let shown = text(&item("a\nb"), "Docs", 120_000, Style { width: Some(60), colour: false });
        insta::assert_snapshot!(shown);
        let away = UnsyncedItem { path: String::new(), peer: Some("phone".into()), since_ms: None, ..item("") };
        insta::assert_snapshot!(text(&away, "Docs", 0, Style::PLAIN));
    }

    #[test]
    fn items_printed_one_by_one_are_one_json_array() {
        let text = format!("{}{}\n]\n", json_item(&item("a"), true).unwrap(), json_item(&item("b"), false).unwrap());
        let read: Vec<UnsyncedItem> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, [item("a"), item("b")]);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn only_what_is_below_the_path_is_meant() {
        let below = |path: &str| Below { folder: "docs".into(), path: path.into() };
        let has = |path: &str, at: &str| below(path).has(&item(at));
        assert!(has("", "x") && has("a", "a") && has("a", "a/b"));
        assert!(!has("a", "ab") && !has("a/b", "a"));
    }
}
