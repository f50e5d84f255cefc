//! Every action, every surprise that a user can spring on it, on a real disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::core::action::{Displace, Slot};
use crate::core::content::Content;
use crate::fs::testing::{Folder, path};
use crate::fs::{history, stage};

const MTIME_NS: i64 = 1_600_000_000_123_456_789;
const CONTEXT: ApplyContext = ApplyContext { device: DeviceId([7; 32]), now_ms: 1_700_000_000_000 };

fn run(folder: &Folder, action: Action) -> Outcome {
    run_with(folder, action, |_| {})
}

/// Runs one action, and `meddle` at each of its steps.
fn run_with(folder: &Folder, action: Action, mut meddle: impl FnMut(Step)) -> Outcome {
    let outcomes = apply_watched(&folder.open, &CONTEXT, vec![(1, action)], &mut |step, _| meddle(step));
    outcomes.into_iter().next().unwrap().1
}

fn batch<'a>(folder: &'a Folder, at: &'a mut dyn FnMut(Step, &RelPath)) -> Batch<'a> {
    let (touched, adjusted) = (BTreeSet::new(), BTreeSet::new());
    Batch { root: &folder.open, context: &CONTEXT, at, touched, adjusted, stuck: Vec::new() }
}

fn staged(folder: &Folder, bytes: &[u8]) -> Content {
    let content = Content::of_chunk(bytes);
    stage::stage_small(&folder.open, content, 0, bytes).unwrap();
    content
}

/// A file that the index has seen, modified long ago.
fn old(folder: &Folder, name: &str, bytes: &[u8]) -> Expected {
    folder.write(name, bytes);
    let file = std::fs::File::open(folder.at(name)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000)).unwrap();
    expected(folder, name)
}

fn expected(folder: &Folder, name: &str) -> Expected {
    let content = folder.at(name).is_file().then(|| folder.hashed(name).content.id);
    Expected { disk: folder.look(name).unwrap(), content, displace: Displace::History }
}

fn place(name: &str, content: Content, expect: Option<Expected>) -> Action {
    Action::PlaceFile { path: path(name), content, copy: 0, mtime_ns: MTIME_NS, mode: 0o640, expect }
}

fn slot_text(folder: &Folder, slot: &Slot) -> String {
    folder.text(&format!(".p2psync/history/{}", slot.name))
}

