//! What others may see of the state.

use std::sync::Arc;

use nova_program::NodeIx;
use xxhash_rust::xxh3::Xxh3;

use crate::decide::pick;
use crate::find::{node_of, port_alive, reads_of, scope_of_body};
use crate::ids::{ExecutionId, ScopeId, Seq, ShardId, TimeMs, Token};
use crate::input::Namespace;
use crate::limits::Config;
use crate::output::{ExecutionState, Message, NodeView, Offer, Subject};
use crate::state::{
    Catalogue, Ending, Execution, NamespaceRecord, NodeRecord, OfferRecord, Outbox, Phase, Queue, Shard, State,
    Workers, WorkflowVersion,
};

/// An open execution in full.
#[derive(Clone, Debug)]
pub struct ExecutionView {
    /// As it stands in the state: cheap to hold, since it is shared.
    pub execution: Arc<Execution>,
    /// What people call it.
    pub state: ExecutionState,
}

/// Counts of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Open executions.
    pub open: u64,
    /// Messages in the outbox.
    pub outbox_messages: u64,
    /// Their estimated size.
    pub outbox_bytes: u64,
    /// Evaluations asked for.
    pub offers: u64,
    /// Remembered keys.
    pub keys: u64,
}

/// Counts of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Nodes that wait for a slot.
    pub queued: u64,
    /// Since when the oldest of them waits.
    pub oldest_queued: Option<TimeMs>,
    /// Timers set.
    pub timers: u64,
    /// Leases live or revoking.
    pub leases: u64,
    /// Slots of open workers.
    pub slots: u64,
    /// Open sessions.
    pub sessions: u64,
}

impl State {
    /// A cluster on its first day: the namespace `default`, nothing else.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shards = (0..config.shards).map(|number| {
            Arc::new(Shard {
                id: ShardId(number),
                epoch: Default::default(),
                owner: None,
                next_offset: Default::default(),
                before: 0,
                executions: Default::default(),
                keys: Default::default(),
                sources: Default::default(),
                offers: Default::default(),
                outbox: Outbox::default(),
            })
        });
        let default = Namespace { name: "default".into(), max_open_executions: 10_000_000, max_keys: 10_000_000 };
        let mut catalogue = Catalogue { revision: 1, ..Catalogue::default() };
        catalogue.namespaces.insert("default".into(), NamespaceRecord { spec: default, open: 0, keys: 0 });
        Self {
            shards: shards.collect(),
            config,
            level: 1,
            now: TimeMs(0),
            index: 0,
            next_token: 1,
            next_timer: 1,
            next_queue: 1,
            catalogue,
            workers: Workers::default(),
            queue: Queue::default(),
            timers: Default::default(),
            work: Default::default(),
            pending: Vec::new(),
            resting: Vec::new(),
        }
    }

    /// When an entry is wanted though nobody asks: a timer is due then, or (now) a cascade goes on or slots that are free
    /// were left to the next entry.
    #[must_use]
    pub fn next_due(&self) -> Option<TimeMs> {
        if self.work.is_empty() && pick(self).is_none() { self.timers.first().map(|id| id.0) } else { Some(self.now) }
    }

    /// A hash over the whole state; equal on members that applied the same entries.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.digest()
    }

    /// Messages of a shard above `after`, in order; at most `max`.
    pub fn outbox(&self, shard: ShardId, after: Seq, max: usize) -> impl Iterator<Item = &Arc<Message>> {
        let outbox = self.shard(shard).map(|shard| &shard.outbox);
        let skip = outbox.map_or(0, |outbox| after.0.saturating_sub(outbox.acked.0)) as usize;
        outbox.into_iter().flat_map(move |outbox| outbox.messages.iter().skip(skip).take(max))
    }

    /// Evaluations asked for in a shard with tokens above `after`, in order; at most `max`.
    #[must_use]
    pub fn offers(&self, shard: ShardId, after: Token, max: usize) -> Vec<Offer> {
        let Some(shard) = self.shard(shard) else { return Vec::new() };
        let above = shard.offers.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
        above.take(max).filter_map(|(token, record)| offer(shard, *token, record)).collect()
    }

    /// An open execution.
    #[must_use]
    pub fn execution(&self, id: ExecutionId) -> Option<ExecutionView> {
        let execution = self.shard(id.shard())?.executions.get(id, &self.catalogue.versions)?;
        let cancelling = execution
            .scopes
            .get(&ScopeId(0))
            .is_some_and(|root| matches!(root.phase, Phase::Stopping(Ending::Cancelled(_))));
        let state = if cancelling { ExecutionState::Cancelling } else { ExecutionState::Running };
        Some(ExecutionView { execution, state })
    }

    /// A version of a workflow; the newest when none is named.
    #[must_use]
    pub fn workflow(&self, namespace: &str, name: &str, version: Option<u32>) -> Option<&Arc<WorkflowVersion>> {
        let versions = self.catalogue.workflows.get(&(namespace.into(), name.into()))?;
        match version {
            None => versions.last(),
            Some(version) => versions.get((version as usize).wrapping_sub(1)),
        }
    }

    /// The highest number that a source has had decided.
    #[must_use]
    pub fn source_position(&self, shard: ShardId, namespace: &str, source: &str) -> Option<u64> {
        self.shard(shard)?.source(namespace, source)
    }

    /// Counts of a shard.
    #[must_use]
    pub fn shard_stats(&self, shard: ShardId) -> ShardStats {
        self.shard(shard).map_or_else(ShardStats::default, |shard| ShardStats {
            open: shard.executions.len() as u64,
            outbox_messages: shard.outbox.messages.len() as u64,
            outbox_bytes: shard.outbox.bytes,
            offers: shard.offers.len() as u64,
            keys: shard.keys.len() as u64,
        })
    }

    /// Counts of the group.
    #[must_use]
    pub fn group_stats(&self) -> GroupStats {
        let open = self.workers.all.iter().filter(|worker| worker.open);
        GroupStats {
            queued: self.queue.len(),
            oldest_queued: self.queue.oldest(),
            timers: self.timers.len() as u64,
            leases: self.workers.all.iter().map(|worker| worker.leases.len() as u64).sum(),
            slots: open.clone().map(|worker| u64::from(worker.capacity)).sum(),
            sessions: open.count() as u64,
        }
    }
}

