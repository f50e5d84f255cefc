//! Which earlier versions of a file are worth keeping as they grow older.
//!
//! Of the versions that came from one device, the last hour keeps all, the last day one for each hour, and all before
//! one for each day: of each such span the one that went first, because that is what lay there before a burst of changes.
//! The version that another device's change displaced last is never among those that go: whatever a peer does to a
//! file, what it was before that peer's changes stays for its full time.
//!
//! A device here is the peer on whose connection a version came, or this device, never the author that an entry names:
//! any peer may name any author, as often as it likes. Where it is not known who brought a version, or that would say
//! nothing because a peer has given it another name, it stays.

use std::collections::{BTreeMap, HashSet};

use super::id::DeviceId;

const HOUR_MS: i64 = 3600 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One version of a path in history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The peer on whose connection it had come, `DeviceId::NONE` for this device; `None` where that is unknown.
    pub brought_by: Option<DeviceId>,
    /// When it was put into history, ms since 1970.
    pub displaced_ms: i64,
    /// True where another device's change displaced it.
    pub by_remote: bool,
}

/// Ages that are certain whatever the clock shows: what was displaced before these moments (ms since 1970) is older than
/// an hour, and than a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ages {
    pub hour_before_ms: i64,
    pub day_before_ms: i64,
}

/// For each version of one path, the latest first, whether it has to stay for its full time.
pub fn protected(versions: &[Version]) -> Vec<bool> {
    let mut seen = HashSet::new();
    versions.iter().map(|v| v.by_remote && v.brought_by.is_none_or(|device| seen.insert(device))).collect()
}

/// What of history counts together where it takes too much space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Share {
    /// The peer whose changes displaced it, `DeviceId::NONE` for this device; `None` where that is unknown.
    pub displaced_by: Option<DeviceId>,
    /// True for what the same device had brought itself: nobody else's work.
    pub was_its_own: bool,
}

/// How many bytes each share has to give up so that all together take no more than `most`. The largest give first, down
/// to one common size: however much one peer has displaced, what others displaced does not go for it, nor what others
/// had made for what that peer made itself.
pub fn excess(bytes: &BTreeMap<Share, u64>, most: u64) -> BTreeMap<Share, u64> {
    let mut sizes: Vec<u64> = bytes.values().copied().collect();
    sizes.sort_unstable();
    let (mut room, mut left, mut level) = (most, sizes.len() as u64, u64::MAX);
    for size in sizes {
        let equal = room / left;
        if size > equal {
            level = equal;
            break;
        }
        room -= size;
        left -= 1;
    }
    bytes.iter().map(|(share, size)| (*share, size.saturating_sub(level))).collect()
}

