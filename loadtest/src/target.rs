//! What load is put on: real processes, ended when this is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nova_testkit::{Cluster, ClusterOptions, DevCluster, DevOptions, Dir, MembersOptions, Nova, Rest, Usage};

use crate::Error;
use crate::args::{Args, LogKind, TargetName};

/// A target that runs.
#[derive(Debug)]
pub(crate) enum Target {
    Dev(Box<DevCluster>),
    Cluster(Box<Cluster>),
}

impl Target {
    /// Starts it with its data in `dir` and waits until all its parts answer.
    pub(crate) async fn start(nova: &Nova, args: &Args, dir: Dir) -> Result<Self, Error> {
        let (brokers, members) = match args.target {
            TargetName::Embedded | TargetName::Embedded3 => {
                let members = (args.target == TargetName::Embedded3).then_some(3);
                let options = DevOptions { members, ..DevOptions::default() };
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
        let options = ClusterOptions { brokers, members, optimise: true, ..ClusterOptions::default() };
        Ok(Self::Cluster(Box::new(Cluster::start(nova, &options, dir).await?)))
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

    /// What its processes used so far, by kind.
    pub(crate) fn usage(&self) -> Result<BTreeMap<&'static str, Usage>, Error> {
        Ok(match self {
            Self::Dev(dev) => dev.usage()?,
            Self::Cluster(cluster) => cluster.usage()?,
        })
    }

    /// That all its processes run and answer.
    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        const SOON: Duration = Duration::from_secs(10);
        match self {
            Self::Dev(dev) => {
                dev.process().check()?;
                if let Some(members) = dev.members() {
                    members.ready(SOON).await?;
                }
            }
            Self::Cluster(cluster) => cluster.ready(SOON).await?,
        }
        Ok(())
    }
}
