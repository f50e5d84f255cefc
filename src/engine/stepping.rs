//! One folder of the agent without its threads: the same code, one step at a time in the thread of whoever drives it.
//!
//! A simulator decides what happens next, by its own clock and on its own disk: each method here is what some thread
//! of the agent does in one turn. What the agent hands from thread to thread waits in a queue until the simulator asks
//! for the next step. Dropping a [`Stepper`] is a crash.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::apply::{Applier, BATCH_MAX};
use super::clock::Clock;
use super::desk::{Desk, Errands};
use super::local::Local;
use super::retention::Retention;
use super::scan::{FullScans, paths};
use super::serve::{self, Lists};
use super::shared::{Event, FolderHandle, Shared};
use super::{restore, start};
use crate::config::HistoryMax;
use crate::core::action::{Action, WorkId};
use crate::core::content::Content;
use crate::core::id::{DeviceId, FolderId, RunId};
use crate::core::message::Message;
use crate::core::path::RelPath;
use crate::core::problem::Problem;
use crate::fs::nearby::Nearby;
use crate::fs::root::Root;
use crate::fs::watch::WatchEvent;
use crate::index::{HistoryRow, Index, IndexError, Reader};
use crate::net::frame::WantedContent;
use crate::sync::{FetchOrder, Folder, Input, Now, Output, Settings};

pub use super::fetch::{FetchStep, SteppedFetch};
pub use super::hints::HintCounts;
pub use super::shared::LookError;
pub use super::start::is_of_another_disk;

/// Where and when a folder runs.
pub struct Place<'a> {
    pub root: Root,
    pub id: FolderId,
    pub clock: Clock,
    /// Names the boot of the machine.
    pub boot: &'a str,
    /// Time between scans of the whole folder.
    pub rescan_every: Duration,
}

/// What the threads of one folder do, in steps.
pub struct Stepper {
    handle: FolderHandle,
    desk: Desk,
    inbox: mpsc::Receiver<Event>,
    scans: FullScans,
    applier: Applier,
    retention: Retention,
    held: Held,
}

/// What waits to be done by somebody.
#[derive(Default)]
struct Held {
    actions: VecDeque<(WorkId, Action)>,
    restores: VecDeque<(RelPath, RelPath)>,
    inputs: VecDeque<Input>,
    notes: Vec<(&'static str, String)>,
    outputs: Vec<Output>,
}

/// How much waits where; everything here has to stay bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queued {
    pub hints: HintCounts,
    pub inputs: usize,
    pub actions: usize,
    /// Actions given out and not answered yet, with those that wait.
    pub under_way: usize,
    pub restores: usize,
    pub second_looks: usize,
}

impl Stepper {
    /// Starts the folder as the agent does, on an index that is fresh or left over from an earlier run. What that run
    /// left behind is put right, and the first scan is due. `run` is fresh and random.
    ///
    /// # Errors
    ///
    /// Where the agent could not start the folder either.
    pub fn start(place: Place, index: Index, settings: Settings, run: RunId) -> Result<(Stepper, Folder), LookError> {
        let Place { root, id, clock, boot, rescan_every } = place;
        // In the agent whoever has more inputs than fit waits for the folder's thread; here nobody can.
        let (sender, inbox) = mpsc::channel(Semaphore::MAX_PERMITS);
        let mut shared = Shared::new(id, root, settings.device, sender, clock);
        shared.reads_inline = true;
        let (handle, folder, desk) = start::begin(shared, index, settings, run, boot)?;
        let scans = FullScans::new(handle.clone(), rescan_every);
        let (applier, retention) = (Applier::new(handle.clone()), Retention::new(handle.clone()));
        Ok((Stepper { handle, desk, inbox, scans, applier, retention, held: Held::default() }, folder))
    }

    /// The watch says something.
    pub fn heard(&self, event: WatchEvent) {
        self.scans.heard(event);
    }

    /// The next input that some step has sent to the folder.
    pub fn next_input(&mut self) -> Option<Input> {
        while let Ok(event) = self.inbox.try_recv() {
            match event {
                Event::Input(input) => self.held.inputs.push_back(input),
                Event::Message(peer, message, _) => self.held.inputs.push_back(Input::Message(peer, message)),
                Event::Note(key, value) => self.held.notes.push((key, value)),
                Event::Keep(key, value, kept) => {
                    self.held.notes.push((key, value));
                    let _ = kept.send(());
                }
                Event::Stop => {}
            }
        }
        self.held.inputs.pop_front()
    }

