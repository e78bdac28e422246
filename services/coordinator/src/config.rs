//! What can be set.

use std::path::PathBuf;

use nova_replication::LogKind;
use nova_telemetry::TraceSettings;
use serde::{Deserialize, Serialize};

/// What holds the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogChoice {
    /// Segmented files.
    #[default]
    File,
    /// A sled database.
    Sled,
}

impl From<LogChoice> for LogKind {
    fn from(choice: LogChoice) -> Self {
        match choice {
            LogChoice::File => Self::File,
            LogChoice::Sled => Self::Sled,
        }
    }
}

/// Settings of a coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; the same for all its services, never changed.
    pub cluster: String,
    /// Number of this member, from 1; never one that another member had.
    pub member: u64,
    /// Where it listens: `host:port`.
    pub listen: String,
    /// The first members of a new cluster, this one among them: `1@http://host:port`. Empty for a member that joins an
    /// old cluster.
    pub members: Vec<String>,
    /// Directory of its log and snapshots; nobody else may use it.
    pub data: PathBuf,
    /// What holds the log: `file` or `sled`.
    pub log: LogChoice,
    /// Shards of the cluster, 1 to 1,024; fixed when the cluster is made.
    pub shards: u16,
    /// Partitions of the task topic; each serves at most 8 workers.
    pub inboxes: u32,
    /// Time between two signs of life of the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest wait before an election, in milliseconds.
    pub election_min_ms: u64,
    /// Longest wait before an election, in milliseconds.
    pub election_max_ms: u64,
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
    /// How long a worker's session lasts without renewal, in milliseconds.
    pub session_ttl_ms: u64,
    /// How long a scheduler keeps a shard without renewal, in milliseconds.
    pub shard_lease_ms: u64,
    /// Connections at once, 16 to 65,536; fewer where the process may not have four times as many files open.
    pub max_connections: usize,
    /// Where metrics and health are served: `host:port`.
    pub observe: String,
    /// Where spans go.
    pub trace: TraceSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "nova".into(),
            member: 1,
            listen: "127.0.0.1:7710".into(),
            members: vec!["1@http://127.0.0.1:7710".into()],
            data: "data/coordinator".into(),
            log: LogChoice::File,
            shards: 24,
            inboxes: 64,
            heartbeat_ms: 50,
            election_min_ms: 120,
            election_max_ms: 200,
            snapshot_entries: 50_000,
            session_ttl_ms: 3_000,
            shard_lease_ms: 5_000,
            max_connections: 4_096,
            observe: "127.0.0.1:7711".into(),
            trace: TraceSettings::default(),
        }
    }
}

impl Config {
    /// All that is wrong with it, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, what: &str| {
            if !good {
                problems.push(what.to_owned());
            }
        };
        check(!self.cluster.is_empty(), "cluster: must not be empty");
        check(self.member > 0, "member: numbers begin at 1");
        check((1..=1_024).contains(&self.shards), "shards: must be 1 to 1024");
        check((1..=4_096).contains(&self.inboxes), "inboxes: must be 1 to 4096");
        check(self.heartbeat_ms >= 10, "heartbeat_ms: must be at least 10");
        check(self.election_min_ms > self.heartbeat_ms, "election_min_ms: must be above heartbeat_ms");
        check(self.election_max_ms > self.election_min_ms, "election_max_ms: must be above election_min_ms");
        check((16..=65_536).contains(&self.max_connections), "max_connections: must be 16 to 65536");
        check(self.session_ttl_ms >= 500, "session_ttl_ms: must be at least 500");
        check(self.shard_lease_ms >= 500, "shard_lease_ms: must be at least 500");
        for member in &self.members {
            let parsed = member.split_once('@').and_then(super::parse_member);
            check(parsed.is_some(), &format!("members: '{member}' is not <id>@http://<host>:<port>"));
        }
        problems.extend(self.trace.problems());
        problems
    }
}
