//! `p2psync config`.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use toml_edit::Value as TomlValue;

use super::arguments::ConfigCommand;
use super::context::Context;
use super::exit::Exit;
use super::output::{self, clean};
use crate::config::{self, Config, ConfigError, Origin, Setting, Warning};

/// Widest setting, in characters, with its origin in a column of its own.
const SETTING_COLUMNS_MAX: usize = 48;

/// Carries out a `config` command.
pub fn run(context: &Context, command: &ConfigCommand) -> anyhow::Result<()> {
    let path = context.home.config_file();
    match command {
        ConfigCommand::Path { json: true } => {
            output::print_json(&json!({ "path": path.to_string_lossy(), "exists": path.exists() }))
        }
        ConfigCommand::Path { json: false } => output::print_raw(&format!("{}\n", path.display())),
        ConfigCommand::Check { json } => check(context, *json),
        ConfigCommand::Show { json } => show(context, *json),
        ConfigCommand::Upgrade => upgrade(context),
    }
}

fn check(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let path = context.home.config_file();
    let found = context.config();
    if as_json {
        output::print_json(&check_json(&found, &path.to_string_lossy()))?;
        let is_fine = matches!(found, Ok(_) | Err(ConfigError::Missing { .. }));
        return if is_fine { Ok(()) } else { Err(Exit::Error.into()) };
    }
    let config = match found {
        Err(ConfigError::Missing { .. }) => {
            return output::print(&format!(
                "There is no config file {} yet; 'p2psync run' makes one.\n",
                path.display()
            ));
        }
        Err(error @ ConfigError::Invalid(_)) => return Err(with_others(error, &path)),
        found => found?,
    };
    let folders = output::count(config.folders.len() as u64, "folder", "folders");
    let peers = output::count(config.peers.len() as u64, "peer", "peers");
    let mut text = format!("{} is in order: {folders}, {peers}.\n", path.display());
    for warning in config::warnings(&config) {
        let Warning { key, what, advice } = warning;
        let _ = writeln!(text, "Warning: {}\n  {} ({})", clean(&what), clean(&advice), clean(&key));
    }
    let outdated = config::outdated(&config::read(&path)?);
    if !outdated.is_empty() {
        let _ = writeln!(text, "It is of an older version; 'p2psync config upgrade' brings it up to date:");
        outdated.iter().for_each(|change| text.push_str(&format!("  {}\n", clean(change))));
    }
    output::print(&text)
}

/// The first mistake, as the reader of the file tells it, and the other settings that there are not.
fn with_others(first: ConfigError, path: &Path) -> anyhow::Error {
    let line = match &first {
        ConfigError::Invalid(fault) => fault.line,
        _ => 0,
    };
    let unknown = config::read(path).map(|text| config::unknown_settings(&text)).unwrap_or_default();
    let others = unknown.iter().filter(|unknown| unknown.line != line);
    let lines: String =
        others.map(|u| format!("\nline {}: there is no setting '{}' here: {}", u.line, u.name, u.advice)).collect();
    match lines.is_empty() {
        true => first.into(),
        false => anyhow::anyhow!("{first}\n{lines}"),
    }
}

fn check_json(found: &Result<Config, ConfigError>, path: &str) -> Value {
    let config = found.as_ref().ok();
    let fault = found.as_ref().err().map(|error| match error {
        ConfigError::Invalid(fault) => {
            json!({ "line": fault.line, "column": fault.column, "what": fault.what, "advice": fault.advice })
        }
        other => json!({ "line": null, "column": null, "what": other.to_string(), "advice": null }),
    });
    let warnings: Vec<Value> = config.map(config::warnings).unwrap_or_default().into_iter().map(warning_json).collect();
    json!({
        "path": path, "ok": config.is_some(), "folders": config.map(|c| c.folders.len()),
        "peers": config.map(|c| c.peers.len()), "fault": fault, "warnings": warnings,
    })
}

fn warning_json(warning: Warning) -> Value {
    json!({ "key": warning.key, "what": warning.what, "advice": warning.advice })
}

fn show(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let settings = config::settings(&context.home)?;
    if as_json {
        return output::print_json(&settings.iter().map(setting_json).collect::<Vec<_>>());
    }
    let place = output::short_path(&context.home.config_file(), context.home.user_dir());
    output::print(&format!("# {place}\n{}", settings_text(&settings)))
}

