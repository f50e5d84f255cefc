//! `p2psync ignore`.

use std::path::Path;

use super::arguments_rules::IgnoreCommand;
use super::context::{Context, find_folder};
use super::output::{self, Table, clean};
use crate::api::{IgnoreFault, IgnoreRules};
use crate::engine::report;

/// Carries out an `ignore` command.
pub fn run(context: &Context, command: IgnoreCommand) -> anyhow::Result<()> {
    match command {
        IgnoreCommand::Test { path, json } => test(context, &path, json),
        IgnoreCommand::List { folder, json } => list(context, folder.as_deref(), json),
    }
}

fn test(context: &Context, given: &Path, as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let path = context.path_in_folder(&config, given)?;
    // Of what does not exist only a slash at its end tells that it is a directory.
    let is_directory = given.as_os_str().as_encoded_bytes().ends_with(b"/");
    let tested = report::ignore_test(&context.home, &config, &path, is_directory)?;
    if as_json {
        return output::print_json(&tested);
    }
    output::print(&format!(
        "{}: {}\n{}",
        output::name(&given.to_string_lossy()),
        clean(&tested.text),
        faults(&tested.faults)
    ))
}

fn list(context: &Context, folder: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let config = context.config()?;
    let folder = find_folder(&config, folder)?;
    let rules = report::ignore_list(&context.home, &config, folder)?;
    if as_json {
        return output::print_json(&rules);
    }
    output::print(&listing(&rules))
}

fn listing(rules: &IgnoreRules) -> String {
    let mut table = Table::new(&["RULE", "FROM"]).with_names(&["RULE"]);
    for rule in &rules.rules {
        let from = match (&rule.file, rule.line, rule.source.as_str()) {
            (Some(file), Some(line), _) => format!("line {line} of {}", clean(file)),
            (.., "selection") => "selected on this device ('p2psync folder select')".to_owned(),
            _ => "built in".to_owned(),
        };
        table.row([clean(&rule.pattern), from]);
    }
    format!("{table}{}", faults(&rules.faults))
}

fn faults(faults: &[IgnoreFault]) -> String {
    let line = |fault: &IgnoreFault| {
        let at = fault.line.map(|line| format!("line {line} of ")).unwrap_or_default();
        format!("Not used: {at}{}: {}\n", clean(&fault.file), clean(&fault.text))
    };
    faults.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::IgnoreRule;

    #[test]
    fn rules_are_listed_with_their_places_and_faults() {
        let rule = |source: &str, file: Option<&str>, line, pattern: &str| IgnoreRule {
            source: source.into(),
            file: file.map(str::to_owned),
            line,
            pattern: pattern.into(),
        };
        let rules = IgnoreRules {
            folder: "Docs".into(),
            rules: vec![
                rule("built_in", None, None, "Thumbs.db"),
                rule("file", Some(".p2pignore"), Some(2), "*.o"),
                rule("selection", None, None, "Photos"),
            ],
            faults: vec![IgnoreFault { file: ".p2pignore".into(), line: Some(3), text: "no end".into() }],
        };
        let text = listing(&rules);
        for part in
            ["built in", "line 2 of .p2pignore", "selected on this device", "Not used: line 3 of .p2pignore: no end"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
