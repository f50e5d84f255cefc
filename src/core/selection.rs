//! Selective sync: the part of a folder that this device wants to hold. What is outside of it is known and passed on,
//! as what an ignore rule covers is, but not fetched, and never deleted elsewhere.

use std::fmt;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::ignore::{IGNORE_FILE, LINE_BYTES_MAX, native, with_literal_braces};
use super::path::RelPath;

/// Most patterns of one selection: each is tried on each path.
pub const PATTERNS_MAX: usize = 1000;

/// Patterns such as `Photos/2026/**`, read from the folder's root; whoever matches one, or lies below what does, is
/// selected.
#[derive(Clone)]
pub struct Selection {
    patterns: Vec<String>,
    /// What is selected itself.
    chosen: Gitignore,
    /// Directories that something selected may lie in.
    on_the_way: Gitignore,
}

/// A pattern that selects nothing that could be said.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}: '{pattern}'")]
pub struct SelectionError {
    pub pattern: String,
    pub why: String,
}

impl Selection {
    /// Reads the patterns; the first that is none is the error.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, SelectionError> {
        let fail = |pattern: &str, why: String| SelectionError { pattern: pattern.escape_debug().to_string(), why };
        if patterns.len() > PATTERNS_MAX {
            return Err(fail("", format!("there are more than {PATTERNS_MAX} patterns")));
        }
        let (mut chosen, mut on_the_way) = (GitignoreBuilder::new(""), GitignoreBuilder::new(""));
        let mut kept = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let bare = pattern.trim_matches('/');
            if bare.is_empty() || bare.len() > LINE_BYTES_MAX || bare.chars().any(char::is_control) {
                return Err(fail(
                    pattern,
                    format!("is empty, longer than {LINE_BYTES_MAX} bytes or has odd characters"),
                ));
            }
            if bare.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(fail(pattern, "has an empty part, '.' or '..'".to_owned()));
            }
            let add = |builder: &mut GitignoreBuilder, line: &str| {
                let escaped = with_trailing_space(&with_literal_braces(line));
                builder.add_line(None, &escaped).map(drop).map_err(|e| fail(pattern, reason(e)))
            };
            add(&mut chosen, &format!("/{bare}"))?;
            for way in ways(bare) {
                add(&mut on_the_way, &way)?;
            }
            kept.push(bare.to_owned());
        }
        let build = |builder: GitignoreBuilder| builder.build().map_err(|e| fail("", reason(e)));
        Ok(Self { patterns: kept, chosen: build(chosen)?, on_the_way: build(on_the_way)? })
    }

    /// The patterns, without slashes at their ends.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// True where the path is wanted here, or is a directory in which something wanted may lie.
    pub fn covers(&self, path: &RelPath, is_dir: bool) -> bool {
        // The rules hold for all of the folder.
        if path.as_bytes() == IGNORE_FILE.as_bytes() {
            return true;
        }
        self.is_chosen(path, is_dir)
            || path.ancestors().any(|above| self.is_chosen(&above, true))
            || (is_dir && self.on_the_way.matched(native(path.as_bytes()), true).is_ignore())
    }

    fn is_chosen(&self, path: &RelPath, is_dir: bool) -> bool {
        self.chosen.matched(native(path.as_bytes()), is_dir).is_ignore()
    }
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Selection {}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.patterns.fmt(f)
    }
}

/// Patterns for the directories above what a pattern matches. From a `**` on that may be any.
fn ways(pattern: &str) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let mut ways = Vec::new();
    let mut prefix = String::new();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        prefix.push('/');
        prefix.push_str(part);
        ways.push(format!("{prefix}/"));
        if *part == "**" {
            break;
        }
    }
    ways
}

/// Blanks at a line's end mean nothing to a matcher of lines; in a selection they belong to the name.
fn with_trailing_space(line: &str) -> String {
    let bare = line.trim_end_matches(' ');
    format!("{bare}{}", "\\ ".repeat(line.len() - bare.len()))
}

fn reason(error: ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_selection_covers_what_matches_what_is_below_it_and_the_way_there() {
        let cases: &[(&[&str], &str, bool, bool)] = &[
            (&["Photos/2026/**"], "Photos", true, true),
            (&["Photos/2026/**"], "Photos", false, false),
            (&["Photos/2026/**"], "Photos/2026", true, true),
            (&["Photos/2026/**"], "Photos/2026/a/b.jpg", false, true),
            (&["Photos/2026/**"], "Photos/2025", true, false),
            (&["Photos/2026/**"], "Photos/2025/x", false, false),
            (&["Photos/2026/**"], "x/Photos/2026/a", false, false),
            (&["/Photos/2026/"], "Photos/2026/a/b.jpg", false, true),
            (&["Photos"], "Photos", true, true),
            (&["Photos"], "sub/Photos", true, false),
            (&["**/*.jpg"], "any/where", true, true),
            (&["**/*.jpg"], "any/where/x.jpg", false, true),
            (&["**/*.jpg"], "any/where/x.png", false, false),
            (&["a/*/c"], "a/b", true, true),
            (&["a/*/c"], "a/b/c/d", false, true),
            (&["a/*/c"], "a/b/d", false, false),
            (&["a/**/c"], "a/b", true, true),
            (&["a/**/c"], "a/b/x/c", false, true),
            (&["a/**/c"], "b", true, false),
            (&["one", "two/x"], "two", true, true),
            (&["!odd", "#1", "{a}"], "!odd", false, true),
            (&["!odd", "#1", "{a}"], "#1/x", false, true),
            (&["!odd", "#1", "{a}"], "{a}", false, true),
            (&["Photos"], ".p2pignore", false, true),
            (&[], "a", true, false),
        ];
        for (patterns, at, is_dir, expect) in cases {
            let selection = Selection::parse(patterns).unwrap();
            assert_eq!(selection.covers(&path(at), *is_dir), *expect, "{patterns:?} {at}");
        }
    }

    #[test]
    fn what_selects_nothing_is_refused_with_its_reason() {
        for pattern in ["", "/", "a//b", "../x", "a/./b", "[z-a]", "a\nb"] {
            let error = Selection::parse(&[pattern]).unwrap_err();
            assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn whatever_lies_above_something_selected_is_entered(
            patterns in proptest::collection::vec("[a-c*]{1,2}(/([a-c*?]{1,2}|\\*\\*)){0,3}", 0..4),
            name in "[a-c]{1,2}(/[a-c]{1,2}){0,4}",
        ) {
            let selection = Selection::parse(&patterns).unwrap();
            let path = path(&name);
            if selection.covers(&path, false) {
                for above in path.ancestors() {
                    prop_assert!(selection.covers(&above, true), "{} of {}", above, path);
                }
            }
        }
    }
}
