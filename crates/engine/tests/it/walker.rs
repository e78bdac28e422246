//! Walks through the engine's inputs, drawn from a tape, with checks at each step.

use std::collections::{BTreeMap, BTreeSet};

use nova_engine::ids::{Epoch, ExecutionId, Seq, SessionId, Token, WorkerId};
use nova_engine::input::{
    Command, Dedupe, EntryBody, LeaseRef, Local, LocalOutcome, Proposal, TaskOutcome, TaskResult, VarWrite,
};
use nova_engine::output::{ExecutionEvent, MessageBody, Offer, Outcome, Subject, Verdict};
use nova_engine::payload::Payload;
use nova_program::{NodeKind, Program, VarIx};

use crate::build::program;
use crate::invariants;
use crate::rig::{Rig, SHARD, failure, json, registration};
use crate::tape::{Tape, program_text};

/// What was seen from outside, and what must hold of it.
#[derive(Default)]
struct Seen {
    /// Situations that were reached.
    reached: BTreeMap<String, u32>,
    leases: Vec<LeaseRef>,
    revoked: Vec<LeaseRef>,
    offers: Vec<Offer>,
    executions: Vec<ExecutionId>,
    numbers: BTreeMap<ExecutionId, u64>,
    ended: BTreeMap<ExecutionId, Outcome>,
    tokens: BTreeSet<Token>,
    last_token: u64,
    proposals: Vec<Proposal>,
}

