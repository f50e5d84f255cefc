//! Wires everything together: the only place that spawns threads and tasks, and reads clocks.
//!
//! | file | does |
//! | --- | --- |
//! | `agent` | what `p2psync run` starts, reloads and stops |
//! | `running`, `start` | starts and stops one folder; what the last run left behind |
//! | `folder`, `desk` | the thread that owns a folder's state machine; what it does with each input |
//! | `shared`, `link`, `clock` | what all of them share |
//! | `scan`, `hints` | looks at the disk: everything from time to time, single paths when the watcher hints |
//! | `apply`, `recover`, `restore`, `retention` | changes the disk, and looks after its history |
//! | `fetch`, `serve` | chunks in, chunks out |
//! | `links` | connections to peers |
//! | `elsewhere`, `questions` | earlier versions that other devices have, and their questions for ours |
//! | `allowance`, `chatter` | how often a peer may have something done, and something logged |
//! | `flow`, `transfer` | how fast bytes flow, and what is on its way |
//! | `manager` | word to the service manager that started the agent |
//! | `control`, `report` | answers to commands |
//! | `stepping` | all that works on the disk, step by step in one thread, for a simulator |

mod again;
pub mod agent;
mod allowance;
mod answers;
mod apply;
mod browser_port;
mod chatter;
pub mod clock;
mod config_watch;
mod control;
mod desk;
mod elsewhere;
mod feed;
mod fetch;
mod flow;
mod folder;
mod gifts;
mod hints;
mod link;
pub mod links;
mod lived;
mod local;
mod manager;
mod manners;
mod metered;
mod notices;
mod prune;
mod questions;
mod readers;
mod receipt;
mod recover;
pub mod report;
mod resolve;
mod restore;
mod retention;
mod rewind;
mod rewind_request;
mod rules;
mod running;
mod scan;
mod serve;
mod shared;
mod start;
#[cfg(feature = "testing")]
pub mod stepping;
mod transfer;
mod undo;
mod way_back;

#[cfg(test)]
mod testing;
