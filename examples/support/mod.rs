//! Devices for the examples: an agent as a process of its own, with a home and a folder.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use p2psync::api::{Reply, Request, Status, client};
use p2psync::home::Home;
use rustix::process::{Pid, Signal};

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Longest time for an agent to answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// One device: a home, a folder, and an agent while it runs.
pub struct Device {
    pub name: String,
    pub folder: PathBuf,
    pub home: PathBuf,
    pub listen: String,
    pub id: String,
    program: PathBuf,
    agent: Option<Child>,
}

impl Device {
    /// Makes a device with an identity and a shared folder. `config` is added to its config file.
    pub fn new(program: &Path, places: &Path, name: &str, config: &str) -> anyhow::Result<Self> {
        let (home, folder) = (places.join(name).join("home"), places.join(name).join("folder"));
        fs::create_dir_all(&home)?;
        let config = format!("name = \"{name}\"\n\n[network]\nmulticast = false\n\n{config}");
        fs::write(home.join("config.toml"), config)?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let program = program.to_owned();
        let mut device = Self { name: name.to_owned(), program, home, folder, listen, id: String::new(), agent: None };
        device.id = device.command(&["id"])?.trim().to_owned();
        device.command(&["folder", "add", &path_text(&device.folder), "--id", "shared", "--label", "Shared"])?;
        Ok(device)
    }

    /// Tells both devices of each other.
    pub fn pair(one: &Device, other: &Device) -> anyhow::Result<()> {
        one.meet(other, &other.listen)?;
        other.meet(one, &one.listen)
    }

    /// Tells this device of another, which it reaches at an address.
    pub fn meet(&self, other: &Device, address: &str) -> anyhow::Result<()> {
        self.command(&["peer", "add", &other.id, "--name", &other.name, "--address", address]).map(|_| ())
    }

    fn prepared(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env("P2PSYNC_HOME", &self.home).env("P2PSYNC_LISTEN", &self.listen);
        command
    }

    /// Runs a command as it is typed on this device, and gives what it prints.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.prepared(words).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: p2psync {}: {errors}", self.name, words.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the running agent says.
    pub fn status(&self) -> anyhow::Result<Status> {
        let home = Home::find(Some(&self.home))?;
        match client::ask(&home, &Request::Status, ANSWER_TIME)? {
            Reply::Status(status) => Ok(status),
            other => bail!("an answer to another question: {other:?}"),
        }
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.home.join("log"))?;
        self.agent = Some(self.prepared(&["run"]).stdout(Stdio::null()).stderr(log).spawn()?);
        wait("the agent runs", ANSWER_TIME, || Ok(self.status().is_ok_and(|s| s.running)))
    }

    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut agent) = self.agent.take() {
            rustix::process::kill_process(pid_of(&agent)?, Signal::TERM)?;
            agent.wait()?;
        }
        Ok(())
    }

    /// The running agent's process.
    pub fn pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot stop {}: {error:#}", self.name);
        }
    }
}

fn pid_of(agent: &Child) -> anyhow::Result<Pid> {
    i32::try_from(agent.id()).ok().and_then(Pid::from_raw).context("a process has an id")
}

/// Looks again and again until it is so.
pub fn wait(what: &str, bound: Duration, mut look: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !look()? {
        if start.elapsed() > bound {
            bail!("waited {} seconds in vain: {what}", bound.as_secs());
        }
        thread::sleep(LOOK_PAUSE);
    }
    Ok(())
}

/// The `p2psync` program beside this example; cargo builds it where it is missing.
pub fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(Path::parent).context("the example lies in target/PROFILE/examples")?;
    let program = profile.join(format!("p2psync{}", std::env::consts::EXE_SUFFIX));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--bin", "p2psync", "--manifest-path"]).arg(manifest);
    // What cargo set for this example would look like a change to it, and all would be built anew.
    let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO") || text == "LD_LIBRARY_PATH") && !kept.contains(&text.as_ref()) {
            build.env_remove(&name);
        }
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // Also where there is one: it may be older than the sources.
    match build.status() {
        Ok(status) if status.success() && program.exists() => Ok(program),
        _ if program.exists() => Ok(program),
        other => bail!("cannot build {}: {other:?}", program.display()),
    }
}

pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Bytes that cannot be compressed; others for another seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
