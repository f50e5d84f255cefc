//! `p2psync pause` and `p2psync resume`, for a folder or for all, for a time or until further notice.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::context::{Context, find_folder};
use super::exit::misuse;
use super::folder::change;
use super::output::{self, clean};
use crate::config::{self, Config, Pause};
use crate::core::id::FolderId;

/// Longest pause: a year. Who means longer means until further notice.
const PAUSE_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);

/// Pauses what the words say: `[FOLDER] [1h|30m|until 18:00]`.
pub fn pause(context: &Context, words: &[String], as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let (folder, pause) = read_words(words, context.now_ms, &TimeZone::system())?;
    let (ids, label) = chosen(&config, folder).map_err(|error| match folder {
        // No folder is called so: a time was meant.
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => misuse(format!(
            "'{}' is neither a folder nor a time; write a time like 30m, 2h, 1h30m, 1d or 'until 18:00'",
            clean(word)
        )),
        _ => error,
    })?;
    let changed = config::set_pause(&context.home, &ids, pause)?;
    context.reload();
    if as_json {
        return print_changes("paused", &changed, &ids);
    }
    let named = folder.and_then(|_| config.folder(ids.first()?));
    let word = named.map(|found| format!(" {}", config.word_of(found))).unwrap_or_default();
    output::print(&match pause {
        Pause::UntilMs(ms) => format!(
            "{label} is paused until {}, and goes on by itself then. Sooner with: p2psync resume{word}\n",
            output::local_time(ms)
        ),
        _ => format!("{label} is paused. Go on with: p2psync resume{word}\n"),
    })
}

/// Lets a folder, or all, go on.
pub fn resume(context: &Context, folder: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let (ids, label) = chosen(&config, folder)?;
    let changed = config::set_pause(&context.home, &ids, Pause::No)?;
    context.reload();
    if as_json {
        return print_changes("resumed", &changed, &ids);
    }
    output::print(&format!("{label} goes on.\n"))
}

/// Tells programs what was done to which folders.
fn print_changes(action: &str, config: &Config, ids: &[FolderId]) -> anyhow::Result<()> {
    let changes = ids.iter().map(|id| change(action, config.folder(id)));
    output::print_json(&changes.collect::<Vec<_>>())
}

/// The folders that are meant, at least one, and their name for people.
fn chosen(config: &Config, folder: Option<&str>) -> anyhow::Result<(Vec<FolderId>, String)> {
    match folder {
        Some(word) => {
            let found = find_folder(config, Some(word))?;
            Ok((vec![found.id.clone()], clean(&found.label)))
        }
        None => {
            if config.folders.is_empty() {
                return Err(misuse("there is no folder yet; 'p2psync folder add PATH' makes one"));
            }
            Ok((config.folders.iter().map(|folder| folder.id.clone()).collect(), "Everything".to_owned()))
        }
    }
}

fn read_words<'a>(words: &'a [String], now_ms: i64, zone: &TimeZone) -> anyhow::Result<(Option<&'a str>, Pause)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (rest, pause) = match words[..] {
        [ref rest @ .., "until", time] => (rest.to_vec(), until(time, now_ms, zone)?),
        [ref rest @ .., "for", time] if span(time).is_some() => (rest.to_vec(), after(time, now_ms)?),
        [ref rest @ .., time] if span(time).is_some() => (rest.to_vec(), after(time, now_ms)?),
        _ => (words.clone(), Pause::Open),
    };
    match rest[..] {
        [] => Ok((None, pause)),
        [folder] => Ok((Some(folder), pause)),
        _ => Err(misuse(
            "write it like 'p2psync pause 1h', 'p2psync pause Photos 30m' or 'p2psync pause Photos until 18:00'",
        )),
    }
}

fn after(text: &str, now_ms: i64) -> anyhow::Result<Pause> {
    let Some(span) = span(text).filter(|span| *span <= PAUSE_MAX) else {
        let text = clean(text);
        return Err(misuse(format!(
            "'{text}' is longer than a year; without a time a pause lasts until 'p2psync resume'"
        )));
    };
    Ok(Pause::UntilMs(now_ms + i64::try_from(span.as_millis())?))
}

