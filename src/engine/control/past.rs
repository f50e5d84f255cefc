//! What commands ask about the past of a folder, and about who has what: history, restore, undo, conflicts, receipts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Control, failed};
use crate::api::{HistoryItem, Keep, Reply, Request, RewindTo, When, WirePath};
use crate::config::{self, Config};
use crate::core::id::{DeviceId, FolderId};
use crate::core::path::RelPath;
use crate::engine::elsewhere::{self, Elsewheres};
use crate::engine::links::LinkStatus;
use crate::engine::receipt::Question;
use crate::engine::shared::FolderHandle;
use crate::engine::{prune, report, resolve, restore, rewind_request};
use crate::index::Reader;

impl Control {
    /// Answers what is asked here; whatever else there is has been answered before.
    pub(super) async fn answer_past(self: Arc<Self>, request: Request) -> Reply {
        match request {
            Request::History { path } => self.history(path).await,
            Request::Restore { path, when } => self.restore(path, when).await,
            Request::Wait { path, peers, upto, for_ms } => self.wait(&path, peers, upto, for_ms).await,
            Request::Resolve { copy, keep } => aside(move || self.resolve(&copy, &keep)).await,
            Request::Rewind { path, to, dry_run } => aside(move || self.rewind(&path, &to, dry_run)).await,
            Request::HistoryPrune { folder, before_ms, dry_run } => {
                let handles = match &folder {
                    Some(id) => self.folder(id).into_iter().collect(),
                    None => self.folders(),
                };
                if let (Some(id), []) = (&folder, &handles[..]) {
                    return self.not_running(id);
                }
                aside(move || prune::all(&handles, before_ms, dry_run).map_or_else(failed, Reply::Pruned)).await
            }
            _ => failed("this cannot be asked".to_owned()),
        }
    }

    /// Why there is no folder to ask about this path.
    fn nowhere(&self, config: &Config, path: &Path) -> Reply {
        match config.folder_at(path).or_else(|| config.folder_at(&config::resolve(path))) {
            Some(folder) if self.folder(folder.id.as_str()).is_none() => self.not_running(folder.id.as_str()),
            Some(_) => failed(format!("{} is the folder itself, or nothing that it could hold", path.display())),
            None => Reply::Missing { text: format!("{} is in none of your folders", path.display()) },
        }
    }

    /// Settles a conflict.
    fn resolve(&self, copy: &WirePath, keep: &Keep) -> Reply {
        let config = self.config();
        let Some((handle, copy)) = self.locate(&config, &copy.0) else {
            return self.nowhere(&config, &copy.0);
        };
        let author = Reader::open(&handle.index_path).and_then(|reader| reader.record(&copy));
        let author = author.ok().flatten().map(|record| record.entry.author);
        let device = match author {
            Some(own) if own == handle.device => config.name.clone(),
            Some(author) => config.peer(&author).map_or("other".to_owned(), |peer| peer.name.clone()),
            None => "other".to_owned(),
        };
        resolve::resolve(&handle, &copy, keep, &device).map_or_else(failed, |text| Reply::Done { text })
    }

    /// Takes back what has happened in a folder, or says what that would do.
    fn rewind(&self, path: &WirePath, to: &RewindTo, dry_run: bool) -> Reply {
        let config = self.config();
        let Some((handle, below)) = self.locate_any(&config, &path.0) else {
            return self.nowhere(&config, &path.0);
        };
        let asked = rewind_request::Asked { config: &config, handle: &handle, below: below.as_ref(), dry_run };
        asked.answer(to).map_or_else(failed, Reply::Rewound)
    }

    /// Waits until peers hold what is at or below a path.
    async fn wait(&self, path: &WirePath, peers: Option<u32>, upto: Option<u64>, for_ms: u64) -> Reply {
        let config = self.config();
        let Some((handle, relative)) = self.locate_any(&config, &path.0) else {
            return self.nowhere(&config, &path.0);
        };
        let (home, time) = (self.home.clone(), Duration::from_millis(for_ms));
        let question = Question { home, config, handle, path: relative, peers, upto, time };
        question.wait(|| self.live()).await.map_or_else(failed, Reply::Waited)
    }

    /// The peers that share a folder and are connected now.
    fn connected(&self, config: &Config, id: &FolderId) -> Vec<DeviceId> {
        let Some(folder) = config.folder(id) else { return Vec::new() };
        let links = self.links.status().into_iter();
        let is_sharing =
            |link: &LinkStatus| link.connected && link.shares.contains(id) && config.shares(folder, &link.peer);
        links.filter(is_sharing).map(|link| link.peer).collect()
    }

