//! What the owner of a folder's state machine does with each input, whoever that owner is: the folder's thread, or a
//! simulator that has no threads.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::rules;
use super::shared::FolderHandle;
use crate::core::action::{Action, Displace, Expected, WorkId};
use crate::core::id::DeviceId;
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::index::{IndexError, Reader};
use crate::sync::{FetchOrder, Folder, Input, Now, Output};

/// Index note with the boot in which the folder was last known to be as the index says.
pub const NOTE_BOOT: &str = "boot";

/// Takes what the desk does not do itself. Nothing in here may wait for the folder's thread.
pub trait Errands {
    /// An action for whoever changes the disk.
    fn apply(&mut self, work: WorkId, action: Action);
    /// A version to be brought back from history; see [`super::restore::copy_back`].
    fn restore(&mut self, slot: RelPath, path: RelPath);
    /// An input that follows from this one.
    fn tell(&mut self, input: Input);
    fn send(&mut self, peer: DeviceId, message: Message);
    fn fetch(&mut self, order: FetchOrder);
    /// A work is over: what was fetched for it has been put into place, or is no longer minded.
    fn over(&mut self, work: WorkId);
    fn show(&mut self, kind: &'static str, path: Option<RelPath>, text: String);
}

/// Remembers what is under way between an output of the folder and the input that answers it.
pub struct Desk {
    handle: FolderHandle,
    /// Paths of the actions under way.
    under_way: HashMap<WorkId, Vec<RelPath>>,
    /// The boot in which the agent runs, until the index says so.
    boot: Option<String>,
}

impl Desk {
    /// `boot`: what is noted once the folder has been scanned, where it has not been noted yet.
    pub fn new(handle: FolderHandle, boot: Option<String>) -> Self {
        Self { handle, under_way: HashMap::new(), boot }
    }

    /// Has the folder take in an input, and carries out what it decides.
    pub fn take(
        &mut self,
        folder: &mut Folder,
        input: Input,
        now: Now,
        errands: &mut dyn Errands,
    ) -> Result<(), IndexError> {
        let ended: Vec<WorkId> = match &input {
            Input::Applied(outcomes) => outcomes.iter().map(|(work, _)| *work).collect(),
            _ => Vec::new(),
        };
        let looked_at: Vec<RelPath> = match &input {
            Input::Observed(observations) => observations.iter().map(|o| o.path.clone()).collect(),
            _ => Vec::new(),
        };
        let is_scanned = matches!(input, Input::ScanFinished { complete: true });
        let is_scan_over = matches!(input, Input::ScanFinished { .. });
        let outputs = folder.handle(input, now)?;
        // Not before the index knows what is there now: what was just put into place would be read as if it were news.
        self.ended(&ended, errands);
        self.handle.hints.release(&looked_at);
        self.handle.progress.looked_at(&looked_at);
        if is_scan_over {
            self.handle.progress.scan_ended();
        }
        self.handle.progress.took();
        if let Some(boot) = self.boot.take_if(|_| is_scanned) {
            folder.set_note(NOTE_BOOT, Some(&boot))?;
        }
        let is_fetched = outputs.iter().any(|output| matches!(output, Output::Fetch(_)));
        outputs.into_iter().for_each(|output| self.carry_out(folder.index(), output, errands));
        // It is needed before what comes is put on the disk, and now others are at work meanwhile.
        if is_fetched { folder.remember() } else { Ok(()) }
    }

    /// Works that were given out and not answered yet.
    #[cfg(feature = "testing")]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn ended(&mut self, works: &[WorkId], errands: &mut dyn Errands) {
        if !works.is_empty() {
            self.handle.live.flow.changed(works.len() as u64, self.handle.clock.instant());
        }
        let mut applying = self.handle.applying.lock().unwrap_or_else(PoisonError::into_inner);
        for work in works {
            for path in self.under_way.remove(work).unwrap_or_default() {
                applying.remove(&path);
            }
            errands.over(*work);
        }
    }

    fn carry_out(&mut self, reader: &Reader, output: Output, errands: &mut dyn Errands) {
        match output {
            Output::Send(peer, message) => errands.send(peer, message),
            Output::Fetch(order) => errands.fetch(order),
            Output::Apply(work, action) => {
                let paths = paths_of(&action);
                let mut applying = self.handle.applying.lock().unwrap_or_else(PoisonError::into_inner);
                applying.extend(paths.iter().cloned());
                self.under_way.insert(work, paths);
                errands.apply(work, action);
            }
            Output::Rescan(paths) => self.handle.hints.request(paths),
            Output::FullScan => self.handle.hints.request_full("asked for by the folder"),
            Output::ReloadRules => {
                if let Some(rules) = rules::reload(&self.handle, Some(reader)) {
                    errands.tell(Input::Rules(Box::new(rules)));
                }
            }
            Output::Restore { slot, path } => errands.restore(slot, path),
            Output::Event { kind, path, text } => errands.show(kind, path, text),
        }
    }
}

/// Every path that an action touches in the user's tree.
fn paths_of(action: &Action) -> Vec<RelPath> {
    let mut paths = vec![action.path().clone()];
    let expect = match action {
        Action::Move { from, .. } => {
            paths.push(from.clone());
            None
        }
        Action::CreateDirectory { expect, .. }
        | Action::PlaceFile { expect, .. }
        | Action::PlaceSymlink { expect, .. } => expect.as_ref(),
        _ => None,
    };
    if let Some(Expected { displace: Displace::ConflictCopy(copy), .. }) = expect {
        paths.push(copy.clone());
    }
    paths
}
