//! What came over a link for one folder and waits until that folder takes it in: a folder that is busy keeps nobody
//! waiting but those who speak to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::FolderPorts;
use super::room::memory_bytes;
use crate::core::id::DeviceId;
use crate::core::message::Message;
use crate::engine::shared::Event;
use crate::sync::Input;

/// Memory in bytes that the messages for one folder take while they wait: several of the largest, and more than a peer
/// sends before it waits for an answer. A peer that sends more waits with all that it has to say.
pub(super) const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A message's share of the room that its folder has for what waits, and of the room that its link has.
pub type Room = [OwnedSemaphorePermit; 2];

/// From a link to one folder, as long as both last.
pub(super) struct Queue {
    /// Gone once nothing more comes. What waits is bounded in bytes by the room.
    sender: Option<UnboundedSender<Event>>,
    /// What still waits is for nobody any more.
    is_cut: Arc<AtomicBool>,
    room: Arc<Semaphore>,
    forwarder: JoinHandle<()>,
}

impl Queue {
    /// The folder hears first that the peer is there, after all that a queue has for it which was cut before.
    pub fn open(peer: DeviceId, ports: FolderPorts, before: Option<Queue>) -> Self {
        let (sender, mut queued) = mpsc::unbounded_channel();
        if before.is_none() {
            (ports.link_up)(peer);
        }
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        let forwarder = tokio::spawn(async move {
            if let Some(mut before) = before {
                before.closed().await;
                (ports.link_up)(peer);
            }
            let mut next = Some(Event::Input(Input::Connected(peer)));
            while let Some(event) = next {
                // It may be the folder that has stopped.
                if cut.load(Ordering::Acquire) || ports.inputs.send(event).await.is_err() {
                    break;
                }
                next = queued.recv().await;
            }
            // What still comes is for nobody, and leaves its room to others.
            drop(queued);
            let room = ports.inputs.reserve_owned().await;
            (ports.link_down)(peer);
            if let Ok(room) = room {
                room.send(Event::Input(Input::Lost(peer)));
            }
        });
        Self { sender: Some(sender), is_cut, room: Arc::new(Semaphore::new(QUEUED_BYTES_MAX)), forwarder }
    }

    /// Takes in a message as soon as there is room for it, in the folder's share and in `of_link`.
    pub async fn put(&self, peer: DeviceId, message: Message, of_link: &Arc<Semaphore>, of_link_max: usize) {
        let bytes = memory_bytes(&message);
        // One that is larger than all of the room takes all.
        let (own, all) = (bytes.min(QUEUED_BYTES_MAX) as u32, bytes.min(of_link_max) as u32);
        let Ok(own) = self.room.clone().acquire_many_owned(own).await else { return };
        let Ok(all) = of_link.clone().acquire_many_owned(all).await else { return };
        if let Some(sender) = &self.sender {
            // A folder that has stopped is taken out soon.
            let _ = sender.send(Event::Message(peer, message, [own, all]));
        }
    }

    /// Nothing more comes. What waits is heard still.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// Nothing more comes, and what waits is for nobody: the folder is no longer shared with the peer, or has started anew.
    pub fn cut(&mut self) {
        self.is_cut.store(true, Ordering::Release);
        self.close();
    }

    /// After [`Queue::close`] or [`Queue::cut`]: waits until the folder has heard all, and that the peer has gone. Once.
    pub async fn closed(&mut self) {
        // A forwarder neither panics nor is it aborted while the queue is there.
        let _ = (&mut self.forwarder).await;
    }
}
