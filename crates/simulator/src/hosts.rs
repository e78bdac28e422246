//! The hosts of a cluster, and how the process of each is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nova_bus::{Layout, MemoryBus, SharedBus};
use nova_checker::Effect;
use nova_client::Coordinators;
use nova_coordinator::Coordinator;
use nova_scheduler::Scheduler;
use nova_trigger::Trigger;
use nova_worker::Worker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::bus::SimulatedBus;
use crate::client::now_ns;
use crate::net::SharedNet;

/// Name of the cluster.
pub(crate) const CLUSTER: &str = "simulated";
/// Its topics.
pub(crate) const LAYOUT: Layout = Layout { shards: 4, events: 2, inboxes: 2, apis: 1 };
const PORT: u16 = 7710;
const SLOTS: u32 = 6;

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member of the group, by its number.
    Coordinator,
    /// Carries commands and messages.
    Scheduler,
    /// Carries out attempts.
    Worker,
    /// Starts executions.
    Trigger,
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn host(name: &'static str, role: Role) -> Host {
    Host { name, role }
}

/// All hosts; the members first.
pub const HOSTS: [Host; 10] = [
    host("c1", Role::Coordinator),
    host("c2", Role::Coordinator),
    host("c3", Role::Coordinator),
    host("s1", Role::Scheduler),
    host("s2", Role::Scheduler),
    host("w1", Role::Worker),
    host("w2", Role::Worker),
    host("w3", Role::Worker),
    host("t1", Role::Trigger),
    host("t2", Role::Trigger),
];

pub(crate) fn members() -> impl Iterator<Item = Host> {
    HOSTS.into_iter().filter(|host| host.role == Role::Coordinator)
}

fn addresses() -> Vec<String> {
    members().map(address).collect()
}

/// A client of the members, on a host of this name.
pub(crate) fn coordinators(net: &SharedNet, name: &str) -> Coordinators {
    Coordinators::dialing(addresses(), net.socket(name).dialer())
}

/// Where a member answers.
pub(crate) fn address(member: Host) -> String {
    format!("http://{member}:{PORT}")
}

/// A client of one member.
pub(crate) fn one(net: &SharedNet, name: &str, member: Host) -> Coordinators {
    Coordinators::dialing(vec![address(member)], net.socket(name).dialer())
}

/// What the processes of a cluster stand on.
#[derive(Clone)]
pub(crate) struct Ground {
    pub net: SharedNet,
    pub broker: MemoryBus,
    pub effects: Arc<Mutex<Vec<Effect>>>,
    pub data: PathBuf,
}

impl Ground {
    pub(crate) fn bus(&self, name: &str, process: usize) -> SimulatedBus {
        SimulatedBus::new(self.broker.clone(), self.net.clone(), name, process)
    }

    pub(crate) fn data(&self, host: Host) -> PathBuf {
        self.data.join(host.name)
    }

    /// What a process of this host does, until it ends by itself and says why. A member has a number, and founds the group
    /// with the other first ones unless it is to be let in.
    pub(crate) async fn run(self, host: Host, process: usize, number: u64) -> String {
        let ended = match host.role {
            Role::Coordinator => self.coordinator(host, number).await.map_err(|error| error.to_string()),
            Role::Scheduler => {
                let config = nova_scheduler::Config { cluster: CLUSTER.into(), ..Default::default() };
                let bus: SharedBus = Arc::new(self.bus(host.name, process));
                Scheduler::new(&config, coordinators(&self.net, host.name), bus).run(CancellationToken::new()).await;
                Ok(())
            }
            Role::Worker => self.worker(host, process).await.map_err(|error| error.to_string()),
            Role::Trigger => {
                let config = nova_trigger::Config { cluster: CLUSTER.into(), ..Default::default() };
                let bus: SharedBus = Arc::new(self.bus(host.name, process));
                Trigger::new(&config, coordinators(&self.net, host.name), bus).run(CancellationToken::new()).await;
                Ok(())
            }
        };
        ended.err().unwrap_or_else(|| "it ended".into())
    }

    async fn coordinator(&self, host: Host, number: u64) -> Result<(), nova_coordinator::RunError> {
        let all = (1..).zip(addresses()).map(|(id, address)| format!("{id}@{address}"));
        let is_first = number <= members().count() as u64;
        let socket = self.net.socket(host.name);
        let config = nova_coordinator::Config {
            cluster: CLUSTER.into(),
            member: number,
            members: if is_first { all.collect() } else { Vec::new() },
            data: self.data(host),
            shards: LAYOUT.shards as u16,
            inboxes: LAYOUT.inboxes,
            heartbeat_ms: 200,
            election_min_ms: 500,
            election_max_ms: 900,
            // Many of them, also in a short run.
            snapshot_entries: 300,
            ..Default::default()
        };
        let listener = socket.listener(PORT).expect("nobody else listens on this host");
        let opened = Coordinator::open_on(listener, socket.dialer(), config).await?;
        opened.start(CancellationToken::new()).await?.run().await
    }

    async fn worker(&self, host: Host, process: usize) -> Result<(), nova_worker::RunError> {
        let config = nova_worker::Config {
            cluster: CLUSTER.into(),
            name: host.name.into(),
            slots: SLOTS,
            data: self.data(host),
            ..Default::default()
        };
        let registry = nova_workload::registry(host.name, Arc::clone(&self.effects) as _, now_ns);
        let bus: SharedBus = Arc::new(self.bus(host.name, process));
        Worker::with(config, coordinators(&self.net, host.name), bus, registry)?.run(CancellationToken::new()).await
    }
}

/// A place for files that needs no disk, where there is one: nothing of a simulation outlives it.
pub(crate) fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a temporary directory")
}
