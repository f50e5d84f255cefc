//! A folder with a peer that only speaks when a test has it speak.

use crate::core::action::{Action, Outcome, Slot, WorkId};
use crate::core::content::Content;
use crate::core::decide;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::id::{DeviceId, EpochId, RunId};
use crate::core::ignore::Rules;
use crate::core::message::{Announced, Batch, Hello, Message};
use crate::core::path::RelPath;
use crate::index::Index;

use super::{FetchOrder, Folder, Input, NOTE_HELD, Now, Observation, Output, Seen, Settings};

pub const PEER: DeviceId = DeviceId([2; 32]);
pub const PEERS_EPOCH: EpochId = EpochId(2);

pub struct Fixture {
    pub folder: Folder,
    files: u64,
    pub now: Now,
    pub orders: Vec<(WorkId, Action)>,
    pub restored: Vec<RelPath>,
    pub fetches: Vec<FetchOrder>,
    pub sent: Vec<Message>,
    pub reloads: usize,
    pub rescans: Vec<RelPath>,
}

impl Fixture {
    /// A folder with this many files, connected to a peer.
    pub fn new(files: u64) -> Self {
        let device = DeviceId([1; 32]);
        let settings = Settings { device, peers: [PEER].into(), reconcile_ms: 600_000, ..Settings::default() };
        let index = Index::in_memory(EpochId(1)).unwrap();
        let folder = Folder::new(index, settings, Rules::default(), RunId(1)).unwrap();
        let now = Now { wall_ns: 1_800_000_000_000_000_000, mono_ms: 1000, random: 7 };
        let mut fixture = Self {
            folder,
            files,
            now,
            orders: Vec::new(),
            restored: Vec::new(),
            fetches: Vec::new(),
            sent: Vec::new(),
            reloads: 0,
            rescans: Vec::new(),
        };
        fixture.feed(Input::ScanStarted { suspicious: false });
        fixture.feed(Input::Observed((0..files).map(|n| seen(n, n)).collect()));
        fixture.feed(Input::ScanFinished { complete: true });
        fixture.feed(Input::Connected(PEER));
        let hello = Hello { epoch: PEERS_EPOCH, run: RunId(2), last_seq: files, found: Vec::new(), cursor: None };
        fixture.hear(Message::Hello(hello));
        fixture
    }

    pub fn feed(&mut self, input: Input) {
        self.now.wall_ns += 1_000_000;
        self.now.mono_ms += 1;
        for output in self.folder.handle(input, self.now).unwrap() {
            match output {
                Output::Apply(work, action) => self.orders.push((work, action)),
                Output::Restore { path, .. } => self.restored.push(path),
                Output::Rescan(paths) => self.rescans.extend(paths),
                Output::ReloadRules => self.reloads += 1,
                Output::Fetch(order) => self.fetches.push(order),
                Output::Send(_, message) => self.sent.push(message),
                _ => {}
            }
        }
    }

    pub fn hear(&mut self, message: Message) {
        self.feed(Input::Message(PEER, message));
    }

    /// The peer says that so many files were deleted, those with the last names first, beginning with the `from`th.
    pub fn hear_deleted(&mut self, from: u64, to: u64) {
        let entries = (from..to).map(|n| {
            let ours = self.folder.ours(&path(self.files - 1 - n)).unwrap().entry;
            Announced { entry: decide::deleted(&ours, PEERS_EPOCH, n + 1), seq: n + 1, held: true }
        });
        let entries = entries.collect();
        self.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: to, more: false }));
    }

    /// Carries out what was ordered, until nothing more is.
    pub fn carry_out(&mut self) -> usize {
        let mut done = 0;
        while !self.orders.is_empty() {
            let outcomes: Vec<_> = std::mem::take(&mut self.orders)
                .into_iter()
                .map(|(work, action)| {
                    let slot = Slot { name: action.path().clone(), disk: disk(0) };
                    let displaced = matches!(action, Action::Remove { .. }).then_some(slot);
                    (work, Outcome::Done { disk: None, displaced, conflict: None, rescued: None })
                })
                .collect();
            done += outcomes.len();
            self.feed(Input::Applied(outcomes));
        }
        done
    }

    pub fn is_held(&self) -> bool {
        self.folder.index().note(NOTE_HELD).unwrap().is_some()
    }

    pub fn wait(&mut self, ms: u64) {
        self.now.wall_ns += ms as i64 * 1_000_000;
        self.now.mono_ms += ms;
        self.feed(Input::Tick);
    }
}

pub fn path(n: u64) -> RelPath {
    RelPath::parse(format!("f{n:05}").as_bytes()).unwrap()
}

pub fn disk(n: u64) -> DiskState {
    DiskState { kind: DiskKind::File, size: 8, mtime_ns: 5, ctime_ns: 5, inode: n, mode: 0o644 }
}

/// File `n` with a content that `bytes` tells from others.
pub fn seen(n: u64, bytes: u64) -> Observation {
    let content = Content::of_chunk(&bytes.to_be_bytes());
    Observation { path: path(n), seen: Seen::File { disk: disk(bytes), content, lists: Vec::new() } }
}
