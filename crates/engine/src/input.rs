//! What goes in: the entries of the replicated log and the commands inside them.

use std::sync::Arc;

use bytes::Bytes;
use nova_program::{NodeIx, Program, VarIx};

use crate::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use crate::payload::{Failure, Payload, TraceContext};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Stamped by the leader; never below the entry before it.
    pub now: TimeMs,
    /// Position in the log; the source of jitter seeds.
    pub index: u64,
    /// Term of the leader that appended it.
    pub term: u64,
    /// What it asks for.
    pub body: EntryBody,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryBody {
    /// Commands and evaluations of one shard, by its owner (protocol rule 1).
    Propose(Proposal),
    /// A timer is due and nothing else is on its way (rule 6).
    Tick,
    /// Ownership of a shard (rule 14): refused unless `after` is the current epoch.
    Grant {
        /// Which shard.
        shard: ShardId,
        /// The epoch that the leader saw when it decided.
        after: Epoch,
        /// The new owner.
        owner: OwnerId,
    },
    /// A worker begins a session (rule 21).
    Register(Register),
    /// A worker ends its session by itself (rule 29); refused while leases are open.
    Close {
        /// Which worker.
        worker: WorkerId,
        /// Which of its sessions.
        session: SessionId,
    },
    /// The leader declares a session lost (rules 25, 26).
    SessionLost {
        /// Which worker.
        worker: WorkerId,
        /// Which of its sessions.
        session: SessionId,
        /// The term in which the silence was counted; refused when the entry's term is another.
        counted_in_term: u64,
    },
    /// Leases whose assignment or result was lost in the bus (rule 27); compared again.
    Requeue {
        /// Which worker.
        worker: WorkerId,
        /// Which of its sessions.
        session: SessionId,
        /// Highest outbox number per shard that the worker had seen when it renewed.
        seen: Vec<(ShardId, Seq)>,
        /// Position after the last result that the worker had acknowledged per shard.
        last_result: Vec<(ShardId, Offset)>,
        /// Tokens that the worker held.
        held: Vec<Token>,
    },
    /// A worker gets no new leases (or gets them again).
    Drain {
        /// Which worker.
        worker: WorkerId,
        /// False takes the drain back.
        draining: bool,
    },
    /// A namespace comes into being or changes.
    PutNamespace(Namespace),
    /// A version of a workflow (rule 37). The same hash as the newest changes nothing.
    PutWorkflow(PutWorkflow),
    /// A trigger comes into being or changes.
    PutTrigger(Trigger),
    /// A trigger goes; its position is forgotten.
    DeleteTrigger {
        /// Namespace.
        namespace: Box<str>,
        /// Its id within the namespace.
        id: Box<str>,
    },
    /// What stood behind this state is not known: it was put back from a backup, or its log may have lost its end.
    Recover {
        /// The topics are empty: reading begins at their start. False: they are those that the state knows.
        new_bus: bool,
    },
    /// The feature level goes up: all members run builds that know it.
    RaiseLevel {
        /// The new one; the one in force changes nothing, and a lower one is refused.
        to: u32,
    },
}

/// Commands and evaluations of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Which shard.
    pub shard: ShardId,
    /// The proposer's epoch, compared in apply (rule 2).
    pub epoch: Epoch,
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Offset after the last record; equal to `first_offset` when there are none.
    pub next_offset: Offset,
    /// Checksum of the record before `first_offset` (rule 3); 0 at the start of the log.
    pub before: u64,
    /// Records in order of offset.
    pub records: Vec<Record>,
    /// Evaluations of offered nodes.
    pub locals: Vec<Local>,
    /// Highest outbox number up to which everything is acknowledged by the bus (rule 11).
    pub outbox_acked: Seq,
}

/// One record of the command partition: one or more commands that are applied together.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its position.
    pub offset: Offset,
    /// Checksum of its bytes.
    pub checksum: u64,
    /// What it asks for. Empty for a record that was dropped as foreign or damaged (a dead letter was written).
    pub commands: Vec<Command>,
}

/// What clients, triggers and workers ask for through the bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begin an execution.
    Submit(Submit),
    /// End an execution early.
    Cancel {
        /// Which.
        execution: ExecutionId,
        /// For people.
        reason: Box<str>,
        /// Who wants to hear.
        reply_to: Option<ReplyTo>,
    },
    /// An attempt ended (rules 19, 28).
    Result(TaskResult),
    /// A worker did not begin an attempt (rule 20).
    Declined {
        /// Its lease.
        lease: LeaseRef,
        /// For people.
        reason: Box<str>,
    },
    /// A worker has stopped a revoked attempt (rule 18).
    Stopped {
        /// Its lease.
        lease: LeaseRef,
    },
}

