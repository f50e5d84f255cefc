//! What lies at a path now, compared with what was seen there last.

use super::path::{Known, State, Surroundings, Verdict};
use super::words;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::Kind;
use crate::core::problem::ProblemKind;

impl Surroundings<'_> {
    /// A disk that is not as it was when it was last looked at.
    pub fn changed_since(&self, known: &Known) -> Option<Verdict> {
        let now = known.disk?;
        let before = known.record.as_ref().and_then(|r| r.disk);
        let text = match (before, now) {
            (None, Some(_)) => "It is new here and has not been looked at yet.",
            (Some(_), None) => "It is gone from here, which has not been looked at yet.",
            (Some(before), Some(now)) if !is_alike(&before, &now) => "It has just changed here and is looked at soon.",
            _ => return None,
        };
        Some((State::Syncing, vec![text.to_owned()]))
    }

    /// What lies here, in words.
    pub fn here(&self, known: &Known) -> String {
        let Some(disk) = known.disk else { return self.unseen(known) };
        let Some(disk) = disk else { return "nothing".to_owned() };
        let changed = || words::ago(disk.mtime_ns / 1_000_000, self.view.asker.now_ms);
        let author = known.record.as_ref().and_then(|r| self.view.asker.author(&r.entry.author));
        let by = author.map(|name| format!(" by {name}")).unwrap_or_default();
        match (disk.kind, known.record.as_ref().map(|r| &r.entry.kind)) {
            (DiskKind::Directory, _) => "a directory".to_owned(),
            (DiskKind::Symlink, Some(Kind::Symlink(target))) => {
                format!("a symbolic link to {}", String::from_utf8_lossy(target).escape_debug())
            }
            (DiskKind::Symlink, _) => "a symbolic link".to_owned(),
            (DiskKind::File, _) => format!("a file of {}, changed {}{by}", words::bytes(disk.size), changed()),
        }
    }

    /// Why it is not known what lies here.
    fn unseen(&self, known: &Known) -> String {
        let Ok(root) = &self.root else { return "not known, the folder cannot be looked at".to_owned() };
        match root.look(&known.path) {
            Err(problem) if problem.kind == ProblemKind::SpecialFile => "a socket, FIFO or device".to_owned(),
            Err(problem) => format!("not known: {}", problem.text),
            Ok(_) => "not known, it is changing right now".to_owned(),
        }
    }
}

fn is_alike(before: &DiskState, now: &DiskState) -> bool {
    before.kind == now.kind
        && (now.kind == DiskKind::Directory || (before.size == now.size && before.mtime_ns == now.mtime_ns))
}
