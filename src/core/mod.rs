//! Pure values and decisions: what a path, a version, an entry and a chunk are, and what is to be done about them.
//!
//! Architecture invariant: nothing in here touches a clock, a disk, a socket, randomness or an async runtime.
//! Everything that could differ between two runs comes in as an argument.

pub mod action;
pub mod chunker;
pub mod conflict;
pub mod content;
pub mod decide;
pub mod digest;
pub mod direction;
pub mod disk;
pub mod entry;
pub mod guard;
pub mod id;
pub mod ignore;
pub mod message;
pub mod nearest;
pub mod path;
pub mod problem;
pub mod ranges;
pub mod selection;
pub mod thinning;
pub mod version;
