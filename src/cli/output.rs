//! How things look on a terminal: tables, sizes, times, and text from elsewhere that must not control the terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::flow::{HELD, columns, held};
use super::style::Style;
use crate::api::PeerStatus;

const KIB: u64 = 1024;
const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// From this age on a date says more than a number of days.
const DATE_FROM_MS: i64 = 60 * DAY_MS;

/// Prints sentences to stdout; a terminal gets them in lines that fit it.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_raw(&Style::of_stdout().flow(text))
}

/// Tells something on stderr, in lines that fit a terminal. One that is gone is told nothing.
pub fn tell(text: &str) {
    let mut terminal = io::stderr().lock();
    let text = Style::of(&terminal).flow(text);
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

/// Prints to stdout as it is: what programs read, and what is to be copied. A reader that went away (`| head`) is no
/// error.
pub fn print_raw(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
pub fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print_raw(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// True where colours help: on a terminal that has them, and nobody said otherwise.
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let said = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    stream.is_terminal() && wants_colours(said("NO_COLOR").is_some(), said("TERM").as_deref())
}

fn wants_colours(is_refused: bool, terminal: Option<&std::ffi::OsStr>) -> bool {
    !is_refused && terminal.is_some_and(|kind| kind != "dumb")
}

/// The error and its causes, each said once.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    clean_lines(&without_numbers(&text))
}

/// The text without the numbers that the system has for its errors, which tell a person nothing.
pub fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => out.push_str(rest),
            _ => out.push_str(&format!(" (os error {part}")),
        }
    }
    out
}

/// One line in which nothing can move the cursor or change colours.
pub fn clean(text: &str) -> String {
    escape(text, |_| false)
}

/// The name of a file in a sentence that `print` or `tell` shows: clean, and never broken between two lines.
pub fn name(text: &str) -> String {
    held(&clean(text))
}

fn clean_lines(text: &str) -> String {
    escape(text, |c| c == '\n' || c == HELD)
}

/// What would do something to the terminal, or make a name look like another by turning the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, is_fine: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_fine(c) && is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path, with `~` for the user's home directory.
pub fn short_path(path: &Path, user_dir: &Path) -> String {
    match path.strip_prefix(user_dir) {
        Ok(below) if !below.as_os_str().is_empty() => clean(&format!("~/{}", below.to_string_lossy())),
        _ => clean(&path.to_string_lossy()),
    }
}

/// A number with its digits in groups of three.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 file", "1,204 files".
pub fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A size such as "12 bytes", "3.2 KB" or "45 GB" (in steps of 1024).
pub fn bytes(value: u64) -> String {
    if value < KIB {
        return count(value, "byte", "bytes");
    }
    let mut scaled = value as f64;
    let mut unit = "";
    for next in ["KB", "MB", "GB", "TB", "PB", "EB"] {
        // What would be shown as 1024 of one unit is shown as 1 of the next.
        if scaled < 1023.5 {
            break;
        }
        scaled /= KIB as f64;
        unit = next;
    }
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// How long ago a time was. Times to come, of clocks that differ, are "just now".
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    let age = now_ms.saturating_sub(then_ms);
    let in_units =
        |unit_ms: i64, one: &str, many: &str| format!("{} ago", count((age / unit_ms).unsigned_abs(), one, many));
    match age {
        ..10_000 => "just now".to_owned(),
        _ if age < MINUTE_MS => in_units(SECOND_MS, "second", "seconds"),
        _ if age < HOUR_MS => in_units(MINUTE_MS, "minute", "minutes"),
        _ if age < DAY_MS => in_units(HOUR_MS, "hour", "hours"),
        _ if age < DATE_FROM_MS => in_units(DAY_MS, "day", "days"),
        _ => format!("on {}", local_time(then_ms).split(' ').next().unwrap_or_default()),
    }
}

/// Date and time of day in this device's time zone.
pub fn local_time(time_ms: i64) -> String {
    time_in(time_ms, TimeZone::system())
}

