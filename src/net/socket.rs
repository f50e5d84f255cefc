//! TCP sockets: listening, dialling, and the options that every connection gets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::NetError;

/// Connections that may wait for `accept`; a burst of strangers shall not keep a peer out.
const BACKLOG: i32 = 1024;
#[cfg(target_os = "linux")]
const CONGESTION_CONTROL: &[u8] = b"bbr";
/// How long an address may take to answer a dial.
const DIAL_SECONDS: u64 = 10;
/// Idle time before keep-alive probes, and between them.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Listens on `address`; `[::]` takes IPv4 as well, and falls back to `0.0.0.0` where there is no IPv6.
///
/// Must be called within a tokio runtime.
pub fn listen(address: SocketAddr) -> Result<TcpListener, NetError> {
    match open_listener(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(NetError::PortInUse { address }),
        Err(error) if address.ip() == IpAddr::from([0u16; 8]) => {
            tracing::debug!("no IPv6 here ({error}), listening on IPv4 only");
            let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            open_listener(fallback).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => NetError::PortInUse { address: fallback },
                _ => NetError::Listen { address: fallback, source },
            })
        }
        Err(source) => Err(NetError::Listen { address, source }),
    }
}

/// Dials one address.
pub async fn dial(address: SocketAddr) -> Result<TcpStream, NetError> {
    let connecting = tokio::time::timeout(Duration::from_secs(DIAL_SECONDS), TcpStream::connect(address));
    let timed_out = NetError::TimedOut { what: "connecting", seconds: DIAL_SECONDS };
    let stream = connecting.await.map_err(|_| timed_out)?.map_err(|source| NetError::Connect { address, source })?;
    tune(&stream);
    Ok(stream)
}

/// Sends small frames at once, and notices a peer that vanished. Without these a connection still works.
pub fn tune(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = tuned {
        tracing::debug!("cannot set socket options: {error}");
    }
    if stream.peer_addr().is_ok_and(|peer| !peer.ip().to_canonical().is_loopback()) {
        set_congestion_control(stream);
    }
}

/// Asks for a congestion control that keeps a line full on which packets are lost, which the usual ones take for a line
/// that is too full. Many systems do not have it, or not for everybody; theirs will do as well.
fn set_congestion_control(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(stream).set_tcp_congestion(CONGESTION_CONTROL) {
        tracing::trace!("the system's own congestion control stays: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows the option means something else: it would let two agents share the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_the_port_and_the_setting() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let text = listen(address).unwrap_err().to_string();
        assert!(text.contains(&address.port().to_string()) && text.contains("'listen' in config.toml"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_congestion_control_that_the_system_lacks_does_not_matter() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let stream = dial(listener.local_addr().unwrap()).await.unwrap();
        set_congestion_control(&stream);
        let has_it = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
            .is_ok_and(|names| names.split_whitespace().any(|name| name.as_bytes() == CONGESTION_CONTROL));
        let used = SockRef::from(&stream).tcp_congestion().unwrap();
        assert!(!has_it || used.starts_with(CONGESTION_CONTROL));
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_unspecified_address_takes_ipv4_connections() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (dialled, accepted) = tokio::join!(dial(([127, 0, 0, 1], port).into()), listener.accept());
        assert!(dialled.unwrap().nodelay().unwrap() && accepted.is_ok());
    }
}
