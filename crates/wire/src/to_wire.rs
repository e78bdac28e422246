//! From the core to messages.

use bytes::Bytes;
use nova_engine::ids::ExecutionId;
use nova_engine::input::{LeaseRef, ReplyTo};
use nova_engine::output::{
    Answer, Applied, Assignment, ExecutionEvent, ExecutionEvents, ExecutionState, Message, MessageBody, NodeRef,
    NodeState, NodeView, Offer, Outcome, Refusal, Rejection, ShardPosition, Subject, Verdict,
};
use nova_engine::payload::{Failure, Payload, TraceContext};

use crate::v1;

/// 16 bytes, big-endian.
#[must_use]
pub fn execution_bytes(id: ExecutionId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// A user's data.
#[must_use]
pub fn payload_to_wire(payload: &Payload) -> v1::Payload {
    let kind = match payload {
        Payload::Inline(bytes) => v1::payload::Kind::Inline(bytes.clone()),
        Payload::Stored { store, key, size, hash } => v1::payload::Kind::Stored(v1::StoredPayload {
            store: store.to_string(),
            key: key.to_string(),
            size: *size,
            hash: Bytes::copy_from_slice(hash),
        }),
    };
    v1::Payload { kind: Some(kind) }
}

/// Why something failed.
#[must_use]
pub fn failure_to_wire(failure: &Failure) -> v1::Failure {
    v1::Failure {
        code: failure.code.to_string(),
        message: failure.message.to_string(),
        retryable: failure.retryable,
        retry_after_ms: failure.retry_after_ms,
        detail: failure.detail.clone(),
        node: failure.node.to_string(),
    }
}

/// W3C trace context.
#[must_use]
pub fn trace_to_wire(trace: &TraceContext) -> v1::TraceContext {
    v1::TraceContext {
        trace_id: Bytes::copy_from_slice(&trace.trace_id),
        span_id: Bytes::copy_from_slice(&trace.span_id),
        flags: u32::from(trace.flags),
    }
}

/// Labels.
#[must_use]
pub fn labels_to_wire(labels: &[(Box<str>, Box<str>)]) -> Vec<v1::Label> {
    labels.iter().map(|(name, value)| v1::Label { name: name.to_string(), value: value.to_string() }).collect()
}

fn lease_to_wire(lease: &LeaseRef) -> v1::LeaseRef {
    v1::LeaseRef {
        execution: execution_bytes(lease.execution),
        token: lease.token.0,
        worker: lease.worker.0,
        session: lease.session.0,
    }
}

pub(crate) fn reply_to_wire(to: &ReplyTo) -> v1::ReplyTo {
    v1::ReplyTo { inbox: to.inbox, boot: to.boot, request: to.request }
}

/// A message of the outbox.
#[must_use]
pub fn message_to_wire(message: &Message) -> v1::OutboxMessage {
    use v1::outbox_message::Body;
    let body = match &message.body {
        MessageBody::Assign(assignment) => Body::Assign(assignment_to_wire(assignment)),
        MessageBody::Revoke { inbox, lease } => {
            Body::Revoke(v1::Revoke { inbox: *inbox, lease: Some(lease_to_wire(lease)) })
        }
        MessageBody::StaleToken { inbox, lease } => {
            Body::StaleToken(v1::Revoke { inbox: *inbox, lease: Some(lease_to_wire(lease)) })
        }
        MessageBody::Reply { to, answer } => {
            Body::Reply(v1::Reply { to: Some(reply_to_wire(to)), answer: Some(answer_to_wire(answer)) })
        }
        MessageBody::Events(events) => Body::Events(events_to_wire(events)),
    };
    v1::OutboxMessage { seq: message.seq.0, at_ms: message.at.0, body: Some(body) }
}

fn assignment_to_wire(assignment: &Assignment) -> v1::Assignment {
    v1::Assignment {
        inbox: assignment.inbox,
        lease: Some(lease_to_wire(&assignment.lease)),
        namespace: assignment.namespace.to_string(),
        kind: assignment.kind.to_string(),
        scope: assignment.scope.0,
        node: assignment.node.0,
        node_id: assignment.node_id.to_string(),
        visit: u32::from(assignment.visit),
        attempt: assignment.attempt,
        with: Some(payload_to_wire(&assignment.with)),
        attempt_timeout_ms: assignment.attempt_timeout_ms,
        trace: assignment.trace.as_ref().map(trace_to_wire),
    }
}

fn answer_to_wire(answer: &Answer) -> v1::reply::Answer {
    match answer {
        Answer::Accepted { execution, version, repeated } => v1::reply::Answer::Accepted(v1::Accepted {
            execution: execution_bytes(*execution),
            version: *version,
            repeated: *repeated,
        }),
        Answer::Rejected { execution, why } => v1::reply::Answer::Rejected(v1::Rejected {
            execution: execution_bytes(*execution),
            why: Some(rejection_to_wire(why)),
        }),
        Answer::Finished { execution, outcome } => v1::reply::Answer::Finished(v1::Finished {
            execution: execution_bytes(*execution),
            outcome: Some(outcome_to_wire(outcome)),
        }),
        Answer::Cancelling { execution } => {
            v1::reply::Answer::Cancelling(v1::Cancelling { execution: execution_bytes(*execution) })
        }
    }
}

fn rejection_to_wire(why: &Rejection) -> v1::Rejection {
    use v1::rejection::Kind;
    let plain = |kind: Kind| v1::Rejection { kind: kind as i32, ..v1::Rejection::default() };
    match why {
        Rejection::UnknownNamespace => plain(Kind::UnknownNamespace),
        Rejection::UnknownWorkflow => plain(Kind::UnknownWorkflow),
        Rejection::WorkflowChanged => plain(Kind::WorkflowChanged),
        Rejection::KeyConflict { first } => {
            v1::Rejection { first: execution_bytes(*first), ..plain(Kind::KeyConflict) }
        }
        Rejection::SourceRepeated { last } => v1::Rejection { last: *last, ..plain(Kind::SourceRepeated) },
        Rejection::QuotaExecutions => plain(Kind::QuotaExecutions),
        Rejection::QuotaKeys => plain(Kind::QuotaKeys),
        Rejection::BacklogFull => plain(Kind::BacklogFull),
        Rejection::BadId => plain(Kind::BadId),
        Rejection::NotOpen => plain(Kind::NotOpen),
        Rejection::Invalid { what } => v1::Rejection { what: what.to_string(), ..plain(Kind::Invalid) },
    }
}

fn outcome_to_wire(outcome: &Outcome) -> v1::Outcome {
    let kind = match outcome {
        Outcome::Completed(output) => v1::outcome::Kind::Completed(payload_to_wire(output)),
        Outcome::Failed(failure) => v1::outcome::Kind::Failed(failure_to_wire(failure)),
        Outcome::Cancelled(reason) => v1::outcome::Kind::Cancelled(reason.to_string()),
    };
    v1::Outcome { kind: Some(kind) }
}

fn events_to_wire(events: &ExecutionEvents) -> v1::ExecutionEvents {
    v1::ExecutionEvents {
        execution: execution_bytes(events.execution),
        namespace: events.namespace.to_string(),
        first_number: events.first_number,
        events: events.events.iter().map(|event| v1::ExecutionEvent { kind: Some(event_to_wire(event)) }).collect(),
    }
}

fn node_ref(node: &NodeRef) -> v1::NodeRef {
    v1::NodeRef { scope: node.scope.0, node: node.node.0, visit: u32::from(node.visit) }
}

fn event_to_wire(event: &ExecutionEvent) -> v1::execution_event::Kind {
    use v1::execution_event as e;
    match event {
        ExecutionEvent::Accepted { workflow, version, started_by, input, labels, trace } => {
            e::Kind::Accepted(e::AcceptedEvent {
                workflow: workflow.to_string(),
                version: *version,
                started_by: started_by.to_string(),
                input: Some(payload_to_wire(input)),
                labels: labels_to_wire(labels),
                trace: trace.as_ref().map(trace_to_wire),
            })
        }
        ExecutionEvent::ScopeEntered { scope, body, parent } => {
            e::Kind::ScopeEntered(e::ScopeEntered { scope: scope.0, body: body.0, parent: parent.0 })
        }
        ExecutionEvent::NodeStarted(node) => e::Kind::NodeStarted(node_ref(node)),
        ExecutionEvent::AttemptStarted { node, attempt, worker, token } => e::Kind::AttemptStarted(e::AttemptStarted {
            node: Some(node_ref(node)),
            attempt: *attempt,
            worker: worker.0,
            token: token.0,
        }),
        ExecutionEvent::AttemptFailed { node, attempt, failure, retry_at } => {
            e::Kind::AttemptFailed(e::AttemptFailed {
                node: Some(node_ref(node)),
                attempt: *attempt,
                failure: Some(failure_to_wire(failure)),
                retry_at_ms: retry_at.0,
            })
        }
        ExecutionEvent::NodeCompleted { node, output, cases, degraded } => e::Kind::NodeCompleted(e::NodeCompleted {
            node: Some(node_ref(node)),
            output: Some(payload_to_wire(output)),
            cases: *cases,
            degraded: *degraded,
        }),
        ExecutionEvent::NodeFailed { node, failure, handled } => e::Kind::NodeFailed(e::NodeFailed {
            node: Some(node_ref(node)),
            failure: Some(failure_to_wire(failure)),
            handled: *handled,
        }),
        ExecutionEvent::NodeSkipped(node) => e::Kind::NodeSkipped(node_ref(node)),
        ExecutionEvent::NodeCancelled(node) => e::Kind::NodeCancelled(node_ref(node)),
        ExecutionEvent::VarSet { scope, var, value } => {
            e::Kind::VarSet(e::VarSet { scope: scope.0, var: var.0, value: Some(payload_to_wire(value)) })
        }
        ExecutionEvent::CancelRequested { reason } => e::Kind::CancelRequested(reason.to_string()),
        ExecutionEvent::Ended(outcome) => e::Kind::Ended(outcome_to_wire(outcome)),
        ExecutionEvent::Rejected(why) => e::Kind::Rejected(rejection_to_wire(why)),
    }
}

/// Where a shard stands.
#[must_use]
pub fn position_to_wire(position: &ShardPosition) -> v1::ShardPosition {
    v1::ShardPosition {
        epoch: position.epoch.0,
        owner: position.owner.map(|owner| owner.0),
        next_offset: position.next_offset.0,
        before: position.before,
        outbox_acked: position.outbox_acked.0,
        outbox_last: position.outbox_last.0,
    }
}

/// What an entry answers.
#[must_use]
pub fn verdict_to_wire(verdict: &Verdict) -> v1::Verdict {
    let kind = match verdict {
        Verdict::Applied(applied) => v1::verdict::Kind::Applied(applied_to_wire(applied)),
        Verdict::Refused(refusal) => v1::verdict::Kind::Refused(refusal_to_wire(refusal)),
    };
    v1::Verdict { kind: Some(kind) }
}

/// What an applied entry answers.
#[must_use]
pub fn applied_to_wire(applied: &Applied) -> v1::Applied {
    use v1::applied::Kind;
    let kind = match applied {
        Applied::Proposal { next_offset } => Kind::NextOffset(next_offset.0),
        Applied::Granted(position) => Kind::Granted(position_to_wire(position)),
        Applied::Registered(it) => {
            Kind::Registered(v1::Registered { worker: it.worker.0, session: it.session.0, inbox: it.inbox })
        }
        Applied::Workflow { version, new } => Kind::Workflow(v1::WorkflowStored { version: *version, new: *new }),
        Applied::Done => Kind::Done(v1::Nothing {}),
    };
    v1::Applied { kind: Some(kind) }
}

/// Why an entry was refused.
#[must_use]
pub fn refusal_to_wire(refusal: &Refusal) -> v1::Refusal {
    use v1::refusal::Kind;
    let number = |kind: Kind, number: u64| v1::Refusal { kind: kind as i32, number, ..v1::Refusal::default() };
    match refusal {
        Refusal::StaleEpoch { current } => number(Kind::StaleEpoch, current.0),
        Refusal::Gap { next_offset } => number(Kind::Gap, next_offset.0),
        Refusal::Rewritten { next_offset, expected } => {
            v1::Refusal { checksum: *expected, ..number(Kind::Rewritten, next_offset.0) }
        }
        Refusal::OutboxFull => number(Kind::OutboxFull, 0),
        Refusal::UnknownShard => number(Kind::UnknownShard, 0),
        Refusal::NameTaken { session } => number(Kind::NameTaken, session.0),
        Refusal::NotLastSession { last } => number(Kind::NotLastSession, last.0),
        Refusal::NoSuchSession => number(Kind::NoSuchSession, 0),
        Refusal::LeasesOpen { count } => number(Kind::LeasesOpen, u64::from(*count)),
        Refusal::OtherTerm => number(Kind::OtherTerm, 0),
        Refusal::NoInbox => number(Kind::NoInbox, 0),
        Refusal::UnknownNamespace => number(Kind::UnknownNamespace, 0),
        Refusal::Invalid { what } => v1::Refusal { what: what.to_string(), ..number(Kind::Invalid, 0) },
        Refusal::NotFound => number(Kind::NotFound, 0),
    }
}

/// An evaluation that is asked for.
#[must_use]
pub fn offer_to_wire(offer: &Offer) -> v1::Offer {
    use v1::offer::Subject as Wire;
    let subject = match offer.subject {
        Subject::Prepare(node) => Wire::Prepare(node.0),
        Subject::Finish(node) => Wire::Finish(node.0),
        Subject::Fallback(node) => Wire::Fallback(node.0),
        Subject::ScopeOutput(body) => Wire::ScopeOutput(body.0),
    };
    v1::Offer {
        token: offer.token.0,
        execution: execution_bytes(offer.execution),
        namespace: offer.namespace.to_string(),
        workflow: offer.workflow.to_string(),
        version: offer.version,
        scope: offer.scope.0,
        subject: Some(subject),
        now_ms: offer.now.0,
        seed: offer.seed,
        input: offer.input.as_ref().map(payload_to_wire),
        nodes: offer.nodes.iter().map(node_view_to_wire).collect(),
        vars: offer
            .vars
            .iter()
            .map(|(var, value)| v1::VarWrite { var: var.0, value: Some(payload_to_wire(value)) })
            .collect(),
        raw_output: offer.raw_output.as_ref().map(payload_to_wire),
        failure: offer.failure.as_ref().map(failure_to_wire),
        started_at_ms: offer.started_at.0,
        started_by: offer.started_by.to_string(),
        trace: offer.trace.as_ref().map(trace_to_wire),
        visit: u32::from(offer.visit),
    }
}

fn node_view_to_wire(view: &NodeView) -> v1::NodeView {
    v1::NodeView {
        node: view.node.0,
        state: node_state_to_wire(view.state) as i32,
        arrived: view.arrived,
        output: view.output.as_ref().map(payload_to_wire),
        failure: view.failure.as_ref().map(failure_to_wire),
        attempts: view.attempts,
        started_at_ms: view.started_at.map(|at| at.0),
        ended_at_ms: view.ended_at.map(|at| at.0),
        worker: None,
    }
}

/// State of a node.
#[must_use]
pub fn node_state_to_wire(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Pending => v1::NodeState::Pending,
        NodeState::Evaluating => v1::NodeState::Evaluating,
        NodeState::Waiting => v1::NodeState::Waiting,
        NodeState::Queued => v1::NodeState::Queued,
        NodeState::Running => v1::NodeState::Running,
        NodeState::Retrying => v1::NodeState::Retrying,
        NodeState::Cancelling => v1::NodeState::Cancelling,
        NodeState::Completed => v1::NodeState::Completed,
        NodeState::Failed => v1::NodeState::Failed,
        NodeState::Skipped => v1::NodeState::Skipped,
        NodeState::Cancelled => v1::NodeState::Cancelled,
    }
}

/// State of an execution.
#[must_use]
pub fn execution_state_to_wire(state: ExecutionState) -> v1::ExecutionState {
    match state {
        ExecutionState::Running => v1::ExecutionState::Running,
        ExecutionState::Cancelling => v1::ExecutionState::Cancelling,
        ExecutionState::Completed => v1::ExecutionState::Completed,
        ExecutionState::Failed => v1::ExecutionState::Failed,
        ExecutionState::Cancelled => v1::ExecutionState::Cancelled,
    }
}
