//! Files that are written for long while they are synced.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{World, wait_settled, wait_until};
use crate::trouble::wait_file;

/// How long the writers write.
const WRITING: Duration = Duration::from_secs(8);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(3);
/// Blocks of the file that is rewritten in place, and their size in bytes.
const BLOCKS: usize = 512;
const BLOCK_BYTES: usize = 4096;

/// One line of a file that only grows; tells its place, so that a prefix can be told from anything else.
fn line(number: usize) -> Vec<u8> {
    format!("line {number:08}\n").into_bytes()
}

/// What is seen of a file that only grows is a beginning of it, whole lines or not.
fn check_beginning(seen: &[u8]) {
    for (number, found) in seen.chunks(line(0).len()).enumerate() {
        assert_eq!(found, &line(number)[..found.len()], "line {number}");
    }
}

/// Rounds of the blocks of a file that is rewritten from its beginning to its end, again and again: at any instant the
/// first so many blocks are of one round and the others of the round before.
fn rounds(seen: &[u8]) -> Vec<u64> {
    assert_eq!(seen.len(), BLOCKS * BLOCK_BYTES, "a file of another length was seen");
    let rounds = seen.chunks(BLOCK_BYTES).map(|block| {
        let round = u64::from_le_bytes(block[..8].try_into().unwrap());
        assert!(block.chunks(8).all(|word| word == round.to_le_bytes()), "a torn block");
        round
    });
    let rounds: Vec<u64> = rounds.collect();
    let is_one_instant = rounds.is_sorted_by(|a, b| a >= b) && rounds[0] - rounds[BLOCKS - 1] <= 1;
    assert!(is_one_instant, "a mixture that the writer never had: {rounds:?}");
    rounds
}

fn block(round: u64) -> Vec<u8> {
    round.to_le_bytes().repeat(BLOCK_BYTES / 8)
}

#[test]
fn files_written_without_a_pause_hold_up_nothing_and_are_never_seen_torn() {
    let world = World::new();
    let (a, b) = world.pair();
    let start: Vec<u8> = (0..BLOCKS).flat_map(|_| block(0)).collect();
    a.write("rewritten", &start);
    wait_file(&b, "rewritten", &start);
    let is_over = AtomicBool::new(false);
    let (grown, last) = thread::scope(|scope| {
        let grower = scope.spawn(|| grow(&a.at("log")));
        let rewriter = scope.spawn(|| rewrite(&a.at("rewritten")));
        let watcher = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(seen) = fs::read(b.at("log")) {
                    check_beginning(&seen);
                }
                rounds(&fs::read(b.at("rewritten")).unwrap());
                thread::sleep(PAUSE);
            }
        });
        for i in 0..20 {
            a.write(&format!("other {i}"), format!("{i}"));
            wait_file(&b, &format!("other {i}"), format!("{i}").as_bytes());
        }
        assert!(!grower.is_finished(), "other files waited for the busy ones");
        let ended = (grower.join().unwrap(), rewriter.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        ended
    });
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("log").len(), grown * line(0).len());
    assert!(rounds(&b.read("rewritten")).iter().all(|round| *round == last));
    assert_eq!(crate::tree::conflict_copies(&b.root), Vec::<String>::new());
    wait_until("no problem is left", || match a.folder()?.problems_total {
        0 => Ok(()),
        problems => Err(format!("{problems} problems")),
    });
}

/// Appends lines; how many.
fn grow(path: &Path) -> usize {
    let (begun, mut file, mut lines) = (Instant::now(), File::create(path).unwrap(), 0);
    while begun.elapsed() < WRITING {
        file.write_all(&line(lines)).unwrap();
        lines += 1;
        thread::sleep(PAUSE);
    }
    lines
}

/// Rewrites all blocks in order, again and again; the last round.
fn rewrite(path: &Path) -> u64 {
    let (begun, file, mut round) = (Instant::now(), File::options().write(true).open(path).unwrap(), 0);
    while begun.elapsed() < WRITING {
        round += 1;
        for at in 0..BLOCKS {
            file.write_all_at(&block(round), (at * BLOCK_BYTES) as u64).unwrap();
            if at % 16 == 0 {
                thread::sleep(PAUSE);
            }
        }
    }
    round
}
