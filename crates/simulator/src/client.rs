//! How the client asks: with records on the bus, as an api does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nova_bus::{AppendError, Bus, Topic};
use nova_checker::{Answer, Id, Kind, Operation, Submission};
use nova_client::{Coordinators, Repeat};
use nova_engine::ids::{ExecutionId, ShardId};
use nova_wire::{ClusterId, v1};
use nova_workload::{Ask, BY_RECORDS, BY_TIME, NAMESPACE, Noted, Wanted, Workflow, trigger};
use parking_lot::Mutex;
use prost::Message;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::bus::SimulatedBus;
use crate::os;

const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a submission.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before what was not answered is put once more.
const AGAIN: Duration = Duration::from_millis(500);

/// Who is answered, by number of the request.
type Waiting = Mutex<BTreeMap<u64, oneshot::Sender<v1::reply::Answer>>>;

/// What is needed to make workflows and triggers, and to ask for executions.
pub(crate) struct Way {
    pub bus: SimulatedBus,
    pub coordinators: Coordinators,
    pub cluster: String,
    pub shards: u16,
    pub workflows: Arc<Vec<Workflow>>,
    pub noted: Arc<Noted>,
}

/// A workflow as it was stored.
struct Stored {
    version: u32,
    hash: Bytes,
}

struct Shared {
    way: Way,
    stored: Vec<Stored>,
    boot: u64,
    waiting: Waiting,
    next: Mutex<u64>,
}

/// Asks the shards.
struct Shards(Arc<Shared>);

impl Way {
    /// Makes workflows and triggers, and asks for things until it shall not any more, with so much time between two on average.
    pub(crate) async fn run(self, mut random: SmallRng, pause: Duration) {
        let mut stored = Vec::new();
        for workflow in &*self.workflows {
            stored.push(self.put(workflow).await);
        }
        self.put_triggers().await;
        let shared = Arc::new(Shared {
            way: self,
            stored,
            boot: random.random(),
            waiting: Waiting::default(),
            next: Mutex::new(1),
        });
        tokio::spawn(Arc::clone(&shared).replies());
        let Way { bus, coordinators, workflows, noted, .. } = &shared.way;
        noted.is_ready.store(true, Ordering::Relaxed);
        let client = nova_workload::Client {
            ask: Shards(Arc::clone(&shared)),
            coordinators: coordinators.clone(),
            bus: Arc::new(bus.clone()),
            workflows: workflows.len(),
            noted: Arc::clone(noted),
            now: now_ns,
            pause,
        };
        client.run(random).await;
    }

