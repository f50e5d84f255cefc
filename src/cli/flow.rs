//! Text that fits the terminal: long lines are broken between words, and never where that would spoil something that is
//! to be copied. Only what goes to a terminal comes here; programs get lines as they are.

use std::ops::Range;

use ratatui::text::Span;

/// Room in columns that the last column of a table needs, to be broken within itself.
const LAST_COLUMN_MIN: usize = 20;
/// Blanks before the columns of a row that have no room on its first line.
const ROW_INDENT: usize = 4;
/// What goes on from a program's name in a sentence.
const VERBS: [&str; 5] = ["is", "has", "runs", "on", "for"];
/// What a command begins with that stands behind a colon, or by itself.
const PROGRAMS: [&str; 5] = ["p2psync", "sudo", "systemctl", "loginctl", "rm"];
/// Letters of the longest of these words.
const WORD_LETTERS_MAX: usize = 9;
/// Stands for a blank that no line is broken at, within the name of a file. No text from elsewhere holds it, as `clean`
/// writes it as an escape.
pub const HELD: char = '\u{1f}';
/// Longer lines of sentences are hard to read, however wide the terminal is; columns of tables may have more.
pub const PROSE_WIDTH_MAX: usize = 120;

/// Columns that a text takes on a terminal: colours take none, and some letters two.
pub fn columns(text: &str) -> usize {
    let shown = |letter: Letter| if letter.1 == HELD { ' ' } else { letter.1 };
    Span::raw(letters(text).into_iter().map(shown).collect::<String>()).width()
}

/// The text with its blanks held, so that no line is broken within it. `released` makes them blanks again.
pub fn held(text: &str) -> String {
    text.replace(' ', HELD.encode_utf8(&mut [0; 4]))
}

/// The text as it is shown, with its held blanks as blanks.
pub fn released(text: &str) -> String {
    text.replace(HELD, " ")
}

/// The text with no line longer than `width` (sentences: than `PROSE_WIDTH_MAX`), where it has blanks to break at. What a line goes on with stands below its
/// beginning, or below its last column.
pub fn flowed(text: &str, width: usize) -> String {
    text.split_inclusive('\n').map(|line| flowed_line(line, width)).collect()
}

/// Lines of at most `width` columns, broken at blanks where there are any.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for unit in units(text) {
        let length = columns(unit);
        if taken > 0 && taken + 1 + length > width {
            lines.push(String::new());
            taken = 0;
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
                taken += 1;
            }
            line.push_str(unit);
            taken += length;
        }
    }
    lines
}

fn flowed_line(line: &str, width: usize) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let taken = columns(text.trim_end());
    if taken <= width.min(PROSE_WIDTH_MAX) {
        return line.to_owned();
    }
    let (first, rest) = beginning(text);
    let indent = columns(first);
    let width = if first.trim().is_empty() { width.min(PROSE_WIDTH_MAX) } else { width };
    if taken <= width {
        return line.to_owned();
    }
    if first.trim().is_empty() && (is_command(rest) || is_set_in_for_copying(indent, rest)) {
        return line.to_owned();
    }
    // A name that is held together may have room on a line of its own.
    let is_too_long = |unit: &&str| unit.contains(HELD) && indent + columns(unit) > width;
    if width < indent + LAST_COLUMN_MIN || (!first.trim().is_empty() && units(rest).iter().any(is_too_long)) {
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
    let (start, gaps) = (row.len() - row.trim_start().len(), gaps(row));
    let mut cells = Vec::new();
    let mut from = 0;
    for gap in gaps.into_iter().filter(|gap| *gap >= start) {
        // Of a wide gap only the first blanks end a cell; the others come before the next one.
        if !row[from..gap].trim().is_empty() {
            cells.push(&row[from..gap]);
            from = gap;
        }
    }
    cells.push(&row[from..]);
    between_columns(&cells, start + ROW_INDENT, width)
}

/// Cells, each with the blanks before it, in as many lines as they need; none is broken within itself.
pub fn between_columns(cells: &[&str], indent: usize, width: usize) -> String {
    let (mut out, mut taken) = (String::new(), 0);
    for cell in cells {
        if taken > 0 && taken + columns(cell) > width {
            let cell = cell.trim_start();
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            out.push_str(cell);
            taken = indent + columns(cell);
        } else {
            out.push_str(cell);
            taken += columns(cell);
        }
    }
    out
}

/// What comes before the text that may be broken (blanks, or all columns of a table but the last), and that text.
fn beginning(line: &str) -> (&str, &str) {
    let start = line.len() - line.trim_start().len();
    let end = line.trim_end().len();
    let last = gaps(line).into_iter().rfind(|at| *at >= start && at + 2 < end);
    line.split_at(last.map_or(start, |at| at + 2))
}

/// Where two blanks stand that are not in quotation marks: between the columns of a table.
fn gaps(line: &str) -> Vec<usize> {
    let mut quotes = quotes(&letters(line)).into_iter().peekable();
    let pairs = line.match_indices(' ').map(|(at, _)| at).filter(|at| line[at + 1..].starts_with(' '));
    let mut gaps = Vec::new();
    for at in pairs {
        while quotes.next_if(|quote| quote.end <= at).is_some() {}
        if quotes.peek().is_none_or(|quote| at < quote.start) {
            gaps.push(at);
        }
    }
    gaps
}

