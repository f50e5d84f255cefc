//! Reading a folder's ignore rules: the root's file, those of directories below it, the device's own, and the selection.
//!
//! Architecture invariant: rules that can't be read are not taken for rules that ignore nothing: the ones before stay
//! until the file can be read, or its folder is there to say that it has none.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::shared::Shared;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::ignore::{IGNORE_FILE, LOCAL_IGNORE_FILE, NESTED_MAX, RuleError, Rules};
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::core::selection::Selection;
use crate::failpoint;
use crate::fs::root::OpenRoot;
use crate::index::Reader;
use crate::sync::Input;

/// Largest ignore file that is read, in bytes.
const IGNORE_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of rules that are read from directories below the root: matchers take many times their text in memory.
const NESTED_BYTES_MAX: usize = 1024 * 1024;

/// A file of rules, or a line of one, that is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Relative to the folder.
    pub file: String,
    pub line: Option<u32>,
    pub why: String,
}

/// The rules of a folder as they lie on the disk; `nested` are the directories below the root that have some.
///
/// # Errors
///
/// Where the root's file can't be read.
pub fn read(root: &OpenRoot, nested: &[RelPath], selection: Option<Selection>) -> Result<(Rules, Vec<Fault>), Problem> {
    let mut faults = Vec::new();
    let mut note = |file: &str, errors: Vec<RuleError>| {
        faults.extend(errors.into_iter().map(|e| Fault { file: file.to_owned(), line: Some(e.line), why: e.why }));
    };
    let text = root.read_ignore_file(IGNORE_FILE_BYTES_MAX)?.unwrap_or_default();
    let (mut rules, errors) = Rules::parse(&text);
    note(IGNORE_FILE, errors);
    if let Some(text) = root.read_rules(None, LOCAL_IGNORE_FILE, IGNORE_FILE_BYTES_MAX)? {
        let (with_local, errors) = rules.with_local(&text);
        note(LOCAL_IGNORE_FILE, errors);
        rules = with_local;
    }
    let mut left = NESTED_BYTES_MAX;
    let mut unread = Vec::new();
    for directory in nested.iter().take(NESTED_MAX) {
        let file = format!("{directory}/{IGNORE_FILE}");
        match root.read_rules(Some(directory), IGNORE_FILE, left) {
            Ok(Some(text)) => {
                left = left.saturating_sub(text.len());
                let (with_nested, errors) = rules.with_nested(directory, &text);
                note(&file, errors);
                rules = with_nested;
            }
            Ok(None) => {}
            Err(problem) => unread.push(Fault { file, line: None, why: problem.text }),
        }
    }
    faults.extend(unread);
    Ok((rules.with_selection(selection), faults))
}

/// Directories below the root that have rules of their own, as far as the index knows.
pub fn nested(reader: &Reader) -> Vec<RelPath> {
    let paths = reader.named(IGNORE_FILE.as_bytes(), NESTED_MAX).unwrap_or_default();
    paths.iter().filter_map(RelPath::parent).collect()
}

/// The rules that a look goes by: those of directories that it comes by hold at once, before anybody has told of them.
/// What they cover is not to be looked at even once.
pub struct Learning<'a> {
    shared: &'a Shared,
    root: &'a OpenRoot,
    rules: Arc<Rules>,
    /// Bytes of such rules that may still be read.
    left: usize,
}

impl<'a> Learning<'a> {
    pub fn new(shared: &'a Shared, root: &'a OpenRoot) -> Self {
        Self { shared, root, rules: shared.rules(), left: NESTED_BYTES_MAX }
    }

    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// A file with the rules of a directory below the root has turned up.
    pub fn came_by(&mut self, file: &RelPath) {
        if let Some(directory) = file.parent().filter(|directory| !self.rules.has_nested(directory)) {
            self.learn(file, &directory);
        }
    }

    /// Such a file may have been changed.
    pub fn changed(&mut self, file: &RelPath) {
        if let Some(directory) = file.parent() {
            self.learn(file, &directory);
        }
    }

