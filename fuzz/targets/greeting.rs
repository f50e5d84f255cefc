//! What a device tells of itself at the end of pairing.

use p2psync::core::id::DeviceId;
use p2psync::net::pairing::{Greeting, read_greeting, write_greeting};

use super::{check, memory};

/// Folders and their labels take more room than on the wire.
const MEMORY_BYTES_MIN: usize = 64 * 1024;
const MEMORY_PER_BYTE_MAX: usize = 8;
const DEVICE: DeviceId = DeviceId([7; 32]);

pub fn run(data: &[u8]) {
    let (read, peak) = memory::peak(|| read_greeting(DEVICE, data));
    assert!(peak <= MEMORY_BYTES_MIN + MEMORY_PER_BYTE_MAX * data.len(), "{peak} bytes of memory");
    let paired = match read {
        Ok(paired) => paired,
        Err(error) => return check::error_chain(&error),
    };
    assert_eq!(paired.device, DEVICE);
    check::introduction(&paired.name, &paired.folders);
    let greeting = Greeting { name: paired.name.clone(), folders: paired.folders.clone() };
    let written = write_greeting(&greeting).expect("what was read can be written");
    assert_eq!(read_greeting(DEVICE, &written).expect("what was written can be read"), paired);
}
