//! Tells the user on the desktop what needs him; at most one notice of a kind in a while, and none where there is no
//! desktop session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two notices of one kind.
const KIND_EVERY: Duration = Duration::from_secs(60);
/// Most characters of a notice: desktops cut or refuse long ones.
const NOTICE_CHARS_MAX: usize = 300;

/// What is worth a notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Paired,
    /// A device that is not paired wants to connect.
    Stranger,
    Conflict,
    Halted,
    /// Many deletions wait for the user's word.
    Held,
    DiskFull,
}

/// Whoever has something to tell has one of these.
#[derive(Clone, Default)]
pub struct Notices(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_on: AtomicBool,
    told: Mutex<BTreeMap<Kind, Instant>>,
}

impl Kind {
    /// The kind of an event of a folder; `None` for what is not worth a notice.
    pub fn of_event(kind: &str) -> Option<Self> {
        Some(match kind {
            "conflict" => Kind::Conflict,
            "halted" => Kind::Halted,
            "held" => Kind::Held,
            "disk_full" => Kind::DiskFull,
            _ => return None,
        })
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Paired => "Paired with another device",
            Kind::Stranger => "A device that is not paired wants to connect",
            Kind::Conflict => "A file was changed on two devices at once",
            Kind::Halted => "A folder has stopped syncing",
            Kind::Held => "Many deletions wait for your word",
            Kind::DiskFull => "The disk is full",
        }
    }
}

impl Notices {
    pub fn set_on(&self, is_on: bool) {
        self.0.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Shows a notice, unless there was one of this kind just before. Never waits.
    pub fn tell(&self, kind: Kind, text: &str) {
        if !self.0.is_on.load(Ordering::Relaxed) || !has_desktop() || !self.is_due(kind, Instant::now()) {
            return;
        }
        let text = shown(text);
        // The desktop may take its time.
        let spawned = std::thread::Builder::new().name("notice".into()).spawn(move || {
            let mut notice = notify_rust::Notification::new();
            notice.appname("p2psync").summary(kind.title()).body(&text);
            if let Err(error) = notice.show() {
                tracing::debug!(%error, "the desktop takes no notices");
            }
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "no room for a notice");
        }
    }

    fn is_due(&self, kind: Kind, now: Instant) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.get(&kind).is_none_or(|at| now.saturating_duration_since(*at) >= KIND_EVERY);
        if is_due {
            told.insert(kind, now);
        }
        is_due
    }
}

/// The text cut, and with the characters that desktops take for markup made harmless: names come from peers too.
fn shown(text: &str) -> String {
    let cut = text.chars().filter(|c| !c.is_control()).take(NOTICE_CHARS_MAX);
    cut.fold(String::new(), |mut out, c| {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
        out
    })
}

/// True where somebody may be there to read it.
fn has_desktop() -> bool {
    if cfg!(not(target_os = "linux")) {
        return true;
    }
    let has_bus = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some_and(|address| !address.is_empty());
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
    has_bus || dir.is_some_and(|dir| dir.join("bus").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_notice_of_a_kind_in_a_while_is_enough() {
        let (notices, start) = (Notices::default(), Instant::now());
        assert!(notices.is_due(Kind::Conflict, start) && notices.is_due(Kind::Halted, start));
        assert!(!notices.is_due(Kind::Conflict, start + KIND_EVERY / 2));
        assert!(notices.is_due(Kind::Conflict, start + KIND_EVERY));
    }

    #[test]
    fn what_comes_from_peers_is_cut_and_no_markup() {
        assert_eq!(shown("<b>a&\x1bb"), "&lt;b>a&amp;b");
        assert_eq!(shown(&"x".repeat(9999)).len(), NOTICE_CHARS_MAX);
    }
}
