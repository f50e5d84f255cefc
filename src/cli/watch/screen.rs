//! What is shown and selected, and what a key does to it.

use std::collections::BTreeMap;

use super::agent::News;
use crate::api::{EventItem, FolderState, FolderStatus, Status};
use crate::cli::output::clean;

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Up,
    Down,
    Pause,
    Open,
    Rescan,
    Help,
    /// Closes what lies on top.
    Back,
    Redraw,
    Quit,
}

/// What is to be done beside the screen. Folders are named by id; their label is for the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    Pause { id: String, label: String, paused: bool },
    Open { id: String, label: String },
    Rescan { id: String, label: String },
}

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// None until something was heard.
    pub status: Option<Status>,
    /// The latest, oldest first.
    pub events: Vec<EventItem>,
    /// Why what is shown may be out of date.
    pub trouble: Option<String>,
    /// What came of the last wish.
    pub message: Option<String>,
    /// The selected folder, by its place.
    pub selected: usize,
    pub is_help: bool,
    pub now_ms: i64,
    /// Folders that are to be paused, or to go on, by their ids: what was heard of them last may be older.
    pub wished: BTreeMap<String, bool>,
    /// Wishes of which it is not known yet what came of them.
    pub open_wishes: usize,
}

impl Screen {
    /// Takes in what was heard.
    pub fn take(&mut self, news: News) {
        match news {
            News::Looked(Ok(looked)) => {
                let (status, events) = *looked;
                // The selection stays with its folder when others come or go.
                let id = self.folder().map(|folder| folder.id.clone());
                let same = id.and_then(|id| status.folders.iter().position(|folder| folder.id == id));
                self.selected = same.unwrap_or(self.selected.min(status.folders.len().saturating_sub(1)));
                (self.status, self.events, self.trouble) = (Some(status), events, None);
                if self.open_wishes == 0 {
                    self.wished.clear();
                }
            }
            News::Looked(Err(trouble)) => self.trouble = Some(clean(&trouble)),
            News::Done(text) => {
                self.message = Some(clean(&text));
                self.open_wishes = self.open_wishes.saturating_sub(1);
            }
            News::Ended => {}
        }
    }

    /// Does what the key says, and returns what is to be done elsewhere.
    pub fn press(&mut self, key: Key) -> Option<Wish> {
        self.message = None;
        let is_covered = self.is_help;
        if key != Key::Redraw {
            self.is_help = key == Key::Help && !self.is_help;
        }
        if is_covered {
            return None;
        }
        let last = self.folders().len().saturating_sub(1);
        match key {
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(last),
            Key::Pause | Key::Open | Key::Rescan => {
                let folder = self.folder()?;
                let (id, label) = (folder.id.clone(), folder.label.clone());
                let is_paused = self.wished.get(&id).copied().unwrap_or(folder.state == FolderState::Paused);
                self.open_wishes += 1;
                return Some(match key {
                    Key::Pause => {
                        self.wished.insert(id.clone(), !is_paused);
                        Wish::Pause { id, label, paused: !is_paused }
                    }
                    Key::Open => Wish::Open { id, label },
                    _ => Wish::Rescan { id, label },
                });
            }
            Key::Help | Key::Back | Key::Redraw | Key::Quit => {}
        }
        None
    }

    pub fn folders(&self) -> &[FolderStatus] {
        self.status.as_ref().map_or(&[], |status| &status.folders)
    }

    /// The selected folder.
    pub fn folder(&self) -> Option<&FolderStatus> {
        self.folders().get(self.selected)
    }
}
