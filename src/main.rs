//! The `p2psync` command: parse, start logging, dispatch, exit code (0 fine, 1 error, 2 wrong usage).

use std::process::ExitCode;

use clap::Parser;
use p2psync::cli;

/// Files of all sizes pass through many threads, and the usual allocator keeps what each of them once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::start_logging(&arguments);
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("p2psync: {}", cli::output::error_text(&error));
            ExitCode::FAILURE
        }
    }
}
