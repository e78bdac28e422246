//! The replicated state, as plain data.
//!
//! Everything is public so that a snapshot can be written and read elsewhere. Only [`crate::evolve`] changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use nova_program::{BodyIx, NodeIx, Program};

use crate::executions::Executions;
use crate::ids::{Epoch, ExecutionId, Offset, OwnerId, ScopeId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use crate::input::{Namespace, ReplyTo, Trigger};
use crate::limits::Config;
use crate::output::{ExecutionEvents, Message, NodeState, Subject};
use crate::payload::{Failure, Payload, TraceContext};
use crate::sorted::Sorted;
use crate::timers::Timers;
use crate::work::Work;

pub use crate::queue::{Class, Queue, QueueKey, Queued};
pub use crate::scopes::Scopes;

/// All that a group replicates.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    /// Fixed when the cluster was made.
    pub config: Config,
    /// Feature level: what changes a decision is done from a level on, so that builds decide alike side by side.
    pub level: u32,
    /// Time of the last entry.
    pub now: TimeMs,
    /// Position of the last entry; the source of jitter seeds.
    pub index: u64,
    /// The next token.
    pub next_token: u64,
    /// The next timer number; makes timers of one millisecond distinct and ordered.
    pub next_timer: u64,
    /// The next number in the ready queue.
    pub next_queue: u64,
    /// Workflows, namespaces, triggers.
    pub catalogue: Catalogue,
    /// Workers and their sessions.
    pub workers: Workers,
    /// By shard number. Each is shared with the copies that snapshots are written from, and copied when it changes.
    pub shards: Vec<Arc<Shard>>,
    /// Nodes that wait for a slot.
    pub queue: Queue,
    /// What happens when time passes.
    pub timers: Timers,
    /// Cascades that are not finished.
    pub work: VecDeque<Work>,
    /// Events of the entry being applied; empty between entries.
    pub pending: Vec<ExecutionEvents>,
    /// Executions of which nothing may run any more, to be looked at when the entry is applied; empty between entries.
    pub resting: Vec<ExecutionId>,
}

/// Moment and number of a timer.
pub type TimerId = (TimeMs, u64);

/// A name within a namespace: namespace and name.
pub type FullName = (Box<str>, Box<str>);

/// What a worker can carry: pool and kinds. There are few of them, however many workers there are.
pub type Ability = (Arc<str>, Arc<BTreeSet<Box<str>>>);

/// Workflows, namespaces, triggers.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Catalogue {
    /// Grows with each change.
    pub revision: u64,
    /// By name.
    pub namespaces: BTreeMap<Box<str>, NamespaceRecord>,
    /// All versions of all workflows, by their numbers: in the order in which they were put.
    pub versions: Vec<Arc<WorkflowVersion>>,
    /// By namespace and name; version n is at n − 1.
    pub workflows: BTreeMap<FullName, Vec<Arc<WorkflowVersion>>>,
    /// By namespace and id.
    pub triggers: BTreeMap<FullName, Arc<Trigger>>,
}

/// A namespace and what it uses.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct NamespaceRecord {
    /// As it was put.
    pub spec: Namespace,
    /// Open executions.
    pub open: u64,
    /// Remembered keys.
    pub keys: u64,
}

/// One version of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowVersion {
    /// Tenant.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Its number in the group, from 0.
    pub number: u32,
    /// From 1.
    pub version: u32,
    /// blake3 of the document.
    pub hash: [u8; 32],
    /// Compiled form.
    pub program: Arc<Program>,
    /// The document.
    pub document: Bytes,
    /// When it was put.
    pub created_at: TimeMs,
}

// The hash of the document stands for document and program.
impl Hash for WorkflowVersion {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.namespace, &self.name, self.number, self.version, self.hash, self.created_at).hash(hasher);
    }
}

/// Workers by number and name.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Workers {
    /// By number − 1.
    pub all: Vec<Worker>,
    /// Numbers by name.
    pub by_name: BTreeMap<Box<str>, WorkerId>,
    /// The last session given out.
    pub last_session: SessionId,
    /// Open workers with a free slot that are not draining, by what they can carry: (free slots, worker).
    pub free: BTreeMap<Ability, BTreeSet<(u32, WorkerId)>>,
    /// Workers with an open session per inbox partition.
    pub inboxes: BTreeMap<u32, u32>,
}

