//! How the cost grows with files and with devices.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::data;
use crate::measure::{Watch, resident_bytes};
use crate::pair::{BOUND, Pair};
use crate::plot::{Plot, Series};
use crate::report::Line;
use crate::support::{Device, noise, wait};

/// Files in the folder, one run for each.
pub const FILES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Devices that a change goes to, one run for each.
pub const PEERS: [usize; 4] = [1, 4, 16, 64];
/// Files that all devices have before the change.
const FILES_BEFORE: u64 = 200;
/// Changes of which the median is told.
const CHANGES: u64 = 20;
const CHANGE_BYTES: usize = 4096;
/// Until what follows the last change is over: devices compare what they have once it is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(30);

/// A first sync of so many files of 1 KiB, and what is left of it.
pub fn files(pair: &mut Pair, files: u64) -> anyhow::Result<Line> {
    let mut line = Line::new(&format!("scale-files-{files}"), "first sync of files of 1 KiB");
    let tally = data::many(&pair.a.folder, 9, files, (1 << 10, 1 << 10))?;
    (line.files, line.bytes) = (tally.files, tally.bytes);
    line.ours = pair.first_sync(files)?;
    pair.stop()?;
    line.more("index_bytes_per_file", crate::index_bytes(&pair.b.home)? as f64 / files as f64);
    pair.start()?;
    pair.wait_settled(files)?;
    std::thread::sleep(Duration::from_secs(5));
    line.more("idle_resident_mib", resident_bytes(&pair.b)? as f64 / 1_048_576.0);
    pair.check()?;
    pair.stop()?;
    Ok(line)
}

/// Edits on one device that others share a folder with; none of these knows another one.
pub fn peers(program: &Path, dir: &Path, count: usize) -> anyhow::Result<Line> {
    let places = tempfile::Builder::new().prefix("bench-peers-").tempdir_in(dir)?;
    let mut source = Device::new(program, places.path(), "source", "")?;
    let others: Vec<Device> = (0..count)
        .map(|number| {
            let device = Device::new(program, places.path(), &format!("device{number}"), "")?;
            Device::pair(&source, &device).map(|()| device)
        })
        .collect::<anyhow::Result<_>>()?;
    let mut others = others;
    let tally = data::many(&source.folder, 9, FILES_BEFORE, (1 << 10, 1 << 10))?;
    source.start()?;
    others.iter_mut().try_for_each(Device::start)?;
    wait("all are in sync", BOUND, || {
        std::thread::sleep(Duration::from_millis(100));
        let status = source.status()?;
        let reached = status.folders.iter().flat_map(|f| &f.peers).filter(|p| p.connected && p.in_sync).count();
        Ok(reached == count && status.folders.iter().all(|f| f.files == tally.files))
    })?;
    let mut line = Line::new(&format!("scale-peers-{count}"), "a 4 KiB edit until all other devices have it");
    (line.files, line.bytes) = (CHANGES, CHANGES * CHANGE_BYTES as u64);
    let watch = Watch::begin(&[&source])?;
    let mut times =
        (0..CHANGES).map(|number| change(&source, &others, number)).collect::<anyhow::Result<Vec<f64>>>()?;
    line.ours = watch.end(crate::measure::percentile(&mut times, 50) / 1000.0, &[&source])?;
    line.more("source_cpu_ms_per_edit", line.ours.cpu_seconds * 1000.0 / CHANGES as f64);
    std::thread::sleep(QUIET_AFTER);
    let idle = Watch::begin(&[&source])?;
    std::thread::sleep(IDLE);
    let idle = idle.end(idle.seconds(), &[&source])?;
    line.more("idle_bytes_per_minute_and_peer", per_minute(idle.wire_bytes.unwrap_or(0) as f64) / count as f64);
    line.more("idle_cpu_seconds_per_minute", per_minute(idle.cpu_seconds));
    line.more("source_resident_mib", resident_bytes(&source)? as f64 / 1_048_576.0);
    Ok(line)
}

fn per_minute(measured: f64) -> f64 {
    measured * 60.0 / IDLE.as_secs_f64()
}

/// Milliseconds until the last device has it.
fn change(source: &Device, others: &[Device], number: u64) -> anyhow::Result<f64> {
    std::thread::sleep(Duration::from_millis(100 + noise(number, 1)[0] as u64));
    let bytes = noise(number + 50, CHANGE_BYTES);
    let start = std::time::Instant::now();
    std::fs::write(source.folder.join("edited"), &bytes)?;
    for device in others {
        let path = device.folder.join("edited");
        while std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            ensure!(start.elapsed() < BOUND, "{} did not get the edit", device.name);
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// A picture of what was measured by [`files`].
pub fn picture(lines: &[Line]) -> String {
    let points = |get: &dyn Fn(&Line) -> f64| lines.iter().map(|line| (line.files as f64, get(line))).collect();
    let series = vec![
        Series::new("seconds", points(&|line| line.ours.seconds)),
        Series::new("processor seconds", points(&|line| line.ours.cpu_seconds)),
        Series::new("peak memory, MiB", points(&|line| line.ours.peak_bytes as f64 / 1_048_576.0)),
        Series::new(
            "index, MiB",
            points(&|line| {
                line.more.get("index_bytes_per_file").copied().unwrap_or_default() * line.files as f64 / 1_048_576.0
            }),
        ),
    ];
    Plot { title: "First sync of files of 1 KiB", across: "files", series }.svg()
}
