//! The calls that change the disk, as Linux does them, for the agent and the user alike.

use rustix::io::Errno;

use super::image::{ALLOCATION_BYTES, Body, Change, Id, Node, Spot};
use super::{Actor, Inner};

/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symlink in bytes.
const TARGET_BYTES_MAX: usize = 4095;
/// Longest file in bytes: small enough for memory.
const FILE_BYTES_MAX: u64 = 1 << 32;
/// Bits that new directories and files do not get.
const UMASK: u32 = 0o022;

/// How a rename treats what stands at the new name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onto {
    Replace,
    Free,
    Exchange,
}

impl Inner {
    /// What has a name.
    pub fn lookup(&self, spot: &Spot) -> Result<Id, Errno> {
        if self.live.entries(spot.dir).is_none() {
            return Err(Errno::NOTDIR);
        }
        if self.is_dead(spot.dir) {
            return Err(Errno::NOENT);
        }
        if spot.name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.live.find(spot).ok_or(Errno::NOENT)
    }

    pub fn node(&self, id: Id) -> Result<&Node, Errno> {
        self.live.nodes.get(&id).ok_or(Errno::NOENT)
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.is_read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// True for a directory that was removed while it was open.
    fn is_dead(&self, dir: Id) -> bool {
        self.live.path_of(dir).is_none()
    }

    /// Makes a new file, directory or symlink.
    pub fn create(&mut self, actor: Actor, at: &Spot, body: Body, mode: u32) -> Result<Id, Errno> {
        match self.lookup(at) {
            Ok(_) => return Err(Errno::EXIST),
            Err(Errno::NOENT) if self.is_dead(at.dir) => return Err(Errno::NOENT),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.check_writable()?;
        if self.free_bytes() < ALLOCATION_BYTES {
            return Err(Errno::NOSPC);
        }
        let id = self.next_id;
        self.next_id += 1;
        let number = self.next_number(id);
        let mode = if matches!(body, Body::Symlink(_)) { 0o777 } else { mode & !UMASK };
        self.change(actor, Change::Create { at: at.clone(), id, number, body, mode });
        Ok(id)
    }

    fn next_number(&self, id: Id) -> u64 {
        if !self.options.reuses_numbers {
            return id;
        }
        let used: std::collections::BTreeSet<u64> = self.live.nodes.values().map(|node| node.number).collect();
        (1..).find(|number| !used.contains(number)).unwrap_or(id)
    }

    pub fn symlink(&mut self, actor: Actor, at: &Spot, target: &[u8]) -> Result<Id, Errno> {
        match target.len() {
            0 => Err(Errno::NOENT),
            1..=TARGET_BYTES_MAX => self.create(actor, at, Body::Symlink(target.to_vec()), 0o777),
            _ => Err(Errno::NAMETOOLONG),
        }
    }

    pub fn rename(&mut self, actor: Actor, from: &Spot, to: &Spot, onto: Onto) -> Result<(), Errno> {
        for spot in [from, to] {
            if self.live.entries(spot.dir).is_none() {
                return Err(Errno::NOTDIR);
            }
        }
        self.check_writable()?;
        let id = self.lookup(from)?;
        let target = match self.lookup(to) {
            Err(Errno::NOENT) => None,
            found => Some(found?),
        };
        match (onto, target) {
            (Onto::Free, Some(_)) => return Err(Errno::EXIST),
            (Onto::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.live.is_within(to.dir, id) {
            return Err(Errno::INVAL);
        }
        if let Some(target) = target {
            if self.live.is_within(from.dir, target) {
                return Err(if onto == Onto::Exchange { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            if target == id {
                return self.respell(actor, from, to, id);
            }
        }
        if self.is_dead(to.dir) {
            return Err(Errno::NOENT);
        }
        match (onto, target) {
            (Onto::Exchange, Some(b_id)) => {
                let (a, b) = (self.spelled(from), self.spelled(to));
                self.change(actor, Change::Exchange { a, b, a_id: id, b_id });
            }
            (_, replaced) => {
                if let Some(replaced) = replaced {
                    self.check_replaced(id, replaced)?;
                }
                let from = self.spelled(from);
                // A name that is there keeps its spelling.
                let to = if replaced.is_some() { self.spelled(to) } else { to.clone() };
                self.change(actor, Change::Rename { from, to, id, replaced });
            }
        }
        Ok(())
    }

    /// Renames a file to another of its own names, which does nothing, or to another spelling of its name.
    fn respell(&mut self, actor: Actor, from: &Spot, to: &Spot, id: Id) -> Result<(), Errno> {
        let spelled = self.spelled(from);
        let is_same_name = from.dir == to.dir && self.live.key(&from.name) == self.live.key(&to.name);
        if is_same_name && spelled.name != to.name {
            self.change(actor, Change::Rename { from: spelled, to: to.clone(), id, replaced: None });
        }
        Ok(())
    }

    fn check_replaced(&self, id: Id, replaced: Id) -> Result<(), Errno> {
        match (self.node(id)?.is_dir(), self.live.entries(replaced)) {
            (true, None) => Err(Errno::NOTDIR),
            (false, Some(_)) => Err(Errno::ISDIR),
            (_, Some(entries)) if !entries.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    /// The spot with the spelling that is on the disk.
    fn spelled(&self, spot: &Spot) -> Spot {
        let entry = self.live.entries(spot.dir).and_then(|entries| entries.get(&self.live.key(&spot.name)));
        Spot { dir: spot.dir, name: entry.map_or(&spot.name, |(spelling, _)| spelling).clone() }
    }

    pub fn link(&mut self, actor: Actor, from: &Spot, to: &Spot) -> Result<(), Errno> {
        let id = self.lookup(from)?;
        match self.lookup(to) {
            Ok(_) => return Err(Errno::EXIST),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.check_writable()?;
        if self.is_dead(to.dir) {
            return Err(Errno::NOENT);
        }
        if self.node(id)?.is_dir() {
            return Err(Errno::PERM);
        }
        self.change(actor, Change::Link { at: to.clone(), from: self.spelled(from), id });
        Ok(())
    }

    pub fn unlink(&mut self, actor: Actor, at: &Spot) -> Result<(), Errno> {
        let id = self.lookup(at)?;
        self.check_writable()?;
        if self.node(id)?.is_dir() {
            return Err(Errno::ISDIR);
        }
        self.change(actor, Change::Remove { at: self.spelled(at), id });
        Ok(())
    }

    pub fn rmdir(&mut self, actor: Actor, at: &Spot) -> Result<(), Errno> {
        let id = self.lookup(at)?;
        self.check_writable()?;
        match self.live.entries(id) {
            None => Err(Errno::NOTDIR),
            Some(entries) if !entries.is_empty() => Err(Errno::NOTEMPTY),
            Some(_) => {
                self.change(actor, Change::Remove { at: self.spelled(at), id });
                Ok(())
            }
        }
    }

    pub fn set_mode(&mut self, actor: Actor, id: Id, mode: u32) -> Result<(), Errno> {
        self.check_writable()?;
        self.node(id)?;
        self.change(actor, Change::SetMode { id, mode: mode & 0o7777 });
        Ok(())
    }

    pub fn set_mtime(&mut self, actor: Actor, id: Id, mtime_ns: i64) -> Result<(), Errno> {
        self.check_writable()?;
        self.node(id)?;
        let mtime_ns = mtime_ns - mtime_ns.rem_euclid(self.options.time_grain_ns);
        self.change(actor, Change::SetMtime { id, mtime_ns });
        Ok(())
    }

    pub fn set_len(&mut self, actor: Actor, id: Id, len: u64) -> Result<(), Errno> {
        self.check_writable()?;
        if !matches!(self.node(id)?.body, Body::File(..)) {
            return Err(Errno::INVAL);
        }
        if len > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        self.change(actor, Change::SetLen { id, len });
        Ok(())
    }

    pub fn write(&mut self, actor: Actor, id: Id, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let Body::File(_, blocks) = &self.node(id)?.body else { return Err(Errno::BADF) };
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        let touched = offset / ALLOCATION_BYTES..end.div_ceil(ALLOCATION_BYTES);
        let needed = touched.filter(|block| !blocks.contains(block)).count() as u64 * ALLOCATION_BYTES;
        if needed > self.free_bytes() {
            return Err(Errno::NOSPC);
        }
        self.check_writable()?;
        self.change(actor, Change::Write { id, offset, bytes: bytes.to_vec() });
        Ok(bytes.len())
    }
}
