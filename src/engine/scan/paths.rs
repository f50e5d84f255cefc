//! Looks at the paths that wait in the hints.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::examine::{Queue, Report, is_applying, is_on_disk, is_unchanged, put_off, really_absent};
use super::{open_reader, sweep};
use crate::core::disk::{DiskKind, DiskState};
use crate::core::ignore::{IGNORE_FILE, Rules};
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::engine::hints::{Job, Look};
use crate::engine::rules::{self, Learning};
use crate::engine::shared::{LookError, Shared};
use crate::fs::nearby::Nearby;
use crate::fs::root::OpenRoot;
use crate::fs::walk;
use crate::index::{Reader, Record};
use crate::sync::Seen;

/// When to look again where the folder is not there, or the look failed as a whole.
const FAILED_AGAIN: Duration = Duration::from_secs(2);
/// Pause after a look that found nothing new. Mostly what was heard is what the agent itself is putting into place, and
/// more of it is looked at together for less; a user's edit meanwhile does not wait noticeably.
const ECHO_PAUSE: Duration = Duration::from_millis(10);
/// Hints sorted out with one view of the index: enough to share its cost, few enough that it stays short.
const VIEW_LOOKS: usize = 64;

/// The thread that does one job after the other.
pub fn run(shared: &Shared) {
    let Some(reader) = open_reader(shared) else { return };
    while let Job::Paths(looks) = shared.hints.next(&shared.stop) {
        if !do_job(shared, &reader, looks) {
            std::thread::sleep(ECHO_PAUSE);
        }
    }
}

/// Looks at each of the paths; what could not be looked at waits for a better moment. False where all was as the index
/// has it.
pub fn do_job(shared: &Shared, reader: &Reader, mut looks: Vec<Look>) -> bool {
    // Much of what the watch hears is what the agent itself is doing.
    for look in looks.extract_if(.., |look| !look.requested && is_applying(shared, &look.path)) {
        put_off(shared, look);
    }
    if looks.is_empty() {
        return false;
    }
    let error = match look_at_all(shared, reader, &looks) {
        Ok(is_news) => return is_news,
        Err(error) => error,
    };
    tracing::debug!(folder = %shared.label, error = &error as &dyn Error, "could not look at some paths");
    if matches!(error, LookError::Fs(_)) {
        shared.hints.request_full("the folder could not be opened");
    }
    let due = shared.clock.instant() + FAILED_AGAIN;
    looks.into_iter().for_each(|look| shared.hints.again(look, due));
    false
}

/// Looks at each of the paths, and below those that are directories. False where all was as the index has it.
pub(super) fn look_at_all(shared: &Shared, reader: &Reader, looks: &[Look]) -> Result<bool, LookError> {
    let root = shared.root.open()?;
    // A changed rule covers what was made right after it.
    if looks.iter().any(|look| look.path.as_bytes() == IGNORE_FILE.as_bytes()) {
        rules::catch_up(shared, reader);
        rules::reload(shared, Some(reader));
    }
    // These rules are never observed, so nobody else tells the folder.
    if looks.iter().any(|look| rules::is_local_file(&look.path)) {
        rules::catch_up(shared, reader);
    }
    if looks.iter().any(|look| rules::went_unseen(&root, reader, &look.path)) {
        rules::renew(shared, reader);
    }
    let mut learning = Learning::new(shared, &root);
    looks.iter().filter(|look| rules::is_rules_file(&look.path)).for_each(|look| learning.changed(&look.path));
    let is_lost = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut looker = Looker {
            shared,
            reader,
            root: &root,
            rules: Arc::clone(learning.rules()),
            queue: Queue::new(scope, shared, &root, &is_lost),
            report: Report::new(shared),
            swept: None,
        };
        // What has vanished is reported first: then a renamed file is known to have left when its new name is seen.
        let looked = looker.sort_out(looks).and_then(|(gone, there)| {
            let is_news = !gone.is_empty() || !there.is_empty();
            let vanished = gone.into_iter().try_for_each(|look| looker.start(look));
            looker.report.flush();
            looker.swept = None;
            vanished.and_then(|()| there.into_iter().try_for_each(|look| looker.start(look)))?;
            Ok(is_news)
        });
        looker.report.flush();
        looker.queue.finish();
        looked
    })
}

struct Looker<'a, 'scope, 'env> {
    shared: &'env Shared,
    reader: &'a Reader,
    root: &'env OpenRoot,
    rules: Arc<Rules>,
    queue: Queue<'scope, 'env>,
    report: Report<'env>,
    /// The last path that was compared with all that is below it. Looks come in the order of paths.
    swept: Option<RelPath>,
}

