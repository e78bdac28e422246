//! A small cluster: a bus, a coordinator that answers what triggers ask for, and the engine itself on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_bus::{Bus, Layout, MemoryBus, Outgoing, SharedBus, Topic, TopicSpec};
use nova_engine::ids::{Epoch, Offset, OwnerId, Seq, ShardId, TimeMs};
use nova_engine::input::{Entry, EntryBody, Proposal, PutWorkflow, Record};
use nova_engine::output::Verdict;
use nova_model::Format;
use nova_trigger::{Clock, Config, Trigger};
use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub const SHARDS: u32 = 8;
const CLUSTER: &str = "test";
/// 2026-01-01T00:00:00Z.
pub const START_MS: u64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A started execution, as the engine took it.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub source: String,
    pub number: u64,
    pub version: u32,
    pub started_by: String,
    pub execution: String,
    pub input: Value,
}

#[derive(Default)]
struct State {
    revision: u64,
    triggers: BTreeMap<(String, String), v1::Trigger>,
    workflows: BTreeMap<(String, String), Vec<(Bytes, Bytes)>>,
    positions: BTreeMap<(String, String), u64>,
    started: Vec<Started>,
    marks: Vec<(String, u64)>,
    repeats: usize,
    busy: BTreeSet<u32>,
    paused: bool,
    down: bool,
    /// Commands that were applied.
    commands: usize,
    /// Workflows that the engine has yet to learn.
    installs: Vec<PutWorkflow>,
}

#[derive(Clone)]
pub struct World {
    pub bus: MemoryBus,
    pub clock: TestClock,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    address: String,
    _stop: Arc<tokio_util::sync::DropGuard>,
}

/// A clock that stands until it is moved.
#[derive(Clone)]
pub struct TestClock(watch::Sender<u64>);

#[async_trait]
impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        *self.0.borrow()
    }

    async fn sleep_until(&self, at_ms: u64) {
        let _ = self.0.subscribe().wait_for(|now| *now >= at_ms).await;
    }
}

impl TestClock {
    pub fn advance(&self, ms: u64) {
        self.0.send_modify(|now| *now += ms);
    }
}

/// A service that runs.
pub struct Service {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Service {
    pub async fn stop(self) {
        self.stop.cancel();
        self.handle.await.expect("it does not panic");
    }

