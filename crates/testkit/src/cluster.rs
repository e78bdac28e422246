//! Coordinators, schedulers, workers, triggers and apis as processes of their own, on Kafka.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::members::{serve, sum};
use crate::settings::{Settings, path, texts};
use crate::{Dir, Kafka, Members, MembersOptions, Nova, Process, Rest, Result, Usage, free_ports};

/// Longest wait until a process is ready; debug builds on a busy machine take some seconds each.
const START: Duration = Duration::from_secs(120);

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Kafka brokers: 1 or 3; topics have as many copies.
    pub brokers: u32,
    /// Coordinators.
    pub members: MembersOptions,
    /// Brokers that are quick after a minute of load, and slow before: for measurements.
    pub optimise: bool,
    /// Schedulers.
    pub schedulers: usize,
    /// Workers.
    pub workers: usize,
    /// Trigger services.
    pub triggers: usize,
    /// Apis.
    pub apis: usize,
    /// Slots of each worker.
    pub slots: u32,
    /// Each worker notes its attempts in `worker-<n>.ledger`.
    pub ledger: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let members = MembersOptions { count: 1, ..MembersOptions::default() };
        Self {
            brokers: 1,
            members,
            optimise: false,
            schedulers: 2,
            workers: 2,
            triggers: 0,
            apis: 1,
            slots: 256,
            ledger: false,
        }
    }
}

/// A running cluster. Everything ends when this is dropped: services first, brokers after them.
#[derive(Debug)]
pub struct Cluster {
    apis: Vec<Process>,
    triggers: Vec<Process>,
    workers: Vec<Process>,
    schedulers: Vec<Process>,
    members: Members,
    rests: Vec<Rest>,
    kafka: Kafka,
    dir: Dir,
}

impl Cluster {
    /// Starts brokers, makes topics, starts all services and waits until every worker is connected.
    ///
    /// # Errors
    /// When a part does not start or does not get ready.
    pub async fn start(nova: &Nova, options: &ClusterOptions, dir: Dir) -> Result<Self> {
        let kafka = Kafka::start(options.brokers, options.optimise, &dir.path().join("kafka")).await?;
        let replicas = if options.brokers >= 3 { 3 } else { 1 };
        make_topics(nova, options, &kafka, replicas).await?;
        let members = Members::start(nova, &options.members, dir.path())?;
        let base = Settings::default()
            .with("cluster", options.members.cluster.as_str())
            .with("coordinators", texts(members.urls()))
            .bus(kafka.bootstrap(), replicas);
        let observed = |settings: Settings, observe: u16| settings.with("observe", format!("127.0.0.1:{observe}"));
        let mut cluster = Self {
            apis: Vec::new(),
            triggers: Vec::new(),
            workers: Vec::new(),
            schedulers: Vec::new(),
            members,
            rests: Vec::new(),
            kafka,
            dir,
        };
        let own = cluster.dir.path().to_owned();
        for (number, port) in (1..).zip(free_ports(options.schedulers)?) {
            let name = format!("scheduler-{number}");
            let settings = observed(base.clone(), port);
            cluster.schedulers.push(Process::spawn(serve(nova, "scheduler", &name, &settings, port, &own)?)?);
        }
        for (number, port) in (1..).zip(free_ports(options.workers)?) {
            let name = format!("worker-{number}");
            let mut settings = observed(base.clone(), port)
                .with("name", name.as_str())
                .with("slots", i64::from(options.slots))
                .with("allow_private", true)
                .with("data", path(&own.join(&name)));
            if options.ledger {
                settings = settings.with("ledger", path(&own.join(format!("{name}.ledger"))));
            }
            cluster.workers.push(Process::spawn(serve(nova, "worker", &name, &settings, port, &own)?)?);
        }
        for (number, port) in (1..).zip(free_ports(options.triggers)?) {
            let name = format!("trigger-{number}");
            let settings = observed(base.clone(), port);
            cluster.triggers.push(Process::spawn(serve(nova, "trigger", &name, &settings, port, &own)?)?);
        }
        for (number, port) in free_ports(options.apis)?.into_iter().enumerate() {
            let name = format!("api-{}", number + 1);
            let settings = base
                .clone()
                .with("listen", format!("127.0.0.1:{port}"))
                .with("instance", number as i64)
                .with("history", path(&own.join(&name).join("history.db")));
            cluster.apis.push(Process::spawn(serve(nova, "api", &name, &settings, port, &own)?)?);
            cluster.rests.push(Rest::new(format!("http://127.0.0.1:{port}"))?);
        }
        cluster.ready(START).await?;
        Ok(cluster)
    }

