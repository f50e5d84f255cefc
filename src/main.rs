//! The `p2psync` command: parse, start logging, dispatch, exit code (see `cli::exit`).

use std::process::ExitCode;

use p2psync::cli::{self, exit};

fn main() -> ExitCode {
    cli::complete();
    let arguments = cli::parse();
    match cli::start_logging(&arguments).and_then(|()| cli::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::tell(&error),
    }
}
