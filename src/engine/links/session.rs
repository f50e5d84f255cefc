//! One link, from hello to goodbye.
//!
//! Architecture invariant: one task tells the folders of a link that it is up, what came over it and that it is down,
//! in this order, and does not begin before the task of the link it replaces has ended. Each folder is told by a queue
//! of its own, which that task awaits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsStream;

use super::LinkHandle;
use super::common::{Common, Offers, in_words, wall_ms};
use super::lanes::{LaneEvent, Lanes, RoundTrip};
use super::queue::Queue;
use crate::core::id::{DeviceId, FolderId};
use crate::core::message::Message;
use crate::net::NetError;
use crate::net::connection::{FrameReader, FrameWriter, PING_EVERY, Traffic};
use crate::net::frame::{Chunks, DeviceHello, Frame, Request};
use crate::net::outbox::{OutboxReader, write_loop};
use crate::net::tls::{Secured, Wire};

pub use super::error::LinkError;
pub(super) use super::error::NO_LONGER_PAIRED;

/// How long the exchange of hellos may take.
const HELLO_SECONDS: u64 = 10;
/// How long a goodbye may take: it is a courtesy.
const GOODBYE: Duration = Duration::from_millis(200);

/// So many pings go out at first, sooner than others: one of them comes before the link is busy.
const FIRST_PINGS: u64 = 4;
const FIRST_PING_EVERY: Duration = Duration::from_millis(250);

/// Memory in bytes that the messages of one link take while they wait for their folders: several folders' full queues.
pub(super) const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Greatest difference of clocks that is told, in ms: a hundred years.
const CLOCK_AHEAD_MS_MAX: i64 = 100 * 366 * 24 * 3600 * 1000;

/// A connection to a peer that has said hello.
pub struct Established {
    pub peer: DeviceId,
    pub address: SocketAddr,
    pub dialled_by_us: bool,
    hello: DeviceHello,
    /// How far the peer's clock is ahead of ours.
    clock_ahead_ms: Option<i64>,
    /// What the peer has been told.
    told: Offers,
    reader: FrameReader<ReadHalf<TlsStream<Wire>>>,
    writer: FrameWriter<WriteHalf<TlsStream<Wire>>>,
    traffic: Arc<Traffic>,
}

/// Exchanges hellos.
pub async fn establish(
    secured: Secured,
    address: SocketAddr,
    dialled_by_us: bool,
    common: &Common,
) -> Result<Established, LinkError> {
    let peer = secured.peer;
    let told = common.offers(&peer).ok_or(LinkError::Removed)?;
    let traffic = Arc::new(Traffic::default());
    let (read, write) = tokio::io::split(secured.stream);
    let mut reader = FrameReader::new(read, traffic.clone());
    let mut writer = FrameWriter::new(write, traffic.clone());
    let ours = Frame::Hello(DeviceHello { sent_ms: Some(wall_ms()), ..common.hello(&told) });
    let exchange = async { tokio::try_join!(writer.send(&ours), reader.next()) };
    let timed_out = NetError::TimedOut { what: "waiting for the other device's hello", seconds: HELLO_SECONDS };
    let limit = Duration::from_secs(HELLO_SECONDS);
    match tokio::time::timeout(limit, exchange).await.map_err(|_| timed_out)??.1 {
        Frame::Hello(hello) => {
            let ahead = |sent: i64| sent.saturating_sub(wall_ms()).clamp(-CLOCK_AHEAD_MS_MAX, CLOCK_AHEAD_MS_MAX);
            let clock_ahead_ms = hello.sent_ms.map(ahead);
            Ok(Established { peer, address, dialled_by_us, hello, clock_ahead_ms, told, reader, writer, traffic })
        }
        Frame::Close(reason) => Err(LinkError::closed(reason)),
        // The reader lets nothing else through.
        _ => Err(NetError::Closed.into()),
    }
}

