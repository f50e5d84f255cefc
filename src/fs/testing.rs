//! What the tests of this module share: a folder in a temporary directory.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::read::{self, HashedFile, ReadOutcome};
use super::root::{OpenRoot, Root};
use crate::core::disk::DiskState;
use crate::core::path::RelPath;

/// Later than anything a test does, so that no look is racy.
pub const LATER_NS: i64 = i64::MAX / 2;

/// A fresh folder; removed when dropped.
pub struct Folder {
    _dir: tempfile::TempDir,
    pub root: Root,
    pub open: OpenRoot,
}

impl Folder {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("folder"), "test".parse().unwrap());
        root.create().unwrap();
        let open = root.open().unwrap();
        Self { _dir: dir, root, open }
    }

    /// Where a name is for `std`.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), bytes).unwrap();
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    pub fn look(&self, name: &str) -> Option<DiskState> {
        self.open.look(&path(name)).unwrap()
    }

    pub fn examine(&self, name: &str) -> ReadOutcome {
        read::examine(&self.open, &path(name), LATER_NS, &mut Vec::new(), &AtomicBool::new(false))
    }

    pub fn hashed(&self, name: &str) -> HashedFile {
        match self.examine(name) {
            ReadOutcome::Hashed(hashed) => hashed,
            other => panic!("{name}: {other:?}"),
        }
    }
}

pub fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}

/// Bytes that look random and never change (SplitMix64).
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(len);
    out
}
