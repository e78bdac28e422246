//! All services in one process, on the embedded bus.
//!
//! Owns: which settings make a cluster of one process, in which order its parts begin and end.
//! Must not know: what any part does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_api::Api;
use nova_bus::{BusError, Layout, SharedBus};
use nova_bus_embedded::{EmbeddedBus, OpenBusError};
use nova_client::{Coordinators, Repeat};
use nova_coordinator::{Coordinator, OpenCoordinator};
use nova_journal::{DirLock, LockError};
use nova_scheduler::Scheduler;
use nova_telemetry::MetricsPage;
use nova_trigger::Trigger;
use nova_wire::ClusterId;
use nova_worker::Worker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a cluster of one process is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of all data; nobody else may use it.
    pub data: PathBuf,
    /// Port of the api on 127.0.0.1; 0 picks a free one. The coordinator takes the tenth behind it.
    pub port: u16,
    /// Slots of the worker.
    pub slots: u32,
    /// Let `http` nodes reach this machine and private networks.
    pub allow_private: bool,
    /// Share of submissions that are traced, 0.0 to 1.0, those of triggers too.
    pub trace_ratio: f64,
    /// Where the worker notes each attempt, for verification.
    pub ledger: Option<PathBuf>,
    /// Name of the cluster; data of another one is refused.
    pub cluster: String,
    /// Coordinators that run elsewhere, of the same cluster with [`SHARDS`] shards; none: one runs here.
    pub coordinators: Vec<String>,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process has the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The bus cannot be opened.
    #[error(transparent)]
    OpenBus(#[from] OpenBusError),
    /// The topics cannot be made.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The coordinator ended.
    #[error("coordinator: {0}")]
    Coordinator(#[from] nova_coordinator::RunError),
    /// The worker ended.
    #[error("worker: {0}")]
    Worker(#[from] nova_worker::RunError),
    /// The api ended.
    #[error("api: {0}")]
    Api(#[from] nova_api::RunError),
    /// A port is not known.
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
    /// A part broke off.
    #[error("a part of the process broke off")]
    Broken(#[from] tokio::task::JoinError),
}

/// A cluster that runs.
pub struct AllInOne {
    address: SocketAddr,
    coordinators: Vec<String>,
    parts: Parts,
    stop: CancellationToken,
    _lock: DirLock,
}

struct Parts {
    bus: SharedBus,
    coordinator: Option<JoinHandle<Result<(), nova_coordinator::RunError>>>,
    scheduler: JoinHandle<()>,
    worker: JoinHandle<Result<(), nova_worker::RunError>>,
    trigger: JoinHandle<()>,
    api: JoinHandle<Result<(), nova_api::RunError>>,
    /// Parts end in the order in which work flows, so that each can hand over what it has.
    stops: [CancellationToken; 5],
}

/// The name that a cluster has unless it is given another.
pub const CLUSTER: &str = "dev";
/// Its shards: all of them are in one process, and each costs.
pub const SHARDS: u32 = 8;
/// The one scheduler.
const OWNER: u64 = 1;
/// Pause until the bus is told again where to go on, and the longest wait for the answer that says it.
const RESUME_EVERY: Duration = Duration::from_secs(1);

impl AllInOne {
    /// Starts all parts. It answers as soon as its coordinator leads, which takes a moment.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn start(options: Options, metrics: MetricsPage, stop: CancellationToken) -> Result<Self, RunError> {
        let lock = DirLock::take(&options.data)?;
        let layout = Layout { shards: SHARDS, events: 4, inboxes: 4, apis: 1 };
        // Side by side, since both read all that they have. Each leaves a directory that it refuses as it was, and the
        // coordinator takes part in its group only once the bus is open.
        let (embedded, coordinator) =
            tokio::join!(open_bus(options.data.join("bus"), &options.cluster), open_coordinator(&options, &layout));
        let (embedded, coordinator) = (embedded?, coordinator?);
        let bus: SharedBus = Arc::<EmbeddedBus>::clone(&embedded);
        bus.ensure_topics(&layout.topics()).await?;
        let stops: [CancellationToken; 5] = Default::default();
        let [stop_trigger, stop_api, stop_worker, stop_scheduler, stop_coordinator] = stops.clone();
        let (addresses, coordinators, coordinator) = if let Some((address, coordinator)) = coordinator {
            let coordinator = coordinator.start(stop_coordinator).await?;
            let coordinators = Coordinators::here(coordinator.server());
            (vec![address], coordinators, Some(tokio::spawn(coordinator.run())))
        } else {
            (options.coordinators.clone(), Coordinators::new(options.coordinators.clone()), None)
        };
        let resumed = resume(embedded, coordinators.clone());
        let scheduler =
            nova_scheduler::Config { cluster: options.cluster.clone(), ..nova_scheduler::Config::default() };
        let scheduler = Scheduler::new(&scheduler, coordinators.clone(), Arc::clone(&bus)).with_owner(OWNER);
        let scheduler = tokio::spawn(async move {
            if stop_scheduler.run_until_cancelled(resumed).await.is_some() {
                scheduler.run(stop_scheduler).await;
            }
        });
        let worker = nova_worker::Config {
            cluster: options.cluster.clone(),
            name: "dev".into(),
            slots: options.slots,
            data: options.data.join("worker"),
            drain_ms: 2_000,
            allow_private: options.allow_private,
            ledger: options.ledger,
            ..nova_worker::Config::default()
        };
        let worker = tokio::spawn(Worker::new(worker, coordinators.clone(), Arc::clone(&bus))?.run(stop_worker));
        let trigger = nova_trigger::Config {
            cluster: options.cluster.clone(),
            trace_ratio: options.trace_ratio,
            ..nova_trigger::Config::default()
        };
        let trigger = tokio::spawn(Trigger::new(&trigger, coordinators.clone(), Arc::clone(&bus)).run(stop_trigger));
        let api = nova_api::Config {
            cluster: options.cluster.clone(),
            listen: format!("127.0.0.1:{}", options.port),
            history: options.data.join("api").join("history.db"),
            trace_ratio: options.trace_ratio,
            ..nova_api::Config::default()
        };
        let api = Api::start(api, coordinators, Arc::clone(&bus), metrics, stop_api).await?;
        let address = api.address()?;
        let api = tokio::spawn(api.run());
        let parts = Parts { bus, coordinator, scheduler, worker, trigger, api, stops };
        Ok(Self { address, coordinators: addresses, parts, stop, _lock: lock })
    }

    /// Where the api answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the coordinators answer.
    #[must_use]
    pub fn coordinators(&self) -> &[String] {
        &self.coordinators
    }

    /// Runs until it is stopped; a part that ends by itself ends all.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        let Self { parts, stop, .. } = self;
        let Parts { bus, mut coordinator, mut scheduler, mut worker, mut trigger, mut api, stops } = parts;
        let own = async {
            match &mut coordinator {
                Some(coordinator) => coordinator.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            ended = own => return Ok(ended??),
            ended = &mut worker => return Ok(ended??),
            ended = &mut api => return Ok(ended??),
            ended = &mut scheduler => return Ok(ended?),
            ended = &mut trigger => return Ok(ended?),
        }
        let [stop_trigger, stop_api, stop_worker, stop_scheduler, stop_coordinator] = stops;
        stop_trigger.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(6), trigger).await;
        stop_api.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(6), api).await;
        stop_worker.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(10), worker).await;
        stop_scheduler.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(5), scheduler).await;
        stop_coordinator.cancel();
        if let Some(coordinator) = coordinator {
            let _ = tokio::time::timeout(Duration::from_secs(5), coordinator).await;
        }
        drop(bus);
        Ok(())
    }
}

