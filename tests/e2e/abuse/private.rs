//! A paired device that asks for what is not shared with it.

use std::fs;

use p2psync::core::content::Content;
use p2psync::core::entry::Kind;
use p2psync::core::path::RelPath;
use p2psync::net::frame::{Request, WantedContent};

use super::assert_unharmed;
use super::mallory::{Link, folder};
use crate::harness::{FOLDER, World, introduce, wait_connected, wait_until};

/// Whether the victim gives a content, by its id alone or with one of these hints.
fn is_given(link: &Link, number: u32, folder_id: &str, content: Content, hints: &[&str]) -> bool {
    let hint = |path: &&str| Some((RelPath::parse(path.as_bytes()).unwrap(), 0));
    let hints = hints.iter().map(hint).chain([None]);
    let items: Vec<WantedContent> = hints.map(|hint| WantedContent { content, hint }).collect();
    let count = items.len();
    link.request(Request { id: number, folder: folder(folder_id), items });
    let given = |seen: &super::mallory::Seen| seen.chunks.keys().filter(|(request, _)| *request == number).count();
    let refused = |seen: &super::mallory::Seen| seen.not_here.get(&number).copied().unwrap_or_default();
    link.wait("the victim answers", |seen| given(seen) + refused(seen) >= count);
    given(&link.seen()) > 0
}

#[test]
fn what_is_not_shared_is_neither_told_nor_given() {
    let world = World::new();
    let (mut victim, mut honest, mallory) = (world.agent("victim"), world.agent("honest"), super::Mallory::new());
    introduce(&victim, &honest);
    mallory.pair_with(&victim);
    let private = victim.base.join("private");
    victim.ok(&["folder", "add", private.to_str().unwrap(), "--id", "private", "--label", "P", "--peer", "honest"]);
    let (secret, ignored, diary) = (b"another folder's".as_slice(), b"ignored from the start".as_slice(), b"my diary");
    fs::write(private.join("secret"), secret).unwrap();
    victim.write(".p2pignore", "hidden\n");
    victim.write("hidden", ignored);
    victim.write("diary", diary);
    victim.write("shared", "shared");
    victim.start();
    honest.start();
    wait_connected(&victim, &honest);
    let link = mallory.link(&victim);
    link.wait("the victim announces", |seen| seen.entry("shared").is_some() && seen.entry("diary").is_some());

    // It says that it shares the other folder too.
    link.send(&super::mallory::hello(&[FOLDER, "private"]));
    let content = Content::of_chunk;
    assert!(is_given(&link, 1, FOLDER, content(b"shared"), &["shared"]));
    for (number, (id, bytes)) in (2..).zip([
        (FOLDER, secret),
        ("private", secret),
        ("nowhere", secret),
        (FOLDER, ignored),
        (FOLDER, b"nothing like that"),
    ]) {
        let hints = ["secret", "private/secret", "hidden", "shared", "no such"];
        assert!(!is_given(&link, number, id, content(bytes), &hints), "{id}: {}", String::from_utf8_lossy(bytes));
    }
    // An entry that names what is only known by its hash gets the victim to fetch nothing of its own for it.
    link.behave(super::mallory::Manner::NotHere);
    let steal = |path: &str, bytes: &[u8]| mallory.entry(path, Kind::File(content(bytes)));
    link.say(mallory.batch(vec![steal("steal1", secret), steal("steal2", ignored)]));
    assert_unharmed(&victim, &honest, "theft");
    assert!(!victim.at("steal1").exists() && !victim.at("steal2").exists());
    for (number, bytes) in (20..).zip([secret, ignored]) {
        assert!(!is_given(&link, number, FOLDER, content(bytes), &["steal1", "steal2"]));
    }
    let seen = link.seen();
    assert_eq!(seen.folders, [folder(FOLDER)]);
    assert!(seen.entry("hidden").is_none() && seen.entry("secret").is_none());
    assert!(seen.hellos.keys().all(|id| *id == folder(FOLDER)));
    drop(seen);

    // What is hidden later is not given any more, neither as it was nor as it becomes.
    victim.write(".p2pignore", "hidden\ndiary\n");
    wait_until("the diary is ignored", || {
        let seen = link.seen();
        match seen.entry("diary") {
            Some(entry) if !entry.held => Ok(()),
            other => Err(format!("{:?}", other.map(|e| e.held))),
        }
    });
    assert!(!is_given(&link, 30, FOLDER, content(diary), &["diary"]), "an ignored file is given");
    victim.write("diary", "what I think of mallory");
    assert_unharmed(&victim, &honest, "hiding");
    assert!(!is_given(&link, 31, FOLDER, content(b"what I think of mallory"), &["diary"]));

    // Once it is no longer a peer it gets nothing at all.
    victim.ok(&["peer", "remove", super::mallory::NAME]);
    link.wait("the link ends", |seen| seen.over.is_some());
    assert!(mallory.raw(&victim).is_err());
}
