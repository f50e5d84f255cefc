//! Replacing a file so that a crash leaves the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::failpoint;

/// Writes a file beside the target and renames it over that, with the mode of the one that it replaces.
pub fn write_beside_and_rename(target: &Path, text: &str) -> io::Result<()> {
    let temporary = target.with_file_name(format!(".config.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mode = std::fs::metadata(target).map_or(0o600, |found| found.permissions().mode() & 0o777);
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    failpoint::hit("config.written");
    file.sync_all()?;
    failpoint::hit("config.synced");
    std::fs::rename(&temporary, target)?;
    failpoint::hit("config.renamed");
    if let Some(dir) = target.parent() {
        File::open(dir)?.sync_all()?;
    }
    failpoint::hit("config.durable");
    Ok(())
}
