//! Other tools that keep two directories the same, doing the same work on the same machine.
//!
//! Every tool runs as a pair of processes that talk over a TCP socket on the loopback address, with its default
//! options as far as these have to do with speed. All their own files lie in a directory given for that.

mod http;
mod process;
mod rsync;
mod syncthing;
mod unison;

use crate::measure::Cost;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// Longest time for bringing over one change.
const WORK_BOUND: Duration = Duration::from_secs(15 * 60);
/// Longest time for a start, or for the processes of one connection to end.
const START_BOUND: Duration = Duration::from_secs(60);

/// Another tool that does the same work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Other {
    Rsync,
    Unison,
    Syncthing,
}

impl Other {
    pub const ALL: [Other; 3] = [Other::Rsync, Other::Unison, Other::Syncthing];

    /// The name of the tool, which is also that of its program.
    pub fn name(self) -> &'static str {
        match self {
            Other::Rsync => "rsync",
            Other::Unison => "unison",
            Other::Syncthing => "syncthing",
        }
    }

    /// None where it is not installed: else its version's first line, for the report.
    pub fn version(self) -> Option<String> {
        let option = if self == Other::Unison { "-version" } else { "--version" };
        let output = Command::new(self.name()).arg(option).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty())?;
        output.status.success().then(|| line.to_owned())
    }

    /// Sets the tool up between two directories, of which nothing is copied yet; `places` is for the tool's own files.
    ///
    /// Of Syncthing both agents run and are connected, and the folder is there but paused.
    pub fn set_up(self, places: &Path, from: &Path, to: &Path) -> anyhow::Result<Link> {
        // Tools name directories in files and addresses of their own, where a relative path means something else.
        let whole = |path: &Path| path.canonicalize().with_context(|| format!("no directory at {}", path.display()));
        let (places, from, to) = (whole(places)?, whole(from)?, whole(to)?);
        let way = match self {
            Other::Rsync => Way::Rsync(rsync::Link::new(&places, &from, &to)?),
            Other::Unison => Way::Unison(unison::Link::new(&places, &from, &to)?),
            Other::Syncthing => Way::Syncthing(Box::new(syncthing::Link::new(&places, &from, &to)?)),
        };
        Ok(Link { way })
    }
}

/// A tool that is set up between two directories. Ends its processes when dropped.
pub struct Link {
    way: Way,
}

enum Way {
    Rsync(rsync::Link),
    Unison(unison::Link),
    Syncthing(Box<syncthing::Link>),
}

impl Link {
    /// Brings `to` to what `from` holds, and tells what that took.
    ///
    /// rsync and unison are run once, and have brought everything over when they end. Syncthing's agents run all the
    /// time: the clock starts with a request for a scan, so the delay of its watcher (10 s by default) is not counted,
    /// and stops when the scan has ended and the agents agree that the receiver needs nothing more.
    ///
    /// The watcher is on, so call this soon after a change: 10 s later Syncthing has begun without the clock. For rsync
    /// and unison this returns up to two seconds later than what is counted, as they'd miss changes otherwise.
    pub fn bring_over(&mut self) -> anyhow::Result<Cost> {
        match &mut self.way {
            Way::Rsync(link) => link.bring_over(),
            Way::Unison(link) => link.bring_over(),
            Way::Syncthing(link) => link.bring_over(),
        }
    }
}
