//! The thread that owns a folder's state machine: the folder's [`Desk`] with channels and clocks around it.

use std::sync::mpsc::Sender;
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::apply::Command;
use super::chatter::Chatter;
use super::desk::{Desk, Errands};
use super::feed::Happened;
use super::fetch::Fetcher;
use super::notices::Kind;
use super::restore;
use super::shared::{Event, FolderHandle, Order};
use crate::core::action::{Action, WorkId};
use crate::core::id::DeviceId;
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::index::{EventRow, IndexError};
use crate::net::bounds;
use crate::net::frame::{Frame, Gift};
use crate::sync::{FetchOrder, Folder, Input};

/// Control frames, in bytes, behind which nothing is sent unasked any more: then the peer or the line is slow.
const GIFTS_BEHIND_BYTES_MAX: usize = 16 * 1024;

/// A tick comes at the latest this long after its time, however many inputs wait.
const TICK_LATE_MAX_MS: u64 = 500;

/// After so long without any input the log of the index is made small, ms.
const QUIET_MS: u64 = 10_000;

/// Runs a folder's state machine.
pub struct Driver {
    pub folder: Folder,
    pub desk: Desk,
    pub inputs: mpsc::Receiver<Event>,
    pub channels: Channels,
    /// When the last tick was, on the clock that only goes forward.
    ticked_ms: u64,
    /// When nothing will have happened for a while; `None` once that has been made use of.
    quiet_from_ms: Option<u64>,
}

/// Where the folder's outputs go to.
pub struct Channels {
    pub handle: FolderHandle,
    pub applier: Sender<Command>,
    pub fetcher: Fetcher,
    pub runtime: Handle,
    /// What a peer may cause again and again is not logged each time.
    pub chatter: Chatter<()>,
}

impl Driver {
    pub fn new(folder: Folder, desk: Desk, inputs: mpsc::Receiver<Event>, channels: Channels) -> Self {
        Self { folder, desk, inputs, channels, ticked_ms: 0, quiet_from_ms: None }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    ///
    /// Where the index fails; the folder has to be started anew then.
    pub fn run(mut self) -> Result<(), IndexError> {
        while let Some(event) = self.next_event()? {
            match event {
                Event::Input(input) => self.take(input)?,
                // Its room is given back once it has been dealt with.
                Event::Message(peer, message, _room) => self.take(Input::Message(peer, message))?,
                Event::Note(key, value) => self.folder.set_note(key, Some(&value))?,
                Event::Keep(key, value, kept) => {
                    self.folder.keep_note(key, &value)?;
                    // Whoever asked may have gone.
                    let _ = kept.send(());
                }
                Event::Stop => break,
            }
        }
        self.folder.close()
    }

    fn take(&mut self, input: Input) -> Result<(), IndexError> {
        let now = self.channels.handle.clock.now();
        self.desk.take(&mut self.folder, input, now, &mut self.channels)
    }

    fn next_event(&mut self) -> Result<Option<Event>, IndexError> {
        let now = self.channels.handle.clock.now();
        let due = self.folder.next_tick_ms(now)?;
        // Whoever sends without a pause must not keep deletions and retries from their turn.
        if due.is_some_and(|at| now.mono_ms > at.max(self.ticked_ms).saturating_add(TICK_LATE_MAX_MS)) {
            self.ticked_ms = now.mono_ms;
            return Ok(Some(Event::Input(Input::Tick)));
        }
        let next = due.into_iter().chain(self.quiet_from_ms).min();
        let wait = next.map(|at| Duration::from_millis(at.saturating_sub(now.mono_ms)));
        let inputs = &mut self.inputs;
        let event = self.channels.runtime.block_on(async {
            match wait {
                Some(wait) => tokio::time::timeout(wait, inputs.recv()).await.ok(),
                None => Some(inputs.recv().await),
            }
        });
        if let Some(event) = event {
            self.quiet_from_ms = Some(self.channels.handle.clock.mono_ms() + QUIET_MS);
            return Ok(event);
        }
        if self.quiet_from_ms.is_some_and(|at| due.is_none_or(|due| at < due)) {
            self.quiet_from_ms = None;
            // The log may stay as it is, as on a full disk; what is wrong with the index shows with the next change.
            if let Err(error) = self.folder.shrink_log() {
                tracing::debug!(%error, "the log of the index stays as long as it is");
            }
            return self.next_event();
        }
        self.ticked_ms = now.mono_ms;
        Ok(Some(Event::Input(Input::Tick)))
    }
}

impl Errands for Channels {
    fn apply(&mut self, work: WorkId, action: Action) {
        // The applier only ends when this side has gone.
        let _ = self.applier.send(Command::Apply(work, action));
    }

