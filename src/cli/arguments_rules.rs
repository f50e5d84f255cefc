//! The part of the command line that is about the rules of a folder.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

#[derive(Subcommand, Debug)]
pub enum IgnoreCommand {
    /// Say whether a path is ignored, and by which line of which file; it need not exist
    Test {
        /// A path in one of the folders
        path: PathBuf,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List all rules of a folder, with the files that they are from
    List {
        /// Id or label; may be left out if there is just one folder
        folder: Option<String>,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

/// Which way changes go.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DirectionWord {
    /// Changes go both ways
    Both,
    /// Only from this device
    Send,
    /// Only to this device
    Receive,
}
