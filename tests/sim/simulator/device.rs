//! One device: its disk, its home, and the agent that runs on it or not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use p2psync::core::action::WorkId;
use p2psync::core::content::{Content, ContentId};
use p2psync::core::direction::Direction;
use p2psync::core::id::{DeviceId, EpochId, FolderId, RunId};
use p2psync::core::message::Message;
use p2psync::core::path::RelPath;
use p2psync::engine::clock::Clock;
use p2psync::engine::stepping::{self, SteppedFetch, Stepper};
use p2psync::fs::root::Root;
use p2psync::fs::watch::WatchEvent;
use p2psync::index::{Index, Snapshot, Template};
use p2psync::sabotage::{self, Bug};
use p2psync::sync::{FetchOrder, Folder, Input, Output, Settings};

use super::disk::SimDisk;
use super::random::Random;
use super::user::FOLDER;

/// Copies of the index kept for a power cut.
const COPIES_MAX: usize = 4;
/// Events kept for the judgement.
const EVENTS_MAX: usize = 2000;
/// Inputs, looks and works that wait at most: more would be a leak.
pub const WAITING_MAX: usize = 5000;
/// Of a hundred inputs, after how many the index is copied.
const COPY_PERCENT: usize = 3;
/// Time between full scans.
const RESCAN_EVERY: Duration = Duration::from_secs(3600);

/// What a bad disk does to an index: each spoils one row.
const DAMAGES: [&str; 4] = [
    "UPDATE entries SET version = x'00' WHERE seq = (SELECT min(seq) FROM entries)",
    "UPDATE entries SET version = x'00' WHERE seq = (SELECT max(seq) FROM entries)",
    "UPDATE entries SET kind = 99 WHERE seq = (SELECT max(seq) FROM entries)",
    "UPDATE entries SET path = x'2f2f' WHERE seq = (SELECT min(seq) FROM entries)",
];

thread_local! {
    /// What every new index begins as: to copy it is cheaper than to make it.
    static EMPTY: Template = Template::new().expect("memory");
}

pub struct Device {
    pub number: usize,
    pub id: DeviceId,
    pub disk: SimDisk,
    pub clock: Clock,
    pub agent: Option<Agent>,
    /// Why it does not, where it could not be started.
    pub trouble: Option<String>,
    /// The index while no agent runs.
    pub index: Option<Index>,
    /// What a power cut may throw the index back to: copies since it was last made durable.
    copies: Vec<Snapshot>,
    /// False where no power cut comes, so that no copies are needed.
    pub may_lose_power: bool,
    /// Some row of the index is not what was written.
    pub is_damaged: bool,
    /// A backup.
    pub saved: Option<Snapshot>,
    /// It is as damaged as the index was.
    pub saved_is_damaged: bool,
    /// What the kernel is about to tell the agent.
    pub watch_events: VecDeque<WatchEvent>,
    pub loses_events: bool,
    /// Names the boot that the machine is in.
    pub boot: u64,
    pub events: Vec<(&'static str, Option<RelPath>, String)>,
    pub lives: u64,
    /// Which way changes go in its folder.
    pub direction: Direction,
}

/// A running agent.
pub struct Agent {
    pub stepper: Stepper,
    pub folder: Folder,
    pub inputs: VecDeque<Input>,
    pub fetches: VecDeque<FetchOrder>,
    /// Those that have begun.
    pub under_way: Vec<SteppedFetch>,
    /// Peers that the folder thinks it is connected with.
    pub connected: Vec<usize>,
    tick_ms: Option<u64>,
    /// Staged files that wait for their work to end, and whether they are complete.
    pub staged: BTreeMap<(ContentId, u32), (WorkId, bool)>,
}

pub fn folder_id() -> FolderId {
    "shared".parse().expect("a good id")
}

impl Device {
    pub fn new(number: usize, disk: SimDisk, wall_ns: i64, seed: u64) -> Self {
        Self {
            number,
            id: DeviceId([number as u8 + 1; 32]),
            disk,
            clock: Clock::manual(wall_ns, seed),
            agent: None,
            trouble: None,
            index: None,
            copies: Vec::new(),
            may_lose_power: true,
            is_damaged: false,
            saved: None,
            saved_is_damaged: false,
            watch_events: VecDeque::new(),
            loses_events: false,
            boot: 1,
            events: Vec::new(),
            lives: 0,
            direction: Direction::Both,
        }
    }

