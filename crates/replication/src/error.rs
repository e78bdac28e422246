//! Why something is not done.

use std::io;
use std::path::PathBuf;

use nova_journal::LockError;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};

use crate::log::OpenLogError;
use crate::types::Types;

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
    /// The directory is that of a member of another cluster.
    #[error("{path} belongs to another cluster, {found}")]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: String,
    },
    /// Entries between the newest snapshot and the log are gone: going on would skip them.
    #[error(
        "{path} lacks entries {from} to {to}: its newest snapshot is older than its log; restore the newer one, or take the \
         member out and let it in again, empty, under a new number"
    )]
    EntriesMissing {
        /// The directory.
        path: PathBuf,
        /// First missing entry.
        from: u64,
        /// Last missing entry.
        to: u64,
    },
    /// openraft did not start.
    #[error("the member did not start: {0}")]
    Raft(String),
}

/// Why a directory was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Somebody's data is there.
    #[error("{path} is not empty: name a directory that is not there yet")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// It is no member's.
    #[error("{path} is not the directory of a member that has begun")]
    NoMember {
        /// The directory.
        path: PathBuf,
    },
    /// A process runs on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log cannot be opened.
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
    /// The directory is that of a member of another cluster.
    #[error("{path} belongs to another cluster, {found}")]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: String,
    },
    /// A version wrote it that did not say of which cluster it is.
    #[error("{path} does not tell its cluster: name it")]
    NoCluster {
        /// The file.
        path: PathBuf,
    },
    /// Its log does not go on where its snapshot ends.
    #[error("{path} lacks entries {from} to {to}: its newest snapshot is older than its log")]
    EntriesMissing {
        /// The directory.
        path: PathBuf,
        /// First missing entry.
        from: u64,
        /// Last missing entry.
        to: u64,
    },
    /// There is no majority to be lost.
    #[error("{path} belongs to member {member}, the only one of its group: start it, nothing is lost")]
    Alone {
        /// The directory.
        path: PathBuf,
        /// Its number.
        member: u64,
    },
    /// A member had the number: what it once promised would be forgotten.
    #[error("member number {member} was used before; take a new one")]
    NumberUsed {
        /// The number.
        member: u64,
    },
    /// They make no group.
    #[error("these members make no group: {0}")]
    Members(String),
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

pub(crate) fn leader(forward: &ForwardToLeader<Types>) -> Option<(u64, String)> {
    Some((forward.leader_id?, forward.leader_node.as_ref()?.addr.clone()))
}

pub(crate) fn read_error<E>(error: RaftError<Types, E>) -> ReadError
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

pub(crate) fn membership_error(error: RaftError<Types, ClientWriteError<Types>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: leader(&forward) }
        }
        other => MembershipError::Refused(other.to_string()),
    }
}
