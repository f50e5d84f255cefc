//! A line on which each connection is slow: more of them are opened, used, and do no harm when they are cut.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::{Agent, World, introduce, wait_connected, wait_same, wait_until};
use crate::tree;

const FILE_BYTES: usize = 48 << 20;
/// What one connection carries each way.
const BYTES_PER_SECOND: f64 = 2e6;
/// Each way.
const DELAY: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces on the line: a quarter of a second.
const PIECES_MAX: usize = 32;
/// The system's own buffers, so that little is hidden in them.
const SYSTEM_BYTES: usize = 64 * 1024;
/// A connection that has carried so much has carried contents.
const USED_BYTES: u64 = 512 * 1024;

/// All connections over one line, in the order in which they were opened.
type Line = Arc<Mutex<Vec<Connection>>>;

struct Connection {
    ends: [TcpStream; 2],
    bytes: Arc<AtomicU64>,
}

impl Connection {
    fn carried(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

fn lock(line: &Line) -> MutexGuard<'_, Vec<Connection>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a line to an address: the address to connect to, and its connections.
fn open_line(to: String) -> (String, Line) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_recv_buffer_size(SYSTEM_BYTES).unwrap();
    let (address, line) = (listener.local_addr().unwrap().to_string(), Line::default());
    let connections = line.clone();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(&to) else { continue };
            SockRef::from(&far).set_recv_buffer_size(SYSTEM_BYTES).unwrap();
            let bytes = Arc::<AtomicU64>::default();
            let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
            lock(&connections).push(Connection { ends, bytes: bytes.clone() });
            for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let (sender, receiver) = sync_channel(PIECES_MAX);
                let bytes = bytes.clone();
                thread::spawn(move || take_in(from, &sender, &bytes));
                thread::spawn(move || deliver(to, &receiver));
            }
        }
    });
    (address, line)
}

fn take_in(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>, bytes: &AtomicU64) {
    let (mut buffer, mut free) = (vec![0; PIECE_BYTES], Instant::now());
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        free = free.max(Instant::now()) + Duration::from_secs_f64(size as f64 / BYTES_PER_SECOND);
        thread::sleep(free.saturating_duration_since(Instant::now()));
        bytes.fetch_add(size as u64, Ordering::Relaxed);
        if pieces.send((Instant::now() + DELAY, buffer[..size].to_vec())).is_err() {
            break;
        }
    }
}

fn deliver(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
    let _ = to.set_nodelay(true);
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Two devices with a line between them: the first dials the second.
fn two(world: &World) -> (Agent, Agent, Line) {
    let (mut dialling, mut dialled) = (world.agent("a"), world.agent("b"));
    let (address, line) = open_line(dialled.listen.clone());
    dialling.ok(&["peer", "add", &dialled.id(), "--name", &dialled.name, "--address", &address]);
    dialled.ok(&["peer", "add", &dialling.id(), "--name", &dialling.name]);
    dialling.start();
    dialled.start();
    wait_connected(&dialling, &dialled);
    (dialling, dialled, line)
}

/// Has a device find a large file.
fn bring_in(world: &World, device: &Agent) {
    fs::write(world.path("aside"), tree::noise(3, FILE_BYTES)).unwrap();
    fs::rename(world.path("aside"), device.at("film")).unwrap();
}

/// Waits until so many connections have carried contents.
fn wait_used(line: &Line, count: usize) {
    wait_until(&format!("{count} connections are used"), || {
        let carried: Vec<u64> = lock(line).iter().map(Connection::carried).collect();
        let used = carried.iter().filter(|bytes| **bytes >= USED_BYTES).count();
        if used >= count { Ok(()) } else { Err(format!("{carried:?}")) }
    });
}

#[test]
fn a_slow_line_gets_more_connections_from_the_device_that_dialled_and_sends() {
    let world = World::new();
    let (dialling, dialled, line) = two(&world);
    bring_in(&world, &dialling);
    wait_used(&line, 4);
    wait_same(&[&dialling, &dialled]);
    assert!(lock(&line).len() <= 8, "{} connections", lock(&line).len());
}

#[test]
fn a_slow_line_gets_more_connections_when_the_dialled_device_sends_and_asks_for_them() {
    let world = World::new();
    let (dialling, dialled, line) = two(&world);
    bring_in(&world, &dialled);
    wait_used(&line, 4);
    wait_same(&[&dialling, &dialled]);
}

#[test]
fn connections_that_are_cut_one_after_the_other_and_all_at_once_lose_nothing() {
    let world = World::new();
    let (dialling, dialled, line) = two(&world);
    bring_in(&world, &dialling);
    wait_used(&line, 3);
    lock(&line)[1].cut();
    wait_until("more has come", || {
        let carried = lock(&line)[0].carried();
        if carried >= 4 * USED_BYTES { Ok(()) } else { Err(format!("{carried} bytes")) }
    });
    let before = {
        let line = lock(&line);
        line[0].cut();
        line.len()
    };
    wait_until("there is a new link", || {
        let count = lock(&line).len();
        if count > before { Ok(()) } else { Err(format!("{count} connections")) }
    });
    wait_same(&[&dialling, &dialled]);
}

#[test]
fn a_fast_line_keeps_to_one_connection() {
    let world = World::new();
    let (mut a, mut b) = (world.agent("a"), world.agent("b"));
    introduce(&a, &b);
    a.start();
    b.start();
    wait_connected(&a, &b);
    bring_in(&world, &a);
    wait_same(&[&a, &b]);
    for agent in [&a, &b] {
        assert!(!agent.log_text().contains("a further connection"));
    }
}
