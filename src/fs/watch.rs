//! Hearing of changes as they happen. What comes from here are hints: the truth is what a scan finds.
//!
//! Files in freshly made nested directories are not reported by the system, so whoever hears of a new directory walks
//! it. What the agent does in its own directory is heard by the system all the same, and dropped here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Config, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};

use super::root::Root;
use crate::core::path::{OWN_DIR, RelPath};
use crate::core::problem::{Problem, ProblemKind};

/// The marker below the root, whose removal means that the folder is not to be trusted any more.
const MARKER: &str = ".p2psync/marker";

/// Directories of the agent's own in which it works all the time, and nobody else.
const AGENTS_OWN: [&str; 2] = ["stage", "history"];

/// Something that the system reported about a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// Something happened at a path. `closed` says that it is complete (a file closed after writing, a rename, a new
    /// directory, a deletion), so that there is nothing to wait for.
    Hint { path: RelPath, closed: bool },
    /// Changes were missed: the folder has to be scanned.
    Overflow,
    /// Part of the folder, or all of it, is not watched: changes there are found by scanning only.
    Failed(Problem),
    /// The folder's directory or its marker was removed, renamed or unmounted.
    RootGone,
}

/// A running watch; it ends when dropped.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Linux's error numbers for too many open files and for a path that is too long.
const FILES_OPEN_MAX: i32 = 24;
const NAME_TOO_LONG: i32 = 36;

impl Watch {
    /// Watches all of a folder. `sink` is called on a thread of its own and must not block for long.
    pub fn start(root: &Root, sink: impl Fn(WatchEvent) + Send + 'static) -> Result<Watch, Problem> {
        let path = root.path().to_path_buf();
        let sink = Arc::new(Mutex::new(sink));
        let send = Arc::clone(&sink);
        let base = path.clone();
        let handler = move |event: notify::Result<Event>| {
            let send = send.lock().unwrap_or_else(PoisonError::into_inner);
            translate(&base, event, &mut |event| send(event));
        };
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(EventKindMask::CORE | EventKindMask::ACCESS_CLOSE);
        let mut watcher = RecommendedWatcher::new(handler, config).map_err(|e| problem_of(&e))?;
        match watcher.watch(&path, RecursiveMode::Recursive) {
            Ok(()) => {}
            // The directories that did get a watch are still worth hearing.
            Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) || is_too_long(&error) => {
                let send = sink.lock().unwrap_or_else(PoisonError::into_inner);
                send(WatchEvent::Failed(problem_of(&error)));
            }
            Err(error) => return Err(problem_of(&error)),
        }
        for busy in AGENTS_OWN {
            // Where it stays watched, what is heard there is only dropped a little later.
            if let Err(error) = watcher.unwatch(&path.join(OWN_DIR).join(busy)) {
                tracing::debug!(busy, %error, "the agent's own directory stays watched");
            }
        }
        Ok(Watch { _watcher: watcher })
    }
}

fn translate(base: &Path, event: notify::Result<Event>, send: &mut dyn FnMut(WatchEvent)) {
    let event = match event {
        Ok(event) => event,
        Err(error) => return send(WatchEvent::Failed(problem_of(&error))),
    };
    if event.need_rescan() {
        send(WatchEvent::Overflow);
    }
    let ends = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
    let closed = ends
        || matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder) | EventKind::Access(AccessKind::Close(AccessMode::Write))
        );
    for path in &event.paths {
        let Ok(below) = path.strip_prefix(base) else { continue };
        if below.as_os_str().is_empty() || below == Path::new(OWN_DIR) || below == Path::new(MARKER) {
            if ends {
                send(WatchEvent::RootGone);
            }
            continue;
        }
        // What is no path of a folder, the agent's own directory above all, is of no interest.
        if let Ok(path) = RelPath::parse(below.as_os_str().as_encoded_bytes()) {
            send(WatchEvent::Hint { path, closed });
        }
    }
}

/// True where a directory lies deeper than the system lets paths be.
fn is_too_long(error: &notify::Error) -> bool {
    matches!(&error.kind, notify::ErrorKind::Io(cause) if cause.raw_os_error() == Some(NAME_TOO_LONG))
}

