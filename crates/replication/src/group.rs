//! A member's handle on its group.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_journal::{DirLock, LockError};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{BasicNode, ChangeMembers, Config, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::log::{Log, LogKind, LogStats, OpenLogError};
use crate::machine::{Machine, StateMachine};
use crate::network::{Network, SNAPSHOT_PATIENCE};
use crate::server::{self, RaftServer, Service};
use crate::snapshot::{SnapshotDir, SnapshotStats};
use crate::types::{Membership, Opaque, Raft, Types};

/// Entries that stay behind a snapshot, so that a follower that was away shortly needs no snapshot (and openraft does not
/// meet a purged index).
const KEPT_ENTRIES: u64 = 10_000;

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its number; never one that another member had.
    pub member: u64,
    /// The cluster.
    pub cluster: [u8; 16],
    /// Its directory; nobody else may use it.
    pub dir: PathBuf,
    /// What holds the log.
    pub log: LogKind,
    /// Time between two signs of life of the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// A follower waits at least this long for one before it stands for election, in milliseconds.
    pub election_min_ms: u64,
    /// And at most this long.
    pub election_max_ms: u64,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its number.
    pub id: u64,
    /// Where it answers: `http://host:port`.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// What a member is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It gets the log and does not vote.
    Learner,
    /// It stopped.
    Stopped,
}

/// Facts about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Term.
    pub term: u64,
    /// Leader, when one is known.
    pub leader: Option<u64>,
    /// Last entry in its log.
    pub last: u64,
    /// Last entry known to be committed.
    pub committed: u64,
    /// Last entry applied.
    pub applied: u64,
    /// Term of that entry: a leader whose own first entry was applied has it equal to `term`.
    pub applied_term: u64,
    /// Last entry in a snapshot.
    pub snapshot: u64,
    /// All members.
    pub members: Vec<MemberInfo>,
    /// Why it stopped for good; the process must end.
    pub fatal: Option<String>,
}

impl Status {
    /// Where a member answers.
    #[must_use]
    pub fn address(&self, member: u64) -> Option<&str> {
        self.members.iter().find(|it| it.id == member).map(|it| it.address.as_str())
    }

    /// Whether it leads and has applied an entry of its own term: all of its predecessors' entries are applied then.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role == Role::Leader && self.applied_term == self.term
    }
}

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has its directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory is that of another member.
    #[error("{path} belongs to member {found}, not {wanted}")]
    OtherMember {
        /// The directory.
        path: PathBuf,
        /// Its member.
        found: String,
        /// The member that was to start.
        wanted: u64,
    },
    /// openraft did not start.
    #[error("the member did not start: {0}")]
    Raft(String),
}

/// Why a command was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not appended; the leader, when known, may take it.
    #[error("not the leader")]
    NotLeader {
        /// Number and address.
        leader: Option<(u64, String)>,
    },
    /// It may or may not be committed, now or later.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// For people.
        why: String,
    },
    /// The member stopped for good.
    #[error("the member has stopped: {why}")]
    Stopped {
        /// For people.
        why: String,
    },
}

/// Why a linearizable read is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another member leads, perhaps.
    #[error("not the leader")]
    NotLeader {
        /// Number and address.
        leader: Option<(u64, String)>,
    },
    /// No quorum answered in time.
    #[error("no quorum")]
    NoQuorum,
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another member leads, perhaps.
    #[error("not the leader")]
    NotLeader {
        /// Number and address.
        leader: Option<(u64, String)>,
    },
    /// The number was used before: what such a member once promised would be forgotten.
    #[error("member id {id} was used before; take a new one")]
    IdUsed {
        /// The number.
        id: u64,
    },
    /// No member has it, or it is the last one.
    #[error("{0}")]
    Refused(String),
    /// Not done in time.
    #[error("not done in time; look at the members before trying again")]
    Timeout,
}

/// A committed and applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its position.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What the state machine answered.
    pub answer: Bytes,
}

/// A command that was handed over.
pub struct Pending(oneshot::Receiver<ClientWriteResult<Types>>);

impl Pending {
    /// Waits until it is applied.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn reply(self, limit: Duration) -> Result<Reply, ProposeError> {
        let unknown = |why: &str| ProposeError::OutcomeUnknown { why: why.into() };
        match tokio::time::timeout(limit, self.0).await {
            Ok(Ok(Ok(done))) => {
                Ok(Reply { index: done.log_id.index, term: done.log_id.leader_id.term, answer: done.data.0 })
            }
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: leader(&forward) })
            }
            Ok(Ok(Err(error))) => Err(unknown(&error.to_string())),
            Ok(Err(_)) => Err(unknown("the member stopped")),
            Err(_) => Err(unknown("no answer in time")),
        }
    }
}

fn leader(forward: &ForwardToLeader<Types>) -> Option<(u64, String)> {
    Some((forward.leader_id?, forward.leader_node.as_ref()?.addr.clone()))
}

