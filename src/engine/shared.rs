//! What the threads of one folder share, and the handle by which all else reaches them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::clock::Clock;
use super::elsewhere::Elsewhere;
use super::feed::Feed;
use super::fetch::Downloads;
use super::flow::Flow;
use super::gifts::Gifts;
use super::hints::Hints;
use super::link::LinkTable;
use super::links::Room;
use super::notices::Notices;
use super::readers::Readers;
use super::receipt::Progress;
use super::scan::Departed;
use super::transfer::Transfers;
use crate::core::disk::DiskState;
use crate::core::id::{DeviceId, FolderId};
use crate::core::ignore::Rules;
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::core::selection::Selection;
use crate::fs::error::FsError;
use crate::fs::root::Root;
use crate::index::IndexError;
use crate::sync::Input;

/// Inputs that wait for the folder's thread; beyond that whoever has more waits.
pub const INPUTS_QUEUED_MAX: usize = 256;

/// What the folder's thread is told.
pub enum Event {
    Input(Input),
    /// What a peer said, with its share of the room for what waits.
    Message(DeviceId, Message, Room),
    /// Something for the index to remember, by its key.
    Note(&'static str, String),
    /// The same, and an answer once it is sure to outlast a crash.
    Keep(&'static str, String, SyncSender<()>),
    Stop,
}

/// What only the agent's loop can do.
pub enum Order {
    /// The config file may have changed; the answer says what is wrong with it.
    Reload(oneshot::Sender<Result<(), String>>),
    ConfigChanged,
    /// A folder's index failed.
    Failed(FolderId),
    /// Try a folder again that could not be started.
    Restart(FolderId),
}

/// Cheap handle to one running folder.
#[derive(Clone)]
pub struct FolderHandle(pub Arc<Shared>);

/// What the threads of one folder share.
pub struct Shared {
    pub id: FolderId,
    pub label: String,
    pub root: Root,
    pub device: DeviceId,
    /// Every thread opens its own [`crate::index::Reader`] on it.
    pub index_path: PathBuf,
    pub inputs: mpsc::Sender<Event>,
    pub clock: Clock,
    pub rules: RwLock<Arc<Rules>>,
    /// The part of the folder that is wanted here; `None` is all of it.
    pub selection: RwLock<Option<Selection>>,
    /// What [`LOCAL_IGNORE_FILE`](crate::core::ignore::LOCAL_IGNORE_FILE) was like when it was last read.
    pub local_rules_seen: Mutex<Option<DiskState>>,
    /// Scans that nobody asked for give way to others.
    pub gentle_scans: AtomicBool,
    /// The rules could not be read when they should have been.
    pub rules_stale: AtomicBool,
    pub hints: Hints,
    /// Paths with an action under way: what the watcher says about them is put off.
    pub applying: Mutex<HashSet<RelPath>>,
    /// How the last run ended, until what it left behind has been put right.
    pub left_behind: Mutex<Option<Opened>>,
    /// The first scan follows an unclean shutdown of the machine.
    pub suspicious_boot: AtomicBool,
    /// Whoever looks also reads, instead of having it read by threads beside it.
    pub reads_inline: bool,
    /// What a scan has just seen to leave its place.
    pub departed: Departed,
    /// Small contents that were just read here, or sent by peers unasked.
    pub gifts: Gifts,
    /// What of large files is here before all of it is.
    pub downloads: Downloads,
    pub stop: AtomicBool,
    pub live: Live,
    pub notices: Notices,
    pub links: LinkTable,
    /// What happens, for whoever waits for it.
    pub progress: Progress,
    /// What peers have that is not here any more.
    pub elsewhere: Elsewhere,
    /// Held while something is taken back.
    pub rewinding: Mutex<()>,
    pub feed: Feed,
    /// The index, open for whoever asks about the folder.
    pub readers: Readers,
}

/// How the last run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    pub was_clean: bool,
    /// The machine went down while the agent was running, and no scan has seen all of the folder since.
    pub is_suspicious: bool,
}

/// Why something failed that takes both the folder's directory and its index.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// What `status` shows of a running folder beside its index.
#[derive(Default)]
pub struct Live {
    pub scanning: AtomicBool,
    /// Why changes are not noticed at once; `None` while they are.
    pub watch: Mutex<Option<String>>,
    /// A directory can be listed now that could not be when the watch began, so nothing below it is heard.
    pub is_watch_partial: AtomicBool,
    /// Bytes of contents taken from the wire, and from files that were already here.
    pub bytes_fetched: AtomicU64,
    pub bytes_reused: AtomicU64,
    pub flow: Flow,
    /// Contents on their way into the stage.
    pub transfers: Transfers,
}

impl std::ops::Deref for FolderHandle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Of a folder in which nothing has happened yet: no index path, no rules but the built-in ones, no links.
    pub fn new(id: FolderId, root: Root, device: DeviceId, inputs: mpsc::Sender<Event>, clock: Clock) -> Self {
        Self {
            label: id.to_string(),
            id,
            root,
            device,
            index_path: PathBuf::new(),
            inputs,
            hints: Hints::new(clock.clone()),
            clock,
            rules: RwLock::default(),
            selection: RwLock::default(),
            local_rules_seen: Mutex::default(),
            gentle_scans: AtomicBool::new(false),
            rules_stale: AtomicBool::new(false),
            applying: Mutex::default(),
            left_behind: Mutex::default(),
            suspicious_boot: AtomicBool::new(false),
            reads_inline: false,
            departed: Departed::default(),
            gifts: Gifts::default(),
            downloads: Downloads::default(),
            stop: AtomicBool::new(false),
            live: Live::default(),
            notices: Notices::default(),
            links: LinkTable::default(),
            progress: Progress::default(),
            elsewhere: Elsewhere::default(),
            rewinding: Mutex::default(),
            feed: Feed::default(),
            readers: Readers::default(),
        }
    }

    /// A peer sent verified bytes of contents.
    pub fn note_received(&self, peer: DeviceId, bytes: u64) {
        self.live.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
        self.live.flow.received(peer, bytes, self.clock.instant());
    }

    /// Bytes of contents were found on this disk.
    pub fn note_reused(&self, bytes: u64) {
        self.live.bytes_reused.fetch_add(bytes, Ordering::Relaxed);
        self.live.flow.reused(bytes, self.clock.instant());
    }

    /// Hands an input to the folder's thread, waiting for room. False where the folder has stopped.
    pub fn send(&self, input: Input) -> bool {
        self.inputs.blocking_send(Event::Input(input)).is_ok()
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The part of the folder that is wanted here.
    pub fn selection(&self) -> Option<Selection> {
        self.selection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this part is wanted, once the rules have been read again. True where that is another one.
    pub fn set_selection(&self, selection: Option<Selection>) -> bool {
        let mut now = self.selection.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = *now != selection;
        *now = selection;
        is_other
    }

    /// From now on these rules are looked with.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

impl Live {
    /// True where a full scan is under way.
    pub fn is_scanning(&self) -> bool {
        self.scanning.load(Ordering::Relaxed)
    }
}
