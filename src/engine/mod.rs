//! Wires everything together: the only place that spawns threads and tasks, and reads clocks.
//!
//! | file | does |
//! | --- | --- |
//! | `agent` | what `p2psync run` starts, reloads and stops |
//! | `folder` | the thread that owns a folder's state machine and carries out what it decides |
//! | `scan`, `hints` | looks at the disk: everything from time to time, single paths when the watcher hints |
//! | `apply` | the thread that changes the disk |
//! | `fetch`, `serve` | chunks in, chunks out |
//! | `links` | connections to peers |
//! | `control`, `report` | answers to commands |

pub mod agent;
mod apply;
mod clock;
mod config_watch;
mod control;
mod fetch;
pub mod folder;
mod hints;
pub mod links;
mod local;
mod recover;
pub mod report;
mod retention;
mod running;
mod scan;
mod serve;

#[cfg(test)]
mod testing;
