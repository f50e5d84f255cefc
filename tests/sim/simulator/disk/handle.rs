//! The disk as the agent sees it.

use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::fs::sys::{BoxedHandle, Handle, Stat, System};
use rustix::io::Errno;

use super::calls::Onto;
use super::image::{ALLOCATION_BYTES, Body, Id, Node, Spot};
use super::{Actor, Call, Fault, Inner, MOUNTED_AT, Op, SimDisk, Unmounted};

/// Mode of the agent's own files.
const OWN_FILE_MODE: u32 = 0o600;

struct SimHandle {
    disk: Arc<Mutex<Inner>>,
    id: Id,
    life: u64,
    is_writable: bool,
}

impl System for SimDisk {
    fn open_root(&self, path: &Path) -> Result<BoxedHandle, Errno> {
        let mut inner = self.lock();
        let top = inner.top();
        inner.begin(Call::OpenRoot, top, None)?;
        let names = below_mount(path)?;
        if inner.unmounted == Some(Unmounted::Gone) {
            return Err(Errno::NOENT);
        }
        let mut id = inner.top();
        for name in names {
            id = inner.lookup(&Spot { dir: id, name })?;
        }
        inner.open_dir(&self.0, id)
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), Errno> {
        let mut inner = self.lock();
        let top = inner.top();
        inner.begin(Call::CreateRoot, top, None)?;
        let names = below_mount(path)?;
        if inner.unmounted == Some(Unmounted::Gone) {
            return Err(Errno::NOENT);
        }
        let mut dir = inner.top();
        for name in names {
            let at = Spot { dir, name };
            dir = match inner.lookup(&at) {
                Err(Errno::NOENT) => inner.create(Actor::Agent, &at, empty_dir(), 0o777)?,
                found => found?,
            };
        }
        if inner.node(dir)?.is_dir() { Ok(()) } else { Err(Errno::EXIST) }
    }
}

fn below_mount(path: &Path) -> Result<Vec<Vec<u8>>, Errno> {
    let below = path.strip_prefix(MOUNTED_AT).map_err(|_| Errno::NOENT)?;
    Ok(below.iter().map(|name| name.as_encoded_bytes().to_vec()).collect())
}

fn empty_dir() -> Body {
    Body::Directory(Default::default())
}

impl Inner {
    /// What comes before every call: whoever listens acts, and trouble may end it here.
    fn begin(&mut self, call: Call, id: Id, name: Option<&[u8]>) -> Result<(), Errno> {
        if self.is_cut_off {
            return Err(Errno::IO);
        }
        let op = Op { call, id, name: name.map(<[u8]>::to_vec), index: self.op_count };
        self.op_count += 1;
        if let Some(mut hook) = self.hook.take() {
            self.is_hook_new = false;
            hook(self, &op);
            // It may have put another one in its place, or none.
            if !self.is_hook_new {
                self.hook = Some(hook);
            }
        }
        if self.is_cut_off {
            return Err(Errno::IO);
        }
        let fails = match self.faults.get(&call) {
            None => false,
            Some(Fault::Once) => self.faults.remove(&call).is_some(),
            Some(Fault::Percent(percent)) => (self.fault_dice)(100) < *percent,
        };
        if fails { Err(Errno::IO) } else { Ok(()) }
    }

    fn open(&mut self, disk: &Arc<Mutex<Inner>>, id: Id, is_writable: bool) -> BoxedHandle {
        *self.open.entry(id).or_default() += 1;
        Box::new(SimHandle { disk: Arc::clone(disk), id, life: self.life, is_writable })
    }

    fn open_dir(&mut self, disk: &Arc<Mutex<Inner>>, id: Id) -> Result<BoxedHandle, Errno> {
        if !self.node(id)?.is_dir() {
            return Err(Errno::NOTDIR);
        }
        self.check_allowed(id)?;
        Ok(self.open(disk, id, false))
    }

    fn check_allowed(&self, id: Id) -> Result<(), Errno> {
        let is_denied = self.denied.iter().any(|denied| self.live.is_within(id, *denied));
        if is_denied { Err(Errno::ACCESS) } else { Ok(()) }
    }

    fn stat_of(&self, node: &Node) -> Stat {
        let (kind, size, allocated_bytes) = match &node.body {
            Body::File(bytes, blocks) => (DiskKind::File, bytes.len(), blocks.len() as u64 * ALLOCATION_BYTES),
            Body::Directory(_) => (DiskKind::Directory, 0, ALLOCATION_BYTES),
            Body::Symlink(target) => (DiskKind::Symlink, target.len(), 0),
        };
        let state = DiskState {
            kind,
            size: size as u64,
            mtime_ns: node.mtime_ns,
            ctime_ns: node.ctime_ns,
            inode: node.number,
            mode: node.mode,
        };
        Stat { state: Some(state), links: node.names.len() as u64, allocated_bytes, device: 1 }
    }
}

