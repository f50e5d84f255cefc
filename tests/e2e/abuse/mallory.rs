//! A paired device that does not keep the rules, made of the program's own network layer.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use p2psync::core::content::{ChunkList, Content};
use p2psync::core::entry::{Entry, Kind};
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::message::{Ack, Announced, Batch, Cursor, Hello, Message};
use p2psync::core::path::RelPath;
use p2psync::core::version::VersionVector;
use p2psync::net::codec::encode;
use p2psync::net::connection::FrameReader;
use p2psync::net::frame::{Chunks, DeviceHello, Frame, Request};
use p2psync::net::identity::Identity;
use p2psync::net::lane::{self, LaneKey};
use p2psync::net::tls::{self, Tls};
use p2psync::net::{NetError, random_bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::harness::{Agent, FOLDER, wait_until};

/// Source address of most attacks: not the one of honest devices in the same test.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
/// Name by which the victim knows the attacker.
pub const NAME: &str = "mallory";

/// The attacker.
pub struct Mallory {
    pub runtime: Runtime,
    pub identity: Identity,
    pub tls: Arc<Tls>,
    pub epoch: EpochId,
    seq: AtomicU64,
}

/// What the attacker answers to requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// With what is in its store, as an honest device does.
    Serves,
    /// With other bytes of the same length.
    Lies,
    Silent,
    NotHere,
}

/// One connection of the attacker to a victim.
pub struct Link {
    out: mpsc::UnboundedSender<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

/// What came over a link.
#[derive(Default)]
pub struct Seen {
    pub folders: Vec<FolderId>,
    pub hellos: BTreeMap<FolderId, Hello>,
    pub entries: BTreeMap<(FolderId, RelPath), Announced>,
    pub chunks: HashMap<(u32, u16), Bytes>,
    pub not_here: HashMap<u32, usize>,
    pub requests: usize,
    pub pongs: u64,
    /// By which lanes join the link.
    pub lane_key: Option<LaneKey>,
    /// The reason, once the link is over.
    pub over: Option<String>,
    store: HashMap<Content, Bytes>,
    manner: Option<Manner>,
}

impl Mallory {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity::generate();
        let tls = Arc::new(Tls::new(&identity, Arc::new(|_| true)).unwrap());
        let epoch = EpochId(u64::from_be_bytes(random_bytes()));
        Self { runtime, identity, tls, epoch, seq: AtomicU64::new(0) }
    }

    /// Pairs with a device that is not running yet.
    pub fn pair_with(&self, agent: &Agent) {
        agent.ok(&["peer", "add", &self.identity.device_id().to_string(), "--name", NAME]);
    }

    /// A connection that has passed the handshake and said nothing yet.
    pub fn raw(&self, agent: &Agent) -> Result<tls::Secured, NetError> {
        let victim: DeviceId = agent.id().parse().unwrap();
        let address: SocketAddr = agent.listen.parse().unwrap();
        self.runtime.block_on(async {
            let stream = from(ELSEWHERE, address).await.unwrap();
            tls::connect(stream, Some(victim), &self.tls).await
        })
    }

    /// A further connection that has joined a link by this key.
    pub fn lane(&self, agent: &Agent, key: LaneKey) -> Result<tls::Secured, NetError> {
        let victim: DeviceId = agent.id().parse().unwrap();
        let address: SocketAddr = agent.listen.parse().unwrap();
        self.runtime.block_on(async {
            let mut secured = tls::connect_lane(from(ELSEWHERE, address).await.unwrap(), victim, &self.tls).await?;
            lane::join(&mut secured.stream, key).await.map(|()| secured)
        })
    }

