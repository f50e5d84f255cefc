//! The agent's side of the socket.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::message::{Answer, REQUEST_BYTES_MAX, Reply, Request};
use crate::home::{Home, HomeError};

/// Commands served side by side; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 32;
/// Intermediate replies that wait for a slow reader.
const REPLIES_QUEUED_MAX: usize = 16;
/// Time for a client to send its request and to take each reply.
const CLIENT_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where intermediate replies go while a request is handled.
pub type Replies = mpsc::Sender<Reply>;

/// Answers requests. The future is dropped where the client goes away, which cancels the request.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request and returns the last reply.
    fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Pin<Box<dyn Future<Output = Reply> + Send>>;
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("cannot open the control socket {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

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
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, Arc::clone(&handler)))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection: a request, and replies until the last.
async fn converse(stream: UnixStream, handler: Arc<dyn Handler>) {
    let (read_half, mut writer) = stream.into_split();
    let mut reader = BufReader::new(read_half);
    let request = match tokio::time::timeout(CLIENT_TIME, read_request(&mut reader)).await {
        Ok(Ok(Some(request))) => request,
        Ok(Err(text)) => return drop(send(&mut writer, Reply::Error { text }, true).await),
        // Gone, or silent.
        Ok(Ok(None)) | Err(_) => return,
    };
    let (replies, mut queued) = mpsc::channel(REPLIES_QUEUED_MAX);
    let mut work = handler.handle(request, replies);
    let mut gone = [0u8; 1];
    loop {
        tokio::select! {
            biased;
            Some(reply) = queued.recv() => {
                if send(&mut writer, reply, false).await.is_err() {
                    return;
                }
            }
            reply = &mut work => {
                // What was queued before the last reply goes out before it.
                while let Ok(earlier) = queued.try_recv() {
                    if send(&mut writer, earlier, false).await.is_err() {
                        return;
                    }
                }
                return drop(send(&mut writer, reply, true).await);
            }
            read = reader.read(&mut gone) => match read {
                // Nothing more is expected of a client, so this is its end.
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
        }
    }
}

/// The request, `None` where the client went away first, or what is wrong with it.
async fn read_request(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    let read = reader.take(REQUEST_BYTES_MAX as u64).read_until(b'\n', &mut line).await;
    match read {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) if !line.ends_with(b"\n") && line.len() == REQUEST_BYTES_MAX => Err("the request is too long".to_owned()),
        Ok(_) if !line.ends_with(b"\n") => Ok(None),
        Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|e| {
            format!("the agent does not know this request ({e}); it may be of another version: restart it")
        }),
    }
}

async fn send(writer: &mut OwnedWriteHalf, reply: Reply, last: bool) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Answer { last, reply })?;
    line.push(b'\n');
    match tokio::time::timeout(CLIENT_TIME, writer.write_all(&line)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::{self, ClientError};
    use std::io::{BufRead, Write};
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
        fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
            Box::pin(async move {
                match request {
                    Request::PairShow => {
                        let _guard = SetOnDrop(Arc::clone(&self));
                        let code = Reply::PairCode { code: "AB".into(), valid_seconds: 300 };
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

    /// A server on a runtime of its own, as long as the test.
    struct Running {
        _dir: tempfile::TempDir,
        home: Home,
        handler: Arc<Echo>,
        runtime: Option<tokio::runtime::Runtime>,
    }

    impl Running {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::at(dir.path(), dir.path().to_owned());
            let handler = Arc::new(Echo::default());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let listener = {
                let _inside = runtime.enter();
                bind(&home).unwrap()
            };
            runtime.spawn(serve(listener, Arc::clone(&handler) as Arc<dyn Handler>));
            Self { _dir: dir, home, handler, runtime: Some(runtime) }
        }

        fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
            client::ask(&self.home, request, Duration::from_secs(20))
        }

        /// Sends raw bytes and returns the first line that comes back.
        fn raw(&self, bytes: &[u8]) -> String {
            let mut stream = std::os::unix::net::UnixStream::connect(self.home.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // The agent may stop reading before the end.
            let _ = stream.write_all(bytes);
            let mut line = String::new();
            let _ = std::io::BufReader::new(stream).read_line(&mut line);
            line
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.runtime.take().unwrap().shutdown_background();
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
        let server = Running::start();
        let request = Request::Rescan { folder: Some("x".into()) };
        assert_eq!(server.ask(&request).unwrap(), Reply::Done { text: format!("{request:?}") });
        match server.ask(&Request::Confirm { folder: "x".into() }) {
            Err(ClientError::Refused(text)) => assert_eq!(text, "nothing is held in x"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_on_the_way_arrive_in_order_before_the_last() {
        let server = Running::start();
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
        let server = Running::start();
        let line = server.raw(b"{\"request\":\"pair_show\"}\n");
        assert!(line.contains("\"last\":false") && line.contains("AB"), "{line}");
        wait_for(&server.handler.waits);
        wait_for(&server.handler.cancelled);
    }

    #[test]
    fn nonsense_and_endless_requests_are_refused() {
        let server = Running::start();
        for bytes in [&b"{\"request\":\"fly\"}\n"[..], b"\xff\n", b"[[[[\n"] {
            assert!(server.raw(bytes).contains("does not know this request"), "{bytes:?}");
        }
        assert!(server.raw(&vec![b'x'; REQUEST_BYTES_MAX]).contains("too long"));
    }

    #[test]
    fn more_clients_than_are_served_at_once_all_get_answers() {
        let server = Running::start();
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS_MAX + 8 {
                scope.spawn(|| server.ask(&Request::Reload).unwrap());
            }
        });
    }

    #[test]
    fn the_socket_is_for_its_owner_alone_and_an_old_one_is_replaced() {
        let server = Running::start();
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