/// All that is in the tree and in history, with the bytes of files.
fn all_texts(folder: &Folder) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![folder.root.path().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for item in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match item.file_type().unwrap() {
                kind if kind.is_dir() => directories.push(item.path()),
                kind if kind.is_file() => {
                    found.push(String::from_utf8_lossy(&std::fs::read(item.path()).unwrap()).into())
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn done_disk(outcome: &Outcome) -> DiskState {
    match outcome {
        Outcome::Done { disk: Some(disk), .. } => *disk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_file_appears_complete_with_its_time_and_mode() {
    let folder = Folder::new();
    let content = staged(&folder, b"hello");
    let outcome = run(&folder, place("a", content, None));
    assert_eq!(outcome, Outcome::Done { disk: folder.look("a"), displaced: None, conflict: None, rescued: None });
    assert_eq!(folder.text("a"), "hello");
    let disk = done_disk(&outcome);
    assert_eq!((disk.mtime_ns, disk.mode, disk.size), (MTIME_NS, 0o640, 5));
    assert_eq!(stage::staged(&folder.open).unwrap(), []);
}

#[test]
fn what_is_put_in_its_place_with_a_time_of_this_very_moment_is_looked_at_again() {
    let folder = Folder::new();
    let content = staged(&folder, b"hello");
    for (name, mtime_ns, is_relied_on) in [
        ("just now", CONTEXT.now_ms * 1_000_000 - 1_000_000, false),
        ("a moment ago", CONTEXT.now_ms * 1_000_000 - 1_000_000_000, true),
    ] {
        let action = Action::PlaceFile { path: path(name), content, copy: 0, mtime_ns, mode: 0o644, expect: None };
        let disk = done_disk(&run(&folder, action));
        assert_eq!((disk.mtime_ns, disk.ctime_ns != 0), (mtime_ns, is_relied_on), "{name}");
        staged(&folder, b"hello");
    }
}

#[test]
fn a_new_mode_makes_no_reliable_state_of_one_that_was_not() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"x");
    for (ctime_ns, mode) in [(0, 0o640), (expect.disk.ctime_ns, 0o600)] {
        let disk = DiskState { ctime_ns, ..expect.disk };
        let seen = if ctime_ns == 0 { disk } else { folder.look("a").unwrap() };
        let action = Action::SetMetadata { path: path("a"), expect: seen, mtime_ns: disk.mtime_ns, mode };
        assert_eq!(done_disk(&run(&folder, action)).ctime_ns == 0, ctime_ns == 0);
    }
}

#[test]
fn an_edit_of_the_same_size_while_a_mode_or_time_is_set_is_looked_at() {
    for (mode, mtime_ns) in [(0o600, None), (0o644, Some(MTIME_NS)), (0o600, Some(MTIME_NS))] {
        let folder = Folder::new();
        let expect = old(&folder, "a", b"old").disk;
        let mtime_ns = mtime_ns.unwrap_or(expect.mtime_ns);
        let outcome = run_with(&folder, Action::SetMetadata { path: path("a"), expect, mtime_ns, mode }, |step| {
            if step == Step::Checked {
                folder.write("a", b"new");
            }
        });
        let is_noticed = match &outcome {
            Outcome::Changed => true,
            Outcome::Done { disk: Some(disk), .. } => !folder.look("a").unwrap().is_unchanged_since(disk),
            _ => false,
        };
        assert!(is_noticed && folder.text("a") == "new", "{mode:o}: {outcome:?}");
    }
}

#[test]
fn a_replaced_file_goes_into_history() {
    let folder = Folder::new();
    let expect = old(&folder, "dir/a", b"old");
    let content = staged(&folder, b"new");
    let outcome = run(&folder, place("dir/a", content, Some(expect.clone())));
    let Outcome::Done { disk, displaced: Some(slot), conflict: None, rescued: None } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((disk, folder.text("dir/a")), (folder.look("dir/a"), "new".into()));
    assert_eq!(slot_text(&folder, &slot), "old");
    assert!(slot.disk.is_same_file_as(&expect.disk));
    assert_eq!(slot.name.parent(), Some(path("dir")));
    assert_eq!(history::look(&folder.open, &slot.name).unwrap(), Some(slot.disk));
    let shown = crate::core::id::hex(&expect.content.unwrap().0[..8]);
    assert_eq!(history::shown_content(&slot.name), Some(&*shown));
}

#[test]
fn a_replaced_file_becomes_a_conflict_copy_where_so_decided() {
    let folder = Folder::new();
    let copy = Displace::ConflictCopy(path("a.conflict"));
    let expect = Expected { displace: copy, ..old(&folder, "a", b"mine") };
    let content = staged(&folder, b"theirs");
    let outcome = run(&folder, place("a", content, Some(expect.clone())));
    assert_eq!((folder.text("a"), folder.text("a.conflict")), ("theirs".into(), "mine".into()));
    let conflict = folder.look("a.conflict");
    assert_eq!(outcome, Outcome::Done { disk: folder.look("a"), displaced: None, conflict, rescued: None });
}

#[test]
fn a_taken_conflict_name_stops_the_swap_before_it_begins() {
    let folder = Folder::new();
    folder.write("a.conflict", b"another");
    let expect = Expected { displace: Displace::ConflictCopy(path("a.conflict")), ..old(&folder, "a", b"mine") };
    let content = staged(&folder, b"theirs");
    assert_eq!(run(&folder, place("a", content, Some(expect))), Outcome::ConflictNameTaken);
    assert_eq!((folder.text("a"), folder.text("a.conflict")), ("mine".into(), "another".into()));
    assert_eq!(stage::staged(&folder.open).unwrap(), [(content, 0)]);
}

#[test]
fn a_conflict_name_taken_in_the_middle_of_the_swap_costs_no_bytes() {
    let folder = Folder::new();
    let expect = Expected { displace: Displace::ConflictCopy(path("a.conflict")), ..old(&folder, "a", b"mine") };
    let content = staged(&folder, b"theirs");
    let outcome = run_with(&folder, place("a", content, Some(expect)), |step| {
        if step == Step::Swapped {
            folder.write("a.conflict", b"another");
        }
    });
    let Outcome::Done { conflict: None, rescued: Some(rescued), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(folder.text(&rescued.to_string()), "mine");
    assert_eq!((folder.text("a"), folder.text("a.conflict")), ("theirs".into(), "another".into()));
}

#[test]
fn a_directory_moved_away_in_the_middle_of_the_swap_costs_no_bytes() {
    for moved_at in [Step::Checked, Step::Swapped] {
        let folder = Folder::new();
        std::fs::create_dir(folder.at("d")).unwrap();
        let expect = Expected { displace: Displace::ConflictCopy(path("d/a.copy")), ..old(&folder, "d/a", b"mine") };
        let content = staged(&folder, b"theirs");
        let outcome = run_with(&folder, place("d/a", content, Some(expect)), |step| {
            if step == moved_at {
                std::fs::rename(folder.at("d"), folder.at("moved")).unwrap();
                folder.write("d", b"a file where the directory was");
            }
        });
        let Outcome::Done { conflict: None, rescued: Some(rescued), .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((folder.text(&rescued.to_string()), folder.text("moved/a")), ("mine".into(), "theirs".into()));
    }
}

#[test]
fn a_file_that_is_not_as_expected_is_left_alone() {
    let folder = Folder::new();
    let content = staged(&folder, b"new");
    let before = old(&folder, "a", b"old");
    std::fs::write(folder.at("a"), b"edited").unwrap();
    let actions = [
        place("a", content, Some(before.clone())),
        place("a", content, None),
        place("gone", content, Some(before.clone())),
        Action::Remove { path: path("a"), expect: before.clone() },
        Action::Remove { path: path("gone"), expect: before.clone() },
        Action::Move { from: path("a"), to: path("b"), expect: before.disk, mtime_ns: 0, mode: 0o644 },
        Action::SetMetadata { path: path("a"), expect: before.disk, mtime_ns: 0, mode: 0o644 },
        Action::RemoveDirectory { path: path("a") },
        Action::CreateDirectory { path: path("a"), mode: 0o755, expect: None },
        Action::CreateDirectory { path: path("a"), mode: 0o755, expect: Some(before.clone()) },
        Action::PlaceSymlink { path: path("a"), target: b"x"[..].into(), mtime_ns: 0, expect: None },
    ];
    for action in actions {
        assert_eq!(run(&folder, action.clone()), Outcome::Changed, "{action:?}");
        assert_eq!(all_texts(&folder), ["edited", "new", "test\n"], "{action:?}");
    }
}

#[test]
fn what_a_user_put_in_the_place_of_a_directory_just_made_is_not_taken_for_it() {
    for is_replaced in [true, false] {
        let folder = Folder::new();
        let action = Action::CreateDirectory { path: path("a"), mode: 0o755, expect: None };
        let outcome = run_with(&folder, action, |step| {
            if step == Step::Swapped {
                std::fs::remove_dir(folder.at("a")).unwrap();
            }
            if step == Step::Swapped && is_replaced {
                folder.write("a", b"a file");
            }
        });
        let is_left_alone = matches!(outcome, Outcome::Changed | Outcome::Failed(_));
        assert!(is_left_alone, "{outcome:?}");
        assert_eq!(folder.at("a").exists(), is_replaced);
    }
}

#[test]
fn a_mode_that_a_user_sets_on_what_was_just_put_there_is_news_at_the_next_look() {
    for is_directory in [true, false] {
        let folder = Folder::new();
        let expect = Some(old(&folder, "a", b"old"));
        let action = match is_directory {
            true => Action::CreateDirectory { path: path("a"), mode: 0o755, expect },
            false => place("a", staged(&folder, b"new"), expect),
        };
        let outcome = run_with(&folder, action, |step| {
            if step == Step::Swapped {
                std::fs::set_permissions(folder.at("a"), std::fs::Permissions::from_mode(0o750)).unwrap();
            }
        });
        let Outcome::Done { disk: Some(disk), .. } = outcome else { panic!("{outcome:?}") };
        let seen = folder.look("a").unwrap();
        assert!(seen.mode & 0o777 == 0o750 && !seen.is_unchanged_since(&disk), "{disk:?}");
    }
}

#[test]
fn an_edit_between_the_check_and_the_swap_is_kept_beside_the_new_file() {
    for at in [Step::Checked, Step::InSlot] {
        for replaced in [true, false] {
            let folder = Folder::new();
            let expect = old(&folder, "a.txt", b"old");
            let content = staged(&folder, b"new");
            let outcome = run_with(&folder, place("a.txt", content, Some(expect)), |step| {
                if step == at && replaced {
                    // As most editors save.
                    folder.write("tmp", b"edited");
                    std::fs::rename(folder.at("tmp"), folder.at("a.txt")).unwrap();
                } else if step == at {
                    folder.write("a.txt", b"edited");
                }
            });
            let Outcome::Done { displaced: None, conflict: None, rescued: Some(rescued), .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(folder.text("a.txt"), "new");
            assert_eq!(folder.text(&rescued.to_string()), "edited");
        }
    }
}

#[test]
fn two_edits_at_the_moment_of_a_swap_get_different_names() {
    let folder = Folder::new();
    for edit in ["first", "second", "third"] {
        let expect = old(&folder, "a", b"old");
        let content = staged(&folder, edit.to_uppercase().as_bytes());
        run_with(&folder, place("a", content, Some(expect)), |step| {
            if step == Step::Checked {
                folder.write("a", edit.as_bytes());
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_650_000_000);
                std::fs::File::open(folder.at("a")).unwrap().set_modified(time).unwrap();
            }
        });
    }
    let texts = all_texts(&folder);
    for edit in ["first", "second", "third"] {
        assert!(texts.iter().any(|t| t == edit), "{edit} is lost: {texts:?}");
    }
}

#[test]
fn an_edit_that_hides_in_the_same_tick_is_found_by_reading() {
    let folder = Folder::new();
    folder.write("a", b"old");
    let expect = expected(&folder, "a");
    // Not to be relied on: seen within the tick of its last write.
    let expect = Expected { disk: DiskState { ctime_ns: 0, ..expect.disk }, ..expect };
    std::fs::write(folder.at("a"), b"new").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(expect.disk.mtime_ns as u64);
    std::fs::File::open(folder.at("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(run(&folder, Action::Remove { path: path("a"), expect: expect.clone() }), Outcome::Changed);
    assert_eq!(folder.text("a"), "new");
    let content = staged(&folder, b"remote");
    let outcome = run(&folder, place("a", content, Some(expect)));
    let Outcome::Done { displaced: None, rescued: Some(rescued), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(folder.text(&rescued.to_string()), "new");
}

#[test]
fn a_target_deleted_at_the_moment_of_the_swap_puts_the_new_file_back_into_the_stage() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"old");
    let content = staged(&folder, b"new");
    let outcome = run_with(&folder, place("a", content, Some(expect)), |step| {
        if step == Step::InSlot {
            std::fs::remove_file(folder.at("a")).unwrap();
        }
    });
    assert_eq!(outcome, Outcome::Changed);
    assert_eq!(stage::staged(&folder.open).unwrap(), [(content, 0)]);
    assert_eq!(all_texts(&folder), ["new", "test\n"]);
}

#[test]
fn a_name_taken_at_the_moment_of_placing_stays_the_users() {
    let folder = Folder::new();
    let content = staged(&folder, b"new");
    let outcome = run_with(&folder, place("a", content, None), |step| {
        if step == Step::Checked {
            folder.write("a", b"users");
        }
    });
    assert_eq!((outcome, folder.text("a")), (Outcome::Changed, "users".into()));
    assert_eq!(stage::staged(&folder.open).unwrap(), [(content, 0)]);
}

#[test]
fn a_removed_file_is_in_history() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"old");
    let outcome = run(&folder, Action::Remove { path: path("a"), expect });
    let Outcome::Done { disk: None, displaced: Some(slot), conflict: None, rescued: None } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((slot_text(&folder, &slot), folder.look("a")), ("old".into(), None));
}

#[test]
fn an_edit_at_the_moment_of_a_removal_comes_back() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"old");
    let edit = |step| {
        if step == Step::Checked {
            folder.write("a", b"edited")
        }
    };
    assert_eq!(run_with(&folder, Action::Remove { path: path("a"), expect }, edit), Outcome::Changed);
    assert_eq!(folder.text("a"), "edited");

    let expect = old(&folder, "b", b"old");
    let twice = |step| match step {
        Step::Checked => folder.write("b", b"edited once"),
        Step::Swapped => folder.write("b", b"edited twice"),
        _ => {}
    };
    assert_eq!(run_with(&folder, Action::Remove { path: path("b"), expect }, twice), Outcome::Changed);
    assert_eq!(folder.text("b"), "edited twice");
    assert!(all_texts(&folder).contains(&"edited once".into()));
}

#[test]
fn files_links_and_directories_take_each_others_places() {
    let folder = Folder::new();
    let file = old(&folder, "a", b"file");
    let link = Action::PlaceSymlink {
        path: path("a"),
        target: b"some/where"[..].into(),
        mtime_ns: MTIME_NS,
        expect: Some(file),
    };
    let disk = done_disk(&run(&folder, link));
    assert_eq!((disk.kind, disk.mtime_ns), (DiskKind::Symlink, MTIME_NS));
    assert_eq!(std::fs::read_link(folder.at("a")).unwrap().to_str(), Some("some/where"));

    let link = expected(&folder, "a");
    let directory = Action::CreateDirectory { path: path("a"), mode: 0o750, expect: Some(link) };
    let disk = done_disk(&run(&folder, directory));
    assert_eq!((disk.kind, disk.mode), (DiskKind::Directory, 0o750));

    let directory = Expected { disk, content: None, displace: Displace::History };
    let content = staged(&folder, b"again");
    folder.write("a/inside", b"users");
    assert_eq!(run(&folder, place("a", content, Some(directory.clone()))), Outcome::NotEmpty);
    std::fs::remove_file(folder.at("a/inside")).unwrap();
    assert_eq!(done_disk(&run(&folder, place("a", content, Some(directory)))).kind, DiskKind::File);
    assert_eq!(folder.text("a"), "again");
    assert!(all_texts(&folder).contains(&"file".into()));
}

#[test]
fn directories_are_made_and_removed_only_when_empty() {
    let folder = Folder::new();
    let make = |name: &str| Action::CreateDirectory { path: path(name), mode: 0o500, expect: None };
    let batch = vec![(1, make("d")), (2, make("d/e"))];
    let outcomes = apply(&folder.open, &CONTEXT, batch).outcomes;
    // The owner can always work in it.
    assert!(outcomes.iter().all(|(_, o)| done_disk(o).mode == 0o700), "{outcomes:?}");
    let remove = |name: &str| Action::RemoveDirectory { path: path(name) };
    assert_eq!(run(&folder, remove("d")), Outcome::NotEmpty);
    let outcomes = apply(&folder.open, &CONTEXT, vec![(1, remove("d/e")), (2, remove("d")), (3, remove("d"))]).outcomes;
    assert!(outcomes.iter().all(|(_, o)| matches!(o, Outcome::Done { disk: None, .. })), "{outcomes:?}");
}

#[test]
fn a_move_keeps_the_file_and_overwrites_nothing() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"moved");
    folder.write("taken", b"users");
    let go = |to: &str| Action::Move {
        from: path("a"),
        to: path(to),
        expect: expect.disk,
        mtime_ns: expect.disk.mtime_ns,
        mode: 0o600,
    };
    assert_eq!(run(&folder, go("taken")), Outcome::Changed);
    let outcome = run(&folder, go("b"));
    assert_eq!((Some(done_disk(&outcome)), folder.text("b")), (folder.look("b"), "moved".into()));
    assert_eq!((done_disk(&outcome).mode, folder.look("a")), (0o600, None));
}