fn time_in(time_ms: i64, zone: TimeZone) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "unknown time".to_owned(),
    }
}

/// Whether a peer is connected, and if not since when.
pub fn peer_state(peer: &PeerStatus, now_ms: i64) -> String {
    match (peer.connected, peer.last_seen_ms) {
        (true, _) => "connected".to_owned(),
        (false, Some(_)) if peer.unpaired => "has removed this device".to_owned(),
        (false, None) if peer.unpaired => "does not know this device yet".to_owned(),
        (false, Some(seen)) => format!("not connected, last seen {}", ago(seen, now_ms)),
        (false, None) => "not connected yet".to_owned(),
    }
}

/// A word as a shell reads it back, so that a command that is shown can be pasted.
pub fn quoted(word: &str) -> String {
    if let Some(rest) = word.strip_prefix("~/").filter(|rest| !rest.is_empty()) {
        return format!("~/{}", quoted(rest));
    }
    if word.chars().any(is_hidden) {
        // As bash, zsh and ksh read it.
        let one = |c: char| match c {
            '\\' | '\'' => format!("\\{c}"),
            c if is_hidden(c) => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        };
        return format!("$'{}'", word.chars().map(one).collect::<String>());
    }
    let is_plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "/._-+,:@".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Columns that line up.
#[derive(Debug, Default)]
pub struct Table {
    indent: usize,
    has_headings: bool,
    /// Headings of the columns that hold names, which are not broken between two lines.
    names: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: &[&str; N]) -> Self {
        let headings = headings.iter().map(|h| (*h).to_owned()).collect();
        Self { has_headings: true, rows: vec![headings], ..Self::default() }
    }

    /// A table without headings, set in by some blanks.
    pub fn indented(indent: usize) -> Self {
        Self { indent, ..Self::default() }
    }

    /// The columns under these headings hold names, paths or patterns: what may be copied.
    pub fn with_names(mut self, headings: &[&'static str]) -> Self {
        self.names.extend(headings);
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let headings = self.rows.first().filter(|_| self.has_headings);
        let is_name = |column: usize| {
            headings.and_then(|headings| headings.get(column)).is_some_and(|heading| self.names.contains(&&heading[..]))
        };
        let shown = |(column, cell): (usize, &String)| if is_name(column) { name(cell) } else { clean(cell) };
        let row = cells.iter().enumerate().map(shown).collect();
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell)).max();
        // A heading with nothing below it says nothing.
        let values = self.rows.get(usize::from(self.has_headings)..).unwrap_or_default();
        let is_used = |column: usize| values.iter().any(|row| row.get(column).is_some_and(|cell| !cell.is_empty()));
        let widths: Vec<Option<usize>> =
            (0..count).map(|column| width(column).filter(|_| values.is_empty() || is_used(column))).collect();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths).filter_map(|(cell, width)| Some((cell, (*width)?))) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - columns(cell) + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_true() {
        let cases = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1,023 bytes"),
            (1024, "1.0 KB"),
            (10 * 1024, "10 KB"),
            (1024 * 1024 - 1, "1.0 MB"),
            (3_435_973_837, "3.2 GB"),
            (u64::MAX, "16 EB"),
        ];
        for (value, shown) in cases {
            assert_eq!(bytes(value), shown, "{value}");
        }
    }

    #[test]
    fn times_are_told_as_a_person_would() {
        let now = 100 * DAY_MS;
        let cases = [
            (now + 5_000, "just now"),
            (now - 9_000, "just now"),
            (now - 30_000, "30 seconds ago"),
            (now - MINUTE_MS, "1 minute ago"),
            (now - 3 * HOUR_MS, "3 hours ago"),
            (now - 2 * DAY_MS, "2 days ago"),
        ];
        for (then, shown) in cases {
            assert_eq!(ago(then, now), shown);
        }
        assert!(ago(0, now).starts_with("on 19"), "{}", ago(0, now));
        assert_eq!(time_in(0, TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(time_in(i64::MAX, TimeZone::UTC), "unknown time");
    }

    #[test]
    fn colours_are_refused_by_a_variable_or_a_terminal_without_them() {
        let cases = [
            (false, Some("xterm"), true),
            (true, Some("xterm"), false),
            (false, Some("dumb"), false),
            (false, None, false),
        ];
        for (is_refused, terminal, wanted) in cases {
            assert_eq!(
                wants_colours(is_refused, terminal.map(std::ffi::OsStr::new)),
                wanted,
                "{is_refused} {terminal:?}"
            );
        }
    }

    #[test]
    fn numbers_have_groups() {
        assert_eq!([number(0), number(999), number(1000), number(1234567)], ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn names_cannot_control_the_terminal() {
        assert_eq!(clean("a\x1b[31m\nb\u{202e}c"), "a\\u{1b}[31m\\nb\\u{202e}c");
        assert_eq!(clean("Grüße 文"), "Grüße 文");
    }

    #[test]
    fn a_word_can_be_pasted_into_a_shell() {
        let words = ["a.txt", "~/P2PSync/a b.txt", "it's", "a\nb\\", "Grüße", "", "~/a", "$HOME", "\u{202e}x", "a@2d"];
        let shown = words.map(quoted);
        let expected = [
            "a.txt",
            "~/'P2PSync/a b.txt'",
            r"'it'\''s'",
            r"$'a\u000ab\\'",
            "Grüße",
            "''",
            "~/a",
            "'$HOME'",
            r"$'\u202ex'",
            "a@2d",
        ];
        assert_eq!(shown, expected);
        for word in words.iter().filter(|word| !word.starts_with("~/")) {
            let Ok(echoed) = std::process::Command::new("bash")
                .env("LC_ALL", "C.UTF-8")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(word)))
                .output()
            else {
                return;
            };
            assert_eq!(String::from_utf8_lossy(&echoed.stdout), *word);
        }
    }

    #[test]
    fn columns_line_up_and_empty_ones_take_no_room() {
        let mut table = Table::new(&["NAME", "", "STATE"]);
        table.row(["laptop".into(), String::new(), "connected".into()]);
        table.row(["Büro".into(), String::new(), "not\nconnected".into()]);
        assert_eq!(table.to_string(), "NAME    STATE\nlaptop  connected\nBüro    not\\nconnected\n");
        let mut table = Table::new(&["NAME", "CLOCK", "STATE"]);
        table.row(["文字".into(), String::new(), "connected".into()]);
        assert_eq!(table.to_string(), "NAME  STATE\n文字  connected\n");
    }

    #[test]
    fn names_in_columns_are_whole_on_a_narrow_terminal_and_as_they_are_for_a_program() {
        let mut table = Table::new(&["ID", "WHEN", "PATH"]).with_names(&["PATH"]);
        table.row(["9f2c41d07ae3".into(), "2 days ago".into(), "Letters to the bank\u{1f}2.odt".into()]);
        let plain = "ID            WHEN        PATH\n9f2c41d07ae3  2 days ago  Letters to the bank\\u{1f}2.odt\n";
        assert_eq!(Style::PLAIN.flow(&table.to_string()), plain);
        let narrow = Style { width: Some(40), colour: false };
        let expected =
            "ID            WHEN        PATH\n9f2c41d07ae3  2 days ago\n    Letters to the bank\\u{1f}2.odt\n";
        assert_eq!(narrow.flow(&table.to_string()), expected);
    }

    #[test]
    fn numbers_of_system_errors_are_left_out() {
        let refused = "cannot connect to a:1: Connection refused (os error 111); tried (os error 5) twice";
        assert_eq!(without_numbers(refused), "cannot connect to a:1: Connection refused; tried twice");
        assert_eq!(without_numbers("x (os error y) (os error 1"), "x (os error y) (os error 1");
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file").context("starting");
        assert_eq!(error_text(&error), "starting: cannot read x: no such file");
    }
}
