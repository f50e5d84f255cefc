//! What happens in the folders, told as it happens to whoever listens at that moment.
//!
//! The index keeps the same events; whoever has missed some finds them there.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::core::id::FolderId;
use crate::index::EventRow;

/// Events that wait for a slow listener; it is told how many it has missed beyond that.
const EVENTS_QUEUED_MAX: usize = 1024;

/// Cheap handle; all clones are one feed.
#[derive(Clone)]
pub struct Feed(broadcast::Sender<Arc<Happened>>);

/// An event in a folder.
pub struct Happened {
    pub folder: FolderId,
    /// As the log has it, but for its number there.
    pub event: EventRow,
}

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_QUEUED_MAX))
    }
}

impl Feed {
    /// Tells all who listen; never waits for them.
    pub fn tell(&self, happened: impl FnOnce() -> Happened) {
        if self.0.receiver_count() > 0 {
            // That all have gone meanwhile is no fault.
            let _ = self.0.send(Arc::new(happened()));
        }
    }

    /// Everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Happened>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broadcast::error::TryRecvError;

    fn happened(n: usize) -> Happened {
        let event = EventRow { id: 0, at_ms: 0, kind: "added".into(), path: None, text: n.to_string() };
        Happened { folder: "f".parse().unwrap(), event }
    }

    #[test]
    fn a_listener_that_is_too_slow_learns_how_much_it_has_missed_and_the_rest_in_order() {
        let feed = Feed::default();
        feed.tell(|| panic!("nobody listens"));
        let mut listener = feed.listen();
        (0..EVENTS_QUEUED_MAX + 5).for_each(|n| feed.tell(|| happened(n)));
        assert!(matches!(listener.try_recv(), Err(TryRecvError::Lagged(5))));
        for n in 5..EVENTS_QUEUED_MAX + 5 {
            assert_eq!(listener.try_recv().unwrap().event.text, n.to_string());
        }
        assert!(matches!(listener.try_recv(), Err(TryRecvError::Empty)));
    }
}
