//! A shard that this scheduler owns: what was read and not proposed, and where it stands.
//!
//! ```text
//!            ┌──────────────── a read error, a step back ────────────────┐
//!            ▼                                                           │
//! wanted ─▶ asked (what the log has) ─▶ checking (the record before) ─▶ live ⇄ full
//!                    │                     │                             │
//!                    └──── not what was applied, or newer than this ─────┴─▶ halted: positions are asked again
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use nova_bus::Record;
use nova_plants::Plant;
use nova_wire::{ClusterId, EnvelopeError, v1};

use crate::outbox::Outbox;

/// Commands' bytes of one proposal (one record may exceed it).
const PROPOSAL_BYTES: usize = 256 << 10;
/// Records of one proposal.
const PROPOSAL_RECORDS: usize = 512;
/// Evaluations of one proposal.
const PROPOSAL_LOCALS: usize = 512;
/// Proposals of one shard on their way.
const IN_FLIGHT: u32 = 4;
/// Bytes that are read and not proposed, above which a shard is read no more for a while.
const BUFFER_BYTES: usize = 4 << 20;
/// How soon a halted shard is looked at again: an operator who repaired a topic waits no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// To be begun, but not before this time.
    Wanted { at: Instant },
    /// The bus is asked what the log has.
    Asked,
    /// The record before the next one is re-read, and must be the one that was taken (rule 15 b).
    Checking,
    /// Records are taken.
    Live,
    /// There is no room for more; reading goes on where it stands.
    Full,
    /// With an alarm.
    Halted { again_at: Instant },
}

/// Why a shard stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The command topic is not the one that was applied.
    OtherLog(String),
    /// A record was written by a newer version. It may carry what was already answered, so it is not passed over
    /// (rule 7).
    Newer { offset: u64, version: u32 },
}

/// Which evaluations still count: a shard that went back, or came again, is offered the same once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub shard: u32,
    pub epoch: u64,
    pub round: u64,
}

struct Taken {
    record: v1::CommandRecord,
    read_at: Instant,
}

pub(crate) struct Shard {
    pub number: u32,
    pub epoch: u64,
    /// Counts the times that it went back.
    round: u64,
    /// What is on its way is lost or refused: once all answers are there, its position is asked.
    pub recovering: bool,
    pub reading: Reading,
    alarm: Option<Alarm>,
    pub outbox: Outbox,
    /// The next offset to read, and the checksum of the record before it.
    next_read: u64,
    last_read: u64,
    /// The first offset that was not proposed, and the checksum of the record before it.
    next_proposed: u64,
    before: u64,
    records: VecDeque<Taken>,
    bytes: usize,
    pub locals: VecDeque<v1::Local>,
    /// Highest token of an offer that was taken up.
    pub offered: u64,
    pub in_flight: u32,
    /// The watermark that was proposed last.
    told_watermark: u64,
    /// The outbox was full: nothing is read until this number is acknowledged.
    read_after: Option<u64>,
    /// When the end of its log was last learned, and what it was.
    pub end_at: Instant,
    pub end_offset: u64,
    /// When the last renewal was sent that was answered.
    pub renewed_at: Instant,
}

impl Shard {
    pub(crate) fn new(number: u32, position: &v1::ShardPosition, outbox: Outbox, now: Instant) -> Self {
        let mut shard = Self {
            number,
            epoch: position.epoch,
            round: 0,
            recovering: false,
            reading: Reading::Wanted { at: now },
            alarm: None,
            outbox,
            next_read: 0,
            last_read: 0,
            next_proposed: 0,
            before: 0,
            records: VecDeque::new(),
            bytes: 0,
            locals: VecDeque::new(),
            offered: 0,
            in_flight: 0,
            told_watermark: 0,
            read_after: None,
            end_at: now,
            end_offset: position.next_offset,
            renewed_at: now,
        };
        shard.go_back(position, now);
        shard
    }

