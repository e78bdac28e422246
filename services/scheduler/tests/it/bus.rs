//! A bus in memory that fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_bus::{
    Ack, AppendError, Batch, Bus, BusError, MemoryBus, Outgoing, ReadError, Reader, SharedBus, Topic, TopicSpec,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What does not work, and what was seen.
#[derive(Default)]
pub struct Faults {
    /// Nothing works: offsets, health, appends.
    pub gone: bool,
    /// Command partitions without a leader: their offsets never come.
    pub hanging: BTreeSet<u32>,
    /// Topics that nothing can be written to.
    pub deaf: BTreeSet<Topic>,
    /// What readers come to next; a partition that is named is read no more.
    pub errors: Vec<ReadError>,
    /// Command partitions that are read.
    pub read: BTreeSet<u32>,
    /// How often offsets of a command partition were asked for, and readers were moved.
    pub asked: BTreeMap<u32, usize>,
    pub moved: BTreeMap<u32, usize>,
    /// How many records each append had.
    pub appended: BTreeMap<Topic, Vec<usize>>,
}

#[derive(Clone)]
pub struct FaultyBus {
    pub memory: MemoryBus,
    pub faults: Arc<Mutex<Faults>>,
    changed: Arc<Notify>,
}

impl FaultyBus {
    pub fn new() -> Self {
        Self { memory: MemoryBus::new(), faults: Arc::default(), changed: Arc::default() }
    }

    pub fn shared(&self) -> SharedBus {
        Arc::new(self.clone())
    }

    /// Changes what works.
    pub fn set<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        let result = change(&mut self.faults.lock());
        self.changed.notify_one();
        result
    }

    pub fn see<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.faults.lock())
    }
}

fn unavailable() -> BusError {
    BusError::Unavailable { why: "the test says so".into() }
}

#[async_trait]
impl Bus for FaultyBus {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        if self.see(|faults| faults.gone || faults.deaf.contains(topic)) {
            return Ack::ready(Err(AppendError::NotSent { why: "the test says so".into() }));
        }
        self.faults.lock().appended.entry(topic.clone()).or_default().push(records.len());
        self.memory.append(topic, partition, records)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        self.set(|faults| faults.read.clear());
        Ok(Box::new(FaultyReader { inner: self.memory.reader()?, bus: self.clone() }))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        let (gone, hangs) = {
            let mut faults = self.faults.lock();
            *faults.asked.entry(partition).or_default() += 1;
            (faults.gone, faults.hanging.contains(&partition))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if gone { Err(unavailable()) } else { self.memory.offsets(topic, partition).await }
    }

    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        self.memory.partitions(topic).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        self.memory.ensure_topics(topics).await
    }

    async fn health(&self) -> Result<(), BusError> {
        if self.see(|faults| faults.gone) { Err(unavailable()) } else { Ok(()) }
    }
}

struct FaultyReader {
    inner: Box<dyn Reader>,
    bus: FaultyBus,
}

#[async_trait]
impl Reader for FaultyReader {
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError> {
        let mut faults = self.bus.faults.lock();
        faults.read.insert(partition);
        *faults.moved.entry(partition).or_default() += 1;
        self.inner.assign(topic, partition, from)
    }

    fn remove(&mut self, topic: &Topic, partition: u32) {
        self.bus.faults.lock().read.remove(&partition);
        self.inner.remove(topic, partition);
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError> {
        loop {
            let error = self.bus.faults.lock().errors.pop();
            if let Some(error) = error {
                if let ReadError::Bus(BusError::NoSuchPartition { topic, partition }) = &error {
                    self.remove(topic, *partition);
                }
                return Err(error);
            }
            tokio::select! {
                next = self.inner.next(wait) => return next,
                () = self.bus.changed.notified() => {}
            }
        }
    }
}
