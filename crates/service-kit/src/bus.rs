//! How a service of its own reaches the bus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nova_bus::{BusError, SharedBus};
use nova_bus_kafka::KafkaBus;
use serde::{Deserialize, Serialize};

/// Settings of the bus. Services that are processes of their own meet on Kafka; the embedded bus serves one process.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusSettings {
    /// Kafka brokers: `host:port`, separated by commas.
    pub bootstrap: String,
    /// Prefix of the cluster's topics, so that several clusters can share brokers.
    pub prefix: String,
    /// Copies of each record: 1 or 3.
    pub replicas: u16,
    /// More settings of the client: TLS, SASL. Values are not printed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "redacted")]
    pub properties: BTreeMap<String, String>,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self { bootstrap: "127.0.0.1:9092".into(), prefix: String::new(), replicas: 3, properties: BTreeMap::new() }
    }
}

impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusSettings").field("bootstrap", &self.bootstrap).field("prefix", &self.prefix).finish()
    }
}

fn redacted<S: serde::Serializer>(properties: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(properties.keys().map(|name| (name, "(redacted)")))
}

impl BusSettings {
    fn config(&self) -> nova_bus_kafka::Config {
        let mut config = nova_bus_kafka::Config::new(&*self.bootstrap);
        config.prefix.clone_from(&self.prefix);
        config.replicas = self.replicas;
        config.properties.clone_from(&self.properties);
        config
    }

    /// All that is wrong with it, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.config().problems().into_iter().map(|problem| format!("bus: {problem}")).collect()
    }

    /// A bus; no broker needs to be there yet.
    ///
    /// # Errors
    /// When the settings are not valid.
    pub fn connect(&self) -> Result<SharedBus, BusError> {
        Ok(Arc::new(KafkaBus::connect(self.config())?))
    }
}