    /// A connection that has said hello and shares these folders.
    pub fn link_sharing(&self, agent: &Agent, folders: &[&str]) -> Link {
        let secured = self.raw(agent).unwrap();
        let _guard = self.runtime.enter();
        let (read, write) = tokio::io::split(secured.stream);
        let (out, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            let mut write = write;
            while let Some(bytes) = queue.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
                if queue.is_empty() && write.flush().await.is_err() {
                    return;
                }
            }
        });
        let seen = Arc::<Mutex<Seen>>::default();
        let link = Link { out, seen: seen.clone() };
        let mut reader = FrameReader::new(read, Arc::default());
        let answers = link.out.clone();
        tokio::spawn(async move {
            let reason = loop {
                match reader.next().await {
                    Ok(frame) => lock(&seen).take(frame, &answers),
                    Err(error) => break error.to_string(),
                }
            };
            lock(&seen).over.get_or_insert(reason);
        });
        link.send(&hello(folders));
        link
    }

    /// The same for the folder that all agents share, with the folder's own hello.
    pub fn link(&self, agent: &Agent) -> Link {
        let link = self.link_sharing(agent, &[FOLDER]);
        link.wait("the victim greets", |seen| seen.hellos.contains_key(&folder(FOLDER)));
        link.say(Message::Hello(self.folder_hello()));
        link
    }

    pub fn folder_hello(&self) -> Hello {
        let last_seq = self.seq.load(Ordering::Relaxed);
        Hello { epoch: self.epoch, run: RunId(1), last_seq, found: Vec::new(), cursor: None }
    }

    /// An entry of this device's own making.
    pub fn entry(&self, path: &str, kind: Kind) -> Announced {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let has_time = matches!(kind, Kind::File(_) | Kind::Symlink(_));
        let time_ns = if has_time { 1_700_000_000_000_000_000 } else { 0 };
        let entry = Entry {
            kind,
            mtime_ns: time_ns,
            weight_ns: time_ns,
            version: VersionVector::new().with(self.epoch, seq),
            author: self.identity.device_id(),
            ..Entry::nothing(RelPath::parse(path.as_bytes()).unwrap())
        };
        Announced { entry, seq, held: true }
    }

    /// A file with these bytes, which the link then serves.
    pub fn file(&self, link: &Link, path: &str, bytes: &[u8]) -> Announced {
        let content = Content::of_chunk(bytes);
        link.seen().store.insert(content, Bytes::copy_from_slice(bytes));
        self.entry(path, Kind::File(content))
    }

    /// An entry that replaces what the victim said it has at its path.
    pub fn over(&self, link: &Link, mut announced: Announced) -> Announced {
        let theirs = link.seen().entries.get(&(folder(FOLDER), announced.entry.path.clone())).cloned();
        let theirs = theirs.expect("the victim has announced the path").entry;
        announced.entry.version = announced.entry.version.join(&theirs.version);
        announced.entry.superseded = theirs.kind.content_id().into_iter().collect();
        announced
    }

    pub fn batch(&self, entries: Vec<Announced>) -> Message {
        let upto = entries.iter().map(|e| e.seq).max().unwrap_or(0);
        Message::Index(Batch { epoch: self.epoch, run: RunId(1), entries, upto, more: false })
    }

    /// What the attacker claims to know of the victim's index.
    pub fn cursor(epoch: EpochId, seq: u64, runs: Vec<(RunId, u64)>) -> Option<Cursor> {
        Some(Cursor { epoch, seq, runs })
    }
}

impl Link {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    pub fn send(&self, frame: &Frame) {
        self.send_bytes(encode(frame).unwrap().parts().concat());
    }

    /// Bytes that need not be frames.
    pub fn send_bytes(&self, bytes: Vec<u8>) {
        // A link that is over takes nothing; whoever wants to know looks at `over`.
        let _ = self.out.send(bytes);
    }

    pub fn say(&self, message: Message) {
        self.send(&Frame::Folder(folder(FOLDER), message));
    }

    pub fn request(&self, request: Request) {
        self.send(&Frame::Request(request));
    }

    /// How requests are answered from now on.
    pub fn behave(&self, manner: Manner) {
        self.seen().manner = Some(manner);
    }

    /// Serves these bytes for that content, whatever they are.
    pub fn store(&self, content: Content, bytes: &[u8]) {
        self.seen().store.insert(content, Bytes::copy_from_slice(bytes));
    }

    pub fn store_list(&self, list: &ChunkList) {
        self.store(list.content(), &list.body());
    }

