//! From chunks to the state. Every index is checked, so that the engine can rely on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_engine::ids::{Epoch, Offset, OwnerId, ScopeId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use nova_engine::input::{Namespace, Trigger};
use nova_engine::output::{Message, NodeState, Subject};
use nova_engine::state::{
    AfterStop, Ending, Execution, KeyRecord, Lease, NamespaceRecord, NodeRecord, OfferRecord, Outbox, Phase, Queued,
    Scope, Timer, TimerId, Variable, Worker, WorkflowVersion,
};
use nova_engine::work::{At, Work};
use nova_engine::{Config, State};
use nova_program::{BodyIx, NodeIx};

use super::SNAPSHOT_VERSION;
use crate::error::{WireError, bad, missing};
use crate::from_wire::{execution_id, failure, hash, labels, payload_from_wire, program_from_wire, reply_to, trace};
use crate::outbox::message_from_wire;
use crate::v1::snapshot as wire;
use crate::v1::{self, SnapshotChunk};

/// The state that chunks hold, in the order in which [`super::snapshot_to_wire`] gave them.
///
/// # Errors
/// When one is missing, newer than what is known here, or points outside of what is there.
pub fn state_from_wire(chunks: impl IntoIterator<Item = SnapshotChunk>) -> Result<State, WireError> {
    let mut reader: Option<Reader> = None;
    for mut chunk in chunks {
        match (&reader, chunk.head.take()) {
            (None, Some(head)) => reader = Some(Reader::new(&head)?),
            (None, None) => return Err(missing("snapshot.head")),
            (Some(_), Some(_)) => return Err(bad("snapshot.head", "comes twice")),
            (Some(_), None) => {}
        }
        let Some(reader) = reader.as_mut() else { return Err(missing("snapshot.head")) };
        let end = chunk.end.take();
        reader.chunk(chunk)?;
        if let Some(end) = end {
            return reader.finish(&end);
        }
    }
    Err(missing("snapshot.end"))
}

struct Reader {
    state: State,
    workflows: Vec<Arc<WorkflowVersion>>,
    /// Texts that stand in many places.
    namespaces: BTreeMap<Box<str>, Arc<str>>,
    shard: Option<usize>,
    messages: Vec<Arc<Message>>,
    chunks: u64,
    executions: u64,
    all_messages: u64,
}

impl Reader {
    fn new(head: &wire::Head) -> Result<Self, WireError> {
        if head.version > SNAPSHOT_VERSION {
            return Err(WireError::Newer { what: "Snapshot", found: head.version, known: SNAPSHOT_VERSION });
        }
        let shards = u16::try_from(head.shards).map_err(|_| bad("head.shards", "is above 65,535"))?;
        let mut state = State::new(Config { shards });
        state.catalogue.namespaces.clear();
        state.now = TimeMs(head.now_ms);
        state.index = head.index;
        state.next_token = head.next_token;
        state.next_timer = head.next_timer;
        state.next_queue = head.next_queue;
        state.catalogue.revision = head.catalogue_revision;
        state.workers.last_session = SessionId(head.last_session);
        Ok(Self {
            state,
            workflows: Vec::new(),
            namespaces: BTreeMap::new(),
            shard: None,
            messages: Vec::new(),
            chunks: 0,
            executions: 0,
            all_messages: 0,
        })
    }

