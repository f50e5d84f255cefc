//! Waiting until other devices have what is here.
//!
//! What changed just before the question has to be known first: a file is looked at, a folder is scanned. Then each
//! acknowledgement of a peer wakes whoever waits; nothing is asked over and over.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::report::{self, Awaited, LiveStatus};
use super::shared::FolderHandle;
use crate::api::WaitReport;
use crate::config::Config;
use crate::core::path::RelPath;
use crate::home::Home;
use crate::index::{IndexError, Mark, Reader};
use crate::sync::{NOTE_HALTED, NOTE_HELD};

/// Longest time for one answer: whoever waits longer asks again.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two looks at the index: acknowledgements of many small changes come close together.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Questions about one path that wait for a look at it.
const LOOKS_MAX: usize = 64;

/// What happens in a folder, for whoever waits for it.
#[derive(Default)]
pub struct Progress {
    /// Counts what the folder's thread has taken in and committed.
    taken: watch::Sender<u64>,
    /// How many scans of the whole folder have begun, and how many have ended.
    scans: watch::Sender<(u64, u64)>,
    /// Who waits until the folder has taken in a look at a path.
    looks: Mutex<HashMap<RelPath, Vec<oneshot::Sender<()>>>>,
}

impl Progress {
    /// The folder's thread has taken in and committed something.
    pub fn took(&self) {
        self.taken.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A scan of the whole folder begins.
    pub fn scan_begins(&self) {
        self.scans.send_modify(|(begun, _)| *begun += 1);
    }

    /// The first scan that is not over is, and the folder's thread has taken in all of it.
    pub fn scan_ended(&self) {
        self.scans.send_modify(|(_, ended)| *ended += 1);
    }

    /// Looks at these paths have been taken in.
    pub fn looked_at(&self, paths: &[RelPath]) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.is_empty() {
            return;
        }
        for waiting in paths.iter().filter_map(|path| looks.remove(path)) {
            for waiting in waiting {
                // Whoever has gone away does not mind.
                let _ = waiting.send(());
            }
        }
    }

    /// Fires once a look at the path has been taken in; at once where too many wait already.
    fn next_look(&self, path: &RelPath) -> oneshot::Receiver<()> {
        let (fire, fired) = oneshot::channel();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, waiting| {
            waiting.retain(|waiting| !waiting.is_closed());
            !waiting.is_empty()
        });
        if looks.values().map(Vec::len).sum::<usize>() < LOOKS_MAX {
            looks.entry(path.clone()).or_default().push(fire);
        }
        fired
    }
}

/// A question: who has what is at or below a path of a running folder?
pub struct Question {
    pub home: Home,
    pub config: Arc<Config>,
    pub handle: FolderHandle,
    pub path: Option<RelPath>,
    pub peers: Option<u32>,
    pub upto: Option<u64>,
    pub time: Duration,
}

