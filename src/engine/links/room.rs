//! How much memory a message takes. On the wire it may be a small part of that.

use crate::core::entry::Kind;
use crate::core::message::{Announced, Exception, Message};

/// What stands around the parts of a message, in this program and in the memory that it was given.
const FIXED_BYTES: usize = 256;

/// An estimate of the memory in bytes that a message takes.
pub fn memory_bytes(message: &Message) -> usize {
    let variable = match message {
        Message::Index(batch) => batch.entries.iter().map(entry_bytes).sum(),
        Message::Repair { entries, .. } => entries.iter().map(entry_bytes).sum(),
        Message::Ack(ack) => ack.exceptions.iter().map(exception_bytes).sum(),
        Message::Found(found) => size_of_val(found.as_slice()),
        Message::Hello(hello) => {
            let runs = hello.cursor.as_ref().map_or(0, |cursor| size_of_val(cursor.runs.as_slice()));
            runs + size_of_val(hello.found.as_slice())
        }
        Message::Digest(report) => size_of_val(report.buckets.as_slice()),
    };
    FIXED_BYTES + variable
}

fn entry_bytes(announced: &Announced) -> usize {
    let entry = &announced.entry;
    let link = if let Kind::Symlink(target) = &entry.kind { target.len() } else { 0 };
    let lists = size_of_val(entry.version.pairs()) + size_of_val(entry.superseded.as_slice());
    size_of::<Announced>() + entry.path.as_bytes().len() + link + lists
}

fn exception_bytes(exception: &Exception) -> usize {
    size_of::<Exception>() + exception.path.as_bytes().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::entry::Entry;
    use crate::core::id::{EpochId, RunId};
    use crate::core::message::{BATCH_ENTRIES_MAX, Batch};
    use crate::core::path::RelPath;
    use crate::core::version::{EPOCHS_MAX, VersionVector};

    #[test]
    fn wide_versions_and_long_paths_count() {
        let announced = |path: &str, epochs: u64| {
            let version = (0..epochs).fold(VersionVector::new(), |v, n| v.with(EpochId(n), 1));
            let entry = Entry { version, ..Entry::nothing(RelPath::parse(path.as_bytes()).expect("a path")) };
            Announced { entry, seq: 1, held: true }
        };
        let bytes = |entries: Vec<Announced>| {
            memory_bytes(&Message::Index(Batch { epoch: EpochId(1), run: RunId(1), entries, upto: 1, more: false }))
        };
        let small = bytes(vec![announced("a", 1)]);
        assert_eq!(bytes(vec![announced(&"a".repeat(200), 1)]), small + 199);
        assert_eq!(bytes(vec![announced("a", 11)]), small + 160);
        assert!(bytes(vec![announced("a", EPOCHS_MAX as u64); BATCH_ENTRIES_MAX]) > 4_000_000);
        assert!(memory_bytes(&Message::Found(vec![(EpochId(1), 1); 1000])) > 16_000);
    }
}
