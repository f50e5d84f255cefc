//! Two devices that share a folder.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2psync::api::FolderState;
use tempfile::TempDir;

use crate::data;
use crate::measure::{Cost, Watch};
use crate::support::{Device, wait};

/// Longest time for any work.
pub const BOUND: Duration = Duration::from_secs(1800);
/// Pause between two questions to the agents: their answers take some work, on the cores that are measured.
const SETTLED_LOOK_PAUSE: Duration = Duration::from_millis(50);
/// No deletion waits for a word: that is measured elsewhere.
const CONFIG: &str = "[sync]\nhold_deletes_above = 1000000000\n";

pub struct Pair {
    pub a: Device,
    pub b: Device,
    /// On the same file system as the folders; removed once nobody holds it any more.
    pub places: Arc<TempDir>,
}

impl Pair {
    /// Two devices that know each other; not started. `dir` is where all their files go.
    pub fn new(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let places = tempfile::Builder::new().prefix("bench-sync-").tempdir_in(dir)?;
        let a = Device::new(program, places.path(), "a", CONFIG)?;
        let b = Device::new(program, places.path(), "b", CONFIG)?;
        std::fs::create_dir_all(&a.folder)?;
        Device::pair(&a, &b)?;
        Ok(Self { a, b, places: Arc::new(places) })
    }

    pub fn devices(&self) -> [&Device; 2] {
        [&self.a, &self.b]
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        // Both at once, as their own start is part of what is measured.
        let (a, b) = (&mut self.a, &mut self.b);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| b.start());
            a.start().and(other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic"))))
        })
    }

    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.a.stop()?;
        self.b.stop()
    }

    /// The first sync of what lies in `a`'s folder, from the start of both agents.
    pub fn first_sync(&mut self, files: u64) -> anyhow::Result<Cost> {
        let watch = Watch::begin(&[])?;
        self.start()?;
        self.wait_settled(files)?;
        watch.end(watch.seconds(), &self.devices())
    }

    /// Waits until both say that so many files are here, there, and the same.
    pub fn wait_settled(&self, files: u64) -> anyhow::Result<()> {
        let mut pause = SETTLED_LOOK_PAUSE;
        wait("both are in sync", BOUND, || {
            std::thread::sleep(pause);
            let start = Instant::now();
            let is_settled = is_settled(&self.b, files)? && is_settled(&self.a, files)?;
            // A busy agent takes longer to say that it is not done yet.
            pause = SETTLED_LOOK_PAUSE.max(start.elapsed() * 10);
            Ok(is_settled)
        })
    }

    /// Fails unless both folders hold the same.
    pub fn check(&self) -> anyhow::Result<()> {
        data::is_same(&self.a.folder, &self.b.folder)
    }
}

/// True where a device holds so many files, and it and its peers are in sync.
pub fn is_settled(device: &Device, files: u64) -> anyhow::Result<bool> {
    let status = device.status()?;
    Ok(status.folders.iter().all(|folder| {
        folder.files == files
            && folder.state == FolderState::InSync
            && !folder.peers.is_empty()
            && folder.peers.iter().all(|peer| peer.connected && peer.in_sync)
    }))
}