/// None where coordinators run elsewhere.
async fn open_coordinator(options: &Options, layout: &Layout) -> Result<Option<(String, OpenCoordinator)>, RunError> {
    if !options.coordinators.is_empty() {
        return Ok(None);
    }
    let port = if options.port == 0 { 0 } else { options.port.saturating_add(10) };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|source| nova_coordinator::RunError::Listen { address: format!("127.0.0.1:{port}"), source })?;
    let address = format!("http://{}", listener.local_addr()?);
    let config = coordinator(options, layout, &address);
    Ok(Some((address, Coordinator::open_on(listener.into(), nova_host::Dialer::Tcp, config).await?)))
}

/// Tells the bus where to go on: before, it takes no commands.
async fn resume(bus: Arc<EmbeddedBus>, coordinators: Coordinators) {
    let begun = Instant::now();
    loop {
        let asking = coordinators.call(RESUME_EVERY, Repeat::Read, |mut member| async move {
            member.get_shards(nova_wire::v1::GetShardsRequest {}).await
        });
        // Who is not heard is asked again; the api says all the while that it waits for the coordinators.
        let Ok(answer) = asking.await else { continue };
        let applied = answer.shards.iter().filter_map(|it| Some((it.shard, it.position.as_ref()?.next_offset)));
        match bus.resume(applied).await {
            Ok(()) => {
                tracing::info!(ms = begun.elapsed().as_millis() as u64, "the coordinator leads, and the bus goes on");
                return;
            }
            Err(error) => tracing::error!(%error, "the bus cannot go on; it is tried again"),
        }
        tokio::time::sleep(RESUME_EVERY).await;
    }
}

/// Reading the journal blocks.
async fn open_bus(dir: PathBuf, cluster: &str) -> Result<Arc<EmbeddedBus>, RunError> {
    let own = nova_bus_embedded::Config::new(dir, ClusterId::of_name(cluster).0);
    let config = nova_bus_embedded::Config { early_commands: true, ..own };
    let opening = tokio::task::spawn_blocking(move || EmbeddedBus::open(config));
    Ok(Arc::new(opening.await??))
}

fn coordinator(options: &Options, layout: &Layout, address: &str) -> nova_coordinator::Config {
    nova_coordinator::Config {
        cluster: options.cluster.clone(),
        member: 1,
        members: vec![format!("1@{address}")],
        data: options.data.join("coordinator"),
        shards: layout.shards as u16,
        inboxes: layout.inboxes,
        // Nobody else can lead: an election need not wait for others.
        heartbeat_ms: 50,
        election_min_ms: 100,
        election_max_ms: 200,
        ..nova_coordinator::Config::default()
    }
}