/// A worker and its leases.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: Box<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// What it can carry.
    pub kinds: Arc<BTreeSet<Box<str>>>,
    /// For people and, later, for placement.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Slots.
    pub capacity: u32,
    /// The last session under this name.
    pub session: SessionId,
    /// Whether that session is open.
    pub open: bool,
    /// Whether it gets no new leases.
    pub draining: bool,
    /// Its partition of the task topic.
    pub inbox: u32,
    /// Process that registered.
    pub boot: u64,
    /// Leases live or revoking. Slots in use are their number, and are counted nowhere else.
    pub leases: BTreeMap<Token, Lease>,
}

impl Worker {
    /// Its pool and kinds.
    #[must_use]
    pub fn ability(&self) -> Ability {
        (Arc::clone(&self.pool), Arc::clone(&self.kinds))
    }

    /// Capacity − leases.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.capacity.saturating_sub(self.leases.len() as u32)
    }

    /// Its free slots, if it has any and may get work.
    #[must_use]
    pub fn free_for_work(&self) -> Option<u32> {
        Some(self.free()).filter(|free| *free > 0 && self.open && !self.draining)
    }
}

/// The right to carry one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Whose node.
    pub execution: ExecutionId,
    /// Scope instance.
    pub scope: ScopeId,
    /// Node.
    pub node: NodeIx,
    /// Number of its assignment in the shard's outbox.
    pub assigned: Seq,
    /// Whether it was taken back and the worker has not stopped yet.
    pub revoking: bool,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Shard {
    /// Its number.
    pub id: ShardId,
    /// Ownership.
    pub epoch: Epoch,
    /// Who owns it; none before the first grant.
    pub owner: Option<OwnerId>,
    /// Next offset of the command partition.
    pub next_offset: Offset,
    /// Checksum of the record before it.
    pub before: u64,
    /// Open executions.
    pub executions: Executions,
    /// Remembered idempotency keys by namespace and key.
    pub keys: Sorted<(Arc<str>, Arc<str>), KeyRecord>,
    /// Highest number by namespace and source.
    pub sources: Sorted<(Arc<str>, Box<str>), u64>,
    /// Evaluations asked for.
    pub offers: BTreeMap<Token, OfferRecord>,
    /// What is to be said.
    pub outbox: Outbox,
}

/// Messages that are not acknowledged yet, in order and without gaps.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Outbox {
    /// Highest number acknowledged by the bus.
    pub acked: Seq,
    /// From `acked + 1`.
    pub messages: VecDeque<Arc<Message>>,
    /// Estimated size of the messages.
    pub bytes: u64,
}

impl Outbox {
    /// Highest number given out.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.acked.0 + self.messages.len() as u64)
    }
}

/// An idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRecord {
    /// What it started.
    pub execution: ExecutionId,
    /// Version that runs.
    pub version: u32,
    /// Of its content.
    pub content_hash: [u8; 32],
    /// When it is forgotten; none while the execution is open.
    pub until: Option<TimeMs>,
}

/// An evaluation asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OfferRecord {
    /// Whose.
    pub execution: ExecutionId,
    /// Scope instance.
    pub scope: ScopeId,
    /// What.
    pub subject: Subject,
    /// When it was made.
    pub at: TimeMs,
    /// Seed of its random functions.
    pub seed: u64,
}

/// An open execution.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// What it runs.
    pub workflow: Arc<WorkflowVersion>,
    /// Input.
    pub input: Payload,
    /// When it was accepted.
    pub started_at: TimeMs,
    /// Who started it.
    pub started_by: Box<str>,
    /// Labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Its idempotency key.
    pub key: Option<Box<str>>,
    /// Who hears of its end.
    pub reply_at_end: Option<ReplyTo>,
    /// Its trace.
    pub trace: Option<TraceContext>,
    /// Number of its last event.
    pub events: u64,
    /// Live scope instances.
    pub scopes: Scopes,
    /// The next scope instance.
    pub next_scope: u32,
    /// Ends it when it lasts too long.
    pub total: Option<TimerId>,
    /// Evaluations asked for.
    pub offers: BTreeSet<Token>,
    /// Where its events are while an entry is applied.
    pub pending: Pending,
}

/// Place of an execution's events in [`State::pending`]; says nothing once the entry is applied, and makes no difference
/// between executions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending(pub(crate) u32);

