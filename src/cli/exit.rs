//! How a command ends: the exit codes, all in one place.

use std::fmt::Write;
use std::process::ExitCode;

use super::output;
use crate::api::client::ClientError;
use crate::config::ConfigError;

/// What was typed cannot be meant so: a name that nothing has, a time that is none, a yes that is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// An error in what was typed.
pub fn misuse(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

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
        (Exit::Usage, "wrong usage: an option, a name, a path or a time that makes no sense here"),
        (Exit::NotInSync, "something is not in sync (status --exit-code), or it was waited for in vain"),
        (Exit::NotRunning, "the agent is not running, and this command needs it"),
    ];

    /// How an error ends the command.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(told) = error.downcast_ref::<Exit>() {
            return *told;
        }
        error.chain().find_map(of_cause).unwrap_or(Exit::Error)
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

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    // Where nothing is set up, no agent can run either.
    let is_not_running = matches!(cause.downcast_ref(), Some(ClientError::NotRunning))
        || matches!(cause.downcast_ref(), Some(ConfigError::Missing { .. }));
    let is_usage = cause.is::<Usage>() || matches!(cause.downcast_ref(), Some(ConfigError::Edit { .. }));
    is_not_running.then_some(Exit::NotRunning).or(is_usage.then_some(Exit::Usage))
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Tells an error on stderr, unless all has been told already, and gives its exit code.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Exit>().is_none() {
        output::tell(&format!("p2psync: {}\n", output::error_text(error)));
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
            (misuse("there is no folder 'x'"), Exit::Usage),
            (misuse("there is no folder 'x'").context("looking"), Exit::Usage),
            (ConfigError::Missing { path: "/c".into() }.into(), Exit::NotRunning),
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
