//! Unison: a server beside the receiving directory, and a client for every time something is brought over.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::WORK_BOUND;
use super::process::{self, Meter, Process};
use crate::measure::Cost;

/// How closely modification times are compared.
const TIME_STEP_SECONDS: u64 = 2;

pub struct Link {
    server: Process,
    port: u16,
    places: PathBuf,
    from: PathBuf,
    to: PathBuf,
}

impl Link {
    pub fn new(places: &Path, from: &Path, to: &Path) -> anyhow::Result<Link> {
        for side in ["client", "server"] {
            fs::create_dir(places.join(side)).with_context(|| format!("cannot make {side}'s own directory"))?;
        }
        let [port] = process::free_ports()?;
        let mut command = process::command("unison", &places.join("server"));
        command.env("UNISON", places.join("server").join("archives"));
        command.args(["-socket", &port.to_string(), "-listen", "127.0.0.1", "-ui", "text"]);
        let mut server = Process::start(&mut command, &places.join("server.log"))?;
        server.wait_for_port(port).context("unison's server")?;
        Ok(Link { server, port, places: places.to_owned(), from: from.to_owned(), to: to.to_owned() })
    }

    /// Unison works in both directions; nothing is forced, since only `from` has changed.
    ///
    /// It does not count its bytes, and keeps the modification times of files only, not those of directories. It does
    /// not see a change that keeps length and modification time in steps of two seconds, so this returns only when the
    /// next such step has begun. That is not counted.
    pub fn bring_over(&mut self) -> anyhow::Result<Cost> {
        self.server.ensure_running()?;
        let mut target = OsString::from(format!("socket://127.0.0.1:{}/", self.port));
        target.push(&self.to);
        let mut command = process::command("unison", &self.places.join("client"));
        command.env("UNISON", self.places.join("client").join("archives"));
        command.arg(&self.from).arg(target);
        command.args(["-batch", "-auto", "-ui", "text", "-silent", "-confirmbigdel=false", "-times"]);
        command.args(["-ignore", "Path .p2psync", "-ignore", "Path .stfolder", "-ignore", "Path .stignore"]);

        let mut meter = Meter::start(&[self.server.pid()])?;
        let began = Instant::now();
        let mut client = Process::start(&mut command, &self.places.join("client.log"))?;
        let (ended, status) = meter.run(&mut client, WORK_BOUND)?;
        // The status also tells of a single file that was left out.
        ensure!(status.success(), "unison ended with {status}: {}", client.said());
        self.server.ensure_running()?;
        let cost = meter.finish((ended - began).as_secs_f64(), None)?;
        process::wait_for_multiple_of(TIME_STEP_SECONDS);
        Ok(cost)
    }
}
