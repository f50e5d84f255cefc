//! Text that fits the terminal: long lines are broken between words, and never where that would spoil something that is
//! to be copied. Only what goes to a terminal comes here; programs get lines as they are.

use ratatui::text::Span;

/// Room in columns that the last column of a table needs, to be broken within itself.
const LAST_COLUMN_MIN: usize = 20;
/// Blanks before the columns of a row that have no room on its first line.
const ROW_INDENT: usize = 4;
/// What goes on from a program's name in a sentence.
const VERBS: [&str; 5] = ["is", "has", "runs", "on", "for"];
/// What a command begins with that stands behind a colon, or by itself.
const PROGRAMS: [&str; 5] = ["p2psync", "sudo", "systemctl", "loginctl", "rm"];

/// Columns that a text takes on a terminal: colours take none, and some letters two.
pub fn columns(text: &str) -> usize {
    let mut shown = String::with_capacity(text.len());
    let mut is_code = false;
    for c in text.chars() {
        match (is_code, c) {
            (false, '\x1b') => is_code = true,
            (true, 'm') => is_code = false,
            (true, _) => {}
            (false, _) => shown.push(c),
        }
    }
    Span::raw(shown).width()
}

/// The text with no line longer than `width`, where it has blanks to break at. What a line goes on with stands below its
/// beginning, or below its last column.
pub fn flowed(text: &str, width: usize) -> String {
    text.split_inclusive('\n').map(|line| flowed_line(line, width)).collect()
}

/// Lines of at most `width` columns, broken at blanks where there are any.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for unit in units(text) {
        let length = columns(&unit);
        if taken > 0 && taken + 1 + length > width {
            lines.push(String::new());
            taken = 0;
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
                taken += 1;
            }
            line.push_str(&unit);
            taken += length;
        }
    }
    lines
}

fn flowed_line(line: &str, width: usize) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    if columns(text.trim_end()) <= width {
        return line.to_owned();
    }
    let (first, rest) = beginning(text);
    let indent = columns(first);
    if first.trim().is_empty() && (is_command(rest) || is_set_in_for_copying(indent, rest)) {
        return line.to_owned();
    }
    if width < indent + LAST_COLUMN_MIN {
        return format!("{}{end}", by_columns(text.trim_end(), width));
    }
    // A comment has to stay one.
    let (rest, below) = match rest.strip_prefix("# ") {
        Some(rest) => (rest, "# "),
        None => (rest, ""),
    };
    // The blank behind a question keeps the answer apart.
    let words = rest.trim_end();
    let lines = wrap(words, width - indent - columns(below));
    let first = format!("{first}{below}");
    let between = format!("\n{}{below}", " ".repeat(indent));
    format!("{first}{}{}{end}", lines.join(&between), &rest[words.len()..])
}

/// A row of a table that is too wide, broken between its columns.
fn by_columns(row: &str, width: usize) -> String {
    let start = row.len() - row.trim_start().len();
    let below = format!("\n{}", " ".repeat(start + ROW_INDENT));
    let (mut out, mut taken) = (String::new(), 0);
    let mut rest = row;
    while !rest.is_empty() {
        let cell_end = rest.trim_start().find("  ").map_or(rest.len(), |at| rest.len() - rest.trim_start().len() + at);
        let (cell, after) = rest.split_at(cell_end);
        if taken > 0 && taken + columns(cell) > width {
            out.push_str(&below);
            out.push_str(cell.trim_start());
            taken = start + ROW_INDENT + columns(cell.trim_start());
        } else {
            out.push_str(cell);
            taken += columns(cell);
        }
        rest = after;
    }
    out
}

/// What comes before the text that may be broken (blanks, or all columns of a table but the last), and that text.
fn beginning(line: &str) -> (&str, &str) {
    let start = line.len() - line.trim_start().len();
    let last = line.trim_end().rfind("  ").filter(|at| *at >= start);
    line.split_at(last.map_or(start, |at| at + 2))
}

/// A program and its first word; not a sentence that begins with the program's name.
fn is_command(text: &str) -> bool {
    let mut words = text.split(' ');
    words.next().is_some_and(|word| PROGRAMS.contains(&word)) && !words.next().is_some_and(|word| VERBS.contains(&word))
}

/// A line for a shell or for another program's settings, such as crontab's.
fn is_set_in_for_copying(indent: usize, text: &str) -> bool {
    indent >= ROW_INDENT && text.starts_with(['/', '@'])
}

/// The text in pieces that stay whole: words, what is in quotation marks, and commands to the end of their sentence.
fn units(text: &str) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let rest: Vec<&str> = words.clone().collect();
        let is_introduced = units.last().is_none_or(|before| before.ends_with(':'));
        let more = match opening_mark(word) {
            Some(mark) => rest.iter().position(|next| is_closing(next, mark)).map_or(0, |at| at + 1),
            None if is_introduced && is_command(&format!("{word} {}", rest.first().unwrap_or(&""))) => {
                let end = rest.iter().position(|next| next.ends_with([';', ',', ')', '.']));
                end.map_or(rest.len(), |at| at + 1)
            }
            None => 0,
        };
        let mut unit = word.to_owned();
        for next in words.by_ref().take(more) {
            unit.push(' ');
            unit.push_str(next);
        }
        units.push(unit);
    }
    units
}

