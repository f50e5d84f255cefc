//! A pair of agents, one of which is killed again and again, and the promises that are looked at afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use p2psync::core::path::RelPath;
use p2psync::failpoint;
use p2psync::fs::root::{OpenRoot, Root};
use p2psync::fs::{history, stage};

use crate::crash::Deed::{self, *};
use crate::harness::{Agent, FOLDER, World, introduce, wait_connected, wait_settled, wait_until};
use crate::tree::{self, Node, noise};

/// SIGKILL, as the system numbers it.
const KILL: i32 = 9;
/// Bytes of a file that takes several chunks.
const LARGE_BYTES: usize = 1 << 20;
/// Files that arrive at once, enough that they share one sync of the file system.
const MANY_FILES: usize = 400;
/// Tells a child of the test which folder to work in.
const CHILD_VARIABLE: &str = "P2PSYNC_TEST_CHILD";

/// A pair of agents, one of which dies again and again.
pub struct Pair {
    pub peer: Agent,
    pub victim: Agent,
    /// Every version of a file that has to be somewhere.
    ledger: BTreeSet<Vec<u8>>,
    cases: u64,
    versions: u64,
    conflicts: usize,
    _world: World,
}

impl Pair {
    pub fn new() -> Self {
        let world = World::new();
        let (peer, victim) = (world.agent("peer"), world.agent("victim"));
        introduce(&peer, &victim);
        let mut pair =
            Self { peer, victim, ledger: BTreeSet::new(), cases: 0, versions: 0, conflicts: 0, _world: world };
        pair.disarm();
        pair.peer.start();
        pair.victim.start();
        wait_connected(&pair.peer, &pair.victim);
        pair
    }

    fn arm(&self, point: &str, count: u32) {
        let file = self.victim.kill_file();
        fs::write(file.with_extension("new"), format!("{point}:{count}")).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    fn disarm(&self) {
        fs::write(self.victim.kill_file(), "").unwrap();
    }

    /// A new version of some length, to be found again for ever.
    fn version(&mut self, bytes: usize) -> Vec<u8> {
        self.versions += 1;
        let bytes = noise(self.versions, bytes);
        self.ledger.insert(bytes.clone());
        bytes
    }

    fn small(&mut self) -> Vec<u8> {
        self.version(3000)
    }

    /// A directory with one of each kind of thing, the same on both.
    pub fn prepare(&mut self) -> String {
        self.cases += 1;
        let dir = format!("case-{}", self.cases);
        for name in ["over", "gone", "from", "mode", "place", "dir/in", "dir/out"] {
            let bytes = self.small();
            self.peer.write(&format!("{dir}/{name}"), bytes);
        }
        let at = |name: &str| self.peer.at(&format!("{dir}/{name}"));
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("was-dir")).unwrap();
        symlink("over", at("link")).unwrap();
        wait_settled(&[&self.peer, &self.victim]);
        dir
    }

    /// Changes one thing of each kind. Returns what the directory holds then.
    pub fn change(&mut self, dir: &str, by_victim: bool) -> BTreeMap<Vec<u8>, Node> {
        let new: Vec<Vec<u8>> = (0..4).map(|_| self.small()).collect();
        let large = self.version(LARGE_BYTES);
        let user = if by_victim { &self.victim } else { &self.peer };
        let name = |name: &str| format!("{dir}/{name}");
        let at = |name: &str| user.at(&format!("{dir}/{name}"));
        user.write(&name("over"), &new[0]);
        user.write(&name("new"), &new[1]);
        user.write(&name("large"), large);
        fs::rename(at("from"), at("to")).unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::remove_dir(at("empty")).unwrap();
        fs::create_dir_all(at("deep/er")).unwrap();
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(at("place")).unwrap();
        user.write(&name("place/below"), &new[2]);
        fs::remove_dir(at("was-dir")).unwrap();
        user.write(&name("was-dir"), &new[3]);
        fs::remove_file(at("link")).unwrap();
        symlink("to", at("link")).unwrap();
        symlink("nowhere", at("another")).unwrap();
        tree::nodes(&at("")).unwrap()
    }

