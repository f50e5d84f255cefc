//! Why a connection did not come about, or ended.

use std::io;
use std::net::SocketAddr;

use super::codec::CodecError;
use crate::core::id::DeviceId;

/// Trouble with a connection to one peer, or with a socket of our own.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot listen on {address}: port {} is in use by another program; set 'listen' in config.toml to another port", address.port())]
    PortInUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("cannot open a socket for discovery on UDP port {port}")]
    Discovery { port: u16, source: io::Error },
    #[error("no answer within {seconds} s while {what}")]
    TimedOut { what: &'static str, seconds: u64 },
    /// The id is what the other side claimed; it may not have proved it.
    #[error("device {0} is not paired with this one")]
    UnknownDevice(DeviceId),
    #[error("expected device {expected}, but {found} answered")]
    OtherDevice { expected: DeviceId, found: DeviceId },
    #[error("this device has connected to itself")]
    Itself,
    #[error("the other device does not know this one: pair them, or add this device there")]
    NotTrusted,
    #[error("the other device is not pairing at the moment")]
    NotPairing,
    #[error("the other side does not speak this protocol: {0}")]
    Handshake(String),
    #[error("the peer broke the protocol")]
    Codec(#[from] CodecError),
    #[error("the peer takes in messages too slowly")]
    TooSlow,
    #[error("the connection is closed")]
    Closed,
    #[error("the connection broke")]
    Broken(#[source] io::Error),
}
