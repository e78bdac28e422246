//! Each file of the corpus, and what becomes of it when it is changed a little.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nova_hostile::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// For changed bytes of all targets together.
const TIME: Duration = Duration::from_secs(6);
/// Longest time for one input, in a debug build on a busy machine: above it something hangs.
const LONG: Duration = Duration::from_secs(20);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn check(what: &str, target: Target, bytes: &[u8]) {
    let begun = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!("{what} does not hold for {bytes:?}");
    }
    assert!(begun.elapsed() < LONG, "{what} takes {:?} for {bytes:?}", begun.elapsed());
}

#[test]
fn it_holds_for_each_file_of_the_corpus() {
    for &(name, target) in TARGETS {
        let files = files(name);
        assert!(!files.is_empty(), "{name} has no corpus");
        check(name, target, b"");
        for (file, bytes) in files {
            check(&file, target, &bytes);
        }
    }
    let known = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unknown: Vec<_> = known.filter(|name| !TARGETS.iter().any(|(target, _)| target == name)).collect();
    assert!(unknown.is_empty(), "no target for {unknown:?}");
}

/// Bits, bytes, numbers at the edge, pieces left out, doubled or taken from another file.
fn change(random: &mut StdRng, bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    const EDGES: [&[u8]; 7] = [&[0], &[0xff], &[0x7f], &[0x80], &[0xff; 4], &[0xff, 0xff, 0xff, 0x7f], &[0xff; 8]];
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let at = random.random_range(0..bytes.len());
        let upto = (at + random.random_range(1..40)).min(bytes.len());
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..upto)),
            3 => drop(bytes.splice(at..at, bytes[at..upto].to_vec())),
            4 => drop(bytes.splice(at..upto, EDGES[random.random_range(0..EDGES.len())].to_vec())),
            5 => bytes.truncate(at),
            _ => {
                let other = &others[random.random_range(0..others.len())].1;
                let from = random.random_range(0..=other.len());
                let upto = (from + random.random_range(0..60)).min(other.len());
                drop(bytes.splice(at..at, other[from..upto].to_vec()));
            }
        }
    }
}

/// `NOVA_HOSTILE_SEED` repeats a run.
#[test]
fn it_holds_for_what_is_changed_a_little() {
    let seed = std::env::var("NOVA_HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("NOVA_HOSTILE_SEED={seed}");
    for &(name, target) in TARGETS {
        let mut random = StdRng::seed_from_u64(seed);
        let files = files(name);
        let begun = Instant::now();
        while begun.elapsed() < TIME / TARGETS.len() as u32 {
            let mut bytes = files[random.random_range(0..files.len())].1.clone();
            change(&mut random, &mut bytes, &files);
            check(&format!("{name} of seed {seed}"), target, &bytes);
        }
    }
}
