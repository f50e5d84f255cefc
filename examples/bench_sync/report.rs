//! What is told of each workload.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::limits::Limits;
use crate::measure::{Cost, median};

/// A workload's results: medians of its runs.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub workload: String,
    pub what: String,
    pub runs: usize,
    pub files: u64,
    pub bytes: u64,
    pub ours: Cost,
    pub limits: Option<Limits>,
    pub others: BTreeMap<String, Cost>,
    pub more: BTreeMap<String, f64>,
}

impl Line {
    pub fn new(workload: &str, what: &str) -> Self {
        Self {
            workload: workload.to_owned(),
            what: what.to_owned(),
            runs: 1,
            files: 0,
            bytes: 0,
            ours: Cost::default(),
            limits: None,
            others: BTreeMap::new(),
            more: BTreeMap::new(),
        }
    }

    pub fn more(&mut self, name: &str, value: f64) {
        self.more.insert(name.to_owned(), value);
    }

    /// The medians of several runs of one workload.
    pub fn of_runs(runs: Vec<Line>) -> Option<Line> {
        let mut line = runs.first()?.clone();
        let pick = |get: &dyn Fn(&Line) -> Option<f64>| median(runs.iter().filter_map(get).collect());
        let cost = |get: &dyn Fn(&Line) -> Option<Cost>| Cost {
            seconds: pick(&|l| get(l).map(|c| c.seconds)),
            cpu_seconds: pick(&|l| get(l).map(|c| c.cpu_seconds)),
            // Of memory the worst counts.
            peak_bytes: runs.iter().filter_map(get).map(|c| c.peak_bytes).max().unwrap_or(0),
            wire_bytes: runs
                .iter()
                .find_map(|l| get(l)?.wire_bytes)
                .map(|_| pick(&|l| get(l).and_then(|c| c.wire_bytes).map(|bytes| bytes as f64)) as u64),
            flush_seconds: runs.iter().find_map(|l| get(l)?.flush_seconds).map(|_| pick(&|l| get(l)?.flush_seconds)),
        };
        line.runs = runs.len();
        line.ours = cost(&|l| Some(l.ours));
        line.limits = line.limits.map(|_| Limits {
            copy: pick(&|l| l.limits.map(|x| x.copy)),
            tcp: pick(&|l| l.limits.map(|x| x.tcp)),
            hash: pick(&|l| l.limits.map(|x| x.hash)),
        });
        line.others = line.others.keys().map(|k| (k.clone(), cost(&|l| l.others.get(k).copied()))).collect();
        line.more = line.more.keys().map(|k| (k.clone(), pick(&|l| l.more.get(k).copied()))).collect();
        Some(line)
    }

    pub fn print(&self) {
        println!(
            "{} - {} ({} files, {}, median of {})",
            self.workload,
            self.what,
            self.files,
            size(self.bytes),
            self.runs
        );
        print_cost("p2psync", &self.ours, None);
        for (name, cost) in &self.others {
            print_cost(name, cost, Some(self.ours.seconds));
        }
        if let Some(limits) = self.limits {
            let named = [("copy and sync", limits.copy), ("plain TCP", limits.tcp), ("SHA-256", limits.hash)];
            for (name, seconds) in named {
                println!("  {name:<14} {seconds:>8.2} s   p2psync takes {:.2} x", self.ours.seconds / seconds);
            }
        }
        for (name, value) in &self.more {
            println!("  {name}: {value:.2}");
        }
    }
}

fn print_cost(name: &str, cost: &Cost, ours: Option<f64>) {
    let wire = cost.wire_bytes.map_or_else(|| "?".to_owned(), size);
    let ratio = ours.map_or_else(String::new, |ours| format!("   p2psync takes {:.2} x", ours / cost.seconds));
    let ratio = match (ours, cost.flush_seconds) {
        (Some(ours), Some(flush)) => {
            format!(
                "{ratio} ({flush:.2} s more until it is on the disk; with that {:.2} x)",
                ours / (cost.seconds + flush)
            )
        }
        _ => ratio,
    };
    println!(
        "  {name:<14} {:>8.3} s  wire {wire:>10}  cpu {:>6.2} s  peak {:>10}{ratio}",
        cost.seconds,
        cost.cpu_seconds,
        size(cost.peak_bytes)
    );
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
