//! What comes out: verdicts on entries, messages of the outbox, offers, and the events of an execution.

use nova_program::{BodyIx, NodeIx, VarIx};

use crate::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, TimeMs, Token, WorkerId};
use crate::input::{LeaseRef, ReplyTo};
use crate::payload::{Failure, Payload, TraceContext};

/// What became of an entry. Identical on every member.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It was applied.
    Applied(Applied),
    /// It changed nothing.
    Refused(Refusal),
}

/// What an applied entry answers to its proposer.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// A proposal; where the shard stands now.
    Proposal {
        /// Next offset of the command partition.
        next_offset: Offset,
    },
    /// A grant: all that a new owner needs (rule 15 a).
    Granted(ShardPosition),
    /// A registration.
    Registered(Registered),
    /// A workflow version, new or the same as before.
    Workflow {
        /// The version that holds this hash.
        version: u32,
        /// Whether it is new.
        new: bool,
    },
    /// Anything else.
    Done,
}

/// Where a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPosition {
    /// Current epoch.
    pub epoch: Epoch,
    /// Current owner; none before the first grant.
    pub owner: Option<OwnerId>,
    /// Next offset of the command partition.
    pub next_offset: Offset,
    /// Checksum of the record before it; 0 at the start of the log.
    pub before: u64,
    /// Outbox messages up to here are acknowledged.
    pub outbox_acked: Seq,
    /// Highest number in the outbox.
    pub outbox_last: Seq,
}

/// A session of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its number.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
    /// Partition of the task topic that it reads.
    pub inbox: u32,
}

/// Why an entry changed nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The epoch is not the shard's (rule 2); the sender drops the shard.
    StaleEpoch {
        /// The shard's.
        current: Epoch,
    },
    /// A record before the first one is missing (rule 3).
    Gap {
        /// The next offset that is wanted.
        next_offset: Offset,
    },
    /// The command topic is not the one that was applied (rule 3).
    Rewritten {
        /// The next offset that is wanted.
        next_offset: Offset,
        /// Checksum of the record before it.
        expected: u64,
    },
    /// The outbox is full (rule 35): only watermarks and evaluations are taken.
    OutboxFull,
    /// No such shard in this cluster.
    UnknownShard,
    /// A worker with this name has an open session (rule 21).
    NameTaken {
        /// Its session.
        session: SessionId,
    },
    /// `last_session` is not the last session under this name (rule 21).
    NotLastSession {
        /// The last one.
        last: SessionId,
    },
    /// No open session of that number.
    NoSuchSession,
    /// The session still holds leases (rule 29).
    LeasesOpen {
        /// How many.
        count: u32,
    },
    /// Silence was counted in another term (rule 6).
    OtherTerm,
    /// All inboxes are full (at most 8 workers each).
    NoInbox,
    /// No such namespace.
    UnknownNamespace,
    /// A field is out of its limits.
    Invalid {
        /// Which, and why.
        what: Box<str>,
    },
    /// No such trigger or workflow.
    NotFound,
}

/// A message of the outbox; leaves only after the entry that made it is committed.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Message {
    /// Its number.
    pub seq: Seq,
    /// The entry's time.
    pub at: TimeMs,
    /// What it says, and to whom.
    pub body: MessageBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum MessageBody {
    /// To a worker's inbox: run this attempt.
    Assign(Assignment),
    /// To a worker's inbox: stop this attempt (rule 18).
    Revoke {
        /// Partition of the task topic.
        inbox: u32,
        /// Its lease.
        lease: LeaseRef,
    },
    /// To a worker's inbox: this result changed nothing (rule 19).
    StaleToken {
        /// Partition of the task topic.
        inbox: u32,
        /// What was refused.
        lease: LeaseRef,
    },
    /// To an api's inbox.
    Reply {
        /// Which request.
        to: ReplyTo,
        /// The answer.
        answer: Answer,
    },
    /// To the event topic: what happened to one execution in one entry.
    Events(ExecutionEvents),
}

