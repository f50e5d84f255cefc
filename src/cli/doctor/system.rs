//! The config, the key, and the agent itself.

use std::os::unix::fs::MetadataExt;

use super::Patient;
use super::check::{Check, Fact, Outcome};
use crate::cli::output;
use crate::config::{self, ConfigError};

/// Checks of what belongs to this device alone.
pub fn checks(patient: &Patient) -> Vec<Check> {
    let mut checks = config_checks(patient);
    checks.push(key(patient));
    checks.push(agent(patient));
    checks
}

fn config_checks(patient: &Patient) -> Vec<Check> {
    let check = |outcome, text: String| Check::new("Config", "config", outcome, text);
    match patient.context.config() {
        Ok(config) => {
            let folders = output::count(config.folders.len() as u64, "folder", "folders");
            let peers = output::count(config.peers.len() as u64, "peer", "peers");
            let mut checks = vec![
                check(Outcome::Ok, format!("in order: {folders}, {peers}"))
                    .fact("folders", Fact::Number(config.folders.len() as u64))
                    .fact("peers", Fact::Number(config.peers.len() as u64)),
            ];
            for warning in config::warnings(&config) {
                let check = Check::new("Config", "config_warning", Outcome::Warn, warning.what).about(warning.key);
                checks.push(check.remedy(warning.advice));
            }
            checks
        }
        Err(ConfigError::Missing { .. }) => {
            vec![check(Outcome::Warn, "there is none yet".to_owned()).remedy("'p2psync run' makes one")]
        }
        Err(ConfigError::Invalid(fault)) => {
            let text = format!("cannot be used: line {}, column {}: {}", fault.line, fault.column, fault.what);
            vec![check(Outcome::Fail, text).remedy(fault.advice.clone()).fact("line", Fact::Number(fault.line as u64))]
        }
        Err(error) => vec![check(Outcome::Fail, error.to_string()).remedy("see that the file can be read")],
    }
}

fn key(patient: &Patient) -> Check {
    let path = patient.context.home.identity_file();
    let check = |outcome, text: &str| Check::new("Key", "key", outcome, text);
    match std::fs::metadata(&path) {
        Ok(found) if found.mode() & 0o077 != 0 => check(Outcome::Fail, "others on this computer can read it")
            .remedy(format!("chmod 600 '{}'", path.display()))
            .fact("open_to_others", Fact::Flag(true)),
        Ok(_) => check(Outcome::Ok, "there, and closed to others"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            check(Outcome::Warn, "there is none yet").remedy("'p2psync run' makes one")
        }
        Err(error) => check(Outcome::Fail, &format!("cannot be read: {error}"))
            .remedy(format!("give {} back to your user", path.display())),
    }
}

fn agent(patient: &Patient) -> Check {
    let running = Fact::Flag(patient.status.running);
    let check = |outcome, text: String| Check::new("Agent", "agent", outcome, text).fact("running", running);
    match (&patient.silence, patient.status.running) {
        (Some(why), _) => check(Outcome::Fail, format!("it runs, but does not answer: {why}"))
            .remedy("wait a moment; if it stays so, restart it, and look at its log"),
        (None, true) => check(Outcome::Ok, "running".to_owned()),
        (None, false) => check(Outcome::Warn, "not running, so nothing is synced".to_owned())
            .remedy("start it with 'p2psync run', or once and for all with 'p2psync service install'"),
    }
}