    fn chunk(&mut self, chunk: SnapshotChunk) -> Result<(), WireError> {
        self.chunks += 1;
        chunk.namespaces.into_iter().try_for_each(|it| self.namespace(it))?;
        chunk.workflows.into_iter().try_for_each(|it| self.workflow(it))?;
        for it in chunk.triggers {
            let (namespace, id): (Box<str>, Box<str>) = (it.namespace.into(), it.id.into());
            let trigger =
                Trigger { namespace: namespace.clone(), id: id.clone(), workflow: it.workflow.into(), spec: it.spec };
            self.state.catalogue.triggers.insert((namespace, id), Arc::new(trigger));
        }
        chunk.workers.into_iter().try_for_each(|it| self.worker(it))?;
        if let Some(head) = chunk.shard {
            self.begin_shard(&head)?;
        }
        chunk.executions.into_iter().try_for_each(|it| self.execution(it))?;
        chunk.keys.into_iter().try_for_each(|it| self.key(it))?;
        for it in chunk.sources {
            let namespace = self.text(&it.namespace);
            self.in_shard()?.sources.insert((namespace, it.source.into()), it.number);
        }
        for it in chunk.offers {
            let token = Token(it.token);
            let offer = offer(&it)?;
            self.in_shard()?.offers.insert(token, offer);
        }
        self.all_messages += chunk.messages.len() as u64;
        for it in chunk.messages {
            self.messages.push(Arc::new(message_from_wire(it)?));
        }
        for it in chunk.queue {
            let key = queue_key(it.key.as_ref().ok_or_else(|| missing("queued.key"))?)?;
            let at = at(it.at.as_ref())?;
            let since = TimeMs(it.since_ms);
            let queued = Queued { execution: at.execution, scope: at.scope, node: at.node, since };
            self.state.queue.classes.entry((it.pool.into(), it.kind.into())).or_default().insert(key, queued);
        }
        for it in chunk.timers {
            let id = timer_id(it.id.as_ref().ok_or_else(|| missing("timer.id"))?);
            let timer = self.timer(it)?;
            self.state.timers.insert(id, timer);
        }
        for it in chunk.work {
            self.state.work.push_back(work(&it)?);
        }
        Ok(())
    }

    fn finish(&mut self, end: &wire::End) -> Result<State, WireError> {
        self.end_shard()?;
        if (end.chunks, end.executions, end.messages) != (self.chunks, self.executions, self.all_messages) {
            return Err(bad("snapshot.end", "counts other chunks, executions or messages than there are"));
        }
        let mut state = std::mem::replace(&mut self.state, State::new(Config { shards: 0 }));
        state.rebuild_indexes();
        Ok(state)
    }

    fn text(&mut self, namespace: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(namespace) {
            return Arc::clone(known);
        }
        let text: Arc<str> = Arc::from(namespace);
        self.namespaces.insert(namespace.into(), Arc::clone(&text));
        text
    }

    fn in_shard(&mut self) -> Result<&mut nova_engine::state::Shard, WireError> {
        let shard = self.shard.and_then(|at| self.state.shards.get_mut(at));
        shard.map(Arc::make_mut).ok_or_else(|| missing("snapshot.shard"))
    }

    fn begin_shard(&mut self, head: &wire::Shard) -> Result<(), WireError> {
        self.end_shard()?;
        self.shard = Some(head.id as usize);
        let shard = self
            .state
            .shards
            .get_mut(head.id as usize)
            .map(Arc::make_mut)
            .ok_or_else(|| bad("shard.id", "is not in the cluster"))?;
        shard.epoch = Epoch(head.epoch);
        shard.owner = head.owner.map(OwnerId);
        shard.next_offset = Offset(head.next_offset);
        shard.before = head.before;
        shard.outbox.acked = Seq(head.outbox_acked);
        Ok(())
    }

    /// Messages become an outbox when all of them are there.
    fn end_shard(&mut self) -> Result<(), WireError> {
        let messages = std::mem::take(&mut self.messages);
        if self.shard.is_none() && messages.is_empty() {
            return Ok(());
        }
        let shard = self.in_shard()?;
        shard.outbox = Outbox::from_messages(shard.outbox.acked, messages)
            .ok_or_else(|| bad("messages", "have gaps in their numbers"))?;
        Ok(())
    }

    fn namespace(&mut self, it: wire::NamespaceRecord) -> Result<(), WireError> {
        let spec = it.spec.ok_or_else(|| missing("namespace.spec"))?;
        let spec = Namespace {
            name: spec.name.into(),
            max_open_executions: spec.max_open_executions,
            max_keys: spec.max_keys,
        };
        let record = NamespaceRecord { spec, open: it.open, keys: it.keys };
        self.state.catalogue.namespaces.insert(record.spec.name.clone(), record);
        Ok(())
    }

