//! Messages of the outbox, back to the core: a snapshot holds those that the bus has not acknowledged.

use nova_engine::ids::{ScopeId, Seq, TimeMs, Token, WorkerId};
use nova_engine::output::{
    Answer, Assignment, ExecutionEvent, ExecutionEvents, Message, MessageBody, NodeRef, Outcome, Rejection,
};
use nova_program::{BodyIx, NodeIx, VarIx};

use crate::error::{WireError, bad, missing};
use crate::from_wire::{execution_id, failure, labels, lease_from_wire, payload_from_wire, reply_to, trace};
use crate::v1;

/// A message of the outbox.
///
/// # Errors
/// Which field is missing or not known here.
pub fn message_from_wire(message: v1::OutboxMessage) -> Result<Message, WireError> {
    use v1::outbox_message::Body;
    let body = match message.body.ok_or_else(|| missing("message.body"))? {
        Body::Assign(it) => MessageBody::Assign(assignment(it)?),
        Body::Revoke(it) => MessageBody::Revoke { inbox: it.inbox, lease: lease_from_wire(it.lease.as_ref())? },
        Body::StaleToken(it) => MessageBody::StaleToken { inbox: it.inbox, lease: lease_from_wire(it.lease.as_ref())? },
        Body::Reply(it) => MessageBody::Reply {
            to: reply_to(it.to.as_ref().ok_or_else(|| missing("reply.to"))?),
            answer: answer(it.answer.ok_or_else(|| missing("reply.answer"))?)?,
        },
        Body::Events(it) => MessageBody::Events(ExecutionEvents {
            execution: execution_id(&it.execution)?,
            namespace: it.namespace.into(),
            first_number: it.first_number,
            events: it.events.into_iter().map(event).collect::<Result<_, _>>()?,
        }),
    };
    Ok(Message { seq: Seq(message.seq), at: TimeMs(message.at_ms), body })
}

fn visit(number: u32) -> Result<u16, WireError> {
    u16::try_from(number).map_err(|_| bad("visit", "is above 65,535"))
}

fn assignment(it: v1::Assignment) -> Result<Assignment, WireError> {
    Ok(Assignment {
        inbox: it.inbox,
        lease: lease_from_wire(it.lease.as_ref())?,
        namespace: it.namespace.into(),
        kind: it.kind.into(),
        scope: ScopeId(it.scope),
        node: NodeIx(it.node),
        node_id: it.node_id.into(),
        visit: visit(it.visit)?,
        attempt: it.attempt,
        with: payload_from_wire(it.with)?,
        attempt_timeout_ms: it.attempt_timeout_ms,
        trace: it.trace.as_ref().and_then(trace),
    })
}

fn answer(answer: v1::reply::Answer) -> Result<Answer, WireError> {
    Ok(match answer {
        v1::reply::Answer::Accepted(it) => {
            Answer::Accepted { execution: execution_id(&it.execution)?, version: it.version, repeated: it.repeated }
        }
        v1::reply::Answer::Rejected(it) => {
            Answer::Rejected { execution: execution_id(&it.execution)?, why: rejection(it.why)? }
        }
        v1::reply::Answer::Finished(it) => {
            Answer::Finished { execution: execution_id(&it.execution)?, outcome: outcome(it.outcome)? }
        }
        v1::reply::Answer::Cancelling(it) => Answer::Cancelling { execution: execution_id(&it.execution)? },
    })
}

