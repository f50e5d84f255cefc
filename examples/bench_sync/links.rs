//! Work over links that are slower than this machine: one device to many, and far away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data;
use crate::limits;
use crate::measure::Watch;
use crate::namespaces::{ADDRESSES, Namespaces, Quality};
use crate::pair::{BOUND, is_settled};
use crate::relay::{Link, Rate};
use crate::report::Line;
use crate::support::{Device, wait};

/// 200 Mbit/s, what each device of the swarm can send.
const SWARM_RATE: f64 = 25e6;
/// 100 Mbit/s.
const FAR_RATE: f64 = 12.5e6;
/// Half of 40 ms.
const FAR_DELAY: Duration = Duration::from_millis(20);
const FAR_LOST_OF_1000: u64 = 10;
/// Of the bytes this part is sent so, which is steady and slow there.
const BY_LOSS_SHARE: u64 = 8;

/// Some devices, each pair of which is linked.
fn devices(program: &Path, places: &Path, rates: &[Arc<Rate>], delay: Duration) -> anyhow::Result<Vec<Device>> {
    let all: Vec<Device> = (0..rates.len())
        .map(|at| Device::new(program, places, &format!("device{at}"), ""))
        .collect::<anyhow::Result<_>>()?;
    for (at, one) in all.iter().enumerate() {
        for (to, other) in all.iter().enumerate().filter(|(to, _)| *to != at) {
            let rates = [Some(rates[at].clone()), Some(rates[to].clone())];
            one.meet(other, &Link { to: other.listen.clone(), rates, delay }.open()?)?;
        }
    }
    Ok(all)
}

/// One file to several devices that can each send as fast as the one that has it.
pub fn swarm(program: &Path, dir: &Path, bytes: u64, receivers: usize) -> anyhow::Result<Line> {
    let places = tempfile::Builder::new().prefix("bench-swarm-").tempdir_in(dir)?;
    let rates: Vec<Arc<Rate>> = (0..=receivers).map(|_| Rate::new(SWARM_RATE)).collect();
    let mut all = devices(program, places.path(), &rates, Duration::ZERO)?;
    let name = format!("swarm-{receivers}");
    let mut line = Line::new(&name, "one file to several devices, each sends 200 Mbit/s at most");
    all.iter_mut().try_for_each(Device::start)?;
    wait("all are connected", BOUND, || {
        let mut is_all = true;
        for device in &all {
            is_all &= device.status()?.peers.iter().filter(|peer| peer.connected).count() == receivers;
        }
        Ok(is_all)
    })?;
    let aside = places.path().join("aside");
    data::large(&aside, 21, bytes)?;
    limits::flush(places.path())?;
    let everyone: Vec<&Device> = all.iter().collect();
    let watch = Watch::begin(&everyone)?;
    let sent = |device: &Device| device.status().map(|s| s.peers.iter().map(|peer| peer.bytes_out).sum::<u64>());
    let before = sent(&all[0])?;
    std::fs::rename(&aside, all[0].folder.join("file.bin"))?;
    wait("all have the file", BOUND, || {
        std::thread::sleep(Duration::from_millis(5));
        Ok(all.iter().skip(1).all(|d| d.folder.join("file.bin").exists()))
    })?;
    line.ours = watch.end(watch.seconds(), &everyone)?;
    (line.files, line.bytes) = (1, bytes);
    let one_copy = bytes as f64 / SWARM_RATE;
    line.more("one_copy_at_that_rate_seconds", one_copy);
    line.more("times_one_copy", line.ours.seconds / one_copy);
    line.more("source_sent_times_the_file", (sent(&all[0])? - before) as f64 / bytes as f64);
    for device in &all[1..] {
        data::is_same(&all[0].folder, &device.folder)?;
    }
    Ok(line)
}

