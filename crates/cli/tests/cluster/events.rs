//! What the event topic says of each execution.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_bus::{Bus, Topic};
use nova_bus_kafka::KafkaBus;
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde_json::Value;
use v1::execution_event::Kind;

/// What was told of one execution.
#[derive(Debug, Default)]
pub struct Told {
    pub accepted: u32,
    pub ends: u32,
    pub input: Value,
    events: u64,
}

/// Reads all event partitions from their beginning to their present end.
///
/// Panics where a shard's messages have a gap, one number has two contents, or an execution's events have a gap.
pub async fn read(bus: &KafkaBus, cluster: &str) -> BTreeMap<String, Told> {
    let cluster = ClusterId::of_name(cluster);
    let partitions = bus.partitions(&Topic::Events).await.unwrap().expect("there is an event topic");
    let mut reader = bus.reader().unwrap();
    let mut left = BTreeMap::new();
    for partition in 0..partitions {
        let offsets = bus.offsets(&Topic::Events, partition).await.unwrap();
        if !offsets.is_empty() {
            reader.assign(&Topic::Events, partition, offsets.start).unwrap();
            left.insert(partition, offsets.end);
        }
    }
    let mut messages: BTreeMap<u32, BTreeMap<u64, v1::OutboxMessage>> = BTreeMap::new();
    while !left.is_empty() {
        let batch = reader.next(Duration::from_secs(30)).await.unwrap().expect("the partition has more");
        for record in &batch.records {
            let opened = nova_wire::open(&record.value, cluster).unwrap();
            for message in v1::OutboxBatch::decode(opened.body).unwrap().messages {
                let shard = messages.entry(opened.shard).or_default();
                if let Some(first) = shard.insert(message.seq, message.clone()) {
                    assert_eq!(first, message, "one number of shard {} has two contents", opened.shard);
                }
            }
            if left.get(&batch.partition).is_some_and(|end| record.offset + 1 >= *end) {
                left.remove(&batch.partition);
            }
        }
    }
    let mut told = BTreeMap::new();
    for message in messages.into_values().flat_map(BTreeMap::into_values) {
        if let Some(v1::outbox_message::Body::Events(happened)) = message.body {
            take(&mut told, &happened);
        }
    }
    told
}

fn take(told: &mut BTreeMap<String, Told>, happened: &v1::ExecutionEvents) {
    let id: String = happened.execution.iter().map(|byte| format!("{byte:02x}")).collect();
    let it = told.entry(id).or_default();
    assert_eq!(happened.first_number, it.events + 1, "the events of an execution have no gap: {happened:?}");
    it.events += happened.events.len() as u64;
    for event in &happened.events {
        assert_eq!(it.ends, 0, "nothing follows the end: {happened:?}");
        match &event.kind {
            Some(Kind::Accepted(accepted)) => {
                it.accepted += 1;
                if let Some(v1::payload::Kind::Inline(input)) = accepted.input.as_ref().and_then(|it| it.kind.as_ref())
                {
                    it.input = serde_json::from_slice(input).unwrap();
                }
            }
            Some(Kind::Ended(_)) => it.ends += 1,
            _ => {}
        }
    }
}