#[test]
fn an_edit_at_the_moment_of_a_move_goes_along_and_is_reported() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"moved");
    let go = Action::Move { from: path("a"), to: path("b"), expect: expect.disk, mtime_ns: 5, mode: 0o644 };
    let outcome = run_with(&folder, go, |step| {
        if step == Step::Checked {
            folder.write("a", b"edited");
        }
    });
    assert!(matches!(&outcome, Outcome::Done { rescued: Some(r), .. } if *r == path("b")), "{outcome:?}");
    assert_eq!(folder.text("b"), "edited");
    assert_ne!(folder.look("b").unwrap().mtime_ns, 5);
}

#[test]
fn metadata_is_set_to_the_nanosecond_without_special_bits() {
    let folder = Folder::new();
    let expect = old(&folder, "a", b"x");
    let set = Action::SetMetadata { path: path("a"), expect: expect.disk, mtime_ns: MTIME_NS, mode: 0o4755 };
    run(&folder, set);
    let meta = std::fs::metadata(folder.at("a")).unwrap();
    assert_eq!((meta.mtime_nsec(), meta.permissions().mode() & 0o7777), (123_456_789, 0o755));
    symlink("nowhere", folder.at("l")).unwrap();
    let expect = folder.look("l").unwrap();
    let set = Action::SetMetadata { path: path("l"), expect, mtime_ns: -5, mode: 0o755 };
    assert_eq!(done_disk(&run(&folder, set)).mtime_ns, -5);
}