impl SimHandle {
    /// Begins a call on what is open.
    fn on_self(&self, call: Call) -> Result<MutexGuard<'_, Inner>, Errno> {
        let mut inner = self.alive()?;
        inner.begin(call, self.id, None)?;
        self.still(inner)
    }

    /// Begins a call on a name in the open directory.
    fn on_name(&self, call: Call, name: &[u8]) -> Result<(MutexGuard<'_, Inner>, Spot), Errno> {
        let mut inner = self.alive()?;
        inner.begin(call, self.id, Some(name))?;
        let inner = self.still(inner)?;
        inner.check_allowed(self.id)?;
        Ok((inner, self.spot(name)))
    }

    fn alive(&self) -> Result<MutexGuard<'_, Inner>, Errno> {
        self.still(self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn still<'a>(&self, inner: MutexGuard<'a, Inner>) -> Result<MutexGuard<'a, Inner>, Errno> {
        if self.life == inner.life { Ok(inner) } else { Err(Errno::IO) }
    }

    fn spot(&self, name: &[u8]) -> Spot {
        Spot { dir: self.id, name: name.to_vec() }
    }

    /// The name at the other end of a call with two.
    fn other(&self, to: &dyn Handle, name: &[u8]) -> Result<Spot, Errno> {
        let to: &dyn Any = to;
        let to = to.downcast_ref::<SimHandle>().filter(|to| Arc::ptr_eq(&self.disk, &to.disk)).ok_or(Errno::XDEV)?;
        if to.life == self.life { Ok(to.spot(name)) } else { Err(Errno::IO) }
    }

    fn rename_onto(&self, call: Call, name: &[u8], to: &dyn Handle, to_name: &[u8], onto: Onto) -> Result<(), Errno> {
        let (mut inner, from) = self.on_name(call, name)?;
        let to = self.other(to, to_name)?;
        inner.check_allowed(to.dir)?;
        if onto != Onto::Replace && !inner.options.has_rename_flags {
            return Err(Errno::INVAL);
        }
        inner.rename(Actor::Agent, &from, &to, onto)
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        let mut inner = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        inner.close(self.id, self.life, self.is_writable);
    }
}

impl Handle for SimHandle {
    fn open_dir_beneath(&self, path: &[u8]) -> Result<BoxedHandle, Errno> {
        let mut inner = self.alive()?;
        inner.begin(Call::OpenDir, self.id, (!path.is_empty()).then_some(path))?;
        let mut inner = self.still(inner)?;
        let mut id = self.id;
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        for (i, name) in names.iter().enumerate() {
            inner.check_allowed(id)?;
            id = inner.lookup(&Spot { dir: id, name: name.to_vec() })?;
            let is_last = i + 1 == names.len();
            if !is_last && matches!(inner.node(id)?.body, Body::Symlink(_)) {
                return Err(Errno::LOOP);
            }
        }
        inner.open_dir(&self.disk, id)
    }

    fn open_dir_at(&self, name: &[u8]) -> Result<BoxedHandle, Errno> {
        let (mut inner, spot) = self.on_name(Call::OpenDir, name)?;
        let id = inner.lookup(&spot)?;
        inner.open_dir(&self.disk, id)
    }

    fn open_to_read(&self, name: &[u8]) -> Result<BoxedHandle, Errno> {
        let (mut inner, spot) = self.on_name(Call::OpenToRead, name)?;
        let id = inner.lookup(&spot)?;
        if matches!(inner.node(id)?.body, Body::Symlink(_)) {
            return Err(Errno::LOOP);
        }
        inner.check_allowed(id)?;
        Ok(inner.open(&self.disk, id, false))
    }

    fn open_own(&self, name: &[u8], is_new: bool) -> Result<BoxedHandle, Errno> {
        let (mut inner, spot) = self.on_name(Call::OpenOwn, name)?;
        let id = match inner.lookup(&spot) {
            Ok(_) if is_new => return Err(Errno::EXIST),
            Ok(id) => {
                inner.check_allowed(id)?;
                match inner.node(id)?.body {
                    Body::Directory(_) => return Err(Errno::ISDIR),
                    Body::Symlink(_) => return Err(Errno::LOOP),
                    Body::File(..) if inner.is_read_only => return Err(Errno::ROFS),
                    Body::File(..) => id,
                }
            }
            Err(Errno::NOENT) => {
                let file = Body::File(Vec::new(), Default::default());
                inner.create(Actor::Agent, &spot, file, OWN_FILE_MODE)?
            }
            Err(errno) => return Err(errno),
        };
        Ok(inner.open(&self.disk, id, true))
    }

    fn stat(&self) -> Result<Stat, Errno> {
        let inner = self.on_self(Call::Stat)?;
        Ok(inner.stat_of(inner.node(self.id)?))
    }

