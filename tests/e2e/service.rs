//! The agent in the background: the service manager is a script that writes down what it is asked, and real agents
//! talk to a socket as systemd's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::harness::{Agent, BOUND, World, wait_until};

/// A device whose `systemctl` notes its words in a file, and says that units are in the state that another file names.
struct Managed {
    agent: Agent,
    dir: PathBuf,
}

impl Managed {
    fn new(world: &World) -> Self {
        let agent = world.bare_agent("a");
        let dir = agent.base.join("bin");
        fs::create_dir(&dir).unwrap();
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {0}/asked\n[ -e {0}/broken ] && {{ echo 'no bus' >&2; exit 1; }}\n\
             case \"$2\" in is-active|is-enabled) cat {0}/$2 2>/dev/null; [ -e {0}/$2 ];; esac\n",
            dir.display()
        );
        for name in ["systemctl", "journalctl"] {
            let path = dir.join(name);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { agent, dir }
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.dir.display());
        let mut command = self.agent.command(words);
        command.env("PATH", path).env("XDG_CONFIG_HOME", self.agent.base.join("config")).output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What the service manager was asked since the last time, without questions.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.dir.join("asked"));
        let is_order = |line: &&str| !["is-active", "is-enabled", "show-environment"].iter().any(|q| line.contains(q));
        text.lines().filter(is_order).map(str::to_owned).collect()
    }

    fn unit(&self) -> PathBuf {
        self.agent.base.join("config/systemd/user/p2psync.service")
    }
}

#[test]
fn a_service_is_set_up_looked_at_and_removed_through_systemd() {
    let world = World::new();
    let managed = Managed::new(&world);
    assert!(managed.ok(&["service", "status"]).contains("service install"));
    assert!(managed.fails(&["service", "start"]).contains("service install"));
    assert_eq!(managed.asked(), Vec::<String>::new());

    assert!(managed.ok(&["service", "install"]).contains("enable-linger"));
    let orders = ["--user daemon-reload", "--user enable p2psync.service", "--user restart p2psync.service"];
    assert_eq!(managed.asked(), orders);
    let unit = fs::read_to_string(managed.unit()).unwrap();
    let home = managed.agent.home.display();
    assert!(unit.contains("Type=notify") && unit.contains(&format!("--home \"{home}\" run\n")), "{unit}");
    assert_eq!(managed.ok(&["service", "print", "--system", "systemd"]), unit);

    for state in ["is-active", "is-enabled"] {
        fs::write(managed.dir.join(state), if state == "is-active" { "active\n" } else { "enabled\n" }).unwrap();
    }
    let told = managed.ok(&["service", "status", "--json"]);
    assert!(told.contains("\"active\": true") && told.contains("set up and running"), "{told}");
    managed.ok(&["service", "stop"]);
    managed.ok(&["service", "start"]);
    managed.ok(&["service", "logs", "-n", "7"]);
    let asked = managed.asked();
    assert_eq!(asked[..2], ["--user stop p2psync.service", "--user start p2psync.service"]);
    assert_eq!(asked[2], "--user --unit p2psync.service --no-pager --lines 7");

    managed.ok(&["service", "uninstall"]);
    assert_eq!(managed.asked(), ["--user disable --now p2psync.service", "--user daemon-reload"]);
    assert!(!managed.unit().exists());
}

#[test]
fn a_service_file_changed_by_hand_is_never_lost() {
    let world = World::new();
    let managed = Managed::new(&world);
    managed.ok(&["service", "install"]);
    managed.ok(&["service", "install"]);
    let changed = format!("{}Environment=MINE=1\n", fs::read_to_string(managed.unit()).unwrap());
    fs::write(managed.unit(), &changed).unwrap();
    assert!(managed.fails(&["service", "install"]).contains("--replace"));
    assert_eq!(fs::read_to_string(managed.unit()).unwrap(), changed);
    managed.ok(&["service", "install", "--replace"]);
    let kept = managed.unit().with_extension("service.old");
    assert_eq!(fs::read_to_string(&kept).unwrap(), changed);
    fs::write(managed.unit(), "another change").unwrap();
    assert!(managed.ok(&["service", "uninstall"]).contains("old1"));
    assert_eq!(fs::read_to_string(kept.with_extension("old1")).unwrap(), "another change");
}

#[test]
fn without_a_service_manager_it_says_what_to_do_instead() {
    let world = World::new();
    let managed = Managed::new(&world);
    fs::write(managed.dir.join("broken"), "").unwrap();
    let said = managed.fails(&["service", "install"]);
    assert!(said.contains("no bus") && said.contains("@reboot") && said.contains("--log-file"), "{said}");
    assert!(!managed.unit().exists());
    assert!(managed.ok(&["service", "status"]).contains("cannot be used here"));
}

#[test]
fn a_service_does_not_start_beside_an_agent_that_runs_already() {
    let world = World::new();
    let mut managed = Managed::new(&world);
    managed.agent.start();
    assert!(managed.fails(&["service", "install"]).contains("started by hand"));
    assert!(!managed.unit().exists());
}

#[test]
fn an_agent_tells_its_manager_when_it_is_ready_alive_and_stopping() {
    let world = World::new();
    let agent = world.bare_agent("a");
    let path = agent.base.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    let mut command = agent.command(&["run", "--log-file", agent.base.join("log/p2psync.log").to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert!(agent.status().unwrap().running);
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = std::iter::repeat_with(hear).take_while(|word| word != "STOPPING=1").collect();
    assert!(rest.iter().all(|word| word == "WATCHDOG=1"), "{rest:?}");
    let status = wait_until("the agent ends", || child.try_wait().unwrap().ok_or_else(|| "still running".to_owned()));
    assert!(status.success());
    check_log(&agent.base.join("log/p2psync.log"));
}

fn check_log(path: &Path) {
    let log = fs::read_to_string(path).unwrap();
    assert!(log.contains("listening for other devices") && log.contains("stopping"), "{log}");
    assert!(!log.contains('\x1b'));
}
