//! Ignore rules: `.p2pignore` in gitignore syntax, behind built-in rules for the litter of operating systems.
//!
//! The `ignore` crate serves as a pure matcher: it is handed lines and paths and never looks at a disk. Unlike it, and
//! like git, a brace stands for itself.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::path::RelPath;

/// The file in a folder's root that holds its rules. It is itself synced, so it is never ignored.
pub const IGNORE_FILE: &str = ".p2pignore";
/// Largest file of rules in bytes: it may come from a peer, and matchers take many times their text in memory.
pub const IGNORE_BYTES_MAX: usize = 1024 * 1024;
/// Most lines of rules, for the same reason.
pub const IGNORE_LINES_MAX: usize = 10_000;
/// Longest line in bytes: no sensible pattern is longer, and the time to read one grows with its square.
pub const LINE_BYTES_MAX: usize = 1024;
/// How much of a faulty line is shown.
const SHOWN_CHARS_MAX: usize = 100;

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

/// The rules of one folder.
#[derive(Clone)]
pub struct Rules {
    matcher: Gitignore,
    /// The lines that the matcher was made from, as they stand in the file.
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    number: Option<u32>,
    pattern: Box<str>,
}

/// The rule because of which a path is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// Line in the file, from 1; `None` for a built-in rule.
    pub line: Option<u32>,
    pub pattern: String,
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

impl Rules {
    /// Reads the file's bytes. What can't be read as a rule is left out and reported, line by line.
    pub fn parse(text: &[u8]) -> (Rules, Vec<RuleError>) {
        if text.is_empty() {
            return (Rules::default(), Vec::new());
        }
        let mut collector = Collector::new();
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

    /// The rule that ignores `path`, if one does: a rule for itself or for a directory above it.
    pub fn is_ignored(&self, path: &RelPath, is_dir: bool) -> Option<Hit> {
        let bytes = path.as_bytes();
        let above = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &bytes[..at]);
        // From the top, as git does: nothing below an ignored directory can be taken back.
        for directory in above {
            if let Some(hit) = self.hit(directory, true) {
                return Some(hit);
            }
        }
        self.hit(bytes, is_dir)
    }

    /// As [`Rules::is_ignored`] for a walk that has already asked about the directories above.
    pub fn is_ignored_itself(&self, path: &RelPath, is_dir: bool) -> Option<Hit> {
        self.hit(path.as_bytes(), is_dir)
    }

    fn hit(&self, path: &[u8], is_dir: bool) -> Option<Hit> {
        if path == IGNORE_FILE.as_bytes() {
            return None;
        }
        let Match::Ignore(glob) = self.matcher.matched(native(path), is_dir) else { return None };
        let at: Option<usize> = glob.from().and_then(|from| from.to_str()).and_then(|from| from.parse().ok());
        let line = at.and_then(|at| self.lines.get(at));
        let pattern = line.map_or(glob.original(), |l| &l.pattern).to_owned();
        Some(Hit { line: line.and_then(|l| l.number), pattern })
    }
}

/// The built-in rules alone.
impl Default for Rules {
    fn default() -> Self {
        static BUILT: LazyLock<Rules> = LazyLock::new(|| Collector::new().finish().0);
        BUILT.clone()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lines).finish()
    }
}

/// Gathers lines into a matcher, and the errors of those that are none.
struct Collector {
    builder: GitignoreBuilder,
    lines: Vec<Line>,
    errors: Vec<RuleError>,
}