    /// Forgets what was read and begins where the coordinator says.
    pub(crate) fn go_back(&mut self, position: &v1::ShardPosition, now: Instant) {
        self.forget_records();
        self.locals.clear();
        self.round += 1;
        self.offered = 0;
        self.in_flight = 0;
        self.recovering = false;
        self.told_watermark = position.outbox_acked;
        if !nova_plants::is(Plant::ReadIsApplied) || self.next_read == 0 {
            (self.next_read, self.last_read) = (position.next_offset, position.before);
        }
        (self.next_proposed, self.before) = (self.next_read, self.last_read);
        self.reading = Reading::Wanted { at: now };
    }

    fn forget_records(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    pub(crate) fn place(&self) -> Place {
        Place { shard: self.number, epoch: self.epoch, round: self.round }
    }

    pub(crate) fn next_proposed(&self) -> u64 {
        self.next_proposed
    }

    pub(crate) fn next_read(&self) -> u64 {
        self.next_read
    }

    pub(crate) fn buffered(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.records.front().map(|taken| taken.read_at)
    }

    /// Records of its log that are not proposed, as the end was last seen.
    pub(crate) fn lag(&self) -> u64 {
        self.end_offset.saturating_sub(self.next_proposed())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes > BUFFER_BYTES
    }

    pub(crate) fn has_alarm(&self) -> bool {
        self.alarm.is_some()
    }

    /// Whether reading should begin now.
    pub(crate) fn wants_reading(&mut self, now: Instant) -> bool {
        self.read_after = self.read_after.filter(|seq| self.outbox.watermark() < *seq);
        let due = matches!(self.reading, Reading::Wanted { at } if at <= now);
        due && !self.recovering && self.read_after.is_none() && !self.is_full()
    }

    /// Whether it must be asked where it stands: all answers are there, and one of them was no good.
    pub(crate) fn wants_position(&mut self, now: Instant) -> bool {
        if matches!(self.reading, Reading::Halted { again_at } if again_at <= now) {
            self.recovering = true;
        }
        self.recovering && self.in_flight == 0
    }

    /// Takes no more records until the coordinator has room for what they cause: then what is known now is published.
    pub(crate) fn wait_for_room(&mut self) {
        self.read_after = Some(self.outbox.received.max(self.outbox.watermark() + 1));
        self.recovering = true;
    }

    /// Where to read from, given what the log has.
    pub(crate) fn begin(&mut self, log: &Range<u64>) -> Result<u64, Alarm> {
        let next = self.next_read;
        if next < log.start || next > log.end {
            let (start, end) = (log.start, log.end);
            return Err(Alarm::OtherLog(format!("offset {next} is the next one, and the topic has {start}..{end}")));
        }
        if next > log.start {
            self.reading = Reading::Checking;
            return Ok(next - 1);
        }
        // The record before is gone by age, or there never was one.
        self.goes_on();
        Ok(next)
    }

    fn goes_on(&mut self) {
        self.reading = Reading::Live;
        self.alarm.take_if(|alarm| matches!(alarm, Alarm::OtherLog(_)));
    }

    /// Stands still; true when nobody was told of it yet.
    pub(crate) fn halt(&mut self, alarm: Alarm, now: Instant) -> bool {
        // What was read of another log is not proposed; what stands before a newer record is.
        if matches!(alarm, Alarm::OtherLog(_)) {
            self.forget_records();
        }
        self.reading = Reading::Halted { again_at: now + LOOK_AGAIN };
        let kind = std::mem::discriminant(&alarm);
        let before = self.alarm.replace(alarm);
        before.is_none_or(|before| std::mem::discriminant(&before) != kind)
    }

    /// Takes a record that was read; gives why its commands are left out, if they are. An error when the shard must
    /// stand still.
    pub(crate) fn take(&mut self, record: &Record, cluster: ClusterId) -> Result<Option<&'static str>, Alarm> {
        if self.recovering {
            return Ok(None);
        }
        let checksum = nova_wire::record_checksum(&record.value);
        match self.reading {
            Reading::Checking => return self.check(record.offset, checksum).map(|()| None),
            Reading::Live if record.offset >= self.next_read => {}
            _ => return Ok(None),
        }
        let (commands, dropped) = match nova_wire::open(&record.value, cluster) {
            Ok(opened) if opened.kind == v1::RecordKind::Commands && opened.shard == self.number => {
                // Apply leaves out what it cannot read, and tells nobody: it is the same check, while somebody can.
                match nova_wire::commands_from_wire(opened.body.clone()) {
                    Ok(_) => (opened.body, None),
                    Err(_) => (bytes::Bytes::new(), Some("commands that are not understood")),
                }
            }
            Ok(_) => (bytes::Bytes::new(), Some("not a record of this shard")),
            Err(EnvelopeError::Newer { found: version }) => {
                return Err(Alarm::Newer { offset: record.offset, version });
            }
            Err(EnvelopeError::ForeignCluster) => (bytes::Bytes::new(), Some("another cluster")),
            Err(EnvelopeError::BadChecksum) => (bytes::Bytes::new(), Some("a wrong checksum")),
            Err(EnvelopeError::Malformed) => (bytes::Bytes::new(), Some("not readable")),
        };
        (self.next_read, self.last_read) = (record.offset + 1, checksum);
        self.alarm.take_if(|alarm| matches!(alarm, Alarm::Newer { offset, .. } if *offset <= record.offset));
        self.bytes += commands.len() + 64;
        let record = v1::CommandRecord { offset: record.offset, checksum, commands };
        self.records.push_back(Taken { record, read_at: Instant::now() });
        Ok(dropped)
    }

