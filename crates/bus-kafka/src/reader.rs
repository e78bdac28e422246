//! Reads partitions: one consumer on its own thread for each reader.
//!
//! ```text
//!   assign ──> wanted ──offset is in the log──> read ──out of range, topic gone──> told and removed
//!                ^  └─ no broker: told once, asked again           │
//!                └──────── told: an error that may hide a reset ───┘
//! ```
//!
//! The library says that something is wrong, but not with which partition. So each doubt sends all partitions back to
//! *wanted*: the log's bounds are asked for, and reading goes on where it stood, or is refused. The doubt is told once:
//! bounds do not show whether the log was cut and filled anew, and who must know looks at the record before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use nova_bus::{Batch, BusError, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, ReadError, Reader, Record, Topic};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;

use crate::bounds::{self, Key};
use crate::config::Config;
use crate::context::Watch;
use crate::names::Names;
use crate::topics::LAG;

/// Batches on their way from the thread to the reader. With the library's own limit this bounds what a slow reader
/// costs.
const WAITING_BATCHES: usize = 16;

/// Sleep of the thread when nothing wakes it.
const IDLE: Duration = Duration::from_secs(1);

/// Wait between questions to brokers that do not answer.
const RETRY: Duration = Duration::from_millis(100);

/// Longest wait for one answer; commands wait behind it.
const ASK: Duration = Duration::from_secs(1);

/// The same while a doubt is young: a question to a broker that is gone is never answered, and who leads in its place is
/// only asked behind it. A broker that is merely slow answers those after them.
const SHORT_ASK: Duration = Duration::from_millis(250);
const YOUNG: Duration = Duration::from_secs(6);

enum Command {
    Assign { topic: Topic, name: Arc<str>, partition: u32, from: u64, number: u64 },
    Remove { name: Arc<str>, partition: u32 },
}

/// A batch or an error, and the number of the assignment it belongs to: one from before a move is dropped.
struct Item {
    number: Option<u64>,
    partition: Option<(Topic, u32)>,
    result: Result<Batch, ReadError>,
}

pub(crate) struct KafkaReader {
    names: Arc<Names>,
    commands: std::sync::mpsc::Sender<Command>,
    items: mpsc::Receiver<Item>,
    thread: Thread,
    stalled: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    assigned: HashMap<(Topic, u32), u64>,
    next_number: u64,
}