impl Collector {
    fn new() -> Self {
        let mut new = Self { builder: GitignoreBuilder::new(""), lines: Vec::new(), errors: Vec::new() };
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

    fn finish(mut self) -> (Rules, Vec<RuleError>) {
        match self.builder.build() {
            Ok(matcher) => (Rules { matcher, lines: self.lines }, self.errors),
            Err(error) => {
                // All lines are sound one by one, so together they are too large; the built-in ones never are.
                self.refuse(1, b"", format!("the rules are not used: {error}"));
                let Collector { builder, lines, .. } = Collector::new();
                (Rules { matcher: builder.build().unwrap_or_else(|_| Gitignore::empty()), lines }, self.errors)
            }
        }
    }
}

/// Braces escaped, so that they stand for themselves as they do for git; inside `[...]` they do already.
fn with_literal_braces(pattern: &str) -> Cow<'_, str> {
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
fn native(path: &[u8]) -> Cow<'_, Path> {
    use std::os::unix::ffi::OsStrExt;
    Cow::Borrowed(Path::new(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(not(unix))]
fn native(path: &[u8]) -> Cow<'_, Path> {
    Cow::Owned(PathBuf::from(String::from_utf8_lossy(path).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::parse(bytes).unwrap()
    }

    fn rules(text: &str) -> Rules {
        let (rules, errors) = Rules::parse(text.as_bytes());
        assert_eq!(errors, []);
        rules
    }

    fn line(rules: &Rules, path_text: &str, is_dir: bool) -> Option<Option<u32>> {
        rules.is_ignored(&path(path_text.as_bytes()), is_dir).map(|hit| hit.line)
    }

    #[test]
    fn operating_system_litter_is_ignored_without_a_file_of_rules() {
        let rules = Rules::default();
        for (name, is_dir) in [
            (".DS_Store", false),
            ("a/b/._photo.jpg", false),
            ("Thumbs.db", false),
            ("$RECYCLE.BIN", true),
            ("System Volume Information/x", false),
            (".Trash-1000/files/a", false),
            (".nfs000000001", false),
            ("d/.notes.txt.swp", false),
            ("~$letter.docx", false),
            (".~lock.table.ods#", false),
        ] {
            assert_eq!(line(&rules, name, is_dir), Some(None), "{name}");
        }
        for name in ["a", ".bashrc", ".directory", "x~", "lock.swp", ".p2pignore", "a.~lock"] {
            assert_eq!(line(&rules, name, false), None, "{name}");
        }
    }

    #[test]
    fn a_built_in_rule_can_be_taken_back() {
        assert_eq!(line(&rules("!Thumbs.db"), "a/Thumbs.db", false), None);
    }

    #[test]
    fn rules_mean_what_they_mean_to_git() {
        let rules =
            rules("# comment\n*.o\n!keep.o\n/top\nbuild/\ndoc/**/draft\n\\#odd\n\n/a/*\n!/a/b\ntrail   \nwin\r\n");
        for (name, is_dir, expect) in [
            ("x/y.o", false, Some(2)),
            ("x/keep.o", false, None),
            ("top", false, Some(4)),
            ("x/top", false, None),
            ("x/build", true, Some(5)),
            ("x/build", false, None),
            ("x/build/keep.o", false, Some(5)),
            ("doc/a/b/draft", false, Some(6)),
            ("doc/draft", false, Some(6)),
            ("#odd", false, Some(7)),
            ("a/c", false, Some(9)),
            ("a/b", true, None),
            ("a/b/c", false, None),
            ("trail", false, Some(11)),
            ("win", false, Some(12)),
            ("# comment", false, None),
        ] {
            assert_eq!(line(&rules, name, is_dir), expect.map(Some), "{name}");
        }
    }

    #[test]
    fn a_hit_names_the_line_as_it_was_written() {
        let hit = rules("a\n*.{x}  \n").is_ignored(&path(b"d/f.{x}"), false);
        assert_eq!(hit, Some(Hit { line: Some(2), pattern: "*.{x}".to_owned() }));
    }

    #[test]
    fn braces_stand_for_themselves_as_they_do_for_git() {
        for (pattern, name, is_match) in [
            ("{9D8}", "{9D8}", true),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            ("\\{a\\}", "{a}", true),
            ("[{x]", "{", true),
            ("[{x]", "\\", false),
            ("[]{]a", "{a", true),
            ("[!{]a", "{a", false),
            ("[{a", "[{a", true),
            ("a}", "a}", true),
        ] {
            assert_eq!(line(&rules(pattern), name, false).is_some(), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn names_that_are_not_utf8_are_matched_by_their_bytes() {
        let rules = rules("*.tmp\n/bad?\n");
        assert!(rules.is_ignored(&path(b"d\xff/\xfe.tmp"), false).is_some());
        assert!(rules.is_ignored(&path(b"\xff.txt"), false).is_none());
    }

    #[test]
    fn the_file_of_rules_cannot_ignore_itself() {
        let rules = rules("*");
        assert_eq!(line(&rules, ".p2pignore", false), None);
        assert_eq!(line(&rules, "sub/.p2pignore", false), Some(Some(1)));
    }

    #[test]
    fn faulty_lines_are_reported_and_the_others_used() {
        let (rules, errors) = Rules::parse(b"\xef\xbb\xbf*.a\n[z-a]\n\xff\xfe\n*.b\nx\\\n");
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!(errors[0].text, "[z-a]");
        assert_eq!((line(&rules, "x.a", false), line(&rules, "x.b", false)), (Some(Some(1)), Some(Some(4))));
    }

    #[test]
    fn a_file_beyond_the_bounds_is_used_up_to_them() {
        let many: String = (0..IGNORE_LINES_MAX + 5).map(|n| format!("f{n}\n")).collect();
        let (rules, errors) = Rules::parse(many.as_bytes());
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].line, 10_001);
        assert!(line(&rules, "f9999", false).is_some() && line(&rules, "f10000", false).is_none());

        let long = format!("first\n{}\nlast\n", format!("#{}\n", "x".repeat(998)).repeat(1100));
        let (rules, errors) = Rules::parse(long.as_bytes());
        assert_eq!(errors.len(), 1);
        assert!(line(&rules, "first", false).is_some() && line(&rules, "last", false).is_none());

        let (_, errors) = Rules::parse("x".repeat(LINE_BYTES_MAX + 1).as_bytes());
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].text.len(), SHOWN_CHARS_MAX);
    }

    #[test]
    fn a_faulty_line_is_quoted_without_its_control_characters() {
        let (_, errors) = Rules::parse(b"[z-\x1b]");
        assert_eq!(errors.len(), 1);
        assert!(!errors[0].to_string().contains('\x1b') && errors[0].why.contains(r"\u{1b}"), "{}", errors[0]);
    }

    #[test]
    fn hostile_rules_neither_crash_nor_take_long() {
        for pattern in ["[", "{", "*", "?", "**/", "a/**/", "[!", "[a-z]*", "\\", "("] {
            let line = pattern.repeat(LINE_BYTES_MAX / pattern.len());
            let (rules, _) = Rules::parse(format!("{line}\n").repeat(50).as_bytes());
            rules.is_ignored(&path("a/[{(".repeat(100).trim_end_matches('/').as_bytes()), false);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_rules_or_errors_but_never_a_panic(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"[]{}!#/*?\\\n -a,"[..])], 0..80),
            name in "[a-c*\\[{/]{1,8}",
        ) {
            let (rules, errors) = Rules::parse(&text);
            prop_assert!(errors.len() <= text.len() + 1);
            if let Ok(path) = RelPath::parse(name.as_bytes()) {
                rules.is_ignored(&path, false);
            }
        }

        #[test]
        fn all_below_an_ignored_directory_is_ignored(text in "([!/]?[a-c*]{1,3}/?\n){0,5}", name in "[a-c]{1,2}(/[a-c]{1,2}){1,3}") {
            let (rules, path) = (rules(&text), path(name.as_bytes()));
            if let Some(hit) = path.parent().and_then(|parent| rules.is_ignored(&parent, true)) {
                prop_assert_eq!(rules.is_ignored(&path, false), Some(hit));
            } else {
                prop_assert_eq!(rules.is_ignored(&path, false), rules.is_ignored_itself(&path, false));
            }
        }
    }
}