impl Question {
    /// Answers once as many peers as were asked for hold it, or the time is over. `live` says who is connected.
    pub async fn wait(self, live: impl Fn() -> LiveStatus) -> Result<WaitReport, String> {
        let end = Instant::now() + self.time.min(ANSWER_MAX);
        let question = Arc::new(self);
        // What comes in between the look at the index and the wait is not missed.
        let mut taken = question.handle.progress.taken.subscribe();
        let upto = match question.upto {
            Some(upto) => upto,
            None => match tokio::time::timeout_at(end, question.settle(&mut taken)).await {
                Ok(upto) => upto?,
                Err(_) => return question.unknown(live()).await,
            },
        };
        loop {
            taken.borrow_and_update();
            let report = question.look(upto, live()).await?;
            if report.done || report.trouble.is_some() || Instant::now() >= end {
                return Ok(report);
            }
            // Where the folder stops meanwhile the next look says so.
            let _ = tokio::time::timeout_at(end, taken.changed()).await;
            tokio::time::sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// Sees to it that the index knows of all that was on the disk when the question was asked, and says how far its
    /// numbers go then.
    async fn settle(self: &Arc<Self>, taken: &mut watch::Receiver<u64>) -> Result<u64, String> {
        // A folder that has stopped itself says why at once.
        self.look_settled().await?;
        let place = self.place();
        let path = self.path.as_ref().filter(|_| !place.symlink_metadata().is_ok_and(|meta| meta.is_dir()));
        match path {
            Some(path) => {
                // A look that is under way may have begun before the question.
                for _ in 0..2 {
                    let looked = self.handle.progress.next_look(path);
                    self.handle.hints.request(vec![path.clone()]);
                    let _ = looked.await;
                }
            }
            None => {
                let mut scans = self.handle.progress.scans.subscribe();
                let next = scans.borrow_and_update().0 + 1;
                self.handle.hints.request_full("somebody waits for other devices to have everything");
                let _ = scans.wait_for(|(_, ended)| *ended >= next).await;
            }
        }
        loop {
            taken.borrow_and_update();
            if let Some(upto) = self.look_settled().await? {
                return Ok(upto);
            }
            let _ = taken.changed().await;
        }
    }

    async fn look_settled(self: &Arc<Self>) -> Result<Option<u64>, String> {
        let question = Arc::clone(self);
        tokio::task::spawn_blocking(move || question.settled()).await.map_err(|e| e.to_string())?
    }

    /// The index's last number, unless something that has vanished is still to be decided about.
    fn settled(&self) -> Result<Option<u64>, String> {
        let reader = self.reader()?;
        let read = || -> Result<_, IndexError> {
            let record = match &self.path {
                Some(path) => reader.record(path)?.filter(|record| !record.entry.kind.is_directory()),
                None => None,
            };
            let is_open = match record {
                Some(file) => file.mark == Mark::Missing,
                None => reader.count_marked(Mark::Missing)? > 0 && reader.note(NOTE_HELD)?.is_none(),
            };
            Ok((is_open, reader.note(NOTE_HALTED)?, reader.state()?.last_seq))
        };
        let (is_open, halted, last_seq) = read().map_err(|e| e.to_string())?;
        match halted {
            Some(text) => Err(text),
            None if is_open => Ok(None),
            None => Ok(Some(last_seq)),
        }
    }

    async fn look(self: &Arc<Self>, upto: u64, live: LiveStatus) -> Result<WaitReport, String> {
        let question = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || question.read(upto, &live));
        looked.await.map_err(|e| e.to_string())?
    }

    /// The answer where it is not even known what there is to be waited for.
    async fn unknown(self: &Arc<Self>, live: LiveStatus) -> Result<WaitReport, String> {
        let report = self.look(u64::MAX, live).await?;
        Ok(WaitReport { done: false, upto: None, ..report })
    }

    fn read(&self, upto: u64, live: &LiveStatus) -> Result<WaitReport, String> {
        let folder = self.config.folder(&self.handle.id).ok_or("this folder is not shared any more")?;
        if self.handle.stop.load(Ordering::Relaxed) {
            return Err("this folder is stopping".to_owned());
        }
        let awaited = Awaited { path: self.path.as_ref(), upto, peers: self.peers };
        report::receipt(&self.home, &self.config, folder, &awaited, Some(live)).map_err(|e| e.to_string())
    }

    fn reader(&self) -> Result<Reader, String> {
        Reader::open(&self.handle.index_path).map_err(|e| e.to_string())
    }

    fn place(&self) -> std::path::PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let below = self.path.as_ref().map(RelPath::as_bytes).unwrap_or_default();
        self.handle.root.path().join(Path::new(std::ffi::OsStr::from_bytes(below)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn whoever_waits_for_a_look_is_woken_by_that_path_only() {
        let progress = Progress::default();
        let (mut a, mut b) = (progress.next_look(&path("a")), progress.next_look(&path("b")));
        progress.looked_at(&[path("b"), path("c")]);
        assert!(b.try_recv().is_ok() && a.try_recv().is_err());
        progress.looked_at(&[path("a")]);
        a.await.unwrap();
    }

    #[tokio::test]
    async fn too_many_questions_do_not_pile_up() {
        let progress = Progress::default();
        let waiting: Vec<_> = (0..LOOKS_MAX).map(|n| progress.next_look(&path(&n.to_string()))).collect();
        assert!(progress.next_look(&path("x")).await.is_err());
        drop(waiting);
        let mut next = progress.next_look(&path("x"));
        assert_eq!(progress.looks.lock().unwrap().len(), 1);
        progress.looked_at(&[path("x")]);
        next.try_recv().unwrap();
    }

    #[tokio::test]
    async fn a_scan_that_had_begun_before_is_not_the_one_that_is_waited_for() {
        let progress = Progress::default();
        progress.scan_begins();
        let mut scans = progress.scans.subscribe();
        let next = scans.borrow_and_update().0 + 1;
        progress.scan_begins();
        progress.scan_ended();
        assert!(scans.borrow().1 < next);
        progress.scan_ended();
        scans.wait_for(|(_, ended)| *ended >= next).await.unwrap();
    }
}
