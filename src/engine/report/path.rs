//! One path: what state it is in, and exactly why, in sentences.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::waits::{self, Coming, Progress, Wait};
use super::{Asker, View, below, folder, peer, words};
use crate::api::PathStatus;
use crate::core::decide::Found;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::entry::Kind;
use crate::core::ignore::{Hit, IGNORE_BYTES_MAX, IGNORE_FILE, Rules};
use crate::core::path::{PathError, RelPath};
use crate::core::problem::ProblemKind;
use crate::fs::read::read_range;
use crate::fs::root::{OpenRoot, Root};
use crate::index::{IndexError, Mark, ProblemRow, Record};
use crate::sync::{NOTE_HALTED, NOTE_HELD};

/// What a path comes to, the least troublesome first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Unknown,
    Ignored,
    Deleted,
    InSync,
    Syncing,
    Waiting,
    Conflict,
    Problem,
}

/// State and the sentences that explain it.
pub type Verdict = (State, Vec<String>);

/// What is the same for all paths of a folder.
pub struct Surroundings<'a> {
    pub view: View<'a>,
    pub found: Found,
    pub held: Option<String>,
    /// The folder's directory, or why it can't be looked at.
    pub root: Result<OpenRoot, String>,
    pub rules: Rules,
}

/// All that is known of one path.
pub struct Known {
    pub path: RelPath,
    pub record: Option<Record>,
    pub wait: Option<Wait>,
    pub problem: Option<ProblemRow>,
    /// What is on the disk now; `None` where it could not be looked at.
    pub disk: Option<Option<DiskState>>,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Ignored => "ignored",
            State::Deleted => "deleted",
            State::InSync => "in_sync",
            State::Syncing => "syncing",
            State::Waiting => "waiting",
            State::Conflict => "conflict",
            State::Problem => "problem",
        }
    }
}

