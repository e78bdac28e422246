//! A bus, coordinators, executors that tell what they do, and workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use nova_bus::{Bus, Layout, MemoryBus, SharedBus, Topic};
use nova_client::Coordinators;
use nova_execution::{Executor, Failure, Registry, Task};
use nova_wire::{ClusterId, v1};
use nova_worker::{Config, RunError, Worker};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::coordinator::{self, Shared, State};

const CLUSTER: &str = "test";
const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds: `quick` succeeds at once, `polite` works until it shall stop, `deaf` does not hear that it shall until
/// it is released, `thread` holds its thread until then, `large`
/// fails then, with more than any record takes.
#[derive(Clone)]
pub struct Probe(Arc<Seen>);

struct Seen {
    running: AtomicUsize,
    ended: AtomicUsize,
    last_step: Mutex<Option<Instant>>,
    release: watch::Sender<bool>,
}

struct Counted(Arc<Seen>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Probe {
    fn new() -> Self {
        Self(Arc::new(Seen {
            running: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            last_step: Mutex::default(),
            release: watch::Sender::new(false),
        }))
    }

    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    pub fn ended(&self) -> usize {
        self.0.ended.load(Ordering::SeqCst)
    }

    pub fn last_step(&self) -> Option<Instant> {
        *self.0.last_step.lock()
    }

    pub fn release(&self) {
        self.0.release.send_replace(true);
    }
}

#[async_trait]
impl Executor for Probe {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["quick", "polite", "deaf", "thread", "large"]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(Arc::clone(&self.0));
        match &*task.kind {
            "polite" => {
                stop.cancelled().await;
                return Err(Failure::retryable("task.stopped", "asked to stop"));
            }
            "deaf" => {
                while !*self.0.release.borrow() {
                    *self.0.last_step.lock() = Some(Instant::now());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            "thread" => {
                while !*self.0.release.borrow() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            "large" => {
                let _ = self.0.release.subscribe().wait_for(|released| *released).await;
                let mut failure = Failure::permanent("a.large", "x".repeat(nova_bus::MAX_RECORD_BYTES));
                failure.detail = Some(vec![b' '; nova_bus::MAX_RECORD_BYTES].into());
                return Err(failure);
            }
            _ => {}
        }
        Ok(Bytes::from_static(b"1"))
    }
}

pub struct Rig {
    pub bus: MemoryBus,
    pub state: Shared,
    pub probe: Probe,
    seq: AtomicUsize,
    dir: tempfile::TempDir,
    _coordinators: DropGuard,
}

pub struct Service {
    pub stop: CancellationToken,
    pub handle: JoinHandle<Result<(), RunError>>,
}

impl Service {
    /// Tells it to stop, and waits for its end.
    pub async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        self.ended().await
    }

    /// As kill -9: nothing is finished.
    pub async fn kill(self) {
        self.handle.abort();
        let _ = self.handle.await;
    }

    pub async fn ended(self) -> Result<(), RunError> {
        tokio::time::timeout(PATIENCE, self.handle).await.expect("it ends").expect("it does not panic")
    }
}

impl Rig {
    pub async fn new(members: usize, ttl_ms: u64) -> Self {
        let bus = MemoryBus::new();
        bus.ensure_topics(&Layout { shards: 1, events: 1, inboxes: 1, apis: 1 }.topics()).await.unwrap();
        let (state, coordinators) = coordinator::start(members, ttl_ms).await;
        Self {
            bus,
            state,
            probe: Probe::new(),
            seq: AtomicUsize::new(0),
            dir: tempfile::tempdir().unwrap(),
            _coordinators: coordinators,
        }
    }

    /// Starts a worker on a directory of that name.
    pub fn start(&self, directory: &str) -> Service {
        self.start_on(Arc::new(self.bus.clone()), directory, |_| {})
    }

    pub fn start_on(&self, bus: SharedBus, directory: &str, change: impl FnOnce(&mut Config)) -> Service {
        let mut config = Config {
            cluster: CLUSTER.into(),
            coordinators: self.state.lock().addresses.clone(),
            data: self.dir.path().join(directory),
            ..Config::default()
        };
        change(&mut config);
        let registry = Registry::default().with(Arc::new(self.probe.clone()));
        let coordinators = Coordinators::new(config.coordinators.clone());
        let worker = Worker::with(config, coordinators, bus, registry).expect("the directory is free");
        let stop = CancellationToken::new();
        Service { handle: tokio::spawn(worker.run(stop.clone())), stop }
    }

    /// Gives the session that was opened last an attempt.
    pub async fn assign(&self, token: u64, kind: &str) {
        let lease = Some(self.lease(token));
        let assignment = v1::Assignment { lease, kind: kind.into(), node_id: kind.into(), ..Default::default() };
        self.send(v1::outbox_message::Body::Assign(assignment)).await;
    }

    pub async fn revoke(&self, token: u64) {
        let revoke = v1::Revoke { inbox: 0, lease: Some(self.lease(token)) };
        self.send(v1::outbox_message::Body::Revoke(revoke)).await;
    }

    fn lease(&self, token: u64) -> v1::LeaseRef {
        let session = self.state.lock().last;
        v1::LeaseRef { worker: 1, session, token, execution: vec![0; 16].into() }
    }

    async fn send(&self, body: v1::outbox_message::Body) {
        let seq = self.seq.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        let message = v1::OutboxMessage { seq, at_ms: 0, body: Some(body) };
        let batch = v1::OutboxBatch { messages: vec![message] }.encode_to_vec();
        let record = nova_wire::seal(ClusterId::of_name(CLUSTER), v1::RecordKind::Outbox, 0, batch.into());
        self.bus.append(&Topic::Tasks, 0, vec![record.into()]).await.unwrap();
    }

    /// What workers said so far, in order.
    pub async fn said(&self) -> Vec<v1::command::Kind> {
        let range = self.bus.offsets(&Topic::Commands, 0).await.unwrap();
        let mut reader = self.bus.reader().unwrap();
        reader.assign(&Topic::Commands, 0, range.start).unwrap();
        let (mut said, mut next) = (Vec::new(), range.start);
        while next < range.end {
            for record in reader.next(PATIENCE).await.unwrap().expect("there are more").records {
                let opened = nova_wire::open(&record.value, ClusterId::of_name(CLUSTER)).unwrap();
                let batch = v1::CommandBatch::decode(opened.body).unwrap();
                said.extend(batch.commands.into_iter().filter_map(|command| command.kind));
                next = record.offset + 1;
            }
        }
        said
    }

    /// Waits until that many things were said.
    pub async fn wait_said(&self, count: usize) -> Vec<v1::command::Kind> {
        let waiting = async {
            loop {
                let said = self.said().await;
                if said.len() >= count {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it is said")
    }

    /// Waits for a condition, never for a time.
    pub async fn wait_for(&self, what: &str, holds: impl Fn(&State, &Probe) -> bool) {
        let waiting = async {
            while !holds(&self.state.lock(), &self.probe) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what} does not come");
    }
}
