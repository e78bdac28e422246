//! Publishing in order until it is acknowledged.
//!
//! A lane has one append on its way; what comes meanwhile makes the next one. So a batch that fails can be repeated
//! without a later one having overtaken it, and readers that keep the highest number they saw never see a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{AppendError, SharedBus, Topic};

/// Items of one append.
const ITEMS: usize = 512;
/// Bytes of items in one append; an item that is larger stands alone. Well below what a bus takes in one record.
const APPEND_BYTES: usize = 256 << 10;
/// Longest wait for one acknowledgement before the append is repeated.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Something that is published together with others.
pub trait Item: Send + 'static {
    /// About its size in bytes.
    fn bytes(&self) -> usize;
}

/// Makes the records of one append of items: one for all of them, or one for each sender among them.
pub type Seal<T> = Arc<dyn Fn(&[T]) -> Vec<Bytes> + Send + Sync>;

/// Called once the items are durable, with the offset of the first record.
pub type Acknowledge<T> = Arc<dyn Fn(Vec<T>, u64) + Send + Sync>;

/// A handle to publish with. The lane ends when all handles are gone and all is acknowledged, or when it is stopped.
#[derive(Clone)]
pub struct Lane<T> {
    queue: mpsc::UnboundedSender<T>,
    weight: Arc<Weight>,
}

/// Bytes of one lane that wait, counted among those of others too. What a stopped lane leaves is given back.
struct Weight {
    own: AtomicU64,
    all: Arc<AtomicU64>,
}

impl Weight {
    fn add(&self, bytes: u64) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

impl<T: Item> Lane<T> {
    /// Starts a lane to a partition. Bytes that wait are counted in `waiting`, which many lanes may share: who fills it
    /// looks at it and slows down.
    #[must_use]
    pub fn start(
        bus: SharedBus,
        topic: Topic,
        partition: u32,
        seal: Seal<T>,
        acknowledge: Acknowledge<T>,
        waiting: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let weight = Arc::new(Weight { own: AtomicU64::new(0), all: waiting });
        let counter = Arc::clone(&weight);
        tokio::spawn(async move {
            let publishing = publish(bus, topic, partition, seal, acknowledge, counter, items);
            tokio::select! {
                () = publishing => {}
                () = stop.cancelled() => {}
            }
        });
        Self { queue, weight }
    }

    /// Puts an item behind the others.
    pub fn push(&self, item: T) {
        self.weight.add(item.bytes() as u64);
        // A lane that was stopped takes nothing more, and nobody waits for it.
        let _ = self.queue.send(item);
    }
}

async fn publish<T: Item>(
    bus: SharedBus,
    topic: Topic,
    partition: u32,
    seal: Seal<T>,
    acknowledge: Acknowledge<T>,
    weight: Arc<Weight>,
    mut items: mpsc::UnboundedReceiver<T>,
) {
    let mut over = None;
    loop {
        let first = match over.take() {
            Some(first) => first,
            None => match items.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < ITEMS {
            let Ok(next) = items.try_recv() else { break };
            if bytes + next.bytes() > APPEND_BYTES {
                over = Some(next);
                break;
            }
            bytes += next.bytes();
            batch.push(next);
        }
        let records = seal(&batch);
        if records.is_empty() {
            weight.take(bytes as u64);
            continue;
        }
        let offset = append(&bus, &topic, partition, &records).await;
        weight.take(bytes as u64);
        if let Some(offset) = offset {
            acknowledge(batch, offset);
        }
    }
}

/// None when the record can never be written.
async fn append(bus: &SharedBus, topic: &Topic, partition: u32, records: &[Bytes]) -> Option<u64> {
    let mut pause = FIRST_PAUSE;
    loop {
        let ack = bus.append(topic, partition, records.iter().cloned().map(Into::into).collect());
        let why = match tokio::time::timeout(PATIENCE, ack).await {
            Ok(Ok(offset)) => return Some(offset),
            Ok(Err(error @ AppendError::TooLarge { .. })) => {
                tracing::error!(%topic, partition, %error, "a record cannot be published");
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no acknowledgement in time".into(),
        };
        tracing::warn!(%topic, partition, why, "publishing is repeated");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
