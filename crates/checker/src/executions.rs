//! What happened to each execution, from its events.

use std::collections::{BTreeMap, BTreeSet};

use nova_wire::v1;
use serde_json::Value;
use v1::execution_event::Kind;
use v1::outbox_message::Body;

use crate::outbox::Outbox;
use crate::{Findings, Id};

/// How an execution ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// With this output.
    Completed(Value),
    /// With this code and message.
    Failed(String),
    /// On request.
    Cancelled,
}

/// What is known of an execution.
#[derive(Clone, Debug, Default)]
pub struct Execution {
    /// How often it began.
    pub accepted: u32,
    /// How it was refused.
    pub rejected: Option<v1::rejection::Kind>,
    /// How it ended.
    pub end: Option<End>,
    /// A cancel was accepted.
    pub cancelled: bool,
    /// Tokens whose attempts completed a node.
    pub(crate) completed: BTreeSet<u64>,
    /// Tokens that were given to workers.
    pub(crate) given: BTreeSet<u64>,
    events: u64,
    visits: BTreeMap<(u32, u32, u32), Visit>,
}

#[derive(Clone, Debug, Default)]
struct Visit {
    attempt: u32,
    token: u64,
    over: bool,
}

fn json(payload: Option<&v1::Payload>) -> Value {
    match payload.and_then(|it| it.kind.as_ref()) {
        Some(v1::payload::Kind::Inline(bytes)) => serde_json::from_slice(bytes).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

/// Puts together what the messages say.
pub(crate) fn fold(outbox: &Outbox, findings: &mut Findings) -> BTreeMap<Id, Execution> {
    let mut executions: BTreeMap<Id, Execution> = BTreeMap::new();
    for message in outbox.messages.values() {
        let Some(Body::Events(happened)) = &message.body else { continue };
        let Some(id) = Id::of(&happened.execution) else {
            findings.add("B2", format!("events of no execution: {happened:?}"));
            continue;
        };
        let execution = executions.entry(id).or_default();
        findings.check(happened.first_number == execution.events + 1, "B2", || {
            format!("{id}: event {} comes behind event {}", happened.first_number, execution.events)
        });
        execution.events += happened.events.len() as u64;
        for event in &happened.events {
            if let Some(kind) = &event.kind {
                execution.take(id, kind, findings);
            }
        }
    }
    for (id, execution) in &executions {
        let (accepted, rejected) = (execution.accepted, execution.rejected);
        findings.check(accepted <= 1, "A2", || format!("{id} began {accepted} times"));
        findings.check(rejected.is_some() != (accepted == 1), "B2", || {
            format!("{id} began {accepted} times, and was refused: {rejected:?}")
        });
        let ended = execution.end.as_ref();
        findings.check(!execution.cancelled || ended.is_none_or(|end| *end == End::Cancelled), "D2", || {
            format!("{id} was cancelled, and came to {ended:?}")
        });
        findings.check(accepted == 0 || execution.end.is_some(), "J2", || format!("{id} has not ended"));
    }
    executions
}

impl Execution {
    fn take(&mut self, id: Id, kind: &Kind, findings: &mut Findings) {
        findings.check(self.end.is_none(), "B1", || format!("{id}: after its end: {kind:?}"));
        let begins = matches!(kind, Kind::Accepted(_) | Kind::Rejected(_));
        findings.check(begins || self.accepted == 1, "B2", || format!("{id}: before its beginning: {kind:?}"));
        match kind {
            Kind::Accepted(_) => self.accepted += 1,
            Kind::Rejected(why) => self.rejected = Some(why.kind()),
            Kind::Ended(outcome) => self.end = end(outcome),
            Kind::AttemptStarted(it) => {
                self.begins(id, kind, findings);
                self.given.insert(it.token);
                let visit = self.visit(id, it.node, kind, findings);
                // One that was declined is not counted, and made again under its number (rule 20).
                let next = it.attempt == visit.attempt + 1 || it.attempt == visit.attempt;
                findings.check(next, "B8", || format!("{id}: behind attempt {}: {kind:?}", visit.attempt));
                findings
                    .check(it.token > visit.token, "C1", || format!("{id}: behind token {}: {kind:?}", visit.token));
                (visit.attempt, visit.token) = (it.attempt, it.token);
            }
            Kind::NodeStarted(node) => {
                self.begins(id, kind, findings);
                self.visit(id, Some(*node), kind, findings);
            }
            Kind::AttemptFailed(it) => drop(self.visit(id, it.node, kind, findings)),
            Kind::NodeCompleted(it) => {
                let visit = self.visit(id, it.node, kind, findings);
                visit.over = true;
                if let (token @ 1.., false) = (visit.token, it.degraded) {
                    self.completed.insert(token);
                }
            }
            Kind::NodeFailed(it) => self.visit(id, it.node, kind, findings).over = true,
            Kind::NodeSkipped(node) | Kind::NodeCancelled(node) => {
                self.visit(id, Some(*node), kind, findings).over = true;
            }
            Kind::CancelRequested(_) => self.cancelled = true,
            Kind::ScopeEntered(_) => self.begins(id, kind, findings),
            Kind::VarSet(_) => {}
        }
    }

    /// D1: nothing begins after a cancel.
    fn begins(&self, id: Id, kind: &Kind, findings: &mut Findings) {
        findings.check(!self.cancelled, "D1", || format!("{id}: after its cancel: {kind:?}"));
    }

    /// B4, B6: nothing happens to a visit of a node that is over.
    fn visit(&mut self, id: Id, node: Option<v1::NodeRef>, kind: &Kind, findings: &mut Findings) -> &mut Visit {
        let node = node.unwrap_or_default();
        let visit = self.visits.entry((node.scope, node.node, node.visit)).or_default();
        findings.check(!visit.over, "B4", || format!("{id}: the node has ended before: {kind:?}"));
        visit
    }
}

fn end(outcome: &v1::Outcome) -> Option<End> {
    Some(match outcome.kind.as_ref()? {
        v1::outcome::Kind::Completed(output) => End::Completed(json(Some(output))),
        v1::outcome::Kind::Failed(failure) => End::Failed(format!("{}: {}", failure.code, failure.message)),
        v1::outcome::Kind::Cancelled(_) => End::Cancelled,
    })
}
