//! The rule that decides between our entry and a rival: a peer's latest entry that is not included in ours.
//!
//! Only the device that holds the losing bytes live resolves a conflict, and it does so when the winner's bytes are
//! here: a device that joined on behalf of others would announce a version that dominates the loser's, and the
//! loser's holder would replace its file without keeping a copy. A resolution is an event of its own, because with a
//! bare join two devices reach the same version with different contents by different routes. `tests/rule.rs` tries
//! every interleaving of small cases.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::content::ContentId;
use super::entry::{Entry, Kind};
use super::id::{DeviceId, EpochId};
use super::version::VersionVector;
use crate::sabotage::{self, Bug};

/// For each epoch the count up to which its counts say "this was on the disk", not "someone wrote this".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found(pub BTreeMap<EpochId, u64>);

/// What is to be done about a rival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is included in ours.
    Forget,
    /// It is simply newer, or ours was merely found and is older: take it, under the joined version.
    Take,
    /// Both say the same: join the versions. No event.
    Join,
    /// Ours stays and the joined version is an event of this device: an edit beats a delete.
    Keep,
    /// Take it when its bytes are here, as an event; `copy` says that ours becomes a conflict copy.
    Resolve { copy: bool },
    /// The device that holds the rival's bytes will resolve it.
    Wait,
}

impl Found {
    /// The part of a version that somebody's edit accounts for.
    pub fn strip(&self, version: &VersionVector) -> VersionVector {
        version.filtered(|epoch, count| {
            sabotage::is(Bug::FoundIsWritten) || self.0.get(&epoch).is_none_or(|upto| count > *upto)
        })
    }

    /// True where `older` carries found counts, its other counts are included in `newer`, and its content is among
    /// those that `newer` replaced or is the same. A tombstone has no content that could be lost.
    fn explains(&self, older: &Entry, newer: &Entry) -> bool {
        let (old, new) = (self.strip(&older.version), self.strip(&newer.version));
        let was_found = old != older.version;
        let is_known = older
            .kind
            .content_id()
            .is_none_or(|id| newer.superseded.contains(&id) || newer.kind.content_id() == Some(id));
        // Both merely found and alike: neither is the older one.
        let is_mutual = new.included_in(&old) && new != newer.version;
        was_found && is_known && old.included_in(&new) && !is_mutual
    }

    /// True where nobody's edit is in a version at all.
    fn is_all(&self, version: &VersionVector) -> bool {
        self.strip(version).pairs().is_empty()
    }
}

/// Decides about `rival` against `ours`, by content. Metadata is a register of its own: see [`Entry::meta`].
pub fn decide(ours: &Entry, rival: &Entry, found: &Found) -> Decision {
    let order_of_versions = rival.version.partial_cmp(&ours.version);
    match order_of_versions {
        Some(Ordering::Less) => return Decision::Forget,
        Some(Ordering::Equal) if ours.same_state(rival) => return Decision::Forget,
        // Equal versions of different states must not happen; taken as concurrent, they still converge.
        Some(Ordering::Equal) | None => {}
        Some(Ordering::Greater) => return Decision::Take,
    }
    if ours.same_state(rival) {
        return Decision::Join;
    }
    // The same bytes, merely found on both: what is under a version is the greatest of what it includes, by whatever
    // route. So this is no event, which an edit made meanwhile would be in conflict with.
    // (Equal versions have no join that would tell them apart: they need an event.)
    let is_all_found = found.is_all(&ours.version) && found.is_all(&rival.version);
    if order_of_versions.is_none() && ours.kind == rival.kind && is_all_found {
        return if order(rival) > order(ours) { Decision::Take } else { Decision::Join };
    }
    if found.explains(ours, rival) {
        return Decision::Take;
    }
    if found.explains(rival, ours) {
        return Decision::Join;
    }
    match (ours.is_live(), rival.is_live()) {
        (true, false) if sabotage::is(Bug::EditLosesToDelete) => Decision::Take,
        (true, false) => Decision::Keep,
        (false, true) if sabotage::is(Bug::EditLosesToDelete) => Decision::Wait,
        (false, _) => Decision::Resolve { copy: false },
        (true, true) if order(rival) <= order(ours) && !arrival_wins(ours) => Decision::Wait,
        (true, true) => Decision::Resolve { copy: rival.kind.content_id() != ours.kind.content_id() },
    }
}

