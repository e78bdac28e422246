//! What happened inside: the only way the state changes.

use std::sync::Arc;

use nova_program::{BodyIx, NodeIx, VarIx};

use crate::ids::{Epoch, ExecutionId, Offset, OwnerId, ScopeId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use crate::input::{LeaseRef, Namespace, PutWorkflow, Register, ReplyTo, Submit, Trigger};
use crate::output::{Answer, Outcome, Rejection, Subject};
use crate::payload::{Failure, Payload};
use crate::state::{AfterStop, Class, Ending, QueueKey, WorkflowVersion};
use crate::work::{At, Work};

/// A change of the state. Applying it cannot fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something has to be looked at next.
    Wanted(Work),
    /// An execution began.
    Submitted(Box<Submit>, Arc<WorkflowVersion>),
    /// A source's number was decided.
    SourceAdvanced(ShardId, Arc<str>, Box<str>, u64),
    /// A submission was refused; people hear of it.
    SubmissionRejected(ExecutionId, Box<str>, Rejection),
    /// An api is answered.
    Replied(ShardId, ReplyTo, Answer),
    /// A worker is told that its result changed nothing.
    StaleTokenTold(ShardId, u32, LeaseRef),
    /// A cancel was accepted.
    CancelRequested(ExecutionId, Box<str>),
    /// An evaluation is asked for.
    Offered(ExecutionId, ScopeId, Subject, Token),
    /// An evaluation is asked for anew, since a variable changed: old token, new token.
    Reoffered(ExecutionId, Token, Token),
    /// An evaluation was answered.
    Evaluated(ExecutionId, Token),
    /// A node's turn came but its scope runs as many as it may.
    Held(At),
    /// Work waits for a slot, with this argument if it was evaluated just now.
    Queued(At, Option<Payload>),
    /// A timer runs.
    Waiting(At, TimeMs),
    /// A scope instance began.
    ScopeEntered {
        /// The node it hangs on.
        at: At,
        /// Its number.
        scope: ScopeId,
        /// Its body.
        body: BodyIx,
        /// Which try, from 0.
        attempt: u32,
    },
    /// Cases were chosen.
    Chosen(At, u64),
    /// A worker holds an attempt.
    Leased {
        /// Which node.
        at: At,
        /// Its class in the queue.
        class: Class,
        /// Its place there.
        key: QueueKey,
        /// Who.
        worker: WorkerId,
        /// The lease.
        token: Token,
    },
    /// A lease ended; its slot is free.
    LeaseEnded(WorkerId, Token),
    /// A lease was taken back; the worker has yet to stop.
    Revoked(At, AfterStop),
    /// What follows after the stop is now this.
    AfterStopChanged(At, AfterStop),
    /// An attempt failed and is repeated.
    Retrying(At, Failure, TimeMs),
    /// A worker did not begin; the attempt does not count.
    Declined(At, TimeMs),
    /// The raw output waits for its `output` and `set`.
    OutputKept(At, Payload),
    /// The failure waits for its fallback.
    FailureKept(At, Failure),
    /// One body of a choice completed.
    CaseCompleted(At, u8, Payload),
    /// A node completed; `degraded`: a fallback stood in.
    Completed {
        /// Which.
        at: At,
        /// Its output.
        output: Payload,
        /// Chosen cases.
        cases: u64,
        /// A fallback stood in.
        degraded: bool,
    },
    /// A node failed for good.
    Failed {
        /// Which.
        at: At,
        /// Why.
        failure: Failure,
        /// Whether a path handles it.
        handled: bool,
    },
    /// A node was skipped.
    Skipped(At),
    /// A node was cancelled.
    Cancelled(At),
    /// A variable was written.
    VarSet(ExecutionId, ScopeId, VarIx, Payload),
    /// A path was decided.
    PathDecided {
        /// The node it leads to.
        target: At,
        /// Whether it arrived.
        arrived: bool,
    },
    /// A list goes on at a step, or has come to its end.
    ListAdvanced(ExecutionId, ScopeId, Option<NodeIx>),
    /// A scope instance is being stopped.
    ScopeStopping(ExecutionId, ScopeId, Ending),
    /// A scope instance is no more.
    ScopeLeft(ExecutionId, ScopeId),
    /// An execution is no more.
    ExecutionEnded(ExecutionId, Outcome),
    /// A key was forgotten.
    KeyForgotten(ShardId, Arc<str>, Arc<str>),
    /// A record was taken in.
    RecordTaken(ShardId, Offset, u64),
    /// Messages were acknowledged by the bus.
    OutboxAcked(ShardId, Seq),
    /// A shard has a new owner.
    Granted(ShardId, Epoch, OwnerId),
    /// A worker began a session.
    Registered(Box<Register>, WorkerId, SessionId, u32),
    /// A session ended.
    SessionEnded(WorkerId),
    /// A worker gets no new leases, or gets them again.
    DrainSet(WorkerId, bool),
    /// A namespace was put.
    NamespacePut(Namespace),
    /// A new version of a workflow was put.
    WorkflowPut(Box<PutWorkflow>),
    /// A trigger was put.
    TriggerPut(Trigger),
    /// A trigger was deleted.
    TriggerDeleted(Box<str>, Box<str>),
    /// Numbers that may have been given out are passed over, and no shard has an owner.
    NumbersSkipped,
    /// The topics are new and empty.
    BusReplaced,
    /// What builds of this feature level know may be done from now on.
    LevelRaised(u32),
}
