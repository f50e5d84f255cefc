//! A slow link within one process: passes connections on, no faster than a rate and later by a delay.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PIECE_BYTES: usize = 16 * 1024;
/// Pieces under way on a link: 16 MiB, more than any window.
const PIECES_MAX: usize = 1024;
/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(5);

/// How fast a device sends, over all its connections.
pub struct Rate {
    bytes_per_second: f64,
    /// When what was let through so far is over.
    free: Mutex<Instant>,
}

impl Rate {
    pub fn new(bytes_per_second: f64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second, free: Mutex::new(Instant::now()) })
    }

    /// Waits until so many bytes may go.
    fn take(&self, bytes: usize) {
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let from = (*free).max(Instant::now().checked_sub(BURST).unwrap_or(*free));
            *free = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// A link from whoever connects to a listening address.
#[derive(Clone)]
pub struct Link {
    pub to: String,
    /// Of the connecting side, and of the other.
    pub rates: [Option<Arc<Rate>>; 2],
    /// Each way.
    pub delay: Duration,
}

impl Link {
    /// Opens the link; the address to connect to. It stays as long as the process.
    pub fn open(self) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Where the other side is not there the connection ends, as it would without a link between.
                let _ = self.pass_on(stream);
            }
        });
        Ok(address)
    }

    fn pass_on(&self, near: TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(&self.to)?;
        let [up, down] = self.rates.clone();
        for (from, to, rate) in [(near.try_clone()?, far.try_clone()?, up), (far, near, down)] {
            to.set_nodelay(true)?;
            let (sender, receiver) = sync_channel(PIECES_MAX);
            let delay = self.delay;
            thread::spawn(move || read(from, &sender, rate.as_deref(), delay));
            thread::spawn(move || write(to, &receiver));
        }
        Ok(())
    }
}

fn read(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>, rate: Option<&Rate>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        if let Some(rate) = rate {
            rate.take(size);
        }
        if pieces.send((Instant::now() + delay, buffer[..size].to_vec())).is_err() {
            break;
        }
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // One side's end is the other's.
    let _ = to.shutdown(Shutdown::Write);
}