/// First sync of a file over a link with a delay.
pub fn far(program: &Path, dir: &Path, bytes: u64) -> anyhow::Result<Line> {
    let places = tempfile::Builder::new().prefix("bench-far-").tempdir_in(dir)?;
    let rates = [Rate::new(FAR_RATE), Rate::new(FAR_RATE)];
    let mut all = devices(program, places.path(), &rates, FAR_DELAY)?;
    let mut line = Line::new("far", "one file over a link of 100 Mbit/s and 40 ms there and back");
    send_one(&mut all, places.path(), bytes, &mut line)?;
    let plain = plain(bytes)?;
    line.more("plain_tcp_seconds", plain);
    line.more("share_of_plain_tcp", plain / line.ours.seconds);
    Ok(line)
}

/// Starts two devices and measures how long one file takes from the first to the second.
fn send_one(all: &mut [Device], places: &Path, bytes: u64, line: &mut Line) -> anyhow::Result<()> {
    std::fs::create_dir_all(&all[0].folder)?;
    all.iter_mut().try_for_each(Device::start)?;
    wait("they are in sync", BOUND, || Ok(is_settled(&all[0], 0)? && is_settled(&all[1], 0)?))?;
    let aside = places.join("aside");
    data::large(&aside, 22, bytes)?;
    let everyone: Vec<&Device> = all.iter().collect();
    let watch = Watch::begin(&everyone)?;
    std::fs::rename(&aside, all[0].folder.join("file.bin"))?;
    wait("the file is there", BOUND, || Ok(all[1].folder.join("file.bin").exists()))?;
    line.ours = watch.end(watch.seconds(), &everyone)?;
    (line.files, line.bytes) = (1, bytes);
    data::is_same(&all[0].folder, &all[1].folder)
}

/// The same over a line that loses packets; `forced` is the congestion control that the agents get on it, whatever they
/// ask for.
pub fn lossy(program: &Path, dir: &Path, bytes: u64, forced: Option<&str>) -> anyhow::Result<Line> {
    let places = tempfile::Builder::new().prefix("bench-lossy-").tempdir_in(dir)?;
    let between =
        Namespaces::open(Quality { bytes_per_second: FAR_RATE, delay: FAR_DELAY, lost_of_1000: FAR_LOST_OF_1000 })?;
    let plain = between.plain_seconds(bytes)?;
    // What most systems have, or what is next to it; the agents ask for another one.
    between.set_congestion_control("cubic").or_else(|_| between.set_congestion_control("reno"))?;
    if let Some(forced) = forced {
        between.force_congestion_control(forced)?;
    }
    let by_loss = between.plain_seconds(bytes / BY_LOSS_SHARE)? * BY_LOSS_SHARE as f64;
    let mut all = Vec::new();
    for (side, address) in ADDRESSES.iter().enumerate() {
        let program = between.wrap(side, program, places.path())?;
        let mut device = Device::new(&program, places.path(), &format!("device{side}"), "")?;
        device.listen = format!("{address}:7801");
        all.push(device);
    }
    Device::pair(&all[0], &all[1])?;
    let (name, what) = match forced {
        None => ("lossy", "one file over 100 Mbit/s and 40 ms, of which each way loses 1 packet of 100"),
        Some(_) => ("lossy-cubic", "the same where no other congestion control than cubic can be had"),
    };
    let mut line = Line::new(name, what);
    send_one(&mut all, places.path(), bytes, &mut line)?;
    line.more("plain_tcp_seconds", plain);
    line.more("plain_tcp_with_cubic_or_reno_seconds", by_loss);
    line.more("share_of_plain_tcp", plain / line.ours.seconds);
    line.more("times_as_fast_as_cubic_or_reno", by_loss / line.ours.seconds);
    Ok(line)
}

/// Seconds for the same bytes over one plain connection through such a link.
fn plain(bytes: u64) -> anyhow::Result<f64> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?.to_string();
    let rates = [Some(Rate::new(FAR_RATE)), Some(Rate::new(FAR_RATE))];
    let address = Link { to, rates, delay: FAR_DELAY }.open()?;
    let start = Instant::now();
    limits::send_over(&listener, &address, bytes)?;
    Ok(start.elapsed().as_secs_f64())
}
