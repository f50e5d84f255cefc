//! A line that loses packets, between two network namespaces made for it. Needs to be root on Linux, and `ip`.

use std::collections::VecDeque;
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::limits;

/// Longest packet, above what the devices are set to.
const PACKET_BYTES_MAX: usize = 2048;
/// Packets that wait for the line; what comes on top of them is lost, as at any router.
const QUEUE_PACKETS_MAX: usize = 400;
/// Packets on the line.
const PACKETS_MAX: usize = 10_000;
/// Asks a descriptor of the kernel's tunnel device to be a certain one: `TUNSETIFF`.
const ATTACH: rustix::ioctl::Opcode = 0x4004_54ca;
/// Plain IP packets, without a header of the tunnel's: `IFF_TUN | IFF_NO_PI`.
const PLAIN_PACKETS: i16 = 0x1001;

/// What a line is like, each way.
#[derive(Clone, Copy)]
pub struct Quality {
    pub bytes_per_second: f64,
    pub delay: Duration,
    /// Of a thousand packets so many are lost.
    pub lost_of_1000: u64,
}

/// Two namespaces, and the line between them. They go when it is dropped.
pub struct Namespaces {
    names: [String; 2],
}

/// Address of each side.
pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// The network that they are in.
const NETWORK: &str = "10.77.0.0/24";

impl Namespaces {
    pub fn open(quality: Quality) -> anyhow::Result<Self> {
        let names = ["a", "b"].map(|side| format!("p2psync-{}-{side}", std::process::id()));
        let all = Self { names };
        let mut tunnels = Vec::new();
        for (name, address) in all.names.iter().zip(ADDRESSES) {
            ip(&["netns", "add", name])?;
            let within = ["-n", name];
            ip(&[&within[..], &["link", "set", "lo", "up"]].concat())?;
            ip(&[&within[..], &["tuntap", "add", "line", "mode", "tun"]].concat())?;
            ip(&[&within[..], &["addr", "add", &format!("{address}/24"), "dev", "line"]].concat())?;
            ip(&[&within[..], &["link", "set", "line", "up"]].concat())?;
            tunnels.push(within_namespace(name, attach)?);
        }
        let [a, b] = [tunnels.remove(0), tunnels.remove(0)];
        for (seed, from, to) in [(1, a.try_clone()?, b.try_clone()?), (2, b, a)] {
            pass_on(seed, from, to, quality);
        }
        Ok(all)
    }

    /// A program that runs another on one side.
    pub fn wrap(&self, side: usize, program: &Path, places: &Path) -> anyhow::Result<PathBuf> {
        let at = places.join(format!("on-side-{side}"));
        let text = format!("#!/bin/sh\nexec ip netns exec {} '{}' \"$@\"\n", self.names[side], program.display());
        std::fs::write(&at, text)?;
        std::fs::set_permissions(&at, Permissions::from_mode(0o755))?;
        Ok(at)
    }

    /// What connections on both sides get that do not ask for a congestion control of their own.
    pub fn set_congestion_control(&self, name: &'static str) -> anyhow::Result<()> {
        self.names.iter().try_for_each(|side| {
            within_namespace(side, move || Ok(std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name)?))
        })
    }

    /// What connections on both sides get, whatever they ask for.
    pub fn force_congestion_control(&self, name: &str) -> anyhow::Result<()> {
        self.names
            .iter()
            .try_for_each(|side| ip(&["-n", side, "route", "replace", NETWORK, "dev", "line", "congctl", "lock", name]))
    }

    /// Seconds for so many bytes over one plain connection.
    pub fn plain_seconds(&self, bytes: u64) -> anyhow::Result<f64> {
        let address = format!("{}:7777", ADDRESSES[1]);
        let listening = address.clone();
        let listener = within_namespace(&self.names[1], move || Ok(TcpListener::bind(listening)?))?;
        let start = Instant::now();
        within_namespace(&self.names[0], move || limits::send_over(&listener, &address, bytes))?;
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("the network namespace {name} is left: {error:#}");
            }
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("'ip' cannot be run")?;
    ensure!(output.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Does something on a thread of its own that is in a namespace. What it starts, threads too, is in there as well.
fn within_namespace<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    use std::os::fd::AsFd;
    let namespace = File::open(Path::new("/var/run/netns").join(name))?;
    let thread = thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    });
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))
}

/// What the kernel is told of a network device.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

fn attach() -> anyhow::Result<File> {
    let tunnel = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut interface = Interface { name: [0; 16], flags: PLAIN_PACKETS, rest: [0; 22] };
    interface.name[..4].copy_from_slice(b"line");
    // SAFETY: the kernel reads a structure of this shape and size for this request.
    unsafe { rustix::ioctl::ioctl(&tunnel, rustix::ioctl::Setter::<ATTACH, Interface>::new(interface)) }?;
    Ok(tunnel)
}

/// Passes packets on, for as long as both sides are there.
fn pass_on(seed: u64, mut from: File, to: File, quality: Quality) {
    let (sender, receiver) = sync_channel(PACKETS_MAX);
    thread::spawn(move || deliver(to, &receiver));
    thread::spawn(move || {
        let (mut buffer, mut random, mut free) = ([0; PACKET_BYTES_MAX], seed, Instant::now());
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        while let Ok(length) = from.read(&mut buffer) {
            let now = Instant::now();
            while waiting.front().is_some_and(|sent| *sent <= now) {
                waiting.pop_front();
            }
            // A simple generator will do: the same packets are lost each time.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (random >> 33) % 1000 < quality.lost_of_1000 || waiting.len() >= QUEUE_PACKETS_MAX {
                continue;
            }
            free = free.max(now) + Duration::from_secs_f64(length as f64 / quality.bytes_per_second);
            waiting.push_back(free);
            if put(&sender, (free + quality.delay, buffer[..length].to_vec())).is_none() {
                return;
            }
        }
    });
}

type Packet = (Instant, Vec<u8>);

fn put(sender: &SyncSender<Packet>, packet: Packet) -> Option<()> {
    sender.send(packet).ok()
}

fn deliver(mut to: File, packets: &Receiver<Packet>) {
    while let Ok((due, packet)) = packets.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&packet).is_err() {
            return;
        }
    }
}
