//! Why a path is not as another device has it: what the rivals at it come to, and what they wait for.

use super::View;
use crate::core::decide::{self, Decision, Found};
use crate::core::entry::{Entry, Kind};
use crate::core::id::DeviceId;
use crate::core::message::Reason;
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::index::{IndexError, Mark, ProblemRow, Record, Rival};

/// Paths with rivals that are looked at one by one; beyond that they are only counted.
const SURVEYED_MAX: usize = 2000;

/// What is to become of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coming {
    /// A newer version is to be here.
    Newer,
    /// It is to be deleted here.
    Deletion,
    /// Changed on both; the other version gets the name, ours becomes a conflict copy.
    ConflictHere,
    /// Changed on both; the device that has the other version keeps that as a conflict copy.
    ConflictThere,
    /// Both versions are to be joined; at most mode and time change.
    Merge,
    /// Passed on only: nothing is to be done here.
    NotMinded,
    /// The folder only sends, or what was changed here stands in the way: it is not taken.
    KeptOut,
}

impl Coming {
    /// True where something is to be done or waited for.
    pub fn is_minded(self) -> bool {
        !matches!(self, Coming::NotMinded | Coming::KeptOut)
    }
}

/// How far that is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Progress {
    /// It can go on at once.
    Workable,
    /// Until a device that is not connected comes back.
    Absent,
    /// Until the user has said what is meant.
    Held,
    Problem,
}

/// A path with rivals.
#[derive(Clone, Debug)]
pub struct Wait {
    pub path: RelPath,
    pub coming: Coming,
    pub progress: Progress,
    /// The entry that ours is to become, or that conflicts with it.
    pub entry: Entry,
    /// Devices that have that version.
    pub devices: Vec<DeviceId>,
    /// All devices with an entry that ours does not include.
    pub rivals: Vec<DeviceId>,
    pub problem: Option<ProblemRow>,
}

/// The paths with rivals.
pub struct Survey {
    pub waits: Vec<Wait>,
    /// False where there are more than were looked at.
    pub is_all: bool,
}

impl Wait {
    /// Bytes to be fetched; `None` where no file is to come.
    pub fn file_bytes(&self) -> Option<u64> {
        let is_wanted = matches!(self.coming, Coming::Newer | Coming::ConflictHere);
        self.entry.kind.content().filter(|_| is_wanted).map(|content| content.size)
    }
}

/// Looks at the paths with rivals below a directory, or at all of them.
pub fn survey(view: &View, below: Option<&RelPath>) -> Result<Survey, IndexError> {
    let found = view.reader.found()?;
    let mut paths = view.reader.rival_paths(None, below, SURVEYED_MAX + 1)?;
    let is_all = paths.len() <= SURVEYED_MAX;
    paths.truncate(SURVEYED_MAX);
    let is_held = view.reader.note(crate::sync::NOTE_HELD)?.is_some();
    let mut waits = Vec::new();
    for path in paths {
        waits.extend(look(view, &path, &found, is_held)?);
    }
    Ok(Survey { waits, is_all })
}

