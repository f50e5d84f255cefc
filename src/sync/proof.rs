//! Proof that two indexes agree: digests are compared when both sides have applied all of each other, and of buckets
//! that differ the entries are exchanged. This is the periodic reconciliation, beside the periodic scan.

use crate::core::id::DeviceId;
use crate::core::message::{BATCH_ENTRIES_MAX, BUCKETS, DigestReport, Message};
use crate::core::path::RelPath;
use crate::index::IndexError;

use super::{Folder, Now, Output};

/// A changed folder is compared once it has been quiet for this long.
const QUIET_MS: u64 = 1000;
/// A report that was not answered is repeated after this long, and later ones after twice as long each: the peer may not
/// have what it wants back, and nobody tells until when.
const ANSWER_MS: u64 = 10_000;
/// Times that the wait for an answer doubles; after that it is about ten minutes.
const DOUBLINGS_MAX: u32 = 6;
/// Buckets are exchanged at most this often with one peer, should digests not become equal.
const REPAIR_MS: u64 = 60_000;
/// Buckets exchanged at once; what is still unequal has its turn after [`REPAIR_MS`].
const BUCKETS_AT_ONCE: usize = 16;
/// Entries exchanged per message.
const REPAIR_ENTRIES: usize = BATCH_ENTRIES_MAX / 4;

/// What is known about the last comparison with a peer.
#[derive(Default)]
pub(super) struct Proof {
    /// Our and their sequence number that were last found equal, and when.
    proved: Option<(u64, u64, u64)>,
    /// The sequence numbers at which both sides have applied all of each other, as things are.
    settled: Option<(u64, u64)>,
    /// When a report was last sent, and for which sequence numbers.
    asked: Option<(u64, u64, u64)>,
    /// How many reports for them had no answer before.
    unanswered: u32,
    repaired_ms: Option<u64>,
}

impl Folder {
    /// Sends a report to a peer that has applied all of ours and of which we have applied all, if one is due.
    pub(super) fn prove(&mut self, peer: DeviceId, now: Now) -> Result<(), IndexError> {
        let settled = self.settled_with(peer)?;
        if let Some(link) = self.peers.get_mut(&peer) {
            link.proof.settled = settled;
        }
        let Some((ours, theirs)) = settled else { return Ok(()) };
        if self.proof_due_ms(peer).is_none_or(|at| at > now.mono_ms) {
            return Ok(());
        }
        self.send_report(peer, ours, theirs, false)?;
        if let Some(link) = self.peers.get_mut(&peer) {
            let is_repeated = link.proof.asked.is_some_and(|at| (at.0, at.1) == (ours, theirs));
            link.proof.unanswered = if is_repeated { link.proof.unanswered.saturating_add(1) } else { 0 };
            link.proof.asked = Some((ours, theirs, now.mono_ms));
        }
        Ok(())
    }

    pub(super) fn next_proof_ms(&self) -> Option<u64> {
        self.peers.keys().filter_map(|peer| self.proof_due_ms(*peer)).min()
    }

    /// When the next comparison with a settled peer is due.
    fn proof_due_ms(&self, peer: DeviceId) -> Option<u64> {
        let proof = &self.peers.get(&peer)?.proof;
        let now_at = proof.settled?;
        let is_same = |at: &(u64, u64, u64)| (at.0, at.1) == now_at;
        let proved = proof.proved.filter(is_same).map(|p| p.2 + self.settings.reconcile_ms);
        let asked = proof.asked.filter(is_same).map(|a| a.2 + (ANSWER_MS << proof.unanswered.min(DOUBLINGS_MAX)));
        let earliest = match (proved, asked) {
            (Some(proved), Some(asked)) => proved.max(asked),
            (one, other) => one.or(other).unwrap_or(0),
        };
        Some(earliest.max(self.changed_mono_ms + QUIET_MS))
    }

    /// Our and their last sequence number, where each side has applied all of the other's index.
    fn settled_with(&self, peer: DeviceId) -> Result<Option<(u64, u64)>, IndexError> {
        let Some((_, their_last)) = self.peers.get(&peer).filter(|p| p.caught_up).and_then(|p| p.hello) else {
            return Ok(None);
        };
        let row = self.peer_row(peer)?;
        let last_seq = self.index.state()?.last_seq;
        let theirs_applied =
            row.cursor.is_some_and(|c| c.seq == their_last) && self.index.rivals_of(peer, 1)?.is_empty();
        let theirs_applied = theirs_applied && !self.wants_back()?;
        let ours_applied = row.applied == last_seq && self.index.exceptions(peer, 1)?.is_empty();
        Ok((theirs_applied && ours_applied).then_some((last_seq, their_last)))
    }

    /// True while this device lacks something that it said it has: the peers count it, and the digest here does not.
    fn wants_back(&self) -> Result<bool, IndexError> {
        Ok(!self.index.rivals_of(self.settings.device, 1)?.is_empty())
    }

