//! One path: what state it is in, and exactly why, in sentences.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::waits::{self, Coming, Progress, Wait};
use super::{Asker, View, below, choices, folder, ignored, peer, words};
use crate::api::PathStatus;
use crate::core::conflict;
use crate::core::decide::Found;
use crate::core::direction::Direction;
use crate::core::disk::{DiskKind, DiskState};
use crate::core::ignore::Rules;
use crate::core::path::{PathError, RelPath};
use crate::core::problem::ProblemKind;
use crate::engine::rules;
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
    /// Changed here, and only here.
    Local,
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
            State::Local => "local",
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
        path: words::shown(path),
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
            let text = "what is in there is p2psync's own and never synced";
            return PathStatus { state: State::Ignored.name().to_owned(), ..unknown(&folder.label, text.to_owned()) };
        }
        Err(error) => return unknown(&folder.label, format!("it cannot be synced: {error}")),
    };
    let answer = asker.open(folder).and_then(Surroundings::new).and_then(|around| match &rel {
        Some(rel) => one(&around, rel),
        None => below::of_root(&around),
    });
    match answer {
        Ok(found) => PathStatus { path: words::shown(path), folder: folder.label.clone(), ..found },
        Err(error) if error.is_missing() => {
            unknown(&folder.label, "the folder has not been scanned yet; 'p2psync run' starts the agent".to_owned())
        }
        Err(error) => unknown(&folder.label, folder::unreadable(&error)),
    }
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
    if let Some(original) = known.record.as_ref().and_then(|_| conflict::original_of(path)) {
        explanation
            .push(format!("It is a conflict copy of {original}: keep what you want there, and delete this one."));
    }
    explanation.extend(around.obstacles(state)?);
    Ok(PathStatus {
        state: state.name().to_owned(),
        explanation,
        here: Some(around.here(&known)),
        peers: peers.into_iter().map(|lag| lag.status).collect(),
        since_ms: known.problem.as_ref().filter(|_| state == State::Problem).map(|row| row.since_ms),
        next: around.next(&known),
        ..PathStatus::default()
    })
}