/// What the rivals at a path come to; `None` where there are none that matter. `is_held` where deletions wait for
/// the user.
pub fn look(view: &View, path: &RelPath, found: &Found, is_held: bool) -> Result<Option<Wait>, IndexError> {
    let rivals = view.reader.rivals(path)?;
    if rivals.is_empty() {
        return Ok(None);
    }
    let record = view.reader.record(path)?;
    let ours = record.as_ref().map_or_else(|| Entry::nothing(path.clone()), |r| r.entry.clone());
    let decided = rivals.iter().map(|rival| (rival, decide::decide(&ours, &rival.entry, found)));
    let unsettled: Vec<(&Rival, Decision)> =
        decided.filter(|(rival, _)| !decide::is_settled(&ours, &rival.entry, found)).collect();
    let Some((best, decision)) = unsettled.iter().copied().reduce(|a, b| if weight(&b) > weight(&a) { b } else { a })
    else {
        return Ok(None);
    };
    let own = view.asker.device;
    let is_alike = |rival: &Rival| {
        rival.entry.kind.content_id() == best.entry.kind.content_id()
            && rival.entry.kind.disk_kind() == best.entry.kind.disk_kind()
    };
    let has_it = |rival: &Rival| rival.peer != own && rival.held && is_alike(rival);
    let devices: Vec<DeviceId> = unsettled.iter().filter(|(r, _)| has_it(r)).map(|(r, _)| r.peer).collect();
    let all: Vec<DeviceId> = unsettled.iter().map(|(r, _)| r.peer).filter(|peer| *peer != own).collect();
    let problem = view.reader.problem(path)?;
    let coming = match coming(record.as_ref(), best, decision) {
        Coming::NotMinded => Coming::NotMinded,
        _ if !view.folder.direction.admits(&ours, &best.entry) => Coming::KeptOut,
        Coming::Deletion if ours.kind.is_directory() && has_own_below(view, path)? => Coming::KeptOut,
        Coming::ConflictThere if is_kept_out_there(view, path, &all)? => Coming::NotMinded,
        coming => coming,
    };
    let progress = match coming {
        Coming::NotMinded | Coming::KeptOut => Progress::Workable,
        Coming::Deletion if is_held => Progress::Held,
        _ if problem.as_ref().is_some_and(|row| row.problem.kind != ProblemKind::NoSource) => Progress::Problem,
        _ => progress(view, coming, best, &ours, &devices, &all)?,
    };
    let entry = best.entry.clone();
    Ok(Some(Wait { path: path.clone(), coming, progress, entry, devices, rivals: all, problem }))
}

/// True where something below a directory was changed here, in a folder that only receives.
fn has_own_below(view: &View, directory: &RelPath) -> Result<bool, IndexError> {
    let next = view.reader.marked(Mark::Own, Some(directory), 1)?;
    Ok(next.first().is_some_and(|record| record.entry.path.is_below(directory)))
}

/// True where the devices that would resolve a conflict have said that they won't.
fn is_kept_out_there(view: &View, path: &RelPath, peers: &[DeviceId]) -> Result<bool, IndexError> {
    for peer in peers {
        let exception = view.reader.exception_at(*peer, path)?;
        if exception.is_none_or(|exception| exception.reason != Reason::Declined) {
            return Ok(false);
        }
    }
    Ok(!peers.is_empty())
}

/// Of several rivals the one that tells most: what will change something here, and of those the newest.
fn weight((rival, decision): &(&Rival, Decision)) -> (u8, i64, bool) {
    let rank = match decision {
        Decision::Resolve { .. } => 3,
        Decision::Take => 2,
        Decision::Wait => 1,
        Decision::Keep | Decision::Join | Decision::Forget => 0,
    };
    (rank, rival.entry.weight_ns, rival.held)
}

fn coming(record: Option<&Record>, rival: &Rival, decision: Decision) -> Coming {
    if record.is_some_and(|r| matches!(r.mark, Mark::Ignored | Mark::Declined | Mark::Own)) {
        return Coming::NotMinded;
    }
    let is_same = record.is_some_and(|r| r.is_held() && r.entry.kind == rival.entry.kind);
    match decision {
        Decision::Wait => Coming::ConflictThere,
        Decision::Resolve { copy: true } => Coming::ConflictHere,
        Decision::Take | Decision::Resolve { .. } if is_same => Coming::Merge,
        Decision::Take | Decision::Resolve { .. } if rival.entry.is_live() => Coming::Newer,
        Decision::Take if record.is_some_and(|r| r.entry.is_live()) => Coming::Deletion,
        _ => Coming::Merge,
    }
}

fn progress(
    view: &View,
    coming: Coming,
    best: &Rival,
    ours: &Entry,
    devices: &[DeviceId],
    rivals: &[DeviceId],
) -> Result<Progress, IndexError> {
    let is_any = |of: &[DeviceId]| of.iter().any(|device| view.is_connected(device));
    let is_workable = match (coming, &best.entry.kind) {
        (Coming::ConflictThere, _) => is_any(rivals),
        (Coming::Newer | Coming::ConflictHere, Kind::File(content)) => {
            // Nothing has to be fetched of what is empty, or already here under another name.
            content.size == 0
                || ours.kind.content() == Some(*content)
                || is_any(devices)
                || !view.reader.holders(content.id, 1)?.is_empty()
        }
        _ => true,
    };
    Ok(if is_workable { Progress::Workable } else { Progress::Absent })
}
