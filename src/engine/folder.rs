//! One running folder: the thread that owns its state machine and carries out what it decides, and the handle by
//! which all else reaches it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use std::{fs, io, thread};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::clock;
use super::control::Order;
use super::fetch::Fetcher;
use super::hints::Hints;
use super::links::LinkTable;
use crate::core::action::{Action, Displace, Expected, WorkId};
use crate::core::id::{DeviceId, EpochId, FolderId, RunId};
use crate::core::ignore::{IGNORE_FILE, Rules};
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::failpoint;
use crate::fs::error::FsError;
use crate::fs::root::Root;
use crate::index::{Index, IndexError, Reader};
use crate::net::bounds;
use crate::net::frame::Frame;
use crate::net::random_bytes;
use crate::sync::{Folder, Input, Output, Settings};

/// Inputs that wait for the folder's thread; beyond that whoever has more waits.
pub const INPUTS_QUEUED_MAX: usize = 256;
/// Largest ignore file that is read, in bytes.
const IGNORE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A tick comes at the latest this long after its time, however many inputs wait.
const TICK_LATE_MAX_MS: u64 = 500;
/// Index note with the directory that the index is about.
const NOTE_ROOT: &str = "root";
/// Index note with the boot in which the agent last ran.
const NOTE_BOOT: &str = "boot";

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
    /// The first scan follows an unclean shutdown of the machine.
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

/// The folder's state machine with the channels that its outputs go to.
pub struct Driver {
    pub handle: FolderHandle,
    pub folder: Folder,
    pub inputs: mpsc::Receiver<Event>,
    pub actions: std::sync::mpsc::Sender<(WorkId, Action)>,
    pub fetcher: Fetcher,
    pub runtime: Handle,
    /// Paths of the actions under way.
    under_way: HashMap<WorkId, Vec<RelPath>>,
    /// When the last tick was, on the clock that only goes forward.
    ticked_ms: u64,
}

