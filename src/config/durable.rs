//! Replacing a file so that a crash leaves the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, getuid, test_kill_process};

use crate::failpoint;

/// What the name of a file begins and ends with that is to take the place of the config; the id of the process stands
/// between, and a number.
const FRESH: (&str, &str) = (".p2psync-config.", ".new");
/// Mode of such a file until it is complete.
const FRESH_MODE: u32 = 0o600;
/// Tries to find a name that nothing has.
const NAMES_MAX: usize = 100;

/// Writes a file beside the target and renames it over that, with the mode of the one that it replaces.
pub fn write_beside_and_rename(target: &Path, text: &str) -> io::Result<()> {
    clear_leftovers(target);
    let mut named = Err(io::ErrorKind::AlreadyExists.into());
    for _ in 0..NAMES_MAX {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fresh = target.with_file_name(format!("{}{process}.{number}{}", FRESH.0, FRESH.1));
        let opened = OpenOptions::new().write(true).create_new(true).mode(FRESH_MODE).open(&fresh);
        named = opened.map(|file| (file, fresh));
        if !matches!(&named, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    let (file, fresh) = named?;
    replace(file, &fresh, target, text).inspect_err(|_| {
        // Made here a moment ago, under a name that nothing had. Where it has got its place, nothing has that name.
        let _ = std::fs::remove_file(&fresh);
    })
}

fn replace(mut file: File, fresh: &Path, target: &Path, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    failpoint::hit("config.written");
    file.sync_all()?;
    let mode = std::fs::metadata(target).map_or(FRESH_MODE, |found| found.permissions().mode() & 0o777);
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    failpoint::hit("config.synced");
    std::fs::rename(fresh, target)?;
    failpoint::hit("config.renamed");
    if let Some(dir) = target.parent() {
        File::open(dir)?.sync_all()?;
    }
    failpoint::hit("config.durable");
    Ok(())
}

/// Removes what edits have left beside the target that were killed: files with such a name, of this user, of a process
/// that is no more.
pub fn clear_leftovers(target: &Path) {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(listed) = std::fs::read_dir(dir) else { return };
    for item in listed.flatten() {
        let Some(process) = item.file_name().to_str().and_then(process_of) else { continue };
        // Of the link, where it is one.
        let Ok(found) = item.metadata() else { continue };
        let is_ours = found.is_file() && found.nlink() == 1 && found.uid() == getuid().as_raw();
        if is_ours && !is_running(process) {
            let _ = std::fs::remove_file(item.path());
        }
    }
}

/// The process that a file was named for which was to take the place of the config.
fn process_of(name: &str) -> Option<i32> {
    let (process, number) = name.strip_prefix(FRESH.0)?.strip_suffix(FRESH.1)?.split_once('.')?;
    let are_digits = [process, number].iter().all(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    are_digits.then(|| process.parse().ok()).flatten()
}

/// True where it may be running still.
fn is_running(process: i32) -> bool {
    let Some(pid) = Pid::from_raw(process) else { return true };
    test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has it: greater than any that Linux gives.
    const GONE: u32 = 1 << 30;

    #[test]
    fn what_a_killed_edit_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("config.toml");
        let own = std::process::id();
        let left = format!(".p2psync-config.{GONE}.3.new");
        let stays = [
            format!(".p2psync-config.{own}.7000.new"),
            format!(".p2psync-config.{GONE}.new"),
            format!(".p2psync-config.{GONE}.x.new"),
            format!(".p2psync-config.{GONE}.3.new.mine"),
            format!(".config.{GONE}.new"),
        ];
        stays.iter().chain([&left]).for_each(|name| std::fs::write(dir.path().join(name), "x").unwrap());
        std::fs::create_dir(dir.path().join(format!(".p2psync-config.{GONE}.4.new"))).unwrap();
        let link = dir.path().join(format!(".p2psync-config.{GONE}.5.new"));
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        write_beside_and_rename(&target, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "new");
        assert!(!dir.path().join(left).exists());
        assert!(stays.iter().all(|name| dir.path().join(name).exists()) && link.is_symlink());
        // All that, the config, the link and the directory.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), stays.len() + 3);
    }

    #[test]
    fn an_edit_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("config.toml");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("x"), "").unwrap();
        assert!(write_beside_and_rename(&target, "new").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