    /// Waits for the victim to be killed at the armed point.
    fn wait_killed(&mut self, what: &str) {
        assert_killed(self.victim.wait_end(), what);
        self.disarm();
    }

    /// The same where the point may be passed less often: then all just goes well.
    pub fn kill_if_at(&mut self, point: &str, count: u32, deed: Deed) {
        let what = format!("{point}:{count} in {deed:?}");
        let dir = self.prepare();
        self.arm(point, count);
        let held = self.change(&dir, deed == Local);
        wait_until(&format!("{what}: it has died or all is the same"), || {
            if self.victim.ended().is_some_and(|status| status.signal() == Some(KILL)) {
                self.disarm();
                self.victim.start();
            }
            tree::compare(&self.peer.root, &self.victim.root)
        });
        self.disarm();
        wait_settled(&[&self.peer, &self.victim]);
        self.check(&what);
        assert_eq!(tree::nodes(&self.peer.at(&dir)).unwrap(), held, "{what}: changed after the crash");
    }

    pub fn kill_at(&mut self, point: &str, count: u32, deed: Deed) {
        let what = format!("{point}:{count} in {deed:?}");
        let started = std::time::Instant::now();
        let held = self.lead_to(point, count, deed, &what);
        self.victim.start();
        wait_settled(&[&self.peer, &self.victim]);
        if deed == Discard {
            // The victim may have gone on with it before it heard of the deletion; nobody waits for its time to be over.
            fs::read_dir(self.victim.at(".p2psync/stage")).unwrap().for_each(|item| {
                assert!(!item.as_ref().unwrap().file_name().to_str().unwrap().starts_with("tmp-"), "{what}");
                fs::remove_file(item.unwrap().path()).unwrap();
            });
        }
        self.check(&what);
        if let Some((dir, held)) = held {
            assert_eq!(tree::nodes(&self.peer.at(&dir)).unwrap(), held, "{what}: changed after the crash");
        }
        eprintln!("{what}: {:?}", started.elapsed());
    }

    /// Does what leads to the point, and waits for the end there. Returns what a directory has to hold later.
    fn lead_to(
        &mut self,
        point: &str,
        count: u32,
        deed: Deed,
        what: &str,
    ) -> Option<(String, BTreeMap<Vec<u8>, Node>)> {
        match deed {
            Receive | Local | Many | Rules | Config => self.lead_by_change(point, count, deed, what),
            Start | Stop | Damaged | RolledBack => self.lead_by_start(point, count, deed, what),
            Discard | Expire => {
                self.lead_to_child(point, deed, what);
                None
            }
            Conflict => {
                self.lead_to_conflict(point, count, what);
                None
            }
            RestoreDeleted | RestoreOlder => {
                self.lead_to_restore(point, count, deed == RestoreOlder, what);
                None
            }
            RecoverReplace(first) => {
                let dir = self.prepare();
                self.arm(first, 1);
                let bytes = self.small();
                self.peer.write(&format!("{dir}/over"), bytes);
                let held = tree::nodes(&self.peer.at(&dir)).unwrap();
                self.wait_killed(what);
                self.launch_to(point, count, what);
                Some((dir, held))
            }
            RecoverConflict(first) => {
                self.lead_to_conflict(first, 1, what);
                self.launch_to(point, count, what);
                None
            }
            RecoverRestore(first) => {
                self.lead_to_restore(first, 1, true, what);
                self.launch_to(point, count, what);
                None
            }
            other => panic!("{other:?} is not for a pair"),
        }
    }