    /// Versions that only connected peers have.
    async fn elsewhere(&self, config: &Config, handle: &FolderHandle, path: Option<&RelPath>) -> Vec<Elsewheres> {
        let found = elsewhere::ask(handle, &self.connected(config, &handle.id), path).await;
        let index_path = handle.index_path.clone();
        let left = tokio::task::spawn_blocking(move || elsewhere::not_here(&Reader::open(&index_path)?, found));
        left.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Earlier versions of a path, here and at the peers that are connected.
    async fn history(self: Arc<Self>, path: WirePath) -> Reply {
        let config = self.config();
        let (control, asked) = (self.clone(), path.clone());
        let local = tokio::task::spawn_blocking(move || control.read(Request::History { path: asked })).await;
        let mut items = match local {
            Ok(Reply::History(items)) => items,
            Ok(other) => return other,
            Err(error) => return failed(error.to_string()),
        };
        if let Some((handle, relative)) = self.locate_any(&config, &path.0) {
            let there = self.elsewhere(&config, &handle, relative.as_ref()).await;
            items.extend(there.iter().map(|there| elsewhere_item(&config, &handle, there)));
            items.sort_by_key(|item| std::cmp::Reverse(item.displaced_ms));
        }
        Reply::History(items)
    }

    /// Brings a version back to its place; what lies there goes into history first.
    async fn restore(self: Arc<Self>, path: WirePath, when: When) -> Reply {
        let config = self.config();
        let Some((handle, relative)) = self.locate(&config, &path.0) else {
            return self.nowhere(&config, &path.0);
        };
        let (shared, at, wanted) = (handle.clone(), relative.clone(), when.clone());
        let here = tokio::task::spawn_blocking(move || bring_back(&shared, &at, &wanted)).await;
        match here {
            Ok(Ok(Some(text))) => return Reply::Done { text },
            Ok(Ok(None)) => {}
            Ok(Err(text)) => return failed(text),
            Err(error) => return failed(error.to_string()),
        }
        if let When::Id(id) = &when {
            let there = self.elsewhere(&config, &handle, Some(&relative)).await;
            let mut fitting = there.iter().filter(|there| there.id().starts_with(&id.to_ascii_lowercase()));
            if let (Some(there), None) = (fitting.next(), fitting.next()) {
                return elsewhere::bring_back(&handle, there).await.map_or_else(failed, |text| Reply::Done { text });
            }
        }
        failed(format!("there is no such version of {relative} in history"))
    }

    fn locate(&self, config: &Config, path: &Path) -> Option<(FolderHandle, RelPath)> {
        self.locate_any(config, path).and_then(|(handle, relative)| Some((handle, relative?)))
    }

    /// The running folder that holds a path, and the path in it; `None` for the folder itself.
    fn locate_any(&self, config: &Config, path: &Path) -> Option<(FolderHandle, Option<RelPath>)> {
        use std::os::unix::ffi::OsStrExt;
        // The path itself may be a link that is synced.
        let path = match (config.folder_at(path), path.parent(), path.file_name()) {
            (None, Some(parent), Some(name)) => config::resolve(parent).join(name),
            _ => path.to_owned(),
        };
        let folder = config.folder_at(&path)?;
        let below = path.strip_prefix(&folder.path).ok()?.as_os_str().as_bytes();
        let relative = if below.is_empty() { None } else { Some(RelPath::parse(below).ok()?) };
        Some((self.folder(folder.id.as_str())?, relative))
    }
}

/// Work that blocks.
async fn aside(work: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| failed(e.to_string()))
}

/// Puts a version from history under its old name; `None` where history has no such version.
fn bring_back(handle: &FolderHandle, path: &RelPath, when: &When) -> Result<Option<String>, String> {
    let reader = Reader::open(&handle.index_path).map_err(|e| e.to_string())?;
    let row = report::version_at(&reader, path, when).map_err(|e| e.to_string())?;
    row.map(|row| restore::bring_back(handle, &row)).transpose()
}

/// A version that another device has, as it is listed.
fn elsewhere_item(config: &Config, handle: &FolderHandle, there: &Elsewheres) -> HistoryItem {
    let name = config.peer(&there.peer).map_or_else(|| there.peer.short(), |peer| peer.name.clone());
    HistoryItem {
        id: there.id(),
        path: there.version.path.to_string(),
        folder: handle.label.clone(),
        displaced_ms: there.version.displaced_ms,
        mtime_ms: there.version.mtime_ns / 1_000_000,
        placed_ms: None,
        bytes: there.version.content.size,
        displaced_by: None,
        reason: "replaced".to_owned(),
        expires_ms: None,
        only_on: Some(name),
    }
}