    pub fn root(&self) -> Root {
        Root::on(Arc::new(self.disk.clone()), self.disk.root_path(FOLDER), folder_id())
    }

    /// Starts the agent on the index that is there, or a fresh one. Does nothing where it cannot start now.
    pub fn start(&mut self, settings: Settings, random: &mut Random) {
        if self.agent.is_some() {
            return;
        }
        self.lives += 1;
        let root = self.root();
        let (fresh, run) = (EpochId(random.next()), RunId(random.next()));
        // As the agent sets an index aside that is about another disk.
        let old = self.index.take().filter(|index| !stepping::is_of_another_disk(index, &root));
        // What the agent does where there is no index.
        if old.is_none() && root.create().is_err() {
            return;
        }
        let spare = old.as_ref().map(|index| index.snapshot().expect("memory"));
        let epoch = if sabotage::is(Bug::EpochUsedAgain) { EpochId(7000 + self.number as u64) } else { fresh };
        let new = || EMPTY.with(|empty| empty.open(epoch)).expect("memory");
        let index = old.unwrap_or_else(new);
        let (boot, again) = (format!("boot {}", self.boot), settings.clone());
        let place = stepping::Place {
            root,
            id: folder_id(),
            clock: self.clock.clone(),
            boot: &boot,
            rescan_every: RESCAN_EVERY,
        };
        match Stepper::start(place, index, settings, run) {
            Ok((stepper, folder)) => {
                self.copies.clear();
                if self.may_lose_power {
                    self.copies.push(folder.index().snapshot().expect("memory"));
                }
                self.agent = Some(Agent {
                    stepper,
                    folder,
                    inputs: VecDeque::new(),
                    fetches: VecDeque::new(),
                    under_way: Vec::new(),
                    staged: BTreeMap::new(),
                    connected: Vec::new(),
                    tick_ms: None,
                });
                self.plan_tick();
                self.collect();
            }
            Err(_) if self.is_damaged => {
                // It is set aside, and the next start makes a new one.
                self.is_damaged = false;
                return self.start(again, random);
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.index = Some(spare.map_or_else(new, |spare| spare.open().expect("memory")));
            }
        }
        self.watch_events.clear();
    }

    /// True where the agent does nothing because it finds another disk than the one that its index is about. A user has
    /// to start it anew.
    pub fn is_on_another_disk(&self) -> bool {
        let agent = self.agent.as_ref();
        agent.is_some_and(|agent| stepping::is_of_another_disk(agent.folder.index(), &self.root()))
    }

    /// The agent dies. What is committed stays.
    pub fn kill(&mut self) {
        self.disk.lock().kill();
        if let Some(agent) = self.agent.take() {
            self.index = Some(agent.folder.into_index());
        }
    }

    /// Makes a backup of the index of a running agent.
    pub fn save_index(&mut self) {
        self.saved = self.agent.as_ref().map(|agent| agent.folder.index().snapshot().expect("memory"));
        self.saved_is_damaged = self.is_damaged;
    }

    /// Damages a row of the index while no agent runs.
    pub fn damage_index(&mut self, random: &mut Random) {
        let Some(index) = &mut self.index else { return };
        let sql = DAMAGES[random.below(DAMAGES.len())];
        self.is_damaged |= index.damage(sql, &[]).is_ok_and(|is_done| is_done);
    }

    /// The index turns out to be damaged: the agent ends, and the next start makes a new one.
    pub fn set_index_aside(&mut self) {
        self.kill();
        self.index = None;
        self.is_damaged = false;
    }

    /// The agent ends as it should.
    pub fn stop(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        agent.stepper.finish();
        // As in the agent: what was done on the disk is in the index before that is said to be complete.
        let now = self.clock.now();
        while let Some(input) = agent.inputs.pop_front().or_else(|| agent.stepper.next_input()) {
            let done = agent.stepper.handle(&mut agent.folder, input, now);
            assert!(done.is_ok() || self.is_damaged, "the index does not work: {done:?}");
        }
        let mut index = agent.folder.into_index();
        assert!(index.set_clean().is_ok() || self.is_damaged, "the index does not work");
        self.index = Some(index);
        self.disk.lock().kill();
    }