/// For each version of one path, the latest first, whether it stays.
pub fn kept(versions: &[Version], ages: Ages) -> Vec<bool> {
    let protected = protected(versions);
    let mut spans = HashSet::new();
    let mut kept: Vec<bool> = versions
        .iter()
        .zip(&protected)
        .rev()
        .map(|(version, is_protected)| {
            let span = if version.displaced_ms >= ages.hour_before_ms {
                return true;
            } else if version.displaced_ms >= ages.day_before_ms {
                (version.brought_by, HOUR_MS, version.displaced_ms.div_euclid(HOUR_MS))
            } else {
                (version.brought_by, DAY_MS, version.displaced_ms.div_euclid(DAY_MS))
            };
            spans.insert(span) || *is_protected
        })
        .collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANNA: DeviceId = DeviceId([1; 32]);
    const EVE: DeviceId = DeviceId([2; 32]);
    const NOW_MS: i64 = 100 * DAY_MS;
    const AGES: Ages = Ages { hour_before_ms: NOW_MS - HOUR_MS, day_before_ms: NOW_MS - DAY_MS };

    fn version(brought_by: DeviceId, age_ms: i64, by_remote: bool) -> Version {
        Version { brought_by: Some(brought_by), displaced_ms: NOW_MS - age_ms, by_remote }
    }

    #[test]
    fn of_each_span_the_version_that_went_first_stays() {
        let at = |age_ms| version(ANNA, age_ms, false);
        let ages = [1, 2, 3 * HOUR_MS + 1, 3 * HOUR_MS + 2, 5 * HOUR_MS, 3 * DAY_MS + 1, 3 * DAY_MS + 2, 5 * DAY_MS];
        let versions: Vec<Version> = ages.into_iter().map(at).collect();
        assert_eq!(kept(&versions, AGES), [true, true, false, true, true, false, true, true]);
    }

    #[test]
    fn a_flood_of_versions_of_one_device_does_not_displace_another_devices() {
        let mut versions: Vec<Version> = (0..1000).map(|n| version(EVE, 3 * HOUR_MS + n, true)).collect();
        versions.push(version(ANNA, 3 * HOUR_MS + 1000, true));
        let kept = kept(&versions, AGES);
        assert_eq!((kept[1000], kept.iter().filter(|kept| **kept).count()), (true, 3));
        let protected = protected(&versions);
        assert_eq!((protected[0], protected[1], protected[1000]), (true, false, true));
    }

    #[test]
    fn what_came_from_who_knows_where_stays() {
        let of_old = |age_ms| Version { brought_by: None, ..version(ANNA, age_ms, true) };
        let versions = [of_old(3 * HOUR_MS), of_old(3 * HOUR_MS + 1), of_old(3 * HOUR_MS + 2)];
        assert_eq!((protected(&versions), kept(&versions, AGES)), (vec![true; 3], vec![true; 3]));
    }

    #[test]
    fn who_takes_most_space_gives_it_up() {
        let share = |device, was_its_own| Share { displaced_by: Some(device), was_its_own };
        let bytes = BTreeMap::from([(share(EVE, true), 100), (share(EVE, false), 3), (share(ANNA, true), 8)]);
        let given = |most| excess(&bytes, most).into_values().collect::<Vec<_>>();
        // Anna's, what Eve displaced of others, what Eve displaced of her own.
        assert_eq!(given(111), [0, 0, 0]);
        assert_eq!(given(110), [0, 0, 1]);
        assert_eq!(given(20), [0, 0, 91]);
        assert_eq!(given(11), [4, 0, 96]);
        assert_eq!(given(0), [8, 3, 100]);
        assert!(excess(&BTreeMap::new(), 0).is_empty());
    }

    proptest! {
        #[test]
        fn what_all_give_up_is_enough_and_no_more_than_the_rounding_too_much(
            sizes in proptest::collection::vec(0..1000u64, 1..9), most in 0..5000u64
        ) {
            let share = |n: usize| Share { displaced_by: Some(DeviceId([n as u8; 32])), was_its_own: false };
            let bytes: BTreeMap<Share, u64> = sizes.iter().enumerate().map(|(n, size)| (share(n), *size)).collect();
            let given: u64 = excess(&bytes, most).values().sum();
            let needed = sizes.iter().sum::<u64>().saturating_sub(most);
            prop_assert!(given >= needed && given < needed + sizes.len() as u64);
        }

        #[test]
        fn what_is_protected_or_young_stays_and_thinning_twice_takes_no_more(
            raw in proptest::collection::vec((any::<bool>(), 0..10 * DAY_MS, any::<bool>()), 0..40)
        ) {
            let author = |is_anna| if is_anna { ANNA } else { EVE };
            let mut versions: Vec<Version> = raw.into_iter().map(|(who, age, remote)| version(author(who), age, remote)).collect();
            versions.sort_by_key(|version| -version.displaced_ms);
            let keeps = kept(&versions, AGES);
            for ((version, kept), protected) in versions.iter().zip(&keeps).zip(protected(&versions)) {
                prop_assert!(*kept || !(protected || version.displaced_ms >= AGES.hour_before_ms));
            }
            let left: Vec<Version> = versions.iter().zip(&keeps).filter(|(_, kept)| **kept).map(|(v, _)| *v).collect();
            prop_assert!(kept(&left, AGES).into_iter().all(|kept| kept));
        }
    }
}
