//! Phase one: what is to be put into the tree, made ready and durable in the stage.

use std::collections::HashMap;

use rustix::io::Errno;

use super::{ApplyContext, SYNC_EACH_MAX, Stop, failed};
use crate::core::action::{Action, WorkId};
use crate::core::content::{Content, ContentId};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::MODE_MASK;
use crate::core::problem::{Problem, ProblemKind};
use crate::failpoint;
use crate::fs::error::{name_problem, problem};
use crate::fs::history;
use crate::fs::root::OpenRoot;
use crate::fs::stage;
use crate::fs::sys::Place;
use crate::sabotage::{self, Bug};

/// The agent has to be able to work in every directory that it makes, so its owner keeps these bits.
pub const OWNER_BITS: u32 = 0o700;

/// Something complete in the stage, with its final mode and mtime.
pub struct Fresh {
    name: Box<[u8]>,
    pub state: DiskState,
    /// True for what has to be made anew for another attempt anyway.
    temporary: bool,
}

impl Fresh {
    pub fn place(&self, root: &OpenRoot) -> Place {
        Place { name: self.name.clone(), ..root.stage_place("") }
    }

    /// Clears away a temporary thing that did not get into place; a staged file stays for the next attempt.
    pub fn drop_temporary(&self, root: &OpenRoot) {
        if self.temporary
            && let Err(errno) = stage::unlink_own(root, &self.name)
        {
            tracing::debug!(%errno, "a temporary file stays in the stage until the next start");
        }
    }
}

/// Makes ready what the actions put into the tree: for each one something, nothing, or the reason why not.
pub fn all(root: &OpenRoot, context: &ApplyContext, actions: &[(WorkId, Action)]) -> Vec<Result<Option<Fresh>, Stop>> {
    let mut uses: HashMap<(ContentId, u32), usize> = HashMap::new();
    for (_, action) in actions {
        if let Action::PlaceFile { content, copy, .. } = action {
            *uses.entry((content.id, *copy)).or_default() += 1;
        }
    }
    let files: usize = uses.values().sum();
    let sync_each = files <= SYNC_EACH_MAX;
    let mut prepared: Vec<Result<Option<Fresh>, Stop>> =
        actions.iter().map(|(_, action)| one(root, context, action, &mut uses, sync_each)).collect();
    if sync_each {
        return prepared;
    }
    let synced = match root.stage_dir().sync_file_system() {
        Ok(true) => Ok(()),
        Ok(false) => prepared.iter().flatten().flatten().try_for_each(|fresh| sync_file(root, fresh)),
        Err(errno) => Err(errno),
    };
    failpoint::hit("stage.all_synced");
    if let Err(errno) = synced {
        for item in prepared.iter_mut().filter(|item| matches!(item, Ok(Some(_)))) {
            if let Ok(Some(fresh)) = item {
                fresh.drop_temporary(root);
            }
            *item = Err(failed(problem("make it durable", errno)));
        }
    }
    prepared
}

fn one(
    root: &OpenRoot,
    context: &ApplyContext,
    action: &Action,
    uses: &mut HashMap<(ContentId, u32), usize>,
    sync_each: bool,
) -> Result<Option<Fresh>, Stop> {
    match action {
        Action::PlaceFile { content, copy, mtime_ns, mode, .. } => {
            // The last action that wants a staged file gets the file itself, the others a copy.
            let left = uses.entry((content.id, *copy)).or_default();
            *left = left.saturating_sub(1);
            let (as_copy, mode) = (*left > 0, *mode & MODE_MASK);
            let wanted = DiskState {
                kind: DiskKind::File,
                size: content.size,
                mtime_ns: *mtime_ns,
                ctime_ns: 0,
                inode: 0,
                mode,
            };
            file(root, context, (*content, *copy), &wanted, as_copy, sync_each).map(Some)
        }
        Action::PlaceSymlink { target, mtime_ns, .. } => link(root, context, target, *mtime_ns).map(Some),
        Action::CreateDirectory { mode, expect: Some(expect), .. } if expect.disk.kind != DiskKind::Directory => {
            directory(root, context, *mode, sync_each).map(Some)
        }
        _ => Ok(None),
    }
}

fn file(
    root: &OpenRoot,
    context: &ApplyContext,
    (content, copy): (Content, u32),
    wanted: &DiskState,
    as_copy: bool,
    sync: bool,
) -> Result<Fresh, Stop> {
    let io = |errno| failed(problem("make its staged file ready", errno));
    let (place, file, temporary) = if content.size == 0 {
        // Nothing was fetched for it.
        let (place, file) = stage::temporary_file(root, context.now_ms).map_err(io)?;
        (place, file, true)
    } else {
        let name = stage::stage_name(content, copy);
        if !as_copy
            && !sync
            && let Some(state) = stage::ready(root, &name, wanted)
        {
            return Ok(Fresh { name: name.into_bytes().into(), state, temporary: false });
        }
        let (place, file) = stage::open_complete(root, content, copy).map_err(io)?.ok_or(Stop::NotStaged)?;
        if as_copy {
            let copy = history::copy_file(root, &place, wanted, context.now_ms).map_err(io)?;
            return fresh(copy, true).map_err(io);
        }
        (place, file, false)
    };
    let ready = || -> Result<(), Errno> {
        file.chmod(wanted.mode)?;
        file.set_mtime(wanted.mtime_ns)?;
        failpoint::hit("stage.made_ready");
        if sync && !sabotage::is(Bug::NoFileSync) { file.fsync() } else { Ok(()) }
    };
    ready().map_err(io)?;
    failpoint::hit("stage.synced");
    fresh(place, temporary).map_err(io)
}

fn link(root: &OpenRoot, context: &ApplyContext, target: &[u8], mtime_ns: i64) -> Result<Fresh, Stop> {
    // An empty target is refused as if something were missing.
    let io = |errno| {
        failed(name_problem(
            "make a symlink with this target",
            if errno == Errno::NOENT { Errno::INVAL } else { errno },
        ))
    };
    let made = stage::make_temporary(root, context.now_ms, |place| place.symlink(target));
    let (place, ()) = made.map_err(|errno| match errno {
        // Each says so of a disk without symlinks, and nothing is refused in a directory of the agent's own.
        Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP => failed(Problem::new(
            ProblemKind::Name,
            "the file system here has no symlinks; it stays as it is on the other devices",
        )),
        other => io(other),
    })?;
    place.set_mtime(mtime_ns).map_err(io)?;
    fresh(place, true).map_err(io)
}

fn directory(root: &OpenRoot, context: &ApplyContext, mode: u32, sync: bool) -> Result<Fresh, Stop> {
    let io = |errno| failed(problem("make the directory", errno));
    let (place, ()) = stage::make_temporary(root, context.now_ms, |place| place.mkdir(OWNER_BITS)).map_err(io)?;
    place.chmod(mode & MODE_MASK | OWNER_BITS).map_err(io)?;
    if sync {
        place.open_to_read().and_then(|made| made.fsync()).map_err(io)?;
    }
    fresh(place, true).map_err(io)
}

fn fresh(place: Place, temporary: bool) -> Result<Fresh, Errno> {
    let state = place.state()?.ok_or(Errno::INVAL)?;
    Ok(Fresh { name: place.name, state, temporary })
}

fn sync_file(root: &OpenRoot, fresh: &Fresh) -> Result<(), Errno> {
    if fresh.state.kind == DiskKind::Symlink {
        return Ok(());
    }
    root.stage_dir().open_to_read(&fresh.name)?.fsync()
}
