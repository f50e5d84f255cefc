//! Processes of other tools: how they are started, watched, measured and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::START_BOUND;
use crate::measure::Cost;

/// Longest time between the polite signal and the other one.
const END_BOUND: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Modification times come from a clock that the kernel moves on only so often.
const FILE_CLOCK_LAG: Duration = Duration::from_millis(20);
/// The unit of times in `/proc`, the same on all machines that matter.
const TICKS_PER_SECOND: f64 = 100.0;
const KIB_BYTES: u64 = 1024;
/// How much of the end of a log is shown with an error.
const LOG_TAIL_BYTES: u64 = 2000;

/// A command that sees nothing of the user's settings and keeps its own files in `places`.
pub fn command(program: &str, places: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(places);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR"] {
        command.env(variable, places);
    }
    command
}

/// As many different ports as asked for that nothing listens on.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut ports = [0; N];
    // All are held until the last is found, or the same one might come twice.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Asks until the answer is yes or the bound is over.
pub fn wait_until(what: &str, bound: Duration, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > bound {
            bail!("waited {} s in vain: {what}", bound.as_secs());
        }
        thread::sleep(LOOK_PAUSE);
    }
    Ok(())
}

/// Waits until a time that is a whole multiple of so many seconds.
///
/// A tool that looks at modification times no closer than that takes a file of the same length, changed twice between
/// two such times, as unchanged. It would look fast and have done nothing.
pub fn wait_for_multiple_of(seconds: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let next = Duration::from_secs((now.as_secs() / seconds + 1) * seconds);
    thread::sleep(next.saturating_sub(now) + FILE_CLOCK_LAG);
}