    fn check(&mut self, offset: u64, checksum: u64) -> Result<(), Alarm> {
        if offset >= self.next_read {
            // The record before has gone since the bus was asked.
            self.reading = Reading::Wanted { at: Instant::now() };
        } else if offset + 1 == self.next_read {
            let expected = self.last_read;
            if checksum != expected {
                let why = format!("the record at offset {offset} has checksum {checksum:016x}, not {expected:016x}");
                return Err(Alarm::OtherLog(why));
            }
            self.goes_on();
        }
        Ok(())
    }

    /// What to propose now, if anything. `alone` also proposes a watermark when there is nothing else.
    pub(crate) fn proposal(&mut self, alone: bool) -> Option<v1::Proposal> {
        if self.recovering || self.in_flight >= IN_FLIGHT {
            return None;
        }
        let watermark = self.outbox.watermark();
        let news = alone && watermark > self.told_watermark && self.in_flight == 0;
        if self.records.is_empty() && self.locals.is_empty() && !news {
            return None;
        }
        let (first_offset, before) = (self.next_proposed, self.before);
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(taken) = self.records.front() {
            let size = taken.record.commands.len() + 64;
            if records.len() >= PROPOSAL_RECORDS || (bytes + size > PROPOSAL_BYTES && !records.is_empty()) {
                break;
            }
            bytes += size;
            self.next_proposed = taken.record.offset + 1;
            self.before = taken.record.checksum;
            let Some(taken) = self.records.pop_front() else { break };
            records.push(taken.record);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let count = self.locals.len().min(PROPOSAL_LOCALS);
        let locals = self.locals.drain(..count).collect();
        self.told_watermark = watermark;
        self.in_flight += 1;
        Some(v1::Proposal {
            shard: self.number,
            epoch: self.epoch,
            first_offset,
            next_offset: self.next_proposed,
            before,
            records,
            locals,
            outbox_acked: watermark,
        })
    }

    /// Why it must be given back, if it must: it has no bus, or its lease was not renewed (rule 14).
    pub(crate) fn is_adrift(&self, lease: Duration, now: Instant) -> Option<&'static str> {
        let over = |since: Instant| now.saturating_duration_since(since) > lease;
        if over(self.end_at) {
            Some("its commands cannot be read")
        } else if self.outbox.silent_since().is_some_and(over) {
            Some("its messages cannot be published")
        } else if over(self.renewed_at) {
            Some("its lease was not renewed")
        } else {
            None
        }
    }
}
