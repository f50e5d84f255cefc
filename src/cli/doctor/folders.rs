//! Folders: what their disks can do, how much room there is, and whether their indexes are in order.

use std::io;

use super::Patient;
use super::check::{Check, Fact, Outcome};
use crate::api::FolderStatus;
use crate::cli::output;
use crate::config::Folder;
use crate::fs::probe::{self, Abilities, ProbeError};
use crate::index::{IndexError, Reader};

/// Free space in bytes under which a disk is nearly full, whatever is still to come.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Coarsest grain of times that tells quick changes apart.
const FINE_GRAIN_NS: u64 = 1_000_000;

/// Checks of all folders.
pub fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks = Vec::new();
    for (item, folder) in patient.config.folders.iter().enumerate() {
        let status = patient.status.folders.iter().find(|f| f.id == folder.id.as_str());
        match probe::abilities(&folder.path) {
            Ok(found) => {
                checks.push(disk(item, folder, &found));
                checks.push(space(item, folder, &found, status));
            }
            Err(error) => checks.push(unreachable(item, folder, &error)),
        }
        checks.push(index(patient, item, folder));
    }
    checks
}

fn disk(item: usize, folder: &Folder, found: &Abilities) -> Check {
    let mut lacks = Vec::new();
    let mut lack = |is_lacking: bool, words: &'static str| lacks.extend(is_lacking.then_some(words));
    lack(!found.case_sensitive, "names that differ only in case (a second one is not taken here)");
    lack(!found.symlinks, "symbolic links (they are not taken here)");
    lack(!found.modes, "the executable bit");
    lack(!found.exchange, "swapping two files in one step (replacing a file takes two steps here)");
    lack(found.mtime_grain_ns > FINE_GRAIN_NS, "exact times of change");
    let (outcome, text) = match lacks.is_empty() {
        true => (Outcome::Ok, "the file system can do all that is needed".to_owned()),
        false => (Outcome::Warn, format!("the file system does not know {}", lacks.join("; "))),
    };
    let extras = if found.reflinks { "; copies on it take no space of their own" } else { "" };
    let check = Check::new("Disk of", "file_system", outcome, format!("{text}{extras}"))
        .about(folder.label.clone())
        .item(item)
        .fact("case_sensitive", Fact::Flag(found.case_sensitive))
        .fact("mtime_grain_ns", Fact::Number(found.mtime_grain_ns))
        .fact("reflinks", Fact::Flag(found.reflinks))
        .fact("symlinks", Fact::Flag(found.symlinks))
        .fact("xattrs", Fact::Flag(found.xattrs))
        .fact("modes", Fact::Flag(found.modes))
        .fact("exchange", Fact::Flag(found.exchange));
    match outcome {
        Outcome::Ok => check,
        _ => check.remedy("p2psync works around it; a folder on ext4, btrfs or XFS has none of these limits"),
    }
}

fn space(item: usize, folder: &Folder, found: &Abilities, status: Option<&FolderStatus>) -> Check {
    let to_come = status.map_or(0, |s| s.need_bytes);
    let needed = to_come.saturating_add(FREE_BYTES_MIN);
    let free = output::bytes(found.free_bytes);
    let check = |outcome, text: String| {
        let check = Check::new("Space for", "space", outcome, text).about(folder.label.clone()).item(item);
        check.fact("free_bytes", Fact::Number(found.free_bytes)).fact("to_come_bytes", Fact::Number(to_come))
    };
    if found.free_bytes < to_come {
        return check(Outcome::Fail, format!("{free} are free, and {} are to come", output::bytes(to_come)))
            .remedy("free some space on this disk; what waits goes on by itself");
    }
    if found.free_bytes < needed {
        return check(Outcome::Warn, format!("only {free} are free")).remedy("free some space on this disk");
    }
    check(Outcome::Ok, format!("{free} are free"))
}

fn unreachable(item: usize, folder: &Folder, error: &ProbeError) -> Check {
    let check = |outcome, word, text: String| {
        let check = Check::new("Disk of", "file_system", outcome, text).about(folder.label.clone()).item(item);
        check.fact("trouble", Fact::Word(word))
    };
    match error {
        ProbeError::Absent { .. } => check(Outcome::Fail, "absent", error.to_string())
            .remedy("mount its disk, make the directory, or correct the path in the config"),
        ProbeError::NotSetUp { .. } => {
            check(Outcome::Unknown, "not_set_up", error.to_string()).remedy("start the agent once: p2psync run")
        }
        ProbeError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            check(Outcome::Fail, "permission", error.to_string())
                .remedy("let your user write to the directory and to .p2psync in it")
        }
        ProbeError::Io { .. } => check(Outcome::Fail, "io", error.to_string())
            .remedy("see that the disk is healthy, mounted for writing, and not full"),
    }
}

fn index(patient: &Patient, item: usize, folder: &Folder) -> Check {
    let path = patient.context.home.index_file(&folder.id);
    let bytes = std::fs::metadata(&path).map_or(0, |found| found.len());
    let check = |outcome, word, text: String| {
        let check = Check::new("Index of", "index", outcome, text).about(folder.label.clone()).item(item);
        check.fact("bytes", Fact::Number(bytes)).fact("state", Fact::Word(word))
    };
    match Reader::open(&path).and_then(|reader| reader.check_health()) {
        Ok(()) => check(Outcome::Ok, "healthy", format!("in order, {}", output::bytes(bytes))),
        Err(IndexError::Missing { .. }) => check(Outcome::Unknown, "missing", "there is none yet".to_owned())
            .remedy("the agent makes it when it starts"),
        Err(error @ IndexError::Corrupt { .. }) => check(Outcome::Fail, "damaged", error.to_string())
            .remedy("restart the agent: it sets the damaged one aside and makes it anew from the files and the peers"),
        Err(error) => check(Outcome::Fail, "unreadable", error.to_string())
            .remedy("see that the file can be read, and that the program is not older than the one that wrote it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sharing;

    fn folder() -> Folder {
        Folder { label: "F".into(), ..Folder::new("f".parse().unwrap(), "/f".into(), Sharing::All) }
    }

    fn able() -> Abilities {
        Abilities {
            case_sensitive: true,
            mtime_grain_ns: 1,
            reflinks: false,
            symlinks: true,
            xattrs: false,
            modes: true,
            exchange: true,
            free_bytes: 1 << 40,
            total_bytes: 1 << 41,
        }
    }

    #[test]
    fn what_a_disk_lacks_is_told() {
        assert_eq!(disk(0, &folder(), &able()).outcome, Outcome::Ok);
        let poor = Abilities { case_sensitive: false, mtime_grain_ns: 2_000_000_000, symlinks: false, ..able() };
        let told = disk(0, &folder(), &poor);
        assert_eq!(told.outcome, Outcome::Warn);
        assert!(["case", "symbolic links", "times"].iter().all(|word| told.text.contains(word)), "{}", told.text);
    }

    #[test]
    fn a_disk_that_what_is_to_come_does_not_fit_is_a_failure() {
        let status = |need_bytes| FolderStatus { need_bytes, ..Default::default() };
        let outcome =
            |free_bytes, need| space(0, &folder(), &Abilities { free_bytes, ..able() }, Some(&status(need))).outcome;
        assert_eq!(outcome(1 << 40, 1 << 30), Outcome::Ok);
        assert_eq!(outcome(1 << 20, 0), Outcome::Warn);
        assert_eq!(outcome(1 << 30, 1 << 31), Outcome::Fail);
    }
}
