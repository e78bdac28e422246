//! A member of the replicated state.
//!
//! Owns: the engine behind the Raft log, the leader's clock, leases of shards, sessions of workers, the gRPC service.
//! Must not know: the bus, expressions, what a payload says.
//!
//! ```text
//! requests ─▶ proposer: one Raft entry for all that is waiting ─▶ log ─▶ machine: engine ─▶ verdicts
//!                                                                            │
//! schedulers ◀─ subscriptions: outbox, offers ◀────────── view of the state ─┘
//! ```

pub mod backup;
mod clock;
mod clocks;
mod config;
mod level;
mod machine;
mod metrics;
mod proposer;
mod reads;
mod service;
mod sessions;
mod shards;
mod status;
mod subscribe;
mod ticker;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use nova_host::{Dialer, Door, Listener, Patience, Visitor};
use nova_replication::{Group, GroupConfig, OpenGroup, StartError};
use nova_wire::ClusterId;
use nova_wire::v1::coordinator_server::{self, CoordinatorServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use tower::util::MapRequestLayer;

use clock::{Clock, SharedClock};
pub use config::{Config, LogChoice};
use machine::{EngineMachine, View};
use proposer::Proposer;
use service::Service;
use sessions::Sessions;
use shards::ShardLeases;

/// At the end, how long requests that are under way may take.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
/// Requests of one connection at once.
const STREAMS: u32 = 1_024;
/// Bytes of the head of a request.
const HEAD_BYTES: u32 = 16 << 10;
/// Streams that a peer has opened and reset before they were looked at; one more ends the connection.
const RESETS: usize = 128;
/// Streams that were reset because of what the peer did on them; one more ends the connection.
const ERRORS: usize = 1_024;

/// Why a coordinator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its server failed.
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    /// What level was in force cannot be read.
    #[error("cannot use {path}")]
    Level {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A level is in force that this build does not know.
    #[error(
        "{path}: the cluster is at feature level {found}, and this build knows {known} and no higher one: start the build that \
         it was upgraded to"
    )]
    NewerLevel {
        /// The file.
        path: std::path::PathBuf,
        /// The level in force.
        found: u32,
        /// The highest known here.
        known: u32,
    },
    /// It must not go on: a fault of its disk, or an entry that it does not understand.
    #[error("the member stopped: {0}")]
    Fatal(String),
}

/// A coordinator that is ready to run.
pub struct Coordinator {
    listener: Listener,
    group: Group<EngineMachine>,
    service: Arc<Service>,
    clock: SharedClock,
    dialer: Dialer,
    max_connections: usize,
    data: std::path::PathBuf,
    /// By number.
    members: BTreeMap<u64, String>,
}

/// A coordinator whose directory is open, and that takes no part in its group yet.
pub struct OpenCoordinator {
    listener: Listener,
    dialer: Dialer,
    config: Config,
    view: Arc<View>,
    group: OpenGroup<EngineMachine>,
}

