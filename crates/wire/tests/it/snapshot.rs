//! Snapshots: what is read is what was written, whole or not at all.

use std::fs;
use std::path::Path;

use nova_engine::input::Entry;
use nova_engine::state::{Phase, Timer};
use nova_engine::{Config, State};
use nova_wire::{
    SNAPSHOT_VERSION, SnapshotError, WireError, read_snapshot, snapshot_to_wire, state_from_wire, write_snapshot,
};
use proptest::prelude::*;

use crate::walker::walk;

fn replay(state: &mut State, log: &[Entry]) {
    for entry in log {
        state.apply(entry);
    }
}

fn written(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_snapshot(state, &mut bytes).expect("a vector takes it");
    bytes
}

/// A tape from a seed, for tests that need one good walk rather than many.
fn tape(mut seed: u64, length: usize) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// How much of what a snapshot can hold a state has.
fn richness(state: &State) -> usize {
    let shard = &state.shards[0];
    let executions: Vec<_> = shard.executions.iter(&state.catalogue.versions).map(|(_, execution)| execution).collect();
    let scopes = || executions.iter().flat_map(|execution| execution.scopes.values());
    let timers: Vec<_> = state.timers.iter().map(|(_, timer)| timer).collect();
    let records = || scopes().flat_map(|scope| scope.nodes.iter());
    let leases = || state.workers.all.iter().flat_map(|worker| worker.leases.values());
    let has = [
        shard.executions.len() > 2,
        !shard.keys.is_empty(),
        shard.keys.values().any(|key| key.until.is_some()),
        !shard.sources.is_empty(),
        !shard.offers.is_empty(),
        shard.outbox.acked.0 > 0 && !shard.outbox.messages.is_empty(),
        !state.queue.is_empty(),
        leases().any(|lease| lease.revoking),
        leases().any(|lease| !lease.revoking),
        scopes().any(|scope| scope.parent.is_some()),
        scopes().any(|scope| matches!(scope.phase, Phase::Output(_))),
        scopes().any(|scope| matches!(scope.phase, Phase::Stopping(_))),
        scopes().any(|scope| !scope.held.is_empty()),
        scopes().any(|scope| scope.vars.iter().any(|var| var.version > 0)),
        records().any(|record| record.failure.is_some()),
        records().any(|record| record.output.is_some()),
        records().any(|record| record.after_stop.is_some()),
        timers.iter().any(|timer| matches!(timer, Timer::Node(..))),
        timers.iter().any(|timer| matches!(timer, Timer::NodeTotal(..))),
        timers.iter().any(|timer| matches!(timer, Timer::Execution(..))),
        timers.iter().any(|timer| matches!(timer, Timer::Key(..))),
    ];
    has.into_iter().filter(|it| *it).count()
}

/// The richest moment of some walks.
fn busy(seeds: std::ops::Range<u64>) -> State {
    let mut best = State::new(Config { shards: 2 });
    for seed in seeds {
        let (rig, _) = walk(&tape(seed, 900));
        let mut state = State::new(Config { shards: 2 });
        for entry in &rig.log {
            state.apply(entry);
            if richness(&state) > richness(&best) {
                best = state.clone();
            }
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// At any moment of any walk; and what follows comes to the same on both.
    #[test]
    fn a_state_survives_its_snapshot(bytes in proptest::collection::vec(any::<u8>(), 50..500), at in 0.0..1.0_f64) {
        let (rig, _) = walk(&bytes);
        let cut = (rig.log.len() as f64 * at) as usize;
        let mut state = State::new(Config { shards: 2 });
        replay(&mut state, &rig.log[..cut]);
        let mut restored = read_snapshot(&mut written(&state).as_slice()).expect("it was written just now");
        prop_assert!(restored == state);
        prop_assert_eq!(restored.hash(), state.hash());
        crate::invariants::check(&restored);
        replay(&mut restored, &rig.log[cut..]);
        prop_assert!(restored == rig.state);
        prop_assert_eq!(restored.hash(), rig.state.hash());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    /// A copy that is written while its state goes on is the state of its entry.
    #[test]
    fn a_snapshot_is_of_its_moment(bytes in proptest::collection::vec(any::<u8>(), 50..500), at in 0.0..1.0_f64) {
        let (rig, _) = walk(&bytes);
        let cut = (rig.log.len() as f64 * at) as usize;
        let mut state = State::new(Config { shards: 2 });
        replay(&mut state, &rig.log[..cut]);
        let (copy, before) = (state.clone(), written(&state));
        let mut chunks = snapshot_to_wire(&copy);
        let mut read = Vec::from_iter(chunks.next());
        replay(&mut state, &rig.log[cut..]);
        read.extend(chunks);
        let restored = state_from_wire(read).expect("it is whole");
        prop_assert!(restored == copy && written(&restored) == before);
        prop_assert!(state == rig.state);
    }
}

#[test]
fn a_large_state_is_cut_into_chunks() {
    let mut state = busy(0..5);
    let execution = state.shards[0].executions.iter(&state.catalogue.versions).next();
    let (_, execution) = execution.expect("the walk leaves an execution open");
    for n in 0..30_000 {
        let mut copy = (*execution).clone();
        copy.id.0 += (1 + n) << 32;
        copy.offers.clear();
        std::sync::Arc::make_mut(&mut state.shards[0]).executions.insert(copy.into());
    }
    let chunks: Vec<_> = snapshot_to_wire(&state).collect();
    assert!(chunks.len() > 3, "{} chunks", chunks.len());
    assert!(chunks.iter().all(|chunk| prost::Message::encoded_len(chunk) < 2 << 20));
    assert!(state_from_wire(chunks.clone()).expect("it is whole") == state);
    // A chunk that is missing, or one more, is noticed.
    let without = chunks.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, chunk)| chunk.clone());
    assert!(state_from_wire(without).is_err());
    let twice =
        chunks.iter().enumerate().flat_map(|(at, chunk)| std::iter::repeat_n(chunk.clone(), 1 + usize::from(at == 2)));
    assert!(state_from_wire(twice).is_err());
    assert!(state_from_wire(chunks[..chunks.len() - 1].to_vec()).is_err());
    assert!(state_from_wire([]).is_err());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = written(&busy(0..5));
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(read_snapshot(&mut damaged.as_slice()).is_err(), "byte {at} is not covered");
        let cut = read_snapshot(&mut &bytes[..at]);
        assert!(matches!(cut, Err(SnapshotError::Io(_))), "cut at {at}: {cut:?}");
    }
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let mut chunks: Vec<_> = snapshot_to_wire(&busy(0..5)).collect();
    chunks[0].head.as_mut().expect("the first chunk has it").version = SNAPSHOT_VERSION + 1;
    let found = state_from_wire(chunks.clone());
    assert_eq!(found, Err(WireError::Newer { what: "Snapshot", found: 4, known: 3 }));
    chunks[0].head.as_mut().expect("the first chunk has it").version = SNAPSHOT_VERSION - 1;
    let error = state_from_wire(chunks).expect_err("it is read no more").to_string();
    assert_eq!(error, "version 2 of Snapshot is older than 3, and is read no more: start the build that wrote it");
}

