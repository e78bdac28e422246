//! A client: submits by keys and without, repeats what has no answer, cancels, and notes all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nova_bus::{AppendError, Bus, Outgoing, Topic};
use nova_checker::{Answer, Id, Kind, Operation, Submission};
use nova_client::{Coordinators, Repeat};
use nova_engine::ids::{ExecutionId, ShardId};
use nova_wire::{ClusterId, v1};
use nova_workload::{BY_RECORDS, BY_TIME, NAMESPACE, Noted, ORDERS, ORDERS_PARTITIONS, Workflow, trigger};
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
/// Pause before a submission is repeated.
const AGAIN: Duration = Duration::from_millis(500);

/// Who is answered, by number of the request.
type Waiting = Mutex<BTreeMap<u64, oneshot::Sender<v1::reply::Answer>>>;

pub(crate) struct Client {
    pub bus: SimulatedBus,
    pub coordinators: Coordinators,
    pub cluster: String,
    pub shards: u16,
    pub workflows: Arc<Vec<Workflow>>,
    pub noted: Arc<Noted>,
    /// Between two submissions, on average.
    pub pause: Duration,
}

/// A workflow as it was stored.
struct Stored {
    version: u32,
    hash: Bytes,
}

struct Shared {
    client: Client,
    stored: Vec<Stored>,
    boot: u64,
    waiting: Waiting,
    next: Mutex<u64>,
}

/// Something to be submitted.
#[derive(Clone)]
struct Wanted {
    workflow: usize,
    n: i64,
    key: Option<String>,
}

impl Client {
    pub(crate) async fn run(self, mut random: SmallRng) {
        let mut stored = Vec::new();
        for workflow in &*self.workflows {
            stored.push(self.put(workflow).await);
        }
        self.put_triggers().await;
        let shared = Arc::new(Shared {
            client: self,
            stored,
            boot: random.random(),
            waiting: Waiting::default(),
            next: Mutex::new(1),
        });
        tokio::spawn(Arc::clone(&shared).replies());
        shared.client.noted.is_ready.store(true, Ordering::Relaxed);
        let noted = Arc::clone(&shared.client.noted);
        for n in 0_u64.. {
            sleep(shared.client.pause.mul_f64(random.random_range(0.0..2.0))).await;
            if noted.stop.load(Ordering::Relaxed) {
                return;
            }
            let wanted = Wanted {
                workflow: random.random_range(0..shared.stored.len()),
                n: random.random_range(0..1_000_000),
                key: random.random_bool(0.6).then(|| format!("k{n}")),
            };
            noted.open.fetch_add(1, Ordering::Relaxed);
            match random.random_range(0..20) {
                0 | 1 => tokio::spawn(Arc::clone(&shared).record(wanted.n)),
                2 => tokio::spawn(Arc::clone(&shared).cancelled(wanted, random.random_range(0..3_000))),
                3 => tokio::spawn(Arc::clone(&shared).twice(wanted)),
                4 => tokio::spawn(Arc::clone(&shared).both(wanted)),
                5 | 6 => tokio::spawn(Arc::clone(&shared).added(n)),
                _ => tokio::spawn(Arc::clone(&shared).one(wanted)),
            };
        }
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
        let cluster = ClusterId::of_name(&self.client.cluster);
        let mut next = 0;
        loop {
            // All from the beginning: what was answered before somebody asked is nobody's.
            let Ok(mut reader) = self.client.bus.reader() else { return };
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
        self.client.noted.operations.lock().push(Operation { begun_ns, ended_ns: now_ns(), kind, answer });
    }

    fn closed(&self) {
        self.client.noted.open.fetch_sub(1, Ordering::Relaxed);
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
        let cluster = ClusterId::of_name(&self.client.cluster);
        let shard = u32::from(shard.0);
        let record = nova_wire::seal(cluster, v1::RecordKind::Commands, shard, body.into());
        let sent = self.client.bus.append(&Topic::Commands, shard, vec![record.into()]).await;
        let answer = match &sent {
            Ok(_) => timeout(ANSWER, receiver).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.waiting.lock().remove(&request);
        sent.map(|_| answer)
    }

    async fn submit(&self, wanted: &Wanted) -> Answer {
        let workflow = &self.client.workflows[wanted.workflow];
        let stored = &self.stored[wanted.workflow];
        let shards = self.client.shards;
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
        let answer = match self.ask(shard, command).await {
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
        self.note(begun, Kind::Submit(submission), answer.clone());
        answer
    }

    /// With a key until there is an answer; else once.
    async fn accepted(&self, wanted: &Wanted) -> Option<Id> {
        loop {
            match self.submit(wanted).await {
                Answer::Accepted { id, .. } => return Some(id),
                Answer::Unknown | Answer::NotSent if wanted.key.is_some() => sleep(AGAIN).await,
                _ => return None,
            }
        }
    }

    async fn one(self: Arc<Self>, wanted: Wanted) {
        self.accepted(&wanted).await;
        self.closed();
    }

    /// The same key once more, and then for something else.
    async fn twice(self: Arc<Self>, mut wanted: Wanted) {
        if self.accepted(&wanted).await.is_some() {
            self.submit(&wanted).await;
            wanted.n += 1;
            self.submit(&wanted).await;
        }
        self.closed();
    }

    /// The same key at once, from two.
    async fn both(self: Arc<Self>, wanted: Wanted) {
        tokio::join!(self.submit(&wanted), self.submit(&wanted));
        self.accepted(&wanted).await;
        self.closed();
    }

    /// Makes a namespace.
    async fn added(self: Arc<Self>, n: u64) {
        nova_workload::added(&self.client.coordinators, &self.client.noted, now_ns, n).await;
        self.closed();
    }

    async fn cancelled(self: Arc<Self>, wanted: Wanted, after_ms: u64) {
        if let Some(id) = self.accepted(&wanted).await {
            sleep(Duration::from_millis(after_ms)).await;
            let begun = now_ns();
            let shard = ShardId(u16::from_be_bytes([id.0[0], id.0[1]]));
            let cancel = |reply_to| {
                let execution = id.0.to_vec().into();
                v1::command::Kind::Cancel(v1::Cancel { execution, reason: "wanted".into(), reply_to: Some(reply_to) })
            };
            let answer = match self.ask(shard, cancel).await {
                Ok(Some(v1::reply::Answer::Cancelling(_))) => Answer::Cancelling,
                Ok(Some(v1::reply::Answer::Rejected(rejected))) => {
                    Answer::Rejected { why: format!("{:?}", rejected.why), conflict: false }
                }
                Ok(_) | Err(AppendError::OutcomeUnknown { .. }) => Answer::Unknown,
                Err(_) => Answer::NotSent,
            };
            self.note(begun, Kind::Cancel(id), answer);
        }
        self.closed();
    }

    /// A record of the users' topic; one that is not acknowledged may be there or not, and is not written again.
    async fn record(self: Arc<Self>, n: i64) {
        let partition = (n % i64::from(ORDERS_PARTITIONS)) as u32;
        let value = Bytes::from(json!({ "n": n }).to_string());
        let _ = self.client.bus.append(&Topic::Named(ORDERS.into()), partition, vec![Outgoing::from(value)]).await;
        self.closed();
    }
}
