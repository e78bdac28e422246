//! A durable bus in one directory, for one process.
//!
//! Owns: the files, group commit, retention by size.
//! Must not know: what a record says, who reads it.
//!
//! All partitions of all topics share one journal, so a group commit costs one data sync however many partitions it
//! touches. A thread of its own takes what is waiting, writes it as one frame, syncs, and only then answers and shows it
//! to readers. While it syncs, the next frame gathers: there is no timer.

mod format;
mod topics;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::BytesMut;
use nova_bus::table::{Source, Table, TableReader};
use nova_bus::{
    Ack, AppendError, Bus, BusError, MAX_IN_FLIGHT_BYTES, MAX_RECORD_BYTES, Outgoing, Reader, Record, Topic, TopicSpec,
};
use nova_journal::{DirLock, Journal, LockError, OpenError, Options, Position, WriteError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Bytes of young records kept in memory.
const YOUNG_BYTES: usize = 64 << 20;
/// Most bytes of one frame.
const FRAME_BYTES: usize = 4 << 20;
const MAGIC: [u8; 8] = *b"NOVABUS1";

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; nobody else may use it.
    pub dir: PathBuf,
    /// The cluster; a directory of another one is refused.
    pub cluster: [u8; 16],
    /// Oldest segments go when all together are larger, in bytes.
    pub retention_bytes: u64,
    /// Size of a segment file, in bytes: the step in which space is taken and given back.
    pub segment_bytes: u64,
}

