//! One running folder: the thread that owns its state machine, and the handle by which all else reaches it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::mpsc;

use super::hints::Hints;
use super::links::LinkTable;
use crate::core::id::{DeviceId, FolderId};
use crate::core::ignore::Rules;
use crate::core::path::RelPath;
use crate::fs::root::Root;
use crate::sync::Input;

/// Inputs that wait for the folder's thread; beyond that whoever has more waits.
pub const INPUTS_QUEUED_MAX: usize = 256;

/// What the folder's thread is told.
pub enum Event {
    Input(Input),
    Stop,
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
    pub rules: RwLock<Arc<Rules>>,
    pub hints: Hints,
    /// Paths with an action under way: what the watcher says about them is put off.
    pub applying: Mutex<HashSet<RelPath>>,
    /// Held from a look that finds nothing until it has been sent: an old absence must not overtake a newer presence.
    pub absence: Mutex<()>,
    /// The first scan follows an unclean shutdown.
    pub suspicious_boot: AtomicBool,
    pub stop: AtomicBool,
    pub live: Live,
    pub links: LinkTable,
}

/// What `status` shows of a running folder beside its index.
#[derive(Default)]
pub struct Live {
    pub scanning: AtomicBool,
    /// Why changes are not noticed at once; `None` while they are.
    pub watch: Mutex<Option<String>>,
    /// Bytes of contents taken from the wire, and from files that were already here.
    pub bytes_fetched: AtomicU64,
    pub bytes_reused: AtomicU64,
}

impl std::ops::Deref for FolderHandle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Hands an input to the folder's thread, waiting for room. False where the folder has stopped.
    pub fn send(&self, input: Input) -> bool {
        self.inputs.blocking_send(Event::Input(input)).is_ok()
    }
}
