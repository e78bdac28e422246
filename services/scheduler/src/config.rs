//! What can be set.

use nova_service_kit::bus::BusSettings;
use nova_telemetry::TraceSettings;
use serde::{Deserialize, Serialize};

/// Settings of a scheduler.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; the same for all its services.
    pub cluster: String,
    /// The bus.
    pub bus: BusSettings,
    /// Coordinators: `http://host:port`; some of them are enough.
    pub coordinators: Vec<String>,
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
            observe: "127.0.0.1:7721".into(),
            trace: TraceSettings::default(),
        }
    }
}

impl Config {
    /// All that is wrong with it, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.cluster.is_empty() {
            problems.push("cluster: must not be empty".into());
        }
        if self.coordinators.is_empty() {
            problems.push("coordinators: at least one address".into());
        }
        problems.extend(self.bus.problems());
        problems.extend(self.trace.problems());
        problems
    }
}
