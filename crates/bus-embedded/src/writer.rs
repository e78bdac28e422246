//! The thread that writes, and the queue before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use nova_bus::table::{Kept, Table};
use nova_bus::{Ack, AppendError, MAX_IN_FLIGHT_BYTES, Outgoing, Record, Topic};
use nova_journal::{Journal, Position, WriteError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::early::{EarlyAck, EarlyAcks};
use crate::format;
use crate::retention::Retention;

/// Most bytes of one frame.
const FRAME_BYTES: usize = 4 << 20;
/// The part of the limit by which all topics but the commands may exceed it: a quarter.
const RESERVE: u64 = 4;
/// How often a bus above its limit looks what may go, and one without room whether there is some.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What nobody waits for goes with what comes in this time, or alone after it: each sync is one less for others.
const GATHER: Duration = Duration::from_millis(5);
/// Why early commands are not taken yet.
pub(crate) const UNKNOWN: &str = "it is not known yet which commands are applied";

/// When commands are shown to their readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Commands {
    /// Once they are on the disk.
    #[default]
    Durable,
    /// At once.
    Early,
    /// At once, but none is taken before it is known where to go on.
    Unknown,
}

pub(crate) struct Waiting {
    pub topic: Topic,
    pub partition: u32,
    pub records: Vec<Outgoing>,
    pub bytes: u64,
    /// First offset and time of commands that are shown already: they must be written, however long it takes.
    pub early: Option<(u64, u64)>,
    /// None when it is among [`QueueState::early`].
    pub ack: Option<oneshot::Sender<Result<u64, AppendError>>>,
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
    /// Whether somebody waits for one of them.
    pub urgent: bool,
    pub commands: Commands,
    pub early: EarlyAcks,
    /// Whether the last write found no space.
    pub full: bool,
    /// Why commands that are shown still wait for the disk.
    pub kept: Option<String>,
    pub bytes: u64,
    /// Bytes in the journal, and how many there should be at most.
    pub stored: u64,
    pub limit: u64,
    pub closed: bool,
    pub failed: Option<String>,
}

impl QueueState {
    /// Why nothing more of a topic is taken just now, if so.
    pub(crate) fn refuses(&self, topic: &Topic, records: &[Outgoing]) -> Option<String> {
        let bytes = size(records);
        // What follows from commands that were taken must still find room when no more of them do: until it does, they
        // cannot be applied, and their space is not given back.
        let limit = if *topic == Topic::Commands { self.limit } else { self.limit + self.limit / RESERVE };
        if let Some(why) = &self.failed {
            Some(why.clone())
        } else if *topic == Topic::Commands && self.commands == Commands::Unknown {
            Some(UNKNOWN.into())
        } else if let (Topic::Commands, Some(why)) = (topic, &self.kept) {
            Some(why.clone())
        } else if self.stored > limit {
            Some("the bus is full of commands that are not applied yet".into())
        } else if self.bytes + bytes > MAX_IN_FLIGHT_BYTES {
            Some("the queue of the bus is full".into())
        } else {
            None
        }
    }

    /// Puts an append behind the others.
    pub(crate) fn push(
        &mut self,
        queue: &Queue,
        topic: Topic,
        partition: u32,
        records: Vec<Outgoing>,
        early: Option<(u64, u64)>,
    ) -> Ack {
        let (ack, receiver) = oneshot::channel();
        let (bytes, mut urgent, mut ack) = (size(&records), topic.is_urgent(), Some(ack));
        if let (Some((first, _)), false) = (early, records.is_empty()) {
            // They are most likely applied, and with that durable, before the disk of the bus could have them.
            urgent = false;
            self.early.push(partition, first, first + records.len() as u64, ack.take());
        }
        self.bytes += bytes;
        self.waiting.push(Waiting { topic, partition, records, bytes, early, ack });
        if self.waiting.len() == 1 || (urgent && !self.urgent) {
            queue.wake.notify_one();
        }
        self.urgent |= urgent;
        Ack::waiting(receiver)
    }
}

/// What records take of the limits, in bytes.
fn size(records: &[Outgoing]) -> u64 {
    records.iter().map(|record| record.size() as u64 + 64).sum()
}

/// Writes what is waiting: one frame, one sync, then the answers.
pub(crate) struct Writer {
    pub journal: Journal,
    pub table: Arc<Mutex<Table<Position>>>,
    pub queue: Arc<Queue>,
}

impl Writer {
    pub(crate) fn run(mut self) {
        // What found no room and must be written all the same.
        let mut taken = Vec::new();
        while self.take(&mut taken) {
            if taken.is_empty() {
                self.retain();
            }
            let mut kept = Vec::new();
            while !taken.is_empty() {
                let mut bytes = 0;
                let fits = taken.iter().position(|it| {
                    bytes += it.bytes as usize;
                    bytes > FRAME_BYTES
                });
                let rest = taken.split_off(fits.unwrap_or(taken.len()).max(1));
                kept.extend(self.commit(std::mem::replace(&mut taken, rest)));
            }
            taken = kept;
            if taken.is_empty() {
                self.queue.state.lock().kept = None;
            }
        }
    }

