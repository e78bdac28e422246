//! One session after the other, until the worker is told to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use nova_bus::{BusError, SharedBus, Topic};
use nova_client::Coordinators;
use nova_execution::Registry;
use nova_executors::{Egress, EgressConfig, EgressError};
use nova_journal::{DirLock, LockError};
use nova_plants::Plant;
use nova_wire::ClusterId;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::feed::Feed;
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::memory::{self, Memory};
use crate::metrics::{self as names, Attempts};
use crate::name::Name;
use crate::renewal::Renewal;
use crate::results::Results;
use crate::validity::Validity;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
/// How often gauges are set.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process has its directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its directory or ledger cannot be read or written.
    #[error("cannot use {path}")]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its directory was used in another cluster.
    #[error("{path} belongs to another cluster, {found}: give the worker a directory of its own")]
    ForeignCluster {
        /// The file that says so.
        path: PathBuf,
        /// That cluster.
        found: String,
    },
    /// Its HTTP client cannot be built.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The coordinators will never take it under this name or with these settings.
    #[error("the worker is refused: {0}")]
    Refused(String),
    /// An attempt holds a thread although it was told to stop; only the end of the process ends it.
    #[error("attempt {token} does not stop")]
    Stuck {
        /// Its token.
        token: u64,
    },
}

/// A worker.
pub struct Worker {
    pub(crate) config: Config,
    bus: SharedBus,
    pub(crate) coordinators: Coordinators,
    pub(crate) registry: Registry,
    pub(crate) attempts: BTreeMap<&'static str, Attempts>,
    pub(crate) cluster: ClusterId,
    memory: Memory,
    pub(crate) ledger: Ledger,
    pub(crate) boot: u64,
    _lock: DirLock,
}

/// How a session went.
pub(crate) enum Next {
    Again,
    Stop,
}

impl Worker {
    /// A worker with the executors that are built in. Takes its directory.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn new(config: Config, coordinators: Coordinators, bus: SharedBus) -> Result<Self, RunError> {
        let egress = Egress::new(EgressConfig {
            allow_private: config.allow_private,
            timeout: Duration::from_millis(config.http_timeout_ms),
            ..EgressConfig::default()
        })?;
        Self::with(config, coordinators, bus, nova_executors::registry(egress))
    }

    /// A worker with executors of its own. Takes its directory.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn with(
        config: Config,
        coordinators: Coordinators,
        bus: SharedBus,
        registry: Registry,
    ) -> Result<Self, RunError> {
        let lock = DirLock::take(&config.data)?;
        let cluster = ClusterId::of_name(&config.cluster);
        let memory = memory::load(&config.data, cluster)?;
        let ledger = Ledger::open(config.ledger.as_deref())
            .map_err(|source| RunError::Data { path: config.ledger.clone().unwrap_or_default(), source })?;
        Ok(Self {
            coordinators,
            attempts: Attempts::of(registry.kinds()),
            registry,
            cluster,
            ledger,
            memory,
            boot: rand::random(),
            config,
            bus,
            _lock: lock,
        })
    }

    /// Works until `stop`; then it drains, as long as the config says.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let mut name = Name::new(&self.memory);
        while !stop.is_cancelled() {
            match self.session(&mut name, &stop).await? {
                Next::Again => {}
                Next::Stop => break,
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn session(&self, name: &mut Name, stop: &CancellationToken) -> Result<Next, RunError> {
        // Positions first: an assignment may come as soon as the registration is applied.
        let ends = match self.inbox_ends().await {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(%error, "the task topic cannot be reached");
                return Ok(Next::Again);
            }
        };
        let asked = Instant::now();
        let session = tokio::select! {
            session = name.register(self) => session?,
            () = stop.cancelled() => return Ok(Next::Stop),
        };
        let Some(session) = session else { return Ok(Next::Again) };
        let ends =
            if nova_plants::is(Plant::RegisterBeforeSeek) { self.inbox_ends().await.unwrap_or(ends) } else { ends };
        counter!(names::SESSIONS).increment(1);
        tracing::info!(worker = session.worker, session = session.session, inbox = session.inbox, "session opened");
        let Some(from) = ends.get(session.inbox as usize).copied() else {
            return Err(RunError::Refused(format!("inbox {} is not a partition of the task topic", session.inbox)));
        };
        let reader = match self.bus.reader() {
            Ok(reader) => reader,
            Err(_) => return Ok(Next::Again),
        };
        let mut feed = Feed::new(reader, session.inbox, from);
        let validity = Arc::new(Validity::new(session.valid_until(asked)));
        let results = Arc::new(Results::new(Arc::clone(&self.bus), self.cluster, validity.over().clone()));
        let inbox = Inbox::new(self.cluster, session);
        let renewal = Renewal {
            coordinators: self.coordinators.clone(),
            session,
            validity: Arc::clone(&validity),
            holding: Arc::clone(&results.holding),
            seen: Arc::clone(&inbox.seen),
            last: AtomicU64::new(0),
        };
        let renewing = tokio::spawn(renewal.keep());
        let read = Arc::new(AtomicU64::new(from));
        let lag = lag(Arc::clone(&self.bus), session.inbox, Arc::clone(&read));
        tokio::spawn(validity.over().clone().run_until_cancelled_owned(lag));
        let live = Live { worker: self, session, results, inbox, read, validity };
        let next = live.run(&mut feed, renewing, stop).await?;
        for gauge in [names::RUNNING, names::OLDEST, names::RESULTS_WAITING, names::LAG] {
            gauge!(gauge).set(0.0);
        }
        Ok(next)
    }

    async fn inbox_ends(&self) -> Result<Vec<u64>, BusError> {
        let missing = || BusError::NoSuchPartition { topic: Topic::Tasks, partition: 0 };
        let count = self.bus.partitions(&Topic::Tasks).await?.ok_or_else(missing)?;
        let mut ends = Vec::with_capacity(count as usize);
        for partition in 0..count {
            ends.push(self.bus.offsets(&Topic::Tasks, partition).await?.end);
        }
        Ok(ends)
    }
}

/// Looks every second how far the inbox is read.
async fn lag(bus: SharedBus, inbox: u32, read: Arc<AtomicU64>) {
    loop {
        if let Ok(range) = bus.offsets(&Topic::Tasks, inbox).await {
            gauge!(names::LAG).set(range.end.saturating_sub(read.load(Ordering::Relaxed)) as f64);
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}