/// The name of a variant.
fn kind(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

impl Seen {
    fn reach(&mut self, body: &MessageBody) {
        let mut names = vec![kind(body)];
        match body {
            MessageBody::Reply { answer, .. } => names.push(format!("Reply {}", kind(answer))),
            MessageBody::Events(events) => {
                for event in &events.events {
                    names.push(match event {
                        ExecutionEvent::Ended(outcome) => format!("Ended {}", kind(outcome)),
                        ExecutionEvent::NodeCompleted { degraded: true, .. } => "Degraded".into(),
                        ExecutionEvent::NodeFailed { handled: true, .. } => "Handled".into(),
                        ExecutionEvent::NodeFailed { failure, .. } | ExecutionEvent::AttemptFailed { failure, .. } => {
                            format!("{} {}", kind(event), failure.code)
                        }
                        other => kind(other),
                    });
                }
            }
            _ => {}
        }
        for name in names {
            *self.reached.entry(name).or_default() += 1;
        }
    }

    fn look(&mut self, rig: &mut Rig) {
        invariants::check(&rig.state);
        if rig.state.shards.iter().any(|shard| shard.executions.parked() > 0) {
            *self.reached.entry("Parked".into()).or_default() += 1;
        }
        assert!(rig.state.next_token >= self.last_token, "tokens only grow");
        for message in rig.news() {
            self.reach(&message.body);
            match &message.body {
                MessageBody::Assign(it) => {
                    let fresh = it.lease.token.0 >= self.last_token && self.tokens.insert(it.lease.token);
                    assert!(fresh, "each assignment has a new token");
                    assert!(!self.ended.contains_key(&it.lease.execution), "nothing starts after the end");
                    self.leases.push(it.lease);
                }
                MessageBody::Revoke { lease, .. } => {
                    assert!(self.tokens.contains(&lease.token) && !self.revoked.contains(lease), "revoked once");
                    self.revoked.push(*lease);
                }
                MessageBody::Events(events) => {
                    let number = self.numbers.entry(events.execution).or_default();
                    assert_eq!(events.first_number, *number + 1, "events are gapless");
                    *number += events.events.len() as u64;
                    for event in &events.events {
                        assert!(!self.ended.contains_key(&events.execution), "nothing follows the end: {event:?}");
                        if let ExecutionEvent::Ended(outcome) = event {
                            self.ended.insert(events.execution, outcome.clone());
                        }
                    }
                }
                MessageBody::StaleToken { .. } | MessageBody::Reply { .. } => {}
            }
        }
        self.last_token = rig.state.next_token;
        for offer in rig.offers() {
            if self.offers.iter().all(|known| known.token != offer.token) {
                assert!(self.tokens.insert(offer.token), "an offer's token is nobody else's");
                self.offers.push(offer);
            }
        }
    }
}

fn outcome(tape: &mut Tape<'_>, program: &Program, offer: &Offer) -> LocalOutcome {
    let sets = || vec![VarWrite { var: VarIx(0), value: json("1") }];
    if tape.one_in(8) {
        return LocalOutcome::Failed(failure("expression.type", false));
    }
    let Subject::Prepare(node) = offer.subject else {
        let sets = if tape.one_in(3) && !matches!(offer.subject, Subject::ScopeOutput(_)) { sets() } else { vec![] };
        return LocalOutcome::Done { output: json("2"), cases: 0, sets };
    };
    if tape.one_in(5) {
        return LocalOutcome::Skip;
    }
    match &program.node(node).kind {
        NodeKind::Work { .. } | NodeKind::Scope(_) | NodeKind::Wait(nova_program::WaitTime::ForMs(_)) => {
            LocalOutcome::Run { with: None }
        }
        NodeKind::Wait(_) => LocalOutcome::WaitFor { ms: 200 },
        NodeKind::Think => LocalOutcome::Done { output: Payload::null(), cases: 0, sets: sets() },
        NodeKind::Choose => LocalOutcome::Chosen { cases: tape.below(4) as u64, sets: vec![] },
    }
}

/// Mostly one of the last few, which may still be live; sometimes any.
fn recent<'b, T>(tape: &mut Tape<'_>, all: &'b [T]) -> Option<&'b T> {
    let from = if tape.one_in(5) { all } else { &all[all.len().saturating_sub(6)..] };
    tape.pick(from)
}

fn command(tape: &mut Tape<'_>, rig: &mut Rig, seen: &mut Seen) -> Option<Command> {
    Some(match tape.below(10) {
        0 | 1 => {
            let mut submit = rig.submission();
            submit.dedupe = match tape.below(4) {
                0 => Dedupe::Key(format!("k{}", tape.below(3)).into()),
                1 => Dedupe::Source { source: "s".into(), number: tape.below(20) as u64 },
                _ => Dedupe::None,
            };
            submit.content_hash = [tape.below(2) as u8; 32];
            seen.executions.push(submit.execution);
            Command::Submit(submit)
        }
        2..=4 => crate::rig::completed(*recent(tape, &seen.leases)?),
        5 | 6 => {
            let outcome = TaskOutcome::Failed(failure("task.bad", !tape.one_in(3)));
            Command::Result(TaskResult { lease: *recent(tape, &seen.leases)?, outcome })
        }
        7 => Command::Stopped { lease: *recent(tape, &seen.leases)? },
        8 => Command::Declined { lease: *recent(tape, &seen.leases)?, reason: "full".into() },
        _ => {
            let execution = *tape.pick(&seen.executions)?;
            Command::Cancel { execution, reason: "walk".into(), reply_to: None }
        }
    })
}

fn worker(tape: &mut Tape<'_>, rig: &Rig) -> (WorkerId, SessionId) {
    let id = WorkerId(1 + tape.below(3) as u32);
    (id, rig.state.worker(id).map_or(SessionId(0), |worker| worker.session))
}

fn register(tape: &mut Tape<'_>, rig: &Rig) -> EntryBody {
    let name = ["one", "two", "three"][tape.below(3)];
    let known = rig.state.workers.by_name.get(name).and_then(|id| rig.state.worker(*id));
    let mut register = registration(name, 1 + tape.below(4) as u32, known.map_or(0, |worker| worker.session.0));
    register.fenced = tape.one_in(4);
    EntryBody::Register(register)
}

fn act(tape: &mut Tape<'_>, rig: &mut Rig, seen: &mut Seen, program: &Program) {
    match tape.below(16) {
        0..=6 => {
            let commands: Vec<_> = (0..1 + tape.below(4)).filter_map(|_| command(tape, rig, seen)).collect();
            let mut proposal = rig.proposal(commands);
            for _ in 0..tape.below(3) {
                let Some(offer) = recent(tape, &seen.offers) else { continue };
                let outcome = outcome(tape, program, offer);
                proposal.locals.push(Local { execution: offer.execution, token: offer.token, outcome });
            }
            rig.offset = proposal.next_offset.0;
            seen.proposals.push(proposal.clone());
            rig.entry(EntryBody::Propose(proposal));
        }
        7 | 8 => {
            let Some(offer) = recent(tape, &seen.offers).cloned() else { return };
            let outcome = outcome(tape, program, &offer);
            rig.answer(&offer, outcome);
        }
        9 | 10 => rig.advance([0, 20, 100, 400][tape.below(4)]),
        11 => {
            let body = register(tape, rig);
            rig.entry(body);
        }
        12 => {
            let (worker, session) = worker(tape, rig);
            rig.entry(match tape.below(4) {
                0 => EntryBody::SessionLost { worker, session, counted_in_term: 1 },
                1 => EntryBody::Close { worker, session },
                2 => EntryBody::Drain { worker, draining: tape.one_in(2) },
                _ => {
                    let held = seen.leases.iter().map(|lease| lease.token).filter(|_| tape.one_in(2)).collect();
                    let seen = vec![(SHARD, rig.seen)];
                    EntryBody::Requeue { worker, session, seen, last_result: vec![], held }
                }
            });
        }
        13 => {
            let outbox_acked = Seq(tape.below(60) as u64);
            let proposal = Proposal { outbox_acked: outbox_acked.min(rig.seen), ..rig.proposal(vec![]) };
            rig.entry(EntryBody::Propose(proposal));
        }
        14 => rig.grant(tape.below(3) as u64),
        _ => foreign(tape, rig, seen),
    }
}

/// What comes late, twice or from somebody who may not: it must change nothing.
fn foreign(tape: &mut Tape<'_>, rig: &mut Rig, seen: &Seen) {
    let Some(mut proposal) = tape.pick(&seen.proposals).cloned() else { return };
    // A quiet moment: nothing is due, so that whatever changes is this entry's doing.
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        rig.advance(0);
    }
    let before = rig.state.clone();
    let verdict = match tape.below(3) {
        0 => {
            // Records that are known; the answers to offers were taken as well, or are refused by their tokens.
            proposal.epoch = rig.epoch;
            let known: BTreeSet<_> = rig.offers().iter().map(|offer| offer.token).collect();
            proposal.locals.retain(|local| !known.contains(&local.token));
            rig.entry(EntryBody::Propose(proposal))
        }
        1 => {
            proposal.epoch = Epoch(rig.epoch.0 - 1);
            rig.entry(EntryBody::Propose(proposal))
        }
        _ => {
            let submit = rig.submission();
            let mut ahead = rig.proposal(vec![Command::Submit(submit)]);
            if tape.one_in(2) {
                ahead.before ^= 1;
            } else {
                ahead.first_offset.0 += 1;
                ahead.next_offset.0 += 1;
                ahead.records[0].offset.0 += 1;
            }
            let verdict = rig.entry(EntryBody::Propose(ahead));
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
            verdict
        }
    };
    let mut after = rig.state.clone();
    after.index = before.index;
    assert!(after == before, "something changed that must not: {verdict:?}");
}

