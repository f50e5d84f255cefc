//! A disk in memory that runs the real `fs`: with a page cache that a power cut empties, a user who can act between any
//! two calls of the agent, and all the trouble that disks make.
//!
//! The same calls give the same disk: nothing in here depends on a clock, on chance that was not handed in, or on the
//! order of a hash map.

mod calls;
mod fate;
mod handle;
mod image;
mod journal;
mod user;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use image::{ALLOCATION_BYTES, Body, Change, Id, Image, MOUNT_POINT, TOP};
use journal::Journal;
pub use journal::{Actor, CutMode, Dice, Lost};
pub use user::Item;

/// Where a disk is mounted, for the paths of roots. Paths on the disk itself begin below it.
pub const MOUNTED_AT: &str = "/disk";

/// What kind of disk it is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How far the clock for time stamps moves at a time.
    pub tick_ns: i64,
    /// How finely the disk keeps times.
    pub time_grain_ns: i64,
    /// Names that differ only in the case of ASCII letters are the same.
    pub folds: bool,
    /// Inode numbers are given out again once they are free, the lowest first.
    pub reuses_numbers: bool,
    /// Making a file durable does the same for its names.
    pub syncs_names: bool,
    /// There is a rename that does not replace, and one that swaps.
    pub has_rename_flags: bool,
    /// Grain of torn writes.
    pub block_bytes: usize,
    pub capacity_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick_ns: 1,
            time_grain_ns: 1,
            folds: false,
            reuses_numbers: false,
            syncs_names: false,
            has_rename_flags: true,
            block_bytes: 4096,
            capacity_bytes: 1 << 40,
        }
    }
}

/// The calls that the agent makes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    OpenRoot,
    CreateRoot,
    OpenDir,
    OpenToRead,
    OpenOwn,
    Stat,
    Names,
    Mkdir,
    Symlink,
    Readlink,
    Rename,
    RenameNoreplace,
    Exchange,
    Link,
    Unlink,
    Rmdir,
    Fsync,
    SyncFileSystem,
    Chmod,
    SetMtime,
    SetLen,
    Read,
    Write,
    FreeBytes,
}

/// A call of the agent that is about to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    pub call: Call,
    /// What it is called on: a file, or a directory in which `name` is.
    id: Id,
    pub name: Option<Vec<u8>>,
    /// How many calls came before it.
    pub index: u64,
}

/// Trouble for one kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The next call fails.
    Once,
    /// So many calls of a hundred fail.
    Percent(usize),
}

/// How a disk looks that is not mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmounted {
    /// Not even the directory is there.
    Gone,
    /// The empty directory that it is mounted on.
    Empty,
}

/// What the system would say to a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub path: Vec<u8>,
    /// It is complete: a file closed after writing, a rename, a new directory, a deletion.
    pub closed: bool,
    /// The name has gone away or has come by a rename.
    pub ends: bool,
}

/// What is called before each call of the agent.
pub type Hook = Box<dyn FnMut(&mut Inner, &Op) + Send>;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

/// The disk while nobody else can touch it.
pub struct Inner {
    options: Options,
    live: Image,
    journal: Journal,
    now_ns: i64,
    next_id: Id,
    /// Open handles of this life, by what they hold.
    open: BTreeMap<Id, usize>,
    /// Handles of an earlier life are dead.
    life: u64,
    is_cut_off: bool,
    op_count: u64,
    /// How many changes the agent has made.
    agent_changes: u64,
    hook: Option<Hook>,
    /// It was set while it ran.
    is_hook_new: bool,
    events: Vec<Event>,
    faults: BTreeMap<Call, Fault>,
    fault_dice: Box<dyn FnMut(usize) -> usize + Send>,
    is_read_only: bool,
    unmounted: Option<Unmounted>,
    denied: BTreeSet<Id>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    pub fn new(options: Options) -> SimDisk {
        let live = Image::new(options.folds, 0);
        SimDisk(Arc::new(Mutex::new(Inner {
            options,
            journal: Journal::new(live.clone()),
            live,
            now_ns: 0,
            next_id: MOUNT_POINT + 1,
            open: BTreeMap::new(),
            life: 0,
            is_cut_off: false,
            op_count: 0,
            agent_changes: 0,
            hook: None,
            is_hook_new: false,
            events: Vec::new(),
            faults: BTreeMap::new(),
            fault_dice: Box::new(|_| 0),
            is_read_only: false,
            unmounted: None,
            denied: BTreeSet::new(),
        })))
    }

    /// The disk, for the user and for whoever makes the trouble. Not to be held across a call of the agent.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy that goes its own way from here, with nothing open on it, for trying out several ends of one beginning.
    pub fn fork(&self) -> SimDisk {
        let inner = self.lock();
        let (live, journal) = (inner.live.clone(), inner.journal.clone());
        let copy = SimDisk::new(inner.options);
        let mut new = copy.lock();
        (new.live, new.journal) = (live, journal);
        (new.now_ns, new.next_id) = (inner.now_ns, inner.next_id);
        (new.is_read_only, new.unmounted, new.denied) = (inner.is_read_only, inner.unmounted, inner.denied.clone());
        drop(new);
        copy
    }

    /// Where a directory of the disk is for the agent.
    pub fn root_path(&self, name: &str) -> std::path::PathBuf {
        Path::new(MOUNTED_AT).join(name)
    }
}

impl Inner {
    /// Sets the time for stamps, in nanoseconds since 1970.
    pub fn set_now_ns(&mut self, now_ns: i64) {
        self.now_ns = now_ns;
    }

    pub fn now_ns(&self) -> i64 {
        self.now_ns
    }

