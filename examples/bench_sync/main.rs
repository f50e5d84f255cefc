//! Measures p2psync on this machine, beside what the machine can do and beside other tools that are installed:
//! `cargo run --release --example bench_sync -- [WORKLOAD...]`
//!
//! Real agents run on loopback with homes of their own. Ratios within one run are what counts: absolute times change
//! from machine to machine, and from day to day.

mod data;
mod limits;
mod links;
mod measure;
mod namespaces;
mod others;
mod pair;
mod plot;
mod relay;
mod report;
mod scale;
mod special;
#[path = "../support/mod.rs"]
mod support;
mod work;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use measure::{Cost, Watch};
use others::Other;
use pair::{BOUND, Pair};
use report::Line;
use work::Work;

/// Pause between two looks for a change.
const LOOK_PAUSE: Duration = Duration::from_millis(3);

/// Measures how long p2psync takes to sync, and what that costs.
#[derive(Parser)]
struct Arguments {
    /// What to measure: big, small, tree, append, patch, insert, move, copy, dup, delete, latency, rescan, idle, swarm, far, lossy,
    /// lossy-cubic, churn, scale; all of them where none is named
    workloads: Vec<String>,
    /// Print one JSON object for each workload
    #[arg(long)]
    json: bool,
    /// Times that each is run; told are medians
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Makes the data smaller or larger
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where all files go; needs some room
    #[arg(long = "in")]
    dir: Option<PathBuf>,
    /// Compare only with these of rsync, unison and syncthing; "none" for none. Otherwise with all that are installed
    #[arg(long)]
    beside: Vec<String>,
    /// Leave out what the machine can do at best
    #[arg(long)]
    no_limits: bool,
    /// Where to draw a picture of how `scale` grows with the files, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// The `p2psync` to measure, in place of the one built from here
    #[arg(long)]
    program: Option<PathBuf>,
}

struct Bench {
    arguments: Arguments,
    program: PathBuf,
    dir: PathBuf,
    /// All that was made stays until the end: on ext4 files are created at a fraction of the usual speed where many were
    /// deleted just before, and whoever is measured second would pay for it.
    kept: RefCell<Vec<Arc<TempDir>>>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let program = arguments.program.clone().map_or_else(support::program, Ok)?;
    let dir = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let bench = Bench { arguments, program, dir, kept: RefCell::default() };
    for work in Work::ALL {
        if bench.is_wanted(work.name()) {
            bench.repeat(|| bench.work(work))?;
        }
    }
    if bench.is_wanted("latency") {
        for bytes in [4 << 10, 1 << 20, 100 << 20] {
            let edits = if bytes > 10 << 20 { 10 } else { 100 };
            bench.repeat(|| special::latency(&mut bench.pair()?, bytes, bench.scaled(edits) as usize))?;
        }
    }
    if bench.is_wanted("rescan") {
        for files in [200_000, 1_000_000] {
            bench.repeat(|| special::rescan(&mut bench.pair()?, bench.scaled(files)))?;
        }
    }
    if bench.is_wanted("idle") {
        bench.repeat(|| special::idle(&mut bench.pair()?))?;
    }
    if bench.is_wanted("swarm") {
        bench.repeat(|| links::swarm(&bench.program, &bench.dir, bench.scaled(256 << 20), 4))?;
    }
    if bench.is_wanted("far") {
        bench.repeat(|| links::far(&bench.program, &bench.dir, bench.scaled(64 << 20)))?;
    }
    if bench.is_wanted("lossy") {
        bench.repeat(|| links::lossy(&bench.program, &bench.dir, bench.scaled(64 << 20), None))?;
    }
    if bench.is_wanted("lossy-cubic") {
        bench.repeat(|| links::lossy(&bench.program, &bench.dir, bench.scaled(64 << 20), Some("cubic")))?;
    }
    if bench.is_wanted("churn") {
        bench.repeat(|| special::churn(&mut bench.pair()?))?;
    }
    if bench.is_wanted("scale") {
        bench.scale()?;
    }
    Ok(())
}

impl Bench {
    fn is_wanted(&self, name: &str) -> bool {
        self.arguments.workloads.is_empty() || self.arguments.workloads.iter().any(|w| w == name)
    }

    fn scaled(&self, number: u64) -> u64 {
        ((number as f64 * self.arguments.scale) as u64).max(1)
    }

    fn pair(&self) -> anyhow::Result<Pair> {
        let pair = Pair::new(&self.program, &self.dir)?;
        self.kept.borrow_mut().push(pair.places.clone());
        Ok(pair)
    }

