//! The guard against mass removals: a folder that suddenly loses most of what it held asks its user first.

/// Removals are counted over a sliding window of this length, so that many small batches add up.
pub const WINDOW_MS: i64 = 600_000;

/// From which point on removals are held. Both limits must be passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardLimits {
    /// Fewer removals than this are never held: people do empty directories.
    pub entries_min: u64,
    /// Share of the folder, as it was at the start of the window, that may go without a question.
    pub percent: u64,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { entries_min: 1000, percent: 80 }
    }
}

/// True where `candidates` entries, about to be removed, are to be held until the user confirms.
///
/// Moves are already left out. `live_now` counts the candidates too: together with what went in the window it is
/// what the folder held at the window's start.
pub fn is_mass_removal(limits: GuardLimits, candidates: u64, removed_in_window: u64, live_now: u64) -> bool {
    let removed = u128::from(candidates) + u128::from(removed_in_window);
    let held_before = u128::from(live_now) + u128::from(removed_in_window);
    candidates > 0
        && removed >= u128::from(limits.entries_min)
        && removed * 100 > held_before * u128::from(limits.percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_held_exactly_beyond_both_limits() {
        let cases = [
            // candidates, removed in the window, live now, held
            (999, 0, 999, false),
            (1000, 0, 1000, true),
            (1000, 0, 1250, false),
            (1000, 0, 1249, true),
            (1, 999, 1, true),
            (1, 998, 1, false),
            (1, 999, 250, true),
            (1, 999, 251, false),
            (8001, 0, 10_000, true),
            (8000, 0, 10_000, false),
            (0, 5000, 0, false),
            (u64::MAX, u64::MAX, u64::MAX, true),
        ];
        for (candidates, removed, live, held) in cases {
            let is_held = is_mass_removal(GuardLimits::default(), candidates, removed, live);
            assert_eq!(is_held, held, "{candidates} {removed} {live}");
        }
    }

    #[test]
    fn limits_can_be_set_to_never_and_to_always() {
        let never = GuardLimits { entries_min: 0, percent: 100 };
        let always = GuardLimits { entries_min: 0, percent: 0 };
        assert!(!is_mass_removal(never, 5000, 0, 5000));
        assert!(is_mass_removal(always, 1, 0, 5000));
        assert!(!is_mass_removal(always, 0, 0, 5000));
    }
}