    /// Adds what is waiting to what was kept; false when there will be nothing more. It also comes back after a while with
    /// nothing new, when there is something else to look after.
    fn take(&self, taken: &mut Vec<Waiting>) -> bool {
        let mut state = self.queue.state.lock();
        while state.waiting.is_empty() && !state.closed {
            // Time passes, commands are applied, and others give space back, also while nobody can append.
            if state.stored <= state.limit && taken.is_empty() {
                self.queue.wake.wait(&mut state);
            } else if self.queue.wake.wait_for(&mut state, LOOK_AGAIN).timed_out() {
                break;
            }
        }
        if state.waiting.is_empty() && state.closed {
            return false;
        }
        if !state.urgent && !state.closed && !state.waiting.is_empty() {
            self.queue.wake.wait_for(&mut state, GATHER);
        }
        state.urgent = false;
        taken.append(&mut state.waiting);
        true
    }

    /// Writes a frame. What found no room, is shown already and must be written is given back.
    fn commit(&mut self, group: Vec<Waiting>) -> Vec<Waiting> {
        let now_ms = now_ms();
        let mut frame = BytesMut::with_capacity(group.iter().map(|it| it.bytes as usize + 64).sum());
        let mut next: BTreeMap<(&Topic, u32), u64> = BTreeMap::new();
        let mut firsts = Vec::with_capacity(group.len());
        for Waiting { topic, partition, records, early, .. } in &group {
            let (first, timestamp_ms) = early.unwrap_or_else(|| {
                let end = || self.table.lock().offsets(topic, *partition).map_or(0, |range| range.end);
                (next.get(&(topic, *partition)).copied().unwrap_or_else(end), now_ms)
            });
            format::write(&mut frame, topic, *partition, first, timestamp_ms, records);
            next.insert((topic, *partition), first + records.len() as u64);
            firsts.push(first);
        }
        match self.journal.commit(&[frame.freeze()]) {
            Ok(place) => {
                let mut retention = self.queue.retention.lock();
                for ((topic, partition), end) in next {
                    retention.note(place.segment, topic, partition, end, now_ms);
                }
                drop(retention);
                self.written(group, &firsts, place, now_ms);
                self.retain();
                Vec::new()
            }
            Err(full @ WriteError::Full { .. }) => self.no_room(group, &full),
            Err(error) => {
                tracing::error!(%error, "the bus takes nothing more: restart the process once the disk is well");
                let mut state = self.queue.state.lock();
                state.failed = Some(error.to_string());
                state.bytes -= group.iter().map(|it| it.bytes).sum::<u64>();
                let early = state.early.all();
                drop(state);
                for ack in group.into_iter().filter_map(|it| it.ack).chain(early) {
                    let _ = ack.send(Err(AppendError::OutcomeUnknown { why: error.to_string() }));
                }
                Vec::new()
            }
        }
    }

    fn written(&self, group: Vec<Waiting>, firsts: &[u64], place: Position, now_ms: u64) {
        let mut state = self.queue.state.lock();
        state.bytes -= group.iter().map(|it| it.bytes).sum::<u64>();
        if std::mem::take(&mut state.full) {
            tracing::warn!("the bus has room again");
        }
        drop(state);
        let mut table = self.table.lock();
        let (mut acks, mut early_ends) = (Vec::with_capacity(group.len()), BTreeMap::new());
        for (waiting, first) in group.into_iter().zip(firsts) {
            let Waiting { topic, partition, records, early, ack, .. } = waiting;
            let count = records.len() as u64;
            match early {
                Some(_) => table.stored(&topic, partition, *first, place),
                None => table.publish(&topic, partition, Kept::At(place), stamp(records, *first, now_ms)),
            }
            match ack {
                Some(ack) => acks.push((ack, *first)),
                None => drop(early_ends.insert(partition, first + count)),
            }
        }
        drop(table);
        for (ack, first) in acks {
            let _ = ack.send(Ok(first));
        }
        if !early_ends.is_empty() {
            let mut state = self.queue.state.lock();
            let done: Vec<_> =
                early_ends.into_iter().flat_map(|(partition, end)| state.early.upto(partition, end)).collect();
            drop(state);
            done.into_iter().for_each(EarlyAck::succeed);
        }
    }

    fn no_room(&self, group: Vec<Waiting>, full: &WriteError) -> Vec<Waiting> {
        let (kept, refused): (Vec<_>, Vec<_>) = group.into_iter().partition(|it| it.early.is_some());
        let mut state = self.queue.state.lock();
        // Once: those who are refused try again and again.
        if !std::mem::replace(&mut state.full, true) {
            tracing::error!(error = %full, "the bus takes nothing until there is room");
        }
        state.bytes -= refused.iter().map(|it| it.bytes).sum::<u64>();
        state.kept = (!kept.is_empty()).then(|| full.to_string()).or(state.kept.take());
        drop(state);
        for ack in refused.into_iter().filter_map(|it| it.ack) {
            let _ = ack.send(Err(AppendError::NotSent { why: full.to_string() }));
        }
        kept
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
