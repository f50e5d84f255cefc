//! The command line.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps folders the same on your own devices, peer to peer
#[derive(Parser, Debug)]
#[command(name = "p2psync", version, after_help = "Without a command: a short status, and what to do next.")]
pub struct Arguments {
    /// Keep settings, key, index and socket in this directory (also: P2PSYNC_HOME)
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// How much to log to stderr (finer control: RUST_LOG)
    #[arg(long, global = true, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Loudness of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent in the foreground
    Run,
    /// Show how things are, or all about one path
    Status {
        /// A file or directory in one of the folders
        path: Option<PathBuf>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Pair with another device: shows a code, or takes the code that the other shows
    Pair {
        /// The code shown on the other device
        code: Option<String>,
    },
    /// Other devices
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Folders on this device
    #[command(subcommand)]
    Folder(FolderCommand),
    /// Show the latest events
    Log {
        /// How many
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 20)]
        count: usize,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List conflict copies, or settle a conflict
    #[command(args_conflicts_with_subcommands = true, after_help = CONFLICTS_HELP)]
    Conflicts {
        #[command(subcommand)]
        command: Option<ConflictCommand>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List earlier versions of a path, or see to how much space they take
    #[command(args_conflicts_with_subcommands = true, after_help = HISTORY_HELP)]
    History(Past),
    /// Bring back an earlier version of a file or directory; what lies there now goes into the history
    #[command(after_help = RESTORE_HELP)]
    Restore {
        /// PATH or PATH@WHEN; WHEN is an id from 'history', '2h' or '3d' ago, or a time like 2026-11-20T14:03
        #[arg(value_name = "PATH[@WHEN]")]
        path: PathBuf,
        /// WHEN, for paths that contain an @
        #[arg(long, value_name = "WHEN")]
        at: Option<String>,
        #[command(flatten)]
        going: GoingBack,
    },
    /// Take back what another device did last to a folder, all that it did in one go
    #[command(after_help = UNDO_HELP)]
    Undo {
        #[command(flatten)]
        folder: OneFolder,
        /// Take back the last 'undo' or 'restore' of a directory instead
        #[arg(long)]
        revert: bool,
        #[command(flatten)]
        going: GoingBack,
    },
    /// Wait until other devices have what is here
    #[command(after_help = WAIT_HELP)]
    Wait(Waiting),
    /// Print this device's id (and make its key if there is none)
    Id,
    /// The config file
    #[command(subcommand)]
    Config(ConfigCommand),
}

const CONFLICTS_HELP: &str = "\
Two devices changed a file at once: the later version has its name, the other lies beside it as a conflict copy.

Examples:
  p2psync conflicts                                lists them
  p2psync conflicts resolve report.odt --diff      shows how the copy differs
  p2psync conflicts resolve report.odt --keep mine keeps what was written on this device";

const RESOLVE_HELP: &str = "\
Settled on one device it is settled on all. What is not kept goes into the history.

Examples:
  p2psync conflicts resolve report.odt --keep both         keeps the copy under an ordinary name
  p2psync conflicts resolve notes.txt --keep merged.txt    takes this file in place of both
  p2psync conflicts resolve notes.txt --tool 'meld \"$LOCAL\" \"$OUTPUT\" \"$REMOTE\"'";

#[derive(Subcommand, Debug)]
pub enum ConflictCommand {
    /// Settle a conflict
    #[command(after_help = RESOLVE_HELP)]
    Resolve(Resolving),
}

/// How to settle a conflict.
#[derive(Args, Debug)]
#[group(id = "how", required = true, multiple = false, args = ["keep", "diff", "tool"])]
pub struct Resolving {
    /// The conflict copy, or the file it is a copy of
    pub path: PathBuf,
    /// Keep what was written on this device, what was written elsewhere, both, or the content of a file
    #[arg(long, value_name = "mine|theirs|both|FILE")]
    pub keep: Option<PathBuf>,
    /// Show how the two differ, and do nothing
    #[arg(long)]
    pub diff: bool,
    /// Run a program that merges: BASE, LOCAL and REMOTE are files to read, OUTPUT is the file that it writes. BASE is
    /// empty where the common version is not known. Where it ends well, OUTPUT is kept
    #[arg(long, value_name = "COMMAND")]
    pub tool: Option<String>,
}

const RESTORE_HELP: &str = "\
A directory with a time goes back to what it was then: what was there comes back, and what has come since goes into the
history. You are told first how much that is.

Examples:
  p2psync restore report.odt        the version before the last change that another device made
  p2psync restore report.odt@2d     as it was two days ago
  p2psync restore photos@3h         the directory as it was three hours ago";

const UNDO_HELP: &str = "\
What the other device replaced or deleted comes back, what it added goes into the history. What you changed since stays.
You are told first how much that is.

Examples:
  p2psync undo --dry-run     shows what would be undone
  p2psync undo               undoes it
  p2psync undo --revert      takes that back";

/// How to go about taking many things back.
#[derive(Args, Debug)]
pub struct GoingBack {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

const HISTORY_HELP: &str = "\
Examples:
  p2psync history report.odt                 lists its earlier versions
  p2psync history --usage                    how much space all earlier versions take
  p2psync history prune --older-than 10d     removes what was put there more than ten days ago";

/// What of the history.
#[derive(Args, Debug)]
pub struct Past {
    #[command(subcommand)]
    pub command: Option<HistoryCommand>,
    /// A file or directory in one of the folders; it may be gone. With --usage a folder, or all if left out
    #[arg(required_unless_present = "usage")]
    pub path: Option<PathBuf>,
    /// Show how much space the history takes
    #[arg(long)]
    pub usage: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
pub enum HistoryCommand {
    /// Remove earlier versions for good; the files in the folder stay as they are
    Prune {
        #[command(flatten)]
        folder: OneFolder,
        /// Only those that were put there longer ago than this, such as 12h, 10d or 4w; all if left out
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        #[command(flatten)]
        going: GoingBack,
    },
}

const WAIT_HELP: &str = "\
Waits for what is in the folders at the moment of asking; what changes later is not waited for, unless PATH is a file.
A device counts once the files lie complete on its disk.

Ends with 0 once that is so, and with 3 where the time was over before.

Examples:
  p2psync wait                                   until all other devices have everything
  p2psync wait report.odt --peers 1 --timeout 5m until one other device has this file";

/// For what to wait, and for how long.
#[derive(Args, Debug)]
pub struct Waiting {
    /// A file or directory in one of the folders; all folders if left out
    pub path: Option<PathBuf>,
    /// How many other devices have to have it
    #[arg(long, value_name = "N|all", default_value = "all")]
    pub peers: String,
    /// Give up after this long, such as 90s, 5m or 2h; waits for ever if left out
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
pub enum PeerCommand {
    /// Add a device by its id; do the same on the other device ('pair' does both at once)
    Add {
        /// The other device's id, from 'p2psync id' there
        id: String,
        /// What to call it on this device
        #[arg(long)]
        name: Option<String>,
        /// Where to reach it; may be given several times
        #[arg(long = "address", value_name = "HOST:PORT")]
        addresses: Vec<String>,
    },
    /// List all peers
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Stop sharing with a device
    Remove {
        #[arg(value_name = "ID|NAME")]
        peer: String,
    },
    /// Call a peer something else on this device
    Rename {
        #[arg(value_name = "ID|NAME")]
        peer: String,
        #[arg(value_name = "NEW")]
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum FolderCommand {
    /// Share a directory; it is made if missing
    Add {
        /// The directory
        path: PathBuf,
        /// The id that the folder has on the other devices; random if left out
        #[arg(long)]
        id: Option<String>,
        /// Name shown to you; the directory's if left out
        #[arg(long)]
        label: Option<String>,
        #[command(flatten)]
        peers: Peers,
    },
    /// List all folders
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Stop sharing a folder; its files stay where they are
    Remove(OneFolder),
    /// Say with whom a folder is shared
    Share {
        #[command(flatten)]
        folder: OneFolder,
        #[command(flatten)]
        peers: Peers,
    },
    /// Leave a folder alone for now
    Pause(OneFolder),
    /// Go on with a paused folder
    Resume(OneFolder),
    /// Scan a folder now, or all
    Rescan(OneFolder),
    /// Carry out the many deletions that were held back
    ConfirmChanges(OneFolder),
    /// Undo the many deletions that were held back
    RejectChanges(OneFolder),
}

/// A folder, which need not be named where there is just one.
#[derive(Args, Debug)]
pub struct OneFolder {
    /// Id or label; may be left out if there is just one folder
    #[arg(value_name = "FOLDER")]
    pub name: Option<String>,
}

/// With whom to share.
#[derive(Args, Debug)]
pub struct Peers {
    /// A peer to share with, or 'all'; may be given several times
    #[arg(long = "peer", value_name = "ID|NAME|all")]
    pub peers: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check the config file
    Check,
    /// Print where the config file is
    Path,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_are_read_as_documented() {
        let accepted: &[&[&str]] = &[
            &[],
            &["id"],
            &["--home", "/h", "run"],
            &["run", "--home", "/h", "--log-level", "debug"],
            &["peer", "add", "ID", "--name", "n", "--address", "a:1", "--address", "b:2"],
            &["peer", "list"],
            &["peer", "remove", "desktop"],
            &["peer", "rename", "desktop", "new"],
            &["folder", "add", "/p", "--id", "i", "--label", "l", "--peer", "a", "--peer", "b"],
            &["folder", "list"],
            &["folder", "remove"],
            &["folder", "share", "f", "--peer", "all"],
            &["folder", "pause", "f"],
            &["folder", "resume"],
            &["folder", "rescan"],
            &["folder", "confirm-changes", "f"],
            &["folder", "reject-changes", "f"],
            &["pair"],
            &["pair", "ABCD-EFGH"],
            &["status"],
            &["status", "a/b", "--json"],
            &["log", "-n", "5", "--json"],
            &["conflicts", "--json"],
            &["history", "a", "--json"],
            &["history", "--usage"],
            &["history", "--usage", "f", "--json"],
            &["history", "prune", "f", "--older-than", "10d", "--yes"],
            &["restore", "a@2d"],
            &["restore", "a@2d", "--dry-run", "--json"],
            &["undo"],
            &["undo", "f", "--revert", "--yes"],
            &["wait"],
            &["conflicts", "resolve", "a", "--keep", "mine"],
            &["conflicts", "resolve", "a", "--diff"],
            &["conflicts", "resolve", "a", "--tool", "merge"],
            &["wait", "a", "--peers", "2", "--timeout", "5m", "--json"],
            &["config", "check"],
            &["config", "path"],
        ];
        for words in accepted {
            let line = std::iter::once("p2psync").chain(words.iter().copied());
            assert!(Arguments::try_parse_from(line).is_ok(), "{words:?}");
        }
        for words in [
            &["peer"][..],
            &["restore"],
            &["history"],
            &["conflicts", "resolve", "a"],
            &["conflicts", "resolve", "--diff"],
            &["frobnicate"],
            &["run", "--log-level", "loud"],
        ] {
            let line = std::iter::once("p2psync").chain(words.iter().copied());
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
