//! The thread that makes changes durable, and the queue before it.
//!
//! All that is waiting is written as one frame with one sync, up to [`FRAME_BYTES`]. The first failure is the last: it
//! answers all that wait and all that come later, so that nobody waits for a thread that has ended.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::Histogram;
use nova_host::blocking;
use nova_plants::Plant;
use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::memory::{Memory, size};
use super::{Change, LogStats, LogStore};
use crate::types::{Entry, Types};

/// Bytes that make a frame full: well below what a journal takes, and enough to use a disk fully.
const FRAME_BYTES: usize = 16 << 20;
/// Bytes that may wait for the disk; whoever appends beyond that waits too, and so do those who propose.
const WAITING_BYTES: usize = 128 << 20;
/// Syncs of which it is known how long they took.
const LAST_SYNCS: usize = 200;

/// Who is told that a change is durable.
pub(super) enum Done {
    Flushed(IOFlushed<Types>),
    Told(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn answer(self, failed: Option<&Failure>) {
        let result = failed.map_or(Ok(()), |failed| Err(io::Error::new(failed.kind, failed.why.clone())));
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // Who no longer waits needs no answer.
            Self::Told(sender) => drop(sender.send(result)),
        }
    }
}

#[derive(Clone)]
struct Failure {
    kind: io::ErrorKind,
    why: String,
}

