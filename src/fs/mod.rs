//! The only code that touches synced folders: walk, watch, read, stage, apply, history.
//!
//! Architecture invariant: nothing in here unlinks, truncates or overwrites a user's bytes. The calls that unlink
//! anything are [`history::expire`] (a slot, by order of the retention rules), the ones in [`stage`] that drop the
//! agent's own unfinished files, and the ones in [`probe`] that clear up after it; none can reach outside `.p2psync`.
//!
//! Architecture invariant: every path is resolved beneath the directory handle of the folder, without following a
//! symlink, and no handle outlives one call into this module, so that a disk can always be unmounted.
//!
//! All of it blocks and belongs on plain threads. The time comes in as an argument where a decision depends on it.

pub mod apply;
pub mod error;
mod hash;
pub mod history;
pub mod nearby;
pub mod probe;
pub mod read;
pub mod root;
pub mod stage;
pub mod sys;
pub mod walk;
pub mod watch;

#[cfg(test)]
mod testing;
