//! From the state to chunks, one at a time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nova_engine::ids::{ExecutionId, ScopeId, Token};
use nova_engine::output::Subject;
use nova_engine::state::{
    Class, KeyRecord, Lease, OfferRecord, QueueKey, Queued, Shard, Timer, TimerId, Worker, WorkflowVersion,
};
use nova_engine::work::{At, Work};
use nova_engine::{Run, State};
use nova_plants::Plant;
use nova_program::NodeIx;
use prost::Message;

use super::{CHUNK_BYTES, SNAPSHOT_VERSION};
use crate::program::program_to_wire;
use crate::to_wire::{execution_bytes, labels_to_wire, message_to_wire};
use crate::v1::snapshot as wire;
use crate::v1::{self, SnapshotChunk};

/// Packed executions that make one piece of a chunk.
const RUN_BYTES: usize = 64 << 10;

/// A state as chunks of about a megabyte. Borrow a clone of the state: cloning shares executions, messages and programs.
pub fn snapshot_to_wire(state: &State) -> impl Iterator<Item = SnapshotChunk> + '_ {
    Chunks { pieces: pieces(state), waiting: None, chunks: 0, executions: 0, messages: 0, over: false }
}

/// What a chunk is made of.
enum Piece {
    Head(wire::Head),
    Namespace(wire::NamespaceRecord),
    Workflow(wire::Workflow),
    Trigger(v1::Trigger),
    Worker(wire::Worker),
    Shard(wire::Shard),
    Executions(wire::Executions, u64),
    Key(wire::Key),
    Source(wire::Source),
    Offer(wire::Offer),
    Message(v1::OutboxMessage),
    Queued(wire::Queued),
    Timer(wire::Timer),
    Work(wire::Work),
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Head(it) => it.encoded_len(),
            Self::Namespace(it) => it.encoded_len(),
            Self::Workflow(it) => it.encoded_len(),
            Self::Trigger(it) => it.encoded_len(),
            Self::Worker(it) => it.encoded_len(),
            Self::Shard(it) => it.encoded_len(),
            Self::Executions(it, _) => it.encoded_len(),
            Self::Key(it) => it.encoded_len(),
            Self::Source(it) => it.encoded_len(),
            Self::Offer(it) => it.encoded_len(),
            Self::Message(it) => it.encoded_len(),
            Self::Queued(it) => it.encoded_len(),
            Self::Timer(it) => it.encoded_len(),
            Self::Work(it) => it.encoded_len(),
        }
    }
}

struct Chunks<I> {
    pieces: I,
    /// The head of a shard, which begins the next chunk.
    waiting: Option<wire::Shard>,
    chunks: u64,
    executions: u64,
    messages: u64,
    over: bool,
}

impl<I: Iterator<Item = Piece>> Iterator for Chunks<I> {
    type Item = SnapshotChunk;

    fn next(&mut self) -> Option<SnapshotChunk> {
        if self.over {
            return None;
        }
        self.chunks += 1;
        let mut chunk = SnapshotChunk { shard: self.waiting.take(), ..SnapshotChunk::default() };
        let mut bytes = 0;
        while bytes < CHUNK_BYTES {
            let Some(piece) = self.pieces.next() else {
                self.over = true;
                let (executions, messages) = (self.executions, self.messages);
                chunk.end = Some(wire::End { chunks: self.chunks, executions, messages });
                break;
            };
            bytes += piece.bytes();
            match piece {
                Piece::Head(it) => chunk.head = Some(it),
                Piece::Namespace(it) => chunk.namespaces.push(it),
                Piece::Workflow(it) => chunk.workflows.push(it),
                Piece::Trigger(it) => chunk.triggers.push(it),
                Piece::Worker(it) => chunk.workers.push(it),
                Piece::Shard(it) => {
                    self.waiting = Some(it);
                    break;
                }
                Piece::Executions(it, count) => {
                    self.executions += count;
                    chunk.executions.push(it);
                }
                Piece::Key(it) => chunk.keys.push(it),
                Piece::Source(it) => chunk.sources.push(it),
                Piece::Offer(it) => chunk.offers.push(it),
                Piece::Message(it) => {
                    self.messages += 1;
                    chunk.messages.push(it);
                }
                Piece::Queued(it) => chunk.queue.push(it),
                Piece::Timer(it) => chunk.timers.push(it),
                Piece::Work(it) => chunk.work.push(it),
            }
        }
        Some(chunk)
    }
}

