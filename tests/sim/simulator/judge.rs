//! The promises, checked all the time and in the end.

use std::collections::{BTreeMap, BTreeSet};

use p2psync::core::content::Content;
use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::core::ignore::Rules;
use p2psync::core::path::RelPath;
use p2psync::core::problem::ProblemKind;
use p2psync::index::{Mark, ProblemRow, Record};
use p2psync::sync::Input;

use super::device::Device;
use super::disk::Item;
use super::fetching::content_of;
use super::plan::{Mode, OddDisk, Plan};
use super::random::Random;
use super::user::Tree;
use super::world::World;

/// Steps after which a world that has not come to rest is said to be restless.
const SETTLE_STEPS_MAX: usize = 40_000;
/// The same for aimed runs, of which some hundred steps are usual.
const SETTLE_STEPS_AIMED_MAX: usize = 5_000;
/// Nothing has to have happened for this long, in ms, before the world counts as at rest.
const QUIET_MS: i64 = 90_000;
/// Where the first verdict is against it, it is judged again so much later, in ms: what failed for a while is tried
/// again only then.
const LATER_MS: i64 = 2 * 3600 * 1000;
/// Steps for which a user waits at most until a device shows what he left at another.
const WALK_STEPS_MAX: usize = 400;
/// How often held deletions are confirmed in the end: what is confirmed at one device may be held at the next.
const CONFIRMS: usize = 3;
/// Entries of an index looked at: more than any run makes.
const RECORDS_MAX: usize = 10_000;
const MS_NS: i64 = 1_000_000;

impl World {
    /// Carries out a plan and judges what it comes to.
    pub fn run(&mut self, plan: &Plan) -> Result<(), String> {
        for operation in &plan.operations {
            let mut random = Random(operation.salt);
            self.check_left()?;
            self.event(operation.device, operation.event, &mut random);
            for _ in 0..operation.steps {
                self.step();
            }
            self.check_visible()?;
            self.note_shown();
            self.finish_writing(&mut random);
        }
        self.check_left()?;
        self.heal();
        if let Err(why) = self.settle(QUIET_MS) {
            if self.misses_what_is_lost() {
                self.loosen("not at rest: what was not synced went with the power");
                return self.check_kept();
            }
            // What only users can cure is tried again and again, so that it goes on soon after they have.
            if !self.move_away_ignored() {
                return Err(why);
            }
            self.loosen("not at rest until users moved away what is ignored");
            self.settle(QUIET_MS)?;
        }
        for _ in 0..CONFIRMS {
            if self.plan.aim.is_guarded {
                self.confirm_all();
                self.settle(QUIET_MS)?;
            }
        }
        let Err(first) = self.verdict() else { return Ok(()) };
        if self.plan.aim.is_prompt {
            return Err(first);
        }
        self.note(|| format!("== not yet: {first}"), &[]);
        // What is against it now has to be over then.
        self.loosen(super::run::kind(&first).unwrap_or("not as it should be"));
        self.let_pass(LATER_MS);
        self.settle(QUIET_MS).and_then(|()| self.verdict()).map_err(|later| format!("{first}; and later: {later}"))
    }

    /// True where something that its user had not synced went with the power after it was told: somebody wants it and no
    /// device has it, until a user says what is to be there instead.
    fn misses_what_is_lost(&self) -> bool {
        let misses = |device: &Device| {
            let Some(agent) = &device.agent else { return false };
            let problems = agent.folder.index().problems(100).unwrap_or_default();
            problems.iter().any(|row| matches!(row.problem.kind, ProblemKind::NoSource | ProblemKind::Lost))
        };
        self.plan.aim.loses_unsynced && self.devices.iter().any(misses)
    }

    /// What holds also where not all can be had.
    fn check_kept(&self) -> Result<(), String> {
        let trees: Vec<Tree> = (0..self.devices.len()).map(|at| self.tree(at)).collect();
        self.check_visible()?;
        self.check_ledger(&trees)
    }