/// A member's handle on its group.
pub struct Group<M: StateMachine> {
    raft: Raft<M>,
    log: Log,
    status: watch::Receiver<Status>,
    seen: Arc<Mutex<BTreeSet<u64>>>,
    config: GroupConfig,
    snapshots: SnapshotDir,
    _lock: Arc<DirLock>,
}

impl<M: StateMachine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            log: self.log.clone(),
            status: self.status.clone(),
            seen: Arc::clone(&self.seen),
            config: self.config.clone(),
            snapshots: self.snapshots.clone(),
            _lock: Arc::clone(&self._lock),
        }
    }
}

impl<M: StateMachine> Group<M> {
    /// Starts a member: takes its directory, restores the newest snapshot, reads the log.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: GroupConfig, machine: M) -> Result<Self, StartError> {
        let raft_config = Config {
            cluster_name: "nova".into(),
            heartbeat_interval: config.heartbeat_ms,
            election_timeout_min: config.election_min_ms,
            election_timeout_max: config.election_max_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries.max(1)),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            max_payload_entries: 64,
            install_snapshot_timeout: SNAPSHOT_PATIENCE.as_millis() as u64,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let raft_config = raft_config.validate().map_err(|error| StartError::Raft(error.to_string()))?;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening, machine)).await;
        let (lock, log, machine, snapshots) = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        let seen = machine.seen();
        let network = Network { cluster: config.cluster };
        let raft = Raft::<M>::new(config.member, Arc::new(raft_config), network, log.clone(), machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let status = watch_status(&raft);
        Ok(Self { raft, log, status, seen, config, snapshots, _lock: Arc::new(lock) })
    }

    /// The service that other members call.
    #[must_use]
    pub fn server(&self) -> RaftServer {
        server::serve(Service {
            raft: self.raft.clone(),
            cluster: self.config.cluster,
            member: self.config.member,
            snapshots: self.snapshots.clone(),
        })
    }

    /// Makes these the first members of a new group; one that is not new stays as it is.
    ///
    /// # Errors
    /// When the member stopped or the members are not valid.
    pub async fn initialize(&self, members: BTreeMap<u64, String>) -> Result<(), StartError> {
        let failed = |error: String| StartError::Raft(error);
        if self.raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let nodes: BTreeMap<_, _> = members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        match self.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            // Another first member was quicker, and its log has come.
            Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Hands a command over. Commands are appended in the order in which these calls return.
    ///
    /// # Errors
    /// When the member stopped.
    pub async fn propose(&self, command: Bytes) -> Result<Pending, ProposeError> {
        let (responder, answer) = ProgressResponder::<Types, ClientWriteResult<Types>>::complete_only();
        let handed = self.raft.client_write_ff(Opaque(command), Some(responder)).await;
        handed.map_err(|error| ProposeError::Stopped { why: error.to_string() })?;
        Ok(Pending(answer))
    }

    /// Waits until all that was committed before the call is applied here; only the leader can say.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self, limit: Duration) -> Result<(), ReadError> {
        let reading = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(limit, reading).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(read_error(error)),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    /// Asks a quorum, in a round that begins after the call, whether this member still leads; gives its term.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn confirm_leadership(&self, limit: Duration) -> Result<u64, ReadError> {
        let asking = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(limit, asking).await {
            Ok(Ok(_)) => Ok(self.status.borrow().term),
            Ok(Err(error)) => Err(read_error(error)),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    /// Facts, as they change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Facts about the log.
    #[must_use]
    pub fn log_stats(&self) -> LogStats {
        self.log.stats()
    }

    /// Facts about snapshots.
    #[must_use]
    pub fn snapshot_stats(&self) -> SnapshotStats {
        self.snapshots.stats()
    }

    /// Takes a member in: it gets the log first and votes once it has it.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_member(&self, id: u64, address: String, limit: Duration) -> Result<(), MembershipError> {
        let known = self.status.borrow().members.iter().any(|member| member.id == id && member.address == address);
        if !known && self.seen.lock().contains(&id) {
            return Err(MembershipError::IdUsed { id });
        }
        let adding = async {
            self.raft.add_learner(id, BasicNode { addr: address }, true).await.map_err(membership_error)?;
            let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            self.raft.change_membership(voters, false).await.map_err(membership_error)
        };
        tokio::time::timeout(limit, adding).await.map_err(|_| MembershipError::Timeout)??;
        Ok(())
    }

    /// Lets a member go.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove_member(&self, id: u64, limit: Duration) -> Result<(), MembershipError> {
        let members = self.status.borrow().members.clone();
        if !members.iter().any(|member| member.id == id) {
            return Err(MembershipError::Refused(format!("no member {id}")));
        }
        if members.len() == 1 {
            return Err(MembershipError::Refused("the last member cannot be removed".into()));
        }
        let removing = async {
            if members.iter().any(|member| member.id == id && member.voter) {
                let gone = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
                self.raft.change_membership(gone, false).await.map_err(membership_error)?;
            } else {
                let gone = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
                self.raft.change_membership(gone, false).await.map_err(membership_error)?;
            }
            Ok(())
        };
        tokio::time::timeout(limit, removing).await.map_err(|_| MembershipError::Timeout)?
    }

    /// Writes a snapshot now, and waits for it; gives the last entry in it.
    ///
    /// # Errors
    /// When it is not done in time.
    pub async fn snapshot(&self, limit: Duration) -> Result<u64, ProposeError> {
        let wanted = self.status.borrow().applied;
        let stopped = |why: String| ProposeError::Stopped { why };
        self.raft.trigger().snapshot().await.map_err(|error| stopped(error.to_string()))?;
        let mut status = self.status.clone();
        let done = tokio::time::timeout(limit, status.wait_for(|status| status.snapshot >= wanted)).await;
        match done {
            Ok(Ok(status)) => Ok(status.snapshot),
            Ok(Err(error)) => Err(stopped(error.to_string())),
            Err(_) => Err(ProposeError::OutcomeUnknown { why: "the snapshot is not done in time".into() }),
        }
    }

    /// Stops the member; its directory is free once all handles are gone.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the member did not stop well");
        }
        self.log.close();
    }
}

