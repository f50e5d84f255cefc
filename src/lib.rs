//! p2psync keeps folders the same on a person's own devices, with no server in between.
//!
//! # Bird's-eye view
//!
//! An agent runs on every device. It watches its folders ([`fs`]), keeps what it saw and what its peers said in one
//! SQLite database per folder ([`index`]), tells its peers what changed ([`net`]), decides what to take from them
//! ([`core`], [`sync`]), and fetches, verifies and swaps it into place ([`engine`], [`fs`]). A person talks to it
//! with commands ([`cli`]) through a local socket ([`api`]).
//!
//! # Where to look
//!
//! | question | place |
//! | --- | --- |
//! | what may be a path, an id, a version, a content? | [`core::path`], [`core::id`], [`core::version`], [`core::content`] |
//! | who wins when two devices changed a file? | [`core::decide`] |
//! | what happens to the loser? | [`core::conflict`] |
//! | what is done when something was scanned, heard or finished? | [`sync`] |
//! | what is stored, and how is it found again? | [`index`], `migrations/` |
//! | how does a file get under its name without ever being torn or lost? | [`fs::apply`] |
//! | how do devices find, trust and talk to each other? | [`net`], `docs/protocol.md` |
//! | which threads and tasks are there? | [`engine`] |
//! | what can be configured? | [`config`], `config.example.toml` |
//! | where does the agent keep its own files? | [`home`] |
//!
//! # Architecture invariants
//!
//! - A module imports only from layers below it: `core` < `index`, `fs`, `net` (never each other) < `sync` < `engine`
//!   < `api`, `cli`. `tests/tidy.rs` checks this.
//! - `core` and `sync` have no clock, disk, network, randomness or async: these come in as inputs. What they decide
//!   comes out as data, so the same code runs in the agent and in a simulator.
//! - Nothing outside `fs` touches a synced folder, nothing outside `net` opens a socket to a peer, nothing outside
//!   `engine` spawns a task.
//! - Every destructive step is a rename into the folder's history. There is no other.
//! - What is stored are observations (what the disk holds, what peers said), never work in progress: after a crash the
//!   plan is computed anew.

pub mod api;
pub mod cli;
pub mod config;
pub mod core;
pub mod engine;
pub mod failpoint;
pub mod fs;
pub mod home;
pub mod index;
pub mod net;
pub mod sabotage;
pub mod sync;
