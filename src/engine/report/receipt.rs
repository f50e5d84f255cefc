//! Receipts: which peers have what is here, as their acknowledgements say.

use super::{Asker, View};
use crate::api::{WaitItem, WaitPeer, WaitReport};
use crate::config::{Folder, Peer};
use crate::core::id::DeviceId;
use crate::core::message::{EXCEPTIONS_MAX, Exception, Reason};
use crate::core::path::RelPath;
use crate::index::{IndexError, Mark, Reader, Record};

/// Missing paths that are named for each peer.
const NAMED_MAX: usize = 5;
/// Entries that are looked at to count the files that only this device has: a count of more helps nobody.
const COUNTED_MAX: usize = 100_000;

/// What is waited for: one path or a whole folder, up to a moment.
pub struct Awaited<'a> {
    pub path: Option<&'a RelPath>,
    /// Last sequence number of ours that matters.
    pub upto: u64,
    /// How many peers are to hold it; `None` for all that share the folder.
    pub peers: Option<u32>,
}

/// Which peers hold what is waited for.
pub(super) fn read(asker: Asker, folder: &Folder, awaited: &Awaited) -> Result<WaitReport, IndexError> {
    let view = asker.open(folder)?;
    let record = match awaited.path {
        Some(path) => view.reader.record(path)?,
        None => None,
    };
    let all: Vec<WaitPeer> =
        view.peers().map(|peer| one(&view, peer, awaited, record.as_ref())).collect::<Result<_, _>>()?;
    let wanted = awaited.peers.unwrap_or(u32::try_from(all.len()).unwrap_or(u32::MAX));
    let holding = u32::try_from(all.iter().filter(|peer| peer.holds).count()).unwrap_or(u32::MAX);
    let place = awaited.path.map_or(folder.path.clone(), |path| folder.path.join(path.to_string()));
    let trouble = trouble(&view, awaited.path, record.as_ref())?;
    Ok(WaitReport {
        path: place.to_string_lossy().into_owned(),
        folder: folder.label.clone(),
        done: trouble.is_none() && !all.is_empty() && holding >= wanted,
        wanted,
        holding,
        peers: all,
        upto: Some(awaited.upto),
        trouble,
    })
}

/// What keeps this device from having told others of it.
fn trouble(view: &View, path: Option<&RelPath>, record: Option<&Record>) -> Result<Option<String>, IndexError> {
    if view.peers().next().is_none() {
        return Ok(Some("no other device shares this folder; 'p2psync pair' adds one".to_owned()));
    }
    let Some(path) = path else { return Ok(None) };
    let text = match record {
        None if view.reader.problem(path)?.is_some() => "it cannot be read here; 'p2psync status PATH' says why",
        None => "there is no such file in the folder",
        Some(record) => match record.mark {
            Mark::Ignored => "it is ignored by a rule on this device, so other devices do not get it from here",
            Mark::Held => "its deletion waits for your word: 'p2psync folder confirm-changes'",
            Mark::Suspect => {
                "it changed suddenly in a crash of this machine and is not passed on; 'p2psync status PATH'"
            }
            Mark::Declined => "this disk cannot hold it",
            Mark::Own => "the folder only receives, so what was changed here stays here: 'p2psync folder direction'",
            Mark::Reverted => "the change made here is being taken back",
            Mark::Here | Mark::Missing | Mark::Kept => return Ok(None),
        },
    };
    Ok(Some(text.to_owned()))
}