fn pieces(state: &State) -> impl Iterator<Item = Piece> + '_ {
    let namespaces = state.catalogue.namespaces.values().map(|record| {
        let spec = v1::Namespace {
            name: record.spec.name.to_string(),
            max_open_executions: record.spec.max_open_executions,
            max_keys: record.spec.max_keys,
        };
        Piece::Namespace(wire::NamespaceRecord { spec: Some(spec), open: record.open, keys: record.keys })
    });
    let triggers = state.catalogue.triggers.values().map(|trigger| {
        Piece::Trigger(v1::Trigger {
            namespace: trigger.namespace.to_string(),
            id: trigger.id.to_string(),
            workflow: trigger.workflow.to_string(),
            spec: trigger.spec.clone(),
        })
    });
    let shards = state.shards.iter().flat_map(|shard| shard_pieces(shard));
    let queue = state.queue.iter().map(|(class, _, key, it)| Piece::Queued(queued(class, key, it)));
    let mut ids = Ids::default();
    let timers = state
        .timers
        .iter()
        .filter(|_| !nova_plants::is(Plant::NoTimersInSnapshot))
        .map(move |(id, it)| Piece::Timer(timer(id, &it, &mut ids)));
    let work = state.work.iter().map(|it| Piece::Work(work(*it)));
    std::iter::once(Piece::Head(head(state)))
        .chain(namespaces)
        .chain(state.catalogue.versions.iter().map(|version| Piece::Workflow(workflow(version))))
        .chain(triggers)
        .chain(state.workers.all.iter().map(|it| Piece::Worker(worker(it))))
        .chain(timers)
        .chain(work)
        .chain(shards)
        // After the executions, which say whose the nodes are.
        .chain(queue)
}

fn shard_pieces(shard: &Shard) -> impl Iterator<Item = Piece> + '_ {
    let head = wire::Shard {
        id: u32::from(shard.id.0),
        epoch: shard.epoch.0,
        owner: shard.owner.map(|owner| owner.0),
        next_offset: shard.next_offset.0,
        before: shard.before,
        outbox_acked: shard.outbox.acked.0,
    };
    let sources = shard.sources.iter().map(|((namespace, source), number)| {
        Piece::Source(wire::Source { namespace: namespace.to_string(), source: source.to_string(), number: *number })
    });
    std::iter::once(Piece::Shard(head))
        .chain(shard.executions.runs(RUN_BYTES).map(executions))
        .chain(shard.keys.iter().map(|((namespace, key), it)| Piece::Key(key_record(namespace, key, it))))
        .chain(sources)
        .chain(shard.offers.iter().map(|(token, it)| Piece::Offer(offer(*token, it))))
        .chain(shard.outbox.messages.iter().map(|message| Piece::Message(message_to_wire(message))))
}

fn head(state: &State) -> wire::Head {
    let (shares, served) = state.queue.served();
    let share = |(pool, namespace, served): (&Arc<str>, &Arc<str>, u64)| wire::Share {
        pool: pool.to_string(),
        namespace: namespace.to_string(),
        served,
    };
    wire::Head {
        served,
        shares: shares.map(share).collect(),
        version: SNAPSHOT_VERSION,
        shards: u32::from(state.config.shards),
        now_ms: state.now.0,
        index: state.index,
        next_token: state.next_token,
        next_timer: state.next_timer,
        next_queue: state.next_queue,
        catalogue_revision: state.catalogue.revision,
        last_session: state.workers.last_session.0,
        level: state.level,
    }
}

fn workflow(version: &WorkflowVersion) -> wire::Workflow {
    wire::Workflow {
        namespace: version.namespace.to_string(),
        name: version.name.to_string(),
        version: version.version,
        hash: Bytes::copy_from_slice(&version.hash),
        program: Some(program_to_wire(&version.program)),
        document: version.document.clone(),
        created_at_ms: version.created_at.0,
    }
}

fn worker(worker: &Worker) -> wire::Worker {
    wire::Worker {
        name: worker.name.to_string(),
        pool: worker.pool.to_string(),
        kinds: worker.kinds.iter().map(ToString::to_string).collect(),
        labels: labels_to_wire(&worker.labels),
        capacity: worker.capacity,
        session: worker.session.0,
        open: worker.open,
        draining: worker.draining,
        inbox: worker.inbox,
        boot: worker.boot,
        leases: worker.leases.iter().map(|(token, it)| lease(*token, it)).collect(),
    }
}

fn lease(token: Token, lease: &Lease) -> wire::Lease {
    wire::Lease {
        token: token.0,
        at: Some(at(lease.execution, lease.scope, lease.node)),
        assigned: lease.assigned.0,
        revoking: lease.revoking,
    }
}

