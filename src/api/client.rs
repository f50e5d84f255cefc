//! The command's side of the socket: blocking, with time limits.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request as HttpRequest, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::message::{Answer, REPLY_BYTES_MAX, Reply, Request};
use super::routes::{Call, Method};
use super::types::Refusal;
use crate::home::Home;

/// Longest error in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

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

/// The socket, and how long each reply may take.
struct Line<'a> {
    path: &'a Path,
    time: Option<Duration>,
}

/// Asks one thing and returns the last reply; a reply that says "error" is an error.
pub fn ask(home: &Home, request: &Request, time: Duration) -> Result<Reply, ClientError> {
    converse(home, request, Some(time), |_| {})
}

/// Asks one thing, hands on the replies on the way, and returns the last. Each reply may take as long as `time`;
/// without a time it waits for ever.
pub fn converse(
    home: &Home,
    request: &Request,
    time: Option<Duration>,
    on_reply: impl FnMut(Reply),
) -> Result<Reply, ClientError> {
    let path = home.socket_in_use();
    let line = Line { path: &path, time };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| line.failed(source))?;
    runtime.block_on(line.converse(request, on_reply))
}

impl Line<'_> {
    async fn converse(&self, request: &Request, on_reply: impl FnMut(Reply)) -> Result<Reply, ClientError> {
        let stream = UnixStream::connect(self.path).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ClientError::NotRunning
            }
            _ => self.failed(source),
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let asked = async {
            let response = self.in_time(sender.send_request(http_request(request)?)).await?;
            let response = response.map_err(|error| self.broken(error))?;
            self.read(response, on_reply).await
        };
        tokio::pin!(asked, connection);
        tokio::select! {
            answer = &mut asked => answer,
            // What has arrived before the end is read all the same.
            _ = &mut connection => asked.await,
        }
    }

    /// Replies up to the last.
    async fn read(
        &self,
        mut response: Response<Incoming>,
        mut on_reply: impl FnMut(Reply),
    ) -> Result<Reply, ClientError> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let mut waiting = Vec::new();
        loop {
            let frame = self.in_time(response.frame()).await?;
            let frame = frame.transpose().map_err(|error| self.broken(error))?;
            let Some(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                return Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent has stopped")));
            };
            let searched = waiting.len();
            waiting.extend_from_slice(&data);
            if waiting.len() > REPLY_BYTES_MAX {
                return Err(ClientError::Garbled("it is too long".to_owned()));
            }
            let Some(end) = waiting[searched..].iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = waiting.split_off(searched + end + 1);
            for line in std::mem::replace(&mut waiting, rest).split(|byte| *byte == b'\n') {
                // An empty line says only that the agent is alive.
                if line.is_empty() {
                    continue;
                }
                let answer = serde_json::from_slice(line).map_err(|e| ClientError::Garbled(e.to_string()))?;
                match answer {
                    Answer { last: true, reply: Reply::Error { text } } => return Err(ClientError::Refused(text)),
                    Answer { last: true, reply } => return Ok(reply),
                    Answer { last: false, reply } => on_reply(reply),
                }
            }
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let body = match self.in_time(Limited::new(response.into_body(), ERROR_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => Bytes::new(),
            Err(error) => return error,
        };
        match serde_json::from_slice::<Refusal>(&body) {
            // It is the very route that it lacks, or the very fields.
            Ok(refusal) if matches!(refusal.error.code.as_str(), "bad_request" | "unknown_route" | "wrong_method") => {
                ClientError::Garbled(refusal.error.text)
            }
            Ok(refusal) => ClientError::Refused(refusal.error.text),
            Err(_) => ClientError::Garbled(status.to_string()),
        }
    }

    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, ClientError> {
        match self.time {
            Some(time) => tokio::time::timeout(time, wait).await.map_err(|_| ClientError::TimedOut),
            None => Ok(wait.await),
        }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Io { path: self.path.to_owned(), source }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        if error.is_parse() {
            return ClientError::Garbled(error.to_string());
        }
        self.failed(io::Error::other(if error.is_user() { error.to_string() } else { "the agent has stopped".into() }))
    }
}

fn http_request(request: &Request) -> Result<HttpRequest<Full<Bytes>>, ClientError> {
    let call = Call::of(request).ok_or_else(|| ClientError::Garbled("there is no way to ask this".to_owned()))?;
    let method = match call.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    HttpRequest::builder()
        .method(method)
        .uri(call.target)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/x-ndjson")
        .body(Full::new(Bytes::from(call.body)))
        .map_err(|error| ClientError::Garbled(error.to_string()))
}
