//! Version vectors: who had seen what when an entry was made.

use std::cmp::Ordering;

use super::id::EpochId;

/// Most epochs in one vector; far more than devices a person owns, times the indexes each of them may lose.
pub const EPOCHS_MAX: usize = 256;
/// Counts stay below this, so that they fit SQLite's integers.
pub const COUNT_MAX: u64 = i64::MAX as u64;

/// For each index epoch the highest sequence number of it that is included. Sorted by epoch, no zero counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct VersionVector(Vec<(EpochId, u64)>);

/// A vector that breaks the bounds above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version vector is malformed or has more than {EPOCHS_MAX} epochs")]
pub struct VersionError;

impl VersionVector {
    pub fn new() -> Self {
        Self::default()
    }

    /// Validates pairs from outside: strictly ascending epochs, counts from 1 to [`COUNT_MAX`].
    pub fn from_pairs(pairs: Vec<(EpochId, u64)>) -> Result<Self, VersionError> {
        let ascending = pairs.windows(2).all(|w| w[0].0 < w[1].0);
        let in_range = pairs.iter().all(|(_, c)| (1..=COUNT_MAX).contains(c));
        if pairs.len() > EPOCHS_MAX || !ascending || !in_range {
            return Err(VersionError);
        }
        Ok(Self(pairs))
    }

    pub fn pairs(&self) -> &[(EpochId, u64)] {
        &self.0
    }

    pub fn get(&self, epoch: EpochId) -> u64 {
        self.0.binary_search_by_key(&epoch, |p| p.0).map_or(0, |i| self.0[i].1)
    }

    /// The same with `epoch` at `count`; a count of zero removes it.
    pub fn with(mut self, epoch: EpochId, count: u64) -> Self {
        match self.0.binary_search_by_key(&epoch, |p| p.0) {
            Ok(i) if count == 0 => drop(self.0.remove(i)),
            Ok(i) => self.0[i].1 = count,
            Err(_) if count == 0 => {}
            Err(i) => self.0.insert(i, (epoch, count)),
        }
        self
    }

    /// Least vector that includes both.
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (epoch, count) in &other.0 {
            if joined.get(*epoch) < *count {
                joined = joined.with(*epoch, *count);
            }
        }
        joined
    }

    /// True where everything in `self` is included in `other`.
    pub fn included_in(&self, other: &Self) -> bool {
        self.0.iter().all(|(epoch, count)| other.get(*epoch) >= *count)
    }

    /// The part of the vector for which `keep` holds.
    pub fn filtered(&self, keep: impl Fn(EpochId, u64) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|(e, c)| keep(*e, *c)).collect())
    }
}

/// `None` where the two are concurrent.
impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.included_in(other), other.included_in(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = VersionVector> {
        proptest::collection::btree_map(0u64..5, 1u64..4, 0..5)
            .prop_map(|m| VersionVector::from_pairs(m.into_iter().map(|(e, c)| (EpochId(e), c)).collect()).unwrap())
    }

    proptest! {
        #[test]
        fn vectors_form_a_join_semilattice(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&a), a.clone());
            prop_assert!(a <= a.join(&b));
            prop_assert_eq!(a <= b, a.join(&b) == b);
        }

        #[test]
        fn vectors_are_partially_ordered(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(a.partial_cmp(&a), Some(Ordering::Equal));
            prop_assert_eq!(a <= b && b <= a, a == b);
            prop_assert_eq!(a.partial_cmp(&b), b.partial_cmp(&a).map(Ordering::reverse));
            let (ab, abc) = (a.join(&b), a.join(&b).join(&c));
            prop_assert!(a <= ab && ab <= abc && a <= abc);
            prop_assert!(VersionVector::new() <= a);
        }

        #[test]
        fn a_join_is_monotone_and_the_least_that_includes_both(a in vector(), b in vector(), c in vector()) {
            let more = a.join(&c);
            prop_assert!(a.join(&b) <= more.join(&b));
            let includes_both = a <= c && b <= c;
            prop_assert_eq!(includes_both, a.join(&b) <= c);
            for (epoch, count) in a.join(&b).pairs() {
                prop_assert_eq!(*count, a.get(*epoch).max(b.get(*epoch)));
            }
        }

        #[test]
        fn an_event_is_included_in_nothing_that_was_before(a in vector(), b in vector(), epoch in 0u64..5) {
            let both = a.join(&b);
            let next = a.clone().with(EpochId(epoch), both.get(EpochId(epoch)) + 1);
            prop_assert!(a < next && !next.included_in(&both));
        }

        #[test]
        fn a_part_of_a_vector_keeps_joins_and_order(a in vector(), b in vector(), upto in 0u64..4) {
            let part = |v: &VersionVector| v.filtered(|epoch, count| epoch.0 > 1 || count > upto);
            prop_assert!(part(&a) <= a);
            prop_assert_eq!(part(&a).join(&part(&b)), part(&a.join(&b)));
            prop_assert!(part(&a) <= part(&a.join(&b)));
        }
    }

    #[test]
    fn malformed_vectors_are_refused() {
        let e = EpochId;
        for pairs in [
            vec![(e(2), 1), (e(1), 1)],
            vec![(e(1), 1), (e(1), 2)],
            vec![(e(1), 0)],
            vec![(e(1), u64::MAX)],
            (0..257).map(|i| (e(i), 1)).collect(),
        ] {
            assert_eq!(VersionVector::from_pairs(pairs), Err(VersionError));
        }
    }
}