fn at(execution: ExecutionId, scope: ScopeId, node: NodeIx) -> wire::At {
    wire::At { execution: execution_bytes(execution), scope: scope.0, node: node.0 }
}

fn executions(run: Run) -> Piece {
    let count = run.ids.len() as u64;
    let ids = run.ids.iter().flat_map(|id| id.0.to_be_bytes()).collect::<Vec<_>>().into();
    Piece::Executions(wire::Executions { ids, lengths: run.lengths, packed: run.bytes.into() }, count)
}

fn timer_id(id: TimerId) -> wire::TimerId {
    wire::TimerId { at_ms: id.0.0, number: id.1 }
}

fn queue_key(key: QueueKey) -> wire::QueueKey {
    wire::QueueKey { rank: u32::from(key.rank), number: key.number, place_ms: key.place.0 }
}

fn key_record(namespace: &str, key: &str, it: &KeyRecord) -> wire::Key {
    wire::Key {
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        execution: execution_bytes(it.execution),
        version: it.version,
        content_hash: Bytes::copy_from_slice(&it.content_hash),
        until_ms: it.until.map(|until| until.0),
    }
}

fn offer(token: Token, it: &OfferRecord) -> wire::Offer {
    wire::Offer {
        token: token.0,
        execution: execution_bytes(it.execution),
        scope: it.scope.0,
        subject: Some(match it.subject {
            Subject::Prepare(node) => wire::offer::Subject::Prepare(node.0),
            Subject::Finish(node) => wire::offer::Subject::Finish(node.0),
            Subject::Fallback(node) => wire::offer::Subject::Fallback(node.0),
            Subject::ScopeOutput(body) => wire::offer::Subject::ScopeOutput(body.0),
        }),
        at_ms: it.at.0,
        seed: it.seed,
    }
}

fn queued(class: &Class, key: QueueKey, it: &Queued) -> wire::Queued {
    wire::Queued {
        pool: class.0.to_string(),
        kind: class.1.to_string(),
        key: Some(queue_key(key)),
        at: Some(at(it.execution, it.scope, it.node)),
        since_ms: it.since.0,
    }
}

/// Ids of executions, many in one piece of memory: one that stands alone is allocated, and once more when it is encoded.
#[derive(Default)]
struct Ids(BytesMut);

impl Ids {
    const AT_ONCE: usize = 256;

    fn bytes(&mut self, id: ExecutionId) -> Bytes {
        let id = id.0.to_be_bytes();
        if self.0.capacity() < id.len() {
            self.0 = BytesMut::with_capacity(id.len() * Self::AT_ONCE);
        }
        self.0.extend_from_slice(&id);
        self.0.split().freeze()
    }
}

fn timer(id: TimerId, timer: &Timer, ids: &mut Ids) -> wire::Timer {
    use wire::timer::Kind;
    let mut at = |execution: ExecutionId, scope: ScopeId, node: NodeIx| wire::At {
        execution: ids.bytes(execution),
        scope: scope.0,
        node: node.0,
    };
    wire::Timer {
        id: Some(timer_id(id)),
        kind: Some(match timer {
            Timer::Node(execution, scope, node) => Kind::Node(at(*execution, *scope, *node)),
            Timer::NodeTotal(execution, scope, node) => Kind::NodeTotal(at(*execution, *scope, *node)),
            Timer::Execution(execution) => Kind::Execution(execution_bytes(*execution)),
            Timer::Key(shard, namespace, key) => Kind::Key(wire::ShardKey {
                shard: u32::from(shard.0),
                namespace: namespace.to_string(),
                key: key.to_string(),
            }),
        }),
    }
}

fn work(work: Work) -> wire::Work {
    use wire::work::Kind;
    let nothing = v1::Nothing {};
    let node = |it: At| at(it.execution, it.scope, it.node);
    let scope = |execution, scope| at(execution, scope, NodeIx(0));
    let (place, kind) = match work {
        Work::Enter(execution, id, from) => (scope(execution, id), Kind::Enter(from)),
        Work::Begin(it) => (node(it), Kind::Begin(nothing)),
        Work::Join(it) => (node(it), Kind::Join(nothing)),
        Work::Ended(it, edge) => (node(it), Kind::Ended(edge)),
        Work::Settle(execution, id) => (scope(execution, id), Kind::Settle(nothing)),
        Work::Stop(execution, id, from) => (scope(execution, id), Kind::Stop(from)),
    };
    wire::Work { at: Some(place), kind: Some(kind) }
}
