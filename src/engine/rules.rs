//! Reading a folder's ignore rules.
//!
//! Architecture invariant: rules that can't be read are not taken for rules that ignore nothing: the ones before stay
//! until the file can be read, or its folder is there to say that it has none.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::core::ignore::{IGNORE_FILE, Rules};
use crate::fs::root::Root;

/// Largest ignore file that is read, in bytes.
const IGNORE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The ignore rules of a folder; the built-in ones where it has no file with others. `None` where that can't be said.
pub fn read(root: &Root) -> Option<Rules> {
    let path = root.path().join(IGNORE_FILE);
    let refuse = |error: &dyn std::fmt::Display| {
        tracing::warn!(file = %path.display(), %error, "cannot read the ignore rules");
        None
    };
    root.open().ok()?;
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= IGNORE_FILE_BYTES_MAX => {}
        Err(error) if error.kind() != ErrorKind::NotFound => return refuse(&error),
        _ => return Some(Rules::default()),
    }
    match fs::read(&path) {
        Ok(text) => {
            let (rules, errors) = Rules::parse(&text);
            for error in errors {
                tracing::warn!(file = %path.display(), line = error.line, "this ignore rule is not understood and not used: {}", error.why);
            }
            Some(rules)
        }
        Err(error) => refuse(&error),
    }
}

/// Has the folder looked at with the rules as they are now, and returns them. Where they can't be read the old ones
/// stay, and the next scan of the whole folder reads them.
pub fn reload(shared: &Shared) -> Option<Rules> {
    let rules = read(&shared.root);
    shared.rules_stale.store(rules.is_none(), Ordering::Relaxed);
    if let Some(rules) = &rules {
        shared.set_rules(rules.clone());
    }
    rules
}
