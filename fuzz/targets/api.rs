//! Requests to the agent, one JSON object each, and the paths in them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use p2psync::api::message::{Request, WirePath};

use super::memory;

const MEMORY_PER_BYTE_MAX: usize = 8;
const MEMORY_BYTES_MIN: usize = 16 * 1024;

pub fn run(data: &[u8]) {
    let (read, peak) = memory::peak(|| serde_json::from_slice::<Request>(data));
    assert!(peak <= MEMORY_BYTES_MIN + MEMORY_PER_BYTE_MAX * data.len(), "{peak} bytes of memory");
    if let Ok(request) = read {
        let written = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Request>(&written).expect("what was written can be read"), request);
    }
    let path = WirePath(OsStr::from_bytes(data).into());
    assert_eq!(WirePath::try_from(String::from(path.clone())), Ok(path), "a path of any bytes can be asked about");
    let _ = WirePath::try_from(String::from_utf8_lossy(data).into_owned());
}
