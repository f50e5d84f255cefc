//! The task that owns all links: accepts, dials, and decides which connection to a peer stays.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::LinkHandle;
use super::accept::{self, HalfOpen};
use super::common::{Common, in_words, lock};
use super::dial::{self, Dial};
use super::session::{self, Established, LinkError, NO_LONGER_PAIRED};
use crate::core::id::DeviceId;
use crate::net::dial::keep_which;
use crate::net::frame::Frame;
use crate::net::outbox::paced_outbox;

/// Events that wait for the manager; whoever has more waits.
pub const EVENTS_QUEUED_MAX: usize = 256;
/// How far apart two connections may come up that were dialled at the same time: dialling, handshake and hello take
/// ten seconds each at most.
const CROSSED: Duration = Duration::from_secs(35);
/// Pause after an error while accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// What the manager waits for when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the manager is told by the tasks around it.
pub enum LinkEvent {
    Established(Box<Established>),
    DialFailed { peer: DeviceId, error: LinkError },
    Ended { peer: DeviceId, link: LinkHandle },
    Heard(DeviceId),
}

struct Manager {
    common: Arc<Common>,
    events: mpsc::Sender<LinkEvent>,
    links: BTreeMap<DeviceId, Live>,
    dials: BTreeMap<DeviceId, Dial>,
    half_open: HalfOpen,
    /// Handshakes, attempts to dial, refusals.
    setups: JoinSet<()>,
    sessions: JoinSet<()>,
}

/// A link whose task has not ended.
struct Live {
    handle: LinkHandle,
    dialled_by_us: bool,
    since: Instant,
    /// Resolves when the link's task has ended.
    ended: oneshot::Receiver<()>,
}