    pub fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        wait_until(what, || {
            let seen = self.seen();
            if is_so(&seen) { Ok(()) } else { Err(format!("link over: {:?}", seen.over)) }
        });
    }

    /// Waits until everything that was sent before has been taken in by the connection's reader.
    pub fn settle(&self) {
        let pongs = self.seen().pongs;
        self.send(&Frame::Ping(0));
        self.wait("the victim answers a ping", |seen| seen.pongs > pongs || seen.over.is_some());
    }
}

impl Seen {
    /// What the victim says of a path in the folder that all agents share.
    pub fn entry(&self, path: &str) -> Option<&Announced> {
        self.entries.get(&(folder(FOLDER), RelPath::parse(path.as_bytes()).ok()?))
    }

    fn take(&mut self, frame: Frame, answers: &mpsc::UnboundedSender<Vec<u8>>) {
        let answer = match frame {
            Frame::Hello(hello) => {
                self.folders = hello.folders.into_iter().map(|(id, _)| id).collect();
                None
            }
            Frame::Folder(id, Message::Hello(hello)) => {
                self.hellos.insert(id, hello);
                None
            }
            Frame::Folder(id, Message::Index(batch)) => {
                for entry in batch.entries {
                    self.entries.insert((id.clone(), entry.entry.path.clone()), entry);
                }
                let (epoch, received) = (batch.epoch, batch.upto);
                let ack = Ack { epoch, received, applied: received, exceptions: Vec::new() };
                Some(Frame::Folder(id, Message::Ack(ack)))
            }
            Frame::Request(request) => {
                self.requests += request.items.len();
                self.answer(&request)
            }
            Frame::Chunks(chunks) => {
                self.chunks.extend(chunks.items.into_iter().map(|(at, bytes)| ((chunks.request, at), bytes)));
                None
            }
            Frame::NotHere { request, items } => {
                *self.not_here.entry(request).or_default() += items.len();
                None
            }
            Frame::Ping(count) => Some(Frame::Pong(count)),
            Frame::Pong(_) => {
                self.pongs += 1;
                None
            }
            Frame::Close(reason) => {
                self.over = Some(reason);
                None
            }
            Frame::Lanes(lanes) => {
                self.lane_key = Some(lanes.key);
                None
            }
            Frame::Folder(..)
            | Frame::Have(_)
            | Frame::Gift(_)
            | Frame::AskPast(_)
            | Frame::Past(_)
            | Frame::Unknown(_) => None,
        };
        if let Some(answer) = answer {
            let _ = answers.send(encode(&answer).unwrap().parts().concat());
        }
    }

    fn answer(&self, request: &Request) -> Option<Frame> {
        let all = (0u16..).take(request.items.len());
        match self.manner.unwrap_or(Manner::Serves) {
            Manner::Silent => None,
            Manner::NotHere => Some(Frame::NotHere { request: request.id, items: all.collect() }),
            manner => {
                let bytes = |at: u16| {
                    let bytes = self.store.get(&request.items[usize::from(at)].content)?;
                    let wrong = || Bytes::from(bytes.iter().map(|b| b ^ 1).collect::<Vec<u8>>());
                    Some((at, if manner == Manner::Lies { wrong() } else { bytes.clone() }))
                };
                let items: Vec<(u16, Bytes)> = all.filter_map(bytes).collect();
                Some(Frame::Chunks(Chunks { request: request.id, items }))
            }
        }
    }
}

pub fn hello(folders: &[&str]) -> Frame {
    let folders = folders.iter().map(|id| (folder(id), (*id).to_owned())).collect();
    Frame::Hello(DeviceHello {
        protocol: 1,
        name: NAME.into(),
        agent: "abuse".into(),
        folders,
        sent_ms: Some(i64::MIN),
    })
}

pub fn folder(id: &str) -> FolderId {
    id.parse().unwrap()
}

/// A connection from this address of this machine.
pub async fn from(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(to).await
}

/// Writes frames of a connection that is not a [`Link`].
pub async fn write_frames(secured: tls::Secured, frames: Vec<Vec<u8>>) -> tls::Secured {
    let mut secured = secured;
    for bytes in frames {
        if secured.stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = secured.stream.flush().await;
    secured
}

/// The bytes of a frame, its length included.
pub fn bytes_of(frame: &Frame) -> Vec<u8> {
    encode(frame).unwrap().parts().concat()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
