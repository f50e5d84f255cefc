//! Sets of byte ranges: which parts of a file are there.

use std::collections::BTreeMap;

/// Byte ranges that neither overlap nor touch.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ranges {
    /// The first byte of each, with the first one after it.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `length` bytes from `start`. What would reach beyond the largest number is cut.
    pub fn add(&mut self, start: u64, length: u64) {
        let (mut start, mut end) = (start, start.saturating_add(length));
        if start == end {
            return;
        }
        // Those that overlap or touch become one with it; all of them begin at or before its end, the last first.
        while let Some((known, known_end)) = self.ends.range(..=end).next_back().map(|(s, e)| (*s, *e)) {
            if known_end < start {
                break;
            }
            self.ends.remove(&known);
            (start, end) = (start.min(known), end.max(known_end));
        }
        self.ends.insert(start, end);
    }

    /// True where all of these bytes are in the set.
    pub fn covers(&self, start: u64, length: u64) -> bool {
        let before = self.ends.range(..=start).next_back();
        start.checked_add(length).is_some_and(|end| before.is_some_and(|(_, known)| end <= *known))
    }

    /// How many ranges there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// Each range as its first byte and its length, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ends.iter().map(|(start, end)| (*start, end - start))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        ranges.add(10, 5);
        ranges.add(20, 5);
        ranges.add(15, 5);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(10, 15)]);
    }

    #[test]
    fn nothing_adds_nothing_and_the_end_of_numbers_is_kept() {
        let mut ranges = Ranges::default();
        ranges.add(10, 0);
        assert!(ranges.is_empty());
        ranges.add(u64::MAX - 1, 5);
        assert!(ranges.covers(u64::MAX - 1, 1) && !ranges.covers(u64::MAX - 1, 2));
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_the_set_of_their_bytes(added in prop::collection::vec((0u64..60, 0u64..12), 0..20)) {
            let (mut ranges, mut bytes) = (Ranges::default(), BTreeSet::new());
            for (start, length) in added {
                ranges.add(start, length);
                bytes.extend(start..start + length);
            }
            prop_assert_eq!(ranges.bytes(), bytes.len() as u64);
            for start in 0..75 {
                for length in 1..6 {
                    prop_assert_eq!(ranges.covers(start, length), (start..start + length).all(|b| bytes.contains(&b)));
                }
            }
            let apart: Vec<(u64, u64)> = ranges.iter().collect();
            prop_assert!(apart.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        }
    }
}