impl Config {
    /// Segments of 64 MiB, 4 GiB in all.
    #[must_use]
    pub fn new(dir: PathBuf, cluster: [u8; 16]) -> Self {
        Self { dir, cluster, retention_bytes: 4 << 30, segment_bytes: 64 << 20 }
    }
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBusError {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal is damaged, foreign or newer.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The list of topics cannot be read.
    #[error("cannot read the topics in {path}: {why}")]
    Topics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The thread that writes could not start.
    #[error("cannot start the writer")]
    Thread(#[source] std::io::Error),
}

/// A bus in a directory.
pub struct EmbeddedBus {
    table: Arc<Mutex<Table<Position>>>,
    queue: Arc<Queue>,
    disk: Arc<Disk>,
    writer: Option<std::thread::JoinHandle<()>>,
    _lock: DirLock,
}

struct Waiting {
    topic: Topic,
    partition: u32,
    records: Vec<Outgoing>,
    bytes: u64,
    ack: oneshot::Sender<Result<u64, AppendError>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Waiting>,
    bytes: u64,
    closed: bool,
    failed: Option<String>,
}

struct Disk {
    dir: PathBuf,
}

impl EmbeddedBus {
    /// Opens the bus in a directory, making it when it is not there. Blocks while the journal is read.
    ///
    /// # Errors
    /// See [`OpenBusError`].
    pub fn open(config: Config) -> Result<Self, OpenBusError> {
        let lock = DirLock::take(&config.dir)?;
        let mut table = Table::new(YOUNG_BYTES);
        for spec in topics::load(&config.dir)? {
            // A list without doubles cannot be refused.
            let _ = table.ensure(&spec);
        }
        let options = Options { magic: MAGIC, cluster: config.cluster, segment_bytes: config.segment_bytes };
        let mut damaged = None;
        let journal = Journal::open(&config.dir, options, |place, _, frame| {
            let read = format::chunks(&frame, |chunk| {
                table.restore(&chunk.topic, chunk.partition, place, chunk.first, chunk.count);
            });
            if read.is_none() {
                damaged.get_or_insert(place);
            }
        })?;
        if let Some(place) = damaged {
            let path = config.dir.join(format!("{:016x}.log", place.segment));
            return Err(OpenError::Damaged { path, offset: place.offset }.into());
        }
        let table = Arc::new(Mutex::new(table));
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            journal,
            table: Arc::clone(&table),
            queue: Arc::clone(&queue),
            retention_bytes: config.retention_bytes,
        };
        let thread = std::thread::Builder::new().name("bus-writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(OpenBusError::Thread)?;
        Ok(Self { table, queue, disk: Arc::new(Disk { dir: config.dir }), writer: Some(writer), _lock: lock })
    }
}

/// Writes what is waiting, then stops.
impl Drop for EmbeddedBus {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Writer {
    journal: Journal,
    table: Arc<Mutex<Table<Position>>>,
    queue: Arc<Queue>,
    retention_bytes: u64,
}

impl Writer {
    fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            {
                let mut state = self.queue.state.lock();
                while state.waiting.is_empty() && !state.closed {
                    self.queue.wake.wait(&mut state);
                }
                if state.waiting.is_empty() {
                    return;
                }
                std::mem::swap(&mut taken, &mut state.waiting);
            }
            while !taken.is_empty() {
                let mut bytes = 0;
                let fits = taken.iter().position(|it| {
                    bytes += it.bytes as usize;
                    bytes > FRAME_BYTES
                });
                let rest = taken.split_off(fits.unwrap_or(taken.len()).max(1));
                self.commit(std::mem::replace(&mut taken, rest));
            }
        }
    }

    fn commit(&mut self, group: Vec<Waiting>) {
        let timestamp_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let bytes: u64 = group.iter().map(|waiting| waiting.bytes).sum();
        let mut frame = BytesMut::with_capacity(bytes as usize + 64 * group.len());
        let mut next: BTreeMap<(Topic, u32), u64> = BTreeMap::new();
        let mut written = Vec::with_capacity(group.len());
        for waiting in group {
            let Waiting { topic, partition, records, ack, .. } = waiting;
            let key = (topic, partition);
            let first = match next.get(&key) {
                Some(first) => *first,
                None => self.table.lock().offsets(&key.0, partition).map_or(0, |range| range.end),
            };
            format::write(&mut frame, &key.0, partition, first, timestamp_ms, &records);
            let count = records.len() as u64;
            let stamped = records.into_iter().zip(first..).map(|(record, offset)| {
                let Outgoing { key, headers, value } = record;
                Record { offset, timestamp_ms, key, headers, value }
            });
            written.push((key.0.clone(), partition, first, stamped.collect::<Vec<_>>(), ack));
            next.insert(key, first + count);
        }
        let outcome = self.journal.commit(&[frame.freeze()]);
        self.queue.state.lock().bytes -= bytes;
        match outcome {
            Ok(place) => {
                let mut table = self.table.lock();
                for (topic, partition, _, records, _) in &mut written {
                    table.publish(topic, *partition, place, std::mem::take(records));
                }
                drop(table);
                for (_, _, first, _, ack) in written {
                    let _ = ack.send(Ok(first));
                }
                self.retain();
            }
            Err(WriteError::Full) => {
                for (.., ack) in written {
                    let _ = ack.send(Err(AppendError::NotSent { why: "no space left on the device".into() }));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the bus takes nothing more: restart the process once the disk is well");
                self.queue.state.lock().failed = Some(error.to_string());
                for (.., ack) in written {
                    let _ = ack.send(Err(AppendError::OutcomeUnknown { why: error.to_string() }));
                }
            }
        }
    }

    fn retain(&mut self) {
        if self.journal.bytes() <= self.retention_bytes {
            return;
        }
        let Some(second) = self.journal.segments().nth(1) else { return };
        // A partition that loses all it has must still know its next offset after a restart.
        let mut marks = BytesMut::new();
        for (topic, partition, next) in self.table.lock().left_empty(|place| place.segment < second) {
            format::write(&mut marks, &topic, partition, next, 0, &[]);
        }
        if !marks.is_empty() && self.journal.commit(&[marks.freeze()]).is_err() {
            return;
        }
        match self.journal.drop_below(second) {
            Ok(_) => self.table.lock().forget(|place| place.segment < second),
            Err(error) => tracing::warn!(%error, "an old segment of the bus could not be removed"),
        }
    }
}

#[async_trait]
impl Source for Disk {
    type Place = Position;

    async fn fetch(&self, place: Position, topic: &Topic, partition: u32, first: u64) -> Result<Vec<Record>, BusError> {
        let dir = self.dir.clone();
        let unavailable = |why: String| BusError::Unavailable { why };
        let frame = tokio::task::spawn_blocking(move || nova_journal::read_frame(&dir, place))
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| unavailable(error.to_string()))?;
        let mut found = None;
        let whole = format::chunks(&frame, |chunk| {
            if chunk.first == first && chunk.partition == partition && chunk.topic == *topic {
                found = chunk.records();
            }
        });
        found
            .filter(|_| whole.is_some())
            .ok_or_else(|| unavailable(format!("{topic}/{partition} {first}: no such frame")))
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        let refuse = |why: String| Ack::ready(Err(AppendError::NotSent { why }));
        let mut bytes = 0;
        for record in &records {
            let size = record.size();
            if size > MAX_RECORD_BYTES {
                return Ack::ready(Err(AppendError::TooLarge { bytes: size }));
            }
            bytes += size as u64 + 64;
        }
        if records.is_empty() {
            return refuse("no records".into());
        }
        if self.table.lock().partitions(topic).is_none_or(|count| partition >= count) {
            return refuse(format!("no partition {partition} of {topic}"));
        }
        let mut state = self.queue.state.lock();
        if let Some(why) = &state.failed {
            return refuse(why.clone());
        }
        if state.bytes + bytes > MAX_IN_FLIGHT_BYTES {
            return refuse("the queue of the bus is full".into());
        }
        let (ack, receiver) = oneshot::channel();
        state.bytes += bytes;
        state.waiting.push(Waiting { topic: topic.clone(), partition, records, bytes, ack });
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.queue.wake.notify_one();
        }
        Ack::waiting(receiver)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(TableReader::new(Arc::clone(&self.table), Arc::clone(&self.disk))))
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
        let mut new = Vec::new();
        for spec in topics {
            if table.ensure(spec)? {
                new.push(spec.clone());
            }
        }
        topics::add(&self.disk.dir, &new).map_err(|error| BusError::Unavailable { why: error.to_string() })
    }

    async fn health(&self) -> Result<(), BusError> {
        match &self.queue.state.lock().failed {
            None => Ok(()),
            Some(why) => Err(BusError::Unavailable { why: why.clone() }),
        }
    }
}
