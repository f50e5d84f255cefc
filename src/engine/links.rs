//! Connections to peers.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::core::id::DeviceId;
use crate::net::outbox::Outbox;

/// A connected peer, for sending.
#[derive(Clone)]
pub struct LinkHandle {
    pub peer: DeviceId,
    pub outbox: Outbox,
}

/// All connected peers.
pub type LinkTable = Arc<RwLock<BTreeMap<DeviceId, LinkHandle>>>;
