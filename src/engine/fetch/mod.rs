//! Brings contents into the stage: from what is on this disk already, and the rest from peers.
//!
//! One thread per folder decides ([`Fetching`]), two workers read, verify and write. An unfinished file stays in the
//! stage and is gone on with when it is ordered again; only what the disk holds is remembered.
//!
//! Architecture invariant: bytes from a peer reach the disk only through [`worker`], which has verified them.

mod ask;
mod choice;
mod copies;
mod download;
mod given_up;
mod haves;
mod job;
mod open;
mod partners;
mod state;
#[cfg(feature = "testing")]
mod stepped;
mod swarm;
#[cfg(test)]
mod tests;
mod waiting;
mod wants;
mod worker;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::shared::FolderHandle;
use crate::core::action::WorkId;
use crate::core::content::Content;
use crate::core::id::DeviceId;
use crate::net::frame::{Chunks, Have};
use crate::sync::FetchOrder;
pub use download::Downloads;
use open::OpenRequests;
use state::Fetching;
#[cfg(feature = "testing")]
pub use stepped::{FetchStep, SteppedFetch};
use waiting::{Room, Waiting};
use worker::Done;

/// Threads that do the disk work of one folder: one reads while the other verifies.
const WORKERS: usize = 2;
/// How often to look for peers that have gone silent, while one is asked for something.
const TICK: Duration = Duration::from_millis(500);
/// The same while others fetch the same and wait for what is told them.
const TICK_SHARED: Duration = Duration::from_millis(50);
/// Events taken together, so that wants go out in few requests.
const EVENTS_AT_ONCE: usize = 256;

/// Cheap handle to the fetching of one folder. What it is told never waits; after the folder has stopped it is dropped.
#[derive(Clone)]
pub struct Fetcher {
    events: Sender<Event>,
    open: Arc<OpenRequests>,
    /// Haves that wait for the thread.
    haves: Room,
}

/// What the fetching thread hears.
enum Event {
    Order(FetchOrder),
    Applied(WorkId),
    LinkUp(DeviceId),
    LinkDown(DeviceId),
    Chunks(DeviceId, Vec<(Content, Bytes)>),
    NotHere(DeviceId, Vec<Content>),
    Have(DeviceId, Have, Waiting),
    Done(Vec<Done>),
    /// Staged files that were last written before this time, ns since 1970, may go.
    Clear(i64),
    /// Nothing but a look at the stop flag.
    Wake,
}

impl Fetcher {
    /// Starts fetching for a folder; ends once the folder's `stop` is set and it is woken.
    pub fn spawn(folder: FolderHandle) -> std::io::Result<(Fetcher, Vec<JoinHandle<()>>)> {
        let (events, inbox) = channel();
        let (tasks, queue) = channel();
        let (queue, open) = (Arc::new(Mutex::new(queue)), Arc::<OpenRequests>::default());
        let mut threads = Vec::new();
        for number in 0..WORKERS {
            let (folder, queue, events) = (folder.clone(), queue.clone(), events.clone());
            let name = format!("fetch-{number} {}", folder.label);
            threads.push(thread(name, move || worker::run(&folder, &queue, &events))?);
        }
        let name = format!("fetch {}", folder.label);
        let fetching = Fetching::new(folder, tasks, open.clone());
        threads.push(thread(name, move || run(fetching, &inbox))?);
        Ok((Fetcher { events, open, haves: Room::default() }, threads))
    }

    /// Orders a content; the result comes as an input of the folder.
    pub fn order(&self, order: FetchOrder) {
        self.tell(Event::Order(order));
    }

    /// A work is over: its staged file was put into place or is no longer minded.
    pub fn applied(&self, work: WorkId) {
        self.tell(Event::Applied(work));
    }

    /// Drops what lies in the stage, was last written before this time (ms since 1970), and is not wanted now.
    pub fn clear(&self, before_ms: i64) {
        self.tell(Event::Clear(before_ms.saturating_mul(1_000_000)));
    }

    /// The folder's `stop` is set.
    pub fn wake(&self) {
        self.tell(Event::Wake);
    }

    /// A peer is connected; after the table of links has it.
    pub fn link_up(&self, peer: DeviceId) {
        self.tell(Event::LinkUp(peer));
    }

    /// A peer is no longer connected.
    pub fn link_down(&self, peer: DeviceId) {
        self.tell(Event::LinkDown(peer));
    }

    /// What a peer has not answered yet may have been lost on its way.
    pub fn lane_lost(&self, peer: DeviceId) {
        self.open.lane_lost(peer, Instant::now());
    }

    /// True where this folder has asked the peer with this request: how an answer finds its folder.
    pub fn expects(&self, peer: DeviceId, request: u32) -> bool {
        self.open.expects(peer, request)
    }

    /// Contents from a peer. What was not asked for is dropped here.
    pub fn chunks(&self, peer: DeviceId, chunks: Chunks) {
        let taken = self.open.take_chunks(peer, chunks, Instant::now());
        if !taken.is_empty() {
            self.tell(Event::Chunks(peer, taken));
        }
    }

    /// What a peer says not to have.
    pub fn not_here(&self, peer: DeviceId, request: u32, items: &[u16]) {
        let taken = self.open.take_not_here(peer, request, items, Instant::now());
        if !taken.is_empty() {
            self.tell(Event::NotHere(peer, taken));
        }
    }

    /// What a peer has of a content that it fetches too. Where too much of that waits it is dropped: it is no more than a
    /// help.
    pub fn have(&self, peer: DeviceId, have: Have) {
        if let Some(waiting) = self.haves.enter(peer) {
            self.tell(Event::Have(peer, have, waiting));
        }
    }

    /// After the folder has stopped nobody listens, and nothing is lost by that.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(run)
}

/// The loop of the fetching thread.
fn run(mut fetching: Fetching, inbox: &Receiver<Event>) {
    while !fetching.is_stopped() {
        let next = match fetching.is_idle() {
            true => inbox.recv().map_err(RecvTimeoutError::from),
            false if fetching.is_shared() => inbox.recv_timeout(TICK_SHARED),
            false => inbox.recv_timeout(TICK),
        };
        match next {
            Ok(event) => {
                fetching.handle(event);
                inbox.try_iter().take(EVENTS_AT_ONCE).for_each(|event| fetching.handle(event));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if !fetching.step(Instant::now()) {
            return;
        }
    }
}
