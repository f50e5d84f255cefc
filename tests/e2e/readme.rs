//! README.md as a new user reads it: what its sessions type is typed on two devices, and what they show is what comes.
//!
//! `RENEW_DOCS=1 cargo test --test e2e readme::` writes what comes into README.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use crate::harness::{Agent, World, wait_connected, wait_until};
use crate::pairing::{finish, has_multicast, meeting_place};

/// The devices of the sessions, with what stands for their short ids.
const DEVICES: [(&str, &str); 2] = [("laptop", "LQ7ZK2M"), ("desktop", "D4XW6TA")];
/// What stands for a code in words, a code in letters, a link, a time, an id of a version.
const WORDS: &str = "apple-guitar-lemon-zebra";
const CODE: &str = "K7QF-29XM";
const LINK: &str = "p2psync://pair?code=...";
const TIME: &str = "2026-11-23 10:15:00";
const VERSION: &str = "9f2c41d07ae3";
/// Digits in the id of a version.
const VERSION_DIGITS: usize = 12;

fn readme() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// A line of README.md: typed on a device, or anything else.
enum Line {
    Typed(String, String),
    /// Part of what the line typed before shows.
    Shown(String),
    Other(String),
}

fn lines(text: &str) -> Vec<Line> {
    let mut is_session = false;
    let read = |line: &str| {
        match line {
            "```console" => is_session = true,
            "```" if is_session => is_session = false,
            line if is_session => {
                let typed = DEVICES.iter().find_map(|(name, _)| Some((name, line.strip_prefix(&format!("{name}$ "))?)));
                return match typed {
                    Some((name, command)) => Line::Typed((*name).to_owned(), command.to_owned()),
                    None => Line::Shown(line.to_owned()),
                };
            }
            _ => {}
        }
        Line::Other(line.to_owned())
    };
    text.lines().map(read).collect()
}

/// Two devices, and what is different in each run.
struct Desk {
    agents: BTreeMap<String, Agent>,
    /// What this run has, and what README.md has in its place.
    stands_for: Vec<(String, String)>,
    pairing: Option<(Child, BufReader<ChildStdout>)>,
}

impl Desk {
    /// Devices as a first start would make them, in a network of their own; `None` where there is no multicast.
    fn new(world: &World) -> Option<Self> {
        let place = meeting_place(world);
        if !has_multicast(place) {
            eprintln!("skipped: multicast does not work on this machine");
            return None;
        }
        let mut desk = Self { agents: BTreeMap::new(), stands_for: Vec::new(), pairing: None };
        for (name, short) in DEVICES {
            let mut agent = world.bare_agent(name);
            agent.listen = agent.listen.replace("127.0.0.1", "0.0.0.0");
            fs::create_dir(agent.base.join("P2PSync")).unwrap();
            agent.write_config(&format!(
                "name = \"{name}\"\n[network]\nmulticast_v4 = \"{}\"\ndiscovery_port = {}\n[[folder]]\nid = \"default\"\n\
                 label = \"P2PSync\"\npath = \"~/P2PSync\"\npeers = \"all\"\n",
                place.0, place.1
            ));
            let id = agent.id();
            desk.stands_for.push((id.split('-').next().unwrap().to_owned(), short.to_owned()));
            desk.stands_for.push((agent.base.to_string_lossy().into_owned(), "/home/me".to_owned()));
            let port = agent.listen.rsplit(':').next().unwrap().to_owned();
            desk.stands_for.push((format!(":{port}"), ":7724".to_owned()));
            desk.agents.insert(name.to_owned(), agent);
        }
        Some(desk)
    }

    /// What a line shows, as README.md would have it.
    fn typed(&mut self, device: &str, line: &str) -> String {
        if line == "p2psync run" {
            self.agents.get_mut(device).unwrap().start();
            return String::new();
        }
        if line == "p2psync pair" {
            return self.show_code(device);
        }
        let mut typed = line.to_owned();
        for (real, shown) in &self.stands_for {
            typed = typed.replace(shown.as_str(), real);
        }
        let mut command = self.agents[device].shell(&format!("{{ {typed}\n}} 2>&1"));
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{device}$ {typed}: {said}");
        if let Some((child, rest)) = self.pairing.take_if(|_| line.starts_with("p2psync pair ")) {
            let (is_paired, told) = finish("the other device", child, rest);
            assert!(is_paired && told.contains("Paired with"), "{told}");
            let agents: Vec<&Agent> = self.agents.values().collect();
            wait_connected(agents[0], agents[1]);
        }
        self.plain(&said)
    }

