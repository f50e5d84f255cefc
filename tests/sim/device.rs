//! One device: its disk, stage and history in memory, its folder, and the work that it was asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use p2psync::core::action::{Action, Displace, Expected, Outcome, Slot, WorkId};
use p2psync::core::content::{Content, ContentId};
use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::core::id::{DeviceId, EpochId, RunId};
use p2psync::core::ignore::Rules;
use p2psync::core::message::Message;
use p2psync::core::path::RelPath;
use p2psync::index::{Index, Mark};
use p2psync::sync::{FetchError, FetchOrder, Folder, Input, Now, Observation, Output, Seen, Settings, Staged};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub body: Body,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
    pub mode: u32,
}

impl Node {
    pub fn state(&self) -> DiskState {
        let (kind, size) = match &self.body {
            Body::File(bytes) => (DiskKind::File, bytes.len() as u64),
            Body::Directory => (DiskKind::Directory, 0),
            Body::Link(target) => (DiskKind::Symlink, target.len() as u64),
        };
        DiskState { kind, size, mtime_ns: self.mtime_ns, ctime_ns: self.ctime_ns, inode: self.inode, mode: self.mode }
    }
}

pub struct Device {
    pub id: DeviceId,
    pub folder: Option<Folder>,
    pub disk: BTreeMap<RelPath, Node>,
    pub history: BTreeMap<RelPath, (RelPath, Node)>,
    pub stage: BTreeMap<(ContentId, u32), Vec<u8>>,
    pub fetches: VecDeque<FetchOrder>,
    pub actions: VecDeque<(WorkId, Action)>,
    /// Done on disk, not yet told to the folder.
    pub outcomes: VecDeque<(WorkId, Outcome)>,
    pub looks: VecDeque<RelPath>,
    pub full_scan: bool,
    pub restores: VecDeque<(RelPath, RelPath)>,
    pub events: Vec<(String, Option<RelPath>, String)>,
    pub settings: Settings,
    pub fetched_bytes: u64,
    next_inode: u64,
}

impl Device {
    pub fn new(id: DeviceId, settings: Settings) -> Self {
        Self {
            id,
            folder: None,
            disk: BTreeMap::new(),
            history: BTreeMap::new(),
            stage: BTreeMap::new(),
            fetches: VecDeque::new(),
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
            looks: VecDeque::new(),
            full_scan: true,
            restores: VecDeque::new(),
            events: Vec::new(),
            settings,
            fetched_bytes: 0,
            next_inode: 1,
        }
    }

    /// Starts the agent on an index, fresh or left over.
    pub fn start(&mut self, index: Option<Index>, random: u64) {
        let index = index.unwrap_or_else(|| Index::in_memory(EpochId(random)).unwrap());
        let folder = Folder::new(index, self.settings.clone(), Rules::default(), RunId(random ^ 1)).unwrap();
        self.folder = Some(folder);
        self.full_scan = true;
    }

    /// The agent dies: work under way is forgotten, what is committed stays.
    pub fn crash(&mut self) -> Option<Index> {
        self.fetches.clear();
        self.actions.clear();
        self.outcomes.clear();
        self.looks.clear();
        self.restores.clear();
        self.folder.take().map(Folder::into_index)
    }

    /// Feeds the folder and sorts what comes out. Messages are returned.
    pub fn feed(&mut self, input: Input, now: Now) -> Vec<(DeviceId, Message)> {
        let Some(folder) = &mut self.folder else { return Vec::new() };
        let mut sent = Vec::new();
        for output in folder.handle(input, now).unwrap() {
            match output {
                Output::Send(peer, message) => sent.push((peer, message)),
                Output::Fetch(order) => self.fetches.push_back(order),
                Output::Apply(work, action) => self.actions.push_back((work, action)),
                Output::Rescan(paths) => self.looks.extend(paths),
                Output::FullScan => self.full_scan = true,
                Output::ReloadRules => {}
                Output::Restore { slot, path } => self.restores.push_back((slot, path)),
                Output::Event { kind, path, text } => self.events.push((kind.into(), path, text)),
            }
        }
        sent
    }

    pub fn has_work(&self) -> bool {
        !self.fetches.is_empty()
            || !self.actions.is_empty()
            || !self.outcomes.is_empty()
            || !self.looks.is_empty()
            || !self.restores.is_empty()
            || self.full_scan
            || self.folder.as_ref().is_some_and(|f| !f.is_idle())
    }

