//! Compares a tree on the disk with the index, as two sorted streams.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::examine::{Queue, Report, is_applying, is_on_disk, is_unchanged, put_off, really_absent};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::hints::Look;
use crate::engine::rules::{Learning, is_rules_file};
use crate::engine::shared::{LookError, Shared};
use crate::fs::root::OpenRoot;
use crate::fs::walk::{self, Walked};
use crate::index::{Reader, Record};
use crate::sync::Seen;

/// Records read from the index at a time.
const PAGE: usize = 2000;
/// Absences confirmed and reported at a time.
const ABSENT_BATCH: usize = 256;

/// Compares the whole folder. `None` where it was stopped before all was reported.
pub fn whole(shared: &Shared, root: &OpenRoot, reader: &Reader) -> Result<Option<Walked>, LookError> {
    let is_lost = AtomicBool::new(false);
    let walked = std::thread::scope(|scope| {
        let mut queue = Queue::new(scope, shared, root, &is_lost);
        let mut report = Report::new(shared);
        let walked = sweep(shared, root, reader, None, &mut queue, &mut report)?;
        let is_sent = report.flush();
        queue.finish();
        Ok::<_, LookError>(walked.filter(|_| is_sent))
    })?;
    Ok(walked.filter(|_| !is_lost.load(Ordering::Relaxed)))
}

