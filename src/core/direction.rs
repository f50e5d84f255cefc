//! Which way changes go in a folder: both ways, or only from this device, or only to it.
//!
//! What a direction holds back is known and passed on, and counts as missing nowhere.

use super::entry::Entry;

/// Which way changes go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Direction {
    #[default]
    Both,
    /// Nothing that others did changes anything here.
    Send,
    /// What is changed here stays here.
    Receive,
}

impl Direction {
    pub const ALL: [Direction; 3] = [Direction::Both, Direction::Send, Direction::Receive];

    /// Stable name, in the config and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Send => "send",
            Direction::Receive => "receive",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }

    /// True where changes made here are told to others.
    pub fn announces_changes(self) -> bool {
        self != Direction::Receive
    }

    /// True where `rival` may take the place of `ours`: always, but where only what leaves the disk as it is may.
    pub fn admits(self, ours: &Entry, rival: &Entry) -> bool {
        self != Direction::Send
            || (ours.kind == rival.kind
                && (!ours.is_live() || (ours.mode() == rival.mode() && ours.disk_mtime_ns() == rival.disk_mtime_ns())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::entry::Kind;
    use crate::core::path::RelPath;

    #[test]
    fn a_folder_that_only_sends_takes_nothing_that_would_show() {
        let nothing = Entry::nothing(RelPath::parse(b"a").unwrap());
        let file =
            |text: &[u8], mtime_ns| Entry { kind: Kind::File(Content::of_chunk(text)), mtime_ns, ..nothing.clone() };
        let cases = [
            (file(b"x", 1), file(b"y", 1), false),
            (file(b"x", 1), file(b"x", 2), false),
            (file(b"x", 1), file(b"x", 1), true),
            (file(b"x", 1), nothing.clone(), false),
            (nothing.clone(), file(b"x", 1), false),
            (nothing.clone(), nothing.clone(), true),
        ];
        for (ours, rival, expect) in cases {
            assert_eq!(Direction::Send.admits(&ours, &rival), expect);
            assert!(Direction::Both.admits(&ours, &rival) && Direction::Receive.admits(&ours, &rival));
        }
    }

    #[test]
    fn directions_have_names() {
        assert!(Direction::ALL.into_iter().all(|direction| Direction::from_name(direction.name()) == Some(direction)));
        assert_eq!(Direction::from_name("up"), None);
    }
}
