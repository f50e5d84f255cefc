//! Which earlier versions of a file are worth keeping as they grow older.
//!
//! Of the versions that one author wrote, the last hour keeps all, the last day one for each hour, and all before one
//! for each day: of each such span the one that went first, because that is what lay there before a burst of changes.
//! The version that another device's change displaced last is never among those that go: whatever a peer does to a
//! file, what it was before that peer's changes stays for its full time.

use std::collections::HashSet;

use super::id::DeviceId;

const HOUR_MS: i64 = 3600 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One version of a path in history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    pub author: DeviceId,
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
    let mut authors = HashSet::new();
    versions.iter().map(|version| version.by_remote && authors.insert(version.author)).collect()
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
                (version.author, HOUR_MS, version.displaced_ms.div_euclid(HOUR_MS))
            } else {
                (version.author, DAY_MS, version.displaced_ms.div_euclid(DAY_MS))
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

    fn version(author: DeviceId, age_ms: i64, by_remote: bool) -> Version {
        Version { author, displaced_ms: NOW_MS - age_ms, by_remote }
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

    proptest! {
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
