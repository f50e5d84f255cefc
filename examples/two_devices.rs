//! Two devices on one machine: starts two agents, pairs them, and shows what happens to files, step by step.
//!
//! `cargo run --release --example two_devices`

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use p2psync::api::FolderState;

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "the benchmark uses more of it")]
mod support;

use support::{Device, noise, path_text, program, wait};

/// Longest time for a step.
const BOUND: Duration = Duration::from_secs(120);
/// Files taken from the sources of crates at most.
const SOURCE_FILES_MAX: usize = 2000;

fn main() -> anyhow::Result<()> {
    let program = program()?;
    let places = tempfile::Builder::new().prefix("two-devices-").tempdir()?;
    say(&format!("Two devices will live in {} until this is over.", places.path().display()));

    say("\n1. Each device makes its identity; each is told the other's.");
    let mut laptop = Device::new(&program, places.path(), "laptop", "")?;
    let mut desktop = Device::new(&program, places.path(), "desktop", "")?;
    Device::pair(&laptop, &desktop)?;
    for device in [&laptop, &desktop] {
        say(&format!("   {} is {}", device.name, device.id));
    }
    let count = copy_sources(&laptop.folder)?;
    laptop.start()?;
    desktop.start()?;

    say(&format!("\n2. The laptop's folder holds {count} source files. The desktop's is empty. They meet:"));
    let story = Story { laptop: &laptop, desktop: &desktop };
    story.step("all files have arrived on the desktop", Ok(()))?;

    changes(&story)?;
    conflict(&mut laptop, &mut desktop)?;

    let story = Story { laptop: &laptop, desktop: &desktop };
    say("\n7. The laptop deletes the notes and the conflict copy.");
    let copies = conflict_copies(&laptop.folder)?;
    let deleted = copies.iter().try_for_each(|copy| fs::remove_file(laptop.folder.join(copy)));
    story.step("gone on the desktop too", deleted.and_then(|()| fs::remove_file(laptop.folder.join("notes.txt"))))?;
    say("   They are in the desktop's history, and can be brought back:");
    indent(&desktop.command(&["history", &path_text(&desktop.folder.join("notes.txt"))])?);

    say("\n8. What the laptop says about all this:");
    indent(&laptop.command(&[])?);
    Ok(())
}

fn changes(story: &Story) -> anyhow::Result<()> {
    let (laptop, desktop) = (story.laptop, story.desktop);
    say("\n3. The desktop writes a file:");
    story.step("it is on the laptop", fs::write(desktop.folder.join("notes.txt"), "bread, milk\n"))?;

    say("\n4. The laptop adds a line at the start of a file of 8 MB:");
    let large = laptop.folder.join("large.bin");
    let mut bytes = noise(1, 8 << 20);
    story.step("the file is on the desktop", fs::write(&large, &bytes))?;
    bytes.splice(0..0, b"a new first line\n".iter().copied());
    story.step("the change is there; only what is new went over", fs::write(&large, &bytes))?;

    say("\n5. The laptop renames the directory that holds all the sources:");
    let (old, new) = (laptop.folder.join("sources"), laptop.folder.join("renamed sources"));
    story.step("renamed on the desktop; no content went over", fs::rename(old, new))
}

fn conflict(laptop: &mut Device, desktop: &mut Device) -> anyhow::Result<()> {
    say("\n6. Both are switched off, and the notes are edited on both:");
    laptop.stop()?;
    fs::write(laptop.folder.join("notes.txt"), "bread, milk, eggs\n")?;
    desktop.stop()?;
    fs::write(desktop.folder.join("notes.txt"), "bread, milk, apples\n")?;
    laptop.start()?;
    desktop.start()?;
    let story = Story { laptop, desktop };
    story.step("switched on again: both are the same", Ok(()))?;
    for name in std::iter::once("notes.txt".to_owned()).chain(conflict_copies(&desktop.folder)?) {
        say(&format!("   {name}: {}", fs::read_to_string(desktop.folder.join(&name))?.trim()));
    }
    Ok(())
}

/// The two devices while both run.
struct Story<'a> {
    laptop: &'a Device,
    desktop: &'a Device,
}

impl Story<'_> {
    /// Waits until what was just done has arrived, and tells how long that took and what it cost.
    fn step(&self, what: &str, done: std::io::Result<()>) -> anyhow::Result<()> {
        done?;
        let start = Instant::now();
        let before = received(self.laptop)? + received(self.desktop)?;
        wait(what, BOUND, || Ok(listing(&self.laptop.folder)? == listing(&self.desktop.folder)?))?;
        let time = start.elapsed();
        for device in [self.laptop, self.desktop] {
            wait(what, BOUND, || Ok(device.status()?.folders.iter().all(|f| f.state == FolderState::InSync)))?;
        }
        let after = received(self.laptop)? + received(self.desktop)?;
        let bytes = after.saturating_sub(before) as f64;
        let seconds = time.as_secs_f64();
        say(&format!("   {what} ({seconds:.2} s, {:.1} KB over the wire)", bytes / 1024.0));
        Ok(())
    }
}

fn received(device: &Device) -> anyhow::Result<u64> {
    Ok(device.status()?.peers.iter().map(|p| p.bytes_in).sum())
}

fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

fn indent(text: &str) {
    text.lines().for_each(|line| say(&format!("   {line}")));
}

/// Copies sources of crates, or of this one, to `sources` in the folder.
fn copy_sources(folder: &Path) -> anyhow::Result<usize> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut room = SOURCE_FILES_MAX;
    for from in [cargo.map(|c| c.join("registry/src")), Some(own)].into_iter().flatten() {
        copy(&from, &folder.join("sources"), &mut room)?;
    }
    Ok(SOURCE_FILES_MAX - room)
}

fn copy(from: &Path, to: &Path, room: &mut usize) -> anyhow::Result<()> {
    let Ok(listing) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to)?;
    for entry in listing {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        let is_source = entry.path().extension().is_some_and(|e| e == "rs" || e == "toml" || e == "md");
        if kind.is_dir() && *room > 0 {
            copy(&entry.path(), &target, room)?;
        } else if kind.is_file() && is_source && *room > 0 {
            fs::copy(entry.path(), target)?;
            *room -= 1;
        }
    }
    Ok(())
}

/// Path, size and time of change of all files, sorted.
fn listing(folder: &Path) -> anyhow::Result<Vec<(PathBuf, u64, Option<SystemTime>)>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        // What goes away while one looks will be seen the next time.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().filter(|e| e.file_name() != ".p2psync") {
            let Ok(metadata) = entry.metadata() else { continue };
            let below = entry.path().strip_prefix(folder)?.to_owned();
            if metadata.is_dir() {
                open.push(entry.path());
                found.push((below, 0, None));
            } else {
                found.push((below, metadata.len(), metadata.modified().ok()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn conflict_copies(folder: &Path) -> anyhow::Result<Vec<String>> {
    let names = listing(folder)?.into_iter().map(|(path, ..)| path_text(&path));
    Ok(names.filter(|name| name.contains(".conflict-")).collect())
}
