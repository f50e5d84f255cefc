//! Earlier versions that other devices have: asked for live, and fetched when they are to come back.
//!
//! What a user overwrote here is in the history of the devices that had it, so asking them gives back even that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::fetch::Fetcher;
use super::questions::Questions;
use super::restore::Change;
use super::shared::FolderHandle;
use crate::core::action::WorkId;
use crate::core::id::{DeviceId, hex};
use crate::core::path::RelPath;
use crate::index::{HistoryRow, IndexError, Reader};
use crate::net::bounds::PAST_VERSIONS_MAX;
use crate::net::frame::{AskPast, Frame, Past, PastVersion};
use crate::sync::{FetchError, FetchOrder, Staged};

/// How long peers may take to answer: they look into an index, no more. One of an earlier version never does.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// Questions that wait for an answer.
const QUESTIONS_MAX: usize = 256;
/// Bytes of a hash in the id of a version.
const ID_BYTES: usize = 6;
/// Works from this number on are ordered here; the folder's machine counts from 1 on.
const OWN_WORKS: WorkId = 1 << 63;

type Fetched = Result<Staged, FetchError>;
/// The peer that was asked, and where its answer goes.
type Asked = (DeviceId, oneshot::Sender<Vec<PastVersion>>);

/// What is under way with other devices' histories, of one folder.
#[derive(Default)]
pub struct Elsewhere {
    next: AtomicU32,
    questions: Mutex<HashMap<u32, Asked>>,
    /// Peers' questions.
    asked: Mutex<Questions>,
    next_work: AtomicU64,
    fetches: Mutex<HashMap<WorkId, oneshot::Sender<Fetched>>>,
    fetcher: OnceLock<Fetcher>,
}

/// An earlier version, and the peer that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elsewheres {
    pub peer: DeviceId,
    pub version: PastVersion,
}

impl Elsewhere {
    /// From now on contents are fetched with this.
    pub fn fetch_with(&self, fetcher: Fetcher) {
        let _ = self.fetcher.set(fetcher);
    }

    /// Takes a peer's answer. What was not asked of this peer is dropped.
    pub fn take(&self, peer: DeviceId, past: Past) {
        let mut questions = lock(&self.questions);
        if questions.get(&past.id).is_some_and(|(asked, _)| *asked == peer)
            && let Some((_, answer)) = questions.remove(&past.id)
        {
            // Whoever asked may have gone.
            let _ = answer.send(past.versions);
        }
    }

    /// Takes the result of a fetch that was ordered here; false for any other.
    pub fn fetched(&self, work: WorkId, result: &Fetched) -> bool {
        if work < OWN_WORKS {
            return false;
        }
        if let Some(waiting) = lock(&self.fetches).remove(&work) {
            let is_minded = waiting.send(result.clone()).is_ok();
            if let Some(fetcher) = self.fetcher.get().filter(|_| !is_minded) {
                // Whoever asked has gone away: what was fetched is not held for him.
                fetcher.applied(work);
            }
        }
        true
    }

    fn question(&self, peer: DeviceId) -> Option<(u32, oneshot::Receiver<Vec<PastVersion>>)> {
        let (answer, answered) = oneshot::channel();
        let mut questions = lock(&self.questions);
        questions.retain(|_, (_, waiting)| !waiting.is_closed());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        (questions.len() < QUESTIONS_MAX).then(|| {
            questions.insert(id, (peer, answer));
            (id, answered)
        })
    }
}

/// What these peers have in their histories at or below a path (`None`: anywhere in the folder). A peer that does not
/// answer in time is left out.
pub async fn ask(handle: &FolderHandle, peers: &[DeviceId], path: Option<&RelPath>) -> Vec<Elsewheres> {
    let mut waiting = Vec::new();
    for peer in peers {
        let link = handle.links.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned();
        let Some((link, (id, answer))) = link.and_then(|link| Some((link, handle.elsewhere.question(*peer)?))) else {
            continue;
        };
        let ask = AskPast { id, folder: handle.id.clone(), path: path.cloned() };
        if link.outbox.control(&Frame::AskPast(ask)).is_ok() {
            waiting.push((*peer, answer));
        }
    }
    let end = tokio::time::Instant::now() + ANSWER_TIME;
    let mut all = Vec::new();
    for (peer, answer) in waiting {
        let Ok(Ok(versions)) = tokio::time::timeout_at(end, answer).await else { continue };
        let is_asked =
            |version: &PastVersion| path.is_none_or(|path| version.path == *path || version.path.is_below(path));
        all.extend(versions.into_iter().filter(is_asked).map(|version| Elsewheres { peer, version }));
    }
    all
}

