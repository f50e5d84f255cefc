//! A command that takes something back: what it would do, told first, and what it has done.

use std::collections::BTreeSet;

use super::rewind::{self, Deed, Plan};
use super::shared::FolderHandle;
use super::{undo, way_back};
use crate::api::{RewindItem, RewindReport, RewindTo, WaitItem};
use crate::config::Config;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::index::Reader;

/// Paths that are named in an answer.
const NAMED_MAX: usize = 1000;
/// Devices in the log that are told apart: far more than anybody has.
const DEVICES_MAX: usize = 1000;

/// What a command asks of a folder.
pub struct Asked<'a> {
    pub config: &'a Config,
    pub handle: &'a FolderHandle,
    pub below: Option<&'a RelPath>,
    pub dry_run: bool,
}

impl Asked<'_> {
    /// Says what is to be done, and does it unless only that was asked.
    pub fn answer(&self, to: &RewindTo) -> Result<RewindReport, String> {
        // One at a time: each is worked out from what the one before has left.
        let _turn =
            self.handle.rewinding.try_lock().map_err(|_| "something is being taken back in this folder already")?;
        let plan = self.plan(to)?;
        let failed = if self.dry_run { Vec::new() } else { rewind::carry_out(self.handle, &plan)? };
        Ok(self.report(&plan, failed))
    }

    fn plan(&self, to: &RewindTo) -> Result<Plan, String> {
        let handle = self.handle;
        let reader = Reader::open(&handle.index_path).map_err(|e| e.to_string())?;
        match to {
            RewindTo::AtMs(at_ms) => {
                rewind::plan_at(&reader, *at_ms, self.below, handle.device).map_err(|e| e.to_string())
            }
            RewindTo::BeforePeer { ended_ms } => {
                // What one did counts also after it was removed: that may be why it was.
                let known = reader.devices(DEVICES_MAX).map_err(|e| e.to_string())?;
                let paired = self.config.peers.iter().map(|peer| peer.id);
                let others: BTreeSet<DeviceId> = paired.chain(known).filter(|id| *id != handle.device).collect();
                let others: Vec<DeviceId> = others.into_iter().collect();
                let plan = undo::plan(&reader, &others, handle.device).map_err(|e| e.to_string())?;
                let plan = plan.ok_or("the log knows of nothing that another device has changed in this folder")?;
                let ends = plan.burst.as_ref().map(|burst| burst.to_ms);
                if ended_ms.is_some() && *ended_ms != ends {
                    return Err("more has been changed meanwhile; look again at what would be undone".to_owned());
                }
                Ok(plan)
            }
            RewindTo::BeforeRewind => {
                let plan = way_back::plan_back(&reader).map_err(|e| e.to_string())?;
                if plan.steps.is_empty() {
                    return Err("nothing was taken back in this folder, or more than is kept track of".to_owned());
                }
                Ok(plan)
            }
        }
    }

    fn report(&self, plan: &Plan, failed: Vec<(RelPath, String)>) -> RewindReport {
        let steps = plan.steps.iter().map(|step| {
            let (what, text) = match &step.deed {
                Deed::Bring(_) => ("bring_back", None),
                Deed::SetAside => ("set_aside", None),
                Deed::Rename(to) => ("rename", Some(to.to_string())),
            };
            RewindItem { path: step.path.to_string(), what: what.to_owned(), text }
        });
        let left = plan.left.iter().map(|(path, why)| RewindItem {
            path: path.to_string(),
            what: "left".to_owned(),
            text: Some((*why).to_owned()),
        });
        let burst = plan.burst.as_ref();
        let peer = burst.and_then(|burst| self.config.find_peer(&burst.device));
        let folder = self.config.folder(&self.handle.id);
        let root = folder.map(|folder| folder.path.clone()).unwrap_or_default();
        let path = self.below.map_or(root.clone(), |below| root.join(below.to_string()));
        RewindReport {
            folder: self.handle.label.clone(),
            path: path.to_string_lossy().into_owned(),
            dry_run: self.dry_run,
            bring_back: plan.count(|deed| matches!(deed, Deed::Bring(_))),
            set_aside: plan.count(|deed| matches!(deed, Deed::SetAside)),
            rename: plan.count(|deed| matches!(deed, Deed::Rename(_))),
            left: plan.left.len() as u64,
            items: left.chain(steps).take(NAMED_MAX).collect(),
            failed: failed
                .into_iter()
                .take(NAMED_MAX)
                .map(|(path, text)| WaitItem { path: path.to_string(), text })
                .collect(),
            device: peer.map(|peer| peer.name.clone()).or_else(|| burst.map(|burst| burst.device.clone())),
            from_ms: burst.map(|burst| burst.from_ms),
            to_ms: burst.map(|burst| burst.to_ms).or(plan.done_ms),
        }
    }
}
