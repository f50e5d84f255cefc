//! Fixtures that the tests of this module share: a home with one folder, shared with `desk` and `phone`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Asker, LiveFolder, LivePeer, LiveStatus, View};
use crate::config::{self, Config, NewFolder, NewPeer, Sharing};
use crate::core::content::Content;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::{Entry, Kind};
use crate::core::id::{DeviceId, EpochId, FolderId};
use crate::core::message::{Announced, Cursor};
use crate::core::path::RelPath;
use crate::core::version::VersionVector;
use crate::fs::root::Root;
use crate::home::Home;
use crate::index::{Index, Mark, PeerRow};

pub const EPOCH: EpochId = EpochId(1);
pub const ME: DeviceId = DeviceId([1; 32]);
pub const DESK: DeviceId = DeviceId([2; 32]);
pub const PHONE: DeviceId = DeviceId([3; 32]);
pub const NOW_MS: i64 = 1_800_000_000_000;
pub const MINUTE_MS: i64 = 60_000;

pub struct World {
    _dir: tempfile::TempDir,
    pub home: Home,
    pub config: Config,
    pub index: Index,
    pub live: Option<LiveStatus>,
}

impl World {
    /// A scanned, empty folder, without an agent and without peers.
    pub fn alone() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"), dir.path().to_owned());
        let path = dir.path().canonicalize().unwrap().join("docs");
        let new = NewFolder { id: folder(), label: "Docs".into(), path: path.clone(), peers: Sharing::All };
        let config = config::add_folder(&home, &new).unwrap();
        home.create().unwrap();
        Root::new(path, folder()).create().unwrap();
        let mut index = Index::open(&home.index_file(&folder()), EPOCH).unwrap();
        index.set_scanned().unwrap();
        Self { _dir: dir, home, config, index, live: None }
    }

    /// The same with peers and a running agent that is connected to these.
    pub fn running(connected: &[DeviceId]) -> Self {
        let mut world = Self::alone();
        for (id, name) in [(DESK, "desk"), (PHONE, "phone")] {
            let peer = NewPeer { id, name: Some(name.into()), addresses: Vec::new() };
            world.config = config::add_peer(&world.home, &peer).unwrap();
        }
        let connected: BTreeSet<DeviceId> = connected.iter().copied().collect();
        let mut live = LiveStatus { listening: Some("[::]:7724".into()), ..LiveStatus::default() };
        for peer in &connected {
            live.peers.insert(*peer, LivePeer { connected: true, bytes_in: 5, ..LivePeer::default() });
        }
        live.folders.insert(folder(), LiveFolder { connected, ..LiveFolder::default() });
        world.live = Some(live);
        world
    }

    pub fn asker(&self) -> Asker<'_> {
        Asker { home: &self.home, config: &self.config, live: self.live.as_ref(), device: ME, now_ms: NOW_MS }
    }

    pub fn view(&self) -> View<'_> {
        self.asker().open(&self.config.folders[0]).unwrap()
    }

    pub fn live_folder(&mut self) -> &mut LiveFolder {
        self.live.as_mut().unwrap().folders.get_mut(&folder()).unwrap()
    }

    pub fn place(&self, path: &str) -> PathBuf {
        self.config.folders[0].path.join(path)
    }

    /// Puts a file onto the disk and, as a scan would, into the index.
    pub fn add(&mut self, path: &str, bytes: &[u8]) -> u64 {
        let place = self.place(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, bytes).unwrap();
        let disk = self.look(path).unwrap();
        let entry = Entry { mtime_ns: disk.mtime_ns, weight_ns: disk.mtime_ns, ..file(path, bytes) };
        let version = VersionVector::new().with(EPOCH, self.index.next_seq());
        self.index.put(&Entry { version, ..entry }, Some(disk), Mark::Here, NOW_MS).unwrap()
    }

    pub fn add_directory(&mut self, path: &str) {
        std::fs::create_dir_all(self.place(path)).unwrap();
        let entry = Entry { kind: Kind::Directory, mtime_ns: 0, weight_ns: 0, ..file(path, b"") };
        let disk = self.look(path);
        self.index.put(&entry, disk, Mark::Here, NOW_MS).unwrap();
    }

    pub fn look(&self, path: &str) -> Option<DiskState> {
        let root = Root::new(self.config.folders[0].path.clone(), folder()).open().unwrap();
        root.look(&rel(path)).unwrap()
    }

    /// A peer that has read our index up to here and applied it, and was last seen three minutes ago.
    pub fn applied(&mut self, device: DeviceId, applied: u64) {
        let cursor = Cursor { epoch: EpochId(99), seq: 10, runs: Vec::new() };
        let row = PeerRow {
            device,
            cursor: Some(cursor),
            their_last_seq: 10,
            acked: applied,
            applied,
            proved_ms: Some(NOW_MS - MINUTE_MS),
            last_seen_ms: Some(NOW_MS - 3 * MINUTE_MS),
        };
        self.index.set_peer(&row).unwrap();
    }

    pub fn in_sync(&mut self, device: DeviceId) {
        let last = self.index.next_seq() - 1;
        self.applied(device, last);
    }

    /// A peer's entry that ours does not include.
    pub fn hear(&mut self, device: DeviceId, entry: Entry) {
        self.index.put_rival(device, &Announced { entry, seq: 1, held: true }).unwrap();
    }

    /// The version that a peer made of the entry here: newer than ours, or concurrent to it.
    pub fn edited(&self, path: &str, kind: Kind, is_newer: bool) -> Entry {
        let base = self.index.record(&rel(path)).unwrap().map(|r| r.entry.version).filter(|_| is_newer);
        let mtime_ns = if kind == Kind::Deleted { 0 } else { NOW_MS * 1_000_000 };
        let version = base.unwrap_or_default().with(EpochId(2), 1);
        Entry { kind, version, mtime_ns, weight_ns: mtime_ns, author: DESK, ..file(path, b"") }
    }
}

pub fn folder() -> FolderId {
    "docs".parse().unwrap()
}

pub fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

pub fn content(bytes: &[u8]) -> Kind {
    Kind::File(Content::of_chunk(bytes))
}

pub fn file(path: &str, bytes: &[u8]) -> Entry {
    Entry {
        kind: content(bytes),
        mtime_ns: 5,
        weight_ns: 5,
        author: ME,
        version: VersionVector::new().with(EPOCH, 1),
        ..Entry::nothing(rel(path))
    }
}

pub fn slot_disk(size: u64) -> DiskState {
    DiskState { kind: DiskKind::File, size, mtime_ns: 7_000_000, ctime_ns: 1, inode: 1, mode: 0o644 }
}