/// A program and its first word; not a sentence that begins with the program's name.
fn is_command(text: &str) -> bool {
    begins_command(&letters(text))
}

fn begins_command(letters: &[Letter]) -> bool {
    let mut words = letters.split(|letter| letter.1 == ' ').map(|word| word.iter().map(|letter| letter.1));
    let is_one_of = |word: &mut dyn Iterator<Item = char>, list: &[&str]| {
        // No word that counts is longer.
        let word: String = word.take(WORD_LETTERS_MAX + 1).collect();
        list.contains(&&word[..])
    };
    words.next().is_some_and(|mut word| is_one_of(&mut word, &PROGRAMS))
        && !words.next().is_some_and(|mut word| is_one_of(&mut word, &VERBS))
}

/// A line for a shell or for another program's settings, such as crontab's.
fn is_set_in_for_copying(indent: usize, text: &str) -> bool {
    indent >= ROW_INDENT && text.starts_with(['/', '@'])
}

/// The text in pieces that stay whole: words, what is in quotation marks, and commands to the end of their sentence.
fn units(text: &str) -> Vec<&str> {
    let letters = letters(text);
    let all_quotes = quotes(&letters);
    let mut quotes = all_quotes.iter().peekable();
    let (mut units, mut from, mut is_start) = (Vec::new(), 0, true);
    // Where the command ends that began before.
    let mut command_end = 0;
    for (number, &(at, letter)) in letters.iter().enumerate() {
        while quotes.next_if(|quote| quote.end <= at).is_some() {}
        if quotes.peek().is_some_and(|quote| quote.start < at) {
            continue;
        }
        if is_start && at >= command_end && begins_command(&letters[number..]) {
            command_end = end_of_command(&letters, &all_quotes, number, text.len());
        }
        let before = number.checked_sub(1).map(|before| letters[before].1);
        is_start = letter == ' ' && before == Some(':');
        if letter == ' ' && at >= command_end {
            units.push(&text[from..at]);
            from = at + 1;
        }
    }
    units.push(&text[from..]);
    units
}

/// Where the command ends that begins with this letter: with its sentence, or with the text.
fn end_of_command(letters: &[Letter], quotes: &[Range<usize>], begin: usize, text_end: usize) -> usize {
    let from = letters[begin].0;
    let mut quotes = quotes[quotes.partition_point(|quote| quote.end <= from)..].iter().peekable();
    for (number, pair) in letters.windows(2).enumerate().skip(begin) {
        let [(at, letter), (next_at, ' ')] = *pair else { continue };
        while quotes.next_if(|quote| quote.end <= at).is_some() {}
        if quotes.peek().is_some_and(|quote| quote.start < at && next_at < quote.end) {
            continue;
        }
        let ends = match letter {
            ';' | ',' | ')' => true,
            // It may belong to a name, as in `Dr.`, or be the directory itself.
            '.' => letters.get(number + 2).is_some_and(|next| next.1.is_uppercase()),
            _ => false,
        };
        if ends && at > from {
            return next_at;
        }
    }
    text_end
}

/// Where it stands, and which it is.
type Letter = (usize, char);

/// What of a text is shown: all but the codes for colours.
fn letters(text: &str) -> Vec<Letter> {
    let mut is_code = false;
    let is_shown = |&(_, c): &Letter| match (is_code, c) {
        (false, '\x1b') => {
            is_code = true;
            false
        }
        (true, _) => {
            is_code = c != 'm';
            false
        }
        (false, _) => true,
    };
    text.char_indices().filter(is_shown).collect()
}

/// Where quotation marks are open, from the opening one to behind the closing one. One that nothing closes opens nothing.
fn quotes(letters: &[Letter]) -> Vec<Range<usize>> {
    let (mut quotes, mut number) = (Vec::new(), 0);
    // Marks that nothing closes from here on, so that a text full of them is not read again for each.
    let mut unclosed = Vec::new();
    while let Some(&(start, letter)) = letters.get(number) {
        if matches!(letter, '\'' | '"') && is_opening(&letters[..number]) {
            let is_dollar = number.checked_sub(1).is_some_and(|before| letters[before].1 == '$');
            let end = if unclosed.contains(&(letter, is_dollar)) {
                None
            } else {
                closing(letters, number, letter, is_dollar)
            };
            match end {
                Some(end) => {
                    quotes.push(start..letters[end].0 + 1);
                    number = end;
                }
                None => unclosed.push((letter, is_dollar)),
            }
        }
        number += 1;
    }
    quotes
}

/// True where a quotation mark behind this text opens: it begins a word, but for brackets, `$`, and a home directory.
fn is_opening(before: &[Letter]) -> bool {
    let mut back = before.iter().rev().map(|letter| letter.1).peekable();
    if back.next_if_eq(&'/').is_some() && back.next_if_eq(&'~').is_none() {
        return false;
    }
    let _ = back.next_if_eq(&'$');
    while back.next_if(|c| matches!(c, '(' | '[')).is_some() {}
    back.next().is_none_or(|c| c == ' ')
}