/// An attempt for a worker.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Assignment {
    /// Partition of the task topic.
    pub inbox: u32,
    /// The lease.
    pub lease: LeaseRef,
    /// Tenant.
    pub namespace: Box<str>,
    /// Kind of work.
    pub kind: Box<str>,
    /// Where it is.
    pub scope: crate::ids::ScopeId,
    /// Node.
    pub node: NodeIx,
    /// Its id in the document.
    pub node_id: Box<str>,
    /// Visit of the node, from 1.
    pub visit: u16,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The argument.
    pub with: Payload,
    /// Ends the attempt, in milliseconds from its start.
    pub attempt_timeout_ms: Option<u64>,
    /// Where its trace hangs.
    pub trace: Option<TraceContext>,
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Answer {
    /// The submission was committed; `repeated` when the key was known.
    Accepted {
        /// Its id: the first one's when repeated.
        execution: ExecutionId,
        /// Version it runs on.
        version: u32,
        /// Whether it had been accepted before.
        repeated: bool,
    },
    /// Nothing was changed.
    Rejected {
        /// Which submission or cancel.
        execution: ExecutionId,
        /// Why.
        why: Rejection,
    },
    /// The execution ended.
    Finished {
        /// Which.
        execution: ExecutionId,
        /// How.
        outcome: Outcome,
    },
    /// The cancel was committed (or the execution had ended: `ended`).
    Cancelling {
        /// Which.
        execution: ExecutionId,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No such namespace.
    UnknownNamespace,
    /// No such workflow version.
    UnknownWorkflow,
    /// The version has another hash.
    WorkflowChanged,
    /// The key was used with another content (rule 32).
    KeyConflict {
        /// What it was used for.
        first: ExecutionId,
    },
    /// The source's number is not above the last one: it was decided before.
    SourceRepeated {
        /// The last one.
        last: u64,
    },
    /// The namespace has as many open executions as it may.
    QuotaExecutions,
    /// The namespace has as many keys as it may.
    QuotaKeys,
    /// The shard's backlog is full.
    BacklogFull,
    /// The id is in use or names another shard.
    BadId,
    /// No such open execution.
    NotOpen,
    /// A field is out of its limits.
    Invalid {
        /// Which, and why.
        what: Box<str>,
    },
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Outcome {
    /// With this output.
    Completed(Payload),
    /// With this error.
    Failed(Failure),
    /// By request, for this reason.
    Cancelled(Box<str>),
}

/// What happened to one execution in one entry, in order.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct ExecutionEvents {
    /// Which.
    pub execution: ExecutionId,
    /// Tenant.
    pub namespace: Box<str>,
    /// The execution's own gapless number of the first event, from 1.
    pub first_number: u64,
    /// What happened.
    pub events: Vec<ExecutionEvent>,
}

/// What happened, in the past tense.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum ExecutionEvent {
    /// The execution began.
    Accepted {
        /// Name of its workflow.
        workflow: Box<str>,
        /// Its version.
        version: u32,
        /// Who started it.
        started_by: Box<str>,
        /// Input.
        input: Payload,
        /// Labels.
        labels: Vec<(Box<str>, Box<str>)>,
        /// Trace.
        trace: Option<TraceContext>,
    },
    /// A scope instance began.
    ScopeEntered {
        /// Which.
        scope: crate::ids::ScopeId,
        /// Of which body.
        body: BodyIx,
        /// Inside which.
        parent: crate::ids::ScopeId,
    },
    /// A node's turn came: it is queued, waits or is evaluated.
    NodeStarted(NodeRef),
    /// A worker holds an attempt.
    AttemptStarted {
        /// Where.
        node: NodeRef,
        /// From 1.
        attempt: u32,
        /// Who.
        worker: WorkerId,
        /// Its lease.
        token: Token,
    },
    /// An attempt failed and will be repeated.
    AttemptFailed {
        /// Where.
        node: NodeRef,
        /// From 1.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// When the next one may begin.
        retry_at: TimeMs,
    },
    /// A node completed.
    NodeCompleted {
        /// Where.
        node: NodeRef,
        /// With what.
        output: Payload,
        /// Chosen cases.
        cases: u64,
        /// A fallback stood in.
        degraded: bool,
    },
    /// A node failed for good.
    NodeFailed {
        /// Where.
        node: NodeRef,
        /// Why.
        failure: Failure,
        /// Whether somebody's path handles it.
        handled: bool,
    },
    /// A node was skipped.
    NodeSkipped(NodeRef),
    /// A node was cancelled.
    NodeCancelled(NodeRef),
    /// A variable was written.
    VarSet {
        /// In which scope instance.
        scope: crate::ids::ScopeId,
        /// Which.
        var: VarIx,
        /// Its value.
        value: Payload,
    },
    /// A cancel was accepted.
    CancelRequested {
        /// For people.
        reason: Box<str>,
    },
    /// The execution ended; nothing follows.
    Ended(Outcome),
    /// The submission was refused: the only event of its id (protocol rule 33).
    Rejected(Rejection),
}

