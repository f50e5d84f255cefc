//! Devices, time, and one step after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2psync::config::HistoryMax;
use p2psync::core::content::ContentId;
use p2psync::core::guard::GuardLimits;
use p2psync::core::id::DeviceId;
use p2psync::core::path::RelPath;
use p2psync::fs::watch::WatchEvent;
use p2psync::sync::{Input, Settings};

use super::device::{Device, folder_id};
use super::disk::{Call, CutMode, Fault, Hook, Inner, Item, Options, SimDisk, Unmounted};
use super::fetching::content_of;
use super::film::Film;
use super::ledger::Ledger;
use super::network::{Arrival, Network};
use super::plan::{Act, Event, Mode, NAMES, OddDisk, Plan};
use super::power::Taken;
use super::random::Random;
use super::run::Report;
use super::user::{FOLDER, OWN, OpenFile, Tree, User, tree};

/// When the world begins, ns since 1970.
const BEGIN_NS: i64 = 1_800_000_000_000_000_000;
const MS_NS: i64 = 1_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// How often equal digests are asked for.
const RECONCILE_MS: u64 = 600_000;
/// The longest that the world waits in one step for something to be due.
const WAIT_MS_MAX: u64 = 20_000;
/// The clock by which a Linux system stamps files moves so far at a time.
const TICK_NS: i64 = 4_000_000;
/// Grain of torn writes: small, because the files are.
const BLOCK_BYTES: usize = 16;
/// Of a hundred displaced files, how many are still written to.
const LATE_PERCENT: usize = 30;
/// Where a few deletions are held.
const GUARD_LOW: GuardLimits = GuardLimits { entries_min: 2, percent: 40 };
/// A displaced file that is written to within this time, in ms, comes back: it is looked at again after two seconds.
const LATE_MS: i64 = 1500;
/// Calls of a piece of work after which an agent is cut off at most.
const WORK_CALLS: usize = 60;
/// Calls after which an agent is cut off at most, if it is to be, once a user has come in between.
const CUT_SOON_CALLS: usize = 8;
/// Entries of an index looked at: more than any run makes.
const RECORDS_MAX: usize = 10_000;
/// How long history is kept, in ms, and how often it is looked through at a time at most.
const HISTORY_MS: i64 = 30 * DAY_MS as i64;
const TIDY_STEPS_MAX: usize = 5;
/// What a trace shows of one input or message.
const TRACED_CHARS: usize = 1500;

/// What users share with the disks' hooks.
#[derive(Default)]
pub struct Users {
    pub ledger: Ledger,
    pub open: Vec<OpenFile>,
    /// For the trace: what each disk held.
    films: Vec<Film>,
}

impl Users {
    /// Adds to the trace what has changed on a disk.
    fn film(&mut self, at: usize, disk: &Inner) {
        if self.films.len() <= at {
            self.films.resize_with(at + 1, Film::default);
        }
        let lines = self.films[at].look(at, disk);
        self.ledger.noted.extend(lines);
    }
}

/// How the next work on a disk is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutOff {
    Kill,
    PowerCut,
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub devices: Vec<Device>,
    pub network: Network,
    users: Arc<Mutex<Users>>,
    pub now_ns: i64,
    /// What each device's wall clock is ahead of the true time.
    pub skew_ns: Vec<i64>,
    /// A device of one side cannot reach one of the other.
    pub partition: Option<BTreeSet<usize>>,
    pub is_connecting: bool,
    /// Where nothing is concurrent: what a user has left, and where.
    pub left: Option<(usize, Tree)>,
    /// Devices that have lost their index and may not have heard from all others since.
    pub forgetful: BTreeSet<usize>,
    /// True once calls of an agent have failed for no reason.
    pub had_io_errors: bool,
    pending_cut: Vec<Option<CutOff>>,
    /// Of a hundred calls of an agent, before how many a user acts.
    meddling: Arc<AtomicUsize>,
    /// In how many calls the agent of a device is cut off; the largest number: not at all.
    cut_in: Vec<Arc<AtomicU64>>,
    pub steps: u64,
    /// Messages by kind, that were not mere comparing.
    pub telling_frames: u64,
    /// From when on deletions are held, at devices that start from now on.
    pub guard: GuardLimits,
    /// Of a hundred contents from peers, how many are not what they should be.
    lies: usize,
    /// Files that came out of a tree lately: device, inode, when, and in which life of the agent.
    displaced: Vec<(usize, u64, i64, u64)>,
    /// What each device has shown at which path, where rules are on trial.
    pub shown: BTreeSet<(usize, String, Vec<u8>)>,
    /// New files that went with the power though other devices have them, and are not back yet.
    pub taken: Vec<Taken>,
    /// What was written to such files: it has to come back as long as that life goes on.
    owed: Vec<(usize, u64, Vec<u8>)>,
    /// What lost indexes said to be gone from a path: device, path, content.
    forgotten: BTreeSet<(usize, String, ContentId)>,
    /// An index has forgotten something: lost, thrown back, or gone with its device.
    pub had_index_trouble: bool,
    /// What lay on a disk when its index was replaced by an older one, with the device's short name.
    pub taken_for_own: BTreeSet<(String, Vec<u8>)>,
    /// What lay on a disk when its index forgot something.
    pub found_again: BTreeSet<Vec<u8>>,
    /// What was excused in the judgement, and how often.
    pub loosened: RefCell<BTreeMap<&'static str, u64>>,
    pub trace: Option<Vec<String>>,
    digest: u64,
}

pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a good path")
}

