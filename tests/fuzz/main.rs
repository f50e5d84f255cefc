//! The fuzzer's targets with every change: over the committed seeds, over seeds that were changed at random, and over
//! random bytes. See "Fuzzing" in `docs/testing.md`.

mod mutate;
mod seeds;
#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use targets::{ALL, Run};

/// Inputs of each kind per target; `FUZZ_CASES` makes more.
const CASES: u32 = 150;
/// Longest random input in bytes.
const RANDOM_BYTES_MAX: usize = 300;
/// Bytes of all seeds together, so that the repository stays small.
const SEEDS_BYTES_MAX: u64 = 300 * 1024;

/// Where the seeds of a target lie.
fn seeds_dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// The seeds of a target with their names, in order.
fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let listing = fs::read_dir(seeds_dir(target)).unwrap_or_else(|e| panic!("no seeds for {target}: {e}"));
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    let mut all: Vec<_> = listing.map(|entry| read(entry.unwrap())).collect();
    all.sort();
    all
}

fn settings() -> Config {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    Config { cases, max_shrink_iters: 2000, failure_persistence: None, ..Config::default() }
}

/// Runs a target over its seeds, over changed ones and over random bytes.
fn exercise(target: &str) {
    let (_, run): (_, Run) = ALL.into_iter().find(|(name, _)| *name == target).expect("a target of this name");
    let seeds = seeds_of(target);
    assert!(!seeds.is_empty());
    for (name, bytes) in &seeds {
        let outcome = std::panic::catch_unwind(|| run(bytes));
        assert!(outcome.is_ok(), "{target} fails for its seed {name}");
    }
    let changed = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), vec(mutate::mutation(), 1..6));
    let changed = changed.prop_map(|(one, other, mutations)| {
        let other = &seeds[other.index(seeds.len())].1;
        mutations.iter().fold(seeds[one.index(seeds.len())].1.clone(), |bytes, m| mutate::apply(bytes, other, m))
    });
    let check = |bytes: Vec<u8>| {
        run(&bytes);
        Ok(())
    };
    TestRunner::new(settings()).run(&changed, check).unwrap_or_else(|e| panic!("{target}, changed seeds: {e}"));
    let random = vec(any::<u8>(), 0..RANDOM_BYTES_MAX);
    TestRunner::new(settings()).run(&random, check).unwrap_or_else(|e| panic!("{target}, random bytes: {e}"));
}

macro_rules! exercises {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                exercise(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_exercised_and_has_a_program() {
            assert_eq!([$(stringify!($target)),*], ALL.map(|(name, _)| name));
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
            for (name, _) in ALL {
                assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "no program for {name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
            }
        }
    };
}

exercises!(announcement api code config frame greeting ignore list pairing path row slot stream value);

#[test]
fn the_seeds_are_small_in_all() {
    let sizes = ALL.iter().flat_map(|(name, _)| seeds_of(name)).map(|(_, bytes)| bytes.len() as u64);
    let total: u64 = sizes.sum();
    assert!(total <= SEEDS_BYTES_MAX, "{total} bytes");
}
