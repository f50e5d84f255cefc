//! Changes of one folder's settings by commands.

use toml_edit::{Array, Item, Table, value};

use super::edit::{change, find, set_keeping_comment};
use super::{Config, ConfigError};
use crate::core::direction::Direction;
use crate::core::id::FolderId;
use crate::home::Home;

/// How long folders are left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// They go on.
    No,
    /// Until somebody lets them go on.
    Open,
    /// Until this time, ms since 1970.
    UntilMs(i64),
}

/// Pauses folders or lets them go on, in one change of the file.
pub fn set_pause(home: &Home, ids: &[FolderId], pause: Pause) -> Result<Config, ConfigError> {
    change(home, |document, _| {
        for id in ids {
            let table = find(document, "folder", |text| text == id.as_str())?;
            let is_paused = pause == Pause::Open;
            if is_paused || table.contains_key("paused") {
                set_keeping_comment(table, "paused", value(is_paused));
            }
            let until = match pause {
                Pause::UntilMs(ms) => jiff::Timestamp::from_millisecond(ms).ok().map(|time| value(time.to_string())),
                Pause::No | Pause::Open => None,
            };
            set_or_remove(table, "paused_until", until);
        }
        Ok(())
    })
}

/// Says which way changes go in a folder.
pub fn set_direction(home: &Home, id: &FolderId, direction: Direction) -> Result<Config, ConfigError> {
    change(home, |document, _| {
        let table = find(document, "folder", |text| text == id.as_str())?;
        set_keeping_comment(table, "direction", value(direction.name()));
        Ok(())
    })
}

/// Says which part of a folder is wanted here; `None` is all of it.
pub fn set_only(home: &Home, id: &FolderId, only: Option<&[String]>) -> Result<Config, ConfigError> {
    change(home, |document, _| {
        let table = find(document, "folder", |text| text == id.as_str())?;
        let patterns = only.map(|patterns| value(patterns.iter().map(String::as_str).collect::<Array>()));
        set_or_remove(table, "only", patterns);
        Ok(())
    })
}

fn set_or_remove(table: &mut Table, key: &str, item: Option<Item>) {
    match item {
        Some(item) => set_keeping_comment(table, key, item),
        None => drop(table.remove(key)),
    }
}