impl Driver {
    pub fn new(
        handle: FolderHandle,
        folder: Folder,
        inputs: mpsc::Receiver<Event>,
        actions: std::sync::mpsc::Sender<(WorkId, Action)>,
        fetcher: Fetcher,
        runtime: Handle,
    ) -> Self {
        Self { handle, folder, inputs, actions, fetcher, runtime, under_way: HashMap::new(), ticked_ms: 0 }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    ///
    /// Where the index fails; the folder has to be started anew then.
    pub fn run(mut self) -> Result<(), IndexError> {
        while let Some(input) = self.next_input()? {
            self.take(input)?;
        }
        self.folder.close()
    }

    fn next_input(&mut self) -> Result<Option<Input>, IndexError> {
        let now = clock::now();
        let due = self.folder.next_tick_ms(now)?;
        // Whoever sends without a pause must not keep deletions and retries from their turn.
        if due.is_some_and(|at| now.mono_ms > at.max(self.ticked_ms).saturating_add(TICK_LATE_MAX_MS)) {
            self.ticked_ms = now.mono_ms;
            return Ok(Some(Input::Tick));
        }
        let wait = due.map(|at| Duration::from_millis(at.saturating_sub(now.mono_ms)));
        let inputs = &mut self.inputs;
        let event = self.runtime.block_on(async {
            match wait {
                Some(wait) => tokio::time::timeout(wait, inputs.recv()).await.ok(),
                None => Some(inputs.recv().await),
            }
        });
        Ok(match event {
            None => {
                self.ticked_ms = now.mono_ms;
                Some(Input::Tick)
            }
            Some(Some(Event::Input(input))) => Some(input),
            Some(Some(Event::Stop) | None) => None,
        })
    }

    fn take(&mut self, input: Input) -> Result<(), IndexError> {
        if let Input::Applied(outcomes) = &input {
            let ended: Vec<WorkId> = outcomes.iter().map(|(work, _)| *work).collect();
            self.ended(&ended);
        }
        let looked_at: Vec<RelPath> = match &input {
            Input::Observed(observations) => observations.iter().map(|o| o.path.clone()).collect(),
            _ => Vec::new(),
        };
        let outputs = self.folder.handle(input, clock::now())?;
        self.handle.hints.release(&looked_at);
        for output in outputs {
            self.carry_out(output);
        }
        Ok(())
    }

    fn ended(&mut self, works: &[WorkId]) {
        let mut applying = self.handle.applying.lock().unwrap_or_else(|e| e.into_inner());
        for work in works {
            for path in self.under_way.remove(work).unwrap_or_default() {
                applying.remove(&path);
            }
            self.fetcher.applied(*work);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(peer, message) => self.send(peer, message),
            Output::Fetch(order) => self.fetcher.order(order),
            Output::Apply(work, action) => self.apply(work, action),
            Output::Rescan(paths) => self.handle.hints.request(paths),
            Output::FullScan => self.handle.hints.request_full("asked for by the folder"),
            Output::ReloadRules => self.reload_rules(),
            Output::Restore { slot, path } => self.restore(slot, path),
            Output::Event { kind, path, text } => self.show(kind, path.as_ref(), &text),
        }
    }

    /// A peer that is too slow to take control frames is dropped; it comes back and goes on at its cursor.
    fn send(&self, peer: DeviceId, message: Message) {
        let link = self.handle.links.read().unwrap_or_else(|e| e.into_inner()).get(&peer).cloned();
        let Some(link) = link else { return };
        for part in bounds::fit(message) {
            if let Err(error) = link.outbox.control(&Frame::Folder(self.handle.id.clone(), part)) {
                tracing::debug!(peer = %peer.short(), %error, "a message could not be queued; the connection is closed");
                let _ = link.outbox.close("too slow");
                return;
            }
        }
    }

    fn apply(&mut self, work: WorkId, action: Action) {
        let paths = paths_of(&action);
        self.handle.applying.lock().unwrap_or_else(|e| e.into_inner()).extend(paths.iter().cloned());
        self.under_way.insert(work, paths);
        // The applier only ends when this side has gone.
        let _ = self.actions.send((work, action));
    }

    fn reload_rules(&self) {
        let rules = read_rules(self.handle.root.path());
        failpoint::hit("rules.read");
        *self.handle.rules.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(rules.clone());
        let handle = self.handle.clone();
        // Not from this thread: its own queue may be full.
        self.runtime.spawn(async move {
            let _ = handle.inputs.send(Event::Input(Input::Rules(Box::new(rules)))).await;
        });
    }

    /// Copies a version back beside the loop: it may be large.
    fn restore(&self, slot: RelPath, path: RelPath) {
        let handle = self.handle.clone();
        self.runtime.spawn_blocking(move || {
            let restored = handle.root.open().map_err(|e| e.to_string()).and_then(|root| {
                crate::fs::history::restore(&root, &slot, &path, clock::wall_ms()).map_err(|e| e.to_string())
            });
            if let Err(error) = restored {
                tracing::warn!(folder = %handle.label, %path, error, "could not bring a file back from history");
            }
            handle.hints.request(vec![path]);
        });
    }

    fn show(&self, kind: &'static str, path: Option<&RelPath>, text: &str) {
        let folder = &self.handle.label;
        match (kind, path) {
            ("fault" | "halted" | "held" | "problem" | "suspect" | "rollback", Some(path)) => {
                tracing::warn!(%folder, %path, "{text}");
            }
            ("fault" | "halted" | "held" | "problem" | "suspect" | "rollback", None) => {
                tracing::warn!(%folder, "{text}")
            }
            (_, Some(path)) => tracing::info!(%folder, %path, "{text}"),
            (_, None) => tracing::info!(%folder, "{text}"),
        }
    }
}

/// Every path that an action touches in the user's tree.
fn paths_of(action: &Action) -> Vec<RelPath> {
    let mut paths = vec![action.path().clone()];
    let expect = match action {
        Action::Move { from, .. } => {
            paths.push(from.clone());
            None
        }
        Action::CreateDirectory { expect, .. }
        | Action::PlaceFile { expect, .. }
        | Action::PlaceSymlink { expect, .. } => expect.as_ref(),
        _ => None,
    };
    if let Some(Expected { displace: Displace::ConflictCopy(copy), .. }) = expect {
        paths.push(copy.clone());
    }
    paths
}

/// The ignore rules of a folder; the built-in ones where there is no readable file.
pub fn read_rules(root: &Path) -> Rules {
    let path = root.join(IGNORE_FILE);
    let is_small = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= IGNORE_FILE_BYTES_MAX);
    if !is_small {
        return Rules::default();
    }
    match fs::read(&path) {
        Ok(text) => {
            let (rules, errors) = Rules::parse(&text);
            for error in errors {
                tracing::warn!(file = %path.display(), line = error.line, "this ignore rule is not understood and not used: {}", error.why);
            }
            rules
        }
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read the ignore rules; only the built-in ones apply");
            Rules::default()
        }
    }
}

