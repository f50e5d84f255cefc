//! The user's instance of systemd, through its own command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

use super::{PACKAGED_UNIT, unit};

/// The unit.
pub const NAME: &str = "p2psync.service";

/// The service manager of this user.
pub struct Systemd {
    unit_dir: PathBuf,
}

impl Systemd {
    /// The manager, or in words why it can't be used.
    pub fn reach() -> Result<Self, String> {
        let dirs = directories::BaseDirs::new().ok_or("there is no home directory")?;
        let output = systemctl(&["show-environment"]).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "there is no systemctl".to_owned(),
            _ => format!("systemctl: {e}"),
        })?;
        if !output.status.success() {
            return Err(said(&output));
        }
        Ok(Self { unit_dir: dirs.config_dir().join("systemd/user") })
    }

    /// The unit file that `service install` writes.
    pub fn own_unit(&self) -> PathBuf {
        self.unit_dir.join(NAME)
    }

    /// The unit file that is there.
    pub fn installed_unit(&self) -> anyhow::Result<PathBuf> {
        let packaged = || Some(PathBuf::from(PACKAGED_UNIT)).filter(|p| p.exists() && self.is_enabled());
        let found = Some(self.own_unit()).filter(|p| p.exists()).or_else(packaged);
        found.context("p2psync is not set up as a service; 'p2psync service install' does that")
    }

    /// Writes the unit. One that was changed by hand is only replaced by order, and kept beside.
    pub fn write_unit(&self, text: &str, replace: bool) -> anyhow::Result<Option<PathBuf>> {
        let path = self.own_unit();
        std::fs::create_dir_all(&self.unit_dir)
            .with_context(|| format!("cannot make the directory {}", self.unit_dir.display()))?;
        let mut kept = None;
        if path.symlink_metadata().is_ok() && !is_ours(&path) {
            if !replace {
                bail!(
                    "{} was changed by hand or made by something else; move it away, or take its place with: \
                     p2psync service install --replace",
                    path.display()
                );
            }
            kept = Some(set_aside(&path)?);
        }
        let fresh = self.unit_dir.join(format!(".{NAME}.new"));
        std::fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(kept)
    }

    /// Removes the unit that `service install` wrote; one that was changed since is kept beside.
    pub fn remove_unit(&self) -> anyhow::Result<Option<PathBuf>> {
        let path = self.own_unit();
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        if !is_ours(&path) {
            return set_aside(&path).map(Some);
        }
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok(None)
    }

    pub fn is_active(&self) -> bool {
        // One that is starting or stopping runs too.
        systemctl(&["is-active", NAME])
            .is_ok_and(|o| ["active", "activating", "reloading", "deactivating"].contains(&stdout(&o).as_str()))
    }

    pub fn is_enabled(&self) -> bool {
        systemctl(&["is-enabled", NAME]).is_ok_and(|o| stdout(&o) == "enabled")
    }

    /// Has something done.
    pub fn order(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = systemctl(words).context("cannot run systemctl")?;
        if !output.status.success() {
            bail!("'systemctl --user {}' failed: {}", words.join(" "), said(&output));
        }
        Ok(())
    }
}

fn systemctl(words: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl").arg("--user").args(words).stdin(Stdio::null()).output()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().lines().next().unwrap_or_default().to_owned();
    if text.is_empty() { output.status.to_string() } else { text }
}

fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| unit::is_unchanged(&text))
}

/// Renames a file to the first free name beside it.
fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let name =
        |n: u32| PathBuf::from(format!("{}.old{}", path.display(), if n == 0 { String::new() } else { n.to_string() }));
    let free = (0..u32::MAX).map(name).find(|p| p.symlink_metadata().is_err()).context("no name is free")?;
    std::fs::rename(path, &free).with_context(|| format!("cannot rename {}", path.display()))?;
    Ok(free)
}
