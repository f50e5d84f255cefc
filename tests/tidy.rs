//! The house rules that a program can check: layers, purity, sizes, and what may not lie around in the sources.
//!
//! Every rule has a test that shows it can fail. When a rule stands in the way of clearer code, change it here in the
//! same commit and say why.

use std::fs;
use std::path::Path;

/// Top-level modules and what each may import of the others. `main.rs` only starts `cli`.
const LAYERS: [(&str, &[&str]); 13] = [
    // For tests of the tests: nothing in a program that is installed.
    ("sabotage", &["sabotage"]),
    ("failpoint", &["failpoint"]),
    ("core", &["core", "sabotage"]),
    ("config", &["core", "config", "home", "failpoint"]),
    ("home", &["core", "home", "failpoint"]),
    ("index", &["core", "index", "sabotage", "failpoint"]),
    ("fs", &["core", "fs", "sabotage", "failpoint"]),
    ("net", &["core", "net", "failpoint"]),
    ("sync", &["core", "index", "sync", "sabotage"]),
    ("api", &["core", "config", "home", "api"]),
    // The engine answers what the api asks, through the api's own trait.
    ("engine", &["core", "config", "home", "index", "fs", "net", "sync", "api", "engine", "sabotage", "failpoint"]),
    ("cli", &["core", "config", "home", "index", "fs", "net", "sync", "api", "engine", "cli"]),
    ("main", &["config", "home", "cli"]),
];
/// Layers that get time, randomness and everything from outside as arguments.
const PURE: [&str; 2] = ["core", "sync"];
/// Paths that a pure layer may not name, from their first segment or as their last two.
const IMPURE: [&[&str]; 10] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["tokio"],
    &["rand"],
    &["rustix"],
    &["Instant", "now"],
    &["SystemTime", "now"],
];
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const FORBIDDEN_MACROS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

#[test]
fn sources_keep_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for directory in ["src", "tests", "benches", "fuzz"] {
        for (name, text) in sources(&root.join(directory), directory) {
            faults.extend(check(&name, &text).into_iter().map(|fault| format!("{name}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// All faults of one file, given by its path from the repository's root.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push("does not start with //!".to_owned());
    }
    let code = without_comments_and_strings(text);
    for (number, line) in (1..).zip(code.lines()) {
        let forbidden = FORBIDDEN_MACROS.iter().find(|m| holds_word(line, m));
        faults.extend(forbidden.map(|m| format!("line {number}: {m}")));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if is_commented_out_code(line) {
            faults.push(format!("line {number}: commented-out code"));
        }
    }
    for (number, lines) in functions(&code) {
        if lines > FUNCTION_LINES_MAX {
            faults.push(format!("line {number}: function of {lines} lines, more than {FUNCTION_LINES_MAX}"));
        }
    }
    let is_test_file = !name.starts_with("src/") || name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
    if !is_test_file {
        let production = before_tests(&code);
        let lines = production.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{lines} lines before its tests, more than {FILE_LINES_MAX}"));
        }
        faults.extend(check_paths(name, production));
    }
    faults
}

/// Imports against the table, and what a pure layer may not name.
fn check_paths(name: &str, production: &str) -> Vec<String> {
    let modules: Vec<&str> = name.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let layer = modules[0];
    let depth = modules.iter().filter(|m| **m != "mod").count();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        let is_known = layer == "lib";
        return if is_known { Vec::new() } else { vec![format!("module {layer} is in no layer")] };
    };
    let mut faults = Vec::new();
    for path in paths(production) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let shown = path.join("::");
        if let Some(target) = top_level_target(&path, depth) {
            if target == "*" {
                faults.push(format!("imports {shown}: name what is meant"));
            } else if LAYERS.iter().any(|(name, _)| *name == target) && !allowed.contains(&target) {
                faults.push(format!("imports {shown}, which {layer} may not"));
            }
        }
        let is_impure = |impure: &&[&str]| path.starts_with(impure) || path.ends_with(impure);
        if PURE.contains(&layer) && IMPURE.iter().any(is_impure) {
            faults.push(format!("names {shown}, which {layer} may not"));
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

/// The module directly below the crate's root that a path leads to, seen from a module at that depth.
fn top_level_target<'a>(path: &[&'a str], depth: usize) -> Option<&'a str> {
    match path {
        ["crate" | "p2psync", target, ..] => Some(target),
        _ => {
            let ups = path.iter().take_while(|segment| **segment == "super").count();
            (ups > 0 && ups >= depth).then(|| path.get(ups).copied()).flatten()
        }
    }
}

/// Every `a::b::c` in the code, with the trees of `use` written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at;
        tree(&tokens, &mut at, &[], &mut found);
        at = at.max(before + 1);
    }
    found
}