/// The settings as they would be written in the file, with where they come from as comments.
fn settings_text(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut before = ("", None);
    for setting in settings {
        if (setting.section, setting.item) != before {
            before = (setting.section, setting.item);
            let _ = match setting.item {
                Some(_) => writeln!(text, "\n[[{}]]", setting.section),
                None => writeln!(text, "\n[{}]", setting.section),
            };
        }
        let line = format!("{} = {}", setting.name, clean(&setting.value.to_string()));
        let origin = match setting.origin {
            Origin::Line(line) => format!("line {line}"),
            Origin::Variable(name) => format!("from {name}"),
            Origin::Usual => "as usual".to_owned(),
        };
        let _ = writeln!(text, "{line:SETTING_COLUMNS_MAX$} # {origin}");
    }
    text
}

fn setting_json(setting: &Setting) -> Value {
    let (from, line, variable) = match setting.origin {
        Origin::Line(line) => ("file", Some(line), None),
        Origin::Variable(name) => ("environment", None, Some(name)),
        Origin::Usual => ("default", None, None),
    };
    json!({ "key": setting.key(), "value": value_json(&setting.value), "from": from, "line": line, "variable": variable })
}

fn value_json(value: &TomlValue) -> Value {
    match value {
        TomlValue::String(text) => json!(text.value()),
        TomlValue::Integer(number) => json!(number.value()),
        TomlValue::Float(number) => json!(number.value()),
        TomlValue::Boolean(flag) => json!(flag.value()),
        TomlValue::Datetime(time) => json!(time.value().to_string()),
        TomlValue::Array(list) => json!(list.iter().map(value_json).collect::<Vec<_>>()),
        TomlValue::InlineTable(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.to_owned(), value_json(value))).collect())
        }
    }
}

fn upgrade(context: &Context) -> anyhow::Result<()> {
    let done = config::upgrade(&context.home)?;
    let Some(kept) = done.kept else {
        return output::print("The config file is up to date; nothing was changed.\n");
    };
    context.reload();
    let changes: String = done.changes.iter().map(|change| format!("  {}\n", clean(change))).collect();
    output::print(&format!("The config file is up to date now:\n{changes}The old one is kept as {}.\n", kept.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    fn context(text: &str) -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path(), dir.path().to_owned());
        std::fs::write(home.config_file(), text).unwrap();
        (dir, Context { home, now_ms: 0 })
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_config() {
        let (_dir, context) = context("name = \"x\"\n[[folder]]\nid = \"f\"\npath = \"/f\"\n");
        let shown = settings_text(&config::settings(&context.home).unwrap());
        assert!(shown.contains("# line 1") && shown.contains("# as usual"), "{shown}");
        let again = config::parse(&shown, &context.home.config_file(), &config::surroundings(&context.home)).unwrap();
        assert_eq!(again, context.config().unwrap());
    }

    #[test]
    fn settings_have_a_shape_for_programs() {
        let (_dir, context) = context("[network]\nannounce_to = [\"a:1\"]\n");
        let all: Vec<Value> = config::settings(&context.home).unwrap().iter().map(setting_json).collect();
        let wanted =
            json!({ "key": "network.announce_to", "value": ["a:1"], "from": "file", "line": 2, "variable": null });
        assert!(all.contains(&wanted), "{all:?}");
    }

    #[test]
    fn a_check_warns_of_what_is_hardly_meant_and_points_at_mistakes() {
        let (_dir, fine) =
            context("[network]\nmulticast = false\n[[folder]]\nid = \"f\"\npath = \"/no/such/dir\"\npeers = []\n");
        let told = check_json(&fine.config(), "p");
        let keys: Vec<_> = told["warnings"].as_array().unwrap().iter().map(|w| w["key"].as_str().unwrap()).collect();
        assert_eq!((told["ok"].as_bool(), keys), (Some(true), vec!["folder[0].path", "folder[0].peers"]));
        let (_dir, wrong) = context("name = \"x\"\nnmae = 1\n[sync]\nhistory_dyas = 2\n");
        let said = check(&wrong, false).unwrap_err().to_string();
        assert!(said.contains("2:1") && said.contains("line 4") && said.contains("'history_days'"), "{said}");
        let told = check_json(&wrong.config(), "p");
        assert_eq!(told["ok"], false);
        assert_eq!((&told["fault"]["line"], &told["fault"]["advice"]), (&json!(2), &json!("did you mean 'name'?")));
    }
}
