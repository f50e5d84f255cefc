//! `p2psync conflicts`.

use super::context::Context;
use super::output::{self, Table};
use crate::api::{ConflictItem, Reply, Request};
use crate::engine;

/// Lists the conflict copies of all folders.
pub fn run(context: &Context, json: bool) -> anyhow::Result<()> {
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
    let mut table = Table::new(&["FOLDER", "CONFLICT COPY", "CHANGED", "BY", "SIZE"]);
    for item in conflicts {
        let device = item.device.clone().unwrap_or_default();
        let changed = output::ago(item.mtime_ms, now_ms);
        table.row([item.folder.clone(), item.path.clone(), changed, device, output::bytes(item.bytes)]);
    }
    format!("{table}\nCompare each with the file it is named after, keep what you want there, and delete the copy.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_copies_are_listed_with_what_to_do() {
        let item = ConflictItem {
            folder: "P2PSync".into(),
            path: "a.conflict-20261122-140312-K3QZ7AB.txt".into(),
            bytes: 12,
            ..Default::default()
        };
        let shown = text(&[item], 60_000);
        assert!(
            shown.contains("a.conflict-20261122-140312-K3QZ7AB.txt") && shown.contains("keep what you want"),
            "{shown}"
        );
        assert_eq!(text(&[], 0), "There are no conflict copies.\n");
    }
}