    fn stat_at(&self, name: &[u8]) -> Result<Stat, Errno> {
        let (inner, spot) = self.on_name(Call::Stat, name)?;
        Ok(inner.stat_of(inner.node(inner.lookup(&spot)?)?))
    }

    fn names(&self) -> Result<Vec<Box<[u8]>>, Errno> {
        let inner = self.on_self(Call::Names)?;
        inner.check_allowed(self.id)?;
        let entries = inner.live.entries(self.id).ok_or(Errno::NOTDIR)?;
        let mut names: Vec<Box<[u8]>> = entries.values().map(|(name, _)| name.as_slice().into()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::Mkdir, name)?;
        inner.create(Actor::Agent, &spot, empty_dir(), mode).map(drop)
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::Symlink, name)?;
        inner.symlink(Actor::Agent, &spot, target).map(drop)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let (inner, spot) = self.on_name(Call::Readlink, name)?;
        match &inner.node(inner.lookup(&spot)?)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    fn rename(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        self.rename_onto(Call::Rename, name, to, to_name, Onto::Replace)
    }

    fn rename_noreplace(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        self.rename_onto(Call::RenameNoreplace, name, to, to_name, Onto::Free)
    }

    fn exchange(&self, name: &[u8], with: &dyn Handle, with_name: &[u8]) -> Result<(), Errno> {
        self.rename_onto(Call::Exchange, name, with, with_name, Onto::Exchange)
    }

    fn link(&self, name: &[u8], to: &dyn Handle, to_name: &[u8]) -> Result<(), Errno> {
        let (mut inner, from) = self.on_name(Call::Link, name)?;
        let to = self.other(to, to_name)?;
        inner.check_allowed(to.dir)?;
        inner.link(Actor::Agent, &from, &to)
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::Unlink, name)?;
        inner.unlink(Actor::Agent, &spot)
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::Rmdir, name)?;
        inner.rmdir(Actor::Agent, &spot)
    }

    fn fsync(&self) -> Result<(), Errno> {
        let mut inner = self.on_self(Call::Fsync)?;
        if inner.node(self.id)?.is_dir() {
            let way = inner.live.way_to(self.id);
            inner.journal.sync_directory(self.id, &way);
        } else {
            let with_names = inner.options.syncs_names;
            inner.journal.sync_inode(self.id, with_names);
        }
        Ok(())
    }

    fn sync_file_system(&self) -> Result<bool, Errno> {
        self.on_self(Call::SyncFileSystem)?.sync_all();
        Ok(true)
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        self.on_self(Call::Chmod)?.set_mode(Actor::Agent, self.id, mode & 0o777)
    }

    fn chmod_at(&self, name: &[u8], mode: u32) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::Chmod, name)?;
        let id = inner.lookup(&spot)?;
        if matches!(inner.node(id)?.body, Body::Symlink(_)) {
            return Err(Errno::LOOP);
        }
        inner.set_mode(Actor::Agent, id, mode & 0o777)
    }

    fn set_mtime(&self, mtime_ns: i64) -> Result<(), Errno> {
        self.on_self(Call::SetMtime)?.set_mtime(Actor::Agent, self.id, mtime_ns)
    }

    fn set_mtime_at(&self, name: &[u8], mtime_ns: i64) -> Result<(), Errno> {
        let (mut inner, spot) = self.on_name(Call::SetMtime, name)?;
        let id = inner.lookup(&spot)?;
        inner.set_mtime(Actor::Agent, id, mtime_ns)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        let mut inner = self.on_self(Call::SetLen)?;
        if !self.is_writable {
            return Err(Errno::INVAL);
        }
        inner.set_len(Actor::Agent, self.id, len)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let inner = self.on_self(Call::Read)?;
        let node = inner.node(self.id)?;
        if node.is_dir() {
            return Err(Errno::ISDIR);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let held = node.bytes().get(start..).unwrap_or_default();
        let len = held.len().min(bytes.len());
        bytes[..len].copy_from_slice(&held[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let mut inner = self.on_self(Call::Write)?;
        if !self.is_writable {
            return Err(Errno::BADF);
        }
        inner.write(Actor::Agent, self.id, offset, bytes)
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        let Ok(inner) = self.alive() else { return false };
        let Ok(Node { body: Body::File(_, blocks), .. }) = inner.node(self.id) else { return false };
        let mut touched = offset / ALLOCATION_BYTES..offset.saturating_add(len).div_ceil(ALLOCATION_BYTES);
        touched.all(|block| !blocks.contains(&block))
    }

    fn expect_whole_read(&self) {}

    fn disk_bytes(&self) -> Result<u64, Errno> {
        self.free_bytes()
    }

    fn free_bytes(&self) -> Result<u64, Errno> {
        Ok(self.on_self(Call::FreeBytes)?.free_bytes())
    }

    fn network_fs(&self) -> Option<&'static str> {
        None
    }
}
