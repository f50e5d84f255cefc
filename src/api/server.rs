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
