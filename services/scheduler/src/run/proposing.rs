//! Proposing, and what becomes of it.

use std::time::Instant;

use metrics::histogram;
use nova_bus::{Reader, Topic};
use nova_telemetry::trace::{self, Span};
use nova_wire::v1;
use nova_wire::v1::propose_response::Result as Answer;
use nova_wire::v1::refusal::Kind;
use nova_wire::v1::verdict::Kind as Verdict;

use super::Scheduler;
use crate::link::Link;
use crate::metrics as names;
use crate::shard::Alarm;

/// Proposals on their way over all shards.
const IN_FLIGHT: usize = 32;

/// A proposal on its way.
pub(super) struct Sent {
    pub shard: u32,
    pub epoch: u64,
    /// The offset after its last record.
    pub next_offset: u64,
    pub at: Instant,
    /// Of the executions in it that are traced.
    spans: Vec<Span>,
}

impl Scheduler {
    pub(super) fn propose(&mut self, link: &Link, alone: bool) {
        while self.sent.len() < IN_FLIGHT && link.has_room() {
            let Some(number) = self.ready.take() else { return };
            let Some(proposal) = self.shards.get_mut(&number).and_then(|shard| shard.proposal(alone)) else { continue };
            // It may have more than one proposal carries.
            self.ready.insert(number);
            self.send(link, proposal);
        }
    }

    fn send(&mut self, link: &Link, proposal: v1::Proposal) {
        histogram!(names::BATCH).record(proposal.records.len() as f64);
        let request = self.next_request;
        self.next_request += 1;
        let bodies = proposal.records.iter().map(|record| &record.commands);
        let spans = trace::of_commands(trace::names::PROPOSE, bodies);
        let v1::Proposal { shard, epoch, next_offset, .. } = proposal;
        self.sent.insert(request, Sent { shard, epoch, next_offset, at: Instant::now(), spans });
        // There was room, and nobody else sends.
        if !link.try_send(v1::ProposeRequest { request, proposal: Some(proposal) }) {
            tracing::debug!(shard, "the stream closed; its end is noticed next");
        }
    }

    /// Takes a verdict. What else is on its way for a shard that has to go back is awaited first.
    pub(super) fn answered(&mut self, answer: v1::ProposeResponse, reader: &mut dyn Reader) {
        let Some(sent) = self.sent.remove(&answer.request) else { return };
        let Sent { shard: number, epoch, next_offset, at, mut spans } = sent;
        histogram!(names::PROPOSE_SECONDS).record(at.elapsed().as_secs_f64());
        let Some(shard) = self.shards.get_mut(&number).filter(|shard| shard.epoch == epoch) else { return };
        shard.in_flight = shard.in_flight.saturating_sub(1);
        self.ready.insert(number);
        let refusal = match answer.result {
            Some(Answer::Verdict(v1::Verdict { kind: Some(Verdict::Applied(_)) })) => {
                self.bus.commands_applied(number, next_offset);
                return;
            }
            Some(Answer::Verdict(v1::Verdict { kind: Some(Verdict::Refused(refusal)) })) => refusal,
            Some(Answer::Retry(retry)) => {
                tracing::warn!(shard = number, why = retry.why, "a proposal has no verdict");
                spans.iter_mut().for_each(|span| span.fail("no verdict"));
                shard.recovering = true;
                return;
            }
            _ => {
                shard.recovering = true;
                return;
            }
        };
        spans.iter_mut().for_each(|span| span.fail(refusal.kind().as_str_name()));
        match refusal.kind() {
            Kind::StaleEpoch if refusal.number > epoch => {
                tracing::info!(shard = number, current = refusal.number, "another scheduler owns the shard");
                self.drop_shard(number, reader);
            }
            Kind::Rewritten => {
                let why = format!("the record before offset {} is not the one applied", refusal.number);
                self.halt(number, Alarm::OtherLog(why), reader);
            }
            Kind::OutboxFull => {
                tracing::debug!(shard = number, "the outbox is full; reading waits for what is published");
                shard.wait_for_room();
                reader.remove(&Topic::Commands, number);
            }
            kind => {
                tracing::debug!(shard = number, kind = kind.as_str_name(), "a proposal was refused");
                shard.recovering = true;
            }
        }
    }
}
