//! The part of the command line that is about the past, and about who has what.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::arguments::OneFolder;

pub const CONFLICTS_HELP: &str = "\
Two devices changed a file at once: the later version has its name, the other lies beside it as a conflict copy.

Examples:
  p2psync conflicts                                lists them
  p2psync conflicts resolve report.odt --diff      shows how the copy differs
  p2psync conflicts resolve report.odt --keep mine keeps what was written on this device";

pub const RESOLVE_HELP: &str = "\
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

pub const RESTORE_HELP: &str = "\
A directory with a time goes back to what it was then: what was there comes back, and what has come since goes into the
history. You are told first how much that is.

Examples:
  p2psync restore report.odt        the version before the last change that another device made
  p2psync restore report.odt@2d     as it was two days ago
  p2psync restore photos@3h         the directory as it was three hours ago";

pub const UNDO_HELP: &str = "\
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

pub const HISTORY_HELP: &str = "\
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

pub const WAIT_HELP: &str = "\
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
