//! What users did, kept apart from all that the agents know: every version ever written, and what became of it by a
//! user's own hand.
//!
//! Every version has bytes of its own, so a version is known by its bytes wherever it turns up.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;

/// Longest line of filling in a version, so that torn files are told from whole ones.
const FILL_MAX: usize = 40;

/// Where and when a version was written.
#[derive(Clone, Debug)]
pub struct Origin {
    pub device: usize,
    pub path: String,
}

/// See the module.
#[derive(Default)]
pub struct Ledger {
    versions: BTreeMap<Vec<u8>, Origin>,
    /// A user who had it before his eyes replaced or removed it.
    given_up: BTreeSet<Vec<u8>>,
    /// Lost where nobody could have kept it: in a power cut before it was durable, or with a device thrown away.
    excused: BTreeSet<Vec<u8>>,
    common: BTreeSet<Vec<u8>>,
    /// Written or renamed, and not made durable by the user since.
    unsynced: BTreeSet<(usize, Vec<u8>)>,
    /// Users have moved or copied this, at these devices, so it may rightly be in several places, or where it is not synced.
    moved: BTreeMap<Vec<u8>, BTreeSet<usize>>,
    /// Left by a power cut in a file that its user had not synced.
    torn: BTreeSet<Vec<u8>>,
    next: u64,
    /// For the trace.
    pub noted: Vec<String>,
}

impl Ledger {
    /// Bytes that nobody has written before, of random length.
    pub fn fresh(&mut self, random: &mut Random) -> Vec<u8> {
        self.next += 1;
        let fill = "=-".repeat(random.below(FILL_MAX));
        format!("version {} {fill} end of {}\n", self.next, self.next).into_bytes()
    }

    /// A user has written this, as a whole state of a file.
    pub fn wrote(&mut self, bytes: &[u8], device: usize, path: &str) {
        if bytes.is_empty() || self.common.contains(bytes) {
            return;
        }
        self.unsynced.insert((device, bytes.to_vec()));
        // Whoever writes an old version again wants it to be there.
        self.given_up.remove(bytes);
        self.excused.remove(bytes);
        self.versions.entry(bytes.to_vec()).or_insert_with(|| Origin { device, path: path.to_owned() });
    }

    /// A user has given other names to this.
    pub fn moved(&mut self, bytes: &[u8], device: usize) {
        self.moved.entry(bytes.to_vec()).or_default().insert(device);
        self.unsynced.insert((device, bytes.to_vec()));
    }

    pub fn was_moved(&self, bytes: &[u8]) -> bool {
        self.moved.contains_key(bytes)
    }

    /// True where a user has moved or copied it at this device.
    pub fn was_moved_at(&self, bytes: &[u8], device: usize) -> bool {
        self.moved.get(bytes).is_some_and(|devices| devices.contains(&device))
    }

    /// At how many devices users have moved or copied it.
    pub fn movers(&self, bytes: &[u8]) -> usize {
        self.moved.get(bytes).map_or(0, BTreeSet::len)
    }

    /// All that was done at a device is durable.
    pub fn synced(&mut self, device: usize) {
        self.unsynced.retain(|(at, _)| *at != device);
    }

    /// Bytes went with the power. That is nobody's fault where nobody had waited for the disk.
    pub fn lost_unsynced(&mut self, bytes: &[u8], device: usize) {
        if self.unsynced.contains(&(device, bytes.to_vec())) {
            self.excuse(bytes);
        }
    }

    /// A user has written bytes that are not one version's alone, so nothing can be said of where they have to be.
    pub fn wrote_common(&mut self, bytes: &[u8]) {
        self.common.insert(bytes.to_vec());
    }

    /// A user has replaced or removed a file that held this.
    pub fn gave_up(&mut self, bytes: &[u8]) {
        self.given_up.insert(bytes.to_vec());
    }

    /// It was lost where nobody could have kept it.
    pub fn excuse(&mut self, bytes: &[u8]) {
        self.excused.insert(bytes.to_vec());
    }

    /// A power cut has left this of what a user had not synced.
    pub fn tore(&mut self, bytes: &[u8]) {
        self.excuse(bytes);
        self.torn.insert(bytes.to_vec());
    }

    pub fn is_torn(&self, bytes: &[u8]) -> bool {
        self.torn.contains(bytes)
    }

    /// True for bytes that several users have written alike.
    pub fn is_common(&self, bytes: &[u8]) -> bool {
        self.common.contains(bytes)
    }

    /// True for whole states that a user has written.
    pub fn is_known(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.common.contains(bytes) || self.versions.contains_key(bytes)
    }

    /// How many versions were written.
    pub fn count(&self) -> usize {
        self.versions.len()
    }

    /// True for bytes that an agent may have lost: nobody wants them, or nobody could have kept them.
    pub fn may_go(&self, bytes: &[u8]) -> bool {
        self.given_up.contains(bytes)
            || self.excused.contains(bytes)
            || self.common.contains(bytes)
            || !self.versions.contains_key(bytes)
    }

    /// Versions that have to be somewhere in the tree of a device.
    pub fn wanted(&self) -> impl Iterator<Item = (&Vec<u8>, &Origin)> {
        self.versions.iter().filter(|(bytes, _)| !self.given_up.contains(*bytes) && !self.excused.contains(*bytes))
    }
}
