//! What load is put on: real processes, ended when this is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nova_testkit::{
    Cluster, ClusterOptions, DevCluster, DevOptions, Dir, Members, MembersOptions, Nova, Process, Rest, Usage,
};

use crate::Error;
use crate::args::{Args, LogKind, ScenarioName, TargetName};

/// In an overload a round trip of an attempt takes a tenth of a second: with fewer slots these would be the knee.
const SLOTS_IN_OVERLOAD: u32 = 1_024;
/// Slots of the worker of `nova dev`, and of each worker of a cluster.
const SLOTS: u32 = 256;
/// Workers of a cluster, and those of a fan.
const WORKERS: usize = 2;
const WORKERS_OF_A_FAN: usize = 10;

fn slots(args: &Args) -> u32 {
    if args.scenario == ScenarioName::Overload { SLOTS_IN_OVERLOAD } else { SLOTS }
}

/// A target that runs.
#[derive(Debug)]
pub(crate) enum Target {
    Dev(Box<DevCluster>),
    Cluster(Box<Cluster>),
}

impl Target {
    /// Starts it with its data in `dir` and waits until all its parts answer.
    pub(crate) async fn start(nova: &Nova, args: &Args, dir: Dir) -> Result<Self, Error> {
        let slots = slots(args);
        let (brokers, members) = match args.target {
            TargetName::Embedded | TargetName::Embedded3 => {
                let members = (args.target == TargetName::Embedded3).then_some(3);
                let flags = vec!["--slots".into(), slots.to_string()];
                let options = DevOptions { members, flags, ..DevOptions::default() };
                return Ok(Self::Dev(Box::new(DevCluster::start_in(nova, &options, dir).await?)));
            }
            TargetName::Kafka1 => (1, 1),
            TargetName::Kafka3 => (3, 3),
        };
        let log = match args.log {
            None | Some(LogKind::File) => "file",
            Some(LogKind::Sled) => "sled",
        };
        let members = MembersOptions { count: members, log: log.into(), ..MembersOptions::default() };
        let workers = if args.scenario == ScenarioName::S4 { WORKERS_OF_A_FAN } else { WORKERS };
        let options = ClusterOptions { brokers, members, workers, slots, optimise: true, ..ClusterOptions::default() };
        Ok(Self::Cluster(Box::new(Cluster::start(nova, &options, dir).await?)))
    }

    /// Its workers and their slots, for people.
    pub(crate) fn workers(&mut self) -> String {
        match self {
            Self::Dev(_) => format!("1 worker with {SLOTS} slots, in the process of everything else"),
            Self::Cluster(cluster) => format!("{} workers with {SLOTS} slots each", cluster.workers().len()),
        }
    }

    /// A client for what is done once.
    pub(crate) fn rest(&self) -> &Rest {
        match self {
            Self::Dev(dev) => dev.rest(),
            Self::Cluster(cluster) => cluster.rest(),
        }
    }

    /// Where its api listens.
    pub(crate) fn address(&self) -> Result<SocketAddr, Error> {
        let url = self.rest().url();
        let address = url.strip_prefix("http://").and_then(|rest| rest.parse().ok());
        address.ok_or_else(|| Error::Url { url: url.to_owned() })
    }

    /// Where its coordinators answer.
    pub(crate) fn coordinators(&mut self) -> Vec<String> {
        match self {
            Self::Dev(dev) => dev.coordinators(),
            Self::Cluster(cluster) => cluster.members().urls().to_vec(),
        }
    }

    /// What its processes used so far, by kind.
    pub(crate) fn usage(&self) -> Result<BTreeMap<&'static str, Usage>, Error> {
        Ok(match self {
            Self::Dev(dev) => dev.usage()?,
            Self::Cluster(cluster) => cluster.usage()?,
        })
    }

    /// Its data on the disk, with that of its brokers.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        match self {
            Self::Dev(dev) => dev.dir().bytes_on_disk(),
            Self::Cluster(cluster) => cluster.dir().bytes_on_disk(),
        }
    }

    /// That all its processes run and answer.
    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        self.ready(Duration::from_secs(10)).await
    }

    /// Waits until all its processes answer.
    pub(crate) async fn ready(&mut self, within: Duration) -> Result<(), Error> {
        match self {
            Self::Dev(dev) => dev.ready(within).await?,
            Self::Cluster(cluster) => cluster.ready(within).await?,
        }
        Ok(())
    }

    /// `kill -9` of everything but brokers.
    pub(crate) fn kill_all(&mut self) {
        match self {
            Self::Dev(dev) => dev.kill_all(),
            Self::Cluster(cluster) => cluster.kill_all(),
        }
    }

    /// Starts again what [`Target::kill_all`] killed, and waits for nothing.
    pub(crate) fn start_all(&mut self) -> Result<(), Error> {
        match self {
            Self::Dev(dev) => dev.start_all()?,
            Self::Cluster(cluster) => cluster.start_all()?,
        }
        Ok(())
    }

    /// Its coordinators, where they are processes of their own.
    pub(crate) fn members(&mut self) -> Option<&mut Members> {
        match self {
            Self::Dev(dev) => dev.members(),
            Self::Cluster(cluster) => Some(cluster.members()),
        }
    }

    /// Its schedulers, where they are processes of their own.
    pub(crate) fn schedulers(&mut self) -> &mut [Process] {
        match self {
            Self::Dev(_) => &mut [],
            Self::Cluster(cluster) => cluster.schedulers(),
        }
    }

    /// Its workers, where they are processes of their own.
    pub(crate) fn worker_processes(&mut self) -> &mut [Process] {
        match self {
            Self::Dev(_) => &mut [],
            Self::Cluster(cluster) => cluster.workers(),
        }
    }
}
