//! Contents that no connected device has, or none at all any more.
//!
//! While devices are away, one of them may have it: that is no trouble of this device's, and what is wanted waits for
//! them. Once every device of the folder is connected, has told all that it has, and could not give the bytes several
//! times, the content counts as lost: the user is told, and it is asked for seldom. Whoever announces something at the
//! path, or connects, has it tried again at once. An older version that a device has is taken meanwhile.
//!
//! Before that it is let go of, once: mostly no device stands by it any more. It was ignored, its user deleted it
//! meanwhile, and then it was no longer ignored. Where a device does stand by it, comparing the digests brings it back.

use crate::core::action::WorkId;
use crate::core::decide::Decision;
use crate::core::entry::Entry;
use crate::core::id::DeviceId;
use crate::core::path::RelPath;
use crate::core::problem::{Problem, ProblemKind};
use crate::index::{IndexError, Mark, Record, Rival};

use super::plan::SOURCES_MAX;
use super::want::{Goal, retry_delay_ms};
use super::{Folder, Now};

/// So often nobody has to have had a content before it counts as lost: a device may be about to scan what its rules
/// covered so far.
const LOST_ATTEMPTS: u32 = 4;
/// Contents remembered as let go of; what is beyond stays a problem.
const LET_GO_MAX: usize = 10_000;
/// Paths that a peer is told of anew in a session; the digests are compared for what is beyond.
const TOLD_AGAIN_MAX: usize = 10_000;

impl Folder {
    /// True where whoever could have a content can be asked for it: all devices of the folder are connected and have
    /// told all that they have.
    pub(super) fn is_everybody_here(&self) -> bool {
        let peers = &self.settings.peers;
        let is_here = |peer| self.peers.get(peer).is_some_and(|p| p.hello.is_some() && p.caught_up);
        peers.len() <= SOURCES_MAX && peers.iter().all(is_here)
    }

    /// Ends a work whose bytes nobody that was asked has.
    pub(super) fn nobody_has_it(&mut self, id: WorkId, now: Now) -> Result<(), IndexError> {
        let Some(work) = self.end_undone(id)? else { return Ok(()) };
        let path = &work.path;
        let row = self.index.problem(path)?;
        let attempts = row.as_ref().filter(|r| r.problem.kind == ProblemKind::NoSource).map_or(0, |r| r.attempts);
        let was_lost = row.as_ref().is_some_and(|row| row.problem.kind == ProblemKind::Lost);
        let is_everybody_here = self.is_everybody_here();
        if !work.asks_all || !is_everybody_here || !was_lost && attempts < LOST_ATTEMPTS {
            let text = "no connected device has the content at the moment";
            // Without a peer there is nothing to try: its coming wakes what waits for it.
            let is_of_use = !self.peers.is_empty() || is_everybody_here;
            let retry = is_of_use.then(|| now.wall_ms() + retry_delay_ms(ProblemKind::NoSource, attempts));
            return self.index.set_problem(path, &Problem::new(ProblemKind::NoSource, text), now.wall_ms(), retry);
        }
        if let Goal::Adopt { rival, .. } = &work.goal
            && self.let_go(rival, now)?
        {
            return Ok(());
        }
        let text = if self.ours(path)?.is_held() {
            "a newer version of it is known, which no device of the folder has any more; save it again to keep what is here"
        } else {
            "no device of the folder has its content any more; it comes as soon as one has it again, and is no longer \
             waited for once something is saved under this name"
        };
        if !was_lost {
            self.report("problem", Some(path), text.into(), now)?;
        }
        let retry = now.wall_ms() + retry_delay_ms(ProblemKind::Lost, 0);
        self.index.set_problem(path, &Problem::new(ProblemKind::Lost, text), now.wall_ms(), Some(retry))
    }

    /// Lets go of what nobody has and nobody says to have, once. True where that was so: then what else is known of the
    /// path is decided about.
    fn let_go(&mut self, lost: &Rival, now: Now) -> Result<bool, IndexError> {
        let path = &lost.entry.path;
        let Some(content) = lost.entry.kind.content_id() else { return Ok(false) };
        if self.let_go.len() >= LET_GO_MAX || !self.let_go.insert((path.clone(), content)) {
            return Ok(false);
        }
        let (mut is_any, mut was_ours) = (false, false);
        for rival in self.index.rivals(path)? {
            if !rival.held && rival.entry.kind == lost.entry.kind {
                self.index.drop_rival(rival.peer, path)?;
                is_any = true;
                was_ours |= rival.peer == self.settings.device;
            }
        }
        self.index.set_todo(path, true)?;
        if self.index.rivals(path)?.is_empty() {
            self.index.clear_problem(path)?;
            // Peers still have what this device once said of it, and would wait for it for ever.
            if was_ours && self.index.record(path)?.is_none() {
                self.index.put(&Entry::nothing(path.clone()), None, Mark::Here, now.wall_ms())?;
                self.touch(now);
            }
        }
        Ok(is_any)
    }

