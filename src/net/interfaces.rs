//! The network interfaces over which multicast goes, and word of their changes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One interface that is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// An address of it, where it has IPv4.
    pub v4: Option<Ipv4Addr>,
    pub has_v6: bool,
}

/// Interfaces by their index.
pub type Interfaces = BTreeMap<u32, Interface>;

/// All interfaces that are up and can do multicast, and loopback.
pub fn list() -> io::Result<Interfaces> {
    let mut all = Interfaces::new();
    for found in if_addrs::get_if_addrs()? {
        let usable = found.is_loopback() || (found.is_oper_up() && can_multicast(&found.name));
        let Some(index) = found.index.filter(|_| usable) else { continue };
        let interface = all.entry(index).or_default();
        match found.ip() {
            IpAddr::V4(address) => interface.v4 = interface.v4.or(Some(address)),
            IpAddr::V6(_) => interface.has_v6 = true,
        }
    }
    Ok(all)
}

/// Where others may reach a listener at this address: itself, or where it is any, those of the interfaces, the likeliest
/// first and at most `count_max`.
pub fn reachable(listening: SocketAddr, count_max: usize) -> Vec<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return vec![listening];
    }
    let mut found: Vec<_> = if_addrs::get_if_addrs().unwrap_or_default();
    // Without a zone, which means nothing elsewhere, a link-local IPv6 address leads nowhere.
    found.retain(|i| i.is_oper_up() && !i.is_loopback() && (i.ip().is_ipv4() || !i.is_link_local()));
    found.retain(|i| listening.is_ipv6() || i.ip().is_ipv4());
    found.sort_by_key(|i| (is_of_containers(&i.name), i.is_link_local(), i.ip().is_ipv6()));
    let mut addresses: Vec<_> = found.into_iter().map(|i| SocketAddr::new(i.ip(), listening.port())).collect();
    addresses.dedup();
    addresses.truncate(count_max);
    addresses
}

/// An interface that leads to containers or virtual machines on this computer, by the usual names.
fn is_of_containers(name: &str) -> bool {
    ["docker", "veth", "br-", "virbr", "cni", "podman", "lxc", "vmnet"].iter().any(|start| name.starts_with(start))
}

#[cfg(target_os = "linux")]
fn can_multicast(name: &str) -> bool {
    /// The interface flag of that name (`<net/if.h>`).
    const IFF_MULTICAST: u32 = 0x1000;
    let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/flags")).unwrap_or_default();
    // Where the flags can't be read, trying does no harm.
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).map_or(true, |flags| flags & IFF_MULTICAST != 0)
}

#[cfg(not(target_os = "linux"))]
fn can_multicast(_name: &str) -> bool {
    true
}

/// Wakes up when links or addresses change, where the system can say so.
pub struct Changes {
    #[cfg(target_os = "linux")]
    netlink: Option<tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>>,
}

#[cfg(target_os = "linux")]
impl Changes {
    /// Must be called within a tokio runtime.
    pub fn watch() -> Self {
        let netlink = open_netlink().and_then(|socket| {
            // SAFETY: the descriptor is owned by what is registered, which neither closes nor replaces it before its end.
            Ok(unsafe { tokio::io::unix::AsyncFd::register(socket) }?)
        });
        if let Err(error) = &netlink {
            tracing::debug!("no word of changed network interfaces: {error}");
        }
        Self { netlink: netlink.ok() }
    }

    /// Returns when something may have changed; never, where the system doesn't say.
    pub async fn next(&self) {
        let Some(netlink) = &self.netlink else { return std::future::pending().await };
        let Ok(mut ready) = netlink.readable().await else { return std::future::pending().await };
        // What changed is found out by listing; the notes themselves are only drained.
        let mut note = [0u8; 8192];
        while rustix::net::recv(netlink.get_ref(), &mut note[..], rustix::net::RecvFlags::empty())
            .is_ok_and(|(_, n)| n > 0)
        {}
        ready.clear_ready();
    }
}

#[cfg(target_os = "linux")]
fn open_netlink() -> io::Result<rustix::fd::OwnedFd> {
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    /// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (`<linux/rtnetlink.h>`).
    const GROUPS: u32 = 0x1 | 0x10 | 0x100;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

#[cfg(not(target_os = "linux"))]
impl Changes {
    pub fn watch() -> Self {
        Self {}
    }

    pub async fn next(&self) {
        std::future::pending().await
    }
}
