//! Trying out the network of this device: whether multicast that is sent comes back, and whether a port is free.
//!
//! Nothing here talks to a peer: what is sent is no announcement, and whoever else hears it drops it.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::interfaces::{self, Interface};
use super::random_bytes;

/// How long a packet of our own may take to come back.
const HEAR_TIME: Duration = Duration::from_millis(500);
/// How long an agent on this device may take to accept a connection.
const ACCEPT_TIME: Duration = Duration::from_secs(2);
/// Start of a packet that is sent to be heard again.
const MAGIC: &[u8; 8] = b"p2probe\x01";

/// How multicast went on one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hearing {
    /// Name of the interface.
    pub interface: String,
    pub is_loopback: bool,
    pub is_v6: bool,
    pub outcome: HearingOutcome,
}

/// What became of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HearingOutcome {
    Heard,
    /// It was sent, but did not come back.
    Lost,
    /// It could not be sent; why.
    NotSent(String),
}

/// Sends a packet to the group on every interface and listens for it.
pub fn multicast(group_v4: Ipv4Addr, group_v6: Ipv6Addr, port: u16) -> io::Result<Vec<Hearing>> {
    let names: Vec<if_addrs::Interface> = if_addrs::get_if_addrs()?;
    let mut found = Vec::new();
    for (index, interface) in interfaces::list()? {
        let named = names.iter().find(|n| n.index == Some(index));
        let name = named.map_or_else(|| index.to_string(), |n| n.name.clone());
        let is_loopback = named.is_some_and(if_addrs::Interface::is_loopback);
        let Interface { v4, has_v6 } = interface;
        let mut hear = |is_v6: bool, sent: io::Result<bool>| {
            let outcome = match sent {
                Ok(true) => HearingOutcome::Heard,
                Ok(false) => HearingOutcome::Lost,
                Err(error) => HearingOutcome::NotSent(error.to_string()),
            };
            found.push(Hearing { interface: name.clone(), is_loopback, is_v6, outcome });
        };
        if let Some(address) = v4 {
            hear(false, try_v4(group_v4, port, index, address));
        }
        if has_v6 {
            hear(true, try_v6(group_v6, port, index));
        }
    }
    Ok(found)
}

fn try_v4(group: Ipv4Addr, port: u16, index: u32, address: Ipv4Addr) -> io::Result<bool> {
    let to = SocketAddr::from((group, port));
    let listener = group_socket(to)?;
    listener.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    sender.set_multicast_if_v4(&address)?;
    sender.set_multicast_loop_v4(true)?;
    sender.set_multicast_ttl_v4(1)?;
    comes_back(&listener, &sender, to)
}

fn try_v6(group: Ipv6Addr, port: u16, index: u32) -> io::Result<bool> {
    let to = SocketAddr::from(SocketAddrV6::new(group, port, 0, index));
    let listener = group_socket(to)?;
    listener.join_multicast_v6(&group, index)?;
    let sender = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    sender.set_multicast_if_v6(index)?;
    sender.set_multicast_loop_v6(true)?;
    sender.set_multicast_hops_v6(1)?;
    comes_back(&listener, &sender, to)
}

/// A socket for packets to the group alone: those to this device are left to an agent that shares the port.
fn group_socket(group: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&group.into())?;
    Ok(socket)
}

fn comes_back(listener: &Socket, sender: &Socket, to: SocketAddr) -> io::Result<bool> {
    let packet = [&MAGIC[..], &random_bytes::<16>()].concat();
    sender.send_to(&packet, &SockAddr::from(to))?;
    let until = Instant::now() + HEAR_TIME;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        listener.set_read_timeout(Some(left))?;
        let mut buffer = [MaybeUninit::uninit(); 64];
        match listener.recv(&mut buffer) {
            Ok(length) => {
                // SAFETY: so many bytes were received into the buffer.
                let heard = buffer[..length.min(64)].iter().map(|byte| unsafe { byte.assume_init() });
                if heard.eq(packet.iter().copied()) {
                    return Ok(true);
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether an address can be listened on now.
pub fn can_listen(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Whether what listens on an address of this device takes connections.
pub fn accepts(address: SocketAddr) -> io::Result<()> {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    TcpStream::connect_timeout(&SocketAddr::new(loopback, address.port()), ACCEPT_TIME).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_in_use_cannot_be_listened_on_but_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(can_listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(accepts(address).is_ok());
        drop(listener);
        assert!(accepts(address).is_err());
        assert!(can_listen(address).is_ok());
    }

    #[test]
    fn every_interface_is_tried_and_names_what_became_of_it() {
        let found = multicast(Ipv4Addr::new(239, 255, 77, 99), "ff02::7799".parse().unwrap(), 47_799).unwrap();
        assert!(found.iter().all(|hearing| !hearing.interface.is_empty()), "{found:?}");
        assert_eq!(found.is_empty(), interfaces::list().unwrap().is_empty());
    }
}
