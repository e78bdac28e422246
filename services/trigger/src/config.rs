//! What can be set.

use nova_service_kit::bus::BusSettings;
use nova_telemetry::TraceSettings;
use serde::{Deserialize, Serialize};

/// Settings of a trigger service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; the same for all its services.
    pub cluster: String,
    /// Coordinators: `http://host:port`; some of them are enough.
    pub coordinators: Vec<String>,
    /// The bus.
    pub bus: BusSettings,
    /// Records of one partition that are submitted and not yet applied, 1 to 100,000; with more, the partition is not
    /// read. A position is asked for about once per half of this.
    pub window: u64,
    /// Open executions of a shard above which triggers start nothing more there, 1 to 1,000,000. At the latter the
    /// engine would reject.
    pub max_open_per_shard: u64,
    /// Records that the owner of a shard has not read yet, above which triggers start nothing more there.
    pub max_read_lag: u64,
    /// Where metrics and health are served: `host:port`.
    pub observe: String,
    /// Share of started executions that are traced, 0.0 to 1.0.
    pub trace_ratio: f64,
    /// Where spans go.
    pub trace: TraceSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "nova".into(),
            coordinators: vec!["http://127.0.0.1:7710".into()],
            bus: BusSettings::default(),
            window: 4_096,
            max_open_per_shard: 800_000,
            max_read_lag: 100_000,
            observe: "127.0.0.1:7741".into(),
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
        check((1..=100_000).contains(&self.window), "window: must be 1 to 100000");
        check((1..=1_000_000).contains(&self.max_open_per_shard), "max_open_per_shard: must be 1 to 1000000");
        check(self.max_read_lag > 0, "max_read_lag: must be above 0");
        check((0.0..=1.0).contains(&self.trace_ratio), "trace_ratio: must be 0.0 to 1.0");
        problems.extend(self.bus.problems());
        problems.extend(self.trace.problems());
        problems
    }
}
