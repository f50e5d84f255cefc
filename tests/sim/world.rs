//! The world around the devices: clock, queues between them, users, and the judgement at the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use p2psync::core::id::DeviceId;
use p2psync::core::message::Message;
use p2psync::core::path::RelPath;
use p2psync::sync::{Input, Now, Settings};

use crate::device::{Body, Device, Node};
use crate::random::Random;

/// Steps after which a world that has not come to rest is said to be restless.
const SETTLE_STEPS_MAX: usize = 60_000;

pub struct World {
    pub random: Random,
    pub devices: Vec<Device>,
    pub links: BTreeSet<(usize, usize)>,
    queues: BTreeMap<(usize, usize), VecDeque<Message>>,
    pub wall_ns: i64,
    pub mono_ms: u64,
    next_bytes: u64,
    /// Every content ever written by a user.
    pub written: BTreeSet<Vec<u8>>,
    /// Contents that a user who had them before his eyes replaced or deleted.
    pub displaced: BTreeSet<Vec<u8>>,
    pub trace: Vec<String>,
}

pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl World {
    pub fn new(count: usize, seed: u64) -> Self {
        let ids: Vec<DeviceId> = (0..count).map(|i| DeviceId([i as u8 + 1; 32])).collect();
        let settings = |own: DeviceId| Settings {
            device: own,
            peers: ids.iter().copied().filter(|id| *id != own).collect(),
            reconcile_ms: 600_000,
            ..Settings::default()
        };
        let devices = ids.iter().map(|id| Device::new(*id, settings(*id))).collect();
        let mut world = Self {
            random: Random(seed),
            devices,
            links: BTreeSet::new(),
            queues: BTreeMap::new(),
            wall_ns: 1_800_000_000_000_000_000,
            mono_ms: 1000,
            next_bytes: 0,
            written: BTreeSet::new(),
            displaced: BTreeSet::new(),
            trace: Vec::new(),
        };
        for at in 0..count {
            let random = world.random.next();
            world.devices[at].start(None, random);
        }
        world
    }

    pub fn now(&mut self) -> Now {
        self.wall_ns += 1_000_003;
        self.mono_ms += 1;
        Now { wall_ns: self.wall_ns, mono_ms: self.mono_ms, random: self.random.next() }
    }

    fn index_of(&self, id: DeviceId) -> usize {
        usize::from(id.0[0]) - 1
    }

    pub fn feed(&mut self, at: usize, input: Input) {
        let now = self.now();
        for (peer, message) in self.devices[at].feed(input, now) {
            let to = self.index_of(peer);
            if self.is_linked(at, to) {
                self.queues.entry((at, to)).or_default().push_back(message);
            }
        }
    }

    fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        if a == b || !self.links.insert((a.min(b), a.max(b))) {
            return;
        }
        let (ia, ib) = (self.devices[a].id, self.devices[b].id);
        self.feed(a, Input::Connected(ib));
        self.feed(b, Input::Connected(ia));
    }

    pub fn disconnect(&mut self, a: usize, b: usize) {
        if !self.links.remove(&(a.min(b), a.max(b))) {
            return;
        }
        self.queues.remove(&(a, b));
        self.queues.remove(&(b, a));
        let (ia, ib) = (self.devices[a].id, self.devices[b].id);
        self.feed(a, Input::Lost(ib));
        self.feed(b, Input::Lost(ia));
    }

    pub fn connect_all(&mut self) {
        for a in 0..self.devices.len() {
            for b in a + 1..self.devices.len() {
                self.connect(a, b);
            }
        }
    }

    pub fn disconnect_all_of(&mut self, a: usize) {
        for b in 0..self.devices.len() {
            self.disconnect(a, b);
        }
    }

    /// The agent dies and starts again; with `lose_index` its index is gone.
    pub fn restart(&mut self, at: usize, lose_index: bool) {
        let links: Vec<usize> = (0..self.devices.len()).filter(|b| *b != at && self.is_linked(at, *b)).collect();
        self.disconnect_all_of(at);
        let index = self.devices[at].crash().filter(|_| !lose_index);
        let random = self.random.next();
        self.devices[at].start(index, random);
        links.into_iter().for_each(|b| self.connect(at, b));
    }

    /// Makes a device believe that it has received all of another's index. Its agent starts again.
    pub fn skip_to_the_end_of_the_index(&mut self, at: usize, of: usize) {
        let last_seq = self.devices[of].folder.as_ref().unwrap().index().state().unwrap().last_seq;
        let peer = self.devices[of].id;
        let mut index = self.devices[at].crash().unwrap();
        let mut row = index.peer(peer).unwrap().unwrap();
        row.cursor.as_mut().unwrap().seq = last_seq;
        index.set_peer(&row).unwrap();
        let random = self.random.next();
        self.devices[at].start(Some(index), random);
    }

    // What users do. A watcher's hint follows at some later moment, or never (a full scan will find it).

    fn bytes(&mut self, tag: &str) -> Vec<u8> {
        self.next_bytes += 1;
        let bytes = format!("{tag} {}", self.next_bytes).into_bytes();
        self.written.insert(bytes.clone());
        bytes
    }

    pub fn write(&mut self, at: usize, name: &str) -> Vec<u8> {
        let bytes = self.bytes(name);
        self.write_bytes(at, name, bytes.clone());
        bytes
    }

    pub fn write_bytes(&mut self, at: usize, name: &str, bytes: Vec<u8>) {
        let target = path(name);
        let mut directories: Vec<RelPath> = target.ancestors().collect();
        directories.reverse();
        for directory in directories {
            match self.devices[at].disk.get(&directory).map(|n| &n.body) {
                Some(Body::Directory) => continue,
                Some(_) => self.remove_node(at, &directory),
                None => {}
            }
            self.insert(at, directory, Body::Directory, 0o755);
        }
        self.written.insert(bytes.clone());
        self.remove_tree(at, &target);
        self.insert(at, target, Body::File(bytes), 0o644);
    }

    pub fn mkdir(&mut self, at: usize, name: &str) {
        let target = path(name);
        self.remove_tree(at, &target);
        self.insert(at, target, Body::Directory, 0o755);
    }

    fn insert(&mut self, at: usize, target: RelPath, body: Body, mode: u32) {
        self.wall_ns += 1_000_003;
        let now = self.wall_ns;
        let inode = self.devices[at].fresh_inode();
        self.devices[at].disk.insert(target.clone(), Node { body, mtime_ns: now, ctime_ns: now, inode, mode });
        self.hint(at, target);
    }

    fn hint(&mut self, at: usize, target: RelPath) {
        match self.random.below(10) {
            0 => self.devices[at].full_scan = true,
            _ => self.devices[at].looks.push_back(target),
        }
    }

    fn remove_node(&mut self, at: usize, target: &RelPath) {
        if let Some(node) = self.devices[at].disk.remove(target) {
            if let Body::File(bytes) = node.body {
                self.displaced.insert(bytes);
            }
            self.hint(at, target.clone());
        }
    }

    fn remove_tree(&mut self, at: usize, target: &RelPath) {
        let below: Vec<RelPath> = self.devices[at].disk.keys().filter(|p| p.is_below(target)).cloned().collect();
        for one in below.iter().rev() {
            self.remove_node(at, one);
        }
        self.remove_node(at, target);
    }

    pub fn delete(&mut self, at: usize, name: &str) {
        self.remove_tree(at, &path(name));
    }

    pub fn rename(&mut self, at: usize, from: &str, to: &str) {
        let (from, to) = (path(from), path(to));
        if from == to || to.is_below(&from) || !self.devices[at].disk.contains_key(&from) {
            return;
        }
        if to.parent().is_some_and(|p| self.devices[at].disk.get(&p).is_none_or(|n| n.body != Body::Directory)) {
            return;
        }
        self.remove_tree(at, &to);
        let moved: Vec<RelPath> =
            self.devices[at].disk.keys().filter(|p| p.is_below(&from) || **p == from).cloned().collect();
        self.wall_ns += 1_000_003;
        for old in moved {
            let mut node = self.devices[at].disk.remove(&old).unwrap();
            node.ctime_ns = self.wall_ns;
            let tail = &old.as_bytes()[from.as_bytes().len()..];
            let new = RelPath::parse(&[to.as_bytes(), tail].concat()).unwrap();
            self.devices[at].disk.insert(new.clone(), node);
            self.hint(at, old);
            self.hint(at, new);
        }
    }

    pub fn chmod(&mut self, at: usize, name: &str, mode: u32) {
        self.wall_ns += 1_000_003;
        let now = self.wall_ns;
        if let Some(node) = self.devices[at].disk.get_mut(&path(name)) {
            (node.mode, node.ctime_ns) = (mode, now);
            self.hint(at, path(name));
        }
    }

    /// One thing happens somewhere. False where there is nothing that could.
    pub fn step(&mut self) -> bool {
        let count = self.devices.len();
        let mut choices: Vec<(u8, usize, usize)> = Vec::new();
        for ((a, b), queue) in &self.queues {
            if !queue.is_empty() {
                choices.push((0, *a, *b));
            }
        }
        for (at, device) in self.devices.iter().enumerate() {
            let kinds = [
                (1, !device.fetches.is_empty()),
                (2, !device.actions.is_empty()),
                (3, !device.looks.is_empty()),
                (4, device.full_scan),
                (5, !device.restores.is_empty()),
                (6, !device.outcomes.is_empty()),
            ];
            choices.extend(kinds.into_iter().filter(|k| k.1).map(|k| (k.0, at, 0)));
        }
        if choices.is_empty() || self.random.chance(3) {
            let at = self.random.below(count);
            self.tick(at);
            return !choices.is_empty();
        }
        let (kind, at, to) = *self.random.pick(&choices);
        self.do_step(kind, at, to);
        true
    }

    pub fn tick(&mut self, at: usize) {
        self.mono_ms += 40;
        self.wall_ns += 40_000_000;
        self.feed(at, Input::Tick);
    }

    fn do_step(&mut self, kind: u8, at: usize, to: usize) {
        match kind {
            0 => {
                let message = self.queues.get_mut(&(at, to)).and_then(VecDeque::pop_front).unwrap();
                let from = self.devices[at].id;
                self.feed(to, Input::Message(from, message));
            }
            1 => {
                let pick = self.random.below(self.devices[at].fetches.len());
                let order = self.devices[at].fetches.remove(pick).unwrap();
                let sources: Vec<usize> =
                    order.sources.iter().map(|s| self.index_of(*s)).filter(|s| self.is_linked(at, *s)).collect();
                let bytes = sources.iter().find_map(|s| self.devices[*s].content(order.content.id));
                let result = self.devices[at].fetch(&order, bytes);
                self.feed(at, Input::Fetched(vec![result]));
            }
            2 => {
                let (work, action) = self.devices[at].actions.pop_front().unwrap();
                if std::env::var("SIM_TRACE").is_ok() {
                    println!("TR {at} do {work} {action:?}");
                }
                self.wall_ns += 1_000_003;
                let now = self.wall_ns;
                let outcome = self.devices[at].apply(&action, now);
                self.devices[at].outcomes.push_back((work, outcome));
            }
            6 => {
                let outcomes: Vec<_> = self.devices[at].outcomes.drain(..).collect();
                if std::env::var("SIM_TRACE").is_ok() {
                    println!("TR {at} applied {outcomes:?}");
                }
                self.feed(at, Input::Applied(outcomes));
            }
            3 => {
                let pick = self.random.below(self.devices[at].looks.len());
                let target = self.devices[at].looks.remove(pick).unwrap();
                let device = &self.devices[at];
                let mut observations = device.look_below(&device.topmost_unknown(&target));
                if observations.iter().all(|o| o.path != target) {
                    observations.push(device.observe(&target));
                }
                if std::env::var("SIM_TRACE").is_ok() {
                    println!("TR {at} obs {observations:?}");
                }
                self.feed(at, Input::Observed(observations));
            }
            4 => {
                self.devices[at].full_scan = false;
                self.feed(at, Input::ScanStarted { suspicious: false });
                let observations = self.devices[at].full_scan();
                self.feed(at, Input::Observed(observations));
                self.feed(at, Input::ScanFinished { complete: true });
            }
            _ => {
                let (slot, target) = self.devices[at].restores.pop_front().unwrap();
                if let Some((_, node)) = self.devices[at].history.get(&slot).cloned()
                    && !self.devices[at].disk.contains_key(&target)
                {
                    self.devices[at].disk.insert(target.clone(), node);
                }
                self.devices[at].looks.push_back(target);
            }
        }
    }

    /// Lets everything happen that can, with full scans and connections everywhere, until nothing does.
    pub fn settle(&mut self) {
        self.connect_all();
        for device in &mut self.devices {
            device.full_scan = true;
        }
        let mut quiet = 0;
        for _ in 0..SETTLE_STEPS_MAX {
            let busy =
                self.step() || self.devices.iter().any(Device::has_work) || self.queues.values().any(|q| !q.is_empty());
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 120 * self.devices.len() {
                return;
            }
        }
        self.explain();
        panic!("the devices do not come to rest");
    }

    /// Everything a reader of a failure wants to know.
    pub fn explain(&self) {
        for line in &self.trace {
            println!("did {line}");
        }
        for device in &self.devices {
            println!("--- {:?}", device.id);
            for (path, node) in &device.disk {
                println!("  {path} {:?}", node.body);
            }
            let Some(folder) = &device.folder else { continue };
            for record in folder.index().records_from(None, None, 1000).unwrap() {
                println!(
                    "  index {:?} {:?} {:?} {:?} {:?} {:?}",
                    record.entry.path,
                    record.entry.kind,
                    record.mark,
                    record.entry.version,
                    record.entry.meta,
                    record.disk.map(|d| d.mode)
                );
                for rival in folder.index().rivals(&record.entry.path).unwrap() {
                    println!(
                        "    rival of {:?}: {:?} {:?} held {}",
                        rival.peer, rival.entry.kind, rival.entry.version, rival.held
                    );
                }
            }
            for problem in folder.index().problems(100).unwrap() {
                println!("  problem {:?} {:?}", problem.path, problem.problem);
            }
            for (kind, path, text) in &device.events {
                println!("  event {kind} {path:?} {text}");
            }
        }
    }

    /// The promises: all disks are the same, indexes agree, and nothing that anyone wrote is lost.
    pub fn judge(&self) {
        if let Err(why) = self.verdict() {
            self.explain();
            panic!("{why}");
        }
    }

    fn index_equals_disk(&self, device: &Device) -> Result<(), String> {
        let Some(folder) = &device.folder else { return Ok(()) };
        for (path, node) in &device.disk {
            let Some(record) = folder.index().record(path).unwrap() else {
                return Err(format!("{path} is not in the index"));
            };
            let is_directory = node.body == Body::Directory;
            let visible = |mode: u32| if is_directory { mode | 0o700 } else { mode };
            let fits = visible(record.entry.mode()) == visible(node.mode)
                && (is_directory || record.entry.disk_mtime_ns() == node.mtime_ns);
            let is_known = record.disk.is_some_and(|disk| node.state().is_unchanged_since(&disk));
            if !fits || !is_known {
                return Err(format!("{path}: the index of {:?} says {record:?}, the disk {node:?}", device.id));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let plain = |d: &Device| -> BTreeMap<RelPath, (Body, u32, i64)> {
            let shown = |n: &Node| {
                (
                    n.body.clone(),
                    if n.body == Body::Directory { n.mode | 0o700 } else { n.mode },
                    if n.body == Body::Directory { 0 } else { n.mtime_ns },
                )
            };
            d.disk.iter().map(|(p, n)| (p.clone(), shown(n))).collect()
        };
        let first = plain(&self.devices[0]);
        for device in &self.devices[1..] {
            let other = plain(device);
            let differing: Vec<_> = first
                .iter()
                .filter(|(p, n)| other.get(*p) != Some(*n))
                .chain(other.iter().filter(|(p, n)| first.get(*p) != Some(*n)))
                .collect();
            if !differing.is_empty() {
                return Err(format!("the disk of {:?} differs from the first one's: {differing:?}", device.id));
            }
        }
        let digests: Vec<Vec<u128>> =
            self.devices.iter().filter_map(|d| d.folder.as_ref()).map(|f| f.index().digest().unwrap()).collect();
        if digests.windows(2).any(|w| w[0] != w[1]) {
            return Err("the indexes differ though the disks are the same".into());
        }
        let live: BTreeSet<&Vec<u8>> = self
            .devices
            .iter()
            .flat_map(|d| d.disk.values())
            .filter_map(|n| if let Body::File(b) = &n.body { Some(b) } else { None })
            .collect();
        for bytes in &self.written {
            if !live.contains(bytes) && !self.displaced.contains(bytes) {
                return Err(format!("lost: {:?}", String::from_utf8_lossy(bytes)));
            }
        }
        for device in &self.devices {
            self.index_equals_disk(device)?;
            if let Some((_, path, text)) = device.events.iter().find(|e| e.0 == "fault" || e.0 == "repair") {
                return Err(format!("{path:?}: {text}"));
            }
        }
        Ok(())
    }
}