/// Begin an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// Its id; names the shard.
    pub execution: ExecutionId,
    /// Tenant.
    pub namespace: Box<str>,
    /// Name of the workflow.
    pub workflow: Box<str>,
    /// Its version.
    pub version: u32,
    /// Hash of that version; a mismatch is a rejection.
    pub hash: [u8; 32],
    /// Input that was checked against the schema of that version.
    pub input: Payload,
    /// blake3 over workflow and input: the same key with another hash is a conflict (rule 32).
    pub content_hash: [u8; 32],
    /// What makes a repeat recognisable.
    pub dedupe: Dedupe,
    /// Who wants to hear.
    pub reply_to: Option<ReplyTo>,
    /// Also tell `reply_to` when it ends.
    pub reply_at_end: bool,
    /// Who or what started it: `api`, `trigger:<id>`.
    pub started_by: Box<str>,
    /// Labels for search.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Where its trace hangs.
    pub trace: Option<TraceContext>,
}

/// What makes a repeated submission recognisable (rule 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dedupe {
    /// Only its offset.
    None,
    /// An idempotency key of a client, within the namespace.
    Key(Box<str>),
    /// A trigger's position, which only grows (rule 36).
    Source {
        /// `trigger id` or `trigger id/partition`, within the namespace.
        source: Box<str>,
        /// Slot time in milliseconds, or record offset; higher than all before it from this source.
        number: u64,
    },
}

/// Where an answer goes: a request of one api process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// Partition of the reply topic.
    pub inbox: u32,
    /// Drawn by that process when it started.
    pub boot: u64,
    /// Chosen by that process.
    pub request: u64,
}

/// Which lease a worker speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// Whose node.
    pub execution: ExecutionId,
    /// The lease's token.
    pub token: Token,
    /// The worker that speaks.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
}

/// An attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// Its lease.
    pub lease: LeaseRef,
    /// How.
    pub outcome: TaskOutcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskOutcome {
    /// With this output.
    Completed(Payload),
    /// With this error.
    Failed(Failure),
}

/// An evaluation of an offered node (rule 13); the first with its token counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Whose node.
    pub execution: ExecutionId,
    /// The offer's token.
    pub token: Token,
    /// What came out.
    pub outcome: LocalOutcome,
}

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalOutcome {
    /// `when` was false.
    Skip,
    /// Work may be queued, with this argument if it is an evaluated one.
    Run {
        /// Argument of the worker.
        with: Option<Payload>,
    },
    /// A wait lasts until this moment.
    WaitUntil(TimeMs),
    /// A wait lasts this long from the entry that commits it.
    WaitFor {
        /// Milliseconds.
        ms: u64,
    },
    /// Bodies to run (`if`, `switch` with bodies): bit n is case n.
    Chosen {
        /// Chosen cases.
        cases: u64,
        /// Variables written.
        sets: Vec<VarWrite>,
    },
    /// The node, or the scope's output, is done.
    Done {
        /// Its output.
        output: Payload,
        /// Chosen cases of an `if` or `switch`.
        cases: u64,
        /// Variables written.
        sets: Vec<VarWrite>,
    },
    /// The evaluation failed: `expression.*`.
    Failed(Failure),
}

/// A variable written by `set`, guarded by the versions that the evaluation saw.
#[derive(Clone, Debug, PartialEq)]
pub struct VarWrite {
    /// Which.
    pub var: VarIx,
    /// Its new value.
    pub value: Payload,
}

/// A worker begins a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Register {
    /// Unique name.
    pub name: Box<str>,
    /// Pool.
    pub pool: Box<str>,
    /// Kinds of work it can carry.
    pub kinds: Vec<Box<str>>,
    /// Labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Slots.
    pub capacity: u32,
    /// Drawn by the process when it started.
    pub boot: u64,
    /// The session it saw last under this name; 0 when none.
    pub last_session: SessionId,
    /// The caller holds the data-directory lock and has seen every process of the old session dead.
    pub fenced: bool,
    /// Number of inbox partitions of the task topic.
    pub inboxes: u32,
}

/// The tenant boundary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// Its name.
    pub name: Box<str>,
    /// Open executions at once; beyond it submissions are rejected.
    pub max_open_executions: u64,
    /// Idempotency keys remembered at once; beyond it submissions with a key are rejected.
    pub max_keys: u64,
}

/// A version of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct PutWorkflow {
    /// Tenant.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// blake3 of the canonical document.
    pub hash: [u8; 32],
    /// Compiled form.
    pub program: Arc<Program>,
    /// Canonical document, for those who evaluate; the engine never reads it.
    pub document: Bytes,
}

/// Something that starts executions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// Tenant.
    pub namespace: Box<str>,
    /// Its id within the namespace.
    pub id: Box<str>,
    /// Name of the workflow that it starts.
    pub workflow: Box<str>,
    /// Its specification as JSON, for the trigger service; the engine never reads it.
    pub spec: Bytes,
}

/// A place in an execution: a node of a scope instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Scope instance.
    pub scope: crate::ids::ScopeId,
    /// Node of its body.
    pub node: NodeIx,
}
