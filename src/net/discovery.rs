//! Finding devices on the local network by UDP multicast on every interface, and by unicast to configured addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::NetError;
use super::announcement::{Announcement, PACKET_BYTES_MAX};
use super::identity::Identity;
use super::interfaces::{self, Changes, Interfaces};

/// Default IPv4 group; from the range that organisations may use as they like.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 24);
/// Default IPv6 group, link-local.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7724);
/// Default UDP port.
pub const PORT: u16 = 7725;
/// Pause after an error while receiving, so that a broken socket does not make the agent spin.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Where to announce and to listen.
#[derive(Clone, Debug)]
pub struct Options {
    /// False: announce to the targets only, and hear only who announces to this device.
    pub multicast: bool,
    pub group_v4: Ipv4Addr,
    pub group_v6: Ipv6Addr,
    pub port: u16,
    /// Where to announce besides, for networks without multicast.
    pub targets: Vec<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { multicast: true, group_v4: GROUP_V4, group_v6: GROUP_V6, port: PORT, targets: Vec::new() }
    }
}

/// An announcement with the address it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    pub announcement: Announcement,
    pub from: SocketAddr,
}

impl Heard {
    /// Where the device takes connections.
    pub fn address(&self) -> SocketAddr {
        let mut address = self.from;
        address.set_port(self.announcement.port);
        address
    }
}

/// The sockets for announcements.
pub struct Discovery {
    options: Options,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// The interfaces on which the groups are joined. Held too while the sockets' outgoing interface is switched.
    joined: Mutex<Interfaces>,
    changes: Changes,
    garbled: AtomicU64,
}

