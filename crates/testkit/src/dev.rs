//! `nova dev`: a cluster in one process, with its coordinator inside or three of them outside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::members::quiet;
use crate::{Dir, Launch, Members, MembersOptions, Nova, Process, Readiness, Rest, Result, Usage, free_ports_apart};

/// Longest wait until it answers; a debug build on a busy machine takes some seconds.
const START: Duration = Duration::from_secs(60);
/// Its coordinator listens this far behind its api.
const COORDINATOR: u16 = 10;

/// What a development cluster is made with.
#[derive(Clone, Debug, Default)]
pub struct DevOptions {
    /// Coordinators as processes of their own; none: one runs inside.
    pub members: Option<usize>,
    /// Write the ledger of attempts to `ledger` in the directory.
    pub ledger: bool,
    /// More flags of `nova dev`.
    pub flags: Vec<String>,
    /// A program with its arguments that becomes `nova dev`, such as `env NAME=value`; none: it is started itself.
    pub wrapper: Vec<String>,
}

/// A running `nova dev`. It ends when this is dropped.
#[derive(Debug)]
pub struct DevCluster {
    process: Process,
    members: Option<Members>,
    /// Where the one inside answers.
    coordinator: String,
    rest: Rest,
    // Last: it is removed when nobody writes into it any more.
    dir: Dir,
}

impl DevCluster {
    /// Starts one with its data in a temporary directory, and waits until it answers.
    ///
    /// # Errors
    /// When a process does not start or does not get ready.
    pub async fn start(nova: &Nova) -> Result<Self> {
        Self::start_in(nova, &DevOptions::default(), Dir::temporary()?).await
    }

    /// Starts one with its data in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When a process does not start or does not get ready.
    pub async fn start_in(nova: &Nova, options: &DevOptions, dir: Dir) -> Result<Self> {
        let mut members = match options.members {
            None => None,
            Some(count) => {
                // What `nova dev` expects of coordinators outside.
                let settings = MembersOptions { count, cluster: "dev".into(), shards: 8, ..MembersOptions::default() };
                Some(Members::start(nova, &settings, dir.path())?)
            }
        };
        if let Some(members) = &mut members {
            members.ready(START).await?;
        }
        // Its ports stay the same over restarts, so that clients and the coordinator's own log find it again.
        let port = free_ports_apart(&[0, COORDINATOR])?;
        let data = dir.path().join("data");
        let (program, mut args) = match options.wrapper.split_first() {
            None => (nova.path().to_owned(), Vec::new()),
            Some((program, args)) => {
                (program.into(), args.iter().map(OsString::from).chain([nova.path().into()]).collect())
            }
        };
        args.extend(["dev", "--announce", "--data"].map(Into::into));
        args.push(data.into_os_string());
        args.extend(["--port".into(), port.to_string().into()]);
        for url in members.as_ref().map(Members::urls).unwrap_or_default() {
            args.extend(["--coordinator".into(), url.into()]);
        }
        if options.ledger {
            args.extend(["--ledger".into(), dir.path().join("ledger").into_os_string()]);
        }
        args.extend(options.flags.iter().map(Into::into));
        let launch = Launch {
            name: "dev".into(),
            program,
            args,
            env: quiet(),
            dir: dir.path().to_owned(),
            readiness: Readiness::Announced,
        };
        let rest = Rest::new(format!("http://127.0.0.1:{port}"))?;
        let coordinator = format!("http://127.0.0.1:{}", port + COORDINATOR);
        let mut cluster = Self { process: Process::spawn(launch)?, members, coordinator, rest, dir };
        cluster.process.ready(START).await?;
        Ok(cluster)
    }

    /// A client of its api.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The `nova dev` process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id while it was not ended from here.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its coordinators, when they are processes of their own.
    pub fn members(&mut self) -> Option<&mut Members> {
        self.members.as_mut()
    }

    /// Where its coordinators answer, wherever they run.
    #[must_use]
    pub fn coordinators(&self) -> Vec<String> {
        match &self.members {
            Some(members) => members.urls().to_vec(),
            None => vec![self.coordinator.clone()],
        }
    }

    /// `kill -9`; what was accepted goes on with [`DevCluster::restart`].
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and ports, and waits until it answers; one that runs is killed first.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.start()?;
        self.process.ready(START).await.map(drop)
    }

    /// `kill -9` of all its processes, coordinators too; [`DevCluster::start_all`] starts them again.
    pub fn kill_all(&mut self) {
        self.process.kill();
        self.members.iter_mut().flat_map(Members::processes).for_each(Process::kill);
    }

    /// Starts all its processes again on the same data and ports, and does not wait for them.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        for process in self.members.iter_mut().flat_map(Members::processes) {
            process.start()?;
        }
        self.process.start()
    }

    /// Waits until all its processes answer; for after [`DevCluster::start_all`].
    ///
    /// # Errors
    /// When one ended, or at the deadline.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        if let Some(members) = &mut self.members {
            members.ready(within).await?;
        }
        self.process.ready(within).await.map(drop)
    }

    /// Where the attempts are noted, if that was asked for.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// The directory with data and output.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What its processes use, by kind: `all_in_one`, and `coordinator` when there are some outside.
    ///
    /// # Errors
    /// When a process that should run does not.
    pub fn usage(&self) -> Result<BTreeMap<&'static str, Usage>> {
        let mut by_kind = BTreeMap::from([("all_in_one", self.process.usage()?)]);
        if let Some(members) = &self.members {
            by_kind.insert("coordinator", members.usage()?);
        }
        Ok(by_kind)
    }
}
