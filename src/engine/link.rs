//! Handles of the links to connected peers, by which everything that is sent finds its way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::core::id::DeviceId;
use crate::net::outbox::Outbox;
use crate::net::pace::LinkPace;

/// A connected peer, for sending.
#[derive(Clone)]
pub struct LinkHandle {
    pub peer: DeviceId,
    pub outbox: Outbox,
    pub pace: LinkPace,
    shared: Arc<LinkShared>,
}

/// All connected peers.
pub type LinkTable = Arc<RwLock<BTreeMap<DeviceId, LinkHandle>>>;

/// What the handles of one link share.
#[derive(Default)]
struct LinkShared {
    ending: Ending,
    /// The link is down, or going down.
    over: AtomicBool,
}

/// Tells a link to end, once.
#[derive(Default)]
struct Ending {
    reason: Mutex<Option<String>>,
    told: Notify,
}

impl LinkHandle {
    pub fn new(peer: DeviceId, outbox: Outbox) -> Self {
        Self::paced(peer, outbox, LinkPace::default())
    }

    /// With caps on what goes over it.
    pub fn paced(peer: DeviceId, outbox: Outbox, pace: LinkPace) -> Self {
        Self { peer, outbox, pace, shared: Arc::default() }
    }

    /// Ends the link; the peer is told the reason if it still listens.
    pub fn end(&self, reason: &str) {
        self.shared.ending.tell(reason);
    }

    /// Whether both are handles of the same link, not only of the same peer.
    pub fn is_same_link(&self, other: &LinkHandle) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The reason, once the link has been told to end.
    pub(super) async fn ending(&self) -> String {
        self.shared.ending.told.notified().await;
        let reason = self.shared.ending.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        reason.unwrap_or_default()
    }

    /// From now on the link is down, or going down.
    pub(super) fn set_over(&self) {
        self.shared.over.store(true, Ordering::Release);
    }

    /// True once the link is down, or going down.
    pub(super) fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Acquire)
    }
}

impl Ending {
    fn tell(&self, reason: &str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.told.notify_one();
    }
}