/// A node of a live scope instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeRef {
    /// Scope instance.
    pub scope: crate::ids::ScopeId,
    /// Node.
    pub node: NodeIx,
    /// Visit, from 1.
    pub visit: u16,
}

/// An evaluation that the shard's owner is asked for; state, not a message (rule 13).
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its token.
    pub token: Token,
    /// Whose.
    pub execution: ExecutionId,
    /// Tenant.
    pub namespace: Box<str>,
    /// Workflow.
    pub workflow: Box<str>,
    /// Version.
    pub version: u32,
    /// Scope instance.
    pub scope: crate::ids::ScopeId,
    /// What is evaluated.
    pub subject: Subject,
    /// Visit of the node, from 1.
    pub visit: u16,
    /// Time of the entry that made the offer: `now()` of the evaluation.
    pub now: TimeMs,
    /// Seed of `random()` and `uuid()`.
    pub seed: u64,
    /// Input, when it is read.
    pub input: Option<Payload>,
    /// Nodes that are read.
    pub nodes: Vec<NodeView>,
    /// Variables that are read.
    pub vars: Vec<(VarIx, Payload)>,
    /// The raw output (finish phase).
    pub raw_output: Option<Payload>,
    /// The error (fallback phase).
    pub failure: Option<Failure>,
    /// When the execution began.
    pub started_at: TimeMs,
    /// Who started it.
    pub started_by: Box<str>,
    /// Its trace.
    pub trace: Option<TraceContext>,
}

/// What an evaluation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `when`, `with`, a choice, a thought.
    Prepare(NodeIx),
    /// `output` and `set` after the work.
    Finish(NodeIx),
    /// The value that stands in for a failed node's output.
    Fallback(NodeIx),
    /// The output of a scope that ends.
    ScopeOutput(BodyIx),
}

/// What an expression may see of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Which.
    pub node: NodeIx,
    /// Its state.
    pub state: NodeState,
    /// Whether its path into the reader arrived (for `merge`).
    pub arrived: bool,
    /// Its output, once completed.
    pub output: Option<Payload>,
    /// Its error, once failed.
    pub failure: Option<Failure>,
    /// Attempts so far.
    pub attempts: u32,
    /// When its turn came.
    pub started_at: Option<TimeMs>,
    /// When it ended.
    pub ended_at: Option<TimeMs>,
}

/// State of a node, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Its turn has not come.
    Pending,
    /// Its expressions are being evaluated.
    Evaluating,
    /// A timer runs (`wait`), or its bodies run.
    Waiting,
    /// In the ready queue.
    Queued,
    /// A worker holds it.
    Running,
    /// Between two attempts.
    Retrying,
    /// Cancelled, but a worker still holds it.
    Cancelling,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Its paths were dead, or `when` was false.
    Skipped,
    /// Ended from outside.
    Cancelled,
}

/// State of an execution, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExecutionState {
    /// Open.
    Running,
    /// Cancel accepted; workers are stopping.
    Cancelling,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended from outside.
    Cancelled,
}
