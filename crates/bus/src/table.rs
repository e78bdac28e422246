//! Partitions of a bus that lives in this process: where their records are, who waits for them.
//!
//! Records are held in memory as long as they are young; then they are where the store has them, or gone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Batch, Reader, Record, Topic, TopicSpec};
use crate::{BusError, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, ReadError};

/// Where records are that are no longer in memory.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Where one append is.
    type Place: Clone + Send + Sync + 'static;

    /// The records of the append at `place` to this partition that begins with offset `first`.
    ///
    /// # Errors
    /// When they cannot be read or are damaged.
    async fn fetch(
        &self,
        place: Self::Place,
        topic: &Topic,
        partition: u32,
        first: u64,
    ) -> Result<Vec<Record>, BusError>;
}

/// Where the records of an append are, besides in memory as long as they are young.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept<P> {
    /// Nowhere: they go when they are no longer young.
    Nowhere,
    /// Nowhere yet: they stay young until they have a place.
    Soon,
    /// There.
    At(P),
}

impl<P> Kept<P> {
    fn place(&self) -> Option<&P> {
        match self {
            Self::At(place) => Some(place),
            Self::Nowhere | Self::Soon => None,
        }
    }
}

/// What one append wrote to one partition.
struct Chunk<P> {
    first: u64,
    count: u32,
    kept: Kept<P>,
    young: Option<Arc<[Record]>>,
}

struct Partition<P> {
    start: u64,
    chunks: VecDeque<Chunk<P>>,
    next: u64,
    readers: Vec<Weak<Inbox>>,
}

/// Partitions by topic and number.
pub struct Table<P> {
    partitions: BTreeMap<Topic, Vec<Partition<P>>>,
    /// Appends in memory that have a place besides, or get one.
    copies: Young,
    /// Appends that are nowhere else.
    momentary: Young,
}

/// How many bytes of young records there are at most, about.
#[derive(Clone, Copy, Debug)]
pub struct YoungLimits {
    /// Of those that are somewhere else too: what readers find without a look there.
    pub copies: usize,
    /// Of those that are nowhere else: a reader that is further behind has lost its place.
    pub momentary: usize,
}

/// Appends in memory, oldest first, and how much they hold.
struct Young {
    appends: VecDeque<(Topic, u32, u64, usize)>,
    bytes: usize,
    limit: usize,
}

impl Young {
    fn new(limit: usize) -> Self {
        Self { appends: VecDeque::new(), bytes: 0, limit }
    }
}

