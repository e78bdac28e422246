//! From messages to the core. Everything that came from outside is checked here.

use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use nova_engine::input::{
    Command, Dedupe, EntryBody, LeaseRef, Local, LocalOutcome, Namespace, Proposal, PutWorkflow, Record, Register,
    ReplyTo, Submit, TaskOutcome, TaskResult, Trigger, VarWrite,
};
use nova_engine::payload::{Failure, Payload, TraceContext};
use nova_program::VarIx;
use prost::Message;

pub use crate::program::program_from_wire;

use crate::error::{WireError, bad, missing};
use crate::v1;

/// 16 bytes, big-endian.
///
/// # Errors
/// When there are not 16 of them.
pub fn execution_id(bytes: &[u8]) -> Result<ExecutionId, WireError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| bad("execution", "is not 16 bytes"))?;
    Ok(ExecutionId(u128::from_be_bytes(bytes)))
}

pub(crate) fn hash(bytes: &[u8], field: &'static str) -> Result<[u8; 32], WireError> {
    bytes.try_into().map_err(|_| bad(field, "is not 32 bytes"))
}

fn shard(number: u32) -> Result<ShardId, WireError> {
    u16::try_from(number).map(ShardId).map_err(|_| bad("shard", "is above 65,535"))
}

/// A user's data.
///
/// # Errors
/// Which field is missing.
pub fn payload_from_wire(payload: Option<v1::Payload>) -> Result<Payload, WireError> {
    match payload.and_then(|payload| payload.kind) {
        Some(v1::payload::Kind::Inline(bytes)) => Ok(Payload::Inline(bytes)),
        Some(v1::payload::Kind::Stored(stored)) => Ok(Payload::Stored {
            store: stored.store.into(),
            key: stored.key.into(),
            size: stored.size,
            hash: hash(&stored.hash, "stored.hash")?,
        }),
        None => Err(missing("payload")),
    }
}

pub(crate) fn failure(failure: v1::Failure) -> Failure {
    Failure {
        code: failure.code.into(),
        message: failure.message.into(),
        retryable: failure.retryable,
        retry_after_ms: failure.retry_after_ms,
        detail: failure.detail,
        node: failure.node.into(),
    }
}

pub(crate) fn trace(trace: &v1::TraceContext) -> Option<TraceContext> {
    Some(TraceContext {
        trace_id: trace.trace_id.as_ref().try_into().ok()?,
        span_id: trace.span_id.as_ref().try_into().ok()?,
        flags: trace.flags as u8,
    })
}

pub(crate) fn labels(labels: Vec<v1::Label>) -> Vec<(Box<str>, Box<str>)> {
    labels.into_iter().map(|label| (label.name.into(), label.value.into())).collect()
}

/// A lease as a worker names it.
///
/// # Errors
/// Which field is missing.
pub fn lease_from_wire(lease: Option<&v1::LeaseRef>) -> Result<LeaseRef, WireError> {
    let lease = lease.ok_or_else(|| missing("lease"))?;
    Ok(LeaseRef {
        execution: execution_id(&lease.execution)?,
        token: Token(lease.token),
        worker: WorkerId(lease.worker),
        session: SessionId(lease.session),
    })
}

pub(crate) fn reply_to(to: &v1::ReplyTo) -> ReplyTo {
    ReplyTo { inbox: to.inbox, boot: to.boot, request: to.request }
}

/// The commands of one record. Bytes are shared with the record.
///
/// # Errors
/// What is wrong with them.
pub fn commands_from_wire(body: Bytes) -> Result<Vec<Command>, WireError> {
    let batch = v1::CommandBatch::decode(body).map_err(|source| WireError::Decode { what: "CommandBatch", source })?;
    batch.commands.into_iter().map(command).collect()
}