/// Runs until `stopping` says so, then ends all links.
pub async fn run(
    common: Arc<Common>,
    listener: TcpListener,
    events: mpsc::Sender<LinkEvent>,
    mut inbox: mpsc::Receiver<LinkEvent>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut changed = common.changed.subscribe();
    let mut manager = Manager {
        common,
        events,
        links: BTreeMap::new(),
        dials: BTreeMap::new(),
        half_open: HalfOpen::default(),
        setups: JoinSet::new(),
        sessions: JoinSet::new(),
    };
    manager.take_config();
    let mut accept_at = Instant::now();
    loop {
        manager.dial_due(Instant::now());
        let accepting = async {
            tokio::time::sleep_until(accept_at).await;
            listener.accept().await
        };
        tokio::select! {
            accepted = accepting => if !manager.take_connection(accepted) {
                accept_at = Instant::now() + ACCEPT_PAUSE;
            },
            Some(event) = inbox.recv() => manager.take(event),
            Ok(()) = changed.changed() => manager.take_config(),
            () = tokio::time::sleep_until(manager.next_due()) => {}
            Some(_) = manager.setups.join_next() => {}
            Some(_) = manager.sessions.join_next() => {}
            // Where the sender is gone, so is everybody who wanted links.
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    // Frees the port first, so that a restarted agent gets it; nobody waits for a full queue of events.
    drop((listener, inbox));
    manager.stop().await;
}

impl Manager {
    fn take(&mut self, event: LinkEvent) {
        let now = Instant::now();
        match event {
            LinkEvent::Established(link) => self.take_link(*link),
            LinkEvent::DialFailed { peer, error } => {
                let text = in_words(&error);
                tracing::debug!("cannot connect with {}: {text}", peer.short());
                if !self.links.contains_key(&peer) {
                    self.common.note_error(peer, &error);
                }
                if let Some(dial) = self.dials.get_mut(&peer) {
                    dial.is_running = false;
                    dial.failed(now);
                }
            }
            LinkEvent::Ended { peer, link } => {
                if self.links.get(&peer).is_none_or(|live| !live.handle.is_same_link(&link)) {
                    return;
                }
                let lasted = self.links.remove(&peer).map_or(Duration::ZERO, |live| now - live.since);
                if let Some(dial) = self.dials.get_mut(&peer) {
                    dial.link_ended(lasted, now);
                }
            }
            LinkEvent::Heard(device) => {
                if let Some(dial) = self.dials.get_mut(&device) {
                    dial.hurry(now);
                }
            }
        }
    }

    /// False where accepting has to pause.
    fn take_connection(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept connections for the moment: {error}");
                return false;
            }
        };
        let is_known = Arc::new(AtomicBool::new(false));
        self.half_open.make_room(address);
        let taking_in = accept::take_in(stream, address, is_known.clone(), self.common.clone(), self.events.clone());
        let task = self.setups.spawn(taking_in);
        self.half_open.add(address, is_known, task);
        true
    }

    fn take_config(&mut self) {
        let (config, now) = (self.common.config(), Instant::now());
        self.dials.retain(|peer, _| self.common.is_peer(peer));
        // At once, whatever the session is busy with.
        let removed = self.links.iter().filter(|(peer, _)| !self.common.is_peer(peer));
        removed.for_each(|(_, live)| live.handle.end(NO_LONGER_PAIRED));
        for peer in &config.peers {
            let dial = self.dials.entry(peer.id).or_insert_with(|| Dial::new(peer.addresses.clone(), now));
            dial.set_addresses(&peer.addresses, now);
        }
    }

    /// Makes a link of the connection, unless the one that there is stays.
    fn take_link(&mut self, link: Established) {
        let (peer, dialled_by_us, now) = (link.peer, link.dialled_by_us, Instant::now());
        if let Some(dial) = self.dials.get_mut(&peer).filter(|_| dialled_by_us) {
            dial.is_running = false;
        }
        if !self.common.is_peer(&peer) {
            return self.refuse(link, NO_LONGER_PAIRED);
        }
        if let Some(live) = self.links.get(&peer)
            && self.stays(live, dialled_by_us, now)
        {
            // Should it be dead, this brings that to light.
            let _ = live.handle.outbox.control(&Frame::Ping(0));
            return self.refuse(link, "another connection is kept");
        }
        let predecessor = self.links.remove(&peer).map(|live| {
            live.handle.end("another connection took its place");
            live.ended
        });
        let pace = self.common.paces.of(&peer);
        let (outbox, queue) = paced_outbox(pace.clone());
        let handle = LinkHandle::paced(peer, outbox, pace);
        let (alive, ended) = oneshot::channel::<()>();
        self.links.insert(peer, Live { handle: handle.clone(), dialled_by_us, since: now, ended });
        let (common, events) = (self.common.clone(), self.events.clone());
        self.sessions.spawn(async move {
            session::run(link, handle.clone(), queue, predecessor, common).await;
            drop(alive);
            // Where nobody takes it, the agent stops.
            let _ = events.send(LinkEvent::Ended { peer, link: handle }).await;
        });
    }

    /// True where the link that there is stays, and a new connection has to go.
    ///
    /// Of two connections that were dialled in the same direction the newer one stays: its dialler has lost the older
    /// one. The rule for crossed dials only holds while they can have crossed; later the older one is a leftover.
    fn stays(&self, live: &Live, dialled_by_us: bool, now: Instant) -> bool {
        let is_up = !live.handle.is_over();
        let may_have_crossed = live.dialled_by_us != dialled_by_us && now - live.since < CROSSED;
        is_up && may_have_crossed && keep_which(self.common.own, live.handle.peer, live.dialled_by_us)
    }

    fn refuse(&mut self, link: Established, reason: &'static str) {
        if let Some(dial) = self.dials.get_mut(&link.peer).filter(|_| link.dialled_by_us) {
            dial.failed(Instant::now());
        }
        self.setups.spawn(link.refuse(reason));
    }

    fn dial_due(&mut self, now: Instant) {
        let links = &self.links;
        for (peer, dial) in self.dials.iter_mut().filter(|(peer, _)| !links.contains_key(peer)) {
            if dial.due().is_none_or(|due| due > now) {
                continue;
            }
            let heard = lock(&self.common.book).addresses(peer);
            if heard.is_empty() && dial.addresses.is_empty() {
                dial.wait(now);
                continue;
            }
            dial.start(now);
            let attempt = dial::attempt(self.common.clone(), *peer, dial.addresses.clone(), heard);
            let (events, peer) = (self.events.clone(), *peer);
            self.setups.spawn(async move {
                let event = match attempt.await {
                    Ok(link) => LinkEvent::Established(Box::new(link)),
                    Err(error) => LinkEvent::DialFailed { peer, error },
                };
                // Where nobody takes it, the agent stops.
                let _ = events.send(event).await;
            });
        }
    }

    fn next_due(&self) -> Instant {
        let waiting = self.dials.iter().filter(|(peer, _)| !self.links.contains_key(peer));
        waiting.filter_map(|(_, dial)| dial.due()).min().unwrap_or_else(|| Instant::now() + IDLE)
    }

    async fn stop(mut self) {
        self.setups.abort_all();
        for live in self.links.values() {
            live.handle.end("the agent stops");
        }
        while self.sessions.join_next().await.is_some() {}
    }
}