    fn learn(&mut self, file: &RelPath, directory: &RelPath) {
        if self.rules.is_ignored(file, false).is_some() {
            return;
        }
        // Trouble with it is told when the rules are read for the folder, after it was seen.
        let Ok(Some(text)) = self.root.read_rules(Some(directory), IGNORE_FILE, self.left) else { return };
        self.left = self.left.saturating_sub(text.len());
        let (rules, _) = Rules::clone(&self.rules).with_nested(directory, &text);
        self.shared.set_rules(rules.clone());
        self.rules = Arc::new(rules);
    }
}

/// True for the path of a file with rules of a directory, the root or one below it.
pub fn is_rules_file(path: &RelPath) -> bool {
    path.file_name() == IGNORE_FILE.as_bytes()
}

/// Has the folder looked at with the rules as they are now, and returns them. Where they can't be read the old ones
/// stay, and the next scan of the whole folder reads them. Whoever has no index at hand leaves it out.
pub fn reload(shared: &Shared, reader: Option<&Reader>) -> Option<Rules> {
    let rules = read_for(shared, reader);
    failpoint::hit("rules.read");
    shared.rules_stale.store(rules.is_none(), Ordering::Relaxed);
    if let Some(rules) = &rules {
        shared.set_rules(rules.clone());
    }
    rules
}

fn read_for(shared: &Shared, reader: Option<&Reader>) -> Option<Rules> {
    // Where the folder is not there others say so.
    let root = shared.root.open().ok()?;
    // Noted before it is read: what changes meanwhile is read once more.
    *shared.local_rules_seen.lock().unwrap_or_else(PoisonError::into_inner) = local_state(&root);
    let nested = match reader {
        Some(reader) => nested(reader),
        None => Reader::open(&shared.index_path).map(|reader| nested(&reader)).unwrap_or_default(),
    };
    let folder = root_name(shared);
    match read(&root, &nested, shared.selection()) {
        Ok((rules, faults)) => {
            for fault in faults {
                tracing::warn!(
                    folder,
                    file = fault.file,
                    line = fault.line,
                    "this ignore rule is not understood and not used: {}",
                    fault.why
                );
            }
            Some(rules)
        }
        Err(problem) => {
            tracing::warn!(folder, %problem, "cannot read the ignore rules");
            None
        }
    }
}

fn root_name(shared: &Shared) -> String {
    shared.root.path().display().to_string()
}

/// Reads the rules if they could not be read before, or the device's own have changed, and tells the folder of them.
pub fn catch_up(shared: &Shared, reader: &Reader) {
    if shared.rules_stale.load(Ordering::Relaxed) || has_local_changed(shared) {
        renew(shared, reader);
    }
}

/// Reads the rules and tells the folder of them.
pub fn renew(shared: &Shared, reader: &Reader) {
    if let Some(rules) = reload(shared, Some(reader)) {
        shared.send(Input::Rules(Box::new(rules)));
    }
}

/// True for a file with rules that is gone before it was in the index. Its rules may hold, and nothing that is observed
/// would tell the folder that they no longer do.
pub fn went_unseen(root: &OpenRoot, reader: &Reader, path: &RelPath) -> bool {
    is_rules_file(path)
        && matches!(root.look(path), Ok(None))
        && !matches!(reader.record(path), Ok(Some(record)) if record.entry.is_live())
}

/// True for the paths of files with rules that are not minded by their content alone.
pub fn is_local_file(path: &RelPath) -> bool {
    path.as_bytes() == LOCAL_IGNORE_FILE.as_bytes()
}

fn has_local_changed(shared: &Shared) -> bool {
    let Ok(root) = shared.root.open() else { return false };
    let now = local_state(&root);
    *shared.local_rules_seen.lock().unwrap_or_else(PoisonError::into_inner) != now
}

fn local_state(root: &OpenRoot) -> Option<DiskState> {
    let path = RelPath::parse(LOCAL_IGNORE_FILE.as_bytes()).ok()?;
    root.look(&path).ok().flatten().filter(|state| state.kind == DiskKind::File)
}