    /// Where one user is at work alone, nothing but his work may change his device.
    fn check_left(&mut self) -> Result<(), String> {
        let Some((at, left)) = &self.left else { return Ok(()) };
        let now = self.tree(*at);
        let is_there = self.devices[*at].disk.lock().item(super::user::FOLDER).is_some();
        if is_there && !is_mounted_away(self, *at) {
            self.is_as_left(left, &now).map_err(|why| format!("what the user left at {at} was changed: {why}"))?;
        }
        Ok(())
    }

    /// True where a tree is as a user left it. Where a disk fails to tell what has just come out of the tree, the agent
    /// cannot know that nobody has written to it at that moment: it keeps it as a conflict copy, as it should.
    pub fn is_as_left(&self, left: &Tree, now: &Tree) -> Result<(), String> {
        let is_rescued = |path: &String| self.had_io_errors && path.contains(CONFLICT) && !left.contains_key(path);
        let timed = |(path, item): (&String, &Item)| {
            // There is no call that makes the time of a symlink durable: where the power failed it may be another.
            let mtime_ns = if item.kind == DiskKind::Symlink { 0 } else { item.mtime_ns };
            (path.clone(), Item { mtime_ns, ..item.clone() })
        };
        let left_then: Tree = left.iter().map(timed).collect();
        let without: Tree = now.iter().filter(|(path, _)| !is_rescued(path)).map(timed).collect();
        same_trees(&left_then, &without)
    }

    /// The device at which a walking user goes on: the wanted one, if it shows what he left, else where he was.
    pub fn walk_to(&mut self, at: usize) -> usize {
        let Some((last, left)) = self.left.clone() else { return at };
        for _ in 0..WALK_STEPS_MAX {
            if !self.forgetful.is_empty() && self.all_know(&left) {
                self.forgetful.clear();
            }
            if at == last
                || !self.forgetful.contains(&at) && self.shows(at, &left) && self.has_heard_all(at, last, &left)
            {
                return at;
            }
            self.step();
        }
        last
    }

    /// True where a user finds what he left, and nothing is about to change it.
    fn shows(&self, at: usize, left: &Tree) -> bool {
        let device = &self.devices[at];
        let is_scanned = device.agent.as_ref().is_some_and(|a| a.folder.index().state().is_ok_and(|s| s.scanned));
        let is_there = is_scanned && !is_mounted_away(self, at) && !device.has_work();
        is_there && self.is_as_left(left, &self.tree(at)).is_ok()
    }

    /// True where a device has heard of all that came and went where a user worked last: what he took back there before
    /// anybody else had it may otherwise still come, or be taken for something that he does not know.
    fn has_heard_all(&self, at: usize, last: usize, left: &Tree) -> bool {
        let own = self.devices[at].agent.as_ref().map(|agent| agent.folder.index());
        let is_known = |record: Record| {
            let path = record.entry.path.to_string();
            let is_left = left.get(&path).is_some_and(|item| match record.entry.kind.content() {
                Some(content) => item.kind == DiskKind::File && content_of(&item.bytes) == content,
                None => record.entry.kind.disk_kind() == Some(item.kind),
            });
            let known = own.and_then(|index| index.record(&record.entry.path).ok().flatten());
            is_left || known.is_some_and(|known| record.entry.version.included_in(&known.entry.version))
        };
        let all_known = |device: &Device| {
            let index = device.agent.as_ref().map(|agent| agent.folder.index()).or(device.index.as_ref());
            let records = index.and_then(|index| index.records_from(None, None, RECORDS_MAX).ok());
            records.unwrap_or_default().into_iter().all(is_known)
        };
        !self.devices[last].has_work() && self.devices.iter().all(all_known)
    }

    /// Programs that still have files open write to them, or close them.
    fn finish_writing(&mut self, random: &mut Random) {
        if !random.chance(40) {
            return;
        }
        let open = self.users().open.pop();
        // Whoever has gone on at another device has closed his programs, or both would write at once.
        let has_left = |at: usize| self.left.as_ref().is_some_and(|(last, _)| *last != at);
        if let Some(file) = open.filter(|file| self.plan.mode == Mode::Crowd || !has_left(file.device)) {
            let at = file.device;
            let mut displaced = None;
            self.let_users(at, random, |user| displaced = user.write_now(&file));
            if let Some(bytes) = displaced.filter(|bytes| !self.owes(at, file.inode, bytes.clone())) {
                // It is in history for long, or nowhere: nobody can say that it has to be in the tree.
                self.users().ledger.excuse(&bytes);
            }
            self.note_left(at);
        }
    }

