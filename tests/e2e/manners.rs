//! What scripts and shells rely on: exit codes, completions, and reports that tell nobody's secrets.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::harness::{Agent, World, wait_settled};

fn code(agent: &Agent, words: &[&str]) -> i32 {
    agent.run(words).status.code().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn exit_codes_tell_how_a_command_ended() {
    let world = World::new();
    let mut a = world.agent("a");
    assert_eq!(code(&a, &["status"]), 0);
    assert_eq!(code(&a, &["status", "--exit-code"]), 4);
    assert_eq!(code(&a, &["folder", "rescan"]), 4);
    assert_eq!(code(&a, &["pair"]), 4);
    for typed in [
        &["statsu"][..],
        &["folder", "pause", "Sharde"],
        &["peer", "remove", "nobody"],
        &["peer", "add", "no-id"],
        &["status", "/nowhere/at/all"],
        &["pause", "until", "teatime"],
        &["wait", "--timeout", "soon"],
        &["restore", "x", "--at", "someday"],
        &["pair", "apple", "xylophone"],
        &["folder", "add", "/etc/hostname"],
        &["folder", "override"],
        &["conflicts", "resolve", "x"],
    ] {
        assert_eq!(code(&a, typed), 2, "{typed:?}");
    }
    assert_eq!(code(&a, &["restore", a.at("x").to_str().unwrap()]), 4);
    assert!(String::from_utf8_lossy(&a.run(&["folder", "pause", "Sharde"]).stderr).contains("did you mean 'Shared'?"));
    a.start();
    wait_settled(&[&a]);
    assert_eq!(code(&a, &["status", "--exit-code"]), 0);
    // A file that can't be synced.
    let status = std::process::Command::new("mkfifo").arg(a.at("pipe")).status().unwrap();
    assert!(status.success());
    a.ok(&["folder", "rescan"]);
    crate::harness::wait_until("the pipe is reported", || match code(&a, &["status", "--exit-code"]) {
        3 => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn a_shell_can_complete_folders_and_peers() {
    let world = World::new();
    let a = world.agent("a");
    let id = world.agent("b").id();
    a.ok(&["peer", "add", &id, "--name", "desktop"]);
    assert!(a.ok(&["completions", "bash"]).contains("P2PSYNC_COMPLETE"));
    let complete = |words: &[&str]| {
        let at = (words.len() - 1).to_string();
        let mut command = a.command(&[&["--", "p2psync"], words].concat());
        command.env("P2PSYNC_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len()).to_string());
        command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9").env("COMP_CWORD", at);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(complete(&["folder", "pause", "Sh"]).contains("Shared"));
    assert!(complete(&["peer", "remove", ""]).contains("desktop"));
    assert!(complete(&["fol"]).contains("folder"));
}

#[test]
fn changes_are_told_to_programs() {
    let world = World::new();
    let a = world.agent("a");
    let paused = json(&a.run(&["folder", "pause", "--json"]));
    assert_eq!((&paused["action"], &paused["paused"]), (&Value::from("paused"), &Value::from(true)));
    let resumed = json(&a.run(&["resume", "--json"]));
    assert_eq!((&resumed[0]["action"], &resumed[0]["paused"]), (&Value::from("resumed"), &Value::from(false)));
    assert_eq!(json(&a.run(&["pause", "--json"]))[0]["action"], "paused");
    let sends = json(&a.run(&["folder", "direction", "Shared", "send", "--json"]));
    assert_eq!((&sends["action"], &sends["direction"]), (&Value::from("direction"), &Value::from("send")));
    assert!(a.ok(&["folder", "direction", "Shared"]).contains("Shared only sends"));
    a.ok(&["folder", "direction", "Shared", "both"]);
    let selected = json(&a.run(&["folder", "select", "--only", "x", "--json"]));
    assert_eq!(selected["only"][0], "x");
    a.ok(&["folder", "select", "--all"]);
    let made = a.ok(&["folder", "add", a.base.join("new/dir").to_str().unwrap()]);
    assert!(made.contains("was not there and has been made"), "{made}");
    a.ok(&["folder", "remove", "dir"]);
    let id = world.agent("b").id();
    let added = json(&a.run(&["peer", "add", &id, "--name", "desktop", "--json"]));
    assert_eq!((&added["action"], &added["name"]), (&Value::from("added"), &Value::from("desktop")));
    let told = json(&a.run(&["id", "--json"]));
    assert_eq!(told["device_id"], Value::from(a.id()));
    let shown = json(&a.run(&["config", "show", "--json"]));
    let of = |key: &str| shown.as_array().unwrap().iter().find(|s| s["key"] == key).cloned().unwrap();
    assert_eq!(of("network.listen")["from"], "environment");
    assert_eq!(of("network.multicast")["from"], "file");
    assert_eq!(of("sync.history_days")["from"], "default");
    assert_eq!(of("folder[0].paused")["value"], true);
}

#[test]
fn a_doctor_looks_at_everything_and_its_report_keeps_secrets() {
    let world = World::new();
    let (mut a, b) = world.pair();
    a.write("Very-Private-Name.txt", "x");
    wait_settled(&[&a, &b]);
    let told = json(&a.run(&["doctor", "--json"]));
    let codes: Vec<&str> = told["checks"].as_array().unwrap().iter().map(|c| c["code"].as_str().unwrap()).collect();
    for code in ["config", "key", "agent", "port", "multicast", "peer", "clock_skew", "file_system", "space", "index"] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
    }
    assert_ne!(told["worst"], "fail", "{told}");
    assert!(!a.at(".p2psync/probe").exists());

    let path = a.base.join("report.json");
    a.ok(&["doctor", "--bundle", path.to_str().unwrap()]);
    let report = fs::read_to_string(&path).unwrap();
    let port = a.listen.rsplit(':').next().unwrap();
    let base = a.base.to_str().unwrap();
    for private in
        ["Very-Private", "Shared", "e2e", "127.0.0.1", port, base, &a.id(), &b.id(), &a.id()[..7], &b.id()[..7]]
    {
        assert!(!report.contains(private), "{private} in {report}");
    }
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["agent_running"], &report["folders"][0]["files"]), (&Value::from(true), &Value::from(1)));
    assert!(a.fails(&["doctor", "--bundle", path.to_str().unwrap()]).contains("choose another name"));

    a.stop();
    let said = a.ok(&["doctor"]);
    assert!(said.contains("service install") && said.contains("free"), "{said}");
}

#[test]
fn a_doctor_names_who_has_taken_the_port() {
    let world = World::new();
    let a = world.agent("a");
    let _holder = std::net::TcpListener::bind(&a.listen).unwrap();
    let output = a.run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
}

#[test]
fn small_commands_do_what_they_say_and_refuse_what_is_not_meant() {
    let world = World::new();
    let mut a = world.agent("a");
    let b = world.agent("b");
    a.ok(&["peer", "add", &b.id(), "--name", "desk"]);
    a.start();
    // Another name for a peer, and none that is taken by nobody.
    assert_eq!(a.ok(&["peer", "rename", "desk", "desktop"]), "desk is now called desktop.\n");
    assert!(a.ok(&["peer", "list"]).contains("desktop"));
    let said = a.fails(&["peer", "rename", "desktob", "x"]);
    assert!(said.contains("there is no peer 'desktob'; did you mean 'desktop'?"), "{said}");
    assert_eq!(code(&a, &["peer", "rename", "desktop", " "]), 2);
    // With whom a folder is shared.
    assert_eq!(a.ok(&["folder", "share", "Shared", "--peer", "desktop"]), "Shared is shared with desktop.\n");
    assert!(a.fails(&["folder", "share", "Shared"]).contains("say with whom"));
    assert!(a.fails(&["folder", "share", "Shared", "--peer", "nobody"]).contains("there is no peer 'nobody'"));
    let shared = json(&a.run(&["folder", "share", "Shared", "--peer", "all", "--json"]));
    assert_eq!((shared["action"].as_str(), shared["peers"].as_str()), (Some("shared"), Some("all")));
    // The config file.
    let place = a.ok(&["config", "path"]);
    assert!(fs::metadata(place.trim()).unwrap().is_file());
    assert_eq!(json(&a.run(&["config", "path", "--json"]))["exists"], true);
    assert!(a.ok(&["config", "upgrade"]).contains("up to date; nothing was changed"));
    let text = fs::read_to_string(place.trim()).unwrap();
    a.write_config(&text.replace("name = \"a\"", "nmae = \"a\""));
    let said = a.fails(&["config", "upgrade"]);
    assert!(said.contains("did you mean 'name'?"), "{said}");
    // Manual pages.
    let pages = a.base.join("man1");
    a.ok(&["man", pages.to_str().unwrap()]);
    let page = fs::read_to_string(pages.join("p2psync-peer-rename.1")).unwrap();
    assert!(page.contains("p2psync peer rename"), "{page}");
    assert!(a.fails(&["man", place.trim()]).contains("cannot make the directory"));
}
