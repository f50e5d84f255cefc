//! The agent: what `p2psync run` starts.

use crate::core::id::DeviceId;
use crate::home::{Home, Lock};

/// Runs until it is told to stop. The config file exists and the lock is held.
pub fn run(home: Home, lock: Lock) -> anyhow::Result<()> {
    let _ = (home, lock);
    anyhow::bail!("not available yet")
}

/// The id of this device; makes its identity where there is none.
pub fn device_id(home: &Home) -> anyhow::Result<DeviceId> {
    let _ = home;
    anyhow::bail!("not available yet")
}
