//! Times, sizes and lists in words.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// For an index that was removed while it was in use, until the agent has noticed.
pub const INDEX_GONE: &str =
    "its index was removed; it is built anew at the next change, or now by 'p2psync folder rescan'";

/// Names in a list before the rest is only counted.
const NAMES_MAX: usize = 3;

/// "1 file", "2 files".
pub fn count(value: u64, one: &str, many: &str) -> String {
    format!("{value} {}", if value == 1 { one } else { many })
}

/// A size such as "12 bytes" or "3.2 MB" (in steps of 1024).
pub fn bytes(value: u64) -> String {
    if value < 1024 {
        return count(value, "byte", "bytes");
    }
    let (mut scaled, mut unit) = (value as f64, "");
    for next in ["KB", "MB", "GB", "TB", "PB", "EB"] {
        // What would be shown as 1024 of one unit is shown as 1 of the next.
        if scaled < 1023.5 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// How long ago a time was. Times to come, of clocks that differ, are "just now".
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    match now_ms.saturating_sub(then_ms) {
        ..10_000 => "just now".to_owned(),
        age => format!("{} ago", span(age)),
    }
}

/// In how long a time is.
pub fn soon(then_ms: i64, now_ms: i64) -> String {
    match then_ms.saturating_sub(now_ms) {
        ..SECOND_MS => "in a moment".to_owned(),
        wait => format!("in {}", span(wait)),
    }
}

/// A time to come as the clock on the wall will show it, with the date where that is not today's.
pub fn until(then_ms: i64, now_ms: i64) -> String {
    let zoned = |ms| Some(jiff::Timestamp::from_millisecond(ms).ok()?.to_zoned(jiff::tz::TimeZone::system()));
    let (Some(then), Some(now)) = (zoned(then_ms), zoned(now_ms)) else { return soon(then_ms, now_ms) };
    let is_today = then.date() == now.date();
    then.strftime(if is_today { "%H:%M" } else { "%Y-%m-%d %H:%M" }).to_string()
}

fn span(ms: i64) -> String {
    let units = [(DAY_MS, "day", "days"), (HOUR_MS, "hour", "hours"), (MINUTE_MS, "minute", "minutes")];
    let (unit_ms, one, many) =
        units.into_iter().find(|(unit_ms, ..)| ms >= *unit_ms).unwrap_or((SECOND_MS, "second", "seconds"));
    count((ms / unit_ms).unsigned_abs(), one, many)
}

/// "a", "a and b", "a, b and c", "a, b, c and 2 others"; nothing where there are none.
pub fn list(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    let more = (!rest.is_empty()).then(|| count(rest.len() as u64, "other", "others"));
    let all: Vec<&str> = shown.iter().map(String::as_str).chain(more.as_deref()).collect();
    match &all[..] {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A text as a sentence: capital first, full stop last.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    // Texts that stand beside a path leave out what they are about.
    let is_about_it = ["is ", "was ", "needs "].iter().any(|verb| text.starts_with(verb));
    let text = &if is_about_it { format!("it {text}") } else { text.to_owned() };
    let mut rest = text.chars();
    let Some(first) = rest.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), rest.as_str())
}

/// A path in text, with control characters and what is not UTF-8 escaped.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_lists_are_put_into_words() {
        let now = 10 * DAY_MS;
        for (age, text) in [
            (-5, "just now"),
            (9_999, "just now"),
            (10_000, "10 seconds ago"),
            (MINUTE_MS, "1 minute ago"),
            (3 * HOUR_MS + 1, "3 hours ago"),
            (9 * DAY_MS, "9 days ago"),
        ] {
            assert_eq!(ago(now - age, now), text);
        }
        assert_eq!(soon(now + 999, now), "in a moment");
        assert_eq!(soon(now + 4_000, now), "in 4 seconds");
        for (size, text) in [(1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KB"), (10 << 20, "10 MB")] {
            assert_eq!(bytes(size), text);
        }
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(list(&names[..0]), "");
        assert_eq!(list(&names[..1]), "a");
        assert_eq!(list(&names[..2]), "a and b");
        assert_eq!(list(&names[..3]), "a, b and c");
        assert_eq!(list(&names), "a, b, c and 2 others");
        assert_eq!(sentence("needs more space"), "It needs more space.");
        assert_eq!([sentence("the disk is full"), sentence("Yes."), sentence("")], ["The disk is full.", "Yes.", ""]);
    }
}
