//! Whether a path is ignored, and by which rule; and all rules of a folder.

use std::path::Path;

use anyhow::{anyhow, bail};

use super::{Asker, View};
use crate::api::{IgnoreFault, IgnoreRule, IgnoreRules, IgnoreTest};
use crate::config::Folder;
use crate::core::disk::DiskKind;
use crate::core::ignore::{Hit, IGNORE_FILE, LOCAL_IGNORE_FILE, Rules, Source};
use crate::core::path::RelPath;
use crate::engine::rules::{self, Fault};
use crate::fs::error::FsError;
use crate::fs::root::{OpenRoot, Root};
use crate::index::IndexError;

/// Whether an absolute path is ignored; it need not exist. `as_directory` says what it would be then.
pub fn test(asker: Asker, path: &Path, as_directory: bool) -> anyhow::Result<IgnoreTest> {
    let Some(folder) = asker.config.folder_at(path) else {
        bail!("{} is in none of your folders; 'p2psync folder list' shows them", path.display())
    };
    let rest = path.strip_prefix(&folder.path)?;
    let relative = RelPath::parse(std::os::unix::ffi::OsStrExt::as_bytes(rest.as_os_str()))
        .map_err(|error| anyhow!("{} cannot be synced: {error}", path.display()))?;
    let (root, rules, faults) = read(asker, folder)?;
    let found = root.look(&relative).ok().flatten();
    let is_directory = found.map_or(as_directory, |found| found.kind == DiskKind::Directory);
    let hit = rules.is_ignored(&relative, is_directory);
    let taken_back = rules.taken_back(&relative, is_directory).filter(|_| hit.is_none());
    let text = text(hit.as_ref(), taken_back.as_ref());
    let (is_ignored, rule) = (hit.is_some(), hit.or(taken_back).map(|hit| rule(&hit.source, hit.line, hit.pattern)));
    Ok(IgnoreTest {
        path: path.to_string_lossy().into_owned(),
        folder: folder.label.clone(),
        ignored: is_ignored,
        rule,
        text,
        faults: faults.into_iter().map(fault).collect(),
    })
}

/// All rules of a folder, the built-in ones first.
pub fn list(asker: Asker, folder: &Folder) -> anyhow::Result<IgnoreRules> {
    let (_, rules, faults) = read(asker, folder)?;
    let listed = rules.list().into_iter().map(|listed| rule(&listed.source, listed.line, listed.pattern));
    Ok(IgnoreRules {
        folder: folder.label.clone(),
        rules: listed.collect(),
        faults: faults.into_iter().map(fault).collect(),
    })
}

fn read(asker: Asker, folder: &Folder) -> anyhow::Result<(OpenRoot, Rules, Vec<Fault>)> {
    let view = asker.open(folder);
    let root = match (Root::new(folder.path.clone(), folder.id.clone()).open(), &view) {
        (Err(FsError::MarkerGone { .. }), Err(error)) if IndexError::is_missing(error) => bail!(
            "the folder '{}' is new, and p2psync has not looked at it yet: start it with 'p2psync run', and ask again",
            folder.label
        ),
        (root, _) => root?,
    };
    let nested = match view {
        Ok(View { reader, .. }) => rules::nested(&reader),
        // Not scanned yet: only the root's file is known.
        Err(error) if IndexError::is_missing(&error) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let (rules, faults) = rules::read(&root, &nested, folder.only.clone())
        .map_err(|problem| anyhow!("{}: {problem}", folder.path.join(IGNORE_FILE).display()))?;
    Ok((root, rules, faults))
}

fn rule(source: &Source, line: Option<u32>, pattern: String) -> IgnoreRule {
    IgnoreRule { source: source.name().to_owned(), file: source.file(), line, pattern }
}

fn fault(fault: Fault) -> IgnoreFault {
    IgnoreFault { file: fault.file, line: fault.line, text: fault.why }
}

fn place(hit: &Hit) -> String {
    match (hit.source.file(), hit.line, &hit.source) {
        (Some(file), Some(line), _) => format!("line {line} of {file}, '{}'", hit.pattern),
        (.., Source::Selection) => format!("the selection of this device, which is {}", hit.pattern),
        _ => format!("the built-in rule '{}'", hit.pattern),
    }
}

fn text(hit: Option<&Hit>, taken_back: Option<&Hit>) -> String {
    match (hit, taken_back) {
        (Some(hit), _) if hit.source == Source::Selection => format!("not selected, by {}", place(hit)),
        (Some(hit), _) => format!("ignored, by {}", place(hit)),
        (None, Some(back)) => format!("not ignored, because of {}", place(back)),
        (None, None) => "not ignored: no rule says so".to_owned(),
    }
}

/// The same as sentences about a path; `is_known` where other devices have it.
pub fn sentences(hit: &Hit, is_known: bool) -> Vec<String> {
    let text = match (&hit.source, hit.line) {
        (Source::Selection, _) => format!(
            "It is not selected on this device, where only {} is wanted; 'p2psync folder select' changes that.",
            hit.pattern
        ),
        (source, Some(line)) => {
            let file = source.file().unwrap_or_else(|| IGNORE_FILE.to_owned());
            format!("It is ignored on this device: line {line} of {file} says '{}'.", hit.pattern)
        }
        (_, None) if hit.pattern == LOCAL_IGNORE_FILE => {
            "It holds this device's own ignore rules, which are never synced.".to_owned()
        }
        (_, None) => format!(
            "It is ignored on this device by the built-in rule '{0}'; a line '!{0}' in {IGNORE_FILE} takes that back.",
            hit.pattern
        ),
    };
    let passed_on = "What other devices have of it is passed on, but not kept up to date here.";
    [Some(text), is_known.then(|| passed_on.to_owned())].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn tested(world: &World, name: &str) -> IgnoreTest {
        test(world.asker(), &world.config.folders[0].path.join(name), false).unwrap()
    }

    #[test]
    fn the_rule_is_named_with_its_file_and_line_also_for_what_is_not_there() {
        let mut world = World::alone();
        world.add(".p2pignore", b"*.o\n!keep.o\n[z-a]\n");
        std::fs::write(world.place(".p2pignore.local"), "*.iso\n").unwrap();
        let text = |name: &str| tested(&world, name).text;
        assert_eq!(text("x.o"), "ignored, by line 1 of .p2pignore, '*.o'");
        assert_eq!(text("keep.o"), "not ignored, because of line 2 of .p2pignore, '!keep.o'");
        assert_eq!(text("a/x.iso"), "ignored, by line 1 of .p2pignore.local, '*.iso'");
        assert_eq!(text("Thumbs.db"), "ignored, by the built-in rule 'Thumbs.db'");
        assert_eq!(text("letter"), "not ignored: no rule says so");
        let faults = tested(&world, "letter").faults;
        assert_eq!((faults.len(), faults[0].line), (1, Some(3)));
        world.config.folders[0].only = Some(crate::core::selection::Selection::parse(&["Photos"]).unwrap());
        let unselected = tested(&world, "letter");
        assert!(unselected.ignored && unselected.text.contains("not selected, by the selection"), "{unselected:?}");
        assert!(test(world.asker(), Path::new("/nowhere/x"), false).is_err());
        let listed = list(world.asker(), &world.config.folders[0]).unwrap();
        let own = listed.rules.iter().filter(|rule| rule.source != "built_in").count();
        assert_eq!((own, listed.faults.len()), (4, 1));
    }
}
