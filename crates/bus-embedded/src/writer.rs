//! The thread that writes, and the queue before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use nova_bus::table::Table;
use nova_bus::{AppendError, MAX_IN_FLIGHT_BYTES, Outgoing, Record, Topic};
use nova_journal::{Journal, Position, WriteError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::format;
use crate::retention::Retention;

/// Most bytes of one frame.
const FRAME_BYTES: usize = 4 << 20;
/// The part of the limit by which all topics but the commands may exceed it: a quarter.
const RESERVE: u64 = 4;
/// How often a bus above its limit looks what may go.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Waiting {
    pub topic: Topic,
    pub partition: u32,
    pub records: Vec<Outgoing>,
    pub bytes: u64,
    pub ack: oneshot::Sender<Result<u64, AppendError>>,
}

/// What waits for the thread that writes, and what it must know.
#[derive(Default)]
pub(crate) struct Queue {
    pub state: Mutex<QueueState>,
    pub wake: Condvar,
    pub retention: Mutex<Retention>,
}

#[derive(Default)]
pub(crate) struct QueueState {
    pub waiting: Vec<Waiting>,
    pub bytes: u64,
    /// Bytes in the journal, and how many there should be at most.
    pub stored: u64,
    pub limit: u64,
    pub closed: bool,
    pub failed: Option<String>,
}

impl QueueState {
    /// Why nothing more of a topic is taken just now, if so.
    pub(crate) fn refuses(&self, topic: &Topic, bytes: u64) -> Option<String> {
        // What follows from commands that were taken must still find room when no more of them do: until it does, they
        // cannot be applied, and their space is not given back.
        let limit = if *topic == Topic::Commands { self.limit } else { self.limit + self.limit / RESERVE };
        if let Some(why) = &self.failed {
            Some(why.clone())
        } else if self.stored > limit {
            Some("the bus is full of commands that are not applied yet".into())
        } else if self.bytes + bytes > MAX_IN_FLIGHT_BYTES {
            Some("the queue of the bus is full".into())
        } else {
            None
        }
    }
}

/// Writes what is waiting: one frame, one sync, then the answers.
pub(crate) struct Writer {
    pub journal: Journal,
    pub table: Arc<Mutex<Table<Position>>>,
    pub queue: Arc<Queue>,
    /// Whether the last write found no space.
    pub full: bool,
}

impl Writer {
    pub(crate) fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            {
                let mut state = self.queue.state.lock();
                while state.waiting.is_empty() && !state.closed {
                    if state.stored > state.limit {
                        // Time passes and commands are applied, also while nobody can append.
                        if self.queue.wake.wait_for(&mut state, LOOK_AGAIN).timed_out() {
                            break;
                        }
                    } else {
                        self.queue.wake.wait(&mut state);
                    }
                }
                if state.waiting.is_empty() && state.closed {
                    return;
                }
                std::mem::swap(&mut taken, &mut state.waiting);
            }
            if taken.is_empty() {
                self.retain();
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
        let timestamp_ms = now_ms();
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
            written.push((key.0.clone(), partition, first, stamp(records, first, timestamp_ms), ack));
            next.insert(key, first + count);
        }
        let outcome = self.journal.commit(&[frame.freeze()]);
        self.queue.state.lock().bytes -= bytes;
        match outcome {
            Ok(place) => {
                if std::mem::take(&mut self.full) {
                    tracing::warn!("the bus has room again");
                }
                let mut table = self.table.lock();
                for (topic, partition, _, records, _) in &mut written {
                    table.publish(topic, *partition, Some(place), std::mem::take(records));
                }
                drop(table);
                for (_, _, first, _, ack) in written {
                    let _ = ack.send(Ok(first));
                }
                let mut retention = self.queue.retention.lock();
                for ((topic, partition), end) in next {
                    retention.note(place.segment, &topic, partition, end, timestamp_ms);
                }
                drop(retention);
                self.retain();
            }
            Err(full @ WriteError::Full { .. }) => {
                // Once: those who are refused try again and again.
                if !std::mem::replace(&mut self.full, true) {
                    tracing::error!(error = %full, "the bus takes nothing until there is room");
                }
                for (.., ack) in written {
                    let _ = ack.send(Err(AppendError::NotSent { why: full.to_string() }));
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

    /// Lets the oldest segments go that are too many and that nobody needs.
    fn retain(&mut self) {
        let limit = self.queue.state.lock().limit;
        while self.journal.bytes() > limit && self.drop_oldest() {}
        self.queue.state.lock().stored = self.journal.bytes();
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(second) = self.journal.segments().nth(1) else { return false };
        if !self.queue.retention.lock().may_drop_below(second, now_ms()) {
            return false;
        }
        // A partition that loses all it has must still know its next offset after a restart.
        let mut marks = BytesMut::new();
        for (topic, partition, next) in self.table.lock().left_empty(|place| place.segment < second) {
            format::write(&mut marks, &topic, partition, next, 0, &[]);
        }
        if !marks.is_empty() && self.journal.commit(&[marks.freeze()]).is_err() {
            return false;
        }
        if let Err(error) = self.journal.drop_below(second) {
            tracing::warn!(%error, "an old segment of the bus could not be removed");
            return false;
        }
        self.table.lock().forget(|place| place.segment < second);
        self.queue.retention.lock().forget_below(second);
        true
    }
}

/// Records as they stand from the offset `first` on.
pub(crate) fn stamp(records: Vec<Outgoing>, first: u64, timestamp_ms: u64) -> Vec<Record> {
    let stamped = records.into_iter().zip(first..).map(|(record, offset)| {
        let Outgoing { key, headers, value } = record;
        Record { offset, timestamp_ms, key, headers, value }
    });
    stamped.collect()
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
