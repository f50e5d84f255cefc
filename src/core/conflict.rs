//! Names of conflict copies, and what both sides of a conflict came from.
//!
//! A name is made from the losing version alone, so that two devices that hold it make the same file, which then
//! merges: `report.odt` becomes `report.conflict-20261122-140312-K3QZ7AB.odt`.

use sha2::{Digest, Sha256};

use super::content::ContentId;
use super::entry::Entry;
use super::id::{DeviceId, hex};
use super::path::{COMPONENT_BYTES_MAX, PathError, RelPath};

/// What follows the last dot of a name is its extension only up to this length in bytes; more is a sentence.
const EXTENSION_BYTES_MAX: usize = 16;
const TAG: &[u8] = b".conflict-";
/// Stands for the author of content that was simply found.
const FOUND: &str = "FOUND";
/// Letters of a device's short form.
const AUTHOR_BYTES: usize = 7;
/// Bytes of a hash in a name, shown as twice as many digits: enough among the copies of one file.
const HASH_BYTES: usize = 4;
/// Characters of a device's name in an ordinary name, of at most four bytes each.
const DEVICE_CHARS_MAX: usize = 30;
/// `20261122-140312-`
const MOMENT_BYTES: usize = 16;

/// The conflict copy's path for the version of `path` that was last changed at `mtime_ns` by `author`.
///
/// `content` is given where the plain name is taken by another version. Fails only where the path as a whole would
/// be too long.
pub fn conflict_name(
    path: &RelPath,
    mtime_ns: i64,
    author: DeviceId,
    content: Option<ContentId>,
) -> Result<RelPath, PathError> {
    let name = path.file_name();
    let (stem, extension) = split_extension(name);
    let mut tag = [TAG, moment(mtime_ns).as_bytes()].concat();
    tag.extend_from_slice(if author == DeviceId::NONE { FOUND.to_owned() } else { author.short() }.as_bytes());
    if let Some(id) = content {
        tag.push(b'-');
        tag.extend_from_slice(hex(&id.0[..HASH_BYTES]).as_bytes());
    }
    let room = COMPONENT_BYTES_MAX - tag.len() - extension.len();
    let stem = if stem.len() <= room { stem.to_vec() } else { shortened(stem, name, room) };
    path.with_file_name(&[&stem, &tag[..], extension].concat())
}

/// The content that both came from: the latest that both replaced. None where they do not agree which that is, or where
/// nothing proves that they came from the same.
pub fn base(loser: &Entry, winner: &Entry) -> Option<ContentId> {
    let latest = |of: &Entry, other: &Entry| of.superseded.iter().copied().find(|id| other.superseded.contains(id));
    let is_now = |id: &ContentId| [loser, winner].iter().any(|entry| entry.kind.content_id() == Some(*id));
    latest(loser, winner).filter(|id| latest(winner, loser) == Some(*id) && !is_now(id))
}

/// True for a conflict copy as it was made. What such a copy replaced lay under the name of its original, and is what
/// both sides came from.
pub fn is_as_made(copy: &Entry) -> bool {
    let Some(original) = original_of(&copy.path).filter(|_| copy.is_live()) else { return false };
    [None, copy.kind.content_id()]
        .into_iter()
        .any(|id| conflict_name(&original, copy.mtime_ns, copy.author, id).is_ok_and(|name| name == copy.path))
}

/// An ordinary name beside the file that `path` is a conflict copy's original of: `report (laptop).odt`, and with a
/// `number` from 2 on `report (laptop 2).odt`.
pub fn kept_name(path: &RelPath, device: &str, number: u32) -> Result<RelPath, PathError> {
    let name = path.file_name();
    let (stem, extension) = split_extension(name);
    let device: String = device.chars().map(|c| if c == '/' || c.is_control() { '-' } else { c }).collect();
    let device = if device.trim().is_empty() { "other" } else { device.trim() };
    let device: String = device.chars().take(DEVICE_CHARS_MAX).collect();
    let tag = if number < 2 { format!(" ({device})") } else { format!(" ({device} {number})") };
    let room = COMPONENT_BYTES_MAX - tag.len() - extension.len();
    let stem = if stem.len() <= room { stem.to_vec() } else { shortened(stem, name, room) };
    path.with_file_name(&[&stem, tag.as_bytes(), extension].concat())
}

/// The path that a conflict copy is a copy of, or `None` where the name is not one of a conflict copy.
///
/// A name that was shortened gives the shortened name: the rest of it is not in there.
pub fn original_of(path: &RelPath) -> Option<RelPath> {
    let name = path.file_name();
    // From the end: a copy of a copy is a copy of that. An extension may look like the tag, so there may be more than one.
    let tags = (0..name.len()).rev().filter(|at| name[*at..].starts_with(TAG));
    let original = tags.into_iter().find_map(|at| original_name(&name[..at], &name[at + TAG.len()..]))?;
    path.with_file_name(&original).ok()
}