/// Reads one path, with the tree in braces that may end it.
fn tree(tokens: &[String], at: &mut usize, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(*at) {
        let is_name = token.chars().all(|c| c.is_alphanumeric() || c == '_') || (token == "*" && !path.is_empty());
        if !is_name {
            break;
        }
        path.push(token.clone());
        *at += 1;
        if tokens.get(*at).map(String::as_str) != Some("::") {
            break;
        }
        *at += 1;
        if tokens.get(*at).map(String::as_str) == Some("{") {
            *at += 1;
            while tokens.get(*at).is_some_and(|t| t != "}") {
                let before = *at;
                tree(tokens, at, &path, found);
                *at = (*at).max(before + 1);
            }
            *at += 1;
            return;
        }
    }
    // A single name is only a path inside a tree, or as what an outside crate is called by.
    if path.len() > 1 {
        found.push(path);
    }
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let length = match c {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            _ => c.len_utf8(),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// First line and length in lines of every function with a body.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let Some(body) = code[at..].find(['{', ';']).map(|n| at + n) else { continue };
        if !is_word || code[body..].starts_with(';') {
            continue;
        }
        let mut open = 0usize;
        let end = code[body..].char_indices().find(|(_, c)| {
            match c {
                '{' => open += 1,
                '}' => open = open.saturating_sub(1),
                _ => {}
            }
            open == 0
        });
        if let Some((length, _)) = end {
            found.push((line_of(at), line_of(body + length) - line_of(at) + 1));
        }
    }
    found
}

/// The code up to its module of tests.
fn before_tests(code: &str) -> &str {
    let is_tests = |at: &usize| {
        let item = code[at + "#[cfg(test)]".len()..].trim_start();
        item.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ").starts_with("mod ")
    };
    let tests = code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(is_tests);
    &code[..tests.unwrap_or(code.len())]
}

/// True for a plain comment that reads like a statement. Doc comments may hold examples.
fn is_commented_out_code(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//").filter(|c| !c.starts_with(['/', '!'])) else {
        return false;
    };
    let comment = comment.trim();
    let starts = ["let ", "use ", "pub ", "fn ", "return ", "match ", "for ", "if ", "} else", "#["];
    let begins = starts.iter().any(|s| comment.starts_with(s));
    let ends = comment.ends_with([';', '{', '}', ']']);
    let is_call = comment.ends_with(");") || comment.ends_with(")?;");
    let is_closing = !comment.is_empty() && comment.chars().all(|c| matches!(c, '}' | ')' | ';' | ','));
    (begins && ends) || is_call || is_closing
}

fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

/// The text with comments and the insides of literals blanked out, line by line as long as before.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let blank = literal_bytes(rest);
        let step = if blank > 0 { blank } else { plain_bytes(rest) };
        if blank > 0 {
            out.extend(rest[..step].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(&rest[..step]);
        }
        rest = &rest[step..];
    }
    out
}

/// Length of the word or character that `rest` begins with.
fn plain_bytes(rest: &str) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()).max(first)
}

/// Length of the comment, string or character that `rest` begins with; 0 where it is something else.
fn literal_bytes(rest: &str) -> usize {
    let line = rest.find('\n').unwrap_or(rest.len());
    if rest.starts_with("//") {
        return line;
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |at| at + 2);
    }
    let body = rest.strip_prefix('b').or(rest.strip_prefix('c')).unwrap_or(rest);
    let prefix = rest.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = &raw[hashes + 1..];
            return prefix + 1 + hashes + 1 + inside.find(&end).map_or(inside.len(), |at| at + end.len());
        }
    }
    if body.starts_with('"') {
        return prefix + quoted_bytes(body, '"');
    }
    // A quote begins a character only where another closes it; otherwise it begins a lifetime.
    let is_character =
        body.strip_prefix('\'').is_some_and(|inside| inside.starts_with('\\') || inside.chars().nth(1) == Some('\''));
    if is_character { prefix + quoted_bytes(body, '\'') } else { 0 }
}

/// Length up to the closing quote, escapes skipped.
fn quoted_bytes(body: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    body.len()
}

