//! The agent's side of the socket.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::browser::{self, Token};
use super::message::{Reply, Request};
use super::reply::Failure;
use super::router;
use crate::home::{Home, HomeError};

/// Commands served side by side; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a client to send the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Room for the head of a request in bytes: its address may hold a long path.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failed accept, which is for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where intermediate replies go while a request is handled.
pub type Replies = mpsc::Sender<Reply>;

/// A request that is being handled; it ends with the last reply.
pub type Handling = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Answers requests. The future is dropped where the client goes away, which cancels the request.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request and returns the last reply.
    fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Handling;
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("cannot open the control socket {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Where connections come from.
enum Door {
    Socket(UnixListener),
    Port(TcpListener),
}

/// A connection, wherever it came from.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Opens the socket of this home in place of one left behind. The caller holds the home's lock, so nobody uses that.
pub fn bind(home: &Home) -> Result<UnixListener, BindError> {
    home.create_socket_dir()?;
    let path = home.socket();
    let open = || {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    open().map_err(|source| BindError::Io { path: path.clone(), source })
}

/// Serves requests until dropped, which ends all connections.
pub async fn serve(listener: UnixListener, handler: Arc<dyn Handler>) {
    accept(Door::Socket(listener), router::router(handler)).await;
}

/// The same at a port of this machine, for those who have the token.
pub async fn serve_browser(listener: TcpListener, handler: Arc<dyn Handler>, token: Token) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let router = browser::guarded(router::router(handler), token, port);
    accept(Door::Port(listener), router).await;
}

async fn accept(door: Door, all: Router) {
    let mut connections = JoinSet::new();
    let nothing = router::refusing(Failure::new(
        StatusCode::FORBIDDEN,
        "not_allowed",
        "this agent belongs to another user; only its owner can give it orders",
    ));
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = door.accept() => match accepted {
                Ok((stream, is_allowed)) => {
                    let router = if is_allowed { &all } else { &nothing };
                    connections.spawn(converse(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection from a command");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Door {
    /// The next connection, and whether it is let in.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, bool)> {
        match self {
            Self::Socket(listener) => {
                let (stream, _) = listener.accept().await?;
                let is_allowed = is_allowed(user(&stream), rustix::process::getuid().as_raw());
                Ok((Box::new(stream), is_allowed))
            }
            // Here the token decides, request by request.
            Self::Port(listener) => Ok((Box::new(listener.accept().await?.0), true)),
        }
    }
}

/// One connection with one request: then no connection is kept from others by a client that is done with it.
async fn converse(stream: Box<dyn Stream>, router: Router) {
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of a command ended early");
    }
}

/// Whose process is at the other end, where the system says so.
fn user(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|credentials| credentials.uid())
}

/// True for the agent's own user and for root, which may do everything anyway. The mode of the socket says the same;
/// this is for where the socket was opened to others by mistake.
fn is_allowed(user: Option<u32>, own: u32) -> bool {
    user.is_some_and(|user| user == own || user == 0)
}

#[cfg(test)]
mod tests {
    use super::super::router::STREAMS_MAX;
    use super::super::routes::BODY_BYTES_MAX;
    use super::super::testing::{Running, raw};
    use super::*;
    use crate::api::client::{self, ClientError};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    /// Echoes, reports on the way, or waits until it is cancelled.
    #[derive(Default)]
    struct Echo {
        waits: AtomicBool,
        cancelled: AtomicBool,
    }

    struct SetOnDrop(Arc<Echo>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.cancelled.store(true, Ordering::SeqCst);
        }
    }

    impl Handler for Echo {
        fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Handling {
            Box::pin(async move {
                match request {
                    Request::PairShow => {
                        let _guard = SetOnDrop(Arc::clone(&self));
                        let code = Reply::PairCode {
                            code: "AB".into(),
                            valid_seconds: 300,
                            words: "a-b".into(),
                            link: String::new(),
                        };
                        replies.send(code).await.unwrap();
                        self.waits.store(true, Ordering::SeqCst);
                        std::future::pending().await
                    }
                    Request::Events { count } => {
                        for n in 0..count {
                            replies.send(Reply::Progress { text: n.to_string() }).await.unwrap();
                        }
                        Reply::Events(Vec::new())
                    }
                    Request::Confirm { folder } => Reply::Error { text: format!("nothing is held in {folder}") },
                    other => Reply::Done { text: format!("{other:?}") },
                }
            })
        }
    }

    fn wait_for(flag: &AtomicBool) {
        let start = Instant::now();
        while !flag.load(Ordering::SeqCst) {
            assert!(start.elapsed() < Duration::from_secs(20), "waited too long");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_request_is_answered_and_a_refusal_is_an_error() {
        let server = Running::start(Echo::default());
        let request = Request::Rescan { folder: Some("x".into()) };
        assert_eq!(server.ask(&request).unwrap(), Reply::Done { text: format!("{request:?}") });
        match server.ask(&Request::Confirm { folder: "x".into() }) {
            Err(ClientError::Refused(text)) => assert_eq!(text, "nothing is held in x"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_on_the_way_arrive_in_order_before_the_last() {
        let server = Running::start(Echo::default());
        let mut seen = Vec::new();
        let last = client::converse(&server.home, &Request::Events { count: 50 }, None, |reply| match reply {
            Reply::Progress { text } => seen.push(text),
            other => panic!("{other:?}"),
        });
        assert_eq!(last.unwrap(), Reply::Events(Vec::new()));
        assert_eq!(seen, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_client_that_goes_away_cancels_its_request() {
        let server = Running::start(Echo::default());
        let text = server.raw(b"POST /v1/pairing HTTP/1.1\r\nhost: x\r\n\r\n", "AB");
        assert!(
            text.contains(r#"{"last":false,"reply":"pair_code","value":{"code":"AB","link":"","valid_seconds":300,"words":"a-b"}}"#),
            "{text}"
        );
        wait_for(&server.handler.waits);
        wait_for(&server.handler.cancelled);
    }

    #[test]
    fn nonsense_and_endless_requests_are_refused() {
        let server = Running::start(Echo::default());
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        for (method, target, body, status, code) in [
            ("GET", "/", "", 404, "unknown_route"),
            ("GET", "/v1/fly", "", 404, "unknown_route"),
            ("GET", "/v1/stop", "", 405, "wrong_method"),
            ("POST", "/v1/status", "", 405, "wrong_method"),
            ("POST", "/v1/pairing/join", "{", 400, "bad_request"),
            ("POST", "/v1/pairing/join", "[]", 400, "bad_request"),
            ("POST", "/v1/pairing/join", "{}", 400, "bad_request"),
            ("POST", "/v1/pairing/join", r#"{"code":"a","more":1}"#, 400, "bad_request"),
            ("POST", "/v1/pairing/join", r#"{"code":"a","request":"stop"}"#, 400, "bad_request"),
            ("POST", "/v1/folders/x/rescan", r#"{"folder":"y"}"#, 400, "bad_request"),
            ("GET", "/v1/events?count=many", "", 400, "bad_request"),
            ("GET", "/v1/events?number=5", "", 400, "bad_request"),
            ("GET", "/v1/items?path=%zz", "", 400, "bad_request"),
            ("GET", "/v1/items", "", 400, "bad_request"),
            ("POST", "/v1/pairing/join", &long, 413, "too_long"),
            ("POST", "/v1/folders/x/confirm-changes", "", 409, "refused"),
        ] {
            let (found, answer) = server.http(method, target, body);
            let error: serde_json::Value =
                serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{target} {answer}"));
            assert_eq!((found, error["error"]["code"].as_str()), (status, Some(code)), "{method} {target} {answer}");
            assert!(error["error"]["text"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        }
        for bytes in [&b"\xff\n\n"[..], b"{\"request\":\"status\"}\n\r\n"] {
            let answer = server.raw(bytes, "");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        assert!(server.raw(&vec![b'x'; 2 * HEAD_BYTES_MAX], "").starts_with("HTTP/1.1 4"));
    }

    #[test]
    fn only_the_owner_and_root_are_served() {
        for (user, own, allowed) in
            [(Some(7), 7, true), (Some(0), 7, true), (Some(8), 7, false), (Some(7), 0, false), (None, 7, false)]
        {
            assert_eq!(is_allowed(user, own), allowed, "{user:?} at an agent of {own}");
        }
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let own = rustix::process::getuid().as_raw();
        assert_eq!(user(&UnixStream::from_std(one).unwrap()), Some(own));
    }

    #[test]
    fn streams_without_an_end_leave_room_for_other_requests() {
        let server = Running::start(Echo::default());
        let open = || {
            let stream = std::os::unix::net::UnixStream::connect(server.home.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert!(raw(&stream, b"POST /v1/pairing HTTP/1.1\r\nhost: x\r\n\r\n", "AB").contains(" 200 "));
            stream
        };
        let _streams: Vec<_> = (0..STREAMS_MAX).map(|_| open()).collect();
        let (status, answer) = server.http("POST", "/v1/pairing", "");
        assert!(status == 503 && answer.contains("busy"), "{status} {answer}");
        server.ask(&Request::Reload).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_request_is_let_go() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for (sent, answered) in [
            ("", ""),
            ("GET /v1/status HTTP/1.1\r\nhost:", ""),
            ("POST /v1/pairing/join HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", "too_late"),
        ] {
            let (mut client, stream) = UnixStream::pair().unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let router = router::router(Arc::new(Echo::default()));
            tokio::time::timeout(3 * HEAD_TIME, converse(Box::new(stream), router)).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(answered) && answer.is_empty() == answered.is_empty(), "{sent:?}: {answer}");
        }
    }

    #[test]
    fn more_clients_than_are_served_at_once_all_get_answers() {
        let server = Running::start(Echo::default());
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS_MAX + 8 {
                scope.spawn(|| server.ask(&Request::Reload).unwrap());
            }
        });
    }

    #[test]
    fn the_socket_is_for_its_owner_alone_and_an_old_one_is_replaced() {
        let server = Running::start(Echo::default());
        let mode = fs::metadata(server.home.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let home = server.home.clone();
        let _inside = server.runtime.as_ref().unwrap().enter();
        bind(&home).unwrap();
    }

    #[test]
    fn no_agent_is_told_apart_from_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path(), dir.path().to_owned());
        let ask = || client::ask(&home, &Request::Status, Duration::from_secs(5));
        assert!(matches!(ask(), Err(ClientError::NotRunning)));
        // A socket left behind by an agent that was killed.
        drop(std::os::unix::net::UnixListener::bind(home.socket()).unwrap());
        assert!(matches!(ask(), Err(ClientError::NotRunning)));
    }
}
