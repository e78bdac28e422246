//! What makes an execution of a trigger recognisable.
//!
//! The engine keeps the highest number of each source and drops what is not above it. So each slot and each record has a
//! source and a number that depend on nothing but themselves; whoever submits it, and how often, it counts once.
//!
//! A source names what its numbers count, by a mark: numbers of one topic or schedule mean nothing in another. So a
//! trigger whose schedule, zone or topic changes begins anew, and one whose input or workflow changes goes on.

use nova_engine::ids::{ExecutionId, ShardId};
use xxhash_rust::xxh3::Xxh3;

use crate::spec::{Cron, Kafka};

/// Something whose numbers only grow, within a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(String);

impl Source {
    /// Slots of a schedule; their number is their time in milliseconds.
    #[must_use]
    pub fn of_cron(id: &str, cron: &Cron) -> Self {
        let mark = mark(&["cron", cron.schedule.pattern(), cron.schedule.timezone()]);
        Self(format!("{id}@{mark:08x}"))
    }

    /// Records of one partition; see [`number_of_offset`].
    #[must_use]
    pub fn of_kafka(id: &str, kafka: &Kafka, partition: u32) -> Self {
        let mark = mark(&["kafka", &kafka.topic]);
        Self(format!("{id}@{mark:08x}/{partition}"))
    }

    /// One that was read in a command.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name, as the engine knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn mark(parts: &[&str]) -> u32 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    (hasher.digest() >> 32) as u32
}

/// The number of a record: that of the record behind it. So the position of a source is where to read on, and the end of
/// an empty partition is a position too.
#[must_use]
pub fn number_of_offset(offset: u64) -> u64 {
    offset + 1
}

/// Where to read on from a position.
#[must_use]
pub fn offset_of_position(last: u64) -> u64 {
    last
}

/// The shard of a source: the same hash as that of an idempotency key (protocol rule 30).
#[must_use]
pub fn shard_of(namespace: &str, source: &Source, shards: u16) -> ShardId {
    let mut hasher = Xxh3::new();
    hasher.update(namespace.as_bytes());
    hasher.update(&[0]);
    hasher.update(source.0.as_bytes());
    ShardId((hasher.digest() % u64::from(shards.max(1))) as u16)
}

/// The execution of a slot or record; the same for every repeat. `at_ms` is the slot, or the time of the record.
#[must_use]
pub fn execution_id(shard: ShardId, namespace: &str, source: &Source, number: u64, at_ms: u64) -> ExecutionId {
    let mut hasher = Xxh3::new();
    for part in [namespace, &source.0] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(&number.to_le_bytes());
    ExecutionId::new(shard, at_ms, hasher.digest())
}
