//! Devices that are killed while they are new: the first start, the identity, the config, pairing.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use p2psync::failpoint;

use crate::crash::Deed;
use crate::crash_pair::assert_killed;
use crate::harness::{Agent, FOLDER, World, wait_connected, wait_settled};
use crate::pairing::{finish, neighbours, show_code};

/// Says where the next process of an agent is to be killed; nowhere, where the text is empty.
fn order(agent: &Agent, text: &str) {
    let file = agent.kill_file();
    fs::write(file.with_extension("new"), text).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

/// Lets a command die at a point.
fn kill_command(agent: &Agent, words: &[&str], point: &str) {
    let status = agent.command(words).env(failpoint::VARIABLE, point).output().unwrap().status;
    assert_killed(status, &format!("{point} in {}", words.join(" ")));
}

/// What begins with these letters in a directory.
fn names(dir: &Path, prefix: &str) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    all.filter(|name| name.starts_with(prefix)).collect()
}

/// A first start that dies, and the next one.
pub fn first_start(point: &str) {
    let world = World::new();
    let mut agent = world.agent("new");
    agent.write("mine", "written before");
    order(&agent, point);
    agent.launch();
    assert_killed(agent.wait_end(), point);
    order(&agent, "");
    agent.start();
    wait_settled(&[&agent]);
    agent.ok(&["config", "check"]);
    assert_eq!(fs::read_to_string(agent.at(".p2psync/marker")).unwrap().lines().next(), Some(FOLDER), "{point}");
    assert_eq!((agent.read("mine"), agent.folder().unwrap().files), (b"written before".to_vec(), 1), "{point}");
    agent.restart();
    wait_settled(&[&agent]);
}

/// An identity that is being made. From the moment on at which it can have been seen it stays the same.
pub fn identity(point: &str) {
    let world = World::new();
    let agent = world.bare_agent("new");
    kill_command(&agent, &["id"], point);
    let id = agent.id();
    assert_eq!((agent.id(), names(&agent.home, "identity").len()), (id, 1), "{point}");
}

/// Changes of a config that die halfway: it holds all of the change or nothing.
pub fn commands(points: &[&str]) {
    let world = World::new();
    let agent = world.agent("new");
    let file = agent.home.join("config.toml");
    for point in points {
        let (dir, id) = (world.path(point), format!("id-{point}"));
        let words = ["folder", "add", dir.to_str().unwrap(), "--id", &id.replace('.', "-")];
        let before = fs::read_to_string(&file).unwrap();
        kill_command(&agent, &words, point);
        let after = fs::read_to_string(&file).unwrap();
        agent.ok(&["config", "check"]);
        agent.ok(&["status"]);
        let is_done = matches!(*point, "config.renamed" | "config.durable");
        assert_eq!(after != before, is_done, "{point}");
        if !is_done {
            agent.ok(&words);
        }
        assert!(fs::read_to_string(&file).unwrap().starts_with(&before), "{point}: something else has changed");
    }
    let count = fs::read_to_string(&file).unwrap().matches("[[folder]]").count();
    assert_eq!(count, points.len() + 1);
}

/// Pairing in which one side dies; then both do it once more.
pub fn pairing(points: &[(&str, Deed)]) {
    let world = World::new();
    let Some((mut a, mut b)) = neighbours(&world) else { return };
    for agent in [&mut a, &mut b] {
        order(agent, "");
        agent.restart();
    }
    for (point, deed) in points {
        let (mut child, output, code) = show_code(&a);
        let victim = if *deed == Deed::Show { &mut a } else { &mut b };
        order(victim, point);
        let mut joining = b.command(&["pair", &code]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let victim = if *deed == Deed::Show { &mut a } else { &mut b };
        assert_killed(victim.wait_end(), point);
        order(victim, "");
        victim.start();
        if *point == "pairing.asked" {
            // Nothing was tried, so the code is still good and still shown.
            child.kill().unwrap();
        }
        // Whoever still looks for the other device gives up.
        let _ = joining.kill();
        let (joined, (went_well, said)) = (joining.wait().unwrap(), finish("a", child, output));
        assert!(!(went_well && joined.success()), "{point}: went well: {said}");
        for agent in [&a, &b] {
            agent.ok(&["config", "check"]);
            agent.ok(&["status"]);
        }
        again(&a, &b, point);
    }
}

/// Pairs, and takes each out of the other's config afterwards.
fn again(a: &Agent, b: &Agent, point: &str) {
    let (child, output, code) = show_code(a);
    b.ok(&["pair", &code]);
    let (went_well, said) = finish("a", child, output);
    assert!(went_well, "{point}: {said}");
    wait_connected(a, b);
    let file = format!("after {point}");
    a.write(&file, point);
    wait_settled(&[a, b]);
    assert_eq!(b.read(&file), point.as_bytes());
    for (from, to) in [(a, b), (b, a)] {
        from.ok(&["peer", "remove", &to.id()]);
    }
}
