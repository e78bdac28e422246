//! Facts about a member, as they change.

use std::collections::BTreeSet;

use openraft::async_runtime::WatchReceiver;
use openraft::{BasicNode, ServerState};
use tokio::sync::watch;

use crate::machine::StateMachine;
use crate::types::{Membership, Raft, Types};

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
