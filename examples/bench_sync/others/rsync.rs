//! rsync: a daemon that owns the receiving directory, and a client for every time something is brought over.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::process::{getgid, getuid};

use super::WORK_BOUND;
use super::process::{self, Meter, Process};
use crate::measure::Cost;

/// How closely modification times are compared.
const TIME_STEP_SECONDS: u64 = 1;

pub struct Link {
    daemon: Process,
    port: u16,
    places: PathBuf,
    from: PathBuf,
}

impl Link {
    pub fn new(places: &Path, from: &Path, to: &Path) -> anyhow::Result<Link> {
        let [port] = process::free_ports()?;
        let settings = places.join("rsyncd.conf");
        fs::write(&settings, daemon_settings(to)?).context("cannot write rsyncd.conf")?;
        let mut command = process::command("rsync", places);
        command.args(["--daemon", "--no-detach", "--address", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--log-file").arg(places.join("rsyncd.log")).arg("--config").arg(&settings);
        let mut daemon = Process::start(&mut command, &places.join("daemon.log"))?;
        daemon.wait_for_port(port).context("rsync's daemon")?;
        Ok(Link { daemon, port, places: places.to_owned(), from: from.to_owned() })
    }

    /// Default options besides `-a --delete`: where source and target are on two sides of a socket, rsync sends deltas.
    ///
    /// It does not see a change that keeps length and modification time in whole seconds, so this returns only when
    /// the next second has begun. That is not counted.
    pub fn bring_over(&mut self) -> anyhow::Result<Cost> {
        self.daemon.ensure_running()?;
        let log = self.places.join("client.log");
        let mut source = OsString::from(&self.from);
        source.push("/");
        let mut command = process::command("rsync", &self.places);
        command.args([
            "-a",
            "--delete",
            "--exclude=/.p2psync",
            "--exclude=/.stfolder",
            "--exclude=/.stignore",
            "--stats",
        ]);
        command.arg(source).arg(format!("rsync://127.0.0.1:{}/m/", self.port));

        let mut meter = Meter::start(&[self.daemon.pid()])?;
        let began = Instant::now();
        let mut client = Process::start(&mut command, &log)?;
        let (ended, status) = meter.run(&mut client, WORK_BOUND)?;
        ensure!(status.success(), "rsync ended with {status}: {}", client.said());
        // The last process of the connection may end after the client, when all has been written.
        meter.wait_for_connections()?;
        let wire_bytes = wire_bytes(&fs::read_to_string(&log)?).context("rsync's statistics are not as expected")?;
        let cost = meter.finish((ended - began).as_secs_f64(), Some(wire_bytes))?;
        process::wait_for_multiple_of(TIME_STEP_SECONDS);
        Ok(cost)
    }
}

/// One module for the receiving directory, open to this machine, with the user's own rights.
fn daemon_settings(to: &Path) -> anyhow::Result<String> {
    let to = to.to_str().filter(|to| !to.contains(['%', '\n'])).context("rsync's settings cannot hold that path")?;
    let mut settings = String::from("use chroot = no\nmunge symlinks = no\nreverse lookup = no\n");
    settings += &format!("[m]\npath = {to}\nread only = no\nhosts allow = 127.0.0.1\n");
    if getuid().is_root() {
        // Otherwise the daemon would become somebody else.
        settings += &format!("uid = {}\ngid = {}\n", getuid().as_raw(), getgid().as_raw());
    }
    Ok(settings)
}

/// Bytes in both directions, from what `--stats` prints: `Total bytes sent: 1,234`.
fn wire_bytes(stats: &str) -> Option<u64> {
    let count = |name: &str| {
        let digits = stats.lines().find_map(|line| line.strip_prefix(name))?;
        digits.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().ok()
    };
    Some(count("Total bytes sent:")? + count("Total bytes received:")?)
}
