//! The `p2psync` command: parse, start logging, dispatch, exit code (0 fine, 1 error, 2 wrong usage, 3 not so).

use std::process::ExitCode;

use clap::Parser;
use p2psync::cli;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::start_logging(&arguments);
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (code, text) = cli::exit::of(&error);
            if let Some(text) = text {
                eprintln!("p2psync: {text}");
            }
            ExitCode::from(code)
        }
    }
}
