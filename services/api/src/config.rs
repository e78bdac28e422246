//! What can be set.

use std::path::PathBuf;

use nova_service_kit::bus::BusSettings;
use nova_telemetry::TraceSettings;
use serde::{Deserialize, Serialize};

/// Settings of an api.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; the same for all its services.
    pub cluster: String,
    /// The bus.
    pub bus: BusSettings,
    /// Coordinators: `http://host:port`; some of them are enough.
    pub coordinators: Vec<String>,
    /// Where it listens: `host:port`.
    pub listen: String,
    /// Its partition of the reply topic, from 0; no other api has the same.
    pub instance: u32,
    /// The file of its history.
    pub history: PathBuf,
    /// Connections at once, 16 to 65,536; fewer where the process may not have four times as many files open.
    pub max_connections: usize,
    /// Bytes of all request bodies that are being read or worked on; above it 503 is answered.
    pub max_bodies_bytes: usize,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Submissions of one shard that wait for their answer; above it 429 is answered.
    pub window: usize,
    /// Submissions of all shards that are not decided yet; above it 429 is answered to who has more than an equal part.
    pub max_undecided: usize,
    /// Answers that take no longer than this are never a reason to refuse, 5 to 10,000 milliseconds. Above, they are when
    /// they take three times as long as when the cluster was calm.
    pub quick_answer_ms: u64,
    /// Open executions of a shard above which 429 is answered, 1 to 1,000,000. At the latter the engine would reject.
    pub max_open_per_shard: u64,
    /// Records that the owner of a shard has not read yet, above which 429 is answered.
    pub max_read_lag: u64,
    /// Longest wait for the commit of a submission, in milliseconds; then 504 is answered.
    pub patience_ms: u64,
    /// Longest `Prefer: wait`, in seconds.
    pub max_wait_seconds: u64,
    /// Share of submissions without `traceparent` that are traced, 0.0 to 1.0.
    pub trace_ratio: f64,
    /// Where spans go.
    pub trace: TraceSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "nova".into(),
            bus: BusSettings::default(),
            coordinators: vec!["http://127.0.0.1:7710".into()],
            listen: "127.0.0.1:7700".into(),
            instance: 0,
            history: "data/api/history.db".into(),
            max_connections: 4_096,
            max_bodies_bytes: 128 << 20,
            max_body_bytes: 1 << 20,
            window: 4_096,
            max_undecided: 4_096,
            quick_answer_ms: 100,
            max_open_per_shard: 900_000,
            max_read_lag: 20_000,
            patience_ms: 10_000,
            max_wait_seconds: 60,
            trace_ratio: 0.0,
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
        check(!self.coordinators.is_empty(), "coordinators: at least one address");
        check((1_024..=64 << 20).contains(&self.max_body_bytes), "max_body_bytes: must be 1024 to 67108864");
        check(self.max_bodies_bytes >= self.max_body_bytes, "max_bodies_bytes: must not be below max_body_bytes");
        check((16..=65_536).contains(&self.max_connections), "max_connections: must be 16 to 65536");
        check(self.window > 0, "window: must be above 0");
        check(self.max_undecided > 0, "max_undecided: must be above 0");
        check((5..=10_000).contains(&self.quick_answer_ms), "quick_answer_ms: must be 5 to 10000");
        check((1..=1_000_000).contains(&self.max_open_per_shard), "max_open_per_shard: must be 1 to 1000000");
        check(self.max_read_lag > 0, "max_read_lag: must be above 0");
        check(self.patience_ms > 0, "patience_ms: must be above 0");
        check((0.0..=1.0).contains(&self.trace_ratio), "trace_ratio: must be 0.0 to 1.0");
        problems.extend(self.bus.problems());
        problems.extend(self.trace.problems());
        problems
    }
}
