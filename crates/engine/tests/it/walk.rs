//! Random walks: whatever is said to the engine, in whatever order, what must hold holds, and everything ends.

use std::collections::BTreeMap;

use nova_engine::{Config, State};
use proptest::prelude::*;

use crate::rig::Rig;
use crate::walker::walk;

fn replay(rig: &Rig) -> State {
    let mut state = State::new(Config { shards: 2 });
    for entry in &rig.log {
        state.apply(entry);
    }
    state
}

fn tape_of(length: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 20..length)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    })]

    /// Invariants at each entry, gapless events, one end, tokens that only grow, and an end for everything; and the same
    /// log gives the same state.
    #[test]
    fn a_walk_keeps_what_must_hold_and_ends(bytes in tape_of(600)) {
        let (rig, _) = walk(&bytes);
        let again = replay(&rig);
        prop_assert_eq!(again.hash(), rig.state.hash());
        prop_assert!(again == rig.state);
    }
}

#[test]
#[ignore = "prints a walk: WALK=hex cargo test -p nova-engine --test it one_walk -- --ignored --nocapture"]
fn one_walk() {
    let hex = std::env::var("WALK").expect("WALK=byte,byte,…");
    let bytes: Vec<u8> = hex.split(',').map(|byte| byte.trim().parse().expect("a byte")).collect();
    walk(&bytes);
}

/// Walks that reach nothing find nothing: each of these situations must come up.
#[test]
fn walks_reach_what_they_are_for() {
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    let mut seed = 1_u64;
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..600)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect();
        for (name, count) in walk(&bytes).1 {
            *reached.entry(name).or_default() += count;
        }
    }
    let wanted = [
        "Assign",
        "Revoke",
        "StaleToken",
        "Reply Accepted",
        "Reply Rejected",
        "Reply Finished",
        "ScopeEntered",
        "NodeStarted",
        "AttemptStarted",
        "AttemptFailed task.bad",
        "AttemptFailed timeout.attempt",
        "AttemptFailed worker.lost",
        "AttemptFailed worker.released",
        "NodeFailed timeout.queue",
        "NodeFailed timeout.total",
        "NodeFailed worker.lost",
        "NodeFailed expression.type",
        "Handled",
        "Degraded",
        "NodeSkipped",
        "NodeCancelled",
        "VarSet",
        "CancelRequested",
        "Rejected",
        "Ended Completed",
        "Ended Failed",
        "Ended Cancelled",
        "Parked",
    ];
    let missing: Vec<_> = wanted.iter().filter(|name| reached.get(**name).is_none_or(|n| *n < 5)).collect();
    assert!(missing.is_empty(), "hardly reached: {missing:?} in {reached:#?}");
}