impl Established {
    /// Says goodbye without having been a link.
    pub async fn refuse(mut self, reason: &str) {
        let goodbye = async {
            self.writer.send(&Frame::Close(reason.to_owned())).await?;
            self.writer.finish().await
        };
        // Who does not listen needs no goodbye.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// Runs the link until it ends; returns the reason in words.
pub async fn run(
    link: Established,
    handle: LinkHandle,
    queue: OutboxReader,
    predecessor: Option<oneshot::Receiver<()>>,
    common: Arc<Common>,
) -> String {
    let Established { peer, address, dialled_by_us, hello, clock_ahead_ms, told, mut reader, writer, traffic } = link;
    let mut writing = JoinSet::new();
    let bulk = queue.bulk();
    writing.spawn(write_loop(queue, writer));
    if let Some(ended) = predecessor {
        // The sender is never used, only dropped.
        let _ = ended.await;
    }
    let (theirs, active, leaving) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let waiting = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let dial = dialled_by_us.then_some(address);
    let lanes = Lanes::open(peer, dial, handle.clone(), bulk, traffic.clone(), common.clone());
    let mut session = Session { peer, handle, told, theirs, active, leaving, common, waiting, lanes };
    session.begin(address, traffic, &hello);
    session.common.note_clock(peer, clock_ahead_ms);
    let (handle, round_trip) = (session.handle.clone(), session.lanes.round_trip.clone());
    let (reason, is_unpaired) = tokio::select! {
        reason = handle.ending() => (reason, false),
        Err(error) = session.read(&mut reader, hello) => (in_words(&error), error.is_unpaired()),
        Some(written) = writing.join_next() => match written {
            Ok(Err(error)) => (in_words(&error), LinkError::from(error).is_unpaired()),
            _ => (in_words(&NetError::Closed), false),
        },
        error = ping(&handle, &round_trip) => (in_words(&error), false),
    };
    handle.set_over();
    session.lanes.cut();
    let goodbye = async {
        if handle.outbox.close(&reason).is_ok() {
            let _ = tokio::time::timeout(GOODBYE, writing.join_next()).await;
        }
        writing.abort_all();
    };
    tokio::join!(session.end(&reason, is_unpaired), goodbye);
    reason
}

/// Keeps the link alive; returns when that is no longer possible.
async fn ping(handle: &LinkHandle, round_trip: &RoundTrip) -> NetError {
    for count in 0.. {
        round_trip.sent(count);
        if let Err(error) = handle.outbox.control(&Frame::Ping(count)) {
            return error;
        }
        tokio::time::sleep(if count < FIRST_PINGS { FIRST_PING_EVERY } else { PING_EVERY }).await;
    }
    NetError::Closed
}

struct Session {
    peer: DeviceId,
    handle: LinkHandle,
    told: Offers,
    /// What the peer shares with us, with its labels.
    theirs: BTreeMap<FolderId, String>,
    /// Folders that have heard of the link: shared by both sides and running.
    active: BTreeMap<FolderId, Active>,
    /// Folders that have yet to hear that they are not in it any more.
    leaving: BTreeMap<FolderId, Queue>,
    common: Arc<Common>,
    /// Room in bytes for messages that their folder has not taken in yet.
    waiting: Arc<Semaphore>,
    lanes: Lanes,
}

struct Active {
    generation: u64,
    ports: super::FolderPorts,
    queue: Queue,
    /// What comes before the folder's hello was sent to an earlier start of the folder.
    has_greeted: bool,
}

impl Session {
    fn begin(&mut self, address: SocketAddr, traffic: Arc<Traffic>, hello: &DeviceHello) {
        let mut table = self.common.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(self.peer, self.handle.clone());
        drop(table);
        self.common.note_up(self.peer, address, traffic, hello);
        if let Some(more) = self.common.say(self.peer, "connected") {
            let (name, short) = (self.common.name(&self.peer), self.peer.short());
            tracing::info!("connected with {name} ({short}) at {address}, running {}{more}", hello.agent);
        }
    }

    /// Takes in frames until the link ends. May be dropped at any await: `active` is right at each of them.
    async fn read(
        &mut self,
        reader: &mut FrameReader<ReadHalf<TlsStream<Wire>>>,
        hello: DeviceHello,
    ) -> Result<(), LinkError> {
        let mut changed = self.common.changed.subscribe();
        self.take_hello(hello);
        // The offers may have changed since they were told.
        self.tell()?;
        loop {
            tokio::select! {
                frame = reader.next() => self.take(frame?).await?,
                event = self.lanes.next() => match event {
                    LaneEvent::Answer(frame) => self.take(frame).await?,
                    LaneEvent::Lost => self.active.values().for_each(|active| (active.ports.lane_lost)(self.peer)),
                    LaneEvent::Misused => return Err(LinkError::Misused),
                },
                // The sender lives in `common`, as long as this.
                Ok(()) = changed.changed() => self.tell()?,
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), LinkError> {
        match frame {
            Frame::Hello(hello) => self.take_hello(hello),
            Frame::Folder(folder, message) => self.take_message(&folder, message).await,
            Frame::Request(request) => self.take_request(request)?,
            Frame::Chunks(chunks) => self.take_chunks(chunks),
            Frame::NotHere { request, items } => {
                if let Some(active) = self.asker(request) {
                    (active.ports.not_here)(self.peer, request, items);
                }
            }
            Frame::Have(have) => {
                if let Some(active) = self.active.get(&have.folder) {
                    (active.ports.have)(self.peer, have);
                }
            }
            Frame::Gift(gift) => {
                if let Some(active) = self.active.get(&gift.folder) {
                    (active.ports.gift)(self.peer, gift);
                }
            }
            Frame::AskPast(ask) => {
                if let Some(active) = self.active.get(&ask.folder) {
                    (active.ports.ask_past)(self.peer, ask);
                }
            }
            Frame::Past(past) => {
                if let Some(active) = self.active.get(&past.folder) {
                    (active.ports.past)(self.peer, past);
                }
            }
            Frame::Ping(count) => self.handle.outbox.control(&Frame::Pong(count))?,
            Frame::Close(reason) => return Err(LinkError::closed(reason)),
            Frame::Lanes(lanes) => self.lanes.told(&lanes),
            Frame::Pong(count) => self.lanes.round_trip.answered(count),
            Frame::Unknown(_) => {}
        }
        Ok(())
    }

    fn take_hello(&mut self, hello: DeviceHello) {
        self.theirs = hello.folders.into_iter().collect();
        self.common.note_offers(self.peer, &self.theirs);
        self.settle();
    }

    async fn take_message(&mut self, folder: &FolderId, message: Message) {
        // A message about another folder crossed with the news that it is not shared, or not running.
        let Some(active) = self.active.get_mut(folder) else { return };
        active.has_greeted |= matches!(message, Message::Hello(_));
        if active.has_greeted {
            // Waits for room, which makes the peer wait.
            active.queue.put(self.peer, message, &self.waiting, WAITING_BYTES_MAX).await;
        }
    }

    fn take_request(&mut self, request: Request) -> Result<(), LinkError> {
        let Some(active) = self.active.get(&request.folder) else {
            let items = (0..).take(request.items.len()).collect();
            return Ok(self.handle.outbox.control(&Frame::NotHere { request: request.id, items })?);
        };
        if (active.ports.serve)(self.peer, request) { Ok(()) } else { Err(LinkError::Greedy) }
    }

    /// The folder that asked this peer with this request.
    fn asker(&self, request: u32) -> Option<&Active> {
        self.active.values().find(|active| (active.ports.expects)(self.peer, request))
    }

    fn take_chunks(&mut self, chunks: Chunks) {
        if let Some(active) = self.asker(chunks.request) {
            (active.ports.chunks)(self.peer, chunks);
        }
    }

    /// Tells the peer what has changed in what we share with it.
    fn tell(&mut self) -> Result<(), LinkError> {
        let offers = self.common.offers(&self.peer).ok_or(LinkError::Removed)?;
        let ours = self.common.hello(&offers);
        let is_same_start =
            |id: &FolderId, generation| self.told.get(id).is_none_or(|told| told.generation == generation);
        let mut going_on = offers.clone();
        going_on.retain(|id, offer| is_same_start(id, offer.generation));
        let has_restarted = going_on.len() < offers.len();
        if has_restarted {
            // The peer must see the folder leave and come back, or it would go on where the earlier start was.
            self.handle.outbox.control(&Frame::Hello(self.common.hello(&going_on)))?;
        }
        if has_restarted || ours != self.common.hello(&self.told) {
            self.handle.outbox.control(&Frame::Hello(ours))?;
        }
        self.told = offers;
        self.settle();
        Ok(())
    }

    /// Brings `active` in line with what both sides share.
    fn settle(&mut self) {
        let goes_on = |id: &FolderId, generation: u64| {
            self.theirs.contains_key(id) && self.told.get(id).is_some_and(|offer| offer.generation == generation)
        };
        let gone: Vec<FolderId> =
            self.active.iter().filter(|(id, a)| !goes_on(id, a.generation)).map(|(id, _)| id.clone()).collect();
        for folder in gone {
            if let Some(mut active) = self.active.remove(&folder) {
                active.queue.cut();
                self.leaving.insert(folder, active.queue);
            }
        }
        let is_new = |id: &FolderId| self.theirs.contains_key(id) && !self.active.contains_key(id);
        let new: Vec<FolderId> = self.told.keys().filter(|id| is_new(id)).cloned().collect();
        for folder in new {
            self.bring_in(folder);
        }
    }

    fn bring_in(&mut self, folder: FolderId) {
        let Some(offer) = self.told.get(&folder).cloned() else { return };
        // A folder that has stopped meanwhile hears nothing; what takes its place is a change of its own.
        if offer.ports.inputs.is_closed() {
            return;
        }
        let queue = Queue::open(self.peer, offer.ports.clone(), self.leaving.remove(&folder));
        let active = Active { generation: offer.generation, ports: offer.ports, queue, has_greeted: false };
        self.active.insert(folder, active);
    }

    async fn end(&mut self, reason: &str, is_unpaired: bool) {
        self.leave_table();
        self.common.note_down(self.peer, reason, is_unpaired);
        if let Some(more) = self.common.say(self.peer, "ended") {
            tracing::info!("the link with {} ended: {reason}{more}", self.common.name(&self.peer));
        }
        // All at once, so that none waits for another.
        let mut queues: Vec<Queue> =
            std::mem::take(&mut self.active).into_values().map(|active| active.queue).collect();
        queues.iter_mut().for_each(Queue::close);
        queues.extend(std::mem::take(&mut self.leaving).into_values());
        for queue in &mut queues {
            queue.closed().await;
        }
    }

    fn leave_table(&self) {
        let mut table = self.common.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.get(&self.peer).is_some_and(|handle| handle.is_same_link(&self.handle)) {
            table.remove(&self.peer);
        }
    }
}
