//! Reading commands: where to begin, what to take, when to stand still (rule 15 b).

use std::ops::Range;
use std::time::{Duration, Instant};

use metrics::counter;
use nova_bus::{AppendError, Batch, BusError, ReadError, Reader, Record, SharedBus, Topic};
use nova_wire::{ClusterId, v1};
use prost::Message;

use super::{PAUSE, Scheduler, Told};
use crate::metrics as names;
use crate::shard::{Alarm, Reading};

/// Longest time that a dead letter is tried.
const DEAD_LETTER_PATIENCE: Duration = Duration::from_secs(30);

/// What the log of a shard has, asked when its next offset was this.
pub(crate) struct Log {
    shard: u32,
    next: u64,
    /// None: it did not say in time.
    range: Option<Range<u64>>,
}

impl Scheduler {
    /// Begins reading where it is wanted, and goes on where there is room again.
    pub(super) fn resume(&mut self, now: Instant, reader: &mut dyn Reader) {
        let mut asked = Vec::new();
        for (number, shard) in &mut self.shards {
            if shard.reading == Reading::Full && !shard.is_full() {
                let assigned = reader.assign(&Topic::Commands, *number, shard.next_read());
                shard.reading = if assigned.is_ok() { Reading::Live } else { Reading::Wanted { at: now } };
            }
            if shard.wants_reading(now) {
                shard.reading = Reading::Asked;
                asked.push((*number, shard.next_read()));
            }
        }
        if asked.is_empty() {
            return;
        }
        let (bus, tell, patience) = (self.bus.clone(), self.tell.clone(), self.bus_patience());
        tokio::spawn(async move {
            let shards: Vec<u32> = asked.iter().map(|(shard, _)| *shard).collect();
            let mut found = bus.bounds(&Topic::Commands, &shards, patience).await;
            for (shard, next) in asked {
                let _ = tell.send(Told::Log(Log { shard, next, range: found.remove(&shard) }));
            }
        });
    }

    /// Begins to read, if the log may be the one that was applied.
    pub(super) fn begin(&mut self, log: &Log, reader: &mut dyn Reader) {
        let asked = |shard: &&mut crate::shard::Shard| shard.reading == Reading::Asked && shard.next_read() == log.next;
        let Some(shard) = self.shards.get_mut(&log.shard).filter(asked) else { return };
        let begun = match &log.range {
            Some(range) => match shard.begin(range) {
                Ok(from) => reader.assign(&Topic::Commands, log.shard, from),
                Err(alarm) => return self.halt(log.shard, alarm, reader),
            },
            None => Err(BusError::Unavailable { why: "where the log begins and ends is not known yet".into() }),
        };
        if let Err(error) = begun {
            tracing::debug!(shard = log.shard, %error, "commands cannot be read; it is tried again");
            shard.reading = Reading::Wanted { at: Instant::now() + PAUSE };
        }
    }

    pub(super) fn read(&mut self, batch: Result<Option<Batch>, ReadError>, reader: &mut dyn Reader) {
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(error) => return self.read_failed(&error, reader),
        };
        let number = batch.partition;
        let Some(shard) = self.shards.get_mut(&number) else { return };
        for record in &batch.records {
            match shard.take(record, self.cluster) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    counter!(names::DROPPED).increment(1);
                    tracing::warn!(shard = number, offset = record.offset, why, "a record is dropped");
                    dead_letter(&self.bus, self.cluster, number, record, why);
                }
                Err(alarm) => {
                    self.ready.insert(number);
                    return self.halt(number, alarm, reader);
                }
            }
        }
        if shard.is_full() && shard.reading == Reading::Live {
            reader.remove(&Topic::Commands, number);
            shard.reading = Reading::Full;
        }
        self.ready.insert(number);
    }

    /// The reader has lost one partition or all of them; what is lost is begun again, and checked as after a take-over.
    fn read_failed(&mut self, error: &ReadError, reader: &mut dyn Reader) {
        tracing::warn!(%error, "the command topic cannot be read");
        self.reader_failed = true;
        let lost = match error {
            ReadError::OutOfRange { partition, .. } | ReadError::Bus(BusError::NoSuchPartition { partition, .. }) => {
                Some(*partition)
            }
            ReadError::Bus(_) => None,
        };
        let at = Instant::now() + PAUSE;
        for (number, shard) in &mut self.shards {
            let read = matches!(shard.reading, Reading::Checking | Reading::Live | Reading::Full);
            if read && lost.is_none_or(|lost| lost == *number) {
                reader.remove(&Topic::Commands, *number);
                shard.reading = Reading::Wanted { at };
            }
        }
    }

    pub(super) fn halt(&mut self, number: u32, alarm: Alarm, reader: &mut dyn Reader) {
        let Some(shard) = self.shards.get_mut(&number) else { return };
        reader.remove(&Topic::Commands, number);
        if !shard.halt(alarm.clone(), Instant::now()) {
            return;
        }
        match alarm {
            Alarm::OtherLog(why) => tracing::error!(
                shard = number,
                why,
                "ALARM: the command topic is not the one that was applied; the shard stands still until it is. Restore \
                 the topic from a backup, or restore the coordinators from one of the same time. Going on would lose \
                 or repeat commands."
            ),
            Alarm::Newer { offset, version } => tracing::error!(
                shard = number,
                offset,
                version,
                "ALARM: a record was written by a newer version than this scheduler; the shard stands still. Update \
                 the schedulers. Going on would lose commands that were answered."
            ),
        }
    }
}

/// Puts a record that nobody can read aside. It also stays where it is, so what cannot be written in time is only told.
fn dead_letter(bus: &SharedBus, cluster: ClusterId, partition: u32, record: &Record, why: &str) {
    let offset = record.offset;
    let letter = v1::DeadLetter {
        topic: Topic::Commands.name().into(),
        partition,
        offset,
        reason: why.into(),
        original: record.value.clone(),
        at_ms: record.timestamp_ms,
    };
    let sealed = nova_wire::seal(cluster, v1::RecordKind::DeadLetter, partition, letter.encode_to_vec().into());
    let bus = SharedBus::clone(bus);
    tokio::spawn(async move {
        let until = Instant::now() + DEAD_LETTER_PATIENCE;
        while let Err(error) = bus.append(&Topic::DeadLetter, 0, vec![sealed.clone().into()]).await {
            if matches!(error, AppendError::TooLarge { .. }) || Instant::now() > until {
                return tracing::error!(shard = partition, offset, %error, "a dropped record is no dead letter");
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}
