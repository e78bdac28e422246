//! A bus in memory, for tests and simulation.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::table::{Kept, Source, Table, TableReader, YoungLimits};
use crate::{Ack, AppendError, Bus, BusError, MAX_RECORD_BYTES, Outgoing, Reader, Record, Topic, TopicSpec};

/// A bus in memory. Time stands at what [`MemoryBus::set_time`] said.
#[derive(Clone)]
pub struct MemoryBus {
    table: Arc<Mutex<Table<()>>>,
    now_ms: Arc<AtomicU64>,
    refuse: Arc<Mutex<Option<AppendError>>>,
}

impl MemoryBus {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new(YoungLimits { copies: usize::MAX, momentary: usize::MAX }))),
            now_ms: Arc::new(AtomicU64::new(0)),
            refuse: Arc::new(Mutex::new(None)),
        }
    }

    /// What records are stamped with from now on.
    pub fn set_time(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Answers every append with this error until it is taken back. `OutcomeUnknown` writes all the same.
    pub fn refuse(&self, error: Option<AppendError>) {
        *self.refuse.lock() = error;
    }

    /// All that is in a partition.
    #[must_use]
    pub fn records(&self, topic: &Topic, partition: u32) -> Vec<Record> {
        self.table.lock().young(topic, partition)
    }

    /// Takes all but `keep` away: what a topic looks like that was cut or made anew.
    pub fn cut(&self, topic: &Topic, partition: u32, keep: Range<u64>) {
        self.table.lock().cut(topic, partition, keep);
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

struct Nowhere;

#[async_trait]
impl Source for Nowhere {
    type Place = ();

    async fn fetch(&self, (): (), topic: &Topic, _: u32, _: u64) -> Result<Vec<Record>, BusError> {
        Err(BusError::Unavailable { why: format!("records of {topic} left memory") })
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        if let Some(large) = records.iter().map(Outgoing::size).find(|size| *size > MAX_RECORD_BYTES) {
            return Ack::ready(Err(AppendError::TooLarge { bytes: large }));
        }
        let refusal = self.refuse.lock().clone();
        if let Some(error @ AppendError::NotSent { .. }) = refusal {
            return Ack::ready(Err(error));
        }
        let mut table = self.table.lock();
        let Some(range) = table.offsets(topic, partition) else {
            return Ack::ready(Err(AppendError::NotSent { why: format!("no partition {partition} of {topic}") }));
        };
        let timestamp_ms = self.now_ms.load(Ordering::Relaxed);
        let stamped = records.into_iter().zip(range.end..).map(|(record, offset)| {
            let Outgoing { key, headers, value } = record;
            Record { offset, timestamp_ms, key, headers, value }
        });
        table.publish(topic, partition, Kept::Nowhere, stamped.collect());
        Ack::ready(refusal.map_or(Ok(range.end), Err))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(TableReader::new(Arc::clone(&self.table), Arc::new(Nowhere))))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        let range = self.table.lock().offsets(topic, partition);
        range.ok_or_else(|| BusError::NoSuchPartition { topic: topic.clone(), partition })
    }

    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        Ok(self.table.lock().partitions(topic))
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        let mut table = self.table.lock();
        topics.iter().try_for_each(|spec| table.ensure(spec).map(drop))
    }

    async fn health(&self) -> Result<(), BusError> {
        match self.refuse.lock().clone() {
            None => Ok(()),
            Some(error) => Err(BusError::Unavailable { why: error.to_string() }),
        }
    }
}