    /// A peer has let go of what nobody has, and knows nothing of a path any more. Where something older is here, it is told
    /// anew: the digests are not compared as long as anything else is open. Once in a session, as a device that only
    /// receives says so again and again of what it takes back.
    pub(super) fn tell_again(
        &mut self,
        peer: DeviceId,
        ours: &Record,
        theirs: &Entry,
        now: Now,
    ) -> Result<(), IndexError> {
        if theirs.is_live() || !theirs.version.pairs().is_empty() || !ours.is_held() {
            return Ok(());
        }
        let Some(link) = self.peers.get_mut(&peer) else { return Ok(()) };
        if link.told_again.len() < TOLD_AGAIN_MAX && link.told_again.insert(theirs.path.clone()) {
            self.index.put(&ours.entry, ours.disk, ours.mark, now.wall_ms())?;
            self.touch(now);
        }
        Ok(())
    }

    /// Of several candidates one that no other includes; else what was here before and is wanted back, as it may need a
    /// copy beside the other; else one that somebody has, else the first. Where nobody had what was wanted, first of all
    /// one that somebody has.
    pub(super) fn best_of(
        &self,
        path: &RelPath,
        mut candidates: Vec<(Rival, Decision)>,
    ) -> Result<Option<(Rival, Decision)>, IndexError> {
        if candidates.len() < 2 {
            return Ok(candidates.pop());
        }
        let kind = self.index.problem(path)?.map(|row| row.problem.kind);
        let is_in_want = matches!(kind, Some(ProblemKind::NoSource | ProblemKind::Lost));
        let is_better = |new: &Rival, old: &Rival| {
            if is_in_want && new.held != old.held {
                return new.held;
            }
            let (is_newer, is_older) = (old.entry.version < new.entry.version, new.entry.version < old.entry.version);
            let is_own = |rival: &Rival| rival.peer == self.settings.device;
            let is_likelier = if is_own(new) != is_own(old) { is_own(new) } else { new.held && !old.held };
            is_newer || !is_older && is_likelier
        };
        Ok(candidates.into_iter().reduce(|old, new| if is_better(&new.0, &old.0) { new } else { old }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEER, PEERS_EPOCH, path, seen};
    use super::*;
    use crate::core::content::Content;
    use crate::core::entry::Kind;
    use crate::core::id::{DeviceId, EpochId, RunId};
    use crate::core::message::{Announced, Batch, Message};
    use crate::core::version::VersionVector;
    use crate::sync::{FetchError, Input};

    fn entry(count: u64) -> Entry {
        let kind = Kind::File(Content::of_chunk(b"nobody's"));
        Entry { kind, version: VersionVector::new().with(PEERS_EPOCH, count), ..Entry::nothing(path(0)) }
    }

    fn announced(held: bool) -> Vec<Announced> {
        vec![Announced { entry: entry(5), seq: 100, held }]
    }

    fn batch(held: bool) -> Message {
        let entries = announced(held);
        Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 100, more: false })
    }

    /// Nobody has what is being fetched, as often as it is tried within ten minutes.
    fn nobody_has_it(fixture: &mut Fixture) {
        for _ in 0..10 {
            let works: Vec<WorkId> = fixture.folder.works.keys().copied().collect();
            fixture.feed(Input::Fetched(works.into_iter().map(|id| (id, Err(FetchError::NoSource))).collect()));
            fixture.wait(60_000);
        }
    }

    fn problem(fixture: &Fixture) -> Option<ProblemKind> {
        fixture.folder.index().problem(&path(0)).unwrap().map(|row| row.problem.kind)
    }

    #[test]
    fn what_no_device_has_is_let_go_of_and_a_problem_where_one_stands_by_it() {
        let mut fixture = Fixture::new(0);
        fixture.hear(batch(false));
        nobody_has_it(&mut fixture);
        assert!(problem(&fixture).is_none() && fixture.folder.index().rivals(&path(0)).unwrap().is_empty());
        fixture.hear(Message::Repair { bucket: 0, entries: announced(false) });
        nobody_has_it(&mut fixture);
        assert_eq!(problem(&fixture), Some(ProblemKind::Lost));
        assert!(fixture.folder.is_idle());
        // It is tried again at once when somebody has it.
        fixture.hear(Message::Repair { bucket: 0, entries: announced(true) });
        assert!(!fixture.folder.works.is_empty());
    }