impl KafkaReader {
    pub(crate) fn start(config: &Config, names: Arc<Names>) -> Result<Self, BusError> {
        let (commands, inbox) = std::sync::mpsc::channel();
        let (sender, items) = mpsc::channel(WAITING_BATCHES);
        let (stalled, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let unavailable = |why: String| BusError::Unavailable { why };
        let consumer = BaseConsumer::from_config_and_context(&config.consumer(), Watch::default());
        let mut consumer = consumer.map_err(|error| unavailable(error.to_string()))?;
        let (thread_stalled, thread_closed) = (Arc::clone(&stalled), Arc::clone(&closed));
        let handle = std::thread::Builder::new().name("kafka-reader".into()).spawn(move || {
            let me = std::thread::current();
            consumer.set_nonempty_callback(move || me.unpark());
            let fetcher = Fetcher {
                consumer,
                inbox,
                items: sender,
                waiting: VecDeque::new(),
                partitions: HashMap::new(),
                stalled: thread_stalled,
                closed: thread_closed,
                outage: false,
                doubted: None,
                ask_again: Instant::now(),
            };
            fetcher.run();
        });
        let handle = handle.map_err(|error| unavailable(format!("no thread for the reader: {error}")))?;
        let thread = handle.thread().clone();
        Ok(Self { names, commands, items, thread, stalled, closed, assigned: HashMap::new(), next_number: 0 })
    }

    fn send(&self, command: Command) {
        // The thread ends only after this reader; should it have died, `next` says so.
        drop(self.commands.send(command));
        self.thread.unpark();
    }

    async fn receive(&mut self) -> Result<Batch, ReadError> {
        loop {
            let item = self.items.recv().await;
            if self.stalled.swap(false, Ordering::AcqRel) {
                self.thread.unpark();
            }
            let Some(item) = item else {
                return Err(BusError::Unavailable { why: "the reader's thread has ended".into() }.into());
            };
            if let Some(partition) = item.partition {
                if self.assigned.get(&partition) != item.number.as_ref() {
                    continue;
                }
                if item.result.is_err() {
                    self.assigned.remove(&partition);
                }
            }
            return item.result;
        }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError> {
        let missing = || BusError::NoSuchPartition { topic: topic.clone(), partition };
        if self.names.known_partitions(topic).is_some_and(|count| partition >= count)
            || i32::try_from(partition).is_err()
        {
            return Err(missing());
        }
        self.next_number += 1;
        let number = self.next_number;
        self.assigned.insert((topic.clone(), partition), number);
        self.send(Command::Assign { topic: topic.clone(), name: self.names.of(topic), partition, from, number });
        Ok(())
    }

    fn remove(&mut self, topic: &Topic, partition: u32) {
        if self.assigned.remove(&(topic.clone(), partition)).is_some() {
            self.send(Command::Remove { name: self.names.of(topic), partition });
        }
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError> {
        match tokio::time::timeout(wait, self.receive()).await {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct Partition {
    topic: Topic,
    number: u64,
    next: u64,
    /// Whether the library reads it now.
    reading: bool,
    /// The log that was read is gone; the one of this name is another.
    replaced: bool,
    /// Whether it has been read since it was assigned.
    found: bool,
    /// When it was first said not to exist.
    missing_since: Option<Instant>,
    /// How often nobody said what its log holds.
    failed: u32,
}

impl Partition {
    fn new(topic: Topic, number: u64, next: u64) -> Self {
        Self { topic, number, next, reading: false, replaced: false, found: false, missing_since: None, failed: 0 }
    }

    /// Whether it is to be believed that it does not exist. What was read and is gone is gone; what is new may not be
    /// known to every broker yet.
    fn is_gone(&mut self) -> bool {
        self.found || self.missing_since.get_or_insert_with(Instant::now).elapsed() > LAG
    }
}

struct Fetcher {
    consumer: BaseConsumer<Watch>,
    inbox: std::sync::mpsc::Receiver<Command>,
    items: mpsc::Sender<Item>,
    /// What the channel had no room for.
    waiting: VecDeque<Item>,
    partitions: HashMap<Key, Partition>,
    stalled: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    /// No broker answers, or the logs may be others; the reader has been told.
    outage: bool,
    /// Since when the library may not read what it should.
    doubted: Option<Instant>,
    ask_again: Instant,
}

impl Fetcher {
    fn run(mut self) {
        while !self.closed.load(Ordering::Acquire) {
            self.obey();
            self.start_wanted();
            if self.pass_on() && self.read() {
                continue;
            }
            let wanted = self.partitions.values().any(|partition| !partition.reading);
            std::thread::park_timeout(if wanted { RETRY } else { IDLE });
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Assign { topic, name, partition, from, number } => {
                    let key = (name, partition.cast_signed());
                    self.stop(&key);
                    self.partitions.insert(key, Partition::new(topic, number, from));
                    self.ask_again = Instant::now();
                }
                Command::Remove { name, partition } => {
                    let key = (name, partition.cast_signed());
                    self.stop(&key);
                    self.partitions.remove(&key);
                }
            }
        }
    }

    /// Makes the library forget a partition, and what it has fetched of it.
    fn stop(&mut self, key: &Key) {
        let Some(partition) = self.partitions.get_mut(key).filter(|partition| partition.reading) else { return };
        partition.reading = false;
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(%error, topic = &*key.0, partition = key.1, "kafka partition not released");
        }
    }

    /// Asks whether the wanted offsets are in the log, and reads those that are.
    fn start_wanted(&mut self) {
        if Instant::now() < self.ask_again {
            return;
        }
        let mut wanted: Vec<Key> =
            self.partitions.iter().filter(|(_, it)| !it.reading).map(|(key, _)| key.clone()).collect();
        if wanted.is_empty() {
            return;
        }
        // What that does not say is asked for each by itself.
        let wait = if self.doubted.is_some_and(|since| since.elapsed() < YOUNG) { SHORT_ASK } else { ASK / 2 };
        let known = bounds::ask(&self.consumer, &wanted, wait).unwrap_or_default();
        // Those that cannot be had wait behind those that can, and for each other.
        wanted.sort_by_key(|key| (!known.contains_key(key), self.partitions.get(key).map(|it| it.failed)));
        let mut list = TopicPartitionList::new();
        for key in wanted {
            let Some(partition) = self.partitions.get(&key) else { continue };
            let (next, replaced) = (partition.next, partition.replaced);
            let found = match known.get(&key) {
                Some(range) => Ok((range.start.cast_signed(), range.end.cast_signed())),
                None => self.consumer.fetch_watermarks(&key.0, key.1, wait),
            };
            match found {
                Ok((low, high)) => {
                    (self.outage, self.doubted) = (false, None);
                    let (low, high) = (low.max(0).cast_unsigned(), high.max(0).cast_unsigned());
                    if next < low || next > high || (replaced && next > 0) {
                        self.refuse(&key, |topic, partition| ReadError::OutOfRange {
                            topic,
                            partition,
                            wanted: next,
                            low,
                            high,
                        });
                        continue;
                    }
                    let offset = Offset::Offset(next.cast_signed());
                    if let Err(error) = list.add_partition_offset(&key.0, key.1, offset) {
                        let why = error.to_string();
                        self.refuse(&key, |_, _| BusError::Unavailable { why }.into());
                    }
                }
                Err(error) if missing(&error) && self.certainly_missing(&key) => {
                    if !self.partitions.get_mut(&key).is_some_and(Partition::is_gone) {
                        self.ask_again = Instant::now() + RETRY;
                        continue;
                    }
                    self.refuse(&key, |topic, partition| BusError::NoSuchPartition { topic, partition }.into());
                }
                Err(error) => {
                    // Others would wait as long for the same answer.
                    self.ask_again = Instant::now() + RETRY;
                    if let Some(partition) = self.partitions.get_mut(&key) {
                        partition.failed += 1;
                    }
                    if gone(&error) {
                        self.tell_outage(&error);
                    }
                    tracing::debug!(%error, topic = &*key.0, partition = key.1, "kafka offsets not known");
                    // Another broker may lead the partition by now, and the library by itself asks who does once a second.
                    drop(self.consumer.fetch_metadata(Some(&key.0), ASK / 10));
                    break;
                }
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.incremental_assign(&list) {
            tracing::warn!(%error, "kafka partitions not assigned");
            self.ask_again = Instant::now() + RETRY;
            return;
        }
        for element in list.elements() {
            if let Some(partition) = self.partitions.get_mut(&(Arc::from(element.topic()), element.partition())) {
                (partition.reading, partition.found) = (true, true);
            }
        }
    }

    /// A broker that has just started can deny a partition that it has not heard of yet; metadata is what counts.
    fn certainly_missing(&self, key: &Key) -> bool {
        let Ok(metadata) = self.consumer.fetch_metadata(Some(&key.0), ASK) else { return false };
        let Some(topic) = metadata.topics().first() else { return false };
        match topic.error().map(Code::from) {
            None => !topic.partitions().iter().any(|partition| partition.id() == key.1),
            Some(code) => matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic),
        }
    }

    fn refuse(&mut self, key: &Key, error: impl FnOnce(Topic, u32) -> ReadError) {
        let Some(Partition { topic, number, .. }) = self.partitions.remove(key) else { return };
        let partition = key.1.cast_unsigned();
        self.waiting.push_back(Item {
            number: Some(number),
            partition: Some((topic.clone(), partition)),
            result: Err(error(topic, partition)),
        });
    }

    fn tell_outage(&mut self, error: &KafkaError) {
        if !std::mem::replace(&mut self.outage, true) {
            let error = BusError::Unavailable { why: error.to_string() };
            self.waiting.push_back(Item { number: None, partition: None, result: Err(error.into()) });
        }
    }

    /// Moves what waits into the channel; whether there is room for more.
    fn pass_on(&mut self) -> bool {
        while let Some(item) = self.waiting.pop_front() {
            // Said before the channel is tried: room that is made after the try is then followed by a wake-up.
            self.stalled.store(true, Ordering::Release);
            match self.items.try_send(item) {
                Ok(()) => self.stalled.store(false, Ordering::Release),
                Err(mpsc::error::TrySendError::Full(item)) => {
                    self.waiting.push_front(item);
                    return false;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        true
    }

    /// Takes what the library has, as far as there is room for it; whether there may be more.
    fn read(&mut self) -> bool {
        let mut collected = Collected::default();
        let mut doubt = None;
        loop {
            let polled = self.consumer.poll(Duration::ZERO);
            let (logged, replaced) = self.consumer.context().take();
            if !replaced.is_empty() {
                // Said before the first record of the new log, since both come through one queue.
                self.waiting.extend(collected.finish(&mut self.partitions));
                self.replaced(&replaced);
                return true;
            }
            match polled {
                // A line of the log ends a poll as if nothing more were there.
                None if logged => {}
                None => break,
                Some(Ok(message)) => {
                    if !collected.has_room_for(&message) {
                        self.waiting.extend(collected.finish(&mut self.partitions));
                        collected.begin(&message);
                    }
                    collected.add(&message);
                    if self.waiting.len() >= WAITING_BATCHES {
                        break;
                    }
                }
                Some(Err(error)) => {
                    doubt = Some(error);
                    break;
                }
            }
        }
        self.waiting.extend(collected.finish(&mut self.partitions));
        let more = !self.waiting.is_empty() || doubt.is_some();
        if let Some(error) = doubt {
            self.doubt(&error);
        }
        more
    }

    fn replaced(&mut self, topics: &[String]) {
        let changed = |(topic, _): &&Key| topics.iter().any(|changed| **changed == **topic);
        let keys: Vec<Key> = self.partitions.keys().filter(changed).cloned().collect();
        for key in keys {
            self.stop(&key);
            if let Some(partition) = self.partitions.get_mut(&key) {
                partition.replaced = true;
            }
        }
        self.ask_again = Instant::now();
    }

    fn doubt(&mut self, error: &KafkaError) {
        tracing::debug!(%error, "kafka consumer error");
        if !gone(error) && !resets(error) {
            return;
        }
        self.tell_outage(error);
        self.doubted.get_or_insert_with(Instant::now);
        let all: Vec<Key> = self.partitions.keys().cloned().collect();
        all.iter().for_each(|key| self.stop(key));
        self.ask_again = Instant::now();
    }
}

/// Records of one partition that came one after the other.
#[derive(Default)]
struct Collected {
    key: Option<Key>,
    records: Vec<Record>,
    bytes: usize,
}

impl Collected {
    fn has_room_for(&self, message: &BorrowedMessage<'_>) -> bool {
        let Some((topic, partition)) = &self.key else { return false };
        (&**topic, *partition) == (message.topic(), message.partition())
            && self.records.len() < MAX_BATCH_RECORDS
            && self.bytes + message.payload_len() + message.key_len() <= MAX_BATCH_BYTES
    }

    fn begin(&mut self, message: &BorrowedMessage<'_>) {
        *self = Self { key: Some((message.topic().into(), message.partition())), ..Self::default() };
    }

    fn add(&mut self, message: &BorrowedMessage<'_>) {
        self.bytes += message.payload_len() + message.key_len() + 64;
        self.records.push(record(message));
    }

    fn finish(&mut self, partitions: &mut HashMap<Key, Partition>) -> Option<Item> {
        let partition = partitions.get_mut(self.key.as_ref()?).filter(|partition| partition.reading)?;
        let mut records = std::mem::take(&mut self.records);
        // What the library had fetched before a move back is not what was asked for.
        records.retain(|record| record.offset >= partition.next);
        partition.next = records.last()?.offset + 1;
        let (topic, number) = (partition.topic.clone(), partition.number);
        let place = (topic.clone(), self.key.as_ref()?.1.cast_unsigned());
        let batch = Batch { topic, partition: place.1, records };
        Some(Item { number: Some(number), partition: Some(place), result: Ok(batch) })
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    // The library's memory ends with the message, so each record is copied once here and never again.
    let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let all = headers.iter();
        all.map(|header| (header.key.into(), copy(header.value).unwrap_or_default())).collect()
    });
    Record {
        offset: message.offset().max(0).cast_unsigned(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0).cast_unsigned(),
        key: copy(message.key()),
        headers,
        value: copy(message.payload()).unwrap_or_default(),
    }
}

/// No broker answers.
fn gone(error: &KafkaError) -> bool {
    use Code::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, RequestTimedOut, Resolve};
    match error {
        // One connection of several may be lost without harm; the library says when it was the last one.
        KafkaError::MessageConsumption(code) => *code == AllBrokersDown,
        _ => matches!(
            error.rdkafka_error_code(),
            Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | RequestTimedOut | Resolve)
        ),
    }
}

/// The partition or its topic does not exist, says somebody.
fn missing(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition))
}

/// The log may not be the one that was read, or the library reads a partition no more.
fn resets(error: &KafkaError) -> bool {
    use Code::{AutoOffsetReset, NoOffset, OffsetOutOfRange, TopicAuthorizationFailed, UnknownTopicId};
    let lost = [AutoOffsetReset, NoOffset, OffsetOutOfRange, TopicAuthorizationFailed, UnknownTopicId];
    missing(error)
        || matches!(error, KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code().is_some_and(|code| lost.contains(&code))
}