impl Looker<'_, '_, '_> {
    /// Those looks of which something is to be made: what has vanished, and the rest.
    fn sort_out<'l>(&self, looks: &'l [Look]) -> Result<(Vec<&'l Look>, Vec<&'l Look>), LookError> {
        let (mut gone, mut there) = (Vec::new(), Vec::new());
        let near = Nearby::new(self.root);
        for looks in looks.chunks(VIEW_LOOKS) {
            // All are claimed before the view: what it does not see yet is looked at again by whoever writes it.
            let claims: Vec<Claim> = looks.iter().map(|look| self.claim(look)).collect();
            let all: Result<Vec<News>, LookError> = self
                .reader
                .in_one_view(|| looks.iter().zip(&claims).map(|(look, claim)| self.news(look, claim, &near)).collect());
            let ours = looks.iter().zip(&claims).filter(|(_, claim)| matches!(claim, Claim::Ours));
            self.shared.hints.release(ours.map(|(look, _)| &look.path));
            for (look, news) in looks.iter().zip(all?) {
                match news {
                    News::None => {}
                    News::Gone => gone.push(look),
                    News::There => there.push(look),
                }
            }
        }
        Ok((gone, there))
    }

    fn start(&mut self, look: &Look) -> Result<(), LookError> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_swept = |path: &RelPath| self.swept.as_ref().is_some_and(|dir| path == dir || path.is_below(dir));
        if !look.requested && is_swept(&look.path) {
            return Ok(());
        }
        let unknown = self.topmost_unknown(&look.path)?;
        if look.requested {
            // Whoever asked gets an answer for this very path; what leads there is looked at besides.
            if let Some(above) = unknown.filter(|above| !is_swept(above)) {
                put_off(self.shared, Look::hinted(above));
            }
            return self.look(look.clone());
        }
        match unknown {
            Some(above) if is_swept(&above) => Ok(()),
            Some(above) => self.look(Look::hinted(above)),
            None => self.look(look.clone()),
        }
    }

    /// A first look at a hint. Mostly there is nothing to be done: the file is as the index has it, since the agent
    /// itself has put it there.
    fn news(&self, look: &Look, claim: &Claim, near: &Nearby) -> Result<News, LookError> {
        if matches!(claim, Claim::Others) {
            return Ok(News::None);
        }
        match near.look(&look.path) {
            Ok(None) => Ok(News::Gone),
            Ok(Some(state)) if matches!(claim, Claim::Ours) && state.kind != DiskKind::Directory => {
                self.is_known(&look.path, &state)
            }
            _ => Ok(News::There),
        }
    }

    fn claim(&self, look: &Look) -> Claim {
        if look.requested || is_applying(self.shared, &look.path) {
            Claim::Needless
        } else if self.shared.hints.claim(look) {
            Claim::Ours
        } else {
            Claim::Others
        }
    }

    fn is_known(&self, path: &RelPath, state: &DiskState) -> Result<News, LookError> {
        let record = self.reader.record(path)?;
        let is_known = is_unchanged(record.as_ref(), state) && self.reader.problem(path)?.is_none();
        Ok(if is_known { News::None } else { News::There })
    }

    /// The topmost directory above a path that the index does not know as one.
    fn topmost_unknown(&self, path: &RelPath) -> Result<Option<RelPath>, LookError> {
        let mut unknown = None;
        for above in path.ancestors() {
            if self.reader.record(&above)?.is_some_and(|r| r.entry.kind.is_directory() && r.disk.is_some()) {
                break;
            }
            unknown = Some(above);
        }
        Ok(unknown)
    }

    fn look(&mut self, look: Look) -> Result<(), LookError> {
        if !look.requested && is_applying(self.shared, &look.path) {
            put_off(self.shared, look);
            return Ok(());
        }
        if !self.shared.hints.claim(&look) {
            return Ok(());
        }
        let path = look.path.clone();
        match self.claimed(look) {
            Ok(Below::Unminded) => Ok(()),
            Ok(Below::Nothing) => {
                super::look_at_problems(self.shared, self.reader, Some(&path))?;
                self.swept = Some(path);
                Ok(())
            }
            Ok(Below::Compare) => {
                self.report.flush();
                sweep::sweep(self.shared, self.root, self.reader, Some(&path), &mut self.queue, &mut self.report)?;
                super::look_at_problems(self.shared, self.reader, Some(&path))?;
                self.swept = Some(path);
                Ok(())
            }
            Err(error) => {
                self.shared.hints.release([&path]);
                Err(error)
            }
        }
    }

    /// Deals with a claimed path. Where it fails the path is still claimed.
    fn claimed(&mut self, look: Look) -> Result<Below, LookError> {
        let record = self.reader.record(&look.path)?;
        let found = match self.root.look(&look.path) {
            Err(problem) => return self.failed(look, problem),
            Ok(found) => found,
        };
        let is_directory = found.is_some_and(|state| state.kind == DiskKind::Directory);
        let known = self.reader.problem(&look.path)?;
        // That it is there is no news of one that can't be listed, and would take back that it can't.
        if is_directory && let Some(known) = &known {
            if let Some(problem) = unlistable(self.root, &look.path)? {
                return self.failed(look, problem);
            }
            // Trouble with what a peer wants there comes and goes without a change of who may list it.
            let is_of_listing = known.problem.kind == ProblemKind::Permission && known.retry_ms.is_none();
            if is_of_listing && !self.shared.live.is_watch_partial.swap(true, Ordering::Relaxed) {
                self.shared.hints.request_full("a directory can be listed again");
            }
        }
        let is_ignored = self.rules.is_ignored(&look.path, is_directory).is_some();
        if !is_directory && self.shared.hints.is_claimed_below(&look.path) {
            // What is about to be reported from below is not in the index yet, but gone as well.
            put_off(self.shared, Look::hinted(look.path.clone()));
        }
        let below = match found {
            _ if is_ignored => Below::Unminded,
            Some(_) if is_directory => Below::Compare,
            _ if self.reader.has_any_below(&look.path)? => Below::Compare,
            _ => Below::Nothing,
        };
        match found.filter(|_| !is_ignored || look.requested) {
            Some(state) => self.present(look, state, record.as_ref().filter(|_| known.is_none())),
            None => self.absent(look, record.as_ref())?,
        }
        Ok(below)
    }

    fn present(&mut self, look: Look, state: DiskState, record: Option<&Record>) {
        if !look.requested && is_unchanged(record, &state) {
            self.shared.hints.release([&look.path]);
        } else if state.kind == DiskKind::Directory {
            self.report.add(look.path, Seen::Directory(state));
        } else {
            self.queue.push(look, state, &mut self.report);
        }
    }

    /// Nothing stands there that syncs: news if the index has something there, or a problem with what was there.
    fn absent(&mut self, look: Look, record: Option<&Record>) -> Result<(), LookError> {
        let is_ignored =
            |record: &Record| self.rules.is_ignored(&record.entry.path, record.entry.kind.is_directory()).is_some();
        let is_gone = record.is_some_and(|record| is_on_disk(record) && !is_ignored(record));
        let is_news = look.requested || is_gone || self.reader.problem(&look.path)?.is_some();
        if is_news && !really_absent(self.shared, vec![look.path.clone()])?.is_empty() {
            if let Some(record) = record {
                self.shared.departed.note(record, self.shared.clock.instant());
            }
            self.report.add(look.path, Seen::Absent);
            return Ok(());
        }
        self.shared.hints.release([&look.path]);
        if is_news {
            put_off(self.shared, look);
        }
        Ok(())
    }

    fn failed(&mut self, look: Look, problem: Problem) -> Result<Below, LookError> {
        let is_known = self.reader.problem(&look.path)?.is_some_and(|row| row.problem == problem);
        if look.requested || !is_known {
            self.report.add(look.path, Seen::Failed(problem));
        } else {
            self.shared.hints.release([&look.path]);
        }
        Ok(Below::Unminded)
    }
}

/// Why a directory can't be listed; `None` where it can.
fn unlistable(root: &OpenRoot, path: &RelPath) -> Result<Option<Problem>, LookError> {
    let mut trouble = None;
    walk::walk(root, Some(path), &mut |_, _| false, &mut |batch| {
        trouble = batch.into_iter().find(|seen| seen.path == *path).and_then(|seen| seen.state.err());
        ControlFlow::Break(())
    })?;
    Ok(trouble)
}

/// What a first look at a hint says.
enum News {
    /// It is as the index has it, or somebody else is at it.
    None,
    /// Nothing stands there.
    Gone,
    There,
}

/// Whether a path may be compared with the index.
enum Claim {
    Ours,
    /// Whoever is at it sees to it that it is looked at again.
    Others,
    /// It is looked at, or put off, whatever the index has.
    Needless,
}

/// Whether what is below a path has to be compared with the index as well.
enum Below {
    /// Nothing is there, neither on the disk nor in the index.
    Nothing,
    /// What is there is none of the folder's business, or cannot be looked at.
    Unminded,
    Compare,
}