impl PartialEq for Pending {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Hash for Pending {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A live run of a body.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Scope {
    /// Which body.
    pub body: BodyIx,
    /// Where it hangs; none for the root.
    pub parent: Option<(ScopeId, NodeIx)>,
    /// From 0; grows with each retry of the scope.
    pub attempt: u32,
    /// What it is doing.
    pub phase: Phase,
    /// States of its nodes, in order of the body.
    pub nodes: Vec<NodeRecord>,
    /// Values of its variables, in order of the body.
    pub vars: Vec<Variable>,
    /// Nodes that have begun and not ended.
    pub live: u32,
    /// Nodes that have not ended (graph).
    pub left: u32,
    /// Whether a list has come to its end.
    pub at_end: bool,
    /// The last step that completed (list).
    pub last_completed: Option<NodeIx>,
    /// Nodes whose turn has come but for `parallel`.
    pub held: VecDeque<NodeIx>,
}

/// A variable of a scope instance.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Variable {
    /// Its value.
    pub value: Payload,
    /// Grows with each write.
    pub version: u32,
}

/// What a scope instance is doing.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Phase {
    /// Its body runs.
    Body,
    /// Its output is being evaluated.
    Output(Token),
    /// It ends as said when its living children have ended.
    Stopping(Ending),
}

/// How a scope instance ends early.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Ending {
    /// With this error.
    Failed(Failure),
    /// From outside, for this reason.
    Cancelled(Box<str>),
}

/// A node of a live scope instance.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct NodeRecord {
    /// Where it stands.
    pub state: NodeState,
    /// Incoming paths that arrived.
    pub arrived: u16,
    /// Incoming paths that are dead.
    pub dead: u16,
    /// Whether it waits among [`Scope::held`]; a node with several arrivals waits there once.
    pub held: bool,
    /// Times it began.
    pub visit: u16,
    /// Attempts begun.
    pub attempt: u32,
    /// Of its offer or lease; 0 when none.
    pub token: Token,
    /// Who holds it.
    pub worker: Option<WorkerId>,
    /// What follows once the worker has stopped.
    pub after_stop: Option<Box<AfterStop>>,
    /// Ends its present state.
    pub timer: Option<TimerId>,
    /// Ends it altogether.
    pub total: Option<TimerId>,
    /// Its place in the ready queue.
    pub queued: Option<QueueKey>,
    /// Chosen cases.
    pub cases: u64,
    /// Live child scopes.
    pub children: u32,
    /// Its argument, once evaluated.
    pub with: Option<Payload>,
    /// Raw, then final output.
    pub output: Option<Payload>,
    /// Why it failed.
    pub failure: Option<Box<Failure>>,
    /// Outputs of the bodies of a choice, by case.
    pub case_outputs: Vec<(u8, Payload)>,
    /// When its turn came.
    pub started_at: Option<TimeMs>,
    /// When it ended.
    pub ended_at: Option<TimeMs>,
}

impl NodeRecord {
    /// A node whose turn has not come.
    #[must_use]
    pub fn pending() -> Self {
        Self {
            state: NodeState::Pending,
            arrived: 0,
            dead: 0,
            held: false,
            visit: 0,
            attempt: 0,
            token: Token(0),
            worker: None,
            after_stop: None,
            timer: None,
            total: None,
            queued: None,
            cases: 0,
            children: 0,
            with: None,
            output: None,
            failure: None,
            case_outputs: Vec::new(),
            started_at: None,
            ended_at: None,
        }
    }

    /// Whether nothing more happens to it.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state, NodeState::Completed | NodeState::Failed | NodeState::Skipped | NodeState::Cancelled)
    }
}

/// What follows once a worker has stopped a revoked attempt, or the bodies of a node have.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum AfterStop {
    /// The attempt failed; a retry policy may repeat it.
    FailAttempt(Failure),
    /// The node failed; no retry.
    Fail(Failure),
    /// The node is cancelled.
    Cancel,
}

/// What happens at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The present state of a node ends: a wait, a retry delay, the time in the queue or of an attempt.
    Node(ExecutionId, ScopeId, NodeIx),
    /// A node has lasted too long altogether.
    NodeTotal(ExecutionId, ScopeId, NodeIx),
    /// An execution has lasted too long.
    Execution(ExecutionId),
    /// A key is forgotten.
    Key(ShardId, Arc<str>, Arc<str>),
}