/// A mistake made on purpose, among files.
fn arrival_wins(ours: &Entry) -> bool {
    sabotage::is(Bug::WinnerByArrival) && !ours.kind.is_directory()
}

/// The total order of concurrent live entries: the greater stays under the name.
fn order(entry: &Entry) -> (bool, i64, i64, Option<ContentId>, DeviceId) {
    (entry.kind.is_directory(), entry.weight_ns, entry.mtime_ns, entry.kind.content_id(), entry.author)
}

/// The entry that ours becomes when `rival` is taken under the joined version, without an event.
pub fn taken(ours: &Entry, rival: &Entry) -> Entry {
    let mut entry = rival.clone();
    entry.version = ours.version.join(&rival.version);
    if rival.version.partial_cmp(&ours.version) != Some(Ordering::Greater) {
        entry.superseded = rival.superseded_with(&ours.superseded);
    }
    merge_meta(&mut entry, ours);
    entry
}

/// The entry that ours becomes when both stay as they are: joined versions, united lists, no event.
pub fn joined(ours: &Entry, rival: &Entry) -> Entry {
    let mut entry = ours.clone();
    entry.version = ours.version.join(&rival.version);
    entry.superseded = ours.superseded_with(&rival.superseded);
    merge_meta(&mut entry, rival);
    entry
}

/// The entry that this device issues with `count` when it resolves a conflict in favour of `winner`.
pub fn resolved(ours: &Entry, rival: &Entry, rival_wins: bool, epoch: EpochId, count: u64) -> Entry {
    let (winner, loser) = if rival_wins { (rival, ours) } else { (ours, rival) };
    let mut replaced: Vec<ContentId> = loser.kind.content_id().into_iter().collect();
    replaced.extend(&loser.superseded);
    let mut entry = winner.clone();
    entry.superseded = winner.superseded_with(&replaced);
    entry.version = ours.version.join(&rival.version).with(epoch, count);
    merge_meta(&mut entry, loser);
    entry
}

/// Lets the greater stamp win in `entry`. True where that changed something.
pub fn merge_meta(entry: &mut Entry, other: &Entry) -> bool {
    let wins = other.meta.stamp > entry.meta.stamp;
    if wins {
        entry.meta = other.meta.clone();
    }
    wins
}

/// True where `rival` carries nothing that ours does not: neither a version nor metadata.
pub fn is_settled(ours: &Entry, rival: &Entry, found: &Found) -> bool {
    decide(ours, rival, found) == Decision::Forget && rival.meta.stamp <= ours.meta.stamp
}