    fn repeat(&self, mut run: impl FnMut() -> anyhow::Result<Line>) -> anyhow::Result<Option<Line>> {
        let runs = (0..self.arguments.runs).map(|_| run()).collect::<anyhow::Result<Vec<Line>>>()?;
        let line = Line::of_runs(runs);
        if let Some(line) = &line {
            if self.arguments.json { println!("{}", serde_json::to_string(line)?) } else { line.print() }
        }
        Ok(line)
    }

    fn scale(&self) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for files in scale::FILES.map(|files| self.scaled(files)) {
            lines.extend(self.repeat(|| scale::files(&mut Pair::new(&self.program, &self.dir)?, files))?);
        }
        if let Some(path) = &self.arguments.plot {
            fs::write(path, scale::picture(&lines))?;
        }
        for peers in scale::PEERS {
            self.repeat(|| scale::peers(&self.program, &self.dir, peers))?;
        }
        Ok(())
    }

    fn work(&self, work: Work) -> anyhow::Result<Line> {
        let mut line = Line::new(work.name(), work.what());
        self.ours(work, &mut line)?;
        for other in Other::ALL.into_iter().filter(|o| self.is_compared(*o)) {
            line.others.insert(other.name().to_owned(), self.other(work, other)?);
        }
        Ok(line)
    }

    fn is_compared(&self, other: Other) -> bool {
        let is_named = self.arguments.beside.iter().any(|name| name == other.name());
        (self.arguments.beside.is_empty() || is_named) && other.version().is_some()
    }

    /// The same work done by another tool, which is set up before the clock starts.
    fn other(&self, work: Work, other: Other) -> anyhow::Result<Cost> {
        let places = tempfile::Builder::new().prefix("bench-other-").tempdir_in(&self.dir)?;
        let places = Arc::new(places);
        self.kept.borrow_mut().push(places.clone());
        let at = |name: &str| made(&places.path().join(name));
        let (own, aside, from, to) = (at("own")?, at("aside")?, at("from")?, at("to")?);
        work.make(&from, self.arguments.scale)?;
        work.prepare(&from, &aside)?;
        limits::flush(places.path())?;
        let mut link = other.set_up(&own, &from, &to)?;
        let mut cost = link.bring_over()?;
        if !work.is_first_sync() {
            work.change(&from, &aside)?;
            cost = link.bring_over()?;
        }
        let start = std::time::Instant::now();
        limits::flush(&to)?;
        // rsync and Unison leave what they wrote to the system, which may lose it yet.
        if other != Other::Syncthing {
            cost.flush_seconds = Some(start.elapsed().as_secs_f64());
        }
        drop(link);
        data::is_same(&from, &to)?;
        Ok(cost)
    }

    fn ours(&self, work: Work, line: &mut Line) -> anyhow::Result<()> {
        let mut pair = self.pair()?;
        let aside = made(&pair.places.path().join("aside"))?;
        let tally = work.make(&pair.a.folder, self.arguments.scale)?;
        work.prepare(&pair.a.folder, &aside)?;
        limits::flush(pair.places.path())?;
        (line.files, line.bytes) = (tally.files, tally.bytes);
        line.ours = pair.first_sync(tally.files)?;
        if !work.is_first_sync() {
            line.ours = self.change(work, &pair, &aside)?;
        }
        pair.check()?;
        line.more("index_bytes_per_file", index_bytes(&pair.a.home)? as f64 / tally.files as f64);
        if work.is_first_sync() && !self.arguments.no_limits {
            pair.stop()?;
            line.limits = Some(limits::measure(&pair.a.folder, &pair.places.path().join("copy"))?);
        }
        Ok(())
    }

    fn change(&self, work: Work, pair: &Pair, aside: &Path) -> anyhow::Result<Cost> {
        let watch = Watch::begin(&pair.devices())?;
        work.change(&pair.a.folder, aside)?;
        let files = data::list(&pair.a.folder)?.len() as u64;
        let mut seconds = 0.0;
        support::wait("the change is there", BOUND, || {
            std::thread::sleep(LOOK_PAUSE);
            seconds = watch.seconds();
            work.has_arrived(&pair.a.folder, &pair.b.folder, files)
        })?;
        pair.wait_settled(files)?;
        watch.end(seconds, &pair.devices())
    }
}

/// What a device's index takes on the disk.
fn index_bytes(home: &Path) -> anyhow::Result<u64> {
    let (mut sum, mut open) = (0, vec![home.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(".db") {
                sum += entry.metadata()?.len();
            }
        }
    }
    Ok(sum)
}

fn made(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}
