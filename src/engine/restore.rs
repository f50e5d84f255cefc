//! Brings versions back from history to their paths.

use super::shared::Shared;
use crate::core::action::{Action, Displace, Expected, Outcome};
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::apply::{ApplyContext, apply};
use crate::fs::history::{self, RestoreError};
use crate::fs::root::OpenRoot;
use crate::index::HistoryRow;
use crate::sync::Input;

/// Copies a version back as the folder has decided. Where something stands at the path it stays; the path is looked at
/// in any case.
pub fn copy_back(shared: &Shared, slot: &RelPath, path: &RelPath) {
    let opened = shared.root.open().map_err(|e| e.to_string());
    let restored = opened.and_then(|root| {
        history::restore(&root, slot, path, shared.clock.wall_ms()).map_err(|error| error.to_string())
    });
    if let Err(error) = restored {
        tracing::warn!(folder = %shared.label, %path, error, "could not bring a file back from history");
    }
    shared.hints.request(vec![path.clone()]);
}

/// Puts a version from history under its old name, because the user wants it; what lies there goes into history first.
/// Says what was done, or what was in the way.
pub fn bring_back(shared: &Shared, version: &HistoryRow) -> Result<String, String> {
    let path = &version.path;
    let root = shared.root.open().map_err(|e| e.to_string())?;
    let now_ms = shared.clock.wall_ms();
    if root.look(path).map_err(|p| p.text)?.is_some() {
        set_aside(shared, &root, path, now_ms)?;
    }
    failpoint::hit("restore.set_aside");
    let restored = history::restore(&root, &version.slot, path, now_ms);
    shared.hints.request(vec![path.clone()]);
    match restored {
        Ok(_) => Ok(format!("{path} is back as it was")),
        Err(RestoreError::Taken) => Err(format!("something new lies at {path}; try again")),
        Err(error) => Err(format!("{path} could not be brought back: {error}")),
    }
}

/// Moves what lies at a path into history, as a deletion does.
fn set_aside(shared: &Shared, root: &OpenRoot, path: &RelPath, now_ms: i64) -> Result<(), String> {
    let disk = root.look(path).map_err(|p| p.text)?.ok_or("it has just gone")?;
    let expect = Expected { disk, content: None, displace: Displace::History };
    let context = ApplyContext { device: shared.device, now_ms };
    let action = Action::Remove { path: path.clone(), expect };
    let outcome = apply(root, &context, vec![(0, action)]).pop();
    match outcome {
        Some((_, Outcome::Done { displaced: Some(slot), .. })) => {
            let row = HistoryRow {
                slot: slot.name,
                path: path.clone(),
                content: None,
                disk: slot.disk,
                author: shared.device,
                displaced_ms: now_ms,
                by_remote: false,
            };
            shared.send(Input::History { found: vec![row], expired: Vec::new() });
            Ok(())
        }
        Some((_, Outcome::Failed(problem))) => Err(problem.text),
        _ => Err(format!("{path} is changing right now; try again")),
    }
}