fn command(command: v1::Command) -> Result<Command, WireError> {
    match command.kind.ok_or_else(|| missing("command.kind"))? {
        v1::command::Kind::Submit(it) => submit(it).map(Command::Submit),
        v1::command::Kind::Cancel(it) => Ok(Command::Cancel {
            execution: execution_id(&it.execution)?,
            reason: it.reason.into(),
            reply_to: it.reply_to.as_ref().map(reply_to),
        }),
        v1::command::Kind::Result(it) => {
            let outcome = match it.outcome.ok_or_else(|| missing("result.outcome"))? {
                v1::task_result::Outcome::Completed(payload) => {
                    TaskOutcome::Completed(payload_from_wire(Some(payload))?)
                }
                v1::task_result::Outcome::Failed(it) => TaskOutcome::Failed(failure(it)),
            };
            Ok(Command::Result(TaskResult { lease: lease_from_wire(it.lease.as_ref())?, outcome }))
        }
        v1::command::Kind::Declined(it) => {
            Ok(Command::Declined { lease: lease_from_wire(it.lease.as_ref())?, reason: it.reason.into() })
        }
        v1::command::Kind::Stopped(it) => Ok(Command::Stopped { lease: lease_from_wire(it.lease.as_ref())? }),
    }
}

fn submit(it: v1::Submit) -> Result<Submit, WireError> {
    Ok(Submit {
        execution: execution_id(&it.execution)?,
        namespace: it.namespace.into(),
        workflow: it.workflow.into(),
        version: it.version,
        hash: hash(&it.hash, "submit.hash")?,
        input: payload_from_wire(it.input)?,
        content_hash: hash(&it.content_hash, "submit.content_hash")?,
        dedupe: match it.dedupe {
            None => Dedupe::None,
            Some(v1::submit::Dedupe::Key(key)) => Dedupe::Key(key.into()),
            Some(v1::submit::Dedupe::Source(source)) => {
                Dedupe::Source { source: source.source.into(), number: source.number }
            }
        },
        reply_to: it.reply_to.as_ref().map(reply_to),
        reply_at_end: it.reply_at_end,
        started_by: it.started_by.into(),
        labels: labels(it.labels),
        trace: it.trace.as_ref().and_then(trace),
    })
}

/// Makes sure that an entry can be read, before it stands in the log: one that cannot stops every member. Commands of a
/// record that cannot be decoded are taken out here, where one member decides for all; gives how many records that were.
///
/// # Errors
/// What is wrong with the entry.
pub fn check_entry_body(body: &mut v1::EntryBody) -> Result<usize, WireError> {
    let Some(v1::entry_body::Kind::Propose(proposal)) = &mut body.kind else {
        return entry_body_from_wire(body.clone()).map(|_| 0);
    };
    shard(proposal.shard)?;
    proposal.locals.iter().try_for_each(|it| local(it.clone()).map(drop))?;
    let mut emptied = 0;
    for record in &mut proposal.records {
        if commands_from_wire(record.commands.clone()).is_err() {
            record.commands = Bytes::new();
            emptied += 1;
        }
    }
    Ok(emptied)
}

