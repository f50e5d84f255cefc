//! The further connections of one link, of which `growth` says how many there are to be.
//!
//! Who has dialled the link dials them too; the other side tells a key by which they join, and asks for them when it is
//! the one that sends.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::LinkHandle;
use super::common::{Common, in_words, lock};
use super::growth::{Growth, Look};
use crate::core::id::DeviceId;
use crate::engine::allowance::Allowance;
use crate::net::NetError;
use crate::net::bulk::Bulk;
use crate::net::connection::Traffic;
use crate::net::frame::{self, Frame};
use crate::net::lane::{self, LANES_MAX, LaneEnd, LaneKey, Leave};
use crate::net::socket;
use crate::net::tls::{self, Secured, Wire};

/// Links with a shorter round trip have only one connection: it fills them.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(5);
/// How often to look how a link that sends gets on.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks without anything sent after which nothing is looked at until there is more.
const QUIET_LOOKS: u32 = 8;
/// Of the bytes that a cap lets through so many percent are as good as all.
const AT_CAP_PERCENT: u64 = 80;
/// Lanes that are dialled at the same time: the other side lets few strangers in at once, and before the handshake is over
/// a lane is one.
const DIALLING_MAX: usize = 2;
/// Lanes that are dialled, whoever wants them: each several times, and then one more in each while.
const DIALS: (u32, Duration) = (4 * LANES_MAX as u32, Duration::from_secs(10));

/// Shortest time that an answer to a ping has taken.
#[derive(Default)]
pub struct RoundTrip(Mutex<Pings>);

#[derive(Default)]
struct Pings {
    /// The last one.
    sent: Option<(u64, Instant)>,
    shortest: Option<Duration>,
}

impl RoundTrip {
    pub fn sent(&self, ping: u64) {
        lock(&self.0).sent = Some((ping, Instant::now()));
    }

    pub fn answered(&self, ping: u64) {
        let mut pings = lock(&self.0);
        if let Some((_, at)) = pings.sent.take_if(|(sent, _)| *sent == ping) {
            let took = at.elapsed();
            pings.shortest = Some(pings.shortest.map_or(took, |shortest| shortest.min(took)));
        }
    }

    fn is_long(&self) -> bool {
        lock(&self.0).shortest.is_some_and(|shortest| shortest >= ROUND_TRIP_MIN)
    }
}

/// Where connections join a link.
pub struct Door {
    pub key: LaneKey,
    room: Arc<Semaphore>,
    joining: mpsc::Sender<Joined>,
}

/// A connection that has joined, with its share of the lanes of its link and of all links.
struct Joined {
    stream: TlsStream<Wire>,
    _room: [OwnedSemaphorePermit; 2],
}

/// What a link hears of its lanes.
pub enum LaneEvent {
    /// An answer to a request.
    Answer(Frame),
    /// What was asked for may have been lost.
    Lost,
    Misused,
}

/// See the module.
pub struct Lanes {
    peer: DeviceId,
    /// Where to dial; `None` where the other side does.
    dial: Option<SocketAddr>,
    /// `None` as long as the other side has told none.
    key: Option<LaneKey>,
    handle: LinkHandle,
    bulk: Bulk,
    traffic: Arc<Traffic>,
    common: Arc<Common>,
    pub round_trip: Arc<RoundTrip>,
    growth: Growth,
    dials: Allowance,
    /// How many there are to be, for the side that dials.
    wanted: usize,
    room: Arc<Semaphore>,
    dialling: JoinSet<Result<Joined, NetError>>,
    joining: mpsc::Receiver<Joined>,
    running: JoinSet<LaneEnd>,
    /// One for each that runs; some may have ended.
    leaves: Vec<Arc<Leave>>,
    answers: (mpsc::Sender<Frame>, mpsc::Receiver<Frame>),
    /// When to look next, and how often there was nothing; `None` while nothing is sent.
    looking: Option<(Instant, u32)>,
    written: u64,
}

