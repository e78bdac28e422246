//! Snapshots of a state whose executions wait for their workers.

use std::hint::black_box;

use super::{Part, Work, plain};
use crate::shard::Shard;

/// Executions in the state.
const EXECUTIONS: usize = 1_000;

pub(super) const PARTS: [Part; 2] = [
    Part { name: "snapshot-write", per: "execution", operations: EXECUTIONS as u64, prepare: write },
    Part { name: "snapshot-read", per: "execution", operations: EXECUTIONS as u64, prepare: read },
];

fn filled() -> Shard {
    let mut shard = Shard::new(1, EXECUTIONS as u32);
    let commands = shard.submissions(EXECUTIONS);
    let proposal = shard.proposal(commands);
    let entry = shard.proposed(proposal);
    shard.apply(&entry);
    shard
}

fn write() -> Box<dyn Work> {
    let shard = filled();
    let mut bytes = Vec::new();
    plain(move || {
        bytes.clear();
        nova_wire::write_snapshot(black_box(shard.state()), &mut bytes).expect("a vector takes it");
    })
}

fn read() -> Box<dyn Work> {
    let mut bytes = Vec::new();
    nova_wire::write_snapshot(filled().state(), &mut bytes).expect("a vector takes it");
    plain(move || {
        black_box(nova_wire::read_snapshot(&mut &black_box(&bytes)[..]).expect("it was written here"));
    })
}
