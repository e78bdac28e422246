//! The log of a member: what openraft asks of it, over a store that is synced by a thread of its own.
//!
//! ```text
//! openraft ── append, vote, truncate, purge ──▶ memory ──▶ queue ──▶ thread: one frame, one sync ──▶ callbacks
//!          ◀────────── recent entries ───────── memory     older entries ◀── store
//! ```

#[cfg(test)]
mod faults;
mod file;
mod memory;
mod sled;
mod writer;

use std::fmt::{self, Debug, Display};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::memory::Memory;
use self::writer::{Done, Writer};
use crate::types::{Entry, LogId, Types, Vote};

/// Entries that are read at once to be applied. After a restart one may have a megabyte.
const RUN: u64 = 64;
/// So many times are read or being read while the first of them is applied.
const RUNS_AHEAD: usize = 3;

/// What holds the log on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// Segmented files with checksums.
    #[default]
    File,
    /// A sled database, one value per group commit.
    Sled,
}

impl LogKind {
    /// Its directory in that of the member.
    pub(crate) fn dir(self, member: &Path) -> PathBuf {
        member.join(match self {
            Self::File => "log",
            Self::Sled => "log.sled",
        })
    }

    /// The kind of the log in a member's directory; none when there is none.
    pub(crate) fn found(member: &Path) -> io::Result<Option<Self>> {
        for kind in [Self::File, Self::Sled] {
            match std::fs::read_dir(kind.dir(member)).map(|mut entries| entries.next().is_some()) {
                Ok(true) => return Ok(Some(kind)),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Refuses the directory of a member whose log is of another kind. Changes nothing.
    pub(crate) fn check(self, member: &Path) -> Result<(), OpenLogError> {
        for found in [Self::File, Self::Sled].into_iter().filter(|kind| *kind != self) {
            let path = found.dir(member);
            match std::fs::read_dir(&path).map(|mut entries| entries.next().is_some()) {
                Ok(true) => return Err(OpenLogError::OtherKind { path, found, wanted: self }),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(nova_journal::OpenError::Io { path, source }.into()),
            }
        }
        Ok(())
    }
}

impl Display for LogKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::File => "file",
            Self::Sled => "sled",
        })
    }
}

/// Why the log of a member cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The files are foreign, newer or not readable.
    #[error(transparent)]
    Journal(nova_journal::OpenError),
    /// The database cannot be opened or read.
    #[error("cannot open the log {path}: {why}")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What is written makes no log. An older copy is no way out: it has forgotten what the member promised since.
    #[error(
        "the log {path} is damaged: {why}; take the member out and let it in again, empty, under a new number (a cluster \
         of one: restore its whole data directory from a backup)"
    )]
    Damaged {
        /// Its directory or file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The member's log is of another kind. With an empty one beside it the member would forget its votes.
    #[error("{path} holds the member's log, which is of kind {found}, and {wanted} is wanted: set log = \"{found}\"")]
    OtherKind {
        /// Directory of that log.
        path: PathBuf,
        /// What it was made with.
        found: LogKind,
        /// What the member was to start with.
        wanted: LogKind,
    },
    /// Its thread could not start.
    #[error("cannot start the log's thread")]
    Thread(#[source] io::Error),
}

impl From<nova_journal::OpenError> for OpenLogError {
    fn from(error: nova_journal::OpenError) -> Self {
        match error {
            nova_journal::OpenError::Damaged { path, offset } => {
                Self::Damaged { path, why: format!("byte {offset} is not what was written") }
            }
            nova_journal::OpenError::Older { path, found, promised } => {
                let why =
                    format!("it is older than it was: its next number would be {found}, and was {promised} before");
                Self::Damaged { path, why }
            }
            other => Self::Journal(other),
        }
    }
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
    /// Of the last syncs, the median, in microseconds.
    pub median_us: u64,
    /// Of the last syncs, the longest, in microseconds.
    pub longest_us: u64,
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

pub(crate) fn open_store(kind: LogKind, dir: &Path, cluster: [u8; 16]) -> Result<Opened, OpenLogError> {
    match kind {
        LogKind::File => file::open(dir, cluster),
        LogKind::Sled => sled::open(dir, cluster),
    }
}

/// The log of a member. Clones are handles to the same log.
#[derive(Clone)]
pub(crate) struct Log {
    memory: Arc<Mutex<Memory>>,
    writer: Arc<Writer>,
    old: Arc<dyn OldEntries>,
}

impl Log {
    /// Opens the log in `dir`. Blocks while it is read.
    pub(crate) fn open(kind: LogKind, dir: &Path, cluster: [u8; 16]) -> Result<Self, OpenLogError> {
        Self::over(open_store(kind, dir, cluster)?)
    }

    pub(crate) fn over((store, old, found): Opened) -> Result<Self, OpenLogError> {
        let memory = Arc::new(Mutex::new(Memory::recovered(&found)));
        let writer = Writer::start(store, Arc::clone(&memory)).map_err(OpenLogError::Thread)?;
        Ok(Self { memory, writer, old })
    }

    /// The oldest entry there is, or would be: those before it were purged.
    pub(crate) fn oldest(&self) -> u64 {
        let memory = self.memory.lock();
        memory.first.or(memory.purged.map(|last| last.index + 1)).unwrap_or(0)
    }

    pub(crate) fn stats(&self) -> LogStats {
        self.writer.stats()
    }

    /// Ends the thread once all that is waiting is written.
    pub(crate) fn close(&self) {
        self.writer.close();
    }

    async fn durable(&self, change: Change) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.writer.enqueue(change, Some(Done::Told(sender)));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log's thread has ended")))
    }
}

/// The first index of a range, and the one behind its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => *from + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => *to + 1,
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for Log {
    /// What is applied after a restart is read while what stands before it is applied, and not all of it at once.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        let to = self.memory.lock().last.map_or(0, |last| to.min(last.index + 1));
        let log = self.clone();
        let runs = (from..to).step_by(RUN as usize).map(move |first| {
            let mut log = log.clone();
            async move { log.try_get_log_entries(first..to.min(first + RUN)).await }
        });
        let runs = futures::stream::iter(runs).buffered(RUNS_AHEAD);
        runs.map_ok(|run| futures::stream::iter(run.into_iter().map(Ok))).try_flatten()
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut from, mut to) = bounds(&range);
        let (mut entries, old_to) = {
            let memory = self.memory.lock();
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
            let old = Arc::clone(&self.old);
            let read = nova_host::blocking::run(move || old.read(from, old_to)).await;
            let mut older = read.map_err(io::Error::other)??;
            older.append(&mut entries);
            entries = older;
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let memory = self.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.memory.lock().vote = Some(*vote);
        self.durable(Change::Vote(*vote)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut callback = Some(Done::Flushed(callback));
        let mut runs = writer::runs(entries.into_iter().collect()).into_iter().peekable();
        while let Some(run) = runs.next() {
            self.writer.room().await;
            let mut memory = self.memory.lock();
            run.iter().for_each(|entry| memory.push(entry.clone()));
            drop(memory);
            // The last run is the last to be durable, and speaks for all.
            let done = if runs.peek().is_none() { callback.take() } else { None };
            self.writer.enqueue(Change::Append(run), done);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.memory.lock().truncate_from(from, last);
        self.durable(Change::TruncateFrom(from)).await
    }

    async fn purge(&mut self, to: LogId) -> io::Result<()> {
        self.memory.lock().purge_to(to);
        self.durable(Change::PurgeTo(to)).await
    }
}
