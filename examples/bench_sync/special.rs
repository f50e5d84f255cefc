//! Work that only agents that always run do: edits at random moments, a restart, nothing at all, a build.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::data;
use crate::measure::{Watch, cpu_seconds, percentile, resident_bytes, written_bytes};
use crate::pair::{BOUND, Pair};
use crate::report::Line;
use crate::support::{Device, noise, wait};

/// Pause between two looks for an edit.
const EDIT_LOOK_PAUSE: Duration = Duration::from_micros(200);
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
const BUILD: Duration = Duration::from_secs(60);

/// Edits of one file at random moments, both ways: how long until the other device's file holds them.
pub fn latency(pair: &mut Pair, bytes: usize, edits: usize) -> anyhow::Result<Line> {
    fs::write(pair.a.folder.join("edited"), noise(1, bytes))?;
    pair.first_sync(1)?;
    let watch = Watch::begin(&pair.devices())?;
    let (mut there, mut back) = (Vec::new(), Vec::new());
    // No edit is to leave what the one before has left.
    let mut seed = 0;
    for _ in 0..edits {
        for (from, to, times) in [(&pair.a, &pair.b, &mut there), (&pair.b, &pair.a, &mut back)] {
            std::thread::sleep(Duration::from_millis(20 + noise(seed + 99, 1)[0] as u64));
            seed += 1;
            times.push(one_edit(from, to, seed, bytes)?);
        }
    }
    let mut line = Line::new(&format!("latency-{}", size_text(bytes)), "edits of one file, each way, milliseconds");
    line.ours = watch.end(watch.seconds(), &pair.devices())?;
    for (name, times) in [("there", &mut there), ("back", &mut back)] {
        for percent in [50, 95, 99] {
            line.more(&format!("{name}_p{percent}_ms"), percentile(times, percent));
        }
    }
    line.more("edits", 2.0 * edits as f64);
    Ok(line)
}

fn size_text(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{}MiB", bytes >> 20) } else { format!("{}KiB", bytes >> 10) }
}

/// Rewrites the file in place on one device; milliseconds until the other has it.
fn one_edit(from: &Device, to: &Device, seed: u64, bytes: usize) -> anyhow::Result<f64> {
    // Large files change in one place, as such files do.
    let path = from.folder.join("edited");
    let mut content = fs::read(&path)?;
    let changed = bytes.min(4096);
    let at = (seed as usize).wrapping_mul(7919) % (bytes - changed + 1);
    content[at..at + changed].copy_from_slice(&noise(seed + 17, changed));
    let start = if bytes > 1 << 20 {
        let aside = from.home.join("aside");
        fs::write(&aside, &content)?;
        let start = Instant::now();
        fs::rename(&aside, &path)?;
        start
    } else {
        let start = Instant::now();
        fs::write(&path, &content)?;
        start
    };
    let arrived = to.folder.join("edited");
    loop {
        let is_there = matches!(read_part(&arrived, at, changed), Ok(part) if part == content[at..at + changed]);
        let elapsed = start.elapsed();
        if is_there {
            return Ok(elapsed.as_secs_f64() * 1000.0);
        }
        ensure!(elapsed < Duration::from_secs(60), "an edit is lost");
        std::thread::sleep(EDIT_LOOK_PAUSE);
    }
}

fn read_part(path: &Path, at: usize, count: usize) -> std::io::Result<Vec<u8>> {
    let mut part = vec![0; count];
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(path)?, &mut part, at as u64)?;
    Ok(part)
}

