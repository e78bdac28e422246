//! A durable bus in one directory, for one process.
//!
//! Owns: the files, group commit, retention by size that never takes a command which is needed.
//! Must not know: what a record says, who reads it.
//!
//! All partitions of all topics share one journal, so a group commit costs one data sync however many partitions it
//! touches. A thread of its own takes what is waiting, writes it as one frame, syncs, and only then answers and shows it
//! to readers. While it syncs, the next frame gathers: there is no timer.
//!
//! Where commands are *early*, their readers see them before they are on the disk: whoever applies them makes them durable
//! itself, and one sync on their way is enough. After a crash the coordinator may then know of commands that the bus has
//! lost, so it is asked before new ones are taken ([`EmbeddedBus::resume`]).
//!
//! Momentary topics are in memory alone: whoever reads them begins at their end, and lives in this process.

mod early;
mod format;
#[doc(hidden)]
pub mod hostile;
mod retention;
mod topics;
mod writer;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use nova_bus::table::{Kept, Source, Table, TableReader, YoungLimits};
use nova_bus::{Ack, AppendError, Bus, BusError, MAX_RECORD_BYTES, Outgoing, Reader, Record, Topic, TopicSpec};
use nova_journal::{DirLock, FrameReader, Journal, LockError, OpenError, Options, Position};
use parking_lot::Mutex;

use crate::early::EarlyAck;
use crate::retention::Retention;
use crate::writer::{Commands, Queue, QueueState, UNKNOWN, Writer, now_ms, stamp};

/// Records kept in memory: of the topics on disk about a second of the highest load, which readers are behind at most
/// while all is well; of the momentary ones more, since a reader that is further behind has lost its place.
const YOUNG: YoungLimits = YoungLimits { copies: 16 << 20, momentary: 64 << 20 };
/// Appends of commands to one partition that are shown and not on the disk, and so the most that a crash can lose of it.
const EARLY: usize = 1_024;
const MAGIC: [u8; 8] = *b"NOVABUS1";

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; nobody else may use it.
    pub dir: PathBuf,
    /// The cluster; a directory of another one is refused.
    pub cluster: [u8; 16],
    /// Oldest segments go when all together are larger, in bytes; at least two segments. Those with commands that are
    /// neither applied nor past the topic's retention stay, and then no more commands are taken.
    pub retention_bytes: u64,
    /// Size of a segment file, in bytes: the step in which space is taken and given back.
    pub segment_bytes: u64,
    /// Whether commands are shown before they are on the disk; then none is taken before [`EmbeddedBus::resume`].
    pub early_commands: bool,
}