/// The Rust files below a directory, by their path from the root, in order.
fn sources(directory: &Path, shown: &str) -> Vec<(String, String)> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let (path, shown) = (directory.join(&name), format!("{shown}/{name}"));
        if path.is_dir() && name != "target" {
            found.extend(sources(&path, &shown));
        } else if name.ends_with(".rs") {
            found.push((shown, fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// True where the rule whose message holds `expect` fails for the file; with "" where no rule does.
fn fails(name: &str, code: &str, expect: &str) -> bool {
    let faults = check(name, &format!("//! A file.\n{code}\n"));
    if expect.is_empty() { faults.is_empty() } else { faults.iter().any(|fault| fault.contains(expect)) }
}

#[test]
fn imports_against_the_table_are_found_however_they_are_written() {
    for (name, code) in [
        ("src/core/path.rs", "use crate::index::Index;"),
        ("src/core/path.rs", "use crate::{\n    core::id,\n    fs::walk,\n};"),
        ("src/fs/walk.rs", "fn f() { crate::net::codec::decode() }"),
        ("src/net/mod.rs", "use super::index::Index;"),
        ("src/net/codec.rs", "use super::super::fs;"),
        ("src/net/codec.rs", "use p2psync::fs::walk;"),
        ("src/index/mod.rs", "use crate::sync::Folder;"),
        ("src/sync/mod.rs", "use crate::net;"),
        ("src/api/mod.rs", "use crate::engine::Engine;"),
        ("src/engine/mod.rs", "use crate::cli::output;"),
        ("src/config.rs", "use crate::engine;"),
    ] {
        assert!(fails(name, code, "may not"), "{name}: {code}");
    }
    assert!(fails("src/extra/mod.rs", "", "is in no layer"));
}

#[test]
fn imports_that_the_table_allows_pass() {
    for (name, code) in [
        ("src/sync/mod.rs", "use crate::{core::id::EpochId, index::Index};\nuse super::core::path;"),
        ("src/net/codec.rs", "use super::identity;\nuse std::net::TcpStream;\nuse tokio::net;"),
        ("src/engine/run.rs", "use crate::api::Handler;\nuse crate::sync::{Input, Output};"),
        ("src/cli/status.rs", "use crate::index::Index;"),
        ("src/core/path.rs", "//! See [`crate::fs`].\nconst S: &str = \"crate::net::x\";"),
        ("src/core/path.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::index::Index;\n}"),
        ("src/core/path.rs", "fn is_rand(operand: u8, fs: u8) -> u8 { operand + fs }"),
    ] {
        assert_eq!(check(name, &format!("//! A file.\n{code}\n")), Vec::<String>::new(), "{name}: {code}");
    }
}

#[test]
fn glob_imports_of_the_crate_are_found() {
    assert!(fails("src/net/codec.rs", "use crate::*;", "name what is meant"));
    assert!(fails("src/net/mod.rs", "use super::*;", "name what is meant"));
    assert!(fails("src/net/codec.rs", "use super::*;", ""));
}

#[test]
fn clocks_disks_sockets_and_chance_are_found_in_pure_layers_only() {
    for code in [
        "fn f() { std::time::Instant::now(); }",
        "fn f() { SystemTime::now(); }",
        "use tokio::sync::mpsc;",
        "use std::{fmt, fs};",
        "fn f() { std::net::TcpStream::connect(a) }",
        "fn f() { rand::random() }",
    ] {
        assert!(fails("src/core/x.rs", code, "may not"), "{code}");
        assert!(fails("src/sync/x.rs", code, "may not"), "{code}");
        assert!(fails("src/engine/x.rs", code, ""), "{code}");
    }
}

#[test]
fn long_files_and_long_functions_are_found() {
    let lines = |count: usize| "const X: u8 = 0;\n".repeat(count);
    assert!(fails("src/core/x.rs", &lines(398), ""));
    assert!(fails("src/core/x.rs", &lines(400), "lines before its tests"));
    assert!(fails("src/core/x.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{}}}", lines(399), lines(400)), ""));
    let function =
        |count: usize| format!("impl X {{\n    fn f() {{\n{}    }}\n}}", "        g(\"}\");\n".repeat(count));
    assert!(fails("src/core/x.rs", &function(68), ""));
    assert!(fails("src/core/x.rs", &function(69), "function of 71 lines"));
}

#[test]
fn a_file_without_a_first_word_about_itself_is_found() {
    assert_eq!(check("src/core/x.rs", "use std::fmt;\n"), ["does not start with //!"]);
}

#[test]
fn unfinished_and_forgotten_things_are_found() {
    for code in ["fn f() { todo!() }", "fn f() { dbg!(1); }", "fn f() { unimplemented!() }"] {
        assert!(fails("src/core/x.rs", code, "line 2: "), "{code}");
        assert!(fails("tests/x.rs", code, "line 2: "), "{code}");
    }
    for code in ["// let x = 1;", "    // call(x)?;", "// if a == b {", "// }", "// #[derive(Debug)]", "// });"] {
        assert!(fails("src/core/x.rs", code, "commented-out"), "{code}");
    }
    for code in ["// If it is so, let it be; we go on.", "/// let x = 1;", "// for the user:", "// see f(x)"] {
        assert!(fails("src/core/x.rs", &format!("{code}\nconst X: u8 = 0;"), ""), "{code}");
    }
}
