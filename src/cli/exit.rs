//! How a command ends: the exit codes, all in one place.

use std::fmt::Write;
use std::process::ExitCode;

use super::output;
use crate::api::client::ClientError;

/// How a command ends. As an error it says that all has been told already, and only the code is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Exit {
    #[error("fine")]
    Fine = 0,
    #[error("an error")]
    Error = 1,
    #[error("wrong usage")]
    Usage = 2,
    #[error("not in sync")]
    NotInSync = 3,
    #[error("the agent is not running")]
    NotRunning = 4,
}

impl Exit {
    /// All codes with what they mean, as `--help` and the docs tell it.
    const ALL: [(Exit, &'static str); 5] = [
        (Exit::Fine, "fine"),
        (Exit::Error, "an error; stderr says what happened and what to do"),
        (Exit::Usage, "the command line makes no sense"),
        (Exit::NotInSync, "something is not in sync (status --exit-code), or it was waited for in vain"),
        (Exit::NotRunning, "the agent is not running, and this command needs it"),
    ];

    /// How an error ends the command.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(told) = error.downcast_ref::<Exit>() {
            return *told;
        }
        let is_not_running = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref::<ClientError>(), Some(ClientError::NotRunning))
        };
        let by_context = matches!(error.downcast_ref::<ClientError>(), Some(ClientError::NotRunning));
        if by_context || error.chain().any(is_not_running) { Exit::NotRunning } else { Exit::Error }
    }

    /// The codes as lines of text.
    pub fn table() -> String {
        let mut text = String::new();
        for (exit, meaning) in Exit::ALL {
            let _ = writeln!(text, "  {}  {meaning}", exit as u8);
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Tells an error on stderr, unless all has been told already, and gives its exit code.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Exit>().is_none() {
        eprintln!("p2psync: {}", output::error_text(error));
    }
    Exit::of(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_end_has_its_code() {
        let not_running = || anyhow::Error::from(ClientError::NotRunning);
        let cases = [
            (anyhow::anyhow!("no such file"), Exit::Error),
            (not_running(), Exit::NotRunning),
            (not_running().context("scanning needs the agent"), Exit::NotRunning),
            (ClientError::TimedOut.into(), Exit::Error),
            (Exit::NotInSync.into(), Exit::NotInSync),
        ];
        for (error, exit) in cases {
            assert_eq!(Exit::of(&error), exit, "{error:#}");
        }
        assert_eq!(Exit::ALL.map(|(exit, _)| exit as u8), [0, 1, 2, 3, 4]);
        assert!(Exit::table().contains("  3  something is not in sync"));
    }
}
