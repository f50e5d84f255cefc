//! How wide the terminal is, whether it shows colours, and text that fits into it.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use super::flow::{self, PROSE_WIDTH_MAX, columns, wrap};
use super::output;

/// Narrower than that nothing is laid out for; longer lines are wrapped by the terminal.
const WIDTH_MIN: usize = 40;

/// What a piece of text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    Heading,
    Good,
    Busy,
    Bad,
    Faint,
}

/// What the output can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Columns; none where lines are not to be broken, because a program reads them.
    pub width: Option<usize>,
    pub colour: bool,
}

impl Style {
    /// For a program, or a file.
    pub const PLAIN: Style = Style { width: None, colour: false };

    /// What stdout can show.
    pub fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// What stdout or stderr can show.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        if !stream.is_terminal() {
            return Self::PLAIN;
        }
        let columns = rustix::termios::tcgetwinsize(stream).map_or(0, |size| usize::from(size.ws_col));
        let width = (columns > 0).then(|| columns.max(WIDTH_MIN));
        Self { width, colour: output::has_colours(stream) }
    }

    /// The text with its long lines broken between words, where it is for a person.
    pub fn flow(&self, text: &str) -> String {
        flow::released(&self.width.map_or_else(|| text.to_owned(), |width| flow::flowed(text, width)))
    }

    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_owned(),
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text after `first`, broken at blanks; later lines begin below it. `first` may hold colours. Goes through
    /// `flow` when it is printed, as all sentences do.
    pub fn hanging(&self, first: &str, text: &str) -> String {
        let indent = columns(first);
        let Some(width) = self.width else { return format!("{first}{text}\n") };
        let room = width.min(PROSE_WIDTH_MAX).saturating_sub(indent).max(WIDTH_MIN / 2);
        let mut out = first.to_owned();
        for (number, line) in wrap(text, room).into_iter().enumerate() {
            if number > 0 {
                let _ = write!(out, "\n{}", " ".repeat(indent));
            }
            out.push_str(&line);
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_hang_below_their_beginning_and_colours_take_no_room() {
        let style = Style { width: Some(40), colour: true };
        let first = style.paint(Tone::Good, "State ");
        let text = "in sync with desktop and phone; tablet lacks one item";
        let expected = "\x1b[32mState \x1b[0min sync with desktop and phone;\n      tablet lacks one item\n";
        assert_eq!(style.hanging(&first, text), expected);
        assert_eq!(Style::PLAIN.hanging("State ", text), format!("State {text}\n"));
    }

    #[test]
    fn a_word_longer_than_the_line_stays_whole() {
        let style = Style { width: Some(40), colour: false };
        let long = "x".repeat(60);
        assert_eq!(style.hanging("", &format!("a {long} b")), format!("a\n{long}\nb\n"));
        assert_eq!(style.paint(Tone::Bad, "x"), "x");
    }
}
