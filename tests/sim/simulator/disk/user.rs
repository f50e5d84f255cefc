//! What the user does, with other programs, past the agent. Paths begin below the top of the disk.

use std::collections::BTreeMap;

use p2psync::core::disk::DiskKind;
use rustix::io::Errno;

use super::calls::Onto;
use super::image::{Body, Id, Node, Spot};
use super::{Actor, Inner};

/// Something on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub kind: DiskKind,
    /// Bytes of a file, target of a symlink.
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub mtime_ns: i64,
    pub inode: u64,
    pub links: usize,
}

impl Item {
    fn of(node: &Node) -> Item {
        let kind = match &node.body {
            Body::File(..) => DiskKind::File,
            Body::Directory(_) => DiskKind::Directory,
            Body::Symlink(_) => DiskKind::Symlink,
        };
        let links = node.names.len();
        let (mode, mtime_ns, inode) = (node.mode, node.mtime_ns, node.number);
        Item { kind, bytes: node.bytes().to_vec(), mode, mtime_ns, inode, links }
    }
}

impl Inner {
    /// Makes a new file.
    pub fn user_write_new(&mut self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        let id = self.create(Actor::User, &spot, Body::File(Vec::new(), Default::default()), 0o666)?;
        let written = self.write(Actor::User, id, 0, bytes).map(drop);
        self.say_closed(id);
        written
    }

    /// Empties a file and writes it anew, as the careless do.
    pub fn user_overwrite(&mut self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let id = self.file(path)?;
        self.set_len(Actor::User, id, 0)?;
        let written = self.write(Actor::User, id, 0, bytes).map(drop);
        self.say_closed(id);
        written
    }

    /// Writes into a file, from an offset on.
    pub fn user_write_at(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let id = self.file(path)?;
        let written = self.write(Actor::User, id, offset, bytes).map(drop);
        self.say_closed(id);
        written
    }

    pub fn user_append(&mut self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let id = self.file(path)?;
        let end = self.node(id)?.bytes().len() as u64;
        self.user_write_at(path, end, bytes)
    }

    pub fn user_truncate(&mut self, path: &str, len: u64) -> Result<(), Errno> {
        let id = self.file(path)?;
        self.set_len(Actor::User, id, len)?;
        self.say_closed(id);
        Ok(())
    }

    /// Writes beside the file and renames over it, as good editors do.
    pub fn user_save(&mut self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let beside = format!("{path}.swp");
        self.user_write_new(&beside, bytes)?;
        self.user_rename(&beside, path)
    }