/// A process that writes what it says to a file, and does not outlive this value. Nor do its descendants.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Waits until the process listens on a port of the loopback address, without connecting to it.
    pub fn wait_for_port(&mut self, port: u16) -> anyhow::Result<()> {
        let local = format!("0100007F:{port:04X}");
        wait_until(&format!("port {port} is not listened on"), START_BOUND, || {
            self.ensure_running()?;
            let table = fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
            let is_listening = |line: &str| {
                let mut fields = line.split_whitespace();
                fields.nth(1) == Some(local.as_str()) && fields.nth(1) == Some("0A")
            };
            Ok(table.lines().any(is_listening))
        })?;
        // Somebody else may have been faster to take the port.
        self.ensure_running()
    }

    /// An error with the end of the log where the process is no more.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("ended early with {status}: {}", self.said()),
            None => Ok(()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what the process has said.
    pub fn said(&self) -> String {
        let mut tail = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let start = file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES)));
            // What can't be read is only missing from a message.
            let _ = start.and_then(|_| file.take(LOG_TAIL_BYTES).read_to_end(&mut tail));
        }
        String::from_utf8_lossy(&tail).trim().to_owned()
    }

    fn end(&mut self) {
        let family = descendants(self.pid());
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.pid(), Signal::TERM);
            if wait_until("", END_BOUND, || Ok(self.child.try_wait()?.is_some())).is_err() {
                signal(self.pid(), Signal::KILL);
            }
            // Nothing survives that signal, and a process that can't be waited for is gone.
            let _ = self.child.wait();
        }
        // A process with the same number and start is the same process.
        let is_left = |(pid, start): &(u32, u64)| stat(*pid).is_some_and(|stat| stat.start == *start && stat.is_alive);
        for kind in [Signal::TERM, Signal::KILL] {
            family.iter().filter(|one| is_left(one)).for_each(|(pid, _)| signal(*pid, kind));
            let _ = wait_until("", END_BOUND, || Ok(!family.iter().any(is_left)));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Measures what processes and their descendants use, from one moment on.
pub struct Meter {
    /// Each process that ran before, with the ticks that it had used then.
    agents: Vec<(u32, u64)>,
    client_ticks: u64,
    peaks: BTreeMap<u32, u64>,
    /// Every process that was looked at, with whether it belongs to ours.
    seen: BTreeMap<u32, bool>,
}

impl Meter {
    /// Starts to measure processes that run already.
    pub fn start(agents: &[u32]) -> anyhow::Result<Meter> {
        let mut meter = Meter { agents: Vec::new(), client_ticks: 0, peaks: BTreeMap::new(), seen: BTreeMap::new() };
        meter.seen.extend(all_pids().into_iter().map(|pid| (pid, false)));
        for &agent in agents {
            meter.agents.push((agent, family_ticks(agent)?));
            for pid in descendants(agent).into_iter().map(|(pid, _)| pid).chain([agent]) {
                // Makes the kernel forget the peak so far. Where that is forbidden the peak is that since the start.
                let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
                meter.seen.insert(pid, true);
            }
        }
        Ok(meter)
    }

    /// Runs a process to its end, well or not, and gives the time when it ended.
    pub fn run(&mut self, client: &mut Process, bound: Duration) -> anyhow::Result<(Instant, ExitStatus)> {
        let began = Instant::now();
        self.seen.insert(client.pid(), true);
        let id = Pid::from_child(&client.child);
        let (ended, end) = mpsc::channel();
        // A thread of its own notices the end at once, and leaves the dead process for the last look at its times.
        thread::spawn(move || {
            let result = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            // Nobody listens any more once the bound is over.
            let _ = ended.send(result.map(|_| Instant::now()));
        });
        let at = loop {
            self.look();
            // Often enough for a peak, and seldom enough not to be a cost itself.
            let pause = (began.elapsed() / 50).clamp(Duration::from_millis(2), Duration::from_millis(50));
            match end.recv_timeout(pause) {
                Ok(at) => break at.context("cannot wait for a process")?,
                Err(RecvTimeoutError::Timeout) if began.elapsed() < bound => {}
                Err(_) => bail!("not done after {} s: {}", bound.as_secs(), client.said()),
            }
        };
        self.client_ticks += family_ticks(client.pid())?;
        Ok((at, client.child.wait()?))
    }

    /// Waits until no agent has a process for a connection any more, so that their times are all counted.
    pub fn wait_for_connections(&mut self) -> anyhow::Result<()> {
        wait_until("a connection's process still runs", START_BOUND, || {
            self.look();
            Ok(self.agents.iter().all(|(agent, _)| descendants(*agent).is_empty()))
        })
    }

    /// What was used since the start.
    pub fn finish(mut self, seconds: f64, wire_bytes: Option<u64>) -> anyhow::Result<Cost> {
        self.look();
        let mut used = self.client_ticks;
        for (agent, before) in &self.agents {
            used += family_ticks(*agent)?.saturating_sub(*before);
        }
        let cpu_seconds = used as f64 / TICKS_PER_SECOND;
        let peak_bytes = self.peaks.values().copied().max().unwrap_or(0);
        Ok(Cost { seconds, cpu_seconds, peak_bytes, wire_bytes, flush_seconds: None })
    }

    /// Finds new descendants and notes the peaks of all.
    fn look(&mut self) {
        for pid in all_pids() {
            if !self.seen.contains_key(&pid) {
                let parent = stat(pid).map(|stat| stat.parent);
                let is_ours = parent.and_then(|parent| self.seen.get(&parent).copied()).unwrap_or(false);
                self.seen.insert(pid, is_ours);
            }
        }
        for (&pid, _) in self.seen.iter().filter(|(_, is_ours)| **is_ours) {
            let peak = self.peaks.entry(pid).or_default();
            *peak = (*peak).max(resident_peak_bytes(pid).unwrap_or(0));
        }
    }
}

/// What is of interest in `/proc/<pid>/stat`.
struct Stat {
    is_alive: bool,
    parent: u32,
    /// Of the process and of the children that it has waited for.
    ticks: u64,
    /// When it started, in ticks since boot.
    start: u64,
}

/// None where the process is gone.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets and spaces as well.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    let is_alive = !matches!(*fields.first()?, "Z" | "X");
    Some(Stat { is_alive, parent: number(1)?.try_into().ok()?, ticks, start: number(19)? })
}

fn all_pids() -> Vec<u32> {
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // Parents come before their children.
    pids.sort_unstable();
    pids
}

/// The descendants of a process, each with its start.
fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let mut family = BTreeSet::from([pid]);
    let mut found = Vec::new();
    for (one, stat) in all_pids().into_iter().filter_map(|one| Some((one, stat(one)?))) {
        if family.contains(&stat.parent) && family.insert(one) {
            found.push((one, stat.start));
        }
    }
    found
}

/// Ticks used by a process, dead or alive but not yet waited for, and by all its descendants.
fn family_ticks(pid: u32) -> anyhow::Result<u64> {
    let own = stat(pid).with_context(|| format!("process {pid} is gone"))?.ticks;
    let others = descendants(pid).into_iter().filter_map(|(pid, _)| stat(pid)).map(|stat| stat.ticks);
    Ok(own + others.sum::<u64>())
}

fn resident_peak_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * KIB_BYTES)
}
