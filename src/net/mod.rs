//! Sockets, TLS, discovery and frames: how devices find, trust and talk to each other. The protocol itself is
//! described in `docs/protocol.md`.
//!
//! Architecture invariant: nothing in here spawns a task or touches a synced folder. What comes from a peer leaves
//! this module as a value of `core` or of [`frame`], validated and bounded, or as an error.

pub mod announcement;
pub mod bounds;
pub mod bulk;
pub mod codec;
pub mod connection;
pub mod dial;
pub mod discovery;
pub mod error;
pub mod frame;
pub mod identity;
pub mod interfaces;
pub mod lane;
pub mod outbox;
pub mod pace;
pub mod pairing;
pub mod pairing_code;
pub mod pairing_link;
pub mod pairing_words;
pub mod probe;
mod room;
pub mod socket;
pub mod speed;
pub mod tls;
mod wire;
pub mod wire_chunks;
mod wire_entry;
mod wire_gift;
mod wire_past;

pub use error::NetError;

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes from the operating system; the one source of randomness in the program.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
