//! A small cluster: a bus, the engine behind a coordinator, and the scheduler that is looked at.

use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, Layout, Topic};
use nova_client::Coordinators;
use nova_engine::ids::{ExecutionId, ShardId};
use nova_engine::input::{EntryBody, PutWorkflow};
use nova_engine::output::Verdict;
use nova_model::Format;
use nova_scheduler::{Config, Scheduler};
use nova_wire::v1::coordinator_server::CoordinatorServer;
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::bus::FaultyBus;
use crate::coordinator::{Group, Member};

pub const SHARDS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn cluster() -> ClusterId {
    ClusterId::of_name("test")
}

pub struct World {
    pub bus: FaultyBus,
    pub member: Member,
    config: Config,
    _stop: tokio_util::sync::DropGuard,
}

/// A scheduler that runs.
pub struct Service {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Service {
    pub async fn stop(self) {
        self.stop.cancel();
        self.handle.await.expect("it does not panic");
    }
}

impl World {
    pub async fn new() -> Self {
        let bus = FaultyBus::new();
        bus.ensure_topics(&Layout { shards: SHARDS, events: 1, inboxes: 1, apis: 1 }.topics()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            cluster: "test".into(),
            coordinators: vec![format!("http://{}", listener.local_addr().unwrap())],
            ..Config::default()
        };
        let group = parking_lot::Mutex::new(Group::new(SHARDS));
        let member = Member { group: group.into(), changed: tokio::sync::watch::Sender::new(0) };
        let stop = CancellationToken::new();
        let (served, ended) = (member.clone(), stop.clone().cancelled_owned());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(CoordinatorServer::new(served));
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended).await.unwrap();
        });
        let world = Self { bus, member, config, _stop: stop.drop_guard() };
        world.workflow("plain", &json!({ "x": 1 }));
        world
    }

    pub fn start(&self) -> Service {
        let stop = CancellationToken::new();
        let scheduler =
            Scheduler::new(&self.config, Coordinators::new(self.config.coordinators.clone()), self.bus.shared());
        Service { handle: tokio::spawn(scheduler.run(stop.clone())), stop }
    }

    /// Installs a workflow of one task, done by nobody, with this input.
    pub fn workflow(&self, name: &str, with: &Value) {
        let document = json!({
            "apiVersion": "nova/v1", "kind": "Workflow", "metadata": { "name": name },
            "spec": { "do": [{ "id": "a", "type": "task", "kind": "noop", "with": with }] },
        });
        let document = nova_model::parse(document.to_string().as_bytes(), "w", Format::Json).unwrap();
        let compiled = nova_model::compile(&document).unwrap_or_else(|problems| panic!("{problems}"));
        let put = PutWorkflow {
            namespace: "default".into(),
            name: name.into(),
            hash: compiled.hash,
            program: compiled.program.into(),
            document: compiled.canonical.into(),
        };
        let verdict = self.member.change(|group| group.entry(EntryBody::PutWorkflow(put)));
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    }

    /// A submission as an api seals it.
    pub fn submission(&self, shard: u32, number: u64, workflow: &str, input: &Value) -> Bytes {
        let hash = {
            let group = self.member.group.lock();
            Bytes::copy_from_slice(&group.engine.workflow("default", workflow, Some(1)).unwrap().hash)
        };
        let execution = ExecutionId::new(ShardId(shard as u16), 1, number);
        let submit = v1::Submit {
            execution: nova_wire::execution_bytes(execution),
            namespace: "default".into(),
            workflow: workflow.into(),
            version: 1,
            content_hash: hash.clone(),
            hash,
            input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(input.to_string().into())) }),
            ..Default::default()
        };
        seal(shard, vec![v1::Command { kind: Some(v1::command::Kind::Submit(submit)) }])
    }

    pub async fn append(&self, shard: u32, record: Bytes) {
        self.bus.memory.append(&Topic::Commands, shard, vec![record.into()]).await.unwrap();
    }

    pub async fn submit(&self, shard: u32, number: u64) {
        self.append(shard, self.submission(shard, number, "plain", &json!({}))).await;
    }

    pub fn open(&self, shard: u32) -> u64 {
        self.member.group.lock().engine.shard_stats(ShardId(shard as u16)).open
    }

    /// Waits for so many open executions; nobody does their work, so none ends.
    #[track_caller]
    pub fn wait_open(&self, shard: u32, count: u64) -> impl Future<Output = ()> {
        self.wait_for("that many executions", move |world| world.open(shard) == count)
    }

    /// Looks at the coordinator.
    pub fn see<T>(&self, look: impl FnOnce(&Group) -> T) -> T {
        look(&self.member.group.lock())
    }

    /// Offsets that were proposed, in the order of the proposals.
    pub fn offsets(&self, shard: u32) -> Vec<u64> {
        self.see(|group| {
            let of_shard = group.proposed.iter().filter(|proposal| proposal.shard == shard);
            of_shard.flat_map(|proposal| proposal.records.iter().map(|record| record.offset)).collect()
        })
    }

    pub fn is_read(&self, shard: u32) -> bool {
        self.bus.see(|faults| faults.read.contains(&shard))
    }

    /// Ends the streams to the coordinator: all shards ask where they stand.
    pub fn break_link(&self) {
        self.member.change(|group| group.links += 1);
    }

    /// Waits until positions have been asked again so often.
    pub async fn wait_positions(&self, times: usize) {
        let before = self.see(|group| group.positions_asked);
        self.wait_for("positions", move |world| world.see(|group| group.positions_asked) >= before + times).await;
    }

    /// Waits for a condition, never for a time.
    #[track_caller]
    pub fn wait_for(&self, what: &'static str, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let waiting = async {
                while !holds(self) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{place}: {what} does not come");
        }
    }
}

/// A record of commands.
pub fn seal(shard: u32, commands: Vec<v1::Command>) -> Bytes {
    let body = v1::CommandBatch { commands }.encode_to_vec().into();
    nova_wire::seal(cluster(), v1::RecordKind::Commands, shard, body)
}