impl Lanes {
    /// Of a link that has just come up. Where the other side has dialled it is told how lanes join.
    pub fn open(
        peer: DeviceId,
        dial: Option<SocketAddr>,
        handle: LinkHandle,
        bulk: Bulk,
        traffic: Arc<Traffic>,
        common: Arc<Common>,
    ) -> Self {
        let (sender, joining) = mpsc::channel(LANES_MAX);
        let room = Arc::new(Semaphore::new(LANES_MAX));
        let key = dial.is_none().then(LaneKey::random);
        if let Some(key) = key {
            lock(&common.doors).insert(peer, Door { key, room: room.clone(), joining: sender });
            // A link that can't take this in ends of itself.
            let _ = handle.outbox.control(&Frame::Lanes(frame::Lanes { key, wanted: 0 }));
        }
        Self {
            peer,
            dial,
            key,
            handle,
            bulk,
            traffic,
            common,
            round_trip: Arc::default(),
            growth: Growth::default(),
            dials: Allowance::new(DIALS.0, DIALS.1),
            wanted: 0,
            room,
            dialling: JoinSet::new(),
            joining,
            running: JoinSet::new(),
            leaves: Vec::new(),
            // Each lane holds one more until there is room: what comes is as bounded as on one connection.
            answers: mpsc::channel(1),
            looking: None,
            written: 0,
        }
    }

    /// What the link has to hear next. May be dropped at any await.
    pub async fn next(&mut self) -> LaneEvent {
        loop {
            let looks = self.round_trip.is_long() && self.key.is_some();
            let (flow, at) = (self.handle.outbox.flow(), self.looking.map(|(at, _)| at));
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => flow.begun().await,
                }
            };
            tokio::select! {
                // What a lane has brought is taken in before its end.
                biased;
                Some(answer) = self.answers.1.recv() => return LaneEvent::Answer(answer),
                Some(end) = self.running.join_next() => {
                    self.count();
                    match end {
                        Ok(LaneEnd::Closed) => {}
                        Ok(LaneEnd::Misused) => return LaneEvent::Misused,
                        Ok(LaneEnd::Lost(error)) => return self.lost(&error),
                        Err(_) => return self.lost(&NetError::Closed),
                    }
                }
                Some(joined) = self.joining.recv() => self.start(joined),
                Some(dialled) = self.dialling.join_next() => match dialled {
                    Ok(Ok(joined)) => {
                        self.start(joined);
                        self.leave_if_unwanted();
                        self.dial_more();
                    }
                    Ok(Err(error)) => self.failed(&error),
                    Err(_) => {}
                },
                () = due, if looks => self.look(Instant::now()),
            }
        }
    }

    /// The side that was dialled says how lanes join, or asks for some.
    pub fn told(&mut self, told: &frame::Lanes) {
        if self.dial.is_some() {
            self.key = Some(told.key);
            self.dial_up_to(usize::from(told.wanted));
        }
    }

    /// Ends all of them.
    pub fn cut(&mut self) {
        self.dialling.abort_all();
        self.running.abort_all();
        let mut doors = lock(&self.common.doors);
        if doors.get(&self.peer).is_some_and(|door| Arc::ptr_eq(&door.room, &self.room)) {
            doors.remove(&self.peer);
        }
    }

    fn look(&mut self, now: Instant) {
        // Not by whole frames: a slow line takes more than a moment for one.
        let written = self.traffic.written.load(Ordering::Relaxed);
        let is_waiting = self.handle.outbox.flow().is_waiting();
        let before = std::mem::replace(&mut self.written, written);
        let quiet = match self.looking {
            Some((_, quiet)) if written == before && !is_waiting => quiet + 1,
            _ => 0,
        };
        self.looking = (quiet < QUIET_LOOKS).then_some((now + LOOK_EVERY, quiet));
        let is_full = is_waiting && !self.is_capped();
        let look = Look { now, written, is_full, lanes: self.running.len() };
        let Some(wanted) = self.growth.look(&look) else { return };
        tracing::debug!(peer = %self.peer.short(), lanes = look.lanes, wanted, "other connections are tried");
        if wanted < look.lanes {
            self.wanted = wanted;
            self.leaves.retain(|leave| Arc::strong_count(leave) > 1 && !leave.is_told());
            self.leaves.iter().skip(wanted).for_each(|leave| leave.tell());
        }
        self.want(wanted);
    }

    /// So many lanes there are to be; the side that dials learns it also where they get fewer, or it would dial on.
    fn want(&mut self, wanted: usize) {
        match (self.dial, self.key) {
            (Some(_), _) => self.dial_up_to(wanted),
            (None, Some(key)) => {
                let wanted = u16::try_from(wanted).unwrap_or(u16::MAX);
                // A link that can't take this in ends of itself.
                let _ = self.handle.outbox.control(&Frame::Lanes(frame::Lanes { key, wanted }));
            }
            (None, None) => {}
        }
    }

    /// True where a cap may be what holds things up.
    fn is_capped(&self) -> bool {
        let (cap, rate) = (self.handle.pace.upload.rate(), self.handle.outbox.flow().per_second());
        cap.is_some_and(|cap| rate.is_none_or(|rate| rate >= cap / 100 * AT_CAP_PERCENT))
    }

    fn dial_up_to(&mut self, wanted: usize) {
        self.wanted = wanted.min(LANES_MAX);
        self.dial_more();
    }

    fn dial_more(&mut self) {
        let (Some(address), Some(key)) = (self.dial, self.key) else { return };
        while self.dialling.len() < DIALLING_MAX && self.running.len() + self.dialling.len() < self.wanted {
            let may_dial = self.dials.take(Instant::now().into_std());
            let Some(room) = take_room(&self.room, &self.common.lanes_room).filter(|_| may_dial) else { return };
            let (peer, common) = (self.peer, self.common.clone());
            self.dialling.spawn(async move {
                let mut secured = tls::connect_lane(socket::dial(address).await?, peer, &common.tls).await?;
                lane::join(&mut secured.stream, key).await?;
                Ok(Joined { stream: secured.stream, _room: room })
            });
        }
    }

    fn start(&mut self, joined: Joined) {
        let (bulk, traffic, answers) = (self.bulk.clone(), self.traffic.clone(), self.answers.0.clone());
        // Those of lanes that have ended are held by nobody else.
        self.leaves.retain(|leave| Arc::strong_count(leave) > 1);
        let leave = Arc::<Leave>::default();
        self.leaves.push(leave.clone());
        self.running.spawn(async move {
            let Joined { stream, _room } = joined;
            lane::run(stream, bulk, traffic, answers, leave).await
        });
        self.count();
        tracing::debug!(peer = %self.peer.short(), lanes = self.running.len(), "a further connection");
    }

    /// A lane that was dialled came when fewer were wanted than before.
    fn leave_if_unwanted(&self) {
        if self.running.len() > self.wanted {
            self.leaves.last().into_iter().for_each(|leave| leave.tell());
        }
    }

    fn lost(&mut self, error: &NetError) -> LaneEvent {
        self.failed(error);
        LaneEvent::Lost
    }

    fn failed(&mut self, error: &NetError) {
        tracing::debug!(peer = %self.peer.short(), "a further connection failed: {}", in_words(error));
        self.wanted = self.running.len() + self.dialling.len();
        self.growth.failed(Instant::now());
    }

    fn count(&self) {
        self.handle.outbox.set_lanes(self.running.len());
    }
}