#[test]
fn what_points_outside_is_refused() {
    let state = busy(0..5);
    type Change = fn(&mut nova_wire::v1::SnapshotChunk);
    // What is inside of packed executions is checked where they are unpacked.
    let changes: [Change; 9] = [
        |chunk| chunk.workflows.clear(),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.ids = vec![0xff; it.ids.len()].into()),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.ids = it.ids.slice(1..)),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.lengths[0] += 1),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.packed = it.packed.slice(1..)),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.packed = [&it.packed[..], b"x"].concat().into()),
        |chunk| chunk.executions.iter_mut().for_each(|it| it.ids = it.ids[..16].repeat(it.lengths.len()).into()),
        |chunk| chunk.shard.iter_mut().for_each(|it| it.id += 9),
        |chunk| chunk.messages.truncate(1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let chunks: Vec<_> = snapshot_to_wire(&state)
            .map(|mut chunk| {
                change(&mut chunk);
                chunk
            })
            .collect();
        assert!(state_from_wire(chunks).is_err(), "change {number} was taken");
    }
}

/// `cargo test --release -p nova-wire --test it cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, in release"]
fn cost_of_a_snapshot() {
    let mut state = busy(0..5);
    let execution = state.shards[0].executions.iter(&state.catalogue.versions).next();
    let (_, execution) = execution.expect("the walk leaves an execution open");
    for n in 0..200_000 {
        let mut copy = (*execution).clone();
        copy.id.0 += (1 + n) << 32;
        copy.offers.clear();
        std::sync::Arc::make_mut(&mut state.shards[0]).executions.insert(copy.into());
    }
    let begin = std::time::Instant::now();
    let bytes = written(&state);
    let writing = begin.elapsed();
    let begin = std::time::Instant::now();
    let restored = read_snapshot(&mut bytes.as_slice()).expect("it was written just now");
    let reading = begin.elapsed();
    assert!(restored == state);
    println!("200,000 executions: {} bytes, written in {writing:?}, read in {reading:?}", bytes.len());
}

/// A snapshot of version 2, written when it was new. Every later build must read it.
/// `NOVA_GOLDEN=1 cargo test -p nova-wire golden` writes it; never again once a release has written snapshots.
#[test]
fn the_golden_snapshot_of_version_3_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-3.bin");
    if std::env::var_os("NOVA_GOLDEN").is_some() {
        fs::write(&path, written(&busy(0..400))).expect("the sample can be written");
    }
    let bytes = fs::read(&path).expect("the sample is committed");
    let state = read_snapshot(&mut bytes.as_slice()).expect("version 3 is read for ever");
    assert!(richness(&state) >= 17, "the sample has {} of 21 kinds of things", richness(&state));
    crate::invariants::check(&state);
    let shard = &state.shards[0];
    let facts = [
        shard.executions.len(),
        shard.offers.len(),
        shard.outbox.messages.len(),
        state.workers.all.len(),
        state.timers.len(),
        state.queue.len() as usize,
        state.next_token as usize,
    ];
    assert_eq!(facts, GOLDEN);
    // What it says is still said in the same way.
    assert!(read_snapshot(&mut written(&state).as_slice()).expect("it was written just now") == state);
}

/// Executions, offers, messages, workers, timers, queued nodes, next token.
const GOLDEN: [usize; 7] = [9, 6, 62, 3, 17, 3, 46];
