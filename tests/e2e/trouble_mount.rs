//! Disks that are mounted read-only, taken away and brought back, also with what they held before.

use std::fs;
use std::path::Path;

use crate::harness::{Agent, FOLDER, World, wait_settled, wait_until};
use crate::tree;
use crate::trouble::{
    Mount, history, run, skip, start, strangers, wait_file, wait_gone, wait_halted, wait_problem, with_mounts,
};

/// Size of a disk image, in bytes.
const IMAGE_BYTES: u64 = 64 * 1024 * 1024;

#[test]
fn a_disk_turned_read_only_takes_nothing_and_goes_on_when_it_can_be_written() {
    with_mounts("a_disk_turned_read_only_takes_nothing_and_goes_on_when_it_can_be_written", || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let disk = Mount::memory("size=64m", &b.root);
        let elsewhere = b.base.join("second");
        for (agent, place) in [(&a, a.base.join("second")), (&b, elsewhere.clone())] {
            agent.ok(&["folder", "add", place.to_str().unwrap(), "--id", "second", "--label", "Second"]);
        }
        start(&mut a, &mut b);
        for name in ["changed", "deleted", "moved"] {
            a.write(name, format!("{name}, the first"));
        }
        wait_settled(&[&a, &b]);
        disk.set("ro");
        a.write("changed", "changed, the second");
        a.write("new", "new");
        fs::remove_file(a.at("deleted")).unwrap();
        fs::rename(a.at("moved"), a.at("moved away")).unwrap();
        wait_problem(&b, "new", "permission", "read-only");
        fs::write(a.base.join("second/other"), "other folders go on").unwrap();
        wait_until("the other folder is synced", || fs::read(elsewhere.join("other")).map_err(|e| e.to_string()));
        assert_eq!(tree::nodes(&b.root).unwrap().len(), 3);
        disk.set("rw");
        wait_settled(&[&a, &b]);
        assert!(history(&b).contains(&b"changed, the first".to_vec()));
    });
}

#[test]
fn a_disk_unplugged_and_plugged_in_again_deletes_nothing() {
    with_mounts("a_disk_unplugged_and_plugged_in_again_deletes_nothing", || {
        let test = "a_disk_unplugged_and_plugged_in_again_deletes_nothing";
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let image = world.path("image");
        let Some(disk) = disk_over(test, &image, &b) else { return };
        start(&mut a, &mut b);
        (0..30).for_each(|i| a.write(&format!("d/{i}"), format!("{i}")));
        wait_settled(&[&a, &b]);
        disk.end();
        let text = wait_halted(&b);
        assert!(text.contains("marker") && text.contains("goes on by itself"), "{text}");
        a.write("d/3", "changed meanwhile");
        a.write("new", "made meanwhile");
        fs::remove_file(a.at("d/4")).unwrap();
        fs::write(b.root.join("beside"), "written below the mount point").unwrap();
        a.ok(&["folder", "rescan"]);
        b.ok(&["folder", "rescan"]);
        wait_until("a knows its own changes", || match a.folder()?.files {
            30 => Ok(()),
            files => Err(format!("{files} files")),
        });
        assert_eq!(tree::nodes(&b.root).unwrap().len(), 1, "nothing is written below the mount point");
        let disk = plug_in(&image, &b.root);
        wait_settled(&[&a, &b]);
        assert_eq!(tree::nodes(&a.root).unwrap().len(), 31);
        assert_eq!(b.read("d/3"), b"changed meanwhile");
        disk.end();
        wait_halted(&b);
        assert_eq!(fs::read(b.root.join("beside")).unwrap(), b"written below the mount point");
        assert!(!a.at("beside").exists());
    });
}

#[test]
fn a_mount_that_goes_unnoticed_is_noticed_before_anything_is_written_or_deleted() {
    with_mounts("a_mount_that_goes_unnoticed_is_noticed_before_anything_is_written_or_deleted", || {
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        // The file system stays mounted elsewhere, so nobody is told that it goes from here.
        let disk = world.path("disk");
        fs::create_dir(&disk).unwrap();
        let _disk = Mount::new(&["-t", "tmpfs", "none"], &disk);
        let bound = Mount::new(&["--bind", disk.to_str().unwrap()], &b.root);
        start(&mut a, &mut b);
        (0..30).for_each(|i| a.write(&format!("d/{i}"), format!("{i}")));
        wait_settled(&[&a, &b]);
        bound.end();
        a.write("new", "made meanwhile");
        fs::remove_file(a.at("d/4")).unwrap();
        wait_halted(&b);
        assert!(!b.at("new").exists() && a.at("d/5").exists());
        let _bound = Mount::new(&["--bind", disk.to_str().unwrap()], &b.root);
        wait_settled(&[&a, &b]);
        assert_eq!(tree::nodes(&a.root).unwrap().len(), 31);
    });
}

