//! What is on its way into the stage: written by the fetching thread, looked at by whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::id::DeviceId;
use crate::core::path::RelPath;

/// One content on its way.
#[derive(Debug)]
pub struct Transfer {
    pub path: RelPath,
    pub bytes: u64,
    done: AtomicU64,
    from: Mutex<BTreeSet<DeviceId>>,
}

/// How far a transfer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moving {
    pub path: RelPath,
    pub bytes: u64,
    pub done: u64,
    /// Peers that some of it came from.
    pub from: Vec<DeviceId>,
}

/// All transfers of a folder, by the order in which they began.
#[derive(Debug, Default)]
pub struct Transfers(Mutex<BTreeMap<u64, Arc<Transfer>>>);

impl Transfer {
    pub fn new(path: RelPath, bytes: u64) -> Self {
        Self { path, bytes, done: AtomicU64::new(0), from: Mutex::default() }
    }

    /// More of it is here.
    pub fn add(&self, bytes: u64, from: Option<DeviceId>) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if let Some(peer) = from {
            self.from.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        }
    }

    fn look(&self) -> Moving {
        Moving {
            path: self.path.clone(),
            bytes: self.bytes,
            done: self.done.load(Ordering::Relaxed).min(self.bytes),
            from: self.from.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect(),
        }
    }
}

impl Transfers {
    pub fn begin(&self, number: u64, transfer: Arc<Transfer>) {
        self.lock().insert(number, transfer);
    }

    pub fn end(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// How many there are, how much of them is here, and the largest of them, at most `shown`.
    pub fn look(&self, shown: usize) -> (u64, u64, Vec<Moving>) {
        let all: Vec<Arc<Transfer>> = self.lock().values().cloned().collect();
        let done = all.iter().fold(0u64, |sum, t| sum.saturating_add(t.done.load(Ordering::Relaxed).min(t.bytes)));
        let mut largest: Vec<&Arc<Transfer>> = all.iter().collect();
        // The sort keeps the order in which they began among equals.
        largest.sort_by_key(|transfer| std::cmp::Reverse(transfer.bytes));
        (all.len() as u64, done, largest.into_iter().take(shown).map(|transfer| transfer.look()).collect())
    }

    /// True where this path's bytes are on their way.
    pub fn paths(&self) -> BTreeSet<RelPath> {
        self.lock().values().map(|transfer| transfer.path.clone()).collect()
    }

    /// The map is whole after every statement.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Transfer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_shown_and_all_are_counted() {
        let transfers = Transfers::default();
        let path = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        for (number, name, bytes) in [(1, "small", 5), (2, "large", 500), (3, "middle", 50)] {
            let transfer = Arc::new(Transfer::new(path(name), bytes));
            transfer.add(4, (number != 1).then_some(DeviceId([number as u8; 32])));
            transfers.begin(number, transfer);
        }
        let (count, done, shown) = transfers.look(2);
        assert_eq!((count, done), (3, 12));
        let large = Moving { path: path("large"), bytes: 500, done: 4, from: vec![DeviceId([2; 32])] };
        assert_eq!((shown.len(), &shown[0], shown[1].path.to_string().as_str()), (2, &large, "middle"));
        transfers.end(2);
        assert_eq!(transfers.look(1).2[0].path, path("middle"));
        assert_eq!(transfers.paths(), [path("middle"), path("small")].into());
    }

    #[test]
    fn more_than_all_of_it_is_all_of_it() {
        let transfer = Transfer::new(RelPath::parse(b"a").unwrap(), 10);
        transfer.add(8, None);
        transfer.add(8, None);
        assert_eq!(transfer.look().done, 10);
    }
}
