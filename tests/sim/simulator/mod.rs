//! The simulator: many devices in one thread, on disks and a network in memory, with virtual time, from one seed.
//!
//! What runs is the agent's own code: the folder state machine, the index (SQLite, in memory), the scans, hints,
//! applying, recovery and history of `engine` and `fs`, on a disk that models what a page cache may lose. Only threads,
//! sockets and the order of chunk requests are not the real ones.
//!
//! | file | is about |
//! | --- | --- |
//! | `plan` | what happens in a run, made from its seed; cutting a failing one short |
//! | `aimed` | runs that are about one kind of trouble each |
//! | `user` | what users do on their disks |
//! | `ledger` | what users wrote and gave up: what has to be there in the end |
//! | `disk` | a disk with a page cache, faults and users that come in between |
//! | `network` | frames on their way |
//! | `fetching` | contents on their way from device to device, one part at a time |
//! | `device` | an agent on its disk |
//! | `world` | devices, time, and one step after the other |
//! | `power` | what a power cut may take, and what it may not |
//! | `judge` | the promises, checked all the time and in the end |
//! | `run` | one run from its seed, twice the same |

pub mod aimed;
pub mod device;
pub mod disk;
pub mod fetching;
pub mod film;
pub mod judge;
pub mod ledger;
pub mod network;
pub mod plan;
pub mod power;
pub mod random;
pub mod run;
pub mod user;
pub mod world;