/// Words for what keeps the system from watching, with what to do about it.
fn problem_of(error: &notify::Error) -> Problem {
    let place = error.paths.first().map(PathBuf::as_path).map(|p| format!(" {}", p.display())).unwrap_or_default();
    let text = match &error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the system watches no more directories for this user, so changes here are found by scanning only: raise \
             the limit with 'sudo sysctl fs.inotify.max_user_watches=1048576' and restart p2psync"
                .into()
        }
        notify::ErrorKind::Io(cause) if cause.raw_os_error() == Some(FILES_OPEN_MAX) => {
            "the system has no more watchers for this user, so changes here are found by scanning only: raise the \
             limit with 'sudo sysctl fs.inotify.max_user_instances=1024' and restart p2psync"
                .into()
        }
        _ if is_too_long(error) => {
            "some directories lie too deep to be watched: changes in them are found by scanning only".into()
        }
        notify::ErrorKind::Io(cause) => format!("could not watch{place} for changes: {cause}"),
        notify::ErrorKind::PathNotFound => format!("could not watch{place} for changes: it is missing"),
        _ => format!("could not watch{place} for changes: {error}"),
    };
    Problem::new(ProblemKind::Io, text)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Far longer than any event takes, so that only a missing one is noticed.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn watched() -> (tempfile::TempDir, Root, Watch, mpsc::Receiver<WatchEvent>) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("folder"), "test".parse().unwrap());
        root.create().unwrap();
        let (sender, events) = mpsc::channel();
        let watch = Watch::start(&root, move |event| drop(sender.send(event))).unwrap();
        (dir, root, watch, events)
    }

    fn wait_for(events: &mpsc::Receiver<WatchEvent>, wanted: impl Fn(&WatchEvent) -> bool) -> Vec<WatchEvent> {
        let mut seen = Vec::new();
        loop {
            match events.recv_timeout(PATIENCE) {
                Ok(event) => seen.push(event),
                Err(_) => panic!("the event did not come, only {seen:?}"),
            }
            if wanted(&seen[seen.len() - 1]) {
                return seen;
            }
        }
    }

    fn hint(name: &[u8]) -> WatchEvent {
        WatchEvent::Hint { path: RelPath::parse(name).unwrap(), closed: true }
    }

    #[test]
    fn a_written_file_a_rename_and_a_deletion_are_heard_at_once() {
        let (_dir, root, _watch, events) = watched();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("a\nb"), b"x").unwrap();
        wait_for(&events, |e| *e == hint(b"a\nb"));
        std::fs::rename(at("a\nb"), at("c")).unwrap();
        let seen = wait_for(&events, |e| *e == hint(b"c"));
        assert!(seen.contains(&hint(b"a\nb")));
        std::fs::remove_file(at("c")).unwrap();
        wait_for(&events, |e| *e == hint(b"c"));
        std::fs::create_dir(at("d")).unwrap();
        wait_for(&events, |e| *e == hint(b"d"));
    }

    #[test]
    fn nothing_is_heard_of_the_agents_own_directory() {
        let (_dir, root, _watch, events) = watched();
        std::fs::write(root.path().join(".p2psync/stage/x"), b"x").unwrap();
        std::fs::write(root.path().join("end"), b"x").unwrap();
        let seen = wait_for(&events, |e| *e == hint(b"end"));
        let only_end = |e: &WatchEvent| matches!(e, WatchEvent::Hint { path, .. } if path.as_bytes() == b"end");
        assert!(seen.iter().all(only_end), "{seen:?}");
    }

    #[test]
    fn a_removed_marker_or_root_is_heard() {
        let (_dir, root, _watch, events) = watched();
        std::fs::remove_file(root.path().join(".p2psync/marker")).unwrap();
        wait_for(&events, |e| *e == WatchEvent::RootGone);
        let (dir, root, _watch, events) = watched();
        std::fs::rename(root.path(), dir.path().join("elsewhere")).unwrap();
        wait_for(&events, |e| *e == WatchEvent::RootGone);
    }

    #[test]
    fn an_exhausted_limit_says_what_to_type() {
        let error = notify::Error::new(notify::ErrorKind::MaxFilesWatch);
        assert!(problem_of(&error).text.contains("sysctl fs.inotify.max_user_watches"));
    }
}
