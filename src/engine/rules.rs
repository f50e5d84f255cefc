//! Reading a folder's ignore rules.
//!
//! Architecture invariant: rules that can't be read are not taken for rules that ignore nothing: the ones before stay
//! until the file can be read, or its folder is there to say that it has none.

use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::core::ignore::{IGNORE_FILE, Rules};
use crate::failpoint;
use crate::fs::root::Root;
use crate::sync::Input;

/// Largest ignore file that is read, in bytes.
const IGNORE_FILE_BYTES_MAX: usize = 1024 * 1024;

/// The ignore rules of a folder; the built-in ones where it has no file with others. `None` where that can't be said.
fn read(root: &Root) -> Option<Rules> {
    let file = root.path().join(IGNORE_FILE);
    // Where the folder is not there others say so.
    let text = match root.open().ok()?.read_ignore_file(IGNORE_FILE_BYTES_MAX) {
        Ok(text) => text.unwrap_or_default(),
        Err(problem) => {
            tracing::warn!(file = %file.display(), %problem, "cannot read the ignore rules");
            return None;
        }
    };
    let (rules, errors) = Rules::parse(&text);
    for error in errors {
        tracing::warn!(file = %file.display(), line = error.line, "this ignore rule is not understood and not used: {}", error.why);
    }
    Some(rules)
}

/// Has the folder looked at with the rules as they are now, and returns them. Where they can't be read the old ones
/// stay, and the next scan of the whole folder reads them.
pub fn reload(shared: &Shared) -> Option<Rules> {
    let rules = read(&shared.root);
    failpoint::hit("rules.read");
    shared.rules_stale.store(rules.is_none(), Ordering::Relaxed);
    if let Some(rules) = &rules {
        shared.set_rules(rules.clone());
    }
    rules
}

/// Reads the rules if they could not be read before, and tells the folder of them.
pub fn catch_up(shared: &Shared) {
    if shared.rules_stale.load(Ordering::Relaxed)
        && let Some(rules) = reload(shared)
    {
        shared.send(Input::Rules(Box::new(rules)));
    }
}