    /// What is called before each call of the agent from now on; it may act as the user, or cut the agent off.
    pub fn set_hook(&mut self, hook: Option<Hook>) {
        self.hook = hook;
        self.is_hook_new = true;
    }

    /// How many calls the agent has made.
    pub fn op_count(&self) -> u64 {
        self.op_count
    }

    /// What has happened since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The path that a call is about.
    pub fn op_path(&self, op: &Op) -> Vec<u8> {
        let mut path = self.live.path_of(op.id).unwrap_or_default();
        if let Some(name) = &op.name {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(name);
        }
        path
    }

    /// Lets every call of the agent fail until [`Inner::kill`] or [`Inner::power_cut`]: it is as good as dead.
    pub fn cut_agent_off(&mut self) {
        self.is_cut_off = true;
    }

    /// Ends the agent's process: all that it had open is closed. What can be seen stays.
    pub fn kill(&mut self) {
        self.life += 1;
        self.is_cut_off = false;
        self.open.clear();
        self.live.drop_nameless(|_| false);
    }

    /// Turns the power off and on again. Returns the contents that could be seen before and are nowhere now.
    pub fn power_cut(&mut self, mode: CutMode, dice: Dice<'_>) -> Vec<Lost> {
        let (live, lost) = self.journal.cut(mode, self.options.block_bytes, &self.live, dice);
        self.live = live;
        self.denied.retain(|id| self.live.nodes.contains_key(id));
        self.kill();
        lost
    }

    /// Lets the system make some of what is pending durable.
    pub fn write_back(&mut self, dice: Dice<'_>) {
        self.journal.write_back(dice);
    }

    /// Makes everything durable.
    pub fn sync_all(&mut self) {
        self.journal.sync_all();
    }

    /// How many changes are not durable.
    pub fn pending_count(&self) -> usize {
        self.journal.pending_count()
    }

    pub fn set_capacity_bytes(&mut self, bytes: u64) {
        self.options.capacity_bytes = bytes;
    }

    pub fn set_read_only(&mut self, is_read_only: bool) {
        self.is_read_only = is_read_only;
    }

    /// Takes the disk away, with all that is open on it, or brings it back.
    pub fn set_unmounted(&mut self, unmounted: Option<Unmounted>) {
        self.unmounted = unmounted;
        self.life += 1;
        self.open.clear();
        self.live.drop_nameless(|_| false);
    }

    /// Lets one kind of call fail with an input or output error, or no more.
    pub fn set_fault(&mut self, call: Call, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.insert(call, fault),
            None => self.faults.remove(&call),
        };
    }

    /// Where the chance of [`Fault::Percent`] comes from.
    pub fn set_fault_dice(&mut self, dice: Box<dyn FnMut(usize) -> usize + Send>) {
        self.fault_dice = dice;
    }

    /// Keeps the agent out of a directory and of all below, or lets it in again.
    pub fn set_denied(&mut self, path: &str, is_denied: bool) -> Result<(), Errno> {
        let id = self.resolve(path.as_bytes())?;
        if is_denied {
            self.denied.insert(id);
        } else {
            self.denied.remove(&id);
        }
        Ok(())
    }

    fn top(&self) -> Id {
        if self.unmounted.is_some() { MOUNT_POINT } else { TOP }
    }

    fn free_bytes(&self) -> u64 {
        let used = |body: &Body| match body {
            Body::File(_, blocks) => blocks.len() as u64 * ALLOCATION_BYTES,
            _ => 0,
        };
        let used: u64 = self.live.nodes.values().map(|node| used(&node.body)).sum();
        self.options.capacity_bytes.saturating_sub(used)
    }

    /// Makes a change that is known to fit.
    fn change(&mut self, actor: Actor, change: Change) {
        let now_ns = self.now_ns - self.now_ns.rem_euclid(self.options.tick_ns.max(self.options.time_grain_ns));
        let names: Vec<image::Spot> = change.writes().into_iter().cloned().collect();
        let inode = change.inode();
        let is_complete = match &change {
            Change::Create { body, .. } => !matches!(body, Body::File(..)),
            Change::Link { .. } | Change::SetLen { .. } | Change::Write { .. } => false,
            _ => true,
        };
        let ends = matches!(change, Change::Remove { .. } | Change::Rename { .. } | Change::Exchange { .. });
        let is_metadata = matches!(change, Change::SetMode { .. } | Change::SetMtime { .. });
        self.agent_changes += u64::from(actor == Actor::Agent);
        let is_done = self.live.apply(&change, now_ns);
        assert!(is_done, "a change that was checked does not fit: {change:?}");
        self.journal.push(change, now_ns, actor);
        let of_inode = inode.and_then(|id| self.live.nodes.get(&id)).map(|node| node.names.clone());
        for spot in names.into_iter().chain(of_inode.into_iter().flatten()) {
            self.say(&spot, is_complete && !is_metadata, ends);
        }
        self.live.drop_nameless(|id| self.open.contains_key(&id));
    }

    fn say(&mut self, spot: &image::Spot, closed: bool, ends: bool) {
        if let Some(path) = self.live.path_at(spot) {
            self.events.push(Event { path, closed, ends });
        }
    }

    /// Forgets an open handle, and with the last one what it held if that has no name any more.
    fn close(&mut self, id: Id, life: u64, was_written: bool) {
        if life != self.life {
            return;
        }
        if let Some(count) = self.open.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&id);
            }
        }
        if was_written {
            let names = self.live.nodes.get(&id).map(|node| node.names.clone()).unwrap_or_default();
            names.iter().for_each(|spot| self.say(spot, true, false));
        }
        self.live.drop_nameless(|id| self.open.contains_key(&id));
    }
}
