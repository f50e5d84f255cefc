//! `p2psync conflicts`.

use std::fmt::Write;

use super::context::Context;
use super::output::{self, Table};
use crate::api::{ConflictItem, ConflictSide, Reply, Request};
use crate::engine;

/// Lists the conflict copies of all folders.
pub fn list(context: &Context, json: bool) -> anyhow::Result<()> {
    let conflicts = context.ask_or_read(
        &Request::Conflicts,
        |reply| match reply {
            Reply::Conflicts(conflicts) => Some(conflicts),
            _ => None,
        },
        |config| engine::report::conflicts(&context.home, config),
    )?;
    if json {
        return output::print_json(&conflicts);
    }
    output::print(&text(&conflicts, context.now_ms))
}

fn text(conflicts: &[ConflictItem], now_ms: i64) -> String {
    if conflicts.is_empty() {
        return "There are no conflict copies.\n".to_owned();
    }
    let mut text = String::new();
    for item in conflicts {
        let _ = writeln!(text, "{} in {}", output::clean(&item.original), output::clean(&item.folder));
        let mut table = Table::indented(2);
        match &item.live {
            Some(live) => table.row(side("the file", live, now_ms, item.mine.as_deref() == Some("original"))),
            None => table.row(["the file".to_owned(), "is gone".to_owned(), String::new(), String::new()]),
        }
        let copy = ConflictSide { mtime_ms: item.mtime_ms, bytes: item.bytes, device: item.device.clone() };
        table.row(side("the copy", &copy, now_ms, item.mine.as_deref() == Some("copy")));
        if let Some(base) = &item.base {
            let base = ConflictSide { mtime_ms: base.mtime_ms, bytes: base.bytes, device: None };
            table.row(side("both came from", &base, now_ms, false));
        }
        let _ = writeln!(text, "{table}  {}", output::clean(&item.path));
    }
    text.push_str(
        "\nSettle one with: p2psync conflicts resolve PATH --keep mine|theirs|both; --diff shows how the two differ.\n",
    );
    text
}

/// A row of the table: what it is, who wrote it, when, and how large it is.
fn side(what: &str, side: &ConflictSide, now_ms: i64, is_mine: bool) -> [String; 4] {
    let device = side.device.clone().unwrap_or_default();
    let device = if is_mine { format!("{device} (this device)") } else { device };
    [what.to_owned(), device, output::ago(side.mtime_ms, now_ms), output::bytes(side.bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_copies_are_listed_with_what_to_do() {
        let item = ConflictItem {
            folder: "P2PSync".into(),
            path: "a.conflict-20261122-140312-K3QZ7AB.txt".into(),
            original: "a.txt".into(),
            mtime_ms: 0,
            bytes: 12,
            device: Some("laptop".into()),
            live: Some(ConflictSide { mtime_ms: 30_000, bytes: 2048, device: Some("desk".into()) }),
            mine: Some("copy".into()),
            base: None,
        };
        let gone = ConflictItem { live: None, ..item.clone() };
        let shown = text(&[item, gone], 60_000);
        for part in [
            "a.txt in P2PSync\n",
            "the file  desk",
            "laptop (this device)",
            "2.0 KB",
            "a.conflict-20261122-140312-K3QZ7AB.txt",
            "is gone",
            "--keep mine|theirs|both",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(text(&[], 0), "There are no conflict copies.\n");
    }
}
