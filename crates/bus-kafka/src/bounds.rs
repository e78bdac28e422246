//! Where logs begin and end, of many partitions at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;

/// A topic, as the brokers call it, and a partition.
pub(crate) type Key = (Arc<str>, i32);

/// First offset, and the offset after the last one, of those partitions that have a leader. An error when one of the brokers
/// does not answer or leads no more what it was asked for: the library then keeps what the others said to itself. Kafka's
/// ListOffsets looks for times, and takes −2 and −1 for the beginning and the end.
pub(crate) fn ask<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    keys: &[Key],
    wait: Duration,
) -> KafkaResult<HashMap<Key, Range<u64>>> {
    let deadline = Instant::now() + wait;
    let edge = |edge: Offset| {
        let mut list = TopicPartitionList::with_capacity(keys.len());
        for (topic, partition) in keys {
            list.add_partition_offset(topic, *partition, edge)?;
        }
        let found = client.offsets_for_times(list, deadline.saturating_duration_since(Instant::now()))?;
        let mut offsets = HashMap::with_capacity(keys.len());
        for element in found.elements() {
            if let (Ok(()), Offset::Offset(at)) = (element.error(), element.offset()) {
                offsets.insert((Arc::from(element.topic()), element.partition()), at.max(0).cast_unsigned());
            }
        }
        Ok::<HashMap<Key, u64>, KafkaError>(offsets)
    };
    let (starts, ends) = (edge(Offset::Beginning)?, edge(Offset::End)?);
    let range = |(key, end): (Key, u64)| starts.get(&key).map(|start| (key, *start..end));
    Ok(ends.into_iter().filter_map(range).collect())
}
