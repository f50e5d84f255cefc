//! The command line.

use std::fmt;
use std::path::PathBuf;

use super::arguments_past::{ConflictCommand, GoingBack, Past, Waiting};
use super::arguments_rules::{DirectionWord, IgnoreCommand};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::accept::AcceptArguments;
use super::completions::Shell;
use super::folder_rules::Forcing;
use super::pair::PairArguments;
use super::service::System;

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
    Run {
        /// Log to this file instead of stderr; it is kept small by starting a new one now and then
        #[arg(long, value_name = "FILE")]
        log_file: Option<PathBuf>,
    },
    /// Show how things are, or all about one path
    Status {
        /// A file or directory in one of the folders
        path: Option<PathBuf>,
        /// Keep showing how things are, and act on folders with single keys
        #[arg(short, long, conflicts_with_all = ["path", "json"])]
        watch: bool,
        /// List everything that is not in sync, with the reasons; with a path only what is below it
        #[arg(long, conflicts_with = "watch")]
        problems: bool,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
        /// End with code 3 where something is not in sync, and with 4 where no agent runs
        #[arg(long)]
        exit_code: bool,
    },
    /// Pair with another device: shows a code, or takes the code that the other shows
    Pair(PairArguments),
    /// Other devices
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Folders on this device
    #[command(subcommand)]
    Folder(FolderCommand),
    /// Leave all folders, or one, alone for a time or until 'resume'
    Pause {
        /// A folder's id or label (all if left out), then how long: 30m, 1h, 2d, or until 18:00
        #[arg(value_name = "FOLDER|TIME")]
        words: Vec<String>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Go on with all folders, or one
    Resume {
        /// Id or label; all folders if left out
        #[arg(value_name = "FOLDER")]
        folder: Option<String>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// What is not synced, and why
    #[command(subcommand)]
    Ignore(IgnoreCommand),
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
    ///
    /// Where two devices changed a file at once, the later version has its name, and the other lies beside it as a
    /// conflict copy.
    #[command(args_conflicts_with_subcommands = true)]
    Conflicts {
        #[command(subcommand)]
        command: Option<ConflictCommand>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List earlier versions of a path, or see to how much space they take
    #[command(args_conflicts_with_subcommands = true)]
    History(Past),
    /// Bring back an earlier version of a file or directory; what lies there now goes into the history
    ///
    /// A directory with a time goes back to what it was then on this device: what was there comes back, and what has
    /// come since goes into the history, whenever it was written. You are told first how much that is, and what stays
    /// because it is not known what it was. Since when a version stood there is noted on this device; of what the first
    /// scan of the folder found, and of versions that only another device has, the file's own time has to do.
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
    ///
    /// What it replaced or deleted comes back, what it added goes into the history. What you changed since stays. You
    /// are told first how much that is.
    Undo {
        /// Id or label; if left out, the folder of the current directory, or the one that another device changed last
        #[arg(value_name = "FOLDER")]
        folder: Option<String>,
        /// Take back the last 'undo' or 'restore' of a directory instead
        #[arg(long)]
        revert: bool,
        #[command(flatten)]
        going: GoingBack,
    },
    /// Wait until other devices have what is here
    ///
    /// Waits for what is in the folders at the moment of asking; of what changes later only PATH itself is waited for,
    /// if it is a file. A device counts once the files lie complete on its disk. Ends with 0 once that is so, and with
    /// 3 where the time was over before.
    Wait(Waiting),
    /// Print this device's id (and make its key if there is none)
    Id {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// The config file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run the agent in the background, from login to logout
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Look for what may keep p2psync from working well, and say what to do about it
    Doctor {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
        /// Write a report for the developers to this new file: no file names, names of devices, addresses or keys
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Print a script that lets a shell complete commands, folders, peers and paths
    Completions { shell: Shell },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man { dir: PathBuf },
}

#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// Set the service up and start it
    Install {
        /// Take the place of a service file that was changed by hand; the old one is kept beside it
        #[arg(long)]
        replace: bool,
    },
    /// Stop the service and remove it; folders, key and settings stay
    Uninstall,
    /// Start the service
    Start,
    /// Stop the service until the next login
    Stop,
    /// Tell whether the service is set up and runs
    Status {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what the service has logged
    Logs {
        /// Go on showing what is added
        #[arg(short, long)]
        follow: bool,
        /// How many lines
        #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 100)]
        lines: u32,
    },
    /// Print the service file, to set it up by hand
    Print {
        /// For which system
        #[arg(long, value_enum, default_value_t)]
        system: System,
    },
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
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
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
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Call a peer something else on this device
    Rename {
        #[arg(value_name = "ID|NAME")]
        peer: String,
        #[arg(value_name = "NEW")]
        name: String,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
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
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List all folders
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Take part in a folder that another device shares with this one
    Accept(AcceptArguments),
    /// Stop sharing a folder; its files stay where they are
    Remove(OneFolder),
    /// Say with whom a folder is shared
    Share {
        #[command(flatten)]
        folder: OneFolder,
        #[command(flatten)]
        peers: Peers,
    },
    /// Say which way changes go: both ways, only from this device, or only to it
    Direction {
        /// Id or label
        folder: String,
        /// The new direction; shown if left out
        #[arg(value_enum)]
        direction: Option<DirectionWord>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// In a folder that only sends: have what is here take the place of what other devices have
    Override(Forcing),
    /// In a folder that only receives: move what was changed here into history and take what other devices have
    Revert(Forcing),
    /// Say which part of a folder is wanted on this device, or show it
    Select {
        /// Id or label; may be left out if there is just one folder
        folder: Option<String>,
        /// A path from the folder's root, * and ** as in ignore rules; may be given several times
        #[arg(long, value_name = "PATTERN", conflicts_with = "all")]
        only: Vec<String>,
        /// All of it again
        #[arg(long)]
        all: bool,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
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
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
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
    Check {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Print where the config file is
    Path {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show every setting as it is in effect, and where it comes from
    Show {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Bring a config file of an older version up to date; the old one is kept beside it
    Upgrade,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    const ACCEPTED: &[&[&str]] = &[
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
        &["folder", "direction", "f", "send"],
        &["folder", "direction", "f", "--json"],
        &["folder", "override", "f", "--yes"],
        &["folder", "revert"],
        &["folder", "revert", "f", "-y", "--json"],
        &["folder", "select", "f", "--only", "a/**", "--only", "b"],
        &["folder", "select", "--all"],
        &["pause"],
        &["pause", "f", "until", "18:00", "--json"],
        &["resume", "f"],
        &["ignore", "test", "a", "--json"],
        &["ignore", "list"],
        &["pair"],
        &["pair", "apple", "guitar", "lemon", "zebra", "--accept", "all", "--into", "/p"],
        &["pair", "p2psync://pair?code=ABCDEFGH", "--accept", "none", "--json"],
        &["folder", "accept", "Photos", "/p", "--merge", "--json"],
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
        &["config", "show", "--json"],
        &["status", "--exit-code"],
        &["run", "--log-file", "/l"],
        &["service", "install"],
        &["service", "logs", "-f", "-n", "5"],
        &["service", "print", "--system", "launchd"],
        &["doctor", "--bundle", "report.json"],
        &["completions", "bash"],
    ];

    #[test]
    fn commands_are_read_as_documented() {
        for words in ACCEPTED {
            let line = std::iter::once("p2psync").chain(words.iter().copied());
            assert!(Arguments::try_parse_from(line).is_ok(), "{words:?}");
        }
        for words in [
            &["peer"][..],
            &["restore"],
            &["folder", "direction", "f", "up"],
            &["ignore", "test"],
            &["frobnicate"],
            &["run", "--log-level", "loud"],
            &["completions"],
        ] {
            let line = std::iter::once("p2psync").chain(words.iter().copied());
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn a_status_is_live_or_of_a_path_or_a_list_of_what_is_not_in_sync() {
        let read = |words: &[&str]| Arguments::try_parse_from(["p2psync", "status"].iter().chain(words));
        for words in [&["--watch"][..], &["-w"], &["--problems", "--json"], &["a", "--problems", "--exit-code"]] {
            assert!(read(words).is_ok(), "{words:?}");
        }
        for words in [&["--watch", "a"][..], &["-w", "--json"], &["-w", "--problems"]] {
            assert_eq!(read(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
