//! What the tests of this module share: a folder without its thread.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::mpsc;

use super::folder::{Event, FolderHandle, INPUTS_QUEUED_MAX, Live, Shared};
use super::hints::Hints;
use crate::core::id::DeviceId;
use crate::core::ignore::Rules;
use crate::core::path::RelPath;
use crate::fs::root::Root;

/// A folder in a temporary directory, with what its thread would be told.
pub fn folder(rules: &str) -> (tempfile::TempDir, FolderHandle, mpsc::Receiver<Event>) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().join("folder"), "test".parse().unwrap());
    root.create().unwrap();
    let (inputs, events) = mpsc::channel(INPUTS_QUEUED_MAX);
    let shared = Shared {
        id: "test".parse().unwrap(),
        label: "test".into(),
        root,
        device: DeviceId([1; 32]),
        index_path: dir.path().join("index.db"),
        inputs,
        rules: RwLock::new(Arc::new(Rules::parse(rules.as_bytes()).0)),
        hints: Hints::default(),
        applying: Mutex::default(),
        suspicious_boot: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        live: Live::default(),
        links: Default::default(),
    };
    (dir, FolderHandle(Arc::new(shared)), events)
}

pub fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}
