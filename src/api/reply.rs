//! Replies as an HTTP body: one value, or every reply as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Sleep;

use super::message::Reply;
use super::routes::Format;
use super::server::Handling;
use super::types::{Refusal, RefusalText};

/// A stream that has nothing to say sends an empty line after this long, so that either side notices when the other
/// has gone.
const ALIVE_TIME: Duration = Duration::from_secs(20);

/// Why something was not done, as HTTP tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// One stable word.
    pub code: &'static str,
    /// What happened and what to do.
    pub text: String,
}

/// The replies of one request, in a format that shows each of them as it comes.
pub struct Stream {
    work: Option<Handling>,
    queued: mpsc::Receiver<Reply>,
    /// What goes out when nothing is left in the queue.
    last: Option<Reply>,
    format: Format,
    alive: Pin<Box<Sleep>>,
    /// Given back at the end.
    _room: Option<OwnedSemaphorePermit>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into() }
    }

    /// What this reply says went wrong, if it does.
    fn of(reply: &Reply) -> Option<Self> {
        match reply {
            Reply::Error { text } => Some(Self::new(StatusCode::CONFLICT, "refused", text.as_str())),
            Reply::Missing { text } => Some(Self::new(StatusCode::NOT_FOUND, "not_found", text.as_str())),
            Reply::Starting { text } => Some(Self::new(StatusCode::SERVICE_UNAVAILABLE, "starting", text.as_str())),
            _ => None,
        }
    }

    fn into_text(self) -> RefusalText {
        RefusalText { code: self.code.to_owned(), text: self.text }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status;
        body(status, &json!(Refusal { error: self.into_text() }))
    }
}

impl Stream {
    pub fn new(
        work: Handling,
        queued: mpsc::Receiver<Reply>,
        format: Format,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let alive = Box::pin(tokio::time::sleep(ALIVE_TIME));
        Self { work: Some(work), queued, last: None, format, alive, _room: room }
    }

    fn write(&self, reply: &Reply, is_last: bool) -> Vec<u8> {
        let (name, value) = parts(reply);
        match self.format {
            Format::Events => format!("event: {name}\ndata: {value}\n\n").into_bytes(),
            _ => format!("{}\n", json!({ "last": is_last, "reply": name, "value": value })).into_bytes(),
        }
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = |bytes: Vec<u8>| Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))));
        loop {
            if let Poll::Ready(Some(reply)) = self.queued.poll_recv(context) {
                self.alive.as_mut().reset(tokio::time::Instant::now() + ALIVE_TIME);
                return frame(self.write(&reply, false));
            }
            // The queue is empty.
            if let Some(last) = self.last.take() {
                return frame(self.write(&last, true));
            }
            let Some(work) = &mut self.work else { return Poll::Ready(None) };
            match work.as_mut().poll(context) {
                Poll::Ready(reply) => (self.last, self.work) = (Some(reply), None),
                Poll::Pending => break,
            }
        }
        if self.alive.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.alive.as_mut().reset(tokio::time::Instant::now() + ALIVE_TIME);
        frame(if self.format == Format::Events { b":\n\n".to_vec() } else { b"\n".to_vec() })
    }
}

/// Answers in one of the streaming formats.
pub fn stream(stream: Stream) -> Response {
    let kind = match stream.format {
        Format::Events => "text/event-stream",
        _ => "application/x-ndjson",
    };
    let mut response = Body::new(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The value of the last reply alone.
pub async fn single(mut work: Handling, mut queued: mpsc::Receiver<Reply>) -> Response {
    let reply = loop {
        tokio::select! {
            // Progress is told only to those who ask for every reply.
            Some(_) = queued.recv() => {}
            reply = &mut work => break reply,
        }
    };
    match Failure::of(&reply) {
        Some(failure) => failure.into_response(),
        None => body(StatusCode::OK, &parts(&reply).1),
    }
}

pub fn body(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, format!("{value}\n")).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The name of a reply, and what it says.
fn parts(reply: &Reply) -> (String, Value) {
    if let Some(failure) = Failure::of(reply) {
        return ("error".to_owned(), json!(failure.into_text()));
    }
    let Ok(Value::Object(mut fields)) = serde_json::to_value(reply) else { return Default::default() };
    let name = fields.remove("reply").and_then(|name| name.as_str().map(str::to_owned));
    (name.unwrap_or_default(), fields.remove("value").unwrap_or_default())
}