    pub fn fresh_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    /// Bytes of a content that this device could serve: live as the index has it, or in history.
    pub fn content(&self, id: ContentId) -> Option<Vec<u8>> {
        let live = self.disk.values();
        live.chain(self.history.values().map(|(_, n)| n)).find_map(|node| match &node.body {
            Body::File(bytes) if Content::of_chunk(bytes).id == id => Some(bytes.clone()),
            _ => None,
        })
    }

    pub fn observe(&self, path: &RelPath) -> Observation {
        let seen = match self.disk.get(path) {
            None => Seen::Absent,
            Some(node) => match &node.body {
                Body::Directory => Seen::Directory(node.state()),
                Body::Link(target) => Seen::Symlink { disk: node.state(), target: target.clone().into() },
                Body::File(bytes) => {
                    Seen::File { disk: node.state(), content: Content::of_chunk(bytes), lists: Vec::new() }
                }
            },
        };
        Observation { path: path.clone(), seen }
    }

    /// Where to look when a path is hinted at: at the topmost directory above it that the index does not know.
    pub fn topmost_unknown(&self, path: &RelPath) -> RelPath {
        let Some(folder) = &self.folder else { return path.clone() };
        let is_known = |dir: &RelPath| {
            let record = folder.index().record(dir).unwrap();
            record.is_some_and(|r| r.entry.kind.is_directory() && r.mark == Mark::Here && r.disk.is_some())
        };
        path.ancestors().filter(|dir| !is_known(dir)).last().unwrap_or_else(|| path.clone())
    }

    /// What a scan of a path and all below reports: the path itself, and below it what differs.
    pub fn look_below(&self, path: &RelPath) -> Vec<Observation> {
        let mut paths: BTreeSet<RelPath> = self.disk.keys().filter(|p| p.is_below(path)).cloned().collect();
        if let Some(folder) = &self.folder {
            let below = folder.index().records_from(None, Some(path), 10_000).unwrap();
            paths.extend(below.into_iter().filter(|r| r.entry.is_live()).map(|r| r.entry.path));
        }
        paths.insert(path.clone());
        paths.iter().filter(|p| *p == path || self.differs(p)).map(|p| self.observe(p)).collect()
    }

    pub fn full_scan(&self) -> Vec<Observation> {
        let mut paths: BTreeSet<RelPath> = self.disk.keys().cloned().collect();
        if let Some(folder) = &self.folder {
            let all = folder.index().records_from(None, None, 10_000).unwrap();
            paths.extend(all.into_iter().filter(|r| r.entry.is_live()).map(|r| r.entry.path));
        }
        paths.iter().filter(|p| self.differs(p)).map(|p| self.observe(p)).collect()
    }

    fn differs(&self, path: &RelPath) -> bool {
        let Some(folder) = &self.folder else { return false };
        let record = folder.index().record(path).unwrap();
        let seen = self.disk.get(path).map(Node::state);
        match (record, seen) {
            (None, None) => false,
            (Some(r), None) => r.entry.is_live() && !matches!(r.mark, Mark::Ignored | Mark::Declined | Mark::Held),
            (None, Some(_)) => true,
            (Some(r), Some(seen)) => {
                !(r.entry.is_live() && r.mark == Mark::Here && r.disk.is_some_and(|d| seen.is_unchanged_since(&d)))
            }
        }
    }

    /// Executes one fetch, with `source` giving bytes of a content.
    pub fn fetch(&mut self, order: &FetchOrder, source: Option<Vec<u8>>) -> (WorkId, Result<Staged, FetchError>) {
        let local = self.content(order.content.id);
        if local.is_none() {
            self.fetched_bytes += source.as_ref().map_or(0, |b| b.len() as u64);
        }
        match local.or(source) {
            Some(bytes) => {
                let copy = (0..).find(|c| !self.stage.contains_key(&(order.content.id, *c))).unwrap();
                self.stage.insert((order.content.id, copy), bytes);
                (order.work, Ok(Staged { lists: Vec::new(), copy }))
            }
            None => (order.work, Err(FetchError::NoSource)),
        }
    }

    fn parent_is_directory(&self, path: &RelPath) -> bool {
        path.parent().is_none_or(|p| self.disk.get(&p).is_some_and(|n| n.body == Body::Directory))
    }

    fn has_below(&self, path: &RelPath) -> bool {
        self.disk.keys().any(|p| p.is_below(path))
    }

