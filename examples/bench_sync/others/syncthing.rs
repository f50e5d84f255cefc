//! Syncthing: two agents that know only each other, and one folder that they share.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::http::Api;
use super::process::{self, Meter, Process};
use super::{START_BOUND, WORK_BOUND};
use crate::measure::Cost;

const FOLDER: &str = "bench";
/// Seconds between scans that nobody asked for: longer than any measurement, so that none gets in the way.
const RESCAN_S: u64 = 7 * 24 * 3600;
/// The version of the settings' format that is written. Later programs know how to read it.
const SETTINGS_VERSION: u32 = 36;

pub struct Link {
    source: Agent,
    target: Agent,
    is_paused: bool,
}

struct Agent {
    process: Process,
    api: Api,
    listen: String,
    id: String,
}

impl Link {
    pub fn new(places: &Path, from: &Path, to: &Path) -> anyhow::Result<Link> {
        let [source_api, source_listen, target_api, target_listen] = process::free_ports()?;
        let source = Agent::start(places, "source", source_api, source_listen)?;
        let target = Agent::start(places, "target", target_api, target_listen)?;
        // Where another tool keeps files of its own, these are no part of the work.
        let has_others = [from, to].iter().any(|directory| directory.join(".p2psync").exists());
        for (agent, other, directory) in [(&source, &target, from), (&target, &source, to)] {
            let directory = directory.to_str().context("syncthing's settings cannot hold that path")?;
            agent.introduce(other)?;
            agent.add_folder(other, directory)?;
            if has_others {
                let ignores = json!({ "ignore": ["/.p2psync"] });
                agent.api.send("POST", &format!("/rest/db/ignores?folder={FOLDER}"), &ignores, START_BOUND)?;
            }
        }
        let mut link = Link { source, target, is_paused: true };
        process::wait_until("syncthing's agents do not meet", START_BOUND, || link.are_connected())?;
        Ok(link)
    }

    /// Asks for a scan at once, so that the watcher's delay is not counted, and waits until nothing is needed.
    pub fn bring_over(&mut self) -> anyhow::Result<Cost> {
        ensure!(self.are_connected()?, "syncthing's agents have lost each other");
        let meter = Meter::start(&[self.source.process.pid(), self.target.process.pid()])?;
        let wire_before = self.source.wire_bytes()?;
        let began = Instant::now();
        let mut scan = format!("/rest/db/scan?folder={FOLDER}");
        if self.is_paused {
            for agent in [&self.target, &self.source] {
                let path = format!("/rest/config/folders/{FOLDER}");
                agent.api.send("PATCH", &path, &json!({ "paused": false }), START_BOUND)?;
            }
            self.is_paused = false;
            // A folder that starts scans all. This scan of nothing only waits for that one.
            scan += "&sub=.stfolder";
        }
        self.source.api.send("POST", &scan, &Value::Null, WORK_BOUND)?;
        while !self.is_complete()? {
            if began.elapsed() > WORK_BOUND {
                bail!("not done after {} s: {}", WORK_BOUND.as_secs(), self.target.status()?);
            }
            // Often enough for a time that is right to 2 %, and seldom enough not to be a cost itself.
            thread::sleep((began.elapsed() / 50).clamp(Duration::from_millis(5), Duration::from_millis(250)));
        }
        let seconds = began.elapsed().as_secs_f64();
        let wire_bytes = self.source.wire_bytes()?.saturating_sub(wire_before);
        meter.finish(seconds, Some(wire_bytes))
    }

    /// True when the target has told the source that it has all, and by its own account knows all and needs nothing.
    ///
    /// Once the source's scan has ended, what it found counts as needed until the target has told that it has it. This
    /// holds only after the target has told anything at all: before that the source takes it to need nothing.
    fn is_complete(&mut self) -> anyhow::Result<bool> {
        self.source.process.ensure_running()?;
        self.target.process.ensure_running()?;
        let path = format!("/rest/db/completion?folder={FOLDER}&device={}", self.target.id);
        let completion = self.source.api.get(&path, START_BOUND)?;
        if sum(&completion, &["needItems", "needDeletes", "needBytes"])? > 0 {
            return Ok(false);
        }
        let (source, target) = (self.source.status()?, self.target.status()?);
        let mut is_empty = true;
        for kind in ["Files", "Directories", "Symlinks", "Bytes"] {
            let has = sum(&source, &[&format!("local{kind}")])?;
            let is_known = sum(&target, &[&format!("global{kind}")])? == has;
            if !is_known || sum(&target, &[&format!("need{kind}")])? > 0 {
                return Ok(false);
            }
            is_empty &= has == 0;
        }
        let has_told = is_empty || sum(&completion, &["sequence"])? > 0;
        Ok(has_told && sum(&target, &["needDeletes"])? == 0)
    }

