//! Agents as child processes, each with a home, a folder and a port of its own.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use p2psync::api::{ConflictItem, FolderState, FolderStatus, PathStatus, PeerStatus, Status};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::tree;

/// Longest time for anything to happen; what is right happens much sooner.
pub const BOUND: Duration = Duration::from_secs(60);
/// Shortest and longest pause between two looks.
const LOOK_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];
/// Worlds that exist at once: agents of more tests would only slow each other down.
const WORLDS_MAX: usize = 2;
/// The id of the folder that all agents of a world share.
pub const FOLDER: &str = "e2e";
/// What a file's worth of index traffic stays below, in bytes: no content has crossed the wire.
pub const TALK_BYTES_MAX: u64 = 64 * 1024;
/// Last bytes of an agent's log that a failure shows.
const LOG_SHOWN_BYTES: usize = 6000;

static WORLDS: Mutex<usize> = Mutex::new(0);
static WORLD_ENDED: Condvar = Condvar::new();

/// A temporary directory with agents, for one test.
pub struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let running = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = WORLD_ENDED.wait_while(running, |n| *n >= WORLDS_MAX).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self { dir: tempfile::Builder::new().prefix("p2psync-e2e-").tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A device with an identity, a config without multicast, and the shared folder; not started.
    pub fn agent(&self, name: &str) -> Agent {
        self.agent_with(name, "")
    }

    /// The same with more lines for the config's `[sync]` section.
    pub fn agent_with(&self, name: &str, sync: &str) -> Agent {
        let agent = self.bare_agent(name);
        agent.write_config(&format!("name = \"{name}\"\n\n[network]\nmulticast = false\n\n[sync]\n{sync}\n"));
        agent.ok(&["folder", "add", agent.root.to_str().unwrap(), "--id", FOLDER, "--label", "Shared"]);
        agent
    }

    /// A device with nothing but places for its files.
    pub fn bare_agent(&self, name: &str) -> Agent {
        let base = self.path(name);
        fs::create_dir(&base).unwrap();
        let (home, root, log) = (base.join("home"), base.join("folder"), base.join("log"));
        let listen = format!("127.0.0.1:{}", free_port());
        Agent { name: name.to_owned(), base, home, root, log, listen, user: None, through: Vec::new(), child: None }
    }

    /// Two agents that know each other, running and connected.
    pub fn pair(&self) -> (Agent, Agent) {
        let (mut a, mut b) = (self.agent("a"), self.agent("b"));
        introduce(&a, &b);
        a.start();
        b.start();
        wait_connected(&a, &b);
        (a, b)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        *WORLDS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        WORLD_ENDED.notify_one();
    }
}

/// Adds each to the other's config.
pub fn introduce(a: &Agent, b: &Agent) {
    for (from, to) in [(a, b), (b, a)] {
        from.ok(&["peer", "add", &to.id(), "--name", &to.name, "--address", &to.listen]);
    }
}

/// Waits until both say that they are connected to each other.
pub fn wait_connected(a: &Agent, b: &Agent) {
    for (from, to) in [(a, b), (b, a)] {
        wait_until(&format!("{} is connected to {}", from.name, to.name), || {
            let peer = from.peer(to).map_err(|e| e.to_owned())?;
            if peer.connected { Ok(()) } else { Err("not connected".to_owned()) }
        });
    }
}

/// A port that nobody listens on, outside the range from which systems take ports for outgoing connections.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Looks again and again until `look` succeeds; its last error tells why it never did.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = LOOK_PAUSES[0];
    loop {
        match look() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > BOUND => panic!("waited {BOUND:?} in vain until {what}: {why}"),
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(LOOK_PAUSES[1]);
    }
}

/// Waits until the folders of all agents are the same in everything that is synced.
pub fn wait_same(agents: &[&Agent]) {
    let (first, rest) = agents.split_first().unwrap();
    for other in rest {
        wait_until(&format!("{} and {} hold the same", first.name, other.name), || {
            tree::compare(&first.root, &other.root)
        });
    }
}

/// Waits until the folders are the same, and every agent says so.
pub fn wait_settled(agents: &[&Agent]) {
    wait_same(agents);
    for agent in agents {
        wait_until(&format!("{} says that it is in sync", agent.name), || {
            let folder = agent.folder()?;
            let is_settled = folder.state == FolderState::InSync && folder.need_files == 0;
            if is_settled { Ok(()) } else { Err(format!("{:?}: {}", folder.state, folder.state_text)) }
        });
    }
    wait_same(agents);
}

/// One device.
pub struct Agent {
    pub name: String,
    /// Holds all the others; the user's home directory as far as the agent can tell.
    pub base: PathBuf,
    pub home: PathBuf,
    /// The shared folder.
    pub root: PathBuf,
    pub log: PathBuf,
    /// Address and port, the same over restarts.
    pub listen: String,
    /// The user whose processes it and its commands are, where it is not the one who runs the tests.
    pub user: Option<u32>,
    /// A program with its arguments that the agent is started by.
    pub through: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    /// The `p2psync` command as it acts on this device.
    pub fn command(&self, words: &[&str]) -> Command {
        self.dressed(Command::new(env!("CARGO_BIN_EXE_p2psync")), words)
    }