type Opened<M> = (DirLock, Log, Machine<M>, SnapshotDir);

fn open<M: StateMachine>(config: &GroupConfig, machine: M) -> Result<Opened<M>, StartError> {
    let lock = DirLock::take(&config.dir)?;
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| StartError::Io { path, source }
    };
    let name = config.dir.join("member");
    match std::fs::read_to_string(&name) {
        Ok(found) if found.trim() == config.member.to_string() => {}
        Ok(found) => {
            let (path, found) = (config.dir.clone(), found.trim().to_owned());
            return Err(StartError::OtherMember { path, found, wanted: config.member });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            nova_journal::write_file(&name, format!("{}\n", config.member).as_bytes()).map_err(failed(&name))?;
        }
        Err(error) => return Err(failed(&name)(error)),
    }
    let log = match config.log {
        LogKind::File => config.dir.join("log"),
        LogKind::Sled => config.dir.join("log.sled"),
    };
    let log = Log::open(config.log, &log, config.cluster)?;
    let dir = config.dir.join("snapshots");
    let snapshots = SnapshotDir::open(dir.clone(), config.cluster).map_err(failed(&dir))?;
    let machine = Machine::open(machine, snapshots.clone()).map_err(failed(&dir))?;
    Ok((lock, log, machine, snapshots))
}

fn read_error<E>(error: RaftError<Types, E>) -> ReadError
where
    E: openraft::TryAsRef<ForwardToLeader<Types>> + std::fmt::Debug,
{
    match error {
        RaftError::APIError(error) => match error.try_as_ref() {
            Some(forward) => ReadError::NotLeader { leader: leader(forward) },
            None => ReadError::NoQuorum,
        },
        RaftError::Fatal(_) => ReadError::NotLeader { leader: None },
    }
}

fn membership_error(error: RaftError<Types, ClientWriteError<Types>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: leader(&forward) }
        }
        other => MembershipError::Refused(other.to_string()),
    }
}

fn members(membership: &Membership) -> Vec<MemberInfo> {
    let voters: BTreeSet<_> = membership.voter_ids().collect();
    let info =
        |(id, node): (&u64, &BasicNode)| MemberInfo { id: *id, address: node.addr.clone(), voter: voters.contains(id) };
    membership.nodes().map(info).collect()
}

pub(crate) fn watch_status<M: StateMachine>(raft: &Raft<M>) -> watch::Receiver<Status> {
    let mut metrics = raft.metrics();
    let read = |metrics: &openraft::RaftMetrics<Types>| Status {
        role: match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        },
        term: metrics.current_term,
        leader: metrics.current_leader,
        last: metrics.last_log_index.unwrap_or(0),
        committed: metrics.local_committed.map_or(0, |id| id.index),
        applied: metrics.last_applied.map_or(0, |id| id.index),
        applied_term: metrics.last_applied.map_or(0, |id| id.leader_id.term),
        snapshot: metrics.snapshot.map_or(0, |id| id.index),
        members: members(metrics.membership_config.membership()),
        fatal: metrics.running_state.as_ref().err().map(ToString::to_string),
    };
    let (sender, receiver) = watch::channel(read(&metrics.borrow_watched()));
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let status = read(&metrics.borrow_watched());
            sender.send_if_modified(|before| {
                let changed = *before != status;
                *before = status;
                changed
            });
        }
        sender.send_modify(|status| status.role = Role::Stopped);
    });
    receiver
}