fn one(view: &View, peer: &Peer, awaited: &Awaited, record: Option<&Record>) -> Result<WaitPeer, IndexError> {
    let row = view.reader.peer(peer.id)?;
    let applied = row.as_ref().filter(|row| row.cursor.is_some()).map_or(0, |row| row.applied);
    let mut waited = WaitPeer {
        device_id: peer.id.to_string(),
        name: peer.name.clone(),
        connected: view.is_connected(&peer.id) || view.is_unshared(&peer.id),
        lacks_folder: view.is_unshared(&peer.id),
        last_seen_ms: row.as_ref().and_then(|row| row.last_seen_ms),
        ..WaitPeer::default()
    };
    let mut name = |path: &RelPath, text: &str| {
        if waited.missing.len() < NAMED_MAX {
            waited.missing.push(WaitItem { path: path.to_string(), text: text.to_owned() });
        }
    };
    let (mut missing, mut deleted, mut refused) = (0, 0, 0);
    // Of one file its present version counts, whenever that came to be.
    if let Some(record) = record.filter(|record| record.seq > applied) {
        missing += 1;
        deleted += u64::from(!record.entry.is_live());
        name(&record.entry.path, lacking(record));
    }
    let is_file = record.is_some_and(|record| record.entry.is_live() && !record.entry.kind.is_directory());
    if !is_file {
        let (changed, gone) = view.reader.count_between(applied, awaited.upto, awaited.path)?;
        (missing, deleted) = (missing + changed, deleted + gone);
        for path in view.reader.paths_between(applied, awaited.upto, awaited.path, NAMED_MAX)? {
            name(&path, view.reader.record(&path)?.as_ref().map_or(NOT_THERE, lacking));
        }
    }
    for exception in exceptions(&view.reader, peer.id, awaited.path)? {
        let is_refused = matches!(exception.reason, Reason::Ignored | Reason::Declined);
        // What it has not even received is counted already.
        if exception.seq > applied || (exception.seq > awaited.upto && !is_file) {
            continue;
        }
        name(&exception.path, why(exception.reason));
        if is_refused {
            refused += 1;
        } else {
            missing += 1;
        }
    }
    let is_only_refused = is_file && refused > 0;
    (waited.missing_items, waited.deleted_items, waited.refused_items) = (missing, deleted, refused);
    waited.holds = row.is_some_and(|row| row.cursor.is_some()) && missing == 0 && !is_only_refused;
    Ok(waited)
}

/// What is said of a path whose last change a peer does not have.
const NOT_THERE: &str = "is not there yet";

fn lacking(record: &Record) -> &'static str {
    if record.entry.is_live() { NOT_THERE } else { "was deleted here and is still there" }
}

/// What a peer has not applied at or below a path.
fn exceptions(reader: &Reader, peer: DeviceId, path: Option<&RelPath>) -> Result<Vec<Exception>, IndexError> {
    let mut all = reader.exceptions(peer, EXCEPTIONS_MAX)?;
    if let Some(path) = path {
        all.retain(|exception| exception.path == *path || exception.path.is_below(path));
    }
    Ok(all)
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Pending => "is being fetched",
        Reason::Conflict => "was changed there too; a conflict copy is being made",
        Reason::Ignored => "is ignored there by a rule",
        Reason::Declined => "cannot be held by the disk there",
        Reason::Held => "waits for a word from the user there",
        Reason::Problem => "has a problem there; 'p2psync status' on that device says which",
    }
}