impl Discovery {
    /// Opens the sockets and joins the groups. An error only where neither IPv4 nor IPv6 works.
    ///
    /// Must be called within a tokio runtime.
    pub fn open(options: Options) -> Result<Self, NetError> {
        let v4 = open_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port)));
        let v6 = open_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port)));
        let (v4, v6) = match (v4, v6) {
            (Err(source), Err(_)) => return Err(NetError::Discovery { port: options.port, source }),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let (joined, changes, garbled) = (Mutex::default(), Changes::watch(), AtomicU64::new(0));
        let discovery = Self { options, v4, v6, joined, changes, garbled };
        discovery.join_new_interfaces();
        Ok(discovery)
    }

    /// Sends the announcement on every interface and to every target; says how many packets went out.
    pub async fn announce(&self, announcement: &Announcement, identity: &Identity) -> usize {
        self.join_new_interfaces();
        let packet = announcement.seal(identity);
        let mut sent = self.multicast(&packet);
        for target in &self.options.targets {
            let socket = if target.is_ipv4() { &self.v4 } else { &self.v6 };
            let Some(socket) = socket else { continue };
            match socket.send_to(&packet, target).await {
                Ok(_) => sent += 1,
                Err(error) => tracing::debug!("cannot announce to {target}: {error}"),
            }
        }
        sent
    }

    /// The next announcement of any device, this one included. Can be cancelled at any time.
    pub async fn hear(&self) -> Heard {
        loop {
            let (mut packet_v4, mut packet_v6) = ([0; PACKET_BYTES_MAX + 1], [0; PACKET_BYTES_MAX + 1]);
            let (received, packet) = tokio::select! {
                received = receive(&self.v4, &mut packet_v4) => (received, &packet_v4),
                received = receive(&self.v6, &mut packet_v6) => (received, &packet_v6),
            };
            match received {
                Ok((length, from)) => match packet.get(..length).and_then(Announcement::open) {
                    Some(announcement) => return Heard { announcement, from },
                    None => drop(self.garbled.fetch_add(1, Ordering::Relaxed)),
                },
                Err(error) => {
                    tracing::debug!("cannot receive announcements: {error}");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    /// Returns when there are other interfaces or addresses than before; their groups are joined by then.
    pub async fn interfaces_changed(&self) {
        loop {
            self.changes.next().await;
            if self.join_new_interfaces() {
                return;
            }
        }
    }

    /// How many packets were dropped because they were not announcements.
    pub fn garbled(&self) -> u64 {
        self.garbled.load(Ordering::Relaxed)
    }

    /// True where the interfaces are not the same as at the last look.
    fn join_new_interfaces(&self) -> bool {
        if !self.options.multicast {
            return false;
        }
        let found = match interfaces::list() {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!("cannot list network interfaces: {error}");
                return false;
            }
        };
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if *joined == found {
            return false;
        }
        for (index, interface) in &found {
            let before = joined.get(index).copied().unwrap_or_default();
            if interface.v4.is_some() && interface.v4 != before.v4 {
                self.join_v4(*index);
            }
            if interface.has_v6 && !before.has_v6 {
                self.join_v6(*index);
            }
        }
        *joined = found;
        true
    }

    fn join_v4(&self, index: u32) {
        let Some(socket) = &self.v4 else { return };
        let joined =
            SockRef::from(socket).join_multicast_v4_n(&self.options.group_v4, &InterfaceIndexOrAddress::Index(index));
        log_join(index, joined);
    }

    fn join_v6(&self, index: u32) {
        let Some(socket) = &self.v6 else { return };
        log_join(index, SockRef::from(socket).join_multicast_v6(&self.options.group_v6, index));
    }

    fn multicast(&self, packet: &[u8]) -> usize {
        let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sent = 0;
        for (index, interface) in joined.iter() {
            if let (Some(socket), Some(address)) = (&self.v4, interface.v4) {
                let socket = SockRef::from(socket);
                let to = SocketAddr::from((self.options.group_v4, self.options.port));
                let went =
                    socket.set_multicast_if_v4(&address).and_then(|()| socket.send_to(packet, &SockAddr::from(to)));
                sent += usize::from(log_sent(*index, went));
            }
            if let (Some(socket), true) = (&self.v6, interface.has_v6) {
                let socket = SockRef::from(socket);
                let to = SocketAddr::from(SocketAddrV6::new(self.options.group_v6, self.options.port, 0, *index));
                let went =
                    socket.set_multicast_if_v6(*index).and_then(|()| socket.send_to(packet, &SockAddr::from(to)));
                sent += usize::from(log_sent(*index, went));
            }
        }
        sent
    }
}

async fn receive(socket: &Option<UdpSocket>, packet: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(packet).await,
        None => std::future::pending().await,
    }
}

/// A socket that several agents on one machine can share.
fn open_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    match address.ip() {
        IpAddr::V4(_) => {
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(1)?;
        }
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_hops_v6(1)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn log_join(index: u32, joined: io::Result<()>) {
    match joined {
        // The interface was away and came back: the membership survived.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => tracing::debug!("no multicast on network interface {index}: {error}"),
        Ok(()) => tracing::debug!("listening for announcements on network interface {index}"),
    }
}

fn log_sent(index: u32, sent: io::Result<usize>) -> bool {
    if let Err(error) = &sent {
        tracing::debug!("cannot announce on network interface {index}: {error}");
    }
    sent.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pairing_code::PairingCode;
    use std::time::Duration;

    const BOUND: Duration = Duration::from_secs(5);

    /// A free port; taken by nobody else as long as the socket lives.
    fn free_port() -> u16 {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn announcement(identity: &Identity) -> Announcement {
        let pairing = Some(PairingCode::generate([1; 5]).nameplate());
        Announcement { device: identity.device_id(), port: 7724, pairing, instance: 1 }
    }

    #[tokio::test]
    async fn two_agents_on_one_machine_hear_each_other_by_multicast() {
        let options = Options { port: free_port(), ..Options::default() };
        let (a, b) = (Discovery::open(options.clone()).unwrap(), Discovery::open(options).unwrap());
        let identity = Identity::generate();
        let said = announcement(&identity);
        if a.announce(&said, &identity).await == 0 {
            eprintln!("skipped: no multicast on this machine");
            return;
        }
        let heard = tokio::time::timeout(BOUND, b.hear()).await.expect("the announcement is heard");
        assert_eq!((heard.address().port(), &heard.announcement), (7724, &said));
        let own = tokio::time::timeout(BOUND, a.hear()).await.expect("the own announcement is heard");
        assert_eq!(own.announcement, said);
    }

    #[tokio::test]
    async fn a_configured_target_is_announced_to_and_garbage_is_dropped_and_counted() {
        let port = free_port();
        let b = Discovery::open(Options { port, ..Options::default() }).unwrap();
        let targets = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let a = Discovery::open(Options { port: free_port(), targets, ..Options::default() }).unwrap();
        let identity = Identity::generate();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(b"not an announcement", ("127.0.0.1", port)).await.unwrap();
        stranger.send_to(&[b'x'; 2000], ("127.0.0.1", port)).await.unwrap();
        assert!(a.announce(&announcement(&identity), &identity).await > 0);
        let heard = tokio::time::timeout(BOUND, b.hear()).await.expect("the announcement is heard");
        assert_eq!(heard.announcement, announcement(&identity));
        assert_eq!(b.garbled(), 2);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "changes network interfaces: run it as root under `unshare -n`"]
    async fn a_new_interface_is_noticed_at_once() {
        let ip = |arguments: &str| {
            let done = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(done.success(), "ip {arguments}");
        };
        ip("link set lo up");
        let discovery = Discovery::open(Options { port: free_port(), ..Options::default() }).unwrap();
        let changed = tokio::time::timeout(BOUND, discovery.interfaces_changed());
        let changing = async {
            ip("link add test0 type veth peer name test1");
            ip("link set test1 up");
            ip("addr add 10.77.24.1/24 dev test0");
            ip("link set test0 up");
        };
        let (changed, ()) = tokio::join!(changed, changing);
        changed.expect("the change is noticed");
    }
}
