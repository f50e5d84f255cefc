//! What commands and browsers send to the agent: the query, the body or the name in the path of a request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use p2psync::api::message::WirePath;
use p2psync::api::routes::{Call, Method, ROUTES};

use super::memory;

/// A JSON value is read as a tree before it is read as a request.
const MEMORY_PER_BYTE_MAX: usize = 128;
const MEMORY_BYTES_MIN: usize = 32 * 1024;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for route in &ROUTES {
        let names = route.path_fields().map(|name| (name, &*text));
        let (query, body) = match route.method {
            Method::Get => (Some(&*text), &b""[..]),
            Method::Post => (None, data),
        };
        let (read, peak) = memory::peak(|| route.request(names, query, body));
        assert!(peak <= MEMORY_BYTES_MIN + MEMORY_PER_BYTE_MAX * data.len(), "{peak} bytes of memory");
        // An address with nothing in the place of a name is another address.
        let Some(request) = read.ok().filter(|_| !text.is_empty()) else { continue };
        let call = Call::of(&request).expect("what was heard can be asked");
        assert!(call.target.bytes().all(|byte| byte.is_ascii_graphic()), "{}", call.target);
        let written = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(serde_json::from_slice(&written).ok(), Some(request), "what was written can be read");
        let (path, query) =
            call.target.split_once('?').map_or((&*call.target, None), |(path, query)| (path, Some(query)));
        if path == route.path {
            let again = route.request(std::iter::empty(), query, &call.body).expect("what was sent can be heard");
            assert_eq!(serde_json::to_vec(&again).ok(), Some(written), "what is heard is what was sent");
        }
    }
    let path = WirePath(OsStr::from_bytes(data).into());
    assert_eq!(WirePath::try_from(String::from(path.clone())), Ok(path), "a path of any bytes can be asked about");
    let _ = WirePath::try_from(text.into_owned());
}
