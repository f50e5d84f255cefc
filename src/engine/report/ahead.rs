//! What is left to do in a folder: how far it is, and how long it will take.

use super::facts::{Facts, PeerFacts, Running};
use crate::engine::flow::Rates;
use crate::index::Tally;

/// Before it has gone on for so long, a rate tells nothing about the rest, ms.
const STEADY_MS_MIN: u64 = 3000;
/// Nobody waits for longer than that, s: beyond it the number says nothing.
const ETA_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// Whole percent of the bytes, or of the items where there are none; 100 only where nothing is left.
pub fn percent(done: Tally, left: Tally) -> u8 {
    if left.items == 0 {
        return 100;
    }
    let (done, left) = if left.bytes > 0 { (done.bytes, left.bytes) } else { (done.items, left.items) };
    let all = u128::from(done) + u128::from(left);
    (u128::from(done) * 100 / all).min(99) as u8
}

/// How much of what is to be here is here. `here`: files and bytes in the folder; `staged_bytes`: what of the files to
/// come has come already.
pub fn complete_percent(facts: &Facts, here: Tally, staged_bytes: u64) -> Option<u8> {
    if !facts.is_scanned || !is_plan_known(facts) {
        return None;
    }
    let left = Tally { bytes: facts.need.bytes.saturating_sub(staged_bytes), ..facts.need };
    let done = Tally { bytes: here.bytes.saturating_add(staged_bytes), ..here };
    let is_only_to_be_placed = facts.need.bytes > 0 && left.bytes == 0;
    Some(if is_only_to_be_placed { 99 } else { percent(done, left) })
}

/// How long it takes until all has come that can come now.
pub fn eta_seconds(facts: &Facts, staged_bytes: u64, rates: &Rates) -> Option<u64> {
    let is_going_on = facts.running == Running::Yes && facts.halted.is_none() && facts.workable > 0;
    if !is_going_on || !is_plan_known(facts) || rates.steady_ms < STEADY_MS_MIN {
        return None;
    }
    let bytes_left = facts.need.bytes.saturating_sub(staged_bytes);
    let seconds = match (bytes_left, facts.need.items) {
        (0, 0) => return None,
        (0, items) => items.checked_div(rates.changes)?,
        (bytes, _) => bytes.checked_div(rates.staged)?,
    };
    (seconds <= ETA_SECONDS_MAX).then_some(seconds.max(1))
}

/// True where all connected peers have told all that they have: before, what is left grows while it is counted.
fn is_plan_known(facts: &Facts) -> bool {
    let has_told = |peer: &PeerFacts| peer.is_known && !peer.is_unheard;
    facts.peers.iter().filter(|peer| peer.is_connected).all(has_told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(items: u64, bytes: u64) -> Tally {
        Tally { items, bytes }
    }

    fn facts(need: Tally) -> Facts {
        Facts {
            word: "docs".into(),
            halted: None,
            held: None,
            paused: None,
            own_changes: 0,
            kept_out: 0,
            is_paired: true,
            running: Running::Yes,
            is_scanned: true,
            files: 10,
            need,
            workable: need.items,
            absent: 0,
            absent_names: Vec::new(),
            looking: 0,
            problems: 0,
            declined: 0,
            peers: Vec::new(),
            now_ms: 0,
        }
    }

    #[test]
    fn all_is_only_what_lacks_nothing() {
        let cases = [
            (tally(0, 0), tally(0, 0), 100),
            (tally(5, 1000), tally(1, 0), 83),
            (tally(1, u64::MAX), tally(1, 1), 99),
            (tally(0, 0), tally(3, 5), 0),
            (tally(9, 75), tally(1, 25), 75),
            (tally(9, 0), tally(1, 0), 90),
        ];
        for (done, left, expected) in cases {
            assert_eq!(percent(done, left), expected, "{done:?} {left:?}");
        }
    }

    #[test]
    fn the_time_left_follows_from_bytes_and_rate_and_is_not_told_too_early() {
        let rates = Rates { staged: 100, changes: 2, steady_ms: STEADY_MS_MIN, ..Rates::default() };
        assert_eq!(eta_seconds(&facts(tally(3, 5000)), 1000, &rates), Some(40));
        assert_eq!(eta_seconds(&facts(tally(3, 0)), 0, &rates), Some(1));
        assert_eq!(eta_seconds(&facts(tally(0, 0)), 0, &rates), None);
        let early = Rates { steady_ms: STEADY_MS_MIN - 1, ..rates.clone() };
        assert_eq!(eta_seconds(&facts(tally(3, 5000)), 0, &early), None);
        let stalled = Rates { staged: 0, ..rates.clone() };
        assert_eq!(eta_seconds(&facts(tally(3, 5000)), 0, &stalled), None);
        assert_eq!(eta_seconds(&facts(tally(3, u64::MAX)), 0, &rates), None);
        let waiting = Facts { workable: 0, ..facts(tally(3, 5000)) };
        assert_eq!(eta_seconds(&waiting, 0, &rates), None);
    }

    #[test]
    fn what_is_staged_counts_as_done() {
        assert_eq!(complete_percent(&facts(tally(1, 50)), tally(5, 50), 0), Some(50));
        assert_eq!(complete_percent(&facts(tally(1, 50)), tally(5, 50), 25), Some(75));
        assert_eq!(complete_percent(&facts(tally(1, 50)), tally(5, 50), 50), Some(99));
        let unscanned = Facts { is_scanned: false, ..facts(tally(0, 0)) };
        assert_eq!(complete_percent(&unscanned, tally(0, 0), 0), None);
    }
}
