//! The log of a member: what openraft asks of it, over a store that is synced by a thread of its own.
//!
//! ```text
//! openraft ── append, vote, truncate, purge ──▶ memory ──▶ queue ──▶ thread: one frame, one sync ──▶ callbacks
//!          ◀────────── recent entries ───────── memory     older entries ◀── store
//! ```

mod file;
mod sled;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::types::{Entry, LogId, Types, Vote};

/// Bytes of recent entries kept in memory, so that replication does not read the disk.
const RECENT_BYTES: usize = 64 << 20;

/// What holds the log on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// Segmented files with checksums.
    #[default]
    File,
    /// A sled database, one value per group commit.
    Sled,
}

/// Why the log of a member cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The files are damaged, foreign, newer or not readable.
    #[error(transparent)]
    Journal(#[from] nova_journal::OpenError),
    /// The database cannot be opened or read.
    #[error("cannot open the log: {0}")]
    Database(String),
    /// What is written makes no log.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// Its thread could not start.
    #[error("cannot start the log's thread")]
    Thread(#[source] io::Error),
}

/// Facts about writing, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Data syncs.
    pub syncs: u64,
    /// Time spent in them and in writing, in microseconds.
    pub sync_us: u64,
    /// Entries written.
    pub entries: u64,
}

/// A change of the log. Changes are durable in the order in which they were asked for.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Vote(Vote),
    /// Contiguous entries behind the last one.
    Append(Vec<Entry>),
    /// Entries from this index on go.
    TruncateFrom(u64),
    /// Entries up to this one go.
    PurgeTo(LogId),
}

/// What a store found when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// Oldest entry there is; none when there are none.
    pub first: Option<u64>,
    pub last: Option<LogId>,
}

/// Keeps a log on disk. Used by one thread; it may block.
pub(crate) trait LogStore: Send + 'static {
    /// Makes the changes durable, all with one sync. A failure ends the member: nobody knows what is on disk then.
    fn commit(&mut self, changes: &[Change]) -> io::Result<()>;
}

/// Reads entries that left memory, from any thread that may block.
pub(crate) trait OldEntries: Send + Sync + 'static {
    /// The entries with index in `from..to`, all of which are on disk.
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>>;
}

pub(crate) type Opened = (Box<dyn LogStore>, Arc<dyn OldEntries>, Recovered);

fn open_store(kind: LogKind, dir: &Path, cluster: [u8; 16]) -> Result<Opened, OpenLogError> {
    match kind {
        LogKind::File => file::open(dir, cluster),
        LogKind::Sled => sled::open(dir, cluster),
    }
}

enum Done {
    Flushed(IOFlushed<Types>),
    Told(oneshot::Sender<io::Result<()>>),
}

#[derive(Default)]
struct Queue {
    changes: Vec<Change>,
    done: Vec<Done>,
    closed: bool,
}

#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// Index of the oldest entry there is; none when there are none.
    first: Option<u64>,
    last: Option<LogId>,
    /// The newest entries, contiguous, up to `last`.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// Entries up to this index are on disk and may leave memory.
    synced: u64,
}

fn size(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len() + 64,
        _ => 256,
    }
}

impl Memory {
    fn push(&mut self, entry: Entry) {
        self.first.get_or_insert(entry.log_id.index);
        self.last = Some(entry.log_id);
        self.recent_bytes += size(&entry);
        self.recent.push_back(entry);
    }

    fn evict(&mut self) {
        while self.recent_bytes > RECENT_BYTES
            && let Some(oldest) = self.recent.front()
            && oldest.log_id.index <= self.synced
        {
            self.recent_bytes -= size(oldest);
            self.recent.pop_front();
        }
    }

    fn truncate_from(&mut self, from: u64, last: Option<LogId>) {
        while let Some(newest) = self.recent.back().filter(|entry| entry.log_id.index >= from) {
            self.recent_bytes -= size(newest);
            self.recent.pop_back();
        }
        self.synced = self.synced.min(from.saturating_sub(1));
        self.first = self.first.filter(|first| *first < from);
        self.last = self.last.min(last);
    }

    fn purge_to(&mut self, to: LogId) {
        while let Some(oldest) = self.recent.front().filter(|entry| entry.log_id.index <= to.index) {
            self.recent_bytes -= size(oldest);
            self.recent.pop_front();
        }
        self.purged = Some(to);
        self.last = self.last.max(Some(to));
        let left = self.last.is_some_and(|last| last.index > to.index);
        self.first = self.first.map(|first| first.max(to.index + 1)).filter(|_| left);
    }
}

struct Shared {
    memory: Mutex<Memory>,
    queue: Mutex<Queue>,
    wake: Condvar,
    old: Arc<dyn OldEntries>,
    syncs: AtomicU64,
    sync_us: AtomicU64,
    entries: AtomicU64,
}

