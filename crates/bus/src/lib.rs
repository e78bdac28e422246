//! What the services ask of a message bus.
//!
//! Owns: the trait, the catalogue of topics, the index of partitions that buses in this process share, a bus in memory,
//! the contract suite.
//! Must not know: Kafka, files, what a record says, consumer groups, transactions (nothing here rests on them).

mod catalogue;
#[cfg(feature = "contract")]
pub mod contract;
pub mod lane;
mod memory;
pub mod table;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use catalogue::{Layout, Topic, TopicSpec, event_partition};
pub use memory::MemoryBus;

/// Largest record, key and headers included, in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Bytes handed over and not yet acknowledged, per process; beyond it `append` refuses.
pub const MAX_IN_FLIGHT_BYTES: u64 = 64 << 20;

/// Most bytes that one [`Reader::next`] gives (one record may exceed it).
pub const MAX_BATCH_BYTES: usize = 512 << 10;

/// Most records that one [`Reader::next`] gives.
pub const MAX_BATCH_RECORDS: usize = 2_048;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Key; records of the cluster have none, since partitions are chosen by hand.
    pub key: Option<Bytes>,
    /// Headers.
    pub headers: Vec<(Box<str>, Bytes)>,
    /// Value.
    pub value: Bytes,
}

impl Outgoing {
    /// What counts against the limits, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len) + headers
    }
}

impl From<Bytes> for Outgoing {
    fn from(value: Bytes) -> Self {
        Self { value, ..Self::default() }
    }
}

/// A record as it stands in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub offset: u64,
    /// When the bus took it, or its producer made it; milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Key.
    pub key: Option<Bytes>,
    /// Headers.
    pub headers: Vec<(Box<str>, Bytes)>,
    /// Value.
    pub value: Bytes,
}

/// Why records were not, or perhaps not, written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Certainly nothing was written.
    #[error("not sent: {why}")]
    NotSent {
        /// For people.
        why: String,
    },
    /// A record is larger than [`MAX_RECORD_BYTES`]; nothing was written.
    #[error("a record of {bytes} bytes is above the limit of {MAX_RECORD_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Handed over, and no answer came: it may or may not be there.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// For people.
        why: String,
    },
}

/// Why something else than an append failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached now.
    #[error("the bus is not available: {why}")]
    Unavailable {
        /// For people.
        why: String,
    },
    /// The topic or partition does not exist.
    #[error("no partition {partition} of topic {topic}")]
    NoSuchPartition {
        /// Topic.
        topic: Topic,
        /// Partition.
        partition: u32,
    },
    /// A topic exists with settings that would lose or reorder messages.
    #[error("topic {topic} has wrong settings: {}", problems.join("; "))]
    WrongSettings {
        /// Topic.
        topic: Topic,
        /// What is wrong, one sentence each, with what it should be.
        problems: Vec<String>,
    },
}

/// Why reading a partition stopped. The partition is removed from the reader; others go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The wanted offset is not there: cut off at the start, or the topic was made anew.
    #[error("offset {wanted} of {topic}/{partition} is not in {low}..={high}")]
    OutOfRange {
        /// Topic.
        topic: Topic,
        /// Partition.
        partition: u32,
        /// What was asked for.
        wanted: u64,
        /// First offset there is.
        low: u64,
        /// Offset after the last one.
        high: u64,
    },
    /// Nothing can be read at all for now; ask again.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Records of one partition, in order, without gaps.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: u32,
    /// At least one.
    pub records: Vec<Record>,
}

/// What an append comes to: the offset of its first record, once all of them are durable.
///
/// Dropping it does not take the append back.
pub struct Ack {
    state: AckState,
    _unseen: Option<Arc<()>>,
}

enum AckState {
    Ready(Option<Result<u64, AppendError>>),
    Waiting(oneshot::Receiver<Result<u64, AppendError>>),
}

impl Ack {
    /// An answer that is known already.
    #[must_use]
    pub fn ready(result: Result<u64, AppendError>) -> Self {
        Self { state: AckState::Ready(Some(result)), _unseen: None }
    }

    /// An answer that comes; a dropped sender is an unknown outcome.
    #[must_use]
    pub fn waiting(receiver: oneshot::Receiver<Result<u64, AppendError>>) -> Self {
        Self { state: AckState::Waiting(receiver), _unseen: None }
    }

    /// The same; this is dropped when the caller has the answer, or wants none.
    #[must_use]
    pub fn unseen(self, unseen: Arc<()>) -> Self {
        Self { _unseen: Some(unseen), ..self }
    }
}

impl Future for Ack {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let gone = || AppendError::OutcomeUnknown { why: "the bus was closed".into() };
        match &mut self.state {
            AckState::Ready(result) => Poll::Ready(result.take().unwrap_or_else(|| Err(gone()))),
            AckState::Waiting(receiver) => {
                let answer = ready!(Pin::new(receiver).poll(cx));
                Poll::Ready(answer.unwrap_or_else(|_| Err(gone())))
            }
        }
    }
}

/// A bus.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Hands records over. Records of one partition are written in the order of the calls, and those of one call stand
    /// together. The answer comes when they are durable; many calls may be waiting, and share one write.
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack;

    /// A reader without partitions.
    ///
    /// # Errors
    /// When the bus is closed.
    fn reader(&self) -> Result<Box<dyn Reader>, BusError>;

    /// First offset, and the offset after the last one.
    ///
    /// # Errors
    /// When the partition does not exist or the bus cannot be reached.
    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError>;

    /// The same of several partitions, as far as it is known within the time. One that cannot be asked holds up no other.
    async fn bounds(&self, topic: &Topic, partitions: &[u32], within: Duration) -> BTreeMap<u32, Range<u64>> {
        let ask = |partition: u32| async move { Some((partition, self.offsets(topic, partition).await.ok()?)) };
        let asked =
            futures::future::join_all(partitions.iter().map(|partition| tokio::time::timeout(within, ask(*partition))));
        asked.await.into_iter().filter_map(Result::ok).flatten().collect()
    }

    /// Number of partitions; none when the topic does not exist.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError>;

    /// Creates topics that are missing; checks those that are there.
    ///
    /// # Errors
    /// When settings are wrong, or the bus cannot be reached.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError>;

    /// Commands of this partition below the offset `next` are applied durably: nobody will ask for them again. A bus may use
    /// their space for others, and answer for them as if it had written them. Most buses need not know.
    fn commands_applied(&self, partition: u32, next: u64) {
        let _ = (partition, next);
    }

    /// Whether appends would be taken now.
    ///
    /// # Errors
    /// Why not.
    async fn health(&self) -> Result<(), BusError>;
}

/// Reads many partitions. Not shared; one task holds it.
#[async_trait]
pub trait Reader: Send {
    /// Reads a partition from this offset on; also moves one that is read already.
    ///
    /// # Errors
    /// When the partition does not exist.
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError>;

    /// Reads a partition no more.
    fn remove(&mut self, topic: &Topic, partition: u32);

    /// The next records of any partition, as soon as there are some; none when `wait` has passed. Safe to cancel:
    /// nothing is lost.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError>;
}

/// A bus that several services share.
pub type SharedBus = Arc<dyn Bus>;