    /// The machine loses power: the index goes back to some commit since it was last made durable. False where it lost
    /// nothing.
    pub fn lose_power(&mut self, random: &mut Random) -> bool {
        self.kill();
        self.boot += 1;
        let is_thrown_back = !self.copies.is_empty() && random.chance(60);
        if is_thrown_back {
            let at = random.below(self.copies.len());
            self.index = Some(self.copies.swap_remove(at).open().expect("memory"));
        }
        self.copies.clear();
        is_thrown_back
    }

    /// Takes over what the steps have sent to the folder.
    pub fn collect(&mut self) {
        if let Some(agent) = &mut self.agent {
            while let Some(input) = agent.stepper.next_input() {
                agent.inputs.push_back(input);
            }
        }
    }

    /// The folder takes in an input. Returns the messages that it sends.
    pub fn feed(&mut self, input: Input, random: &mut Random) -> Vec<(DeviceId, Message)> {
        let Some(agent) = &mut self.agent else { return Vec::new() };
        if let Input::Applied(outcomes) = &input {
            let over: Vec<WorkId> = outcomes.iter().map(|(work, _)| *work).collect();
            agent.staged.retain(|_, (work, _)| !over.contains(work));
        }
        let now = self.clock.now();
        let syncs = agent.folder.syncs();
        let outputs = match agent.stepper.handle(&mut agent.folder, input, now) {
            Ok(outputs) => outputs,
            Err(_) if self.is_damaged => {
                self.set_index_aside();
                return Vec::new();
            }
            Err(error) => panic!("the index does not work: {error}"),
        };
        if agent.folder.syncs() != syncs {
            self.copies.clear();
        }
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                Output::Send(peer, message) => sent.push((peer, message)),
                Output::Fetch(order) => agent.fetches.push_back(order),
                Output::Event { kind, path, text } => {
                    if self.events.len() < EVENTS_MAX {
                        self.events.push((kind, path, text));
                    }
                }
                other => panic!("not for the simulator: {other:?}"),
            }
        }
        if random.chance(COPY_PERCENT) && !self.is_damaged && self.may_lose_power {
            if self.copies.len() >= COPIES_MAX {
                self.copies.remove(0);
            }
            self.copies.push(agent.folder.index().snapshot().expect("memory"));
        }
        self.plan_tick();
        self.collect();
        sent
    }

    /// A part of a content, with its place in the file, as this device gives it to a peer that asks for it.
    pub fn serve(&self, part: (Content, u64), hint: &RelPath) -> Option<Vec<u8>> {
        let agent = self.agent.as_ref()?;
        agent.stepper.serve(agent.folder.index(), part.0, Some((hint.clone(), part.1)))
    }

    /// True where something is left to do, now or when its time comes, beside regular scans and digests.
    pub fn has_work(&self) -> bool {
        let is_busy =
            |a: &Agent| !a.inputs.is_empty() || a.fetches_waiting() > 0 || a.stepper.has_work() || !a.folder.is_idle();
        !self.watch_events.is_empty() || self.agent.as_ref().is_some_and(is_busy)
    }

    /// When the folder wants to hear that time has passed, if it has not heard of anything else until then.
    pub fn next_tick_ms(&self) -> Option<u64> {
        self.agent.as_ref()?.tick_ms
    }

    fn plan_tick(&mut self) {
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        match agent.folder.next_tick_ms(now) {
            Ok(tick_ms) => agent.tick_ms = tick_ms,
            Err(_) if self.is_damaged => self.set_index_aside(),
            Err(error) => panic!("the index does not work: {error}"),
        }
    }

    /// When something is due next, on the clock that only goes forward.
    pub fn next_due_ms(&self) -> Option<u64> {
        let agent = self.agent.as_ref()?;
        [self.next_tick_ms(), agent.stepper.next_due_ms()].into_iter().flatten().min()
    }

    /// The device is over.
    fn retire(&mut self) {
        let running = self.agent.take().map(|agent| agent.folder.into_index());
        [running, self.index.take()].into_iter().flatten().for_each(Index::recycle);
    }

    /// Panics where more waits than could be good.
    pub fn check_bounds(&self) {
        let Some(agent) = &self.agent else { return };
        let queued = agent.stepper.queued();
        let counts = [
            queued.hints.waiting,
            queued.inputs,
            queued.actions,
            queued.under_way,
            queued.restores,
            queued.second_looks,
            agent.inputs.len(),
            agent.fetches_waiting(),
        ];
        assert!(counts.iter().all(|count| *count < WAITING_MAX), "too much waits: {queued:?}");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.retire();
    }
}
