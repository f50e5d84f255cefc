//! The power goes: an agent on a file system of its own, of which only what was written through is there afterwards.
//!
//! The file system lies in a file. What its loop device has written to that file is what a disk would have at this
//! moment; what only the kernel remembers is not in it. A copy of the file taken while the agent stands still and no
//! write is under way is thus what is found after a power cut. Needs the rights to mount; says so where they lack.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

use crate::crash_pair::files_below;
use crate::harness::{Agent, FOLDER, World, introduce, wait_connected, wait_settled, wait_until};
use crate::tree::{self, noise};

/// Rounds of the short form, and the variable that asks for more.
const ROUNDS: u64 = 3;
const ROUNDS_VARIABLE: &str = "P2PSYNC_TEST_POWER_ROUNDS";
/// Size of the file system: more than the smallest that any of the tools makes.
const IMAGE_BYTES: u64 = 320 << 20;
/// Changes before the power goes: at least, and how many more there may be.
const CHANGES: (u64, u64) = (40, 160);
/// Files that each side works on.
const FILES: u64 = 60;
/// Paths of which the peer is asked whether they are safe on the other device.
const ASKED_MAX: usize = 40;

/// A file system in a file, mounted until this is dropped.
struct Disk {
    image: PathBuf,
    at: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// `None` where such a thing cannot be made or mounted here.
    fn new(world: &World, kind: &str) -> Option<Self> {
        let (image, at) = (world.path("image"), world.path("disk"));
        File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        fs::create_dir(&at).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
        let is_made = made.is_ok_and(|output| output.status.success());
        let mut disk = Self { image, at, is_mounted: false };
        (is_made && disk.mount().is_ok()).then_some(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let output = Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.at]).output();
        let output = output.map_err(|e| e.to_string())?;
        self.is_mounted = output.status.success();
        if self.is_mounted { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn unmount(&mut self) {
        wait_until("the disk is unmounted", || {
            let output = Command::new("umount").arg(&self.at).output().unwrap();
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
        self.is_mounted = false;
    }

    /// Completed writes and those under way, as the loop device counts them.
    fn writes(&self) -> (String, String) {
        let found = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at).output().unwrap();
        let device = String::from_utf8(found.stdout).unwrap();
        let name = device.trim().rsplit('/').next().unwrap().to_owned();
        let numbers = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let mut numbers = numbers.split_whitespace().map(str::to_owned);
        (numbers.nth(4).unwrap(), numbers.nth(3).unwrap())
    }

    /// What would be on the disk if the power went now. Nobody may write to it meanwhile but the kernel.
    fn copy(&self, to: &Path) {
        wait_until("the disk holds still for a copy", || {
            let before = self.writes();
            let copied = Command::new("cp").arg("--sparse=always").args([&self.image, to]).status().unwrap();
            assert!(copied.success());
            let is_still = before.1 == "0" && self.writes() == before;
            if is_still { Ok(()) } else { Err(format!("writes: {before:?}")) }
        });
    }

    /// Goes on with a copy in place of what was there.
    fn become_copy(&mut self, copy: &Path) {
        self.unmount();
        fs::rename(copy, &self.image).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Whoever still uses it keeps it alive; it goes with the last one.
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

/// Everything that was ever written, and what has to survive.
#[derive(Default)]
struct Ledger {
    by_path: BTreeMap<String, BTreeSet<Vec<u8>>>,
    versions: u64,
}

impl Ledger {
    fn version(&mut self, path: &str, bytes: usize) -> Vec<u8> {
        self.versions += 1;
        let bytes = noise(self.versions, bytes);
        self.by_path.entry(path.to_owned()).or_default().insert(bytes.clone());
        bytes
    }

    /// A number below `most`, different every time.
    fn choose(&mut self, most: u64) -> u64 {
        self.versions += 1;
        let bytes = noise(self.versions ^ 0x5eed, 8);
        u64::from_le_bytes(bytes.try_into().unwrap()) % most
    }

    /// The peer's user changes something; nobody waits for it to be on a disk.
    fn change_at_peer(&mut self, peer: &Agent) {
        let path = format!("from peer/{}/{}", self.choose(5), self.choose(FILES));
        match self.choose(10) {
            0 => drop(fs::remove_file(peer.at(&path))),
            1 => {
                let to = format!("{path} moved {}", self.versions);
                if fs::rename(peer.at(&path), peer.at(&to)).is_ok() {
                    let all = self.by_path.get(&path).cloned().unwrap_or_default();
                    self.by_path.entry(to).or_default().extend(all);
                }
            }
            2 => self.replace(peer, &path, 1 << 20),
            _ => self.replace(peer, &path, 5000),
        }
    }

    /// Puts a new version in place whole: else an empty file could be seen for a moment, and be a version too.
    fn replace(&mut self, agent: &Agent, path: &str, bytes: usize) {
        let (outside, at) = (agent.base.join("outside"), agent.at(path));
        fs::write(&outside, self.version(path, bytes)).unwrap();
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::rename(outside, at).unwrap();
    }

    /// The victim's user saves a file as an editor does that cares.
    fn save_at_victim(&mut self, victim: &Agent, saved: &mut BTreeMap<String, Vec<u8>>) {
        let path = format!("saved here/{}", self.choose(FILES));
        let bytes = self.version(&path, 4000);
        fs::create_dir_all(victim.at("saved here")).unwrap();
        let temporary = victim.at(".p2psync/../saved here/.new.swp");
        let mut file = File::create(&temporary).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        fs::rename(temporary, victim.at(&path)).unwrap();
        for dir in ["saved here", ""] {
            File::open(victim.at(dir)).unwrap().sync_all().unwrap();
        }
        saved.insert(path, bytes);
    }

    /// Looks whether every file is some whole version of itself.
    fn check_whole(&self, agent: &Agent) {
        for (path, node) in tree::nodes(&agent.root).unwrap() {
            let path = String::from_utf8(path).unwrap();
            // A temporary file of the editor is nobody's promise.
            if node.kind == "file" && !path.ends_with(".swp") {
                let bytes = fs::read(agent.at(&path)).unwrap();
                let is_whole = self.by_path.get(&path).is_some_and(|all| all.contains(&bytes));
                assert!(is_whole, "'{path}' is torn: {} bytes", bytes.len());
            }
        }
    }
}

/// Those of the peer's own files that it says to be safe on the other device, with their bytes.
fn safe_at_victim(peer: &Agent, ledger: &mut Ledger) -> Vec<(String, Vec<u8>)> {
    let paths = tree::nodes(&peer.root).unwrap().into_iter().filter(|(_, node)| node.kind == "file");
    let paths = paths.map(|(path, _)| String::from_utf8(path).unwrap());
    let mut paths: Vec<String> = paths.filter(|path| path.starts_with("from peer/")).collect();
    let mut safe = Vec::new();
    for _ in 0..ASKED_MAX.min(paths.len()) {
        let path = paths.swap_remove(ledger.choose(paths.len() as u64) as usize);
        if peer.path_status(&peer.at(&path)).peers.iter().any(|other| other.has_it) {
            let bytes = peer.read(&path);
            safe.push((path, bytes));
        }
    }
    safe
}

/// Looks into a copy of the index, so that the agent finds it as the power cut left it.
fn check_index(agent: &Agent, copy: &Path) {
    fs::create_dir_all(copy).unwrap();
    for item in fs::read_dir(agent.home.join("index")).unwrap() {
        let item = item.unwrap();
        fs::copy(item.path(), copy.join(item.file_name())).unwrap();
    }
    let index = copy.join(format!("{FOLDER}.db"));
    let connection = Connection::open_with_flags(index, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let verdict: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    fs::remove_dir_all(copy).unwrap();
}

/// Rounds of work, power cut and recovery on one kind of file system.
fn lose_power(kind: &str, rounds: u64) {
    let world = World::new();
    let Some(mut disk) = Disk::new(&world, kind) else {
        eprintln!("skipped: a file system of the kind {kind} cannot be made and mounted here");
        return;
    };
    let (mut peer, mut victim) = (world.agent("peer"), world.agent("disk/victim"));
    introduce(&peer, &victim);
    peer.start();
    victim.start();
    wait_connected(&peer, &victim);
    let (mut ledger, mut saved) = (Ledger::default(), BTreeMap::new());
    for round in 0..rounds {
        let changes = CHANGES.0 + ledger.choose(CHANGES.1);
        for _ in 0..changes {
            ledger.change_at_peer(&peer);
            if ledger.choose(4) == 0 {
                ledger.save_at_victim(&victim, &mut saved);
            }
        }
        victim.freeze();
        let copy = world.path("copy");
        disk.copy(&copy);
        victim.kill();
        let safe = safe_at_victim(&peer, &mut ledger);
        disk.become_copy(&copy);
        check_index(&victim, &world.path("index copy"));
        ledger.check_whole(&victim);
        for (path, bytes) in &safe {
            let found = fs::read(victim.at(path)).ok();
            assert!(found.as_ref() == Some(bytes), "round {round}: '{path}' was said to be safe");
        }
        for (path, bytes) in &saved {
            assert!(&victim.read(path) == bytes, "round {round}: '{path}' was saved and is gone");
        }
        victim.start();
        wait_settled(&[&peer, &victim]);
        ledger.check_whole(&victim);
        assert_eq!(tree::conflict_copies(&peer.root), Vec::<String>::new(), "round {round}");
        let mut kept = BTreeSet::new();
        [&peer, &victim].iter().for_each(|agent| files_below(&agent.root, &mut kept));
        assert!(safe.iter().all(|(_, bytes)| kept.contains(bytes)), "round {round}: a safe version is gone");
        assert!(saved.values().all(|bytes| kept.contains(bytes)), "round {round}: a saved version is gone");
        eprintln!("{kind}, round {round}: {changes} changes, {} asked and safe, {} saved", safe.len(), saved.len());
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_said_to_be_safe() {
    let rounds = std::env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok());
    lose_power("ext4", rounds.unwrap_or(ROUNDS));
    if let Some(rounds) = rounds {
        lose_power("xfs", rounds);
        lose_power("btrfs", rounds);
    }
}
