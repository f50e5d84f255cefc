//! What a simulator does to a disk beside the user and the agent.

use p2psync::core::disk::DiskKind;

use super::user::Item;
use super::{Actor, Inner};

impl Inner {
    /// Makes what users did durable, as a system does by itself within half a minute.
    pub fn sync_users(&mut self) {
        self.journal.sync_of(Actor::User);
    }

    /// True where the agent was cut off and not revived since.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// How many changes the agent has made on the disk.
    pub fn agent_changes(&self) -> u64 {
        self.agent_changes
    }

    /// No call fails any more.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }
}

impl Item {
    /// True for what has bytes of its own.
    pub fn is_file_or_link(&self) -> bool {
        self.kind != DiskKind::Directory
    }
}

impl Inner {
    /// True where the disk is not mounted.
    pub fn is_unmounted(&self) -> bool {
        self.unmounted.is_some()
    }
}
