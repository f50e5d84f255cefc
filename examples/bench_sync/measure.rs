//! What work costs: time, processor, memory, bytes.

use std::fs;
use std::time::Instant;

use anyhow::Context;
use p2psync::api::Status;
use serde::Serialize;

use crate::support::Device;

/// What some work took; processor and memory of all agents together and of the largest.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct Cost {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Largest resident set of one process, in bytes.
    pub peak_bytes: u64,
    /// At the sockets, both directions once.
    pub wire_bytes: Option<u64>,
    /// How long it took after that until all was on the disk, where the work does not see to that itself.
    pub flush_seconds: Option<f64>,
}

/// Where some devices stood when the work began.
pub struct Watch {
    start: Instant,
    cpu_seconds: f64,
    wire_bytes: u64,
}

impl Watch {
    /// Begins to measure devices that may not run yet.
    pub fn begin(devices: &[&Device]) -> anyhow::Result<Self> {
        let running: Vec<&Device> = devices.iter().copied().filter(|d| d.pid().is_some()).collect();
        for device in &running {
            forget_peak(device)?;
        }
        let (cpu_seconds, wire_bytes) = (cpu_seconds(&running)?, wire_bytes(&running)?);
        Ok(Self { start: Instant::now(), cpu_seconds, wire_bytes })
    }

    /// Seconds until now.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// What was used until now; `seconds` is when the work was done.
    pub fn end(&self, seconds: f64, devices: &[&Device]) -> anyhow::Result<Cost> {
        let peaks = devices.iter().map(|device| number_of(device, "status", "VmHWM:").map(|kib| kib * 1024));
        Ok(Cost {
            seconds,
            cpu_seconds: cpu_seconds(devices)? - self.cpu_seconds,
            peak_bytes: peaks.collect::<anyhow::Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0),
            wire_bytes: Some(wire_bytes(devices)? - self.wire_bytes),
            flush_seconds: None,
        })
    }
}

/// All bytes that devices have received from each other since they started.
fn wire_bytes(devices: &[&Device]) -> anyhow::Result<u64> {
    let received = |status: Status| status.peers.iter().map(|peer| peer.bytes_in).sum::<u64>();
    devices.iter().map(|device| device.status().map(received)).sum()
}

/// User and system time of agents.
pub fn cpu_seconds(devices: &[&Device]) -> anyhow::Result<f64> {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut sum = 0.0;
    for device in devices {
        let stat = proc_file(device, "stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
        sum += (ticks(11) + ticks(12)) / ticks_per_second;
    }
    Ok(sum)
}

/// Bytes that an agent has had written to disk.
pub fn written_bytes(device: &Device) -> anyhow::Result<u64> {
    number_of(device, "io", "write_bytes:")
}

/// Resident memory now, in bytes.
pub fn resident_bytes(device: &Device) -> anyhow::Result<u64> {
    Ok(number_of(device, "status", "VmRSS:")? * 1024)
}

fn number_of(device: &Device, file: &str, name: &str) -> anyhow::Result<u64> {
    let text = proc_file(device, file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a line that is missing")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn proc_file(device: &Device, file: &str) -> anyhow::Result<String> {
    let pid = device.pid().context("the agent does not run")?;
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("cannot read {file} of process {pid}"))
}

fn forget_peak(device: &Device) -> anyhow::Result<()> {
    let pid = device.pid().context("the agent does not run")?;
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// The middle one; of an even number the lower.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The value that a hundredth part of the values lies above, and so on.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or_default()
}