    /// A command with this device's surroundings.
    fn dressed(&self, mut command: Command, words: &[&str]) -> Command {
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(words).env("P2PSYNC_HOME", &self.home).env("HOME", &self.base).env_remove("RUST_LOG");
        command.env("P2PSYNC_LISTEN", &self.listen).current_dir(&self.base).stdin(Stdio::null());
        command
    }

    /// A line of shell on this device, which finds `p2psync` by its name.
    pub fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_p2psync")).parent().unwrap_or(Path::new("/"));
        let mut command = self.dressed(Command::new("sh"), &["-c", line]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", program.display())).env("NO_COLOR", "1");
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Output of a command that has to succeed.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: p2psync {}: {errors}", self.name, words.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that has to fail says.
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stdout);
        let is_failure = matches!(output.status.code(), Some(1..=4));
        assert!(is_failure, "{}: p2psync {} went well: {said}", self.name, words.join(" "));
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn id(&self) -> String {
        self.ok(&["id"]).trim().to_owned()
    }

    pub fn write_config(&self, text: &str) {
        fs::create_dir_all(&self.home).unwrap();
        fs::write(self.home.join("config.toml"), text).unwrap();
    }

    /// Starts the agent and waits until it has opened its folders.
    pub fn start(&mut self) {
        self.launch();
        wait_until(&format!("{} runs", self.name), || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("{} ended by itself: {status}", self.name);
            }
            let status = self.status()?;
            match (status.running, status.starting) {
                (false, _) => Err("no answer".to_owned()),
                (true, true) => Err("still starting".to_owned()),
                (true, false) => Ok(()),
            }
        });
    }

    /// Starts the agent's process.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "{} is running", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = match self.through.split_first() {
            None => self.command(&["run"]),
            Some((program, words)) => {
                let mut through = Command::new(program);
                through.args(words).arg(env!("CARGO_BIN_EXE_p2psync"));
                self.dressed(through, &["run"])
            }
        };
        if self.kill_file().exists() {
            command.env(p2psync::failpoint::VARIABLE, format!("@{}", self.kill_file().display()));
        }
        command.env("RUST_LOG", "p2psync=debug").stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: the closure makes one system call and nothing else.
        // Agents must not outlive a test run that is killed.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Says where a process of this agent is to be killed. Agents launched after the first order obey later ones too.
    pub fn kill_file(&self) -> PathBuf {
        self.base.join("kill")
    }

    /// Asks the agent to end, as a service manager would, and waits. Returns how and how soon it did.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().expect("a running agent");
        let start = Instant::now();
        signal(&child, Signal::TERM);
        let status = wait_until(&format!("{} ends", self.name), || {
            child.try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        });
        (status, start.elapsed())
    }

    /// Ends the agent without a warning.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running agent");
        signal(&child, Signal::KILL);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()), "{} ended before", self.name);
    }

    /// Waits for a process that was launched to end by itself.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a launched agent");
        wait_until(&format!("{} ends by itself", self.name), || {
            child.try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        })
    }

    /// How a process that was launched has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    /// Stops the agent where it is, as if its time stood still.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("a running agent"), Signal::STOP);
    }

    /// Process id of the running agent.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running agent").id()
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub fn status(&self) -> Result<Status, String> {
        self.json(&["status", "--json"])
    }

    /// Status of the shared folder.
    pub fn folder(&self) -> Result<FolderStatus, String> {
        self.folder_with_id(FOLDER)
    }

    pub fn folder_with_id(&self, id: &str) -> Result<FolderStatus, String> {
        let found = self.status()?.folders.into_iter().find(|f| f.id == id);
        found.ok_or_else(|| format!("{} has no folder {id}", self.name))
    }

    /// What this one says of another.
    pub fn peer(&self, other: &Agent) -> Result<PeerStatus, String> {
        let found = self.status()?.peers.into_iter().find(|p| p.name == other.name);
        found.ok_or_else(|| format!("{} has no peer {}", self.name, other.name))
    }

    /// Bytes received from all peers since the agent started.
    pub fn bytes_in(&self) -> u64 {
        self.status().unwrap().peers.iter().map(|p| p.bytes_in).sum()
    }

    pub fn path_status(&self, path: &Path) -> PathStatus {
        self.json(&["status", path.to_str().unwrap(), "--json"]).unwrap()
    }

    pub fn conflicts(&self) -> Vec<ConflictItem> {
        self.json(&["conflicts", "--json"]).unwrap()
    }

    fn json<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> Result<T, String> {
        let output = self.run(words);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("p2psync {}: {e}", words.join(" ")))
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file in the folder, with the directories above it.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at(path)).unwrap()
    }

    pub fn log_text(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            file.read_to_end(&mut bytes).unwrap();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            let status = self.run(&["status"]);
            let log = self.log_text();
            let cut = (log.len().saturating_sub(LOG_SHOWN_BYTES)..log.len()).find(|at| log.is_char_boundary(*at));
            eprintln!("---- {}: status\n{}", self.name, String::from_utf8_lossy(&status.stdout));
            eprintln!("---- {}: end of the log\n{}", self.name, &log[cut.unwrap_or(0)..]);
        }
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::KILL);
            drop(child.wait());
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    // The process has not been waited for, so its id cannot be another's.
    let _ = rustix::process::kill_process(pid, signal);
}