/// A time span such as `30m`, `1h`, `1h30m` or `2d`.
fn span(text: &str) -> Option<SignedDuration> {
    let (mut total, mut digits) = (SignedDuration::ZERO, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let seconds = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        let count: i64 = std::mem::take(&mut digits).parse().ok()?;
        total = total.checked_add(SignedDuration::from_secs(count.checked_mul(seconds)?))?;
    }
    (digits.is_empty() && total > SignedDuration::ZERO).then_some(total)
}

/// The next time that the clock shows this, or this date and time.
fn until(text: &str, now_ms: i64, zone: &TimeZone) -> anyhow::Result<Pause> {
    let now = Timestamp::from_millisecond(now_ms)?.to_zoned(zone.clone());
    let minute = config::parse_minute(text);
    let then = match (minute, text.parse::<DateTime>()) {
        (Some(minute), _) => {
            let time = Time::new(i8::try_from(minute / 60)?, i8::try_from(minute % 60)?, 0, 0)?;
            let today = now.date().to_datetime(time).to_zoned(zone.clone())?;
            if today > now {
                today
            } else {
                now.date().checked_add(1.day())?.to_datetime(time).to_zoned(zone.clone())?
            }
        }
        (None, Ok(date_time)) => date_time.to_zoned(zone.clone())?,
        (None, Err(_)) => {
            let text = clean(text);
            return Err(misuse(format!("'{text}' is no time; write it like 18:00 or 2026-11-24T08:00")));
        }
    };
    if then <= now {
        return Err(misuse(format!("{} is over already", clean(text))));
    }
    if then.timestamp().duration_since(now.timestamp()) > PAUSE_MAX {
        return Err(misuse("that is more than a year away"));
    }
    Ok(Pause::UntilMs(then.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// 2026-11-23 12:00 UTC.
    const NOON_MS: i64 = 1_795_435_200_000;

    fn read(words: &str) -> Result<(Option<String>, Pause), String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let read = read_words(&words, NOON_MS, &TimeZone::UTC).map_err(|e| e.to_string())?;
        Ok((read.0.map(str::to_owned), read.1))
    }

    #[test]
    fn pauses_are_read_as_people_write_them() {
        let until = |hours: i64| Pause::UntilMs(NOON_MS + hours * HOUR_MS);
        for (words, folder, pause) in [
            ("", None, Pause::Open),
            ("Photos", Some("Photos"), Pause::Open),
            ("1h", None, until(1)),
            ("for 2h", None, until(2)),
            ("Photos 30m30m", Some("Photos"), until(1)),
            ("Photos 2d", Some("Photos"), until(48)),
            ("until 18:00", None, until(6)),
            ("Photos until 9:00", Some("Photos"), until(21)),
            ("until 2026-11-24T12:00", None, until(24)),
        ] {
            assert_eq!(read(words), Ok((folder.map(str::to_owned), pause)), "{words}");
        }
    }

    #[test]
    fn a_word_that_is_neither_a_time_nor_a_folder_is_told_as_what_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = crate::home::Home::at(&root.join("home"), root.clone());
        let (id, path) = ("d".parse().unwrap(), root.join("docs"));
        let folder = config::NewFolder { id, label: "Docs".into(), path, peers: config::Sharing::All };
        config::add_folder(&home, &folder).unwrap();
        let context = Context { home, now_ms: NOON_MS };
        let told = |word: &str| pause(&context, &[word.to_owned()], false).unwrap_err().to_string();
        assert!(told("1x").contains("write a time like 30m"), "{}", told("1x"));
        assert!(told("Dosc").contains("did you mean 'Docs'?"));
    }

    #[test]
    fn what_is_no_time_is_told_with_an_example() {
        for (words, part) in [
            ("until teatime", "write it like 18:00"),
            ("until 2026-11-22T08:00", "over already"),
            ("until 2030-01-01T00:00", "more than a year"),
            ("999d", "longer than a year"),
            ("Photos Docs", "write it like"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
