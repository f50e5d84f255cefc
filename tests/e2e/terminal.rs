//! Commands on a terminal: a pseudo-terminal with a program on one side, and keys and eyes on the other.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use p2psync::api::FolderState;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};

use crate::harness::{Agent, World, wait_settled, wait_until};

/// Switches to the screen that programs draw on, and back.
const DRAWING: &str = "\x1b[?1049h";
const DRAWN: &str = "\x1b[?1049l";

struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
    child: Child,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a command of the agent's device on a terminal of this size.
    fn start(agent: &Agent, words: &[&str], variables: &[(&str, &str)], (columns, rows): (u16, u16)) -> Self {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let open = || OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
        let theirs = open();
        let mut command = agent.command(words);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(variables.iter().copied());
        command.stdin(open()).stdout(open()).stderr(open());
        // SAFETY: the closure makes system calls and nothing else.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
            });
        }
        let seen = Arc::<Mutex<String>>::default();
        resize(&ours, columns, rows);
        let child = command.spawn().unwrap();
        let (mut from, to) = (File::from(ours.try_clone().unwrap()), seen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Once nobody has the other side open any more there is an error.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { ours, theirs, child, seen }
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was seen, to tell what comes from now on.
    fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("the terminal shows {text:?}"), || {
            let seen = self.seen();
            if seen.contains(text) { Ok(()) } else { Err(seen.escape_debug().to_string()) }
        });
    }

    fn press(&self, keys: &str) {
        File::from(self.ours.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        // It has not been waited for, so its id cannot be another's.
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("the command ends", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()))
    }

    /// True where lines are read and keys are shown, as a shell wants it.
    fn is_sane(&self) -> bool {
        let modes = rustix::termios::tcgetattr(self.theirs.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::KILL);
            drop(self.child.wait());
        }
    }
}

fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn the_live_view_follows_the_terminal_obeys_keys_and_gives_the_terminal_back() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("notes.txt", "some notes");
    wait_settled(&[&a, &b]);
    let mut terminal = Terminal::start(&a, &["status", "--watch"], &[], (80, 24));
    terminal.wait_for(DRAWING);
    terminal.wait_for(" on a (");
    terminal.wait_for("Shared");
    assert!(!terminal.is_sane(), "keys are read one by one");
    terminal.forget();
    resize(&terminal.ours, 120, 40);
    terminal.wait_for("p2psync on a");
    terminal.press("?");
    terminal.wait_for("Keys");
    terminal.press("?p");
    let wait_state = |wanted: FolderState| {
        wait_until(&format!("the folder is {wanted:?}"), || {
            let state = a.folder()?.state;
            if state == wanted { Ok(()) } else { Err(format!("{state:?}")) }
        });
    };
    wait_state(FolderState::Paused);
    terminal.wait_for("paused");
    terminal.press("p");
    wait_state(FolderState::InSync);
    terminal.press("q");
    assert!(terminal.wait_end().success());
    terminal.wait_for(DRAWN);
    assert!(terminal.is_sane(), "{}", terminal.seen().escape_debug());
}

#[test]
fn a_live_view_that_is_told_to_end_gives_the_terminal_back_and_shows_no_colour_where_none_is_wanted() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    for signal in [Signal::TERM, Signal::HUP] {
        let mut terminal = Terminal::start(&a, &["status", "--watch"], &[("NO_COLOR", "1")], (40, 10));
        terminal.wait_for("Shared");
        terminal.signal(signal);
        assert!(terminal.wait_end().success());
        terminal.wait_for(DRAWN);
        assert!(terminal.is_sane());
        let coloured = ["\x1b[38;", "\x1b[3", "\x1b[9"].iter().find(|code| {
            let seen = terminal.seen();
            seen.match_indices(**code).any(|(at, _)| seen[at + 3..].starts_with(|c: char| c.is_ascii_digit()))
        });
        assert_eq!(coloured, None, "{}", terminal.seen().escape_debug());
    }
}

#[test]
fn what_commands_say_fits_the_terminal_and_goes_unbroken_into_a_pipe() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    let lines = |words: &[&str], columns| {
        let mut terminal = Terminal::start(&a, words, &[("NO_COLOR", "1")], (columns, 24));
        terminal.wait_end();
        terminal.wait_for("\r\n");
        let seen = terminal.seen();
        seen.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    // An error, a sentence, and help.
    for words in [&["folder", "accept", "Musik"][..], &["folder", "accept"], &["folder", "--help"], &["doctor"]] {
        let whole = a.run(words);
        let whole = [whole.stdout, whole.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(whole.lines().any(|line| line.len() > 60), "{whole}");
        let narrow = lines(words, 60);
        let too_long = |line: &&String| line.chars().count() > 60 && !line.trim_start().starts_with("p2psync folder");
        assert_eq!(narrow.iter().find(too_long), None, "{words:?}");
        let wide = lines(&["folder", "accept", "Musik"], 120);
        assert!(wide.len() <= 2, "{wide:?}");
    }
    let narrow = lines(&["folder", "accept"], 48);
    assert!(narrow.contains(&"p2psync folder share FOLDER --peer NAME".to_owned()), "{narrow:?}");
}

#[test]
fn an_agent_on_a_terminal_has_a_live_line_and_whole_lines_of_log_above_it() {
    let world = World::new();
    let a = world.agent("a");
    let mut terminal = Terminal::start(&a, &["run"], &[], (100, 30));
    terminal.wait_for("listening for other devices");
    terminal.wait_for("Shared: ");
    a.write("notes.txt", "some notes");
    terminal.signal(Signal::TERM);
    assert!(terminal.wait_end().success());
    terminal.wait_for("stopping");
    // The live line is wiped before something is written in its place.
    let torn =
        terminal.seen().split(['\n', '\r']).any(|line| line.contains("INFO") && line.contains("Shared: no other"));
    assert!(!torn, "{}", terminal.seen().escape_debug());
}