    fn send_report(&mut self, peer: DeviceId, seq: u64, seen: u64, is_answer: bool) -> Result<(), IndexError> {
        let report = DigestReport { epoch: self.epoch()?, seq, seen, buckets: self.index.digest()?, is_answer };
        self.outputs.push(Output::Send(peer, Message::Digest(report)));
        Ok(())
    }

    pub(super) fn hear_digest(&mut self, peer: DeviceId, report: DigestReport, now: Now) -> Result<(), IndexError> {
        let row = self.peer_row(peer)?;
        let last_seq = self.index.state()?.last_seq;
        let theirs_applied = self.index.rivals_of(peer, 1)?.is_empty();
        let is_current = row.cursor.is_some_and(|c| c.epoch == report.epoch && c.seq == report.seq);
        // A report about another moment proves nothing; the next one will.
        if !is_current || report.seen != last_seq || !theirs_applied || self.wants_back()? {
            return Ok(());
        }
        if !report.is_answer {
            self.send_report(peer, last_seq, report.seq, true)?;
        }
        let ours = self.index.digest()?;
        let unequal: Vec<u8> =
            (0..=u8::MAX).filter(|b| ours.get(*b as usize) != report.buckets.get(*b as usize)).collect();
        if unequal.is_empty() {
            let mut row = self.peer_row(peer)?;
            row.proved_ms = Some(now.wall_ms());
            self.index.set_peer(&row)?;
            if let Some(link) = self.peers.get_mut(&peer) {
                link.proof.proved = Some((last_seq, report.seq, now.mono_ms));
            }
            return Ok(());
        }
        self.repair(peer, &unequal, now)
    }

    fn repair(&mut self, peer: DeviceId, unequal: &[u8], now: Now) -> Result<(), IndexError> {
        let Some(link) = self.peers.get_mut(&peer) else { return Ok(()) };
        if link.proof.repaired_ms.is_some_and(|at| now.mono_ms < at + REPAIR_MS) {
            return Ok(());
        }
        link.proof.repaired_ms = Some(now.mono_ms);
        let text =
            format!("this device and {} did not say the same of all files; they compare what they know", peer.short());
        self.report("repair", None, text, now)?;
        tracing::info!(peer = %peer.short(), parts = unequal.len(), of = BUCKETS, "the digests of some parts differ");
        for bucket in unequal.iter().take(BUCKETS_AT_ONCE) {
            let mut after: Option<RelPath> = None;
            loop {
                let page = self.index.bucket(*bucket, after.as_ref(), REPAIR_ENTRIES)?;
                let Some(last) = page.last() else { break };
                after = Some(last.entry.path.clone());
                let entries = page.into_iter().map(super::peers::announce).collect();
                self.outputs.push(Output::Send(peer, Message::Repair { bucket: *bucket, entries }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, PEERS_EPOCH, path};
    use super::*;
    use crate::core::id::RunId;
    use crate::core::message::{Ack, Batch};

    /// A folder of one file with a peer that has applied it.
    fn settled() -> Fixture {
        let mut fixture = Fixture::new(1);
        fixture.hear(Message::Index(Batch {
            epoch: PEERS_EPOCH,
            run: RunId(2),
            entries: Vec::new(),
            upto: 1,
            more: false,
        }));
        let (epoch, last) = (fixture.folder.epoch().unwrap(), fixture.folder.index().state().unwrap().last_seq);
        fixture.hear(Message::Ack(Ack { epoch, received: last, applied: last, exceptions: Vec::new() }));
        fixture
    }

    fn hear_unequal(fixture: &mut Fixture) {
        let seen = fixture.folder.index().state().unwrap().last_seq;
        let buckets = vec![0; BUCKETS];
        fixture.sent.clear();
        fixture.hear(Message::Digest(DigestReport { epoch: PEERS_EPOCH, seq: 1, seen, buckets, is_answer: false }));
    }

    #[test]
    fn what_is_wanted_back_here_is_no_difference_to_be_repaired() {
        let mut fixture = settled();
        hear_unequal(&mut fixture);
        assert!(fixture.sent.iter().any(|message| matches!(message, Message::Repair { .. })));
        let mut fixture = settled();
        let gone = fixture.folder.ours(&path(0)).unwrap();
        fixture.folder.want_back(gone).unwrap();
        hear_unequal(&mut fixture);
        let told = |message: &Message| matches!(message, Message::Repair { .. } | Message::Digest(_));
        assert!(!fixture.sent.iter().any(told));
        // Nor is it asked for.
        fixture.wait(ANSWER_MS);
        assert!(!fixture.sent.iter().any(told));
    }

    #[test]
    fn a_peer_that_does_not_answer_is_asked_less_and_less_often() {
        let mut fixture = settled();
        fixture.sent.clear();
        for _ in 0..20 * 60 {
            fixture.wait(1000);
        }
        let asked = fixture.sent.iter().filter(|message| matches!(message, Message::Digest(_))).count();
        assert!((5..=8).contains(&asked), "{asked}");
    }
}
