//! `p2psync conflicts`.

use std::fmt::Write;
use std::path::Path;

use super::context::Context;
use super::output::{self, Table};
use crate::api::{ConflictItem, ConflictSide, Reply, Request};
use crate::engine;

/// The conflicts of all folders.
pub fn all(context: &Context) -> anyhow::Result<Vec<ConflictItem>> {
    context.ask_or_read(
        &Request::Conflicts,
        |reply| match reply {
            Reply::Conflicts(conflicts) => Some(conflicts),
            _ => None,
        },
        |config| engine::report::conflicts(&context.home, config, None),
    )
}

/// Lists the conflict copies of all folders.
pub fn list(context: &Context, json: bool) -> anyhow::Result<()> {
    let conflicts = all(context)?;
    if json {
        return output::print_json(&conflicts);
    }
    output::print(&text(&conflicts, context.home.user_dir(), context.now_ms))
}

fn text(conflicts: &[ConflictItem], user_dir: &Path, now_ms: i64) -> String {
    if conflicts.is_empty() {
        return "There are no conflict copies.\n".to_owned();
    }
    let mut text = String::new();
    for item in conflicts {
        let _ = writeln!(text, "{} in {}", output::name(&item.original), output::name(&item.folder));
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
        let _ = writeln!(text, "{table}  PATH: {}", place(item, user_dir));
    }
    text.push_str(
        "\nSettle one with: p2psync conflicts resolve PATH --keep mine|theirs|both; --diff shows how the two differ.\n",
    );
    text
}

/// Where the copy lies, as it can be pasted. An agent of another version may not tell.
pub fn place(item: &ConflictItem, user_dir: &Path) -> String {
    output::quoted(&if item.place.is_empty() { item.path.clone() } else { paste(&item.place, user_dir) })
}

/// A place with a tilde for the home directory.
fn paste(place: &str, user_dir: &Path) -> String {
    match Path::new(place).strip_prefix(user_dir) {
        Ok(below) => format!("~/{}", below.to_string_lossy()),
        Err(_) => place.to_owned(),
    }
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
    use crate::cli::style::Style;

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
            place: "/home/me/My Sync/a.conflict-20261122-140312-K3QZ7AB.txt".into(),
        };
        let gone = ConflictItem { live: None, ..item.clone() };
        let shown = text(&[item.clone(), gone], Path::new("/home/me"), 60_000);
        for part in [
            "a.txt in P2PSync\n",
            "the file  desk",
            "laptop (this device)",
            "2.0 KB",
            "PATH: ~/'My Sync/a.conflict-20261122-140312-K3QZ7AB.txt'\n",
            "is gone",
            "--keep mine|theirs|both",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // A heading is a name, which no line breaks.
        let long = ConflictItem { original: "Letters to the bank and to the landlord.odt".into(), ..item };
        let narrow = Style { width: Some(40), colour: false };
        let shown = narrow.flow(&text(&[long], Path::new("/home/me"), 60_000));
        assert!(shown.starts_with("Letters to the bank and to the landlord.odt\nin P2PSync\n"), "{shown}");
        assert_eq!(text(&[], Path::new("/"), 0), "There are no conflict copies.\n");
    }
}