#[test]
fn a_disk_put_back_to_an_older_state_loses_no_version() {
    with_mounts("a_disk_put_back_to_an_older_state_loses_no_version", || {
        let test = "a_disk_put_back_to_an_older_state_loses_no_version";
        let world = World::new();
        let (mut a, mut b) = strangers(&world);
        let (image, backup) = (world.path("image"), world.path("backup"));
        let Some(disk) = disk_over(test, &image, &b) else { return };
        start(&mut a, &mut b);
        for name in ["changed here", "changed there", "kept", "deleted"] {
            a.write(name, format!("{name}, the first"));
        }
        wait_settled(&[&a, &b]);
        disk.end();
        wait_halted(&b);
        fs::copy(&image, &backup).unwrap();
        let disk = plug_in(&image, &b.root);
        wait_settled(&[&a, &b]);
        fs::write(b.at("changed here"), "changed here, the second").unwrap();
        fs::write(a.at("changed there"), "changed there, the second").unwrap();
        fs::write(a.at("new there"), "new there, the first").unwrap();
        fs::write(b.at("new here"), "new here, the first").unwrap();
        fs::remove_file(a.at("deleted")).unwrap();
        wait_settled(&[&a, &b]);
        disk.end();
        wait_halted(&b);
        fs::copy(&backup, &image).unwrap();
        let _disk = plug_in(&image, &b.root);
        wait_settled(&[&a, &b]);
        let mut all: Vec<Vec<u8>> = history(&a);
        let live = tree::nodes(&a.root).unwrap().into_keys();
        all.extend(live.map(|path| tree::read_below(&a.root, &path).unwrap()));
        for version in ["changed here, the second", "changed there, the second", "new there, the first"] {
            assert!(all.contains(&version.as_bytes().to_vec()), "'{version}' is lost");
        }
        assert!(all.contains(&b"new here, the first".to_vec()) && all.contains(&b"kept, the first".to_vec()));
    });
}

#[test]
fn a_marker_that_goes_and_comes_back_halts_the_folder_meanwhile() {
    let world = World::new();
    let (a, b) = world.pair();
    a.write("file", "the first");
    wait_settled(&[&a, &b]);
    let (marker, aside) = (b.root.join(".p2psync/marker"), b.base.join("marker"));
    fs::rename(&marker, &aside).unwrap();
    assert!(wait_halted(&b).contains("marker"));
    fs::remove_file(b.at("file")).unwrap();
    a.write("file", "the second");
    a.write("new", "new");
    wait_until("a has seen its own changes", || match a.folder()?.files {
        2 => Ok(()),
        files => Err(format!("{files} files")),
    });
    assert!(!b.at("new").exists() && a.at("file").exists());
    fs::rename(&aside, &marker).unwrap();
    wait_file(&b, "new", b"new");
    wait_settled(&[&a, &b]);
    // What was deleted on one device and changed on the other stays.
    wait_file(&b, "file", b"the second");
    fs::remove_file(b.at("new")).unwrap();
    wait_gone(&a, "new");
}

/// A disk image of its own for an agent's folder, mounted there with what the folder holds; `None` where that is not
/// possible, which is said.
fn disk_over(test: &str, image: &Path, agent: &Agent) -> Option<Mount> {
    fs::File::create(image).unwrap().set_len(IMAGE_BYTES).unwrap();
    let made = run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    let probed =
        made.and_then(|()| run("mount", &["-o", "loop", image.to_str().unwrap(), agent.root.to_str().unwrap()]));
    if let Err(why) = probed {
        skip(test, &format!("no disk image can be mounted here: {why}"));
        return None;
    }
    let disk = Mount { at: agent.root.clone() };
    fs::remove_dir(disk.at.join("lost+found")).unwrap();
    fs::create_dir(disk.at.join(".p2psync")).unwrap();
    fs::write(disk.at.join(".p2psync/marker"), format!("{FOLDER}\n")).unwrap();
    Some(disk)
}

fn plug_in(image: &Path, at: &Path) -> Mount {
    Mount::new(&["-o", "loop", image.to_str().unwrap()], at)
}
