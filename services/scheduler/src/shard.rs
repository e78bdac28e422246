//! A shard that this scheduler owns: what was read and not proposed, and where it stands.

use std::collections::VecDeque;
use std::time::Instant;

use nova_bus::Record;
use nova_wire::{ClusterId, v1};
use tokio_util::sync::CancellationToken;

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

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The record before the next one is re-read, and must have this checksum.
    Checking { before: u64 },
    /// Records are read and proposed.
    Active,
    /// Answers of proposals on their way are awaited; then positions are asked.
    Recovering,
    /// The command topic is not the one that was applied; nothing is read until an operator acts.
    Halted,
}

struct Taken {
    record: v1::CommandRecord,
    read_at: Instant,
}

pub(crate) struct Shard {
    pub number: u32,
    pub epoch: u64,
    pub phase: Phase,
    pub outbox: Outbox,
    /// The next offset to read.
    pub next_read: u64,
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
    /// Whether the reader has it.
    pub reading: bool,
    /// Ends its lanes.
    pub stop: CancellationToken,
}

impl Shard {
    pub(crate) fn new(number: u32, position: &v1::ShardPosition, outbox: Outbox, stop: CancellationToken) -> Self {
        let mut shard = Self {
            number,
            epoch: position.epoch,
            phase: Phase::Active,
            outbox,
            next_read: 0,
            next_proposed: 0,
            before: 0,
            records: VecDeque::new(),
            bytes: 0,
            locals: VecDeque::new(),
            offered: 0,
            in_flight: 0,
            told_watermark: position.outbox_acked,
            reading: false,
            stop,
        };
        shard.go_back(position);
        shard
    }

    /// Forgets what was read and begins where the coordinator says.
    pub(crate) fn go_back(&mut self, position: &v1::ShardPosition) {
        self.records.clear();
        self.bytes = 0;
        self.locals.clear();
        self.offered = 0;
        self.in_flight = 0;
        self.told_watermark = position.outbox_acked;
        self.next_proposed = position.next_offset;
        self.before = position.before;
        self.next_read = position.next_offset.saturating_sub(1);
        self.phase = if position.next_offset == 0 {
            self.next_read = 0;
            Phase::Active
        } else {
            Phase::Checking { before: position.before }
        };
    }

    /// Begins at the start of a log whose earlier records are gone.
    pub(crate) fn begin_at_next(&mut self) {
        self.next_read = self.next_proposed;
        self.phase = Phase::Active;
    }

    pub(crate) fn next_proposed(&self) -> u64 {
        self.next_proposed
    }

    pub(crate) fn buffered(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.records.front().map(|taken| taken.read_at)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes > BUFFER_BYTES
    }

    /// Takes a record that was read. An error when it is not the one that was applied.
    pub(crate) fn take(&mut self, record: &Record, cluster: ClusterId) -> Result<Option<&'static str>, NotApplied> {
        let checksum = nova_wire::record_checksum(&record.value);
        match self.phase {
            Phase::Checking { before } => {
                if record.offset + 1 != self.next_proposed {
                    return Ok(None);
                }
                if checksum != before {
                    return Err(NotApplied { offset: record.offset, expected: before, found: checksum });
                }
                self.phase = Phase::Active;
                self.next_read = record.offset + 1;
                return Ok(None);
            }
            Phase::Active => {}
            Phase::Recovering | Phase::Halted => return Ok(None),
        }
        if record.offset < self.next_read {
            return Ok(None);
        }
        self.next_read = record.offset + 1;
        let opened = nova_wire::open(&record.value, cluster);
        let (commands, dropped) = match opened {
            Ok(opened) if opened.kind == v1::RecordKind::Commands && opened.shard == self.number => (opened.body, None),
            Ok(_) => (bytes::Bytes::new(), Some("not a record of this shard")),
            Err(nova_wire::EnvelopeError::ForeignCluster) => (bytes::Bytes::new(), Some("another cluster")),
            Err(nova_wire::EnvelopeError::BadChecksum) => (bytes::Bytes::new(), Some("a wrong checksum")),
            Err(_) => (bytes::Bytes::new(), Some("not readable")),
        };
        self.bytes += commands.len() + 64;
        let record = v1::CommandRecord { offset: record.offset, checksum, commands };
        self.records.push_back(Taken { record, read_at: Instant::now() });
        Ok(dropped)
    }

    /// What to propose now, if anything. `alone` also proposes a watermark when there is nothing else.
    pub(crate) fn proposal(&mut self, alone: bool) -> Option<v1::Proposal> {
        let active = matches!(self.phase, Phase::Active | Phase::Checking { .. });
        if !active || self.in_flight >= IN_FLIGHT {
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
}

/// The record before the next one is not the one that was applied (rule 15 b).
#[derive(Debug, thiserror::Error)]
#[error("the record at offset {offset} has checksum {found:016x}, and {expected:016x} was applied")]
pub(crate) struct NotApplied {
    offset: u64,
    expected: u64,
    found: u64,
}
