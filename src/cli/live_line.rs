//! The line at the bottom of a terminal in which `p2psync run` says how things are. Logs are written above it.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::clean;
use super::status::words;
use crate::api::client;
use crate::api::{FolderState, FolderStatus, Reply, Request, Status};
use crate::home::Home;

/// How often the line changes while something is going on.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether something has begun.
const IDLE_PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take; an older line stays meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The line, once there is one. The log is set up before it is known whether there will be.
static LINE: OnceLock<ProgressBar> = OnceLock::new();

/// Shows the line until it is dropped. Nothing where stderr is no terminal.
pub struct LiveLine(());

impl LiveLine {
    /// Shows how the agent of this home does.
    pub fn start(home: &Home) -> io::Result<Self> {
        if !io::stderr().is_terminal() {
            return Ok(Self(()));
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{wide_msg}").map_err(io::Error::other)?);
        let bar = LINE.get_or_init(|| bar).clone();
        let home = home.clone();
        let show = move || {
            while !bar.is_finished() {
                let mut pause = BUSY_PAUSE;
                if let Ok(Reply::Status(status)) = client::ask(&home, &Request::Status, ANSWER_TIME) {
                    let is_busy = status.folders.iter().any(|folder| is_busy(folder.state));
                    pause = if is_busy { BUSY_PAUSE } else { IDLE_PAUSE };
                    bar.set_message(text(&status));
                }
                std::thread::sleep(pause);
            }
        };
        std::thread::Builder::new().name("live line".into()).spawn(show)?;
        Ok(Self(()))
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if let Some(bar) = LINE.get() {
            bar.finish_and_clear();
        }
    }
}

/// Stderr for the log: the line makes way for each record.
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match LINE.get() {
            Some(bar) if !bar.is_finished() => bar.suspend(|| io::stderr().write_all(bytes))?,
            _ => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn is_busy(state: FolderState) -> bool {
    matches!(state, FolderState::Syncing | FolderState::Scanning | FolderState::Starting)
}

/// What is going on, or how things are, in one line; what matters most comes first, for a narrow terminal cuts the rest.
fn text(status: &Status) -> String {
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    let devices =
        format!("{connected} of {} connected", super::output::count(status.peers.len() as u64, "device", "devices"));
    let busy: Vec<String> = status.folders.iter().filter(|f| is_busy(f.state)).map(one_folder).collect();
    let rest: Vec<String> = status.folders.iter().filter(|f| !is_busy(f.state)).map(one_folder).collect();
    let mut parts = busy;
    // Where all is quiet many folders say no more than one.
    parts.extend(match &rest[..] {
        [] => None,
        [_, _, ..] if status.folders.iter().all(|f| f.state == FolderState::InSync) => Some(all_in_sync(status)),
        several => Some(several.join("; ")),
    });
    if !status.peers.is_empty() {
        parts.push(devices);
    }
    parts.join("; ")
}

/// With whom that is, for nobody knows what devices have done that are away.
fn all_in_sync(status: &Status) -> String {
    let is_alone = !status.peers.iter().any(|peer| peer.connected);
    match (status.peers.is_empty(), is_alone) {
        (true, _) => "no other device yet: 'p2psync pair' adds one".to_owned(),
        (false, true) => "all in sync, as of when the others were last connected".to_owned(),
        (false, false) => "all in sync".to_owned(),
    }
}

fn one_folder(folder: &FolderStatus) -> String {
    let pace = words::pace(folder);
    let label = clean(&folder.label);
    match (folder.state, pace.is_empty()) {
        (FolderState::Syncing, false) => format!("{label}: {}", pace.join(", ")),
        _ => format!("{label}: {}", words::state_text(folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::samples;
    use super::*;

    #[test]
    fn the_line_tells_what_goes_on_first() {
        let lines = [samples::in_sync(), samples::busy(), samples::held()].map(|status| text(&status)).join("\n");
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn several_folders_are_in_sync_only_with_whom_they_have_met() {
        let mut status = samples::in_sync();
        status.folders.push(status.folders[0].clone());
        assert_eq!(text(&status), "all in sync; 1 of 2 devices connected");
        status.peers.iter_mut().for_each(|peer| peer.connected = false);
        let told = text(&status);
        assert_eq!(told, "all in sync, as of when the others were last connected; 0 of 2 devices connected");
        status.peers.clear();
        assert_eq!(text(&status), "no other device yet: 'p2psync pair' adds one");
    }
}
