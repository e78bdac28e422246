//! From chunks to the state. Every index is checked, so that the engine can rely on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_engine::ids::{Epoch, Offset, OwnerId, ScopeId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use nova_engine::input::{Namespace, Trigger};
use nova_engine::output::{Message, Subject};
use nova_engine::state::{
    KeyRecord, Lease, NamespaceRecord, OfferRecord, Outbox, Queue, QueueKey, Queued, Timer, TimerId, Worker,
    WorkflowVersion,
};
use nova_engine::work::{At, Work};
use nova_engine::{Config, State};
use nova_program::{BodyIx, NodeIx};

use super::SNAPSHOT_VERSION;
use crate::error::{WireError, bad, missing};
use crate::from_wire::{execution_id, hash, labels, program_from_wire};
use crate::outbox::message_from_wire;
use crate::v1::SnapshotChunk;
use crate::v1::snapshot as wire;

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
        match head.version {
            SNAPSHOT_VERSION => {}
            found if found > SNAPSHOT_VERSION => {
                return Err(WireError::Newer { what: "Snapshot", found, known: SNAPSHOT_VERSION });
            }
            found => return Err(WireError::Older { what: "Snapshot", found, known: SNAPSHOT_VERSION }),
        }
        let shards = u16::try_from(head.shards).map_err(|_| bad("head.shards", "is above 65,535"))?;
        let mut state = State::new(Config { shards });
        state.catalogue.namespaces.clear();
        state.now = TimeMs(head.now_ms);
        state.index = head.index;
        state.level = head.level.max(1);
        state.next_token = head.next_token;
        state.next_timer = head.next_timer;
        state.next_queue = head.next_queue;
        let shares = head.shares.iter().map(|it| (Arc::from(&*it.pool), Arc::from(&*it.namespace), it.served));
        if head.shares.iter().any(|it| it.served > head.served) {
            return Err(bad("head.shares", "were served in the future"));
        }
        state.queue = Queue::restored(shares, head.served);
        state.catalogue.revision = head.catalogue_revision;
        state.workers.last_session = SessionId(head.last_session);
        Ok(Self {
            state,
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
        chunk.executions.iter().try_for_each(|it| self.executions(it))?;
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
            let execution =
                self.state.shard(at.execution.shard()).and_then(|shard| shard.executions.live(at.execution));
            let execution = execution.ok_or_else(|| bad("queued.at", "is no execution that can be queued"))?;
            let namespace = Arc::clone(&execution.workflow.namespace);
            self.state.queue.insert((&it.pool, &it.kind), &namespace, key, queued);
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
            number: self.state.catalogue.versions.len() as u32,
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
        self.state.catalogue.versions.push(version);
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

    fn executions(&mut self, it: &wire::Executions) -> Result<(), WireError> {
        let State { shards, catalogue, .. } = &mut self.state;
        let shard = self.shard.and_then(|at| shards.get_mut(at)).map(Arc::make_mut);
        let shard = shard.ok_or_else(|| missing("snapshot.shard"))?;
        if it.ids.len() != it.lengths.len() * 16 {
            return Err(bad("executions.ids", "are not as many as the lengths"));
        }
        let mut rest = &it.packed[..];
        for (id, length) in it.ids.chunks_exact(16).zip(&it.lengths) {
            let id = execution_id(id)?;
            if shard.id != id.shard() {
                return Err(bad("executions.ids", "are of another shard"));
            }
            let cut = rest.split_at_checked(*length as usize);
            let (packed, others) = cut.ok_or_else(|| bad("executions.packed", "is shorter than the lengths say"))?;
            rest = others;
            let kept = shard.executions.insert_packed(id, packed, &catalogue.versions);
            kept.map_err(|error| bad("executions.packed", error.why))?;
        }
        if !rest.is_empty() {
            return Err(bad("executions.packed", "is longer than the lengths say"));
        }
        self.executions += it.lengths.len() as u64;
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

fn queue_key(key: &wire::QueueKey) -> Result<QueueKey, WireError> {
    let rank = u8::try_from(key.rank).ok().filter(|rank| *rank <= 9).ok_or_else(|| bad("queue.rank", "is above 9"))?;
    Ok(QueueKey { rank, place: TimeMs(key.place_ms), number: key.number })
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