    fn workflow(&mut self, it: wire::Workflow) -> Result<(), WireError> {
        let version = Arc::new(WorkflowVersion {
            namespace: self.text(&it.namespace),
            name: Arc::from(it.name.as_str()),
            version: it.version,
            hash: hash(&it.hash, "workflow.hash")?,
            program: Arc::new(program_from_wire(it.program.as_ref().ok_or_else(|| missing("workflow.program"))?)?),
            document: it.document,
            created_at: TimeMs(it.created_at_ms),
        });
        let key = (it.namespace.into(), it.name.into());
        let versions = self.state.catalogue.workflows.entry(key).or_default();
        if version.version as usize != versions.len() + 1 {
            return Err(bad("workflow.version", "is not the next one"));
        }
        versions.push(Arc::clone(&version));
        self.workflows.push(version);
        Ok(())
    }

    fn worker(&mut self, it: wire::Worker) -> Result<(), WireError> {
        let id = WorkerId(self.state.workers.all.len() as u32 + 1);
        let leases = it.leases.iter().map(|it| {
            let at = at(it.at.as_ref())?;
            let (execution, scope, node) = (at.execution, at.scope, at.node);
            let lease = Lease { execution, scope, node, assigned: Seq(it.assigned), revoking: it.revoking };
            Ok((Token(it.token), lease))
        });
        let leases = leases.collect::<Result<_, WireError>>()?;
        self.state.workers.all.push(Worker {
            id,
            name: it.name.into(),
            pool: Arc::from(it.pool.as_str()),
            kinds: Arc::new(it.kinds.into_iter().map(Into::into).collect()),
            labels: labels(it.labels),
            capacity: it.capacity,
            session: SessionId(it.session),
            open: it.open,
            draining: it.draining,
            inbox: it.inbox,
            boot: it.boot,
            leases,
        });
        Ok(())
    }

    fn execution(&mut self, it: wire::Execution) -> Result<(), WireError> {
        self.executions += 1;
        let id = execution_id(&it.id)?;
        let workflow = self.workflows.get(it.workflow as usize).cloned();
        let workflow = workflow.ok_or_else(|| bad("execution.workflow", "is not in the snapshot"))?;
        let scopes = it.scopes.into_iter().map(|it| Ok((ScopeId(it.id), scope(it, &workflow)?)));
        let scopes = scopes.collect::<Result<_, WireError>>()?;
        let shard = self.in_shard()?;
        if shard.id != id.shard() {
            return Err(bad("execution.id", "is of another shard"));
        }
        let execution = Execution {
            id,
            workflow,
            input: payload_from_wire(it.input)?,
            started_at: TimeMs(it.started_at_ms),
            started_by: it.started_by.into(),
            labels: labels(it.labels),
            key: it.key.map(Into::into),
            reply_at_end: it.reply_at_end.as_ref().map(reply_to),
            trace: it.trace.as_ref().and_then(trace),
            events: it.events,
            scopes,
            next_scope: it.next_scope,
            total: it.total.as_ref().map(timer_id),
            offers: Default::default(),
        };
        shard.executions.insert(id, Arc::new(execution));
        Ok(())
    }

    fn key(&mut self, it: wire::Key) -> Result<(), WireError> {
        let namespace = self.text(&it.namespace);
        let record = KeyRecord {
            execution: execution_id(&it.execution)?,
            version: it.version,
            content_hash: hash(&it.content_hash, "key.content_hash")?,
            until: it.until_ms.map(TimeMs),
        };
        self.in_shard()?.keys.insert((namespace, it.key.into()), record);
        Ok(())
    }

