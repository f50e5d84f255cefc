//! Many devices in one thread: the real folder state machine and the real index (in memory) on in-memory disks and
//! queues, driven by a seed. The same seed gives the same run.

mod device;
mod disk;
mod random;
mod scenarios;
mod world;
