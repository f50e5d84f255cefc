//! `p2psync completions`, and what only this device can complete.
//!
//! The scripts ask the program itself, so they know every folder and peer, and never go out of date.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use super::{manual, output};
use crate::config::{self, Config};
use crate::home::Home;

/// Set by the scripts when they ask for completions.
const VARIABLE: &str = "P2PSYNC_COMPLETE";

/// Shells that can complete our command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
    Elvish,
}

/// Answers a script that asks for completions, and ends; does nothing in an ordinary call.
pub fn answer() {
    CompleteEnv::with_factory(manual::command).var(VARIABLE).bin("p2psync").complete();
}

/// Prints the script for a shell.
pub fn run(shell: Shell) -> anyhow::Result<()> {
    output::print_raw(&script(shell)?)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Elvish => &Elvish,
    };
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "p2psync", "p2psync", "p2psync", &mut script)?;
    String::from_utf8(script).context("the script is not text")
}

/// Folders of this device: by label where it is one word that names just one, else by id.
pub fn folders() -> Vec<CompletionCandidate> {
    config().map(|config| folder_words(&config)).unwrap_or_default().into_iter().map(candidate).collect()
}

/// Peers of this device.
pub fn peers() -> Vec<CompletionCandidate> {
    config().map(|config| peer_words(&config)).unwrap_or_default().into_iter().map(candidate).collect()
}

fn candidate((word, help): (String, String)) -> CompletionCandidate {
    CompletionCandidate::new(word).help(Some(help.into()))
}

fn folder_words(config: &Config) -> Vec<(String, String)> {
    let word = |folder: &config::Folder| {
        let namesakes = config.folders.iter().filter(|f| f.label == folder.label || f.id.as_str() == folder.label);
        let is_plain = folder.label.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        let is_clear = namesakes.count() == 1 && is_plain;
        if is_clear { folder.label.clone() } else { folder.id.to_string() }
    };
    config.folders.iter().map(|f| (word(f), output::clean(&f.path.to_string_lossy()))).collect()
}

fn peer_words(config: &Config) -> Vec<(String, String)> {
    config.peers.iter().map(|p| (output::clean(&p.name), p.id.short())).collect()
}

/// The config that the command line being typed is about.
fn config() -> Option<Config> {
    let home = home_given(&std::env::args_os().collect::<Vec<_>>());
    config::load(&Home::find(home.as_deref().map(Path::new)).ok()?).ok()
}

/// The value of `--home` in a command line that is still being typed.
fn home_given(words: &[OsString]) -> Option<OsString> {
    let at = words.iter().position(|word| word == "--home");
    let joined = || words.iter().find_map(|w| w.to_str()?.strip_prefix("--home=").map(OsString::from));
    at.and_then(|at| words.get(at + 1).cloned()).or_else(joined).filter(|dir| !dir.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NewFolder, NewPeer, Sharing};
    use crate::core::id::DeviceId;

    #[test]
    fn every_shell_has_a_script_that_asks_the_program() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("p2psync"), "{shell:?}: {script}");
        }
    }

    #[test]
    fn folders_and_peers_are_completed_by_words_that_name_just_one() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"), dir.path().to_owned());
        for (id, label) in [("d", "Documents"), ("p1", "Photos"), ("p2", "Photos"), ("m", "My music")] {
            let (id, path) = (id.parse().unwrap(), dir.path().join(id));
            let new = NewFolder { id, label: label.into(), path, peers: Sharing::All };
            config::add_folder(&home, &new).unwrap();
        }
        let peer = NewPeer { id: DeviceId([3; 32]), name: Some("desk".into()), addresses: Vec::new() };
        let config = config::add_peer(&home, &peer).unwrap();
        let words: Vec<String> = folder_words(&config).into_iter().map(|(word, _)| word).collect();
        assert_eq!(words, ["Documents", "p1", "p2", "m"]);
        assert_eq!(peer_words(&config)[0].0, "desk");
    }

    #[test]
    fn the_home_is_taken_from_the_line_being_typed() {
        let given = |words: &[&str]| home_given(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(given(&["p2psync", "--home", "/h", "status"]), Some("/h".into()));
        assert_eq!(given(&["p2psync", "--home=/h"]), Some("/h".into()));
        assert_eq!(given(&["p2psync", "status", "--home"]), None);
    }
}
