//! The signed packet by which devices on one network find each other. It says nothing about folders or people.
//!
//! Layout: magic and version, the signature, then one MessagePack array. The signature covers magic, version and array.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, Bytes};

use super::identity::{Identity, verify};
use super::pairing_code::Nameplate;
use crate::core::id::DeviceId;

/// Largest packet that is sent or looked at.
pub const PACKET_BYTES_MAX: usize = 512;
/// Marks the packet as ours; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"p2psync\x01";
const SIGNATURE_BYTES: usize = 64;
/// Deepest nesting of MessagePack that is read.
const NESTING_MAX: usize = 8;

/// Where a device can be reached, and whether it is showing a pairing code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    pub device: DeviceId,
    /// The TCP port on which it listens, at the address from which the packet came.
    pub port: u16,
    /// Public part of the pairing code that it shows.
    pub pairing: Option<Nameplate>,
    /// Random, made at every start of the agent: tells a restart from a repetition.
    pub instance: u64,
}

#[derive(Serialize, Deserialize)]
struct WireAnnouncement<'a> {
    device: ByteArray<32>,
    port: u16,
    #[serde(borrow)]
    pairing: Option<&'a Bytes>,
    instance: u64,
}

impl Announcement {
    /// The signed packet. `identity` is that of the announced device.
    pub fn seal(&self, identity: &Identity) -> Vec<u8> {
        let pairing = self.pairing.as_ref().map(|plate| Bytes::new(plate.as_bytes()));
        let device = ByteArray::new(identity.device_id().0);
        let wire = WireAnnouncement { device, port: self.port, pairing, instance: self.instance };
        let body = rmp_serde::to_vec(&wire).expect("plain values can be encoded");
        let signature = identity.sign(&[&MAGIC[..], &body].concat());
        [&MAGIC[..], &signature, &body].concat()
    }

    /// The announcement in a packet, if it is one and its signature is right.
    pub fn open(packet: &[u8]) -> Option<Self> {
        if packet.len() > PACKET_BYTES_MAX {
            return None;
        }
        let (signature, body) = packet.strip_prefix(MAGIC)?.split_at_checked(SIGNATURE_BYTES)?;
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
        deserializer.set_max_depth(NESTING_MAX);
        // What follows the array is signed too, and left to later versions.
        let wire = WireAnnouncement::deserialize(&mut deserializer).ok()?;
        let device = DeviceId(wire.device.into_array());
        let pairing = match wire.pairing {
            Some(plate) => Some(Nameplate::from_bytes(plate)?),
            None => None,
        };
        let is_signed = wire.port != 0 && verify(&device, &[&MAGIC[..], body].concat(), signature);
        is_signed.then_some(Self { device, port: wire.port, pairing, instance: wire.instance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announcement(identity: &Identity) -> Announcement {
        let pairing = Nameplate::from_bytes(b"7K");
        Announcement { device: identity.device_id(), port: 7724, pairing, instance: 42 }
    }

    #[test]
    fn a_packet_reads_back_and_is_small() {
        let identity = Identity::generate();
        let packet = announcement(&identity).seal(&identity);
        assert!(packet.len() < 160, "{}", packet.len());
        assert_eq!(Announcement::open(&packet), Some(announcement(&identity)));
    }

    #[test]
    fn a_packet_with_one_changed_bit_is_dropped() {
        let identity = Identity::generate();
        let packet = announcement(&identity).seal(&identity);
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Announcement::open(&changed), None, "bit {bit}");
        }
        assert_eq!(Announcement::open(&packet[..packet.len() - 1]), None);
        assert_eq!(Announcement::open(&[&packet[..], &[0; 512]].concat()), None);
    }

    proptest! {
        #[test]
        fn arbitrary_packets_are_dropped(tail: Vec<u8>) {
            prop_assert_eq!(Announcement::open(&tail), None);
            prop_assert_eq!(Announcement::open(&[&MAGIC[..], &tail].concat()), None);
        }
    }
}
