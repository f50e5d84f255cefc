//! `p2psync doctor`: looks at everything that may keep p2psync from working well, and says what to do about it.

mod bundle;
mod check;
mod folders;
mod network;
mod port;
mod system;
mod watches;

use std::fmt::Write;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::output::{self, clean};
use super::peer::config_or_empty;
use crate::api::client::ClientError;
use crate::api::{Reply, Request, Status};
use crate::config::Config;
use crate::engine;
use check::{Check, Outcome};

/// All that the checks look at besides the system itself.
struct Patient<'a> {
    context: &'a Context,
    /// The config in the file, or an empty one where that can't be used.
    config: Config,
    /// What the agent says, or the indexes where none runs.
    status: Status,
    /// Why an agent that runs does not answer.
    silence: Option<String>,
}

/// Looks at everything, tells it, or writes a report for developers.
pub fn run(context: &Context, as_json: bool, bundle: Option<&Path>) -> anyhow::Result<()> {
    let patient = Patient::look(context)?;
    let checks = examine(&patient);
    if let Some(path) = bundle {
        return write_bundle(path, &bundle::text(&patient, &checks));
    }
    let worst = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
    if as_json {
        let all: Vec<_> = checks.iter().map(Check::json).collect();
        output::print_json(&json!({ "worst": worst.word(), "checks": all }))?;
    } else {
        output::print(&text(&checks, output::has_colours(&std::io::stdout())))?;
    }
    if worst == Outcome::Fail { Err(Exit::Error.into()) } else { Ok(()) }
}

impl<'a> Patient<'a> {
    fn look(context: &'a Context) -> anyhow::Result<Self> {
        // A mistake in the config is one of the things to be told.
        let config = match context.config() {
            Ok(config) => config,
            Err(_) => config_or_empty(context).or_else(|_| empty_config(context))?,
        };
        let (status, silence) = match context.ask(&Request::Status) {
            Ok(Reply::Status(status)) => (status, None),
            Ok(_) => (Status::default(), Some("it answered something else; it may be of another version".to_owned())),
            Err(ClientError::NotRunning) => {
                (engine::report::status(&context.home, &config, None).unwrap_or_default(), None)
            }
            Err(error) => (Status::default(), Some(error.to_string())),
        };
        Ok(Self { context, config, status, silence })
    }
}

fn empty_config(context: &Context) -> anyhow::Result<Config> {
    let around = crate::config::surroundings(&context.home);
    Ok(crate::config::parse("", &context.home.config_file(), &around)?)
}

/// Every check, in the order in which a person would look.
fn examine(patient: &Patient) -> Vec<Check> {
    let mut checks = system::checks(patient);
    checks.extend(network::checks(patient));
    checks.extend(folders::checks(patient));
    checks.extend(watches::checks(patient));
    checks
}

fn text(checks: &[Check], in_colour: bool) -> String {
    let mut text = String::new();
    for check in checks {
        let word = check.outcome.word();
        let gap = " ".repeat(7_usize.saturating_sub(word.len()));
        let word = if in_colour { format!("\x1b[{}m{word}\x1b[0m", check.outcome.colour()) } else { word.to_owned() };
        let subject = check.subject.iter().map(|s| format!(" {}", clean(s))).collect::<String>();
        let _ = writeln!(text, "{word}{gap} {}{subject}: {}", check.area, clean(&output::without_numbers(&check.text)));
        if let Some(remedy) = &check.remedy {
            remedy.lines().for_each(|line| text.push_str(&format!("        {}\n", clean(line))));
        }
    }
    let number = |outcome: Outcome| checks.iter().filter(|c| c.outcome == outcome).count() as u64;
    let summary = match (number(Outcome::Fail), number(Outcome::Warn)) {
        (0, 0) => "Nothing is wrong as far as this device can tell.".to_owned(),
        (0, warnings) => format!("{}, nothing that stops p2psync.", output::count(warnings, "warning", "warnings")),
        (failures, _) => format!("{} to put right.", output::count(failures, "thing", "things")),
    };
    text.push_str(&format!("\n{summary}\n"));
    text
}

/// Writes the report into a new file, for its owner alone to look through before it is sent anywhere.
fn write_bundle(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} is there already; choose another name", path.display())
        }
        _ => anyhow::Error::from(e).context(format!("cannot write {}", path.display())),
    })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    output::print(&format!(
        "Wrote {}: how p2psync is doing here, in numbers. There are no names of files, folders or devices in it, no \
         addresses and no keys; look it through before you send it to anyone.\n",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_told_with_what_to_do_and_a_summary() {
        let checks = [
            Check::new("Config", "config", Outcome::Ok, "in order"),
            Check::new("Port", "port", Outcome::Fail, "taken").about("7724").remedy("stop it\nor choose another"),
        ];
        let told = text(&checks, false);
        assert_eq!(
            told,
            "ok      Config: in order\nfail    Port 7724: taken\n        stop it\n        or choose another\n\n1 thing to put right.\n"
        );
        assert!(text(&checks, true).contains("\x1b[31mfail"));
        assert!(text(&checks[..1], false).ends_with("Nothing is wrong as far as this device can tell.\n"));
    }

    /// What stands after `Check::new(` and the area in the sources of the checks.
    fn codes() -> std::collections::BTreeSet<String> {
        let sources = [
            include_str!("folders.rs"),
            include_str!("network.rs"),
            include_str!("system.rs"),
            include_str!("watches.rs"),
        ];
        let code = |rest: &str| rest.split('"').nth(3).map(str::to_owned);
        sources.iter().flat_map(|source| source.split("Check::new(").skip(1).filter_map(code)).collect()
    }

    #[test]
    fn everything_that_can_be_wrong_has_its_place_in_the_docs() {
        let docs = include_str!("../../../docs/troubleshooting.md");
        let headings: Vec<&str> = docs.lines().filter(|line| line.starts_with("###")).collect();
        let has = |code: &str| headings.iter().any(|line| line.contains(&format!("`{code}`")));
        let kinds = crate::core::problem::ProblemKind::ALL.map(|kind| kind.name().to_owned());
        let codes: Vec<String> = codes().into_iter().chain(kinds).collect();
        assert!(codes.len() > 20, "{codes:?}");
        let missing: Vec<&String> = codes.iter().filter(|code| !has(code)).collect();
        assert!(missing.is_empty(), "docs/troubleshooting.md has no heading with {missing:?}");
    }
}