/// Compares what lies below a directory (not itself; `None` is the whole folder): what differs from the index is
/// reported or handed to the queue. `None` where it was stopped.
pub fn sweep<'env>(
    shared: &Shared,
    root: &OpenRoot,
    reader: &Reader,
    below: Option<&RelPath>,
    queue: &mut Queue<'_, 'env>,
    report: &mut Report<'env>,
) -> Result<Option<Walked>, LookError> {
    let rules = RefCell::new(Learning::new(shared, root));
    let mut merge = Merge {
        shared,
        root,
        reader,
        rules: &rules,
        queue,
        report,
        records: Records { reader, below, page: Vec::new().into_iter(), last: None, is_at_end: false },
        unreadable: None,
        put_off: None,
        absent: Vec::new(),
    };
    let mut failure = None;
    let mut enter = |path: &RelPath, kind: DiskKind| {
        if kind == DiskKind::File && is_rules_file(path) {
            rules.borrow_mut().came_by(path);
        }
        rules.borrow().rules().is_ignored_itself(path, kind == DiskKind::Directory).is_none()
    };
    let walked = walk::walk(root, below, &mut enter, &mut |batch| match merge.take_all(batch) {
        Ok(true) => ControlFlow::Continue(()),
        Ok(false) => ControlFlow::Break(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let is_whole = !walked.stopped && merge.finish()?;
    Ok(is_whole.then_some(walked))
}

/// The records of a tree in the order of their paths, page by page.
struct Records<'a> {
    reader: &'a Reader,
    below: Option<&'a RelPath>,
    page: std::vec::IntoIter<Record>,
    last: Option<RelPath>,
    is_at_end: bool,
}

impl Records<'_> {
    /// The next one, if it comes before the path; with no path, just the next.
    fn next_before(&mut self, path: Option<&RelPath>) -> Result<Option<Record>, LookError> {
        let is_before = self.peek()?.is_some_and(|record| path.is_none_or(|path| record.entry.path < *path));
        Ok(if is_before { self.page.next() } else { None })
    }

    /// The next one, if it is of this very path.
    fn next_at(&mut self, path: &RelPath) -> Result<Option<Record>, LookError> {
        let is_at = self.peek()?.is_some_and(|record| record.entry.path == *path);
        Ok(if is_at { self.page.next() } else { None })
    }

    fn peek(&mut self) -> Result<Option<&Record>, LookError> {
        if self.page.as_slice().is_empty() && !self.is_at_end {
            let page = self.reader.records_from(self.last.as_ref(), self.below, PAGE)?;
            self.is_at_end = page.len() < PAGE;
            self.last = page.last().map(|record| record.entry.path.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first())
    }
}

struct Merge<'a, 'scope, 'env> {
    shared: &'a Shared,
    root: &'a OpenRoot,
    reader: &'a Reader,
    rules: &'a RefCell<Learning<'a>>,
    queue: &'a mut Queue<'scope, 'env>,
    report: &'a mut Report<'env>,
    records: Records<'a>,
    /// The last directory that could not be listed: nothing is known of what is below it.
    unreadable: Option<RelPath>,
    /// The last directory that is new and could not be reported now. Nor is what is below it: a peer that heard of that
    /// first would make a directory of its own. All of it is looked at together with the directory.
    put_off: Option<RelPath>,
    /// Paths of the index that the walk did not come by.
    absent: Vec<RelPath>,
}

impl Merge<'_, '_, '_> {
    /// False where the folder has stopped.
    fn take_all(&mut self, batch: Vec<walk::Seen>) -> Result<bool, LookError> {
        for seen in batch {
            while let Some(record) = self.records.next_before(Some(&seen.path))? {
                self.unseen(record)?;
            }
            let record = self.records.next_at(&seen.path)?;
            let is_running = match seen.state {
                Ok(state) => self.present(seen.path, state, record)?,
                Err(problem) => self.failed(seen.path, problem)?,
            };
            if !is_running || self.shared.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the records that come after everything on the disk.
    fn finish(&mut self) -> Result<bool, LookError> {
        while let Some(record) = self.records.next_before(None)? {
            self.unseen(record)?;
        }
        self.report_absent()
    }

    fn present(&mut self, path: RelPath, state: DiskState, record: Option<Record>) -> Result<bool, LookError> {
        if is_unchanged(record.as_ref(), &state) || self.put_off.as_ref().is_some_and(|dir| path.is_below(dir)) {
            return Ok(true);
        }
        let look = Look::hinted(path);
        let is_known_directory = record.is_some_and(|r| r.entry.kind.is_directory() && r.disk.is_some());
        let new_directory = (state.kind == DiskKind::Directory && !is_known_directory).then(|| look.path.clone());
        if is_applying(self.shared, &look.path) {
            put_off(self.shared, look);
            self.put_off = new_directory.or(self.put_off.take());
            return Ok(true);
        }
        if !self.shared.hints.claim(&look) {
            self.put_off = new_directory.or(self.put_off.take());
            return Ok(true);
        }
        // The page may have been read long ago.
        let is_known = match self.reader.record(&look.path) {
            Ok(record) => is_unchanged(record.as_ref(), &state),
            Err(error) => {
                self.shared.hints.release([&look.path]);
                return Err(error.into());
            }
        };
        if is_known {
            self.shared.hints.release([&look.path]);
            return Ok(true);
        }
        if state.kind != DiskKind::Directory {
            self.queue.push(look, state, self.report);
            return Ok(true);
        }
        // The walk may go on in a directory that was renamed meanwhile.
        match self.root.look(&look.path) {
            Ok(Some(state)) if state.kind == DiskKind::Directory => {
                Ok(self.report.add(look.path, Seen::Directory(state)))
            }
            _ => {
                self.shared.hints.release([&look.path]);
                put_off(self.shared, look);
                self.put_off = new_directory.or(self.put_off.take());
                Ok(true)
            }
        }
    }

    fn failed(&mut self, path: RelPath, problem: Problem) -> Result<bool, LookError> {
        // Nothing is below a special file, so what was there is gone.
        if problem.kind != ProblemKind::SpecialFile {
            self.unreadable = Some(path.clone());
        }
        if problem.kind == ProblemKind::Busy {
            put_off(self.shared, Look::hinted(path));
            return Ok(true);
        }
        if self.reader.problem(&path)?.is_some_and(|row| row.problem == problem) {
            return Ok(true);
        }
        if !self.shared.hints.claim(&Look::hinted(path.clone())) {
            return Ok(true);
        }
        Ok(self.report.add(path, Seen::Failed(problem)))
    }

    /// A record that the walk did not come by.
    fn unseen(&mut self, record: Record) -> Result<(), LookError> {
        let path = &record.entry.path;
        let is_unknown = self.unreadable.as_ref().is_some_and(|dir| path.is_below(dir));
        let is_directory = record.entry.kind.is_directory();
        let is_ignored = self.rules.borrow().rules().is_ignored(path, is_directory).is_some();
        if !is_on_disk(&record) || is_unknown || is_ignored {
            return Ok(());
        }
        if is_applying(self.shared, path) {
            put_off(self.shared, Look::hinted(record.entry.path));
            return Ok(());
        }
        self.shared.departed.note(&record, self.shared.clock.instant());
        self.absent.push(record.entry.path);
        if self.absent.len() >= ABSENT_BATCH {
            self.report_absent()?;
        }
        Ok(())
    }

    /// Reports what is still not there at a second look. False where the folder has stopped.
    fn report_absent(&mut self) -> Result<bool, LookError> {
        let mut claimed = std::mem::take(&mut self.absent);
        claimed.retain(|path| self.shared.hints.claim(&Look::hinted(path.clone())));
        if claimed.is_empty() {
            return Ok(true);
        }
        let absent: HashSet<RelPath> = match really_absent(self.shared, claimed.clone()) {
            Ok(absent) => absent.into_iter().collect(),
            Err(error) => {
                self.shared.hints.release(&claimed);
                return Err(error.into());
            }
        };
        let mut is_running = true;
        for path in claimed {
            // The page may have been read long ago.
            let is_news = matches!(self.reader.record(&path), Ok(Some(record)) if is_on_disk(&record));
            if is_news && absent.contains(&path) {
                is_running &= self.report.add(path, Seen::Absent);
                continue;
            }
            self.shared.hints.release([&path]);
            if is_news {
                put_off(self.shared, Look::hinted(path));
            }
        }
        Ok(is_running)
    }
}