#[test]
fn a_symlink_planted_as_a_parent_is_not_followed() {
    let folder = Folder::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path(), folder.at("d")).unwrap();
    let content = staged(&folder, b"new");
    let in_the_way = |o: Outcome| matches!(o, Outcome::Failed(p) if p.kind == ProblemKind::InTheWay);
    assert!(in_the_way(run(&folder, place("d/new", content, None))));
    assert!(in_the_way(run(&folder, Action::CreateDirectory { path: path("d/e"), mode: 0o755, expect: None })));
    assert_eq!(folder.look("d/secret"), None);
    let stat = std::fs::metadata(outside.path().join("secret")).unwrap();
    let disk = DiskState {
        kind: DiskKind::File,
        size: 6,
        mtime_ns: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
        ctime_ns: 0,
        inode: stat.ino(),
        mode: 0o644,
    };
    let expect = Expected { disk, content: None, displace: Displace::History };
    assert_eq!(run(&folder, Action::Remove { path: path("d/secret"), expect }), Outcome::Changed);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_missing_or_short_staged_file_is_reported() {
    let folder = Folder::new();
    let content = Content::of_chunk(b"never came");
    assert_eq!(run(&folder, place("a", content, None)), Outcome::NotStaged);
    std::fs::write(folder.at(".p2psync/stage").join(stage::stage_name(content, 0)), b"short").unwrap();
    assert_eq!(run(&folder, place("a", content, None)), Outcome::NotStaged);
}

