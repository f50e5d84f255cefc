//! Requests over HTTP to the [`Handler`], by the table in [`super::routes`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, State};
use axum::http::{self, HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::{Semaphore, mpsc};

use super::message::Reply;
use super::openapi;
use super::reply::{self, Failure, Stream};
use super::routes::{BODY_BYTES_MAX, DOCUMENT_PATH, Format, Method, ROUTES, Route};
use super::server::Handler;

/// Replies that wait for a slow reader.
const REPLIES_QUEUED_MAX: usize = 16;
/// Answers without an end that go on at the same time; more would leave no connection for other requests.
pub(super) const STREAMS_MAX: usize = 24;
/// Time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What answers are made with.
#[derive(Clone)]
struct Shared {
    handler: Arc<dyn Handler>,
    streams: Arc<Semaphore>,
}

/// All routes, answered by this handler.
pub fn router(handler: Arc<dyn Handler>) -> Router {
    let shared = Shared { handler, streams: Arc::new(Semaphore::new(STREAMS_MAX)) };
    let mut router = Router::new();
    for route in &ROUTES {
        router = router.route(route.path, answering(route));
    }
    router = router.route(DOCUMENT_PATH, get(async || reply::body(StatusCode::OK, openapi::document())));
    router.fallback(no_such_route).method_not_allowed_fallback(no_such_method).with_state(shared)
}

/// Refuses everything.
pub fn refusing(failure: Failure) -> Router {
    Router::new().fallback(async move || failure)
}

fn answering(route: &'static Route) -> MethodRouter<Shared> {
    let answer = async move |State(shared): State<Shared>, path: RawPathParams, request: http::Request<Body>| {
        answer(route, &shared, &path, request).await.unwrap_or_else(Failure::into_response)
    };
    match route.method {
        Method::Get => get(answer),
        Method::Post => post(answer),
    }
}

async fn answer(
    route: &Route,
    shared: &Shared,
    path: &RawPathParams,
    request: http::Request<Body>,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let too_long = || {
        let text = format!("the request is too long: {BODY_BYTES_MAX} bytes are the most");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", text)
    };
    let late = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "too_late", "the request did not arrive in time");
    let body = to_bytes(body, BODY_BYTES_MAX);
    let body = tokio::time::timeout(BODY_TIME, body).await.map_err(late)?.map_err(|_| too_long())?;
    let request = route
        .request(path.iter(), head.uri.query(), &body)
        .map_err(|text| Failure::new(StatusCode::BAD_REQUEST, "bad_request", text))?;
    let format = wanted(&head.headers).unwrap_or(route.format);
    let room = match route.format {
        Format::Json => None,
        _ => Some(Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| busy())?),
    };
    let (replies, queued) = mpsc::channel::<Reply>(REPLIES_QUEUED_MAX);
    let work = Arc::clone(&shared.handler).handle(request, replies);
    Ok(match format {
        Format::Json => reply::single(work, queued).await,
        _ => reply::stream(Stream::new(work, queued, format, room)),
    })
}

/// The streaming format that is asked for, if one is.
fn wanted(headers: &HeaderMap) -> Option<Format> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    if accept.contains("text/event-stream") {
        Some(Format::Events)
    } else if accept.contains("application/x-ndjson") {
        Some(Format::Lines)
    } else {
        None
    }
}

fn busy() -> Failure {
    let text = "too many streams are open already; close one and try again";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
}

async fn no_such_route() -> Failure {
    let text = "there is nothing at this address; GET /v1/openapi.json lists all there is";
    Failure::new(StatusCode::NOT_FOUND, "unknown_route", text)
}

async fn no_such_method() -> Failure {
    let text = "this address knows another method only; GET /v1/openapi.json lists all there is";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", text)
}
