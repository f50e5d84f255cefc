//! Every setting as it is in effect, with where it comes from.

use toml_edit::{Document, Item, Table, Value};

use super::keys::{Key, SECTIONS, keys_of};
use super::{Config, ConfigError, load, read};
use crate::home::Home;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The line of the config file, counted from 1.
    Line(usize),
    /// A variable of the environment.
    Variable(&'static str),
    /// Nothing was said, so the usual value.
    Usual,
}

/// One setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Empty for the top level; "peer" and "folder" for an item of those lists.
    pub section: &'static str,
    /// Which peer or folder, counted from 0.
    pub item: Option<usize>,
    pub name: &'static str,
    pub value: Value,
    pub origin: Origin,
}

impl Setting {
    /// The setting's full name, such as `network.listen` or `folder[0].path`.
    pub fn key(&self) -> String {
        match (self.section, self.item) {
            ("", _) => self.name.to_owned(),
            (section, None) => format!("{section}.{}", self.name),
            (section, Some(item)) => format!("{section}[{item}].{}", self.name),
        }
    }
}

/// All settings in the order of the docs. A file with a mistake has none.
pub fn settings(home: &Home) -> Result<Vec<Setting>, ConfigError> {
    let config = load(home)?;
    Ok(settings_of(&read(&home.config_file())?, &config, |name| std::env::var(name).ok().filter(|v| !v.is_empty())))
}

/// `config` is what was read from the text; `variable` looks into the environment.
fn settings_of(text: &str, config: &Config, variable: impl Fn(&str) -> Option<String>) -> Vec<Setting> {
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    for (section, _) in SECTIONS {
        let tables: Vec<(Option<usize>, Option<&Table>)> = match section {
            "" => vec![(None, Some(document.as_table()))],
            "peer" | "folder" => {
                let list = document.get(section).and_then(Item::as_array_of_tables);
                list.into_iter().flat_map(|l| l.iter()).enumerate().map(|(i, t)| (Some(i), Some(t))).collect()
            }
            _ => vec![(None, document.get(section).and_then(Item::as_table))],
        };
        for (item, table) in tables {
            found.extend(keys_of(section).filter_map(|key| {
                let usually = || usual(key, item, config).map(|value| (value, Origin::Usual));
                let (value, origin) = effective(key, table, text, &variable).or_else(usually)?;
                Some(Setting { section, item, name: key.name, value, origin })
            }));
        }
    }
    found
}

/// The value that someone has set, the strongest first.
fn effective(
    key: &Key,
    table: Option<&Table>,
    text: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<(Value, Origin)> {
    if let Some(name) = key.variable
        && let Some(value) = variable(name)
    {
        return Some((Value::from(value), Origin::Variable(name)));
    }
    let item = table?.get(key.name)?;
    let start = item.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes().get(..start).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() + 1;
    Some((bare(item.as_value()?.clone()), Origin::Line(line)))
}

/// The value without comments and blanks around it.
fn bare(mut value: Value) -> Value {
    value.decor_mut().clear();
    value
}

/// `None` for what has no value where nothing is said.
fn usual(key: &Key, item: Option<usize>, config: &Config) -> Option<Value> {
    let peer = item.and_then(|i| config.peers.get(i));
    let folder = item.and_then(|i| config.folders.get(i));
    Some(match (key.section, key.name) {
        ("", "name") => Value::from(config.name.as_str()),
        ("peer", "name") => Value::from(peer.map(|p| p.name.clone()).unwrap_or_default()),
        ("folder", "label") => Value::from(folder.map(|f| f.label.clone()).unwrap_or_default()),
        _ => return key.usual.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};
    use std::path::Path;

    const TEXT: &str = "# mine\nname = \"desk\" # here\n\n[network]\nmulticast = false\n\n[[folder]]\nid = \"f\"\npath = \"/f\"\n\
                        [[folder]]\nid = \"g\"\nlabel = \"G\"\npath = \"/g\"\n";

    #[test]
    fn every_setting_tells_where_it_comes_from() {
        let around = Surroundings {
            user_dir: "/home/me".into(),
            own_dirs: Vec::new(),
            index_dir: "/own/index".into(),
            listen: None,
            host_name: "host".into(),
            resolve: Path::to_path_buf,
        };
        let config = parse(TEXT, Path::new("c"), &around).unwrap();
        let all = settings_of(TEXT, &config, |name| (name == "P2PSYNC_LISTEN").then(|| "127.0.0.1:1".to_owned()));
        let shown = |key: &str| {
            let setting = all.iter().find(|s| s.key() == key).unwrap();
            (setting.value.to_string(), setting.origin.clone())
        };
        assert_eq!(shown("name"), ("\"desk\"".into(), Origin::Line(2)));
        assert_eq!(shown("network.listen"), ("\"127.0.0.1:1\"".into(), Origin::Variable("P2PSYNC_LISTEN")));
        assert_eq!(shown("network.multicast"), ("false".into(), Origin::Line(5)));
        assert_eq!(shown("sync.history_days"), ("30".into(), Origin::Usual));
        assert_eq!(shown("folder[0].label"), ("\"f\"".into(), Origin::Usual));
        assert_eq!(shown("folder[1].label"), ("\"G\"".into(), Origin::Line(12)));
        assert_eq!(shown("folder[1].peers"), ("\"all\"".into(), Origin::Usual));
    }
}