impl<P: Clone> Table<P> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: YoungLimits) -> Self {
        let (copies, momentary) = (Young::new(limits.copies), Young::new(limits.momentary));
        Self { partitions: BTreeMap::new(), copies, momentary }
    }

    /// Makes a topic unless it is there.
    ///
    /// # Errors
    /// When it is there with another number of partitions.
    pub fn ensure(&mut self, spec: &TopicSpec) -> Result<bool, BusError> {
        if let Some(there) = self.partitions.get(&spec.topic) {
            if there.len() as u32 == spec.partitions {
                return Ok(false);
            }
            let problem = format!("it has {} partitions and should have {}", there.len(), spec.partitions);
            return Err(BusError::WrongSettings { topic: spec.topic.clone(), problems: vec![problem] });
        }
        let empty = || Partition { start: 0, chunks: VecDeque::new(), next: 0, readers: Vec::new() };
        self.partitions
            .insert(spec.topic.clone(), std::iter::repeat_with(empty).take(spec.partitions as usize).collect());
        Ok(true)
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(&self, topic: &Topic) -> Option<u32> {
        self.partitions.get(topic).map(|all| all.len() as u32)
    }

    /// First offset, and the offset after the last one.
    #[must_use]
    pub fn offsets(&self, topic: &Topic, partition: u32) -> Option<Range<u64>> {
        self.partition(topic, partition).map(|it| it.start..it.next)
    }

    fn partition(&self, topic: &Topic, partition: u32) -> Option<&Partition<P>> {
        self.partitions.get(topic)?.get(partition as usize)
    }

    fn partition_mut(&mut self, topic: &Topic, partition: u32) -> Option<&mut Partition<P>> {
        self.partitions.get_mut(topic)?.get_mut(partition as usize)
    }

    /// Adds what an append wrote and wakes who waits for it.
    pub fn publish(&mut self, topic: &Topic, partition: u32, kept: Kept<P>, records: Vec<Record>) {
        let Some(first) = records.first().map(|record| record.offset) else { return };
        let bytes = records.iter().map(|record| record.value.len() + 64).sum();
        let count = records.len() as u32;
        let Some(target) = self.partition_mut(topic, partition) else { return };
        let is_momentary = matches!(kept, Kept::Nowhere);
        target.chunks.push_back(Chunk { first, count, kept, young: Some(records.into()) });
        target.next = first + u64::from(count);
        target.readers.retain(|reader| reader.upgrade().is_some_and(|reader| reader.wake(topic, partition)));
        let young = if is_momentary { &mut self.momentary } else { &mut self.copies };
        young.appends.push_back((topic.clone(), partition, first, bytes));
        young.bytes += bytes;
        self.age(is_momentary);
    }

    /// The append to a partition that begins with the offset `first` is there now.
    pub fn stored(&mut self, topic: &Topic, partition: u32, first: u64, place: P) {
        let Some(target) = self.partition_mut(topic, partition) else { return };
        if let Ok(at) = target.chunks.binary_search_by_key(&first, |chunk| chunk.first) {
            target.chunks[at].kept = Kept::At(place);
        }
    }

    /// Appends to a partition that have no place yet.
    #[must_use]
    pub fn not_stored(&self, topic: &Topic, partition: u32) -> usize {
        let chunks = self.partition(topic, partition).map(|it| it.chunks.iter().rev());
        chunks.map_or(0, |newest| newest.take_while(|chunk| matches!(chunk.kept, Kept::Soon)).count())
    }

    /// A partition goes on at `next`, above its end, and what it has is forgotten.
    pub fn skip(&mut self, topic: &Topic, partition: u32, next: u64) {
        let Some(target) = self.partition_mut(topic, partition).filter(|it| it.next < next) else { return };
        target.chunks.clear();
        (target.start, target.next) = (next, next);
    }

    /// Partitions that would lose all their records, and their next offsets.
    pub fn left_empty(&self, gone: impl Fn(&P) -> bool) -> Vec<(Topic, u32, u64)> {
        let all =
            self.partitions.iter().flat_map(|(topic, all)| all.iter().zip(0..).map(move |(it, n)| (topic, n, it)));
        all.filter(|(.., it)| it.next > 0 && it.chunks.back().is_none_or(|last| last.kept.place().is_some_and(&gone)))
            .map(|(topic, number, it)| (topic.clone(), number, it.next))
            .collect()
    }

    /// Notes an append that is only on disk (found when the store was opened); one without records says where the
    /// partition goes on.
    pub fn restore(&mut self, topic: &Topic, partition: u32, place: P, first: u64, count: u32) {
        self.skip(topic, partition, first);
        let Some(target) = self.partition_mut(topic, partition) else { return };
        if count > 0 {
            target.chunks.push_back(Chunk { first, count, kept: Kept::At(place), young: None });
        }
        target.next = first + u64::from(count);
    }

    fn age(&mut self, momentary: bool) {
        let Self { partitions, copies, momentary: only_here } = self;
        let young = if momentary { only_here } else { copies };
        // Each is looked at once: those that must stay go to the back.
        for _ in 0..young.appends.len() {
            if young.bytes <= young.limit {
                break;
            }
            let Some((topic, partition, first, bytes)) = young.appends.pop_front() else { break };
            if let Some(target) = partitions.get_mut(&topic).and_then(|all| all.get_mut(partition as usize))
                && let Ok(at) = target.chunks.binary_search_by_key(&first, |chunk| chunk.first)
            {
                match target.chunks[at].kept {
                    Kept::At(_) => target.chunks[at].young = None,
                    Kept::Soon => {
                        young.appends.push_back((topic, partition, first, bytes));
                        continue;
                    }
                    Kept::Nowhere => {
                        // The first one: whatever has no place ages in order.
                        target.chunks.drain(..=at);
                        target.start = target.chunks.front().map_or(target.next, |chunk| chunk.first);
                    }
                }
            }
            young.bytes -= bytes;
        }
    }

    /// Forgets appends at places for which `gone` holds; the partitions then start later.
    pub fn forget(&mut self, gone: impl Fn(&P) -> bool) {
        for partition in self.partitions.values_mut().flatten() {
            while partition.chunks.front().is_some_and(|chunk| chunk.kept.place().is_some_and(&gone)) {
                partition.chunks.pop_front();
            }
            partition.start = partition.chunks.front().map_or(partition.next, |chunk| chunk.first);
        }
    }

    /// Takes the last records of a partition away, and cuts the first ones: for tests of those who must notice.
    pub fn cut(&mut self, topic: &Topic, partition: u32, keep: Range<u64>) {
        let Some(target) = self.partition_mut(topic, partition) else { return };
        target.chunks.retain(|chunk| chunk.first >= keep.start && chunk.first + u64::from(chunk.count) <= keep.end);
        (target.start, target.next) = (keep.start, keep.end);
    }

    /// All records of a partition that are in memory, from its start on.
    #[must_use]
    pub fn young(&self, topic: &Topic, partition: u32) -> Vec<Record> {
        let chunks = self.partition(topic, partition).map(|it| it.chunks.iter());
        chunks
            .into_iter()
            .flatten()
            .filter_map(|chunk| chunk.young.as_ref())
            .flat_map(|it| it.iter().cloned())
            .collect()
    }

    fn find(&self, topic: &Topic, partition: u32, from: u64) -> Found<P> {
        let Some(target) = self.partition(topic, partition) else { return Found::Nothing };
        if from < target.start || from > target.next {
            return Found::OutOfRange(target.start..target.next);
        }
        if from == target.next {
            return Found::Nothing;
        }
        let at = target.chunks.partition_point(|chunk| chunk.first <= from).saturating_sub(1);
        let Some(chunk) = target.chunks.get(at) else { return Found::Nothing };
        if let (None, Some(place)) = (&chunk.young, chunk.kept.place()) {
            return Found::Old(place.clone(), chunk.first);
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for chunk in target.chunks.range(at..) {
            let Some(young) = &chunk.young else { break };
            for record in young.iter().filter(|record| record.offset >= from) {
                bytes += record.value.len() + 64;
                let full = records.len() >= MAX_BATCH_RECORDS || bytes > MAX_BATCH_BYTES;
                if full && !records.is_empty() {
                    return Found::Young(records);
                }
                records.push(record.clone());
            }
        }
        Found::Young(records)
    }
}

enum Found<P> {
    Nothing,
    OutOfRange(Range<u64>),
    Young(Vec<Record>),
    Old(P, u64),
}

/// Partitions with news for one reader.
struct Inbox {
    news: Mutex<VecDeque<(Topic, u32)>>,
    notify: Notify,
}

impl Inbox {
    fn wake(&self, topic: &Topic, partition: u32) -> bool {
        let mut news = self.news.lock();
        if !news.iter().any(|(t, p)| *p == partition && t == topic) {
            news.push_back((topic.clone(), partition));
        }
        drop(news);
        self.notify.notify_one();
        true
    }
}

/// Reads a [`Table`].
pub struct TableReader<S: Source> {
    table: Arc<Mutex<Table<S::Place>>>,
    source: Arc<S>,
    inbox: Arc<Inbox>,
    positions: BTreeMap<(Topic, u32), u64>,
}

impl<S: Source> TableReader<S> {
    /// A reader without partitions.
    #[must_use]
    pub fn new(table: Arc<Mutex<Table<S::Place>>>, source: Arc<S>) -> Self {
        let inbox = Arc::new(Inbox { news: Mutex::new(VecDeque::new()), notify: Notify::new() });
        Self { table, source, inbox, positions: BTreeMap::new() }
    }

    async fn batch(&mut self, topic: &Topic, partition: u32) -> Result<Option<Batch>, ReadError> {
        let key = (topic.clone(), partition);
        let Some(position) = self.positions.get(&key).copied() else { return Ok(None) };
        let found = self.table.lock().find(topic, partition, position);
        let records = match found {
            Found::Nothing => return Ok(None),
            Found::OutOfRange(range) => {
                self.remove(topic, partition);
                let (topic, low, high) = (topic.clone(), range.start, range.end);
                return Err(ReadError::OutOfRange { topic, partition, wanted: position, low, high });
            }
            Found::Young(records) => records,
            Found::Old(place, first) => {
                let mut records = match self.source.fetch(place, topic, partition, first).await {
                    Ok(records) => records,
                    Err(error) => {
                        self.inbox.wake(topic, partition);
                        return Err(error.into());
                    }
                };
                records.retain(|record| record.offset >= position);
                records
            }
        };
        let Some(last) = records.last().map(|record| record.offset) else { return Ok(None) };
        self.positions.insert(key, last + 1);
        Ok(Some(Batch { topic: topic.clone(), partition, records }))
    }

    async fn wait(&mut self) -> Result<Batch, ReadError> {
        loop {
            // Looked at, not taken: a cancelled call must leave the news where they are.
            let front = self.inbox.news.lock().front().cloned();
            let Some((topic, partition)) = front else {
                self.inbox.notify.notified().await;
                continue;
            };
            let result = self.batch(&topic, partition).await;
            {
                let mut news = self.inbox.news.lock();
                if news.front().is_some_and(|(t, p)| *p == partition && *t == topic) {
                    news.pop_front();
                }
            }
            match result {
                Ok(Some(batch)) => {
                    // There may be more of it, after the others.
                    self.inbox.wake(&topic, partition);
                    return Ok(batch);
                }
                Ok(None) => {
                    // What came between the look and the pop is seen by looking once more. The table is never locked
                    // while the news are: who publishes locks them in that order.
                    let next = self.positions.get(&(topic.clone(), partition)).copied();
                    let end = self.table.lock().offsets(&topic, partition).map(|range| range.end);
                    if next.is_some() && next < end {
                        self.inbox.wake(&topic, partition);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl<S: Source> Reader for TableReader<S> {
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError> {
        let mut table = self.table.lock();
        let Some(target) = table.partition_mut(topic, partition) else {
            return Err(BusError::NoSuchPartition { topic: topic.clone(), partition });
        };
        let own = Arc::downgrade(&self.inbox);
        if !target.readers.iter().any(|reader| reader.ptr_eq(&own)) {
            target.readers.push(own);
        }
        drop(table);
        self.positions.insert((topic.clone(), partition), from);
        self.inbox.wake(topic, partition);
        Ok(())
    }

    fn remove(&mut self, topic: &Topic, partition: u32) {
        self.positions.remove(&(topic.clone(), partition));
        let own = Arc::downgrade(&self.inbox);
        if let Some(target) = self.table.lock().partition_mut(topic, partition) {
            target.readers.retain(|reader| !reader.ptr_eq(&own));
        }
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError> {
        match tokio::time::timeout(wait, self.wait()).await {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }
}