    /// Shows a code; the command goes on until the other device has typed it.
    fn show_code(&mut self, device: &str) -> String {
        let mut child =
            self.agents[device].command(&["pair"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("Waiting for it") {
            assert!(output.read_line(&mut said).unwrap() > 0, "no code was shown: {said}");
        }
        let after = |mark: &str, end: char| {
            let (_, rest) = said.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {said}"));
            rest.split(end).next().unwrap_or_default().to_owned()
        };
        // First of all, because other things are part of it.
        self.stands_for.insert(0, (after("p2psync pair '", '\''), LINK.to_owned()));
        self.stands_for.push((after("    p2psync pair ", '\n'), WORDS.to_owned()));
        self.stands_for.push((after("In short: ", '\n'), CODE.to_owned()));
        self.pairing = Some((child, output));
        self.plain(&said)
    }

    /// The text without what is different in each run.
    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (real, shown) in &self.stands_for {
            text = text.replace(real.as_str(), shown);
        }
        text = masked(&text, "####-##-## ##:##:##", TIME);
        text = masked(&text, "####-##-## ##:##", &TIME[..16]);
        text = masked(&text, "since ##:##:##", "since 10:15:00");
        for spoken in ["## seconds ago", "# seconds ago", "1 minute ago"] {
            text = masked(&text, spoken, "just now");
        }
        let is_version = |word: &str| word.len() == VERSION_DIGITS && word.bytes().all(|b| b.is_ascii_hexdigit());
        let versions: Vec<String> = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| is_version(word))
            .map(str::to_owned)
            .collect();
        versions.iter().fold(text, |text, version| text.replace(version.as_str(), VERSION))
    }
}

