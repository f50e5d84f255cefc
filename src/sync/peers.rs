//! Sessions with peers: hello, index batches both ways, acknowledgements.

use std::collections::BTreeSet;

use crate::core::decide;
use crate::core::entry::Entry;
use crate::core::id::{DeviceId, EpochId};
use crate::core::message::{
    Ack, Announced, BATCH_ENTRIES_MAX, Batch, Cursor, EXCEPTIONS_MAX, Exception, FOUND_MAX, Hello, Message, RUNS_MAX,
};
use crate::core::path::RelPath;
use crate::core::version::EPOCHS_MAX;
use crate::index::{IndexError, Mark, PeerRow, Record};
use crate::sabotage::{self, Bug};

use super::proof::Proof;
use super::want::FRESH_ENTRIES_MAX;
use super::{Folder, Now, Output};

/// Index batches on their way to a peer that it has not acknowledged: enough to keep a long link busy.
const BATCHES_IN_FLIGHT: u32 = 4;
/// A batch is cut at about this many bytes, well below the largest frame.
const BATCH_BYTES: usize = 256 * 1024;
/// Exceptions are listed in full only when there are this few; before that the plain position must do.
const EXCEPTIONS_WHILE_BUSY: usize = 32;
/// Most epochs of a version that came from a peer, joined with ours: leaves room for those of this device's own index,
/// and of the indexes that come after it.
const EPOCHS_HEARD_MAX: usize = EPOCHS_MAX - 16;
/// Acknowledgements of applied entries are gathered for this long.
const ACK_DELAY_MS: u64 = 100;

/// A connected peer.
#[derive(Default)]
pub(super) struct Peer {
    /// Epoch and last sequence number of its index, once it has said hello.
    pub hello: Option<(EpochId, u64)>,
    /// How much of our index it was sent.
    sent: u64,
    in_flight: u32,
    /// True once it has sent all that it had.
    pub caught_up: bool,
    ack_due: Option<u64>,
    last_ack: Option<Ack>,
    refused_counts: u64,
    /// Paths of which it was told anew what is here, in this session; see `lost`.
    pub told_again: BTreeSet<RelPath>,
    pub proof: Proof,
}

impl Peer {
    pub fn ack_due_ms(&self) -> Option<u64> {
        self.ack_due
    }

    /// Nothing of our index counts as sent any more.
    pub fn begin_again(&mut self) {
        (self.sent, self.in_flight) = (0, 0);
    }
}

impl Folder {
    pub(super) fn connected(&mut self, peer: DeviceId, now: Now) -> Result<(), IndexError> {
        if !self.settings.peers.contains(&peer) {
            return Ok(());
        }
        self.peers.insert(peer, Peer::default());
        let mut row = self.peer_row(peer)?;
        row.last_seen_ms = Some(now.wall_ms());
        self.index.set_peer(&row)?;
        self.say_hello(peer)
    }