/// Where the mark closes that opens at `begin`: at the end of a word. A shell writes a mark within as `'\''`, or behind
/// `$` as `\'`.
fn closing(letters: &[Letter], begin: usize, mark: char, is_dollar: bool) -> Option<usize> {
    let mut number = begin + 1;
    while let Some(&(_, letter)) = letters.get(number) {
        let mut after = letters[number + 1..].iter().map(|letter| letter.1);
        match letter {
            '\\' if is_dollar => number += 1,
            '\'' if letter == mark && after.clone().take(3).eq(['\\', '\'', '\'']) => number += 3,
            _ if letter == mark => {
                let next = after.find(|c| !matches!(c, ',' | '.' | ';' | ':' | '?' | '!' | ')' | ']'));
                if next.is_none_or(|c| c == ' ') {
                    return Some(number);
                }
            }
            _ => {}
        }
        number += 1;
    }
    None
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
        // A command, and a quotation mark, behind a code.
        let text = "\x1b[1mp2psync folder share Docs --peer desk\x1b[0m";
        assert_eq!(flowed(text, 20), text);
        assert_eq!(wrap("see: \x1b[1mp2psync pair\x1b[0m", 12), ["see:", "\x1b[1mp2psync pair\x1b[0m"]);
        assert_eq!(wrap("at \x1b[1m'a b c'\x1b[0m now", 8), ["at", "\x1b[1m'a b c'\x1b[0m", "now"]);
    }

    #[test]
    fn names_in_the_form_of_a_shell_stay_whole_with_all_that_is_in_them() {
        for name in [
            r"'the boys'\'' photos 1.jpg'",
            r"'a'\'' b'\''  c'",
            r"''\'' a  b'\'''",
            r"$'it\'s a tab\u0009 b'",
            "'two  blanks'",
            "~/'two  blanks'",
            "('two  blanks'),",
        ] {
            assert_eq!(wrap(&format!("x {name} y"), 5), ["x", name, "y"]);
            let text = format!("It lies in {name} from now on");
            assert!(flowed(&text, 20).contains(name), "{name}");
            let row = format!("columns without any room  PATH: {name}");
            assert!(flowed(&row, 30).contains(name), "{name}");
        }
        // What opens nowhere closes nothing.
        assert_eq!(wrap("the boys' own 'n' more", 3), ["the", "boys'", "own", "'n'", "more"]);
        assert_eq!(gaps("a  'b  c'  \"d  e\" 'f  g"), [1, 9, 20]);
    }

    #[test]
    fn names_with_blanks_stay_whole_in_columns_and_sentences() {
        let name = held("Letters to  the bank, 2nd.odt");
        let row = format!("9f2c41d07ae3  10 bytes  deleted  {name}");
        assert_eq!(columns(&name), 29);
        let expected = "9f2c41d07ae3  10 bytes  deleted\n    Letters to  the bank, 2nd.odt";
        for width in [40, 55] {
            assert_eq!(released(&flowed(&row, width)), expected, "{width}");
        }
        assert_eq!(released(&flowed(&row, 62)), released(&row));
        let text = format!("{name} is back: 10 bytes, as of today");
        assert_eq!(released(&flowed(&text, 40)), "Letters to  the bank, 2nd.odt is back:\n10 bytes, as of today");
    }

    #[test]
    fn a_command_ends_with_its_sentence_and_not_within_what_it_names() {
        for command in [
            "p2psync folder add .",
            "p2psync folder add . --name Docs",
            "p2psync folder accept Dr. ~/x",
            "p2psync folder add 'A, B; (C) D. E' --merge",
        ] {
            assert_eq!(wrap(&format!("later: {command}"), 9), ["later:", command]);
            assert_eq!(wrap(&format!("later: {command}; or not"), 9)[1], format!("{command};"));
        }
        let text = "Type: p2psync pair. Then wait for it";
        assert_eq!(wrap(text, 18), ["Type:", "p2psync pair. Then", "wait for it"]);
    }

    #[test]
    fn sentences_end_early_on_a_wide_terminal_and_rows_of_tables_do_not() {
        let sentence = "word ".repeat(40);
        assert!(flowed(&sentence, 200).lines().all(|line| columns(line) <= PROSE_WIDTH_MAX));
        let row = format!("first  {}  last", "x".repeat(150));
        assert_eq!(flowed(&row, 200), row);
        assert_eq!(flowed(&row, 100).lines().count(), 3);
    }

    #[test]
    fn a_long_text_takes_no_more_than_a_look_at_each_of_its_words() {
        // Would take minutes if each word, mark or command looked at all that follows.
        let words = 20_000;
        for word in ["a ", "'a ", "a: ", "$'a ", "p2psync: ", "\"a' "] {
            assert!(!flowed(&word.repeat(words), 80).is_empty());
        }
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
