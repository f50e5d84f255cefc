//! The part of the command line that is about the past, and about who has what.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

#[derive(Subcommand, Debug)]
pub enum ConflictCommand {
    /// Settle a conflict
    ///
    /// Settled on one device it is settled on all. What is not kept goes into the history.
    Resolve(Resolving),
}

/// How to settle a conflict.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("how").required(true).args(["keep", "diff", "tool"])))]
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
    /// empty where the version that both came from is not known, as is mostly so on the two devices that changed it.
    /// Where the program ends well, OUTPUT is kept
    #[arg(long, value_name = "COMMAND")]
    pub tool: Option<String>,
    /// Print JSON, for programs
    #[arg(long, conflicts_with = "diff")]
    pub json: bool,
}

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
        /// Id or label of a folder; all if left out
        #[arg(value_name = "FOLDER")]
        folder: Option<String>,
        /// Only those that were put there longer ago than this, such as 12h, 10d or 4w; all if left out
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        #[command(flatten)]
        going: GoingBack,
    },
}

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

#[cfg(test)]
mod tests {
    use super::super::arguments::Arguments;
    use clap::Parser;

    #[test]
    fn commands_about_the_past_are_read_as_documented() {
        let accepted: &[&[&str]] = &[
            &["history", "--usage"],
            &["history", "--usage", "f", "--json"],
            &["history", "prune", "f", "--older-than", "10d", "--yes"],
            &["restore", "a@2d", "--dry-run", "--json"],
            &["undo"],
            &["undo", "f", "--revert", "--yes"],
            &["wait"],
            &["conflicts", "resolve", "a", "--keep", "mine", "--json"],
            &["conflicts", "resolve", "a", "--diff"],
            &["conflicts", "resolve", "a", "--tool", "merge"],
            &["wait", "a", "--peers", "2", "--timeout", "5m", "--json"],
        ];
        let read = |words: &[&str]| {
            Arguments::try_parse_from(std::iter::once("p2psync").chain(words.iter().copied())).map(drop)
        };
        for words in accepted {
            assert!(read(words).is_ok(), "{words:?}");
        }
        for words in [&["history"][..], &["conflicts", "resolve", "a"], &["conflicts", "resolve", "--diff"]] {
            assert_eq!(read(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
