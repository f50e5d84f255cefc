//! One function per parser of bytes from outside: it takes arbitrary bytes and asserts what has to hold for all.
//!
//! The fuzzer's programs and `tests/fuzz` include this module, so that what is fuzzed is also tested with every
//! change. A target panics where a promise is broken, and says which.
#![allow(dead_code, reason = "each of the fuzzer's programs uses one target")]

pub mod announcement;
pub mod api;
pub mod check;
pub mod code;
pub mod config;
pub mod draw;
pub mod frame;
pub mod greeting;
pub mod ignore;
pub mod list;
pub mod memory;
pub mod pairing;
pub mod path;
pub mod row;
pub mod slot;
pub mod stream;
pub mod value;

/// A target.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const ALL: [(&str, Run); 14] = [
    ("announcement", announcement::run),
    ("api", api::run),
    ("code", code::run),
    ("config", config::run),
    ("frame", frame::run),
    ("greeting", greeting::run),
    ("ignore", ignore::run),
    ("list", list::run),
    ("pairing", pairing::run),
    ("path", path::run),
    ("row", row::run),
    ("slot", slot::run),
    ("stream", stream::run),
    ("value", value::run),
];
