//! Contents on their way from device to device, one part at a time, in any order.

use p2psync::core::chunker::{ChunkSizes, ListBuilder};
use p2psync::core::content::Content;
use p2psync::core::id::DeviceId;
use p2psync::engine::stepping::{FetchStep, SteppedFetch};
use p2psync::sync::{FetchError, FetchOrder, Input, Staged};

use super::device::Agent;
use super::world::World;

/// Calls of a step of a fetch after which an agent is cut off at most.
const FETCH_CALLS: usize = 12;

/// What the agent says that a file with these bytes contains.
pub fn content_of(bytes: &[u8]) -> Content {
    let (sizes, mut builder) = (ChunkSizes::for_file(bytes.len() as u64), ListBuilder::default());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.first_cut(rest, true).expect("the end of the file"));
        builder.push(Content::of_chunk(chunk)).expect("a chunk");
        rest = after;
    }
    builder.finish().expect("few chunks").0
}

impl Agent {
    /// The fetches that have something left to do.
    pub fn fetches_waiting(&self) -> usize {
        self.fetches.len() + self.under_way.len()
    }

    fn begin_fetch(&mut self, order: FetchOrder) -> SteppedFetch {
        let id = order.content.id;
        let copy = (0..).find(|copy| !self.staged.contains_key(&(id, *copy))).unwrap_or(0);
        let complete = self.staged.range((id, 0)..=(id, u32::MAX)).filter(|(_, (_, is_complete))| *is_complete);
        let twins = complete.map(|((_, copy), _)| *copy).collect();
        self.staged.insert((id, copy), (order.work, false));
        SteppedFetch::new(order, copy, twins)
    }

    /// A fetch is over.
    fn end_fetch(&mut self, fetch: &SteppedFetch, result: Result<Staged, FetchError>) {
        self.stepper.fetch_ended(fetch);
        let place = (fetch.order.content.id, fetch.copy);
        match &result {
            Ok(_) => drop(self.staged.insert(place, (fetch.order.work, true))),
            Err(_) => drop(self.staged.remove(&place)),
        }
        self.inputs.push_back(Input::Fetched(vec![(fetch.order.work, result)]));
    }
}

impl World {
    /// Goes on with one of the fetches of a device: with what is here of it, and one part from a peer.
    pub fn fetch(&mut self, at: usize) {
        let Some(agent) = &mut self.devices[at].agent else { return };
        let pick = self.random.below(agent.fetches_waiting());
        let mut fetch = match pick.checked_sub(agent.fetches.len()) {
            Some(under_way) => agent.under_way.remove(under_way),
            None => {
                let Some(order) = agent.fetches.remove(pick) else { return };
                agent.begin_fetch(order)
            }
        };
        let may_cut = self.plan.has_small_chunks && !self.plan.aim.is_close;
        if may_cut {
            self.begin_cut(at, FETCH_CALLS);
        }
        let over = self.go_on(at, &mut fetch);
        self.take_notes();
        let life = self.devices[at].lives;
        self.end_cut(at);
        // Users may have come in between wherever something was read.
        (0..self.devices.len()).for_each(|at| self.hear(at));
        let is_same = self.devices[at].lives == life;
        let Some(agent) = self.devices[at].agent.as_mut().filter(|_| is_same) else { return };
        match over {
            Some(result) => agent.end_fetch(&fetch, result),
            None => agent.under_way.push(fetch),
        }
    }

    /// The result, once there is one.
    fn go_on(&mut self, at: usize, fetch: &mut SteppedFetch) -> Option<Result<Staged, FetchError>> {
        let agent = self.devices[at].agent.as_ref()?;
        let wants = match agent.stepper.fetch_step(agent.folder.index(), fetch) {
            FetchStep::Over(result) => return Some(result),
            FetchStep::Wants(wants) => wants,
        };
        let part = match wants.as_slice() {
            [only] => *only,
            several => *self.random.pick(several),
        };
        let Some((peer, bytes)) = self.ask_for(at, &fetch.order, part) else { return Some(Err(FetchError::NoSource)) };
        // Others may have asked for it too meanwhile.
        let is_shared = self.now_ns / 1000 % 2 == 0;
        let agent = self.devices[at].agent.as_mut()?;
        let others = if is_shared { agent.under_way.as_mut_slice() } else { &mut [] };
        match agent.stepper.fetch_arrived(agent.folder.index(), fetch, others, part, (peer, bytes)) {
            Ok(true) => {}
            // Whoever sends something else has nothing of use.
            Ok(false) => return Some(Err(FetchError::NoSource)),
            Err(problem) => return Some(Err(FetchError::Problem(problem))),
        }
        if part.0 != fetch.order.content {
            return None;
        }
        match agent.stepper.fetch_step(agent.folder.index(), fetch) {
            FetchStep::Over(result) => Some(result),
            FetchStep::Wants(_) => None,
        }
    }

    /// A part of a content from the first peer that has it.
    fn ask_for(&self, at: usize, order: &FetchOrder, part: (Content, u64)) -> Option<(DeviceId, Vec<u8>)> {
        let connected = &self.devices[at].agent.as_ref()?.connected;
        let find = |id: &DeviceId| connected.iter().copied().find(|number| self.devices[*number].id == *id);
        let mut sources = order.sources.iter().filter_map(|id| Some((*id, find(id)?)));
        sources.find_map(|(id, number)| {
            let bytes = self.network.is_open(number, at).then(|| self.devices[number].serve(part, &order.path))??;
            Some((id, self.maybe_wrong(bytes)))
        })
    }
}
