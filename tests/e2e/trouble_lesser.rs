//! A file system that keeps less than others: names in one case only, whole seconds, no modes, no links.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use p2psync::api::FolderState;

use crate::harness::{Agent, World, wait_until};
use crate::trouble::{Mount, run, skip, start, strangers, wait_file, wait_gone, with_mounts};

/// Size of the disk image, in bytes.
const IMAGE_BYTES: u64 = 64 * 1024 * 1024;
/// How long nothing may happen between agents at rest.
const REST: Duration = Duration::from_secs(3);

/// A disk such as a memory card is, and the device that it is reached by.
struct Card {
    _mount: Mount,
    device: String,
}

impl Drop for Card {
    fn drop(&mut self) {
        // It is let go of as soon as the mount, which goes next, does not need it any more.
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

fn card(image: &Path, at: &Path) -> Result<Card, String> {
    fs::File::create(image).unwrap().set_len(IMAGE_BYTES).unwrap();
    run("mkfs.exfat", &[image.to_str().unwrap()])?;
    let found = Command::new("losetup").args(["--find", "--show"]).arg(image).output().map_err(|e| e.to_string())?;
    let device = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    if device.is_empty() {
        return Err(String::from_utf8_lossy(&found.stderr).into_owned());
    }
    if let Err(why) = run("mount.exfat-fuse", &[&device, at.to_str().unwrap()]) {
        let _ = run("losetup", &["--detach", &device]);
        return Err(why);
    }
    Ok(Card { _mount: Mount { at: at.to_owned() }, device })
}

/// Waits until both say that they are in sync, and then that they leave each other alone.
fn wait_at_rest(agents: [&Agent; 2]) {
    let states = || -> Result<Vec<String>, String> {
        agents.iter().map(|agent| Ok(format!("{:?}: {}", agent.folder()?.state, agent.folder()?.state_text))).collect()
    };
    wait_until("both are in sync", || {
        let are_done = agents.iter().all(|a| a.folder().is_ok_and(|f| f.state == FolderState::InSync));
        if are_done { Ok(()) } else { Err(states()?.join("; ")) }
    });
    let talk = || agents.map(|agent| (agent.bytes_in(), agent.log_text().len()));
    let (mut last, mut since) = (talk(), Instant::now());
    wait_until("both are at rest", || {
        let now = talk();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= REST { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

#[test]
fn a_memory_card_declines_what_it_cannot_hold_and_the_agents_come_to_rest() {
    let test = "a_memory_card_declines_what_it_cannot_hold_and_the_agents_come_to_rest";
    with_mounts(test, || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let _card = match card(&world.path("image"), &b.root) {
            Ok(card) => card,
            Err(why) => return skip(test, &format!("no exFAT disk can be mounted here: {why}")),
        };
        a.write("A.txt", "upper");
        a.write("Dir/file", "in a directory");
        a.write("tool", "#!/bin/sh\n");
        fs::set_permissions(a.at("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        start(&mut a, &mut b);
        wait_file(&b, "A.txt", b"upper");
        a.write("a.txt", "lower");
        symlink("A.txt", a.at("link")).unwrap();
        wait_at_rest([&a, &b]);
        assert_eq!((b.read("A.txt"), b.read("tool")), (b"upper".to_vec(), b"#!/bin/sh\n".to_vec()));
        for (path, words) in [("a.txt", "takes its name for that of another"), ("link", "has no symlinks")] {
            let said = b.path_status(&b.at(path)).explanation.join(" ");
            assert!(said.contains(words), "{path}: {said}");
        }
        assert_eq!(fs::metadata(a.at("tool")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(a.at("link").is_symlink());

        // Once its neighbour has gone there is room for the other.
        fs::remove_file(a.at("A.txt")).unwrap();
        wait_file(&b, "a.txt", b"lower");
        wait_until("the old name has gone", || match names(&b) {
            names if names.contains(&"a.txt".to_owned()) && !names.contains(&"A.txt".to_owned()) => Ok(()),
            names => Err(format!("{names:?}")),
        });
        wait_at_rest([&a, &b]);
    });
}

#[test]
fn on_a_memory_card_a_new_case_and_an_edit_within_a_second_are_not_missed() {
    let test = "on_a_memory_card_a_new_case_and_an_edit_within_a_second_are_not_missed";
    with_mounts(test, || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let _card = match card(&world.path("image"), &b.root) {
            Ok(card) => card,
            Err(why) => return skip(test, &format!("no exFAT disk can be mounted here: {why}")),
        };
        a.write("Readme", "read me");
        a.write("Dir/file", "in a directory");
        start(&mut a, &mut b);
        wait_file(&b, "Dir/file", b"in a directory");
        wait_file(&b, "Readme", b"read me");
        fs::rename(a.at("Readme"), a.at("README")).unwrap();
        fs::rename(a.at("Dir"), a.at("DIR")).unwrap();
        wait_until("the names have their new case", || match names(&b) {
            names if names == ["DIR", "README"] => Ok(()),
            names => Err(format!("{names:?}")),
        });
        wait_file(&b, "DIR/file", b"in a directory");
        // Changes are not heard on such a disk.
        fs::rename(b.at("README"), b.at("ReadMe")).unwrap();
        b.write("edited", "first");
        b.ok(&["folder", "rescan"]);
        wait_file(&a, "edited", b"first");
        wait_file(&a, "ReadMe", b"read me");
        wait_gone(&a, "README");
        for text in ["other", "third", "again"] {
            b.write("edited", text);
            b.ok(&["folder", "rescan"]);
            wait_file(&a, "edited", text.as_bytes());
        }
        wait_at_rest([&a, &b]);
        assert_eq!(crate::tree::conflict_copies(&a.root), Vec::<String>::new());
    });
}

/// Names at the top of the folder, but for the agent's own.
fn names(agent: &Agent) -> Vec<String> {
    let entries = fs::read_dir(&agent.root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name != ".p2psync").collect();
    names.sort();
    names
}