/// True where this index is about another directory than the folder's, which has no marker yet: the folder was added
/// anew in another place, and starts there with an index of its own.
pub fn is_of_another_place(index: &Path, root: &Root) -> bool {
    let known = Reader::open(index).and_then(|reader| reader.note(NOTE_ROOT)).ok().flatten();
    let is_marked = matches!(root.open(), Ok(_) | Err(FsError::OtherFolder { .. }));
    known.is_some_and(|known| known != place_of(root.path())) && !is_marked
}

fn place_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Opens the index, or a new one beside it where it is damaged. Says whether the machine went down uncleanly.
pub fn open_index(path: &Path, root: &Path) -> Result<(Index, Opened), IndexError> {
    let index = match Index::open(path, EpochId(u64::from_le_bytes(random_bytes()))) {
        Err(error) if error.is_corrupt() => {
            let aside = set_aside(path, "damaged");
            tracing::error!(%error, set_aside = ?aside, "the index is damaged; it is set aside and built anew, no file is touched");
            Index::open(path, EpochId(u64::from_le_bytes(random_bytes())))?
        }
        other => other?,
    };
    let was_clean = index.state()?.clean;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let same_boot = index.note(NOTE_BOOT)?.is_none_or(|known| known == boot.trim());
    let mut index = index;
    index.set_note(NOTE_BOOT, Some(boot.trim()))?;
    index.set_note(NOTE_ROOT, Some(&place_of(root)))?;
    Ok((index, Opened { was_clean, is_suspicious: !was_clean && !same_boot }))
}

/// How the last run ended.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub was_clean: bool,
    /// The machine went down while the agent was running.
    pub is_suspicious: bool,
}

/// Renames an index with what belongs to it, so that it can be looked at; `why` goes into the name.
pub fn set_aside(path: &Path, why: &str) -> io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = clock::wall_ms();
    let aside = with(&format!(".{why}-{stamp}"));
    fs::rename(path, &aside)?;
    failpoint::hit("index.damaged_moved");
    for extra in ["-wal", "-shm"] {
        let _ = fs::rename(with(extra), with(&format!(".{why}-{stamp}{extra}")));
    }
    failpoint::hit("index.damaged_log_moved");
    Ok(aside)
}

/// Starts the thread that owns the state machine; the agent is told where it fails.
pub fn spawn(driver: Driver, orders: mpsc::Sender<Order>) -> io::Result<thread::JoinHandle<Result<(), IndexError>>> {
    let id = driver.handle.id.clone();
    thread::Builder::new().name("folder".into()).spawn(move || {
        let result = driver.run();
        if let Err(error) = &result {
            tracing::error!(folder = %id, %error, "the index failed; the folder is started anew");
            let _ = orders.blocking_send(Order::Failed(id));
        }
        result
    })
}

/// The state machine on its index.
pub fn state_machine(index: Index, settings: Settings, rules: Rules) -> Result<Folder, IndexError> {
    Folder::new(index, settings, rules, RunId(u64::from_le_bytes(random_bytes())))
}

impl Live {
    /// True where a full scan is under way.
    pub fn is_scanning(&self) -> bool {
        self.scanning.load(Ordering::Relaxed)
    }
}
