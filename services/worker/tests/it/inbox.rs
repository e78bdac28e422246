//! An inbox that the bus loses sight of.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nova_bus::{Ack, Batch, Bus, BusError, MemoryBus, Outgoing, ReadError, Reader, Topic, TopicSpec};
use nova_wire::v1::command::Kind;

use crate::rig::Rig;

const TTL_MS: u64 = 60_000;

/// Its readers drop their partition so many times and say that there is none.
struct Forgetful {
    bus: MemoryBus,
    times: Arc<AtomicUsize>,
}

struct ForgetfulReader {
    reader: Box<dyn Reader>,
    times: Arc<AtomicUsize>,
}

#[async_trait]
impl Reader for ForgetfulReader {
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError> {
        self.reader.assign(topic, partition, from)
    }

    fn remove(&mut self, topic: &Topic, partition: u32) {
        self.reader.remove(topic, partition);
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError> {
        let less = |times: usize| times.checked_sub(1);
        if self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            self.reader.remove(&Topic::Tasks, 0);
            return Err(BusError::NoSuchPartition { topic: Topic::Tasks, partition: 0 }.into());
        }
        self.reader.next(wait).await
    }
}

#[async_trait]
impl Bus for Forgetful {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        self.bus.append(topic, partition, records)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(ForgetfulReader { reader: self.bus.reader()?, times: Arc::clone(&self.times) }))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        self.bus.offsets(topic, partition).await
    }

    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        self.bus.partitions(topic).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        self.bus.ensure_topics(topics).await
    }

    async fn health(&self) -> Result<(), BusError> {
        self.bus.health().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_inbox_that_is_lost_for_a_moment_is_read_on() {
    let rig = Rig::new(1, TTL_MS).await;
    let times = Arc::new(AtomicUsize::new(0));
    let bus = Forgetful { bus: rig.bus.clone(), times: Arc::clone(&times) };
    let worker = rig.start_on(Arc::new(bus), "a", |_| {});
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.assign(1, "quick").await;
    rig.wait_said(1).await;
    times.store(1, Ordering::SeqCst);
    rig.wait_for("the error", |_, _| times.load(Ordering::SeqCst) == 0).await;
    rig.assign(2, "quick").await;
    let said = rig.wait_said(2).await;
    assert!(matches!(said[..], [Kind::Result(_), Kind::Result(_)]), "once each: {said:?}");
    assert_eq!(rig.state.lock().registers.len(), 1);
    worker.stop().await.expect("it leaves in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_whose_inbox_is_gone_is_given_up() {
    let rig = Rig::new(1, TTL_MS).await;
    let times = Arc::new(AtomicUsize::new(0));
    let bus = Forgetful { bus: rig.bus.clone(), times: Arc::clone(&times) };
    let worker = rig.start_on(Arc::new(bus), "a", |_| {});
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    times.store(usize::MAX, Ordering::SeqCst);
    rig.wait_for("another session", |state, _| state.last == 2).await;
    times.store(0, Ordering::SeqCst);
    rig.assign(1, "quick").await;
    rig.wait_said(1).await;
    worker.stop().await.expect("it leaves in order");
}