/// What an entry asks for.
///
/// # Errors
/// What is not understood; a member that meets it stops (protocol rule 7).
pub fn entry_body_from_wire(body: v1::EntryBody) -> Result<EntryBody, WireError> {
    use v1::entry_body::Kind;
    Ok(match body.kind.ok_or_else(|| missing("entry.kind"))? {
        Kind::Propose(it) => EntryBody::Propose(proposal(it)?),
        Kind::Tick(_) => EntryBody::Tick,
        Kind::Grant(it) => {
            EntryBody::Grant { shard: shard(it.shard)?, after: Epoch(it.after), owner: OwnerId(it.owner) }
        }
        Kind::Register(it) => EntryBody::Register(Register {
            name: it.name.into(),
            pool: it.pool.into(),
            kinds: it.kinds.into_iter().map(Into::into).collect(),
            labels: labels(it.labels),
            capacity: it.capacity,
            boot: it.boot,
            last_session: SessionId(it.last_session),
            fenced: it.fenced,
            inboxes: it.inboxes,
        }),
        Kind::Close(it) => EntryBody::Close { worker: WorkerId(it.worker), session: SessionId(it.session) },
        Kind::SessionLost(it) => EntryBody::SessionLost {
            worker: WorkerId(it.worker),
            session: SessionId(it.session),
            counted_in_term: it.counted_in_term,
        },
        Kind::Requeue(it) => EntryBody::Requeue {
            worker: WorkerId(it.worker),
            session: SessionId(it.session),
            seen: it.seen.iter().map(|at| Ok((shard(at.shard)?, Seq(at.number)))).collect::<Result<_, WireError>>()?,
            last_result: it
                .last_result
                .iter()
                .map(|at| Ok((shard(at.shard)?, Offset(at.number))))
                .collect::<Result<_, WireError>>()?,
            held: it.held.into_iter().map(Token).collect(),
        },
        Kind::Drain(it) => EntryBody::Drain { worker: WorkerId(it.worker), draining: it.draining },
        Kind::PutNamespace(it) => EntryBody::PutNamespace(Namespace {
            name: it.name.into(),
            max_open_executions: it.max_open_executions,
            max_keys: it.max_keys,
        }),
        Kind::PutWorkflow(it) => EntryBody::PutWorkflow(PutWorkflow {
            namespace: it.namespace.into(),
            name: it.name.into(),
            hash: hash(&it.hash, "workflow.hash")?,
            program: Arc::new(program_from_wire(it.program.as_ref().ok_or_else(|| missing("workflow.program"))?)?),
            document: it.document,
        }),
        Kind::PutTrigger(it) => EntryBody::PutTrigger(Trigger {
            namespace: it.namespace.into(),
            id: it.id.into(),
            workflow: it.workflow.into(),
            spec: it.spec,
        }),
        Kind::DeleteTrigger(it) => EntryBody::DeleteTrigger { namespace: it.namespace.into(), id: it.id.into() },
        Kind::Recover(it) => EntryBody::Recover { new_bus: it.new_bus },
        Kind::RaiseLevel(it) => EntryBody::RaiseLevel { to: it.to },
    })
}

fn proposal(it: v1::Proposal) -> Result<Proposal, WireError> {
    let record = |record: v1::CommandRecord| {
        let commands = commands_from_wire(record.commands)?;
        Ok(Record { offset: Offset(record.offset), checksum: record.checksum, commands })
    };
    Ok(Proposal {
        shard: shard(it.shard)?,
        epoch: Epoch(it.epoch),
        first_offset: Offset(it.first_offset),
        next_offset: Offset(it.next_offset),
        before: it.before,
        records: it.records.into_iter().map(record).collect::<Result<_, WireError>>()?,
        locals: it.locals.into_iter().map(local).collect::<Result<_, _>>()?,
        outbox_acked: Seq(it.outbox_acked),
    })
}

fn sets(sets: Vec<v1::VarWrite>) -> Result<Vec<VarWrite>, WireError> {
    sets.into_iter().map(|set| Ok(VarWrite { var: VarIx(set.var), value: payload_from_wire(set.value)? })).collect()
}

fn local(it: v1::Local) -> Result<Local, WireError> {
    use v1::local::Outcome;
    let outcome = match it.outcome.ok_or_else(|| missing("local.outcome"))? {
        Outcome::Skip(_) => LocalOutcome::Skip,
        Outcome::Run(run) => {
            let with = run.with.map(|with| payload_from_wire(Some(with))).transpose()?;
            LocalOutcome::Run { with }
        }
        Outcome::WaitUntilMs(at) => LocalOutcome::WaitUntil(TimeMs(at)),
        Outcome::WaitForMs(ms) => LocalOutcome::WaitFor { ms },
        Outcome::Chosen(chosen) => LocalOutcome::Chosen { cases: chosen.cases, sets: sets(chosen.sets)? },
        Outcome::Done(done) => {
            LocalOutcome::Done { output: payload_from_wire(done.output)?, cases: done.cases, sets: sets(done.sets)? }
        }
        Outcome::Failed(it) => LocalOutcome::Failed(failure(it)),
    };
    Ok(Local { execution: execution_id(&it.execution)?, token: Token(it.token), outcome })
}