/// A restart with many unchanged files, and how much the agent holds after it.
pub fn rescan(pair: &mut Pair, files: u64) -> anyhow::Result<Line> {
    data::many(&pair.a.folder, 9, files, (16, 64))?;
    let first = pair.first_sync(files)?;
    pair.stop()?;
    let mut line = Line::new(&format!("rescan-{files}"), "restart with unchanged files, until both are in sync");
    let start = Instant::now();
    let mut found = 0;
    for device in pair.devices() {
        let listed = std::process::Command::new("find").arg(&device.folder).args(["-printf", "%s\n"]).output()?;
        found += listed.stdout.iter().filter(|b| **b == b'\n').count() as u64;
    }
    // Both folders are looked at by two agents at once on the same cores, so both count.
    line.more("find_seconds", start.elapsed().as_secs_f64());
    ensure!(found >= 2 * files, "find saw {found} files");
    let watch = Watch::begin(&[])?;
    pair.start()?;
    let started = now_ms()?;
    wait("both have looked and are in sync", BOUND, || {
        std::thread::sleep(Duration::from_millis(10));
        let has_scanned = |device: &Device| -> anyhow::Result<bool> {
            let status = device.status()?;
            Ok(status.folders.iter().all(|f| f.last_scan_ms.is_some_and(|t| t + 1000 >= started)))
        };
        Ok(has_scanned(&pair.a)?
            && has_scanned(&pair.b)?
            && crate::pair::is_settled(&pair.a, files)?
            && crate::pair::is_settled(&pair.b, files)?)
    })?;
    line.ours = watch.end(watch.seconds(), &pair.devices())?;
    line.more("first_sync_seconds", first.seconds);
    line.more("first_sync_peak_mib", first.peak_bytes as f64 / 1048576.0);
    idle_for(pair, Duration::from_secs(5), &mut line)?;
    line.more("index_bytes_per_file", crate::index_bytes(&pair.a.home)? as f64 / files as f64);
    Ok(line)
}

fn now_ms() -> anyhow::Result<i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("a clock before 1970")?;
    Ok(now.as_millis() as i64)
}

/// A minute in which nothing happens.
pub fn idle(pair: &mut Pair) -> anyhow::Result<Line> {
    let tally = data::many(&pair.a.folder, 9, 5000, (16, 64))?;
    pair.first_sync(tally.files)?;
    std::thread::sleep(Duration::from_secs(15));
    let mut line = Line::new("idle", "60 s in which nothing happens; processor, disk and wire of both");
    let watch = Watch::begin(&pair.devices())?;
    idle_for(pair, IDLE, &mut line)?;
    line.ours = watch.end(watch.seconds(), &pair.devices())?;
    Ok(line)
}

fn idle_for(pair: &Pair, time: Duration, line: &mut Line) -> anyhow::Result<()> {
    let written = || pair.devices().into_iter().map(written_bytes).sum::<anyhow::Result<u64>>();
    let (cpu, disk) = (cpu_seconds(&pair.devices())?, written()?);
    std::thread::sleep(time);
    line.more("idle_cpu_seconds", cpu_seconds(&pair.devices())? - cpu);
    line.more("idle_written_bytes", (written()? - disk) as f64);
    line.more("idle_resident_mib", resident_bytes(&pair.a)? as f64 / 1048576.0);
    Ok(())
}

/// A tree of objects that is built anew again and again; the time until all is there counts from its end.
pub fn churn(pair: &mut Pair) -> anyhow::Result<Line> {
    let tally = data::many(&pair.a.folder.join("src"), 10, 500, (1 << 10, 16 << 10))?;
    pair.first_sync(tally.files)?;
    let watch = Watch::begin(&pair.devices())?;
    let (target, mut round) = (pair.a.folder.join("target"), 0u64);
    let start = Instant::now();
    while start.elapsed() < BUILD {
        fs::create_dir_all(&target)?;
        for object in 0..200 {
            let temporary = target.join(format!("o{object}.tmp"));
            fs::write(&temporary, noise(round * 1000 + object, 10_000 + 300 * object as usize))?;
            fs::rename(&temporary, target.join(format!("o{object}")))?;
        }
        round += 1;
        if round.is_multiple_of(10) {
            fs::remove_dir_all(&target)?;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let end = Instant::now();
    let files = data::list(&pair.a.folder)?.len() as u64;
    pair.wait_settled(files)?;
    let mut line =
        Line::new("churn", "seconds until in sync after 60 s in which a build rewrites 200 objects again and again");
    line.ours = watch.end(end.elapsed().as_secs_f64(), &pair.devices())?;
    line.more("rounds", round as f64);
    pair.check()?;
    Ok(line)
}
