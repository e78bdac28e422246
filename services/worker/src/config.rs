//! What can be set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nova_service_kit::bus::BusSettings;
use nova_telemetry::TraceSettings;
use serde::{Deserialize, Serialize};

/// Settings of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; the same for all its services.
    pub cluster: String,
    /// The bus.
    pub bus: BusSettings,
    /// Coordinators: `http://host:port`; some of them are enough.
    pub coordinators: Vec<String>,
    /// Unique name of this worker.
    pub name: String,
    /// Pool that it belongs to.
    pub pool: String,
    /// Attempts at once, 1 to 100,000.
    pub slots: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its directory: the lock of its name and the last session; nobody else may use it.
    pub data: PathBuf,
    /// Longest drain after a stop signal, in milliseconds; what still runs then is stopped.
    pub drain_ms: u64,
    /// Let work reach this machine and private networks.
    pub allow_private: bool,
    /// Longest time for one request of `http`, in milliseconds.
    pub http_timeout_ms: u64,
    /// File to which every begun and ended attempt is written and synced, for verification; none: not written.
    pub ledger: Option<PathBuf>,
    /// Where metrics and health are served: `host:port`.
    pub observe: String,
    /// Where spans go.
    pub trace: TraceSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "nova".into(),
            bus: BusSettings::default(),
            coordinators: vec!["http://127.0.0.1:7710".into()],
            name: "worker-1".into(),
            pool: "default".into(),
            slots: 64,
            labels: BTreeMap::new(),
            data: "data/worker".into(),
            drain_ms: 30_000,
            allow_private: false,
            http_timeout_ms: 30_000,
            ledger: None,
            observe: "127.0.0.1:7731".into(),
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
        check(!self.name.is_empty() && self.name.len() <= 256, "name: 1 to 256 bytes");
        check(!self.pool.is_empty() && self.pool.len() <= 256, "pool: 1 to 256 bytes");
        check((1..=100_000).contains(&self.slots), "slots: must be 1 to 100000");
        check(self.http_timeout_ms > 0, "http_timeout_ms: must be above 0");
        problems.extend(self.bus.problems());
        problems.extend(self.trace.problems());
        problems
    }
}