    #[test]
    fn peers_hear_that_what_was_wanted_back_here_is_nowhere() {
        let mut fixture = Fixture::new(0);
        fixture.feed(Input::Observed(vec![seen(0, 0)]));
        let gone = fixture.folder.ours(&path(0)).unwrap();
        fixture.folder.want_back(gone).unwrap();
        let before = fixture.folder.index().state().unwrap().last_seq;
        nobody_has_it(&mut fixture);
        let told = fixture.folder.index().record(&path(0)).unwrap().unwrap();
        assert_eq!(told.entry, Entry::nothing(path(0)));
        assert!(told.seq > before && fixture.folder.index().rivals(&path(0)).unwrap().is_empty());
    }

    #[test]
    fn who_has_let_go_of_a_version_hears_again_of_the_older_one_that_is_here() {
        let mut fixture = Fixture::new(1);
        fixture.sent.clear();
        let entries = vec![Announced { entry: Entry::nothing(path(0)), seq: 100, held: false }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 100, more: false }));
        let ours = fixture.folder.ours(&path(0)).unwrap();
        let is_told = |message: &Message| match message {
            Message::Index(batch) => batch.entries.iter().any(|told| told.held && told.entry == ours.entry),
            _ => false,
        };
        assert!(ours.is_held() && fixture.sent.iter().any(is_told), "{:?}", fixture.sent);
        // Whoever says so again is not answered for ever.
        let entries = vec![Announced { entry: Entry::nothing(path(0)), seq: 101, held: false }];
        fixture.hear(Message::Index(Batch { epoch: PEERS_EPOCH, run: RunId(2), entries, upto: 101, more: false }));
        assert_eq!(fixture.folder.ours(&path(0)).unwrap().seq, ours.seq);
    }

    #[test]
    fn each_of_two_versions_that_no_device_has_is_let_go_of() {
        let mut fixture = Fixture::new(0);
        fixture.hear(batch(false));
        let own = Entry {
            kind: Kind::File(Content::of_chunk(b"nobody's either")),
            version: VersionVector::new().with(EpochId(9), 1),
            ..entry(5)
        };
        let device = fixture.folder.settings.device;
        fixture.folder.index.put_rival(device, &Announced { entry: own, seq: 1, held: false }).unwrap();
        nobody_has_it(&mut fixture);
        assert!(problem(&fixture).is_none() && fixture.folder.index().rivals(&path(0)).unwrap().is_empty());
    }

    #[test]
    fn what_a_device_that_is_away_may_have_is_waited_for() {
        let mut fixture = Fixture::new(0);
        fixture.folder.settings.peers.insert(DeviceId([3; 32]));
        fixture.hear(batch(false));
        nobody_has_it(&mut fixture);
        assert_eq!(problem(&fixture), Some(ProblemKind::NoSource));
    }

    #[test]
    fn what_a_device_says_to_have_is_not_let_go_of() {
        let mut fixture = Fixture::new(0);
        fixture.hear(batch(true));
        nobody_has_it(&mut fixture);
        assert_eq!(problem(&fixture), Some(ProblemKind::Lost));
        assert_eq!(fixture.folder.index().rivals(&path(0)).unwrap().len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_put_off_what_waits_to_be_tried_again() {
        let mut fixture = Fixture::new(0);
        fixture.folder.settings.peers.insert(DeviceId([3; 32]));
        fixture.hear(batch(false));
        nobody_has_it(&mut fixture);
        let attempts = |fixture: &Fixture| fixture.folder.index().problem(&path(0)).unwrap().unwrap().attempts;
        let before = attempts(&fixture);
        fixture.now.wall_ns -= 90 * 24 * 3600 * 1_000_000_000;
        fixture.wait(60_000);
        assert_eq!(attempts(&fixture), before + 1);
    }

    #[test]
    fn an_older_version_that_somebody_has_is_taken_where_nobody_has_the_newer_one() {
        let mut fixture = Fixture::new(0);
        let rival = |count, held| Rival { peer: PEER, seq: count, held, entry: entry(count) };
        let both = || vec![(rival(1, true), Decision::Take), (rival(2, false), Decision::Take)];
        let best = |fixture: &Fixture| fixture.folder.best_of(&path(0), both()).unwrap().map(|(best, _)| best.seq);
        assert_eq!(best(&fixture), Some(2));
        let lost = Problem::new(ProblemKind::Lost, "nobody has it");
        fixture.folder.index.set_problem(&path(0), &lost, 0, None).unwrap();
        assert_eq!(best(&fixture), Some(1));
    }
}
