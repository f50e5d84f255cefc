//! Ignore rules: `.p2pignore` in gitignore syntax, behind built-in rules for the litter of operating systems.
//!
//! Who has the last word, as with git: a file nearer to the path, and in a file the later line. Before all of them goes
//! `.p2pignore.local`, which is of this device alone, and last of all the selection.

mod lines;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use super::path::RelPath;
use super::selection::Selection;
use lines::{Collector, Line, Lines};

pub use lines::{IGNORE_BYTES_MAX, IGNORE_LINES_MAX, LINE_BYTES_MAX, RuleError};
pub(in crate::core) use lines::{native, with_literal_braces};

/// The file in a folder's root that holds its rules. It is itself synced, so it is never ignored.
pub const IGNORE_FILE: &str = ".p2pignore";
/// The file beside it with rules for this device alone; it never syncs.
pub const LOCAL_IGNORE_FILE: &str = ".p2pignore.local";
/// Most directories below the root whose own rules are minded.
pub const NESTED_MAX: usize = 1000;
/// The rules of one folder.
#[derive(Clone)]
pub struct Rules {
    /// The built-in rules and those of the root's file.
    main: Lines,
    local: Option<Lines>,
    /// Rules of directories below the root, by their path.
    nested: BTreeMap<Box<[u8]>, Lines>,
    selection: Option<Selection>,
}

/// Where a rule stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    BuiltIn,
    /// [`IGNORE_FILE`] in the root, or in a directory below it.
    File(RelPath),
    /// [`LOCAL_IGNORE_FILE`].
    Local,
    /// Not selected on this device.
    Selection,
}

/// The rule because of which a path is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    pub source: Source,
    /// Line in the file, from 1; `None` for a built-in rule and the selection.
    pub line: Option<u32>,
    pub pattern: String,
}

/// One line of the rules, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub source: Source,
    pub line: Option<u32>,
    pub pattern: String,
}

impl Rules {
    /// Reads the bytes of the root's file. What can't be read as a rule is left out and reported, line by line.
    pub fn parse(text: &[u8]) -> (Rules, Vec<RuleError>) {
        if text.is_empty() {
            return (Rules::default(), Vec::new());
        }
        let (main, errors) = Lines::parse(Collector::with_built_in(), text);
        (Rules { main, ..Rules::default() }, errors)
    }

    /// With the rules of [`LOCAL_IGNORE_FILE`].
    pub fn with_local(mut self, text: &[u8]) -> (Rules, Vec<RuleError>) {
        let (lines, errors) = Lines::parse(Collector::empty(), text);
        self.local = Some(lines);
        (self, errors)
    }

    /// With the rules of a directory below the root; beyond [`NESTED_MAX`] nothing is added.
    pub fn with_nested(mut self, directory: &RelPath, text: &[u8]) -> (Rules, Vec<RuleError>) {
        if self.nested.len() >= NESTED_MAX {
            return (self, Vec::new());
        }
        let (lines, errors) = Lines::parse(Collector::empty(), text);
        self.nested.insert(directory.as_bytes().into(), lines);
        (self, errors)
    }

    /// True where rules of this directory are among them.
    pub fn has_nested(&self, directory: &RelPath) -> bool {
        self.nested.contains_key(directory.as_bytes())
    }

    /// With only a part of the folder wanted here.
    pub fn with_selection(mut self, selection: Option<Selection>) -> Rules {
        self.selection = selection;
        self
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
        self.hit(bytes, is_dir).or_else(|| self.unselected(path, is_dir))
    }

    /// As [`Rules::is_ignored`] for a walk that has already asked about the directories above.
    pub fn is_ignored_itself(&self, path: &RelPath, is_dir: bool) -> Option<Hit> {
        self.hit(path.as_bytes(), is_dir).or_else(|| self.unselected(path, is_dir))
    }

    /// The rule that has the last word about a path and keeps it from being ignored, such as `!keep.o`.
    pub fn taken_back(&self, path: &RelPath, is_dir: bool) -> Option<Hit> {
        let (hit, is_ignored) = self.last_word(path.as_bytes(), is_dir)?;
        (!is_ignored).then_some(hit)
    }

    /// All rules, in the order in which they are read.
    pub fn list(&self) -> Vec<Listed> {
        let of = |lines: &Lines, source: &dyn Fn() -> Source| -> Vec<Listed> {
            let listed = |line: &Line| Listed {
                source: if line.number.is_some() { source() } else { Source::BuiltIn },
                line: line.number,
                pattern: line.pattern.to_string(),
            };
            lines.lines.iter().map(listed).collect()
        };
        let mut all = of(&self.main, &|| file_in(b""));
        self.nested.iter().for_each(|(dir, lines)| all.extend(of(lines, &|| file_in(dir))));
        all.extend(self.local.iter().flat_map(|lines| of(lines, &|| Source::Local)));
        let only = |pattern: &String| Listed { source: Source::Selection, line: None, pattern: pattern.clone() };
        all.extend(self.selection.iter().flat_map(|selection| selection.patterns().iter().map(only)));
        all
    }

    fn unselected(&self, path: &RelPath, is_dir: bool) -> Option<Hit> {
        let selection = self.selection.as_ref().filter(|selection| !selection.covers(path, is_dir))?;
        Some(Hit { source: Source::Selection, line: None, pattern: selection.patterns().join(", ") })
    }

