//! Messages between the services: generated from `proto/`, and their conversion to and from the types of the core.
//!
//! Owns: the generated code, the record envelope with its checksum, every conversion, snapshots of the state.
//! Must not know: who sends what when, how it is carried or stored.

mod envelope;
mod error;
mod from_wire;
mod outbox;
mod program;
mod snapshot;
mod to_wire;
mod traced;

/// The generated code of package `nova.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("gen/nova.v1.rs");
}

/// The generated code of package `nova.raft.v1`.
#[allow(missing_docs, clippy::all)]
pub mod raft_v1 {
    include!("gen/nova.raft.v1.rs");
}

pub use envelope::{ClusterId, EnvelopeError, Opened, open, record_checksum, seal};
pub use error::WireError;
pub use from_wire::{
    check_entry_body, commands_from_wire, entry_body_from_wire, execution_id, lease_from_wire, payload_from_wire,
    program_from_wire,
};
pub use outbox::message_from_wire;
pub use program::program_to_wire;
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError, read_snapshot, snapshot_to_wire, state_from_wire, write_snapshot};
pub use to_wire::{
    applied_to_wire, execution_bytes, execution_state_to_wire, failure_to_wire, labels_to_wire, message_to_wire,
    node_state_to_wire, offer_to_wire, payload_to_wire, position_to_wire, refusal_to_wire, trace_to_wire,
    verdict_to_wire,
};
pub use traced::{Traced, TracedCommand, traced_commands};

use nova_engine::ids::ShardId;

/// The shard of a submission with a key: a hash of namespace and key (protocol rule 30).
#[must_use]
pub fn shard_of(namespace: &str, key: &str, shards: u16) -> ShardId {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(namespace.as_bytes());
    hasher.update(&[0]);
    hasher.update(key.as_bytes());
    ShardId((hasher.digest() % u64::from(shards.max(1))) as u16)
}