/// How many files no peer is known to hold, and whether there may be more than were counted. Costs a look at each of them and at the few that the peer
/// which is the furthest has not applied.
pub fn files_only_here(reader: &Reader, peers: &[DeviceId]) -> Result<(u64, bool), IndexError> {
    let mut applied = Vec::with_capacity(peers.len());
    for peer in peers {
        let row = reader.peer(*peer)?.filter(|row| row.cursor.is_some());
        applied.push((row.map_or(0, |row| row.applied), *peer));
    }
    let Some((furthest, best)) = applied.iter().max().copied().filter(|(furthest, _)| *furthest > 0) else {
        return Ok((reader.totals()?.files, false));
    };
    let (mut count, is_more) = reader.files_after(furthest, COUNTED_MAX)?;
    for exception in reader.exceptions(best, EXCEPTIONS_MAX)? {
        let Some(record) = reader.record(&exception.path)? else { continue };
        if record.seq > furthest || !record.is_held() || record.entry.kind.content().is_none() {
            continue;
        }
        let mut is_elsewhere = false;
        for (upto, peer) in applied.iter().filter(|(_, peer)| *peer != best) {
            is_elsewhere |= *upto >= record.seq && reader.exception_at(*peer, &exception.path)?.is_none();
        }
        count += u64::from(!is_elsewhere);
    }
    Ok((count, is_more))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::entry::{Entry, Kind};
    use crate::core::version::VersionVector;

    fn ask(world: &World, path: Option<&str>, upto: u64, peers: Option<u32>) -> WaitReport {
        let path = path.map(rel);
        read(world.asker(), &world.config.folders[0], &Awaited { path: path.as_ref(), upto, peers }).unwrap()
    }

    fn except(world: &mut World, device: DeviceId, path: &str, seq: u64, reason: Reason) {
        world.index.set_exceptions(device, &[Exception { path: rel(path), seq, reason }]).unwrap();
    }

    #[test]
    fn a_peer_holds_what_it_has_applied_and_nothing_else() {
        let mut world = World::running(&[DESK]);
        world.add_directory("d");
        let (a, b) = (world.add("d/a", b"1"), world.add("d/b", b"2"));
        assert_eq!(ask(&world, None, b, None).holding, 0);
        world.applied(DESK, a);
        let report = ask(&world, None, b, Some(1));
        assert_eq!((report.done, report.holding, report.peers[0].missing_items), (false, 0, 1));
        assert_eq!(report.peers[0].missing[0].path, "d/b");
        assert!(ask(&world, Some("d/a"), b, Some(1)).done);
        assert!(!ask(&world, Some("d/b"), b, Some(1)).done);
        assert!(!ask(&world, Some("d"), b, Some(1)).done);
        world.applied(DESK, b);
        assert!(ask(&world, Some("d"), b, Some(1)).done);
        let all = ask(&world, None, b, None);
        assert_eq!((all.done, all.holding, all.wanted), (false, 1, 2));
        world.applied(PHONE, b);
        assert!(ask(&world, None, b, None).done);
    }

    #[test]
    fn what_changes_after_the_moment_is_not_waited_for_in_a_folder_but_is_for_a_file() {
        let mut world = World::running(&[DESK]);
        let upto = world.add("a", b"1");
        world.applied(DESK, upto);
        world.add("a", b"new");
        assert!(ask(&world, None, upto, Some(1)).done);
        assert!(!ask(&world, Some("a"), upto, Some(1)).done);
    }

    #[test]
    fn what_is_received_but_not_applied_is_not_held() {
        let mut world = World::running(&[DESK]);
        let seq = world.add("a", b"1");
        world.applied(DESK, seq);
        for (reason, is_done) in [
            (Reason::Pending, false),
            (Reason::Conflict, false),
            (Reason::Held, false),
            (Reason::Problem, false),
            // Asked about all, it will never have more.
            (Reason::Ignored, true),
            (Reason::Declined, true),
        ] {
            except(&mut world, DESK, "a", seq, reason);
            assert_eq!(ask(&world, None, seq, Some(1)).done, is_done, "{reason:?}");
            assert!(!ask(&world, Some("a"), seq, Some(1)).done, "{reason:?}");
        }
        let refused = &ask(&world, None, seq, Some(1)).peers[0];
        assert_eq!((refused.missing_items, refused.refused_items), (0, 1));
    }

    #[test]
    fn what_was_deleted_here_is_told_apart_from_what_is_to_come() {
        let mut world = World::running(&[DESK]);
        let first = world.add("a", b"1");
        world.applied(DESK, first);
        let entry = Entry { version: VersionVector::new().with(EPOCH, 9), ..world.edited("a", Kind::Deleted, true) };
        let gone = world.index.put(&entry, None, Mark::Here, NOW_MS).unwrap();
        let upto = world.add("b", b"2").max(gone);
        let peer = &ask(&world, None, upto, Some(1)).peers[0];
        assert_eq!((peer.missing_items, peer.deleted_items), (2, 1));
        let texts: Vec<&str> = peer.missing.iter().map(|item| item.text.as_str()).collect();
        assert_eq!(texts, ["was deleted here and is still there", "is not there yet"]);
    }

    #[test]
    fn a_peer_that_is_there_without_the_folder_is_told_so() {
        let mut world = World::running(&[]);
        let upto = world.add("a", b"1");
        world.live_folder().unshared.insert(DESK);
        let peer = &ask(&world, None, upto, Some(1)).peers[0];
        assert!(peer.lacks_folder && peer.connected && !peer.holds);
    }

    #[test]
    fn a_path_that_is_not_passed_on_says_why() {
        let mut world = World::running(&[DESK]);
        let entry = file("ignored", b"1");
        world.index.put(&entry, None, Mark::Ignored, 1).unwrap();
        assert!(ask(&world, Some("ignored"), 1, Some(1)).trouble.unwrap().contains("rule"));
        assert!(ask(&world, Some("none"), 1, Some(1)).trouble.unwrap().contains("no such file"));
        assert!(ask(&World::alone(), None, 0, None).trouble.unwrap().contains("pair"));
    }

    #[test]
    fn files_that_no_peer_has_are_counted() {
        let mut world = World::running(&[DESK]);
        let count = |world: &World| files_only_here(&world.view().reader, &[DESK, PHONE]).unwrap().0;
        let a = world.add("a", b"1");
        let b = world.add("b", b"2");
        world.add_directory("d");
        assert_eq!(count(&world), 2);
        world.applied(PHONE, a);
        assert_eq!(count(&world), 1);
        world.applied(DESK, b);
        assert_eq!(count(&world), 0);
        // The one that is the furthest ignores a file that the other has, and one that it has not.
        except(&mut world, DESK, "a", a, Reason::Ignored);
        assert_eq!(count(&world), 0);
        except(&mut world, DESK, "b", b, Reason::Ignored);
        assert_eq!(count(&world), 1);
    }
}
