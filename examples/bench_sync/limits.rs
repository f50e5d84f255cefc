//! What this machine can do at best: a copy, plain TCP, hashing.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::data;

const BUFFER_BYTES: usize = 256 * 1024;

/// Seconds for the same bytes as the work beside it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// `cp -r`, and everything on disk after it.
    pub copy: f64,
    /// Over one plain connection to the same machine.
    pub tcp: f64,
    /// SHA-256 on all cores.
    pub hash: f64,
}

/// Measures them for a tree; `to` is where the copy goes.
pub fn measure(from: &Path, to: &Path) -> anyhow::Result<Limits> {
    let files = data::list(from)?;
    let bytes = files.iter().map(|(_, size)| size).sum();
    Ok(Limits { copy: copy(from, to)?, tcp: tcp(bytes)?, hash: hash(from, &files)? })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    ensure!(Command::new("cp").arg("-r").arg(from).arg(to).status()?.success(), "cp fails");
    flush(to)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until all of a file system is on disk.
pub fn flush(at: &Path) -> anyhow::Result<()> {
    Ok(rustix::fs::syncfs(File::open(at)?)?)
}

fn tcp(bytes: u64) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let start = Instant::now();
    send_over(&listener, &address, bytes)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Sends bytes to a listener of this process by way of an address, and returns when all have come.
pub fn send_over(listener: &TcpListener, address: &str, bytes: u64) -> anyhow::Result<()> {
    let address = address.to_owned();
    let sender = thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let (buffer, mut left) = (vec![7; BUFFER_BYTES], bytes);
        while left > 0 {
            let size = left.min(BUFFER_BYTES as u64);
            stream.write_all(&buffer[..size as usize])?;
            left -= size;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    while stream.read(&mut buffer)? > 0 {}
    ensure!(sender.join().is_ok_and(|sent| sent.is_ok()), "the sender fails");
    Ok(())
}

fn hash(root: &Path, files: &[(std::path::PathBuf, u64)]) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    // A single large file is split, as nothing says that one core must do it.
    let cores = thread::available_parallelism()?.get();
    let pieces: Vec<(usize, u64, u64)> = files
        .iter()
        .enumerate()
        .flat_map(|(at, (_, size))| {
            let piece = size.div_ceil(cores as u64).max(1 << 20);
            (0..size.div_ceil(piece)).map(move |number| (at, number * piece, piece.min(size - number * piece)))
        })
        .collect();
    let start = Instant::now();
    let work = || -> std::io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some((file, from, size)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = File::open(root.join(&files[*file].0))?;
            let (mut digest, mut done) = (Sha256::new(), 0);
            while done < *size {
                let want = BUFFER_BYTES.min((size - done) as usize);
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer[..want], from + done)?;
                digest.update(&buffer[..want]);
                done += want as u64;
            }
            std::hint::black_box(digest.finalize());
        }
        Ok(())
    };
    let is_fine = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().all(|thread| thread.join().is_ok_and(|done| done.is_ok()))
    });
    ensure!(is_fine, "the files can't be read");
    Ok(start.elapsed().as_secs_f64())
}
