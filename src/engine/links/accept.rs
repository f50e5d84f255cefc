//! Half-open connections: devices that have not yet proved who they are. They are bounded, and it is the oldest of the
//! busiest source that goes, so that neither many nor slow strangers keep a peer out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::common::{Common, in_words};
use super::manager::LinkEvent;
use super::{lanes, pairing, session};
use crate::net::NetError;
use crate::net::socket;
use crate::net::tls::{self, Purpose};

/// Most half-open connections.
const HALF_OPEN_MAX: usize = 64;
/// Most connections of peers that have not said hello yet: several of each of many peers. They are bounded by themselves,
/// so that strangers don't end them.
const KNOWN_MAX: usize = 256;
/// Most of them from one source: a device dials once at a time, and several may lie behind one address.
const KNOWN_PER_SOURCE_MAX: usize = 16;
/// Most half-open connections from one source.
const HALF_OPEN_PER_SOURCE_MAX: usize = 4;

/// The connections under way, oldest first.
#[derive(Default)]
pub struct HalfOpen {
    entries: VecDeque<Entry>,
    /// Of devices that have proved to be peers.
    known: VecDeque<Entry>,
}

struct Entry {
    source: IpAddr,
    /// Set once the other side has proved to be a peer.
    is_known: Arc<AtomicBool>,
    task: AbortHandle,
}

impl HalfOpen {
    /// Makes room for one from this address, by ending others if need be.
    pub fn make_room(&mut self, address: SocketAddr) {
        let (known, entries) = std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.is_known());
        self.entries = entries;
        self.known.extend::<VecDeque<Entry>>(known);
        let source = source_of(address.ip());
        make_room(&mut self.entries, source, HALF_OPEN_MAX, HALF_OPEN_PER_SOURCE_MAX);
        make_room(&mut self.known, source, KNOWN_MAX, KNOWN_PER_SOURCE_MAX);
    }

    pub fn add(&mut self, address: SocketAddr, is_known: Arc<AtomicBool>, task: AbortHandle) {
        self.entries.push_back(Entry { source: source_of(address.ip()), is_known, task });
    }
}

impl Entry {
    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }
}

/// Ends the oldest from this source, or from the busiest one, as long as there are too many.
fn make_room(entries: &mut VecDeque<Entry>, source: IpAddr, most: usize, most_per_source: usize) {
    entries.retain(|entry| !entry.task.is_finished());
    loop {
        let count = |source: IpAddr| entries.iter().filter(|entry| entry.source == source).count();
        let busiest = if count(source) >= most_per_source {
            Some(source)
        } else if entries.len() >= most {
            entries.iter().map(|entry| entry.source).max_by_key(|source| count(*source))
        } else {
            None
        };
        let oldest = busiest.and_then(|source| entries.iter().position(|entry| entry.source == source));
        let Some(entry) = oldest.and_then(|at| entries.remove(at)) else { return };
        entry.task.abort();
    }
}

/// What counts as one source: an IPv4 address, or the /64 network that one IPv6 host can choose from.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Finds out who has connected, and what for.
pub async fn take_in(
    stream: TcpStream,
    address: SocketAddr,
    is_known: Arc<AtomicBool>,
    common: Arc<Common>,
    events: mpsc::Sender<LinkEvent>,
) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    socket::tune(&stream);
    match tls::accept(stream, &common.tls).await {
        Ok(secured) if secured.purpose == Purpose::Pair => pairing::answer(&common, secured).await,
        Ok(secured) if secured.purpose == Purpose::Lane => {
            is_known.store(true, Ordering::Release);
            lanes::admit(&common, secured).await;
        }
        Ok(secured) => {
            is_known.store(true, Ordering::Release);
            let peer = secured.peer;
            match session::establish(secured, address, false, &common).await {
                // Where nobody takes it, the agent stops.
                Ok(link) => drop(events.send(LinkEvent::Established(Box::new(link))).await),
                Err(error) => tracing::debug!("no link with {} from {address}: {}", peer.short(), in_words(&error)),
            }
        }
        Err(NetError::UnknownDevice(id)) => {
            if common.is_new_stranger(id, address) {
                tracing::info!(
                    "an unknown device at {address} tried to connect; if it is yours, add it with: p2psync peer add {id}"
                );
                if let Some(tell) = common.on_stranger.get() {
                    tell(id, address);
                }
            }
        }
        Err(error) => tracing::debug!("no connection from {address}: {}", in_words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(half_open: &mut HalfOpen, ip: [u8; 4]) -> AbortHandle {
        let address = SocketAddr::from((ip, 1));
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        half_open.make_room(address);
        half_open.add(address, Arc::default(), task.clone());
        task
    }

    #[tokio::test]
    async fn the_oldest_of_a_source_goes_when_it_has_too_many() {
        let mut half_open = HalfOpen::default();
        let other = add(&mut half_open, [10, 0, 0, 2]);
        let tasks: Vec<_> = (0..=HALF_OPEN_PER_SOURCE_MAX).map(|_| add(&mut half_open, [10, 0, 0, 1])).collect();
        tokio::task::yield_now().await;
        let finished: Vec<bool> = tasks.iter().map(AbortHandle::is_finished).collect();
        assert_eq!(finished, [true, false, false, false, false]);
        assert!(!other.is_finished());
    }

    #[tokio::test]
    async fn a_single_connection_outlives_a_crowd_from_elsewhere() {
        let mut half_open = HalfOpen::default();
        let single = add(&mut half_open, [10, 0, 0, 1]);
        for n in 0..200u8 {
            add(&mut half_open, [10, 0, 1, n / 4]);
        }
        tokio::task::yield_now().await;
        assert!(!single.is_finished());
        assert_eq!(half_open.entries.len(), HALF_OPEN_MAX);
    }

    #[test]
    fn one_ipv6_network_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let ip = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
    }

    #[tokio::test]
    async fn neither_strangers_nor_peers_without_a_hello_pile_up() {
        for (is_known, most) in [(false, HALF_OPEN_PER_SOURCE_MAX), (true, KNOWN_PER_SOURCE_MAX)] {
            let mut half_open = HalfOpen::default();
            let address = SocketAddr::from(([192, 0, 2, 7], 7724));
            let mut tasks = Vec::new();
            for _ in 0..100 {
                half_open.make_room(address);
                let task = tokio::spawn(std::future::pending::<()>());
                half_open.add(address, Arc::new(AtomicBool::new(is_known)), task.abort_handle());
                tasks.push(task);
            }
            assert_eq!(half_open.entries.len() + half_open.known.len(), most);
            assert!(tasks.swap_remove(0).await.unwrap_err().is_cancelled());
        }
    }
}