    pub(super) fn lost(&mut self, peer: DeviceId, now: Now) -> Result<(), IndexError> {
        self.fresh.forget(&peer);
        // It may not have come to answer what it was asked for.
        self.works.values_mut().for_each(|work| work.asks_all = false);
        if self.peers.remove(&peer).is_some() {
            let mut row = self.peer_row(peer)?;
            row.last_seen_ms = Some(now.wall_ms());
            self.index.set_peer(&row)?;
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, peer: DeviceId, message: Message, now: Now) -> Result<(), IndexError> {
        if !self.peers.contains_key(&peer) {
            return Ok(());
        }
        match message {
            Message::Hello(hello) => self.hear_hello(peer, hello, now),
            Message::Index(batch) => self.hear_batch(peer, batch, now),
            Message::Ack(ack) => self.hear_ack(peer, ack),
            Message::Found(found) => self.hear_found(&found),
            Message::Digest(report) => self.hear_digest(peer, report, now),
            Message::Repair { entries, .. } => {
                for announced in entries {
                    self.hear_entry(peer, announced, now)?;
                }
                self.pass.doubt();
                self.pass.want();
                Ok(())
            }
        }
    }

    pub(super) fn peer_row(&self, device: DeviceId) -> Result<PeerRow, IndexError> {
        let unknown = PeerRow {
            device,
            cursor: None,
            their_last_seq: 0,
            acked: 0,
            applied: 0,
            proved_ms: None,
            last_seen_ms: None,
        };
        Ok(self.index.peer(device)?.unwrap_or(unknown))
    }

    pub(super) fn say_hello(&mut self, peer: DeviceId) -> Result<(), IndexError> {
        let state = self.index.state()?;
        let found = self.found.0.iter().map(|(e, c)| (*e, *c)).take(FOUND_MAX).collect();
        let cursor = self.peer_row(peer)?.cursor;
        let hello = Hello { epoch: state.epoch, run: state.run, last_seq: state.last_seq, found, cursor };
        self.outputs.push(Output::Send(peer, Message::Hello(hello)));
        Ok(())
    }

    pub(super) fn tell_found(&mut self) {
        let found: Vec<_> = self.found.0.iter().map(|(e, c)| (*e, *c)).take(FOUND_MAX).collect();
        for peer in self.peers.keys() {
            self.outputs.push(Output::Send(*peer, Message::Found(found.clone())));
        }
    }

    fn hear_hello(&mut self, peer: DeviceId, hello: Hello, now: Now) -> Result<(), IndexError> {
        self.hear_found(&hello.found)?;
        if let Some(cursor) = &hello.cursor {
            self.check_rollback(cursor, now)?;
        }
        let state = self.index.state()?;
        let mut row = self.peer_row(peer)?;
        if row.cursor.as_ref().is_none_or(|c| c.epoch != hello.epoch) {
            // Its index is a new one: what the old one said no longer counts, and all is sent afresh.
            self.index.drop_rivals_of(peer)?;
            row.cursor = Some(Cursor { epoch: hello.epoch, seq: 0, runs: Vec::new() });
        }
        row.their_last_seq = hello.last_seq;
        let sent = match &hello.cursor {
            Some(cursor) if cursor.epoch == state.epoch => cursor.seq.min(state.last_seq),
            _ => 0,
        };
        row.acked = sent;
        row.applied = row.applied.min(sent);
        self.index.set_peer(&row)?;
        if let Some(link) = self.peers.get_mut(&peer) {
            link.hello = Some((hello.epoch, hello.last_seq));
            link.sent = sent;
            link.in_flight = 0;
            link.caught_up = row.cursor.as_ref().is_some_and(|c| c.seq >= hello.last_seq);
            link.last_ack = None;
            link.ack_due = Some(now.mono_ms);
        }
        // What only this peer has may be fetched now.
        if !sabotage::is(Bug::RequeueForgotten) {
            self.index.wake_rivals()?;
        }
        self.pass.want();
        Ok(())
    }

    fn hear_found(&mut self, found: &[(EpochId, u64)]) -> Result<(), IndexError> {
        let own = self.epoch()?;
        let mut has_news = false;
        for (epoch, upto) in found {
            let known = self.found.0.get(epoch).copied();
            let is_news = known.is_none_or(|k| *upto < k) && (known.is_some() || self.found.0.len() < FOUND_MAX);
            if *epoch != own && is_news {
                self.index.set_found(*epoch, *upto)?;
                self.found.0.insert(*epoch, *upto);
                has_news = true;
            }
        }
        // Others may get to see these counts in our entries alone, and have to know what they mean before they do.
        if has_news {
            self.tell_found();
        }
        Ok(())
    }

    fn hear_batch(&mut self, peer: DeviceId, batch: Batch, now: Now) -> Result<(), IndexError> {
        let mut row = self.peer_row(peer)?;
        let Some(cursor) = row.cursor.as_mut().filter(|c| c.epoch == batch.epoch) else { return Ok(()) };
        if batch.upto < cursor.seq {
            return Ok(());
        }
        let is_fresh = batch.entries.len() <= FRESH_ENTRIES_MAX;
        for announced in batch.entries {
            let path = announced.entry.path.clone();
            if !sabotage::is(Bug::CursorAhead) || now.random.is_multiple_of(2) {
                self.hear_entry(peer, announced, now)?;
            }
            if is_fresh {
                self.fresh.add(peer, path);
            }
        }
        cursor.seq = batch.upto;
        match cursor.runs.last_mut() {
            Some((run, seq)) if *run == batch.run => *seq = batch.upto,
            _ => cursor.runs.push((batch.run, batch.upto)),
        }
        if cursor.runs.len() > RUNS_MAX {
            cursor.runs.remove(0);
        }
        row.their_last_seq = row.their_last_seq.max(batch.upto);
        self.index.set_peer(&row)?;
        if let Some(link) = self.peers.get_mut(&peer) {
            link.hello = Some((batch.epoch, row.their_last_seq));
            link.caught_up = !batch.more;
        }
        self.pass.doubt();
        self.pass.want();
        self.send_ack(peer, EXCEPTIONS_WHILE_BUSY, now)
    }

    /// Keeps a peer's entry as a rival unless it brings nothing new.
    fn hear_entry(&mut self, peer: DeviceId, announced: Announced, now: Now) -> Result<(), IndexError> {
        let entry = &announced.entry;
        let state = self.index.state()?;
        if entry.version.get(state.epoch) > state.last_seq {
            return self.refuse_count(peer, entry, now);
        }
        let ours = self.ours(&entry.path)?;
        if ours.entry.version.join(&entry.version).pairs().len() > EPOCHS_HEARD_MAX {
            let text = "changed by too many indexes to compare; remove and add the folder again on one device";
            return self.report("fault", Some(&entry.path), text.into(), now);
        }
        if decide::is_settled(&ours.entry, entry, &self.found) {
            self.index.drop_rival(peer, &entry.path)?;
            self.tell_again(peer, &ours, entry, now)?;
            self.drop_settled_rivals(&entry.path, &ours.entry)
        } else {
            if ours.mark == Mark::Own {
                // It may say what is on the disk already.
                self.rescans.insert(entry.path.clone());
            }
            self.has_heard = true;
            self.index.put_rival(peer, &announced)
        }
    }

    /// A count of our own epoch that we never issued: told once per session, never believed.
    fn refuse_count(&mut self, peer: DeviceId, entry: &Entry, now: Now) -> Result<(), IndexError> {
        let Some(link) = self.peers.get_mut(&peer) else { return Ok(()) };
        link.refused_counts += 1;
        if link.refused_counts > 1 {
            return Ok(());
        }
        let text = format!("{} claims a change of ours that we never made; it is not believed", peer.short());
        let path = entry.path.clone();
        self.report("fault", Some(&path), text, now)
    }

    fn hear_ack(&mut self, peer: DeviceId, ack: Ack) -> Result<(), IndexError> {
        let state = self.index.state()?;
        if ack.epoch != state.epoch || ack.received > state.last_seq || ack.applied > ack.received {
            return Ok(());
        }
        let mut row = self.peer_row(peer)?;
        (row.acked, row.applied) = (ack.received, ack.applied);
        self.index.set_peer(&row)?;
        self.index.set_exceptions(peer, &ack.exceptions)?;
        if let Some(link) = self.peers.get_mut(&peer) {
            link.in_flight = if ack.received >= link.sent { 0 } else { link.in_flight.saturating_sub(1) };
        }
        Ok(())
    }

    /// After every input: sends what changed here and acknowledges what was applied.
    pub(super) fn tell_peers(&mut self, now: Now) -> Result<(), IndexError> {
        let peers: Vec<DeviceId> = self.peers.iter().filter(|(_, p)| p.hello.is_some()).map(|(d, _)| *d).collect();
        for peer in peers {
            self.send_batches(peer)?;
            if self.peers.get(&peer).is_some_and(|p| p.ack_due.is_some_and(|due| due <= now.mono_ms)) {
                let most = if self.works.is_empty() { EXCEPTIONS_MAX } else { EXCEPTIONS_WHILE_BUSY };
                self.send_ack(peer, most, now)?;
            }
            self.prove(peer, now)?;
        }
        Ok(())
    }

    /// What was applied or refused is acknowledged a little later, together with what follows.
    pub(super) fn acks_are_due(&mut self, now: Now) {
        for link in self.peers.values_mut().filter(|p| p.hello.is_some()) {
            link.ack_due.get_or_insert(now.mono_ms + ACK_DELAY_MS);
        }
    }

    fn send_batches(&mut self, peer: DeviceId) -> Result<(), IndexError> {
        let state = self.index.state()?;
        while let Some(link) = self.peers.get(&peer) {
            if link.sent >= state.last_seq || link.in_flight >= BATCHES_IN_FLIGHT {
                break;
            }
            let records = self.index.records_since(link.sent, BATCH_ENTRIES_MAX)?;
            let is_all = records.len() < BATCH_ENTRIES_MAX;
            let records = if is_all { records } else { without_half_a_move(records) };
            let (entries, was_cut) = cut_batch(records);
            let upto = match entries.last() {
                Some(last) if was_cut || !is_all => last.seq,
                _ => state.last_seq,
            };
            let batch = Batch { epoch: state.epoch, run: state.run, entries, upto, more: upto < state.last_seq };
            self.outputs.push(Output::Send(peer, Message::Index(batch)));
            if let Some(link) = self.peers.get_mut(&peer) {
                link.sent = upto;
                link.in_flight += 1;
            }
        }
        Ok(())
    }

    fn send_ack(&mut self, peer: DeviceId, exceptions_most: usize, now: Now) -> Result<(), IndexError> {
        let row = self.peer_row(peer)?;
        let Some(cursor) = row.cursor else { return Ok(()) };
        let mut rivals = self.index.rivals_of(peer, exceptions_most + 1)?;
        let applied = match rivals.get(exceptions_most) {
            Some(beyond) => beyond.seq.saturating_sub(1).min(cursor.seq),
            None => cursor.seq,
        };
        rivals.truncate(exceptions_most);
        let mut exceptions = Vec::with_capacity(rivals.len());
        for rival in rivals {
            let reason = self.reason_of(&rival)?;
            exceptions.push(Exception { path: rival.entry.path, seq: rival.seq, reason });
        }
        let ack = Ack { epoch: cursor.epoch, received: cursor.seq, applied, exceptions };
        let Some(link) = self.peers.get_mut(&peer) else { return Ok(()) };
        let is_short = exceptions_most < EXCEPTIONS_MAX && ack.exceptions.len() == exceptions_most;
        link.ack_due = is_short.then_some(now.mono_ms + 10 * ACK_DELAY_MS);
        if link.last_ack.as_ref() != Some(&ack) {
            link.last_ack = Some(ack.clone());
            self.outputs.push(Output::Send(peer, Message::Ack(ack)));
        }
        Ok(())
    }
}

/// As many records as fit a batch, and whether any had to be left out.
fn cut_batch(records: Vec<Record>) -> (Vec<Announced>, bool) {
    let (mut bytes, count) = (0, records.len());
    let mut entries: Vec<Announced> = Vec::with_capacity(count);
    for record in records {
        let entry = &record.entry;
        let link = if let crate::core::entry::Kind::Symlink(target) = &entry.kind { target.len() } else { 0 };
        bytes +=
            200 + entry.path.as_bytes().len() + link + 34 * entry.superseded.len() + 20 * entry.version.pairs().len();
        if bytes > BATCH_BYTES && !entries.is_empty() {
            // Its other half would come too late: see `without_half_a_move`.
            if !record.entry.is_live() && entries.len() > 1 && is_file(&entries) {
                entries.pop();
            }
            break;
        }
        entries.push(announce(record));
    }
    let was_cut = entries.len() < count;
    (entries, was_cut)
}

fn is_file(entries: &[Announced]) -> bool {
    entries.last().is_some_and(|last| last.entry.kind.content().is_some())
}

/// Of a full batch the last file is told with the next one: its deletion elsewhere, which makes it a move, may be next.
fn without_half_a_move(mut records: Vec<Record>) -> Vec<Record> {
    if records.len() > 1 && records.last().is_some_and(|last| last.entry.kind.content().is_some()) {
        records.pop();
    }
    records
}

/// A record as peers are told it.
pub(super) fn announce(record: Record) -> Announced {
    let held = record.is_held() || !record.entry.is_live();
    Announced { held, seq: record.seq, entry: record.entry }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, path};
    use super::*;

    #[test]
    fn a_full_batch_does_not_end_between_a_file_and_its_deletion_elsewhere() {
        let mut fixture = Fixture::new(3);
        let records = fixture.folder.index().records_since(0, 10).unwrap();
        assert_eq!(without_half_a_move(records.clone()).len(), 2);
        assert_eq!(without_half_a_move(records[..1].to_vec()).len(), 1);
        let ours = fixture.folder.ours(&path(0)).unwrap();
        let now = fixture.now;
        fixture.folder.announce_deletion(&ours, true, now).unwrap();
        let records = fixture.folder.index().records_since(0, 10).unwrap();
        assert_eq!(without_half_a_move(records).len(), 3);
    }
}
