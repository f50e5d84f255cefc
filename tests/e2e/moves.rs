//! What is moved is renamed by the others: its bytes are neither sent, nor read, nor written again.

use std::fs;

use crate::harness::{Agent, World, wait_settled, wait_until};
use crate::tree;

/// Bytes that the agent has read and written, from and to files and sockets alike.
fn bytes_moved(agent: &Agent) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.pid())).unwrap();
    let count = |name| io.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<u64>().unwrap();
    count("rchar: ") + count("wchar: ")
}

#[test]
fn a_directory_that_is_moved_is_neither_sent_nor_read_nor_copied() {
    const FILES: u64 = 1500;
    const BYTES: usize = 40_000;
    let world = World::new();
    let (a, b) = world.pair();
    for n in 0..FILES {
        a.write(&format!("photos/{}/{n}", n % 7), tree::noise(n, BYTES));
    }
    a.write("photos/film", tree::noise(9999, 6_000_000));
    wait_settled(&[&a, &b]);
    let all = FILES * BYTES as u64 + 6_000_000;
    let (in_before, moved) = (b.bytes_in(), [bytes_moved(&a), bytes_moved(&b)]);
    fs::rename(a.at("photos"), a.at("pictures")).unwrap();
    wait_until("the move has arrived", || match b.at("pictures/film").exists() && !b.at("photos").exists() {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    wait_settled(&[&a, &b]);
    assert_eq!(tree::nodes(&a.root).unwrap(), tree::nodes(&b.root).unwrap());
    assert!(b.bytes_in() - in_before < 1 << 20, "{} bytes came over the wire", b.bytes_in() - in_before);
    // What is read and written is the index, with its log.
    for (agent, before) in [&a, &b].into_iter().zip(moved) {
        let moved = bytes_moved(agent) - before;
        println!("{} read and wrote {moved} bytes", agent.name);
        assert!(moved < all / 4, "{} read and wrote {moved} bytes, the files have {all}", agent.name);
    }
}