    /// Nothing that was kept may go by the agent's doing.
    pub fn check_contents(&self, at: usize, before: &BTreeSet<Vec<u8>>) {
        let mut after = self.contents(at);
        after.extend(self.staged(at));
        let users = self.users();
        for bytes in before {
            assert!(
                after.contains(bytes) || users.ledger.may_go(bytes) || is_mounted_away(self, at),
                "the agent at {at} destroyed {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    fn staged(&self, at: usize) -> BTreeSet<Vec<u8>> {
        let items = self.devices[at].disk.lock().items(&format!("{}/.p2psync/stage", super::user::FOLDER));
        items.into_values().map(|item| item.bytes).collect()
    }

    /// Everything that can be seen in a folder is a whole version.
    pub fn check_visible(&self) -> Result<(), String> {
        for at in 0..self.devices.len() {
            let tree = self.tree(at);
            let users = self.users();
            for (path, item) in tree {
                if item.kind == DiskKind::File && !users.ledger.is_known(&item.bytes) {
                    return Err(format!("{path} at {at} is torn: {:?}", String::from_utf8_lossy(&item.bytes)));
                }
            }
        }
        Ok(())
    }

    /// Ends all trouble.
    pub fn heal(&mut self) {
        self.note(|| "== all trouble ends".into(), &[]);
        self.end_meddling();
        for at in 0..self.devices.len() {
            let mut disk = self.devices[at].disk.lock();
            disk.clear_faults();
            disk.set_unmounted(None);
            disk.set_read_only(false);
            disk.set_capacity_bytes(1 << 40);
            drop(disk);
            self.devices[at].loses_events = false;
            if self.devices[at].is_damaged {
                self.devices[at].set_index_aside();
                self.network.leave(at, &mut self.random);
            }
            if self.devices[at].is_on_another_disk() {
                self.stop(at);
            }
            self.start(at);
        }
        self.connect_all();
        if !self.plan.aim.is_prompt {
            (0..self.devices.len()).for_each(|at| self.request_scan(at));
        }
    }

    /// Lets everything happen that can, until nothing has for a while.
    pub fn settle(&mut self, quiet_ms: i64) -> Result<(), String> {
        let mut quiet_since = self.now_ns;
        let mut seen = (0, 0);
        let steps_max = if self.plan.aim.is_aimed { SETTLE_STEPS_AIMED_MAX } else { SETTLE_STEPS_MAX };
        for _ in 0..steps_max {
            let is_active = self.step();
            if !is_active {
                // Nothing but time stands between devices that are not connected yet.
                self.connect_all();
            }
            let now = (self.telling_frames, self.changes());
            let is_busy = self.network.waiting_frames() > 0
                || self.devices.iter().any(|d| d.has_work())
                || !self.is_all_connected();
            if is_active && is_busy || now != seen {
                seen = now;
                quiet_since = self.now_ns;
            }
            if self.now_ns - quiet_since > quiet_ms * MS_NS && !is_busy {
                return Ok(());
            }
        }
        let busy: Vec<_> = self.devices.iter().filter(|d| d.has_work()).map(|d| d.number).collect();
        Err(format!("the devices do not come to rest; busy: {busy:?}, {} frames wait", self.network.waiting_frames()))
    }

    /// Users do as they are told: what is ignored in a directory that a file is to replace, they move away. True where
    /// there was something.
    fn move_away_ignored(&mut self) -> bool {
        let mut is_any = false;
        for at in 0..self.devices.len() {
            let Some(agent) = &self.devices[at].agent else { continue };
            let rows = agent.folder.index().problems(100).unwrap_or_default().into_iter();
            let tops: BTreeSet<String> =
                rows.filter(|row| row.problem.kind == ProblemKind::InTheWay).map(|row| row.path.to_string()).collect();
            let tree = self.tree(at);
            let synced = without_ignored(&tree, &rules_of(&tree));
            let is_in_the_way = |path: &&String| !synced.contains_key(*path) && is_within(path, &tops);
            let ignored: Vec<String> = tree.keys().filter(is_in_the_way).cloned().collect();
            is_any |= !ignored.is_empty();
            let mut random = Random(self.random.next());
            // What is in a directory goes before it.
            self.let_users(at, &mut random, |user| ignored.iter().rev().for_each(|path| user.delete(path)));
        }
        is_any
    }

    fn is_all_connected(&self) -> bool {
        let is_connected = |a: usize, b: usize| {
            let agent = self.devices[a].agent.as_ref();
            self.devices[a].id == self.devices[b].id || agent.is_none_or(|agent| agent.connected.contains(&b))
        };
        (0..self.devices.len()).all(|a| (0..self.devices.len()).all(|b| a == b || is_connected(a, b)))
    }

    /// Lets that much time pass. It is not waited for quiet: regular scans come more often than that.
    fn let_pass(&mut self, ms: i64) {
        let end_ns = self.now_ns + ms * MS_NS;
        for _ in 0..SETTLE_STEPS_MAX {
            if self.now_ns >= end_ns {
                break;
            }
            self.step();
        }
    }

    fn changes(&self) -> u64 {
        self.devices.iter().map(|d| d.disk.lock().agent_changes()).sum()
    }

    /// The promises, at rest.
    pub fn verdict(&mut self) -> Result<(), String> {
        self.check_visible()?;
        let trees: Vec<Tree> = (0..self.devices.len()).map(|at| self.tree(at)).collect();
        // What is suspect is there all the same.
        self.check_ledger(&trees)?;
        let torn = self.torn(&trees);
        let trees: Vec<Tree> = trees.iter().map(|tree| without(tree, &torn)).collect();
        let rules = trees.iter().map(rules_of).collect::<Vec<_>>();
        let synced: Vec<Tree> = trees
            .iter()
            .enumerate()
            .map(|(at, tree)| self.without_kept(at, without_ignored(tree, &rules[at]), tree))
            .collect();
        let declined = self.declined();
        for (at, tree) in synced.iter().enumerate().skip(1) {
            let tree = without(tree, &declined);
            same_trees(&synced[0], &tree).map_err(|why| format!("device {at} differs from device 0: {why}"))?;
        }
        for (at, tree) in synced.iter().enumerate().skip(2) {
            same_trees(&synced[1], tree).map_err(|why| format!("device {at} differs from device 1: {why}"))?;
        }
        if let Some((_, left)) = self.left.as_ref().filter(|_| self.plan.mode != Mode::Crowd) {
            self.is_as_left(&without(left, &declined), &trees[0])
                .map_err(|why| format!("it did not end as the user left it: {why}"))?;
        }
        self.check_copies(&trees[0])?;
        self.check_ignored(&trees, &rules)?;
        for at in 0..self.devices.len() {
            self.check_index(at, &torn)?;
        }
        Ok(())
    }

    /// What the first device does not have because its disk takes names that differ only in case for the same, and the
    /// other one is there. It has said so: nothing is wrong with that.
    fn declined(&self) -> BTreeSet<String> {
        let Some(agent) = self.devices[0].agent.as_ref().filter(|_| folds_case(&self.plan)) else {
            return BTreeSet::new();
        };
        let names: BTreeSet<String> = self.tree(0).keys().map(|name| name.to_lowercase()).collect();
        let records = agent.folder.index().records_from(None, None, 10_000).unwrap_or_default().into_iter();
        let declined = records.filter(|record| record.mark == Mark::Declined && record.entry.is_live());
        // What is below such a name is declined with it.
        let paths = declined.map(|record| record.entry.path.to_string());
        // What was deleted here at the same time would be an event of this device's: it can say that it is there only once
        // it has it, so it waits and is not passed on.
        let problems = agent.folder.index().problems(100).unwrap_or_default().into_iter();
        let waiting = problems.filter(|row| row.problem.kind == ProblemKind::Name).map(|row| row.path.to_string());
        paths.chain(waiting).filter(|path| names.contains(&path.to_lowercase())).collect()
    }

    /// Paths at which a power cut has left a part of what a user had not synced. Where size and time are as they were,
    /// the agent cannot know without reading all files again, so they may differ.
    fn torn(&self, trees: &[Tree]) -> BTreeSet<String> {
        let users = self.users();
        let items = trees.iter().flatten().filter(|(_, item)| users.ledger.is_torn(&item.bytes));
        let mut torn: BTreeSet<String> = items.map(|(path, _)| path.clone()).collect();
        // What is suddenly empty or old again is not told as an edit: it is for the user to say which he wants. Also he
        // himself may have emptied it before the first scan, as nobody can tell.
        for agent in self.devices.iter().filter_map(|d| d.agent.as_ref().filter(|_| self.plan.loses_power())) {
            let records = agent.folder.index().records_from(None, None, 10_000).unwrap_or_default().into_iter();
            let suspect = records.filter(|record| record.mark == Mark::Suspect);
            let paths: Vec<String> = suspect.map(|record| record.entry.path.to_string()).collect();
            if !paths.is_empty() {
                self.loosen("suspect after a power cut");
            }
            torn.extend(paths);
        }
        torn
    }

    /// Notes what each device shows, where rules are on trial.
    fn note_shown(&mut self) {
        if !self.plan.aim.has_rules {
            return;
        }
        for at in 0..self.devices.len() {
            let files = self.tree(at).into_iter().filter(|(_, item)| item.kind == DiskKind::File);
            self.shown.extend(files.map(|(path, item)| (at, path, item.bytes)));
        }
    }

    /// A rule takes nothing away: what a device has shown of what is ignored now is still there, if no user has given it
    /// up or another name.
    fn check_ignored(&self, trees: &[Tree], rules: &[Rules]) -> Result<(), String> {
        let users = self.users();
        for (at, path, bytes) in &self.shown {
            let parsed = RelPath::parse(path.as_bytes()).map_err(|e| e.to_string())?;
            let is_gone = !trees[*at].values().any(|item| item.bytes == *bytes);
            let may_go = users.ledger.may_go(bytes) || users.ledger.was_moved(bytes);
            if is_gone && !may_go && rules[*at].is_ignored(&parsed, false).is_some() {
                return Err(format!("{path} at {at} went though it is ignored: {:?}", String::from_utf8_lossy(bytes)));
            }
        }
        Ok(())
    }

    fn check_ledger(&self, trees: &[Tree]) -> Result<(), String> {
        let live: BTreeSet<&Vec<u8>> = trees.iter().flat_map(|tree| tree.values()).map(|item| &item.bytes).collect();
        let wanted: Vec<_> =
            self.users().ledger.wanted().map(|(bytes, origin)| (bytes.clone(), origin.clone())).collect();
        for (bytes, origin) in &wanted {
            if live.contains(bytes) {
                continue;
            }
            if self.was_brought_back(bytes) {
                self.loosen("in no tree: brought back to where a lost index knew it to go");
            } else {
                let kept: Vec<usize> =
                    (0..self.devices.len()).filter(|at| self.contents(*at).contains(bytes)).collect();
                return Err(format!(
                    "{:?}, written at {} as {}, is in no tree, only in the history of {kept:?}",
                    String::from_utf8_lossy(bytes),
                    origin.device,
                    origin.path
                ));
            }
        }
        Ok(())
    }

    /// A losing version has one copy, not several.
    fn check_copies(&self, tree: &Tree) -> Result<(), String> {
        let mut copies: BTreeMap<(String, &Vec<u8>), Vec<&String>> = BTreeMap::new();
        for (path, item) in tree.iter().filter(|(path, item)| path.contains(CONFLICT) && item.kind == DiskKind::File) {
            let original = path.split(CONFLICT).next().unwrap_or_default().to_owned();
            if !item.bytes.is_empty() && !self.users().ledger.is_common(&item.bytes) {
                copies.entry((original, &item.bytes)).or_default().push(path);
            }
        }
        // Users who have moved the same version at several devices have each made it their own.
        let owners = |bytes: &[u8]| self.users().ledger.movers(bytes).max(1);
        let is_one = |bytes: &Vec<u8>, paths: &Vec<&String>| self.count_makers(bytes, paths) <= owners(bytes);
        if let Some((_, paths)) = copies.iter().find(|((_, bytes), paths)| !is_one(bytes, paths)) {
            return Err(format!("one version has several copies: {paths:?}"));
        }
        // Only the loser of a conflict gets a copy. (Who moves versions about can bring a loser back to its name.)
        let is_winner = |path: &str, bytes: &Vec<u8>| tree.get(path).is_some_and(|item| item.bytes == *bytes);
        let users = self.users();
        let needless = copies.keys().find(|(path, bytes)| is_winner(path, bytes) && !users.ledger.was_moved(bytes));
        match needless.filter(|_| self.plan.aim.has_conflicts) {
            Some((path, bytes)) => {
                Err(format!("the winner has a copy too: {path} {:?}", String::from_utf8_lossy(bytes)))
            }
            None => Ok(()),
        }
    }

    /// How many made the copies of one version, without those who had to take it for something else.
    fn count_makers(&self, bytes: &[u8], paths: &[&String]) -> usize {
        let all: BTreeSet<Vec<&str>> = paths.iter().filter_map(|path| maker(path)).collect();
        let author = |maker: &[&str]| maker.last().map(|author| (*author).to_owned()).unwrap_or_default();
        // What it received after its backup was made, a restored index takes for its user's work. That lay there then.
        let is_own = |maker: &&Vec<&str>| !self.taken_for_own.contains(&(author(maker), bytes.to_vec()));
        let own = all.iter().filter(is_own).count();
        // The same bytes, found in a first scan here and moved by a user there, or written before an index forgot it, are
        // two events.
        let is_found_again = self.found_again.contains(bytes) || self.users().ledger.was_moved(bytes);
        let is_event = |maker: &&Vec<&str>| is_own(maker) && !(is_found_again && author(maker) == FOUND);
        let events = all.iter().filter(is_event).count();
        if all.len() > 1 && own < 2 {
            self.loosen("several copies: a restored index took one for its user's");
        } else if own > 1 && events < 2 {
            self.loosen("several copies: found again after an index was lost, or moved");
        }
        events
    }

    /// Counts that something was excused.
    fn loosen(&self, why: &'static str) {
        *self.loosened.borrow_mut().entry(why).or_default() += 1;
    }

    /// A directory that is deleted stays at a device where something ignored is in it, and only there.
    fn without_kept(&self, at: usize, synced: Tree, tree: &Tree) -> Tree {
        let Some(agent) = &self.devices[at].agent else { return synced };
        let is_kept = |name: &str| {
            let record =
                RelPath::parse(name.as_bytes()).ok().and_then(|p| agent.folder.index().record(&p).ok().flatten());
            let below = format!("{name}/");
            record.is_some_and(|record| record.mark == Mark::Kept && !record.entry.is_live())
                && tree.keys().any(|path| path.starts_with(&below) && !synced.contains_key(path))
        };
        let kept: BTreeSet<String> = synced.keys().filter(|name| is_kept(name)).cloned().collect();
        synced.into_iter().filter(|(name, _)| !kept.contains(name)).collect()
    }

    /// The index says what is on the disk.
    fn check_index(&self, at: usize, torn: &BTreeSet<String>) -> Result<(), String> {
        let device = &self.devices[at];
        let Some(agent) = &device.agent else { return Err(format!("the agent of {at} does not run")) };
        let index = agent.folder.index();
        let tree = without(&self.tree(at), torn);
        let rules = rules_of(&tree);
        for (name, item) in self.without_kept(at, without_ignored(&tree, &rules), &tree) {
            let Ok(path) = RelPath::parse(name.as_bytes()) else { continue };
            let record = index.record(&path).map_err(|e| e.to_string())?;
            let fits = record.as_ref().is_some_and(|record| {
                let disk = record.disk.filter(|_| record.mark == Mark::Here && record.entry.is_live());
                // Which of two directories of a name it is makes no difference.
                let is_directory = item.kind == DiskKind::Directory;
                disk.is_some_and(|disk| is_directory && disk.kind == item.kind || is_of(&disk, &item))
            });
            if !fits {
                return Err(format!("{name} at {at}: on the disk is {item:?}, in the index {record:?}"));
            }
        }
        let records = index.records_from(None, None, 10_000).map_err(|e| e.to_string())?;
        for record in records {
            let name = record.entry.path.to_string();
            let is_there = tree.contains_key(&name) || is_within(&name, torn);
            if record.entry.is_live() && record.mark == Mark::Here && !is_there {
                return Err(format!("at {at} the index has {record:?}, and nothing is there"));
            }
        }
        // That a name can't be had beside another is for the user to settle.
        let declined = if at == 0 { self.declined() } else { BTreeSet::new() };
        let problems = index.problems(100).map_err(|e| e.to_string())?;
        let is_known = |path: &str| is_within(path, &declined) || is_within(path, torn);
        if let Some(row) = problems.iter().find(|row| !is_known(&row.path.to_string()) && !self.is_truly_lost(at, row))
        {
            return Err(format!("at {at} there is still a problem with {}: {:?}", row.path, row.problem));
        }
        Ok(())
    }

    /// True where an agent says rightly that no device has a content: an index has forgotten that its user gave it up, and
    /// another device still knows of it, though it could never take it. It is for a user to say what is to be there.
    fn is_truly_lost(&self, at: usize, row: &ProblemRow) -> bool {
        let Some(agent) = self.devices[at].agent.as_ref().filter(|_| self.had_index_trouble) else { return false };
        let is_anywhere = |content: Content| {
            let all = (0..self.devices.len()).flat_map(|at| self.tree(at).into_values());
            all.into_iter().any(|item| item.kind == DiskKind::File && content_of(&item.bytes) == content)
        };
        let rivals = agent.folder.index().rivals(&row.path).unwrap_or_default();
        let contents: Vec<Content> = rivals.iter().filter_map(|rival| rival.entry.kind.content()).collect();
        let is_lost = row.problem.kind == ProblemKind::Lost && !contents.into_iter().any(is_anywhere);
        if is_lost {
            self.loosen("lost by all, where an index has forgotten that it was given up");
        }
        is_lost
    }

    /// Adds to the trace how all stands.
    pub fn describe(&mut self) {
        let mut lines = Vec::new();
        for at in 0..self.devices.len() {
            lines.push(format!("--- device {at}, {:?}", self.devices[at].id));
            for (path, item) in self.tree(at) {
                lines.push(format!(
                    "  {path} {:?} {:o} {:?}",
                    item.kind,
                    item.mode,
                    String::from_utf8_lossy(&item.bytes)
                ));
            }
            let Some(agent) = &self.devices[at].agent else {
                lines.push(format!("  does not run: {:?}", self.devices[at].trouble));
                continue;
            };
            lines.push(format!("  {:?}, connected {:?}", agent.stepper.queued(), agent.connected));
            let index = agent.folder.index();
            for record in index.records_from(None, None, 1000).unwrap_or_default() {
                let entry = &record.entry;
                lines.push(format!(
                    "  index {} {:?} {:?} {:?} {:?}",
                    entry.path, entry.kind, record.mark, entry.version, entry.meta
                ));
                for rival in index.rivals(&entry.path).unwrap_or_default() {
                    let entry = &rival.entry;
                    lines.push(format!(
                        "    rival of {:?}: {:?} {:?} held {}",
                        rival.peer, entry.kind, entry.version, rival.held
                    ));
                }
            }
            let peers = self.devices.iter().map(|d| d.id);
            for rival in peers.flat_map(|id| index.rivals_of(id, 1000).unwrap_or_default()) {
                if index.record(&rival.entry.path).ok().flatten().is_none() {
                    let entry = &rival.entry;
                    lines.push(format!(
                        "  nothing at {}; rival of {:?}: {:?} {:?} held {}",
                        entry.path, rival.peer, entry.kind, entry.version, rival.held
                    ));
                }
            }
            for row in index.problems(100).unwrap_or_default() {
                lines.push(format!("  problem {} {:?}", row.path, row.problem));
            }
        }
        if let Some(trace) = &mut self.trace {
            trace.extend(lines);
        }
    }

    /// Lets a user confirm what is held, wherever it is.
    pub fn confirm_all(&mut self) {
        (0..self.devices.len()).for_each(|at| self.feed_if_running(at, Input::Confirm));
    }
}

const CONFLICT: &str = ".conflict-";
/// What stands for the author in the name of a copy of what a first scan found.
const FOUND: &str = "FOUND";

/// The time and author in a copy's name. Two names that tell the same ones are no mistake: of two versions that an author
/// wrote within a second, each device gives the plain name to the one that it met first, and the other gets a part of
/// its content id.
fn maker(path: &str) -> Option<Vec<&str>> {
    let stamp = path.rsplit(CONFLICT).next()?.split('.').next()?;
    Some(stamp.split('-').take(3).collect())
}

fn is_mounted_away(world: &World, at: usize) -> bool {
    world.devices[at].disk.lock().is_unmounted()
}

fn is_of(disk: &DiskState, item: &Item) -> bool {
    disk.kind == item.kind && disk.inode == item.inode && disk.size == item.bytes.len() as u64
}

fn rules_of(tree: &Tree) -> Rules {
    let top = tree.get(".p2pignore").map(|item| Rules::parse(&item.bytes).0).unwrap_or_default();
    let below = |path: &str| path.strip_suffix("/.p2pignore").and_then(|path| RelPath::parse(path.as_bytes()).ok());
    let files = tree.iter().filter(|(_, item)| item.kind == DiskKind::File);
    files
        .filter_map(|(path, item)| Some((below(path)?, &item.bytes)))
        .fold(top, |rules, (directory, text)| rules.with_nested(&directory, text).0)
}

fn without_ignored(tree: &Tree, rules: &Rules) -> Tree {
    let is_synced = |path: &str, item: &Item| {
        RelPath::parse(path.as_bytes())
            .is_ok_and(|path| rules.is_ignored(&path, item.kind == DiskKind::Directory).is_none())
    };
    tree.iter().filter(|(path, item)| is_synced(path, item)).map(|(p, i)| (p.clone(), i.clone())).collect()
}

/// Compares all that is synced of two trees.
pub fn same_trees(left: &Tree, right: &Tree) -> Result<(), String> {
    let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    for path in paths {
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => {
                let mode = |item: &Item| match item.kind {
                    DiskKind::Directory => item.mode & 0o777 | 0o700,
                    DiskKind::Symlink => 0,
                    DiskKind::File => item.mode & 0o777,
                };
                let text = |item: &Item| String::from_utf8_lossy(&item.bytes).into_owned();
                if a.kind != b.kind || a.bytes != b.bytes && a.kind != DiskKind::Directory {
                    return Err(format!("{path} is {:?} {:?} and {:?} {:?}", a.kind, text(a), b.kind, text(b)));
                }
                if mode(a) != mode(b) {
                    return Err(format!("{path} has the modes {:o} and {:o}", a.mode, b.mode));
                }
                let seconds = |item: &Item| item.mtime_ns.div_euclid(1_000_000_000);
                if a.kind != DiskKind::Directory && seconds(a) != seconds(b) {
                    return Err(format!("{path} has the times {} and {}", a.mtime_ns, b.mtime_ns));
                }
            }
            (Some(a), None) => return Err(format!("{path} ({:?}) is only in the first", a.kind)),
            (None, b) => return Err(format!("{path} ({:?}) is only in the second", b.map(|b| b.kind))),
        }
    }
    Ok(())
}

/// True where a disk of this plan takes names that differ only in case for the same.
fn folds_case(plan: &Plan) -> bool {
    plan.odd_disk == Some(OddDisk::FoldsCase)
}

/// True where a path is one of these or below one.
fn is_within(path: &str, these: &BTreeSet<String>) -> bool {
    these.iter().any(|top| path.strip_prefix(top.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn without(tree: &Tree, these: &BTreeSet<String>) -> Tree {
    tree.iter().filter(|(path, _)| !is_within(path, these)).map(|(path, item)| (path.clone(), item.clone())).collect()
}
