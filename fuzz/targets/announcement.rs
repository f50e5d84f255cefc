//! Discovery packets: as they come, and signed as a hostile device could sign them.
//!
//! Layout: a byte that says which, then the packet or the array in it. Where the array begins as one of ours does, the
//! device in it becomes the one that signs.

use std::sync::LazyLock;

use p2psync::net::announcement::{Announcement, PACKET_BYTES_MAX};
use p2psync::net::identity::Identity;

use super::memory;

const MAGIC: &[u8; 8] = b"p2psync\x01";
/// A packet is small, and so is what it says.
const MEMORY_BYTES_MAX: usize = 16 * 1024;
/// An array of four that begins with 32 bytes.
const BEGIN: [u8; 3] = [0x94, 0xc4, 32];

static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::generate);

pub fn run(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    if which & 1 == 0 {
        assert_eq!(open(rest), None, "a packet that nobody signed");
        assert_eq!(open(&[&MAGIC[..], rest].concat()), None, "a packet that nobody signed");
        return;
    }
    let mut body = rest.to_vec();
    if body.starts_with(&BEGIN)
        && let Some(device) = body.get_mut(BEGIN.len()..BEGIN.len() + 32)
    {
        device.copy_from_slice(&IDENTITY.device_id().0);
    }
    let signature = IDENTITY.sign(&[&MAGIC[..], &body].concat());
    let packet = [&MAGIC[..], &signature, &body].concat();
    let Some(announcement) = open(&packet) else { return };
    assert!(packet.len() <= PACKET_BYTES_MAX);
    assert_eq!(announcement.device, IDENTITY.device_id(), "one device has signed for another");
    assert_ne!(announcement.port, 0);
    let sealed = announcement.seal(&IDENTITY);
    assert_eq!(open(&sealed), Some(announcement));
}

fn open(packet: &[u8]) -> Option<Announcement> {
    let (opened, peak) = memory::peak(|| Announcement::open(packet));
    assert!(peak <= MEMORY_BYTES_MAX, "{peak} bytes of memory for a packet of {}", packet.len());
    opened
}
