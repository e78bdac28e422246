//! Members in this process, each with a server on loopback.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nova_replication::{ApplyError, Committed, Group, GroupConfig, LogKind, ProposeError, Reply, StateMachine};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;

/// Longest wait for something that must come.
pub const SOON: Duration = Duration::from_secs(30);

/// Keeps all numbers it was given; what stands behind one in its command only makes it longer.
#[derive(Clone, Default)]
pub struct Numbers {
    numbers: Arc<std::sync::Mutex<Vec<u32>>>,
    restored: Arc<AtomicBool>,
    unwritable: Arc<AtomicBool>,
}

impl StateMachine for Numbers {
    type Frozen = (Vec<u32>, bool);

    fn apply(&mut self, command: Committed<'_>) -> Result<Bytes, ApplyError> {
        let bytes = command.command.first_chunk().ok_or_else(|| ApplyError("not a number".into()))?;
        self.numbers.lock().unwrap().push(u32::from_be_bytes(*bytes));
        Ok(command.command.clone())
    }

    fn applied(&mut self) {}

    fn freeze(&self) -> (Vec<u32>, bool) {
        (self.numbers.lock().unwrap().clone(), self.unwritable.load(Ordering::SeqCst))
    }

    fn write((numbers, unwritable): (Vec<u32>, bool), out: &mut dyn Write) -> std::io::Result<()> {
        if unwritable {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        numbers.iter().try_for_each(|number| out.write_all(&number.to_be_bytes()))
    }

    fn restore(&mut self, input: &mut (dyn Read + Send)) -> Result<(), ApplyError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(|error| ApplyError(error.to_string()))?;
        let numbers = bytes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        *self.numbers.lock().unwrap() = numbers.collect();
        self.restored.store(true, Ordering::SeqCst);
        Ok(())
    }
}

pub struct Member {
    pub group: Group<Numbers>,
    machine: Numbers,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

impl Member {
    pub fn numbers(&self) -> Vec<u32> {
        self.machine.numbers.lock().unwrap().clone()
    }

    pub fn restored(&self) -> bool {
        self.machine.restored.load(Ordering::SeqCst)
    }

    /// From now on its state can, or cannot, be written.
    pub fn unwritable(&self, unwritable: bool) {
        self.machine.unwritable.store(unwritable, Ordering::SeqCst);
    }

    pub async fn applied(&self, index: u64) {
        let mut status = self.group.status();
        let waiting = status.wait_for(|status| status.applied >= index);
        tokio::time::timeout(SOON, waiting).await.expect("it catches up").unwrap();
    }
}

pub struct Cluster {
    dir: TempDir,
    log: LogKind,
    addresses: BTreeMap<u64, SocketAddr>,
    running: BTreeMap<u64, Member>,
}

impl Cluster {
    pub async fn start(size: u64, log: LogKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, log, addresses: BTreeMap::new(), running: BTreeMap::new() };
        for id in 1..=size {
            cluster.start_empty(id).await;
        }
        let members = cluster.addresses.iter().map(|(id, address)| (*id, format!("http://{address}")));
        cluster.running[&1].group.initialize(members.collect()).await.unwrap();
        cluster
    }

    pub async fn start_empty(&mut self, id: u64) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.addresses.insert(id, address);
        let member = self.run(id, listener).await;
        self.running.insert(id, member);
        format!("http://{address}")
    }

    pub async fn restart(&mut self, id: u64) {
        let listener = loop {
            // The port is ours; the old socket may take a moment to go.
            match TcpListener::bind(self.addresses[&id]).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let member = self.run(id, listener).await;
        self.running.insert(id, member);
    }

    async fn run(&self, id: u64, listener: TcpListener) -> Member {
        let config = GroupConfig {
            member: id,
            cluster: [9; 16],
            dir: self.path(id),
            log: self.log,
            heartbeat_ms: 100,
            election_min_ms: 400,
            election_max_ms: 800,
            snapshot_entries: 1_000_000,
            dialer: nova_host::Dialer::Tcp,
        };
        let machine = Numbers::default();
        let begun = std::time::Instant::now();
        let group = loop {
            // A stopped member's directory is free once its last task is gone.
            match Group::start(config.clone(), machine.clone()).await {
                Ok(group) => break group,
                Err(error) => assert!(begun.elapsed() < SOON, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder().add_service(group.server());
        let serving =
            server.serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Member { group, machine, stop, server }
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub async fn stop(&mut self, id: u64) {
        let member = self.running.remove(&id).unwrap();
        member.group.shutdown().await;
        drop(member.group);
        let _ = member.stop.send(());
        member.server.abort();
        let _ = member.server.await;
    }

    pub fn address(&self, id: u64) -> String {
        format!("http://{}", self.addresses[&id])
    }

    /// Waits until the files in a folder of a member are as wanted.
    pub async fn files(&self, id: u64, folder: &str, wanted: impl Fn(&[String]) -> bool) {
        let folder = self.path(id).join(folder);
        let begun = std::time::Instant::now();
        loop {
            let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            if wanted(&names) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{names:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn member(&self, id: u64) -> &Member {
        &self.running[&id]
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.running.values()
    }

    /// The member that leads; all that run agree.
    pub async fn leader(&self) -> u64 {
        let waiting = async {
            loop {
                for (id, member) in &self.running {
                    if member.group.status().borrow().leads() {
                        return *id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("somebody leads")
    }

    pub async fn propose(&self, id: u64, number: u32) -> Result<Reply, ProposeError> {
        let pending = self.running[&id].group.propose(number.to_be_bytes().to_vec().into()).await?;
        pending.reply(SOON).await
    }
}