/// The name that `stem`, the tag and `rest` are a copy's name of.
fn original_name(stem: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
    let (moment, rest) = rest.split_at_checked(MOMENT_BYTES)?;
    let is_moment =
        moment.iter().enumerate().all(|(i, b)| if i == 8 || i == 15 { *b == b'-' } else { b.is_ascii_digit() });
    let rest = match rest.strip_prefix(FOUND.as_bytes()) {
        Some(rest) => rest,
        None => {
            let (author, rest) = rest.split_at_checked(AUTHOR_BYTES)?;
            author.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')).then_some(rest)?
        }
    };
    let extension = match rest.strip_prefix(b"-") {
        Some(rest) => {
            let (hash, rest) = rest.split_at_checked(2 * HASH_BYTES)?;
            hash.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(rest)?
        }
        None => rest,
    };
    if stem.is_empty() || !is_moment || !(extension.is_empty() || is_extension(extension)) {
        return None;
    }
    Some([stem, extension].concat())
}

/// Splits before the last dot, where what follows looks like an extension. A leading dot only hides a file.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && is_extension(&name[at..]) => name.split_at(at),
        _ => (name, b""),
    }
}

/// True for a dot and what may follow it in an extension.
fn is_extension(bytes: &[u8]) -> bool {
    let plain = |b: &u8| *b != b'.' && !b.is_ascii_whitespace();
    (2..=EXTENSION_BYTES_MAX + 1).contains(&bytes.len()) && bytes[0] == b'.' && bytes[1..].iter().all(plain)
}

/// The stem cut to fit `room`, with a hash of the whole name so that two long names stay two.
fn shortened(stem: &[u8], name: &[u8], room: usize) -> Vec<u8> {
    let hash = Sha256::new().chain_update(b"p2psync long name\0").chain_update(name).finalize();
    let end = format!("~{}", hex(&hash[..HASH_BYTES]));
    let mut cut = room.saturating_sub(end.len()).min(stem.len());
    // A character of UTF-8 has at most three continuation bytes; a name with more of them is no UTF-8 anyway.
    for _ in 0..3 {
        if cut > 0 && stem.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
            cut -= 1;
        }
    }
    [&stem[..cut], end.as_bytes()].concat()
}

/// Date and time of day in UTC: `20261122-140312-`.
fn moment(mtime_ns: i64) -> String {
    let seconds = mtime_ns.div_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-")
}