/// Answers a peer's question, and those that it asks meanwhile, unless it asks too much.
pub fn answer(handle: &FolderHandle, peer: DeviceId, ask: AskPast) {
    let now = handle.clock.instant();
    let Some(ask) = lock(&handle.elsewhere.asked).take_up(peer, ask, now) else {
        return tracing::debug!(peer = %peer.short(), "a question about the past waits, or is too much");
    };
    let handle = handle.clone();
    tokio::task::spawn_blocking(move || {
        let mut asked = Some(ask);
        while let Some(ask) = asked {
            answer_one(&handle, peer, &ask);
            asked = lock(&handle.elsewhere.asked).next(peer);
        }
    });
}

fn answer_one(handle: &FolderHandle, peer: DeviceId, ask: &AskPast) {
    let versions = Reader::open(&handle.index_path).and_then(|reader| versions(&reader, ask.path.as_ref()));
    let link = handle.links.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned();
    match (versions, link) {
        (Ok(versions), Some(link)) => {
            let past = Past { id: ask.id, folder: handle.id.clone(), versions };
            if let Err(error) = link.outbox.control(&Frame::Past(past)) {
                tracing::debug!(peer = %peer.short(), %error, "an answer about the past could not be sent");
            }
        }
        (Err(error), _) => tracing::warn!(folder = %handle.label, %error, "history could not be read for a peer"),
        (Ok(_), None) => {}
    }
}

/// What history has at or below a path, the latest first. What it costs is bounded however much history has.
fn versions(reader: &Reader, path: Option<&RelPath>) -> Result<Vec<PastVersion>, IndexError> {
    let mut rows = match path {
        Some(path) => reader.latest_history_of(path, PAST_VERSIONS_MAX)?,
        None => Vec::new(),
    };
    rows.extend(reader.latest_history_below(path, PAST_VERSIONS_MAX)?);
    rows.sort_by_key(|row| std::cmp::Reverse(row.displaced_ms));
    Ok(rows.into_iter().filter_map(version).take(PAST_VERSIONS_MAX).collect())
}

fn version(row: HistoryRow) -> Option<PastVersion> {
    Some(PastVersion {
        content: row.content?,
        path: row.path,
        mtime_ns: row.disk.mtime_ns,
        mode: row.disk.mode,
        displaced_ms: row.displaced_ms,
        author: row.author,
    })
}

/// Brings the content of a version into the stage. The answer says which copy of the content that is; it is held until
/// [`release`].
pub async fn fetch(handle: &FolderHandle, from: &Elsewheres) -> Result<(WorkId, u32), String> {
    let elsewhere = &handle.elsewhere;
    let fetcher = elsewhere.fetcher.get().ok_or("this folder is starting; try again")?;
    let work = OWN_WORKS | elsewhere.next_work.fetch_add(1, Ordering::Relaxed);
    let (done, result) = oneshot::channel();
    lock(&elsewhere.fetches).insert(work, done);
    let PastVersion { path, content, .. } = from.version.clone();
    fetcher.order(FetchOrder { work, path, content, attributes: None, sources: vec![from.peer] });
    match result.await {
        Ok(Ok(staged)) => Ok((work, staged.copy)),
        Ok(Err(error)) => {
            fetcher.applied(work);
            Err(match error {
                FetchError::NoSource => "the other device does not have it any more".to_owned(),
                FetchError::Problem(problem) => problem.text,
            })
        }
        Err(_) => Err("this folder is stopping".to_owned()),
    }
}

/// What was fetched is in its place, or no longer minded.
pub fn release(handle: &FolderHandle, work: WorkId) {
    if let Some(fetcher) = handle.elsewhere.fetcher.get() {
        fetcher.applied(work);
    }
}

/// Those of the versions that this device has neither in its folder at that path nor in its history, each once.
pub fn not_here(reader: &Reader, found: Vec<Elsewheres>) -> Result<Vec<Elsewheres>, IndexError> {
    let (mut left, mut seen) = (Vec::new(), HashSet::new());
    for version in found {
        let (path, content) = (&version.version.path, version.version.content);
        let is_live = reader.record(path)?.is_some_and(|record| record.entry.kind.content() == Some(content));
        let is_same = |row: &HistoryRow| row.content.is_some_and(|here| here.id == content.id);
        if !is_live && !reader.history_of(path)?.iter().any(is_same) && seen.insert((path.clone(), content.id)) {
            left.push(version);
        }
    }
    Ok(left)
}

impl Elsewheres {
    /// The id by which people name this version: hexadecimal digits.
    pub fn id(&self) -> String {
        let version = &self.version;
        let mut hash = Sha256::new();
        hash.update(self.peer.0);
        hash.update(version.content.id.0);
        hash.update(version.displaced_ms.to_be_bytes());
        hash.update(version.path.as_bytes());
        hex(&hash.finalize()[..ID_BYTES])
    }
}