fn rejection(why: Option<v1::Rejection>) -> Result<Rejection, WireError> {
    use v1::rejection::Kind;
    let why = why.ok_or_else(|| missing("rejection"))?;
    Ok(match why.kind() {
        Kind::Unspecified => return Err(bad("rejection.kind", "is not known here")),
        Kind::UnknownNamespace => Rejection::UnknownNamespace,
        Kind::UnknownWorkflow => Rejection::UnknownWorkflow,
        Kind::WorkflowChanged => Rejection::WorkflowChanged,
        Kind::KeyConflict => Rejection::KeyConflict { first: execution_id(&why.first)? },
        Kind::SourceRepeated => Rejection::SourceRepeated { last: why.last },
        Kind::QuotaExecutions => Rejection::QuotaExecutions,
        Kind::QuotaKeys => Rejection::QuotaKeys,
        Kind::BacklogFull => Rejection::BacklogFull,
        Kind::BadId => Rejection::BadId,
        Kind::NotOpen => Rejection::NotOpen,
        Kind::Invalid => Rejection::Invalid { what: why.what.into() },
    })
}

fn outcome(outcome: Option<v1::Outcome>) -> Result<Outcome, WireError> {
    use v1::outcome::Kind;
    Ok(match outcome.and_then(|outcome| outcome.kind).ok_or_else(|| missing("outcome"))? {
        Kind::Completed(output) => Outcome::Completed(payload_from_wire(Some(output))?),
        Kind::Failed(why) => Outcome::Failed(failure(why)),
        Kind::Cancelled(reason) => Outcome::Cancelled(reason.into()),
    })
}

fn node_ref(node: Option<v1::NodeRef>) -> Result<NodeRef, WireError> {
    let node = node.ok_or_else(|| missing("node"))?;
    Ok(NodeRef { scope: ScopeId(node.scope), node: NodeIx(node.node), visit: visit(node.visit)? })
}

fn event(event: v1::ExecutionEvent) -> Result<ExecutionEvent, WireError> {
    use v1::execution_event::Kind;
    let why = |why: Option<v1::Failure>| why.map(failure).ok_or_else(|| missing("event.failure"));
    Ok(match event.kind.ok_or_else(|| missing("event.kind"))? {
        Kind::Accepted(it) => ExecutionEvent::Accepted {
            workflow: it.workflow.into(),
            version: it.version,
            started_by: it.started_by.into(),
            input: payload_from_wire(it.input)?,
            labels: labels(it.labels),
            trace: it.trace.as_ref().and_then(trace),
        },
        Kind::ScopeEntered(it) => {
            ExecutionEvent::ScopeEntered { scope: ScopeId(it.scope), body: BodyIx(it.body), parent: ScopeId(it.parent) }
        }
        Kind::NodeStarted(it) => ExecutionEvent::NodeStarted(node_ref(Some(it))?),
        Kind::AttemptStarted(it) => ExecutionEvent::AttemptStarted {
            node: node_ref(it.node)?,
            attempt: it.attempt,
            worker: WorkerId(it.worker),
            token: Token(it.token),
        },
        Kind::AttemptFailed(it) => ExecutionEvent::AttemptFailed {
            node: node_ref(it.node)?,
            attempt: it.attempt,
            failure: why(it.failure)?,
            retry_at: TimeMs(it.retry_at_ms),
        },
        Kind::NodeCompleted(it) => ExecutionEvent::NodeCompleted {
            node: node_ref(it.node)?,
            output: payload_from_wire(it.output)?,
            cases: it.cases,
            degraded: it.degraded,
        },
        Kind::NodeFailed(it) => {
            ExecutionEvent::NodeFailed { node: node_ref(it.node)?, failure: why(it.failure)?, handled: it.handled }
        }
        Kind::NodeSkipped(it) => ExecutionEvent::NodeSkipped(node_ref(Some(it))?),
        Kind::NodeCancelled(it) => ExecutionEvent::NodeCancelled(node_ref(Some(it))?),
        Kind::VarSet(it) => {
            ExecutionEvent::VarSet { scope: ScopeId(it.scope), var: VarIx(it.var), value: payload_from_wire(it.value)? }
        }
        Kind::CancelRequested(reason) => ExecutionEvent::CancelRequested { reason: reason.into() },
        Kind::Ended(it) => ExecutionEvent::Ended(outcome(Some(it))?),
        Kind::Rejected(it) => ExecutionEvent::Rejected(rejection(Some(it))?),
    })
}