/// Year, month and day of the day so many days after 1 January 1970 in the Gregorian calendar.
///
/// Years are taken to begin on 1 March, so that the leap day is the last day of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    // 1 March 2000 is a first day of a 400-year cycle.
    let since = days - 11_017;
    let (cycle, in_cycle) = (since.div_euclid(DAYS_IN_400_YEARS), since.rem_euclid(DAYS_IN_400_YEARS));
    // The last century of a cycle and the last year of four have a day more than the others.
    let century = (in_cycle / 36_524).min(3);
    let in_century = in_cycle - century * 36_524;
    let in_four = in_century % 1461;
    let year_of_four = (in_four / 365).min(3);
    let mut day = in_four - year_of_four * 365;
    let mut year = 2000 + cycle * 400 + century * 100 + in_century / 1461 * 4 + year_of_four;
    let mut month = 3;
    for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    if month > 12 {
        (year, month) = (year + 1, month - 12);
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-22 14:03:12 UTC
    const MOMENT_NS: i64 = 1_795_356_192_000_000_000;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::parse(bytes).unwrap()
    }

    fn named(name: &str, content: Option<ContentId>) -> String {
        conflict_name(&path(name.as_bytes()), MOMENT_NS, DeviceId::NONE, content).unwrap().to_string()
    }

    #[test]
    fn a_copy_that_is_kept_gets_an_ordinary_name() {
        let kept = |name: &str, device: &str, number| kept_name(&path(name.as_bytes()), device, number).unwrap();
        assert_eq!(kept("d/a.odt", "laptop", 1).to_string(), "d/a (laptop).odt");
        assert_eq!(kept("a", "my laptop", 2).to_string(), "a (my laptop 2)");
        assert_eq!(kept("a.txt", "x/y", 1).to_string(), "a (x-y).txt");
        assert_eq!(kept("a.txt", " ", 1).to_string(), "a (other).txt");
        let long = kept(&format!("{}.txt", "n".repeat(250)), &"\u{1f600}".repeat(99), u32::MAX);
        assert!(long.file_name().len() <= COMPONENT_BYTES_MAX && original_of(&long).is_none());
    }

    #[test]
    fn names_keep_the_extension_that_a_user_sees() {
        for (name, copy) in [
            ("report.odt", "report.conflict-20261122-140312-FOUND.odt"),
            ("d.x/report", "d.x/report.conflict-20261122-140312-FOUND"),
            (".bashrc", ".bashrc.conflict-20261122-140312-FOUND"),
            ("a.tar.gz", "a.tar.conflict-20261122-140312-FOUND.gz"),
            ("Mr. Smith", "Mr. Smith.conflict-20261122-140312-FOUND"),
            ("ends.", "ends..conflict-20261122-140312-FOUND"),
            ("a.sixteen-letters1", "a.conflict-20261122-140312-FOUND.sixteen-letters1"),
            ("a.seventeen-letters", "a.seventeen-letters.conflict-20261122-140312-FOUND"),
        ] {
            assert_eq!(named(name, None), copy);
        }
    }

    #[test]
    fn the_author_and_where_needed_the_content_are_in_the_name() {
        let author = DeviceId([0x55; 32]);
        let copy = conflict_name(&path(b"report.odt"), MOMENT_NS, author, Some(ContentId([0xab; 32]))).unwrap();
        assert_eq!(copy.to_string(), format!("report.conflict-20261122-140312-{}-abababab.odt", author.short()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (19_783, (2024, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (106_751, (2262, 4, 11)),
            (-106_752, (1677, 9, 21)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
        assert_eq!(moment(-1), "19691231-235959-");
        assert_eq!(moment(i64::MIN), "16770921-001243-");
    }

    #[test]
    fn two_long_names_get_two_copies_without_a_broken_character() {
        let name = |last: &str| format!("{}{last}.txt", "\u{20ac}".repeat(83));
        let (a, b) = (named(&name("a"), None), named(&name("b"), None));
        assert_ne!(a, b);
        assert!(!a.contains("\\x"), "{a}");
        assert!(a.starts_with("\u{20ac}\u{20ac}") && a.ends_with(".txt"));
    }

    #[test]
    fn a_copy_is_known_for_one_even_if_the_extension_looks_like_the_tag() {
        for name in ["a.conflict-", "a.conflict-2026", "a.conflict-20261122-140312-FOUND.conflict-x"] {
            let copy = conflict_name(&path(name.as_bytes()), 0, DeviceId::NONE, None).unwrap();
            assert_eq!(original_of(&copy), Some(path(name.as_bytes())), "{copy}");
        }
    }

    #[test]
    fn names_that_only_look_like_a_conflict_copy_are_left_alone() {
        for name in [
            "report.odt",
            "a.conflict-",
            "a.conflict-20261122-140312-K3QZ7A",
            "a.conflict-20261122-140312-k3qz7ab",
            "a.conflict-20261122 140312-K3QZ7AB",
            "a.conflict-2026112x-140312-K3QZ7AB",
            "a.conflict-20261122-140312-K3QZ7AB-0123",
            "a.conflict-20261122-140312-K3QZ7AB and more",
            ".conflict-20261122-140312-K3QZ7AB",
        ] {
            assert_eq!(original_of(&path(name.as_bytes())), None, "{name}");
        }
    }

    #[test]
    fn both_came_from_the_latest_that_both_have_replaced() {
        let ids = |ids: &[u8]| ids.iter().map(|n| ContentId([*n; 32])).collect::<Vec<_>>();
        let entry = |superseded: &[u8]| Entry { superseded: ids(superseded), ..Entry::nothing(path(b"a")) };
        for (loser, winner, found) in [
            (&[2, 1][..], &[3, 2, 1][..], Some(2)),
            (&[1], &[1], Some(1)),
            // Made on both on their own, one of them edited.
            (&[1], &[], None),
            (&[2], &[1], None),
            // They do not agree which was the later one.
            (&[2, 1], &[1, 2], None),
        ] {
            let found = found.map(|n| ContentId([n; 32]));
            assert_eq!(base(&entry(loser), &entry(winner)), found, "{loser:?} {winner:?}");
            assert_eq!(base(&entry(winner), &entry(loser)), found);
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-z. ]{1,20}".prop_map(String::into_bytes),
            "[a-zä€.]{1,80}\\.[a-z]{1,20}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 1..256),
        ]
    }

    proptest! {
        #[test]
        fn every_copy_has_a_valid_name_in_the_same_directory(
            name in name(), mtime in any::<i64>(), author: [u8; 32], id in proptest::option::of(any::<[u8; 32]>()),
        ) {
            let Ok(path) = RelPath::parse(&[b"dir/", &name[..]].concat()) else { return Ok(()) };
            let copy = conflict_name(&path, mtime, DeviceId(author), id.map(ContentId)).unwrap();
            prop_assert_eq!(copy.parent(), path.parent());
            prop_assert!(copy.file_name().len() <= COMPONENT_BYTES_MAX);
            prop_assert_ne!(&copy, &path);
            let original = original_of(&copy);
            prop_assert!(original.is_some());
            if path.file_name().len() <= 200 {
                prop_assert_eq!(original, Some(path));
            }
        }

        #[test]
        fn days_follow_each_other(days in -106_752i64..106_751) {
            let ((y, m, d), next) = (civil(days), civil(days + 1));
            prop_assert!(next == (y, m, d + 1) || next == (y, m + 1, 1) || next == (y + 1, 1, 1));
            prop_assert!((1..=12).contains(&m) && (1..=31).contains(&d));
        }
    }
}
