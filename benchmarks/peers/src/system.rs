//! The systems, and what is common to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::ValueEnum;
use nova_testkit::{Dir, Nova};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::case::{Amount, Case, Form};
use crate::load::Figures;
use crate::novaflow::NovaFlow;
use crate::restate::Restate;
use crate::temporal::Temporal;

/// A system that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemName {
    /// Restate, one node.
    #[value(name = "restate-1")]
    #[serde(rename = "restate-1")]
    Restate1,
    /// Restate, three nodes.
    #[value(name = "restate-3")]
    #[serde(rename = "restate-3")]
    Restate3,
    /// Temporal on PostgreSQL.
    Temporal,
    /// NovaFlow as `nova dev`.
    Embedded,
    /// NovaFlow: three coordinators, and `nova dev` with everything else.
    #[value(name = "embedded-3")]
    #[serde(rename = "embedded-3")]
    Embedded3,
}

impl SystemName {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Restate1 => "restate-1",
            Self::Restate3 => "restate-3",
            Self::Temporal => "temporal",
            Self::Embedded => "embedded",
            Self::Embedded3 => "embedded-3",
        }
    }

    /// The NovaFlow that gives the same promise; none: this is one.
    #[must_use]
    pub fn counterpart(self) -> Option<Self> {
        match self {
            Self::Restate1 | Self::Temporal => Some(Self::Embedded),
            Self::Restate3 => Some(Self::Embedded3),
            Self::Embedded | Self::Embedded3 => None,
        }
    }

    /// The ways in which it runs steps in sequence that differ in cost.
    pub(crate) fn forms(self) -> &'static [Form] {
        match self {
            Self::Restate1 | Self::Restate3 => &[Form::Inside, Form::Dispatched],
            Self::Temporal => &[Form::Dispatched],
            Self::Embedded | Self::Embedded3 => &[Form::Dispatched, Form::Chained],
        }
    }
}

/// Which build of a system it is, and how it was set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Versions of its parts.
    pub version: String,
    /// What decides on its promises and its speed.
    pub settings: Vec<String>,
}

/// Where programs are and data goes.
#[derive(Debug)]
pub(crate) struct Places {
    pub nova: Option<Nova>,
    pub peers: PathBuf,
    pub data: Option<PathBuf>,
}

impl Places {
    /// A program that `setup.sh` has put there.
    pub(crate) fn peer(&self, what: &'static str, path: &str) -> Result<PathBuf, Error> {
        let path = self.peers.join(path);
        let how = "benchmarks/peers/setup.sh puts it there";
        if path.exists() { Ok(path) } else { Err(Error::Missing { what, path, how }) }
    }

    /// A new directory for data.
    pub(crate) fn dir(&self) -> Result<Dir, Error> {
        let parent = self.data.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Dir::temporary_in(&parent)?)
    }
}

/// A system that runs. Its processes end and its data is removed when this is dropped.
pub(crate) enum System {
    Restate(Box<Restate>),
    Temporal(Box<Temporal>),
    NovaFlow(Box<NovaFlow>),
}

impl System {
    /// Looks whether everything is there that will be started.
    pub(crate) fn look(name: SystemName, places: &Places) -> Result<(), Error> {
        match name {
            SystemName::Restate1 | SystemName::Restate3 => Restate::look(places),
            SystemName::Temporal => Temporal::look(places),
            SystemName::Embedded | SystemName::Embedded3 => NovaFlow::look(places).map(drop),
        }
    }

    /// Starts it with an empty disk and waits until the first execution came back.
    pub(crate) async fn start(name: SystemName, places: &Places) -> Result<Self, Error> {
        Ok(match name {
            SystemName::Restate1 => Self::Restate(Box::new(Restate::start(1, places).await?)),
            SystemName::Restate3 => Self::Restate(Box::new(Restate::start(3, places).await?)),
            SystemName::Temporal => Self::Temporal(Box::new(Temporal::start(places).await?)),
            SystemName::Embedded => Self::NovaFlow(Box::new(NovaFlow::start(1, places).await?)),
            SystemName::Embedded3 => Self::NovaFlow(Box::new(NovaFlow::start(3, places).await?)),
        })
    }

    pub(crate) async fn about(&self) -> Result<About, Error> {
        match self {
            Self::Restate(it) => it.about().await,
            Self::Temporal(it) => it.about().await,
            Self::NovaFlow(it) => it.about().await,
        }
    }

    /// Its processes by kind; those below them belong to them.
    pub(crate) fn processes(&self) -> BTreeMap<&'static str, Vec<u32>> {
        match self {
            Self::Restate(it) => it.processes(),
            Self::Temporal(it) => it.processes(),
            Self::NovaFlow(it) => it.processes(),
        }
    }

    /// Puts load on it; says what is wrong if not every result is right.
    pub(crate) async fn load(
        &self,
        case: &Case,
        in_flight: u32,
        amount: Amount,
        next: &Arc<AtomicU64>,
    ) -> Result<Figures, String> {
        match self {
            Self::Restate(it) => it.question(case).load(it.hosts(), in_flight, amount, next).await,
            Self::Temporal(it) => it.load(case, in_flight, amount, next).await,
            Self::NovaFlow(it) => it.question(case).load(&[it.host()], in_flight, amount, next).await,
        }
    }

    /// That all its processes still run.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self {
            Self::Restate(it) => it.check(),
            Self::Temporal(it) => it.check(),
            Self::NovaFlow(it) => it.check(),
        }
    }
}

/// What a program says of itself, on its first line.
pub(crate) async fn first_line(program: &Path, arguments: &[&str]) -> Result<String, Error> {
    let said = tokio::process::Command::new(program).args(arguments).output().await;
    let said = said.map_err(Error::file("run", program))?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("unknown").trim().to_owned())
}
