//! Reads the event topic into the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use nova_bus::{Batch, BusError, ReadError, Reader, SharedBus, Topic, event_partition};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics as names;
use crate::rows::{Positions, Rows};
use crate::store::{History, HistoryError};

/// Records of one transaction, about.
const RECORDS: usize = 2_000;
/// Shortest and longest gathering of one transaction, in milliseconds.
const GATHER_MS: (u64, u64) = (3, 50);
/// How often the lag is measured.
const LAG_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// Messages that a slow follower may be behind.
const TOLD: usize = 8_192;

/// What was written, told to those who follow.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it happened, in milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub happened: Arc<v1::ExecutionEvents>,
}

/// Reads the event topic; clones are handles to the same one.
#[derive(Clone)]
pub struct Ingester {
    told: broadcast::Sender<Told>,
    fresh: watch::Receiver<Instant>,
    next: watch::Receiver<BTreeMap<u32, u64>>,
    bus: SharedBus,
}

impl Ingester {
    /// Starts reading where the tables end.
    #[must_use]
    pub fn start(history: History, bus: SharedBus, cluster: ClusterId, stop: CancellationToken) -> Self {
        let (told, _) = broadcast::channel(TOLD);
        let (fresh_sender, fresh) = watch::channel(Instant::now());
        let (next_sender, next) = watch::channel(BTreeMap::new());
        let work = Work {
            history,
            bus: SharedBus::clone(&bus),
            cluster,
            told: told.clone(),
            fresh: fresh_sender,
            next: next_sender,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = work.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Self { told, fresh, next, bus }
    }

    /// What is written from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// How old the tables may be.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.fresh.borrow().elapsed()
    }

    /// Waits until all that the bus has of a shard by now is in the tables.
    ///
    /// # Errors
    /// When the bus cannot be asked.
    pub async fn caught_up(&self, shard: u32) -> Result<(), BusError> {
        let mut next = self.next.clone();
        let count = next.wait_for(|next| !next.is_empty()).await.map_or(1, |next| next.len() as u32);
        let partition = event_partition(shard, count);
        let end = self.bus.offsets(&Topic::Events, partition).await?.end;
        let _ = next.wait_for(|next| next.get(&partition).copied().unwrap_or(0) >= end).await;
        Ok(())
    }
}

struct Work {
    history: History,
    bus: SharedBus,
    cluster: ClusterId,
    told: broadcast::Sender<Told>,
    fresh: watch::Sender<Instant>,
    next: watch::Sender<BTreeMap<u32, u64>>,
}

