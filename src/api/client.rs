//! The command's side of the socket: blocking, with time limits.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::message::{Answer, REPLY_BYTES_MAX, Reply, Request};
use crate::home::Home;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("p2psync is not running; start it with 'p2psync run'")]
    NotRunning,
    #[error("the agent has not answered in time; it may be very busy: try again, or look at its log")]
    TimedOut,
    #[error("cannot talk to the agent through {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the agent's answer makes no sense ({0}); it may be of another version: restart it")]
    Garbled(String),
    #[error("{0}")]
    Refused(String),
}

/// Asks one thing and returns the last reply; a reply that says "error" is an error.
pub fn ask(home: &Home, request: &Request, time: Duration) -> Result<Reply, ClientError> {
    converse(home, request, Some(time), |_| {})
}

/// Asks one thing, hands on the replies on the way, and returns the last. Without a time it waits for ever.
pub fn converse(
    home: &Home,
    request: &Request,
    time: Option<Duration>,
    mut on_reply: impl FnMut(Reply),
) -> Result<Reply, ClientError> {
    let path = home.socket_in_use();
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut,
        _ => ClientError::Io { path: path.clone(), source },
    };
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            ClientError::NotRunning
        }
        _ => fail(source),
    })?;
    stream.set_read_timeout(time).and_then(|()| stream.set_write_timeout(time)).map_err(fail)?;
    let mut line = serde_json::to_vec(request).map_err(|e| fail(e.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(fail)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut reader).take(REPLY_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(fail)?;
        if line.is_empty() {
            return Err(fail(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent has stopped")));
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(|e| ClientError::Garbled(e.to_string()))?;
        match answer {
            Answer { last: true, reply: Reply::Error { text } } => return Err(ClientError::Refused(text)),
            Answer { last: true, reply } => return Ok(reply),
            Answer { last: false, reply } => on_reply(reply),
        }
    }
}