/// The text with something else wherever the pattern fits, in which `#` stands for a digit.
fn masked(text: &str, pattern: &str, with: &str) -> String {
    let fits = |at: &str| {
        at.len() >= pattern.len()
            && at.bytes().zip(pattern.bytes()).all(|(b, p)| if p == b'#' { b.is_ascii_digit() } else { b == p })
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        if fits(rest) {
            out.push_str(with);
            rest = &rest[pattern.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// True of what only tells how things are.
fn is_status(command: &str) -> bool {
    command == "p2psync" || command.starts_with("p2psync status")
}

/// Lines without the blanks that only make columns line up.
fn words_of(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_the_readme_shows_is_what_a_new_user_gets() {
    let world = World::new();
    let text = fs::read_to_string(readme()).unwrap();
    let Some(mut desk) = Desk::new(&world) else { return };
    let is_renewing = std::env::var_os("RENEW_DOCS").is_some();
    let (mut fresh, mut waiting) = (String::new(), None::<(String, String, String)>);
    let mut typed_lines = 0;
    for line in lines(&text).into_iter().chain([Line::Other(String::new())]) {
        if let Line::Shown(line) = line {
            let (.., shown) = waiting.as_mut().expect("a session begins with what is typed");
            *shown += &format!("{line}\n");
            continue;
        }
        // All that belongs to the line before has been read.
        if let Some((device, command, shown)) = waiting.take() {
            // What a status tells comes to be so a moment later.
            let is_as_shown = |said: &str| match is_renewing {
                true => !is_status(&command) || said.contains("in sync"),
                false => words_of(said) == words_of(&shown),
            };
            let mut said = desk.typed(&device, &command);
            if is_status(&command) {
                said = wait_until(&format!("{device}$ {command} shows\n{shown}"), || {
                    let said = desk.typed(&device, &command);
                    if is_as_shown(&said) { Ok(said) } else { Err(said) }
                });
            }
            typed_lines += 1;
            assert!(is_as_shown(&said), "{device}$ {command}\n{said}\nin place of\n{shown}");
            fresh.push_str(&said);
        }
        match line {
            Line::Typed(device, command) => {
                fresh.push_str(&format!("{device}$ {command}\n"));
                waiting = Some((device, command, String::new()));
            }
            Line::Other(line) | Line::Shown(line) => fresh.push_str(&format!("{line}\n")),
        }
    }
    assert!(typed_lines > 8, "the README has no session to type");
    if is_renewing {
        fs::write(readme(), format!("{}\n", fresh.trim_end())).unwrap();
    }
}

/// README.md and what users read in docs, by their names.
fn user_docs() -> BTreeMap<String, String> {
    let root = readme().parent().unwrap().to_owned();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = docs.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"));
    let paths = names.map(|name| format!("docs/{name}")).chain(["README.md".to_owned()]);
    paths.map(|path| (path.clone(), fs::read_to_string(root.join(&path)).unwrap())).collect()
}

/// The program's sources without comments and tests, strings over several lines in one, in small letters.
fn program(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&program(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") && path.file_name().unwrap() != "tests.rs" {
            let source = fs::read_to_string(&path).unwrap();
            let production = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code = production.lines().map(str::trim).filter(|line| !line.starts_with("//"));
            text.push_str(&code.collect::<Vec<_>>().join("\n").replace("\\\n", ""));
        }
    }
    text.to_lowercase()
}

#[test]
fn what_the_page_for_trouble_quotes_is_what_the_program_says() {
    let page = user_docs().remove("docs/troubleshooting.md").unwrap().replace('\n', " ");
    let program = program(&readme().parent().unwrap().join("src"));
    let quotes: Vec<&str> = page.split('"').skip(1).step_by(2).collect();
    assert!(quotes.len() > 10, "{quotes:?}");
    let parts = quotes.iter().flat_map(|quote| quote.split("...")).map(|part| part.trim_matches([' ', ',']));
    let unknown: Vec<&str> = parts.filter(|part| !program.contains(&part.to_lowercase())).collect();
    assert!(unknown.is_empty(), "the program does not say {unknown:?}");
}

#[test]
fn every_command_that_the_docs_name_exists() {
    let world = World::new();
    let agent = world.bare_agent("a");
    let mut named = BTreeSet::new();
    for (path, text) in
        user_docs().iter().filter(|(path, _)| !matches!(path.as_str(), "docs/commands.md" | "docs/protocol.md"))
    {
        // What sessions type is typed by the other test.
        let prose =
            lines(text).into_iter().filter_map(|line| if let Line::Other(line) = line { Some(line) } else { None });
        let text = prose.collect::<Vec<_>>().join("\n");
        for (at, _) in text.match_indices("p2psync ").filter(|(at, _)| *at > 0) {
            // Only where a command begins: in a block of a shell or between back quotes.
            if matches!(text.as_bytes()[at - 1], b'`' | b'\n') {
                let command = text[at..].split(['`', '#', '\n']).next().unwrap_or_default();
                let words: Vec<&str> = command.split_whitespace().skip(1).take_while(|word| is_plain(word)).collect();
                let options = command.split_whitespace().filter(|word| word.starts_with("--"));
                let options: Vec<String> =
                    options.map(|word| word.split('=').next().unwrap_or(word).to_owned()).collect();
                named.insert((path.clone(), words.join(" "), options));
            }
        }
    }
    assert!(named.len() > 30, "{named:?}");
    for (path, command, options) in named {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = agent.run(&[&words[..], &["--help"]].concat());
        assert!(output.status.success(), "{path}: p2psync {command}");
        let help = String::from_utf8(output.stdout).unwrap();
        for option in options {
            assert!(help.contains(&option), "{path}: p2psync {command} has no {option}");
        }
    }
}

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let docs = user_docs();
    let root = readme().parent().unwrap().to_owned();
    let mut followed = 0;
    for (path, text) in &docs {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = std::path::Path::new(path).parent().unwrap();
            let target = if file.is_empty() { path.clone() } else { plain_path(&directory.join(file)) };
            assert!(root.join(&target).exists(), "{path}: {link}");
            if let (Some(text), false) = (docs.get(&target), anchor.is_empty()) {
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.into_iter().any(|heading| heading == anchor), "{path}: {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

/// The path without `..`.
fn plain_path(path: &std::path::Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap().split('/').filter(|part| !part.is_empty()) {
        match part {
            ".." => parts.truncate(parts.len().saturating_sub(1)),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What a heading is called in links.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// True of the name of a command.
fn is_plain(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-')
}