    /// Renames, in place of what stands at the new name.
    pub fn user_rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to) = (self.spot(from.as_bytes())?, self.spot(to.as_bytes())?);
        self.rename(Actor::User, &from, &to, Onto::Replace)
    }

    pub fn user_exchange(&mut self, a: &str, b: &str) -> Result<(), Errno> {
        let (a, b) = (self.spot(a.as_bytes())?, self.spot(b.as_bytes())?);
        self.rename(Actor::User, &a, &b, Onto::Exchange)
    }

    pub fn user_mkdir(&mut self, path: &str) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        self.create(Actor::User, &spot, Body::Directory(BTreeMap::new()), 0o777).map(drop)
    }

    /// Makes a directory and those missing above it.
    pub fn user_mkdir_all(&mut self, path: &str) -> Result<(), Errno> {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            match self.user_mkdir(&path[..end]) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
        }
        Ok(())
    }

    pub fn user_rmdir(&mut self, path: &str) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        self.rmdir(Actor::User, &spot)
    }

    pub fn user_unlink(&mut self, path: &str) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        self.unlink(Actor::User, &spot)
    }

    /// Removes something with all that is in it.
    pub fn user_remove_tree(&mut self, path: &str) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        self.remove_tree(&spot)
    }

    pub fn user_chmod(&mut self, path: &str, mode: u32) -> Result<(), Errno> {
        let id = self.resolve(path.as_bytes())?;
        self.set_mode(Actor::User, id, mode)
    }

    pub fn user_set_mtime(&mut self, path: &str, mtime_ns: i64) -> Result<(), Errno> {
        let id = self.resolve(path.as_bytes())?;
        self.set_mtime(Actor::User, id, mtime_ns)
    }

    pub fn user_symlink(&mut self, path: &str, target: &[u8]) -> Result<(), Errno> {
        let spot = self.spot(path.as_bytes())?;
        self.symlink(Actor::User, &spot, target).map(drop)
    }

    /// Gives a file a second name.
    pub fn user_link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to) = (self.spot(from.as_bytes())?, self.spot(to.as_bytes())?);
        self.link(Actor::User, &from, &to)
    }

    /// Makes one file, or the names in one directory, durable.
    pub fn user_fsync(&mut self, path: &str) -> Result<(), Errno> {
        let id = self.resolve(path.as_bytes())?;
        if self.node(id)?.is_dir() {
            let way = self.live.way_to(id);
            self.journal.sync_directory(id, &way);
        } else {
            self.journal.sync_inode(id, self.options.syncs_names);
        }
        Ok(())
    }

    /// What stands at a path.
    pub fn item(&self, path: &str) -> Option<Item> {
        let id = self.resolve(path.as_bytes()).ok()?;
        self.node(id).ok().map(Item::of)
    }

    /// Bytes of the file at a path.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.item(path).filter(|item| item.kind == DiskKind::File).map(|item| item.bytes)
    }

    /// All that is below a path, by its path from there.
    pub fn items(&self, below: &str) -> BTreeMap<Vec<u8>, Item> {
        let mut found = BTreeMap::new();
        let mut open: Vec<(Vec<u8>, Id)> = self.resolve(below.as_bytes()).into_iter().map(|id| (vec![], id)).collect();
        while let Some((above, id)) = open.pop() {
            for (name, id) in self.live.entries(id).into_iter().flat_map(BTreeMap::values) {
                let path = if above.is_empty() { name.clone() } else { [&above[..], b"/", name].concat() };
                if let Ok(node) = self.node(*id) {
                    found.insert(path.clone(), Item::of(node));
                    open.push((path, *id));
                }
            }
        }
        found
    }

    pub fn resolve(&self, path: &[u8]) -> Result<Id, Errno> {
        let mut id = self.top();
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            id = self.lookup(&Spot { dir: id, name: name.to_vec() })?;
        }
        Ok(id)
    }

    fn spot(&self, path: &[u8]) -> Result<Spot, Errno> {
        let cut = path.iter().rposition(|b| *b == b'/');
        let dir = self.resolve(&path[..cut.unwrap_or(0)])?;
        if self.live.entries(dir).is_none() {
            return Err(Errno::NOTDIR);
        }
        Ok(Spot { dir, name: path[cut.map_or(0, |cut| cut + 1)..].to_vec() })
    }

    fn file(&self, path: &str) -> Result<Id, Errno> {
        let id = self.resolve(path.as_bytes())?;
        match self.node(id)?.body {
            Body::File(..) => Ok(id),
            Body::Directory(_) => Err(Errno::ISDIR),
            Body::Symlink(_) => Err(Errno::LOOP),
        }
    }

    fn remove_tree(&mut self, spot: &Spot) -> Result<(), Errno> {
        let id = self.lookup(spot)?;
        let Some(entries) = self.live.entries(id) else { return self.unlink(Actor::User, spot) };
        let names: Vec<Vec<u8>> = entries.values().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.remove_tree(&Spot { dir: id, name })?;
        }
        self.rmdir(Actor::User, spot)
    }

    /// What is said when a program closes a file that it has written.
    fn say_closed(&mut self, id: Id) {
        let names = self.live.nodes.get(&id).map(|node| node.names.clone()).unwrap_or_default();
        names.iter().for_each(|spot| self.say(spot, true, false));
    }
}
