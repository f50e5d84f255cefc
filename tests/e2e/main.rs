//! Real processes on real disks and sockets, seen only from outside: the `p2psync` command and the files in folders.

mod abuse;
mod api;
mod changes;
mod commands;
mod conflicts;
mod crash;
mod crash_new;
mod crash_pair;
mod crash_power;
mod first_sync;
mod harness;
mod interrupted;
mod manners;
mod moves;
mod names;
mod packaging;
mod pairing;
mod past;
mod readme;
mod receipts;
#[path = "../../examples/bench_sync/relay.rs"]
mod relay;
mod rules;
mod safety;
mod service;
mod several;
mod swarm;
mod terminal;
mod tree;
mod trouble;
mod trouble_busy;
mod trouble_index;
mod trouble_lesser;
mod trouble_mount;
mod trouble_permission;
mod trouble_space;