/// Everybody does their duty until all is over.
fn finish(tape: &mut Tape<'_>, rig: &mut Rig, seen: &mut Seen, program: &Program) {
    for worker in rig.state.workers.all.clone() {
        rig.entry(EntryBody::Drain { worker: worker.id, draining: false });
    }
    rig.register("good", 4, 0);
    for _ in 0..3_000 {
        seen.look(rig);
        let shard = &rig.state.shards[0];
        if shard.executions.is_empty() {
            return;
        }
        let held: Vec<_> =
            rig.state.workers.all.iter().flat_map(|worker| worker.leases.iter()).map(|(t, l)| (*t, *l)).collect();
        let mut commands = Vec::new();
        for (token, lease) in held {
            let lease_ref = *seen.leases.iter().find(|known| known.token == token).expect("it was assigned");
            commands.push(if lease.revoking {
                Command::Stopped { lease: lease_ref }
            } else {
                crate::rig::completed(lease_ref)
            });
        }
        let mut proposal = rig.proposal(commands);
        for offer in rig.offers() {
            let outcome = outcome(tape, program, &offer);
            proposal.locals.push(Local { execution: offer.execution, token: offer.token, outcome });
        }
        if !proposal.records.is_empty() || !proposal.locals.is_empty() {
            rig.offset = proposal.next_offset.0;
            rig.entry(EntryBody::Propose(proposal));
        } else {
            let due = rig.state.next_due().expect("an open execution has a timer, a lease, an offer or a slot").0;
            rig.advance(due.saturating_sub(rig.now));
        }
    }
    panic!("not over: {:?}", rig.state.shards[0].executions);
}

/// Walks, checks at each step, finishes, and gives the rig and what was reached.
pub fn walk(bytes: &[u8]) -> (Rig, BTreeMap<String, u32>) {
    let mut tape = Tape::new(bytes);
    let program = program(&program_text(&mut tape));
    let mut rig = Rig::new(program.clone());
    let mut seen = Seen::default();
    let body = register(&mut tape, &rig);
    rig.entry(body);
    let first = rig.submit();
    seen.executions.push(first);
    while !tape.is_over() {
        act(&mut tape, &mut rig, &mut seen, &program);
        seen.look(&mut rig);
    }
    finish(&mut tape, &mut rig, &mut seen, &program);
    let state = &rig.state;
    assert!(state.work.is_empty() && state.queue.is_empty() && state.shards[0].offers.is_empty());
    assert!(state.workers.all.iter().all(|worker| worker.leases.is_empty()), "no slot is held");
    assert_eq!(state.timers.len(), state.shards[0].keys.len(), "only keys wait to be forgotten");
    let accepted: BTreeSet<_> = seen.numbers.keys().collect();
    assert!(accepted.iter().all(|id| seen.ended.contains_key(id) || seen.numbers[*id] == 1), "all have ended");
    (rig, seen.reached)
}
