//! What each shard said, by number, and whether readers that follow the protocol hear all of it (rules 8, 10, 12).

use std::collections::{BTreeMap, BTreeSet};

use nova_wire::v1::outbox_message::Body;
use nova_wire::{ClusterId, v1};
use prost::Message;

use crate::{Findings, History, Topic};

/// Messages of all shards.
pub(crate) struct Outbox {
    /// By shard and number.
    pub messages: BTreeMap<(u32, u64), v1::OutboxMessage>,
    /// Messages that were there more than once.
    pub duplicates: usize,
    /// Leases that were refused.
    pub stale: usize,
}

pub(crate) fn read(history: &History, findings: &mut Findings) -> Outbox {
    let cluster = ClusterId::of_name(&history.cluster);
    let events = history.topics.keys().filter(|place| place.topic == Topic::Events).count().max(1) as u32;
    let mut outbox = Outbox { messages: BTreeMap::new(), duplicates: 0, stale: 0 };
    for (place, records) in history.topics.iter().filter(|(place, _)| place.topic != Topic::Commands) {
        let mut heard: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for (offset, record) in records.iter().enumerate() {
            let opened = match nova_wire::open(record, cluster) {
                Ok(opened) if opened.kind == v1::RecordKind::Outbox => opened,
                Ok(opened) => {
                    findings.add("G4", format!("{place:?} {offset}: a record of kind {:?}", opened.kind));
                    continue;
                }
                Err(error) => {
                    findings.add("G4", format!("{place:?} {offset}: {error}"));
                    continue;
                }
            };
            let batch = match v1::OutboxBatch::decode(opened.body) {
                Ok(batch) => batch,
                Err(error) => {
                    findings.add("G4", format!("{place:?} {offset}: {error}"));
                    continue;
                }
            };
            let heard = heard.entry(opened.shard).or_default();
            for message in batch.messages {
                let (shard, seq) = (opened.shard, message.seq);
                let (topic, partition) = goes_to(&message, shard, events);
                findings.check((topic, partition) == (place.topic, place.partition), "G4", || {
                    format!("{place:?} {offset}: {seq} of shard {shard} belongs to partition {partition} of {topic:?}")
                });
                if heard.contains(&seq) {
                    outbox.duplicates += 1;
                } else if heard.last().is_some_and(|last| seq < *last) {
                    // Who keeps the highest number drops it, and has never heard it.
                    findings.add("G3", format!("{place:?} {offset}: {seq} of shard {shard} comes behind a higher one"));
                } else {
                    heard.insert(seq);
                    outbox.stale += usize::from(matches!(message.body, Some(Body::StaleToken(_))));
                }
                if let Some(first) = outbox.messages.get(&(shard, seq)) {
                    findings.check(*first == message, "G2", || {
                        format!("{place:?} {offset}: {seq} of shard {shard} says two things: {first:?}, {message:?}")
                    });
                } else {
                    outbox.messages.insert((shard, seq), message);
                }
            }
        }
    }
    for shard in &history.shards {
        let (number, last) = (shard.shard, shard.outbox_last);
        let missing: Vec<u64> = (1..=last).filter(|seq| !outbox.messages.contains_key(&(number, *seq))).collect();
        findings.check(missing.is_empty(), "G1", || {
            format!("of shard {number} up to {last} these are on no topic: {missing:?}")
        });
        let beyond = outbox.messages.range((number, last + 1)..=(number, u64::MAX)).next();
        findings
            .check(beyond.is_none(), "G2", || format!("shard {number} ends at {last}, and on a topic is {beyond:?}"));
        let (acked, open) = (shard.outbox_acked, shard.open);
        findings
            .check(acked == last, "J2", || format!("of shard {number} {acked} of {last} messages are acknowledged"));
        findings.check(open == 0, "J2", || format!("{open} executions of shard {number} have not ended"));
        let written = history
            .topics
            .get(&crate::Place { topic: Topic::Commands, partition: number })
            .map_or(0, |records| records.len() as u64);
        let next = shard.next_offset;
        findings.check(next == written, "J2", || {
            format!("shard {number} has {written} records of commands and applied {next}")
        });
    }
    outbox
}

/// Where readers look for a message: those of events by its shard, all others by the inbox that it names.
fn goes_to(message: &v1::OutboxMessage, shard: u32, events: u32) -> (Topic, u32) {
    match &message.body {
        Some(Body::Assign(it)) => (Topic::Tasks, it.inbox),
        Some(Body::Revoke(it) | Body::StaleToken(it)) => (Topic::Tasks, it.inbox),
        Some(Body::Reply(it)) => (Topic::Replies, it.to.unwrap_or_default().inbox),
        Some(Body::Events(_)) | None => (Topic::Events, shard % events),
    }
}