    fn are_connected(&mut self) -> anyhow::Result<bool> {
        self.source.process.ensure_running()?;
        self.target.process.ensure_running()?;
        for (agent, other) in [(&self.source, &self.target.id), (&self.target, &self.source.id)] {
            let connections = agent.api.get("/rest/system/connections", START_BOUND)?;
            if connections["connections"][other.as_str()]["connected"] != true {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Agent {
    fn start(places: &Path, name: &str, api_port: u16, listen_port: u16) -> anyhow::Result<Agent> {
        let home = places.join(name);
        fs::create_dir(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let api = Api { port: api_port, key: secret()? };
        let listen = format!("tcp://127.0.0.1:{listen_port}");
        // Written before the first start, or the agent would announce itself to the world until it is told not to.
        fs::write(home.join("config.xml"), settings(&api, &listen)).context("cannot write config.xml")?;
        let mut command = process::command("syncthing", &home);
        command.args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--home"]).arg(&home);
        let mut process = Process::start(&mut command, &places.join(format!("{name}.log")))?;
        process.wait_for_port(api_port).with_context(|| format!("syncthing's {name}"))?;
        // The port may be open a moment before everything behind it is there.
        process::wait_until("syncthing's API does not answer", START_BOUND, || {
            process.ensure_running()?;
            Ok(api.get("/rest/system/ping", START_BOUND).is_ok_and(|answer| answer["ping"] == "pong"))
        })?;
        let status = api.get("/rest/system/status", START_BOUND)?;
        let id = status["myID"].as_str().context("syncthing does not tell its id")?.to_owned();
        Ok(Agent { process, api, listen, id })
    }

    fn introduce(&self, other: &Agent) -> anyhow::Result<()> {
        let device = json!({ "deviceID": other.id, "name": "other", "addresses": [other.listen] });
        self.api.send("POST", "/rest/config/devices", &device, START_BOUND)
    }

    fn add_folder(&self, other: &Agent, directory: &str) -> anyhow::Result<()> {
        let folder = json!({
            "id": FOLDER,
            "path": directory,
            "type": "sendreceive",
            "rescanIntervalS": RESCAN_S,
            "paused": true,
            "devices": [{ "deviceID": self.id }, { "deviceID": other.id }],
        });
        self.api.send("POST", "/rest/config/folders", &folder, START_BOUND)
    }

    fn status(&self) -> anyhow::Result<Value> {
        self.api.get(&format!("/rest/db/status?folder={FOLDER}"), START_BOUND)
    }

    /// Bytes in both directions over all connections so far.
    fn wire_bytes(&self) -> anyhow::Result<u64> {
        let connections = self.api.get("/rest/system/connections", START_BOUND)?;
        sum(&connections["total"], &["inBytesTotal", "outBytesTotal"])
    }
}

/// Nothing leaves this machine, and nothing is asked or reported. All else is as it comes.
fn settings(api: &Api, listen: &str) -> String {
    let off = ["globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "startBrowser"];
    let mut options: String = off.iter().map(|name| format!("<{name}>false</{name}>\n")).collect();
    options += "<crashReportingEnabled>false</crashReportingEnabled>\n<urAccepted>-1</urAccepted>\n";
    options += "<autoUpgradeIntervalH>0</autoUpgradeIntervalH>\n<stunKeepaliveStartS>0</stunKeepaliveStartS>\n";
    format!(
        "<configuration version=\"{SETTINGS_VERSION}\">\n\
         <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:{}</address><apikey>{}</apikey></gui>\n\
         <options>\n<listenAddress>{listen}</listenAddress>\n{options}</options>\n</configuration>\n",
        api.port, api.key
    )
}

/// A key that others on this machine don't know.
fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds up numbers of an answer. One that is missing is an error, or all would look complete.
fn sum(answer: &Value, names: &[&str]) -> anyhow::Result<u64> {
    let number = |name: &&str| answer[*name].as_u64().with_context(|| format!("syncthing does not tell {name}"));
    names.iter().map(number).sum()
}