    /// The same with something that changes under an agent that runs, or just before it starts.
    fn lead_by_change(
        &mut self,
        point: &str,
        count: u32,
        deed: Deed,
        what: &str,
    ) -> Option<(String, BTreeMap<Vec<u8>, Node>)> {
        match deed {
            Receive | Local => {
                let dir = self.prepare();
                self.arm(point, count);
                let held = self.change(&dir, deed == Local);
                self.wait_killed(what);
                Some((dir, held))
            }
            Many => {
                self.stop();
                (0..MANY_FILES).for_each(|i| {
                    let bytes = self.version(50);
                    self.peer.write(&format!("many-{count}/{i}"), bytes);
                });
                self.launch_to(point, count, what);
                None
            }
            Rules => {
                self.arm(point, count);
                let text = format!("*.ignored-{}\n", self.cases);
                self.ledger.insert(text.clone().into_bytes());
                self.victim.write(".p2pignore", text);
                self.wait_killed(what);
                None
            }
            Config => {
                self.arm(point, count);
                let file = self.victim.home.join("config.toml");
                let text = fs::read_to_string(&file).unwrap();
                let (first, rest) = text.split_once('\n').unwrap();
                let name = if first.contains("victim-") { "victim" } else { "victim-2" };
                fs::write(file, format!("name = \"{name}\"\n{rest}")).unwrap();
                self.wait_killed(what);
                None
            }
            other => panic!("{other:?} leads elsewhere"),
        }
    }

    /// The same with the start or the end of an agent.
    fn lead_by_start(
        &mut self,
        point: &str,
        count: u32,
        deed: Deed,
        what: &str,
    ) -> Option<(String, BTreeMap<Vec<u8>, Node>)> {
        match deed {
            Start => {
                self.stop();
                self.launch_to(point, count, what);
                None
            }
            Stop => {
                self.arm(point, count);
                let (status, _) = self.victim.stop();
                assert_killed(status, what);
                self.disarm();
                None
            }
            Damaged => {
                let dir = self.prepare();
                let held = tree::nodes(&self.peer.at(&dir)).unwrap();
                self.stop();
                let index = self.index();
                let mut bytes = fs::read(&index).unwrap();
                bytes.iter_mut().take(8192).skip(24).for_each(|b| *b = 0xa5);
                fs::write(&index, bytes).unwrap();
                self.launch_to(point, count, what);
                Some((dir, held))
            }
            RolledBack => {
                self.stop();
                let backup = fs::read(self.index()).unwrap();
                self.victim.start();
                let dir = self.prepare();
                let held = self.change(&dir, true);
                wait_settled(&[&self.peer, &self.victim]);
                self.stop();
                fs::write(self.index(), backup).unwrap();
                self.launch_to(point, count, what);
                Some((dir, held))
            }
            other => panic!("{other:?} leads elsewhere"),
        }
    }

    /// Edits one file on both, so that the victim finds its own version beaten.
    fn lead_to_conflict(&mut self, point: &str, count: u32, what: &str) {
        let dir = self.prepare();
        self.stop();
        let path = format!("{dir}/over");
        // What both users overwrite themselves is nobody's to keep.
        self.ledger.remove(&self.peer.read(&path));
        let (ours, theirs) = (self.small(), self.small());
        self.victim.write(&path, ours);
        // The later one wins.
        let later = fs::metadata(self.victim.at(&path)).unwrap().modified().unwrap() + Duration::from_secs(1);
        self.peer.write(&path, theirs);
        fs::File::options().write(true).open(self.peer.at(&path)).unwrap().set_modified(later).unwrap();
        self.conflicts += 1;
        self.launch_to(point, count, what);
    }

    fn lead_to_restore(&mut self, point: &str, count: u32, older: bool, what: &str) {
        let dir = self.prepare();
        let path = format!("{dir}/over");
        if older {
            let bytes = self.small();
            self.peer.write(&path, bytes);
        } else {
            fs::remove_file(self.peer.at(&path)).unwrap();
        }
        wait_settled(&[&self.peer, &self.victim]);
        self.arm(point, count);
        let said = self.victim.run(&["restore", self.victim.at(&path).to_str().unwrap()]);
        assert!(!said.status.success(), "{what}: the command went well");
        self.wait_killed(what);
    }