impl Config {
    /// Segments of 64 MiB, 4 GiB in all; commands are on the disk before they are shown.
    #[must_use]
    pub fn new(dir: PathBuf, cluster: [u8; 16]) -> Self {
        Self { dir, cluster, retention_bytes: 4 << 30, segment_bytes: 64 << 20, early_commands: false }
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

struct Disk {
    dir: PathBuf,
}

impl EmbeddedBus {
    /// Opens the bus in a directory, making it when it is not there. Blocks while the journal is read.
    ///
    /// # Errors
    /// See [`OpenBusError`].
    pub fn open(config: Config) -> Result<Self, OpenBusError> {
        let begun = Instant::now();
        let lock = DirLock::take(&config.dir)?;
        let mut table = Table::new(YOUNG);
        let mut retention = Retention::default();
        for spec in topics::load(&config.dir)? {
            retention.topic(&spec);
            // A list without doubles cannot be refused.
            let _ = table.ensure(&spec);
        }
        let options = Options { magic: MAGIC, cluster: config.cluster, segment_bytes: config.segment_bytes };
        let mut damaged = None;
        let journal = Journal::open(&config.dir, options, |place, _, frame| {
            let read = format::chunks(&frame, |chunk| {
                table.restore(&chunk.topic, chunk.partition, place, chunk.first, chunk.count);
                if chunk.count > 0 {
                    let end = chunk.first + u64::from(chunk.count);
                    retention.note(place.segment, &chunk.topic, chunk.partition, end, chunk.timestamp_ms);
                }
            });
            if read.is_none() {
                damaged.get_or_insert(place);
            }
        })?;
        if let Some(place) = damaged {
            let path = config.dir.join(format!("{:016x}.log", place.segment));
            return Err(OpenError::Damaged { path, offset: place.offset }.into());
        }
        tracing::info!(
            ms = begun.elapsed().as_millis() as u64,
            bytes = journal.bytes(),
            "the journal of the bus was read"
        );
        let table = Arc::new(Mutex::new(table));
        let limit = config.retention_bytes.max(2 * config.segment_bytes);
        let commands = if config.early_commands { Commands::Unknown } else { Commands::Durable };
        let state = QueueState { stored: journal.bytes(), limit, commands, ..QueueState::default() };
        let queue = Queue { state: state.into(), retention: retention.into(), ..Queue::default() };
        let queue = Arc::new(queue);
        let writer = Writer { journal, table: Arc::clone(&table), queue: Arc::clone(&queue) };
        let thread = std::thread::Builder::new().name("bus-writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(OpenBusError::Thread)?;
        Ok(Self { table, queue, disk: Arc::new(Disk { dir: config.dir }), writer: Some(writer), _lock: lock })
    }

    /// Takes early commands from now on. `applied` gives the next offset of each partition, as the coordinator has it: where
    /// a crash took commands that were applied, the partition goes on behind them. A gap that no crash explains stays, for
    /// the scheduler to find.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub async fn resume(&self, applied: impl IntoIterator<Item = (u32, u64)>) -> Result<(), AppendError> {
        let mut marks = Vec::new();
        for (partition, next) in applied {
            let end = self.table.lock().offsets(&Topic::Commands, partition).map_or(next, |range| range.end);
            if end < next && next - end <= EARLY as u64 {
                tracing::info!(partition, end, next, "commands were applied that the bus had lost");
                self.table.lock().skip(&Topic::Commands, partition, next);
                let early = Some((next, now_ms()));
                marks.push(self.queue.state.lock().push(&self.queue, Topic::Commands, partition, Vec::new(), early));
            }
        }
        for mark in marks {
            mark.await?;
        }
        self.queue.state.lock().commands = Commands::Early;
        Ok(())
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

#[async_trait]
impl Source for Disk {
    type Place = Position;

    async fn fetch(&self, place: Position, topic: &Topic, partition: u32, first: u64) -> Result<Vec<Record>, BusError> {
        let dir = self.dir.clone();
        let unavailable = |why: String| BusError::Unavailable { why };
        let frame = tokio::task::spawn_blocking(move || FrameReader::new(&dir).read(place))
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
        for record in &records {
            let size = record.size();
            if size > MAX_RECORD_BYTES {
                return Ack::ready(Err(AppendError::TooLarge { bytes: size }));
            }
        }
        if records.is_empty() {
            return refuse("no records".into());
        }
        let missing = || refuse(format!("no partition {partition} of {topic}"));
        if topic.is_momentary() {
            let mut table = self.table.lock();
            let Some(range) = table.offsets(topic, partition) else { return missing() };
            table.publish(topic, partition, Kept::Nowhere, stamp(records, range.end, now_ms()));
            return Ack::ready(Ok(range.end));
        }
        // Held until the append has its place in the queue: offsets that are given here are those that are written.
        let mut state = self.queue.state.lock();
        if let Some(why) = state.refuses(topic, &records) {
            return refuse(why);
        }
        let mut table = self.table.lock();
        let Some(range) = table.offsets(topic, partition) else { return missing() };
        let mut early = None;
        if *topic == Topic::Commands && state.commands == Commands::Early {
            if table.not_stored(topic, partition) >= EARLY {
                return refuse("too many commands wait for the disk".into());
            }
            let now_ms = now_ms();
            table.publish(topic, partition, Kept::Soon, stamp(records.clone(), range.end, now_ms));
            early = Some((range.end, now_ms));
        }
        drop(table);
        state.push(&self.queue, topic.clone(), partition, records, early)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(TableReader::new(Arc::clone(&self.table), Arc::clone(&self.disk))))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        if *topic == Topic::Commands && self.queue.state.lock().commands == Commands::Unknown {
            return Err(BusError::Unavailable { why: UNKNOWN.into() });
        }
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
                self.queue.retention.lock().topic(spec);
                new.push(spec.clone());
            }
        }
        topics::add(&self.disk.dir, &new).map_err(|error| BusError::Unavailable { why: error.to_string() })
    }

    /// Without being told, the bus keeps commands for as long as their topic says.
    fn commands_applied(&self, partition: u32, next: u64) {
        self.queue.retention.lock().applied(partition, next);
        let done = self.queue.state.lock().early.upto(partition, next);
        done.into_iter().for_each(EarlyAck::succeed);
    }

    async fn health(&self) -> Result<(), BusError> {
        let state = self.queue.state.lock();
        let unknown = || (state.commands == Commands::Unknown).then(|| UNKNOWN.to_owned());
        let why = state.failed.clone().or_else(unknown);
        why.map_or(Ok(()), |why| Err(BusError::Unavailable { why }))
    }
}
