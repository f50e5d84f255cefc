//! One file of ignore rules: its lines, each checked, and the matcher that they make together.
//!
//! The `ignore` crate serves as a pure matcher: it is handed lines and paths and never looks at a disk. Unlike it, and
//! like git, a brace stands for itself.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{Hit, IGNORE_FILE, Source};

/// Largest file of rules in bytes: it may come from a peer, and matchers take many times their text in memory.
pub const IGNORE_BYTES_MAX: usize = 1024 * 1024;
/// Most lines of rules, for the same reason.
pub const IGNORE_LINES_MAX: usize = 10_000;
/// Longest line in bytes: no sensible pattern is longer, and the time to read one grows with its square.
pub const LINE_BYTES_MAX: usize = 1024;
/// How much of a faulty line is shown.
pub(super) const SHOWN_CHARS_MAX: usize = 100;

/// Built-in rules; a line such as `!Thumbs.db` in the file takes one back.
const BUILT_IN: [&str; 17] = [
    // macOS
    ".DS_Store",
    "._*",
    ".Spotlight-V100/",
    ".Trashes/",
    ".fseventsd/",
    ".TemporaryItems/",
    ".DocumentRevisions-V100/",
    // Windows
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    // Linux: trash, files deleted while open on NFS, what fsck found
    ".Trash-*/",
    ".nfs*",
    "lost+found/",
    // Editors and office programs: swap and lock files
    ".*.sw?",
    "~$*",
    ".~lock.*#",
];

/// The rules of one file.
#[derive(Clone)]
pub(super) struct Lines {
    matcher: Gitignore,
    /// The lines that the matcher was made from, as they stand in the file.
    pub lines: Vec<Line>,
}

/// One of them; without a number it is built in.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub number: Option<u32>,
    pub pattern: Box<str>,
}

/// A line of the file that is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{IGNORE_FILE} line {line}: {why}: {text}")]
pub struct RuleError {
    /// From 1.
    pub line: u32,
    pub text: String,
    pub why: String,
}

impl Lines {
    pub fn parse(mut collector: Collector, text: &[u8]) -> (Lines, Vec<RuleError>) {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut bytes = 0;
        for (number, line) in (1u32..).zip(text.split(|b| *b == b'\n')) {
            bytes += line.len() + 1;
            if number as usize > IGNORE_LINES_MAX {
                collector.refuse(number, line, format!("this and what follows is beyond {IGNORE_LINES_MAX} lines"));
                break;
            }
            if bytes > IGNORE_BYTES_MAX + 1 {
                collector.refuse(number, line, format!("this and what follows is beyond {IGNORE_BYTES_MAX} bytes"));
                break;
            }
            collector.add(number, line.strip_suffix(b"\r").unwrap_or(line));
        }
        collector.finish()
    }

    /// The line that decides about a path, and whether it ignores it.
    pub fn decide(&self, path: &[u8], is_dir: bool, source: impl Fn() -> Source) -> Option<(Hit, bool)> {
        let (glob, is_ignored) = match self.matcher.matched(native(path), is_dir) {
            Match::Ignore(glob) => (glob, true),
            Match::Whitelist(glob) => (glob, false),
            Match::None => return None,
        };
        let at: Option<usize> = glob.from().and_then(|from| from.to_str()).and_then(|from| from.parse().ok());
        let line = at.and_then(|at| self.lines.get(at));
        let pattern = line.map_or(glob.original(), |l| &l.pattern).to_owned();
        let number = line.and_then(|l| l.number);
        let source = if number.is_some() { source() } else { Source::BuiltIn };
        Some((Hit { source, line: number, pattern }, is_ignored))
    }
}

/// Gathers lines into a matcher, and the errors of those that are none.
pub(super) struct Collector {
    builder: GitignoreBuilder,
    lines: Vec<Line>,
    errors: Vec<RuleError>,
}

impl Collector {
    pub fn empty() -> Self {
        Self { builder: GitignoreBuilder::new(""), lines: Vec::new(), errors: Vec::new() }
    }

    pub fn with_built_in() -> Self {
        let mut new = Self::empty();
        for pattern in BUILT_IN {
            let added = new.push(None, pattern);
            debug_assert_eq!(added, Ok(()), "{pattern}");
        }
        new
    }

    fn add(&mut self, number: u32, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else {
            return self.refuse(number, line, "is not UTF-8".to_owned());
        };
        if line.len() > LINE_BYTES_MAX {
            return self.refuse(number, line, format!("is longer than {LINE_BYTES_MAX} bytes"));
        }
        if text.trim().is_empty() || text.starts_with('#') {
            return;
        }
        if let Err(why) = self.push(Some(number), text) {
            self.refuse(number, line, why);
        }
    }

    fn push(&mut self, number: Option<u32>, pattern: &str) -> Result<(), String> {
        // The matcher knows of a rule's origin only a path to show: the line's position travels as that.
        let origin = PathBuf::from(self.lines.len().to_string());
        match self.builder.add_line(Some(origin), &with_literal_braces(pattern)) {
            Ok(_) => {
                self.lines.push(Line { number, pattern: pattern.trim_end().into() });
                Ok(())
            }
            Err(ignore::Error::Glob { err, .. }) => Err(err),
            Err(error) => Err(error.to_string()),
        }
    }

    fn refuse(&mut self, line: u32, text: &[u8], why: String) {
        let text = String::from_utf8_lossy(text).chars().take(SHOWN_CHARS_MAX).collect::<String>();
        // The reason may quote the line, which may come from a peer.
        let why = why.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() });
        self.errors.push(RuleError { line, text: text.escape_debug().to_string(), why: why.collect() });
    }

    pub fn finish(mut self) -> (Lines, Vec<RuleError>) {
        match self.builder.build() {
            Ok(matcher) => (Lines { matcher, lines: self.lines }, self.errors),
            Err(error) => {
                // All lines are sound one by one, so together they are too large; the built-in ones never are.
                self.refuse(1, b"", format!("the rules are not used: {error}"));
                let has_built_in = self.lines.iter().any(|line| line.number.is_none());
                let fallback = if has_built_in { Collector::with_built_in() } else { Collector::empty() };
                let Collector { builder, lines, .. } = fallback;
                (Lines { matcher: builder.build().unwrap_or_else(|_| Gitignore::empty()), lines }, self.errors)
            }
        }
    }
}

/// Braces escaped, so that they stand for themselves as they do for git; inside `[...]` they do already.
pub(in crate::core) fn with_literal_braces(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(['{', '}']) {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class_bytes(rest),
            _ => c.len_utf8(),
        };
        if matches!(c, '{' | '}') {
            out.push('\\');
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

/// Length of the character class that `rest` begins with; one byte where it is not closed and thus none.
fn class_bytes(rest: &str) -> usize {
    let negated = usize::from(rest[1..].starts_with(['!', '^']));
    // A bracket in the first place does not close the class.
    let from = 1 + negated + usize::from(rest[1 + negated..].starts_with(']'));
    rest[from..].find(']').map_or(1, |at| from + at + 1)
}

#[cfg(unix)]
pub(in crate::core) fn native(path: &[u8]) -> Cow<'_, Path> {
    use std::os::unix::ffi::OsStrExt;
    Cow::Borrowed(Path::new(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(not(unix))]
pub(in crate::core) fn native(path: &[u8]) -> Cow<'_, Path> {
    Cow::Owned(PathBuf::from(String::from_utf8_lossy(path).into_owned()))
}
