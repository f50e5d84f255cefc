//! Versions of the config file's format: older ones are understood and can be brought up to date, newer ones are
//! refused in words.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, DocumentMut, Item, value};

use super::durable::write_beside_and_rename;
use super::edit::lock;
use super::fault::Fault;
use super::{ConfigError, parse, read, surroundings};
use crate::home::Home;

/// The version that this program writes. A file without the key is of version 1.
pub const VERSION: i64 = 1;

/// A key that has another name from a version on.
#[derive(Clone, Copy, Debug)]
struct Renamed {
    since: i64,
    section: &'static str,
    from: &'static str,
    to: &'static str,
}

/// All keys that were ever renamed; their old names stay readable for ever.
const RENAMED: &[Renamed] = &[];

/// Refuses a file that a newer program has written, before anything else in it is found strange.
pub(super) fn check(text: &str, path: &Path) -> Result<(), ConfigError> {
    // What is no TOML at all is told by the reader, with its place.
    let Ok(document) = Document::parse(text) else { return Ok(()) };
    let Some(item) = document.get("version") else { return Ok(()) };
    let fault = |what: String, advice: String| {
        let span: Range<usize> = item.span().unwrap_or(0..0);
        Err(Fault::at(path, text, span, what, advice).into())
    };
    match item.as_integer() {
        Some(found) if found > VERSION => fault(
            format!("this file is of version {found}, and this p2psync knows versions up to {VERSION}"),
            "a newer p2psync has written it: install that one again".to_owned(),
        ),
        Some(found) if found >= 1 => Ok(()),
        _ => fault("this is not a version".to_owned(), format!("write version = {VERSION}, or leave it out")),
    }
}

/// What an upgrade did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgraded {
    /// Each change in words; none where the file was up to date.
    pub changes: Vec<String>,
    /// Where the old file was kept.
    pub kept: Option<PathBuf>,
}

/// Brings the config file up to date; the old one is kept beside it.
pub fn upgrade(home: &Home) -> Result<Upgraded, ConfigError> {
    let _guard = lock(home)?;
    let path = home.config_file();
    let text = read(&path)?;
    check(&text, &path)?;
    let around = surroundings(home);
    let (fresh, changes) = match upgraded(&text, RENAMED) {
        Some(done) => done,
        // It is not TOML: the reader says where.
        None => return parse(&text, &path, &around).map(|_| Upgraded { changes: Vec::new(), kept: None }),
    };
    parse(&fresh, &path, &around)?;
    if changes.is_empty() {
        return Ok(Upgraded { changes, kept: None });
    }
    let failed = |source| ConfigError::Io { doing: "keep a copy of", path: path.clone(), source };
    let kept = free_name(&path);
    let mut copy = std::fs::OpenOptions::new().write(true).create_new(true).open(&kept).map_err(failed)?;
    std::io::Write::write_all(&mut copy, text.as_bytes()).and_then(|()| copy.sync_all()).map_err(failed)?;
    let target = path.canonicalize().unwrap_or_else(|_| path.clone());
    write_beside_and_rename(&target, &fresh).map_err(|source| ConfigError::Io {
        doing: "write",
        path: target,
        source,
    })?;
    Ok(Upgraded { changes, kept: Some(kept) })
}

/// What `config check` says of a file that is older than this program.
pub fn outdated(text: &str) -> Vec<String> {
    upgraded(text, RENAMED).map(|(_, changes)| changes).unwrap_or_default()
}

/// The text as this program would write it, and the changes in words; `None` where it is not TOML.
fn upgraded(text: &str, renamed: &[Renamed]) -> Option<(String, Vec<String>)> {
    let mut document: DocumentMut = text.parse().ok()?;
    let found = document.get("version").and_then(Item::as_integer).unwrap_or(1);
    let newest = renamed.iter().map(|r| r.since).max().unwrap_or(VERSION).max(VERSION);
    let mut changes = Vec::new();
    for Renamed { section, from, to, .. } in renamed.iter().filter(|r| r.since > found) {
        let table = match section.is_empty() {
            true => Some(document.as_table_mut()),
            false => document.get_mut(section).and_then(Item::as_table_mut),
        };
        let Some(table) = table else { continue };
        if let (Some((key, item)), false) = (table.remove_entry(from), table.contains_key(to)) {
            let name = toml_edit::Key::new(*to).with_leaf_decor(key.leaf_decor().clone());
            table.insert_formatted(&name, item);
            changes.push(format!("'{from}' is now called '{to}'"));
        }
    }
    if found < newest {
        document.insert("version", value(newest));
        changes.push(format!("the version is {newest} instead of {found}"));
    }
    Some((document.to_string(), changes))
}

fn free_name(path: &Path) -> PathBuf {
    let name =
        |n: u32| PathBuf::from(format!("{}.old{}", path.display(), if n == 0 { String::new() } else { n.to_string() }));
    (0..u32::MAX).map(name).find(|p| p.symlink_metadata().is_err()).unwrap_or_else(|| name(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[Renamed] = &[Renamed { since: 2, section: "sync", from: "keep_days", to: "history_days" }];

    #[test]
    fn an_older_file_is_brought_up_to_date_with_its_comments() {
        let old = "name = \"x\"\n\n[sync]\n# long enough\nkeep_days = 9 # days\n";
        let (fresh, changes) = upgraded(old, SAMPLE).unwrap();
        assert!(fresh.contains("# long enough\nhistory_days = 9 # days\n") && fresh.contains("version = 2"), "{fresh}");
        assert_eq!(changes, ["'keep_days' is now called 'history_days'", "the version is 2 instead of 1"]);
        assert_eq!(upgraded(&fresh, SAMPLE).unwrap(), (fresh, Vec::new()));
    }

    #[test]
    fn a_file_of_this_version_stays_as_it_is() {
        for text in ["", "version = 1\n", "# mine\nname = \"x\"\n"] {
            assert_eq!(upgraded(text, RENAMED).unwrap(), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_before_anything_else_in_it() {
        let said = check("version = 2\nnew_key = 1\n", Path::new("config.toml")).unwrap_err().to_string();
        assert!(said.contains("config.toml:1:11") && said.contains("version 2") && said.contains("newer"), "{said}");
        assert!(check("version = \"one\"\n", Path::new("c")).unwrap_err().to_string().contains("not a version"));
        assert!(check("version = 0\n", Path::new("c")).is_err());
        assert!(check("version = 1\n", Path::new("c")).is_ok() && check("= nonsense", Path::new("c")).is_ok());
    }

    #[test]
    fn an_upgrade_of_a_file_that_is_up_to_date_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path(), dir.path().to_owned());
        std::fs::write(home.config_file(), "name = \"x\"\n").unwrap();
        assert_eq!(upgrade(&home).unwrap(), Upgraded { changes: Vec::new(), kept: None });
        assert_eq!(std::fs::read_to_string(home.config_file()).unwrap(), "name = \"x\"\n");
    }
}
