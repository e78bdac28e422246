//! A small cluster: a bus, a coordinator that answers what triggers ask for, and the engine itself on one thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_bus::{Bus, Layout, MemoryBus, Outgoing, SharedBus, Topic, TopicSpec};
use nova_client::Coordinators;
use nova_engine::input::PutWorkflow;
use nova_model::Format;
use nova_trigger::{Clock, Config, Trigger};
use nova_wire::v1::coordinator_server::CoordinatorServer;
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Fake, Started, State};
use crate::engine::{apply, commands};

pub const SHARDS: u32 = 8;
pub const CLUSTER: &str = "test";
/// 2026-01-01T00:00:00Z.
pub const START_MS: u64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct World {
    pub bus: MemoryBus,
    pub clock: TestClock,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    engine_runs: watch::Sender<bool>,
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
            engine_runs: watch::Sender::new(true),
            address,
            _stop: Arc::new(stop.clone().drop_guard()),
        };
        let fake = Fake { state: Arc::clone(&world.state), changed: world.changed.clone() };
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(CoordinatorServer::new(fake));
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended).await.unwrap();
        });
        let (bus, state, runs) = (world.bus.clone(), Arc::clone(&world.state), world.engine_runs.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = apply(bus, state, runs) => {}
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
        let trigger = Trigger::new(config, Coordinators::new(config.coordinators.clone()), bus)
            .with_clock(Arc::new(self.clock.clone()));
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
        self.engine_runs.send_replace(!paused);
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