/// The quotation mark that a word opens and does not close.
fn opening_mark(word: &str) -> Option<char> {
    let inner = word.trim_start_matches(['(', '[']);
    // A path may have its home directory before the mark.
    let inner = inner.strip_prefix("~/").unwrap_or(inner);
    let mark = inner.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    (!is_closing(&inner[1..], mark)).then_some(mark)
}

fn is_closing(word: &str, mark: char) -> bool {
    word.trim_end_matches([',', '.', ';', ':', '?', '!', ')', ']']).ends_with(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sentence_is_broken_between_words_and_goes_on_below_its_beginning() {
        let text = "short\n  Files that the other has stay there, and nothing is lost.\nGo on with all of it? [y/N] ";
        let expected = "short\n  Files that the other\n  has stay there, and\n  nothing is lost.\nGo on with all of it?\n\
                        [y/N] ";
        assert_eq!(flowed(text, 24), expected);
        assert_eq!(flowed(text, 80), text);
    }

    #[test]
    fn commands_and_what_is_quoted_stay_whole_for_copying() {
        let text = "It was removed; 'p2psync folder share Docs' shares it again. Later: p2psync folder accept Docs";
        let expected =
            "It was removed;\n'p2psync folder share Docs'\nshares it again. Later:\np2psync folder accept Docs";
        assert_eq!(flowed(text, 27), expected);
        let alone = "    p2psync pair apple-guitar-lemon-zebra";
        assert_eq!(flowed(alone, 20), alone);
        let text = "Settle one with: p2psync conflicts resolve PATH --keep mine; --diff shows how they differ.";
        let lines = flowed(text, 50);
        assert!(lines.contains("\np2psync conflicts resolve PATH --keep mine; --diff\n"), "{lines}");
        let line = "    @reboot /usr/bin/p2psync run --log-file /home/me/p2psync.log";
        assert_eq!(flowed(line, 40), line);
        // A sentence may begin with the program's name.
        let text = "p2psync: p2psync is running here already as process 4711; stop that one first";
        assert_eq!(flowed(text, 45).lines().count(), 2);
        let text = "p2psync is running here as process 4711, for an hour";
        assert_eq!(flowed(text, 45).lines().count(), 2);
        // Paths, and an apostrophe that opens nothing.
        let text = "The other device's copy lies at ~/'My Sync/a b.txt' now, for 'a b c' of it";
        assert_eq!(flowed(text, 21), "The other device's\ncopy lies at\n~/'My Sync/a b.txt'\nnow, for 'a b c' of\nit");
        assert_eq!(flowed("there is no end to 'this here", 20), "there is no end to\n'this here");
    }

    #[test]
    fn the_last_column_of_a_table_goes_on_below_itself() {
        let text = "warn  Clock      it is an hour behind the one of laptop\n";
        assert_eq!(flowed(text, 40), "warn  Clock      it is an hour behind\n                 the one of laptop\n");
        // Where the others take all the room, the row is broken between columns.
        assert_eq!(flowed(text, 30), "warn  Clock\n    it is an hour behind the one of laptop\n");
        let row = "9f2c41d07ae3  2026-11-23 10:15:00  10 bytes  deleted  letter.txt";
        assert_eq!(flowed(row, 40), "9f2c41d07ae3  2026-11-23 10:15:00\n    10 bytes  deleted  letter.txt");
        let version = "laptop  K27S3DF  has removed this device  p2psync 0.1.0";
        assert_eq!(flowed(version, 50), "laptop  K27S3DF  has removed this device\n    p2psync 0.1.0");
        let example = "  p2psync pair   # show a code, and wait for the other";
        assert_eq!(flowed(example, 40), "  p2psync pair   # show a code, and wait\n                 # for the other");
    }

    #[test]
    fn colours_take_no_room_and_wide_letters_two() {
        assert_eq!(columns("\x1b[32mok\x1b[0m"), 2);
        assert_eq!(columns("文字"), 4);
        assert_eq!(wrap("文字 文字", 8), ["文字", "文字"]);
        assert_eq!(wrap("\x1b[0m Config", 8), ["\x1b[0m Config"]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost_or_broken(words in proptest::collection::vec("[a-z':,.]{1,9}|p2psync|~/'a", 0..30), width in 10usize..90) {
            let text = words.join(" ");
            let flowed = flowed(&text, width);
            prop_assert_eq!(flowed.split_whitespace().collect::<Vec<_>>(), words.iter().map(String::as_str).collect::<Vec<_>>());
            // What was broken once is not broken again.
            prop_assert_eq!(super::flowed(&flowed, width), flowed);
        }
    }
}