#[test]
fn an_empty_file_needs_no_stage_and_copies_are_told_apart() {
    let folder = Folder::new();
    let done = run(&folder, place("empty", Content::of_chunk(b""), None));
    assert_eq!((done_disk(&done).size, folder.text("empty").as_str()), (0, ""));
    let content = staged(&folder, b"first");
    let of_second = |name: &str| match place(name, content, None) {
        Action::PlaceFile { path, content, mtime_ns, mode, expect, .. } => {
            Action::PlaceFile { path, content, copy: 1, mtime_ns, mode, expect }
        }
        other => other,
    };
    assert_eq!(run(&folder, of_second("a")), Outcome::NotStaged);
    stage::stage_small(&folder.open, content, 1, b"first").unwrap();
    let outcomes = apply(&folder.open, &CONTEXT, vec![(1, place("a", content, None)), (2, of_second("b"))]).outcomes;
    assert!(outcomes.iter().all(|(_, outcome)| done_disk(outcome).size == 5));
    assert_eq!((folder.text("a"), folder.text("b")), ("first".into(), "first".into()));
    assert_eq!(std::fs::read_dir(folder.at(".p2psync/stage")).unwrap().count(), 0);
}

#[test]
fn one_content_goes_to_many_places_and_no_failure_stops_the_rest() {
    let folder = Folder::new();
    let content = staged(&folder, b"same");
    let mut batch = vec![(0, place("no/directory/here", content, None))];
    batch.extend((1..50).map(|i| (i, place(&format!("f{i}"), content, None))));
    let outcomes = apply(&folder.open, &CONTEXT, batch).outcomes;
    assert!(matches!(outcomes[0], (0, Outcome::Failed(_))));
    for (work, outcome) in &outcomes[1..] {
        assert_eq!(Some(done_disk(outcome)), folder.look(&format!("f{work}")));
        assert_eq!(done_disk(outcome).mtime_ns, MTIME_NS);
    }
    assert_eq!(std::fs::read_dir(folder.at(".p2psync/stage")).unwrap().count(), 0);
}

