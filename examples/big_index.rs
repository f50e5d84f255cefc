//! Makes a home whose folder's index knows of very many files, none of which exist, and says how long a status of it
//! takes: `cargo run --release --example big_index -- HOME FILES`. The folder is paused, so that an agent can be run on
//! the home without finding out.

use std::path::PathBuf;
use std::time::Instant;

use p2psync::config::{self, NewFolder, NewPeer, Sharing};
use p2psync::core::content::Content;
use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::core::entry::{Entry, Kind};
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::message::{Announced, Cursor};
use p2psync::core::path::RelPath;
use p2psync::core::version::VersionVector;
use p2psync::engine::report;
use p2psync::home::Home;
use p2psync::index::{Index, Mark, PeerRow};

const EPOCH: EpochId = EpochId(1);
const PEERS_EPOCH: EpochId = EpochId(2);
const PEER: DeviceId = DeviceId([7; 32]);
const FILES_PER_DIRECTORY: u64 = 100;
const FILES_PER_COMMIT: u64 = 5000;
/// Statuses of which the fastest and the slowest are told.
const ROUNDS: usize = 20;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [place, files] = &words[..] else { anyhow::bail!("say where, and how many files: HOME FILES") };
    let (place, files) = (PathBuf::from(place), files.parse::<u64>()?);
    let home = Home::at(&place, place.clone());
    let id: FolderId = "big".parse()?;
    home.create()?;
    let (path, label) = (place.join("folder"), "Big".to_owned());
    std::fs::create_dir_all(&path)?;
    config::add_folder(&home, &NewFolder { id: id.clone(), label, path, peers: Sharing::All })?;
    config::add_peer(&home, &NewPeer { id: PEER, name: Some("desk".into()), addresses: Vec::new() })?;
    let config = config::set_pause(&home, std::slice::from_ref(&id), config::Pause::Open)?;
    std::fs::create_dir_all(home.index_file(&id).parent().unwrap_or(&place))?;
    let mut index = Index::open(&home.index_file(&id), EPOCH)?;
    index.start_run(RunId(1))?;
    for first in (0..files).step_by(FILES_PER_COMMIT as usize) {
        index.begin()?;
        for number in first..files.min(first + FILES_PER_COMMIT) {
            index.put(&entry(number, EPOCH, number + 1)?, Some(disk(number)), Mark::Here, 1)?;
        }
        index.commit()?;
    }
    index.set_scanned()?;
    let measure = |what: &str| -> anyhow::Result<()> {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let status = report::status(&home, &config, None)?;
            times.push(start.elapsed());
            anyhow::ensure!(status.folders.iter().all(|f| f.files == files), "{status:?}");
        }
        let (least, most) = (times.iter().min(), times.iter().max());
        println!("{what}: a status takes {:.1?} to {:.1?}", least.unwrap_or(&times[0]), most.unwrap_or(&times[0]));
        Ok(())
    };
    for (what, applied) in [("all at the peer", files), ("half of it at the peer", files / 2)] {
        let cursor = Some(Cursor { epoch: PEERS_EPOCH, seq: 1, runs: Vec::new() });
        let (proved_ms, last_seen_ms) = (Some(1), Some(1));
        let row = PeerRow { device: PEER, cursor, their_last_seq: 1, acked: files, applied, proved_ms, last_seen_ms };
        index.set_peer(&row)?;
        measure(what)?;
    }
    for first in (0..files).step_by(FILES_PER_COMMIT as usize) {
        index.begin()?;
        for number in first..files.min(first + FILES_PER_COMMIT) {
            let entry = entry(number, PEERS_EPOCH, number + 1)?;
            index.put_rival(PEER, &Announced { entry, seq: number + 1, held: true })?;
        }
        index.commit()?;
    }
    measure("all of it to come anew")?;
    index.drop_rivals_of(PEER)?;
    index.set_clean()?;
    Ok(())
}

fn entry(number: u64, epoch: EpochId, count: u64) -> anyhow::Result<Entry> {
    let path = format!("some directory {}/a file with a name {number}", number / FILES_PER_DIRECTORY);
    let content = Content::of_chunk(&[number.to_be_bytes(), epoch.0.to_be_bytes()].concat());
    let mtime_ns = 1_790_000_000_000_000_000;
    let version = VersionVector::new().with(epoch, count);
    Ok(Entry {
        kind: Kind::File(content),
        mtime_ns,
        weight_ns: mtime_ns,
        version,
        ..Entry::nothing(RelPath::parse(path.as_bytes())?)
    })
}

fn disk(number: u64) -> DiskState {
    DiskState { kind: DiskKind::File, size: 16, mtime_ns: 5, ctime_ns: 5, inode: number, mode: 0o644 }
}