impl World {
    pub fn new(plan: &Plan, is_traced: bool) -> Self {
        let mut random = Random(plan.seed ^ 0xd1b5_4a32_d192_ed03);
        let devices = (0..plan.devices)
            .map(|number| {
                let odd = plan.odd_disk.filter(|_| number == 0);
                let options = Options {
                    tick_ns: TICK_NS,
                    time_grain_ns: if odd == Some(OddDisk::WholeSeconds) { 1_000_000_000 } else { 1 },
                    folds: odd == Some(OddDisk::FoldsCase),
                    reuses_numbers: odd == Some(OddDisk::ReusesInodes),
                    syncs_names: random.chance(50),
                    block_bytes: BLOCK_BYTES,
                    ..Options::default()
                };
                let disk = SimDisk::new(options);
                let mut device = Device::new(number, disk, BEGIN_NS, random.next());
                device.may_lose_power = plan.loses_power();
                device
            })
            .collect();
        let mut world = Self {
            plan: plan.clone(),
            random,
            devices,
            network: Network::default(),
            users: Arc::default(),
            now_ns: BEGIN_NS,
            skew_ns: vec![0; plan.devices],
            partition: None,
            is_connecting: true,
            left: None,
            forgetful: BTreeSet::new(),
            had_io_errors: false,
            pending_cut: vec![None; plan.devices],
            meddling: Arc::new(AtomicUsize::new(plan.meddling)),
            cut_in: (0..plan.devices).map(|_| Arc::new(AtomicU64::new(u64::MAX))).collect(),
            steps: 0,
            telling_frames: 0,
            guard: if plan.aim.is_guarded { GUARD_LOW } else { GuardLimits::default() },
            lies: plan.aim.lies,
            displaced: Vec::new(),
            shown: BTreeSet::new(),
            taken: Vec::new(),
            owed: Vec::new(),
            forgotten: BTreeSet::new(),
            had_index_trouble: false,
            taken_for_own: BTreeSet::new(),
            found_again: BTreeSet::new(),
            loosened: RefCell::default(),
            trace: is_traced.then(Vec::new),
            digest: plan.seed,
        };
        for at in 0..plan.devices {
            world.set_clock(at);
            let mut disk = world.devices[at].disk.lock();
            disk.user_mkdir(FOLDER).expect("an empty disk");
            if plan.aim.loses_unsynced {
                // A folder that goes with the power is one that is not there.
                disk.sync_users();
            }
            drop(disk);
            world.install_hook(at);
            world.start(at);
        }
        world
    }