    fn timer(&mut self, it: wire::Timer) -> Result<Timer, WireError> {
        use wire::timer::Kind;
        Ok(match it.kind.ok_or_else(|| missing("timer.kind"))? {
            Kind::Node(it) => {
                let at = at(Some(&it))?;
                Timer::Node(at.execution, at.scope, at.node)
            }
            Kind::NodeTotal(it) => {
                let at = at(Some(&it))?;
                Timer::NodeTotal(at.execution, at.scope, at.node)
            }
            Kind::Execution(id) => Timer::Execution(execution_id(&id)?),
            Kind::Key(it) => {
                let shard = u16::try_from(it.shard).map_err(|_| bad("timer.shard", "is above 65,535"))?;
                Timer::Key(ShardId(shard), self.text(&it.namespace), Arc::from(it.key))
            }
        })
    }
}

fn at(at: Option<&wire::At>) -> Result<At, WireError> {
    let at = at.ok_or_else(|| missing("at"))?;
    Ok(At { execution: execution_id(&at.execution)?, scope: ScopeId(at.scope), node: NodeIx(at.node) })
}

fn timer_id(id: &wire::TimerId) -> TimerId {
    (TimeMs(id.at_ms), id.number)
}

fn queue_key(key: &wire::QueueKey) -> Result<(u8, u64), WireError> {
    Ok((u8::try_from(key.rank).map_err(|_| bad("queue.rank", "is above 9"))?, key.number))
}

fn scope(it: wire::Scope, workflow: &WorkflowVersion) -> Result<Scope, WireError> {
    let program = &*workflow.program;
    let body = program.bodies.get(it.body as usize).ok_or_else(|| bad("scope.body", "is not in the program"))?;
    let inside = |node: u32| body.nodes.contains(&node).then_some(NodeIx(node));
    let outside = || bad("scope.node", "is not in the body");
    let mut nodes: Vec<NodeRecord> = body.nodes.clone().map(|_| NodeRecord::pending()).collect();
    for it in it.nodes {
        let place = nodes.get_mut(it.position as usize).ok_or_else(outside)?;
        *place = node(it)?;
    }
    let vars =
        it.vars.into_iter().map(|var| Ok(Variable { value: payload_from_wire(var.value)?, version: var.version }));
    let vars: Vec<_> = vars.collect::<Result<_, WireError>>()?;
    if vars.len() != body.vars.len() {
        return Err(bad("scope.vars", "are not those of the body"));
    }
    let parent = it.parent.map(|place| {
        let known = (place.node as usize) < program.nodes.len();
        known.then_some((ScopeId(place.scope), NodeIx(place.node))).ok_or_else(outside)
    });
    Ok(Scope {
        body: BodyIx(it.body),
        parent: parent.transpose()?,
        attempt: it.attempt,
        phase: match it.phase.ok_or_else(|| missing("scope.phase"))? {
            wire::scope::Phase::Runs(_) => Phase::Body,
            wire::scope::Phase::Output(token) => Phase::Output(Token(token)),
            wire::scope::Phase::Stopping(ending) => {
                Phase::Stopping(match ending.kind.ok_or_else(|| missing("scope.stopping"))? {
                    wire::ending::Kind::Failed(why) => Ending::Failed(failure(why)),
                    wire::ending::Kind::Cancelled(reason) => Ending::Cancelled(reason.into()),
                })
            }
        },
        nodes,
        vars,
        live: it.live,
        left: it.left,
        at_end: it.at_end,
        last_completed: it.last_completed.map(|node| inside(node).ok_or_else(outside)).transpose()?,
        held: it.held.into_iter().map(|node| inside(node).ok_or_else(outside)).collect::<Result<_, _>>()?,
    })
}