#[test]
fn names_that_are_hard_to_handle_are_handled() {
    let folder = Folder::new();
    let long = [b'n'; 255];
    for name in [&b"line\nbreak"[..], b"\xff\xfe", &long, b"-rf ~", "ü".repeat(127).as_bytes()] {
        let path = RelPath::parse(name).unwrap();
        let content = staged(&folder, name);
        let place = |expect| Action::PlaceFile {
            path: path.clone(),
            content,
            copy: 0,
            mtime_ns: MTIME_NS,
            mode: 0o644,
            expect,
        };
        let disk = done_disk(&run(&folder, place(None)));
        let expect = Expected { disk, content: Some(content.id), displace: Displace::History };
        staged(&folder, name);
        let outcome = run(&folder, place(Some(expect)));
        assert!(matches!(outcome, Outcome::Done { displaced: Some(_), .. }), "{outcome:?}");
    }
}

#[test]
fn a_tree_deeper_than_any_path_that_the_system_takes_works() {
    let folder = Folder::new();
    let name = "d".repeat(200);
    let mut deep = path(&name);
    let mut batch = Vec::new();
    while deep.as_bytes().len() < 6000 {
        batch.push((batch.len() as u64, Action::CreateDirectory { path: deep.clone(), mode: 0o755, expect: None }));
        deep = deep.join(name.as_bytes()).unwrap();
    }
    let old = staged(&folder, b"old");
    let action = |content, expect| Action::PlaceFile {
        path: deep.clone(),
        content,
        copy: 0,
        mtime_ns: MTIME_NS,
        mode: 0o644,
        expect,
    };
    batch.push((1000, action(old, None)));
    let outcomes = apply(&folder.open, &CONTEXT, batch).outcomes;
    let disk = done_disk(&outcomes[outcomes.len() - 1].1);
    assert_eq!(folder.open.look(&deep).unwrap(), Some(disk));
    let new = staged(&folder, b"new!");
    let expect = Expected { disk, content: Some(old.id), displace: Displace::History };
    let outcome = run(&folder, action(new, Some(expect)));
    let Outcome::Done { displaced: Some(slot), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(history::look(&folder.open, &slot.name).unwrap().map(|s| s.size), Some(3));
    assert_eq!(folder.open.look(&deep).unwrap().map(|s| s.size), Some(4));
    // Too deep for the removal by path that the temporary directory uses.
    remove_deep(&folder);
}

fn remove_deep(folder: &Folder) {
    let status = std::process::Command::new("rm").arg("-rf").arg(folder.root.path()).status();
    assert!(status.unwrap().success());
}

#[test]
fn files_that_stand_where_the_history_needs_directories_are_no_obstacle() {
    let folder = Folder::new();
    std::fs::write(folder.at(".p2psync/history/d"), b"an older slot").unwrap();
    let expect = old(&folder, "d/a", b"old");
    let outcome = run(&folder, Action::Remove { path: path("d/a"), expect });
    let Outcome::Done { displaced: Some(slot), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((slot_text(&folder, &slot), slot.name.parent()), ("old".into(), None));
}

#[test]
fn a_swap_cut_off_at_any_step_loses_nothing() {
    for at in [Step::Prepared, Step::Checked, Step::InSlot, Step::Swapped, Step::Settled] {
        let folder = Folder::new();
        let expect = old(&folder, "a", b"old");
        let content = staged(&folder, b"new");
        let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_with(&folder, place("a", content, Some(expect)), |step| assert_ne!(step, at));
        }));
        assert!(cut.is_err());
        assert_eq!(all_texts(&folder), ["new", "old", "test\n"], "{at:?}");
        assert!(["old", "new"].contains(&&*folder.text("a")));
    }
}