impl<'a> Surroundings<'a> {
    pub fn new(view: View<'a>) -> Result<Self, IndexError> {
        let root = Root::new(view.folder.path.clone(), view.folder.id.clone()).open().map_err(|e| e.to_string());
        let nested = rules::nested(&view.reader);
        let read = |root| rules::read(root, &nested, view.folder.only.clone()).ok();
        let rules = root.as_ref().ok().and_then(read).map(|(rules, _)| rules);
        let rules = rules.unwrap_or_else(|| Rules::default().with_selection(view.folder.only.clone()));
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
            return Ok((State::Ignored, ignored::sentences(&hit, known.record.is_some())));
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
                sentences.extend(peer::lagging(peers));
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
            Mark::Own => {
                let what = if known.record.as_ref().is_some_and(|r| r.disk.is_some()) { "changed" } else { "deleted" };
                let text = format!(
                    "It was {what} here, and this folder only receives: the change stays on this device. \
                     'p2psync folder revert {}' takes all such changes back; what is here goes to history.",
                    self.word()
                );
                (State::Local, vec![text])
            }
            Mark::Reverted => {
                let text = "It was changed here; that is being taken back, and what is here goes to history.";
                (State::Syncing, vec![text.to_owned()])
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
            Coming::KeptOut if self.view.folder.direction == Direction::Receive => {
                let text = format!("It was deleted on {names}, and stays here for what was changed in it here.");
                return (State::Local, vec![text]);
            }
            Coming::KeptOut => {
                let what = if wait.entry.is_live() { "has another version" } else { "has deleted it" };
                let text = format!(
                    "{names} {what}, which is not taken: this folder only sends. \
                     'p2psync folder override {}' has what is here take its place there.",
                    self.word()
                );
                return (State::Local, vec![text]);
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

    /// The folder's name in commands.
    fn word(&self) -> &str {
        self.view.asker.config.word_of(self.view.folder)
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

    /// What would help, where that is not said by what stands in the way.
    pub fn next(&self, known: &Known) -> Option<String> {
        let wait = known.wait.as_ref()?;
        match wait.progress {
            Progress::Absent => {
                let from = if wait.devices.is_empty() { &wait.rivals } else { &wait.devices };
                let away: Vec<_> = from.iter().copied().filter(|device| !self.view.is_connected(device)).collect();
                let names = words::list(&self.view.asker.names(&away));
                (!away.is_empty()).then(|| format!("it goes on as soon as p2psync runs on {names} and can be reached."))
            }
            Progress::Held => {
                let word = self.word();
                Some(format!("'p2psync folder confirm-changes {word}' or 'p2psync folder reject-changes {word}'."))
            }
            Progress::Workable | Progress::Problem => None,
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
        let since = words::ago(row.since_ms, now_ms);
        let next = match row.retry_ms {
            Some(ms) if self.view.live().is_some() => format!("the next try is {}.", words::soon(ms, now_ms)),
            _ => "it is tried again when something changes there.".to_owned(),
        };
        vec![words::sentence(&row.problem.text), format!("First seen {since}; {next}")]
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
        if let Some(text) = choices::paused(view.asker, view.folder) {
            sentences.push(format!("The folder is {text}."));
        } else if view.asker.live.is_none() {
            sentences.push("The agent is not running, so this is as of its last run; 'p2psync run' starts it.".into());
        } else if live.is_none() {
            sentences.push("The folder is just starting.".to_owned());
        } else if !view.reader.state()?.scanned {
            sentences.push("The first scan of the folder is still under way.".to_owned());
        }
        Ok(sentences)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::entry::Kind;
    use crate::core::id::DeviceId;
    use crate::core::ignore::IGNORE_FILE;
    use crate::core::message::{Exception, Reason};
    use crate::core::problem::Problem;

    /// The state and all the text that explains it, peers included.
    fn explain(world: &World, path: &str) -> (String, String) {
        let found = status(world.asker(), &world.place(path));
        let peers = found.peers.iter().map(|p| format!("[{}: {} {}]", p.name, p.has_it, p.text));
        let text: Vec<String> = found.explanation.iter().cloned().chain(found.here).chain(peers).collect();
        (found.state, text.join("\n"))
    }

    #[track_caller]
    fn check(world: &World, path: &str, state_is: &str, text_has: &[&str]) {
        let (state, text) = explain(world, path);
        let is_told = text_has.iter().all(|has| text.contains(has));
        assert!(state == state_is && is_told, "{state}:\n{text}\nwanted {state_is}: {text_has:?}");
    }

    /// A folder with the file `a`, which all devices have; only `desk` is connected.
    fn world() -> World {
        let mut world = World::running(&[DESK]);
        world.add("a", b"12345");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        world
    }

    #[test]
    fn a_file_that_all_have_is_in_sync_with_all() {
        let world = world();
        let text = ["the same here and on desk and phone", "a file of 5 bytes", "[desk: true has it]"];
        check(&world, "a", "in_sync", &text);
    }

    #[test]
    fn devices_that_do_not_have_it_are_told_with_the_reason() {
        let mut world = world();
        let seq = world.add("b", b"1");
        check(
            &world,
            "b",
            "syncing",
            &["desk does not have it yet.", "[phone: false does not have it yet; last seen 3"],
        );
        world.applied(DESK, seq);
        check(
            &world,
            "b",
            "in_sync",
            &["the same here and on desk.", "phone does not have it yet; last seen 3 minutes"],
        );
        for (reason, state, text) in [
            (Reason::Pending, "syncing", "desk is about to fetch it"),
            (Reason::Conflict, "syncing", "making a conflict copy"),
            (Reason::Problem, "waiting", "desk has a problem with it"),
            (Reason::Held, "waiting", "desk keeps it until its user confirms"),
            (Reason::Declined, "waiting", "desk does not take it"),
            (Reason::Ignored, "waiting", "desk ignores it"),
        ] {
            world.index.set_exceptions(DESK, &[Exception { path: rel("b"), seq, reason }]).unwrap();
            check(&world, "b", state, &[text]);
        }
        world.live_folder().connected.clear();
        world.applied(DESK, 0);
        world.index.set_exceptions(DESK, &[]).unwrap();
        check(&world, "b", "waiting", &["no other device is known to have it", "desk does not have it yet; last seen"]);
        world.config.peers.clear();
        check(&world, "b", "in_sync", &["no other device shares the folder yet"]);
    }

    #[test]
    fn what_is_to_come_says_from_where_and_what_it_waits_for() {
        let mut world = world();
        world.hear(DESK, world.edited("new", content(b"1234"), false));
        check(
            &world,
            "new",
            "syncing",
            &["It is to come from desk.", "in line to be fetched (4 bytes)", "[desk: true has it]"],
        );
        world.live_folder().in_flight.insert(rel("new"));
        check(&world, "new", "syncing", &["It is being fetched (4 bytes)."]);
        world.hear(PHONE, world.edited("a", content(b"777"), true));
        check(
            &world,
            "a",
            "waiting",
            &["A newer version is to come from phone.", "phone is not connected; it was last seen 3 minutes ago."],
        );
        world.index.set_problem(&rel("a"), &Problem::new(ProblemKind::NoSource, "nobody"), 5, None).unwrap();
        check(&world, "a", "waiting", &["phone is not connected"]);
        let trouble = Problem::new(ProblemKind::NoSpace, "no space left: free some");
        world.index.set_problem(&rel("a"), &trouble, NOW_MS - MINUTE_MS, Some(NOW_MS + 4000)).unwrap();
        check(
            &world,
            "a",
            "problem",
            &["No space left: free some.", "First seen 1 minute ago; the next try is in 4 seconds."],
        );
    }

    #[test]
    fn an_entry_that_its_announcer_does_not_hold_waits_for_whoever_does() {
        let mut world = world();
        let entry = world.edited("new", content(b"1234"), false);
        let announced = crate::core::message::Announced { entry, seq: 1, held: false };
        world.index.put_rival(DESK, &announced).unwrap();
        check(
            &world,
            "new",
            "waiting",
            &["desk is connected, but does not have the bytes itself", "[desk: false knows"],
        );
        // What lies here under another name needs no device.
        world.hear(PHONE, world.edited("copy", content(b"12345"), false));
        check(&world, "copy", "syncing", &["It is to come from phone."]);
    }

    #[test]
    fn what_a_folder_that_only_sends_does_not_take_is_not_in_sync() {
        let mut world = world();
        world.config.folders[0].direction = Direction::Send;
        world.hear(DESK, world.edited("a", content(b"22"), true));
        check(&world, "a", "local", &["desk has another version, which is not taken", "p2psync folder override Docs"]);
        world.add("b", b"1");
        world.in_sync(DESK);
        world.hear(DESK, world.edited("b", Kind::Deleted, true));
        check(&world, "b", "local", &["desk has deleted it, which is not taken", "[desk: false has deleted it]"]);
    }

    #[test]
    fn conflicts_say_who_keeps_what() {
        let mut world = world();
        let mut theirs = world.edited("a", content(b"22"), false);
        // Later than what the file system says of a file that was just written.
        (theirs.mtime_ns, theirs.weight_ns) = (i64::MAX, i64::MAX);
        world.hear(DESK, theirs.clone());
        check(
            &world,
            "a",
            "conflict",
            &["the version from desk gets the name", "this device's is kept", "[desk: true has another"],
        );
        (theirs.mtime_ns, theirs.weight_ns) = (1, 1);
        world.hear(DESK, theirs.clone());
        check(&world, "a", "conflict", &["this device's version keeps the name, desk keeps its own"]);
        world.index.drop_rival(DESK, &rel("a")).unwrap();
        world.hear(PHONE, theirs);
        check(&world, "a", "conflict", &["phone is not connected"]);
    }

    #[test]
    fn deletions_are_told_before_and_after() {
        let mut world = world();
        world.hear(DESK, world.edited("a", Kind::Deleted, true));
        check(&world, "a", "syncing", &["deleted on desk and is to be deleted here", "[desk: false has deleted it]"]);
        world.index.set_note(NOTE_HELD, Some("1500 deletions wait")).unwrap();
        check(&world, "a", "waiting", &["1500 deletions wait."]);
        world.index.set_note(NOTE_HELD, None).unwrap();
        world.index.drop_rival(DESK, &rel("a")).unwrap();
        std::fs::remove_file(world.place("a")).unwrap();
        check(&world, "a", "syncing", &["It is gone from here, which has not been looked at yet."]);
        let gone = crate::core::entry::Entry { kind: Kind::Deleted, mtime_ns: 0, weight_ns: 0, ..file("a", b"") };
        world.index.put(&gone, None, Mark::Here, NOW_MS - MINUTE_MS).unwrap();
        world.in_sync(DESK);
        world.applied(PHONE, 0);
        check(
            &world,
            "a",
            "deleted",
            &["deleted 1 minute ago", "phone has not deleted it yet", "[desk: false has deleted it too]", "nothing"],
        );
    }

    #[test]
    fn what_is_of_this_device_alone_is_not_said_to_be_deleted_elsewhere() {
        let mut world = world();
        let disk = world.look("a");
        world.in_sync(DESK);
        world.index.set_disk(&rel("a"), disk, Mark::Own, NOW_MS).unwrap();
        check(&world, "a", "local", &["[desk: false has another version]"]);
        let never = crate::core::entry::Entry::nothing(rel("a"));
        world.index.put(&never, disk, Mark::Own, NOW_MS).unwrap();
        world.in_sync(DESK);
        check(&world, "a", "local", &["[desk: false does not have it]"]);
    }

    #[test]
    fn marks_are_explained() {
        let mut world = world();
        world.index.set_note(NOTE_HELD, Some("most of the folder vanished")).unwrap();
        let problem = Problem::new(ProblemKind::Suspect, "suddenly empty");
        world.index.set_problem(&rel("a"), &problem, 5, None).unwrap();
        for (mark, state, text) in [
            (Mark::Missing, "syncing", "in a moment the other devices are told"),
            (Mark::Held, "waiting", "Most of the folder vanished."),
            (Mark::Suspect, "problem", "Suddenly empty."),
            (Mark::Declined, "problem", "cannot hold it"),
            (Mark::Kept, "deleted", "is kept here for what is in it"),
            (Mark::Ignored, "syncing", "no rule says so any more"),
        ] {
            world.index.set_disk(&rel("a"), None, mark, NOW_MS).unwrap();
            check(&world, "a", state, &[text]);
        }
    }

    #[test]
    fn ignored_paths_name_the_rule_and_its_line() {
        let mut world = world();
        std::fs::write(world.place(IGNORE_FILE), "# mine\n\n*.o\nbuild/\n").unwrap();
        world.add("x.o", b"1");
        check(&world, "x.o", "ignored", &["line 3 of .p2pignore says '*.o'", "passed on"]);
        check(&world, "build/deep/x", "ignored", &["line 4 of .p2pignore says 'build/'"]);
        check(&world, ".DS_Store", "ignored", &["built-in rule '.DS_Store'", "a line '!.DS_Store'"]);
        check(&world, ".p2psync/history", "ignored", &["p2psync's own and never synced"]);
    }

    #[test]
    fn what_nobody_knows_of_is_told_so() {
        let world = world();
        check(&world, "never", "unknown", &["never heard of it"]);
        std::fs::write(world.place("fresh"), "x").unwrap();
        check(&world, "fresh", "syncing", &["It is new here and has not been looked at yet."]);
        std::fs::write(world.place("a"), "longer than before").unwrap();
        check(&world, "a", "syncing", &["It has just changed here"]);
        let found = status(world.asker(), Path::new("/else\nwhere"));
        assert_eq!((found.state.as_str(), found.path.as_str()), ("unknown", "/else\\nwhere"));
        assert!(found.explanation[0].contains("in none of your folders"));
    }

    #[test]
    fn a_folder_that_stands_still_says_why() {
        let mut world = world();
        world.live = None;
        check(&world, "a", "in_sync", &["The agent is not running"]);
        world.config.folders[0].paused = true;
        check(&world, "a", "in_sync", &["The folder is paused"]);
        std::fs::rename(world.place(""), world.place("../elsewhere")).unwrap();
        check(&world, "a", "in_sync", &["is missing (is its disk mounted?)", "not known"]);
        world.index.set_note(NOTE_HALTED, Some("the disk is gone")).unwrap();
        check(&world, "a", "in_sync", &["The folder has stopped itself: The disk is gone."]);
    }

    #[test]
    fn a_directory_sums_up_what_is_in_it() {
        let mut world = world();
        world.add_directory("d");
        for name in ["d/1", "d/2", "d-x"] {
            world.add(name, b"123");
        }
        world.in_sync(DESK);
        world.in_sync(PHONE);
        check(&world, "d", "in_sync", &["It holds 2 files, 6 bytes.", "a directory"]);
        assert!(!explain(&world, "d").1.contains("not in sync"));
        world.hear(PHONE, world.edited("d/new", content(b"1234"), false));
        world.hear(DESK, world.edited("d-y", content(b"1234"), false));
        check(&world, "d", "waiting", &["1 item in it is not in sync:", "d/new: It is to come from phone."]);
        world.index.set_problem(&rel("d/1"), &Problem::new(ProblemKind::Permission, "not allowed"), 5, None).unwrap();
        check(&world, "d", "problem", &["2 items in it are not in sync:", "d/1: Not allowed."]);
        check(&world, "", "problem", &["It holds 4 files", "3 items in it are not in sync:", "a shared folder"]);
        let seq = world.add("d/3", b"1");
        check(&world, "d", "problem", &["desk still lacks 1 item of it.", "phone still lacks 1 item of it and is not"]);
        world.index.set_exceptions(DESK, &[Exception { path: rel("d/3"), seq, reason: Reason::Pending }]).unwrap();
        world.in_sync(DESK);
        check(&world, "d", "problem", &["desk still lacks 1 item of it."]);
        check(&world, "", "problem", &["[desk: false lacks 1 item]"]);
    }

    #[test]
    fn authors_are_named_as_in_the_config() {
        let world = world();
        let asker = world.asker();
        assert_eq!(asker.author(&DESK).as_deref(), Some("desk"));
        assert_eq!(asker.author(&ME).as_deref(), Some(world.config.name.as_str()));
        assert_eq!(asker.author(&DeviceId::NONE), None);
        assert!(asker.name(&DeviceId([9; 32])).starts_with("the device "));
    }
}