fn node(it: wire::Node) -> Result<NodeRecord, WireError> {
    let small = |number: u32, field| u16::try_from(number).map_err(|_| bad(field, "is above 65,535"));
    let payload = |payload: Option<v1::Payload>| payload.map(|it| payload_from_wire(Some(it))).transpose();
    let state = v1::NodeState::try_from(it.state).map_err(|_| bad("node.state", "is not known here"))?;
    let case_outputs = it.case_outputs.into_iter().map(|it| {
        let case = u8::try_from(it.case).map_err(|_| bad("node.case", "is above 255"))?;
        Ok((case, payload_from_wire(it.output)?))
    });
    Ok(NodeRecord {
        state: node_state(state),
        arrived: small(it.arrived, "node.arrived")?,
        dead: small(it.dead, "node.dead")?,
        held: it.held,
        visit: small(it.visit, "node.visit")?,
        attempt: it.attempt,
        token: Token(it.token),
        worker: it.worker.map(WorkerId),
        after_stop: it.after_stop.map(after_stop).transpose()?.map(Box::new),
        timer: it.timer.as_ref().map(timer_id),
        total: it.total.as_ref().map(timer_id),
        queued: it.queued.as_ref().map(queue_key).transpose()?,
        cases: it.cases,
        children: it.children,
        with: payload(it.with)?,
        output: payload(it.output)?,
        failure: it.failure.map(|why| Box::new(failure(why))),
        case_outputs: case_outputs.collect::<Result<_, WireError>>()?,
        started_at: it.started_at_ms.map(TimeMs),
        ended_at: it.ended_at_ms.map(TimeMs),
    })
}

fn after_stop(after: wire::AfterStop) -> Result<AfterStop, WireError> {
    Ok(match after.kind.ok_or_else(|| missing("node.after_stop"))? {
        wire::after_stop::Kind::FailAttempt(why) => AfterStop::FailAttempt(failure(why)),
        wire::after_stop::Kind::Fail(why) => AfterStop::Fail(failure(why)),
        wire::after_stop::Kind::Cancel(_) => AfterStop::Cancel,
    })
}

fn node_state(state: v1::NodeState) -> NodeState {
    match state {
        v1::NodeState::Pending => NodeState::Pending,
        v1::NodeState::Evaluating => NodeState::Evaluating,
        v1::NodeState::Waiting => NodeState::Waiting,
        v1::NodeState::Queued => NodeState::Queued,
        v1::NodeState::Running => NodeState::Running,
        v1::NodeState::Retrying => NodeState::Retrying,
        v1::NodeState::Cancelling => NodeState::Cancelling,
        v1::NodeState::Completed => NodeState::Completed,
        v1::NodeState::Failed => NodeState::Failed,
        v1::NodeState::Skipped => NodeState::Skipped,
        v1::NodeState::Cancelled => NodeState::Cancelled,
    }
}

fn offer(it: &wire::Offer) -> Result<OfferRecord, WireError> {
    Ok(OfferRecord {
        execution: execution_id(&it.execution)?,
        scope: ScopeId(it.scope),
        subject: match it.subject.as_ref().ok_or_else(|| missing("offer.subject"))? {
            wire::offer::Subject::Prepare(node) => Subject::Prepare(NodeIx(*node)),
            wire::offer::Subject::Finish(node) => Subject::Finish(NodeIx(*node)),
            wire::offer::Subject::Fallback(node) => Subject::Fallback(NodeIx(*node)),
            wire::offer::Subject::ScopeOutput(body) => Subject::ScopeOutput(BodyIx(*body)),
        },
        at: TimeMs(it.at_ms),
        seed: it.seed,
    })
}

fn work(it: &wire::Work) -> Result<Work, WireError> {
    use wire::work::Kind;
    let at = at(it.at.as_ref())?;
    Ok(match it.kind.as_ref().ok_or_else(|| missing("work.kind"))? {
        Kind::Enter(from) => Work::Enter(at.execution, at.scope, *from),
        Kind::Begin(_) => Work::Begin(at),
        Kind::Join(_) => Work::Join(at),
        Kind::Ended(edge) => Work::Ended(at, *edge),
        Kind::Settle(_) => Work::Settle(at.execution, at.scope),
        Kind::Stop(from) => Work::Stop(at.execution, at.scope, *from),
    })
}