impl Work {
    async fn run(self) {
        loop {
            if let Err(why) = self.read().await {
                tracing::warn!(why, "reading events begins again");
                counter!(names::RESTARTS).increment(1);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(&self) -> Result<(), String> {
        let text = |error: HistoryError| format!("{error}: {:?}", std::error::Error::source(&error));
        let mut positions = self.history.positions().await.map_err(text)?;
        let count = self.bus.partitions(&Topic::Events).await.map_err(|error| error.to_string())?;
        let count = count.ok_or("the event topic does not exist")?;
        let mut reader = self.bus.reader().map_err(|error| error.to_string())?;
        for partition in 0..count {
            let start = self.bus.offsets(&Topic::Events, partition).await.map_err(|error| error.to_string())?.start;
            let next = positions.next.entry(partition).or_default();
            if *next < start {
                tracing::warn!(partition, from = *next, to = start, "events are gone that were never read");
                *next = start;
            }
            reader.assign(&Topic::Events, partition, *next).map_err(|error| error.to_string())?;
        }
        self.tell_next(&positions);
        let mut lag_at = Instant::now();
        let mut before = 0;
        loop {
            if lag_at <= Instant::now() {
                self.measure(&positions).await;
                lag_at = Instant::now() + LAG_EVERY;
            }
            let Some(batch) = next(&mut *reader, LAG_EVERY).await? else { continue };
            let (rows, told) = self.gather(batch, gathering(before), &mut *reader, &mut positions).await?;
            before = told.len();
            let begun = Instant::now();
            self.history.write(&rows).await.map_err(text)?;
            histogram!(names::WRITE_SECONDS).record(begun.elapsed().as_secs_f64());
            counter!(names::EVENTS).increment(told.len() as u64);
            self.tell_next(&positions);
            for told in told {
                // Nobody may be following.
                let _ = self.told.send(told);
            }
        }
    }

    fn tell_next(&self, positions: &Positions) {
        self.next.send_replace(positions.next.clone());
    }

    async fn gather(
        &self,
        first: Batch,
        gathering: Duration,
        reader: &mut dyn Reader,
        positions: &mut Positions,
    ) -> Result<(Rows, Vec<Told>), String> {
        let (mut rows, mut told) = (Rows::default(), Vec::new());
        let end = Instant::now() + gathering;
        let mut batch = first;
        let mut records = 0;
        loop {
            records += batch.records.len();
            self.take(&batch, positions, &mut rows, &mut told);
            let left = end.saturating_duration_since(Instant::now());
            if records >= RECORDS || left.is_zero() {
                return Ok((rows, told));
            }
            match next(reader, left).await? {
                Some(more) => batch = more,
                None => return Ok((rows, told)),
            }
        }
    }

    fn take(&self, batch: &Batch, positions: &mut Positions, rows: &mut Rows, told: &mut Vec<Told>) {
        for record in &batch.records {
            positions.next.insert(batch.partition, record.offset + 1);
            rows.positions.next.insert(batch.partition, record.offset + 1);
            let opened = match nova_wire::open(&record.value, self.cluster) {
                Ok(opened) if opened.kind == v1::RecordKind::Outbox => opened,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(partition = batch.partition, offset = record.offset, %error, "an event is dropped");
                    counter!(names::DROPPED).increment(1);
                    continue;
                }
            };
            let Ok(messages) = v1::OutboxBatch::decode(opened.body) else { continue };
            let seen = positions.seen.entry(opened.shard).or_default();
            for message in messages.messages {
                // A superseded owner may have published it again (rule 12).
                if message.seq <= *seen {
                    continue;
                }
                *seen = message.seq;
                if let Some(v1::outbox_message::Body::Events(happened)) = message.body {
                    rows.take(message.at_ms, &happened);
                    told.push(Told { at_ms: message.at_ms, happened: Arc::new(happened) });
                }
            }
            rows.positions.seen.insert(opened.shard, *seen);
        }
    }

    async fn measure(&self, positions: &Positions) {
        let now = Instant::now();
        let mut lag = 0;
        for (partition, next) in &positions.next {
            match self.bus.offsets(&Topic::Events, *partition).await {
                Ok(range) => lag += range.end.saturating_sub(*next),
                Err(_) => return,
            }
        }
        gauge!(names::LAG).set(lag as f64);
        if lag == 0 {
            self.fresh.send_replace(now);
        }
        gauge!(names::AGE).set(self.fresh.borrow().elapsed().as_secs_f64());
    }
}

/// How long to gather, given how many messages the transaction before had. With many of them most executions end in the
/// transaction in which they begin, and their rows are written once.
fn gathering(before: usize) -> Duration {
    let (shortest, longest) = GATHER_MS;
    Duration::from_millis((before as u64 / 4).clamp(shortest, longest))
}

async fn next(reader: &mut dyn Reader, wait: Duration) -> Result<Option<Batch>, String> {
    match reader.next(wait).await {
        Ok(batch) => Ok(batch),
        Err(ReadError::OutOfRange { partition, wanted, low, high, .. }) => {
            Err(format!("offset {wanted} of events/{partition} is not in {low}..={high}"))
        }
        Err(error) => Err(error.to_string()),
    }
}