#[test]
fn where_the_system_cannot_swap_two_renames_do_it_and_nothing_is_overwritten() {
    for taken in [false, true] {
        let folder = Folder::new();
        let expect = old(&folder, "a", b"old");
        folder.write(".p2psync/history/fresh", b"new");
        let mut at = |_: Step, _: &RelPath| {};
        let mut batch = batch(&folder, &mut at);
        let (name, target) = (path("fresh"), folder.open.place(Area::Tree, &path("a")).unwrap());
        let mut fresh = swap::InSlot { place: folder.open.place(Area::History, &name).unwrap(), name };
        if taken {
            // As if the new file could not be put there: the old one comes back.
            fresh.place.name = b"missing"[..].into();
        }
        let moved = batch.swap_in_two(&path("a"), &fresh, &target, &expect);
        assert_eq!(moved.is_ok(), !taken);
        assert_eq!(folder.text("a"), if taken { "old" } else { "new" });
        assert_eq!(all_texts(&folder), ["new", "old", "test\n"]);
    }
}

#[test]
fn where_a_rename_may_replace_a_move_goes_through_history() {
    let folder = Folder::new();
    old(&folder, "a", b"moved");
    folder.write("taken", b"users");
    let mut at = |_: Step, _: &RelPath| {};
    let mut batch = batch(&folder, &mut at);
    let place = |name: &str| folder.open.place(Area::Tree, &path(name)).unwrap();
    let mut go = |to: &str| batch.rename_through_history(&path("a"), &place("a"), &place(to));
    assert_eq!(go("taken"), Err(Errno::EXIST));
    assert_eq!((folder.text("a"), folder.text("taken")), ("moved".into(), "users".into()));
    assert_eq!(go("b"), Ok(()));
    assert_eq!(all_texts(&folder), ["moved", "test\n", "users"]);
    assert_eq!((folder.text("b"), folder.look("a")), ("moved".into(), None));
}
