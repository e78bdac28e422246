//! Publishing the outboxes of shards, and how far each is acknowledged (rules 10, 11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use nova_bus::lane::{Acknowledge, Item, Lane, Seal};
use nova_bus::{SharedBus, Topic, event_partition};
use nova_plants::Plant;
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::run::Told;

/// A message of an outbox, as the coordinator sent it.
struct Outgoing {
    shard: u32,
    epoch: u64,
    seq: u64,
    message: Bytes,
    /// Its shard is owned no more.
    over: Arc<AtomicBool>,
}

impl Item for Outgoing {
    fn bytes(&self) -> usize {
        self.message.len() + 16
    }
}

/// Numbers of one shard that the bus has acknowledged.
pub(crate) struct Acknowledged {
    pub shard: u32,
    pub epoch: u64,
    pub seqs: Vec<u64>,
}

/// Publishes the messages of all shards: those that go to one partition share its appends, since brokers and readers
/// pay for each append.
pub(crate) struct Publisher {
    bus: SharedBus,
    cluster: ClusterId,
    /// Partitions of the event topic.
    events: u32,
    lanes: BTreeMap<(i32, u32), Lane<Outgoing>>,
    tell: mpsc::UnboundedSender<Told>,
    waiting: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Publisher {
    pub(crate) fn new(bus: SharedBus, cluster: ClusterId, events: u32, tell: mpsc::UnboundedSender<Told>) -> Self {
        let stop = CancellationToken::new();
        Self { bus, cluster, events: events.max(1), lanes: BTreeMap::new(), tell, waiting: Arc::default(), stop }
    }

    /// Bytes that the bus has not acknowledged.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Publishes a message behind the others of its partition.
    fn publish(&mut self, topic: v1::TopicKind, partition: u32, message: Outgoing) {
        let key = match topic {
            v1::TopicKind::Events | v1::TopicKind::Unspecified => {
                (v1::TopicKind::Events.into(), event_partition(partition, self.events))
            }
            v1::TopicKind::Tasks | v1::TopicKind::Replies => (topic.into(), partition),
        };
        if !self.lanes.contains_key(&key) {
            let lane = self.lane(topic, key.1);
            self.lanes.insert(key, lane);
        }
        if let Some(lane) = self.lanes.get(&key) {
            lane.push(message);
        }
    }

    fn lane(&self, topic: v1::TopicKind, partition: u32) -> Lane<Outgoing> {
        let topic = match topic {
            v1::TopicKind::Tasks => Topic::Tasks,
            v1::TopicKind::Replies => Topic::Replies,
            v1::TopicKind::Events | v1::TopicKind::Unspecified => Topic::Events,
        };
        let cluster = self.cluster;
        let seal: Seal<Outgoing> = Arc::new(move |items: &[Outgoing]| {
            let records = by_shard(items).map(|((shard, _), items)| {
                let messages = items.iter().map(|item| item.message.clone()).collect();
                let body = v1::OpaqueOutboxBatch { messages }.encode_to_vec();
                nova_wire::seal(cluster, v1::RecordKind::Outbox, shard, body.into())
            });
            records.collect()
        });
        let tell = self.tell.clone();
        let acknowledge: Acknowledge<Outgoing> = Arc::new(move |items: Vec<Outgoing>, _| {
            for ((shard, epoch), items) in by_shard(&items) {
                let seqs = items.iter().map(|item| item.seq).collect();
                let _ = tell.send(Told::Acknowledged(Acknowledged { shard, epoch, seqs }));
            }
        });
        let (bus, waiting, stop) = (Arc::clone(&self.bus), Arc::clone(&self.waiting), self.stop.clone());
        Lane::start(bus, topic, partition, seal, acknowledge, waiting, stop)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The messages of each shard and epoch that is still owned, in their order.
fn by_shard(items: &[Outgoing]) -> impl Iterator<Item = ((u32, u64), Vec<&Outgoing>)> {
    let mut shards: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for item in items.iter().filter(|item| !item.over.load(Ordering::Relaxed)) {
        shards.entry((item.shard, item.epoch)).or_default().push(item);
    }
    shards.into_iter()
}

/// The outbox of one shard in one epoch. When it is dropped, what was not handed to the bus is not published.
pub(crate) struct Outbox {
    shard: u32,
    epoch: u64,
    unacknowledged: BTreeSet<u64>,
    /// Since when messages wait and none was acknowledged.
    silent_since: Option<Instant>,
    /// Highest number received.
    pub received: u64,
    over: Arc<AtomicBool>,
}

impl Outbox {
    pub(crate) fn new(shard: u32, position: &v1::ShardPosition) -> Self {
        Self {
            shard,
            epoch: position.epoch,
            unacknowledged: BTreeSet::new(),
            silent_since: None,
            received: position.outbox_acked,
            over: Arc::default(),
        }
    }

    /// Publishes a message behind the others of its partition.
    pub(crate) fn publish(&mut self, item: v1::OutboxItem, publisher: &mut Publisher) {
        // A subscription that was opened anew may repeat.
        if item.seq <= self.received {
            return;
        }
        self.received = item.seq;
        if self.unacknowledged.is_empty() {
            self.silent_since = Some(Instant::now());
        }
        self.unacknowledged.insert(item.seq);
        let (topic, partition) = (item.topic(), item.partition);
        let (shard, epoch, over) = (self.shard, self.epoch, Arc::clone(&self.over));
        publisher.publish(topic, partition, Outgoing { shard, epoch, seq: item.seq, message: item.message, over });
    }

    pub(crate) fn acknowledged(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.unacknowledged.remove(seq);
        }
        self.silent_since = (!self.unacknowledged.is_empty()).then(Instant::now);
    }

    /// Since when messages wait and the bus has acknowledged none.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    /// Highest number up to which every message is acknowledged.
    pub(crate) fn watermark(&self) -> u64 {
        let too_far = u64::from(nova_plants::is(Plant::WatermarkTooFar));
        self.unacknowledged.first().map_or(self.received, |first| first - 1 + too_far)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