    pub fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn report(&self) -> Report {
        let versions = self.users().ledger.count();
        let loosened = self.loosened.borrow().clone();
        Report { digest: self.digest, steps: self.steps, frames: self.network.frames, versions, loosened }
    }

    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: impl FnOnce() -> String, numbers: &[u64]) {
        for number in numbers {
            self.digest = (self.digest ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {}", (self.now_ns - BEGIN_NS) / MS_NS, what()));
        }
    }

    // Devices and their life.

    pub fn settings(&self, at: usize) -> Settings {
        let own = self.devices[at].id;
        Settings {
            device: own,
            peers: self.devices.iter().map(|d| d.id).filter(|id| *id != own).collect(),
            guard: self.guard,
            direction: self.devices[at].direction,
            reconcile_ms: RECONCILE_MS,
        }
    }

    pub fn start(&mut self, at: usize) {
        let settings = self.settings(at);
        self.devices[at].start(settings, &mut self.random);
    }

    pub fn kill(&mut self, at: usize) {
        self.network.leave(at, &mut self.random);
        self.devices[at].kill();
        self.forgive_late_writes(at);
    }

    pub fn stop(&mut self, at: usize) {
        self.network.leave(at, &mut self.random);
        self.devices[at].stop();
    }

    pub fn power_cut(&mut self, at: usize) {
        self.network.leave(at, &mut self.random);
        let is_thrown_back = self.devices[at].lose_power(&mut self.random);
        self.forgive_late_writes(at);
        let (before, tree_before) = (self.contents(at), self.tree(at));
        if is_thrown_back {
            self.had_index_trouble = true;
            self.found_again.extend(before.iter().cloned());
        }
        // Whoever has told nobody to wait for the disk may find his work gone.
        let loses_unsynced = self.plan.aim.loses_unsynced && self.random.chance(70);
        let mode = if self.random.chance(50) { CutMode::Ordered } else { CutMode::Any };
        let mut random = self.random.clone();
        let mut disk = self.devices[at].disk.lock();
        // What users wrote a while ago is on the disk: the system sees to that, and only the agent is on trial here.
        if !loses_unsynced {
            disk.sync_users();
        }
        let lost = disk.power_cut(mode, &mut |n| random.below(n));
        drop(disk);
        self.random = random;
        self.excuse_unsynced(at, &before, &tree_before);
        self.note(|| format!("device {at} loses power ({mode:?}), with it {lost:?}"), &[at as u64, lost.len() as u64]);
        self.film(at);
    }

    fn install_hook(&mut self, at: usize) {
        let users = Arc::clone(&self.users);
        let mut random = Random(self.random.next());
        let (meddling, is_traced) = (Arc::clone(&self.meddling), self.trace.is_some());
        let cut_in = Arc::clone(&self.cut_in[at]);
        let (is_close, mut near) = (self.plan.aim.is_close, None);
        let hook: Hook = Box::new(move |disk: &mut Inner, op| {
            let left = cut_in.load(Ordering::Relaxed);
            if left < u64::MAX {
                cut_in.store(left.saturating_sub(1), Ordering::Relaxed);
                if left == 0 {
                    return disk.cut_agent_off();
                }
            }
            if is_close {
                near = name_of(&disk.op_path(op)).or(near);
            }
            if !random.chance(meddling.load(Ordering::Relaxed)) || disk.is_unmounted() {
                return;
            }
            let act = match near.filter(|_| is_close && random.chance(80)) {
                Some(name) => super::plan::meddling_with(&mut random, name, name),
                None => super::plan::any_meddling(&mut random),
            };
            let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
            if is_traced {
                users.film(at, disk);
                users.ledger.noted.push(format!("a user at {at} comes in between: {act:?}"));
            }
            let Users { ledger, open, .. } = &mut *users;
            User { device: at, disk, ledger, random: &mut random, open }.act(act);
            if is_traced {
                users.film(at, disk);
            }
            if is_close && left < u64::MAX {
                // What is cut off soon after somebody came in between is the hardest to put right.
                cut_in.store(left.min(random.below(CUT_SOON_CALLS) as u64), Ordering::Relaxed);
            }
        });
        self.devices[at].disk.lock().set_hook(Some(hook));
    }

    /// Users leave the agents alone from now on.
    pub fn end_meddling(&mut self) {
        self.meddling.store(0, Ordering::Relaxed);
        self.lies = 0;
        self.pending_cut.fill(None);
    }

    // Users.

    /// A user acts at a device, if its disk is there.
    pub fn act(&mut self, at: usize, act: Act, random: &mut Random) {
        self.let_users(at, random, |user| user.act(act));
    }

    /// See [`Self::act`]. What is written at the place where a disk is not mounted is no part of the folder: it is hidden
    /// as soon as the disk is back.
    pub fn let_users(&mut self, at: usize, random: &mut Random, work: impl FnOnce(&mut User)) {
        self.pass(1 + random.below(8) as u64, 0);
        if self.devices[at].disk.lock().is_unmounted() {
            return;
        }
        self.note_back(at);
        let suspects = self.suspects(at);
        let before = if suspects.is_empty() { Tree::new() } else { self.tree(at) };
        let users = Arc::clone(&self.users);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        let Users { ledger, open, .. } = &mut *users;
        let mut disk = self.devices[at].disk.lock();
        work(&mut User { device: at, disk: &mut disk, ledger, random, open });
        drop(disk);
        drop(users);
        self.excuse_replaced(at, &suspects, &before);
        self.excuse_taken(at);
        self.film(at);
        self.hear(at);
    }

    pub fn tree(&self, at: usize) -> Tree {
        tree(&self.devices[at].disk.lock())
    }

    // Time.

    /// Lets time pass everywhere.
    pub fn pass(&mut self, ms: u64, us: u64) {
        self.now_ns += ms as i64 * MS_NS + us as i64 * 1000;
        for at in 0..self.devices.len() {
            self.devices[at].clock.advance_ms(ms);
            self.set_clock(at);
        }
    }

    fn set_clock(&self, at: usize) {
        let wall_ns = self.now_ns + self.skew_ns[at];
        self.devices[at].clock.set_wall_ns(wall_ns);
        self.devices[at].disk.lock().set_now_ns(wall_ns);
    }

    // Steps.

    /// What could happen next.
    fn choices(&self) -> Vec<Step> {
        let mut choices: Vec<Step> =
            self.network.waiting().into_iter().map(|(from, to)| Step::Deliver(from, to)).collect();
        for (at, device) in self.devices.iter().enumerate() {
            if !device.watch_events.is_empty() {
                choices.push(Step::Watch(at));
            }
            let Some(agent) = &device.agent else { continue };
            let queued = agent.stepper.queued();
            let mono_ms = device.clock.mono_ms();
            let is_due = |due: Option<u64>| due.is_some_and(|due| due <= mono_ms);
            let kinds = [
                (Step::Input(at), !agent.inputs.is_empty()),
                (Step::Fetch(at), agent.fetches_waiting() > 0),
                (Step::Apply(at), queued.actions > 0),
                (Step::Restore(at), queued.restores > 0),
                (Step::Scan(at), queued.hints.full),
                (Step::Due(at), is_due(agent.stepper.next_due_ms())),
                (Step::Tick(at), is_due(device.next_tick_ms())),
            ];
            choices.extend(kinds.into_iter().filter(|kind| kind.1).map(|kind| kind.0));
        }
        choices
    }

    /// One thing happens somewhere. False where nothing could, now or soon; then time has passed.
    pub fn step(&mut self) -> bool {
        self.steps += 1;
        if self.is_connecting && self.random.chance(10) {
            self.connect_some();
        }
        if self.random.chance(4) {
            let at = self.random.below(self.devices.len());
            let mut random = self.random.clone();
            self.devices[at].disk.lock().write_back(&mut |n| random.below(n));
            self.random = random;
        }
        let choices = self.choices();
        if choices.is_empty() {
            return self.wait();
        }
        let us = self.random.below(1500) as u64;
        let ms = u64::from(self.random.chance(25));
        self.pass(ms, us);
        let step = *self.random.pick(&choices);
        self.do_step(step);
        true
    }

    /// Waits for what is due next, not too long. False where that is only regular work.
    fn wait(&mut self) -> bool {
        let dues = self.devices.iter().filter_map(|d| d.next_due_ms().map(|due| due.saturating_sub(d.clock.mono_ms())));
        let wait = dues.min().unwrap_or(WAIT_MS_MAX);
        self.pass(wait.clamp(1, WAIT_MS_MAX), 0);
        wait <= WAIT_MS_MAX
    }

    fn do_step(&mut self, step: Step) {
        let at = step.device();
        self.note(|| format!("{step:?}"), &[step.number(), at as u64, self.now_ns as u64]);
        match step {
            Step::Deliver(from, to) => self.deliver(from, to),
            Step::Watch(_) => self.watch(at),
            Step::Input(_) => {
                let input = self.devices[at].agent.as_mut().and_then(|agent| agent.inputs.pop_front());
                if let Some(input) = input {
                    self.feed(at, input);
                }
            }
            Step::Fetch(_) => self.fetch(at),
            Step::Tick(_) => self.feed(at, Input::Tick),
            Step::Apply(_) | Step::Restore(_) | Step::Scan(_) | Step::Due(_) => self.work(at, step),
        }
    }

    /// The agent does something on its disk, where it can be cut off at any call.
    fn work(&mut self, at: usize, step: Step) {
        let (before, known) = (self.contents(at), self.slots(at));
        // Aimed ones are cut off where something is changed.
        let may_cut = !self.plan.aim.is_close || matches!(step, Step::Apply(_) | Step::Restore(_));
        if may_cut {
            self.begin_cut(at, WORK_CALLS);
        }
        let most = 1 + self.random.below(8);
        if let Some(agent) = &mut self.devices[at].agent {
            let reader = agent.folder.index();
            match step {
                Step::Apply(_) => drop(agent.stepper.apply(most)),
                Step::Restore(_) => drop(agent.stepper.restore()),
                Step::Scan(_) => drop(agent.stepper.scan(reader)),
                _ => {
                    agent.stepper.look(reader);
                    agent.stepper.second_looks();
                    agent.stepper.scan(reader);
                }
            }
        }
        self.cut_in[at].store(u64::MAX, Ordering::Relaxed);
        self.take_notes();
        self.film(at);
        self.note_displaced(at, step, &known);
        self.check_contents(at, &before);
        self.end_cut(at);
        self.devices[at].collect();
        self.hear(at);
    }

    /// The agent is cut off in what it does next, if it is to be, after so many calls at most.
    pub fn begin_cut(&mut self, at: usize, calls_max: usize) {
        if let Some(cut) = self.pending_cut[at] {
            let calls = self.random.below(calls_max) as u64;
            self.cut_in[at].store(calls, Ordering::Relaxed);
            self.note(|| format!("device {at} is to be cut off after {calls} calls: {cut:?}"), &[calls]);
        }
    }

    /// Kills the agent that was cut off in what it has just done.
    pub fn end_cut(&mut self, at: usize) {
        self.cut_in[at].store(u64::MAX, Ordering::Relaxed);
        if self.devices[at].disk.lock().is_cut_off()
            && let Some(cut) = self.pending_cut[at].take()
        {
            match cut {
                CutOff::Kill => self.kill(at),
                CutOff::PowerCut => self.power_cut(at),
            }
            self.start(at);
        }
    }

    /// The agent looks through history, as it does every hour. What somebody wants does not go.
    fn tidy_history(&mut self, at: usize) {
        // After its time a version may go that is on its way from history to where its user has moved it: a device that
        // has it there is all that is needed.
        let shown: BTreeSet<Vec<u8>> =
            (0..self.devices.len()).flat_map(|at| self.tree(at).into_values()).map(|item| item.bytes).collect();
        let before = self.contents(at).into_iter().filter(|bytes| !shown.contains(bytes)).collect();
        let Some(agent) = &mut self.devices[at].agent else { return };
        for _ in 0..TIDY_STEPS_MAX {
            // All that does not have to stay is too much, or nothing is.
            let max = HistoryMax::Percent(if self.steps.is_multiple_of(2) { 0 } else { 100 });
            if !agent.stepper.look_through_history(agent.folder.index(), HISTORY_MS, max).unwrap_or(false) {
                break;
            }
        }
        self.take_notes();
        self.film(at);
        self.check_contents(at, &before);
        self.devices[at].collect();
        self.hear(at);
    }

    /// Adds to the trace what has changed on a disk since it was last looked at.
    fn film(&mut self, at: usize) {
        if self.trace.is_some() {
            let users = Arc::clone(&self.users);
            users.lock().unwrap_or_else(PoisonError::into_inner).film(at, &self.devices[at].disk.lock());
            self.take_notes();
        }
    }

    pub fn take_notes(&mut self) {
        let notes = std::mem::take(&mut self.users().ledger.noted);
        if let Some(trace) = &mut self.trace {
            trace.extend(notes);
        }
    }

    pub fn feed(&mut self, at: usize, input: Input) {
        if self.trace.is_some() {
            let text = format!("{input:?}");
            self.note(|| format!("  {at} hears {}", text.chars().take(TRACED_CHARS).collect::<String>()), &[]);
        }
        let (events, was_damaged) = (self.devices[at].events.len(), self.devices[at].is_damaged);
        let sent = self.devices[at].feed(input, &mut self.random);
        if was_damaged && self.devices[at].agent.is_none() {
            self.network.leave(at, &mut self.random);
            self.forgive_late_writes(at);
            self.note(|| format!("  {at} sets a damaged index aside"), &[]);
            self.start(at);
        }
        for (peer, message) in sent {
            let to = self.devices[at]
                .agent
                .as_ref()
                .and_then(|agent| agent.connected.iter().copied().find(|number| self.devices[*number].id == peer));
            if let Some(to) = to {
                let is_comparing = matches!(message, p2psync::core::message::Message::Digest(_));
                self.telling_frames += u64::from(!is_comparing);
                if self.trace.is_some() {
                    let text = format!("{message:?}");
                    self.note(
                        || format!("  {at} tells {to} {}", text.chars().take(TRACED_CHARS).collect::<String>()),
                        &[],
                    );
                }
                self.network.send(at, to, &folder_id(), message);
            }
        }
        if self.trace.is_some() {
            let said: Vec<_> = self.devices[at].events.iter().skip(events).cloned().collect();
            for event in said {
                self.note(|| format!("  {at} says {event:?}"), &[]);
            }
        }
        self.devices[at].check_bounds();
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let peer = self.devices[from].id;
        match self.network.deliver(from, to) {
            Some(Arrival::Message(message)) => self.feed(to, Input::Message(peer, message)),
            Some(Arrival::Closed) => {
                if let Some(agent) = &mut self.devices[to].agent {
                    agent.connected.retain(|number| *number != from);
                    self.feed(to, Input::Lost(peer));
                }
            }
            None => {}
        }
    }

    /// What happened on a disk becomes what its kernel will tell.
    pub fn hear(&mut self, at: usize) {
        let events = self.devices[at].disk.lock().take_events();
        for event in events {
            let Some(below) = event.path.strip_prefix(FOLDER.as_bytes()) else { continue };
            let Some(below) = below.strip_prefix(b"/") else { continue };
            if below.starts_with(OWN.as_bytes()) || self.devices[at].agent.is_none() {
                continue;
            }
            let Ok(path) = RelPath::parse(below) else { continue };
            if self.devices[at].loses_events && self.random.chance(60) {
                continue;
            }
            let hint = || WatchEvent::Hint { path: path.clone(), closed: event.closed };
            if self.random.chance(3) {
                self.devices[at].watch_events.push_back(hint());
            }
            let place = self.devices[at].watch_events.len();
            let place = if self.random.chance(10) { self.random.below(place + 1) } else { place };
            self.devices[at].watch_events.insert(place, hint());
        }
    }

    fn watch(&mut self, at: usize) {
        // The kernel tells of several things at once.
        for _ in 0..=self.random.below(4) {
            let event = self.devices[at].watch_events.pop_front();
            if let (Some(event), Some(agent)) = (event, &self.devices[at].agent) {
                agent.stepper.heard(event);
            }
        }
    }

    // Connections.

    fn may_connect(&self, a: usize, b: usize) -> bool {
        let is_parted = self.partition.as_ref().is_some_and(|side| side.contains(&a) != side.contains(&b));
        let knows = |at: usize, peer: usize| {
            let agent = self.devices[at].agent.as_ref();
            agent.is_some_and(|agent| !agent.connected.contains(&peer))
        };
        a != b
            && !is_parted
            && self.devices[a].id != self.devices[b].id
            && knows(a, b)
            && knows(b, a)
            && self.network.can_connect(a, b)
    }

    fn connect_some(&mut self) {
        let count = self.devices.len();
        let (a, b) = (self.random.below(count), self.random.below(count));
        self.connect(a.min(b), a.max(b));
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        if !self.may_connect(a, b) {
            return;
        }
        self.note(|| format!("{a} and {b} connect"), &[a as u64, b as u64]);
        self.network.connect(a, b);
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(agent) = &mut self.devices[at].agent {
                agent.connected.push(peer);
            }
        }
        let (first, second): (DeviceId, DeviceId) = (self.devices[a].id, self.devices[b].id);
        self.feed(a, Input::Connected(second));
        self.feed(b, Input::Connected(first));
    }

    pub fn connect_all(&mut self) {
        self.partition = None;
        self.is_connecting = true;
        for a in 0..self.devices.len() {
            for b in a + 1..self.devices.len() {
                self.connect(a, b);
            }
        }
    }

    pub fn disconnect(&mut self, a: usize, b: usize) {
        self.network.cut(a, b, &mut self.random);
    }

    pub fn disconnect_all_of(&mut self, at: usize) {
        (0..self.devices.len())
            .filter(|b| *b != at)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|b| self.disconnect(at, b));
    }

    // Events of a plan.

    pub fn event(&mut self, at: usize, event: Event, random: &mut Random) {
        self.note(|| format!("== {event:?} at {at}"), &[at as u64]);
        match event {
            Event::User(act) => self.user_event(at, act, random),
            Event::Kill => {
                self.kill(at);
                self.start(at);
            }
            Event::KillAtWork => self.pending_cut[at] = Some(CutOff::Kill),
            Event::PowerCutAtWork => self.pending_cut[at] = Some(CutOff::PowerCut),
            Event::PowerCut => {
                self.power_cut(at);
                self.start(at);
            }
            Event::CleanRestart => {
                self.stop(at);
                self.start(at);
            }
            Event::Stop => self.stop(at),
            Event::Start => self.start(at),
            Event::Disconnect => self.disconnect_all_of(at),
            Event::CutInPieces => {
                self.is_connecting = false;
                (0..self.devices.len()).for_each(|at| self.disconnect_all_of(at));
            }
            Event::ConnectAll => self.connect_all(),
            Event::Partition => self.part(random),
            Event::IndexLost => self.lose_index(at),
            Event::IndexSaved => self.devices[at].save_index(),
            Event::IndexRestored => self.restore_index(at),
            Event::IndexDamaged => self.damage_index(at, random),
            Event::ClockForward => {
                self.skew_ns[at] += (random.below(90) as i64) * DAY_MS as i64 * MS_NS;
                self.set_clock(at);
                self.tidy_history(at);
            }
            Event::ClockBack => self.skew_ns[at] -= (random.below(90) as i64) * DAY_MS as i64 * MS_NS,
            Event::AYear => self.pass_a_year(),
            Event::DiskFull => self.devices[at].disk.lock().set_capacity_bytes(random.below(40) as u64 * 4096),
            Event::DiskFree => self.devices[at].disk.lock().set_capacity_bytes(1 << 40),
            Event::IoErrors => self.io_errors(at, random),
            Event::IoFine => self.end_io_errors(at),
            Event::EventsLost => self.devices[at].loses_events = true,
            Event::EventsFine => self.devices[at].loses_events = false,
            Event::Unmount => {
                let kind = if random.chance(50) { Unmounted::Gone } else { Unmounted::Empty };
                self.devices[at].disk.lock().set_unmounted(Some(kind));
                self.request_scan(at);
            }
            Event::Mount => self.devices[at].disk.lock().set_unmounted(None),
            Event::ReadOnly => self.devices[at].disk.lock().set_read_only(true),
            Event::Writable => self.devices[at].disk.lock().set_read_only(false),
            Event::Replaced => self.replace(at),
            Event::FullScan => {
                self.request_scan(at);
                self.tidy_history(at);
            }
            Event::Confirm => self.feed_if_running(at, Input::Confirm),
            Event::Reject => self.feed_if_running(at, Input::Reject),
            Event::Nothing => self.tidy_history(at),
        }
        self.set_clock(at);
    }

    /// History is looked at before and after, so that all of it is old by then.
    fn pass_a_year(&mut self) {
        (0..self.devices.len()).for_each(|at| self.tidy_history(at));
        self.pass(400 * DAY_MS, 0);
        (0..self.devices.len()).for_each(|at| self.tidy_history(at));
    }

    fn user_event(&mut self, at: usize, act: Act, random: &mut Random) {
        let at = match self.plan.mode {
            Mode::OneUser => self.walk_to(0),
            Mode::Walking => self.walk_to(at),
            Mode::Crowd => at,
        };
        let is_forgetful = self.plan.mode != Mode::Crowd && self.forgetful.contains(&at);
        if is_forgetful || self.devices[at].disk.lock().is_unmounted() {
            return;
        }
        self.act(at, act, random);
        self.note_left(at);
    }

    /// Where nothing is concurrent: what the user sees now is what he leaves. Of a folder that is not mounted he sees
    /// nothing, so he can do nothing to it, and has not left it empty.
    pub fn note_left(&mut self, at: usize) {
        if self.plan.mode != Mode::Crowd && !self.devices[at].disk.lock().is_unmounted() {
            self.left = Some((at, self.tree(at)));
        }
    }

    pub fn feed_if_running(&mut self, at: usize, input: Input) {
        if self.devices[at].agent.is_some() {
            self.feed(at, input);
        }
    }

    pub fn request_scan(&mut self, at: usize) {
        if let Some(agent) = &self.devices[at].agent {
            agent.stepper.request_scan();
        }
    }

    fn part(&mut self, random: &mut Random) {
        let side: BTreeSet<usize> = (0..self.devices.len()).filter(|_| random.chance(50)).collect();
        for a in 0..self.devices.len() {
            for b in a + 1..self.devices.len() {
                if side.contains(&a) != side.contains(&b) {
                    self.disconnect(a, b);
                }
            }
        }
        self.partition = Some(side);
    }

    /// A lost index takes with it what it alone knew: that a file was deleted, or which version an edit was made of. So
    /// where all has to end as the user left it, it is lost only where others know as much, and he goes on only where
    /// they have told it.
    fn lose_index(&mut self, at: usize) {
        if self.may_lose_index(at) {
            self.kill(at);
            self.note_forgotten(at);
            self.devices[at].index = None;
            self.start(at);
        }
    }

    /// Notes what an index says is gone from a path, before that index goes.
    fn note_forgotten(&mut self, at: usize) {
        self.had_index_trouble = true;
        let there = self.contents(at);
        self.found_again.extend(there);
        let Some(index) = &self.devices[at].index else { return };
        for record in index.records_from(None, None, RECORDS_MAX).unwrap_or_default() {
            let entry = record.entry;
            if !entry.is_live() {
                let path = entry.path.to_string();
                self.forgotten.extend(entry.superseded.into_iter().map(|id| (at, path.clone(), id)));
            }
        }
    }

    /// True where users have brought a version back to where it had been seen to go, and the index went before it saw
    /// that. Directories can be moved to and fro without a trace in the files in them, so a new index takes it for what it
    /// was when it went: an old version, that belongs in history. It has to be there.
    pub fn was_brought_back(&self, bytes: &[u8]) -> bool {
        let id = content_of(bytes).id;
        let is_displaced = |at: usize, path: &str| {
            let slots = format!("{OWN}/history/{path}~");
            let items = self.devices[at].disk.lock().items(FOLDER);
            items.into_iter().any(|(name, item)| name.starts_with(slots.as_bytes()) && item.bytes == bytes)
        };
        let of_it = self.forgotten.iter().filter(|(.., forgotten)| *forgotten == id);
        self.users().ledger.was_moved(bytes) && of_it.into_iter().any(|(at, path, _)| is_displaced(*at, path))
    }

    /// See [`Self::lose_index`].
    fn may_lose_index(&mut self, at: usize) -> bool {
        if self.plan.mode != Mode::Crowd {
            // A third device may still have what the user has replaced, and would take what is found here for something else.
            let is_alone = self.devices.len() == 2;
            let is_known = |(last, left): &(usize, Tree)| *last != at && is_alone || self.all_know(left);
            if !self.left.as_ref().is_none_or(is_known) {
                return false;
            }
            if self.left.is_some() {
                self.forgetful.insert(at);
            }
        }
        true
    }

    /// A bad disk: whoever reads that row finds out, and an index that is known to be damaged is made anew.
    fn damage_index(&mut self, at: usize, random: &mut Random) {
        if self.may_lose_index(at) {
            self.kill(at);
            self.note_forgotten(at);
            self.devices[at].damage_index(random);
            self.start(at);
            // What a user does before it is found out is forgotten with the index, so it is found out at once where that
            // is to end as he left it.
            if self.plan.mode != Mode::Crowd && self.devices[at].is_damaged {
                self.devices[at].set_index_aside();
                self.network.leave(at, &mut self.random);
                self.start(at);
            }
        }
    }

    /// True where all devices show what was left, and none is about to tell or do anything.
    pub fn all_know(&self, left: &Tree) -> bool {
        let count = self.devices.len();
        let is_at_rest = |at: usize| {
            let device = &self.devices[at];
            let is_met = device.agent.as_ref().is_some_and(|agent| {
                agent.connected.len() + 1 == count && agent.folder.index().state().is_ok_and(|state| state.scanned)
            });
            is_met
                && !device.has_work()
                && !device.is_on_another_disk()
                && !device.disk.lock().is_unmounted()
                && self.is_as_left(left, &self.tree(at)).is_ok()
        };
        self.network.waiting_frames() == 0 && (0..count).all(is_at_rest)
    }

    fn restore_index(&mut self, at: usize) {
        if let Some(saved) = self.devices[at].saved.take() {
            self.kill(at);
            self.note_forgotten(at);
            let author = self.devices[at].id.short();
            let there = self.contents(at).into_iter().map(|bytes| (author.clone(), bytes));
            self.taken_for_own.extend(there);
            self.devices[at].index = Some(saved.open().expect("memory"));
            self.devices[at].is_damaged = self.devices[at].saved_is_damaged;
            self.start(at);
        }
    }

    fn io_errors(&mut self, at: usize, random: &mut Random) {
        const CALLS: [Call; 12] = [
            Call::Read,
            Call::Write,
            Call::Fsync,
            Call::SyncFileSystem,
            Call::Exchange,
            Call::RenameNoreplace,
            Call::Stat,
            Call::Names,
            Call::OpenDir,
            Call::OpenOwn,
            Call::Unlink,
            Call::Mkdir,
        ];
        self.had_io_errors = true;
        let (call, fault) = (*random.pick(&CALLS), if random.chance(50) { Fault::Once } else { Fault::Percent(30) });
        let mut dice = Random(random.next());
        let mut disk = self.devices[at].disk.lock();
        disk.set_fault_dice(Box::new(move |n| dice.below(n)));
        disk.set_fault(call, Some(fault));
    }

    pub fn end_io_errors(&mut self, at: usize) {
        self.devices[at].disk.lock().clear_faults();
    }

    /// The device is thrown away; a new one with an empty disk takes its place.
    fn replace(&mut self, at: usize) {
        self.had_index_trouble = true;
        self.kill(at);
        // Its disk goes with it, also where it was not mounted.
        self.devices[at].disk.lock().set_unmounted(None);
        let lost = self.contents(at);
        let kept: BTreeSet<Vec<u8>> =
            (0..self.devices.len()).filter(|b| *b != at).flat_map(|b| self.contents(b)).collect();
        let moved = self.moved_only_at(at);
        let mut users = self.users();
        lost.iter().filter(|bytes| !kept.contains(*bytes)).for_each(|bytes| users.ledger.excuse(bytes));
        moved.iter().for_each(|bytes| users.ledger.excuse(bytes));
        users.open.retain(|file| file.device != at);
        drop(users);
        let old = self.devices[at].id;
        let mut fresh = Device::new(
            at,
            SimDisk::new(Options { tick_ns: TICK_NS, block_bytes: BLOCK_BYTES, ..Options::default() }),
            self.now_ns,
            self.random.next(),
        );
        fresh.id = DeviceId([old.0[0] + 40; 32]);
        fresh.may_lose_power = self.plan.loses_power();
        self.devices[at] = fresh;
        self.skew_ns[at] = 0;
        self.set_clock(at);
        self.devices[at].disk.lock().user_mkdir(FOLDER).expect("an empty disk");
        self.install_hook(at);
        for other in (0..self.devices.len()).filter(|b| *b != at) {
            let settings = self.settings(other);
            self.feed_if_running(other, Input::Settings(settings));
        }
        self.start(at);
    }

    /// What a user has moved at a device, and the others still have under old names: they may have heard that it is gone
    /// there, or that something else is there, and not of the new name. Carried out, it leaves the version in their
    /// histories, which is all that is left once this device is thrown away. They may have carried it out already.
    fn moved_only_at(&self, at: usize) -> Vec<Vec<u8>> {
        let Some(index) = &self.devices[at].index else { return Vec::new() };
        let others: Vec<Tree> = (0..self.devices.len()).filter(|b| *b != at).map(|b| self.tree(b)).collect();
        let is_gone_here = |name: &String, bytes: &Vec<u8>| {
            let record = RelPath::parse(name.as_bytes()).ok().and_then(|path| index.record(&path).ok().flatten());
            let id = content_of(bytes).id;
            record.is_some_and(|record| !record.entry.is_live() || record.entry.superseded.contains(&id))
        };
        let own: BTreeSet<Vec<u8>> = self.tree(at).into_values().map(|item| item.bytes).collect();
        let has = |bytes: &Vec<u8>| others.iter().flatten().any(|(_, item)| item.bytes == *bytes);
        let is_lost = |bytes: &Vec<u8>| {
            others.iter().flatten().all(|(name, item)| item.bytes != *bytes || is_gone_here(name, bytes))
        };
        let users = self.users();
        own.into_iter().filter(|bytes| is_lost(bytes) && (has(bytes) || users.ledger.was_moved_at(bytes, at))).collect()
    }

    /// A second machine with a copy of the home and of the folder of a device, as a restored disk image makes one.
    pub fn clone_device(&mut self, at: usize) -> usize {
        let number = self.devices.len();
        self.kill(at);
        let disk = self.devices[at].disk.fork();
        let mut copy = Device::new(number, disk, self.now_ns, self.random.next());
        copy.id = self.devices[at].id;
        copy.index = self.devices[at].index.as_ref().map(|index| {
            let snapshot = index.snapshot().expect("memory");
            snapshot.open().expect("memory")
        });
        self.devices.push(copy);
        self.skew_ns.push(0);
        self.pending_cut.push(None);
        self.cut_in.push(Arc::new(AtomicU64::new(u64::MAX)));
        self.install_hook(number);
        self.set_clock(number);
        self.start(at);
        self.start(number);
        number
    }

    /// What a peer gives may be something else than what was asked for.
    pub fn maybe_wrong(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let dice = (self.now_ns / 1000 % 100) as usize;
        if dice < self.lies {
            match bytes.last_mut() {
                Some(last) => *last ^= 1,
                None => bytes.push(1),
            }
        }
        bytes
    }

    /// What lies in history, by inode. Looked at only where it matters.
    fn slots(&self, at: usize) -> BTreeSet<u64> {
        if !self.plan.aim.has_late_writers {
            return BTreeSet::new();
        }
        let items = self.devices[at].disk.lock().items(&format!("{FOLDER}/{OWN}/history"));
        items.into_values().filter(Item::is_file_or_link).map(|item| item.inode).collect()
    }

    fn note_displaced(&mut self, at: usize, step: Step, known: &BTreeSet<u64>) {
        if matches!(step, Step::Apply(_)) {
            let (now_ns, life) = (self.now_ns, self.devices[at].lives);
            let new: Vec<u64> = self.slots(at).difference(known).copied().collect();
            self.displaced.extend(new.iter().map(|inode| (at, *inode, now_ns, life)));
            let is_over = self.meddling.load(Ordering::Relaxed) == 0 || self.devices[at].disk.lock().is_cut_off();
            if let Some(inode) = new.first().filter(|_| !is_over && self.random.chance(LATE_PERCENT)) {
                self.write_late(at, *inode);
            }
        }
    }

    /// A program has had the file open all the time.
    fn write_late(&mut self, at: usize, inode: u64) {
        let (mut random, mut displaced) = (Random(self.random.next()), None);
        self.let_users(at, &mut random, |user| displaced = user.write_now(&OpenFile { device: at, inode }));
        if let Some(bytes) = displaced.filter(|bytes| !self.owes(at, inode, bytes.clone())) {
            self.users().ledger.excuse(&bytes);
        }
    }

    /// Something was written to a file that lies in history by now. True where it has to come back.
    pub fn owes(&mut self, at: usize, inode: u64, bytes: Vec<u8>) -> bool {
        let life = self.devices[at].lives;
        let is_late = |(device, number, then_ns, then_life): &(usize, u64, i64, u64)| {
            (*device, *number, *then_life) == (at, inode, life) && self.now_ns - then_ns < LATE_MS * MS_NS
        };
        let is_owed = self.devices[at].agent.is_some() && self.displaced.iter().any(is_late);
        if is_owed {
            self.owed.push((at, life, bytes));
        }
        is_owed
    }

    /// The agent that was to look once more is gone.
    fn forgive_late_writes(&mut self, at: usize) {
        let tree = self.tree(at);
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, _, bytes) in &self.owed {
            if *device == at && !tree.values().any(|item| item.bytes == *bytes) {
                users.ledger.excuse(bytes);
            }
        }
        self.owed.retain(|(device, ..)| *device != at);
    }

    /// All contents on a disk, in the tree and in history.
    pub fn contents(&self, at: usize) -> BTreeSet<Vec<u8>> {
        let items = self.devices[at].disk.lock().items(FOLDER);
        let is_kept = |path: &[u8]| !path.starts_with(OWN.as_bytes()) || path.starts_with(HISTORY);
        let of_users = items.into_iter().filter(|(path, item)| is_kept(path) && item.is_file_or_link());
        of_users.map(|(_, item)| item.bytes).filter(|bytes| !bytes.is_empty()).collect()
    }
}