    fn hit(&self, path: &[u8], is_dir: bool) -> Option<Hit> {
        self.last_word(path, is_dir).filter(|(_, is_ignored)| *is_ignored).map(|(hit, _)| hit)
    }

    /// The rule that decides about a path, and whether it ignores it.
    fn last_word(&self, path: &[u8], is_dir: bool) -> Option<(Hit, bool)> {
        if path == IGNORE_FILE.as_bytes() {
            return None;
        }
        if path == LOCAL_IGNORE_FILE.as_bytes() {
            let pattern = LOCAL_IGNORE_FILE.to_owned();
            return Some((Hit { source: Source::BuiltIn, line: None, pattern }, true));
        }
        if let Some(found) = self.local.as_ref().and_then(|lines| lines.decide(path, is_dir, || Source::Local)) {
            return Some(found);
        }
        if !self.nested.is_empty() {
            // The nearest file has the last word.
            for (at, _) in path.iter().enumerate().rev().filter(|(_, b)| **b == b'/') {
                let (directory, rest) = (&path[..at], &path[at + 1..]);
                if let Some(lines) = self.nested.get(directory)
                    && let Some(found) = lines.decide(rest, is_dir, || file_in(directory))
                {
                    return Some(found);
                }
            }
        }
        self.main.decide(path, is_dir, || file_in(b""))
    }
}

impl Source {
    /// The file that the rule stands in, relative to the folder.
    pub fn file(&self) -> Option<String> {
        match self {
            Source::File(path) => Some(path.to_string()),
            Source::Local => Some(LOCAL_IGNORE_FILE.to_owned()),
            Source::BuiltIn | Source::Selection => None,
        }
    }

    /// One stable word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Source::BuiltIn => "built_in",
            Source::File(_) => "file",
            Source::Local => "local",
            Source::Selection => "selection",
        }
    }
}

/// The file of rules in a directory of the folder.
fn file_in(directory: &[u8]) -> Source {
    let name = IGNORE_FILE.as_bytes();
    let bytes = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
    // A directory's path with a short name after it, in a folder whose deepest path may be one longer.
    RelPath::parse(&bytes).map_or(Source::BuiltIn, Source::File)
}

/// The built-in rules alone.
impl Default for Rules {
    fn default() -> Self {
        static BUILT: LazyLock<Lines> = LazyLock::new(|| Collector::with_built_in().finish().0);
        Self { main: BUILT.clone(), local: None, nested: BTreeMap::new(), selection: None }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
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
        assert_eq!(hit, Some(Hit { source: file_in(b""), line: Some(2), pattern: "*.{x}".to_owned() }));
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
    fn a_file_nearer_to_the_path_has_the_last_word_and_the_devices_own_before_all() {
        let (rules, errors) = rules("*.log\nbuild/\n").with_nested(&path(b"sub"), b"!keep.log\n/only\n*.tmp\n");
        assert_eq!(errors, []);
        let (rules, _) = rules.with_nested(&path(b"sub/deep"), b"keep.log\n");
        let (rules, _) = rules.with_local(b"*.iso\n!x.tmp\n!.DS_Store\n");
        let source = |name: &str| rules.is_ignored(&path(name.as_bytes()), false).map(|h| (h.source.file(), h.line));
        let file = |name: &str, line| Some((Some(name.to_owned()), Some(line)));
        for (name, expect) in [
            ("a.log", file(".p2pignore", 1)),
            ("sub/a.log", file(".p2pignore", 1)),
            ("sub/keep.log", None),
            ("sub/other/keep.log", None),
            ("sub/deep/keep.log", file("sub/deep/.p2pignore", 1)),
            ("sub/only", file("sub/.p2pignore", 2)),
            ("sub/x/only", None),
            ("only", None),
            ("sub/a.tmp", file("sub/.p2pignore", 3)),
            ("sub/x.tmp", None),
            ("subway/a.tmp", None),
            ("a/b.iso", file(".p2pignore.local", 1)),
            ("sub/.DS_Store", None),
            ("build/x", file(".p2pignore", 2)),
            (".p2pignore.local", Some((None, None))),
        ] {
            assert_eq!(source(name), expect, "{name}");
        }
        let back = rules.taken_back(&path(b"sub/keep.log"), false).map(|hit| (hit.source.file(), hit.line));
        assert_eq!(back, file("sub/.p2pignore", 1));
        assert_eq!(rules.list().iter().filter(|l| l.source != Source::BuiltIn).count(), 9);
    }

    #[test]
    fn what_is_not_selected_is_told_apart_from_what_is_ignored() {
        let selection = Selection::parse(&["Photos"]).unwrap();
        let rules = rules("*.log\n").with_selection(Some(selection));
        let source = |name: &str| rules.is_ignored(&path(name.as_bytes()), false).map(|hit| hit.source.name());
        assert_eq!([source("Photos/a"), source("Photos/a.log"), source("b")], [None, Some("file"), Some("selection")]);
        assert_eq!(source(".p2pignore"), None);
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
        assert_eq!(errors[0].text.len(), lines::SHOWN_CHARS_MAX);
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
