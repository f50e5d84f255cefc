//! What the tests of this module share: a folder without its thread.

use std::sync::{Arc, RwLock};

use tokio::sync::mpsc;

use super::clock::Clock;
use super::shared::{Event, FolderHandle, INPUTS_QUEUED_MAX, Shared};
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
    let mut shared = Shared::new("test".parse().unwrap(), root, DeviceId([1; 32]), inputs, Clock::system());
    shared.index_path = dir.path().join("index.db");
    shared.rules = RwLock::new(Arc::new(Rules::parse(rules.as_bytes()).0));
    (dir, FolderHandle(Arc::new(shared)), events)
}

pub fn path(name: &str) -> RelPath {
    RelPath::parse(name.as_bytes()).unwrap()
}
