//! Messages for this worker in an inbox that it shares with others (rules 12, 22).

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_bus::Record;
use nova_plants::Plant;
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;

use crate::renewal::Session;

/// A message for this session.
pub(crate) enum Incoming {
    Assign(Box<v1::Assignment>, v1::LeaseRef),
    Revoke(v1::LeaseRef),
    Stale(v1::LeaseRef),
}

pub(crate) struct Inbox {
    cluster: ClusterId,
    session: Session,
    /// Highest number by shard, over all messages of the partition.
    pub seen: Arc<Mutex<BTreeMap<u32, u64>>>,
}

impl Inbox {
    pub(crate) fn new(cluster: ClusterId, session: Session) -> Self {
        Self { cluster, session, seen: Arc::default() }
    }

    /// The messages of a record that are new and for this session. They are to be noted as held before they are told as
    /// seen, so the numbers are given back with them.
    pub(crate) fn read(&self, record: &Record) -> (u32, u64, Vec<Incoming>) {
        let opened = match nova_wire::open(&record.value, self.cluster) {
            Ok(opened) if opened.kind == v1::RecordKind::Outbox => opened,
            Ok(_) => return (0, 0, Vec::new()),
            Err(error) => {
                tracing::warn!(offset = record.offset, %error, "a record of the inbox is dropped");
                return (0, 0, Vec::new());
            }
        };
        let Ok(batch) = v1::OutboxBatch::decode(opened.body) else {
            tracing::warn!(offset = record.offset, "a record of the inbox cannot be read");
            return (0, 0, Vec::new());
        };
        let before = self.seen.lock().get(&opened.shard).copied().unwrap_or(0);
        let mut highest = before;
        let mut incoming = Vec::new();
        for message in batch.messages {
            let repeated = if nova_plants::is(Plant::WindowOfOne) {
                message.seq == highest
            } else {
                message.seq <= highest && !nova_plants::is(Plant::NothingDropped)
            };
            if repeated {
                continue;
            }
            highest = message.seq;
            incoming.extend(self.for_us(message));
        }
        (opened.shard, highest, incoming)
    }

    fn for_us(&self, message: v1::OutboxMessage) -> Option<Incoming> {
        use v1::outbox_message::Body;
        let ours = |lease: &v1::LeaseRef| lease.worker == self.session.worker && lease.session == self.session.session;
        match message.body? {
            Body::Assign(assignment) => {
                let lease = assignment.lease.clone().filter(ours)?;
                Some(Incoming::Assign(Box::new(assignment), lease))
            }
            Body::Revoke(revoke) => revoke.lease.filter(ours).map(Incoming::Revoke),
            Body::StaleToken(stale) => stale.lease.filter(ours).map(Incoming::Stale),
            Body::Reply(_) | Body::Events(_) => None,
        }
    }
}