fn offer(shard: &Shard, token: Token, record: &OfferRecord) -> Option<Offer> {
    // What waits for an evaluation is not parked.
    let execution = shard.executions.live(record.execution)?;
    let workflow = &execution.workflow;
    let program = &*workflow.program;
    let reads = reads_of(program, record.subject);
    let nodes = reads.nodes.iter().filter_map(|ix| node_view(execution, record, *ix));
    let vars = reads.vars.iter().filter_map(|ix| {
        let body = program.variables.get(ix.0 as usize)?.body;
        let (_, scope) = scope_of_body(execution, record.scope, body)?;
        let first = program.body(body).vars.start;
        Some((*ix, scope.vars.get((ix.0 - first) as usize)?.value.clone()))
    });
    let own = node_of(record.subject).and_then(|node| own_record(execution, record.scope, node));
    Some(Offer {
        token,
        execution: record.execution,
        namespace: workflow.namespace.as_ref().into(),
        workflow: workflow.name.as_ref().into(),
        version: workflow.version,
        scope: record.scope,
        subject: record.subject,
        visit: own.map_or(1, |own| own.visit),
        now: record.at,
        seed: record.seed,
        input: reads.input.then(|| execution.input.clone()),
        nodes: nodes.collect(),
        vars: vars.collect(),
        raw_output: matches!(record.subject, Subject::Finish(_))
            .then(|| own.and_then(|own| own.output.clone()))
            .flatten(),
        failure: own.and_then(|own| own.failure.as_deref().cloned()),
        started_at: execution.started_at,
        started_by: execution.started_by.clone(),
        trace: execution.trace,
    })
}

fn own_record(execution: &Execution, scope: ScopeId, node: NodeIx) -> Option<&NodeRecord> {
    let scope = execution.scopes.get(&scope)?;
    scope.nodes.get(crate::find::position(&execution.workflow.program, scope.body, node)?)
}

fn node_view(execution: &Execution, reader: &OfferRecord, ix: NodeIx) -> Option<NodeView> {
    let program = &*execution.workflow.program;
    let (_, scope) = scope_of_body(execution, reader.scope, program.node(ix).body)?;
    let record = scope.nodes.get(crate::find::position(program, scope.body, ix)?)?;
    let arrived = node_of(reader.subject).is_some_and(|target| {
        let mut paths = program.edges_of(ix).iter().filter(|edge| edge.target == target);
        paths.any(|edge| port_alive(program, ix, record, edge.port))
    });
    Some(NodeView {
        node: ix,
        state: record.state,
        arrived,
        output: record.output.clone().filter(|_| record.ended()),
        failure: record.failure.as_deref().cloned(),
        attempts: record.attempt,
        started_at: record.started_at,
        ended_at: record.ended_at,
    })
}
