//! A member's handle on its group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_host::{Dialer, blocking};
use nova_journal::DirLock;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{BasicNode, ChangeMembers, Config, ReadPolicy, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::error::{MembershipError, ProposeError, ReadError, StartError, leader, membership_error, read_error};
use crate::log::{Log, LogKind, LogStats};
use crate::machine::StateMachine;
use crate::network::{Network, SNAPSHOT_PATIENCE};
use crate::open::{Opened, open};
use crate::repair::Copy;
use crate::server::{self, Own, RaftServer, Service};
use crate::snapshot::{DiskSpace, SnapshotDir, SnapshotStats};
use crate::status::{Status, watch_status};
use crate::types::{Opaque, Raft, Types};

/// Entries after which it is asked whether a snapshot is due. An entry may have a megabyte, and what was applied since the
/// last snapshot is applied again after a restart.
const ASKED_EVERY: u64 = 16;
/// After so long a snapshot that is waited for is asked for again: openraft drops what is asked while it looks whether one
/// is due.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
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
    /// Entries between two snapshots, at most: entries of many bytes make for more of them.
    pub snapshot_entries: u64,
    /// How other members are reached.
    pub dialer: Dialer,
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

/// A member whose directory is open, and that takes no part in its group yet.
pub struct OpenGroup<M: StateMachine> {
    config: GroupConfig,
    /// None once it has started.
    opened: Option<Opened<M>>,
}

impl<M: StateMachine> Drop for OpenGroup<M> {
    fn drop(&mut self) {
        // Its thread holds the files open.
        if let Some((_, log, ..)) = &self.opened {
            log.close();
        }
    }
}

impl<M: StateMachine> OpenGroup<M> {
    /// Takes part in the group from now on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(mut self) -> Result<Group<M>, StartError> {
        let opened = self.opened.take().expect("it starts once");
        Group::over(self.config.clone(), opened).await
    }
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
    /// Starts a member: opens its directory, and takes part in the group.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: GroupConfig, machine: M) -> Result<Self, StartError> {
        Self::open(config, machine).await?.start().await
    }

    /// Takes the directory of a member, restores the newest snapshot, reads the log. Votes and entries stay as they are.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open(config: GroupConfig, machine: M) -> Result<OpenGroup<M>, StartError> {
        let opening = config.clone();
        let opened = blocking::run(move || open(&opening, machine)).await;
        let opened = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        Ok(OpenGroup { config, opened: Some(opened) })
    }

    async fn over(config: GroupConfig, opened: Opened<M>) -> Result<Self, StartError> {
        let raft_config = Config {
            cluster_name: "nova".into(),
            heartbeat_interval: config.heartbeat_ms,
            election_timeout_min: config.election_min_ms,
            election_timeout_max: config.election_max_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries.clamp(1, ASKED_EVERY)),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            max_payload_entries: 64,
            install_snapshot_timeout: SNAPSHOT_PATIENCE.as_millis() as u64,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let raft_config = raft_config.validate().map_err(|error| StartError::Raft(error.to_string()))?;
        let (lock, log, machine, snapshots) = opened;
        let seen = machine.seen();
        let network = Network { cluster: config.cluster, dialer: config.dialer.clone() };
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
            own: Own { cluster: self.config.cluster, member: self.config.member },
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
        self.snapshots.want();
        let mut status = self.status.clone();
        let asking = async {
            loop {
                self.raft.trigger().snapshot().await.map_err(|error| stopped(error.to_string()))?;
                let done = status.wait_for(|status| status.snapshot >= wanted);
                match tokio::time::timeout(ASKED_AGAIN, done).await {
                    Ok(Ok(status)) => return Ok(status.snapshot),
                    Ok(Err(error)) => return Err(stopped(error.to_string())),
                    Err(_) => {}
                }
            }
        };
        let late = || ProposeError::OutcomeUnknown { why: "the snapshot is not done in time".into() };
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))
    }

    /// Writes a snapshot now, of all that is applied here, and gives it. It stays readable while the member goes on.
    ///
    /// # Errors
    /// When it is not done in time, or cannot be read.
    pub async fn copy(&self, limit: Duration) -> Result<Copy, ProposeError> {
        let index = self.snapshot(limit).await?;
        let failed = |why: String| ProposeError::OutcomeUnknown { why };
        let file = self.snapshots.current().ok_or_else(|| failed(format!("snapshot {index} is gone")))?;
        let reading = file.clone();
        let body = blocking::run(move || reading.body()).await.map_err(|error| failed(error.to_string()))?;
        let body = body.map_err(|error| failed(error.to_string()))?;
        let meta = &file.header().meta;
        let (last, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let members = meta.last_membership.membership().nodes();
        Ok(Copy {
            index: last,
            term,
            members: members.map(|(id, node)| (*id, node.addr.clone())).collect(),
            used: file.header().seen.iter().copied().collect(),
            bytes: file.bytes(),
            body: Box::new(body),
        })
    }

    /// Numbers of all members that ever were.
    #[must_use]
    pub fn used_members(&self) -> BTreeSet<u64> {
        self.seen.lock().clone()
    }

    /// Where the warning is that this group was recovered without a majority, if nobody has removed it yet; and what it says.
    #[must_use]
    pub fn unread_warning(&self) -> Option<(PathBuf, String)> {
        crate::repair::unread_warning(&self.config.dir)
    }

    /// Room on the disk of the member's data; it blocks, shortly.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn disk(&self) -> std::io::Result<DiskSpace> {
        self.snapshots.space()
    }

    /// Stops the member; its directory is free once all handles are gone.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the member did not stop well");
        }
        self.log.close();
    }
}
