//! Applies entries: exactly once by offset, epoch and token; then timers, cascades and free slots.

use nova_plants::Plant;

use crate::decide::{Nothing, Step, decide};
use crate::event::Event;
use crate::evolve::evolve;
use crate::ids::{Offset, SessionId, ShardId, Token, WorkerId};
use crate::input::{Entry, EntryBody, Proposal};
use crate::limits;
use crate::output::{Applied, Refusal, Registered, ShardPosition, Verdict};
use crate::state::State;

impl State {
    /// Applies one entry. The same entries in the same order give the same state and the same verdicts everywhere.
    pub fn apply(&mut self, entry: &Entry) -> Verdict {
        self.now = self.now.max(entry.now);
        self.index = entry.index;
        let mut run = Run { events: Vec::with_capacity(16), budget: limits::SLICE };
        let verdict = match &entry.body {
            EntryBody::Propose(proposal) => self.propose(&mut run, proposal),
            EntryBody::Requeue { worker, session, .. } => self.requeue(&mut run, *worker, *session, &entry.body),
            body => self.other(&mut run, body, entry.term),
        };
        self.fire(&mut run);
        self.cascade(&mut run);
        for _ in 0..limits::LEASES_PER_ENTRY {
            if self.step(&mut run, Step::Fill).is_err() {
                break;
            }
        }
        self.flush();
        self.park_resting();
        match verdict {
            Ok(applied) => Verdict::Applied(applied),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    /// Decides one step and applies what it comes to.
    fn step(&mut self, run: &mut Run, step: Step<'_>) -> Result<(), Nothing> {
        run.events.clear();
        self.wake_for(&step);
        if matches!(
            step,
            Step::Command(..) | Step::Local(..) | Step::Timer(..) | Step::LeaseLost(..) | Step::LeaseDropped(..)
        ) {
            run.budget += limits::TOUCHES_PER_STEP;
        }
        let result = decide(self, step, &mut run.events);
        for event in run.events.drain(..) {
            evolve(self, event);
        }
        result
    }

    /// Works on cascades until they are done or the entry's slice is used up.
    fn cascade(&mut self, run: &mut Run) {
        while run.budget > 0 {
            let Some(work) = self.work.pop_front() else { break };
            run.budget -= 1;
            // A step of a cascade cannot be refused: what is no more is passed over.
            let _ = self.step(run, Step::Work(work));
        }
    }

    fn fire(&mut self, run: &mut Run) {
        for _ in 0..limits::TIMERS_PER_ENTRY {
            if self.timers.first().is_none_or(|id| id.0 > self.now) {
                break;
            }
            let Some((id, timer)) = self.timers.pop_first() else { break };
            let _ = self.step(run, Step::Timer(id, &timer));
            self.cascade(run);
        }
    }

    fn propose(&mut self, run: &mut Run, proposal: &Proposal) -> Result<Applied, Refusal> {
        let id = proposal.shard;
        let shard = self.shard(id).ok_or(Refusal::UnknownShard)?;
        if proposal.epoch != shard.epoch && !nova_plants::is(Plant::EpochNotChecked) {
            return Err(Refusal::StaleEpoch { current: shard.epoch });
        }
        check_offsets(proposal)?;
        if !proposal.records.is_empty() {
            let next_offset = shard.next_offset;
            if proposal.first_offset > next_offset && !nova_plants::is(Plant::GapAccepted) {
                return Err(Refusal::Gap { next_offset });
            }
            if proposal.first_offset == next_offset && proposal.before != shard.before {
                return Err(Refusal::Rewritten { next_offset, expected: shard.before });
            }
        }
        // The watermark first: it may be what makes room.
        evolve(self, Event::OutboxAcked(id, proposal.outbox_acked));
        if !proposal.records.is_empty() && self.outbox_full(id) {
            return Err(Refusal::OutboxFull);
        }
        for record in &proposal.records {
            if self.shard(id).is_none_or(|shard| record.offset < shard.next_offset) {
                continue;
            }
            evolve(self, Event::RecordTaken(id, Offset(record.offset.0 + 1), record.checksum));
            for command in &record.commands {
                let _ = self.step(run, Step::Command(id, command));
                self.cascade(run);
            }
        }
        for local in &proposal.locals {
            let _ = self.step(run, Step::Local(id, local));
            self.cascade(run);
        }
        let next_offset = self.shard(id).map_or(Offset(0), |shard| shard.next_offset);
        Ok(Applied::Proposal { next_offset })
    }

    fn outbox_full(&self, id: ShardId) -> bool {
        self.shard(id).is_some_and(|shard| shard.outbox.bytes > limits::OUTBOX_BYTES)
    }

    /// Rule 27: what a renewal said is compared with the state once more.
    fn requeue(
        &mut self,
        run: &mut Run,
        worker: WorkerId,
        session: SessionId,
        body: &EntryBody,
    ) -> Result<Applied, Refusal> {
        let EntryBody::Requeue { seen, last_result, held, .. } = body else { return Ok(Applied::Done) };
        let known = self.worker(worker).filter(|known| known.open && known.session == session);
        let known = known.ok_or(Refusal::NoSuchSession)?;
        let lost = |token: &Token, lease: &crate::state::Lease| {
            let shard = lease.execution.shard();
            let saw = seen.iter().any(|(id, seq)| *id == shard && lease.assigned <= *seq);
            let settled = last_result
                .iter()
                .find(|(id, _)| *id == shard)
                .is_none_or(|(_, after)| self.shard(shard).is_some_and(|shard| shard.next_offset >= *after));
            saw && settled && !held.contains(token)
        };
        let tokens: Vec<_> = known.leases.iter().filter(|(t, l)| lost(t, l)).map(|(token, _)| *token).collect();
        for token in tokens {
            let _ = self.step(run, Step::LeaseDropped(worker, token));
        }
        Ok(Applied::Done)
    }

    fn other(&mut self, run: &mut Run, body: &EntryBody, term: u64) -> Result<Applied, Refusal> {
        // Leases of a session that this entry ends; the new session of the same worker starts without them.
        let ending: Vec<WorkerId> = match body {
            EntryBody::Register(register) => self.workers.by_name.get(&register.name).copied().into_iter().collect(),
            EntryBody::SessionLost { worker, .. } => vec![*worker],
            EntryBody::Recover { .. } => self.workers.all.iter().map(|worker| worker.id).collect(),
            _ => Vec::new(),
        };
        let ending = ending.into_iter().filter_map(|id| self.worker(id));
        let leases: Vec<_> = ending.flat_map(|worker| worker.leases.keys().map(|token| (worker.id, *token))).collect();
        let revision = self.catalogue.revision;
        match self.step(run, Step::Entry(body, term)) {
            Ok(()) => {}
            Err(Nothing::Refused(refusal)) => return Err(refusal),
            Err(Nothing::Rejected(_) | Nothing::Stale) => return Err(Refusal::NotFound),
        }
        for (worker, token) in leases {
            let _ = self.step(run, Step::LeaseLost(worker, token));
        }
        Ok(self.answer(body, self.catalogue.revision > revision))
    }

    fn answer(&self, body: &EntryBody, changed: bool) -> Applied {
        match body {
            EntryBody::Grant { shard, .. } => self.position(*shard).map_or(Applied::Done, Applied::Granted),
            EntryBody::Register(register) => {
                let worker = self.workers.by_name.get(&register.name).and_then(|id| self.worker(*id));
                worker.map_or(Applied::Done, |worker| {
                    let (session, inbox) = (worker.session, worker.inbox);
                    Applied::Registered(Registered { worker: worker.id, session, inbox })
                })
            }
            EntryBody::PutWorkflow(put) => {
                let versions = self.catalogue.workflows.get(&(put.namespace.clone(), put.name.clone()));
                let newest = versions.and_then(|versions| versions.last());
                newest.map_or(Applied::Done, |newest| Applied::Workflow { version: newest.version, new: changed })
            }
            _ => Applied::Done,
        }
    }

    /// Where a shard stands.
    #[must_use]
    pub fn position(&self, id: ShardId) -> Option<ShardPosition> {
        let shard = self.shard(id)?;
        Some(ShardPosition {
            epoch: shard.epoch,
            owner: shard.owner,
            next_offset: shard.next_offset,
            before: shard.before,
            outbox_acked: shard.outbox.acked,
            outbox_last: shard.outbox.last(),
        })
    }
}

/// What one entry needs while it is applied.
struct Run {
    /// Used again by each step.
    events: Vec<Event>,
    /// Steps of cascades that are left for this entry.
    budget: u32,
}

fn check_offsets(proposal: &Proposal) -> Result<(), Refusal> {
    let contiguous =
        proposal.records.iter().zip(proposal.first_offset.0..).all(|(record, expected)| record.offset.0 == expected);
    let ends = proposal.next_offset.0 == proposal.first_offset.0 + proposal.records.len() as u64;
    if contiguous && ends {
        Ok(())
    } else {
        Err(Refusal::Invalid { what: "records: offsets must be contiguous from first_offset to next_offset".into() })
    }
}
