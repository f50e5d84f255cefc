//! Processes that die at named points, one point after the other, and what the promises are worth then.

use std::collections::BTreeSet;

use p2psync::failpoint;

use crate::crash_new;
use crate::crash_pair::Pair;

/// How often a point is passed before the process dies there, at most, in the long form.
const LONG_PASSES_MAX: u32 = 5;

/// What is done while a process waits for its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The peer changes all kinds of things.
    Receive,
    /// The peer writes many files while the victim is away.
    Many,
    /// What was half fetched is wanted no more.
    Discard,
    /// A version leaves the history.
    Expire,
    /// The victim's own user changes all kinds of things.
    Local,
    /// The victim's own user writes ignore rules.
    Rules,
    /// The victim's config changes.
    Config,
    Start,
    Stop,
    /// The victim starts with a damaged index.
    Damaged,
    /// The victim starts with the index of a backup.
    RolledBack,
    /// Both users have edited one file.
    Conflict,
    /// The victim's user brings back a file that was deleted.
    RestoreDeleted,
    /// The victim's user brings back an older version of a file.
    RestoreOlder,
    /// The victim dies at this point in another deed, and now it starts.
    RecoverReplace(&'static str),
    RecoverConflict(&'static str),
    RecoverRestore(&'static str),
    /// A first start.
    First,
    /// `p2psync id` on a new device.
    Id,
    /// A command changes the config.
    Command,
    /// Pairing; the one that shows the code dies.
    Show,
    /// Pairing; the one that types it dies.
    Join,
}

use Deed::*;

/// Every point, with what leads to it.
const CASES: &[(&str, Deed)] = &[
    ("home.locked", First),
    ("identity.written", Id),
    ("identity.placed", Id),
    ("identity.durable", Id),
    ("config.written", Command),
    ("config.synced", Command),
    ("config.renamed", Command),
    ("config.durable", Command),
    ("config.reloading", Config),
    ("config.reloaded", Config),
    ("pairing.asked", Join),
    ("pairing.answered", Show),
    ("pairing.proved", Join),
    ("pairing.used_up", Show),
    ("pairing.confirmed", Show),
    ("pairing.greeted", Join),
    ("pairing.agreed", Join),
    ("pairing.stored", Show),
    ("folder.rooted", First),
    ("folder.owned", First),
    ("folder.marker_created", First),
    ("folder.marker_written", First),
    ("folder.made", First),
    ("index.migrating", First),
    ("index.numbered", First),
    ("index.migrated", First),
    ("index.opened", Start),
    ("index.run_begun", Start),
    ("index.durable", Start),
    ("index.damaged_moved", Damaged),
    ("index.damaged_log_moved", Damaged),
    ("index.epoch_begun", RolledBack),
    ("index.committing", Local),
    ("index.committed", Local),
    ("index.closing", Stop),
    ("index.closed", Stop),
    ("rules.read", Rules),
    ("stage.created", Receive),
    ("stage.reserved", Receive),
    ("stage.written", Receive),
    ("stage.small_created", Receive),
    ("stage.small_written", Receive),
    ("stage.copied", RestoreDeleted),
    ("stage.made_ready", Receive),
    ("stage.synced", Receive),
    ("stage.all_synced", Many),
    ("stage.discarded", Discard),
    ("apply.prepared", Receive),
    ("apply.checked", Receive),
    ("apply.placed", Receive),
    ("apply.slot_made", Receive),
    ("apply.in_slot", Receive),
    ("apply.swapped", Receive),
    ("apply.copy_named", Conflict),
    ("apply.removed", Receive),
    ("apply.moved", Receive),
    ("apply.directory_made", Receive),
    ("apply.directory_removed", Receive),
    ("apply.directory_replaced", Receive),
    ("apply.mode_set", Receive),
    ("apply.settled", Receive),
    ("apply.durable", Receive),
    ("apply.reported", Receive),
    ("apply.swapped", Conflict),
    ("apply.durable", Conflict),
    ("restore.set_aside", RestoreOlder),
    ("restore.placed", RestoreDeleted),
    ("restore.durable", RestoreDeleted),
    ("history.expired", Expire),
    ("recover.history", RecoverReplace("apply.swapped")),
    ("recover.staged", RecoverReplace("apply.in_slot")),
    ("recover.put_back", RecoverRestore("apply.removed")),
    ("recover.copied", RecoverConflict("apply.swapped")),
    ("recover.found", RecoverReplace("apply.swapped")),
];

/// Goes through the cases with these deeds on one pair of agents.
fn go_through(is_mine: impl Fn(Deed) -> bool) {
    let mut pair = Pair::new();
    points(is_mine).for_each(|(point, deed)| pair.kill_at(point, 1, deed));
}

#[test]
fn every_point_has_its_case() {
    let covered: BTreeSet<&str> = CASES.iter().map(|(point, _)| *point).collect();
    assert_eq!(covered, failpoint::ALL.iter().copied().collect());
}

#[test]
fn a_device_killed_while_changes_arrive_loses_nothing() {
    go_through(|deed| matches!(deed, Receive | Many));
}

#[test]
fn a_device_killed_while_it_keeps_its_index_loses_nothing() {
    go_through(|deed| matches!(deed, Local | Rules | Config | Start | Stop | Damaged | RolledBack));
}

#[test]
fn a_device_killed_while_versions_come_and_go_loses_nothing() {
    let is_mine = |deed| {
        matches!(deed, Conflict | RestoreDeleted | RestoreOlder | Discard | Expire)
            || matches!(deed, RecoverReplace(_) | RecoverConflict(_) | RecoverRestore(_))
    };
    go_through(is_mine);
}

/// The points that lie in these deeds.
fn points(is_mine: impl Fn(Deed) -> bool) -> impl Iterator<Item = (&'static str, Deed)> {
    CASES.iter().copied().filter(move |(_, deed)| is_mine(*deed))
}

#[test]
fn a_new_device_killed_while_it_sets_itself_up_goes_on_at_the_next_start() {
    points(|deed| deed == First).for_each(|(point, _)| crash_new::first_start(point));
}

#[test]
fn a_command_killed_while_it_writes_leaves_a_good_identity_and_config() {
    points(|deed| deed == Id).for_each(|(point, _)| crash_new::identity(point));
    let points: Vec<&str> = points(|deed| deed == Command).map(|(point, _)| point).collect();
    crash_new::commands(&points);
}

#[test]
fn pairing_cut_off_anywhere_can_be_done_again() {
    let points: Vec<(&str, Deed)> = points(|deed| matches!(deed, Show | Join)).collect();
    crash_new::pairing(&points);
}

#[test]
#[ignore = "takes minutes"]
fn a_device_killed_at_a_point_that_is_passed_often_loses_nothing_at_any_of_them() {
    let mut pair = Pair::new();
    for (point, deed) in points(|deed| matches!(deed, Receive | Local)) {
        (2..=LONG_PASSES_MAX).for_each(|count| pair.kill_if_at(point, count, deed));
    }
}