/// However the link ended.
impl Drop for Lanes {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Lets a connection join the link that it belongs to, where it knows its key and there is room.
pub async fn admit(common: &Common, mut secured: Secured) {
    let peer = secured.peer;
    let refused = match lane::read_key(&mut secured.stream).await {
        Err(error) => in_words(&error),
        Ok(key) => {
            let Some((joining, room)) = open_door(common, peer, key) else {
                if let Some(more) = common.say(peer, "lane refused") {
                    tracing::debug!("a further connection of {} is refused{more}", peer.short());
                }
                return;
            };
            match lane::welcome(&mut secured.stream).await {
                // One that comes as the link ends is dropped.
                Ok(()) => return drop(joining.try_send(Joined { stream: secured.stream, _room: room })),
                Err(error) => in_words(&error),
            }
        }
    };
    tracing::debug!("a further connection of {} did not come about: {refused}", peer.short());
}

fn open_door(
    common: &Common,
    peer: DeviceId,
    key: LaneKey,
) -> Option<(mpsc::Sender<Joined>, [OwnedSemaphorePermit; 2])> {
    let doors = lock(&common.doors);
    let door = doors.get(&peer).filter(|door| door.key == key)?;
    Some((door.joining.clone(), take_room(&door.room, &common.lanes_room)?))
}

fn take_room(own: &Arc<Semaphore>, all: &Arc<Semaphore>) -> Option<[OwnedSemaphorePermit; 2]> {
    Some([own.clone().try_acquire_owned().ok()?, all.clone().try_acquire_owned().ok()?])
}