    /// Executes one action as the real disk code does: check, swap, check again.
    pub fn apply(&mut self, action: &Action, now_ns: i64) -> Outcome {
        let changed = Outcome::Changed;
        let done = |disk| Outcome::Done { disk, displaced: None, conflict: None, rescued: None };
        if !self.parent_is_directory(action.path()) {
            return Outcome::Changed;
        }
        match action {
            Action::CreateDirectory { path, mode, expect } => {
                self.place(path, Body::Directory, 0, mode | 0o700, expect.as_ref(), now_ns)
            }
            Action::PlaceSymlink { path, target, mtime_ns, expect } => {
                self.place(path, Body::Link(target.to_vec()), *mtime_ns, 0o777, expect.as_ref(), now_ns)
            }
            Action::PlaceFile { path, content, copy, mtime_ns, mode, expect } => {
                let key = (content.id, *copy);
                let Some(bytes) = self.stage.get(&key).cloned() else { return Outcome::NotStaged };
                let outcome = self.place(path, Body::File(bytes), *mtime_ns, *mode, expect.as_ref(), now_ns);
                if matches!(outcome, Outcome::Done { .. }) {
                    self.stage.remove(&key);
                }
                outcome
            }
            Action::Remove { path, expect } => match self.disk.get(path) {
                Some(node) if node.state().is_unchanged_since(&expect.disk) => {
                    let displaced = self.move_to_history(path, now_ns);
                    Outcome::Done { disk: None, displaced, conflict: None, rescued: None }
                }
                _ => changed,
            },
            Action::RemoveDirectory { path } => match self.disk.get(path) {
                _ if self.has_below(path) => Outcome::NotEmpty,
                Some(node) if node.body == Body::Directory => {
                    self.disk.remove(path);
                    done(None)
                }
                None => done(None),
                _ => changed,
            },
            Action::Move { from, to, expect, mtime_ns, mode } => {
                let fits = self.disk.get(from).is_some_and(|n| n.state().is_unchanged_since(expect));
                if !fits || self.disk.contains_key(to) {
                    return changed;
                }
                let mut node = self.disk.remove(from).unwrap();
                (node.mtime_ns, node.mode, node.ctime_ns) = (*mtime_ns, *mode, now_ns);
                let state = node.state();
                self.disk.insert(to.clone(), node);
                done(Some(state))
            }
            Action::SetMetadata { path, expect, mtime_ns, mode } => match self.disk.get_mut(path) {
                Some(node) if node.state().is_unchanged_since(expect) => {
                    if node.body != Body::Directory {
                        node.mtime_ns = *mtime_ns;
                    }
                    node.mode = if node.body == Body::Directory { mode | 0o700 } else { *mode };
                    node.ctime_ns = now_ns;
                    done(Some(node.state()))
                }
                _ => changed,
            },
        }
    }

    fn move_to_history(&mut self, path: &RelPath, now_ns: i64) -> Option<Slot> {
        let node = self.disk.remove(path)?;
        let disk = node.state();
        let name = RelPath::parse(format!("slot-{}-{now_ns}", self.history.len()).as_bytes()).unwrap();
        self.history.insert(name.clone(), (path.clone(), node));
        Some(Slot { name, disk })
    }

    fn place(
        &mut self,
        path: &RelPath,
        body: Body,
        mtime_ns: i64,
        mode: u32,
        expect: Option<&Expected>,
        now_ns: i64,
    ) -> Outcome {
        let (mut displaced, mut conflict) = (None, None);
        match (self.disk.get(path).map(Node::state), expect) {
            (None, None) => {}
            (Some(there), Some(expect)) if there.is_unchanged_since(&expect.disk) => {
                if there.kind == DiskKind::Directory {
                    if self.has_below(path) {
                        return Outcome::NotEmpty;
                    }
                    self.disk.remove(path);
                } else if let Displace::ConflictCopy(copy) = &expect.displace {
                    if self.disk.contains_key(copy) {
                        return Outcome::ConflictNameTaken;
                    }
                    let mut node = self.disk.remove(path).unwrap();
                    node.ctime_ns = now_ns;
                    conflict = Some(node.state());
                    self.disk.insert(copy.clone(), node);
                } else {
                    displaced = self.move_to_history(path, now_ns);
                }
            }
            _ => return Outcome::Changed,
        }
        let node = Node { body, mtime_ns, ctime_ns: now_ns, inode: self.fresh_inode(), mode };
        let disk = Some(node.state());
        self.disk.insert(path.clone(), node);
        Outcome::Done { disk, displaced, conflict, rescued: None }
    }
}