    /// Has the folder take in an input, its own or one from outside. Returns what does not concern the disk: messages,
    /// fetches and events.
    pub fn handle(&mut self, folder: &mut Folder, input: Input, now: Now) -> Result<Vec<Output>, IndexError> {
        for (key, value) in self.held.notes.drain(..) {
            folder.set_note(key, Some(&value))?;
        }
        self.desk.take(folder, input, now, &mut self.held)?;
        Ok(std::mem::take(&mut self.held.outputs))
    }

    /// Looks at all paths whose time has come. False where there are none.
    pub fn look(&mut self, reader: &Reader) -> bool {
        let looks = self.handle.hints.take_due();
        looks.map(|looks| paths::do_job(&self.handle, reader, looks)).is_some()
    }

    /// Scans the whole folder, if somebody has asked for it or the time has come. False where that is not so.
    pub fn scan(&mut self, reader: &Reader) -> bool {
        let is_asked = self.handle.hints.take_full_request().is_some();
        if !is_asked && self.handle.clock.instant() < self.scans.due() {
            return false;
        }
        let scans = &mut self.scans;
        scans.renew();
        scans.once(reader, &mut |_| {});
        true
    }

    /// Asks for a scan of the whole folder, as a user can.
    pub fn request_scan(&self) {
        self.handle.hints.request_full("asked for by the user");
    }

    /// Carries out the next actions, at most `max` and no more than the agent does in one batch. Returns how many.
    pub fn apply(&mut self, max: usize) -> usize {
        let count = self.held.actions.len().min(max).min(BATCH_MAX);
        if count > 0 {
            self.applier.carry_out(self.held.actions.drain(..count).collect());
        }
        count
    }

    /// Gives displaced files their second look whose time has come.
    pub fn second_looks(&mut self) {
        self.applier.look_again(self.handle.clock.instant());
    }

    /// Does the next restoration that the folder has decided. False where there is none.
    pub fn restore(&mut self) -> bool {
        let next = self.held.restores.pop_front();
        next.map(|(slot, path)| restore::copy_back(&self.handle, &slot, &path)).is_some()
    }

    /// Brings a version back because the user wants it. Says what was done, or what was in the way.
    pub fn bring_back(&self, version: &HistoryRow) -> Result<String, String> {
        restore::bring_back(&self.handle, version)
    }

    /// Takes away what has been in history for longer than `age_ms`, as far as the clock can be believed. True where
    /// there are more.
    pub fn expire(&mut self, reader: &Reader, age_ms: i64) -> Result<bool, String> {
        self.retention.once(reader, Some(age_ms))
    }

    /// Looks through history once, as is done every hour. True where not all that was due went.
    pub fn look_through_history(&mut self, reader: &Reader, age_ms: i64, max: HistoryMax) -> Result<bool, String> {
        let is_more = self.retention.once(reader, Some(age_ms))?;
        Ok(is_more | self.retention.thin(reader)? | self.retention.bound(reader, max)?)
    }

    /// The bytes of a chunk or list as a peer that asks for it gets them; `None` for every reason not to give them. The
    /// hint says where the peer believes a chunk to lie.
    pub fn serve(&self, reader: &Reader, content: Content, hint: Option<(RelPath, u64)>) -> Option<Vec<u8>> {
        let root = self.handle.root.open().ok()?;
        let local = Local { folder: &self.handle, near: &Nearby::new(&root), reader };
        serve::one(&local, &WantedContent { content, hint }, &mut Lists::default())
    }

    /// Goes on with a fetch, as far as what is here makes that possible.
    pub fn fetch_step(&self, reader: &Reader, fetch: &mut SteppedFetch) -> FetchStep {
        fetch.step(&self.handle, reader)
    }