    /// Waits until every process is ready and every worker is connected; for after restarts too.
    ///
    /// # Errors
    /// When a process ended, or at the deadline.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        self.members.ready(within).await?;
        let services = self.schedulers.iter_mut().chain(&mut self.workers).chain(&mut self.triggers);
        for process in services.chain(&mut self.apis) {
            process.ready(within).await?;
        }
        if let Some(rest) = self.rests.first() {
            rest.connected(self.workers.len(), within).await?;
        }
        Ok(())
    }

    /// `kill -9` of all processes but the brokers; [`Cluster::start_all`] starts them again.
    pub fn kill_all(&mut self) {
        self.processes().for_each(Process::kill);
    }

    /// Starts all processes but the brokers again on the same data and ports, and does not wait for them.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.processes().try_for_each(Process::start)
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let services = self.schedulers.iter_mut().chain(&mut self.workers).chain(&mut self.triggers);
        self.members.processes().iter_mut().chain(services).chain(&mut self.apis)
    }

    /// A client of the first api.
    ///
    /// # Panics
    /// When the cluster was made without one.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rests[0]
    }

    /// Clients of all apis.
    #[must_use]
    pub fn rests(&self) -> &[Rest] {
        &self.rests
    }

    /// The coordinators.
    pub fn members(&mut self) -> &mut Members {
        &mut self.members
    }

    /// The schedulers.
    pub fn schedulers(&mut self) -> &mut [Process] {
        &mut self.schedulers
    }

    /// The workers.
    pub fn workers(&mut self) -> &mut [Process] {
        &mut self.workers
    }

    /// The trigger services.
    pub fn triggers(&mut self) -> &mut [Process] {
        &mut self.triggers
    }

    /// Where worker `number`, from 1, notes its attempts, if that was asked for.
    #[must_use]
    pub fn ledger(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("worker-{number}.ledger"))
    }

    /// The apis.
    pub fn apis(&mut self) -> &mut [Process] {
        &mut self.apis
    }

    /// The brokers.
    pub fn kafka(&mut self) -> &mut Kafka {
        &mut self.kafka
    }

    /// The directory with configs, data and output.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What its processes use, by kind: `api`, `scheduler`, `coordinator`, `worker`, `bus`, and `trigger` when there are some.
    ///
    /// # Errors
    /// When a process that should run does not.
    pub fn usage(&self) -> Result<BTreeMap<&'static str, Usage>> {
        let mut usage = BTreeMap::from([
            ("api", sum(&self.apis)?),
            ("scheduler", sum(&self.schedulers)?),
            ("coordinator", self.members.usage()?),
            ("worker", sum(&self.workers)?),
            ("bus", self.kafka.usage()?),
        ]);
        if !self.triggers.is_empty() {
            usage.insert("trigger", sum(&self.triggers)?);
        }
        Ok(usage)
    }
}

async fn make_topics(nova: &Nova, options: &ClusterOptions, kafka: &Kafka, replicas: u16) -> Result<()> {
    let (shards, inboxes) = (options.members.shards.to_string(), options.members.inboxes.to_string());
    let replicas = replicas.to_string();
    let args = ["admin", "topics", "--bootstrap", kafka.bootstrap(), "--shards", &shards];
    nova.run(args.into_iter().chain(["--inboxes", &inboxes, "--replicas", &replicas])).await.map(drop)
}