/// The log of a member. Clones are handles to the same log.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

impl Log {
    /// Opens the log in `dir`. Blocks while it is read.
    pub(crate) fn open(kind: LogKind, dir: &Path, cluster: [u8; 16]) -> Result<Self, OpenLogError> {
        let (store, old, found) = open_store(kind, dir, cluster)?;
        let memory = Memory {
            vote: found.vote,
            purged: found.purged,
            first: found.first,
            synced: found.last.map_or(0, |last| last.index),
            last: found.last.or(found.purged),
            ..Memory::default()
        };
        let shared = Arc::new(Shared {
            memory: Mutex::new(memory),
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            old,
            syncs: AtomicU64::new(0),
            sync_us: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("raft-log".into());
        thread.spawn(move || write_loop(&own, store)).map_err(OpenLogError::Thread)?;
        Ok(Self(shared))
    }

    pub(crate) fn stats(&self) -> LogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats { syncs: read(&self.0.syncs), sync_us: read(&self.0.sync_us), entries: read(&self.0.entries) }
    }

    /// Ends the thread once all that is waiting is written.
    pub(crate) fn close(&self) {
        self.0.queue.lock().closed = true;
        self.0.wake.notify_one();
    }

    fn enqueue(&self, change: Change, done: Option<Done>) {
        let mut queue = self.0.queue.lock();
        queue.changes.push(change);
        queue.done.extend(done);
        drop(queue);
        self.0.wake.notify_one();
    }

    async fn durable(&self, change: Change) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(change, Some(Done::Told(sender)));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log's thread has ended")))
    }
}

fn write_loop(shared: &Shared, mut store: Box<dyn LogStore>) {
    let seconds = metrics::histogram!(crate::metrics::SYNC_SECONDS);
    loop {
        let (changes, done) = {
            let mut queue = shared.queue.lock();
            while queue.changes.is_empty() {
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
            (std::mem::take(&mut queue.changes), std::mem::take(&mut queue.done))
        };
        let begun = Instant::now();
        let result = store.commit(&changes);
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        let took = begun.elapsed();
        shared.sync_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        seconds.record(took.as_secs_f64());
        if result.is_ok() {
            let mut memory = shared.memory.lock();
            for change in &changes {
                match change {
                    Change::Append(entries) => {
                        shared.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
                        if let Some(last) = entries.last() {
                            memory.synced = memory.synced.max(last.log_id.index);
                        }
                    }
                    // A later truncation in the queue has lowered it already; it must not rise above that.
                    Change::TruncateFrom(from) => memory.synced = memory.synced.min(from.saturating_sub(1)),
                    Change::Vote(_) | Change::PurgeTo(_) => {}
                }
            }
            memory.evict();
        }
        let failed = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        let answer = || match &failed {
            None => Ok(()),
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
        };
        for done in done {
            match done {
                Done::Flushed(callback) => callback.io_completed(answer()),
                Done::Told(sender) => {
                    let _ = sender.send(answer());
                }
            }
        }
        if let Some((_, why)) = failed {
            tracing::error!(why, "the log takes nothing more");
            return;
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let mut from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => *from + 1,
            Bound::Unbounded => 0,
        };
        let mut to = match range.end_bound() {
            Bound::Included(to) => *to + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let (mut entries, old_to) = {
            let memory = self.0.memory.lock();
            let Some((oldest, newest)) = memory.first.zip(memory.last) else { return Ok(Vec::new()) };
            from = from.max(oldest);
            to = to.min(newest.index + 1);
            let first = memory.recent.front().map_or(to, |entry| entry.log_id.index);
            let skip = from.saturating_sub(first) as usize;
            let take = to.saturating_sub(from.max(first)) as usize;
            let recent: Vec<_> = memory.recent.iter().skip(skip).take(take).cloned().collect();
            (recent, first.min(to))
        };
        if from < old_to {
            let old = Arc::clone(&self.0.old);
            let read = tokio::task::spawn_blocking(move || old.read(from, old_to)).await;
            let mut older = read.map_err(io::Error::other)??;
            older.append(&mut entries);
            entries = older;
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.memory.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let memory = self.0.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.memory.lock().vote = Some(*vote);
        self.durable(Change::Vote(*vote)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut memory = self.0.memory.lock();
        for entry in &entries {
            memory.push(entry.clone());
        }
        drop(memory);
        self.enqueue(Change::Append(entries), Some(Done::Flushed(callback)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.0.memory.lock().truncate_from(from, last);
        self.durable(Change::TruncateFrom(from)).await
    }

    async fn purge(&mut self, to: LogId) -> io::Result<()> {
        self.0.memory.lock().purge_to(to);
        self.durable(Change::PurgeTo(to)).await
    }
}