    /// Beside the loop: the version may be large.
    fn restore(&mut self, slot: RelPath, path: RelPath) {
        let handle = self.handle.clone();
        self.runtime.spawn_blocking(move || restore::copy_back(&handle, &slot, &path));
    }

    fn tell(&mut self, input: Input) {
        let handle = self.handle.clone();
        // Not from this thread: its own queue may be full.
        self.runtime.spawn(async move {
            let _ = handle.inputs.send(Event::Input(input)).await;
        });
    }

    /// A peer that is too slow to take control frames is dropped; it comes back and goes on at its cursor.
    fn send(&mut self, peer: DeviceId, message: Message) {
        let link = self.handle.links.read().unwrap_or_else(|e| e.into_inner()).get(&peer).cloned();
        let Some(link) = link else { return };
        // What is sent unasked keeps to no pace and makes others wait: not where there is a cap, or where frames wait.
        let is_free = !link.pace.upload.is_capped() && link.outbox.control_waiting() <= GIFTS_BEHIND_BYTES_MAX;
        let contents = if is_free { self.handle.gifts.for_message(&message) } else { Vec::new() };
        if !contents.is_empty() {
            // A help only: without it the peer asks.
            let _ = link.outbox.control(&Frame::Gift(Gift { folder: self.handle.id.clone(), contents }));
        }
        for part in bounds::fit(message) {
            if let Err(error) = link.outbox.control(&Frame::Folder(self.handle.id.clone(), part)) {
                tracing::debug!(peer = %peer.short(), %error, "a message could not be queued; the connection is closed");
                let _ = link.outbox.close("too slow");
                return;
            }
        }
    }

    fn fetch(&mut self, order: FetchOrder) {
        self.fetcher.order(order);
    }

    fn over(&mut self, work: WorkId) {
        self.fetcher.applied(work);
    }

    fn show(&mut self, kind: &'static str, path: Option<RelPath>, text: String) {
        let (folder, at_ms) = (&self.handle.label, self.handle.clock.now().wall_ms());
        self.handle.feed.tell(|| Happened {
            folder: self.handle.id.clone(),
            event: EventRow { id: 0, at_ms, kind: kind.to_owned(), path: path.clone(), text: text.clone() },
        });
        if let Some(worth) = Kind::of_event(kind) {
            let about = path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
            self.handle.notices.tell(worth, &format!("{folder}: {about}{text}"));
        }
        let is_trouble = matches!(kind, "fault" | "halted" | "held" | "problem" | "suspect" | "rollback");
        let more = if is_trouble { self.chatter.say((), kind, self.handle.clock.instant()) } else { None };
        match (more, path) {
            (Some(more), Some(path)) => tracing::warn!(%folder, %path, "{text}{more}"),
            (Some(more), None) => tracing::warn!(%folder, "{text}{more}"),
            _ if is_trouble => {}
            (_, Some(path)) => tracing::info!(%folder, %path, "{text}"),
            (_, None) => tracing::info!(%folder, "{text}"),
        }
    }
}

/// Starts the thread that owns the state machine; the agent is told where it fails.
pub fn spawn(driver: Driver, orders: mpsc::Sender<Order>) -> io::Result<thread::JoinHandle<Result<(), IndexError>>> {
    let id = driver.channels.handle.id.clone();
    thread::Builder::new().name("folder".into()).spawn(move || {
        let result = driver.run();
        if let Err(error) = &result {
            tracing::error!(folder = %id, %error, "the index failed; the folder is started anew");
            let _ = orders.blocking_send(Order::Failed(id));
        }
        result
    })
}
