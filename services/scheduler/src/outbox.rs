//! Publishing the outbox of a shard, and how far everything is acknowledged (rules 10, 11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;
use nova_bus::lane::{Acknowledge, Item, Lane, Seal};
use nova_bus::{SharedBus, Topic};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::run::Told;

/// A message of the outbox, as the coordinator sent it.
pub(crate) struct Outgoing {
    pub seq: u64,
    pub message: Bytes,
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

/// The outbox of one shard in one epoch.
pub(crate) struct Outbox {
    bus: SharedBus,
    cluster: ClusterId,
    shard: u32,
    epoch: u64,
    lanes: BTreeMap<(i32, u32), Lane<Outgoing>>,
    unacknowledged: BTreeSet<u64>,
    /// Since when messages wait and none was acknowledged.
    silent_since: Option<Instant>,
    /// Highest number received.
    pub received: u64,
    tell: mpsc::UnboundedSender<Told>,
    waiting: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Outbox {
    pub(crate) fn new(
        bus: SharedBus,
        cluster: ClusterId,
        shard: u32,
        position: &v1::ShardPosition,
        tell: mpsc::UnboundedSender<Told>,
        waiting: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            bus,
            cluster,
            shard,
            epoch: position.epoch,
            lanes: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            silent_since: None,
            received: position.outbox_acked,
            tell,
            waiting,
            stop,
        }
    }

    /// Publishes a message behind the others of its partition.
    pub(crate) fn publish(&mut self, item: v1::OutboxItem) {
        // A subscription that was opened anew may repeat.
        if item.seq <= self.received {
            return;
        }
        self.received = item.seq;
        let topic = match item.topic() {
            v1::TopicKind::Tasks => Topic::Tasks,
            v1::TopicKind::Replies => Topic::Replies,
            v1::TopicKind::Events | v1::TopicKind::Unspecified => Topic::Events,
        };
        if self.unacknowledged.is_empty() {
            self.silent_since = Some(Instant::now());
        }
        self.unacknowledged.insert(item.seq);
        let key = (item.topic, item.partition);
        if !self.lanes.contains_key(&key) {
            let lane = self.lane(topic, item.partition);
            self.lanes.insert(key, lane);
        }
        if let Some(lane) = self.lanes.get(&key) {
            lane.push(Outgoing { seq: item.seq, message: item.message });
        }
    }

    fn lane(&self, topic: Topic, partition: u32) -> Lane<Outgoing> {
        let (cluster, shard, epoch) = (self.cluster, self.shard, self.epoch);
        let seal: Seal<Outgoing> = Arc::new(move |items: &[Outgoing]| {
            let messages = items.iter().map(|item| item.message.clone()).collect();
            let body = v1::OpaqueOutboxBatch { messages }.encode_to_vec();
            nova_wire::seal(cluster, v1::RecordKind::Outbox, shard, body.into())
        });
        let tell = self.tell.clone();
        let acknowledge: Acknowledge<Outgoing> = Arc::new(move |items: Vec<Outgoing>, _| {
            let seqs = items.iter().map(|item| item.seq).collect();
            let _ = tell.send(Told::Acknowledged(Acknowledged { shard, epoch, seqs }));
        });
        let (bus, waiting, stop) = (Arc::clone(&self.bus), Arc::clone(&self.waiting), self.stop.clone());
        Lane::start(bus, topic, partition, seal, acknowledge, waiting, stop)
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
        self.unacknowledged.first().map_or(self.received, |first| first - 1)
    }
}
