//! The command line as the parser, the completions, the manual pages and docs/commands.md see it: [`Arguments`] with
//! its examples, exit codes and the names that only this device knows.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use clap_complete::engine::ArgValueCandidates;

use super::arguments::Arguments;
use super::completions;
use super::examples::{self, USAGES};
use super::exit::Exit;
use super::output;
use super::style::Style;

/// The command line with all that belongs to it.
pub fn command() -> Command {
    let root = Arguments::command();
    let own = root.get_after_help().map(ToString::to_string).unwrap_or_default();
    let usage = USAGES.iter().find(|u| u.command.is_empty()).map(examples::help_text).unwrap_or_default();
    let root = root.after_help(format!("{own}\n\n{usage}\nExit codes:\n{}", Exit::table()));
    root.mut_subcommands(|sub| decorate(sub, ""))
}

/// Reads the command line, or ends with what is wrong with it.
pub fn parse() -> Arguments {
    let read = command().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    read.unwrap_or_else(|error| end(&error))
}

/// Tells the help that was asked for, or what is wrong, in lines that fit the terminal.
fn end(error: &clap::Error) -> ! {
    let style = if error.use_stderr() { Style::of(&io::stderr()) } else { Style::of_stdout() };
    let rendered = error.render();
    let text = style.flow(&if style.colour { rendered.ansi().to_string() } else { rendered.to_string() });
    if error.use_stderr() {
        output::tell(&text);
    } else {
        // Whoever does not want to read the help has gone.
        let _ = output::print_raw(&text);
    }
    std::process::exit(error.exit_code())
}

fn decorate(mut command: Command, above: &str) -> Command {
    let name = format!("{above} {}", command.get_name()).trim().to_owned();
    if command.get_after_help().is_none()
        && let Some(usage) = USAGES.iter().find(|u| u.command == name)
    {
        command = command.after_help(examples::help_text(usage));
    }
    command.mut_args(with_candidates).mut_subcommands(|sub| decorate(sub, &name))
}

/// Lets shells complete names of folders and peers.
fn with_candidates(arg: Arg) -> Arg {
    let is_named = |start: &str| arg.get_value_names().is_some_and(|n| n.iter().any(|name| name.starts_with(start)));
    if is_named("FOLDER") {
        arg.add(ArgValueCandidates::new(completions::folders))
    } else if is_named("ID|NAME") {
        arg.add(ArgValueCandidates::new(completions::peers))
    } else {
        arg
    }
}

/// Writes a manual page for every command.
pub fn write_pages(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    clap_mangen::generate_to(command(), dir)
        .with_context(|| format!("cannot write manual pages into {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The text of docs/commands.md.
    fn reference() -> String {
        let mut root = command();
        root.build();
        let mut text = String::from(
            "# Commands\n\nMade from the program's own help; `RENEW_DOCS=1 cargo test --lib cli::manual` makes it anew.\n\
             Every command takes `--home DIR` (or the variable `P2PSYNC_HOME`) to act on another agent's files.\n\
             What `--json` prints is stable: fields are added, never renamed or removed; times are milliseconds since \
             1970 UTC.\n",
        );
        section(&mut root, "", &mut text);
        text
    }

    fn section(command: &mut Command, above: &str, text: &mut String) {
        let name = format!("{above} {}", command.get_name()).trim().to_owned();
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
        let visible = |sub: &&mut Command| !sub.is_hide_set() && sub.get_name() != "help";
        command.get_subcommands_mut().filter(visible).for_each(|sub| section(sub, &name, text));
    }

    /// Every command that does something, by its words.
    fn commands(command: &Command, above: &str, found: &mut Vec<(String, String)>) {
        let name = format!("{above} {}", command.get_name()).trim().to_owned();
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            commands(sub, &name, found);
        }
        if !command.has_subcommands() {
            found.push((name, command.get_after_help().map(ToString::to_string).unwrap_or_default()));
        }
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let mut found = Vec::new();
        commands(&command(), "", &mut found);
        assert!(found.len() > 20);
        let without: Vec<_> = found.iter().filter(|(_, help)| !help.contains("p2psync ")).map(|(n, _)| n).collect();
        assert!(without.is_empty(), "no example in the help of: {without:?}");
    }

    #[test]
    fn every_example_is_understood() {
        for usage in USAGES {
            for (example, _) in usage.examples {
                let words = example.replace("'living room'", "room").replace("\"", "");
                let line = std::iter::once("p2psync").chain(words.split_whitespace());
                assert!(Arguments::try_parse_from(line).is_ok(), "{example}");
                assert!(example.starts_with(usage.command), "{example} is no example of {}", usage.command);
            }
        }
    }

    #[test]
    fn a_mistyped_command_is_recognised() {
        let error = command().try_get_matches_from(["p2psync", "statsu"]).unwrap_err();
        assert!(error.to_string().contains("'status'"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn the_help_tells_the_exit_codes() {
        let help = command().render_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("  4  the agent is not running"), "{help}");
    }

    #[test]
    fn the_docs_of_the_commands_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
        if std::env::var_os("RENEW_DOCS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == reference(),
            "docs/commands.md is not what the program says; RENEW_DOCS=1 cargo test --lib cli::manual renews it"
        );
    }

    #[test]
    fn every_command_gets_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(&dir.path().join("man1")).unwrap();
        for page in ["p2psync.1", "p2psync-folder-add.1", "p2psync-service-install.1"] {
            let text = std::fs::read_to_string(dir.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