/// The status of an absolute path.
pub fn status(asker: Asker, path: &Path) -> PathStatus {
    let unknown = |folder: &str, text: String| PathStatus {
        path: shown(path),
        folder: folder.to_owned(),
        state: State::Unknown.name().to_owned(),
        explanation: vec![words::sentence(&text)],
        ..PathStatus::default()
    };
    let Some(folder) = asker.config.folder_at(path) else {
        let text = "it is in none of your folders, so it is not synced; 'p2psync folder list' shows them";
        return unknown("", text.to_owned());
    };
    let rest = path.strip_prefix(&folder.path).map(|rest| rest.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let rel = match RelPath::parse(&rest) {
        _ if rest.is_empty() => None,
        Ok(rel) => Some(rel),
        Err(PathError::Reserved) => {
            let text = "p2psync keeps its own files there; they are never synced";
            return PathStatus { state: State::Ignored.name().to_owned(), ..unknown(&folder.label, text.to_owned()) };
        }
        Err(error) => return unknown(&folder.label, format!("it cannot be synced: {error}")),
    };
    let answer = asker.open(folder).and_then(Surroundings::new).and_then(|around| match &rel {
        Some(rel) => one(&around, rel),
        None => below::of_root(&around),
    });
    match answer {
        Ok(found) => PathStatus { path: shown(path), folder: folder.label.clone(), ..found },
        Err(error) if error.is_missing() => {
            unknown(&folder.label, "the folder has not been scanned yet; 'p2psync run' starts the agent".to_owned())
        }
        Err(error) => unknown(&folder.label, folder::unreadable(&error)),
    }
}

/// A path in text, with control characters and what is not UTF-8 escaped.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

fn one(around: &Surroundings, path: &RelPath) -> Result<PathStatus, IndexError> {
    let known = around.look(path)?;
    let peers = peer::at(&around.view, &known)?;
    let (mut state, mut explanation) = around.verdict(&known, &peers)?;
    let is_directory = known.disk.flatten().is_some_and(|disk| disk.kind == DiskKind::Directory)
        || known.record.as_ref().is_some_and(|r| r.entry.kind.is_directory());
    if is_directory && state != State::Ignored {
        let (worst, sentences) = below::summary(around, Some(path))?;
        state = state.max(worst);
        explanation.extend(sentences);
    }
    explanation.extend(around.obstacles(state)?);
    Ok(PathStatus {
        state: state.name().to_owned(),
        explanation,
        here: Some(around.here(&known)),
        peers: peers.into_iter().map(|lag| lag.status).collect(),
        ..PathStatus::default()
    })
}

impl<'a> Surroundings<'a> {
    fn new(view: View<'a>) -> Result<Self, IndexError> {
        let root = Root::new(view.folder.path.clone(), view.folder.id.clone()).open().map_err(|e| e.to_string());
        let rules = root.as_ref().ok().and_then(read_rules).unwrap_or_default();
        let (found, held) = (view.reader.found()?, view.reader.note(NOTE_HELD)?);
        Ok(Self { view, found, held, root, rules })
    }

    pub fn look(&self, path: &RelPath) -> Result<Known, IndexError> {
        let disk = self.root.as_ref().ok().and_then(|root| root.look(path).ok());
        Ok(Known {
            path: path.clone(),
            record: self.view.reader.record(path)?,
            wait: waits::look(&self.view, path, &self.found, self.held.is_some())?,
            problem: self.view.reader.problem(path)?,
            disk,
        })
    }

    /// State and reasons of the path itself, whatever lies below it.
    pub fn verdict(&self, known: &Known, peers: &[peer::Lag]) -> Result<Verdict, IndexError> {
        let is_dir = known.disk.flatten().map(|disk| disk.kind == DiskKind::Directory);
        let is_dir = is_dir.or_else(|| known.record.as_ref().map(|r| r.entry.kind.is_directory())).unwrap_or(false);
        let hit = self.rules.is_ignored(&known.path, is_dir);
        if let Some(hit) = hit {
            return Ok((State::Ignored, ignored(&hit, known.record.is_some())));
        }
        let mark = known.record.as_ref().map(|r| r.mark);
        if let Some(verdict) = mark.and_then(|mark| self.marked(mark, known)) {
            return Ok(verdict);
        }
        if let Some(wait) = &known.wait {
            return Ok(self.waiting(wait, known));
        }
        if let Some(row) = known.problem.as_ref().filter(|row| row.problem.kind != ProblemKind::NoSource) {
            return Ok((State::Problem, self.problem(row)));
        }
        if let Some(verdict) = self.changed_since(known) {
            return Ok(verdict);
        }
        match &known.record {
            Some(record) if record.entry.is_live() => Ok(peer::settled(&self.view, peers)),
            Some(record) => {
                let mut sentences =
                    vec![format!("It was deleted {}.", words::ago(record.changed_ms, self.view.asker.now_ms))];
                sentences.extend(self.earlier(&known.path)?);
                sentences.extend(peer::settled(&self.view, peers).1);
                Ok((State::Deleted, sentences))
            }
            None => {
                let mut sentences = vec!["Nothing is there, and p2psync has never heard of it.".to_owned()];
                sentences.extend(self.earlier(&known.path)?);
                Ok((State::Unknown, sentences))
            }
        }
    }

    fn earlier(&self, path: &RelPath) -> Result<Option<String>, IndexError> {
        let has_any = !self.view.reader.history_of(path)?.is_empty();
        Ok(has_any.then(|| "An earlier version is in the history: 'p2psync restore' brings it back.".to_owned()))
    }

    /// What a mark other than "here" comes to.
    fn marked(&self, mark: Mark, known: &Known) -> Option<Verdict> {
        let text_of = |row: &ProblemRow| words::sentence(&row.problem.text);
        let problem = known.problem.as_ref().map(text_of);
        Some(match mark {
            Mark::Here => return None,
            Mark::Missing => {
                let text = "It is gone here; in a moment the other devices are told so, unless it comes back.";
                (State::Syncing, vec![text.to_owned()])
            }
            Mark::Held => {
                let held = self.held.as_deref().map(words::sentence);
                let text = "It is gone here, together with much else, so its deletion waits for your word.";
                (State::Waiting, [Some(text.to_owned()), held].into_iter().flatten().collect())
            }
            Mark::Suspect => {
                let text = "What is here looks damaged, so it is not passed on to other devices.";
                (State::Problem, [Some(text.to_owned()), problem].into_iter().flatten().collect())
            }
            Mark::Ignored => {
                let text = "It was ignored here until now, but no rule says so any more; it is looked at again soon.";
                (State::Syncing, vec![text.to_owned()])
            }
            Mark::Declined => {
                let text = "This device cannot hold it; its versions are only passed on to other devices.";
                (State::Problem, [Some(text.to_owned()), problem].into_iter().flatten().collect())
            }
            Mark::Kept => {
                let text = "It was deleted on another device, but is kept here for what is in it and does not sync.";
                (State::Deleted, vec![text.to_owned()])
            }
        })
    }

    fn waiting(&self, wait: &Wait, known: &Known) -> Verdict {
        let names = words::list(&self.view.asker.names(&wait.devices));
        let names = if names.is_empty() { "another device".to_owned() } else { names };
        let is_live = known.record.as_ref().is_some_and(|r| r.entry.is_live());
        let (state, text) = match wait.coming {
            Coming::Newer if is_live => (State::Syncing, format!("A newer version is to come from {names}.")),
            Coming::Newer => (State::Syncing, format!("It is to come from {names}.")),
            Coming::Deletion => (State::Syncing, format!("It was deleted on {names} and is to be deleted here.")),
            Coming::ConflictHere => {
                let text = format!(
                    "It was changed here and on {names} at once: the version from {names} gets the name, \
                     this device's is kept beside it as a conflict copy."
                );
                (State::Conflict, text)
            }
            Coming::ConflictThere => {
                let text = format!(
                    "It was changed here and on {names} at once: this device's version keeps the name, \
                     {names} keeps its own beside it as a conflict copy."
                );
                (State::Conflict, text)
            }
            Coming::Merge | Coming::NotMinded => {
                (State::Syncing, "Its time and permissions are being brought in line.".to_owned())
            }
        };
        let mut sentences = vec![text];
        let state = match wait.progress {
            Progress::Workable => {
                sentences.push(self.pace(wait));
                state
            }
            Progress::Absent => {
                let from = if wait.devices.is_empty() { &wait.rivals } else { &wait.devices };
                sentences.extend(from.iter().map(|device| self.absence(device)));
                if from.is_empty() {
                    sentences.push("No device that has it is known.".to_owned());
                }
                state.max(State::Waiting)
            }
            Progress::Held => {
                sentences.extend(self.held.as_deref().map(words::sentence));
                State::Waiting
            }
            Progress::Problem => {
                sentences.extend(wait.problem.iter().flat_map(|row| self.problem(row)));
                State::Problem
            }
        };
        (state, sentences)
    }

    /// What happens next to something that can go on.
    fn pace(&self, wait: &Wait) -> String {
        let is_in_flight = self.view.live().is_some_and(|live| live.in_flight.contains(&wait.path));
        match (wait.coming, wait.file_bytes()) {
            (Coming::ConflictThere, _) => "It does so as soon as it has fetched this device's version.".to_owned(),
            (_, Some(size)) if is_in_flight => format!("It is being fetched ({}).", words::bytes(size)),
            (_, Some(size)) => format!("It is in line to be fetched ({}).", words::bytes(size)),
            _ => "That is about to happen.".to_owned(),
        }
    }

    /// Where a device is that something waits for.
    fn absence(&self, device: &crate::core::id::DeviceId) -> String {
        let name = self.view.asker.name(device);
        let seen = self.view.reader.peer(*device).ok().flatten().and_then(|row| row.last_seen_ms);
        match seen {
            _ if self.view.is_connected(device) => format!("{name} is connected, but does not have the bytes itself."),
            Some(ms) => {
                format!("{name} is not connected; it was last seen {}.", words::ago(ms, self.view.asker.now_ms))
            }
            None => format!("{name} is not connected."),
        }
    }

    fn problem(&self, row: &ProblemRow) -> Vec<String> {
        let now_ms = self.view.asker.now_ms;
        let since = format!("So since {}", words::ago(row.since_ms, now_ms));
        let next = match row.retry_ms {
            Some(ms) if self.view.live().is_some() => format!("the next try is {}.", words::soon(ms, now_ms)),
            _ => "it is tried again when something changes there.".to_owned(),
        };
        vec![words::sentence(&row.problem.text), format!("{}; {next}", since.replace("So since", "First seen"))]
    }

    /// A disk that is not as it was when it was last looked at.
    fn changed_since(&self, known: &Known) -> Option<Verdict> {
        let now = known.disk?;
        let before = known.record.as_ref().and_then(|r| r.disk);
        let text = match (before, now) {
            (None, Some(_)) => "It is new here and has not been looked at yet.",
            (Some(_), None) => "It is gone from here, which has not been looked at yet.",
            (Some(before), Some(now)) if !is_alike(&before, &now) => "It has just changed here and is looked at soon.",
            _ => return None,
        };
        Some((State::Syncing, vec![text.to_owned()]))
    }

    /// Why nothing goes on in the folder at all.
    pub fn obstacles(&self, state: State) -> Result<Vec<String>, IndexError> {
        if matches!(state, State::Ignored | State::Unknown) && self.root.is_ok() {
            return Ok(Vec::new());
        }
        let (live, view) = (self.view.live(), &self.view);
        let mut sentences = Vec::new();
        if let Some(text) = live.and_then(|l| l.halted.clone()).or(view.reader.note(NOTE_HALTED)?) {
            sentences.push(format!("The folder has stopped itself: {}", words::sentence(&text)));
        } else if let Err(text) = &self.root {
            sentences.push(words::sentence(text));
        }
        if view.folder.paused {
            sentences.push(format!("The folder is paused; 'p2psync folder resume {}' goes on.", view.folder.id));
        } else if view.asker.live.is_none() {
            sentences.push("The agent is not running, so this is as of its last run; 'p2psync run' starts it.".into());
        } else if live.is_none() {
            sentences.push("The folder is just starting.".to_owned());
        } else if !view.reader.state()?.scanned {
            sentences.push("The first scan of the folder is still under way.".to_owned());
        }
        Ok(sentences)
    }

    /// What lies here, in words.
    fn here(&self, known: &Known) -> String {
        let Some(disk) = known.disk else { return "not known, the folder cannot be looked at".to_owned() };
        let Some(disk) = disk else { return "nothing".to_owned() };
        let changed = || words::ago(disk.mtime_ns / 1_000_000, self.view.asker.now_ms);
        let author = known.record.as_ref().and_then(|r| self.view.asker.author(&r.entry.author));
        let by = author.map(|name| format!(" by {name}")).unwrap_or_default();
        match (disk.kind, known.record.as_ref().map(|r| &r.entry.kind)) {
            (DiskKind::Directory, _) => "a directory".to_owned(),
            (DiskKind::Symlink, Some(Kind::Symlink(target))) => {
                format!("a symbolic link to {}", String::from_utf8_lossy(target).escape_debug())
            }
            (DiskKind::Symlink, _) => "a symbolic link".to_owned(),
            (DiskKind::File, _) => format!("a file of {}, changed {}{by}", words::bytes(disk.size), changed()),
        }
    }
}

fn ignored(hit: &Hit, is_known: bool) -> Vec<String> {
    let text = match hit.line {
        Some(line) => format!("It is ignored on this device: line {line} of {IGNORE_FILE} says '{}'.", hit.pattern),
        None => format!(
            "It is ignored on this device by the built-in rule '{0}'; a line '!{0}' in {IGNORE_FILE} takes that back.",
            hit.pattern
        ),
    };
    let passed_on = "What other devices have of it is passed on, but not kept up to date here.";
    [Some(text), is_known.then(|| passed_on.to_owned())].into_iter().flatten().collect()
}

fn is_alike(before: &DiskState, now: &DiskState) -> bool {
    before.kind == now.kind
        && (now.kind == DiskKind::Directory || (before.size == now.size && before.mtime_ns == now.mtime_ns))
}

/// The folder's rules, as they lie on the disk.
fn read_rules(root: &OpenRoot) -> Option<Rules> {
    let path = RelPath::parse(IGNORE_FILE.as_bytes()).ok()?;
    let disk = root.look(&path).ok().flatten()?;
    let bytes = usize::try_from(disk.size).unwrap_or(usize::MAX).min(IGNORE_BYTES_MAX);
    let text = read_range(root, &path, &disk, 0, bytes).ok()?;
    Some(Rules::parse(&text).0)
}