struct Waiting {
    change: Change,
    bytes: usize,
    done: Option<Done>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting` and in the frame that is being written.
    bytes: usize,
    closed: bool,
    failed: Option<Failure>,
}

/// Wakes who writes.
enum Work {
    Thread(Condvar),
    /// A task, where there is no other thread.
    Task(Notify),
}

impl Default for Work {
    fn default() -> Self {
        if blocking::is_alone() { Self::Task(Notify::new()) } else { Self::Thread(Condvar::new()) }
    }
}

impl Work {
    fn arrived(&self) {
        match self {
            Self::Thread(thread) => drop(thread.notify_one()),
            Self::Task(task) => task.notify_one(),
        }
    }
}

/// What is written at once.
struct Frame {
    changes: Vec<Change>,
    done: Vec<Done>,
    bytes: usize,
}

/// Hands changes to the thread.
#[derive(Default)]
pub(super) struct Writer {
    queue: Mutex<Queue>,
    work: Work,
    room: Notify,
    syncs: AtomicU64,
    sync_us: AtomicU64,
    entries: AtomicU64,
    /// How long the last syncs took, in microseconds.
    last_us: Mutex<VecDeque<u64>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(store: Box<dyn LogStore>, memory: Arc<Mutex<Memory>>) -> io::Result<Arc<Self>> {
        let own = Arc::new(Self::default());
        let writer = Arc::clone(&own);
        match &own.work {
            Work::Thread(_) => {
                std::thread::Builder::new().name("raft-log".into()).spawn(move || writer.run(store, &memory))?;
            }
            Work::Task(_) => drop(tokio::spawn(async move { writer.run_here(store, &memory).await })),
        }
        Ok(own)
    }

    pub(super) fn stats(&self) -> LogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut last: Vec<u64> = self.last_us.lock().iter().copied().collect();
        last.sort_unstable();
        LogStats {
            syncs: read(&self.syncs),
            sync_us: read(&self.sync_us),
            entries: read(&self.entries),
            median_us: last.get(last.len() / 2).copied().unwrap_or(0),
            longest_us: last.last().copied().unwrap_or(0),
        }
    }

    /// Ends the thread once all that is waiting is written.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.work.arrived();
    }

    /// Waits until the disk has caught up enough for more.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.room.notified());
            // Asked for before the look, so that what is freed in between is not missed.
            freed.as_mut().enable();
            {
                let queue = self.queue.lock();
                if queue.bytes < WAITING_BYTES || queue.failed.is_some() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// Hands a change over; once the log has failed, the answer comes at once.
    pub(super) fn enqueue(&self, change: Change, done: Option<Done>) {
        let bytes = match &change {
            Change::Append(entries) => entries.iter().map(size).sum(),
            Change::Vote(_) | Change::TruncateFrom(_) | Change::PurgeTo(_) => 0,
        };
        let mut queue = self.queue.lock();
        if let Some(failed) = queue.failed.clone() {
            drop(queue);
            return done.into_iter().for_each(|done| done.answer(Some(&failed)));
        }
        let done = match done {
            Some(early @ Done::Flushed(_)) if nova_plants::is(Plant::AckBeforeSync) => {
                early.answer(None);
                None
            }
            done => done,
        };
        queue.bytes += bytes;
        queue.waiting.push_back(Waiting { change, bytes, done });
        drop(queue);
        self.work.arrived();
    }

    fn run(&self, mut store: Box<dyn LogStore>, memory: &Mutex<Memory>) {
        let seconds = metrics::histogram!(crate::metrics::SYNC_SECONDS);
        let Work::Thread(work) = &self.work else { return };
        loop {
            let frame = {
                let mut queue = self.queue.lock();
                while queue.waiting.is_empty() && !queue.closed {
                    work.wait(&mut queue);
                }
                Self::next_frame(&mut queue)
            };
            let Some(frame) = frame else { break };
            let result = self.write(&mut *store, &frame, &seconds);
            if !self.written(result, frame, memory) {
                return;
            }
        }
        self.closed();
    }

    /// The same as a task.
    async fn run_here(&self, mut store: Box<dyn LogStore>, memory: &Mutex<Memory>) {
        let seconds = metrics::histogram!(crate::metrics::SYNC_SECONDS);
        let Work::Task(work) = &self.work else { return };
        loop {
            // What is said before this waits is kept.
            work.notified().await;
            loop {
                let frame = Self::next_frame(&mut self.queue.lock());
                let Some(frame) = frame else { break };
                let result = self.write(&mut *store, &frame, &seconds);
                blocking::settle().await;
                if !self.written(result, frame, memory) {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if self.queue.lock().closed {
                return self.closed();
            }
        }
    }

    fn closed(&self) {
        let closed = Failure { kind: io::ErrorKind::BrokenPipe, why: "the log was closed".into() };
        self.fail(&closed, Vec::new());
    }

    /// Makes a frame durable.
    fn write(&self, store: &mut dyn LogStore, frame: &Frame, seconds: &Histogram) -> io::Result<()> {
        let begun = Instant::now();
        // A store that panics leaves as little known about the disk as one that fails.
        let result = catch_unwind(AssertUnwindSafe(|| store.commit(&frame.changes)))
            .unwrap_or_else(|_| Err(io::Error::other("the log panicked; see the process's error output")));
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let took = begun.elapsed();
        let took_us = took.as_micros() as u64;
        self.sync_us.fetch_add(took_us, Ordering::Relaxed);
        let mut last = self.last_us.lock();
        if last.len() == LAST_SYNCS {
            last.pop_front();
        }
        last.push_back(took_us);
        drop(last);
        seconds.record(took.as_secs_f64());
        result
    }

    /// Says that a frame is durable, or not; false when the log takes nothing more.
    fn written(&self, result: io::Result<()>, frame: Frame, memory: &Mutex<Memory>) -> bool {
        let Frame { changes, done, bytes } = frame;
        if let Err(error) = result {
            tracing::error!(%error, "the log takes nothing more");
            self.fail(&Failure { kind: error.kind(), why: error.to_string() }, done);
            return false;
        }
        self.durable(&changes, memory);
        self.queue.lock().bytes -= bytes;
        self.room.notify_waiters();
        done.into_iter().for_each(|done| done.answer(None));
        true
    }

    /// Takes a frame of what waits; none when nothing does.
    fn next_frame(queue: &mut Queue) -> Option<Frame> {
        if queue.waiting.is_empty() {
            return None;
        }
        let (mut changes, mut done, mut bytes) = (Vec::with_capacity(queue.waiting.len()), Vec::new(), 0);
        while let Some(next) = queue.waiting.front()
            && (changes.is_empty() || bytes + next.bytes <= FRAME_BYTES)
        {
            let Some(next) = queue.waiting.pop_front() else { break };
            bytes += next.bytes;
            changes.push(next.change);
            done.extend(next.done);
        }
        Some(Frame { changes, done, bytes })
    }

    fn durable(&self, changes: &[Change], memory: &Mutex<Memory>) {
        let mut memory = memory.lock();
        for change in changes {
            match change {
                Change::Append(entries) => {
                    self.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
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

    /// Nothing is taken from here on; `done` and all that is waiting hear why.
    fn fail(&self, failure: &Failure, done: Vec<Done>) {
        let mut queue = self.queue.lock();
        queue.failed = Some(failure.clone());
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.room.notify_waiters();
        done.into_iter().chain(waiting.into_iter().filter_map(|it| it.done)).for_each(|it| it.answer(Some(failure)));
    }
}

/// Cuts entries into runs that each fit into a frame.
pub(super) fn runs(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let (mut runs, mut run, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        if !run.is_empty() && bytes + size(&entry) > FRAME_BYTES {
            runs.push(std::mem::take(&mut run));
            bytes = 0;
        }
        bytes += size(&entry);
        run.push(entry);
    }
    runs.push(run);
    runs
}