/// Brings a version back that another device has: fetched, verified, and swapped with what lies there, which goes into
/// history.
pub async fn bring_back(handle: &FolderHandle, from: &Elsewheres) -> Result<String, String> {
    let (work, copy) = fetch(handle, from).await?;
    let (shared, version) = (handle.clone(), from.version.clone());
    // It goes on to its end where whoever asked goes away meanwhile.
    let placed = tokio::task::spawn_blocking(move || {
        let done = Change::begin(&shared).and_then(|change| change.place_fetched(&version, copy));
        release(&shared, work);
        shared.hints.request(vec![version.path.clone()]);
        done.map(|()| format!("{} is back as it was", version.path))
    });
    placed.await.map_err(|e| e.to_string())?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::content::Content;
    use crate::core::disk::{DiskKind, DiskState};
    use crate::core::id::EpochId;
    use crate::engine::testing::path;
    use crate::index::Index;

    const PEER: DeviceId = DeviceId([2; 32]);

    fn row(at: &str, displaced_ms: i64, content: Option<Content>) -> HistoryRow {
        HistoryRow {
            slot: path(&format!("{at}~{displaced_ms}")),
            path: path(at),
            content,
            disk: DiskState { kind: DiskKind::File, size: 1, mtime_ns: 5, ctime_ns: 1, inode: 1, mode: 0o600 },
            author: PEER,
            displaced_ms,
            by_remote: true,
            brought_by: None,
            displaced_by: None,
            placed_ms: None,
        }
    }

    #[test]
    fn only_files_at_or_below_the_path_are_told() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let content = Some(Content::of_chunk(b"x"));
        for row in [row("d/a", 1, content), row("d/a", 3, content), row("d/link", 4, None), row("e", 2, content)] {
            index.add_history(&row).unwrap();
        }
        let told = |at: Option<&str>| {
            let at = at.map(path);
            let versions = versions(&index, at.as_ref()).unwrap();
            versions.into_iter().map(|v| (v.path.to_string(), v.displaced_ms)).collect::<Vec<_>>()
        };
        assert_eq!(told(Some("d")), [("d/a".to_owned(), 3), ("d/a".to_owned(), 1)]);
        assert_eq!(told(Some("d/a")).len(), 2);
        assert_eq!(told(None).len(), 3);
        assert_eq!(told(Some("none")), []);
    }

    #[test]
    fn what_is_here_or_told_twice_is_left_out() {
        let mut index = Index::in_memory(EpochId(1)).unwrap();
        let content = |text: &[u8]| Content::of_chunk(text);
        index.add_history(&row("a", 1, Some(content(b"here")))).unwrap();
        let found =
            |text: &[u8], peer| Elsewheres { peer, version: version(row("a", 9, Some(content(text)))).unwrap() };
        let other = DeviceId([3; 32]);
        let all = vec![found(b"here", PEER), found(b"there", PEER), found(b"there", other)];
        assert_ne!(all[1].id(), all[2].id());
        assert_eq!(not_here(&index, all).unwrap(), [found(b"there", PEER)]);
    }

    #[test]
    fn an_answer_counts_only_from_the_device_that_was_asked_and_once() {
        let elsewhere = Elsewhere::default();
        let (id, mut answer) = elsewhere.question(PEER).unwrap();
        let past = Past { id, folder: "test".parse().unwrap(), versions: Vec::new() };
        elsewhere.take(DeviceId([3; 32]), past.clone());
        assert!(answer.try_recv().is_err());
        elsewhere.take(PEER, Past { id: id + 1, ..past.clone() });
        elsewhere.take(PEER, past.clone());
        elsewhere.take(PEER, past);
        assert_eq!(answer.try_recv().unwrap(), []);
    }

    #[test]
    fn what_was_not_ordered_here_is_left_to_the_folder() {
        let elsewhere = Elsewhere::default();
        assert!(!elsewhere.fetched(7, &Err(FetchError::NoSource)));
        assert!(elsewhere.fetched(OWN_WORKS | 7, &Err(FetchError::NoSource)));
    }

    #[test]
    fn questions_that_nobody_answers_do_not_pile_up() {
        let elsewhere = Elsewhere::default();
        let waiting: Vec<_> = (0..QUESTIONS_MAX).map(|_| elsewhere.question(PEER).unwrap()).collect();
        assert!(elsewhere.question(PEER).is_none());
        drop(waiting);
        assert!(elsewhere.question(PEER).is_some());
    }
}