    /// A peer has sent a part that a fetch wants, with its place in the file; `others` take it too where they want it. False
    /// where it is something else.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn fetch_arrived(
        &self,
        reader: &Reader,
        fetch: &mut SteppedFetch,
        others: &mut [SteppedFetch],
        part: (Content, u64),
        (peer, bytes): (DeviceId, Vec<u8>),
    ) -> Result<bool, Problem> {
        fetch.arrived(others, &self.handle, reader, part, (peer, bytes))
    }

    /// A fetch is over, or given up.
    pub fn fetch_ended(&self, fetch: &SteppedFetch) {
        self.handle.downloads.remove(&fetch.order.path);
    }

    /// The last second looks. An orderly stop ends with it, followed by [`Folder::close`].
    pub fn finish(&mut self) {
        self.applier.finish();
    }

    /// When the next step is due on the clock that only goes forward, beside the folder's own ticks.
    pub fn next_due_ms(&self) -> Option<u64> {
        let dues = [self.handle.hints.next_due(), self.applier.next_due(), Some(self.scans.due())];
        dues.into_iter().flatten().map(|due| self.handle.clock.due_ms(due)).min()
    }

    pub fn queued(&self) -> Queued {
        Queued {
            hints: self.handle.hints.counts(),
            inputs: self.held.inputs.len() + self.inbox.len(),
            actions: self.held.actions.len(),
            under_way: self.desk.under_way(),
            restores: self.held.restores.len(),
            second_looks: self.applier.waiting(),
        }
    }

    /// True where some step waits, now or later, other than the next regular scan.
    pub fn has_work(&self) -> bool {
        let Queued { hints, inputs, actions, under_way, restores, second_looks } = self.queued();
        let counts = [hints.waiting, hints.claimed, inputs, actions, under_way, restores, second_looks];
        hints.full || counts.iter().any(|count| *count > 0)
    }

    /// Why changes are not noticed at once, in words; `None` while they are.
    pub fn watch_trouble(&self) -> Option<String> {
        self.handle.live.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Errands for Held {
    fn apply(&mut self, work: WorkId, action: Action) {
        self.actions.push_back((work, action));
    }

    fn restore(&mut self, slot: RelPath, path: RelPath) {
        self.restores.push_back((slot, path));
    }

    fn tell(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    fn send(&mut self, peer: DeviceId, message: Message) {
        self.outputs.push(Output::Send(peer, message));
    }

    fn fetch(&mut self, order: FetchOrder) {
        self.outputs.push(Output::Fetch(order));
    }

    /// The simulator sees that in the outcomes.
    fn over(&mut self, _work: WorkId) {}

    fn show(&mut self, kind: &'static str, path: Option<RelPath>, text: String) {
        self.outputs.push(Output::Event { kind, path, text });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::conflict::original_of;
    use crate::core::id::EpochId;
    use crate::engine::testing::path;
    use crate::fs::stage;
    use crate::index::Mark;
    use crate::sync::{FetchError, Staged};

    /// As long as two devices take to agree, whatever they have to do.
    const STEPS_MAX: usize = 10_000;

    struct Device {
        id: DeviceId,
        dir: tempfile::TempDir,
        clock: Clock,
        peer: DeviceId,
        /// `None` while the agent does not run.
        agent: Option<(Stepper, Folder)>,
        /// What happened, in words.
        said: Vec<String>,
    }

    impl Device {
        fn new(number: u8, peer: u8) -> Self {
            // Real files have real times, so the clock begins near them.
            let clock = Clock::manual(Clock::system().wall_ns() + 3_600_000_000_000, u64::from(number));
            let (id, peer) = (DeviceId([number; 32]), DeviceId([peer; 32]));
            let mut device = Self { id, dir: tempfile::tempdir().unwrap(), clock, peer, agent: None, said: Vec::new() };
            device.root().create().unwrap();
            device.start(Index::in_memory(EpochId(u64::from(number))).unwrap(), "boot");
            device
        }

        fn root(&self) -> Root {
            Root::new(self.dir.path().join("folder"), "test".parse().unwrap())
        }

        fn start(&mut self, index: Index, boot: &str) {
            let (id, clock) = ("test".parse().unwrap(), self.clock.clone());
            let place = Place { root: self.root(), id, clock, boot, rescan_every: Duration::from_secs(3600) };
            let settings = Settings { device: self.id, peers: [self.peer].into(), ..Settings::default() };
            let run = RunId(self.clock.now().random);
            self.agent = Some(Stepper::start(place, index, settings, run).unwrap());
        }

        fn crash(&mut self, boot: &str) {
            let (_, folder) = self.agent.take().unwrap();
            self.start(folder.into_index(), boot);
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join("folder").join(name)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            std::fs::write(self.at(name), bytes).unwrap();
            self.hint(name);
        }

        fn hint(&self, name: &str) {
            let (stepper, _) = self.agent.as_ref().unwrap();
            stepper.heard(WatchEvent::Hint { path: path(name), closed: true });
        }

        /// Does all that can be done now. Returns what is to be sent and fetched.
        fn step(&mut self) -> Vec<Output> {
            let (stepper, folder) = self.agent.as_mut().unwrap();
            let (clock, mut outputs) = (self.clock.clone(), Vec::new());
            loop {
                while let Some(input) = stepper.next_input() {
                    outputs.extend(stepper.handle(folder, input, clock.now()).unwrap());
                }
                if folder.next_tick_ms(clock.now()).unwrap().is_some_and(|due| due <= clock.mono_ms()) {
                    outputs.extend(stepper.handle(folder, Input::Tick, clock.now()).unwrap());
                }
                stepper.second_looks();
                let reader = folder.index();
                if !(stepper.look(reader) || stepper.scan(reader) || stepper.apply(3) > 0 || stepper.restore())
                    && stepper.queued().inputs == 0
                {
                    return outputs;
                }
            }
        }

        fn hear(&mut self, input: Input) -> Vec<Output> {
            let (stepper, folder) = self.agent.as_mut().unwrap();
            stepper.handle(folder, input, self.clock.now()).unwrap()
        }

        fn stage(&mut self, order: FetchOrder, bytes: Option<Vec<u8>>) -> Vec<Output> {
            let root = self.root().open().unwrap();
            let staged = bytes.ok_or(FetchError::NoSource).map(|bytes| {
                stage::stage_small(&root, order.content, 0, &bytes).unwrap();
                Staged::default()
            });
            self.hear(Input::Fetched(vec![(order.work, staged)]))
        }

        fn tree(&self) -> BTreeMap<String, Vec<u8>> {
            let mut all = BTreeMap::new();
            let mut directories = vec![self.at("")];
            while let Some(directory) = directories.pop() {
                for item in std::fs::read_dir(directory).unwrap() {
                    let at = item.unwrap().path();
                    match at.is_dir() {
                        true if at.ends_with(".p2psync") => {}
                        true => directories.push(at),
                        false => {
                            let name = at.strip_prefix(self.at("")).unwrap().to_string_lossy().into_owned();
                            all.insert(name, std::fs::read(at).unwrap());
                        }
                    }
                }
            }
            all
        }

        fn record(&self, name: &str) -> Option<crate::index::Record> {
            self.agent.as_ref().unwrap().1.index().record(&path(name)).unwrap()
        }
    }

    /// Two devices and the wire between them.
    struct Pair([Device; 2]);

    impl Pair {
        fn new() -> Self {
            let mut pair = Self([Device::new(1, 2), Device::new(2, 1)]);
            pair.connect();
            pair
        }

        fn connect(&mut self) {
            let greetings = self.0.each_mut().map(|device| device.hear(Input::Connected(device.peer)));
            for (at, outputs) in (0..).zip(greetings) {
                self.deliver(at, outputs);
            }
        }

        fn deliver(&mut self, from: usize, outputs: Vec<Output>) {
            let to = 1 - from;
            let mut queue: VecDeque<(usize, Output)> = outputs.into_iter().map(|output| (from, output)).collect();
            while let Some((at, output)) = queue.pop_front() {
                let other = if at == from { to } else { from };
                let (answerer, answer) = match output {
                    Output::Send(_, message) => {
                        let sender = self.0[at].id;
                        (other, self.0[other].hear(Input::Message(sender, message)))
                    }
                    Output::Fetch(order) => {
                        let (server, folder) = self.0[other].agent.as_ref().unwrap();
                        let bytes = server.serve(folder.index(), order.content, Some((order.path.clone(), 0)));
                        (at, self.0[at].stage(order, bytes))
                    }
                    Output::Event { kind, path, text } => {
                        self.0[at].said.push(format!("{kind} {path:?} {text}"));
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                queue.extend(answer.into_iter().map(|output| (answerer, output)));
            }
        }

        /// Lets time pass until nothing waits any more.
        fn settle(&mut self) {
            for _ in 0..STEPS_MAX {
                for at in 0..2 {
                    let outputs = self.0[at].step();
                    self.deliver(at, outputs);
                }
                let has_work = |device: &Device| {
                    let (stepper, folder) = device.agent.as_ref().unwrap();
                    stepper.has_work() || !folder.is_idle()
                };
                if !self.0.iter().any(has_work) {
                    return;
                }
                self.0.iter().for_each(|device| device.clock.advance_ms(10));
            }
            let queued = self.0.each_ref().map(|device| device.agent.as_ref().unwrap().0.queued());
            panic!("they do not come to rest: {queued:?}");
        }
    }

    #[test]
    fn another_disk_in_the_folders_place_halts_it_and_nothing_counts_as_deleted() {
        let mut device = Device::new(1, 2);
        device.write("a", b"one");
        device.step();
        let marker = device.at(".p2psync/marker");
        let own = std::fs::read_to_string(&marker).unwrap();
        std::fs::write(&marker, "test\n0\n").unwrap();
        std::fs::rename(device.at("a"), device.dir.path().join("aside")).unwrap();
        let is_other = |device: &Device| {
            let (stepper, folder) = device.agent.as_ref().unwrap();
            stepper.request_scan();
            is_of_another_disk(folder.index(), &device.root())
        };
        assert!(is_other(&device));
        device.step();
        let (_, folder) = device.agent.as_ref().unwrap();
        assert!(folder.index().note(crate::sync::NOTE_HALTED).unwrap().unwrap().contains("another directory"));
        std::fs::write(&marker, own).unwrap();
        std::fs::rename(device.dir.path().join("aside"), device.at("a")).unwrap();
        assert!(!is_other(&device));
        device.step();
        assert!(device.record("a").unwrap().is_held());
        let (_, folder) = device.agent.as_ref().unwrap();
        assert_eq!(folder.index().note(crate::sync::NOTE_HALTED).unwrap(), None);
    }

    #[test]
    fn two_devices_agree_in_one_thread_and_in_no_real_time() {
        let mut pair = Pair::new();
        pair.settle();
        pair.0[0].write("d/a", b"first");
        pair.0[0].write("b", b"b");
        pair.settle();
        assert_eq!(pair.0[1].tree(), pair.0[0].tree());
        pair.0[1].write("d/a", b"second");
        std::fs::remove_file(pair.0[1].at("b")).unwrap();
        pair.0[1].hint("b");
        pair.settle();
        assert_eq!(pair.0[0].tree(), BTreeMap::from([("d/a".to_owned(), b"second".to_vec())]));
        let (_, folder) = pair.0[0].agent.as_ref().unwrap();
        assert_eq!(folder.index().history_of(&path("d/a")).unwrap().len(), 1);
        assert_eq!(folder.index().history_of(&path("b")).unwrap().len(), 1);
    }

    #[test]
    fn a_version_comes_back_from_history_and_what_lay_there_goes_in() {
        let mut pair = Pair::new();
        pair.0[0].write("a", b"first");
        pair.settle();
        pair.0[1].write("a", b"second");
        pair.settle();
        let (stepper, folder) = pair.0[0].agent.as_ref().unwrap();
        let version = folder.index().history_of(&path("a")).unwrap().remove(0);
        stepper.bring_back(&version).unwrap();
        pair.settle();
        assert_eq!(pair.0[1].tree(), BTreeMap::from([("a".to_owned(), b"first".to_vec())]));
        let (_, folder) = pair.0[0].agent.as_ref().unwrap();
        assert_eq!(folder.index().history_of(&path("a")).unwrap().len(), 2);
    }

    #[test]
    fn what_is_written_into_a_displaced_file_comes_back_at_the_second_look() {
        use std::io::Write;

        let mut pair = Pair::new();
        pair.0[0].write("a", b"first");
        pair.settle();
        let mut writer = std::fs::OpenOptions::new().append(true).open(pair.0[0].at("a")).unwrap();
        pair.0[1].write("a", b"second");
        for _ in 0..20 {
            for at in 0..2 {
                pair.0[at].clock.advance_ms(10);
                let outputs = pair.0[at].step();
                pair.deliver(at, outputs);
            }
        }
        assert_eq!(pair.0[0].tree()["a"], b"second");
        writer.write_all(b" and more").unwrap();
        pair.settle();
        let tree = pair.0[1].tree();
        let copy = tree.iter().find(|(name, _)| original_of(&path(name)).is_some()).expect("a conflict copy");
        assert_eq!((tree.len(), copy.1.as_slice()), (2, &b"first and more"[..]));
    }

    #[test]
    fn a_crash_of_the_machine_makes_scans_suspicious_until_one_has_seen_everything() {
        let mut pair = Pair::new();
        pair.0[0].write("a", b"content");
        pair.settle();
        // The program that wrote it had not synced it, and the power went. Then the agent dies before it has looked.
        std::fs::write(pair.0[0].at("a"), b"").unwrap();
        pair.0[0].crash("another boot");
        pair.0[0].crash("another boot");
        pair.connect();
        pair.settle();
        assert_eq!(pair.0[1].tree()["a"], b"content");
        assert!(pair.0[0].record("a").is_some_and(|record| record.mark == Mark::Suspect), "{:?}", pair.0[0].said);
        // From then on an empty file is what a user has made.
        pair.0[1].write("b", b"content");
        pair.settle();
        std::fs::write(pair.0[0].at("b"), b"").unwrap();
        pair.0[0].crash("another boot");
        pair.connect();
        pair.settle();
        assert_eq!(pair.0[1].tree()["b"], b"");
    }

    #[test]
    fn rules_hold_and_crashes_are_put_right_where_the_folder_comes_only_after_the_start() {
        let mut pair = Pair::new();
        pair.0[0].write(".p2pignore", b"*.tmp");
        pair.0[0].write("a", b"a");
        pair.settle();
        let (here, away) = (pair.0[0].at(""), pair.0[0].dir.path().join("away"));
        // An edit that an apply took out of its place when it was cut off.
        let slot = crate::fs::history::slot_name(&path("a"), crate::fs::history::Shown::Nothing, 1, 0);
        std::fs::write(here.join(".p2psync/history").join(slot.to_string()), b"edit").unwrap();
        std::fs::write(here.join("x.tmp"), b"x").unwrap();
        std::fs::rename(&here, &away).unwrap();
        pair.0[0].crash("boot");
        pair.0[0].step();
        std::fs::rename(&away, &here).unwrap();
        pair.connect();
        pair.0[0].agent.as_ref().unwrap().0.request_scan();
        pair.settle();
        assert_eq!(pair.0[0].record("x.tmp"), None);
        let tree = pair.0[1].tree();
        assert!(tree.iter().any(|(name, bytes)| original_of(&path(name)) == Some(path("a")) && bytes == b"edit"));
        assert_eq!((tree.len(), &tree["a"]), (3, &b"a".to_vec()));
    }

    #[test]
    fn a_wall_clock_that_leaps_does_not_empty_the_history() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let mut pair = Pair::new();
        pair.0[0].write("a", b"first");
        pair.settle();
        pair.0[1].write("a", b"second");
        pair.settle();
        let mut slots_after = |advance_ms: u64, leap_ms: i64| {
            let device = &mut pair.0[0];
            device.clock.advance_ms(advance_ms);
            device.clock.set_wall_ns(device.clock.wall_ns() + leap_ms * 1_000_000);
            let (stepper, folder) = device.agent.as_mut().unwrap();
            stepper.expire(folder.index(), 30 * DAY_MS as i64).unwrap();
            device.step();
            device.agent.as_ref().unwrap().1.index().history_of(&path("a")).unwrap().len()
        };
        assert_eq!(slots_after(0, 0), 1);
        assert_eq!(slots_after(DAY_MS, 1000 * DAY_MS as i64), 1);
        assert_eq!(slots_after(28 * DAY_MS, 0), 1);
        assert_eq!(slots_after(2 * DAY_MS, 0), 0);
    }
}