    /// What the agent does seldom is done by a child of this test, in the folder of an agent that is not running.
    fn lead_to_child(&mut self, point: &str, deed: Deed, what: &str) {
        if deed == Discard {
            self.arm("stage.written", 2);
            self.peer.write("unwanted", noise(self.cases, LARGE_BYTES));
            self.wait_killed(what);
            fs::remove_file(self.peer.at("unwanted")).unwrap();
        } else {
            let dir = self.prepare();
            self.ledger.remove(&self.peer.read(&format!("{dir}/dir/in")));
            fs::remove_dir_all(self.peer.at(&dir).join("dir")).unwrap();
            wait_settled(&[&self.peer, &self.victim]);
            self.stop();
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "crash_pair::a_child_does_what_agents_do_seldom", "--ignored"]);
        child.env(CHILD_VARIABLE, &self.victim.root).env(failpoint::VARIABLE, point);
        assert_killed(child.output().unwrap().status, what);
    }

    pub fn stop(&mut self) {
        assert!(self.victim.stop().0.success());
    }

    fn launch_to(&mut self, point: &str, count: u32, what: &str) {
        self.arm(point, count);
        self.victim.launch();
        self.wait_killed(what);
    }

    fn index(&self) -> PathBuf {
        self.victim.home.join(format!("index/{FOLDER}.db"))
    }

    /// Looks whether all promises were kept.
    fn check(&self, what: &str) {
        let both = [&self.peer, &self.victim];
        for agent in both {
            wait_until(&format!("{what}: the stage of {} is empty", agent.name), || {
                let left: Vec<_> =
                    fs::read_dir(agent.at(".p2psync/stage")).unwrap().map(|e| e.unwrap().file_name()).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
            agent.ok(&["config", "check"]);
            agent.ok(&["status"]);
        }
        let mut kept = BTreeSet::new();
        both.iter().for_each(|agent| files_below(&agent.root, &mut kept));
        let lost = self.ledger.difference(&kept).count();
        assert_eq!(lost, 0, "{what}: versions are lost");
        let copies = tree::conflict_copies(&self.peer.root);
        assert_eq!(copies.len(), self.conflicts, "{what}: conflict copies {copies:?}");
    }
}

/// The contents of all files below a directory, wherever they are.
pub fn files_below(dir: &Path, found: &mut BTreeSet<Vec<u8>>) {
    for item in fs::read_dir(dir).unwrap() {
        let item = item.unwrap();
        let kind = item.file_type().unwrap();
        if kind.is_dir() {
            files_below(&item.path(), found);
        } else if kind.is_file() {
            found.insert(fs::read(item.path()).unwrap());
        }
    }
}

pub fn assert_killed(status: ExitStatus, what: &str) {
    assert_eq!(status.signal(), Some(KILL), "{what}: ended with {status}");
}

/// Not a test of its own: run by others in a process that may die.
#[test]
#[ignore = "run by other tests"]
fn a_child_does_what_agents_do_seldom() {
    let Some(path) = std::env::var_os(CHILD_VARIABLE) else { return };
    let root = Root::new(path.into(), FOLDER.parse().unwrap()).open().unwrap();
    for (content, copy) in stage::staged(&root).unwrap() {
        stage::discard(&root, content, copy).unwrap();
    }
    let slots = slots(&root);
    let slot = slots.iter().rev().find(|slot| slot.as_bytes().windows(7).any(|part| part == b"dir/in~")).unwrap();
    history::expire(&root, slot).unwrap();
}

fn slots(root: &OpenRoot) -> Vec<RelPath> {
    let mut found = Vec::new();
    let mut sink = |batch: Vec<p2psync::fs::walk::Seen>| {
        found.extend(batch.into_iter().map(|seen| seen.path));
        std::ops::ControlFlow::Continue(())
    };
    history::slots(root, &mut sink).unwrap();
    found
}
