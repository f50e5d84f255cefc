//! Paths that somebody should look at: from the watcher (hints) or from the folder itself (requests).

/// Placeholder until the queue is here.
#[derive(Default)]
pub struct Hints {}
