//! Disks that make trouble, for the tests beside this file: mounts that nobody else sees, states to wait for.
//!
//! What is mounted here is in a mount namespace of the test's own thread, which its agents inherit. So it goes away
//! with them, whatever happens.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use p2psync::api::{FolderState, ProblemItem};
use rustix::thread::UnshareFlags;

use crate::harness::{Agent, World, introduce, wait_connected, wait_until};
use crate::tree;

/// A user without rights, as most systems call it "nobody".
pub const NOBODY: u32 = 65534;

/// Says on the terminal, past the capture of a test's output, that a test does not take place.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Runs a test on a thread with mounts of its own; skips it where the system does not let it have them.
pub fn with_mounts(test: &str, body: impl FnOnce() + Send) {
    let run = || match own_mounts() {
        Ok(()) => body(),
        Err(why) => skip(test, &format!("cannot mount anything here: {why}")),
    };
    let ended = thread::scope(|scope| {
        let named = thread::Builder::new().name(test.to_owned());
        named.spawn_scoped(scope, run).unwrap().join()
    });
    if let Err(panicked) = ended {
        panic::resume_unwind(panicked);
    }
}

fn own_mounts() -> Result<(), String> {
    // SAFETY: threads of a process may differ in their mounts and in their working directory; this one opens no file
    // that another closes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|e| format!("no mount namespace: {e}"))?;
    run("mount", &["--make-rprivate", "/"])?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    run("mount", &["-t", "tmpfs", "none", dir.path().to_str().unwrap()])?;
    run("umount", &[dir.path().to_str().unwrap()])
}

/// Runs a tool of the system; what it says where it fails.
pub fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Something mounted, until it is dropped.
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    /// Mounts with these words before the place.
    pub fn new(words: &[&str], at: &Path) -> Self {
        let place = at.to_str().unwrap();
        run("mount", &[words, &[place]].concat()).unwrap();
        Self { at: at.to_owned() }
    }

    /// A file system in memory with these options over a directory, whose files it gets.
    pub fn memory(options: &str, over: &Path) -> Self {
        let kept = tempfile::tempdir().unwrap();
        copy_all(over, kept.path());
        let mount = Self::new(&["-t", "tmpfs", "-o", options, "none"], over);
        copy_all(kept.path(), over);
        mount
    }

    /// Changes the options.
    pub fn set(&self, options: &str) {
        wait_until(&format!("{} is mounted with {options}", self.at.display()), || {
            run("mount", &["-o", &format!("remount,{options}"), self.at.to_str().unwrap()])
        });
    }

    /// Unmounts what nobody uses any more.
    pub fn end(self) {
        wait_until(&format!("{} is unmounted", self.at.display()), || run("umount", &[self.at.to_str().unwrap()]));
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", self.at.to_str().unwrap()]);
    }
}

pub fn copy_all(from: &Path, to: &Path) {
    run("cp", &["-a", &format!("{}/.", from.to_str().unwrap()), to.to_str().unwrap()]).unwrap();
}

/// Two agents that know each other, not started.
pub fn strangers(world: &World) -> (Agent, Agent) {
    let (a, b) = (world.agent("a"), world.agent("b"));
    introduce(&a, &b);
    (a, b)
}

pub fn start(a: &mut Agent, b: &mut Agent) {
    a.start();
    b.start();
    wait_connected(a, b);
}

/// Gives an agent that does not run, with all that it has, to a user without rights. False where that user can't even
/// run the program, which is said.
pub fn give_to_nobody(test: &str, world: &World, agent: &mut Agent) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    run("chmod", &["711", world.path(".").to_str().unwrap()]).unwrap();
    run("chown", &["-R", &format!("{NOBODY}:{NOBODY}"), agent.base.to_str().unwrap()]).unwrap();
    agent.user = Some(NOBODY);
    let is_able = agent.command(&["--version"]).output().is_ok_and(|o| o.status.success());
    if !is_able {
        skip(test, "another user cannot run the program where it lies");
    }
    is_able
}

/// Writes a file that belongs to the agent's user.
pub fn write_own(agent: &Agent, path: &str, bytes: impl AsRef<[u8]>) {
    agent.write(path, bytes);
    if let Some(user) = agent.user {
        let below = Path::new(path);
        for part in below.ancestors().filter(|p| !p.as_os_str().is_empty()) {
            chown(agent.root.join(part), Some(user), Some(user)).unwrap();
        }
    }
}

/// Waits until a file has arrived with these bytes.
pub fn wait_file(agent: &Agent, path: &str, bytes: &[u8]) {
    wait_until(&format!("{} has {path}", agent.name), || match fs::read(agent.at(path)) {
        Ok(found) if found == bytes => Ok(()),
        Ok(found) => Err(format!("{} other bytes", found.len())),
        Err(error) => Err(error.to_string()),
    });
}

pub fn wait_gone(agent: &Agent, path: &str) {
    wait_until(&format!("{} has no {path} any more", agent.name), || match fs::symlink_metadata(agent.at(path)) {
        Ok(_) => Err("still there".to_owned()),
        Err(_) => Ok(()),
    });
}

/// Waits until the agent tells of a problem with a path, in these words.
pub fn wait_problem(agent: &Agent, path: &str, kind: &str, words: &str) -> ProblemItem {
    let problem = wait_until(&format!("{} tells of {path}", agent.name), || {
        let folder = agent.folder()?;
        let found = folder.problems.into_iter().find(|p| p.path == path && p.kind == kind);
        found.ok_or_else(|| format!("{:?}: {}", folder.state, folder.state_text))
    });
    assert!(problem.text.contains(words), "{}", problem.text);
    let status = agent.path_status(&agent.at(path));
    let said = status.explanation.join(" ");
    assert!(said.to_lowercase().contains(&words.to_lowercase()), "status of {path}: {said}");
    problem
}

/// Waits until the folder has stopped itself; why.
pub fn wait_halted(agent: &Agent) -> String {
    wait_until(&format!("{} halts", agent.name), || {
        let folder = agent.folder()?;
        let is_halted = folder.state == FolderState::Halted;
        if is_halted { Ok(folder.state_text) } else { Err(format!("{:?}: {}", folder.state, folder.state_text)) }
    })
}

/// Contents of all files in history.
pub fn history(agent: &Agent) -> Vec<Vec<u8>> {
    let dir = agent.root.join(".p2psync/history");
    let files = tree::nodes(&dir).unwrap().into_iter().filter(|(_, node)| node.kind == "file");
    files.map(|(path, _)| tree::read_below(&dir, &path).unwrap()).collect()
}