/// The name that a user works with at a path on a disk.
fn name_of(path: &[u8]) -> Option<&'static str> {
    let below = path.strip_prefix(FOLDER.as_bytes())?.strip_prefix(b"/")?;
    NAMES.into_iter().find(|name| name.as_bytes() == below)
}

const HISTORY: &[u8] = b".p2psync/history";

/// One thing that can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Deliver(usize, usize),
    Watch(usize),
    Input(usize),
    Fetch(usize),
    Apply(usize),
    Restore(usize),
    Scan(usize),
    Due(usize),
    Tick(usize),
}

impl Step {
    fn device(self) -> usize {
        match self {
            Step::Deliver(_, at)
            | Step::Watch(at)
            | Step::Input(at)
            | Step::Fetch(at)
            | Step::Apply(at)
            | Step::Restore(at)
            | Step::Scan(at)
            | Step::Due(at)
            | Step::Tick(at) => at,
        }
    }

    fn number(self) -> u64 {
        match self {
            Step::Deliver(from, _) => 100 + from as u64,
            Step::Watch(_) => 1,
            Step::Input(_) => 2,
            Step::Fetch(_) => 3,
            Step::Apply(_) => 4,
            Step::Restore(_) => 5,
            Step::Scan(_) => 6,
            Step::Due(_) => 7,
            Step::Tick(_) => 8,
        }
    }
}
