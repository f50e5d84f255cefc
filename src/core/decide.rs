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
        version.filtered(|epoch, count| self.0.get(&epoch).is_none_or(|upto| count > *upto))
    }

    /// True where `older` carries found counts, its other counts are included in `newer`, and its content is among
    /// those that `newer` replaced or is the same.
    fn explains(&self, older: &Entry, newer: &Entry) -> bool {
        let (old, new) = (self.strip(&older.version), self.strip(&newer.version));
        let Some(id) = older.kind.content_id() else { return false };
        let was_found = old != older.version;
        let is_known = newer.superseded.contains(&id) || newer.kind.content_id() == Some(id);
        // Both merely found and alike: neither is the older one.
        let is_mutual = new.included_in(&old) && new != newer.version;
        was_found && is_known && old.included_in(&new) && !is_mutual
    }
}

/// Decides about `rival` against `ours`, by content. Metadata is a register of its own: see [`Entry::meta`].
pub fn decide(ours: &Entry, rival: &Entry, found: &Found) -> Decision {
    match rival.version.partial_cmp(&ours.version) {
        Some(Ordering::Less) => return Decision::Forget,
        Some(Ordering::Equal) if ours.same_state(rival) => return Decision::Forget,
        // Equal versions of different states must not happen; taken as concurrent, they still converge.
        Some(Ordering::Equal) | None => {}
        Some(Ordering::Greater) => return Decision::Take,
    }
    if ours.same_state(rival) {
        return Decision::Join;
    }
    if found.explains(ours, rival) {
        return Decision::Take;
    }
    if found.explains(rival, ours) {
        return Decision::Join;
    }
    match (ours.is_live(), rival.is_live()) {
        (true, false) => Decision::Keep,
        (false, _) => Decision::Resolve { copy: false },
        (true, true) if order(rival) <= order(ours) => Decision::Wait,
        (true, true) => Decision::Resolve { copy: rival.kind.content_id() != ours.kind.content_id() },
    }
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
