//! A server for tests, and the plainest of clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::client::{self, ClientError};
use super::message::{Reply, Request};
use super::server::{Handler, bind, serve};
use crate::home::Home;

/// Longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a runtime of its own, as long as the test.
pub struct Running<H> {
    _dir: tempfile::TempDir,
    pub home: Home,
    pub handler: Arc<H>,
    pub runtime: Option<tokio::runtime::Runtime>,
}

impl<H: Handler> Running<H> {
    pub fn start(handler: H) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path(), dir.path().to_owned());
        let handler = Arc::new(handler);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            bind(&home).unwrap()
        };
        runtime.spawn(serve(listener, Arc::clone(&handler) as Arc<dyn Handler>));
        Self { _dir: dir, home, handler, runtime: Some(runtime) }
    }

    pub fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        client::ask(&self.home, request, PATIENCE)
    }

    /// Sends raw bytes and returns all that comes back, up to the text given.
    pub fn raw(&self, bytes: &[u8], until: &str) -> String {
        let stream = UnixStream::connect(self.home.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        raw(stream, bytes, until)
    }

    /// The status and the body of one request, the body of which is given.
    pub fn http(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = self.raw(request.as_bytes(), "");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{target}: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if is_chunked { unchunked(body) } else { body.to_owned() })
    }
}

impl<H> Drop for Running<H> {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Sends raw bytes and returns all that comes back, up to the text given.
pub fn raw(mut stream: impl Read + Write, bytes: &[u8], until: &str) -> String {
    // The agent may stop reading before the end.
    let _ = stream.write_all(bytes);
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while until.is_empty() || !text.contains(until) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    whole
}