    /// As kill -9: nothing is finished.
    pub async fn kill(self) {
        self.handle.abort();
        let _ = self.handle.await;
    }
}

impl World {
    pub async fn new() -> Self {
        let bus = MemoryBus::new();
        bus.set_time(START_MS);
        let layout = Layout { shards: SHARDS, events: SHARDS, inboxes: 1, apis: 1 };
        bus.ensure_topics(&layout.topics()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let world = Self {
            bus,
            clock: TestClock(watch::Sender::new(START_MS)),
            state: Arc::default(),
            changed: watch::Sender::new(0),
            address,
            _stop: Arc::new(stop.clone().drop_guard()),
        };
        let fake = Fake { state: Arc::clone(&world.state), changed: world.changed.clone() };
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(CoordinatorServer::new(fake));
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended).await.unwrap();
        });
        let (bus, state) = (world.bus.clone(), Arc::clone(&world.state));
        tokio::spawn(async move {
            tokio::select! {
                () = apply(bus, state) => {}
                () = stop.cancelled() => {}
            }
        });
        world.workflow("w", json!({})).await;
        world
    }

    pub fn config(&self) -> Config {
        let coordinators = vec![self.address.clone()];
        Config { cluster: CLUSTER.into(), coordinators, ..Config::default() }
    }

    pub fn start(&self) -> Service {
        self.start_with(&self.config())
    }

    pub fn start_with(&self, config: &Config) -> Service {
        let bus: SharedBus = Arc::new(self.bus.clone());
        let trigger = Trigger::new(config, bus).with_clock(Arc::new(self.clock.clone()));
        let stop = CancellationToken::new();
        Service { handle: tokio::spawn(trigger.run(stop.clone())), stop }
    }

    fn changed(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.revision += 1;
        let revision = state.revision;
        drop(state);
        self.changed.send_replace(revision);
    }

    /// Makes a version of a workflow.
    pub async fn workflow(&self, name: &str, schema: Value) {
        let versions = self.state.lock().workflows.get(&("default".into(), name.to_owned())).map_or(0, Vec::len);
        let document = json!({
            "apiVersion": "nova/v1", "kind": "Workflow",
            "metadata": { "name": name, "labels": { "version": versions.to_string() } },
            "spec": { "input": schema, "do": [{ "id": "a", "type": "task", "kind": "noop" }] },
        });
        let document = nova_model::parse(document.to_string().as_bytes(), "w", Format::Json).unwrap();
        let compiled = nova_model::compile(&document).unwrap_or_else(|problems| panic!("{problems}"));
        let version = (Bytes::copy_from_slice(&compiled.hash), Bytes::from(compiled.canonical));
        let install = PutWorkflow {
            namespace: "default".into(),
            name: name.into(),
            hash: compiled.hash,
            program: Arc::new(compiled.program),
            document: version.1.clone(),
        };
        self.changed(|state| {
            state.installs.push(install);
            state.workflows.entry(("default".into(), name.to_owned())).or_default().push(version);
        });
    }

    pub fn trigger(&self, document: &Value) {
        let id = document["id"].as_str().unwrap().to_owned();
        let trigger = v1::Trigger {
            namespace: "default".into(),
            id: id.clone(),
            workflow: document["workflow"].as_str().unwrap().to_owned(),
            spec: document.to_string().into_bytes().into(),
        };
        self.changed(|state| drop(state.triggers.insert(("default".into(), id), trigger)));
    }

    pub fn delete_trigger(&self, id: &str) {
        self.changed(|state| drop(state.triggers.remove(&("default".to_owned(), id.to_owned()))));
    }

    pub async fn topic(&self, name: &str, partitions: u32) -> Topic {
        let topic = Topic::Named(name.into());
        let spec = TopicSpec { topic: topic.clone(), partitions, retention_ms: 1 };
        self.bus.ensure_topics(&[spec]).await.unwrap();
        topic
    }

    pub async fn publish(&self, topic: &Topic, partition: u32, values: &[Value]) {
        let records = values.iter().map(|value| Outgoing::from(Bytes::from(value.to_string()))).collect();
        self.bus.append(topic, partition, records).await.unwrap();
    }

    pub async fn publish_raw(&self, topic: &Topic, partition: u32, value: &[u8]) {
        self.bus.append(topic, partition, vec![Bytes::copy_from_slice(value).into()]).await.unwrap();
    }

    /// Whether the engine applies what is in the log.
    pub fn pause_engine(&self, paused: bool) {
        self.state.lock().paused = paused;
    }

    pub fn coordinator_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    pub fn busy(&self, busy: bool) {
        self.state.lock().busy = if busy { (0..SHARDS).collect() } else { BTreeSet::new() };
    }

    pub fn started(&self) -> Vec<Started> {
        self.state.lock().started.clone()
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.started().iter().map(|it| it.number).collect()
    }

    pub fn marks(&self) -> Vec<(String, u64)> {
        self.state.lock().marks.clone()
    }

    pub fn repeats(&self) -> usize {
        self.state.lock().repeats
    }

    pub async fn commands(&self) -> usize {
        let mut count = 0;
        for shard in 0..SHARDS {
            for record in read(&self.bus, &Topic::Commands, shard).await {
                count += commands(&record, shard).len();
            }
        }
        count
    }

    pub async fn dead_letters(&self) -> Vec<v1::DeadLetter> {
        let records = read(&self.bus, &Topic::DeadLetter, 0).await;
        let open = |record: &Bytes| {
            let opened = nova_wire::open(record, ClusterId::of_name(CLUSTER)).unwrap();
            assert_eq!(opened.kind, v1::RecordKind::DeadLetter);
            v1::DeadLetter::decode(opened.body).unwrap()
        };
        records.iter().map(open).collect()
    }

    /// Waits for a condition, never for a time.
    #[track_caller]
    pub fn wait_for(&self, what: &'static str, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let world = self.clone();
        let place = std::panic::Location::caller();
        async move {
            let waiting = async {
                while !holds(&world) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let waited = tokio::time::timeout(PATIENCE, waiting).await;
            if waited.is_err() {
                let state = world.state.lock();
                panic!("{place}: {what} does not come; started {:?}, marks {:?}", state.started, state.marks);
            }
        }
    }

    pub async fn wait_started(&self, count: usize) {
        self.wait_for("that many executions", |world| world.started().len() >= count).await;
    }

    /// Waits until the engine knows that many sources.
    pub async fn wait_sources(&self, count: usize) {
        self.wait_for("that many positions", |world| world.state.lock().positions.len() >= count).await;
    }

    /// Waits until everything in the log is applied.
    pub async fn settle(&self) {
        loop {
            let there = self.commands().await;
            if self.state.lock().commands >= there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn read(bus: &MemoryBus, topic: &Topic, partition: u32) -> Vec<Bytes> {
    let range = bus.offsets(topic, partition).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(topic, partition, range.start).unwrap();
    let mut values = Vec::new();
    while (values.len() as u64) < range.end - range.start {
        let batch = reader.next(PATIENCE).await.unwrap().expect("there are more");
        values.extend(batch.records.into_iter().map(|record| record.value));
    }
    values
}

fn commands(record: &Bytes, shard: u32) -> Vec<v1::Submit> {
    let opened = nova_wire::open(record, ClusterId::of_name(CLUSTER)).unwrap();
    assert_eq!((opened.kind, opened.shard), (v1::RecordKind::Commands, shard));
    let batch = v1::CommandBatch::decode(opened.body).unwrap();
    let submit = |command: v1::Command| match command.kind {
        Some(v1::command::Kind::Submit(submit)) => submit,
        other => panic!("only submissions are expected, not {other:?}"),
    };
    batch.commands.into_iter().map(submit).collect()
}

/// The engine, and a shard's place in the log.
struct Engine {
    state: nova_engine::State,
    index: u64,
    /// Checksum of the last record, by shard.
    before: Vec<u64>,
}

impl Engine {
    fn new() -> Self {
        let state = nova_engine::State::new(nova_engine::Config { shards: SHARDS as u16 });
        let mut engine = Self { state, index: 0, before: vec![0; SHARDS as usize] };
        for shard in 0..SHARDS as u16 {
            engine.entry(EntryBody::Grant { shard: ShardId(shard), after: Epoch(0), owner: OwnerId(1) });
        }
        engine
    }

    fn entry(&mut self, body: EntryBody) {
        self.index += 1;
        let entry = Entry { now: TimeMs(START_MS), index: self.index, term: 1, body };
        let verdict = self.state.apply(&entry);
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    }

    fn record(&mut self, shard: u32, record: &nova_bus::Record) {
        let checksum = nova_wire::record_checksum(&record.value);
        let opened = nova_wire::open(&record.value, ClusterId::of_name(CLUSTER)).unwrap();
        let commands = nova_wire::commands_from_wire(opened.body).expect("commands that the coordinator takes");
        let before = std::mem::replace(&mut self.before[shard as usize], checksum);
        self.entry(EntryBody::Propose(Proposal {
            shard: ShardId(shard as u16),
            epoch: Epoch(1),
            first_offset: Offset(record.offset),
            next_offset: Offset(record.offset + 1),
            before,
            records: vec![Record { offset: Offset(record.offset), checksum, commands }],
            locals: Vec::new(),
            outbox_acked: Seq(0),
        }));
    }

    fn open_executions(&self) -> u64 {
        (0..SHARDS as u16).map(|shard| self.state.shard_stats(ShardId(shard)).open).sum()
    }
}

/// Gives the engine what is in the log, and notes what became of it. Executions stay open: nobody does their work.
async fn apply(bus: MemoryBus, state: Arc<Mutex<State>>) {
    let mut engine = Engine::new();
    let mut reader = bus.reader().unwrap();
    for shard in 0..SHARDS {
        reader.assign(&Topic::Commands, shard, 0).unwrap();
    }
    loop {
        if state.lock().paused {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let Some(batch) = reader.next(Duration::from_millis(20)).await.unwrap() else { continue };
        let mut state = state.lock();
        for install in std::mem::take(&mut state.installs) {
            engine.entry(EntryBody::PutWorkflow(install));
        }
        for record in &batch.records {
            engine.record(batch.partition, record);
            for submit in commands(&record.value, batch.partition) {
                note(&mut state, &engine, batch.partition, submit);
            }
        }
        assert_eq!(engine.open_executions(), state.started.len() as u64, "the engine took others");
    }
}

fn note(state: &mut State, engine: &Engine, shard: u32, submit: v1::Submit) {
    state.commands += 1;
    let Some(v1::submit::Dedupe::Source(source)) = submit.dedupe else { panic!("no source") };
    let id = nova_wire::execution_id(&submit.execution).unwrap();
    assert_eq!(u32::from(id.shard().0), shard);
    let key = (submit.namespace.clone(), source.source.clone());
    if state.positions.get(&key).is_some_and(|last| *last >= source.number) {
        state.repeats += 1;
        return;
    }
    state.positions.insert(key, source.number);
    // The record may hold later numbers too.
    let last = engine.state.source_position(id.shard(), &submit.namespace, &source.source);
    assert!(last >= Some(source.number), "the engine has not decided {} of {}", source.number, source.source);
    if submit.version == 0 {
        state.marks.push((source.source, source.number));
        return;
    }
    let execution = engine.state.execution(id).expect("the engine has started it");
    assert_eq!(execution.execution.workflow.version, submit.version);
    let Some(v1::payload::Kind::Inline(input)) = submit.input.unwrap().kind else { panic!("not inline") };
    state.started.push(Started {
        source: source.source,
        number: source.number,
        version: submit.version,
        started_by: submit.started_by,
        execution: id.to_string(),
        input: serde_json::from_slice(&input).unwrap(),
    });
}

struct Fake {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Fake {
    fn up(&self) -> Result<(), Status> {
        if self.state.lock().down { Err(Status::unavailable("down")) } else { Ok(()) }
    }

    fn catalogue(&self) -> v1::GetCatalogueResponse {
        let state = self.state.lock();
        let workflow = |((namespace, name), versions): (&(String, String), &Vec<(Bytes, Bytes)>)| v1::WorkflowInfo {
            namespace: namespace.clone(),
            name: name.clone(),
            version: versions.len() as u32,
            hash: versions.last().unwrap().0.clone(),
            created_at_ms: 0,
        };
        v1::GetCatalogueResponse {
            revision: state.revision,
            namespaces: Vec::new(),
            workflows: state.workflows.iter().map(workflow).collect(),
            triggers: state.triggers.values().cloned().collect(),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Fake {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        self.up()?;
        Ok(Response::new(v1::DescribeResponse { shards: SHARDS, ..Default::default() }))
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Answer<v1::GetWorkflowResponse> {
        self.up()?;
        let request = request.into_inner();
        let state = self.state.lock();
        let versions = state.workflows.get(&(request.namespace.clone(), request.name.clone()));
        let version = request.version.expect("a trigger names it");
        let found = versions.and_then(|all| all.get(version as usize - 1)).cloned();
        let info = found.as_ref().map(|(hash, _)| v1::WorkflowInfo {
            namespace: request.namespace,
            name: request.name,
            version,
            hash: hash.clone(),
            created_at_ms: 0,
        });
        let document = found.map(|(_, document)| document).unwrap_or_default();
        Ok(Response::new(v1::GetWorkflowResponse { info, document, unknown_namespace: false }))
    }

    async fn get_catalogue(&self, request: Request<v1::GetCatalogueRequest>) -> Answer<v1::GetCatalogueResponse> {
        self.up()?;
        let request = request.into_inner();
        let mut changes = self.changed.subscribe();
        if let Some(after) = request.after_revision {
            let wait = Duration::from_millis(request.wait_ms);
            let _ = tokio::time::timeout(wait, changes.wait_for(|revision| *revision > after)).await;
        }
        Ok(Response::new(self.catalogue()))
    }

    async fn get_source_position(
        &self,
        request: Request<v1::GetSourcePositionRequest>,
    ) -> Answer<v1::GetSourcePositionResponse> {
        self.up()?;
        let request = request.into_inner();
        assert_eq!(
            request.shard,
            u32::from(nova_wire::shard_of(&request.namespace, &request.source, SHARDS as u16).0),
            "sources hash as keys do"
        );
        let last = self.state.lock().positions.get(&(request.namespace, request.source)).copied();
        Ok(Response::new(v1::GetSourcePositionResponse { last }))
    }

    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Answer<v1::GetShardsResponse> {
        self.up()?;
        let busy = self.state.lock().busy.clone();
        let view = |shard| v1::ShardView {
            shard,
            open_executions: if busy.contains(&shard) { 1_000_000 } else { 0 },
            ..Default::default()
        };
        Ok(Response::new(v1::GetShardsResponse { shards: (0..SHARDS).map(view).collect() }))
    }
}