    async fn put(&self, workflow: &Workflow) -> Stored {
        let text = workflow.document().to_string();
        let document = nova_model::parse(text.as_bytes(), &workflow.name, nova_model::Format::Json);
        let compiled = document.and_then(|document| nova_model::compile(&document));
        let compiled = compiled.unwrap_or_else(|problems| panic!("{problems}"));
        let hash = Bytes::copy_from_slice(&compiled.hash);
        let put = v1::PutWorkflow {
            namespace: NAMESPACE.into(),
            name: workflow.name.clone(),
            hash: hash.clone(),
            program: Some(nova_wire::program_to_wire(&compiled.program)),
            document: compiled.canonical.into(),
        };
        loop {
            let put = put.clone();
            let asking = self.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
                let put = put.clone();
                async move { member.put_workflow(put).await }
            });
            if let Ok(v1::PutResponse { result: Some(v1::put_response::Result::Applied(applied)) }) = asking.await
                && let Some(v1::applied::Kind::Workflow(stored)) = applied.kind
            {
                return Stored { version: stored.version, hash };
            }
            sleep(AGAIN).await;
        }
    }

    async fn put_triggers(&self) {
        let workflow = &self.workflows[0].name;
        for id in [BY_RECORDS, BY_TIME] {
            let document = trigger(id, workflow);
            let spec = document.to_string().into_bytes().into();
            let trigger = v1::Trigger { namespace: NAMESPACE.into(), id: id.into(), workflow: workflow.clone(), spec };
            loop {
                let asking = self.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
                    let trigger = trigger.clone();
                    async move { member.put_trigger(trigger).await }
                });
                if asking.await.is_ok() {
                    break;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// The clock of all notes.
pub(crate) fn now_ns() -> u64 {
    os::now_ns().unsigned_abs()
}

impl Shared {
    async fn replies(self: Arc<Self>) {
        let cluster = ClusterId::of_name(&self.way.cluster);
        let mut next = 0;
        loop {
            // All from the beginning: what was answered before somebody asked is nobody's.
            let Ok(mut reader) = self.way.bus.reader() else { return };
            if reader.assign(&Topic::Replies, 0, next).is_err() {
                return;
            }
            while let Ok(batch) = reader.next(Duration::from_secs(10)).await {
                for record in batch.into_iter().flat_map(|batch| batch.records) {
                    next = record.offset + 1;
                    let opened = nova_wire::open(&record.value, cluster).expect("the bus changes nothing");
                    let batch = v1::OutboxBatch::decode(opened.body).expect("the bus changes nothing");
                    for message in batch.messages {
                        let Some(v1::outbox_message::Body::Reply(reply)) = message.body else { continue };
                        let Some(to) = reply.to.filter(|to| to.boot == self.boot) else { continue };
                        let waiting = self.waiting.lock().remove(&to.request);
                        if let (Some(waiting), Some(answer)) = (waiting, reply.answer) {
                            let _ = waiting.send(answer);
                        }
                    }
                }
            }
        }
    }

    fn note(&self, begun_ns: u64, kind: Kind, answer: Answer) {
        self.way.noted.operations.lock().push(Operation { begun_ns, ended_ns: now_ns(), kind, answer });
    }

    /// Hands a command over and waits for its answer.
    async fn ask(
        &self,
        shard: ShardId,
        command: impl FnOnce(v1::ReplyTo) -> v1::command::Kind,
    ) -> Result<Option<v1::reply::Answer>, AppendError> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        self.waiting.lock().insert(request, sender);
        let kind = command(v1::ReplyTo { inbox: 0, boot: self.boot, request });
        let body = v1::CommandBatch { commands: vec![v1::Command { kind: Some(kind) }] }.encode_to_vec();
        let cluster = ClusterId::of_name(&self.way.cluster);
        let shard = u32::from(shard.0);
        let record = nova_wire::seal(cluster, v1::RecordKind::Commands, shard, body.into());
        let sent = self.way.bus.append(&Topic::Commands, shard, vec![record.into()]).await;
        let answer = match &sent {
            Ok(_) => timeout(ANSWER, receiver).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.waiting.lock().remove(&request);
        sent.map(|_| answer)
    }
}

impl Ask for Shards {
    async fn submit(&self, wanted: &Wanted) -> Answer {
        let workflow = &self.0.way.workflows[wanted.workflow];
        let stored = &self.0.stored[wanted.workflow];
        let shards = self.0.way.shards;
        let shard = match &wanted.key {
            Some(key) => nova_wire::shard_of(NAMESPACE, key, shards),
            None => ShardId((wanted.n % i64::from(shards)) as u16),
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let id = ExecutionId::new(shard, now_ms, rand::random());
        let execution = nova_wire::execution_bytes(id);
        let input = json!({ "n": wanted.n }).to_string();
        let content = format!("{} {input}", workflow.name);
        let command = |reply_to| {
            v1::command::Kind::Submit(v1::Submit {
                execution: execution.clone(),
                namespace: NAMESPACE.into(),
                workflow: workflow.name.clone(),
                version: stored.version,
                hash: stored.hash.clone(),
                input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(input.into())) }),
                content_hash: blake3::hash(content.as_bytes()).as_bytes().to_vec().into(),
                dedupe: wanted.key.clone().map(v1::submit::Dedupe::Key),
                reply_to: Some(reply_to),
                reply_at_end: false,
                started_by: "client".into(),
                labels: Vec::new(),
                trace: None,
            })
        };
        let begun = now_ns();
        let answer = match self.0.ask(shard, command).await {
            Ok(Some(v1::reply::Answer::Accepted(accepted))) => Answer::Accepted {
                id: Id::of(&accepted.execution).expect("an execution has an id"),
                repeated: accepted.repeated,
            },
            Ok(Some(v1::reply::Answer::Rejected(rejected))) => {
                let why = rejected.why.unwrap_or_default();
                let conflict = why.kind() == v1::rejection::Kind::KeyConflict;
                Answer::Rejected { why: format!("{why:?}"), conflict }
            }
            Ok(_) | Err(AppendError::OutcomeUnknown { .. }) => Answer::Unknown,
            Err(_) => Answer::NotSent,
        };
        let submission = Submission {
            id: Id::of(&execution).expect("an execution has an id"),
            key: wanted.key.clone().map(|key| (NAMESPACE.to_owned(), key)),
            content,
            expected: workflow.expected(wanted.n),
        };
        self.0.note(begun, Kind::Submit(submission), answer.clone());
        answer
    }

    async fn cancel(&self, id: Id) -> Answer {
        let shard = ShardId(u16::from_be_bytes([id.0[0], id.0[1]]));
        let cancel = |reply_to| {
            let execution = id.0.to_vec().into();
            v1::command::Kind::Cancel(v1::Cancel { execution, reason: "wanted".into(), reply_to: Some(reply_to) })
        };
        match self.0.ask(shard, cancel).await {
            Ok(Some(v1::reply::Answer::Cancelling(_))) => Answer::Cancelling,
            Ok(Some(v1::reply::Answer::Rejected(rejected))) => {
                Answer::Rejected { why: format!("{:?}", rejected.why), conflict: false }
            }
            Ok(_) | Err(AppendError::OutcomeUnknown { .. }) => Answer::Unknown,
            Err(_) => Answer::NotSent,
        }
    }
}