/// The tombstone that `ours` becomes when its deletion is seen here.
pub fn deleted(ours: &Entry, epoch: EpochId, count: u64) -> Entry {
    let mut entry = ours.clone();
    let replaced: Vec<ContentId> = ours.kind.content_id().into_iter().collect();
    entry.kind = Kind::Deleted;
    entry.superseded = entry.superseded_with(&replaced);
    (entry.mtime_ns, entry.weight_ns) = (0, 0);
    entry.version = ours.version.clone().with(epoch, count);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::disk::DiskKind;
    use crate::core::entry::{Meta, Stamp};
    use crate::core::path::RelPath;
    use proptest::prelude::*;

    const A: EpochId = EpochId(1);
    const B: EpochId = EpochId(2);

    fn version(a: u64, b: u64) -> VersionVector {
        VersionVector::new().with(A, a).with(B, b)
    }

    fn nothing() -> Entry {
        Entry::nothing(RelPath::parse(b"report.odt").unwrap())
    }

    fn content(text: &str) -> ContentId {
        Content::of_chunk(text.as_bytes()).id
    }

    /// A file written by the device of that number.
    fn file(text: &str, mtime_ns: i64, author: u8, version: VersionVector) -> Entry {
        let kind = Kind::File(Content::of_chunk(text.as_bytes()));
        Entry { kind, mtime_ns, weight_ns: mtime_ns, author: DeviceId([author; 32]), version, ..nothing() }
    }

    fn tombstone(version: VersionVector) -> Entry {
        Entry { version, ..nothing() }
    }

    fn directory(version: VersionVector) -> Entry {
        Entry { kind: Kind::Directory, version, ..nothing() }
    }

    fn superseding(entry: Entry, texts: &[&str]) -> Entry {
        Entry { superseded: texts.iter().map(|t| content(t)).collect(), ..entry }
    }

    fn plain(ours: &Entry, rival: &Entry) -> Decision {
        decide(ours, rival, &Found::default())
    }

    /// One device hears what the other holds now.
    fn hear(ours: &mut Entry, rival: &Entry, epoch: EpochId, found: &Found, copies: &mut Vec<ContentId>) {
        let count = ours.version.get(epoch) + 1;
        match decide(ours, rival, found) {
            Decision::Forget | Decision::Wait => drop(merge_meta(ours, rival)),
            Decision::Take => *ours = taken(ours, rival),
            Decision::Join => *ours = joined(ours, rival),
            Decision::Keep => *ours = resolved(ours, rival, false, epoch, count),
            Decision::Resolve { copy } => {
                copies.extend(ours.kind.content_id().filter(|_| copy));
                *ours = resolved(ours, rival, true, epoch, count);
            }
        }
    }

    /// What the two devices hold when each has heard the other often enough; and what became conflict copies.
    fn settled(mut a: Entry, mut b: Entry, found: &Found) -> (Entry, Entry, Vec<ContentId>) {
        let mut copies = Vec::new();
        for _ in 0..4 {
            hear(&mut a, &b, A, found, &mut copies);
            hear(&mut b, &a, B, found, &mut copies);
        }
        (a, b, copies)
    }

    #[test]
    fn every_row_of_the_table_is_decided_as_written() {
        use Decision::*;
        let cases = [
            ("older", file("x", 2, 1, version(2, 0)), file("y", 9, 1, version(1, 0)), Forget),
            ("the same", file("x", 2, 1, version(2, 0)), file("x", 2, 1, version(2, 0)), Forget),
            ("newer", file("y", 9, 1, version(1, 0)), file("x", 2, 1, version(2, 0)), Take),
            ("newer deletion", file("y", 9, 1, version(1, 0)), tombstone(version(1, 1)), Take),
            ("alike", file("x", 2, 1, version(1, 0)), file("x", 2, 1, version(0, 1)), Join),
            ("both deleted", tombstone(version(2, 0)), tombstone(version(1, 1)), Join),
            ("both directories", directory(version(1, 0)), directory(version(0, 1)), Join),
            (
                "other mtime, lesser",
                file("x", 2, 1, version(1, 0)),
                file("x", 3, 1, version(0, 1)),
                Resolve { copy: false },
            ),
            ("other mtime, greater", file("x", 3, 1, version(1, 0)), file("x", 2, 1, version(0, 1)), Wait),
            ("other author", file("x", 2, 1, version(1, 0)), file("x", 2, 2, version(0, 1)), Resolve { copy: false }),
            ("rival deleted", file("x", 2, 1, version(2, 0)), tombstone(version(1, 1)), Keep),
            ("ours deleted", tombstone(version(1, 1)), file("x", 2, 1, version(2, 0)), Resolve { copy: false }),
            ("rival wins", file("x", 2, 1, version(1, 0)), file("y", 3, 2, version(0, 1)), Resolve { copy: true }),
            ("ours wins", file("y", 3, 2, version(0, 1)), file("x", 2, 1, version(1, 0)), Wait),
            ("a directory wins", file("x", 9, 1, version(1, 0)), directory(version(0, 1)), Resolve { copy: true }),
            ("ours is a directory", directory(version(0, 1)), file("x", 9, 1, version(1, 0)), Wait),
        ];
        for (what, ours, rival, expect) in cases {
            assert_eq!(plain(&ours, &rival), expect, "{what}");
        }
    }

    #[test]
    fn a_clock_in_the_future_wins_no_longer_than_its_moment() {
        let future = Entry { mtime_ns: 1_000_000, ..file("future", 5, 1, version(1, 0)) };
        let later = file("later", 6, 2, version(0, 1));
        assert_eq!(plain(&future, &later), Decision::Resolve { copy: true });
        assert_eq!(plain(&later, &future), Decision::Wait);
    }

    #[test]
    fn equal_versions_of_different_states_still_end_alike() {
        let (x, y) = (file("x", 2, 1, version(1, 1)), file("y", 3, 2, version(1, 1)));
        let (a, b, copies) = settled(x, y, &Found::default());
        assert_eq!((a.clone(), copies), (b, vec![content("x")]));
        assert_eq!(a.kind.content_id(), Some(content("y")));
    }

    #[test]
    fn the_same_files_found_on_two_devices_merge_without_a_trace() {
        let found = Found([(A, 9), (B, 9)].into());
        let (x, y) = (file("x", 2, 0, version(4, 0)), file("x", 2, 0, version(0, 7)));
        assert_eq!(decide(&x, &y, &found), Decision::Join);
        let (a, b, copies) = settled(x, y, &found);
        assert_eq!((a.version.clone(), copies.len()), (version(4, 7), 0));
        assert_eq!(a, b);
    }

    #[test]
    fn found_files_that_differ_in_mtime_merge_without_an_event() {
        let found = Found([(A, 9), (B, 9)].into());
        let (x, y) = (file("x", 2, 0, version(4, 0)), file("x", 3, 0, version(0, 7)));
        assert_eq!((decide(&x, &y, &found), decide(&y, &x, &found)), (Decision::Take, Decision::Join));
        let (a, b, copies) = settled(x.clone(), y.clone(), &found);
        assert_eq!((a.version.clone(), a.mtime_ns, copies.len()), (version(4, 7), 3, 0));
        assert_eq!(a, b);
        // The other is edited, or deleted, before it has heard of the merger: no conflict, and nothing is back.
        for edited in [edit(y.clone(), B, 3), deleted(&y, B, 10)] {
            let edited = Entry { version: edited.version.with(B, 10), ..edited };
            let (a, b, copies) = settled(taken(&x, &y), edited.clone(), &found);
            assert_eq!((a.kind.clone(), copies.len()), (edited.kind, 0));
            assert_eq!(a, b);
        }
    }

    #[test]
    fn equal_versions_that_were_merely_found_still_end_alike() {
        let found = Found([(A, 9), (B, 9)].into());
        let (a, b, copies) = settled(file("x", 2, 0, version(4, 4)), file("x", 3, 0, version(4, 4)), &found);
        assert_eq!((a.mtime_ns, copies.len()), (3, 0));
        assert_eq!(a, b);
    }

    #[test]
    fn different_files_found_on_two_devices_are_a_conflict() {
        let found = Found([(A, 9), (B, 9)].into());
        let (a, b, copies) = settled(file("x", 2, 0, version(4, 0)), file("y", 3, 0, version(0, 7)), &found);
        assert_eq!((a.clone(), copies), (b, vec![content("x")]));
        assert_eq!(a.kind.content_id(), Some(content("y")));
    }

    #[test]
    fn a_lost_index_does_not_resurrect_what_was_deleted_meanwhile() {
        let found = Found([(A, 9)].into());
        let here = file("x", 2, 0, version(4, 0));
        let gone = superseding(tombstone(version(0, 5)), &["x"]);
        assert_eq!(decide(&here, &gone, &found), Decision::Take);
        assert_eq!(decide(&gone, &here, &found), Decision::Join);
        let (a, b, _) = settled(here, gone, &found);
        assert!(!a.is_live() && a == b);
    }

    #[test]
    fn a_lost_index_makes_no_conflict_of_what_was_edited_meanwhile() {
        let found = Found([(A, 9)].into());
        for edited in ["y", "x"] {
            let here = file("x", 2, 0, version(4, 0));
            let there = superseding(file(edited, 1, 2, version(0, 5)), &["x"]);
            let (a, b, copies) = settled(here, there, &found);
            assert_eq!((a.author, copies.len()), (DeviceId([2; 32]), 0));
            assert_eq!(a, b);
        }
    }

    #[test]
    fn what_was_edited_while_the_index_was_lost_is_kept() {
        let found = Found([(A, 9)].into());
        let here = file("mine", 2, 0, version(4, 0));
        let (a, b, copies) = settled(here.clone(), superseding(file("y", 3, 2, version(0, 5)), &["x"]), &found);
        assert_eq!((a, copies), (b, vec![content("mine")]));
        let (a, b, _) = settled(here, superseding(tombstone(version(0, 5)), &["x"]), &found);
        assert_eq!((a.kind.content_id(), a == b), (Some(content("mine")), true));
    }

    #[test]
    fn a_tombstone_that_took_in_a_found_count_is_older_than_what_was_written_after_it() {
        let found = Found([(B, 9)].into());
        let gone = superseding(tombstone(version(2, 1)), &["x"]);
        let again = superseding(file("y", 3, 1, version(3, 0)), &["x"]);
        assert_eq!(decide(&gone, &again, &found), Decision::Take);
        assert_eq!(decide(&again, &gone, &found), Decision::Join);
    }

    #[test]
    fn an_edit_after_the_first_scan_is_an_edit() {
        let found = Found([(A, 9)].into());
        let here = superseding(file("again", 2, 1, version(10, 0)), &["x"]);
        let there = superseding(file("y", 3, 2, version(0, 5)), &["x", "again"]);
        assert_eq!(decide(&here, &there, &found), Decision::Resolve { copy: true });
    }

    #[test]
    fn metadata_goes_its_own_way() {
        let meta = |count, mode| Meta {
            stamp: Stamp { count, epoch: A },
            mode: Some((DiskKind::File, mode)),
            touched: Some((99, content("x"))),
        };
        let ours = Entry { meta: meta(5, 0o700), ..file("x", 2, 1, version(1, 0)) };
        let newer = Entry { meta: meta(4, 0o600), ..file("y", 3, 1, version(2, 0)) };
        let entry = taken(&ours, &newer);
        assert_eq!((entry.mode(), entry.disk_mtime_ns()), (0o700, 3));
        assert!(!is_settled(&newer, &ours, &Found::default()) && is_settled(&entry, &ours, &Found::default()));
        assert_eq!(plain(&tombstone(version(2, 0)), &ours), Decision::Forget);
    }

    #[test]
    fn a_tombstone_remembers_what_it_replaced() {
        let gone = deleted(&superseding(file("x", 2, 1, version(1, 0)), &["v", "w"]), A, 2);
        assert_eq!(gone.superseded, [content("x"), content("v"), content("w")]);
        assert_eq!((gone.version, gone.mtime_ns, gone.weight_ns), (version(2, 0), 0, 0));
    }

    /// One user's operation on what the device holds.
    fn edit(mut entry: Entry, epoch: EpochId, what: u8) -> Entry {
        let count = entry.version.get(epoch) + 1;
        match what {
            0 if entry.is_live() => deleted(&entry, epoch, count),
            1 => {
                entry.meta.stamp = Stamp { count: entry.meta.stamp.count + 1, epoch };
                entry
            }
            2 => {
                let version = entry.version.clone().with(epoch, count);
                Entry { kind: Kind::Directory, mtime_ns: 0, weight_ns: 0, author: DeviceId::NONE, version, ..entry }
            }
            _ => {
                let version = entry.version.clone().with(epoch, count);
                let old: Vec<ContentId> = entry.kind.content_id().into_iter().collect();
                let mut new = file(&format!("text {}", what % 4), i64::from(what), epoch.0 as u8, version);
                new.meta = entry.meta.clone();
                new.superseded = entry.superseded.clone();
                new.superseded = new.superseded_with(&old);
                new
            }
        }
    }

    proptest! {
        #[test]
        fn two_devices_end_alike_whatever_each_did(
            common in proptest::collection::vec(0u8..8, 0..3),
            here in proptest::collection::vec(0u8..8, 0..4),
            there in proptest::collection::vec(0u8..8, 0..4),
            (found_a, found_b) in (0u64..3, 0u64..3),
        ) {
            let common = common.into_iter().fold(nothing(), |entry, what| edit(entry, A, what));
            let a = here.into_iter().fold(common.clone(), |entry, what| edit(entry, A, what));
            let b = there.into_iter().fold(common, |entry, what| edit(entry, B, what));
            let found = Found([(A, found_a), (B, found_b)].into());
            let (x, y, _) = settled(a.clone(), b.clone(), &found);
            prop_assert!(x.same_state(&y), "{x:?} {y:?}");
            prop_assert_eq!((&x.version, &x.meta), (&y.version, &y.meta));
            prop_assert!(is_settled(&x, &y, &found) && is_settled(&y, &x, &found));
            // The other device hears first: the same stays under the name.
            let (mut here, mut there) = (a, b);
            hear(&mut there, &here, B, &found, &mut Vec::new());
            hear(&mut here, &there, A, &found, &mut Vec::new());
            let (here, there, _) = settled(here, there, &found);
            prop_assert!(here.same_state(&there) && here.same_state(&x), "{here:?} {x:?}");
        }

        #[test]
        fn a_decision_follows_the_order_of_versions_and_fits_the_other_sides(
            a in entry(), b in entry(), found in proptest::collection::btree_map((0u64..4).prop_map(EpochId), 0u64..3, 0..3),
        ) {
            let found = Found(found);
            let (ours, theirs) = (decide(&a, &b, &found), decide(&b, &a, &found));
            match b.version.partial_cmp(&a.version) {
                Some(Ordering::Less) => prop_assert_eq!((ours, theirs), (Decision::Forget, Decision::Take)),
                Some(Ordering::Greater) => prop_assert_eq!((ours, theirs), (Decision::Take, Decision::Forget)),
                Some(Ordering::Equal) if a.same_state(&b) => {
                    prop_assert_eq!((ours, theirs), (Decision::Forget, Decision::Forget));
                }
                _ => {
                    use Decision::*;
                    let fits = |x, y| match (x, y) {
                        (Join, Join) => a.same_state(&b),
                        (Take, Join) => !a.same_state(&b),
                        (Keep, Resolve { copy: false }) => a.is_live() != b.is_live(),
                        (Resolve { copy }, Wait) => copy == (a.kind != b.kind),
                        _ => false,
                    };
                    prop_assert!(fits(ours, theirs) || fits(theirs, ours), "{ours:?} {theirs:?}");
                }
            }
        }

        #[test]
        fn whatever_comes_of_a_rival_includes_what_was_and_settles_it(
            a in entry(), b in entry(), upto in 0u64..3,
        ) {
            // Counts of this device's own epoch come from nobody else.
            let (own, found) = (EpochId(9), Found([(A, upto)].into()));
            let before = a.clone();
            let mut after = a;
            let decision = decide(&before, &b, &found);
            hear(&mut after, &b, own, &found, &mut Vec::new());
            prop_assert!(before.version <= after.version);
            prop_assert!(after.meta.stamp >= before.meta.stamp && after.meta.stamp >= b.meta.stamp);
            if decision != Decision::Wait {
                prop_assert!(b.version <= after.version && is_settled(&after, &b, &found));
            }
            // Hearing it again changes nothing.
            let once = after.clone();
            hear(&mut after, &b, own, &found, &mut Vec::new());
            prop_assert_eq!(after, once);
        }

        #[test]
        fn three_devices_end_alike_in_every_order_of_hearing_with_nothing_lost(
            steps in proptest::collection::vec((0usize..3, 0usize..3, proptest::option::of(0u8..8)), 0..16),
        ) {
            let epochs = [A, B, EpochId(3)];
            let found = Found::default();
            let mut devices = [nothing(), nothing(), nothing()];
            let mut copies = Vec::new();
            // What users wrote, and what they replaced having it before them: by version, since texts repeat.
            let (mut written, mut replaced) = (Vec::new(), Vec::new());
            for (at, from, what) in steps {
                let Some(what) = what else {
                    // Only the latest entry is handed over, whatever came between; from itself it is old news.
                    let rival = devices[from].clone();
                    hear(&mut devices[at], &rival, epochs[at], &found, &mut copies);
                    continue;
                };
                let before = devices[at].clone();
                devices[at] = edit(before.clone(), epochs[at], what);
                if devices[at].version != before.version {
                    replaced.extend(before.kind.content_id().map(|id| (id, before.version)));
                    written.extend(devices[at].kind.content_id().map(|id| (id, devices[at].version.clone())));
                }
            }
            for round in 0.. {
                prop_assert!(round < 32, "they never come to rest: {devices:?}");
                let before = devices.clone();
                for (at, from) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                    let rival = devices[from].clone();
                    hear(&mut devices[at], &rival, epochs[at], &found, &mut copies);
                }
                if devices == before {
                    break;
                }
            }
            for other in &devices[1..] {
                prop_assert!(devices[0].same_state(other), "{devices:?}");
                prop_assert_eq!((&devices[0].version, &devices[0].meta), (&other.version, &other.meta));
            }
            for (id, version) in written {
                let is_replaced = replaced.iter().any(|(old, by)| *old == id && version.included_in(by));
                let is_here = devices[0].kind.content_id() == Some(id) || copies.contains(&id);
                // Directories hold nothing themselves.
                prop_assert!(is_replaced || is_here || id == ContentId::default(), "{id:?} {devices:?}");
            }
        }
    }

    /// Any entry that may come from anywhere, the version of some epochs of four included.
    fn entry() -> impl Strategy<Value = Entry> {
        let kind = prop_oneof![
            Just(Kind::Deleted),
            Just(Kind::Directory),
            (0u8..3).prop_map(|n| Kind::File(Content::of_chunk(&[n]))),
            Just(Kind::Symlink(b"there".as_slice().into())),
        ];
        let counts = proptest::collection::btree_map((0u64..4).prop_map(EpochId), 1u64..4, 0..4);
        let lists = proptest::collection::vec((0u8..3).prop_map(|n| Content::of_chunk(&[n]).id), 0..3);
        (kind, counts, lists, 0i64..2, 0u8..3, 0u64..3).prop_map(|(kind, counts, superseded, mtime, author, stamp)| {
            // Directories have neither time nor author, nor have tombstones.
            let is_bare = matches!(kind, Kind::Directory | Kind::Deleted);
            let (mtime_ns, author) = if is_bare { (0, 0) } else { (mtime, author) };
            let version = VersionVector::from_pairs(counts.into_iter().collect()).unwrap();
            let meta = Meta { stamp: Stamp { count: stamp, epoch: A }, ..Meta::default() };
            let (weight_ns, author) = (mtime_ns, DeviceId([author; 32]));
            Entry { kind, mtime_ns, weight_ns, version, author, superseded, meta, ..nothing() }
        })
    }
}
