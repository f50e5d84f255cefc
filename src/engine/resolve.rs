//! Settling conflicts as their user decides. What is not kept goes into history; that the copy is gone tells the other
//! devices that the matter is settled.

use std::path::Path;

use super::restore::Change;
use super::shared::Shared;
use crate::api::Keep;
use crate::core::conflict;
use crate::core::path::RelPath;

/// Names that are tried for a copy that is kept beside its original.
const NAMES_MAX: u32 = 100;

/// Settles the conflict of a copy with its original. `device` names who wrote the copy. Says what was done.
pub fn resolve(shared: &Shared, copy: &RelPath, keep: &Keep, device: &str) -> Result<String, String> {
    let original = conflict::original_of(copy)
        .ok_or_else(|| format!("{copy} is no conflict copy; 'p2psync conflicts' lists them"))?;
    let change = Change::begin(shared)?;
    if change.look(copy)?.is_none() {
        return Err(format!("{copy} is not there any more"));
    }
    let done = settle(&change, copy, &original, keep, device);
    shared.hints.request(vec![original, copy.clone()]);
    done
}

fn settle(change: &Change, copy: &RelPath, original: &RelPath, keep: &Keep, device: &str) -> Result<String, String> {
    let is_original_there = change.look(original)?.is_some();
    match keep {
        Keep::Original if !is_original_there => {
            Err(format!("{original} is gone, so there is only the copy to keep; delete that if you want neither"))
        }
        Keep::Original => {
            change.set_aside(copy)?;
            Ok(format!("{original} stays as it is; the conflict copy is in history"))
        }
        Keep::Copy => {
            let displaced = if is_original_there { Some(change.set_aside(original)?) } else { None };
            let renamed = change.rename(copy, original);
            if renamed != Ok(true) {
                displaced.iter().for_each(|slot| change.put_back(slot, original));
                return Err(renamed.err().unwrap_or_else(|| format!("something new lies at {original}; try again")));
            }
            Ok(format!("{original} is now what the conflict copy was; what it was before is in history"))
        }
        Keep::Both => keep_both(change, copy, original, device),
        Keep::File(file) => {
            change.bring_in(&file.0, original)?;
            change.set_aside(copy)?;
            Ok(format!("{original} is now {}; both versions of the conflict are in history", shown(&file.0)))
        }
    }
}

fn keep_both(change: &Change, copy: &RelPath, original: &RelPath, device: &str) -> Result<String, String> {
    for number in 1..=NAMES_MAX {
        let name = conflict::kept_name(original, device, number).map_err(|e| format!("{copy}: {e}"))?;
        if change.rename(copy, &name)? {
            return Ok(format!("{original} stays as it is; the copy is now {name}"));
        }
    }
    Err(format!("there are too many files like {original} here; rename the copy yourself"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
