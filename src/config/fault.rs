//! What can be wrong with a config file, in words that point at the place and say what to do.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longest piece of a line that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 160;

/// Longest sentence about a mistake, in characters: it may quote a value of any length.
const WHAT_CHARS_MAX: usize = 400;

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("p2psync is not set up on this device yet (there is no config file {path}); 'p2psync run' does that")]
    Missing { path: PathBuf },
    #[error("cannot {doing} the config file {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the config file {path} is larger than a config can be")]
    TooLarge { path: PathBuf },
    #[error(transparent)]
    Invalid(Box<Fault>),
    #[error("{what}; {advice}")]
    Edit { what: String, advice: String },
}

/// A mistake in the file and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// The offending line.
    shown: String,
    /// Characters to underline.
    width: usize,
}

impl Fault {
    /// The mistake at these bytes of the text.
    pub(super) fn at(
        path: &Path,
        text: &str,
        span: Range<usize>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let start = boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = boundary(text, span.end).min(line_end).max(start);
        let shown: String = text[line_start..line_end].trim_end().chars().take(SHOWN_CHARS_MAX).collect();
        Self {
            path: path.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            what: shortened(what.into()),
            advice: advice.into(),
            shown: shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

fn shortened(what: String) -> String {
    match what.char_indices().nth(WHAT_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &what[..at]),
        None => what,
    }
}

/// The nearest place at or before this one where no character is cut.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        ConfigError::Invalid(Box::new(fault))
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let (margin, indent) = (" ".repeat(number.len()), " ".repeat(self.column.saturating_sub(1)));
        let left = SHOWN_CHARS_MAX.saturating_sub(indent.len());
        writeln!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.what)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.shown)?;
        writeln!(f, "{margin} | {indent}{}", "^".repeat(self.width.min(left)))?;
        write!(f, "{margin} = {}", self.advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_that_quotes_a_long_value_is_told_in_short() {
        let at = |what: &str| Fault::at(Path::new("/c"), "a = 1", 0..1, what, "correct it").what;
        assert_eq!(at(&"ü".repeat(WHAT_CHARS_MAX)), "ü".repeat(WHAT_CHARS_MAX));
        assert_eq!(at(&"ü".repeat(5000)), format!("{}...", "ü".repeat(WHAT_CHARS_MAX)));
    }
}