impl Coordinator {
    /// Opens the port, the log and the newest snapshot. It works from [`Coordinator::run`] on, until `stop`.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn start(config: Config, stop: CancellationToken) -> Result<Self, RunError> {
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|source| RunError::Listen { address: config.listen.clone(), source })?;
        Self::open_on(listener.into(), Dialer::Tcp, config).await?.start(stop).await
    }

    /// As [`Coordinator::start`], on a port that is open; it takes no part in its group before [`OpenCoordinator::start`].
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn open_on(listener: Listener, dialer: Dialer, config: Config) -> Result<OpenCoordinator, RunError> {
        level::check(&config.data)?;
        if let Some((path, text)) = nova_replication::unread_warning(&config.data) {
            let path = path.display();
            tracing::warn!(%path, text, "this group was recovered without a majority; remove the file once that is dealt with");
        }
        let view = Arc::new(View::new(config.shards));
        let cluster = ClusterId::of_name(&config.cluster);
        let group_config = GroupConfig {
            member: config.member,
            cluster: cluster.0,
            dir: config.data.clone(),
            log: config.log.into(),
            heartbeat_ms: config.heartbeat_ms,
            election_min_ms: config.election_min_ms,
            election_max_ms: config.election_max_ms,
            snapshot_entries: config.snapshot_entries,
            dialer: dialer.clone(),
        };
        let group = Group::open(group_config, EngineMachine::new(Arc::clone(&view))).await?;
        Ok(OpenCoordinator { listener, dialer, config, view, group })
    }

    /// For clients within this process.
    #[must_use]
    pub fn server(&self) -> CoordinatorServer<impl coordinator_server::Coordinator + use<>> {
        CoordinatorServer::from_arc(Arc::clone(&self.service))
            .max_decoding_message_size(nova_client::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(nova_client::MAX_MESSAGE_BYTES)
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        let service = self.server();
        let Self { listener, group, service: own, clock, dialer, max_connections, data, members } = self;
        // The first of the configured members founds the group; a new member of an old group has no such list.
        if members.keys().next() == Some(&own.member) {
            group.initialize(members).await?;
        }
        let (view, proposer) = (Arc::clone(&own.view), own.proposer.clone());
        let background = [
            tokio::spawn(level::keep(data, Arc::clone(&own.view))),
            tokio::spawn(clocks::run(group.clone(), own.member, dialer, Arc::clone(&clock))),
            tokio::spawn(ticker::run(group.clone(), Arc::clone(&view), clock, proposer.clone())),
            tokio::spawn(metrics::run(group.clone(), view, own.leases.clone(), proposer)),
        ];
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<CoordinatorServer<Service>>().await;
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(std::time::Duration::from_secs(5)))
            .max_concurrent_streams(Some(STREAMS))
            .http2_max_header_list_size(Some(HEAD_BYTES))
            .http2_max_pending_accept_reset_streams(Some(RESETS))
            .http2_max_local_error_reset_streams(Some(ERRORS))
            .initial_stream_window_size(Some(4 << 20))
            .initial_connection_window_size(Some(16 << 20))
            .layer(MapRequestLayer::new(note_request))
            .add_service(group.server())
            .add_service(health_service)
            .add_service(service);
        let door = Door::new(max_connections, Patience::DEFAULT);
        let stopped = own.stop.clone().cancelled_owned();
        let serving = server.serve_with_incoming_shutdown(listener.through(door), stopped);
        let stop = own.stop.clone();
        let overtime = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let result = tokio::select! {
            result = serving => result.map_err(RunError::Serve),
            // A leader goes on sending to a member that is about to end, and its stream with it.
            () = overtime => Ok(()),
            why = fatal(&group) => Err(RunError::Fatal(why)),
        };
        for task in background {
            task.abort();
        }
        group.shutdown().await;
        result
    }
}

impl OpenCoordinator {
    /// Takes part in the group from now on; it works from [`Coordinator::run`] on, until `stop`.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn start(self, stop: CancellationToken) -> Result<Coordinator, RunError> {
        let Self { listener, dialer, config, view, group } = self;
        let group = group.start().await?;
        let cluster = ClusterId::of_name(&config.cluster);
        let clock = SharedClock::new(Clock::new());
        let proposer = Proposer::start(group.clone(), Arc::clone(&view), Arc::clone(&clock));
        let sessions = Sessions::start(group.clone(), Arc::clone(&view), proposer.clone(), config.session_ttl_ms);
        let leases = ShardLeases::new(group.clone(), Arc::clone(&view), proposer.clone(), config.shard_lease_ms);
        let (member, inboxes) = (config.member, config.inboxes);
        let cluster_name = config.cluster.clone();
        let service = Service {
            cluster,
            cluster_name,
            member,
            inboxes,
            dialer: dialer.clone(),
            group: group.clone(),
            view,
            proposer,
            sessions,
            leases,
            stop,
        };
        let members = config.members.iter().filter_map(|member| member.split_once('@')).filter_map(parse_member);
        let (members, max_connections, data) = (members.collect(), config.max_connections, config.data);
        let service = Arc::new(service);
        Ok(Coordinator { listener, group, service, clock, dialer, max_connections, data, members })
    }
}

/// Tells the door that the connection is of use. The peer shows that it lives by answering pings.
fn note_request<B>(request: http::Request<B>) -> http::Request<B> {
    if let Some(visitor) = request.extensions().get::<Visitor>() {
        drop(visitor.asks(true));
    }
    request
}

fn parse_member((id, address): (&str, &str)) -> Option<(u64, String)> {
    Some((id.parse().ok()?, address.to_owned()))
}

fn fatal(group: &Group<EngineMachine>) -> impl Future<Output = String> + use<> {
    let mut status = group.status();
    async move {
        let why = status.wait_for(|status| status.fatal.is_some()).await.map(|status| status.fatal.clone());
        match why {
            Ok(why) => why.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}
